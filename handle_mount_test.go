//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// runTool runs a program that a test needs.
func runTool(t *testing.T, words ...string) {
	t.Helper()
	path, err := exec.LookPath(words[0])
	if err != nil {
		lacks(t, words[0])
	}
	if out, err := exec.Command(path, words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", words, err, out)
	}
}

// mountAt mounts for the time of a test.
func mountAt(t *testing.T, source, target, fsType, options string) {
	t.Helper()
	if fsType != "tmpfs" {
		reliesOn(t, mounting)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil && slices.Contains(strings.Split(options, ","), "loop") {
		lacks(t, "loop devices")
	}
	if err := os.MkdirAll(target, 0o700); err != nil {
		t.Fatal(err)
	}
	runTool(t, "mount", "-t", fsType, "-o", options, source, target)
	t.Cleanup(func() { syscall.Unmount(target, syscall.MNT_DETACH) })
}

func unmount(t *testing.T, target string) {
	t.Helper()
	if err := syscall.Unmount(target, 0); err != nil {
		t.Fatal(err)
	}
}

func TestOpenMount(t *testing.T) {
	needs(t, FeatureFileHandle)
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	reliesOn(t, statmounting)
	keepsDescriptors(t)
	dir := filepath.Join(t.TempDir(), "a b\\c") // as mountinfo escapes it
	for _, flags := range []int{0, AT_HANDLE_MNT_ID_UNIQUE} {
		t.Run(fmt.Sprintf("flags %d", flags), func(t *testing.T) {
			if flags != 0 {
				needs(t, FeatureMountIDUnique)
			}
			mountAt(t, "none", dir, "tmpfs", "size=1m")
			name := filepath.Join(dir, "file")
			writeFile(t, name, "text")
			h, id, err := NameToHandleAt(AT_FDCWD, name, flags)
			if err != nil {
				t.Fatal(err)
			}
			m, err := OpenMount(id)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			f, err := OpenByHandleAt(int(m.Fd()), h, os.O_RDONLY)
			readsAs(t, f, err, "text")
			if m.Name() != dir {
				t.Errorf("name %q", m.Name())
			}
			m.Close()

			// Another mount on top of it.
			mountAt(t, "none", dir, "tmpfs", "size=1m")
			if m, err := OpenMount(id); err == nil {
				t.Errorf("opened %v", m)
			} else {
				matches(t, err, syscall.ESTALE, os.ErrNotExist)
			}
			unmount(t, dir)
			m, err = OpenMount(id)
			if err != nil {
				t.Fatal(err)
			}
			m.Close()
			unmount(t, dir)
			_, err = OpenMount(id)
			matches(t, err, syscall.ENOENT, os.ErrNotExist)
		})
	}
	_, err := OpenMount(1<<31 - 1)
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	// That a call does nothing is no news about a mount.
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_STATMOUNT: 0}) }, func() { _, err = OpenMount(1 << 40) })
	matches(t, err, errors.ErrUnsupported)
}

// What lies on top is not opened to find out that it is something else.
func TestOpenMountOfSpecialFile(t *testing.T) {
	needs(t, FeatureFileHandle)
	reliesOn(t, statmounting)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeatureMountIDUnique)
	keepsDescriptors(t)
	dir := t.TempDir()
	file, point := filepath.Join(dir, "file"), filepath.Join(dir, "point")
	writeFile(t, file, "text")
	writeFile(t, point, "")
	bind := func(source string) MountID {
		t.Helper()
		if err := syscall.Mount(source, point, "", syscall.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(point, syscall.MNT_DETACH) })
		_, id, err := NameToHandleAt(AT_FDCWD, point, AT_HANDLE_MNT_ID_UNIQUE|AT_HANDLE_FID)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	id := bind(file)
	f, err := OpenMount(id)
	readsAs(t, f, err, "text")
	_, err = OpenMount(bind(os.DevNull))
	matches(t, err, syscall.EINVAL)
	_, err = OpenMount(id)
	matches(t, err, syscall.ESTALE, os.ErrNotExist)
}

// Each way to ask for the ID comes to the same, and where all are forbidden that is said.
func TestMountIDOfRefused(t *testing.T) {
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	fd := int(fileOnTmpfs(t).Fd())
	// The reusable one is in fdinfo, and there is a unique one in handles since Linux 6.12.
	want, err := fdinfoMountID(fd)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := MountIDOf(AT_FDCWD, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, unique, errHandle := NameToHandleAt(fd, "", AT_EMPTY_PATH|AT_HANDLE_MNT_ID_UNIQUE)
	for _, calls := range [][]int{{}, {unix.SYS_STATX}, {unix.SYS_NAME_TO_HANDLE_AT}, {unix.SYS_STATX, unix.SYS_NAME_TO_HANDLE_AT}} {
		for _, errno := range []syscall.Errno{syscall.EOPNOTSUPP, syscall.EINVAL, syscall.ENOSYS, syscall.EPERM} {
			refused := map[int]syscall.Errno{}
			for _, call := range calls {
				refused[call] = errno
			}
			var id, idUnique MountID
			var err, errUnique, errFD, errDir error
			var idDir MountID
			underFilter(t, func() error { return refuse(refused) }, func() {
				id, err = MountIDOf(fd, 0)
				idUnique, errUnique = MountIDOf(fd, AT_HANDLE_MNT_ID_UNIQUE)
				_, errFD = MountIDOf(99999, 0)
				idDir, errDir = MountIDOf(AT_FDCWD, 0)
			})
			if err != nil || id != MountID(want) {
				t.Errorf("%v, %v: %v, %v; want %v", calls, errno, id, err, want)
			}
			if errDir != nil || idDir != dir {
				t.Errorf("%v, %v: %v, %v; want %v", calls, errno, idDir, errDir, dir)
			}
			switch statxHas := !olderThan(t, "6.8"); {
			case errHandle == nil && len(calls) < 2 || statxHas && !slices.Contains(calls, unix.SYS_STATX):
				if errUnique != nil || errHandle == nil && idUnique != unique || !idUnique.Unique() {
					t.Errorf("%v, %v: %v, %v; want %v", calls, errno, idUnique, errUnique, unique)
				}
			case len(calls) > 0 && errno == syscall.EPERM:
				matches(t, errUnique, errno, os.ErrPermission)
			default:
				matches(t, errUnique, syscall.EOPNOTSUPP, errors.ErrUnsupported)
			}
			if !slices.Contains(calls, unix.SYS_STATX) {
				matches(t, errFD, syscall.EBADF)
			} else if errFD == nil {
				t.Error("a descriptor that is not open is on a mount")
			}
		}
	}
}

// needsFileSystem skips a test where the kernel does not have the file system.
func needsFileSystem(t *testing.T, fsType string) {
	t.Helper()
	if known, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(known), "\t"+fsType+"\n") {
		t.Skipf("this kernel has no %s", fsType)
	}
}

// makeImage makes an image of a file system, where the kernel has it, with the file
// "old" in it. It returns the options to mount it with.
func makeImage(t *testing.T, fsType, image string) (options string) {
	t.Helper()
	needsFileSystem(t, fsType)
	tree := t.TempDir()
	writeFile(t, filepath.Join(tree, "old"), "text")
	var size int64
	options = "loop"
	var words []string
	switch fsType {
	case "ext4":
		size, words = 16<<20, []string{"mkfs.ext4", "-q", "-F", "-d", tree, image}
	case "xfs":
		size, words = 320<<20, []string{"mkfs.xfs", "-q", image}
	case "btrfs":
		size, words = 128<<20, []string{"mkfs.btrfs", "-q", "--rootdir", tree, image}
	case "squashfs":
		options, words = "loop,ro", []string{"mksquashfs", tree, image, "-quiet", "-no-progress", "-noappend"}
	case "erofs":
		options, words = "loop,ro", []string{"mkfs.erofs", "-U", "00112233-4455-6677-8899-aabbccddeeff", image, tree}
	}
	if size > 0 {
		writeFile(t, image, "")
		if err := os.Truncate(image, size); err != nil {
			t.Fatal(err)
		}
	}
	runTool(t, words...)
	return options
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readsAs checks the content of a file that was opened, and closes it.
func readsAs(t *testing.T, f *os.File, err error, want string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != want {
		t.Errorf("%q, %v; want %q", text, err, want)
	}
}

// Each file system by its own tools: what its handles look like, and that what was
// stored of a file finds it again after it was moved and mounted elsewhere.
func TestFileSystems(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	for _, test := range []struct {
		fsType   string
		identity string // the kind of it
		since    string // the kernel version of the identity
	}{
		{"ext4", "uuid:", "6.9"},
		{"xfs", "uuid:", "6.9"},
		{"btrfs", "uuid:", "2.6.39"},
		{"squashfs", "", ""},
		{"erofs", "uuid:", "6.9"},
	} {
		t.Run(test.fsType, func(t *testing.T) {
			keepsDescriptors(t)
			dir := t.TempDir()
			image, first, second := filepath.Join(dir, "image"), filepath.Join(dir, "first"), filepath.Join(dir, "second")
			options := makeImage(t, test.fsType, image)
			readOnly := strings.HasSuffix(options, "ro")
			mountAt(t, image, first, test.fsType, options)
			old, moved := filepath.Join(first, "old"), filepath.Join(first, "sub", "new")
			if !readOnly {
				writeFile(t, old, "text")
			}
			h, _, err := NameToHandleAt(AT_FDCWD, old, 0)
			if err != nil {
				t.Fatal(err)
			}
			r, errRef := FileRefAt(AT_FDCWD, old, 0)
			t.Logf("handle of type %#x, %d bytes; file system %v, %v", h.Type(), h.Len(), r.FS, errRef)
			if errRef == nil && (r.Handle != h || test.identity == "") {
				t.Errorf("FileRef %v, handle %v", r, h)
			}
			if asGood := olderThan(t, test.since) || os.Getenv(emulatorVar) != ""; errRef != nil && (test.identity == "" || asGood) {
				matches(t, errRef, syscall.EOPNOTSUPP, errors.ErrUnsupported)
			} else if !asGood && (errRef != nil || !strings.HasPrefix(r.FS.String(), test.identity)) {
				t.Errorf("file system %v, %v", r.FS, errRef)
			}
			if !readOnly {
				if err := os.Mkdir(filepath.Dir(moved), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(old, moved); err != nil {
					t.Fatal(err)
				}
			}
			unmount(t, first)
			if errRef == nil {
				_, err := r.Open(os.O_RDONLY, 0)
				matches(t, err, syscall.ENODEV) // no news about the file
			}
			mountAt(t, image, second, test.fsType, options)
			again, err := ParseFileHandle(h.String())
			if err != nil {
				t.Fatal(err)
			}
			root, err := os.Open(second)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			f, err := OpenByHandleAt(int(root.Fd()), again, os.O_RDONLY)
			readsAs(t, f, err, "text")
			root.Close()
			if errRef == nil {
				stored, err := ParseFileRef(r.String())
				if err != nil {
					t.Fatal(err)
				}
				f, err := stored.Open(os.O_RDONLY, 0)
				readsAs(t, f, err, "text")
			}
			if errRef == nil && !readOnly {
				if err := os.RemoveAll(filepath.Join(second, "sub")); err != nil {
					t.Fatal(err)
				}
				_, err := r.Open(os.O_RDONLY, 0)
				matches(t, err, syscall.ESTALE)
				if errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "was deleted, or cannot be read") {
					t.Errorf("%v", err)
				}
			}
			unmount(t, second)
		})
	}
}

// Overlayfs has long handles, where it has any.
func TestOverlayHandle(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	needsFileSystem(t, "overlay")
	keepsDescriptors(t)
	dir := t.TempDir()
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(dir, "merged")
	mountAt(t, "none", target, "overlay", fmt.Sprintf("index=on,nfs_export=on,lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir))
	name := filepath.Join(target, "file")
	writeFile(t, name, "text")
	h, id, err := NameToHandleAt(AT_FDCWD, name, 0)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the file system below does not do for nfs_export")
	}
	if err != nil || h.Len() < 32 {
		t.Fatalf("%v, %v", h, err)
	}
	t.Logf("handle of type %#x, %d bytes", h.Type(), h.Len())
	_, err = fileSystemIDAt(t, target)
	matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
	m, err := OpenMount(id)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f, err := OpenByHandleAt(int(m.Fd()), h, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// allMounts returns what Mounts tells.
func allMounts(t *testing.T, namespace NamespaceID) (all []Mount) {
	t.Helper()
	for m, err := range Mounts(namespace) {
		if err != nil {
			t.Error(err)
			return nil
		}
		all = append(all, m)
	}
	return all
}

// Both ways tell the same mounts, but for the kind of the IDs.
func TestMounts(t *testing.T) {
	rights.MountedRoot(t)
	reliesOn(t, mounting)
	rights.Need(t, rights.SysAdmin)
	reliesOn(t, namespaces)
	keepsDescriptors(t)
	dir := t.TempDir()
	strange := filepath.Join(dir, "a b\\040\t#c\nd")
	if err := os.Mkdir(strange, 0o700); err != nil {
		t.Fatal(err)
	}
	compare := func() {
		all := allMounts(t, 0)
		var byFile []Mount
		if err := eachMountinfo(func(m Mount, _ error) bool { byFile = append(byFile, m); return true }); err != nil {
			t.Error(err)
			return
		}
		unique := map[MountID]MountID{}
		for i := range all {
			m := &all[i]
			if m.ID != m.ReusableID {
				if !m.ID.Unique() || !m.Parent.Unique() || unique[m.ReusableID] != 0 {
					t.Errorf("%+v", m)
				}
				unique[m.ReusableID] = m.ID
			} else if !olderThan(t, "6.8") && surroundings().name == environments[""].name {
				t.Errorf("the unique ID is not known: %+v", m)
			}
		}
		for i := range all {
			m := &all[i]
			if parent := unique[m.ReusableParent]; parent != 0 && parent != m.Parent {
				t.Errorf("the parent of %+v is %v", m, parent)
			}
			m.ID, m.Parent = m.ReusableID, m.ReusableParent
		}
		byID := func(a, b Mount) int { return int(a.ReusableID) - int(b.ReusableID) }
		slices.SortFunc(all, byID)
		slices.SortFunc(byFile, byID)
		if !slices.Equal(all, byFile) {
			t.Errorf("%+v\n%+v", all, byFile)
		}
	}
	inPrivate := func(f func()) {
		onThrowawayThread(func() {
			if err := errors.Join(syscall.Unshare(syscall.CLONE_NEWNS), syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")); err != nil {
				t.Error(err)
				return
			}
			f()
		})
	}
	inPrivate(func() {
		compare()
		if err := errors.Join(
			syscall.Mount("so urce#\\1", strange, "tmpfs", 0, "size=1m"),
			os.Mkdir(filepath.Join(strange, "x y"), 0o700), os.Mkdir(filepath.Join(strange, "ro"), 0o700),
			syscall.Mount(filepath.Join(strange, "x y"), filepath.Join(strange, "ro"), "", syscall.MS_BIND, ""),
			syscall.Mount("", filepath.Join(strange, "ro"), "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""),
			syscall.Mount("", filepath.Join(strange, "x y"), "tmpfs", syscall.MS_RDONLY, ""),
		); err != nil {
			t.Error(err)
			return
		}
		compare()
		found := 0
		for _, m := range allMounts(t, 0) {
			switch m.Point {
			case strange:
				found++
				if m.Source != "so urce#\\1" || m.Type != "tmpfs" || m.ReadOnly || m.Root != "/" {
					t.Errorf("%+v", m)
				}
			case filepath.Join(strange, "ro"):
				found++
				if !m.ReadOnly || m.Root != "/x y" {
					t.Errorf("%+v", m)
				}
			case filepath.Join(strange, "x y"):
				found++
				if !m.ReadOnly {
					t.Errorf("%+v", m)
				}
			default:
				continue
			}
			var st syscall.Stat_t
			f, err := m.Open()
			if err == nil {
				err = errors.Join(syscall.Fstat(int(f.Fd()), &st), f.Close())
			}
			if err != nil || DeviceID(st.Dev) != m.Device {
				t.Errorf("%+v: %v, %v", m, DeviceID(st.Dev), err)
			}
			// By the number that stat(2) tells. A mount that can be written to is preferred.
			f, err = OpenFileSystemOn(DeviceID(st.Dev))
			if err == nil {
				err = errors.Join(syscall.Fstat(int(f.Fd()), &st), f.Close())
			}
			if err != nil || DeviceID(st.Dev) != m.Device || !m.ReadOnly && f.Name() != m.Point {
				t.Errorf("%+v: %v, %v", m, f, err)
			}
		}
		if found != 3 {
			t.Errorf("%d of 3 mounts", found)
		}
		// One that has moved, and one that has gone.
		var mounts [2]Mount
		for _, m := range allMounts(t, 0) {
			if m.Point == filepath.Join(strange, "ro") {
				mounts[0] = m
			} else if m.Point == filepath.Join(strange, "x y") {
				mounts[1] = m
			}
		}
		if err := errors.Join(os.Mkdir(filepath.Join(strange, "moved"), 0o700), syscall.Mount(mounts[0].Point, filepath.Join(strange, "moved"), "", syscall.MS_MOVE, ""), syscall.Unmount(mounts[1].Point, 0)); err != nil {
			t.Error(err)
		}
		if f, err := mounts[0].Open(); err != nil || f.Name() != filepath.Join(strange, "moved") {
			t.Errorf("%v, %v", f, err)
		} else {
			f.Close()
		}
		_, err := mounts[1].Open()
		matches(t, err, syscall.ENOENT, os.ErrNotExist)
		_, err = OpenFileSystemOn(mounts[1].Device)
		matches(t, err, syscall.ENODEV)
	})
	// There are more than are asked for at once, and none is told that has gone.
	inPrivate(func() {
		for range 1100 {
			if err := syscall.Mount("none", strange, "tmpfs", 0, "size=4k"); err != nil {
				t.Error(err)
				return
			}
		}
		compare()
		n := 0
		for m, err := range Mounts(0) {
			if err != nil {
				t.Error(err)
			}
			if m.Point == strange {
				if n++; n == 1 {
					for range 1000 {
						syscall.Unmount(strange, 0)
					}
				}
			}
		}
		if n < 100 || n > 1024 {
			t.Errorf("%d of 1100 to 100 mounts", n)
		}
		n = 0
		for range Mounts(0) {
			n++
			break
		}
		if n != 1 {
			t.Error(n)
		}
	})
	// Mounts that go while they are asked about.
	inPrivate(func() {
		mounter := child("mover", strange)
		if err := mounter.Start(); err != nil {
			t.Error(err)
			return
		}
		defer reap(mounter)
		for n := 0; n < fewer(2000); n++ {
			for _, err := range Mounts(0) {
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	inChroot(t, strange, func() {
		compare()
		if err := syscall.Mount("none", "/proc", "tmpfs", 0, ""); err != nil {
			t.Error(err)
		}
		for m, err := range Mounts(0) {
			if olderThan(t, "6.8") {
				matches(t, err, errors.ErrUnsupported)
			} else if err != nil || m.Point != "/proc" {
				t.Errorf("%+v, %v", m, err)
			}
		}
	})
}

// What does not let the calls through gets them by mountinfo, also if they do nothing.
func TestMountsRefused(t *testing.T) {
	keepsDescriptors(t)
	points := func() (points []string) {
		for m, err := range Mounts(0) {
			if err != nil {
				t.Error(err)
			}
			points = append(points, m.Point)
		}
		slices.Sort(points)
		return points
	}
	want := points()
	for _, call := range []int{unix.SYS_LISTMOUNT, unix.SYS_STATMOUNT} {
		for _, errno := range []syscall.Errno{0, syscall.ENOSYS, syscall.EPERM} {
			var got []string
			var other error
			underFilter(t, func() error { return refuse(map[int]syscall.Errno{call: errno}) }, func() {
				got = points()
				for _, other = range Mounts(1 << 40) {
				}
			})
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			switch {
			case call != unix.SYS_LISTMOUNT || errno == 0:
			case errno == syscall.EPERM:
				matches(t, other, syscall.EPERM, os.ErrPermission)
			default:
				matches(t, other, errno, errors.ErrUnsupported)
			}
		}
	}
}

func init() {
	children["mounts"] = func(args []string) error {
		id, err := strconv.ParseUint(args[0], 10, 64)
		for m, errMount := range Mounts(NamespaceID(id)) {
			fmt.Println(m.Point, errMount)
			err = errors.Join(err, errMount)
		}
		if errors.Is(err, syscall.EREMOTE) {
			return nil
		}
		return err
	}
}

func TestMountsOfNamespace(t *testing.T) {
	rights.MountedRoot(t)
	rights.Need(t, rights.SysAdmin, rights.SetUID)
	reliesOn(t, namespaces, statmounting)
	keepsDescriptors(t)
	dir := t.TempDir()
	others := make(chan NamespaceID)
	done := make(chan bool)
	go onThrowawayThread(func() {
		defer func() { <-done }()
		if err := errors.Join(syscall.Unshare(syscall.CLONE_NEWNS), syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("here", dir, "tmpfs", 0, "")); err != nil {
			t.Error(err)
		}
		others <- mountNamespace(t)
	})
	other := <-others
	defer func() { done <- true }()
	if other == 0 {
		for _, err := range Mounts(1) {
			matches(t, err, errors.ErrUnsupported)
		}
		if !olderThan(t, "6.11") {
			t.Error("the namespace has no ID")
		}
		return
	}
	there := allMounts(t, other)
	if m := allMounts(t, 0)[0]; m.Point == "/" && m.Type == "rootfs" {
		t.Skipf("the kernel takes another mount for the root directory: %+v", there)
	}
	i := slices.IndexFunc(there, func(m Mount) bool { return strings.HasSuffix(m.Point, dir) })
	if i < 0 || there[i].Type != "tmpfs" || !there[i].ID.Unique() || there[i].Source != "here" && !olderThan(t, "6.13") {
		t.Fatalf("%+v", there)
	}
	_, err := OpenMount(there[i].ID)
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	_, err = there[i].Open()
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	for _, err := range Mounts(1 << 50) {
		matches(t, err, syscall.EREMOTE)
	}
	own := mountNamespace(t)
	if a, b := allMounts(t, own), allMounts(t, 0); len(a) < len(b) {
		t.Errorf("%+v\n%+v", a, b)
	}
	cmd := child("mounts", other.String())
	cmd.Path, cmd.Args[0] = "/proc/self/exe", "mounts"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out := output(t, cmd); !strings.Contains(out, "the caller may not inspect it") {
		t.Errorf("%q", out)
	}
}

// mountNamespace returns the ID of that of the calling thread, 0 where the kernel does not tell.
func mountNamespace(t *testing.T) NamespaceID {
	fd, err := openat(AT_FDCWD, "/proc/thread-self/ns/mnt", os.O_RDONLY)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer syscall.Close(fd)
	getID := uintptr(0x8008b705) // NS_GET_MNTNS_ID
	if strings.HasPrefix(runtime.GOARCH, "mips") || strings.HasPrefix(runtime.GOARCH, "ppc") {
		getID = 0x4008b705
	}
	var id uint64
	if errno := ioctl(fd, getID, unsafe.Pointer(&id)); errno != 0 && !lacksIoctl(errno) {
		t.Error(errno)
	}
	if h, _, err := NameToHandleAt(fd, "", AT_EMPTY_PATH); err == nil {
		if is, _, _, _ := h.Namespace(); is != NamespaceID(id) {
			t.Errorf("ID %d in the handle, %d by ioctl", is, id)
		}
	}
	return NamespaceID(id)
}

func TestMountIDOf(t *testing.T) {
	keepsDescriptors(t)
	for _, flags := range []int{2, AT_EMPTY_PATH, AT_HANDLE_FID, AT_HANDLE_MNT_ID_UNIQUE | 1<<20} {
		_, err := MountIDOf(0, flags)
		matches(t, err, syscall.EINVAL)
	}
	for _, fd := range []int{-1, 99999} {
		_, err := MountIDOf(fd, 0)
		matches(t, err, syscall.EBADF)
	}
	dir, err := openat(AT_FDCWD, ".", O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(dir)
	for _, flags := range []int{0, AT_HANDLE_MNT_ID_UNIQUE} {
		id, err := MountIDOf(dir, flags)
		is, errIs := MountIDOf(AT_FDCWD, flags)
		if flags != 0 && errors.Is(err, errors.ErrUnsupported) && errors.Is(errIs, errors.ErrUnsupported) && (olderThan(t, "6.8") || surroundings().name != environments[""].name) {
			continue
		}
		if err != nil || errIs != nil && surroundings().name == environments[""].name || errIs == nil && is != id || id.Unique() != (flags != 0) {
			t.Errorf("%v, %v; %v, %v", id, err, is, errIs)
		}
		doesNotAllocate(t, func() { MountIDOf(dir, flags) })
	}
}

func TestDeviceID(t *testing.T) {
	for d, want := range map[DeviceID]string{0: "0:0", 0x801: "8:1", 1<<20 | 0x12c&0xff: "0:300", 0xfe00: "254:0"} {
		if d.String() != want {
			t.Errorf("%#x: %v, want %v", uint64(d), d, want)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/dev", &st); err != nil {
		t.Fatal(err)
	}
	major, minor := unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))
	if got, want := DeviceID(st.Dev).String(), fmt.Sprint(major, ":", minor); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// What is in the place of mountinfo is not believed, and not waited for.
func TestMountinfoForged(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	reliesOn(t, mounting)
	if !again(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS} }) {
		return
	}
	privately(t)
	root, err := openat(AT_FDCWD, "/", O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(root)
	id, err := MountIDOf(root, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount("/proc", syscall.MNT_DETACH)
	if err := os.Mkdir("/proc/thread-self", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, forge := range []func(string) error{
		func(name string) error { return os.WriteFile(name, nil, 0o600) },
		func(name string) error { return syscall.Mkfifo(name, 0o600) },
	} {
		os.Remove(mountinfoName)
		if err := forge(mountinfoName); err != nil {
			t.Fatal(err)
		}
		_, err := OpenMount(id)
		matches(t, err, errors.ErrUnsupported)
		if errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: it is there", err)
		}
	}
}
