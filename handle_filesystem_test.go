//go:build linux

package sysfd

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountsToAsk(t *testing.T) {
	mounts := parseMountinfo(`1 0 8:1 / / ro - ext4 /dev/a rw
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
`)
	points := func(mounts []mount) (points []string) {
		for _, m := range mountsToAsk(mounts) {
			points = append(points, m.point)
		}
		return points
	}
	if got, want := points(mounts), []string{"/network", "/auto", "/home", "/", "/part"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if mounts[0].point != "/" {
		t.Error("the caller's list has changed")
	}
	mounts = parseMountinfo("1 0 0:1 / / rw - 9p host rw\n2 1 8:1 / /disk rw - ext4 /dev/a rw\n")
	if got, want := points(mounts), []string{"/disk"}; !slices.Equal(got, want) {
		t.Errorf("below a network root: %q, want %q", got, want)
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
	needsRoot(t)
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
	needsRoot(t)
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

// A copy that is mounted beside the original has another UUID for the moment.
func TestBtrfsTwice(t *testing.T) {
	needsRoot(t)
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
	needsRoot(t)
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
	for _, fd := range []int{dir, -1, 99999} {
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
	var errFilter, err error
	onThrowawayThread(func() {
		errFilter = refuse(map[int]syscall.Errno{syscall.SYS_OPENAT: syscall.EMFILE})
		_, err = FileRefAt(fd, "", AT_EMPTY_PATH)
	})
	matches(t, err, syscall.EMFILE)
	if err != nil && !strings.Contains(err.Error(), "descriptor "+strconv.Itoa(fd)+":") {
		t.Errorf("%v does not name the file, %v", err, errFilter)
	}
}
