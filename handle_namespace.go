//go:build linux

package sysfd

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A NamespaceKind is one of the namespaces that each process is in; see namespaces(7).
type NamespaceKind uint32

// The kinds of namespaces. The kinds "for children" are those that the next children will be in;
// see pid_namespaces(7) and time_namespaces(7).
const (
	CgroupNamespace          NamespaceKind = _PIDFD_GET_CGROUP_NAMESPACE
	IPCNamespace             NamespaceKind = _PIDFD_GET_IPC_NAMESPACE
	MntNamespace             NamespaceKind = _PIDFD_GET_MNT_NAMESPACE
	NetNamespace             NamespaceKind = _PIDFD_GET_NET_NAMESPACE
	PIDNamespace             NamespaceKind = _PIDFD_GET_PID_NAMESPACE
	PIDForChildrenNamespace  NamespaceKind = _PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE
	TimeNamespace            NamespaceKind = _PIDFD_GET_TIME_NAMESPACE
	TimeForChildrenNamespace NamespaceKind = _PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE
	UserNamespace            NamespaceKind = _PIDFD_GET_USER_NAMESPACE
	UTSNamespace             NamespaceKind = _PIDFD_GET_UTS_NAMESPACE
)

// String returns the name of the kind in /proc/PID/ns, such as "net" or "pid_for_children", and ""
// for an unknown kind.
func (k NamespaceKind) String() string {
	switch k {
	case CgroupNamespace:
		return "cgroup"
	case IPCNamespace:
		return "ipc"
	case MntNamespace:
		return "mnt"
	case NetNamespace:
		return "net"
	case PIDNamespace:
		return "pid"
	case PIDForChildrenNamespace:
		return "pid_for_children"
	case TimeNamespace:
		return "time"
	case TimeForChildrenNamespace:
		return "time_for_children"
	case UserNamespace:
		return "user"
	case UTSNamespace:
		return "uts"
	}
	return ""
}

// CloneFlag returns the flag of clone(2), unshare(2) and setns(2) for the kind, such as
// [syscall.CLONE_NEWNET], and 0 for an unknown kind. The flag is also the type in a handle; see
// [FileHandle.Namespace].
func (k NamespaceKind) CloneFlag() int {
	switch k {
	case CgroupNamespace:
		return syscall.CLONE_NEWCGROUP
	case IPCNamespace:
		return syscall.CLONE_NEWIPC
	case MntNamespace:
		return syscall.CLONE_NEWNS
	case NetNamespace:
		return syscall.CLONE_NEWNET
	case PIDNamespace, PIDForChildrenNamespace:
		return syscall.CLONE_NEWPID
	case TimeNamespace, TimeForChildrenNamespace:
		return syscall.CLONE_NEWTIME
	case UserNamespace:
		return syscall.CLONE_NEWUSER
	case UTSNamespace:
		return syscall.CLONE_NEWUTS
	}
	return 0
}

// namespaceKindOf is the reverse of CloneFlag; 0 = unknown. It returns no kind "for children".
func namespaceKindOf(flag uint32) NamespaceKind {
	for _, k := range [...]NamespaceKind{
		CgroupNamespace, IPCNamespace, MntNamespace, NetNamespace, PIDNamespace, TimeNamespace, UserNamespace, UTSNamespace,
	} {
		if uint32(k.CloneFlag()) == flag {
			return k
		}
	}
	return 0
}

// A NamespaceID names a namespace of any kind. It is a 64-bit number that the kernel does not use
// again until the next boot, unlike the inode number that /proc/PID/ns shows. From Linux 6.11 to
// 6.17 only mount namespaces have one.
type NamespaceID uint64

// String returns the ID in decimal.
func (id NamespaceID) String() string { return strconv.FormatUint(uint64(id), 10) }

// Namespace returns the parts of the handle of a namespace: its ID, its type (one of CLONE_NEW*,
// such as [syscall.CLONE_NEWNET]) and the inode number of its file in /proc/PID/ns. It returns
// false if h is not of type [FILEID_NSFS].
//
// The kernel makes these handles since Linux 6.18 (struct nsfs_file_handle).
func (h FileHandle) Namespace() (id NamespaceID, typ, inode uint32, ok bool) {
	if h.h.HandleType != FILEID_NSFS || h.h.HandleBytes < 16 {
		return 0, 0, 0, false
	}
	n := nsfs(h.h.FHandle[:16])
	return NamespaceID(n.NSID), n.NSType, n.NSInum, true
}

// NamespaceHandle returns the handle of the namespace with this ID, type and inode number. It is
// the reverse of [FileHandle.Namespace]. If typ and inode are 0 the handle has the ID alone; see
// [OpenNamespace].
func NamespaceHandle(id NamespaceID, typ, inode uint32) (h FileHandle) {
	h.h.HandleType, h.h.HandleBytes = FILEID_NSFS, 16
	putNsfs(h.h.FHandle[:16], nsfsFileHandle{NSID: uint64(id), NSType: typ, NSInum: inode})
	return h
}

// NamespaceIDOf returns the ID of the namespace that fd refers to. fd is a file in /proc/PID/ns, or
// what [PidFD.Namespace] or [OpenNamespace] returned. The ID comes from the file handle, Linux
// 6.18, or where a filter forbids name_to_handle_at(2) from the ioctl NS_GET_ID. Before Linux 6.18
// the ID of a mount namespace, which statmount(2) and listmount(2) use, comes from the ioctl
// NS_GET_MNTNS_ID, Linux 6.11. NamespaceIDOf does not wait, whatever fd is.
//
// Errors:
//   - EINVAL if fd is not a namespace;
//   - EBADF if fd is not open;
//   - an error that matches [errors.ErrUnsupported] if the kernel is too old. Before Linux 6.11
//     that is also the error without /proc, because then it is not known whether fd is a namespace.
func NamespaceIDOf(fd int) (NamespaceID, error) {
	if _, err := proveNsfs(fd); err != nil {
		return 0, err
	}
	h, err := namespaceHandle(fd)
	if id, _, _, ok := h.Namespace(); ok {
		return id, nil
	}
	return namespaceIDByIoctl(fd, err)
}

// namespaceHandle returns the handle of a descriptor on nsfs.
func namespaceHandle(fd int) (FileHandle, error) {
	h, _, err := NameToHandleAt(fd, "", AT_EMPTY_PATH)
	return h, err
}

// namespaceIDByIoctl asks the ioctls. fd must be on nsfs. errHandle says why there is no handle,
// and is returned if it says more than the ioctls do.
func namespaceIDByIoctl(fd int, errHandle error) (NamespaceID, error) {
	id, errno := nsGetID(fd, _NS_GET_ID)
	if lacksIoctl(errno) { // before Linux 6.18; EINVAL for a namespace that is not a mount namespace
		id, errno = nsGetID(fd, _NS_GET_MNTNS_ID)
	}
	switch {
	case errno == 0:
		return NamespaceID(id), nil
	case errHandle != nil && !errors.Is(errHandle, errors.ErrUnsupported):
		return 0, errHandle
	}
	err := failed("ioctl", "NS_GET_ID "+fdSubject(fd), errno)
	if lacksIoctl(errno) {
		err.means = errors.ErrUnsupported
	}
	return 0, err
}

// NamespaceKindOf returns the kind of the namespace that fd refers to. For a namespace "for
// children" it returns [PIDNamespace] or [TimeNamespace]. It is the ioctl NS_GET_NSTYPE, Linux
// 4.11; see ioctl_nsfs(2). It does not wait, whatever fd is.
//
// Errors:
//   - EINVAL if fd is not a namespace;
//   - EBADF if fd is not open, or open for O_PATH only;
//   - an error that matches [errors.ErrUnsupported] if the kernel is too old, or has a kind that
//     this package does not know. A 32-bit program on a 64-bit kernel needs Linux 6.3.
func NamespaceKindOf(fd int) (NamespaceKind, error) {
	if _, err := proveNsfs(fd); err != nil {
		return 0, err
	}
	return namespaceKind(fd)
}

// namespaceKind is NamespaceKindOf for a descriptor on nsfs.
func namespaceKind(fd int) (NamespaceKind, error) {
	typ, errno := nsIoctl(fd, _NS_GET_NSTYPE)
	if errno != 0 {
		return 0, nsfsError("NS_GET_NSTYPE", fd, errno)
	}
	kind := namespaceKindOf(uint32(typ))
	if kind == 0 {
		return 0, refused(syscall.EOPNOTSUPP, "descriptor "+strconv.Itoa(fd)+" is a namespace of unknown type 0x"+strconv.FormatUint(uint64(uint32(typ)), 16)).as(errors.ErrUnsupported)
	}
	return kind, nil
}

// NamespaceOwnerOf returns the user who made the user namespace that fd refers to. The number is
// that of the user in the caller's user namespace, or the overflow user, commonly 65534, if the
// user has no number there. It is the ioctl NS_GET_OWNER_UID, Linux 4.11. It does not wait,
// whatever fd is.
//
// Errors: those of [NamespaceKindOf]. EINVAL if fd is not a user namespace.
func NamespaceOwnerOf(fd int) (uid uint32, err error) {
	if _, err := proveNsfs(fd); err != nil {
		return 0, err
	}
	uid, errno := nsGetOwner(fd)
	if errno != 0 {
		return 0, nsfsError("NS_GET_OWNER_UID", fd, errno)
	}
	return uid, nil
}

// nsfsError is the error of an ioctl on nsfs. Only a kernel that lacks the ioctl answers ENOTTY.
func nsfsError(request string, fd int, errno syscall.Errno) error {
	err := failed("ioctl", request+" "+fdSubject(fd), errno)
	if errno == syscall.ENOTTY {
		err.means = errors.ErrUnsupported
	}
	return err
}

// OpenParentNamespace opens the parent of the namespace that fd refers to, from which the namespace
// was made. Only pid and user namespaces have parents. The file can be passed to setns(2). It is
// the ioctl NS_GET_PARENT, Linux 4.9; see ioctl_nsfs(2). It does not wait, whatever fd is.
//
// Errors: those of [NamespaceKindOf], and
//   - EPERM if the parent is out of the caller's scope: it is neither the caller's own namespace
//     nor one below that. The initial namespace has no parent, and the error is the same;
//   - EINVAL if fd is a namespace of another kind or not a namespace.
func OpenParentNamespace(fd int) (*os.File, error) {
	return openRelated(fd, "NS_GET_PARENT", _NS_GET_PARENT)
}

// OpenOwningUserNamespace opens the user namespace that owns the namespace that fd refers to: a
// capability such as CAP_SYS_ADMIN is a right over that namespace if it is held there. It is the
// user namespace of the process that made the namespace, or the parent of a user namespace. The
// file can be passed to setns(2). It is the ioctl NS_GET_USERNS, Linux 4.9; see ioctl_nsfs(2). It
// does not wait, whatever fd is.
//
// Errors: those of [NamespaceKindOf], and
//   - EPERM if the owner is neither the caller's user namespace nor one below that;
//   - EINVAL if fd is not a namespace.
func OpenOwningUserNamespace(fd int) (*os.File, error) {
	return openRelated(fd, "NS_GET_USERNS", _NS_GET_USERNS)
}

func openRelated(fd int, name string, request uintptr) (*os.File, error) {
	if _, err := proveNsfs(fd); err != nil {
		return nil, err
	}
	related, errno := nsIoctl(fd, request)
	if errno != 0 {
		return nil, nsfsError(name, fd, errno)
	}
	is, err := proveNsfs(related)
	if err != nil {
		// Do not close related: a filter returns 0 for every call, and 0 is somebody's
		// descriptor.
		return nil, refused(syscall.EOPNOTSUPP, "ioctl "+name+" succeeds here, but has no effect").as(errors.ErrUnsupported)
	}
	kind := UserNamespace
	if request == _NS_GET_PARENT {
		if kind, err = namespaceKind(related); err != nil {
			syscall.Close(related)
			return nil, err
		}
	}
	return namespaceFile(related, kind, is.ino), nil
}

// namespaceFile names the file as its link in /proc reads.
func namespaceFile(fd int, kind NamespaceKind, inode uint64) *os.File {
	return os.NewFile(uintptr(fd), kind.String()+":["+strconv.FormatUint(inode, 10)+"]")
}

// OpenNamespace opens the namespace with this handle. The file can be passed to setns(2), and to
// the functions that borrow a descriptor of a namespace. While it is open, the namespace exists
// even without a process in it and without a mount in /run/netns or the like. It is
// open_by_handle_at(2), Linux 6.18.
//
// The handle is what [NameToHandleAt] returns for a namespace, or what [NamespaceHandle] returns.
// It is valid until the next boot. Since Linux 6.19, which has [Namespaces] to list the IDs, the ID
// alone is enough. Linux 6.18 needs the type and the inode number as well, so store the whole
// handle. OpenNamespace compares what it opened with h.
//
// Every process can open its own namespaces. Others require the capability CAP_SYS_ADMIN in the
// initial user namespace and a process in the initial pid namespace. For Linux 6.18, and 6.19
// before its updates, CAP_SYS_ADMIN in the user namespace that owns the other one is enough
// (fs/nsfs.c, nsfs_fh_to_dentry).
//
// Errors:
//   - ESTALE if there is no such namespace, or it is out of sight. For a caller that sees all
//     namespaces it matches [os.ErrNotExist]: no process uses the namespace any more. Since Linux
//     6.19 sockets of it may be left, and one of them could bring it back (ioctl SIOCGSKNS);
//   - EINVAL if h is not the handle of a namespace;
//   - an error that matches [errors.ErrUnsupported] if the kernel is too old, or too old for the ID
//     alone.
func OpenNamespace(h FileHandle) (*os.File, error) {
	id, typ, inode, ok := h.Namespace()
	if !ok || id == 0 {
		return nil, refused(syscall.EINVAL, strconv.Quote(h.String())+" is not a namespace handle")
	}
	// Trailing bytes are left out, because some kernels ignore them. Kernels accept type and
	// inode number together, or neither.
	alone := typ == 0 || inode == 0
	ask := NamespaceHandle(id, typ, inode)
	if alone {
		ask = NamespaceHandle(id, 0, 0)
	}
	fd, errno := openByHandleAt(FD_NSFS_ROOT, &ask.h, 0)
	if errno != 0 {
		return nil, openNamespaceError(ask, alone, errno)
	}
	f, err := verifyNamespace(fd, id, typ, inode)
	if err != nil && !errors.Is(err, errPretendedHandle) {
		syscall.Close(fd)
	}
	return f, err
}

// errPretendedHandle is for a filter that returns 0 for every call. 0 is somebody's descriptor.
var errPretendedHandle = errors.New("open_by_handle_at succeeds here, but has no effect")

// verifyNamespace returns fd as a file if it is the namespace. typ and inode may be 0.
func verifyNamespace(fd int, id NamespaceID, typ, inode uint32) (*os.File, error) {
	h, err := namespaceHandle(fd)
	isID, isTyp, isInode, ok := h.Namespace()
	if !ok { // under a filter
		file, errProof := proveNsfs(fd)
		if errors.Is(errProof, syscall.EINVAL) {
			return nil, errPretendedHandle
		}
		if errProof != nil {
			return nil, errProof
		}
		if isID, err = namespaceIDByIoctl(fd, err); err != nil {
			return nil, err
		}
		kind, err := namespaceKind(fd)
		if err != nil {
			return nil, err
		}
		isTyp, isInode = uint32(kind.CloneFlag()), uint32(file.ino)
	}
	if isID != id || typ != 0 && typ != isTyp || inode != 0 && inode != isInode {
		return nil, failed("open_by_handle_at", NamespaceHandle(id, typ, inode).String(), syscall.ESTALE)
	}
	return namespaceFile(fd, namespaceKindOf(isTyp), uint64(isInode)), nil
}

// openNamespaceError says what it means that the handle could not be opened. alone says that the
// handle has the ID alone.
func openNamespaceError(h FileHandle, alone bool, errno syscall.Errno) error {
	err := failed("open_by_handle_at", h.String(), errno)
	switch errno {
	case syscall.ESTALE:
		opens, known := true, true
		if alone {
			opens, known = opensByIDAlone()
		}
		switch {
		case known && !opens:
			id, _, _, _ := h.Namespace()
			return refused(syscall.EOPNOTSUPP, "opening namespace "+id.String()+" by its ID alone, without its type and inode number, requires Linux 6.19").as(errors.ErrUnsupported)
		case known && seesAllNamespaces():
			err.means = os.ErrNotExist
		default:
			return refused(syscall.ESTALE, "open_by_handle_at "+h.String()+": the namespace does not exist, or is not visible to this process")
		}
	case syscall.EBADF, syscall.EPERM:
		// Before Linux 6.18; see OpenByHandleAt.
		if _, errOwn := ownNamespaceHandle(); errors.Is(errOwn, syscall.EOPNOTSUPP) {
			err.errno, err.means = syscall.EOPNOTSUPP, errors.ErrUnsupported
		}
	}
	return err
}

// ownNamespaceHandle returns the handle of the mount namespace of the calling thread. Every kernel
// has mount namespaces.
func ownNamespaceHandle() (FileHandle, error) {
	fd, err := openOwnNamespace(MntNamespace)
	if err != nil {
		return FileHandle{}, err
	}
	defer syscall.Close(fd)
	return namespaceHandle(fd)
}

// opensByIDAlone reports whether the kernel accepts an ID without type and inode number. known is
// false if that cannot be found out, for lack of descriptors for example.
func opensByIDAlone() (opens, known bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := ownNamespaceHandle()
	id, _, _, ok := own.Namespace()
	if err != nil || !ok {
		return false, false
	}
	own = NamespaceHandle(id, 0, 0)
	fd, errno := openByHandleAt(FD_NSFS_ROOT, &own.h, 0)
	if errno == 0 {
		syscall.Close(fd)
	}
	return errno == 0, errno == 0 || errno == syscall.ESTALE
}

// seesAllNamespaces reports whether a namespace that this process cannot open by handle does not
// exist, on any kernel (kernel/nscommon.c, may_see_all_namespaces).
func seesAllNamespaces() bool {
	if !hasCapability(unix.CAP_SYS_ADMIN) || ownPIDNamespace() != initialPIDNamespace {
		return false
	}
	return inInitialUserNamespace()
}

// openOwnNamespace returns a descriptor of a namespace of the calling thread, open for O_PATH or
// more.
func openOwnNamespace(kind NamespaceKind) (int, error) {
	fd, errno := ownNamespaceByPidFD(uint32(kind))
	if errno == 0 {
		return fd, nil
	}
	name := "/proc/thread-self/ns/" + kind.String()
	fd, err := openat(AT_FDCWD, name, O_PATH)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		// That says nothing about a namespace.
		return -1, refused(syscall.ENOSYS, "cannot identify namespaces: there is no "+name).as(errors.ErrUnsupported)
	}
	if err != nil {
		return -1, err
	}
	if magic, errno := fsMagic(fd); errno != 0 || magic != unix.NSFS_MAGIC {
		syscall.Close(fd)
		return -1, refused(syscall.ENOSYS, "cannot identify namespaces: "+name+" is not a namespace").as(errors.ErrUnsupported)
	}
	return fd, nil
}

// nsfsDev is the device of nsfs plus one, 0 = not known yet. There is one nsfs, and it is never
// unmounted.
var nsfsDev atomic.Uint64

// proveNsfs returns no error for a descriptor on nsfs. Of any other descriptor it asks nothing that
// a server would have to answer, and sends it no ioctl, which means something else to a device.
func proveNsfs(fd int) (inode, error) {
	file, errno := statFD(fd)
	if errno != 0 {
		return inode{}, failed("statx", fdSubject(fd), errno)
	}
	known := nsfsDev.Load()
	if known == 0 {
		own, err := openOwnNamespace(MntNamespace)
		if err != nil {
			return inode{}, err
		}
		defer syscall.Close(own)
		nsfs, errno := statFD(own)
		if errno != 0 {
			return inode{}, failed("statx", "of a namespace of this thread", errno)
		}
		known = nsfs.dev + 1
		nsfsDev.Store(known)
	}
	if file.dev+1 != known {
		return inode{}, refused(syscall.EINVAL, "descriptor "+strconv.Itoa(fd)+" is not a namespace")
	}
	return file, nil
}

// Namespaces returns the IDs of all namespaces of a kind, or of all kinds if kind is 0. These are
// the namespaces that a process is in, those that an open file or a mount holds, and the parents
// and owners of others. It is listns(2), Linux 6.19. [OpenNamespace] opens them by the ID alone.
//
// Every caller gets the IDs of its own namespaces. The others require the same as [OpenNamespace]:
// CAP_SYS_ADMIN in the initial user namespace and a process in the initial pid namespace (Linux
// 6.19 before its updates: CAP_SYS_ADMIN in the user namespace that owns them). It is not an error
// if some are left out. In a container a program thus sees the 8 namespaces that it is in.
//
// Errors:
//   - EINVAL if there is no such kind;
//   - EOVERFLOW if there are more than a million namespaces;
//   - an error that matches [errors.ErrUnsupported] if the kernel is too old.
func Namespaces(kind NamespaceKind) ([]NamespaceID, error) {
	if kind != 0 && kind.String() == "" {
		return nil, refused(syscall.EINVAL, strconv.FormatUint(uint64(kind), 10)+" is not a kind of namespace")
	}
	// All in one call: to continue after an ID fails if the next namespace is about to end
	// (kernel/nstree.c, lookup_ns_id_at).
	const most = 1_000_000
	for room := 256; ; room = min(8*room, most) {
		ids := make([]NamespaceID, room)
		n, errno := listns(uint32(kind.CloneFlag()), ids)
		switch {
		case errno != 0:
			return nil, failed("listns", kind.String(), errno)
		case n == 0 && (kind == 0 || kind == MntNamespace), n < 0, n > room:
			return nil, refused(syscall.EOPNOTSUPP, "listns succeeds here, but has no effect").as(errors.ErrUnsupported)
		case n < room:
			return ids[:n:n], nil
		case room == most:
			return nil, failed("listns", kind.String(), syscall.EOVERFLOW)
		}
	}
}
