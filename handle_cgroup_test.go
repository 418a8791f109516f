//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
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

func init() {
	// It forks as fast as it can, and each of its children does.
	children["fork-bomb"] = func(args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		words := self(strconv.Itoa(n / 2))
		for range 2 {
			if n > 1 {
				os.StartProcess(words[0], words, &os.ProcAttr{})
			}
		}
		time.Sleep(time.Hour)
		return nil
	}
}

// All of a tree is killed, also what it forks meanwhile, and nothing else.
func TestKillCgroup(t *testing.T) {
	needsRoot(t)
	reliesOn(t, clones)
	keepsDescriptors(t)
	dir := filepath.Join(t.TempDir(), "cgroup2")
	mountAt(t, "none", dir, "cgroup2", "rw")
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	make := func(parts ...string) (path string, id CgroupID) {
		path = filepath.Join(append([]string{dir}, parts...)...)
		if err := os.Mkdir(path, 0o700); err != nil {
			lacks(t, "a cgroup2 to make groups in: "+err.Error())
		}
		t.Cleanup(func() { removeCgroup(t, path) })
		id, err := CgroupIDAt(AT_FDCWD, path, 0)
		if err != nil {
			t.Fatal(err)
		}
		return path, id
	}
	name := fmt.Sprintf("sysfd-test-kill-%d", os.Getpid())
	path, id := make(name)
	inner, innerID := make(name, "inner")

	rootID, err := CgroupIDOf(int(root.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	kill := func(id CgroupID, options KillOption) error { return KillCgroup(int(root.Fd()), id, options) }
	matches(t, kill(rootID, 0), syscall.EBUSY)
	matches(t, kill(rootID, KillOwnCgroup), syscall.EINVAL)
	matches(t, kill(id, 6), syscall.EINVAL)
	matches(t, kill(1<<60, 0), syscall.ESTALE, os.ErrNotExist)

	// In a cgroup of its own, and in one above its own.
	enter := func(path string) {
		if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	enter(inner)
	errOwn, errAbove := kill(innerID, 0), kill(id, 0)
	enter(dir)
	matches(t, errOwn, syscall.EBUSY)
	matches(t, errAbove, syscall.EBUSY)

	if _, err := os.Stat(filepath.Join(path, "cgroup.kill")); err != nil {
		if olderThan(t, "5.14") {
			matches(t, kill(id, 0), errors.ErrUnsupported)
			return
		}
		t.Fatal(err)
	}
	group, err := os.Open(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	bystander := openPidFD(t, sleeper(t).Process.Pid)
	words := self(strconv.Itoa(fewer(200)))
	t.Setenv(childVar, "fork-bomb")
	p, err := StartProcess(words[0], words, &os.ProcAttr{Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for { // until it is in full swing
		text, err := os.ReadFile(filepath.Join(inner, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(text), "\n") > fewer(50) {
			break
		}
	}
	if err := kill(id, 0); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(t.Context(), 0); err != nil || r.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", r, err)
	}
	for {
		text, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "populated 0") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	isRunning(t, bystander, WaitExited)
}

// removeCgroup removes a cgroup once the kernel has buried what was in it.
func removeCgroup(t *testing.T, path string) {
	for range 1000 {
		if err := syscall.Rmdir(path); err != syscall.EBUSY {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%s is busy", path)
}
