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

// Sockets are descriptors that were passed to a program, each of which can be taken once.
// The functions of this package that have the name of a method are this method for those that were
// passed to this process. The zero value has none.
//
// Its methods may be called from several goroutines at once.
type Sockets struct {
	take func(choose func(left []*os.File) ([]*os.File, error)) ([]*os.File, error)
}

// passed are those of this process.
var passed = Sockets{take: sysfd.TakeListenFDsFunc}

// From returns files as Sockets, as if they had been passed in this order and under their
// names. It is for tests of a program within one process, and for descriptors that come another
// way. [sysfd.DupFile] gives a file its name. The files belong to the Sockets from now on.
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

// Listeners returns a listener for each passed socket that listens and has one of the
// names, or without names for each one that listens. They are in the order in which they were
// passed; to tell names apart, call it with one at a time, or call [ListenersWithNames].
//
// What has been returned once, here or by another function that takes descriptors, is not
// returned again. A name that none has is no error; the result is then empty. Sockets of
// datagrams stay for [PacketConns]: one .socket unit gives all its sockets one name.
//
// Each listener is the only owner of its socket: once it is closed nobody listens, unless the
// service manager or another process has the socket, too. See the package documentation
// for what that means for the path of a Unix socket and for passing the socket on.
//
// Errors, with which nothing is taken, and everything is open as before: those of
// [sysfd.ListenFDs]. EINVAL, with the name and what it is, if one of the names has what is
// neither a socket that listens nor one of datagrams, such as a connection (Accept=yes of
// systemd.socket(5)) or a FIFO, or has only datagrams. EMFILE, ENFILE and ENOMEM
// if they keep package net from making the listener: the call can be repeated.
func Listeners(names ...string) ([]net.Listener, error) { return passed.Listeners(names...) }

// Listeners is the function [Listeners] for s.
func (s *Sockets) Listeners(names ...string) ([]net.Listener, error) {
	listeners, _, err := takeAs(s, names, 0, listening, net.FileListener)
	return listeners, err
}

// ListenersWithNames is [Listeners] without names. It returns the listeners by name, those
// of one name in the order in which they were passed.
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

// PacketConns is [Listeners] for sockets of datagrams: UDP, datagram Unix sockets, and raw IP
// sockets.
func PacketConns(names ...string) ([]net.PacketConn, error) { return passed.PacketConns(names...) }

// PacketConns is the function [PacketConns] for s.
func (s *Sockets) PacketConns(names ...string) ([]net.PacketConn, error) {
	conns, _, err := takeAs(s, names, 0, datagrams, net.FilePacketConn)
	return conns, err
}

// Unclaimed returns the descriptors that nobody has taken so far, under their names, and
// takes them: they are the caller's, to use or to close. Call it when everything is taken that the
// program knows. What then is left is a mistake in the .socket unit or in the program, and
// clients of a socket that stays open and unused wait in vain.
//
// Errors: those of [sysfd.ListenFDs].
func Unclaimed() ([]*os.File, error) { return passed.Unclaimed() }

// Unclaimed is the function [Unclaimed] for s.
func (s *Sockets) Unclaimed() ([]*os.File, error) {
	return s.choose(func(left []*os.File) ([]*os.File, error) { return slices.DeleteFunc(left, isClosed), nil })
}

func isClosed(f *os.File) bool {
	conn, err := f.SyscallConn()
	return err != nil || conn.Control(func(uintptr) {}) != nil // which is the only reason
}

func (s *Sockets) choose(choose func(left []*os.File) ([]*os.File, error)) ([]*os.File, error) {
	if s.take == nil {
		return nil, nil
	}
	return s.take(choose)
}

// takeAs takes the sockets of a kind that have one of the names, or without names all, and makes
// something of them that owns them. It returns their names as well. More than atMost are an
// error, if that is not 0.
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
	// Package net has made duplicates, which are not to be outlived.
	for _, f := range files {
		f.Close()
	}
	return made, of, nil
}

// pick returns the files of a kind that have one of the names, or without names all of this kind.
func pick(left []*os.File, names []string, want kind) (chosen []*os.File, err error) {
	others := map[string]error{} // by name: what is not of this kind
	for _, f := range left {
		if len(names) > 0 && !slices.Contains(names, f.Name()) {
			continue
		}
		is, err := kindOf(f)
		switch {
		case errors.Is(err, os.ErrClosed): // as good as taken
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
	is := func(domain, typ, listening int) func() (bool, error) {
		return func() (bool, error) { return sysfd.IsSocket(f, domain, typ, listening) }
	}
	inet := func(typ int) func() (bool, error) {
		return func() (bool, error) { return sysfd.IsSocketInet(f, 0, typ, -1, 0) }
	}
	not := func(f func() (bool, error)) func() (bool, error) {
		return func() (bool, error) { is, err := f(); return !is, err }
	}
	for _, ask := range []struct {
		is   func() (bool, error)
		kind kind
	}{ // the first that holds
		{not(is(0, 0, -1)), noSocket},
		{is(syscall.AF_UNIX, syscall.SOCK_SEQPACKET, 1), listening},
		{is(syscall.AF_UNIX, syscall.SOCK_STREAM, 1), listening},
		{is(syscall.AF_UNIX, syscall.SOCK_DGRAM, -1), datagrams},
		{is(syscall.AF_UNIX, 0, -1), connected},
		{not(inet(0)), foreign},
		{is(0, syscall.SOCK_STREAM, 1), listening},
		{inet(syscall.SOCK_DGRAM), datagrams},
		{inet(syscall.SOCK_RAW), datagrams},
		{inet(syscall.SOCK_STREAM), connected},
	} {
		if is, err := ask.is(); is || err != nil {
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

// A kindError says that a socket is not what it is taken for.
type kindError struct{ is, want kind }

func (e *kindError) Error() string { return string(e.is) + ", want " + string(e.want) }

func (e *kindError) Unwrap() error { return syscall.EINVAL }
