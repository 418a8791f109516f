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
	"strconv"
	"strings"
	"syscall"

	"github.com/sysfd/sysfd"
)

func activate(c *call) error {
	var addresses []socketAddress
	var environ []string
	c.Func("l", "listen on `ADDRESS`: host:port or port, the path of a Unix socket (with a slash in it), or @name for an abstract one", func(s string) error {
		a, err := parseAddress(s)
		addresses = append(addresses, a)
		return err
	})
	datagram := c.Bool("d", false, "datagram sockets, not stream sockets")
	fdnames := c.String("fdname", "", "the `NAMES` of the sockets for PROGRAM, separated by colons; or one for all")
	now := c.Bool("now", false, "do not wait for traffic")
	c.Func("E", "set `NAME=VALUE` in the environment of PROGRAM", func(s string) error {
		name, _, ok := strings.Cut(s, "=")
		switch {
		case !ok || name == "":
			return errors.New("not NAME=VALUE")
		case name == "LISTEN_PID" || name == "LISTEN_PIDFDID" || name == "LISTEN_FDS" || name == "LISTEN_FDNAMES":
			return errors.New("that one is set by activate itself")
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
		return nil, usageError(fmt.Sprintf("--fdname %q has %d names for %d addresses", list, len(names), n))
	}
	for _, name := range names {
		if !sysfd.ValidFDName(name) {
			return nil, usageError(fmt.Sprintf("%q cannot be the name of a socket", name))
		}
	}
	return names, nil
}

// A socketAddress is one for package net; the network is "tcp" or "unix".
type socketAddress struct{ network, address string }

func parseAddress(s string) (socketAddress, error) {
	if strings.Contains(s, "/") || len(s) > 1 && s[0] == '@' {
		return socketAddress{"unix", s}, nil
	}
	host, port := "", s
	if strings.Contains(s, ":") {
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return socketAddress{}, errors.New("not host:port")
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return socketAddress{}, errors.New("not an address: a port is a number up to 65535")
	}
	return socketAddress{"tcp", net.JoinHostPort(host, port)}, nil
}

// bind returns a socket in blocking mode, as systemd passes it.
func bind(a socketAddress, datagram bool, name string) (*os.File, error) {
	socket, err := listenOn(a, datagram)
	if errors.Is(err, syscall.EADDRINUSE) && a.network == "unix" && removeStale(a.address, datagram) {
		socket, err = listenOn(a, datagram)
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

func listenOn(a socketAddress, datagram bool) (socket, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // what systemd passes is plain TCP
	if datagram {
		network := map[string]string{"tcp": "udp", "unix": "unixgram"}[a.network]
		c, err := lc.ListenPacket(context.Background(), network, a.address)
		if err != nil {
			return nil, err
		}
		return c.(socket), nil
	}
	l, err := lc.Listen(context.Background(), a.network, a.address)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l.(socket), nil
}

// removeStale removes the file of a Unix socket that no process has any more. To
// ask, it connects with a socket of the other type: if there is a process the
// answer is EPROTOTYPE, even before it listens, and it does not notice.
func removeStale(path string, datagram bool) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	network := "unixgram"
	if datagram {
		network = "unix"
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
