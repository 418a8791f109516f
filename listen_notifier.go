//go:build linux

package sysfd

import (
	"context"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Notifier reports to a service manager, independently of the environment; [TakeNotifier] returns
// one. Proxies and tests make a Notifier with an Address of their own.
//
// Its methods have the names and errors of [Notify] and the functions like it. The zero Notifier
// and nil send nothing: sent is false, and bad input is still an error. The methods can be called
// from several goroutines at once, as long as no field is changed.
type Notifier struct {
	// Address is the value of $NOTIFY_SOCKET. With "" nothing is sent.
	Address string

	// WatchdogInterval is the time within which the service manager expects the next
	// [NotifyWatchdog], or 0 if it expects none. See [WatchdogInterval] and
	// [Notifier.Watchdog].
	WatchdogInterval time.Duration

	fromEnv bool // an empty Address is an error
}

// envNotifier returns a Notifier for one message.
func envNotifier() *Notifier {
	address, ok := os.LookupEnv("NOTIFY_SOCKET")
	return &Notifier{Address: address, fromEnv: ok}
}

var notifierVarNames = [...]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}

// TakeNotifier returns a Notifier with the values of $NOTIFY_SOCKET, $WATCHDOG_USEC and
// $WATCHDOG_PID, and unsets the variables, whatever it returns. Programs started after that do not
// inherit them, and functions such as [Notify], which read them each time, send nothing. For a
// program that needs them, call [Notifier.Environ]; so too for one that this process becomes by
// [ExecListenFDs]. A second TakeNotifier returns a Notifier that sends nothing.
//
// The Notifier is never nil. With an error, it has what is valid: a bad $WATCHDOG_USEC does not
// hold [NotifyReady] back.
//
// A variable that is set and empty is an error, as in libsystemd. In go-systemd, whose functions
// have an argument for unsetting, it is the same as no variable.
//
// Errors: those of Notify about the address, and those of [WatchdogInterval].
func TakeNotifier() (*Notifier, error) {
	n := envNotifier()
	var err error
	n.WatchdogInterval, err = WatchdogInterval()
	for _, name := range notifierVarNames {
		os.Unsetenv(name)
	}
	if n.fromEnv {
		n.fromEnv = false
		if errAddress := checkNotifySocket("NOTIFY_SOCKET=", n.Address); errAddress != nil {
			n.Address, err = "", errAddress
		}
	}
	return n, err
}

// Environ returns a copy of env for a program that is to report to the same service manager. In it,
// $NOTIFY_SOCKET and, if there is a WatchdogInterval, $WATCHDOG_USEC replace those of env.
// $WATCHDOG_PID is left out: the watchdog is for the process that gets the environment. If n sends
// nothing, the copy has none of the three. The copy is never nil, and a nil env is an empty one:
// for the environment of this process, pass [os.Environ].
func (n *Notifier) Environ(env []string) []string {
	environ := make([]string, 0, len(env)+2) // never nil, which os/exec takes for the environment of this process
	for _, assignment := range env {
		name, _, _ := cut(assignment, '=')
		if name != notifierVarNames[0] && name != notifierVarNames[1] && name != notifierVarNames[2] {
			environ = append(environ, assignment)
		}
	}
	if n.sends() {
		environ = append(environ, "NOTIFY_SOCKET="+n.Address)
		if usec := n.WatchdogInterval / time.Microsecond; usec > 0 {
			environ = append(environ, "WATCHDOG_USEC="+strconv.FormatInt(int64(usec), 10))
		}
	}
	return environ
}

func (n *Notifier) sends() bool { return n != nil && (n.Address != "" || n.fromEnv) }

// Watchdog keeps the watchdog of the service manager from firing, until ctx is done. It calls check
// and sends [NotifyWatchdog] if check returns nil: at once, and then every half WatchdogInterval.
// check decides whether the program is well; a nil check always says so. If no watchdog is
// expected, or n sends nothing, Watchdog returns nil at once.
//
// If check returns an error, or the message cannot be sent, Watchdog tries again four times in half
// the interval, so that a passing failure does no harm. If the program is still not well when the
// WatchdogInterval since the last message is over, Watchdog returns the error. At that time systemd
// sends the signal of WatchdogSignal=, by default SIGABRT for a core dump, and restarts the service
// if Restart= says so. A check that does not want to wait for that sends [NotifyWatchdogTrigger].
//
// The context of check is done after half the interval, or earlier if the interval is about to end.
// Watchdog waits for a check that does not return, even after ctx is done, and sends nothing in the
// meantime.
//
// The clock is that of systemd, CLOCK_MONOTONIC, which stands still while the machine is suspended.
// NotifyAccess= must allow messages from this process.
//
// Errors: that of ctx ([context.Cause]), and those of check and of [Notify] as above.
func (n *Notifier) Watchdog(ctx context.Context, check func(ctx context.Context) error) error {
	if !n.sends() || n.WatchdogInterval <= 0 {
		return nil
	}
	half := max(n.WatchdogInterval/2, time.Millisecond)
	timer := time.NewTimer(0)
	defer timer.Stop()
	fed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		began := time.Now()
		err := n.feed(ctx, feedUntil(fed, began, half), check)
		next := began.Add(half)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			fed = began
		case time.Since(fed) >= 2*half:
			return err
		default:
			next = feedAgain(fed, began, half)
		}
		timer.Reset(time.Until(next))
	}
}

// feedUntil returns when an attempt that began at began has failed: at the end of the interval
// since the last message, or a little later if the attempt began late.
func feedUntil(fed, began time.Time, half time.Duration) time.Time {
	until := began.Add(half)
	if end := fed.Add(2 * half); until.After(end) {
		until = end
	}
	if least := began.Add(half / 4); until.Before(least) {
		until = least
	}
	return until
}

// feedAgain returns when the attempt after a failed one begins.
func feedAgain(fed, began time.Time, half time.Duration) time.Time {
	next := began.Add(half / 4)
	if end := fed.Add(2 * half); next.After(end) {
		next = end
	}
	return next
}

func (n *Notifier) feed(ctx context.Context, until time.Time, check func(ctx context.Context) error) error {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if check != nil {
		if err := check(ctx); err != nil {
			return err
		}
	}
	_, err := n.Notify(ctx, NotifyWatchdog)
	return err
}

// Notify is the function [Notify] with the Address of n.
func (n *Notifier) Notify(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	return n.notify(ctx, nil, assignments...)
}

// NotifyFiles is the function [NotifyFiles] with the Address of n.
func (n *Notifier) NotifyFiles(ctx context.Context, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	var conns []syscall.Conn
	for _, f := range files {
		conns = append(conns, f)
	}
	return n.notify(ctx, conns, assignments...)
}

// mostSent is SCM_MAX_FD of the kernel's include/net/scm.h. More descriptors give EINVAL.
const mostSent = 253

// notify is NotifyFiles for whatever owns a descriptor.
func (n *Notifier) notify(ctx context.Context, files []syscall.Conn, assignments ...Assignment) (sent bool, err error) {
	if err := checkAssignments(assignments); err != nil {
		return false, err
	}
	if len(files) > mostSent {
		return false, refused(syscall.E2BIG, strconv.Itoa(len(files))+" descriptors are too many for one message: "+strconv.Itoa(mostSent)+" is the limit")
	}
	if !n.sends() {
		return false, nil
	}
	return sendNotify(ctx, n.Address, joinAssignments(assignments), files)
}

// NotifyReloading is the function [NotifyReloading] with the Address of n.
func (n *Notifier) NotifyReloading(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	usec, errno := monotonicUsec()
	if errno != 0 {
		return false, failed("clock_gettime", "CLOCK_MONOTONIC", errno)
	}
	return n.Notify(ctx, prepend(assignments, "RELOADING=1", "MONOTONIC_USEC="+strconv.FormatUint(usec, 10))...)
}

// NotifyMainProcess is the function [NotifyMainProcess] with the Address of n.
func (n *Notifier) NotifyMainProcess(ctx context.Context, r ProcessRef, assignments ...Assignment) (sent bool, err error) {
	if r.PID < 1 || !fits32(r.PID) {
		return false, notAProcess(r.String())
	}
	first := []string{"MAINPID=" + strconv.Itoa(r.PID)}
	if r.ID != 0 {
		first = append(first, "MAINPIDFDID="+r.ID.String())
	}
	return n.Notify(ctx, prepend(assignments, first...)...)
}

// NotifyMainPidFD is the function [NotifyMainPidFD] with the Address of n.
func (n *Notifier) NotifyMainPidFD(ctx context.Context, p *PidFD, assignments ...Assignment) (sent bool, err error) {
	if err := p.acquire(); err != nil { // also where there is no manager
		return false, err
	}
	defer p.release()
	return n.notify(ctx, []syscall.Conn{p}, prepend(assignments, "MAINPIDFD=1")...)
}

// NotifyStoreFDs is the function [NotifyStoreFDs] with the Address of n.
func (n *Notifier) NotifyStoreFDs(ctx context.Context, name string, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	first, err := storeAssignments(name, files)
	if err != nil {
		return false, err
	}
	return n.NotifyFiles(ctx, files, prepend(assignments, first...)...)
}

// NotifyRemoveStoredFDs is the function [NotifyRemoveStoredFDs] with the Address of n.
func (n *Notifier) NotifyRemoveStoredFDs(ctx context.Context, name string) (sent bool, err error) {
	fdname, err := assignFDName(name)
	if err != nil {
		return false, err
	}
	return n.Notify(ctx, "FDSTOREREMOVE=1", fdname)
}

// NotifyBarrier is the function [NotifyBarrier] with the Address of n.
func (n *Notifier) NotifyBarrier(ctx context.Context) (sent bool, err error) {
	if !n.sends() {
		return false, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return false, err
	}
	defer r.Close()
	sent, err = n.NotifyFiles(ctx, []*os.File{w}, barrierAssignment)
	w.Close() // the manager's is then the only one
	if !sent {
		return false, err
	}
	conn, err := r.SyscallConn()
	if err != nil {
		return true, err
	}
	var errPoll error
	err = closeWhenDone(ctx, r, func() error {
		return conn.Read(func(fd uintptr) (done bool) {
			revents, errno := pollNow(int(fd))
			if errno != 0 { // a seccomp filter
				errPoll = failed("ppoll", fdSubject(int(fd)), errno)
			}
			return errno != 0 || revents&unix.POLLHUP != 0
		})
	})
	if errPoll != nil {
		err = errPoll
	}
	return true, err
}

const barrierAssignment = "BARRIER=1"
