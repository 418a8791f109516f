//go:build linux

package beyond

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/overdue"
	"golang.org/x/sys/unix"
)

// hostVar is set where command vm listens to the console.
const hostVar = "VM_HOST"

// childVar has the name of the child to be.
const childVar = "BEYOND_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "":
		overdue.Report()
		os.Exit(m.Run())
	case "become":
		fmt.Println(become())
	case "listen":
		fmt.Println(listen())
	}
}

func needsHost(t *testing.T) {
	t.Helper()
	if os.Getenv(hostVar) == "" {
		t.Skip("it takes a kernel whose counters command vm changes: go run ./vm -raise")
	}
}

var console = bufio.NewReader(os.Stdin)

// ask tells the host what to do, and returns its answer.
func ask(t *testing.T, question string, args ...any) string {
	t.Helper()
	fmt.Printf("@"+question+"\n", args...)
	for {
		answer, err := console.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if answer, ok := strings.CutPrefix(strings.TrimSpace(answer), "= "); ok {
			t.Logf("%s: %s", fmt.Sprintf(question, args...), answer)
			return answer
		}
	}
}

// locate makes the host search a counter; kind is "sample" or "halves", and name is what the host is to call it. follow moves it
// by some steps, and returns what it is then as a sum: the value itself must not be anywhere
// in the memory of this program, or the host would find that.
func locate(t *testing.T, kind, name string, follow func(round int) (id, more uint64)) bool {
	t.Helper()
	for round := range 10 {
		id, more := follow(round)
		switch answer := ask(t, "%s %s %d %d", kind, name, id, more); {
		case answer == "0":
			return false // somebody else took a number
		case answer == "1" && round >= 4:
			return true
		}
	}
	return false
}

// wasteID makes the kernel give an ID to a process that does not come to be.
func wasteID(t *testing.T) {
	t.Helper()
	const nowhere = 1
	flags, stack := syscall.CLONE_PIDFD|uintptr(syscall.SIGCHLD), uintptr(0)
	if runtime.GOARCH == "s390x" {
		flags, stack = stack, flags // there the stack comes first
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags, stack, nowhere, 0, 0, 0)
	if errno != syscall.EFAULT {
		t.Fatal(errno)
	}
}

// frozen starts a process that the kernel stops before its first instruction. So it
// takes one ID, and not one for each of the runtime's threads. The caller must be locked to its thread.
func frozen(t *testing.T) (pid int) {
	t.Helper()
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args[:1], &syscall.ProcAttr{
		Env: []string{childVar + "=none"},
		Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	})
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || !status.Stopped() {
		t.Fatalf("%v, %#x", err, status)
	}
	return pid
}

// A process is one as sysfd sees it, and as its pidfd's inode looks.
type process struct {
	ref        sysfd.ProcessRef
	handle     sysfd.FileHandle
	inode      uint64
	generation string
}

func inspect(t *testing.T, pid int) (p process) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	id, err := sysfd.PidFDIDOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := sysfd.OpenPidFD(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if p.ref, err = owner.Ref(); err != nil || p.ref.ID != id || p.ref.PID != pid {
		t.Fatalf("%v, %v instead of %d, %d", err, p.ref, pid, id)
	}
	if p.handle, _, err = sysfd.NameToHandleAt(fd, "", sysfd.AT_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	if got, ok := p.handle.PidFDID(); !ok || got != id {
		t.Errorf("the handle %v has the ID %d, not %d", p.handle, got, id)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	p.inode = st.Ino
	const _FS_IOC32_GETVERSION = 0x80047601 // FS_IOC_GETVERSION with 32 bits
	generation, err := unix.IoctlGetUint32(fd, _FS_IOC32_GETVERSION)
	p.generation = strconv.FormatUint(uint64(generation), 16)
	if err != nil {
		p.generation = err.Error()
	}
	return p
}

// narrow tells that the kernel has 32 bits, where an inode number does not hold an ID.
func narrow(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	machine := unix.ByteSliceToString(name.Machine[:])
	return !strings.Contains(machine, "64") && machine != "s390x"
}

func wantError(t *testing.T, err error, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%v instead of %v", err, target)
	}
}

// twins returns two processes with the same lower half of an ID. The young one's has an
// upper half of 7.
func twins(t *testing.T) (old, young process) {
	t.Helper()
	// PIDs and IDs must not run side by side.
	if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("2000"), 0); err != nil {
		t.Log(err)
	}
	for try := range 20 {
		counter := fmt.Sprintf("pidfd%d", try)
		if !locate(t, "sample", counter, func(round int) (id, more uint64) {
			id = uint64(inspect(t, frozen(t)).ref.ID)
			more = uint64(1 + round*5%7)
			for range more {
				wasteID(t)
			}
			return id, more + ahead(t)
		}) {
			continue
		}
		// Several whose IDs follow on each other, so that one of them is met again even if
		// a thread of this program takes an ID.
		olds := map[uint32]process{}
		var first uint64
		for i := range 30 {
			p := inspect(t, frozen(t))
			if i == 0 {
				first = uint64(p.ref.ID)
			}
			olds[uint32(p.ref.ID)] = p
		}
		if answer := ask(t, "set %s 7 %d", counter, first+9+ahead(t)); answer != "ok" {
			t.Fatal(answer)
		}
		young = inspect(t, frozen(t))
		if young.ref.ID>>32 != 7 {
			t.Logf("that was no counter: the next ID is %v", young.ref)
			continue
		}
		// A thread may have had this one among the old.
		for range 10 {
			if old, ok := olds[uint32(young.ref.ID)]; ok {
				if old.ref.ID>>32 != 0 {
					t.Fatalf("%v is no old process beside %v", old.ref, young.ref)
				}
				return old, young
			}
			young = inspect(t, frozen(t))
		}
		t.Fatalf("no old process has the lower half of %v", young.ref)
	}
	t.Fatal("the host does not find the counter")
	return old, young
}

// ahead is what pidfs's counter has more than the ID that was given last: on a 32-bit kernel it is
// the next one.
func ahead(t *testing.T) uint64 {
	if narrow(t) {
		return 1
	}
	return 0
}

func TestPidFDID(t *testing.T) {
	needsHost(t)
	runtime.LockOSThread() // the tracer of the frozen ones
	defer runtime.UnlockOSThread()
	old, young := twins(t)
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tHANDLE\tPIDFD ID\tST_INO\tGENERATION")
	for _, p := range []process{old, young} {
		fmt.Fprintf(w, "%d\t%v\t%#x\t%#x\t%s\n", p.ref.PID, p.handle, uint64(p.ref.ID), p.inode, p.generation)
	}
	w.Flush()
	t.Logf("two processes that are alive:\n%s", &table)
	if same := old.inode == young.inode; same != narrow(t) {
		t.Errorf("st_ino is the same: %v", same)
	}

	for _, p := range []process{old, young} {
		opens(t, p.ref)
		text, err := p.ref.MarshalText()
		var again sysfd.ProcessRef
		if err := errors.Join(err, again.UnmarshalText(text)); err != nil || again.ID != p.ref.ID {
			t.Errorf("%s: %v, %v", text, again, err)
		}
		q, err := sysfd.OpenPidFDByID(p.ref.ID)
		if err != nil {
			t.Fatal(err)
		}
		if pid, err := q.PID(); err != nil || pid != p.ref.PID {
			t.Errorf("%#x is process %d, %v", uint64(p.ref.ID), pid, err)
		}
		q.Close()
	}
	// The ID decides, whatever the PID.
	for _, pid := range []int{old.ref.PID, young.ref.PID} {
		p, err := sysfd.ProcessRef{PID: pid, ID: young.ref.ID ^ 1<<32, BootID: old.ref.BootID}.Open()
		wantError(t, err, os.ErrProcessDone)
		if err == nil {
			t.Errorf("an ID that nobody has opens %v", p)
			p.Close()
		}
	}
	_, err := sysfd.OpenPidFDByID(young.ref.ID ^ 1<<32)
	wantError(t, err, syscall.ESTALE)

	// The end of the one is not that of the other.
	syscall.Kill(young.ref.PID, syscall.SIGKILL)
	if _, err := syscall.Wait4(young.ref.PID, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	_, err = young.ref.Open()
	wantError(t, err, os.ErrProcessDone)
	opens(t, old.ref)
}

func opens(t *testing.T, ref sysfd.ProcessRef) {
	t.Helper()
	p, err := ref.Open()
	if err != nil {
		t.Error(err)
		return
	}
	defer p.Close()
	if got, err := p.Ref(); err != nil || got != ref {
		t.Errorf("%v opens %v, %v", ref, got, err)
	}
}

// TestListenFDs comes after TestPidFDID, which raised the counter.
func TestListenFDs(t *testing.T) {
	needsHost(t)
	for _, test := range []struct {
		flip uint64 // bits of the ID that are wrong
		want string
	}{
		{0, "1 descriptors, <nil>"},
		{7 << 32, "0 descriptors, <nil>"}, // what is in st_ino
		{1 << 32, "0 descriptors, <nil>"},
		{1, "0 descriptors, <nil>"},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{childVar + "=become", fmt.Sprintf("FLIP=%d", test.flip)}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{r}
		out, err := cmd.CombinedOutput()
		r.Close()
		w.Close()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		id, got, _ := strings.Cut(string(bytes.TrimSpace(out)), ": ")
		t.Logf("%s, $LISTEN_PIDFDID with %#x flipped: %s", id, test.flip, got)
		if n, err := strconv.ParseUint(id, 0, 64); err != nil || n>>32 != 7 {
			t.Errorf("the ID %s is not beyond 32 bits: %v", id, err)
		}
		if got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

// become executes this program anew, with descriptor 3 and an ID that may be wrong.
func become() error {
	ref, err := sysfd.SelfRef()
	if err != nil {
		return err
	}
	flip, err := strconv.ParseUint(os.Getenv("FLIP"), 10, 64)
	if err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, []string{
		childVar + "=listen", "LISTEN_FDS=1",
		fmt.Sprintf("LISTEN_PID=%d", ref.PID), fmt.Sprintf("LISTEN_PIDFDID=%d", uint64(ref.ID)^flip),
	})
}

func listen() string {
	files, err := sysfd.ListenFDs()
	ref, refErr := sysfd.SelfRef()
	if refErr != nil {
		return refErr.Error()
	}
	return fmt.Sprintf("%#x: %d descriptors, %v", uint64(ref.ID), len(files), err)
}

const cgroups = "/sys/fs/cgroup"

func TestCgroupID(t *testing.T) {
	needsHost(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	root, err := os.Open(cgroups)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	last := "group"
	makeCgroup(t, last)
	// Its files have the IDs that follow.
	files, err := os.ReadDir(filepath.Join(cgroups, last))
	if err != nil {
		t.Fatal(err)
	}
	const counter = "kernfs"
	if !locate(t, "halves", counter, func(int) (id, more uint64) {
		last += "+"
		return uint64(makeCgroup(t, last)), uint64(len(files))
	}) {
		t.Fatal("the host does not find the counter")
	}

	// The kernel gives the lower half again when the counter has gone round.
	removed, _, err := sysfd.CgroupIDAt(int(root.Fd()), last, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Rmdir(filepath.Join(cgroups, last)); err != nil {
		t.Fatal(err)
	}
	var id sysfd.CgroupID
	var name string
	for try := range 50 {
		time.Sleep(100 * time.Millisecond) // the kernel takes its time to let go of what was removed
		if answer := ask(t, "rewind %s %d", counter, uint32(removed)); answer != "ok" {
			t.Fatal(answer)
		}
		name = fmt.Sprintf("again%d", try)
		if id = makeCgroup(t, name); uint32(id) == uint32(removed) {
			break
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(cgroups, name), &st); err != nil {
		t.Fatal(err)
	}
	t.Logf("cgroup removed: %#x, new: %#x, st_ino %#x", uint64(removed), uint64(id), st.Ino)
	if id>>32 == 0 || id == removed || uint32(id) != uint32(removed) {
		t.Fatal("that is not what was to be tried")
	}
	if full := st.Ino == uint64(id); full == narrow(t) {
		t.Errorf("st_ino has the whole ID: %v", full)
	}

	f, err := sysfd.OpenCgroup(int(root.Fd()), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	was, err := os.Stat(filepath.Join(cgroups, name))
	if err != nil {
		t.Fatal(err)
	}
	if is, err := f.Stat(); err != nil || !os.SameFile(was, is) {
		t.Errorf("another cgroup was opened: %v", err)
	}
	if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); filepath.Base(target) != name {
		t.Errorf("another cgroup was opened: %s, %v", target, err)
	}
	for _, other := range []sysfd.CgroupID{removed, id & (1<<32 - 1), id + 1<<32, id ^ 7<<32} {
		if other == id {
			continue
		}
		g, err := sysfd.OpenCgroup(int(root.Fd()), other)
		wantError(t, err, syscall.ESTALE)
		if err == nil {
			t.Errorf("%#x opens %s", uint64(other), g.Name())
			g.Close()
		}
	}

	// And the kernel itself calls it so.
	pid := frozen(t)
	if err := os.WriteFile(filepath.Join(cgroups, name, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	p, err := sysfd.OpenPidFD(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	info, err := p.Info(sysfd.PIDFD_INFO_CGROUPID)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := info.CgroupID(); !ok || got != id {
		t.Errorf("PIDFD_GET_INFO says %#x, %v", uint64(got), ok)
	}
}

// makeCgroup makes one for the life of the machine.
func makeCgroup(t *testing.T, name string) (id sysfd.CgroupID) {
	t.Helper()
	path := filepath.Join(cgroups, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	id, _, err := sysfd.CgroupIDAt(sysfd.AT_FDCWD, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
