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

// A PidFDID names a process for as long as the machine runs: the 64-bit inode number of its pidfds.
// Unlike a PID it is not used again. It says nothing about order: a larger one is not a younger
// process. After a reboot IDs start anew.
//
// The zero PidFDID names no process. A thread has an ID of its own.
type PidFDID uint64

// String returns the ID in decimal, as in $LISTEN_PIDFDID.
func (id PidFDID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ErrNotPidFD is matched by errors that tell that a descriptor is open but is not a pidfd.
var ErrNotPidFD = errors.New("not a pidfd")

// PidFDIDOf returns the ID of the process that the pidfd fd refers to. The process may have ended
// and been reaped. It is one system call and no allocation; fd stays the caller's. It does not
// wait, whatever fd is.
//
// A 64-bit program reads the inode number with statx(2), and makes sure that the file system it
// belongs to is pidfs, which exists since Linux 6.9. A 32-bit program cannot: if its kernel is a
// 32-bit one too, the inode number of statx is the low half of the ID. It takes the ID from the
// file handle, with name_to_handle_at(2), which needs Linux 6.14 (fs/pidfs.c, pidfs_encode_fh).
//
// Errors: one that matches [ErrNotPidFD] and EBADF if fd is something else; one that matches
// [errors.ErrUnsupported] where the kernel is too old; EBADF if fd is not open.
func PidFDIDOf(fd int) (PidFDID, error) {
	if is64bit {
		return pidfdIDByInode(fd)
	}
	return pidfdIDByHandle(fd)
}

// What tells whether a descriptor is on pidfs in the very call that gives its ID: the device of
// statx, the mount ID of name_to_handle_at. There is one pidfs, it is never unmounted. Both are
// kept plus one; 0 = not known yet.
var pidfsDev, pidfsMount atomic.Uint64

// learnPidfs learns the mark of pidfs, by a function that reads that of a descriptor, from a pidfd
// that no one else has a hand on. Where there is no pidfs, or no descriptor left, nothing is kept.
func learnPidfs(known *atomic.Uint64, read func(fd int) (mark uint64, errno syscall.Errno)) uint64 {
	if mark := known.Load(); mark != 0 {
		return mark
	}
	fd, errno := pidfdOpen(syscall.Getpid(), 0)
	if errno != 0 {
		return 0
	}
	defer syscall.Close(fd)
	if magic, errno := fsMagic(fd); errno != 0 || magic != unix.PID_FS_MAGIC {
		return 0
	}
	mark, errno := read(fd)
	if errno != 0 {
		return 0
	}
	known.Store(mark + 1)
	return mark + 1
}

func pidfdIDByInode(fd int) (PidFDID, error) {
	file, err := provePidfs(fd)
	return PidFDID(file.ino), err
}

func pidfdIDByHandle(fd int) (PidFDID, error) {
	var h FileHandle
	mount, errno := nameToHandleAt(fd, "", &h.h, AT_EMPTY_PATH)
	if errno == 0 {
		known := learnPidfs(&pidfsMount, func(fd int) (uint64, syscall.Errno) {
			var h fileHandle
			return nameToHandleAt(fd, "", &h, AT_EMPTY_PATH)
		})
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
		// Before Linux 6.14, and from much that is not a pidfd.
		if _, err := provePidfs(fd); err != nil {
			return 0, err
		}
	}
	return 0, failed("name_to_handle_at", fdSubject(fd), errno)
}

// provePidfs tells why a descriptor is not one on pidfs, or returns no error.
func provePidfs(fd int) (inode, error) {
	file, errno := statFD(fd)
	if errno != 0 {
		return inode{}, failed("statx", fdSubject(fd), errno)
	}
	known := learnPidfs(&pidfsDev, func(fd int) (uint64, syscall.Errno) {
		file, errno := statFD(fd)
		return file.dev, errno
	})
	switch {
	case file.dev+1 == known:
		return file, nil
	case known != 0:
		return inode{}, notAPidFD(fd)
	}
	// Before Linux 6.9, or where this process cannot open a pidfd to compare with. What is no
	// pidfd is not asked for its file system, whose server may not answer.
	is, sure := isPidFD(fd)
	if sure && !is {
		return inode{}, notAPidFD(fd)
	}
	switch magic, errno := fsMagic(fd); {
	case errno != 0:
		return inode{}, failed("fstatfs", fdSubject(fd), errno)
	case magic == unix.PID_FS_MAGIC:
		return file, nil
	case magic == unix.ANON_INODE_FS_MAGIC && is: // one inode for all pidfds and much else
		return inode{}, failed("fstatfs", fdSubject(fd), syscall.EOPNOTSUPP).as(errors.ErrUnsupported)
	}
	return inode{}, notAPidFD(fd)
}

// isPidFD reports whether fd is a pidfd of any kernel, and whether that is sure: where a filter
// forbids pidfd_send_signal(2) and there is no /proc, it is not.
func isPidFD(fd int) (is, sure bool) {
	switch reaped(fd) {
	case 0, syscall.ESRCH, syscall.EREMOTE:
		return true, true
	}
	// EBADF is also the answer of a pidfd that is open for O_PATH alone.
	name, errno := readlink("/proc/thread-self/fd/" + strconv.Itoa(fd))
	return name == "anon_inode:[pidfd]", errno == 0
}

// isAnon reports whether provePidfs has found a pidfd from before Linux 6.9, one without an ID.
// What a seccomp filter answers can match errors.ErrUnsupported too.
func isAnon(err error) bool {
	e, ok := err.(*callError)
	return ok && e.means == errors.ErrUnsupported
}

func notAPidFD(fd int) error {
	return refused(syscall.EBADF, "descriptor "+strconv.Itoa(fd)+" is not a pidfd").as(ErrNotPidFD)
}

// A PidFD owns a pidfd: a descriptor that refers to one process and never to another, even when its
// PID has been given to one. Its methods can be called from several goroutines at once, also
// together with Close, after which they return [os.ErrClosed]. The descriptor of a PidFD that is
// forgotten is closed when the garbage collector finds it.
type PidFD struct {
	fd       int
	by       string // with number, what it was opened by
	number   uint64
	observes bool         // someone else in this program reaps the process
	uses     atomic.Int32 // 1 for the owner and 1 for each call under way; plus closing once the owner is gone

	parking atomic.Pointer[parking] // where Wait parks, once it had to
	file    *os.File                // owns the descriptor once Wait had to park on it
	mu      sync.Mutex              // from a look at the process until what it told is in ended
	ended   *WaitResult             // once the status is known; Reaped if no one can reap it any more
}

const (
	closing    = -1 << 31
	unnumbered = 1<<64 - 1 // no PID, ID or descriptor
)

func newPidFD(fd int, by string, number uint64) *PidFD {
	p := &PidFD{fd: fd, by: by, number: number}
	p.uses.Store(1)
	runtime.SetFinalizer(p, (*PidFD).closeFD) // which costs less than runtime.AddCleanup
	return p
}

// acquire makes sure that the descriptor stays open until release.
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

// closeFD waits for who is parked. It is not for a function that a parking calls.
func (p *PidFD) closeFD() error {
	runtime.SetFinalizer(p, nil)
	if w := p.parking.Load(); w != nil && w.file != p.file {
		w.file.Close()
	}
	if p.file != nil {
		return p.file.Close()
	}
	return os.NewSyscallError("close", syscall.Close(p.fd))
}

// Close closes the pidfd. [PidFD.Wait] returns [os.ErrClosed] then. Close does not wait for other
// calls that are under way, nor for a [WaitSet] that p is in: the descriptor itself is closed when
// the last of them is done with it. A second Close returns [os.ErrClosed].
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

// File returns a duplicate of the descriptor, close-on-exec: for what takes files, such as
// [os/exec.Cmd.ExtraFiles]. It shares the blocking mode with p. It is fcntl(2), F_DUPFD_CLOEXEC.
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

// SyscallConn gives access to the descriptor itself: for what this package has no method for, and
// for the functions that borrow descriptors. It implements [syscall.Conn]. Use Control. Read calls
// its function at first and after each change of the process, as [PidFD.Wait] does; the function
// must not call Read or Wait of the same PidFD, which would wait for their turn for ever. Nothing
// is written to a pidfd, so Write calls its function once.
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
	return c.p.await(context.Background(), w, nil, func() bool { return f(uintptr(c.p.fd)) })
}

func (c pidfdConn) Write(f func(fd uintptr) (done bool)) error {
	done := false
	err := c.Control(func(fd uintptr) { done = f(fd) })
	if err == nil && !done {
		return refused(syscall.EOPNOTSUPP, c.p.String()+" cannot be waited for to be written to").as(errors.ErrUnsupported)
	}
	return err
}

// NewPidFD makes a PidFD of the descriptor fd, which from then on is the PidFD's to close, and
// makes it close-on-exec. Whether it is in blocking mode is left as it is: duplicates share that.
//
// Errors, with which fd stays the caller's: one that matches [ErrNotPidFD] and EBADF if fd is
// something else. EBADF if it is not open. No IDs are needed: it works with pidfds of any kernel.
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
	return newPidFD(fd, "descriptor ", uint64(fd)), nil
}

// TakePidFD takes the pidfd of the process that was started with attr: the descriptor that
// [os.StartProcess] or [syscall.StartProcess] left in *attr.PidFD, where it then puts -1. An
// [os.Process] of that process has a duplicate, which shares the blocking mode; PidFDOf (Go 1.26)
// returns one that does not.
//
// Errors: EINVAL if attr.PidFD is nil. One that matches [errors.ErrUnsupported] if *attr.PidFD is
// -1, because the kernel is older than 5.2, or the pidfd was taken before. Those of [NewPidFD],
// with which *attr.PidFD is left as it is.
func TakePidFD(attr *syscall.SysProcAttr) (*PidFD, error) {
	if attr == nil || attr.PidFD == nil {
		return nil, refused(syscall.EINVAL, "SysProcAttr.PidFD is nil: no pidfd was asked for")
	}
	if *attr.PidFD == -1 {
		return nil, refused(syscall.EOPNOTSUPP, "SysProcAttr.PidFD is -1: the kernel gave no pidfd, or it was taken").as(errors.ErrUnsupported)
	}
	p, err := NewPidFD(*attr.PidFD)
	if err == nil {
		*attr.PidFD = -1
	}
	return p, err
}

// OpenPidFD returns a pidfd of the process with this PID. It is pidfd_open(2), Linux 5.3. Whether
// that process is still the one whose PID it was when the caller learnt it is not known: compare
// [PidFD.ID] where that matters. A zombie can be opened.
//
// The flags are [PIDFD_NONBLOCK] (Linux 5.10), which spares [PidFD.Wait] a second descriptor, and
// [PIDFD_THREAD] (Linux 6.9, pid is then that of any thread).
//
// Errors: ESRCH if there is no such process, which matches [os.ErrProcessDone]. One that matches
// [errors.ErrUnsupported] where the kernel lacks the call or a flag. EINVAL if pid is not positive
// or flags are unknown, and EINVAL or ENOENT (depending on the kernel) if pid is that of a thread
// and PIDFD_THREAD is not set.
func OpenPidFD(pid, flags int) (*PidFD, error) {
	fd, err := openPidFDBare(pid, flags)
	if err != nil {
		return nil, err
	}
	return newPidFD(fd, "", uint64(pid)), nil
}

// openPidFDBare is OpenPidFD for a descriptor that needs no owner.
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
		// The kernel does not know a flag if it refuses it for this process too.
		fd, errno := pidfdOpen(syscall.Getpid(), flags)
		if errno == syscall.EINVAL {
			err.means = errors.ErrUnsupported
		} else if errno == 0 {
			syscall.Close(fd)
		}
	}
	return -1, err
}

// OpenPidFDByID returns a pidfd of the process with this ID, or an error: never one of another
// process. It is open_by_handle_at(2) on pidfs, Linux 6.14, and needs no privilege. The ID of a
// thread opens a pidfd of that thread.
//
// Errors: ESTALE if no process has the ID, because it was reaped or never was, or because it is in
// a pid namespace that the caller does not see. From the initial pid namespace, which sees all, it
// matches [os.ErrProcessDone]; elsewhere it proves nothing, and [ProcessRef.Open] knows more. One
// that matches [errors.ErrUnsupported] where the kernel is too old.
func OpenPidFDByID(id PidFDID) (*PidFD, error) {
	h := PidFDHandle(id)
	fd, errno := openByHandleAt(FD_PIDFS_ROOT, &h.h, 0)
	if errno == syscall.EBADF || errno == syscall.EPERM {
		// Before Linux 6.17 a pidfd has to stand in for the root of pidfs. Before Linux
		// 6.11 EPERM comes ahead of EBADF.
		self, err := openPidFDBare(syscall.Getpid(), 0)
		if err != nil {
			return nil, err
		}
		defer syscall.Close(self)
		// Before Linux 6.14 there are no handles on pidfs, and ESTALE would be no news
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
		return newPidFD(fd, "#", uint64(id)), nil
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
	return PidFDIDOf(fd)
}

// ID returns the ID of the process. It works for one that was reaped, too. See [PidFDIDOf] for what
// it takes and for the errors.
func (p *PidFD) ID() (PidFDID, error) {
	if err := p.acquire(); err != nil {
		return 0, err
	}
	defer p.release()
	return PidFDIDOf(p.fd)
}

// PID returns the PID of the process (of the thread, for one opened with [PIDFD_THREAD]) in the pid
// namespace of the caller. It is the ioctl PIDFD_GET_INFO (Linux 6.13), or else what
// /proc/self/fdinfo tells.
//
// Errors: ESRCH, which matches [os.ErrProcessDone], if the process was reaped, and so has no PID.
// EREMOTE if it has none in the caller's pid namespace. One that matches [errors.ErrUnsupported]
// where the kernel lacks the ioctl and the /proc of the caller's pid namespace is not mounted.
func (p *PidFD) PID() (int, error) {
	if err := p.acquire(); err != nil {
		return 0, err
	}
	defer p.release()
	return p.pid()
}

// pid is PID for a caller who has acquired p.
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

// getInfo asks for the fields in info.Mask. After an error info means nothing: the kernel leaves
// the request in its mask.
func (p *PidFD) getInfo(info *pidfdInfo) error {
	errno := pidfdGetInfo(p.fd, info)
	if errno == 0 && info.Mask&(PIDFD_INFO_PID|PIDFD_INFO_EXIT) != 0 {
		return nil
	}
	err := failed("ioctl", "PIDFD_GET_INFO "+fdSubject(p.fd), errno)
	switch {
	case errno == syscall.ESRCH:
		// Before Linux 6.18 also for a process that has no PID here, and for one whose
		// parent has none here.
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

// reaped tells whether a process was reaped: ESRCH if so, 0 if not. EREMOTE is one that has no PID
// in the pid namespace of the caller; of it, and with any other errno, that is not known.
func reaped(fd int) syscall.Errno {
	switch errno := pidfdProbe(fd); errno {
	case syscall.EINVAL:
		return syscall.EREMOTE
	case syscall.EPERM, syscall.EACCES, syscall.ENOENT:
		// A process that may not be signalled, be it that a security module has the last
		// two for that. Or a seccomp filter says so, which then does not look at fd.
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

// PidFDID returns the pidfd ID in the handle of a pidfd, and false if h does not have the shape of
// one: type [FILEID_KERNFS], 8 bytes. The shape proves nothing: handles of files on cgroup2 and
// kernfs look the same. To identify a descriptor of which it is not sure that it is a pidfd, use
// [PidFDIDOf].
//
// The kernel makes these handles since Linux 6.14 (fs/pidfs.c, pidfs_encode_fh).
func (h FileHandle) PidFDID() (PidFDID, bool) {
	id, ok := h.KernfsID()
	return PidFDID(id), ok
}

// PidFDHandle returns the handle of the pidfds of the process with this ID: the reverse of
// [FileHandle.PidFDID]. With [OpenByHandleAt] and [FD_PIDFS_ROOT] it opens a pidfd, as
// [OpenPidFDByID] does.
func PidFDHandle(id PidFDID) FileHandle { return KernfsHandle(uint64(id)) }
