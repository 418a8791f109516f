//go:build linux

package sysfd

import (
	"os"
	"strconv"
	"syscall"
)

// IsSocket reports whether f is a socket of the address family domain (AF_UNIX, …; 0 = any) and the
// type typ (SOCK_STREAM, …; 0 = any), and whether it is listening: listening > 0 requires that
// listen(2) was called for it, 0 that it was not, and < 0 accepts both.
//
// Most services get a listening socket. Under Accept=yes they get a connected one, for which
// listening = 0 holds. A datagram socket never listens.
//
// IsSocket and the other functions whose names begin with Is do not change f or its blocking mode.
// They answer as sd_is_socket(3) of systemd 262 does, except where their documentation says
// otherwise. IsSocket differs in two ways. A descriptor of the file of a socket (O_PATH of open(2))
// is not a socket; sd_is_socket says that it is, unless it is asked for more. The family is the
// SO_DOMAIN of socket(7); sd_is_socket uses that of the address.
//
// Errors:
//   - EINVAL if domain or typ is negative;
//   - [os.ErrClosed];
//   - those of getsockopt(2).
func IsSocket(f *os.File, domain, typ, listening int) (bool, error) {
	return isSocket(f, domain, typ, listening, nil)
}

// IsSocketInet is [IsSocket] for AF_INET and AF_INET6 (domain 0 = either), and also reports whether
// the socket is bound to port (0 = any).
//
// Errors: EINVAL for another domain, and those of IsSocket and getsockname(2).
func IsSocketInet(f *os.File, domain, typ, listening int, port uint16) (bool, error) {
	switch domain {
	case 0, syscall.AF_INET, syscall.AF_INET6:
	default:
		return false, refused(syscall.EINVAL, "address family "+strconv.Itoa(domain)+" is neither AF_INET nor AF_INET6")
	}
	return isSocket(f, domain, typ, listening, func(fd, domain int) (bool, error) {
		if domain != syscall.AF_INET && domain != syscall.AF_INET6 || port == 0 {
			return port == 0 && (domain == syscall.AF_INET || domain == syscall.AF_INET6), nil
		}
		name, err := syscall.Getsockname(fd)
		switch name := name.(type) {
		case *syscall.SockaddrInet4:
			return name.Port == int(port), nil
		case *syscall.SockaddrInet6:
			return name.Port == int(port), nil
		}
		return false, err
	})
}

// IsSocketUnix is [IsSocket] for AF_UNIX, and also reports whether the socket has the address path
// ("" = any). An address is written as package net writes it: the path as it was bound, without
// resolving it; "@name" for an abstract name; "@" for a socket without a name.
//
// As in package net, a file @name in the working directory of the process that bound the socket
// looks like an abstract name, and an abstract name ends at its first zero byte. sd_is_socket_unix
// distinguishes these.
//
// Errors: those of IsSocket and getsockname(2).
func IsSocketUnix(f *os.File, typ, listening int, path string) (bool, error) {
	return isSocket(f, syscall.AF_UNIX, typ, listening, func(fd, domain int) (bool, error) {
		if path == "" {
			return true, nil
		}
		name, err := syscall.Getsockname(fd)
		unix, ok := name.(*syscall.SockaddrUnix)
		return ok && unix.Name == path, err
	})
}

// isSocket calls named for a socket that has the domain, type and state asked for.
func isSocket(f *os.File, domain, typ, listening int, named func(fd, domain int) (bool, error)) (bool, error) {
	if domain < 0 || typ < 0 {
		return false, refused(syscall.EINVAL, "address family "+strconv.Itoa(domain)+", socket type "+strconv.Itoa(typ)+": must not be negative")
	}
	return askFD(f, func(fd int) (is bool, err error) {
		call := "getsockopt"
		is, err = func() (bool, error) {
			has, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_DOMAIN)
			switch {
			case err == syscall.ENOTSOCK, err == syscall.EBADF: // fd is open, so EBADF means O_PATH
				return false, nil
			case err != nil || domain != 0 && has != domain:
				return false, err
			}
			if typ != 0 {
				has, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
				if err != nil || has != typ {
					return false, err
				}
			}
			if listening >= 0 {
				accepts, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
				if err != nil || (accepts != 0) != (listening > 0) {
					return false, err
				}
			}
			if named == nil {
				return true, nil
			}
			call = "getsockname"
			return named(fd, has)
		}()
		if errno, ok := err.(syscall.Errno); ok {
			err = failed(call, fdSubject(fd), errno)
		}
		return is, err
	})
}

// IsFIFO reports whether f is a pipe and, if path is not "", whether it is the FIFO at path.
// Symbolic links are followed. If nothing is at path, the answer is false.
//
// Errors: [os.ErrClosed], and those of statx(2), except ENOENT and ENOTDIR for path.
func IsFIFO(f *os.File, path string) (bool, error) {
	return isFile(f, path, func(has, at *inode) bool {
		return has.kind() == syscall.S_IFIFO && (at == nil || sameInode(has, at))
	})
}

// IsSpecial reports whether f is a regular file or a character device and, if path is not "",
// whether it is the one at path: the same file, or the same device under any name. Symbolic links
// are followed. If nothing is at path, the answer is false. ListenSpecial= of systemd.socket(5)
// opens such files; those in /proc and /sys are regular ones.
//
// Errors: those of [IsFIFO].
func IsSpecial(f *os.File, path string) (bool, error) {
	return isFile(f, path, func(has, at *inode) bool {
		kind := has.kind()
		switch {
		case kind != syscall.S_IFREG && kind != syscall.S_IFCHR:
			return false
		case at == nil:
			return true
		case kind != at.kind():
			return false
		case kind == syscall.S_IFCHR:
			return has.rdev == at.rdev
		}
		return sameInode(has, at)
	})
}

// isFile calls is for f and, if path is not "", again for f and what is at path.
func isFile(f *os.File, path string, is func(has, at *inode) bool) (bool, error) {
	return askFD(f, func(fd int) (bool, error) {
		has, errno := statFD(fd)
		switch {
		case errno != 0:
			return false, failed("statx", fdSubject(fd), errno)
		case path == "" || !is(&has, nil):
			return is(&has, nil), nil
		}
		at, errno := stat(path)
		switch errno {
		case 0:
			return is(&has, &at), nil
		case syscall.ENOENT, syscall.ENOTDIR:
			return false, nil
		}
		return false, failed("statx", path, errno)
	})
}

func sameInode(a, b *inode) bool { return a.dev == b.dev && a.ino == b.ino }

// IsMessageQueue reports whether f is a POSIX message queue (mq_overview(7)) and, if name is not
// "", whether it is the queue of that name, such as "/queue". It looks the name up in /dev/mqueue.
//
// Errors:
//   - EINVAL if name does not begin with a slash;
//   - an error that matches [os.ErrNotExist], as with sd_is_mq, if /dev/mqueue is not mounted or
//     has no such queue;
//   - [os.ErrClosed];
//   - those of mq_getattr(3), which is ENOSYS on a kernel without message queues;
//   - those of statx(2) for the name.
func IsMessageQueue(f *os.File, name string) (bool, error) {
	if name != "" && name[0] != '/' {
		return false, refused(syscall.EINVAL, "message queue "+quote(name)+": the name must begin with a slash")
	}
	return askFD(f, func(fd int) (bool, error) {
		switch errno := mqGetAttr(fd); errno {
		case 0:
		case syscall.EBADF: // fd is open, so EBADF means that it is not a queue
			return false, nil
		default:
			return false, failed("mq_getsetattr", fdSubject(fd), errno)
		}
		if name == "" {
			return true, nil
		}
		has, errno := statFD(fd)
		if errno != 0 {
			return false, failed("statx", fdSubject(fd), errno)
		}
		path := "/dev/mqueue" + name
		at, errno := stat(path)
		if errno != 0 {
			return false, failed("statx", path, errno)
		}
		return sameInode(&has, &at), nil
	})
}

// askFD calls ask with the descriptor of f.
func askFD(f *os.File, ask func(fd int) (bool, error)) (is bool, err error) {
	var errUse error
	if err := withFD(f, func(fd int) { is, errUse = ask(fd) }); err != nil {
		return false, err
	}
	return is, errUse
}
