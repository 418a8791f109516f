//go:build linux

package sysfd

import (
	"context"
	"errors"
	"math"
	"os"
	"strings"
	"syscall"
	"time"
)

// Notify sends assignments to the service manager, as sd_notify(3) does: one datagram to the Unix
// socket in $NOTIFY_SOCKET, which is an absolute path, or "@" and an abstract name. Assignments are
// constants such as [NotifyReady] and what functions such as [NotifyStatus] return. If
// $NOTIFY_SOCKET is not set, Notify does nothing and sent is false. If it is set and empty, that is
// an error, as in libsystemd (but not in go-systemd). The variable stays set, and programs that
// this process starts inherit it; see [TakeNotifier].
//
// Notify waits only while the queue of the receiver is full, and ctx limits only that wait. A ctx
// that is already done therefore does not hold [NotifyStopping] back.
//
// An assignment is NAME=VALUE. An argument may contain several with newlines between them, as in
// "READY=1\nSTATUS=up". Blank lines are not sent, and a carriage return counts as a newline, as it
// does for systemd. A value from outside must therefore contain neither; [NotifyStatus] ensures
// that. Notify doubles backslashes, because systemd removes one and keeps the character after it.
// systemd accepts at most 4096 bytes (src/shared/notify-recv.c), and no status that is not UTF-8.
//
// systemd looks at the sender, which is this process even if the message is about another one:
// NotifyAccess= in systemd.service(5) says whose messages it accepts. That a message was sent does
// not mean that systemd has heeded it.
//
// Errors:
//   - EINVAL if there are no assignments, if one is not NAME=VALUE or contains a NUL, or if
//     $NOTIFY_SOCKET is not an address;
//   - ENAMETOOLONG if the address has more than 107 bytes;
//   - an error that matches [errors.ErrUnsupported] for an address of AF_VSOCK, which is for
//     virtual machines;
//   - ENOENT or ECONNREFUSED if no process receives there, and EACCES;
//   - EMSGSIZE if the message is too long for the kernel;
//   - that of ctx if the queue was full until ctx was done.
func Notify(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	return envNotifier().Notify(ctx, assignments...)
}

// NotifyFiles is [Notify] with descriptors, at most 253. The receiver gets duplicates; the files
// stay open here. [NotifyStoreFDs], [NotifyMainPidFD] and [NotifyBarrier] send the descriptors that
// systemd knows; it closes all others.
//
// Errors: those of Notify, and
//   - E2BIG if there are too many files;
//   - [os.ErrClosed] if one is closed;
//   - ETOOMANYREFS if more descriptors are in flight than RLIMIT_NOFILE allows.
func NotifyFiles(ctx context.Context, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	return envNotifier().NotifyFiles(ctx, files, assignments...)
}

// sendNotify sends to address.
func sendNotify(ctx context.Context, address string, state []byte, files []syscall.Conn) (sent bool, err error) {
	if err := checkNotifySocket("NOTIFY_SOCKET=", address); err != nil {
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

// checkNotifySocket refuses what [syscall.Connect] would accept as something else, or refuse
// without a reason. name says in the error what the address is.
func checkNotifySocket(name, address string) error {
	const most = 107 // with the NUL behind a path, or ahead of an abstract name: the 108 of sun_path
	err := refused(syscall.EINVAL, name+quote(address)+": ")
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
	conn, errConn := file.SyscallConn()
	if errConn != nil {
		return file, errConn
	}
	errWait := closeWhenDone(ctx, file, func() error {
		return conn.Write(func(uintptr) bool { return send() })
	})
	if errWait != nil {
		err = errWait
	}
	return file, err
}

// closeWhenDone calls wait, which waits for an event of file in the runtime's poller. When ctx is
// done it closes file, which ends the wait, and returns the error of ctx. A program with
// context.AfterFunc or a deadline in place of that is 70 KB or 10 KB larger.
func closeWhenDone(ctx context.Context, file *os.File, wait func() error) error {
	waited, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
			file.Close()
		case <-waited:
		}
	}()
	err := wait()
	close(waited)
	<-stopped
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return errPollerFull // wait fails for no other reason
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

// NotifyReloading is [Notify] with RELOADING=1 and MONOTONIC_USEC=, the present time, before the
// assignments. A service of Type=notify-reload must send it when it begins to reload, and
// [NotifyReady] when it has finished.
//
// Errors: those of Notify, and ENOSYS on a 32-bit kernel before Linux 5.1.
func NotifyReloading(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	return envNotifier().NotifyReloading(ctx, assignments...)
}

// NotifyMainProcess is [Notify] with MAINPID= and MAINPIDFDID= before the assignments: r is now the
// main process of the service. Its PID must be that of the service manager's pid namespace, and its
// BootID that of this boot. If r has no ID, only MAINPID= is sent. Since version 257, systemd
// refuses a pidfd ID that does not belong to the process with the PID.
//
// Errors: those of Notify, and EINVAL if r has no PID.
func NotifyMainProcess(ctx context.Context, r ProcessRef, assignments ...Assignment) (sent bool, err error) {
	return envNotifier().NotifyMainProcess(ctx, r, assignments...)
}

// NotifyMainPidFD is [NotifyFiles] with MAINPIDFD=1 before the assignments, and a pidfd: the
// process of p is now the main process of the service. It works across pid namespaces and where
// there are no pidfd IDs. systemd supports it since version 257.
//
// Errors: those of NotifyFiles, and [os.ErrClosed] if p is closed.
func NotifyMainPidFD(ctx context.Context, p *PidFD, assignments ...Assignment) (sent bool, err error) {
	return envNotifier().NotifyMainPidFD(ctx, p, assignments...)
}

// NotifyStoreFDs is [NotifyFiles] with FDSTORE=1 and FDNAME= before the assignments: the service
// manager keeps duplicates of files, and passes them to the next process of the service, all under
// this name; see [ListenFDs]. The empty name stands for "stored", as in systemd. [NotifyNoPoll] can
// be added.
//
// $FDSTORE has the number of descriptors that systemd keeps, at most; it closes the rest. Of
// several that refer to the same open file it keeps one. One call sends at most 253.
//
// Errors: those of NotifyFiles, and EINVAL if there are no files or name is not a [ValidFDName].
func NotifyStoreFDs(ctx context.Context, name string, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	return envNotifier().NotifyStoreFDs(ctx, name, files, assignments...)
}

// NotifyRemoveStoredFDs is [Notify] with FDSTOREREMOVE=1 and FDNAME=: the service manager closes
// the files that [NotifyStoreFDs] sent with this name.
//
// Errors: those of Notify, and EINVAL if name is not a [ValidFDName].
func NotifyRemoveStoredFDs(ctx context.Context, name string) (sent bool, err error) {
	return envNotifier().NotifyRemoveStoredFDs(ctx, name)
}

// NotifyBarrier sends BARRIER=1, as sd_notify_barrier(3) does, and waits until the service manager
// has dealt with everything that was sent before: until it closes the write end of a pipe that
// comes with the message.
//
// Call it before a process ends that has sent something and is not the main process: otherwise the
// manager may not find out who sent the message. The manager closes the pipe even if it accepts no
// messages from this process. systemd supports it since version 246.
//
// Errors: those of [NotifyFiles], and
//   - that of ctx if the manager has not closed the pipe when ctx is done; sent is then true;
//   - EMFILE and ENFILE if no descriptor is left.
func NotifyBarrier(ctx context.Context) (sent bool, err error) {
	return envNotifier().NotifyBarrier(ctx)
}

// WatchdogInterval returns the time within which the service manager expects the next
// [NotifyWatchdog], from $WATCHDOG_USEC. Send at half that interval, or let [Notifier.Watchdog] do
// it. The result is 0 if nothing is expected: the variable is not set, or $WATCHDOG_PID is the PID
// of another process. WatchdogInterval answers as sd_watchdog_enabled(3) of systemd 262 does. The
// variables stay set. After [TakeNotifier], which unsets them, the result is 0, and the time is in
// the field WatchdogInterval of the [Notifier]. A time that a [time.Duration] cannot hold, 292
// years, is returned as the longest one.
//
// # Passing a watchdog on
//
// $WATCHDOG_PID is the process that systemd has started. systemd accepts the message from the
// processes that NotifyAccess= in systemd.service(5) allows: the main process only, if it is not
// set. If none sends, systemd kills the service.
//
//   - [ExecListenFDs] and [syscall.Exec] keep the PID, so the watchdog is for the program that this
//     process becomes.
//   - A successor in a process of its own takes over with [NotifyMainPidFD] or [NotifyMainProcess],
//     and needs its own PID in $WATCHDOG_PID. [StartListenFDs] sets it if the variable is the PID
//     of the caller. Once the successor is the main process, systemd ignores messages of its
//     predecessor unless NotifyAccess=all.
//   - Behind a shell that does not become the program, or another wrapper, the variable is the PID
//     of the wrapper. [RenewListenEnv], and `sysfd exec`, which calls it, correct it. With
//     NotifyAccess=main, systemd still ignores the messages, because the shell remains the main
//     process: let the shell become the program (exec), set NotifyAccess=all, or have the program
//     make itself the main process, which needs NotifyAccess=all for that message.
//   - In a pid namespace of its own, a process has another PID than the variable says: remove
//     $WATCHDOG_PID, and only $WATCHDOG_USEC counts.
//
// A program that supervises others, or starts programs that it does not know, must remove
// $WATCHDOG_USEC and $WATCHDOG_PID from their environment, and $NOTIFY_SOCKET too, unless they are
// to report for it. With NotifyAccess=all the message of any of them counts as its own, and hides
// that it hangs.
//
// Errors: EINVAL or ERANGE if one of the variables is not a valid number.
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
