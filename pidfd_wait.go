//go:build linux

package sysfd

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A WaitOption changes what [PidFD.Wait], [PidFD.TryWait] and a [WaitSet] do. Options are combined
// with |, and the value 0 means no option.
type WaitOption int

const (
	// WaitNoReap leaves a child that has ended a zombie: WNOWAIT of waitid(2). The zombie keeps
	// its PID until someone waits for it without this option.
	WaitNoReap WaitOption = 1 << iota

	// WaitExited does not wait for the status: it is enough that the process has ended, even if
	// its parent has not reaped it yet. For a child the status is returned nevertheless, unless
	// someone else is about to reap it, or traces it and has not let it go.
	WaitExited

	// WaitBlocking holds a thread until the process has ended, as [os.Process.Wait] does. It makes
	// a second descriptor (an eventfd), which stays open until Close, and another one while it
	// waits if the context can be done. Wait then returns sooner: by tens of microseconds, or by
	// some ten milliseconds if more goroutines compute than there are processors. For the status
	// of a process that is not a child Wait parks then, as without this option. The runtime ends
	// a program that has more than 10,000 threads ([runtime/debug.SetMaxThreads]). The option
	// changes nothing for TryWait, and a WaitSet refuses it.
	WaitBlocking
)

// check returns an error for bits that are not options.
func (o WaitOption) check() error {
	if o&^(WaitNoReap|WaitExited|WaitBlocking) != 0 {
		return o.unknown() // apart, so that check is inlined
	}
	return nil
}

func (o WaitOption) unknown() error {
	return refused(syscall.EINVAL, "0x"+strconv.FormatUint(uint64(uint(o)), 16)+" is not a WaitOption: want 0, or WaitNoReap, WaitExited and WaitBlocking combined")
}

// A WaitResult says how a process ended.
type WaitResult struct {
	// Ended reports whether the process has ended: its last thread is gone. If it is false, the
	// other fields have no meaning.
	Ended bool

	// Status is how the process ended, if Unknown is nil. Otherwise neither Exited nor Signaled
	// of Status is true, and its ExitStatus is -1.
	Status syscall.WaitStatus

	// Unknown is nil, or says why Status is not known. It matches
	//   - [errors.ErrUnsupported] if the kernel reports the status of a process to its parent
	//     alone: before Linux 6.15;
	//   - EAGAIN for a zombie that its parent has not reaped, only with [WaitExited];
	//   - EREMOTE for a process that is not in the caller's pid namespace.
	Unknown error

	// Reaped reports whether this very call has reaped the process, a child. It is false for a
	// process that is traced here and is a child of another process, which is left to its
	// parent, unless the parent has reaped it by the time that this call looks, or ignores
	// SIGCHLD.
	Reaped bool

	// Rusage is what a child, and the children that it has waited for, have used. It is nil for
	// another process, and for a child that someone else has reaped. Everyone who waits for one
	// PidFD gets the same Rusage.
	Rusage *syscall.Rusage
}

// statusUnknown is WIFCONTINUED: something other than an end.
const statusUnknown = 0xffff

// String returns the result for messages, such as "exit status 3", "signal 9 (killed)", "status
// unknown: …" or "running".
func (r WaitResult) String() string {
	switch {
	case !r.Ended:
		return "running"
	case r.Unknown != nil:
		return "status unknown: " + r.Unknown.Error()
	case !r.Status.Signaled():
		return "exit status " + strconv.Itoa(r.Status.ExitStatus())
	}
	s := "signal " + strconv.Itoa(int(r.Status.Signal())) + " (" + r.Status.Signal().String() + ")"
	if r.Status.CoreDump() {
		s += ", core dumped"
	}
	return s
}

var errNotReaped = refused(syscall.EAGAIN, "a zombie that its parent has not reaped")

// Wait waits until the process has ended, and returns how it ended. It holds no thread and no timer
// while it waits, unless options contain [WaitBlocking]. If the process has ended already, Wait
// returns that even if ctx is done.
//
// Wait waits for a child with waitid(2), Linux 5.4, and reaps it, unless options contain
// [WaitNoReap] or the PidFD is from PidFDOf. The child may be one of any thread of this program,
// and may send any signal when it ends. Wait ignores that the child was stopped or continued, and
// leaves a stop for a tracer to the tracer.
//
// Any other process has ended for Wait when it was reaped, because only then does the kernel report
// its status, with [PIDFD_INFO_EXIT] (Linux 6.15). The same holds for a child that someone else
// reaps, or that is reaped without a wait because SIGCHLD is ignored. On Linux 6.9 to 6.14 the
// status is then unknown. Before Linux 6.9, and in gVisor, a pidfd does not show when the process
// was reaped, and Wait returns when it is a zombie. With [WaitExited] Wait does so everywhere.
//
// If the parent never reaps, such as a program that was not made to be process 1 of a container,
// Wait waits forever. A caller that can do without the status waits for the end, and then a moment
// longer:
//
//	r, err := p.Wait(ctx, sysfd.WaitExited)
//	if err == nil && errors.Is(r.Unknown, syscall.EAGAIN) {
//		moment, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
//		defer cancel()
//		if told, err := p.Wait(moment, 0); err == nil {
//			r = told
//		}
//	}
//
// All callers of Wait and [PidFD.TryWait] on one PidFD get the same status, one of them with Reaped
// set.
//
// On Linux 6.15 the status from PIDFD_INFO_EXIT can be that of the main thread, if that ended
// before the process (kernel/exit.c, release_task, commit 9133607de37a). On newer kernels, too, it
// can miss that core was dumped (see [PidFDInfo.ExitStatus]).
//
// With a pidfd of a thread ([PIDFD_THREAD]) Wait waits for that thread, as for a process that is
// not a child. The main thread stands for its process if that is a child.
//
// A goroutine in Wait needs 4 to 5 KiB of memory on amd64, half of it for its stack. The stack
// doubles if the functions that call Wait have large frames. For thousands of processes use a
// [WaitSet].
//
// Wait parks on the pidfd itself if that was opened with [PIDFD_NONBLOCK]. If not, the first Wait
// that must park makes a second descriptor (an epoll instance), which stays open until Close. The
// flags of the pidfd, which others may share, do not change.
//
// A goroutine that is woken must still be scheduled. If more goroutines compute than there are
// processors ([runtime.GOMAXPROCS]), that takes tens of milliseconds, and longer than with
// [os.Process.Wait], which holds a thread. The runtime then looks for events of files only every
// 10 ms. With [WaitBlocking] Wait takes about as long as os.Process.Wait.
//
// Errors:
//   - EINVAL for unknown options;
//   - that of ctx ([context.Cause]), and then nothing was reaped;
//   - [os.ErrClosed] when p is closed;
//   - an error that matches [errors.ErrUnsupported] before Linux 5.4, and in gVisor for a pidfd of
//     a thread;
//   - EMFILE and ENFILE if there is no descriptor left to park on, or for the eventfds of
//     WaitBlocking;
//   - ENOSPC beyond /proc/sys/fs/epoll/max_user_watches;
//   - EINVAL if p is in 500 sets (see [WaitSet.Add]);
//   - EINVAL if RLIMIT_NOFILE is 0, or with WaitBlocking less than 3, the most that ppoll(2) then
//     accepts;
//   - that of eventfd(2) or ppoll(2), with WaitBlocking, if a seccomp filter forbids it.
func (p *PidFD) Wait(ctx context.Context, options WaitOption) (WaitResult, error) {
	a := &awaiting{p: p, options: options}
	for block := options&WaitBlocking != 0; ; block = false {
		g := glances.Get().(*glance)
		err := p.tryWait(options, g, &a.r)
		glances.Put(g)
		if err != nil || a.r.Ended {
			return a.r, err
		}
		if ctx.Err() != nil {
			return a.r, context.Cause(ctx)
		}
		if !block {
			break
		}
		if err := p.block(ctx); err != nil {
			return a.r, err
		}
	}
	w, err := p.park()
	if err != nil {
		return a.r, err
	}
	err = a.wait(ctx, w)
	return a.r, err
}

// block holds a thread until there is an event, ctx is done or p is closed.
func (p *PidFD) block(ctx context.Context) error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	return p.blockAcquired(ctx)
}

// blockAcquired is block for a caller that has acquired p.
func (p *PidFD) blockAcquired(ctx context.Context) error {
	if p.closed.Load() == 0 {
		fd, err := newEventFD()
		if err != nil {
			return err
		}
		if !p.closed.CompareAndSwap(0, int32(fd)+1) {
			syscall.Close(fd)
		}
	}
	if p.uses.Load() < 0 {
		return os.ErrClosed // Close may have been too early to find the eventfd
	}
	return holdThread(ctx, p.fd, int(p.closed.Load()-1))
}

// awaiting is a call that parks until it sees what it waits for: look returns true, or, if that is
// nil, the process has ended. It is on the heap, for the stack of a goroutine that waits has little
// room.
type awaiting struct {
	p       *PidFD
	look    func() bool
	options WaitOption
	r       WaitResult
	err     error // of the last look, or of acquire
	done    bool
	last    bool // p is to be closed
}

// wait does not keep Close from closing while it is parked. look is called after acquire, and may
// panic or end its goroutine.
func (a *awaiting) wait(ctx context.Context, w *parking) error {
	defer func() {
		if a.last {
			a.p.closeFD()
		}
	}()
	var zombie <-chan struct{}
	if a.options&WaitExited != 0 {
		zombie = a.p.zombieOf(w)
	}
	err := w.wait(ctx, zombie, a.ready)
	switch {
	case a.done || a.err != nil:
		return a.err
	case a.last:
		return os.ErrClosed
	}
	return err
}

func (a *awaiting) ready() (leave bool) {
	if a.err = a.p.acquire(); a.err != nil {
		return true
	}
	defer func() {
		a.last = a.p.uses.Add(-1) == closing
		leave = a.last || a.done
	}()
	if a.look != nil {
		a.done = a.look()
		return
	}
	g := glances.Get().(*glance)
	a.err = a.p.look(a.options, false, g, &a.r)
	glances.Put(g)
	a.done = a.err != nil || a.r.Ended
	return
}

// TryWait returns what [PidFD.Wait] would, without waiting. Ended is false if Wait would block:
// while the process runs and, for a process that is not a child, until its parent has reaped it;
// see [WaitExited]. For a running process TryWait makes no allocation and one system call, or two
// if the process is not a child, with WaitExited, or once a Wait has parked.
//
// Errors: those of Wait that are not about waiting.
func (p *PidFD) TryWait(options WaitOption) (WaitResult, error) {
	var r WaitResult
	var g glance
	err := p.tryWait(options, &g, &r)
	return r, err
}

func (p *PidFD) tryWait(options WaitOption, g *glance, r *WaitResult) error {
	if err := options.check(); err != nil {
		return err
	}
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	return p.look(options, false, g, r)
}

// A glance is what waitid(2) writes. The stack of a goroutine that waits has no room for it, nor for
// one more frame above look: it would double from 2 KiB to 4.
type glance struct {
	info   siginfo
	rusage syscall.Rusage
}

var glances = sync.Pool{New: func() any { return new(glance) }}

const waitNow = syscall.WEXITED | syscall.WNOHANG | syscall.WALL

// look stores in r what has become of the process. gone says that it has ended for certain. The
// caller has acquired p.
func (p *PidFD) look(options WaitOption, gone bool, g *glance, r *WaitResult) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	*r = WaitResult{}
	if p.ended != nil && p.ended.Reaped {
		*r = *p.ended
		r.Reaped = false
		return nil
	}
	if p.observes {
		options |= WaitNoReap
	}
	// First a look that takes nothing away: unless the process has ended it may be a stop, which
	// the kernel reports to a tracer whatever the options (kernel/exit.c, wait_task_stopped).
	flags := waitNow | syscall.WNOWAIT
	if gone && options&WaitNoReap == 0 {
		flags = waitNow
	}
	g.info = siginfo{}
	switch errno := waitPidFD(p.fd, flags, &g.info, &g.rusage); {
	case errno == syscall.ECHILD && p.ended != nil:
		*r = *p.ended // another wait has reaped it since
		return nil
	case errno == syscall.ECHILD:
		return p.lookAtOther(options, r)
	case errno != 0:
		return p.waitFailed(errno)
	case !g.info.isEnd():
		return p.lookAtHeld(options, r)
	}
	return p.end(g, options, flags == waitNow, r)
}

// end is for a child that has ended, as g says. waited tells whether it has been waited for.
func (p *PidFD) end(g *glance, options WaitOption, waited bool, r *WaitResult) error {
	*r = WaitResult{Ended: true, Status: g.info.waitStatus()}
	if p.ended != nil {
		r.Rusage = p.ended.Rusage // a zombie uses nothing
	} else {
		used := g.rusage // on the heap only now that it is needed
		r.Rusage = &used
	}
	if options&WaitNoReap == 0 && !waited {
		g.info = siginfo{}
		errno := waitPidFD(p.fd, waitNow, &g.info, nil)
		if errno != 0 && errno != syscall.ECHILD { // if another wait was faster, the status is known
			*r = WaitResult{}
			return p.waitFailed(errno)
		}
		waited = errno == 0 && g.info.isEnd()
	}
	r.Reaped = waited && !p.isLeft()
	p.keep(*r, r.Reaped)
	return nil
}

func (p *PidFD) waitFailed(errno syscall.Errno) error {
	err := failed("waitid", fdSubject(p.fd), errno)
	if errno == syscall.EINVAL {
		err.means = errors.ErrUnsupported // before Linux 5.4
	}
	return err
}

// isLeft reports whether a process that was waited for is still a zombie, because the caller is its
// tracer and its parent has not reaped it. Before Linux 6.9 that is not known.
func (p *PidFD) isLeft() bool {
	revents, errno := pollNow(p.fd)
	if errno != 0 || revents&unix.POLLHUP != 0 {
		return false
	}
	magic, errno := fsMagic(p.fd)
	return errno == 0 && magic == unix.PID_FS_MAGIC
}

// lookAtHeld is for a child that waitid(2) does not report as ended. It can still be a zombie,
// which another tracer has not let go yet.
func (p *PidFD) lookAtHeld(options WaitOption, r *WaitResult) error {
	if options&WaitExited == 0 && p.parking.Load() == nil {
		return nil
	}
	switch revents, errno := pollEnd(p.fd, 0); {
	case errno != 0:
		return failed("ppoll", fdSubject(p.fd), errno)
	case revents != 0:
		p.zombie(options, r)
	}
	return nil
}

// zombie is for a process that has ended, and must not be reaped here, or not yet.
func (p *PidFD) zombie(options WaitOption, r *WaitResult) {
	if options&WaitExited != 0 {
		*r = WaitResult{Ended: true, Status: statusUnknown, Unknown: errNotReaped}
		return
	}
	// Whoever is parked has got the event, but for others a zombie may be enough.
	if w := p.parking.Load(); w != nil && !w.sawZombie {
		w.sawZombie = true
		if w.zombie != nil {
			close(w.zombie)
		}
	}
}

// zombieOf returns what is closed once zombie was called.
func (p *PidFD) zombieOf(w *parking) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.zombie == nil {
		w.zombie = make(chan struct{})
		if w.sawZombie {
			close(w.zombie)
		}
	}
	return w.zombie
}

// isEnd reports whether waitid(2) has reported the end of a process, and not a stop, or nothing.
func (info *siginfo) isEnd() bool {
	switch info.Code {
	case _CLD_EXITED, _CLD_KILLED, _CLD_DUMPED:
		return info.Signo != 0
	}
	return false
}

func (p *PidFD) keep(r WaitResult, reaped bool) {
	r.Reaped = reaped
	p.ended = &r
}

// waitStatus puts together again what waitid(2) takes apart.
func (info *siginfo) waitStatus() syscall.WaitStatus {
	status := syscall.WaitStatus(info.Status)
	switch info.Code {
	case _CLD_EXITED:
		return status & 0xff << 8
	case _CLD_DUMPED:
		return status | 0x80
	}
	return status
}

// lookAtOther is for a process that is not a child, or not one any more.
func (p *PidFD) lookAtOther(options WaitOption, r *WaitResult) error {
	revents, errno := pollEnd(p.fd, 0)
	switch {
	case errno != 0:
		return failed("ppoll", fdSubject(p.fd), errno)
	case revents == 0:
		return nil
	case revents&unix.POLLHUP != 0:
		r.Ended = true
		if r.Status, r.Unknown = exitStatus(p.fd); r.Unknown == nil {
			p.keep(*r, true)
		}
		return nil
	}
	switch magic, errno := fsMagic(p.fd); {
	case errno != 0:
		return failed("fstatfs", fdSubject(p.fd), errno)
	case magic != unix.PID_FS_MAGIC:
		// Before Linux 6.9 there is no POLLHUP to wait for.
		*r = WaitResult{Ended: true, Status: statusUnknown, Unknown: noExitInfo(p.fd, syscall.EOPNOTSUPP)}
		return nil
	}
	p.zombie(options, r)
	return nil
}

// exitStatus returns the status of a process that was reaped.
func exitStatus(fd int) (syscall.WaitStatus, error) {
	info := pidfdInfo{Mask: PIDFD_INFO_EXIT}
	errno := pidfdGetInfo(fd, &info)
	if errno == 0 && info.Mask&PIDFD_INFO_EXIT != 0 {
		return syscall.WaitStatus(info.ExitCode), nil
	}
	if errno == syscall.ESRCH && reaped(fd) == syscall.EREMOTE {
		errno = syscall.EREMOTE
	}
	return statusUnknown, noExitInfo(fd, errno)
}

func noExitInfo(fd int, errno syscall.Errno) error {
	err := failed("ioctl", "PIDFD_INFO_EXIT "+fdSubject(fd), errno)
	switch {
	case errno == 0, errno == syscall.ESRCH, errno == syscall.EOPNOTSUPP, lacksIoctl(errno):
		// Linux 6.13 and 6.14 know the ioctl and answer ESRCH; lookAtOther passes
		// EOPNOTSUPP.
		err.errno, err.means = syscall.EOPNOTSUPP, errors.ErrUnsupported
	}
	return err
}

// park returns the parking of p. Only the first call makes it.
func (p *PidFD) park() (*parking, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.parking.Load(); w != nil {
		return w, nil
	}
	if err := p.ownFile(); err != nil {
		return nil, err
	}
	file := p.file
	if file == nil || inPoller(file) != nil {
		// A descriptor in blocking mode is not in the runtime's poller.
		var err error
		if file, err = newEpollOf(p.fd); err != nil {
			return nil, err
		}
	}
	w, err := newParking(file)
	if err != nil {
		return nil, err
	}
	p.parking.Store(w)
	return w, nil
}

// ownFile makes a file of a descriptor that is not in blocking mode.
func (p *PidFD) ownFile() error {
	flags, errno := fcntl(p.fd, syscall.F_GETFL, 0)
	if errno != 0 {
		return failed("fcntl", "F_GETFL "+fdSubject(p.fd), errno)
	}
	if flags&syscall.O_NONBLOCK != 0 && p.file == nil {
		p.file = os.NewFile(uintptr(p.fd), p.String())
	}
	return nil
}

// newEpollOf returns an epoll instance with a pidfd.
func newEpollOf(fd int) (*os.File, error) {
	epoll, file, err := newEpoll()
	if err != nil {
		return nil, err
	}
	if err := epollAdd(epoll, fd); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
