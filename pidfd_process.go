//go:build linux && go1.26

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// PidFDOf returns a pidfd of p that is independent of p: it stays open when p is waited for or
// released, and nothing done to it, such as making it non-blocking, has an effect on p. It
// observes: its Wait, and that of a [WaitSet], leave it to p, or the [os/exec.Cmd] that p is from,
// to reap the process, as if [WaitNoReap] were given. It needs Go 1.26, which has
// [os.Process.WithHandle].
//
// If someone else has reaped the process, or the kernel has because SIGCHLD is ignored, the PidFD
// is of a process that is done, whose status Wait returns since Linux 6.15.
//
// Errors: one that matches [os.ErrProcessDone] if p was waited for. EINVAL if p was released. One
// that matches [errors.ErrUnsupported] if p has no handle, without which it is not certain that the
// process with its PID is p.
func PidFDOf(p *os.Process) (*PidFD, error) {
	if p == nil {
		return nil, os.ErrInvalid
	}
	var q *PidFD
	var err error
	pid := p.Pid
	errHandle := p.WithHandle(func(handle uintptr) { q, err = reopen(int(handle), pid) })
	if errHandle == os.ErrNoHandle {
		// Also the answer of a Process that os.FindProcess did not find.
		errHandle = p.Signal(syscall.Signal(0))
		if errHandle != os.ErrProcessDone {
			return nil, refused(syscall.ENOSYS, "process "+strconv.Itoa(pid)+" has no handle").as(errors.ErrUnsupported)
		}
	}
	switch errHandle {
	case nil:
		return q, err
	case os.ErrProcessDone:
		return nil, refused(syscall.ESRCH, "process "+strconv.Itoa(pid)+" was waited for").as(os.ErrProcessDone)
	}
	return nil, refused(syscall.EINVAL, errHandle.Error())
}

// reopen opens the process of the pidfd fd once more; a duplicate would share the blocking mode,
// and so is for a process that cannot be opened any more.
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

// reopenByPID is for kernels before 6.9, or before 6.14 with 32 bits. The PID was that of the
// process when it was opened if the process is not reaped afterwards.
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
