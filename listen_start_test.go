//go:build linux

package sysfd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// needsShim skips a test where this program cannot execute itself.
func needsShim(t testing.TB) {
	t.Helper()
	reliesOn(t, runsItself)
	needs(t, FeatureWait)
}

// startWays are those in which StartListenFDs starts a program.
var startWays = map[string]starter{
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
	for name, start := range startWays {
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
				needsRightsFor(t, &attr)
				keepsDescriptors(t)
				r, pid := startChild(t, start, os.ProcAttr{Sys: &attr}, files)
				if r.Err != "" || !slices.Equal(r.Names, []string{"a"}) {
					t.Fatalf("%+v", r)
				}
				uid := os.Getuid()
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

// needsRightsFor skips a test where nothing can be started in this way.
func needsRightsFor(t *testing.T, sys *syscall.SysProcAttr) {
	t.Helper()
	if sys.Cloneflags|sys.Unshareflags != 0 {
		rights.Need(t, rights.SysAdmin)
	}
	if (sys.Cloneflags|sys.Unshareflags)&syscall.CLONE_NEWUSER != 0 {
		rights.UserNamespace(t)
	}
	if sys.Unshareflags&syscall.CLONE_NEWNS != 0 {
		rights.MountedRoot(t)
	}
	if sys.Chroot != "" {
		rights.Need(t, rights.SysChroot)
	}
	if sys.Credential != nil {
		rights.Need(t, rights.SetUID, rights.SetGID)
	}
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
		nul := os.NewFile(uintptr(dup(t, null)), "a\x00b")
		defer nul.Close()
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
			"name":             {argv0: program, files: []*os.File{nul}, want: syscall.EINVAL, text: `"a\x00b"`},
			"what clone hates": {argv0: program, attr: &os.ProcAttr{Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_FS}}, want: syscall.EINVAL, text: "fork/exec "},
		} {
			t.Run(name, func(t *testing.T) {
				if name == "what clone hates" && rights.Filter() {
					lacks(t, "clone(2) with flags that a seccomp filter refuses")
				}
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
	rights.Proc(t)
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

// So does a pipe, which os.StartProcess puts in blocking mode.
func TestStartListenFDsBlockingPipe(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		p, err := start("/proc/self/exe", []string{"x"}, &os.ProcAttr{Env: append(os.Environ(), childVar+"=count")}, []*os.File{r, w})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		result, err := p.Wait(context.Background(), 0)
		isEnd(t, result, err, exitCode(2), true)
		for _, f := range []*os.File{r, w} {
			withFD(f, func(fd int) {
				if flags, errno := fcntl(fd, syscall.F_GETFL, 0); errno != 0 || flags&syscall.O_NONBLOCK == 0 {
					t.Errorf("%s: %#x, %v", f.Name(), flags, errno)
				}
			})
		}
	})
}

// Who may execute a file with privileges must not be able to have it execute anything.
func TestShimWithPrivileges(t *testing.T) {
	needsShim(t)
	rights.Need(t, rights.Chown)
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

const wantPrivileges = "ListenShim in the process for /proc/self/exe: ListenShim does not run with privileges that this program gained when executed (AT_SECURE): " +
	"its file is setuid, setgid, has capabilities or is not readable, or the effective user or group differs from the real one"

func init() {
	children["start-with-privileges"] = func([]string) error {
		for _, way := range []string{"traced", "shim"} {
			fmt.Print(way, ": ")
			p, err := startWays[way]("/proc/self/exe", []string{"x"}, &os.ProcAttr{Env: []string{childVar + "=count"}}, nil)
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
	rights.Proc(t)
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
		if strings.Contains(names, "\x00") {
			return // fdNames refuses it
		}
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

// needsTracing skips a test where nothing can be traced.
func needsTracing(t testing.TB) {
	t.Helper()
	reliesOn(t, ptracing)
	needs(t, FeatureWait)
	l := &launch{}
	if errno := l.tracingRefused(); errno != 0 {
		lacks(t, "a way to trace: "+errno.Error())
	}
}

// outputOf starts a program with its standard output in a pipe and returns what it wrote.
func outputOf(start starter, attr os.ProcAttr, files []*os.File, words ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	attr.Files = append([]*os.File{nil, w, os.Stderr}, attr.Files...)
	p, err := start(words[0], words, &attr, files)
	w.Close()
	if err != nil {
		return "", err
	}
	defer p.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	result, err := p.Wait(context.Background(), 0)
	if err == nil && (result.Unknown != nil || result.Status != 0) {
		err = fmt.Errorf("%v", result)
	}
	return string(text), err
}

// sayAddress is what a shell prints: whether it is addressed, and how many descriptors there are.
const sayAddress = `[ "$LISTEN_PID" = $$ ] && echo $LISTEN_FDS $LISTEN_FDNAMES || echo "$LISTEN_PID is not $$"`

func needsShell(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/bin/sh"); err != nil {
		lacks(t, "/bin/sh")
	}
}

// isAddressed starts a shell and checks that what is passed is for it.
func isAddressed(t *testing.T, start starter, attr os.ProcAttr) {
	t.Helper()
	out, err := outputOf(start, attr, []*os.File{openNull(t), openNull(t)}, "/bin/sh", "-c", sayAddress)
	if want := "2 " + os.DevNull + ":" + os.DevNull + "\n"; out != want || err != nil {
		t.Errorf("%q, %v, want %q", out, err, want)
	}
}

// A standard file that is a pipe of this program is in blocking mode for the other one, which need
// not be able to do with less.
func TestStartListenFDsStandardFiles(t *testing.T) {
	needsShim(t)
	seq, err := exec.LookPath("seq")
	if err != nil {
		lacks(t, "seq(1)")
	}
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p, err := start(seq, []string{"seq", "1", "100000"}, &os.ProcAttr{Files: []*os.File{nil, w, os.Stderr}}, []*os.File{openNull(t)})
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		time.Sleep(100 * time.Millisecond) // in which the pipe is full
		n, err := io.Copy(io.Discard, r)
		if n != 588895 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		result, err := p.Wait(context.Background(), 0)
		isEnd(t, result, err, 0, true)
	})
}

// Nobody but the user of this process gets to see its environment.
func TestStartListenFDsHidesEnvironment(t *testing.T) {
	needsShim(t)
	needsShell(t)
	rights.Need(t, rights.SetUID, rights.SetGID)
	keepsDescriptors(t)
	t.Setenv("SECRET", "sesame-of-"+strconv.Itoa(os.Getpid()))
	spy := child("spy", os.Getenv("SECRET"))
	spy.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	spy.Env = []string{childVar + "=spy"}
	in, err := spy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	spy.Stdout, spy.Stderr = &out, &out
	if err := spy.Start(); err != nil {
		t.Skip(err) // the file of this program is not for everybody
	}
	defer spy.Wait()
	defer in.Close()
	for name, start := range startWays {
		for range fewer(50) {
			text, err := outputOf(start, os.ProcAttr{Env: []string{"A=1"}, Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}}, []*os.File{openNull(t)}, "/bin/sh", "-c", sayAddress)
			if err != nil || !strings.HasPrefix(text, "1 ") {
				t.Fatalf("%s: %q, %v", name, text, err)
			}
		}
	}
	in.Close()
	if err := spy.Wait(); err != nil || !strings.HasPrefix(out.String(), "has seen ") || strings.HasPrefix(out.String(), "has seen 0") {
		t.Errorf("%v: %q", err, out.String())
	}
}

func init() {
	children["spy"] = func(args []string) error {
		end := make(chan int)
		go func() { io.ReadAll(os.Stdin); close(end) }()
		seen := 0
		for {
			select {
			case <-end:
				fmt.Println("has seen", seen)
				return nil
			default:
			}
			dirs, err := os.ReadDir("/proc")
			if err != nil {
				return err
			}
			for _, dir := range dirs {
				text, err := os.ReadFile("/proc/" + dir.Name() + "/environ")
				if err == nil && strings.Contains(string(text), args[0]) {
					cmdline, _ := os.ReadFile("/proc/" + dir.Name() + "/cmdline")
					return fmt.Errorf("%q has %q", cmdline, text)
				}
				if err == nil && len(text) > 0 {
					seen++
				}
			}
		}
	}
}

// A shim has the environment of the program from its beginning.
func TestShimEnvironment(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	for _, env := range [][]string{{"A=1", "B=2"}, {}} {
		l := newTestLaunch(t, "/proc/self/exe", append([]string{"LISTEN_FDS=1"}, env...)...)
		s, err := l.startShim()
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		for _, v := range env {
			want += v + "\x00"
		}
		// Where its environment is, /proc tells a moment after the start. It runs when it
		// has a second thread.
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(time.Millisecond) {
			if threads, _ := os.ReadDir("/proc/" + strconv.Itoa(l.pid) + "/task"); len(threads) > 1 {
				break
			}
		}
		environ, err := os.ReadFile("/proc/" + strconv.Itoa(l.pid) + "/environ")
		if string(environ) != want || err != nil {
			t.Errorf("%q, %v, want %q", environ, err, want)
		}
		reapKilled(s.pidfd)
		s.control.Close()
	}
}

// What the program gets is what the operating system has for it, with all that can be asked for.
func TestStartListenFDsTraced(t *testing.T) {
	needsTracing(t)
	needsShell(t)
	keepsDescriptors(t)
	none := []string{}
	for name, attr := range map[string]os.ProcAttr{
		"plain":          {},
		"no environment": {Env: none},
		"many variables": {Env: slices.Repeat([]string{"A=1", "LISTEN_PID=7", "B"}, 3000)},
		"root directory": {Sys: &syscall.SysProcAttr{Chroot: "/"}, Dir: "/"},
	} {
		t.Run(name, func(t *testing.T) {
			if attr.Sys != nil {
				needsRightsFor(t, attr.Sys)
			}
			isAddressed(t, StartListenFDs, attr)
		})
	}
	other := &syscall.Credential{Uid: 65534, Gid: 65534}
	for name, sys := range map[string]syscall.SysProcAttr{
		"pid namespace":                   {Cloneflags: syscall.CLONE_NEWPID},
		"pid namespace for its children":  {Unshareflags: syscall.CLONE_NEWPID},
		"all kinds of namespaces":         {Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS},
		"mounts":                          {Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID},
		"user":                            {Credential: other},
		"user namespace":                  {Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID, UidMappings: []syscall.SysProcIDMap{{Size: 1}}},
		"user namespace and another user": {Cloneflags: syscall.CLONE_NEWUSER, Credential: &syscall.Credential{Uid: 5, NoSetGroups: true}, UidMappings: []syscall.SysProcIDMap{{Size: 10}}, GidMappings: []syscall.SysProcIDMap{{Size: 10}}},
		"unshared user namespace":         {Unshareflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{Size: 1}}},
		"session":                         {Setsid: true},
	} {
		t.Run(name, func(t *testing.T) {
			needsRightsFor(t, &sys)
			isAddressed(t, StartListenFDs, os.ProcAttr{Sys: &sys})
		})
	}
}

// The thread can have another pid namespace for what it starts.
func TestStartListenFDsUnsharedThread(t *testing.T) {
	needsTracing(t)
	rights.Need(t, rights.SysAdmin)
	needsShell(t)
	reliesOn(t, namespaces)
	keepsDescriptors(t)
	null := openNull(t)
	var out string
	var err error
	onThrowawayThread(func() {
		if err = syscall.Unshare(syscall.CLONE_NEWPID); err != nil {
			return
		}
		// Process 1 of the namespace.
		p, errStart := StartListenFDs("/bin/sh", []string{"sh", "-c", "exec sleep 1000"}, nil, []*os.File{null})
		if err = errStart; err != nil {
			return
		}
		out, err = outputOf(StartListenFDs, os.ProcAttr{}, []*os.File{null}, "/bin/sh", "-c", sayAddress+"; echo $$")
		p.SendSignal(syscall.SIGKILL)
		reapKilled(p)
	})
	if out != "1 "+os.DevNull+"\n2\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// Programs of all kinds.
func TestStartListenFDsPrograms(t *testing.T) {
	needsTracing(t)
	needsShell(t)
	keepsDescriptors(t)
	files := []*os.File{openNull(t)}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh -u\n"+sayAddress+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := outputOf(StartListenFDs, os.ProcAttr{}, files, script, "a", "b")
	if out != "1 "+os.DevNull+"\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}

	env, err := exec.LookPath("env")
	if err != nil {
		lacks(t, "env(1)")
	}
	out, err = outputOf(StartListenFDs, os.ProcAttr{Env: []string{"A=1", "LISTEN_FDNAMES=x", "Z=2", "A=3"}}, files, env)
	lines := strings.Split(out, "\n")
	ids := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, "LISTEN_PIDFDID=") })
	if _, err := selfID(); err == nil {
		if ids < 0 {
			t.Fatalf("%q", lines)
		}
		id, err := strconv.ParseUint(strings.TrimPrefix(lines[ids], "LISTEN_PIDFDID="), 10, 64)
		if id == 0 || err != nil || strings.HasSuffix(lines[ids], noID) {
			t.Errorf("%q", lines[ids])
		}
		lines = slices.Delete(lines, ids, ids+1)
	}
	pid, _ := strconv.Atoi(strings.TrimPrefix(lines[0], "LISTEN_PID="))
	if pid <= 0 || lines[0] != "LISTEN_PID="+strconv.Itoa(pid) || lines[0] == "LISTEN_PID="+noPID ||
		strings.Join(lines[1:], " ") != "LISTEN_FDS=1 LISTEN_FDNAMES="+os.DevNull+" A=1 Z=2 A=3 " || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// A 64-bit program starts one of 32 bits, and the other way round in the tests for 386.
func TestStartListenFDsOtherWordSize(t *testing.T) {
	needsTracing(t)
	other, ok := map[string]string{"amd64": "386", "386": "amd64"}[runtime.GOARCH]
	if !ok {
		t.Skip("this is for x86")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command")
	}
	keepsDescriptors(t)
	program := buildFor(t, goTool, other)
	if err := exec.Command(program).Run(); err != nil {
		lacks(t, "a kernel that runs programs for "+other)
	}
	for _, attr := range []os.ProcAttr{{}, {Env: []string{"A=1"}}} {
		out, err := outputOf(StartListenFDs, attr, []*os.File{openNull(t)}, program)
		if out != "true "+other+" "+os.DevNull || err != nil {
			t.Errorf("%q, %v", out, err)
		}
	}
}

// buildFor builds a program that tells whether it is addressed.
func buildFor(t *testing.T, goTool, arch string) string {
	t.Helper()
	dir := t.TempDir()
	const text = `package main
		import ("os"; "runtime"; "strconv")
		func main() {
			print := func(s string) { os.Stdout.WriteString(s) }
			print(strconv.FormatBool(os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid())) + " " + runtime.GOARCH + " " + os.Getenv("LISTEN_FDNAMES"))
		}`
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(goTool, "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// A program may have no thread beside its first, nor another process.
func TestStartListenFDsProcessLimit(t *testing.T) {
	needsTracing(t)
	rights.Need(t, rights.SetUID, rights.SetGID)
	needsShell(t)
	for n := 1; n <= 4; n++ {
		if out := output(t, child("start-limited", strconv.Itoa(n))); out != "1 "+os.DevNull+"\n" {
			t.Errorf("%d: %q", n, out)
		}
	}
}

func init() {
	children["start-limited"] = func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		const rlimitNPROC = 6
		number := rlimitNPROC
		if strings.HasPrefix(runtime.GOARCH, "mips") {
			number = 8
		}
		if err := syscall.Setrlimit(number, &syscall.Rlimit{Cur: uint64(n), Max: uint64(n)}); err != nil {
			return err
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		const lonely = 65000 // a user with no other processes
		out, err := outputOf(StartListenFDs, os.ProcAttr{Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: lonely, Gid: lonely}}}, []*os.File{null}, "/bin/sh", "-c", sayAddress)
		fmt.Print(out)
		return err
	}
}

// The descriptors beyond the standard ones come behind what is passed.
func TestStartListenFDsMoreFiles(t *testing.T) {
	needsShim(t)
	needsShell(t)
	keepsDescriptors(t)
	inBothWays(t, func(t *testing.T, start starter) {
		more := func(text string) *os.File {
			f, err := openAt(text, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			f.Seek(0, io.SeekStart)
			return f
		}
		const script = `cat <&3; cat <&4; [ ! -e /dev/fd/5 ] && cat <&6; echo " $LISTEN_FDS"`
		out, err := outputOf(start, os.ProcAttr{Files: []*os.File{more("c"), nil, more("d")}}, []*os.File{more("a")}, "/bin/sh", "-c", script)
		if out != "acd 1\n" || err != nil {
			t.Errorf("%q, %v", out, err)
		}
		out, err = outputOf(start, os.ProcAttr{Files: []*os.File{more("c")}}, nil, "/bin/sh", "-c", `cat <&3; echo "${LISTEN_FDS-unset}"`)
		if out != "cunset\n" || err != nil {
			t.Errorf("%q, %v", out, err)
		}
	})
}

// $WATCHDOG_PID follows if it was that of this process.
func TestStartListenFDsWatchdog(t *testing.T) {
	needsShim(t)
	needsShell(t)
	keepsDescriptors(t)
	const script = `[ "$WATCHDOG_PID" = $$ ] && echo own || echo "$WATCHDOG_PID"; env | grep -c WATCHDOG_PID`
	own := "WATCHDOG_PID=" + strconv.Itoa(os.Getpid())
	inBothWays(t, func(t *testing.T, start starter) {
		for _, files := range [][]*os.File{nil, {openNull(t)}} {
			for want, env := range map[string][]string{
				"own\n1\n":  {"A=1", own, own, "WATCHDOG_PID=3"},
				"3\n1\n":    {"WATCHDOG_PID=3"},
				"4000\n1\n": {"WATCHDOG_PID=4000", own},
				"x\n1\n":    {"WATCHDOG_PID=x"},
			} {
				env = append(env, "PATH="+os.Getenv("PATH"))
				out, err := outputOf(start, os.ProcAttr{Env: env}, files, "/bin/sh", "-c", script)
				if out != want && !strings.HasPrefix(want, "4000") || err != nil || strings.HasPrefix(out, "own") != strings.HasPrefix(want, "own") {
					t.Errorf("%q: %q, %v, want %q", env, out, err, want)
				}
			}
			if out, err := outputOf(start, os.ProcAttr{}, files, "/bin/sh", "-c", `echo "${WATCHDOG_PID-unset}"`); out != "unset\n" || err != nil {
				t.Errorf("%q, %v", out, err)
			}
		}
	})
}

// The program blocks and ignores the signals that it would after os.StartProcess.
func TestStartListenFDsSignalMask(t *testing.T) {
	needsTracing(t)
	keepsDescriptors(t)
	grep, err := exec.LookPath("grep")
	if err != nil {
		lacks(t, "grep(1)")
	}
	words := []string{grep, "-E", "^Sig(Blk|Ign|Pnd)|^ShdPnd|^TracerPid", "/proc/self/status"}
	null := openNull(t)
	// The thread blocks one itself.
	var plain, traced string
	var err1, err2 error
	onThrowawayThread(func() {
		mask := signalMask{1 << (syscall.SIGUSR2 - 1)}
		setSignalMask(mask)
		byOS := func(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
			return StartProcess(argv0, argv, attr)
		}
		plain, err1 = outputOf(byOS, os.ProcAttr{}, nil, words...)
		traced, err2 = outputOf(StartListenFDs, os.ProcAttr{}, []*os.File{null}, words...)
		if now, _ := setSignalMask(mask); now != mask {
			err2 = fmt.Errorf("this thread blocks %x now", now)
		}
	})
	if plain != traced || err1 != nil || err2 != nil || !strings.Contains(plain, "SigBlk:\t0000000000000800\n") {
		t.Errorf("%q, %q, %v, %v", plain, traced, err1, err2)
	}
}

// Whatever could stop the new process is blocked while it is started, but not what calls all
// threads of this one.
func TestStartListenFDsBlocksSignals(t *testing.T) {
	needsTracing(t)
	keepsDescriptors(t)
	var status []byte
	err := StartListenFDsBy(func(string, []string, *os.ProcAttr) (pid int, err error) {
		status, err = os.ReadFile("/proc/thread-self/status")
		return 0, cmp.Or(err, error(syscall.ENOENT))
	}, "x", nil, nil, []*os.File{openNull(t)})
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	fields := procFields(string(status), "SigBlk:")
	if len(fields) != 1 || len(fields[0]) < 16 {
		t.Fatalf("%s", status)
	}
	blocked, err := strconv.ParseUint(fields[0][len(fields[0])-16:], 16, 64)
	want := ^uint64(0)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTRAP, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGSYS, 32, 33, 34} {
		want &^= 1 << (sig - 1)
	}
	if blocked != want || err != nil {
		t.Errorf("%x, %v, want %x", blocked, err, want)
	}
}

// Whoever asks for tracing gets the process stopped, and addressed.
func TestStartListenFDsForTracer(t *testing.T) {
	needsTracing(t)
	needsShell(t)
	keepsDescriptors(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := StartListenFDs("/bin/sh", []string{"sh", "-c", sayAddress}, &os.ProcAttr{Files: []*os.File{nil, w}, Sys: &syscall.SysProcAttr{Ptrace: true}}, []*os.File{openNull(t)})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pid, err := p.PID()
	if err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if got, err := syscall.Wait4(pid, &status, 0, nil); got != pid || err != nil || !status.Stopped() || status.StopSignal() != syscall.SIGTRAP {
		t.Errorf("%d, %v, %v", got, err, status)
	}
	if err := syscall.PtraceDetach(pid); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if string(text) != "1 "+os.DevNull+"\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	result, err := p.Wait(context.Background(), 0)
	isEnd(t, result, err, 0, true)
}

// Signals to the process group come at any moment.
func TestStartListenFDsAmongSignals(t *testing.T) {
	needsTracing(t)
	needsShell(t)
	cmd := child("start-among-signals", strconv.Itoa(fewer(500)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if out := output(t, cmd); out != "ok\n" {
		t.Errorf("%q", out)
	}
}

func init() {
	children["start-among-signals"] = func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM)
		go func() {
			for {
				for _, sig := range []syscall.Signal{syscall.SIGWINCH, syscall.SIGURG, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGHUP, syscall.SIGCONT} {
					syscall.Kill(0, sig)
				}
			}
		}()
		go func() { // which waits for all threads
			for {
				syscall.Setregid(-1, -1)
				time.Sleep(time.Millisecond)
			}
		}()
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		var group waitGroup
		var failed atomic.Pointer[error]
		for range 4 {
			group.Go(func() {
				for range n / 4 {
					out, err := outputOf(StartListenFDs, os.ProcAttr{}, []*os.File{null}, "/bin/sh", "-c", sayAddress)
					if err == nil && out != "1 "+os.DevNull+"\n" {
						err = fmt.Errorf("%q", out)
					}
					if err != nil {
						failed.Store(&err)
						return
					}
				}
			})
		}
		group.Wait()
		if err := failed.Load(); err != nil {
			return *err
		}
		fmt.Println("ok")
		return nil
	}
}

// Others in this process wait for any child, and take what there is.
func TestStartListenFDsAmongReapers(t *testing.T) {
	needsTracing(t)
	needsShell(t)
	if out := output(t, child("start-among-reapers", strconv.Itoa(fewer(300)))); out != "ok\n" {
		t.Errorf("%q", out)
	}
}

func init() {
	children["start-among-reapers"] = func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		for _, options := range []int{0, syscall.WUNTRACED, syscall.WALL | syscall.WUNTRACED} {
			go func() {
				for {
					if _, err := syscall.Wait4(-1, nil, options, nil); err != nil {
						time.Sleep(time.Microsecond)
					}
				}
			}()
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		for range n {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			p, err := StartListenFDs("/bin/sh", []string{"sh", "-c", sayAddress}, &os.ProcAttr{Files: []*os.File{nil, w}}, []*os.File{null})
			w.Close()
			if err != nil {
				return err
			}
			text, err := io.ReadAll(r)
			if string(text) != "1 "+os.DevNull+"\n" || err != nil {
				return fmt.Errorf("%q, %v", text, err)
			}
			p.Close()
			r.Close()
		}
		fmt.Println("ok")
		return nil
	}
}

// Somebody kills the process while it is started.
func TestStartListenFDsKilled(t *testing.T) {
	needsTracing(t)
	needsShell(t)
	keepsDescriptors(t)
	if len(kids(t)) > 0 {
		t.Skip("there are children of other tests")
	}
	stop, stopped := make(chan int), make(chan int)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, pid := range kids(t) {
				if n, err := strconv.Atoi(pid); err == nil {
					syscall.Kill(n, syscall.SIGKILL)
				}
			}
		}
	}()
	null := openNull(t)
	ended := 0
	for range fewer(300) {
		p, err := StartListenFDs("/bin/sh", []string{"sh", "-c", "exec sleep 1000"}, nil, []*os.File{null})
		if err != nil {
			var pathError *os.PathError
			if !errors.Is(err, syscall.ECHILD) && !(errors.As(err, &pathError) && errors.Is(err, syscall.EPIPE)) {
				t.Error(err)
			}
			ended++
			continue
		}
		r, err := p.Wait(context.Background(), 0)
		if err != nil || !r.Status.Signaled() {
			t.Error(r, err)
		}
		p.Close()
	}
	close(stop)
	<-stopped
	t.Logf("%d of %d were killed before the program ran", ended, fewer(300))
	if left := kids(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Where ptrace(2) is forbidden, a shim does it, or an error tells what would help.
func TestStartListenFDsUntraced(t *testing.T) {
	rights.Proc(t)
	needsShim(t)
	needsShell(t)
	null := openNull(t)
	mayChroot := rights.Has(rights.SysChroot)
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSYS, 0} {
		var out string
		var errs [4]error
		underFilter(t, func() error { return refuse(map[int]syscall.Errno{syscall.SYS_PTRACE: errno}) }, func() {
			out, errs[0] = outputOf(StartListenFDs, os.ProcAttr{}, []*os.File{null}, "/bin/sh", "-c", sayAddress)
			shimReady.Store(false)
			_, errs[1] = StartListenFDs("/bin/sh", nil, nil, []*os.File{null})
			_, errs[2] = StartListenFDs("/proc/self/cmdline", nil, nil, []*os.File{null})
			shimReady.Store(true)
			if mayChroot {
				_, errs[3] = StartListenFDs("/bin/sh", nil, &os.ProcAttr{Sys: &syscall.SysProcAttr{Chroot: "/"}}, []*os.File{null})
			}
		})
		// If the filter lets the call succeed and do nothing, the program runs a little
		// before it is killed.
		if !strings.HasSuffix(out, "1 "+os.DevNull+"\n") || errno != 0 && strings.Count(out, "\n") > 1 || errs[0] != nil {
			t.Errorf("%v: %q, %v", errno, out, errs[0])
		}
		want := cmp.Or(errno, syscall.ENOSYS)
		for i, text := range map[int]string{1: "ListenShim", 3: "Chroot"} {
			if i == 3 && !mayChroot {
				continue
			}
			if !errors.Is(errs[i], want) || !strings.Contains(errs[i].Error(), text) || !strings.Contains(errs[i].Error(), "cannot trace") {
				t.Errorf("%v: %v", errno, errs[i])
			}
		}
		if errno != 0 && errs[2] == nil {
			t.Errorf("%v: %v", errno, errs[2])
		}
	}
	// What has other reasons has them.
	program := noProgram(t)
	os.Chmod(program, 0o600)
	for _, shim := range []bool{true, false} {
		shimReady.Store(shim)
		_, err := StartListenFDs(program, nil, nil, []*os.File{null})
		shimReady.Store(true)
		matches(t, err, syscall.EACCES, os.ErrPermission)
		if strings.Contains(err.Error(), "be traced") {
			t.Error(err)
		}
	}
}

// An empty environment is not that of this process.
func TestStartListenFDsEmptyEnvironment(t *testing.T) {
	needsShim(t)
	inBothWays(t, func(t *testing.T, start starter) {
		if _, err := os.Stat("/usr/bin/env"); err != nil {
			lacks(t, "env(1)")
		}
		t.Setenv("SECRET", "1")
		for _, env := range [][]string{{}, {"LISTEN_FDS=1"}} {
			if out, err := outputOf(start, os.ProcAttr{Env: env}, nil, "/usr/bin/env"); out != "" || err != nil {
				t.Errorf("%q: %q, %v", env, out, err)
			}
			out, err := outputOf(start, os.ProcAttr{Env: env}, []*os.File{openNull(t)}, "/usr/bin/env")
			if !strings.Contains(out, "LISTEN_FDS=1\n") || strings.Contains(out, "SECRET") || err != nil {
				t.Errorf("%q: %q, %v", env, out, err)
			}
		}
	})
}

// Nothing is written over what is not a placeholder.
func TestStartListenFDsByOtherOrder(t *testing.T) {
	needsTracing(t)
	needsShell(t)
	keepsDescriptors(t)
	pid := 0
	err := StartListenFDsBy(func(name string, argv []string, attr *os.ProcAttr) (int, error) {
		var err error
		attr.Env = append([]string{"FIRST=1"}, attr.Env...)
		pid, err = startByOS(name, argv, attr)
		return pid, err
	}, "/bin/sh", []string{"sh"}, nil, []*os.File{openNull(t)})
	matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
	var status syscall.WaitStatus
	if got, err := syscall.Wait4(pid, &status, 0, nil); got != pid || status.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v, %v", got, status, err)
	}
}

// A filter that kills who calls ptrace(2), as that of systemd's SystemCallFilter=, kills the new
// process and not this one.
func TestStartListenFDsKillingFilter(t *testing.T) {
	needsShim(t)
	needsShell(t)
	reliesOn(t, killingFilters)
	keepsDescriptors(t)
	null := openNull(t)
	by := func(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
		fd, with := -1, *attr
		with.Sys = &syscall.SysProcAttr{PidFD: &fd}
		if err := StartListenFDsBy(startByOS, argv0, argv, &with, files); err != nil {
			return nil, err
		}
		return TakePidFD(with.Sys)
	}
	const retKillThread, retTrap = 0, 0x00030000
	for _, answer := range []uint32{retKillProcess, retKillThread, retTrap} {
		var out [2]string
		var errs [3]error
		before := kids(t)
		underFilter(t, func() error { return filter(map[int]uint32{syscall.SYS_PTRACE: answer}) }, func() {
			out[0], errs[0] = outputOf(StartListenFDs, os.ProcAttr{}, []*os.File{null}, "/bin/sh", "-c", sayAddress)
			out[1], errs[1] = outputOf(by, os.ProcAttr{}, []*os.File{null}, "/bin/sh", "-c", sayAddress)
			shimReady.Store(false)
			defer shimReady.Store(true)
			_, errs[2] = StartListenFDs("/bin/sh", nil, nil, []*os.File{null})
		})
		for i, out := range out {
			if out != "1 "+os.DevNull+"\n" || errs[i] != nil {
				t.Errorf("%#x, %d: %q, %v", answer, i, out, errs[i])
			}
		}
		if !errors.Is(errs[2], syscall.EPERM) || !strings.Contains(errs[2].Error(), "kills") {
			t.Errorf("%#x: %v", answer, errs[2])
		}
		if after := kids(t); !slices.Equal(before, after) {
			t.Errorf("%#x: children before %q, after %q", answer, before, after)
		}
	}
}

// A shim that somebody stops does not keep its caller waiting.
func TestShimStopped(t *testing.T) {
	needsShim(t)
	keepsDescriptors(t)
	l := newTestLaunch(t, "/proc/self/exe", childVar+"=count")
	s, err := l.startShim()
	if err != nil {
		t.Fatal(err)
	}
	defer s.control.Close()
	s.pidfd.SendSignal(syscall.SIGSTOP)
	if err := s.release(newStartRequest(l), l.argv0); err != nil {
		t.Error(err)
	}
	r, err := s.pidfd.Wait(context.Background(), 0)
	isEnd(t, r, err, 0, true)
	s.pidfd.Close()
}

// copyOfSelf copies the file of this program to where anybody can execute it.
func copyOfSelf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(program, 0o755); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return program
}

func init() {
	// Starts a program from what it says, and prints the outcome of it.
	children["start-as"] = func(args []string) error {
		shimReady.Store(args[0] == "shim")
		if args[1] == "seteuid" {
			if err := syscall.Seteuid(65534); err != nil {
				return err
			}
		}
		start := starter(StartListenFDs)
		var change func(env []string) []string // of StartListenFDsBy
		switch args[1] {
		case "confined":
			runtime.LockOSThread()
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				return err
			}
		case "longer":
			change = func(env []string) []string { return append(env, "A=1", "B=2", "C=3") }
		case "shorter":
			change = func(env []string) []string { return append(env[:4:4], childVar+"=say-who") }
		}
		if change != nil {
			start = func(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
				return nil, StartListenFDsBy(func(name string, argv []string, with *os.ProcAttr) (int, error) {
					with.Env = change(with.Env)
					copy(with.Files, attr.Files[:3])
					return startByOS(name, argv, with)
				}, argv0, argv, attr, files)
			}
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		os.Setenv(childVar, "say-who")
		var attr os.ProcAttr
		if dir, ok := strings.CutPrefix(args[1], "from "); ok {
			if err := os.Chdir(dir); err != nil {
				return err
			}
			attr.Dir, args[2] = filepath.Dir(args[2]), "./"+filepath.Base(args[2])
		}
		if args[1] == "other" {
			attr.Sys = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
		}
		plain, err := outputOf(func(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
			return StartProcess(argv0, argv, attr)
		}, attr, nil, args[2])
		if err != nil {
			return err
		}
		runtime.LockOSThread()
		before := hasCapability(unix.CAP_SYS_PTRACE)
		out, err := outputOf(start, attr, []*os.File{null}, args[2])
		if hasCapability(unix.CAP_SYS_PTRACE) != before {
			fmt.Print("other capabilities are effective, ")
		}
		switch {
		case err != nil && errors.Is(err, syscall.EPERM):
			fmt.Print("EPERM ", err)
		case err != nil:
			fmt.Print(err)
		case strings.Replace(out, "addressed", "not addressed", 1) != plain:
			fmt.Printf("is %q, is not %q", out, plain)
		default:
			fmt.Print(out)
		}
		return nil
	}
	children["say-who"] = func([]string) error {
		status, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			return err
		}
		addressed := "not addressed"
		if files, _ := ListenFDs(); len(files) == 1 {
			addressed = "addressed"
		}
		fmt.Println(addressed, procFields(string(status), "Uid:"), procFields(string(status), "CapPrm:"), procFields(string(status), "CapEff:"), procFields(string(status), "CapAmb:"))
		return nil
	}
}

// setCapability gives a file CAP_NET_BIND_SERVICE, effective at once or not.
func setCapability(t *testing.T, program string, effective bool) {
	t.Helper()
	// A struct vfs_cap_data, little-endian.
	value := make([]byte, 20)
	value[3], value[5] = 2, 1<<(10-8)
	if effective {
		value[0] = 1
	}
	if err := syscall.Setxattr(program, "security.capability", value, 0); err != nil {
		lacks(t, "a file system for files with capabilities: "+err.Error())
	}
}

// Privileges come to the program as without tracing, or it is not started.
func TestStartListenFDsPrivileges(t *testing.T) {
	rights.Proc(t)
	needsTracing(t)
	rights.Need(t, rights.SetUID, rights.SetGID, rights.Chown, rights.SetFCap, rights.SysPtrace)
	reliesOn(t, runsItself)
	self := copyOfSelf(t)
	setuid, capable, latent, unreadable := copyOfSelf(t), copyOfSelf(t), copyOfSelf(t), copyOfSelf(t)
	if err := os.Chown(setuid, 65531, 65531); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(setuid, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(unreadable, 0o711); err != nil {
		t.Fatal(err)
	}
	setCapability(t, capable, true)
	setCapability(t, latent, false)
	const refuses, lost = "EPERM ", "cannot trace the new process"
	for _, test := range []struct {
		name, by, uid, as, program, want string
		shim                             string // with ListenShim; "" = the same
	}{
		{name: "ordinary", by: self, uid: "nobody", program: self, want: "addressed [65532 65532 65532 65532] [0"},
		{name: "setuid", by: self, uid: "nobody", program: setuid, want: refuses + lost, shim: "addressed [65532 65531 65531 65531]"},
		{name: "setuid by root", by: self, uid: "root", program: setuid, want: "addressed [0 65531 65531 65531]"},
		{name: "setuid for another user", by: self, uid: "root", as: "other", program: setuid, want: refuses + lost, shim: "addressed [65533 65531 65531 65531]"},
		{name: "capability", by: self, uid: "nobody", program: capable, want: refuses + lost, shim: "addressed [65532 65532 65532 65532] [0000000000000400] [0000000000000400]"},
		{name: "latent capability", by: self, uid: "nobody", program: latent, want: refuses + lost, shim: "addressed [65532 65532 65532 65532] [0000000000000400] [0000000000000000]"},
		{name: "setuid in vain", by: self, uid: "nobody", as: "confined", program: setuid, want: "addressed [65532 65532 65532 65532]"},
		{name: "capability in vain", by: self, uid: "nobody", as: "confined", program: capable, want: "addressed [65532 65532 65532 65532] [0000000000000000]"},
		{name: "latent capability in vain", by: self, uid: "nobody", as: "confined", program: latent, want: "addressed [65532 65532 65532 65532] [0000000000000000]"},
		{name: "setuid, another environment", by: self, uid: "nobody", as: "longer", program: setuid, want: refuses + lost},
		{name: "capability, another environment", by: self, uid: "nobody", as: "shorter", program: capable, want: refuses + lost},
		{name: "another of that name", by: self, uid: "nobody", as: "from " + filepath.Dir(latent), program: self, want: "addressed [65532 65532 65532 65532]"},
		{name: "latent capability elsewhere", by: self, uid: "nobody", as: "from " + filepath.Dir(self), program: latent, want: refuses + lost, shim: "addressed [65532 65532 65532 65532] [0000000000000400]"},
		{name: "own capability", by: capable, uid: "nobody", program: self, want: "addressed [65532 65532 65532 65532] [0000000000000000]"},
		{name: "unreadable", by: self, uid: "nobody", program: unreadable, want: lost, shim: "addressed [65532"},
		{name: "seteuid", by: self, uid: "root", as: "seteuid", program: self, want: "addressed [0 65534 65534 65534]"},
		{name: "seteuid, setuid", by: self, uid: "root", as: "seteuid", program: setuid, want: "addressed [0 65531 65531 65531]"},
	} {
		for _, shim := range []string{"", "shim"} {
			cmd := child("start-as", shim, test.as, test.program)
			cmd.Path = test.by
			if test.uid == "nobody" {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
			}
			want := test.want
			if shim != "" {
				want = cmp.Or(test.shim, test.want)
			}
			if out := output(t, cmd); !strings.HasPrefix(out, want) {
				t.Errorf("%s %s: %q, want %q", test.name, shim, out, want)
			}
		}
	}
}
