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
	note    string        // what a person should know besides, "" = nothing
}

// failed returns the error of a system call.
func failed(call, subject string, errno syscall.Errno) *callError {
	return &callError{call: call, subject: subject, errno: errno}
}

// as says what e means here.
func (e *callError) as(means error) *callError {
	e.means = means
	return e
}

// but adds what a person should know who reads e.
func (e *callError) but(note string) *callError {
	e.note = note
	return e
}

// notHere does not blame the kernel alone. A new one may have it all the same, and not be asked:
// gVisor and qemu-user answer in its place, and so does a seccomp filter.
const notHere = " (not supported by this kernel, or hidden by a sandbox, emulator or filter)"

func (e *callError) Error() string {
	s := e.call
	if e.subject != "" {
		s += " " + e.subject
	}
	s += ": " + e.errno.Error()
	if e.means == errors.ErrUnsupported || e.errno == syscall.ENOSYS {
		s += notHere
	}
	if e.note != "" {
		s += " (" + e.note + ")"
	}
	return s
}

func (e *callError) Unwrap() error { return os.NewSyscallError(e.call, e.errno) }

func (e *callError) Is(target error) bool { return e.means != nil && target == e.means }

// An inputError says what is wrong with what the caller gave.
type inputError struct {
	text  string
	errno syscall.Errno
	means error // as in callError
}

// refused returns an error that reads as text and matches errno.
func refused(errno syscall.Errno, text string) *inputError {
	return &inputError{text: text, errno: errno}
}

// as says what e means here.
func (e *inputError) as(means error) *inputError {
	e.means = means
	return e
}

func (e *inputError) Error() string { return e.text }

func (e *inputError) Unwrap() error { return e.errno }

func (e *inputError) Is(target error) bool { return e.means != nil && target == e.means }

// fdSubject is how errors name a descriptor.
func fdSubject(fd int) string { return "of descriptor " + strconv.Itoa(fd) }

// lacksIoctl reports whether a kernel answers so to an ioctl that it does not know: with ENOTTY in
// most cases, with EINVAL for a pidfd on Linux 6.9 to 6.12, with ENOSYS in emulators and sandboxes.
// EOPNOTSUPP is an answer of the ioctl itself.
func lacksIoctl(errno syscall.Errno) bool {
	return errno == syscall.ENOTTY || errno == syscall.EINVAL || errno == syscall.ENOSYS
}

// outOfResources reports whether err says nothing about a file.
func outOfResources(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}
