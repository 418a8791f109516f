//go:build linux

// Command http-systemd does what http-sysfd does, with github.com/coreos/go-systemd.
package main

import (
	"net/http"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

func main() {
	listeners, err := activation.Listeners()
	if err == nil {
		_, err = daemon.SdNotify(false, daemon.SdNotifyReady)
	}
	if err == nil {
		err = http.Serve(listeners[0], nil)
	}
	os.Stderr.WriteString(err.Error() + "\n")
	os.Exit(1)
}
