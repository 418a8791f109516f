//go:build linux

package sysfd

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A PidFDID names a process until the machine reboots: it is the 64-bit inode number of the pidfds
// of the process. Unlike a PID it is not used again. IDs are not ordered: a larger one need not
// belong to a younger process. After a reboot IDs start anew.
//
// The zero PidFDID names no process. A thread has an ID of its own.
type PidFDID uint64

// String returns the ID in decimal, as in $LISTEN_PIDFDID.
func (id PidFDID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ErrNotPidFD is matched by errors which say that a descriptor is open but is not a pidfd.
var ErrNotPidFD = errors.New("not a pidfd")

// PidFDIDOf returns the ID of the process that the pidfd fd refers to. The process may have ended
// and been reaped. PidFDIDOf makes one system call and no allocation, and does not close fd. It
// does not wait, whatever fd is.
//
// A 64-bit program reads the inode number with statx(2), and verifies that it is on pidfs, which
// exists since Linux 6.9. A 32-bit program cannot: if its kernel is a 32-bit one too, the inode
// number of statx is the low half of the ID. It reads the ID from the file handle, with
// name_to_handle_at(2), which requires Linux 6.14 (fs/pidfs.c, pidfs_encode_fh).
//
// Errors:
//   - an error that matches [ErrNotPidFD] and EBADF if fd is not a pidfd;
//   - an error that matches [errors.ErrUnsupported] if the kernel is too old;
//   - EBADF if fd is not open.
func PidFDIDOf(fd int) (PidFDID, error) {
	if is64bit {
		return pidfdIDByInode(fd)
	}
	return pidfdIDByHandle(fd)
}

// pidfsDev and pidfsMount show whether a descriptor is on pidfs, in the very call that returns its
// ID: the device of statx, or the mount ID of name_to_handle_at. There is one pidfs, and it is
// never unmounted. Both are stored plus one; 0 = not known yet.
var pidfsDev, pidfsMount atomic.Uint64

// learnPidfs reads the device or mount ID of pidfs from own, a pidfd that nobody else knows, or from
// one that it opens if own is -1. Where there is no pidfs, or no descriptor left, it stores nothing.
func learnPidfs(known *atomic.Uint64, own int, read func(fd int) (mark uint64, errno syscall.Errno)) uint64 {
	if mark := known.Load(); mark != 0 {
		return mark
	}
	if own == -1 {
		fd, errno := pidfdOpen(syscall.Getpid(), 0)
		if errno != 0 {
			return 0
		}
		defer syscall.Close(fd)
		own = fd
	}
	if magic, errno := fsMagic(own); errno != 0 || magic != unix.PID_FS_MAGIC {
		return 0
	}
	mark, errno := read(own)
	if errno != 0 {
		return 0
	}
	known.Store(mark + 1)
	return mark + 1
}

func devOf(fd int) (uint64, syscall.Errno) {
	file, errno := statFD(fd)
	return file.dev, errno
}

func mountOf(fd int) (uint64, syscall.Errno) {
	var h fileHandle
	return nameToHandleAt(fd, "", &h, AT_EMPTY_PATH)
}

func pidfdIDByInode(fd int) (PidFDID, error) {
	file, err := provePidfs(fd)
	return PidFDID(file.ino), err
}

func pidfdIDByHandle(fd int) (PidFDID, error) {
	var h FileHandle
	mount, errno := nameToHandleAt(fd, "", &h.h, AT_EMPTY_PATH)
	if errno == 0 {
		known := learnPidfs(&pidfsMount, -1, mountOf)
		if mount+1 != known {
			if _, err := provePidfs(fd); err != nil {
				return 0, err
			}
		}
		if id, ok := h.PidFDID(); ok {
			return id, nil
		}
		errno = syscall.EOPNOTSUPP
	} else if errno == syscall.EOPNOTSUPP {
		// Before Linux 6.14, and for many descriptors that are not pidfds.
		if _, err := provePidfs(fd); err != nil {
			return 0, err
		}
	}
	return 0, failed("name_to_handle_at", fdSubject(fd), errno)
}

// provePidfs returns no error for a descriptor on pidfs.
func provePidfs(fd int) (inode, error) {
	file, errno := statFD(fd)
	if errno != 0 {
		return inode{}, failed("statx", fdSubject(fd), errno)
	}
	known := learnPidfs(&pidfsDev, -1, devOf)
	switch {
	case file.dev+1 == known:
		return file, nil
	case known != 0:
		return inode{}, notAPidFD(fd)
	}
	// Before Linux 6.9, or where this process cannot open a pidfd to compare with. If fd is not
	// a pidfd, its file system is not asked, because its server may not answer.
	is, sure := isPidFD(fd)
	if sure && !is {
		return inode{}, notAPidFD(fd)
	}
	switch magic, errno := fsMagic(fd); {
	case errno != 0:
		return inode{}, failed("fstatfs", fdSubject(fd), errno)
	case magic == unix.PID_FS_MAGIC:
		return file, nil
	case magic == unix.ANON_INODE_FS_MAGIC && is: // all pidfds and much else share one inode
		return inode{}, failed("fstatfs", fdSubject(fd), syscall.EOPNOTSUPP).as(errors.ErrUnsupported)
	}
	return inode{}, notAPidFD(fd)
}

// isPidFD reports whether fd is a pidfd of any kernel, and whether that is certain. It is not if a
// filter forbids pidfd_send_signal(2) and there is no /proc.
func isPidFD(fd int) (is, sure bool) {
	switch reaped(fd) {
	case 0, syscall.ESRCH, syscall.EREMOTE:
		return true, true
	}
	// EBADF is also the answer for a pidfd that is open for O_PATH only.
	name, errno := readlink("/proc/thread-self/fd/" + strconv.Itoa(fd))
	return name == "anon_inode:[pidfd]", errno == 0
}

// isAnon reports whether provePidfs has found a pidfd from before Linux 6.9, which has no ID. What
// a seccomp filter answers can match errors.ErrUnsupported too.
func isAnon(err error) bool {
	e, ok := err.(*callError)
	return ok && e.means == errors.ErrUnsupported
}

func notAPidFD(fd int) error {
	return refused(syscall.EBADF, "descriptor "+strconv.Itoa(fd)+" is not a pidfd").as(ErrNotPidFD)
}

// A PidFD owns a pidfd: a descriptor that refers to one process and never to another, even after
// the PID of the process has been reused. Its methods, Close among them, can be called from several
// goroutines at once. After Close they return [os.ErrClosed]. If a PidFD becomes unreachable, the
// garbage collector closes its descriptor.
type PidFD struct {
	fd       int
	by       string // what it was opened by, together with number
	number   uint64
	observes bool         // someone else in this program reaps the process
	aThread  bool         // it may be a pidfd of a thread (PIDFD_THREAD)
	closed   atomic.Int32 // where Close wakes those who hold a thread: a descriptor plus 1, or 0
	uses     atomic.Int32 // 1 for the owner and 1 for each call in progress; plus closing after Close

	parking atomic.Pointer[parking] // where Wait parks, once it has had to
	file    *os.File                // owns the descriptor, once Wait has parked on it
	mu      sync.Mutex              // held from a look at the process until ended has the result
	ended   *WaitResult             // set once the status is known; Reaped if the process cannot be reaped any more
}

const (
	closing    = -1 << 31
	unnumbered = 1<<64 - 1 // no PID, ID or descriptor
)

func newPidFD(fd int, by string, number uint64) *PidFD {
	p := &PidFD{fd: fd, by: by, number: number}
	p.uses.Store(1)
	runtime.SetFinalizer(p, (*PidFD).closeFD) // cheaper than runtime.AddCleanup
	return p
}

// acquire keeps the descriptor open until release.
func (p *PidFD) acquire() error {
	if p == nil {
		return os.ErrInvalid
	}
	for {
		n := p.uses.Load()
		if n <= 0 {
			return os.ErrClosed
		}
		if p.uses.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

// release also keeps p from the garbage collector until then.
func (p *PidFD) release() error {
	if p.uses.Add(-1) == closing {
		return p.closeFD()
	}
	return nil
}

// closeFD waits for whoever is parked. A function that a parking calls must not call it.
func (p *PidFD) closeFD() error {
	runtime.SetFinalizer(p, nil)
	if fd := p.closed.Load(); fd != 0 {
		syscall.Close(int(fd - 1))
	}
	if w := p.parking.Load(); w != nil && w.file != p.file {
		w.file.Close()
	}
	if p.file != nil {
		return p.file.Close()
	}
	return os.NewSyscallError("close", syscall.Close(p.fd))
}

// Close closes the pidfd. A [PidFD.Wait] in progress returns [os.ErrClosed]. Close waits neither
// for other calls in progress nor for a [WaitSet] that contains p: the last of them to finish
// closes the descriptor. A second Close returns [os.ErrClosed].
func (p *PidFD) Close() error {
	if p == nil {
		return os.ErrInvalid
	}
	for n := p.uses.Load(); ; n = p.uses.Load() {
		if n <= 0 {
			return os.ErrClosed
		}
		if p.uses.CompareAndSwap(n, n|closing) {
			break
		}
	}
	if w := p.parking.Load(); w != nil {
		w.interrupt()
	}
	if fd := p.closed.Load(); fd != 0 {
		wakeUp(int(fd - 1))
	}
	return p.release() // of the owner
}

// String returns "pidfd:" and what the PidFD was opened by, for messages.
func (p *PidFD) String() string {
	switch {
	case p == nil || p.by == "" && p.number == 0:
		return "pidfd:none"
	case p.number == unnumbered:
		return "pidfd:" + p.by
	}
	return "pidfd:" + p.by + strconv.FormatUint(p.number, 10)
}

// File returns a duplicate of the descriptor, close-on-exec, for functions that need files, such as
// [os/exec.Cmd.ExtraFiles]. The duplicate shares the blocking mode with p. It is fcntl(2),
// F_DUPFD_CLOEXEC.
//
// Errors: EMFILE.
func (p *PidFD) File() (*os.File, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	fd, errno := dupAbove(p.fd, 0)
	if errno != 0 {
		return nil, failed("fcntl", "F_DUPFD_CLOEXEC "+fdSubject(p.fd), errno)
	}
	return os.NewFile(uintptr(fd), p.String()), nil
}

// SyscallConn gives access to the descriptor itself, for operations that this package lacks and for
// functions that borrow descriptors. It implements [syscall.Conn]. Use Control. Read calls its
// function first and after each change of the process, as [PidFD.Wait] does; the function must not
// call Read or Wait of the same PidFD, which would wait forever. A pidfd is never written to, so
// Write calls its function once.
func (p *PidFD) SyscallConn() (syscall.RawConn, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	p.release()
	return pidfdConn{p}, nil
}

type pidfdConn struct{ p *PidFD }

func (c pidfdConn) Control(f func(fd uintptr)) error {
	if err := c.p.acquire(); err != nil {
		return err
	}
	defer c.p.release()
	f(uintptr(c.p.fd))
	return nil
}

func (c pidfdConn) Read(f func(fd uintptr) (done bool)) error {
	w, err := c.p.park()
	if err != nil {
		return err
	}
	a := &awaiting{p: c.p, look: func() bool { return f(uintptr(c.p.fd)) }}
	return a.wait(context.Background(), w)
}

func (c pidfdConn) Write(f func(fd uintptr) (done bool)) error {
	done := false
	err := c.Control(func(fd uintptr) { done = f(fd) })
	if err == nil && !done {
		return refused(syscall.EOPNOTSUPP, c.p.String()+" cannot be written to").as(errors.ErrUnsupported)
	}
	return err
}

// NewPidFD returns a PidFD that owns the descriptor fd, and makes fd close-on-exec. It does not
// change the blocking mode, which duplicates share. It works with the pidfds of any kernel, with or
// without IDs.
//
// Errors, after which fd still belongs to the caller: one that matches [ErrNotPidFD] and EBADF if
// fd is not a pidfd; EBADF if fd is not open.
func NewPidFD(fd int) (*PidFD, error) {
	if _, err := provePidfs(fd); err != nil && !isAnon(err) {
		return nil, err
	}
	flags, errno := fcntl(fd, syscall.F_GETFL, 0)
	if errno != 0 {
		return nil, failed("fcntl", "F_GETFL "+fdSubject(fd), errno)
	}
	if flags&O_PATH != 0 {
		return nil, notAPidFD(fd)
	}
	if _, errno := fcntl(fd, syscall.F_SETFD, syscall.FD_CLOEXEC); errno != 0 {
		return nil, failed("fcntl", "F_SETFD "+fdSubject(fd), errno)
	}
	p := newPidFD(fd, "descriptor ", uint64(fd))
	p.aThread = flags&PIDFD_THREAD != 0
	return p, nil
}

// TakePidFD takes the pidfd of the process that was started with attr: the descriptor that
// [os.StartProcess] or [syscall.StartProcess] stored in *attr.PidFD. TakePidFD then stores -1
// there. An [os.Process] of that process has a duplicate, which shares the blocking mode; PidFDOf
// (Go 1.26) returns a pidfd that does not.
//
// Errors, after which *attr.PidFD is unchanged:
//   - EINVAL if attr.PidFD is nil;
//   - an error that matches [errors.ErrUnsupported] if *attr.PidFD is -1, because the kernel is
//     older than 5.2, or because the pidfd has been taken before;
//   - those of [NewPidFD].
func TakePidFD(attr *syscall.SysProcAttr) (*PidFD, error) {
	if attr == nil || attr.PidFD == nil {
		return nil, refused(syscall.EINVAL, "SysProcAttr.PidFD is nil: no pidfd was requested")
	}
	if *attr.PidFD == -1 {
		return nil, refused(syscall.EOPNOTSUPP, "SysProcAttr.PidFD is -1: the kernel returned no pidfd, or it has been taken").as(errors.ErrUnsupported)
	}
	p, err := NewPidFD(*attr.PidFD)
	if err == nil {
		*attr.PidFD = -1
	}
	return p, err
}

// OpenPidFD returns a pidfd of the process with this PID. It is pidfd_open(2), Linux 5.3. The
// process may be another one than the caller means, if the PID was reused: where that matters,
// compare [PidFD.ID]. OpenPidFD opens zombies as well.
//
// The flags are [PIDFD_NONBLOCK] (Linux 5.10), with which [PidFD.Wait] needs no second descriptor,
// and [PIDFD_THREAD] (Linux 6.9), with which pid is that of any thread.
//
// Errors:
//   - ESRCH, which matches [os.ErrProcessDone], if there is no such process;
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the call or a flag;
//   - EINVAL if pid is not positive or flags are unknown;
//   - EINVAL or ENOENT, depending on the kernel, if pid is that of a thread and PIDFD_THREAD is not
//     set.
func OpenPidFD(pid, flags int) (*PidFD, error) {
	fd, err := openPidFDBare(pid, flags)
	if err != nil {
		return nil, err
	}
	p := newPidFD(fd, "", uint64(pid))
	p.aThread = flags&PIDFD_THREAD != 0
	return p, nil
}

// openPidFDBare is OpenPidFD for a descriptor without an owner.
func openPidFDBare(pid, flags int) (int, error) {
	fd, errno := pidfdOpen(pid, flags)
	if errno == 0 {
		return fd, nil
	}
	err := failed("pidfd_open", strconv.Itoa(pid), errno)
	switch {
	case errno == syscall.ESRCH:
		err.means = os.ErrProcessDone
	case errno == syscall.EINVAL && pid > 0 && flags != 0 && flags&^(PIDFD_NONBLOCK|PIDFD_THREAD) == 0:
		// If the kernel refuses the flag for this process too, it does not know the flag.
		fd, errno := pidfdOpen(syscall.Getpid(), flags)
		if errno == syscall.EINVAL {
			err.means = errors.ErrUnsupported
		} else if errno == 0 {
			syscall.Close(fd)
		}
	}
	return -1, err
}

// OpenPidFDByID returns a pidfd of the process with this ID, and never one of another process. It
// is open_by_handle_at(2) on pidfs, Linux 6.14, and requires no privilege. The ID of a thread opens
// a pidfd of that thread.
//
// Errors:
//   - ESTALE if no process has the ID: the process was reaped, or never existed, or is in a pid
//     namespace that the caller does not see. In the initial pid namespace, which sees all
//     processes, the error matches [os.ErrProcessDone]. In another one it proves nothing;
//     [ProcessRef.Open] can prove more;
//   - an error that matches [errors.ErrUnsupported] if the kernel is too old.
func OpenPidFDByID(id PidFDID) (*PidFD, error) {
	h := PidFDHandle(id)
	fd, errno := openByHandleAt(FD_PIDFS_ROOT, &h.h, 0)
	if errno == syscall.EBADF || errno == syscall.EPERM {
		// Before Linux 6.17 a pidfd must stand in for the root of pidfs. Before Linux 6.11
		// the kernel checks for EPERM before EBADF.
		self, err := openPidFDBare(syscall.Getpid(), 0)
		if err != nil {
			return nil, err
		}
		defer syscall.Close(self)
		// Before Linux 6.14 there are no handles on pidfs, and ESTALE would say nothing
		// about a process.
		if _, err := pidfdIDByHandle(self); err != nil {
			return nil, err
		}
		fd, errno = openByHandleAt(self, &h.h, 0)
		if errno == syscall.ESRCH {
			// Before Linux 6.17 that is the answer for a thread.
			fd, errno = openByHandleAt(self, &h.h, PIDFD_THREAD)
		}
	}
	if errno == 0 {
		p := newPidFD(fd, "#", uint64(id))
		p.aThread = true // for all that is known
		return p, nil
	}
	err := failed("open_by_handle_at", "of pidfd ID "+id.String(), errno)
	if errno == syscall.ESRCH || errno == syscall.ESTALE && ownPIDNamespace() == initialPIDNamespace {
		err.means = os.ErrProcessDone
	}
	return nil, err
}

// selfID returns the ID of this process.
func selfID() (PidFDID, error) {
	fd, err := openPidFDBare(syscall.Getpid(), 0)
	if err != nil {
		return 0, err
	}
	defer syscall.Close(fd)
	if is64bit {
		learnPidfs(&pidfsDev, fd, devOf) // PidFDIDOf would open another pidfd
	} else {
		learnPidfs(&pidfsMount, fd, mountOf)
	}
	return PidFDIDOf(fd)
}

// ID returns the ID of the process, even after the process was reaped. See [PidFDIDOf] for what it
// requires and for the errors.
func (p *PidFD) ID() (PidFDID, error) {
	if err := p.acquire(); err != nil {
		return 0, err
	}
	defer p.release()
	return PidFDIDOf(p.fd)
}

// PID returns the PID of the process in the pid namespace of the caller. For a pidfd opened with
// [PIDFD_THREAD] that is the ID of the thread. PID uses the ioctl PIDFD_GET_INFO (Linux 6.13), or
// else /proc/self/fdinfo.
//
// Errors:
//   - ESRCH, which matches [os.ErrProcessDone], if the process was reaped, and so has no PID;
//   - EREMOTE if the process has no PID in the caller's pid namespace;
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the ioctl and the /proc of
//     the caller's pid namespace is not mounted.
func (p *PidFD) PID() (int, error) {
	if err := p.acquire(); err != nil {
		return 0, err
	}
	defer p.release()
	return p.pid()
}

// pid is PID after acquire.
func (p *PidFD) pid() (int, error) {
	info := pidfdInfo{Mask: PIDFD_INFO_PID}
	err := p.getInfo(&info)
	switch {
	case err == nil:
		return int(info.PID), nil
	case errors.Is(err, os.ErrProcessDone):
		return 0, err
	case errors.Is(err, syscall.ESRCH), errors.Is(err, errors.ErrUnsupported):
		return p.fdinfoPID(err)
	}
	return 0, err
}

// getInfo asks for the fields in info.Mask. After an error info is meaningless, because the kernel
// leaves the request in its mask.
func (p *PidFD) getInfo(info *pidfdInfo) error {
	errno := pidfdGetInfo(p.fd, info)
	if errno == 0 && info.Mask&(PIDFD_INFO_PID|PIDFD_INFO_EXIT) != 0 {
		return nil
	}
	err := failed("ioctl", "PIDFD_GET_INFO "+fdSubject(p.fd), errno)
	switch {
	case errno == syscall.ESRCH:
		// Before Linux 6.18 also for a process that has no PID here, or whose parent has
		// none.
		switch reaped(p.fd) {
		case 0:
		case syscall.EREMOTE:
			err.errno = syscall.EREMOTE
		case syscall.ESRCH:
			err.means = os.ErrProcessDone
		}
	case errno == 0:
		err.errno, err.means = syscall.EOPNOTSUPP, errors.ErrUnsupported
	case lacksIoctl(errno): // before Linux 6.13
		err.means = errors.ErrUnsupported
	}
	return err
}

// reaped returns ESRCH if the process was reaped, and 0 if it was not. EREMOTE means that the
// process has no PID in the pid namespace of the caller. With EREMOTE and any other errno it is not
// known whether the process was reaped.
func reaped(fd int) syscall.Errno {
	switch errno := pidfdProbe(fd); errno {
	case syscall.EINVAL:
		return syscall.EREMOTE
	case syscall.EPERM, syscall.EACCES, syscall.ENOENT:
		// A process that may not be signaled; some security modules use the last two
		// errnos for that. Or a seccomp filter, which then does not look at fd.
		if pidfdProbe(-1) == syscall.EBADF {
			return 0
		}
		return errno
	default:
		return errno
	}
}

// fdinfoPID is for kernels without PIDFD_GET_INFO, which answered unsupported.
func (p *PidFD) fdinfoPID(unsupported error) (int, error) {
	pids, err := fdinfoPIDs(p.fd, "Pid:", unsupported)
	switch {
	case err == nil && len(pids) == 1 && procIsOurs():
		return pids[0], nil
	case err == nil, errors.Is(err, syscall.EREMOTE) && !procIsOurs():
		return 0, unsupported
	}
	return 0, err
}

// PidFDID returns the pidfd ID in the handle of a pidfd, and false unless h has type
// [FILEID_KERNFS] and 8 bytes. That does not prove that h is of a pidfd: handles of files on
// cgroup2 and kernfs look the same. To identify a descriptor that may not be a pidfd, use
// [PidFDIDOf].
//
// The kernel makes these handles since Linux 6.14 (fs/pidfs.c, pidfs_encode_fh).
func (h FileHandle) PidFDID() (PidFDID, bool) {
	id, ok := h.KernfsID()
	return PidFDID(id), ok
}

// PidFDHandle returns the handle of the pidfds of the process with this ID. It is the reverse of
// [FileHandle.PidFDID]. With [OpenByHandleAt] and [FD_PIDFS_ROOT] it opens a pidfd, as
// [OpenPidFDByID] does.
func PidFDHandle(id PidFDID) FileHandle { return KernfsHandle(uint64(id)) }
