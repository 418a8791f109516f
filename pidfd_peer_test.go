//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

func init() {

	// dial NETWORK ADDRESS: connects, says its ID, and sends each line of stdin. With
	// the line "rights" go two descriptors.
	children["dial"] = func(args []string) error {
		id, err := selfID()
		if err != nil {
			return err
		}
		conn, err := net.DialUnix(args[0], nil, &net.UnixAddr{Net: args[0], Name: args[1]})
		if err != nil {
			return err
		}
		fmt.Println(uint64(id))
		for {
			var text string
			if _, err := fmt.Scanln(&text); err != nil {
				return nil
			}
			var rights []byte
			if text == "rights" {
				rights = syscall.UnixRights(0, 1)
			}
			// Not WriteMsgUnix, which does not like connected datagram sockets.
			raw, err := conn.SyscallConn()
			if err != nil {
				return err
			}
			var errSend error
			err = raw.Write(func(fd uintptr) bool {
				errSend = syscall.Sendmsg(int(fd), []byte(text), rights, nil, 0)
				return errSend != syscall.EAGAIN
			})
			if err := errors.Join(err, errSend); err != nil {
				return err
			}
		}
	}
}

// A dialer is another process that is connected to a socket.
type dialer struct {
	id    PidFDID
	stdin io.WriteCloser
	wait  func() error
	end   func()
}

func dial(t *testing.T, network, address string) dialer {
	t.Helper()
	cmd := child("dial", network, address)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := dialer{stdin: stdin, wait: cmd.Wait, end: func() { reap(cmd) }}
	t.Cleanup(d.end)
	if _, err := fmt.Fscan(stdout, &d.id); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d dialer) send(t *testing.T, text string) {
	t.Helper()
	if _, err := fmt.Fprintln(d.stdin, text); err != nil {
		t.Fatal(err)
	}
}

// unixConn makes a *net.UnixConn of a socket.
func unixConn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

func socketpair(t *testing.T, typ int) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, typ|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return unixConn(t, fds[0]), unixConn(t, fds[1])
}

// addresses are a path and an abstract name.
func addresses(t *testing.T) []string {
	return []string{filepath.Join(t.TempDir(), "s"), fmt.Sprintf("@sysfd-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))}
}

func listenUnix(t *testing.T, network, address string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix(network, &net.UnixAddr{Net: network, Name: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l *net.UnixListener) *net.UnixConn {
	t.Helper()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// isPeer checks that the pidfd of conn's peer is one of the process with this ID.
func isPeer(t *testing.T, conn syscall.Conn, id PidFDID) {
	t.Helper()
	p, err := PeerPidFD(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if idOf(t, p) != id {
		t.Errorf("ID %d, want %d", idOf(t, p), id)
	}
	if flags, errno := fcntl(p.fd, syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
}

func mySelf(t *testing.T) PidFDID {
	t.Helper()
	id, err := selfID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestPeerPidFD(t *testing.T) {
	needs(t, FeaturePidFDID)
	needs(t, FeaturePeerPidFD)
	keepsDescriptors(t)
	for _, network := range []string{"unix", "unixpacket"} {
		for _, address := range addresses(t) {
			l := listenUnix(t, network, address)
			isPeer(t, l, mySelf(t))
			d := dial(t, network, address)
			conn := accept(t, l)
			isPeer(t, conn, d.id)

			// The socket may go to another process, which does not become the peer.
			conn2, err := net.DialUnix(network, nil, &net.UnixAddr{Net: network, Name: address})
			if err != nil {
				t.Fatal(err)
			}
			served := accept(t, l)
			isPeer(t, conn2, mySelf(t))
			f, err := conn2.File()
			if err != nil {
				t.Fatal(err)
			}
			holder := child("sleep")
			holder.Stdin = f
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			f.Close()
			conn2.Close()
			isPeer(t, served, mySelf(t))
			reap(holder)
		}
	}
	for _, typ := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET} {
		a, b := socketpair(t, typ)
		isPeer(t, a, mySelf(t))
		isPeer(t, b, mySelf(t))
	}
}

func TestPeerPidFDReaped(t *testing.T) {
	needs(t, FeaturePidFDID)
	needs(t, FeaturePeerPidFD)
	keepsDescriptors(t)
	l := listenUnix(t, "unix", addresses(t)[1])
	d := dial(t, "unix", l.Addr().String())
	conn := accept(t, l)
	d.end()
	p, err := PeerPidFD(conn)
	if err != nil && olderThan(t, "6.16") {
		matches(t, err, os.ErrProcessDone)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if idOf(t, p) != d.id {
		t.Errorf("ID %d, want %d", idOf(t, p), d.id)
	}
	_, err = p.PID()
	matches(t, err, os.ErrProcessDone, syscall.ESRCH)
}

func TestPeerPidFDNone(t *testing.T) {
	needs(t, FeaturePeerPidFD)
	keepsDescriptors(t)
	_, err := PeerPidFD(nil)
	matches(t, err, os.ErrInvalid)
	matches(t, SetPassPidFD(nil, true), os.ErrInvalid)
	for _, typ := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET} {
		fd, err := syscall.Socket(syscall.AF_UNIX, typ|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = PeerPidFD(unixConn(t, fd))
		matches(t, err, syscall.ENODATA)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	_, err = PeerPidFD(tcp.(*net.TCPConn))
	matches(t, err, syscall.ENODATA)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = PeerPidFD(f)
	matches(t, err, syscall.ENOTSOCK)
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	a.Close()
	if _, err := PeerPidFD(a); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func ownGroups(t *testing.T) (groups []uint32) {
	t.Helper()
	all, err := syscall.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		groups = append(groups, uint32(g))
	}
	return groups
}

func become(uid, gid uint32, groups []uint32) error {
	var list []int
	for _, g := range groups {
		list = append(list, int(g))
	}
	return errors.Join(syscall.Setgroups(list), syscall.Setgid(int(gid)), syscall.Setuid(int(uid)))
}

func init() {
	// connect ADDRESS UID GID [GROUP...]: becomes this user, with these supplementary groups, connects
	// descriptor 3, says so, and sleeps.
	children["connect"] = func(args []string) error {
		var ids []uint32
		for _, arg := range args[1:] {
			id, err := strconv.ParseUint(arg, 10, 32)
			if err != nil {
				return err
			}
			ids = append(ids, uint32(id))
		}
		if err := become(ids[0], ids[1], ids[2:]); err != nil {
			return err
		}
		if err := syscall.Connect(3, &syscall.SockaddrUnix{Name: args[0]}); err != nil {
			return err
		}
		fmt.Println("connected")
		time.Sleep(time.Hour)
		return nil
	}
	// The credentials of the peer of descriptor 3.
	children["peer"] = func([]string) error {
		c, err := PeerCredentials(os.NewFile(3, "socket"))
		fmt.Println(c.Pid, c.Uid, c.Gid)
		return err
	}
	// attack ADDRESS: is an ordinary user, connects descriptor 3, and executes descriptor 4.
	children["attack"] = func(args []string) error {
		if err := becomeNobody(); err != nil {
			return err
		}
		if err := syscall.Connect(3, &syscall.SockaddrUnix{Name: args[0]}); err != nil {
			return err
		}
		return syscall.Exec("/proc/self/fd/4", []string{"setuid"}, []string{childVar + "=who"})
	}
	// Prints its effective user ID, and sleeps.
	children["who"] = func([]string) error {
		fmt.Println(os.Geteuid())
		time.Sleep(time.Hour)
		return nil
	}
}

// newSocket returns a Unix socket that is not connected.
func newSocket(t *testing.T, typ int) *os.File {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, typ|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { f.Close() })
	return f
}

// isFrom checks the credentials of conn's peer.
func isFrom(t *testing.T, conn syscall.Conn, want syscall.Ucred, groups []uint32) {
	t.Helper()
	if got, err := PeerCredentials(conn); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if os.Getenv(emulatorVar) != "" {
		return // it takes the groups for one integer
	}
	got, err := PeerGroups(conn)
	if err != nil || !slices.Equal(got, groups) {
		t.Errorf("groups %d, %v; want %d", got, err, groups)
	}
}

// Where SO_PEERCRED is about the caller, whoever the peer is, that passes for nobody's rights.
func TestPeerCredentialsRecorded(t *testing.T) {
	keepsDescriptors(t)
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	defer peersRecorded.Store(0)
	for range 2 {
		peersRecorded.Store(0)
		_, err := PeerCredentials(a)
		if surroundings().name == environments["gvisor-2022"].name {
			matches(t, err, errors.ErrUnsupported)
		} else if err != nil || peersRecorded.Load() != yes {
			t.Errorf("%v, %d", err, peersRecorded.Load())
		}
	}
	peersRecorded.Store(no)
	c, err := PeerCredentials(a)
	if matches(t, err, errors.ErrUnsupported); c != (syscall.Ucred{}) {
		t.Errorf("%+v", c)
	}
}

func TestPeerCredentials(t *testing.T) {
	keepsDescriptors(t)
	self := syscall.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	own := ownGroups(t)
	for _, typ := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET} {
		a, b := socketpair(t, typ)
		isFrom(t, a, self, own)
		isFrom(t, b, self, own)
	}
	for _, network := range []string{"unix", "unixpacket"} {
		for _, address := range addresses(t) {
			l := listenUnix(t, network, address)
			isFrom(t, l, self, own)
			client, err := net.DialUnix(network, nil, &net.UnixAddr{Net: network, Name: address})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			served := accept(t, l)
			isFrom(t, served, self, own)
			isFrom(t, client, self, own)
			client.Close()
			isFrom(t, served, self, own)
		}
	}
}

// What counts are the rights of connect(2), whoever made the socket, has it now and has been reaped.
func TestPeerCredentialsOfOther(t *testing.T) {
	rights.Need(t, rights.SetUID, rights.SetGID)
	keepsDescriptors(t)
	l := listenUnix(t, "unix", addresses(t)[1])
	many := make([]uint32, 100) // more than there is room for at first
	for i := range many {
		many[i] = uint32(5000 + 2*i)
	}
	for _, groups := range [][]uint32{{}, {7}, {7, 65533, 8}, many} {
		socket := newSocket(t, syscall.SOCK_STREAM)
		cmd := child("connect", l.Addr().String(), "65534", "65533")
		for _, g := range groups {
			cmd.Args = append(cmd.Args, fmt.Sprint(g))
		}
		cmd.ExtraFiles = []*os.File{socket}
		lineOf(t, cmd)
		want := syscall.Ucred{Pid: int32(cmd.Process.Pid), Uid: 65534, Gid: 65533}
		slices.Sort(groups) // the kernel keeps them so
		served := accept(t, l)
		isFrom(t, served, want, groups)
		isFrom(t, socket, syscall.Ucred{Pid: int32(os.Getpid())}, ownGroups(t))
		reap(cmd)
		isFrom(t, served, want, groups)
	}
}

// A process whose namespaces do not have what the socket has recorded.
func TestPeerCredentialsOutOfSight(t *testing.T) {
	rights.UserNamespace(t)
	rights.Need(t, rights.SysAdmin)
	reliesOn(t, namespaces)
	keepsDescriptors(t)
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	f, err := a.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, test := range map[string]struct {
		attr *syscall.SysProcAttr
		want string
	}{
		"here":          {nil, fmt.Sprintln(os.Getpid(), 0, 0)},
		"PID namespace": {&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}, "0 0 0\n"},
		"user namespace": {&syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 7, HostID: 1, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 7, HostID: 0, Size: 1}},
		}, fmt.Sprintln(os.Getpid(), 65534, 7)},
	} {
		cmd := child("peer")
		cmd.ExtraFiles, cmd.SysProcAttr = []*os.File{f}, test.attr
		if test.attr != nil {
			cmd.Path = "/proc/self/exe" // which needs no right to search its directory
		}
		if got := output(t, cmd); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestPeerCredentialsNone(t *testing.T) {
	keepsDescriptors(t)
	none := func(conn syscall.Conn, want ...error) {
		t.Helper()
		c, err := PeerCredentials(conn)
		matches(t, err, want...)
		groups, errGroups := PeerGroups(conn)
		matches(t, errGroups, want...)
		if c != (syscall.Ucred{}) || groups != nil {
			t.Errorf("with an error: %+v, %d", c, groups)
		}
	}
	none(nil, os.ErrInvalid)
	for _, typ := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET} {
		none(newSocket(t, typ), syscall.ENODATA)
	}
	// A datagram socket has no peer even if it is connected.
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: addresses(t)[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	client, err := net.DialUnix("unixgram", nil, datagrams.LocalAddr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	none(client, syscall.ENODATA)
	none(datagrams, syscall.ENODATA)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	none(tcp.(*net.TCPConn), syscall.ENODATA)
	none(l.(*net.TCPListener), syscall.ENODATA)

	none(openNull(t), syscall.ENOTSOCK)
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	a.Close()
	if _, err := PeerCredentials(a); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := PeerGroups(a); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A seccomp filter can have a call do nothing and succeed. That must not be root's.
func TestPeerCredentialsNothingWritten(t *testing.T) {
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread and its filter end with the goroutine
		if err := refuse(map[int]syscall.Errno{unix.SYS_GETSOCKOPT: 0}); err != nil {
			t.Error(err)
			return
		}
		c, err := PeerCredentials(a)
		matches(t, err, syscall.ENODATA)
		groups, errGroups := PeerGroups(a)
		matches(t, errGroups, syscall.ENODATA)
		if c != (syscall.Ucred{}) || groups != nil {
			t.Errorf("with an error: %+v, %d", c, groups)
		}
	}()
	<-done
}

func TestPeerCredentialsAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	conns := []syscall.Conn{a} // of a type that the compiler does not know, as in PeerCredentials
	bare := testing.AllocsPerRun(100, func() {
		raw, err := conns[0].SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var result int
		if err := raw.Control(func(fd uintptr) { result = int(fd) }); err != nil || result == 0 {
			t.Fatal(err)
		}
	})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := PeerCredentials(a); err != nil {
			t.Fatal(err)
		}
	}); n > bare {
		t.Errorf("%v allocations, of which conn needs %v", n, bare)
	}
}

// setuidRoot opens a copy of the test binary whose file makes who executes it root. It is in a
// directory that nobody else can search: whoever is to execute it is given the descriptor.
func setuidRoot(t *testing.T) *os.File {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "setuid")
	if err := os.WriteFile(name, program, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A process is not its rights: a user who connects and then executes a setuid program has a
// pidfd that is root's. The test has his socket, as a child of his could.
func TestPeerCredentialsSetuid(t *testing.T) {
	rights.Need(t, rights.SetUID, rights.SetGID)
	needs(t, FeaturePeerPidFD)
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the kernel does not execute the program by itself")
	}
	keepsDescriptors(t)
	l := listenUnix(t, "unix", addresses(t)[1])
	socket := newSocket(t, syscall.SOCK_STREAM)
	cmd := child("attack", l.Addr().String())
	cmd.ExtraFiles = []*os.File{socket, setuidRoot(t)}
	if line, _ := lineOf(t, cmd); line != "0" {
		lacks(t, "a file system whose setuid programs get their rights, and not user "+line)
	}
	defer reap(cmd)
	conn := accept(t, l)
	isFrom(t, conn, syscall.Ucred{Pid: int32(cmd.Process.Pid), Uid: 65534, Gid: 65534}, nil)
	p, err := PeerPidFD(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if pid, err := p.PID(); err != nil || pid != cmd.Process.Pid {
		t.Errorf("PID %d, %v; want %d", pid, err, cmd.Process.Pid)
	}
	if lacksFeature(t, FeatureInfo) {
		return
	}
	info, err := p.Info(PIDFD_INFO_CREDS)
	if c, ok := info.Credentials(); err != nil || !ok || c.EUID != 0 || c.RUID != 65534 {
		t.Errorf("the process has %+v, %v, %v; this test is about one that is root's", c, ok, err)
	}
}

func TestSetPassPidFDErrors(t *testing.T) {
	needs(t, FeaturePassPidFD)
	keepsDescriptors(t)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	matches(t, SetPassPidFD(f, true), syscall.ENOTSOCK)
	a, _ := socketpair(t, syscall.SOCK_DGRAM)
	a.Close()
	if err := SetPassPidFD(a, true); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// A message that was sent before anyone asked for pidfds comes without.
func TestTakePeerPidFDTooEarly(t *testing.T) {
	needs(t, FeaturePassPidFD)
	keepsDescriptors(t)
	a, b := socketpair(t, syscall.SOCK_SEQPACKET)
	for _, text := range []string{"before", "after"} {
		if text == "after" {
			if err := SetPassPidFD(b, true); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if text, control, _ := receive(t, b, PidFDControlSize); text != "before" || len(control) != 0 {
		t.Errorf("%q: %x", text, control)
	}
	_, control, _ := receive(t, b, PidFDControlSize)
	// By PID: before 6.14 a 32-bit program cannot have the ID.
	p, err := TakePeerPidFD(control)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if pid, err := p.PID(); err != nil || pid != os.Getpid() {
		t.Errorf("PID %d, %v; want %d", pid, err, os.Getpid())
	}
}

// What kernels answer that are older than this one.
func TestPeerErrors(t *testing.T) {
	ask := func(errno syscall.Errno) *callError { return optionFailed("getsockopt", "SO_PEERPIDFD", errno) }
	matches(t, ask(syscall.ENOPROTOOPT), errors.ErrUnsupported, syscall.ENOPROTOOPT)
	matches(t, ask(syscall.EINVAL), syscall.EINVAL)
	for _, errno := range []syscall.Errno{syscall.EINVAL, syscall.ESRCH} {
		matches(t, orReaped(ask(errno)), os.ErrProcessDone, errno)
	}
	for _, errno := range []syscall.Errno{syscall.ENODATA, syscall.EMFILE} {
		matches(t, orReaped(ask(errno)), errno)
	}
}

// What kernels before 6.16 answer when the peer was reaped. And a filter that says ERANGE is not asked
// again and again.
func TestPeerRefused(t *testing.T) {
	reliesOn(t, seccompFilters)
	keepsDescriptors(t)
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	for errno, want := range map[syscall.Errno][]error{
		syscall.EINVAL: {os.ErrProcessDone}, syscall.ESRCH: {os.ErrProcessDone},
		syscall.ENODATA: nil, syscall.ENOPROTOOPT: {errors.ErrUnsupported},
	} {
		calls, ok := answersTo("getsockopt", retErrno|uint32(errno))
		if !ok {
			t.Skip("not on " + runtime.GOARCH)
		}
		underFilter(t, func() error { return filter(calls) }, func() {
			matches(t, closed(PeerPidFD(a)), append(want, errno)...)
		})
	}
	underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_GETSOCKOPT: syscall.ERANGE}) }, func() {
		matches(t, second(PeerGroups(a)), syscall.ERANGE)
	})
}

func TestPeerPidFDOutOfDescriptors(t *testing.T) {
	needs(t, FeaturePeerPidFD)
	keepsDescriptors(t)
	a, _ := socketpair(t, syscall.SOCK_STREAM)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	low := old
	low.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err := PeerPidFD(a)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	matches(t, err, syscall.EMFILE)
}

func TestPidFDControlSize(t *testing.T) {
	if PidFDControlSize != syscall.CmsgSpace(4) {
		t.Errorf("%d, want %d", PidFDControlSize, syscall.CmsgSpace(4))
	}
}

// receive receives a message, and its control messages in a buffer of the given size.
func receive(t *testing.T, conn *net.UnixConn, size int) (text string, control []byte, flags int) {
	t.Helper()
	data, oob := make([]byte, 100), make([]byte, size)
	n, oobn, flags, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		t.Fatal(err)
	}
	return string(data[:n]), oob[:oobn], flags
}

func isSender(t *testing.T, control []byte, id PidFDID) {
	t.Helper()
	p, err := TakePeerPidFD(control)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if idOf(t, p) != id {
		t.Errorf("ID %d, want %d", idOf(t, p), id)
	}
	if flags, errno := fcntl(p.fd, syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, errno)
	}
}

// rightsIn returns the descriptors in SCM_RIGHTS.
func rightsIn(t *testing.T, control []byte) (fds []int) {
	t.Helper()
	messages, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if m.Header.Type == syscall.SCM_RIGHTS {
			if fds, err = syscall.ParseUnixRights(&m); err != nil {
				t.Fatal(err)
			}
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}

func TestTakePeerPidFD(t *testing.T) {
	needs(t, FeaturePidFDID)
	needs(t, FeaturePassPidFD)
	keepsDescriptors(t)
	all := PidFDControlSize + syscall.CmsgSpace(2*4) + syscall.CmsgSpace(syscall.SizeofUcred)
	for _, network := range []string{"unix", "unixpacket", "unixgram"} {
		for _, address := range addresses(t) {
			var conn *net.UnixConn
			var d dialer
			if network == "unixgram" {
				var err error
				if conn, err = net.ListenUnixgram(network, &net.UnixAddr{Net: network, Name: address}); err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				d = dial(t, network, address)
			} else {
				l := listenUnix(t, network, address)
				d = dial(t, network, address)
				conn = accept(t, l)
			}
			if err := SetPassPidFD(conn, true); err != nil {
				t.Fatal(err)
			}
			d.send(t, "hello")
			text, control, flags := receive(t, conn, PidFDControlSize)
			if text != "hello" || len(control) != PidFDControlSize || flags&syscall.MSG_CTRUNC != 0 {
				t.Errorf("%s %s: %q, %d bytes, flags %#x", network, address, text, len(control), flags)
			}
			isSender(t, control, d.id)

			// With descriptors beside it.
			d.send(t, "rights")
			_, control, flags = receive(t, conn, all)
			if fds := rightsIn(t, control); len(fds) != 2 || flags&syscall.MSG_CTRUNC != 0 {
				t.Errorf("%v, flags %#x", fds, flags)
			}
			isSender(t, control, d.id)
			closeAll(rightsIn(t, control)) // they are still open, or keepsDescriptors would not agree

			// And credentials.
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 1) })
			if err != nil {
				t.Fatal(err)
			}
			d.send(t, "rights")
			_, control, _ = receive(t, conn, all)
			if messages, _ := syscall.ParseSocketControlMessage(control); len(messages) != 3 {
				t.Errorf("%d messages", len(messages))
			}
			isSender(t, control, d.id)
			closeAll(rightsIn(t, control))

			// No room: what the peer sent comes first.
			raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_PASSCRED, 0) })
			if err != nil {
				t.Fatal(err)
			}
			d.send(t, "rights")
			_, control, flags = receive(t, conn, PidFDControlSize)
			_, err = TakePeerPidFD(control)
			matches(t, err, syscall.ENODATA)
			if flags&syscall.MSG_CTRUNC == 0 {
				t.Errorf("flags %#x", flags)
			}
			closeAll(rightsIn(t, control))

			if err := SetPassPidFD(conn, false); err != nil {
				t.Fatal(err)
			}
			d.send(t, "again")
			_, control, _ = receive(t, conn, all)
			_, err = TakePeerPidFD(control)
			matches(t, err, syscall.ENODATA)

			// The message of a process that was reaped since.
			if err := SetPassPidFD(conn, true); err != nil {
				t.Fatal(err)
			}
			d.send(t, "farewell")
			if err := d.stdin.Close(); err != nil {
				t.Fatal(err)
			}
			if err := d.wait(); err != nil {
				t.Fatal(err)
			}
			text, control, _ = receive(t, conn, PidFDControlSize)
			if text != "farewell" {
				t.Errorf("%q", text)
			}
			if p, err := TakePeerPidFD(control); err != nil && olderThan(t, "6.17") {
				matches(t, err, os.ErrProcessDone)
			} else if err != nil {
				t.Error(err)
			} else {
				_, err := p.PID()
				matches(t, err, os.ErrProcessDone, syscall.ESRCH)
				p.Close()
			}
		}
	}
}

// cmsg spells a control message, whose header may lie about its length.
func cmsg(level, typ, length int, data ...byte) []byte {
	word := func(n, size int) (b []byte) {
		b = make([]byte, size)
		for i := range b {
			at := i
			if bigEndian {
				at = size - 1 - i
			}
			b[at] = byte(uint64(n) >> (8 * i))
		}
		return b
	}
	size := 4
	if is64bit {
		size = 8
	}
	b := append(word(length, size), word(level, 4)...)
	b = append(append(b, word(typ, 4)...), data...)
	for len(b)%size != 0 {
		b = append(b, 0)
	}
	return b
}

func pidfdMessage(fd int) []byte {
	b := bytes64(uint64(uint32(fd)))
	data := b[:4]
	if bigEndian {
		data = b[4:8]
	}
	return cmsg(syscall.SOL_SOCKET, unix.SCM_PIDFD, syscall.CmsgLen(4), data...)
}

func TestFindPidFD(t *testing.T) {
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	rights := cmsg(syscall.SOL_SOCKET, syscall.SCM_RIGHTS, syscall.CmsgLen(8), 1, 2, 3, 4, 5, 6, 7, 8)
	for name, control := range map[string][]byte{
		"alone":            pidfdMessage(0x12345),
		"first":            join(pidfdMessage(0x12345), rights),
		"last":             join(rights, pidfdMessage(0x12345)),
		"cut off":          append(rights, pidfdMessage(0x12345)[:syscall.CmsgLen(4)]...),
		"zeros behind":     append(pidfdMessage(0x12345), 0, 0, 0),
		"of another level": join(cmsg(syscall.SOL_SOCKET+1, unix.SCM_PIDFD, syscall.CmsgLen(4), 9, 9, 9, 9), pidfdMessage(0x12345)),
	} {
		if fd, err := findPidFD(control); err != nil || fd != 0x12345 {
			t.Errorf("%s: %#x, %v", name, fd, err)
		}
	}
	for name, control := range map[string][]byte{
		"empty": nil, "zeros but few": make([]byte, 3), "only others": rights,
	} {
		if _, err := findPidFD(control); !errors.Is(err, syscall.ENODATA) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, control := range map[string][]byte{
		"zeros":        make([]byte, 64),
		"twice":        join(pidfdMessage(5), pidfdMessage(6)),
		"no number":    cmsg(syscall.SOL_SOCKET, unix.SCM_PIDFD, syscall.CmsgLen(0)),
		"half of one":  cmsg(syscall.SOL_SOCKET, unix.SCM_PIDFD, syscall.CmsgLen(2), 1, 2),
		"two of them":  cmsg(syscall.SOL_SOCKET, unix.SCM_PIDFD, syscall.CmsgLen(8), 1, 2, 3, 4, 5, 6, 7, 8),
		"beyond":       cmsg(syscall.SOL_SOCKET, unix.SCM_PIDFD, syscall.CmsgLen(400), 1, 2, 3, 4),
		"no errno":     pidfdMessage(-4096),
		"far beyond":   cmsg(syscall.SOL_SOCKET, unix.SCM_PIDFD, -1, 1, 2, 3, 4),
		"too short":    cmsg(syscall.SOL_SOCKET, unix.SCM_PIDFD, 3, 1, 2, 3, 4),
		"liar between": join(rights, cmsg(syscall.SOL_SOCKET, 77, 1<<30), pidfdMessage(5)),
	} {
		if _, err := findPidFD(control); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFindPidFD(f *testing.F) {
	f.Add(pidfdMessage(5))
	f.Add(append(cmsg(syscall.SOL_SOCKET, syscall.SCM_RIGHTS, syscall.CmsgLen(8), 1, 2, 3, 4, 5, 6, 7, 8), pidfdMessage(-int(syscall.ENOENT))...))
	f.Add(cmsg(1, 4, -1))
	f.Fuzz(func(t *testing.T, control []byte) {
		before := string(control)
		fd, err := findPidFD(control)
		if string(control) != before {
			t.Error("written to")
		}
		if err == nil && !strings.Contains(before, string(pidfdMessage(fd)[syscall.CmsgLen(0):syscall.CmsgLen(4)])) {
			t.Errorf("%d is not in it", fd)
		}
	})
}

func TestTakePeerPidFDLies(t *testing.T) {
	keepsDescriptors(t)
	f, err := os.Open(tempFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = TakePeerPidFD(pidfdMessage(int(f.Fd())))
	matches(t, err, ErrNotPidFD, syscall.EBADF)
	if _, err := f.Stat(); err != nil {
		t.Error(err)
	}
	_, err = TakePeerPidFD(pidfdMessage(99999))
	matches(t, err, syscall.EBADF)
	// The kernel's answers if it cannot make a pidfd.
	for errno, want := range map[syscall.Errno]error{syscall.EINVAL: os.ErrProcessDone, syscall.ESRCH: os.ErrProcessDone, syscall.EMFILE: syscall.EMFILE} {
		_, err = TakePeerPidFD(pidfdMessage(-int(errno)))
		matches(t, err, want, errno)
	}
	TakePeerPidFD(pidfdMessage(-1 << 31))
}
