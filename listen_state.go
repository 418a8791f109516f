//go:build !plan9

package sysfd

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Assignments for [Notify] that have just one value.
const (
	NotifyReady           = "READY=1"          // the service has started, or reloaded
	NotifyStopping        = "STOPPING=1"       // the service is about to end
	NotifyWatchdog        = "WATCHDOG=1"       // it is alive; see [WatchdogInterval]
	NotifyWatchdogTrigger = "WATCHDOG=trigger" // it is not well: as if the watchdog had not been fed
	NotifyNoPoll          = "FDPOLL=0"         // for [NotifyStoreFDs]: a hang-up or error does not remove them from the store
)

// NotifyStatus returns the assignment STATUS=: one line of text for people, in UTF-8. Line breaks
// in it become spaces, what is not UTF-8, a NUL or a noncharacter becomes U+FFFD, and what is longer
// than 3 KiB, a backslash counting as two bytes, is cut: any of that would cost systemd's status, or the whole message and with
// it a [NotifyReady].
func NotifyStatus(text string) string { return "STATUS=" + statusLine(text) }

// NotifyErrno returns the assignment ERRNO=, which tells why the service failed.
func NotifyErrno(errno syscall.Errno) string { return "ERRNO=" + strconv.Itoa(int(errno)) }

// NotifyExtendTimeout returns the assignment EXTEND_TIMEOUT_USEC=: the next message
// about starting, running or stopping comes within d, which is rounded up to
// microseconds. What is not positive asks for nothing.
func NotifyExtendTimeout(d time.Duration) string {
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
		for line := range strings.FieldsFuncSeq(a, isNewline) {
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
		for line := range strings.FieldsFuncSeq(a, isNewline) {
			if len(state) > 0 {
				state = append(state, '\n')
			}
			state = append(state, strings.ReplaceAll(line, `\`, `\\`)...)
		}
	}
	return state
}

func notAnAssignment(text string) error {
	return refused(syscall.EINVAL, strconv.Quote(text)+" is not an assignment: want NAME=VALUE without a NUL")
}

// prepend leaves the memory behind assignments alone, which is the caller's.
func prepend(assignments []string, first ...string) []string { return append(first, assignments...) }

// storeAssignments are the first ones of NotifyStoreFDs.
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
		return "", refused(syscall.EINVAL, strconv.Quote(name)+" is not a valid descriptor name: want at most 255 characters of printable ASCII without colon and backslash")
	}
	return "FDNAME=" + name, nil
}

// ValidFDName reports whether a name is one to choose for a descriptor, which every program reads as
// it is: at most 255 characters of printable ASCII, none of them a colon or a backslash. It is the
// rule of systemd (src/basic/fd-util.c, fdname_is_valid) but for the backslash, which libsystemd
// removes when it reads $LISTEN_FDNAMES.
//
// [ListenFDs] can return other names, and ExecListenFDs and StartListenFDs pass any on.
// NotifyStoreFDs accepts only valid names, as systemd refuses others.
func ValidFDName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == ':' || c == '\\' {
			return false
		}
	}
	return len(name) <= 255
}
