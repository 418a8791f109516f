//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// CgroupIDAt returns the ID of a cgroup: the 64-bit number that the kernel knows it
// by, in BPF programs and in [PIDFD_GET_INFO] for example, and does not use again
// until the next boot. path is its directory on cgroup2 (or a file in it, which has
// an ID of its own); a relative one starts at dirfd, or at the working directory if
// that is [AT_FDCWD], and an empty one is the file dirfd itself. The ID comes from the file
// handle, Linux 5.5 (fs/kernfs/mount.c): st_ino has only half of it on a 32-bit kernel.
//
// Errors: EINVAL if the file is not on cgroup2; those of any path.
func CgroupIDAt(dirfd int, path string) (uint64, error) {
	fd := dirfd
	if path != "" {
		var err error
		if fd, err = openat(dirfd, path, O_PATH); err != nil {
			return 0, err
		}
		defer syscall.Close(fd)
	}
	if err := proveCgroup2(fd, path); err != nil {
		return 0, err
	}
	h, _, err := NameToHandleAt(fd, "", AT_EMPTY_PATH)
	if err != nil {
		return 0, err
	}
	id, ok := h.KernfsID()
	if !ok {
		return 0, failed("name_to_handle_at", fdSubject(fd), syscall.EOPNOTSUPP).as(errors.ErrUnsupported)
	}
	return id, nil
}

// OpenCgroup opens the directory of the cgroup with this ID. cgroup2FD is any
// descriptor on cgroup2 that is open for more than O_PATH. It is
// [OpenByHandleAt], and needs CAP_DAC_READ_SEARCH.
//
// Errors: ESTALE, which matches [os.ErrNotExist], if there is no such cgroup any
// more, or none that is visible from where cgroup2 is mounted. ENOTDIR if the ID is
// that of a file. EINVAL if cgroup2FD is not on cgroup2: on another file system
// the same number would open another file. EPERM.
func OpenCgroup(cgroup2FD int, id uint64) (*os.File, error) {
	if err := proveCgroup2(cgroup2FD, ""); err != nil {
		return nil, err
	}
	h := KernfsHandle(id)
	f, err := OpenByHandleAt(cgroup2FD, h, os.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil || is64bit {
		return f, err
	}
	// A 32-bit kernel takes an upper half of 0, which is what st_ino leaves of an ID, for any
	// (fs/kernfs/dir.c).
	var opened uint64
	if useErr := withFD(f, func(fd int) { opened, err = CgroupIDAt(fd, "") }); useErr != nil {
		err = useErr
	}
	if err == nil && opened == id {
		return f, nil
	}
	f.Close()
	if err == nil {
		err = failed("open_by_handle_at", h.String(), syscall.ESTALE).as(os.ErrNotExist)
	}
	return nil, err
}

// proveCgroup2 returns nil if fd is on cgroup2. The shape of a handle would prove
// nothing: pidfs and kernfs have the same.
func proveCgroup2(fd int, path string) error {
	magic, errno := fsMagic(fd)
	switch {
	case errno != 0:
		return failed("fstatfs", fdSubject(fd), errno)
	case magic == unix.CGROUP2_SUPER_MAGIC:
		return nil
	case path == "":
		path = "descriptor " + strconv.Itoa(fd)
	}
	return refused(syscall.EINVAL, path+" is not on a cgroup2 file system")
}
