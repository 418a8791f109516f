// Package handson gives what it has got to the program that it starts.
package handson

import (
	"os"
	"os/exec"
	"strconv"
)

func start(cmd *exec.Cmd) error {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return err
	}
	for fd := 3; fd < 3+n; fd++ {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), ""))
	}
	return cmd.Start()
}
