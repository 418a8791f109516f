//go:build linux

package sysfd

import (
	"bytes"
	"iter"
	"os"
	"strconv"
	"syscall"
)

// A FanotifyEvent is an event that was read from a fanotify(7) group. It owns the descriptors that
// came with it until they are taken; see [TakeFanotifyEvents].
type FanotifyEvent struct {
	// Mask is a combination of FAN_*, such as FAN_CREATE|FAN_ONDIR. The kernel merges events
	// that wait to be read if they come from one process, are about the same file, directory
	// and name, and agree on FAN_ONDIR. Mask then has the bits of all of them, and does not
	// show in which order they came and how often. FAN_RENAME merges with nothing else.
	Mask FanotifyMask

	// PID is the PID of the process that caused the event, or with FAN_REPORT_TID of its
	// thread, in the pid namespace of the reader. It is 0 if the process has no PID there, and
	// if no process caused the event.
	PID int

	fd, pidfd int32 // a negative number says why there is no descriptor
	hasPidFD  bool  // there is a record of pidfd
	records   []byte
}

// gone is what fd and pidfd are once they were taken or closed. The kernel never writes this
// number.
const gone = -1 << 31

// A FanotifyFile is what a record of an event says about a file.
type FanotifyFile struct {
	// FSID is that of the file system; see [FSID] for btrfs.
	FSID FSID

	// Handle is that of the file or of the directory. It is what [NameToHandleAt] returns, so
	// it can go into a FileRef; on a file system without handles to open, it is what
	// NameToHandleAt returns with [AT_HANDLE_FID]. It is of type FILEID_INVALID if the kernel
	// could make none.
	Handle FileHandle

	// Name is the name in the directory, "." for the directory itself, and nil if Handle is
	// that of the file. It is a part of the buffer that the events were read into.
	Name []byte
}

// TakeFanotifyEvents returns the events in b, which is what one read(2) from a fanotify(7) group
// returned. It takes ownership of the descriptors in them. When the loop goes on to the next event,
// it closes those that [FanotifyEvent.File] and [FanotifyEvent.PidFD] have not taken. When the loop
// ends early, it closes those of the remaining events too. So the loop must run, once; a second run
// has no events. An event is valid only during its turn of the loop, and refers to b. Do not pass
// bytes from elsewhere, or the same bytes twice: the descriptors in them can belong to someone
// else.
//
//	events, err := sysfd.TakeFanotifyEvents(b[:n])
//	if err != nil {
//		return err
//	}
//	for e := range events {
//		if e.Mask&sysfd.FAN_Q_OVERFLOW != 0 {
//			… // events were lost
//		}
//		dir, ok := e.Dir() // of FAN_REPORT_DFID_NAME
//		p, err := e.PidFD() // of FAN_REPORT_PIDFD
//		…
//	}
//
// Make and mark the group with fanotify_init(2) and fanotify_mark(2), for which
// golang.org/x/sys/unix has functions. If it was made with FAN_NONBLOCK, pass its descriptor to
// [os.NewFile]: Read then waits without a thread. Each event in b can hold two descriptors: a
// buffer of 4096 bytes has up to 170 events.
//
// TakeFanotifyEvents makes two allocations and the loop two more, however many events there are.
//
// Errors: EINVAL if b is not what the kernel writes, or has another version of the format than the
// known one (3). TakeFanotifyEvents then takes nothing.
func TakeFanotifyEvents(b []byte) (iter.Seq[*FanotifyEvent], error) {
	events := &fanotifyEvents{b: b}
	for rest := b; len(rest) > 0; {
		var err error
		if rest, err = events.e.decode(rest); err != nil {
			return nil, err
		}
	}
	events.e = FanotifyEvent{fd: gone, pidfd: gone}
	return events.each, nil
}

// fanotifyEvents has the events that are still to come, and the one whose turn it is.
type fanotifyEvents struct {
	b []byte
	e FanotifyEvent
}

func (s *fanotifyEvents) next() bool {
	s.e.close()
	if len(s.b) == 0 {
		return false
	}
	s.b, _ = s.e.decode(s.b)
	return true
}

func (s *fanotifyEvents) each(yield func(*FanotifyEvent) bool) {
	defer func() { // even if yield panics
		for s.next() {
		}
	}()
	for s.next() && yield(&s.e) {
	}
}

// decode fills e with the first event in b, and returns the bytes after it.
func (e *FanotifyEvent) decode(b []byte) (rest []byte, err error) {
	const minimum = 24
	if len(b) < minimum {
		return nil, notAnEvent(strconv.Itoa(len(b)) + " bytes are too few")
	}
	m := fanotify[fanotifyMetadata](b)
	switch {
	case m.Vers != _FANOTIFY_METADATA_VERSION:
		return nil, notAnEvent("version " + strconv.Itoa(int(m.Vers)) + " of the format")
	case m.EventLen < minimum || uint64(m.EventLen) > uint64(len(b)):
		return nil, notAnEvent("length " + strconv.FormatUint(uint64(m.EventLen), 10) + " in " + strconv.Itoa(len(b)) + " bytes")
	case m.MetadataLen < minimum || uint32(m.MetadataLen) > m.EventLen:
		return nil, notAnEvent("records from " + strconv.Itoa(int(m.MetadataLen)) + " on")
	}
	*e = FanotifyEvent{Mask: m.Mask, PID: int(m.PID), fd: m.FD, pidfd: _FAN_NOPIDFD, records: b[m.MetadataLen:m.EventLen]}
	for r := e.records; len(r) > 0; {
		typ, record, next, ok := cutRecord(r)
		if ok {
			ok = e.check(typ, record)
		}
		if !ok {
			return nil, notAnEvent("a record that is too short")
		}
		r = next
	}
	return b[m.EventLen:], nil
}

func notAnEvent(why string) error { return refused(syscall.EINVAL, "not a fanotify event: "+why) }

// cutRecord returns the first record, including its head.
func cutRecord(b []byte) (typ uint8, record, rest []byte, ok bool) {
	const head = 4
	if len(b) < head {
		return 0, nil, nil, false
	}
	h := fanotify[fanotifyInfo](b)
	if h.Len < head || int(h.Len) > len(b) {
		return 0, nil, nil, false
	}
	return h.Type, b[:h.Len], b[h.Len:], true
}

// check reports whether a record is as long as its type requires, so that methods need not check.
func (e *FanotifyEvent) check(typ uint8, record []byte) bool {
	switch typ {
	case _FAN_EVENT_INFO_TYPE_FID, _FAN_EVENT_INFO_TYPE_DFID,
		_FAN_EVENT_INFO_TYPE_DFID_NAME, _FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, _FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
		_, ok := decodeFanotifyFile(typ, record)
		return ok
	case _FAN_EVENT_INFO_TYPE_PIDFD:
		if len(record) < 8 || e.hasPidFD {
			return false
		}
		e.pidfd, e.hasPidFD = fanotify[fanotifyPidFD](record).PidFD, true
	case _FAN_EVENT_INFO_TYPE_ERROR, _FAN_EVENT_INFO_TYPE_MNT:
		return len(record) >= 12
	case _FAN_EVENT_INFO_TYPE_RANGE:
		return len(record) >= 24
	}
	return true
}

func decodeFanotifyFile(typ uint8, record []byte) (f FanotifyFile, ok bool) {
	const head = 12
	if len(record) < head {
		return f, false
	}
	f.FSID = fanotify[fanotifyFID](record).FSID
	h, rest, err := DecodeFileHandle(record[head:])
	f.Handle = h
	if err != nil || typ == _FAN_EVENT_INFO_TYPE_FID || typ == _FAN_EVENT_INFO_TYPE_DFID {
		return f, err == nil
	}
	end := bytes.IndexByte(rest, 0)
	if end < 0 {
		return f, false
	}
	f.Name = rest[:end:end]
	return f, true
}

// close closes the descriptors that were not taken.
func (e *FanotifyEvent) close() {
	for _, fd := range []*int32{&e.fd, &e.pidfd} {
		if *fd >= 0 {
			syscall.Close(int(*fd))
		}
		*fd = gone
	}
}

// Record returns the bytes after the head of the first record of a type (FAN_EVENT_INFO_TYPE_* of
// linux/fanotify.h), and false if the event has none. It is for types that this package does not
// know. The bytes are a part of the buffer that the events were read into.
func (e *FanotifyEvent) Record(typ uint8) ([]byte, bool) {
	record, ok := e.record(typ)
	if !ok {
		return nil, false
	}
	return record[4:], true
}

func (e *FanotifyEvent) record(typ uint8) ([]byte, bool) {
	for rest := e.records; len(rest) > 0; {
		is, record, next, ok := cutRecord(rest)
		if !ok {
			break
		}
		if is == typ {
			return record, true
		}
		rest = next
	}
	return nil, false
}

func (e *FanotifyEvent) file(typ uint8) (FanotifyFile, bool) {
	record, ok := e.record(typ)
	if !ok {
		return FanotifyFile{}, false
	}
	return decodeFanotifyFile(typ, record)
}

// Object returns the file that the event is about. For FAN_CREATE, FAN_DELETE, FAN_MOVED_* and
// FAN_RENAME the group must have been made with FAN_REPORT_TARGET_FID (Linux 5.17), and for other
// events with FAN_REPORT_FID (Linux 5.1).
func (e *FanotifyEvent) Object() (FanotifyFile, bool) { return e.file(_FAN_EVENT_INFO_TYPE_FID) }

// Dir returns the directory in which the event happened, and with FAN_REPORT_NAME the name in it.
// The group must have been made with FAN_REPORT_DIR_FID (Linux 5.9). An event with FAN_RENAME has
// OldDir and NewDir instead.
func (e *FanotifyEvent) Dir() (FanotifyFile, bool) {
	if f, ok := e.file(_FAN_EVENT_INFO_TYPE_DFID_NAME); ok {
		return f, true
	}
	return e.file(_FAN_EVENT_INFO_TYPE_DFID)
}

// OldDir returns the former directory and name in an event with FAN_RENAME (Linux 5.17), if that
// directory has a mark for FAN_RENAME.
func (e *FanotifyEvent) OldDir() (FanotifyFile, bool) {
	return e.file(_FAN_EVENT_INFO_TYPE_OLD_DFID_NAME)
}

// NewDir returns the new directory and name in an event with FAN_RENAME, as OldDir does the former.
func (e *FanotifyEvent) NewDir() (FanotifyFile, bool) {
	return e.file(_FAN_EVENT_INFO_TYPE_NEW_DFID_NAME)
}

// Mount returns the unique ID of the mount that FAN_MNT_ATTACH or FAN_MNT_DETACH (Linux 6.15) is
// about.
func (e *FanotifyEvent) Mount() (MountID, bool) {
	record, ok := e.record(_FAN_EVENT_INFO_TYPE_MNT)
	if !ok {
		return 0, false
	}
	// A struct fanotify_event_info_mnt has no padding on a 386 kernel, and has padding on an
	// amd64 kernel, for 32-bit programs too.
	if len(record) >= 16 {
		return MountID(native64(record[8:16])), true
	}
	return MountID(native64(record[4:12])), true
}

// FileSystemError returns the error that FAN_FS_ERROR (Linux 5.16) is about, as the file system
// reported it, and how many errors there have been since the last such event. errno is that of the
// first of them.
func (e *FanotifyEvent) FileSystemError() (errno syscall.Errno, count uint32, ok bool) {
	record, ok := e.record(_FAN_EVENT_INFO_TYPE_ERROR)
	if !ok {
		return 0, 0, false
	}
	f := fanotify[fanotifyError](record)
	return syscall.Errno(max(f.Error, -f.Error)), f.Count, true // some file systems report it negative
}

// Range returns the part of the file that FAN_PRE_ACCESS (Linux 6.14) is about.
func (e *FanotifyEvent) Range() (offset, count uint64, ok bool) {
	record, ok := e.record(_FAN_EVENT_INFO_TYPE_RANGE)
	if !ok {
		return 0, 0, false
	}
	r := fanotify[fanotifyRange](record)
	return r.Offset, r.Count, true
}

// FD returns the number of the descriptor of the file, which the event still owns. A struct
// fanotify_response uses the number to say which event it answers. FD returns false if there is no
// descriptor, and after File.
func (e *FanotifyEvent) FD() (int, bool) {
	if e.fd < 0 {
		return -1, false
	}
	return int(e.fd), true
}

// File takes the descriptor of the file, and makes it close-on-exec. Events of a group that reports
// handles have no descriptor.
//
// Errors:
//   - ENODATA if there is no descriptor;
//   - the error with which the kernel failed to open the file, if the group was made with
//     FAN_REPORT_FD_ERROR (Linux 6.13);
//   - [os.ErrClosed] if the descriptor has been taken, and after the event's turn.
func (e *FanotifyEvent) File() (*os.File, error) {
	switch {
	case e.fd == gone:
		return nil, os.ErrClosed
	case e.fd == _FAN_NOFD:
		return nil, refused(syscall.ENODATA, "the event has no file descriptor")
	case e.fd < 0:
		return nil, failed("read", "of the file of a fanotify event", syscall.Errno(-e.fd))
	}
	if _, errno := fcntl(int(e.fd), syscall.F_SETFD, syscall.FD_CLOEXEC); errno != 0 {
		return nil, failed("fcntl", "F_SETFD "+fdSubject(int(e.fd)), errno)
	}
	f := os.NewFile(uintptr(e.fd), "fanotify event")
	e.fd = gone
	return f, nil
}

// PidFD takes the pidfd of the process that caused the event. The group must have been made with
// FAN_REPORT_PIDFD (Linux 5.15). The process may have ended since, or have executed another
// program. The pidfd does not show which rights the process had at the time of the event.
//
// Errors:
//   - ESRCH, which matches [os.ErrProcessDone], if the process was reaped before the event was
//     read: PID is that of a process that is gone. Since Linux 7.2 the event has a pidfd even then,
//     which has the ID of the process and shows how it ended;
//   - EREMOTE if the process has no PID in the pid namespace of the reader, so it is not known
//     whether the process was reaped;
//   - the error with which the kernel failed to make the pidfd, such as EMFILE, if the group was
//     made with FAN_REPORT_FD_ERROR (Linux 6.13). Otherwise EIO, because the kernel does not report
//     the error;
//   - ENODATA if the event has no pidfd, such as FAN_Q_OVERFLOW, which no process caused;
//   - [os.ErrClosed] if the pidfd has been taken, and after the event's turn;
//   - those of [NewPidFD].
func (e *FanotifyEvent) PidFD() (*PidFD, error) {
	switch errno := syscall.Errno(-e.pidfd); {
	case e.pidfd == gone:
		return nil, os.ErrClosed
	case !e.hasPidFD || e.Mask&FAN_Q_OVERFLOW != 0 && e.pidfd < 0:
		return nil, refused(syscall.ENODATA, "the event has no pidfd")
	case e.pidfd >= 0:
		p, err := NewPidFD(int(e.pidfd))
		if err == nil {
			e.pidfd = gone
		}
		return p, err
	case e.PID == 0 && (e.pidfd == _FAN_NOPIDFD || errno == syscall.ESRCH):
		return nil, refused(syscall.EREMOTE, "the process of the event is not in this pid namespace")
	case e.pidfd == _FAN_NOPIDFD:
		return nil, failed("read", "of the pidfd of a fanotify event", syscall.ESRCH).as(os.ErrProcessDone)
	case e.pidfd == _FAN_EPIDFD:
		return nil, refused(syscall.EIO, "the kernel could not create a pidfd for the event, and gave no reason")
	case e.PID == 0:
		return nil, failed("read", "of the pidfd of a fanotify event", errno)
	default:
		return nil, orReaped(failed("read", "of the pidfd of a fanotify event", errno))
	}
}
