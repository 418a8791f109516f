//go:build linux

package sysfd

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A FileRef names a file beyond a reboot, wherever its file system is then mounted. FileRefs are
// values: they can be compared with == and be the keys of a map. The zero FileRef names nothing.
//
// Do not put a handle made with [AT_HANDLE_CONNECTABLE] into a FileRef: the kernel opens it only
// from a mount that shows the file.
type FileRef struct {
	FS     FileSystemID
	Handle FileHandle
}

// FileRefAt returns the FileRef of the file at path. dirfd, path and flags are those of
// [NameToHandleAt], with [AT_EMPTY_PATH] and [AT_SYMLINK_FOLLOW] as the only flags.
//
// FileRefAt asks for the identity of the file system at the first of these places that may be
// opened: the file itself, if it is a directory, or if it is dirfd and open for more than O_PATH;
// the place where its mount is; the directories above the file; the root directory; the file
// itself, if it is a regular one; another place where the file system is mounted. All of them have
// the same identity. If none may be opened, the FileRef of a file on ext2, ext3 or ext4 has the
// second best identity instead, so two callers can get different FileRefs for one file;
// [OpenFileSystem] finds the file system by either. To name many files on one file system, it is
// cheaper to call [FileSystemIDOf] once and NameToHandleAt for each file.
//
// Errors: those of [NameToHandleAt] and [FileSystemIDOf]; EACCES if no place that has the identity
// may be opened, and there is no second best; EMFILE and the like.
func FileRefAt(dirfd int, path string, flags int) (FileRef, error) {
	// While fd is open, the file keeps its handle, and its mount keeps its ID.
	fd, what, opened, err := holdAt(dirfd, path, flags)
	if err != nil {
		return FileRef{}, err
	}
	if opened {
		defer syscall.Close(fd)
	}
	var r FileRef
	if _, errno := nameToHandleAt(fd, "", &r.Handle.h, AT_EMPTY_PATH); errno != 0 {
		return FileRef{}, failed("name_to_handle_at", "of "+what.String(), errno)
	}
	if r.FS, err = fileSystemIDOfAny(fd, what, dirfd, path); err != nil {
		return FileRef{}, err
	}
	return r, nil
}

// String returns the identity of the file system and the handle with a slash between them, such as
// "uuid:00112233-4455-6677-8899-aabbccddeeff/1:1900000034120000", and "" for the zero FileRef.
// [ParseFileRef] is the reverse.
func (r FileRef) String() string {
	if r == (FileRef{}) {
		return ""
	}
	return r.FS.String() + "/" + r.Handle.String()
}

// valid reports whether r names a file, or is the zero FileRef.
func (r FileRef) valid() bool { return r.FS.IsZero() == r.Handle.IsZero() }

// ParseFileRef reads what [FileRef.String] returns, and nothing else: the newline at the end of a file
// must be cut off. The empty text is that of the zero FileRef, which Open refuses. For any other text
// the error matches EINVAL.
func ParseFileRef(text string) (FileRef, error) {
	fs, handle, _ := cut(text, '/')
	var r FileRef
	r.FS, _ = ParseFileSystemID(fs)
	r.Handle, _ = ParseFileHandle(handle)
	if !r.valid() || r.String() != text { // what went wrong does not come out as it went in
		return FileRef{}, notAFile(text)
	}
	return r, nil
}

func notAFile(text string) error {
	return refused(syscall.EINVAL, strconv.Quote(text)+" is not a file reference: want FILESYSTEM/HANDLE, such as uuid:00112233-4455-6677-8899-aabbccddeeff/1:19000000")
}

// AppendText implements [encoding.TextAppender]. The text is that of [FileRef.String]. If only one
// of the two parts of r is set, the error matches EINVAL.
func (r FileRef) AppendText(b []byte) ([]byte, error) {
	if !r.valid() {
		return b, notAFile(r.String())
	}
	if r == (FileRef{}) {
		return b, nil
	}
	b, _ = r.FS.AppendText(b)
	return r.Handle.AppendText(append(b, '/'))
}

// MarshalText implements [encoding.TextMarshaler].
func (r FileRef) MarshalText() ([]byte, error) { return r.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseFileRef].
func (r *FileRef) UnmarshalText(text []byte) error {
	return unmarshalText(r, text, ParseFileRef)
}

// AppendBinary implements [encoding.BinaryAppender]: one byte with the length of the next part, the
// bytes of [FileSystemID.AppendBinary], and those of [FileHandle.AppendBinary]. That is 30 bytes
// for a file on ext4, 34 on XFS and 42 on btrfs. The zero FileRef has no bytes at all. If only one
// of the two parts of r is set, the error matches EINVAL.
func (r FileRef) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case !r.valid():
		return b, notAFile(r.String())
	case r == FileRef{}:
		return b, nil
	}
	at := len(b)
	b, _ = r.FS.AppendBinary(append(b, 0))
	b[at] = byte(len(b) - at - 1)
	return r.Handle.AppendBinary(b)
}

// MarshalBinary implements [encoding.BinaryMarshaler]; see [FileRef.AppendBinary].
func (r FileRef) MarshalBinary() ([]byte, error) { return r.AppendBinary(nil) }

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]. For data that AppendBinary does not
// write the error matches EINVAL, and r stays as it is.
func (r *FileRef) UnmarshalBinary(data []byte) error {
	var is FileRef
	if len(data) > 0 {
		n := min(1+int(data[0]), len(data))
		if err := is.FS.UnmarshalBinary(data[1:n]); err != nil {
			return err
		}
		if err := is.Handle.UnmarshalBinary(data[n:]); err != nil {
			return err
		}
		if is.FS.IsZero() || is.Handle.IsZero() {
			return refused(syscall.EINVAL, strconv.Itoa(len(data))+" bytes are not a file reference")
		}
	}
	*r = is
	return nil
}

// Open opens the file of r, and never another one. It finds the file system with [OpenFileSystem],
// and then does what [FileRef.OpenFrom] does. To find the file system is the larger part of the
// work, and better done once for many files.
//
// Errors: those of OpenFileSystem, which say nothing about the file, and those of OpenFrom.
func (r FileRef) Open(flags int, options OpenOption) (*os.File, error) {
	if r == (FileRef{}) {
		return nil, refused(syscall.EINVAL, "the zero FileRef, whose text is empty, names nothing")
	}
	fs, err := OpenFileSystem(r.FS)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return r.openFrom(int(fs.Fd()), flags, options)
}

// OpenFrom opens the file of r on its file system. fd is any descriptor on that file system that is
// open for more than O_PATH; OpenFrom verifies that it is there. Flags and options are those of
// [OpenFileHandle].
//
// Errors: those of OpenFileHandle and [FileSystemIDOf]; EXDEV if fd is on another file system;
// ESTALE if the file cannot be opened by its handle.
//
// ESTALE matches [os.ErrNotExist] if the handle is not connectable and the file is certainly gone:
//   - on ext2, ext3, ext4, XFS, btrfs, tmpfs and cgroup2, if the handle opens another file, which
//     now has the inode number;
//   - on tmpfs and cgroup2, which are in memory, if the caller has CAP_DAC_READ_SEARCH in the
//     initial user namespace.
//
// For a file on a disk ESTALE alone is no proof. The kernel answers ESTALE if the file was deleted,
// and also if it could not read the disk (fs/exportfs/expfs.c), or if the caller has no access to a
// directory on the way, as on an idmapped mount. A program that prunes an index of files therefore
// looks at the former path as well: if the path leads to another file or is ENOENT, and the handle
// is ESTALE, the file was deleted.
func (r FileRef) OpenFrom(fd int, flags int, options OpenOption) (*os.File, error) {
	is, err := r.FS.isOf(fd, label{fd: fd})
	if err != nil {
		return nil, err
	}
	if !is {
		return nil, refused(syscall.EXDEV, "descriptor "+strconv.Itoa(fd)+" is not on the file system "+r.FS.String())
	}
	return r.openFrom(fd, flags, options)
}

// openFrom is OpenFrom for a descriptor that is known to be on the file system.
func (r FileRef) openFrom(fd int, flags int, options OpenOption) (*os.File, error) {
	f, err := OpenFileHandle(fd, r.Handle, flags, options)
	if e, ok := err.(*callError); ok && e.errno == syscall.ESTALE {
		switch why := r.mayBeThere(fd, e.note != ""); {
		case why == "":
			e.means = os.ErrNotExist
			if e.note == "" {
				e.note = "the file has been deleted"
			}
		case e.note == "":
			e.note = why
		}
	}
	return f, err
}

// mayBeThere returns why the file may exist though its handle does not open it, or "" if the file
// is gone. another says that the handle opens another file.
func (r FileRef) mayBeThere(fd int, another bool) string {
	magic, errno := fsMagic(fd)
	inMemory := magic == unix.TMPFS_MAGIC || magic == unix.CGROUP2_SUPER_MAGIC
	onDisk := magic == unix.EXT4_SUPER_MAGIC || magic == unix.XFS_SUPER_MAGIC || magic == unix.BTRFS_SUPER_MAGIC
	switch {
	case r.Handle.connectable():
		return "the file may still exist: a connectable handle opens only while the file is in its directory"
	case errno == 0 && another && (inMemory || onDisk):
		return ""
	case errno == 0 && onDisk:
		return "the file was deleted, or cannot be read"
	case errno != 0 || !inMemory:
		// Overlayfs and proc make handles that only compare, FUSE forgets files, others
		// were not tried.
		return "the file may still exist: handles of this file system do not last as long as the file"
	case !mayOpenAll():
		return "the file may still exist: this process may not open every file by its handle"
	}
	return ""
}

// mayOpenAll reports whether this thread is known to be allowed to open any file by its handle.
func mayOpenAll() bool { return hasCapability(unix.CAP_DAC_READ_SEARCH) && inInitialUserNamespace() }
