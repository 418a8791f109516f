//go:build linux

package sysfd

import (
	"crypto/rand"
	"encoding/binary"
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
	_, err := FileRef{}.Open(0)
	matches(t, err, syscall.EINVAL)
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
	f, err := r.Open(os.O_RDONLY)
	readsAs(t, f, err, "text")
	outside, err := FileRefAt(AT_FDCWD, filepath.Join(top, "old"), 0)
	if err != nil {
		t.Fatal(err)
	}
	unmount(t, top)
	mountAt(t, image, alone, "btrfs", options+",subvol=sub")
	for _, r := range []FileRef{r, outside} {
		f, err := r.Open(os.O_RDONLY)
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

func TestFileRefAt(t *testing.T) {
	needsRoot(t)
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

	// Neither of the two to be opened: covered. What is left is the second best, which
	// finds the file nonetheless.
	held, err := openat(AT_FDCWD, name, O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(held)
	mountAt(t, "none", mounted, "tmpfs", "size=1m")
	r, err := FileRefAt(held, "", AT_EMPTY_PATH)
	if err != nil || r.Handle != file.Handle || r.FS != (FileSystemID{magic: 0xef53, fsid: fsid}) {
		t.Errorf("%v, %v", r, err)
	}
	unmount(t, mounted)
	f, err := r.Open(os.O_RDONLY)
	readsAs(t, f, err, "text")
}
