//go:build linux

package sysfd

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A FileHandle names a file, whatever becomes of its path: name_to_handle_at(2) returns it, and
// open_by_handle_at(2) opens the file again. It consists of a type and of up to [MAX_HANDLE_SZ]
// bytes, whose meaning only the file system knows; see [FileHandle.PidFDID] for an exception.
//
// A FileHandle names a file within one file system: two files on different file systems can have
// equal handles. FileHandles are values: they can be compared with == and be the keys of a map. The
// zero FileHandle names nothing.
type FileHandle struct {
	h fileHandle // all zero beyond HandleBytes, so that == works
}

// NewFileHandle returns a FileHandle of this type and these bytes. It copies data. If data has more
// than [MAX_HANDLE_SZ] bytes, the error matches EINVAL.
func NewFileHandle(typ HandleType, data []byte) (FileHandle, error) {
	var h FileHandle
	if len(data) > len(h.h.FHandle) {
		return FileHandle{}, refused(

			syscall.EINVAL, "a file handle of "+strconv.Itoa(len(data))+" bytes is too long: "+strconv.Itoa(MAX_HANDLE_SZ)+" is the limit")

	}
	h.h.HandleType = typ
	h.h.HandleBytes = uint32(copy(h.h.FHandle[:], data))
	return h, nil
}

// Type returns the type, one of FILEID_* or another number that the file system knows. A handle
// made with [AT_HANDLE_CONNECTABLE] has FILEID_IS_CONNECTABLE set in its type.
func (h FileHandle) Type() HandleType { return h.h.HandleType }

// Len returns the number of bytes, at most [MAX_HANDLE_SZ].
func (h FileHandle) Len() int { return int(h.h.HandleBytes) }

// Bytes returns a copy of the bytes.
func (h FileHandle) Bytes() []byte { return h.AppendBytes(nil) }

// AppendBytes appends the bytes to b and returns the extended slice.
func (h FileHandle) AppendBytes(b []byte) []byte { return append(b, h.h.FHandle[:h.h.HandleBytes]...) }

// IsZero reports whether h is the zero FileHandle.
func (h FileHandle) IsZero() bool { return h == FileHandle{} }

// String returns the type and the bytes in lower-case hexadecimal, such as "fe:1900000000000000",
// and "" for the zero FileHandle. [ParseFileHandle] is the reverse. The bytes stand in the order in
// which the kernel wrote them, so numbers in them have the byte order of the machine.
func (h FileHandle) String() string {
	text, _ := h.AppendText(make([]byte, 0, 9+2*MAX_HANDLE_SZ))
	return string(text)
}

// ParseFileHandle reads what [FileHandle.String] returns, and nothing else: each FileHandle has one
// text. For any other text the error matches EINVAL.
func ParseFileHandle(text string) (FileHandle, error) {
	if text == "" {
		return FileHandle{}, nil
	}
	typ, data, _ := cut(text, ':')
	n, _ := strconv.ParseUint(typ, 16, 32)
	if len(data)%2 != 0 || len(data) > 2*MAX_HANDLE_SZ {
		return FileHandle{}, notAHandle(text)
	}
	var h FileHandle
	h.h.HandleType = int32(n)
	h.h.HandleBytes = uint32(len(data) / 2)
	parseHex(h.h.FHandle[:len(data)/2], data)
	// Upper case, leading zeros, signs, numbers that are too large and other characters than
	// digits do not come out as they went in.
	if h.String() != text {
		return FileHandle{}, notAHandle(text)
	}
	return h, nil
}

func notAHandle(text string) error {
	return refused(syscall.EINVAL, strconv.Quote(text)+" is not a file handle: want TYPE:BYTES in hexadecimal, such as fe:1900000000000000")
}

// AppendText implements [encoding.TextAppender]. The text is that of [FileHandle.String].
func (h FileHandle) AppendText(b []byte) ([]byte, error) {
	if h.IsZero() {
		return b, nil
	}
	b = strconv.AppendUint(b, uint64(uint32(h.h.HandleType)), 16)
	b = append(b, ':')
	return appendHex(b, h.h.FHandle[:h.h.HandleBytes]...), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (h FileHandle) MarshalText() ([]byte, error) { return h.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseFileHandle].
func (h *FileHandle) UnmarshalText(text []byte) error {
	return unmarshalText(h, text, ParseFileHandle)
}

// AppendBinary implements [encoding.BinaryAppender]: the type as 4 bytes, most significant first,
// and the bytes of the handle. The zero FileHandle has no bytes at all.
func (h FileHandle) AppendBinary(b []byte) ([]byte, error) {
	if h.IsZero() {
		return b, nil
	}
	return h.AppendBytes(binary.BigEndian.AppendUint32(b, uint32(h.h.HandleType))), nil
}

// MarshalBinary implements [encoding.BinaryMarshaler]; see [FileHandle.AppendBinary].
func (h FileHandle) MarshalBinary() ([]byte, error) { return h.AppendBinary(nil) }

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]. For data that AppendBinary does not
// write the error matches EINVAL, and h stays as it is.
func (h *FileHandle) UnmarshalBinary(data []byte) error {
	if len(data) == 0 {
		*h = FileHandle{}
		return nil
	}
	if len(data) < 4 {
		return refused(syscall.EINVAL, "a file handle of "+strconv.Itoa(len(data))+" bytes is too short: its type alone has 4")
	}
	is, err := NewFileHandle(int32(binary.BigEndian.Uint32(data)), data[4:])
	if err == nil && is.IsZero() {
		err = refused(syscall.EINVAL, "4 zero bytes are not a file handle: the zero FileHandle has no bytes")
	}
	if err == nil {
		*h = is
	}
	return err
}

// DecodeFileHandle reads a struct file_handle from the beginning of b, and returns the bytes after
// it as rest. The struct, which records of fanotify(7) contain, has the number of bytes and the
// type, 32 bits each in the byte order of the machine, and then the bytes.
//
// Errors: EINVAL if b is shorter than the struct, or if the number of bytes exceeds
// [MAX_HANDLE_SZ].
func DecodeFileHandle(b []byte) (h FileHandle, rest []byte, err error) {
	const head = 8
	if len(b) < head {
		return FileHandle{}, nil, refused(syscall.EINVAL, strconv.Itoa(len(b))+" bytes are too few for a struct file_handle")
	}
	n, rest := native32(b), b[head:]
	switch {
	case n > MAX_HANDLE_SZ:
		return FileHandle{}, nil, refused(syscall.EINVAL, "a struct file_handle of "+strconv.FormatUint(uint64(n), 10)+" bytes is too long: "+strconv.Itoa(MAX_HANDLE_SZ)+" is the limit")
	case int(n) > len(rest):
		return FileHandle{}, nil, refused(syscall.EINVAL, "a struct file_handle of "+strconv.FormatUint(uint64(n), 10)+" bytes is cut off: only "+strconv.Itoa(len(rest))+" bytes follow")
	}
	h.h.HandleBytes, h.h.HandleType = n, int32(native32(b[4:]))
	copy(h.h.FHandle[:], rest[:n])
	return h, rest[n:], nil
}

// KernfsID returns the 64 bits in a handle of type [FILEID_KERNFS], and false if h has another
// type. They are a cgroup ID on cgroup2, a [PidFDID] on pidfs, and an inode number elsewhere. On a
// 32-bit kernel fstat(2) returns only the low half of them.
func (h FileHandle) KernfsID() (uint64, bool) {
	if h.h.HandleType != FILEID_KERNFS || h.h.HandleBytes != 8 {
		return 0, false
	}
	return native64(h.h.FHandle[:8]), true
}

// KernfsHandle returns the handle with this ID. It is the reverse of [FileHandle.KernfsID].
func KernfsHandle(id uint64) (h FileHandle) {
	h.h.HandleType, h.h.HandleBytes = FILEID_KERNFS, 8
	putNative64(h.h.FHandle[:8], id)
	return h
}

// A MountID names a mount, the one on which a file was found.
//
// The kernel has two kinds of them. The reusable kind is a small number, which /proc/self/mountinfo
// lists too; after an unmount another mount can get it. The unique kind ([AT_HANDLE_MNT_ID_UNIQUE],
// Linux 6.12) is not used again until the next boot.
type MountID uint64

// Unique reports whether id is of the kind that is not used again. The kernel numbers these from
// 1<<31 up (fs/namespace.c, MNT_UNIQUE_ID_OFFSET), which the reusable kind never reaches.
func (id MountID) Unique() bool { return id >= 1<<31 }

// NameToHandleAt returns the handle of the file at path, and the ID of the mount that the file is
// on. It is name_to_handle_at(2), Linux 2.6.39: one system call and, for paths of less than 1 KiB,
// no allocation.
//
// A relative path starts at the directory dirfd, or at the working directory if dirfd is
// [AT_FDCWD]. The flags are a combination of
//   - [AT_EMPTY_PATH]: an empty path means the file dirfd itself;
//   - [AT_SYMLINK_FOLLOW]: follow a symbolic link at the end of path;
//   - [AT_HANDLE_FID] (Linux 6.5): return a handle to compare but not to open, which nearly every
//     file system has; on Linux 6.16 and the first releases of 6.17 only those that have others;
//   - [AT_HANDLE_MNT_ID_UNIQUE] (Linux 6.12): return a [MountID] of the unique kind;
//   - [AT_HANDLE_CONNECTABLE] (Linux 6.13): return a handle that leads to a path. It cannot be
//     combined with AT_EMPTY_PATH or AT_HANDLE_FID.
//
// Errors, beyond those of any path:
//   - EOPNOTSUPP, which matches [errors.ErrUnsupported], if the file system has no handles (proc,
//     sysfs);
//   - EINVAL, which matches [errors.ErrUnsupported] too, if this kernel does not know a flag;
//   - EINVAL if path contains a zero byte;
//   - EOVERFLOW, from some file systems, if they have no handle of the requested kind; retrying
//     does not help.
func NameToHandleAt(dirfd int, path string, flags int) (FileHandle, MountID, error) {
	var h FileHandle
	mount, errno := nameToHandleAt(dirfd, path, &h.h, flags)
	if errno == 0 {
		return h, MountID(mount), nil
	}
	err := failed("name_to_handle_at", "of "+strconv.Quote(path), errno)
	if path == "" && flags&AT_EMPTY_PATH != 0 {
		err.subject = fdSubject(dirfd)
	}
	if errno == syscall.EINVAL && newHandleFlag(flags) && strings.IndexByte(path, 0) < 0 {
		err.means = errors.ErrUnsupported
	}
	return FileHandle{}, 0, err
}

// A label is how errors name a file: by the path where it was found, or else by its descriptor.
type label struct {
	fd   int
	path string
}

func (l label) String() string {
	if l.path != "" {
		return strconv.Quote(l.path)
	}
	return "descriptor " + strconv.Itoa(l.fd)
}

// holdAt opens a file with O_PATH. dirfd, path and flags are those of NameToHandleAt. If they mean
// dirfd itself, holdAt does not open it again. Errors name the file by the label what.
func holdAt(dirfd int, path string, flags int) (fd int, what label, opened bool, err error) {
	if flags&^(AT_EMPTY_PATH|AT_SYMLINK_FOLLOW) != 0 {
		return -1, label{}, false, refused(syscall.EINVAL, "flags 0x"+strconv.FormatUint(uint64(uint(flags)), 16)+": only AT_EMPTY_PATH and AT_SYMLINK_FOLLOW are allowed")
	}
	if path == "" && flags&AT_EMPTY_PATH != 0 {
		if dirfd != AT_FDCWD {
			return dirfd, label{fd: dirfd}, false, nil
		}
		path = "."
	}
	open := O_PATH
	if flags&AT_SYMLINK_FOLLOW == 0 {
		open |= syscall.O_NOFOLLOW
	}
	fd, err = openat(dirfd, path, open)
	return fd, label{fd, path}, err == nil, err
}

// newHandleFlag reports whether flags make sense and one of them is newer than the system call. An
// older kernel then answers EINVAL because it does not know that flag.
func newHandleFlag(flags int) bool {
	const old, young = AT_EMPTY_PATH | AT_SYMLINK_FOLLOW, AT_HANDLE_FID | AT_HANDLE_MNT_ID_UNIQUE | AT_HANDLE_CONNECTABLE
	if flags&AT_HANDLE_CONNECTABLE != 0 && flags&(AT_EMPTY_PATH|AT_HANDLE_FID) != 0 {
		return false
	}
	return flags&young != 0 && flags&^(old|young) == 0
}

// canonical returns, in one form, the part of h that identifies the file, with or without a parent.
// XFS has two encodings of the same inode number and generation, depending on a mount option.
// Handles of unknown types stay as they are.
func (h FileHandle) canonical() FileHandle {
	typ, n, data := h.h.HandleType&^(FILEID_IS_CONNECTABLE|FILEID_IS_DIR), h.h.HandleBytes, h.h.FHandle[:]
	var is FileHandle
	switch {
	case typ == FILEID_INO32_GEN && n == 8, typ == FILEID_INO32_GEN_PARENT && (n == 12 || n == 16):
		is.h.HandleType, is.h.HandleBytes = FILEID_INO64_GEN, 12
		putNative64(is.h.FHandle[:8], uint64(native32(data[:4])))
		copy(is.h.FHandle[8:12], data[4:8])
	case typ == FILEID_INO64_GEN && n == 12, typ == FILEID_INO64_GEN_PARENT && n == 24:
		is.h.HandleType, is.h.HandleBytes = FILEID_INO64_GEN, 12
		copy(is.h.FHandle[:12], data)
	case typ == FILEID_BTRFS_WITHOUT_PARENT && n == 20, typ == FILEID_BTRFS_WITH_PARENT && n == 32, typ == FILEID_BTRFS_WITH_PARENT_ROOT && n == 40:
		is.h.HandleType, is.h.HandleBytes = FILEID_BTRFS_WITHOUT_PARENT, 20
		copy(is.h.FHandle[:20], data)
	default:
		return h
	}
	return is
}

// knownType reports whether canonical knows the type, whatever the length.
func (h FileHandle) knownType() bool {
	switch h.h.HandleType &^ (FILEID_IS_CONNECTABLE | FILEID_IS_DIR) {
	case FILEID_INO32_GEN, FILEID_INO32_GEN_PARENT, FILEID_INO64_GEN, FILEID_INO64_GEN_PARENT,
		FILEID_BTRFS_WITHOUT_PARENT, FILEID_BTRFS_WITH_PARENT, FILEID_BTRFS_WITH_PARENT_ROOT:
		return true
	}
	return false
}

// connectable reports whether h opens the file only while it stays in its parent directory.
func (h FileHandle) connectable() bool { return h.h.HandleType&FILEID_IS_CONNECTABLE != 0 }

// OpenByHandleAt opens a file by its handle h. mountFD is any descriptor on the file system that is
// open for more than O_PATH, the working directory ([AT_FDCWD]), or a file system internal to the
// kernel ([FD_PIDFS_ROOT], [FD_NSFS_ROOT]). It is open_by_handle_at(2), Linux 2.6.39. The flags are
// those of open(2). The file is always close-on-exec.
//
// OpenByHandleAt is the bare system call, so it need not open the file that h was made from. ext4
// accepts a generation of 0 in a handle for any file, and tools that make images (mke2fs -d) give
// their files that generation: the handle of such a file, once it is deleted, opens the next file
// with its inode number. tmpfs ignores the type and trailing bytes. OpenByHandleAt also opens
// devices, and waits for the other end of a FIFO. [OpenFileHandle] does neither. A handle is no
// authorization: a process that may open files by handle can make up handles, and open any file of
// the file system with them.
//
// Errors:
//   - ESTALE if no file can be opened by this handle. That need not mean that the file is gone, so
//     the error does not match [os.ErrNotExist]; see [FileRef.OpenFrom] for when it does. The
//     handle may also belong to another file system; it may have been made with [AT_HANDLE_FID] and
//     only compare (overlayfs without nfs_export, proc); it may be connectable and the file have
//     been moved to another directory; a FUSE server may have forgotten the file; or the process is
//     in a user namespace.
//   - EPERM without the capability CAP_DAC_READ_SEARCH, which all file systems but pidfs and nsfs
//     demand. With that capability in a user namespace, directories open since Linux 6.11 where the
//     mount belongs to the namespace (fs/fhandle.c, may_decode_fh).
//   - EBADF if mountFD is not open. With FD_PIDFS_ROOT (Linux 6.17) or FD_NSFS_ROOT (Linux 6.18) it
//     matches [errors.ErrUnsupported]; before Linux 6.11 a process without CAP_DAC_READ_SEARCH gets
//     EPERM instead.
//   - EINVAL for the zero FileHandle and, on pidfs, for flags that make no sense there.
func OpenByHandleAt(mountFD int, h FileHandle, flags int) (*os.File, error) {
	fd, errno := openByHandleAt(mountFD, &h.h, flags)
	if errno != 0 {
		return nil, openFailed(mountFD, h, errno)
	}
	return h.file(fd), nil
}

func (h FileHandle) file(fd int) *os.File { return os.NewFile(uintptr(fd), "file handle "+h.String()) }

func openFailed(mountFD int, h FileHandle, errno syscall.Errno) *callError {
	err := failed("open_by_handle_at", h.String(), errno)
	if errno == syscall.EBADF && (mountFD == FD_PIDFS_ROOT || mountFD == FD_NSFS_ROOT) {
		err.means = errors.ErrUnsupported
	}
	return err
}

// An OpenOption changes what [OpenFileHandle] and [FileRef.Open] open. The value 0 means no option.
type OpenOption int

// OpenSpecial makes them open devices, FIFOs and sockets as well, as open(2) does.
const OpenSpecial OpenOption = 1

// OpenFileHandle is [OpenByHandleAt], but opens the file of h or nothing. It compares the handle of
// the opened file with h. For the types that it knows (FILEID_INO32_GEN, FILEID_INO64_GEN,
// FILEID_BTRFS_WITHOUT_PARENT, and those with a parent) it compares inode number and generation,
// because one file can have several handles. For other types it compares all bytes, but trusts the
// kernel for connectable handles of an unknown type. It cannot tell a file from one with the same
// numbers in a copy of the file system, or in an image that was made anew with the same UUID.
//
// It does not open devices, FIFOs and sockets unless flags contain [O_PATH] or options contain
// [OpenSpecial]. pidfs has no O_PATH: there use [OpenPidFDByID].
//
// Errors: those of OpenByHandleAt, and
//   - ESTALE if the handle opens another file;
//   - EINVAL for a device, a FIFO or a socket, for unknown options, and for flags that make files,
//     such as O_CREAT;
//   - ELOOP for a symbolic link without O_PATH;
//   - EOPNOTSUPP and other errors of [NameToHandleAt] if the opened file cannot be compared.
func OpenFileHandle(mountFD int, h FileHandle, flags int, options OpenOption) (*os.File, error) {
	if options&^OpenSpecial != 0 {
		return nil, refused(syscall.EINVAL, "0x"+strconv.FormatUint(uint64(uint(options)), 16)+" is not an OpenOption: want 0 or OpenSpecial")
	}
	if flags&(syscall.O_CREAT|syscall.O_EXCL|unix.O_TMPFILE&^syscall.O_DIRECTORY) != 0 {
		return nil, refused(syscall.EINVAL, "flags 0x"+strconv.FormatUint(uint64(uint(flags)), 16)+": O_CREAT, O_EXCL and O_TMPFILE create files and are not allowed")
	}
	if flags&O_PATH != 0 {
		fd, err := openExactly(mountFD, h, flags)
		if err != nil {
			return nil, err
		}
		return h.file(fd), nil
	}
	// O_PATH first: to open another file could wait, or truncate it. While place is open, no
	// other file gets the inode number.
	place, err := openExactly(mountFD, h, O_PATH)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(place)
	if options&OpenSpecial == 0 {
		is, errno := statFD(place)
		if errno != 0 {
			return nil, failed("statx", "of file handle "+h.String(), errno)
		}
		switch is.kind() {
		case syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFLNK:
		default:
			return nil, refused(syscall.EINVAL, "file handle "+h.String()+" opens a device, a FIFO or a socket, which requires OpenSpecial or O_PATH")
		}
	}
	fd, err := openExactly(mountFD, h, flags)
	if err != nil {
		return nil, err
	}
	return h.file(fd), nil
}

func openExactly(mountFD int, h FileHandle, flags int) (int, error) {
	fd, errno := openByHandleAt(mountFD, &h.h, flags)
	if errno != 0 {
		return -1, openFailed(mountFD, h, errno)
	}
	var opened FileHandle
	_, errno = nameToHandleAt(fd, "", &opened.h, AT_EMPTY_PATH)
	if errno == 0 && (opened.canonical() == h.canonical() || h.connectable() && !h.knownType()) {
		return fd, nil
	}
	syscall.Close(fd)
	if errno != 0 {
		return -1, failed("name_to_handle_at", "of file handle "+h.String(), errno)
	}
	return -1, openFailed(mountFD, h, syscall.ESTALE).but("it opens another file, " + opened.String())
}
