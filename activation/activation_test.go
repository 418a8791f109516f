//go:build linux

package activation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/overdue"
	"github.com/sysfd/sysfd/internal/rights"
)

const childVar = "SYSFD_TEST_ACTIVATION"

// children are what the test binary does when it is started as a child, with passed descriptors.
// They print what they return.
var children = map[string]func() (any, error){}

func TestMain(m *testing.M) {
	sysfd.ListenShim()
	name := os.Getenv(childVar)
	if name == "" {
		overdue.Report()
		os.Exit(m.Run())
	}
	v, err := children[name]()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(v)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// keepsDescriptors fails the test if there are other descriptors at its end than now.
func keepsDescriptors(t *testing.T) {
	t.Helper()
	rights.Proc(t)
	open := func() (open []string) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if what, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(what, "anon_inode:") {
				open = append(open, what)
			}
		}
		slices.Sort(open)
		return open
	}
	before := open()
	t.Cleanup(func() {
		if after := open(); !slices.Equal(before, after) && !t.Failed() {
			t.Errorf("descriptors: %q, before: %q", after, before)
		}
	})
}

// passable returns a file under a name for what a test has made, which it closes.
func passable(t *testing.T, c syscall.Conn, name string) *os.File {
	t.Helper()
	f, err := sysfd.DupFile(c, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	switch c := c.(type) {
	case *net.UnixListener:
		c.SetUnlinkOnClose(false)
		c.Close()
	case interface{ Close() error }:
		c.Close()
	}
	return f
}

func listen(t *testing.T, network, address string) syscall.Conn {
	t.Helper()
	var s any
	var err error
	if strings.HasPrefix(network, "udp") || network == "unixgram" {
		s, err = net.ListenPacket(network, address)
	} else {
		s, err = net.Listen(network, address)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.(syscall.Conn)
}

func rawSocket(t *testing.T, domain, typ, protocol int) *os.File {
	t.Helper()
	fd, err := syscall.Socket(domain, typ|syscall.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Skip(os.NewSyscallError("socket", err))
	}
	return os.NewFile(uintptr(fd), "")
}

// kinds returns one of each kind, under names that tell what it is: l… listens, d… is for
// datagrams, and o… is something else.
func kinds(t *testing.T) []*os.File {
	t.Helper()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(path string, flags int) *os.File {
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(pair[1])
	l := listen(t, "tcp", "127.0.0.1:0").(net.Listener)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var raw []*os.File
	if fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_ICMP); err == nil { // it takes root
		raw = append(raw, passable(t, os.NewFile(uintptr(fd), ""), "d-raw"))
	}
	return append(raw,
		passable(t, l.(syscall.Conn), "l-tcp"),
		passable(t, open(fifo, os.O_RDWR), "o-fifo"),
		passable(t, listen(t, "udp", "127.0.0.1:0"), "d-udp"),
		passable(t, c.(syscall.Conn), "o-connected"),
		passable(t, listen(t, "unix", filepath.Join(dir, "l")), "l-unix"),
		passable(t, listen(t, "unixpacket", filepath.Join(dir, "p")), "l-unixpacket"),
		passable(t, listen(t, "unix", "@"+filepath.Join(dir, "abstract")), "l-abstract"),
		passable(t, listen(t, "unixgram", filepath.Join(dir, "d")), "d-unixgram"),
		passable(t, os.NewFile(uintptr(pair[0]), ""), "o-pair"),
		passable(t, rawSocket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, 0), "o-unbound"),
		passable(t, rawSocket(t, syscall.AF_INET, syscall.SOCK_STREAM, 0), "o-unbound-tcp"),
		passable(t, rawSocket(t, syscall.AF_NETLINK, syscall.SOCK_RAW, 0), "o-netlink"),
		passable(t, open("/dev/null", os.O_RDWR), "o-null"),
		passable(t, open(filepath.Join(dir, "l"), 0x200000|os.O_RDONLY), "o-path"), // O_PATH
		passable(t, open(dir, os.O_RDONLY), "o-directory"),
		passable(t, listen(t, "tcp", "[::]:0"), "l-tcp6"),
	)
}

func names(files []*os.File) (names []string) {
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func beginning(files []*os.File, with string) (some []string) {
	for _, name := range names(files) {
		if strings.HasPrefix(name, with) {
			some = append(some, name)
		}
	}
	return some
}

// closeAll closes what was made, and returns an error if one was closed already.
func closeAll[T interface{ Close() error }](made []T) (err error) {
	for _, c := range made {
		err = errors.Join(err, c.Close())
	}
	return err
}

// isOpen tells whether a file has its descriptor.
func isOpen(f *os.File) bool {
	_, err := f.Stat()
	return !errors.Is(err, os.ErrClosed)
}

// Each kind comes from the function that is for it, and but once.
func TestKinds(t *testing.T) {
	keepsDescriptors(t)
	files := kinds(t)
	s := From(files...)
	for range 2 {
		conns, err := s.PacketConns()
		if want := len(beginning(files, "d")); err != nil || len(conns) != want {
			t.Fatalf("%d of %d, %v", len(conns), want, err)
		}
		listeners, err := s.Listeners()
		if want := len(beginning(files, "l")); err != nil || len(listeners) != want {
			t.Fatalf("%d of %d, %v", len(listeners), want, err)
		}
		if listeners[0].Addr().Network() != "tcp" || listeners[1].Addr().Network() != "unix" || listeners[4].Addr().Network() != "tcp" {
			t.Errorf("they are not in order: %v", listeners)
		}
		for _, f := range files {
			if isOpen(f) != strings.HasPrefix(f.Name(), "o") {
				t.Errorf("%s is open: %v", f.Name(), isOpen(f))
			}
		}
		if err := errors.Join(closeAll(conns), closeAll(listeners)); err != nil {
			t.Error(err)
		}
		if conns, err := s.PacketConns(); err != nil || len(conns) > 0 {
			t.Errorf("again: %v, %v", conns, err)
		}
		if listeners, err := s.Listeners(); err != nil || len(listeners) > 0 {
			t.Errorf("again: %v, %v", listeners, err)
		}
		left, err := s.Unclaimed()
		if !slices.Equal(names(left), beginning(files, "o")) || err != nil {
			t.Errorf("left: %q, %v", names(left), err)
		}
		if left, err := s.Unclaimed(); err != nil || len(left) > 0 {
			t.Errorf("again: %q, %v", names(left), err)
		}
		// The other way round.
		closeAll(left)
		files = kinds(t)
		s = From(files...)
	}
	closeAll(files)
}

// When the listener is closed, nobody listens.
func TestCloseEndsListening(t *testing.T) {
	keepsDescriptors(t)
	path := filepath.Join(t.TempDir(), "s")
	for _, where := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", path}, {"unixpacket", path + "p"}} {
		f := passable(t, listen(t, where[0], where[1]), "x")
		listeners, err := From(f).Listeners("x")
		if err != nil || len(listeners) != 1 {
			t.Fatal(listeners, err)
		}
		l := listeners[0]
		c, err := net.Dial(where[0], l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		accepted.Close()
		l.Close()
		if c, err := net.Dial(where[0], l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, %v", where[0], c, err)
		}
		if _, err := os.Lstat(where[1]); where[0] != "tcp" && err != nil {
			t.Error("the path is gone: ", err)
		}
	}
}

// By name: what does not listen is refused, and nothing is lost.
func TestNames(t *testing.T) {
	keepsDescriptors(t)
	files := kinds(t)
	s := From(files...)
	for _, f := range files {
		name := f.Name()
		if name[0] != 'l' {
			listeners, err := s.Listeners("l-tcp", name)
			if !errors.Is(err, syscall.EINVAL) || listeners != nil || !strings.Contains(err.Error(), `"`+name+`"`) {
				t.Errorf("listener of %s: %v, %v", name, listeners, err)
			}
		}
		if name[0] != 'd' {
			conns, err := s.PacketConns("d-udp", name)
			if !errors.Is(err, syscall.EINVAL) || conns != nil || !strings.Contains(err.Error(), `"`+name+`"`) {
				t.Errorf("packet connection of %s: %v, %v", name, conns, err)
			}
		}
	}
	for _, f := range files {
		if !isOpen(f) {
			t.Errorf("%s is closed", f.Name())
		}
	}
	for name, want := range map[string]string{
		"o-pair":        `passed socket "o-pair": a connection, or a stream socket that does not listen, want a listening socket`,
		"o-unbound-tcp": `passed socket "o-unbound-tcp": a connection, or a stream socket that does not listen, want a listening socket`,
		"o-netlink":     `passed socket "o-netlink": a socket that package net does not support, want a listening socket`,
		"o-path":        `passed socket "o-path": not a socket, want a listening socket`,
		"d-unixgram":    `passed socket "d-unixgram": a datagram socket, want a listening socket`,
	} {
		if _, err := s.Listeners(name); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if listeners, err := s.Listeners("none"); err != nil || len(listeners) > 0 {
		t.Error(listeners, err)
	}
	listeners, err := s.Listeners("l-unixpacket", "l-tcp", "none", "l-tcp")
	if err != nil || len(listeners) != 2 || listeners[0].Addr().Network() != "tcp" || listeners[1].Addr().Network() != "unixpacket" {
		t.Error(listeners, err)
	}
	closeAll(listeners)
	byName, err := s.ListenersWithNames()
	if err != nil || len(byName) != 3 {
		t.Error(byName, err)
	}
	for name, listeners := range byName {
		if len(listeners) != 1 || name[0] != 'l' || listeners[0].Addr().Network() != strings.NewReplacer("l-", "", "abstract", "unix", "tcp6", "tcp").Replace(name) {
			t.Error(name, listeners)
		}
		closeAll(listeners)
	}
	closeAll(files)
}

// One unit gives one name to all its sockets.
func TestOneNameForAll(t *testing.T) {
	keepsDescriptors(t)
	sockets := func() (files []*os.File) {
		for _, network := range []string{"udp", "tcp", "udp", "tcp"} {
			files = append(files, passable(t, listen(t, network, "127.0.0.1:0"), "web"))
		}
		return files
	}
	s := From(sockets()...)
	listeners, err := s.Listeners("web")
	if len(listeners) != 2 || err != nil {
		t.Error(listeners, err)
	}
	// What is left are datagrams.
	if listeners, err := s.Listeners("web"); !errors.Is(err, syscall.EINVAL) {
		t.Error(listeners, err)
	}
	conns, err := s.PacketConns("web")
	if len(conns) != 2 || err != nil {
		t.Error(conns, err)
	}
	closeAll(listeners)
	closeAll(conns)
	s = From(sockets()...)
	byName, err := s.ListenersWithNames()
	if len(byName["web"]) != 2 || err != nil {
		t.Error(byName, err)
	}
	closeAll(byName["web"])
	left, err := s.Unclaimed()
	if len(left) != 2 || err != nil {
		t.Error(left, err)
	}
	closeAll(left)

	// What is neither is not passed over.
	files := append(sockets(), passable(t, rawSocket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, 0), "web"))
	s = From(files...)
	if listeners, err := s.Listeners("web"); !errors.Is(err, syscall.EINVAL) {
		t.Error(listeners, err)
	}
	if conns, err := s.PacketConns("web"); !errors.Is(err, syscall.EINVAL) {
		t.Error(conns, err)
	}
	if left, err := s.Unclaimed(); len(left) != len(files) || err != nil {
		t.Error(left, err)
	}
	closeAll(files)
}

// If descriptors run out on the way, the call can be repeated.
func TestNothingIsLost(t *testing.T) {
	keepsDescriptors(t)
	var files []*os.File
	for range 5 {
		files = append(files, passable(t, listen(t, "tcp", "127.0.0.1:0"), "x"))
	}
	s := From(files...)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	free, err := sysfd.DupFile(files[0], "") // the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := free.SyscallConn()
	low := limit
	conn.Control(func(fd uintptr) { low.Cur = uint64(fd) + 2 })
	free.Close()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	listeners, err := s.Listeners("x")
	_, errOr := s.ListenersWithNames()
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	for _, err := range []error{err, errOr} {
		if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), `"x"`) || len(listeners) > 0 {
			t.Error(listeners, err)
		}
	}
	for _, f := range files {
		if !isOpen(f) {
			t.Error("it was closed")
		}
	}
	listeners, err = s.Listeners("x")
	if err != nil || len(listeners) != len(files) {
		t.Error(listeners, err)
	}
	closeAll(listeners)
}

// What someone has closed is no error.
func TestClosedFiles(t *testing.T) {
	keepsDescriptors(t)
	closed := passable(t, listen(t, "tcp", "127.0.0.1:0"), "x")
	closed.Close()
	s := From(closed, passable(t, listen(t, "tcp", "127.0.0.1:0"), "x"))
	for range 2 {
		listeners, err := s.Listeners("x")
		if err != nil || len(listeners) > 1 {
			t.Error(listeners, err)
		}
		closeAll(listeners)
	}
	f := passable(t, listen(t, "tcp", "127.0.0.1:0"), "y")
	s = From(closed, f)
	if files, err := s.Unclaimed(); err != nil || !slices.Equal(files, []*os.File{f}) {
		t.Error(files, err)
	}
	f.Close()
	var zero Sockets
	if listeners, err := zero.Listeners(); err != nil || len(listeners) > 0 {
		t.Error(listeners, err)
	}
	if byName, err := zero.ListenersWithNames(); err != nil || byName == nil || len(byName) > 0 {
		t.Error(byName, err)
	}
}

// Of many callers at once one gets each socket.
func TestCallersAtOnce(t *testing.T) {
	keepsDescriptors(t)
	for range 50 {
		var files []*os.File
		for _, network := range []string{"tcp", "udp", "tcp", "udp"} {
			files = append(files, passable(t, listen(t, network, "127.0.0.1:0"), network))
		}
		s := From(files...)
		var mu sync.Mutex
		count := map[string]int{}
		var group sync.WaitGroup
		for range 4 {
			for name, take := range map[string]func() (int, error){
				"tcp":   func() (int, error) { l, err := s.Listeners("tcp"); return len(l), errors.Join(err, closeAll(l)) },
				"other": func() (int, error) { l, err := s.Listeners(); return len(l), errors.Join(err, closeAll(l)) },
				"udp":   func() (int, error) { c, err := s.PacketConns(); return len(c), errors.Join(err, closeAll(c)) },
			} {
				group.Add(1)
				go func() {
					defer group.Done()
					n, err := take()
					mu.Lock()
					defer mu.Unlock()
					count[name] += n
					if err != nil {
						t.Error(err)
					}
				}()
			}
		}
		group.Wait()
		if count["tcp"]+count["other"] != 2 || count["udp"] != 2 {
			t.Fatal(count)
		}
	}
}

// A report is what a child found.
type report struct {
	Listeners, Conns, ByName, Named int
	Left                            []string
	Closed                          []bool // of what ListenFDs returns
	Errs                            []string
	Env                             []string
}

func init() {
	children["all"] = func() (any, error) {
		var r report
		note := func(err error) {
			if err != nil {
				r.Errs = append(r.Errs, err.Error())
			}
		}
		named, err := Listeners("first")
		note(err)
		conns, err := PacketConns()
		note(err)
		byName, err := ListenersWithNames()
		note(err)
		listeners, err := Listeners()
		note(err)
		left, err := Unclaimed()
		note(err)
		taken, err := sysfd.TakeListenFDs("second")
		note(err)
		files, err := sysfd.ListenFDs()
		note(err)
		for _, f := range files {
			r.Closed = append(r.Closed, !isOpen(f))
		}
		for _, s := range os.Environ() {
			if strings.HasPrefix(s, "LISTEN_") {
				r.Env = append(r.Env, s)
			}
		}
		r.Named, r.Conns, r.ByName, r.Listeners, r.Left = len(named), len(conns), len(byName), len(listeners)+len(taken), names(left)
		return r, nil
	}
}

// run runs a child that is passed the files, and decodes what it prints into v.
func run(t *testing.T, name string, env []string, files []*os.File, v any) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	attr := &os.ProcAttr{Files: []*os.File{null, w, w}, Env: append(os.Environ(), append(env, childVar+"="+name)...)}
	p, err := sysfd.StartListenFDs(os.Args[0], os.Args[:1], attr, files)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var text strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			break
		}
	}
	result, err := p.Wait(t.Context(), 0)
	if err != nil || result.String() != "exit status 0" {
		t.Fatalf("%v, %v: %s", result, err, &text)
	}
	if err := json.Unmarshal([]byte(text.String()), v); err != nil {
		t.Fatalf("%v in %s", err, &text)
	}
}

// The functions are the methods for what was passed to the process.
func TestProcess(t *testing.T) {
	keepsDescriptors(t)
	files := []*os.File{
		passable(t, listen(t, "tcp", "127.0.0.1:0"), "first"),
		passable(t, listen(t, "tcp", "127.0.0.1:0"), "second"),
		passable(t, listen(t, "udp", "127.0.0.1:0"), "third"),
		passable(t, rawSocket(t, syscall.AF_UNIX, syscall.SOCK_STREAM, 0), "fourth"),
	}
	var got report
	run(t, "all", nil, files, &got)
	want := report{Named: 1, Conns: 1, ByName: 1, Left: []string{"fourth"}, Closed: []bool{true, true, true, false}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	got = report{}
	run(t, "all", nil, nil, &got)
	if want := (report{}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func init() {
	// With a wrong environment every function says so.
	children["wrong"] = func() (any, error) {
		os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
		os.Setenv("LISTEN_FDS", "x")
		var errs []error
		_, err := Listeners()
		errs = append(errs, err)
		_, err = PacketConns("x")
		errs = append(errs, err)
		_, err = ListenersWithNames()
		errs = append(errs, err)
		_, err = Unclaimed()
		errs = append(errs, err)
		l, err := ListenOr(context.Background(), "x", "tcp", "127.0.0.1:0")
		if l != nil {
			return nil, errors.New("it listens all the same")
		}
		errs = append(errs, err)
		var texts []string
		for _, err := range errs {
			if !errors.Is(err, syscall.EINVAL) {
				return nil, fmt.Errorf("%v", errs)
			}
			texts = append(texts, err.Error())
		}
		return texts, nil
	}
}

func TestWrongEnvironment(t *testing.T) {
	keepsDescriptors(t)
	var got []string
	run(t, "wrong", nil, nil, &got)
	if want := `LISTEN_FDS="x": not a number of descriptors`; len(got) != 5 || slices.ContainsFunc(got, func(s string) bool { return s != want }) {
		t.Errorf("%q", got)
	}
}

func init() {
	// Serves once, executes itself anew with its listeners, and serves again.
	children["upgrade"] = func() (any, error) {
		l, err := ListenOr(context.Background(), "web", "unix", "/nonexistent/x")
		if err != nil {
			return nil, err
		}
		c, err := l.Accept()
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(c, os.Getenv("ROUND"))
		c.Close()
		if os.Getenv("ROUND") == "2" {
			return os.Getpid(), nil
		}
		os.Setenv("ROUND", "2")
		f, err := sysfd.DupFile(l.(syscall.Conn), "web")
		if err != nil {
			return nil, err
		}
		return nil, sysfd.ExecListenFDs("/proc/self/exe", os.Args, os.Environ(), []*os.File{f})
	}
}

// A listener of a passed socket can be passed on.
func TestPassedOn(t *testing.T) {
	keepsDescriptors(t)
	path := filepath.Join(t.TempDir(), "s")
	f := passable(t, listen(t, "unix", path), "web")
	var answers []string
	done := make(chan error)
	go func() {
		for range 2 {
			c, err := net.Dial("unix", path)
			if err != nil {
				done <- err
				return
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			var line string
			_, err = fmt.Fscan(c, &line)
			c.Close()
			if err != nil {
				done <- err
				return
			}
			answers = append(answers, line)
		}
		done <- nil
	}()
	var pid int
	run(t, "upgrade", []string{"ROUND=1"}, []*os.File{f}, &pid)
	if err := <-done; err != nil || !slices.Equal(answers, []string{"1", "2"}) {
		t.Errorf("%q, %v", answers, err)
	}
	f.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error("the path is gone: ", err)
	}
}
