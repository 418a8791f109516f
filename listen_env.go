//go:build !plan9

package sysfd

import "strconv"

// listenFDsStart is the first descriptor that is passed (SD_LISTEN_FDS_START).
const listenFDsStart = 3

// A ListenEnv describes what a process received by socket activation.
type ListenEnv struct {
	// Environ has those of $LISTEN_PID, $LISTEN_PIDFDID, $LISTEN_FDS and $LISTEN_FDNAMES that
	// were set, in this order, as "NAME=value".
	Environ []string
	// Names are the names of the descriptors from 3 up.
	Names []string
	// Reason says why there are no descriptors: it is the text of the error, if there is one.
	// It is empty if there are descriptors.
	Reason string
	// Err is the error of [ListenFDs].
	Err error
}

// Explain returns one line for a person: what was passed, or the Reason why nothing was. Call it on
// what [InspectListenEnv] returned.
func (e ListenEnv) Explain() string {
	if len(e.Names) == 0 {
		return e.Reason
	}
	text := "passed: "
	for i, name := range e.Names {
		if i > 0 {
			text += ", "
		}
		text += "descriptor " + strconv.Itoa(listenFDsStart+i) + " as " + quote(name)
	}
	return text
}
