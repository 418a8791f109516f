//go:build unix && !linux

package sysfd

import (
	"os"
	"syscall"
)

func dupConn(c syscall.Conn) (fd int, err error) {
	conn, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	var errDup error
	err = conn.Control(func(old uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, errDup = syscall.Dup(int(old)); errDup == nil {
			syscall.CloseOnExec(fd)
		}
	})
	if err != nil {
		return -1, err
	}
	if errDup != nil {
		return -1, os.NewSyscallError("dup", errDup)
	}
	return fd, nil
}
