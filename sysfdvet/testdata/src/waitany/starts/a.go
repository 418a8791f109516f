// Package starts waits for the child that it starts, and for no other way to hear of it.
package starts

import (
	"os/exec"
	"syscall"
)

func run(cmd *exec.Cmd) {
	cmd.Start()
	for {
		if pid, _ := syscall.Wait4(-1, nil, 0, nil); pid == cmd.Process.Pid {
			return
		}
	}
}
