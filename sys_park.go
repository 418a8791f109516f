//go:build linux

package sysfd

import (
	"context"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A parking is where goroutines wait for events of a file that is in the runtime's poller.
type parking struct {
	file *os.File
	conn syscall.RawConn
	turn chan struct{} // full while a goroutine is parked: a file has one deadline and one reader

	// Of the PidFD's mutex.
	sawZombie bool          // the process was seen as a zombie that is not ours
	zombie    chan struct{} // closed then; made for the first to ask, for most do not
}

func newParking(file *os.File) (*parking, error) {
	conn, err := file.SyscallConn()
	return &parking{file: file, conn: conn, turn: make(chan struct{}, 1)}, err
}

// wait returns nil once ready returned true. It calls ready first, after each event, and when also
// is closed. Otherwise it returns the error of ctx, or os.ErrClosed when the file is closed or was
// interrupted.
func (w *parking) wait(ctx context.Context, also <-chan struct{}, ready func() bool) error {
	if done, err := w.takeTurn(ctx, also, ready); done {
		return err
	}
	defer w.endTurn()
	var interrupting sync.WaitGroup
	interrupting.Add(1)
	stop := context.AfterFunc(ctx, func() {
		w.interrupt()
		interrupting.Done()
	})
	err := w.conn.Read(func(uintptr) bool { return ready() })
	if !stop() {
		interrupting.Wait()
		w.file.SetReadDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return os.ErrClosed
}

// takeTurn waits until no other goroutine is parked. If wait is over before that, done is true.
func (w *parking) takeTurn(ctx context.Context, also <-chan struct{}, ready func() bool) (done bool, err error) {
	for {
		select {
		case w.turn <- struct{}{}:
			return false, nil
		case <-also:
			if ready() {
				return true, nil
			}
			also = nil
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
}

// tryTurn takes the turn if no other goroutine has it.
func (w *parking) tryTurn() bool {
	select {
	case w.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

func (w *parking) endTurn() { <-w.turn }

// interrupt ends the wait of whoever is parked.
func (w *parking) interrupt() { w.file.SetReadDeadline(time.Unix(1, 0)) }

// holdThread holds a thread until there is an event of fd or closed, or ctx is done.
func holdThread(ctx context.Context, fd, closed int) error {
	if errno := check32(fd, closed); errno != 0 {
		return failed("ppoll", fdSubject(fd), errno)
	}
	wake := -1 // which ppoll(2) leaves out
	if ctx.Done() != nil {
		var err error
		if wake, err = newEventFD(); err != nil {
			return err
		}
		defer syscall.Close(wake)
		var waking sync.WaitGroup
		waking.Add(1)
		stop := context.AfterFunc(ctx, func() {
			wakeUp(wake)
			waking.Done()
		})
		defer func() {
			if !stop() {
				waking.Wait()
			}
		}()
	}
	polls := [...]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(closed), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	if errno := ppoll(polls[:], -1); errno != 0 {
		return failed("ppoll", fdSubject(fd), errno)
	}
	return nil
}

func newEventFD() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	return fd, os.NewSyscallError("eventfd2", err)
}

// wakeUp is an event of an eventfd for all who wait for one, now and later.
func wakeUp(eventFD int) {
	if check32(eventFD) == 0 {
		syscall.Write(eventFD, []byte{1, 1, 1, 1, 1, 1, 1, 1})
	}
}

// newEpoll returns an epoll instance, in a file that is in the runtime's poller.
func newEpoll() (fd int, file *os.File, err error) {
	r, _, errno := syscall.Syscall(syscall.SYS_EPOLL_CREATE1, syscall.EPOLL_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, nil, os.NewSyscallError("epoll_create1", errno)
	}
	fd = int(r)
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return -1, nil, os.NewSyscallError("fcntl", err)
	}
	file = os.NewFile(uintptr(fd), "epoll")
	if err := inPoller(file); err != nil {
		file.Close()
		return -1, nil, err
	}
	return fd, file, nil
}

// inPoller returns an error if a file is not in the runtime's poller.
func inPoller(file *os.File) error {
	if file.SetReadDeadline(time.Time{}) != nil {
		return errPollerFull
	}
	return nil
}

var errPollerFull = refused(syscall.ENOSPC, "the poller of the Go runtime accepts no more files")

// epollET is the bit of EPOLLET; the constant in package syscall is negative.
const epollET = 1 << 31

// epollAdd adds a pidfd. Each change of its state is one event.
func epollAdd(epoll, fd int) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | epollET, Fd: int32(fd)}
	if errno := epollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &event); errno != 0 {
		return failed("epoll_ctl", fdSubject(fd), errno)
	}
	return nil
}

// epollCtl is not syscall.EpollCtl, which does not tell the scheduler.
func epollCtl(epoll, op, fd int, event *syscall.EpollEvent) syscall.Errno {
	_, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0)
	return errno
}

// epollNow fetches events without waiting for them. It is not syscall.EpollWait, which on some
// architectures is a call that the runtime does without, and that filters for Go programs leave out.
func epollNow(epoll int, events []syscall.EpollEvent) (n int, errno syscall.Errno) {
	r, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return int(r), errno
}

// epollEvents are those of an epoll instance that were fetched and not returned yet.
type epollEvents struct {
	buf  [64]syscall.EpollEvent
	rest []syscall.EpollEvent
}

// next returns the descriptor of an event, if there is one, and whether what it refers to has ended.
// epoll says so after a wake-up and a look, which is as good as the two looks of pollEnd. It fetches
// more than one event only if many is true.
func (e *epollEvents) next(epoll int, many bool) (fd int, gone, ok bool, err error) {
	if len(e.rest) == 0 {
		buf := e.buf[:1]
		if many {
			buf = e.buf[:]
		}
		n, errno := epollNow(epoll, buf)
		if errno != 0 {
			return -1, false, false, os.NewSyscallError("epoll_pwait", errno)
		}
		e.rest = buf[:n]
	}
	if len(e.rest) == 0 {
		return -1, false, false, nil
	}
	event := e.rest[0]
	e.rest = e.rest[1:]
	return int(event.Fd), event.Events&syscall.EPOLLIN != 0, true, nil
}

// forget is for a descriptor that leaves the epoll instance: soon another can have its number.
func (e *epollEvents) forget(fd int) {
	e.rest = slices.DeleteFunc(e.rest, func(event syscall.EpollEvent) bool { return int(event.Fd) == fd })
}
