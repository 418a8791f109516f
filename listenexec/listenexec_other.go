//go:build !linux

// Package listenexec passes descriptors to the program of an [exec.Cmd]. This system has no socket
// activation by $LISTEN_FDS.
package listenexec

import (
	"errors"
	"os"
	"os/exec"
)

// Start calls cmd.Start if there are no files, and otherwise returns an error that matches
// [errors.ErrUnsupported].
func Start(cmd *exec.Cmd, files ...*os.File) error {
	if len(files) > 0 {
		return errors.ErrUnsupported
	}
	return cmd.Start()
}
