//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

var namespaceNames = map[NamespaceKind]string{
	CgroupNamespace: "cgroup", IPCNamespace: "ipc", MntNamespace: "mnt", NetNamespace: "net", PIDNamespace: "pid",
	PIDForChildrenNamespace: "pid_for_children", TimeNamespace: "time", TimeForChildrenNamespace: "time_for_children",
	UserNamespace: "user", UTSNamespace: "uts",
}

func TestNamespaceKind(t *testing.T) {
	if len(namespaceNames) != 10 {
		t.Errorf("%d kinds", len(namespaceNames))
	}
	for kind, name := range namespaceNames {
		if kind.String() != name {
			t.Errorf("%s: %q", name, kind)
		}
	}
	for _, kind := range []NamespaceKind{0, CgroupNamespace - 1, UTSNamespace + 1, _PIDFD_GET_INFO & (1<<32 - 1)} {
		if kind.String() != "" || kind.CloneFlag() != 0 {
			t.Errorf("%#x: %q, %#x", uint32(kind), kind, kind.CloneFlag())
		}
	}
	flags := map[string]int{
		"cgroup": syscall.CLONE_NEWCGROUP, "ipc": syscall.CLONE_NEWIPC, "mnt": syscall.CLONE_NEWNS, "net": syscall.CLONE_NEWNET,
		"pid": syscall.CLONE_NEWPID, "time": syscall.CLONE_NEWTIME, "user": syscall.CLONE_NEWUSER, "uts": syscall.CLONE_NEWUTS,
	}
	for kind, name := range namespaceNames {
		plain, children := strings.CutSuffix(name, "_for_children")
		flag := flags[plain]
		if flag == 0 || kind.CloneFlag() != flag {
			t.Errorf("%s: flag %#x, want %#x", name, kind.CloneFlag(), flag)
		}
		if back := namespaceKindOf(uint32(flag)); back.String() != plain || !children && back != kind {
			t.Errorf("%s: flag %#x is of %s", name, flag, back)
		}
	}
	for _, flag := range []uint32{0, 1, syscall.CLONE_VM, syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET, 1 << 31} {
		if kind := namespaceKindOf(flag); kind != 0 {
			t.Errorf("flag %#x is of %s", flag, kind)
		}
	}
}

// ownNamespaces returns the namespaces of this process, open; without those that this kernel does not have.
func ownNamespaces(t *testing.T) map[NamespaceKind]*os.File {
	t.Helper()
	own := map[NamespaceKind]*os.File{}
	for kind, name := range namespaceNames {
		if f, err := os.Open("/proc/self/ns/" + name); err == nil {
			t.Cleanup(func() { f.Close() })
			own[kind] = f
		}
	}
	if len(own) == 0 {
		t.Fatal("there is nothing in /proc/self/ns")
	}
	return own
}

func openOwn(t *testing.T, kind NamespaceKind) *os.File {
	t.Helper()
	rights.Proc(t)
	f, err := os.Open("/proc/self/ns/" + kind.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// strangerNamespaces starts a process with namespaces of its own, also a user namespace, and returns the
// handles of them.
func strangerNamespaces(t *testing.T) (handles map[NamespaceKind]FileHandle, cmd *exec.Cmd) {
	t.Helper()
	rights.UserNamespace(t)
	cmd = child("hostname")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID}
	lineOf(t, cmd)
	handles = map[NamespaceKind]FileHandle{}
	for _, kind := range []NamespaceKind{UserNamespace, UTSNamespace, NetNamespace, IPCNamespace, PIDNamespace} {
		h, _, err := NameToHandleAt(AT_FDCWD, fmt.Sprintf("/proc/%d/ns/%s", cmd.Process.Pid, kind), AT_SYMLINK_FOLLOW)
		if err != nil {
			t.Fatal(err)
		}
		handles[kind] = h
	}
	return handles, cmd
}

func TestNamespaceHandle(t *testing.T) {
	rights.Proc(t)
	f, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, _, err := NameToHandleAt(int(f.Fd()), "", AT_EMPTY_PATH)
	if errors.Is(err, errors.ErrUnsupported) && olderThan(t, "6.18") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	id, typ, inode, ok := h.Namespace()
	if !ok || id == 0 || typ != syscall.CLONE_NEWUTS || link != fmt.Sprintf("uts:[%d]", inode) {
		t.Errorf("%v: %d, %#x, %d, %v", h, id, typ, inode, ok)
	}
	if again := NamespaceHandle(id, typ, inode); again != h {
		t.Errorf("%v, want %v", again, h)
	}
	needs(t, FeatureNamespaceHandle)
	again, err := OpenByHandleAt(FD_NSFS_ROOT, h, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	was, _ := f.Stat()
	if is, err := again.Stat(); err != nil || !os.SameFile(was, is) {
		t.Errorf("%v, %v", is, err)
	}
	if _, _, _, ok := PidFDHandle(1).Namespace(); ok {
		t.Error("a pidfd is a namespace")
	}
}

func FuzzNamespaceHandle(f *testing.F) {
	f.Add(int32(FILEID_NSFS), []byte("0123456789abcdef"), uint64(1), uint32(2), uint32(3))
	f.Add(int32(FILEID_NSFS), []byte("0123456789abcde"), uint64(1)<<63, uint32(1)<<31, uint32(1)<<31)
	f.Add(int32(FILEID_KERNFS), []byte("0123456789abcdef and more"), uint64(0), uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, typ int32, data []byte, id uint64, nsType, inode uint32) {
		made := NamespaceHandle(NamespaceID(id), nsType, inode)
		if isID, isType, isInode, ok := made.Namespace(); !ok || uint64(isID) != id || isType != nsType || isInode != inode || made.Len() != 16 {
			t.Errorf("%v: %d, %d, %d, %v", made, isID, isType, isInode, ok)
		}
		h, err := NewFileHandle(typ, data)
		if err != nil {
			return
		}
		isID, isType, isInode, ok := h.Namespace()
		switch {
		case ok != (typ == FILEID_NSFS && len(data) >= 16):
			t.Errorf("%v: %v", h, ok)
		case ok && len(data) == 16 && NamespaceHandle(isID, isType, isInode) != h:
			t.Errorf("%v: %d, %d, %d", h, isID, isType, isInode)
		case !ok && (isID != 0 || isType != 0 || isInode != 0):
			t.Errorf("%v: %d, %d, %d", h, isID, isType, isInode)
		}
	})
}

// hasNSIoctls skips where ioctls on namespaces are missing.
func hasNSIoctls(t *testing.T) {
	t.Helper()
	reliesOn(t, newIoctls)
	_, err := NamespaceKindOf(int(openOwn(t, MntNamespace).Fd()))
	if errors.Is(err, errors.ErrUnsupported) && !is64bit && olderThan(t, "6.3") {
		t.Skip(err) // under a 64-bit kernel
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestNamespaceIDOf(t *testing.T) {
	keepsDescriptors(t)
	seen := map[NamespaceID]NamespaceKind{}
	for kind, f := range ownNamespaces(t) {
		fd := int(f.Fd())
		id, err := NamespaceIDOf(fd)
		if isMissing(t, FeatureNamespaceHandle) && (kind != MntNamespace || olderThan(t, "6.11") || surroundings().instead) {
			matches(t, err, errors.ErrUnsupported)
			continue
		}
		if err != nil || id == 0 {
			t.Errorf("%s: %d, %v", kind, id, err)
			continue
		}
		if other, ok := seen[id]; ok && other.CloneFlag() != kind.CloneFlag() {
			t.Errorf("%s and %s have the ID %d", kind, other, id)
		}
		seen[id] = kind
		if isMissing(t, FeatureNamespaceHandle) {
			continue
		}
		h, _, err := NameToHandleAt(fd, "", AT_EMPTY_PATH)
		if want, typ, _, _ := h.Namespace(); err != nil || id != want || typ != uint32(kind.CloneFlag()) {
			t.Errorf("%s: %d, its handle is %v, %v", kind, id, h, err)
		}
		if surroundings().name == environments[""].name {
			requests := []uintptr{_NS_GET_ID}
			if kind == MntNamespace {
				requests = append(requests, _NS_GET_MNTNS_ID)
			}
			for _, request := range requests {
				if by, errno := nsGetID(fd, request); errno != 0 || NamespaceID(by) != id {
					t.Errorf("%s: ID %d, by ioctl %#x %d, %v", kind, id, request, by, errno)
				}
			}
		}
		path, err := openat(AT_FDCWD, f.Name(), O_PATH)
		if err != nil {
			t.Fatal(err)
		}
		if by, err := NamespaceIDOf(path); err != nil || by != id {
			t.Errorf("%s: ID %d, by O_PATH %d, %v", kind, id, by, err)
		}
		syscall.Close(path)
		doesNotAllocate(t, func() { NamespaceIDOf(fd) })
	}
}

// With name_to_handle_at refused, or missing, the ioctls tell the same.
func TestNamespaceIDOfByIoctl(t *testing.T) {
	rights.Proc(t)
	needs(t, FeatureNamespaceHandle)
	hasNSIoctls(t)
	keepsDescriptors(t)
	f := openOwn(t, NetNamespace)
	want, err := NamespaceIDOf(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	path, err := openat(AT_FDCWD, f.Name(), O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(path)
	for errno, wantPath := range map[syscall.Errno][]error{
		syscall.EPERM:  {syscall.EPERM, os.ErrPermission},
		syscall.ENOSYS: {syscall.EBADF},
	} {
		underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_NAME_TO_HANDLE_AT: errno}) }, func() {
			if id, err := NamespaceIDOf(int(f.Fd())); err != nil || id != want {
				t.Errorf("%v: %d, %v; want %d", errno, id, err, want)
			}
			_, err := NamespaceIDOf(path)
			matches(t, err, wantPath...)
		})
	}
	// Neither.
	for errno, want := range map[syscall.Errno][]error{
		syscall.EPERM:  {syscall.EPERM, os.ErrPermission},
		syscall.ENOSYS: {syscall.ENOSYS, errors.ErrUnsupported},
		syscall.ENOTTY: {errors.ErrUnsupported},
	} {
		underFilter(t, func() error {
			return refuse(map[int]syscall.Errno{unix.SYS_NAME_TO_HANDLE_AT: errno, unix.SYS_IOCTL: errno})
		}, func() {
			_, err := NamespaceIDOf(int(f.Fd()))
			if errno == syscall.ENOTTY { // which name_to_handle_at does not say
				matches(t, err, errno)
			} else {
				matches(t, err, want...)
			}
		})
	}
	// An answer without an effect is no ID.
	underFilter(t, func() error {
		return refuse(map[int]syscall.Errno{unix.SYS_NAME_TO_HANDLE_AT: 0, unix.SYS_IOCTL: 0})
	}, func() {
		if id, err := NamespaceIDOf(int(f.Fd())); err == nil {
			t.Errorf("ID %d", id)
		}
	})
}

// borrowers are the functions that a descriptor of a namespace is lent to.
var borrowers = map[string]func(fd int) error{
	"NamespaceIDOf":           func(fd int) error { return second(NamespaceIDOf(fd)) },
	"NamespaceKindOf":         func(fd int) error { return second(NamespaceKindOf(fd)) },
	"NamespaceOwnerOf":        func(fd int) error { return second(NamespaceOwnerOf(fd)) },
	"OpenParentNamespace":     func(fd int) error { return closed(OpenParentNamespace(fd)) },
	"OpenOwningUserNamespace": func(fd int) error { return closed(OpenOwningUserNamespace(fd)) },
}

// What is no namespace is told so, and is neither waited for nor sent an ioctl.
func TestNotANamespace(t *testing.T) {
	reliesOn(t, nsfsFiles)
	keepsDescriptors(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	others := map[string]*os.File{"pipe": r}
	for _, path := range []string{os.DevNull, tempFile(t), t.TempDir(), "/proc", "/proc/self/status", "/proc/self/ns", "/sys/kernel"} {
		if f, err := os.Open(path); err == nil {
			t.Cleanup(func() { f.Close() })
			others[path] = f
		}
	}
	for name, borrow := range borrowers {
		for other, f := range others {
			err := borrow(int(f.Fd()))
			matches(t, err, syscall.EINVAL)
			if err == nil || !strings.Contains(err.Error(), "descriptor "+strconv.Itoa(int(f.Fd()))+" is not a namespace") {
				t.Errorf("%s of %s: %v", name, other, err)
			}
		}
		for _, fd := range []int{-1, AT_FDCWD, FD_NSFS_ROOT, noFD, beyond32bits - 1} {
			matches(t, borrow(fd), syscall.EBADF)
		}
	}
	if surroundings().name == environments[""].name {
		p := openPidFD(t, os.Getpid())
		for _, borrow := range borrowers {
			matches(t, borrow(p.fd), syscall.EINVAL)
		}
	}
}

func TestNotANamespaceSilent(t *testing.T) {
	reliesOn(t, mounting)
	keepsDescriptors(t)
	f, abort := silentFile(t)
	timer := time.AfterFunc(20*time.Second, func() {
		t.Error("it waits")
		abort()
	})
	defer timer.Stop()
	for _, forget := range []bool{true, false} {
		for name, borrow := range borrowers {
			if forget {
				nsfsDev.Store(0)
			}
			if err := borrow(int(f.Fd())); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestNamespaceKindOf(t *testing.T) {
	rights.Proc(t)
	hasNSIoctls(t)
	keepsDescriptors(t)
	for kind, f := range ownNamespaces(t) {
		is, err := NamespaceKindOf(int(f.Fd()))
		if err != nil || is.CloneFlag() != kind.CloneFlag() || strings.HasSuffix(is.String(), "children") {
			t.Errorf("%s: %s, %v", kind, is, err)
		}
		doesNotAllocate(t, func() { NamespaceKindOf(int(f.Fd())) })
	}
	path, err := openat(AT_FDCWD, "/proc/self/ns/uts", O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(path)
	for name, borrow := range borrowers {
		if name != "NamespaceIDOf" {
			matches(t, borrow(path), syscall.EBADF)
		}
	}
}

// Before Linux 4.9 or 4.11, and for 32-bit programs before 6.3.
func TestNamespaceIoctlMissing(t *testing.T) {
	reliesOn(t, seccompFilters, nsfsFiles)
	keepsDescriptors(t)
	f := openOwn(t, UserNamespace)
	if _, err := proveNsfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_IOCTL: syscall.ENOTTY}) }, func() {
		for name, borrow := range borrowers {
			if name != "NamespaceIDOf" {
				matches(t, borrow(int(f.Fd())), syscall.ENOTTY, errors.ErrUnsupported)
			}
		}
	})
}

// Where there are neither pidfds nor a true /proc, nothing is learned from what is in its place.
func TestNamespaceOtherProc(t *testing.T) {
	reliesOn(t, nsfsFiles)
	rights.Need(t, rights.SysAdmin)
	if !again(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS} }) {
		return
	}
	privately(t)
	f := openOwn(t, UTSNamespace)
	if err := syscall.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount("/proc", syscall.MNT_DETACH)
	for _, there := range []bool{false, true} {
		if there {
			if err := errors.Join(os.MkdirAll("/proc/thread-self/ns", 0o755), os.WriteFile("/proc/thread-self/ns/mnt", nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_PIDFD_OPEN: syscall.ENOSYS}) }, func() {
			before := descriptorNumbers()
			for _, borrow := range borrowers {
				nsfsDev.Store(0)
				matches(t, borrow(int(f.Fd())), errors.ErrUnsupported)
			}
			if after := descriptorNumbers(); !slices.Equal(before, after) {
				t.Errorf("descriptors before: %d, after: %d", before, after)
			}
		})
	}
	if err := syscall.Unmount("/proc", syscall.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if _, err := proveNsfs(int(f.Fd())); err != nil {
		t.Error(err)
	}
}

// sameNamespace checks a file that was opened.
func sameNamespace(t *testing.T, f *os.File, path string) {
	t.Helper()
	want, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if is, err := f.Stat(); err != nil || !os.SameFile(is, want) {
		t.Errorf("%s is not %s: %v", f.Name(), path, err)
	}
	if link, err := os.Readlink(path); err != nil || f.Name() != link {
		t.Errorf("it is called %s, and %s is %s, %v", f.Name(), path, link, err)
	}
	if flags, errno := fcntl(int(f.Fd()), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
}

func TestOpenOwningUserNamespace(t *testing.T) {
	rights.Proc(t)
	rights.UserNamespace(t)
	hasNSIoctls(t)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	cmd := child("hostname")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID}
	lineOf(t, cmd)
	of := func(kind NamespaceKind) *os.File {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", cmd.Process.Pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	theirs := fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid)
	for _, test := range []struct {
		f    *os.File
		open func(fd int) (*os.File, error)
		want string
	}{
		{of(UTSNamespace), OpenOwningUserNamespace, theirs},
		{of(PIDNamespace), OpenOwningUserNamespace, theirs},
		{of(UserNamespace), OpenOwningUserNamespace, "/proc/self/ns/user"},
		{of(UserNamespace), OpenParentNamespace, "/proc/self/ns/user"},
		{of(PIDNamespace), OpenParentNamespace, "/proc/self/ns/pid"},
		{openOwn(t, UTSNamespace), OpenOwningUserNamespace, "/proc/self/ns/user"},
	} {
		f, err := test.open(int(test.f.Fd()))
		if err != nil {
			t.Errorf("%s: %v", test.f.Name(), err)
			continue
		}
		sameNamespace(t, f, test.want)
		f.Close()
	}
	_, err := OpenParentNamespace(int(openOwn(t, UTSNamespace).Fd()))
	matches(t, err, syscall.EINVAL)
	// Those that this process is in are the scope.
	for _, kind := range []NamespaceKind{UserNamespace, PIDNamespace} {
		_, err = OpenParentNamespace(int(openOwn(t, kind).Fd()))
		matches(t, err, syscall.EPERM, os.ErrPermission)
	}
	_, err = OpenOwningUserNamespace(int(openOwn(t, UserNamespace).Fd()))
	matches(t, err, syscall.EPERM, os.ErrPermission)

	uid, err := NamespaceOwnerOf(int(of(UserNamespace).Fd()))
	if err != nil || int(uid) != os.Geteuid() {
		t.Errorf("owner %d, %v", uid, err)
	}
	_, err = NamespaceOwnerOf(int(of(UTSNamespace).Fd()))
	matches(t, err, syscall.EINVAL)
	onThrowawayThread(func() {
		f, err := OpenOwningUserNamespace(int(of(UTSNamespace).Fd()))
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		// Which a program of several threads cannot enter: the kernel has looked at the file.
		if errno := setns(int(f.Fd()), syscall.CLONE_NEWUSER); errno != syscall.EINVAL {
			t.Error(errno)
		}
		if errno := setns(int(f.Fd()), syscall.CLONE_NEWNET); errno != syscall.EINVAL {
			t.Error(errno)
		}
	})
}

// What a filter accepts without doing it opens nothing, and closes nothing.
func TestNamespacePretended(t *testing.T) {
	reliesOn(t, seccompFilters, nsfsFiles)
	keepsDescriptors(t)
	f := openOwn(t, UTSNamespace)
	if _, err := NamespaceIDOf(int(f.Fd())); err != nil && !errors.Is(err, errors.ErrUnsupported) { // learns nsfs
		t.Fatal(err)
	}
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_IOCTL: 0}) }, func() {
		for _, name := range []string{"NamespaceKindOf", "NamespaceOwnerOf", "OpenParentNamespace", "OpenOwningUserNamespace"} {
			if err := borrowers[name](int(f.Fd())); !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EOPNOTSUPP) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Nor is anything learned from it.
		nsfsDev.Store(0)
		matches(t, borrowers["NamespaceIDOf"](0), syscall.EINVAL)
	})
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_OPEN_BY_HANDLE_AT: 0}) }, func() {
		if f, err := OpenNamespace(NamespaceHandle(1<<40, 0, 0)); err == nil {
			t.Error(f.Name())
		}
	})
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{_SYS_LISTNS: 0}) }, func() {
		_, err := Namespaces(0)
		matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
	})
}

func TestOpenNamespace(t *testing.T) {
	needs(t, FeatureNamespaceHandle)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	byID := !isMissing(t, FeatureNamespaceByID)
	handles, cmd := strangerNamespaces(t)
	for kind, h := range handles {
		id, typ, inode, _ := h.Namespace()
		path := fmt.Sprintf("/proc/%d/ns/%s", cmd.Process.Pid, kind)
		longer, err := NewFileHandle(h.Type(), append(h.Bytes(), 1, 2, 3, 4))
		if err != nil {
			t.Fatal(err)
		}
		for _, whole := range []FileHandle{h, longer} {
			f, err := OpenNamespace(whole)
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			sameNamespace(t, f, path)
			f.Close()
		}
		for _, part := range []FileHandle{NamespaceHandle(id, 0, 0), NamespaceHandle(id, typ, 0), NamespaceHandle(id, 0, inode)} {
			f, err := OpenNamespace(part)
			if !byID {
				matches(t, err, errors.ErrUnsupported)
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			sameNamespace(t, f, path)
			f.Close()
		}
		const wrongInode = 7
		wrongType := typ ^ (syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS)
		for _, stranger := range []FileHandle{
			NamespaceHandle(id, typ, wrongInode), NamespaceHandle(id, wrongType, inode), NamespaceHandle(id|1<<60, typ, inode),
		} {
			_, err := OpenNamespace(stranger)
			matches(t, err, syscall.ESTALE, os.ErrNotExist)
		}
		if byID {
			for _, stranger := range []FileHandle{NamespaceHandle(id, 0, wrongInode), NamespaceHandle(id, wrongType, 0)} {
				_, err := OpenNamespace(stranger)
				matches(t, err, syscall.ESTALE)
			}
			_, err := OpenNamespace(NamespaceHandle(id|1<<60, 0, 0))
			matches(t, err, syscall.ESTALE, os.ErrNotExist)
		}
	}
	for _, h := range []FileHandle{{}, PidFDHandle(1), NamespaceHandle(0, syscall.CLONE_NEWNET, 1)} {
		_, err := OpenNamespace(h)
		matches(t, err, syscall.EINVAL)
	}

	// It can be entered, and keeps the namespace when nothing else does.
	net, err := OpenNamespace(handles[NetNamespace])
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	reap(cmd)
	onThrowawayThread(func() {
		if errno := setns(int(net.Fd()), syscall.CLONE_NEWNET); errno != 0 {
			t.Error(errno)
			return
		}
		is, err := os.Stat("/proc/thread-self/ns/net")
		if was, errWas := net.Stat(); err != nil || errWas != nil || !os.SameFile(is, was) {
			t.Errorf("%v, %v", err, errWas)
		}
	})
	again, err := OpenNamespace(handles[NetNamespace])
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if owner, err := OpenOwningUserNamespace(int(net.Fd())); err != nil {
		t.Error(err)
	} else {
		owner.Close()
	}
	// The others end with the process, if not at once.
	h := handles[UTSNamespace]
	for range 200 {
		f, err := OpenNamespace(h)
		if err != nil {
			matches(t, err, syscall.ESTALE, os.ErrNotExist)
			return
		}
		f.Close()
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a namespace that nothing uses is still there")
}

// Under filters: of what cannot be told by the handle, all is compared nevertheless.
func TestOpenNamespaceFilters(t *testing.T) {
	rights.Proc(t)
	needs(t, FeatureNamespaceHandle)
	hasNSIoctls(t)
	keepsDescriptors(t)
	h, err := namespaceHandle(int(openOwn(t, NetNamespace).Fd()))
	if err != nil {
		t.Fatal(err)
	}
	id, typ, inode, _ := h.Namespace()
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS} {
		underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_NAME_TO_HANDLE_AT: errno}) }, func() {
			f, err := OpenNamespace(h)
			if err != nil {
				t.Errorf("%v: %v", errno, err)
				return
			}
			sameNamespace(t, f, "/proc/self/ns/net")
			fd := int(f.Fd())
			for _, wrong := range []FileHandle{NamespaceHandle(id+1, typ, inode), NamespaceHandle(id, typ+1, inode), NamespaceHandle(id, typ, inode+1)} {
				id, typ, inode, _ := wrong.Namespace()
				_, err := verifyNamespace(fd, id, typ, inode)
				matches(t, err, syscall.ESTALE)
			}
			f.Close()
		})
	}
	f := openOwn(t, NetNamespace)
	for _, wrong := range []FileHandle{NamespaceHandle(id+1, typ, inode), NamespaceHandle(id, typ+1, inode), NamespaceHandle(id, typ, inode+1)} {
		id, typ, inode, _ := wrong.Namespace()
		_, err := verifyNamespace(int(f.Fd()), id, typ, inode)
		matches(t, err, syscall.ESTALE)
	}
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_OPEN_BY_HANDLE_AT: syscall.EPERM}) }, func() {
		_, err := OpenNamespace(h)
		matches(t, err, syscall.EPERM, os.ErrPermission)
	})
}

// Before Linux 6.18 there is no nsfs to open from.
func TestOpenNamespaceMissing(t *testing.T) {
	if !isMissing(t, FeatureNamespaceHandle) {
		t.Skip("this kernel has it")
	}
	keepsDescriptors(t)
	for _, h := range []FileHandle{NamespaceHandle(1, syscall.CLONE_NEWNET, 1), NamespaceHandle(1, 0, 0)} {
		_, err := OpenNamespace(h)
		matches(t, err, errors.ErrUnsupported)
	}
}

const strangersVar = "SYSFD_TEST_STRANGERS" // handles of namespaces that somebody else is in

// Without the right to see all namespaces, what cannot be opened may be there.
func TestOpenNamespaceOutOfSight(t *testing.T) {
	for name, attr := range map[string]*syscall.SysProcAttr{
		"user namespace": {
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
		"pid namespace": {Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS},
		"nobody":        {Credential: &syscall.Credential{Uid: 65534, Gid: 65534}},
	} {
		t.Run(name, func(t *testing.T) {
			needs(t, FeatureNamespaceHandle)
			if !again(t, func(cmd *exec.Cmd) {
				rights.Need(t, rights.SysAdmin, rights.SetUID, rights.SetGID)
				handles, _ := strangerNamespaces(t)
				var words []string
				for _, h := range handles {
					words = append(words, h.String())
				}
				cmd.Env = append(cmd.Env, strangersVar+"="+strings.Join(words, " "))
				cmd.SysProcAttr = attr
			}) {
				return
			}
			listed := map[NamespaceID]bool{}
			lists := !isMissing(t, FeatureNamespaces)
			if lists {
				ids, err := Namespaces(0)
				if err != nil {
					t.Fatal(err)
				}
				for _, id := range ids {
					listed[id] = true
				}
			}
			for kind, f := range ownNamespaces(t) {
				h, err := namespaceHandle(int(f.Fd()))
				if err != nil {
					t.Fatal(err)
				}
				own, err := OpenNamespace(h)
				if err != nil {
					t.Errorf("%s: %v", kind, err)
					continue
				}
				sameNamespace(t, own, f.Name())
				own.Close()
				id, _, _, _ := h.Namespace()
				if lists && !listed[id] {
					t.Errorf("its own %s namespace %d is not listed", kind, id)
				}
			}
			for _, word := range strings.Fields(os.Getenv(strangersVar)) {
				h, err := ParseFileHandle(word)
				if err != nil {
					t.Fatal(err)
				}
				id, _, _, _ := h.Namespace()
				f, err := OpenNamespace(h)
				if err == nil && name == "pid namespace" && olderThan(t, "7.0") {
					f.Close() // CAP_SYS_ADMIN is enough there
					continue
				}
				matches(t, err, syscall.ESTALE)
				if !strings.Contains(fmt.Sprint(err), "not visible to this process") {
					t.Error(err)
				}
				if listed[id] {
					t.Errorf("%v is listed", h)
				}
			}
			_, err := OpenNamespace(NamespaceHandle(1<<60, syscall.CLONE_NEWNET, 1))
			matches(t, err, syscall.ESTALE)
		})
	}
}

func TestNamespaces(t *testing.T) {
	for _, kind := range []NamespaceKind{1, UTSNamespace + 1} {
		_, err := Namespaces(kind)
		matches(t, err, syscall.EINVAL)
	}
	if isMissing(t, FeatureNamespaces) {
		_, err := Namespaces(0)
		if errors.Is(err, os.ErrPermission) && rights.Filter() {
			refusedByFilter(t, FeatureNamespaces)
		}
		if err != nil {
			matches(t, err, errors.ErrUnsupported)
		}
	}
	needs(t, FeatureNamespaces)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	handles, cmd := strangerNamespaces(t)
	all, err := Namespaces(0)
	if err != nil {
		t.Fatal(err)
	}
	for kind, h := range handles {
		id, _, _, _ := h.Namespace()
		own, err := NamespaceIDOf(int(openOwn(t, kind).Fd()))
		if err != nil {
			t.Fatal(err)
		}
		ids, err := Namespaces(kind)
		if err != nil || !slices.Contains(ids, id) || !slices.Contains(ids, own) || !slices.Contains(all, id) || !slices.Contains(all, own) {
			t.Errorf("%s: %d, %v; not %d and %d", kind, ids, err, id, own)
		}
		for _, id := range ids {
			f, err := OpenNamespace(NamespaceHandle(id, 0, 0))
			if errors.Is(err, os.ErrNotExist) {
				continue // it has ended
			}
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			if is, err := NamespaceKindOf(int(f.Fd())); err != nil || is != kind {
				t.Errorf("%s: %s is listed, %v", kind, is, err)
			}
			f.Close()
		}
		children := map[NamespaceKind]NamespaceKind{PIDNamespace: PIDForChildrenNamespace, TimeNamespace: TimeForChildrenNamespace}[kind]
		if children != 0 {
			if same, err := Namespaces(children); err != nil || !slices.Equal(ids, same) {
				t.Errorf("%s: %d, %v; want %d", children, same, err, ids)
			}
		}
	}
	// What an open file holds, and what nothing holds any more.
	id, _, _, _ := handles[UTSNamespace].Namespace()
	f, err := OpenNamespace(handles[UTSNamespace])
	if err != nil {
		t.Fatal(err)
	}
	reap(cmd)
	if ids, err := Namespaces(UTSNamespace); err != nil || !slices.Contains(ids, id) {
		t.Errorf("%d, %v: not %d, which is open", ids, err, id)
	}
	f.Close()
	for range 200 {
		ids, err := Namespaces(UTSNamespace)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(ids, id) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d is still listed", id)
}

// There is room for more than fit at first, and each is there once.
func TestNamespacesMany(t *testing.T) {
	needs(t, FeatureNamespaces)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	const many = 300
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	want := map[NamespaceID]bool{}
	onThrowawayThread(func() {
		for range many {
			if err := syscall.Unshare(syscall.CLONE_NEWUTS); err != nil {
				t.Error(err)
				return
			}
			f, err := os.Open("/proc/thread-self/ns/uts")
			if err != nil {
				t.Error(err)
				return
			}
			files = append(files, f)
			id, err := NamespaceIDOf(int(f.Fd()))
			if err != nil || want[id] {
				t.Errorf("ID %d, %v", id, err)
				return
			}
			want[id] = true
		}
	})
	for _, kind := range []NamespaceKind{UTSNamespace, 0} {
		ids, err := Namespaces(kind)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(ids)
		if n := len(ids); n < many || n != len(slices.Compact(ids)) {
			t.Errorf("%d IDs", n)
		}
		for id := range want {
			if _, ok := slices.BinarySearch(ids, id); !ok {
				t.Errorf("%d is missing", id)
			}
		}
	}
}

// A thread that has moved elsewhere has its own namespaces to try things on.
func TestOwnNamespaceOfThread(t *testing.T) {
	reliesOn(t, namespaces, threadWaits)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	onThrowawayThread(func() {
		if err := syscall.Unshare(syscall.CLONE_NEWUTS); err != nil {
			t.Error(err)
			return
		}
		fd, err := openOwnNamespace(UTSNamespace)
		if err != nil {
			t.Error(err)
			return
		}
		defer syscall.Close(fd)
		is, errno1 := statFD(fd)
		want, errno2 := stat("/proc/thread-self/ns/uts")
		main, errno3 := stat("/proc/self/ns/uts")
		if errno1 != 0 || errno2 != 0 || errno3 != 0 || is.ino != want.ino || is.ino == main.ino {
			t.Errorf("%v %v %v: %d, want %d", errno1, errno2, errno3, is.ino, want.ino)
		}
	})
}

// A namespace that sockets alone are left of is not there (since Linux 6.19), until one of them brings it
// back. The list goes on behind it.
func TestNamespaceOfSockets(t *testing.T) {
	needs(t, FeatureNamespaceHandle)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	var files [3]*os.File
	var handles [3]FileHandle
	socket := -1
	onThrowawayThread(func() {
		for i := range files {
			if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
				t.Error(err)
				return
			}
			fd, err := openOwnNamespace(NetNamespace)
			if err != nil {
				t.Error(err)
				return
			}
			files[i] = os.NewFile(uintptr(fd), "namespace")
			if handles[i], err = namespaceHandle(fd); err != nil {
				t.Error(err)
			}
			if i == 1 {
				socket, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	defer syscall.Close(socket)
	defer files[0].Close()
	defer files[2].Close()
	files[1].Close()
	// The threads that were in it are not gone at once.
	var err error
	rounds := 200
	if isMissing(t, FeatureNamespaces) {
		rounds = 1
	}
	for range rounds {
		var f *os.File
		if f, err = OpenNamespace(handles[1]); err != nil {
			break
		}
		f.Close()
		time.Sleep(10 * time.Millisecond)
	}
	if isMissing(t, FeatureNamespaces) {
		if err != nil {
			t.Error(err)
		}
	} else {
		matches(t, err, syscall.ESTALE, os.ErrNotExist)
		ids, err := Namespaces(NetNamespace)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range handles {
			if id, _, _, _ := h.Namespace(); slices.Contains(ids, id) != (i != 1) {
				t.Errorf("the %d. of %d is listed: %v", i, len(handles), i == 1)
			}
		}
	}
	const siocgskns = 0x894c
	back, errno := nsIoctl(socket, siocgskns)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer syscall.Close(back)
	if f, err := OpenNamespace(handles[1]); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

// Without descriptors it cannot be found out what the kernel takes, which is no news about a namespace.
func TestOpenNamespaceWithoutDescriptors(t *testing.T) {
	needs(t, FeatureNamespaceHandle)
	if !again(t, nil) {
		return
	}
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := NamespaceIDOf(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for left := range 4 {
		withDescriptorsLeft(left, func() { f, err = OpenNamespace(NamespaceHandle(id, 0, 0)) })
		if err == nil {
			f.Close()
		} else if errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d left: %v", left, err)
		}
	}
}
