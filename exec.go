//go:build linux

package sysfd

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// ExecListenFDs becomes another program, as execve(2) does, and passes files to
// it as its descriptors from 3 up, in this order. It sets $LISTEN_FDS,
// $LISTEN_FDNAMES (from the name of each file), $LISTEN_PID and, where the
// kernel has pidfd IDs (see [PidFDGetID]), $LISTEN_PIDFDID, all of which are true
// for the new program because it keeps the PID and the pidfd ID of this process.
// Whatever envv says of these variables is dropped. With no files, none is set.
//
// argv0 is the path of the program, argv its arguments from its name on. A file
// may be given twice. Whether a file is in blocking mode is left as it is.
//
// ExecListenFDs returns only if it fails, and then nothing has changed: the
// files, and all other descriptors of the process, are as they were. Errors:
// those of execve(2); EINVAL for a file whose name is not a [ValidFDName]; EMFILE
// if it takes more descriptors than the process may have; EPERM if a seccomp
// filter forbids a descriptor table of one's own (close_range(2) with
// CLOSE_RANGE_UNSHARE, Linux 5.9, or else unshare(2)).
func ExecListenFDs(argv0 string, argv, envv []string, files []*os.File) error {
	envv, err := listenEnviron(envv, files)
	if err != nil {
		return err
	}
	var fds []int // duplicates, above the numbers that they are to get
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	for _, f := range files {
		fd, err := dupAbove(f, listenFDsStart+len(files))
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}

	// The numbers from 3 up may be in use, by the runtime's poller for one, which
	// other threads wait on. So the thread that tries has a descriptor table of its
	// own, and if it comes to nothing the table goes with it.
	onThrowawayThread(func() { err = execWithFDs(argv0, argv, envv, fds) })
	return err
}

// onThrowawayThread calls f on a thread that ends with it.
func onThrowawayThread(f func()) {
	done := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlock: so the runtime ends the thread
		if tid := syscall.Gettid(); tid != syscall.Getpid() {
			f()
			done <- tid
			return
		}
		// The main thread cannot end. While it is locked here, others get another.
		onThrowawayThread(f)
		runtime.UnlockOSThread()
		done <- 0
	}()
	// What f did to the thread is gone when the thread is, a moment later.
	tid := <-done
	for i := 0; tid != 0 && i < 1e5 && syscall.Tgkill(syscall.Getpid(), tid, 0) == nil; i++ {
		runtime.Gosched()
	}
}

// execWithFDs is for a thread that is not used after it.
func execWithFDs(argv0 string, argv, envv []string, fds []int) error {
	if errno := unshareFiles(); errno != 0 {
		return &callError{call: "unshare", subject: "of the descriptor table", errno: errno}
	}
	// On its way to the end of the thread the runtime may still wake its poller.
	saved := make([]int, 0, len(fds))
	defer func() {
		for i, old := range saved {
			syscall.Dup3(old, listenFDsStart+i, syscall.O_CLOEXEC)
		}
	}()
	for i, fd := range fds {
		old, errno := fcntl(listenFDsStart+i, syscall.F_DUPFD_CLOEXEC, listenFDsStart+len(fds))
		switch errno {
		case syscall.EBADF:
			old = fd // the number is free: it does not matter what it is given back
		case 0:
		default:
			return &callError{call: "fcntl", subject: "F_DUPFD_CLOEXEC " + fdSubject(listenFDsStart+i), errno: errno}
		}
		saved = append(saved, old)
		if err := syscall.Dup3(fd, listenFDsStart+i, 0); err != nil {
			return &callError{call: "dup3", subject: fdSubject(fd), errno: err.(syscall.Errno)}
		}
	}
	err := syscall.Exec(argv0, argv, envv)
	if errno, ok := err.(syscall.Errno); ok {
		return &callError{call: "execve", subject: argv0, errno: errno}
	}
	return err
}

// dupAbove duplicates the descriptor of f to one that is no less than start.
func dupAbove(f *os.File, start int) (fd int, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	var errno syscall.Errno
	if err := conn.Control(func(old uintptr) {
		fd, errno = fcntl(int(old), syscall.F_DUPFD_CLOEXEC, start)
	}); err != nil {
		return -1, err
	}
	if errno != 0 {
		return -1, &callError{call: "fcntl", subject: "F_DUPFD_CLOEXEC of " + f.Name(), errno: errno}
	}
	return fd, nil
}

// listenEnviron returns env with the variables that address files to this process.
func listenEnviron(env []string, files []*os.File) ([]string, error) {
	var out []string
	for _, s := range env {
		name, _, _ := strings.Cut(s, "=")
		if !isListenVar(name) {
			out = append(out, s)
		}
	}
	if len(files) == 0 {
		return out, nil
	}
	names := make([]string, len(files))
	for i, f := range files {
		if f == nil {
			return nil, os.ErrInvalid
		}
		if names[i] = f.Name(); !ValidFDName(names[i]) {
			return nil, &inputError{text: strconv.Quote(names[i]) + " cannot be the name of a descriptor", errno: syscall.EINVAL}
		}
	}
	values := [listenVarCount]string{
		listenPID:     strconv.Itoa(syscall.Getpid()),
		listenFDs:     strconv.Itoa(len(files)),
		listenFDNames: strings.Join(names, ":"),
	}
	if id, err := selfID(); err == nil {
		values[listenPIDFDID] = id.String()
	}
	for i, name := range listenVarNames {
		if i != listenPIDFDID || values[i] != "" {
			out = append(out, name+"="+values[i])
		}
	}
	return out, nil
}

func isListenVar(name string) bool {
	for _, v := range listenVarNames {
		if name == v {
			return true
		}
	}
	return false
}

// ValidFDName tells whether $LISTEN_FDNAMES can carry a name: at most 255
// characters of printable ASCII, none of them a colon or a backslash. It is the
// rule of systemd (src/basic/fd-util.c, fdname_is_valid) but for the backslash,
// which libsystemd takes away when it reads the variable.
func ValidFDName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == ':' || c == '\\' {
			return false
		}
	}
	return len(name) <= 255
}
