//go:build linux

package sysfd

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// setEnv sets the variables of a Notifier until the end of the test; "-" is unset.
func setEnv(t *testing.T, values ...string) {
	t.Helper()
	for i, value := range values {
		t.Setenv(notifierVarNames[i], value)
		if value == "-" {
			os.Unsetenv(notifierVarNames[i])
		}
	}
}

func TestTakeNotifier(t *testing.T) {
	me, other := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getpid()+1)
	for _, test := range []struct {
		address, usec, pid string
		want               Notifier
		errno              syscall.Errno
		text               string
	}{
		{address: "-", usec: "-", pid: "-"},
		{address: "/x", usec: "-", pid: "-", want: Notifier{Address: "/x"}},
		{address: "@x", usec: "3000000", pid: me, want: Notifier{Address: "@x", WatchdogInterval: 3 * time.Second}},
		{address: "/x", usec: "3000000", pid: "-", want: Notifier{Address: "/x", WatchdogInterval: 3 * time.Second}},
		{address: "/x", usec: "3000000", pid: other, want: Notifier{Address: "/x"}},
		{address: "-", usec: "3000000", pid: me, want: Notifier{WatchdogInterval: 3 * time.Second}},
		{address: "", usec: "-", pid: "-", errno: syscall.EINVAL, text: "NOTIFY_SOCKET"},
		{address: "x", usec: "3000000", pid: me, want: Notifier{WatchdogInterval: 3 * time.Second}, errno: syscall.EINVAL, text: "NOTIFY_SOCKET"},
		{address: "vsock:2:1", usec: "-", pid: "-", errno: syscall.EAFNOSUPPORT, text: "NOTIFY_SOCKET"},
		{address: "/x", usec: "", pid: me, want: Notifier{Address: "/x"}, errno: syscall.EINVAL, text: "WATCHDOG_USEC"},
		{address: "/x", usec: "1", pid: "x", want: Notifier{Address: "/x"}, errno: syscall.EINVAL, text: "WATCHDOG_PID"},
	} {
		setEnv(t, test.address, test.usec, test.pid)
		n, err := TakeNotifier()
		if n == nil || *n != test.want || (err != nil) != (test.errno != 0) || err != nil && (!errors.Is(err, test.errno) || !strings.Contains(err.Error(), test.text)) {
			t.Errorf("%+v: %+v, %v", test, n, err)
		}
		for _, name := range notifierVarNames {
			if value, ok := os.LookupEnv(name); ok {
				t.Errorf("%+v: %s=%q is still set", test, name, value)
			}
		}
		if n, err := TakeNotifier(); err != nil || *n != (Notifier{}) {
			t.Errorf("again: %+v, %v", n, err)
		}
		if sent, err := Notify(background, NotifyReady); sent || err != nil {
			t.Errorf("Notify: sent %v, %v", sent, err)
		}
	}
}

// What was taken is good as long as the program runs, and wherever the variable points now.
func TestNotifier(t *testing.T) {
	keepsDescriptors(t)
	m := newManager(t, "")
	n, err := TakeNotifier()
	if err != nil {
		t.Fatal(err)
	}
	if value, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
		t.Errorf("NOTIFY_SOCKET=%s", value)
	}
	os.Setenv("NOTIFY_SOCKET", "/nowhere")
	files := openFiles(t, 2)
	p := openPidFD(t, os.Getpid())
	sends := map[string]func(n *Notifier) (bool, error){
		"A=1\nB=2":                  func(n *Notifier) (bool, error) { return n.Notify(background, "A=1", "B=2") },
		"F=1":                       func(n *Notifier) (bool, error) { return n.NotifyFiles(background, files, "F=1") },
		"RELOADING=1":               func(n *Notifier) (bool, error) { return n.NotifyReloading(background) },
		"MAINPID=5\nX=1":            func(n *Notifier) (bool, error) { return n.NotifyMainProcess(background, ProcessRef{PID: 5}, "X=1") },
		"MAINPIDFD=1":               func(n *Notifier) (bool, error) { return n.NotifyMainPidFD(background, p) },
		"FDSTORE=1\nFDNAME=x":       func(n *Notifier) (bool, error) { return n.NotifyStoreFDs(background, "x", files) },
		"FDSTOREREMOVE=1\nFDNAME=x": func(n *Notifier) (bool, error) { return n.NotifyRemoveStoredFDs(background, "x") },
		"BARRIER=1": func(n *Notifier) (bool, error) {
			sent, err := n.NotifyBarrier(giveUp())
			if errors.Is(err, context.Canceled) {
				err = nil
			}
			return sent, err
		},
	}
	for want, send := range sends {
		sent, err := send(n)
		sentWell(t, sent, err)
		text, fds := m.next()
		closeAll(fds)
		wantFDs := map[string]int{"F=1": 2, "FDSTORE=1\nFDNAME=x": 2, "MAINPIDFD=1": 1, "BARRIER=1": 1}[want]
		if !strings.HasPrefix(text, want) || len(fds) != wantFDs {
			t.Errorf("%q and %d descriptors, want %q and %d", text, len(fds), want, wantFDs)
		}
		for name, silent := range map[string]*Notifier{"nil": nil, "zero": {}, "watchdog alone": {WatchdogInterval: time.Second}} {
			if sent, err := send(silent); sent || err != nil {
				t.Errorf("%q by %s: sent %v, %v", want, name, sent, err)
			}
		}
	}
	for _, n := range []*Notifier{nil, {}, n} {
		if sent, err := n.Notify(background, "READY"); sent || !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%+v: sent %v, %v", n, sent, err)
		}
	}
	m.silent()
}

// Without a manager there is no need for descriptors.
func TestNotifyBarrierUnsupervised(t *testing.T) {
	if !again(t, nil) {
		return
	}
	withDescriptorsLeft(0, func() {
		if sent, err := (*Notifier)(nil).NotifyBarrier(background); sent || err != nil {
			t.Errorf("sent %v, %v", sent, err)
		}
	})
}

func TestNotifierEnviron(t *testing.T) {
	env := []string{"A=1", "NOTIFY_SOCKET=/old", "WATCHDOG_USEC=1", "WATCHDOG_PID=2", "WATCHDOG_USECS=3", "NOTIFY_SOCKET=/older", "Z", ""}
	kept := slices.Clone(env)
	rest := []string{"A=1", "WATCHDOG_USECS=3", "Z", ""}
	for _, test := range []struct {
		n    *Notifier
		more []string
	}{
		{nil, nil},
		{&Notifier{}, nil},
		{&Notifier{WatchdogInterval: time.Second}, nil},
		{&Notifier{Address: "/x"}, []string{"NOTIFY_SOCKET=/x"}},
		{&Notifier{Address: "/x", WatchdogInterval: time.Nanosecond}, []string{"NOTIFY_SOCKET=/x"}},
		{&Notifier{Address: "@x", WatchdogInterval: 3 * time.Second}, []string{"NOTIFY_SOCKET=@x", "WATCHDOG_USEC=3000000"}},
	} {
		if got := test.n.Environ(env); !slices.Equal(got, append(slices.Clone(rest), test.more...)) {
			t.Errorf("%+v: %q", test.n, got)
		}
	}
	if !slices.Equal(env, kept) {
		t.Errorf("it has changed to %q", env)
	}
	for _, env := range [][]string{nil, {}, {"NOTIFY_SOCKET=/x"}} {
		if got := (&Notifier{}).Environ(env); got == nil || len(got) != 0 {
			t.Errorf("%q: %#v", env, got) // nil has os/exec pass on the variable
		}
	}
}

func TestWatchdog(t *testing.T) {
	keepsDescriptors(t)
	endsAsMany(t)
	m := newManager(t, "")
	interval := 200 * time.Millisecond
	if testing.Short() { // on a machine that is emulated
		interval = time.Second
	}
	n := &Notifier{Address: os.Getenv("NOTIFY_SOCKET"), WatchdogInterval: interval}
	os.Unsetenv("NOTIFY_SOCKET")
	errIll, errStop := errors.New("ill"), errors.New("stop")
	type answer struct {
		err  error
		took time.Duration
	}
	run := func(n *Notifier, ctx context.Context, check func(ctx context.Context) error) <-chan answer {
		done := make(chan answer, 1)
		go func() {
			began := time.Now()
			err := n.Watchdog(ctx, check)
			done <- answer{err, time.Since(began)}
		}()
		return done
	}

	t.Run("well", func(t *testing.T) {
		ctx, stop := context.WithCancelCause(background)
		began, count := time.Now(), 0
		done := run(n, ctx, nil)
		for ; time.Since(began) < 5*interval; count++ {
			if text, _ := m.next(); text != NotifyWatchdog {
				t.Errorf("%q", text)
			}
		}
		stop(errStop)
		if a := <-done; a.err != errStop {
			t.Error(a.err)
		}
		// One at once and two in each interval; a busy machine may lose some.
		if count < 6 || count > 12 {
			t.Errorf("%d messages in 5 intervals", count)
		}
		m.drain()
	})
	t.Run("ill for a moment", func(t *testing.T) {
		ctx, stop := context.WithCancelCause(background)
		asked := 0
		done := run(n, ctx, func(ctx context.Context) error {
			if asked++; asked > 5 {
				stop(errStop)
			} else if asked > 1 && asked < 4 {
				return errIll
			}
			return nil
		})
		if a := <-done; a.err != errStop || asked != 6 {
			t.Errorf("asked %d times, %v", asked, a.err)
		}
		if got := m.drain(); got != 4 { // the first time, and when it was well again
			t.Errorf("%d messages", got)
		}
	})
	t.Run("ill", func(t *testing.T) {
		asked := 0
		a := <-run(n, background, func(ctx context.Context) error {
			if asked++; asked > 1 {
				return errIll
			}
			return nil
		})
		if a.err != errIll || a.took < interval || asked < 4 || asked > 8 {
			t.Errorf("asked %d times in %v, %v", asked, a.took, a.err)
		}
		if got := m.drain(); got != 1 {
			t.Errorf("%d messages", got)
		}
	})
	// The last attempt hangs: it is given up soon after the interval is over, not half of one
	// later.
	t.Run("hangs at last", func(t *testing.T) {
		began, asked := time.Now(), 0
		a := <-run(n, background, func(ctx context.Context) error {
			if asked++; asked == 1 {
				return nil
			}
			if time.Since(began) < interval*9/10 {
				return errIll
			}
			deadline, _ := ctx.Deadline()
			if until := deadline.Sub(began); until > interval*5/4 && time.Since(began) < interval*11/10 {
				t.Errorf("until %v", until)
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(a.err, context.DeadlineExceeded) || a.took < interval {
			t.Errorf("%v after %v", a.err, a.took)
		}
		m.drain()
	})
	t.Run("hangs", func(t *testing.T) {
		a := <-run(n, background, func(ctx context.Context) error {
			deadline, ok := ctx.Deadline()
			if until := time.Until(deadline); !ok || until > interval/2 {
				t.Errorf("%v to check, %v", until, ok)
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(a.err, context.DeadlineExceeded) || a.took < interval {
			t.Errorf("%v after %v", a.err, a.took)
		}
		if got := m.drain(); got != 0 {
			t.Errorf("%d messages", got)
		}
	})
	t.Run("done before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(background)
		cancel()
		n := *n
		n.WatchdogInterval = time.Hour
		for range 100 { // it must not depend on what is looked at first
			a := <-run(&n, ctx, func(context.Context) error { t.Error("asked"); return nil })
			if a.err != context.Canceled || m.drain() != 0 {
				t.Fatal(a.err)
			}
		}
	})
	t.Run("done while it checks", func(t *testing.T) {
		ctx, stop := context.WithCancelCause(background)
		n := *n
		n.WatchdogInterval = time.Hour
		a := <-run(&n, ctx, func(ctx context.Context) error {
			stop(errStop)
			<-ctx.Done()
			return errIll
		})
		if a.err != errStop || m.drain() != 0 {
			t.Error(a.err)
		}
	})
	t.Run("no one there", func(t *testing.T) {
		n := &Notifier{Address: "@sysfd-test-nobody-" + strconv.Itoa(os.Getpid()), WatchdogInterval: interval}
		if a := <-run(n, background, nil); !errors.Is(a.err, syscall.ECONNREFUSED) || a.took < interval {
			t.Errorf("%v after %v", a.err, a.took)
		}
	})
	t.Run("full", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", n.Address)
		filled := m.fill()
		if a := <-run(n, background, nil); !errors.Is(a.err, context.DeadlineExceeded) || a.took < interval {
			t.Errorf("%v after %v", a.err, a.took)
		}
		if got := m.drain(); got != filled {
			t.Errorf("%d messages, want %d", got, filled)
		}
	})
	t.Run("none", func(t *testing.T) {
		check := func(context.Context) error { t.Error("asked"); return nil }
		for _, n := range []*Notifier{nil, {}, {WatchdogInterval: time.Second}, {Address: n.Address}, {Address: n.Address, WatchdogInterval: -1}} {
			if a := <-run(n, background, check); a.err != nil {
				t.Errorf("%+v: %v", n, a.err)
			}
		}
	})
	// An interval that no one can keep must not take the processor.
	t.Run("tiny", func(t *testing.T) {
		n := &Notifier{Address: "@sysfd-test-nobody-" + strconv.Itoa(os.Getpid()), WatchdogInterval: 1}
		asked := 0
		<-run(n, background, func(context.Context) error { asked++; return nil })
		if asked > 9 {
			t.Errorf("asked %d times", asked)
		}
	})
	m.silent()
}

// How long an attempt may take, and when the next one is: with half an interval of 8, which ends at
// 16.
func TestFeedTimes(t *testing.T) {
	fed := time.Now()
	for began, want := range map[time.Duration][2]time.Duration{
		0:  {8, 2},
		8:  {16, 10},
		10: {16, 12},
		14: {16, 16},
		15: {17, 16}, // at the end of the interval, not behind it
		16: {18, 16},
		99: {101, 16},
	} {
		until, next := feedUntil(fed, fed.Add(began), 8).Sub(fed), feedAgain(fed, fed.Add(began), 8).Sub(fed)
		if until != want[0] || next != want[1] {
			t.Errorf("begun at %d: until %d, again at %d; want %d", began, until, next, want)
		}
	}
	const half = math.MaxInt64 / 2
	if until := feedUntil(fed, fed, half); until.Sub(fed) != half {
		t.Errorf("%v", until)
	}
	if next := feedAgain(fed, fed, half); next.Sub(fed) != half/4 {
		t.Errorf("%v", next)
	}
}

// drain returns how many messages were in the queue.
func (m manager) drain() (n int) {
	raw, err := m.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for {
			if _, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_DONTWAIT); err != nil {
				return
			}
			n++
		}
	})
	return n
}
