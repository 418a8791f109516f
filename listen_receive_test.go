//go:build linux

package sysfd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// listenNotify returns a listener at a path, which is closed at the end of the test, and a Notifier
// for it.
func listenNotify(t testing.TB) (*NotifyListener, *Notifier) {
	t.Helper()
	l, err := ListenNotify(filepath.Join(t.TempDir(), "notify"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, &Notifier{Address: l.Address()}
}

// received returns the next message, which the test closes.
func received(t testing.TB, l *NotifyListener) *Notification {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	m, err := l.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// nothing fails the test if there is a message.
func nothing(t *testing.T, l *NotifyListener) {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
	defer cancel()
	if m, err := l.Next(ctx); m != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", m, err)
	}
}

// sendRaw sends what Notify would not.
func sendRaw(t testing.TB, address, data string, fds ...int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	var control []byte
	if len(fds) > 0 {
		control = syscall.UnixRights(fds...)
	}
	if err := syscall.Sendmsg(fd, []byte(data), control, &syscall.SockaddrUnix{Name: address}, 0); err != nil {
		t.Fatal(err)
	}
}

func TestListenNotify(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	l, n := listenNotify(t)
	files := openFiles(t, 2)
	for _, test := range []struct {
		send  func() (bool, error)
		want  []string
		files []*os.File
		name  string
	}{
		{func() (bool, error) { return n.Notify(background, NotifyReady, NotifyStatus("a = b")) }, []string{"READY=1", "STATUS=a = b"}, nil, ""},
		{func() (bool, error) { return n.NotifyStoreFDs(background, "", files) }, []string{"FDSTORE=1", "FDNAME=stored"}, files, "stored"},
		{func() (bool, error) { return n.NotifyStoreFDs(background, "a b", files) }, []string{"FDSTORE=1", "FDNAME=a b"}, files, "a b"},
		{func() (bool, error) { return n.NotifyFiles(background, files[:1], "FDNAME=") }, []string{"FDNAME="}, files[:1], "stored"},
		{func() (bool, error) { return n.NotifyFiles(background, files[:1], "FDNAME=a:b", "FDNAME=c") }, []string{"FDNAME=a:b", "FDNAME=c"}, files[:1], "stored"},
		{func() (bool, error) { return n.NotifyFiles(background, slices.Repeat(files[:1], 253), "X=") }, []string{"X="}, slices.Repeat(files[:1], 253), "stored"},
	} {
		sent, err := test.send()
		sentWell(t, sent, err)
		m := received(t, l)
		if !slices.Equal(m.Assignments, test.want) || m.NumFiles() != len(test.files) || m.IsBarrier() {
			t.Errorf("%v with %d files, want %q with %d", m, m.NumFiles(), test.want, len(test.files))
		}
		for i, f := range m.Files() {
			got, err := f.Stat()
			want, errWant := test.files[i].Stat()
			flags, errno := fcntl(int(f.Fd()), syscall.F_GETFD, 0)
			if err != nil || errWant != nil || !os.SameFile(got, want) || f.Name() != test.name || errno != 0 || flags != syscall.FD_CLOEXEC {
				t.Errorf("%v: file %d: %s, %v, %v, flags %#x, %v", m, i, f.Name(), err, errWant, flags, errno)
			}
		}
		if c := m.Credentials; int(c.Pid) != os.Getpid() && !threadsSend() || int(c.Uid) != os.Getuid() || int(c.Gid) != os.Getgid() {
			t.Errorf("%+v", c)
		}
		taken := m.TakeFiles()
		if err := m.Close(); err != nil || m.NumFiles() != 0 || len(m.Files()) != 0 {
			t.Errorf("closed: %d files, %v", m.NumFiles(), err)
		}
		for _, f := range taken {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		m.Close()
	}
	nothing(t, l)
	if l.Dropped() != 0 {
		t.Errorf("%d were dropped", l.Dropped())
	}
}

func TestNotificationValue(t *testing.T) {
	m := &Notification{Assignments: []string{"READY=1", "STATUS=a=b", "READY=0", "ERRNO=", "X="}}
	for name, want := range map[string]string{"READY": "1", "STATUS": "a=b", "ERRNO": "", "READ": "-", "READY=": "-", "": "-", "1": "-", "STATUS=a": "-"} {
		value, ok := m.Value(name)
		if !ok {
			value = "-"
		}
		if value != want {
			t.Errorf("%s: %q", name, value)
		}
	}
	for assignment, want := range map[string]bool{"READY=1": true, "READY=0": false, "READY": false, "ERRNO=": true, "ERRNO": false, "STATUS=a=b": true, "STATUS=a": false, "": false, "=": false} {
		if m.Has(assignment) != want {
			t.Errorf("%q: %v", assignment, !want)
		}
	}
}

// The permissions are those that were asked for, and never more.
func TestListenNotifyMode(t *testing.T) {
	keepsDescriptors(t)
	dir := t.TempDir()
	for _, mask := range []int{0, 0o022, 0o777} {
		for _, mode := range []os.FileMode{0, 0o600, 0o622, 0o777} {
			path := filepath.Join(dir, "notify")
			before := syscall.Umask(mask)
			l, err := ListenNotify(path, mode)
			syscall.Umask(before)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode() != os.ModeSocket|mode {
				t.Errorf("umask %#o: %v, want %v, %v", mask, info.Mode(), mode, err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("closed, it is still there: %v", err)
			}
			matches(t, l.Close(), os.ErrClosed)
		}
	}
	// Between bind(2) and chmod(2) it has less than that.
	underFilter(t, func() error {
		answers := map[int]uint32{}
		for _, nr := range chmodNumbers {
			answers[nr] = retErrno | uint32(syscall.EPERM)
		}
		return filter(answers)
	}, func() {
		path := filepath.Join(dir, "filtered")
		if l, err := ListenNotify(path, 0o600); err == nil {
			l.Close()
		} else if !surroundings().instead {
			t.Errorf("bind(2) does not give the permissions: %v", err)
		}
		l, err := ListenNotify(path, 0o777)
		if err == nil { // where the umask lets all pass
			l.Close()
			return
		}
		matches(t, err, syscall.EPERM, os.ErrPermission)
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
	})
}

// A link in place of the socket is not followed.
func TestListenNotifyLink(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "notify")
	if err := os.WriteFile(victim, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, path); err != nil {
		t.Fatal(err)
	}
	l := &NotifyListener{address: path}
	if errno := l.permit(0o666); errno != syscall.ENOTSOCK {
		t.Error(errno)
	}
	if info, err := os.Stat(victim); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := ListenNotify(path, 0o666); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
}

var chmodNumbers = map[string][]int{"amd64": {90, 268}, "386": {15, 306}, "arm64": {53}}[runtime.GOARCH]

func TestListenNotifyErrors(t *testing.T) {
	keepsDescriptors(t)
	dir := t.TempDir()
	long := "/" + strings.Repeat("x", 107)
	taken, _ := listenNotify(t)
	abstract := "@sysfd-test-receive-" + strconv.Itoa(os.Getpid())
	l, err := ListenNotify(abstract, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		address string
		mode    os.FileMode
		want    []error
	}{
		{"", 0o600, []error{syscall.EINVAL}},
		{"@", 0o600, []error{syscall.EINVAL}},
		{"notify", 0o600, []error{syscall.EINVAL}},
		{dir + "/a\x00b", 0o600, []error{syscall.EINVAL}},
		{"@a\x00b", 0o600, []error{syscall.EINVAL}},
		{long, 0o600, []error{syscall.ENAMETOOLONG}},
		{"vsock::1234", 0o600, []error{syscall.EAFNOSUPPORT, errors.ErrUnsupported}},
		{dir + "/mode", 0o1600, []error{syscall.EINVAL}},
		{dir + "/mode", os.ModeSetuid | 0o600, []error{syscall.EINVAL}},
		{dir + "/none/notify", 0o600, []error{syscall.ENOENT, os.ErrNotExist}},
		{dir, 0o600, []error{syscall.EADDRINUSE}},
		{taken.Address(), 0o600, []error{syscall.EADDRINUSE}},
		{abstract, 0o600, []error{syscall.EADDRINUSE}},
	} {
		l, err := ListenNotify(test.address, test.mode)
		if l != nil || err == nil {
			t.Fatalf("%s: no error", test.address)
		}
		matches(t, err, test.want...)
		if strings.Contains(err.Error(), "NOTIFY_SOCKET") {
			t.Errorf("%v names a variable that was not asked", err)
		}
		if test.mode == 0o600 && !strings.Contains(err.Error(), strings.Trim(strconv.Quote(test.address), `"`)) {
			t.Errorf("%v does not name %q", err, test.address)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v are left, %v", left, err)
	}
	if _, err := os.Lstat(taken.Address()); err != nil {
		t.Errorf("the path that was taken: %v", err)
	}
	// A path that belongs to another one by now stays.
	os.Remove(taken.Address())
	other, err := ListenNotify(taken.Address(), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	taken.Close()
	if _, err := os.Lstat(taken.Address()); err != nil {
		t.Errorf("the path of another listener: %v", err)
	}
}

// What systemd does not take is passed over, and costs nothing.
func TestNotifyListenerHostile(t *testing.T) {
	keepsDescriptors(t)
	l, n := listenNotify(t)
	null := openNull(t)
	many := slices.Repeat([]int{int(null.Fd())}, 253)
	full := "X=" + strings.Repeat("x", mostReceived-2)
	for _, data := range []string{
		"\n", "\x00", "READY", "=1", "\r=1", `READY=1\`, "READY=1\\\x00", "READY=1\n\\", "READY=1\x00\x00", "\x00READY=1", "READY=1\x00\n", full + "\x00", full + "x", strings.Repeat("X=1\n", 10_000),
	} {
		before := l.Dropped()
		sendRaw(t, l.Address(), data)
		sendRaw(t, l.Address(), data, many...)
		for start := time.Now(); l.Dropped() < before+2 && time.Since(start) < 10*time.Second; {
			nothing(t, l)
		}
		nothing(t, l)
		if got := l.Dropped() - before; got != 2 {
			t.Errorf("%.20q: %d were dropped", data, got)
		}
	}
	if !surroundings().instead { // gVisor of 2022 does not deliver it
		sendRaw(t, l.Address(), "", many...)
		nothing(t, l)
	}
	for data, want := range map[string][]string{
		full:                                  {full},
		full[:mostReceived-1] + "\x00":        {full[:mostReceived-1]},
		"READY=1\x00":                         {"READY=1"},
		"\n\nREADY=1\n\x00":                   {"READY=1"},
		"a\nB=\xff\xfe\r\n=\nC==\n\n \n D=1":  {"B=\xff\xfe", "C==", " D=1"},
		"X=1\rMAINPID=1":                      {"X=1", "MAINPID=1"},
		"MAIN\\PID\\=1\nX=C:\\\\\nY=\\\\\\\\": {"MAINPID=1", `X=C:\`, `Y=\\`},
		"X=a\\\nMAINPID=1\\\rB=":              {"X=a MAINPID=1 B="},
		"\\\n=1\n\\=1":                        {" =1"},
	} {
		sendRaw(t, l.Address(), data, many...)
		m := received(t, l)
		if !slices.Equal(m.Assignments, want) || m.NumFiles() != 253 {
			t.Errorf("%.40q: %.40q, %d files", data, m.Assignments, m.NumFiles())
		}
		m.Close()
	}
	sent, err := n.Notify(background, NotifyReady)
	sentWell(t, sent, err)
	m := received(t, l)
	if !m.Has(NotifyReady) {
		t.Errorf("%v", m)
	}
	m.Close()
}

// FuzzNotification has the kernel deliver messages, with descriptors.
func FuzzNotification(f *testing.F) {
	rights.Proc(f)
	for _, s := range []string{"", "READY=1", "READY=1\n", "\nREADY=1\nSTATUS=a\x00", "a\x00b=1", "=", "X=" + strings.Repeat("x", mostReceived-2), "FDSTORE=1\nFDNAME=a:b", "A=1\rB=\\\nC=\\\\", `\`} {
		f.Add(s, uint8(0))
		f.Add(s, uint8(253))
	}
	l, n := listenNotify(f)
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { null.Close() })
	before := len(descriptors(f))
	f.Fuzz(func(t *testing.T, s string, fds uint8) {
		if len(s) > 100_000 {
			return
		}
		count := int(fds) % 254
		sendRaw(t, l.Address(), s, slices.Repeat([]int{int(null.Fd())}, count)...)
		sent, err := n.Notify(background, "END=1")
		sentWell(t, sent, err)
		m := received(t, l)
		if len(m.Assignments) != 1 || m.Assignments[0] != "END=1" {
			if m.NumFiles() != count {
				t.Errorf("%d files, want %d", m.NumFiles(), count)
			}
			text := strings.Join(m.Assignments, "\n")
			if strings.ContainsAny(text, "\x00\r") || len(text) > mostReceived || !strings.Contains(s, `\`) && !strings.Contains(s, m.Assignments[0]) {
				t.Errorf("%q from %q", m.Assignments, s)
			}
			// What a proxy has got it can send on as the same.
			err := checkAssignments(m.Assignments)
			if got := parseNotification(joinAssignments(m.Assignments)); err != nil || !slices.Equal(got, m.Assignments) {
				t.Errorf("%q, %v; want %q", got, err, m.Assignments)
			}
			m.Close()
			m = received(t, l)
		}
		if !m.Has("END=1") {
			t.Errorf("%v", m)
		}
		m.Close()
		if after := len(descriptors(t)); after != before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

// What is forgotten is closed by the collector, and no file that was asked for.
func TestNotificationForgotten(t *testing.T) {
	l, n := listenNotify(t)
	files := openFiles(t, 2)
	before := descriptorNumbers()
	for range 3 {
		sent, err := n.NotifyFiles(background, files, "X=1")
		sentWell(t, sent, err)
	}
	sender := received(t, l).Sender
	kept := received(t, l).Files()
	taken := received(t, l).TakeFiles()
	for range 10 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	if sender != nil {
		if _, err := sender.TryWait(0); err != nil {
			t.Error(err)
		}
		sender.Close()
	}
	for _, f := range append(kept, taken...) {
		if _, err := f.Stat(); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	for i := 0; !slices.Equal(descriptorNumbers(), before); i++ {
		if i == 100 {
			t.Fatalf("descriptors before: %d, now: %d", before, descriptorNumbers())
		}
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
}

// When this process has no descriptors left, a message that has some is lost, and one without is
// not.
func TestNotifyListenerDescriptors(t *testing.T) {
	if surroundings().instead {
		t.Skip("gVisor does not tell that descriptors are missing")
	}
	if !again(t, nil) {
		return
	}
	withSender := !lacksFeature(t, FeaturePassPidFD)
	limit := syscall.Rlimit{Cur: 128, Max: 128}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	l, n := listenNotify(t)
	null := openNull(t)
	files := []*os.File{null, null}
	for left := range 4 {
		for _, with := range [][]*os.File{files, nil} {
			sent, err := n.NotifyFiles(background, with, "X=1", "N="+strconv.Itoa(len(with)))
			sentWell(t, sent, err)
		}
		sent, err := n.Notify(background, "END=1")
		sentWell(t, sent, err)
		before := descriptorNumbers()
		withDescriptorsLeft(left, func() {
			for {
				m, err := l.Next(background)
				if err != nil {
					t.Fatal(err)
				}
				if m.NumFiles() != 2 && m.Has("N=2") {
					t.Errorf("%d left: %d files", left, m.NumFiles())
				}
				if m.Sender == nil && left > 2 && withSender {
					t.Errorf("%d left: %v: %v", left, m, m.SenderErr)
				}
				if left == 0 && m.Sender == nil && !errors.Is(m.SenderErr, syscall.EMFILE) && withSender {
					t.Errorf("%d left: %v: %v", left, m, m.SenderErr)
				}
				end := m.Has("END=1")
				m.Close()
				if end {
					break
				}
			}
		})
		if after := descriptorNumbers(); !slices.Equal(before, after) {
			t.Errorf("%d left: before %d, after %d", left, before, after)
		}
	}
	if l.Dropped() == 0 || l.Dropped() > 3 {
		t.Errorf("%d were dropped", l.Dropped())
	}
}

func init() {
	// notifier sends assignments to an address, or a barrier, and ends.
	children["notifier"] = func(args []string) error {
		n := &Notifier{Address: args[0]}
		if args[1] == "barrier" {
			return second(n.NotifyBarrier(background))
		}
		return second(n.Notify(background, args[1:]...))
	}
	// flood sends as many messages as it is told to, each with as many descriptors, and ends.
	children["flood"] = func(args []string) error {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		count, _ := strconv.Atoi(args[2])
		files, _ := strconv.Atoi(args[3])
		n := &Notifier{Address: args[0]}
		for i := range count {
			_, err := n.NotifyFiles(background, slices.Repeat([]*os.File{null}, files), args[1]+"="+strconv.Itoa(i))
			for errors.Is(err, syscall.ETOOMANYREFS) { // no user but root may have that many on their way
				time.Sleep(time.Millisecond)
				_, err = n.NotifyFiles(background, slices.Repeat([]*os.File{null}, files), args[1]+"="+strconv.Itoa(i))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	// drops floods with what is not taken, and so many descriptors each, until it is killed.
	children["drops"] = func(args []string) error {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		files, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		rights := syscall.UnixRights(slices.Repeat([]int{int(null.Fd())}, files)...)
		for {
			runtime.KeepAlive(null)
			for _, data := range []string{"", "x\x00=", strings.Repeat("x", 4097)} {
				if err := syscall.Sendmsg(fd, []byte(data), rights, &syscall.SockaddrUnix{Name: args[0]}, 0); err != nil && err != syscall.ETOOMANYREFS {
					return err
				}
			}
		}
	}
}

// threadsSend reports whether the PID of a sender can be that of a thread.
func threadsSend() bool { return surroundings().instead }

func TestNotificationIsFrom(t *testing.T) {
	if threadsSend() {
		t.Skip("gVisor names a thread as the sender")
	}
	keepsDescriptors(t)
	l, n := listenNotify(t)
	from := func(m *Notification, p *PidFD, want bool, wantErr error) {
		t.Helper()
		got, err := m.IsFrom(p)
		if got != want || (err != nil) != (wantErr != nil) || !errors.Is(err, wantErr) {
			t.Errorf("%v, sender %v, %v: from %v: %v, %v; want %v, %v", m, m.Sender, m.SenderErr, p, got, err, want, wantErr)
		}
	}
	me, other := openPidFD(t, os.Getpid()), openPidFD(t, sleeper(t).Process.Pid)
	sent, err := n.Notify(background, NotifyReady)
	sentWell(t, sent, err)
	m := received(t, l)
	if (m.Sender == nil) != lacksFeature(t, FeaturePassPidFD) || (m.Sender == nil) != (m.SenderErr != nil) {
		t.Errorf("sender %v, %v", m.Sender, m.SenderErr)
	}
	if m.Sender == nil {
		matches(t, m.SenderErr, errors.ErrUnsupported)
	}
	from(m, me, true, nil)
	from(m, other, false, nil)
	from(m, nil, false, os.ErrInvalid)
	// As on older kernels.
	less := *m
	less.Sender, less.SenderErr = nil, errors.ErrUnsupported
	from(&less, me, true, nil)
	from(&less, other, false, nil)
	less.SenderErr = refused(syscall.EINVAL, "reaped").as(os.ErrProcessDone)
	from(&less, me, false, nil)
	m.Close()
	if m.Sender != nil {
		from(m, me, false, os.ErrClosed)
	}

	// One that has ended.
	cmd := child("notifier", l.Address(), "READY=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := openPidFD(t, cmd.Process.Pid)
	stranger := openPidFD(t, sleeper(t).Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	m = received(t, l)
	defer m.Close()
	if int(m.Credentials.Pid) != cmd.Process.Pid {
		t.Errorf("%v, want %d", m, cmd.Process.Pid)
	}
	if _, err := p.ID(); m.Sender != nil && err == nil {
		from(m, p, true, nil)
	} else {
		from(m, p, false, os.ErrProcessDone)
	}
	from(m, stranger, false, nil)
	from(m, me, false, nil)
}

func TestNotifyListenerBarrier(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	l, n := listenNotify(t)
	done := make(chan error, 1)
	start := func() {
		go func() { done <- second(n.NotifyBarrier(background)) }()
	}
	start()
	m := received(t, l)
	if !m.IsBarrier() {
		t.Fatalf("%v", m)
	}
	awaitIOWait(t, "NotifyBarrier")
	select {
	case err := <-done:
		t.Fatalf("it has not waited: %v", err)
	default:
	}
	m.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}

	// A proxy: the barrier holds until the one behind it is done.
	behind, further := listenNotify(t)
	start()
	m = received(t, l)
	sent, err := further.NotifyFiles(background, m.Files(), m.Assignments...)
	sentWell(t, sent, err)
	m.Close()
	select {
	case err := <-done:
		t.Fatalf("it has not waited: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	m = received(t, behind)
	if !m.IsBarrier() {
		t.Errorf("%v", m)
	}
	m.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}

	// A listener that is closed holds nobody up.
	start()
	awaitIOWait(t, "NotifyBarrier")
	l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, m := range []Notification{
		{Assignments: []string{"BARRIER=1"}},
		{Assignments: []string{"BARRIER=1", "X=1"}, fds: []int{-1}},
		{Assignments: []string{"BARRIER=1"}, files: make([]*os.File, 2)},
		{Assignments: []string{"BARRIER=0"}, fds: []int{-1}},
	} {
		if m.IsBarrier() {
			t.Errorf("%v", &m)
		}
		m.Close() // with descriptors that are none
	}
}

func TestNotifyListenerClose(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	l, _ := listenNotify(t)
	done := make(chan error)
	const waiting = 3
	for range waiting {
		go func() {
			m, err := l.Next(background)
			if m != nil {
				err = fmt.Errorf("%v, %w", m, err)
			}
			done <- err
		}()
	}
	cause := errors.New("because")
	ctx, cancel := context.WithCancelCause(background)
	go func() { done <- second(l.Next(ctx)) }()
	awaitIOWait(t, "(*NotifyListener).Next")
	cancel(cause)
	if err := <-done; err != cause {
		t.Error(err)
	}
	if err := second(l.Next(ctx)); err != cause {
		t.Error(err)
	}
	l.Close()
	for range waiting {
		if err := <-done; err != os.ErrClosed {
			t.Error(err)
		}
	}
	for _, ctx := range []context.Context{background, ctx} {
		if err := second(l.Next(ctx)); err != os.ErrClosed {
			t.Error(err)
		}
	}
	// A context that is done empties the queue.
	l, n := listenNotify(t)
	for range 3 {
		sendRaw(t, l.Address(), "")
		sent, err := n.Notify(background, NotifyReady)
		sentWell(t, sent, err)
	}
	for range 3 {
		m, err := l.Next(ctx)
		if err != nil || !m.Has(NotifyReady) {
			t.Fatal(m, err)
		}
		m.Close()
	}
	if err := second(l.Next(ctx)); err != cause {
		t.Error(err)
	}
	// Also while someone else is about to receive, or waits.
	for range 2 {
		sent, err := n.Notify(background, NotifyReady)
		sentWell(t, sent, err)
	}
	l.parking.turn <- struct{}{}
	for range 2 {
		m, err := l.Next(ctx)
		if err != nil || !m.Has(NotifyReady) {
			t.Fatal(m, err)
		}
		m.Close()
	}
	if err := second(l.Next(ctx)); err != cause {
		t.Error(err)
	}
	<-l.parking.turn
	// A flood of what is dropped does not keep Next.
	flood := child("drops", l.Address(), "253")
	if err := flood.Start(); err != nil {
		t.Fatal(err)
	}
	defer reap(flood)
	for i, end := range []func(cancel func()){func(cancel func()) { cancel() }, func(func()) { l.Close() }} {
		ctx, cancel := context.WithCancel(background)
		go func() { done <- second(l.Next(ctx)) }()
		for start := l.Dropped(); l.Dropped() < start+10; {
			time.Sleep(time.Millisecond)
		}
		end(cancel)
		if err := <-done; !errors.Is(err, []error{context.Canceled, os.ErrClosed}[i]) {
			t.Error(err)
		}
		cancel()
	}
}

// Messages, descriptors and Close, all at the same time: none is lost before Close, nothing is
// left.
func TestNotifyListenerRace(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	for range fewer(50) {
		l, n := listenNotify(t)
		files := openFiles(t, 1)
		var sent, got atomic.Int32
		var senders, receivers waitGroup
		ctx, cancel := context.WithCancel(background)
		for range 3 {
			senders.Go(func() {
				for range 20 {
					if ok, _ := n.NotifyFiles(ctx, files, "X=1"); ok {
						sent.Add(1)
					}
				}
			})
			receivers.Go(func() {
				for {
					short, stop := context.WithTimeout(background, time.Millisecond)
					m, err := l.Next(short)
					stop()
					switch {
					case err == nil:
						got.Add(1)
						m.Close()
					case !errors.Is(err, context.DeadlineExceeded):
						return
					}
				}
			})
		}
		senders.Wait()
		for got.Load() < sent.Load() {
			time.Sleep(time.Millisecond)
		}
		l.Close()
		receivers.Wait()
		cancel()
	}
}

func TestNotifyFromSystemdNotify(t *testing.T) {
	reliesOn(t, runsItself)
	if _, err := exec.LookPath("systemd-notify"); err != nil {
		lacks(t, "systemd-notify")
	}
	keepsDescriptors(t)
	l, n := listenNotify(t)
	cmd := exec.Command("systemd-notify", "--ready", "--status=two\nlines", "X_OWN=1")
	cmd.Env = n.Environ(os.Environ())
	done := make(chan error, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
		done <- err
	}()
	m := received(t, l)
	if !m.Has(NotifyReady) || !m.Has("STATUS=two") || !m.Has("X_OWN=1") {
		t.Errorf("%v", m)
	}
	m.Close()
	m = received(t, l) // it has waited for the barrier since systemd 246
	if !m.IsBarrier() {
		t.Errorf("%v", m)
	}
	select {
	case err := <-done:
		t.Errorf("it has not waited: %v", err)
	case <-time.After(10 * time.Millisecond):
	}
	m.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Senders of all kinds at once: what is authenticated comes, each message once and in order; no
// descriptor is left, and the memory stays as it is. SYSFD_TEST_LOAD makes it 100,000 messages.
func TestNotifyListenerLoad(t *testing.T) {
	if threadsSend() {
		t.Skip("gVisor names a thread as the sender")
	}
	l, _ := listenNotify(t)
	before := descriptorNumbers()
	const senders = 4
	each, dying, files := 2500, 100, 253
	switch {
	case os.Getenv("SYSFD_TEST_LOAD") != "":
		each, dying = 25_000, 1000
	case testing.Short(), os.Getenv(emulatorVar) != "":
		each, dying, files = 100, 10, 16 // an emulated machine with one processor spends its time on them
	}
	hostile := child("drops", l.Address(), strconv.Itoa(files))
	hostile.Stderr = os.Stderr
	if err := hostile.Start(); err != nil {
		t.Fatal(err)
	}
	defer reap(hostile)
	type program struct {
		cmd  *exec.Cmd
		p    *PidFD
		next int
	}
	var programs []*program
	for i := range senders {
		cmd := child("flood", l.Address(), "N", strconv.Itoa(each), strconv.Itoa(i%2*files))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer reap(cmd)
		programs = append(programs, &program{cmd: cmd, p: openPidFD(t, cmd.Process.Pid)})
	}
	done := make(chan error, 1)
	go func() { // those that die as soon as they have sent
		for range dying {
			if err := child("notifier", l.Address(), "DEAD=1").Run(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	sender := func(m *Notification) *program {
		for _, g := range programs {
			if from, err := m.IsFrom(g.p); err != nil {
				t.Fatal(m, err)
			} else if from {
				return g
			}
		}
		return nil
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	start, peak, most := memory.HeapInuse+memory.StackInuse, uint64(0), 0
	began, got := time.Now(), 0
	for n, dead := 0, 0; n < senders*each || dead < dying; {
		m := received(t, l)
		switch g := sender(m); {
		case g == nil && m.Has("DEAD=1"):
			dead++
		case g == nil || !m.Has("N="+strconv.Itoa(g.next)):
			t.Fatalf("%v from %v", m, g)
		default:
			g.next++
			n++
		}
		got += m.NumFiles()
		m.Close()
		if (n+dead)%100 == 0 {
			runtime.ReadMemStats(&memory)
			peak = max(peak, memory.HeapInuse+memory.StackInuse)
			most = max(most, len(descriptorNumbers()))
		}
	}
	took := time.Since(began)
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d messages with %d descriptors, and %d of senders that died, in %v; %d dropped, with %d each; memory in use: %d KiB before, at most %d KiB",
		senders*each, got, dying, took.Round(time.Millisecond), l.Dropped(), files, start>>10, peak>>10)
	if peak > start+16<<20 {
		t.Errorf("it took %d KiB of memory", (peak-start)>>10)
	}
	if most > len(before)+2*senders+16 { // pidfds, and what it takes to start a child
		t.Errorf("%d descriptors were open, %d before", most, len(before))
	}
	reap(hostile)
	for _, g := range programs {
		g.p.Close()
		reap(g.cmd)
	}
	if after := descriptorNumbers(); !slices.Equal(before, after) {
		t.Errorf("descriptors before: %d, after: %d", before, after)
	}
}

// A doneSoon is a context that is done from the second look on.
type doneSoon struct {
	context.Context
	looks int
}

func (d *doneSoon) Err() error {
	if d.looks++; d.looks > 1 {
		return context.Canceled
	}
	return nil
}

// What is dropped does not keep Next, however much of it there is.
func TestNotifyListenerDropping(t *testing.T) {
	for _, closed := range []bool{false, true} {
		l, _ := listenNotify(t)
		for range 3 {
			sendRaw(t, l.Address(), "\n")
		}
		limited, cancel := context.WithTimeout(background, 10*time.Second)
		defer cancel()
		ctx, want := context.Context(&doneSoon{Context: background}), context.Canceled
		if closed {
			ctx, want = limited, os.ErrClosed
			l.closed.Store(true)
		}
		if m, err := l.Next(ctx); m != nil || err != want || l.Dropped() != 1 {
			t.Errorf("closed: %v: %v, %v, %d were dropped", closed, m, err, l.Dropped())
		}
		l.closed.Store(false)
	}
}

// As before Linux 6.5: senders come without a pidfd, and are known by their PIDs.
func TestListenNotifyWithoutPidFD(t *testing.T) {
	if threadsSend() {
		t.Skip("gVisor names a thread as the sender")
	}
	setsockopt, ok := map[string]uint32{"amd64": 54, "arm64": 208}[runtime.GOARCH]
	if !ok { // 386 has socketcall(2), of which a filter sees no more
		t.Skip("the filter is for amd64 and arm64")
	}
	keepsDescriptors(t)
	path := filepath.Join(t.TempDir(), "notify")
	underFilter(t, func() error {
		const option = 16 + 2*8 // args[2] of struct seccomp_data, the low half
		load, equal, ret := uint16(syscall.BPF_LD|syscall.BPF_W|syscall.BPF_ABS), uint16(syscall.BPF_JMP|syscall.BPF_JEQ|syscall.BPF_K), uint16(syscall.BPF_RET|syscall.BPF_K)
		_, err := installProgram([]syscall.SockFilter{
			{Code: load},
			{Code: equal, Jf: 3, K: setsockopt},
			{Code: load, K: option},
			{Code: equal, Jf: 1, K: unix.SO_PASSPIDFD},
			{Code: ret, K: retErrno | uint32(syscall.ENOPROTOOPT)},
			{Code: ret, K: retAllow},
		}, 0)
		return err
	}, func() {
		l, err := ListenNotify(path, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		sendRaw(t, path, "READY=1")
		m := received(t, l)
		defer m.Close()
		if m.Sender != nil {
			t.Errorf("%v has a sender", m)
		}
		matches(t, m.SenderErr, syscall.ENOPROTOOPT, errors.ErrUnsupported)
		for p, want := range map[*PidFD]bool{openPidFD(t, os.Getpid()): true, openPidFD(t, 1): false} {
			if from, err := m.IsFrom(p); from != want || err != nil {
				t.Errorf("from %v: %v, %v", p, from, err)
			}
		}
	})
}

// A connection with SO_LINGER whose peer does not read keeps nobody waiting who did not ask for it.
func TestNotifyListenerLinger(t *testing.T) {
	keepsDescriptors(t)
	l, _ := listenNotify(t)
	for name, text := range map[string]string{"passed over": "nothing", "not looked at": "X=1"} {
		server, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		peer, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		c.Write(make([]byte, 1<<24)) // more than there is room for
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).SetLinger(300); err != nil {
			t.Fatal(err)
		}
		sendRaw(t, l.Address(), text, int(f.Fd()))
		f.Close()
		c.Close() // the message has the last descriptor
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithCancel(background)
			cancel()
			m, err := l.Next(ctx)
			if m != nil {
				m.Close()
			}
			done <- err
		}()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Errorf("%s: it waits", name)
			peer.Close()
			<-done
		}
		peer.Close()
		server.Close()
	}
}
