//go:build linux

package sysfd

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ExecListenFDs becomes another program, as execve(2) does, and passes files to
// it as its descriptors from 3 up, in this order. It sets $LISTEN_FDS,
// $LISTEN_FDNAMES (from the name of each file), $LISTEN_PID and, where the
// kernel has pidfd IDs (see [PidFDIDOf]), $LISTEN_PIDFDID, all of which are true
// for the new program because it keeps the PID and the pidfd ID of this process.
// Whatever envv says of these variables is dropped. With no files none is set, and
// it is [syscall.Exec].
//
// What this process received comes from [ListenFDs], and goes on to the new program as
// it came if it is passed on in that order: it does not matter which numbers the files
// have now. Others may be put among them or left out.
//
// argv0 is the path of the program, argv its arguments from its name on. A file
// may be given twice. Whether a file is in blocking mode is left as it is. Other
// descriptors that are not close-on-exec go along, as with any execve.
//
// The program is executed by a thread of its own. What a caller has changed for
// its own thread alone, under [runtime.LockOSThread], is not handed on: namespaces,
// capabilities, security labels, scheduling.
//
// ExecListenFDs returns only if it fails, and then the files and all other
// descriptors of the process are as they were. Like syscall.Exec, a failure can
// have the effect that programs started later inherit the limit of descriptors
// (RLIMIT_NOFILE) to which the Go runtime has raised that of this process.
//
// Errors: those of execve(2); EINVAL for a file whose name is not a [ValidFDName];
// [os.ErrClosed] for one that is closed;
// EMFILE if it takes more descriptors than the process may have, which is up to
// three for each file; EPERM if a seccomp filter forbids a descriptor table of one's
// own (unshare(2), or else close_range(2) with CLOSE_RANGE_UNSHARE, Linux 5.9).
func ExecListenFDs(argv0 string, argv, envv []string, files []*os.File) error {
	names, err := fdNames(files)
	if err != nil {
		return err
	}
	envv, err = listenEnviron(envv, names)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return execError(argv0, syscall.Exec(argv0, argv, envv))
	}
	// What can be known before anything is touched.
	if err := syscall.Stat(argv0, new(syscall.Stat_t)); err != nil {
		return execError(argv0, err)
	}
	path, err := syscall.BytePtrFromString(argv0)
	if err != nil {
		return err
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(envv)
	if err != nil {
		return err
	}
	limit, err := inheritedLimit()
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
		fd, err := dupFile(f, listenFDsStart+len(files))
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}

	// The numbers from 3 up may be in use, by the runtime's poller for one, which
	// other threads wait on. So the thread that tries has a descriptor table of its
	// own, and if it comes to nothing the table goes with it.
	onThrowawayThread(func() {
		if errno := unshareFiles(); errno != 0 {
			err = failed("unshare", "of the descriptor table", errno)
			return
		}
		saved := make([]int, len(fds))
		for i, fd := range fds {
			old, errno := dupAbove(listenFDsStart+i, listenFDsStart+len(fds))
			switch errno {
			case syscall.EBADF:
				old = fd // the number is free: it does not matter what it is given back
			case 0:
			default:
				err = failed("fcntl", "F_DUPFD_CLOEXEC "+fdSubject(listenFDsStart+i), errno)
				return
			}
			saved[i] = old
		}
		err = execError(argv0, execve(path, &args[0], &env[0], listenFDsStart, fds, saved, &limit))
	})
	return err
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
	for i := 0; tid != 0 && i < 1000 && syscall.Tgkill(syscall.Getpid(), tid, 0) == nil; i++ {
		time.Sleep(time.Duration(i) * time.Microsecond)
	}
}

// dupFile duplicates the descriptor of f; see dupAbove.
func dupFile(f *os.File, start int) (fd int, err error) {
	var errno syscall.Errno
	if err := withFD(f, func(old int) { fd, errno = dupAbove(old, start) }); err != nil {
		return -1, err
	}
	if errno != 0 {
		return -1, failed("fcntl", "F_DUPFD_CLOEXEC of "+f.Name(), errno)
	}
	return fd, nil
}

// fdNames returns the names of files, which are to be those of their descriptors.
func fdNames(files []*os.File) ([]string, error) {
	names := make([]string, len(files))
	for i, f := range files {
		if f == nil {
			return nil, os.ErrInvalid
		}
		if names[i] = f.Name(); !ValidFDName(names[i]) {
			return nil, refused(syscall.EINVAL, strconv.Quote(names[i])+" cannot be the name of a descriptor")
		}
	}
	return names, nil
}

// listenEnviron returns env with the variables that address descriptors of these
// names to this process, or without any of them if there are no names.
func listenEnviron(env, names []string) ([]string, error) {
	if len(names) == 0 {
		return withoutListenVars(env), nil
	}
	var vars listenVars
	vars.put(listenFDs, strconv.Itoa(len(names)))
	vars.put(listenFDNames, strings.Join(names, ":"))
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

func withoutListenVars(env []string) (out []string) {
	for _, s := range env {
		name, _, _ := strings.Cut(s, "=")
		if !isListenVar(name) {
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
// It does not ask who was addressed: who calls it knows that the descriptors from 3 up were
// passed to be handed on. They must be open and not close-on-exec, and so
// [ListenFDs], which takes them, must not have been called before.
//
// If environ has no $LISTEN_FDS, nothing was passed, and the result is environ without the
// others, which would be stale.
//
// Errors: those of [ListenFDs] about $LISTEN_FDS and $LISTEN_FDNAMES. EMFILE, ENFILE or
// ENOMEM if these keep the process from learning its pidfd ID.
func RenewListenEnv(environ []string) ([]string, error) {
	vars := listenVarsOf(environ)
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

func isListenVar(name string) bool { return slices.Contains(listenVarNames[:], name) }
