//go:build linux

package sysfd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// needsShim skips a test where this program cannot execute itself.
func needsShim(t testing.TB) {
	t.Helper()
	reliesOn(t, runsItself)
	needs(t, FeatureWait)
}

// ways are those in which StartListenFDs starts a program.
var ways = map[string]starter{
	"traced": StartListenFDs, // where nothing forbids it
	"shim": func(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
		l, err := newLaunch(argv0, argv, attr, files)
		if err != nil {
			return nil, err
		}
		null, err := l.completeStandard()
		if err != nil {
			return nil, err
		}
		defer null.Close()
		l.start = startByOS
		p, err := l.shim()
		if err != nil {
			reapKilled(p)
			return nil, err
		}
		return p, nil
	},
}

// inBothWays runs a test for each.
func inBothWays(t *testing.T, f func(t *testing.T, start starter)) {
	for name, start := range ways {
		t.Run(name, func(t *testing.T) {
			keepsDescriptors(t)
			f(t, start)
		})
	}
}

type starter = func(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error)

// A startReport is what a started child saw.
type startReport struct {
	listenReport
	PID int
	ID  PidFDID
	UID int
	Dir string
}

func init() {
	children["started"] = func([]string) error {
		var r startReport
		if err := r.collect(); err != nil {
			return err
		}
		r.PID, r.UID = os.Getpid(), os.Getuid()
		r.ID, _ = selfID()
		r.Dir, _ = os.Getwd()
		return json.NewEncoder(os.Stdout).Encode(r)
	}
}

// startChild starts the child "started" and returns what it saw.
func startChild(t *testing.T, start starter, attr os.ProcAttr, files []*os.File) (r startReport, pid int) {
	t.Helper()
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	attr.Files = []*os.File{nil, w, os.Stderr}
	attr.Env = append(os.Environ(), childVar+"=started", "LISTEN_PID=1", "LISTEN_FDS=7")
	p, err := start("/proc/self/exe", []string{"program"}, &attr, files)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if pid, err = p.PID(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	result, err := p.Wait(context.Background(), 0)
	if err != nil || !result.Ended || result.Status != 0 {
		t.Fatalf("%v, %v, %s", result, err, text)
	}
	decodeJSON(t, string(text), &r)
	return r, pid
}

func TestStartListenFDs(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		open := func(name string, fd int) *os.File {
			f, err := openAt(name, fd)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return f
		}
		a, b := open("a", 0), open("b", 0)
		var many []*os.File
		for i := range 40 {
			many = append(many, open(strconv.Itoa(i), 0))
		}
		slices.Reverse(many)
		var overlapping []*os.File // each is where the next one is to go
		for i := range 5 {
			overlapping = append(overlapping, open(string(rune('a'+i)), 200+i))
		}
		for name, files := range map[string][]*os.File{
			"none": nil, "swapped": {b, a}, "twice": {a, a}, "many": many,
			"overlapping": append(overlapping[1:], overlapping[0]),
		} {
			t.Run(name, func(t *testing.T) {
				keepsDescriptors(t)
				dir := t.TempDir()
				r, pid := startChild(t, start, os.ProcAttr{Dir: dir}, files)
				var want []string
				for _, f := range files {
					want = append(want, f.Name())
				}
				if r.Err != "" || !slices.Equal(r.Names, want) || !slices.Equal(r.Contents, want) {
					t.Errorf("%+v", r)
				}
				if r.PID != pid || r.Dir != dir {
					t.Errorf("process %d in %s, started %d in %s", r.PID, r.Dir, pid, dir)
				}
				environ := []string{"LISTEN_PID=" + strconv.Itoa(r.PID)}
				if r.ID != 0 {
					environ = append(environ, "LISTEN_PIDFDID="+r.ID.String())
				}
				environ = append(environ, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+strings.Join(want, ":"))
				if len(files) == 0 {
					environ = nil
				}
				if !slices.Equal(r.Inspected.Environ, environ) {
					t.Errorf("%q", r.Inspected.Environ)
				}
			})
		}
	})
}

// The ID that the child is addressed by is that of the PidFD.
func TestStartListenFDsID(t *testing.T) {
	needsShim(t)
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		null := openNull(t)
		cat, w, out, r := openPipes(t)
		p, err := start("/proc/self/exe", []string{"program"}, &os.ProcAttr{
			Env: append(os.Environ(), childVar+"=echo-listen-env"), Files: []*os.File{cat, out, os.Stderr},
		}, []*os.File{null})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		out.Close()
		id, err := p.ID() // while it runs
		if err != nil {
			t.Fatal(err)
		}
		pid, err := p.PID()
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		text, err := io.ReadAll(r)
		if want := fmt.Sprintf("LISTEN_PID=%d LISTEN_PIDFDID=%d LISTEN_FDS=1 LISTEN_FDNAMES=%s\n", pid, id, null.Name()); err != nil || string(text) != want {
			t.Errorf("%q, %v, want %q", text, err, want)
		}
		r2, err := p.Wait(context.Background(), 0)
		isEnd(t, r2, err, 0, true)
	})
}

func init() {
	children["echo-listen-env"] = func([]string) error {
		io.ReadAll(os.Stdin)
		fmt.Println(strings.Join(InspectListenEnv().Environ, " "))
		return nil
	}
}

func openNull(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// openPipes returns two pipes.
func openPipes(t *testing.T) (r1, w1, w2, r2 *os.File) {
	t.Helper()
	r1, w1, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r2, w2, err = os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range []*os.File{r1, w1, r2, w2} {
			f.Close()
		}
	})
	return r1, w1, w2, r2
}

// What SysProcAttr asks for is there when the program runs.
func TestStartListenFDsAttr(t *testing.T) {
	needsShim(t)
	needsRoot(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		f, err := openAt("a", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files := []*os.File{f}
		for name, attr := range map[string]syscall.SysProcAttr{
			"pid namespace":  {Cloneflags: syscall.CLONE_NEWPID},
			"user":           {Credential: &syscall.Credential{Uid: 65534, Gid: 65534}},
			"session":        {Setsid: true},
			"user namespace": {Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, UidMappings: []syscall.SysProcIDMap{{ContainerID: 7, HostID: 0, Size: 1}}},
		} {
			t.Run(name, func(t *testing.T) {
				keepsDescriptors(t)
				r, pid := startChild(t, start, os.ProcAttr{Sys: &attr}, files)
				if r.Err != "" || !slices.Equal(r.Names, []string{"a"}) {
					t.Fatalf("%+v", r)
				}
				uid := 0
				if attr.Cloneflags&syscall.CLONE_NEWPID != 0 {
					pid = 1
				}
				if attr.Credential != nil {
					uid = 65534
				}
				if attr.UidMappings != nil {
					uid = 7
				}
				if r.PID != pid || r.UID != uid || r.Inspected.Environ[0] != "LISTEN_PID="+strconv.Itoa(pid) {
					t.Errorf("%+v", r)
				}
			})
		}
	})
}

// The signal at the death of the parent is set for the thread that becomes the program.
func TestStartListenFDsParentDeath(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	for range 10 {
		cmd := child("start-and-die")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		// The program holds the other end of stdout: Output has returned, so it has ended.
		if string(out) != "runs\n" {
			t.Errorf("%q", out)
		}
	}
}

func init() {
	children["start-and-die"] = func([]string) error {
		runtime.LockOSThread()
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		os.Setenv(childVar, "say-and-sleep")
		_, err = StartListenFDs("/proc/self/exe", []string{"program"}, &os.ProcAttr{
			Files: []*os.File{nil, os.Stdout, w}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
		}, []*os.File{null})
		if err != nil {
			return err
		}
		_, err = r.Read(make([]byte, 1))
		return err
	}
	children["say-and-sleep"] = func([]string) error {
		fmt.Println("runs")
		fmt.Fprintln(os.Stderr, "runs")
		time.Sleep(time.Hour)
		return nil
	}
}

// kids returns the children of this process.
func kids(t *testing.T) (pids []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended, or the kernel was built without
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

// When it fails, there is no process, and no descriptor more.
func TestStartListenFDsFails(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		before := kids(t)
		null := openNull(t)
		closed := os.NewFile(uintptr(dup(t, null)), "closed")
		closed.Close()
		colon := os.NewFile(uintptr(dup(t, null)), "a:b")
		defer colon.Close()
		program := noProgram(t)
		one := []*os.File{null}
		for name, test := range map[string]struct {
			argv0 string
			argv  []string
			attr  *os.ProcAttr
			files []*os.File
			want  error
			text  string
		}{
			"no program":       {argv0: program, files: one, want: syscall.ENOEXEC, text: program + ": exec format"},
			"nothing":          {argv0: program + "x", files: one, want: syscall.ENOENT, text: program + "x"},
			"no files":         {argv0: program, want: syscall.ENOEXEC, text: program},
			"relative":         {argv0: "x", attr: &os.ProcAttr{Dir: "/"}, want: syscall.ENOENT, text: " x: no such"},
			"no directory":     {argv0: program, attr: &os.ProcAttr{Dir: program + "x"}, want: syscall.ENOENT, text: "chdir " + program + "x"},
			"too long":         {argv0: program, argv: []string{strings.Repeat("x", 32*os.Getpagesize())}, want: syscall.E2BIG, text: program},
			"NUL":              {argv0: program, argv: []string{"a\x00b"}, want: syscall.EINVAL, text: `"a\x00b"`},
			"NUL in env":       {argv0: program, attr: &os.ProcAttr{Env: []string{"A=\x00"}}, want: syscall.EINVAL, text: `"A=\x00"`},
			"closed":           {argv0: program, files: []*os.File{null, closed}, want: os.ErrClosed, text: "closed"},
			"closed stdin":     {argv0: program, attr: &os.ProcAttr{Files: []*os.File{closed}}, want: os.ErrClosed, text: "closed"},
			"nil":              {argv0: program, files: []*os.File{nil}, want: os.ErrInvalid},
			"name":             {argv0: program, files: []*os.File{colon}, want: syscall.EINVAL, text: `"a:b"`},
			"what clone hates": {argv0: program, attr: &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_FS}}, want: syscall.EINVAL, text: "fork/exec "},
		} {
			t.Run(name, func(t *testing.T) {
				keepsDescriptors(t)
				p, err := start(test.argv0, test.argv, test.attr, test.files)
				want := []error{test.want}
				if test.want == syscall.ENOENT {
					want = append(want, os.ErrNotExist)
				}
				matches(t, err, want...)
				if p != nil || err == nil || !strings.Contains(err.Error(), test.text) {
					t.Errorf("%v, %v", p, err)
				}
			})
		}
		if after := kids(t); !slices.Equal(before, after) {
			t.Errorf("children before %q, after %q", before, after)
		}
	})
}

func TestStartListenFDsPidFD(t *testing.T) {
	pidfd := -1
	_, err := StartListenFDs(noProgram(t), nil, &os.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &pidfd}}, nil)
	matches(t, err, syscall.EINVAL)
	if !strings.Contains(err.Error(), "PidFD") || pidfd != -1 {
		t.Error(err, pidfd)
	}
}

// The slice of the caller may have more behind it, which is the caller's.
func TestStartListenFDsKeepsFiles(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		null := openNull(t)
		files := []*os.File{null, null, null, null}
		_, err := start(noProgram(t), nil, &os.ProcAttr{Files: files[:0]}, files[3:])
		matches(t, err, syscall.ENOEXEC)
		if slices.Contains(files, nil) {
			t.Errorf("%v", files)
		}
	})
}

// newTestLaunch returns the launch of a program with an environment and nothing else.
func newTestLaunch(t *testing.T, program string, env ...string) *launch {
	t.Helper()
	l, err := newLaunch(program, []string{"x"}, &os.ProcAttr{Env: env}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.start = startByOS
	return l
}

// A shim ends if it is not told what to become, and that one has ended is told.
func TestShimEnds(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	l := newTestLaunch(t, "/proc/self/exe", childVar+"=sleep")
	request := newStartRequest(l)
	for n := range len(request) {
		if n > fewer(20) && n < len(request)-fewer(5) {
			continue // alike
		}
		s, err := l.startShim()
		if err != nil {
			t.Fatal(err)
		}
		s.control.Write(request[:n])
		s.control.Close()
		r, err := s.pidfd.Wait(context.Background(), 0)
		if err != nil || r.String() != "exit status 127" {
			t.Errorf("%d bytes: %v, %v", n, r, err)
		}
		s.pidfd.Close()
	}

	s, err := l.startShim()
	if err != nil {
		t.Fatal(err)
	}
	s.pidfd.SendSignal(syscall.SIGKILL)
	err = s.release(request, "program")
	if err == nil {
		t.Error("released a dead process")
	}
	s.control.Close()
	reapKilled(s.pidfd)
	matches(t, err, syscall.ECHILD)
}

// With the standard descriptors closed, the shim's socket is none of them.
func TestStartListenFDsWithoutStdio(t *testing.T) {
	needsShim(t)
	out := output(t, child("start-without-stdio", noProgram(t)))
	if !strings.Contains(out, "exec format error") || !strings.Contains(out, errEnded.text) {
		t.Errorf("%q", out)
	}
}

func init() {
	children["start-without-stdio"] = func(args []string) error {
		stdout := os.NewFile(uintptr(10), "stdout")
		if err := syscall.Dup3(1, 10, syscall.O_CLOEXEC); err != nil {
			return err
		}
		for fd := range 3 {
			syscall.Close(fd)
		}
		// First, for the runtime's poller takes two of the numbers then.
		l, err := newLaunch("x", nil, nil, nil)
		if err != nil {
			return err
		}
		l.start = startByOS
		s, err := l.startShim()
		if err != nil {
			return err
		}
		s.pidfd.SendSignal(syscall.SIGKILL)
		fmt.Fprintln(stdout, s.release(make([]byte, 1<<21), "x"))
		s.control.Close()
		reapKilled(s.pidfd)

		_, err = StartListenFDs(args[0], []string{strings.Repeat("x", 100000)}, nil, []*os.File{stdout})
		fmt.Fprintln(stdout, err)
		return nil
	}
}

// If somebody else reaps the shim, its PID means nothing any more.
func TestStartListenFDsReapedElsewhere(t *testing.T) {
	needsShim(t)
	if out := output(t, child("start-with-reaper", noProgram(t))); out != "ok\n" {
		t.Errorf("%q", out)
	}
}

func init() {
	children["start-with-reaper"] = func(args []string) error {
		go func() {
			for {
				if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		for range 20 {
			_, err := StartListenFDs(args[0], nil, nil, nil)
			if !errors.Is(err, syscall.ENOEXEC) {
				return fmt.Errorf("got %v", err)
			}
		}
		fmt.Println("ok")
		return nil
	}
}

// Many at once, with an environment that no socket holds, while others fork.
func TestStartListenFDsAtOnce(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		null := openNull(t)
		env := append(os.Environ(), childVar+"=count")
		for i := range 200 {
			env = append(env, fmt.Sprintf("V%d=%s", i, strings.Repeat("x", 3000)))
		}
		var group waitGroup
		for range fewer(10) {
			group.Go(func() {
				for range 3 {
					p, err := start("/proc/self/exe", []string{"x"}, &os.ProcAttr{Env: env}, []*os.File{null, null})
					if err != nil {
						t.Error(err)
						return
					}
					r, err := p.Wait(context.Background(), 0)
					if err != nil || r.String() != "exit status 2" {
						t.Error(r, err)
					}
					p.Close()
				}
			})
		}
		group.Wait()
	})
}

func init() {
	children["count"] = func([]string) error {
		if files, err := ListenFDs(); err == nil && (os.Getenv("V0") == "") == (os.Getenv("V199") == "") {
			os.Exit(len(files))
		}
		return nil
	}
}

// A listener stays in non-blocking mode, on which its other users count.
func TestStartListenFDsBlocking(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		named := os.NewFile(uintptr(dup(t, f)), "http")
		defer named.Close()
		p, err := start("/proc/self/exe", []string{"x"}, &os.ProcAttr{Env: append(os.Environ(), childVar+"=count")}, []*os.File{named})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		r, err := p.Wait(context.Background(), 0)
		isEnd(t, r, err, exitCode(1), true)
		l.SetDeadline(time.Now().Add(time.Millisecond))
		if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

// Who may execute a file with privileges must not be able to have it execute anything.
func TestShimWithPrivileges(t *testing.T) {
	needsShim(t)
	needsRoot(t)
	keepsDescriptors(t)
	program := filepath.Join(t.TempDir(), "program")
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(program, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	request := newStartRequest(newTestLaunch(t, program, childVar+"=count"))
	ours.Write(request)
	syscall.Shutdown(pair[0], syscall.SHUT_WR)
	var stderr bytes.Buffer
	cmd := &exec.Cmd{Path: program, Args: []string{shimName, "3"}, ExtraFiles: []*os.File{theirs}, Stderr: &stderr}
	err = cmd.Run()
	theirs.Close()
	answer, _ := io.ReadAll(ours)
	if cmd.ProcessState.ExitCode() != 127 || !strings.HasPrefix(string(answer), "1 ") || !strings.Contains(string(answer), "privileges") {
		t.Errorf("%v, %q, %s", err, answer, &stderr)
	}

	cmd = exec.Command(program)
	cmd.Env = append(os.Environ(), childVar+"=start-with-privileges")
	if out := output(t, cmd); out != "traced: <nil>\nshim: EPERM "+wantPrivileges+"\n" {
		t.Errorf("%q", out)
	}
}

const wantPrivileges = "the process that was to become /proc/self/exe: ListenShim refuses to run with privileges that came with its start (AT_SECURE): " +
	"the file of this program is setuid, setgid, has capabilities or cannot be read, or this process has another effective user or group than its real one"

func init() {
	children["start-with-privileges"] = func([]string) error {
		for _, way := range []string{"traced", "shim"} {
			fmt.Print(way, ": ")
			p, err := ways[way]("/proc/self/exe", []string{"x"}, &os.ProcAttr{Env: []string{childVar + "=count"}}, nil)
			if errors.Is(err, syscall.EPERM) {
				fmt.Print("EPERM ")
			}
			fmt.Println(err)
			p.Close()
		}
		return nil
	}
}

// The name alone makes no shim.
func TestShimByHand(t *testing.T) {
	needsShim(t)
	for _, args := range [][]string{{shimName}, {shimName, "x"}, {shimName, "2"}, {shimName, "3"}, {shimName, "3", "4"}, {shimName, "-1"}} {
		var stderr bytes.Buffer
		cmd := &exec.Cmd{Path: "/proc/self/exe", Args: args, Stderr: &stderr}
		cmd.Run()
		if cmd.ProcessState.ExitCode() != 127 || !strings.Contains(stderr.String(), "StartListenFDs") {
			t.Errorf("%q: %v, %s", args, cmd.ProcessState, &stderr)
		}
	}
}

func TestAuxvValue(t *testing.T) {
	var auxv []byte
	for _, word := range []uintptr{6, 4096, 23, 1, 0, 0} {
		b := make([]byte, 8)
		putNative64(b, uint64(word))
		if !is64bit && bigEndian {
			b = b[4:]
		}
		auxv = append(auxv, b[:map[bool]int{true: 8, false: 4}[is64bit]]...)
	}
	for number, want := range map[uint64]uint64{23: 1, 6: 4096, 7: 0} {
		if got := auxvValue(auxv, number); got != want {
			t.Errorf("%d: %d", number, got)
		}
	}
	if auxvValue(auxv[:len(auxv)/3*2], 23) != 1 {
		t.Error("not found in the last place")
	}
	if auxvValue(auxv[:len(auxv)/2], 23) != 0 || auxvValue(nil, 23) != 0 {
		t.Error("found what is not there")
	}
}

// What adds up to the number of strings need not be numbers of strings.
func TestParseStartRequest(t *testing.T) {
	request := func(words ...string) string { return strings.Join(words, "\x00") + "\x00" }
	most := strconv.Itoa(math.MaxInt)
	for _, good := range []string{request("0", "0", "0", "0", "0", ""), request("9", "1", "1", "0", "1", "x", "name", "A=1")} {
		if _, ok := parseStartRequest(good); !ok {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"", request(), request("0", "0", "0", "0", "0"), "0\x000\x000\x000\x000\x00x", request("0", "0", "0", "0", "0", "x", "a"), request("0", "0", "1", "1", "0", "x", "a"),
		request("-1", "0", "0", "0", "0", "x"), request("0", "0", "-1", "2", "0", "x", "a"), request("0", "0", "2", "-1", "0", "x", "a"), request("0", "0", "0", "2", "-1", "x", "a"),
		request("0", "0", most, most, "3", "x", "a"), request("0", "0", "3", most, most, "x", "a"), request("0", "0", "1", "x", "0", "x", "a"), request("", "0", "0", "1", "0", "x", "a"),
	} {
		if r, ok := parseStartRequest(bad); ok {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}

func FuzzStartRequest(f *testing.F) {
	f.Add("/bin/true", "name\ntwo", "a\n\nb", "A=1\nB=", 9)
	f.Add("", "", "", "", 0)
	f.Add("x", "", "", "", 3)
	f.Fuzz(func(t *testing.T, argv0, names, argv, env string, cut int) {
		lines := func(s string) []string { return strings.Split(s, "\n") }
		l, err := newLaunch(argv0, lines(argv), &os.ProcAttr{Env: append(lines(env), "WATCHDOG_PID="+strconv.Itoa(os.Getpid())), Sys: &syscall.SysProcAttr{Pdeathsig: 64}}, nil)
		if err != nil {
			if !strings.Contains(argv0+argv+env, "\x00") {
				t.Error(err)
			}
			return
		}
		l.names = lines(names)
		text := newStartRequest(l)
		r, ok := parseStartRequest(string(text))
		if !ok || r.argv0 != argv0 || r.parentDeath != 64 || !slices.Equal(r.names, lines(names)) ||
			!slices.Equal(r.argv, lines(argv)) || !slices.Equal(r.env, withoutListenVars(lines(env))) && l.watchdog || r.watchdog != l.watchdog {
			t.Errorf("%+v from %q", r, text)
		}
		if n := len(text); cut >= 0 && cut < n {
			if _, ok := parseStartRequest(string(text[:cut])); ok {
				t.Errorf("%q is not the whole of %q", text[:cut], text)
			}
		}
		parseStartRequest(argv0 + names + argv)
	})
}

func BenchmarkStart(b *testing.B) {
	needsShim(b)
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	env := append(os.Environ(), childVar+"=count")
	b.Run("os.StartProcess", func(b *testing.B) {
		for b.Loop() {
			p, err := os.StartProcess("/proc/self/exe", []string{"x"}, &os.ProcAttr{Env: env, Files: []*os.File{nil, nil, nil, null}})
			if err != nil {
				b.Fatal(err)
			}
			p.Wait()
		}
	})
	b.Run("StartListenFDs", func(b *testing.B) {
		for b.Loop() {
			p, err := StartListenFDs("/proc/self/exe", []string{"x"}, &os.ProcAttr{Env: env}, []*os.File{null})
			if err != nil {
				b.Fatal(err)
			}
			p.Wait(context.Background(), 0)
			p.Close()
		}
	})
}
