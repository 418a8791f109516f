//go:build linux

package main

import (
	"fmt"

	"github.com/sysfd/sysfd"
)

func id(c *call) error {
	ref := c.Bool("ref", false, "print PID:ID, which names the process for as long as the machine runs")
	if err := c.parse(); err != nil {
		return err
	}
	return c.eachProcess(func(arg string, p *sysfd.PidFD, err error) error {
		if err != nil {
			return err
		}
		id, err := p.ID()
		if err != nil {
			return err
		}
		if !*ref {
			fmt.Fprintln(c.out, id)
			return nil
		}
		pid, err := p.PID()
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, sysfd.ProcessRef{PID: pid, ID: id})
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
