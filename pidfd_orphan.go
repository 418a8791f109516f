//go:build linux

package sysfd

import (
	"context"
	"os"
	"runtime"
	"syscall"
)

// An Orphan is a process that this one had adopted, and has reaped.
type Orphan struct {
	PID    int                // which another process may have by now
	Status syscall.WaitStatus // how it ended
	Rusage syscall.Rusage     // of the process and of the children that it has waited for
}

// ReapOrphans reaps the processes that this one has adopted, and calls f with each, until ctx is
// done. It is for a program that is process 1 of a container, or has called [SetChildSubreaper]:
// such a program adopts orphans, and they remain zombies if nobody reaps them. ReapOrphans leaves
// alone the children that the program itself starts, with [os/exec], [os.StartProcess],
// [StartProcess] or [StartListenFDs], so that their starters get the status.
//
// It distinguishes the two by the thread. The kernel gives an orphan to the first living thread of
// the adopter (kernel/exit.c, find_new_reaper), which is the main thread, and a child belongs to
// the thread that started it. So ReapOrphans must run on the main thread and waits only for the
// children of that thread (__WNOTHREAD of waitid(2)), and the program must start no process from
// there:
//
//	func init() { runtime.LockOSThread() } // keeps main on the main thread
//
//	func main() {
//		sigchld := make(chan os.Signal, 1)
//		signal.Notify(sigchld, syscall.SIGCHLD)
//		go run() // the program proper
//		err := sysfd.ReapOrphans(ctx, sigchld, func(o sysfd.Orphan) {})
//	}
//
// ReapOrphans parks on sigchld, which signal.Notify feeds, and holds the main thread meanwhile. f
// runs there too, and must start no process. Do not start a process from a goroutine that is locked
// to its thread and ends without unlocking: the thread ends with the goroutine, the main thread
// gets its children like orphans, and their status is lost.
//
// The Go runtime ends a program that cannot get another thread, and the end of process 1 ends its
// container. If the number of processes is limited, start the threads beforehand, as examples/init
// does.
//
// The rule about the main thread is tested on Linux 6.1 to 7.3. On a kernel that gave an orphan to
// another thread the orphan would remain a zombie, and no child would lose its status.
//
// If a [PidFD] waits for an orphan as well, it gets the status from PIDFD_INFO_EXIT (Linux 6.15).
//
// Errors:
//   - that of ctx;
//   - EINVAL if the caller is not on the main thread, or if sigchld is nil or was closed;
//   - those of waitid(2).
func ReapOrphans(ctx context.Context, sigchld <-chan os.Signal, f func(Orphan)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if syscall.Gettid() != syscall.Getpid() {
		return refused(syscall.EINVAL, "ReapOrphans must run on the main thread: call runtime.LockOSThread in an init function of package main, and ReapOrphans in main")
	}
	if sigchld == nil {
		return refused(syscall.EINVAL, "ReapOrphans requires a channel that signal.Notify feeds with SIGCHLD")
	}
	for {
		for {
			o, ok, err := reapOrphan()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			f(o)
		}
		select {
		case _, ok := <-sigchld:
			if !ok {
				return refused(syscall.EINVAL, "the SIGCHLD channel of ReapOrphans was closed")
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reapOrphan reaps a child of the calling thread that has ended, if there is one.
func reapOrphan() (o Orphan, ok bool, err error) {
	// First a look, because it may be a stop of a process that this thread traces.
	const how = syscall.WEXITED | syscall.WNOHANG | syscall.WALL
	for {
		var info siginfo
		errno := waitOwn(0, how|syscall.WNOWAIT, &info, nil)
		if errno == syscall.ECHILD || errno == 0 && !info.isEnd() {
			return o, false, nil
		}
		if errno == 0 {
			o.PID = int(info.PID)
			info = siginfo{}
			errno = waitOwn(o.PID, how, &info, &o.Rusage)
		}
		switch {
		case errno == syscall.ECHILD, errno == 0 && !info.isEnd():
			// A PidFD was faster. There may be other orphans, for which no further
			// signal comes.
		case errno != 0:
			return o, false, failed("waitid", "for orphans", errno)
		default:
			o.Status = info.waitStatus()
			return o, true, nil
		}
	}
}

// SetChildSubreaper sets whether this process instead of process 1 adopts orphans among its
// descendants; see [ReapOrphans]. It is PR_SET_CHILD_SUBREAPER of prctl(2), Linux 3.4.
func SetChildSubreaper(on bool) error {
	if errno := setChildSubreaper(on); errno != 0 {
		return failed("prctl", "PR_SET_CHILD_SUBREAPER", errno)
	}
	return nil
}
