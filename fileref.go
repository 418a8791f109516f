//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A FileSystemID names a file system beyond a reboot, which a [MountID] and a
// device number do not: by its UUID, or where there is none by the f_fsid of
// statfs(2) and its type. FileSystemIDs are values and can be compared with ==; the
// zero one names nothing.
//
// The second best is good for ext4, btrfs and others that make f_fsid of their UUID.
// Some make it of the device number, which can be another one after a reboot:
// squashfs, and XFS, which has a UUID since Linux 6.9.
type FileSystemID struct {
	uuid  [16]byte
	n     uint8 // bytes of uuid, 0 = f_fsid
	magic uint32
	fsid  uint64
}

// FileSystemIDOf returns the identity of the file system that fd is on: that of the
// ioctl FS_IOC_GETFSUUID, Linux 6.9, or else statfs(2). fd must be open for more
// than O_PATH.
//
// Errors: EBADF if it is not. One that matches [errors.ErrUnsupported] if the file
// system has no identity, as proc.
func FileSystemIDOf(fd int) (id FileSystemID, err error) {
	n, errno := fsUUID(fd, &id.uuid)
	switch errno {
	case 0:
		if id.uuid != [16]byte{} { // some tools that make images leave it at zero
			id.n = uint8(min(n, len(id.uuid)))
			return id, nil
		}
	case syscall.ENOTTY, syscall.EOPNOTSUPP, syscall.EINVAL, syscall.ENOSYS:
		// Before Linux 6.9, and without a UUID.
	default:
		return FileSystemID{}, &callError{call: "ioctl", subject: "FS_IOC_GETFSUUID " + fdSubject(fd), errno: errno}
	}
	return statfsID(fd)
}

// statfsID is the second best.
func statfsID(fd int) (FileSystemID, error) {
	magic, fsid, errno := fstatfs(fd)
	if errno != 0 {
		return FileSystemID{}, &callError{call: "fstatfs", subject: fdSubject(fd), errno: errno}
	}
	if fsid == 0 {
		return FileSystemID{}, &inputError{text: "the file system of descriptor " + strconv.Itoa(fd) + " has no identity", errno: syscall.EOPNOTSUPP}
	}
	return FileSystemID{magic: magic, fsid: fsid}, nil
}

// IsZero tells whether id is the zero FileSystemID.
func (id FileSystemID) IsZero() bool { return id == FileSystemID{} }

// String returns "uuid:" and the UUID, or "fsid:", type and f_fsid in hexadecimal.
// [ParseFileSystemID] is the reverse.
func (id FileSystemID) String() string {
	if id.IsZero() {
		return ""
	}
	if id.n == 0 {
		return "fsid:" + strconv.FormatUint(uint64(id.magic), 16) + ":" + strconv.FormatUint(id.fsid, 16)
	}
	b := []byte("uuid:")
	for i, c := range id.uuid[:id.n] {
		if id.n == 16 && (i == 4 || i == 6 || i == 8 || i == 10) {
			b = append(b, '-')
		}
		b = appendHex(b, c)
	}
	return string(b)
}

// ParseFileSystemID reads what [FileSystemID.String] returns, and nothing else.
// What is not that is an error that matches EINVAL.
func ParseFileSystemID(text string) (id FileSystemID, err error) {
	if uuid, ok := strings.CutPrefix(text, "uuid:"); ok {
		uuid = strings.ReplaceAll(uuid, "-", "")
		if n := len(uuid) / 2; n <= len(id.uuid) {
			id.n = uint8(n)
			parseHex(id.uuid[:n], uuid)
		}
	} else if rest, ok := strings.CutPrefix(text, "fsid:"); ok {
		magic, fsid, _ := strings.Cut(rest, ":")
		m, _ := strconv.ParseUint(magic, 16, 32)
		id.magic = uint32(m)
		id.fsid, _ = strconv.ParseUint(fsid, 16, 64)
	}
	// All that went wrong comes out otherwise, or as zeros, which name nothing.
	if id.String() != text || id.uuid == [16]byte{} && id.fsid == 0 && text != "" {
		return FileSystemID{}, &inputError{text: strconv.Quote(text) + " is not the identity of a file system", errno: syscall.EINVAL}
	}
	return id, nil
}

// MarshalText implements [encoding.TextMarshaler].
func (id FileSystemID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseFileSystemID].
func (id *FileSystemID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseFileSystemID(string(text))
	return err
}

// OpenFileSystem opens a file from which [OpenByHandleAt] opens the handles of
// this file system, wherever it is mounted now. It goes through /proc/self/mountinfo
// and opens the places where local file systems are mounted; those of network file
// systems, of FUSE and of autofs, which might not answer, it leaves alone.
//
// Errors: ENOENT, which matches [os.ErrNotExist], if it is not mounted anywhere
// the caller sees and may read. ENOTUNIQ if two have the same identity, as a
// file system and its image that are mounted at the same time: which one is meant
// cannot be known.
func OpenFileSystem(id FileSystemID) (*os.File, error) {
	mounts, err := readMountinfo()
	if err != nil {
		return nil, err
	}
	var found *os.File
	device := ""
	for _, m := range mounts {
		if found != nil && m.device == device || mayHang(m.fsType) {
			continue
		}
		f, err := m.id.openAt(m.point)
		if err != nil {
			continue // covered, or not for us to see
		}
		is, err := FileSystemIDOf(int(f.Fd()))
		if err == nil && id.n == 0 {
			is, err = statfsID(int(f.Fd())) // stored before the kernel told the UUID
		}
		switch {
		case err != nil || is != id || id.IsZero():
			f.Close()
		case found != nil:
			f.Close()
			found.Close()
			return nil, &inputError{text: "two file systems are " + id.String() + ": " + found.Name() + " and " + m.point, errno: syscall.ENOTUNIQ}
		default:
			found, device = f, m.device
		}
	}
	if found == nil {
		return nil, &inputError{text: "no file system " + strconv.Quote(id.String()) + " is mounted where it can be opened", errno: syscall.ENOENT}
	}
	return found, nil
}

func mayHang(fsType string) bool {
	for _, prefix := range []string{"autofs", "nfs", "cifs", "smb", "fuse", "9p", "ceph", "afs", "ocfs2", "gfs2"} {
		if strings.HasPrefix(fsType, prefix) {
			return true
		}
	}
	return false
}

// A FileRef names a file beyond a reboot and wherever its file system is mounted. Its
// JSON form is {"fs":"uuid:…","handle":"1:…"}.
type FileRef struct {
	FS     FileSystemID `json:"fs"`
	Handle FileHandle   `json:"handle"`
}

// FileRefAt returns the FileRef of the file at path; dirfd, path and flags are those
// of [NameToHandleAt]. Who names many files of one file system makes the FileRefs of
// [FileSystemIDOf] and NameToHandleAt at less cost.
func FileRefAt(dirfd int, path string, flags int) (FileRef, error) {
	h, mountID, err := NameToHandleAt(dirfd, path, flags|AT_HANDLE_MNT_ID_UNIQUE)
	if errors.Is(err, syscall.EINVAL) { // before Linux 6.12
		h, mountID, err = NameToHandleAt(dirfd, path, flags)
	}
	if err != nil {
		return FileRef{}, err
	}
	mount, err := OpenMount(mountID)
	if err != nil {
		return FileRef{}, err
	}
	defer mount.Close()
	id, err := FileSystemIDOf(int(mount.Fd()))
	return FileRef{id, h}, err
}

// String returns the two identities with a slash between them. [ParseFileRef] is the
// reverse.
func (r FileRef) String() string { return r.FS.String() + "/" + r.Handle.String() }

// ParseFileRef reads what [FileRef.String] returns, and nothing else. What is not
// that is an error that matches EINVAL.
func ParseFileRef(text string) (r FileRef, err error) {
	fs, handle, _ := strings.Cut(text, "/")
	if r.FS, err = ParseFileSystemID(fs); err == nil {
		r.Handle, err = ParseFileHandle(handle)
	}
	if err != nil {
		return FileRef{}, err
	}
	return r, nil
}

// Open opens the file. See [OpenFileSystem] and [OpenByHandleAt] for what it takes
// and for the errors.
func (r FileRef) Open(flags int) (*os.File, error) {
	fs, err := OpenFileSystem(r.FS)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return OpenByHandleAt(int(fs.Fd()), r.Handle, flags)
}
