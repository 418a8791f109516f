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
// That is the process that called connect(2), or for the side that did, the one that called
// listen(2), or for both sides the one that called socketpair(2). Who has got the socket since does
// not matter. A listening socket gives the process that called listen itself.
//
// The pidfd refers to that process for good, even after the process has executed another program,
// taken other user and group IDs or been moved to another cgroup. Its present rights, which
// [PidFDInfo.Credentials] returns, are therefore not those of whoever opened the connection: any
// user can connect, leave the socket to a child and execute a setuid program, and from then on the
// process is root's. Decide by [PeerCredentials].
//
// Errors: one that matches [errors.ErrUnsupported] where the kernel lacks the option. ENODATA if
// the socket is not connected, or not a Unix socket. EINVAL or ESRCH, which matches
// [os.ErrProcessDone], if the process was reaped; since Linux 6.16 there is a pidfd of it
// nevertheless. Those of conn.
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
// of unix(7), which any kernel has that Go runs on (in a program for 386 or s390x Linux 4.3).
//
// Decide by these IDs what a peer may do. They stay as they are when the process executes a setuid
// program, changes its IDs or ends. They are those of whoever opened the connection, not of whoever
// uses it now: a process vouches for those to whom it hands its socket.
//
// The IDs are those of the caller's user namespace; one that has none there reads as 65534
// (/proc/sys/kernel/overflowuid), which is no user to give rights to. The PID is that of the
// caller's pid namespace, 0 if the process is out of sight. It may be that of another process by
// now: for the process itself there is PeerPidFD. A Bluetooth socket records the process on this
// machine that made it, which says nothing about the other end.
//
// Errors: ENODATA if the socket has no peer: it is not connected, or a datagram socket that is not
// of a socketpair, or not a Unix socket. ENOTSOCK if it is none. One that matches
// [errors.ErrUnsupported] in a sandbox that answers with the IDs of the caller, whoever the peer
// is: gVisor of 2022. EMFILE: the first call asks for that with a socket of its own. Those of conn.
func PeerCredentials(conn syscall.Conn) (syscall.Ucred, error) {
	if err := peersAreRecorded(); err != nil {
		return syscall.Ucred{}, err
	}
	var peer struct { // what the function below writes to is one allocation
		syscall.Ucred
		errno syscall.Errno
	}
	peer.Uid = nobodyAtAll // and not root, should a seccomp filter have the call do nothing
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

// What peersAreRecorded has found out.
var peersRecorded atomic.Int32

const yes, no = 1, 2

// peersAreRecorded returns an error where SO_PEERCRED is about the caller, whoever the peer is, as
// in gVisor of 2022: it then has an answer for a socket that has no peer. It asks once.
func peersAreRecorded() error {
	if peersRecorded.Load() == 0 {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if outOfResources(err) {
			return os.NewSyscallError("socket", err)
		}
		state := int32(yes)
		if err == nil { // or else a filter lets this process have no sockets but those it was passed
			defer syscall.Close(fd)
			c := syscall.Ucred{Uid: nobodyAtAll}
			if errno := peerCred(fd, &c); errno == 0 && c.Uid != nobodyAtAll {
				state = no
			}
		}
		peersRecorded.Store(state)
	}
	if peersRecorded.Load() == no {
		return refused(syscall.EOPNOTSUPP, "SO_PEERCRED is not about the peer of a socket here").as(errors.ErrUnsupported)
	}
	return nil
}

// nobodyAtAll is the ID that no user and no group can have, (uid_t)-1.
const nobodyAtAll = 1<<32 - 1

func noPeer() error {
	return refused(syscall.ENODATA, "the socket has no peer of which the kernel has recorded anything")
}

// PeerGroups returns the supplementary group IDs of the process at the other end of a connected
// Unix socket, as the kernel recorded them together with what [PeerCredentials] returns. The
// effective group ID need not be among them. It is the socket option SO_PEERGROUPS, Linux 4.13.
//
// Errors: those of PeerCredentials, and one that matches [errors.ErrUnsupported] where the kernel
// lacks the option.
func PeerGroups(conn syscall.Conn) ([]uint32, error) {
	groups, n := make([]uint32, 64), 0
	for {
		var errno syscall.Errno
		groups[0] = nobodyAtAll // as above
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

// SetPassPidFD sets whether a pidfd of the sender comes with each message that is received from a
// Unix socket; see [TakePeerPidFD]. It is the socket option SO_PASSPIDFD, Linux 6.5.
//
// Errors: one that matches [errors.ErrUnsupported] where the kernel lacks the option, or if the
// socket is of a family that has no use for it (some take it before Linux 6.16, and MPTCP does
// after). Those of conn.
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

// orReaped says of an error of a call that makes a pidfd that the process was reaped, where that is
// the only thing that can have been wrong with it: EINVAL before Linux 6.15, ESRCH since
// (kernel/fork.c, pidfd_prepare).
func orReaped(e *callError) error {
	if e.errno == syscall.EINVAL || e.errno == syscall.ESRCH {
		e.means = os.ErrProcessDone
	}
	return e
}

// PidFDControlSize is the room that the pidfd of a sender takes in a buffer for control messages:
// CMSG_SPACE(sizeof(int)). A buffer for more is larger by what [syscall.CmsgSpace] tells: of 4*n
// for n descriptors, of [syscall.SizeofUcred] for credentials.
const PidFDControlSize = int(^uint(0)>>63)*8 + 16

// TakePeerPidFD returns the pidfd of the sender from the control messages of a received message,
// such as those of [net.UnixConn.ReadMsgUnix], and makes it close-on-exec. It takes the socket
// option of [SetPassPidFD]. Call it once each time a message was received, and be it with MSG_PEEK:
// the descriptor is there, and is the PidFD's from then on.
//
// The sender is the process that called sendmsg(2), or, if that has CAP_SYS_ADMIN, the process
// whose PID it has put in SCM_CREDENTIALS. What rights it had then is not to be learnt from the
// pidfd, for the reasons that [PeerPidFD] gives, but from SCM_CREDENTIALS, which the kernel adds to
// each message with the socket option SO_PASSCRED: the real user and group IDs of the sender,
// unless it names others that it may use.
//
// Of other control messages nothing is taken. Descriptors in SCM_RIGHTS stay the caller's, who gets
// them from [syscall.ParseSocketControlMessage] and [syscall.ParseUnixRights] and closes them. Any
// peer can send some, up to 253, asked for or not. The kernel puts them ahead of the pidfd: if they
// leave no room for that, there is none, and MSG_CTRUNC is set in the flags of the received
// message.
//
// Errors: ENODATA if there is no pidfd in it, as with a message that was sent before the socket
// option was set. One that matches [os.ErrProcessDone] if the sender was reaped before the message
// was received (before Linux 6.17). EMFILE and the like if the kernel could make none; the message
// itself is not lost. EINVAL if control is not a list of control messages or has two pidfds: then
// it is not as the kernel wrote it, and nothing is taken. One that matches [ErrNotPidFD] and EBADF
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
