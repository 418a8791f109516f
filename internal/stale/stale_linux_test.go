package stale

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	return l
}

func leave(t *testing.T, path string) { listen(t, path).Close() }

// has fails the test if the directory of path has something else than path, if exists, and nothing
// if not.
func has(t *testing.T, path string, exists bool) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) || !exists {
			t.Errorf("%s is there", e.Name())
		}
	}
	if exists && len(entries) == 0 {
		t.Errorf("%s is gone", path)
	}
}

// lives fails the test if no one listens at path.
func lives(t *testing.T, path string) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("it has lost its path: ", err)
	}
	c.Close()
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := Remove(path); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	leave(t, path)
	if err := Remove(path); err != nil {
		t.Errorf("nobody there: %v", err)
	}
	has(t, path, false)

	l := listen(t, path)
	if err := Remove(path); err != unix.EADDRINUSE {
		t.Errorf("somebody there: %v", err)
	}
	has(t, path, true)
	lives(t, path)
	l.Close()

	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err != unix.EADDRINUSE {
		t.Errorf("a file: %v", err)
	}
	has(t, path, true)
	elsewhere := filepath.Join(t.TempDir(), "s")
	leave(t, elsewhere)
	os.Remove(path)
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err != unix.EADDRINUSE {
		t.Errorf("a symbolic link: %v", err)
	}
	has(t, path, true)
	has(t, elsewhere, true)
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path + "/s"); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("no directory: %v", err)
	}
}

// A program that does not ask can put its socket there at any moment.
func TestRemoveOvertaken(t *testing.T) {
	defer func() { beforeMoving = nil }()
	path := filepath.Join(t.TempDir(), "s")
	leave(t, path)
	beforeMoving = func() {
		os.Remove(path)
		listen(t, path)
	}
	if err := Remove(path); err != unix.EADDRINUSE {
		t.Error(err)
	}
	has(t, path, true)
	lives(t, path)

	// Or remove what is there.
	os.Remove(path)
	leave(t, path)
	beforeMoving = func() { os.Remove(path) }
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	has(t, path, false)
}

// bind(2) makes the file first, and there is a moment when nobody seems to have it.
func TestRemoveWhileBinding(t *testing.T) {
	dir := t.TempDir() + "/"
	listen(t, dir+"s")
	var fds [2]int
	for i, path := range []string{dir, dir + "s"} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	var is unix.Stat_t
	if err := unix.Fstat(fds[1], &is); err != nil {
		t.Fatal(err)
	}
	if err := removeNode(fds[0], dir, "s", fds[1], &is); err != unix.EADDRINUSE {
		t.Error(err)
	}
	has(t, dir+"s", true)
	lives(t, dir+"s")
}

// A file gets its name back, also where renameat2 does not keep what is there, and never in the
// place of another one.
func TestMoveBack(t *testing.T) {
	defer func() { renameNoReplace = unix.RENAME_NOREPLACE }()
	for _, flags := range []uint{unix.RENAME_NOREPLACE, 1 << 31} { // no file system has the other
		renameNoReplace = flags
		dir := t.TempDir()
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		leave(t, filepath.Join(dir, "aside"))
		if err := moveBack(fd, "aside", "s"); err != nil {
			t.Error(err)
		}
		has(t, filepath.Join(dir, "s"), true)
		listen(t, filepath.Join(dir, "aside"))
		if err := moveBack(fd, "s", "aside"); err != unix.EEXIST {
			t.Errorf("in the place of another: %v", err)
		}
		lives(t, filepath.Join(dir, "aside"))
	}
}

// onThread calls f on a thread that ends with it, after prepare has changed that thread.
func onThread(t *testing.T, prepare func() error, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := prepare()
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; errors.Is(err, os.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		t.Skip("not permitted, or not here: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
}

// A directory may be one in which a process can write and not read.
func TestRemoveUnreadable(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // that of t has a folder above that is not for nobody
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	leave(t, path)
	if err := errors.Join(os.Chmod(path, 0o777), os.Chmod(dir, 0o333)); err != nil {
		t.Fatal(err)
	}
	onThread(t, func() error {
		if os.Getuid() != 0 {
			return nil
		}
		if err := unix.Setfsuid(65534); err != nil {
			return err
		}
		return unix.Faccessat(unix.AT_FDCWD, path, 0, 0)
	}, func() {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	has(t, path, false)
}

func TestRemoveWithoutProc(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	rights.Proc(t)
	rights.MountedRoot(t)
	path := filepath.Join(t.TempDir(), "s")
	leave(t, path)
	onThread(t, func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		return unix.Mount("none", "/proc", "tmpfs", 0, "")
	}, func() {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	})
	has(t, path, false)
}
