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
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// mountsIn parses mountinfo.
func mountsIn(text string) (mounts []mount) {
	for line := range strings.Lines(text) {
		if m, ok := parseMount(strings.TrimSuffix(line, "\n")); ok {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

func TestMountsToAsk(t *testing.T) {
	for _, test := range []struct {
		name, text string
		root       uint64
		want       []string
		covered    []string // by what answers: asked in vain where not all paths are known
	}{
		{"all kinds", `1 0 8:1 / / ro - ext4 /dev/a rw
2 1 8:1 /part /home rw - ext4 /dev/a rw
3 1 0:40 / /net rw - nfs4 server:/ rw
4 3 8:2 / /net/disk rw - ext4 /dev/b rw
5 1 8:2 / /network rw - ext4 /dev/b rw
6 1 8:3 / /covered rw - ext4 /dev/c rw
7 6 0:41 / /covered rw shared:3 - fuse.sshfs there rw
8 1 8:2 /part /part ro - ext4 /dev/b rw
9 1 0:42 / /auto rw - autofs systemd-1 rw
10 9 8:4 / /auto rw - vfat /dev/d rw
11 1 0:43 / /stacked rw - overlay overlay rw,lowerdir=/net
12 1 0:44 / /new rw - newfs newfs rw
`, 1, []string{"5 /network", "10 /auto", "2 /home", "1 /", "8 /part"}, nil},
		{"below a network root", "1 0 0:1 / / rw - 9p host rw\n2 1 8:1 / /disk rw - ext4 /dev/a rw\n", 1, []string{"2 /disk"}, nil},
		{"on top of an overlay", "1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / /m rw - overlay o rw\n3 2 8:2 / /m rw - ext4 b rw\n4 3 8:3 / /m/n rw - ext4 c rw\n", 1, []string{"1 /", "3 /m", "4 /m/n"}, nil},
		{"in another order", "4 3 8:3 / /m/n rw - ext4 c rw\n3 2 8:2 / /m rw - ext4 b rw\n2 1 0:9 / /m rw - overlay o rw\n1 0 8:1 / / rw - ext4 a rw\n", 1, []string{"4 /m/n", "3 /m", "1 /"}, nil},
		{"below what is covered", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /m rw - ext4 b rw\n3 2 8:3 / /m/n rw - ext4 c rw\n4 2 0:9 / /m rw - tmpfs t rw\n", 1, []string{"1 /", "4 /m"}, []string{"2 /m", "3 /m/n"}},
		{"the same, and something silent on top", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /m rw - ext4 b rw\n3 2 8:3 / /m/n/o rw - ext4 c rw\n4 2 0:9 / /m rw - tmpfs t rw\n5 4 0:10 / /m/n rw - fuse f rw\n6 5 8:6 / /m/n/p rw - ext4 c rw\n7 4 0:11 / /m/a rw - autofs a rw\n8 2 8:6 / /m/a/b rw - ext4 c rw\n", 1, []string{"1 /", "4 /m"}, []string{"2 /m"}},
		{"the directory above is covered later", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /m/n rw - ext4 b rw\n3 1 0:9 / /m rw - nfs4 t rw\n", 1, []string{"1 /"}, nil},
		{"the same, by what answers", "1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / /m/n rw - nfs4 b rw\n3 1 8:3 / /m rw - ext4 t rw\n5 3 8:5 / /m/n/o rw - ext4 t rw\n", 1, []string{"1 /", "3 /m", "5 /m/n/o"}, nil},
		{"a name that begins alike", "1 0 8:1 / / rw - ext4 a rw\n2 1 0:9 / /m rw - fuse f rw\n3 1 8:3 / /mm rw - ext4 t rw\n", 1, []string{"1 /", "3 /mm"}, nil},
		{"root covered", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / / rw - ext4 b rw\n3 1 8:3 / /m rw - ext4 b rw\n4 2 8:4 / /m rw - ext4 b rw\n", 1, []string{"1 /", "3 /m"}, nil},
		{"root on top", "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / / rw - ext4 b rw\n3 1 8:3 / /m rw - ext4 b rw\n4 2 8:4 / /m rw - ext4 b rw\n", 2, []string{"2 /", "4 /m"}, nil},
		{"in a chroot", "2 1 8:2 / /m rw - ext4 b rw\n3 2 8:3 / /m/n rw - ext4 b rw\n", 1, []string{"2 /m", "3 /m/n"}, nil},
		{"in a circle", "1 1 8:1 / / rw - ext4 a rw\n2 2 8:2 / /m rw - ext4 b rw\n3 4 8:2 / /n rw - ext4 b rw\n4 3 8:2 / /n rw - ext4 b rw\n1 1 8:3 / /m rw - ext4 b rw\n", 1, []string{"1 /", "1 /m"}, nil},
	} {
		for _, resolve := range []uint64{0, unix.RESOLVE_NO_SYMLINKS} {
			tree := mountTree{all: mountsIn(test.text), resolve: resolve}
			tree.begin(test.root)
			var got []string
			for m := range tree.toAsk(func(m *mount) bool { return answers(m.fsType) }) {
				if name := fmt.Sprint(m.id, " ", m.point); resolve == 0 || !slices.Contains(test.covered, name) {
					got = append(got, name)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%s, %d: %q, want %q", test.name, resolve, got, test.want)
			}
		}
	}
}

func fileSystemIDAt(t *testing.T, path string) (FileSystemID, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return FileSystemIDOf(int(f.Fd()))
}

// Two file systems with one identity: it cannot be known which is meant.
func TestFileSystemTwice(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	options := makeImage(t, "ext4", image)
	runTool(t, "cp", "--sparse=always", image, image+"2")
	first, second, bound := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "bound")
	mountAt(t, image, first, "ext4", options)
	mountAt(t, image+"2", second, "ext4", options)
	// The same one at another place is no second one.
	mountAt(t, first, bound, "none", "bind")
	id, err := fileSystemIDAt(t, bound)
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenFileSystem(id)
	matches(t, err, syscall.ENOTUNIQ)
	unmount(t, second)
	f, err := OpenFileSystem(id)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// The best mount of several, and the one that is left where others are covered.
func TestOpenFileSystemPrefers(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	options := makeImage(t, "ext4", image)
	whole, part, readOnly := filepath.Join(dir, "whole"), filepath.Join(dir, "a-part"), filepath.Join(dir, "read-only")
	mountAt(t, image, whole, "ext4", options)
	if err := os.Mkdir(filepath.Join(whole, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	id, err := fileSystemIDAt(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	opensAt := func(want string) {
		t.Helper()
		f, err := OpenFileSystem(id)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Name() != want {
			t.Errorf("opened on %s, want %s", f.Name(), want)
		}
	}
	mountAt(t, filepath.Join(whole, "sub"), part, "none", "bind")
	mountAt(t, whole, readOnly, "none", "bind")
	runTool(t, "mount", "-o", "remount,bind,ro", readOnly)
	opensAt(whole)
	unmount(t, whole)
	opensAt(part)
	mountAt(t, "none", part, "tmpfs", "size=1m") // covers it
	opensAt(readOnly)
	unmount(t, part)
	unmount(t, readOnly)
	// A file is enough.
	file := filepath.Join(dir, "file")
	writeFile(t, filepath.Join(part, "name"), "text")
	writeFile(t, file, "")
	runTool(t, "mount", "--bind", filepath.Join(part, "name"), file)
	t.Cleanup(func() { syscall.Unmount(file, syscall.MNT_DETACH) })
	unmount(t, part)
	opensAt(file)
}

// Where the kernel tells of mounts otherwise, mountinfo is not read; where a filter forbids that, it is.
func TestOpenFileSystemSources(t *testing.T) {
	needs(t, FeatureFileSystemID)
	rights.Need(t, rights.SysAdmin)
	reliesOn(t, statmounting)
	keepsDescriptors(t)
	dir := t.TempDir()
	readOnly, whole := filepath.Join(dir, "a"), filepath.Join(dir, "whole")
	mountAt(t, "none", whole, "tmpfs", "size=1m")
	id, err := fileSystemIDAt(t, whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(readOnly, 0o700), syscall.Mount(whole, readOnly, "", syscall.MS_BIND, ""), syscall.Mount("", readOnly, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(readOnly, syscall.MNT_DETACH) })
	opens := func() error {
		f, err := OpenFileSystem(id)
		if err == nil {
			if f.Name() != whole {
				err = errors.New("opened on " + f.Name())
			}
			f.Close()
		}
		return err
	}
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{syscall.SYS_READ: syscall.EIO}) }, func() { err = opens() })
	if err != nil && !olderThan(t, "6.8") {
		t.Error(err)
	}
	for _, call := range []int{unix.SYS_LISTMOUNT, unix.SYS_STATMOUNT, unix.SYS_OPENAT2, unix.SYS_STATX} {
		for _, errno := range []syscall.Errno{0, syscall.ENOSYS, syscall.EPERM, syscall.EACCES} {
			if call == unix.SYS_OPENAT2 && errno == 0 || call == unix.SYS_STATX && (errno == 0 || errno == syscall.EACCES) {
				continue // 0 is a descriptor, and without statx or fstat nothing is known of a file
			}
			underFilter(t, func() error { return refuse(map[int]syscall.Errno{call: errno}) }, func() { err = opens() })
			if err != nil {
				t.Errorf("call %d, %v: %v", call, errno, err)
			}
		}
	}
}

// What lies over the path of a mount must not lead to a server that does not answer.
func TestOpenFileSystemSilent(t *testing.T) {
	needs(t, FeatureFileSystemID)
	reliesOn(t, mounting)
	keepsDescriptors(t)
	f, abort := silentFile(t)
	dir := t.TempDir()
	above, point := filepath.Join(dir, "a"), filepath.Join(dir, "a", "b", "c")
	mountAt(t, "none", point, "tmpfs", "size=1m")
	id, err := fileSystemIDAt(t, point)
	if err != nil {
		t.Fatal(err)
	}
	mountAt(t, "none", above, "tmpfs", "size=1m")
	timer := time.AfterFunc(20*time.Second, func() {
		t.Error("it waits")
		abort()
	})
	defer timer.Stop()
	for name, cover := range map[string]func() error{
		"link": func() error { return os.Symlink(f.Name(), filepath.Join(above, "b")) },
		"mount": func() error {
			return errors.Join(os.Mkdir(filepath.Join(above, "b"), 0o700), syscall.Mount(f.Name(), filepath.Join(above, "b"), "", syscall.MS_BIND, ""))
		},
	} {
		if err := cover(); err != nil {
			t.Fatal(name, err)
		}
		_, err := OpenFileSystem(id)
		matches(t, err, syscall.ENODEV)
		syscall.Unmount(filepath.Join(above, "b"), syscall.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err := os.Remove(filepath.Join(above, "b")); err != nil {
			t.Fatal(err)
		}
	}
}

// A copy that is mounted beside the original has another UUID for the moment.
func TestBtrfsTwice(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	reliesOn(t, newIoctls)
	keepsDescriptors(t)
	dir := t.TempDir()
	image, first, second := filepath.Join(dir, "image"), filepath.Join(dir, "first"), filepath.Join(dir, "second")
	options := makeImage(t, "btrfs", image)
	runTool(t, "cp", "--sparse=always", image, image+"2")
	mountAt(t, image, first, "btrfs", options)
	id, err := fileSystemIDAt(t, first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(second, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", options, image+"2", second).CombinedOutput(); err != nil {
		if olderThan(t, "6.7") {
			t.Skipf("both at once: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { syscall.Unmount(second, syscall.MNT_DETACH) })
	if other, err := fileSystemIDAt(t, second); err != nil || other != id {
		t.Errorf("the copy is %v, %v, the original %v", other, err, id)
	}
	_, err = OpenFileSystem(id)
	matches(t, err, syscall.ENOTUNIQ)
	unmount(t, first)
	f, err := OpenFileSystem(id)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// On btrfs f_fsid is another one in each subvolume.
func TestBtrfsSubvolume(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	reliesOn(t, newIoctls)
	keepsDescriptors(t)
	dir := t.TempDir()
	image, top, alone := filepath.Join(dir, "image"), filepath.Join(dir, "top"), filepath.Join(dir, "alone")
	options := makeImage(t, "btrfs", image)
	mountAt(t, image, top, "btrfs", options)
	runTool(t, "btrfs", "-q", "subvolume", "create", filepath.Join(top, "sub"))
	writeFile(t, filepath.Join(top, "sub", "file"), "text")
	outer, err := fileSystemIDAt(t, top)
	if err != nil {
		t.Fatal(err)
	}
	r, err := FileRefAt(AT_FDCWD, filepath.Join(top, "sub", "file"), 0)
	if err != nil || r.FS != outer || !strings.HasPrefix(outer.String(), "uuid:") {
		t.Errorf("%v, %v in the subvolume, %v outside", r.FS, err, outer)
	}
	f, err := r.Open(os.O_RDONLY, 0)
	readsAs(t, f, err, "text")
	// In a snapshot a directory without ioctls stands for the subvolume.
	runTool(t, "btrfs", "-q", "subvolume", "snapshot", top, filepath.Join(top, "snap"))
	stub, err := FileRefAt(AT_FDCWD, filepath.Join(top, "snap", "sub"), 0)
	if err != nil || stub.FS != outer {
		t.Errorf("%v, %v", stub, err)
	}
	outside, err := FileRefAt(AT_FDCWD, filepath.Join(top, "old"), 0)
	if err != nil {
		t.Fatal(err)
	}
	unmount(t, top)
	mountAt(t, image, alone, "btrfs", options+",subvol=sub")
	for _, r := range []FileRef{r, outside} {
		f, err := r.Open(os.O_RDONLY, 0)
		readsAs(t, f, err, "text")
	}
}

func TestFileSystemIDOf(t *testing.T) {
	needs(t, FeatureFileHandle)
	keepsDescriptors(t)
	// The number of a device is no identity, and a device has no file system.
	for path, want := range map[string][]error{
		"/proc":         {syscall.EOPNOTSUPP, errors.ErrUnsupported},
		"/proc/version": {syscall.EOPNOTSUPP, errors.ErrUnsupported},
		"/dev/null":     {syscall.EINVAL},
	} {
		id, err := fileSystemIDAt(t, path)
		if !id.IsZero() {
			t.Errorf("%s: %v", path, id)
		}
		matches(t, err, want...)
	}
	dir, err := openat(AT_FDCWD, "/", O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(dir)
	_, errRoot := fileSystemIDAt(t, "/")
	for _, fd := range []int{dir, -1, 99999} {
		if fd == dir && errors.Is(errRoot, errors.ErrUnsupported) {
			t.Log(errRoot) // an overlay is known by its type, without a descriptor that is open
			continue
		}
		if fd == dir && os.Getenv(emulatorVar) != "" {
			continue // it does not pass the ioctl on
		}
		_, err = FileSystemIDOf(fd)
		matches(t, err, syscall.EBADF)
	}
	if is64bit {
		_, err = FileSystemIDOf(dir + beyond32bits)
		matches(t, err, syscall.EBADF)
	}
}

// Where the UUID may not be asked for there may be one.
func TestFileSystemIDOfRefused(t *testing.T) {
	needs(t, FeatureFileHandle)
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	fd := int(fileOnTmpfs(t).Fd())
	for errno, want := range map[syscall.Errno][]error{
		syscall.EPERM:  {syscall.EPERM, os.ErrPermission},
		syscall.EACCES: {syscall.EACCES, os.ErrPermission},
		syscall.ENOTTY: {syscall.EOPNOTSUPP, errors.ErrUnsupported},
		syscall.EBADF:  {syscall.EBADF},
	} {
		var errFilter, err error
		onThrowawayThread(func() {
			errFilter = refuse(map[int]syscall.Errno{unix.SYS_IOCTL: errno})
			_, err = FileSystemIDOf(fd)
		})
		if errFilter != nil {
			lacks(t, "seccomp filters: "+errFilter.Error())
		}
		matches(t, err, want...)
	}
	// An error of the search is about the file.
	fd, err := openat(fd, "/proc/thread-self/fd/"+strconv.Itoa(fd), O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	var errFilter error
	onThrowawayThread(func() {
		errFilter = refuse(map[int]syscall.Errno{syscall.SYS_OPENAT: syscall.EMFILE})
		_, err = FileRefAt(fd, "", AT_EMPTY_PATH)
	})
	matches(t, err, syscall.EMFILE)
	if err != nil && !strings.Contains(err.Error(), "descriptor "+strconv.Itoa(fd)+":") {
		t.Errorf("%v does not name the file, %v", err, errFilter)
	}
}

// inChroot calls f on a thread that has a mount namespace of its own and dir as its root directory, with
// a /proc in it.
func inChroot(t *testing.T, dir string, f func()) {
	t.Helper()
	rights.MountedRoot(t)
	reliesOn(t, mounting)
	onThrowawayThread(func() {
		for _, step := range []func() error{ // without the first one the others would be for the whole process
			func() error { return syscall.Unshare(syscall.CLONE_NEWNS) },
			func() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") },
			func() error { return os.MkdirAll(filepath.Join(dir, "proc"), 0o755) },
			func() error {
				return syscall.Mount("/proc", filepath.Join(dir, "proc"), "", syscall.MS_BIND, "")
			},
			func() error { return syscall.Chroot(dir) },
			func() error { return syscall.Chdir("/") },
		} {
			if err := step(); err != nil {
				t.Error(err)
				return
			}
		}
		f()
	})
}

// identities are those that the tests expect of the file systems with images.
func identities(t *testing.T) (kinds map[string]string) {
	t.Helper()
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch, rights.SysChroot)
	reliesOn(t, mounting, newIoctls, namespaces)
	kinds = map[string]string{"ext4": "uuid:", "xfs": "uuid:", "btrfs": "uuid:"}
	if olderThan(t, FeatureFileSystemID.Since()) {
		kinds = map[string]string{"ext4": "fsid:", "btrfs": "uuid:"}
	}
	return kinds
}

// In a chroot whose root directory is no mount point, that is the only place of its file system.
func TestFileSystemInChroot(t *testing.T) {
	for fsType, kind := range identities(t) {
		t.Run(fsType, func(t *testing.T) {
			keepsDescriptors(t)
			dir := t.TempDir()
			image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
			mountAt(t, image, mounted, fsType, makeImage(t, fsType, image))
			id, err := fileSystemIDAt(t, mounted)
			if err != nil || !strings.HasPrefix(id.String(), kind) {
				t.Fatal(id, err)
			}
			root := filepath.Join(mounted, "root")
			for _, err := range []error{os.Mkdir(root, 0o755), os.Mkdir(filepath.Join(root, "sub"), 0o755), os.WriteFile(filepath.Join(root, "sub", "file"), []byte("text"), 0o644),
				syscall.Mkfifo(filepath.Join(root, "sub", "fifo"), 0o600), os.MkdirAll(filepath.Join(root, "bound"), 0o755)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			ways := func(t *testing.T) {
				for _, name := range []string{"/", "/sub", "/sub/file", "/sub/fifo"} {
					if r, err := FileRefAt(AT_FDCWD, name, 0); err != nil || r.FS != id {
						t.Errorf("%s: %v, %v; want %v", name, r, err, id)
					}
				}
				f, err := OpenFileSystem(id)
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
				r, err := FileRefAt(AT_FDCWD, "sub/file", 0)
				if err == nil {
					f, err = r.Open(os.O_RDONLY, 0)
				}
				if err != nil {
					t.Error(err)
					return
				}
				readsAs(t, f, err, "text")
			}
			special, err := openat(AT_FDCWD, filepath.Join(root, "sub", "fifo"), O_PATH)
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Close(special)
			inChroot(t, root, func() {
				ways(t)
				if r, err := FileRefAt(special, "", AT_EMPTY_PATH); err != nil || r.FS != id {
					t.Errorf("of a descriptor: %v, %v; want %v", r, err, id)
				}
				// There it is a second time, under another device number on btrfs.
				if err := syscall.Mount("/sub", "/bound", "", syscall.MS_BIND, ""); err != nil {
					t.Error(err)
				}
				ways(t)
				if fsType != "btrfs" {
					var st syscall.Stat_t
					_, err := OpenFileSystemOn(DeviceID(st.Dev))
					matches(t, err, syscall.ENODEV)
					if err := syscall.Stat("/", &st); err != nil {
						t.Error(err)
					}
					f, err := OpenFileSystemOn(DeviceID(st.Dev))
					if err != nil {
						t.Error(err)
					} else {
						f.Close()
					}
				}
				// By mountinfo alone.
				if err := refuse(map[int]syscall.Errno{unix.SYS_LISTMOUNT: syscall.ENOSYS}); err == nil {
					ways(t)
				}
				syscall.Unmount("/proc", 0)
				if r, err := FileRefAt(special, "", AT_EMPTY_PATH); err != nil || r.FS != id {
					t.Errorf("of a descriptor without /proc: %v, %v; want %v", r, err, id)
				}
				for _, name := range []string{"/sub", "/sub/file"} {
					if r, err := FileRefAt(AT_FDCWD, name, 0); err != nil || r.FS != id {
						t.Errorf("%s without /proc: %v, %v; want %v", name, r, err, id)
					}
				}
			})
		})
	}
}

// On top of a file system that is not asked.
func TestFileSystemOnOverlay(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	needsFileSystem(t, "overlay")
	keepsDescriptors(t)
	dir := t.TempDir()
	image, place := filepath.Join(dir, "image"), filepath.Join(dir, "place")
	options := makeImage(t, "ext4", image)
	mountAt(t, "none", place, "overlay", "lowerdir="+t.TempDir()+":"+t.TempDir())
	mountAt(t, image, place, "ext4", options)
	r, err := FileRefAt(AT_FDCWD, filepath.Join(place, "old"), 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Open(os.O_RDONLY, 0)
	readsAs(t, f, err, "text")
	m, err := OpenFileSystem(r.FS)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name() != place {
		t.Error(m.Name())
	}
	m.Close()
}

func init() {
	// refs prints the FileRefs of files and what OpenFileSystem says to them.
	children["refs"] = func(names []string) error {
		for _, name := range names {
			r, err := FileRefAt(AT_FDCWD, name, 0)
			if err != nil {
				fmt.Println(err, errors.Is(err, syscall.EACCES))
			} else {
				fmt.Println(r.FS)
			}
		}
		return nil
	}
}

// Who may not read the directories up to the mount gets the same identity for all that is below,
// as long as there is one thing that may be read.
func TestFileRefAtUnprivileged(t *testing.T) {
	for fsType := range identities(t) {
		t.Run(fsType, func(t *testing.T) {
			keepsDescriptors(t)
			// The directory of a test is for root alone.
			dir, err := os.MkdirTemp("/tmp", "sysfd")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
			mountAt(t, image, mounted, fsType, makeImage(t, fsType, image))
			id, err := fileSystemIDAt(t, mounted)
			if err != nil {
				t.Fatal(err)
			}
			at := func(name string) string { return filepath.Join(mounted, name) }
			for _, err := range []error{os.Chmod(mounted, 0o711), os.Mkdir(at("homes"), 0o755), os.Mkdir(at("homes/a"), 0o711), os.Mkdir(at("homes/a/b"), 0o711), os.Mkdir(at("alone"), 0o711)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			for name, mode := range map[string]os.FileMode{"homes/a/read": 0o644, "homes/a/private": 0o600, "alone/read": 0o644, "alone/private": 0o600} {
				if err := errors.Join(os.WriteFile(at(name), nil, 0o600), os.Chmod(at(name), mode)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Chmod(dir, 0o755), syscall.Mkfifo(at("homes/a/fifo"), 0o600), os.Symlink("private", at("homes/a/link"))); err != nil {
				t.Fatal(err)
			}
			refs := func(names ...string) []string {
				t.Helper()
				for i := range names {
					names[i] = at(names[i])
				}
				cmd := child("refs", names...)
				cmd.Path, cmd.Args[0] = "/proc/self/exe", "refs" // it may be in a directory of root's
				if os.Getenv(emulatorVar) == "" {
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
				}
				return strings.Split(strings.TrimSpace(output(t, cmd)), "\n")
			}
			all := []string{"homes", "homes/a", "homes/a/b", "homes/a/read", "homes/a/private", "homes/a/fifo", "homes/a/link", "alone/read"}
			for i, is := range refs(slices.Clone(all)...) {
				if is != id.String() {
					t.Errorf("%s: %s; want %v", all[i], is, id)
				}
			}
			// Nothing may be read here.
			want := id.String()
			if fsType == "ext4" {
				want = id.secondBest().String()
				if id.n == 0 {
					want = id.String()
				}
			}
			for _, is := range refs("alone", "alone/private") {
				if fsType == "ext4" && is != want || fsType != "ext4" && !strings.HasSuffix(is, " true") {
					t.Errorf("%s", is)
				}
			}
			// But in another place.
			mountAt(t, at("homes"), filepath.Join(dir, "elsewhere"), "none", "bind")
			if fsType == "btrfs" {
				return // its device numbers are those of subvolumes
			}
			for _, is := range refs("alone", "alone/private") {
				if is != id.String() {
					t.Errorf("%s; want %v", is, id)
				}
			}
		})
	}
}

// An identity of a newer kernel on an older one, and the reverse.
func TestOpenFileSystemBySecondBest(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	reliesOn(t, newIoctls)
	keepsDescriptors(t)
	dir := t.TempDir()
	image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	options := makeImage(t, "ext4", image)
	// Another one with the same f_fsid.
	id, err := ParseFileSystemID("uuid:00112233-4455-6677-8899-aabbccddeeff")
	if err != nil {
		t.Fatal(err)
	}
	other := id
	other.uuid[0], other.uuid[8] = other.uuid[0]^1, other.uuid[8]^1
	if id.secondBest() != other.secondBest() {
		t.Fatal("the f_fsid are not the same")
	}
	runTool(t, "tune2fs", "-U", id.String()[len("uuid:"):], image)
	mountAt(t, image, mounted, "ext4", options)
	opens := func(id FileSystemID) error {
		f, err := OpenFileSystem(id)
		if err == nil {
			if f.Name() != mounted {
				err = errors.New(f.Name())
			}
			f.Close()
		}
		return err
	}
	if err := opens(id.secondBest()); err != nil {
		t.Error(err)
	}
	if err := opens(id); err != nil {
		t.Error(err)
	}
	// This is another UUID, which only a kernel that tells no UUID cannot see.
	if err := opens(other); !olderThan(t, FeatureFileSystemID.Since()) {
		matches(t, err, syscall.ENODEV)
	}
	for _, errno := range []syscall.Errno{syscall.ENOTTY, syscall.EPERM} {
		var err, errOther error
		underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_IOCTL: errno}) }, func() {
			err, errOther = opens(id), opens(other)
		})
		if err != nil || errOther != nil {
			t.Errorf("%v: %v, %v", errno, err, errOther)
		}
	}
	id.uuid[3]++
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_IOCTL: syscall.ENOTTY}) }, func() { err = opens(id) })
	matches(t, err, syscall.ENODEV)
}

// EXT4_IOC_SETFSUUID changes f_fsid at once and the UUID that the kernel tells at the next mount.
func TestExt4SetUUID(t *testing.T) {
	needs(t, FeatureFileSystemID)
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	reliesOn(t, newIoctls)
	keepsDescriptors(t)
	dir := t.TempDir()
	image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	options := makeImage(t, "ext4", image)
	runTool(t, "tune2fs", "-O", "metadata_csum_seed", image)
	mountAt(t, image, mounted, "ext4", options)
	f, err := os.Open(mounted)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, err := FileSystemIDOf(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	const setUUID = 0x4008662c // EXT4_IOC_SETFSUUID; the same number on 386
	arg := struct {
		length, flags uint32
		uuid          [16]byte
	}{length: 16, uuid: [16]byte{0: 1, 15: 2}}
	if errno := ioctl(int(f.Fd()), setUUID, unsafe.Pointer(&arg)); errno != 0 {
		t.Fatal(errno)
	}
	now := FileSystemID{uuid: arg.uuid, n: 16}
	after, err := FileSystemIDOf(int(f.Fd()))
	second, errSecond := statfsID(int(f.Fd()), label{})
	t.Logf("%v, then %v and %v", before, after, second)
	if err != nil || errSecond != nil || after != before || second != now.secondBest() {
		t.Errorf("before %v, after %v %v, %v %v; set %v", before, after, err, second, errSecond, now)
	}
	f.Close()
	unmount(t, mounted)
	mountAt(t, image, mounted, "ext4", options)
	if is, err := fileSystemIDAt(t, mounted); err != nil || is != now {
		t.Errorf("%v, %v; want %v", is, err, now)
	}
}

// A mount that is moved all the time is found, and that it is not there is not said; nor if a directory above
// it is renamed all the time, although the kernel does not tell of that.
func TestMountsMoving(t *testing.T) {
	rights.MountedRoot(t)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeatureFileSystemID)
	reliesOn(t, namespaces, statmounting)
	for _, how := range []string{"move", "rename"} {
		t.Run(how, func(t *testing.T) {
			keepsDescriptors(t)
			dir := t.TempDir()
			a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
			point := a
			if how == "rename" {
				point = filepath.Join(a, "point")
			} else if err := os.Mkdir(b, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(point, 0o700); err != nil {
				t.Fatal(err)
			}
			onThrowawayThread(func() {
				if err := errors.Join(syscall.Unshare(syscall.CLONE_NEWNS), syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("none", point, "tmpfs", 0, "")); err != nil {
					t.Error(err)
					return
				}
				id, errID := fileSystemIDAt(t, point)
				var st syscall.Stat_t
				if err := syscall.Stat(point, &st); err != nil {
					t.Error(err)
				}
				device := DeviceID(st.Dev)
				var ids []MountID
				for _, flags := range []int{0, AT_HANDLE_MNT_ID_UNIQUE} {
					mount, err := openat(AT_FDCWD, point, O_PATH)
					if err == nil {
						var id MountID
						id, err = MountIDOf(mount, flags)
						ids = append(ids, id)
						syscall.Close(mount)
					}
					if err := errors.Join(err, errID); err != nil {
						t.Error(err)
						return
					}
				}
				// Another process, for the namespace is this thread's.
				mover := child("mover", a, b, how)
				if err := mover.Start(); err != nil {
					t.Error(err)
					return
				}
				defer reap(mover)
				end := time.Now().Add(time.Duration(fewer(5)) * 300 * time.Millisecond)
				n, missed := 0, map[string]int{}
				for ; time.Now().Before(end); n++ {
					for name, open := range map[string]func() (*os.File, error){
						"reusable": func() (*os.File, error) { return OpenMount(ids[0]) },
						"unique":   func() (*os.File, error) { return OpenMount(ids[1]) },
						"id":       func() (*os.File, error) { return OpenFileSystem(id) },
						"device":   func() (*os.File, error) { return OpenFileSystemOn(device) },
					} {
						f, err := open()
						switch {
						case err == nil:
							if is, err := FileSystemIDOf(int(f.Fd())); err != nil || is != id {
								t.Errorf("%s: %v, %v", name, is, err)
							}
							f.Close()
						case errors.Is(err, os.ErrNotExist), how == "move" && !errors.Is(err, syscall.EAGAIN):
							t.Errorf("%s: %v", name, err)
						default:
							missed[name]++
						}
					}
				}
				t.Logf("%d rounds, not found: %v", n, missed)
			})
			os.RemoveAll(b) // it may be either by now
		})
	}
}

func init() {
	children["mover"] = func(args []string) error {
		for {
			for range 1000 {
				var err error
				switch {
				case len(args) == 1:
					err = errors.Join(syscall.Mount("none", args[0], "tmpfs", 0, ""), syscall.Unmount(args[0], syscall.MNT_DETACH))
				case args[2] == "move":
					err = syscall.Mount(args[0], args[1], "", syscall.MS_MOVE, "")
				default:
					err = os.Rename(args[0], args[1])
				}
				if err != nil {
					return err
				}
				if len(args) > 1 {
					args[0], args[1] = args[1], args[0]
				}
			}
			if os.Getppid() == 1 {
				return nil
			}
		}
	}
}

// manyMounts has the calling thread in a mount namespace of its own with as many mounts more, as a node of a
// cluster has them: one third in memory each, one third stacked, which are not asked, one third parts of
// others.
func manyMounts(tb testing.TB, n int) {
	tb.Helper()
	rights.MountedRoot(tb)
	mount := func(source, target, fsType string, flags uintptr, options string) {
		if err := syscall.Mount(source, target, fsType, flags, options); err != nil {
			tb.Fatal(fsType, err)
		}
	}
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		tb.Fatal(err)
	}
	mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	top := "/tmp/kubelet"
	if err := os.MkdirAll(top, 0o700); err != nil {
		tb.Fatal(err)
	}
	mount("none", top, "tmpfs", 0, "")
	if err := errors.Join(os.Mkdir(top+"/a", 0o700), os.Mkdir(top+"/b", 0o700)); err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		target := fmt.Sprintf("%s/var/lib/kubelet/pods/%08d-5d5c-4c2a-9c3e-0123456789ab/volumes/kubernetes.io~projected/kube-api-access-%05d/and/somewhat/longer/than/that", top, i, i)
		if err := os.MkdirAll(target, 0o700); err != nil {
			tb.Fatal(err)
		}
		switch {
		case i%3 == 0:
			mount("overlay", target, "overlay", 0, "lowerdir="+top+"/a:"+top+"/b")
		case i%3 == 1:
			mount(filepath.Dir(target), target, "none", syscall.MS_BIND, "")
		default:
			mount("tmpfs", target, "tmpfs", 0, "size=64k")
		}
	}
}

// What a search costs grows with the mounts, and no faster.
func TestOpenFileSystemGrowth(t *testing.T) {
	rights.MountedRoot(t)
	needs(t, FeatureFileSystemID)
	rights.Need(t, rights.SysAdmin)
	reliesOn(t, mounting)
	needsFileSystem(t, "overlay")
	keepsDescriptors(t)
	id, err := ParseFileSystemID("uuid:00112233-4455-6677-8899-aabbccddeeff")
	if err != nil {
		t.Fatal(err)
	}
	var bytes []uint64
	for _, n := range []int{200, 800} {
		onThrowawayThread(func() {
			manyMounts(t, n)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := OpenFileSystem(id)
			runtime.ReadMemStats(&after)
			matches(t, err, syscall.ENODEV)
			bytes = append(bytes, after.TotalAlloc-before.TotalAlloc)
		})
	}
	t.Logf("%d bytes for 200 and 800 mounts", bytes)
	if len(bytes) == 2 && bytes[1] > 6*bytes[0] {
		t.Errorf("%d bytes for four times the mounts of %d", bytes[1], bytes[0])
	}
}

// Of a disk, and of what is in memory, on a machine with 2,000 other mounts.
func BenchmarkOpenFileSystemOnDisk(b *testing.B)  { benchmarkOpenFileSystem(b, "/proc/self/exe") }
func BenchmarkOpenFileSystemOnTmpfs(b *testing.B) { benchmarkOpenFileSystem(b, "/dev/shm") }

func benchmarkOpenFileSystem(b *testing.B, path string) {
	if os.Geteuid() != 0 {
		b.Skip("it takes root")
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	id, err := FileSystemIDOf(int(f.Fd()))
	f.Close()
	if err != nil {
		b.Fatal(err)
	}
	onThrowawayThread(func() { // the mount namespace is its own
		manyMounts(b, 2000)
		b.ReportAllocs()
		for b.Loop() {
			f, err := OpenFileSystem(id)
			if err != nil {
				b.Fatal(err)
			}
			f.Close()
		}
	})
}
