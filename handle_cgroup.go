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

// A CgroupID names a cgroup within its hierarchy. It is the 64-bit number that the kernel knows the
// cgroup by. On cgroup2, to which the IDs in BPF programs (bpf_get_current_cgroup_id) and in
// [PidFDInfo.CgroupID] belong, it is not used again until the next boot. On a 32-bit kernel st_ino
// of the cgroup's directory is only the low half of the ID.
type CgroupID uint64

// String returns the ID in decimal.
func (id CgroupID) String() string { return strconv.FormatUint(uint64(id), 10) }

// A CgroupHierarchy names the hierarchy that a cgroup belongs to. In another hierarchy the same
// CgroupID names another cgroup. It is the text between the two colons of a line in
// /proc/PID/cgroup: empty for cgroup2, of which there is one; for a hierarchy of cgroup v1 its
// controllers, its name, or both, such as "cpu,cpuacct" and "name=systemd". A hierarchy of cgroup
// v1 that was unmounted without any cgroups in it is gone, and the next one with that name begins
// to count IDs anew.
type CgroupHierarchy string

// Cgroup2 is the hierarchy of cgroup2.
const Cgroup2 CgroupHierarchy = ""

// CgroupIDOf returns the ID of the cgroup whose directory is open as fd, and the hierarchy of the
// cgroup. A file in the directory has an ID of its own.
//
// The ID comes from the file handle, which since Linux 5.5 is of type [FILEID_KERNFS]
// (fs/kernfs/mount.c). From Linux 4.14 to 5.4 it is of type [FILEID_INO32_GEN], and its two halves
// are what the kernel and BPF programs have in one number of 64 bits (union kernfs_node_id); this
// has not been tried on such a kernel. On cgroup2 CgroupIDOf makes two system calls. For cgroup v1
// it reads /proc/thread-self/mountinfo and /proc/thread-self/cgroup.
//
// Errors:
//   - EINVAL if the file is not on a cgroup file system; sysfs and pidfs, whose handles look alike,
//     are not;
//   - EBADF if fd is not open;
//   - on cgroup v1 an error that matches [errors.ErrUnsupported] if the hierarchy is not known:
//     without /proc, or if the hierarchy is not mounted in the mount namespace of the caller.
func CgroupIDOf(fd int) (CgroupID, CgroupHierarchy, error) { return cgroupID(fd, label{fd: fd}) }

// CgroupIDAt is [CgroupIDOf] for the directory at path. dirfd, path and flags are those of
// [NameToHandleAt], with [AT_EMPTY_PATH] and [AT_SYMLINK_FOLLOW] as the only flags. Linux 5.5; for
// older kernels see CgroupIDOf.
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

// cgroupID is CgroupIDOf. Errors name the file by the label what.
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

// cgroupHandle returns the handle of a file on a cgroup file system, and whether that is cgroup v1.
// The type of the handle is no proof, because pidfs and kernfs use it too. It excludes file systems
// whose server may not answer fstatfs.
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
// 5.5 it has the second type: inode number and generation, 32 bits each, in the order in which they
// are in the kernel's 64 bits.
func idInHandle(h FileHandle) (CgroupID, bool) {
	if t := h.Type(); t != FILEID_KERNFS && t != FILEID_INO32_GEN || h.Len() != 8 {
		return 0, false
	}
	return CgroupID(native64(h.h.FHandle[:8])), true
}

// withID returns a handle of the type of h with this ID.
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
		return refused(syscall.EOPNOTSUPP, "the cgroup hierarchy of "+what.String()+" is unknown: "+why).as(errors.ErrUnsupported)
	}
	var texts [2]string
	for i, name := range [...]string{"/proc/thread-self/mountinfo", "/proc/thread-self/cgroup"} {
		text, err := readProc(name)
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

// findHierarchy returns the hierarchy of cgroup v1 on a device. cgroups is the text of
// /proc/PID/cgroup. The hierarchy is the one in it of which all controllers and the name are
// options, in the text of mountinfo, of a file system on that device. No two hierarchies share a
// controller or a name; other options do not matter.
func findHierarchy(mountinfo, cgroups, device string) (CgroupHierarchy, bool) {
	var options []string
	for line := range strings.SplitSeq(mountinfo, "\n") {
		// After the mark: type, source, options of the file system.
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
		if len(fields) < 3 || fields[1] == "" { // the latter is cgroup2
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
// on cgroup2 that is open for more than O_PATH. It is [OpenByHandleAt], and requires the capability
// CAP_DAC_READ_SEARCH.
//
// With that capability OpenCgroup opens every cgroup of the machine, even one outside the cgroup
// namespace of the caller or outside what the mount of cgroup2FD shows. [CgroupPath] distinguishes
// these.
//
// In a user namespace, CAP_DAC_READ_SEARCH of that namespace is enough for cgroups that were
// delegated to it, since Linux 6.11 (kernel commit 620c266f3949). cgroup2FD must be the cgroup or a
// directory above it. The owners of the cgroup and of the directories between the two must have IDs
// in the user namespace. The mount namespace must belong to that user namespace, and have nothing
// mounted below cgroup2FD that it cannot unmount. All other cgroups are ESTALE there, whether they
// exist or not.
//
// Errors:
//   - ESTALE if there is no such cgroup any more, or none that this process may open. If the
//     process has CAP_DAC_READ_SEARCH in the initial user namespace there is none, and the error
//     matches [os.ErrNotExist];
//   - ENOTDIR if the ID is that of a file;
//   - EINVAL if cgroup2FD is not on cgroup2: in another hierarchy and on another file system the
//     same number means something else;
//   - EPERM without the capability.
func OpenCgroup(cgroup2FD int, id CgroupID) (*os.File, error) {
	return Cgroup2.OpenCgroup(cgroup2FD, id)
}

// OpenCgroup is the function [OpenCgroup] for a cgroup of the hierarchy c. cgroupFD is any
// descriptor on c that is open for more than O_PATH.
//
// Errors: those of the function and of [CgroupIDOf]. EINVAL if cgroupFD is on another hierarchy.
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
	// Compare, because the kernel ignores an upper half of 0, which is what st_ino leaves of an
	// ID on a 32-bit kernel (fs/kernfs/dir.c), and before Linux 5.5 a generation of 0.
	fd, err := openExactly(cgroupFD, withID(root, id), os.O_RDONLY|syscall.O_DIRECTORY)
	if err == nil {
		return os.NewFile(uintptr(fd), "cgroup "+id.String()), nil
	}
	if e, ok := err.(*callError); ok && e.errno == syscall.ESTALE {
		if mayOpenAll() {
			e.means, e.note = os.ErrNotExist, "no cgroup has the ID "+id.String()
		} else if e.note == "" {
			e.note = "the cgroup may still exist: this process may not open every cgroup"
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
// "/user.slice/user-1000.slice". The path begins at the root directory of the mount that cgroup2FD
// is on, whose own path is "/". If the mount shows all of a cgroup namespace, it is the path that
// /proc/PID/cgroup shows there for the processes of the cgroup. [CgroupIDAt] is the reverse.
//
// cgroup2FD and the privileges are those of [OpenCgroup]. CgroupPath has followed the path and
// arrived at that cgroup. The path has the bytes of the names, whatever they are. A cgroup of
// cgroup2 keeps its path; a cgroup of version 1 can be renamed. /proc is not needed, but makes it
// faster.
//
// Errors: those of OpenCgroup, and
//   - EREMOTE if the cgroup exists but has no such path: it is not below the root directory of the
//     mount, like those outside the cgroup namespace in which the mount was made; something is
//     mounted over it or over a cgroup above it; or the root directory of the caller is above it
//     and below the root directory of the mount;
//   - EAGAIN for a cgroup of version 1 that is renamed all the time;
//   - ENAMETOOLONG if the path has 4 KiB or more;
//   - an error that matches [errors.ErrUnsupported] before Linux 5.8, which does not report the
//     root of a mount (STATX_ATTR_MOUNT_ROOT).
func CgroupPath(cgroup2FD int, id CgroupID) (string, error) { return Cgroup2.CgroupPath(cgroup2FD, id) }

// CgroupPath is the function [CgroupPath] for a cgroup of the hierarchy c; see
// [CgroupHierarchy.OpenCgroup].
func (c CgroupHierarchy) CgroupPath(cgroupFD int, id CgroupID) (path string, err error) {
	// A cgroup of version 1 can be renamed meanwhile. A cgroup that was removed does not open
	// again.
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
			err = refused(syscall.EREMOTE, "cgroup "+id.String()+" exists, but no path of the mount leads to it: something is mounted over it, or over a cgroup above it")
		}
		return path, err
	}
	return "", refused(syscall.EAGAIN, "the path of cgroup "+id.String()+" keeps changing")
}

var (
	errRenamed = errors.New("renamed") // it no longer has its name
	errCovered = errors.New("covered") // another mount is there
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
			return "", refused(syscall.EOPNOTSUPP, "finding the root of a mount requires Linux 5.8").as(errors.ErrUnsupported)
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
			return "", refused(syscall.EREMOTE, "cgroup "+id.String()+" exists, but outside what the mount shows")
		case errno != 0 && errno != syscall.EOPNOTSUPP && errno != syscall.EOVERFLOW:
			return "", failed("name_to_handle_at", strconv.Quote(up)+" "+fdSubject(fd), errno)
		case errno != 0 || above != mount:
			return "", errCovered
		case parent == ids[len(ids)-1]:
			return "", refused(syscall.EREMOTE, "cgroup "+id.String()+" exists, but below the root directory of this process, and the root of the mount is above that")
		}
		ids = append(ids, parent)
	}
}

// pathBelow returns the path from the root of a mount, which is at up from fd, to the cgroup that
// is open as fd. ids begin with the ID of the cgroup and end with that of the root.
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
	// The kernel's path of the cgroup ends like this, wherever the mount is and whatever is on
	// top of it.
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

// orRenamed returns errRenamed if err says that a directory does not exist any more.
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

// A KillOption changes what [KillCgroup] does. The value 0 means no option.
type KillOption int

// KillOwnCgroup lets KillCgroup kill a cgroup that this process is in.
const KillOwnCgroup KillOption = 1

// KillCgroup kills all processes of the cgroup with this ID and of the cgroups below it, as SIGKILL
// does. No process escapes by forking meanwhile. KillCgroup writes to the file cgroup.kill of
// cgroup2, Linux 5.14. It returns when the processes have been signaled, not when they have ended:
// once they have, cgroup.events says "populated 0". cgroup2FD is that of [OpenCgroup].
//
// Errors: those of OpenCgroup, and
//   - EBUSY if this process is in the cgroup or below it and options lack [KillOwnCgroup];
//   - EINVAL for the root cgroup, which cannot be killed, and for unknown options;
//   - EOPNOTSUPP for a threaded cgroup;
//   - an error that matches [errors.ErrUnsupported] before Linux 5.14.
func KillCgroup(cgroup2FD int, id CgroupID, options KillOption) error {
	if options&^KillOwnCgroup != 0 {
		return refused(syscall.EINVAL, "0x"+strconv.FormatUint(uint64(uint(options)), 16)+" is not a KillOption: want 0 or KillOwnCgroup")
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
		return refused(syscall.EOPNOTSUPP, "cgroup "+id.String()+" has no cgroup.kill, which requires Linux 5.14").as(errors.ErrUnsupported)
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
	case errors.Is(err, syscall.EOPNOTSUPP): // a threaded cgroup; its processes belong to a cgroup above
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

// openIn opens a file in a directory.
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
