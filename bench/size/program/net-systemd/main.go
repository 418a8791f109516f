//go:build linux

// Command net-systemd does what net-sysfd does, with github.com/coreos/go-systemd.
package main

import (
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

func main() {
	listeners, err := activation.Listeners()
	if err == nil {
		_, err = daemon.SdNotify(false, daemon.SdNotifyReady)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	for _, l := range listeners {
		l.Close()
	}
}
