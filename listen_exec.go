//go:build linux

package sysfd

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ExecListenFDs becomes another program, as execve(2) does, and passes files to
// it as its descriptors from 3 up, in this order. It sets $LISTEN_FDS,
// $LISTEN_FDNAMES (from the name of each file), $LISTEN_PID and, where the
// kernel has pidfd IDs (see [PidFDIDOf]), $LISTEN_PIDFDID, all of which are true
// for the new program because it keeps the PID and the pidfd ID of this process.
// $WATCHDOG_PID stays true as well. Whatever envv says of the variables for passed descriptors is
// dropped. With no files none of them is set.
//
// What this process received comes from [ListenFDs], and goes on to the new program as
// it came if it is passed on in that order: it does not matter which numbers the files
// have now. Others may be put among them or left out.
//
// argv0 is the path of the program, argv its arguments from its name on. A file
// may be given twice. Its name may be anything without a NUL: a colon or backslash in it is written
// with a backslash in front, which [ListenFDs] and libsystemd take away. Programs that do
// not, such as those that use go-systemd, read another name, or one name too many. Whether a file
// is in blocking mode is left as it is. Other descriptors that are not close-on-exec go along,
// as with any execve.
//
// ExecListenFDs returns only if it fails. Then the files, all other descriptors and the
// limit of descriptors (RLIMIT_NOFILE) are as they were. One call at a time is carried out.
//
// # In place, or with a table of its own
//
// If each number from 3 up is free, or is that of the very file that belongs there, the program is
// executed in place: with the descriptor table of this process. That is the case in a program that
// passes on what it was passed.
//
// If another descriptor is in the way, such as one of the Go runtime's, the thread that executes
// the program gets a descriptor table of its own. Otherwise other threads would find the wrong
// files, and a failure could not be undone. [ExecConfig] can ask for an error instead.
//
// # What does not survive
//
// In both cases another thread than the caller's executes the program. Therefore the program gets:
//
//   - the scheduling of the main thread, which is the one that others set: policy, priority, nice value,
//     reset-on-fork, processor affinity and I/O priority. What this process may not set is
//     not handed on: a thread that lost a real-time policy or a negative nice value by reset-on-fork
//     needs CAP_SYS_NICE, or RLIMIT_RTPRIO and RLIMIT_NICE, to take it again.
//   - a signal for the death of the parent only if [ExecConfig] asks for it.
//   - nothing that a caller has changed for its own thread alone, under [runtime.LockOSThread]:
//     namespaces, capabilities, user IDs, security labels, seccomp filters, memory policy, timer slack.
//
// With a table of its own, the program does not have the fcntl(2) record locks (F_SETLK) of this process: they
// are released when it begins, and another process can take them. In place they are kept,
// since Linux 5.11. Those of flock(2) and open file description locks (F_OFD_SETLK) are always
// kept as long as their descriptor is. A failure in place releases the record locks of a file that had
// to be given another number, for that is closed again.
//
// All other threads end, as with any execve(2) of a program with several. A process that was started with
// Pdeathsig in its [syscall.SysProcAttr] gets that signal, and one that is traced is let go. All remain
// children, and the new program has to wait for them.
//
// Every execve(2) ends: memory mappings and locks, and shared memory that is attached; descriptors that are
// close-on-exec, which in Go are nearly all, with message queues among them; timers of
// timer_create(2), but not those of setitimer(2) and alarm(2); asynchronous I/O; semaphores of sem_open(3); the
// keyrings of the thread and the process; the name of the process; PR_SET_KEEPCAPS and PR_SET_DUMPABLE. User IDs and
// capabilities become what the file and the rules of capabilities(7) make of them.
//
// Signals that are handled get their default action. Those that this program ignores by [os/signal.Ignore] remain
// ignored. Those that it was started with as ignored do not, but for SIGHUP and SIGINT,
// because the Go runtime handles all others. This concerns SIGPIPE, which systemd ignores for services
// (IgnoreSIGPIPE=): for a program that relies on that, call signal.Ignore(syscall.SIGPIPE) before.
//
// The limit of descriptors becomes what it was when this process was started, if no one but the Go
// runtime has changed it since.
//
// # Errors
//
// Those of execve(2); since Linux 6.14 most of them are found by AT_EXECVE_CHECK, before anything is
// changed. EINVAL for a file whose name has a NUL in it. [os.ErrClosed] for a file that is closed.
// EMFILE if it takes more descriptors than the process may have, which is up to
// three for each file. EPERM if there is something in the way and a seccomp filter forbids a descriptor table of
// one's own: unshare(2), or else close_range(2) with CLOSE_RANGE_UNSHARE, Linux 5.9.
//
// While execve(2) is under way, RLIMIT_NOFILE is already that of the new program. If it fails after
// all, other goroutines can have got EMFILE meanwhile.
//
// With a table of its own a garbage collection waits for execve(2), and with it all goroutines.
// Where a filter forbids unshare(2), as Docker's does, no goroutine runs while execve(2) is under way, and
// after a failure [runtime.GOMAXPROCS] counts as set by the program. Where no process can be
// started to find out the limit of descriptors, those that are started later inherit the limit to
// which the Go runtime has raised that of this process; [syscall.Exec] has the same effect if it fails.
func ExecListenFDs(argv0 string, argv, envv []string, files []*os.File) error {
	return ExecConfig{}.ExecListenFDs(argv0, argv, envv, files)
}

// An ExecConfig changes how a program is executed. The zero ExecConfig is how the function
// [ExecListenFDs] does it.
type ExecConfig struct {
	// InPlace has the program executed with the descriptor table of this process or not at all,
	// so that record locks are kept. If a descriptor is in the way, the error is EBUSY, and
	// names it. What helps is to open what is to be passed before anything else, on the numbers from 3 up.
	InPlace bool

	// Pdeathsig is the signal that the program gets when its parent dies, 0 = none; see
	// PR_SET_PDEATHSIG in prctl(2). It is needed again if this process was started with it. If the
	// parent dies during ExecListenFDs, the signal is sent, too. The kernel
	// drops it if the program gains privileges. For a number that is no signal the error is EINVAL.
	Pdeathsig syscall.Signal
}

// ExecListenFDs is the function [ExecListenFDs] as c says.
//
// Errors: those of the function, and those of the fields of c.
func (c ExecConfig) ExecListenFDs(argv0 string, argv, envv []string, files []*os.File) error {
	parent := syscall.Getppid()
	names, err := fdNames(files)
	if err != nil {
		return err
	}
	envv, err = listenEnviron(envv, names)
	if err != nil {
		return err
	}
	// What can be known before anything is touched.
	if err := syscall.Stat(argv0, new(syscall.Stat_t)); err != nil {
		return execError(argv0, err)
	}
	e := execution{argv0: argv0, argv: argv, envv: envv, deathSignal: c.Pdeathsig, parent: parent}
	if e.path, err = syscall.BytePtrFromString(argv0); err != nil {
		return err
	}
	if e.args, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return err
	}
	if e.env, err = syscall.SlicePtrFromStrings(envv); err != nil {
		return err
	}

	executing.Lock()
	defer executing.Unlock()
	e.limit = inheritedLimit()
	tried, err := e.inPlace(files)
	if tried || c.InPlace {
		return err
	}
	return e.withOwnTable(files)
}

// executing is locked by the one that executes a program.
var executing struct {
	sync.Mutex
	forgotten     bool           // by the runtime, because of syscall.Exec: the limit with which it starts programs
	limit, raised syscall.Rlimit // it, and that of this process
}

// inheritedLimit returns the RLIMIT_NOFILE that this process was started with, and that a program
// it executes is to have: the runtime has raised it, and shows from what only by what it does. It
// returns nil if that is not to be known, because of a filter.
func inheritedLimit() *syscall.Rlimit {
	raised, errno := fileLimit()
	switch {
	case errno != 0:
		return nil
	case raised.Cur != raised.Max-1:
		return &raised // it is not what the runtime makes of any
	case executing.forgotten && raised == executing.raised:
		return &executing.limit
	}
	var limit syscall.Rlimit
	known := false
	onThrowawayThread(func() { limit, known = fileLimitOfStarted() })
	if known {
		return &limit
	}
	syscall.Exec("", nil, nil) // lowers it, and fails: no program has that name
	if limit, errno = fileLimit(); errno != 0 {
		return nil
	}
	setFileLimit(&raised)
	executing.forgotten, executing.limit, executing.raised = true, limit, raised
	return &limit
}

// An execution is an attempt to become another program.
type execution struct {
	argv0      string
	argv, envv []string

	path      *byte
	args, env []*byte

	limit       *syscall.Rlimit
	deathSignal syscall.Signal
	parent      int
}

// inPlace executes the program, unless a descriptor is in the way: then it tried nothing, and says
// what is.
func (e *execution) inPlace(files []*os.File) (tried bool, err error) {
	tried = true
	err = withFDs(files, nil, func(fds []int) error {
		placed, busy, errno := putInPlace(fds)
		defer func() {
			for _, fd := range placed {
				syscall.Close(fd)
			}
		}()
		switch {
		case errno != 0:
			return failed("fcntl", "F_DUPFD_CLOEXEC", errno)
		case busy >= 0:
			tried = false
			what, _ := readlink("/proc/self/fd/" + strconv.Itoa(busy))
			return refused(syscall.EBUSY, "descriptor "+strconv.Itoa(busy)+" ("+what+") is in the way of "+strconv.Quote(files[busy-listenFDsStart].Name()))
		}
		return e.passing(len(fds))
	})
	return tried, err
}

// putInPlace duplicates descriptors to the numbers that they are to have, if those are free. What
// it returns is to be closed. Or a number is busy, and not by the descriptor itself.
func putInPlace(fds []int) (placed []int, busy int, _ syscall.Errno) {
	for i, fd := range fds {
		n := listenFDsStart + i
		if fd == n {
			continue
		}
		// Not on the number, which could have been taken by another goroutine a moment ago.
		got, errno := dupAbove(fd, n)
		if errno != 0 {
			return placed, -1, errno
		}
		placed = append(placed, got)
		if got != n {
			return placed, n, 0
		}
	}
	return placed, -1, 0
}

// passing executes the program with the descriptors from 3 up.
func (e *execution) passing(n int) (err error) {
	// What other goroutines start meanwhile must not get them.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	for fd := listenFDsStart; fd < listenFDsStart+n; fd++ {
		flags, _ := fcntl(fd, syscall.F_GETFD, 0)
		fcntl(fd, syscall.F_SETFD, flags&^syscall.FD_CLOEXEC)
		defer fcntl(fd, syscall.F_SETFD, flags)
	}
	onThrowawayThread(func() {
		alone := unshareFS() == 0
		if err = e.prepareThread(); err == nil {
			err = e.run(alone, nil, nil)
		}
	})
	return err
}

// withOwnTable executes the program on a thread that has a descriptor table of its own. If it comes
// to nothing the table goes with the thread. So do duplicates in it, which could not be closed in the
// common one: that would release the record locks on their files.
func (e *execution) withOwnTable(files []*os.File) error {
	return withFDs(files, nil, func(fds []int) (err error) {
		onThrowawayThread(func() { err = e.moving(fds) })
		return err
	})
}

func (e *execution) moving(fds []int) error {
	alone, errno := unshareFiles()
	if errno != 0 {
		return failed("unshare", "of the descriptor table", errno)
	}
	if err := e.prepareThread(); err != nil {
		return err
	}
	above := listenFDsStart + len(fds)
	from, saved := make([]int, len(fds)), make([]int, len(fds))
	for i, fd := range fds {
		if from[i], errno = dupAbove(fd, above); errno != 0 {
			return failed("fcntl", "F_DUPFD_CLOEXEC "+fdSubject(fd), errno)
		}
	}
	for i, fd := range from {
		old, errno := dupAbove(listenFDsStart+i, above)
		switch errno {
		case syscall.EBADF:
			old = fd // the number is free: it does not matter what it is given back
		case 0:
		default:
			return failed("fcntl", "F_DUPFD_CLOEXEC "+fdSubject(listenFDsStart+i), errno)
		}
		saved[i] = old
	}
	return e.run(alone, from, saved)
}

// prepareThread makes the calling thread the one that executes.
func (e *execution) prepareThread() error {
	adoptScheduling()
	if e.deathSignal == 0 {
		return nil
	}
	if errno := setParentDeathSignal(e.deathSignal); errno != 0 {
		return failed("prctl", "PR_SET_PDEATHSIG "+strconv.Itoa(int(e.deathSignal)), errno)
	}
	if syscall.Getppid() != e.parent {
		syscall.Kill(syscall.Getpid(), e.deathSignal)
	}
	return nil
}

// run executes the program with the descriptors from on the numbers from 3 up, where saved is put
// if that fails. alone tells that no other thread shares the working directory of this one.
func (e *execution) run(alone bool, from, saved []int) error {
	if !alone {
		// The kernel refuses new threads meanwhile, at which the runtime gives up. It needs none as
		// long as no other goroutine runs: while this one has the only processor and does not
		// give it back.
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	if alone && from == nil {
		return execError(e.argv0, execveInPlace(e.path, &e.args[0], &e.env[0], e.limit))
	}
	return execError(e.argv0, execve(e.path, &e.args[0], &e.env[0], listenFDsStart, from, saved, e.limit))
}

func execError(argv0 string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		return failed("execve", argv0, errno)
	}
	return err
}

// onThrowawayThread calls f on a thread that ends with it.
func onThrowawayThread(f func()) {
	done := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlock: so the runtime ends the thread
		if tid := syscall.Gettid(); tid != syscall.Getpid() {
			defer func() { done <- tid }() // also when f ends its goroutine
			f()
			return
		}
		// The main thread cannot end. While it is locked here, others get another.
		onThrowawayThread(f)
		runtime.UnlockOSThread()
		done <- 0
	}()
	// What f did to the thread is gone when the thread is, a moment later.
	tid := <-done
	for i := 0; tid != 0 && i < 1000 && syscall.Tgkill(syscall.Getpid(), tid, 0) == nil; i++ {
		time.Sleep(time.Duration(i) * time.Microsecond)
	}
}

// fdNames returns the names of files, which are to be those of their descriptors.
func fdNames(files []*os.File) ([]string, error) {
	names := make([]string, len(files))
	for i, f := range files {
		if f == nil {
			return nil, os.ErrInvalid
		}
		if names[i] = f.Name(); strings.IndexByte(names[i], 0) >= 0 {
			return nil, refused(syscall.EINVAL, strconv.Quote(names[i])+" cannot be the name of a descriptor: it has a NUL in it")
		}
	}
	return names, nil
}

// joinNames is the reverse of splitNames.
func joinNames(names []string) string {
	var text []byte
	for i, name := range names {
		if i > 0 {
			text = append(text, ':')
		}
		for _, c := range []byte(name) {
			if c == ':' || c == '\\' {
				text = append(text, '\\')
			}
			text = append(text, c)
		}
	}
	return string(text)
}

// listenEnviron returns env with the variables that address descriptors of these
// names to this process, or without any of them if there are no names.
func listenEnviron(env, names []string) ([]string, error) {
	if len(names) == 0 {
		return withoutListenVars(env), nil
	}
	var vars listenVars
	vars.put(listenFDs, strconv.Itoa(len(names)))
	vars.put(listenFDNames, joinNames(names))
	return vars.toSelf(env)
}

// toSelf returns env with the variables, addressed to this process.
func (v *listenVars) toSelf(env []string) ([]string, error) {
	v.put(listenPID, strconv.Itoa(syscall.Getpid()))
	id, err := selfID()
	switch {
	case err == nil:
		v.put(listenPIDFDID, id.String())
	case cannotKnowID(err):
		v[listenPIDFDID].set = false
	default:
		return nil, err
	}
	out := withoutListenVars(env)
	for i, name := range listenVarNames {
		if v[i].set {
			out = append(out, name+"="+v[i].value)
		}
	}
	return out, nil
}

func withoutListenVars(env []string) []string { return without(env, listenVarNames[:]...) }

// without returns env without the variables of these names.
func without(env []string, names ...string) (out []string) {
	for _, s := range env {
		if name, _, _ := strings.Cut(s, "="); !slices.Contains(names, name) {
			out = append(out, s)
		}
	}
	return out
}

// RenewListenEnv addresses to this process what was passed to another one, and came
// here because that one has started this one: it returns environ with $LISTEN_PID and,
// where the kernel has pidfd IDs, $LISTEN_PIDFDID of this process, and $LISTEN_FDS and
// $LISTEN_FDNAMES as they are in environ. It is for a program that prepares the way for
// another one and then becomes it by [syscall.Exec] with this environment: for an init of a
// container, or a wrapper. A receiver refuses descriptors with a new
// $LISTEN_PID and an old $LISTEN_PIDFDID.
//
// $WATCHDOG_PID becomes that of this process if it was that of the process which $LISTEN_PID
// addressed, or if it is that of the parent: with descriptors or without, the same process had been
// told to feed the watchdog. See [WatchdogInterval] for what else that takes.
//
// It does not ask who was addressed: who calls it knows that the descriptors from 3 up were
// passed to be handed on. They must be open and not close-on-exec, and so
// [ListenFDs], which takes them, must not have been called before.
//
// If environ has no $LISTEN_FDS, nothing was passed, and the result is environ without the
// other variables for passed descriptors, which would be stale.
//
// What this process ignores of signals the program ignores if it comes from
// [os/signal.Ignore], and otherwise does not but for SIGHUP and SIGINT; see [ExecListenFDs] for what that
// means to a service under systemd, which has SIGPIPE ignored.
//
// Errors: those of [ListenFDs] about $LISTEN_FDS and $LISTEN_FDNAMES. EMFILE, ENFILE or
// ENOMEM if these keep the process from learning its pidfd ID.
func RenewListenEnv(environ []string) ([]string, error) {
	vars := listenVarsOf(environ)
	environ = renewWatchdog(environ, vars[listenPID].value)
	if !vars[listenFDs].set {
		return withoutListenVars(environ), nil
	}
	names, err := vars.names()
	if err == nil {
		_, _, err = vars.passed(names, inherited)
	}
	if err != nil {
		return nil, err
	}
	return vars.toSelf(environ)
}

// lookupIn returns the value of a variable: the first of several counts, as for getenv(3).
func lookupIn(environ []string, name string) (value string, ok bool) {
	for _, s := range environ {
		if value, ok := strings.CutPrefix(s, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// renewWatchdog returns environ with the $WATCHDOG_PID of this process if it was that of listenPID, or
// of the parent.
func renewWatchdog(environ []string, listenPID string) []string {
	value, ok := lookupIn(environ, watchdogPID)
	if !ok {
		return environ
	}
	pid, errno := parsePID(value)
	if errno != 0 {
		return environ
	}
	addressed, errno := parsePID(listenPID)
	if pid != uint64(syscall.Getppid()) && (errno != 0 || pid != addressed) {
		return environ
	}
	return append([]string{watchdogPID + "=" + strconv.Itoa(syscall.Getpid())}, without(environ, watchdogPID)...)
}
