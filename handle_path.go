//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// PathOf returns a path of the file that is open as fd, which may be open for O_PATH only: the path
// that the kernel knows, made sure to lead to this very file. It holds for this process and for the
// moment; the next one the file may be renamed. Of a file with several names it is one, and of a
// symbolic link its own.
//
// A file that was opened by its handle often has a path that the kernel does not know, after a
// mount for example: it learns the name of a file when somebody looks it up, and forgets it to save
// memory. Then look for the name, and open the file again. Directories always have their path.
//
// It reads the link in /proc/thread-self/fd (proc_pid_fd(5), Linux 3.17), and opens the path for
// O_PATH, so it waits for servers of file systems (NFS, FUSE) on the way there.
//
// Errors: ENOENT, which matches [os.ErrNotExist], if the file has no name any more; of a directory
// that was removed on overlayfs that is not certain. ENODATA if the kernel knows no path of it that
// leads there: none at all, that of a name that is gone or belongs to another file, or one outside
// of the root directory or below another mount. EINVAL for what never has a path, such as a socket
// or a pidfd. ENAMETOOLONG if the path has 4 KiB or more. One that matches [errors.ErrUnsupported]
// without /proc. EBADF if fd is not open.
func PathOf(fd int) (string, error) { return pathOf(fd, label{fd: fd}) }

// pathOf is PathOf with what errors are to name.
func pathOf(fd int, what label) (string, error) {
	is, errno := statFD(fd)
	if errno != 0 {
		return "", failed("statx", "of "+what.String(), errno)
	}
	link := "/proc/thread-self/fd/" + strconv.Itoa(fd)
	// Of a file that is moved all the time. One that is moved there and back looks the same,
	// too.
	const most, enough = 100, 4
	last, same := "", 0
	for range most {
		path, errno := readlink(link)
		switch {
		case errno == syscall.ENOENT, errno == syscall.ENOTDIR:
			return "", refused(syscall.ENOSYS, "the path of "+what.String()+" is not known: there is no "+link).as(errors.ErrUnsupported)
		case errno != 0:
			return "", failed("readlink", link, errno)
		case !strings.HasPrefix(path, "/"):
			return "", refused(syscall.EINVAL, what.String()+" is "+path+", which never has a path")
		}
		if found, err := leadsToFile(path, fd, is); found || err != nil {
			return path, err
		}
		if path != last {
			last, same = path, 0
		}
		if same++; same == enough {
			break
		}
	}
	if now, errno := statFD(fd); errno == 0 && now.links == 0 && strings.HasSuffix(last, " (deleted)") {
		return "", refused(syscall.ENOENT, what.String()+" is a file without a name").as(os.ErrNotExist)
	}
	return "", refused(syscall.ENODATA, "the kernel knows no path of "+what.String()+": it gives "+strconv.Quote(last)+", which does not lead there")
}

// leadsToFile reports whether path leads to the file fd, of which is tells what it is.
func leadsToFile(path string, fd int, is inode) (bool, error) {
	there, err := openat(AT_FDCWD, path, O_PATH|syscall.O_NOFOLLOW)
	switch {
	case outOfResources(err):
		return false, err
	case err != nil:
		return false, nil
	}
	defer syscall.Close(there)
	return sameFile(fd, is, there)
}

// sameFile reports whether b is the file a, of which is tells what it is. Inode numbers are not
// enough: a 32-bit kernel cuts them off, and overlayfs can give one number to two files.
func sameFile(a int, is inode, b int) (bool, error) {
	other, errno := statFD(b)
	if errno != 0 {
		return false, failed("statx", fdSubject(b), errno)
	}
	if is.dev != other.dev || is.ino != other.ino || is.kind() != other.kind() {
		return false, nil
	}
	var h [2]fileHandle
	for i, fd := range []int{a, b} {
		// Before Linux 6.5 there is no AT_HANDLE_FID, and fewer file systems have handles.
		_, errno := nameToHandleAt(fd, "", &h[i], AT_EMPTY_PATH|AT_HANDLE_FID)
		if errno == syscall.EINVAL {
			_, errno = nameToHandleAt(fd, "", &h[i], AT_EMPTY_PATH)
		}
		if errno != 0 { // then it is as good as the numbers are
			return true, nil
		}
	}
	return h[0] == h[1], nil
}
