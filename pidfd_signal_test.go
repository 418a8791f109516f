//go:build linux

package sysfd

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signalSet is the kernel's. The second half is that of MIPS alone, which has 128 signals.
type signalSet [4]uint32

func (s *signalSet) add(sig syscall.Signal) {
	word := int(sig-1) / 32
	if bigEndian && is64bit {
		word ^= 1
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
	// Prints the ID of a thread, and each signal that this thread gets with what comes along;
	// with an argument, those that the process gets.
	children["sigwait"] = func(args []string) error {
		runtime.LockOSThread()
		var set signalSet
		set.add(realTime)
		set.add(syscall.SIGUSR1)
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&set)), 0, _SIGSET_SIZE, 0, 0); errno != 0 {
			return errno
		}
		if len(args) > 0 { // all threads of the next program have that mask
			return syscall.Exec("/proc/self/exe", os.Args[:1], os.Environ())
		}
		fmt.Println(syscall.Gettid())
		for {
			var info sigqueueInfo
			_, _, errno := syscall.Syscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), uintptr(unsafe.Pointer(&info)), 0, _SIGSET_SIZE, 0, 0)
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
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint(int(sig), " to ", p)) {
			t.Errorf("%v does not name %d and %v", err, int(sig), p)
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
	var p *PidFD
	var more *bufio.Reader
	if os.Getenv(emulatorVar) == "" && lacksFeature(t, FeatureThread) {
		cmd := child("sigwait", "process")
		_, more = lineOf(t, cmd)
		p = openPidFD(t, cmd.Process.Pid)
	} else {
		var tid string
		tid, more = lineOf(t, child("sigwait"))
		p = threadOf(t, tid)
	}
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

func TestSendSignalAllocates(t *testing.T) {
	p := openPidFD(t, sleeper(t).Process.Pid)
	doesNotAllocate(t, func() { p.SendSignal(0) })
	doesNotAllocate(t, func() { p.SendSignalTo(0, 0) })
	doesNotAllocate(t, func() { p.QueueSignal(0, 1) })
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
	reliesOn(t, threadWaits)
	if _, err := p.Wait(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	matches(t, p.SendSignal(0), syscall.ESRCH, os.ErrProcessDone)
	matches(t, p.SendSignalTo(0, PIDFD_SIGNAL_THREAD), syscall.ESRCH, os.ErrProcessDone)
	matches(t, p.SendSignalTo(0, PIDFD_SIGNAL_THREAD_GROUP), syscall.ESRCH)
}
