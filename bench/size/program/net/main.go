//go:build linux

// Command net makes a listener of a passed socket, with package net alone.
package main

import (
	"net"
	"os"
)

func main() {
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	l.Close()
}
