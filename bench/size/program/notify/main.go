//go:build linux

// Command notify reports to the service manager that it has started.
package main

import (
	"context"
	"os"

	"github.com/sysfd/sysfd"
)

func main() {
	if _, err := sysfd.Notify(context.Background(), sysfd.NotifyReady, sysfd.NotifyStatus("up")); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
