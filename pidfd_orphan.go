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
	PID    int // that another process may have by now
	Status syscall.WaitStatus
	Rusage syscall.Rusage // of it and of those of its children that it has waited for
}

// ReapOrphans reaps the processes that this one has adopted, and calls f with each, until ctx is
// done. It is for a program that is process 1 of a container, or has called [SetChildSubreaper]:
// orphans come to it, and remain zombies if nobody reaps them. Children that the program itself
// starts, with [os/exec], [os.StartProcess], [StartProcess] or [StartListenFDs], are left alone, so
// that whoever started them gets their status.
//
// It tells them apart by the thread. The kernel gives an orphan to the first thread of the adopter
// that lives (kernel/exit.c, find_new_reaper), which is the main thread, and a child belongs to the
// thread that has started it. So ReapOrphans runs on the main thread, waits for the children of
// that alone (__WNOTHREAD of waitid(2)), and the program starts none from there:
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
// It parks on sigchld, which signal.Notify feeds, and holds the main thread meanwhile. f runs there
// too, and must start no process. Another way to lose the status of a child is a goroutine that is
// locked to its thread, starts a process and ends without unlocking: the thread ends with it, and
// its children come to the main thread like orphans.
//
// The Go runtime ends a program that cannot get another thread, and with process 1 ends its
// container: where the number of processes is limited, start the threads beforehand, as
// examples/init does.
//
// The rule is tested on Linux 6.1 to 7.3. A kernel that gave an orphan to another thread would
// leave it a zombie; nobody is robbed by that.
//
// If an orphan is waited for by a [PidFD] as well, that gets the status from PIDFD_INFO_EXIT (Linux
// 6.15).
//
// Errors: that of ctx. EINVAL if the caller is not on the main thread, or sigchld is nil or was
// closed. Those of waitid(2).
func ReapOrphans(ctx context.Context, sigchld <-chan os.Signal, f func(Orphan)) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if syscall.Gettid() != syscall.Getpid() {
		return refused(syscall.EINVAL, "ReapOrphans must run on the main thread: call runtime.LockOSThread in an init function of package main, and ReapOrphans in main")
	}
	if sigchld == nil {
		return refused(syscall.EINVAL, "ReapOrphans needs a channel that signal.Notify feeds with SIGCHLD")
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
				return refused(syscall.EINVAL, "the channel with SIGCHLD was closed")
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reapOrphan reaps a child of the calling thread that has ended, if there is one.
func reapOrphan() (o Orphan, ok bool, err error) {
	// First a look, for it may be a stop of a process that this thread traces.
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
			// A PidFD was faster. There may be others, of which no further signal
			// tells.
		case errno != 0:
			return o, false, failed("waitid", "for orphans", errno)
		default:
			o.Status = info.waitStatus()
			return o, true, nil
		}
	}
}

// SetChildSubreaper sets whether orphans among the descendants of this process come to it instead
// of process 1; see [ReapOrphans]. It is PR_SET_CHILD_SUBREAPER of prctl(2), Linux 3.4.
func SetChildSubreaper(on bool) error {
	if errno := setChildSubreaper(on); errno != 0 {
		return failed("prctl", "PR_SET_CHILD_SUBREAPER", errno)
	}
	return nil
}
