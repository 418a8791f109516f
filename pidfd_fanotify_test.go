//go:build linux

package sysfd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// An eventText is an event as the kernel writes it.
type eventText struct {
	mask    uint64
	fd, pid int32
	records []string

	vers     uint8  // 0 = the right one
	length   uint32 // 0 = the right one
	metadata uint16 // 0 = the right one
}

func (e eventText) bytes() []byte {
	n := binary.NativeEndian
	records := strings.Join(e.records, "")
	if e.metadata == 0 {
		e.metadata = 24
	}
	if e.length == 0 {
		e.length = uint32(24 + len(records))
	}
	if e.vers == 0 {
		e.vers = 3
	}
	b := append(n.AppendUint32(nil, e.length), e.vers, 0)
	b = n.AppendUint64(n.AppendUint16(b, e.metadata), e.mask)
	b = n.AppendUint32(n.AppendUint32(b, uint32(e.fd)), uint32(e.pid))
	return append(b, records...)
}

// record is one with a type, for numbers of 32 and 64 bits and strings.
func record(typ uint8, parts ...any) string {
	n := binary.NativeEndian
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int32:
			b = n.AppendUint32(b, uint32(p))
		case uint64:
			b = n.AppendUint64(b, p)
		case string:
			b = append(b, p...)
		}
	}
	head := n.AppendUint16([]byte{typ, 0}, uint16(4+len(b)))
	return string(head) + string(b)
}

// fileRecord is one of FSID{typ, -2}, a handle of one byte, and what is behind it.
func fileRecord(typ uint8, data byte, behind string) string {
	return record(typ, int32(typ), int32(-2), string(structFileHandle(1, 0x81, string(data))), behind)
}

func wantFile(typ uint8, data byte, name string) FanotifyFile {
	h, _ := NewFileHandle(0x81, []byte{data})
	f := FanotifyFile{FSID: FSID{int32(typ), -2}, Handle: h}
	if name != "" {
		f.Name = []byte(name)
	}
	return f
}

// events returns all events in b.
func events(t *testing.T, b []byte) (all []FanotifyEvent) {
	t.Helper()
	seq, err := TakeFanotifyEvents(b)
	if err != nil {
		t.Fatal(err)
	}
	for e := range seq {
		all = append(all, *e)
	}
	return all
}

func TestFanotifyEvent(t *testing.T) {
	text := func(e eventText) eventText { e.fd = _FAN_NOFD; return e }
	b := slices.Concat(
		text(eventText{mask: FAN_CREATE | FAN_ONDIR, pid: 4711, records: []string{
			fileRecord(_FAN_EVENT_INFO_TYPE_DFID_NAME, 'd', "name\x00\x00\x00\x00"),
			fileRecord(_FAN_EVENT_INFO_TYPE_FID, 'f', ""),
			record(_FAN_EVENT_INFO_TYPE_PIDFD, int32(_FAN_NOPIDFD)),
		}}).bytes(),
		text(eventText{mask: FAN_RENAME, pid: -1 << 31, records: []string{
			fileRecord(_FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, 'o', "old\x00"),
			fileRecord(_FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, 'n', "\x00pad"),
		}}).bytes(),
		text(eventText{mask: 1<<63 | FAN_ATTRIB, records: []string{
			fileRecord(_FAN_EVENT_INFO_TYPE_DFID, 'd', "\x00\x00\x00"),
			record(200, "what is not known yet"),
		}}).bytes(),
		text(eventText{mask: FAN_Q_OVERFLOW}).bytes(),
		text(eventText{mask: FAN_FS_ERROR, records: []string{record(_FAN_EVENT_INFO_TYPE_ERROR, int32(syscall.EUCLEAN), int32(7))}}).bytes(),
		text(eventText{mask: FAN_PRE_ACCESS, records: []string{record(_FAN_EVENT_INFO_TYPE_RANGE, int32(0), uint64(1<<40), uint64(4096))}}).bytes(),
		// As kernels for amd64 and others write it, and one for 386.
		text(eventText{mask: FAN_MNT_ATTACH, records: []string{record(_FAN_EVENT_INFO_TYPE_MNT, int32(0), uint64(1<<40))}}).bytes(),
		text(eventText{mask: FAN_MNT_DETACH, records: []string{record(_FAN_EVENT_INFO_TYPE_MNT, uint64(1<<40+1))}}).bytes(),
	)
	all := events(t, b)
	want := []struct {
		mask                     uint64
		pid                      int
		object, dir, old, new    FanotifyFile
		mount                    MountID
		errno                    syscall.Errno
		count                    uint32
		offset, size             uint64
		hasError, hasRange, odds bool
	}{
		{mask: FAN_CREATE | FAN_ONDIR, pid: 4711, dir: wantFile(2, 'd', "name"), object: wantFile(1, 'f', "")},
		{mask: FAN_RENAME, pid: -1 << 31, old: wantFile(10, 'o', "old"), new: FanotifyFile{FSID: FSID{12, -2}, Handle: wantFile(12, 'n', "").Handle, Name: []byte{}}},
		{mask: 1<<63 | FAN_ATTRIB, dir: wantFile(3, 'd', ""), odds: true},
		{mask: FAN_Q_OVERFLOW},
		{mask: FAN_FS_ERROR, errno: syscall.EUCLEAN, count: 7, hasError: true},
		{mask: FAN_PRE_ACCESS, offset: 1 << 40, size: 4096, hasRange: true},
		{mask: FAN_MNT_ATTACH, mount: 1 << 40},
		{mask: FAN_MNT_DETACH, mount: 1<<40 + 1},
	}
	if len(all) != len(want) {
		t.Fatalf("%d events", len(all))
	}
	for i, w := range want {
		e := &all[i]
		if e.Mask != w.mask || e.PID != w.pid {
			t.Errorf("%d: mask 0x%x, PID %d", i, e.Mask, e.PID)
		}
		for what, f := range map[string]struct {
			get  func() (FanotifyFile, bool)
			want FanotifyFile
		}{"object": {e.Object, w.object}, "dir": {e.Dir, w.dir}, "old": {e.OldDir, w.old}, "new": {e.NewDir, w.new}} {
			got, ok := f.get()
			if ok != !f.want.Handle.IsZero() || got.FSID != f.want.FSID || got.Handle != f.want.Handle ||
				!bytes.Equal(got.Name, f.want.Name) || (got.Name == nil) != (f.want.Name == nil) || len(got.Name) != cap(got.Name) {
				t.Errorf("%d: %s: %+v, %v; want %+v", i, what, got, ok, f.want)
			}
		}
		if id, ok := e.Mount(); id != w.mount || ok != (w.mount != 0) {
			t.Errorf("%d: mount %v, %v", i, id, ok)
		}
		if errno, n, ok := e.FileSystemError(); errno != w.errno || n != w.count || ok != w.hasError {
			t.Errorf("%d: %v, %d, %v", i, errno, n, ok)
		}
		if at, n, ok := e.Range(); at != w.offset || n != w.size || ok != w.hasRange {
			t.Errorf("%d: %d, %d, %v", i, at, n, ok)
		}
		if r, ok := e.Record(200); ok != w.odds || ok && string(r) != "what is not known yet" || !ok && r != nil {
			t.Errorf("%d: %q, %v", i, r, ok)
		}
	}
	negative := text(eventText{records: []string{record(_FAN_EVENT_INFO_TYPE_ERROR, int32(-5), int32(1))}}).bytes()
	if errno, _, _ := (&events(t, negative)[0]).FileSystemError(); errno != syscall.EIO {
		t.Errorf("%v", errno)
	}
	// Also what is longer than is known: a head, and records.
	longer := text(eventText{mask: FAN_MODIFY, metadata: 32, records: []string{
		"12345678", record(_FAN_EVENT_INFO_TYPE_ERROR, int32(5), int32(6), "more"), record(_FAN_EVENT_INFO_TYPE_FID, int32(1), int32(2), string(structFileHandle(0, 0xff, "")), "more")}}).bytes()
	e := events(t, longer)[0]
	if errno, n, ok := e.FileSystemError(); errno != 5 || n != 6 || !ok {
		t.Errorf("%v, %d, %v", errno, n, ok)
	}
	if f, ok := e.Object(); !ok || f.Handle.String() != "ff:" {
		t.Errorf("%v, %v", f, ok)
	}
	if len(events(t, nil)) != 0 {
		t.Error("events in nothing")
	}
}

func TestTakeFanotifyEventsRefuses(t *testing.T) {
	keepsDescriptors(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	good := eventText{mask: FAN_OPEN, fd: int32(r.Fd())}
	with := func(records ...string) []byte { return eventText{fd: int32(r.Fd()), records: records}.bytes() }
	file := fileRecord(_FAN_EVENT_INFO_TYPE_DFID_NAME, 'd', "n\x00")
	cut := func(b string, n int) string {
		return b[:2] + string(binary.NativeEndian.AppendUint16(nil, uint16(n))) + b[4:max(4, min(n, len(b)))]
	}
	bad := map[string][]byte{
		"short":               good.bytes()[:23],
		"version":             eventText{fd: good.fd, vers: 4}.bytes(),
		"length":              eventText{fd: good.fd, length: 25}.bytes(),
		"length 23":           eventText{fd: good.fd, length: 23, records: []string{record(9)}}.bytes(),
		"length, huge":        eventText{fd: good.fd, length: 1<<32 - 1}.bytes(),
		"head":                eventText{fd: good.fd, metadata: 23}.bytes(),
		"head beyond":         eventText{fd: good.fd, metadata: 25}.bytes(),
		"head, not whole":     eventText{fd: good.fd, metadata: 23, pid: -1, records: []string{record(0)[1:]}}.bytes(),
		"half a record head":  with("abc"),
		"record, overlapping": with(cut(record(9), 3) + record(0)[1:]),
		"record, length 0":    with(cut(record(9), 0)),
		"record, length 3":    with(cut(record(9, "abcd"), 3)),
		"record, beyond":      with(cut(record(9), 5)),
		"file":                with(cut(file, 11)),
		"file, half a handle": with(cut(file, 19)),
		"file, no byte of it": with(cut(file, 20)),
		"name without end":    with(cut(file, 22)),
		"name without any":    with(cut(file, 21)),
		"old name":            with(fileRecord(_FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, 'd', "n")),
		"new name":            with(fileRecord(_FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, 'd', "n")),
		"large handle":        with(record(_FAN_EVENT_INFO_TYPE_FID, int32(1), int32(2), string(structFileHandle(129, 1, strings.Repeat("x", 129))))),
		"FID":                 with(cut(fileRecord(_FAN_EVENT_INFO_TYPE_FID, 'd', ""), 20)),
		"DFID":                with(cut(fileRecord(_FAN_EVENT_INFO_TYPE_DFID, 'd', ""), 20)),
		"pidfd":               with(record(_FAN_EVENT_INFO_TYPE_PIDFD, "abc")),
		"two pidfds":          with(record(_FAN_EVENT_INFO_TYPE_PIDFD, int32(r.Fd())), record(_FAN_EVENT_INFO_TYPE_PIDFD, int32(r.Fd()))),
		"error":               with(record(_FAN_EVENT_INFO_TYPE_ERROR, "abcdabc")),
		"range":               with(record(_FAN_EVENT_INFO_TYPE_RANGE, strings.Repeat("x", 19))),
		"mount":               with(record(_FAN_EVENT_INFO_TYPE_MNT, "abcdabc")),
	}
	for what, b := range bad {
		// Also behind a good one, which is not taken then.
		for _, b := range [][]byte{b, slices.Concat(good.bytes(), b)} {
			seq, err := TakeFanotifyEvents(b)
			matches(t, err, syscall.EINVAL)
			if seq != nil || err == nil || !strings.Contains(err.Error(), "not a fanotify event") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// Of each event the descriptors are taken or closed, however the loop ends.
func TestTakeFanotifyEventsOwns(t *testing.T) {
	needs(t, FeaturePidFD)
	for _, test := range []struct {
		name                string
		file, pidfd         bool // take them
		breakAt, panicAt, n int
	}{
		{name: "none is taken", n: 3},
		{name: "files", n: 3, file: true},
		{name: "pidfds", n: 3, pidfd: true},
		{name: "both", n: 3, file: true, pidfd: true},
		{name: "break", n: 3, breakAt: 1},
		{name: "break, taken", n: 3, breakAt: 2, file: true, pidfd: true},
		{name: "panic", n: 3, panicAt: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			keepsDescriptors(t)
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			var b []byte
			for range test.n {
				fd, err := syscall.Dup(int(null.Fd())) // not close-on-exec, as with event_f_flags of 0
				if err != nil {
					t.Fatal(err)
				}
				pidfd, errno := pidfdOpen(os.Getpid(), 0)
				if errno != 0 {
					t.Fatal(errno)
				}
				b = append(b, eventText{mask: FAN_OPEN, fd: int32(fd), pid: int32(os.Getpid()), records: []string{
					record(_FAN_EVENT_INFO_TYPE_PIDFD, int32(pidfd))}}.bytes()...)
			}
			seq, err := TakeFanotifyEvents(b)
			if err != nil {
				t.Fatal(err)
			}
			turn := 0
			var last *FanotifyEvent
			loop := func() {
				defer func() { recover() }()
				for e := range seq {
					last = e
					turn++
					if test.file {
						fd, ok := e.FD()
						f, err := e.File()
						if err != nil || !ok || int(f.Fd()) != fd {
							t.Fatal(f, err, fd, ok)
						}
						if flags, errno := fcntl(fd, syscall.F_GETFD, 0); errno != 0 || flags != syscall.FD_CLOEXEC {
							t.Error(flags, errno)
						}
						f.Close()
						_, err = e.File()
						matches(t, err, os.ErrClosed)
						if fd, ok := e.FD(); ok || fd != -1 {
							t.Error(fd, ok)
						}
					}
					if test.pidfd {
						p, err := e.PidFD()
						if err != nil {
							t.Fatal(err)
						}
						if pid, err := p.PID(); err != nil || pid != os.Getpid() {
							t.Error(pid, err)
						}
						p.Close()
						_, err = e.PidFD()
						matches(t, err, os.ErrClosed)
					}
					if turn == test.panicAt {
						panic("")
					}
					if turn == test.breakAt {
						break
					}
				}
			}
			loop()
			if want := max(test.breakAt, test.panicAt); want == 0 && turn != test.n || want != 0 && turn != want {
				t.Errorf("%d turns", turn)
			}
			_, err = last.File()
			matches(t, err, os.ErrClosed)
			_, err = last.PidFD()
			matches(t, err, os.ErrClosed)
			turns := turn
			loop() // again, it has none and closes no other descriptors
			if turn != turns {
				t.Error("a second run has events")
			}
		})
	}
}

func TestFanotifyEventWithoutDescriptors(t *testing.T) {
	keepsDescriptors(t)
	duplicate, errno := dupAbove(int(openNull(t).Fd()), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, test := range []struct {
		what    string
		mask    uint64
		pid     int32
		pidfd   int32
		no      bool // record
		targets []error
	}{
		{what: "reaped", pid: 7, pidfd: _FAN_NOPIDFD, targets: []error{syscall.ESRCH, os.ErrProcessDone}},
		{what: "reaped, with FAN_REPORT_FD_ERROR", pid: 7, pidfd: -int32(syscall.ESRCH), targets: []error{syscall.ESRCH, os.ErrProcessDone}},
		{what: "reaped just now, Linux 6.13", pid: 7, pidfd: -int32(syscall.EINVAL), targets: []error{syscall.EINVAL, os.ErrProcessDone}},
		{what: "out of sight", pidfd: _FAN_NOPIDFD, targets: []error{syscall.EREMOTE}},
		{what: "out of sight, with FAN_REPORT_FD_ERROR", pidfd: -int32(syscall.ESRCH), targets: []error{syscall.EREMOTE}},
		{what: "out of sight, not by itself", pidfd: -int32(syscall.EINVAL), targets: []error{syscall.EINVAL}},
		{what: "an error", pid: 7, pidfd: _FAN_EPIDFD, targets: []error{syscall.EIO}},
		{what: "EMFILE", pid: 7, pidfd: -int32(syscall.EMFILE), targets: []error{syscall.EMFILE}},
		{what: "no record", pid: 7, no: true, targets: []error{syscall.ENODATA}},
		{what: "overflow", mask: FAN_Q_OVERFLOW, pidfd: _FAN_NOPIDFD, targets: []error{syscall.ENODATA}},
		{what: "overflow, with FAN_REPORT_FD_ERROR", mask: FAN_Q_OVERFLOW, pidfd: -int32(syscall.ESRCH), targets: []error{syscall.ENODATA}},
		{what: "not a pidfd", pid: 7, pidfd: int32(duplicate), targets: []error{syscall.EBADF, ErrNotPidFD}},
	} {
		e := eventText{mask: test.mask, pid: test.pid, fd: _FAN_NOFD, records: []string{record(_FAN_EVENT_INFO_TYPE_PIDFD, test.pidfd)}}
		if test.no {
			e.records = nil
		}
		turns := 0
		seq, err := TakeFanotifyEvents(e.bytes())
		if err != nil {
			t.Fatal(err)
		}
		for e := range seq {
			turns++
			p, err := e.PidFD()
			if p != nil || err == nil {
				t.Errorf("%s: %v, %v", test.what, p, err)
			}
			matches(t, err, test.targets...)
		}
		if turns != 1 {
			t.Errorf("%d turns", turns)
		}
	}
	for fd, target := range map[int32]error{_FAN_NOFD: syscall.ENODATA, -int32(syscall.ENXIO): syscall.ENXIO, -int32(syscall.EBADF): syscall.EBADF} {
		seq, _ := TakeFanotifyEvents(eventText{fd: fd}.bytes())
		for e := range seq {
			f, err := e.File()
			matches(t, err, target)
			if _, ok := e.FD(); ok || f != nil {
				t.Errorf("%d: %v", fd, f)
			}
		}
	}
}

func TestTakeFanotifyEventsAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates itself")
	}
	one := eventText{fd: _FAN_NOFD, records: []string{
		fileRecord(_FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, 'd', "name\x00"), fileRecord(_FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, 'd', "name\x00"),
		fileRecord(_FAN_EVENT_INFO_TYPE_FID, 'f', ""), record(_FAN_EVENT_INFO_TYPE_PIDFD, int32(_FAN_NOPIDFD))}}.bytes()
	b := bytes.Repeat(one, 100)
	// The least of some rounds: what tests before have left to run allocates, too.
	least := 1e9
	for range 20 {
		least = min(least, testing.AllocsPerRun(5, func() {
			seq, _ := TakeFanotifyEvents(b)
			for e := range seq {
				e.Object()
				e.Dir()
				e.OldDir()
				e.NewDir()
			}
		}))
	}
	if least > 4 {
		t.Errorf("%v allocations", least)
	}
}

func FuzzFanotifyEvents(f *testing.F) {
	e := eventText{mask: FAN_CREATE, fd: -1, pid: 7, records: []string{
		fileRecord(_FAN_EVENT_INFO_TYPE_DFID_NAME, 'd', "name\x00\x00\x00\x00"), fileRecord(_FAN_EVENT_INFO_TYPE_FID, 'f', ""),
		record(_FAN_EVENT_INFO_TYPE_PIDFD, int32(-1)), record(_FAN_EVENT_INFO_TYPE_MNT, uint64(1))}}
	f.Add(e.bytes())
	e.records = append(e.records, record(_FAN_EVENT_INFO_TYPE_ERROR, int32(1), int32(2)), record(_FAN_EVENT_INFO_TYPE_RANGE, int32(1), uint64(2), uint64(3)))
	f.Add(append(e.bytes(), e.bytes()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		// No number in it may be that of a descriptor that someone has.
		var n int
		for rest := b; len(rest) > 0; n++ {
			var e FanotifyEvent
			next, err := e.decode(rest)
			if err != nil {
				break
			}
			if e.fd >= 0 || e.pidfd >= 0 {
				return
			}
			rest = next
		}
		seq, err := TakeFanotifyEvents(b)
		if err != nil {
			if !errors.Is(err, syscall.EINVAL) || seq != nil {
				t.Errorf("%q: %v", b, err)
			}
			return
		}
		for e := range seq {
			n--
			for _, get := range []func() (FanotifyFile, bool){e.Object, e.Dir, e.OldDir, e.NewDir} {
				if f, ok := get(); ok && f.Handle.Len() > MAX_HANDLE_SZ || !ok && (f.Name != nil || !f.Handle.IsZero()) || bytes.IndexByte(f.Name, 0) >= 0 {
					t.Errorf("%q: %v, %v", b, f, ok)
				}
			}
			e.Mount()
			e.FileSystemError()
			e.Range()
			for typ := range 256 {
				e.Record(uint8(typ))
			}
			if p, err := e.PidFD(); p != nil || err == nil {
				t.Errorf("%q: %v, %v", b, p, err)
			}
			if f, err := e.File(); f != nil || err == nil {
				t.Errorf("%q: %v, %v", b, f, err)
			}
		}
		if n != 0 {
			t.Errorf("%q: %d events more or less", b, n)
		}
	})
}

// fanotifyGroup makes a group of a kernel from since on.
func fanotifyGroup(t *testing.T, since string, flags uint) *os.File {
	t.Helper()
	rights.Need(t, rights.SysAdmin)
	fd, err := unix.FanotifyInit(flags|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	switch {
	case err == nil:
	case surroundings().name != environments[""].name, errors.Is(err, syscall.EINVAL) && olderThan(t, since):
		t.Skipf("fanotify_init 0x%x, Linux %s: %v", flags, since, err)
	default:
		t.Fatalf("fanotify_init 0x%x, Linux %s: %v", flags, since, err)
	}
	f := os.NewFile(uintptr(fd), "fanotify")
	t.Cleanup(func() { f.Close() })
	return f
}

func markFanotify(t *testing.T, group *os.File, flags uint, mask uint64, path string) {
	t.Helper()
	if err := withFD(group, func(fd int) {
		if err := unix.FanotifyMark(fd, flags|unix.FAN_MARK_ADD, mask, AT_FDCWD, path); err != nil {
			t.Fatalf("fanotify_mark 0x%x of %s: %v", flags, path, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func readEvents(t *testing.T, group *os.File, each func(e *FanotifyEvent)) {
	t.Helper()
	group.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 4096)
	n, err := group.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	seq, err := TakeFanotifyEvents(b[:n])
	if err != nil {
		t.Fatalf("%v: %q", err, b[:n])
	}
	for e := range seq {
		each(e)
	}
}

func TestFanotifyHandles(t *testing.T) {
	keepsDescriptors(t)
	group := fanotifyGroup(t, "5.17", unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME|unix.FAN_REPORT_FID|unix.FAN_REPORT_TARGET_FID|unix.FAN_REPORT_PIDFD)
	dir := t.TempDir()
	mountAt(t, "none", dir, "tmpfs", "size=1m")
	const mask = FAN_CREATE | FAN_RENAME | FAN_DELETE | FAN_ONDIR
	markFanotify(t, group, unix.FAN_MARK_FILESYSTEM, mask, dir)
	fs, err := openat(AT_FDCWD, dir, syscall.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fs)
	fsid, err := FSIDOf(fs)
	if err != nil {
		t.Fatal(err)
	}
	handle := func(path string) FileHandle {
		t.Helper()
		h, _, err := NameToHandleAt(AT_FDCWD, path, 0)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	file, moved := filepath.Join(dir, "file"), filepath.Join(dir, "sub", "moved")
	if err := os.Mkdir(filepath.Dir(moved), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "text")
	object := handle(file)
	if err := os.Rename(file, moved); err != nil {
		t.Fatal(err)
	}
	top, sub := handle(dir), handle(filepath.Dir(moved))
	if err := os.Remove(moved); err != nil {
		t.Fatal(err)
	}
	at := func(dir FileHandle, name string) string { return fmt.Sprintf("%v/%v/%s", fsid, dir, name) }
	want := []string{
		fmt.Sprintf("%x %s %v", FAN_CREATE|FAN_ONDIR, at(top, "sub"), sub),
		fmt.Sprintf("%x %s %v", FAN_CREATE, at(top, "file"), object),
		fmt.Sprintf("%x %s %s %v", FAN_RENAME, at(top, "file"), at(sub, "moved"), object),
		fmt.Sprintf("%x %s %v", FAN_DELETE, at(sub, "moved"), object),
	}
	var got []string
	for len(got) < len(want) {
		readEvents(t, group, func(e *FanotifyEvent) {
			line := fmt.Sprintf("%x", e.Mask)
			for _, get := range []func() (FanotifyFile, bool){e.Dir, e.OldDir, e.NewDir} {
				if f, ok := get(); ok {
					line += " " + at(f.Handle, string(f.Name))
					if f.FSID != fsid {
						t.Errorf("%v, want %v", f.FSID, fsid)
					}
				}
			}
			f, ok := e.Object()
			if !ok || f.Name != nil || f.FSID != fsid {
				t.Errorf("%v, %v", f, ok)
			}
			got = append(got, fmt.Sprintf("%s %v", line, f.Handle))
			p, err := e.PidFD()
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if pid, err := p.PID(); err != nil || pid != os.Getpid() || pid != e.PID {
				t.Error(pid, err, e.PID)
			}
			if _, err := e.File(); !errors.Is(err, syscall.ENODATA) && !errors.Is(err, syscall.EBADF) {
				t.Error(err)
			}
		})
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// A process that was reaped before its event was read.
func TestFanotifyReaped(t *testing.T) {
	for _, flags := range []uint{0, 0x2000} { // FAN_REPORT_FD_ERROR
		t.Run(fmt.Sprintf("0x%x", flags), func(t *testing.T) {
			keepsDescriptors(t)
			group := fanotifyGroup(t, map[uint]string{0: "5.15", 0x2000: "6.13"}[flags], unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_PIDFD|flags)
			name := tempFile(t)
			markFanotify(t, group, 0, FAN_OPEN, name)
			cmd := child("open", name)
			output(t, cmd)
			n := 0
			readEvents(t, group, func(e *FanotifyEvent) {
				n++
				p, err := e.PidFD()
				if err == nil && !olderThan(t, "7.2") {
					if r, err := p.TryWait(0); err != nil || !r.Ended || r.Unknown != nil || r.Status != 0 {
						t.Error(r, err)
					}
					if id, err := p.ID(); err != nil || id == 0 {
						t.Error(id, err)
					}
					p.Close()
				} else {
					matches(t, err, syscall.ESRCH, os.ErrProcessDone)
				}
				if e.PID != cmd.Process.Pid || e.Mask != FAN_OPEN {
					t.Errorf("PID %d, mask 0x%x", e.PID, e.Mask)
				}
				f, err := e.File()
				readsAs(t, f, err, "content of "+t.Name())
			})
			if n != 1 {
				t.Errorf("%d events", n)
			}
		})
	}
}

func init() {
	children["open"] = func(args []string) error {
		f, err := os.Open(args[0])
		if err == nil {
			f.Close()
		}
		return err
	}
}

// No descriptors are left for the pidfd.
func TestFanotifyEMFILE(t *testing.T) {
	for _, test := range []struct {
		since string
		flags uint
		errno syscall.Errno
	}{{"5.17", 0, syscall.EIO}, {"6.13", 0x2000, syscall.EMFILE}} {
		t.Run(test.since, func(t *testing.T) {
			keepsDescriptors(t)
			group := fanotifyGroup(t, test.since, unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME|unix.FAN_REPORT_PIDFD|test.flags)
			dir := t.TempDir()
			markFanotify(t, group, 0, FAN_CREATE, dir)
			writeFile(t, filepath.Join(dir, "file"), "")
			var old syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
				t.Fatal(err)
			}
			group.SetReadDeadline(time.Now().Add(time.Minute))
			b := make([]byte, 4096)
			none := old
			none.Cur = 0
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
				t.Fatal(err)
			}
			n, err := group.Read(b)
			syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
			if err != nil {
				t.Fatal(err)
			}
			seq, err := TakeFanotifyEvents(b[:n])
			if err != nil {
				t.Fatal(err)
			}
			for e := range seq {
				_, err := e.PidFD()
				matches(t, err, test.errno)
			}
		})
	}
}

// An event that waits for an answer, which goes by the number of the descriptor.
func TestFanotifyPermission(t *testing.T) {
	keepsDescriptors(t)
	group := fanotifyGroup(t, "2.6.37", unix.FAN_CLASS_CONTENT)
	dir := t.TempDir()
	mountAt(t, "none", dir, "tmpfs", "size=1m")
	name := filepath.Join(dir, "file")
	writeFile(t, name, "text")
	markFanotify(t, group, unix.FAN_MARK_MOUNT, FAN_OPEN_PERM, dir)
	cmd := child("open", name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer reap(cmd)
	readEvents(t, group, func(e *FanotifyEvent) {
		fd, ok := e.FD()
		if !ok || e.PID != cmd.Process.Pid || e.Mask != FAN_OPEN_PERM {
			t.Errorf("FD %d, %v, PID %d, mask 0x%x", fd, ok, e.PID, e.Mask)
		}
		const allow = 1
		answer := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, uint32(fd)), allow)
		if _, err := group.Write(answer); err != nil {
			t.Error(err)
		}
	})
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestFanotifyMounts(t *testing.T) {
	needs(t, FeatureMountIDUnique)
	keepsDescriptors(t)
	const reportMnt, markMntNS = 0x4000, 0x110
	group := fanotifyGroup(t, "6.15", reportMnt)
	markFanotify(t, group, markMntNS, FAN_MNT_ATTACH|FAN_MNT_DETACH, "/proc/self/ns/mnt")
	dir := t.TempDir()
	mountAt(t, "none", dir, "tmpfs", "size=1m")
	_, id, err := NameToHandleAt(AT_FDCWD, dir, AT_HANDLE_MNT_ID_UNIQUE)
	if err != nil {
		t.Fatal(err)
	}
	unmount(t, dir)
	var got uint64
	for got != FAN_MNT_ATTACH|FAN_MNT_DETACH {
		readEvents(t, group, func(e *FanotifyEvent) {
			is, ok := e.Mount()
			if !ok {
				t.Fatalf("0x%x: no mount", e.Mask)
			}
			if is == id {
				got |= e.Mask
			}
			if _, err := e.PidFD(); !errors.Is(err, syscall.ENODATA) {
				t.Error(err)
			}
		})
	}
}

// On btrfs events have the FSID of the top, from which the whole file system is watched.
func TestFanotifyBtrfs(t *testing.T) {
	keepsDescriptors(t)
	group := fanotifyGroup(t, "5.17", unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_DFID_NAME)
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "point")
	mountAt(t, image, point, "btrfs", makeImage(t, "btrfs", image))
	sub := filepath.Join(point, "sub")
	runTool(t, "btrfs", "-q", "subvolume", "create", sub)
	if err := withFD(group, func(fd int) {
		err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, FAN_CREATE, AT_FDCWD, sub)
		matches(t, err, syscall.EXDEV)
	}); err != nil {
		t.Fatal(err)
	}
	markFanotify(t, group, unix.FAN_MARK_FILESYSTEM, FAN_CREATE, point)
	fd, err := openat(AT_FDCWD, point, O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	want, err := FSIDOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := NameToHandleAt(AT_FDCWD, sub, 0)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(sub, "file"), "")
	n := 0
	readEvents(t, group, func(e *FanotifyEvent) {
		n++
		if f, ok := e.Dir(); !ok || f.FSID != want || f.Handle != h || string(f.Name) != "file" {
			t.Errorf("%v, %v; want %v, %v", f, ok, want, h)
		}
	})
	if n != 1 {
		t.Errorf("%d events", n)
	}
}

// A process that the reader has no PID for is not one that has ended.
func TestFanotifyOutOfSight(t *testing.T) {
	reliesOn(t, namespaces)
	for _, flags := range []uint{0, 0x2000} { // FAN_REPORT_FD_ERROR
		t.Run(fmt.Sprintf("0x%x", flags), func(t *testing.T) {
			keepsDescriptors(t)
			group := fanotifyGroup(t, map[uint]string{0: "5.15", 0x2000: "6.13"}[flags], unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_PIDFD|flags)
			name := tempFile(t)
			markFanotify(t, group, 0, FAN_OPEN, name)
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			cmd := child("events")
			cmd.ExtraFiles = []*os.File{group}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
			if got, want := output(t, cmd), "PID 0, EREMOTE true, ErrProcessDone false\n"; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

func init() {
	children["events"] = func([]string) error {
		b := make([]byte, 4096)
		n, err := syscall.Read(3, b)
		if err != nil {
			return err
		}
		seq, err := TakeFanotifyEvents(b[:n])
		if err != nil {
			return err
		}
		for e := range seq {
			_, err := e.PidFD()
			fmt.Printf("PID %d, EREMOTE %v, ErrProcessDone %v\n", e.PID, errors.Is(err, syscall.EREMOTE), errors.Is(err, os.ErrProcessDone))
		}
		return nil
	}
}

func TestFanotifyFileSystemError(t *testing.T) {
	keepsDescriptors(t)
	group := fanotifyGroup(t, "5.16", unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID)
	dir := t.TempDir()
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "point")
	mountAt(t, image, point, "ext4", makeImage(t, "ext4", image)+",errors=continue")
	markFanotify(t, group, unix.FAN_MARK_FILESYSTEM, FAN_FS_ERROR, point)
	var st syscall.Stat_t
	if err := syscall.Stat(point, &st); err != nil {
		t.Fatal(err)
	}
	name, err := filepath.EvalSymlinks("/sys/dev/block/" + DeviceID(st.Dev).String())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(name)+"/trigger_fs_error", []byte("for a test"), 0); err != nil {
			t.Skipf("errors cannot be made here: %v", err)
		}
	}
	n := 0
	readEvents(t, group, func(e *FanotifyEvent) {
		n++
		errno, count, ok := e.FileSystemError()
		if errno != syscall.EUCLEAN || count != 3 || !ok || e.Mask != FAN_FS_ERROR {
			t.Errorf("%v, %d, %v, mask 0x%x", errno, count, ok, e.Mask)
		}
		if f, ok := e.Object(); !ok || f.Handle.Type() != FILEID_INVALID || f.Handle.Len() != 0 || f.FSID.IsZero() {
			t.Errorf("%v, %v", f, ok) // no file in particular
		}
	})
	if n != 1 {
		t.Errorf("%d events", n)
	}
}
