//go:build linux

package sysfd

import (
	"errors"
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

	"github.com/sysfd/sysfd/internal/rights"
)

func TestCgroup(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	root := mountCgroups(t, "")
	dir := root.Name()
	group := fmt.Sprintf("sysfd-test-%d", os.Getpid())
	if err := os.Mkdir(filepath.Join(dir, group), 0o700); err != nil {
		lacks(t, "a cgroup2 to make groups in: "+err.Error())
	}
	defer os.Remove(filepath.Join(dir, group))
	id, hierarchy, err := CgroupIDAt(int(root.Fd()), group, 0)
	if err != nil || hierarchy != Cgroup2 {
		t.Fatal(hierarchy, err)
	}
	f, err := OpenCgroup(int(root.Fd()), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if again, _, err := CgroupIDOf(int(f.Fd())); err != nil || again != id {
		t.Errorf("%d, %v; want %d", again, err, id)
	}
	doesNotAllocate(t, func() { CgroupIDOf(int(root.Fd())) })
	f.Close()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, group), link); err != nil {
		t.Fatal(err)
	}
	if again, _, err := CgroupIDAt(AT_FDCWD, link, AT_SYMLINK_FOLLOW); err != nil || again != id {
		t.Errorf("%d, %v; want %d", again, err, id)
	}
	_, _, err = CgroupIDAt(AT_FDCWD, link, 0)
	matches(t, err, syscall.EINVAL)
	_, _, err = CgroupIDAt(int(root.Fd()), group, AT_HANDLE_FID)
	matches(t, err, syscall.EINVAL)
	_, _, err = CgroupIDAt(int(root.Fd()), "", 0)
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	file, _, err := CgroupIDAt(AT_FDCWD, filepath.Join(dir, group, "cgroup.procs"), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenCgroup(int(root.Fd()), file)
	matches(t, err, syscall.ENOTDIR)
	// On a 32-bit kernel this is its st_ino, for the upper halves begin with 1 there.
	_, err = OpenCgroup(int(root.Fd()), id^1<<32)
	matches(t, err, syscall.ESTALE, os.ErrNotExist)
	if err := os.Remove(filepath.Join(dir, group)); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []CgroupID{id, id ^ 1<<32} {
		_, err = OpenCgroup(int(root.Fd()), wrong)
		matches(t, err, syscall.ESTALE, os.ErrNotExist)
	}
	// Handles of the same shape, elsewhere.
	for _, path := range []string{"/sys/kernel", t.TempDir()} {
		if _, err := os.Stat(path); err != nil {
			t.Log(err)
			continue
		}
		_, _, err := CgroupIDAt(AT_FDCWD, path, 0)
		matches(t, err, syscall.EINVAL)
	}
	p := openPidFD(t, os.Getpid())
	_, _, err = CgroupIDOf(p.fd)
	matches(t, err, syscall.EINVAL)
	_, err = OpenCgroup(p.fd, id)
	matches(t, err, syscall.EINVAL)
}

// mountCgroups mounts a hierarchy for the time of a test: cgroup2, or one of version 1 by its options.
func mountCgroups(t *testing.T, options string) *os.File {
	t.Helper()
	reliesOn(t, mounting)
	dir := filepath.Join(t.TempDir(), "cgroups")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fsType := "cgroup"
	if options == "" {
		fsType = "cgroup2"
	}
	if err := syscall.Mount("none", dir, fsType, 0, options); err != nil {
		lacks(t, fsType+" to mount: "+err.Error())
	}
	t.Cleanup(func() {
		syscall.Unmount(dir, syscall.MNT_DETACH)
		if _, name, v1 := strings.Cut(options, "name="); v1 {
			endHierarchy(t, dir, "name="+name)
		}
	})
	return openDir(t, dir)
}

// endHierarchy has the kernel forget a hierarchy of cgroup v1 that is not mounted. It does so at an unmount,
// but not while it buries the last of its cgroups.
func endHierarchy(t *testing.T, dir, name string) {
	t.Helper()
	for range 30 {
		for range 100 { // until it is gone; a mount would make another one
			text, err := os.ReadFile("/proc/self/cgroup")
			if err != nil || !strings.Contains(string(text), ":"+name+":") {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := syscall.Mount("none", dir, "cgroup", 0, "none,"+name); err == nil {
			syscall.Unmount(dir, 0)
		}
	}
	t.Errorf("%s stays", name)
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// makeCgroup makes a cgroup below a directory, for the time of a test.
func makeCgroup(t *testing.T, parts ...string) (path string, id CgroupID) {
	t.Helper()
	path = filepath.Join(parts...)
	if err := os.Mkdir(path, 0o755); err != nil {
		lacks(t, "cgroups to make groups in: "+err.Error())
	}
	t.Cleanup(func() { removeCgroup(t, path) })
	id, _, err := CgroupIDAt(AT_FDCWD, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return path, id
}

// eachHierarchy runs f for cgroup2 and for a hierarchy of cgroup v1, mounted at root.
func eachHierarchy(t *testing.T, f func(t *testing.T, hierarchy CgroupHierarchy, root *os.File)) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	for _, hierarchy := range []CgroupHierarchy{Cgroup2, CgroupHierarchy(fmt.Sprintf("name=sysfd-%d", os.Getpid()))} {
		t.Run(hierarchy.words(), func(t *testing.T) {
			keepsDescriptors(t)
			options := string(hierarchy)
			if options != "" {
				options = "none," + options
			}
			f(t, hierarchy, mountCgroups(t, options))
		})
	}
}

// withoutNames runs f where the kernel does not tell under what name it knows a descriptor.
func withoutNames(t *testing.T, f func()) {
	t.Helper()
	underFilter(t, func() error {
		return refuse(map[int]syscall.Errno{syscall.SYS_READLINKAT: syscall.EPERM})
	}, f)
}

// A hasPath checks that the path of a cgroup is found, in either way.
func hasPath(t *testing.T, hierarchy CgroupHierarchy, fd int, id CgroupID, want string) {
	t.Helper()
	check := func() {
		t.Helper()
		if path, err := hierarchy.CgroupPath(fd, id); err != nil || path != want {
			t.Errorf("%q, %v; want %q", path, err, want)
		}
	}
	check()
	withoutNames(t, check)
}

// hasNoPath checks that none is found, in either way.
func hasNoPath(t *testing.T, hierarchy CgroupHierarchy, fd int, id CgroupID, targets ...error) {
	t.Helper()
	check := func() {
		t.Helper()
		path, err := hierarchy.CgroupPath(fd, id)
		if path != "" {
			t.Errorf("%q", path)
		}
		matches(t, err, targets...)
	}
	check()
	withoutNames(t, check)
}

func TestCgroupPath(t *testing.T) {
	eachHierarchy(t, func(t *testing.T, hierarchy CgroupHierarchy, root *os.File) {
		fd := int(root.Fd())
		rootID, is, err := CgroupIDOf(fd)
		if err != nil || is != hierarchy {
			t.Fatal(is, err)
		}
		hasPath(t, hierarchy, fd, rootID, "/")
		top := fmt.Sprintf("sysfd-test-path-%d", os.Getpid())
		path, below := root.Name(), ""
		ids := map[string]CgroupID{}
		for _, name := range []string{top, "a b", "\xff\x01\"\\", " (deleted)", "a (deleted)"} { // the kernel refuses newlines
			path = filepath.Join(path, name)
			below += "/" + name
			_, ids[below] = makeCgroup(t, path)
			makeCgroup(t, path+" (deleted)")
			makeCgroup(t, path+"'")
		}
		for below, id := range ids {
			hasPath(t, hierarchy, fd, id, below)
			again, _, err := CgroupIDAt(fd, "."+below, 0)
			if err != nil || again != id {
				t.Errorf("%d, %v; want %d", again, err, id)
			}
			// From any descriptor on the mount.
			dir := openDir(t, root.Name()+below)
			hasPath(t, hierarchy, int(dir.Fd()), id, below)
			hasPath(t, hierarchy, int(dir.Fd()), rootID, "/")
		}
		file, _, err := CgroupIDAt(fd, "cgroup.procs", 0)
		if err != nil {
			t.Fatal(err)
		}
		hasNoPath(t, hierarchy, fd, file, syscall.ENOTDIR)
		for _, id := range []CgroupID{0, 1 << 60, 1<<64 - 1} {
			hasNoPath(t, hierarchy, fd, id, syscall.ESTALE, os.ErrNotExist)
		}
		id := ids[below]
		if err := syscall.Rmdir(path); err != nil {
			t.Fatal(err)
		}
		hasNoPath(t, hierarchy, fd, id, syscall.ESTALE, os.ErrNotExist)
		// Its own name is no reason to take it for another.
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		hasNoPath(t, hierarchy, fd, id, syscall.ESTALE, os.ErrNotExist)
		id, _, err = CgroupIDAt(AT_FDCWD, path, 0)
		if err != nil {
			t.Fatal(err)
		}
		hasPath(t, hierarchy, fd, id, below)

		// Longer than a page, for which the kernel has no name, and longer than a path may be.
		long, at := fmt.Sprintf("%0240d", os.Getpid()), root // others may run the tests, too
		for depth := range 18 {
			if err := syscall.Mkdirat(int(at.Fd()), long, 0o755); err != nil {
				t.Fatal(err)
			}
			dir := at
			t.Cleanup(func() { unlinkDirAt(t, dir, long) })
			if at, err = openIn(at, long, syscall.O_DIRECTORY); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func(at *os.File) func() { return func() { at.Close() } }(at))
			if id, _, err = CgroupIDOf(int(at.Fd())); err != nil {
				t.Fatal(err)
			}
			if path := strings.Repeat("/"+long, depth+1); len(path) < 4095 {
				hasPath(t, hierarchy, fd, id, path)
			} else {
				hasNoPath(t, hierarchy, fd, id, syscall.ENAMETOOLONG)
			}
		}
	})
}

func unlinkDirAt(t *testing.T, dir *os.File, name string) {
	t.Helper()
	p, _ := syscall.BytePtrFromString(name)
	const removeDir = 0x200
	for range 1000 {
		_, _, errno := syscall.Syscall(syscall.SYS_UNLINKAT, dir.Fd(), uintptr(unsafe.Pointer(p)), removeDir)
		if errno != syscall.EBUSY {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%s is busy", name)
}

// What a mount shows, and what is in the way.
func TestCgroupPathMounts(t *testing.T) {
	eachHierarchy(t, func(t *testing.T, hierarchy CgroupHierarchy, root *os.File) {
		fd := int(root.Fd())
		rootID, _, err := CgroupIDOf(fd)
		if err != nil {
			t.Fatal(err)
		}
		top := fmt.Sprintf("sysfd-test-mounts-%d", os.Getpid())
		_, topID := makeCgroup(t, root.Name(), top)
		inner, innerID := makeCgroup(t, root.Name(), top, "inner")
		_, belowID := makeCgroup(t, inner, "below")
		_, besideID := makeCgroup(t, root.Name(), top, "inner2")

		// A part of the hierarchy.
		part := filepath.Join(t.TempDir(), "part")
		if err := os.Mkdir(part, 0o700); err != nil {
			t.Fatal(err)
		}
		bind := func(source, target string) {
			t.Helper()
			if err := syscall.Mount(source, target, "", syscall.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { syscall.Unmount(target, syscall.MNT_DETACH) })
		}
		bind(inner, part)
		dir := openDir(t, part)
		hasPath(t, hierarchy, int(dir.Fd()), innerID, "/")
		hasPath(t, hierarchy, int(dir.Fd()), belowID, "/below")
		for _, id := range []CgroupID{rootID, topID, besideID} {
			hasNoPath(t, hierarchy, int(dir.Fd()), id, syscall.EREMOTE)
			f, err := hierarchy.OpenCgroup(int(dir.Fd()), id)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}

		// A mount that is nowhere any more.
		if err := syscall.Unmount(part, syscall.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		hasPath(t, hierarchy, int(dir.Fd()), innerID, "/")
		hasPath(t, hierarchy, int(dir.Fd()), belowID, "/below")
		hasNoPath(t, hierarchy, int(dir.Fd()), besideID, syscall.EREMOTE)

		// A cgroup that is covered.
		covered := func(want ...error) {
			t.Helper()
			for _, id := range []CgroupID{innerID, belowID} {
				if len(want) > 0 {
					hasNoPath(t, hierarchy, fd, id, want...)
					continue
				}
				hasPath(t, hierarchy, fd, id, map[CgroupID]string{innerID: "/" + top + "/inner", belowID: "/" + top + "/inner/below"}[id])
			}
			hasPath(t, hierarchy, fd, besideID, "/"+top+"/inner2")
		}
		covered()
		bind(filepath.Join(root.Name(), top, "inner2"), inner)
		covered(syscall.EREMOTE)
		if err := syscall.Unmount(inner, 0); err != nil {
			t.Fatal(err)
		}
		covered()
		bind(inner, inner) // with itself, where another mount begins
		covered(syscall.EREMOTE)
		if err := syscall.Unmount(inner, 0); err != nil {
			t.Fatal(err)
		}
		covered()

		// The mount is covered.
		if err := syscall.Mount("none", root.Name(), "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range []CgroupID{topID, innerID, belowID, besideID} {
			hasNoPath(t, hierarchy, fd, id, syscall.EREMOTE)
		}
		hasPath(t, hierarchy, fd, rootID, "/")
		if err := syscall.Unmount(root.Name(), 0); err != nil {
			t.Fatal(err)
		}
		covered()
	})
}

// A hierarchy is told, and nothing is opened in another one.
func TestCgroupHierarchies(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	roots := map[CgroupHierarchy]*os.File{Cgroup2: mountCgroups(t, "")}
	for _, name := range []CgroupHierarchy{"a", "b"} {
		name = CgroupHierarchy(fmt.Sprintf("name=sysfd-%d-%s", os.Getpid(), name))
		roots[name] = mountCgroups(t, "none,xattr,"+string(name))
	}
	for hierarchy, root := range roots {
		id, is, err := CgroupIDOf(int(root.Fd()))
		if err != nil || is != hierarchy {
			t.Fatalf("%v, %q, %v; want %q", id, is, err, hierarchy)
		}
		for other, its := range roots {
			if other == hierarchy {
				if f, err := hierarchy.OpenCgroup(int(root.Fd()), id); err != nil {
					t.Error(err)
				} else if again, _, err := CgroupIDOf(int(f.Fd())); err != nil || again != id {
					t.Errorf("%d, %v; want %d", again, err, id)
				} else {
					f.Close()
				}
				continue
			}
			_, err := hierarchy.OpenCgroup(int(its.Fd()), id)
			matches(t, err, syscall.EINVAL)
			_, err = hierarchy.CgroupPath(int(its.Fd()), id)
			matches(t, err, syscall.EINVAL)
		}
		if hierarchy != Cgroup2 {
			_, err := OpenCgroup(int(root.Fd()), id)
			matches(t, err, syscall.EINVAL)
			_, err = CgroupPath(int(root.Fd()), id)
			matches(t, err, syscall.EINVAL)
			matches(t, KillCgroup(int(root.Fd()), id, KillOwnCgroup), syscall.EINVAL)
			_, err = CgroupHierarchy("name=sysfd").OpenCgroup(int(root.Fd()), id)
			matches(t, err, syscall.EINVAL)
			_, err = (hierarchy + ",").OpenCgroup(int(root.Fd()), id)
			matches(t, err, syscall.EINVAL)
		}
	}
	// Nobody knows which one it is that is mounted nowhere.
	for hierarchy, root := range roots {
		if hierarchy != Cgroup2 {
			if err := syscall.Unmount(root.Name(), syscall.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			_, _, err := CgroupIDOf(int(root.Fd()))
			matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
			_, err = hierarchy.OpenCgroup(int(root.Fd()), 1)
			matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
			_, err = OpenCgroup(int(root.Fd()), 1)
			matches(t, err, syscall.EINVAL)
		}
	}
	// Those of this machine.
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range Mounts(0) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Type != "cgroup" && m.Type != "cgroup2" {
			continue
		}
		_, is, err := CgroupIDAt(AT_FDCWD, m.Point, 0)
		if err != nil || (is == Cgroup2) != (m.Type == "cgroup2") || !strings.Contains(string(text), ":"+string(is)+":") {
			t.Errorf("%s: %q, %v", m.Point, is, err)
		}
	}
}

func TestFindHierarchy(t *testing.T) {
	const mountinfo = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 31 0:30 /../.. /a\\040b rw - cgroup a\\040b rw,xattr,release_agent=/lib/a\\054net_cls,clone_children,name=systemd\n" +
		"34 31 0:31 / /c rw - cgroup cpu rw,seclabel,cpuset,noprefix,cpuset_v2_mode,net_prio,name=both\n" +
		"35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n" +
		"36 31 0:33 / /d rw - fuse.cgroup cpu rw,cpu,cpuacct\n" +
		"37 31 0:34 / /e rw - cgroup none rw,name=system\n" +
		"38 31 0:35 / /f rw - cgroup none\n" +
		"39 31 0:36 / /g rw - cgroup none rw,devices\n" +
		"40 31 0:37 / /h rw - cgroup none rw,cpuacct,,\n" +
		"41 31 0:38 / /i rw - cgroup none rw,cpu"
	const cgroups = "13:name=system:/\n12:cpuset,net_prio,name=both:/a:b\n11:memory:/\n4:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice:c\n0::/user.slice\n"
	for device, want := range map[string]CgroupHierarchy{
		"0:28": "", "0:29": "cpu,cpuacct", "0:30": "name=systemd", "0:31": "cpuset,net_prio,name=both", "0:32": "", "0:33": "", "0:34": "name=system",
		"0:35": "", "0:36": "", "0:37": "", "0:38": "", "0:2": "", "": "",
	} {
		if is, ok := findHierarchy(mountinfo, cgroups, device); is != want || ok != (want != "") {
			t.Errorf("%s: %q, %v; want %q", device, is, ok, want)
		}
	}
}

func FuzzFindHierarchy(f *testing.F) {
	f.Add("32 31 0:29 / /cpu rw - cgroup cgroup rw,cpu,cpuacct\n", "4:cpu,cpuacct:/\n0::/\n", "0:29")
	f.Add("32 31 0:29 / /cpu rw a - cgroup", "4:,:/\n:::", "0:29")
	f.Fuzz(func(t *testing.T, mountinfo, cgroups, device string) {
		is, ok := findHierarchy(mountinfo, cgroups, device)
		switch {
		case !ok && is != "", ok && is == "":
			t.Errorf("%q, %v", is, ok)
		case ok && !strings.Contains(cgroups, ":"+string(is)+":"), ok && !strings.Contains(mountinfo, " "+device+" "):
			t.Errorf("%q", is)
		}
	})
}

// The handles of Linux 4.14 to 5.4 have another type. The kernel still takes them; on big-endian
// machines it reads them in the opposite order.
func TestCgroupHandleOfOldKernels(t *testing.T) {
	h, err := NewFileHandle(FILEID_INO32_GEN, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	if err != nil {
		t.Fatal(err)
	}
	want := CgroupID(0x0807060504030201)
	if bigEndian {
		want = 0x0102030405060708
	}
	if id, ok := idInHandle(h); !ok || id != want {
		t.Errorf("%#x, %v; want %#x", uint64(id), ok, uint64(want))
	}
	if again := withID(h, want+1); again == h || again.Type() != h.Type() || withID(again, want) != h {
		t.Errorf("%v", again)
	}
	for _, wrong := range []FileHandle{{}, mustHandle(t, FILEID_INO32_GEN, 4), mustHandle(t, FILEID_INO32_GEN, 12), mustHandle(t, FILEID_KERNFS, 12), mustHandle(t, 0x81, 8)} {
		if id, ok := idInHandle(wrong); ok {
			t.Errorf("%v: %d", wrong, id)
		}
	}

	if bigEndian {
		return
	}
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	root := mountCgroups(t, "")
	path, id := makeCgroup(t, root.Name(), fmt.Sprintf("sysfd-test-old-%d", os.Getpid()))
	f, err := OpenByHandleAt(int(root.Fd()), withID(h, id), syscall.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if again, _, err := CgroupIDOf(int(f.Fd())); err != nil || again != id {
		t.Errorf("%s: %d, %v; want %d", path, again, err, id)
	}
}

func mustHandle(t *testing.T, typ int32, size int) FileHandle {
	t.Helper()
	h, err := NewFileHandle(typ, make([]byte, size))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A cgroup of version 1 is renamed all the time, and has one of its names. One that is made and
// removed has its path or is gone.
func TestCgroupPathChanges(t *testing.T) {
	eachHierarchy(t, func(t *testing.T, hierarchy CgroupHierarchy, root *os.File) {
		path, id := makeCgroup(t, root.Name(), fmt.Sprintf("sysfd-test-changes-%d", os.Getpid()))
		below := strings.TrimPrefix(path, root.Name())
		fd := int(root.Fd())
		for _, f := range []func(func()){func(f func()) { f() }, func(f func()) { withoutNames(t, f) }} {
			done := make(chan bool)
			var group waitGroup
			stop := sync.OnceFunc(func() { close(done); group.Wait() })
			defer stop() // f can skip the test
			group.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					if hierarchy == Cgroup2 {
						os.Mkdir(path+"/x", 0o755)
						syscall.Rmdir(path + "/x")
					} else {
						os.Rename(path, path+"+")
						os.Rename(path+"+", path)
					}
				}
			})
			f(func() {
				there, gone := 0, 0
				for range fewer(2000) {
					want := []string{below, below + "+"}
					asked := id
					if hierarchy == Cgroup2 {
						var err error
						if asked, _, err = CgroupIDAt(fd, "."+below+"/x", 0); err != nil {
							continue
						}
						want = []string{below + "/x"}
					}
					is, err := hierarchy.CgroupPath(fd, asked)
					switch {
					case err == nil && slices.Contains(want, is):
						there++
					case hierarchy == Cgroup2 && errors.Is(err, syscall.ESTALE):
						gone++
					default:
						t.Errorf("%q, %v", is, err)
					}
				}
				t.Logf("%d there, %d gone", there, gone)
			})
			stop()
		}
	})
}

func init() {
	children["cgroup-namespace"] = inCgroupNamespace
	children["cgroup-user-namespace"] = inUserNamespace
	children["cgroup-chroot"] = askInChroot
}

// answersOf asks for cgroups by ID, and returns a line for each: what became of opening it, and its path.
func answersOf(fd int, ids []string) string {
	var b strings.Builder
	for _, text := range ids {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return err.Error()
		}
		f, err := OpenCgroup(fd, CgroupID(id))
		if err == nil {
			f.Close()
		}
		path, errPath := CgroupPath(fd, CgroupID(id))
		fmt.Fprintln(&b, briefly(err), path, briefly(errPath))
	}
	return b.String()
}

// briefly returns what a caller can act on in an error.
func briefly(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case !errors.As(err, &errno):
		return err.Error()
	case errors.Is(err, os.ErrNotExist):
		return "gone"
	}
	return strconv.Itoa(int(errno))
}

// inCgroupNamespace enters the cgroup at args[0], makes that the root of a cgroup namespace, mounts
// cgroup2 there at args[2], and asks for the other args with that and with the mount at args[1].
func inCgroupNamespace(args []string) error {
	runtime.LockOSThread()
	if err := os.WriteFile(filepath.Join(args[0], "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	if err := syscall.Unshare(syscall.CLONE_NEWNS | unix.CLONE_NEWCGROUP); err != nil {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	outer, err := os.Open(args[1])
	if err != nil {
		return err
	}
	if err := syscall.Mount("none", args[2], "cgroup2", 0, ""); err != nil {
		return err
	}
	root, err := os.Open(args[2])
	if err != nil {
		return err
	}
	fmt.Print(answersOf(int(root.Fd()), args[3:]))
	fmt.Print(answersOf(int(outer.Fd()), args[3:]))
	return nil
}

// Root opens all cgroups of the machine. Those outside of the cgroup namespace have no path in it.
func TestCgroupNamespace(t *testing.T) {
	rights.MountedRoot(t)
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	reliesOn(t, namespaces)
	keepsDescriptors(t)
	root := mountCgroups(t, "")
	rootID, _, err := CgroupIDOf(int(root.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("sysfd-test-ns-%d", os.Getpid())
	path, id := makeCgroup(t, root.Name(), name)
	_, insideID := makeCgroup(t, path, "inside")
	_, besideID := makeCgroup(t, root.Name(), name+"2")
	out := output(t, child("cgroup-namespace", path, root.Name(), t.TempDir(), id.String(), insideID.String(), besideID.String(), rootID.String(), "123456789012"))
	remote := fmt.Sprint("ok  ", int(syscall.EREMOTE), "\n")
	const stale = "gone  gone\n"
	want := "ok / ok\nok /inside ok\n" + remote + remote + stale +
		// By the mount from outside of the namespace, as ever.
		"ok /" + name + " ok\nok /" + name + "/inside ok\nok /" + name + "2 ok\nok / ok\n" + stale
	if out != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}

// inUserNamespace asks for the cgroups in args[1:] with the directory args[0].
func inUserNamespace(args []string) error {
	dir, err := os.Open(args[0])
	if err != nil {
		return err
	}
	fmt.Print(answersOf(int(dir.Fd()), args[1:]))
	return nil
}

// In a user namespace what is delegated to it opens.
func TestCgroupUserNamespace(t *testing.T) {
	rights.UserNamespace(t)
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch, rights.SetUID, rights.SetGID, rights.Chown)
	reliesOn(t, namespaces)
	keepsDescriptors(t)
	root := mountCgroups(t, "")
	for dir := filepath.Dir(root.Name()); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) { // for the user to get there
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const user = 12345
	name := fmt.Sprintf("sysfd-test-user-%d", os.Getpid())
	path, id := makeCgroup(t, root.Name(), name)
	inside, insideID := makeCgroup(t, path, "inside")
	inner, belowID := makeCgroup(t, inside, "below")
	foreign, foreignID := makeCgroup(t, path, "foreign")
	behind, behindID := makeCgroup(t, foreign, "behind")
	beside, besideID := makeCgroup(t, root.Name(), name+"2")
	for _, p := range []string{path, inside, inner, behind, beside} {
		if err := os.Chown(p, user, user); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(dir string, flags uintptr, ids ...CgroupID) string {
		t.Helper()
		args := []string{dir}
		for _, id := range ids {
			args = append(args, id.String())
		}
		cmd := child("cgroup-user-namespace", args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  flags,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: user, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: user, Size: 1}},
			Credential:  &syscall.Credential{Uid: 0, Gid: 0},
		}
		cmd.Path = "/proc/self/exe" // the directory of this program is not for everyone
		if out, err := cmd.Output(); err == nil {
			return string(out)
		} else if _, ran := err.(*exec.ExitError); !ran {
			lacks(t, "user namespaces: "+err.Error())
		} else {
			t.Fatal(err)
		}
		return ""
	}
	opens := func(path string) string { return "ok " + path + " ok\n" }
	stale := fmt.Sprint(int(syscall.ESTALE), "  ", int(syscall.ESTALE), "\n")
	perm := fmt.Sprint(int(syscall.EPERM), "  ", int(syscall.EPERM), "\n")
	const separate = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
	all := []CgroupID{id, insideID, belowID, foreignID, behindID, besideID, 123456789012}
	below := "/" + name
	want := opens(below) + opens(below+"/inside") + opens(below+"/inside/below") + strings.Repeat(stale, 4)
	if olderThan(t, "6.11") {
		want = strings.Repeat(perm, len(all))
	}
	if out := ask(path, separate, all...); out != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
	// From a directory that another user owns, and without a mount namespace of one's own.
	want = strings.Repeat(stale, len(all))
	if olderThan(t, "6.11") {
		want = strings.Repeat(perm, len(all))
	}
	if out := ask(root.Name(), separate, all...); out != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
	if out := ask(path, syscall.CLONE_NEWUSER, all...); out != strings.Repeat(perm, len(all)) {
		t.Errorf("%s\nwant\n%s", out, perm)
	}
}

// askInChroot makes args[0] the root directory and asks for the other args with the directory at args[1].
func askInChroot(args []string) error {
	dir, err := os.Open(args[1])
	if err != nil {
		return err
	}
	if err := syscall.Chroot(args[0]); err != nil {
		return err
	}
	fmt.Print(answersOf(int(dir.Fd()), args[2:]))
	return nil
}

// The paths are the same in a chroot, which has no /proc and where the mount is not to be seen.
func TestCgroupChroot(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch, rights.SysChroot)
	reliesOn(t, withoutProc)
	keepsDescriptors(t)
	root := mountCgroups(t, "")
	name := fmt.Sprintf("sysfd-test-chroot-%d", os.Getpid())
	path, id := makeCgroup(t, root.Name(), name)
	_, insideID := makeCgroup(t, path, "inside")
	_, besideID := makeCgroup(t, root.Name(), name+"2")
	paths := "ok /" + name + " ok\nok /" + name + "/inside ok\nok /" + name + "2 ok\n"
	remote := fmt.Sprint("ok  ", int(syscall.EREMOTE), "\n")
	for dir, want := range map[string]string{
		t.TempDir():               paths,
		filepath.Dir(root.Name()): paths,
		root.Name():               paths,
		// Within the mount: there no path leads to what is above.
		path: remote + remote + "ok /" + name + "2 ok\n",
	} {
		out := output(t, child("cgroup-chroot", dir, root.Name(), id.String(), insideID.String(), besideID.String()))
		if out != want {
			t.Errorf("%s: %s\nwant\n%s", dir, out, want)
		}
	}
}

func init() {
	// It forks as fast as it can, and each of its children does.
	children["fork-bomb"] = func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		words := self(strconv.Itoa(n / 2))
		for range 2 {
			if n > 1 {
				os.StartProcess(words[0], words, &os.ProcAttr{})
			}
		}
		time.Sleep(time.Hour)
		return nil
	}
}

// All of a tree is killed, also what it forks meanwhile, and nothing else.
func TestKillCgroup(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	reliesOn(t, clones)
	keepsDescriptors(t)
	root := mountCgroups(t, "")
	dir := root.Name()
	make := func(parts ...string) (path string, id CgroupID) {
		path = filepath.Join(append([]string{dir}, parts...)...)
		if err := os.Mkdir(path, 0o700); err != nil {
			lacks(t, "a cgroup2 to make groups in: "+err.Error())
		}
		t.Cleanup(func() { removeCgroup(t, path) })
		id, _, err := CgroupIDAt(AT_FDCWD, path, 0)
		if err != nil {
			t.Fatal(err)
		}
		return path, id
	}
	name := fmt.Sprintf("sysfd-test-kill-%d", os.Getpid())
	path, id := make(name)
	inner, innerID := make(name, "inner")

	rootID, _, err := CgroupIDOf(int(root.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	kill := func(id CgroupID, options KillOption) error { return KillCgroup(int(root.Fd()), id, options) }
	matches(t, kill(rootID, 0), syscall.EBUSY)
	matches(t, kill(rootID, KillOwnCgroup), syscall.EINVAL)
	matches(t, kill(id, 6), syscall.EINVAL)
	matches(t, kill(1<<60, 0), syscall.ESTALE, os.ErrNotExist)

	// In a cgroup of its own, and in one above its own.
	enter := func(path string) {
		if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	enter(inner)
	errOwn, errAbove := kill(innerID, 0), kill(id, 0)
	enter(dir)
	matches(t, errOwn, syscall.EBUSY)
	matches(t, errAbove, syscall.EBUSY)

	if _, err := os.Stat(filepath.Join(path, "cgroup.kill")); err != nil {
		if olderThan(t, "5.14") {
			matches(t, kill(id, 0), errors.ErrUnsupported)
			return
		}
		t.Fatal(err)
	}
	group, err := os.Open(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	bystander := openPidFD(t, sleeper(t).Process.Pid)
	words := self(strconv.Itoa(fewer(200)))
	t.Setenv(childVar, "fork-bomb")
	p, err := StartProcess(words[0], words, &os.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for { // until it is in full swing
		text, err := os.ReadFile(filepath.Join(inner, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(text), "\n") > fewer(50) {
			break
		}
	}
	if err := kill(id, 0); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(t.Context(), 0); err != nil || r.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", r, err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "populated 0") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	isRunning(t, bystander, WaitExited)
}

// removeCgroup removes a cgroup once the kernel has buried what was in it.
func removeCgroup(t *testing.T, path string) {
	for range 1000 {
		if err := syscall.Rmdir(path); err != syscall.EBUSY {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%s is busy", path)
}
