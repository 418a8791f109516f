//go:build linux

package main

import (
	"fmt"

	"github.com/sysfd/sysfd"
)

func id(c *call) error {
	ref := c.Bool("ref", false, "print PID:ID@BOOTID+PIDNAMESPACE, which is never the name of another process")
	if err := c.parse(); err != nil {
		return err
	}
	return c.eachProcess(func(arg string, p *sysfd.PidFD, err error) error {
		if err != nil {
			return err
		}
		defer p.Close()
		var name fmt.Stringer
		if *ref {
			name, err = p.Ref()
		} else {
			name, err = p.ID()
		}
		if err == nil {
			fmt.Fprintln(c.out, name)
		}
		return err
	})
}

func pidfdID(pid int) (sysfd.PidFDID, error) {
	p, err := sysfd.OpenPidFD(pid, 0)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return p.ID()
}
