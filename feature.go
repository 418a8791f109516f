//go:build linux

package sysfd

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Feature is something that this package can do on some kernels and not on others. A program need
// not probe a feature before it uses it, because functions return an error that matches
// [errors.ErrUnsupported]. Features are for messages, and for decisions when a program starts. Do
// not store their numbers: a new Feature can come in between.
type Feature int

// The features, each with the first version of the kernel that has it.
const (
	FeatureFileHandle        Feature = iota // Linux 2.6.39: [NameToHandleAt]
	FeatureOpenByHandle                     // Linux 2.6.39: [OpenByHandleAt]
	FeatureCgroupID                         // Linux 5.5: [CgroupIDAt]
	FeatureHandleFID                        // Linux 6.5: [AT_HANDLE_FID]
	FeatureFileSystemID                     // Linux 6.9: [FileSystemIDOf]
	FeatureMountIDUnique                    // Linux 6.12: [AT_HANDLE_MNT_ID_UNIQUE]
	FeatureHandleConnectable                // Linux 6.13: [AT_HANDLE_CONNECTABLE]
	FeatureNamespaceHandle                  // Linux 6.18: [FileHandle.Namespace], [NamespaceIDOf], [OpenNamespace], [FD_NSFS_ROOT]
	FeatureNamespaceByID                    // Linux 6.19: [OpenNamespace]
	FeatureNamespaces                       // Linux 6.19: [Namespaces]
	FeatureSendSignal                       // Linux 5.1: [PidFD.SendSignal]
	FeaturePidFD                            // Linux 5.3: [OpenPidFD]
	FeatureWait                             // Linux 5.4: [PidFD.Wait], [StartListenFDs]
	FeatureGetFD                            // Linux 5.6: [PidFD.GetFD]
	FeatureSetns                            // Linux 5.8: [PidFD.Setns]
	FeatureMadvise                          // Linux 5.10: [PidFD.Madvise]
	FeatureMrelease                         // Linux 5.15: [PidFD.Mrelease]
	FeaturePeerPidFD                        // Linux 6.5: [PeerPidFD]
	FeaturePassPidFD                        // Linux 6.5: [SetPassPidFD]
	FeatureThread                           // Linux 6.9: [PIDFD_THREAD]
	FeatureSignalTo                         // Linux 6.9: [PidFD.SendSignalTo]
	FeaturePidFDID                          // Linux 6.9, in a 32-bit program 6.14: [PidFDIDOf]
	FeatureNamespace                        // Linux 6.11: [PidFD.Namespace]
	FeatureInfo                             // Linux 6.13: [PidFD.Info], [PidFD.PID]
	FeatureOpenByID                         // Linux 6.14: [OpenPidFDByID]
	FeatureExitStatus                       // Linux 6.15: [PidFDInfo.ExitStatus]
	FeatureXattr                            // Linux 6.17: [PidFD.GetXattr]
)

// features have one of two functions that try them: one is given a pidfd of this process, the other
// is not.
var features = [...]struct {
	name, since string
	self        func(*PidFD) error
	probe       func() error
}{
	FeatureFileHandle:        {"file handle", "2.6.39", nil, func() error { return probeHandle(0) }},
	FeatureOpenByHandle:      {"opening a file by handle", "2.6.39", nil, probeOpenByHandle},
	FeatureCgroupID:          {"cgroup ID", "5.5", nil, probeCgroupID},
	FeatureHandleFID:         {"file handle for comparison only", "6.5", nil, func() error { return probeHandle(AT_HANDLE_FID) }},
	FeatureFileSystemID:      {"file system UUID", "6.9", nil, probeFileSystemID},
	FeatureMountIDUnique:     {"unique mount ID", "6.12", nil, func() error { return probeHandle(AT_HANDLE_MNT_ID_UNIQUE) }},
	FeatureHandleConnectable: {"connectable file handle", "6.13", nil, func() error { return probeHandle(AT_HANDLE_CONNECTABLE) }},
	FeatureNamespaceHandle:   {"namespace handle", "6.18", probeNamespaceHandle, nil},
	FeatureNamespaceByID:     {"opening a namespace by ID", "6.19", nil, probeNamespaceByID},
	FeatureNamespaces:        {"listing namespaces", "6.19", nil, func() error { _, err := Namespaces(0); return err }},
	FeatureSendSignal:        {"signaling a process", "5.1", nil, probeSendSignal},
	FeaturePidFD:             {"pidfd", "5.3", func(*PidFD) error { return nil }, nil},
	FeatureWait:              {"waiting for a process", "5.4", probeWait, nil},
	FeatureGetFD:             {"descriptor of another process", "5.6", func(p *PidFD) error { return closed(p.GetFD(p.fd)) }, nil},
	FeatureSetns:             {"joining a process's namespaces", "5.8", nil, probeSetns},
	FeatureMadvise:           {"memory advice for a process", "5.10", probeMadvise, nil},
	FeatureMrelease:          {"freeing a killed process's memory", "5.15", probeMrelease, nil},
	FeaturePeerPidFD:         {"pidfd of a socket peer", "6.5", nil, probePeerPidFD},
	FeaturePassPidFD:         {"pidfd of a message sender", "6.5", nil, probePassPidFD},
	FeatureThread:            {"pidfd of a thread", "6.9", nil, probeThread},
	FeatureSignalTo:          {"signaling a thread or a group", "6.9", probeSignalTo, nil},
	FeaturePidFDID:           {"pidfd ID", "6.9", probeID, nil},
	FeatureNamespace:         {"opening a process's namespaces", "6.11", probeNamespace, nil},
	FeatureInfo:              {"process information", "6.13", probeInfo, nil},
	FeatureOpenByID:          {"opening a process by ID", "6.14", probeOpenByID, nil},
	FeatureExitStatus:        {"exit status of a non-child", "6.15", probeExitStatus, nil},
	FeatureXattr:             {"extended attributes of a process", "6.17", probeXattr, nil},
}

// Features returns all features: first those of files, then those of processes, each group in the
// order of kernel versions.
func Features() []Feature {
	all := make([]Feature, len(features))
	for i := range all {
		all[i] = Feature(i)
	}
	return all
}

func (f Feature) known() bool { return f >= 0 && int(f) < len(features) }

// String returns a few words that describe the feature.
func (f Feature) String() string {
	if !f.known() {
		return "Feature(" + strconv.Itoa(int(f)) + ")"
	}
	return features[f].name
}

// Since returns the first version of the kernel that has the feature for programs of this word
// size, such as "6.14". Vendors add features to older kernels; [Feature.Probe] finds them.
func (f Feature) Since() string {
	switch {
	case !f.known():
		return ""
	case f == FeaturePidFDID && !is64bit:
		return features[FeatureOpenByID].since // the ID is in the handle alone
	}
	return features[f].since
}

// Probe tries the feature on this process and on files that always exist, changes nothing, and
// returns nil if the feature works. A call that a sandbox accepts without effect does not count.
// Probe tries each time, and caches nothing.
//
// What works on this process may be forbidden on others, as with [PidFD.GetFD] and [PidFD.Madvise].
// Under a seccomp filter that kills, Probe ends the program if it makes a forbidden call.
//
// Errors:
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks the feature, or was built
//     without it;
//   - EPERM, or another error that matches [os.ErrPermission], if this process may not use it. In a
//     user namespace FeatureOpenByHandle can be either, because only directories on mounts of that
//     namespace open there;
//   - EINVAL if there is no such feature;
//   - ENODATA if Probe cannot decide: for FeatureExitStatus before Linux 6.19, where only a process
//     that has ended shows it, and for FeatureFileSystemID and FeatureCgroupID if no suitable file
//     system is in the usual places;
//   - others, such as EMFILE, that say nothing about the feature.
func (f Feature) Probe() error {
	if !f.known() {
		return refused(syscall.EINVAL, f.String()+" is not a feature")
	}
	if probe := features[f].probe; probe != nil {
		return probe()
	}
	p, err := OpenPidFD(syscall.Getpid(), 0)
	if err != nil {
		return err
	}
	defer p.Close()
	return features[f].self(p)
}

// answer returns nil if a call failed in the way that shows that the kernel knows it.
func answer(call, subject string, errno, good syscall.Errno) error {
	err := failed(call, subject, errno)
	switch {
	case errno == 0 || errno == good:
		return nil
	case lacksIoctl(errno): // or waitid(2) before Linux 5.4, or setns(2) before 5.8
		return err.as(errors.ErrUnsupported)
	}
	return err
}

// undecided returns an error that says nothing about the feature.
func undecided(why string) error { return refused(syscall.ENODATA, why) }

// pretended returns an error for a call that succeeds but has no effect.
func pretended(call string) error {
	return refused(syscall.EOPNOTSUPP, call+" succeeds here, but has no effect").as(errors.ErrUnsupported)
}

// noFlag is a flag that no kernel knows. If a call has the same answer with it as with a real flag,
// the flag was not looked at: gVisor has one answer for all flags of name_to_handle_at(2).
const noFlag = 1 << 30

// noFD is not open. Unlike -1, waitid(2) does not refuse it before looking.
const noFD = 1<<31 - 1

// closed closes c if err is nil.
func closed(c io.Closer, err error) error {
	if err == nil {
		err = c.Close()
	}
	return err
}

// probeHandle accepts any answer about the file system from a kernel that refuses an unknown flag.
func probeHandle(flag int) error {
	_, mount, err := NameToHandleAt(AT_FDCWD, "/", flag)
	switch {
	case err == nil && flag == AT_HANDLE_MNT_ID_UNIQUE && !mount.Unique():
		return pretended("name_to_handle_at AT_HANDLE_MNT_ID_UNIQUE")
	case err != nil && !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.EOVERFLOW):
		return err
	}
	switch _, _, control := NameToHandleAt(AT_FDCWD, "/", noFlag); {
	case errors.Is(control, syscall.EINVAL):
		return nil
	case errors.Is(err, syscall.EOPNOTSUPP):
		return err
	}
	return pretended("name_to_handle_at 0x" + strconv.FormatInt(int64(flag), 16))
}

func probeOpenByHandle() error {
	root, err := openat(AT_FDCWD, "/", syscall.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer syscall.Close(root)
	h, _, err := NameToHandleAt(root, "", AT_EMPTY_PATH)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		h, err = KernfsHandle(0), nil // which a file system without handles does not find
	}
	if err != nil {
		return err
	}
	err = closed(OpenByHandleAt(root, h, syscall.O_DIRECTORY))
	if errors.Is(err, syscall.ESTALE) {
		return nil
	}
	return err
}

func probeCgroupID() error {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		_, _, err := CgroupIDAt(AT_FDCWD, dir, AT_SYMLINK_FOLLOW)
		if !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	return undecided("cgroup2 is not mounted on /sys/fs/cgroup")
}

// probeFileSystemID asks file systems, some of which have a UUID on each kernel that has the ioctl.
// Older ways to read the UUID of ext4 and btrfs do not count.
func probeFileSystemID() error {
	const sysfs, tmpfs = 0x62656572, 0x01021994
	err := undecided("neither /sys nor /dev is on a file system in memory")
	for _, dir := range []string{"/sys", "/dev", "/"} {
		fd, errOpen := openat(AT_FDCWD, dir, syscall.O_DIRECTORY)
		if errOpen != nil {
			if !errors.Is(errOpen, syscall.ENOENT) {
				err = errOpen
			}
			continue
		}
		n := 0
		magic, errno := fsMagic(fd)
		if errno == 0 && magic != unix.BTRFS_SUPER_MAGIC {
			_, n, errno = fsUUID(fd)
		}
		syscall.Close(fd)
		switch {
		case errno == syscall.ENOTTY && (magic == sysfs || magic == tmpfs):
			return failed("ioctl", "FS_IOC_GETFSUUID of "+dir, errno).as(errors.ErrUnsupported)
		case errno == syscall.ENOTTY, errno == syscall.EOPNOTSUPP, errno == 0 && n == 0:
			// It has none, or not by the ioctl.
		case errno == 0:
			return nil
		default:
			return failed("ioctl", "FS_IOC_GETFSUUID of "+dir, errno)
		}
	}
	return err
}

func probeNamespaceHandle(p *PidFD) error {
	f, err := p.Namespace(MntNamespace)
	if err != nil {
		return err
	}
	defer f.Close()
	h, _, err := NameToHandleAt(int(f.Fd()), "", AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	return closed(OpenByHandleAt(FD_NSFS_ROOT, h, 0))
}

func probeNamespaceByID() error {
	h, err := ownNamespaceHandle()
	if err != nil {
		return err
	}
	id, _, _, _ := h.Namespace()
	return closed(OpenNamespace(NamespaceHandle(id, 0, 0)))
}

func probeWait(p *PidFD) error {
	const how = syscall.WEXITED | syscall.WNOHANG | syscall.WNOWAIT
	errno := waitPidFD(p.fd, how, &siginfo{}, nil) // this process is no child of its own
	if errno == syscall.ECHILD && waitPidFD(noFD, how, &siginfo{}, nil) != syscall.EBADF {
		return pretended("waitid P_PIDFD")
	}
	return answer("waitid", fdSubject(p.fd), errno, syscall.ECHILD)
}

// probeSendSignal works without pidfd_open(2), which is younger: a directory of /proc will do.
func probeSendSignal() error {
	control := pidfdProbe(noFD)
	fd, errno := pidfdOpen(syscall.Getpid(), 0)
	if errno != 0 && control == syscall.EBADF {
		var err error
		if fd, err = openat(AT_FDCWD, "/proc/self", syscall.O_DIRECTORY); err != nil {
			return err
		}
	}
	if fd >= 0 {
		defer syscall.Close(fd)
	}
	switch {
	case control == 0:
		return pretended("pidfd_send_signal")
	case fd < 0:
		return answer("pidfd_send_signal", "0", control, 0)
	}
	return answer("pidfd_send_signal", "0 to descriptor "+strconv.Itoa(fd), pidfdProbe(fd), 0)
}

func probeSignalTo(p *PidFD) error {
	err := p.SendSignalTo(0, PIDFD_SIGNAL_THREAD_GROUP)
	if err == nil && p.SendSignalTo(0, noFlag) == nil {
		return pretended("pidfd_send_signal PIDFD_SIGNAL_THREAD_GROUP")
	}
	return err
}

// probeSetns moves the calling thread into the namespace that it is in.
func probeSetns() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, err := OpenPidFD(syscall.Gettid(), PIDFD_THREAD)
	ofThread := err == nil
	if errors.Is(err, errors.ErrUnsupported) {
		p, err = OpenPidFD(syscall.Getpid(), 0)
	}
	if err != nil {
		return err
	}
	defer p.Close()
	if !ofThread {
		// Before Linux 6.9 a pidfd only leads to the namespace of the main thread.
		its, errno1 := stat("/proc/self/ns/uts")
		own, errno2 := stat("/proc/thread-self/ns/uts")
		if errno1 != 0 || errno2 != 0 || its != own {
			return undecided("this thread may be in another namespace than the main thread")
		}
	}
	errno := setns(p.fd, syscall.CLONE_NEWUTS)
	if errno == 0 && setns(noFD, syscall.CLONE_NEWUTS) == 0 {
		return pretended("setns")
	}
	return answer("setns", "to the UTS namespace of this thread", errno, 0)
}

func probeMadvise(p *PidFD) error {
	_, err := p.Madvise(MADV_COLD)
	if err == nil {
		if _, errno := processMadvise[MemoryRange](noFD, nil, MADV_COLD); errno == 0 {
			return pretended("process_madvise")
		}
	}
	return err
}

func probeMrelease(p *PidFD) error {
	err := p.Mrelease()
	switch isEINVAL := errors.Is(err, syscall.EINVAL); {
	case isEINVAL && processMrelease(noFD) == syscall.EINVAL, err == nil:
		return pretended("process_mrelease")
	case isEINVAL:
		return nil // this process is not about to die
	}
	return err
}

func probeID(p *PidFD) error {
	_, err := p.ID()
	return err
}

// probeNamespace does not use /proc, as PidFD.Namespace may.
func probeNamespace(p *PidFD) error {
	fd, errno := pidfdGetNamespace(p.fd, uint32(MntNamespace))
	if errno == 0 {
		if magic, _ := fsMagic(fd); magic != unix.NSFS_MAGIC {
			return pretended("ioctl PIDFD_GET_MNT_NAMESPACE")
		}
		syscall.Close(fd)
	}
	return answer("ioctl", "for the mnt namespace "+fdSubject(p.fd), errno, 0)
}

func probeInfo(p *PidFD) error {
	info, err := p.Info(PIDFD_INFO_PID)
	pid, ok := info.PID()
	switch {
	case errors.Is(err, syscall.ESRCH):
		return nil // before Linux 6.18, if the parent of this process has no PID here
	case err == nil && (!ok || pid == 0):
		return pretended("ioctl PIDFD_GET_INFO")
	}
	return err
}

func probeExitStatus(p *PidFD) error {
	info, err := p.Info(PIDFD_INFO_SUPPORTED_MASK)
	if err != nil && !errors.Is(err, syscall.ESRCH) { // as in probeInfo
		return err
	}
	switch mask, ok := info.SupportedMask(); {
	case !ok:
		return undecided("before Linux 6.19 only a process that has ended shows whether its exit status is known")
	case mask&PIDFD_INFO_EXIT == 0:
		return failed("ioctl", "PIDFD_INFO_EXIT", syscall.EOPNOTSUPP).as(errors.ErrUnsupported)
	}
	return nil
}

func probeOpenByID(p *PidFD) error {
	id, err := pidfdIDByHandle(p.fd)
	if err != nil {
		return err
	}
	return closed(OpenPidFDByID(id))
}

func probeXattr(p *PidFD) error {
	// Without privileges the first answer is ENODATA on any kernel. The second one can be EPERM
	// before Linux 6.17 too.
	const name = "trusted.sysfd.none"
	_, err := p.GetXattr(name)
	if err == nil || errors.Is(err, syscall.ENODATA) { // nil if the process has no attributes at all
		err = p.RemoveXattr(name)
	}
	switch {
	case errors.Is(err, syscall.ENODATA):
		return nil
	case err == nil:
		return pretended("fremovexattr")
	}
	return err
}

// probeSocket calls try with one end of a connected pair of Unix sockets, and with the descriptors
// of both ends, its own last.
func probeSocket(try func(socket syscall.Conn, ends [2]int) error) error {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer syscall.Close(fds[0])
	f := os.NewFile(uintptr(fds[1]), "socketpair")
	defer f.Close()
	return try(f, fds)
}

func probePeerPidFD() error {
	return probeSocket(func(socket syscall.Conn, _ [2]int) error { return closed(PeerPidFD(socket)) })
}

// probePassPidFD sends a message to itself: gVisor accepts the socket option without effect.
func probePassPidFD() error {
	return probeSocket(func(socket syscall.Conn, ends [2]int) error {
		if err := SetPassPidFD(socket, true); err != nil {
			return err
		}
		message := []byte{1}
		errno := uninterrupted(func() syscall.Errno {
			return errnoOf(syscall.Sendto(ends[0], message, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, nil))
		})
		if errno != 0 {
			return failed("sendto", "on a socket pair", errno)
		}
		control := make([]byte, PidFDControlSize)
		n := 0
		errno = uninterrupted(func() (errno syscall.Errno) {
			var err error
			_, n, _, _, err = syscall.Recvmsg(ends[1], message, control, syscall.MSG_DONTWAIT|syscall.MSG_CMSG_CLOEXEC)
			return errnoOf(err)
		})
		if errno != 0 {
			return failed("recvmsg", "on a socket pair", errno)
		}
		err := closed(TakePeerPidFD(control[:n]))
		if errors.Is(err, syscall.ENODATA) {
			return pretended("setsockopt SO_PASSPIDFD")
		}
		return err
	})
}

func probeThread() error {
	err := closed(OpenPidFD(syscall.Getpid(), PIDFD_THREAD))
	if err == nil && closed(OpenPidFD(syscall.Getpid(), noFlag)) == nil {
		return pretended("pidfd_open PIDFD_THREAD")
	}
	return err
}
