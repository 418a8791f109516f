//go:build linux

package sysfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// becomeListen passes files on to the child "listen".
func becomeListen(files []*os.File) error {
	words := self()
	path, err := exec.LookPath(words[0])
	if err != nil {
		return err
	}
	os.Setenv(childVar, "listen")
	env := append(os.Environ(), "LISTEN_PID=1", "LISTEN_PIDFDID=1", "LISTEN_FDS=9", "LISTEN_FDNAMES=stale")
	return ExecListenFDs(path, words, env, files)
}

// openAt opens a file of its own content and name on descriptor fd, 0 = any.
func openAt(name string, fd int) (*os.File, error) {
	f, err := os.CreateTemp("", "sysfd")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	if _, err := f.WriteString(name); err != nil {
		return nil, err
	}
	old, err := syscall.Dup(int(f.Fd()))
	f.Close()
	if err != nil || fd == 0 || fd == old {
		return os.NewFile(uintptr(old), name), err
	}
	err = syscall.Dup3(old, fd, syscall.O_CLOEXEC)
	syscall.Close(old)
	return os.NewFile(uintptr(fd), name), err
}

func init() {
	children["exec"] = func(args []string) error {
		// The poller's descriptors come to lie where the files are to go.
		poller, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer poller.Close()
		go poller.Accept()
		var files []*os.File
		switch args[0] {
		case "swapped":
			a, err := openAt("a", 0)
			if err != nil {
				return err
			}
			b, err := openAt("b", 0)
			if err != nil {
				return err
			}
			files = []*os.File{b, a}
		case "overlapping":
			// Each is where the next one is to go.
			for i := range 5 {
				f, err := openAt(string(rune('a'+i)), 20+i)
				if err != nil {
					return err
				}
				files = append(files, f)
			}
			files = append(files[1:], files[0])
		case "twice":
			a, err := openAt("a", 0)
			if err != nil {
				return err
			}
			files = []*os.File{a, a}
		case "many":
			for i := range 40 {
				f, err := openAt(fmt.Sprint(i), 0)
				if err != nil {
					return err
				}
				files = append(files, f)
			}
			slices.Reverse(files)
		case "none":
		case "main-thread":
			// As a program does that must stay on its first thread.
			runtime.LockOSThread()
			a, err := openAt("a", 0)
			if err != nil {
				return err
			}
			files = []*os.File{a}
		}
		return becomeListen(files)
	}
}

func TestExecListenFDs(t *testing.T) {
	keepsDescriptors(t)
	var many []string
	for i := range 40 {
		many = append(many, strconv.Itoa(39-i))
	}
	for name, want := range map[string][]string{
		"swapped":     {"b", "a"},
		"overlapping": {"b", "c", "d", "e", "a"},
		"twice":       {"a", "a"},
		"many":        many,
		"none":        nil,
		"main-thread": {"a"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := child("exec", name)
			var r listenReport
			decodeJSON(t, output(t, cmd), &r)
			if r.Err != "" || !slices.Equal(r.Names, want) || !slices.Equal(r.Contents, want) {
				t.Errorf("%+v", r)
			}
			variables := 4
			if id, err := selfID(); err != nil || id == 0 {
				variables = 3
			}
			if want == nil {
				variables = 0
			}
			if len(r.Inspected.Environ) != variables {
				t.Errorf("%q", r.Inspected.Environ)
			}
		})
	}
}

// When it fails, nothing has changed: neither the descriptors nor what the runtime
// does with its own, nor is a descriptor kept open behind the program's back.
func TestExecListenFDsFails(t *testing.T) {
	keepsDescriptors(t)
	program := noProgram(t)
	check := func() {
		t.Helper()
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
		if err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		defer r.Close()
		files := make([]*os.File, 30)
		for i := range files {
			if files[i], err = openAt("x", 0); err != nil {
				t.Fatal(err)
			}
			defer files[i].Close()
		}
		before := descriptors(t)
		err = ExecListenFDs(program, []string{"program"}, os.Environ(), files)
		matches(t, err, syscall.ENOEXEC)
		if err == nil || !strings.Contains(err.Error(), program) {
			t.Errorf("%v does not name the program", err)
		}
		if after := descriptors(t); !slices.Equal(before, after) {
			t.Errorf("open before: %q\nopen after: %q", before, after)
		}
		// The poller still works.
		r.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		// The other end is told that this one is gone.
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		err = ExecListenFDs(program, nil, nil, files[:1])
		matches(t, err, syscall.ENOEXEC)
		server.Close()
		l.Close()
		client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := client.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection is still open: %d, %v", n, err)
		}
	}
	for range 20 {
		check()
	}
	var limit, after syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for program, want := range map[string]error{program: syscall.ENOEXEC, program + "x": syscall.ENOENT} {
		if err := ExecListenFDs(program, nil, nil, []*os.File{null}); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); limit != after {
		t.Errorf("limit before %v, after %v", limit, after)
	}
}

// The limit that the runtime has raised is raised again if there is no new program. The limit
// of this process need not have been raised.
func TestExecListenFDsRaisesLimitAgain(t *testing.T) {
	cmd := child("exec-with-limit", noProgram(t))
	cmd.Args = append([]string{"sh", "-c", `ulimit -Sn 128; exec "$@"`, "sh"}, cmd.Args...)
	path, err := exec.LookPath("sh")
	if err != nil {
		lacks(t, "sh")
	}
	cmd.Path = path
	var limits [2]syscall.Rlimit
	decodeJSON(t, output(t, cmd), &limits)
	if limits[0].Cur <= 128 {
		t.Skipf("the runtime has not raised %v", limits[0])
	}
	if limits[0] != limits[1] {
		t.Errorf("before %v, after %v", limits[0], limits[1])
	}
}

func init() {
	children["exec-with-limit"] = func(args []string) error {
		var limits [2]syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limits[0]); err != nil {
			return err
		}
		if err := ExecListenFDs(args[0], nil, nil, []*os.File{os.Stdin}); !errors.Is(err, syscall.ENOEXEC) {
			return fmt.Errorf("got %v", err)
		}
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limits[1]); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(limits)
	}
}

// noProgram returns the path of a file that execve refuses only when it has read it.
func noProgram(t *testing.T) string {
	t.Helper()
	name := tempFile(t)
	if err := os.Chmod(name, 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// The runtime must not be let in while the numbers of its poller are those of
// passed files: neither by the garbage collector nor by a timer.
func TestExecListenFDsUnderLoad(t *testing.T) {
	keepsDescriptors(t)
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // keepsDescriptors has stopped the collector
	program := noProgram(t)
	stop := make(chan bool)
	var group waitGroup
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Microsecond):
					garbage.Store(new([20000]byte))
				}
			}
		})
	}
	files := make([]*os.File, 12) // enough for the poller's numbers
	for i := range files {
		f, err := openAt("x", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	var env []string
	for i := range 300 {
		env = append(env, fmt.Sprintf("V%d=%s", i, strings.Repeat("x", 300)))
	}
	n := 0
	for start := time.Now(); time.Since(start) < time.Second; n++ {
		if err := ExecListenFDs(program, []string{"program"}, env, files); !errors.Is(err, syscall.ENOEXEC) {
			t.Fatal(err)
		}
	}
	t.Log(n, "times")
	close(stop)
	group.Wait()
}

var garbage atomic.Pointer[[20000]byte]

func init() {
	// The thread of main cannot end, so it must not be the one that tries.
	children["exec-fails-on-main"] = func(args []string) error {
		f, err := openAt("a", 0)
		if err != nil {
			return err
		}
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		for range 50 {
			if err := ExecListenFDs(args[0], nil, nil, []*os.File{f}); !errors.Is(err, syscall.ENOEXEC) {
				return fmt.Errorf("got %v", err)
			}
		}
		w.Close()
		r.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := r.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the pipe is still open: %d, %v", n, err)
		}
		fmt.Println("ok")
		return nil
	}
}

func TestExecListenFDsFailsOnMain(t *testing.T) {
	for _, procs := range []string{"1", "2"} {
		cmd := child("exec-fails-on-main", noProgram(t))
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+procs)
		if out := output(t, cmd); out != "ok\n" {
			t.Errorf("%q", out)
		}
	}
}

func TestExecListenFDsErrors(t *testing.T) {
	keepsDescriptors(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const name = "a\x00b"
	f := os.NewFile(uintptr(dup(t, null)), name)
	defer f.Close()
	err = ExecListenFDs("/bin/true", []string{"true"}, nil, []*os.File{null, f})
	matches(t, err, syscall.EINVAL)
	if err != nil && !strings.Contains(err.Error(), strconv.Quote(name)) {
		t.Errorf("%v does not name %q", err, name)
	}
	err = ExecListenFDs("/bin/true", []string{"true"}, nil, []*os.File{nil})
	matches(t, err, os.ErrInvalid)
	closed := os.NewFile(uintptr(dup(t, null)), "closed")
	closed.Close()
	err = ExecListenFDs("/proc/self/exe", []string{"sysfd.test", "-test.run=^$"}, nil, []*os.File{null, closed})
	matches(t, err, os.ErrClosed)
	err = ExecListenFDs("/bin/true\x00", []string{"true"}, nil, []*os.File{null})
	matches(t, err, syscall.EINVAL)
}

func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := dupFile(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func init() {
	children["renew"] = func([]string) error {
		env, err := RenewListenEnv(os.Environ())
		if err != nil {
			fmt.Println("error:", err)
			return nil
		}
		id, err := selfID()
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		replace := strings.NewReplacer("LISTEN_PID="+strconv.Itoa(os.Getpid()), "LISTEN_PID=own", "LISTEN_PIDFDID="+id.String(), "LISTEN_PIDFDID=own")
		for _, s := range env {
			if strings.HasPrefix(s, "LISTEN_") {
				fmt.Println(replace.Replace(s))
			}
		}
		if len(env) < 2 || !slices.Contains(env, childVar+"=renew") {
			fmt.Println("the rest of the environment is gone")
		}
		return nil
	}
}

func TestRenewListenEnv(t *testing.T) {
	keepsDescriptors(t)
	null := openNull(t)
	own := "LISTEN_PIDFDID=own\n"
	if _, err := selfID(); err != nil {
		own = ""
	}
	for _, test := range []struct {
		env  []string
		want string
	}{
		{nil, ""},
		{[]string{"LISTEN_PID=1", "LISTEN_PIDFDID=1", "LISTEN_FDNAMES=a:b"}, ""},
		{[]string{"LISTEN_PID=1", "LISTEN_PIDFDID=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=a:b"}, "LISTEN_PID=own\n" + own + "LISTEN_FDS=2\nLISTEN_FDNAMES=a:b\n"},
		{[]string{"LISTEN_FDS=1"}, "LISTEN_PID=own\n" + own + "LISTEN_FDS=1\n"},
		{[]string{"LISTEN_PID=x", "LISTEN_FDS=0x2", `LISTEN_FDNAMES=\::`}, "LISTEN_PID=own\n" + own + "LISTEN_FDS=0x2\n" + `LISTEN_FDNAMES=\::` + "\n"},
		{[]string{"LISTEN_PID=1", "LISTEN_FDS=4"}, "error: LISTEN_FDS=\"4\": descriptor "},
		{[]string{"LISTEN_FDS=x"}, "error: LISTEN_FDS=\"x\": not a number"},
		{[]string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a"}, "error: LISTEN_FDNAMES=\"a\": that is 1 name for 2"},
		{[]string{"LISTEN_FDS=1", `LISTEN_FDNAMES=\`}, `error: LISTEN_FDNAMES="\\": nothing behind`},
	} {
		cmd := child("renew")
		cmd.Env = append(cmd.Env, test.env...)
		cmd.ExtraFiles = []*os.File{null, null}
		out := output(t, cmd)
		if out != test.want && !(strings.HasPrefix(test.want, "error") && strings.HasPrefix(out, test.want)) {
			t.Errorf("%q: %q, want %q", test.env, out, test.want)
		}
	}
	// The first of two counts, as it does for those who read it.
	env, err := RenewListenEnv([]string{"LISTEN_FDS=x", "LISTEN_FDS=1"})
	matches(t, err, syscall.EINVAL)
	if env != nil {
		t.Errorf("%q", env)
	}
}
