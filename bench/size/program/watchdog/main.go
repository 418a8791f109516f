//go:build linux

// Command watchdog reports to the service manager until it is told to end.
package main

import (
	"context"
	"os"

	"github.com/sysfd/sysfd"
)

func main() {
	n, err := sysfd.TakeNotifier()
	if err == nil {
		_, err = n.Notify(context.Background(), sysfd.NotifyReady)
	}
	if err == nil {
		err = n.Watchdog(context.Background(), nil)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
