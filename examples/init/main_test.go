//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/overdue"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// patience is for what takes less than a second on a machine that has nothing else to do.
const patience = time.Minute

// The test binary is also init, what prepares the place for one, and the programs. Which, the
// symbolic link says by which it is executed.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "init", "sysfd-listen-shim":
		main()
	case "stage":
		fmt.Fprintln(os.Stderr, runStage())
		os.Exit(1)
	case "program":
		if err := programs[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Println("WRONG:", err)
			os.Exit(1)
		}
	default:
		overdue.Report()
		os.Exit(m.Run())
	}
}

// A place is what init is started in.
type place struct {
	Process1 bool // of a pid namespace; otherwise it is a subreaper
	NoProc   bool
	// Descriptors from 3 up have these names, if it is so, and these variables tell of them.
	Names  []string
	Listen []string
}

func (p *place) listens(name string) bool { return slices.Contains(p.Listen, name) }

// runStage makes a place, and becomes what is to be process 1 there: the arguments.
func runStage() error {
	var p place
	if err := json.Unmarshal([]byte(os.Getenv("STAGE")), &p); err != nil {
		return err
	}
	os.Unsetenv("STAGE")
	if p.Process1 || p.NoProc {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		kind := "proc"
		if p.NoProc {
			kind = "tmpfs"
		}
		if err := unix.Mount(kind, "/proc", kind, 0, ""); err != nil {
			return err
		}
	}
	self, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		return err
	}
	id, err := self.ID()
	if err != nil {
		return err
	}
	// execve keeps the PID and the pidfd ID.
	for name, value := range map[string]string{
		"LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_PIDFDID": id.String(),
		"LISTEN_FDS": strconv.Itoa(len(p.Names)), "LISTEN_FDNAMES": strings.Join(p.Names, ":"),
	} {
		if p.listens(name) {
			os.Setenv(name, value)
		}
	}
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return err
	}
	return syscall.Exec(path, os.Args[1:], os.Environ())
}

// lacks ends a test that cannot run.
func lacks(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("it needs %s, which CI should have", what)
	}
	t.Skipf("it needs %s", what)
}

// A trial is an init with its program.
type trial struct {
	*testing.T
	ours           bool // not catatonit
	p              *sysfd.PidFD
	pid            int
	stdin          io.WriteCloser // that of the program
	stdout, stderr *bufio.Reader
	text           []string // what has happened
}

type setting struct {
	place
	stdin  *os.File   // a terminal, in which it gets a session; nil = a pipe
	files  []*os.File // from 3 up
	env    []string
	before []string // a command that executes its arguments
}

var inits = []string{"init", "catatonit"}

// launch starts an init with a program in a place.
func launch(t *testing.T, name string, s setting, program []string) *trial {
	t.Helper()
	catatonit, err := exec.LookPath("catatonit")
	if err != nil {
		lacks(t, "catatonit")
	}
	if os.Geteuid() != 0 && (s.Process1 || s.NoProc) {
		lacks(t, "root")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"init", "stage", "program"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("exit 9\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	command := []string{filepath.Join(dir, "init")}
	if name == "catatonit" {
		command = []string{catatonit, "--"} // which would take the program's options otherwise
	}
	stage, err := json.Marshal(s.place)
	if err != nil {
		t.Fatal(err)
	}
	words := slices.Concat([]string{filepath.Join(dir, "stage")}, s.before, command, program)
	sys := &syscall.SysProcAttr{}
	if s.Process1 {
		sys.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	} else if s.NoProc {
		sys.Cloneflags = syscall.CLONE_NEWNS
	}
	var theirs, ours [3]*os.File
	for i := range 3 {
		if i == 0 && s.stdin != nil {
			theirs[0] = s.stdin
			sys.Setsid, sys.Setctty = true, true
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			theirs[i], ours[i] = r, w
		} else {
			theirs[i], ours[i] = w, r
			r.SetReadDeadline(time.Now().Add(patience))
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LISTEN_") || strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "PATH=")
	})
	env = append(env, s.env...)
	env = append(env, "STAGE="+string(stage), "PATH="+dir+":"+os.Getenv("PATH"))
	p, err := sysfd.StartProcess(words[0], words, &os.ProcAttr{
		Env: env, Files: append(theirs[:], s.files...), Sys: sys,
	})
	for i, f := range theirs {
		if i > 0 || s.stdin == nil {
			f.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &trial{T: t, ours: name == "init", p: p, stdout: bufio.NewReader(ours[1]), stderr: bufio.NewReader(ours[2])}
	if s.stdin == nil {
		r.stdin = ours[0]
	}
	if r.pid, err = p.PID(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.SendSignal(syscall.SIGKILL)
		p.Close()
		for _, f := range ours {
			f.Close()
		}
	})
	return r
}

func (r *trial) note(words ...any) {
	r.text = append(r.text, strings.TrimSpace(fmt.Sprintln(words...)))
}

// line returns what the program has printed next.
func (r *trial) line() string {
	r.Helper()
	line, err := r.stdout.ReadString('\n')
	if err != nil {
		rest, _ := io.ReadAll(r.stderr)
		r.Fatalf("%q, %v, after %q, %s", line, err, r.text, rest)
	}
	return strings.TrimSpace(line)
}

// await takes what the program prints, and waits for want.
func (r *trial) await(want string) {
	r.Helper()
	got := r.line()
	r.note(got)
	if got != want {
		r.Fatalf("%q, want %q", r.text, want)
	}
}

func (r *trial) send(sig syscall.Signal) {
	r.Helper()
	if err := r.p.SendSignal(sig); err != nil {
		r.Fatalf("signal %d: %v, after %q", sig, err, r.text)
	}
}

func (r *trial) tell(line string) { fmt.Fprintln(r.stdin, line) }

// end waits for the end of init, and returns all that has happened and what init wrote. Who has
// survived is asked to say so, and ends.
func (r *trial) end() (text, stderr string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	how, err := r.p.Wait(ctx, 0)
	if err != nil {
		r.Fatalf("%v, after %q", err, r.text)
	}
	if r.stdin != nil {
		r.tell("survivor?")
		r.stdin.Close()
	}
	rest, err := io.ReadAll(r.stdout)
	if err != nil {
		r.Error(err)
	}
	for line := range strings.Lines(string(rest)) {
		r.note(strings.TrimSpace(line))
	}
	r.note(how)
	messages, err := io.ReadAll(r.stderr)
	if err != nil {
		r.Error(err)
	}
	for line := range strings.Lines(string(messages)) {
		if !strings.Contains(line, "reading executable name failed") { // the race detector without /proc
			stderr += line
		}
	}
	return strings.Join(r.text, ", "), stderr
}

// witness is a shell that prints the number of each signal that it gets, and ends with 42 when it
// gets SIGTERM. The shell waits for another process, because wait is what a signal interrupts.
var witness = []string{"sh", "-c", `
	for s in $(seq 64); do case $s in 9|15|17|19|32|33) ;; *) trap "echo $s" $s; esac; done
	trap 'exit 42' 15
	exec 3<&0
	cat <&3 >/dev/null &
	echo ready
	while kill -0 $!; do wait $!; done`}

const (
	hup, usr1, usr2, winch = "1", "10", "12", "28"
)

// A scenario is what both are put through.
type scenario struct {
	name    string
	program []string
	setting
	sockets bool           // two, "http" and "control"
	do      func(r *trial) // what happens while it runs
	want    string         // of both, in both places
	// What differs where init is no process 1.
	subreaper string
	// What differs with catatonit, there too, and why.
	catatonit, why string
	message        string // of init
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func helper(words ...string) []string { return append([]string{"program"}, words...) }

var all = []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}

var scenarios = []scenario{
	{
		name: "exit status", program: sh("exit 3"),
		want: "exit status 3",
	},
	{
		name: "death by a signal", program: sh("kill -TERM $$"),
		want: "exit status 143",
	},
	{
		name: "death by SIGKILL", program: sh("kill -KILL $$"),
		want: "exit status 137",
	},
	{
		name: "no program", program: nil,
		want:      "exit status 2",
		catatonit: "exit status 1", why: "bad usage is told from what a program commonly exits with",
		message: "usage: init PROGRAM",
	},
	{
		name: "program not found", program: []string{"/nonexistent/program"},
		want:      "exit status 127",
		catatonit: "exit status 1", why: "127 is what a shell and env(1) give",
		message: "/nonexistent/program",
	},
	{
		name: "program not found in $PATH", program: []string{"nonexistent-program"},
		want:      "exit status 127",
		catatonit: "exit status 1", why: "127 is what a shell and env(1) give",
		message: `"nonexistent-program": executable file not found`,
	},
	{
		name: "program that cannot be executed", program: []string{"/etc/passwd"},
		want:      "exit status 126",
		catatonit: "exit status 1", why: "126 is what a shell and env(1) give",
		message: "/etc/passwd",
	},
	{
		name: "directory", program: []string{"/etc"},
		want:      "exit status 126",
		catatonit: "exit status 1", why: "126 is what a shell and env(1) give",
		message: "/etc",
	},
	{
		name: "signals, one after the other", program: witness,
		do: func(r *trial) {
			r.await("ready")
			for _, n := range []string{hup, usr1, usr2, winch, hup, "2", "3", "18", "35", "64"} {
				sig, _ := strconv.Atoi(n)
				r.send(syscall.Signal(sig))
				r.await(n)
			}
			r.send(syscall.SIGTERM)
		},
		want: "ready, 1, 10, 12, 28, 1, 2, 3, 18, 35, 64, exit status 42",
	},
	{
		name: "a burst of signals", program: witness,
		do: func(r *trial) {
			r.await("ready")
			want := []string{hup, usr1, usr2, winch, "35", "64"}
			for range 300 {
				for _, n := range want {
					sig, _ := strconv.Atoi(n)
					r.send(syscall.Signal(sig))
				}
			}
			for len(want) > 0 {
				n := r.line()
				want = slices.DeleteFunc(want, func(w string) bool { return w == n })
			}
			r.send(syscall.SIGTERM)
			// How many become one is up to the moment.
			for line, err := r.stdout.ReadString('\n'); err == nil && line != ""; line, err = r.stdout.ReadString('\n') {
			}
		},
		want: "ready, exit status 42",
	},
	{
		name: "signals from before the program was started",
		setting: setting{before: []string{"env", "--block-signal=USR1,USR2,35", "sh", "-c",
			`kill -USR1 $$; kill -USR2 $$; kill -35 $$; exec "$@"`, "sh"}},
		program: helper("pending", "0000000400000a00"), // it has them blocked, too
		want:    "0000000400000a00, exit status 0",
	},
	{
		name: "script without #!", program: []string{"script"},
		want:      "exit status 126",
		catatonit: "exit status 9", why: "execvp(3) of the C library calls a shell, which execve(2) and container runtimes do not",
		message: "exec format error",
	},
	{
		name: "signals that are blocked", program: []string{"grep", "^SigBlk", "/proc/self/status"},
		want:      "SigBlk:\t0000000000000000, exit status 0",
		catatonit: "SigBlk:\t0000000000380000, exit status 0",
		why:       "it blocks SIGTSTP, SIGTTIN and SIGTTOU for the program, too, so that ^Z does nothing",
	},
	{
		name:    "SIGPIPE was ignored at the start",
		setting: setting{before: []string{"env", "--ignore-signal=PIPE"}},
		program: []string{"grep", "^SigIgn", "/proc/self/status"},
		want:    "SigIgn:\t0000000000000000, exit status 0", catatonit: "SigIgn:\t0000000000001000, exit status 0",
		why: "Go resets it in what it starts: systemd has services ignore it, and programs rarely expect that",
	},
	{
		name:    "SIGHUP was ignored at the start",
		setting: setting{before: []string{"env", "--ignore-signal=HUP"}},
		program: helper("ignored"),
		do: func(r *trial) {
			r.await("ignored: true")
			seen := make(chan bool)
			go func() { // until init does not ignore it any more
				for {
					r.p.SendSignal(syscall.SIGHUP)
					select {
					case <-seen:
						return
					case <-time.After(time.Millisecond):
					}
				}
			}()
			r.await("hangup")
			close(seen)
		},
		want: "ignored: true, hangup, exit status 0",
	},
	{
		name:    "SIGCHLD was ignored at the start",
		setting: setting{before: []string{"env", "--ignore-signal=CHLD"}, env: []string{"CATATONIT_DEBUG=1"}},
		program: sh("echo ready; read x; exit 3"),
		do: func(r *trial) {
			r.await("ready")
			if r.ours {
				r.tell("go on")
				return
			}
			r.awaitMessage("spawned")
			r.tell("go on")
			r.awaitNoChildren()
			r.send(syscall.SIGTERM)
			r.awaitMessage("forwarding of signal 15") // fails
			r.send(syscall.SIGKILL)
		},
		want:      "ready, exit status 3",
		catatonit: "ready, signal 9 (killed)", why: "the kernel reaps the program for it, and it waits for ever",
	},
	{
		name: "50 orphans, half of which are zombies when they are adopted", program: helper("orphans", "50"),
		want: "50 orphans are gone, exit status 0",
	},
	{
		name: "orphans while the program waits for its own children", program: helper("statuses", "200"),
		want: "200 statuses are right and 200 orphans gone, exit status 0",
	},
	{
		name: "a daemon that outlives the program", program: helper("daemon"),
		want:      "daemon, exit status 7",
		subreaper: "daemon, survives, exit status 7",
	},
	{
		name: "init is killed", program: helper("survivor", "ready"),
		do: func(r *trial) {
			r.await("ready")
			r.send(syscall.SIGKILL)
		},
		want:      "ready, signal 9 (killed)",
		subreaper: "ready, survives, signal 9 (killed)",
	},
	{
		name: "the program stops itself",
		program: sh(`(until grep -q '^State:.T' /proc/$$/status; do :; done; echo stopped) &
			kill -STOP $$; echo continued; exit 5`),
		do: func(r *trial) {
			r.await("stopped")
			r.send(syscall.SIGCONT)
		},
		want: "stopped, continued, exit status 5",
	},
	{
		name: "the program closes its standard files", program: sh("exec <&- >&- 2>&-; exit 6"),
		want: "exit status 6",
	},
	{
		name:    "environment",
		setting: setting{env: []string{"A=b c", "NOTIFY_SOCKET=/run/notify"}},
		program: sh(`echo "$A" $NOTIFY_SOCKET`),
		want:    "b c /run/notify, exit status 0",
	},
	{
		name: "sockets", sockets: true,
		setting: setting{place: place{Listen: all}},
		program: helper("listen"),
		want: "LISTEN_PID mine, LISTEN_PIDFDID mine, LISTEN_FDS=2, LISTEN_FDNAMES=http:control, " +
			"http: hello, control: hello, exit status 0",
		catatonit: "LISTEN_PID mine, LISTEN_PIDFDID not mine, LISTEN_FDS=2, LISTEN_FDNAMES=http:control, " +
			"nothing was passed, exit status 0",
		why: "it renews $LISTEN_PID alone, and so the sockets are refused",
	},
	{
		name: "sockets of systemd before 259", sockets: true,
		setting: setting{place: place{Listen: []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}}},
		program: helper("listen"),
		want: "LISTEN_PID mine, LISTEN_PIDFDID mine, LISTEN_FDS=2, LISTEN_FDNAMES=http:control, " +
			"http: hello, control: hello, exit status 0",
		catatonit: "LISTEN_PID mine, LISTEN_FDS=2, LISTEN_FDNAMES=http:control, " +
			"http: hello, control: hello, exit status 0",
		why: "init says more than it was told",
	},
	{
		name: "sockets without names", sockets: true,
		setting: setting{place: place{Listen: []string{"LISTEN_PID", "LISTEN_FDS"}}},
		program: helper("listen"),
		want: "LISTEN_PID mine, LISTEN_PIDFDID mine, LISTEN_FDS=2, LISTEN_FDNAMES=unknown:unknown, " +
			"unknown: hello, unknown: hello, exit status 0",
		catatonit: "LISTEN_PID mine, LISTEN_FDS=2, unknown: hello, unknown: hello, exit status 0",
		why:       "init says more than it was told",
	},
	{
		name: "sockets for another process", sockets: true,
		setting: setting{place: place{Listen: []string{"LISTEN_FDS"}}, env: []string{"LISTEN_PID=4194305"}},
		program: helper("listen"),
		want:    "nothing was passed, exit status 0",
		catatonit: "LISTEN_PID not mine, LISTEN_FDS=2, " +
			"nothing was passed, exit status 0",
		why: "init takes what it was given from the environment, as sd_listen_fds(3) does",
	},
	{
		name:    "sockets that are not there",
		setting: setting{place: place{Listen: []string{"LISTEN_PID"}}, env: []string{"LISTEN_FDS=2"}},
		program: helper("listen"),
		want:    "exit status 125",
		message: `LISTEN_FDS="2": descriptor 3`,
		catatonit: "LISTEN_PID mine, LISTEN_FDS=2, WRONG: LISTEN_FDS=\"2\": descriptor 3 is close-on-exec: " +
			"code in this process has opened or taken it, exit status 1",
		why: "what is wrong is told by init, which knows it first",
	},
	{
		name: "sockets and a program that is not found", sockets: true,
		setting: setting{place: place{Listen: all}},
		program: []string{"/nonexistent/program"},
		want:    "exit status 127", message: "/nonexistent/program",
		catatonit: "exit status 1", why: "127 is what a shell and env(1) give",
	},
	{
		name: "sockets and a program that is not executable", sockets: true,
		setting: setting{place: place{Listen: all}},
		program: []string{"/etc/passwd"},
		want:    "exit status 126", message: "/etc/passwd",
		catatonit: "exit status 1", why: "126 is what a shell and env(1) give",
	},
	{
		name: "sockets and orphans", sockets: true,
		setting: setting{place: place{Listen: all}},
		program: helper("orphans", "10"),
		want:    "10 orphans are gone, exit status 0",
	},
	{
		name:    "no /proc",
		setting: setting{place: place{NoProc: true}},
		program: sh("(exit 1) & exit 3"),
		want:    "exit status 3",
	},
	{
		name: "no /proc, and sockets", sockets: true,
		setting: setting{place: place{Listen: all, NoProc: true}},
		program: sh("exit 3"),
		want:    "exit status 125", message: "passing sockets on needs /proc",
		catatonit: "exit status 3", why: "init does not start without its sockets a program that expects some",
	},
}

// What init and catatonit do is the same, but where the table says otherwise.
func TestBesideCatatonit(t *testing.T) {
	if _, err := sysfd.SelfRef(); err != nil {
		lacks(t, "IDs for processes: "+err.Error())
	}
	for _, process1 := range []bool{true, false} {
		where := map[bool]string{true: "process 1", false: "subreaper"}[process1]
		for _, s := range scenarios {
			for _, init := range inits {
				t.Run(where+"/"+s.name+"/"+init, func(t *testing.T) {
					t.Parallel()
					s := s
					s.Process1 = process1
					want := s.want
					if !process1 && s.subreaper != "" {
						want = s.subreaper
					}
					if init == "catatonit" && s.catatonit != "" {
						want = s.catatonit
						t.Log("it differs: ", s.why)
					}
					if s.sockets {
						s.Names = []string{"http", "control"}
						for range s.Names {
							s.files = append(s.files, listener(t))
						}
					}
					r := launch(t, init, s.setting, s.program)
					if s.do != nil {
						s.do(r)
					}
					got, messages := r.end()
					if got != want {
						t.Errorf("%s\nwant\n%s\n%s", got, want, messages)
					}
					if r.ours && (!strings.Contains(messages, s.message) || messages != "" && s.message == "") {
						t.Errorf("it wrote %q", messages)
					}
				})
			}
		}
	}
}

// Which signals arrive at the program, of all that can be sent.
func TestEverySignal(t *testing.T) {
	faults := []syscall.Signal{4, 5, 6, 7, 8, 11, 31}
	for _, test := range []struct {
		init      string
		process1  bool
		lost, not []syscall.Signal // those that do not arrive, those that end init and are not sent
	}{
		// What Go keeps for itself, and what init would cause itself by writing a message.
		{init: "init", process1: true, lost: []syscall.Signal{13, 21, 22, 23, 27, 34}},
		{init: "init", lost: []syscall.Signal{13, 21, 22, 23, 27}, not: []syscall.Signal{34}},
		// It takes those for faults of its own that a debugger or a watchdog sends: init
		// forwards them. And it cannot tell a stop that was meant for the program from one
		// of its own, which is for a process in the background of a terminal; init does not
		// write there but messages.
		{init: "catatonit", process1: true, lost: append(faults, 20, 21, 22)},
		{init: "catatonit", lost: []syscall.Signal{20, 21, 22}, not: faults},
	} {
		t.Run(fmt.Sprintf("%s/process 1 %t", test.init, test.process1), func(t *testing.T) {
			r := launch(t, test.init, setting{place: place{Process1: test.process1}}, witness)
			r.await("ready")
			// init has done all that comes before forwarding, and the shell has set all
			// traps.
			r.send(syscall.SIGUSR1)
			r.await(usr1)
			want := map[string]bool{}
			for sig := syscall.Signal(1); sig < 64; sig++ {
				switch {
				case sig == syscall.SIGKILL, sig == syscall.SIGSTOP, sig == syscall.SIGCHLD, sig == syscall.SIGTERM, sig == 32, sig == 33:
				case sig == syscall.SIGCONT: // one to stop removes that while it is pending
				case slices.Contains(test.not, sig):
				default:
					r.send(sig)
					want[strconv.Itoa(int(sig))] = !slices.Contains(test.lost, sig)
				}
			}
			want["64"] = true // that comes last: the numbers of what comes sooner are lower
			r.send(64)
			for slices.Contains(slices.Collect(maps.Values(want)), true) {
				n, err := r.stdout.ReadString('\n')
				if err != nil {
					t.Fatalf("%v; %v did not arrive, or were not to", err, want)
				}
				if n = strings.TrimSpace(n); !want[n] {
					t.Errorf("%s has arrived", n)
				}
				delete(want, n)
			}
			r.send(syscall.SIGTERM)
			if got, messages := r.end(); got != "ready, 10, exit status 42" || messages != "" {
				t.Errorf("%s\n%s", got, messages)
			}
		})
	}
}

// What is typed on a terminal goes to the program, once.
func TestTerminal(t *testing.T) {
	for _, process1 := range []bool{true, false} {
		for _, init := range inits {
			t.Run(fmt.Sprintf("%s/process 1 %t", init, process1), func(t *testing.T) {
				keyboard, terminal := openTerminal(t)
				r := launch(t, init, setting{place: place{Process1: process1}, stdin: terminal}, helper("foreground"))
				r.await("foreground")
				for range 3 {
					keyboard.WriteString("\x03")
					r.await("interrupt")
				}
				keyboard.WriteString("\x1c")
				r.await("quit")
				keyboard.WriteString("end\n")
				want := "foreground, interrupt, interrupt, interrupt, quit, 4 signals, end, exit status 0"
				if got, messages := r.end(); got != want || messages != "" {
					t.Errorf("%s\nwant\n%s\n%s", got, want, messages)
				}
			})
		}
	}
}

// A process in the background of a terminal stays there.
func TestBackground(t *testing.T) {
	for init, want := range map[string]string{
		"init":      "background, exit status 5",
		"catatonit": "foreground, exit status 5", // it takes the terminal from the shell
	} {
		t.Run(init, func(t *testing.T) {
			_, terminal := openTerminal(t)
			r := launch(t, init, setting{stdin: terminal, before: []string{"sh", "-mc", `"$@" & wait $!`, "sh"}},
				sh(`set -- $(cat /proc/$$/stat); [ $5 = $8 ] && echo foreground || echo background; exit 5`))
			if got, _ := r.end(); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// When there are as many processes as there may be, init goes on, though it can have no more
// threads.
func TestNoMoreProcesses(t *testing.T) {
	// Like witness, but it forks no more once it has said so. The last sleep takes the place of
	// the shell that could not fork.
	script := `
		trap 'exit 42' TERM
		trap : USR1 USR2 WINCH
		exec 3<&0
		cat <&3 >/dev/null &
		cat=$!
		(while sleep 1000 & do :; done) 2>/dev/null
		sleep 1000 &
		echo full
		while kill -0 $cat; do wait $cat; done`
	for i, init := range inits {
		t.Run(init, func(t *testing.T) {
			for range 10 {
				// The limit is for a user, of its own, who is not root but can read
				// the files of the test.
				user := strconv.Itoa(1_000_000 + os.Getpid()*len(inits) + i)
				r := launch(t, init, setting{place: place{Process1: true}, before: []string{
					"setpriv", "--reuid=" + user, "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override",
					"prlimit", "--nproc=60",
				}}, sh(script))
				r.await("full")
				for range 1000 {
					r.send(syscall.SIGUSR1)
					r.send(syscall.SIGUSR2)
					r.send(syscall.SIGWINCH)
				}
				r.send(syscall.SIGTERM)
				if got, messages := r.end(); got != "full, exit status 42" {
					t.Fatalf("%s\n%s", got, messages)
				}
			}
		})
	}
}

// openTerminal returns both sides of a new terminal.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "/dev/ptmx")
	}
	t.Cleanup(func() { keyboard.Close() })
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		lacks(t, "/dev/pts")
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

// What the program closes is closed, though init was given it, too.
func TestInherited(t *testing.T) {
	for _, init := range inits {
		t.Run(init, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.SetReadDeadline(time.Now().Add(patience))
			run := launch(t, init, setting{files: []*os.File{w}}, sh("echo here >&3; exec 3>&-; read x; exit 4"))
			w.Close()
			text, err := io.ReadAll(r)
			run.tell("go on")
			got, _ := run.end()
			if string(text) != "here\n" || err != nil || got != "exit status 4" {
				t.Errorf("%q, %v, %s", text, err, got)
			}
		})
	}
}

// listener returns a listening socket.
func listener(t *testing.T) *os.File {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@sysfd-init-" + rand.Text()})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// awaitMessage waits until init has written something.
func (r *trial) awaitMessage(want string) {
	r.Helper()
	for {
		line, err := r.stderr.ReadString('\n')
		if strings.Contains(line, want) {
			return
		}
		if err != nil {
			r.Fatalf("no %q: %v", want, err)
		}
	}
}

// awaitNoChildren waits until init has no children.
func (r *trial) awaitNoChildren() {
	r.Helper()
	file := fmt.Sprintf("/proc/%d/task/%[1]d/children", r.pid)
	if !eventually(func() bool {
		text, err := os.ReadFile(file)
		return err == nil && len(text) == 0
	}) {
		r.Fatal(file)
	}
}

func eventually(f func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return true
		}
	}
	return false
}

// programs are what init runs, and what those run.
var programs = map[string]func(args []string) error{
	"ignored": func([]string) error {
		ignored := signal.Ignored(syscall.SIGHUP)
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGHUP)
		fmt.Println("ignored:", ignored)
		fmt.Println(<-c)
		return nil
	},

	// foreground counts the signals of the keyboard, and reads a line.
	"foreground": func([]string) error {
		signals := make(chan os.Signal, 100)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT)
		group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
		if err != nil {
			return err
		}
		if group != unix.Getpgrp() || group != os.Getpid() {
			return fmt.Errorf("%d is in the foreground, not %d", group, os.Getpid())
		}
		fmt.Println("foreground")
		n := 0
		line := make(chan string)
		go func() {
			text, _ := bufio.NewReader(os.Stdin).ReadString('\n')
			line <- strings.TrimSpace(text)
		}()
		for {
			select {
			case sig := <-signals:
				fmt.Println(sig)
				n++
			case text := <-line:
				fmt.Println(n, "signals")
				fmt.Println(text)
				return nil
			}
		}
	},

	"pending": func(args []string) error {
		var pending string
		eventually(func() bool {
			text, _ := os.ReadFile("/proc/self/status")
			_, rest, _ := strings.Cut(string(text), "\nShdPnd:\t")
			pending, _, _ = strings.Cut(rest, "\n")
			return pending == args[0]
		})
		fmt.Println(pending)
		return nil
	},

	"orphans": func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		for i := range n {
			cmd := exec.Command("program", "leave", []string{"late", "early"}[i%2])
			cmd.Stdin = r
			out, err := cmd.Output()
			if err != nil {
				return err
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
			if err != nil {
				return err
			}
			if i%2 == 0 && parent("/proc/"+strconv.Itoa(pid)) != os.Getppid() {
				return fmt.Errorf("orphan %d has parent %d, not %d", pid, parent("/proc/"+strconv.Itoa(pid)), os.Getppid())
			}
		}
		r.Close()
		w.Close() // the late ones end
		if !eventually(alone) {
			return errors.New("orphans stay")
		}
		fmt.Println(n, "orphans are gone")
		return nil
	},
	// leave leaves an orphan, early: one that has ended already, and prints its PID.
	"leave": func(args []string) error {
		words := []string{"cat"}
		if args[0] == "early" {
			words = []string{"true"}
		}
		cmd := exec.Command(words[0])
		cmd.Stdin = os.Stdin
		if err := cmd.Start(); err != nil {
			return err
		}
		if args[0] == "early" {
			if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				return err
			}
		}
		fmt.Println(cmd.Process.Pid)
		return nil
	},

	"statuses": func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		var all errgroup.Group
		all.SetLimit(4)
		for i := range n {
			all.Go(func() error {
				cmd := exec.Command("sh", "-c", "(exit 99) & exit $0", strconv.Itoa(i%64))
				cmd.Run()
				if got := cmd.ProcessState.ExitCode(); got != i%64 {
					return fmt.Errorf("status %d, want %d", got, i%64)
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			return err
		}
		if !eventually(alone) {
			return errors.New("orphans stay")
		}
		fmt.Println(n, "statuses are right and", n, "orphans gone")
		return nil
	},

	// daemon leaves one that it has forked twice.
	"daemon": func([]string) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		cmd := exec.Command("program", "fork", strconv.Itoa(os.Getppid()))
		cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = os.Stdin, os.Stdout, []*os.File{w}
		if err := cmd.Run(); err != nil {
			return err
		}
		w.Close()
		if _, err := io.ReadAll(r); err != nil { // until it is adopted
			return err
		}
		os.Exit(7)
		return nil
	},
	"fork": func(args []string) error {
		cmd := exec.Command("program", "adopted", args[0])
		cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = os.Stdin, os.Stdout, []*os.File{os.NewFile(3, "")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	},
	"adopted": func(args []string) error {
		if !eventually(func() bool { return strconv.Itoa(os.Getppid()) == args[0] }) {
			return errors.New("adopted by another one")
		}
		fmt.Println("daemon")
		os.NewFile(3, "").Close()
		return survive()
	},
	"survivor": func(args []string) error {
		fmt.Println(args[0])
		return survive()
	},

	"listen": func([]string) error {
		for _, name := range all {
			value, ok := os.LookupEnv(name)
			switch {
			case !ok:
				continue
			case name == "LISTEN_PID":
				fmt.Println(name, mine(value == strconv.Itoa(os.Getpid())))
			case name == "LISTEN_PIDFDID":
				self, err := sysfd.SelfRef()
				if err != nil {
					return err
				}
				fmt.Println(name, mine(value == self.ID.String()))
			default:
				fmt.Println(name + "=" + value)
			}
		}
		files, err := sysfd.ListenFDs()
		if err != nil {
			return err
		}
		if len(files) == 0 {
			fmt.Println("nothing was passed")
		}
		for _, f := range files {
			l, err := net.FileListener(f)
			if err != nil {
				return err
			}
			client, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				return err
			}
			server, err := l.Accept()
			if err != nil {
				return err
			}
			server.Write([]byte("hello"))
			server.Close()
			text, err := io.ReadAll(client)
			fmt.Println(f.Name()+":", string(text))
			if err != nil {
				return err
			}
		}
		return nil
	},
}

func mine(yes bool) string {
	if yes {
		return "mine"
	}
	return "not mine"
}

// survive waits until it is asked, or nobody can ask any more.
func survive() error {
	if n, _ := os.Stdin.Read(make([]byte, 100)); n > 0 {
		fmt.Println("survives")
	}
	return nil
}

// parent returns the parent of a process, 0 if it is gone.
func parent(dir string) int {
	stat, _ := os.ReadFile(dir + "/stat")
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(fields[1])
	return pid
}

// alone tells whether this process is the only child of its parent.
func alone() bool {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if parent(dir) == os.Getppid() && filepath.Base(dir) != strconv.Itoa(os.Getpid()) {
			return false
		}
	}
	return true
}
