//go:build linux

package sysfd

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// nonblocking tells whether a descriptor is in that mode.
func nonblocking(t *testing.T, c syscall.Conn) (is bool) {
	t.Helper()
	if err := withFD(c, func(fd int) {
		flags, errno := fcntl(fd, syscall.F_GETFL, 0)
		is = errno == 0 && flags&syscall.O_NONBLOCK != 0
	}); err != nil {
		t.Fatal(err)
	}
	return is
}

// A duplicate of what has a descriptor has a name, is close-on-exec, and has the same mode, which
// nothing changes that is done with it.
func TestDupFile(t *testing.T) {
	keepsDescriptors(t)
	dir := t.TempDir()
	must := func(c any, err error) syscall.Conn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return c.(syscall.Conn)
	}
	r, w, err := os.Pipe()
	must(r, err)
	defer w.Close()
	var blocking [2]int
	if err := syscall.Pipe2(blocking[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(blocking[1])
	conns := map[string]syscall.Conn{
		"TCP listener":     must(net.Listen("tcp", "127.0.0.1:0")),
		"Unix listener":    must(net.Listen("unix", filepath.Join(dir, "l"))),
		"UDP":              must(net.ListenPacket("udp", "127.0.0.1:0")),
		"Unix datagrams":   must(net.ListenPacket("unixgram", filepath.Join(dir, "d"))),
		"pipe":             r,
		"pipe, blocking":   os.NewFile(uintptr(blocking[0]), "x"),
		"file":             must(os.Open(tempFile(t))),
		"folder":           must(os.Open(dir)),
		"file, O_NONBLOCK": must(os.OpenFile(tempFile(t), os.O_RDONLY|syscall.O_NONBLOCK, 0)),
	}
	if !lacksFeature(t, FeaturePidFD) {
		conns["pidfd"] = must(OpenPidFD(os.Getpid(), 0))
		conns["pidfd, non-blocking"] = must(OpenPidFD(os.Getpid(), PIDFD_NONBLOCK))
	}
	for what, c := range conns {
		mode := nonblocking(t, c)
		var before, after inode
		withFD(c, func(fd int) { before, _ = statFD(fd) })
		f, err := DupFile(c, "web:1")
		if err != nil {
			t.Fatal(what, err)
		}
		var flags int
		withFD(f, func(fd int) {
			after, _ = statFD(fd)
			flags, _ = fcntl(fd, syscall.F_GETFD, 0)
		})
		f.Fd()
		if f.Name() != "web:1" || !sameInode(&before, &after) || flags&syscall.FD_CLOEXEC == 0 || nonblocking(t, c) != mode || nonblocking(t, f) != mode {
			t.Errorf("%s: %s, %+v, %+v, %#x, mode %v, %v, was %v", what, f.Name(), before, after, flags, nonblocking(t, c), nonblocking(t, f), mode)
		}
		f.Close()
		if nonblocking(t, c) != mode {
			t.Errorf("%s has changed its mode", what)
		}
		c.(io.Closer).Close()
		if f, err := DupFile(c, "x"); !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s closed: %v, %v", what, f, err)
		}
	}
	for _, c := range []syscall.Conn{nil, (*os.File)(nil)} {
		_, err := DupFile(c, "x")
		matches(t, err, os.ErrInvalid)
	}
}

// Accept of a listener whose duplicate was asked for its descriptor can be interrupted.
func TestDupFileLeavesAccept(t *testing.T) {
	keepsDescriptors(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := DupFile(l.(*net.TCPListener), "web")
	if err != nil {
		t.Fatal(err)
	}
	f.Fd()
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	l.Close()
	select {
	case err := <-done:
		matches(t, err, net.ErrClosed)
	case <-time.After(10 * time.Second):
		t.Error("Accept hangs")
	}
	// The duplicate listens.
	l, err = net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	l.Close()
}

// Where the standard descriptors are closed, a duplicate is not one of them.
func TestDupFileAboveStandard(t *testing.T) {
	if got := output(t, child("dup")); got != "true\n" {
		t.Error(got)
	}
}

func init() {
	children["dup"] = func([]string) error {
		syscall.Close(0)
		f, err := DupFile(os.Stdout, "x")
		if err != nil {
			return err
		}
		above := false
		err = withFD(f, func(fd int) { above = fd > 2 })
		if _, errPrint := os.Stdout.WriteString(map[bool]string{true: "true\n", false: "false\n"}[above]); errPrint != nil {
			return errPrint
		}
		return err
	}
}

// What is duplicated can be passed on under its name.
func TestDupFilePassedOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := DupFile(l.(*net.TCPListener), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err := fdNames([]*os.File{f})
	if err != nil || !slices.Equal(names, []string{"web"}) {
		t.Error(names, err)
	}
}
