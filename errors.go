//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// A callError is a system call that failed.
type callError struct {
	call    string        // as strace prints it
	subject string        // what it was asked about, "" = nothing worth naming
	errno   syscall.Errno // what it answered
	means   error         // what that means here beyond what errno says itself, or nil
}

func (e *callError) Error() string {
	s := e.call
	if e.subject != "" {
		s += " " + e.subject
	}
	s += ": " + e.errno.Error()
	if e.means == errors.ErrUnsupported || e.errno == syscall.ENOSYS {
		s += " (this kernel does not have it)"
	}
	return s
}

func (e *callError) Unwrap() error { return os.NewSyscallError(e.call, e.errno) }

func (e *callError) Is(target error) bool { return e.means != nil && target == e.means }

// An inputError tells what the caller gave that will not do.
type inputError struct {
	text  string
	errno syscall.Errno
	means error // as in callError
}

func (e *inputError) Error() string { return e.text }

func (e *inputError) Unwrap() error { return e.errno }

func (e *inputError) Is(target error) bool { return e.means != nil && target == e.means }

// fdSubject is how errors name a descriptor.
func fdSubject(fd int) string { return "of descriptor " + strconv.Itoa(fd) }

// outOfResources tells whether err is no news about a file.
func outOfResources(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// orReaped says of an error of a call that makes a pidfd that the process was
// reaped, where that is the only thing that can have been wrong with it: EINVAL
// before Linux 6.15, ESRCH since (kernel/fork.c, pidfd_prepare).
func (e *callError) orReaped() error {
	if e.errno == syscall.EINVAL || e.errno == syscall.ESRCH {
		e.means = os.ErrProcessDone
	}
	return e
}
