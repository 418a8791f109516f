//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
)

// A tree is a directory and its index.
type tree struct {
	*testing.T
	dir, index string
	read       []string // the contents that were read
}

// newTree makes a tree of the files, which contain their own names.
func newTree(t *testing.T, dir string, files ...string) *tree {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("it takes root, which CI should have")
		}
		t.Skip("it takes root to open files by their handles")
	}
	tr := &tree{T: t, dir: dir, index: filepath.Join(t.TempDir(), "index")}
	for _, file := range files {
		tr.write(file, file)
	}
	if _, err := sysfd.FileRefAt(sysfd.AT_FDCWD, t.TempDir(), 0); errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("not on this file system: %v", err)
	}
	hashed := hash
	t.Cleanup(func() { hash = hashed })
	hash = func(r io.Reader) (string, error) {
		var text bytes.Buffer
		sum, err := hashed(io.TeeReader(r, &text))
		tr.read = append(tr.read, text.String())
		return sum, err
	}
	return tr
}

func (t *tree) path(file string) string { return filepath.Join(t.dir, file) }

func (t *tree) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t *tree) write(file, text string) {
	t.Helper()
	t.must(os.MkdirAll(filepath.Dir(t.path(file)), 0o755))
	t.must(os.WriteFile(t.path(file), []byte(text), 0o644))
}

func (t *tree) rename(from, to string) {
	t.Helper()
	t.must(os.MkdirAll(filepath.Dir(t.path(to)), 0o755))
	t.must(os.Rename(t.path(from), t.path(to)))
}

func (t *tree) remove(file string) {
	t.Helper()
	t.must(os.Remove(t.path(file)))
}

func (t *tree) link(from, to string) {
	t.Helper()
	t.must(os.Link(t.path(from), t.path(to)))
}

// prints runs the command and compares what it prints, where DIR stands for the directory, and
// which files it reads, by what is in them.
func (t *tree) prints(args, want string, read ...string) {
	t.Helper()
	t.read = nil
	words := strings.Fields(strings.NewReplacer("INDEX", t.index, "DIR", t.dir).Replace(args))
	var out, errs bytes.Buffer
	status := run(words, &out, &errs)
	got := strings.ReplaceAll(out.String(), t.dir+"/", "")
	if status != 0 || got != want || errs.Len() > 0 {
		t.Errorf("%s: status %d, printed\n%s%swant\n%s", args, status, got, errs.String(), want)
	}
	slices.Sort(t.read)
	if !slices.Equal(t.read, read) {
		t.Errorf("%s: read %q, want %q", args, t.read, read)
	}
}

// forget makes the kernel drop the names it has seen, as after a reboot. Without it the tests pass
// too, but do not test as much.
func (t *tree) forget() {
	syscall.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Logf("names are not forgotten: %v", err)
	}
}

func TestIndex(t *testing.T) {
	for _, forget := range []bool{false, true} {
		name := "names known"
		if forget {
			name = "names forgotten"
		}
		t.Run(name, func(t *testing.T) {
			files := []string{"deleted", "directory/a", "directory/b", "modified", "moved", "recreated", "renamed", "same"}
			tr := newTree(t, t.TempDir(), files...)
			tr.prints("build INDEX DIR", "8 files\n", files...)
			tr.prints("check INDEX", "8 files: 0 moved, 0 changed, 0 deleted\n")

			tr.rename("renamed", "renamed2")
			tr.rename("moved", "sub/moved")
			tr.rename("directory", "directory2")
			tr.remove("deleted")
			tr.remove("recreated")
			tr.write("recreated", "recreated") // of the same size, and often with the same inode
			tr.write("modified", "modified and longer")
			tr.write("added", "added")
			if forget {
				tr.forget()
			}
			changes := `deleted deleted
moved directory/a -> directory2/a
moved directory/b -> directory2/b
changed modified
moved moved -> sub/moved
deleted recreated
moved renamed -> renamed2
`
			tr.prints("check INDEX", changes+"8 files: 4 moved, 1 changed, 2 deleted\n")
			tr.prints("check INDEX", changes+"8 files: 4 moved, 1 changed, 2 deleted\n")
			tr.prints("update INDEX", changes+"new added\nnew recreated\n8 files: 4 moved, 1 changed, 2 deleted, 2 new\n",
				"added", "modified and longer", "recreated")
			tr.prints("check INDEX", "8 files: 0 moved, 0 changed, 0 deleted\n")

			// An update leaves the index as a new one would be.
			updated, err := os.ReadFile(tr.index)
			tr.must(err)
			if run([]string{"build", tr.index, tr.dir}, io.Discard, io.Discard) != 0 {
				t.Fatal("build")
			}
			built, err := os.ReadFile(tr.index)
			tr.must(err)
			if !bytes.Equal(updated, built) {
				t.Errorf("updated\n%s\nbuilt\n%s", updated, built)
			}
			left, err := os.ReadDir(filepath.Dir(tr.index))
			if err != nil || len(left) != 1 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

func TestModifiedInPlace(t *testing.T) {
	tr := newTree(t, t.TempDir(), "size", "time", "size and place")
	tr.prints("build INDEX DIR", "3 files\n", "size", "size and place", "time")
	info, err := os.Stat(tr.path("size"))
	tr.must(err)
	tr.write("size", "another size")
	tr.must(os.Chtimes(tr.path("size"), time.Time{}, info.ModTime()))
	tr.must(os.Chtimes(tr.path("time"), time.Time{}, info.ModTime().Add(time.Hour)))
	tr.write("size and place", "")
	tr.rename("size and place", "there")
	want := "changed size\nmoved size and place -> there\nchanged there\nchanged time\n3 files: 1 moved, 3 changed, 0 deleted"
	tr.prints("check INDEX", want+"\n")
	tr.prints("update INDEX", want+", 0 new\n", "", "another size", "time")
	tr.prints("check INDEX", "3 files: 0 moved, 0 changed, 0 deleted\n")
}

// What was deleted while someone has it open still opens by its handle.
func TestDeletedWhileOpen(t *testing.T) {
	tr := newTree(t, t.TempDir(), "file")
	tr.prints("build INDEX DIR", "1 files\n", "file")
	f, err := os.Open(tr.path("file"))
	tr.must(err)
	defer f.Close()
	tr.remove("file")
	tr.prints("check INDEX", "deleted file\n1 files: 0 moved, 0 changed, 1 deleted\n")
	// Nor is a file at the path that the kernel shows for it.
	tr.write("file (deleted)", "")
	tr.prints("check INDEX", "deleted file\n1 files: 0 moved, 0 changed, 1 deleted\n")
}

func TestHardLinks(t *testing.T) {
	for _, forget := range []bool{false, true} {
		tr := newTree(t, t.TempDir(), "a")
		check := func(want string) {
			t.Helper()
			if forget {
				tr.forget()
			}
			tr.prints("check INDEX", want)
			tr.prints("update INDEX", strings.TrimSuffix(want, "\n")+", 0 new\n")
			tr.prints("check INDEX", "1 files: 0 moved, 0 changed, 0 deleted\n")
		}
		tr.link("a", "b")
		tr.prints("build INDEX DIR", "1 files\n", "a")
		check("1 files: 0 moved, 0 changed, 0 deleted\n")
		tr.rename("b", "sub/b")
		check("moved b -> sub/b\n1 files: 1 moved, 0 changed, 0 deleted\n")
		tr.link("a", "c")
		tr.prints("update INDEX", "new c\n1 files: 0 moved, 0 changed, 0 deleted, 1 new\n")
		tr.remove("a")
		check("deleted a\n1 files: 0 moved, 0 changed, 1 deleted\n")
		tr.rename("c", "d")
		tr.rename("sub/b", "e")
		check("moved c -> d\nmoved sub/b -> e\n1 files: 2 moved, 0 changed, 0 deleted\n")
		tr.remove("d")
		tr.rename("e", "f")
		tr.prints("check INDEX", "moved d -> f\ndeleted e\n1 files: 1 moved, 0 changed, 1 deleted\n")
		tr.remove("f")
		tr.prints("check INDEX", "deleted d\ndeleted e\n1 files: 0 moved, 0 changed, 2 deleted\n")
	}
}

// Two files that swap their names are two moves.
func TestSwap(t *testing.T) {
	tr := newTree(t, t.TempDir(), "a", "b")
	tr.prints("build INDEX DIR", "2 files\n", "a", "b")
	tr.rename("a", "c")
	tr.rename("b", "a")
	tr.rename("c", "b")
	tr.forget()
	tr.prints("check INDEX", "moved a -> b\nmoved b -> a\n2 files: 2 moved, 0 changed, 0 deleted\n")
}

func TestOutOfDir(t *testing.T) {
	top := t.TempDir()
	tr := newTree(t, filepath.Join(top, "dir"), "a", "b")
	tr.prints("build INDEX DIR", "2 files\n", "a", "b")
	tr.rename("a", "../a")
	_, err := os.Stat(filepath.Join(top, "a"))
	tr.must(err)
	tr.prints("check INDEX", "moved a -> "+top+"/a\n2 files: 1 moved, 0 changed, 0 deleted\n")

	// All of it moves, and goes.
	tr.rename("../a", "a")
	tr.rename("", "../moved")
	old := tr.dir
	tr.dir = filepath.Join(top, "moved")
	tr.forget()
	tr.prints("check INDEX", "moved "+old+"/a -> a\nmoved "+old+"/b -> b\n2 files: 2 moved, 0 changed, 0 deleted\n")
	tr.must(os.RemoveAll(tr.dir))
	tr.dir = old
	tr.prints("update INDEX", "deleted a\ndeleted b\n2 files: 0 moved, 0 changed, 2 deleted, 0 new\n")
}

// Names that are no text, and what is no file of the tree.
func TestNames(t *testing.T) {
	tr := newTree(t, t.TempDir(), "\xff", "new\nline", "plain -> \u00e9", `"quoted\`)
	tr.must(os.Symlink("nowhere", tr.path("link")))
	tr.must(syscall.Mkfifo(tr.path("fifo"), 0o600))
	tr.index = tr.path("index") // does not index itself
	tr.prints("build INDEX DIR", "4 files\n", `"quoted\`, "new\nline", "plain -> \u00e9", "\xff")
	tr.prints("update INDEX", "4 files: 0 moved, 0 changed, 0 deleted, 0 new\n")
	tr.remove("\xff")
	tr.remove("new\nline")
	q := func(path string) string { return `"` + tr.dir + "/" + path + `"` }
	var out bytes.Buffer
	run([]string{"check", tr.index}, &out, &out)
	want := "deleted " + q(`new\nline`) + "\ndeleted " + q(`\xff`) + "\n4 files: 0 moved, 0 changed, 2 deleted\n"
	if out.String() != want {
		t.Errorf("%s, want %s", out.String(), want)
	}
}

// The file system is mounted elsewhere, and another one in the tree.
func TestMounts(t *testing.T) {
	top := t.TempDir()
	tr := newTree(t, filepath.Join(top, "first"))
	tool := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			if os.Getenv("CI") == "" {
				t.Skipf("%s: %v: %s", name, err, out)
			}
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	mount := func(dir string, args ...string) {
		t.Helper()
		tr.must(os.MkdirAll(dir, 0o755))
		tool("mount", append(args, dir)...)
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	}
	image := filepath.Join(top, "image")
	// unmount waits until the file system is gone, and all names with it that the kernel
	// remembers. A mount namespace that another test makes meanwhile keeps it, and the loop
	// device.
	unmount := func(dir string) {
		t.Helper()
		tr.must(syscall.Unmount(dir, 0))
		for end := time.Now().Add(time.Minute); isLoop(image); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is mounted elsewhere", image)
			}
		}
	}
	tr.must(os.WriteFile(image, nil, 0o644))
	tr.must(os.Truncate(image, 16<<20))
	tool("mkfs.ext4", "-q", "-F", image)
	mount(tr.dir, "-o", "loop", image)
	tr.write("a/file", "file")
	tr.write("a/gone", "gone")
	mount(tr.path("a/other"), "-t", "tmpfs", "none")
	tr.write("a/other/file", "other")
	mount(tr.path("a/again"), "--bind", tr.path("a"))
	tr.dir = tr.path("a")
	tr.prints("build INDEX DIR", "2 files\n", "file", "gone")

	first := filepath.Join(top, "first")
	for _, dir := range []string{"a/again", "a/other"} {
		tr.must(syscall.Unmount(filepath.Join(first, dir), 0))
	}
	unmount(first)
	var out bytes.Buffer
	if run([]string{"check", tr.index}, io.Discard, &out) != 1 || !strings.Contains(out.String(), "mounted") {
		t.Errorf("not mounted: %s", out.String())
	}
	second := filepath.Join(top, "second")
	mount(second, "-o", "loop", image)
	old := tr.dir
	tr.dir = second
	tr.rename("a", "b")
	tr.rename("b/file", "b/sub/moved")
	tr.remove("b/gone")
	unmount(second)
	mount(second, "-o", "loop", image)
	tr.prints("check INDEX", "moved "+old+"/file -> b/sub/moved\ndeleted "+old+"/gone\n2 files: 1 moved, 0 changed, 1 deleted\n")

	// Out of the indexed directory, and no one has looked there since.
	tr.rename("b/sub/moved", "moved")
	unmount(second)
	mount(second, "-o", "loop", image)
	tr.prints("update INDEX", "moved "+old+"/file -> ?\ndeleted "+old+"/gone\n2 files: 1 moved, 0 changed, 1 deleted, 0 new\n")
	tr.rename("moved", "b/moved")
	tr.prints("update INDEX", "moved "+old+"/file -> b/moved\n1 files: 1 moved, 0 changed, 0 deleted, 0 new\n")
}

// isLoop tells whether a loop device is made of a file.
func isLoop(file string) bool {
	devices, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	return slices.ContainsFunc(devices, func(device string) bool {
		text, _ := os.ReadFile(device)
		return strings.TrimSpace(string(text)) == file
	})
}

func TestNoCapability(t *testing.T) {
	tr := newTree(t, t.TempDir(), "file")
	tr.prints("build INDEX DIR", "1 files\n", "file")
	tr.must(os.Chmod(tr.index, 0o644))
	tr.must(os.Chmod(filepath.Dir(filepath.Dir(tr.index)), 0o755))
	type result struct {
		status    int
		out, errs string
	}
	done := make(chan result)
	go func() {
		// Without the user ID of root for files a thread is without the capabilities for
		// them. It ends with the goroutine.
		runtime.LockOSThread()
		syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		var out, errs bytes.Buffer
		status := run([]string{"check", tr.index}, &out, &errs)
		done <- result{status, out.String(), errs.String()}
	}()
	want := result{1, "", "fileindex: to open files by their handles takes root or the capability CAP_DAC_READ_SEARCH\n"}
	if got := <-done; got != want {
		t.Errorf("%+v", got)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range []string{"", "build", "build x", "build x y z", "check", "check x y", "update", "-h", "other x y"} {
		var out, errs bytes.Buffer
		if status := run(strings.Fields(args), &out, &errs); status != 2 || out.Len() > 0 || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: %d, %s, %s", args, status, out.String(), errs.String())
		}
	}
	missing := filepath.Join(t.TempDir(), "missing")
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", missing}, {"update", missing}, {"check", bad}, {"build", bad, missing}, {"build", bad, "/proc/self"}} {
		var out, errs bytes.Buffer
		if status := run(args, &out, &errs); status != 1 || out.Len() > 0 || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%q: %d, %s, %s", args, status, out.String(), errs.String())
		}
	}
}
