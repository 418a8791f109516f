//go:build linux

package sysfd

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

// Verify runs f, and verifies that the process was not reaped before f returned. f can then read
// what has no pidfd interface, for example /proc by PID: until a process is reaped, its PID is not
// given to another one.
//
//	pid, err := p.PID()
//	…
//	err = p.Verify(func() error {
//		status, err = os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
//		return err
//	})
//
// If Verify returns nil, what f found is about this process, which may have become a zombie.
// Otherwise it may be about another process, even if f itself returned nil.
//
// Verify asks with pidfd_send_signal(2), Linux 5.1. It works for processes that the caller may not
// signal.
//
// Errors:
//   - the error of f, if the process was not reaped;
//   - ESRCH, which matches [os.ErrProcessDone], if it was;
//   - EREMOTE if the process has no PID in the caller's pid namespace: f has no PID to use, and it
//     is not known whether the process was reaped;
//   - an error that matches [errors.ErrUnsupported] if /proc is that of another pid namespace,
//     where the PID belongs to another process;
//   - EPERM if a seccomp filter forbids pidfd_send_signal(2).
func (p *PidFD) Verify(f func() error) error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	return p.verify(f)
}

// verify is Verify after acquire.
func (p *PidFD) verify(f func() error) error {
	err := f()
	if errno := reaped(p.fd); errno != 0 {
		return p.error("pidfd_send_signal", "0 to "+p.String(), errno)
	}
	if errProc := readableProcIsOurs(); errProc != nil && errProc != errNoProc {
		return errProc
	}
	return err
}

// endsWithin is how long a process may take to end. It gives up its files, its memory and its
// namespaces before it becomes a zombie, which takes less than a millisecond if a processor is
// free.
var endsWithin = 50 * time.Millisecond // longer in tests, so that they pass on a busy machine

// error returns the error of a call whose ESRCH has one of three meanings: the process is done, it
// is just ending, or its main thread has ended while others may live on.
func (p *PidFD) error(call, subject string, errno syscall.Errno) error {
	err := failed(call, subject, errno)
	if errno == syscall.ESRCH {
		if events, errno := pollEnd(p.fd, endsWithin); errno == 0 && events != 0 {
			err.means = os.ErrProcessDone
		}
	}
	return err
}

// GetFD returns a duplicate of the process's descriptor targetFD: the same open file, with the same
// offset and flags, as if it had been passed over a socket. It is pidfd_getfd(2), Linux 5.6, and
// close-on-exec.
//
// Errors:
//   - EBADF if targetFD is not open in the process;
//   - EPERM if the caller may not trace the process (PTRACE_MODE_ATTACH_REALCREDS; see ptrace(2));
//   - ESRCH, which matches [os.ErrProcessDone], if the process was reaped, is a zombie, or is just
//     ending. For a zombie older kernels answer EBADF;
//   - ESRCH, which does not match it, if only the main thread has ended. GetFD then waits for up to
//     50 ms to see whether the process ends.
func (p *PidFD) GetFD(targetFD int) (*os.File, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	fd, errno := pidfdGetFD(p.fd, targetFD)
	if errno != 0 {
		return nil, p.error("pidfd_getfd", fdSubject(targetFD)+" in "+p.String(), errno)
	}
	return os.NewFile(uintptr(fd), p.String()+"/fd/"+strconv.Itoa(targetFD)), nil
}

// A MemoryRange is a part of the address space of a process: Size bytes from the address Start.
type MemoryRange struct{ Start, Size uintptr }

// Madvise gives the kernel advice about memory of the process: [MADV_COLD], [MADV_PAGEOUT],
// [MADV_WILLNEED] or [MADV_COLLAPSE]. A range starts at the beginning of a page; there can be up to
// 1024 ranges. Madvise returns how many bytes were advised. It stops at the first failure, and
// returns an error only if nothing was advised. It is process_madvise(2), Linux 5.10. A 32-bit
// program cannot name addresses beyond its own range.
//
// Errors:
//   - ESRCH, as with [PidFD.GetFD];
//   - EACCES if the caller may not read the memory of the process (PTRACE_MODE_READ_FSCREDS);
//   - EPERM without the capability CAP_SYS_NICE;
//   - EINVAL for advice that this kernel does not accept for other processes, and for invalid
//     ranges;
//   - ENOMEM for ranges that are not mapped;
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the call.
func (p *PidFD) Madvise(advice MemoryAdvice, ranges ...MemoryRange) (int, error) {
	if err := p.acquire(); err != nil {
		return 0, err
	}
	defer p.release()
	n, errno := processMadvise(p.fd, ranges, advice)
	if errno != 0 {
		return 0, p.error("process_madvise", strconv.Itoa(advice)+" "+fdSubject(p.fd), errno)
	}
	return n, nil
}

// Mrelease frees memory of a process that was killed and has not ended yet, without waiting for it.
// It is process_mrelease(2), Linux 5.15.
//
// Errors:
//   - EINVAL if the process is not about to die;
//   - ESRCH, as with [PidFD.GetFD];
//   - EAGAIN if the kernel is using the memory at the moment;
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the call.
func (p *PidFD) Mrelease() error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	if errno := processMrelease(p.fd); errno != 0 {
		return p.error("process_mrelease", fdSubject(p.fd), errno)
	}
	return nil
}
