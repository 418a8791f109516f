//go:build linux

// Command net-sysfd makes listeners of what it was passed, and reports that it has started.
package main

import (
	"context"
	"os"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/activation"
)

func main() {
	listeners, err := activation.Listeners()
	if err == nil {
		_, err = sysfd.Notify(context.Background(), sysfd.NotifyReady)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	for _, l := range listeners {
		l.Close()
	}
}
