// Package commands does one thing or the other.
package commands

import (
	"os/exec"
	"syscall"
)

type command struct{ action func() }

var commands = []command{
	{func() {
		for {
			syscall.Wait4(-1, nil, 0, nil)
		}
	}},
	{run},
}

func run() { exec.Command("ps").Run() }

func setUp(c *command) { c.action = run }

func main() { commands[len(commands)-1].action() }
