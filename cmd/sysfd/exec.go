//go:build linux

package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

// execute becomes another program, and passes on what was passed to this one.
func execute(c *call) error {
	c.ignoreSignalFlag()
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return usageError("a PROGRAM is missing")
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
