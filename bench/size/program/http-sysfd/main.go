//go:build linux

// Command http-sysfd serves HTTP on the sockets that it was passed, and reports that it has started.
package main

import (
	"context"
	"net/http"
	"os"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/activation"
)

func main() {
	listeners, err := activation.Listeners()
	if err == nil {
		_, err = sysfd.Notify(context.Background(), sysfd.NotifyReady)
	}
	if err == nil {
		err = http.Serve(listeners[0], nil)
	}
	os.Stderr.WriteString(err.Error() + "\n")
	os.Exit(1)
}
