//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerPidFD returns a pidfd of the process at the other end of a connected Unix
// socket, such as a *net.UnixConn. It is the socket option SO_PEERPIDFD of
// unix(7), Linux 6.5.
//
// That is the process that called connect(2), or for the side that did, the one
// that called listen(2), or for both sides the one that called socketpair(2). Who has
// got the socket since does not matter. A listening socket gives the process that
// called listen itself.
//
// Errors: one that matches [errors.ErrUnsupported] where the kernel lacks the option.
// ENODATA if the socket is not connected, or not a Unix socket. EINVAL or ESRCH, which
// matches [os.ErrProcessDone], if the process was reaped; since Linux 6.16 there is a
// pidfd of it nevertheless. Those of conn.
func PeerPidFD(conn syscall.Conn) (*PidFD, error) {
	var fd int
	err := sockopt(conn, "getsockopt", "SO_PEERPIDFD", func(socket int) (err error) {
		fd, err = syscall.GetsockoptInt(socket, syscall.SOL_SOCKET, unix.SO_PEERPIDFD)
		return err
	})
	if e, ok := err.(*callError); ok {
		return nil, orReaped(e)
	}
	if err != nil {
		return nil, err
	}
	return newPidFD(fd, "peer"), nil
}

// SetPassPidFD sets whether a pidfd of the sender comes with each message that is
// received from a Unix socket; see [TakePeerPidFD]. It is the socket option
// SO_PASSPIDFD, Linux 6.5.
//
// Errors: one that matches [errors.ErrUnsupported] where the kernel lacks the
// option, or if the socket is of a family that has no use for it (some take it before
// Linux 6.16, and MPTCP does after). Those of conn.
func SetPassPidFD(conn syscall.Conn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return sockopt(conn, "setsockopt", "SO_PASSPIDFD", func(socket int) error {
		return syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, unix.SO_PASSPIDFD, value)
	})
}

// sockopt calls f with the socket of conn, and tells what its error means.
func sockopt(conn syscall.Conn, call, option string, f func(socket int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var errCall error
	if err := raw.Control(func(fd uintptr) { errCall = f(int(fd)) }); err != nil {
		return err
	}
	if errCall == nil {
		return nil
	}
	e := failed(call, option, errCall.(syscall.Errno))
	if e.errno == syscall.ENOPROTOOPT {
		e.means = errors.ErrUnsupported
	}
	return e
}

// orReaped says of an error of a call that makes a pidfd that the process was
// reaped, where that is the only thing that can have been wrong with it: EINVAL
// before Linux 6.15, ESRCH since (kernel/fork.c, pidfd_prepare).
func orReaped(e *callError) error {
	if e.errno == syscall.EINVAL || e.errno == syscall.ESRCH {
		e.means = os.ErrProcessDone
	}
	return e
}

// PidFDControlSize is the room that the pidfd of a sender takes in a buffer for
// control messages: CMSG_SPACE(sizeof(int)). A buffer for more is larger by what
// [syscall.CmsgSpace] tells: of 4*n for n descriptors, of [syscall.SizeofUcred] for
// credentials.
const PidFDControlSize = int(^uint(0)>>63)*8 + 16

// TakePeerPidFD returns the pidfd of the sender from the control messages of a
// received message, such as those of [net.UnixConn.ReadMsgUnix], and makes it
// close-on-exec. It takes the socket option of [SetPassPidFD]. Call it once each time
// a message was received, and be it with MSG_PEEK: the descriptor is there, and is the
// PidFD's from then on.
//
// The sender is the process that called sendmsg(2), or, if that has CAP_SYS_ADMIN,
// the process whose PID it has put in SCM_CREDENTIALS.
//
// Of other control messages nothing is taken. Descriptors in SCM_RIGHTS stay the
// caller's, who gets them from [syscall.ParseSocketControlMessage] and
// [syscall.ParseUnixRights] and closes them. Any peer can send some, up to 253,
// asked for or not. The kernel puts them ahead of the pidfd: if they leave no room for
// that, there is none, and MSG_CTRUNC is set in the flags of the received message.
//
// Errors: ENODATA if there is no pidfd in it, as with a message that was sent before
// the socket option was set. One that matches [os.ErrProcessDone] if
// the sender was reaped before the message was received (before Linux 6.17). EMFILE
// and the like if the kernel could make none; the message itself is not lost. EINVAL
// if control is not a list of control messages or has two pidfds: then it is not as
// the kernel wrote it, and nothing is taken. One that matches [ErrNotPidFD] and EBADF
// if the descriptor is not a pidfd; it stays the caller's. EPERM or ENOSYS if a seccomp filter
// forbids to look at it; then it is closed.
func TakePeerPidFD(control []byte) (*PidFD, error) {
	fd, err := findPidFD(control)
	if err != nil {
		return nil, err
	}
	if fd < 0 {
		// The kernel's answer to its own question (net/core/scm.c, scm_pidfd_recv).
		return nil, orReaped(failed("recvmsg", "SCM_PIDFD", syscall.Errno(-fd)))
	}
	p, err := NewPidFD(fd)
	if err != nil && !errors.Is(err, syscall.EBADF) {
		syscall.Close(fd) // the caller does not know its number
	}
	return p, err
}

// findPidFD returns the number in SCM_PIDFD.
func findPidFD(control []byte) (fd int, err error) {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return 0, refused(syscall.EINVAL, "not a list of control messages")
	}
	found := false
	for _, m := range messages {
		if m.Header.Level != syscall.SOL_SOCKET || m.Header.Type != unix.SCM_PIDFD {
			continue
		}
		if found || len(m.Data) != 4 {
			return 0, refused(syscall.EINVAL, "not one pidfd in the control messages")
		}
		found = true
		if fd = int(int32(native32(m.Data))); fd < -4095 { // neither a descriptor nor an errno
			return 0, refused(syscall.EINVAL, "no pidfd in the control messages, but "+strconv.Itoa(fd))
		}
	}
	if !found {
		return 0, refused(syscall.ENODATA, "no pidfd in the control messages")
	}
	return fd, nil
}
