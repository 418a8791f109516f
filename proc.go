//go:build linux

package sysfd

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A mount is what a line of mountinfo says; see proc_pid_mountinfo(5).
type mount struct {
	id, parent     uint64 // of the reusable kind, unless they are from statmount
	device         uint64
	root           string // the directory of the file system that the mount shows
	point          string
	readOnly       bool // the mount, or all of its file system
	fsType, source string
}

// A mountinfo is an open /proc/thread-self/mountinfo.
type mountinfo struct {
	fd       int
	room     []byte
	from, to int // the bytes in room that were not returned yet
}

const mountinfoName = "/proc/thread-self/mountinfo" // Linux 3.17; a thread can have a mount namespace of its own

func openMountinfo() (*mountinfo, error) {
	fd, err := openat(AT_FDCWD, mountinfoName, syscall.O_RDONLY|syscall.O_NONBLOCK)
	if err == nil { // it may be anything
		magic, errno := fsMagic(fd)
		switch {
		case errno == syscall.ENOSYS: // gVisor of 2022
		case errno != 0:
			syscall.Close(fd)
			return nil, failed("fstatfs", mountinfoName, errno)
		case magic != unix.PROC_SUPER_MAGIC:
			syscall.Close(fd)
			return nil, refused(syscall.ENOSYS, "the mounts are not known: "+mountinfoName+" is not on a procfs").as(errors.ErrUnsupported)
		}
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		// That says nothing about a mount.
		return nil, refused(syscall.ENOSYS, "the mounts are not known: there is no "+mountinfoName).as(errors.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	return &mountinfo{fd: fd}, nil
}

func (f *mountinfo) close() {
	if f != nil {
		syscall.Close(f.fd)
	}
}

// changed reports whether anything was mounted, moved or unmounted since f was opened, or since
// changed was called last (fs/proc_namespace.c, mounts_poll). If f is nil it does not know, and
// returns false.
func (f *mountinfo) changed() bool {
	if f == nil {
		return false
	}
	revents, errno := pollNow(f.fd)
	return errno != 0 || revents&unix.POLLERR != 0
}

// each calls use for all mounts, from the first one on, until use returns false. It leaves out
// lines that it does not understand.
func (f *mountinfo) each(use func(mount) bool) error {
	if _, err := syscall.Seek(f.fd, 0, 0); err != nil {
		return failed("lseek", mountinfoName, errnoOf(err))
	}
	f.from, f.to = 0, 0
	for {
		line, ok, err := f.line()
		if !ok || err != nil {
			return err
		}
		if m, ok := parseMount(line); ok && !use(m) {
			return nil
		}
	}
}

// line returns the next line, and false after the last one.
func (f *mountinfo) line() (string, bool, error) {
	const longest = 1 << 20
	for {
		if n := bytes.IndexByte(f.room[f.from:f.to], '\n'); n >= 0 {
			line := string(f.room[f.from : f.from+n])
			f.from += n + 1
			return line, true, nil
		}
		f.to = copy(f.room, f.room[f.from:f.to])
		f.from = 0
		if f.to == len(f.room) {
			if f.to >= longest {
				return "", false, refused(syscall.EOVERFLOW, mountinfoName+" has an endless line")
			}
			f.room = append(f.room, make([]byte, max(8192, len(f.room)))...)
		}
		n, errno := read(f.fd, f.room[f.to:])
		if errno != 0 {
			return "", false, failed("read", mountinfoName, errno)
		}
		if n == 0 {
			line := string(f.room[:f.to])
			f.to = 0
			return line, line != "", nil
		}
		f.to += n
	}
}

// parseMount returns false for a line that it does not understand.
func parseMount(line string) (m mount, ok bool) {
	next := func() (field string) {
		field, line, ok = cut(line, ' ')
		return field
	}
	id, errID := strconv.ParseUint(next(), 10, 31)
	parent, errParent := strconv.ParseUint(next(), 10, 31)
	major, minor, _ := cut(next(), ':')
	majorNumber, errMajor := strconv.ParseUint(major, 10, 32)
	minorNumber, errMinor := strconv.ParseUint(minor, 10, 32)
	m = mount{id: id, parent: parent, device: makeDevice(uint32(majorNumber), uint32(minorNumber)), root: unescapeMountinfo(next()), point: unescapeMountinfo(next())}
	if !ok || errID != nil || errParent != nil || errMajor != nil || errMinor != nil {
		return mount{}, false
	}
	m.readOnly = isReadOnly(next())
	for ok && next() != "-" { // any number of optional fields
	}
	m.fsType = unescapeMountinfo(next())
	m.source = unescapeMountinfo(next())
	m.readOnly = m.readOnly || isReadOnly(line)
	return m, true
}

// isReadOnly is for the options of a mount, and for those of a file system.
func isReadOnly(options string) bool {
	first, _, _ := cut(options, ',')
	return first == "ro"
}

// unescapeMountinfo undoes how the kernel writes space, tab, newline and backslash: as a backslash
// and three octal digits (fs/seq_file.c, mangle_path).
func unescapeMountinfo(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// initialPIDNamespace is the inode number of the pid namespace that all others are in
// (PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h).
const initialPIDNamespace = 0xeffffffc

// ownPIDNamespace returns the inode number of the pid namespace of this process, 0 if that is not
// known. A process never changes its own pid namespace.
func ownPIDNamespace() uint32 {
	ns, errno := stat("/proc/self/ns/pid")
	if errno != 0 {
		ns, errno = ownNamespace(_PIDFD_GET_PID_NAMESPACE)
	}
	if errno != 0 || uint64(uint32(ns.ino)) != ns.ino {
		return 0
	}
	return uint32(ns.ino)
}

// initialUserNamespace is the inode number of the user namespace that all others are in
// (PROC_USER_INIT_INO of the kernel's include/linux/proc_ns.h).
const initialUserNamespace = 0xeffffffd

// inInitialUserNamespace returns false if it does not know.
func inInitialUserNamespace() bool {
	ns, errno := stat("/proc/self/ns/user")
	if errno != 0 {
		ns, errno = ownNamespace(_PIDFD_GET_USER_NAMESPACE)
	}
	return errno == 0 && ns.ino == initialUserNamespace
}

// ownNamespace is for a process that does not see itself in /proc.
func ownNamespace(request uint32) (ns inode, errno syscall.Errno) {
	fd, errno := ownNamespaceByPidFD(request)
	if errno != 0 {
		return ns, errno
	}
	defer syscall.Close(fd)
	return statFD(fd)
}

// ownNamespaceByPidFD returns a descriptor of a namespace of the calling thread. It requires Linux
// 6.11, and no /proc. request is one of PIDFD_GET_*_NAMESPACE.
func ownNamespaceByPidFD(request uint32) (int, syscall.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, errno := pidfdOpen(syscall.Gettid(), PIDFD_THREAD)
	if errno != 0 {
		return -1, errno
	}
	defer syscall.Close(self)
	fd, errno := pidfdGetNamespace(self, request)
	if errno != 0 {
		return -1, errno
	}
	if magic, errno := fsMagic(fd); errno != 0 || magic != unix.NSFS_MAGIC {
		return -1, syscall.EOPNOTSUPP // what a filter returns must not be closed
	}
	return fd, 0
}

// startTimeOfPID returns when the process that /proc has under this PID started, in clock ticks
// since the boot, as in the initial time namespace. Call it within [PidFD.Verify], because it does
// not know whether that process is the right one.
func startTimeOfPID(pid int) (uint64, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/stat"
	var room [1024]byte // the start time is in the first half
	n, errno := readSmall(name, room[:])
	switch {
	case errno == syscall.ESRCH:
		return 0, failed("read", name, errno).as(os.ErrProcessDone)
	case errno == syscall.ENOENT && procIsMounted():
		return 0, refused(syscall.EACCES, "the start time of process "+strconv.Itoa(pid)+" is not known: /proc hides the process")
	case errno == syscall.ENOENT, errno == syscall.ENOTDIR:
		// That says nothing about a process.
		return 0, refused(syscall.ENOSYS, "the start time of process "+strconv.Itoa(pid)+" is not known: there is no "+name).as(errors.ErrUnsupported)
	case errno != 0:
		return 0, failed("read", name, errno)
	}
	shift, err := timeNamespaceShift()
	if err != nil {
		return 0, err
	}
	start, ok := parseStartTime(string(room[:n]), shift)
	if !ok {
		return 0, refused(syscall.EOPNOTSUPP, name+" reports no start time that can be stored").as(errors.ErrUnsupported)
	}
	return start, nil
}

// parseStartTime finds the start time, the 22nd field of proc_pid_stat(5), and subtracts shift. The
// second field is the name of the program in parentheses, which can hold anything. A start time of
// 0 is refused, because it would look like none.
func parseStartTime(stat string, shift int64) (uint64, bool) {
	i := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[i+1:])
	const startTime = 22 - 3
	if i < 0 || len(fields) <= startTime {
		return 0, false
	}
	start, ok := decimal(fields[startTime], 64)
	// The kernel turns a time below zero into a very large one, which has lost its last digits.
	const negative = 1 << 63 / nanosecondsPerTick
	if !ok || start >= negative {
		return 0, false
	}
	since := int64(start) - shift
	return uint64(since), since > 0
}

const (
	ticksPerSecond     = 100 // the kernel's USER_HZ, the same on all ports of Go
	nanosecondsPerTick = 1_000_000_000 / ticksPerSecond
)

// initialTimeNamespace is the inode number of the time namespace in which clocks are not shifted
// (PROC_TIME_INIT_INO of the kernel's include/linux/proc_ns.h).
const initialTimeNamespace = 0xeffffffa

// timeNamespaceShift returns by how many clock ticks /proc shifts the start times that this process
// reads, in whatever time namespace the other processes are (fs/proc/array.c,
// timens_add_boottime_ns).
func timeNamespaceShift() (ticks int64, err error) {
	const dir = "/proc/self/"
	own, errno := stat(dir + "ns/time")
	switch {
	case errno == syscall.ENOENT: // before Linux 5.6
		return 0, nil
	case errno != 0:
		return 0, failed("statx", dir+"ns/time", errno)
	case own.ino == initialTimeNamespace:
		return 0, nil
	}
	// The file has the offsets of the namespace for children, which can be another one.
	offsets, err := readProc(dir + "timens_offsets")
	if err != nil {
		return 0, err
	}
	children, errno := stat(dir + "ns/time_for_children")
	if errno != 0 {
		return 0, failed("statx", dir+"ns/time_for_children", errno)
	}
	ticks, ok := parseTimeOffset(string(offsets))
	if !ok || children.ino != own.ino {
		return 0, refused(syscall.EOPNOTSUPP, "this time namespace shifts start times by an unknown amount").as(errors.ErrUnsupported)
	}
	return ticks, nil
}

// parseTimeOffset finds the offset of the clock since the boot in timens_offsets. An offset that is
// not a whole number of ticks is refused, because it makes the start time ambiguous.
func parseTimeOffset(text string) (ticks int64, ok bool) {
	fields := procFields(text, "boottime")
	if len(fields) != 2 {
		return 0, false
	}
	seconds, err1 := strconv.ParseInt(fields[0], 10, 40)
	nanoseconds, err2 := strconv.ParseInt(fields[1], 10, 32)
	return seconds*ticksPerSecond + nanoseconds/nanosecondsPerTick, err1 == nil && err2 == nil && nanoseconds%nanosecondsPerTick == 0
}

// readFdinfo returns what /proc says about a descriptor. A thread can have a descriptor table of
// its own, so it asks for the thread, Linux 3.17.
func readFdinfo(fd int) (name, text string, err error) {
	name = "/proc/thread-self/fdinfo/" + strconv.Itoa(fd)
	b, err := readProc(name)
	return name, string(b), err
}

// fdinfoMountID returns the reusable ID of the mount that fd was opened on.
func fdinfoMountID(fd int) (uint64, error) {
	if fd == AT_FDCWD {
		dir, err := openat(fd, ".", O_PATH)
		if err != nil {
			return 0, err
		}
		defer syscall.Close(dir)
		fd = dir
	}
	name, text, err := readFdinfo(fd)
	if err != nil {
		return 0, err
	}
	if fields := procFields(text, "mnt_id:"); len(fields) == 1 {
		if id, err := strconv.ParseUint(fields[0], 10, 32); err == nil {
			return id, nil
		}
	}
	return 0, refused(syscall.EOPNOTSUPP, name+" has no mount ID").as(errors.ErrUnsupported)
}

// fdinfoPIDs returns the PIDs in a line of fdinfo of a pidfd, or unsupported if there are none.
func fdinfoPIDs(fd int, key string, unsupported error) ([]int, error) {
	name, text, err := readFdinfo(fd)
	if errors.Is(err, os.ErrNotExist) {
		return nil, unsupported
	}
	if err != nil {
		return nil, err
	}
	pids := parseFdinfoPIDs(text, key)
	switch {
	case len(pids) == 0:
		return nil, unsupported
	case pids[0] < 0:
		return nil, failed("read", name, syscall.ESRCH).as(os.ErrProcessDone)
	case pids[0] == 0:
		return nil, failed("read", name, syscall.EREMOTE)
	}
	return pids, nil
}

// procIsOurs reports whether /proc is that of the caller's pid namespace. If it is that of an outer
// one, it has the PIDs that processes have there. The line NSpid has the PIDs of this process from
// there inwards.
func procIsOurs() bool { return readableProcIsOurs() == nil }

// errNoProc is the answer if /proc has no PIDs that could be mistaken for others.
var errNoProc = errors.New("/proc cannot be read")

// readableProcIsOurs returns nil or errNoProc, or another error if it is not certain that /proc is
// that of the caller's pid namespace.
func readableProcIsOurs() error {
	status, err := readProc("/proc/self/status")
	switch {
	case err == nil && len(procFields(string(status), "NSpid:")) <= 1:
		return nil
	case outOfResources(err):
		return err
	case err == nil, errors.Is(err, os.ErrNotExist) && procIsMounted():
		// The second is for a process that /proc does not show.
		return refused(syscall.EOPNOTSUPP, "/proc belongs to another pid namespace, where the same PIDs refer to other processes").as(errors.ErrUnsupported)
	}
	return errNoProc
}

// procIsMounted reports whether /proc is a procfs.
func procIsMounted() bool {
	fd, err := openat(AT_FDCWD, "/proc", O_PATH)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	magic, errno := fsMagic(fd)
	return errno == 0 && magic == unix.PROC_SUPER_MAGIC
}

// parseFdinfoPIDs finds the line "Pid:" or "NSpid:" in fdinfo of a pidfd. The first PID is 0 for a
// process that has none in the reader's namespace, and -1 for one that was reaped (fs/pidfs.c,
// pidfd_show_fdinfo); it is then the only one. For anything else parseFdinfoPIDs returns nil.
func parseFdinfoPIDs(text, key string) []int {
	fields := procFields(text, key)
	pids := make([]int, len(fields))
	for i, field := range fields {
		n, ok := decimal(field, 31)
		pids[i] = int(n)
		if field == "-1" {
			pids[i], ok = -1, true
		}
		if !ok || pids[i] <= 0 && len(fields) > 1 {
			return nil
		}
	}
	return pids
}

// procFields returns the fields after key in a file of lines "key: fields".
func procFields(text, key string) []string {
	for more := true; more; {
		var line string
		line, text, more = cut(text, '\n')
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.Fields(value)
		}
	}
	return nil
}

// A BootID names one run of the kernel, from boot to shutdown: 16 random bytes. The zero BootID
// names none.
type BootID [16]byte

// ThisBootID returns the boot ID of this machine, from /proc/sys/kernel/random/boot_id. Container
// managers can put another file there, so that a container has a boot ID of its own.
//
// Errors: one that matches [errors.ErrUnsupported] if there is no such file, for example because
// /proc is not mounted, or if the file does not hold a boot ID.
func ThisBootID() (BootID, error) { return readBootID("/proc/sys/kernel/random/boot_id") }

func readBootID(name string) (BootID, error) {
	var room [64]byte
	n, errno := readSmall(name, room[:])
	switch errno {
	case 0:
	case syscall.ENOENT, syscall.ENOTDIR:
		return BootID{}, refused(errno, "the boot ID is not known: there is no "+name).as(errors.ErrUnsupported)
	default:
		return BootID{}, failed("read", name, errno)
	}
	lower := room
	for i, c := range lower[:n] {
		if 'A' <= c && c <= 'F' {
			lower[i] |= 0x20
		}
	}
	b, err := ParseBootID(strings.TrimSuffix(string(lower[:n]), "\n"))
	if err != nil || b == (BootID{}) {
		return BootID{}, refused(syscall.EINVAL, "the boot ID is not known: "+name+" holds "+quote(string(room[:n]))).as(errors.ErrUnsupported)
	}
	return b, nil
}

// String returns the ID as the kernel writes it, such as "e4852dac-db69-430a-8f3f-f227f27ae0a2",
// and "" for the zero BootID.
func (b BootID) String() string {
	text, _ := b.AppendText(nil)
	return string(text)
}

// ParseBootID reads what [BootID.String] returns, and the form that systemd writes: the same 32
// digits without hyphens. For any other text the error matches EINVAL.
func ParseBootID(text string) (b BootID, err error) {
	if text == "" {
		return b, nil
	}
	digits := make([]byte, 0, 2*len(b))
	for i := 0; i < len(text) && len(digits) < cap(digits); i++ {
		if text[i] != '-' {
			digits = append(digits, text[i])
		}
	}
	if len(digits) == cap(digits) {
		parseHex(b[:], string(digits))
	}
	// What went wrong does not come out as it went in, or comes out as zeros, which name
	// nothing.
	is := appendUUID(make([]byte, 0, 36), b[:])
	if b == (BootID{}) || string(is) != text && (string(digits) != text || string(appendHex(is[:0], b[:]...)) != text) {
		return BootID{}, refused(syscall.EINVAL, quote(text)+" is not a boot ID: want 32 hexadecimal digits, such as e4852dac-db69-430a-8f3f-f227f27ae0a2")
	}
	return b, nil
}

// AppendText implements [encoding.TextAppender]. The text is that of [BootID.String].
func (b BootID) AppendText(text []byte) ([]byte, error) {
	if b == (BootID{}) {
		return text, nil
	}
	return appendUUID(text, b[:]), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (b BootID) MarshalText() ([]byte, error) { return b.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseBootID].
func (b *BootID) UnmarshalText(text []byte) error {
	return unmarshalText(b, text, ParseBootID)
}

// AppendBinary implements [encoding.BinaryAppender]: the 16 bytes, or none for the zero BootID.
func (b BootID) AppendBinary(data []byte) ([]byte, error) {
	if b == (BootID{}) {
		return data, nil
	}
	return append(data, b[:]...), nil
}

// MarshalBinary implements [encoding.BinaryMarshaler]; see [BootID.AppendBinary].
func (b BootID) MarshalBinary() ([]byte, error) { return b.AppendBinary(nil) }

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]. For data that AppendBinary does not
// write the error matches EINVAL, and b stays as it is.
func (b *BootID) UnmarshalBinary(data []byte) error {
	var is BootID
	if n := copy(is[:], data); n != len(data) || n > 0 && (n < len(is) || is == BootID{}) {
		return refused(syscall.EINVAL, strconv.Itoa(len(data))+" bytes are not a boot ID")
	}
	*b = is
	return nil
}
