//go:build linux

// Command pidfd opens a pidfd, and sends a signal.
package main

import (
	"os"
	"syscall"

	"github.com/sysfd/sysfd"
)

func run() error {
	p, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer p.Close()
	id, err := p.ID()
	if err != nil {
		return err
	}
	os.Stdout.WriteString(id.String() + "\n")
	return p.SendSignal(syscall.SIGCONT)
}

func main() {
	if err := run(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
