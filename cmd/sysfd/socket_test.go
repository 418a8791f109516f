//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd/internal/rights"
	"github.com/sysfd/sysfd/internal/stale"
	"golang.org/x/sys/unix"
)

var unixNetworks = map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM, "unixpacket": unix.SOCK_SEQPACKET}

// leaveStale leaves the file of a socket without the socket.
func leaveStale(t testing.TB, path string, network string) {
	t.Helper()
	f, err := bind(socketAddress{network, path}, "")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// inode returns 0 if there is no file.
func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil && err != unix.ENOENT {
		t.Fatal(err)
	}
	return st.Ino
}

// litter returns what is in a directory, but for the named file.
func litter(t testing.TB, dir string, but ...string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(but) == 0 || e.Name() != but[0] {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestParseAddress(t *testing.T) {
	for _, test := range []struct{ text, kind, network, address string }{
		{"80", "stream", "tcp", ":80"},
		{"80", "datagram", "udp", ":80"},
		{"[::1]:80", "stream", "tcp", "[::1]:80"},
		{"host:80", "stream", "tcp", "host:80"},
		{"tcp:80", "datagram", "tcp", ":80"},
		{"udp:127.0.0.1:53", "stream", "udp", "127.0.0.1:53"},
		{"udp:[::1]:53", "seqpacket", "udp", "[::1]:53"},
		{"/a", "stream", "unix", "/a"},
		{"/a", "datagram", "unixgram", "/a"},
		{"@a", "seqpacket", "unixpacket", "@a"},
		{"stream:80", "datagram", "tcp", ":80"},
		{"datagram:80", "stream", "udp", ":80"},
		{"stream:@a", "datagram", "unix", "@a"},
		{"datagram:./a:b", "stream", "unixgram", "./a:b"},
		{"seqpacket:/a", "stream", "unixpacket", "/a"},
		{"./tcp:80", "stream", "unix", "./tcp:80"},
		{"/" + strings.Repeat("l", 106), "stream", "unix", "/" + strings.Repeat("l", 106)},
		{"@" + strings.Repeat("l", 107), "stream", "unix", "@" + strings.Repeat("l", 107)},
	} {
		if a, err := parseAddress(test.text, test.kind); a != (socketAddress{test.network, test.address}) || err != nil {
			t.Errorf("%s, %s: %v, %v", test.text, test.kind, a, err)
		}
	}
	for text, want := range map[string]string{
		"tcp:/a": "not a kind of Unix socket", "udp:@a": "not a kind of Unix socket", "seqpacket:80": "for Unix sockets only", "sctp:80x": "not an address",
		"tcp:": "not an address", "udp::": "not an address", "tcp:a": "not an address", "@": "not an address", "datagram:": "not an address",
		"/" + strings.Repeat("l", 107): "too long", "@" + strings.Repeat("l", 108): "too long",
	} {
		if a, err := parseAddress(text, "stream"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", text, a, err)
		}
	}
}

// What is passed is as systemd makes it.
func TestBindOptions(t *testing.T) {
	protocols := map[string]int{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}
	for network, want := range map[string]int{"tcp": unix.SOCK_STREAM, "udp": unix.SOCK_DGRAM} {
		f, err := bind(socketAddress{network, "127.0.0.1:0"}, "name")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		control(f, func(fd int) error {
			kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
			if err != nil || kind != want {
				t.Errorf("%s: type %d, %v", network, kind, err)
			}
			if protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != protocols[network] {
				t.Errorf("%s: protocol %d, %v", network, protocol, err)
			}
			if broadcast, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST); err != nil || broadcast != 0 {
				t.Errorf("%s: SO_BROADCAST %d, %v", network, broadcast, err)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
				t.Errorf("%s: %#x, %v", network, flags, err)
			}
			return nil
		})
	}
}

// A socket that a process has is left alone, whatever its type, and does not notice.
func TestStaleAsksQuietly(t *testing.T) {
	for network, kind := range unixNetworks {
		for _, listens := range []bool{false, true} {
			if listens && network == "unixgram" {
				continue
			}
			path := filepath.Join(t.TempDir(), "socket")
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				t.Fatal(err)
			}
			if listens {
				if err := unix.Listen(fd, 5); err != nil {
					t.Fatal(err)
				}
			}
			was := inode(t, path)
			for own := range unixNetworks {
				if f, err := bind(socketAddress{own, path}, ""); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("%s at that of a live %s: %v, %v", own, network, f, err)
				}
			}
			if inode(t, path) != was {
				t.Errorf("%s: the file of a live socket is another one, or gone", network)
			}
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(poll, 0); err != nil || n != 0 && poll[0].Revents&unix.POLLIN != 0 {
				t.Errorf("%s, listening %t: the server was disturbed: %#x, %v", network, listens, poll[0].Revents, err)
			}
			if names := litter(t, filepath.Dir(path), "socket"); names != nil {
				t.Errorf("%q", names)
			}
		}
	}
	// One whose peer is another gets nothing from anybody, and lives.
	path := filepath.Join(t.TempDir(), "socket")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other := path + "2"
	c2, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: other, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.Connect(int(fd), &unix.SockaddrUnix{Name: other}) })
	if err != nil {
		t.Fatal(err)
	}
	if f, err := bind(socketAddress{"unix", path}, ""); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v, %v", f, err)
	}
}

// A stale file of each type gives way to a socket of each type, and what is no socket does not.
func TestBindStale(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	for was := range unixNetworks {
		for is := range unixNetworks {
			leaveStale(t, path, was)
			old := inode(t, path)
			f, err := bind(socketAddress{is, path}, "")
			if err != nil {
				t.Errorf("%s for %s: %v", is, was, err)
				continue
			}
			if stale.Remove(path) != unix.EADDRINUSE {
				t.Errorf("%s for %s: the path leads elsewhere; it was inode %d, is %d", is, was, old, inode(t, path))
			}
			f.Close()
			os.Remove(path)
		}
	}
	leaveStale(t, path, "unix")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{link, file, dir} {
		was := inode(t, name)
		if f, err := bind(socketAddress{"unix", name}, ""); !errors.Is(err, syscall.EADDRINUSE) || inode(t, name) != was {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

// Of those who find the same stale file at once one gets the place, and keeps it.
func TestBindStaleAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	rounds := 500
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		leaveStale(t, path, "unix")
		var winners []*os.File
		var mutex sync.Mutex
		var all sync.WaitGroup
		start := make(chan struct{})
		for range 6 {
			all.Add(1)
			go func() {
				defer all.Done()
				<-start
				f, err := bind(socketAddress{"unix", path}, "")
				mutex.Lock()
				defer mutex.Unlock()
				if err == nil {
					winners = append(winners, f)
				} else if !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("round %d: %v", round, err)
				}
			}()
		}
		close(start)
		all.Wait()
		if len(winners) != 1 {
			t.Fatalf("round %d: %d have the place", round, len(winners))
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		c.Close()
		if names := litter(t, dir, "socket"); names != nil {
			t.Errorf("round %d: %q", round, names)
		}
		winners[0].Close()
		os.Remove(path)
	}
}

// A server that removes what is there and binds, without asking, keeps the place whenever it does so.
func TestBindStaleAgainstServer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	ours := 0
	for round := range rounds {
		leaveStale(t, path, "unix")
		done := make(chan error, 1)
		go func() {
			f, err := bind(socketAddress{"unix", path}, "")
			if err == nil {
				ours++
				defer f.Close()
			}
			done <- err
		}()
		for start := time.Now(); time.Since(start) < time.Duration(round%100)*time.Microsecond; { // no sleep is so short
		}
		var is uint64
		var l net.Listener
		for range 100 {
			os.Remove(path)
			var err error
			if l, err = net.Listen("unix", path); err == nil {
				is = inode(t, path)
				break
			} else if !errors.Is(err, syscall.EADDRINUSE) {
				t.Fatal(err)
			}
		}
		if l == nil {
			t.Fatal("there was no getting through")
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if err := <-done; err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("round %d: %v", round, err)
		}
		if c, err := net.Dial("unix", path); err != nil || is != 0 && inode(t, path) != is {
			t.Errorf("round %d: the server lost its place: %v", round, err)
		} else {
			c.Close()
		}
		if names := litter(t, dir, "socket"); names != nil {
			t.Errorf("round %d: %q", round, names)
		}
		l.Close()
		os.Remove(path)
	}
	t.Logf("%d of %d times the place was had for a moment", ours, rounds)
}

// Someone who holds the lock for good is not waited for.
func TestBindStaleLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	leaveStale(t, path, "unix")
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	f, err := bind(socketAddress{"unix", path}, "")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("the lock was waited for %v", took)
	}
}

// Where the file cannot be removed, the error says so.
func TestBindStaleForbidden(t *testing.T) {
	rights.Need(t, rights.SetUID)
	dir, err := os.MkdirTemp("", "sysfd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "socket")
	leaveStale(t, path, "unix")
	for _, mode := range []os.FileMode{0o755, 0o711, os.ModeSticky | 0o777} {
		if err := errors.Join(os.Chmod(path, 0o777), os.Chmod(dir, mode)); err != nil {
			t.Fatal(err)
		}
		var errBind error
		ended := make(chan bool)
		onThread(func() {
			defer close(ended)
			if err := unix.Setfsuid(65534); err == nil {
				_, errBind = bind(socketAddress{"unix", path}, "")
			}
		})
		<-ended
		if !errors.Is(errBind, syscall.EADDRINUSE) || !errors.Is(errBind, os.ErrPermission) || !strings.Contains(fmt.Sprint(errBind), "cannot be removed") {
			t.Errorf("%v: %v", mode, errBind)
		}
		if names := litter(t, dir); len(names) != 1 {
			t.Errorf("%v: %q", mode, names)
		}
	}
}
