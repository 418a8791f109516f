//go:build linux

package sysfd

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/collector"
	"github.com/sysfd/sysfd/internal/overdue"
	"github.com/sysfd/sysfd/internal/rights"
)

// children are what the test binary does when it is started as a child. They
// print to stdout; what they return goes to stderr, with status 1.
var children = map[string]func(args []string) error{}

const (
	childVar    = "SYSFD_TEST_CHILD"    // the child to be
	emulatorVar = "SYSFD_TEST_EMULATOR" // the program that runs binaries of this architecture
	sandboxVar  = "SYSFD_TEST_SANDBOX"  // the name of a sandbox in environments; test/gvisor sets it
)

// An ability is what tests need beside features of the package.
type ability string

const (
	fileHandles    ability = "file handles"
	seccompFilters ability = "seccomp filters"
	killingFilters ability = "seccomp filters that kill a process"
	supervisors    ability = "seccomp filters with a supervisor"
	namespaces     ability = "namespaces"
	mounting       ability = "file systems to mount, but tmpfs"
	ptracing       ability = "ptrace(2) as Linux has it"
	clones         ability = "clone(2) with any signal for the end, or into a cgroup"
	pidfs          ability = "pidfs, which tells a zombie from a process that was reaped"
	threadWaits    ability = "a way to wait for a thread"
	socketGroups   ability = "SO_PEERGROUPS"
	messageQueues  ability = "POSIX message queues"
	statmounting   ability = "statmount(2)"
	newIoctls      ability = "ioctls that it does not know itself"
	nsfsFiles      ability = "files of all kinds of namespaces, on nsfs"
	withoutProc    ability = "a way to do without /proc"
	runsItself     ability = "a way to execute /proc/self/exe"
	schedulers     ability = "a scheduling of each thread that can be set"
	recordLocks    ability = "record locks that execve(2) keeps"
	ignoredSignals ability = "ignored signals as /proc/PID/status has them"
)

// An environment stands between the tests and a kernel.
type environment struct {
	name    string
	instead bool // of a kernel: the version that it claims to be says nothing

	// lacks are the features that it does not have or does not pass on to a kernel that has
	// them, and open those of which it cannot be told. One that stands instead of a kernel has all others.
	lacks, open []Feature

	without []ability
}

var environments = map[string]environment{
	"": {name: "the kernel"},
	"qemu-user": {
		name:    "the emulator",
		lacks:   []Feature{FeatureFileSystemID, FeatureNamespaces, FeatureMadvise, FeatureMrelease, FeaturePassPidFD, FeatureNamespace, FeatureInfo, FeatureExitStatus},
		without: []ability{seccompFilters, killingFilters, namespaces, ptracing, clones, statmounting, newIoctls, withoutProc, runsItself, schedulers, ignoredSignals},
	},
	"gvisor": {
		name:    "gVisor",
		instead: true,
		lacks: []Feature{FeatureFileHandle, FeatureOpenByHandle, FeatureHandleFID, FeatureFileSystemID, FeatureMountIDUnique, FeatureHandleConnectable,
			FeatureNamespaceHandle, FeatureNamespaceByID, FeatureNamespaces, FeatureMadvise, FeatureMrelease, FeaturePeerPidFD, FeaturePassPidFD, FeaturePidFDID, FeatureNamespace, FeatureInfo,
			FeatureOpenByID, FeatureExitStatus, FeatureXattr},
		open:    []Feature{FeatureCgroupID},
		without: []ability{fileHandles, killingFilters, supervisors, mounting, ptracing, clones, pidfs, threadWaits, socketGroups, messageQueues, statmounting, newIoctls, schedulers, recordLocks, ignoredSignals},
	},
	"gvisor-2022": {
		name:    "gVisor of 2022",
		instead: true,
		lacks: []Feature{FeatureFileHandle, FeatureOpenByHandle, FeatureHandleFID, FeatureFileSystemID, FeatureMountIDUnique, FeatureHandleConnectable,
			FeatureNamespaceHandle, FeatureNamespaceByID, FeatureNamespaces, FeatureSendSignal, FeaturePidFD, FeatureWait, FeatureGetFD, FeatureSetns, FeatureMadvise, FeatureMrelease, FeaturePeerPidFD,
			FeaturePassPidFD, FeatureThread, FeatureSignalTo, FeaturePidFDID, FeatureNamespace, FeatureInfo, FeatureOpenByID, FeatureExitStatus, FeatureXattr},
		open:    []Feature{FeatureCgroupID},
		without: []ability{fileHandles, killingFilters, supervisors, mounting, ptracing, clones, pidfs, threadWaits, socketGroups, messageQueues, statmounting, newIoctls, nsfsFiles, schedulers, recordLocks, ignoredSignals},
	},
}

// surroundings returns what the tests run in.
func surroundings() environment {
	name := os.Getenv(sandboxVar)
	if name == "" && os.Getenv(emulatorVar) != "" {
		name = "qemu-user"
	}
	e, ok := environments[name]
	if !ok {
		panic(sandboxVar + " is " + name)
	}
	return e
}

// reliesOn skips a test where there is no such thing.
func reliesOn(t testing.TB, what ...ability) {
	t.Helper()
	e := surroundings()
	for _, a := range what {
		if slices.Contains(e.without, a) {
			t.Skipf("%s is without %s", e.name, a)
		}
	}
}

func TestMain(m *testing.M) {
	ListenShim()
	name := os.Getenv(childVar)
	if name == "" {
		if _, err := os.Stat("/bin/sh"); err != nil || surroundings().name != environments[""].name {
			flag.Set("test.run", "^(Test|Fuzz)") // the examples are for an ordinary machine
		}
		if raceEnabled { // or else each child takes a second to end
			os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
		}
		overdue.Report()
		os.Exit(m.Run())
	}
	if err := children[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// self returns the words that start this test binary again.
func self(args ...string) []string {
	words := append([]string{os.Args[0]}, args...)
	if emulator := os.Getenv(emulatorVar); emulator != "" {
		words = append([]string{emulator}, words...)
	}
	return words
}

// child returns a command that is the named child.
func child(name string, args ...string) *exec.Cmd {
	words := self(args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), childVar+"="+name)
	return cmd
}

// output runs cmd and returns what it printed.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd, err, out, &stderr)
	}
	return string(out)
}

func decodeJSON(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

// sleeper starts a child that does nothing, and ends it when the test ends.
func sleeper(t testing.TB) *exec.Cmd {
	t.Helper()
	cmd := child("sleep")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reap(cmd) })
	return cmd
}

func reap(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func init() {
	children["sleep"] = func([]string) error { time.Sleep(time.Hour); return nil }
}

// descriptors returns the open descriptors and what they are.
func descriptors(t testing.TB) (open []string) {
	t.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// Without the one that read the directory.
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open = append(open, e.Name()+" "+target)
		}
	}
	return open
}

// keepsDescriptors fails a test that leaves other descriptors open than it found.
// Call it first, so that it looks last. The collector closes no forgotten file meanwhile.
func keepsDescriptors(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		lacks(t, "/proc")
	}
	t.Cleanup(collector.Stop())
	// The runtime opens its poller's at first use, and keeps them.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	before := descriptors(t)
	t.Cleanup(func() {
		if after := descriptors(t); !slices.Equal(before, after) {
			t.Errorf("open before: %q\nopen after: %q", before, after)
		}
	})
}

// needs skips a test where the kernel is older than the feature and lacks it, or where it is
// known to be hidden. On a kernel that should have it, to lack it is a failure.
func needs(t testing.TB, f Feature) {
	t.Helper()
	if lacksFeature(t, f) {
		skipWithout(t, f)
	}
}

// skipWithout skips a test of a feature that is missing.
func skipWithout(t testing.TB, f Feature) {
	t.Helper()
	if e := surroundings(); slices.Contains(e.lacks, f) {
		t.Skipf("%s does not have it: %s", e.name, f)
	}
	t.Skipf("%s: there since Linux %s, this is %s", f, f.Since(), release(t))
}

// probe tries a feature, with a process that has ended for what takes one.
func probe(t testing.TB, f Feature) error {
	t.Helper()
	err := f.Probe()
	if f == FeatureExitStatus && errors.Is(err, syscall.ENODATA) {
		err = exitStatusFeature(t)
	}
	return err
}

// lacksFeature is needs for a test that knows what then is to be expected.
func lacksFeature(t testing.TB, f Feature) bool {
	t.Helper()
	err := probe(t, f)
	if errors.Is(err, os.ErrPermission) && rights.Filter() {
		refusedByFilter(t, f)
	}
	if err != nil && !(errors.Is(err, errors.ErrUnsupported) && isMissing(t, f)) {
		t.Fatalf("%s: there since Linux %s, this is %s: %v", f, f.Since(), release(t), err)
	}
	return err != nil
}

// refusedByFilter skips a test where the filter of a container forbids what it is about.
func refusedByFilter(t testing.TB, f Feature) {
	t.Helper()
	lacks(t, fmt.Sprintf("%s, which a seccomp filter refuses", f))
}

// isMissing reports whether this kernel is not expected to have a feature.
func isMissing(t testing.TB, f Feature) bool {
	t.Helper()
	e := surroundings()
	return slices.Contains(e.lacks, f) || !e.instead && olderThan(t, f.Since())
}

// lacks skips a test for want of something that CI has.
func lacks(t testing.TB, what string) {
	t.Helper()
	rights.Lacks(t, what)
}

func release(t testing.TB) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(name.Release[:])
}

func olderThan(t testing.TB, version string) bool {
	return slices.Compare(versionNumbers(release(t)), versionNumbers(version)) < 0
}

// versionNumbers returns major and minor.
func versionNumbers(s string) (numbers []int) {
	for part := range strings.SplitSeq(s, ".") {
		digits := part[:len(part)-len(strings.TrimLeft(part, "0123456789"))]
		n, _ := strconv.Atoi(digits)
		numbers = append(numbers, n)
	}
	return append(numbers, 0)[:2]
}

// What a seccomp filter answers; an errno goes with retErrno.
const (
	retKillProcess = 0x80000000
	retErrno       = 0x00050000
	retUserNotif   = 0x7fc00000
	retAllow       = 0x7fff0000
)

// refuse makes system calls fail on the calling thread, as older kernels do and
// seccomp filters of containers.
func refuse(calls map[int]syscall.Errno) error {
	answers := map[int]uint32{}
	for nr, errno := range calls {
		answers[nr] = retErrno | uint32(errno)
	}
	return filter(answers)
}

// refuseUnless makes one system call fail on the calling thread, unless the low 32 bits of an
// argument of it are these. The first argument has the index 0.
func refuseUnless(index int, arg int32, nr int, errno syscall.Errno) error {
	low := 16 + 8*uint32(index) // in a struct seccomp_data
	if bigEndian {
		low += 4
	}
	_, err := installProgram([]syscall.SockFilter{
		{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, Jf: 3, K: uint32(nr)},
		{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: low},
		{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, Jt: 1, K: uint32(arg)},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: retErrno | uint32(errno)},
		{Code: syscall.BPF_RET | syscall.BPF_K, K: retAllow},
	}, 0)
	return err
}

// underFilter calls f on a thread that has a filter.
func underFilter(t *testing.T, install func() error, f func()) {
	t.Helper()
	reliesOn(t, seccompFilters)
	var err error
	onThrowawayThread(func() {
		if err = install(); err == nil {
			f()
		}
	})
	if err != nil {
		lacks(t, "seccomp filters: "+err.Error())
	}
}

// filter installs a seccomp filter on the calling thread. It stays with what that
// starts and executes.
func filter(answers map[int]uint32) error {
	_, err := installFilter(answers, 0)
	return err
}

// installFilter returns what seccomp(2) does: with filterNewListener a descriptor.
func installFilter(answers map[int]uint32, flags uintptr) (int, error) {
	program := []syscall.SockFilter{{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS}} // the number
	for nr, answer := range answers {
		program = append(program,
			syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, Jf: 1, K: uint32(nr)},
			syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: answer})
	}
	return installProgram(append(program, syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: retAllow}), flags)
}

func installProgram(program []syscall.SockFilter, flags uintptr) (int, error) {
	const prSetNoNewPrivs, setModeFilter = 38, 1
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
		return -1, errno
	}
	prog := syscall.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, setModeFilter, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// supervise installs a filter on the calling thread that has calls wait for a supervisor,
// another thread of this program, which lets them pass. It lives as long as the thread, and
// returns how many there were.
func supervise(calls map[int]uint32) (passed <-chan int, err error) {
	const filterNewListener = 1 << 3
	listener, err := installFilter(calls, filterNewListener)
	if err != nil {
		return nil, err
	}
	n := make(chan int, 1)
	go func() {
		const notifRecv, notifSend, flagContinue = 0xc0502100, 0xc0182101, 1
		for count := 0; ; count++ {
			revents, errno := pollFor(listener, time.Minute)
			if errno != 0 || revents&unix.POLLIN == 0 {
				syscall.Close(listener) // first, for the caller counts descriptors
				n <- count
				return
			}
			var notice [10]uint64 // a struct seccomp_notif, which begins with the ID
			if ioctl(listener, notifRecv, unsafe.Pointer(&notice)) != 0 {
				continue
			}
			answer := struct {
				id, value    uint64
				errno, flags int32
			}{id: notice[0], flags: flagContinue}
			ioctl(listener, notifSend, unsafe.Pointer(&answer))
		}
	}()
	return n, nil
}

// fewer is how many rounds of n there are under -short, as on a machine that is emulated, and under an
// emulator of programs, which is no quicker.
func fewer(n int) int {
	if testing.Short() || os.Getenv(emulatorVar) != "" {
		return n / 5
	}
	return n
}

// A waitGroup has the method that sync.WaitGroup has since Go 1.25.
type waitGroup struct{ sync.WaitGroup }

func (g *waitGroup) Go(f func()) {
	g.Add(1)
	go func() {
		defer g.Done()
		f()
	}()
}

// pidFDOf is PidFDOf, or nil before Go 1.26.
var pidFDOf func(*os.Process) (*PidFD, error)

func tempFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("content of "+t.Name()), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// matches checks what an error matches and what it does not.
func matches(t *testing.T, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Errorf("%v does not match %v", err, target)
		}
	}
	for _, other := range []error{errors.ErrUnsupported, os.ErrProcessDone, os.ErrNotExist, os.ErrPermission, os.ErrClosed, ErrNotPidFD} {
		if !slices.Contains(targets, other) && errors.Is(err, other) {
			t.Errorf("%v matches %v", err, other)
		}
	}
}

// doesNotAllocate checks f; the race detector allocates itself.
func doesNotAllocate(t *testing.T, f func()) {
	t.Helper()
	if raceEnabled {
		return
	}
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestVersionNumbers(t *testing.T) {
	for s, want := range map[string][]int{"6.18.44-fc": {6, 18}, "7.2-rc1": {7, 2}, "6.1.0-13-amd64": {6, 1}, "7": {7, 0}} {
		if got := versionNumbers(s); !slices.Equal(got, want) {
			t.Errorf("%s: %v", s, got)
		}
	}
}

// The IDs of the kernel have 64 bits; none may pass through an int.
func TestIDsHave64Bits(t *testing.T) {
	id := PidFDID(0x7_0000_0077)
	if id.String() != "30064771191" {
		t.Errorf("%v", id)
	}
	if got, ok := PidFDHandle(id).PidFDID(); !ok || got != id {
		t.Errorf("%#x, %v", uint64(got), ok)
	}
	if MountID(1<<31-1).Unique() || !MountID(1<<31).Unique() || !MountID(1<<40).Unique() {
		t.Error("Unique")
	}
}

// beyond32bits is 2^32, or 0 where an int has no more than 32 bits.
var beyond32bits = func(n int) int { return 1 << n }(32)

// bigEndian tells the byte order in a way that the package itself does not use.
var bigEndian = func() bool {
	switch runtime.GOARCH {
	case "mips", "mips64", "ppc64", "s390x":
		return true
	}
	return false
}()
