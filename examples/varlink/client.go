//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// maxRequest is the length of the longest request, which is far more than any has.
const maxRequest = 64 << 10

// A client is a connection, and the process that opened it. It is not a *net.UnixConn to the
// Varlink library, which therefore receives no descriptors: the interface has no use for any.
type client struct {
	*net.UnixConn
	peer    *sysfd.PidFD
	peerErr error         // why there is no peer
	user    syscall.Ucred // whose process it was when it opened the connection
	userErr error         // why there is no user
	begun   int           // bytes of a request whose end has not come yet
}

func newClient(conn *net.UnixConn) *client {
	c := &client{UnixConn: conn}
	c.peer, c.peerErr = sysfd.PeerPidFD(conn)
	c.user, c.userErr = sysfd.PeerCredentials(conn)
	return c
}

// release is for when the connection is closed.
func (c *client) release() {
	if c.peer != nil {
		c.peer.Close()
	}
}

// Read is limited because the library reads on until a request ends.
func (c *client) Read(b []byte) (int, error) {
	n, err := c.UnixConn.Read(b)
	if end := bytes.LastIndexByte(b[:n], 0); end >= 0 {
		c.begun = n - end - 1
	} else if c.begun += n; c.begun > maxRequest {
		return n, errors.New("the request is too long")
	}
	return n, err
}

// untilGone returns a context that is done when the client has closed the connection. The library
// does not look while a request is answered. What the client sends in the meantime stays unread,
// and a client that only ends what it sends, with shutdown(2), still gets its answer. stop must be
// called before the library reads again.
func (c *client) untilGone(ctx context.Context) (_ context.Context, stop func(), err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer cancel()
		raw.Read(func(fd uintptr) bool {
			poll := []unix.PollFd{{Fd: int32(fd)}}
			_, err := unix.Poll(poll, 0)
			return err == nil && poll[0].Revents&unix.POLLHUP != 0
		})
	}()
	return ctx, func() {
		c.SetReadDeadline(time.Unix(1, 0))
		<-watched
		c.SetReadDeadline(time.Time{})
	}, nil
}
