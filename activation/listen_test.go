//go:build linux

package activation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stale makes the path of a socket that nobody has.
func leaveStale(t *testing.T, network, path string) {
	t.Helper()
	switch s := listen(t, network, path).(type) {
	case *net.UnixListener:
		s.SetUnlinkOnClose(false)
		s.Close()
	case io.Closer:
		s.Close()
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func listenOr(network, address string) (io.Closer, error) {
	if network == "unixgram" || network == "udp" {
		return new(Sockets).ListenPacketOr(context.Background(), "x", network, address)
	}
	return new(Sockets).ListenOr(context.Background(), "x", network, address)
}

// alone fails the test if there is something but the entry in its folder.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// The passed socket has preference.
func TestListenOrPassed(t *testing.T) {
	keepsDescriptors(t)
	ctx := context.Background()
	tcp, udp := passable(t, listen(t, "tcp", "127.0.0.1:0"), "web"), passable(t, listen(t, "udp", "127.0.0.1:0"), "web")
	s := From(tcp, udp)
	l, err := s.ListenOr(ctx, "web", "unix", "/nonexistent/x")
	if err != nil || l.Addr().Network() != "tcp" || isOpen(tcp) || !isOpen(udp) {
		t.Fatal(l, err)
	}
	l.Close()
	c, err := s.ListenPacketOr(ctx, "web", "unixgram", "/nonexistent/x")
	if err != nil || c.LocalAddr().Network() != "udp" || isOpen(udp) {
		t.Fatal(c, err)
	}
	c.Close()
	// They are taken.
	if l, err := s.ListenOr(ctx, "web", "unix", "/nonexistent/x"); !errors.Is(err, syscall.ENOENT) || l != nil {
		t.Error(l, err)
	}

	// Two cannot be one, and the wrong kind is none.
	files := kinds(t)
	one, other := passable(t, listen(t, "tcp", "127.0.0.1:0"), "web"), passable(t, listen(t, "tcp", "127.0.0.1:0"), "web")
	s = From(append(files, one, other)...)
	for _, name := range append([]string{"web"}, append(beginning(files, "o"), beginning(files, "d")...)...) {
		if l, err := s.ListenOr(ctx, name, "tcp", "127.0.0.1:0"); !errors.Is(err, syscall.EINVAL) || l != nil || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Error(l, err)
		}
	}
	listeners, err := s.Listeners("web")
	if err != nil || len(listeners) != 2 {
		t.Error(listeners, err)
	}
	closeAll(listeners)
	closeAll(files)
}

// An address that a server has just had can be had again.
func TestListenOrLingering(t *testing.T) {
	keepsDescriptors(t)
	address := "127.0.0.1:0"
	for range 3 {
		l, err := new(Sockets).ListenOr(context.Background(), "x", "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		address = l.Addr().String()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted.Close() // first: so this end lingers
		io.ReadAll(c)
		c.Close()
		l.Close()
	}
}

// A path that nobody has is taken over. Of the kinds of sockets, each is in the way of each.
func TestListenOrStale(t *testing.T) {
	keepsDescriptors(t)
	networks := []string{"unix", "unixpacket", "unixgram"}
	for _, old := range networks {
		for _, network := range networks {
			// As long as bind(2) takes it: what is moved aside must not need more.
			path := t.TempDir() + "/"
			path += strings.Repeat("x", 107-len(path))
			leaveStale(t, old, path)
			l, err := listenOr(network, path)
			if err != nil {
				t.Error(old, network, err)
				continue
			}
			alone(t, path)
			// While it is there, nobody gets it.
			for _, other := range networks {
				if l, err := listenOr(other, path); !errors.Is(err, syscall.EADDRINUSE) {
					t.Error(other, l, err)
				}
			}
			l.Close()
			if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) != (network != "unixgram") {
				t.Error(network, err)
			}
		}
	}
}

// What is in use is not disturbed, and what is no socket not removed.
func TestListenOrLive(t *testing.T) {
	keepsDescriptors(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	inUse := func(what string) {
		t.Helper()
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, network := range []string{"unix", "unixpacket", "unixgram"} {
			if l, err := listenOr(network, path); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%s: %s: %v, %v", what, network, l, err)
			}
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: %v, before: %v, %v", what, after, before, err)
		}
		alone(t, path)
	}

	for _, network := range []string{"unix", "unixpacket"} {
		l := listen(t, network, path).(*net.UnixListener)
		inUse(network)
		l.SetDeadline(time.Now().Add(10 * time.Millisecond))
		if c, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s was disturbed: %v, %v", network, c, err)
		}
		l.Close()
	}
	d := listen(t, "unixgram", path).(*net.UnixConn)
	inUse("unixgram")
	d.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if n, _, err := d.ReadFrom(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it was disturbed: %d, %v", n, err)
	}
	d.Close()
	os.Remove(path)

	// A server that does not listen yet.
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	inUse("a server that begins")
	syscall.Close(fd)
	os.Remove(path)

	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inUse("a file")
	os.Remove(path)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	inUse("a folder")
	os.Remove(path)
	elsewhere := filepath.Join(t.TempDir(), "stale")
	leaveStale(t, "unix", elsewhere)
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	inUse("a symbolic link")
	if _, err := os.Lstat(elsewhere); err != nil {
		t.Error(err)
	}
	os.Remove(path)

	// Addresses that are no paths, with files that bear their names.
	t.Chdir(dir)
	abstract := listen(t, "unix", "@"+filepath.Base(dir)+"-nul").(net.Listener)
	if l, err := listenOr("unix", "\x00"+abstract.Addr().String()[1:]); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(l, err)
	}
	abstract.Close()
	for _, address := range []string{"@" + filepath.Base(dir), "127.0.0.1:0"} {
		network := "tcp"
		if address[0] == '@' {
			network = "unix"
		}
		l := listen(t, network, address).(net.Listener)
		address = l.Addr().String()
		leaveStale(t, "unix", "./"+address)
		if l, err := listenOr(network, address); !errors.Is(err, syscall.EADDRINUSE) {
			t.Error(l, err)
		}
		if _, err := os.Lstat("./" + address); err != nil {
			t.Error(err)
		}
		l.Close()
	}
}

// Of many that find a stale path one gets it, and keeps it.
func TestListenOrRace(t *testing.T) {
	keepsDescriptors(t)
	for round := range 100 {
		path := filepath.Join(t.TempDir(), "s")
		leaveStale(t, "unix", path)
		var group sync.WaitGroup
		winners := make(chan net.Listener, 8)
		start := make(chan bool)
		for range cap(winners) {
			group.Add(1)
			go func() {
				defer group.Done()
				<-start
				l, err := new(Sockets).ListenOr(context.Background(), "x", "unix", path)
				switch {
				case err == nil:
					winners <- l
				case !errors.Is(err, syscall.EADDRINUSE):
					t.Error(err)
				}
			}()
		}
		close(start)
		group.Wait()
		close(winners)
		if len(winners) != 1 {
			t.Fatalf("round %d: %d have it", round, len(winners))
		}
		l := <-winners
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		c.Close()
		l.Close()
	}
}

// A file that cannot be removed is said by its path, and stays.
func TestListenOrCannotRemove(t *testing.T) {
	keepsDescriptors(t)
	dir, err := os.MkdirTemp("", "") // that of t has a folder above that is not for nobody
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	leaveStale(t, "unix", path)
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	var l io.Closer
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Getuid() == 0 { // this thread is nobody, and ends
			runtime.LockOSThread()
			if err = syscall.Setfsuid(65534); err != nil {
				return
			}
		}
		l, err = listenOr("unix", path)
	}()
	<-done
	var op *net.OpError
	switch {
	case !errors.Is(err, syscall.EADDRINUSE) && (errors.Is(err, os.ErrPermission) || errors.Is(err, errors.ErrUnsupported)):
		t.Skip("nobody may not come here, or nobody can be: ", err)
	case !errors.Is(err, syscall.EADDRINUSE) || !errors.Is(err, os.ErrPermission) || !errors.As(err, &op) || !strings.Contains(err.Error(), path) || l != nil:
		t.Error(l, err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	alone(t, path)
}

// A lock that somebody else holds makes it slow, and no more.
func TestListenOrLocked(t *testing.T) {
	keepsDescriptors(t)
	path := filepath.Join(t.TempDir(), "s")
	leaveStale(t, "unix", path)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		l, err := listenOr("unix", path)
		if err == nil {
			l.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Error("it has not waited: ", err)
	case <-time.After(50 * time.Millisecond):
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestListenOrContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if l, err := new(Sockets).ListenOr(ctx, "x", "tcp", "localhost:0"); err == nil || l != nil {
		t.Error(fmt.Sprint(l, err))
	}
}
