//go:build linux

// Supervisor keeps programs running: it starts them, and starts those that have ended again.
//
//	supervisor [-state FILE] [-backoff MIN,MAX] [-grace TIME] CONFIG
//
// CONFIG is JSON, a list of programs. They must stay in the foreground:
//
//	[{"name": "web", "command": ["httpd", "-f"], "dir": "/srv/www", "notify": true}]
//
// The programs are started in the order of the list. A program with "notify" reports by
// $NOTIFY_SOCKET when it is ready (READY=1, as for systemd), and programs behind it that do not run
// yet wait for that. Any program can report its status there (STATUS=…). Messages from other
// processes, such as children of a program, are ignored.
//
// The supervisor prints a line for each event, where REF is the text of a ProcessRef:
//
//	started NAME REF
//	ready NAME REF           the program has reported READY=1
//	status NAME REF: "TEXT"  the program has reported STATUS=TEXT
//	ended NAME REF: HOW
//	restarting NAME in TIME
//	adopted NAME REF         an earlier supervisor has started it
//	stopping NAME REF
//
// A program is started again after MIN, then after twice as long each time, up to MAX; once it has
// run for MAX, after MIN again. SIGTERM and SIGINT end the supervisor. It stops the programs with
// SIGTERM, and those that are left after the grace time, or at a second signal, with SIGKILL. If it
// ends in another way, even by SIGKILL, the programs continue, and the next supervisor adopts them.
// It learns how they end although they are not its children, since Linux 6.15; before that the
// status is unknown. It stops programs that are no longer in CONFIG, and uses a new command when
// the program is started again. The socket for notifications (CONFIG.state.notify) has the same
// path for the next supervisor. Adopted programs count as ready.
//
// The supervisor reports to its own service manager when all programs run and are ready, and how
// many do.
//
// # No program twice, none lost
//
// The state file (CONFIG.state) has a ProcessRef for each program that runs. It names that process
// and no other one, even if the PID is reused or the machine is rebooted. So whenever a supervisor
// is killed, the file on disk must name each program that runs or is about to:
//
//   - A child is at first a shim, this program itself, which waits for a byte from a pipe. The
//     supervisor stores the ref of the child, and then writes the byte: only now the shim executes
//     the program, as the same process, with the same ID.
//   - A supervisor that is killed before it wrote the byte leaves a pipe without a writer. The shim
//     reads its end and exits (status 125). No other supervisor can release it: only the one that
//     made the pipe has its other end. So a shim that is not in the file never becomes a program.
//   - A supervisor that is killed after that leaves the byte in the pipe, and the shim executes the
//     program. Its ref is in the file.
//   - So a ref in the file names a process that has ended, the program, or a shim that will either
//     become the program or exit. The next supervisor need not know which: it adopts a process that
//     it can open, and starts the program again when that has ended. If there is none to open, it
//     starts the program at once.
//   - If the file cannot be written, the pipes are closed, the shims exit, and the old file still
//     names all others.
//   - Two supervisors cannot use one file: each locks FILE.lock. The lock is one of fcntl(2),
//     because a child does not inherit it. One of flock(2) would be inherited until the child
//     executes the shim: a supervisor killed at that moment could not be started again.
//
// The file is valid in the pid namespace in which it was written. In another one the processes may
// be out of sight, and a supervisor that cannot know does not start: remove the file if the
// processes have ended.
//
// If the kernel has no pidfd IDs (before Linux 6.9, for 32-bit programs before 6.14), a REF is the
// second best, a PID and a start time, and the supervisor says so. A program that has ended while
// no supervisor ran can then be mistaken for another process with the same PID that started within
// the same 10 ms. That requires that all free PIDs were used in that time.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

// What a shim is called as, and what it exits with.
const (
	shim        = "supervisor-shim"
	notReleased = 125
	notExecuted = 127
)

// at is called at points where it would be bad to be killed. It is for the tests.
var at = func(point string) {}

// These are variables for the tests, which have no kernel old enough.
var (
	selfRef = sysfd.SelfRefOrSecondBest
	refOf   = (*sysfd.PidFD).RefOrSecondBest
)

type supervisor struct {
	state          string // the name of the file
	min, max       time.Duration
	grace          time.Duration
	stdout, stderr io.Writer
	null           *os.File
	set            *sysfd.WaitSet[*program] // those that run
	listener       *sysfd.NotifyListener    // where programs report; nil if there is no socket
	message        *sysfd.Notification      // what has come there
	manager        *sysfd.Notifier          // the service manager of the supervisor
	told           string                   // the status last reported to it
	programs       []*program
	stopping       bool
}

type program struct {
	Name    string   `json:"name"`
	Command []string `json:"command"`
	Dir     string   `json:"dir"`
	Notify  bool     `json:"notify"`

	p        *sysfd.PidFD // nil while it does not run
	ref      sysfd.ProcessRef
	ready    bool
	release  *os.File      // the pipe to a shim
	since    time.Time     // when it was started or adopted
	pause    time.Duration // before the last start
	due      time.Time     // when to start it, or to kill it if it is being stopped; zero = not at all
	stopping bool
}

func main() {
	if os.Args[0] == shim {
		os.Exit(runShim(os.Args[1:]))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// runShim returns if it did not execute the program.
func runShim(command []string) int {
	release := os.NewFile(3, "release")
	syscall.CloseOnExec(3)
	if n, _ := release.Read(make([]byte, 1)); n == 0 {
		return notReleased
	}
	path, err := exec.LookPath(command[0])
	if err == nil {
		err = &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, command, os.Environ())}
	}
	fmt.Fprintln(os.Stderr, "supervisor:", err)
	return notExecuted
}

// run returns the exit status: 0, 1 after a failure, 2 after bad usage.
func run(args []string, stdout, stderr io.Writer) int {
	s := &supervisor{min: 100 * time.Millisecond, max: time.Minute, stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("supervisor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: supervisor [-state FILE] [-backoff MIN,MAX] [-grace TIME] CONFIG")
		flags.PrintDefaults()
	}
	flags.StringVar(&s.state, "state", "", "the `file` that keeps what runs (default CONFIG.state)")
	flags.Func("backoff", "the shortest and the longest pause before a restart (default 100ms,1m)", s.setBackoff)
	flags.DurationVar(&s.grace, "grace", 10*time.Second, "the `time` from SIGTERM to SIGKILL")
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return 2
	}
	if err := s.run(flags.Arg(0)); err != nil {
		fmt.Fprintln(stderr, "supervisor:", err)
		return 1
	}
	return 0
}

func (s *supervisor) setBackoff(text string) (err error) {
	low, high, _ := strings.Cut(text, ",")
	if s.min, err = time.ParseDuration(low); err != nil {
		return err
	}
	if s.max, err = time.ParseDuration(high); err != nil {
		return err
	}
	if s.min <= 0 || s.max < s.min {
		return errors.New("not two times of which the second is the longer one")
	}
	return nil
}

func (s *supervisor) run(config string) error {
	self, err := selfRef()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("processes have no names that could be stored, is /proc mounted? %w", err)
	case err != nil:
		return err
	case self.BootID == sysfd.BootID{}:
		return errors.New("the boot ID is not known, without which IDs are not good after a reboot: is /proc mounted?")
	case self.ID == 0:
		s.complain(errors.New("this kernel has no IDs for processes, which are told apart by their start times instead"))
	}
	if s.programs, err = readConfig(config); err != nil {
		return err
	}
	s.state = cmp.Or(s.state, config+".state")
	lock, err := lockFile(s.state + ".lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	if s.manager, err = sysfd.TakeNotifier(); err != nil {
		s.complain(err)
	}
	s.listen()
	if s.listener != nil {
		defer s.listener.Close()
	}
	if s.null, err = os.Open(os.DevNull); err != nil {
		return err
	}
	defer s.null.Close()
	// What is adopted may have a parent that never reaps, such as a process 1 that was not made
	// for it.
	if s.set, err = sysfd.NewWaitSet[*program](sysfd.WaitExited); err != nil {
		return err
	}
	defer s.set.Close()
	signals, stop := notifySignals()
	defer func() { stop() }()
	if err := s.adopt(); err != nil {
		return err
	}
	at("adopted")
	for len(s.programs) > 0 {
		if signals.Err() != nil {
			stopOld := stop
			signals, stop = notifySignals() // before the old one goes
			stopOld()
			s.stopAll()
			continue
		}
		s.doDue()
		s.tell()
		if err := s.wait(signals); err != nil {
			return err
		}
	}
	return s.save()
}

// listen makes the socket for notifications. A socket that an earlier supervisor left is unused,
// because its state is locked here.
func (s *supervisor) listen() {
	path, err := filepath.Abs(s.state + ".notify")
	if err == nil {
		os.Remove(path)
		s.listener, err = sysfd.ListenNotify(path, 0o600)
	}
	if err != nil {
		s.complain(fmt.Errorf("no program can tell that it is ready: %w", err))
	}
}

// environ is that of the programs.
func (s *supervisor) environ() []string {
	var to sysfd.Notifier
	if s.listener != nil {
		to.Address = s.listener.Address()
	}
	return to.Environ(os.Environ())
}

// tell reports to the service manager how many programs are well, if that has changed. It does not
// wait for a manager whose queue is full, but tries again with the next event.
func (s *supervisor) tell() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	well := 0
	for _, g := range s.programs {
		if g.p != nil && !s.awaits(g) {
			well++
		}
	}
	status := fmt.Sprintf("%d of %d programs are well", well, len(s.programs))
	assignments := []string{sysfd.NotifyStatus(status)}
	switch {
	case s.stopping:
		assignments = append(assignments, sysfd.NotifyStopping)
	case well == len(s.programs):
		assignments = append(assignments, sysfd.NotifyReady)
	}
	if strings.Join(assignments, " ") == s.told {
		return
	}
	if _, err := s.manager.Notify(now, assignments...); err != nil {
		s.complain(err)
		return
	}
	s.told = strings.Join(assignments, " ")
}

// awaits reports whether a program has not yet reported that it is ready.
func (s *supervisor) awaits(g *program) bool {
	return g.Notify && !g.ready && !g.stopping && s.listener != nil
}

// notified heeds a message that a program itself has sent.
func (s *supervisor) notified(m *sysfd.Notification) {
	defer m.Close() // with it the barrier at which its sender waits
	for _, g := range s.programs {
		if g.p == nil {
			continue
		}
		from, err := m.IsFrom(g.p)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			s.complain(fmt.Errorf("%s: %w", g.Name, err))
		}
		if !from {
			continue
		}
		if status, ok := m.Value("STATUS"); ok {
			s.say("status", g.Name, g.ref.String()+":", strconv.Quote(status))
		}
		if m.Has(sysfd.NotifyReady) && !g.ready {
			g.ready = true
			s.say("ready", g.Name, g.ref)
		}
		return
	}
}

func notifySignals() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
}

func readConfig(file string) (programs []*program, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&programs); err != nil {
		return nil, fmt.Errorf("%s is not a list of programs: %w", file, err)
	}
	if len(programs) == 0 {
		return nil, fmt.Errorf("%s has no programs", file)
	}
	names := map[string]bool{}
	for _, g := range programs {
		switch {
		case g == nil || g.Name == "" || strings.ContainsFunc(g.Name, func(c rune) bool { return c <= ' ' }):
			return nil, fmt.Errorf("%s: a program needs a name without spaces", file)
		case len(g.Command) == 0:
			return nil, fmt.Errorf("%s: %s has no command", file, g.Name)
		case names[g.Name]:
			return nil, fmt.Errorf("%s: %s is there twice", file, g.Name)
		}
		names[g.Name] = true
	}
	return programs, nil
}

// lockFile locks a file that stays when the state file is replaced.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK})
	if err != nil {
		f.Close()
		if err == syscall.EAGAIN || err == syscall.EACCES {
			return nil, fmt.Errorf("%s is locked by another supervisor", name)
		}
		return nil, &os.PathError{Op: "lock", Path: name, Err: err}
	}
	return f, nil
}

func (s *supervisor) say(words ...any) { fmt.Fprintln(s.stdout, words...) }

func (s *supervisor) complain(err error) { fmt.Fprintln(s.stderr, "supervisor:", err) }

// adopt adopts what runs. An error other than that a process is gone must not pass for that.
func (s *supervisor) adopt() error {
	refs := map[string]sysfd.ProcessRef{}
	text, err := os.ReadFile(s.state)
	if err == nil {
		err = json.Unmarshal(text, &refs)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("state file %s: %w", s.state, err)
	}
	for _, g := range s.programs {
		g.due = time.Now()
	}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		p, err := refs[name].OpenOrSecondBest()
		if errors.Is(err, os.ErrProcessDone) {
			s.say("ended", name, refs[name].String()+": status unknown:", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		i := slices.IndexFunc(s.programs, func(g *program) bool { return g.Name == name })
		wanted := i >= 0
		if !wanted {
			i = len(s.programs)
			s.programs = append(s.programs, &program{Name: name})
		}
		g := s.programs[i]
		if err := s.set.Add(p, g); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		g.p, g.ref, g.since, g.due, g.ready = p, refs[name], time.Now(), time.Time{}, true
		s.say("adopted", name, g.ref)
		if !wanted {
			s.stop(g)
		}
	}
	return nil
}

// queue returns the programs but for those that wait until others are ready before they are
// started.
func (s *supervisor) queue() iter.Seq[*program] {
	return func(yield func(*program) bool) {
		held := false
		for _, g := range s.programs {
			if (g.p != nil || !held) && !yield(g) {
				return
			}
			held = held || s.awaits(g)
		}
	}
}

// doDue kills and starts what is due. Those it starts share one write of the state.
func (s *supervisor) doDue() {
	var shims []*program
	for g := range s.queue() {
		if g.due.IsZero() || time.Now().Before(g.due) {
			continue
		}
		g.due = time.Time{}
		if g.p != nil {
			s.signal(g, syscall.SIGKILL)
		} else if err := s.startShim(g); err != nil {
			s.complain(fmt.Errorf("%s: %w", g.Name, err))
			s.restart(g, 0)
		} else {
			shims = append(shims, g)
			at("started")
		}
	}
	if len(shims) == 0 {
		return
	}
	err := s.save()
	at("stored")
	if err != nil {
		s.complain(fmt.Errorf("nothing can be started: %w", err))
	}
	for _, g := range shims {
		if err == nil {
			// If that fails, the shim has ended, which is found out in any case.
			g.release.Write([]byte{1})
			at("released")
			s.say("started", g.Name, g.ref)
		}
		g.release.Close()
	}
}

// startShim starts what becomes the program when it is released. It has a session of its own, so
// the terminal sends it no signals. A process group of its own would not do: the death of the
// supervisor can orphan that, and if the program is stopped (SIGSTOP) just then, the kernel sends
// it SIGHUP (kernel/exit.c, kill_orphaned_pgrp).
func (s *supervisor) startShim(g *program) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	pidfd := -1
	attr := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	child, err := os.StartProcess("/proc/self/exe", append([]string{shim}, g.Command...), &os.ProcAttr{
		Dir: g.Dir, Env: s.environ(), Files: []*os.File{s.null, os.Stdout, os.Stderr, r}, Sys: attr,
	})
	if err != nil {
		w.Close()
		return err
	}
	p, err := sysfd.TakePidFD(attr)
	if err == nil {
		if g.ref, err = refOf(p); err == nil {
			err = s.set.Add(p, g)
		}
		if err != nil {
			p.Close()
		}
	}
	if err != nil {
		w.Close()
		child.Wait()
		return err
	}
	child.Release() // the set waits for it
	g.p, g.release, g.since, g.ready = p, w, time.Now(), false
	return nil
}

// save replaces the state file as a whole. It is synced: after a crash of the machine the refs name
// nothing, but a file that is not a state would keep the supervisor from starting.
func (s *supervisor) save() error {
	refs := map[string]sysfd.ProcessRef{}
	for _, g := range s.programs {
		if g.p != nil {
			refs[g.Name] = g.ref
		}
	}
	text, err := json.MarshalIndent(refs, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.state+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := cmp.Or(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	at("written")
	return os.Rename(f.Name(), s.state)
}

// wait waits until a program ends or reports, something is due, or a signal arrives.
func (s *supervisor) wait(signals context.Context) error {
	ctx, cancel := context.WithCancel(signals)
	defer cancel()
	if due := s.nextDue(); !due.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, due)
		defer cancel()
	}
	told := make(chan bool)
	go func() {
		defer close(told)
		if s.listener == nil {
			return
		}
		defer cancel()
		switch m, err := s.listener.Next(ctx); {
		case err == nil:
			s.message = m
		case ctx.Err() == nil:
			s.complain(err)
			s.listener.Close()
			s.listener = nil
		}
	}()
	g, r, err := s.set.Next(ctx)
	cancel()
	<-told
	if s.message != nil {
		s.notified(s.message)
		s.message = nil
	}
	// Its reports come before its end. Other programs can report without end: the limit is
	// beyond the usual length of a queue (net.unix.max_dgram_qlen).
	for i := 0; i < 512 && g != nil && s.listener != nil; i++ {
		m, err := s.listener.Next(ctx)
		if err != nil {
			break
		}
		s.notified(m)
	}
	switch {
	case g != nil && err == nil:
		s.ended(g, soon(g.p, r))
		return nil
	case g == nil && ctx.Err() != nil:
		return nil
	}
	return err
}

// soon waits a moment for the status of a zombie, which its parent may be about to reap.
func soon(p *sysfd.PidFD, r sysfd.WaitResult) sysfd.WaitResult {
	if !errors.Is(r.Unknown, syscall.EAGAIN) {
		return r
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if told, err := p.Wait(ctx, 0); err == nil {
		return told
	}
	return r
}

func (s *supervisor) nextDue() (next time.Time) {
	for g := range s.queue() {
		if !g.due.IsZero() && (next.IsZero() || g.due.Before(next)) {
			next = g.due
		}
	}
	return next
}

func (s *supervisor) ended(g *program, r sysfd.WaitResult) {
	s.say("ended", g.Name, g.ref.String()+":", r)
	g.p.Close()
	g.p = nil
	if g.stopping {
		s.programs = slices.DeleteFunc(s.programs, func(h *program) bool { return h == g })
		return
	}
	s.restart(g, time.Since(g.since))
}

// restart has a program started that has run for some time.
func (s *supervisor) restart(g *program, ran time.Duration) {
	g.pause = s.backoff(g.pause, ran)
	g.due = time.Now().Add(g.pause)
	s.say("restarting", g.Name, "in", g.pause)
}

// backoff returns the pause after a run; last is the one before it.
func (s *supervisor) backoff(last, ran time.Duration) time.Duration {
	if ran >= s.max {
		return s.min
	}
	return min(max(2*last, s.min), s.max)
}

// stopAll is for a signal. The second one kills what is left.
func (s *supervisor) stopAll() {
	s.programs = slices.DeleteFunc(s.programs, func(g *program) bool { return g.p == nil })
	for _, g := range s.programs {
		if !g.stopping {
			s.stop(g)
		} else if s.stopping {
			g.due = time.Now()
		}
	}
	s.stopping = true
}

func (s *supervisor) stop(g *program) {
	s.say("stopping", g.Name, g.ref)
	s.signal(g, syscall.SIGTERM)
	g.stopping, g.due = true, time.Now().Add(s.grace)
}

func (s *supervisor) signal(g *program, sig syscall.Signal) {
	if err := g.p.SendSignal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.complain(fmt.Errorf("%s: %w", g.Name, err))
	}
}
