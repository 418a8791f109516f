//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/rights"
)

func TestNS(t *testing.T) {
	p := startProgram(t)
	out, errs, code := status(t, sysfdCommand("ns", p.ref))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 11 {
		t.Fatalf("status %d, %q, %q", code, out, errs)
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		link, err := os.Readlink("/proc/" + p.pid() + "/ns/" + fields[0])
		if err != nil {
			t.Log(err)
			continue
		}
		if want := fmt.Sprintf("%s:[%s]", strings.TrimSuffix(fields[0], "_for_children"), fields[1]); link != want {
			t.Errorf("%s, want %s", want, link)
		}
	}
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
	_, errs, code = status(t, sysfdCommand("ns", p.ref))
	if code != 1 || !strings.Contains(errs, p.ref+": it has ended\n") {
		t.Errorf("a zombie: status %d, %q", code, errs)
	}
}

// Before Linux 6.18 a namespace has an inode number alone.
func TestNamespaceWithoutID(t *testing.T) {
	if _, err := os.Stat("/proc/self/ns/uts"); err != nil {
		t.Skip(err)
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with its filter
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_NAME_TO_HANDLE_AT, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IOCTL, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if n, err := inspectNamespace(f, sysfd.UTSNamespace); err != nil || n.Inode != st.Ino || n.ID != 0 || n.id() != "-" {
		t.Errorf("%+v, %v; want %d", n, err, st.Ino)
	}
}

// onThread starts f on a thread that ends with it. That is not the main one, which cannot end, and which
// /proc/self stands for.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread() // and never unlocked
		if syscall.Gettid() != syscall.Getpid() {
			f()
			return
		}
		ended := make(chan bool)
		onThread(func() { defer close(ended); f() })
		<-ended
		runtime.UnlockOSThread()
	}()
}

// linkOf returns what there is for a namespace of a process in /proc, as sysfd ns names it.
func linkOf(t *testing.T, pid int, kind string) (inode uint64) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func find(list []namespaceInfo, kind string, inode uint64) *namespaceInfo {
	if i := slices.IndexFunc(list, func(n namespaceInfo) bool { return n.Kind == kind && n.Inode == inode }); i >= 0 {
		return &list[i]
	}
	return nil
}

// strange starts a process with namespaces of its own.
func strange(t *testing.T, flags uintptr, words ...string) *exec.Cmd {
	t.Helper()
	if flags&syscall.CLONE_NEWUSER != 0 {
		rights.UserNamespace(t)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func TestNSAll(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	cmd := strange(t, syscall.CLONE_NEWUTS|syscall.CLONE_NEWNET|syscall.CLONE_NEWUSER, "sleep", "100")
	other := exec.Command("sleep", "100")
	started := make(chan error)
	onThread(func() {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", cmd.Process.Pid))
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS)
			f.Close()
		}
		if err == nil {
			err = other.Start()
		}
		started <- err
	})
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	defer func() {
		other.Process.Kill()
		other.Wait()
	}()
	var list []namespaceInfo
	succeeds(t, sysfdCommand("ns", "-json"), &list)
	for _, test := range []struct {
		pid       int
		kind      string
		processes int
	}{{cmd.Process.Pid, "uts", 2}, {cmd.Process.Pid, "net", 1}, {cmd.Process.Pid, "user", 1}} {
		inode := linkOf(t, test.pid, test.kind)
		n := find(list, test.kind, inode)
		if n == nil || n.Processes == nil || *n.Processes != test.processes || n.PID != test.pid || n.Command != "sleep" {
			t.Errorf("%s %d: %+v", test.kind, inode, n)
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", test.pid, test.kind))
		if err != nil {
			t.Fatal(err)
		}
		if id, err := sysfd.NamespaceIDOf(int(f.Fd())); err != nil && !errors.Is(err, errors.ErrUnsupported) || id != n.ID {
			t.Errorf("%s: ID %d, %v: %+v", test.kind, id, err, n)
		}
		f.Close()
	}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		if n := find(list, kind, linkOf(t, os.Getpid(), kind)); n == nil || *n.Processes < 1 {
			t.Errorf("its own %s namespace: %+v", kind, n)
		}
	}
	if !slices.IsSortedFunc(list, func(a, b namespaceInfo) int { return strings.Compare(a.Kind, b.Kind) }) {
		t.Errorf("%+v", list)
	}
	for i, n := range list {
		if find(list[i+1:], n.Kind, n.Inode) != nil {
			t.Errorf("%+v is there twice", n)
		}
	}

	out, errs, code := status(t, sysfdCommand("ns", "-kind", "uts", "-kind", "net"))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || strings.Join(strings.Fields(lines[0]), " ") != "KIND INODE ID PROCESSES PID COMMAND" {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	seen := false
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if fields[0] != "uts" && fields[0] != "net" {
			t.Error(line)
		}
		seen = seen || fields[1] == fmt.Sprint(linkOf(t, cmd.Process.Pid, "uts")) && fields[3] == "2" && fields[4] == fmt.Sprint(cmd.Process.Pid) && fields[5] == "sleep"
	}
	if !seen {
		t.Error(out)
	}
	list = nil
	succeeds(t, sysfdCommand("ns", "-json", "-kind", "user", "self"), &list)
	if len(list) != 1 || list[0].Kind != "user" || list[0].Inode != linkOf(t, os.Getpid(), "user") || list[0].Processes != nil {
		t.Errorf("%+v", list)
	}
}

// A thread can be elsewhere than its process.
func TestNSThreads(t *testing.T) {
	rights.Proc(t)
	rights.Need(t, rights.SysAdmin)
	entered, done, ended := make(chan error), make(chan bool), make(chan bool)
	var its, mine uint64
	onThread(func() {
		defer close(ended)
		err := syscall.Unshare(syscall.CLONE_NEWUTS)
		var thread, process syscall.Stat_t
		if err == nil {
			err = errors.Join(syscall.Stat("/proc/thread-self/ns/uts", &thread), syscall.Stat("/proc/self/ns/uts", &process))
		}
		its, mine = thread.Ino, process.Ino
		entered <- err
		<-done
	})
	if err := <-entered; err != nil {
		close(done)
		t.Skip(err)
	}
	var list []namespaceInfo
	succeeds(t, sysfdCommand("ns", "-json"), &list)
	close(done)
	<-ended
	for _, inode := range []uint64{its, mine} {
		if n := find(list, "uts", inode); n == nil || *n.Processes == 0 || n.PID == 0 {
			t.Errorf("%d: %+v", inode, n)
		}
	}
}

// What no process is in is found where the kernel tells.
func TestNSHeld(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	outer := strange(t, syscall.CLONE_NEWUSER, "sleep", "100")
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", outer.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inode := linkOf(t, outer.Process.Pid, "user")
	outer.Process.Kill()
	outer.Wait()
	var list []namespaceInfo
	succeeds(t, sysfdCommand("ns", "-json"), &list)
	n := find(list, "user", inode)
	switch err := sysfd.FeatureNamespaces.Probe(); {
	case errors.Is(err, errors.ErrUnsupported):
		if n != nil {
			t.Errorf("%+v", n)
		}
	case err != nil:
		t.Fatal(err)
	case n == nil || *n.Processes != 0 || n.PID != 0:
		t.Errorf("%+v", n)
	}
}

// A namespace that is mounted is found on any kernel, and what lies on top of a mount is not opened.
func TestNSMounted(t *testing.T) {
	rights.Proc(t)
	rights.Need(t, rights.SysAdmin)
	cmd := strange(t, syscall.CLONE_NEWNET, "sleep", "100")
	inode := linkOf(t, cmd.Process.Pid, "net")
	dir := t.TempDir()
	point, covered := dir+"/a net\\\n", dir+"/covered"
	for _, name := range []string{point, covered} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), name, "", syscall.MS_BIND, ""); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { syscall.Unmount(name, syscall.MNT_DETACH) })
	}
	if err := syscall.Mount("/dev/null", covered, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(covered, syscall.MNT_DETACH) })
	cmd.Process.Kill()
	cmd.Wait()
	var list []namespaceInfo
	succeeds(t, sysfdCommand("ns", "-json"), &list)
	if n := find(list, "net", inode); n == nil || *n.Processes != 0 || n.PID != 0 || n.Mount != text(point) {
		t.Errorf("%+v", n)
	}
	out, errs, code := status(t, sysfdCommand("ns", "-kind", "net"))
	if code != 0 || !strings.Contains(out, "  $'"+dir+`/a net\\\n'`+"\n") {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
}

// A process out of reach is told of, and one that ends meanwhile is not an error.
func TestNSUnprivileged(t *testing.T) {
	rights.Proc(t)
	rights.Need(t, rights.SetUID, rights.SetGID)
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sysfd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/sysfd", program, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := sysfdCommand("ns")
	cmd.Path = dir + "/sysfd"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, errs, code := status(t, cmd)
	if code != 0 || !strings.Contains(errs, "no permission to inspect ") || !strings.Contains(strings.Join(strings.Fields(out), " "), fmt.Sprintf("uts %d ", linkOf(t, os.Getpid(), "uts"))) {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}

	stop := make(chan bool)
	defer close(stop)
	for range 2 {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					exec.Command("true").Run()
				}
			}
		}()
	}
	for range 20 {
		if out, errs, code := status(t, sysfdCommand("ns")); code != 0 {
			t.Fatalf("status %d, %q, %q", code, out, errs)
		}
	}
}

// What a process calls itself does nothing to a terminal.
func TestNSCommand(t *testing.T) {
	rights.Proc(t)
	open := func(string, int) (*os.File, error) {
		r, w, err := os.Pipe()
		if err == nil {
			_, err = w.WriteString("a\x1b[2J\nß \xff\n")
			w.Close()
		}
		return r, err
	}
	if name := commandOf(open); name != "a\x1b[2J\nß \xff" {
		t.Errorf("%q", name)
	}
	rights.Need(t, rights.SysAdmin)
	cmd := strange(t, syscall.CLONE_NEWUTS, "sh", "-c", `printf 'a\033[2J\nb' >/proc/$$/comm; kill -STOP $$`)
	named := func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return err == nil && string(name) == "a\x1b[2J\nb\n"
	}
	eventually(t, "its name", named)
	out, errs, code := status(t, sysfdCommand("ns", "-kind", "uts"))
	if code != 0 || !strings.Contains(out, fmt.Sprintf("  %d ", cmd.Process.Pid)) || !strings.Contains(out, `  $'a\033[2J\nb'`+"\n") || harmful(strings.ReplaceAll(out, "\n", "")) {
		t.Errorf("%q, %q, status %d", out, errs, code)
	}
}
