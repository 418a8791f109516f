//go:build linux

package sysfd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd/internal/rights"
	"golang.org/x/sys/unix"
)

func newWaitSet[K any](t testing.TB, options WaitOption) *WaitSet[K] {
	t.Helper()
	s, err := NewWaitSet[K](options)
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
			guard.Wait(context.Background(), 0)
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
	s := newWaitSet[int](t, 0)
	for i, p := range pidfds {
		if err := s.Add(p, i); err != nil {
			t.Fatal(err)
		}
	}
	hasNoneEnded(t, s)
	before := threads(t)
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} // others may be ignored: SIGHUP under nohup(1), SIGUSR1 by Go
	var mu sync.Mutex
	seen := map[int]bool{}
	var group waitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 4 {
		group.Go(func() {
			for {
				i, r, err := s.Next(ctx)
				if errors.Is(err, context.Canceled) {
					return
				}
				isEnd(t, r, err, killedBy(signals[i%len(signals)]), true)
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
		pidfds[i].SendSignal(signals[i%len(signals)])
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
		r, err := p.TryWait(0)
		isEnd(t, r, err, killedBy(signals[i%len(signals)]), false)
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
		s := newWaitSet[string](t, 0)
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
	s := newWaitSet[int](t, 0)
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
	if s.Remove(p) || s.Remove(nil) {
		t.Error("Remove takes out what is not in the set")
	}
	hasNoneEnded(t, s)
	// An event that is no member's, before one that is.
	if err := epollAdd(s.epoll, k.guard.fd); err != nil {
		t.Fatal(err)
	}
	other.exit()
	q.Wait(context.Background(), WaitNoReap)
	key, r, err = next(s)
	isEnd(t, r, err, exitCode(2), true)
	if key != 5 {
		t.Errorf("key %d", key)
	}
}

// Next fetches several events at once, except while another is parked: that would not wake for what is
// left over.
func TestWaitSetLeftOver(t *testing.T) {
	keepsDescriptors(t)
	s := newWaitSet[int](t, 0)
	var members []*PidFD
	end := func(i int) {
		t.Helper()
		k := exiter(t, i)
		p := k.open(0)
		if err := s.Add(p, i); err != nil {
			t.Fatal(err)
		}
		k.exit()
		p.Wait(context.Background(), WaitNoReap)
		members = append(members, p)
	}
	for i := range 4 {
		end(i)
	}
	returned := map[int]bool{}
	takesBy := func(next func() (int, WaitResult, error), leftOver int) {
		t.Helper()
		i, r, err := next()
		isEnd(t, r, err, exitCode(i), true)
		if returned[i] {
			t.Errorf("%d was returned twice", i)
		}
		returned[i] = true
		if n := len(s.events.rest); n != leftOver {
			t.Errorf("%d events are left over, not %d", n, leftOver)
		}
	}
	takes := func(leftOver int) {
		t.Helper()
		takesBy(func() (int, WaitResult, error) { return next(s) }, leftOver)
	}
	if !s.parking.tryTurn() {
		t.Fatal("somebody is parked")
	}
	takes(0)
	s.parking.endTurn()
	takes(2)
	if !s.parking.tryTurn() {
		t.Fatal("Next has kept the turn")
	}
	takes(1)
	s.parking.endTurn()
	// The event of a former member is that of no other one, and is forgotten.
	for i, p := range members {
		if returned[i] {
			continue
		}
		s.Remove(p)
		if len(s.events.rest) > 0 {
			t.Errorf("%v are left over", s.events.rest)
		}
		fd := p.fd
		p.Close()
		q := openPidFD(t, os.Getpid())
		for q.fd < fd {
			q = openPidFD(t, os.Getpid())
		}
		if q.fd != fd {
			t.Errorf("descriptor %d, not %d", q.fd, fd)
		}
		if err := s.Add(q, -1); err != nil {
			t.Fatal(err)
		}
	}
	if len(returned) != 3 {
		t.Errorf("%v were returned", returned)
	}
	end(4)
	takes(0)
	hasNoneEnded(t, s)
	// Whoever is parked has the turn.
	for i := range 3 {
		end(5 + i)
	}
	takesBy(func() (int, WaitResult, error) { return s.park(t.Context()) }, 2)
}

// An event says that a process has ended, which spares a look before it is reaped. A thread can have
// ended for a while only.
func TestWaitSetAsksOnce(t *testing.T) {
	keepsDescriptors(t)
	for _, test := range []struct {
		name  string
		needs Feature
		once  bool
		open  func(pid int) (*PidFD, error)
	}{
		{"OpenPidFD", FeaturePidFD, true, func(pid int) (*PidFD, error) { return OpenPidFD(pid, 0) }},
		{"NewPidFD", FeaturePidFD, true, func(pid int) (*PidFD, error) {
			fd, err := openPidFDBare(pid, 0)
			if err != nil {
				return nil, err
			}
			return NewPidFD(fd)
		}},
		{"OpenPidFD of a thread", FeatureThread, false, func(pid int) (*PidFD, error) { return OpenPidFD(pid, PIDFD_THREAD) }},
		{"NewPidFD of a thread", FeatureThread, false, func(pid int) (*PidFD, error) {
			fd, err := openPidFDBare(pid, PIDFD_THREAD)
			if err != nil {
				return nil, err
			}
			return NewPidFD(fd)
		}},
		{"OpenPidFDByID", FeatureOpenByID, false, func(pid int) (*PidFD, error) {
			p, err := OpenPidFD(pid, 0)
			if err != nil {
				return nil, err
			}
			defer p.Close()
			id, err := p.ID()
			if err != nil {
				return nil, err
			}
			return OpenPidFDByID(id)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			needs(t, test.needs)
			k := exiter(t, 3)
			p, err := test.open(k.pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			s := newWaitSet[int](t, 0)
			if err := s.Add(p, 1); err != nil {
				t.Fatal(err)
			}
			k.exit()
			k.guard.Wait(context.Background(), WaitNoReap)
			var r WaitResult
			underFilter(t, func() error { return refuseUnless(3, waitNow, unix.SYS_WAITID, syscall.EIO) }, func() {
				_, r, err = next(s)
			})
			if test.once {
				isEnd(t, r, err, exitCode(3), true)
			} else {
				matches(t, err, syscall.EIO)
			}
		})
	}
}

func init() {
	// The main thread ends, and then another one executes a program, each after a byte of input.
	children["leader-exits-thread-execs"] = func([]string) error {
		ends, failed := make(chan bool), make(chan error)
		go func() {
			runtime.LockOSThread()
			fmt.Println(syscall.Gettid())
			os.Stdin.Read(make([]byte, 1))
			close(ends)
			if err := awaitMainThread(); err != nil {
				failed <- err
			}
			os.Stdin.Read(make([]byte, 1))
			os.Setenv(childVar, "exit")
			words := self("9")
			failed <- syscall.Exec(words[0], words, os.Environ())
		}()
		select {
		case err := <-failed:
			return err
		case <-ends:
			syscall.Syscall(syscall.SYS_EXIT, 5, 0, 0)
			return nil
		}
	}
}

// What the kernel has said while the main thread had ended is not believed when another thread has
// become the main thread. The stop of that is left to the tracer.
func TestWaitSetThreadExecsTraced(t *testing.T) {
	needsPtrace(t)
	needs(t, FeatureThread)
	reliesOn(t, threadWaits)
	rights.Proc(t)
	keepsDescriptors(t)
	runtime.LockOSThread() // is the tracer
	defer runtime.UnlockOSThread()
	cmd := child("leader-exits-thread-execs")
	cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1") // a signal would stop it
	k := startKid(t, cmd)
	tid := k.number()
	if err := unix.PtraceSeize(tid); err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(tid, &status, syscall.WALL, nil); err != nil || !status.Stopped() {
		t.Fatalf("%#x, %v", uint32(status), err)
	}
	if err := syscall.PtraceSetOptions(tid, syscall.PTRACE_O_TRACEEXEC); err != nil {
		t.Fatal(err)
	}
	if err := syscall.PtraceCont(tid, 0); err != nil {
		t.Fatal(err)
	}
	k.stdin.Write([]byte{1})
	if line := k.line(); line != "alone" {
		t.Fatal(line)
	}
	s, p := newWaitSet[int](t, 0), k.open(PIDFD_THREAD)
	if err := s.Add(p, 1); err != nil {
		t.Fatal(err)
	}
	hasNoneEnded(t, s)
	// Linux 6.9 says this (fs/pidfs.c, pidfd_poll), and 6.12.117 does not.
	s.events.rest = []syscall.EpollEvent{{Events: syscall.EPOLLIN, Fd: int32(p.fd)}}
	k.stdin.Write([]byte{1})
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, k.pid, &info, unix.WSTOPPED|unix.WNOWAIT|unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	hasNoneEnded(t, s)
	if pid, err := syscall.Wait4(k.pid, &status, syscall.WALL|syscall.WNOHANG, nil); pid != k.pid || status.TrapCause() != syscall.PTRACE_EVENT_EXEC {
		t.Fatalf("the tracer sees %d, %#x, %v", pid, uint32(status), err)
	}
	if err := syscall.PtraceDetach(k.pid); err != nil {
		t.Fatal(err)
	}
	k.exit()
	key, r, err := s.Next(context.Background())
	isEnd(t, r, err, exitCode(9), true)
	if key != 1 {
		t.Errorf("key %d", key)
	}
}

// A member that cannot be waited for leaves the set with the error, and does not hide the next one.
func TestWaitSetError(t *testing.T) {
	keepsDescriptors(t)
	s := newWaitSet[int](t, 0)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close() // which is an event
	defer r.Close()
	withFD(r, func(fd int) {
		pipe := &PidFD{fd: fd}
		pipe.uses.Store(1)
		k := exiter(t, 1)
		for i, p := range []*PidFD{pipe, k.guard} {
			if err := s.Add(p, i); err != nil {
				t.Fatal(err)
			}
		}
		k.exit()
		k.guard.Wait(context.Background(), WaitNoReap)
		key, r, err := next(s)
		if key != 0 || r != (WaitResult{}) || err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%d, %+v, %v", key, r, err)
		}
		if n := pipe.uses.Load(); n != 1 || s.Remove(pipe) {
			t.Errorf("it is still a member: %d uses", n)
		}
		key, r, err = next(s)
		isEnd(t, r, err, exitCode(1), true)
		if key != 1 {
			t.Errorf("key %d", key)
		}
	})
}

func TestWaitSetContext(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 1)
	s := newWaitSet[string](t, 0)
	cause := errors.New("a reason")
	ctx, cancelCause := context.WithCancelCause(context.Background())
	first, second := startNext(s, ctx), startNext(s, context.Background())
	cancelCause(cause)
	_, _, err := first()
	matches(t, err, cause)
	_, _, err = s.Next(ctx)
	matches(t, err, cause)
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
		s := newWaitSet[string](t, 0)
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
		isRunning(t, p, 0)
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

// Close and one who was parked may both wait for the lock, and Close be the first to get it.
func TestWaitSetCloseBeforeAnother(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 1)
	s := newWaitSet[string](t, 0)
	if err := s.Add(k.guard, "k"); err != nil {
		t.Fatal(err)
	}
	result, closed := startNext(s, context.Background()), make(chan error)
	time.Sleep(5 * time.Millisecond) // long enough to have parked nearly always
	s.mu.Lock()
	go func() { closed <- s.Close() }()
	time.Sleep(5 * time.Millisecond) // and for Close to be the first in line
	k.exit()
	time.Sleep(5 * time.Millisecond)
	s.mu.Unlock()
	if _, _, err := result(); err != nil {
		matches(t, err, os.ErrClosed)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
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
	r, err = k.guard.Wait(context.Background(), 0)
	isEnd(t, r, err, exitCode(3), true)
}

func TestWaitSetNotAChild(t *testing.T) {
	needs(t, FeatureThread) // as old as POLLHUP of a pidfd
	reliesOn(t, pidfs)
	bothFlags(t, func(t *testing.T, flags int) {
		parent, pid := grandchild(t)
		p := openFlags(t, pid, flags)
		exited, reaped := newWaitSet[string](t, WaitExited), newWaitSet[string](t, 0)
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
		s := newWaitSet[string](t, 0)
		if err := s.Add(p, "p"); err != nil {
			t.Fatal(err)
		}
		result := startNext(s, context.Background())
		w := startWait(context.Background(), p, 0)
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
			go func() { check(p.Wait(ctx, 0)) }()
		}
		for _, p := range pidfds {
			awaitParked(p)
		}
	} else {
		s, err := NewWaitSet[int](0)
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

// A PidFD that its owner has closed stays open for as long as it is in a set, and no longer.
func TestWaitSetOutlivesOwner(t *testing.T) {
	keepsDescriptors(t)
	for name, leave := range map[string]func(s *WaitSet[string], p *PidFD, k *kid) bool{
		"Remove": func(s *WaitSet[string], p *PidFD, k *kid) bool { return s.Remove(p) },
		"Next": func(s *WaitSet[string], p *PidFD, k *kid) bool {
			k.exit()
			key, r, err := s.Next(t.Context())
			return key == "leaves" && r.Ended && err == nil
		},
		"Close": func(s *WaitSet[string], p *PidFD, k *kid) bool { return s.Close() == nil },
	} {
		for _, flags := range []int{0, PIDFD_NONBLOCK} {
			k := exiter(t, 0)
			s := newWaitSet[string](t, 0)
			before := descriptors(t)
			p := k.open(flags)
			if err := s.Add(p, "leaves"); err != nil {
				t.Fatal(err)
			}
			waited := make(chan error)
			go func() { _, err := p.Wait(t.Context(), WaitNoReap); waited <- err }()
			awaitParked(p)
			p.Close()
			matches(t, <-waited, os.ErrClosed)
			if !slices.Equal(membersOf(s), []string{"leaves"}) || len(descriptors(t)) <= len(before) {
				t.Errorf("%s: members %q, %q open", name, membersOf(s), descriptors(t))
			}
			if !leave(s, p, k) {
				t.Errorf("%s failed", name)
			}
			if after := descriptors(t); len(after) > len(before) {
				t.Errorf("%s: open before: %q\nopen after: %q", name, before, after)
			}
		}
	}
}

// The kernel lets 500 sets wait for one descriptor.
func TestWaitSetMost(t *testing.T) {
	keepsDescriptors(t)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 600 {
		lacks(t, "600 descriptors")
	}
	p := openPidFD(t, os.Getpid())
	for i := range 501 {
		s := newWaitSet[int](t, 0)
		switch err := s.Add(p, i); {
		case i < 500 && err != nil:
			t.Fatalf("set %d: %v", i, err)
		case i == 500:
			matches(t, err, syscall.EINVAL)
		}
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
