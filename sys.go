//go:build linux

package sysfd

// Calls that golang.org/x/sys/unix has and gets right go there, unless they are on a hot path; only
// sys*.go calls it. What it lacks, gets wrong or makes slower is a call by number here. The
// scheduler is told of each call, because a filter can keep any of them waiting
// (SECCOMP_RET_USER_NOTIF).

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withFD calls use with the descriptor of conn. Meanwhile the descriptor stays open, and keeps its
// blocking mode.
func withFD(conn syscall.Conn, use func(fd int)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Control(func(fd uintptr) { use(int(fd)) })
	if f, ok := conn.(*os.File); ok && err != nil {
		// Control fails only if the file is closed, and with an error that does not match
		// os.ErrClosed.
		return &os.PathError{Op: "use", Path: f.Name(), Err: os.ErrClosed}
	}
	return err
}

// withFDs calls use with the descriptors of conns behind fds. None of them can be closed meanwhile.
func withFDs[C syscall.Conn](conns []C, fds []int, use func(fds []int) error) error {
	if len(conns) == 0 {
		return use(fds)
	}
	var errUse error
	if err := withFD(conns[0], func(fd int) { errUse = withFDs(conns[1:], append(fds, fd), use) }); err != nil {
		return err
	}
	return errUse
}

// fits32 reports whether the kernel sees all of n. The kernel reads 32 bits of a descriptor, a PID,
// a signal and flags, and drops the rest.
func fits32(n int) bool { return int(int32(n)) == n }

// check32 is for the integers that are passed to a system call: a descriptor and others. Each
// function below with an int argument begins with it.
func check32(fd int, others ...int) syscall.Errno {
	if !fits32(fd) {
		return syscall.EBADF
	}
	for _, n := range others {
		if !fits32(n) {
			return syscall.EINVAL
		}
	}
	return 0
}

// uninterrupted calls f again as long as a signal interrupts it.
func uninterrupted(f func() syscall.Errno) syscall.Errno {
	for {
		if errno := f(); errno != syscall.EINTR {
			return errno
		}
	}
}

// errnoOf returns the errno that the functions of packages syscall and unix return as an error.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return err.(syscall.Errno)
}

// is64bit reports the word size of this program. If it is true, the kernel has the same word size.
const is64bit = ^uint(0)>>32 != 0

// native64 reads an integer in the byte order of this machine.
func native64(b []byte) (n uint64) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&n)), 8), b)
	return n
}

// native32 is native64 for 32 bits.
func native32(b []byte) (n uint32) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&n)), 4), b)
	return n
}

// nsfs reads the bytes of a namespace handle.
func nsfs(b []byte) (n nsfsFileHandle) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&n)), unsafe.Sizeof(n)), b)
	return n
}

// putNsfs is the reverse of nsfs.
func putNsfs(b []byte, n nsfsFileHandle) {
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&n)), unsafe.Sizeof(n)))
}

// fanotify reads a struct from the beginning of an event or of a record in one. b must be long
// enough.
func fanotify[T fanotifyMetadata | fanotifyInfo | fanotifyFID | fanotifyPidFD | fanotifyError | fanotifyRange](b []byte) (v T) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b)
	return v
}

// putNative64 is the reverse of native64.
func putNative64(b []byte, n uint64) {
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&n)), 8))
}

// openat returns a close-on-exec descriptor.
func openat(dirfd int, path string, flags int) (fd int, err error) {
	errno := check32(dirfd, flags)
	if errno == 0 {
		errno = uninterrupted(func() syscall.Errno {
			fd, err = syscall.Openat(dirfd, path, flags|syscall.O_CLOEXEC, 0)
			return errnoOf(err)
		})
	}
	if errno != 0 {
		return -1, failed("openat", path, errno)
	}
	return fd, nil
}

// openat2 returns a close-on-exec descriptor. resolve says how the path is followed.
func openat2(dirfd int, path string, flags int, resolve uint64) (fd int, err error) {
	errno := check32(dirfd, flags)
	if errno == 0 {
		errno = uninterrupted(func() syscall.Errno {
			fd, err = unix.Openat2(dirfd, path, &unix.OpenHow{Flags: uint64(flags | syscall.O_CLOEXEC), Resolve: resolve})
			return errnoOf(err)
		})
	}
	if errno != 0 {
		return -1, failed("openat2", path, errno)
	}
	return fd, nil
}

// readlink fails with ENAMETOOLONG if the kernel truncates the path.
func readlink(path string) (string, syscall.Errno) {
	var room [4096]byte // for /proc/PID/fd the kernel returns no more
	var n int
	errno := uninterrupted(func() (errno syscall.Errno) {
		var err error
		n, err = syscall.Readlink(path, room[:])
		return errnoOf(err)
	})
	switch {
	case errno != 0:
		return "", errno
	case n == len(room):
		return "", syscall.ENAMETOOLONG
	}
	return string(room[:n]), 0
}

// readSmall reads a file that fits in room. Of a larger file it reads as much as fits.
func readSmall(name string, room []byte) (n int, errno syscall.Errno) {
	var path [64]byte
	p, errno := cPath(path[:], name)
	if errno != 0 {
		return 0, errno
	}
	var dirfd = AT_FDCWD
	fd := -1
	errno = uninterrupted(func() syscall.Errno {
		r, _, errno := syscall.Syscall6(syscall.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(p)), syscall.O_CLOEXEC, 0, 0, 0)
		fd = int(r)
		return errno
	})
	if errno != 0 {
		return 0, errno
	}
	defer syscall.Close(fd)
	return read(fd, room)
}

// readProc returns what a file in /proc has in it. os.ReadFile asks for all that stat(2) knows, and
// with the time among that a program links 70 KB that print times.
func readProc(name string) ([]byte, error) {
	fd, err := openat(AT_FDCWD, name, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	var data []byte
	for {
		data = slices.Grow(data, 4096)
		n, errno := read(fd, data[len(data):cap(data)])
		if errno != 0 {
			return nil, failed("read", name, errno)
		}
		if n == 0 {
			return data, nil
		}
		data = data[:len(data)+n]
	}
}

// read returns 0 at the end of a file.
func read(fd int, room []byte) (n int, errno syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return 0, errno
	}
	errno = uninterrupted(func() syscall.Errno {
		var err error
		n, err = syscall.Read(fd, room)
		return errnoOf(err)
	})
	return n, errno
}

// nameToHandleAt fills h and returns the mount ID.
func nameToHandleAt(dirfd int, path string, h *fileHandle, flags int) (mount uint64, errno syscall.Errno) {
	if errno := check32(dirfd, flags); errno != 0 {
		return 0, errno
	}
	const short = 128
	if len(path) < short {
		var room [short]byte // most paths fit, and to clear the larger room takes longer
		return nameToHandle(dirfd, path, room[:], h, flags)
	}
	var room [1024]byte
	return nameToHandle(dirfd, path, room[:], h, flags)
}

// cPath returns path with a zero byte after it, in room if that is large enough.
func cPath(room []byte, path string) (*byte, syscall.Errno) {
	if strings.IndexByte(path, 0) >= 0 {
		return nil, syscall.EINVAL
	}
	if len(path) >= len(room) {
		room = make([]byte, len(path)+1)
	}
	room[copy(room, path)] = 0
	return &room[0], 0
}

// nameToHandle is nameToHandleAt with room for the path. It does not use unix.NameToHandleAt, which
// passes 4 bytes for the mount ID: with AT_HANDLE_MNT_ID_UNIQUE the kernel writes 8.
func nameToHandle(dirfd int, path string, room []byte, h *fileHandle, flags int) (mount uint64, errno syscall.Errno) {
	p, errno := cPath(room, path)
	if errno != 0 {
		return 0, errno
	}
	*h = fileHandle{HandleBytes: MAX_HANDLE_SZ}
	errno = uninterrupted(func() syscall.Errno {
		_, _, errno := syscall.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(dirfd), uintptr(unsafe.Pointer(p)),
			uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(&mount)), uintptr(flags), 0)
		return errno
	})
	switch {
	case errno != 0:
		return 0, errno
	case flags&AT_HANDLE_MNT_ID_UNIQUE == 0:
		// The kernel has written an int, which on a big-endian machine is the high half of
		// mount.
		return uint64(*(*uint32)(unsafe.Pointer(&mount))), 0
	}
	return mount, 0
}

// openByHandleAt returns a close-on-exec descriptor.
func openByHandleAt(mountFD int, h *fileHandle, flags int) (fd int, errno syscall.Errno) {
	if errno := check32(mountFD, flags); errno != 0 {
		return -1, errno
	}
	open := func() (fd int, errno syscall.Errno) {
		errno = uninterrupted(func() syscall.Errno {
			r, _, errno := syscall.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(mountFD), uintptr(unsafe.Pointer(h)),
				uintptr(flags|syscall.O_CLOEXEC|syscall.O_LARGEFILE))
			fd = int(r)
			return errno
		})
		return fd, errno
	}
	if fd, errno = open(); fd != 0 || errno != 0 {
		return fd, errno
	}
	// A seccomp filter that makes the call do nothing returns 0 each time, which is somebody's
	// descriptor.
	again, errno := open()
	if errno == 0 && again == 0 {
		return -1, syscall.EOPNOTSUPP
	}
	if errno == 0 {
		syscall.Close(again)
	}
	return fd, 0
}

// pidfdOpen returns a close-on-exec descriptor.
func pidfdOpen(pid, flags int) (fd int, errno syscall.Errno) {
	if check32(pid, flags) != 0 {
		return -1, syscall.EINVAL
	}
	fd, err := unix.PidfdOpen(pid, flags)
	return fd, errnoOf(err)
}

// pidfdProbe sends no signal: it asks whether one could be sent.
func pidfdProbe(fd int) syscall.Errno { return pidfdSendSignal(fd, 0, nil, 0) }

// pidfdSendSignal sends a signal as kill(2) does, or with info as sigqueue(3) does.
func pidfdSendSignal(fd int, sig syscall.Signal, info *sigqueueInfo, flags int) syscall.Errno {
	if errno := check32(fd, int(sig), flags); errno != 0 {
		return errno
	}
	_, _, errno := syscall.Syscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(fd), uintptr(sig), uintptr(unsafe.Pointer(info)), uintptr(flags), 0, 0)
	return errno
}

// pidfdGetInfo asks for the fields in info.Mask. fd must be a pidfd.
func pidfdGetInfo(fd int, info *pidfdInfo) syscall.Errno {
	if errno := check32(fd); errno != 0 {
		return errno
	}
	// Every kernel clears this bit. A seccomp filter that makes the call do nothing leaves it,
	// and info would then say that the process is root's, and has ended with status 0.
	const unanswered = 1 << 63
	info.Mask |= unanswered
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), _PIDFD_GET_INFO, uintptr(unsafe.Pointer(info)))
	if errno == 0 && info.Mask&unanswered != 0 {
		return syscall.EOPNOTSUPP
	}
	return errno
}

// supportedMask619 is the supported_mask of Linux 6.19 and 7.0, where 7.1 has coredump_code.
func (info *pidfdInfo) supportedMask619() uint64 {
	return *(*uint64)(unsafe.Pointer(&info.CoredumpCode))
}

// pidfdGetNamespace returns a close-on-exec descriptor. request is one of PIDFD_GET_*_NAMESPACE.
func pidfdGetNamespace(fd int, request uint32) (int, syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return -1, errno
	}
	namespace, err := unix.IoctlRetInt(fd, uint(request))
	return namespace, errnoOf(err)
}

// nsIoctl is for requests that need nothing but a descriptor of a namespace. fd must be on nsfs.
func nsIoctl(fd int, request uintptr) (int, syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return -1, errno
	}
	n, err := unix.IoctlRetInt(fd, uint(request))
	return n, errnoOf(err)
}

// nsGetID asks a namespace for its ID, which is never 0.
func nsGetID(fd int, request uintptr) (id uint64, errno syscall.Errno) {
	errno = ioctl(fd, request, unsafe.Pointer(&id))
	if errno == 0 && id == 0 {
		errno = syscall.EOPNOTSUPP // from a filter that makes the call do nothing
	}
	return id, errno
}

// nsGetOwner asks a user namespace for its owner.
func nsGetOwner(fd int) (uint32, syscall.Errno) {
	const nobody = 1<<32 - 1
	uid := uint32(nobody)
	errno := ioctl(fd, _NS_GET_OWNER_UID, unsafe.Pointer(&uid))
	if errno == 0 && uid == nobody {
		errno = syscall.EOPNOTSUPP // as in nsGetID
	}
	return uid, errno
}

// listns returns how many IDs it has stored in ids.
func listns[ID ~uint64](typ uint32, ids []ID) (int, syscall.Errno) {
	req := nsIDReq{Size: uint32(unsafe.Sizeof(nsIDReq{})), NSType: typ}
	n, _, errno := syscall.Syscall6(_SYS_LISTNS, uintptr(unsafe.Pointer(&req)), uintptr(unsafe.Pointer(unsafe.SliceData(ids))), uintptr(len(ids)), 0, 0, 0)
	return int(n), errno
}

// pidfdGetFD returns a close-on-exec descriptor. It can wait for the process, which may be in the
// middle of execve(2).
func pidfdGetFD(fd, target int) (int, syscall.Errno) {
	if check32(fd, target) != 0 {
		return -1, syscall.EBADF
	}
	r, err := unix.PidfdGetfd(fd, target, 0)
	return r, errnoOf(err)
}

// hasCapability reports whether the calling thread has a capability in its user namespace. It
// returns false if that is not known. It does not use unix.Capget, which does not tell the
// scheduler.
func hasCapability(n uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	errno := uninterrupted(func() syscall.Errno {
		_, _, errno := syscall.Syscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
		return errno
	})
	return errno == 0 && data[n/32].Effective>>(n%32)&1 != 0
}

// setns moves the calling thread.
func setns(fd, flags int) syscall.Errno {
	if errno := check32(fd, flags); errno != 0 {
		return errno
	}
	return errnoOf(unix.Setns(fd, flags))
}

// processMadvise returns how many bytes were advised. A range is a struct iovec.
func processMadvise[R ~struct{ Start, Size uintptr }](fd int, ranges []R, advice int) (int, syscall.Errno) {
	if errno := check32(fd, advice); errno != 0 {
		return -1, errno
	}
	const _ = -(unsafe.Sizeof(struct{ Start, Size uintptr }{}) ^ unsafe.Sizeof(syscall.Iovec{}))
	r, _, errno := syscall.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(ranges))),
		uintptr(len(ranges)), uintptr(advice), 0, 0)
	return int(r), errno
}

func processMrelease(fd int) syscall.Errno {
	if errno := check32(fd); errno != 0 {
		return errno
	}
	_, _, errno := syscall.Syscall(unix.SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
	return errno
}

// fgetxattr reads a value, and returns its length.
func fgetxattr(fd int, name string, buf []byte) (int, syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return 0, errno
	}
	n, err := unix.Fgetxattr(fd, name, buf)
	return n, errnoOf(err)
}

// flistxattr reads the names, each with a zero byte after it, and returns their length.
func flistxattr(fd int, buf []byte) (int, syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return 0, errno
	}
	n, err := unix.Flistxattr(fd, buf)
	return n, errnoOf(err)
}

func fsetxattr(fd int, name string, value []byte, flags int) syscall.Errno {
	if errno := check32(fd, flags); errno != 0 {
		return errno
	}
	return errnoOf(unix.Fsetxattr(fd, name, value, flags))
}

func fremovexattr(fd int, name string) syscall.Errno {
	if errno := check32(fd); errno != 0 {
		return errno
	}
	return errnoOf(unix.Fremovexattr(fd, name))
}

// waitPidFD is waitid(2). Without WNOHANG in options it holds a thread, and can return EINTR; with it,
// info.Signo remains 0 if the process has not ended.
func waitPidFD(fd, options int, info *siginfo, rusage *syscall.Rusage) syscall.Errno {
	if errno := check32(fd, options); errno != 0 {
		return errno
	}
	return waitid(unix.P_PIDFD, uintptr(fd), options, info, rusage)
}

// waitOwn is waitid(2) for children of the calling thread only: for the child with a PID, or for
// any child if pid is 0. options are those of waitPidFD.
func waitOwn(pid, options int, info *siginfo, rusage *syscall.Rusage) syscall.Errno {
	if errno := check32(pid, options); errno != 0 {
		return errno
	}
	kind := uintptr(unix.P_PID)
	if pid == 0 {
		kind = unix.P_ALL
	}
	return waitid(kind, uintptr(pid), options|syscall.WNOTHREAD, info, rusage)
}

func waitid(kind, id uintptr, options int, info *siginfo, rusage *syscall.Rusage) syscall.Errno {
	_, _, errno := syscall.Syscall6(unix.SYS_WAITID, kind, id, uintptr(unsafe.Pointer(info)),
		uintptr(options), uintptr(unsafe.Pointer(rusage)), 0)
	if errno == syscall.ESRCH {
		return syscall.ECHILD // gVisor's answer for a process that was reaped
	}
	return errno
}

// setChildSubreaper is for the whole process, whichever thread calls it.
func setChildSubreaper(on bool) syscall.Errno {
	var arg uintptr
	if on {
		arg = 1
	}
	return errnoOf(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, arg, 0, 0, 0))
}

// pollNow returns what poll(2) reports for a descriptor right now.
func pollNow(fd int) (revents int16, errno syscall.Errno) { return pollFor(fd, 0) }

// pollFor is pollNow, but waits if there is nothing to report. It holds a thread.
func pollFor(fd int, atMost time.Duration) (revents int16, errno syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return 0, errno
	}
	poll := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	errno = ppoll(poll[:], atMost)
	return poll[0].Revents, errno
}

// pollEnd is pollFor for a pidfd, and believes only what it sees twice unless the process was
// reaped. While a thread that is not the main one executes a program, a pidfd can be readable for
// an instant, though the process lives on: as seen on Linux 6.18, where fs/pidfs.c, pidfd_poll, takes
// no lock.
func pollEnd(fd int, atMost time.Duration) (revents int16, errno syscall.Errno) {
	revents, errno = pollFor(fd, atMost)
	if errno != 0 || revents == 0 || revents&unix.POLLHUP != 0 {
		return revents, errno
	}
	return pollNow(fd)
}

// ppoll waits for ever if atMost is negative.
func ppoll(polls []unix.PollFd, atMost time.Duration) (errno syscall.Errno) {
	left := [2]int64{int64(atMost / time.Second), int64(atMost % time.Second)} // a struct __kernel_timespec; the kernel writes to it
	call := func(number uintptr, timeout unsafe.Pointer) syscall.Errno {
		if atMost < 0 {
			timeout = nil
		}
		return uninterrupted(func() syscall.Errno { // even if it would not wait
			_, _, errno := syscall.Syscall6(number, uintptr(unsafe.Pointer(unsafe.SliceData(polls))), uintptr(len(polls)), uintptr(timeout), 0, 0, 0)
			return errno
		})
	}
	errno = call(_SYS_PPOLL_TIME64, unsafe.Pointer(&left))
	if !is64bit && (errno == syscall.ENOSYS || errno == syscall.EPERM) {
		// Before Linux 5.1, and under filters that do not know the call.
		left := [2]int32{int32(left[0]), int32(left[1])}
		errno = call(unix.SYS_PPOLL, unsafe.Pointer(&left))
	}
	return errno
}

// monotonicUsec returns the time of CLOCK_MONOTONIC in microseconds. It does not use
// unix.ClockGettime, which is the 32-bit call on some machines.
func monotonicUsec() (uint64, syscall.Errno) {
	var now [2]uint64 // a struct __kernel_timespec
	_, _, errno := syscall.Syscall(_SYS_CLOCK_GETTIME64, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&now)), 0)
	return now[0]*1e6 + now[1]/1e3, errno
}

// fcntl is for commands that cannot block.
func fcntl(fd, cmd, arg int) (int, syscall.Errno) {
	if errno := check32(fd, cmd, arg); errno != 0 {
		return -1, errno
	}
	n, err := unix.FcntlInt(uintptr(fd), cmd, arg)
	return n, errnoOf(err)
}

// setCloseOnExec is for n open descriptors from start up.
func setCloseOnExec(start, n int) {
	if check32(start, n) != 0 {
		return
	}
	// A few are done one by one, so that filters which end a process for a new call rarely see it.
	const few = 3
	if n > few && unix.CloseRange(uint(start), uint(start+n-1), unix.CLOSE_RANGE_CLOEXEC) == nil { // Linux 5.11
		if flags, _ := fcntl(start+n-1, syscall.F_GETFD, 0); flags&syscall.FD_CLOEXEC != 0 {
			return
		}
		// A seccomp filter makes the call do nothing.
	}
	for fd := start; fd < start+n; fd++ {
		fcntl(fd, syscall.F_SETFD, syscall.FD_CLOEXEC) // fails for no descriptor that is open
	}
}

// dupAbove duplicates fd to the lowest free number from start up, close-on-exec. It can take
// milliseconds if the kernel must enlarge the descriptor table.
func dupAbove(fd, start int) (int, syscall.Errno) {
	n, errno := fcntl(fd, syscall.F_DUPFD_CLOEXEC, start)
	if errno == syscall.EINVAL {
		errno = syscall.EMFILE // start itself is beyond the limit
	}
	return n, errno
}

// An inode identifies a file on this machine, and has its type.
type inode struct {
	dev, ino, rdev uint64 // a 32-bit kernel has only the low half of ino
	mode, links    uint32
}

func (i *inode) kind() uint32 { return i.mode & syscall.S_IFMT }

// statFD does not ask a server, which may never answer: fstat(2) of a file on FUSE would then hang.
func statFD(fd int) (inode, syscall.Errno) {
	if errno := check32(fd); errno != 0 || fd < 0 { // AT_FDCWD is not a descriptor
		return inode{}, syscall.EBADF
	}
	var buf statx
	var end byte
	errno := callStatx(fd, &end, AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, inodeFields, &buf)
	if errno != syscall.ENOSYS && errno != syscall.EPERM {
		return buf.inode(), errno
	}
	// Before Linux 4.11, and under filters that do not know the call.
	var st syscall.Stat_t
	errno = uninterrupted(func() syscall.Errno { return errnoOf(syscall.Fstat(fd, &st)) })
	return statInode(&st), errno
}

// stat follows symbolic links.
func stat(path string) (inode, syscall.Errno) {
	var buf statx
	var room [64]byte
	p, errno := cPath(room[:], path)
	if errno != 0 {
		return inode{}, errno
	}
	errno = callStatx(AT_FDCWD, p, 0, inodeFields, &buf)
	if errno != syscall.ENOSYS && errno != syscall.EPERM {
		return buf.inode(), errno
	}
	var st syscall.Stat_t // as in statFD
	errno = uninterrupted(func() syscall.Errno { return errnoOf(syscall.Stat(path, &st)) })
	return statInode(&st), errno
}

// statxMountID returns the ID of the mount that fd is on. It does not ask a server either. The ID
// is 0 if the kernel does not report it: before Linux 5.8, for the unique kind before 6.8.
func statxMountID(fd int, unique bool) (id uint64, errno syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return 0, errno
	}
	mask := uintptr(unix.STATX_MNT_ID)
	if unique {
		mask = unix.STATX_MNT_ID_UNIQUE
	}
	var buf statx
	var end byte
	errno = callStatx(fd, &end, AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, mask, &buf)
	if errno != 0 || uintptr(buf.Mask)&mask == 0 {
		return 0, errno
	}
	return buf.MntID, 0
}

// inodeFields are what statx.inode needs.
const inodeFields = unix.STATX_TYPE | unix.STATX_INO | unix.STATX_NLINK

func callStatx(dirfd int, path *byte, flags, mask uintptr, buf *statx) syscall.Errno {
	return uninterrupted(func() syscall.Errno {
		_, _, errno := syscall.Syscall6(unix.SYS_STATX, uintptr(dirfd), uintptr(unsafe.Pointer(path)), flags,
			mask, uintptr(unsafe.Pointer(buf)), 0)
		return errno
	})
}

// makeDevice returns a device number as stat(2) does.
func makeDevice(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

// takeDevice is the reverse of makeDevice.
func takeDevice(device uint64) (major, minor uint32) { return unix.Major(device), unix.Minor(device) }

// isMountRoot reports whether the directory at path is the root directory of the mount that it is
// on. Before Linux 5.8 known is false. It does not ask a server.
func isMountRoot(dirfd int, path string) (is, known bool, errno syscall.Errno) {
	if errno := check32(dirfd); errno != 0 {
		return false, false, errno
	}
	var buf statx
	var room [64]byte
	p, errno := cPath(room[:], path)
	if errno == 0 {
		errno = callStatx(dirfd, p, unix.AT_STATX_DONT_SYNC, 0, &buf)
	}
	return buf.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, buf.AttributesMask&unix.STATX_ATTR_MOUNT_ROOT != 0, errno
}

func (s *statx) inode() inode {
	return inode{
		dev: unix.Mkdev(s.DevMajor, s.DevMinor), ino: s.Ino,
		rdev: unix.Mkdev(s.RdevMajor, s.RdevMinor), mode: uint32(s.Mode), links: s.Nlink,
	}
}

func statInode(st *syscall.Stat_t) inode {
	return inode{dev: uint64(st.Dev), ino: st.Ino, rdev: uint64(st.Rdev), mode: st.Mode, links: uint32(st.Nlink)}
}

// mqGetAttr returns EBADF if fd is not a message queue.
func mqGetAttr(fd int) syscall.Errno {
	if errno := check32(fd); errno != 0 {
		return errno
	}
	var attr [8]uintptr // a struct mq_attr is eight longs
	_, _, errno := syscall.Syscall(syscall.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&attr)))
	return errno
}

// peerCred asks for the credentials that a socket has recorded. It does not use
// syscall.GetsockoptUcred, which allocates.
func peerCred(fd int, c *syscall.Ucred) syscall.Errno {
	_, errno := getsockopt(fd, unix.SO_PEERCRED, unsafe.Pointer(c), unsafe.Sizeof(*c))
	return errno
}

// peerPidFD returns a close-on-exec descriptor.
func peerPidFD(fd int) (int, syscall.Errno) {
	if errno := check32(fd); errno != 0 {
		return -1, errno
	}
	n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, unix.SO_PEERPIDFD)
	return n, errnoOf(err)
}

// peerGroups asks for the groups that a socket has recorded. With ERANGE it returns how many there
// are.
func peerGroups(fd int, groups []uint32) (n int, errno syscall.Errno) {
	size, errno := getsockopt(fd, unix.SO_PEERGROUPS, unsafe.Pointer(unsafe.SliceData(groups)), uintptr(len(groups))*4)
	return int(size / 4), errno
}

// getsockopt is for options of SOL_SOCKET. On 386 and s390x, where package syscall goes through
// socketcall(2), it requires Linux 4.3.
func getsockopt(fd, option int, value unsafe.Pointer, size uintptr) (uint32, syscall.Errno) {
	if errno := check32(fd, option); errno != 0 {
		return 0, errno
	}
	length := uint32(size)
	_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), syscall.SOL_SOCKET, uintptr(option), uintptr(value), uintptr(unsafe.Pointer(&length)), 0)
	return length, errno
}

// fsMagic returns the type of the file system, as in linux/magic.h.
func fsMagic(fd int) (uint32, syscall.Errno) {
	magic, _, errno := fstatfs(fd)
	return magic, errno
}

// fstatfs returns the type of the file system and its f_fsid.
func fstatfs(fd int) (magic uint32, fsid uint64, errno syscall.Errno) {
	if errno := check32(fd); errno != 0 || fd < 0 { // gVisor accepts AT_FDCWD
		return 0, 0, syscall.EBADF
	}
	var st syscall.Statfs_t
	errno = uninterrupted(func() syscall.Errno { return errnoOf(syscall.Fstatfs(fd, &st)) })
	return uint32(st.Type), uint64(uint32(st.Fsid.X__val[0])) | uint64(uint32(st.Fsid.X__val[1]))<<32, errno
}

// fsUUID returns the UUID of the file system and its length. The UUID may be all zeros. fd must not
// be a device.
func fsUUID(fd int) (uuid [16]byte, n int, errno syscall.Errno) {
	magic, errno := fsMagic(fd)
	switch {
	case errno != 0:
		return uuid, 0, errno
	case magic == unix.OVERLAYFS_SUPER_MAGIC:
		return uuid, 0, syscall.EOPNOTSUPP // OpenFileSystem does not ask stacked file systems
	case magic == unix.BTRFS_SUPER_MAGIC:
		// btrfs has no FS_IOC_GETFSUUID, as of Linux 6.18.
		_, uuid, errno := btrfsUUIDs(fd)
		return uuid, len(uuid), errno
	}
	var u fsuuid2
	errno = ioctl(fd, _FS_IOC_GETFSUUID, unsafe.Pointer(&u))
	n = min(int(u.Len), len(u.UUID))
	copy(uuid[:], u.UUID[:n])
	return uuid, n, errno
}

// btrfsUUIDs returns two UUIDs of a btrfs: the one that no other btrfs has as long as it is
// mounted, and the one that lasts. They differ if a copy is mounted while the original is (since
// Linux 6.7).
func btrfsUUIDs(fd int) (mounted, lasting [16]byte, errno syscall.Errno) {
	info := btrfsFSInfo{Flags: _BTRFS_FS_INFO_FLAG_METADATA_UUID}
	errno = ioctl(fd, _BTRFS_IOC_FS_INFO, unsafe.Pointer(&info))
	mounted, lasting = info.FSID, info.FSID
	if info.Flags&_BTRFS_FS_INFO_FLAG_METADATA_UUID != 0 {
		lasting = info.MetadataUUID
	}
	return mounted, lasting, errno
}

func ioctl(fd int, number uintptr, arg unsafe.Pointer) syscall.Errno {
	if errno := check32(fd); errno != 0 {
		return errno
	}
	return uninterrupted(func() syscall.Errno {
		_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), number, uintptr(arg))
		return errno
	})
}

// A mountStat is what statmount(2) returns.
type mountStat struct {
	statmount
	strings string
}

// str returns a string of s. bit is the bit that requests it, and at is its place.
func (s *mountStat) str(bit uint64, at uint32) string {
	if s.Mask&bit == 0 || uint64(at) > uint64(len(s.strings)) {
		return ""
	}
	text, _, _ := cut(s.strings[at:], 0)
	return text
}

// statMount asks for the mount with this unique ID, in a mount namespace or, if namespace is 0, in
// the caller's. It writes to room, and enlarges it as needed.
func statMount(id, namespace, mask uint64, room *[]uint64) (s mountStat, errno syscall.Errno) {
	req := newMntIDReq(id, mask, namespace)
	const most = 256 << 10 / 8
	if len(*room) == 0 {
		*room = make([]uint64, (unsafe.Sizeof(statmount{})+4096)/8)
	}
	for {
		head := (*statmount)(unsafe.Pointer(&(*room)[0]))
		*head = statmount{}
		errno := uninterrupted(func() syscall.Errno {
			_, _, errno := syscall.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&req)), uintptr(unsafe.Pointer(head)), uintptr(len(*room))*8, 0, 0, 0)
			return errno
		})
		switch {
		case errno == syscall.EOVERFLOW && len(*room) < most:
			*room = make([]uint64, 2*len(*room))
			continue
		case errno != 0:
			return s, errno
		case head.Mask&_STATMOUNT_MNT_BASIC == 0 && mask&_STATMOUNT_MNT_BASIC != 0:
			return s, syscall.ENOSYS // a seccomp filter makes the call do nothing
		}
		size := min(uintptr(head.Size), uintptr(len(*room))*8)
		text := unsafe.Slice((*byte)(unsafe.Pointer(head)), size)[min(size, unsafe.Sizeof(*head)):]
		return mountStat{*head, string(text)}, 0
	}
}

// listMounts fills ids with the unique IDs of the mounts that come after the mount after, or with
// the first ones if after is 0, and returns how many it has stored. They are the mounts below the
// root directory of the caller or, if namespace is not 0, those of a mount namespace.
func listMounts(namespace, after uint64, ids []uint64) (n int, errno syscall.Errno) {
	req := newMntIDReq(_LSMT_ROOT, after, namespace)
	errno = uninterrupted(func() syscall.Errno {
		r, _, errno := syscall.Syscall6(unix.SYS_LISTMOUNT, uintptr(unsafe.Pointer(&req)), uintptr(unsafe.Pointer(unsafe.SliceData(ids))), uintptr(len(ids)), 0, 0, 0)
		n = int(r)
		return errno
	})
	if errno != 0 {
		return 0, errno
	}
	return min(n, len(ids)), 0
}

// newMntIDReq returns a request, of the size that all kernels accept if possible. Kernels before
// Linux 6.11 answer E2BIG to a namespace.
func newMntIDReq(id, param, namespace uint64) mntIDReq {
	req := mntIDReq{Size: unix.MNT_ID_REQ_SIZE_VER0, MntID: id, Param: param, MntNSID: namespace}
	if namespace != 0 {
		req.Size = uint32(unsafe.Sizeof(req))
	}
	return req
}

// The bits for "read-only" in what statmount(2) returns: of the mount, and of its file system.
const (
	mountReadOnly      = unix.MOUNT_ATTR_RDONLY
	fileSystemReadOnly = syscall.MS_RDONLY
)
