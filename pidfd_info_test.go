//go:build linux

package sysfd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// told is what the methods of a PidFDInfo return, those that return true.
func told(i PidFDInfo) map[string]any {
	m := map[string]any{}
	add := func(name string, v any, ok bool) {
		if ok {
			m[name] = v
		}
	}
	pid, ok := i.PID()
	add("PID", pid, ok)
	tgid, ok := i.TGID()
	add("TGID", tgid, ok)
	ppid, ok := i.ParentPID()
	add("ParentPID", ppid, ok)
	creds, ok := i.Credentials()
	add("Credentials", creds, ok)
	cgroup, ok := i.CgroupID()
	add("CgroupID", cgroup, ok)
	status, ok := i.ExitStatus()
	add("ExitStatus", status, ok)
	coredump, ok := i.Coredump()
	add("Coredump", coredump, ok)
	sig, ok := i.CoredumpSignal()
	add("CoredumpSignal", sig, ok)
	code, ok := i.CoredumpCode()
	add("CoredumpCode", code, ok)
	supported, ok := i.SupportedMask()
	add("SupportedMask", supported, ok)
	return m
}

// What kernels of each size of struct pidfd_info answer to one who passes the size of
// Linux 7.1.
func TestPidFDInfoOfEachKernel(t *testing.T) {
	common := pidfdInfo{
		Mask: PIDFD_INFO_PID | PIDFD_INFO_CREDS | PIDFD_INFO_CGROUPID, CgroupID: 1<<32 + 27, PID: 12, TGID: 11, PPID: 10,
		RUID: 1, RGID: 2, EUID: 3, EGID: 4, SUID: 5, SGID: 6, FSUID: 7, FSGID: 1<<32 - 1,
	}
	// as619 puts supported_mask where Linux 6.19 and 7.0 have it.
	as619 := func(k pidfdInfo, supported uint64) pidfdInfo {
		k.CoredumpCode, k.CoredumpPad = uint32(supported), uint32(supported>>32)
		if bigEndian {
			k.CoredumpCode, k.CoredumpPad = k.CoredumpPad, k.CoredumpCode
		}
		return k
	}
	and := func(k pidfdInfo, mask uint64) pidfdInfo {
		k.Mask |= mask
		k.CoredumpMask, k.CoredumpSignal = PIDFD_COREDUMPED|PIDFD_COREDUMP_USER, uint32(syscall.SIGSEGV)
		return k
	}
	commonWant := map[string]any{
		"PID": 12, "TGID": 11, "ParentPID": 10, "CgroupID": CgroupID(1<<32 + 27),
		"Credentials": Credentials{RUID: 1, RGID: 2, EUID: 3, EGID: 4, SUID: 5, SGID: 6, FSUID: 7, FSGID: 1<<32 - 1},
	}
	core := map[string]any{"Coredump": uint32(PIDFD_COREDUMPED | PIDFD_COREDUMP_USER)}
	coreSignal := map[string]any{"CoredumpSignal": syscall.SIGSEGV}
	const mask64, mask72, mask80, mask88 = 0x7, 0x1f, 0x7f, 0xff
	all88 := and(common, PIDFD_INFO_COREDUMP|PIDFD_INFO_COREDUMP_SIGNAL|PIDFD_INFO_COREDUMP_CODE|PIDFD_INFO_SUPPORTED_MASK)
	all88.CoredumpCode, all88.SupportedMask = 1<<32-6, 1<<40|mask88 // SI_TKILL
	only88 := pidfdInfo{Mask: PIDFD_INFO_PID | PIDFD_INFO_SUPPORTED_MASK, PID: 1, TGID: 1, SupportedMask: mask88}
	for _, test := range []struct {
		kernel string
		k      pidfdInfo
		want   []map[string]any
	}{
		{"6.13, 64 bytes", common, []map[string]any{commonWant}},
		{"6.15, 64 bytes, reaped", pidfdInfo{Mask: PIDFD_INFO_EXIT | PIDFD_INFO_CGROUPID, CgroupID: 27, ExitCode: 0x300},
			[]map[string]any{{"ExitStatus": syscall.WaitStatus(0x300), "CgroupID": CgroupID(27)}}},
		{"6.16, 72 bytes", and(common, PIDFD_INFO_COREDUMP), []map[string]any{commonWant, core}},
		{"6.19, 80 bytes", as619(and(common, PIDFD_INFO_COREDUMP|PIDFD_INFO_COREDUMP_SIGNAL|PIDFD_INFO_SUPPORTED_MASK), mask80),
			[]map[string]any{commonWant, core, coreSignal, {"SupportedMask": uint64(mask80)}}},
		{"6.19 with a bit beyond 32", as619(and(common, PIDFD_INFO_SUPPORTED_MASK), 1<<40|mask80),
			[]map[string]any{commonWant, {"SupportedMask": uint64(1<<40 | mask80)}}},
		{"6.19, not asked", as619(common, 0), []map[string]any{commonWant}},
		{"7.1, 88 bytes", all88, []map[string]any{commonWant, core, coreSignal,
			{"CoredumpCode": int32(-6), "SupportedMask": uint64(1<<40 | mask88)}}},
		{"7.1, alive", only88, []map[string]any{{"PID": 1, "TGID": 1, "ParentPID": 0, "SupportedMask": uint64(mask88)}}},
		{"nothing told", pidfdInfo{PID: 1, CoredumpCode: 9, SupportedMask: mask88, ExitCode: 9}, nil},
		{"what no one knows yet", pidfdInfo{Mask: 1 << 63, PID: 1}, nil},
	} {
		want := map[string]any{}
		for _, m := range test.want {
			for name, v := range m {
				want[name] = v
			}
		}
		info := PidFDInfo{test.k}
		if got := told(info); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n%v, want\n%v", test.kernel, got, want)
		}
		if code, ok := info.CoredumpCode(); code != 0 && !ok {
			t.Errorf("%s: code %d, which was not told", test.kernel, code)
		}
		if info.Mask() != test.k.Mask {
			t.Errorf("%s: mask %#x", test.kernel, info.Mask())
		}
	}
}

const everything = 1<<64 - 1

// lineOf starts cmd and returns the first line that it prints, and a reader of more.
// Its stdin is a pipe if it is nothing else. The child is reaped when the test ends.
func lineOf(t *testing.T, cmd *exec.Cmd) (line string, more *bufio.Reader) {
	t.Helper()
	if cmd.Stdin == nil {
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reap(cmd) })
	more = bufio.NewReader(stdout)
	if line, err = more.ReadString('\n'); err != nil {
		cmd.Wait()
		t.Fatalf("%v: %v %s", cmd, err, &stderr)
	}
	return strings.TrimSuffix(line, "\n"), more
}

// becomeNobody gives up all privileges.
func becomeNobody() error {
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534))
}

func init() {
	// Prints its PID, and ends when stdin does, with the status that it is told.
	children["ready"] = func(args []string) error {
		if len(args) > 1 {
			if err := errors.Join(syscall.Setresgid(4, 5, 6), syscall.Setresuid(1, 2, 3)); err != nil {
				return err
			}
		}
		fmt.Println(os.Getpid())
		io.ReadAll(os.Stdin)
		status, err := strconv.Atoi(args[0])
		if err == nil {
			os.Exit(status)
		}
		return err
	}
}

func TestPidFDInfo(t *testing.T) {
	needs(t, FeatureInfo)
	keepsDescriptors(t)
	cmd := child("ready", "0")
	lineOf(t, cmd)
	pid := cmd.Process.Pid
	p := openPidFD(t, pid)
	for _, mask := range []uint64{0, PIDFD_INFO_PID, PIDFD_INFO_CGROUPID | PIDFD_INFO_CREDS, PIDFD_INFO_EXIT, everything} {
		info, err := p.Info(mask)
		if err != nil {
			t.Fatal(err)
		}
		got := told(info)
		uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
		for name, want := range map[string]any{
			"PID": pid, "TGID": pid, "ParentPID": os.Getpid(), "ExitStatus": nil,
			"Credentials": Credentials{uid, uid, uid, uid, gid, gid, gid, gid},
		} {
			if got[name] != want {
				t.Errorf("%#x: %s %v, want %v", mask, name, got[name], want)
			}
		}
		if info.Mask()&^(1<<16-1) != 0 {
			t.Errorf("%#x: mask %#x", mask, info.Mask())
		}
		if id, ok := info.CgroupID(); mask == everything && (!ok || id == 0) {
			t.Errorf("cgroup %d, %v", id, ok)
		}
		// In Linux 6.19 it sits where coredump_code is in 7.1.
		if supported, ok := info.SupportedMask(); ok && supported&0x3f != 0x3f {
			t.Errorf("supported mask %#x", supported)
		}
		if mask == everything && !olderThan(t, "6.16") && got["Coredump"] == nil {
			t.Errorf("it tells nothing of core dumps: %#x", info.Mask())
		}
		if mask == everything && !olderThan(t, "6.19") && got["SupportedMask"] == nil {
			t.Errorf("it does not tell what it supports: %#x", info.Mask())
		}
	}
}

func TestPidFDInfoCredentials(t *testing.T) {
	needs(t, FeatureInfo)
	rights.Need(t, rights.SetUID, rights.SetGID)
	keepsDescriptors(t)
	cmd := child("ready", "0", "other-user")
	lineOf(t, cmd)
	info, err := openPidFD(t, cmd.Process.Pid).Info(PIDFD_INFO_CREDS)
	if err != nil {
		t.Fatal(err)
	}
	want := Credentials{RUID: 1, EUID: 2, SUID: 3, FSUID: 2, RGID: 4, EGID: 5, SGID: 6, FSGID: 5}
	if c, ok := info.Credentials(); !ok || c != want {
		t.Errorf("%+v, %v", c, ok)
	}
}

// cgroupDir returns the directory of a process's cgroup on cgroup2.
func cgroupDir(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range Mounts(0) {
		if err != nil {
			t.Fatal(err)
		}
		var st syscall.Statfs_t
		if syscall.Statfs(m.Point, &st) == nil && uint32(st.Type) == unix.CGROUP2_SUPER_MAGIC {
			for line := range strings.Lines(string(text)) {
				if path, ok := strings.CutPrefix(line, "0::"); ok {
					return filepath.Join(m.Point, strings.TrimSpace(path))
				}
			}
		}
	}
	lacks(t, "cgroup2")
	return ""
}

func TestPidFDInfoCgroupID(t *testing.T) {
	needs(t, FeatureInfo)
	keepsDescriptors(t)
	pid := sleeper(t).Process.Pid
	want, _, err := CgroupIDAt(AT_FDCWD, cgroupDir(t, pid), 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := openPidFD(t, pid).Info(PIDFD_INFO_CGROUPID)
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := info.CgroupID(); !ok || id != want {
		t.Errorf("%d, %v; want %d", id, ok, want)
	}
}

func TestPidFDInfoExitStatus(t *testing.T) {
	needs(t, FeatureInfo)
	keepsDescriptors(t)
	for _, kill := range []bool{false, true} {
		cmd := child("ready", "3")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		lineOf(t, cmd)
		p := openPidFD(t, cmd.Process.Pid)
		if info, err := p.Info(PIDFD_INFO_EXIT); err != nil || info.Mask()&PIDFD_INFO_EXIT != 0 {
			t.Errorf("alive: %#x, %v", info.Mask(), err)
		}
		if kill {
			cmd.Process.Kill()
		} else {
			stdin.Close()
		}
		awaitZombie(t, cmd.Process.Pid)
		info, err := p.Info(PIDFD_INFO_EXIT)
		if pid, ok := info.PID(); err != nil || info.Mask()&PIDFD_INFO_EXIT != 0 || !ok || pid != cmd.Process.Pid {
			t.Errorf("a zombie: %d, %#x, %v", pid, info.Mask(), err)
		}
		cmd.Wait()
		info, err = p.Info(everything &^ PIDFD_INFO_EXIT)
		matches(t, err, syscall.ESRCH, os.ErrProcessDone)
		if info != (PidFDInfo{}) {
			t.Errorf("with an error: %+v", info)
		}
		info, err = p.Info(PIDFD_INFO_EXIT)
		if lacksFeature(t, FeatureExitStatus) {
			matches(t, err, syscall.ESRCH, os.ErrProcessDone)
			continue
		}
		status, ok := info.ExitStatus()
		if err != nil || !ok || kill && status.Signal() != syscall.SIGKILL || !kill && status.ExitStatus() != 3 {
			t.Errorf("status %#x, %v, %v", uint32(status), ok, err)
		}
		if _, ok := info.PID(); ok {
			t.Error("it has a PID")
		}
	}
}

func init() {
	// crash LIMIT: dies by a signal of the main thread as soon as stdin ends, with this limit for the
	// size of a core.
	children["crash"] = func(args []string) error {
		limit, err := strconv.ParseUint(args[0], 10, 32)
		if err != nil {
			return err
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
		fmt.Println("ready")
		io.ReadAll(os.Stdin)
		debug.SetTraceback("crash")
		panic("as it is to be")
	}
}

// Whether a core was dumped is in the status. PIDFD_COREDUMPED depends on where cores go.
func TestPidFDInfoCoredump(t *testing.T) {
	needs(t, FeatureExitStatus)
	rights.Need(t) // whom no limit stops
	if olderThan(t, "6.16") {
		t.Skip("PIDFD_INFO_COREDUMP is there since Linux 6.16")
	}
	keepsDescriptors(t)
	text, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	pattern := strings.TrimSpace(string(text))
	program, socket := strings.HasPrefix(pattern, "|"), strings.HasPrefix(pattern, "@")
	recorded := socket || program && strings.Contains(pattern, "%F")
	for _, limit := range []string{"65536", "0"} {
		cmd := child("crash", limit)
		cmd.Dir = t.TempDir()
		cmd.Args[0], cmd.Path = "/proc/self/exe", "/proc/self/exe" // which is independent of the directory
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		lineOf(t, cmd)
		p := openPidFD(t, cmd.Process.Pid)
		info, err := p.Info(everything)
		if mask, ok := info.Coredump(); err != nil || !ok || mask != PIDFD_COREDUMP_USER {
			t.Errorf("alive: %#x, %v, %v", mask, ok, err)
		}
		stdin.Close()
		cmd.Wait()
		witness := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !witness.Signaled() {
			t.Fatalf("status %#x", uint32(witness))
		}
		if limit != "0" && !witness.CoreDump() {
			lacks(t, "cores to be dumped, which here go to "+pattern)
		}
		if limit == "0" && !program && !socket && witness.CoreDump() {
			t.Errorf("status %#x: it has dumped core against the limit", uint32(witness))
		}
		info, err = p.Info(everything)
		if status, ok := info.ExitStatus(); err != nil || !ok || status != witness {
			t.Errorf("status %#x, %v, %v; want %#x", uint32(status), ok, err, uint32(witness))
		}
		if mask, _ := info.Coredump(); (mask&PIDFD_COREDUMPED != 0) != recorded {
			t.Errorf("%#x; the status is %#x and cores go to %s", mask, uint32(witness), pattern)
		}
	}
}

// awaitZombie waits until a child has ended, and does not reap it.
func awaitZombie(t *testing.T, pid int) {
	t.Helper()
	const P_PID, WNOWAIT = 1, 0x1000000
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, P_PID, uintptr(pid), 0, syscall.WEXITED|WNOWAIT, 0, 0)
		if errno == 0 {
			return
		}
		if errno != syscall.EINTR {
			t.Fatal(errno)
		}
	}
}

func TestNSPIDs(t *testing.T) {
	keepsDescriptors(t)
	cmd := sleeper(t)
	p := openPidFD(t, cmd.Process.Pid)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	want := procFields(string(text), "NSpid:")
	if pids, err := p.NSPIDs(); err != nil || fmt.Sprint(pids) != fmt.Sprint(want) {
		t.Errorf("%d, %v; want %s", pids, err, want)
	}
	// A thread can have descriptors of its own.
	onThrowawayThread(func() {
		if _, errno := unshareFiles(); errno != 0 {
			t.Error(errno)
			return
		}
		p, err := OpenPidFD(cmd.Process.Pid, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer p.Close()
		if pids, err := p.NSPIDs(); err != nil || fmt.Sprint(pids) != fmt.Sprint(want) {
			t.Errorf("on a thread of its own: %d, %v; want %s", pids, err, want)
		}
		if pid, err := p.fdinfoPID(errors.ErrUnsupported); err != nil || pid != cmd.Process.Pid {
			t.Errorf("on a thread of its own: %d, %v", pid, err)
		}
	})
	reap(cmd)
	_, err = p.NSPIDs()
	matches(t, err, syscall.ESRCH, os.ErrProcessDone)
	_, err = strayPidFD(t, notPidFDs(t)["pipe"]).NSPIDs()
	matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
}

// strayPidFD makes believe that a duplicate of fd is a pidfd.
func strayPidFD(t *testing.T, fd int) *PidFD {
	t.Helper()
	fd, errno := dupAbove(fd, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	p := newPidFD(fd, "stray", unnumbered)
	t.Cleanup(func() { p.Close() })
	return p
}

func TestNSPIDsInNamespace(t *testing.T) {
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	cmd := child("ready", "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	lineOf(t, cmd)
	if pids, err := openPidFD(t, cmd.Process.Pid).NSPIDs(); err != nil || len(pids) < 2 || pids[0] != cmd.Process.Pid || pids[len(pids)-1] != 1 {
		t.Errorf("%d, %v", pids, err)
	}
}

func TestPidFDXattrs(t *testing.T) {
	rights.Need(t, rights.SysAdmin) // without it the answer is ENODATA on each kernel
	needs(t, FeatureXattr)
	keepsDescriptors(t)
	cmd := sleeper(t)
	p := openPidFD(t, cmd.Process.Pid)
	if names, err := p.ListXattrs(); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
	matches(t, second(p.GetXattr("trusted.none")), syscall.ENODATA) // while there are none at all, too
	var want []string
	for _, n := range []int{0, 1, 256, 257, 4096, 65536} {
		name := "trusted.n" + strconv.Itoa(n)
		value := bytes.Repeat([]byte{0, 'x'}, n)[:n]
		if err := p.SetXattr(name, value, XATTR_CREATE); err != nil {
			t.Fatal(err)
		}
		got, err := p.GetXattr(name)
		if err != nil || got == nil || !bytes.Equal(got, value) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		want = append(want, name)
	}
	matches(t, p.SetXattr("trusted.n1", nil, XATTR_CREATE), syscall.EEXIST)
	matches(t, p.SetXattr("trusted.none", nil, XATTR_REPLACE), syscall.ENODATA)
	matches(t, p.SetXattr("trusted.none", nil, 1<<20), syscall.EINVAL)
	matches(t, p.SetXattr("trusted.none", nil, beyond32bits|1<<20), syscall.EINVAL)
	if is64bit {
		matches(t, p.SetXattr("trusted.none", nil, beyond32bits), syscall.EINVAL)
	}
	matches(t, p.SetXattr("trusted.none", make([]byte, 65537), 0), syscall.E2BIG)
	matches(t, p.RemoveXattr("trusted.none"), syscall.ENODATA)
	_, err := p.GetXattr("trusted.none")
	matches(t, err, syscall.ENODATA)
	_, err = p.GetXattr("security.none")
	matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
	if !strings.Contains(err.Error(), "security.none") {
		t.Errorf("%v does not name the attribute", err)
	}
	for name, errno := range map[string]syscall.Errno{
		"trusted.n1\x00": syscall.EINVAL, "": syscall.ERANGE, "trusted." + strings.Repeat("x", 248): syscall.ERANGE,
	} {
		_, err := p.GetXattr(name)
		matches(t, err, errno)
		matches(t, p.SetXattr(name, nil, 0), errno)
		matches(t, p.RemoveXattr(name), errno)
	}
	if err := p.RemoveXattr("trusted.n1"); err != nil {
		t.Error(err)
	}
	want = slices.DeleteFunc(want, func(s string) bool { return s == "trusted.n1" })
	for i := range 20 { // more names than fit at first
		name := "trusted.long." + strings.Repeat(string(rune('a'+i)), 100)
		if err := p.SetXattr(name, nil, 0); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	slices.Sort(want)
	// They are the process's, not the pidfd's, and outlive it.
	other := openPidFD(t, cmd.Process.Pid)
	reap(cmd)
	for _, p := range []*PidFD{p, other} {
		names, err := p.ListXattrs()
		slices.Sort(names)
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%q, %v; want %q", names, err, want)
		}
	}
}

func init() {
	// Does to a process of root's, descriptor 3, what needs a privilege.
	children["nobody"] = func(args []string) error {
		pid, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		if err := becomeNobody(); err != nil {
			return err
		}
		p := newPidFD(3, "passed", unnumbered)
		mayNot := map[string]error{}
		_, mayNot["Info"] = p.Info(everything)
		_, mayNot["GetXattr"] = p.GetXattr("trusted.set")
		mayNot["SetXattr"] = p.SetXattr("trusted.set", nil, 0)
		mayNot["RemoveXattr"] = p.RemoveXattr("trusted.set")
		_, mayNot["ListXattrs"] = p.ListXattrs()
		mayNot["SendSignal"] = p.SendSignal(0)
		mayNot["QueueSignal"] = p.QueueSignal(syscall.SIGTERM, 1)
		mayNot["Verify"] = p.Verify(func() error { return nil })
		_, mayNot["GetFD"] = p.GetFD(0)
		_, mayNot["Namespace"] = p.Namespace(NetNamespace)
		_, mayNot["procNamespace"] = p.procNamespace(pid, NetNamespace)
		mayNot["Setns"] = p.Setns(syscall.CLONE_NEWNET)
		_, mayNot["Madvise"] = p.Madvise(MADV_COLD, MemoryRange{0, 4096})
		for name, err := range mayNot {
			var errno syscall.Errno
			errors.As(err, &errno)
			fmt.Println(name, int(errno))
		}
		return nil
	}
}

func TestAsNobody(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.SetUID, rights.SetGID)
	keepsDescriptors(t)
	pid := sleeper(t).Process.Pid
	p := openPidFD(t, pid)
	cmd := child("nobody", strconv.Itoa(pid))
	cmd.ExtraFiles = []*os.File{duplicateOf(t, p)}
	got := map[string]syscall.Errno{}
	if FeatureXattr.Probe() == nil {
		if err := p.SetXattr("trusted.set", []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(output(t, cmd)) {
		var name string
		var errno int
		if _, err := fmt.Sscan(line, &name, &errno); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got[name] = syscall.Errno(errno)
	}
	want := map[string]syscall.Errno{
		"Info": 0, "ListXattrs": 0, "Verify": 0,
		"GetXattr": syscall.ENODATA, "SetXattr": syscall.EPERM, "RemoveXattr": syscall.EPERM,
		"SendSignal": syscall.EPERM, "QueueSignal": syscall.EPERM, "GetFD": syscall.EPERM,
		"Namespace": syscall.EACCES, "procNamespace": syscall.EACCES, "Setns": syscall.EPERM, "Madvise": syscall.EACCES,
	}
	for name, feature := range map[string]Feature{"Info": FeatureInfo, "Madvise": FeatureMadvise} {
		if lacksFeature(t, feature) {
			delete(want, name)
		}
	}
	for name, errno := range want {
		if e, ok := got[name]; !ok || e != errno {
			t.Errorf("%s: %v, want %v", name, e, errno)
		}
	}
}

func init() {
	// Asks about a process of another pid namespace, descriptor 3.
	children["foreign"] = func([]string) error {
		p := newPidFD(3, "passed", unnumbered)
		_, errInfo := p.Info(everything)
		for _, err := range []error{errInfo, p.SendSignal(0), p.Verify(func() error { return nil })} {
			var errno syscall.Errno
			errors.As(err, &errno)
			fmt.Println(int(errno), errors.Is(err, os.ErrProcessDone))
		}
		return nil
	}
}

func TestForeignProcess(t *testing.T) {
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeatureInfo)
	keepsDescriptors(t)
	process := sleeper(t)
	p := openPidFD(t, process.Process.Pid)
	for range 2 { // alive, reaped
		cmd := child("foreign")
		cmd.ExtraFiles = []*os.File{duplicateOf(t, p)}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		want := fmt.Sprintf("%d false\n%d false\n%[1]d false\n", syscall.EREMOTE, syscall.EINVAL)
		if out := output(t, cmd); out != want {
			t.Errorf("%q, want %q", out, want)
		}
		reap(process)
	}
}

// A process whose parent is in an outer pid namespace only is no less alive.
func TestParentOutside(t *testing.T) {
	rights.MountedRoot(t)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	cmd := child("ready", "0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	lineOf(t, cmd)
	first := openPidFD(t, cmd.Process.Pid)
	var out []byte
	var err error
	onThrowawayThread(func() {
		if err = first.Setns(syscall.CLONE_NEWPID); err == nil {
			out, err = child("own-pid").CombinedOutput()
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var is, told, parent int
	if _, err := fmt.Sscan(string(out), &is, &told, &parent); err != nil || told != is || is == 1 || parent != 0 {
		t.Errorf("%q, %v", out, err)
	}
}

func init() {
	children["own-pid"] = func([]string) error {
		runtime.LockOSThread() // it is the thread that gets a mount namespace: another one would mount on everyone's /proc
		if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
			return err
		}
		if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("proc", "/proc", "proc", 0, "")); err != nil {
			return err
		}
		p, err := OpenPidFD(os.Getpid(), 0)
		if err != nil {
			return err
		}
		pid, err := p.PID()
		fmt.Println(os.Getpid(), pid, os.Getppid())
		return err
	}
}

// What one is told about a stray descriptor must not change what a pidfd is told.
func TestInfoOfStrays(t *testing.T) {
	keepsDescriptors(t)
	p := openPidFD(t, sleeper(t).Process.Pid)
	for name, fd := range notPidFDs(t) {
		stray := strayPidFD(t, fd)
		if _, err := stray.Info(everything); err == nil {
			t.Errorf("Info of %s", name)
		}
		if _, err := stray.NSPIDs(); err == nil {
			t.Errorf("NSPIDs of %s", name)
		}
		if _, err := stray.Namespace(NetNamespace); err == nil {
			t.Errorf("Namespace of %s", name)
		}
		if _, err := stray.GetFD(0); err == nil {
			t.Errorf("GetFD of %s", name)
		}
		if _, err := p.Info(everything); err != nil && !errors.Is(err, errors.ErrUnsupported) || err == nil != (FeatureInfo.Probe() == nil) {
			t.Errorf("after %s: %v", name, err)
		}
		if pids, err := p.NSPIDs(); err != nil || len(pids) == 0 {
			t.Errorf("after %s: %d, %v", name, pids, err)
		}
		f, err := p.Namespace(NetNamespace)
		if err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
		f.Close()
	}
}

func TestPidFDInfoAllocates(t *testing.T) {
	needs(t, FeatureInfo)
	p := openPidFD(t, os.Getpid())
	doesNotAllocate(t, func() {
		info, err := p.Info(everything)
		if pid, ok := info.PID(); err != nil || !ok || pid != os.Getpid() {
			t.Error(pid, ok, err)
		}
	})
}

// A filter can have the ioctl do nothing and return 0, as of a process of root's that has ended
// with status 0. That is no answer.
func TestPidFDInfoFaked(t *testing.T) {
	reliesOn(t, seccompFilters, pidfs)
	keepsDescriptors(t)
	cmd := sleeper(t)
	pid := cmd.Process.Pid
	p, gone := openPidFD(t, pid), reapedPidFD(t)
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_IOCTL: 0}) }, func() {
		for _, mask := range []uint64{0, PIDFD_INFO_PID, PIDFD_INFO_PID | PIDFD_INFO_CREDS | PIDFD_INFO_EXIT, 1<<64 - 1} {
			matches(t, second(p.Info(mask)), errors.ErrUnsupported)
		}
		if got, err := p.PID(); err != nil || got != pid { // from /proc
			t.Errorf("PID %d, %v", got, err)
		}
		r, err := gone.TryWait(0)
		if err != nil || !r.Ended {
			t.Errorf("%+v, %v", r, err)
		}
		isUnknown(t, r)
		matches(t, r.Unknown, errors.ErrUnsupported)
	})
}
