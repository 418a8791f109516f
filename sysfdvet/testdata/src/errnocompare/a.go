package errnocompare

import (
	"errors"
	"os"
	"syscall"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

func bad(pid int) bool {
	p, err := sysfd.OpenPidFD(pid, 0)
	if err == unix.ESRCH { // want `an error of package sysfd is never unix.ESRCH itself, on all machines: ask errors.Is`
		return false
	}
	if err != syscall.EINVAL { // want `never syscall.EINVAL itself`
		return false
	}
	if errors.ErrUnsupported == err { // want `never errors.ErrUnsupported itself`
		return false
	}
	err = p.SendSignal(0)
	if os.ErrProcessDone == err || err == sysfd.ErrNotPidFD { // want `never os.ErrProcessDone` `never sysfd.ErrNotPidFD`
		return false
	}
	switch err { // want `never one of these itself`
	case nil:
		return true
	case unix.ESRCH, unix.ENODATA:
		return false
	}
	if errno, ok := err.(syscall.Errno); ok { // want `never a syscall.Errno itself`
		return errno == 0
	}
	return true
}

func reused(pid int) bool {
	_, err := sysfd.OpenPidFD(pid, 0)
	if err == nil {
		err = unix.Kill(pid, 0)
		if err == unix.ESRCH {
			return true
		}
	}
	return err == unix.ESRCH // may be either
}

func good(pid int) bool {
	p, err := sysfd.OpenPidFD(pid, 0)
	if err == nil || errors.Is(err, unix.ESRCH) {
		return true
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno == unix.ESRCH {
		return true
	}
	if err := unix.Kill(pid, 0); err == unix.ESRCH {
		return false
	}
	switch err := unix.Kill(pid, 0); err {
	case unix.ESRCH:
		return false
	}
	if err := p.Verify(func() error { return unix.Kill(pid, 0) }); err == unix.ESRCH {
		return false
	}
	return p.Close() == os.ErrClosed
}

func wrapped(pid int) error {
	_, err := sysfd.OpenPidFD(pid, 0)
	return err
}

func throughHelper(pid int) bool {
	return wrapped(pid) == os.ErrProcessDone // want `never os.ErrProcessDone itself`
}
