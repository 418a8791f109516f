package stale

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
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

// has fails the test if the directory of path has something else than path, if exists, and nothing if not.
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
