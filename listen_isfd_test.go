//go:build linux

package sysfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/sysfd/sysfd/internal/rights"
)

// kindsOfFD opens one descriptor of each kind in dir.
func kindsOfFD(t *testing.T, dir string) map[string]*os.File {
	t.Helper()
	files := map[string]*os.File{}
	add := func(name string, fd int, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		syscall.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), name)
		t.Cleanup(func() { f.Close() })
		files[name] = f
	}
	socket := func(name string, domain, typ int, address syscall.Sockaddr, listen bool) {
		t.Helper()
		fd, err := syscall.Socket(domain, typ, 0)
		if err == nil && address != nil {
			err = syscall.Bind(fd, address)
		}
		if err == nil && listen {
			err = syscall.Listen(fd, 1)
		}
		add(name, fd, err)
	}
	loopback := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	path := filepath.Join(dir, "socket")
	socket("tcp", syscall.AF_INET, syscall.SOCK_STREAM, loopback, true)
	socket("tcp bound", syscall.AF_INET, syscall.SOCK_STREAM, loopback, false)
	socket("tcp new", syscall.AF_INET, syscall.SOCK_STREAM, nil, false)
	socket("udp", syscall.AF_INET, syscall.SOCK_DGRAM, loopback, false)
	if fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 0); err == nil {
		syscall.Close(fd)
		socket("tcp6", syscall.AF_INET6, syscall.SOCK_STREAM, &syscall.SockaddrInet6{}, true)
	}
	socket("unix", syscall.AF_UNIX, syscall.SOCK_STREAM, &syscall.SockaddrUnix{Name: path}, true)
	socket("abstract", syscall.AF_UNIX, syscall.SOCK_SEQPACKET, &syscall.SockaddrUnix{Name: "@" + path}, true)
	socket("unix new", syscall.AF_UNIX, syscall.SOCK_DGRAM, nil, false)
	socket("netlink", syscall.AF_NETLINK, syscall.SOCK_RAW, nil, false)

	// What Accept=yes gives.
	client, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Connect(client, &syscall.SockaddrUnix{Name: path})
	}
	add("unix client", client, err)
	var accepted int
	listening, err := files["unix"].SyscallConn()
	if err == nil {
		listening.Control(func(fd uintptr) { accepted, _, err = syscall.Accept(int(fd)) })
	}
	add("unix connected", accepted, err)

	fifo, null := filepath.Join(dir, "fifo"), "/dev/null"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fifo, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]struct {
		path string
		mode int
	}{
		"fifo":      {fifo, syscall.O_RDWR},
		"file":      {tempFile(t), syscall.O_RDONLY},
		"null":      {null, syscall.O_RDWR},
		"directory": {dir, syscall.O_RDONLY},
		"socket's":  {path, oPath},
	} {
		fd, err := syscall.Open(file.path, file.mode|syscall.O_CLOEXEC, 0)
		add(name, fd, err)
	}
	var pipe [2]int
	err = syscall.Pipe2(pipe[:], syscall.O_CLOEXEC)
	add("pipe", pipe[0], err)
	add("pipe's end", pipe[1], err)
	return files
}

const oPath = 0x200000 // O_PATH

func port(t *testing.T, f *os.File) (port uint16) {
	t.Helper()
	_, err := askFD(f, func(fd int) (bool, error) {
		name, err := syscall.Getsockname(fd)
		switch name := name.(type) {
		case *syscall.SockaddrInet4:
			port = uint16(name.Port)
		case *syscall.SockaddrInet6:
			port = uint16(name.Port)
		}
		return true, err
	})
	if err != nil || port == 0 {
		t.Fatalf("port %d, %v", port, err)
	}
	return port
}

func TestIsFD(t *testing.T) {
	keepsDescriptors(t)
	const (
		either, listening, not = -1, 1, 0

		stream, dgram, seqpacket = syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET

		inet, inet6, unix = syscall.AF_INET, syscall.AF_INET6, syscall.AF_UNIX
	)
	dir := t.TempDir()
	files := kindsOfFD(t, dir)
	sockets := []string{"tcp", "tcp bound", "tcp new", "udp", "tcp6", "unix", "abstract", "unix new", "unix client", "unix connected", "netlink"}
	is := func(what string, ask func(f *os.File) (bool, error), want ...string) {
		t.Helper()
		for name, f := range files {
			got, err := ask(f)
			wanted := false
			for _, w := range want {
				wanted = wanted || name == w
			}
			if err != nil || got != wanted {
				t.Errorf("%s: %s: %v, %v", what, name, got, err)
			}
		}
	}
	socket := func(domain, typ, listening int, want ...string) {
		t.Helper()
		is(fmt.Sprintf("socket %d %d %d", domain, typ, listening), func(f *os.File) (bool, error) { return IsSocket(f, domain, typ, listening) }, want...)
	}
	socket(0, 0, either, sockets...)
	socket(inet, 0, either, "tcp", "tcp bound", "tcp new", "udp")
	socket(inet6, 0, either, "tcp6")
	socket(unix, 0, either, "unix", "abstract", "unix new", "unix client", "unix connected")
	socket(syscall.AF_NETLINK, 0, either, "netlink")
	socket(0, stream, either, "tcp", "tcp bound", "tcp new", "tcp6", "unix", "unix client", "unix connected")
	socket(0, dgram, either, "udp", "unix new")
	socket(0, 0, listening, "tcp", "tcp6", "unix", "abstract")
	socket(0, 0, 7, "tcp", "tcp6", "unix", "abstract")
	socket(0, 0, not, "tcp bound", "tcp new", "udp", "unix new", "unix client", "unix connected", "netlink")
	socket(unix, stream, listening, "unix")
	socket(unix, stream, not, "unix client", "unix connected")
	socket(unix, seqpacket, -7, "abstract")
	socket(77, 0, either)

	socketInet := func(domain, typ, listening int, port uint16, want ...string) {
		t.Helper()
		is(fmt.Sprintf("inet %d %d %d %d", domain, typ, listening, port), func(f *os.File) (bool, error) { return IsSocketInet(f, domain, typ, listening, port) }, want...)
	}
	socketInet(0, 0, either, 0, "tcp", "tcp bound", "tcp new", "tcp6", "udp")
	socketInet(inet, 0, listening, 0, "tcp")
	socketInet(inet6, 0, either, 0, "tcp6")
	for _, name := range []string{"tcp", "tcp bound", "tcp6"} {
		if f := files[name]; f != nil {
			other := map[string]int{"tcp": inet6, "tcp bound": inet6, "tcp6": inet}[name]
			for _, test := range []struct {
				domain int
				port   uint16
				want   bool
			}{{0, port(t, f), true}, {other, port(t, f), false}, {0, port(t, f) ^ 1, false}, {0, port(t, f)<<8 | port(t, f)>>8 ^ 1, false}} {
				if got, err := IsSocketInet(f, test.domain, stream, either, test.port); err != nil || got != test.want {
					t.Errorf("%s: %+v: %v, %v", name, test, got, err)
				}
			}
		}
	}
	socketInet(0, dgram, not, port(t, files["udp"]), "udp")

	socketUnix := func(typ, listening int, path string, want ...string) {
		t.Helper()
		is(fmt.Sprintf("unix %d %d %q", typ, listening, path), func(f *os.File) (bool, error) { return IsSocketUnix(f, typ, listening, path) }, want...)
	}
	path := filepath.Join(dir, "socket")
	socketUnix(0, either, "", "unix", "abstract", "unix new", "unix client", "unix connected")
	socketUnix(0, either, "@", "unix new", "unix client")
	socketUnix(0, either, path, "unix", "unix connected")
	socketUnix(0, listening, path, "unix")
	socketUnix(0, not, path, "unix connected")
	socketUnix(dgram, either, path)
	socketUnix(0, either, "@"+path, "abstract")
	for _, other := range []string{path + "x", path[:len(path)-1], filepath.Join(dir, ".") + "/./socket", "@" + path + "x", "@" + path[:len(path)-1]} {
		socketUnix(0, either, other)
	}

	fifo := func(path string, want ...string) {
		t.Helper()
		is("fifo "+path, func(f *os.File) (bool, error) { return IsFIFO(f, path) }, want...)
	}
	fifo("", "fifo", "pipe", "pipe's end")
	fifo(filepath.Join(dir, "fifo"), "fifo")
	fifo(filepath.Join(dir, "link"), "fifo")
	fifo(filepath.Join(dir, "nothing"))
	fifo(filepath.Join(dir, "fifo", "below"))
	fifo("/dev/null")

	special := func(path string, want ...string) {
		t.Helper()
		is("special "+path, func(f *os.File) (bool, error) { return IsSpecial(f, path) }, want...)
	}
	special("", "file", "null")
	special("/dev/null", "null")
	special("/dev/zero")
	special(dir)
	special(filepath.Join(dir, "fifo"))
	special(filepath.Join(dir, "nothing"))
	special(tempFile(t))
	is("queue", func(f *os.File) (bool, error) {
		is, err := IsMessageQueue(f, "")
		if errors.Is(err, errors.ErrUnsupported) { // a kernel without message queues
			return false, nil
		}
		return is, err
	})
}

func TestIsFDErrors(t *testing.T) {
	keepsDescriptors(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	queue := func(f *os.File) error { _, err := IsMessageQueue(f, "/x"); return err }
	socket := func(f *os.File) error { _, err := IsSocket(f, 0, 0, -1); return err }
	all := []func(f *os.File) error{queue, socket,
		func(f *os.File) error { _, err := IsSocketInet(f, 0, 0, -1, 0); return err },
		func(f *os.File) error { _, err := IsSocketUnix(f, 0, -1, ""); return err },
		func(f *os.File) error { _, err := IsFIFO(f, ""); return err },
		func(f *os.File) error { _, err := IsSpecial(f, ""); return err }}
	for i, f := range all {
		if err := f(r); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%d: %v", i, err)
		}
		matches(t, f(nil), os.ErrInvalid)
	}
	// Fd would have put it into blocking mode.
	if flags, err := askFlags(r); err != nil || flags&syscall.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	r.Close()
	for _, f := range all {
		matches(t, f(r), os.ErrClosed)
	}
	for _, err := range []error{
		func() error { _, err := IsSocket(w, -1, 0, -1); return err }(),
		func() error { _, err := IsSocket(w, 0, -1, -1); return err }(),
		func() error { _, err := IsSocketInet(w, syscall.AF_UNIX, 0, -1, 0); return err }(),
		func() error { _, err := IsSocketUnix(w, -1, -1, ""); return err }(),
		func() error { _, err := IsMessageQueue(w, "x"); return err }(),
	} {
		matches(t, err, syscall.EINVAL)
	}
	_, err = IsFIFO(w, "/"+strings.Repeat("x", 300))
	matches(t, err, syscall.ENAMETOOLONG)
	_, err = IsFIFO(w, "a\x00b")
	matches(t, err, syscall.EINVAL)
}

func askFlags(f *os.File) (flags int, err error) {
	_, err = askFD(f, func(fd int) (bool, error) {
		var errno syscall.Errno
		flags, errno = fcntl(fd, syscall.F_GETFL, 0)
		if errno != 0 {
			return false, errno
		}
		return true, nil
	})
	return flags, err
}

// A queueReport is what a child saw of message queues, in a mount namespace of its own.
type queueReport struct {
	Lacks                      string
	Any, Same, Other, Null     bool
	NotMounted, NotThere       bool // the error matches os.ErrNotExist
	CutOff                     bool // a descriptor beyond 32 bits is taken for what is left of it
	AnyErr, SameErr, OtherErr  string
	NullErr, NotMountedMessage string
}

func init() {
	children["queue"] = func([]string) error {
		var r queueReport
		report := func() error { return json.NewEncoder(os.Stdout).Encode(r) }
		text := func(is bool, err error) (bool, string) { return is, fmt.Sprint(err) }
		var queues [2]*os.File
		for i, name := range []string{"a", "b"} {
			b := []byte(fmt.Sprintf("/sysfd%d%s\x00", os.Getpid(), name))
			p := unsafe.Pointer(&b[1]) // the kernel takes it without the slash, which the emulator looks for before it
			fd, _, errno := syscall.Syscall6(syscall.SYS_MQ_OPEN, uintptr(p), syscall.O_RDWR|syscall.O_CREAT|syscall.O_EXCL, 0o600, 0, 0, 0)
			if errno != 0 {
				r.Lacks = "message queues: " + errno.Error()
				return report()
			}
			defer syscall.Syscall(syscall.SYS_MQ_UNLINK, uintptr(p), 0, 0)
			queues[i] = os.NewFile(fd, string(b[:len(b)-1]))
		}
		null, err := os.Open("/dev/null")
		if err != nil {
			return err
		}
		a, b := queues[0], queues[1]
		r.CutOff = is64bit && mqGetAttr(int(a.Fd())+beyond32bits) == 0
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", "/dev", "tmpfs", 0, ""); err != nil {
			return err
		}
		_, err = IsMessageQueue(a, a.Name())
		r.NotMounted, r.NotMountedMessage = errors.Is(err, os.ErrNotExist), fmt.Sprint(err)
		if err := os.Mkdir("/dev/mqueue", 0o700); err != nil {
			return err
		}
		if err := syscall.Mount("mqueue", "/dev/mqueue", "mqueue", 0, ""); err != nil {
			return err
		}
		r.Any, r.AnyErr = text(IsMessageQueue(a, ""))
		r.Same, r.SameErr = text(IsMessageQueue(a, a.Name()))
		r.Other, r.OtherErr = text(IsMessageQueue(a, b.Name()))
		r.Null, r.NullErr = text(IsMessageQueue(null, a.Name()))
		_, err = IsMessageQueue(a, "/no such queue")
		r.NotThere = errors.Is(err, os.ErrNotExist)
		return report()
	}
}

func TestIsMessageQueue(t *testing.T) {
	rights.MountedRoot(t)
	reliesOn(t, messageQueues)
	keepsDescriptors(t)
	rights.Need(t, rights.SysAdmin)
	cmd := child("queue")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC}
	var r queueReport
	decodeJSON(t, output(t, cmd), &r)
	if r.Lacks != "" {
		lacks(t, r.Lacks)
	}
	if !r.Any || !r.Same || r.Other || r.Null || !r.NotMounted || !r.NotThere || r.CutOff || r.AnyErr+r.SameErr+r.OtherErr+r.NullErr != "<nil><nil><nil><nil>" {
		t.Errorf("%+v", r)
	}
}
