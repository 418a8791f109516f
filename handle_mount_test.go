//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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
	needsRoot(t)
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
}

// What lies on top is not opened to find out that it is something else.
func TestOpenMountOfSpecialFile(t *testing.T) {
	needs(t, FeatureFileHandle)
	reliesOn(t, statmounting)
	needsRoot(t)
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

// Without a handle to ask for there is fdinfo, which has the reusable ID alone.
func TestMountIDOfRefused(t *testing.T) {
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	fd := int(fileOnTmpfs(t).Fd())
	want, err := mountIDOf(fd, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.EOPNOTSUPP, syscall.EOVERFLOW, syscall.ENOSYS, syscall.EPERM} {
		var id MountID
		var errFilter, err, errUnique error
		onThrowawayThread(func() {
			errFilter = refuse(map[int]syscall.Errno{unix.SYS_NAME_TO_HANDLE_AT: errno})
			id, err = mountIDOf(fd, false)
			_, errUnique = mountIDOf(fd, true)
		})
		switch {
		case errFilter != nil:
			lacks(t, "seccomp filters: "+errFilter.Error())
		case errno == syscall.EPERM:
			matches(t, err, errno, os.ErrPermission)
			matches(t, errUnique, errno, os.ErrPermission)
		default:
			if err != nil || id != want {
				t.Errorf("%v: %v, %v; want %v", errno, id, err, want)
			}
			matches(t, errUnique, syscall.EOPNOTSUPP, errors.ErrUnsupported)
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
	needsRoot(t)
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
				matches(t, err, syscall.ESTALE, os.ErrNotExist)
			}
			unmount(t, second)
		})
	}
}

// Overlayfs has long handles, where it has any.
func TestOverlayHandle(t *testing.T) {
	needsRoot(t)
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
