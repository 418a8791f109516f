//go:build !plan9

package activation

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/sysfd/sysfd"
)

// Sockets are descriptors that were passed to a program. Each can be taken once. The functions of
// this package are the methods of the same names, for the sockets passed to this process. The zero
// value has no sockets. Its methods can be called from several goroutines at once.
type Sockets struct {
	take func(choose func(left []*os.File) ([]*os.File, error)) ([]*os.File, error)
}

// passed are the sockets of this process.
var passed = Sockets{take: sysfd.TakeListenFDsFunc}

// From returns files as Sockets, as if they had been passed in this order and with their names. It
// is for tests of a program within one process, and for descriptors that come in another way.
// [sysfd.DupFile] gives a file its name. The files then belong to the Sockets.
func From(files ...*os.File) *Sockets {
	var mu sync.Mutex
	left := slices.Clone(files)
	return &Sockets{take: func(choose func([]*os.File) ([]*os.File, error)) ([]*os.File, error) {
		mu.Lock()
		defer mu.Unlock()
		chosen, err := choose(slices.Clone(left))
		if err != nil {
			return nil, err
		}
		var taken []*os.File
		left = slices.DeleteFunc(left, func(f *os.File) bool {
			is := slices.Contains(chosen, f)
			if is {
				taken = append(taken, f)
			}
			return is
		})
		return taken, nil
	}}
}

// Listeners returns a listener for each passed socket that listens and has one of the names;
// without names, for each that listens. They are in the order in which they were passed. To tell
// the names apart, call it with one name at a time, or call [ListenersWithNames].
//
// Listeners returns nothing that this or another function has already taken. If no socket has one
// of the names, the result is empty, without an error. Datagram sockets are left for [PacketConns],
// because a .socket unit gives all its sockets one name.
//
// Each listener is the only owner of its socket: once it is closed, nobody listens, unless the
// service manager or another process has the socket too. See the package documentation for the path
// of a Unix socket, and for passing a socket on.
//
// Errors, after which nothing is taken and everything is open as before:
//   - those of [sysfd.ListenFDs];
//   - EINVAL if a descriptor with one of the names is neither a listening nor a datagram socket,
//     such as a connection (Accept=yes of systemd.socket(5)) or a FIFO, or if a name has only
//     datagram sockets. The error contains the name and what it is;
//   - EMFILE, ENFILE and ENOMEM if they keep package net from making a listener. The call can be
//     repeated.
func Listeners(names ...string) ([]net.Listener, error) { return passed.Listeners(names...) }

// Listeners is the function [Listeners] for s.
func (s *Sockets) Listeners(names ...string) ([]net.Listener, error) {
	listeners, _, err := takeAs(s, names, 0, listening, net.FileListener)
	return listeners, err
}

// ListenersWithNames is [Listeners] without names. It returns the listeners by name, those with the
// same name in the order in which they were passed.
func ListenersWithNames() (map[string][]net.Listener, error) { return passed.ListenersWithNames() }

// ListenersWithNames is the function [ListenersWithNames] for s.
func (s *Sockets) ListenersWithNames() (map[string][]net.Listener, error) {
	listeners, names, err := takeAs(s, nil, 0, listening, net.FileListener)
	if err != nil {
		return nil, err
	}
	byName := map[string][]net.Listener{}
	for i, l := range listeners {
		byName[names[i]] = append(byName[names[i]], l)
	}
	return byName, nil
}

// PacketConns is [Listeners] for datagram sockets: UDP, datagram Unix sockets, and raw IP sockets.
func PacketConns(names ...string) ([]net.PacketConn, error) { return passed.PacketConns(names...) }

// PacketConns is the function [PacketConns] for s.
func (s *Sockets) PacketConns(names ...string) ([]net.PacketConn, error) {
	conns, _, err := takeAs(s, names, 0, datagrams, net.FilePacketConn)
	return conns, err
}

// Unclaimed takes and returns the descriptors that have not been taken yet. Their files have the
// names of the descriptors, and belong to the caller. Call it after everything that the program
// knows has been taken. What is left then is a mistake in the .socket unit or in the program; if
// such a socket stays open unused, its clients wait in vain.
//
// Errors: those of [sysfd.ListenFDs].
func Unclaimed() ([]*os.File, error) { return passed.Unclaimed() }

// Unclaimed is the function [Unclaimed] for s.
func (s *Sockets) Unclaimed() ([]*os.File, error) {
	return s.choose(func(left []*os.File) ([]*os.File, error) { return slices.DeleteFunc(left, isClosed), nil })
}

func isClosed(f *os.File) bool {
	conn, err := f.SyscallConn()
	return err != nil || conn.Control(func(uintptr) {}) != nil // closed is the only reason for that
}

func (s *Sockets) choose(choose func(left []*os.File) ([]*os.File, error)) ([]*os.File, error) {
	if s.take == nil {
		return nil, nil
	}
	return s.take(choose)
}

// takeAs takes the sockets of a kind that have one of the names, or without names all of that kind.
// It makes something of each that owns it, and returns that with the names. If atMost is not 0,
// more sockets are an error.
func takeAs[T io.Closer](s *Sockets, names []string, atMost int, want kind, from func(*os.File) (T, error)) (made []T, of []string, err error) {
	files, err := s.choose(func(left []*os.File) (chosen []*os.File, err error) {
		chosen, err = pick(left, names, want)
		if atMost > 0 && len(chosen) > atMost {
			return nil, &socketError{chosen[0].Name(), errSeveral}
		}
		for _, f := range chosen {
			t, err := from(f)
			if err != nil {
				return nil, &socketError{f.Name(), err}
			}
			made, of = append(made, t), append(of, f.Name())
		}
		return chosen, err
	})
	if err != nil {
		for _, t := range made {
			t.Close()
		}
		return nil, nil, err
	}
	// Package net has made duplicates, and these would keep the sockets open.
	for _, f := range files {
		f.Close()
	}
	return made, of, nil
}

// pick returns the files of a kind that have one of the names, or without names all of that kind.
func pick(left []*os.File, names []string, want kind) (chosen []*os.File, err error) {
	others := map[string]error{} // by name: what is not of this kind
	for _, f := range left {
		if len(names) > 0 && !slices.Contains(names, f.Name()) {
			continue
		}
		is, err := kindOf(f)
		switch {
		case errors.Is(err, os.ErrClosed): // taken, in effect
		case err != nil:
			return nil, &socketError{f.Name(), err}
		case is == want:
			chosen = append(chosen, f)
		case len(names) > 0:
			err := &socketError{f.Name(), &kindError{is, want}}
			if is != listening && is != datagrams {
				return nil, err
			}
			others[f.Name()] = err
		}
	}
	for _, f := range chosen {
		delete(others, f.Name())
	}
	for _, name := range names {
		if err := others[name]; err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// A kind is what package net can make of a descriptor.
type kind string

const (
	listening kind = "a listening socket"
	datagrams kind = "a datagram socket"
	connected kind = "a connection, or a stream socket that does not listen"
	foreign   kind = "a socket that package net does not support"
	noSocket  kind = "not a socket"
)

func kindOf(f *os.File) (kind, error) {
	inet := func(f *os.File, domain, typ, listening int) (bool, error) {
		return sysfd.IsSocketInet(f, domain, typ, listening, 0)
	}
	for _, ask := range []struct {
		is                     func(f *os.File, domain, typ, listening int) (bool, error)
		domain, typ, listening int
		want                   bool
		kind                   kind
	}{ // the first that holds
		{sysfd.IsSocket, 0, 0, -1, false, noSocket},
		{sysfd.IsSocket, syscall.AF_UNIX, syscall.SOCK_SEQPACKET, 1, true, listening},
		{sysfd.IsSocket, syscall.AF_UNIX, syscall.SOCK_STREAM, 1, true, listening},
		{sysfd.IsSocket, syscall.AF_UNIX, syscall.SOCK_DGRAM, -1, true, datagrams},
		{sysfd.IsSocket, syscall.AF_UNIX, 0, -1, true, connected},
		{inet, 0, 0, -1, false, foreign},
		{sysfd.IsSocket, 0, syscall.SOCK_STREAM, 1, true, listening},
		{inet, 0, syscall.SOCK_DGRAM, -1, true, datagrams},
		{inet, 0, syscall.SOCK_RAW, -1, true, datagrams},
		{inet, 0, syscall.SOCK_STREAM, -1, true, connected},
	} {
		if is, err := ask.is(f, ask.domain, ask.typ, ask.listening); is == ask.want || err != nil {
			return ask.kind, err
		}
	}
	return foreign, nil
}

// A socketError is about the socket of a name.
type socketError struct {
	name string
	err  error
}

func (e *socketError) Error() string {
	return "passed socket " + strconv.Quote(e.name) + ": " + e.err.Error()
}

func (e *socketError) Unwrap() error { return e.err }

type inputError string

func (e inputError) Error() string { return string(e) }

func (e inputError) Unwrap() error { return syscall.EINVAL }

const errSeveral inputError = "more than one socket has this name"

// A kindError says that a socket is not what the caller wants.
type kindError struct{ is, want kind }

func (e *kindError) Error() string { return string(e.is) + ", want " + string(e.want) }

func (e *kindError) Unwrap() error { return syscall.EINVAL }
