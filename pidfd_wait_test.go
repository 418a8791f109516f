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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
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
	needs(t, FeaturePidFD)
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
		k.guard.Wait(context.Background(), 0)
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
	needs(t, FeaturePidFD)
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

// awaitMainThread says so when the main thread has ended.
func awaitMainThread() error {
	for status := ""; !strings.Contains(status, "State:\tZ"); {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", os.Getpid()))
		if err != nil {
			return err
		}
		status = string(text)
	}
	fmt.Println("alone")
	return nil
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
		if err := awaitMainThread(); err != nil {
			return err
		}
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
			r, err := p.TryWait(0)
			if err != nil || r.Ended {
				return fmt.Errorf("at first %+v, %v", r, err)
			}
			stdin.Close()
			r, err = p.Wait(context.Background(), 0)
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
	k.guard.Wait(context.Background(), 0)
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

func isRunning(t testing.TB, p *PidFD, options WaitOption) {
	t.Helper()
	if r, err := p.TryWait(options); err != nil || r != (WaitResult{}) {
		t.Errorf("%+v, %v; want a running process", r, err)
	}
}

// A waiting is a call of Wait in a goroutine.
type waiting struct {
	r    WaitResult
	err  error
	done chan struct{}
}

func startWait(ctx context.Context, p *PidFD, options WaitOption) *waiting {
	w := &waiting{done: make(chan struct{})}
	go func() {
		w.r, w.err = p.Wait(ctx, options)
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
	needs(t, FeaturePidFD)
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
			isRunning(t, p, 0)
			w := startWait(context.Background(), p, 0)
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
			again, err := p.Wait(context.Background(), 0)
			isEnd(t, again, err, test.want, false)
			if again.Rusage != r.Rusage {
				t.Error("the resource usage was forgotten")
			}
			again, err = p.TryWait(0)
			isEnd(t, again, err, test.want, false)
			// And from the kernel, by another PidFD.
			r, err = k.guard.Wait(context.Background(), 0)
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
		r, err = p.Wait(context.Background(), 0)
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
		first := r
		if r.Rusage == nil || os.Getenv(emulatorVar) == "" && r.Rusage.Maxrss == 0 {
			t.Fatalf("resource usage %+v", r.Rusage)
		}
		used := func(r WaitResult) {
			t.Helper()
			if r.Rusage != first.Rusage {
				t.Errorf("resource usage %+v, not the same as %+v", r.Rusage, first.Rusage)
			}
		}
		for range 2 {
			isEnd(t, r, err, exitCode(4), false)
			used(r)
			if err := syscall.Kill(k.pid, 0); err != nil {
				t.Errorf("its PID: %v", err)
			}
			r, err = p.TryWait(WaitNoReap)
		}
		r, err = p.Wait(context.Background(), 0)
		isEnd(t, r, err, exitCode(4), true)
		used(r)
		if err := syscall.Kill(k.pid, 0); err != syscall.ESRCH {
			t.Errorf("its PID: %v", err)
		}
		for _, option := range []WaitOption{0, WaitNoReap, WaitExited} {
			r, err = p.TryWait(option)
			isEnd(t, r, err, exitCode(4), false)
			used(r)
		}
	})
}

func TestWaitTogether(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 8)
		p := k.open(flags)
		var waits []*waiting
		for range 8 {
			waits = append(waits, startWait(context.Background(), p, 0))
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
			w := startWait(ctx, p, 0)
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
		_, err := p.Wait(done, 0)
		matches(t, err, context.Canceled)
		if p.parking.Load() != nil {
			t.Error("it made a place to park for nothing")
		}
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			_, err := p.Wait(ctx, 0)
			matches(t, err, context.DeadlineExceeded)
			cancel()
		}
		ctx, cancel := context.WithCancel(context.Background())
		w := startWait(ctx, p, 0)
		awaitParked(p)
		cancel()
		_, err = w.result()
		matches(t, err, context.Canceled)
		k.exit()
		k.guard.Wait(context.Background(), WaitNoReap)
		// It has ended, and that is what counts.
		r, err := p.Wait(done, 0)
		isEnd(t, r, err, exitCode(8), true)
	})
}

func TestWaitClose(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 0)
		p := k.open(flags)
		// A set that it is in keeps its descriptor open, and Wait returns all the same.
		set := newWaitSet[int](t, 0)
		if err := set.Add(p, 1); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*PidFD{p, k.open(flags)} {
			var waits []*waiting
			for range 4 {
				waits = append(waits, startWait(context.Background(), p, 0))
			}
			awaitParked(p)
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			for _, w := range waits {
				_, err := w.result()
				matches(t, err, os.ErrClosed)
			}
			_, err := p.Wait(context.Background(), 0)
			matches(t, err, os.ErrClosed)
			_, err = p.TryWait(0)
			matches(t, err, os.ErrClosed)
		}
		k.exit()
		key, r, err := set.Next(context.Background())
		isEnd(t, r, err, exitCode(0), true)
		if key != 1 {
			t.Errorf("key %d", key)
		}
	})
	_, err := (*PidFD)(nil).Wait(context.Background(), 0)
	matches(t, err, os.ErrInvalid)
	_, err = new(PidFD).TryWait(0)
	matches(t, err, os.ErrClosed)
}

// One whose turn to park comes while Close is under way does not park.
func TestWaitWhileClosing(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		p := exiter(t, 0).open(flags)
		_, err := p.Wait(beginClose{context.Background(), p}, 0)
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

// An error of a look ends a Wait that has parked, too.
func TestWaitRefusedWhileParked(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		p := exiter(t, 0).open(flags)
		underFilter(t, func() error { return nil }, func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			refuses := func() { refuse(map[int]syscall.Errno{unix.SYS_WAITID: syscall.EIO}) }
			_, err := p.Wait(&doneLater{ctx, 0, 1, refuses}, 0)
			matches(t, err, syscall.EIO)
			if ctx.Err() != nil {
				t.Error("it went on waiting")
			}
		})
	})
}

// The one who closes may be anyone, also one who is about to park.
func TestWaitConcurrentClose(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 0)
		for n := range 600 {
			options := WaitOption(n%2) * WaitBlocking
			p := k.open(flags)
			var group waitGroup
			for i := range 3 {
				ctx, cancel := context.WithCancel(context.Background())
				group.Go(func() {
					_, err := p.Wait(ctx, options)
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
					if _, err := p.TryWait(0); err != nil {
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
		w := startWait(context.Background(), p, 0)
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
			isRunning(t, p, 0)
			isRunning(t, p, WaitNoReap|WaitExited)
			w.isWaiting(t)
		}
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(2), true)
	})
}

func init() {
	// Traces a process until it is told to end, without waiting for it.
	children["tracer"] = func(args []string) error {
		pid, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		runtime.LockOSThread()
		if err := unix.PtraceSeize(pid); err != nil {
			return err
		}
		fmt.Println("traces")
		io.Copy(io.Discard, os.Stdin)
		return nil
	}
}

func needsPtrace(t *testing.T) {
	t.Helper()
	reliesOn(t, ptracing)
	rights.Need(t, rights.SysPtrace) // kernel.yama.ptrace_scope
}

// A stop of a process that is traced is no end, and is left to the tracer.
func TestWaitTraced(t *testing.T) {
	needsPtrace(t)
	bothFlags(t, func(t *testing.T, flags int) {
		runtime.LockOSThread() // is the tracer
		defer runtime.UnlockOSThread()
		cmd := child("exit", "2")
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		k := startKid(t, cmd)
		p := k.open(flags)
		set := newWaitSet[int](t, 0)
		if err := set.Add(p, 1); err != nil {
			t.Fatal(err)
		}
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, k.pid, &info, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			isRunning(t, p, 0)
			isRunning(t, p, WaitNoReap|WaitExited)
		}
		hasNoneEnded(t, set)
		set.Remove(p)
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(k.pid, &status, syscall.WNOHANG, nil); pid != k.pid || !status.Stopped() || status.StopSignal() != syscall.SIGTRAP {
			t.Fatalf("the tracer sees %d, %#x, %v", pid, uint32(status), err)
		}
		if err := syscall.PtraceDetach(k.pid); err != nil {
			t.Fatal(err)
		}
		w := startWait(context.Background(), p, 0)
		awaitParked(p)
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(2), true)
	})
}

// The end of a process that is traced here and is another's child is told once, and it is its
// parent that reaps it.
func TestWaitTracedOfOther(t *testing.T) {
	needsPtrace(t)
	needs(t, FeatureThread) // as old as POLLHUP of a pidfd
	reliesOn(t, pidfs)
	adopts(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	parent, pid := grandchild(t)
	p := openFlags(t, pid, 0)
	if err := unix.PtraceSeize(pid); err != nil {
		t.Fatal(err)
	}
	isRunning(t, p, 0)
	p.SendSignal(syscall.SIGKILL)
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := p.TryWait(0)
		isEnd(t, r, err, killedBy(syscall.SIGKILL), false)
	}
	if err := p.SendSignal(0); err != nil {
		t.Errorf("its parent has not reaped it: %v", err)
	}
	parent.exit()
	parent.guard.Wait(context.Background(), 0)
	// It is a child once its parent has ended.
	r, err := p.TryWait(0)
	isEnd(t, r, err, killedBy(syscall.SIGKILL), true)
}

// A child that has ended is a zombie for as long as another tracer holds it.
func TestWaitHeldByTracer(t *testing.T) {
	needsPtrace(t)
	bothFlags(t, func(t *testing.T, flags int) {
		cmd := child("exit", "2")
		cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1") // a signal would stop it
		k := startKid(t, cmd)
		p := k.open(flags)
		tracer := startKid(t, child("tracer", strconv.Itoa(k.pid)))
		if line := tracer.line(); line != "traces" {
			t.Fatal(line)
		}
		reaped := startWait(context.Background(), p, 0)
		awaitParked(p)
		waits := make(chan bool) // for the other one, who is the first to hear of it
		exited := startWait(&doneLater{context.Background(), 0, 1, func() { close(waits) }}, p, WaitExited)
		<-waits
		k.exit()
		r, err := exited.result()
		for range 2 {
			if err != nil || !r.Ended || !errors.Is(r.Unknown, syscall.EAGAIN) {
				t.Errorf("%+v, %v", r, err)
			}
			isUnknown(t, r)
			r, err = p.TryWait(WaitExited)
		}
		isRunning(t, p, 0)
		reaped.isWaiting(t)
		tracer.exit()
		r, err = reaped.result()
		isEnd(t, r, err, exitCode(2), true)
	})
}

// A process has ended when its last thread has.
func TestWaitMainThreadEndsFirst(t *testing.T) {
	rights.Proc(t)
	for _, flags := range []int{0, PIDFD_NONBLOCK, PIDFD_THREAD} {
		if flags == PIDFD_THREAD {
			reliesOn(t, threadWaits)
		}
		k := startKid(t, child("leader-exits"))
		p := k.open(flags)
		w := startWait(context.Background(), p, 0)
		awaitParked(p)
		k.line()
		isRunning(t, p, 0)
		isRunning(t, p, WaitNoReap|WaitExited)
		w.isWaiting(t)
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(7), true)
		r, err = k.guard.Wait(context.Background(), 0)
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
		w := startWait(context.Background(), p, 0)
		awaitParked(p)
		if line := k.line(); line != "ready" {
			t.Fatal(line)
		}
		isRunning(t, p, 0)
		isRunning(t, p, WaitNoReap|WaitExited)
		w.isWaiting(t)
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(9), true)
		r, err = k.guard.Wait(context.Background(), 0)
		isEndOfOther(t, r, err, exitCode(9))
	})
}

func TestWaitThread(t *testing.T) {
	reliesOn(t, threadWaits)
	keepsDescriptors(t)
	found, end := make(chan int), make(chan bool)
	go onThrowawayThread(func() {
		found <- syscall.Gettid()
		<-end
	})
	p := openFlags(t, <-found, PIDFD_THREAD)
	w := startWait(context.Background(), p, 0)
	awaitParked(p)
	isRunning(t, p, 0)
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
		isRunning(t, p, 0)
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

// awaitBlocked returns when a thread has been blocked in Wait, or is about to be.
func awaitBlocked(p *PidFD) {
	for p.closed.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond) // long enough to be in ppoll(2) nearly always
}

func TestWaitBlocking(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 2)
		p, other := k.open(flags), k.open(flags)
		ctx, cancel := context.WithCancelCause(context.Background())
		canceled := startWait(ctx, p, WaitBlocking)
		awaitBlocked(p)
		w := startWait(context.Background(), p, WaitBlocking)
		noReap := startWait(context.Background(), other, WaitBlocking|WaitNoReap)
		awaitBlocked(other)
		isRunning(t, p, WaitBlocking)
		why := errors.New("why")
		cancel(why)
		if _, err := canceled.result(); err != why {
			t.Errorf("%v, want %v", err, why)
		}
		w.isWaiting(t)
		noReap.isWaiting(t)
		k.exit()
		r, err := w.result()
		isEnd(t, r, err, exitCode(2), true)
		r, err = noReap.result()
		if err != nil || !r.Ended || r.Reaped {
			t.Errorf("%+v, %v", r, err)
		}
		if p.parking.Load() != nil {
			t.Error("it was parked as well")
		}
		_, err = p.Wait(ctx, WaitBlocking)
		if err != nil {
			t.Error(err)
		}
	})
}

// All who hold a thread return, and the last of them closes the descriptor.
func TestWaitBlockingClose(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		p := exiter(t, 0).open(flags)
		var waits []*waiting
		for range 4 {
			waits = append(waits, startWait(context.Background(), p, WaitBlocking))
		}
		awaitBlocked(p)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for _, w := range waits {
			_, err := w.result()
			matches(t, err, os.ErrClosed)
		}
		_, err := p.Wait(context.Background(), WaitBlocking)
		matches(t, err, os.ErrClosed)
	})
}

// Close comes after acquire, and before there is an eventfd for it to write to.
func TestWaitBlockingCloseBetween(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		p := exiter(t, 0).open(flags)
		if err := p.acquire(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		matches(t, p.blockAcquired(ctx), os.ErrClosed)
		if err := p.release(); err != nil {
			t.Error(err)
		}
	})
}

// Of those who make the eventfd at once, one keeps it.
func TestWaitBlockingTogether(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 0)
	k.exit()
	awaitEnd(t, k.guard) // so that nobody holds a thread for long
	for range fewer(1000) {
		p, err := OpenPidFD(k.pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		start := make(chan bool)
		var group waitGroup
		for range 4 {
			group.Go(func() {
				<-start
				if err := p.block(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		group.Wait()
		p.Close()
	}
}

// It parks for the status of a process that is not a child.
func TestWaitBlockingNotAChild(t *testing.T) {
	needs(t, FeatureThread) // as old as POLLHUP of a pidfd
	reliesOn(t, pidfs)
	bothFlags(t, func(t *testing.T, flags int) {
		parent, pid := grandchild(t)
		p := openFlags(t, pid, flags)
		w, exited := startWait(context.Background(), p, WaitBlocking), startWait(context.Background(), p, WaitBlocking|WaitExited)
		awaitBlocked(p)
		p.SendSignal(syscall.SIGTERM)
		r, err := exited.result()
		if err != nil || !r.Ended || !errors.Is(r.Unknown, syscall.EAGAIN) {
			t.Errorf("%+v, %v", r, err)
		}
		awaitParked(p)
		w.isWaiting(t)
		fmt.Fprintln(parent.stdin, "reap")
		if line := parent.line(); line != "15 <nil>" {
			t.Error(line)
		}
		r, err = w.result()
		isEndOfOther(t, r, err, killedBy(syscall.SIGTERM))
	})
}

// A process that is not a child is one until it is reaped, or until it is a zombie.
func TestWaitNotAChild(t *testing.T) {
	needs(t, FeatureThread) // as old as POLLHUP of a pidfd
	reliesOn(t, pidfs)
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
			isRunning(t, p, 0)
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

// whenAsked is a context that does something when it is asked for the first time whether it is done,
// which is when Wait is about to park.
type whenAsked struct {
	context.Context
	once sync.Once
	do   func()
}

func (c *whenAsked) Err() error { c.once.Do(c.do); return c.Context.Err() }

// Between the first look and parking another can see the zombie that is enough for one.
func TestWaitZombieSeenBefore(t *testing.T) {
	needs(t, FeatureThread) // as old as POLLHUP of a pidfd
	reliesOn(t, pidfs)
	bothFlags(t, func(t *testing.T, flags int) {
		parent, pid := grandchild(t)
		p := openFlags(t, pid, flags)
		reaped := startWait(context.Background(), p, 0)
		awaitParked(p)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r, err := p.Wait(&whenAsked{Context: ctx, do: func() {
			p.SendSignal(syscall.SIGTERM)
			for seen := false; !seen; runtime.Gosched() {
				p.mu.Lock()
				seen = p.parking.Load().sawZombie
				p.mu.Unlock()
			}
		}}, WaitExited)
		if err != nil || !r.Ended || !errors.Is(r.Unknown, syscall.EAGAIN) {
			t.Errorf("%+v, %v", r, err)
		}
		fmt.Fprintln(parent.stdin, "reap")
		r, err = reaped.result()
		isEndOfOther(t, r, err, killedBy(syscall.SIGTERM))
	})
}

func TestWaitReapedByNobody(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		parent := startKid(t, child("parent", "ignore"))
		p := openFlags(t, parent.number(), flags)
		w := startWait(context.Background(), p, 0)
		awaitParked(p)
		p.SendSignal(syscall.SIGTERM)
		r, err := w.result()
		isEndOfOther(t, r, err, killedBy(syscall.SIGTERM))
	})
}

// adopts makes the test the parent of those whose parent, a child of the test, ends before them.
func adopts(t *testing.T) {
	t.Helper()
	const PR_SET_CHILD_SUBREAPER = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, PR_SET_CHILD_SUBREAPER, 1, 0); errno == syscall.EINVAL && os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator has no PR_SET_CHILD_SUBREAPER")
	} else if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { syscall.RawSyscall(syscall.SYS_PRCTL, PR_SET_CHILD_SUBREAPER, 0, 0) })
}

// A process may become a child while it is waited for.
func TestWaitAdopted(t *testing.T) {
	adopts(t)
	bothFlags(t, func(t *testing.T, flags int) {
		parent, pid := grandchild(t)
		p := openFlags(t, pid, flags)
		w := startWait(context.Background(), p, 0)
		awaitParked(p)
		parent.kill(syscall.SIGKILL)
		parent.guard.Wait(context.Background(), 0)
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

func TestWaitOptionCheck(t *testing.T) {
	keepsDescriptors(t)
	p := openPidFD(t, os.Getpid())
	_, err := p.TryWait(8)
	matches(t, err, syscall.EINVAL)
	_, err = p.Wait(context.Background(), 8)
	matches(t, err, syscall.EINVAL)
	for _, bad := range []WaitOption{8, WaitBlocking, WaitBlocking | WaitNoReap} {
		_, err = NewWaitSet[int](bad)
		matches(t, err, syscall.EINVAL)
	}
	for _, good := range []WaitOption{0, WaitNoReap, WaitExited, WaitNoReap | WaitExited, WaitBlocking, WaitBlocking | WaitNoReap | WaitExited} {
		if err := good.check(); err != nil {
			t.Error(err)
		}
	}
	ones := strings.Repeat("f", strconv.IntSize/4)
	for bad, text := range map[WaitOption]string{8: "0x8 ", WaitExited | 1<<30: "0x40000002 ", -1: "0x" + ones + " ", -1 << 31: "0x" + ones[8:] + "80000000 "} {
		err := bad.check()
		matches(t, err, syscall.EINVAL)
		if err != nil && !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%v, want %s", err, text)
		}
	}
}

func TestExitStatusErrors(t *testing.T) {
	for errno, want := range map[syscall.Errno][]error{
		0:                  {errors.ErrUnsupported},
		syscall.ESRCH:      {errors.ErrUnsupported},
		syscall.EINVAL:     {errors.ErrUnsupported},
		syscall.ENOTTY:     {errors.ErrUnsupported},
		syscall.ENOSYS:     {errors.ErrUnsupported},
		syscall.EOPNOTSUPP: {errors.ErrUnsupported},
		syscall.EPERM:      {os.ErrPermission, syscall.EPERM},
		syscall.EREMOTE:    {syscall.EREMOTE},
	} {
		matches(t, noExitInfo(3, errno), want...)
	}
	matches(t, errNotReaped, syscall.EAGAIN)
	// What the kernel answers of a process that has not ended is no status.
	_, err := exitStatus(openPidFD(t, os.Getpid()).fd)
	matches(t, err, errors.ErrUnsupported)
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
	if n := threads(t) - before; n > 100 { // on a busy machine the runtime makes some for making 200 epoll instances
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
	doesNotAllocate(t, func() { p.TryWait(0) })
	doesNotAllocate(t, func() { p.TryWait(WaitNoReap | WaitExited) })
	self := openPidFD(t, os.Getpid())
	doesNotAllocate(t, func() { self.TryWait(0) })
}

// ppoll(2) says EINTR although it is not to wait, at any signal: the runtime's own are
// enough.
func TestTryWaitInterrupted(t *testing.T) {
	keepsDescriptors(t)
	p := openPidFD(t, os.Getppid())
	stop := make(chan bool)
	var flood waitGroup
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
		isRunning(t, p, 0)
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
		p.mu.Lock()
		w.sawZombie = true
		p.mu.Unlock()
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

// No program that is executed inherits what Wait and a set wait with.
func TestWaitCloseOnExec(t *testing.T) {
	bothFlags(t, func(t *testing.T, flags int) {
		k := exiter(t, 0)
		before := descriptorNumbers()
		p := k.open(flags)
		for _, options := range []WaitOption{0, WaitBlocking} {
			if _, err := p.Wait(giveUp(), options); gaveUp(err) != nil {
				t.Fatal(err)
			}
		}
		newWaitSet[int](t, 0)
		for _, fd := range descriptorNumbers() {
			if slices.Contains(before, fd) {
				continue
			}
			if flags, errno := fcntl(fd, syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
				t.Errorf("descriptor flags %#x, %v", flags, errno)
			}
		}
	})
}

// What the kernel does not take into an epoll instance leaves none behind.
func TestWaitParkRefused(t *testing.T) {
	keepsDescriptors(t)
	f, err := os.Open(tempFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	withFD(f, func(fd int) {
		p := &PidFD{fd: fd}
		p.uses.Store(1)
		for range 2 {
			_, err := p.park()
			matches(t, err, syscall.EPERM, os.ErrPermission)
		}
	})
}

// A file that the poller of the runtime has not taken still owns the descriptor, and Wait parks elsewhere.
func TestWaitPollerFull(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 3)
	p := k.open(PIDFD_NONBLOCK)
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{syscall.SYS_EPOLL_CTL: syscall.ENOSPC}) }, func() {
		_, err := p.Wait(giveUp(), 0)
		matches(t, err, syscall.ENOSPC)
	})
	owner := p.file
	w := startWait(context.Background(), p, 0)
	awaitParked(p)
	if p.file != owner {
		t.Error("two files own the descriptor")
	}
	k.exit()
	r, err := w.result()
	isEnd(t, r, err, exitCode(3), true)
}

// A child that is to send another signal than SIGCHLD when it ends, or none, is a child. There
// is no way to execute a program with it: execve(2) makes it SIGCHLD.
func TestWaitOtherExitSignal(t *testing.T) {
	reliesOn(t, clones)
	if runtime.GOARCH == "s390x" {
		t.Skip("the arguments of clone(2) are in another order")
	}
	for _, sig := range []syscall.Signal{0, syscall.SIGURG} {
		bothFlags(t, func(t *testing.T, flags int) {
			runtime.LockOSThread() // or else the child could end with the thread
			defer runtime.UnlockOSThread()
			pid, errno := cloneIdle(sig)
			if errno != 0 {
				t.Fatal(errno)
			}
			p := openFlags(t, pid, flags)
			defer func() {
				p.SendSignal(syscall.SIGKILL)
				syscall.Wait4(pid, nil, syscall.WALL, nil)
			}()
			isRunning(t, p, 0)
			p.SendSignal(syscall.SIGKILL)
			for {
				if revents, _ := pollNow(p.fd); revents != 0 {
					break
				}
				runtime.Gosched()
			}
			r, err := p.TryWait(0)
			isEnd(t, r, err, killedBy(syscall.SIGKILL), true)
		})
	}
}

// cloneIdle makes a child that does nothing until it is killed, or the calling thread ends. It
// executes no program, and of this one it has no other thread: so it does system calls alone.
//
//go:norace
func cloneIdle(exitSignal syscall.Signal) (pid int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(exitSignal), 0, 0, 0, 0, 0)
	if r == 0 && errno == 0 {
		syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	}
	for r == 0 && errno == 0 {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	return int(r), errno
}

// Linux 5.3 has pidfds, and a waitid(2) that does not take them.
func TestWaitOnLinux53(t *testing.T) {
	keepsDescriptors(t)
	p := exiter(t, 0).guard
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_WAITID: syscall.EINVAL}) }, func() {
		_, err := p.TryWait(0)
		matches(t, err, syscall.EINVAL, errors.ErrUnsupported)
	})
}

// Between the look that takes nothing away and the one that reaps, someone else may have reaped it,
// or be about to: the status is known then, and it was not this call.
func TestWaitSomeoneElseWasFaster(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ECHILD, 0} {
		bothFlags(t, func(t *testing.T, flags int) {
			k := exiter(t, 3)
			p := k.open(flags)
			k.exit()
			awaitEnd(t, k.guard)
			const look = syscall.WEXITED | syscall.WNOHANG | syscall.WALL | syscall.WNOWAIT
			underFilter(t, func() error { return refuseUnless(3, look, unix.SYS_WAITID, errno) }, func() {
				r, err := p.TryWait(0)
				isEnd(t, r, err, exitCode(3), false)
			})
			r, err := p.TryWait(0)
			isEnd(t, r, err, exitCode(3), true)
		})
	}
}

// A child that cannot be reaped has not been: there is an error, and no result.
func TestWaitReapRefused(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 3)
	p := k.open(0)
	k.exit()
	awaitEnd(t, k.guard)
	underFilter(t, func() error { return refuseUnless(3, waitNow|syscall.WNOWAIT, unix.SYS_WAITID, syscall.EIO) }, func() {
		r, err := p.TryWait(0)
		matches(t, err, syscall.EIO)
		if r != (WaitResult{}) {
			t.Errorf("%+v", r)
		}
	})
	r, err := p.TryWait(0)
	isEnd(t, r, err, exitCode(3), true)
}

// For a child that runs TryWait asks waitid(2) and nothing else.
func TestTryWaitAsksOnce(t *testing.T) {
	keepsDescriptors(t)
	p := exiter(t, 0).guard
	calls, _ := answersTo("ppoll ppoll_time32 fcntl ioctl", retErrno|uint32(syscall.EIO))
	underFilter(t, func() error { return filter(calls) }, func() {
		isRunning(t, p, 0)
		isRunning(t, p, WaitNoReap)
	})
}

// Once no one can reap a process any more, what is known of it does not change, and is not asked for.
func TestTryWaitAsksNoMore(t *testing.T) {
	needs(t, FeatureExitStatus)
	keepsDescriptors(t)
	k := exiter(t, 3)
	child, other := k.open(0), k.guard
	k.exit()
	r, err := child.Wait(context.Background(), 0)
	isEnd(t, r, err, exitCode(3), true)
	r, err = other.Wait(context.Background(), 0)
	isEnd(t, r, err, exitCode(3), false)
	calls, _ := answersTo("waitid ppoll ppoll_time32 ioctl", retErrno|uint32(syscall.EIO))
	underFilter(t, func() error { return filter(calls) }, func() {
		for _, p := range []*PidFD{child, other} {
			r, err := p.TryWait(WaitExited)
			isEnd(t, r, err, exitCode(3), false)
		}
	})
}

// A status that one thread may not ask for is not unknown for ever.
func TestTryWaitAsksAgain(t *testing.T) {
	needs(t, FeatureExitStatus)
	keepsDescriptors(t)
	k := exiter(t, 3)
	p := k.open(0)
	k.exit()
	k.guard.Wait(context.Background(), 0)
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{syscall.SYS_IOCTL: syscall.EPERM}) }, func() {
		r, err := p.TryWait(0)
		if err != nil || !r.Ended || !errors.Is(r.Unknown, syscall.EPERM) {
			t.Errorf("%+v, %v", r, err)
		}
		isUnknown(t, r)
	})
	r, err := p.TryWait(0)
	isEnd(t, r, err, exitCode(3), false)
}

// What waitid(2) has written about another process is not read as what it says of this one.
func TestLookForgets(t *testing.T) {
	keepsDescriptors(t)
	p := exiter(t, 0).guard
	g := glance{info: siginfo{Signo: int32(syscall.SIGCHLD), Code: _CLD_EXITED}}
	r := WaitResult{Ended: true}
	calls, _ := answersTo("waitid", retErrno) // the call does nothing
	var err error
	underFilter(t, func() error { return filter(calls) }, func() { err = p.look(0, false, &g, &r) })
	if err != nil || r != (WaitResult{}) {
		t.Errorf("%+v, %v", r, err)
	}
}
