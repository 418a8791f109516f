//go:build linux

package sysfd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// sigset64 is the kernel's, for signals up to 64.
type sigset64 [2]uint32

func (s *sigset64) add(sig syscall.Signal) {
	word := int(sig-1) / 32
	if bigEndian && is64bit {
		word = 1 - word
	}
	s[word] |= 1 << ((sig - 1) % 32)
}

const realTime = syscall.Signal(40)

func init() {
	// Prints its PID and each signal that the process gets.
	children["notify"] = func([]string) error {
		signals := make(chan os.Signal, 100)
		signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
		fmt.Println(os.Getpid())
		for sig := range signals {
			fmt.Println(int(sig.(syscall.Signal)))
		}
		return nil
	}
	// Prints the ID of a thread, and each signal that this thread gets with what comes along.
	children["sigwait"] = func([]string) error {
		runtime.LockOSThread()
		var set sigset64
		set.add(realTime)
		set.add(syscall.SIGUSR1)
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, _SIG_SETMASK, uintptr(unsafe.Pointer(&set)), 0, unsafe.Sizeof(set), 0, 0); errno != 0 {
			return errno
		}
		fmt.Println(syscall.Gettid())
		for {
			var info sigqueueInfo
			_, _, errno := syscall.Syscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&info)), 0, unsafe.Sizeof(set), 0, 0)
			if errno == syscall.EINTR {
				continue
			}
			if errno != 0 {
				return errno
			}
			fmt.Println(info.Signo, info.Code, info.PID, info.UID, info.Value)
		}
	}
}

func expectLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if line, err := r.ReadString('\n'); err != nil || line != want+"\n" {
		t.Fatalf("%q, %v; want %q", line, err, want)
	}
}

func TestSendSignal(t *testing.T) {
	keepsDescriptors(t)
	cmd := child("notify")
	_, more := lineOf(t, cmd)
	p := openPidFD(t, cmd.Process.Pid)
	if err := p.SendSignal(0); err != nil {
		t.Error(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2} {
		if err := p.SendSignal(sig); err != nil {
			t.Fatal(err)
		}
		expectLine(t, more, fmt.Sprint(int(sig)))
	}
	for _, sig := range []syscall.Signal{-1, 1000, syscall.Signal(beyond32bits) + syscall.SIGKILL} {
		if sig == syscall.SIGKILL {
			continue // 32 bits
		}
		err := p.SendSignal(sig)
		matches(t, err, syscall.EINVAL)
		matches(t, p.QueueSignal(sig, 1), syscall.EINVAL)
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint(int(sig))) {
			t.Errorf("%v does not name %d", err, int(sig))
		}
	}
	if err := p.SendSignal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	awaitZombie(t, cmd.Process.Pid)
	if err := p.SendSignal(syscall.SIGKILL); err != nil {
		t.Errorf("to a zombie: %v", err)
	}
	cmd.Wait()
	for _, sig := range []syscall.Signal{0, syscall.SIGKILL} {
		matches(t, p.SendSignal(sig), syscall.ESRCH, os.ErrProcessDone)
		matches(t, p.QueueSignal(sig, 1), syscall.ESRCH, os.ErrProcessDone)
	}
}

// threadOf returns a pidfd of a thread.
func threadOf(t *testing.T, tid string) *PidFD {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(tid, &n); err != nil {
		t.Fatal(err)
	}
	needs(t, FeatureThread)
	p, err := OpenPidFD(n, PIDFD_THREAD)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestQueueSignal(t *testing.T) {
	keepsDescriptors(t)
	tid, more := lineOf(t, child("sigwait"))
	p := threadOf(t, tid)
	signals := []syscall.Signal{syscall.SIGUSR1, realTime}
	if os.Getenv(emulatorVar) != "" {
		signals = signals[:1] // it gives real-time signals other numbers, and forgets the one in the siginfo
	}
	for _, sig := range signals {
		for _, value := range []int32{0, 7, -1, 1<<31 - 1, -1 << 31} {
			if err := p.QueueSignal(sig, value); err != nil {
				t.Fatal(err)
			}
			expectLine(t, more, fmt.Sprint(int(sig), _SI_QUEUE, os.Getpid(), os.Getuid(), value))
		}
	}
	// Without a value it is as kill(2) or tgkill(2) would have it.
	if err := p.SendSignal(realTime); err != nil {
		t.Fatal(err)
	}
	if line, err := more.ReadString('\n'); err != nil || !strings.HasSuffix(line, fmt.Sprintln(os.Getpid(), os.Getuid(), 0)) || strings.Contains(line, fmt.Sprint(" ", _SI_QUEUE, " ")) {
		t.Errorf("%q, %v", line, err)
	}
	if len(signals) == 1 {
		return
	}
	// One after the other, with none lost.
	for i := range int32(20) {
		if err := p.QueueSignal(realTime, i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		expectLine(t, more, fmt.Sprint(int(realTime), _SI_QUEUE, os.Getpid(), os.Getuid(), i))
	}
}

func TestSendSignalTo(t *testing.T) {
	keepsDescriptors(t)
	cmd := child("notify")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, more := lineOf(t, cmd)
	leader := openPidFD(t, cmd.Process.Pid)
	member := child("notify")
	member.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: cmd.Process.Pid}
	_, moreOfMember := lineOf(t, member)
	other := openPidFD(t, member.Process.Pid)

	for _, flag := range []int{8, 1 << 30, PIDFD_SIGNAL_THREAD | PIDFD_SIGNAL_THREAD_GROUP, -1, beyond32bits | 1<<30} {
		matches(t, leader.SendSignalTo(syscall.SIGUSR1, flag), syscall.EINVAL)
	}
	if lacksFeature(t, FeatureSignalTo) {
		for _, flag := range []int{PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP} {
			matches(t, leader.SendSignalTo(syscall.SIGUSR1, flag), syscall.EINVAL, errors.ErrUnsupported)
		}
		return
	}
	// What is wrong is the signal, not the flag.
	matches(t, leader.SendSignalTo(1000, PIDFD_SIGNAL_THREAD_GROUP), syscall.EINVAL)
	for _, flag := range []int{0, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_THREAD} {
		if err := leader.SendSignalTo(syscall.SIGUSR1, flag); err != nil {
			t.Fatal(err)
		}
		expectLine(t, more, fmt.Sprint(int(syscall.SIGUSR1)))
	}
	if err := leader.SendSignalTo(syscall.SIGUSR2, PIDFD_SIGNAL_PROCESS_GROUP); err != nil {
		t.Fatal(err)
	}
	expectLine(t, more, fmt.Sprint(int(syscall.SIGUSR2)))
	expectLine(t, moreOfMember, fmt.Sprint(int(syscall.SIGUSR2)))
	// There is no group of that number, but a process.
	matches(t, other.SendSignalTo(syscall.SIGUSR1, PIDFD_SIGNAL_PROCESS_GROUP), syscall.ESRCH)
	// The group outlives its leader.
	reap(cmd)
	matches(t, leader.SendSignalTo(syscall.SIGUSR1, PIDFD_SIGNAL_THREAD_GROUP), syscall.ESRCH, os.ErrProcessDone)
	if err := leader.SendSignalTo(syscall.SIGUSR1, PIDFD_SIGNAL_PROCESS_GROUP); err != nil {
		t.Fatal(err)
	}
	expectLine(t, moreOfMember, fmt.Sprint(int(syscall.SIGUSR1)))
	reap(member)
	matches(t, leader.SendSignalTo(syscall.SIGUSR1, PIDFD_SIGNAL_PROCESS_GROUP), syscall.ESRCH, os.ErrProcessDone)
}

// A thread's pidfd reaches that thread, or with a flag the whole process.
func TestSendSignalToThread(t *testing.T) {
	keepsDescriptors(t)
	tid, more := lineOf(t, child("sigwait"))
	p := threadOf(t, tid)
	for _, flag := range []int{0, PIDFD_SIGNAL_THREAD} {
		if err := p.SendSignalTo(syscall.SIGUSR1, flag); err != nil {
			t.Fatal(err)
		}
		if line, err := more.ReadString('\n'); err != nil || !strings.HasPrefix(line, fmt.Sprint(int(syscall.SIGUSR1), " ")) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if err := p.SendSignalTo(0, PIDFD_SIGNAL_THREAD_GROUP); err != nil {
		t.Error(err)
	}
}

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
		if refuse(map[int]syscall.Errno{_SYS_PIDFD_SEND_SIGNAL: syscall.EPERM}) != nil {
			fmt.Println("no seccomp")
			return nil
		}
		err := newPidFD(3, "passed").Verify(func() error { return nil })
		fmt.Println(errors.Is(err, syscall.EPERM), errors.Is(err, os.ErrProcessDone), errors.Is(err, errors.ErrUnsupported))
		epoll, err := syscall.EpollCreate1(0)
		if err != nil {
			return err
		}
		named, err := openat(AT_FDCWD, "/proc/self/fd/3", _O_PATH)
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
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator has no seccomp filters")
	}
	keepsDescriptors(t)
	process := sleeper(t)
	p := openPidFD(t, process.Process.Pid)
	for range 2 { // alive, reaped
		cmd := child("filtered")
		cmd.ExtraFiles = []*os.File{p.file}
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
	needsRoot(t) // CAP_SYS_NICE, on 6.1 even for oneself
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

func TestSendSignalAllocates(t *testing.T) {
	p := openPidFD(t, sleeper(t).Process.Pid)
	doesNotAllocate(t, func() { p.SendSignal(0) })
	doesNotAllocate(t, func() { p.SendSignalTo(0, 0) })
	doesNotAllocate(t, func() { p.QueueSignal(0, 1) })
}

// The cost of a signal beside that of the system call.
func BenchmarkPidFDSendSignal(b *testing.B) {
	p := openPidFD(b, os.Getpid())
	b.Run("pidfd_send_signal", func(b *testing.B) {
		for b.Loop() {
			pidfdSendSignal(p.fd, 0, nil, 0)
		}
	})
	b.Run("SendSignal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.SendSignal(0)
		}
	})
	b.Run("QueueSignal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.QueueSignal(0, 1)
		}
	})
}

// The main thread is a zombie, others live on: the process is not done.
func TestMainThreadEnded(t *testing.T) {
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
	k.guard.Wait(t.Context())
	_, err := p.GetFD(0)
	matches(t, err, syscall.ESRCH, os.ErrProcessDone)
}

// A thread has ended, its process has not.
func TestThreadEnded(t *testing.T) {
	keepsDescriptors(t)
	found, end := make(chan int), make(chan bool)
	go onThrowawayThread(func() {
		found <- syscall.Gettid()
		<-end
	})
	p := openFlags(t, <-found, PIDFD_THREAD)
	for _, flag := range []int{0, PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP} {
		if err := p.SendSignalTo(0, flag); err != nil {
			t.Error(err)
		}
	}
	close(end)
	if _, err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	matches(t, p.SendSignal(0), syscall.ESRCH, os.ErrProcessDone)
	matches(t, p.SendSignalTo(0, PIDFD_SIGNAL_THREAD), syscall.ESRCH, os.ErrProcessDone)
	matches(t, p.SendSignalTo(0, PIDFD_SIGNAL_THREAD_GROUP), syscall.ESRCH)
}
