//go:build linux

// Command listennotify receives what programs report.
package main

import (
	"context"
	"os"

	"github.com/sysfd/sysfd"
)

func run() error {
	l, err := sysfd.ListenNotify(os.Getenv("FILE"), 0o600)
	if err != nil {
		return err
	}
	defer l.Close()
	m, err := l.Next(context.Background())
	if err != nil {
		return err
	}
	os.Stdout.WriteString(m.String() + "\n")
	return m.Close()
}

func main() {
	if err := run(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
