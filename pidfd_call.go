//go:build linux

package sysfd

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

// Verify runs f, and makes sure that the process was not reaped before f returned. For f is to read
// what there is no pidfd for: /proc by PID, for example. As long as a process is not reaped, its
// PID is not given to another one.
//
//	pid, err := p.PID()
//	…
//	err = p.Verify(func() error {
//		status, err = os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
//		return err
//	})
//
// If Verify returns nil, what f found is about this process (which may have become a zombie).
// Otherwise it may be about another one, even if f itself returned nil.
//
// Errors: the one of f, if the process was not reaped. Else ESRCH, which matches
// [os.ErrProcessDone]. EREMOTE if the process has no PID in the caller's pid namespace: there is
// none that f could use, and no telling whether it was reaped. One that matches
// [errors.ErrUnsupported] if /proc is that of another pid namespace, where the PID is that of
// another process. EPERM if a seccomp filter forbids pidfd_send_signal(2), which is how Verify asks
// (Linux 5.1); to be forbidden to send signals to that process is no hindrance.
func (p *PidFD) Verify(f func() error) error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	return p.verify(f)
}

// verify is Verify for a caller who has acquired p.
func (p *PidFD) verify(f func() error) error {
	err := f()
	if errno := reaped(p.fd); errno != 0 {
		return p.error("pidfd_send_signal", "0 to descriptor "+strconv.Itoa(p.fd), errno)
	}
	if errProc := readableProcIsOurs(); errProc != nil && errProc != errNoProc {
		return errProc
	}
	return err
}

// A process that ends gives up its files, its memory and its namespaces before it is a zombie, in
// less than a millisecond where processors are free.
var endsWithin = 50 * time.Millisecond // longer in a test, which a busy machine must not fail

// error is for calls of which ESRCH says one of three things: that the process is done, that it is
// just ending, or that its main thread has ended, where others may live on.
func (p *PidFD) error(call, subject string, errno syscall.Errno) error {
	err := failed(call, subject, errno)
	if errno == syscall.ESRCH {
		if events, errno := pollFor(p.fd, endsWithin); errno == 0 && events != 0 {
			err.means = os.ErrProcessDone
		}
	}
	return err
}

// GetFD returns a duplicate of the process's descriptor targetFD: the same open file, with the same
// offset and flags, as if it had been passed over a socket. It is pidfd_getfd(2), Linux 5.6, and
// close-on-exec.
//
// Errors: EBADF if targetFD is not open there. EPERM if the caller may not trace the process
// (PTRACE_MODE_ATTACH_REALCREDS; see ptrace(2)). ESRCH, which matches [os.ErrProcessDone], if the
// process was reaped, is a zombie, or is just ending; of a zombie EBADF from older kernels. ESRCH
// that does not match it if only the main thread has ended: GetFD then waits for up to 50 ms to see
// whether the process ends.
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

// A MemoryRange is a part of the address space of a process: bytes from an address on.
type MemoryRange struct{ Start, Size uintptr }

// Madvise gives the kernel advice about memory of the process: [MADV_COLD], [MADV_PAGEOUT],
// [MADV_WILLNEED] or [MADV_COLLAPSE]. A range starts at the beginning of a page; there can be 1024
// of them. It returns how many bytes were advised: it stops where it cannot go on, and that is an
// error only if nothing was advised. It is process_madvise(2), Linux 5.10. A 32-bit program cannot
// name addresses beyond its own reach.
//
// Errors: ESRCH, as with [PidFD.GetFD]. EACCES if the caller may not read its memory
// (PTRACE_MODE_READ_FSCREDS), EPERM without the capability CAP_SYS_NICE. EINVAL for an advice that
// this kernel does not give to other processes, and for ranges that make no sense. ENOMEM for
// ranges that are not mapped. One that matches [errors.ErrUnsupported] where the kernel lacks the
// call.
func (p *PidFD) Madvise(advice int, ranges ...MemoryRange) (int, error) {
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
// Errors: EINVAL if the process is not about to die. ESRCH, as with [PidFD.GetFD]. EAGAIN if the
// memory is in use by the kernel just now. One that matches [errors.ErrUnsupported] where the
// kernel lacks the call.
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
