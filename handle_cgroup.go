//go:build linux

package sysfd

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A CgroupID names a cgroup within its hierarchy: the 64-bit number that the kernel knows it by. On
// cgroup2, which the IDs in BPF programs (bpf_get_current_cgroup_id) and in [PidFDInfo.CgroupID]
// are of, it is not used again until the next boot. On a 32-bit kernel st_ino of its directory is
// just the low half of it.
type CgroupID uint64

// String returns the ID in decimal.
func (id CgroupID) String() string { return strconv.FormatUint(uint64(id), 10) }

// A CgroupHierarchy names the hierarchy that a cgroup belongs to. In another one the same CgroupID
// names another cgroup. It is the text between the two colons of a line in /proc/PID/cgroup: empty
// for cgroup2, of which there is one, and for those of cgroup v1 their controllers, their name, or
// both, such as "cpu,cpuacct" and "name=systemd". A hierarchy of cgroup v1 that was unmounted
// without any cgroups in it is gone, and the next one with that name begins to count IDs anew.
type CgroupHierarchy string

// Cgroup2 is the hierarchy of cgroup2.
const Cgroup2 CgroupHierarchy = ""

// CgroupIDOf returns the ID of the cgroup whose directory is open as fd, and the hierarchy in which
// that is its ID. A file in the directory has an ID of its own.
//
// The ID comes from the file handle, which since Linux 5.5 is of type [FILEID_KERNFS]
// (fs/kernfs/mount.c). Before, since Linux 4.14, the handle is of type [FILEID_INO32_GEN] and has
// in its two halves what the kernel and BPF programs have in one number of 64 bits (union
// kernfs_node_id); this has not been tried on such a kernel. On cgroup2 it is a matter of two
// system calls. For cgroup v1 it reads /proc/thread-self/mountinfo and /proc/thread-self/cgroup.
//
// Errors: EINVAL if the file is on no cgroup file system; sysfs and pidfs, whose handles look
// alike, are none. EBADF if fd is not open. On cgroup v1 one that matches [errors.ErrUnsupported]
// if it is not known which hierarchy it is: without /proc, or where that is not mounted in the
// mount namespace of the caller.
func CgroupIDOf(fd int) (CgroupID, CgroupHierarchy, error) { return cgroupID(fd, label{fd: fd}) }

// CgroupIDAt is [CgroupIDOf] for the directory at path. dirfd, path and flags are those of
// [NameToHandleAt]; the flags are [AT_EMPTY_PATH] and [AT_SYMLINK_FOLLOW]. Linux 5.5, as there.
//
// Errors: those of CgroupIDOf and of any path. EINVAL for other flags.
func CgroupIDAt(dirfd int, path string, flags int) (CgroupID, CgroupHierarchy, error) {
	fd, what, opened, err := holdAt(dirfd, path, flags)
	if err != nil {
		return 0, "", err
	}
	if opened {
		defer syscall.Close(fd)
	}
	return cgroupID(fd, what)
}

// cgroupID is CgroupIDOf with what errors are to name.
func cgroupID(fd int, what label) (CgroupID, CgroupHierarchy, error) {
	h, v1, err := cgroupHandle(fd, what)
	if err != nil {
		return 0, "", err
	}
	id, _ := idInHandle(h)
	var hierarchy CgroupHierarchy
	if v1 {
		if hierarchy, err = hierarchyOf(fd, what); err != nil {
			return 0, "", err
		}
	}
	return id, hierarchy, nil
}

// cgroupHandle returns the handle of a file, if that is on a cgroup file system, and whether it is
// of version 1. The shape of a handle proves nothing, for pidfs and kernfs have the same, but
// leaves out file systems whose server may not answer when they are asked for their type.
func cgroupHandle(fd int, what label) (h FileHandle, v1 bool, err error) {
	h, _, err = NameToHandleAt(fd, "", AT_EMPTY_PATH)
	if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return h, false, err
	}
	if _, ok := idInHandle(h); ok {
		magic, errno := fsMagic(fd)
		if errno != 0 {
			return h, false, failed("fstatfs", "of "+what.String(), errno)
		}
		if magic == unix.CGROUP2_SUPER_MAGIC || magic == unix.CGROUP_SUPER_MAGIC {
			return h, magic == unix.CGROUP_SUPER_MAGIC, nil
		}
	}
	return h, false, refused(syscall.EINVAL, what.String()+" is not on a cgroup file system")
}

// idInHandle returns the ID in a handle that is known to be of a cgroup file system. Before Linux
// 5.5 it is of the second type, with the inode number and its generation, each of 32 bits, in the
// order in which the kernel's 64 bits have them.
func idInHandle(h FileHandle) (CgroupID, bool) {
	if t := h.Type(); t != FILEID_KERNFS && t != FILEID_INO32_GEN || h.Len() != 8 {
		return 0, false
	}
	return CgroupID(native64(h.h.FHandle[:8])), true
}

// withID returns the handle of the same type with this ID.
func withID(h FileHandle, id CgroupID) FileHandle {
	putNative64(h.h.FHandle[:8], uint64(id))
	return h
}

// hierarchyOf returns the hierarchy of cgroup v1 that fd is on.
func hierarchyOf(fd int, what label) (CgroupHierarchy, error) {
	file, errno := statFD(fd)
	if errno != 0 {
		return "", failed("statx", "of "+what.String(), errno)
	}
	unknown := func(why string) error {
		return refused(syscall.EOPNOTSUPP, "the cgroup hierarchy of "+what.String()+" is not known: "+why).as(errors.ErrUnsupported)
	}
	var texts [2]string
	for i, name := range [...]string{"/proc/thread-self/mountinfo", "/proc/thread-self/cgroup"} {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			return "", unknown("there is no " + name)
		}
		if err != nil {
			return "", err
		}
		texts[i] = string(text)
	}
	hierarchy, ok := findHierarchy(texts[0], texts[1], DeviceID(file.dev).String())
	if !ok {
		return "", unknown("it is not mounted in this mount namespace")
	}
	return hierarchy, nil
}

// findHierarchy returns the hierarchy of cgroup v1 on a device: among those in the text of
// /proc/PID/cgroup, the one of which all controllers and the name are options of a file system on
// that device in the text of mountinfo. No two hierarchies share a controller or a name, and other
// options are no concern of this.
func findHierarchy(mountinfo, cgroups, device string) (CgroupHierarchy, bool) {
	var options []string
	for line := range strings.SplitSeq(mountinfo, "\n") {
		// Behind the mark: type, source, options of the file system.
		fields := strings.Split(line, " ")
		mark := slices.Index(fields, "-")
		if mark < 6 || mark+3 >= len(fields) || fields[2] != device || fields[mark+1] != "cgroup" {
			continue
		}
		options = strings.Split(fields[mark+3], ",")
		break
	}
	for line := range strings.SplitSeq(cgroups, "\n") {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) < 3 || fields[1] == "" { // the second is cgroup2
			continue
		}
		all := true
		for part := range strings.SplitSeq(fields[1], ",") {
			all = all && slices.Contains(options, part)
		}
		if all {
			return CgroupHierarchy(fields[1]), true
		}
	}
	return "", false
}

// OpenCgroup opens the directory of the cgroup of cgroup2 with this ID. cgroup2FD is any descriptor
// on cgroup2 that is open for more than O_PATH. It is [OpenByHandleAt], and needs
// CAP_DAC_READ_SEARCH.
//
// That capability opens all cgroups of the machine, also those outside of the cgroup namespace of
// the caller and outside of what the mount of cgroup2FD shows. [CgroupPath] tells them apart.
//
// In a user namespace CAP_DAC_READ_SEARCH of that namespace is enough since Linux 6.11 (kernel
// commit 620c266f3949), for cgroups that were delegated to it: if cgroup2FD is a directory above
// the cgroup, or the cgroup itself, the owners of it and of the directories between them have IDs
// in the user namespace, and the mount namespace belongs to that user namespace and has nothing
// mounted below cgroup2FD that it cannot unmount. All others are ESTALE there, whether they exist
// or not.
//
// Errors: ESTALE if there is no such cgroup any more, or none that this process may open. If it has
// CAP_DAC_READ_SEARCH in the initial user namespace there is none, and the error matches
// [os.ErrNotExist]. ENOTDIR if the ID is that of a file. EINVAL if cgroup2FD is not on cgroup2: in
// another hierarchy, and on another file system, the same number means something else. EPERM.
func OpenCgroup(cgroup2FD int, id CgroupID) (*os.File, error) {
	return Cgroup2.OpenCgroup(cgroup2FD, id)
}

// OpenCgroup is the function of that name for a cgroup of this hierarchy. cgroupFD is any
// descriptor on it that is open for more than O_PATH.
//
// Errors: those of the function. EINVAL if cgroupFD is on another hierarchy. Those of [CgroupIDOf].
func (c CgroupHierarchy) OpenCgroup(cgroupFD int, id CgroupID) (*os.File, error) {
	what := label{fd: cgroupFD}
	root, v1, err := cgroupHandle(cgroupFD, what)
	if err != nil {
		return nil, err
	}
	is := Cgroup2
	if v1 {
		if c == Cgroup2 {
			return nil, refused(syscall.EINVAL, what.String()+" is on cgroup v1, not on cgroup2")
		}
		if is, err = hierarchyOf(cgroupFD, what); err != nil {
			return nil, err
		}
	}
	if is != c {
		return nil, refused(syscall.EINVAL, what.String()+" is on "+is.words()+", not on "+c.words())
	}
	// The comparison is for what the kernel takes for any: an upper half of 0, which is what
	// st_ino leaves of an ID on a 32-bit kernel (fs/kernfs/dir.c), and before Linux 5.5 a
	// generation of 0.
	fd, err := openExactly(cgroupFD, withID(root, id), os.O_RDONLY|syscall.O_DIRECTORY)
	if err == nil {
		return os.NewFile(uintptr(fd), "cgroup "+id.String()), nil
	}
	if e, ok := err.(*callError); ok && e.errno == syscall.ESTALE {
		if mayOpenAll() {
			e.means = os.ErrNotExist
		} else if e.note == "" {
			e.note = "the cgroup may be there: this process may not open every one"
		}
	}
	return nil, err
}

// words is how errors name a hierarchy.
func (c CgroupHierarchy) words() string {
	if c == Cgroup2 {
		return "cgroup2"
	}
	return "the cgroup hierarchy " + strconv.Quote(string(c))
}

// CgroupPath returns the path of the cgroup of cgroup2 with this ID, such as
// "/user.slice/user-1000.slice", on the mount that cgroup2FD is on: it begins at the root directory
// of that mount, whose own path is "/". Where the mount shows all of a cgroup namespace it is the
// path that /proc/PID/cgroup has there for the processes of the cgroup. [CgroupIDAt] is the
// reverse.
//
// cgroup2FD and the privileges are those of [OpenCgroup]. The path has been followed, and led to
// that cgroup. Its bytes are those of the names, whatever these contain. A cgroup keeps its path on
// cgroup2; in version 1 it can be renamed. /proc makes it quicker but is not needed.
//
// Errors: those of OpenCgroup. EREMOTE if the cgroup is there and has no such path: it is not below
// the root directory of the mount, like those outside of the cgroup namespace in which that was
// mounted; something is mounted over it or over one above it; or the root directory of the caller
// is above it and below that of the mount. EAGAIN for a cgroup of version 1 that is renamed all the
// time. ENAMETOOLONG from 4 KiB on. One that matches [errors.ErrUnsupported] before Linux 5.8,
// where nothing tells which directory is the root of a mount (STATX_ATTR_MOUNT_ROOT).
func CgroupPath(cgroup2FD int, id CgroupID) (string, error) { return Cgroup2.CgroupPath(cgroup2FD, id) }

// CgroupPath is the function of that name for a cgroup of this hierarchy, as
// [CgroupHierarchy.OpenCgroup] is.
func (c CgroupHierarchy) CgroupPath(cgroupFD int, id CgroupID) (path string, err error) {
	// A cgroup of version 1 can be renamed meanwhile. One that is removed is not opened again.
	for range 100 {
		var dir *os.File
		if dir, err = c.OpenCgroup(cgroupFD, id); err != nil {
			return "", err
		}
		errUse := withFD(dir, func(fd int) { path, err = cgroupPath(fd, id) })
		dir.Close()
		if errUse != nil {
			return "", errUse
		}
		switch {
		case errors.Is(err, errRenamed):
			continue
		case errors.Is(err, errCovered):
			err = refused(syscall.EREMOTE, "cgroup "+id.String()+" is there, but no path of the mount leads to it: something is mounted over it, or over one above it")
		}
		return path, err
	}
	return "", refused(syscall.EAGAIN, "the path of cgroup "+id.String()+" changes all the time")
}

var (
	errRenamed = errors.New("renamed") // it is not there any more under its name
	errCovered = errors.New("covered") // there is another mount
)

// cgroupPath is CgroupPath for the cgroup whose directory is open as fd.
func cgroupPath(fd int, id CgroupID) (string, error) {
	var h FileHandle
	mount, errno := nameToHandleAt(fd, "", &h.h, AT_EMPTY_PATH)
	if errno != 0 {
		return "", failed("name_to_handle_at", fdSubject(fd), errno)
	}
	// The IDs from the cgroup up to the root of the mount. While fd is open, its mount keeps
	// its ID.
	ids := []CgroupID{id}
	up := "."
	for {
		top, known, errno := isMountRoot(fd, up)
		switch {
		case errno == syscall.ENOSYS, errno == 0 && !known:
			return "", refused(syscall.EOPNOTSUPP, "where the mount of "+fdSubject(fd)+" begins is not known: it takes Linux 5.8").as(errors.ErrUnsupported)
		case errno != 0:
			return "", failed("statx", strconv.Quote(up)+" "+fdSubject(fd), errno)
		case top:
			return pathBelow(fd, up, ids, mount)
		}
		up += "/.."
		above, errno := nameToHandleAt(fd, up, &h.h, 0)
		parent, _ := idInHandle(h)
		switch {
		case errno == syscall.ENOENT: // fs/namei.c, path_connected
			return "", refused(syscall.EREMOTE, "cgroup "+id.String()+" is there, but outside of what the mount shows")
		case errno != 0 && errno != syscall.EOPNOTSUPP && errno != syscall.EOVERFLOW:
			return "", failed("name_to_handle_at", strconv.Quote(up)+" "+fdSubject(fd), errno)
		case errno != 0 || above != mount:
			return "", errCovered
		case parent == ids[len(ids)-1]:
			return "", refused(syscall.EREMOTE, "cgroup "+id.String()+" is there, but below the root directory of this process, and the mount begins above that")
		}
		ids = append(ids, parent)
	}
}

// pathBelow returns the path that leads from the root of a mount, which is at up from fd, to the
// cgroup that is open as fd. ids begin with its own and end with that of the root.
func pathBelow(fd int, up string, ids []CgroupID, mount uint64) (string, error) {
	id := ids[0]
	depth := len(ids) - 1
	if depth == 0 {
		return "/", nil
	}
	root, err := openat(fd, up, O_PATH|syscall.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer syscall.Close(root)
	// The end of the path by which the kernel knows it, wherever the mount is and whatever is
	// on top of it.
	if text, errno := readlink("/proc/thread-self/fd/" + strconv.Itoa(fd)); errno == 0 {
		i := len(text)
		for range depth {
			i = strings.LastIndexByte(text[:max(i, 0)], '/')
		}
		if i >= 0 && leadsToCgroup(root, "."+text[i:], id, mount) == nil {
			return text[i:], nil
		}
	}
	path := ""
	for i := range depth {
		name, err := nameAbove(fd, strings.Repeat("../", i+1), ids[i], mount)
		if err != nil {
			return "", err
		}
		path = "/" + name + path
	}
	if err := leadsToCgroup(root, "."+path, id, mount); err != nil {
		return "", err
	}
	return path, nil
}

// nameAbove returns the name of the cgroup with this ID in the directory at path from fd.
func nameAbove(fd int, path string, id CgroupID, mount uint64) (string, error) {
	above, err := openat(fd, path, syscall.O_DIRECTORY)
	if err != nil {
		return "", orRenamed(err)
	}
	dir := os.NewFile(uintptr(above), path)
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return "", orRenamed(err)
	}
	none := errRenamed
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		switch err := leadsToCgroup(above, e.Name(), id, mount); {
		case err == nil:
			return e.Name(), nil
		case errors.Is(err, errCovered):
			none = errCovered
		}
	}
	return "", none
}

// orRenamed is for an error of a directory that is there no more.
func orRenamed(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return errRenamed
	}
	return err
}

// leadsToCgroup returns nil if path leads to the cgroup with this ID on a mount.
func leadsToCgroup(dirfd int, path string, id CgroupID, mount uint64) error {
	var h FileHandle
	at, errno := nameToHandleAt(dirfd, path, &h.h, 0)
	is, _ := idInHandle(h)
	switch {
	case errno == 0 && at != mount, errno == syscall.EOPNOTSUPP, errno == syscall.EOVERFLOW:
		return errCovered
	case errno == 0 && is != id, errno == syscall.ENOENT:
		return errRenamed
	case errno != 0:
		return failed("name_to_handle_at", "of "+strconv.Quote(path), errno)
	}
	return nil
}

// A KillOption changes what [KillCgroup] does; 0 is none.
type KillOption int

// KillOwnCgroup lets KillCgroup kill a cgroup that this process is in.
const KillOwnCgroup KillOption = 1

// KillCgroup kills all processes of the cgroup with this ID and of those below it, as SIGKILL does,
// and none escapes by forking meanwhile. It is the file cgroup.kill of cgroup2, Linux 5.14. It
// returns when the processes have been told, not when they have ended: then cgroup.events says
// "populated 0". cgroup2FD is that of [OpenCgroup].
//
// Errors: those of OpenCgroup. EBUSY if this process is in the cgroup or below it and options are
// without [KillOwnCgroup]. EINVAL for the root cgroup, which cannot be killed, and for unknown
// options. EOPNOTSUPP for a threaded cgroup. One that matches [errors.ErrUnsupported] before Linux
// 5.14.
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
