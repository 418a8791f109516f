//go:build linux

package sysfd

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A CgroupID names a cgroup: the 64-bit number that the kernel knows it by, in BPF programs
// and in [PidFDInfo.CgroupID] for example, and does not use again until the next boot. On a
// 32-bit kernel st_ino of its directory is just the low half of it.
type CgroupID uint64

// String returns the ID in decimal.
func (id CgroupID) String() string { return strconv.FormatUint(uint64(id), 10) }

// CgroupIDOf returns the ID of the cgroup whose directory on cgroup2 is open as fd. A file in
// the directory has an ID of its own. The ID comes from the file handle, Linux 5.5
// (fs/kernfs/mount.c).
//
// Errors: EINVAL if the file is not on cgroup2. EBADF if fd is not open.
func CgroupIDOf(fd int) (CgroupID, error) { return cgroupID(fd, label{fd: fd}) }

// CgroupIDAt is [CgroupIDOf] for the directory at path. dirfd, path and flags are those of
// [NameToHandleAt]; the flags are [AT_EMPTY_PATH] and [AT_SYMLINK_FOLLOW]. The file handle
// needs Linux 5.5.
//
// Errors: those of CgroupIDOf and of any path. EINVAL for other flags.
func CgroupIDAt(dirfd int, path string, flags int) (CgroupID, error) {
	fd, what, opened, err := holdAt(dirfd, path, flags)
	if err != nil {
		return 0, err
	}
	if opened {
		defer syscall.Close(fd)
	}
	return cgroupID(fd, what)
}

// cgroupID is CgroupIDOf with what errors are to name.
func cgroupID(fd int, what label) (CgroupID, error) {
	h, err := handleOnCgroup2(fd, what)
	if err != nil {
		return 0, err
	}
	id, ok := h.KernfsID()
	if !ok {
		return 0, failed("name_to_handle_at", "of "+what.String(), syscall.EOPNOTSUPP).as(errors.ErrUnsupported)
	}
	return CgroupID(id), nil
}

// OpenCgroup opens the directory of the cgroup with this ID. cgroup2FD is any
// descriptor on cgroup2 that is open for more than O_PATH. It is
// [OpenByHandleAt], and needs CAP_DAC_READ_SEARCH.
//
// Errors: ESTALE, which matches [os.ErrNotExist], if there is no such cgroup any
// more, or none that is visible from where cgroup2 is mounted. ENOTDIR if the ID is
// that of a file. EINVAL if cgroup2FD is not on cgroup2: on another file system
// the same number would open another file. EPERM.
func OpenCgroup(cgroup2FD int, id CgroupID) (*os.File, error) {
	if _, err := handleOnCgroup2(cgroup2FD, label{fd: cgroup2FD}); err != nil {
		return nil, err
	}
	h := KernfsHandle(uint64(id))
	f, err := OpenByHandleAt(cgroup2FD, h, os.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil || is64bit {
		return f, err
	}
	// A 32-bit kernel takes an upper half of 0, which is what st_ino leaves of an ID, for any
	// (fs/kernfs/dir.c).
	var opened CgroupID
	if errUse := withFD(f, func(fd int) { opened, err = CgroupIDOf(fd) }); errUse != nil {
		err = errUse
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

// A KillOption changes what [KillCgroup] does; 0 is none.
type KillOption int

// KillOwnCgroup lets KillCgroup kill a cgroup that this process is in.
const KillOwnCgroup KillOption = 1

// KillCgroup kills all processes of the cgroup with this ID and of those below it, as SIGKILL does,
// and none escapes by forking meanwhile. It is the file cgroup.kill of cgroup2, Linux 5.14. It returns
// when the processes have been told, not when they have ended: then cgroup.events says "populated 0".
// cgroup2FD is that of [OpenCgroup].
//
// Errors: those of OpenCgroup. EBUSY if this process is in the cgroup or below it and options are
// without [KillOwnCgroup]. EINVAL for the root cgroup, which cannot be killed, and for unknown
// options. EOPNOTSUPP for a threaded cgroup. One that matches [errors.ErrUnsupported] before Linux 5.14.
func KillCgroup(cgroup2FD int, id CgroupID, options KillOption) error {
	if options&^KillOwnCgroup != 0 {
		return refused(syscall.EINVAL, "0x"+strconv.FormatUint(uint64(uint(options)), 16)+" is no option of KillCgroup")
	}
	dir, err := OpenCgroup(cgroup2FD, id)
	if err != nil {
		return err
	}
	defer dir.Close()
	if options&KillOwnCgroup == 0 {
		if holds, err := holdsSelf(dir); err != nil {
			return err
		} else if holds {
			return refused(syscall.EBUSY, "this process is in cgroup "+id.String()+" or below it")
		}
	}
	f, err := openIn(dir, "cgroup.kill", syscall.O_WRONLY)
	if errors.Is(err, os.ErrNotExist) {
		events, errEvents := openIn(dir, "cgroup.events", syscall.O_RDONLY)
		if errors.Is(errEvents, os.ErrNotExist) {
			return refused(syscall.EINVAL, "cgroup "+id.String()+" is the root cgroup")
		}
		if errEvents == nil {
			events.Close()
		}
		return refused(syscall.EOPNOTSUPP, "cgroup "+id.String()+" has no cgroup.kill: it needs Linux 5.14").as(errors.ErrUnsupported)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("1")
	return err
}

// holdsSelf reports whether this process is in the cgroup dir or below it.
func holdsSelf(dir *os.File) (bool, error) {
	procs, err := openIn(dir, "cgroup.procs", syscall.O_RDONLY)
	if err != nil {
		return false, err
	}
	text, err := io.ReadAll(procs)
	procs.Close()
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP): // a threaded one; the processes are those of a cgroup above
	case err != nil:
		return false, err
	}
	self := strconv.Itoa(syscall.Getpid())
	for pid := range strings.SplitSeq(string(text), "\n") {
		if pid == self {
			return true, nil
		}
	}
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		below, err := openIn(dir, e.Name(), syscall.O_DIRECTORY)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed, and so empty
		}
		if err != nil {
			return false, err
		}
		holds, err := holdsSelf(below)
		below.Close()
		if holds || err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			return holds, err
		}
	}
	return false, nil
}

// openIn opens a file of a directory.
func openIn(dir *os.File, name string, flags int) (f *os.File, err error) {
	errUse := withFD(dir, func(dirfd int) {
		var fd int
		if fd, err = openat(dirfd, name, flags); err == nil {
			f = os.NewFile(uintptr(fd), dir.Name()+"/"+name)
		}
	})
	if errUse != nil {
		err = errUse
	}
	return f, err
}

// handleOnCgroup2 returns the handle of a file, if that is on cgroup2. The shape of a handle
// proves nothing, for pidfs and kernfs have the same, but leaves out file systems whose server
// may not answer when they are asked for their type.
func handleOnCgroup2(fd int, what label) (FileHandle, error) {
	h, _, err := NameToHandleAt(fd, "", AT_EMPTY_PATH)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return h, err
	}
	switch h.Type() {
	case FILEID_KERNFS, FILEID_INO32_GEN: // the second before Linux 5.5
		magic, errno := fsMagic(fd)
		if errno != 0 {
			return h, failed("fstatfs", "of "+what.String(), errno)
		}
		if magic == unix.CGROUP2_SUPER_MAGIC {
			return h, nil
		}
	}
	return h, refused(syscall.EINVAL, what.String()+" is not on a cgroup2 file system")
}
