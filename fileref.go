//go:build linux

package sysfd

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A FileSystemID names a file system beyond a reboot, which a [MountID] and a
// device number do not. It is the UUID of the file system or, where that cannot be
// had, the second best: type and f_fsid of statfs(2). FileSystemIDs are values and
// can be compared with ==. The zero one names nothing.
//
// A copy of a disk or of an image has the UUID of the original, and who may mount an
// image can give it any.
type FileSystemID struct {
	uuid  [16]byte
	n     uint8 // bytes of uuid, 0 = there is none
	magic uint32
	fsid  uint64
}

// FileSystemIDOf returns the identity of the file system that fd is on. fd is that of
// a directory or of a regular file, and open for more than O_PATH.
//
// The UUID comes from the ioctl FS_IOC_GETFSUUID, Linux 6.9, and on btrfs from
// BTRFS_IOC_FS_INFO, Linux 2.6.39. File systems in memory (tmpfs, cgroup2, sysfs) have
// one that lasts until the unmount or the next boot. Without a UUID, f_fsid will do,
// if it is not just the number of the device: that is given to another file system
// sooner or later. So there is no identity for vfat and squashfs, and none for XFS
// before Linux 6.9, while ext4 has had one since 2.6.17.
//
// Errors: EOPNOTSUPP, which matches [errors.ErrUnsupported], for a file system that
// has no identity. EBADF if fd is open for O_PATH only. EINVAL if it is of another
// kind of file.
func FileSystemIDOf(fd int) (FileSystemID, error) {
	st, errno := fstatAll(fd)
	if errno != 0 {
		return FileSystemID{}, &callError{call: "fstat", subject: fdSubject(fd), errno: errno}
	}
	// An ioctl that the kernel does not know goes to the driver of a device.
	if kind := st.Mode & syscall.S_IFMT; kind != syscall.S_IFDIR && kind != syscall.S_IFREG {
		return FileSystemID{}, &inputError{text: "descriptor " + strconv.Itoa(fd) + " is neither a directory nor a regular file", errno: syscall.EINVAL}
	}
	uuid, n, errno := fsUUID(fd)
	switch {
	case errno == syscall.EBADF:
		return FileSystemID{}, &callError{call: "ioctl", subject: "FS_IOC_GETFSUUID " + fdSubject(fd), errno: errno}
	case errno == 0 && uuid != [16]byte{}: // some tools that make images leave it at zero
		return FileSystemID{uuid: uuid, n: uint8(n)}, nil
	}
	return statfsID(fd)
}

// statfsID returns the second best, also for a descriptor that is open for O_PATH only.
func statfsID(fd int) (FileSystemID, error) {
	magic, fsid, errno := fstatfs(fd)
	if errno != 0 {
		return FileSystemID{}, &callError{call: "fstatfs", subject: fdSubject(fd), errno: errno}
	}
	dev, _, errno := fstat(fd)
	if errno != 0 {
		return FileSystemID{}, &callError{call: "fstat", subject: fdSubject(fd), errno: errno}
	}
	// Overlayfs without a UUID has the f_fsid of what is below it.
	if fsid == 0 || fsid == dev || magic == _OVERLAYFS_SUPER_MAGIC {
		return FileSystemID{}, &inputError{text: "the file system of descriptor " + strconv.Itoa(fd) + " has no identity that lasts", errno: syscall.EOPNOTSUPP}
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
	if id.String() != text || text != "" && id.uuid == [16]byte{} && id.fsid == 0 {
		return FileSystemID{}, &inputError{text: strconv.Quote(text) + " is not the identity of a file system", errno: syscall.EINVAL}
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
	for i, c := range id.uuid[:id.n] {
		if id.n == 16 && (i == 4 || i == 6 || i == 8 || i == 10) {
			b = append(b, '-')
		}
		b = appendHex(b, c)
	}
	return b, nil
}

// MarshalText implements [encoding.TextMarshaler].
func (id FileSystemID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseFileSystemID].
func (id *FileSystemID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseFileSystemID(string(text))
	return err
}

// OpenFileSystem opens a directory or a file from which [OpenByHandleAt] opens the
// handles of this file system, wherever it is mounted now, in the mount namespace of
// the caller. If it is mounted several times, a mount that shows all of it and can be
// written to is preferred.
//
// It asks each file system in /proc/thread-self/mountinfo, at the place where it is
// mounted. Network file systems, FUSE and autofs, which might not answer, it leaves
// alone, with all that is mounted below them or covered by them.
//
// Errors: ENOENT, which matches [os.ErrNotExist], if it is not mounted where the
// caller may read. ENOTUNIQ if two file systems have this identity, as a disk and a
// copy of it have: which one is meant cannot be known. EINVAL for the zero
// FileSystemID. Those of open(2) for /proc/thread-self/mountinfo.
func OpenFileSystem(id FileSystemID) (*os.File, error) {
	if id.IsZero() {
		return nil, &inputError{text: "the zero FileSystemID names nothing", errno: syscall.EINVAL}
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
		f, err := m.id.openAt(m.point)
		if err != nil {
			continue // covered, or not for the caller: perhaps it is mounted elsewhere, too
		}
		asked[m.device] = true
		is, err := FileSystemIDOf(int(f.Fd()))
		if id.n == 0 {
			is, err = statfsID(int(f.Fd())) // the UUID may not have been to be had at the time
		}
		switch {
		case err != nil || is != id:
			f.Close()
		case found == nil:
			found = f
		default:
			f.Close()
			found.Close()
			return nil, &inputError{text: "two file systems are " + id.String() + ": those on " + found.Name() + " and " + m.point, errno: syscall.ENOTUNIQ}
		}
	}
	if found == nil {
		return nil, &inputError{text: "the file system " + id.String() + " is not mounted where it can be opened", errno: syscall.ENOENT}
	}
	return found, nil
}

// mountsToAsk returns the mounts that answer, the best ones first.
func mountsToAsk(mounts []mount) []mount {
	var silent []string
	for _, m := range mounts {
		if mayBeSilent(m.fsType) {
			silent = append(silent, strings.TrimSuffix(m.point, "/")+"/")
		}
	}
	answer := slices.DeleteFunc(slices.Clone(mounts), func(m mount) bool {
		return slices.ContainsFunc(silent, func(dir string) bool { return strings.HasPrefix(m.point+"/", dir) })
	})
	rank := func(m mount) (n int) {
		if m.root != "/" { // a part of it, which may even be a single file
			n += 2
		}
		if m.readOnly {
			n++
		}
		return n
	}
	slices.SortStableFunc(answer, func(a, b mount) int { return rank(a) - rank(b) })
	return answer
}

// mayBeSilent tells whether the file system may wait for another machine or process.
func mayBeSilent(fsType string) bool {
	for _, prefix := range []string{"autofs", "nfs", "cifs", "smb", "fuse", "9p", "ceph", "afs", "virtiofs", "vboxsf", "lustre", "beegfs", "gpfs", "orangefs", "coda", "ocfs2", "gfs2"} {
		if strings.HasPrefix(fsType, prefix) {
			return true
		}
	}
	return false
}

// A FileRef names a file beyond a reboot, wherever its file system is mounted then.
// FileRefs are values and can be compared with ==. In JSON it is
// {"fs":"uuid:…","handle":"1:…"}.
type FileRef struct {
	FS     FileSystemID `json:"fs"`
	Handle FileHandle   `json:"handle"`
}

// FileRefAt returns the FileRef of the file at path. dirfd, path and flags are those of
// [NameToHandleAt]; the flags are [AT_EMPTY_PATH], [AT_SYMLINK_FOLLOW] and
// [AT_HANDLE_CONNECTABLE].
//
// It asks the directory, or else the mount of the file, for the identity of the file
// system. Where neither can be opened it takes the second best of [FileSystemID], so
// that the FileRef of one file can differ by who asks. Who names many files of one
// file system makes their FileRefs of [FileSystemIDOf] and NameToHandleAt at less cost.
//
// Errors: those of [NameToHandleAt] and [FileSystemIDOf]. ESTALE if path came to mean
// another file meanwhile.
func FileRefAt(dirfd int, path string, flags int) (FileRef, error) {
	if flags&^(AT_EMPTY_PATH|AT_SYMLINK_FOLLOW|AT_HANDLE_CONNECTABLE) != 0 {
		return FileRef{}, &inputError{text: "flags " + strconv.FormatInt(int64(flags), 16) + " do not go with a FileRef", errno: syscall.EINVAL}
	}
	fd := dirfd
	if path != "" || flags&AT_EMPTY_PATH == 0 {
		open := _O_PATH
		if flags&AT_SYMLINK_FOLLOW == 0 {
			open |= syscall.O_NOFOLLOW
		}
		var err error
		if fd, err = openat(dirfd, path, open); err != nil {
			return FileRef{}, err
		}
		defer syscall.Close(fd)
	}
	var h FileHandle
	var err error
	if flags&AT_HANDLE_CONNECTABLE == 0 {
		h, _, err = NameToHandleAt(fd, "", AT_EMPTY_PATH)
	} else {
		h, err = connectableHandle(dirfd, path, flags, fd)
	}
	if err != nil {
		return FileRef{}, err
	}
	id, err := fileSystemIDOfFile(fd)
	return FileRef{id, h}, err
}

// connectableHandle is for the kind of handle that takes a path: it makes sure that
// the file has remained on the mount of fd.
func connectableHandle(dirfd int, path string, flags, fd int) (FileHandle, error) {
	h, mount, err := NameToHandleAt(dirfd, path, flags)
	if err != nil {
		return h, err
	}
	is, err := mountIDOf(fd, false)
	if err == nil && is != mount {
		err = &inputError{text: path + " was moved", errno: syscall.ESTALE, means: os.ErrNotExist}
	}
	return h, err
}

// fileSystemIDOfFile returns the identity of the file system that any descriptor is
// on, even if it is open for O_PATH only.
func fileSystemIDOfFile(fd int) (FileSystemID, error) {
	if dir, err := openat(fd, ".", syscall.O_DIRECTORY); err == nil {
		defer syscall.Close(dir)
		return FileSystemIDOf(dir)
	}
	for _, unique := range []bool{true, false} {
		mount, err := mountIDOf(fd, unique)
		if err != nil {
			continue
		}
		if f, err := OpenMount(mount); err == nil {
			defer f.Close()
			return FileSystemIDOf(int(f.Fd()))
		}
	}
	return statfsID(fd)
}

// String returns the two identities with a slash between them. [ParseFileRef] is the
// reverse.
func (r FileRef) String() string { return r.FS.String() + "/" + r.Handle.String() }

// ParseFileRef reads what [FileRef.String] returns, and nothing else. What is not
// that is an error that matches EINVAL.
func ParseFileRef(text string) (FileRef, error) {
	fs, handle, _ := strings.Cut(text, "/")
	id, errFS := ParseFileSystemID(fs)
	h, errHandle := ParseFileHandle(handle)
	if errors.Join(errFS, errHandle) != nil {
		return FileRef{}, &inputError{text: strconv.Quote(text) + " does not name a file: that looks like uuid:00112233-4455-6677-8899-aabbccddeeff/1:19000000", errno: syscall.EINVAL}
	}
	return FileRef{id, h}, nil
}

// Open opens the file: it is [OpenFileSystem] and [OpenByHandleAt], and takes what
// they take. Their errors that match [os.ErrNotExist] differ: ENOENT if the file
// system is not mounted, ESTALE if it is there and the file is gone.
func (r FileRef) Open(flags int) (*os.File, error) {
	fs, err := OpenFileSystem(r.FS)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return OpenByHandleAt(int(fs.Fd()), r.Handle, flags)
}
