//go:build linux

package sysfd

import (
	"context"
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Notify tells the service manager something, as sd_notify(3) does: it sends the
// assignments, such as [NotifyReady] or what [NotifyStatus] returns, as one datagram to
// the Unix socket in $NOTIFY_SOCKET, which is an absolute path, or an abstract
// name behind an "@". If the variable is not set it does nothing, and sent is
// false; if it is set and empty that is an error, as it is in libsystemd (not in go-systemd). The
// variable stays set, and programs that are started inherit it; see [TakeNotifier].
//
// Notify waits only while the queue of the receiver is full, and ctx limits just that. So a
// ctx that is done does not keep [NotifyStopping] back.
//
// An assignment is a name, "=" and a value. Each is one argument, or several are one with a
// newline between them, as in "READY=1\nSTATUS=up"; blank lines are not sent, and a carriage return
// is a newline, as it is for systemd. So a value that others have a say in must have neither, which
// [NotifyStatus] sees to. systemd removes a backslash and takes the next character as it is, even a
// newline, and no message with one at its end: that is why Notify sends two for each. systemd takes no message of more than 4096 bytes
// (src/shared/notify-recv.c), and no status that is not UTF-8. It looks at the sender, which is
// this process also in what is told of another one, and NotifyAccess= in
// systemd.service(5) tells from whom it takes messages. That a message was sent does not
// mean that it was heeded.
//
// Errors: EINVAL for an assignment that is none or has a NUL in it, for no
// assignments, and for a $NOTIFY_SOCKET that is no address. ENAMETOOLONG if its path
// has more than 107 bytes. One that matches [errors.ErrUnsupported] for an address of
// AF_VSOCK, which is for virtual machines. ENOENT or ECONNREFUSED if no one receives
// there; EACCES. EMSGSIZE if the message is too long for the kernel. That of ctx if the
// queue was full until it was done.
func Notify(ctx context.Context, assignments ...string) (sent bool, err error) {
	return envNotifier().Notify(ctx, assignments...)
}

// NotifyFiles is [Notify] with descriptors, at most 253. The receiver gets duplicates; the
// files stay open here. It is for what [NotifyStoreFDs], [NotifyMainPidFD] and
// [NotifyBarrier] do not send: systemd closes all others.
//
// Errors: those of [Notify]. E2BIG if there are too many files. [os.ErrClosed] if one is
// closed. ETOOMANYREFS beyond the descriptors on their way that RLIMIT_NOFILE allows.
func NotifyFiles(ctx context.Context, files []*os.File, assignments ...string) (sent bool, err error) {
	return envNotifier().NotifyFiles(ctx, files, assignments...)
}

// sendNotify sends to address.
func sendNotify(ctx context.Context, address string, state []byte, files []syscall.Conn) (sent bool, err error) {
	if err := checkNotifySocket(address); err != nil {
		return false, err
	}
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, os.NewSyscallError("socket", err)
	}
	file, err := sendNotification(ctx, socket, address, state, files)
	if file != nil {
		file.Close()
	} else {
		syscall.Close(socket)
	}
	return err == nil, err
}

// checkNotifySocket finds what [syscall.Connect] would take for something else, or not tell.
func checkNotifySocket(address string) error {
	const most = 107 // with the NUL behind a path, or ahead of an abstract name: the 108 of sun_path
	err := refused(syscall.EINVAL, "NOTIFY_SOCKET="+strconv.Quote(address)+": ")
	switch {
	case strings.HasPrefix(address, "vsock"):
		err.text += "AF_VSOCK is not supported"
		err.errno, err.means = syscall.EAFNOSUPPORT, errors.ErrUnsupported
	case address == "" || address == "@" || address[0] != '/' && address[0] != '@' || strings.IndexByte(address, 0) >= 0:
		err.text += "neither an absolute path nor an abstract name"
	case len(address) > most:
		err.text += "too long"
		err.errno = syscall.ENAMETOOLONG
	default:
		return nil
	}
	return err
}

// sendNotification sends state and files. Once the socket belongs to a file, it returns that.
func sendNotification(ctx context.Context, socket int, address string, state []byte, files []syscall.Conn) (file *os.File, err error) {
	// Connected, the socket is writable when the receiver's queue is not full.
	if err := syscall.Connect(socket, &syscall.SockaddrUnix{Name: address}); err != nil {
		return nil, failed("connect", address, err.(syscall.Errno))
	}
	send := func() (done bool) {
		err = withFDs(files, make([]int, 0, len(files)), func(fds []int) error {
			return sendmsg(socket, address, state, fds)
		})
		return !errors.Is(err, syscall.EAGAIN)
	}
	if send() {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	file = os.NewFile(uintptr(socket), address)
	if err := inPoller(file); err != nil {
		return file, err
	}
	conn, errConn := file.SyscallConn()
	if errConn != nil {
		return file, errConn
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		file.SetWriteDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	errWait := conn.Write(func(uintptr) bool { return send() })
	if !stop() {
		<-interrupted
	}
	if errWait != nil {
		err = context.Cause(ctx)
	}
	return file, err
}

func sendmsg(socket int, address string, state []byte, fds []int) error {
	var control []byte
	if len(fds) > 0 {
		control = syscall.UnixRights(fds...)
	}
	errno := uninterrupted(func() syscall.Errno {
		_, err := syscall.SendmsgN(socket, state, control, nil, syscall.MSG_NOSIGNAL)
		return errnoOf(err)
	})
	if errno != 0 {
		return failed("sendmsg", "to "+address, errno)
	}
	return nil
}

// NotifyReloading is [Notify] with RELOADING=1 and MONOTONIC_USEC=, the time, ahead
// of the assignments. Services of Type=notify-reload have to send it once they
// are asked to reload, and [NotifyReady] when they have.
//
// Errors: those of [Notify]. ENOSYS on a kernel of 32 bits before Linux 5.1.
func NotifyReloading(ctx context.Context, assignments ...string) (sent bool, err error) {
	return envNotifier().NotifyReloading(ctx, assignments...)
}

// NotifyMainProcess is [Notify] with MAINPID= and MAINPIDFDID= ahead of the
// assignments: this process is now the main process of the service. The PID is taken for
// one of the service manager's pid namespace, the BootID for that of this boot.
// systemd refuses a pidfd ID that is not that of the process with the PID, and looks
// at it since systemd 257. Without an ID there is just MAINPID=.
//
// Errors: those of [Notify]. EINVAL if r has no PID.
func NotifyMainProcess(ctx context.Context, r ProcessRef, assignments ...string) (sent bool, err error) {
	return envNotifier().NotifyMainProcess(ctx, r, assignments...)
}

// NotifyMainPidFD is [NotifyFiles] with MAINPIDFD=1 ahead of the assignments, and the
// pidfd: its process is now the main process of the service. It works across pid
// namespaces and where there are no pidfd IDs. systemd knows it since systemd 257.
//
// Errors: those of [NotifyFiles]. [os.ErrClosed] if p is closed.
func NotifyMainPidFD(ctx context.Context, p *PidFD, assignments ...string) (sent bool, err error) {
	return envNotifier().NotifyMainPidFD(ctx, p, assignments...)
}

// NotifyStoreFDs is [NotifyFiles] with FDSTORE=1 and FDNAME= ahead of the assignments: the
// service manager keeps duplicates of the files, at most 253 at once, and passes them with
// this one name to the next process of the service; see [ListenFDs]. The empty name
// stands for "stored", as it does in systemd. A further assignment that is of use here is
// [NotifyNoPoll].
//
// $FDSTORE tells how many descriptors systemd keeps; it closes what is too much. It
// keeps one of those that refer to the same open file.
//
// Errors: those of [NotifyFiles]. EINVAL for no files and for a name that is not a
// [ValidFDName].
func NotifyStoreFDs(ctx context.Context, name string, files []*os.File, assignments ...string) (sent bool, err error) {
	return envNotifier().NotifyStoreFDs(ctx, name, files, assignments...)
}

// NotifyRemoveStoredFDs is [Notify] with FDSTOREREMOVE=1 and FDNAME=: the service manager
// closes the files that were given to [NotifyStoreFDs] with this name.
//
// Errors: those of [Notify]. EINVAL for a name that is not a [ValidFDName].
func NotifyRemoveStoredFDs(ctx context.Context, name string) (sent bool, err error) {
	return envNotifier().NotifyRemoveStoredFDs(ctx, name)
}

// NotifyBarrier sends BARRIER=1, as sd_notify_barrier(3) does, and waits until the
// service manager has dealt with all that was sent before: until it closes the write
// end of a pipe that comes with the message. A process that ends after it has sent
// something needs that, unless it is the main process: the manager may otherwise not find
// out whose message it was. The pipe is closed even if the manager heeds no message of this
// process. systemd knows it since systemd 246.
//
// Errors: those of [NotifyFiles]. That of ctx if the manager has not closed the pipe when
// it is done; sent is then true. EMFILE and ENFILE if there is no descriptor left.
func NotifyBarrier(ctx context.Context) (sent bool, err error) {
	return envNotifier().NotifyBarrier(ctx)
}

// WatchdogInterval returns the time within which the service manager expects the
// next [NotifyWatchdog], from $WATCHDOG_USEC; half of it is a good interval to send
// at. 0 means that it expects none: the variable is not set, or $WATCHDOG_PID tells that
// another process is meant. The answers are those of sd_watchdog_enabled(3) of systemd
// 262. The variables stay set. A time beyond what a [time.Duration] can hold, 292
// years, comes as the longest one.
//
// # Passing a watchdog on
//
// $WATCHDOG_PID is the process that systemd has started, and systemd takes the message from whom NotifyAccess= in
// systemd.service(5) allows, which is the main process alone if it is not set. If nobody sends, systemd kills the service.
//
//   - [ExecListenFDs] and [syscall.Exec] keep the PID, and so the program that this process becomes is the one that is meant.
//   - A successor in a process of its own takes over with [NotifyMainPidFD] or [NotifyMainProcess] and has
//     to get a $WATCHDOG_PID of its own from whoever starts it: [StartListenFDs] renews one that is that of the caller. From
//     the moment at which it is the main process, messages of its predecessor are ignored
//     unless NotifyAccess=all.
//   - Behind a shell that does not become the program, or another wrapper, the shell is meant. [RenewListenEnv] and
//     `sysfd exec`, which calls it, renew $WATCHDOG_PID. With NotifyAccess=main, systemd still ignores the messages, for
//     the shell remains the main process: let it become the program (exec), set NotifyAccess=all, or have the
//     program make itself the main process, which takes NotifyAccess=all for that one message.
//   - In a pid namespace of its own a process has another PID than the variable says: remove $WATCHDOG_PID, then
//     $WATCHDOG_USEC alone counts.
//
// A program that supervises others, or starts programs that it does not know, must take $WATCHDOG_USEC, $WATCHDOG_PID
// and, unless they are to report for it, $NOTIFY_SOCKET out of their environment. With NotifyAccess=all
// the message of any of them counts as its own, and hides that it hangs.
//
// Errors: EINVAL or ERANGE if one of the variables does not hold what it should.
func WatchdogInterval() (time.Duration, error) {
	usec, ok := os.LookupEnv("WATCHDOG_USEC")
	if !ok {
		return 0, nil
	}
	d, err := parseWatchdogUsec(usec)
	if err != nil {
		return 0, err
	}
	if pid, ok := os.LookupEnv(watchdogPID); ok {
		n, errno := parsePID(pid)
		if errno != 0 {
			return 0, invalidVar(watchdogPID, pid, "not a PID", errno)
		}
		if n != uint64(syscall.Getpid()) {
			return 0, nil
		}
	}
	return d, nil
}

const watchdogPID = "WATCHDOG_PID" // the process that is to feed the watchdog

func parseWatchdogUsec(s string) (time.Duration, error) {
	usec, errno := parseUnsigned(s, 64)
	if errno == 0 && (usec == 0 || usec == math.MaxUint64) { // the latter is systemd's infinity
		errno = syscall.EINVAL
	}
	if errno != 0 {
		return 0, invalidVar("WATCHDOG_USEC", s, "not a time in microseconds", errno)
	}
	return time.Duration(min(usec, math.MaxInt64/1000)) * time.Microsecond, nil
}
