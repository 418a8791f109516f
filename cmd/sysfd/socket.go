//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/stale"
	"golang.org/x/sys/unix"
)

// A socketAddress is the address of a socket. The network is one of package net.
type socketAddress struct{ network, address string }

func (a socketAddress) isUnix() bool { return strings.HasPrefix(a.network, "unix") }

// path returns the path of a Unix socket, "" for other sockets.
func (a socketAddress) path() string {
	if !a.isUnix() || a.address[0] == '@' {
		return ""
	}
	return a.address
}

// networks are the kinds of sockets: the prefix of an address, and the network of package net for host:port and for a
// Unix socket, "" if there is none.
var networks = map[string]struct{ ip, unix string }{
	"stream":    {"tcp", "unix"},
	"datagram":  {"udp", "unixgram"},
	"seqpacket": {"", "unixpacket"},
	"tcp":       {"tcp", ""},
	"udp":       {"udp", ""},
}

// parseAddress reads [KIND:]ADDRESS. Without a prefix, the kind is the given one.
func parseAddress(s, kind string) (socketAddress, error) {
	if prefix, rest, ok := strings.Cut(s, ":"); ok {
		if _, ok := networks[prefix]; ok {
			kind, s = prefix, rest
		}
	}
	if strings.Contains(s, "/") || len(s) > 1 && s[0] == '@' {
		a := socketAddress{networks[kind].unix, s}
		switch {
		case a.network == "":
			return a, fmt.Errorf("%s is not a kind of Unix socket", kind)
		case len(s) >= len(syscall.RawSockaddrUnix{}.Path) && a.path() != "", len(s) > len(syscall.RawSockaddrUnix{}.Path):
			return a, errors.New("the path or name is too long for a socket")
		}
		return a, nil
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
	if networks[kind].ip == "" {
		return socketAddress{}, fmt.Errorf("%s is for Unix sockets only", kind)
	}
	return socketAddress{networks[kind].ip, net.JoinHostPort(host, port)}, nil
}

// bind returns a socket in blocking mode, as systemd passes it. It listens unless it is a datagram socket.
func bind(a socketAddress, name string) (*os.File, error) {
	if a.isUnix() {
		return bindUnix(a, name)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // systemd passes plain TCP
	var socket interface {
		syscall.Conn
		Close() error
	}
	if a.network == "udp" {
		c, err := lc.ListenPacket(context.Background(), a.network, a.address)
		if err != nil {
			return nil, err
		}
		socket = c.(*net.UDPConn)
	} else {
		l, err := lc.Listen(context.Background(), a.network, a.address)
		if err != nil {
			return nil, err
		}
		socket = l.(*net.TCPListener)
	}
	defer socket.Close()
	f, err := sysfd.DupFile(socket, name)
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd()) // which puts it in blocking mode
	failed := os.NewSyscallError("fcntl", unix.SetNonblock(fd, false))
	if a.network == "udp" && failed == nil {
		// Package net allows datagrams to broadcast addresses; systemd does not by default.
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 0))
	}
	if failed != nil {
		f.Close()
		return nil, failed
	}
	return f, nil
}

// bindUnix also replaces a file that a socket has left behind.
func bindUnix(a socketAddress, name string) (*os.File, error) {
	types := map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM, "unixpacket": unix.SOCK_SEQPACKET}
	fd, err := unix.Socket(unix.AF_UNIX, types[a.network]|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), name)
	address := &syscall.SockaddrUnix{Name: a.address} // that of package unix cannot hold an abstract name of 107 bytes
	err = syscall.Bind(fd, address)
	// Other processes may be replacing the same file.
	for tries := 0; err == syscall.EADDRINUSE && a.path() != "" && tries < 100; tries++ {
		if inUse := stale.Remove(a.path()); inUse != nil {
			f.Close()
			return nil, fmt.Errorf("listen on %s: %w", a.address, inUse)
		}
		err = syscall.Bind(fd, address)
	}
	if err == nil && a.network != "unixgram" {
		if err = unix.Listen(fd, unix.SOMAXCONN); err != nil && a.path() != "" {
			f.Close()
			stale.Remove(a.path())
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("listen on %s: %w", a.address, err)
	}
	return f, nil
}

// waitForTraffic returns when one of the files has a connection or a datagram.
func waitForTraffic(files []*os.File) error {
	wait, end, err := traffic(files)
	if err != nil {
		return err
	}
	defer end()
	return wait()
}

// traffic returns a function that waits until one of the files has a connection or a datagram, and a function that
// closes what the first one uses.
func traffic(files []*os.File) (wait func() error, end func(), err error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, os.NewSyscallError("epoll_create1", err)
	}
	end = func() { unix.Close(epoll) }
	for _, f := range files {
		err := control(f, func(fd int) error {
			return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		})
		if err == unix.EPERM { // a regular file, which can always be read
			return func() error { return nil }, end, nil
		}
		if err != nil {
			end()
			return nil, nil, os.NewSyscallError("epoll_ctl", err)
		}
	}
	return func() error {
		for {
			// Not epoll_wait(2), which filters that were made for Go programs can leave out.
			if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(epoll), Events: unix.POLLIN}}, nil, nil); err != unix.EINTR {
				return os.NewSyscallError("ppoll", err)
			}
		}
	}, end, nil
}

// control calls f with the descriptor of a file, whose blocking mode stays as it is.
func control(file *os.File, f func(fd int) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
