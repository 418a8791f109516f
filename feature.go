//go:build linux

package sysfd

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// A Feature is something that this package can do on some kernels and not on others.
// Nothing needs to be asked for before it is used, for functions return an error that
// matches [errors.ErrUnsupported]. A Feature is for telling a person what there is, and for
// decisions when a program starts.
type Feature int

// The features, each with the first version of the kernel that has it.
const (
	FeatureFileHandle        Feature = iota // Linux 2.6.39: [NameToHandleAt]
	FeatureOpenByHandle                     // Linux 2.6.39: [OpenByHandleAt]
	FeatureCgroupID                         // Linux 5.5: [CgroupIDAt]
	FeatureHandleFID                        // Linux 6.5: [AT_HANDLE_FID]
	FeatureFileSystemID                     // Linux 6.9: [FileSystemIDOf]
	FeatureMountIDUnique                    // Linux 6.12: [AT_HANDLE_MNT_ID_UNIQUE], [OpenMount]
	FeatureHandleConnectable                // Linux 6.13: [AT_HANDLE_CONNECTABLE]
	FeatureNamespaceHandle                  // Linux 6.18: [FileHandle.Namespace], [FD_NSFS_ROOT]
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
	FeatureReaped                           // Linux 6.9: [PidFD.Wait] for what is not a child
	FeaturePidFDID                          // Linux 6.9, in a 32-bit program 6.14: [PidFDGetID]
	FeatureNamespace                        // Linux 6.11: [PidFD.Namespace]
	FeatureInfo                             // Linux 6.13: [PidFD.Info], [PidFD.PID]
	FeatureOpenByID                         // Linux 6.14: [OpenPidFDByID]
	FeatureExitStatus                       // Linux 6.15: [PidFDInfo.ExitStatus]
	FeatureXattr                            // Linux 6.17: [PidFD.GetXattr]
)

// features have one of two functions to try them: one that is given a pidfd of this
// process, and one that is not.
var features = [...]struct {
	name, since string
	self        func(*PidFD) error
	probe       func() error
}{
	FeatureFileHandle:        {"handle of a file", "2.6.39", nil, func() error { return probeHandle(0) }},
	FeatureOpenByHandle:      {"opening a file by its handle", "2.6.39", nil, probeOpenByHandle},
	FeatureCgroupID:          {"ID of a cgroup", "5.5", nil, probeCgroupID},
	FeatureHandleFID:         {"handle that only compares", "6.5", nil, func() error { return probeHandle(AT_HANDLE_FID) }},
	FeatureFileSystemID:      {"UUID of a file system", "6.9", nil, probeFileSystemID},
	FeatureMountIDUnique:     {"unique ID of a mount", "6.12", nil, func() error { return probeHandle(AT_HANDLE_MNT_ID_UNIQUE) }},
	FeatureHandleConnectable: {"handle that leads to a path", "6.13", nil, func() error { return probeHandle(AT_HANDLE_CONNECTABLE) }},
	FeatureNamespaceHandle:   {"handle of a namespace", "6.18", probeNamespaceHandle, nil},
	FeaturePidFD:             {"pidfd", "5.3", func(*PidFD) error { return nil }, nil},
	FeatureWait:              {"waiting for a process", "5.4", probeWait, nil},
	FeatureGetFD:             {"file of another process", "5.6", func(p *PidFD) error { return closed(p.GetFD(p.fd)) }, nil},
	FeatureSetns:             {"entering namespaces of a process", "5.8", probeSetns, nil},
	FeatureMadvise:           {"advice about memory of a process", "5.10", probeMadvise, nil},
	FeatureMrelease:          {"freeing memory of a killed process", "5.15", probeMrelease, nil},
	FeaturePeerPidFD:         {"pidfd of a socket's peer", "6.5", nil, probePeerPidFD},
	FeaturePassPidFD:         {"pidfd of a message's sender", "6.5", nil, probePassPidFD},
	FeatureThread:            {"pidfd of a thread", "6.9", nil, func() error { return probeThread(func(*PidFD, WaitResult) error { return nil }) }},
	FeatureSignalTo:          {"signal to a thread or a group", "6.9", func(p *PidFD) error { return p.SendSignalTo(0, PIDFD_SIGNAL_THREAD_GROUP) }, nil},
	FeatureReaped:            {"news that a process was reaped", "6.9", nil, func() error { return probeThread(wasReaped) }},
	FeaturePidFDID:           {"pidfd ID", "6.9", probeID, nil},
	FeatureNamespace:         {"namespace of a process", "6.11", probeNamespace, nil},
	FeatureInfo:              {"facts about a process", "6.13", probeInfo, nil},
	FeatureOpenByID:          {"opening a process by its ID", "6.14", probeOpenByID, nil},
	FeatureExitStatus:        {"exit status of what is not a child", "6.15", nil, func() error { return probeThread(hasStatus) }},
	FeatureXattr:             {"attributes of a process", "6.17", probeXattr, nil},
}

// Features returns all features: those of files, then those of processes, each in the order
// of their age.
func Features() []Feature {
	all := make([]Feature, len(features))
	for i := range all {
		all[i] = Feature(i)
	}
	return all
}

func (f Feature) known() bool { return f >= 0 && int(f) < len(features) }

// String returns a few words that say what the feature is.
func (f Feature) String() string {
	if !f.known() {
		return "Feature(" + strconv.Itoa(int(f)) + ")"
	}
	return features[f].name
}

// Since returns the first version of the kernel that has the feature for programs of this
// word size, such as "6.14". Vendors give features to older kernels; [Feature.Probe]
// finds them.
func (f Feature) Since() string {
	switch {
	case !f.known():
		return ""
	case f == FeaturePidFDID && !is64bit:
		return features[FeatureOpenByID].since // the ID is in the handle alone
	}
	return features[f].since
}

// Probe tries the feature, on this process and on files that are always there, and
// changes nothing. It returns nil if it works. It asks each time: no answer is kept.
//
// Errors: one that matches [errors.ErrUnsupported] if the kernel lacks it, or was
// built without it. EPERM, or another that matches [os.ErrPermission], if this process may
// not use it. ENOENT for FeatureCgroupID if cgroup2 is not mounted where it commonly is.
// EINVAL if there is no such feature. Any other leaves it open, such as EMFILE.
func (f Feature) Probe() error {
	if !f.known() {
		return &inputError{text: f.String() + " is not a feature", errno: syscall.EINVAL}
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

// answer returns nil if a call failed as it does where the kernel knows it.
func answer(call string, errno, good syscall.Errno) error {
	switch errno {
	case 0, good:
		return nil
	case syscall.EINVAL:
		return &callError{call: call, errno: errno, means: errors.ErrUnsupported}
	}
	return &callError{call: call, errno: errno}
}

func closed(f *os.File, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}

// probeHandle takes any answer about the file system for one of a kernel that knows the flag.
func probeHandle(flag int) error {
	_, _, err := NameToHandleAt(AT_FDCWD, "/", flag)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EOVERFLOW) {
		return nil
	}
	return err
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

func probeCgroupID() (err error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err = CgroupIDAt(AT_FDCWD, dir); err == nil {
			return nil
		}
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, os.ErrNotExist) {
		err = &inputError{text: "cgroup2 is not mounted on /sys/fs/cgroup", errno: syscall.ENOENT}
	}
	return err
}

// probeFileSystemID asks file systems of which at least one has a UUID. To read that of
// ext4 and btrfs in other ways is older.
func probeFileSystemID() (err error) {
	for _, dir := range []string{"/sys", "/dev", "/"} {
		var fd int
		if fd, err = openat(AT_FDCWD, dir, syscall.O_DIRECTORY); err != nil {
			continue
		}
		_, _, errno := fsUUID(fd)
		magic, _ := fsMagic(fd)
		syscall.Close(fd)
		if errno == 0 && magic != _BTRFS_SUPER_MAGIC {
			return nil
		}
		err = &callError{call: "ioctl", subject: "FS_IOC_GETFSUUID of " + dir, errno: errno}
		if errno == syscall.ENOTTY {
			err.(*callError).means = errors.ErrUnsupported
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
	var h FileHandle
	if useErr := withFD(f, func(fd int) { h, _, err = NameToHandleAt(fd, "", AT_EMPTY_PATH) }); useErr != nil {
		err = useErr
	}
	if err != nil {
		return err
	}
	return closed(OpenByHandleAt(FD_NSFS_ROOT, h, 0))
}

func probeWait(p *PidFD) error {
	errno := waitPidFD(p.fd, syscall.WEXITED|syscall.WNOHANG|syscall.WNOWAIT, &siginfo{}, nil)
	return answer("waitid", errno, syscall.ECHILD)
}

// probeSetns moves a thread into a namespace of the process, and that thread ends.
func probeSetns(p *PidFD) error {
	var errno syscall.Errno
	onThread(func() { errno = setns(p.fd, syscall.CLONE_NEWUTS) })
	return answer("setns", errno, 0)
}

func probeMadvise(p *PidFD) error {
	_, err := p.Madvise(MADV_COLD)
	return err
}

func probeMrelease(p *PidFD) error {
	if err := p.Mrelease(); !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil // this process is not about to die
}

func probeID(p *PidFD) error {
	_, err := p.ID()
	return err
}

// probeNamespace is without the way by /proc.
func probeNamespace(p *PidFD) error {
	fd, errno := pidfdGetNamespace(p.fd, MntNamespace)
	if errno == 0 {
		return closed(os.NewFile(uintptr(fd), ""), nil)
	}
	if errno == syscall.ENOTTY {
		errno = syscall.EINVAL
	}
	return answer("ioctl", errno, 0)
}

func probeInfo(p *PidFD) error {
	_, err := p.Info(PIDFD_INFO_PID)
	return err
}

func probeOpenByID(p *PidFD) error {
	id, err := pidfdIDByHandle(p.fd)
	if err != nil {
		return err
	}
	again, err := OpenPidFDByID(id)
	if err != nil {
		return err
	}
	return again.Close()
}

func probeXattr(p *PidFD) error {
	if _, err := p.GetXattr("trusted.none"); !errors.Is(err, syscall.ENODATA) {
		return err
	}
	return nil
}

// probeSocket calls try with a connected Unix socket.
func probeSocket(try func(syscall.Conn) error) error {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer syscall.Close(fds[0])
	f := os.NewFile(uintptr(fds[1]), "socketpair")
	defer f.Close()
	return try(f)
}

func probePeerPidFD() error {
	return probeSocket(func(socket syscall.Conn) error {
		p, err := PeerPidFD(socket)
		if err == nil {
			p.Close()
		}
		return err
	})
}

func probePassPidFD() error {
	return probeSocket(func(socket syscall.Conn) error { return SetPassPidFD(socket, true) })
}

// probeThread lets a thread end and calls ask about it. A thread is, as a child of others
// is, reaped by somebody else.
func probeThread(ask func(*PidFD, WaitResult) error) error {
	tid, opened, ended := make(chan int), make(chan struct{}), make(chan struct{})
	go func() {
		onThread(func() {
			tid <- syscall.Gettid()
			<-opened
		})
		close(ended)
	}()
	p, err := OpenPidFD(<-tid, PIDFD_THREAD)
	close(opened)
	<-ended
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := p.Wait(context.Background())
	if err != nil {
		return err
	}
	return ask(p, r)
}

func wasReaped(p *PidFD, _ WaitResult) error {
	revents, errno := pollNow(p.fd)
	if errno == 0 && revents&_POLLHUP == 0 {
		errno = syscall.EOPNOTSUPP
	}
	return answer("ppoll", errno, 0)
}

func hasStatus(_ *PidFD, r WaitResult) error { return r.Unknown }

// onThread calls f on a thread that then ends.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if syscall.Gettid() != syscall.Getpid() {
			f()
			return
		}
		// The main thread stays. While it is locked, others get another one.
		onThread(f)
		runtime.UnlockOSThread()
	}()
	<-done
}
