//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/sysfd/sysfd"
)

func activate(c *call) error {
	var addresses, environ []string
	c.Func("l", "listen on `ADDRESS`: host:port or port, the path of a Unix socket, or @name for an abstract one", func(s string) error {
		addresses = append(addresses, s)
		return nil
	})
	datagram := c.Bool("d", false, "datagram sockets, not stream sockets")
	fdnames := c.String("fdname", "", "the `NAMES` of the sockets for PROGRAM, separated by colons; or one for all")
	now := c.Bool("now", false, "do not wait for traffic")
	c.Func("E", "set `NAME=VALUE` in the environment of PROGRAM", func(s string) error {
		if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
			return errors.New("not NAME=VALUE")
		}
		environ = append(environ, s)
		return nil
	})
	if err := c.parse(); err != nil {
		return err
	}
	if len(addresses) == 0 {
		return usageError("-l ADDRESS is missing")
	}
	if c.NArg() == 0 {
		return usageError("-- PROGRAM is missing")
	}
	names, err := socketNames(*fdnames, len(addresses))
	if err != nil {
		return err
	}
	program, err := exec.LookPath(c.Arg(0))
	if err != nil {
		return err
	}

	var files []*os.File
	for i, a := range addresses {
		f, err := bind(a, *datagram, names[i])
		if err != nil {
			return err
		}
		files = append(files, f)
		info, err := describe(f)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.err, "sysfd activate: listening on %s as %s\n", info.Address, names[i])
	}
	if !*now {
		if err := waitForTraffic(files); err != nil {
			return err
		}
	}
	for _, s := range environ {
		name, value, _ := strings.Cut(s, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return sysfd.ExecListenFDs(program, c.Args(), os.Environ(), files)
}

// socketNames returns a name for each of n sockets.
func socketNames(list string, n int) ([]string, error) {
	if list == "" {
		list = "unknown"
	}
	names := strings.Split(list, ":")
	if len(names) == 1 {
		for len(names) < n {
			names = append(names, names[0])
		}
	}
	if len(names) != n {
		return nil, usageError(fmt.Sprintf("--fdname %s has %d names for %d addresses", list, len(names), n))
	}
	for _, name := range names {
		if !sysfd.ValidFDName(name) {
			return nil, usageError(fmt.Sprintf("%q cannot be the name of a socket", name))
		}
	}
	return names, nil
}

// bind returns a socket in blocking mode, as systemd passes it.
func bind(address string, datagram bool, name string) (*os.File, error) {
	network := "tcp"
	switch {
	case strings.HasPrefix(address, "@") || strings.Contains(address, "/"):
		network = "unix"
	case !strings.Contains(address, ":"):
		address = ":" + address
	}
	socket, err := listenOn(network, address, datagram)
	if errors.Is(err, syscall.EADDRINUSE) && network == "unix" && removeStale(address, datagram) {
		socket, err = listenOn(network, address, datagram)
	}
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	conn, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var failed error
	if err := conn.Control(func(old uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, failed = syscall.Dup(int(old)); failed == nil {
			syscall.CloseOnExec(fd)
		}
	}); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, os.NewSyscallError("dup", failed)
	}
	if err := syscall.SetNonblock(fd, false); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

type socket interface {
	syscall.Conn
	Close() error
}

func listenOn(network, address string, datagram bool) (socket, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // what systemd passes is plain TCP
	if datagram {
		network = map[string]string{"tcp": "udp", "unix": "unixgram"}[network]
		c, err := lc.ListenPacket(context.Background(), network, address)
		if err != nil {
			return nil, err
		}
		return c.(socket), nil
	}
	l, err := lc.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l.(socket), nil
}

// removeStale removes the file of a Unix socket that nothing listens on any more.
func removeStale(path string, datagram bool) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	network := "unix"
	if datagram {
		network = "unixgram"
	}
	c, err := net.Dial(network, path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(path) == nil
}

// waitForTraffic returns when one of the sockets has a connection or a datagram.
func waitForTraffic(files []*os.File) error {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	defer syscall.Close(epoll)
	for _, f := range files {
		// Fd leaves a descriptor in blocking mode, and these are.
		fd := int(f.Fd())
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	for {
		var events [1]syscall.EpollEvent
		if _, err := syscall.EpollWait(epoll, events[:], -1); err != syscall.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
	}
}
