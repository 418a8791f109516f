//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// PathOf returns a path of the file that is open as fd, which may be open for O_PATH only. It is
// the path that the kernel knows, once PathOf has verified that it leads to this very file. It is
// valid in this process and at this moment: the file may be renamed at any time. If the file has
// several names the path is one of them. For a symbolic link it is the path of the link itself.
//
// The kernel often knows no path of a file that was opened by its handle, after a mount for
// example: it learns the name of a file when some process looks it up, and forgets it to save
// memory. In that case find the file by its name and open it again. The kernel always knows the
// path of a directory.
//
// PathOf reads the link in /proc/thread-self/fd (proc_pid_fd(5), Linux 3.17), and opens the path
// with O_PATH, so it may wait for servers of file systems (NFS, FUSE) on the way there.
//
// Errors:
//   - ENOENT, which matches [os.ErrNotExist], if the file has no name any more; for a directory on
//     overlayfs that was removed the error may be another one;
//   - ENODATA if the kernel knows no path that leads to the file: it knows none at all, or that of
//     a name that is gone or belongs to another file, or one outside the root directory or below
//     another mount;
//   - EINVAL if the file never has a path, such as a socket or a pidfd;
//   - ENAMETOOLONG if the path has 4 KiB or more;
//   - an error that matches [errors.ErrUnsupported] without /proc;
//   - EBADF if fd is not open.
func PathOf(fd int) (string, error) { return pathOf(fd, label{fd: fd}) }

// pathOf is PathOf. Errors name the file by the label what.
func pathOf(fd int, what label) (string, error) {
	is, errno := statFD(fd)
	if errno != 0 {
		return "", failed("statx", "of "+what.String(), errno)
	}
	link := "/proc/thread-self/fd/" + strconv.Itoa(fd)
	// most is for a file that is moved all the time. A file that is moved to and fro looks like
	// one with a path that leads elsewhere, hence enough.
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
			return "", refused(syscall.EINVAL, what.String()+" is "+path+", and never has a path")
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
		return "", refused(syscall.ENOENT, what.String()+" has no name any more").as(os.ErrNotExist)
	}
	return "", refused(syscall.ENODATA, "the kernel knows no path of "+what.String()+": it reports "+strconv.Quote(last)+", which leads elsewhere or nowhere")
}

// leadsToFile reports whether path leads to the file fd, whose inode is is.
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

// sameFile reports whether b is the file a, whose inode is is. Inode numbers are not enough: a
// 32-bit kernel truncates them, and overlayfs can give one number to two files.
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
		if errno != 0 { // then the numbers must do
			return true, nil
		}
	}
	return h[0] == h[1], nil
}
