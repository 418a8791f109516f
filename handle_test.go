//go:build linux

package sysfd

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sysfd/sysfd/internal/rights"
)

func TestFileHandleValue(t *testing.T) {
	var zero FileHandle
	if !zero.IsZero() || zero.Len() != 0 || zero.Type() != 0 || zero.AppendBytes(nil) != nil || zero.String() != "" {
		t.Errorf("the zero handle is %v", zero)
	}
	data := []byte{0x19, 0, 0, 0, 0, 0, 0, 0xff}
	h, err := NewFileHandle(FILEID_KERNFS, data)
	if err != nil {
		t.Fatal(err)
	}
	data[0] = 0 // it has a copy
	if h.String() != "fe:19000000000000ff" || h.Type() != FILEID_KERNFS || h.Len() != 8 || h.IsZero() {
		t.Errorf("got %v", h)
	}
	same, _ := NewFileHandle(FILEID_KERNFS, h.AppendBytes(nil))
	shorter, _ := NewFileHandle(FILEID_KERNFS, h.AppendBytes(nil)[:7])
	otherType, _ := NewFileHandle(1, h.AppendBytes(nil))
	seen := map[FileHandle]string{h: "h", shorter: "shorter", otherType: "otherType"}
	if same != h || seen[same] != "h" || len(seen) != 3 {
		t.Errorf("equality: %v", seen)
	}
	longest, err := NewFileHandle(-1, make([]byte, MAX_HANDLE_SZ))
	if err != nil || longest.String() != "ffffffff:"+strings.Repeat("00", MAX_HANDLE_SZ) {
		t.Errorf("%v, %v", longest, err)
	}
	_, err = NewFileHandle(1, make([]byte, MAX_HANDLE_SZ+1))
	matches(t, err, syscall.EINVAL)
}

func TestNameToHandleAt(t *testing.T) {
	rights.Handles(t, os.TempDir())
	needs(t, FeatureFileHandle)
	keepsDescriptors(t)
	name := tempFile(t)
	dir := filepath.Dir(name)
	handle := func(dirfd int, path string, flags int) FileHandle {
		t.Helper()
		h, mount, err := NameToHandleAt(dirfd, path, flags)
		if err != nil || h.IsZero() || mount.Unique() {
			t.Fatalf("%v on mount %v, %v", h, mount, err)
		}
		return h
	}
	h := handle(AT_FDCWD, name, 0)

	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dirfd := int(f.Fd())
	if got := handle(dirfd, "file", 0); got != h {
		t.Errorf("relative: %v, want %v", got, h)
	}
	if got, want := handle(dirfd, "", AT_EMPTY_PATH), handle(AT_FDCWD, dir, 0); got != want {
		t.Errorf("AT_EMPTY_PATH: %v, want %v", got, want)
	}
	long := strings.Repeat("./", 1000) + "file"
	if got := handle(dirfd, long, 0); got != h {
		t.Errorf("long path: %v, want %v", got, h)
	}
	for _, n := range []int{1022, 1023, 1024} { // where the buffer on the stack ends
		path := dir + strings.Repeat("/", n-len(dir)-len("file")) + "file"
		if got := handle(AT_FDCWD, path, 0); len(path) != n || got != h {
			t.Errorf("path of %d bytes: %v, want %v", n, got, h)
		}
	}

	link := filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if handle(AT_FDCWD, link, 0) == h || handle(AT_FDCWD, link, AT_SYMLINK_FOLLOW) != h {
		t.Error("AT_SYMLINK_FOLLOW")
	}
	moved := filepath.Join(dir, "moved")
	if err := os.Rename(name, moved); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if handle(AT_FDCWD, moved, 0) != h || handle(AT_FDCWD, name, 0) == h {
		t.Error("a handle goes with the file, not with its name")
	}
}

func TestNameToHandleAtErrors(t *testing.T) {
	needs(t, FeatureFileHandle)
	keepsDescriptors(t)
	name := tempFile(t)
	for _, test := range []struct {
		dirfd int
		path  string
		flags int
		want  []error
		names string
	}{
		{AT_FDCWD, name + "x", 0, []error{syscall.ENOENT, os.ErrNotExist}, name + "x"},
		{AT_FDCWD, name + "\x00", 0, []error{syscall.EINVAL}, `file\x00`},
		{AT_FDCWD, name + "\x00", AT_HANDLE_FID, []error{syscall.EINVAL}, `file\x00`},
		{AT_FDCWD, "", 0, []error{syscall.ENOENT, os.ErrNotExist}, `of ""`},
		{AT_FDCWD, "\x00", AT_EMPTY_PATH, []error{syscall.EINVAL}, `"\x00"`},
		{AT_FDCWD, strings.Repeat("x", 5000), 0, []error{syscall.ENAMETOOLONG}, "xxx"},
		{AT_FDCWD, name, 1 << 30, []error{syscall.EINVAL}, name},
		{99999, "", AT_EMPTY_PATH, []error{syscall.EBADF}, "99999"},
		{AT_FDCWD, "/proc/self/status", 0, []error{syscall.EOPNOTSUPP, errors.ErrUnsupported}, "/proc/self/status"},
	} {
		h, mount, err := NameToHandleAt(test.dirfd, test.path, test.flags)
		if !h.IsZero() || mount != 0 {
			t.Errorf("%v, %v", h, mount)
		}
		matches(t, err, test.want...)
		var call *os.SyscallError
		if !errors.As(err, &call) || call.Syscall != "name_to_handle_at" {
			t.Errorf("%v has no *os.SyscallError", err)
		}
		if err != nil && !strings.Contains(err.Error(), test.names) {
			t.Errorf("%v does not name %q", err, test.names)
		}
	}
}

// handleToCompare returns a handle of a file that has no other.
func handleToCompare(t *testing.T, name string) FileHandle {
	t.Helper()
	needs(t, FeatureHandleFID)
	h, _, err := NameToHandleAt(AT_FDCWD, name, AT_HANDLE_FID)
	if errors.Is(err, syscall.EOPNOTSUPP) && olderThan(t, "6.18") {
		t.Skip(err) // 6.16 and the first releases of 6.17
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The kernel reads 32 bits of a descriptor. A number that is equal to an open one
// but for what lies above these is not that one.
func TestHandleFlags(t *testing.T) {
	needs(t, FeatureFileHandle)
	keepsDescriptors(t)
	name := tempFile(t)
	t.Run("FID", func(t *testing.T) {
		needs(t, FeatureHandleFID)
		if h, _, err := NameToHandleAt(AT_FDCWD, name, AT_HANDLE_FID); err != nil || h.IsZero() {
			t.Errorf("%v, %v", h, err)
		}
		if h := handleToCompare(t, "/proc/self/status"); h.IsZero() {
			t.Error("no handle")
		}
	})
	t.Run("unique", func(t *testing.T) {
		needs(t, FeatureMountIDUnique)
		rights.Handles(t, name)
		h, id, err := NameToHandleAt(AT_FDCWD, name, AT_HANDLE_MNT_ID_UNIQUE)
		if err != nil || h.IsZero() || !id.Unique() {
			t.Errorf("%v, %v, %v", h, id, err)
		}
	})
	t.Run("connectable", func(t *testing.T) {
		_, _, err := NameToHandleAt(AT_FDCWD, "", AT_EMPTY_PATH|AT_HANDLE_CONNECTABLE)
		matches(t, err, syscall.EINVAL) // and not ErrUnsupported: no kernel will
		needs(t, FeatureHandleConnectable)
		h, _, err := NameToHandleAt(AT_FDCWD, name, AT_HANDLE_CONNECTABLE)
		if errors.Is(err, syscall.EOPNOTSUPP) { // tmpfs has none
			h, _, err = NameToHandleAt(AT_FDCWD, "/sys/fs/cgroup/cgroup.procs", AT_HANDLE_CONNECTABLE)
			if errors.Is(err, os.ErrNotExist) {
				lacks(t, "a $TMPDIR that is not on tmpfs, or cgroup2")
			}
		}
		if err != nil || h.Type()&FILEID_IS_CONNECTABLE == 0 {
			t.Errorf("%v, %v", h, err)
		}
	})
}

// What an older kernel answers to a flag that it does not know.
func TestNewHandleFlag(t *testing.T) {
	for _, test := range []struct {
		flags int
		want  bool
	}{
		{0, false},
		{AT_EMPTY_PATH | AT_SYMLINK_FOLLOW, false},
		{AT_HANDLE_FID, true},
		{AT_HANDLE_FID | AT_EMPTY_PATH, true},
		{AT_HANDLE_MNT_ID_UNIQUE | AT_SYMLINK_FOLLOW, true},
		{AT_HANDLE_CONNECTABLE, true},
		{AT_HANDLE_CONNECTABLE | AT_EMPTY_PATH, false},
		{AT_HANDLE_CONNECTABLE | AT_HANDLE_FID, false},
		{AT_HANDLE_FID | 1<<30, false},
		{1 << 30, false},
	} {
		if got := newHandleFlag(test.flags); got != test.want {
			t.Errorf("%#x: %v", test.flags, got)
		}
	}
}

// The kernel tells the mount ID of an open file in another way, too.
func TestMountID(t *testing.T) {
	rights.Handles(t, os.TempDir())
	needs(t, FeatureFileHandle)
	keepsDescriptors(t)
	f, err := os.Open(tempFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, got, err := NameToHandleAt(int(f.Fd()), "", AT_EMPTY_PATH)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			if want := strings.TrimSpace(value); strconv.FormatUint(uint64(got), 10) != want {
				t.Errorf("%v, want %v", got, want)
			}
			return
		}
	}
	t.Fatalf("no mnt_id in %q", text)
}

func TestOpenByHandleAt(t *testing.T) {
	needs(t, FeatureFileHandle)
	rights.Need(t, rights.DACReadSearch) // CAP_DAC_READ_SEARCH
	keepsDescriptors(t)
	name := tempFile(t)
	h, _, err := NameToHandleAt(AT_FDCWD, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	moved := name + "-moved"
	if err := os.Rename(name, moved); err != nil {
		t.Fatal(err)
	}
	f, err := OpenByHandleAt(int(dir.Fd()), h, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil || string(text) != "content of "+t.Name() {
		t.Errorf("%q, %v", text, err)
	}
	if flags, errno := fcntl(int(f.Fd()), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
	if !strings.Contains(f.Name(), h.String()) {
		t.Errorf("name %q", f.Name())
	}
	f.Close()

	if err := os.Remove(moved); err != nil {
		t.Fatal(err)
	}
	_, err = OpenByHandleAt(int(dir.Fd()), h, os.O_RDONLY)
	matches(t, err, syscall.ESTALE)
	if errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v is no proof", err)
	}
	_, err = OpenByHandleAt(int(dir.Fd()), FileHandle{}, os.O_RDONLY)
	matches(t, err, syscall.EINVAL)
	_, err = OpenByHandleAt(99999, h, os.O_RDONLY)
	matches(t, err, syscall.EBADF)
}

func TestOpenByHandleAtFlags(t *testing.T) {
	needs(t, FeatureFileHandle)
	rights.Need(t, rights.DACReadSearch)
	keepsDescriptors(t)
	name := tempFile(t)
	t.Chdir(filepath.Dir(name))
	file, _, err := NameToHandleAt(AT_FDCWD, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir, _, err := NameToHandleAt(AT_FDCWD, filepath.Dir(name), 0)
	if err != nil {
		t.Fatal(err)
	}
	open := func(h FileHandle, flags int) *os.File {
		t.Helper()
		f, err := OpenByHandleAt(AT_FDCWD, h, flags)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	if _, err := open(file, os.O_WRONLY|os.O_TRUNC).WriteString("new"); err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(open(file, os.O_RDWR)); err != nil || string(text) != "new" {
		t.Errorf("%q, %v", text, err)
	}
	if names, err := open(dir, syscall.O_DIRECTORY).Readdirnames(-1); err != nil || len(names) != 1 || names[0] != "file" {
		t.Errorf("%q, %v", names, err)
	}
	_, err = OpenByHandleAt(AT_FDCWD, file, syscall.O_DIRECTORY)
	matches(t, err, syscall.ENOTDIR)
	place := open(file, O_PATH)
	if _, err := place.Read(make([]byte, 1)); !errors.Is(err, syscall.EBADF) {
		t.Errorf("read from a file that is not open: %v", err)
	}
	if path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(place.Fd()))); err != nil || path != name {
		t.Errorf("%q, %v", path, err)
	}
	// Such a descriptor is no anchor.
	_, err = OpenByHandleAt(int(place.Fd()), file, os.O_RDONLY)
	matches(t, err, syscall.EBADF)
}

// A file of more than 2 GiB opens in a 32-bit program, too.
func TestOpenByHandleAtLargeFile(t *testing.T) {
	needs(t, FeatureFileHandle)
	rights.Need(t, rights.DACReadSearch)
	keepsDescriptors(t)
	name := tempFile(t)
	if err := os.Truncate(name, 3<<30); err != nil {
		t.Fatal(err)
	}
	h, _, err := NameToHandleAt(AT_FDCWD, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	f, err := OpenByHandleAt(int(dir.Fd()), h, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestNameToHandleAtAllocates(t *testing.T) {
	rights.Handles(t, os.TempDir())
	needs(t, FeatureFileHandle)
	name := tempFile(t)
	doesNotAllocate(t, func() { NameToHandleAt(AT_FDCWD, name, 0) })
	h, _, err := NameToHandleAt(AT_FDCWD, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{127, 128, 129, 1023, 1024, 1025} {
		long := strings.Repeat("/", max(0, n-len(name))) + name
		if same, _, err := NameToHandleAt(AT_FDCWD, long, 0); err != nil || same != h {
			t.Errorf("a path of %d bytes: %v, %v; want %v", n, same, err, h)
		}
		if n < 1024 {
			doesNotAllocate(t, func() { NameToHandleAt(AT_FDCWD, long, 0) })
		}
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	doesNotAllocate(t, func() { NameToHandleAt(fd, "", AT_EMPTY_PATH) })
	seen := map[FileHandle]bool{h: true}
	doesNotAllocate(t, func() { _ = seen[h] })
}

func handleTexts(t testing.TB) map[string]FileHandle {
	t.Helper()
	texts := map[string]FileHandle{}
	for text, of := range map[string]struct {
		typ  int32
		data []byte
	}{
		"":                    {0, nil},
		"0:00":                {0, []byte{0}},
		"1:":                  {1, nil},
		"fe:19000000000000ff": {FILEID_KERNFS, []byte{0x19, 0, 0, 0, 0, 0, 0, 0xff}},
		"10002:ab":            {0x10002, []byte{0xab}},
		"ffffffff:" + strings.Repeat("00", MAX_HANDLE_SZ): {-1, make([]byte, MAX_HANDLE_SZ)},
	} {
		h, err := NewFileHandle(of.typ, of.data)
		if err != nil || !slices.Equal(h.Bytes(), of.data) || h.Type() != of.typ || h.Len() != len(of.data) {
			t.Fatal(h, err)
		}
		texts[text] = h
	}
	return texts
}

func TestFileHandleBinary(t *testing.T) {
	lengths := map[FileHandle]int{}
	for _, h := range handleTexts(t) {
		lengths[h] = 4 + h.Len()
	}
	lengths[FileHandle{}] = 0
	testBinary(t, lengths)
	if got, err := handleTexts(t)["10002:ab"].MarshalBinary(); string(got) != "\x00\x01\x00\x02\xab" {
		t.Errorf("%q, %v", got, err)
	}
	var h FileHandle
	for _, n := range []int{1, 3, 4, 4 + MAX_HANDLE_SZ + 1} {
		matches(t, h.UnmarshalBinary(make([]byte, n)), syscall.EINVAL)
	}
}

func TestFileHandleText(t *testing.T) {
	testText(t, ParseFileHandle, handleTexts(t))
	for _, text := range []string{":", "0:", "fe", "fe:1", "fe:1g", "FE:19", "fe:AB", "0fe:19", "+fe:19", "fe: 19", "100000000:", "-1:", "fe:19:", "fe:" + strings.Repeat("00", MAX_HANDLE_SZ+1)} {
		h, err := ParseFileHandle(text)
		if !h.IsZero() {
			t.Errorf("%q: %v", text, h)
		}
		matches(t, err, syscall.EINVAL)
		if err != nil && !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("%v does not name %q", err, text)
		}
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

func TestCanonicalHandle(t *testing.T) {
	handle := func(text string) FileHandle {
		t.Helper()
		h, err := ParseFileHandle(text)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	ino64 := handle("81:0000000000000000aabbccdd")
	putNative64(ino64.h.FHandle[:8], 0x44332211)
	var ino32 [4]byte
	if native32([]byte{1, 0, 0, 0}) == 1 {
		ino32 = [4]byte{0x11, 0x22, 0x33, 0x44}
	} else {
		ino32 = [4]byte{0x44, 0x33, 0x22, 0x11}
	}
	n := string(appendHex(nil, ino32[:]...))
	ino := string(appendHex(nil, ino64.h.FHandle[:8]...))
	const btrfs = "0102030405060708090a0b0c0d0e0f1011121314"
	for text, want := range map[string]string{
		"1:" + n + "aabbccdd":                       ino64.String(),
		"2:" + n + "aabbccdd01020304":               ino64.String(),
		"2:" + n + "aabbccdd0102030405060708":       ino64.String(),
		"10002:" + n + "aabbccdd0102030405060708":   ino64.String(),
		"30001:" + n + "aabbccdd":                   ino64.String(),
		"81:" + ino + "aabbccdd":                    ino64.String(),
		"82:" + ino + "aabbccdd" + ino + "01020304": ino64.String(),
		"4d:" + btrfs:                               "4d:" + btrfs,
		"4e:" + btrfs + "112233445566778899aabbcc":  "4d:" + btrfs,
		"1004f:" + btrfs + btrfs:                    "4d:" + btrfs,

		// What has another length is something else: 1 with 12 bytes is tmpfs.
		"1:" + n + "aabbccdd01020304": "1:" + n + "aabbccdd01020304",
		"1:" + n:                      "1:" + n,
		"2:" + n + "aabbccdd":         "2:" + n + "aabbccdd",
		"81:" + ino:                   "81:" + ino,
		"4d:" + btrfs + "00":          "4d:" + btrfs + "00",
		"fe:" + ino:                   "fe:" + ino,
		"10051:" + n:                  "10051:" + n,
		"":                            "",
	} {
		if is := handle(text).canonical(); is.String() != want {
			t.Errorf("%s: %s, want %s", text, is, want)
		}
	}
}

// tmpfs ignores the type of a handle and trailing bytes.
func TestOpenFileHandleForged(t *testing.T) {
	needs(t, FeatureFileHandle)
	rights.Need(t, rights.DACReadSearch)
	keepsDescriptors(t)
	file := fileOnTmpfs(t)
	dir, err := os.Open(filepath.Dir(file.Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd := int(dir.Fd())
	h, _, err := NameToHandleAt(int(file.Fd()), "", AT_EMPTY_PATH)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenFileHandle(fd, h, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, forged := range []struct {
		typ  int32
		more int
	}{{h.Type() + 0x50, 0}, {h.Type(), 4}} {
		other, err := NewFileHandle(forged.typ, append(h.Bytes(), make([]byte, forged.more)...))
		if err != nil {
			t.Fatal(err)
		}
		f, err := OpenByHandleAt(fd, other, os.O_RDONLY)
		if err != nil {
			t.Logf("this kernel does not open %v: %v", other, err)
		} else {
			f.Close()
		}
		for _, flags := range []int{os.O_RDONLY, O_PATH} {
			_, err = OpenFileHandle(fd, other, flags, 0)
			matches(t, err, syscall.ESTALE)
			if errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v is no proof", err)
			}
		}
	}
	_, err = OpenFileHandle(fd, h, os.O_RDONLY, 2)
	matches(t, err, syscall.EINVAL)
	if !strings.Contains(err.Error(), "0x2") {
		t.Errorf("%v does not name the option", err)
	}
	_, err = OpenFileHandle(fd, FileHandle{}, os.O_RDONLY, 0)
	matches(t, err, syscall.EINVAL)
	_, err = OpenFileHandle(99999, h, os.O_RDONLY, 0)
	matches(t, err, syscall.EBADF)
}

// structFileHandle is a struct file_handle as the kernel writes it.
func structFileHandle(n uint32, typ int32, data string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, n)
	return append(binary.NativeEndian.AppendUint32(b, uint32(typ)), data...)
}

func TestDecodeFileHandle(t *testing.T) {
	long := strings.Repeat("x", MAX_HANDLE_SZ)
	for _, test := range []struct {
		n          uint32
		typ        int32
		data       string
		text, rest string
	}{
		{0, FILEID_INVALID, "", "ff:", ""},
		{0, 0, "rest", "", "rest"},
		{8, FILEID_KERNFS, "\x19\x00\x00\x00\x00\x00\x00\x00", "fe:1900000000000000", ""},
		{3, -2, "abcrest", "fffffffe:616263", "rest"},
		{MAX_HANDLE_SZ, 1, long + "r", "1:" + strings.Repeat("78", MAX_HANDLE_SZ), "r"},
	} {
		b := structFileHandle(test.n, test.typ, test.data)
		h, rest, err := DecodeFileHandle(b)
		if err != nil || h.String() != test.text || string(rest) != test.rest {
			t.Errorf("%q: %v, %q, %v", b, h, rest, err)
		}
		if again, err := NewFileHandle(test.typ, b[8:8+test.n]); err != nil || again != h {
			t.Errorf("%q: %v is not %v, %v", b, h, again, err) // what lies behind must not be in it
		}
		doesNotAllocate(t, func() { DecodeFileHandle(b) })
	}
	for _, test := range []struct {
		b   []byte
		why string
	}{
		{nil, "0 bytes are too few"},
		{structFileHandle(0, 1, "")[:7], "7 bytes are too few"},
		{structFileHandle(4, 1, "abc"), "of 4 bytes is cut off: only 3 bytes follow"},
		{structFileHandle(MAX_HANDLE_SZ, 1, long[1:]), "of 128 bytes is cut off: only 127 bytes follow"},
		{structFileHandle(MAX_HANDLE_SZ+1, 1, long+"x"), "of 129 bytes is too long: 128 is the limit"},
		{structFileHandle(1<<31, 1, long), "2147483648"},
		{structFileHandle(1<<32-1, 1, long), "4294967295"},
	} {
		h, rest, err := DecodeFileHandle(test.b)
		matches(t, err, syscall.EINVAL)
		if err == nil || !strings.Contains(err.Error(), test.why) || !h.IsZero() || rest != nil {
			t.Errorf("%q: %v, %q, %v; want %s", test.b, h, rest, err, test.why)
		}
	}
}

func FuzzDecodeFileHandle(f *testing.F) {
	f.Add(structFileHandle(8, FILEID_KERNFS, "12345678rest"))
	f.Add(structFileHandle(MAX_HANDLE_SZ+1, 1, strings.Repeat("x", 200)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := DecodeFileHandle(b)
		if err != nil {
			if !errors.Is(err, syscall.EINVAL) || !h.IsZero() || rest != nil {
				t.Errorf("%q: %v, %q, %v", b, h, rest, err)
			}
			return
		}
		if again := append(structFileHandle(uint32(h.Len()), h.Type(), string(h.Bytes())), rest...); string(again) != string(b) {
			t.Errorf("%q: %q", b, again)
		}
	})
}
