//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/overdue"
)

// The test binary is also the supervisor, its shims, the programs it runs, and the process that
// stands in for init.
func TestMain(m *testing.M) {
	selfRef, refOf = testSelfRef, testRefOf
	switch {
	case os.Args[0] == shim:
		main()
	case os.Args[0] == "supervisor":
		crashAt(os.Getenv("CRASH"))
		main()
	case os.Args[0] == "init":
		runInit()
	case len(os.Args) > 1 && os.Args[1] == "program":
		runProgram(os.Args[2:])
	default:
		overdue.Report()
		os.Exit(m.Run())
	}
}

// With this variable all is as on a kernel without pidfd IDs.
const secondBestVar = "SUPERVISOR_SECOND_BEST"

func testSelfRef() (sysfd.ProcessRef, error) {
	if os.Getenv(secondBestVar) == "" {
		return sysfd.SelfRefOrSecondBest()
	}
	return secondBest(os.Getpid())
}

func testRefOf(p *sysfd.PidFD) (sysfd.ProcessRef, error) {
	if os.Getenv(secondBestVar) == "" {
		return p.RefOrSecondBest()
	}
	pid, err := p.PID()
	if err != nil {
		return sysfd.ProcessRef{}, err
	}
	return secondBest(pid)
}

// secondBest is what RefOrSecondBest returns there.
func secondBest(pid int) (r sysfd.ProcessRef, err error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return r, err
	}
	r.PID = pid
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if r.StartTime, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return r, err
	}
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return r, err
	}
	if _, err := fmt.Sscanf(link, "pid:[%d]", &r.PIDNamespace); err != nil {
		return r, err
	}
	r.BootID, err = sysfd.ThisBootID()
	return r, err
}

// crashAt has the supervisor kill itself when it comes to a point for the nth time: "stored:1".
// With "frozen" behind it the shims are stopped before that.
func crashAt(text string) {
	words := strings.Split(text, ":")
	count := 0
	at = func(point string) {
		if point != words[0] {
			return
		}
		if count++; strconv.Itoa(count) != words[1] {
			return
		}
		if len(words) == 3 {
			for _, name := range os.Args[1:] {
				for _, ref := range readState(name + ".state") {
					if p, err := ref.OpenOrSecondBest(); err == nil {
						p.SendSignal(syscall.SIGSTOP)
					}
				}
			}
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func readState(file string) map[string]sysfd.ProcessRef {
	refs := map[string]sysfd.ProcessRef{}
	if text, err := os.ReadFile(file); err == nil {
		json.Unmarshal(text, &refs)
	}
	return refs
}

// runProgram is a program: NAME DIR MODE. It prints "runs NAME REF" and, behind it, "stays" if it
// is one that does not end by itself. Modes:
//
//	stay        ends by a signal; SIGUSR1 has it exit with 7
//	stubborn    the same, but SIGTERM is ignored
//	flap        exits after up to 40 ms, or stays once DIR/calm exists
//	7           exits with 7
//	notify      the same as stay, and tells by steps that it is ready, once DIR/NAME.go exists
//	last        tells a status, and exits with 7
func runProgram(args []string) {
	name, dir, mode := args[0], args[1], args[2]
	self, err := selfRef()
	if err != nil {
		fmt.Println("WRONG", name, err)
	}
	// The lock of a running copy. It is gone before the supervisor can know of the end.
	f, err := os.OpenFile(filepath.Join(dir, name+".copy"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		fmt.Println("WRONG", name, self, "runs TWICE:", err)
	}
	if sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0); int(sid) != os.Getpid() {
		fmt.Println("WRONG", name, self, "is in session", sid)
	}
	for fd := 3; fd < 30; fd++ {
		file, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if strings.HasPrefix(file, "pipe:") || strings.HasSuffix(file, ".lock") {
			fmt.Println("WRONG", name, self, "has inherited", fd, file)
		}
	}
	if mode == "flap" {
		if _, err := os.Stat(filepath.Join(dir, "calm")); err != nil {
			fmt.Println("runs", name, self)
			time.Sleep(rand.N(40 * time.Millisecond))
			os.Exit(rand.IntN(2) * 7)
		}
	}
	if mode == "7" {
		fmt.Println("runs", name, self)
		os.Exit(7)
	}
	if mode == "last" {
		if _, err := sysfd.Notify(context.Background(), sysfd.NotifyStatus("the last")); err != nil {
			fmt.Println("WRONG", name, err)
		}
		os.Exit(7)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGUSR1)
	if mode == "notify" {
		go beReady(name, dir)
	}
	if mode == "stubborn" {
		signal.Ignore(syscall.SIGTERM)
	}
	fmt.Println("runs", name, self, "stays")
	<-end
	runtime.KeepAlive(f) // the collector would close it
	os.Exit(7)
}

func beReady(name, dir string) {
	n, err := sysfd.TakeNotifier()
	if err == nil {
		_, err = n.Notify(context.Background(), sysfd.NotifyStatus("wait\x1b for it"))
	}
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, name+".go")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err == nil {
		// A child speaks for itself alone.
		cmd := exec.Command("/proc/self/exe", "program", name, dir, "last")
		cmd.Env = n.Environ(os.Environ())
		cmd.Run()
		_, err = n.Notify(context.Background(), sysfd.NotifyReady, sysfd.NotifyStatus("up"))
	}
	if err == nil {
		_, err = n.NotifyBarrier(context.Background())
	}
	fmt.Println("told", name, err)
}

// An order is what a test has its init do.
type order struct {
	Start  []string       // the arguments of a supervisor
	Crash  string         // where that kills itself
	Signal syscall.Signal // what to send it
}

// runInit stands in for init: orphans become its children, and it reaps them. It prints "init:
// ended" and how when the supervisor has ended, and "init: alone" when no children are left.
func runInit() {
	const setChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		panic(errno)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // the test may be gone
	var mu sync.Mutex
	supervisor := 0
	var p *sysfd.PidFD
	born := make(chan bool, 1)
	alone := make(chan bool)
	go func() {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, 0, nil)
			if err == syscall.ECHILD {
				fmt.Println("init: alone")
				select {
				case <-born:
				case alone <- true:
					return
				}
				continue
			}
			mu.Lock()
			if pid == supervisor && err == nil {
				supervisor = 0
				if status.Signaled() {
					fmt.Println("init: ended:", status.Signal())
				} else {
					fmt.Println("init: ended: status", status.ExitStatus())
				}
			}
			mu.Unlock()
		}
	}()
	orders := json.NewDecoder(os.Stdin)
	for {
		var o order
		if orders.Decode(&o) != nil {
			break
		}
		if o.Start == nil {
			p.SendSignal(o.Signal)
			continue
		}
		pidfd := -1
		// In another session than its parent to be, as programs commonly are.
		attr := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
		mu.Lock()
		child, err := os.StartProcess("/proc/self/exe", append([]string{"supervisor"}, o.Start...), &os.ProcAttr{
			Env: append(os.Environ(), "CRASH="+o.Crash), Files: []*os.File{nil, os.Stdout, os.Stderr}, Sys: attr,
		})
		if err == nil {
			supervisor = child.Pid
			child.Release()
			p.Close()
			p, err = sysfd.TakePidFD(attr)
		}
		mu.Unlock()
		if err != nil {
			panic(err)
		}
		select {
		case born <- true:
		default:
		}
	}
	// The test is over. Kill the children until there are none.
	for {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			pid, _ := strconv.Atoi(e.Name())
			if p, err := sysfd.OpenPidFD(pid, 0); err == nil {
				var stat []byte
				err := p.Verify(func() (err error) {
					stat, err = os.ReadFile("/proc/" + e.Name() + "/stat")
					return err
				})
				rest := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
				if err == nil && rest[1] == strconv.Itoa(os.Getpid()) {
					p.SendSignal(syscall.SIGKILL)
				}
				p.Close()
			}
		}
		select {
		case <-alone:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A scene is a supervisor, its programs and their init.
type scene struct {
	*testing.T
	dir, config, state string
	orders             *json.Encoder
	out                chan string         // what all of them print, line by line
	seen               []string            // what was taken from there
	runs               map[string][]string // what the programs said: "REF" or "REF stays"
	started            map[string][]string // what the supervisors said: "REF"
	held               map[string]string   // what the supervisor of now has last said to run
}

// newScene makes a scene of programs: NAME MODE.
func newScene(t *testing.T, programs ...string) *scene {
	t.Helper()
	if _, err := selfRef(); errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("this kernel cannot do it: %v", err)
	}
	dir := t.TempDir()
	s := &scene{
		T: t, dir: dir, config: filepath.Join(dir, "config"), state: filepath.Join(dir, "config.state"),
		out: make(chan string, 1<<16), runs: map[string][]string{}, started: map[string][]string{},
	}
	s.configure(programs...)
	r, w, err := os.Pipe()
	s.must(err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = "init"
	cmd.Env = append(os.Environ(), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0") // instead of a second at each exit
	cmd.Stdout, cmd.Stderr = w, w
	stdin, err := cmd.StdinPipe()
	s.must(err)
	s.orders = json.NewEncoder(stdin)
	s.must(cmd.Start())
	w.Close()
	read := make(chan bool)
	go func() {
		for lines := bufio.NewScanner(r); lines.Scan(); {
			s.out <- lines.Text()
		}
		close(read)
	}()
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		<-read
		r.Close()
	})
	return s
}

func (s *scene) configure(programs ...string) {
	s.Helper()
	exe, err := os.Executable()
	s.must(err)
	var config []program
	for _, text := range programs {
		name, mode, _ := strings.Cut(text, " ")
		config = append(config, program{Name: name, Command: []string{exe, "program", name, s.dir, mode}, Dir: "/", Notify: mode == "notify"})
	}
	text, err := json.Marshal(config)
	s.must(err)
	s.must(os.WriteFile(s.config, text, 0o600))
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// start starts a supervisor, which crashes at a point if that is not "".
func (s *scene) start(crash string, flags ...string) {
	s.held = map[string]string{}
	s.must(s.orders.Encode(order{Start: append(flags, s.config), Crash: crash}))
}

func (s *scene) signal(sig syscall.Signal) { s.must(s.orders.Encode(order{Signal: sig})) }

// How long a test waits for what should happen at once.
const patience = 15 * time.Second

// next takes a line.
func (s *scene) next() string {
	s.Helper()
	select {
	case line := <-s.out:
		s.seen = append(s.seen, line)
		words := strings.SplitN(line, " ", 3)
		switch words[0] {
		case "runs":
			s.runs[words[1]] = append(s.runs[words[1]], words[2])
		case "adopted":
			s.held[words[1]] = words[2]
		case "started":
			s.held[words[1]] = words[2]
			s.started[words[1]] = append(s.started[words[1]], words[2])
		case "WRONG":
			s.fail(line)
		}
		return line
	case <-time.After(patience):
		s.fail("nothing is printed any more")
	}
	panic("not reached")
}

func (s *scene) fail(why string) {
	s.Helper()
	s.Fatalf("%s; the last lines:\n%s", why, strings.Join(s.seen[max(0, len(s.seen)-60):], "\n"))
}

// await takes lines until one begins with the text, and returns the rest of it.
func (s *scene) await(text string) string {
	s.Helper()
	line := ""
	for start := time.Now(); time.Since(start) < patience && !strings.HasPrefix(line, "init: ended"); {
		line = s.next()
		if rest, ok := strings.CutPrefix(line, text); ok {
			return rest
		}
	}
	s.fail("no line " + strconv.Quote(text))
	panic("not reached")
}

// settle takes lines until all programs run that stay. It returns them.
func (s *scene) settle(names ...string) map[string]*sysfd.PidFD {
	s.Helper()
	stays := func(name string) bool {
		runs := s.runs[name]
		return len(runs) > 0 && runs[len(runs)-1] == s.held[name]+" stays"
	}
	for start := time.Now(); slices.ContainsFunc(names, func(name string) bool { return !stays(name) }); s.next() {
		if time.Since(start) > patience {
			s.fail("not all run")
		}
	}
	live := map[string]*sysfd.PidFD{}
	for _, name := range names {
		if p := s.open(s.runs[name][len(s.runs[name])-1]); p != nil {
			live[name] = p
		} else {
			s.Errorf("%s does not run: %q", name, s.runs[name])
		}
	}
	return live
}

// open returns the process if it runs, or else nil.
func (s *scene) open(text string) *sysfd.PidFD {
	s.Helper()
	ref, err := sysfd.ParseProcessRef(strings.TrimSuffix(text, " stays"))
	s.must(err)
	p, err := ref.OpenOrSecondBest()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	s.must(err)
	if r, err := p.TryWait(sysfd.WaitExited); err != nil || r.Ended {
		p.Close()
		s.must(err)
		return nil
	}
	s.Cleanup(func() { p.Close() })
	return p
}

// kill kills the supervisor.
func (s *scene) kill() {
	s.Helper()
	s.signal(syscall.SIGKILL)
	s.await("init: ended: killed")
}

// stop stops the supervisor, after which nothing may be left.
func (s *scene) stop() {
	s.Helper()
	s.signal(syscall.SIGTERM)
	s.await("init: ended: status 0")
	s.await("init: alone")
	text, err := os.ReadFile(s.state)
	if err != nil || string(text) != "{}\n" {
		s.Errorf("the state after the end: %s%v", text, err)
	}
}

// edit edits the state of the program "a".
func (s *scene) edit(f func(ref *sysfd.ProcessRef)) {
	s.Helper()
	refs := readState(s.state)
	ref := refs["a"]
	f(&ref)
	refs["a"] = ref
	text, err := json.Marshal(refs)
	s.must(err)
	s.must(os.WriteFile(s.state, text, 0o600))
}

// A program that tells when it is ready is waited for, and what it tells is shown.
func TestReady(t *testing.T) {
	manager, err := sysfd.ListenNotify(filepath.Join(t.TempDir(), "manager"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", manager.Address())
	told := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for {
			m, err := manager.Next(ctx)
			if err != nil {
				t.Fatalf("no %s: %v", want, err)
			}
			m.Close()
			if strings.Join(m.Assignments, " ") == want {
				return
			}
		}
	}
	s := newScene(t, "first stay", "a notify", "b stay")
	s.start("")
	ref := s.await("started a ")
	s.await("status a " + ref + `: "wait\x1b for it"`)
	told("STATUS=1 of 3 programs are well")
	time.Sleep(50 * time.Millisecond)
	if len(s.started["b"]) != 0 {
		s.fail("b has not waited for a")
	}
	s.must(os.WriteFile(filepath.Join(s.dir, "a.go"), nil, 0o600))
	s.await("status a " + ref + `: "up"`)
	s.await("ready a " + ref)
	s.await("told a <nil>") // the barrier is over
	live := s.settle("b")
	told("STATUS=3 of 3 programs are well READY=1")
	// Another supervisor listens where the old one did.
	s.kill()
	s.start("")
	s.await("adopted a " + ref)
	s.await("adopted b ")
	told("STATUS=3 of 3 programs are well READY=1")
	// One that runs does not wait.
	s.must(os.Remove(filepath.Join(s.dir, "a.go")))
	s.must(s.settle("a")["a"].SendSignal(syscall.SIGUSR1))
	s.await("ended a " + ref)
	ref = s.await("started a ")
	s.await("status a " + ref)
	s.must(os.WriteFile(filepath.Join(s.dir, "a.go"), nil, 0o600))
	s.await("ready a " + ref)
	if live["b"].SendSignal(0) != nil {
		t.Error("b was started anew")
	}
	s.stop()
	told("STATUS=3 of 3 programs are well STOPPING=1")
	for _, line := range s.seen {
		if strings.HasPrefix(line, "status") && strings.Contains(line, "last") {
			s.fail("a child was heeded: " + line)
		}
	}
	if _, err := os.Lstat(s.state + ".notify"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// What a program tells just before it ends is shown.
func TestLastWords(t *testing.T) {
	s := newScene(t, "a last")
	s.start("", "-backoff", "1ms,1ms")
	for range 20 {
		ref := s.await("started a ")
		if line := s.next(); line != "status a "+ref+`: "the last"` {
			s.fail("not its status: " + line)
		}
		s.await("ended a " + ref)
	}
	s.stop()
}

func TestBackoff(t *testing.T) {
	s := newScene(t, "a 7")
	s.start("", "-backoff", "1ms,1m")
	for _, pause := range []string{"1ms", "2ms", "4ms", "8ms", "16ms"} {
		ref := s.await("started a ")
		s.await("ended a " + ref + ": exit status 7")
		s.await("restarting a in " + pause)
	}
	s.stop()

	b := &supervisor{min: 2, max: 30}
	for _, test := range []struct{ last, ran, want time.Duration }{
		{0, 0, 2}, {2, 0, 4}, {4, 29, 8}, {16, 0, 30}, {30, 29, 30}, {30, 30, 2}, {4, 100, 2},
	} {
		if got := b.backoff(test.last, test.ran); got != test.want {
			t.Errorf("after a pause of %d and a run of %d: %d, want %d", test.last, test.ran, got, test.want)
		}
	}
}

func TestAdopt(t *testing.T) {
	s := newScene(t, "a stay", "b stay")
	s.start("")
	first := s.settle("a", "b")
	s.kill()
	s.start("")
	ref := s.await("adopted a ")
	s.await("adopted b ")
	if ref != s.started["a"][0] {
		t.Errorf("adopted %s, started was %s", ref, s.started["a"][0])
	}
	// How it ends is known although the supervisor is not its parent.
	s.must(first["a"].SendSignal(syscall.SIGUSR1))
	if how := s.await("ended a " + ref + ": "); how != "exit status 7" {
		r, err := first["a"].Wait(context.Background(), 0)
		if err != nil || r.Unknown == nil {
			t.Errorf("ended: %s, and not %v, %v", how, r, err)
		}
		t.Logf("ended: %s: this kernel does not tell", how)
	}
	s.await("restarting a")
	s.await("started a")
	again := s.settle("a", "b")
	if first["b"].SendSignal(0) != nil || len(s.runs["b"]) != 1 || len(s.runs["a"]) != 2 {
		t.Errorf("%q", s.runs)
	}
	// It ends while there is no supervisor to learn how.
	s.kill()
	s.must(again["a"].SendSignal(syscall.SIGKILL))
	if _, err := again["a"].Wait(context.Background(), 0); err != nil {
		t.Error(err)
	}
	s.start("")
	s.await("ended a " + s.started["a"][1] + ": status unknown")
	s.await("adopted b")
	s.await("started a")
	s.settle("a", "b")
	s.stop()
}

// A ref that is not that of a process which runs now is not adopted, whoever has the PID.
func TestNotAdopted(t *testing.T) {
	pidfd := -1
	gone := exec.Command("/proc/self/exe", "-test.run=^$")
	gone.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	p, err := sysfd.TakePidFD(gone.SysProcAttr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for what, edit := range map[string]func(ref *sysfd.ProcessRef){
		"another boot": func(ref *sysfd.ProcessRef) { ref.BootID[0] ^= 1 },
		"a recycled PID": func(ref *sysfd.ProcessRef) {
			if ref.ID == 0 {
				ref.StartTime--
				return
			}
			ref.ID, _ = p.ID()
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newScene(t, "a stay")
			s.start("")
			first := s.settle("a")["a"]
			s.kill()
			s.edit(edit)
			// The old one is now a stranger, and must not run into the new one.
			s.must(os.Remove(filepath.Join(s.dir, "a.copy")))
			s.start("")
			s.await("ended a " + strconv.Itoa(readState(s.state)["a"].PID))
			s.await("started a")
			s.settle("a")
			s.signal(syscall.SIGTERM)
			s.await("init: ended: status 0")
			if s.open(s.runs["a"][0]) == nil {
				t.Error("the stranger was stopped")
			}
			s.must(first.SendSignal(syscall.SIGKILL))
			s.await("init: alone")
			if slices.ContainsFunc(s.seen, func(line string) bool { return strings.HasPrefix(line, "adopted") }) {
				t.Errorf("%q", s.seen)
			}
		})
	}
}

// A process whose parent never reaps it has ended all the same.
func TestAdoptedFromWhoeverNeverReaps(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	p, err := sysfd.OpenPidFD(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := newScene(t, "a stay")
	s.start("")
	first := s.settle("a")["a"]
	s.kill()
	s.edit(func(ref *sysfd.ProcessRef) {
		var err error
		*ref, err = p.RefOrSecondBest()
		s.must(err)
	})
	s.must(os.Remove(filepath.Join(s.dir, "a.copy"))) // of the first one, which is a stranger now
	s.start("")
	s.await("adopted a " + strconv.Itoa(cmd.Process.Pid))
	s.must(p.SendSignal(syscall.SIGKILL))
	s.await("ended a " + strconv.Itoa(cmd.Process.Pid))
	s.await("started a")
	s.settle("a")
	s.signal(syscall.SIGTERM)
	s.await("init: ended: status 0")
	s.must(first.SendSignal(syscall.SIGKILL))
	s.await("init: alone")
}

// Without IDs all is the same, but for a line that says so.
func TestSecondBest(t *testing.T) {
	t.Setenv(secondBestVar, "1")
	for name, test := range map[string]func(*testing.T){"NotAdopted": TestNotAdopted, "Stop": TestStop, "KilledAt": TestKilledAt} {
		t.Run(name, test)
	}
	s := newScene(t, "a stay")
	s.start("")
	s.await("supervisor: this kernel has no IDs")
	s.settle("a")
	if ref := readState(s.state)["a"]; ref.ID != 0 || ref.StartTime == 0 {
		t.Errorf("%+v", ref)
	}
	s.stop()
}

func TestStop(t *testing.T) {
	programs := []string{"a stay", "b stubborn", "c 7"}
	s := newScene(t, programs...)
	s.start("", "-grace", "50ms", "-backoff", "1m,1m")
	s.await("restarting c in 1m") // which must not be waited for
	s.settle("a", "b")
	s.stop()
	all := strings.Join(s.seen, "\n")
	for _, want := range []string{
		"\nended a " + s.started["a"][0] + ": signal 15 (terminated)", "\nended b " + s.started["b"][0] + ": signal 9 (killed)",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}

	// A second signal does not wait for the grace time, also of adopted ones.
	s.start("", "-grace", "1h", "-backoff", "1m,1m")
	for len(s.runs["a"]) < 2 || len(s.runs["b"]) < 2 {
		s.next()
	}
	s.kill()
	s.start("", "-grace", "1h")
	s.await("adopted b")
	s.signal(syscall.SIGINT)
	s.await("ended a")
	s.stop()

	// What is not in the configuration any more is stopped.
	s.start("")
	for len(s.runs["a"]) < 3 || len(s.runs["b"]) < 3 || len(s.started["b"]) < 3 {
		s.next()
	}
	s.kill()
	s.configure(programs[0])
	s.start("", "-grace", "50ms")
	s.await("stopping b")
	how := s.await("ended b " + s.started["b"][2] + ": ")
	if how != "signal 9 (killed)" && !strings.HasPrefix(how, "status unknown: ") { // b is not its child
		t.Error(how)
	}
	s.settle("a")
	s.stop()
	if len(s.runs["a"]) != 3 || len(s.runs["b"]) != 3 {
		t.Errorf("%q", s.runs)
	}
}

func TestLock(t *testing.T) {
	s := newScene(t, "a stay")
	s.start("")
	s.settle("a")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	second := exec.CommandContext(ctx, "/proc/self/exe", s.config)
	second.Args[0] = "supervisor"
	out, err := second.CombinedOutput()
	if second.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "locked by another supervisor") {
		t.Errorf("%v, %s", err, out)
	}
	s.stop()
}

// Nothing runs whose name cannot be stored.
func TestNotStored(t *testing.T) {
	s := newScene(t, "a stay")
	s.must(os.Mkdir(s.state+".new", 0o700))
	s.start("", "-backoff", "1ms,1m")
	s.await("supervisor: nothing can be started: open ")
	s.await("ended a ")
	s.await("restarting a in 1ms")
	s.await("ended a ")
	s.await("restarting a in 2ms")
	if len(s.started) != 0 {
		t.Errorf("%q", s.started)
	}
	s.must(os.Remove(s.state + ".new"))
	s.settle("a")
	s.stop()
}

func TestCannotStart(t *testing.T) {
	s := newScene(t, "a stay")
	for _, test := range []struct{ config, want string }{
		{`[{"name": "a", "command": ["/nonexistent"]}]`, "supervisor: exec: \"/nonexistent\""},
		{`[{"name": "a", "command": ["true"], "dir": "/nonexistent"}]`, "supervisor: a: "},
	} {
		s.must(os.WriteFile(s.config, []byte(test.config), 0o600))
		s.start("", "-backoff", "1ms,1m")
		s.await(test.want)
		s.await("restarting a in 1ms")
		s.await(test.want)
		s.await("restarting a in 2ms")
		s.stop()
	}
}

func TestRefused(t *testing.T) {
	old := selfRef
	defer func() { selfRef = old }()
	good := `[{"name": "a", "command": ["true"]}]`
	for _, test := range []struct {
		config, state string
		flags         []string
		self          func() (sysfd.ProcessRef, error)
		status        int
		want          string
	}{
		{config: good, self: func() (sysfd.ProcessRef, error) { return sysfd.ProcessRef{}, errors.ErrUnsupported }, status: 1, want: "no names that could be stored"},
		{config: good, self: func() (sysfd.ProcessRef, error) { return sysfd.ProcessRef{PID: 1, ID: 1}, nil }, status: 1, want: "the boot ID is not known"},
		{config: good, flags: []string{"-backoff", "2s,1s"}, status: 2, want: "invalid value"},
		{config: good, flags: []string{"-backoff", "1s"}, status: 2, want: "invalid value"},
		{config: good, flags: []string{"a"}, status: 2, want: "usage"},
		{config: good, state: "", status: 1, want: "state file"},
		{config: good, state: `{"a": null}`, status: 1, want: "a: the zero ProcessRef, whose text is empty, names nothing"},
		{config: `[]`, status: 1, want: "no programs"},
		{config: `[null]`, status: 1, want: "needs a name"},
		{config: `[{"name": "a b", "command": ["true"]}]`, status: 1, want: "needs a name"},
		{config: `[{"name": "a", "command": []}]`, status: 1, want: "a has no command"},
		{config: `[{"name": "a", "cmd": []}]`, status: 1, want: "not a list of programs"},
		{config: `[{"name": "a", "command": ["true"]}, {"name": "a", "command": ["true"]}]`, status: 1, want: "a is there twice"},
	} {
		config := filepath.Join(t.TempDir(), "config")
		for file, text := range map[string]string{config: test.config, config + ".state": test.state} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		selfRef = func() (sysfd.ProcessRef, error) {
			return sysfd.ProcessRef{PID: 1, ID: 1, BootID: sysfd.BootID{1}}, nil
		}
		if test.self != nil {
			selfRef = test.self
		}
		var errs bytes.Buffer
		status := run(append(test.flags, config), io.Discard, &errs)
		if status != test.status || !strings.Contains(errs.String(), test.want) {
			t.Errorf("%v: status %d, %s", test, status, errs.String())
		}
	}
}

// Wherever the supervisor is killed, each program is run once.
func TestKilledAt(t *testing.T) {
	names := []string{"a", "b", "c"}
	for _, point := range []string{
		"adopted:1", "started:1", "started:2", "started:3", "written:1", "stored:1", "stored:1:frozen",
		"released:1", "released:2", "released:3", "released:3:frozen",
	} {
		t.Run(point, func(t *testing.T) {
			s := newScene(t, "a stay", "b stay", "c stay")
			s.start(point)
			s.await("init: ended: killed")
			stored := readState(s.state)
			if strings.HasSuffix(point, "frozen") {
				// All of them live, whatever they are, and are adopted.
				s.start("adopted:1")
				for _, name := range names {
					ref := s.await("adopted " + name + " ")
					if ref != stored[name].String() {
						t.Errorf("%s was adopted, %s was stored", ref, stored[name])
					}
				}
				s.await("init: ended: killed")
				for _, ref := range stored {
					s.must(s.open(ref.String()).SendSignal(syscall.SIGCONT))
				}
			}
			s.start("", "-backoff", "1ms,1ms")
			live := s.settle(names...)
			for _, name := range names {
				ref, err := refOf(live[name])
				if len(s.runs[name]) != 1 || err != nil || readState(s.state)[name] != ref {
					t.Errorf("%s: %q, %v, in the state %v", name, s.runs[name], err, readState(s.state)[name])
				}
				if strings.HasPrefix(point, "released:3") && ref != stored[name] {
					t.Errorf("%s was started again", name)
				}
			}
			s.stop()
		})
	}
}

// The same at random moments, with programs that come and go.
func TestKilledUnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var programs, names []string
	for i := range 20 {
		names = append(names, "p"+strconv.Itoa(i))
		programs = append(programs, names[i]+[]string{" flap", " stay"}[i%2])
	}
	s := newScene(t, programs...)
	// Half of them are killed whenever it happens, half where it would be bad.
	const rounds = 40
	points := []string{"started", "written", "stored", "released"}
	for round := range rounds {
		crash := ""
		if round%2 == 1 {
			crash = points[random.IntN(len(points))] + ":" + strconv.Itoa(1+random.IntN(30))
		}
		s.start(crash, "-backoff", "1ms,20ms")
		enough := time.Now().Add(200 * time.Millisecond)
		killed := false
		for lines := random.IntN(400) - 100; lines > 0 && !killed && time.Now().Before(enough); lines-- {
			killed = s.next() == "init: ended: killed"
		}
		if !killed {
			time.Sleep(time.Duration(random.IntN(10_000)) * time.Microsecond)
			s.kill()
		}
		time.Sleep(time.Duration(random.IntN(5_000)) * time.Microsecond)
	}
	s.must(os.WriteFile(filepath.Join(s.dir, "calm"), nil, 0o600))
	s.start("", "-backoff", "1ms,20ms")
	live := s.settle(names...)

	state := readState(s.state)
	if len(state) != len(names) {
		t.Errorf("%d in the state: %v", len(state), state)
	}
	count, started, adopted := 0, 0, 0
	for name, p := range live {
		if ref, err := refOf(p); err != nil || state[name] != ref {
			t.Errorf("%s runs as %v, %v, in the state is %s", name, ref, err, state[name])
		}
		runs := s.runs[name]
		count += len(runs)
		started += len(s.started[name])
		for i, ref := range runs {
			if slices.Index(runs, ref) != i {
				t.Errorf("%s was released twice: %s", name, ref)
			}
			if i < len(runs)-1 && s.open(ref) != nil {
				t.Errorf("%s runs as %s too", name, ref)
			}
		}
		// What was released was not lost, even if the supervisor was killed just then.
		for _, ref := range s.started[name] {
			if !slices.Contains(runs, ref) && !slices.Contains(runs, ref+" stays") {
				t.Errorf("%s, %s: released, but did not run", name, ref)
			}
		}
	}
	unreleased := 0
	for _, line := range s.seen {
		if strings.HasPrefix(line, "adopted ") {
			adopted++
		} else if strings.HasPrefix(line, "ended ") && strings.HasSuffix(line, "exit status 125") {
			unreleased++
		}
	}
	t.Logf("%d runs, %d of which were announced, %d adoptions, %d of which of shims that were not released", count, started, adopted, unreleased)
	if count < 3*len(names) || adopted < rounds {
		t.Errorf("%d runs and %d adoptions are not much of a load", count, adopted)
	}
	for _, name := range slices.Sorted(maps.Keys(s.runs)) {
		if !slices.Contains(names, name) {
			t.Errorf("%s?", name)
		}
	}
	s.stop()
}
