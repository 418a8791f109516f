//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/rights"
)

// A program is a process that ends with status 3 when its stdin is closed.
type program struct {
	*exec.Cmd
	stdin interface{ Close() error }
	ref   string
	once  bool
}

func startProgram(t *testing.T) *program {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read x; exit 3")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: cmd, stdin: stdin}
	t.Cleanup(p.end)
	id, err := pidfdID(cmd.Process.Pid)
	if err != nil {
		t.Skip(err)
	}
	p.ref = sysfd.ProcessRef{PID: cmd.Process.Pid, ID: id}.Short()
	return p
}

// With this variable the command runs as on a kernel that lacks the system calls with these numbers.
const withoutVar = "SYSFD_TEST_WITHOUT"

// againWithout executes this program anew where the system calls fail.
func againWithout(numbers string) error {
	os.Unsetenv(withoutVar)
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // nr of struct seccomp_data
	for _, number := range strings.Split(numbers, ",") {
		nr, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return err
		}
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(nr), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

func commandWithout(calls []int, args ...string) *exec.Cmd {
	cmd := sysfdCommand(args...)
	numbers := strings.Trim(strings.ReplaceAll(fmt.Sprint(calls), " ", ","), "[]")
	cmd.Env = append(cmd.Env, withoutVar+"="+numbers)
	return cmd
}

// commandWithoutIDs runs as on a kernel without pidfd IDs.
func commandWithoutIDs(args ...string) *exec.Cmd {
	return commandWithout([]int{unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FSTATFS}, args...)
}

// What sysfd id -ref prints there names the process for all that take a name, and what it is is said.
func TestSecondBest(t *testing.T) {
	rights.Proc(t)
	cmd := exec.Command("sh", "-c", "read x; exit 3")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: cmd, stdin: stdin}
	t.Cleanup(p.end)
	out, errs, code := status(t, commandWithoutIDs("id", "-ref", p.pid()))
	text := strings.TrimSpace(out)
	ref, err := sysfd.ParseProcessRef(text)
	if code != 0 || err != nil || ref.ID != 0 || ref.StartTime == 0 || ref.PID != cmd.Process.Pid || !strings.Contains(errs, "sysfd id: process "+p.pid()+": ") || !strings.Contains(errs, "second best") {
		t.Fatalf("status %d, %q, %q, %v", code, out, errs, err)
	}
	if _, errs, code := status(t, commandWithoutIDs("id", p.pid())); code != 3 || errs == "" {
		t.Errorf("status %d, %q", code, errs)
	}
	other := ref
	other.StartTime++
	for _, command := range []func(args ...string) *exec.Cmd{commandWithoutIDs, sysfdCommand} {
		out, errs, code := status(t, command("info", text))
		if code != 0 || !strings.Contains(out, p.pid()+":") || !strings.Contains(out, "running") {
			t.Errorf("info: status %d, %q, %q", code, out, errs)
		}
		out, errs, code = status(t, command("kill", "-s", "0", text))
		if code != 0 || out != "" || errs != "" {
			t.Errorf("kill: status %d, %q, %q", code, out, errs)
		}
		out, errs, code = status(t, command("kill", other.String()))
		if code != 1 || out != "" || !strings.HasPrefix(errs, "sysfd kill: process "+other.Short()+" is gone: its PID is that of a process that started at ") {
			t.Errorf("kill another: status %d, %q, %q", code, out, errs)
		}
		out, errs, code = status(t, command("wait", "-timeout", "0.01", text))
		if code != 124 || out != "" {
			t.Errorf("wait: status %d, %q, %q", code, out, errs)
		}
		out, errs, code = status(t, command("wait", other.String()))
		if code != 0 || !strings.Contains(out, other.String()+": ") || !strings.Contains(out, "it had already ended") {
			t.Errorf("wait for another: status %d, %q, %q", code, out, errs)
		}
	}
	var list []processInfo
	succeeds(t, commandWithoutIDs("info", "-json", p.pid()), &list)
	if len(list) != 1 || list[0].Process == nil || *list[0].Process != ref {
		t.Errorf("%+v", list)
	}
}

// end lets it end, and reaps it.
func (p *program) end() {
	if !p.once {
		p.once = true
		p.stdin.Close()
		p.Wait()
	}
}

func (p *program) pid() string { return strconv.Itoa(p.Process.Pid) }

// otherID returns the name of a process that has the PID but not the ID.
func (p *program) otherID() string { return p.ref + "1" }

func TestInfo(t *testing.T) {
	p := startProgram(t)
	whole, _, _ := status(t, sysfdCommand("id", "-ref", p.pid()))
	for _, arg := range []string{p.pid(), p.ref, strings.TrimSpace(whole)} {
		var list []processInfo
		succeeds(t, sysfdCommand("info", "-json", arg), &list)
		if len(list) != 1 || list[0].Process == nil || list[0].Process.Short() != p.ref || list[0].Zombie {
			t.Fatalf("%+v", list)
		}
		if parent := list[0].Parent; parent != nil && *parent != os.Getpid() {
			t.Errorf("parent %d, want %d", *parent, os.Getpid())
		}
		if user := list[0].User; user != nil && (int(user.Real) != os.Getuid() || user.String() != strconv.Itoa(os.Getuid())) {
			t.Errorf("user %v", user)
		}
	}
	out, errs, code := status(t, sysfdCommand("info", p.pid(), p.otherID(), "self"))
	if code != 1 || !strings.Contains(out, p.ref) || strings.Count(out, "process ") != 2 || strings.Count(errs, "process "+p.otherID()) != 1 || strings.Count(errs, "\n") != 1 {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	// A zombie is there until its parent has taken notice.
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	fd, err := sysfd.OpenPidFD(p.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if _, err := fd.Wait(t.Context(), sysfd.WaitNoReap); err != nil {
		t.Fatal(err)
	}
	var list []processInfo
	succeeds(t, sysfdCommand("info", "-json", p.ref), &list)
	if !list[0].Zombie {
		t.Errorf("%+v", list)
	}
	p.end()
	out, errs, code = status(t, sysfdCommand("info", "-json", p.ref))
	if code != 1 || out != "[]\n" || !strings.Contains(errs, p.ref) {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
}

// userVar makes the test binary a process of several users and groups.
const userVar = "SYSFD_TEST_USERS"

func severalUsers() error {
	if err := errors.Join(syscall.Setresgid(11, 12, 13), syscall.Setresuid(1, 2, 3)); err != nil {
		return err
	}
	os.Stdout.WriteString("ready\n")
	_, err := io.ReadAll(os.Stdin)
	return err
}

func TestInfoUsers(t *testing.T) {
	rights.Need(t, rights.SetUID, rights.SetGID)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), userVar+"=1")
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	out, errs, code := status(t, sysfdCommand("info", strconv.Itoa(cmd.Process.Pid)))
	if code != 0 || errs != "" {
		t.Fatalf("status %d, %q", code, errs)
	}
	got := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(line, "  ")
		got[key] = strings.TrimSpace(value)
	}
	if got["user"] == "" {
		t.Skip("this kernel does not tell: ", out)
	}
	for key, want := range map[string]string{
		"user": "real 1, effective 2, saved 3, for files 2", "group": "real 11, effective 12, saved 13, for files 12",
	} {
		if got[key] != want {
			t.Errorf("%s %q, want %q", key, got[key], want)
		}
	}
}

func TestIDsString(t *testing.T) {
	for i, want := range map[ids]string{
		{0, 0, 0, 0}: "0", {1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1}: "4294967295",
		{1, 1, 1, 2}: "real 1, effective 1, saved 1, for files 2",
		{1, 1, 2, 1}: "real 1, effective 1, saved 2, for files 1",
		{1, 2, 1, 1}: "real 1, effective 2, saved 1, for files 1",
	} {
		if i.String() != want {
			t.Errorf("%q, want %q", i.String(), want)
		}
	}
}

func TestThreadIsNoProcess(t *testing.T) {
	rights.Proc(t)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		if thread.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		_, errs, code := status(t, sysfdCommand("id", thread.Name()))
		if code != 1 || !strings.Contains(errs, "this is the PID of a thread, not of a process") {
			t.Errorf("status %d, %q", code, errs)
		}
		return
	}
}

// opened waits until cmd has opened n processes.
func opened(t *testing.T, cmd *exec.Cmd, n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", cmd.Process.Pid)
	for range 1000 {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, e := range entries {
			if link, err := os.Readlink(dir + e.Name()); err == nil && strings.Contains(link, "pidfd") {
				found++
			}
		}
		if found >= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%v has not opened %d processes", cmd, n)
}

func TestWait(t *testing.T) {
	rights.Proc(t)
	first, second, third := startProgram(t), startProgram(t), startProgram(t)
	cmd := sysfdCommand("wait", first.ref, second.pid())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	opened(t, cmd, 2)
	lines := bufio.NewScanner(stdout)
	said := func(arg, how string) {
		t.Helper()
		lines.Scan()
		if line := lines.Text(); line != arg+": "+how && !strings.Contains(line, "not supported by this kernel") {
			t.Errorf("%q, want %s: %s", line, arg, how)
		}
	}
	first.end()
	said(first.ref, "exit status 3") // before the second one has ended
	second.Process.Kill()
	second.end()
	said(second.pid(), "signal 9 (killed)")
	if lines.Scan() || cmd.Wait() != nil {
		t.Errorf("%q, %v", lines.Text(), cmd.ProcessState)
	}

	out, errs, code := status(t, sysfdCommand("wait", "-timeout", "10ms", third.ref))
	if code != 124 || out != "" || !strings.Contains(errs, "1 process did not end within 10ms") {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	for _, args := range [][]string{{"wait", first.ref}, {"wait", "-any", third.ref, first.ref}} {
		out, errs, code = status(t, sysfdCommand(args...))
		if code != 0 || !strings.HasPrefix(out, first.ref+": status unknown") || errs != "" {
			t.Errorf("status %d, %q, %q", code, out, errs)
		}
	}
	out, errs, code = status(t, sysfdCommand("wait", first.pid()))
	if code != 1 || out != "" || errs != "sysfd wait: no process has the PID "+first.pid()+"\n" {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	fourth := startProgram(t)
	var printed strings.Builder
	wait := sysfdCommand("wait", "-any", third.ref, fourth.pid())
	wait.Stdout = &printed
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	opened(t, wait, 2)
	fourth.end()
	if err := wait.Wait(); err != nil || !strings.HasPrefix(printed.String(), fourth.pid()+": ") || strings.Count(printed.String(), "\n") != 1 {
		t.Errorf("%v, %q", err, printed.String())
	}
}

// A parent that never reaps is not waited for, unless that is asked for.
func TestWaitZombie(t *testing.T) {
	p := startProgram(t)
	if err := p.Process.Kill(); err != nil { // and it is not waited for
		t.Fatal(err)
	}
	for _, args := range [][]string{{"wait", p.ref}, {"wait", "-exited", p.ref}} {
		out, errs, code := status(t, sysfdCommand(args...))
		if code != 0 || out != p.ref+": status unknown: a zombie that its parent has not reaped\n" || errs != "" {
			t.Errorf("%q: status %d, %q, %q", args, code, out, errs)
		}
	}
	if _, errs, code := status(t, sysfdCommand("wait", "-reaped", "-timeout", "100ms", p.ref)); code != 124 {
		t.Errorf("-reaped: status %d, %q", code, errs)
	}
	if _, _, code := status(t, sysfdCommand("wait", "-reaped", "-exited", p.ref)); code != 2 {
		t.Errorf("-reaped and -exited: status %d", code)
	}
}

func TestKillCgroup(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	mount := t.TempDir()
	err := syscall.Mount("none", mount, "cgroup2", 0, "")
	dir := filepath.Join(mount, fmt.Sprintf("sysfd-command-%d", os.Getpid()))
	if err == nil {
		defer syscall.Unmount(mount, syscall.MNT_DETACH)
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	defer func() {
		for os.Remove(dir) != nil { // the kernel buries what was in it
			time.Sleep(time.Millisecond)
		}
	}()
	for _, byID := range []bool{false, true} {
		p := startProgram(t)
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(p.pid()), 0); err != nil {
			t.Fatal(err)
		}
		arg := dir
		if byID {
			id, _, err := sysfd.CgroupIDAt(sysfd.AT_FDCWD, dir, 0)
			if err != nil {
				t.Fatal(err)
			}
			arg = id.String()
		}
		if _, errs, code := status(t, sysfdCommand("kill", "-cgroup", "-s", "HUP", arg)); code != 2 {
			t.Errorf("status %d, %q", code, errs)
		}
		if out, errs, code := status(t, sysfdCommand("kill", "-cgroup", "-mount", mount, arg)); code != 0 || out+errs != "" {
			t.Fatalf("status %d, %q, %q", code, out, errs)
		}
		if p.end(); p.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("%v", p.ProcessState)
		}
	}
	if _, errs, code := status(t, sysfdCommand("kill", "-cgroup", "-mount", mount, mount)); code != 1 || !strings.Contains(errs, "this process is in cgroup") {
		t.Errorf("the root: status %d, %q", code, errs)
	}
}

func TestKill(t *testing.T) {
	rights.Proc(t)
	p := startProgram(t)
	if err := sysfd.FeatureOpenByID.Probe(); errors.Is(err, os.ErrPermission) && rights.Filter() {
		rights.Lacks(t, "open_by_handle_at, which a seccomp filter refuses")
	}
	other := startProgram(t)
	mixed := other.pid() + p.ref[strings.Index(p.ref, ":"):]
	_, errs, code := status(t, sysfdCommand("kill", "-KILL", mixed))
	if code != 1 || !strings.Contains(errs, "has PID "+p.pid()) {
		t.Errorf("status %d, %q", code, errs)
	}
	out, errs, code := status(t, sysfdCommand("kill", "-9", p.otherID()))
	if code != 1 || out != "" || !strings.Contains(errs, p.otherID()) {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	started := sysfd.ProcessRef{PID: p.Process.Pid, StartTime: 1, BootID: sysfd.BootID{1}}
	_, errs, code = status(t, sysfdCommand("kill", started.String()))
	if code != 1 || !strings.Contains(errs, started.Short()+" is of boot ") {
		t.Errorf("status %d, %q", code, errs)
	}
	for _, args := range [][]string{{"-s", "0", p.ref}, {"-s", "0", p.pid()}, {"-s", "sigusr1", p.ref}} {
		out, errs, code := status(t, sysfdCommand(append([]string{"kill"}, args...)...))
		if code != 0 || out != "" || errs != "" {
			t.Errorf("%q: status %d, %q, %q", args, code, out, errs)
		}
	}
	p.once = true
	err := p.Wait()
	if s := p.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGUSR1 {
		t.Errorf("%v", err)
	}
	_, errs, code = status(t, sysfdCommand("kill", p.ref))
	if code != 1 || !strings.Contains(errs, p.ref) {
		t.Errorf("status %d, %q", code, errs)
	}
}
