//go:build linux

package sysfd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

func ExampleStartProcess() {
	p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exit 3"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	r, err := p.Wait(context.Background(), 0)
	fmt.Println(r, err)
	// Output: exit status 3 <nil>
}

// The cgroup of a process, by its ID. It needs root and Linux 6.13.
func ExampleCgroupPath() {
	root, err := os.Open("/sys/fs/cgroup")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer root.Close()
	p, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	info, err := p.Info(sysfd.PIDFD_INFO_CGROUPID)
	if err != nil {
		fmt.Println(err)
		return
	}
	if id, ok := info.CgroupID(); ok {
		fmt.Println(sysfd.CgroupPath(int(root.Fd()), id)) // such as /user.slice/user-1000.slice/session-1.scope <nil>
	}
}

func ExamplePidFD_Stop() {
	p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exec sleep 1000"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	r, err := p.Stop(context.Background(), 10*time.Second)
	fmt.Println(r, err)
	// Output: signal 15 (terminated) <nil>
}

// An exec.Cmd reaps its process in Wait, so the PidFD only observes.
func ExampleTakePidFD() {
	fd := -1
	cmd := exec.Command("sh", "-c", "echo hello; exit 3")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return
	}
	p, err := sysfd.TakePidFD(cmd.SysProcAttr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	r, err := p.Wait(context.Background(), sysfd.WaitNoReap)
	fmt.Println(r, err)
	var exit *exec.ExitError
	fmt.Println(errors.As(cmd.Wait(), &exit))
	// Output:
	// hello
	// exit status 3 <nil>
	// true
}

func ExampleNotifier_Watchdog() {
	n, err := sysfd.TakeNotifier() // children do not inherit the variables
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go n.Watchdog(ctx, func(ctx context.Context) error {
		// Do what the program exists for, such as a query of its own database.
		return nil
	})
	n.Notify(ctx, sysfd.NotifyReady, sysfd.NotifyStatus("serving"))
}

// A supervisor that waits until a program reports that it is ready.
func ExampleListenNotify() {
	l, err := sysfd.ListenNotify("/run/supervisor/notify", 0o600)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	to := &sysfd.Notifier{Address: l.Address(), WatchdogInterval: time.Minute}
	p, err := sysfd.StartProcess("/usr/bin/httpd", []string{"httpd", "-f"}, &os.ProcAttr{Env: to.Environ(os.Environ())})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		m, err := l.Next(ctx)
		if err != nil {
			fmt.Println("not ready:", err)
			return
		}
		main, err := m.IsFrom(p) // and not from a child of p
		if status, ok := m.Value("STATUS"); ok && main {
			fmt.Printf("%q\n", status)
		}
		ready := main && m.Has(sysfd.NotifyReady)
		m.Close() // if it is a barrier, the program continues
		if ready || err != nil {
			return
		}
	}
}

// A proxy passes on whatever a program reports, including descriptors and barriers: the program waits
// at a barrier until the service manager has dealt with everything before it.
func ExampleNotification_Files() {
	manager, err := sysfd.TakeNotifier()
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := sysfd.ListenNotify("/run/proxy/notify", 0o600) // $NOTIFY_SOCKET of the program
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	ctx := context.Background()
	for {
		m, err := l.Next(ctx)
		if err != nil {
			return
		}
		if _, err := manager.NotifyFiles(ctx, m.Files(), m.Assignments...); err != nil {
			fmt.Println(m, err)
		}
		m.Close()
	}
}

func ExampleOpenPidFD() {
	p, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	// From here on the PID no longer matters: p never means another process.
	fmt.Println(p.SendSignal(0))
	// Output: <nil>
}

// Whoever has stored the ID of a process opens that process or none. Linux 6.14.
func ExampleOpenPidFDByID() {
	p, err := sysfd.OpenPidFDByID(12345)
	switch {
	case errors.Is(err, os.ErrProcessDone):
		fmt.Println("the process has ended")
	case errors.Is(err, syscall.ESTALE):
		fmt.Println("the process has ended, or is not visible from this pid namespace")
	case errors.Is(err, errors.ErrUnsupported):
		fmt.Println("the kernel cannot open a process by its ID")
	case err != nil:
		fmt.Println(err)
	default:
		defer p.Close()
		fmt.Println(p.SendSignal(syscall.SIGHUP))
	}
}

func ExamplePidFD_SendSignal() {
	p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exec sleep 1000"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Println(p.SendSignal(syscall.SIGKILL))
	r, err := p.Wait(context.Background(), 0)
	fmt.Println(r, err)
	// The process was reaped, and another one may have its PID. This signal cannot reach that one.
	err = p.SendSignal(syscall.SIGKILL)
	fmt.Println(errors.Is(err, os.ErrProcessDone))
	// Output:
	// <nil>
	// signal 9 (killed) <nil>
	// true
}

// Waiting ends when the context does. The process goes on.
func ExamplePidFD_Wait() {
	p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exec sleep 1000"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = p.Wait(ctx, 0)
	fmt.Println(err)
	r, err := p.Stop(context.Background(), time.Minute)
	fmt.Println(r, err)
	// Output:
	// context deadline exceeded
	// signal 15 (terminated) <nil>
}

// Facts about a process. The kernel says which of them it has reported. Linux 6.13.
func ExamplePidFD_Info() {
	p, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	info, err := p.Info(sysfd.PIDFD_INFO_PID | sysfd.PIDFD_INFO_CREDS)
	if err != nil {
		fmt.Println(err)
		return
	}
	if parent, ok := info.ParentPID(); ok {
		fmt.Println("parent:", parent)
	}
	if ids, ok := info.Credentials(); ok {
		fmt.Println("effective user now, which is no proof of rights:", ids.EUID)
	}
}

// The name of this process, for a file or a message.
func ExampleSelfRef() {
	ref, err := sysfd.SelfRef()
	if err != nil { // before Linux 6.9
		fmt.Println(err)
		return
	}
	p, err := ref.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	fmt.Println(ref) // such as 4711:25@0c3c4b7e-8d3b-4f58-9c0b-6b2c1d6c6f1a+4026531836
}

func ExampleParseProcessRef() {
	ref, err := sysfd.ParseProcessRef("4711:25")
	fmt.Println(ref.PID, ref.ID, err)
	_, err = sysfd.ParseProcessRef("4711")
	fmt.Println(errors.Is(err, syscall.EINVAL))
	// Output:
	// 4711 25 <nil>
	// true
}

func ExampleWaitSet() {
	set, err := sysfd.NewWaitSet[string](0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()
	for _, name := range []string{"a", "b", "c"} {
		p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exit 1"}, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer p.Close()
		if err := set.Add(p, name); err != nil {
			fmt.Println(err)
			return
		}
	}
	for range 3 {
		name, r, err := set.Next(context.Background())
		fmt.Println(name, r, err)
	}
	// Unordered output:
	// a exit status 1 <nil>
	// b exit status 1 <nil>
	// c exit status 1 <nil>
}

// A server allows its own user and root.
func ExamplePeerCredentials() {
	allowed := func(conn *net.UnixConn) (bool, error) {
		peer, err := sysfd.PeerCredentials(conn)
		if err != nil {
			return false, err
		}
		return peer.Uid == 0 || int(peer.Uid) == os.Geteuid(), nil
	}
	_ = allowed
}

// Each message comes with a pidfd of its sender. Linux 6.5.
func ExampleTakePeerPidFD() {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/log.sock", Net: "unixgram"})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := sysfd.SetPassPidFD(conn, true); err != nil {
		fmt.Println(err)
		return
	}
	message, control := make([]byte, 4096), make([]byte, sysfd.PidFDControlSize)
	for {
		n, nControl, _, _, err := conn.ReadMsgUnix(message, control)
		if err != nil {
			return
		}
		sender, err := sysfd.TakePeerPidFD(control[:nControl])
		if err != nil {
			fmt.Println(err)
			continue
		}
		ref, err := sender.Ref()
		fmt.Println(ref, err, string(message[:n]))
		sender.Close()
	}
}

// The sockets of a .socket unit, by the name in its FileDescriptorName=.
func ExampleTakeListenFDs() {
	files, err := sysfd.TakeListenFDs("http")
	if err != nil {
		fmt.Println(err)
		return
	}
	if len(files) == 0 {
		fmt.Println(sysfd.InspectListenEnv().Explain())
		return
	}
	for _, f := range files {
		l, err := net.FileListener(f) // or activation.Listeners("http"), which does all of this
		f.Close()
		if err != nil {
			fmt.Println(err)
			return
		}
		go http.Serve(l, nil)
	}
}

func ExampleParseListenEnv() {
	// What the process with PID 4711 and pidfd ID 25 finds, with two open descriptors.
	for _, environ := range [][]string{
		{"LISTEN_PID=4711", "LISTEN_PIDFDID=25", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:admin"},
		{"LISTEN_PID=4711", "LISTEN_PIDFDID=24", "LISTEN_FDS=2"}, // an earlier process with this PID
		{"LISTEN_PID=4711", "LISTEN_FDS=3"},
	} {
		env := sysfd.ParseListenEnv(environ, 4711, 25, 2)
		fmt.Println(len(env.Names), errors.Is(env.Err, syscall.EBADF))
	}
	fmt.Println(sysfd.ParseListenEnv([]string{"LISTEN_PID=4711", "LISTEN_FDS=1"}, 4711, 25, 1).Explain())
	// Output:
	// 2 false
	// 0 false
	// 0 true
	// passed: descriptor 3 as "unknown"
}

// A supervisor starts a program with a listening socket, as systemd would.
func ExampleStartListenFDs() {
	sysfd.ListenShim() // first in main: for places where no process can be traced

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := sysfd.DupFile(l.(*net.TCPListener), "http")
	if err != nil {
		fmt.Println(err)
		return
	}
	l.Close()
	script := `[ $$ = "$LISTEN_PID" ] && echo "$LISTEN_FDS: $LISTEN_FDNAMES"`
	attr := &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}}
	p, err := sysfd.StartListenFDs("/bin/sh", []string{"sh", "-c", script}, attr, []*os.File{f})
	f.Close()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	r, err := p.Wait(context.Background(), 0)
	fmt.Println(r, err)
	// Output:
	// 1: http
	// exit status 0 <nil>
}

// A server replaces itself by its new version. Its clients do not notice.
func ExampleExecListenFDs() {
	files, err := sysfd.ListenFDs()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sysfd.ExecListenFDs("/usr/bin/served", os.Args, os.Environ(), files)) // it returns only if it fails
}

func ExampleNotifyStatus() {
	fmt.Printf("%q\n", sysfd.NotifyStatus("3 requests,\n0 errors"))
	// Output: "STATUS=3 requests, 0 errors"
}

// The service manager keeps a connection while the service restarts.
func ExampleNotifyStoreFDs() {
	conn, err := net.Dial("tcp", "192.0.2.1:80")
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := sysfd.DupFile(conn.(*net.TCPConn), "upstream")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	sent, err := sysfd.NotifyStoreFDs(context.Background(), f.Name(), []*os.File{f})
	fmt.Println(sent, err)
	// The next process of the service gets it from sysfd.TakeListenFDs("upstream").
}

// The handle of a file opens the file after a rename too. Opening needs CAP_DAC_READ_SEARCH.
func ExampleNameToHandleAt() {
	h, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, "/var/lib/reader/book.txt", 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	mount, err := os.Open("/var/lib") // anything on the same file system
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mount.Close()
	f, err := sysfd.OpenFileHandle(int(mount.Fd()), h, syscall.O_RDONLY, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
}

func ExampleParseFileHandle() {
	h, err := sysfd.ParseFileHandle("fe:1900000000000000")
	if err != nil {
		fmt.Println(err)
		return
	}
	same, err := sysfd.NewFileHandle(sysfd.FILEID_KERNFS, []byte{0x19, 0, 0, 0, 0, 0, 0, 0})
	fmt.Println(h, h.Len(), h == same, err)
	// Output: fe:1900000000000000 8 true <nil>
}

// Two paths lead to the same file if their FileRefs are equal.
func ExampleFileRefAt() {
	a, err := sysfd.FileRefAt(sysfd.AT_FDCWD, "/etc/resolv.conf", sysfd.AT_SYMLINK_FOLLOW)
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := sysfd.FileRefAt(sysfd.AT_FDCWD, "/run/resolvconf/resolv.conf", 0)
	fmt.Println(a == b, err)
}

// Processes are in the same namespace if its IDs are equal. Linux 6.18.
func ExampleNamespaceIDOf() {
	p, err := sysfd.OpenPidFD(1, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	theirs, err := p.Namespace(sysfd.NetNamespace)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer theirs.Close()
	ours, err := os.Open("/proc/self/ns/net")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ours.Close()
	a, err := sysfd.NamespaceIDOf(int(theirs.Fd()))
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := sysfd.NamespaceIDOf(int(ours.Fd()))
	fmt.Println(a == b, err)
}

// What this kernel lacks.
func ExampleFeatures() {
	for _, f := range sysfd.Features() {
		if err := f.Probe(); errors.Is(err, errors.ErrUnsupported) {
			fmt.Printf("%s needs Linux %s\n", f, f.Since())
		}
	}
}

// The files of package net have names that cannot be passed on. DupFile names them.
func ExampleDupFile() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	f, err := sysfd.DupFile(l.(*net.TCPListener), "http")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	listening, err := sysfd.IsSocketInet(f, 0, syscall.SOCK_STREAM, 1, 0)
	fmt.Println(f.Name(), listening, err)
	// Output: http true <nil>
}

// Without a service manager Notify does nothing, so a program can always call it.
func ExampleNotify() {
	sent, err := sysfd.Notify(context.Background(), sysfd.NotifyReady, sysfd.NotifyStatus("serving"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err) // no reason to end
	}
	_ = sent
}

// The path of an open file, even after a rename.
func ExamplePathOf() {
	f, err := os.Open("/var/log/messages")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	fmt.Println(sysfd.PathOf(int(f.Fd()))) // such as /var/log/messages.1 <nil>
}

// Kill all processes of a cgroup, including those that are being started. It needs root.
func ExampleKillCgroup() {
	root, err := os.Open("/sys/fs/cgroup")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer root.Close()
	id, _, err := sysfd.CgroupIDAt(int(root.Fd()), "system.slice/web.service", 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	// The ID can be stored. A new cgroup with the same path has another one.
	fmt.Println(sysfd.KillCgroup(int(root.Fd()), id, 0))
}

// The mounts that this process sees.
func ExampleMounts() {
	for m, err := range sysfd.Mounts(0) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(m.ID, m.Point, m.Type)
	}
}

// A file of another process, such as a socket that it listens on. It needs the right to trace the
// process (ptrace(2)), and Linux 5.6.
func ExamplePidFD_GetFD() {
	p, err := sysfd.OpenPidFD(4711, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	f, err := p.GetFD(3)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
}
