//go:build linux && go1.26

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// PidFDOf returns a pidfd of p that is independent of p: it stays open when p is waited for or
// released, and changes to it, such as making it non-blocking, do not affect p. Its Wait, and that
// of a [WaitSet], leave it to p, or to the [os/exec.Cmd] that p is from, to reap the process, as
// with [WaitNoReap]. PidFDOf requires Go 1.26, which has [os.Process.WithHandle].
//
// If someone else has reaped the process, or the kernel has because SIGCHLD is ignored, PidFDOf
// returns a pidfd of a process that is done. Wait returns its status since Linux 6.15.
//
// Errors:
//   - an error that matches [os.ErrProcessDone] if p was waited for;
//   - EINVAL if p was released;
//   - an error that matches [errors.ErrUnsupported] if p has no handle, because then the process
//     with its PID may be another one.
func PidFDOf(p *os.Process) (*PidFD, error) {
	if p == nil {
		return nil, os.ErrInvalid
	}
	var q *PidFD
	var err error
	pid := p.Pid
	errHandle := p.WithHandle(func(handle uintptr) { q, err = reopen(int(handle), pid) })
	if errHandle == os.ErrNoHandle {
		// That is also the answer if os.FindProcess did not find the process.
		errHandle = p.Signal(syscall.Signal(0))
		if errHandle != os.ErrProcessDone {
			return nil, refused(syscall.ENOSYS, "process "+strconv.Itoa(pid)+" has no handle").as(errors.ErrUnsupported)
		}
	}
	switch errHandle {
	case nil:
		return q, err
	case os.ErrProcessDone:
		return nil, refused(syscall.ESRCH, "process "+strconv.Itoa(pid)+" has already been waited for").as(os.ErrProcessDone)
	}
	return nil, refused(syscall.EINVAL, errHandle.Error())
}

// reopen opens the process of the pidfd fd once more. A duplicate would share the blocking mode, so
// it is only for a process that cannot be opened any more.
func reopen(fd, pid int) (*PidFD, error) {
	p, err := reopenLiving(fd, pid)
	if errors.Is(err, os.ErrProcessDone) {
		var errno syscall.Errno
		if fd, errno = dupAbove(fd, 0); errno != 0 {
			return nil, failed("fcntl", "F_DUPFD_CLOEXEC of the handle of process "+strconv.Itoa(pid), errno)
		}
		p, err = newPidFD(fd, "", uint64(pid)), nil
	}
	if p != nil {
		p.observes = true
	}
	return p, err
}

func reopenLiving(fd, pid int) (*PidFD, error) {
	id, err := PidFDIDOf(fd)
	if err == nil {
		return ProcessRef{PID: pid, ID: id}.Open()
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	return reopenByPID(fd, pid)
}

// reopenByPID is for kernels before 6.9, or before 6.14 with 32 bits. If the process is not reaped
// afterwards, the PID was still its own when it was opened.
func reopenByPID(fd, pid int) (*PidFD, error) {
	p, err := OpenPidFD(pid, 0)
	switch errno := reaped(fd); {
	case errno == syscall.ESRCH:
		// If there was an error, it was about a thread that has the PID now.
		err = refused(errno, "process "+strconv.Itoa(pid)+" was reaped").as(os.ErrProcessDone)
	case errno != 0 && err == nil:
		err = failed("pidfd_send_signal", "0 to descriptor "+strconv.Itoa(fd), errno)
	}
	if err != nil && p != nil {
		p.Close()
		p = nil
	}
	return p, err
}
