//go:build linux

package sysfd

import (
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// withFD calls use with the descriptor of f, which stays open meanwhile and in the
// blocking mode that it has.
func withFD(f *os.File, use func(fd int)) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if conn.Control(func(fd uintptr) { use(int(fd)) }) != nil {
		// It fails for nothing else, and with an error that does not match this one.
		return &os.PathError{Op: "use", Path: f.Name(), Err: os.ErrClosed}
	}
	return nil
}

// The kernel reads a descriptor and a PID as 32 bits and drops the rest.
func fits32(n int) bool { return int(int32(n)) == n }

// is64bit tells the word size of this program; where it is true, that of the
// kernel is the same.
const is64bit = ^uint(0)>>32 != 0

// native64 reads an integer in the byte order of this machine.
func native64(b []byte) (n uint64) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&n)), 8), b)
	return n
}

// native32 is the same with 32 bits.
func native32(b []byte) (n uint32) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&n)), 4), b)
	return n
}

// nsfs reads the inside of a handle of a namespace.
func nsfs(b []byte) (n nsfsFileHandle) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&n)), unsafe.Sizeof(n)), b)
	return n
}

// putNative64 is the reverse of native64.
func putNative64(b []byte, n uint64) {
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&n)), 8))
}

// nameToHandleAt fills h and returns the mount ID.
func nameToHandleAt(dirfd int, path string, h *fileHandle, flags int) (MountID, syscall.Errno) {
	switch {
	case !fits32(dirfd):
		return 0, syscall.EBADF
	case path == "":
		var end byte
		return nameToHandle(dirfd, &end, h, flags)
	case strings.IndexByte(path, 0) >= 0:
		return 0, syscall.EINVAL
	}
	var buf [1024]byte
	p := buf[:]
	if len(path) >= len(buf) {
		p = make([]byte, len(path)+1)
	}
	copy(p, path)
	return nameToHandle(dirfd, &p[0], h, flags)
}

// nameToHandle takes the path as C does.
func nameToHandle(dirfd int, path *byte, h *fileHandle, flags int) (MountID, syscall.Errno) {
	// 8 bytes in any case: with AT_HANDLE_MNT_ID_UNIQUE that is what the kernel writes.
	var mount uint64
	*h = fileHandle{HandleBytes: MAX_HANDLE_SZ}
	for {
		_, _, errno := syscall.Syscall6(_SYS_NAME_TO_HANDLE_AT, uintptr(dirfd), uintptr(unsafe.Pointer(path)),
			uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(&mount)), uintptr(flags), 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return 0, errno
		case flags&AT_HANDLE_MNT_ID_UNIQUE != 0:
			return MountID(mount), 0
		default:
			// An int, which on a big-endian machine is the high half of mount.
			return MountID(*(*uint32)(unsafe.Pointer(&mount))), 0
		}
	}
}

// openByHandleAt returns a close-on-exec descriptor.
func openByHandleAt(mountFD int, h *fileHandle, flags int) (fd int, errno syscall.Errno) {
	if !fits32(mountFD) {
		return -1, syscall.EBADF
	}
	for {
		r, _, errno := syscall.Syscall(_SYS_OPEN_BY_HANDLE_AT, uintptr(mountFD), uintptr(unsafe.Pointer(h)),
			uintptr(flags|syscall.O_CLOEXEC|syscall.O_LARGEFILE))
		switch errno {
		case 0:
			return int(r), 0
		case syscall.EINTR:
		default:
			return -1, errno
		}
	}
}

// pidfdOpen returns a close-on-exec descriptor.
func pidfdOpen(pid, flags int) (fd int, errno syscall.Errno) {
	r, _, errno := syscall.Syscall(_SYS_PIDFD_OPEN, uintptr(pid), uintptr(flags), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(r), 0
}

// pidfdProbe sends no signal: it asks whether one could be sent.
func pidfdProbe(fd int) syscall.Errno { return pidfdSendSignal(fd, 0, nil, 0) }

// pidfdSendSignal sends a signal as kill(2) does, or with info as sigqueue(3) does. It cannot block.
func pidfdSendSignal(fd int, sig syscall.Signal, info *sigqueueInfo, flags int) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(_SYS_PIDFD_SEND_SIGNAL, uintptr(fd), uintptr(sig), uintptr(unsafe.Pointer(info)), uintptr(flags), 0, 0)
	return errno
}

// pidfdGetInfo asks for the fields in info.Mask. It must be given a pidfd, and then it cannot block.
func pidfdGetInfo(fd int, info *pidfdInfo) syscall.Errno {
	_, _, errno := syscall.RawSyscall(_SYS_IOCTL, uintptr(fd), PIDFD_GET_INFO, uintptr(unsafe.Pointer(info)))
	return errno
}

// supportedMask619 is the supported_mask of Linux 6.19 and 7.0, where 7.1 has coredump_code.
func (info *pidfdInfo) supportedMask619() uint64 {
	return *(*uint64)(unsafe.Pointer(&info.CoredumpCode))
}

// pidfdGetNamespace returns a close-on-exec descriptor. request is one of PIDFD_GET_*_NAMESPACE.
func pidfdGetNamespace(fd int, request NamespaceKind) (int, syscall.Errno) {
	r, _, errno := syscall.Syscall(_SYS_IOCTL, uintptr(fd), uintptr(request), 0)
	return int(r), errno
}

// pidfdGetFD returns a close-on-exec descriptor. It can wait for the process, which
// may be in the middle of execve(2).
func pidfdGetFD(fd, target int) (int, syscall.Errno) {
	r, _, errno := syscall.Syscall(_SYS_PIDFD_GETFD, uintptr(fd), uintptr(target), 0)
	return int(r), errno
}

// setns moves the calling thread.
func setns(fd, flags int) syscall.Errno {
	_, _, errno := syscall.Syscall(_SYS_SETNS, uintptr(fd), uintptr(flags), 0)
	return errno
}

// A MemoryRange is a struct iovec.
const _ = -(unsafe.Sizeof(MemoryRange{}) ^ unsafe.Sizeof(syscall.Iovec{}))

// processMadvise returns how many bytes were advised.
func processMadvise(fd int, ranges []MemoryRange, advice int) (int, syscall.Errno) {
	r, _, errno := syscall.Syscall6(_SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(ranges))),
		uintptr(len(ranges)), uintptr(advice), 0, 0)
	return int(r), errno
}

func processMrelease(fd int) syscall.Errno {
	_, _, errno := syscall.Syscall(_SYS_PROCESS_MRELEASE, uintptr(fd), 0, 0)
	return errno
}

// fgetxattr reads a value, and the list of all names if name is nil. It returns the length.
func fgetxattr(fd int, name *byte, buf []byte) (int, syscall.Errno) {
	if name == nil {
		r, _, errno := syscall.Syscall(_SYS_FLISTXATTR, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
		return int(r), errno
	}
	r, _, errno := syscall.Syscall6(_SYS_FGETXATTR, uintptr(fd), uintptr(unsafe.Pointer(name)),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0, 0)
	return int(r), errno
}

func fsetxattr(fd int, name *byte, value []byte, flags int) syscall.Errno {
	_, _, errno := syscall.Syscall6(_SYS_FSETXATTR, uintptr(fd), uintptr(unsafe.Pointer(name)),
		uintptr(unsafe.Pointer(unsafe.SliceData(value))), uintptr(len(value)), uintptr(flags), 0)
	return errno
}

func fremovexattr(fd int, name *byte) syscall.Errno {
	_, _, errno := syscall.Syscall(_SYS_FREMOVEXATTR, uintptr(fd), uintptr(unsafe.Pointer(name)), 0)
	return errno
}

// waitPidFD is waitid(2). The options must have WNOHANG, and info.Signo remains 0 if
// the process has not ended. To reap one takes the kernel a while, so it is not raw.
func waitPidFD(fd, options int, info *siginfo, rusage *syscall.Rusage) syscall.Errno {
	_, _, errno := syscall.Syscall6(_SYS_WAITID, P_PIDFD, uintptr(fd), uintptr(unsafe.Pointer(info)),
		uintptr(options), uintptr(unsafe.Pointer(rusage)), 0)
	return errno
}

// pollNow returns what ppoll(2) tells of a descriptor right now.
func pollNow(fd int) (revents int16, errno syscall.Errno) {
	poll := pollFD{FD: int32(fd), Events: _POLLIN}
	for {
		var now [2]int64 // a timespec of any size
		_, _, errno = syscall.RawSyscall6(_SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if errno != syscall.EINTR { // which it says even though it would not wait
			return poll.Revents, errno
		}
	}
}

// monotonicUsec returns the time of CLOCK_MONOTONIC in microseconds.
func monotonicUsec() (uint64, syscall.Errno) {
	var now [2]uint64 // a struct __kernel_timespec
	_, _, errno := syscall.RawSyscall(_SYS_CLOCK_GETTIME64, _CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&now)), 0)
	return now[0]*1e6 + now[1]/1e3, errno
}

// fcntl is for commands that cannot block.
func fcntl(fd, cmd, arg int) (int, syscall.Errno) {
	r, _, errno := syscall.RawSyscall(_SYS_FCNTL, uintptr(fd), uintptr(cmd), uintptr(arg))
	return int(r), errno
}

// dupAbove duplicates fd to the lowest free number from start up, close-on-exec.
// It can take milliseconds, when the kernel enlarges the descriptor table.
func dupAbove(fd, start int) (int, syscall.Errno) {
	r, _, errno := syscall.Syscall(_SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, uintptr(start))
	if errno == syscall.EINVAL {
		errno = syscall.EMFILE // start itself is beyond the limit
	}
	return int(r), errno
}

// fstat returns the device and the inode number, of which a kernel of 32 bits has just the low half.
func fstat(fd int) (dev, ino uint64, errno syscall.Errno) {
	st, errno := fstatAll(fd)
	return uint64(st.Dev), st.Ino, errno
}

func fstatAll(fd int) (st syscall.Stat_t, errno syscall.Errno) {
	if !fits32(fd) {
		return st, syscall.EBADF
	}
	for {
		switch err := syscall.Fstat(fd, &st); err {
		case nil:
			return st, 0
		case syscall.EINTR:
		default:
			return st, err.(syscall.Errno)
		}
	}
}

// stat follows symbolic links.
func stat(path string) (st syscall.Stat_t, errno syscall.Errno) {
	for {
		switch err := syscall.Stat(path, &st); err {
		case nil:
			return st, 0
		case syscall.EINTR:
		default:
			return st, err.(syscall.Errno)
		}
	}
}

// mqGetAttr returns EBADF for what is no message queue.
func mqGetAttr(fd int) syscall.Errno {
	var attr [8]uintptr // a struct mq_attr is eight longs
	_, _, errno := syscall.RawSyscall(syscall.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&attr)))
	return errno
}

// fsMagic returns the type of the file system, as in linux/magic.h.
func fsMagic(fd int) (uint32, syscall.Errno) {
	magic, _, errno := fstatfs(fd)
	return magic, errno
}

// fstatfs returns the type of the file system and its f_fsid.
func fstatfs(fd int) (magic uint32, fsid uint64, errno syscall.Errno) {
	if !fits32(fd) {
		return 0, 0, syscall.EBADF
	}
	var st syscall.Statfs_t
	for {
		switch err := syscall.Fstatfs(fd, &st); err {
		case nil:
			return uint32(st.Type), uint64(uint32(st.Fsid.X__val[0])) | uint64(uint32(st.Fsid.X__val[1]))<<32, 0
		case syscall.EINTR:
		default:
			return 0, 0, err.(syscall.Errno)
		}
	}
}

// fsUUID returns the UUID of the file system and its length; it may be all zeros.
// What fd refers to must not be a device.
func fsUUID(fd int) (uuid [16]byte, n int, errno syscall.Errno) {
	magic, errno := fsMagic(fd)
	switch {
	case errno != 0:
		return uuid, 0, errno
	case magic == _OVERLAYFS_SUPER_MAGIC:
		return uuid, 0, syscall.EOPNOTSUPP // OpenFileSystem does not ask what is stacked on others
	case magic == _BTRFS_SUPER_MAGIC:
		// It has no FS_IOC_GETFSUUID, as of Linux 6.18. If a copy is mounted while the
		// original is, FSID is a number of the moment (since Linux 6.7).
		info := btrfsFSInfo{Flags: _BTRFS_FS_INFO_FLAG_METADATA_UUID}
		errno := ioctl(fd, _BTRFS_IOC_FS_INFO, unsafe.Pointer(&info))
		if info.Flags&_BTRFS_FS_INFO_FLAG_METADATA_UUID != 0 {
			info.FSID = info.MetadataUUID
		}
		return info.FSID, len(info.FSID), errno
	}
	var u fsuuid2
	errno = ioctl(fd, FS_IOC_GETFSUUID, unsafe.Pointer(&u))
	n = min(int(u.Len), len(u.UUID))
	copy(uuid[:], u.UUID[:n])
	return uuid, n, errno
}

func ioctl(fd int, number uintptr, arg unsafe.Pointer) syscall.Errno {
	for {
		_, _, errno := syscall.Syscall(_SYS_IOCTL, uintptr(fd), number, uintptr(arg))
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// statmountPoint returns where the mount with this unique ID is, seen from the
// root directory of the caller.
func statmountPoint(id MountID) (path string, errno syscall.Errno) {
	req := mntIDReq{Size: _MNT_ID_REQ_SIZE_VER0, MntID: uint64(id), Param: _STATMOUNT_MNT_POINT}
	for n := 1; ; {
		buf := make([]struct {
			statmount
			text [4096]byte
		}, n)
		size := uintptr(n) * unsafe.Sizeof(buf[0])
		_, _, errno := syscall.Syscall6(_SYS_STATMOUNT, uintptr(unsafe.Pointer(&req)), uintptr(unsafe.Pointer(&buf[0])), size, 0, 0, 0)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EOVERFLOW && n < 64:
			n *= 2
			continue
		case errno != 0:
			return "", errno
		case buf[0].Mask&_STATMOUNT_MNT_POINT == 0:
			return "", syscall.ENOENT
		}
		text := unsafe.String((*byte)(unsafe.Pointer(&buf[0])), size)
		path, _, _ := strings.Cut(text[unsafe.Sizeof(statmount{})+uintptr(buf[0].MntPoint):], "\x00")
		return strings.Clone(path), 0
	}
}

// openat returns a close-on-exec descriptor.
func openat(dirfd int, path string, flags int) (int, error) {
	if !fits32(dirfd) {
		return -1, &callError{call: "openat", subject: path, errno: syscall.EBADF}
	}
	for {
		fd, err := syscall.Openat(dirfd, path, flags|syscall.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd, nil
		case syscall.EINTR:
		default:
			return -1, &callError{call: "openat", subject: path, errno: err.(syscall.Errno)}
		}
	}
}
