//go:build linux

package sysfd

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"net"
	"os"
	"os/exec"
	"os/signal"
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
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
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
		case "names":
			for _, name := range oddNames {
				f, err := openAt("x", 0)
				if err != nil {
					return err
				}
				files = append(files, os.NewFile(f.Fd(), name))
				kept = append(kept, f)
			}
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

// When it fails, nothing has changed: neither the descriptors nor what the runtime does with its
// own, nor is a descriptor kept open behind the program's back.
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

// The limit that the runtime has raised is raised again if there is no new program. The limit of
// this process need not have been raised.
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

// The thread that finds out the limit may have children, of which others wait for the end.
func TestInheritedLimitRobsNobody(t *testing.T) {
	reliesOn(t, clones)
	keepsDescriptors(t)
	running, ended := child("sleep"), child("nothing")
	find := func(known bool) {
		overdue := time.AfterFunc(5*time.Second, func() {
			t.Error("it waits for another child")
			running.Process.Kill()
		})
		defer overdue.Stop()
		if _, ok := fileLimitOfStarted(); ok != known {
			t.Errorf("known: %v, want %v", ok, known)
		}
		if pid, err := syscall.Wait4(-1, nil, -1<<31|syscall.WNOTHREAD|syscall.WNOHANG, nil); err != syscall.ECHILD {
			t.Errorf("its own child remains: %d, %v", pid, err)
		}
	}
	underFilter(t, func() error {
		for _, cmd := range []*exec.Cmd{running, ended} {
			if err := cmd.Start(); err != nil {
				return err
			}
		}
		var info siginfo
		if errno := waitOwn(ended.Process.Pid, syscall.WEXITED|syscall.WNOWAIT, &info, nil); errno != 0 {
			return errno
		}
		find(true)
		calls, _ := answersTo("waitid", retErrno|uint32(syscall.EPERM))
		return filter(calls)
	}, func() { find(false) })
	if running.Process != nil {
		reap(running)
	}
	if ended.Process != nil {
		if err := ended.Wait(); err != nil {
			t.Error(err)
		}
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

// The runtime must not be let in while the numbers of its poller are those of passed files: neither
// by the garbage collector nor by a timer.
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
	fd, err := dupConn(f)
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
		{[]string{"LISTEN_FDS=1", `LISTEN_FDNAMES=\`}, `error: LISTEN_FDNAMES="\\": ends with a backslash`},
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

// ways are the ways of ExecListenFDs to execute a program, and how a child comes to each.
var ways = map[string]struct {
	files    int  // that are passed
	inTheWay int  // descriptors from 3 up that the child is started with
	filter   bool // that forbids unshare(2)
	inPlace  bool
}{
	"in place":                  {files: 1, inPlace: true},
	"in place without unshare":  {files: 1, inPlace: true, filter: true},
	"own table":                 {files: 2, inTheWay: 4},
	"own table without unshare": {files: 2, inTheWay: 4, filter: true},
	"own table without unshare, poller in the way": {files: 4, filter: true},
}

// onEachWay calls use with a command that is the named child, which calls execWay.
func onEachWay(t *testing.T, name string, args []string, use func(t *testing.T, way string, cmd *exec.Cmd)) {
	keepsDescriptors(t)
	for way, w := range ways {
		t.Run(way, func(t *testing.T) {
			cmd := child(name, append([]string{way}, args...)...)
			for range w.inTheWay {
				cmd.ExtraFiles = append(cmd.ExtraFiles, openNull(t))
			}
			if w.filter {
				reliesOn(t, seccompFilters, runsItself)
				if olderThan(t, "5.9") {
					t.Skip("close_range is there since Linux 5.9")
				}
				behindFilter(cmd, "unshare", retErrno|uint32(syscall.EPERM))
			}
			use(t, way, cmd)
		})
	}
}

// execWay becomes another child on one of the ways. before is called last of all.
func execWay(way string, c ExecConfig, before func() error, name string, words ...string) error {
	r, w, err := os.Pipe() // the runtime's poller is there then
	if err != nil {
		return err
	}
	r.Close()
	w.Close()
	var files []*os.File
	for range ways[way].files {
		f, err := openAt("a", 0)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		return err
	}
	if err := before(); err != nil {
		return err
	}
	os.Setenv(childVar, name)
	insist := c
	insist.InPlace = true
	if ways[way].inPlace {
		return insist.ExecListenFDs(path, words, os.Environ(), files)
	}
	if err := insist.ExecListenFDs(path, words, os.Environ(), files); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "descriptor ") {
		return fmt.Errorf("in place: %v", err)
	}
	return c.ExecListenFDs(path, words, os.Environ(), files)
}

const schedBatch = 3

func init() {
	// What can be changed without privileges, for the main thread alone.
	children["exec-scheduled"] = func(args []string) error {
		return execWay(args[0], ExecConfig{}, func() error {
			pid := os.Getpid()
			var set, one unix.CPUSet
			if err := unix.SchedGetaffinity(pid, &set); err != nil {
				return err
			}
			for i := range 1024 {
				if set.IsSet(i) {
					one.Zero()
					one.Set(i)
				}
			}
			if err := unix.SchedSetaffinity(pid, &one); err != nil {
				return err
			}
			const bestEffort6 = 2<<13 | 6
			if _, _, errno := syscall.Syscall(unix.SYS_IOPRIO_SET, _IOPRIO_WHO_PROCESS, uintptr(pid), bestEffort6); errno != 0 {
				return os.NewSyscallError("ioprio_set", errno)
			}
			attr := unix.SchedAttr{Policy: schedBatch, Nice: 7, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
			return os.NewSyscallError("sched_setattr", unix.SchedSetAttr(pid, &attr, 0))
		}, "report-scheduling", self()...)
	}
	children["report-scheduling"] = func([]string) error {
		s := schedulingOf(os.Getpid())
		if s.attr == nil {
			return errors.New("it is not known")
		}
		processors := 0
		for _, b := range s.affinity {
			processors += bits.OnesCount8(b)
		}
		fmt.Printf("policy %d, nice %d, flags %d, %d processors, I/O priority %d\n", s.attr.Policy, s.attr.Nice, s.attr.Flags, processors, s.ioPriority)
		return nil
	}
}

// The program is scheduled as the main thread was, whatever thread executes it.
func TestExecListenFDsScheduling(t *testing.T) {
	reliesOn(t, schedulers)
	onEachWay(t, "exec-scheduled", nil, func(t *testing.T, _ string, cmd *exec.Cmd) {
		const want = "policy 3, nice 7, flags 1, 1 processors, I/O priority 16390\n"
		for range fewer(20) {
			again := *cmd
			if got := output(t, &again); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
	})
}

func init() {
	children["exec-locked"] = func(args []string) error {
		return execWay(args[0], ExecConfig{}, func() error {
			fd, err := syscall.Open(args[1], syscall.O_RDWR, 0)
			if err != nil {
				return err
			}
			const elsewhere = 30 // where it is in nobody's way, and goes along
			if err := syscall.Dup3(fd, elsewhere, 0); err != nil {
				return err
			}
			syscall.Close(fd)
			return setRecordLock(elsewhere)
		}, "lock-holder", self(args[1])...)
	}
	children["lock-holder"] = func(args []string) error {
		out, err := child("try-lock", args[0]).Output()
		os.Stdout.Write(out)
		return err
	}
	children["try-lock"] = func(args []string) error {
		fd, err := syscall.Open(args[0], syscall.O_RDWR|syscall.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fmt.Println(setRecordLock(fd))
		return nil
	}
}

func setRecordLock(fd int) error {
	return syscall.FcntlFlock(uintptr(fd), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK})
}

// A record lock is kept in place alone.
func TestExecListenFDsRecordLock(t *testing.T) {
	reliesOn(t, recordLocks)
	onEachWay(t, "exec-locked", []string{tempFile(t)}, func(t *testing.T, way string, cmd *exec.Cmd) {
		kept := ways[way].inPlace
		if kept && olderThan(t, "5.11") {
			t.Skip("kept since Linux 5.11")
		}
		if out := output(t, cmd); (out == "<nil>\n") == kept {
			t.Errorf("another process got %q", out)
		}
	})
}

// A failure does not release the locks on a file that is passed, unless it was moved in place.
func TestExecListenFDsFailsLocked(t *testing.T) {
	keepsDescriptors(t)
	program := noProgram(t)
	for _, files := range []int{1, 2} {
		name := tempFile(t)
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// It is where it belongs, or is moved with a table of one's own.
		cmd := child("exec-fails-locked", program, name, strconv.Itoa(files))
		cmd.ExtraFiles = []*os.File{f, openNull(t)}
		if out := output(t, cmd); out == "<nil>\n" {
			t.Errorf("%d files: another process got the lock", files)
		}
	}
}

func init() {
	children["exec-fails-locked"] = func(args []string) error {
		files := []*os.File{os.NewFile(3, "locked"), os.NewFile(4, "null")}
		if err := setRecordLock(3); err != nil {
			return err
		}
		if args[2] == "1" {
			files = files[:1]
		} else {
			slices.Reverse(files)
		}
		if err := ExecListenFDs(args[0], nil, nil, files); !errors.Is(err, syscall.ENOEXEC) {
			return fmt.Errorf("got %v", err)
		}
		return children["lock-holder"](args[1:])
	}
}

// A failure in place leaves the numbers as they were: close-on-exec or not, and free.
func TestExecConfigFailsInPlace(t *testing.T) {
	keepsDescriptors(t)
	for _, program := range []string{noProgram(t), tempFile(t)} { // ENOEXEC, EACCES
		cmd := child("exec-fails-in-place", program)
		cmd.ExtraFiles = []*os.File{openNull(t), openNull(t)}
		if out := output(t, cmd); out != "ok\n" {
			t.Errorf("%q", out)
		}
	}
}

// What is passed in place is not close-on-exec for a while, which others that are started meanwhile
// do not get.
func TestExecListenFDsBesideForks(t *testing.T) {
	keepsDescriptors(t)
	cmd := child("exec-beside-forks", noProgram(t))
	cmd.ExtraFiles = []*os.File{openNull(t), openNull(t)}
	if out := output(t, cmd); out != "ok\n" {
		t.Errorf("%q", out)
	}
}

func init() {
	children["exec-beside-forks"] = func(args []string) error {
		files := []*os.File{os.NewFile(3, "a"), os.NewFile(4, "b")}
		syscall.CloseOnExec(3)
		syscall.CloseOnExec(4)
		os.Setenv(childVar, "has-3")
		var done atomic.Bool
		var execs waitGroup
		execs.Go(func() {
			for !done.Load() {
				ExecConfig{InPlace: true}.ExecListenFDs(args[0], nil, nil, files)
			}
		})
		defer execs.Wait()
		defer done.Store(true)
		words := self()
		for range 30 {
			out, err := exec.Command(words[0], words[1:]...).Output()
			if err != nil || len(out) > 0 {
				return fmt.Errorf("%s, %v", out, err)
			}
		}
		fmt.Println("ok")
		return nil
	}
	children["has-3"] = func([]string) error {
		for fd := 3; fd <= 4; fd++ {
			if target, _ := readlink("/proc/self/fd/" + strconv.Itoa(fd)); target == os.DevNull {
				fmt.Println("descriptor", fd, "came along")
			}
		}
		return nil
	}
}

func init() {
	children["exec-fails-in-place"] = func(args []string) error {
		syscall.CloseOnExec(3)
		f, err := openAt("a", 20)
		if err != nil {
			return err
		}
		if fd, errno := dupAbove(0, 5); errno != 0 || fd != 5 { // or else the runtime opens something there
			return fmt.Errorf("descriptor %d, %v", fd, errno)
		}
		if _, err := os.Stat("/"); err != nil {
			return err
		}
		syscall.Close(5)
		files := []*os.File{os.NewFile(3, "a"), os.NewFile(4, "b"), f}
		if err := (ExecConfig{InPlace: true}).ExecListenFDs(args[0], nil, nil, files); !errors.Is(err, syscall.ENOEXEC) && !errors.Is(err, syscall.EACCES) {
			return fmt.Errorf("got %v", err)
		}
		if flags, errno := fcntl(3, syscall.F_GETFD, 0); errno != 0 || flags != syscall.FD_CLOEXEC {
			return fmt.Errorf("descriptor 3: %d, %v", flags, errno)
		}
		if flags, errno := fcntl(4, syscall.F_GETFD, 0); errno != 0 || flags != 0 {
			return fmt.Errorf("descriptor 4: %d, %v", flags, errno)
		}
		if why := inherited(5); why != "is not open" {
			return errors.New("descriptor 5 " + why)
		}
		fmt.Println("ok")
		return nil
	}
}

func init() {
	// Here the main thread runs.
	if os.Getenv(childVar) == "report-death-signal" {
		var sig int32
		unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&sig)), 0, 0, 0)
		fmt.Println(syscall.Signal(sig))
		os.Exit(0)
	}
	children["exec-death-signal"] = func(args []string) error {
		return execWay(args[0], ExecConfig{Pdeathsig: syscall.SIGUSR2}, func() error { return nil }, "report-death-signal", self()...)
	}
}

func TestExecConfigPdeathsig(t *testing.T) {
	onEachWay(t, "exec-death-signal", nil, func(t *testing.T, _ string, cmd *exec.Cmd) {
		if got, want := output(t, cmd), syscall.SIGUSR2.String()+"\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("no signal", func(t *testing.T) {
		for _, sig := range []syscall.Signal{-1, 1000, math.MinInt32} {
			err := ExecConfig{Pdeathsig: sig}.ExecListenFDs(noProgram(t), []string{"x"}, nil, []*os.File{openNull(t)})
			matches(t, err, syscall.EINVAL)
		}
	})
	t.Run("parent has died", func(t *testing.T) {
		got := make(chan os.Signal, 1)
		signal.Notify(got, syscall.SIGWINCH)
		defer signal.Stop(got)
		e := execution{deathSignal: syscall.SIGWINCH, parent: -1}
		onThrowawayThread(func() {
			if err := e.prepareThread(); err != nil {
				t.Error(err)
			}
		})
		select {
		case <-got:
		case <-time.After(10 * time.Second):
			t.Error("the signal was not sent")
		}
	})
}

func init() {
	// Calls that fail at once, while others open files beyond the limit that the program would
	// have.
	children["exec-fails-at-once"] = func(args []string) error {
		rounds, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		r := limitReport{}
		r.Before, _ = fileLimit()
		var files []*os.File
		for range 200 {
			f, err := os.Open("/dev/null")
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		stop := make(chan bool)
		var opening, failing waitGroup
		for range 2 {
			opening.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					f, err := os.Open("/dev/null")
					if err != nil {
						atomic.AddInt64(&r.Refused, 1)
						continue
					}
					atomic.AddInt64(&r.Opened, 1)
					f.Close()
				}
			})
		}
		for range rounds {
			for range 2 {
				failing.Go(func() {
					if err := ExecListenFDs(args[0], []string{"x"}, nil, files[:2]); err == nil {
						panic("it has returned")
					}
				})
			}
			failing.Wait()
		}
		close(stop)
		opening.Wait()
		r.After, _ = fileLimit()
		out, err := exec.Command("/bin/sh", "-c", "ulimit -Sn").Output()
		if err != nil {
			return err
		}
		r.Started = strings.TrimSpace(string(out))
		return json.NewEncoder(os.Stdout).Encode(r)
	}
}

type limitReport struct {
	Before, After   syscall.Rlimit
	Opened, Refused int64
	Started         string
}

// After calls that failed the limit of descriptors is what it was, and what is started then gets
// the one that it would have got. Nobody is refused a descriptor for a failure that is known
// before.
func TestExecListenFDsFailsAtOnce(t *testing.T) {
	reliesOn(t, clones)
	keepsDescriptors(t)
	sh, err := exec.LookPath("sh")
	if err != nil {
		lacks(t, "sh")
	}
	forbidden := tempFile(t) // it cannot be executed
	for name, program := range map[string]string{"known before": forbidden, "not known before": noProgram(t)} {
		for _, filter := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", without unshare: ", filter), func(t *testing.T) {
				rounds := 400
				if filter || name == "known before" {
					rounds = 50
				}
				cmd := child("exec-fails-at-once", program, strconv.Itoa(fewer(rounds)))
				if filter {
					reliesOn(t, seccompFilters, runsItself)
					if olderThan(t, "5.9") {
						t.Skip("close_range is there since Linux 5.9")
					}
					behindFilter(cmd, "unshare", retErrno|uint32(syscall.EPERM))
				}
				cmd.Args = append([]string{"sh", "-c", `ulimit -Sn 128; exec "$@"`, "sh"}, cmd.Args...)
				cmd.Path = sh
				var r limitReport
				decodeJSON(t, output(t, cmd), &r)
				t.Logf("%+v", r)
				if r.Before.Cur <= 200 {
					t.Skipf("the runtime has not raised %v", r.Before)
				}
				if r.Before != r.After {
					t.Errorf("before %v, after %v", r.Before, r.After)
				}
				if !filter && r.Started != "128" {
					t.Errorf("what is started then has %s", r.Started)
				}
				if r.Refused > 0 && !filter && name == "known before" && !olderThan(t, "6.14") {
					t.Errorf("%d of %d files could not be opened", r.Refused, r.Refused+r.Opened)
				}
			})
		}
	}
}

func init() {
	children["exec-slow"] = func(args []string) error {
		return execWay(args[0], ExecConfig{}, func() error {
			go func() { // each of these needs a thread
				for {
					go syscall.Nanosleep(&syscall.Timespec{Sec: 3600}, nil)
					os.Stdout.WriteString(".")
					time.Sleep(5 * time.Millisecond)
				}
			}()
			return nil
		}, "nothing", args[1])
	}
}

// A tickCount counts the bytes that are written to it.
type tickCount struct{ atomic.Int64 }

func (c *tickCount) Write(b []byte) (int, error) {
	c.Add(int64(len(b)))
	return len(b), nil
}

// That execve(2) takes long does not end the process because the runtime wants threads meanwhile.
// In place, other goroutines run, though there is one processor.
func TestExecListenFDsSlow(t *testing.T) {
	rights.Proc(t)
	rights.Need(t, rights.SysAdmin)
	program := filepath.Join(t.TempDir(), "program")
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o700); err != nil {
		t.Fatal(err)
	}
	onEachWay(t, "exec-slow", []string{program}, func(t *testing.T, way string, cmd *exec.Cmd) {
		group := fanotifyGroup(t, "2.6.37", unix.FAN_CLASS_CONTENT)
		markFanotify(t, group, 0, FAN_ACCESS_PERM, program)
		var ticks tickCount
		cmd.Stdout = &ticks
		cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan bool)
		go func() {
			defer close(done)
			var b [24]byte // an event
			for first := true; ; first = false {
				if _, err := io.ReadFull(group, b[:]); err != nil {
					return
				}
				if first {
					before := ticks.Load()
					time.Sleep(400 * time.Millisecond)
					for i := 0; way == "in place" && ticks.Load() < before+20; i++ {
						if i == 1000 {
							t.Errorf("%d ticks while execve waits", ticks.Load()-before)
							break
						}
						time.Sleep(30 * time.Millisecond)
					}
				}
				fd := b[16:20]
				group.Write(binary.NativeEndian.AppendUint32(slices.Clip(fd), unix.FAN_ALLOW))
				syscall.Close(int(native32(fd)))
			}
		}()
		err := cmd.Wait()
		group.Close()
		<-done
		if err != nil {
			t.Error(err)
		}
	})
}

// What ExecListenFDs and StartProcess say of ignored signals.
func TestExecListenFDsIgnoredSignals(t *testing.T) {
	reliesOn(t, ignoredSignals)
	needs(t, FeatureWait)
	keepsDescriptors(t)
	sh, err := exec.LookPath("sh")
	if err != nil {
		lacks(t, "sh")
	}
	bits := func(signals ...syscall.Signal) (set uint64) {
		for _, sig := range signals {
			set |= 1 << (sig - 1)
		}
		return set
	}
	asked := bits(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGQUIT, syscall.SIGUSR1)
	for _, how := range []string{"exec", "start"} {
		for ignores, want := range map[string]uint64{
			"":        bits(syscall.SIGHUP, syscall.SIGINT),
			"ignores": bits(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGUSR1),
		} {
			cmd := child("exec-ignoring", how, ignores)
			cmd.Args = append([]string{"sh", "-c", `trap "" HUP INT PIPE QUIT; exec "$@"`, "sh"}, cmd.Args...)
			cmd.Path = sh
			out := output(t, cmd)
			got, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(out, "SigIgn:")), 16, 64)
			if err != nil || got&asked != want {
				t.Errorf("%s %s: %q, %v, want %x", how, ignores, out, err, want)
			}
		}
	}
}

func init() {
	children["exec-ignoring"] = func(args []string) error {
		if args[1] != "" {
			signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR1)
		}
		argv := []string{"grep", "SigIgn", "/proc/self/status"}
		path, err := exec.LookPath(argv[0])
		if err != nil {
			return err
		}
		if args[0] == "exec" {
			return ExecListenFDs(path, argv, os.Environ(), []*os.File{os.Stdin})
		}
		p, err := StartProcess(path, argv, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		if err != nil {
			return err
		}
		_, err = p.Wait(context.Background(), 0)
		return err
	}
}

// Names go on as they came, whatever they are.
func TestExecListenFDsNames(t *testing.T) {
	keepsDescriptors(t)
	var r listenReport
	decodeJSON(t, output(t, child("exec", "names")), &r)
	if r.Err != "" || !slices.Equal(r.Names, oddNames[:]) {
		t.Errorf("%+v", r)
	}
}

var oddNames = []string{"web:1", "größe", `a\b`, "", `\`, ":", "a\nb", "\u2028 ", strings.Repeat(`:\`, 3000), "x"}

func FuzzJoinNames(f *testing.F) {
	f.Add("a", "b")
	f.Add("", "")
	f.Add(`\`, ":")
	f.Add("web:1", "größe\xff\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, names := range [][]string{{a}, {a, b}, {b, a, a}} {
			text := joinNames(names)
			if got, ok := splitNames(text); !ok || !slices.Equal(got, names) {
				t.Errorf("%q: %q, %q", names, text, got)
			}
			if !slices.ContainsFunc(names, func(s string) bool { return !ValidFDName(s) }) && text != strings.Join(names, ":") {
				t.Errorf("%q: %q", names, text)
			}
		}
	})
}

func TestRenewWatchdog(t *testing.T) {
	own, parent := "WATCHDOG_PID="+strconv.Itoa(os.Getpid()), "WATCHDOG_PID="+strconv.Itoa(os.Getppid())
	for _, test := range []struct{ env, want []string }{
		{nil, nil},
		{[]string{"A=1", parent, "WATCHDOG_USEC=5"}, []string{own, "A=1", "WATCHDOG_USEC=5"}},
		{[]string{"LISTEN_PID=4711", "WATCHDOG_PID=4711", "B=2"}, []string{own, "B=2"}},
		{[]string{"LISTEN_PID= 0x10", "WATCHDOG_PID=16"}, []string{own}},
		{[]string{"LISTEN_PID=4711", "LISTEN_PID=1", "WATCHDOG_PID=4711", "WATCHDOG_PID=1"}, []string{own}},
		// Another's, or nobody's.
		{[]string{"WATCHDOG_PID=4711"}, []string{"WATCHDOG_PID=4711"}},
		{[]string{"LISTEN_PID=4712", "WATCHDOG_PID=4711"}, []string{"WATCHDOG_PID=4711"}},
		{[]string{"LISTEN_PID=x", "WATCHDOG_PID=x"}, []string{"WATCHDOG_PID=x"}},
		{[]string{"LISTEN_PID=0", "WATCHDOG_PID=0"}, []string{"WATCHDOG_PID=0"}},
		{[]string{"LISTEN_PID=", "WATCHDOG_PID="}, []string{"WATCHDOG_PID="}},
		{[]string{own}, []string{own}},
	} {
		before := slices.Clone(test.env)
		got, err := RenewListenEnv(test.env)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, %v; want %q", test.env, got, err, test.want)
		}
		if !slices.Equal(before, test.env) {
			t.Errorf("%q has become %q", before, test.env)
		}
	}
}
