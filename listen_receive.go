//go:build linux

package sysfd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// A NotifyListener receives what programs report with [Notify] or sd_notify(3): it is the
// service manager's end. Its methods can be called from several goroutines at once.
type NotifyListener struct {
	address string
	made    inode // of a path
	fd      int   // of the parking's file
	parking *parking
	noPidFD error // why senders come without a pidfd, or nil
	closed  atomic.Bool
	dropped atomic.Uint64

	buffers notifyBuffers // for whoever has the turn in the parking
}

type notifyBuffers struct{ data, control []byte }

func newNotifyBuffers() notifyBuffers {
	return notifyBuffers{
		data:    make([]byte, mostReceived),
		control: make([]byte, syscall.CmsgSpace(syscall.SizeofUcred)+syscall.CmsgSpace(mostSent*4)+PidFDControlSize),
	}
}

// mostReceived is the size of a message that systemd takes (NOTIFY_BUFFER_MAX in src/shared/notify-recv.c).
const mostReceived = 4096

// ListenNotify makes a socket for programs to report to. The address is what they get as
// $NOTIFY_SOCKET (see [Notifier.Environ]): an absolute path, or an abstract name of unix(7)
// behind an "@". A path must not exist: one that another process has left is to be removed first.
//
// Whoever may write to the path may send. It has the permissions in mode, whatever the umask
// is, and at no time more. An abstract name has none: any process in the network namespace may
// send there. So look at the sender ([Notification.IsFrom]), also because the children of a program
// inherit its $NOTIFY_SOCKET. Whoever may send can keep the queue full, and then others wait;
// /proc/sys/net/unix/max_dgram_qlen is its length.
//
// Errors: EINVAL for an address that is none, and for a mode that is not just permissions.
// ENAMETOOLONG if the address has more than 107 bytes. One that matches [errors.ErrUnsupported] for
// AF_VSOCK. EADDRINUSE if the path exists or the name is taken. ENOENT, EACCES and others
// of bind(2). EMFILE and ENFILE.
func ListenNotify(address string, mode os.FileMode) (*NotifyListener, error) {
	if err := checkNotifySocket(address); err != nil {
		return nil, err
	}
	if mode != mode.Perm() {
		return nil, refused(syscall.EINVAL, "mode "+mode.String()+" has other bits than permissions")
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), address)
	l := &NotifyListener{address: address, fd: fd, buffers: newNotifyBuffers()}
	if err = inPoller(file); err == nil {
		if l.parking, err = newParking(file); err == nil {
			err = l.bind(mode)
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return l, nil
}

// bind gives the socket its address when all else is set: no message comes without credentials.
func (l *NotifyListener) bind(mode os.FileMode) error {
	if err := syscall.SetsockoptInt(l.fd, syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1); err != nil {
		return optionFailed("setsockopt", "SO_PASSCRED", err.(syscall.Errno))
	}
	err := SetPassPidFD(l.parking.file, true)
	if errors.Is(err, errors.ErrUnsupported) {
		l.noPidFD = err // before Linux 6.5
	} else if err != nil {
		return err
	}
	isPath := l.address[0] == '/'
	if isPath {
		// The path gets these permissions less the umask (net/unix/af_unix.c, unix_bind_bsd).
		if err := syscall.Fchmod(l.fd, uint32(mode)); err != nil {
			return os.NewSyscallError("fchmod", err)
		}
	}
	if err := syscall.Bind(l.fd, &syscall.SockaddrUnix{Name: l.address}); err != nil {
		return failed("bind", l.address, err.(syscall.Errno))
	}
	if isPath {
		if errno := l.permit(mode); errno != 0 {
			os.Remove(l.address)
			return failed("chmod", l.address, errno)
		}
	}
	return nil
}

// permit gives the socket the permissions that the umask has taken. It does not follow a link that
// someone has put in place of the socket: that would change another file.
func (l *NotifyListener) permit(mode os.FileMode) (errno syscall.Errno) {
	fd, err := syscall.Open(l.address, O_PATH|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return errnoOf(err)
	}
	defer syscall.Close(fd)
	l.made, errno = statFD(fd)
	switch {
	case errno != 0:
		return errno
	case l.made.kind() != syscall.S_IFSOCK:
		return syscall.ENOTSOCK
	case l.made.mode&0o777 == uint32(mode):
		return 0
	}
	errno = errnoOf(syscall.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(mode)))
	if errno == syscall.ENOENT { // no /proc
		errno = errnoOf(syscall.Chmod(l.address, uint32(mode)))
	}
	return errno
}

// remove removes the path if it still is that of this socket.
func (l *NotifyListener) remove() {
	if now, errno := stat(l.address); errno == 0 && now.kind() == syscall.S_IFSOCK && now.dev == l.made.dev && now.ino == l.made.ino {
		os.Remove(l.address)
	}
}

// Address returns the address that l was made with.
func (l *NotifyListener) Address() string { return l.address }

// Dropped tells how many messages Next has passed over.
func (l *NotifyListener) Dropped() uint64 { return l.dropped.Load() }

// Close closes the socket, and removes its path if that is still there. A Next that waits returns
// [os.ErrClosed]. What is in the queue is lost, and whoever waits for a barrier in it goes on.
//
// Errors: [os.ErrClosed] if it was closed before.
func (l *NotifyListener) Close() error {
	if l.closed.Swap(true) {
		return os.ErrClosed
	}
	if l.address[0] == '/' {
		l.remove()
	}
	return l.parking.file.Close()
}

// A Notification is a message that [NotifyListener.Next] has received. Its methods are for one
// goroutine at a time, and it must not be copied. The descriptors of one that is forgotten are closed
// when the garbage collector finds it.
type Notification struct {
	// Assignments are its lines, such as [NotifyReady], in the order in which they came. There is at
	// least one; what is no assignment is left out. A value can be any text of
	// the sender's, but has no newline, no carriage return and no NUL. As systemd does, Next takes a
	// backslash away and the character behind it as it is, in names too, but makes a line break
	// there a space. [Notify] sends them on so that they are read as the same.
	Assignments []string

	// Sender is the process that has sent the message, or that its Credentials name, even if that
	// has ended since (SCM_PIDFD, Linux 6.5; of one that was reaped before the message was
	// received Linux 6.17). If it is nil, SenderErr tells why, as for [TakePeerPidFD].
	Sender    *PidFD
	SenderErr error

	// Credentials are the PID and the real user and group IDs of the sender when it sent the
	// message (SCM_CREDENTIALS of unix(7)). The kernel has checked them: a sender may name IDs
	// that it could take on, and with CAP_SYS_ADMIN another process, as systemd-notify does with its
	// parent. The PID is that of the caller's pid namespace, 0 for a process out of sight. It can be that
	// of another process by now.
	Credentials syscall.Ucred

	fds   []int // until Files
	files []*os.File
}

// Next returns the next message, in the order in which they were sent. It holds no thread while it
// waits. A ctx that is done already does not keep a message back that is there: so Next empties the
// queue. The caller closes what it returns.
//
//	for {
//		m, err := l.Next(ctx)
//		if err != nil {
//			return err
//		}
//		if from, err := m.IsFrom(main); err == nil && from && m.Has(sysfd.NotifyReady) {
//			…
//		}
//		m.Close()
//	}
//
// What systemd would not take is passed over, and its descriptors are closed: a message of more
// than 4096 bytes, one with a NUL other than at its end or with a lone backslash there, one without an
// assignment, and one whose descriptors did not all come because this process has too many open or
// a security module (LSM) keeps it from having them. [NotifyListener.Dropped]
// counts them.
//
// Closing a descriptor on a file system in user space (FUSE) can wait as long as its server likes. So can Next then,
// when it closes those of a message that it passes over, and ctx does not end that; nor does Close of the
// listener. Where a sender that is not trusted may mount such file systems, call Next in a goroutine that
// nothing else waits for. SO_LINGER of a TCP socket keeps nobody waiting, unless [Notification.Files] was called: it is turned
// off first, for all who share the socket.
//
// A message of [NotifyBarrier] is one like any other, see [Notification.IsBarrier]: its sender
// waits until it is closed.
//
// Errors: that of ctx ([context.Cause]), with which no message is lost. [os.ErrClosed] when l is
// closed. Those of recvmsg(2).
func (l *NotifyListener) Next(ctx context.Context) (m *Notification, err error) {
	late, buffers := ctx.Err() != nil, l.buffers
	next := func() (done bool) {
		for dropped := 0; ; dropped++ {
			if m, err = l.receive(buffers); m != nil || err != nil {
				return err != syscall.EAGAIN
			}
			l.dropped.Add(1)
			// Whoever sends such messages can do so without end. A queue is not as long as that.
			if l.closed.Load() || ctx.Err() != nil && (!late || dropped > 1000) {
				err = syscall.EAGAIN
				return true
			}
		}
	}
	if late {
		select {
		case l.parking.turn <- struct{}{}:
			defer func() { <-l.parking.turn }()
		default: // someone waits, or is about to take one of the messages
			buffers = newNotifyBuffers()
		}
		l.parking.conn.Control(func(uintptr) { next() })
	} else if errWait := l.parking.wait(ctx, nil, next); m == nil && errWait != nil {
		return nil, errWait
	}
	switch {
	case m != nil:
		return m, nil
	case l.closed.Load():
		return nil, os.ErrClosed
	case err == nil || err == syscall.EAGAIN:
		return nil, context.Cause(ctx)
	}
	return nil, err
}

// receive returns a message, or an error, or neither if it has dropped a message.
func (l *NotifyListener) receive(b notifyBuffers) (*Notification, error) {
	var n, nControl, flags int
	errno := uninterrupted(func() syscall.Errno {
		var err error
		n, nControl, flags, _, err = syscall.Recvmsg(l.fd, b.data, b.control, syscall.MSG_DONTWAIT|syscall.MSG_CMSG_CLOEXEC)
		return errnoOf(err)
	})
	switch errno {
	case 0:
	case syscall.EAGAIN:
		return nil, syscall.EAGAIN
	default:
		return nil, failed("recvmsg", "from "+l.address, errno)
	}
	control := b.control[:nControl]
	m := &Notification{}
	fds, known := m.readControl(control)
	m.fds = fds
	m.Sender, m.SenderErr = TakePeerPidFD(control)
	if l.noPidFD != nil && errors.Is(m.SenderErr, syscall.ENODATA) {
		m.SenderErr = l.noPidFD
	}
	if known && flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) == 0 {
		m.Assignments = parseNotification(b.data[:n])
	}
	if m.Assignments == nil {
		m.Close()
		return nil, nil
	}
	if len(fds) > 0 {
		runtime.SetFinalizer(m, (*Notification).closeFDs) // not the Sender, which may be all that is kept
	}
	return m, nil
}

// readControl reads the credentials, and returns the descriptors.
func (m *Notification) readControl(control []byte) (fds []int, known bool) {
	messages, _ := syscall.ParseSocketControlMessage(control)
	for i := range messages {
		if messages[i].Header.Level != syscall.SOL_SOCKET {
			continue
		}
		switch messages[i].Header.Type {
		case syscall.SCM_RIGHTS:
			got, _ := syscall.ParseUnixRights(&messages[i])
			fds = append(fds, got...)
		case syscall.SCM_CREDENTIALS:
			if c, err := syscall.ParseUnixCredentials(&messages[i]); err == nil {
				m.Credentials, known = *c, true
			}
		}
	}
	return fds, known
}

// parseNotification returns the assignments in a message, nil for one that systemd would not take. It
// reads them as systemd does, so that a proxy finds what systemd will: a carriage return ends an
// assignment, and a backslash is left out and the character behind it taken as it is
// (extract_first_word of src/basic/extract-word.c, without flags).
func parseNotification(data []byte) (assignments []string) {
	data = bytes.TrimSuffix(data, []byte{0})
	if bytes.IndexByte(data, 0) >= 0 {
		return nil
	}
	line := make([]byte, 0, len(data))
	end := func() {
		if bytes.IndexByte(line, '=') > 0 {
			assignments = append(assignments, string(line))
		}
		line = line[:0]
	}
	escaped := false
	for _, c := range data {
		switch newline := isNewline(rune(c)); {
		case escaped && newline:
			line = append(line, ' ') // systemd has a newline in the value here
			escaped = false
		case !escaped && newline:
			end()
		case !escaped && c == '\\':
			escaped = true
		default:
			line = append(line, c)
			escaped = false
		}
	}
	if escaped { // which is an error for systemd
		return nil
	}
	end()
	return assignments
}

// Value returns the value of the first assignment to a name, which is the one that systemd takes for
// STATUS=, MAINPID= and the like. A proxy that holds something back has to look at all Assignments: systemd
// heeds READY=1 and STOPPING=1 wherever they are.
func (m *Notification) Value(name string) (value string, ok bool) {
	for _, a := range m.Assignments {
		if to, value, _ := strings.Cut(a, "="); to == name {
			return value, true
		}
	}
	return "", false
}

// Has reports whether an assignment, such as [NotifyReady], is the first one to its name.
func (m *Notification) Has(assignment string) bool {
	name, value, ok := strings.Cut(assignment, "=")
	got, found := m.Value(name)
	return ok && found && got == value
}

// IsBarrier reports whether m is what [NotifyBarrier] sends: BARRIER=1 and nothing else, with one
// descriptor. Close it when all that came before has been dealt with, and its sender goes on. A
// proxy sends it on first: the sender goes on when the last who has got the descriptor closes it.
func (m *Notification) IsBarrier() bool {
	return len(m.Assignments) == 1 && m.Assignments[0] == barrierAssignment && m.NumFiles() == 1
}

// NumFiles tells how many descriptors came with m.
func (m *Notification) NumFiles() int { return len(m.fds) + len(m.files) }

// Files returns the descriptors that came with m as files, which Close closes. They are
// close-on-exec. Their name is that in FDNAME=, or "stored" if there is none or it is no [ValidFDName].
//
// Look at the sender first. A descriptor can be anything of its choice, and an [os.File] in
// non-blocking mode is in the poller of the Go runtime: a file system in user space (FUSE) that does
// not answer there holds up the program.
func (m *Notification) Files() []*os.File {
	name := "stored"
	if given, ok := m.Value("FDNAME"); ok && given != "" && ValidFDName(given) {
		name = given
	}
	for _, fd := range m.fds {
		m.files = append(m.files, os.NewFile(uintptr(fd), name))
	}
	m.fds = nil
	return m.files
}

// TakeFiles is Files for a caller who is to close them. Then m has none.
func (m *Notification) TakeFiles() []*os.File {
	files := m.Files()
	m.files = nil
	return files
}

// IsFrom reports whether p is the process that has sent m: for NotifyAccess=main of systemd, the main
// process. For NotifyAccess=all, compare the CgroupID that [PidFD.Info] of the Sender tells.
//
// With a Sender the answer is certain, whatever has ended since. Without one, or where there are no
// pidfd IDs (before Linux 6.9, for 32-bit programs before 6.14), the PIDs are compared. As long as
// p is not reaped its PID is that of no other process; but it may have been, if the message
// is older than p. gVisor has no pidfd of the sender, and in its Credentials of 2022 the ID of the
// thread that has sent the message: there IsFrom can report false of the sender itself.
//
// Errors: [os.ErrClosed]. Those of [PidFD.PID] where the PIDs are compared, among them one that
// matches [os.ErrProcessDone] if p was reaped: then it is not known.
func (m *Notification) IsFrom(p *PidFD) (bool, error) {
	if m.Sender != nil {
		sender, err := m.Sender.ID()
		if err == nil {
			id, err := p.ID()
			return err == nil && id == sender, err
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return false, err
		}
	}
	pid, err := p.PID()
	if err != nil {
		return false, err
	}
	sender, err := int(m.Credentials.Pid), m.SenderErr
	if m.Sender != nil {
		sender, err = m.Sender.PID()
	}
	if errors.Is(err, os.ErrProcessDone) { // and p was not reaped
		return false, nil
	}
	if m.Sender != nil && err != nil {
		return false, err
	}
	return sender == pid, nil
}

// String returns the assignments for messages, each in quotes, and whom they are from.
func (m *Notification) String() string {
	s := "PID " + strconv.Itoa(int(m.Credentials.Pid)) + ":"
	for _, a := range m.Assignments {
		s += " " + strconv.Quote(a)
	}
	return s
}

// Close closes the files and the Sender; a Sender that is to stay open is set to nil before. It
// returns nil. Closing a file can wait, see [NotifyListener.Next].
func (m *Notification) Close() error {
	m.closeFDs()
	for _, f := range m.files {
		f.Close()
	}
	m.files = nil
	if m.Sender != nil {
		m.Sender.Close()
	}
	return nil
}

// closeFDs closes the descriptors that are no files yet.
func (m *Notification) closeFDs() {
	runtime.SetFinalizer(m, nil)
	for _, fd := range m.fds {
		// A TCP socket that nobody here has looked at must not keep this waiting for its peer. Of what is
		// no socket it is an error.
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{})
		syscall.Close(fd)
	}
	m.fds = nil
}
