//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

const (
	goroutines = 64
	window     = 2 // children of each at a time
	remembered = 2 // of those that had a PID, so many of the last ones
)

// A soak is what the goroutines share.
type soak struct {
	program  string // of the children
	byPID    bool   // processes cannot be opened by their ID
	pidMax   int
	sabotage func(s *soak, pid int)
	saboteur int // the round
	kept     []byte

	names []sysfd.ProcessRef // of the child of each round; each is written once
	past  []past             // by PID

	live, most   atomic.Int64 // children now, and at a time
	done         atomic.Int64 // rounds
	tried        atomic.Int64 // how often a child of the past was, while another had its PID
	triedThreads atomic.Int64 // and while a thread had it

	mu    sync.Mutex
	third int // of the PIDs, where the last one was
	wraps int
	errs  []error

	set    *sysfd.WaitSet[chan<- sysfd.WaitResult] // what some of the children are waited for with
	ctx    context.Context                         // done after a failure
	cancel context.CancelFunc
}

// A child is a process and how it is to end.
type child struct {
	sysfd.ProcessRef
	pidfd *sysfd.PidFD
	again *sysfd.PidFD // opened anew; stays open when the child is in the past
	stdin *os.File
	end   syscall.WaitStatus
}

// past has the children that had a PID, the last one at the end. Who has the child that
// has the PID now is the only one to change it.
type past struct {
	sync.Mutex
	children []*child
}

func newSoak(program string, rounds, pidMax int) (*soak, error) {
	s := &soak{program: program, pidMax: pidMax, names: make([]sysfd.ProcessRef, rounds), past: make([]past, pidMax)}
	for i := range s.names {
		s.names[i].PID = -1 // so that the memory is there from the beginning
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.set, err = sysfd.NewWaitSet[chan<- sysfd.WaitResult](0); err != nil {
		return nil, err
	}
	go s.waitForSet()
	return s, nil
}

// run runs the rounds with these numbers. Nothing is left of them but what is counted.
func (s *soak) run(from, to int) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	next.Store(int64(from))
	for range goroutines {
		wg.Go(func() {
			s.fail(s.rounds(func() (int, bool) {
				round := int(next.Add(1) - 1)
				return round, round < to && s.ctx.Err() == nil
			}))
		})
	}
	wg.Wait()
	for i := range s.past {
		for _, c := range s.past[i].children {
			s.fail(c.again.Close())
		}
		s.past[i].children = nil
	}
	if s.errs == nil {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG|syscall.WALL, nil); err != syscall.ECHILD {
			s.fail(fmt.Errorf("a child is left (%d, %v)", pid, err))
		}
	}
	return errors.Join(s.errs...)
}

func (s *soak) fail(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	if !errors.Is(err, context.Canceled) { // it has the first one as its reason
		s.errs = append(s.errs, err)
	}
}

// waitForSet gives out the results of s.set.
func (s *soak) waitForSet() {
	for {
		result, r, err := s.set.Next(context.Background())
		if err != nil {
			s.fail(fmt.Errorf("wait for a set: %w", err))
			return
		}
		result <- r
	}
}

// rounds runs rounds, which overlap, as long as there is a next one.
func (s *soak) rounds(next func() (int, bool)) error {
	var children []*child
	finish := func() error {
		i := rand.IntN(len(children))
		c := children[i]
		children = append(children[:i], children[i+1:]...)
		if err := s.finish(c); err != nil {
			return fmt.Errorf("process %v, which was to be %v: %w", c, describe(c.end), err)
		}
		if n := s.done.Add(1); n%progressEvery == 0 {
			fmt.Println("rounds:", n)
		}
		if rand.IntN(8) == 0 {
			return s.thread()
		}
		return nil
	}
	for {
		round, ok := next()
		if !ok {
			break
		}
		c, err := s.start(round)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		children = append(children, c)
		if len(children) == window {
			if err := finish(); err != nil {
				return err
			}
		}
	}
	for len(children) > 0 {
		if err := finish(); err != nil {
			return err
		}
	}
	return nil
}

// start starts a child and does all that can be done while it lives.
func (s *soak) start(round int) (*child, error) {
	// Not os.Pipe: the child could not wait with a descriptor in non-blocking mode.
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	stdin := os.NewFile(uintptr(fds[0]), "stdin")
	defer stdin.Close()
	c := &child{stdin: os.NewFile(uintptr(fds[1]), "stdin of the child"), end: randomEnd()}
	pid, pidfd, err := s.fork(stdin)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	c.pidfd = pidfd
	s.count(pid)
	if err := s.identify(c, pid); err != nil {
		return nil, fmt.Errorf("process %d (%v): %w", pid, c, err)
	}
	s.names[round] = c.ProcessRef
	if s.sabotage != nil && round == s.saboteur {
		s.sabotage(s, pid)
	}
	if err := s.succeed(c); err != nil {
		return nil, fmt.Errorf("while process %v lives, of one that had its PID: %w", c, err)
	}
	return c, nil
}

// signals are some that end the child program. SIGHUP and SIGINT may be ignored.
var signals = []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGVTALRM, 40}

// randomEnd returns a status that a child can end with if it is told to.
func randomEnd() syscall.WaitStatus {
	if rand.IntN(2) == 0 {
		return syscall.WaitStatus(signals[rand.IntN(len(signals))])
	}
	return syscall.WaitStatus(rand.IntN(255) << 8)
}

func describe(status syscall.WaitStatus) sysfd.WaitResult {
	return sysfd.WaitResult{Ended: true, Status: status}
}

// fork starts a process, in the ways that there are to have its pidfd.
func (s *soak) fork(stdin *os.File) (int, *sysfd.PidFD, error) {
	argv := []string{"child"}
	if rand.IntN(2) == 0 {
		fd := -1
		attr := &os.ProcAttr{Files: []*os.File{stdin}, Sys: &syscall.SysProcAttr{PidFD: &fd}}
		p, err := os.StartProcess(s.program, argv, attr)
		if err != nil {
			return 0, nil, err
		}
		defer p.Release()
		pidfd, err := sysfd.TakePidFD(attr.Sys)
		return p.Pid, pidfd, err
	}
	fd := -1
	attr := &syscall.ProcAttr{Files: []uintptr{stdin.Fd()}, Sys: &syscall.SysProcAttr{PidFD: &fd}}
	pid, err := syscall.ForkExec(s.program, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	pidfd, err := sysfd.TakePidFD(attr.Sys)
	return pid, pidfd, err
}

// The kernel starts over here when the PIDs have gone round (RESERVED_PIDS in kernel/pid.c).
const lowestPID = 300

// count counts a child that was started. The PIDs come in order but for what goroutines get
// mixed up; once round is when they went through all thirds.
func (s *soak) count(pid int) {
	live := s.live.Add(1)
	for most := s.most.Load(); live > most && !s.most.CompareAndSwap(most, live); {
		most = s.most.Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	third := max(pid-lowestPID, 0) * 3 / (s.pidMax - lowestPID)
	if third == (s.third+1)%3 {
		s.third = third
		if third == 0 {
			s.wraps++
		}
	}
}

// identify finds out the names of a child, and opens it by them.
func (s *soak) identify(c *child, pid int) (err error) {
	if c.ProcessRef, err = c.pidfd.Ref(); err != nil {
		return err
	}
	if c.PID != pid || c.ID == 0 {
		return fmt.Errorf("it is called %v", c)
	}
	if c.again, err = s.open(c.ProcessRef); err != nil {
		return err
	}
	if err := c.is(c.again); err != nil {
		return err
	}
	ref, err := copyOf(c.ProcessRef)
	if err != nil {
		return err
	}
	p, err := ref.Open()
	if err != nil {
		return err
	}
	return errors.Join(c.is(p), p.Close())
}

// open opens a process by its ID, if that can be.
func (s *soak) open(ref sysfd.ProcessRef) (*sysfd.PidFD, error) {
	if s.byPID {
		return ref.Open()
	}
	return sysfd.OpenPidFDByID(ref.ID)
}

// copyOf returns a name as it comes back from where it was stored.
func copyOf(ref sysfd.ProcessRef) (stored sysfd.ProcessRef, err error) {
	var text []byte
	switch rand.IntN(3) {
	case 0:
		if text, err = ref.MarshalText(); err == nil {
			err = stored.UnmarshalText(text)
		}
	case 1:
		if text, err = json.Marshal(ref); err == nil {
			err = json.Unmarshal(text, &stored)
		}
	default:
		stored = ref
	}
	if err == nil && stored != ref {
		err = fmt.Errorf("%v came back from %q as %v", ref, text, stored)
	}
	return stored, err
}

// is makes sure that a pidfd is one of a living child.
func (c *child) is(p *sysfd.PidFD) error {
	if got, err := p.Ref(); err != nil || got != c.ProcessRef {
		return fmt.Errorf("%v is %v (%v)", p, got, err)
	}
	return nil
}

// succeed tries to reach the children that had the PID of c, and then counts c among them.
func (s *soak) succeed(c *child) error {
	past := &s.past[c.PID]
	past.Lock()
	defer past.Unlock()
	if err := s.tryAll(past.children, &s.tried); err != nil {
		return err
	}
	past.children = append(past.children, c)
	if len(past.children) > remembered {
		oldest := past.children[0]
		past.children = append(past.children[:0], past.children[1:]...)
		return oldest.again.Close()
	}
	return nil
}

// thread tries to reach the children that had the PID which one of the threads of this process
// has now. It ends that thread, so that its PID becomes free and another thread takes one.
func (s *soak) thread() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		tid := unix.Gettid()
		past := &s.past[tid]
		past.Lock()
		defer past.Unlock()
		if err := s.tryAll(past.children, &s.triedThreads); err != nil {
			result <- fmt.Errorf("while thread %d lives, of one that had its PID: %w", tid, err)
		}
		close(result)
	}()
	return <-result
}

// tryAll makes sure that children of the past are out of reach.
func (s *soak) tryAll(children []*child, tried *atomic.Int64) error {
	for _, c := range children {
		if err := s.gone(c, c.again); err != nil {
			return fmt.Errorf("process %v: %w", c, err)
		}
		tried.Add(1)
	}
	return nil
}

// gone makes sure that a child that was reaped is out of reach, whoever has its PID now: by
// its names and by the pidfd p, which still tells how it ended.
func (s *soak) gone(c *child, p *sysfd.PidFD) error {
	for _, sig := range []syscall.Signal{0, syscall.SIGKILL} {
		if err := p.SendSignal(sig); !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal %d by the pidfd: %v", sig, err)
		}
	}
	if pid, err := p.PID(); !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("the PID by the pidfd: %d, %v", pid, err)
	}
	if id, err := p.ID(); err != nil || id != c.ID {
		return fmt.Errorf("the ID by the pidfd: %v, %v", id, err)
	}
	if r, err := p.TryWait(0); err != nil || r.Reaped || !isEnd(r, c.end) {
		return fmt.Errorf("the status by the pidfd: %+v, %v", r, err)
	}
	ref, err := copyOf(c.ProcessRef)
	if err != nil {
		return err
	}
	if p, err := ref.Open(); !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("opened by its ProcessRef: %v, %v", p, err)
	}
	switch p, err := sysfd.OpenPidFDByID(c.ID); {
	case s.byPID && errors.Is(err, syscall.EPERM):
	case !errors.Is(err, syscall.ESTALE): // proof in the initial pid namespace alone
		return fmt.Errorf("opened by its ID: %v, %v", p, err)
	}
	return nil
}

// isEnd tells whether a process has ended as it was to. Before Linux 6.15 the kernel tells
// that to who has reaped it, and no one else.
func isEnd(r sysfd.WaitResult, want syscall.WaitStatus) bool {
	if r.Unknown != nil {
		return r.Ended && !r.Reaped && errors.Is(r.Unknown, errors.ErrUnsupported)
	}
	return r.Ended && r.Status == want
}

// finish ends a child and waits for it.
func (s *soak) finish(c *child) error {
	if rand.IntN(8) == 0 {
		ctx, cancel := context.WithTimeout(s.ctx, time.Duration(rand.IntN(200))*time.Microsecond)
		r, err := c.pidfd.Wait(ctx, 0)
		cancel()
		switch {
		case s.ctx.Err() != nil:
			return s.ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("wait with a timeout: %v, %v", r, err)
		}
	}
	if err := c.is(c.pidfd); err != nil {
		return err
	}
	if err := s.tell(c); err != nil {
		return err
	}
	s.live.Add(-1)
	r, err := s.wait(c)
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	if !r.Reaped || !isEnd(r, c.end) {
		return fmt.Errorf("it is %v: %+v", r, r)
	}
	// c.again is for who has the PID next.
	if err := s.gone(c, c.pidfd); err != nil {
		return err
	}
	if p, err := sysfd.OpenPidFD(c.PID, 0); err == nil { // there may be another process by now
		id, err := p.ID()
		if err != nil || id == c.ID {
			return fmt.Errorf("another process, by the same PID, has ID %v, %v", id, err)
		}
		if err := p.Close(); err != nil {
			return err
		}
	}
	return errors.Join(c.pidfd.Close(), c.stdin.Close())
}

// tell lets a child end, or sends it a signal by one of its pidfds.
func (s *soak) tell(c *child) error {
	if c.end.Exited() {
		_, err := c.stdin.Write([]byte{byte(c.end.ExitStatus())})
		if errors.Is(err, syscall.EPIPE) {
			return nil // it has ended already, and to wait for it tells how
		}
		return err
	}
	sig := c.end.Signal()
	switch rand.IntN(4) {
	case 0:
		return c.pidfd.SendSignal(sig)
	case 1:
		return c.pidfd.QueueSignal(sig, 1)
	case 2:
		return c.again.SendSignal(sig)
	}
	p, err := s.open(c.ProcessRef)
	if err != nil {
		return err
	}
	return errors.Join(p.SendSignal(sig), p.Close())
}

// wait waits for a child that will end, in one of the ways that there are.
func (s *soak) wait(c *child) (r sysfd.WaitResult, err error) {
	switch rand.IntN(4) {
	case 0:
		result := make(chan sysfd.WaitResult, 1)
		if err := s.set.Add(c.pidfd, result); err != nil {
			return r, err
		}
		select {
		case r = <-result:
			return r, nil
		case <-s.ctx.Done():
			return r, context.Cause(s.ctx)
		}
	case 1:
		if r, err = c.pidfd.Wait(s.ctx, sysfd.WaitNoReap); err != nil || r.Reaped || !isEnd(r, c.end) {
			return r, err
		}
		// It is a zombie, with its names.
		if p, err := s.open(c.ProcessRef); err != nil {
			return r, err
		} else if err := errors.Join(c.is(p), p.Close()); err != nil {
			return r, err
		}
	}
	return c.pidfd.Wait(s.ctx, 0)
}
