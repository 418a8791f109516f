//go:build linux

// Command http serves HTTP on a passed socket, with the standard library alone.
package main

import (
	"net"
	"net/http"
	"os"
)

func main() {
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err == nil {
		err = http.Serve(l, nil)
	}
	os.Stderr.WriteString(err.Error() + "\n")
	os.Exit(1)
}
