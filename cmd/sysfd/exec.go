//go:build linux

package main

import (
	"os"
	"os/exec"
	"syscall"

	"github.com/sysfd/sysfd"
)

// execute becomes another program, to which it hands on what it was passed.
func execute(c *call) error {
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return usageError("-- PROGRAM is missing")
	}
	// Before anything else opens a descriptor.
	environ, err := sysfd.RenewListenEnv(os.Environ())
	if err != nil {
		return err
	}
	program, err := exec.LookPath(c.Arg(0))
	if err != nil {
		return err
	}
	return &os.PathError{Op: "execve", Path: program, Err: syscall.Exec(program, c.Args(), environ)}
}
