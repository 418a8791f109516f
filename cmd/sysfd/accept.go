//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
)

func init() {
	// Process 1 of a container reaps orphans, which only the main thread may do.
	if os.Getpid() == 1 {
		runtime.LockOSThread()
	}
}

// A server runs a program for each connection.
type server struct {
	program string
	inetd   bool
	most    uint
	say     func(format string, args ...any)
	slots   chan struct{} // holds one value for each program that runs
}

// serve accepts connections until accepting fails.
func (c *call) serve(s *server, listeners []*os.File) error {
	s.slots = make(chan struct{}, s.most)
	accepts := make([]func() error, len(listeners))
	for i, l := range listeners {
		// Before any connection, because later there may be no descriptor left for it.
		wait, end, err := traffic([]*os.File{l})
		if err != nil {
			return err
		}
		accepts[i] = func() error { defer end(); return c.acceptFrom(s, l, wait) }
	}
	ended := make(chan error, len(listeners))
	for _, accept := range accepts {
		go func() { ended <- accept() }()
	}
	if os.Getpid() != 1 {
		return <-ended
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() { cancel(<-ended) }()
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, syscall.SIGCHLD)
	defer signal.Stop(sigchld)
	err := sysfd.ReapOrphans(ctx, sigchld, func(sysfd.Orphan) {})
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// scarce reports whether an error passes when other programs end.
func scarce(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// tooMany reports whether a program may start once others have ended. EBADF is what package syscall
// returns if the descriptor that it needs in the new process is beyond the limit.
func tooMany(err error) bool { return scarce(err) || errors.Is(err, unix.EBADF) }

// lower moves a file to a lower descriptor if one is free. A new process needs one that is above the file's and below
// the limit, even if all the others have been closed since the file was opened.
func lower(f *os.File) *os.File {
	low, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return f
	}
	if low > int(f.Fd()) {
		unix.Close(low)
		return f
	}
	defer f.Close()
	return os.NewFile(uintptr(low), f.Name())
}

// acceptFrom accepts the connections of one socket. wait returns when there is one.
func (c *call) acceptFrom(s *server, l *os.File, wait func() error) error {
	for {
		// Waiting within accept4 would keep the socket in use, and its file could not be removed.
		if err := wait(); err != nil {
			return err
		}
		var fd int
		err := control(l, func(socket int) (err error) {
			fd, _, err = unix.Accept4(socket, unix.SOCK_CLOEXEC)
			return err
		})
		switch err {
		case nil:
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			c.say("accept4: %v", err)
			time.Sleep(time.Second) // until other programs have ended
			continue
		case unix.EBADF, unix.EINVAL, unix.ENOTSOCK, unix.EOPNOTSUPP, unix.EFAULT, unix.EPERM, unix.ENOSYS:
			return os.NewSyscallError("accept4", err)
		default:
			continue // an error of the connection, not of the socket; see accept(2)
		}
		conn := os.NewFile(uintptr(fd), l.Name())
		s.slots <- struct{}{}
		err = c.startFor(s, conn)
		for said := false; tooMany(err); err = c.startFor(s, conn) {
			if lowered := lower(conn); lowered != conn {
				conn = lowered
				continue
			}
			if len(s.slots) <= 1 {
				break
			}
			if !said {
				c.say("%v; the connection waits until another program has ended", err)
				said = true
			}
			time.Sleep(100 * time.Millisecond)
		}
		conn.Close()
		if err != nil {
			<-s.slots
			c.say("%v", err)
			var p programError
			if errors.As(err, &p) {
				continue
			}
			time.Sleep(100 * time.Millisecond) // there may be too many processes
		}
	}
}

// startFor starts the program for a connection.
func (c *call) startFor(s *server, conn *os.File) error {
	info, err := describe(conn)
	if err != nil {
		return err
	}
	peer := "an unnamed socket"
	if info.peer != "" {
		peer = word(info.peer)
	}
	environ := withoutRemote(os.Environ())
	control(conn, func(fd int) error { environ = append(environ, remote(fd)...); return nil })
	program, argv := s.program, c.Args()
	if len(c.ignored) > 0 {
		// A process that is started here does not inherit which signals are ignored.
		argv = slices.Concat([]string{"sysfd", "exec"}, c.ignored.words(), []string{"--", program}, argv[1:])
		program = thisProgram()
	}
	attr := &os.ProcAttr{Env: environ, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	var p *sysfd.PidFD
	if s.inetd {
		attr.Files[0], attr.Files[1] = conn, conn
		p, err = sysfd.StartProcess(program, argv, attr)
	} else {
		p, err = sysfd.StartListenFDs(program, argv, attr, []*os.File{conn})
	}
	if err != nil {
		return fmt.Errorf("connection from %s: %w", peer, execError(err))
	}
	name := "the process"
	if pid, err := p.PID(); err == nil {
		name = fmt.Sprintf("process %d", pid)
	}
	s.say("%s has the connection from %s to %s", name, peer, word(string(info.Address)))
	go func() {
		defer func() { <-s.slots }() // once the descriptor is closed, which the next connection may need
		defer p.Close()
		r, err := p.Wait(context.Background(), 0)
		for scarce(err) {
			time.Sleep(100 * time.Millisecond)
			r, err = p.Wait(context.Background(), 0)
		}
		if err != nil {
			c.say("%s: %v", name, err)
		} else if !(r.Ended && r.Unknown == nil && r.Status.ExitStatus() == 0) {
			s.say("%s: %v", name, r)
		}
	}()
	return nil
}

func withoutRemote(environ []string) []string {
	return slices.DeleteFunc(environ, func(e string) bool {
		return strings.HasPrefix(e, "REMOTE_ADDR=") || strings.HasPrefix(e, "REMOTE_PORT=")
	})
}

// remote returns the variables for the address of the peer, as systemd sets them, if that is an IP or vsock address.
func remote(fd int) []string {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return nil // the peer is gone
	}
	vars := func(addr string, port any) []string {
		return []string{"REMOTE_ADDR=" + addr, fmt.Sprint("REMOTE_PORT=", port)}
	}
	switch peer := peer.(type) {
	case *unix.SockaddrInet4:
		return vars(netip.AddrFrom4(peer.Addr).String(), peer.Port)
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(peer.Addr).Unmap()
		if peer.ZoneId != 0 {
			zone := fmt.Sprint(peer.ZoneId)
			if i, err := net.InterfaceByIndex(int(peer.ZoneId)); err == nil {
				zone = i.Name
			}
			ip = ip.WithZone(zone)
		}
		return vars(ip.String(), peer.Port)
	case *unix.SockaddrVM:
		return vars(fmt.Sprint("vsock:", peer.CID), peer.Port)
	}
	return nil
}
