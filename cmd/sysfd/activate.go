//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/stale"
)

// An activation is what the arguments of activate say.
type activation struct {
	*call
	program   string
	addresses []socketAddress
	names     []string   // of these
	received  []*os.File // from whoever activated this command
	reason    string     // why none were
	environ   []string   // of -E

	now, accept, inetd, quiet bool
	most                      uint // connections
}

func activate(c *call) error {
	a, err := parseActivation(c)
	if err != nil {
		return err
	}
	if err := room(8 + 2*len(a.addresses)); err != nil {
		return err
	}
	var s openSockets
	decide := s.watchSignals()
	err = a.run(&s, decide)
	decide()
	s.remove()
	return err
}

func parseActivation(c *call) (*activation, error) {
	a := &activation{call: c}
	var words []string // of -l
	c.Func("l", "listen on `[KIND:]ADDRESS`", func(s string) error {
		words = append(words, s)
		_, err := parseAddress(s, "stream") // a flag that follows may say another kind
		return err
	})
	datagram := c.Bool("d", false, "make datagram sockets instead of stream sockets for each ADDRESS without a KIND")
	seqpacket := c.Bool("seqpacket", false, "make seqpacket sockets instead of stream sockets for each ADDRESS without a KIND")
	fdnames := c.String("fdname", "", "the `NAMES` of the sockets, separated by colons, or one name for all")
	c.BoolVar(&a.now, "now", false, "do not wait for traffic")
	c.BoolVar(&a.accept, "accept", false, "start PROGRAM for each connection, and pass it the connection, named \"connection\" unless -fdname gives another name. REMOTE_ADDR and REMOTE_PORT are set to the address of the client, if that is an IP or vsock address")
	c.UintVar(&a.most, "max-connections", 64, "with -accept, run at most `NUMBER` programs at a time; further connections wait")
	c.BoolVar(&a.inetd, "inetd", false, "pass the only socket, or with -accept the connection, as standard input and standard output")
	c.BoolVar(&a.quiet, "q", false, "print nothing unless something fails")
	c.Func("E", "set `NAME=VALUE` in the environment of PROGRAM", func(s string) error {
		name, _, ok := strings.Cut(s, "=")
		switch {
		case !ok || name == "":
			return errors.New("not NAME=VALUE")
		case isListenVar(name):
			return errors.New("activate sets this variable itself")
		}
		a.environ = append(a.environ, s)
		return nil
	})
	c.ignoreSignalFlag()
	if err := c.parse(); err != nil {
		return nil, err
	}
	kind := "stream"
	switch {
	case *datagram && *seqpacket:
		return nil, usageError("-d and -seqpacket exclude each other")
	case *datagram:
		kind = "datagram"
	case *seqpacket:
		kind = "seqpacket"
	}
	for _, s := range words {
		address, err := parseAddress(s, kind)
		if err != nil {
			return nil, usageError(fmt.Sprintf("-l %q: %v", s, err))
		}
		a.addresses = append(a.addresses, address)
	}
	// Before anything else opens a descriptor.
	received, err := sysfd.ListenFDs()
	a.received = received
	env := sysfd.InspectListenEnv()
	for _, v := range env.Environ {
		if len(received) == 0 && strings.HasPrefix(v, "LISTEN_FDS=") {
			a.reason = env.Reason
		}
	}
	switch {
	case len(a.addresses) == 0 && len(received) == 0 && err == nil:
		return nil, usageError("-l ADDRESS is missing, and no socket was passed to this process: " + env.Reason)
	case c.NArg() == 0:
		return nil, usageError("a PROGRAM is missing")
	case *fdnames != "" && len(a.addresses) == 0:
		return nil, usageError("-fdname names the sockets of -l, and there are none; sockets that were passed keep their names")
	case a.inetd && *fdnames != "":
		return nil, usageError("-inetd passes no names, and excludes -fdname")
	case a.inetd && !a.accept && len(a.addresses)+len(received) > 1:
		return nil, usageError(fmt.Sprintf("-inetd without -accept passes one socket, and there are %d", len(a.addresses)+len(received)))
	case a.accept && a.now:
		return nil, usageError("-accept waits for connections, and excludes -now")
	case a.most == 0:
		return nil, usageError("-max-connections must be more than 0")
	}
	if a.accept {
		for _, to := range a.addresses {
			if to.network == "udp" || to.network == "unixgram" {
				return nil, usageError(fmt.Sprintf("%q: datagram sockets have no connections to accept", to.address))
			}
		}
	}
	unnamed := "unknown"
	if a.accept {
		unnamed = "connection"
	}
	var errUsage error
	if a.names, errUsage = socketNames(*fdnames, unnamed, len(a.addresses)); errUsage != nil {
		return nil, errUsage
	}
	if err != nil {
		return nil, err
	}
	a.program, err = lookPath(c.Arg(0))
	return a, err
}

func (a *activation) run(s *openSockets, decide func()) error {
	say := a.say
	if a.quiet {
		say = func(string, ...any) {}
	}
	if a.reason != "" {
		a.say("the sockets that were passed to this command are not passed on: %s", a.reason)
	}
	for _, f := range a.received {
		info, err := describe(f)
		if err != nil {
			return err
		}
		if a.accept && (info.SocketInfo == nil || !info.Listening) {
			return fmt.Errorf("descriptor %d, which was passed as %s, does not listen, so it has no connections to accept", info.FD, word(f.Name()))
		}
		say("was passed %s as %s", info.what(), word(f.Name()))
	}
	for i, address := range a.addresses {
		f, err := s.add(address, a.names[i])
		if err != nil {
			return err
		}
		info, err := describe(f)
		if err != nil {
			return err
		}
		say("listening on %s as %s", word(string(info.Address)), word(a.names[i]))
	}
	for _, e := range a.environ {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	files := slices.Concat(a.received, s.files)
	if a.accept {
		return a.serve(&server{program: a.program, inetd: a.inetd, most: a.most, say: say}, files)
	}
	if !a.now {
		if err := waitForTraffic(files); err != nil {
			return err
		}
	}
	decide()
	if a.inetd {
		return a.becomeInetd(files[0])
	}
	a.ignored.apply()
	return execError(sysfd.ExecListenFDs(a.program, a.Args(), os.Environ(), files))
}

// becomeInetd executes the program with a socket as its stdin and stdout. If that fails, neither of them refers to the
// socket any more.
func (a *activation) becomeInetd(socket *os.File) error {
	err := control(socket, standard)
	if err == nil {
		err = a.become(a.program, a.Args(), os.Environ())
	}
	if null, errNull := os.Open(os.DevNull); errNull == nil {
		standard(int(null.Fd()))
		null.Close()
	}
	return err
}

// room returns an error unless n more descriptors can be opened. The Go runtime ends the process if it cannot open its
// poller when it first needs it, so room makes it open that now.
func room(n int) error {
	var fds []int
	var err error
	for err == nil && len(fds) < n {
		var fd int
		if fd, err = unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	time.AfterFunc(time.Hour, func() {}).Stop()
	return nil
}

// standard makes a descriptor stdin and stdout.
func standard(fd int) error {
	for std := range 2 {
		if err := unix.Dup3(fd, std, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}

// openSockets are the sockets that this process has made. Their files are removed if the program is not executed.
type openSockets struct {
	files  []*os.File
	paths  []string
	adding sync.Mutex
}

func (s *openSockets) add(a socketAddress, name string) (f *os.File, err error) {
	path := a.path()
	if path == "" { // it leaves no file, and looking up a host can take long
		if f, err = bind(a, name); err != nil {
			return nil, err
		}
	}
	s.adding.Lock() // a signal waits until the file is in s.paths
	defer s.adding.Unlock()
	if path != "" {
		if f, err = bind(a, name); err != nil {
			return nil, err
		}
		s.paths = append(s.paths, path)
	}
	s.files = append(s.files, f)
	return f, nil
}

func (s *openSockets) remove() {
	for _, f := range s.files {
		f.Close()
	}
	for _, path := range s.paths {
		// The file is stale now, or as soon as another goroutine ends its last call on the socket, unless another
		// process has taken the path.
		for end := time.Now().Add(200 * time.Millisecond); stale.Remove(path) == unix.EADDRINUSE && time.Now().Before(end); {
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// watchSignals removes the sockets when a signal ends this process. The function that it returns ends the watch, and
// does not return if a signal came before.
func (s *openSockets) watchSignals() (end func()) {
	signals := make(chan os.Signal, 1)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	ended := make(chan struct{})
	go func() {
		sig, ok := <-signals
		if !ok {
			close(ended)
			return
		}
		s.adding.Lock()
		s.remove()
		if os.Getpid() != 1 { // the kernel does not end process 1 by a signal without a handler
			signal.Reset(sig)
			syscall.Kill(os.Getpid(), sig.(syscall.Signal))
			time.Sleep(time.Second)
		}
		os.Exit(128 + int(sig.(syscall.Signal))) // as in a shell
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(signals)
		<-ended
	})
}

// socketNames returns a name for each of n sockets.
func socketNames(list, unnamed string, n int) ([]string, error) {
	if list == "" {
		list = unnamed
	}
	names := strings.Split(list, ":")
	if len(names) == 1 {
		for len(names) < n {
			names = append(names, names[0])
		}
	}
	if len(names) != max(n, 1) {
		return nil, usageError(fmt.Sprintf("-fdname %q has %s for %s", list, count(len(names), "name", "names"), count(n, "address", "addresses")))
	}
	for _, name := range names {
		if !sysfd.ValidFDName(name) {
			return nil, usageError(fmt.Sprintf("-fdname %q is not a valid name for a socket", name))
		}
	}
	return names, nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}
