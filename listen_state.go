//go:build !plan9

package sysfd

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An Assignment is what [Notify] sends: NAME=VALUE.
type Assignment = string

// Assignments whose value is always the same.
const (
	NotifyReady           Assignment = "READY=1"          // the service has started or reloaded
	NotifyStopping        Assignment = "STOPPING=1"       // the service is about to end
	NotifyWatchdog        Assignment = "WATCHDOG=1"       // it is alive; see [WatchdogInterval]
	NotifyWatchdogTrigger Assignment = "WATCHDOG=trigger" // it is not well: acts as if the watchdog had fired
	NotifyNoPoll          Assignment = "FDPOLL=0"         // for [NotifyStoreFDs]: keep descriptors after a hang-up or error
)

// NotifyStatus returns the assignment STATUS=: one line of text for people, in UTF-8. Line breaks
// in text become spaces. Invalid UTF-8, NUL and noncharacters become U+FFFD. Text longer than 3 KiB
// is cut; a backslash counts as two bytes. For any of these systemd would drop the status, or the
// whole message and a [NotifyReady] with it.
func NotifyStatus(text string) Assignment { return "STATUS=" + statusLine(text) }

// NotifyErrno returns the assignment ERRNO=, which says why the service failed.
func NotifyErrno(errno syscall.Errno) Assignment { return "ERRNO=" + strconv.Itoa(int(errno)) }

// NotifyExtendTimeout returns the assignment EXTEND_TIMEOUT_USEC=: the next message about starting,
// running or stopping comes within d, which is rounded up to microseconds. A d that is not positive
// asks for nothing.
func NotifyExtendTimeout(d time.Duration) Assignment {
	usec := max(d, 0) / time.Microsecond
	if d > usec*time.Microsecond {
		usec++
	}
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(int64(usec), 10)
}

func checkAssignments(assignments []string) error {
	if len(assignments) == 0 {
		return refused(syscall.EINVAL, "no assignments to send")
	}
	for _, a := range assignments {
		lines := 0
		for line, rest := cutLine(a); line != "" || rest != ""; line, rest = cutLine(rest) {
			if line == "" {
				continue
			}
			if strings.IndexByte(line, '=') < 1 || strings.IndexByte(line, 0) >= 0 {
				return notAnAssignment(line)
			}
			lines++
		}
		if lines == 0 {
			return notAnAssignment(a)
		}
	}
	return nil
}

// joinAssignments is for assignments that checkAssignments accepts.
func joinAssignments(assignments []string) (state []byte) {
	for _, a := range assignments {
		for line, rest := cutLine(a); line != "" || rest != ""; line, rest = cutLine(rest) {
			if line == "" {
				continue
			}
			if len(state) > 0 {
				state = append(state, '\n')
			}
			for i := range len(line) {
				if line[i] == '\\' {
					state = append(state, '\\')
				}
				state = append(state, line[i])
			}
		}
	}
	return state
}

func notAnAssignment(text string) error {
	return refused(syscall.EINVAL, quote(text)+" is not an assignment: want NAME=VALUE without a NUL")
}

// cutLine returns what comes before the first character that ends an assignment, and what comes after.
func cutLine(text string) (line, rest string) {
	for i := range len(text) {
		if isNewline(rune(text[i])) {
			return text[:i], text[i+1:]
		}
	}
	return text, ""
}

// prepend does not write to the memory behind assignments, which belongs to the caller.
func prepend(assignments []string, first ...string) []string { return append(first, assignments...) }

// storeAssignments returns the first assignments of NotifyStoreFDs.
func storeAssignments(name string, files []*os.File) ([]string, error) {
	if len(files) == 0 {
		return nil, refused(syscall.EINVAL, "no files to store")
	}
	fdname, err := assignFDName(name)
	return []string{"FDSTORE=1", fdname}, err
}

func assignFDName(name string) (string, error) {
	if name == "" {
		name = "stored"
	}
	if !ValidFDName(name) {
		return "", refused(syscall.EINVAL, quote(name)+" is not a valid descriptor name: want at most 255 characters of printable ASCII without colon and backslash")
	}
	return "FDNAME=" + name, nil
}

// ValidFDName reports whether every program reads a descriptor name unchanged: at most 255
// characters of printable ASCII, without colon and backslash. systemd has the same rule
// (src/basic/fd-util.c, fdname_is_valid), but allows the backslash, which libsystemd removes when
// it reads $LISTEN_FDNAMES.
//
// [ListenFDs] can return other names, and [ExecListenFDs] and StartListenFDs pass any name on.
// NotifyStoreFDs accepts only valid names, because systemd refuses others.
func ValidFDName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == ':' || c == '\\' {
			return false
		}
	}
	return len(name) <= 255
}
