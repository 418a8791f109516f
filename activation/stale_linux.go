package activation

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// removeStale removes the file of a Unix socket that nobody has open any more. A file cannot
// be removed on the condition that it is a certain one. So whatever is there is moved aside, and
// is removed if it is the socket that was found dead, which it then is for good: its inode is
// never bound again. It is held meanwhile, so that no other gets its number. If another
// program has put a socket of its own there meanwhile, that one is moved back.
func removeStale(path string) (removed bool, err error) {
	dir := filepath.Dir(path)
	defer lock(dir)()
	held, errOpen := syscall.Open(path, unix.O_PATH|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if errOpen != nil {
		return errOpen == syscall.ENOENT, nil // somebody else has removed it
	}
	defer syscall.Close(held)
	var found, moved syscall.Stat_t
	if syscall.Fstat(held, &found) != nil || found.Mode&syscall.S_IFMT != syscall.S_IFSOCK || !isStale(path) {
		return false, nil
	}
	aside, errCreate := os.CreateTemp(dir, ".stale-*")
	if errCreate != nil {
		return false, nil
	}
	aside.Close()
	if beforeMoving != nil {
		beforeMoving()
	}
	if os.Rename(path, aside.Name()) != nil {
		os.Remove(aside.Name())
		return false, nil
	}
	errStat := syscall.Lstat(aside.Name(), &moved)
	if errStat == nil && moved.Dev == found.Dev && moved.Ino == found.Ino {
		return true, os.Remove(aside.Name())
	}
	err = unix.Renameat2(unix.AT_FDCWD, aside.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if err != nil {
		return false, &os.LinkError{Op: "move back", Old: aside.Name(), New: path, Err: err}
	}
	return false, nil
}

var beforeMoving func() // for tests

// isStale tells whether no socket is bound to a path any more. To ask, it connects a socket of
// datagrams: a server of connections does not notice, and answers EPROTOTYPE even before it
// listens. A server of datagrams lets it connect and does not notice that, either.
func isStale(path string) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	return errors.Is(syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}), syscall.ECONNREFUSED)
}

// lock keeps others that call removeStale out of a directory, for as long as that takes. Whoever can read
// the directory can lock it, so it waits only so long: it is for a path that is never free
// for a moment, and removeStale is right without it.
func lock(dir string) (unlock func()) {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	for range 1000 {
		if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return func() { syscall.Close(fd) }
}
