//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A ProcessRef is a name of a process that can be stored and sent: [ProcessRef.Open] opens that
// process, or fails.
//
// Kernels before Linux 6.9, and before 6.14 for a 32-bit program, have no ID for such a name. For
// programs that must run there, and for which a PID together with a start time is good enough,
// there is a second best: see [PidFD.RefOrSecondBest] and [ProcessRef.OpenOrSecondBest].
//
// ProcessRefs are values: they can be compared with == and be the keys of a map. The zero
// ProcessRef names nothing.
//
// systemd writes a process as the Varlink type ProcessId (src/libsystemd/sd-json/json-util.c,
// json_variant_new_pidref). To exchange it, a struct with tags is enough. A ProcessRef converts to
// the struct below, as ProcessID(ref), and back. encoding/json handles the numbers, and [BootID]
// reads systemd's form of a boot ID. Decode into a zero value, because encoding/json does not
// change fields that are missing in the text:
//
//	type ProcessID struct {
//		PID          int            `json:"pid"`
//		ID           sysfd.PidFDID  `json:"pidfdId,omitzero"`
//		StartTime    uint64         `json:"-"`
//		BootID       sysfd.BootID   `json:"bootId,omitzero"`
//		PIDNamespace uint32         `json:"-"`
//	}
type ProcessRef struct {
	// PID is for people, and for kernels that cannot open a process by its ID. It is the PID in
	// the pid namespace in which the ProcessRef was made.
	PID int

	// ID is what names the process. 0 means that it is not known.
	ID PidFDID

	// StartTime is the second best if there is no ID: when the process started, in clock ticks
	// since the boot, as the starttime of proc_pid_stat(5) in the initial time namespace. There
	// are 100 ticks in a second. [PidFD.RefOrSecondBest] sets it and
	// [ProcessRef.OpenOrSecondBest] compares it. Open does not, because a PID and a start time
	// are no proof. A ProcessRef with a StartTime must have a BootID and no ID.
	StartTime uint64

	// BootID names the boot in which the ID is valid: with each boot IDs start anew, from small
	// numbers. A ProcessRef with the zero BootID is treated as one of this boot. That is safe
	// until the next boot; afterwards it may match another process, even one with the same PID.
	BootID BootID

	// PIDNamespace is the pid namespace of the process that made the ProcessRef: the inode
	// number of /proc/self/ns/pid there, as in pid:[4026531836], which is the initial one. Once
	// a namespace has no processes left, the kernel gives its number to another one. A
	// ProcessRef with a PIDNamespace of 0 is treated as one of the caller's namespace.
	PIDNamespace uint32
}

// SelfRef returns the name of this process. Its BootID is zero if the boot ID is not known (see
// [ThisBootID]), and its PIDNamespace is zero if /proc does not show this process.
//
// Errors: those of [PidFDIDOf].
func SelfRef() (ProcessRef, error) {
	id, err := selfID()
	if err != nil {
		return ProcessRef{}, err
	}
	return newProcessRef(syscall.Getpid(), id)
}

// SelfRefOrSecondBest returns the name of this process, or the second best if the kernel has no
// pidfd IDs; see [PidFD.RefOrSecondBest], which has the same errors.
func SelfRefOrSecondBest() (ProcessRef, error) {
	p, err := OpenPidFD(syscall.Getpid(), 0)
	if err != nil {
		return ProcessRef{}, err
	}
	defer p.Close()
	return p.RefOrSecondBest()
}

func newProcessRef(pid int, id PidFDID) (ProcessRef, error) {
	boot, err := ThisBootID()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
		return ProcessRef{}, err
	}
	return ProcessRef{PID: pid, ID: id, BootID: boot, PIDNamespace: ownPIDNamespace()}, nil
}

// Ref returns the name of the process. Its BootID is zero if the boot ID is not known (see
// [ThisBootID]), and its PIDNamespace is zero if /proc does not show the caller.
//
// Errors: those of [PidFD.ID] and [PidFD.PID]. So Ref fails for a process that was reaped, and for
// one that has no PID in the pid namespace of the caller; neither could be opened from there.
func (p *PidFD) Ref() (ProcessRef, error) {
	id, err := p.ID()
	if err != nil {
		return ProcessRef{}, err
	}
	pid, err := p.PID()
	if err != nil {
		return ProcessRef{}, err
	}
	return newProcessRef(pid, id)
}

// RefOrSecondBest returns the same as [PidFD.Ref], or the second best if the kernel has no pidfd
// IDs: a ProcessRef with the StartTime of the process instead. Use it only if that is good enough.
//
// Two processes have the same second best if they had the same PID, one after the other, and both
// started within one clock tick, 10 ms. That requires that all free PIDs were used within that
// time, or that somebody chose the PID (clone3(2), set_tid). So whoever can use up nearly all PIDs
// can make it happen. A program that starts up to 1,800 processes per second, one after the other,
// and opens the name of each when another process has its PID, opened the other process this often:
//
//	free PIDs                      1        4       10       20       40   32,468, the default
//	names                     19,712   19,709   19,703   19,693   19,673   67,245
//	opened another process    18,442   15,399    8,868    2,995        0        0
//
// That was on Linux 6.18, treated as if it had no IDs; the package documentation of test/soak has
// more.
//
// The result has an ID wherever the kernel has IDs, and a ProcessRef with an ID is never equal to
// one with a StartTime. So after an upgrade to a newer kernel the names differ, as they do after
// each boot.
//
// Errors: those of [PidFD.PID] and of [PidFD.Verify]; those of [PidFD.ID] except the one that is
// the reason for the second best; and
//   - ESRCH, which matches [os.ErrProcessDone], if the process was reaped;
//   - an error that matches [errors.ErrUnsupported] without the /proc of the caller's pid
//     namespace, if the boot ID is not known, if the process started in the first tick, and in a
//     time namespace if the start time in the initial one cannot be computed;
//   - an error that matches [os.ErrPermission] if /proc hides the process (hidepid).
func (p *PidFD) RefOrSecondBest() (ProcessRef, error) {
	if _, err := p.ID(); errors.Is(err, errors.ErrUnsupported) {
		return p.secondBest()
	}
	return p.Ref()
}

// secondBest is for kernels before 6.9, and for 32-bit programs before 6.14.
func (p *PidFD) secondBest() (ProcessRef, error) {
	if err := p.acquire(); err != nil {
		return ProcessRef{}, err
	}
	defer p.release()
	pid, err := p.pid()
	if err != nil {
		return ProcessRef{}, err
	}
	start, err := p.startTime(pid)
	if err != nil {
		return ProcessRef{}, err
	}
	boot, err := ThisBootID()
	if err != nil {
		return ProcessRef{}, err
	}
	return ProcessRef{PID: pid, StartTime: start, BootID: boot, PIDNamespace: ownPIDNamespace()}, nil
}

// startTime returns the start time of the process, whose PID is pid. The caller has acquired p.
func (p *PidFD) startTime(pid int) (start uint64, err error) {
	err = p.verify(func() error {
		start, err = startTimeOfPID(pid)
		return err
	})
	if err != nil {
		return 0, err
	}
	return start, nil
}

// Open returns a pidfd of the process, and never one of another process. Since Linux 6.14 it opens
// the process by its ID and ignores the PID, so it finds a process whose name was made in another
// pid namespace. If the kernel is older, or a seccomp filter forbids open_by_handle_at(2), it opens
// the process by its PID, which must then be that of the caller's pid namespace, and compares the
// ID.
//
// Errors:
//   - an error that matches [os.ErrProcessDone] if the process was reaped, or if the BootID is not
//     that of this machine (or container, see [ThisBootID]);
//   - EREMOTE if the process is out of sight and PIDNamespace is not the caller's, so it is not
//     proven that the process has ended. The initial pid namespace sees all processes, but opens
//     one that was named in another namespace by its ID only;
//   - EINVAL if the ID is zero, or if r is not one that [ParseProcessRef] reads;
//   - an error that matches [errors.ErrUnsupported] if the kernel has no IDs to compare (see
//     [PidFDIDOf]), or if the boot ID is needed and not known.
func (r ProcessRef) Open() (*PidFD, error) {
	if r == (ProcessRef{}) {
		return nil, refused(syscall.EINVAL, "the zero ProcessRef, whose text is empty, names nothing")
	}
	if r.ID == 0 {
		text := "process " + strconv.Itoa(r.PID) + " cannot be opened: its pidfd ID is not known"
		if r.StartTime != 0 {
			text += ", and its start time is no proof"
		}
		return nil, refused(syscall.EINVAL, text)
	}
	if !r.valid() {
		return nil, notAProcess(r.String())
	}
	if err := r.isOfThisBoot(); err != nil {
		return nil, err
	}
	p, err := OpenPidFDByID(r.ID)
	switch {
	case errors.Is(err, syscall.ESTALE), errors.Is(err, os.ErrProcessDone):
		// From the initial namespace all processes are visible, and this one was visible
		// from the namespace in which the name was made.
		if own := ownPIDNamespace(); own != initialPIDNamespace && !r.isOf(own) {
			return nil, r.outOfSight()
		}
		return nil, r.gone("was reaped")
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission):
		return r.openByPID()
	}
	return p, err
}

// openByPID is for kernels before 6.14 and for seccomp filters.
func (r ProcessRef) openByPID() (*PidFD, error) {
	if !r.isOf(ownPIDNamespace()) {
		return nil, r.outOfSight() // the PID would be that of another process
	}
	p, err := r.openPID()
	if err != nil {
		return nil, err
	}
	id, err := p.ID()
	if err == nil && id != r.ID {
		err = r.gone("is gone: its PID is that of the process with pidfd ID " + id.String())
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// openPID opens whatever process has the PID.
func (r ProcessRef) openPID() (*PidFD, error) {
	p, err := OpenPidFD(r.PID, 0)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) {
		// The PID is that of a thread, and r may be the name of a thread.
		p, err = OpenPidFD(r.PID, PIDFD_THREAD)
		if errors.Is(err, errors.ErrUnsupported) {
			// Before Linux 6.9 there are no names of threads.
			return nil, r.gone("is gone: its PID is that of a thread")
		}
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil, r.gone("was reaped: no process has its PID")
	}
	return p, err
}

// OpenOrSecondBest returns the same as [ProcessRef.Open] for a ProcessRef with an ID. For one with
// a StartTime it opens the process by the PID, and compares the start time. That is no proof: the
// process may be another one that has the same PID and started within the same clock tick;
// [PidFD.RefOrSecondBest] says when. A start time that differs is a proof.
//
// Errors, with an ID: those of [ProcessRef.Open]. With a StartTime:
//   - an error that matches [os.ErrProcessDone] if no process has the PID, if the process with the
//     PID started at another time, or if the BootID is not that of this machine (or container);
//   - EREMOTE if PIDNamespace is not the caller's;
//   - EINVAL if r is not one that [ParseProcessRef] reads;
//   - an error that matches [errors.ErrUnsupported] or [os.ErrPermission], as with
//     [PidFD.RefOrSecondBest], if the start time or the boot ID is not known.
func (r ProcessRef) OpenOrSecondBest() (*PidFD, error) {
	if r.ID != 0 || r.StartTime == 0 {
		return r.Open()
	}
	if !r.valid() {
		return nil, notAProcess(r.String())
	}
	if err := r.isOfThisBoot(); err != nil {
		return nil, err
	}
	if !r.isOf(ownPIDNamespace()) {
		return nil, r.outOfSight() // the PID would be that of another process
	}
	p, err := r.openPID()
	if err != nil {
		return nil, err
	}
	start, err := p.startTime(r.PID)
	switch {
	case errors.Is(err, os.ErrProcessDone):
		err = r.gone("was reaped") // it was p, or ended before p started
	case err == nil && start != r.StartTime:
		err = r.gone("is gone: its PID is that of a process that started at " + strconv.FormatUint(start, 10))
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// isOfThisBoot returns an error if r is the name of a process of another boot.
func (r ProcessRef) isOfThisBoot() error {
	if r.BootID == (BootID{}) {
		return nil
	}
	boot, err := ThisBootID()
	if err == nil && boot != r.BootID {
		err = r.gone("is of boot " + r.BootID.String() + ", this is boot " + boot.String())
	}
	return err
}

// isOf reports whether r was made in a pid namespace.
func (r ProcessRef) isOf(namespace uint32) bool {
	return r.PIDNamespace == 0 || r.PIDNamespace == namespace
}

func (r ProcessRef) outOfSight() error {
	return refused(syscall.EREMOTE, "process "+r.Short()+" is not visible from this pid namespace: it may or may not be alive")
}

func (r ProcessRef) gone(why string) error {
	return refused(syscall.ESRCH, "process "+r.Short()+" "+why).as(os.ErrProcessDone)
}

// String returns all of r. After PID and ID come "@" and the BootID, and "+" and the PIDNamespace,
// if they are known, such as "4711:25@e4852dac-db69-430a-8f3f-f227f27ae0a2+4026531836". A StartTime
// stands in place of the ID, after a "t": "4711:t82015@e4852dac-db69-430a-8f3f-f227f27ae0a2". The
// zero ProcessRef is "". [ParseProcessRef] is the reverse, unless r is not one that it reads.
func (r ProcessRef) String() string { return string(r.appendText(nil)) }

// Short returns the PID and the ID only, as util-linux writes them: "4711:25". It is for people and
// for tools. [ParseProcessRef] reads it as the name of a process of this boot and of the caller's
// pid namespace, but does not read a short text with a StartTime.
func (r ProcessRef) Short() string {
	return string(ProcessRef{PID: r.PID, ID: r.ID, StartTime: r.StartTime}.appendText(nil))
}

func (r ProcessRef) appendText(b []byte) []byte {
	if r == (ProcessRef{}) {
		return b
	}
	b = append(strconv.AppendInt(b, int64(r.PID), 10), ':')
	if r.StartTime != 0 && r.ID == 0 {
		b = strconv.AppendUint(append(b, 't'), r.StartTime, 10)
	} else {
		b = strconv.AppendUint(b, uint64(r.ID), 10)
	}
	if r.BootID != (BootID{}) {
		b, _ = r.BootID.AppendText(append(b, '@'))
	}
	if r.PIDNamespace != 0 {
		b = strconv.AppendUint(append(b, '+'), uint64(r.PIDNamespace), 10)
	}
	return b
}

// ParseProcessRef reads what [ProcessRef.String] returns, and nothing else: the newline at the end of
// a file must be cut off. The empty text is that of the zero ProcessRef, which Open refuses. For any
// other text the error matches EINVAL, as it does for a PID or an ID of 0, and for a start time without
// a boot ID.
func ParseProcessRef(text string) (ProcessRef, error) {
	var r ProcessRef
	rest, namespace, _ := cut(text, '+')
	rest, boot, _ := cut(rest, '@')
	pid, id, _ := cut(rest, ':')
	n, _ := decimal(pid, 31)
	r.PID = int(n)
	if start, ok := strings.CutPrefix(id, "t"); ok {
		r.StartTime, _ = decimal(start, 64)
	} else {
		n, _ = decimal(id, 64)
		r.ID = PidFDID(n)
	}
	r.BootID, _ = ParseBootID(boot)
	n, _ = decimal(namespace, 32)
	r.PIDNamespace = uint32(n)
	// What went wrong does not come out as it went in.
	if !r.valid() || r.String() != text {
		return ProcessRef{}, notAProcess(quote(text))
	}
	return r, nil
}

// valid reports whether r names a process, or is the zero ProcessRef.
func (r ProcessRef) valid() bool {
	exact := r.ID != 0 && r.StartTime == 0
	second := r.ID == 0 && r.StartTime != 0 && r.BootID != BootID{}
	return r == ProcessRef{} || r.PID > 0 && fits32(r.PID) && (exact || second)
}

func notAProcess(text string) error {
	return refused(syscall.EINVAL, text+" is not a process reference: want PID:ID, PID:ID@BOOTID+PIDNAMESPACE or PID:tSTARTTIME@BOOTID+PIDNAMESPACE")
}

// AppendText implements [encoding.TextAppender]. The text is that of [ProcessRef.String]. If r is
// not one that [ParseProcessRef] reads, the error matches EINVAL.
func (r ProcessRef) AppendText(b []byte) ([]byte, error) {
	if !r.valid() {
		return b, notAProcess(r.String())
	}
	return r.appendText(b), nil
}

// MarshalText implements [encoding.TextMarshaler]; see [ProcessRef.AppendText].
func (r ProcessRef) MarshalText() ([]byte, error) { return r.AppendText(nil) }

// AppendBinary implements [encoding.BinaryAppender]. It appends the text; see
// [ProcessRef.AppendText].
func (r ProcessRef) AppendBinary(b []byte) ([]byte, error) { return r.AppendText(b) }

// MarshalBinary implements [encoding.BinaryMarshaler]; see [ProcessRef.AppendBinary].
func (r ProcessRef) MarshalBinary() ([]byte, error) { return r.AppendText(nil) }

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]; see [ParseProcessRef].
func (r *ProcessRef) UnmarshalBinary(data []byte) error { return r.UnmarshalText(data) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseProcessRef].
func (r *ProcessRef) UnmarshalText(text []byte) error { return unmarshalText(r, text, ParseProcessRef) }
