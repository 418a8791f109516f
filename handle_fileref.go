//go:build linux

package sysfd

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A FileRef names a file beyond a reboot, wherever its file system is mounted then. FileRefs are
// values: they can be compared with == and be the keys of a map. The zero FileRef names nothing.
//
// A handle made with [AT_HANDLE_CONNECTABLE] does not go well with it: the kernel opens it only
// from a mount that shows the file.
type FileRef struct {
	FS     FileSystemID
	Handle FileHandle
}

// FileRefAt returns the FileRef of the file at path. dirfd, path and flags are those of
// [NameToHandleAt]; the flags are [AT_EMPTY_PATH] and [AT_SYMLINK_FOLLOW].
//
// For the identity of the file system it asks the first of these that may be opened: the file
// itself if dirfd is that and open for more than O_PATH, or if it is a directory; the place where
// its mount is; the directories above it; the root directory; the file itself if it is a regular
// one; another place where the file system is mounted. All of them give the same identity. Where
// none may be opened, the FileRef of a file on ext2, ext3 or ext4 has the second best instead, and
// [OpenFileSystem] finds both. Whoever names many files of one file system makes their FileRefs of
// [FileSystemIDOf] and NameToHandleAt at less cost.
//
// Errors: those of [NameToHandleAt] and [FileSystemIDOf]. EACCES if nothing may be opened that
// could tell the identity, and there is no second best. EMFILE and the like.
func FileRefAt(dirfd int, path string, flags int) (FileRef, error) {
	// While it is held, the file keeps its handle, and its mount its ID.
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

// String returns the two identities with a slash between them, such as
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

// ParseFileRef reads what [FileRef.String] returns, and nothing else. What is not that is an error
// that matches EINVAL.
func ParseFileRef(text string) (FileRef, error) {
	fs, handle, _ := strings.Cut(text, "/")
	var r FileRef
	r.FS, _ = ParseFileSystemID(fs)
	r.Handle, _ = ParseFileHandle(handle)
	if !r.valid() || r.String() != text { // what went wrong comes out otherwise
		return FileRef{}, notAFile(text)
	}
	return r, nil
}

func notAFile(text string) error {
	return refused(syscall.EINVAL, strconv.Quote(text)+" is not a file reference, which looks like uuid:00112233-4455-6677-8899-aabbccddeeff/1:19000000")
}

// AppendText implements [encoding.TextAppender]. The text is that of [FileRef.String]. A FileRef
// with just one of its two parts is an error that matches EINVAL.
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

// AppendBinary implements [encoding.BinaryAppender]: the number of bytes in
// [FileSystemID.AppendBinary], these, and those of [FileHandle.AppendBinary]. That is 30 bytes in
// all for a file on ext4, 34 on XFS and 42 on btrfs. The zero FileRef has no bytes at all. A
// FileRef with just one of its two parts is an error that matches EINVAL.
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

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]. What AppendBinary does not write is an
// error that matches EINVAL, and leaves r as it is.
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
			return refused(syscall.EINVAL, strconv.Itoa(len(data))+" bytes that do not name a file")
		}
	}
	*r = is
	return nil
}

// Open opens the file, and never another one: it finds the file system with [OpenFileSystem], which
// is the larger part of the work and better done once for many files, and goes on as
// [FileRef.OpenFrom] does.
//
// Errors: those of OpenFileSystem, which are no news about the file, and those of OpenFrom.
func (r FileRef) Open(flags int, options OpenOption) (*os.File, error) {
	fs, err := OpenFileSystem(r.FS)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return r.openFrom(int(fs.Fd()), flags, options)
}

// OpenFrom opens the file on its file system, of which fd is any descriptor that is open for more
// than O_PATH; it makes sure of that. It is [OpenFileHandle], whose flags and options these are.
//
// Errors: those of OpenFileHandle and [FileSystemIDOf]. EXDEV if fd is on another file system.
// ESTALE if the file cannot be opened by its handle.
//
// ESTALE matches [os.ErrNotExist] where it is proven that the file is gone: if the handle opens
// another file, which has its inode number now; and on tmpfs and cgroup2, which are in memory, if
// the caller has CAP_DAC_READ_SEARCH in the initial user namespace and the handle is not
// connectable. On a disk the kernel says ESTALE of a file that was deleted, and the same if it
// could not read the disk (fs/exportfs/expfs.c), or if a directory on the way is not for the
// caller, as on an idmapped mount. So whoever prunes an index of files looks at the path that the
// file had, too: if that leads to another file or is ENOENT, and the handle is ESTALE, the file was
// deleted.
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
				e.note = "the file is gone"
			}
		case e.note == "":
			e.note = why
		}
	}
	return f, err
}

// mayBeThere says why a file may be there though it cannot be opened by its handle, or "" if it is
// gone. another tells that the handle opens another file.
func (r FileRef) mayBeThere(fd int, another bool) string {
	magic, errno := fsMagic(fd)
	inMemory := magic == unix.TMPFS_MAGIC || magic == unix.CGROUP2_SUPER_MAGIC
	onDisk := magic == unix.EXT4_SUPER_MAGIC || magic == unix.XFS_SUPER_MAGIC || magic == unix.BTRFS_SUPER_MAGIC
	switch {
	case r.Handle.connectable():
		return "the file may be there: a connectable handle opens only while the file is in its directory"
	case errno == 0 && another && (inMemory || onDisk):
		return ""
	case errno == 0 && onDisk:
		return "the file was deleted, or cannot be read"
	case errno != 0 || !inMemory:
		// Overlayfs and proc make handles that only compare, FUSE forgets files, and others
		// were not tried.
		return "the file may be there: handles of this file system do not last as long as the file"
	case !mayOpenAll():
		return "the file may be there: this process may not open every file by its handle"
	}
	return ""
}

// mayOpenAll reports whether this thread is known to be allowed to open any file by its handle.
func mayOpenAll() bool { return hasCapability(unix.CAP_DAC_READ_SEARCH) && inInitialUserNamespace() }
