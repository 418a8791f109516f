//go:build linux

package sysfd

import (
	"cmp"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shimName is argv[0] of this program when it is started to become another one.
const shimName = "sysfd-listen-shim"

// shimReady is set once main has called ListenShim, so that a shim will call it too.
var shimReady atomic.Bool

// ListenShim lets [StartListenFDs] start programs where no process can be traced. Call it first in
// the main of a program that calls StartListenFDs, and first in TestMain of its tests. In most
// processes it does nothing. In a process that StartListenFDs has started to become another
// program, it becomes that program and does not return.
//
// Before main, such a process only runs the init functions of its packages. They must not start
// processes, which would inherit the files and be waited for.
//
// ListenShim recognizes its process by the name under which it was started. Because anybody can
// choose that name, it does not run if the process gained privileges by executing this program
// (setuid, setgid, capabilities: AT_SECURE of getauxval(3)).
func ListenShim() {
	if len(os.Args) == 0 || os.Args[0] != shimName {
		shimReady.Store(true)
		return
	}
	control, err := shimSocket(os.Args[1:])
	if err != nil {
		os.Stderr.WriteString("sysfd: " + err.Error() + "\n")
	} else if err = becomeRequested(control); err != nil {
		control.WriteString(strconv.Itoa(int(errnoIn(err))) + " " + err.Error())
	}
	os.Exit(127)
}

// StartListenFDs starts a program in a new process and passes files to it as its descriptors from 3
// up, as [ExecListenFDs] does, with the $LISTEN_PID and $LISTEN_PIDFDID of the new process. These
// values exist only once the process does. StartListenFDs therefore starts the program traced
// (ptrace(2)): the process stops after execve(2), before the program runs its first instruction,
// the values are written into its environment, and it continues untraced.
//
// The new process is a child of this one, and the caller must wait for it with [PidFD.Wait].
//
// argv0, argv and attr are those of [os.StartProcess]; attr may be nil. The first three attr.Files
// are the standard descriptors; /dev/null replaces those that are missing. The remaining attr.Files
// follow the passed files, and the program is not told about them. As with os.StartProcess,
// attr.Files are in blocking mode afterwards. The passed files keep their mode, stay open, and may
// be given twice.
//
// attr.Env is the environment of the program, or that of this process if it is nil. Variables about
// passed descriptors in it are dropped. If $WATCHDOG_PID in it is the PID of this process, the
// program gets its own PID instead. The program does not ignore the signals that this process
// ignores, except SIGHUP and SIGINT.
//
// With attr.Sys.Setctty, Ctty counts the passed files. As with os.StartProcess, Pdeathsig refers to
// the calling thread, so call [runtime.LockOSThread] first. With Ptrace, the process is left
// stopped, with its variables written, and the calling thread traces it: call LockOSThread first
// for this, too.
//
// Some programs cannot be started this way:
//   - any program where ptrace(2) is forbidden or missing: under some seccomp filters and
//     emulators, if kernel.yama.ptrace_scope is 2 or 3, and if this process is itself traced with
//     strace -f;
//   - setuid and setgid programs and programs with file capabilities, if the new process lacks
//     CAP_SYS_PTRACE: the kernel withholds privileges from a traced process;
//   - programs that the new process may execute but not read, if it lacks CAP_SYS_PTRACE;
//   - 64-bit programs, if this program has 32 bits and /proc is not mounted.
//
// In these cases StartListenFDs executes the current program again, which then becomes the other
// program, provided that main has called [ListenShim]; otherwise it returns an error. This second
// way needs /proc, and the new process must be allowed to execute the file of the current program
// and to start the threads of the Go runtime. It does not work with Chroot or Ptrace, nor with
// CLONE_NEWPID in Unshareflags.
//
// Tracing has these limits:
//   - Between fork(2) and execve(2) the new process must not stop. StartListenFDs blocks signals
//     for that time, but SIGSTOP cannot be blocked: sent in these microseconds, it makes
//     StartListenFDs wait until the process is killed. The same is true of SIGTRAP and the signals
//     that report faults, such as SIGSEGV, if another process sends them.
//   - This process receives an additional SIGCHLD, for the stop. Other code that calls wait4(2) for
//     any child may see the stop.
//   - If this process is killed before the new process has stopped, the program runs, but takes no
//     descriptors, because $LISTEN_PID does not match.
//   - /proc/PID/environ has zero bytes after the numbers that are written.
//   - No debugger can attach before the program has started.
//
// Errors, after which no process is left:
//   - those of os.StartProcess;
//   - EINVAL if the name of a file contains a NUL, or if attr.Sys.PidFD is set;
//   - [os.ErrClosed] if a file is closed;
//   - if neither way works, an error that says why the process cannot be traced. It unwraps to the
//     errno of ptrace(2), or to EPERM for a program that gains privileges and under a filter that
//     kills processes that call ptrace(2);
//   - ECHILD if the process ended before the program ran, or if other code in this process reaped
//     it;
//   - an error that matches [errors.ErrUnsupported] before Linux 5.3, which has no pidfds. Cleaning
//     up after another failure needs waitid(2) with P_PIDFD, Linux 5.4.
func StartListenFDs(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
	l, err := newLaunch(argv0, argv, attr, files)
	if err != nil {
		return nil, err
	}
	if l.sys.PidFD != nil {
		return nil, refused(syscall.EINVAL, "SysProcAttr.PidFD must be nil: StartListenFDs returns a PidFD")
	}
	null, err := l.completeStandard()
	if err != nil {
		return nil, err
	}
	defer null.Close()
	l.start = startByOS
	p, err := l.traced()
	if _, untraced := err.(*untracedError); untraced && l.shimFails() == "" {
		reapKilled(p)
		p, err = l.shim()
	}
	if err != nil && p == nil && l.pid != 0 { // there are no pidfds
		for status := syscall.WaitStatus(0); !status.Exited() && !status.Signaled(); {
			if _, err := syscall.Wait4(l.pid, &status, 0, nil); err != nil && err != syscall.EINTR {
				break
			}
		}
	}
	if err != nil {
		reapKilled(p)
		return nil, err
	}
	return p, nil
}

// startByOS leaves no os.Process behind.
func startByOS(name string, argv []string, attr *os.ProcAttr) (pid int, err error) {
	process, err := os.StartProcess(name, argv, attr)
	if errors.Is(err, syscall.EINVAL) {
		attr.Sys.PidFD = nil // qemu-user has no CLONE_PIDFD
		process, err = os.StartProcess(name, argv, attr)
	}
	if err != nil {
		return 0, err
	}
	defer process.Release()
	return process.Pid, nil
}

// StartListenFDsBy is [StartListenFDs] with a function in place of [os.StartProcess]. Package
// listenexec uses it to start an [os/exec.Cmd].
//
// It calls start at most once, in the calling goroutine, which is locked to its thread. start must
// start a process as os.StartProcess would with the same arguments, and return its PID. In attr,
// Env begins with variables that must stay in front, Sys asks for tracing and for a pidfd, and
// Files contains the passed files from index 3, which are closed afterwards. start may replace the
// first three Files, of which those that the caller did not give are nil. name and argv differ from
// argv0 and argv if [ListenShim] is needed.
//
// Because start is called only once, the way is chosen beforehand. In a program whose main calls
// ListenShim, StartListenFDsBy first starts a process that ends at once, to see whether it can be
// traced. Programs that cannot be traced for another reason, such as setuid programs, give an
// error.
//
// If StartListenFDsBy fails after start has succeeded, it has killed the process, and the caller
// must wait for it. If attr.Sys.PidFD is set, it receives a pidfd on success.
//
// Errors: those of start, and those of StartListenFDs.
func StartListenFDsBy(start func(name string, argv []string, attr *os.ProcAttr) (pid int, err error), argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) error {
	l, err := newLaunch(argv0, argv, attr, files)
	if err != nil {
		return err
	}
	l.start = start
	way := l.traced
	if l.shimFails() == "" && l.needsWriting() && l.tracingRefused() != 0 {
		way = l.shim
	}
	p, err := way()
	if p == nil {
		return err
	}
	defer p.Close()
	if err != nil || l.sys.PidFD == nil {
		return err
	}
	fd, errno := dupAbove(p.fd, 3)
	if errno != 0 {
		p.SendSignal(syscall.SIGKILL)
		return failed("fcntl", "F_DUPFD_CLOEXEC of a pidfd", errno)
	}
	*l.sys.PidFD = fd
	return nil
}

// A launch is the start of a program.
type launch struct {
	start func(name string, argv []string, attr *os.ProcAttr) (pid int, err error)

	argv0 string
	argv  []string
	dir   string
	std   []*os.File // three
	files []*os.File // to pass
	names []string   // of them
	more  []*os.File // behind them
	env   []string   // without the variables that the launch adds
	sys   syscall.SysProcAttr

	watchdog bool // $WATCHDOG_PID is to be that of the program

	pid int // of the last process that was started
}

func newLaunch(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*launch, error) {
	if attr == nil {
		attr = &os.ProcAttr{}
	}
	names, err := fdNames(files)
	if err != nil {
		return nil, err
	}
	l := &launch{argv0: argv0, argv: argv, dir: attr.Dir, std: make([]*os.File, 3), files: files, names: names}
	copy(l.std, attr.Files)
	if len(attr.Files) > 3 {
		l.more = attr.Files[3:]
	}
	for _, f := range attr.Files {
		if f == nil {
			continue
		}
		if err := withFD(f, func(int) {}); err != nil {
			return nil, err
		}
	}
	if attr.Sys != nil {
		l.sys = *attr.Sys
	}
	env := attr.Env
	if env == nil {
		env = os.Environ()
	}
	for _, s := range slices.Concat([]string{argv0}, argv, env) {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, refused(syscall.EINVAL, quote(s)+" contains a NUL")
		}
	}
	l.env, l.watchdog = withoutOwnWatchdog(withoutListenVars(env))
	return l, nil
}

// withoutOwnWatchdog returns env without $WATCHDOG_PID if that is the PID of this process.
func withoutOwnWatchdog(env []string) (_ []string, own bool) {
	value, ok := lookupIn(env, watchdogPID)
	if !ok {
		return env, false
	}
	if pid, errno := parsePID(value); errno != 0 || pid != uint64(syscall.Getpid()) {
		return env, false
	}
	return without(env, watchdogPID), true
}

// completeStandard puts /dev/null in place of the standard files that are missing.
func (l *launch) completeStandard() (null *os.File, err error) {
	if !slices.Contains(l.std, nil) {
		return nil, nil
	}
	if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for i, f := range l.std {
		if f == nil {
			l.std[i] = null
		}
	}
	return null, nil
}

// needsWriting reports whether the program needs variables whose values exist only once it runs.
func (l *launch) needsWriting() bool { return len(l.files) > 0 || l.watchdog }

// begin starts a process with an environment, and passes last after all other files. It gives
// os.StartProcess duplicates: that puts the files that it is given into blocking mode, which other
// users of the same socket do not expect.
func (l *launch) begin(name string, argv, env []string, trace bool, last ...*os.File) (p *PidFD, err error) {
	l.pid = 0
	var ours []*os.File
	defer func() {
		for _, f := range ours {
			f.Close()
		}
	}()
	attr := &os.ProcAttr{Dir: l.dir, Env: env, Files: slices.Clone(l.std)}
	for _, f := range l.files {
		f, err := DupFile(f, f.Name())
		if err != nil {
			return nil, err
		}
		ours, attr.Files = append(ours, f), append(attr.Files, f)
	}
	attr.Files = slices.Concat(attr.Files, l.more, last)

	sys, pidfd := l.sys, -1
	sys.PidFD, sys.Ptrace = &pidfd, sys.Ptrace || trace
	attr.Sys = &sys
	if l.pid, err = l.start(name, argv, attr); err != nil {
		if _, errno := stat(l.dir); l.dir != "" && l.sys.Chroot == "" && errno != 0 {
			err = failed("chdir", l.dir, errno)
		}
		return nil, err
	}
	if pidfd >= 0 {
		p = newPidFD(pidfd, "", uint64(l.pid))
	} else if p, err = OpenPidFD(l.pid, 0); err != nil {
		syscall.Kill(l.pid, syscall.SIGKILL)
		return nil, err
	}
	return p, nil
}

// An untracedError says why tracing cannot set the variables of a program.
type untracedError struct {
	why  error
	hint string
}

func (e *untracedError) Error() string {
	return "cannot trace the new process to set its variables: " + e.why.Error() + e.hint
}

func (e *untracedError) Unwrap() error { return e.why }

// untraced returns an error that says what would help.
func (l *launch) untraced(why error) *untracedError {
	return &untracedError{why: why, hint: " (" + cmp.Or(l.shimFails(), "ListenShim does not help here") + ")"}
}

// shimFails returns why a shim cannot do what is asked for, or "" if it can.
func (l *launch) shimFails() string {
	switch {
	case !shimReady.Load():
		return "call ListenShim at the start of main to do without tracing"
	case l.sys.Chroot != "":
		return "ListenShim does not work with SysProcAttr.Chroot"
	case l.sys.Ptrace:
		return "ListenShim does not work with SysProcAttr.Ptrace"
	}
	return ""
}

// tracingRefused calls the function of that name on a thread prepared for it.
func (l *launch) tracingRefused() (errno syscall.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, errno := blockSignals()
	if errno != 0 {
		return errno
	}
	defer setSignalMask(old)
	defer allowTracing()()
	return tracingRefused()
}

// Placeholders. They have room for any value, and are never right themselves: a program that reads
// them takes no descriptors.
const (
	noPID = "2147483647"
	noID  = "18446744073709551615"
)

// A blank is a variable that is to be filled in.
type blank struct {
	name, value string
	fill        func(pid int, id PidFDID) string
}

func (b *blank) String() string { return b.name + "=" + b.value }

// blanks returns the variables that are to be filled in.
func (l *launch) blanks() (blanks []blank, err error) {
	pidOf := func(pid int, _ PidFDID) string { return strconv.Itoa(pid) }
	if l.watchdog {
		blanks = append(blanks, blank{watchdogPID, noPID, pidOf})
	}
	if len(l.files) == 0 {
		return blanks, nil
	}
	blanks = append(blanks, blank{listenVarNames[listenPID], noPID, pidOf})
	_, err = selfID()
	switch {
	case err == nil:
		return append(blanks, blank{listenVarNames[listenPIDFDID], noID, func(_ int, id PidFDID) string { return id.String() }}), nil
	case cannotKnowID(err):
		return blanks, nil
	}
	return nil, err
}

// traced starts the program, stops it at its beginning, and fills in its variables. With an error,
// p is that of a process that has got SIGKILL, or nil.
func (l *launch) traced() (p *PidFD, err error) {
	blanks, err := l.blanks()
	if err != nil {
		return nil, err
	}
	if len(blanks) == 0 {
		return l.begin(l.argv0, l.argv, nonNil(l.env), false)
	}
	env := make([]string, 0, len(blanks)+2+len(l.env))
	for _, b := range blanks {
		env = append(env, b.String())
	}
	if len(l.files) > 0 {
		env = append(env, listenVarNames[listenFDs]+"="+strconv.Itoa(len(l.names)), listenVarNames[listenFDNames]+"="+joinNames(l.names))
	}
	env = append(env, l.env...)

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer allowTracing()()
	var mask signalMask
	func() {
		var errno syscall.Errno
		if mask, errno = blockSignals(); errno != 0 {
			err = failed("rt_sigprocmask", "", errno)
			return
		}
		defer setSignalMask(mask)
		if p, err = l.begin(l.argv0, l.argv, env, true); err != nil && l.pid == 0 {
			err = l.explain(err)
		}
	}()
	if err == nil {
		err = l.tell(p, blanks, mask)
	}
	if err != nil && p != nil {
		p.SendSignal(syscall.SIGKILL)
	}
	return p, err
}

// nonNil is for os.StartProcess, for which nil means the environment of this process.
func nonNil(env []string) []string {
	if env == nil {
		env = []string{}
	}
	return env
}

// explain returns an untracedError if a start failed because of tracing. The child reports only an
// errno, of whatever step failed.
func (l *launch) explain(err error) error {
	errno := errnoIn(err)
	switch errno {
	case 0, syscall.ENOENT, syscall.ENOEXEC, syscall.E2BIG, syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
		return err
	}
	if tracingRefused() == errno {
		return l.untraced(failed("ptrace", "PTRACE_TRACEME", errno))
	}
	return err
}

// tell waits for the process to stop at the beginning of the program, fills in the blanks, and lets
// it run.
func (l *launch) tell(p *PidFD, blanks []blank, mask signalMask) error {
	t, err := l.awaitStop(p)
	if err != nil {
		return err
	}
	if !l.sys.Ptrace {
		t.killIfOrphaned()
	}
	var id PidFDID
	if blanks[len(blanks)-1].name == listenVarNames[listenPIDFDID] {
		id, err = p.ID()
	}
	pid := 0
	if err == nil {
		pid, err = l.ownPID(p, t)
	}
	if err == nil {
		err = l.fill(t, blanks, pid, id)
	}
	if err == nil {
		if errno := t.setSignalMask(mask); errno != 0 {
			err = failed("ptrace", "PTRACE_SETSIGMASK", errno)
		}
	}
	if err == nil && !l.sys.Ptrace {
		if errno := t.detach(); errno != 0 {
			err = failed("ptrace", "PTRACE_DETACH", errno)
		}
	}
	if err == nil {
		return nil
	}
	ended := hasEnded(p)
	t.resume(int32(syscall.SIGKILL)) // a tracer may always send it
	if ended {
		return errEnded
	}
	return l.untraced(err)
}

var errEnded = refused(syscall.ECHILD, "the new process ended before the program ran")

// hasEnded reports whether the process is a zombie or was reaped.
func hasEnded(p *PidFD) bool {
	revents, errno := pollEnd(p.fd, 0)
	return errno == 0 && revents != 0
}

// awaitStop waits until the process has stopped. The process has already begun to execute the
// program.
//
// It asks repeatedly and does not wait for a report: other code in this process that waits for any
// child can take the report away.
func (l *launch) awaitStop(p *PidFD) (*tracee, error) {
	if err := l.awaitReport(p); err != nil {
		return nil, err
	}
	pause := time.Duration(0)
	for n := 0; ; n++ {
		t, errno := traceStop(l.pid)
		switch {
		case errno == 0 && syscall.Signal(t.stop.Signo) == syscall.SIGTRAP:
			return t, nil
		case errno == 0:
			t.resume(t.stop.Signo) // most likely a signal that ends it
		case errno != syscall.ESRCH:
			return nil, l.untraced(failed("ptrace", "PTRACE_GETSIGINFO", errno))
		case hasEnded(p):
			return nil, errEnded
		}
		if n < 100 {
			yield()
			continue
		}
		pause = min(pause+50*time.Microsecond, 5*time.Millisecond)
		pollFor(p.fd, pause)
	}
}

// awaitReport waits briefly for the process to stop or to end, without calling ptrace(2): a filter
// may kill processes that call it, and the new process was the first to do so. If other code takes
// the report away, nothing is known.
func (l *launch) awaitReport(p *PidFD) error {
	const look = syscall.WSTOPPED | syscall.WEXITED | syscall.WNOHANG | syscall.WNOWAIT
	begin := time.Now() // the process is nearly there, but a yield can take milliseconds
	for n := 0; n < 3 || time.Since(begin) < 100*time.Microsecond; n++ {
		var info siginfo
		errno := waitPidFD(p.fd, look, &info, nil)
		killed := info.Code == _CLD_KILLED || info.Code == _CLD_DUMPED
		switch {
		case errno == 0 && info.Signo == 0:
			yield()
		case errno == 0 && info.Code == _CLD_EXITED: // a filter had the call do nothing, and the program ran
			return l.untraced(failed("ptrace", "PTRACE_TRACEME", syscall.ENOSYS))
		case errno == 0 && killed && syscall.Signal(info.Status) == syscall.SIGSYS:
			return l.untraced(refused(syscall.EPERM, "a seccomp filter kills processes that call ptrace(2)"))
		case hasEnded(p):
			return errEnded
		default:
			return nil
		}
	}
	return nil
}

// ownPID returns the PID that the process has in its own pid namespace.
func (l *launch) ownPID(p *PidFD, t *tracee) (int, error) {
	if l.sys.Cloneflags&syscall.CLONE_NEWPID != 0 {
		return 1, nil
	}
	// The process itself sent the signal at the execve, or the kernel in its name.
	if int(t.stop.PID) == l.pid {
		return l.pid, nil
	}
	// This thread has another pid namespace for its children, or another process sent a signal.
	pids, err := p.NSPIDs()
	if err != nil {
		return 0, err
	}
	return pids[len(pids)-1], nil
}

// fill writes values in place of the blanks, which are the first variables.
func (l *launch) fill(t *tracee, blanks []blank, pid int, id PidFDID) error {
	if err := t.look(); err != nil {
		return err
	}
	defer t.close()
	// On the stack are argc, the words of argv, a NULL, those of the environment, a NULL, and
	// the auxiliary vector.
	argc, err := t.readWord(t.sp)
	if err != nil {
		return err
	}
	place := func(n uint64) uint64 { return t.sp + (1+argc+1+n)*uint64(t.word) }
	if err := l.keepsPrivileges(t, place(0)); err != nil {
		return err
	}
	for i, b := range blanks {
		at, err := t.readWord(place(uint64(i)))
		if err != nil {
			return err
		}
		is := make([]byte, len(b.String())+1)
		if err := t.read(at, is); err != nil {
			return err
		}
		if string(is) != b.String()+"\x00" {
			return refused(syscall.EOPNOTSUPP, b.name+" was not found in the memory of the program")
		}
		value := make([]byte, len(b.value)) // with NUL bytes in the end
		copy(value, b.fill(pid, id))
		if err := t.write(at+uint64(len(b.name)+1), value); err != nil {
			return err
		}
	}
	return nil
}

// keepsPrivileges returns EPERM if the program may have lost privileges because it is traced
// (security/commoncap.c, cap_bprm_creds_from_file). environ is where its variables begin.
func (l *launch) keepsPrivileges(t *tracee, environ uint64) error {
	// What counts is the privilege of the process before the execve.
	if hasCapability(unix.CAP_SYS_PTRACE) && l.sys.Credential == nil {
		return nil
	}
	err := l.gainsPrivileges(t, environ)
	if errors.Is(err, syscall.EPERM) && noNewPrivileges() {
		return nil // it would not have gained them untraced either
	}
	return err
}

// gainsPrivileges returns EPERM if the program gains privileges, or may.
func (l *launch) gainsPrivileges(t *tracee, environ uint64) error {
	// start of StartListenFDsBy may have added variables.
	auxv := environ
	for last := false; !last; auxv += uint64(t.word) {
		variable, err := t.readWord(auxv)
		if err != nil {
			return err
		}
		last = variable == 0
	}
	for ; ; auxv += 2 * uint64(t.word) {
		key, err := t.readWord(auxv)
		if err != nil {
			return err
		}
		if key == 0 {
			break
		}
		if key != _AT_SECURE {
			continue
		}
		value, err := t.readWord(auxv + uint64(t.word))
		if err != nil {
			return err
		}
		if value != 0 {
			return refused(syscall.EPERM, l.argv0+" gains privileges when executed, which tracing could remove")
		}
	}
	// AT_SECURE does not show capabilities of the file that are not effective at once.
	gives, known := fileGivesCapabilities("/proc/" + strconv.Itoa(t.pid) + "/exe")
	if !known && l.sys.Chroot == "" && (l.dir == "" || strings.HasPrefix(l.argv0, "/")) {
		gives, _ = fileGivesCapabilities(l.argv0)
	}
	if gives {
		return refused(syscall.EPERM, l.argv0+" gains capabilities when executed, which tracing could remove")
	}
	return nil
}

// reapKilled waits for a process that has got SIGKILL, and closes p, which may be nil. It uses the
// pidfd, because other code may have reaped the process, whose PID may then belong to another one.
func reapKilled(p *PidFD) {
	if p == nil {
		return
	}
	defer p.Close()
	// A process of another user may be out of reach, if this one has CAP_SETUID alone.
	if err := p.SendSignal(syscall.SIGKILL); err == nil || errors.Is(err, os.ErrProcessDone) || hasEnded(p) {
		// This holds a thread, but not for long, and makes a program 60 KB smaller than PidFD.Wait.
		var info siginfo
		for errno := syscall.Errno(0); errno == 0 && !info.isEnd(); { // a tracer is told of stops, too
			errno = uninterrupted(func() syscall.Errno { return waitPidFD(p.fd, syscall.WEXITED|syscall.WALL, &info, nil) })
		}
	}
}

// A startedShim is a shim and the other end of its socket.
type startedShim struct {
	pidfd   *PidFD
	control *os.File
}

const thisProgram = "/proc/self/exe"

// shim starts this program as a shim, which becomes the other program. With an error, p is as for
// traced.
func (l *launch) shim() (p *PidFD, err error) {
	s, err := l.startShim()
	if err != nil {
		return s.pidfd, err
	}
	defer s.control.Close()
	if err = s.release(newStartRequest(l), l.argv0); err != nil {
		s.pidfd.SendSignal(syscall.SIGKILL)
	}
	return s.pidfd, err
}

// startShim starts a shim with the environment of the program, because only the user of this
// process may see the environment of this process.
func (l *launch) startShim() (s startedShim, err error) {
	ours, theirs, err := controlSockets()
	if err != nil {
		return startedShim{}, err
	}
	s.control = os.NewFile(uintptr(ours), "shim")
	other := os.NewFile(uintptr(theirs), "shim")
	defer other.Close()
	words := []string{shimName, strconv.Itoa(len(l.std) + len(l.files) + len(l.more))}
	if s.pidfd, err = l.begin(thisProgram, words, nonNil(l.env), false, other); err != nil {
		s.control.Close()
	}
	return s, err
}

// controlSockets returns two sockets, the first of them in non-blocking mode. They are never
// standard descriptors, even if those are closed in this process: the runtime writes to the
// standard descriptors, and treats SIGPIPE there as the end.
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

// release lets the shim become argv0.
func (s *startedShim) release(request []byte, argv0 string) error {
	defer s.control.SetDeadline(time.Time{})
	s.patiently(func() (err error) {
		n, err := s.control.Write(request) // whether the shim has ended is found out next
		request = request[n:]
		return err
	})
	if err := withFD(s.control, func(fd int) { syscall.Shutdown(fd, syscall.SHUT_WR) }); err != nil {
		return err
	}
	var answer []byte
	s.patiently(func() error {
		more, err := io.ReadAll(s.control) // until the shim has executed the program, or ends
		answer = append(answer, more...)
		return err
	})
	number, text, _ := cut(string(answer), ' ')
	switch {
	case number == shimExecutes && text == "":
		return nil
	case number == shimExecutes:
		errno, _ := decimal(text, 31)
		return execError(argv0, syscall.Errno(errno))
	case number != "":
		errno, _ := decimal(number, 31)
		return refused(syscall.Errno(errno), "ListenShim in the process for "+argv0+": "+text)
	}
	return errEnded
}

// patiently calls f until it is done. If somebody stopped the shim in the meantime, it continues
// the shim: nobody else knows it yet.
func (s *startedShim) patiently(f func() error) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		s.control.SetDeadline(time.Now().Add(wait))
		if err := f(); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		var info siginfo
		const look = syscall.WSTOPPED | syscall.WNOHANG | syscall.WNOWAIT
		if errno := waitPidFD(s.pidfd.fd, look, &info, nil); errno == 0 && info.Signo != 0 {
			s.pidfd.SendSignal(syscall.SIGCONT)
		}
	}
}

// What a shim writes to its socket, followed by a space and an errno if execve fails. If it fails
// earlier, it writes an errno, a space and a text.
const shimExecutes = "execve"

// shimSocket returns the socket that the shim was started with.
func shimSocket(words []string) (*os.File, error) {
	fd := -1
	if len(words) == 1 {
		fd, _ = strconv.Atoi(words[0])
	}
	if flags, errno := fcntl(fd, syscall.F_GETFD, 0); fd <= 2 || errno != 0 || flags != 0 {
		return nil, refused(syscall.EINVAL, "only StartListenFDs may start this program as "+shimName)
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
		return nil // StartListenFDs has ended or given up
	}
	env, err := listenEnviron(r.env, r.names)
	if err != nil {
		return err
	}
	if r.watchdog {
		env = append(env, watchdogPID+"="+strconv.Itoa(syscall.Getpid()))
	}
	// The signal for the death of the parent belongs to a thread, and Go code can move to
	// another.
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

// A startRequest says what a shim is to become.
type startRequest struct {
	argv0            string
	names, argv, env []string
	parentDeath      syscall.Signal
	watchdog         bool
}

// newStartRequest returns a request as text: numbers and strings, each followed by a NUL.
func newStartRequest(l *launch) (text []byte) {
	watchdog := 0
	if l.watchdog {
		watchdog = 1
	}
	for _, n := range []int{int(l.sys.Pdeathsig), watchdog, len(l.names), len(l.argv), len(l.env)} {
		text = append(strconv.AppendInt(text, int64(n), 10), 0)
	}
	for _, s := range slices.Concat([]string{l.argv0}, l.names, l.argv, l.env) {
		text = append(append(text, s...), 0)
	}
	return text
}

// parseStartRequest is the reverse. It fails for text that was cut off.
func parseStartRequest(text string) (r startRequest, ok bool) {
	parts := strings.Split(text, "\x00")
	if len(parts) < 7 || parts[len(parts)-1] != "" {
		return r, false
	}
	var n [5]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(parts[i]); err != nil || n[i] < 0 || i > 0 && n[i] > len(parts) {
			return r, false
		}
	}
	r.parentDeath, r.watchdog, r.argv0 = syscall.Signal(n[0]), n[1] == 1, parts[5]
	parts = parts[6 : len(parts)-1]
	if len(parts) != n[2]+n[3]+n[4] {
		return r, false
	}
	r.names, r.argv, r.env = parts[:n[2]], parts[n[2]:n[2]+n[3]], parts[n[2]+n[3]:]
	return r, true
}

const _AT_SECURE = 23 // include/uapi/linux/auxvec.h

// checkPrivileges returns EPERM in a process that has more privileges than the one that executed
// it, which the kernel reports in AT_SECURE.
func checkPrivileges() error {
	auxv, err := readProc("/proc/self/auxv")
	if err != nil && !errors.Is(err, os.ErrPermission) { // EACCES: setuid, or a file that is not readable
		return err
	}
	if err != nil || auxvValue(auxv, _AT_SECURE) != 0 {
		return refused(syscall.EPERM, "ListenShim does not run with privileges that this program gained when executed (AT_SECURE): "+
			"its file is setuid, setgid, has capabilities or is not readable, or the effective user or group differs from the real one")
	}
	return nil
}

// auxvValue returns the value of an entry of the auxiliary vector, or 0 if there is none.
func auxvValue(auxv []byte, number uint64) uint64 {
	const size = longSize
	for ; len(auxv) >= 2*size; auxv = auxv[2*size:] {
		if readWord(auxv, size) == number {
			return readWord(auxv[size:], size)
		}
	}
	return 0
}
