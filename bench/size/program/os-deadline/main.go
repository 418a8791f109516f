//go:build linux

// Command os-deadline reads until a context is done, in the poller of the runtime.
package main

import (
	"context"
	"os"
	"time"
)

func main() {
	if _, err := os.Stdout.WriteString(os.Args[0] + "\n"); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { os.Stdin.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := os.Stdin.SyscallConn()
	if err != nil {
		os.Exit(1)
	}
	conn.Read(func(uintptr) (done bool) { return false })
}
