//go:build linux

package sysfd

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unshareFiles gives the calling thread a descriptor table of its own, a copy
// of the one it shared with the other threads.
func unshareFiles() syscall.Errno {
	// CLONE_FS is for execve: while it is under way the kernel refuses new threads to
	// those who share its working directory, and the runtime does not take that.
	errno := errnoOf(syscall.Unshare(syscall.CLONE_FILES | syscall.CLONE_FS))
	if errno == 0 {
		return 0
	}
	// Linux 5.9. It closes nothing, for no descriptor has that number. Filters of
	// containers let it pass where they stop unshare(2).
	switch err := unix.CloseRange(^uint(0), ^uint(0), unix.CLOSE_RANGE_UNSHARE); err {
	case nil, syscall.EPERM:
		return errnoOf(err)
	}
	return errno
}

// A sigset is larger than the kernel's on every architecture.
type sigset [16]byte

// execve puts fds on the numbers from start up and executes a program under
// limit, the RLIMIT_NOFILE it is to have. If that fails, it puts saved there and
// the old limit back.
//
// The numbers may be those of the runtime's poller, so the runtime must not get
// hold of the thread before they are put back: by a garbage collection, for
// which nothing here allocates; when the goroutine is preempted, for which there
// is no function with a prologue here and no signal gets through; or when a system
// call begins, for which these are raw. What remains are the few instructions
// around execve, which must not have signals blocked.
//
//go:nosplit
//go:norace
func execve(argv0 *byte, argv, envv **byte, start int, fds, saved []int, limit *syscall.Rlimit) (errno syscall.Errno) {
	var old sigset
	var oldLimit syscall.Rlimit
	all := sigset{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), _SIGSET_SIZE, 0, 0)
	n := 0
	for ; n < len(fds) && errno == 0; n++ {
		_, _, errno = syscall.RawSyscall(syscall.SYS_DUP3, uintptr(fds[n]), uintptr(start+n), 0)
	}
	if errno == 0 {
		syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(limit)), uintptr(unsafe.Pointer(&oldLimit)), 0, 0)
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, _SIGSET_SIZE, 0, 0)
		_, _, errno = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(argv0)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(envv)))
		syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, _SIGSET_SIZE, 0, 0)
		syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&oldLimit)), 0, 0, 0)
	}
	for i := range n {
		syscall.RawSyscall(syscall.SYS_DUP3, uintptr(saved[i]), uintptr(start+i), syscall.O_CLOEXEC)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&old)), 0, _SIGSET_SIZE, 0, 0)
	return errno
}

// setParentDeathSignal sets the signal that the calling thread gets when its parent dies, 0 = none.
func setParentDeathSignal(sig syscall.Signal) syscall.Errno {
	if check32(0, int(sig)) != 0 {
		return syscall.EINVAL
	}
	return errnoOf(unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0))
}

// inheritedLimit returns the RLIMIT_NOFILE that this process was started with,
// and that a program it executes is to have: the runtime has raised it, and only
// syscall.Exec knows from what.
func inheritedLimit() (limit syscall.Rlimit, err error) {
	var raised syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return limit, os.NewSyscallError("getrlimit", err)
	}
	syscall.Exec("", nil, nil) // lowers it, and fails: no program has that name
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return limit, os.NewSyscallError("getrlimit", err)
	}
	// Not syscall.Setrlimit, which is taken for a wish of the program's.
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, syscall.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&raised)), 0, 0, 0)
	if errno != 0 {
		return limit, os.NewSyscallError("prlimit", errno)
	}
	return limit, nil
}
