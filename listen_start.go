//go:build linux

package sysfd

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// shimName is the name of this program (argv[0]) when it is started to become another one.
const shimName = "sysfd-listen-shim"

// shimReady is set in a process whose main calls ListenShim, and so will that of a shim.
var shimReady atomic.Bool

// ListenShim is to be the first thing that main does in a program that calls
// [StartListenFDs], and TestMain in its tests. In most processes it does nothing. In one
// that StartListenFDs has started it does not return: it becomes the
// program that was to be started.
//
// Only what the program does before main also happens in that process: the init functions
// of its packages. They must not start processes, which would inherit the files and be waited for.
//
// ListenShim recognises its process by the name under which it was started. If the
// file of the program gives privileges to who executes it (setuid, setgid, capabilities: what
// the kernel tells a program by AT_SECURE, see getauxval(3)), that is refused: anybody could
// choose the name.
func ListenShim() {
	if len(os.Args) == 0 || os.Args[0] != shimName {
		shimReady.Store(true)
		return
	}
	control, err := shimSocket(os.Args[1:])
	if err != nil {
		os.Stderr.WriteString("sysfd: " + err.Error() + "\n")
	} else if err = becomeRequested(control); err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		control.WriteString(strconv.Itoa(int(errno)) + " " + err.Error())
	}
	os.Exit(127)
}

// StartListenFDs starts a program in a process of its own and passes files to it as its
// descriptors from 3 up, as [ExecListenFDs] does, with $LISTEN_PID and $LISTEN_PIDFDID of
// the new process. Only that process can know them, and Go code cannot run between
// fork and execve(2). StartListenFDs therefore executes the current program again; its
// main must call [ListenShim] first.
//
// argv0, argv and attr are those of [os.StartProcess]; attr may be nil. attr.Files are
// the standard descriptors 0 to 2, and /dev/null stands in for those that are not given. attr.Env is the environment of the program, or that of
// this process if it is nil; what it says of the variables for passed descriptors is
// dropped. What attr.Sys asks for is done before the shim runs; so a new pid namespace,
// another user or a cgroup is nothing special, but that user must be allowed to read and execute
// the file of this program. Signals that this process ignores are not ignored by the
// program, but for SIGHUP and SIGINT. The files may be given twice, and stay open and in
// their blocking mode.
//
// StartListenFDs returns when the program has been executed. The process is a child of this
// one, and it is up to the caller to wait for it with [PidFD.Wait]. It needs /proc.
//
// Errors, with which no process is left: those of execve(2), with argv0; those of starting
// a process. EINVAL if ListenShim was not called in this process; for a
// file whose name has a NUL in it; for more than three attr.Files;
// for Chroot, Ptrace and PidFD in attr.Sys. [os.ErrClosed] for a file that is closed.
// EPERM if the file of this program gives privileges, or is not readable; see ListenShim. One that matches
// [errors.ErrUnsupported] before Linux 5.3, which has no pidfds; to clean up after another
// failure takes waitid(2) with P_PIDFD, Linux 5.4.
func StartListenFDs(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
	if attr == nil {
		attr = &os.ProcAttr{}
	}
	names, err := fdNames(files)
	if err != nil {
		return nil, err
	}
	request, err := newStartRequest(argv0, argv, attr, names)
	if err != nil {
		return nil, err
	}
	s, err := startShim(attr, files)
	if err != nil {
		return nil, err
	}
	defer s.control.Close()
	if err := s.release(request, argv0); err != nil {
		return nil, s.abandon(err)
	}
	return s.pidfd, nil
}

// A startedShim is a shim and the other end of its socket.
type startedShim struct {
	pid     int
	pidfd   *PidFD
	control *os.File
}

const thisProgram = "/proc/self/exe"

func startShim(attr *os.ProcAttr, files []*os.File) (*startedShim, error) {
	if err := checkStart(attr); err != nil {
		return nil, err
	}
	var opened []int
	defer func() {
		for _, fd := range opened {
			syscall.Close(fd)
		}
	}()
	std := append(attr.Files[:len(attr.Files):len(attr.Files)], make([]*os.File, 3-len(attr.Files))...)
	fds := make([]uintptr, 0, 3+len(files)+1)
	for i, f := range append(std, files...) {
		if i < 3 && f == nil {
			fds = append(fds, ^uintptr(0)) // closed
			continue
		}
		fd, err := dupFile(f, 3)
		if err != nil {
			return nil, err
		}
		opened, fds = append(opened, fd), append(fds, uintptr(fd))
	}
	ours, theirs, err := controlSockets()
	if err != nil {
		return nil, err
	}
	opened, fds = append(opened, theirs), append(fds, uintptr(theirs))
	s := &startedShim{control: os.NewFile(uintptr(ours), "shim")}

	var sys syscall.SysProcAttr
	if attr.Sys != nil {
		sys = *attr.Sys
	}
	pidfd := -1
	sys.PidFD = &pidfd
	fork := &syscall.ProcAttr{Dir: attr.Dir, Env: os.Environ(), Files: fds, Sys: &sys}
	words := []string{shimName, strconv.Itoa(len(fds) - 1)}
	s.pid, err = syscall.ForkExec(thisProgram, words, fork)
	if err == syscall.EINVAL {
		sys.PidFD = nil // qemu-user lets no clone(2) give one
		s.pid, err = syscall.ForkExec(thisProgram, words, fork)
	}
	if err != nil {
		s.control.Close()
		if _, errno := stat(attr.Dir); attr.Dir != "" && errno != 0 {
			return nil, failed("chdir", attr.Dir, errno)
		}
		if errno, ok := err.(syscall.Errno); ok {
			err = failed("fork/exec", thisProgram, errno)
		}
		return nil, err
	}
	if pidfd >= 0 {
		s.pidfd = newPidFD(pidfd, "", uint64(s.pid))
	} else if s.pidfd, err = OpenPidFD(s.pid, 0); err != nil {
		return nil, s.abandon(err)
	}
	return s, nil
}

// controlSockets returns two sockets, of which the first is in non-blocking mode. They are no
// standard descriptors, if those are closed in this process: the runtime writes to
// them, and takes SIGPIPE there for the end.
func controlSockets() (ours, theirs int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	if err := syscall.SetNonblock(pair[0], true); err != nil {
		return -1, -1, os.NewSyscallError("fcntl", err)
	}
	ours, errno := dupAbove(pair[0], 3)
	if errno == 0 {
		if theirs, errno = dupAbove(pair[1], 3); errno == 0 {
			return ours, theirs, nil
		}
		syscall.Close(ours)
	}
	return -1, -1, failed("fcntl", "F_DUPFD_CLOEXEC of a socket", errno)
}

// checkStart tells what startShim could not do as it is asked to.
func checkStart(attr *os.ProcAttr) error {
	text := ""
	switch sys := attr.Sys; {
	case !shimReady.Load():
		text = "StartListenFDs needs a call of ListenShim at the start of main"
	case len(attr.Files) > 3:
		text = strconv.Itoa(len(attr.Files)) + " files in ProcAttr.Files, where three are the standard ones: those to pass come apart"
	case sys == nil:
	case sys.Chroot != "":
		text = "SysProcAttr.Chroot " + strconv.Quote(sys.Chroot) + ": this program is not in there"
	case sys.Ptrace:
		text = "SysProcAttr.Ptrace would trace the shim"
	case sys.PidFD != nil:
		text = "SysProcAttr.PidFD is not for StartListenFDs, which returns a PidFD"
	}
	if text != "" {
		return refused(syscall.EINVAL, text)
	}
	return nil
}

// release lets the shim become argv0.
func (s *startedShim) release(request []byte, argv0 string) error {
	s.control.Write(request) // if the shim has ended, that is found out next
	if err := withFD(s.control, func(fd int) { syscall.Shutdown(fd, syscall.SHUT_WR) }); err != nil {
		return err
	}
	answer, _ := io.ReadAll(s.control) // ends when the shim has executed the program, or itself ends
	number, text, _ := strings.Cut(string(answer), " ")
	switch {
	case number == shimExecutes && text == "":
		return nil
	case number == shimExecutes:
		errno, _ := strconv.Atoi(text)
		return execError(argv0, syscall.Errno(errno))
	case number != "":
		errno, _ := strconv.Atoi(number)
		return refused(syscall.Errno(errno), "the process that was to become "+argv0+": "+text)
	}
	return errShimEnded
}

var errShimEnded = refused(syscall.ECHILD, "the process that was to become the program has ended before")

// abandon ends the shim and returns why. It goes by the pidfd: if somebody else has waited for
// the shim, its PID may be that of another process.
func (s *startedShim) abandon(why error) error {
	s.control.Close()
	if s.pidfd == nil {
		syscall.Wait4(s.pid, nil, 0, nil) // it was told nothing, and so ends
		return why
	}
	defer s.pidfd.Close()
	s.pidfd.SendSignal(syscall.SIGKILL) // it may be what hangs
	r, err := s.pidfd.Wait(context.Background(), 0)
	if why == errShimEnded && err == nil {
		return refused(errShimEnded.errno, errShimEnded.text+": "+r.String())
	}
	return why
}

// What a shim says on its socket, with a space and an errno behind it if execve fails. If it
// does not come to that, it is an errno, a space and words.
const shimExecutes = "execve"

// shimSocket returns the socket that a shim was given.
func shimSocket(words []string) (*os.File, error) {
	fd := -1
	if len(words) == 1 {
		fd, _ = strconv.Atoi(words[0])
	}
	if flags, errno := fcntl(fd, syscall.F_GETFD, 0); fd <= 2 || errno != 0 || flags != 0 {
		return nil, refused(syscall.EINVAL, shimName+" is what StartListenFDs starts, and no one else")
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "socket"), nil
}

// becomeRequested becomes the program that is requested on the socket.
func becomeRequested(control *os.File) error {
	if err := checkPrivileges(); err != nil {
		return err
	}
	text, err := io.ReadAll(control)
	if err != nil {
		return err
	}
	r, ok := parseStartRequest(string(text))
	if !ok {
		return nil // who started this has ended or given up
	}
	env, err := listenEnviron(renewWatchdog(r.env, ""), r.names) // it is the parent that passes one on
	if err != nil {
		return err
	}
	// The parent's death is a signal to a thread, which is not always the one that
	// Go code gets to run on.
	runtime.LockOSThread()
	if errno := setParentDeathSignal(r.parentDeath); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	if _, err := control.WriteString(shimExecutes); err != nil {
		return nil // it has ended, perhaps before the signal was set
	}
	errno, _ := syscall.Exec(r.argv0, r.argv, env).(syscall.Errno)
	control.WriteString(" " + strconv.Itoa(int(errno)))
	return nil
}

// A startRequest is what a shim is told.
type startRequest struct {
	argv0            string
	names, argv, env []string
	parentDeath      syscall.Signal
}

// newStartRequest returns it as text: numbers and strings, each with a NUL behind it.
func newStartRequest(argv0 string, argv []string, attr *os.ProcAttr, names []string) ([]byte, error) {
	env, parentDeath := attr.Env, syscall.Signal(0)
	if env == nil {
		env = os.Environ()
	}
	if attr.Sys != nil {
		parentDeath = attr.Sys.Pdeathsig
	}
	var text []byte
	for _, n := range []int{int(parentDeath), len(names), len(argv), len(env)} {
		text = append(strconv.AppendInt(text, int64(n), 10), 0)
	}
	for _, s := range slices.Concat([]string{argv0}, names, argv, env) {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, refused(syscall.EINVAL, strconv.Quote(s)+" has a NUL in it")
		}
		text = append(append(text, s...), 0)
	}
	return text, nil
}

// parseStartRequest is the reverse. It fails for text that was cut off.
func parseStartRequest(text string) (r startRequest, ok bool) {
	parts := strings.Split(text, "\x00")
	if len(parts) < 6 || parts[len(parts)-1] != "" {
		return r, false
	}
	var n [4]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(parts[i]); err != nil || n[i] < 0 || i > 0 && n[i] > len(parts) {
			return r, false
		}
	}
	r.parentDeath, r.argv0 = syscall.Signal(n[0]), parts[4]
	parts = parts[5 : len(parts)-1]
	if len(parts) != n[1]+n[2]+n[3] {
		return r, false
	}
	r.names, r.argv, r.env = parts[:n[1]], parts[n[1]:n[1]+n[2]], parts[n[1]+n[2]:]
	return r, true
}

// checkPrivileges returns EPERM in a process that has more privileges than the one that
// executed it, as the kernel tells the C library by AT_SECURE.
func checkPrivileges() error {
	const _AT_SECURE = 23 // include/uapi/linux/auxvec.h
	auxv, err := os.ReadFile("/proc/self/auxv")
	if err != nil && !errors.Is(err, os.ErrPermission) { // EACCES: setuid, or a file that is not readable
		return err
	}
	if err != nil || auxvValue(auxv, _AT_SECURE) != 0 {
		return refused(syscall.EPERM, "the file of this program gives privileges to who executes it, which StartListenFDs would give away, or is not readable")
	}
	return nil
}

// auxvValue returns the value that the kernel gives to a program under a number, 0 if none.
func auxvValue(auxv []byte, number uint64) uint64 {
	size := 4
	word := func(b []byte) uint64 { return uint64(native32(b)) }
	if is64bit {
		size, word = 8, native64
	}
	for ; len(auxv) >= 2*size; auxv = auxv[2*size:] {
		if word(auxv) == number {
			return word(auxv[size:])
		}
	}
	return 0
}
