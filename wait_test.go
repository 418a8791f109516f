//go:build linux

package sysfd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A kid is a child of the test that is no one's business but the test's: os/exec
// does not wait for it.
type kid struct {
	t      testing.TB
	pid    int
	stdin  *os.File // it ends when this is closed
	stdout *bufio.Reader
	guard  *PidFD
}

// startKid starts a child. If a test leaves it running, or a zombie, the end of the
// test is its end.
func startKid(t testing.TB, cmd *exec.Cmd) *kid {
	t.Helper()
	stdin, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	k := &kid{t: t, pid: cmd.Process.Pid, stdin: in, stdout: bufio.NewReader(out), guard: openPidFD(t, cmd.Process.Pid)}
	cmd.Process.Release()
	t.Cleanup(func() {
		in.Close()
		out.Close()
		k.kill(syscall.SIGKILL)
		k.guard.Wait(context.Background())
		k.guard.Close()
	})
	return k
}

// exiter starts a child that exits with this code when it is told to.
func exiter(t testing.TB, code int) *kid {
	t.Helper()
	return startKid(t, child("exit", strconv.Itoa(code)))
}

func (k *kid) exit() { k.stdin.Close() }

func (k *kid) kill(sig syscall.Signal) { k.guard.SendSignal(sig) }

// line returns a line that the child has printed.
func (k *kid) line() string {
	k.t.Helper()
	line, err := k.stdout.ReadString('\n')
	if err != nil {
		k.t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// number returns a number that the child has printed on a line.
func (k *kid) number() int {
	k.t.Helper()
	n, err := strconv.Atoi(k.line())
	if err != nil {
		k.t.Fatal(err)
	}
	return n
}

func (k *kid) open(flags int) *PidFD {
	k.t.Helper()
	return openFlags(k.t, k.pid, flags)
}

func openFlags(t testing.TB, pid, flags int) *PidFD {
	t.Helper()
	if flags&PIDFD_THREAD != 0 {
		needs(t, FeatureThread)
	}
	p, err := OpenPidFD(pid, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// onMainThread calls f on the main thread or on another one.
func onMainThread(main bool, f func()) {
	done := make(chan bool)
	var try func()
	try = func() {
		runtime.LockOSThread()
		if (syscall.Gettid() == syscall.Getpid()) == main {
			f()
			close(done)
		} else {
			go try()
			<-done
		}
	}
	go try()
	<-done
}

func init() {
	children["exit"] = func(args []string) error {
		io.Copy(io.Discard, os.Stdin)
		code, err := strconv.Atoi(args[0])
		if err == nil {
			syscall.Exit(code) // not os.Exit, in which the race detector sleeps
		}
		return err
	}
	// The main thread ends with 5, and the process with 7.
	children["leader-exits"] = func([]string) error {
		go onMainThread(true, func() { syscall.Syscall(syscall.SYS_EXIT, 5, 0, 0) })
		for status := ""; !strings.Contains(status, "State:\tZ"); {
			text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", os.Getpid()))
			if err != nil {
				return err
			}
			status = string(text)
		}
		fmt.Println("alone")
		io.Copy(io.Discard, os.Stdin)
		syscall.Exit(7)
		return nil
	}
	children["thread-execs"] = func([]string) (err error) {
		onMainThread(false, func() {
			os.Setenv(childVar, "ready-exit")
			words := self("9")
			err = syscall.Exec(words[0], words, os.Environ())
		})
		return err
	}
	children["ready-exit"] = func(args []string) error {
		fmt.Println("ready")
		return children["exit"](args)
	}
	// A parent that reaps its child when it is told to.
	children["parent"] = func(args []string) error {
		if args[0] == "ignore" {
			signal.Ignore(syscall.SIGCHLD)
		}
		cmd := child("sleep")
		if err := cmd.Start(); err != nil {
			return err
		}
		fmt.Println(cmd.Process.Pid)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			var status syscall.WaitStatus
			_, err := syscall.Wait4(cmd.Process.Pid, &status, 0, nil)
			fmt.Println(int(status), err)
		}
		return nil
	}
	children["ignores-sigchld"] = func([]string) error {
		signal.Ignore(syscall.SIGCHLD)
		for _, flags := range []int{0, PIDFD_NONBLOCK} {
			cmd := child("exit", "6")
			stdin, err := cmd.StdinPipe()
			if err != nil {
				return err
			}
			if err := cmd.Start(); err != nil {
				return err
			}
			p, err := OpenPidFD(cmd.Process.Pid, flags)
			if err != nil {
				return err
			}
			r, err := p.TryWait()
			if err != nil || r.Ended {
				return fmt.Errorf("at first %+v, %v", r, err)
			}
			stdin.Close()
			r, err = p.Wait(context.Background())
			if err != nil {
				return err
			}
			fmt.Println(r.Ended, r.Status.ExitStatus(), r.Reaped, r.Rusage != nil, errors.Is(r.Unknown, errors.ErrUnsupported))
		}
		return nil
	}
}

func exitCode(code int) syscall.WaitStatus           { return syscall.WaitStatus(code << 8) }
func killedBy(sig syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(sig) }

// isEnd checks a result that tells the status.
func isEnd(t testing.TB, r WaitResult, err error, status syscall.WaitStatus, reaped bool) {
	t.Helper()
	if err != nil || !r.Ended || r.Unknown != nil || r.Status != status || r.Reaped != reaped {
		t.Errorf("%+v, %v; want status %#x, reaped %v", r, err, uint32(status), reaped)
	}
}

// exitStatusFeature tries FeatureExitStatus on a process that was reaped.
func exitStatusFeature(t testing.TB) error {
	t.Helper()
	k := exiter(t, 0)
	k.exit()
	k.guard.Wait(context.Background())
	_, err := exitStatus(k.guard.fd)
	return err
}

// isEndOfOther checks a result that tells the status if the kernel does.
func isEndOfOther(t *testing.T, r WaitResult, err error, status syscall.WaitStatus) {
	t.Helper()
	switch unsupported := exitStatusFeature(t); {
	case unsupported == nil:
		isEnd(t, r, err, status, false)
	case err != nil || !r.Ended || !errors.Is(r.Unknown, errors.ErrUnsupported):
		t.Errorf("%+v, %v; want an unknown status", r, err)
	default:
		isUnknown(t, r)
	}
	if r.Rusage != nil {
		t.Errorf("resource usage of a process that is not ours: %+v", r.Rusage)
	}
}

func isUnknown(t *testing.T, r WaitResult) {
	t.Helper()
	if s := r.Status; r.Unknown == nil || s.Exited() || s.Signaled() || s.Stopped() || s.ExitStatus() != -1 || r.Reaped {
		t.Errorf("%+v is not an unknown status", r)
	}
}

func isRunning(t testing.TB, p *PidFD, options ...WaitOption) {
	t.Helper()
	if r, err := p.TryWait(options...); err != nil || r != (WaitResult{}) {
		t.Errorf("%+v, %v; want a running process", r, err)
	}
}

// A waiting is a call of Wait in a goroutine.
type waiting struct {
	r    WaitResult
	err  error
	done chan struct{}
}

func startWait(ctx context.Context, p *PidFD, options ...WaitOption) *waiting {
	w := &waiting{done: make(chan struct{})}
	go func() {
		w.r, w.err = p.Wait(ctx, options...)
		close(w.done)
	}()
	return w
}

func (w *waiting) result() (WaitResult, error) { <-w.done; return w.r, w.err }

// isWaiting checks that the call has not returned.
func (w *waiting) isWaiting(t *testing.T) {
	t.Helper()
	select {
	case <-w.done:
		t.Errorf("returned %+v, %v", w.r, w.err)
	default:
	}
}

// awaitParked returns when a goroutine is parked for p, or about to be.
func awaitParked(p *PidFD) { awaitTurn(p.parking.Load) }

func awaitTurn(where func() *parking) {
	for {
		if w := where(); w != nil && len(w.turn) == 1 {
			return
		}
		runtime.Gosched()
	}
}

// bothFlags runs a test for both ways to park.
func bothFlags(t *testing.T, f func(t *testing.T, flags int)) {
	for name, flags := range map[string]int{"epoll": 0, "nonblock": PIDFD_NONBLOCK} {
		t.Run(name, func(t *testing.T) {
			keepsDescriptors(t)
			f(t, flags)
		})
	}
}

func TestSiginfoWaitStatus(t *testing.T) {
	for _, test := range []struct {
		code, status int32
		want         syscall.WaitStatus
	}{
		{_CLD_EXITED, 0, 0},
		{_CLD_EXITED, 3, 0x300},
		{_CLD_EXITED, 255, 0xff00},
		{_CLD_KILLED, 9, 9},
		{_CLD_KILLED, 64, 64},
		{_CLD_DUMPED, 3, 0x83},
	} {
		if got := (&siginfo{Code: test.code, Status: test.status}).waitStatus(); got != test.want {
			t.Errorf("%+v: %#x", test, uint32(got))
		}
	}
}

func TestWait(t *testing.T) {
	for _, test := range []struct {
		code   int
		signal syscall.Signal
		want   syscall.WaitStatus
	}{
		{code: 0, want: exitCode(0)},
		{code: 3, want: exitCode(3)},
		{code: 255, want: exitCode(255)},
		{signal: syscall.SIGKILL, want: killedBy(syscall.SIGKILL)},
	} {
		bothFlags(t, func(t *testing.T, flags int) {
			k := exiter(t, test.code)
			p := k.open(flags)
			isRunning(t, p)
			w := startWait(context.Background(), p)
			awaitParked(p)
			isRunning(t, p, WaitExited)
			if test.signal != 0 {
				k.kill(test.signal)
			} else {
				k.exit()
			}
			r, err := w.result()
			isEnd(t, r, err, test.want, true)
			if r.Rusage == nil || os.Getenv(emulatorVar) == "" && r.Rusage.Maxrss == 0 {
				t.Errorf("resource usage %+v", r.Rusage)
			}
			// The same again, from what is known.
			again, err := p.Wait(context.Background())
			isEnd(t, again, err, test.want, false)
			if again.Rusage != r.Rusage {
				t.Error("the resource usage was forgotten")
			}
			again, err = p.TryWait()
			isEnd(t, again, err, test.want, false)
			// And from the kernel, by another PidFD.
			r, err = k.guard.Wait(context.Background())
			isEndOfOther(t, r, err, test.want)
		})
	}
}

// os.Process.Wait is another witness of how a child ended.
func TestWaitLikeOS(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		lacks(t, "sleep")
	}
	keepsDescriptors(t)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &old); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_CORE, &old)
	syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: old.Max, Max: old.Max})
	dumps := false
	for _, sig := range []syscall.Signal{0, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGQUIT, syscall.SIGABRT} {
		cmd := exec.Command(sleep, "600")
		if sig == 0 {
			cmd.Args = cmd.Args[:1] // it complains and exits with 1
		}
		cmd.Dir = t.TempDir()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p := openPidFD(t, cmd.Process.Pid)
		if sig != 0 {
			p.SendSignal(sig)
		}
		r, err := p.Wait(context.Background(), WaitNoReap)
		cmd.Wait()
		want := cmd.ProcessState.Sys().(syscall.WaitStatus)
		isEnd(t, r, err, want, false)
		dumps = dumps || want.CoreDump()
		// It was known before the other one reaped it.
		r, err = p.Wait(context.Background())
		isEnd(t, r, err, want, false)
		p.Close()
	}
	if !dumps {
		t.Log("no core was dumped")
	}
}

func TestWaitNoReap(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 4)
		p := k.open(flags)
		isRunning(t, p, WaitNoReap)
		w := startWait(context.Background(), p, WaitNoReap)
		awaitParked(p)
		k.exit()
		r, err := w.result()
		for range 2 {
			isEnd(t, r, err, exitCode(4), false)
			if err := syscall.Kill(k.pid, 0); err != nil {
				t.Errorf("its PID: %v", err)
			}
			r, err = p.TryWait(WaitNoReap)
		}
		r, err = p.Wait(context.Background())
		isEnd(t, r, err, exitCode(4), true)
		if err := syscall.Kill(k.pid, 0); err != syscall.ESRCH {
			t.Errorf("its PID: %v", err)
		}
		for _, option := range []WaitOption{0, WaitNoReap, WaitExited} {
			r, err = p.TryWait(option)
			isEnd(t, r, err, exitCode(4), false)
		}
	})
}

func TestWaitTogether(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 8)
		p := k.open(flags)
		var waits []*waiting
		for range 8 {
			waits = append(waits, startWait(context.Background(), p))
		}
		awaitParked(p)
		k.exit()
		reaped := 0
		for _, w := range waits {
			r, err := w.result()
			isEnd(t, r, err, exitCode(8), r.Reaped)
			if r.Reaped {
				reaped++
			}
		}
		if reaped != 1 {
			t.Errorf("reaped %d times", reaped)
		}
	})
}

// Those whose context ends get its error, and the others the status.
func TestWaitCancelSome(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 8)
		p := k.open(flags)
		cause := errors.New("a reason")
		var canceled, left []*waiting
		var cancels []context.CancelCauseFunc
		for i := range 60 {
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			w := startWait(ctx, p)
			if i%3 == 0 {
				left = append(left, w)
			} else {
				canceled = append(canceled, w)
				cancels = append(cancels, cancel)
			}
		}
		awaitParked(p)
		for _, i := range rand.Perm(len(cancels)) {
			go cancels[i](cause)
		}
		for _, w := range canceled {
			if r, err := w.result(); err != cause || r != (WaitResult{}) {
				t.Errorf("%+v, %v", r, err)
			}
		}
		for _, w := range left {
			w.isWaiting(t)
		}
		k.exit()
		for _, w := range left {
			r, err := w.result()
			isEnd(t, r, err, exitCode(8), r.Reaped)
		}
	})
}

func TestWaitContext(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 8)
		p := k.open(flags)
		done, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := p.Wait(done)
		matches(t, err, context.Canceled)
		if p.parking.Load() != nil {
			t.Error("it made a place to park for nothing")
		}
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			_, err := p.Wait(ctx)
			matches(t, err, context.DeadlineExceeded)
			cancel()
		}
		ctx, cancel := context.WithCancel(context.Background())
		w := startWait(ctx, p)
		awaitParked(p)
		cancel()
		_, err = w.result()
		matches(t, err, context.Canceled)
		k.exit()
		k.guard.Wait(context.Background(), WaitNoReap)
		// It has ended, and that is what counts.
		r, err := p.Wait(done)
		isEnd(t, r, err, exitCode(8), true)
	})
}

func TestWaitClose(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 0)
		p := k.open(flags)
		// A set that it is in keeps its descriptor open, and Wait returns all the same.
		set := newWaitSet[int](t)
		if err := set.Add(p, 1); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*PidFD{p, k.open(flags)} {
			var waits []*waiting
			for range 4 {
				waits = append(waits, startWait(context.Background(), p))
			}
			awaitParked(p)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			for _, w := range waits {
				_, err := w.result()
				matches(t, err, os.ErrClosed)
			}
			_, err := p.Wait(context.Background())
			matches(t, err, os.ErrClosed)
			_, err = p.TryWait()
			matches(t, err, os.ErrClosed)
		}
		k.exit()
		key, r, err := set.Next(context.Background())
		isEnd(t, r, err, exitCode(0), true)
		if key != 1 {
			t.Errorf("key %d", key)
		}
	})
	_, err := (*PidFD)(nil).Wait(context.Background())
	matches(t, err, os.ErrInvalid)
	_, err = new(PidFD).TryWait()
	matches(t, err, os.ErrClosed)
}

// One whose turn to park comes while Close is under way does not park.
func TestWaitWhileClosing(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		p := exiter(t, 0).open(flags)
		_, err := p.Wait(beginClose{context.Background(), p})
		matches(t, err, os.ErrClosed)
		p.uses.And(^closing)
	})
}

// beginClose is a context that begins to close p when Wait is about to park.
type beginClose struct {
	context.Context
	p *PidFD
}

func (c beginClose) Done() <-chan struct{} {
	c.p.uses.Or(closing)
	return nil
}

// The one who closes may be anyone, also one who is about to park.
func TestWaitConcurrentClose(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 0)
		for range 300 {
			p := k.open(flags)
			var group sync.WaitGroup
			for i := range 3 {
				ctx, cancel := context.WithCancel(context.Background())
				group.Go(func() {
					_, err := p.Wait(ctx)
					if i == 0 && !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrClosed) || i != 0 && !errors.Is(err, os.ErrClosed) {
						t.Errorf("%v", err)
					}
				})
				if i == 0 {
					group.Go(cancel)
				} else {
					defer cancel()
				}
			}
			group.Go(func() {
				for {
					if _, err := p.TryWait(); err != nil {
						return
					}
				}
			})
			group.Go(func() { p.Close() })
			group.Wait()
		}
	})
}

func TestWaitStopped(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 2)
		p := k.open(flags)
		w := startWait(context.Background(), p)
		awaitParked(p)
		for _, step := range []struct {
			signal syscall.Signal
			wait   int
		}{
			{syscall.SIGSTOP, syscall.WUNTRACED},
			{syscall.SIGCONT, syscall.WCONTINUED},
		} {
			k.kill(step.signal)
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(k.pid, &status, step.wait, nil); err != nil || status.Exited() || status.Signaled() {
				t.Fatalf("%#x, %v", uint32(status), err)
			}
			isRunning(t, p)
			isRunning(t, p, WaitNoReap|WaitExited)
			w.isWaiting(t)
		}
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(2), true)
	})
}

// A process has ended when its last thread has.
func TestWaitMainThreadEndsFirst(t *testing.T) {
	for _, flags := range []int{0, PIDFD_NONBLOCK, PIDFD_THREAD} {
		k := startKid(t, child("leader-exits"))
		p := k.open(flags)
		w := startWait(context.Background(), p)
		awaitParked(p)
		k.line()
		isRunning(t, p)
		isRunning(t, p, WaitNoReap|WaitExited)
		w.isWaiting(t)
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(7), true)
		r, err = k.guard.Wait(context.Background())
		if r.Status != exitCode(5) || !olderThan(t, "6.16") {
			isEndOfOther(t, r, err, exitCode(7))
		}
	}
}

// The thread that executes another program takes over the PID.
func TestWaitThreadExecs(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := startKid(t, child("thread-execs"))
		p := k.open(flags)
		w := startWait(context.Background(), p)
		awaitParked(p)
		if line := k.line(); line != "ready" {
			t.Fatal(line)
		}
		isRunning(t, p)
		isRunning(t, p, WaitNoReap|WaitExited)
		w.isWaiting(t)
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(9), true)
		r, err = k.guard.Wait(context.Background())
		isEndOfOther(t, r, err, exitCode(9))
	})
}

func TestWaitThread(t *testing.T) {
	keepsDescriptors(t)
	found, end := make(chan int), make(chan bool)
	go onThrowawayThread(func() {
		found <- syscall.Gettid()
		<-end
	})
	p := openFlags(t, <-found, PIDFD_THREAD)
	w := startWait(context.Background(), p)
	awaitParked(p)
	isRunning(t, p)
	close(end)
	r, err := w.result()
	isEndOfOther(t, r, err, exitCode(0))
}

func TestWaitReapedByOther(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		cmd := child("exit", "5")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p := openFlags(t, cmd.Process.Pid, flags)
		isRunning(t, p)
		stdin.Close()
		cmd.Wait()
		for _, options := range []WaitOption{0, WaitNoReap, WaitExited} {
			r, err := p.TryWait(options)
			isEndOfOther(t, r, err, exitCode(5))
			r, err = p.Wait(context.Background(), options)
			isEndOfOther(t, r, err, exitCode(5))
		}
	})
}

func TestWaitSIGCHLDIgnored(t *testing.T) {
	keepsDescriptors(t)
	want := "true 6 false false false\n"
	if exitStatusFeature(t) != nil {
		want = "true -1 false false true\n"
	}
	if out := output(t, child("ignores-sigchld")); out != want+want {
		t.Errorf("%q, want %q twice", out, want)
	}
}

// grandchild starts a child that starts one.
func grandchild(t *testing.T) (parent *kid, pid int) {
	t.Helper()
	parent = startKid(t, child("parent", ""))
	return parent, parent.number()
}

// A process that is not a child is one until it is reaped, or until it is a zombie.
func TestWaitNotAChild(t *testing.T) {
	needs(t, FeatureThread) // as old as POLLHUP of a pidfd
	for _, first := range []WaitOption{0, WaitExited} {
		bothFlags(t, func(t *testing.T, flags int) {
			parent, pid := grandchild(t)
			p := openFlags(t, pid, flags)
			isRunning(t, p, WaitExited)
			waits := map[WaitOption]*waiting{}
			for _, option := range []WaitOption{first, WaitExited - first} {
				waits[option] = startWait(context.Background(), p, option)
				awaitParked(p)
			}
			p.SendSignal(syscall.SIGTERM)
			r, err := waits[WaitExited].result()
			for range 2 {
				if err != nil || !r.Ended || !errors.Is(r.Unknown, syscall.EAGAIN) {
					t.Errorf("%+v, %v", r, err)
				}
				isUnknown(t, r)
				r, err = p.TryWait(WaitExited)
			}
			isRunning(t, p)
			waits[0].isWaiting(t)
			fmt.Fprintln(parent.stdin, "reap")
			if line := parent.line(); line != "15 <nil>" {
				t.Error(line)
			}
			r, err = waits[0].result()
			isEndOfOther(t, r, err, killedBy(syscall.SIGTERM))
			r, err = p.TryWait(WaitExited)
			isEndOfOther(t, r, err, killedBy(syscall.SIGTERM))
		})
	}
}

func TestWaitReapedByNobody(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		parent := startKid(t, child("parent", "ignore"))
		p := openFlags(t, parent.number(), flags)
		w := startWait(context.Background(), p)
		awaitParked(p)
		p.SendSignal(syscall.SIGTERM)
		r, err := w.result()
		isEndOfOther(t, r, err, killedBy(syscall.SIGTERM))
	})
}

// A process may become a child while it is waited for.
func TestWaitAdopted(t *testing.T) {
	const PR_SET_CHILD_SUBREAPER = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, PR_SET_CHILD_SUBREAPER, 1, 0); errno == syscall.EINVAL && os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator has no PR_SET_CHILD_SUBREAPER")
	} else if errno != 0 {
		t.Fatal(errno)
	}
	defer syscall.RawSyscall(syscall.SYS_PRCTL, PR_SET_CHILD_SUBREAPER, 0, 0)
	bothFlags(t, func(t *testing.T, flags int) {
		parent, pid := grandchild(t)
		p := openFlags(t, pid, flags)
		w := startWait(context.Background(), p)
		awaitParked(p)
		parent.kill(syscall.SIGKILL)
		parent.guard.Wait(context.Background())
		w.isWaiting(t)
		p.SendSignal(syscall.SIGTERM)
		r, err := w.result()
		isEnd(t, r, err, killedBy(syscall.SIGTERM), true)
	})
}

func TestWaitResultString(t *testing.T) {
	for want, r := range map[string]WaitResult{
		"running":                                 {},
		"exit status 3":                           {Ended: true, Status: exitCode(3)},
		"signal 9 (killed)":                       {Ended: true, Status: killedBy(syscall.SIGKILL)},
		"signal 6 (aborted), core dumped":         {Ended: true, Status: killedBy(syscall.SIGABRT) | 0x80},
		"status unknown: " + errNotReaped.Error(): {Ended: true, Status: statusUnknown, Unknown: errNotReaped},
	} {
		if r.String() != want {
			t.Errorf("%q, want %q", r, want)
		}
	}
}

func TestExitStatusErrors(t *testing.T) {
	for errno, want := range map[syscall.Errno][]error{
		0:               {errors.ErrUnsupported},
		syscall.ESRCH:   {errors.ErrUnsupported},
		syscall.EINVAL:  {errors.ErrUnsupported},
		syscall.ENOTTY:  {errors.ErrUnsupported},
		syscall.ENOSYS:  {errors.ErrUnsupported},
		syscall.EPERM:   {os.ErrPermission, syscall.EPERM},
		syscall.EREMOTE: {syscall.EREMOTE},
	} {
		matches(t, noExitInfo(3, errno), want...)
	}
	matches(t, errNotReaped, syscall.EAGAIN)
}

func TestWaitNeedsNoThreads(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 0)
	before := threads(t)
	var waits []*waiting
	var pidfds []*PidFD
	for i := range 200 {
		p := k.open([]int{0, PIDFD_NONBLOCK}[i%2])
		pidfds = append(pidfds, p)
		waits = append(waits, startWait(context.Background(), p, WaitNoReap))
	}
	for _, p := range pidfds {
		awaitParked(p)
	}
	if n := threads(t) - before; n > 20 {
		t.Errorf("%d more threads", n)
	}
	k.exit()
	for _, w := range waits {
		r, err := w.result()
		isEnd(t, r, err, exitCode(0), false)
	}
}

func threads(t testing.TB) int {
	t.Helper()
	return statusNumber(t, "Threads:")
}

// statusNumber returns a number from /proc/self/status.
func statusNumber(t testing.TB, key string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	fields := procFields(string(text), key)
	if len(fields) == 0 {
		t.Fatalf("%s is not in %s", key, text)
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTryWaitAllocates(t *testing.T) {
	p := exiter(t, 0).guard
	doesNotAllocate(t, func() { p.TryWait() })
	doesNotAllocate(t, func() { p.TryWait(WaitNoReap, WaitExited) })
	self := openPidFD(t, os.Getpid())
	doesNotAllocate(t, func() { self.TryWait() })
}

func newWaitSet[K any](t testing.TB, options ...WaitOption) *WaitSet[K] {
	t.Helper()
	s, err := NewWaitSet[K](options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// idle starts n children that cost next to nothing. They do nothing for ten minutes,
// or until they are killed.
func idle(n int) (pids []int, err error) {
	dir, err := os.MkdirTemp("", "sysfd")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "idle")
	if err := os.WriteFile(name, idleProgram, 0o700); err != nil {
		return nil, err
	}
	words := []string{name}
	for len(pids) < n {
		pid, err := syscall.ForkExec(words[0], words, nil)
		if err == syscall.ENOEXEC && words[0] == name {
			// Another machine.
			sleep, err := exec.LookPath("sleep")
			if err != nil {
				return pids, err
			}
			words = []string{sleep, "600"}
			continue
		}
		if err != nil {
			return pids, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// idleProgram is the whole ELF file of alarm(600); for (;;) pause(); for x86-64.
var idleProgram = []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x02\x00\x3e\x00\x01\x00\x00\x00" + "\x78\x00\x40\x00\x00\x00\x00\x00" + // executable, x86-64, entry
	"\x40\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + // program headers, section headers
	"\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00" + // flags, sizes and numbers
	"\x01\x00\x00\x00\x05\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" + // PT_LOAD, R+X, offset
	"\x00\x00\x40\x00\x00\x00\x00\x00" + "\x00\x00\x40\x00\x00\x00\x00\x00" + // addresses
	"\x8d\x00\x00\x00\x00\x00\x00\x00" + "\x8d\x00\x00\x00\x00\x00\x00\x00" + "\x00\x10\x00\x00\x00\x00\x00\x00" + // sizes, alignment
	"\xb8\x25\x00\x00\x00" + "\xbf\x58\x02\x00\x00" + "\x0f\x05" + // mov $37, %eax; mov $600, %edi; syscall
	"\xb8\x22\x00\x00\x00" + "\x0f\x05" + "\xeb\xf7") // again: mov $34, %eax; syscall; jmp again

// idlers starts n children and opens them. The end of the test is their end.
func idlers(t testing.TB, n int) (pidfds []*PidFD) {
	t.Helper()
	pids, err := idle(n)
	for _, pid := range pids {
		guard := openPidFD(t, pid)
		t.Cleanup(func() {
			guard.SendSignal(syscall.SIGKILL)
			guard.Wait(context.Background())
		})
		pidfds = append(pidfds, openPidFD(t, pid))
	}
	if errors.Is(err, exec.ErrNotFound) {
		lacks(t, "sleep")
	}
	if err != nil {
		t.Fatal(err)
	}
	return pidfds
}

// next returns what Next has right now.
func next[K any](s *WaitSet[K]) (K, WaitResult, error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Next(ctx)
}

func hasNoneEnded[K any](t *testing.T, s *WaitSet[K]) {
	t.Helper()
	if key, r, err := next(s); err != context.Canceled || r != (WaitResult{}) {
		t.Errorf("%v, %+v, %v; want none", key, r, err)
	}
}

func TestWaitSet(t *testing.T) {
	keepsDescriptors(t)
	n := fewer(300)
	pidfds := idlers(t, n)
	s := newWaitSet[int](t)
	for i, p := range pidfds {
		if err := s.Add(p, i); err != nil {
			t.Fatal(err)
		}
	}
	hasNoneEnded(t, s)
	before := threads(t)
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGHUP}
	var mu sync.Mutex
	seen := map[int]bool{}
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 4 {
		group.Go(func() {
			for {
				i, r, err := s.Next(ctx)
				if errors.Is(err, context.Canceled) {
					return
				}
				isEnd(t, r, err, killedBy(signals[i%3]), true)
				mu.Lock()
				if seen[i] {
					t.Errorf("%d was returned twice", i)
				}
				seen[i] = true
				if len(seen) == n {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for _, i := range rand.Perm(n) {
		pidfds[i].SendSignal(signals[i%3])
	}
	group.Wait()
	if len(seen) != n {
		t.Errorf("%d of %d were returned", len(seen), n)
	}
	if n := threads(t) - before; n > 20 {
		t.Errorf("%d more threads", n)
	}
	if s.Remove(pidfds[0]) {
		t.Error("one that was returned is still a member")
	}
	for i, p := range pidfds {
		r, err := p.TryWait()
		isEnd(t, r, err, killedBy(signals[i%3]), false)
	}
}

// startNext calls Next in a goroutine, and returns when that is parked.
func startNext(s *WaitSet[string], ctx context.Context) (result func() (string, WaitResult, error)) {
	var key string
	var r WaitResult
	var err error
	done := make(chan bool)
	go func() {
		key, r, err = s.Next(ctx)
		close(done)
	}()
	awaitTurn(func() *parking { return s.parking })
	return func() (string, WaitResult, error) { <-done; return key, r, err }
}

func TestWaitSetChangesWhileParked(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		removed, added := exiter(t, 1), exiter(t, 2)
		p, q := removed.open(flags), added.open(flags)
		s := newWaitSet[string](t)
		if err := s.Add(p, "removed"); err != nil {
			t.Fatal(err)
		}
		err := s.Add(p, "twice")
		matches(t, err, syscall.EEXIST)
		result := startNext(s, context.Background())
		if !s.Remove(p) || s.Remove(p) || s.Remove(q) {
			t.Error("Remove does not know the members")
		}
		removed.exit()
		p.Wait(context.Background(), WaitNoReap)
		if err := s.Add(q, "added"); err != nil {
			t.Fatal(err)
		}
		added.exit()
		key, r, err := result()
		isEnd(t, r, err, exitCode(2), true)
		if key != "added" {
			t.Errorf("key %q", key)
		}
		// One that has ended already.
		result = startNext(s, context.Background())
		if err := s.Add(p, "ended"); err != nil {
			t.Fatal(err)
		}
		key, r, err = result()
		isEnd(t, r, err, exitCode(1), true)
		if key != "ended" {
			t.Errorf("key %q", key)
		}
		// One that was reaped already.
		if err := s.Add(q, "reaped"); err != nil {
			t.Fatal(err)
		}
		key, r, err = next(s)
		isEnd(t, r, err, exitCode(2), false)
		if key != "reaped" {
			t.Errorf("key %q", key)
		}
		hasNoneEnded(t, s)
	})
}

// What the kernel has to say of a former member is not said of another one.
func TestWaitSetStaleEvents(t *testing.T) {
	keepsDescriptors(t)
	k, other := exiter(t, 1), exiter(t, 2)
	p := k.open(0)
	s := newWaitSet[int](t)
	add := func(p *PidFD, key int) {
		t.Helper()
		if err := s.Add(p, key); err != nil {
			t.Fatal(err)
		}
	}
	add(p, 1)
	k.exit()
	p.Wait(context.Background(), WaitNoReap)
	// The event is there, and its member goes.
	s.Remove(p)
	hasNoneEnded(t, s)
	add(p, 2)
	s.Remove(p)
	add(p, 3)
	key, r, err := next(s)
	isEnd(t, r, err, exitCode(1), true)
	if key != 3 {
		t.Errorf("key %d", key)
	}
	hasNoneEnded(t, s)
	// The number of the descriptor goes to another process.
	add(p, 4)
	s.Remove(p)
	fd := p.fd
	p.Close()
	q := other.open(0)
	for q.fd < fd {
		q = other.open(0)
	}
	if q.fd != fd {
		t.Errorf("descriptor %d, not %d", q.fd, fd)
	}
	add(q, 5)
	hasNoneEnded(t, s)
	// An event whose token is no one's.
	if err := epollAdd(s.epoll, k.guard.fd, s.token+100); err != nil {
		t.Fatal(err)
	}
	hasNoneEnded(t, s)
	other.exit()
	key, r, err = s.Next(context.Background())
	isEnd(t, r, err, exitCode(2), true)
	if key != 5 {
		t.Errorf("key %d", key)
	}
}

func TestWaitSetContext(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 1)
	s := newWaitSet[string](t)
	ctx, cancel := context.WithCancel(context.Background())
	first, second := startNext(s, ctx), startNext(s, context.Background())
	cancel()
	_, _, err := first()
	matches(t, err, context.Canceled)
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, _, err = s.Next(short)
	matches(t, err, context.DeadlineExceeded)
	if err := s.Add(k.guard, "k"); err != nil {
		t.Fatal(err)
	}
	k.exit()
	key, r, err := second()
	isEnd(t, r, err, exitCode(1), true)
	if key != "k" {
		t.Errorf("key %q", key)
	}
}

func TestWaitSetClose(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 1)
		p, closed := k.open(flags), k.open(flags)
		s := newWaitSet[string](t)
		for _, p := range []*PidFD{p, closed} {
			if err := s.Add(p, ""); err != nil {
				t.Fatal(err)
			}
		}
		closed.Close()
		if _, errno := fcntl(closed.fd, syscall.F_GETFD, 0); errno != 0 {
			t.Errorf("the descriptor of a member: %v", errno)
		}
		matches(t, s.Add(closed, ""), os.ErrClosed)
		first, second := startNext(s, context.Background()), startNext(s, context.Background())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, result := range []func() (string, WaitResult, error){first, second} {
			_, _, err := result()
			matches(t, err, os.ErrClosed)
		}
		_, _, err := s.Next(context.Background())
		matches(t, err, os.ErrClosed)
		matches(t, s.Add(p, ""), os.ErrClosed)
		matches(t, s.Close(), os.ErrClosed)
		if s.Remove(p) {
			t.Error("a closed set has members")
		}
		isRunning(t, p)
		s = nil
		_, _, err = s.Next(context.Background())
		matches(t, err, os.ErrInvalid)
		matches(t, s.Add(p, ""), os.ErrInvalid)
		matches(t, s.Add(nil, ""), os.ErrInvalid)
		matches(t, s.Close(), os.ErrInvalid)
		if s.Remove(p) {
			t.Error("a nil set has members")
		}
	})
}

func TestWaitSetOptions(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 3)
	s := newWaitSet[int](t, WaitNoReap)
	if err := s.Add(k.guard, 0); err != nil {
		t.Fatal(err)
	}
	k.exit()
	_, r, err := s.Next(context.Background())
	isEnd(t, r, err, exitCode(3), false)
	r, err = k.guard.Wait(context.Background())
	isEnd(t, r, err, exitCode(3), true)
}

func TestWaitSetNotAChild(t *testing.T) {
	needs(t, FeatureThread) // as old as POLLHUP of a pidfd
	bothFlags(t, func(t *testing.T, flags int) {
		parent, pid := grandchild(t)
		p := openFlags(t, pid, flags)
		exited, reaped := newWaitSet[string](t, WaitExited), newWaitSet[string](t)
		for _, s := range []*WaitSet[string]{exited, reaped} {
			if err := s.Add(p, "p"); err != nil {
				t.Fatal(err)
			}
		}
		result := startNext(reaped, context.Background())
		p.SendSignal(syscall.SIGTERM)
		key, r, err := exited.Next(context.Background())
		if key != "p" || err != nil || !r.Ended || !errors.Is(r.Unknown, syscall.EAGAIN) {
			t.Errorf("%q, %+v, %v", key, r, err)
		}
		hasNoneEnded(t, reaped)
		fmt.Fprintln(parent.stdin, "reap")
		key, r, err = result()
		isEndOfOther(t, r, err, killedBy(syscall.SIGTERM))
		if key != "p" {
			t.Errorf("key %q", key)
		}
	})
}

// Wait and Next share a process: both are told, and it is reaped once.
func TestWaitSetAndWait(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 3)
		p := k.open(flags)
		s := newWaitSet[string](t)
		if err := s.Add(p, "p"); err != nil {
			t.Fatal(err)
		}
		result := startNext(s, context.Background())
		w := startWait(context.Background(), p)
		awaitParked(p)
		k.exit()
		_, r, err := result()
		isEnd(t, r, err, exitCode(3), r.Reaped)
		r2, err := w.result()
		isEnd(t, r2, err, exitCode(3), !r.Reaped)
	})
}

func init() {
	children["crowd"] = func(args []string) error { return crowd(args[0], args[1]) }
}

// crowd waits for many children at once, one way or the other, and prints what it takes.
func crowd(way, number string) error {
	limit := syscall.Rlimit{Cur: 20000, Max: 20000}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	pids, err := idle(n)
	defer func() {
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	if err != nil {
		return fmt.Errorf("child %d: %w", len(pids), err)
	}
	flags := 0
	if way == "Wait" {
		flags = PIDFD_NONBLOCK
	}
	var b testing.B // for those that want one
	measure := func() (heap, rss, threads int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse), statusNumber(&b, "VmRSS:"), statusNumber(&b, "Threads:")
	}
	heap0, rss0, _ := measure()
	var pidfds []*PidFD
	for _, pid := range pids {
		p, err := OpenPidFD(pid, flags)
		if err != nil {
			return err
		}
		pidfds = append(pidfds, p)
	}
	heap1, rss1, _ := measure()
	ctx := context.Background()
	results := make(chan error, n)
	check := func(r WaitResult, err error) {
		if err == nil && (!r.Reaped || r.Status != killedBy(syscall.SIGTERM)) {
			err = fmt.Errorf("%+v", r)
		}
		results <- err
	}
	if way == "Wait" {
		for _, p := range pidfds {
			go func() { check(p.Wait(ctx)) }()
		}
		for _, p := range pidfds {
			awaitParked(p)
		}
	} else {
		s, err := NewWaitSet[int]()
		if err != nil {
			return err
		}
		defer s.Close()
		for i, p := range pidfds {
			if err := s.Add(p, i); err != nil {
				return err
			}
		}
		seen := make([]bool, n)
		go func() {
			for {
				i, r, err := s.Next(ctx)
				if err == nil && seen[i] {
					err = fmt.Errorf("%d again", i)
				}
				if err == nil {
					seen[i] = true
				}
				check(r, err)
			}
		}()
		awaitTurn(func() *parking { return s.parking })
	}
	heap2, rss2, threads := measure()
	fmt.Printf("%d children: a PidFD %d bytes, %s %d more; VmRSS %d kB, %d kB more; %d threads\n",
		n, (heap1-heap0)/n, way, (heap2-heap1)/n, rss1-rss0, rss2-rss1, threads)
	for _, i := range rand.Perm(n) {
		pidfds[i].SendSignal(syscall.SIGTERM)
	}
	for range n {
		if err := <-results; err != nil {
			return err
		}
	}
	pids = nil
	if _, _, after := measure(); threads > 50 || after > 100 {
		return fmt.Errorf("%d threads, %d in the end", threads, after)
	}
	return nil
}

func TestWaitForACrowd(t *testing.T) {
	if testing.Short() || raceEnabled || os.Getenv(emulatorVar) != "" {
		t.Skip("this is for a whole run")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < 20000 {
		lacks(t, "20,000 descriptors")
	}
	for _, n := range []int{1000, 15000} {
		for _, way := range []string{"Wait", "WaitSet"} {
			cmd := child("crowd", way, strconv.Itoa(n))
			out, err := cmd.CombinedOutput()
			if err != nil && strings.Contains(string(out), exec.ErrNotFound.Error()) {
				lacks(t, "sleep")
			}
			if err != nil && strings.Contains(string(out), syscall.EAGAIN.Error()) {
				lacks(t, "room for more processes: "+string(out))
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Logf("%s", out)
		}
	}
}

// A look at a child that runs beside the system call it cannot do without.
func BenchmarkTryWait(b *testing.B) {
	p := idlers(b, 1)[0]
	b.Run("waitid", func(b *testing.B) {
		var info siginfo
		var rusage syscall.Rusage
		for b.Loop() {
			waitPidFD(p.fd, syscall.WEXITED|syscall.WNOHANG|syscall.WALL, &info, &rusage)
		}
	})
	b.Run("TryWait", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.TryWait()
		}
	})
}

// ppoll(2) says EINTR although it is not to wait, at any signal: the runtime's own are
// enough.
func TestTryWaitInterrupted(t *testing.T) {
	keepsDescriptors(t)
	p := openPidFD(t, os.Getppid())
	stop := make(chan bool)
	var flood sync.WaitGroup
	flood.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				syscall.Kill(os.Getpid(), syscall.SIGURG)
			}
		}
	})
	for range fewer(20_000) {
		isRunning(t, p)
		if t.Failed() {
			break
		}
	}
	close(stop)
	flood.Wait()
}

// A zombie that was not ours can come to be looked at differently: with WaitExited one
// must go on waiting then, not return nothing.
func TestWaitZombieNoMore(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 4)
		p := k.open(flags)
		first := startWait(t.Context(), p, WaitNoReap)
		awaitParked(p)
		w := p.parking.Load()
		close(w.zombie)
		w.sawZombie.Do(func() {})
		second := startWait(t.Context(), p, WaitNoReap|WaitExited)
		for range 100 {
			runtime.Gosched()
			first.isWaiting(t)
			second.isWaiting(t)
		}
		k.exit()
		for _, w := range []*waiting{first, second} {
			r, err := w.result()
			isEnd(t, r, err, exitCode(4), false)
		}
	})
}

// To leave a set can close a PidFD, which waits for what SyscallConn runs. Meanwhile
// the set serves others.
func TestWaitSetLeaveWhileInUse(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 0)
	s := newWaitSet[string](t)
	p, other := k.open(PIDFD_NONBLOCK), k.open(0)
	if err := s.Add(p, "leaves"); err != nil {
		t.Fatal(err)
	}
	conn, err := p.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	removed := make(chan bool)
	err = conn.Control(func(uintptr) {
		go func() { removed <- s.Remove(p) }()
		for len(membersOf(s)) > 0 {
			runtime.Gosched()
		}
		if err := s.Add(other, "comes"); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !<-removed || !s.Remove(other) {
		t.Errorf("%v", err)
	}
}

func membersOf[K any](s *WaitSet[K]) []K {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []K
	for _, m := range s.members {
		keys = append(keys, m.key)
	}
	return keys
}
