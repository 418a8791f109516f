//go:build !plan9

package sysfd

import (
	"os"
	"syscall"
)

// DupFile returns a close-on-exec duplicate of the descriptor of c under a name of the caller's
// choice, to be passed on with [ExecListenFDs], StartListenFDs or NotifyStoreFDs. c is a listener
// or connection of package net, an [os.File], a *PidFD, or anything else that has a descriptor. c
// stays open and unchanged.
//
// Files that package net returns have names such as "tcp:127.0.0.1:80->", which do not serve for
// passing, and an os.File cannot be renamed. Their Fd method also puts the socket into blocking
// mode. The mode belongs to the socket, which the listener shares, and its Accept can then not be
// interrupted. Neither DupFile nor the Fd method of the file that it returns changes the mode.
//
// If the duplicate of a Unix listener has been passed on, call [net.UnixListener.SetUnlinkOnClose]
// with false before closing the listener. Otherwise Close removes the path although the socket is
// still in use, and no client reaches the successor. Only a listener that package net has bound
// removes its path, not one made of a passed file.
//
// Errors:
//   - [os.ErrInvalid] if c is nil;
//   - [os.ErrClosed] if c is closed, or [net.ErrClosed] if c is of package net;
//   - EMFILE and ENFILE if no descriptor is left;
//   - an error that matches [errors.ErrUnsupported] on systems that are not Unix.
func DupFile(c syscall.Conn, name string) (*os.File, error) {
	if c == nil {
		return nil, os.ErrInvalid
	}
	fd, err := dupConn(c)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil // in the mode that the descriptor has
}
