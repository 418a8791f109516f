//go:build linux

package sysfd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

func TestVerify(t *testing.T) {
	keepsDescriptors(t)
	cmd := sleeper(t)
	p := openPidFD(t, cmd.Process.Pid)
	failed := errors.New("failed")
	calls := 0
	fine := func() error { calls++; return nil }
	fails := func() error { calls++; return failed }
	if err := p.Verify(fine); err != nil {
		t.Error(err)
	}
	matches(t, p.Verify(fails), failed)
	cmd.Process.Kill()
	awaitZombie(t, cmd.Process.Pid)
	if err := p.Verify(fine); err != nil {
		t.Errorf("a zombie: %v", err)
	}
	// It is what comes first that counts.
	matches(t, p.Verify(func() error { reap(cmd); return nil }), syscall.ESRCH, os.ErrProcessDone)
	err := p.Verify(fails)
	matches(t, err, syscall.ESRCH, os.ErrProcessDone)
	if errors.Is(err, failed) || calls != 4 {
		t.Errorf("%d calls, %v", calls, err)
	}
	// f may close the pidfd: Verify still knows.
	q := openPidFD(t, os.Getpid())
	if err := q.Verify(q.Close); err != nil {
		t.Error(err)
	}
}

func init() {
	children["mount-proc"] = func([]string) error {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return err
		}
		fmt.Println("mounted")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
}

// A /proc in which the caller is not to be seen has other processes under the PIDs that it knows.
func TestVerifyInnerProc(t *testing.T) {
	rights.MountedRoot(t)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeatureSetns)
	keepsDescriptors(t)
	cmd := child("mount-proc")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	k := startKid(t, cmd)
	k.line()
	p := openPidFD(t, os.Getpid())
	var errEnter, err error
	var first []byte
	onThrowawayThread(func() {
		if errEnter = syscall.Unshare(syscall.CLONE_FS); errEnter == nil {
			errEnter = k.guard.Setns(syscall.CLONE_NEWNS)
		}
		if errEnter == nil {
			first, _ = os.ReadFile("/proc/1/cmdline")
			err = p.Verify(func() error { return nil })
		}
	})
	if errEnter != nil {
		t.Fatal(errEnter)
	}
	if !strings.Contains(string(first), os.Args[0]) {
		t.Fatalf("process 1 there is %q", first)
	}
	matches(t, err, errors.ErrUnsupported)
}

func TestVerifyThread(t *testing.T) {
	keepsDescriptors(t)
	done, found, ended := make(chan bool), make(chan int), make(chan bool)
	go func() {
		onThrowawayThread(func() {
			found <- syscall.Gettid()
			<-done
		})
		close(ended)
	}()
	p := threadOf(t, fmt.Sprint(<-found))
	if err := p.Verify(func() error { return nil }); err != nil {
		t.Error(err)
	}
	close(done)
	<-ended // and the thread with it
	matches(t, p.Verify(func() error { return nil }), syscall.ESRCH, os.ErrProcessDone)
}

func init() {
	// Asks with a seccomp filter that forbids pidfd_send_signal.
	children["filtered"] = func([]string) error {
		runtime.LockOSThread()
		if refuse(map[int]syscall.Errno{unix.SYS_PIDFD_SEND_SIGNAL: syscall.EPERM}) != nil {
			fmt.Println("no seccomp")
			return nil
		}
		err := newPidFD(3, "passed", unnumbered).Verify(func() error { return nil })
		fmt.Println(errors.Is(err, syscall.EPERM), errors.Is(err, os.ErrProcessDone), errors.Is(err, errors.ErrUnsupported))
		epoll, err := syscall.EpollCreate1(0)
		if err != nil {
			return err
		}
		named, err := openat(AT_FDCWD, "/proc/self/fd/3", O_PATH)
		if err != nil {
			return err
		}
		for _, fd := range []int{epoll, named} {
			_, err = NewPidFD(fd)
			fmt.Println(errors.Is(err, ErrNotPidFD))
		}
		return nil
	}
}

// What a filter answers is no news about a process, nor about a descriptor.
func TestVerifyUnderFilter(t *testing.T) {
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	process := sleeper(t)
	p := openPidFD(t, process.Process.Pid)
	for range 2 { // alive, reaped
		cmd := child("filtered")
		cmd.ExtraFiles = []*os.File{duplicateOf(t, p)}
		switch out := output(t, cmd); out {
		case "true false false\ntrue\ntrue\n":
		case "no seccomp\n":
			lacks(t, "seccomp filters")
		default:
			t.Errorf("%q", out)
		}
		reap(process)
	}
}

func TestGetFD(t *testing.T) {
	needs(t, FeatureGetFD)
	keepsDescriptors(t)
	cmd := child("ready", "0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	lineOf(t, cmd)
	p := openPidFD(t, cmd.Process.Pid)
	f, err := p.GetFD(1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/fd/1", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if mine, err := f.Stat(); err != nil || !os.SameFile(mine, theirs) {
		t.Errorf("another file: %v", err)
	}
	if want := fmt.Sprintf("pidfd:%d/fd/1", cmd.Process.Pid); f.Name() != want {
		t.Errorf("name %s", f.Name())
	}
	if flags, errno := fcntl(int(f.Fd()), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
	for _, fd := range []int{-1, 999, 1 << 30, 1 - beyond32bits} {
		if fd == 1 {
			continue // 32 bits
		}
		_, err := p.GetFD(fd)
		matches(t, err, syscall.EBADF)
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint("descriptor ", fd, " in pidfd:", cmd.Process.Pid)) {
			t.Errorf("%v does not name %d", err, fd)
		}
	}
	stdin.Close()
	awaitZombie(t, cmd.Process.Pid)
	if _, err := p.GetFD(1); !errors.Is(err, syscall.ESRCH) && !(olderThan(t, "6.9") && errors.Is(err, syscall.EBADF)) {
		t.Errorf("a zombie: %v", err)
	}
	cmd.Wait()
	_, err = p.GetFD(1)
	matches(t, err, syscall.ESRCH, os.ErrProcessDone)
}

// A pipe of a child's own: what it writes arrives.
func TestGetFDPipe(t *testing.T) {
	needs(t, FeatureGetFD)
	keepsDescriptors(t)
	line, more := lineOf(t, child("pipe"))
	var pid, fd int
	if _, err := fmt.Sscan(line, &pid, &fd); err != nil {
		t.Fatal(err)
	}
	f, err := openPidFD(t, pid).GetFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "through the pipe\n"); err != nil {
		t.Error(err)
	}
	f.Close()
	expectLine(t, more, "through the pipe")
}

func init() {
	children["pipe"] = func([]string) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		fmt.Println(os.Getpid(), w.Fd())
		line, err := bufio.NewReader(r).ReadString('\n')
		fmt.Print(line)
		runtime.KeepAlive(w)
		return err
	}

	// Prints where it has pages.
	children["pages"] = func([]string) error {
		b, err := syscall.Mmap(-1, 0, 8*os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			return err
		}
		for i := range b {
			b[i] = 1
		}
		if err := syscall.Munmap(b[7*os.Getpagesize():]); err != nil && err != syscall.EINVAL {
			return err
		}
		fmt.Println(uintptr(unsafe.Pointer(&b[0])))
		_, err = io.ReadAll(os.Stdin)
		return err
	}
}

func TestMadvise(t *testing.T) {
	rights.Need(t, rights.SysNice) // CAP_SYS_NICE, on 6.1 even for oneself
	needs(t, FeatureMadvise)
	keepsDescriptors(t)
	cmd := child("pages")
	line, _ := lineOf(t, cmd)
	var start uintptr
	if _, err := fmt.Sscan(line, &start); err != nil {
		t.Fatal(err)
	}
	p, page := openPidFD(t, cmd.Process.Pid), uintptr(os.Getpagesize())
	for _, advice := range []int{MADV_COLD, MADV_PAGEOUT} {
		if n, err := p.Madvise(advice, MemoryRange{start, 2 * page}, MemoryRange{start + 4*page, page}); err != nil || n != int(3*page) {
			t.Errorf("%d: %d, %v", advice, n, err)
		}
	}
	if n, err := p.Madvise(MADV_COLD); err != nil || n != 0 {
		t.Errorf("no range: %d, %v", n, err)
	}
	for _, test := range []struct {
		advice int
		r      MemoryRange
		want   syscall.Errno
	}{
		{MADV_COLD, MemoryRange{start + 1, page}, syscall.EINVAL},
		{MADV_COLD, MemoryRange{0, page}, syscall.ENOMEM},
		{9999, MemoryRange{start, page}, syscall.EINVAL},
		{syscall.MADV_DONTNEED, MemoryRange{start, page}, syscall.EINVAL},
		{beyond32bits | MADV_COLD, MemoryRange{start, page}, syscall.EINVAL},
	} {
		if test.advice == MADV_COLD && test.r.Start == start {
			continue // 32 bits
		}
		n, err := p.Madvise(test.advice, test.r)
		if n != 0 {
			t.Errorf("%+v: %d bytes", test, n)
		}
		matches(t, err, test.want)
	}
	cmd.Process.Kill()
	awaitZombie(t, cmd.Process.Pid)
	for range 2 {
		_, err := p.Madvise(MADV_COLD, MemoryRange{start, page})
		matches(t, err, syscall.ESRCH, os.ErrProcessDone)
		reap(cmd)
	}
}

func TestMrelease(t *testing.T) {
	needs(t, FeatureMrelease)
	keepsDescriptors(t)
	// One that has said something has memory of its own. On Debian's 6.12.117, one
	// that os/exec has just started may still use its parent's, and then it is EINVAL.
	cmd := child("pages")
	lineOf(t, cmd)
	p := openPidFD(t, cmd.Process.Pid)
	matches(t, p.Mrelease(), syscall.EINVAL)
	cmd.Process.Kill()
	// Which of these it is depends on how far it got.
	if err := p.Mrelease(); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EAGAIN) {
		t.Error(err)
	}
	awaitZombie(t, cmd.Process.Pid)
	for range 2 {
		matches(t, p.Mrelease(), syscall.ESRCH, os.ErrProcessDone)
		reap(cmd)
	}
}

// A process that is just ending has no files, namespaces or memory any more and is no zombie yet.
// Whatever is asked of it at that moment, the answer is that it is done.
func TestJustEnding(t *testing.T) {
	keepsDescriptors(t)
	defer func(before time.Duration) { endsWithin = before }(endsWithin)
	endsWithin = time.Minute
	asks := map[string]func(p *PidFD) error{
		"GetFD":     func(p *PidFD) error { return closed(p.GetFD(0)) },
		"Namespace": func(p *PidFD) error { return closed(p.Namespace(UTSNamespace)) },
	}
	if FeatureMadvise.Probe() == nil && rights.Has(rights.SysNice) {
		asks["Madvise"] = func(p *PidFD) error {
			return except(second(p.Madvise(MADV_COLD, MemoryRange{0, uintptr(os.Getpagesize())})), syscall.ENOMEM)
		}
	}
	if rights.Has(rights.SysAdmin) {
		asks["Setns"] = func(p *PidFD) error { return p.Setns(syscall.CLONE_NEWUTS) }
	}
	for name, ask := range asks {
		t.Run(name, func(t *testing.T) {
			if f := map[string]Feature{"GetFD": FeatureGetFD, "Namespace": FeatureNamespace, "Setns": FeatureSetns}[name]; f != 0 {
				needs(t, f)
			}
			unproven := 0
			for range fewer(150) {
				cmd := sleeper(t)
				p := openPidFD(t, cmd.Process.Pid)
				cmd.Process.Kill()
				var err error
				for err == nil {
					err = ask(p)
				}
				switch {
				case errors.Is(err, syscall.EBADF): // from older kernels
				case !errors.Is(err, os.ErrProcessDone):
					unproven++
				}
				reap(cmd)
				p.Close()
			}
			if unproven > 0 {
				t.Errorf("%d times not known to be done", unproven)
			}
		})
	}
}

// The main thread is a zombie, others live on: the process is not done.
func TestMainThreadEnded(t *testing.T) {
	needs(t, FeatureGetFD)
	keepsDescriptors(t)
	k := startKid(t, child("leader-exits"))
	p := k.open(0)
	k.line()
	if err := p.SendSignal(0); err != nil {
		t.Error(err)
	}
	_, errFD := p.GetFD(0)
	_, errNS := p.Namespace(UTSNamespace)
	for _, err := range []error{errFD, errNS, p.Setns(syscall.CLONE_NEWUTS)} {
		if err == nil || errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%v", err)
		}
	}
	k.exit()
	k.guard.Wait(t.Context(), 0)
	_, err := p.GetFD(0)
	matches(t, err, syscall.ESRCH, os.ErrProcessDone)
}
