//go:build linux

package sysfd

import (
	"os"
	"strconv"
	"syscall"
)

// Namespace opens a namespace that the process is in. The file can be compared with [os.SameFile],
// passed to setns(2), and asked for its handle; see [FileHandle.Namespace]. While it is open, the
// namespace continues to exist. Namespace is an ioctl on the pidfd, Linux 6.11. On older kernels it
// opens the file in /proc/PID/ns, within [PidFD.Verify].
//
// Errors:
//   - ESRCH, as with [PidFD.GetFD];
//   - EACCES if the caller may not look at the process (PTRACE_MODE_READ_FSCREDS; see ptrace(2));
//   - an error that matches [errors.ErrUnsupported] if the kernel was built without this kind, or
//     if it is older than 6.11 and the /proc of the caller's pid namespace is not mounted;
//   - ENOENT on such an older kernel, from /proc, for a zombie and for a kind that the kernel was
//     built without;
//   - EINVAL if there is no such kind.
func (p *PidFD) Namespace(kind NamespaceKind) (*os.File, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	if kind.String() == "" {
		return nil, refused(syscall.EINVAL, strconv.FormatUint(uint64(kind), 10)+" is not a kind of namespace")
	}
	fd, errno := pidfdGetNamespace(p.fd, uint32(kind))
	switch {
	case errno == 0:
	case lacksIoctl(errno): // before Linux 6.11
		pid, err := p.pid()
		if err != nil {
			return nil, err
		}
		if fd, err = p.procNamespace(pid, kind); err != nil {
			return nil, err
		}
	default:
		return nil, p.error("ioctl", "for the "+kind.String()+" namespace "+fdSubject(p.fd), errno)
	}
	return os.NewFile(uintptr(fd), p.String()+"/ns/"+kind.String()), nil
}

// procNamespace is for kernels without the ioctl. pid is the PID of the process.
func (p *PidFD) procNamespace(pid int, kind NamespaceKind) (int, error) {
	fd := -1
	err := p.verify(func() (err error) {
		fd, err = openat(AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/ns/"+kind.String(), 0)
		return err
	})
	if err != nil && fd >= 0 {
		syscall.Close(fd)
	}
	return fd, err
}

// Setns moves the calling thread into namespaces of the process, all of them or none. flags says
// into which: [syscall.CLONE_NEWNET] and the like. It is setns(2), with a pidfd since Linux 5.8.
//
// The thread moves, not the goroutine: call [runtime.LockOSThread] before, and do not unlock
// afterwards, so that the runtime ends the thread with the goroutine and nothing else ever runs on
// it. With CLONE_NEWPID the thread stays where it is, and the processes that it starts are moved.
//
// A Go program cannot enter a user namespace or a time namespace, because it has several threads. A
// mount namespace requires that the thread has a working directory of its own: call
// syscall.Unshare(syscall.CLONE_FS) before.
//
// Errors:
//   - EPERM without the capability CAP_SYS_ADMIN in the namespaces, or if the caller may not look
//     at the process (PTRACE_MODE_READ_REALCREDS);
//   - ESRCH, as with [PidFD.GetFD];
//   - EINVAL if flags are 0 or unknown, for a user namespace, for a mount namespace if the working
//     directory is shared, and on kernels before Linux 5.8;
//   - EUSERS for a time namespace.
func (p *PidFD) Setns(flags int) error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	if errno := setns(p.fd, flags); errno != 0 {
		return p.error("setns", "0x"+strconv.FormatUint(uint64(flags), 16)+" "+fdSubject(p.fd), errno)
	}
	return nil
}
