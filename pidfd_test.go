//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/collector"
	"github.com/sysfd/sysfd/internal/rights"
)

func TestHandlePidFDID(t *testing.T) {
	for _, test := range []struct {
		typ  int32
		data [12]byte
		n    int
		id   PidFDID
		ok   bool
	}{
		{typ: FILEID_KERNFS, data: bytes64(0x19), n: 8, id: 0x19, ok: true},
		{typ: FILEID_KERNFS, data: bytes64(0x7_0000_0077), n: 8, id: 0x7_0000_0077, ok: true},
		{typ: FILEID_KERNFS, data: bytes64(1<<64 - 1), n: 8, id: 1<<64 - 1, ok: true},
		{typ: FILEID_KERNFS, data: bytes64(0x19), n: 12},
		{typ: FILEID_KERNFS, data: bytes64(0x19), n: 4},
		{typ: FILEID_INO32_GEN, data: bytes64(0x19), n: 8},
		{typ: FILEID_INO64_GEN, data: bytes64(0x19), n: 12}, // AT_HANDLE_FID on a pidfd before Linux 6.14
		{},
	} {
		h, err := NewFileHandle(test.typ, test.data[:test.n])
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := h.PidFDID(); id != test.id || ok != test.ok {
			t.Errorf("%v: %d, %v; want %d, %v", h, id, ok, test.id, test.ok)
		}
		if test.ok && PidFDHandle(test.id) != h {
			t.Errorf("the handle of %d is %v, want %v", test.id, PidFDHandle(test.id), h)
		}
	}
}

// bytes64 spells n in the byte order of the machine.
func bytes64(n uint64) (b [12]byte) {
	for i := range 8 {
		b[i] = byte(n >> (8 * i))
		if bigEndian {
			b[i] = byte(n >> (56 - 8*i))
		}
	}
	return b
}

func openPidFD(t testing.TB, pid int) *PidFD {
	t.Helper()
	needs(t, FeaturePidFD)
	p, err := OpenPidFD(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func idOf(t testing.TB, p *PidFD) PidFDID {
	t.Helper()
	id, err := p.ID()
	if err != nil || id == 0 {
		t.Fatalf("ID %d, %v", id, err)
	}
	return id
}

// duplicateOf returns a file of p that can be passed to a child.
func duplicateOf(t *testing.T, p *PidFD) *os.File {
	t.Helper()
	f, err := p.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// forgetPidfs makes the package learn again what tells pidfs from other file systems.
func forgetPidfs() {
	pidfsDev.Store(0)
	pidfsMount.Store(0)
}

func TestPidFDIDOf(t *testing.T) {
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	first, second := sleeper(t), sleeper(t)
	me, a, b := openPidFD(t, os.Getpid()), openPidFD(t, first.Process.Pid), openPidFD(t, second.Process.Pid)
	again := openPidFD(t, first.Process.Pid)
	if idOf(t, a) == idOf(t, b) || idOf(t, a) == idOf(t, me) || idOf(t, a) != idOf(t, again) {
		t.Errorf("IDs %d, %d, %d, %d", idOf(t, a), idOf(t, b), idOf(t, me), idOf(t, again))
	}
	if id, err := PidFDIDOf(a.fd); err != nil || id != idOf(t, a) {
		t.Errorf("PidFDIDOf: %d, %v", id, err)
	}
	if id, err := selfID(); err != nil || id != idOf(t, me) {
		t.Errorf("selfID: %d, %v", id, err)
	}
	before := idOf(t, a)
	reap(first)
	if idOf(t, a) != before {
		t.Error("the ID changed when the process was reaped")
	}
}

// A process asks for its ID itself, and is asked from outside.
func TestPidFDIDAcrossProcesses(t *testing.T) {
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	cmd := child("self-id")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	var said PidFDID
	if _, err := fmt.Fscan(stdout, &said); err != nil {
		t.Fatal(err)
	}
	if id := idOf(t, openPidFD(t, cmd.Process.Pid)); id != said {
		t.Errorf("from outside %d, from inside %d", id, said)
	}
}

func init() {
	children["self-id"] = func([]string) error {
		id, err := selfID()
		if err != nil {
			return err
		}
		fmt.Println(uint64(id))
		_, err = io.ReadAll(os.Stdin)
		return err
	}
}

func TestPidFDIDByInodeAndByHandle(t *testing.T) {
	if !is64bit {
		return
	}
	needs(t, FeatureOpenByID)
	for _, fresh := range []bool{true, false} {
		if fresh {
			forgetPidfs()
		}
		p := openPidFD(t, sleeper(t).Process.Pid)
		byInode, err := pidfdIDByInode(p.fd)
		if err != nil {
			t.Fatal(err)
		}
		byHandle, err := pidfdIDByHandle(p.fd)
		if err != nil || byHandle != byInode {
			t.Errorf("by inode %d, by handle %d, %v", byInode, byHandle, err)
		}
	}
}

// notPidFDs are descriptors of all kinds; some have handles of the shape that a
// pidfd's has.
func notPidFDs(t *testing.T) map[string]int {
	t.Helper()
	fds := map[string]int{}
	add := func(name string, fd int, err error) {
		if err != nil {
			t.Logf("%s: %v", name, err)
			return
		}
		fds[name] = fd
		t.Cleanup(func() { syscall.Close(fd) })
	}
	open := func(path string, flags int) {
		fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
		add(path, fd, err)
	}
	open(tempFile(t), syscall.O_RDONLY)
	open("/", syscall.O_RDONLY)
	open("/proc/self", syscall.O_RDONLY)
	open("/proc/self/ns/pid", syscall.O_RDONLY)
	open("/sys/kernel", syscall.O_RDONLY)
	open("/sys/fs/cgroup", syscall.O_RDONLY)
	open("/dev/null", syscall.O_RDWR)
	const O_PATH = 0x200000
	open("/usr", O_PATH)
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	add("epoll", epoll, err)
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	add("socket", socket, err)
	var pipe [2]int
	err = syscall.Pipe2(pipe[:], syscall.O_CLOEXEC)
	add("pipe", pipe[0], err)
	add("the pipe's other end", pipe[1], err)
	return fds
}

func TestNotAPidFD(t *testing.T) {
	keepsDescriptors(t)
	fds := notPidFDs(t)
	if len(fds) < 8 {
		t.Fatalf("only %v to try", fds)
	}
	methods := map[string]func(int) (PidFDID, error){"handle": pidfdIDByHandle, "any": PidFDIDOf}
	if is64bit {
		methods["inode"] = pidfdIDByInode
	}
	for name, fd := range fds {
		for method, get := range methods {
			// A stray descriptor may be the first that is asked about.
			forgetPidfs()
			for range 2 {
				id, err := get(fd)
				if id != 0 {
					t.Errorf("%s, by %s: ID %d", name, method, id)
				}
				matches(t, err, ErrNotPidFD, syscall.EBADF)
				if err != nil && !strings.Contains(err.Error(), strconv.Itoa(fd)) {
					t.Errorf("%v does not name %d", err, fd)
				}
			}
			// And must not change what a pidfd is told.
			stillKnowsItself(t)
		}
	}
	for _, fd := range []int{-1, 99999, AT_FDCWD, FD_PIDFS_ROOT, -10000} {
		for _, get := range methods {
			_, err := get(fd)
			matches(t, err, syscall.EBADF)
		}
	}
}

// A file on FUSE whose server does not answer can be any descriptor that someone has passed. To
// say that it is no pidfd, nor what systemd passes, does not take the server.
func TestSilentFileSystem(t *testing.T) {
	reliesOn(t, mounting)
	keepsDescriptors(t)
	f, abort := silentFile(t)
	fd := int(f.Fd())
	for _, known := range []bool{true, false} {
		if known {
			PidFDIDOf(fd)
		} else {
			forgetPidfs()
		}
		for name, ask := range map[string]func() error{
			"PidFDIDOf":       func() error { return second(PidFDIDOf(fd)) },
			"pidfdIDByInode":  func() error { return second(pidfdIDByInode(fd)) },
			"pidfdIDByHandle": func() error { return second(pidfdIDByHandle(fd)) },
			"NewPidFD":        func() error { return closed(NewPidFD(fd)) },
			"TakePidFD":       func() error { return closed(TakePidFD(&syscall.SysProcAttr{PidFD: &fd})) },
			"CgroupIDOf":      func() error { return third(CgroupIDOf(fd)) },
			"OpenCgroup":      func() error { return closed(OpenCgroup(fd, 1)) },
			"CgroupPath":      func() error { return second(CgroupPath(fd, 1)) },
			"IsFIFO":          func() error { return second(IsFIFO(f, "")) },
			"IsSpecial":       func() error { return second(IsSpecial(f, "/dev/null")) },
			"IsSocket":        func() error { return second(IsSocket(f, 0, 0, -1)) },
			"IsMessageQueue":  func() error { return second(IsMessageQueue(f, "")) },
		} {
			answer := make(chan error, 1)
			go func() { answer <- ask() }()
			select {
			case err := <-answer:
				switch {
				case strings.Contains(strings.ToLower(name), "pidfd"):
					matches(t, err, ErrNotPidFD, syscall.EBADF)
				case strings.Contains(name, "Cgroup"):
					matches(t, err, syscall.EINVAL)
				case err != nil:
					t.Errorf("%s: %v", name, err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s waits for the server", name)
				abort()
				return
			}
		}
	}
}

// silentFile returns a directory on FUSE whose server answers nothing until abort is called,
// which fails what waits for it.
func silentFile(t *testing.T) (f *os.File, abort func()) {
	t.Helper()
	rights.Need(t, rights.SysAdmin)
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lacks(t, "/dev/fuse: "+err.Error())
	}
	t.Cleanup(func() { device.Close() })
	dir := t.TempDir()
	var errMount error
	if err := withFD(device, func(fd int) {
		errMount = syscall.Mount("silent", dir, "fuse", 0, "fd="+strconv.Itoa(fd)+",rootmode=40000,user_id=0,group_id=0")
	}); err != nil {
		t.Fatal(err)
	}
	if errMount != nil {
		lacks(t, "FUSE: "+errMount.Error())
	}
	abort = func() { syscall.Unmount(dir, syscall.MNT_FORCE|syscall.MNT_DETACH) } // which does not wait
	t.Cleanup(abort)
	fd, err := openat(AT_FDCWD, dir, O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	f = os.NewFile(uintptr(fd), dir)
	t.Cleanup(func() { f.Close() })
	return f, abort
}

// stillKnowsItself checks that this process gets its ID, where the kernel has IDs.
func stillKnowsItself(t *testing.T) {
	t.Helper()
	p := openPidFD(t, os.Getpid())
	defer p.Close()
	id, err := p.ID()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	if err == nil && is64bit {
		if file, errno := statFD(p.fd); errno != 0 || PidFDID(file.ino) != id {
			t.Fatalf("ID %d, inode %d, %v", id, file.ino, errno)
		}
	}
}

func TestPidFDIDOfConcurrently(t *testing.T) {
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	p := openPidFD(t, os.Getpid())
	want := idOf(t, p)
	stray, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	strayFD := int(stray.Fd())
	for range 20 {
		forgetPidfs()
		var group waitGroup
		for i := range 8 {
			group.Go(func() {
				for range 20 {
					if i%2 == 0 {
						if _, err := PidFDIDOf(strayFD); !errors.Is(err, ErrNotPidFD) {
							t.Errorf("stray: %v", err)
						}
					} else if id, err := PidFDIDOf(p.fd); err != nil || id != want {
						t.Errorf("%d, %v; want %d", id, err, want)
					}
				}
			})
		}
		group.Wait()
	}
}

func TestOpenPidFDErrors(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	gone := child("sleep")
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	reap(gone)
	for _, test := range []struct {
		pid, flags int
		want       []error
	}{
		{0, 0, []error{syscall.EINVAL}},
		{-1, 0, []error{syscall.EINVAL}},
		{os.Getpid(), 1 << 30, []error{syscall.EINVAL}},
		{gone.Process.Pid, 0, []error{syscall.ESRCH, os.ErrProcessDone}},
	} {
		p, err := OpenPidFD(test.pid, test.flags)
		if p != nil {
			t.Errorf("%+v: opened", test)
		}
		matches(t, err, test.want...)
		if err != nil && !strings.Contains(err.Error(), strconv.Itoa(test.pid)) {
			t.Errorf("%v does not name %d", err, test.pid)
		}
	}
	if is64bit {
		// A PID has 32 bits, and 2^32 more is not the same one.
		_, err := OpenPidFD(os.Getpid()+beyond32bits, 0)
		matches(t, err, syscall.EINVAL)
	}
}

func TestOpenPidFDByID(t *testing.T) {
	needs(t, FeatureOpenByID)
	keepsDescriptors(t)
	cmd := sleeper(t)
	pid := cmd.Process.Pid
	id := idOf(t, openPidFD(t, pid))
	p, err := OpenPidFDByID(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if idOf(t, p) != id {
		t.Errorf("ID %d, want %d", idOf(t, p), id)
	}
	if got, err := p.PID(); err != nil || got != pid {
		t.Errorf("PID %d, %v; want %d", got, err, pid)
	}
	if flags, errno := fcntl(p.fd, syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
	if ownPIDNamespace() != initialPIDNamespace {
		lacks(t, "the initial pid namespace")
	}
	for _, wrong := range []PidFDID{0, id ^ 1<<32, id | 1<<63, 1<<64 - 1} {
		_, err := OpenPidFDByID(wrong)
		matches(t, err, syscall.ESTALE, os.ErrProcessDone)
		if err != nil && !strings.Contains(err.Error(), wrong.String()) {
			t.Errorf("%v does not name %d", err, wrong)
		}
	}
	reap(cmd)
	_, err = OpenPidFDByID(id)
	matches(t, err, syscall.ESTALE, os.ErrProcessDone)
}

func TestPidFDPID(t *testing.T) {
	keepsDescriptors(t)
	cmd := sleeper(t)
	p := openPidFD(t, cmd.Process.Pid)
	ask := map[string]func() (int, error){
		"PID":    p.PID,
		"fdinfo": func() (int, error) { return p.fdinfoPID(errors.ErrUnsupported) },
	}
	for name, pid := range ask {
		if got, err := pid(); err != nil || got != cmd.Process.Pid {
			t.Errorf("%s: %d, %v; want %d", name, got, err, cmd.Process.Pid)
		}
	}
	cmd.Process.Kill()
	cmd.Process.Wait()
	for name, pid := range ask {
		got, err := pid()
		if got != 0 {
			t.Errorf("%s: %d of a process that was reaped", name, got)
		}
		matches(t, err, syscall.ESRCH, os.ErrProcessDone)
	}
}

// otherThread keeps a thread that is not the main one until the test ends, and
// returns its ID.
func otherThread(t *testing.T) (tid int) {
	t.Helper()
	found, done := make(chan int), make(chan bool)
	t.Cleanup(func() { close(done) })
	var hold func()
	hold = func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if syscall.Gettid() == syscall.Getpid() {
			go hold()
		} else {
			found <- syscall.Gettid()
		}
		<-done
	}
	go hold()
	return <-found
}

func TestOpenPidFDFlags(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	thread := otherThread(t)
	gone := child("sleep")
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	reap(gone)
	for _, test := range []struct {
		flags int
		since string
		pid   int
	}{
		{PIDFD_NONBLOCK, "5.10", os.Getpid()},
		{PIDFD_THREAD, "6.9", os.Getpid()},
		{PIDFD_THREAD, "6.9", thread},
		{PIDFD_THREAD | PIDFD_NONBLOCK, "6.9", thread},
	} {
		_, errGone := OpenPidFD(gone.Process.Pid, test.flags)
		p, err := OpenPidFD(test.pid, test.flags)
		if olderThan(t, test.since) && errors.Is(err, errors.ErrUnsupported) {
			matches(t, err, syscall.EINVAL, errors.ErrUnsupported)
			matches(t, errGone, syscall.EINVAL, errors.ErrUnsupported)
			continue
		}
		if err != nil {
			t.Fatalf("%+v: %v", test, err)
		}
		defer p.Close()
		matches(t, errGone, syscall.ESRCH, os.ErrProcessDone)
		if flags, _ := fcntl(p.fd, syscall.F_GETFL, 0); (flags&syscall.O_NONBLOCK != 0) != (test.flags&PIDFD_NONBLOCK != 0) {
			t.Errorf("%+v: %#x", test, flags)
		}
		if pid, err := p.PID(); err != nil || pid != test.pid {
			t.Errorf("%+v: PID %d, %v", test, pid, err)
		}
	}
	_, err := OpenPidFD(os.Getpid(), PIDFD_NONBLOCK|1<<30)
	matches(t, err, syscall.EINVAL)
	_, err = OpenPidFD(thread, PIDFD_NONBLOCK)
	if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a thread without PIDFD_THREAD: %v", err)
	}
}

func TestThreadByID(t *testing.T) {
	needs(t, FeatureOpenByID)
	keepsDescriptors(t)
	thread := otherThread(t)
	p, err := OpenPidFD(thread, PIDFD_THREAD)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	again, err := OpenPidFDByID(idOf(t, p))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if pid, err := again.PID(); err != nil || pid != thread || idOf(t, p) == idOf(t, openPidFD(t, os.Getpid())) {
		t.Errorf("PID %d, %v; want %d", pid, err, thread)
	}
	ref, err := p.Ref()
	if err != nil {
		t.Fatal(err)
	}
	for way, open := range opening(t) {
		again, err := open(ref)
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		if idOf(t, again) != ref.ID {
			t.Errorf("%s: ID %d, want %d", way, idOf(t, again), ref.ID)
		}
		again.Close()
	}
}

func init() {
	children["other-namespace"] = func(args []string) error {
		if len(args) > 0 {
			if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
				return err
			}
		}
		unsupported := errors.ErrUnsupported
		own, err := OpenPidFD(os.Getpid(), 0)
		if err != nil {
			return err
		}
		for _, p := range []*PidFD{own, newPidFD(3, "passed", unnumbered)} {
			pid, err := p.PID()
			fromProc, errProc := p.fdinfoPID(unsupported)
			fmt.Printf("%d %v %v %d %v %v\n", pid, errors.Is(err, syscall.EREMOTE), errors.Is(err, unsupported),
				fromProc, errors.Is(errProc, syscall.EREMOTE), errors.Is(errProc, unsupported))
		}
		return nil
	}
}

// In a pid namespace of its own a process is told the PIDs of that one, or none.
func TestPidFDPIDInNamespace(t *testing.T) {
	rights.MountedRoot(t)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	outside := openPidFD(t, os.Getpid())
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "1 false false 0 false true\n0 true false 0 false true\n"}, // the /proc of the outer namespace
		{[]string{"own-proc"}, "1 false false 1 false false\n0 true false 0 true false\n"},
	} {
		cmd := child("other-namespace", test.args...)
		cmd.ExtraFiles = []*os.File{duplicateOf(t, outside)}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
		want := test.want
		if FeatureInfo.Probe() != nil && test.args == nil {
			want = "0 false true 0 false true\n0 false true 0 false true\n"
		}
		if out := output(t, cmd); out != want {
			t.Errorf("%q: %q, want %q", test.args, out, want)
		}
	}
}

func TestPidFDClosed(t *testing.T) {
	keepsDescriptors(t)
	p := openPidFD(t, os.Getpid())
	fd := p.fd
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	// Let another file have the number.
	f, err := os.Open(tempFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if int(f.Fd()) != fd {
		t.Logf("the next file has descriptor %d, not %d", f.Fd(), fd)
	}
	use := func(p *PidFD, want error) {
		t.Helper()
		_, err := p.ID()
		matches(t, err, want)
		_, err = p.PID()
		matches(t, err, want)
		_, err = p.SyscallConn()
		matches(t, err, want)
		_, err = p.Info(PIDFD_INFO_PID)
		matches(t, err, want)
		_, err = p.NSPIDs()
		matches(t, err, want)
		_, err = p.GetXattr("trusted.x")
		matches(t, err, want)
		matches(t, p.SetXattr("trusted.x", nil, 0), want)
		matches(t, p.RemoveXattr("trusted.x"), want)
		_, err = p.ListXattrs()
		matches(t, err, want)
		matches(t, p.SendSignal(0), want)
		matches(t, p.SendSignalTo(0, 0), want)
		matches(t, p.QueueSignal(0, 0), want)
		matches(t, p.Verify(func() error { t.Error("called"); return nil }), want)
		_, err = p.GetFD(0)
		matches(t, err, want)
		_, err = p.Madvise(MADV_COLD)
		matches(t, err, want)
		matches(t, p.Mrelease(), want)
		_, err = p.Namespace(NetNamespace)
		matches(t, err, want)
		matches(t, p.Setns(syscall.CLONE_NEWNET), want)
		matches(t, p.Close(), want)
	}
	use(p, os.ErrClosed)
	use(new(PidFD), os.ErrClosed)
	use(nil, os.ErrInvalid)
}

func TestPidFDConcurrentClose(t *testing.T) {
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	want := idOf(t, openPidFD(t, os.Getpid()))
	for range 50 {
		p := openPidFD(t, os.Getpid())
		var group waitGroup
		for range 4 {
			group.Go(func() {
				for {
					id, err := p.ID()
					if errors.Is(err, os.ErrClosed) {
						return
					}
					if err != nil || id != want {
						t.Errorf("%d, %v", id, err)
						return
					}
				}
			})
		}
		closed := make(chan error, 2)
		for range 2 {
			group.Go(func() { closed <- p.Close() })
		}
		group.Wait()
		if a, b := <-closed, <-closed; (a == nil) == (b == nil) {
			t.Errorf("closed twice: %v, %v", a, b)
		}
	}
}

func TestPidFDFile(t *testing.T) {
	keepsDescriptors(t)
	p := openPidFD(t, os.Getpid())
	f, err := p.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if want := "pidfd:" + strconv.Itoa(os.Getpid()); f.Name() != want || p.String() != want || fmt.Sprint((*PidFD)(nil), new(PidFD)) == "" {
		t.Errorf("%s, %v", f.Name(), p)
	}
	p.Close()
	if flags, errno := fcntl(int(f.Fd()), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
	fd, errno := dupAbove(int(f.Fd()), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	again, err := NewPidFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if pid, err := again.PID(); err != nil || pid != os.Getpid() {
		t.Errorf("PID %d, %v", pid, err)
	}
	_, err = p.File()
	matches(t, err, os.ErrClosed)
}

func TestPidFDSyscallConn(t *testing.T) {
	keepsDescriptors(t)
	p := openPidFD(t, os.Getpid())
	conn, err := p.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Control(func(fd uintptr) {
		if int(fd) != p.fd {
			t.Errorf("descriptor %d, want %d", fd, p.fd)
		}
	}); err != nil {
		t.Error(err)
	}
	if err := conn.Write(func(fd uintptr) bool { return int(fd) == p.fd }); err != nil {
		t.Error(err)
	}
	matches(t, conn.Write(func(uintptr) bool { return false }), errors.ErrUnsupported)
	// A Close meanwhile does not wait, and leaves the descriptor to what uses it.
	if err := conn.Control(func(fd uintptr) {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if isPidFD, _ := isPidFD(int(fd)); !isPidFD {
			t.Error("closed while it was in use")
		}
	}); err != nil {
		t.Error(err)
	}
	never := func(uintptr) bool { t.Error("called after Close"); return true }
	matches(t, conn.Control(func(fd uintptr) { never(fd) }), os.ErrClosed)
	matches(t, conn.Read(never), os.ErrClosed)
	matches(t, conn.Write(never), os.ErrClosed)
}

// Read returns when the process has ended, and when the PidFD is closed.
func TestPidFDSyscallConnRead(t *testing.T) {
	keepsDescriptors(t)
	for _, flags := range []int{0, PIDFD_NONBLOCK} {
		k := exiter(t, 3)
		p := k.open(flags)
		conn, err := p.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		read := func(done bool) <-chan error {
			called, ended := make(chan bool, 100), make(chan error, 1)
			go func() {
				ended <- conn.Read(func(fd uintptr) bool {
					revents, _ := pollNow(int(fd))
					called <- true
					return done && revents != 0
				})
			}()
			<-called
			return ended
		}
		ended := read(true)
		k.exit()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended = read(false)
		p.Close()
		matches(t, <-ended, os.ErrClosed)
		// The function itself may be the one who closes.
		p = k.open(flags)
		if conn, err = p.SyscallConn(); err != nil {
			t.Fatal(err)
		}
		matches(t, conn.Read(func(uintptr) bool { p.Close(); return false }), os.ErrClosed)
		if _, errno := fcntl(p.fd, syscall.F_GETFD, 0); errno != syscall.EBADF {
			t.Errorf("after Close: %v", errno)
		}
	}
}

// A function that is given the descriptor may panic or end its goroutine. The PidFD can be
// used afterwards, and closed, also by the function itself.
func TestPidFDSyscallConnFunctionLeaves(t *testing.T) {
	for name, call := range map[string]func(p *PidFD, conn syscall.RawConn, f func()){
		"Control": func(p *PidFD, conn syscall.RawConn, f func()) { conn.Control(func(uintptr) { f() }) },
		"Read":    func(p *PidFD, conn syscall.RawConn, f func()) { conn.Read(func(uintptr) bool { f(); return true }) },
		"Write":   func(p *PidFD, conn syscall.RawConn, f func()) { conn.Write(func(uintptr) bool { f(); return true }) },
		"Verify":  func(p *PidFD, conn syscall.RawConn, f func()) { p.Verify(func() error { f(); return nil }) },
	} {
		for how, leave := range map[string]func(){"panics": func() { panic("of the test") }, "ends": runtime.Goexit} {
			for _, closes := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s, closes %v", name, how, closes), func(t *testing.T) {
					bothFlags(t, func(t *testing.T, flags int) {
						p := exiter(t, 0).open(flags)
						conn, err := p.SyscallConn()
						if err != nil {
							t.Fatal(err)
						}
						left := make(chan bool)
						go func() {
							defer close(left)
							defer func() { recover() }()
							call(p, conn, func() {
								if closes {
									p.Close()
								}
								leave()
							})
							t.Error("it has returned")
						}()
						<-left
						if !closes {
							if _, err := p.Wait(giveUp(), 0); gaveUp(err) != nil {
								t.Error(err)
							}
							if err := p.Close(); err != nil {
								t.Error(err)
							}
						}
						if _, errno := fcntl(p.fd, syscall.F_GETFD, 0); errno != syscall.EBADF {
							t.Errorf("after Close: %v", errno)
						}
					})
				})
			}
		}
	}
}

// What is forgotten is closed: a PidFD, one that Wait has parked on, a set and its members.
func TestPidFDForgotten(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 3)
	before := descriptors(t)
	func() {
		set, err := NewWaitSet[int](0)
		if err != nil {
			t.Fatal(err)
		}
		for _, flags := range []int{0, PIDFD_NONBLOCK} {
			for i := range 3 {
				p, err := OpenPidFD(k.pid, flags)
				if err != nil {
					t.Fatal(err)
				}
				switch i {
				case 1:
					if _, err := p.Wait(giveUp(), 0); gaveUp(err) != nil {
						t.Fatal(err)
					}
				case 2:
					if err := set.Add(p, 0); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}()
	if n := len(descriptors(t)); n != len(before)+8 {
		t.Errorf("%d descriptors, %d before", n, len(before))
	}
	if collector.Run(); !slices.Equal(descriptors(t), before) {
		t.Errorf("open before: %q\nopen after: %q", before, descriptors(t))
	}
}

// A PidFD that was closed and is forgotten afterwards closes nothing: its number is that of another file.
func TestPidFDClosedAndForgotten(t *testing.T) {
	keepsDescriptors(t)
	k := exiter(t, 0)
	null := int(openNull(t).Fd())
	var strangers []int
	func() {
		for _, flags := range []int{0, PIDFD_NONBLOCK} {
			for _, parks := range []bool{false, true} {
				p, err := OpenPidFD(k.pid, flags)
				if err != nil {
					t.Fatal(err)
				}
				fds := []int{p.fd}
				if parks {
					if _, err := p.Wait(giveUp(), 0); gaveUp(err) != nil {
						t.Fatal(err)
					}
					withFD(p.parking.Load().file, func(fd int) { fds = slices.Compact(append(fds, fd)) })
				}
				if err := p.Close(); err != nil {
					t.Error(err)
				}
				for _, fd := range fds {
					if _, errno := fcntl(fd, syscall.F_GETFD, 0); errno != syscall.EBADF {
						t.Errorf("after Close: %v", errno)
					}
					if err := syscall.Dup3(null, fd, syscall.O_CLOEXEC); err != nil {
						t.Fatal(err)
					}
				}
				strangers = append(strangers, fds...)
			}
		}
	}()
	collector.Run()
	for _, fd := range strangers {
		if err := syscall.Close(fd); err != nil {
			t.Errorf("%d: %v", fd, err)
		}
	}
}

// At the limit of descriptors there is a clear error, and below it all works again.
func TestPidFDOutOfDescriptors(t *testing.T) {
	keepsDescriptors(t)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	self, other := openPidFD(t, os.Getpid()), sleeper(t).Process.Pid
	low := old
	low.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	forgetPidfs()
	_, errOpen := OpenPidFD(other, 0)
	_, errID := self.ID()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	matches(t, errOpen, syscall.EMFILE)
	if errID != nil && !errors.Is(errID, errors.ErrUnsupported) {
		t.Errorf("the ID of an open pidfd: %v", errID) // it takes no descriptor
	}
	openPidFD(t, other).Close()
}

func TestPidFDAllocates(t *testing.T) {
	needs(t, FeaturePidFDID)
	p := openPidFD(t, os.Getpid())
	doesNotAllocate(t, func() { PidFDIDOf(p.fd) })
	doesNotAllocate(t, func() { p.ID() })
	t.Run("PID", func(t *testing.T) {
		needs(t, FeatureInfo)
		doesNotAllocate(t, func() { p.PID() })
	})
}

func TestNewPidFD(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	cmd := sleeper(t)
	fd, errno := pidfdOpen(cmd.Process.Pid, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	fcntl(fd, syscall.F_SETFD, 0)
	flags, _ := fcntl(fd, syscall.F_GETFL, 0)
	p, err := NewPidFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	if fdFlags, _ := fcntl(fd, syscall.F_GETFD, 0); fdFlags&syscall.FD_CLOEXEC == 0 {
		t.Error("it is not close-on-exec")
	}
	if now, _ := fcntl(fd, syscall.F_GETFL, 0); now != flags {
		t.Errorf("flags %#x became %#x", flags, now)
	}
	if pid, err := p.PID(); err != nil || pid != cmd.Process.Pid {
		t.Errorf("PID %d, %v; want %d", pid, err, cmd.Process.Pid)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, errno := fcntl(fd, syscall.F_GETFD, 0); errno != syscall.EBADF {
		t.Errorf("after Close: %v", errno)
	}

	reaped := openPidFD(t, cmd.Process.Pid)
	reap(cmd)
	dup, errno := dupAbove(reaped.fd, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	p, err = NewPidFD(dup)
	if err != nil {
		t.Fatalf("of a process that was reaped: %v", err)
	}
	p.Close()
}

func TestNewPidFDNot(t *testing.T) {
	keepsDescriptors(t)
	fds := notPidFDs(t)
	self := openPidFD(t, os.Getpid())
	const O_PATH = 0x200000
	if fd, err := syscall.Open("/proc/self/fd/"+strconv.Itoa(self.fd), O_PATH|syscall.O_CLOEXEC, 0); err == nil {
		fds["O_PATH of a pidfd"] = fd
		defer syscall.Close(fd)
	}
	for name, fd := range fds {
		fcntl(fd, syscall.F_SETFD, 0)
		p, err := NewPidFD(fd)
		if p != nil {
			t.Errorf("%s: taken", name)
		}
		matches(t, err, ErrNotPidFD, syscall.EBADF)
		if flags, errno := fcntl(fd, syscall.F_GETFD, 0); errno != 0 || flags != 0 {
			t.Errorf("%s: descriptor flags %#x, %v", name, flags, errno)
		}
		fcntl(fd, syscall.F_SETFD, syscall.FD_CLOEXEC)
	}
	for _, fd := range []int{-1, 99999, -10000 /* PIDFD_SELF */, FD_PIDFS_ROOT} {
		_, err := NewPidFD(fd)
		matches(t, err, syscall.EBADF)
	}
	if is64bit {
		_, err := NewPidFD(self.fd + beyond32bits)
		matches(t, err, syscall.EBADF)
	}
}

func TestTakePidFD(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	cmd := child("sleep")
	fd := 0
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	// Not started: 0 is another descriptor.
	if p, err := TakePidFD(cmd.SysProcAttr); p != nil || fd != 0 {
		t.Errorf("%v, %d", p, fd)
	} else {
		matches(t, err, ErrNotPidFD, syscall.EBADF)
	}
	emulated := os.Getenv(emulatorVar) != ""
	if emulated {
		cmd.SysProcAttr.PidFD = nil // it has no CLONE_PIDFD
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer reap(cmd)
	if emulated {
		fd, _ = pidfdOpen(cmd.Process.Pid, 0)
		cmd.SysProcAttr.PidFD = &fd
	}
	number := fd
	p, err := TakePidFD(cmd.SysProcAttr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.fd != number || fd != -1 {
		t.Errorf("descriptor %d, want %d; %d is left", p.fd, number, fd)
	}
	if pid, err := p.PID(); err != nil || pid != cmd.Process.Pid {
		t.Errorf("PID %d, %v; want %d", pid, err, cmd.Process.Pid)
	}
	_, err = TakePidFD(cmd.SysProcAttr)
	matches(t, err, errors.ErrUnsupported)
	for _, attr := range []*syscall.SysProcAttr{nil, {}} {
		_, err = TakePidFD(attr)
		matches(t, err, syscall.EINVAL)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error(err)
	}
}

// reapedPidFD ends a child and returns a pidfd of it.
func reapedPidFD(t *testing.T) *PidFD {
	t.Helper()
	cmd := sleeper(t)
	p := openPidFD(t, cmd.Process.Pid)
	reap(cmd)
	return p
}

// The kernel tells what is a pidfd, or else /proc does. Without either it is not certain.
func TestIsPidFD(t *testing.T) {
	reliesOn(t, seccompFilters, pidfs)
	keepsDescriptors(t)
	live, reaped, null := openPidFD(t, os.Getpid()).fd, reapedPidFD(t).fd, int(openNull(t).Fd())
	path, err := openat(AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(live), O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(path)
	noProc := map[int]syscall.Errno{unix.SYS_READLINKAT: syscall.ENOENT}
	elsewhere := map[int]syscall.Errno{unix.SYS_READLINKAT: syscall.ENOENT, unix.SYS_PIDFD_SEND_SIGNAL: syscall.EINVAL}
	forbidden := map[int]syscall.Errno{unix.SYS_PIDFD_SEND_SIGNAL: syscall.EPERM}
	neither := map[int]syscall.Errno{unix.SYS_READLINKAT: syscall.ENOENT, unix.SYS_PIDFD_SEND_SIGNAL: syscall.EPERM}
	for _, test := range []struct {
		fd       int
		refused  map[int]syscall.Errno
		is, sure bool
	}{
		{live, nil, true, true}, {live, noProc, true, true}, {live, elsewhere, true, true}, {live, forbidden, true, true}, {live, neither, false, false},
		{reaped, nil, true, true}, {reaped, noProc, true, true}, {reaped, forbidden, true, true},
		{null, nil, false, true}, {null, forbidden, false, true}, {null, noProc, false, false}, {null, neither, false, false},
		{path, nil, true, true},
	} {
		underFilter(t, func() error { return refuse(test.refused) }, func() {
			if is, sure := isPidFD(test.fd); is != test.is || sure != test.sure {
				t.Errorf("%+v: %v, %v", test, is, sure)
			}
		})
	}
}

// What is not on pidfs is not asked for its file system, if there is another way to tell that it
// is no pidfd. And what shares its inode with pidfds of old kernels is none.
func TestProvePidfsAsksLittle(t *testing.T) {
	reliesOn(t, seccompFilters, pidfs)
	keepsDescriptors(t)
	needs(t, FeatureThread) // as old as pidfs
	const (
		open   = unix.SYS_PIDFD_OPEN
		signal = unix.SYS_PIDFD_SEND_SIGNAL
		link   = unix.SYS_READLINKAT
	)
	p, null := openPidFD(t, os.Getpid()), int(openNull(t).Fd())
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(epoll)
	fstatfs, ok := answersTo("fstatfs", 0)
	if !ok {
		t.Skip("not on " + runtime.GOARCH)
	}
	for _, test := range []struct {
		known   bool // what tells pidfs
		fd      int
		refused []int
		statfs  bool // may be asked for
		is      bool
	}{
		{known: true, fd: null, refused: []int{open, signal, link}},
		{known: true, fd: p.fd, refused: []int{open, signal, link}, is: true},
		{fd: null, refused: []int{open}},
		{fd: null, refused: []int{open, signal}},
		{fd: epoll, refused: []int{open}},
		{fd: epoll, refused: []int{open, signal, link}, statfs: true},
		{fd: p.fd, refused: []int{open, signal, link}, statfs: true, is: true},
	} {
		forgetPidfs()
		if test.known {
			provePidfs(null)
		}
		refused := map[int]syscall.Errno{}
		for _, nr := range test.refused {
			refused[nr] = syscall.EPERM
		}
		if !test.statfs {
			for nr := range fstatfs {
				refused[nr] = syscall.EIO
			}
		}
		underFilter(t, func() error { return refuse(refused) }, func() {
			switch _, err := provePidfs(test.fd); {
			case !test.is:
				matches(t, err, ErrNotPidFD, syscall.EBADF)
			case err != nil:
				t.Errorf("%+v: %v", test, err)
			}
		})
	}
	forgetPidfs()
}

// What kernels answer that are not the one of this machine.
func TestPidFDOnOtherKernels(t *testing.T) {
	reliesOn(t, seccompFilters)
	needs(t, FeatureOpenByID)
	keepsDescriptors(t)
	cmd := sleeper(t)
	pid := cmd.Process.Pid
	p := openPidFD(t, pid)
	id := idOf(t, p)
	forgetPidfs()
	idOf(t, p)
	type answers = map[int]syscall.Errno
	for name, test := range map[string]struct {
		answers answers
		do      func() error
		want    []error
	}{
		"OpenPidFD with a flag that is not known": {
			answers{unix.SYS_PIDFD_OPEN: syscall.EINVAL},
			func() error { return closed(OpenPidFD(pid, PIDFD_NONBLOCK)) },
			[]error{syscall.EINVAL, errors.ErrUnsupported},
		},
		"OpenPidFD without flags": {
			answers{unix.SYS_PIDFD_OPEN: syscall.EINVAL},
			func() error { return closed(OpenPidFD(pid, 0)) },
			[]error{syscall.EINVAL},
		},
		"OpenPidFDByID before 6.11": {
			answers{unix.SYS_OPEN_BY_HANDLE_AT: syscall.EPERM, unix.SYS_NAME_TO_HANDLE_AT: syscall.EOPNOTSUPP},
			func() error { return closed(OpenPidFDByID(id)) },
			[]error{errors.ErrUnsupported},
		},
		"OpenPidFDByID of a thread before 6.17": {
			answers{unix.SYS_OPEN_BY_HANDLE_AT: syscall.ESRCH},
			func() error { return closed(OpenPidFDByID(id)) },
			[]error{syscall.ESRCH, os.ErrProcessDone},
		},
		"PID before 6.18, with a parent that has none here": {
			answers{unix.SYS_IOCTL: syscall.ESRCH},
			func() error {
				got, err := p.PID()
				if err == nil && got != pid {
					return fmt.Errorf("PID %d, want %d", got, pid)
				}
				return err
			},
			works,
		},
		"Info before 6.18, with a parent that has none here": {
			answers{unix.SYS_IOCTL: syscall.ESRCH},
			func() error { return second(p.Info(PIDFD_INFO_PID)) },
			[]error{syscall.ESRCH},
		},
	} {
		t.Run(name, func(t *testing.T) {
			underFilter(t, func() error { return refuse(test.answers) }, func() { comesTo(test.want)(t, test.do()) })
		})
	}
	// A kernel that knows the flag does not say EINVAL about this process.
	underFilter(t, func() error { return refuseUnless(0, int32(os.Getpid()), unix.SYS_PIDFD_OPEN, syscall.EINVAL) }, func() {
		matches(t, closed(OpenPidFD(pid, PIDFD_NONBLOCK)), syscall.EINVAL)
	})
}

// A security module may have other words for what the kernel calls EPERM. The process is there.
func TestReapedForbidden(t *testing.T) {
	reliesOn(t, seccompFilters, pidfs)
	keepsDescriptors(t)
	p := openPidFD(t, os.Getpid())
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOENT} {
		underFilter(t, func() error { return refuseUnless(0, -1, unix.SYS_PIDFD_SEND_SIGNAL, errno) }, func() {
			if errno := reaped(p.fd); errno != 0 {
				t.Error(errno)
			}
		})
		underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_PIDFD_SEND_SIGNAL: errno}) }, func() {
			if got := reaped(p.fd); got != errno {
				t.Errorf("%v, want %v", got, errno)
			}
		})
	}
}
