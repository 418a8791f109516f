//go:build linux

package listenexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
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
	"github.com/sysfd/sysfd/internal/rights"
)

// TestMain lets a program of this package be a shim.
func TestMain(m *testing.M) {
	if os.Getenv("WITHOUT_SHIM") == "" {
		sysfd.ListenShim()
	}
	overdue.Report()
	os.Exit(m.Run())
}

const say = `[ "$LISTEN_PID" = $$ ] && echo "$LISTEN_FDS $LISTEN_FDNAMES" || echo "$LISTEN_PID is not $$"`

func null(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// needs skips a test where a process can be started in no way.
func needs(t *testing.T) {
	t.Helper()
	if err := sysfd.FeatureWait.Probe(); err != nil {
		t.Skip(err)
	}
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip(err)
	}
}

// keepsDescriptors fails a test that leaves more descriptors open than it found.
func keepsDescriptors(t *testing.T) {
	t.Helper()
	rights.Proc(t)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	r, w, err := os.Pipe() // the runtime opens its poller's
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	before := count()
	t.Cleanup(func() {
		if after := count(); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func TestStart(t *testing.T) {
	needs(t)
	keepsDescriptors(t)
	more, err := os.Create(filepath.Join(t.TempDir(), "more"))
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	more.WriteString("more")
	more.Seek(0, io.SeekStart)
	var out, errs bytes.Buffer
	cmd := exec.Command("sh", "-c", say+`; cat; cat <&5; pwd; echo "$PWD" >&2; exit 3`)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = strings.NewReader("input "), &out, &errs, "/"
	cmd.ExtraFiles = []*os.File{more}
	before := *cmd
	files := []*os.File{null(t), null(t)}
	if err := Start(cmd, files...); err != nil {
		t.Fatal(err)
	}
	if cmd.Path != before.Path || !slices.Equal(cmd.Args, before.Args) || cmd.Env != nil || cmd.SysProcAttr != nil ||
		!slices.Equal(cmd.ExtraFiles, before.ExtraFiles) || !reflect.DeepEqual(cmd.Dir, before.Dir) {
		t.Errorf("%+v, was %+v", cmd, &before)
	}
	err = cmd.Wait()
	if want := "2 /dev/null:/dev/null\ninput more/\n"; out.String() != want || errs.String() != "/\n" || cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%q, %q, %v", out.String(), errs.String(), err)
	}
	if err := Start(cmd, files...); err == nil || !strings.Contains(err.Error(), "already started") {
		t.Error(err)
	}
}

// Pipes, a context, and the exit status.
func TestStartPipes(t *testing.T) {
	needs(t)
	keepsDescriptors(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", say+`; exec sleep 1000`)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	cmd.Env = []string{"A=1", "A=2", "LISTEN_PID=1", "PATH=" + os.Getenv("PATH")}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := Start(cmd, null(t)); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	if string(line[:n]) != "1 /dev/null\n" || err != nil {
		t.Errorf("%q, %v", line[:n], err)
	}
	cancel()
	if err := cmd.Wait(); !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "terminated") {
		t.Error(err)
	}
	if len(cmd.Env) != 4 {
		t.Errorf("%q", cmd.Env)
	}
	cmd = exec.CommandContext(ctx, "/bin/sh")
	if err := Start(cmd, null(t)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What fails leaves nothing, and says what cmd.Start says.
func TestStartFails(t *testing.T) {
	needs(t)
	keepsDescriptors(t)
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, cmd := range []*exec.Cmd{exec.Command("/nowhere/at/all"), exec.Command("no-such-program-there-is"), exec.Command(os.DevNull), {Path: ""}} {
		other := *cmd
		err, want := Start(cmd, null(t)), other.Start()
		if want == nil || err == nil || err.Error() != want.Error() {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if err := Start(exec.Command("/bin/sh"), closed); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if err := Start(exec.Command("/bin/sh"), nil); !errors.Is(err, os.ErrInvalid) {
		t.Error(err)
	}
}

// What fails once there is a process has read nothing from the standard input, and does not wait
// for it.
func TestStartFailsLate(t *testing.T) {
	needs(t)
	rights.Need(t, rights.SetUID, rights.SetGID)
	keepsDescriptors(t)
	// A program that gains privileges, which is not traced for nobody.
	program := filepath.Join(t.TempDir(), "program")
	text, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	if err := os.WriteFile(program, text, 0o700); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(program); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(program, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	defer w.Close()
	cmd := exec.Command(program, "-c", "exit 3")
	cmd.Stdin, cmd.Stdout = r, io.Discard
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := Start(cmd, null(t)); !errors.Is(err, syscall.EPERM) || cmd.Process == nil {
		t.Fatal(err)
	}
	if cmd.ProcessState == nil || cmd.Stdin != r {
		t.Errorf("%v, %v", cmd.ProcessState, cmd.Stdin)
	}
	go w.Write([]byte("all of it"))
	b := make([]byte, 20)
	if n, err := r.Read(b); string(b[:n]) != "all of it" || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// A listener stays in non-blocking mode, also for its other users.
func TestStartListener(t *testing.T) {
	needs(t)
	keepsDescriptors(t)
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
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	raw.Control(func(n uintptr) { fd, err = syscall.Dup(int(n)) })
	if err != nil {
		t.Fatal(err)
	}
	named := os.NewFile(uintptr(fd), "http")
	defer named.Close()
	var out bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", say)
	cmd.Stdout = &out
	if err := Start(cmd, named); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "1 http\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	l.SetDeadline(time.Now().Add(time.Millisecond))
	if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// A pidfd can be asked for as ever.
func TestStartPidFD(t *testing.T) {
	needs(t)
	keepsDescriptors(t)
	fd := -1
	cmd := exec.Command("/bin/sh", "-c", "exit 7")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	if err := Start(cmd, null(t)); err != nil {
		t.Fatal(err)
	}
	p, err := sysfd.TakePidFD(cmd.SysProcAttr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if r, err := p.Wait(context.Background(), sysfd.WaitNoReap); err != nil || r.Status.ExitStatus() != 7 {
		t.Error(r, err)
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Error(cmd.ProcessState)
	}
}

// Under strace(1) nothing can be traced, and the shim does it, if main lets it.
func TestStartUntraced(t *testing.T) {
	rights.Proc(t)
	needs(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("there is no strace(1)")
	}
	for _, without := range []string{"", "1"} {
		cmd := exec.Command(strace, "-f", "-o", os.DevNull, os.Args[0], "-test.run=^TestStart$", "-test.v")
		cmd.Env = append(os.Environ(), "WITHOUT_SHIM="+without)
		out, err := cmd.CombinedOutput()
		if ok := without == ""; (err == nil) != ok || strings.Contains(string(out), "cannot trace") == ok || strings.Contains(string(out), "ListenShim") == ok {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// Many at once, beside others, and the thread of the caller is as it was.
func TestStartAtOnce(t *testing.T) {
	needs(t)
	keepsDescriptors(t)
	f := null(t)
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range rounds {
				var out bytes.Buffer
				cmd := exec.Command("/bin/sh", "-c", say)
				cmd.Stdout = &out
				want := "1 /dev/null\n"
				err := error(nil)
				if i%2 == 0 {
					err = Start(cmd, f)
				} else {
					cmd.Env, want = []string{"LISTEN_FDS="}, " is not "
					err = cmd.Start()
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := cmd.Wait(); err != nil || !strings.HasPrefix(out.String(), want) {
					t.Errorf("%q, %v", out.String(), err)
				}
			}
		}()
	}
	group.Wait()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	status, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(syscall.Gettid()) + "/status")
	if !strings.Contains(string(status), "SigBlk:\t0000000000000000\n") {
		t.Errorf("%s, %v", status, err)
	}
}
