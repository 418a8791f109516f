//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// search returns a path of the file in or below dir. It compares handles, because inode numbers are not enough, and
// stays on the file system. On a terminal it shows its progress.
func search(c *call, f *os.File, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // because the walk does not follow dir itself either
	}
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
	here := sameSystem(f)
	if top, err := here(dir); err != nil {
		return "", err
	} else if !top {
		return "", fmt.Errorf("%s is not on the file system of the file, which is on mount %v (see findmnt)", dir, mount)
	}
	progress := progressTo(c)
	defer progress("")
	found, seen, unread := "", 0, 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir && !errors.Is(err, os.ErrNotExist) && seen == 0 {
				return err
			}
			unread++ // not permitted, or gone meanwhile
			return nil
		}
		if seen++; seen%1000 == 0 {
			progress(fmt.Sprintf("%d files looked at, now in %s", seen, filepath.Dir(path)))
		}
		if d.IsDir() && path != dir {
			on, err := here(path)
			if err != nil {
				unread++
			}
			if !on {
				return fs.SkipDir
			}
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
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case found != "":
		return found, nil
	case unread > 0:
		return "", fmt.Errorf("the file exists, but is not among the %d in and below %s; %d directories could not be read", seen, dir, unread)
	}
	return "", fmt.Errorf("the file exists, but is not among the %d in and below %s", seen, dir)
}

// sameSystem returns a function that reports whether a directory is on the file system of f. That function does not
// wait for the server of another file system. On btrfs each subvolume has a device number of its own. On overlayfs
// files can have the device numbers of the file systems below.
func sameSystem(f *os.File) func(dir string) (bool, error) {
	own, errOwn := deviceOf(int(f.Fd()), "")
	magic := magicOf(int(f.Fd()))
	ref, errRef := sysfd.FileRefAt(int(f.Fd()), "", sysfd.AT_EMPTY_PATH)
	return func(dir string) (bool, error) {
		if errOwn != nil {
			return false, errOwn
		}
		device, err := deviceOf(unix.AT_FDCWD, dir)
		if err != nil || device == own {
			return err == nil, err
		}
		if magic != unix.BTRFS_SUPER_MAGIC && magic != unix.OVERLAYFS_SUPER_MAGIC {
			return false, nil
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0) // which triggers no automount
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		if magicOf(fd) != magic {
			return false, nil
		}
		there, err := sysfd.FileRefAt(fd, "", sysfd.AT_EMPTY_PATH)
		return magic == unix.OVERLAYFS_SUPER_MAGIC || errRef == nil && err == nil && there.FS == ref.FS, nil
	}
}

func magicOf(fd int) uint32 {
	var system unix.Statfs_t
	if unix.Fstatfs(fd, &system) != nil {
		return 0
	}
	return uint32(system.Type)
}

func deviceOf(dirfd int, path string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(dirfd, path, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return unix.Mkdev(st.Dev_major, st.Dev_minor), err
}

// progressTo returns a function that shows a line on the terminal, at most five times a second, and removes it for an
// empty text. If stderr is not a terminal, that function does nothing.
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
		text = harmless(text)
		if runes := []rune(text); size.Col > 1 && len(runes) >= int(size.Col) {
			text = string(runes[:size.Col-1])
		}
		fmt.Fprintf(f, "\r\x1b[K%s", text)
	}
}
