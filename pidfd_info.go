//go:build linux

package sysfd

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A PidFDInfo is what the kernel reported about a process; see [PidFD.Info]. Each of its methods
// returns false if the kernel did not report that.
type PidFDInfo struct {
	k pidfdInfo // as of Linux 7.1: fields that an older kernel does not have are zero
}

// Info asks for facts about the process, all of the same moment. mask says for which: it is a
// combination of [PIDFD_INFO_PID], [PIDFD_INFO_CREDS] and the like. The kernel may report more than
// mask asks for, and ignores bits that it does not know. Info is the ioctl PIDFD_GET_INFO, Linux
// 6.13, and requires no privilege.
//
// A process is not its rights. The facts are of one moment, and a pidfd stays with the process when
// it executes another program, even a setuid one, changes its IDs or is moved to another cgroup.
// The facts describe a process and authorize nobody. What the peer of a socket may do is decided by
// [PeerCredentials].
//
// Info reports on a zombie as on a running process. Once the process is reaped, the kernel has only
// [PIDFD_INFO_EXIT] with [PIDFD_INFO_CGROUPID] and [PIDFD_INFO_COREDUMP] left, and mask must then
// contain PIDFD_INFO_EXIT (Linux 6.15).
//
// Errors:
//   - ESRCH, which matches [os.ErrProcessDone], if the process was reaped and mask lacks
//     PIDFD_INFO_EXIT or the kernel is older than that;
//   - EREMOTE if the process has no PID in the caller's pid namespace;
//   - ESRCH, which does not match os.ErrProcessDone, before Linux 6.18 if the process has a PID
//     there but its parent has none (fs/pidfs.c, pidfd_info);
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the ioctl.
func (p *PidFD) Info(mask PidFDInfoMask) (PidFDInfo, error) {
	if err := p.acquire(); err != nil {
		return PidFDInfo{}, err
	}
	defer p.release()
	info := PidFDInfo{pidfdInfo{Mask: mask}}
	if err := p.getInfo(&info.k); err != nil {
		return PidFDInfo{}, err
	}
	return info, nil
}

// Mask returns the bits of what the kernel reported: PIDFD_INFO_*. It may include bits that this
// package does not know.
func (i PidFDInfo) Mask() PidFDInfoMask { return i.k.Mask }

func (i PidFDInfo) has(bit uint64) bool { return i.k.Mask&bit != 0 }

// PID returns the PID of the process in the pid namespace of the caller; for a pidfd opened with
// [PIDFD_THREAD], the ID of the thread. [PIDFD_INFO_PID].
func (i PidFDInfo) PID() (pid int, ok bool) { return int(i.k.PID), i.has(PIDFD_INFO_PID) }

// TGID returns the ID of the thread group: the PID of the process that a thread belongs to.
// [PIDFD_INFO_PID].
func (i PidFDInfo) TGID() (tgid int, ok bool) { return int(i.k.TGID), i.has(PIDFD_INFO_PID) }

// ParentPID returns the PID of the parent process, 0 if the parent is not in the pid namespace of
// the caller. [PIDFD_INFO_PID].
func (i PidFDInfo) ParentPID() (ppid int, ok bool) { return int(i.k.PPID), i.has(PIDFD_INFO_PID) }

// Credentials are the user and group IDs of a process: real, effective, saved, and file system IDs.
// See credentials(7).
type Credentials struct {
	RUID, EUID, SUID, FSUID uint32
	RGID, EGID, SGID, FSGID uint32
}

// Credentials returns the IDs as numbered in the caller's user namespace. An ID without a number
// there is returned as 65534 (/proc/sys/kernel/overflowuid). [PIDFD_INFO_CREDS].
//
// The IDs are those at the moment of [PidFD.Info]. While an ordinary user executes a setuid program
// they are root's. To decide what the peer of a socket may do, use [PeerCredentials].
func (i PidFDInfo) Credentials() (c Credentials, ok bool) {
	if !i.has(PIDFD_INFO_CREDS) {
		return c, false
	}
	k := &i.k
	return Credentials{k.RUID, k.EUID, k.SUID, k.FSUID, k.RGID, k.EGID, k.SGID, k.FSGID}, true
}

// CgroupID returns the ID of the process's cgroup on cgroup2, as [CgroupIDAt] does for a path;
// [CgroupPath] returns the path. For a process that was reaped it is the last one. A process can be
// moved to another cgroup at any time. [PIDFD_INFO_CGROUPID].
func (i PidFDInfo) CgroupID() (id CgroupID, ok bool) {
	return CgroupID(i.k.CgroupID), i.has(PIDFD_INFO_CGROUPID)
}

// ExitStatus returns how the process ended, once it was reaped and not before. [PIDFD_INFO_EXIT],
// Linux 6.15.
//
// If a thread other than the main one has dumped core, CoreDump of the status can be false, though
// it is true for the parent, which waits: as seen on Linux 6.18, 191 of 500 times.
func (i PidFDInfo) ExitStatus() (status syscall.WaitStatus, ok bool) {
	return syscall.WaitStatus(i.k.ExitCode), i.has(PIDFD_INFO_EXIT)
}

// Coredump returns a combination of [PIDFD_COREDUMPED] and the like: as which user the process
// would dump core and, once it has ended, as which user it began to. If the kernel has not recorded
// the latter, mask is 0, or since Linux 6.19 ok is false. [PIDFD_INFO_COREDUMP], Linux 6.16.
//
// Whether there was a core dump is in the status: call CoreDump of what [PidFDInfo.ExitStatus]
// returns, which can miss one. PIDFD_COREDUMPED is set if /proc/sys/kernel/core_pattern names a
// socket, or a program that is passed a pidfd (%F), even if the socket then cannot be connected to
// or the program not be started. With a file or any other program it is not set, even if the core
// was written (fs/coredump.c, coredump_sock_connect and umh_coredump_setup).
func (i PidFDInfo) Coredump() (mask CoredumpMask, ok bool) {
	return i.k.CoredumpMask, i.has(PIDFD_INFO_COREDUMP)
}

// CoredumpSignal returns the signal that made the process dump core. [PIDFD_INFO_COREDUMP_SIGNAL],
// reported with PIDFD_INFO_COREDUMP since Linux 6.19, where the kernel sets PIDFD_COREDUMPED.
func (i PidFDInfo) CoredumpSignal() (sig syscall.Signal, ok bool) {
	return syscall.Signal(i.k.CoredumpSignal), i.has(PIDFD_INFO_COREDUMP_SIGNAL)
}

// CoredumpCode returns the si_code of that signal; see sigaction(2). [PIDFD_INFO_COREDUMP_CODE],
// reported with PIDFD_INFO_COREDUMP since Linux 7.1, where the kernel sets PIDFD_COREDUMPED.
func (i PidFDInfo) CoredumpCode() (code int32, ok bool) {
	if !i.has(PIDFD_INFO_COREDUMP_CODE) {
		return 0, false // Linux 6.19 and 7.0 have supported_mask there
	}
	return int32(i.k.CoredumpCode), true
}

// SupportedMask returns the bits that the kernel knows, PIDFD_INFO_*. [PIDFD_INFO_SUPPORTED_MASK],
// Linux 6.19.
func (i PidFDInfo) SupportedMask() (mask PidFDInfoMask, ok bool) {
	switch {
	case !i.has(PIDFD_INFO_SUPPORTED_MASK):
		return 0, false
	case i.k.SupportedMask != 0:
		return i.k.SupportedMask, true
	}
	return i.k.supportedMask619(), true
}

// NSPIDs returns the PIDs of the process in the pid namespaces that it is in, the innermost last.
// The first one is its PID in the namespace whose /proc is mounted, which is usually, but not
// certainly, that of the caller. NSPIDs reads /proc/thread-self/fdinfo, Linux 5.5.
//
// Errors:
//   - ESRCH, which matches [os.ErrProcessDone], if the process was reaped;
//   - EREMOTE if the process is not in the namespace of /proc;
//   - an error that matches [errors.ErrUnsupported] if the kernel does not report the PIDs, or
//     /proc is not mounted.
func (p *PidFD) NSPIDs() ([]int, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	return fdinfoPIDs(p.fd, "NSpid:", failed("read", "NSpid "+fdSubject(p.fd), syscall.EOPNOTSUPP).as(errors.ErrUnsupported))
}

// GetXattr returns the value of an extended attribute of the process. The name of the attribute is
// "trusted." and another name. Every pidfd of the process has the same attributes, whoever opened
// it. They stay after the process is reaped, as long as a pidfd of it is open. GetXattr is
// fgetxattr(2); on pidfds it requires Linux 6.17 (fs/pidfs.c, pidfs_xattr_handlers).
//
// Errors:
//   - ENODATA if there is no such attribute, and always without the capability CAP_SYS_ADMIN;
//   - EOPNOTSUPP, which matches [errors.ErrUnsupported], for names of another kind and from older
//     kernels;
//   - ERANGE if the name is empty or has more than 255 bytes;
//   - EINVAL if the name contains a zero byte.
func (p *PidFD) GetXattr(name string) (value []byte, err error) {
	err = p.xattr("fgetxattr", name, func() (errno syscall.Errno) {
		value, errno = readXattr(func(buf []byte) (int, syscall.Errno) { return fgetxattr(p.fd, name, buf) })
		if errno == 0 && len(value) == 0 && !p.mayHaveXattr(name) {
			return syscall.ENODATA
		}
		return errno
	})
	return value, err
}

// mayHaveXattr is for an empty value, which the kernel also returns as long as a process has no
// attributes at all (fs/pidfs.c, pidfs_xattr_get, as of Linux 6.18).
func (p *PidFD) mayHaveXattr(name string) bool {
	list, errno := readXattr(func(buf []byte) (int, syscall.Errno) { return flistxattr(p.fd, buf) })
	return errno != 0 || slices.Contains(strings.Split(string(list), "\x00"), name)
}

// SetXattr sets an extended attribute; see [PidFD.GetXattr]. flags is 0, [XATTR_CREATE] or
// [XATTR_REPLACE]. It is fsetxattr(2).
//
// Errors:
//   - EEXIST if the attribute exists and flags is XATTR_CREATE;
//   - ENODATA if the attribute does not exist and flags is XATTR_REPLACE;
//   - EPERM without the capability CAP_SYS_ADMIN;
//   - E2BIG if the value has more than 65536 bytes;
//   - EOPNOTSUPP, ERANGE and EINVAL as with GetXattr, and EINVAL for other flags.
func (p *PidFD) SetXattr(name string, value []byte, flags XattrFlag) error {
	return p.xattr("fsetxattr", name, func() syscall.Errno { return fsetxattr(p.fd, name, value, flags) })
}

// RemoveXattr removes an extended attribute; see [PidFD.GetXattr]. It is fremovexattr(2).
//
// Errors:
//   - ENODATA if there is no such attribute;
//   - EPERM without the capability CAP_SYS_ADMIN;
//   - EOPNOTSUPP, ERANGE and EINVAL as with GetXattr.
func (p *PidFD) RemoveXattr(name string) error {
	return p.xattr("fremovexattr", name, func() syscall.Errno { return fremovexattr(p.fd, name) })
}

// ListXattrs returns the names of the extended attributes; see [PidFD.GetXattr]. It is
// flistxattr(2). A caller without the capability CAP_SYS_ADMIN sees none, and kernels before Linux
// 6.17 have none. Neither is an error.
//
// Errors: E2BIG if the names have more than 65536 bytes.
func (p *PidFD) ListXattrs() ([]string, error) {
	if err := p.acquire(); err != nil {
		return nil, err
	}
	defer p.release()
	list, errno := readXattr(func(buf []byte) (int, syscall.Errno) { return flistxattr(p.fd, buf) })
	if errno != 0 {
		return nil, failed("flistxattr", fdSubject(p.fd), errno)
	}
	var names []string
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// xattr calls f, which makes the system call about the attribute name.
func (p *PidFD) xattr(call, name string, f func() syscall.Errno) error {
	if err := p.acquire(); err != nil {
		return err
	}
	defer p.release()
	if strings.IndexByte(name, 0) >= 0 {
		return refused(syscall.EINVAL, "the attribute name "+strconv.Quote(name)+" contains a zero byte")
	}
	if errno := f(); errno != 0 {
		return failed(call, strconv.Quote(name)+" "+fdSubject(p.fd), errno)
	}
	return nil
}

// readXattr calls read with a buffer that is large enough. The kernel limits the size, so nobody
// can win a race by making the value longer and longer.
func readXattr(read func(buf []byte) (int, syscall.Errno)) ([]byte, syscall.Errno) {
	buf := make([]byte, 256)
	n, errno := read(buf)
	if errno == syscall.ERANGE {
		buf = make([]byte, _XATTR_SIZE_MAX)
		n, errno = read(buf)
	}
	if errno != 0 {
		return nil, errno
	}
	return append([]byte{}, buf[:n]...), 0
}
