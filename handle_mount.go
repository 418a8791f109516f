//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
)

// OpenMount opens the place where the mount with this ID is: a descriptor from
// which [OpenByHandleAt] opens the handles of its file system. A unique ID takes
// statmount(2) and, to make sure, [AT_HANDLE_MNT_ID_UNIQUE], Linux 6.12, and works without
// /proc; for the other kind /proc/thread-self/mountinfo is read.
//
// What is returned is that mount and no other: if another one lies on top of it, or
// a reusable ID has come to mean another one meanwhile, that is an error.
//
// Errors: ENOENT, which matches [os.ErrNotExist], if there is no such mount in the
// mount namespace of the caller, or none below its root directory. ESTALE, which
// matches it too, if the mount is there but covered by another one. One that
// matches [errors.ErrUnsupported] where the kernel lacks statmount or handles to
// verify with, or /proc is missing. EINVAL for a mount of a file that is neither a directory nor a
// regular file. EPERM for a unique ID of a mount that exists but is not below the
// root directory of an unprivileged caller. Those of open(2) for the place.
func OpenMount(id MountID) (*os.File, error) {
	path, err := mountPoint(id)
	if err != nil {
		return nil, err
	}
	return id.openAt(path)
}

// openAt is OpenMount where the path is known.
func (id MountID) openAt(path string) (*os.File, error) {
	// First without opening it: what lies on top could be a device.
	place, err := openat(AT_FDCWD, path, O_PATH|syscall.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(place)
	if err := id.verify(place, path); err != nil {
		return nil, err
	}
	what, errno := statFD(place)
	if errno != 0 {
		return nil, failed("statx", path, errno)
	}
	var fd int
	switch what.kind() {
	case syscall.S_IFDIR:
		fd, err = openat(place, ".", syscall.O_DIRECTORY)
	case syscall.S_IFREG:
		// That very file, and not what may have come to its path.
		fd, err = openat(AT_FDCWD, "/proc/thread-self/fd/"+strconv.Itoa(place), syscall.O_NONBLOCK|syscall.O_NOCTTY)
	default:
		err = refused(syscall.EINVAL, "mount "+id.String()+" on "+path+" is of a special file")
	}
	if err != nil {
		return nil, err
	}
	if err := id.verify(fd, path); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// String returns the ID in decimal.
func (id MountID) String() string { return strconv.FormatUint(uint64(id), 10) }

// mountPoint returns the path where a mount was.
func mountPoint(id MountID) (string, error) {
	if id.Unique() {
		path, errno := statmountPoint(uint64(id))
		if errno != 0 {
			return "", failed("statmount", "of mount "+id.String(), errno)
		}
		return path, nil
	}
	mounts, err := readMountinfo()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if MountID(m.id) == id {
			return m.point, nil
		}
	}
	return "", refused(syscall.ENOENT, "there is no mount "+id.String())
}

// verify makes sure that fd, which was opened at path, is on the mount.
func (id MountID) verify(fd int, path string) error {
	is, err := mountIDOf(fd, id.Unique())
	if err == nil && is != id {
		err = refused(syscall.ESTALE, "mount "+is.String()+" is at "+path+", not mount "+id.String()).as(os.ErrNotExist)
	}
	return err
}

// mountIDOf returns the ID of the mount that fd was opened on.
func mountIDOf(fd int, unique bool) (MountID, error) {
	flags := AT_EMPTY_PATH
	if unique {
		flags |= AT_HANDLE_MNT_ID_UNIQUE
	}
	var h FileHandle
	// Before Linux 6.5 there is no AT_HANDLE_FID, and fewer file systems have handles.
	for _, fid := range []int{AT_HANDLE_FID, 0} {
		id, errno := nameToHandleAt(fd, "", &h.h, flags|fid)
		switch errno {
		case 0:
			return MountID(id), nil
		case syscall.EINVAL, syscall.EOPNOTSUPP, syscall.EOVERFLOW, syscall.ENOSYS:
		default:
			return 0, failed("name_to_handle_at", fdSubject(fd), errno)
		}
	}
	if unique {
		return 0, failed("name_to_handle_at", fdSubject(fd), syscall.EOPNOTSUPP).as(errors.ErrUnsupported)
	}
	id, err := fdinfoMountID(fd)
	return MountID(id), err
}
