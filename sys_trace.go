//go:build linux

package sysfd

// What a tracer does. All of it must come from the thread that started the process.

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A signalMask is a sigset_t of the kernel, which is no larger on any architecture.
type signalMask [16 / unsafe.Sizeof(uintptr(0))]uintptr

// blockSignals blocks what would stop a traced process between fork and execve, when nobody can
// continue it, because this thread waits for the execve. It is for the calling thread, which must
// be locked, and for what that starts. It returns what was blocked before.
//
// What remains is SIGTRAP, with which the kernel reports the execve, what a thread sends itself
// when it makes a mistake, and the signals by which the Go runtime and C libraries call all threads
// (syscall.AllThreadsSyscall, setuid(3)): they wait for each of them.
func blockSignals() (old signalMask, errno syscall.Errno) {
	var mask signalMask
	for i := range mask {
		mask[i] = ^uintptr(0)
	}
	for _, sig := range [...]syscall.Signal{syscall.SIGTRAP, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGSYS, 32, 33, 34} {
		const bits = 8 * unsafe.Sizeof(mask[0])
		mask[uintptr(sig-1)/bits] &^= 1 << (uintptr(sig-1) % bits)
	}
	return setSignalMask(mask)
}

func setSignalMask(mask signalMask) (old signalMask, errno syscall.Errno) {
	_, _, errno = syscall.Syscall6(syscall.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), _SIGSET_SIZE, 0, 0)
	return old, errno
}

// allowTracing makes CAP_SYS_PTRACE effective for the calling thread, and for what that starts up
// to the execve, if it is permitted and not effective, as after seteuid(2): without it the kernel
// takes from a program that is traced what it otherwise gets, and gives it another user. disallow
// undoes that.
func allowTracing() (disallow func()) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	const i, bit = unix.CAP_SYS_PTRACE / 32, 1 << (unix.CAP_SYS_PTRACE % 32)
	_, _, errno := syscall.Syscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	if errno != 0 || data[i].Effective&bit != 0 || data[i].Permitted&bit == 0 {
		return func() {}
	}
	set := func(effective uint32) {
		data[i].Effective = effective
		syscall.Syscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	}
	was := data[i].Effective
	set(was | bit)
	return func() { set(was) }
}

func ptrace(request, pid int, addr, data uintptr) syscall.Errno {
	if check32(0, pid) != 0 {
		return syscall.ESRCH
	}
	_, _, errno := syscall.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0)
	return errno
}

// ptracePtr is ptrace with an address in this process.
func ptracePtr(request, pid int, addr uintptr, data unsafe.Pointer) syscall.Errno {
	if check32(0, pid) != 0 {
		return syscall.ESRCH
	}
	_, _, errno := syscall.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, uintptr(data), 0, 0)
	return errno
}

// tracingRefused tries whether a process that this thread starts can be traced, which is not so
// under Yama's stricter settings, under a seccomp filter that says so, and for a process that is
// traced itself. It returns 0, or why not. The caller has called blockSignals.
func tracingRefused() syscall.Errno {
	try := func(trace bool) syscall.Errno {
		pid, err := syscall.ForkExec("", nil, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: trace}})
		if err == nil { // it was killed: filters can do that, too
			uninterrupted(func() syscall.Errno { _, err := syscall.Wait4(pid, nil, 0, nil); return errnoOf(err) })
			return syscall.EPERM
		}
		errno, _ := err.(syscall.Errno)
		return errno // ENOENT, if it comes to execve
	}
	if errno := try(true); errno != syscall.ENOENT && errno != try(false) {
		return errno
	}
	return 0
}

// A tracee is a process that stands still at the beginning of its program.
type tracee struct {
	pid  int
	stop siginfo
	sp   uint64   // its stack pointer
	word int      // the size of its words
	mem  *os.File // its memory, where ptrace(2) cannot address that
}

// traceStop returns a process that this thread traces, if it is stopped. ESRCH means that it is
// not, if it is there at all.
func traceStop(pid int) (t *tracee, errno syscall.Errno) {
	t = &tracee{pid: pid}
	errno = ptracePtr(unix.PTRACE_GETSIGINFO, pid, 0, unsafe.Pointer(&t.stop))
	if errno == 0 && t.stop.Signo == 0 {
		return nil, syscall.ENOSYS // a filter has the call do nothing
	}
	return t, errno
}

// resume continues the process, which stays traced, and gets the signal.
func (t *tracee) resume(sig int32) syscall.Errno {
	return ptrace(unix.PTRACE_CONT, t.pid, 0, uintptr(sig))
}

// killIfOrphaned has the kernel kill the process if this one ends before it lets go.
func (t *tracee) killIfOrphaned() {
	ptrace(unix.PTRACE_SETOPTIONS, t.pid, 0, unix.PTRACE_O_EXITKILL) // Linux 3.8
}

// setSignalMask sets what the process blocks. Linux 3.11.
func (t *tracee) setSignalMask(mask signalMask) syscall.Errno {
	return ptracePtr(unix.PTRACE_SETSIGMASK, t.pid, _SIGSET_SIZE, unsafe.Pointer(&mask))
}

// detach lets the process run.
func (t *tracee) detach() syscall.Errno { return ptrace(unix.PTRACE_DETACH, t.pid, 0, 0) }

// look finds the stack, and makes read and write possible. close is to be called in the end.
func (t *tracee) look() error {
	var regs [1024]byte
	var iov syscall.Iovec
	iov.Base = &regs[0]
	iov.SetLen(len(regs))
	if errno := ptracePtr(unix.PTRACE_GETREGSET, t.pid, _NT_PRSTATUS, unsafe.Pointer(&iov)); errno != 0 {
		return failed("ptrace", "PTRACE_GETREGSET", errno)
	}
	const own, other = longSize, 12 - longSize
	switch iov.Len {
	case _REGISTERS_SIZE:
		t.word, t.sp = own, readWord(regs[_REGISTERS_SP:], own)
	case _OTHER_REGISTERS_SIZE:
		t.word, t.sp = other, readWord(regs[_OTHER_REGISTERS_SP:], other)
	default:
		return refused(syscall.EOPNOTSUPP, "the registers of the program have the unknown size of "+strconv.FormatUint(uint64(iov.Len), 10)+" bytes")
	}
	runtime.KeepAlive(&regs)
	if t.word > longSize {
		var err error
		if t.mem, err = os.OpenFile("/proc/"+strconv.Itoa(t.pid)+"/mem", os.O_RDWR, 0); err != nil {
			return err
		}
	}
	return nil
}

func (t *tracee) close() {
	if t.mem != nil {
		t.mem.Close()
	}
}

// longSize is the size of a word in this program, which is what ptrace(2) reads and writes.
const longSize = int(unsafe.Sizeof(uintptr(0)))

// readWord reads a word of 4 or 8 bytes.
func readWord(b []byte, size int) uint64 {
	if size == 8 {
		return native64(b)
	}
	return uint64(native32(b))
}

// readWord reads a word of the process's size.
func (t *tracee) readWord(addr uint64) (uint64, error) {
	var b [8]byte
	err := t.read(addr, b[:t.word])
	return readWord(b[:], t.word), err
}

// read reads from the memory of the process. Unlike process_vm_readv(2) and /proc, ptrace(2) asks
// for no privilege again.
func (t *tracee) read(addr uint64, b []byte) error {
	if t.mem != nil {
		_, err := t.mem.ReadAt(b, int64(addr))
		return err
	}
	return t.transfer(addr, b, false)
}

// write writes there.
func (t *tracee) write(addr uint64, b []byte) error {
	if t.mem != nil {
		_, err := t.mem.WriteAt(b, int64(addr))
		return err
	}
	return t.transfer(addr, b, true)
}

// transfer reads or writes whole words of this program, which lie where their size divides the
// address.
func (t *tracee) transfer(addr uint64, b []byte, write bool) error {
	for len(b) > 0 {
		at, skip := addr&^uint64(longSize-1), int(addr)&(longSize-1)
		if uint64(uintptr(at)) != at {
			return failed("ptrace", "PTRACE_PEEKDATA", syscall.EFAULT)
		}
		var word uintptr
		if errno := ptracePtr(unix.PTRACE_PEEKDATA, t.pid, uintptr(at), unsafe.Pointer(&word)); errno != 0 {
			return failed("ptrace", "PTRACE_PEEKDATA", errno)
		}
		part, n := unsafe.Slice((*byte)(unsafe.Pointer(&word)), longSize)[skip:], 0
		if write {
			n = copy(part, b)
			if errno := ptrace(unix.PTRACE_POKEDATA, t.pid, uintptr(at), word); errno != 0 {
				return failed("ptrace", "PTRACE_POKEDATA", errno)
			}
		} else {
			n = copy(b, part)
		}
		b, addr = b[n:], addr+uint64(n)
	}
	return nil
}

// yield lets others run on this processor.
func yield() { syscall.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// fileGivesCapabilities reports whether executing a file can give a process capabilities. It is not
// known of a file that cannot be reached.
func fileGivesCapabilities(path string) (gives, known bool) {
	_, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil, err == nil || err == syscall.ENODATA || err == syscall.EOPNOTSUPP
}

// noNewPrivileges reports whether what this thread starts gets no privileges by execve(2), whatever
// it executes.
func noNewPrivileges() bool {
	n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && n == 1
}
