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

// ExecListenFDs replaces this program by another one, as execve(2) does, and passes files to it as
// its descriptors from 3 up, in this order. It sets $LISTEN_FDS, $LISTEN_FDNAMES (from the names of
// the files), $LISTEN_PID and, if the kernel has pidfd IDs (see [PidFDIDOf]), $LISTEN_PIDFDID. They
// are right for the new program, which keeps the PID and the pidfd ID of this process, and so is
// $WATCHDOG_PID. Variables for passed descriptors in envv are dropped. With no files, none of them
// is set.
//
// To pass on what this process received, pass the result of [ListenFDs] in the same order. The
// descriptors may have other numbers now, and files may be added or left out.
//
// argv0 is the path of the program, and argv are its arguments, the first of which is its name. A
// file may be given twice. Its name may be any text without a NUL. A colon or backslash in it is
// written with a backslash before it, which [ListenFDs] and libsystemd remove; programs that use
// go-systemd do not, and read other names or too many. The blocking mode of a file does not change.
// Other descriptors that are not close-on-exec are inherited too, as with any execve.
//
// ExecListenFDs returns only if it fails. All descriptors and the limit of descriptors
// (RLIMIT_NOFILE) are then as they were. Concurrent calls run one after another.
//
// # In place, or with a table of its own
//
// If each number from 3 up is free or already belongs to the right file, the program is executed in
// place: it keeps the descriptor table of this process. That is so in a program that passes on what
// it received.
//
// If another descriptor is in the way, such as one of the Go runtime, the executing thread gets a
// descriptor table of its own. In a common table, other threads would find the wrong files, and a
// failure could not be undone. With [ExecConfig] ExecListenFDs returns an error instead.
//
// # What does not survive
//
// In both cases another thread than that of the caller executes the program. The program therefore
// gets:
//   - the scheduling of the main thread, which is the one that other programs set: policy,
//     priority, nice value, reset-on-fork, processor affinity and I/O priority. What this process
//     may not set is lost: after reset-on-fork, a thread needs CAP_SYS_NICE, or RLIMIT_RTPRIO and
//     RLIMIT_NICE, to get back a real-time policy or a negative nice value;
//   - a signal for the death of its parent only if [ExecConfig] asks for it;
//   - nothing that the caller has changed for its own thread under [runtime.LockOSThread]:
//     namespaces, capabilities, user IDs, security labels, seccomp filters, memory policy, timer
//     slack.
//
// With a table of its own, the program loses the fcntl(2) record locks (F_SETLK) of this process:
// they are released when the program starts, and another process can take them. In place they are
// kept, since Linux 5.11. The locks of flock(2) and open file description locks (F_OFD_SETLK) are
// kept in both cases, as long as their descriptor is. If execution in place fails, the record locks
// of a file that had to be given another number are released, because that number is closed again.
//
// As with any execve(2), all other threads end. Children whose [syscall.SysProcAttr] has Pdeathsig
// get that signal, and traced ones are no longer traced. They remain children of this process, and
// the new program has to wait for them.
//
// As with any execve(2), these end as well:
//   - memory mappings, memory locks and attached shared memory;
//   - descriptors that are close-on-exec, which in Go are nearly all, and message queues;
//   - timers of timer_create(2), but not those of setitimer(2) and alarm(2);
//   - asynchronous I/O, semaphores of sem_open(3), and the keyrings of the thread and the process;
//   - the name of the process, PR_SET_KEEPCAPS and PR_SET_DUMPABLE.
//
// User IDs and capabilities change as the file and capabilities(7) demand.
//
// Signals with a handler get their default action. Signals ignored with [os/signal.Ignore] remain
// ignored. Those that were already ignored when this program started do not, except SIGHUP and
// SIGINT, because the Go runtime installs handlers for all others. This matters for SIGPIPE, which
// systemd ignores for services (IgnoreSIGPIPE=): for a program that relies on it, call
// signal.Ignore(syscall.SIGPIPE) first.
//
// The limit of descriptors becomes what it was when this process started, unless something other
// than the Go runtime has changed it.
//
// # Failures
//
// While execve(2) is in progress, RLIMIT_NOFILE is already that of the new program. If execve fails
// after that, other goroutines may have got EMFILE in the meantime. Since Linux 6.14 most failures
// are found before that, by AT_EXECVE_CHECK.
//
// With a table of its own, a garbage collection waits for execve(2), and all goroutines wait for
// the collection. Where a filter forbids unshare(2), as that of Docker does, no goroutine runs
// while execve(2) is in progress, and after a failure [runtime.GOMAXPROCS] counts as set by the
// program. Where no process can be started to find out the limit of descriptors, processes started
// later inherit the raised limit of this process; a failed [syscall.Exec] has the same effect.
//
// Errors:
//   - those of execve(2);
//   - EINVAL if the name of a file contains a NUL;
//   - [os.ErrClosed] if a file is closed;
//   - EMFILE if more descriptors are needed than the process may have: up to three for each file;
//   - EPERM if a descriptor is in the way and a seccomp filter forbids a table of its own:
//     unshare(2), and close_range(2) with CLOSE_RANGE_UNSHARE (Linux 5.9).
func ExecListenFDs(argv0 string, argv, envv []string, files []*os.File) error {
	return ExecConfig{}.ExecListenFDs(argv0, argv, envv, files)
}

// An ExecConfig changes how a program is executed. The zero ExecConfig executes as the function
// [ExecListenFDs] does.
type ExecConfig struct {
	// InPlace executes the program with the descriptor table of this process or not at all, so
	// that record locks are kept. If a descriptor is in the way, the error is EBUSY and names
	// it. To avoid that, open what is to be passed first, on the numbers from 3 up.
	InPlace bool

	// Pdeathsig is the signal that the program gets when its parent dies, or 0 for none; see
	// PR_SET_PDEATHSIG in prctl(2). It is needed again if this process was started with it. If
	// the parent dies during ExecListenFDs, the signal is sent as well. The kernel drops it if
	// the program gains privileges. A number that is not a signal gives EINVAL.
	Pdeathsig syscall.Signal
}

// ExecListenFDs is the function [ExecListenFDs] with the changes that c asks for.
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

// executing is locked during an execution.
var executing struct {
	sync.Mutex
	forgotten     bool           // by the runtime, because of syscall.Exec: the limit with which it starts programs
	limit, raised syscall.Rlimit // it, and that of this process
}

// inheritedLimit returns the RLIMIT_NOFILE that this process was started with, which a program that
// it executes is to have. The runtime has raised the limit and does not say from what; a process
// that it starts shows it. inheritedLimit returns nil if the limit cannot be known because of a
// filter.
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

// inPlace executes the program unless a descriptor is in the way: then it has tried nothing, and
// the error names the descriptor.
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
			return refused(syscall.EBUSY, "descriptor "+strconv.Itoa(busy)+" ("+what+") is in the way of "+quote(files[busy-listenFDsStart].Name()))
		}
		return e.passing(len(fds))
	})
	return tried, err
}

// putInPlace duplicates descriptors to the numbers that they are to have, if those are free. The
// caller closes placed. busy is a number that another descriptor has, or -1.
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

// withOwnTable executes the program on a thread that has a descriptor table of its own. If that
// fails, the table ends with the thread, and so do the duplicates in it. In the common table they
// could not be closed without releasing the record locks on their files.
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

// prepareThread prepares the calling thread for execve.
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

// run executes the program with the descriptors from on the numbers from 3 up. If that fails, it
// puts saved there. alone says that no other thread shares the working directory of this one.
func (e *execution) run(alone bool, from, saved []int) error {
	if !alone {
		// The kernel refuses new threads meanwhile, at which the runtime gives up. It needs
		// none as long as no other goroutine runs: while this one has the only processor
		// and does not give it back.
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

// fdNames returns the names of files, for $LISTEN_FDNAMES.
func fdNames(files []*os.File) ([]string, error) {
	names := make([]string, len(files))
	for i, f := range files {
		if f == nil {
			return nil, os.ErrInvalid
		}
		if names[i] = f.Name(); strings.IndexByte(names[i], 0) >= 0 {
			return nil, refused(syscall.EINVAL, "descriptor name "+quote(names[i])+" contains a NUL")
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

// listenEnviron returns env with the variables that pass descriptors of these names to this
// process, or without any of them if there are no names.
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
		if name, _, _ := cut(s, '='); !slices.Contains(names, name) {
			out = append(out, s)
		}
	}
	return out
}

// RenewListenEnv returns environ with $LISTEN_PID and $LISTEN_PIDFDID changed to this process, for
// a wrapper that received descriptors meant for the process that started it. A receiver refuses
// descriptors with a new $LISTEN_PID and an old $LISTEN_PIDFDID.
//
// It is for a program that prepares something and then becomes another program by [syscall.Exec]
// with this environment, such as the init of a container. $LISTEN_FDS and $LISTEN_FDNAMES do not
// change. $LISTEN_PIDFDID is left out if the kernel has no pidfd IDs.
//
// $WATCHDOG_PID also becomes that of this process, if it was the process in $LISTEN_PID or is the
// parent, whether descriptors were passed or not. See [WatchdogInterval] for what else a watchdog
// needs.
//
// RenewListenEnv does not check which process was addressed: the caller knows that the descriptors
// from 3 up were passed to be handed on. They must be open and not close-on-exec, so call it before
// [ListenFDs], which takes them.
//
// If environ has no $LISTEN_FDS, nothing was passed, and the result is environ without the other
// variables for passed descriptors.
//
// Of the signals that this process ignores, the new program ignores those set with
// [os/signal.Ignore], SIGHUP and SIGINT. See [ExecListenFDs] for what that means for SIGPIPE.
//
// Errors:
//   - those of [ListenFDs] about $LISTEN_FDS and $LISTEN_FDNAMES;
//   - EMFILE, ENFILE or ENOMEM if they keep the process from learning its pidfd ID.
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

// lookupIn returns the value of a variable. The first of several counts, as for getenv(3).
func lookupIn(environ []string, name string) (value string, ok bool) {
	for _, s := range environ {
		if value, ok := strings.CutPrefix(s, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// renewWatchdog returns environ with the $WATCHDOG_PID of this process, if it was listenPID or is
// the parent.
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
