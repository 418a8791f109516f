//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/sysfd/sysfd"
)

func id(c *call) error {
	ref := c.Bool("ref", false, "print PID:ID, which names the process for as long as the machine runs")
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return usageError("a PID is missing")
	}
	var pids []int
	for _, arg := range c.Args() {
		pid := os.Getpid()
		if arg != "self" {
			n, err := strconv.ParseInt(arg, 10, 32)
			if err != nil || n <= 0 {
				return usageError(fmt.Sprintf("%q is not a PID", arg))
			}
			pid = int(n)
		}
		pids = append(pids, pid)
	}
	var failed error
	for _, pid := range pids {
		id, err := pidfdID(pid)
		switch {
		case err != nil:
			fmt.Fprintf(c.err, "sysfd id: process %d: %v\n", pid, err)
			failed = errSaid
		case *ref:
			fmt.Fprintf(c.out, "%d:%d\n", pid, id)
		default:
			fmt.Fprintf(c.out, "%d\n", id)
		}
	}
	return failed
}

func pidfdID(pid int) (sysfd.PidFDID, error) {
	p, err := sysfd.OpenPidFD(pid, 0)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return p.ID()
}
