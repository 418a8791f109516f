//go:build linux

// Command os-poller reads until a deadline, in the poller of the runtime.
package main

import (
	"os"
	"time"
)

func main() {
	if _, err := os.Stdout.WriteString(os.Args[0] + "\n"); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdin.SetReadDeadline(time.Now().Add(time.Second))
	conn, err := os.Stdin.SyscallConn()
	if err != nil {
		os.Exit(1)
	}
	conn.Read(func(uintptr) (done bool) { return false })
}
