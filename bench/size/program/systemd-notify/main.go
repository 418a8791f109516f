//go:build linux

// Command systemd-notify does what notify does, with github.com/coreos/go-systemd.
package main

import (
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
)

func main() {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=up"); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
