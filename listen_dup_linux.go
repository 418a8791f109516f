package sysfd

import "syscall"

// dupConn duplicates the descriptor of c, and not to a standard one.
func dupConn(c syscall.Conn) (fd int, err error) {
	var errno syscall.Errno
	if err := withFD(c, func(old int) { fd, errno = dupAbove(old, 3) }); err != nil {
		return -1, err
	}
	if errno != 0 {
		return -1, failed("fcntl", "F_DUPFD_CLOEXEC", errno)
	}
	return fd, nil
}
