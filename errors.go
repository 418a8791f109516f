//go:build !plan9

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// A callError is a system call that failed.
type callError struct {
	_       [0]func()     // without ==, which is code in every program
	call    string        // as strace prints it
	subject string        // what the call was about, "" = nothing worth naming
	errno   syscall.Errno // what the kernel answered
	means   error         // what errno means here in addition, such as os.ErrProcessDone, or nil
	note    string        // more for people, "" = nothing
}

// failed returns the error of a system call.
func failed(call, subject string, errno syscall.Errno) *callError {
	return &callError{call: call, subject: subject, errno: errno}
}

// as sets what e means here.
func (e *callError) as(means error) *callError {
	e.means = means
	return e
}

// but adds what a person who reads e should know.
func (e *callError) but(note string) *callError {
	e.note = note
	return e
}

// notHere does not blame the kernel alone. A new kernel may support the call without being asked:
// gVisor, qemu-user and seccomp filters answer in its place.
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

// An inputError says what is wrong with the caller's input.
type inputError struct {
	_     [0]func() // as in callError
	text  string
	errno syscall.Errno
	means error // as in callError
}

// refused returns an error that reads as text and matches errno.
func refused(errno syscall.Errno, text string) *inputError {
	return &inputError{text: text, errno: errno}
}

// as sets what e means here.
func (e *inputError) as(means error) *inputError {
	e.means = means
	return e
}

func (e *inputError) Error() string { return e.text }

func (e *inputError) Unwrap() error { return e.errno }

func (e *inputError) Is(target error) bool { return e.means != nil && target == e.means }

// quote is strconv.Quote, but escapes all that is not ASCII. That knows what Unicode can print, and
// makes a program 10 KB larger.
func quote(s string) string {
	const digits = "0123456789abcdef"
	b := append(make([]byte, 0, len(s)+2), '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case ' ' <= c && c <= '~':
			b = append(b, c)
		default:
			b = append(b, '\\', 'x', digits[c>>4], digits[c&15])
		}
	}
	return string(append(b, '"'))
}

// errnoIn returns the errno in err, or 0. errors.As uses reflection, which makes a program 25 KB
// larger.
func errnoIn(err error) syscall.Errno {
	for err != nil {
		if errno, ok := err.(syscall.Errno); ok {
			return errno
		}
		err = errors.Unwrap(err)
	}
	return 0
}

// fdSubject is how errors name a descriptor.
func fdSubject(fd int) string { return "of descriptor " + strconv.Itoa(fd) }

// lacksIoctl reports whether errno is what a kernel answers to an ioctl that it does not know:
// ENOTTY in most cases, EINVAL for a pidfd on Linux 6.9 to 6.12, ENOSYS in emulators and sandboxes.
// EOPNOTSUPP is an answer of the ioctl itself.
func lacksIoctl(errno syscall.Errno) bool {
	return errno == syscall.ENOTTY || errno == syscall.EINVAL || errno == syscall.ENOSYS
}

// outOfResources reports whether err is about the resources of the caller, and not about a file.
func outOfResources(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}
