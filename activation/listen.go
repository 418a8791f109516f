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

// ListenOr returns a listener for the socket that was passed under the name, or else one
// for a socket of its own, as [net.ListenConfig] makes it of network and address. ctx limits the
// resolution of host names, and nothing later.
//
// A socket of its own is bound although connections of a server before still linger
// (SO_REUSEADDR, which is the rule of package net for TCP on Unix). If the address is the path of a Unix
// socket that nobody has open any more, it takes its place, on Linux. A live server keeps its path, and does not
// notice that it was looked for; the error is then EADDRINUSE, as for a symbolic link or what else is no socket. The listener removes the path when it is closed,
// unlike one for a passed socket, whose path belongs to the service manager. The mode of the path follows
// from umask(2).
//
// If other sockets were passed and none of this name, it listens on its own; [Unclaimed] tells of
// them. The name of a socket is that of FileDescriptorName= in systemd.socket(5), without it that
// of the unit, such as "web.socket"; "unknown" if the manager gives no names.
//
// Errors: those of [Listeners]; EINVAL if several listening sockets have the name, and then none is taken;
// those of [net.ListenConfig.Listen].
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

// ListenPacketOr is [ListenOr] for a socket of datagrams, and [net.ListenConfig.ListenPacket].
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

// listenUnstale calls listen, and again if a Unix socket that nobody has was in the way.
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
