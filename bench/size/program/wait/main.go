//go:build linux

// Command wait waits for the end of a process.
package main

import (
	"context"
	"os"

	"github.com/sysfd/sysfd"
)

func run() error {
	p, err := sysfd.OpenPidFD(os.Getppid(), 0)
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := p.Wait(context.Background(), 0)
	if err != nil {
		return err
	}
	os.Stdout.WriteString(r.String() + "\n")
	return nil
}

func main() {
	if err := run(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
