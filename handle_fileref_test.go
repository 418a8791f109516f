//go:build linux

package sysfd

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

func fileRefTexts(t testing.TB) map[string]FileRef {
	t.Helper()
	uuid := [16]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	handle := func(typ int32, data ...byte) FileHandle {
		h, err := NewFileHandle(typ, data)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	return map[string]FileRef{
		"": {},
		"uuid:00112233-4455-6677-8899-aabbccddeeff/fe:19": {FileSystemID{uuid: uuid, n: 16}, handle(FILEID_KERNFS, 0x19)},
		"uuid:0011aabb/1:":                {FileSystemID{uuid: [16]byte{0, 0x11, 0xaa, 0xbb}, n: 4}, handle(1)},
		"fsid:ef53:8000000000000001/1:00": {FileSystemID{magic: 0xef53, fsid: 1<<63 | 1}, handle(1, 0)},
		"fsid:0:1/10002:00":               {FileSystemID{fsid: 1}, handle(0x10002, 0)},
	}
}

func TestFileRefText(t *testing.T) {
	texts := fileRefTexts(t)
	testText(t, ParseFileRef, texts)
	systems := map[string]FileSystemID{}
	for text, r := range texts {
		text, _, _ = strings.Cut(text, "/")
		systems[text] = r.FS
	}
	testText(t, ParseFileSystemID, systems)
	for _, text := range []string{"fe:19", "/", "/0:", "/1:", "uuid:001122334455-6677-8899-aabbccddeeff/1:", "uuid:00112233-4455-6677-8899-AABBCCDDEEFF/1:", "uuid:/1:", "uuid:0000/1:",
		"uuid:001/1:", "uuid:00112233445566778899aabbccddeeff00/1:", "fsid:1/1:", "fsid:1:0/1:", "fsid:01:1/1:", "uuid:0011/", "uuid:0011/0:", "uuid:0011", "fsid:1:1:1/1:", "UUID:0011/1:"} {
		r, err := ParseFileRef(text)
		if r != (FileRef{}) {
			t.Errorf("%q: %v", text, r)
		}
		matches(t, err, syscall.EINVAL)
		if err != nil && !strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("%v does not name %q", err, text)
		}
	}
	r, buf := texts["uuid:00112233-4455-6677-8899-aabbccddeeff/fe:19"], make([]byte, 0, 100)
	doesNotAllocate(t, func() { r.AppendText(buf) })
	doesNotAllocate(t, func() { r.AppendBinary(buf) })
	for _, half := range []FileRef{{FS: systems["uuid:0011aabb"]}, {Handle: KernfsHandle(1)}} {
		_, err := half.MarshalText()
		matches(t, err, syscall.EINVAL)
		_, err = half.MarshalBinary()
		matches(t, err, syscall.EINVAL)
	}
	_, err := FileRef{}.Open(0, 0)
	matches(t, err, syscall.EINVAL)
	if !strings.Contains(err.Error(), "zero FileRef") {
		t.Error(err)
	}
}

// With the handles that ext4, XFS and btrfs make, they fit in 48 bytes.
func TestFileRefBinary(t *testing.T) {
	refs, systems := map[FileRef]int{}, map[FileSystemID]int{{}: 0}
	for _, r := range fileRefTexts(t) {
		systems[r.FS] = 13
		if r.FS.n > 0 {
			systems[r.FS] = 1 + int(r.FS.n)
		}
		refs[r] = 1 + systems[r.FS] + 4 + r.Handle.Len()
	}
	refs[FileRef{}], systems[FileSystemID{}] = 0, 0
	systems[FileSystemID{uuid: [16]byte{11: 1}, n: 12}] = 13 // as long as type and f_fsid
	testBinary(t, systems)
	uuid := FileSystemID{uuid: [16]byte{15: 1}, n: 16}
	for size, want := range map[int]int{8: 30, 12: 34, 20: 42} {
		h, err := NewFileHandle(FILEID_INO32_GEN, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		refs[FileRef{uuid, h}] = want
	}
	testBinary(t, refs)
	for _, bad := range []string{"\x00", "\x01\x02\x03", "\x10" + strings.Repeat("\x00", 16), "\x11" + strings.Repeat("a", 17), "\x00" + strings.Repeat("\x00", 12), "\x02a"} {
		var id FileSystemID
		matches(t, id.UnmarshalBinary([]byte(bad)), syscall.EINVAL)
	}
	for _, bad := range []string{"\x00", "\x00\x00\x00\x00\x01", "\x02\x01\x61", "\x02\x01\x61\x00\x00\x00\x00", "\xff\x01\x61\x00\x00\x00\x01", "\x02\x01\x61\x00\x00\x01"} {
		var r FileRef
		matches(t, r.UnmarshalBinary([]byte(bad)), syscall.EINVAL)
	}
}

func FuzzFileRefBinary(f *testing.F) {
	f.Add([]byte("\x02\x01a\x00\x00\x00\x01"))
	f.Add([]byte("\x0d\x00\x00\x00\xef\x53\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r FileRef
		if r.UnmarshalBinary(b) != nil {
			return
		}
		if again, err := r.AppendBinary(nil); err != nil || string(again) != string(b) {
			t.Errorf("%q: %q, %v", b, again, err)
		}
		if back, err := ParseFileRef(r.String()); err != nil || back != r {
			t.Errorf("%q: %q, %v", b, r, err)
		}
	})
}

func FuzzParseFileRef(f *testing.F) {
	for _, s := range []string{"uuid:00112233-4455-6677-8899-aabbccddeeff/fe:19", "uuid:0011/0:", "fsid:ef53:1234/1:00", "fsid:0:0/1:", "/1:", "uuid:/1:", "uuid:é/1:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseFileRef(s)
		if err == nil && r.String() != s || err != nil && !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%q: %v, %v", s, r, err)
		}
	})
}

func TestFileRefAt(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	dir := t.TempDir()
	mounted := filepath.Join(dir, "mounted")
	image := filepath.Join(dir, "image")
	options := makeImage(t, "ext4", image)
	// f_fsid is one half of the UUID xor the other, and has the sign bit of both its halves.
	var uuid [16]byte
	rand.Read(uuid[:])
	uuid[3], uuid[7] = uuid[11]^0x80, uuid[15]^0x80
	fsid := binary.LittleEndian.Uint64(uuid[:8]) ^ binary.LittleEndian.Uint64(uuid[8:])
	runTool(t, "tune2fs", "-U", FileSystemID{uuid: uuid, n: 16}.String()[len("uuid:"):], image)
	mountAt(t, image, mounted, "ext4", options)
	name, link, fifo := filepath.Join(mounted, "old"), filepath.Join(mounted, "link"), filepath.Join(mounted, "fifo")
	if err := os.Symlink("old", link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(dirfd int, path string, flags int) FileRef {
		t.Helper()
		r, err := FileRefAt(dirfd, path, flags)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := fileSystemIDAt(t, mounted); err != nil || r.FS != id {
			t.Errorf("%s: %v, want %v, %v", path, r.FS, id, err)
		}
		return r
	}
	root, err := os.Open(mounted)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fd := int(root.Fd())
	file := at(AT_FDCWD, name, 0)
	if at(fd, "old", 0) != file || at(fd, "link", AT_SYMLINK_FOLLOW) != file || at(fd, "link", 0) == file || at(fd, "fifo", 0) == file {
		t.Error("names of one file differ, or those of two do not")
	}
	if at(fd, "", AT_EMPTY_PATH) != at(AT_FDCWD, mounted, 0) {
		t.Error("the directory by descriptor and by path differ")
	}
	t.Chdir(mounted)
	if at(AT_FDCWD, "", AT_EMPTY_PATH) != at(AT_FDCWD, mounted, 0) {
		t.Error("the working directory has another name")
	}
	t.Chdir("/")
	for _, flags := range []int{AT_HANDLE_FID, AT_HANDLE_MNT_ID_UNIQUE, AT_HANDLE_CONNECTABLE, 1 << 20} {
		_, err := FileRefAt(AT_FDCWD, name, flags)
		matches(t, err, syscall.EINVAL)
	}
	_, err = FileRefAt(AT_FDCWD, filepath.Join(dir, "missing"), 0)
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	_, err = FileRefAt(AT_FDCWD, "", 0)
	matches(t, err, syscall.ENOENT, os.ErrNotExist)
	_, err = FileRefAt(AT_FDCWD, "a\x00b", 0)
	matches(t, err, syscall.EINVAL)
	_, err = FileRefAt(AT_FDCWD, "/proc/version", 0)
	matches(t, err, syscall.EOPNOTSUPP, errors.ErrUnsupported)
	if !strings.Contains(err.Error(), `"/proc/version"`) {
		t.Errorf("%v does not name the file", err)
	}

	// When all is covered the file itself is left, and of a special file the second best, which
	// finds it nonetheless.
	hold := func(name string) int {
		t.Helper()
		fd, err := openat(AT_FDCWD, name, O_PATH)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		return fd
	}
	held, special := hold(name), hold(fifo)
	id, err := fileSystemIDAt(t, mounted)
	if err != nil {
		t.Fatal(err)
	}
	mountAt(t, "none", mounted, "tmpfs", "size=1m")
	if r, err := FileRefAt(held, "", AT_EMPTY_PATH); err != nil || r != file {
		t.Errorf("%v, %v", r, err)
	}
	r, err := FileRefAt(special, "", AT_EMPTY_PATH)
	second := FileSystemID{magic: 0xef53, fsid: fsid}
	if err != nil || r.FS != second || id.n != 0 && id.secondBest() != second {
		t.Errorf("%v, %v", r, err)
	}
	r.Handle = file.Handle
	unmount(t, mounted)
	f, err := r.Open(os.O_RDONLY, 0)
	readsAs(t, f, err, "text")
}

// mountImage mounts a file system that its own tools made, with the file "old" in it.
func mountImage(t *testing.T, fsType string) (dir string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "image")
	options := makeImage(t, fsType, image)
	dir = filepath.Join(t.TempDir(), "mounted")
	mountAt(t, image, dir, fsType, options)
	if old := filepath.Join(dir, "old"); !strings.HasSuffix(options, "ro") {
		if _, err := os.Stat(old); err != nil { // mkfs.xfs puts nothing there
			writeFile(t, old, "text")
		}
	}
	return dir
}

func fileRefOf(t *testing.T, path string) FileRef {
	t.Helper()
	r, err := FileRefAt(AT_FDCWD, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Files that mke2fs puts into an image have the generation 0, which ext4 takes for any.
func TestFileRefGenerationZero(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	dir := mountImage(t, "ext4")
	old, stranger := filepath.Join(dir, "old"), filepath.Join(dir, "stranger")
	r := fileRefOf(t, old)
	if b := r.Handle.Bytes(); len(b) != 8 || native32(b[4:]) != 0 {
		t.Fatalf("%v has a generation", r)
	}
	f, err := r.Open(os.O_RDONLY, 0)
	readsAs(t, f, err, "text")
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
	writeFile(t, stranger, "of a stranger")
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f, err = OpenByHandleAt(int(root.Fd()), r.Handle, os.O_RDONLY)
	readsAs(t, f, err, "of a stranger") // or there is nothing to see here
	for _, flags := range []int{os.O_RDONLY, O_PATH} {
		_, err = OpenFileHandle(int(root.Fd()), r.Handle, flags, OpenSpecial)
		matches(t, err, syscall.ESTALE)
		if !strings.Contains(err.Error(), fileRefOf(t, stranger).Handle.String()) {
			t.Errorf("%v does not say what it opens", err)
		}
		_, err = r.Open(flags, 0)
		matches(t, err, syscall.ESTALE, os.ErrNotExist)
		_, err = r.OpenFrom(int(root.Fd()), flags, 0)
		matches(t, err, syscall.ESTALE, os.ErrNotExist)
	}
}

// XFS has two encodings of a file and opens both.
func TestFileHandleXFS(t *testing.T) {
	needs(t, FeatureFileSystemID)
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	dir := mountImage(t, "xfs")
	old := filepath.Join(dir, "old")
	r := fileRefOf(t, old)
	b := r.Handle.Bytes()
	if r.Handle.Type() != FILEID_INO64_GEN || len(b) != 12 {
		t.Fatalf("%v", r)
	}
	var ino [8]byte
	half := ino[:4]
	putNative64(ino[:], native64(b))
	if native32([]byte{1, 0, 0, 0}) != 1 {
		half = ino[4:]
	}
	var err error
	if r.Handle, err = NewFileHandle(FILEID_INO32_GEN, append(half, b[8:]...)); err != nil {
		t.Fatal(err)
	}
	f, err := r.Open(os.O_RDONLY, 0)
	readsAs(t, f, err, "text")
}

// ESTALE is no news about a file, where nothing proves that.
func TestFileRefStale(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	stale := func(t *testing.T, err error, note string) {
		t.Helper()
		matches(t, err, syscall.ESTALE)
		if err == nil || errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), note) {
			t.Errorf("%v: it is there, and %q is missing", err, note)
		}
	}
	t.Run("connectable", func(t *testing.T) {
		needs(t, FeatureHandleConnectable)
		image, dir := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "mounted")
		options := makeImage(t, "ext4", image)
		mountAt(t, image, dir, "ext4", options)
		r := fileRefOf(t, filepath.Join(dir, "old"))
		var err error
		if r.Handle, _, err = NameToHandleAt(AT_FDCWD, filepath.Join(dir, "old"), AT_HANDLE_CONNECTABLE); err != nil {
			t.Fatal(err)
		}
		f, err := r.Open(os.O_RDONLY, 0)
		readsAs(t, f, err, "text")
		sub := filepath.Join(dir, "sub")
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "old"), filepath.Join(sub, "old")); err != nil {
			t.Fatal(err)
		}
		// As long as the kernel knows the new name the handle is good, and a process that was
		// started with mounts of its own keeps the file system for a while.
		for range 1000 {
			unmount(t, dir)
			mountAt(t, image, dir, "ext4", options)
			if f, err = r.Open(os.O_RDONLY, 0); err != nil {
				break
			}
			f.Close()
			time.Sleep(10 * time.Millisecond)
		}
		stale(t, err, "connectable")
	})
	t.Run("to compare alone", func(t *testing.T) {
		h := handleToCompare(t, "/proc/version")
		proc, err := os.Open("/proc")
		if err != nil {
			t.Fatal(err)
		}
		defer proc.Close()
		_, err = FileRef{FileSystemID{uuid: [16]byte{1}, n: 16}, h}.openFrom(int(proc.Fd()), os.O_RDONLY, 0)
		if !errors.Is(err, syscall.EOPNOTSUPP) {
			stale(t, err, "do not last")
		}
		if errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: it is there", err)
		}
	})
	t.Run("another file system", func(t *testing.T) {
		needs(t, FeatureFileSystemID)
		file := fileOnTmpfs(t)
		dir, err := os.Open(mountImage(t, "ext4"))
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		_, err = fileRefOf(t, file.Name()).OpenFrom(int(dir.Fd()), os.O_RDONLY, 0)
		matches(t, err, syscall.EXDEV)
		if errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: it is there", err)
		}
	})
}

// Root of a user namespace may not open every file.
func TestFileRefInUserNamespace(t *testing.T) {
	if os.Getenv(againVar) == "" {
		rights.UserNamespace(t)
	}
	needs(t, FeatureFileSystemID)
	rights.Need(t, rights.DACReadSearch)
	if os.Getenv(againVar) == "" && !mayOpenAll() {
		t.Fatal("root may not open every file")
	}
	if !again(t, func(cmd *exec.Cmd) {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1000}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	}) {
		return
	}
	if !hasCapability(unix.CAP_DAC_READ_SEARCH) || mayOpenAll() {
		t.Error("the capability is good for this user namespace alone")
	}
	file := fileOnTmpfs(t)
	dir, err := os.Open(filepath.Dir(file.Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	_, err = fileRefOf(t, file.Name()).OpenFrom(int(dir.Fd()), os.O_RDONLY, 0)
	if !errors.Is(err, syscall.EPERM) {
		matches(t, err, syscall.ESTALE)
	}
	if errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v: it is there", err)
	}
}

// What could have an effect, or wait, takes more than a handle.
func TestFileRefSpecial(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	dir := mountImage(t, "ext4")
	name := func(base string) string { return filepath.Join(dir, base) }
	if err := syscall.Mkfifo(name("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mknod(name("device"), syscall.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("old", name("link")); err != nil {
		t.Fatal(err)
	}
	for base, want := range map[string]error{"fifo": syscall.EINVAL, "device": syscall.EINVAL, "link": syscall.ELOOP} {
		r := fileRefOf(t, name(base))
		_, err := r.Open(os.O_RDONLY, 0)
		matches(t, err, want)
		f, err := r.Open(O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	f, err := fileRefOf(t, name("device")).Open(os.O_RDONLY, OpenSpecial)
	readsAs(t, f, err, "")
	f, err = fileRefOf(t, name("fifo")).Open(os.O_RDONLY|syscall.O_NONBLOCK, OpenSpecial)
	readsAs(t, f, err, "")
	f, err = fileRefOf(t, dir).Open(syscall.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	f, err = fileRefOf(t, name("old")).Open(os.O_RDWR|os.O_TRUNC|syscall.O_NOFOLLOW, 0)
	readsAs(t, f, err, "")
}

// What is opened to be compared is not opened as it would be in the end: that would cut off a stranger, or wait for it.
func TestFileRefStranger(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	dir := mountImage(t, "ext4")
	old, stranger := filepath.Join(dir, "old"), filepath.Join(dir, "stranger")
	r := fileRefOf(t, old)
	for _, flags := range []int{syscall.O_CREAT, syscall.O_EXCL, unix.O_TMPFILE} {
		_, err := fileRefOf(t, dir).Open(flags|os.O_RDWR, 0)
		matches(t, err, syscall.EINVAL)
	}
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
	writeFile(t, stranger, "precious")
	_, err := r.Open(os.O_RDWR|os.O_TRUNC, OpenSpecial)
	matches(t, err, syscall.ESTALE, os.ErrNotExist)
	if text, err := os.ReadFile(stranger); err != nil || string(text) != "precious" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.Remove(stranger); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(stranger, 0o600); err != nil {
		t.Fatal(err)
	}
	if was, is := r.Handle.Bytes(), fileRefOf(t, stranger).Handle.Bytes(); string(was[:4]) != string(is[:4]) {
		t.Fatalf("%x, %x: it has not got the inode number", was, is)
	}
	_, err = r.Open(os.O_RDONLY, OpenSpecial)
	matches(t, err, syscall.ESTALE, os.ErrNotExist)

	// A spare byte makes no handle of a known type one that cannot be compared.
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	writeFile(t, old, "text")
	b := fileRefOf(t, old).Handle.Bytes()
	copy(b[4:], []byte{0, 0, 0, 0})
	for _, typ := range []int32{FILEID_INO32_GEN | FILEID_IS_CONNECTABLE, FILEID_INO32_GEN_PARENT | FILEID_IS_CONNECTABLE} {
		for spare := range 3 {
			h, err := NewFileHandle(typ, append(b, make([]byte, spare)...))
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenFileHandle(int(root.Fd()), h, os.O_RDONLY, 0)
			if err == nil {
				f.Close()
				t.Errorf("%v opens a file with another generation", h)
			}
		}
	}
}

// The kernel says ESTALE of what it cannot read.
func TestFileRefOnBrokenDisk(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	keepsDescriptors(t)
	image, dir := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "mounted")
	options := makeImage(t, "ext4", image)
	mountAt(t, image, dir, "ext4", options)
	r := fileRefOf(t, filepath.Join(dir, "old"))
	unmount(t, dir)
	mountAt(t, image, dir, "ext4", options)
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := os.Truncate(image, 8<<10); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		t.Skip(err)
	}
	f, err := r.OpenFrom(int(root.Fd()), os.O_RDONLY, 0)
	if err == nil {
		f.Close()
		t.Skip("it is still in memory")
	}
	if errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v: it is there", err)
	}
}

// A filter that has open_by_handle_at do nothing says 0, which is standard input.
func TestOpenByHandlePretended(t *testing.T) {
	needs(t, FeatureFileHandle)
	rights.Need(t, rights.DACReadSearch)
	keepsDescriptors(t)
	file := fileOnTmpfs(t)
	h, _, err := NameToHandleAt(int(file.Fd()), "", AT_EMPTY_PATH)
	if err != nil {
		t.Fatal(err)
	}
	calls, _ := answersTo("open_by_handle_at", retErrno)
	underFilter(t, func() error { return filter(calls) }, func() {
		_, err := OpenByHandleAt(AT_FDCWD, h, os.O_RDONLY)
		matches(t, err, errors.ErrUnsupported)
		_, err = OpenFileHandle(AT_FDCWD, h, os.O_RDONLY, 0)
		matches(t, err, errors.ErrUnsupported)
	})
	if _, errno := fcntl(0, syscall.F_GETFD, 0); errno != 0 {
		t.Error("standard input was closed")
	}
}
