//go:build !plan9

package activation

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/sysfd/sysfd/internal/stale"
)

// ListenOr returns a listener for the socket that was passed with the name or, if there is none,
// for a socket of its own, made as [net.ListenConfig] does from network and address. ctx limits the
// resolution of host names, and nothing later.
//
// Its own socket can be bound while connections of an earlier server linger (SO_REUSEADDR, which
// package net sets for TCP on Unix). On Linux, if the address is the path of a Unix socket that no
// process has open, ListenOr replaces it. A live server keeps its path and does not notice; the
// error is then EADDRINUSE, as for a symbolic link or another file. The listener removes the path
// when it is closed, unlike one for a passed socket, whose path belongs to the service manager. The
// mode of the path depends on umask(2).
//
// If other sockets were passed, but none with this name, ListenOr listens on its own; [Unclaimed]
// returns the others. The name of a socket is FileDescriptorName= in systemd.socket(5). Without
// that it is the name of the unit, such as "web.socket". It is "unknown" if the manager gives no
// names.
//
// Errors:
//   - those of [Listeners];
//   - EINVAL if several listening sockets have the name; none is taken;
//   - those of [net.ListenConfig.Listen].
func ListenOr(ctx context.Context, name, network, address string) (net.Listener, error) {
	return passed.ListenOr(ctx, name, network, address)
}

// ListenOr is the function [ListenOr] for s.
func (s *Sockets) ListenOr(ctx context.Context, name, network, address string) (net.Listener, error) {
	return takeOr(s, name, listening, net.FileListener, func() (net.Listener, error) {
		return listenUnstale(network, address, func() (net.Listener, error) {
			var lc net.ListenConfig
			return lc.Listen(ctx, network, address)
		})
	})
}

// ListenPacketOr is [ListenOr] for a datagram socket, and uses [net.ListenConfig.ListenPacket].
// Package net does not remove the path of such a Unix socket when it is closed.
func ListenPacketOr(ctx context.Context, name, network, address string) (net.PacketConn, error) {
	return passed.ListenPacketOr(ctx, name, network, address)
}

// ListenPacketOr is the function [ListenPacketOr] for s.
func (s *Sockets) ListenPacketOr(ctx context.Context, name, network, address string) (net.PacketConn, error) {
	return takeOr(s, name, datagrams, net.FilePacketConn, func() (net.PacketConn, error) {
		return listenUnstale(network, address, func() (net.PacketConn, error) {
			var lc net.ListenConfig
			return lc.ListenPacket(ctx, network, address)
		})
	})
}

func takeOr[T io.Closer](s *Sockets, name string, want kind, from func(*os.File) (T, error), listen func() (T, error)) (T, error) {
	made, _, err := takeAs(s, []string{name}, 1, want, from)
	switch {
	case err != nil:
		var none T
		return none, err
	case len(made) > 0:
		return made[0], nil
	}
	return listen()
}

// listenUnstale calls listen, and calls it again if a Unix socket that no process has was in the
// way.
func listenUnstale[T any](network, address string, listen func() (T, error)) (T, error) {
	l, err := listen()
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(network, "unix") || strings.HasPrefix(address, "@") || strings.HasPrefix(address, "\x00") {
		return l, err // what has no path
	}
	switch inUse := stale.Remove(address); {
	case inUse == nil:
		return listen()
	case inUse == syscall.EADDRINUSE:
		return l, err
	default:
		return l, &net.OpError{Op: "listen", Net: network, Addr: &net.UnixAddr{Name: address, Net: network}, Err: inUse}
	}
}
