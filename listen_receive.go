//go:build linux

package sysfd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
)

// A NotifyListener receives what programs report with [Notify] or sd_notify(3): it is the service
// manager's end of the socket. Its methods can be called from several goroutines at once.
type NotifyListener struct {
	address string
	made    inode // of a path
	fd      int   // of the parking's file
	parking *parking
	noPidFD error // why messages come without a pidfd of the sender, or nil
	closed  atomic.Bool
	dropped atomic.Uint64

	buffers notifyBuffers // belongs to the goroutine that has the turn in the parking
}

type notifyBuffers struct{ data, control []byte }

func newNotifyBuffers() notifyBuffers {
	return notifyBuffers{
		data:    make([]byte, mostReceived),
		control: make([]byte, syscall.CmsgSpace(syscall.SizeofUcred)+syscall.CmsgSpace(mostSent*4)+PidFDControlSize),
	}
}

// mostReceived is the size of the largest message that systemd accepts (NOTIFY_BUFFER_MAX in
// src/shared/notify-recv.c).
const mostReceived = 4096

// ListenNotify makes a socket for programs to report to. Programs get its address as $NOTIFY_SOCKET
// (see [Notifier.Environ]): an absolute path, or "@" and an abstract name (unix(7)). A path must
// not exist: first remove one that an earlier process has left.
//
// Any process that may write to the path can send messages. The path has the permissions in mode,
// whatever the umask is, and never more. An abstract name has no permissions: any process in the
// network namespace can send. Children of a program also inherit its $NOTIFY_SOCKET. So check the
// sender of each message with [Notification.IsFrom]. A process that can send can also keep the
// queue full, so that others wait; its length is /proc/sys/net/unix/max_dgram_qlen.
//
// Errors:
//   - EINVAL if address is neither an absolute path nor an abstract name, or if mode has other bits
//     than permissions;
//   - ENAMETOOLONG if address has more than 107 bytes;
//   - an error that matches [errors.ErrUnsupported] for an address of AF_VSOCK;
//   - EADDRINUSE if the path exists or the name is taken;
//   - ENOENT, EACCES and others of bind(2);
//   - EMFILE and ENFILE.
func ListenNotify(address string, mode os.FileMode) (*NotifyListener, error) {
	if err := checkNotifySocket("address ", address); err != nil {
		return nil, err
	}
	if mode != mode.Perm() {
		return nil, refused(syscall.EINVAL, "mode "+mode.String()+" has bits other than permissions")
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

// bind gives the socket its address, after all else is set: so no message comes without
// credentials.
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
		// The path gets these permissions less the umask (net/unix/af_unix.c,
		// unix_bind_bsd).
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

// permit gives the socket the permissions that the umask has taken away. It does not follow a link
// that somebody has put in place of the socket: that would change another file.
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

// Dropped returns how many messages [NotifyListener.Next] has dropped.
func (l *NotifyListener) Dropped() uint64 { return l.dropped.Load() }

// Close closes the socket and removes its path, if that is still its own. A Next in progress
// returns [os.ErrClosed]. Messages in the queue are lost, and programs that wait for a barrier
// among them continue.
//
// Errors: [os.ErrClosed] if l was closed before.
func (l *NotifyListener) Close() error {
	if l.closed.Swap(true) {
		return os.ErrClosed
	}
	if l.address[0] == '/' {
		l.remove()
	}
	return l.parking.file.Close()
}

// A Notification is a message that [NotifyListener.Next] has received. It must not be copied, and
// only one goroutine at a time may call its methods. If a Notification is forgotten, the garbage
// collector closes its descriptors.
type Notification struct {
	// Assignments are the lines of the message, such as [NotifyReady], in order. There is at
	// least one; lines that are not assignments are left out. A value can be any text that the
	// sender chooses, but contains no newline, carriage return or NUL. As systemd does, Next
	// removes a backslash and keeps the character after it, also in names, but it turns an
	// escaped line break into a space. [Notify] sends Assignments on so that they mean the
	// same.
	Assignments []string

	// Sender is the process that sent the message, or that its Credentials name, even if it has
	// ended since (SCM_PIDFD, Linux 6.5; Linux 6.17 if it was reaped before the message was
	// received). If Sender is nil, SenderErr is the reason, as for [TakePeerPidFD].
	Sender    *PidFD
	SenderErr error

	// Credentials are the PID and the real user and group IDs of the sender when it sent the
	// message (SCM_CREDENTIALS of unix(7)). The kernel has checked them: a sender may name IDs
	// that it could change to and, with CAP_SYS_ADMIN, another process, as systemd-notify does
	// with its parent. The PID is that of the caller's pid namespace, and 0 if the process is
	// out of sight. Another process may have the PID by now.
	Credentials syscall.Ucred

	fds   []int // until Files
	files []*os.File
}

// Next returns the next message, in the order in which they were sent. It parks the goroutine while
// it waits, and holds no thread. If ctx is already done, Next still returns a message that has
// arrived, so that a caller can empty the queue. The caller must close the message.
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
// Next drops messages that systemd would not accept, and closes their descriptors: a message that
// is longer than 4096 bytes, that has a NUL before its end, that ends with a lone backslash, or
// that has no assignment; and a message that lost descriptors because this process has too many
// open, or because a security module (LSM) refuses them. [NotifyListener.Dropped] counts them.
//
// Closing a descriptor on a file system in user space (FUSE) can take as long as its server likes.
// Next can therefore block when it closes the descriptors of a dropped message, and neither ctx nor
// Close of the listener ends that. If untrusted senders may mount such file systems, call Next in a
// goroutine that nothing else waits for. SO_LINGER of a TCP socket does not block it, unless
// [Notification.Files] was called: Next turns SO_LINGER off first, for all users of the socket.
//
// Next returns a message of [NotifyBarrier] like any other (see [Notification.IsBarrier]): its
// sender waits until the message is closed.
//
// Errors:
//   - that of ctx ([context.Cause]); no message is lost;
//   - [os.ErrClosed] once l is closed;
//   - those of recvmsg(2).
func (l *NotifyListener) Next(ctx context.Context) (m *Notification, err error) {
	late, buffers := ctx.Err() != nil, l.buffers
	next := func() (done bool) {
		for dropped := 0; ; dropped++ {
			if m, err = l.receive(buffers); m != nil || err != nil {
				return err != syscall.EAGAIN
			}
			l.dropped.Add(1)
			// A sender can send such messages without end. No queue is longer than
			// 1000.
			if l.closed.Load() || ctx.Err() != nil && (!late || dropped > 1000) {
				err = syscall.EAGAIN
				return true
			}
		}
	}
	if late {
		if l.parking.tryTurn() {
			defer l.parking.endTurn()
		} else { // another goroutine waits, or is about to take one of the messages
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

// parseNotification returns the assignments in a message, or nil if systemd would not accept it. It
// reads them as systemd does, so that a proxy finds what systemd will find: a carriage return ends
// an assignment, and a backslash is left out and the character after it kept (extract_first_word of
// src/basic/extract-word.c, without flags).
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

// Value returns the value of the first assignment to name, which is the one that systemd uses for
// STATUS=, MAINPID= and the like. A proxy that withholds assignments must look at all Assignments:
// systemd heeds READY=1 and STOPPING=1 wherever they are.
func (m *Notification) Value(name string) (value string, ok bool) {
	for _, a := range m.Assignments {
		if to, value, _ := cut(a, '='); to == name {
			return value, true
		}
	}
	return "", false
}

// Has reports whether assignment, such as [NotifyReady], is the first one to its name.
func (m *Notification) Has(assignment string) bool {
	name, value, ok := cut(assignment, '=')
	got, found := m.Value(name)
	return ok && found && got == value
}

// IsBarrier reports whether m is what [NotifyBarrier] sends: BARRIER=1 and nothing else, with one
// descriptor. Close m once everything that came before it has been dealt with, and the sender
// continues. A proxy sends it on first: the sender continues when the last receiver of the
// descriptor has closed it.
func (m *Notification) IsBarrier() bool {
	return len(m.Assignments) == 1 && m.Assignments[0] == barrierAssignment && m.NumFiles() == 1
}

// NumFiles returns the number of descriptors that came with m.
func (m *Notification) NumFiles() int { return len(m.fds) + len(m.files) }

// Files returns the descriptors that came with m as files, which Close closes. They are
// close-on-exec. Their name is the one in FDNAME=, or "stored" if there is none or it is not a
// [ValidFDName].
//
// Check the sender before calling Files. A sender can choose any descriptor, and an [os.File] in
// non-blocking mode is in the poller of the Go runtime: a file system in user space (FUSE) that
// does not answer there blocks the program.
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

// TakeFiles is [Notification.Files] for a caller that closes the files itself. m has none
// afterwards.
func (m *Notification) TakeFiles() []*os.File {
	files := m.Files()
	m.files = nil
	return files
}

// IsFrom reports whether p is the process that sent m. A service manager that does as
// NotifyAccess=main of systemd passes the main process. For NotifyAccess=all, compare the CgroupID
// that [PidFD.Info] of the Sender returns.
//
// If m has a Sender, the answer is certain, whatever has ended since. Without one, or without pidfd
// IDs (before Linux 6.9, for 32-bit programs before 6.14), the PIDs are compared. While p is not
// reaped, no other process has its PID; if the message is older than p, the sender may have had it
// before. gVisor has no pidfd of the sender, and in 2022 its Credentials had the ID of the sending
// thread: there IsFrom can return false for the sender itself.
//
// Errors:
//   - [os.ErrClosed];
//   - those of [PidFD.PID] where PIDs are compared. One that matches [os.ErrProcessDone] means that
//     p was reaped, and that the answer is not known.
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

// String returns the PID of the sender and the assignments in quotes, for messages.
func (m *Notification) String() string {
	s := "PID " + strconv.Itoa(int(m.Credentials.Pid)) + ":"
	for _, a := range m.Assignments {
		s += " " + strconv.Quote(a)
	}
	return s
}

// Close closes the files and the Sender. To keep the Sender open, set the field to nil first. Close
// returns nil. Closing a file can block; see [NotifyListener.Next].
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

// closeFDs closes the descriptors that have not become files.
func (m *Notification) closeFDs() {
	runtime.SetFinalizer(m, nil)
	for _, fd := range m.fds {
		// A TCP socket with SO_LINGER would wait for its peer. If fd is not a socket, this
		// fails.
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{})
		syscall.Close(fd)
	}
	m.fds = nil
}
