//go:build linux

package sysfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestFileHandleEncodings(t *testing.T) {
	for _, test := range []struct {
		typ    int32
		data   []byte
		text   string
		binary string
	}{
		{0, nil, "0:", "\x00\x00\x00\x00"},
		{FILEID_KERNFS, []byte{0x19, 0, 0, 0, 0, 0, 0, 0xff}, "fe:19000000000000ff", "\x00\x00\x00\xfe\x19\x00\x00\x00\x00\x00\x00\xff"},
		{0x10002, []byte{0xab}, "10002:ab", "\x00\x01\x00\x02\xab"},
		{-1, make([]byte, MAX_HANDLE_SZ), "ffffffff:" + strings.Repeat("00", MAX_HANDLE_SZ), "\xff\xff\xff\xff" + strings.Repeat("\x00", MAX_HANDLE_SZ)},
	} {
		h, err := NewFileHandle(test.typ, test.data)
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err := ParseFileHandle(test.text); err != nil || parsed != h || h.String() != test.text {
			t.Errorf("%s: %v, %v", test.text, parsed, err)
		}
		if !slices.Equal(h.Bytes(), test.data) {
			t.Errorf("%v", h.Bytes())
		}
		binary, err := h.MarshalBinary()
		var back FileHandle
		if err != nil || string(binary) != test.binary || back.UnmarshalBinary(binary) != nil || back != h {
			t.Errorf("%q, %v, %v", binary, err, back)
		}
		// A map key and a value of JSON.
		text, err := json.Marshal(map[FileHandle]FileHandle{h: h})
		var decoded map[FileHandle]FileHandle
		if err != nil || json.Unmarshal(text, &decoded) != nil || decoded[h] != h {
			t.Errorf("%s, %v, %v", text, err, decoded)
		}
	}
	for _, text := range []string{"", ":", "fe", "fe:1", "fe:1g", "FE:19", "fe:AB", "0fe:19", "+fe:19", "fe: 19", "100000000:", "-1:", "fe:19:", "fe:" + strings.Repeat("00", MAX_HANDLE_SZ+1)} {
		h, err := ParseFileHandle(text)
		if !h.IsZero() {
			t.Errorf("%q: %v", text, h)
		}
		matches(t, err, syscall.EINVAL)
		if err != nil && !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("%v does not name %q", err, text)
		}
	}
	var h FileHandle
	for _, n := range []int{0, 3, 4 + MAX_HANDLE_SZ + 1} {
		matches(t, h.UnmarshalBinary(make([]byte, n)), syscall.EINVAL)
	}
}

func FuzzParseFileHandle(f *testing.F) {
	for _, s := range []string{"0:", "fe:1900000000000000", "10002:ab", "ffffffff:", "fe:1", "é:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseFileHandle(s)
		if err == nil && h.String() != s || err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%q: %v, %v", s, h, err)
		}
	})
}

func FuzzFileHandleBinary(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\xfe\x19\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h FileHandle
		if h.UnmarshalBinary(b) != nil {
			return
		}
		if again, err := h.AppendBinary(nil); err != nil || string(again) != string(b) {
			t.Errorf("%q: %q, %v", b, again, err)
		}
	})
}

func TestParseMountinfo(t *testing.T) {
	const text = `36 35 98:0 /mnt1 /mnt/with\040space\134 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue
40 36 0:35 / /proc rw - proc proc rw

41 36
x 36 0:35 / /bad rw - proc proc rw
42 36 0:36 / /short\04 rw
`
	want := []mount{{36, `/mnt/with space\`}, {40, "/proc"}, {42, `/short\04`}}
	if got := parseMountinfo(text); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add(`36 35 98:0 /mnt1 /mnt/with\040space rw master:1 - ext3 /dev/root rw`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMountinfo(text) {
			if m.id.Unique() || m.point == "" && !strings.Contains(text, "  ") {
				t.Errorf("%q: %+v", text, m)
			}
		}
	})
}

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
	needsRoot(t)
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator has no statmount")
	}
	keepsDescriptors(t)
	dir := filepath.Join(t.TempDir(), "a b\\c") // as mountinfo escapes it
	for _, flags := range []int{0, AT_HANDLE_MNT_ID_UNIQUE} {
		t.Run(fmt.Sprintf("flags %d", flags), func(t *testing.T) {
			if flags != 0 {
				needs(t, "AT_HANDLE_MNT_ID_UNIQUE", "6.12")
			}
			mountAt(t, "none", dir, "tmpfs", "size=1m")
			name := filepath.Join(dir, "file")
			if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
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
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if text, err := io.ReadAll(f); err != nil || string(text) != "text" {
				t.Errorf("%q, %v", text, err)
			}
			if m.Name() != dir {
				t.Errorf("name %q", m.Name())
			}
			m.Close()
			f.Close()

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
}

// Each file system by its own tools: what its handles look like, and that what was
// stored of one finds the file again after it was moved and mounted elsewhere.
func TestFileSystems(t *testing.T) {
	needsRoot(t)
	for _, test := range []struct {
		fsType   string
		size     int64
		make     []string
		readOnly bool
	}{
		{"ext4", 16 << 20, []string{"mkfs.ext4", "-q", "-F", "IMAGE"}, false},
		{"xfs", 320 << 20, []string{"mkfs.xfs", "-q", "IMAGE"}, false},
		{"btrfs", 128 << 20, []string{"mkfs.btrfs", "-q", "IMAGE"}, false},
		{"squashfs", 0, []string{"mksquashfs", "TREE", "IMAGE", "-quiet", "-no-progress", "-noappend"}, true},
		{"erofs", 0, []string{"mkfs.erofs", "-U", "00112233-4455-6677-8899-aabbccddeeff", "IMAGE", "TREE"}, true},
	} {
		t.Run(test.fsType, func(t *testing.T) {
			keepsDescriptors(t)
			if known, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(known), "\t"+test.fsType+"\n") {
				t.Skipf("this kernel has no %s", test.fsType)
			}
			dir := t.TempDir()
			image, tree := filepath.Join(dir, "image"), filepath.Join(dir, "tree")
			if err := os.Mkdir(tree, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(tree, "old"), []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
			if test.size > 0 {
				if err := os.WriteFile(image, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(image, test.size); err != nil {
					t.Fatal(err)
				}
			}
			words := slices.Clone(test.make)
			for i, w := range words {
				words[i] = strings.NewReplacer("IMAGE", image, "TREE", tree).Replace(w)
			}
			runTool(t, words...)
			first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
			options := "loop"
			if test.readOnly {
				options += ",ro"
			}
			mountAt(t, image, first, test.fsType, options)
			old, moved := filepath.Join(first, "old"), filepath.Join(first, "sub", "new")
			if !test.readOnly {
				if err := os.WriteFile(old, []byte("text"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h, _, err := NameToHandleAt(AT_FDCWD, old, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("handle of type %#x, %d bytes", h.Type(), h.Len())
			stored := h.String()
			if !test.readOnly {
				if err := os.Mkdir(filepath.Dir(moved), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(old, moved); err != nil {
					t.Fatal(err)
				}
			}
			unmount(t, first)
			mountAt(t, image, second, test.fsType, options)
			again, err := ParseFileHandle(stored)
			if err != nil || again != h {
				t.Fatalf("%v, %v", again, err)
			}
			root, err := os.Open(second)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			f, err := OpenByHandleAt(int(root.Fd()), again, os.O_RDONLY)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if text, err := io.ReadAll(f); err != nil || string(text) != "text" {
				t.Errorf("%q, %v", text, err)
			}
			f.Close()
			root.Close()
			unmount(t, second)
		})
	}
}

// Overlayfs has long handles, where it has any.
func TestOverlayHandle(t *testing.T) {
	needsRoot(t)
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
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, id, err := NameToHandleAt(AT_FDCWD, name, 0)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the file system below does not do for nfs_export")
	}
	if err != nil || h.Len() < 32 {
		t.Fatalf("%v, %v", h, err)
	}
	t.Logf("handle of type %#x, %d bytes", h.Type(), h.Len())
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

func TestNamespaceHandle(t *testing.T) {
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
		t.Skip(err)
	}
	defer os.Remove(filepath.Join(dir, group))
	id, err := CgroupIDAt(int(root.Fd()), group)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenCgroup(int(root.Fd()), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if again, err := CgroupIDAt(int(f.Fd()), ""); err != nil || again != id {
		t.Errorf("%d, %v; want %d", again, err, id)
	}
	f.Close()
	file, err := CgroupIDAt(AT_FDCWD, filepath.Join(dir, group, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenCgroup(int(root.Fd()), file)
	matches(t, err, syscall.ENOTDIR)
	if err := os.Remove(filepath.Join(dir, group)); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []uint64{id, id ^ 1<<32} {
		_, err = OpenCgroup(int(root.Fd()), wrong)
		matches(t, err, syscall.ESTALE, os.ErrNotExist)
	}
	// Handles of the same shape, elsewhere.
	for _, path := range []string{"/sys/kernel", t.TempDir()} {
		_, err := CgroupIDAt(AT_FDCWD, path)
		matches(t, err, syscall.EINVAL)
	}
	p := openPidFD(t, os.Getpid())
	_, err = CgroupIDAt(p.fd, "")
	matches(t, err, syscall.EINVAL)
	_, err = OpenCgroup(p.fd, id)
	matches(t, err, syscall.EINVAL)
}
