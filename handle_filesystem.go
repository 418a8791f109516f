//go:build linux

package sysfd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A FileSystemID names a file system beyond a reboot, which a [MountID] and a
// device number do not. It is the UUID of the file system or, where that cannot be
// had, the second best: type and f_fsid of statfs(2). FileSystemIDs are values and
// can be compared with ==. The zero one names nothing.
//
// A copy of a disk or of an image has the UUID of the original, and who makes a file
// system can give it any.
type FileSystemID struct {
	uuid  [16]byte
	n     uint8 // bytes of uuid, 0 = there is none
	magic uint32
	fsid  uint64
}

// FileSystemIDOf returns the identity of the file system that fd is on. fd is that of
// a directory or of a regular file, and open for more than O_PATH. It asks the file system, so
// it waits for a server (NFS, FUSE) that does not answer.
//
// The UUID comes from the ioctl FS_IOC_GETFSUUID, Linux 6.9, and on btrfs from
// BTRFS_IOC_FS_INFO, Linux 3.0. File systems in memory (tmpfs, cgroup2, sysfs) have
// one that lasts until the unmount or the next boot. The second best is there for ext2,
// ext3 and ext4, which make f_fsid of their UUID. Others make it of the number of the
// device, which comes to be another file system's.
//
// Errors: EOPNOTSUPP, which matches [errors.ErrUnsupported], for a file system that
// has no identity: vfat, squashfs and overlayfs among others, and XFS before Linux 6.9.
// EPERM instead if a seccomp filter forbids to ask for the UUID.
// EBADF if fd is open for O_PATH only. EINVAL if it is of another kind of file.
func FileSystemIDOf(fd int) (FileSystemID, error) {
	return fileSystemID(fd, label{fd: fd})
}

// fileSystemID is FileSystemIDOf with what errors are to name.
func fileSystemID(fd int, what label) (FileSystemID, error) {
	file, errno := statFD(fd)
	if errno != 0 {
		return FileSystemID{}, failed("statx", "of "+what.String(), errno)
	}
	// An ioctl that the kernel does not know goes to the driver of a device.
	if kind := file.kind(); kind != syscall.S_IFDIR && kind != syscall.S_IFREG {
		return FileSystemID{}, refused(syscall.EINVAL, what.String()+" is neither a directory nor a regular file")
	}
	uuid, n, errno := fsUUID(fd)
	switch {
	case errno == syscall.EBADF:
		return FileSystemID{}, failed("ioctl", "of "+what.String(), errno)
	case errno == 0 && uuid != [16]byte{}: // some tools that make images leave it at zero
		return FileSystemID{uuid: uuid, n: uint8(n)}, nil
	}
	id, err := statfsID(fd, what)
	if errors.Is(err, errors.ErrUnsupported) && (errno == syscall.EPERM || errno == syscall.EACCES) {
		err = failed("ioctl", "of "+what.String(), errno) // there may be a UUID
	}
	return id, err
}

// isOf reports whether fd is on this file system.
func (id FileSystemID) isOf(fd int, what label) (bool, error) {
	if id.n == 0 { // the UUID may not have been to be had at the time
		is, err := statfsID(fd, what)
		return is == id, err
	}
	is, err := fileSystemID(fd, what)
	return is == id, err
}

// statfsID returns the second best, also for a descriptor that is open for O_PATH only.
func statfsID(fd int, what label) (FileSystemID, error) {
	magic, fsid, errno := fstatfs(fd)
	if errno != 0 {
		return FileSystemID{}, failed("fstatfs", "of "+what.String(), errno)
	}
	if magic != unix.EXT4_SUPER_MAGIC || fsid == 0 {
		return FileSystemID{}, refused(syscall.EOPNOTSUPP, "the file system of "+what.String()+" has no identity that lasts")
	}
	return FileSystemID{magic: magic, fsid: fsid}, nil
}

// IsZero tells whether id is the zero FileSystemID.
func (id FileSystemID) IsZero() bool { return id == FileSystemID{} }

// String returns "uuid:" and the UUID, or "fsid:", type and f_fsid in lower-case
// hexadecimal, or nothing for the zero FileSystemID. [ParseFileSystemID] is the
// reverse.
func (id FileSystemID) String() string {
	text, _ := id.AppendText(nil)
	return string(text)
}

// ParseFileSystemID reads what [FileSystemID.String] returns, and nothing else. What
// is not that is an error that matches EINVAL.
func ParseFileSystemID(text string) (id FileSystemID, err error) {
	kind, value, _ := strings.Cut(text, ":")
	switch kind {
	case "uuid":
		value = strings.ReplaceAll(value, "-", "")
		id.n = uint8(min(len(value)/2, len(id.uuid)))
		parseHex(id.uuid[:id.n], value)
	case "fsid":
		magic, fsid, _ := strings.Cut(value, ":")
		m, _ := strconv.ParseUint(magic, 16, 32)
		id.magic = uint32(m)
		id.fsid, _ = strconv.ParseUint(fsid, 16, 64)
	}
	// What went wrong comes out otherwise, or as zeros, which name nothing.
	if id.String() != text || !id.valid() {
		return FileSystemID{}, refused(syscall.EINVAL, strconv.Quote(text)+" is not the identity of a file system")
	}
	return id, nil
}

// AppendText implements [encoding.TextAppender]. The text is that of
// [FileSystemID.String].
func (id FileSystemID) AppendText(b []byte) ([]byte, error) {
	switch {
	case id.IsZero():
		return b, nil
	case id.n == 0:
		b = append(b, "fsid:"...)
		b = strconv.AppendUint(b, uint64(id.magic), 16)
		b = append(b, ':')
		return strconv.AppendUint(b, id.fsid, 16), nil
	}
	b = append(b, "uuid:"...)
	if int(id.n) == len(id.uuid) {
		return appendUUID(b, id.uuid[:]), nil
	}
	return appendHex(b, id.uuid[:id.n]...), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (id FileSystemID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseFileSystemID].
func (id *FileSystemID) UnmarshalText(text []byte) error {
	return unmarshalText(id, text, ParseFileSystemID)
}

// AppendBinary implements [encoding.BinaryAppender]: the number of bytes in the UUID and
// these, 17 in most cases; or a zero and, most significant first, 4 bytes of type and 8 of
// f_fsid. The zero FileSystemID has no bytes at all.
func (id FileSystemID) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case id.IsZero():
		return b, nil
	case id.n == 0:
		b = binary.BigEndian.AppendUint32(append(b, 0), id.magic)
		return binary.BigEndian.AppendUint64(b, id.fsid), nil
	}
	return append(append(b, id.n), id.uuid[:id.n]...), nil
}

// MarshalBinary implements [encoding.BinaryMarshaler]; see [FileSystemID.AppendBinary].
func (id FileSystemID) MarshalBinary() ([]byte, error) { return id.AppendBinary(nil) }

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]. What AppendBinary does not
// write is an error that matches EINVAL, and leaves id as it is.
func (id *FileSystemID) UnmarshalBinary(data []byte) error {
	var is FileSystemID
	if len(data) == 13 && data[0] == 0 {
		is.magic, is.fsid = binary.BigEndian.Uint32(data[1:]), binary.BigEndian.Uint64(data[5:])
	} else if len(data) > 0 {
		is.n = uint8(min(copy(is.uuid[:], data[1:]), int(data[0])))
	}
	if again, _ := is.AppendBinary(nil); !is.valid() || !bytes.Equal(again, data) {
		return refused(syscall.EINVAL, strconv.Itoa(len(data))+" bytes that are not the identity of a file system")
	}
	*id = is
	return nil
}

// valid reports whether id is one that [FileSystemIDOf] returns, or the zero FileSystemID.
func (id FileSystemID) valid() bool {
	return id.IsZero() || id.uuid != [16]byte{} || id.n == 0 && id.fsid != 0
}

// OpenFileSystem opens a directory or a file from which [OpenByHandleAt] opens the
// handles of this file system, wherever it is mounted now, in the mount namespace of
// the caller. If it is mounted several times, a mount that can be written to is preferred,
// and of these one that shows all of it.
//
// It asks each file system in /proc/thread-self/mountinfo, at the place where it is
// mounted. It leaves alone those of a type that it does not know to answer by itself,
// such as network file systems, FUSE and what is stacked on others, and what is mounted
// below them, but for the root directory.
//
// Errors: ENODEV if it is not mounted where the caller may open it. That is no news
// about its files and does not match [os.ErrNotExist]. ENOTUNIQ if two of those that
// were asked have this identity, as a disk and a copy of it have: which one is meant
// cannot be known. EINVAL for the zero FileSystemID. One that matches
// [errors.ErrUnsupported] without /proc. EMFILE and the like.
func OpenFileSystem(id FileSystemID) (*os.File, error) {
	if id.IsZero() {
		return nil, refused(syscall.EINVAL, "the zero FileSystemID names nothing")
	}
	mounts, err := readMountinfo()
	if err != nil {
		return nil, err
	}
	var found *os.File
	asked := map[string]bool{} // devices
	for _, m := range mountsToAsk(mounts) {
		if asked[m.device] {
			continue
		}
		f, err := MountID(m.id).openAt(m.point)
		switch {
		case outOfResources(err):
			if found != nil {
				found.Close()
			}
			return nil, err
		case err != nil:
			continue // covered, or not for the caller: perhaps it is mounted elsewhere, too
		}
		asked[m.device] = true
		is, err := id.isOf(int(f.Fd()), label{path: m.point})
		switch {
		case err != nil || !is:
			f.Close()
		case found == nil:
			found = f
		default:
			f.Close()
			found.Close()
			return nil, refused(syscall.ENOTUNIQ, "two file systems are "+id.String()+": those on "+found.Name()+" and "+m.point)
		}
	}
	if found == nil {
		return nil, refused(syscall.ENODEV, "the file system "+id.String()+" is not mounted where it can be opened")
	}
	return found, nil
}

// mountsToAsk returns the mounts that answer, the best ones first.
func mountsToAsk(mounts []mount) []mount {
	var silent []string
	for _, m := range mounts {
		// What is mounted on an autofs is found without it. Without the root directory
		// nothing goes, not even this program.
		if !answers(m.fsType) && m.fsType != "autofs" && m.point != "/" {
			silent = append(silent, m.point+"/")
		}
	}
	answer := slices.DeleteFunc(slices.Clone(mounts), func(m mount) bool {
		return !answers(m.fsType) || slices.ContainsFunc(silent, func(dir string) bool { return strings.HasPrefix(m.point+"/", dir) })
	})
	rank := func(m mount) (n int) {
		if m.readOnly {
			n += 2
		}
		if m.root != "/" { // a part of it, which may even be a single file
			n++
		}
		return n
	}
	slices.SortStableFunc(answer, func(a, b mount) int { return rank(a) - rank(b) })
	return answer
}

// answers tells whether file systems of this type wait for no other machine, process or
// file system.
func answers(fsType string) bool {
	switch fsType {
	case "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs", "nilfs2", "ntfs3", "squashfs", "ubifs", "udf", "vfat", "xfs",
		"cgroup", "cgroup2", "debugfs", "devpts", "devtmpfs", "mqueue", "proc", "ramfs", "rootfs", "securityfs", "sysfs", "tmpfs", "tracefs":
		return true
	}
	return false
}

// fileSystemIDOfAny returns the identity of the file system that any descriptor is
// on, even if it is open for O_PATH only.
func fileSystemIDOfAny(fd int, what label) (FileSystemID, error) {
	for _, open := range []func() (*os.File, error){
		func() (*os.File, error) {
			dir, err := openat(fd, ".", syscall.O_DIRECTORY)
			if e, ok := err.(*callError); ok {
				e.subject = what.String()
			}
			return os.NewFile(uintptr(dir), what.String()), err
		},
		// With a unique ID it takes no /proc. The other kind is for Linux before 6.12.
		func() (*os.File, error) { return openMountOf(fd, true) },
		func() (*os.File, error) { return openMountOf(fd, false) },
	} {
		f, err := open()
		switch {
		case err == nil:
			defer f.Close()
			return fileSystemID(int(f.Fd()), what)
		case outOfResources(err):
			return FileSystemID{}, err // or else the identity would be another one for now
		}
	}
	return statfsID(fd, what)
}

func openMountOf(fd int, unique bool) (*os.File, error) {
	mount, err := mountIDOf(fd, unique)
	if err != nil {
		return nil, err
	}
	return OpenMount(mount)
}
