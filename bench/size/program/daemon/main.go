//go:build linux

// Command daemon receives its sockets, and reports that it has started.
package main

import (
	"context"
	"os"

	"github.com/sysfd/sysfd"
)

func main() {
	files, err := sysfd.ListenFDs()
	if err == nil {
		_, err = sysfd.Notify(context.Background(), sysfd.NotifyReady)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	for _, f := range files {
		os.Stdout.WriteString(f.Name() + "\n")
	}
}
