//go:build linux

package bench

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/prometheus/procfs"
	"github.com/shirou/gopsutil/v4/process"
	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// call is a system call in the form that tells the scheduler.
func call(number uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}

// closing closes the descriptor that a call has returned.
func closing(fd uintptr, err error) error {
	if err != nil {
		return err
	}
	return syscall.Close(int(fd))
}

func closingInt(fd int, err error) error {
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}

func pidfdPairs(t testing.TB) []*pair {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if errors.Is(err, errors.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	pid := os.Getpid()
	self, err := sysfd.OpenPidFD(pid, 0)
	must(err)
	t.Cleanup(func() { self.Close() })
	id, err := self.ID()
	must(err)
	must(sysfd.FeatureInfo.Probe())
	must(sysfd.FeatureOpenByID.Probe())
	must(sysfd.FeaturePeerPidFD.Probe())
	conn := socket(t)
	child, childPID := startChild(t)
	connFD, pidfd, childFD := descriptorOf(t, conn), descriptorOf(t, self), descriptorOf(t, child)

	// Arguments that stay where they are.
	args := &struct {
		handle struct {
			bytes, kind uint32
			id          uint64
			room        [120]byte
		}
		mount   uint64
		statx   unix.Statx_t
		info    [12]uint64
		peer    int32
		size    uint32
		siginfo [16]uint64
		bootID  [64]byte
		empty   byte
	}{}
	t.Cleanup(func() { args = nil })
	args.handle.bytes, args.handle.kind, args.handle.id = 8, 0xfe, uint64(id)
	at := func(p unsafe.Pointer) uintptr { return uintptr(p) }
	handle, statx, info := at(unsafe.Pointer(&args.handle)), at(unsafe.Pointer(&args.statx)), at(unsafe.Pointer(&args.info))
	siginfo := at(unsafe.Pointer(&args.siginfo))
	peerFD, size, bootID, empty := at(unsafe.Pointer(&args.peer)), at(unsafe.Pointer(&args.size)), at(unsafe.Pointer(&args.bootID)), at(unsafe.Pointer(&args.empty))
	bootIDFile, namespaceFile := "/proc/sys/kernel/random/boot_id\x00", "/proc/self/ns/pid\x00"
	bootIDName, namespaceName := at(unsafe.Pointer(unsafe.StringData(bootIDFile))), at(unsafe.Pointer(unsafe.StringData(namespaceFile)))
	atFDCWD := uintptr(sysfd.AT_FDCWD & (1<<32 - 1))

	const getInfo = 0xc050ff0b // PIDFD_GET_INFO for a struct of 80 bytes
	const credentials = sysfd.PIDFD_INFO_PID | sysfd.PIDFD_INFO_CREDS
	statFD := func(fd uintptr) error {
		_, err := call(unix.SYS_STATX, fd, empty, sysfd.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, statx)
		return err
	}
	getPID := func() error {
		args.info[0] = sysfd.PIDFD_INFO_PID
		_, err := call(unix.SYS_IOCTL, pidfd, getInfo, info)
		return err
	}
	// What a ProcessRef has beside PID and ID.
	boot := func() error {
		fd, err := call(unix.SYS_OPENAT, atFDCWD, bootIDName, unix.O_CLOEXEC)
		if err != nil {
			return err
		}
		if _, err := call(unix.SYS_READ, fd, bootID, 64); err != nil {
			return err
		}
		if err := syscall.Close(int(fd)); err != nil {
			return err
		}
		_, err = call(unix.SYS_STATX, atFDCWD, namespaceName, 0, unix.STATX_TYPE|unix.STATX_INO, statx)
		return err
	}
	getCredentials := func() error {
		args.info[0] = credentials
		_, err := call(unix.SYS_IOCTL, pidfd, getInfo, info)
		return err
	}
	fs, err := procfs.NewDefaultFS()
	must(err)
	stat := func(pid int) error {
		p, err := fs.Proc(pid)
		if err == nil {
			_, err = p.Stat()
		}
		return err
	}
	status := func(pid int) error {
		p, err := fs.Proc(pid)
		if err == nil {
			_, err = p.NewStatus()
		}
		return err
	}
	inspect := func(f func(p *process.Process) error) func() error {
		return func() error {
			p, err := process.NewProcess(int32(pid))
			if err != nil {
				return err
			}
			return f(p)
		}
	}
	started := inspect(func(p *process.Process) error { _, err := p.CreateTime(); return err })
	found, err := os.FindProcess(pid)
	must(err)
	t.Cleanup(func() { found.Release() })
	xHandle := unix.NewFileHandle(sysfd.FILEID_KERNFS, sysfd.PidFDHandle(id).Bytes())
	return []*pair{
		{name: "OpenPidFD and Close", ratio: 1.2, allocs: 2, calls: 2,
			op:   func() error { return closed(sysfd.OpenPidFD(pid, 0)) },
			bare: func() error { return closing(call(unix.SYS_PIDFD_OPEN, uintptr(pid), 0)) },
			peers: []peer{
				{"unix.PidfdOpen", func() error { return closingInt(unix.PidfdOpen(pid, 0)) }},
				{"os.FindProcess", func() error {
					p, err := os.FindProcess(pid)
					if err != nil {
						return err
					}
					return p.Release()
				}},
			}},
		{name: "OpenPidFDByID and Close", ratio: 1.2, allocs: 2, calls: 2,
			op:   func() error { return closed(sysfd.OpenPidFDByID(id)) },
			bare: func() error { return closing(call(unix.SYS_OPEN_BY_HANDLE_AT, pidfd, handle, unix.O_CLOEXEC)) },
			peers: []peer{
				{"unix.OpenByHandleAt", func() error { return closingInt(unix.OpenByHandleAt(int(pidfd), xHandle, 0)) }},
			}},
		{name: "PeerPidFD and Close", ratio: 1.3, allocs: 5, calls: 2,
			op: func() error { return closed(sysfd.PeerPidFD(conn)) },
			bare: func() error {
				args.size = 4
				_, err := call(unix.SYS_GETSOCKOPT, connFD, unix.SOL_SOCKET, unix.SO_PEERPIDFD, peerFD, size)
				return closing(uintptr(args.peer), err)
			},
			peers: []peer{
				{"unix.GetsockoptInt", func() error {
					raw, err := conn.SyscallConn()
					if err != nil {
						return err
					}
					fd, errPeer := -1, error(nil)
					err = raw.Control(func(socket uintptr) {
						fd, errPeer = unix.GetsockoptInt(int(socket), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
					})
					return closingInt(fd, errors.Join(err, errPeer))
				}},
			}},
		{name: "Ref", ratio: 1.3, allocs: 1, calls: 6,
			op:   func() error { _, err := self.Ref(); return err },
			bare: func() error { return errors.Join(statFD(pidfd), getPID(), boot()) },
			peers: []peer{ // PID and start time
				{"gopsutil.CreateTime", started},
				{"procfs.Stat", func() error { return stat(pid) }},
			}},
		{name: "SelfRef", ratio: 1.3, allocs: 1, calls: 9,
			op: func() error { _, err := sysfd.SelfRef(); return err },
			bare: func() error {
				fd, err := call(unix.SYS_PIDFD_OPEN, uintptr(pid), 0)
				if err == nil {
					err = statFD(fd)
				}
				return errors.Join(closing(fd, err), boot())
			},
			peers: []peer{
				{"gopsutil.CreateTime", started},
				{"procfs.Stat", func() error { return stat(pid) }},
			}},
		{name: "PidFDIDOf", ratio: 1.08, calls: 1,
			op:   func() error { _, err := sysfd.PidFDIDOf(int(pidfd)); return err },
			bare: func() error { return statFD(pidfd) },
			peers: []peer{ // with and without the proof that it is a pidfd
				{"unix.Fstat+Fstatfs", func() error {
					var st unix.Stat_t
					var fs unix.Statfs_t
					return errors.Join(unix.Fstat(int(pidfd), &st), unix.Fstatfs(int(pidfd), &fs))
				}},
				{"unix.Fstat", func() error { var st unix.Stat_t; return unix.Fstat(int(pidfd), &st) }},
			}},
		{name: "PidFDIDOf beside a handle call", ratio: 0.65, calls: 1,
			op: func() error { _, err := sysfd.PidFDIDOf(int(pidfd)); return err },
			bare: func() error {
				args.handle.bytes = 128
				_, err := call(unix.SYS_NAME_TO_HANDLE_AT, pidfd, empty, handle, at(unsafe.Pointer(&args.mount)), sysfd.AT_EMPTY_PATH)
				args.handle.bytes = 8
				return err
			},
			peers: []peer{
				{"unix.NameToHandleAt", func() error { _, _, err := unix.NameToHandleAt(int(pidfd), "", unix.AT_EMPTY_PATH); return err }},
			}},
		{name: "ID", ratio: 1.08, calls: 1,
			op:   func() error { _, err := self.ID(); return err },
			bare: func() error { return statFD(pidfd) }},
		{name: "Info", ratio: 1.08, calls: 1,
			op:   func() error { _, err := self.Info(sysfd.PIDFD_INFO_PID); return err },
			bare: getPID,
			peers: []peer{
				{"procfs.Stat", func() error { return stat(pid) }},
				{"gopsutil.Ppid", inspect(func(p *process.Process) error { _, err := p.Ppid(); return err })},
			}},
		{name: "Info with user and group", ratio: 1.08, calls: 1,
			op:   func() error { _, err := self.Info(credentials); return err },
			bare: getCredentials,
			peers: []peer{
				{"procfs.NewStatus", func() error { return status(pid) }},
				{"gopsutil.Uids", inspect(func(p *process.Process) error { _, err := p.Uids(); return err })},
			}},
		{name: "SendSignal", ratio: 1.08, calls: 1,
			op:   func() error { return self.SendSignal(0) },
			bare: func() error { _, err := call(unix.SYS_PIDFD_SEND_SIGNAL, pidfd, 0, 0, 0); return err },
			peers: []peer{
				{"unix.PidfdSendSignal", func() error { return unix.PidfdSendSignal(int(pidfd), 0, nil, 0) }},
				{"os.Process.Signal", func() error { return found.Signal(syscall.Signal(0)) }},
				{"unix.Kill", func() error { return unix.Kill(pid, 0) }},
			}},
		{name: "TryWait", ratio: 1.08, calls: 1,
			op: func() error { _, err := child.TryWait(0); return err },
			bare: func() error {
				_, err := call(unix.SYS_WAITID, unix.P_PIDFD, childFD, siginfo, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL)
				return err
			},
			peers: []peer{
				{"unix.Waitid", func() error {
					var info unix.Siginfo
					return unix.Waitid(unix.P_PIDFD, int(childFD), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
				}},
				{"unix.Wait4", func() error { _, err := unix.Wait4(childPID, nil, unix.WNOHANG, nil); return err }},
			}},
	}
}

// startChild starts a process that lives until the test ends.
func startChild(t testing.TB) (p *sysfd.PidFD, pid int) {
	t.Helper()
	name, err := exec.LookPath("cat")
	if err != nil {
		name = writeSmallest(t)
	}
	cmd := exec.Command(name)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	p, err = sysfd.OpenPidFD(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, cmd.Process.Pid
}

func closed(p *sysfd.PidFD, err error) error {
	if err != nil {
		return err
	}
	return p.Close()
}

func descriptorOf(t testing.TB, conn syscall.Conn) (descriptor uintptr) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { descriptor = fd })
	}
	if err != nil {
		t.Fatal(err)
	}
	return descriptor
}

// socket returns one end of a connection within this process.
func socket(t testing.TB) *net.UnixConn {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server.(*net.UnixConn)
}
