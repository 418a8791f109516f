//go:build linux

package sysfd

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// The kernel reads 32 bits of a descriptor, a PID, a signal and flags. What has more of them
// must not be taken for what is left of it.
func TestIntegersAreNotCutOff(t *testing.T) {
	if !is64bit {
		t.Skip("an int has 32 bits here")
	}
	keepsDescriptors(t)
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	p := openPidFD(t, os.Getpid())
	root := int(dir.Fd())
	opened := func(fd int, errno syscall.Errno) error {
		if errno == 0 {
			return syscall.Close(fd)
		}
		return errno
	}
	for errno, calls := range map[syscall.Errno]map[string]func(more int) error{
		syscall.EBADF: {
			"NameToHandleAt":          func(more int) error { return third(NameToHandleAt(root+more, "", AT_EMPTY_PATH)) },
			"NameToHandleAt relative": func(more int) error { return third(NameToHandleAt(root+more, ".", 0)) },
			"OpenByHandleAt":          func(more int) error { return closed(OpenByHandleAt(p.fd+more, PidFDHandle(1), 0)) },
			"PidFDIDOf":               func(more int) error { return second(PidFDIDOf(p.fd + more)) },
			"pidfdIDByInode":          func(more int) error { return second(pidfdIDByInode(p.fd + more)) },
			"pidfdIDByHandle":         func(more int) error { return second(pidfdIDByHandle(p.fd + more)) },
			"CgroupIDOf":              func(more int) error { return third(CgroupIDOf(root + more)) },
			"CgroupIDAt":              func(more int) error { return third(CgroupIDAt(root+more, ".", 0)) },
			"OpenCgroup":              func(more int) error { return closed(OpenCgroup(root+more, 1)) },
			"CgroupPath":              func(more int) error { return second(CgroupPath(root+more, 1)) },
			"FileSystemIDOf":          func(more int) error { return second(FileSystemIDOf(root + more)) },
			"FileRefAt":               func(more int) error { return second(FileRefAt(root+more, ".", 0)) },
			"NewPidFD":                func(more int) error { return wrapped(t, p.fd, more) },
			"GetFD":                   func(more int) error { return closed(p.GetFD(p.fd + more)) },
			"pidfdGetFD":              func(more int) error { return opened(pidfdGetFD(p.fd+more, p.fd)) },
			"pidfdSendSignal":         func(more int) error { return errnoError(pidfdSendSignal(p.fd+more, 0, nil, 0)) },
			"pidfdGetInfo":            func(more int) error { return errnoError(pidfdGetInfo(p.fd+more, &pidfdInfo{Mask: PIDFD_INFO_PID})) },
			"pidfdGetNamespace":       func(more int) error { return opened(pidfdGetNamespace(p.fd+more, uint32(UTSNamespace))) },
			"setns":                   func(more int) error { return errnoError(setns(p.fd+more, 0)) },
			"processMadvise": func(more int) error {
				return errnoError(second2(processMadvise(p.fd+more, []MemoryRange{}, MADV_COLD)))
			},
			"processMrelease": func(more int) error { return errnoError(processMrelease(p.fd + more)) },
			"fgetxattr":       func(more int) error { return errnoError(second2(fgetxattr(root+more, "user.none", nil))) },
			"flistxattr":      func(more int) error { return errnoError(second2(flistxattr(root+more, nil))) },
			"fsetxattr":       func(more int) error { return errnoError(fsetxattr(p.fd+more, "trusted.none", nil, XATTR_REPLACE)) },
			"fremovexattr":    func(more int) error { return errnoError(fremovexattr(root+more, "user.none")) },
			"waitPidFD": func(more int) error {
				return errnoError(waitPidFD(p.fd+more, syscall.WEXITED|syscall.WNOHANG, &siginfo{}, nil))
			},
			"pollNow":  func(more int) error { _, errno := pollNow(p.fd + more); return errnoError(errno) },
			"fcntl":    func(more int) error { return errnoError(second2(fcntl(p.fd+more, syscall.F_GETFD, 0))) },
			"dupAbove": func(more int) error { return opened(dupAbove(p.fd+more, 0)) },
			"statFD":   func(more int) error { _, errno := statFD(p.fd + more); return errnoError(errno) },
			"fstatfs":  func(more int) error { _, _, errno := fstatfs(p.fd + more); return errnoError(errno) },
			"fsUUID":   func(more int) error { _, _, errno := fsUUID(root + more); return errnoError(errno) },
			"ioctl": func(more int) error {
				return errnoError(ioctl(root+more, _FS_IOC_GETFSUUID, unsafe.Pointer(&fsuuid2{})))
			},
		},
		syscall.EINVAL: {
			"NameToHandleAt": func(more int) error { return third(NameToHandleAt(root, "", AT_EMPTY_PATH|more)) },
			"OpenByHandleAt": func(more int) error { return closed(OpenByHandleAt(p.fd, PidFDHandle(1), more)) },
			"OpenPidFD":      func(more int) error { return closed(OpenPidFD(os.Getpid()+more, 0)) },
			"OpenPidFD flag": func(more int) error { return closed(OpenPidFD(os.Getpid(), more)) },
			"SendSignal":     func(more int) error { return p.SendSignal(syscall.Signal(more)) },
			"QueueSignal":    func(more int) error { return p.QueueSignal(syscall.Signal(more), 0) },
			"SendSignalTo":   func(more int) error { return p.SendSignalTo(0, more) },
			"Madvise":        func(more int) error { return second(p.Madvise(MADV_COLD + more)) },
			"SetXattr":       func(more int) error { return p.SetXattr("trusted.none", nil, XATTR_REPLACE+more) },
			"waitPidFD": func(more int) error {
				return errnoError(waitPidFD(p.fd, syscall.WEXITED|syscall.WNOHANG+more, &siginfo{}, nil))
			},
			"fcntl":                func(more int) error { return errnoError(second2(fcntl(p.fd, syscall.F_GETFD+more, 0))) },
			"fcntl argument":       func(more int) error { return errnoError(second2(fcntl(p.fd, syscall.F_GETFD, more))) },
			"setParentDeathSignal": func(more int) error { return errnoError(setParentDeathSignal(syscall.Signal(more))) },
			"openat": func(more int) error {
				fd, err := openat(root, ".", syscall.O_DIRECTORY+more)
				if err == nil {
					err = syscall.Close(fd)
				}
				return err
			},
		},
	} {
		for name, call := range calls {
			if err := call(0); errors.Is(err, errno) {
				t.Errorf("%s: %v for what is not too large", name, err)
			}
			if err := call(beyond32bits); !errors.Is(err, errno) {
				t.Errorf("%s: %v, want %v", name, err, errno)
			}
		}
	}
}

func TestUninterrupted(t *testing.T) {
	for _, want := range []syscall.Errno{0, syscall.EAGAIN} {
		calls := 0
		errno := uninterrupted(func() syscall.Errno {
			if calls++; calls < 3 {
				return syscall.EINTR
			}
			return want
		})
		if errno != want || calls != 3 {
			t.Errorf("%v after %d calls, want %v", errno, calls, want)
		}
	}
}

func TestWithFDOfClosed(t *testing.T) {
	f := openNull(t)
	f.Close()
	called := false
	matches(t, withFD(f, func(int) { called = true }), os.ErrClosed)
	if called {
		t.Error("called")
	}
}

func TestDupAboveLimit(t *testing.T) {
	keepsDescriptors(t)
	if _, errno := dupAbove(int(openNull(t).Fd()), 1<<31-1); errno != syscall.EMFILE {
		t.Error(errno)
	}
}

// Close-on-exec by one call, or one by one where a filter refuses that or has it do nothing.
func TestSetCloseOnExec(t *testing.T) {
	keepsDescriptors(t)
	for _, n := range []int{1, 3, 4, 40} {
		set := func(t *testing.T) {
			const start = 300
			null := openNull(t)
			for fd := start; fd < start+n; fd++ {
				if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
					t.Error(err)
					return
				}
				defer syscall.Close(fd)
			}
			setCloseOnExec(start+1, n-1)
			for fd := start; fd < start+n; fd++ {
				flags, errno := fcntl(fd, syscall.F_GETFD, 0)
				if closes := flags&syscall.FD_CLOEXEC != 0; errno != 0 || closes != (fd > start) {
					t.Errorf("%d of %d: close-on-exec is %t, %v", fd-start, n, closes, errno)
				}
			}
		}
		set(t)
		for _, errno := range []syscall.Errno{0, syscall.EPERM, syscall.ENOSYS} {
			t.Run("", func(t *testing.T) {
				underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_CLOSE_RANGE: errno}) }, func() { set(t) })
			})
		}
	}
}

func TestMonotonicUsec(t *testing.T) {
	now := func() (usec uint64) {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return uint64(ts.Nano()) / 1e3
	}
	for range 10 {
		before := now()
		usec, errno := monotonicUsec()
		if after := now(); errno != 0 || usec < before || usec > after {
			t.Errorf("%d, %v, between %d and %d", usec, errno, before, after)
		}
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }

func second2(_ int, errno syscall.Errno) syscall.Errno { return errno }

func errnoError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// wrapped gives NewPidFD a duplicate of fd, with more to it.
func wrapped(t *testing.T, fd, more int) error {
	t.Helper()
	dup, errno := dupAbove(fd, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	p, err := NewPidFD(dup + more)
	if err != nil {
		syscall.Close(dup)
		return err
	}
	return p.Close()
}

// This file is readable all the time, and each opened one reports a change once.
func TestPollEnd(t *testing.T) {
	reliesOn(t, pidfs)
	rights.Need(t, rights.SysAdmin)
	rights.Proc(t)
	const file = "/proc/sys/kernel/hostname"
	fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) // not os.Open, because the runtime would poll it too
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		poll func(fd int) (int16, syscall.Errno)
		want int16
	}{
		{pollNow, unix.POLLIN | unix.POLLERR},
		{func(fd int) (int16, syscall.Errno) { return pollEnd(fd, 0) }, unix.POLLIN},
		{func(fd int) (int16, syscall.Errno) { return pollEnd(fd, time.Minute) }, unix.POLLIN},
	} {
		if err := os.WriteFile(file, []byte(name), 0); errors.Is(err, syscall.EROFS) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		if revents, errno := test.poll(fd); revents != test.want || errno != 0 {
			t.Errorf("%#x, %v, want %#x", revents, errno, test.want)
		}
	}
}

// No wrapper can forget the check: a function in sys*.go that takes an int and calls
// package syscall or unix calls check32, too.
func TestIntegersAreChecked(t *testing.T) {
	allowed := map[string]string{
		"nameToHandle":         "its caller does",
		"callStatx":            "likewise",
		"waitid":               "likewise",
		"execve":               "it must call nothing",
		"epollCtl":             "its descriptors are those of owners",
		"epollNow":             "likewise",
		"setParentDeathSignal": "",
	}
	names, err := fs.Glob(os.DirFS("."), "sys*.go")
	if err != nil || len(names) == 0 {
		lacks(t, "the sources of the package")
	}
	checked := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !takesInt(f) {
				continue
			}
			calls := callsOf(f)
			_, known := allowed[f.Name.Name]
			switch {
			case calls["check32"]:
				checked++
			case (calls["syscall"] || calls["unix"]) && !known:
				t.Errorf("%s: %s takes an int and does not call check32", name, f.Name.Name)
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d functions that check: that is too few to be true", checked)
	}
}

func takesInt(f *ast.FuncDecl) bool {
	for _, field := range f.Type.Params.List {
		switch typ := field.Type.(type) {
		case *ast.Ident:
			if typ.Name == "int" {
				return true
			}
		case *ast.SelectorExpr:
			if typ.Sel.Name == "Signal" {
				return true
			}
		}
	}
	return false
}

// callsOf returns the functions that f calls, and the packages whose functions it calls.
func callsOf(f *ast.FuncDecl) map[string]bool {
	calls := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch fun := call.Fun.(type) {
		case *ast.Ident:
			calls[fun.Name] = true
		case *ast.SelectorExpr:
			if pkg, ok := fun.X.(*ast.Ident); ok && fun.Sel.Name != "Errno" {
				calls[pkg.Name] = true
			}
		}
		return true
	})
	return calls
}

// Where only the ppoll(2) with 32 bits is to be had, it waits as long, and as well.
func TestPollFor(t *testing.T) {
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	const short = 20 * time.Millisecond
	for _, errno := range []syscall.Errno{0, syscall.ENOSYS, syscall.EPERM} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fd := int(r.Fd())
		calls := map[int]syscall.Errno{_SYS_PPOLL_TIME64: errno}
		number := strconv.Itoa(unix.SYS_PPOLL)
		switch {
		case errno == 0:
			calls, number = nil, strconv.Itoa(_SYS_PPOLL_TIME64)
		case is64bit:
			calls = nil // there is but one
		}
		thread, polled := make(chan int), make(chan bool)
		go func() {
			defer close(polled)
			defer close(thread)
			underFilter(t, func() error { return refuse(calls) }, func() {
				begin := time.Now()
				if revents, errno := pollFor(fd, short); revents != 0 || errno != 0 || time.Since(begin) < short {
					t.Errorf("%#x, %v after %v", revents, errno, time.Since(begin))
				}
				thread <- syscall.Gettid()
				if revents, errno := pollFor(fd, time.Hour); revents != unix.POLLIN || errno != 0 {
					t.Errorf("%#x, %v", revents, errno)
				}
			})
		}()
		if tid, ok := <-thread; ok {
			for {
				select {
				case <-polled: // it did not wait
				default:
					text, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(tid) + "/syscall")
					if call, _, _ := strings.Cut(string(text), " "); err == nil && call != number {
						continue
					}
				}
				break
			}
		}
		w.Write([]byte("x"))
		<-polled
		r.Close()
		w.Close()
	}
}
