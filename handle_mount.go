//go:build linux

package sysfd

import (
	"errors"
	"iter"
	"os"
	"strconv"
	"syscall"
)

// String returns the ID in decimal.
func (id MountID) String() string { return strconv.FormatUint(uint64(id), 10) }

// MountIDOf returns the ID of the mount that fd was opened on. fd may be open for O_PATH only, or
// be [AT_FDCWD]. flags is 0, or [AT_HANDLE_MNT_ID_UNIQUE] for an ID of the unique kind. MountIDOf
// does not wait for the server of a file system.
//
// It asks statx(2), which reports the ID since Linux 5.8 and the unique ID since 6.8; then
// name_to_handle_at(2), which reports the unique ID since 6.12; and at last, for the reusable kind,
// /proc/thread-self/fdinfo, Linux 3.17.
//
// Errors:
//   - EBADF if fd is not open;
//   - EINVAL for other flags;
//   - an error that matches [errors.ErrUnsupported] if none of the calls reports the ID;
//   - EPERM if a seccomp filter forbids one of them and no other reports the ID.
func MountIDOf(fd int, flags int) (MountID, error) {
	if flags&^AT_HANDLE_MNT_ID_UNIQUE != 0 {
		return 0, refused(syscall.EINVAL, "flags 0x"+strconv.FormatUint(uint64(uint(flags)), 16)+": only AT_HANDLE_MNT_ID_UNIQUE is allowed")
	}
	unique := flags != 0
	id, errno := statxMountID(fd, unique)
	if errno == syscall.EBADF {
		return 0, failed("statx", fdSubject(fd), errno)
	}
	if errno == 0 && id != 0 { // qemu-user leaves it 0
		return MountID(id), nil
	}
	var forbidden error // a filter is not an old kernel
	if errno == syscall.EPERM || errno == syscall.EACCES {
		forbidden = failed("statx", fdSubject(fd), errno)
	}
	var h FileHandle
	// Before Linux 6.5 there is no AT_HANDLE_FID, and fewer file systems have handles.
	for _, fid := range []int{AT_HANDLE_FID, 0} {
		id, errno := nameToHandleAt(fd, "", &h.h, AT_EMPTY_PATH|flags|fid)
		switch errno {
		case 0:
			return MountID(id), nil
		case syscall.EINVAL, syscall.EOPNOTSUPP, syscall.EOVERFLOW, syscall.ENOSYS:
		case syscall.EPERM, syscall.EACCES:
			forbidden = failed("name_to_handle_at", fdSubject(fd), errno)
		default:
			return 0, failed("name_to_handle_at", fdSubject(fd), errno)
		}
	}
	if !unique {
		id, err := fdinfoMountID(fd)
		switch {
		case err == nil, outOfResources(err):
			return MountID(id), err
		case !errors.Is(err, os.ErrNotExist) && forbidden == nil: // which says nothing about a mount
			return 0, err
		}
	}
	if forbidden != nil {
		return 0, forbidden
	}
	return 0, failed("name_to_handle_at", fdSubject(fd), syscall.EOPNOTSUPP).as(errors.ErrUnsupported)
}

// OpenMount opens the place where the mount with this ID is, for [OpenByHandleAt] to open handles
// of its file system from. A unique ID requires statmount(2), Linux 6.8, and works without /proc.
// For a reusable ID OpenMount reads /proc/thread-self/mountinfo. [MountIDOf] says how the mount is
// recognized.
//
// OpenMount opens that mount and no other: it fails if another mount lies on top of it, or if
// another mount has got the reusable ID meanwhile. If it cannot find the mount, it looks again,
// until two looks in a row see the same and nothing was mounted, moved or unmounted during the
// second one. Only /proc shows such changes.
//
// Errors:
//   - ENOENT, which matches [os.ErrNotExist], if there is no such mount in the mount namespace of
//     the caller, or none below its root directory;
//   - ESTALE, which matches os.ErrNotExist too, if another mount covers the mount. ESTALE does not
//     match it if nothing is where the mount was, for example because a directory above it is being
//     renamed;
//   - EAGAIN if the mounts changed in each of many looks;
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks statmount or a way to
//     verify a unique ID, or if /proc is missing;
//   - EINVAL for a mount of a file that is neither a directory nor a regular file;
//   - EPERM for a unique ID of a mount that exists, but is not below the root directory of an
//     unprivileged caller;
//   - those of open(2) for the place.
func OpenMount(id MountID) (*os.File, error) {
	var l looks
	defer l.end()
	if !id.Unique() {
		if err := l.begin(); err != nil {
			return nil, err
		}
	}
	for {
		path, err := id.point(l.info)
		var f *os.File
		if err == nil {
			f, err = id.openAt(path)
			if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
				// The mount exists, but a directory above it was renamed.
				err = refused(syscall.ESTALE, "mount "+id.String()+" was at "+path+", where nothing is mounted now")
			}
		}
		if !isDoubtful(err) {
			return f, err
		}
		if again, errAgain := l.again(err.Error()); !again {
			return nil, err
		} else if errAgain != nil {
			return nil, errAgain
		}
	}
}

// isDoubtful reports whether the cause of err may be a mount that was moved between two steps.
func isDoubtful(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ESTALE, syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// looks are the looks of a search among mounts that others can move meanwhile.
type looks struct {
	info *mountinfo
	n    int
	seen string // in the last look
}

// begin opens mountinfo.
func (l *looks) begin() (err error) {
	l.info, err = openMountinfo()
	return err
}

func (l *looks) end() { l.info.close() }

// again reports whether to look once more after a look that found nothing. seen is what that look
// saw and what can change without any mount changing, as when a directory is renamed. If again
// returns an error, the search ends with that error.
func (l *looks) again(seen string) (again bool, err error) {
	changed := l.info.changed()
	if !changed && (seen == "" || l.n > 0 && seen == l.seen) {
		return false, nil
	}
	if err := l.another(); err != nil {
		return true, err
	}
	l.seen = seen
	if l.info == nil {
		// Without /proc two looks must be enough.
		if err := l.begin(); outOfResources(err) {
			return true, err
		}
	}
	return true, nil
}

// another counts a look.
func (l *looks) another() error {
	const most = 100 // four in five looks find nothing if a program moves the mount as fast as it can
	if l.n++; l.n == most {
		return refused(syscall.EAGAIN, "the mounts changed during each of "+strconv.Itoa(most)+" searches")
	}
	return nil
}

// openAt is OpenMount for a known path. If the mount is no longer there, the error isDoubtful.
func (id MountID) openAt(path string) (*os.File, error) {
	place, err := id.placeAt(path, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(place)
	return id.openPlace(place, path)
}

// placeAt finds the place without opening it: on top of it there could be a device. resolve is for
// openat2, Linux 5.6, or 0.
func (id MountID) placeAt(path string, resolve uint64) (place int, err error) {
	if resolve == 0 {
		place, err = openat(AT_FDCWD, path, O_PATH|syscall.O_NOFOLLOW)
	} else {
		place, err = openat2(AT_FDCWD, path, O_PATH|syscall.O_NOFOLLOW, resolve)
	}
	if err != nil {
		return -1, err
	}
	if err := id.verify(place, path); err != nil {
		syscall.Close(place)
		return -1, err
	}
	return place, nil
}

// openPlace opens what placeAt has found.
func (id MountID) openPlace(place int, path string) (*os.File, error) {
	// A directory is on the mount that its entry "." is on.
	fd, err := openat(place, ".", syscall.O_DIRECTORY)
	if errors.Is(err, syscall.ENOTDIR) {
		if fd, err = reopenRegular(place, path); err == nil {
			if err = id.verify(fd, path); err != nil { // /proc may be a forgery
				syscall.Close(fd)
			}
		}
	}
	if err != nil {
		if e, ok := err.(*callError); ok {
			e.subject = path
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// reopenRegular opens the regular file fd for reading: the file itself and not one that has got its
// path meanwhile.
func reopenRegular(fd int, path string) (int, error) {
	what, errno := statFD(fd)
	if errno != 0 {
		return -1, failed("statx", path, errno)
	}
	if what.kind() != syscall.S_IFREG {
		return -1, refused(syscall.EINVAL, strconv.Quote(path)+" is a special file")
	}
	again, err := openat(AT_FDCWD, "/proc/thread-self/fd/"+strconv.Itoa(fd), syscall.O_NONBLOCK|syscall.O_NOCTTY)
	if err != nil {
		return -1, err
	}
	if is, errno := statFD(again); errno != 0 || is.dev != what.dev || is.ino != what.ino || is.kind() != what.kind() {
		syscall.Close(again)
		return -1, refused(syscall.EOPNOTSUPP, "/proc/thread-self/fd opens a file other than "+strconv.Quote(path)).as(errors.ErrUnsupported)
	}
	return again, nil
}

// point returns the path where the mount is. For a reusable ID it asks info.
func (id MountID) point(info *mountinfo) (string, error) {
	if id.Unique() {
		var room []uint64
		s, errno := statMount(uint64(id), 0, _STATMOUNT_MNT_BASIC|_STATMOUNT_MNT_POINT, &room)
		if errno == 0 && s.Mask&_STATMOUNT_MNT_POINT == 0 { // not below the root directory
			errno = syscall.ENOENT
		}
		if errno != 0 {
			return "", failed("statmount", "of mount "+id.String(), errno)
		}
		return s.str(_STATMOUNT_MNT_POINT, s.MntPoint), nil
	}
	var point string
	found := false
	err := info.each(func(m mount) bool {
		if found = MountID(m.id) == id; found {
			point = m.point
		}
		return !found
	})
	if err == nil && !found {
		err = refused(syscall.ENOENT, "there is no mount "+id.String())
	}
	return point, err
}

// verify checks that fd, which was opened at path, is on the mount.
func (id MountID) verify(fd int, path string) error {
	flags := 0
	if id.Unique() {
		flags = AT_HANDLE_MNT_ID_UNIQUE
	}
	is, err := MountIDOf(fd, flags)
	if err == nil && is != id {
		err = refused(syscall.ESTALE, "the mount at "+path+" is "+is.String()+", not "+id.String()).as(os.ErrNotExist)
	}
	return err
}

// A DeviceID names a file system as long as it is mounted: st_dev of stat(2), as the kernel and the
// C library's makedev(3) encode it. DeviceID(st.Dev) converts the field of a [syscall.Stat_t].
//
// The device of a file is not always that of its mount: on btrfs stat(2) returns another number in
// each subvolume, and on overlayfs it can return the number of a layer.
type DeviceID uint64

// String returns major and minor number, such as "8:1".
func (d DeviceID) String() string {
	major, minor := takeDevice(uint64(d))
	return strconv.FormatUint(uint64(major), 10) + ":" + strconv.FormatUint(uint64(minor), 10)
}

// A Mount is one mount of a mount namespace.
type Mount struct {
	// ID and Parent are of the unique kind since Linux 6.8, and before equal to ReusableID and
	// ReusableParent. Parent need not be among the mounts that Mounts returns: it can be what
	// lies under the root directory, or the mount itself.
	ID, Parent MountID
	// The IDs in /proc/PID/mountinfo, which [NameToHandleAt] returns without
	// [AT_HANDLE_MNT_ID_UNIQUE].
	ReusableID, ReusableParent MountID
	Device                     DeviceID // of the file system
	Root                       string   // the part of the file system that the mount shows, "/" for all of it
	Point                      string   // the path, from the root directory of the caller or of the mount namespace
	Type                       string   // such as "ext4" or "fuse.sshfs"
	Source                     string   // such as "/dev/sda1"
	ReadOnly                   bool     // no file can be written through the mount
}

// Mounts returns the mounts of a mount namespace that are below its root directory. If namespace is
// 0 it returns the mounts of the caller's mount namespace that are below the root directory of the
// caller. Mounts asks listmount(2) and statmount(2), Linux 6.8. Where they are missing it reads
// /proc/thread-self/mountinfo, for the caller's namespace only. It asks nothing that a file system
// or its server would have to answer.
//
// The ID of a mount namespace is the one in its handle, see [FileHandle.Namespace], which the ioctl
// NS_GET_MNTNS_ID reports too. A mount namespace other than the caller's requires Linux 6.11, and
// CAP_SYS_ADMIN in the user namespace that owns it; Source and the second part of Type are known
// there since Linux 6.13. As the root directory of such a namespace the kernel uses the first mount
// on the rootfs (fs/namespace.c, grab_requested_root), so on a machine that has stayed on its
// initramfs Mounts returns little.
//
// Mounts holds no more than a thousand mounts in memory. A mount that comes, goes or moves
// meanwhile may be included or not, and a mount can be gone by the time that it is returned.
//
// An error comes last:
//   - one that matches [errors.ErrUnsupported] if the kernel has neither way;
//   - EREMOTE if there is no such mount namespace, or the caller may not inspect it: the kernel
//     does not distinguish the two;
//   - EPERM if a seccomp filter forbids the calls and there is no other way;
//   - those of open(2) and read(2) for mountinfo.
func Mounts(namespace NamespaceID) iter.Seq2[Mount, error] {
	return func(yield func(Mount, error) bool) {
		told, errno := eachStatMount(namespace, yield)
		switch {
		case errno == 0 && (told || namespace != 0):
		case told:
			yield(Mount{}, failed("statmount", "", errno))
		case namespace == 0:
			// Before Linux 6.8, and under filters that do not know the calls or make
			// them do nothing.
			if err := eachMountinfo(yield); err != nil {
				yield(Mount{}, err)
			}
		case errno == syscall.ENOENT:
			yield(Mount{}, refused(syscall.EREMOTE, "mount namespace "+namespace.String()+" does not exist, or the caller may not inspect it"))
		default:
			err := failed("listmount", "of mount namespace "+namespace.String(), errno)
			if errno == syscall.E2BIG || errno == syscall.ENOSYS { // before Linux 6.11, before 6.8
				err.means = errors.ErrUnsupported
			}
			yield(Mount{}, err)
		}
	}
}

// eachMountinfo is Mounts by mountinfo.
func eachMountinfo(yield func(Mount, error) bool) error {
	info, err := openMountinfo()
	if err != nil {
		return err
	}
	defer info.close()
	return info.each(func(m mount) bool {
		return yield(Mount{
			ID: MountID(m.id), Parent: MountID(m.parent), ReusableID: MountID(m.id), ReusableParent: MountID(m.parent),
			Device: DeviceID(m.device), Root: m.root, Point: m.point, Type: m.fsType, Source: m.source, ReadOnly: m.readOnly,
		}, nil)
	})
}

// eachStatMount is Mounts by statmount. told reports whether it has yielded any mount, even one
// after which the consumer stopped.
func eachStatMount(namespace NamespaceID, yield func(Mount, error) bool) (told bool, errno syscall.Errno) {
	var mounts []Mount
	whole := true
	errno = eachStat(namespace, allOfMount, func(s *mountStat) {
		if s.Mask&_STATMOUNT_MNT_POINT != 0 {
			whole = whole && s.Mask&_STATMOUNT_SB_SOURCE != 0
			mounts = append(mounts, s.mount())
		}
	}, func() bool {
		if !whole && namespace == 0 {
			// Before Linux 6.13. Sources are an addition: without them the rest is
			// true.
			addSources(mounts)
		}
		for _, m := range mounts {
			told = true
			if !yield(m, nil) {
				return false
			}
		}
		mounts, whole = mounts[:0], true
		return true
	})
	return told, errno
}

// eachStat calls use for each mount of a mount namespace, with what mask asks for. After every
// thousand of them it calls done, and ends when done returns false.
func eachStat(namespace NamespaceID, mask uint64, use func(*mountStat), done func() bool) syscall.Errno {
	var room []uint64
	ids := make([]uint64, 1024)
	some := false
	for after := uint64(0); ; {
		n, errno := listMounts(uint64(namespace), after, ids)
		if errno != 0 || n == 0 {
			return errno
		}
		after = ids[n-1]
		for _, id := range ids[:n] {
			s, errno := statMount(id, uint64(namespace), mask, &room)
			switch {
			case errno == syscall.ENOENT, errno == syscall.EPERM && some: // it is gone, or out of sight
			case errno != 0:
				return errno
			default:
				some = true
				use(&s)
			}
		}
		if !done() {
			return 0
		}
	}
}

// allOfMount is what mountStat.mount needs.
const allOfMount = _STATMOUNT_SB_BASIC | _STATMOUNT_MNT_BASIC | _STATMOUNT_MNT_ROOT | _STATMOUNT_MNT_POINT |
	_STATMOUNT_FS_TYPE | _STATMOUNT_FS_SUBTYPE | _STATMOUNT_SB_SOURCE

func (s *mountStat) readOnly() bool {
	return s.MntAttr&mountReadOnly != 0 || s.SBFlags&fileSystemReadOnly != 0
}

func (s *mountStat) mount() Mount {
	m := Mount{
		ID: MountID(s.MntID), Parent: MountID(s.MntParentID), ReusableID: MountID(s.MntIDOld), ReusableParent: MountID(s.MntParentIDOld),
		Device:   DeviceID(makeDevice(s.DevMajor, s.DevMinor)),
		Root:     s.str(_STATMOUNT_MNT_ROOT, s.MntRoot),
		Point:    s.str(_STATMOUNT_MNT_POINT, s.MntPoint),
		Type:     s.str(_STATMOUNT_FS_TYPE, s.FSType),
		Source:   s.str(_STATMOUNT_SB_SOURCE, s.SBSource),
		ReadOnly: s.readOnly(),
	}
	if subtype := s.str(_STATMOUNT_FS_SUBTYPE, s.FSSubtype); subtype != "" {
		m.Type += "." + subtype
	}
	return m
}

// addSources adds what statmount does not report.
func addSources(mounts []Mount) {
	info, err := openMountinfo()
	if err != nil {
		return
	}
	defer info.close()
	byID := make(map[MountID]*Mount, len(mounts))
	for i := range mounts {
		byID[mounts[i].ReusableID] = &mounts[i]
	}
	info.each(func(line mount) bool {
		// Another mount may have got the ID meanwhile.
		if m := byID[MountID(line.id)]; m != nil && DeviceID(line.device) == m.Device && line.root == m.Root && line.point == m.Point {
			m.Type, m.Source = line.fsType, line.source
		}
		return true
	})
}

// Open opens the place where the mount is, as [OpenMount] does with m.ID, and returns the same
// errors. It is cheaper if the mount was not moved: for a reusable ID it then does not read
// mountinfo.
func (m Mount) Open() (*os.File, error) {
	f, err := m.ID.openAt(m.Point)
	if isDoubtful(err) {
		return OpenMount(m.ID)
	}
	return f, err
}
