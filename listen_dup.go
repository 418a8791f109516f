//go:build !plan9

package sysfd

import (
	"os"
	"syscall"
)

// DupFile returns a close-on-exec duplicate of the descriptor of c under a name of the
// caller's choice, to be passed on: with [ExecListenFDs], StartListenFDs or NotifyStoreFDs. c is
// a listener or connection of package net, an [os.File], a *PidFD, or what else has a
// descriptor. c stays as it is, and open.
//
// The files that package net returns have names such as "tcp:127.0.0.1:80->", under which
// they cannot be passed, and an os.File cannot be renamed. Their method Fd puts the
// socket into blocking mode; that mode belongs to the socket, which the listener shares, so its
// Accept then cannot be interrupted. DupFile leaves the mode alone, and so does the method Fd
// of the file that it returns.
//
// Before a listener of a Unix socket is closed whose duplicate has been passed on, call its
// method [net.UnixListener.SetUnlinkOnClose] with false. Otherwise Close removes the path,
// although the socket is still in use, and no client reaches the successor. Only a listener that
// package net has bound does that, not one that it has made of a passed file.
//
// Errors: [os.ErrInvalid] if c is nil; [os.ErrClosed] if it is closed, and [net.ErrClosed] if
// it is one of package net; EMFILE and ENFILE if there is no descriptor left. One that matches
// [errors.ErrUnsupported] on systems that are no Unix.
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
