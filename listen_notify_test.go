//go:build linux

package sysfd

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A manager is the receiving end of $NOTIFY_SOCKET.
type manager struct {
	*net.UnixConn
	t testing.TB
}

// newManager listens at an address, "" = a path, and has $NOTIFY_SOCKET tell that.
func newManager(t testing.TB, address string) manager {
	t.Helper()
	if address == "" {
		address = filepath.Join(t.TempDir(), "notify")
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", address)
	return manager{conn, t}
}

// next returns the next message, which must be there, and the descriptors in it.
func (m manager) next() (text string, fds []int) {
	m.t.Helper()
	buf, control := make([]byte, 1<<17), make([]byte, syscall.CmsgSpace(300*4))
	m.SetReadDeadline(time.Now().Add(time.Minute))
	n, nControl, flags, _, err := m.ReadMsgUnix(buf, control)
	if err != nil || flags&^syscall.MSG_CMSG_CLOEXEC != 0 {
		m.t.Fatalf("flags %#x, %v", flags, err)
	}
	if nControl > 0 {
		messages, err := syscall.ParseSocketControlMessage(control[:nControl])
		if err != nil || len(messages) != 1 || messages[0].Header.Type != syscall.SCM_RIGHTS {
			m.t.Fatalf("%+v, %v", messages, err)
		}
		if fds, err = syscall.ParseUnixRights(&messages[0]); err != nil {
			m.t.Fatal(err)
		}
	}
	return string(buf[:n]), fds
}

// silent fails the test if there is a message.
func (m manager) silent() {
	m.t.Helper()
	m.SetReadDeadline(time.Now().Add(-time.Second))
	raw, err := m.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_DONTWAIT|syscall.MSG_PEEK); err != syscall.EAGAIN {
			m.t.Errorf("a message was sent: %d bytes, %v", n, err)
		}
	})
}

// fill sends until the queue of the receiver is full, and returns how many messages that took.
func (m manager) fill() (n int) {
	m.t.Helper()
	full, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		sent, err := Notify(full, "FILLER="+strconv.Itoa(n))
		if !sent {
			if !errors.Is(err, context.Canceled) {
				m.t.Fatalf("after %d messages: %v", n, err)
			}
			return n
		}
		n++
	}
}

var background = context.Background()

func sentWell(t testing.TB, sent bool, err error) {
	t.Helper()
	if !sent || err != nil {
		t.Fatalf("sent %v, %v", sent, err)
	}
}

// fileOf returns what a received descriptor refers to, and checks that it is close-on-exec.
func fileOf(t *testing.T, fd int) *os.File {
	t.Helper()
	if flags, errno := fcntl(fd, syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
	return os.NewFile(uintptr(fd), "received")
}

func sameFiles(t *testing.T, fds []int, want []*os.File) {
	t.Helper()
	if len(fds) != len(want) {
		t.Errorf("%d descriptors, want %d", len(fds), len(want))
	}
	for i, fd := range fds {
		f := fileOf(t, fd)
		got, err := f.Stat()
		f.Close()
		if err != nil || i >= len(want) {
			t.Errorf("descriptor %d: %v", i, err)
			continue
		}
		if info, err := want[i].Stat(); err != nil || !os.SameFile(got, info) {
			t.Errorf("descriptor %d is another file, %v", i, err)
		}
	}
}

func openFiles(t *testing.T, n int) (files []*os.File) {
	t.Helper()
	for i := range n {
		f, err := openAt(strconv.Itoa(i), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	return files
}

func TestNotifyMessages(t *testing.T) {
	keepsDescriptors(t)
	m := newManager(t, "")
	files := openFiles(t, 2)
	ref := ProcessRef{PID: 4711, ID: 0x7_0000_0077, BootID: BootID{1}}
	for _, test := range []struct {
		want  string
		files []*os.File
		send  func(ctx context.Context) (bool, error)
	}{
		{want: "READY=1", send: func(ctx context.Context) (bool, error) { return Notify(ctx, NotifyReady) }},
		{want: "READY=1\nSTATUS=all well: 100 % \u2713\nX_A==", send: func(ctx context.Context) (bool, error) {
			return Notify(ctx, NotifyReady, NotifyStatus("all well: 100 % \u2713"), "X_A==")
		}},
		{want: "READY=1\nSTATUS=up", send: func(ctx context.Context) (bool, error) { return Notify(ctx, "READY=1\nSTATUS=up") }},
		{want: "READY=1", send: func(ctx context.Context) (bool, error) { return Notify(ctx, "READY=1\n") }},
		{want: "A=1\nB=2\nC=3\nD=\nE=5", send: func(ctx context.Context) (bool, error) {
			return Notify(ctx, "\nA=1\n\nB=2\n", "C=3\r", "D=\r\rE=5\r\n")
		}},
		{want: `STATUS=C:\\` + "\nREADY=1\nX=" + `\\a\\\\`, send: func(ctx context.Context) (bool, error) {
			return Notify(ctx, NotifyStatus(`C:\`), NotifyReady, `X=\a\\`)
		}},
		{want: "READY=1\nSTATUS=a MAINPID=1", send: func(ctx context.Context) (bool, error) {
			return Notify(ctx, NotifyReady, NotifyStatus("a\nMAINPID=1\n"))
		}},
		{want: "STATUS=", send: func(ctx context.Context) (bool, error) { return Notify(ctx, NotifyStatus("")) }},
		{want: "STOPPING=1\nERRNO=2", send: func(ctx context.Context) (bool, error) {
			return Notify(ctx, NotifyStopping, NotifyErrno(syscall.ENOENT))
		}},
		{want: "WATCHDOG=1", send: func(ctx context.Context) (bool, error) { return Notify(ctx, NotifyWatchdog) }},
		{want: "WATCHDOG=trigger", send: func(ctx context.Context) (bool, error) { return Notify(ctx, NotifyWatchdogTrigger) }},
		{want: "EXTEND_TIMEOUT_USEC=5000000", send: func(ctx context.Context) (bool, error) {
			return Notify(ctx, NotifyExtendTimeout(5*time.Second))
		}},
		{want: "X=1", files: files, send: func(ctx context.Context) (bool, error) { return NotifyFiles(ctx, files, "X=1") }},
		{want: "X=1", files: []*os.File{files[1], files[1]}, send: func(ctx context.Context) (bool, error) {
			return NotifyFiles(ctx, []*os.File{files[1], files[1]}, "X=1")
		}},
		{want: "MAINPID=4711\nMAINPIDFDID=30064771191", send: func(ctx context.Context) (bool, error) { return NotifyMainProcess(ctx, ref) }},
		{want: "MAINPID=4711\nREADY=1", send: func(ctx context.Context) (bool, error) {
			return NotifyMainProcess(ctx, ProcessRef{PID: 4711}, NotifyReady)
		}},
		{want: "FDSTORE=1\nFDNAME=a b", files: files, send: func(ctx context.Context) (bool, error) { return NotifyStoreFDs(ctx, "a b", files) }},
		{want: "FDSTORE=1\nFDNAME=stored\nFDPOLL=0", files: files[:1], send: func(ctx context.Context) (bool, error) {
			return NotifyStoreFDs(ctx, "", files[:1], NotifyNoPoll)
		}},
		{want: "FDSTOREREMOVE=1\nFDNAME=x", send: func(ctx context.Context) (bool, error) { return NotifyRemoveStoredFDs(ctx, "x") }},
		{want: "FDSTOREREMOVE=1\nFDNAME=stored", send: func(ctx context.Context) (bool, error) { return NotifyRemoveStoredFDs(ctx, "") }},
	} {
		// A context that is done is no obstacle where there is nothing to wait for.
		ctx, cancel := context.WithCancel(background)
		cancel()
		sent, err := test.send(ctx)
		sentWell(t, sent, err)
		text, fds := m.next()
		if text != test.want {
			t.Errorf("%q, want %q", text, test.want)
		}
		sameFiles(t, fds, test.files)
		if os.Getenv("NOTIFY_SOCKET") == "" {
			t.Error("the variable was unset")
		}
	}
	m.silent()
}

func TestNotifyExtendTimeout(t *testing.T) {
	for d, want := range map[time.Duration]string{
		math.MinInt64: "0", -1: "0", 0: "0", 1: "1", 999: "1", 1000: "1", 1001: "2", time.Hour: "3600000000",
		math.MaxInt64: "9223372036854776",
	} {
		if got := NotifyExtendTimeout(d); got != "EXTEND_TIMEOUT_USEC="+want {
			t.Errorf("%d: %s", d, got)
		}
	}
}

func TestNotifyMainPidFD(t *testing.T) {
	keepsDescriptors(t)
	m := newManager(t, "")
	p := openPidFD(t, sleeper(t).Process.Pid)
	sent, err := NotifyMainPidFD(background, p, NotifyReady)
	sentWell(t, sent, err)
	text, fds := m.next()
	if text != "MAINPIDFD=1\nREADY=1" || len(fds) != 1 {
		t.Fatalf("%q, %d descriptors", text, len(fds))
	}
	q, err := NewPidFD(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := selfID(); err == nil && idOf(t, p) != idOf(t, q) {
		t.Error("the pidfd of another process")
	}
	q2 := openPidFD(t, os.Getpid())
	q2.Close()
	sent, err = NotifyMainPidFD(background, q2)
	if sent || err != os.ErrClosed {
		t.Errorf("closed: sent %v, %v", sent, err)
	}
	if sent, err = NotifyMainPidFD(background, nil); sent || err != os.ErrInvalid {
		t.Errorf("nil: sent %v, %v", sent, err)
	}
	m.silent()
}

func TestNotifyReloading(t *testing.T) {
	keepsDescriptors(t)
	m := newManager(t, "")
	before, errno := monotonicUsec()
	if errno != 0 {
		t.Fatal(errno)
	}
	sent, err := NotifyReloading(background, NotifyStatus("x"))
	after, _ := monotonicUsec()
	sentWell(t, sent, err)
	text, _ := m.next()
	lines := strings.Split(text, "\n")
	usec, ok := strings.CutPrefix(lines[min(1, len(lines)-1)], "MONOTONIC_USEC=")
	n, err := strconv.ParseUint(usec, 10, 64)
	if len(lines) != 3 || lines[0] != "RELOADING=1" || !ok || lines[2] != "STATUS=x" || err != nil || n < before || n > after {
		t.Errorf("%q between %d and %d", text, before, after)
	}
	// The clock started with the machine.
	text, err = readFile("/proc/uptime")
	whole, _, _ := strings.Cut(text, ".")
	uptime, errUptime := strconv.ParseUint(whole, 10, 64)
	if err != nil || errUptime != nil || n == 0 || n > (uptime+1)*1e6 {
		t.Errorf("%d us, uptime %q", n, text)
	}
}

func readFile(name string) (string, error) {
	text, err := os.ReadFile(name)
	return string(text), err
}

// What is appended to the arguments of a caller must not end up in his slice.
func TestNotifyLeavesArguments(t *testing.T) {
	m := newManager(t, "")
	args := append(make([]string, 0, 10), "A=1", "B=2")
	sent, err := NotifyMainProcess(background, ProcessRef{PID: 1}, args[:1]...)
	sentWell(t, sent, err)
	if text, _ := m.next(); text != "MAINPID=1\nA=1" || args[1] != "B=2" {
		t.Errorf("%q, %q", text, args)
	}
}

func TestNotifyBadInput(t *testing.T) {
	keepsDescriptors(t)
	m := newManager(t, "")
	file := openFiles(t, 1)[0]
	closed := openFiles(t, 1)[0]
	closed.Close()
	many := slices.Repeat([]*os.File{file}, 254)
	for _, test := range []struct {
		send func() (bool, error)
		want error
		text string
	}{
		{func() (bool, error) { return Notify(background) }, syscall.EINVAL, "no assignment"},
		{func() (bool, error) { return Notify(background, NotifyReady, "") }, syscall.EINVAL, `""`},
		{func() (bool, error) { return Notify(background, "READY") }, syscall.EINVAL, `"READY"`},
		{func() (bool, error) { return Notify(background, "=1") }, syscall.EINVAL, `"=1"`},
		{func() (bool, error) { return Notify(background, "\n") }, syscall.EINVAL, `"\n"`},
		{func() (bool, error) { return Notify(background, "READY=1\nMAIN PROCESS\n") }, syscall.EINVAL, `"MAIN PROCESS"`},
		{func() (bool, error) { return Notify(background, "READY=1", "STATUS=a\x00") }, syscall.EINVAL, `"STATUS=a\x00"`},
		{func() (bool, error) { return NotifyFiles(background, many, "X=1") }, syscall.E2BIG, "254"},
		{func() (bool, error) { return NotifyFiles(background, []*os.File{file, closed}, "X=1") }, os.ErrClosed, "closed"},
		{func() (bool, error) { return NotifyFiles(background, []*os.File{file, nil}, "X=1") }, os.ErrInvalid, "invalid"},
		{func() (bool, error) { return NotifyMainProcess(background, ProcessRef{ID: 1}) }, syscall.EINVAL, "0:1"},
		{func() (bool, error) { return NotifyMainProcess(background, ProcessRef{PID: -1, ID: 1}) }, syscall.EINVAL, "-1:1"},
		{func() (bool, error) { return NotifyMainProcess(background, ProcessRef{PID: beyond32bits, ID: 1}) }, syscall.EINVAL, ":1"},
		{func() (bool, error) { return NotifyStoreFDs(background, "x", nil) }, syscall.EINVAL, "no file"},
		{func() (bool, error) { return NotifyStoreFDs(background, "a:b", []*os.File{file}) }, syscall.EINVAL, `"a:b"`},
		{func() (bool, error) { return NotifyRemoveStoredFDs(background, "a\nb") }, syscall.EINVAL, `"a\nb"`},
		{func() (bool, error) { return Notify(background, "X="+strings.Repeat("x", 1<<24)) }, syscall.EMSGSIZE, "sendmsg"},
	} {
		sent, err := test.send()
		if sent || !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("sent %v, %.200v; want %v, %s", sent, err, test.want, test.text)
		}
	}
	m.silent()
	sent, err := NotifyFiles(background, many[1:], "X=1")
	sentWell(t, sent, err)
	_, fds := m.next()
	closeAll(fds)
	if len(fds) != 253 {
		t.Errorf("%d descriptors", len(fds))
	}
}

func TestNotifyAddresses(t *testing.T) {
	keepsDescriptors(t)
	// The directory of the test may be too deep for a path of a length of one's choice.
	dir, err := os.MkdirTemp("/tmp", "sysfd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	long := func(prefix string, n int) string { return prefix + strings.Repeat("x", n-len(prefix)) }
	abstract := "@sysfd-test-" + strconv.Itoa(os.Getpid()) + "-"
	for _, address := range []string{dir + "/a b", long(dir+"/", 107), abstract, long(abstract, 107)} {
		t.Run(strconv.Itoa(len(address)), func(t *testing.T) {
			m := newManager(t, address)
			sent, err := Notify(background, NotifyReady)
			sentWell(t, sent, err)
			if text, _ := m.next(); text != "READY=1" {
				t.Errorf("%q", text)
			}
		})
	}

	stale := filepath.Join(dir, "stale")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: stale, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	// The path stays: removing it is up to what closes a listener.
	conn.Close()
	if _, err := os.Stat(stale); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		address string
		want    []error
	}{
		{"", []error{syscall.EINVAL}},
		{"@", []error{syscall.EINVAL}},
		{"notify", []error{syscall.EINVAL}},
		{"\x01/notify", []error{syscall.EINVAL}},
		{long(dir+"/", 108), []error{syscall.ENAMETOOLONG}},
		{long(abstract, 108), []error{syscall.ENAMETOOLONG}},
		{"vsock:2:1234", []error{syscall.EAFNOSUPPORT, errors.ErrUnsupported}},
		{"vsock-stream:2:1234", []error{syscall.EAFNOSUPPORT, errors.ErrUnsupported}},
		{dir + "/none", []error{syscall.ENOENT, os.ErrNotExist}},
		{stale, []error{syscall.ECONNREFUSED}},
		{abstract + "none", []error{syscall.ECONNREFUSED}},
		{tempFile(t), []error{syscall.ECONNREFUSED}},
	} {
		t.Setenv("NOTIFY_SOCKET", test.address)
		for _, send := range []func() (bool, error){
			func() (bool, error) { return Notify(background, NotifyReady) },
			func() (bool, error) { return NotifyBarrier(background) },
		} {
			sent, err := send()
			if sent || err == nil {
				t.Fatalf("%s: sent %v, %v", test.address, sent, err)
			}
			matches(t, err, test.want...)
			if !strings.Contains(err.Error(), strings.Trim(strconv.Quote(test.address), `"`)) {
				t.Errorf("%v does not name %q", err, test.address)
			}
		}
	}

	os.Unsetenv("NOTIFY_SOCKET") // t.Setenv puts it back
	file := openFiles(t, 1)
	for name, send := range map[string]func() (bool, error){
		"Notify":                func() (bool, error) { return Notify(background, NotifyReady) },
		"NotifyFiles":           func() (bool, error) { return NotifyFiles(background, file, "X=1") },
		"NotifyReloading":       func() (bool, error) { return NotifyReloading(background) },
		"NotifyMainProcess":     func() (bool, error) { return NotifyMainProcess(background, ProcessRef{PID: 1}) },
		"NotifyMainPidFD":       func() (bool, error) { return NotifyMainPidFD(background, openPidFD(t, os.Getpid())) },
		"NotifyStoreFDs":        func() (bool, error) { return NotifyStoreFDs(background, "x", file) },
		"NotifyRemoveStoredFDs": func() (bool, error) { return NotifyRemoveStoredFDs(background, "x") },
		"NotifyBarrier":         func() (bool, error) { return NotifyBarrier(background) },
	} {
		if sent, err := send(); sent || err != nil {
			t.Errorf("%s without $NOTIFY_SOCKET: sent %v, %v", name, sent, err)
		}
	}
}

// endsAsMany fails a test after which there are more goroutines than before.
func endsAsMany(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for i := 0; runtime.NumGoroutine() > before; i++ {
			if i > 1000 { // what has told that it is done may still be about to end
				t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestNotifyFull(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	m := newManager(t, "")
	files := openFiles(t, 2)
	filled := m.fill()
	if filled == 0 {
		t.Fatal("nothing fits in")
	}

	ctx, cancel := context.WithTimeout(background, 20*time.Millisecond)
	defer cancel()
	sent, err := NotifyFiles(ctx, files, "LATE=1")
	if sent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deadline: sent %v, %v", sent, err)
	}
	cause := errors.New("because")
	why, stop := context.WithCancelCause(background)
	go stop(cause)
	if sent, err := Notify(why, "LATE=2"); sent || err != cause {
		t.Errorf("a cause: sent %v, %v", sent, err)
	}

	// Whoever waits goes on when there is room, with the descriptors.
	const waiting = 5
	done := make(chan error, waiting)
	for range waiting {
		go func() {
			sent, err := NotifyFiles(background, files, "WAITED=1")
			if err == nil && !sent {
				err = errors.New("not sent")
			}
			done <- err
		}()
	}
	for i := range filled {
		if text, _ := m.next(); text != "FILLER="+strconv.Itoa(i) {
			t.Errorf("%q", text)
		}
	}
	for range waiting {
		text, fds := m.next()
		if text != "WAITED=1" {
			t.Errorf("%q", text)
		}
		sameFiles(t, fds, files)
	}
	for range waiting {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	m.silent()
}

// A receiver that goes away takes the waiting with it.
func TestNotifyFullAndGone(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	m := newManager(t, "")
	m.fill()
	done := make(chan error)
	go func() {
		_, err := Notify(background, "LATE=1")
		done <- err
	}()
	awaitIOWait(t, "sendNotification")
	m.Close()
	if err := <-done; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

// awaitIOWait waits until a goroutine waits for I/O in a function of this package.
func awaitIOWait(t *testing.T, function string) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for range 10000 {
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			head, _, _ := strings.Cut(g, "\n")
			if strings.Contains(head, "[IO wait") && strings.Contains(g, "."+function) {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("no one waits in " + function)
}

func TestNotifyBarrier(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	m := newManager(t, "")
	type answer struct {
		sent bool
		err  error
	}
	done := make(chan answer, 1)
	start := func(ctx context.Context) (pipe int) {
		go func() {
			sent, err := NotifyBarrier(ctx)
			done <- answer{sent, err}
		}()
		text, fds := m.next()
		if text != "BARRIER=1" || len(fds) != 1 {
			t.Fatalf("%q, %d descriptors", text, len(fds))
		}
		return fds[0]
	}

	pipe := start(background)
	awaitIOWait(t, "NotifyBarrier")
	syscall.Close(pipe)
	if a := <-done; !a.sent || a.err != nil {
		t.Errorf("%+v", a)
	}

	// An answer that is there already.
	closer, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	syscall.Close(start(closer))
	if a := <-done; !a.sent || a.err != nil {
		t.Errorf("%+v", a)
	}

	late, cancel := context.WithTimeout(background, 20*time.Millisecond)
	defer cancel()
	pipe = start(late)
	syscall.Write(pipe, []byte("x")) // which is not the answer
	if a := <-done; !a.sent || !errors.Is(a.err, context.DeadlineExceeded) {
		t.Errorf("%+v", a)
	}
	syscall.Close(pipe)

	// The barrier waits for its turn as any message does.
	filled := m.fill()
	full, cancel := context.WithTimeout(background, 20*time.Millisecond)
	defer cancel()
	if sent, err := NotifyBarrier(full); sent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("full: sent %v, %v", sent, err)
	}
	for range filled {
		m.next()
	}
	m.silent()
}

func TestWatchdogInterval(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	const unset = "-"
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
		errno     syscall.Errno
	}{
		{usec: unset, pid: unset},
		{usec: unset, pid: "x"},
		{usec: "30000000", pid: unset, want: 30 * time.Second},
		{usec: "30000000", pid: me, want: 30 * time.Second},
		{usec: "1", pid: " 0" + strconv.FormatInt(int64(os.Getpid()), 8), want: time.Microsecond},
		{usec: "0x10", pid: me, want: 16 * time.Microsecond},
		{usec: "30000000", pid: strconv.Itoa(os.Getpid() + 1)},
		{usec: "30000000", pid: "", errno: syscall.EINVAL},
		{usec: "30000000", pid: me + "x", errno: syscall.EINVAL},
		{usec: "30000000", pid: "0", errno: syscall.ERANGE},
		{usec: "30000000", pid: "2147483648", errno: syscall.ERANGE},
		{usec: "30000000", pid: "99999999999999999999", errno: syscall.ERANGE},
		{usec: "", pid: me, errno: syscall.EINVAL},
		{usec: "0", pid: me, errno: syscall.EINVAL},
		{usec: "0", pid: strconv.Itoa(os.Getpid() + 1), errno: syscall.EINVAL},
		{usec: "30s", pid: me, errno: syscall.EINVAL},
		{usec: "-1", pid: me, errno: syscall.ERANGE},
		{usec: "18446744073709551615", pid: me, errno: syscall.EINVAL},
		{usec: "18446744073709551616", pid: me, errno: syscall.ERANGE},
		{usec: "9223372036854775", pid: me, want: 9223372036854775 * time.Microsecond},
		{usec: "9223372036854776", pid: me, want: 9223372036854775 * time.Microsecond},
		{usec: "18446744073709551614", pid: me, want: 9223372036854775 * time.Microsecond},
	} {
		for name, value := range map[string]string{"WATCHDOG_USEC": test.usec, "WATCHDOG_PID": test.pid} {
			t.Setenv(name, value)
			if value == unset {
				os.Unsetenv(name)
			}
		}
		d, err := WatchdogInterval()
		if d != test.want || (err != nil) != (test.errno != 0) || err != nil && !errors.Is(err, test.errno) {
			t.Errorf("%q for %q: %v, %v", test.usec, test.pid, d, err)
		}
		if err != nil && !strings.Contains(err.Error(), "WATCHDOG_") {
			t.Errorf("%v does not name the variable", err)
		}
	}
}

func FuzzWatchdogUsec(f *testing.F) {
	for _, s := range []string{"", "0", "1", "30000000", "0x10", "010", "0b1", "0o7", "-0", "-1", "+1", " 1", "1 ", "18446744073709551615", "99999999999999999999", "9223372036854776"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseWatchdogUsec(s)
		if err != nil {
			if d != 0 || !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ERANGE) {
				t.Errorf("%q: %v, %v", s, d, err)
			}
		} else if d < time.Microsecond || d%time.Microsecond != 0 {
			t.Errorf("%q: %v", s, d)
		}
		// What is plainly a number is that number.
		if n, errParse := strconv.ParseUint(s, 10, 64); errParse == nil && n > 0 && n < math.MaxInt64/1000 && s[0] != '0' {
			if err != nil || d != time.Duration(n)*time.Microsecond {
				t.Errorf("%q: %v, %v", s, d, err)
			}
		}
	})
}
