//go:build linux

package sysfd

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unshareFS gives the calling thread a working directory of its own, which is for execve: while it
// is under way the kernel refuses new threads to those who share theirs with the thread that
// executes (fs/exec.c, check_unsafe_exec), and the runtime does not take that.
func unshareFS() syscall.Errno { return errnoOf(syscall.Unshare(syscall.CLONE_FS)) }

// unshareFiles gives the calling thread a descriptor table of its own, a copy of the one it shared
// with the other threads, and if it can, what unshareFS gives.
func unshareFiles() (withFS bool, errno syscall.Errno) {
	if errno = errnoOf(syscall.Unshare(syscall.CLONE_FILES | syscall.CLONE_FS)); errno == 0 {
		return true, 0
	}
	// Linux 5.9. It closes nothing, for no descriptor has that number. Filters of containers
	// let it pass where they stop unshare(2).
	switch err := unix.CloseRange(^uint(0), ^uint(0), unix.CLOSE_RANGE_UNSHARE); err {
	case nil, syscall.EPERM:
		return false, errnoOf(err)
	}
	return false, errno
}

// A sigset is larger than the kernel's on every architecture.
type sigset [16]byte

// execve first asks whether a program may be executed, which the kernel tells since Linux 6.14
// (AT_EXECVE_CHECK). Then it puts fds on the numbers from start up and executes a program under
// limit, the RLIMIT_NOFILE it is to have, nil = that of this process. If that fails, it puts saved
// there and the old limit back.
//
// The numbers may be those of the runtime's poller, so the runtime must not get hold of the thread
// before they are put back: by a garbage collection, for which nothing here allocates; when the
// goroutine is preempted, for which there is no function with a prologue here and no signal gets
// through; or when a system call begins, for which these are raw. What remains are the few
// instructions around execve, which must not have signals blocked.
//
//go:nosplit
//go:norace
func execve(argv0 *byte, argv, envv **byte, start int, fds, saved []int, limit *syscall.Rlimit) (errno syscall.Errno) {
	var dirfd = AT_FDCWD
	_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(dirfd), uintptr(unsafe.Pointer(argv0)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(envv)), _AT_EXECVE_CHECK, 0)
	switch errno {
	case 0, syscall.EINVAL, syscall.ENOSYS, syscall.EPERM: // or it cannot be asked
		errno = 0
	default:
		return errno
	}
	var old sigset
	var oldLimit syscall.Rlimit
	all := sigset{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), _SIGSET_SIZE, 0, 0)
	n := 0
	for ; n < len(fds) && errno == 0; n++ {
		_, _, errno = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(fds[n]), uintptr(start+n), 0)
	}
	if errno == 0 {
		_, _, refused := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(limit)), uintptr(unsafe.Pointer(&oldLimit)), 0, 0)
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, _SIGSET_SIZE, 0, 0)
		_, _, errno = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(argv0)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(envv)))
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, _SIGSET_SIZE, 0, 0)
		if refused == 0 {
			syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&oldLimit)), 0, 0, 0)
		}
	}
	for i := range n {
		syscall.RawSyscall(syscall.SYS_DUP3, uintptr(saved[i]), uintptr(start+i), syscall.O_CLOEXEC)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, _SIGSET_SIZE, 0, 0)
	return errno
}

// execveInPlace is execve for descriptors that are on their numbers already: then there is nothing
// to hide from the runtime, and other goroutines run while execve(2) is under way.
func execveInPlace(argv0 *byte, argv, envv **byte, limit *syscall.Rlimit) (errno syscall.Errno) {
	var dirfd = AT_FDCWD
	_, _, errno = syscall.Syscall6(unix.SYS_EXECVEAT, uintptr(dirfd), uintptr(unsafe.Pointer(argv0)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(envv)), _AT_EXECVE_CHECK, 0)
	switch errno {
	case 0, syscall.EINVAL, syscall.ENOSYS, syscall.EPERM:
	default:
		return errno
	}
	var oldLimit syscall.Rlimit
	_, _, refused := syscall.Syscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(limit)), uintptr(unsafe.Pointer(&oldLimit)), 0, 0)
	_, _, errno = syscall.Syscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(argv0)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(envv)))
	if refused == 0 {
		syscall.Syscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&oldLimit)), 0, 0, 0)
	}
	return errno
}

// setParentDeathSignal sets the signal that the calling thread gets when its parent dies, 0 = none.
func setParentDeathSignal(sig syscall.Signal) syscall.Errno {
	if check32(0, int(sig)) != 0 {
		return syscall.EINVAL
	}
	return errnoOf(unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0))
}

// fileLimit returns the RLIMIT_NOFILE of this process.
func fileLimit() (limit syscall.Rlimit, errno syscall.Errno) {
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return limit, errnoOf(err)
}

// setFileLimit is not syscall.Setrlimit, which is taken for a wish of the program's.
func setFileLimit(limit *syscall.Rlimit) syscall.Errno {
	_, _, errno := syscall.Syscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(limit)), 0, 0, 0)
	return errno
}

// fileLimitOfStarted returns the RLIMIT_NOFILE that the runtime gives to a process that it starts:
// the one with which this process itself was started, if the runtime has raised that. It must be
// called on a thread that has no other clone children and ends soon.
//
// The process executes nothing, for no program has that name, and so remains to be looked at: since
// it ends with another signal than SIGCHLD, it is a "clone child", for which only those can wait
// that ask for them: not those that wait for any child.
func fileLimitOfStarted() (limit syscall.Rlimit, ok bool) {
	const wclone = -1 << 31  // syscall.WCLONE is more than an int holds on 32 bits
	signal := syscall.SIGURG // the runtime sends it to itself, too, and by default it is ignored
	if signal&syscall.SIGCHLD != syscall.SIGCHLD {
		// ForkExec adds SIGCHLD, bit by bit. On MIPS this remains, the last one that there
		// is; elsewhere it is none, which Linux 7.3 refuses.
		signal = 127
	}
	syscall.ForkExec("", nil, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: uintptr(signal)}})
	// The thread may have children that others wait for. They are no clone children.
	const how = syscall.WEXITED | wclone
	var info siginfo
	if errno := uninterrupted(func() syscall.Errno { return waitOwn(0, how|syscall.WNOWAIT, &info, nil) }); errno != 0 {
		// There is none, or in an emulator it was one that ForkExec could wait for, or a
		// filter forbids waitid(2).
		syscall.Wait4(-1, nil, wclone|syscall.WNOTHREAD, nil)
		return limit, false
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(info.PID), syscall.RLIMIT_NOFILE, 0, uintptr(unsafe.Pointer(&limit)), 0, 0)
	uninterrupted(func() syscall.Errno { return waitOwn(int(info.PID), how, &info, nil) })
	return limit, errno == 0
}

// A scheduling is how a thread is scheduled, as far as it could be found out.
type scheduling struct {
	attr       *unix.SchedAttr
	affinity   []byte
	ioPriority int // negative if it is not known
}

// schedulingOf is about a thread, 0 = the calling one.
func schedulingOf(tid int) (s scheduling) {
	if check32(0, tid) != 0 {
		return scheduling{ioPriority: -1}
	}
	s.attr, _ = unix.SchedGetAttr(tid, 0) // Linux 3.14
	room := make([]byte, 8192/8)          // more processors than the kernel can be built for
	n, _, errno := syscall.Syscall(syscall.SYS_SCHED_GETAFFINITY, uintptr(tid), uintptr(len(room)), uintptr(unsafe.Pointer(&room[0])))
	if errno == 0 {
		s.affinity = room[:n]
	}
	s.ioPriority = -1
	if prio, _, errno := syscall.Syscall(unix.SYS_IOPRIO_GET, _IOPRIO_WHO_PROCESS, uintptr(tid), 0); errno == 0 {
		s.ioPriority = int(prio)
	}
	return s
}

// adoptScheduling has the calling thread be scheduled as the main one. What is the same already is
// not set: there are seccomp filters that let a thread ask, and kill one that sets.
func adoptScheduling() {
	want, is := schedulingOf(syscall.Getpid()), schedulingOf(0)
	if want.affinity != nil && is.affinity != nil && string(want.affinity) != string(is.affinity) {
		syscall.Syscall(syscall.SYS_SCHED_SETAFFINITY, 0, uintptr(len(want.affinity)), uintptr(unsafe.Pointer(&want.affinity[0])))
	}
	if want.attr != nil && is.attr != nil && *want.attr != *is.attr {
		unix.SchedSetAttr(0, want.attr, 0)
	}
	if want.ioPriority >= 0 && is.ioPriority >= 0 && want.ioPriority != is.ioPriority {
		syscall.Syscall(unix.SYS_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, uintptr(want.ioPriority))
	}
}
