//go:build linux

package sysfd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

func TestFSID(t *testing.T) {
	for _, test := range []struct {
		f    FSID
		text string
	}{
		{FSID{}, "0000000000000000"},
		{FSID{1, 0}, "0000000000000001"},
		{FSID{-1, 0x2d9cbbe}, "02d9cbbeffffffff"},
		{FSID{0, -1 << 31}, "8000000000000000"},
	} {
		if got := test.f.String(); got != test.text {
			t.Errorf("%v: %q, want %q", [2]int32(test.f), got, test.text)
		}
		id, err := test.f.FileSystemID(unix.EXT4_SUPER_MAGIC)
		if test.f.IsZero() {
			matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
			continue
		}
		if want := "fsid:ef53:" + strings.TrimLeft(test.text, "0"); err != nil || id.String() != want {
			t.Errorf("%v: %v, %v; want %s", test.f, id, err, want)
		}
		if f, ok := id.FSID(); f != test.f || !ok {
			t.Errorf("%v: %v, %v", id, f, ok)
		}
		// What does not last does not become a name to store.
		for _, magic := range []uint32{0, unix.TMPFS_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC} {
			id, err := test.f.FileSystemID(magic)
			matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
			if !id.IsZero() {
				t.Errorf("0x%x: %v", magic, id)
			}
		}
	}
	for _, text := range []string{"", "uuid:00112233-4455-6677-8899-aabbccddeeff"} {
		id, err := ParseFileSystemID(text)
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := id.FSID(); ok || !f.IsZero() {
			t.Errorf("%q: %v", text, f)
		}
	}
}

func TestFSIDOf(t *testing.T) {
	keepsDescriptors(t)
	name := tempFile(t)
	open := func(name string, flags int) int {
		t.Helper()
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	fd := open(name, os.O_RDONLY)
	want, err := FSIDOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	for what, fd := range map[string]int{"O_PATH": open(name, O_PATH), "directory": open(filepath.Dir(name), os.O_RDONLY)} {
		if got, err := FSIDOf(fd); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil || FSID(st.Fsid.Val) != want {
		t.Errorf("%v, %v; want %v", st.Fsid, err, want)
	}
	if id, err := statfsID(fd, label{}); err == nil {
		again, err := want.FileSystemID(uint32(st.Type))
		if err != nil || again != id {
			t.Errorf("%v, %v; want %v", again, err, id)
		}
	}
	doesNotAllocate(t, func() { FSIDOf(fd) })
	for _, fd := range []int{-1, AT_FDCWD, 1 << 20} {
		_, err := FSIDOf(fd)
		matches(t, err, syscall.EBADF)
	}
}

// What the documentation says of some file systems.
func TestFSIDOfFileSystems(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	at := func(dir string) FSID {
		t.Helper()
		fd, err := openat(AT_FDCWD, dir, O_PATH)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		f, err := FSIDOf(fd)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	t.Run("btrfs", func(t *testing.T) {
		dir := t.TempDir()
		image, point := filepath.Join(dir, "image"), filepath.Join(dir, "point")
		mountAt(t, image, point, "btrfs", makeImage(t, "btrfs", image))
		root, sub := at(point), filepath.Join(point, "sub")
		runTool(t, "btrfs", "-q", "subvolume", "create", sub)
		if f := at(sub); f == root || f.IsZero() {
			t.Errorf("subvolume %v, root %v", f, root)
		}
	})
	t.Run("ext4, a copy", func(t *testing.T) {
		dir := t.TempDir()
		image, point := filepath.Join(dir, "image"), filepath.Join(dir, "point")
		options := makeImage(t, "ext4", image)
		runTool(t, "cp", image, image+"2")
		mountAt(t, image, point, "ext4", options)
		mountAt(t, image+"2", point+"2", "ext4", options)
		if a, b := at(point), at(point+"2"); a != b || a.IsZero() {
			t.Errorf("%v and %v", a, b)
		}
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := t.TempDir()
		mountAt(t, "none", dir+"/a", "tmpfs", "size=1m")
		mountAt(t, "none", dir+"/b", "tmpfs", "size=1m")
		if a, b := at(dir+"/a"), at(dir+"/b"); a == b || a.IsZero() || b.IsZero() {
			t.Skipf("%v and %v: before Linux 5.18", a, b)
		}
	})
}
