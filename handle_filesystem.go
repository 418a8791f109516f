//go:build linux

package sysfd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A FileSystemID names a file system beyond a reboot, which a [MountID] and a device number do not.
// It is the UUID of the file system or, where that is not available, the second best: type and
// f_fsid of statfs(2). FileSystemIDs are values and can be compared with ==. The zero FileSystemID
// names nothing.
//
// A copy of a disk or of an image has the UUID of the original, and a file system can be made with
// any UUID.
//
// The FileSystemID of a file system can change. For ext2, ext3 and ext4 it is the second best
// before Linux 6.9, and the UUID on newer kernels; [OpenFileSystem] finds the file system by
// either. A changed UUID is another identity. The ioctl EXT4_IOC_SETFSUUID, which tune2fs(8) uses,
// changes the UUID of a mounted file system: f_fsid changes at once, and what [FileSystemIDOf]
// returns changes at the next mount.
type FileSystemID struct {
	uuid  [16]byte
	n     uint8 // bytes of uuid, 0 = no UUID
	magic uint32
	fsid  uint64
}

// FileSystemIDOf returns the identity of the file system that fd is on. fd must be a directory or a
// regular file, open for more than O_PATH. FileSystemIDOf asks the file system, so it waits for a
// server (NFS, FUSE) that does not answer.
//
// The UUID comes from the ioctl FS_IOC_GETFSUUID, Linux 6.9, and on btrfs from BTRFS_IOC_FS_INFO,
// Linux 3.0. File systems in memory (tmpfs, cgroup2, sysfs) have a UUID that lasts until the
// unmount or the next boot. The second best exists for ext2, ext3 and ext4, which make f_fsid from
// their UUID. Other file systems make it from the device number, which another file system gets
// later.
//
// Errors:
//   - EOPNOTSUPP, which matches [errors.ErrUnsupported], if the file system has no identity: vfat,
//     squashfs and overlayfs among others, and XFS before Linux 6.9;
//   - EPERM instead if a seccomp filter forbids the ioctl;
//   - EBADF if fd is open for O_PATH only;
//   - EINVAL if fd is another kind of file.
func FileSystemIDOf(fd int) (FileSystemID, error) {
	return fileSystemID(fd, label{fd: fd})
}

// fileSystemID is FileSystemIDOf. Errors name the file by the label what.
func fileSystemID(fd int, what label) (FileSystemID, error) {
	file, errno := statFD(fd)
	if errno != 0 {
		return FileSystemID{}, failed("statx", "of "+what.String(), errno)
	}
	// A device passes an ioctl that the kernel does not know to its driver.
	if kind := file.kind(); kind != syscall.S_IFDIR && kind != syscall.S_IFREG {
		return FileSystemID{}, refused(syscall.EINVAL, what.String()+" is neither a directory nor a regular file")
	}
	uuid, n, errno := fsUUID(fd)
	switch {
	case errno == syscall.EBADF:
		return FileSystemID{}, failed("ioctl", "of "+what.String(), errno)
	case errno == 0 && uuid != [16]byte{}: // some tools that make images leave the UUID zero
		return FileSystemID{uuid: uuid, n: uint8(n)}, nil
	}
	id, err := statfsID(fd, what)
	if errors.Is(err, errors.ErrUnsupported) && (errno == syscall.EPERM || errno == syscall.EACCES) {
		err = failed("ioctl", "of "+what.String(), errno) // there may be a UUID
	}
	return id, err
}

// statfsID returns the second best identity, even for a descriptor that is open for O_PATH only.
func statfsID(fd int, what label) (FileSystemID, error) {
	magic, fsid, errno := fstatfs(fd)
	if errno != 0 {
		return FileSystemID{}, failed("fstatfs", "of "+what.String(), errno)
	}
	if magic != unix.EXT4_SUPER_MAGIC || fsid == 0 {
		return FileSystemID{}, refused(syscall.EOPNOTSUPP, "the file system of "+what.String()+" has no persistent identity")
	}
	return FileSystemID{magic: magic, fsid: fsid}, nil
}

// IsZero reports whether id is the zero FileSystemID.
func (id FileSystemID) IsZero() bool { return id == FileSystemID{} }

// String returns "uuid:" and the UUID, or "fsid:", type and f_fsid in lower-case hexadecimal, or ""
// for the zero FileSystemID. [ParseFileSystemID] is the reverse.
func (id FileSystemID) String() string {
	text, _ := id.AppendText(nil)
	return string(text)
}

// ParseFileSystemID reads what [FileSystemID.String] returns, and nothing else. For any other text
// the error matches EINVAL.
func ParseFileSystemID(text string) (id FileSystemID, err error) {
	kind, value, _ := cut(text, ':')
	switch kind {
	case "uuid":
		value = strings.ReplaceAll(value, "-", "")
		id.n = uint8(min(len(value)/2, len(id.uuid)))
		parseHex(id.uuid[:id.n], value)
	case "fsid":
		magic, fsid, _ := cut(value, ':')
		m, _ := strconv.ParseUint(magic, 16, 32)
		id.magic = uint32(m)
		id.fsid, _ = strconv.ParseUint(fsid, 16, 64)
	}
	// What went wrong does not come out as it went in, or comes out as zeros, which name
	// nothing.
	if id.String() != text || !id.valid() {
		return FileSystemID{}, refused(syscall.EINVAL, strconv.Quote(text)+" is not a file system ID: want uuid:UUID or fsid:TYPE:FSID")
	}
	return id, nil
}

// AppendText implements [encoding.TextAppender]. The text is that of [FileSystemID.String].
func (id FileSystemID) AppendText(b []byte) ([]byte, error) {
	switch {
	case id.IsZero():
		return b, nil
	case id.n == 0:
		b = append(b, "fsid:"...)
		b = strconv.AppendUint(b, uint64(id.magic), 16)
		b = append(b, ':')
		return strconv.AppendUint(b, id.fsid, 16), nil
	}
	b = append(b, "uuid:"...)
	if int(id.n) == len(id.uuid) {
		return appendUUID(b, id.uuid[:]), nil
	}
	return appendHex(b, id.uuid[:id.n]...), nil
}

// MarshalText implements [encoding.TextMarshaler].
func (id FileSystemID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseFileSystemID].
func (id *FileSystemID) UnmarshalText(text []byte) error {
	return unmarshalText(id, text, ParseFileSystemID)
}

// AppendBinary implements [encoding.BinaryAppender]: one byte with the length of the UUID and then
// the UUID, 17 bytes in most cases; or a zero byte, 4 bytes of type and 8 bytes of f_fsid, most
// significant byte first. The zero FileSystemID has no bytes at all.
func (id FileSystemID) AppendBinary(b []byte) ([]byte, error) {
	switch {
	case id.IsZero():
		return b, nil
	case id.n == 0:
		b = binary.BigEndian.AppendUint32(append(b, 0), id.magic)
		return binary.BigEndian.AppendUint64(b, id.fsid), nil
	}
	return append(append(b, id.n), id.uuid[:id.n]...), nil
}

// MarshalBinary implements [encoding.BinaryMarshaler]; see [FileSystemID.AppendBinary].
func (id FileSystemID) MarshalBinary() ([]byte, error) { return id.AppendBinary(nil) }

// UnmarshalBinary implements [encoding.BinaryUnmarshaler]. For data that AppendBinary does not
// write the error matches EINVAL, and id stays as it is.
func (id *FileSystemID) UnmarshalBinary(data []byte) error {
	var is FileSystemID
	if len(data) == 13 && data[0] == 0 {
		is.magic, is.fsid = binary.BigEndian.Uint32(data[1:]), binary.BigEndian.Uint64(data[5:])
	} else if len(data) > 0 {
		is.n = uint8(min(copy(is.uuid[:], data[1:]), int(data[0])))
	}
	if again, _ := is.AppendBinary(nil); !is.valid() || !bytes.Equal(again, data) {
		return refused(syscall.EINVAL, strconv.Itoa(len(data))+" bytes are not a file system ID")
	}
	*id = is
	return nil
}

// valid reports whether id is an identity that [FileSystemIDOf] can return, or the zero
// FileSystemID.
func (id FileSystemID) valid() bool {
	return id.IsZero() || id.uuid != [16]byte{} || id.n == 0 && id.fsid != 0
}

// secondBest returns what statfsID returns for an ext2, ext3 or ext4 file system with the UUID id.
// These combine the halves of the UUID (fs/ext4/super.c, ext4_statfs).
func (id FileSystemID) secondBest() FileSystemID {
	half := len(id.uuid) / 2
	return FileSystemID{magic: unix.EXT4_SUPER_MAGIC, fsid: binary.LittleEndian.Uint64(id.uuid[:half]) ^ binary.LittleEndian.Uint64(id.uuid[half:])}
}

// isOf reports whether id is an identity of the file system that fd is on.
func (id FileSystemID) isOf(fd int, what label) (bool, error) {
	if id.n == 0 {
		is, err := statfsID(fd, what) // the UUID may not have been available when id was made
		return is == id, err
	}
	is, err := fileSystemID(fd, what)
	return is == id || is.n == 0 && int(id.n) == len(id.uuid) && is == id.secondBest(), err
}

// isNotOf reports whether place is certainly on another file system, without opening anything.
// There may be thousands of file systems in memory, one for each secret of each container. tmpfs
// makes f_fsid from the UUID since Linux 5.13 (mm/shmem.c, shmem_statfs).
func (id FileSystemID) isNotOf(place int) bool {
	magic, fsid, errno := fstatfs(place)
	return errno == 0 && magic == unix.TMPFS_MAGIC && fsid != 0 && int(id.n) == len(id.uuid) && fsid != id.secondBest().fsid
}

// OpenFileSystem opens a directory or a file on the file system id, for [OpenByHandleAt] to open
// handles from. It finds the file system wherever it is mounted now in the mount namespace of the
// caller. If there are several mounts, it prefers a writable one, and then one that shows all of
// the file system.
//
// OpenFileSystem asks each file system in [Mounts] at the place where it is mounted, and the file
// system of the root directory. It skips every type that is not known to answer by itself, such as
// network file systems, FUSE and stacked file systems, and every mount that can be reached only
// through one of these; the root directory is not skipped. As long as it finds nothing, it looks
// again, as [OpenMount] does.
//
// Either kind of identity is enough. A second best identity is compared with the present f_fsid of
// ext2, ext3 and ext4, whether they have a UUID or not. A UUID is compared with the UUID. Before
// Linux 6.9, where the kernel does not report the UUID of these three, their f_fsid is compared
// with the one that the UUID results in: 64 bits, the two halves of the UUID combined by xor. That
// is enough to tell file systems apart unless somebody made two with the same value, and as good as
// a second best identity.
//
// Errors:
//   - ENODEV if the file system is not mounted where the caller may open it. That says nothing
//     about its files, and does not match [os.ErrNotExist];
//   - EPERM or EACCES instead if a seccomp filter forbids calls that are needed to know;
//   - ENOTUNIQ if two file systems have this identity, such as a disk and its copy, so that it is
//     not known which one is meant;
//   - EAGAIN if mounts were moved all the time;
//   - EINVAL for the zero FileSystemID;
//   - an error that matches [errors.ErrUnsupported] without /proc;
//   - EMFILE and the like.
func OpenFileSystem(id FileSystemID) (*os.File, error) {
	if id.IsZero() {
		return nil, refused(syscall.EINVAL, "the zero FileSystemID names no file system")
	}
	return openFileSystem(search{
		name:    func() string { return "the file system " + id.String() },
		suits:   func(m *mount) bool { return m.fsType == "" || answers(m.fsType) && (id.n != 0 || isExt(m.fsType)) },
		matches: id.isOf,

		excludes: id.isNotOf,
	})
}

// OpenFileSystemOn is [OpenFileSystem] for the file system with this device number, which a BPF
// program or an audit record may report. It finds file systems of all types, and waits for the
// server of that file system if the server does not answer.
//
// Errors: those of OpenFileSystem. ENODEV also if device is a number that stat(2) returns on btrfs.
func OpenFileSystemOn(device DeviceID) (*os.File, error) {
	return openFileSystem(search{
		name:     func() string { return "the file system on device " + device.String() },
		suits:    func(m *mount) bool { return m.device == uint64(device) },
		byDevice: true,
		device:   uint64(device),
	})
}

// A search looks for a file system.
type search struct {
	name    func() string
	suits   func(*mount) bool // whether it can be on that mount; if fsType is "", only the device is known
	matches func(fd int, what label) (bool, error)

	// excludes reports whether the file system at place, which is open for O_PATH only, cannot
	// be the one. It may be nil.
	excludes func(place int) bool

	// byDevice means that all mounts that suit are mounts of the file system device. If the
	// mounts changed during the search that is uncertain, because a mount ID can have come to
	// mean another mount.
	byDevice bool
	device   uint64
}

func openFileSystem(s search) (*os.File, error) {
	var l looks
	defer l.end()
	if err := l.begin(); err != nil {
		return nil, err
	}
	for {
		f, seen, err := s.look(l.info)
		if err != nil {
			return nil, err
		}
		if f != nil {
			is, errno := statFD(int(f.Fd())) // btrfs reports another number
			if !s.byDevice || errno == 0 && is.dev == s.device || !l.info.changed() {
				return f, nil
			}
		}
		if f != nil {
			f.Close()
			if err := l.another(); err != nil {
				return nil, err
			}
		} else if again, err := l.again(seen); !again {
			return nil, refused(syscall.ENODEV, s.name()+" is not mounted anywhere that this process can open")
		} else if err != nil {
			return nil, err
		}
	}
}

// look returns nil if it finds nothing, and then as seen what [looks.again] needs.
func (s *search) look(info *mountinfo) (found *os.File, seen string, err error) {
	mounts, err := mountsNow(info)
	if err != nil {
		return nil, "", err
	}
	var forbidden error
	asked := map[uint64]bool{} // devices
	for m := range mounts.toAsk(func(m *mount) bool { return !asked[m.device] && s.suits(m) }) {
		f, err := s.openIn(m, mounts.resolve)
		is := f != nil
		if err == nil && !s.byDevice {
			asked[m.device] = true
			if is {
				if is, err = s.matches(int(f.Fd()), label{path: m.point}); errors.Is(err, syscall.EACCES) {
					forbidden = err
				}
				if !is {
					f.Close()
				}
			}
		}
		switch {
		case outOfResources(err):
			if found != nil {
				found.Close()
			}
			return nil, "", err
		case isDoubtful(err): // covered: perhaps it is also mounted elsewhere
			seen += err.Error() + "\n"
		case errors.Is(err, syscall.EPERM): // no file system answers so
			forbidden = err
		}
		switch {
		case err != nil || !is:
		case s.byDevice:
			return f, "", nil
		case found == nil:
			found = f
		case isSameBtrfs(int(found.Fd()), int(f.Fd())):
			f.Close()
		default:
			f.Close()
			found.Close()
			return nil, "", refused(syscall.ENOTUNIQ, "the file systems on "+found.Name()+" and "+m.point+" have the same identity, "+strings.TrimPrefix(s.name(), "the file system "))
		}
	}
	switch {
	case mounts.err != nil:
		if found != nil {
			found.Close()
		}
		return nil, "", mounts.err
	case found == nil && forbidden != nil:
		return nil, "", forbidden
	}
	return found, seen, nil
}

// openIn opens the place of a mount. It returns nil if the file system cannot be the one.
func (s *search) openIn(m *mount, resolve uint64) (*os.File, error) {
	id := MountID(m.id)
	place, err := id.placeAt(m.point, resolve)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(place)
	if s.excludes != nil && s.excludes(place) {
		return nil, nil
	}
	return id.openPlace(place, m.point)
}

// isSameBtrfs reports whether two descriptors of one identity are on one btrfs. A btrfs can have
// several device numbers: a root directory that is not a mount point has the number of its
// subvolume.
func isSameBtrfs(fd1, fd2 int) bool {
	for _, fd := range []int{fd1, fd2} {
		if magic, errno := fsMagic(fd); errno != 0 || magic != unix.BTRFS_SUPER_MAGIC {
			return false
		}
	}
	uuid1, _, errno1 := btrfsUUIDs(fd1)
	uuid2, _, errno2 := btrfsUUIDs(fd2)
	return errno1 == 0 && errno2 == 0 && uuid1 == uuid2
}

// A mountTree has the mounts that a search looks at.
type mountTree struct {
	all     []mount
	byID    map[uint64]*mount
	root    uint64           // the mount that the caller's root directory is on
	at      map[place]*mount // those whose place was asked for
	resolve uint64           // how openat2 follows a path; 0 if at has all mounts
	room    []uint64
	err     error
}

// A place is where a mount is: on which mount, and at which path.
type place struct {
	parent uint64
	point  string
}

// mountsNow asks listmount and statmount, or else mountinfo. The slow part in the kernel is writing
// paths. With the first two, mountsNow asks only for the paths of mounts that may not answer; the
// others are asked for when it is their turn.
func mountsNow(info *mountinfo) (*mountTree, error) {
	root, err := openat(AT_FDCWD, "/", O_PATH)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(root)
	t := &mountTree{resolve: unix.RESOLVE_NO_SYMLINKS}
	id, err := MountIDOf(root, AT_HANDLE_MNT_ID_UNIQUE)
	if err != nil || !t.list() {
		// Before Linux 6.8, and under filters that do not know the calls or make them do
		// nothing.
		t = &mountTree{}
		if err := info.each(func(m mount) bool { t.all = append(t.all, m); return true }); err != nil {
			return nil, err
		}
		if id, err = MountIDOf(root, 0); err != nil {
			return nil, err
		}
	}
	// In a chroot whose root directory is not a mount point, neither list has the mount of the
	// root.
	if !slices.ContainsFunc(t.all, func(m mount) bool { return m.id == uint64(id) }) {
		what, errno := statFD(root)
		if errno != 0 {
			return nil, failed("statx", "/", errno)
		}
		// The last to be asked, because perhaps only a part of it is visible.
		t.all = append(t.all, mount{id: uint64(id), device: what.dev, root: ".", point: "/", readOnly: true})
	}
	t.begin(uint64(id))
	return t, t.err // no path must lead to a mount that is not known
}

// list gets the mounts from listmount and statmount, without their paths. It returns false where
// one of the calls that it needs is missing.
func (t *mountTree) list() bool {
	if fd, err := openat2(AT_FDCWD, "/", O_PATH, t.resolve); err == nil {
		syscall.Close(fd)
	} else {
		return false
	}
	types := map[uint64]string{} // by device
	errno := eachStat(0, _STATMOUNT_SB_BASIC|_STATMOUNT_MNT_BASIC, func(s *mountStat) {
		m := mount{id: s.MntID, parent: s.MntParentID, device: makeDevice(s.DevMajor, s.DevMinor), readOnly: s.readOnly()}
		if m.fsType = types[m.device]; m.fsType == "" {
			// A mount that has gone meanwhile has no type, and is treated as one that
			// may not answer.
			s := t.ask(&m, _STATMOUNT_FS_TYPE|_STATMOUNT_MNT_ROOT)
			m.fsType, m.root = s.str(_STATMOUNT_FS_TYPE, s.FSType), s.str(_STATMOUNT_MNT_ROOT, s.MntRoot)
			types[m.device] = m.fsType
		}
		t.all = append(t.all, m)
	}, func() bool { return true })
	return errno == 0 && len(t.all) > 0
}

// ask asks statmount for strings, which are empty for a mount that has gone or is out of sight.
func (t *mountTree) ask(m *mount, mask uint64) mountStat {
	s, errno := statMount(m.id, 0, _STATMOUNT_MNT_BASIC|mask, &t.room)
	if errno != 0 && errno != syscall.ENOENT && errno != syscall.EPERM {
		t.err = failed("statmount", "of mount "+MountID(m.id).String(), errno)
	}
	return s
}

// begin prepares a tree that has all mounts.
func (t *mountTree) begin(root uint64) {
	t.root = root
	t.byID = make(map[uint64]*mount, len(t.all))
	t.at = map[place]*mount{}
	for i := range t.all {
		t.byID[t.all[i].id] = &t.all[i]
	}
	for i := range t.all {
		if m := &t.all[i]; t.resolve == 0 || !answers(m.fsType) {
			t.place(m)
		}
	}
}

// place adds a mount, and the mounts that it is on, to at. It returns false if the place of the
// mount is not known.
func (t *mountTree) place(m *mount) bool {
	for ; m != nil && t.at[place{m.parent, m.point}] != m; m = t.byID[m.parent] {
		if m.point == "" {
			s := t.ask(m, _STATMOUNT_MNT_POINT)
			m.point = s.str(_STATMOUNT_MNT_POINT, s.MntPoint)
			if m.point == "" {
				return false
			}
		}
		t.at[place{m.parent, m.point}] = m
	}
	return true
}

// toAsk returns the mounts that suit when it is their turn, the best ones first.
func (t *mountTree) toAsk(suits func(*mount) bool) iter.Seq[*mount] {
	return func(yield func(*mount) bool) {
		for rank := range 4 {
			readOnly, part := rank >= 2, rank%2 != 0 // a part may even be a single file
			for i := range t.all {
				m := &t.all[i]
				if m.readOnly == readOnly && suits(m) && t.isPart(m) == part && t.place(m) && t.leadsTo(m) && !yield(m) {
					return
				}
			}
		}
	}
}

// isPart reports whether the mount shows only a part of the file system.
func (t *mountTree) isPart(m *mount) bool {
	if m.root == "" {
		s := t.ask(m, _STATMOUNT_MNT_ROOT)
		m.root = s.str(_STATMOUNT_MNT_ROOT, s.MntRoot)
	}
	return m.root != "/"
}

// leadsTo follows the path of a mount as the kernel does, from the root directory and over what is
// mounted on it. It reports whether the path ends at that mount and asks nothing on the way that
// may not answer. The root directory is not checked: without it nothing works, not even this
// program. An autofs answers for what is mounted on it.
//
// A mount that is not in at can make the path end elsewhere, which is noticed when the path is
// opened. It cannot make the path lead to a mount that may not answer: at has all of these and all
// that they are on, and no symbolic link is followed.
func (t *mountTree) leadsTo(m *mount) bool {
	if m.point == "/" {
		return m.id == t.root
	}
	now, silent := t.root, false
	for i := 1; i <= len(m.point); i++ {
		if i < len(m.point) && m.point[i] != '/' {
			continue
		}
		if silent {
			return false // it would have to look up the next name
		}
		for steps := 0; steps < len(t.at); steps++ { // bounded, in case they form a circle
			next := t.at[place{now, m.point[:i]}]
			if next == nil {
				break
			}
			now, silent = next.id, !answers(next.fsType) && next.fsType != "autofs"
		}
	}
	return now == m.id
}

// answers reports whether file systems of this type wait for no other machine, process or file
// system.
func answers(fsType string) bool {
	switch fsType {
	case "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs", "nilfs2", "ntfs3", "squashfs", "ubifs", "udf", "vfat", "xfs",
		"cgroup", "cgroup2", "debugfs", "devpts", "devtmpfs", "mqueue", "proc", "ramfs", "rootfs", "securityfs", "sysfs", "tmpfs", "tracefs":
		return true
	}
	return false
}

// isExt reports whether statfsID knows file systems of this type.
func isExt(fsType string) bool { return fsType == "ext2" || fsType == "ext3" || fsType == "ext4" }

// fileSystemIDOfAny returns the identity of the file system that fd is on, even if fd is open for
// O_PATH only. fd was found as path in dirfd, unless path is "".
//
// All places on the file system give the same answer, so they are tried in turn until one may be
// opened. The file itself comes late, because some programs are notified of each file that is
// opened.
func fileSystemIDOfAny(fd int, what label, dirfd int, path string) (FileSystemID, error) {
	file, errno := statFD(fd)
	if errno != 0 {
		return FileSystemID{}, failed("statx", "of "+what.String(), errno)
	}
	isDir, isRegular := file.kind() == syscall.S_IFDIR, file.kind() == syscall.S_IFREG
	// On btrfs the directory that stands for a subvolume in a snapshot does not know the ioctl.
	ask := func(fd int) (id FileSystemID, knows bool, err error) {
		id, err = fileSystemID(fd, what)
		magic, errno := fsMagic(fd)
		return id, errno != 0 || magic != unix.BTRFS_SUPER_MAGIC || !errors.Is(err, errors.ErrUnsupported), err
	}
	if flags, errno := fcntl(fd, syscall.F_GETFL, 0); errno == 0 && flags&O_PATH == 0 && (isDir || isRegular) {
		if id, ok, err := ask(fd); ok {
			return id, err
		}
	}
	near := sibling{fd, file}
	var denied bool
	for _, open := range []func() (*os.File, error){
		func() (*os.File, error) { return asFile(openat(fd, ".", syscall.O_DIRECTORY)) },
		func() (*os.File, error) { return openMountOf(fd) },
		func() (*os.File, error) {
			if isDir {
				return near.openAbove(fd, "..")
			}
			if path == "" {
				return nil, errElsewhere
			}
			return near.openAbove(dirfd, path[:strings.LastIndexByte(path, '/')+1]+".")
		},
		func() (*os.File, error) { return near.openDir(AT_FDCWD, "/") },
		func() (*os.File, error) { return asFile(reopenRegular(fd, what.String())) },
		near.openElsewhere,
	} {
		f, err := open()
		switch {
		case err == nil:
			id, ok, err := ask(int(f.Fd()))
			f.Close()
			if ok {
				return id, err
			}
		case outOfResources(err): // not the second best for a passing reason
			if e, ok := err.(*callError); ok {
				e.subject = what.String()
			}
			return FileSystemID{}, err
		}
		denied = denied || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
	}
	id, err := statfsID(fd, what)
	if denied && errors.Is(err, errors.ErrUnsupported) { // there may be one
		err = refused(syscall.EACCES, "cannot learn the identity of the file system of "+what.String()+": permission to open its files was denied")
	}
	return id, err
}

// asFile turns the results of openat into a file.
func asFile(fd int, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "directory"), nil
}

// openMountOf opens the place where the mount of fd is.
func openMountOf(fd int) (*os.File, error) {
	id, err := MountIDOf(fd, AT_HANDLE_MNT_ID_UNIQUE)
	if err == nil {
		var f *os.File
		if f, err = OpenMount(id); err == nil { // works without /proc
			return f, nil
		}
	}
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EPERM) {
		return nil, err
	}
	// Before Linux 6.8, and under filters that do not know statmount.
	if id, err = MountIDOf(fd, 0); err != nil {
		return nil, err
	}
	return OpenMount(id)
}

// A sibling is a file for which another file on its file system is sought.
type sibling struct {
	fd   int
	file inode
}

var errElsewhere = errors.New("there is nothing else on this file system")

// has reports whether fd, whose inode is is, is on the file system.
func (s sibling) has(fd int, is inode) bool {
	if is.dev != s.file.dev {
		return false
	}
	// Old kernels report for some files of an overlayfs the device of a lower layer.
	magic, errno := fsMagic(fd)
	own, errnoOwn := fsMagic(s.fd)
	return errno == 0 && errnoOwn == 0 && magic == own
}

// openDir opens a directory if it is on the file system.
func (s sibling) openDir(dirfd int, path string) (*os.File, error) {
	dir, err := openat(dirfd, path, O_PATH|syscall.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(dir)
	if is, errno := statFD(dir); errno != 0 || !s.has(dir, is) {
		return nil, errElsewhere
	}
	return asFile(openat(dir, ".", syscall.O_DIRECTORY))
}

// openAbove opens a directory that is on the file system. If the caller may not open it, openAbove
// opens the nearest one above it.
func (s sibling) openAbove(dirfd int, path string) (*os.File, error) {
	const highest = 64
	for range highest {
		f, err := s.openDir(dirfd, path)
		if !errors.Is(err, syscall.EACCES) {
			return f, err
		}
		path += "/.."
	}
	return nil, errElsewhere
}

// openElsewhere opens the file system at another place where it is mounted.
func (s sibling) openElsewhere() (*os.File, error) {
	f, err := openFileSystem(search{
		name:     func() string { return "the file system" },
		suits:    func(m *mount) bool { return m.device == s.file.dev && (m.fsType == "" || answers(m.fsType)) },
		byDevice: true,
		device:   s.file.dev,
	})
	if err != nil {
		return nil, err
	}
	if is, errno := statFD(int(f.Fd())); errno != 0 || !s.has(int(f.Fd()), is) {
		f.Close()
		return nil, errElsewhere
	}
	return f, nil
}
