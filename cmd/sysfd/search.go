//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// search returns a path of the file in or below dir. It compares handles, for the numbers of inodes are not
// enough, and stays on the file system. On a terminal it says how far it is.
func search(c *call, f *os.File, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	want, mount, err := sysfd.NameToHandleAt(int(f.Fd()), "", sysfd.AT_EMPTY_PATH)
	if err != nil {
		return "", err
	}
	is, err := f.Stat()
	if err != nil {
		return "", err
	}
	here := sameSystem(f, is)
	if top, err := os.Stat(dir); err != nil {
		return "", err
	} else if !here(dir, top) {
		return "", fmt.Errorf("%s is on another file system than the file, which is on mount %v (see findmnt)", dir, mount)
	}
	progress := progressTo(c)
	defer progress("")
	found, seen, unread := "", 0, 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir && !errors.Is(err, os.ErrNotExist) && seen == 0 {
				return err
			}
			unread++ // not for us, or gone since
			return nil
		}
		if seen++; seen%1000 == 0 {
			progress(fmt.Sprintf("%d files looked at, now in %s", seen, filepath.Dir(path)))
		}
		if d.Type() == is.Mode().Type() {
			h, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, path, 0)
			if err == nil && h == want {
				if there, err := os.Lstat(path); err == nil && os.SameFile(is, there) {
					found = path
					return fs.SkipAll
				}
			}
		}
		if d.IsDir() && path != dir {
			if info, err := d.Info(); err != nil || !here(path, info) {
				return fs.SkipDir
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case found != "":
		return found, nil
	case unread > 0:
		return "", fmt.Errorf("the file is there, but not among the %d in and below %s; %d directories could not be read", seen, dir, unread)
	}
	return "", fmt.Errorf("the file is there, but not among the %d in and below %s", seen, dir)
}

// sameSystem returns a function that tells whether a directory is on the file system of f. On btrfs each subvolume
// has a device number of its own.
func sameSystem(f *os.File, is os.FileInfo) func(path string, info os.FileInfo) bool {
	device := func(i os.FileInfo) uint64 { return uint64(i.Sys().(*syscall.Stat_t).Dev) }
	onBtrfs := func(fd int) bool {
		var system unix.Statfs_t
		return unix.Fstatfs(fd, &system) == nil && uint32(system.Type) == unix.BTRFS_SUPER_MAGIC
	}
	if !onBtrfs(int(f.Fd())) {
		return func(_ string, info os.FileInfo) bool { return device(info) == device(is) }
	}
	ref, err := sysfd.FileRefAt(int(f.Fd()), "", sysfd.AT_EMPTY_PATH)
	return func(path string, info os.FileInfo) bool {
		if device(info) == device(is) {
			return true
		}
		fd, errOpen := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0) // which mounts nothing
		if errOpen != nil {
			return false
		}
		defer unix.Close(fd)
		there, errThere := sysfd.FileRefAt(fd, "", sysfd.AT_EMPTY_PATH)
		return onBtrfs(fd) && err == nil && errThere == nil && there.FS == ref.FS
	}
}

// progressTo returns a function that shows a line on the terminal, at most five times a second, and
// takes it away if it is empty. Where stderr is no terminal it does nothing.
func progressTo(c *call) func(string) {
	f, ok := c.err.(*os.File)
	if !ok {
		return func(string) {}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return func(string) {}
	}
	var last time.Time
	return func(text string) {
		if text != "" && time.Since(last) < 200*time.Millisecond || text == "" && last.IsZero() {
			return
		}
		last = time.Now()
		text = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '?'
			}
			return r
		}, text)
		if runes := []rune(text); size.Col > 1 && len(runes) >= int(size.Col) {
			text = string(runes[:size.Col-1])
		}
		fmt.Fprintf(f, "\r\x1b[K%s", text)
	}
}
