package sysfd

import "syscall"

// dupConn duplicates the descriptor of c. The duplicate is never a standard descriptor.
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
