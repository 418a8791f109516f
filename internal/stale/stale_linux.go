// Package stale removes the files of Unix sockets that no process has open. Such a file must be
// removed before another socket can be bound to its path.
package stale

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Remove removes the file of a Unix socket that no process has open, if that is what is at path. It
// returns nil if the path is free now, or was for a moment, and EADDRINUSE if a process has the
// socket or path is something else.
//
// A file can only be removed by its name, which can come to mean another file until then. So Remove
// first renames the file, and renames it back if it turns out to be another one.
func Remove(path string) error {
	dir, base := filepath.Split(path)
	dirFD, err := unix.Open(filepath.Clean(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.EACCES { // not readable
		dirFD, err = unix.Open(filepath.Clean(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Clean(dir), Err: err}
	}
	defer unix.Close(dirFD)
	// The lock is for other calls of Remove. Another holder is not waited for long.
	for range 100 {
		if err := unix.Flock(dirFD, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	// While it is open, no other file gets its inode number.
	node, err := unix.Openat(dirFD, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(node)
	var is, at unix.Stat_t
	if err := unix.Fstat(node, &is); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if is.Mode&unix.S_IFMT != unix.S_IFSOCK || !isStale(node, path) {
		return unix.EADDRINUSE
	}
	if err := unix.Fstatat(dirFD, base, &at, unix.AT_SYMLINK_NOFOLLOW); err != nil || !sameNode(&is, &at) {
		return nil // and the caller tries again
	}
	return removeNode(dirFD, dir, base, node, &is)
}

func sameNode(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

// removeNode removes a file in a directory if it is the given one and no process has its socket.
func removeNode(dirFD int, dir, base string, node int, is *unix.Stat_t) error {
	if beforeMoving != nil {
		beforeMoving()
	}
	aside := ".sysfd-" + strconv.FormatUint(rand.Uint64(), 16)
	if err := unix.Renameat(dirFD, base, dirFD, aside); err != nil && err != unix.ENOENT {
		return &removeError{err}
	} else if err != nil {
		return nil
	}
	// While bind(2) makes the file, there is a moment when the file is found and its socket is
	// not (net/unix/af_unix.c, unix_bind_bsd). The rename has waited for the lock on the
	// directory, which bind holds in the meantime: so ask again now.
	var at unix.Stat_t
	err := unix.Fstatat(dirFD, aside, &at, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || !sameNode(is, &at) || !isStale(node, dir+aside) {
		switch err := moveBack(dirFD, aside, base); err {
		case nil:
			return unix.EADDRINUSE
		case unix.EEXIST: // its maker would have removed what was there
		default:
			return &os.LinkError{Op: "rename", Old: dir + aside, New: dir + base, Err: err}
		}
	}
	if err := unix.Unlinkat(dirFD, aside, 0); err != nil {
		return &removeError{err}
	}
	return nil
}

// A removeError says why a file is still there.
type removeError struct{ err error }

func (e *removeError) Error() string {
	return unix.EADDRINUSE.Error() + ": the socket is stale, but its file cannot be removed: " + e.err.Error()
}

func (e *removeError) Unwrap() []error { return []error{unix.EADDRINUSE, e.err} }

// moveBack gives a file its name back, unless another file has the name now.
func moveBack(dirFD int, aside, base string) error {
	err := unix.Renameat2(dirFD, aside, dirFD, base, renameNoReplace)
	if err == nil || err == unix.EEXIST {
		return err
	}
	// NFS and other file systems lack that flag, and filters may forbid it.
	if err := unix.Linkat(dirFD, aside, dirFD, base, 0); err != nil {
		return err
	}
	return unix.Unlinkat(dirFD, aside, 0)
}

// isStale reports whether no process has the socket of a file. It asks with a datagram socket: a
// socket of another type answers with EPROTOTYPE, even before it listens, and one of the same type
// gets nothing, because nothing is sent. Neither notices.
func isStale(node int, path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(node)})
	if err == unix.ENOENT { // /proc is not mounted
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	return err == unix.ECONNREFUSED
}

var ( // for tests
	beforeMoving    func()
	renameNoReplace uint = unix.RENAME_NOREPLACE
)
