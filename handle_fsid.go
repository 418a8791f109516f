//go:build linux

package sysfd

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// An FSID is a __kernel_fsid_t, the f_fsid of statfs(2). It tells file systems apart in the records
// of fanotify(7), for a group with marks on several of them. FSIDs are values: they can be compared
// with == and be the keys of a map.
//
// An FSID is valid while the file system is mounted. It is not for storing: it has no text that can
// be parsed, and it is not a [FileSystemID]. Most file systems make it from their device number,
// which another file system gets later. Ask for the identity that lasts once for each file system,
// when it is marked:
//
//	marked[fsid].id, err = sysfd.FileSystemIDOf(dirfd) // with fsid from FSIDOf(dirfd)
//	…
//	ref := sysfd.FileRef{FS: marked[file.FSID].id, Handle: file.Handle}
//
// On btrfs each subvolume has an FSID of its own. fanotify_mark(2) marks the whole file system
// through the top subvolume only (EXDEV for others). All events then have the FSID of the top
// subvolume, while the handles belong to files in all subvolumes. Two file systems can have the
// same FSID: an ext4 disk and its copy, and all file systems whose FSID is zero.
type FSID [2]int32

// FSIDOf returns the FSID of the file system that fd is on. fd may be open for O_PATH only. It is
// fstatfs(2), with no allocation. FSIDOf asks the file system, so it waits for a server (NFS, FUSE)
// that does not answer.
//
// A file system without an FSID has the zero FSID, which is not an error. fanotify_mark(2) refuses
// such a file system with ENODEV; since Linux 6.8 it accepts marks on single files and directories
// if the group watches no other file system (fs/notify/fanotify/fanotify_user.c,
// fanotify_test_fsid).
//
// Errors: EBADF if fd is not open.
func FSIDOf(fd int) (FSID, error) {
	_, fsid, errno := fstatfs(fd)
	if errno != 0 {
		return FSID{}, failed("fstatfs", fdSubject(fd), errno)
	}
	return fsidOf(fsid), nil
}

func fsidOf(n uint64) FSID { return FSID{int32(uint32(n)), int32(uint32(n >> 32))} }

// IsZero reports whether f is the zero FSID, which identifies no file system.
func (f FSID) IsZero() bool { return f == FSID{} }

func (f FSID) uint64() uint64 { return uint64(uint32(f[0])) | uint64(uint32(f[1]))<<32 }

// String returns f as 16 digits of lower-case hexadecimal, for messages: the second number and then
// the first, as in the text of a [FileSystemID]. stat -f prints the first number first.
func (f FSID) String() string {
	text := strconv.FormatUint(f.uint64(), 16)
	return "0000000000000000"[len(text):] + text
}

// FileSystemID returns the second best identity that [FileSystemIDOf] knows. It consists of f and
// of typ, the type of the file system: f_type of statfs(2), as in linux/magic.h.
//
// Errors: EOPNOTSUPP, which matches [errors.ErrUnsupported], unless typ is that of ext2, ext3 and
// ext4 and f is not zero. The f_fsid of other file systems does not last.
func (f FSID) FileSystemID(typ uint32) (FileSystemID, error) {
	if typ != unix.EXT4_SUPER_MAGIC || f.IsZero() {
		return FileSystemID{}, refused(syscall.EOPNOTSUPP, "the f_fsid "+f.String()+" of a file system of type 0x"+strconv.FormatUint(uint64(typ), 16)+" is not a persistent identity")
	}
	return FileSystemID{magic: typ, fsid: f.uint64()}, nil
}

// FSID returns the f_fsid in id, and false if id has a UUID instead or is zero. It is the reverse
// of [FSID.FileSystemID].
func (id FileSystemID) FSID() (FSID, bool) {
	if id.n != 0 || id.IsZero() {
		return FSID{}, false
	}
	return fsidOf(id.fsid), true
}
