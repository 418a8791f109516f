//go:build linux

package main

import (
	"fmt"

	"github.com/sysfd/sysfd"
)

func id(c *call) error {
	ref := c.Bool("ref", false, "print a REF, by which the other commands find this process and no other")
	if err := c.parse(); err != nil {
		return err
	}
	return c.eachProcess(func(arg string, p *sysfd.PidFD, err error) error {
		if err != nil {
			return err
		}
		defer p.Close()
		if !*ref {
			id, err := p.ID()
			if err == nil {
				fmt.Fprintln(c.out, id)
			}
			return err
		}
		name, err := p.RefOrSecondBest()
		if err != nil {
			return err
		}
		if name.ID == 0 {
			c.say("process %s: this kernel has no pidfd IDs; the REF contains the start time instead, the second best", arg)
		}
		fmt.Fprintln(c.out, name)
		return nil
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
