//go:build linux

package sysfd

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
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

// listenVarsOf returns those in environ. The first of several counts, as for getenv(3).
func listenVarsOf(environ []string) (v listenVars) {
	for _, s := range environ {
		name, value, ok := strings.Cut(s, "=")
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
	given []bool // of each file: it was taken by who uses it
}

// ListenFDs returns the descriptors that the service manager passed to this
// process: its sockets, in most cases. The name of each ([os.File.Name]) is the
// one in $LISTEN_FDNAMES, or "unknown". Package activation makes listeners and
// packet connections of them.
//
// The first call takes them: it makes them close-on-exec and unsets $LISTEN_PID,
// $LISTEN_PIDFDID, $LISTEN_FDS and $LISTEN_FDNAMES, whatever the outcome. All
// further calls return the same, including the same files; who closes one closes
// it for all callers. [TakeListenFDs] is for programs of several parts, each of which
// has descriptors of its own.
//
// No descriptors and no error is the answer if none were passed, or if they are
// addressed to another process: by $LISTEN_PID, or by $LISTEN_PIDFDID, which
// systemd sets since version 259 and which cannot be met by a process that
// happens to have the same PID. Where a process cannot know its pidfd ID, because
// the kernel is too old (see [PidFDIDOf]) or a seccomp filter forbids the question,
// $LISTEN_PIDFDID must be a number and no more. [InspectListenEnv] gives the reason.
//
// Errors, of which each unwraps to an errno and names the variable: EINVAL or
// ERANGE if a variable is not a number, out of range, or, for $LISTEN_FDNAMES,
// has another number of names than $LISTEN_FDS says. EBADF if a descriptor is not
// open, or is close-on-exec: then this process has opened it, as the Go runtime does
// before main, or other code in it has taken it. EMFILE, ENFILE or ENOMEM if these
// keep the process from learning its pidfd ID.
//
// A program that executes itself anew passes the result to [ExecListenFDs], in the same
// order. In the new program ListenFDs then returns the same sockets, in the same order and
// with the same names. Connections that wait to be accepted are kept. For that, the files
// must remain open. Package activation closes those that it makes listeners of, so that closing
// the listener ends the listening: pass on a [DupFile] of the listener instead, with the name.
//
// The answers are those of sd_listen_fds_with_names(3) of systemd 262, except that
// it takes descriptors that are close-on-exec, does without the pidfd ID for whatever
// reason it cannot have it, and takes the inode number for it also in a 32-bit program
// that cannot have the file handle, though a 32-bit kernel gives just half of it.
func ListenFDs() ([]*os.File, error) {
	listen.Lock()
	defer listen.Unlock()
	takeListenFDs()
	return append([]*os.File(nil), listen.files...), listen.env.Err
}

// TakeListenFDs returns the descriptors of one name, in their order, and these only
// once: they are the caller's, to close as well. So independent parts of a program can each
// take their own descriptors, provided the names are distinct. The name of a descriptor that
// came without $LISTEN_FDNAMES is "unknown".
//
// No descriptors and no error is the answer, too, if there are none of that name,
// or if all were taken before.
//
// The first call, of this function or of [ListenFDs], takes them all from the
// environment, and the errors are those of ListenFDs, for each call. ListenFDs goes
// on to return all, also what was returned here: it is for code that has charge of
// the whole, to pass it on for instance, and must not close what is not its own.
func TakeListenFDs(name string) ([]*os.File, error) {
	return TakeListenFDsFunc(func(left []*os.File) ([]*os.File, error) {
		return slices.DeleteFunc(left, func(f *os.File) bool { return f.Name() != name }), nil
	})
}

// TakeListenFDsFunc is [TakeListenFDs] with another choice than by name: choose is
// given the descriptors that nobody has taken yet, in their order, and returns those that the
// caller takes. If it returns an error, nothing is taken, and the error is returned.
//
// No other call that takes descriptors runs meanwhile. So choose can make something of
// them, such as listeners, and take them only if that succeeds; but it must not call
// ListenFDs or another function of $LISTEN_FDS itself. A choose that returns all it is given finds
// what no part of the program knows; one that returns nothing just looks.
//
// Errors: those of [ListenFDs], and then choose is not called; that of choose.
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

// InspectListenEnv tells what [ListenFDs] will return, or has returned, and why.
// It takes nothing and changes nothing.
//
// If nothing was passed, Reason also tells what else is known: that this process was
// executed with $LISTEN_PID, which other code in it has unset since then, and that descriptor
// 0 is a socket. A service with StandardInput=socket, see systemd.exec(5), gets its socket there,
// and so does one that is started by inetd: [net.FileListener] or [net.FileConn] of [os.Stdin] is
// its way.
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
	vars := listenVarsOf(os.Environ())
	return vars.listenEnv(syscall.Getpid(), selfID, inherited)
}

// addHints adds to the reason what else is known. The file does not become an os.File, for which the
// runtime's poller would take two descriptors for good.
func (e *ListenEnv) addHints() {
	if len(e.Names) > 0 || e.Err != nil {
		return
	}
	if e.Environ == nil {
		room := make([]byte, 1<<18) // twice the longest single variable
		if n, errno := readSmall("/proc/self/environ", room); errno == 0 {
			then := listenVarsOf(strings.Split(string(room[:n]), "\x00"))
			if then[listenPID].set {
				e.Reason += ", though it was when this process was executed: other code in it has unset it since"
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

// ParseListenEnv tells what [ListenFDs] would make of an environment that is not
// that of this process: in a test, or for another process, whose environment is in
// /proc/PID/environ. The process has the PID pid, the pidfd ID id (0 = it cannot know it), and
// open descriptors from 3 up, as many as open says. It asks the system for nothing.
//
// For a test of what a program does with its descriptors, no environment is needed: DupFile
// gives a file any name, and activation.From takes files as if they were passed.
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

// listenEnv is what decide finds, with what it found it in.
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

// inherited tells why fd was not passed to this process, "" = it was.
func inherited(fd int) (why string) {
	flags, errno := fcntl(fd, syscall.F_GETFD, 0)
	switch {
	case errno != 0:
		return "is not open"
	case flags&syscall.FD_CLOEXEC != 0:
		return "is close-on-exec: since this process was executed, code in it has opened or taken it"
	}
	return ""
}

// decide is what ListenFDs knows: from the variables, the PID and the pidfd ID
// of this process and a look at each descriptor to their names, or to the reason
// or the error why there are none.
func (v *listenVars) decide(pid int, id func() (PidFDID, error), inherited func(fd int) (why string)) (names []string, reason string, err error) {
	// Ahead of all else, as there: it does not matter then who is addressed.
	names, err = v.names()
	if err != nil {
		return nil, "", err
	}

	if !v[listenPID].set {
		reason = "LISTEN_PID is not set"
		if v[listenFDs].set {
			reason += ", though LISTEN_FDS is: it is not said which process is addressed"
		}
		return nil, reason, nil
	}
	forPID, errno := parsePID(v[listenPID].value)
	if errno != 0 {
		return nil, "", v.invalid(listenPID, "not a PID", errno)
	}
	if forPID != uint64(pid) {
		return nil, "LISTEN_PID is addressed to process " + strconv.FormatUint(forPID, 10) + ", this is process " + strconv.Itoa(pid), nil
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
			return nil, "LISTEN_PID is that of this process, but LISTEN_PIDFDID is addressed to pidfd ID " + PidFDID(forID).String() + ", this process has " + id.String() +
				": a program in between was forked and renewed LISTEN_PID alone, or the PID has been used again, or is of another PID namespace", nil
		}
	}
	return v.passed(names, inherited)
}

// cannotKnowID tells whether err is a reason to do without the pidfd ID.
func cannotKnowID(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission)
}

// names are those that $LISTEN_FDNAMES lists, if it is set.
func (v *listenVars) names() (names []string, err error) {
	if !v[listenFDNames].set {
		return nil, nil
	}
	names, ok := splitNames(v[listenFDNames].value)
	if !ok {
		return nil, v.invalid(listenFDNames, "nothing behind the last backslash", syscall.EINVAL)
	}
	return names, nil
}

// passed is what decide knows of the descriptors, whoever is addressed.
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
	return refused(errno, name+"="+strconv.Quote(value)+": "+text)
}

// splitNames takes $LISTEN_FDNAMES apart as systemd does: a colon ends a name,
// and a backslash takes the character behind it as it is (src/basic/extract-word.c).
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
