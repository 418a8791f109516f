//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerPidFD returns a pidfd of the process at the other end of a connected Unix socket, such as a
// *net.UnixConn. It is the socket option SO_PEERPIDFD of unix(7), Linux 6.5.
//
// For an accepted connection that is the process that called connect(2), and for the connecting
// side the process that called listen(2). For both ends of a socketpair(2) it is the process that
// called socketpair. It does not matter which process has the socket now. For a listening socket it
// is the process that called listen.
//
// The pidfd refers to that process permanently, even after the process has executed another
// program, changed its user and group IDs or been moved to another cgroup. Its present rights,
// which [PidFDInfo.Credentials] returns, are therefore not those of whoever opened the connection:
// any user can connect, leave the socket to a child and execute a setuid program, and from then on
// the process is root's. Decide by [PeerCredentials].
//
// Errors:
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the option;
//   - ENODATA if the socket is not connected, or not a Unix socket;
//   - EINVAL or ESRCH, which matches [os.ErrProcessDone], if the process was reaped. Since Linux
//     6.16 PeerPidFD returns a pidfd even then;
//   - [os.ErrInvalid] if conn is nil, and those of conn.
func PeerPidFD(conn syscall.Conn) (*PidFD, error) {
	var fd int
	var errno syscall.Errno
	if err := control(conn, func(socket uintptr) { fd, errno = peerPidFD(int(socket)) }); err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, orReaped(optionFailed("getsockopt", "SO_PEERPIDFD", errno))
	}
	return newPidFD(fd, "peer", unnumbered), nil
}

// PeerCredentials returns the effective user ID, the effective group ID and the PID of the process
// at the other end of a connected Unix socket, as the kernel recorded them at connect(2), listen(2)
// or socketpair(2); see [PeerPidFD] for which process that is. It is the socket option SO_PEERCRED
// of unix(7), which every kernel that Go supports has (in a program for 386 or s390x since Linux
// 4.3).
//
// Decide by these IDs what a peer may do. They do not change when the process executes a setuid
// program, changes its IDs or ends. They are those of whoever opened the connection, not of whoever
// uses it now: a process vouches for those to whom it passes its socket.
//
// The IDs are numbered as in the caller's user namespace. An ID without a number there is returned
// as 65534 (/proc/sys/kernel/overflowuid): give no rights to that user. The PID is that of the
// caller's pid namespace, 0 if the process is out of sight. Another process may have the PID by
// now: to refer to the process itself use PeerPidFD. A Bluetooth socket records the process on this
// machine that made it, which says nothing about the other end.
//
// Errors:
//   - ENODATA if the socket has no peer: it is not connected, or a datagram socket that is not from
//     socketpair, or not a Unix socket;
//   - ENOTSOCK if conn is not a socket;
//   - an error that matches [errors.ErrUnsupported] in a sandbox that returns the IDs of the
//     caller, whoever the peer is: gVisor of 2022;
//   - EMFILE, from the first call, which makes a socket of its own to detect that;
//   - [os.ErrInvalid] if conn is nil, and those of conn.
func PeerCredentials(conn syscall.Conn) (syscall.Ucred, error) {
	if err := peersAreRecorded(); err != nil {
		return syscall.Ucred{}, err
	}
	var peer struct { // one allocation for what the function below writes
		syscall.Ucred
		errno syscall.Errno
	}
	peer.Uid = nobodyAtAll // and not root, in case a seccomp filter makes the call do nothing
	if err := control(conn, func(fd uintptr) { peer.errno = peerCred(int(fd), &peer.Ucred) }); err != nil {
		return syscall.Ucred{}, err
	}
	if peer.errno != 0 {
		return syscall.Ucred{}, optionFailed("getsockopt", "SO_PEERCRED", peer.errno)
	}
	if peer.Uid == nobodyAtAll {
		return syscall.Ucred{}, noPeer()
	}
	return peer.Ucred, nil
}

// peersRecorded is what peersAreRecorded has found out.
var peersRecorded atomic.Int32

const yes, no = 1, 2

// peersAreRecorded returns an error where SO_PEERCRED is about the caller, whoever the peer is, as
// in gVisor of 2022. There the option has an answer for a socket without a peer. It asks once.
func peersAreRecorded() error {
	if peersRecorded.Load() == 0 {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if outOfResources(err) {
			return os.NewSyscallError("socket", err)
		}
		state := int32(yes)
		if err == nil { // otherwise a filter forbids sockets other than those that were passed
			defer syscall.Close(fd)
			c := syscall.Ucred{Uid: nobodyAtAll}
			if errno := peerCred(fd, &c); errno == 0 && c.Uid != nobodyAtAll {
				state = no
			}
		}
		peersRecorded.Store(state)
	}
	if peersRecorded.Load() == no {
		return refused(syscall.EOPNOTSUPP, "SO_PEERCRED does not describe the peer of a socket here").as(errors.ErrUnsupported)
	}
	return nil
}

// nobodyAtAll is the ID that no user and no group can have, (uid_t)-1.
const nobodyAtAll = 1<<32 - 1

func noPeer() error {
	return refused(syscall.ENODATA, "the kernel recorded no peer for the socket")
}

// PeerGroups returns the supplementary group IDs of the process at the other end of a connected
// Unix socket, as the kernel recorded them together with the IDs of [PeerCredentials]. They need
// not include the effective group ID. It is the socket option SO_PEERGROUPS, Linux 4.13.
//
// Errors: those of PeerCredentials, and one that matches [errors.ErrUnsupported] if the kernel
// lacks the option.
func PeerGroups(conn syscall.Conn) ([]uint32, error) {
	groups, n := make([]uint32, 64), 0
	for {
		var errno syscall.Errno
		groups[0] = nobodyAtAll // as in PeerCredentials
		if err := control(conn, func(fd uintptr) { n, errno = peerGroups(int(fd), groups) }); err != nil {
			return nil, err
		}
		switch {
		case errno == syscall.ERANGE && n > len(groups): // there are 65536 at most
			groups = make([]uint32, n)
		case errno != 0:
			return nil, optionFailed("getsockopt", "SO_PEERGROUPS", errno)
		case n > len(groups) || n > 0 && groups[0] == nobodyAtAll:
			return nil, noPeer()
		default:
			return groups[:n:n], nil
		}
	}
}

// SetPassPidFD sets whether each message that is received from a Unix socket comes with a pidfd of
// the sender; see [TakePeerPidFD]. It is the socket option SO_PASSPIDFD, Linux 6.5.
//
// Errors: those of conn, and one that matches [errors.ErrUnsupported] if the kernel lacks the
// option, or if the socket is of a family that has no use for it. Before Linux 6.16 some of these
// families accept it, and later MPTCP does.
func SetPassPidFD(conn syscall.Conn, on bool) error {
	value := 0
	if on {
		value = 1
	}
	var errCall error
	if err := control(conn, func(fd uintptr) {
		errCall = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_PASSPIDFD, value)
	}); err != nil {
		return err
	}
	if errCall != nil {
		return optionFailed("setsockopt", "SO_PASSPIDFD", errCall.(syscall.Errno))
	}
	return nil
}

// control calls f with the descriptor of conn.
func control(conn syscall.Conn, f func(fd uintptr)) error {
	if conn == nil {
		return os.ErrInvalid
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(f)
}

func optionFailed(call, option string, errno syscall.Errno) *callError {
	e := failed(call, option, errno)
	if errno == syscall.ENOPROTOOPT {
		e.means = errors.ErrUnsupported
	}
	return e
}

// orReaped reports of an error of a call that makes a pidfd that the process was reaped, if nothing
// else can have been wrong: EINVAL before Linux 6.15, ESRCH since (kernel/fork.c, pidfd_prepare).
func orReaped(e *callError) error {
	if e.errno == syscall.EINVAL || e.errno == syscall.ESRCH {
		e.means = os.ErrProcessDone
	}
	return e
}

// PidFDControlSize is the size that the pidfd of a sender needs in a buffer for control messages:
// CMSG_SPACE(sizeof(int)). For more control messages add [syscall.CmsgSpace] of 4*n for n
// descriptors, and of [syscall.SizeofUcred] for credentials.
const PidFDControlSize = int(^uint(0)>>63)*8 + 16

// TakePeerPidFD returns the pidfd of the sender from the control messages of a received message,
// such as those of [net.UnixConn.ReadMsgUnix], and makes it close-on-exec. It requires the socket
// option of [SetPassPidFD]. Call it once after each receive, even with MSG_PEEK: each receive makes
// a descriptor, which the PidFD then owns.
//
// The sender is the process that called sendmsg(2) or, if that has CAP_SYS_ADMIN, the process whose
// PID it put into SCM_CREDENTIALS. The pidfd does not show which rights the sender had then, for
// the reasons that [PeerPidFD] gives. SCM_CREDENTIALS shows them, which the kernel adds to each
// message with the socket option SO_PASSCRED: the real user and group IDs of the sender, unless the
// sender names others that it may use.
//
// TakePeerPidFD takes nothing from other control messages. Descriptors in SCM_RIGHTS still belong
// to the caller, who gets them from [syscall.ParseSocketControlMessage] and
// [syscall.ParseUnixRights] and must close them. Any peer can send some, up to 253, wanted or not.
// The kernel puts them before the pidfd: if they leave no room for the pidfd there is none, and
// MSG_CTRUNC is set in the flags of the received message.
//
// Errors:
//   - ENODATA if control has no pidfd, as with a message that was sent before the socket option was
//     set;
//   - an error that matches [os.ErrProcessDone] if the sender was reaped before the message was
//     received (before Linux 6.17);
//   - EMFILE and the like if the kernel could not make a pidfd; the message itself is not lost;
//   - EINVAL if control is not a list of control messages or has two pidfds: the kernel has not
//     written it, and nothing is taken;
//   - an error that matches [ErrNotPidFD] and EBADF if the descriptor is not a pidfd; it still
//     belongs to the caller;
//   - EPERM or ENOSYS if a seccomp filter forbids the calls that verify the descriptor, which is
//     then closed.
func TakePeerPidFD(control []byte) (*PidFD, error) {
	fd, err := findPidFD(control)
	if err != nil {
		return nil, err
	}
	if fd < 0 {
		// The kernel's own error in place of a descriptor (net/core/scm.c, scm_pidfd_recv).
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
		return 0, refused(syscall.EINVAL, "the bytes are not a list of control messages")
	}
	found := false
	for _, m := range messages {
		if m.Header.Level != syscall.SOL_SOCKET || m.Header.Type != unix.SCM_PIDFD {
			continue
		}
		if found || len(m.Data) != 4 {
			return 0, refused(syscall.EINVAL, "the control messages must contain one pidfd, of 4 bytes")
		}
		found = true
		if fd = int(int32(native32(m.Data))); fd < -4095 { // neither a descriptor nor an errno
			return 0, refused(syscall.EINVAL, "the control messages contain no pidfd, but the number "+strconv.Itoa(fd))
		}
	}
	if !found {
		return 0, refused(syscall.ENODATA, "the control messages contain no pidfd")
	}
	return fd, nil
}
