//go:build linux

package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

// execute becomes another program, to which it hands on what it was passed.
func execute(c *call) error {
	c.ignoreSignalFlag()
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
	program, err := lookPath(c.Arg(0))
	if err != nil {
		return err
	}
	return c.become(program, c.Args(), environ)
}
