//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A programError says why a program was not executed.
type programError struct{ error }

func (e programError) Unwrap() error { return e.error }

// status is that of env(1) and of shells.
func (e programError) status() int {
	if errors.Is(e, exec.ErrNotFound) || errors.Is(e, os.ErrNotExist) {
		return statusNotFound
	}
	return statusCannotExecute
}

// lookPath returns the path of a program, found as execvp(3) finds it.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || errors.Is(err, exec.ErrDot) {
		return path, nil
	}
	if errors.Is(err, exec.ErrNotFound) && name != "" {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if _, there := os.Stat(filepath.Join(dir, name)); there == nil || errors.Is(there, os.ErrPermission) {
				err = &exec.Error{Name: name, Err: syscall.EACCES}
			}
		}
	}
	return "", programError{err}
}

// execError makes an error of ExecListenFDs or StartListenFDs a programError if it is about the program.
func execError(err error) error {
	var call *os.SyscallError
	if errors.As(err, &call) && call.Syscall == "execve" {
		return programError{err}
	}
	return err
}

func isListenVar(name string) bool {
	return slices.Contains([]string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}, name)
}

// become executes a program, and returns if that fails.
func (c *call) become(path string, argv, environ []string) error {
	c.ignored.apply()
	return programError{&os.PathError{Op: "execve", Path: path, Err: syscall.Exec(path, argv, environ)}}
}

// ignoredSignals are the signals that a program shall start with ignored. The Go runtime handles all signals, and does
// not say which were ignored before. A program gets the default action for a signal that was handled.
type ignoredSignals []syscall.Signal

func (c *call) ignoreSignalFlag() {
	c.Func("ignore-signal", "start PROGRAM with these `SIGNALS` ignored, by name or number, separated by commas. systemd starts services with PIPE ignored; without this flag, PROGRAM does not inherit that", func(list string) error {
		for _, name := range strings.Split(list, ",") {
			sig, ok := signalNumber(name)
			switch {
			case !ok || sig == 0:
				return fmt.Errorf("%q is not a signal", name)
			case sig >= 32 && sig <= 34 || slices.Contains(cannotIgnore, unix.SignalName(sig)):
				return fmt.Errorf("%s cannot be ignored", name)
			}
			c.ignored = append(c.ignored, sig)
		}
		return nil
	})
}

// cannotIgnore are the signals that the kernel or the Go runtime keeps for itself. C libraries do so with 32 to 34.
var cannotIgnore = []string{
	"SIGKILL", "SIGSTOP", "SIGILL", "SIGTRAP", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS", "SIGPROF", "SIGSTKFLT", "SIGEMT",
}

// apply is called just before a program is executed.
func (s ignoredSignals) apply() {
	for _, sig := range s {
		signal.Ignore(sig)
	}
}

// words returns the arguments of sysfd exec that have the same effect.
func (s ignoredSignals) words() (words []string) {
	for _, sig := range s {
		words = append(words, "-ignore-signal="+strconv.Itoa(int(sig)))
	}
	return words
}

// reserve3 keeps the runtime from opening something, such as its poller, as descriptor 3. It reports whether the
// descriptor is free for a file: reserved, or passed to this command, and not the runtime's.
func reserve3() (free bool, err error) {
	flags, err := unix.FcntlInt(3, unix.F_GETFD, 0)
	if err != unix.EBADF {
		return err == nil && flags&unix.FD_CLOEXEC == 0, err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	if null == 3 {
		return true, nil
	}
	defer unix.Close(null)
	return true, os.NewSyscallError("dup3", unix.Dup3(null, 3, unix.O_CLOEXEC))
}

// becomeWith3 executes a program with a file as its descriptor 3. The program must not take that for a socket that was
// passed to this process, as the environment may say.
func (c *call) becomeWith3(f *os.File, free bool, path string, argv []string) (err error) {
	become := func() error {
		if err := unix.Dup3(int(f.Fd()), 3, 0); err != nil { // Fd sets it to blocking mode
			return os.NewSyscallError("dup3", err)
		}
		environ := slices.DeleteFunc(os.Environ(), func(e string) bool {
			name, _, _ := strings.Cut(e, "=")
			return isListenVar(name)
		})
		return c.become(path, argv, environ)
	}
	if free {
		return become()
	}
	// The runtime needs its descriptor 3 until the other threads have ended. Therefore the thread that executes gets a
	// descriptor table of its own. If a filter forbids that, the execution most likely succeeds all the same.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		unix.Unshare(unix.CLONE_FILES | unix.CLONE_FS)
		err = become()
	}()
	<-done
	return err
}
