//go:build linux

package sysfd

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestCgroup(t *testing.T) {
	needsRoot(t)
	keepsDescriptors(t)
	dir := filepath.Join(t.TempDir(), "cgroup2")
	mountAt(t, "none", dir, "cgroup2", "rw")
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	group := fmt.Sprintf("sysfd-test-%d", os.Getpid())
	if err := os.Mkdir(filepath.Join(dir, group), 0o700); err != nil {
		lacks(t, "a cgroup2 to make groups in: "+err.Error())
	}
	defer os.Remove(filepath.Join(dir, group))
	id, err := CgroupIDAt(int(root.Fd()), group, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenCgroup(int(root.Fd()), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if again, err := CgroupIDOf(int(f.Fd())); err != nil || again != id {
		t.Errorf("%d, %v; want %d", again, err, id)
	}
	doesNotAllocate(t, func() { CgroupIDOf(int(root.Fd())) })
	f.Close()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, group), link); err != nil {
		t.Fatal(err)
	}
	if again, err := CgroupIDAt(AT_FDCWD, link, AT_SYMLINK_FOLLOW); err != nil || again != id {
		t.Errorf("%d, %v; want %d", again, err, id)
	}
	_, err = CgroupIDAt(AT_FDCWD, link, 0)
	matches(t, err, syscall.EINVAL)
	_, err = CgroupIDAt(int(root.Fd()), group, AT_HANDLE_FID)
	matches(t, err, syscall.EINVAL)
	_, err = CgroupIDAt(int(root.Fd()), "", 0)
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	file, err := CgroupIDAt(AT_FDCWD, filepath.Join(dir, group, "cgroup.procs"), 0)
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
		_, err := CgroupIDAt(AT_FDCWD, path, 0)
		matches(t, err, syscall.EINVAL)
	}
	p := openPidFD(t, os.Getpid())
	_, err = CgroupIDOf(p.fd)
	matches(t, err, syscall.EINVAL)
	_, err = OpenCgroup(p.fd, id)
	matches(t, err, syscall.EINVAL)
}
