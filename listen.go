//go:build linux

package sysfd

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

// The variables of socket activation.
const (
	listenPID = iota
	listenPIDFDID
	listenFDs
	listenFDNames
	listenVarCount
)

var listenVarNames = [listenVarCount]string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}

// listenVars are the variables as found.
type listenVars [listenVarCount]struct {
	value string
	set   bool
}

func (v *listenVars) put(i int, value string) { v[i].value, v[i].set = value, true }

// ownListenVars returns the variables of this process.
func ownListenVars() (v listenVars) {
	for i, name := range listenVarNames {
		v[i].value, v[i].set = os.LookupEnv(name)
	}
	return v
}

// listenVarsOf returns the variables in environ. The first of several counts, as for getenv(3).
func listenVarsOf(environ []string) (v listenVars) {
	for _, s := range environ {
		name, value, ok := cut(s, '=')
		if i := slices.Index(listenVarNames[:], name); ok && i >= 0 && !v[i].set {
			v.put(i, value)
		}
	}
	return v
}

var listen struct {
	sync.Mutex
	taken bool
	env   ListenEnv
	files []*os.File
	given []bool // for each file: TakeListenFDs has returned it
}

// ListenFDs returns the descriptors that the service manager passed to this process: in most cases
// listening sockets. Each has the name that it has in $LISTEN_FDNAMES ([os.File.Name]), or
// "unknown". Package activation makes listeners and packet connections of them.
//
// The first call takes the descriptors: it makes them close-on-exec and unsets $LISTEN_PID,
// $LISTEN_PIDFDID, $LISTEN_FDS and $LISTEN_FDNAMES, whatever it returns. Later calls return the
// same *os.File values: closing one closes it for every caller. In a program whose parts have
// descriptors of their own, use [TakeListenFDs].
//
// ListenFDs returns no descriptors and no error if none were passed, or if they are meant for
// another process. $LISTEN_PID names that process by its PID. $LISTEN_PIDFDID, which systemd sets
// since version 259, names it by its pidfd ID, which no other process has, even one with the same
// PID. A process cannot know its own pidfd ID if the kernel is too old (see [PidFDIDOf]) or a
// seccomp filter forbids the call. $LISTEN_PIDFDID then has to be a number, but is not compared.
// [InspectListenEnv] returns the reason why there are no descriptors.
//
// A program that executes itself again passes the result to [ExecListenFDs] in the same order. In
// the new program ListenFDs then returns the same sockets, in the same order and with the same
// names. Connections that wait to be accepted are kept. The files must stay open until then.
// Package activation closes a file once it has made a listener of it: pass on a [DupFile] of the
// listener with that name instead.
//
// ListenFDs reads the variables as sd_listen_fds_with_names(3) of systemd 262 does, with three
// differences. It refuses descriptors that are close-on-exec. It does without the pidfd ID only for
// the reasons above, and not for any error. In a 32-bit program it never compares with the inode
// number, which on a 32-bit kernel is only half of the ID.
//
// Errors, each of which unwraps to an errno, and names the variable if one is wrong:
//   - EINVAL or ERANGE if a variable is not a number or is out of range, and EINVAL if
//     $LISTEN_FDNAMES does not have as many names as $LISTEN_FDS says;
//   - EBADF if a descriptor is not open, or is close-on-exec: then this process opened it, as the
//     Go runtime may before main, or other code in the process has taken it;
//   - EMFILE, ENFILE or ENOMEM if they keep the process from learning its pidfd ID.
func ListenFDs() ([]*os.File, error) {
	listen.Lock()
	defer listen.Unlock()
	takeListenFDs()
	return append([]*os.File(nil), listen.files...), listen.env.Err
}

// TakeListenFDs returns the descriptors with the given name, in the order in which they were
// passed, and returns each only once. They belong to the caller, who closes them. Independent parts
// of a program can each take their own descriptors, provided the names are distinct. Without
// $LISTEN_FDNAMES each descriptor has the name "unknown".
//
// TakeListenFDs returns no descriptors and no error if none has that name, or if all of them were
// taken before.
//
// The first call of this function or of [ListenFDs] takes all descriptors from the environment.
// ListenFDs still returns those that TakeListenFDs has returned: it is for code in charge of the
// whole program, which passes them on, for example. That code must not close what others have
// taken.
//
// Errors: those of ListenFDs, from each call.
func TakeListenFDs(name string) ([]*os.File, error) {
	return TakeListenFDsFunc(func(left []*os.File) ([]*os.File, error) {
		return slices.DeleteFunc(left, func(f *os.File) bool { return f.Name() != name }), nil
	})
}

// TakeListenFDsFunc is [TakeListenFDs] with a function in place of a name. It calls choose with the
// descriptors that nobody has taken yet, in order, and takes and returns those that choose returns.
// If choose returns an error, nothing is taken and that error is returned.
//
// No other call that takes descriptors runs in the meantime. choose can therefore make something of
// the descriptors, such as listeners, and take them only if that succeeds. It must not call
// ListenFDs or another function of $LISTEN_FDS. To find descriptors that no part of the program
// knows, return all of them; to look only, return none.
//
// Errors: those of [ListenFDs], without a call of choose, and that of choose.
func TakeListenFDsFunc(choose func(left []*os.File) ([]*os.File, error)) ([]*os.File, error) {
	listen.Lock()
	defer listen.Unlock()
	takeListenFDs()
	if listen.env.Err != nil {
		return nil, listen.env.Err
	}
	var left []*os.File
	for i, f := range listen.files {
		if !listen.given[i] {
			left = append(left, f)
		}
	}
	chosen, err := choose(left)
	if err != nil {
		return nil, err
	}
	var taken []*os.File
	for i, f := range listen.files {
		if !listen.given[i] && slices.Contains(chosen, f) {
			listen.given[i] = true
			taken = append(taken, f)
		}
	}
	return taken, nil
}

// takeListenFDs is called with the lock held.
func takeListenFDs() {
	if listen.taken {
		return
	}
	// If one was not passed, or the names are wrong, those ahead of it must not go on to the programs
	// that this process starts, either.
	passed := 0
	listen.env = inspectListenEnv(func(fd int) (why string) {
		if why = inherited(fd); why == "" {
			passed++
		}
		return why
	})
	setCloseOnExec(listenFDsStart, passed)
	for _, name := range listenVarNames {
		os.Unsetenv(name)
	}
	for i, name := range listen.env.Names {
		listen.files = append(listen.files, os.NewFile(uintptr(listenFDsStart+i), name))
	}
	listen.given = make([]bool, len(listen.files))
	listen.taken = true
}

// InspectListenEnv reports what [ListenFDs] will return, or has returned, and why. It takes nothing
// and changes nothing.
//
// If nothing was passed, Reason adds two hints where they apply. One is that this process was
// executed with $LISTEN_PID, and other code in it has unset the variable. The other is that
// descriptor 0 is a socket: a service with StandardInput=socket (systemd.exec(5)), or one that
// inetd starts, gets its socket there. It uses [net.FileListener] or [net.FileConn] with
// [os.Stdin].
func InspectListenEnv() ListenEnv {
	listen.Lock()
	defer listen.Unlock()
	env := listen.env
	if !listen.taken {
		env = inspectListenEnv(inherited)
	}
	env.addHints()
	env.Environ = append([]string(nil), env.Environ...)
	env.Names = append([]string(nil), env.Names...)
	return env
}

func inspectListenEnv(inherited func(fd int) (why string)) ListenEnv {
	vars := ownListenVars()
	return vars.listenEnv(syscall.Getpid(), selfID, inherited)
}

// addHints adds hints to the reason. It does not make an os.File of descriptor 0, because the
// runtime's poller would then use two descriptors until the program ends.
func (e *ListenEnv) addHints() {
	if len(e.Names) > 0 || e.Err != nil {
		return
	}
	if e.Environ == nil {
		room := make([]byte, 1<<18) // twice the longest single variable
		if n, errno := readSmall("/proc/self/environ", room); errno == 0 {
			var environ []string
			for s, rest := "", string(room[:n]); rest != ""; environ = append(environ, s) {
				s, rest, _ = cut(rest, 0)
			}
			then := listenVarsOf(environ)
			if then[listenPID].set {
				e.Reason += ", though it was when this process was executed: other code in the process has unset it"
			}
		}
	}
	if listening, err := syscall.GetsockoptInt(0, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err == nil {
		kind := "a socket that does not listen"
		if listening != 0 {
			kind = "a listening socket"
		}
		e.Reason += "; descriptor 0 is " + kind + ", as under StandardInput=socket or inetd"
	}
}

// ParseListenEnv reports what [ListenFDs] would make of an environment that is not that of this
// process, for tests and for other processes (/proc/PID/environ). It assumes that the process has
// the PID pid and the pidfd ID id (0 if it cannot know its ID), and that the descriptors from 3 up
// are open, as many as open says. ParseListenEnv makes no system calls.
//
// A test of what a program does with its descriptors needs no environment: [DupFile] gives a file a
// name, and From of package activation treats files as if they had been passed.
func ParseListenEnv(environ []string, pid int, id PidFDID, open int) ListenEnv {
	vars := listenVarsOf(environ)
	selfID := func() (PidFDID, error) {
		if id == 0 {
			return 0, errors.ErrUnsupported
		}
		return id, nil
	}
	return vars.listenEnv(pid, selfID, func(fd int) (why string) {
		if fd-listenFDsStart >= open {
			return "is not open"
		}
		return ""
	})
}

// listenEnv returns what decide finds, and the variables that it was found in.
func (v *listenVars) listenEnv(pid int, id func() (PidFDID, error), inherited func(fd int) (why string)) (env ListenEnv) {
	for i, name := range listenVarNames {
		if v[i].set {
			env.Environ = append(env.Environ, name+"="+v[i].value)
		}
	}
	env.Names, env.Reason, env.Err = v.decide(pid, id, inherited)
	if env.Err != nil {
		env.Reason = env.Err.Error()
	}
	return env
}

// inherited returns why fd was not passed to this process, or "" if it was.
func inherited(fd int) (why string) {
	flags, errno := fcntl(fd, syscall.F_GETFD, 0)
	switch {
	case errno != 0:
		return "is not open"
	case flags&syscall.FD_CLOEXEC != 0:
		return "is close-on-exec: code in this process has opened or taken it"
	}
	return ""
}

// decide returns the names of the passed descriptors, or else the reason or the error why there are
// none.
func (v *listenVars) decide(pid int, id func() (PidFDID, error), inherited func(fd int) (why string)) (names []string, reason string, err error) {
	// First, as in libsystemd: bad names are an error for any process.
	names, err = v.names()
	if err != nil {
		return nil, "", err
	}

	if !v[listenPID].set {
		reason = "LISTEN_PID is not set"
		if v[listenFDs].set {
			reason += ", though LISTEN_FDS is: no process is addressed"
		}
		return nil, reason, nil
	}
	forPID, errno := parsePID(v[listenPID].value)
	if errno != 0 {
		return nil, "", v.invalid(listenPID, "not a PID", errno)
	}
	if forPID != uint64(pid) {
		return nil, "LISTEN_PID names process " + strconv.FormatUint(forPID, 10) + "; this is process " + strconv.Itoa(pid), nil
	}

	if v[listenPIDFDID].set {
		forID, errno := parseUnsigned(v[listenPIDFDID].value, 64)
		if errno != 0 {
			return nil, "", v.invalid(listenPIDFDID, "not a pidfd ID", errno)
		}
		id, err := id()
		switch {
		case cannotKnowID(err):
		case err != nil:
			return nil, "", err
		case id != PidFDID(forID):
			return nil, "LISTEN_PID names this process, but LISTEN_PIDFDID names pidfd ID " + PidFDID(forID).String() + " and this process has " + id.String() +
				": a wrapper set LISTEN_PID only, or the PID was reused, or it belongs to another pid namespace", nil
		}
	}
	return v.passed(names, inherited)
}

// cannotKnowID reports whether err is a reason to do without the pidfd ID.
func cannotKnowID(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission)
}

// names returns the names in $LISTEN_FDNAMES, if it is set.
func (v *listenVars) names() (names []string, err error) {
	if !v[listenFDNames].set {
		return nil, nil
	}
	names, ok := splitNames(v[listenFDNames].value)
	if !ok {
		return nil, v.invalid(listenFDNames, "ends with a backslash", syscall.EINVAL)
	}
	return names, nil
}

// passed does the part of decide that does not depend on which process is addressed.
func (v *listenVars) passed(names []string, inherited func(fd int) (why string)) (_ []string, reason string, err error) {
	if !v[listenFDs].set {
		return nil, "LISTEN_FDS is not set", nil
	}
	n, errno := parseInt32(v[listenFDs].value)
	if errno == 0 && (n <= 0 || n > 1<<31-1-listenFDsStart) {
		errno = syscall.EINVAL
	}
	if errno != 0 {
		return nil, "", v.invalid(listenFDs, "not a number of descriptors", errno)
	}
	// Look before allocating anything: n may be a billion.
	for fd := listenFDsStart; fd-listenFDsStart < int(n); fd++ {
		if why := inherited(fd); why != "" {
			return nil, "", v.invalid(listenFDs, "descriptor "+strconv.Itoa(fd)+" "+why, syscall.EBADF)
		}
	}

	if !v[listenFDNames].set {
		names = make([]string, n)
		for i := range names {
			names[i] = "unknown"
		}
	} else if len(names) != int(n) {
		return nil, "", v.invalid(listenFDNames, "that is "+count(len(names), "name")+" for "+count(int(n), "descriptor"), syscall.EINVAL)
	}
	return names, "", nil
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// invalid returns an error about the value of a variable.
func (v *listenVars) invalid(i int, text string, errno syscall.Errno) error {
	return invalidVar(listenVarNames[i], v[i].value, text, errno)
}

func invalidVar(name, value, text string, errno syscall.Errno) error {
	if errno == syscall.ERANGE {
		text = "out of range"
	}
	return refused(errno, name+"="+quote(value)+": "+text)
}

// splitNames splits $LISTEN_FDNAMES as systemd does: a colon ends a name, and a backslash makes the
// next character part of the name (src/basic/extract-word.c).
func splitNames(s string) (names []string, ok bool) {
	var name []byte
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ':':
			names = append(names, string(name))
			name = name[:0]
		case '\\':
			if i++; i == len(s) {
				return nil, false
			}
			fallthrough
		default:
			name = append(name, s[i])
		}
	}
	return append(names, string(name)), true
}
