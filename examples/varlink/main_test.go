//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/collector"
	"github.com/sysfd/sysfd/internal/overdue"
	"github.com/varlink/go/varlink"
	"github.com/varlink/go/varlink/idl"
	"golang.org/x/sys/unix"
)

// patience is for what takes no time on a machine that is not busy.
const patience = time.Minute

// The test binary is also the service, what starts that, and processes to watch and to be called
// by.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "sysfd-varlink":
		main()
	case "activate":
		activate(os.Args[1], os.Args[2:])
	case "caller":
		callWhenTold(os.Args[1])
	case "connector":
		connect(os.Args[1])
	case "attacker":
		attack(os.Args[1])
	case "setuid":
		fmt.Println(os.Geteuid())
		io.Copy(io.Discard, os.Stdin)
	case "ending":
		end()
	default:
		overdue.Report()
		os.Exit(m.Run())
	}
}

// activate becomes the service and passes on the descriptors from 3 up, which have these names.
func activate(names string, args []string) {
	var files []*os.File
	for i, name := range strings.Split(names, ":") {
		files = append(files, os.NewFile(uintptr(3+i), name))
	}
	fatal(sysfd.ExecListenFDs("/proc/self/exe", append([]string{"sysfd-varlink"}, args...), os.Environ(), files))
}

// callWhenTold connects to the service and asks it who this is for each line of input.
func callWhenTold(address string) {
	ctx := context.Background()
	c, err := varlink.NewConnection(ctx, "unix:"+address)
	if err != nil {
		fatal(err)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(answer(c.Call(ctx, interfaceName+".WhoAmI", nil, &struct{}{})))
	}
}

// connect connects descriptor 3.
func connect(address string) {
	if err := syscall.Connect(3, &syscall.SockaddrUnix{Name: address}); err != nil {
		fatal(err)
	}
}

// attack connects descriptor 3 as an ordinary user, and executes descriptor 4, which is setuid.
func attack(address string) {
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(65533), syscall.Setuid(65534)} {
		if err != nil {
			fatal(err)
		}
	}
	connect(address)
	fatal(syscall.Exec("/proc/self/fd/4", []string{"setuid"}, nil))
}

// end ends as its input says: with an exit status, or by a signal.
func end() {
	var how string
	var number int
	fmt.Scan(&how, &number)
	if how == "exit" {
		os.Exit(number)
	}
	syscall.Kill(os.Getpid(), syscall.Signal(number))
	select {}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// answer tells what came of a call: "ok", or the error without the interface.
func answer(err error) string {
	if err == nil {
		return "ok"
	}
	text := strings.TrimPrefix(err.Error(), interfaceName+".")
	if e, ok := err.(*varlink.Error); ok {
		if raw, ok := e.Parameters.(*json.RawMessage); ok && raw != nil {
			text += " " + string(*raw)
		}
	}
	return text
}

// A tester has what all tests need.
type tester struct{ *testing.T }

func (t tester) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t tester) equal(what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %#v, want %#v", what, got, want)
	}
}

func (t tester) lacks(what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("this takes " + what + ", which CI should have")
	}
	t.Skip("this takes " + what)
}

// eventually waits for what there is no event for.
func (t tester) eventually(what func() (ok bool, state string)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		ok, state := what()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(state)
		}
	}
}

func descriptors(pid int) (open []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			open = append(open, e.Name()+" "+target)
		}
	}
	return open
}

// newTester returns a tester of a test that leaves no descriptors and goroutines behind.
func newTester(test *testing.T) tester {
	t := tester{test}
	t.Cleanup(collector.Stop()) // it closes what was forgotten
	a, b := t.pair()            // the runtime opens its poller's descriptors at first use, and keeps them
	a.Close()
	b.Close()
	goroutines, before := runtime.NumGoroutine(), descriptors(os.Getpid())
	t.Cleanup(func() {
		t.equal("descriptors", descriptors(os.Getpid()), before)
		t.eventually(func() (bool, string) {
			stacks := make([]byte, 1<<20)
			return runtime.NumGoroutine() <= goroutines, string(stacks[:runtime.Stack(stacks, true)])
		})
	})
	return t
}

// pair returns a socketpair.
func (t tester) pair() (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	t.must(err)
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		t.must(err)
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// file returns the socket of a connection or a listener, which it closes. To pass it to a process
// does not change its blocking mode, which all who have the socket share: os.File does that to one
// of which it knows that it is non-blocking.
func (t tester) file(socket interface {
	File() (*os.File, error)
	Close() error
}) *os.File {
	t.Helper()
	f, err := socket.File()
	t.must(err)
	socket.Close()
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) // Fd has made it blocking
	t.must(err)
	return os.NewFile(uintptr(fd), "socket")
}

func (t tester) listen() (l *net.UnixListener, address string) {
	t.Helper()
	address = filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: address})
	t.must(err)
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	return l, address
}

func (t tester) dial(address string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: address})
	t.must(err)
	return c
}

// A caller is a connection to the service.
type caller struct {
	tester
	*varlink.Connection
	conn *net.UnixConn
	ctx  context.Context
}

func (t tester) caller(conn *net.UnixConn) caller {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel(); conn.Close() })
	c, err := varlink.NewConnectionWithDialer(ctx, "unix:", dialer{conn})
	t.must(err)
	return caller{t, c, conn, ctx}
}

type dialer struct{ conn net.Conn }

func (d dialer) DialContext(context.Context, string, string) (net.Conn, error) { return d.conn, nil }

func (c caller) whoAmI() (process processID) {
	c.Helper()
	var reply struct {
		Process  processID
		UID, GID *int
		CgroupID *sysfd.CgroupID
	}
	c.must(c.Call(c.ctx, interfaceName+".WhoAmI", nil, &reply))
	if reply.UID == nil || *reply.UID != os.Geteuid() || reply.GID == nil || *reply.GID != os.Getegid() {
		c.Errorf("%+v", reply)
	}
	self, err := sysfd.OpenPidFD(os.Getpid(), 0)
	c.must(err)
	defer self.Close()
	if info, err := self.Info(sysfd.PIDFD_INFO_CGROUPID); err == nil {
		id, _ := info.CgroupID()
		if reply.CgroupID == nil || *reply.CgroupID != id {
			c.Errorf("%+v", reply)
		}
	}
	return reply.Process
}

// watch calls Watch and returns what gives the replies, one for each call, in JSON.
func (c caller) watch(process any, flags uint64) (next func() string) {
	c.Helper()
	receive, err := c.Send(c.ctx, interfaceName+".Watch", map[string]any{"process": process}, flags)
	c.must(err)
	return func() string {
		var reply json.RawMessage
		flags, err := receive(c.ctx, &reply)
		if err != nil {
			return answer(err)
		}
		if flags&varlink.Continues != 0 {
			return string(reply) + " …"
		}
		return string(reply)
	}
}

// self is this process, which made the connections.
func (t tester) self() processID {
	t.Helper()
	self, err := sysfd.SelfRef()
	t.must(err)
	self.PIDNamespace = 0 // which systemd's type does not have
	return processID(self)
}

// command returns a command that is one of the parts of the test binary.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = name
	return cmd
}

// A watched is a process that ends as it is told.
type watched struct {
	processID
	tester
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func (t tester) watched() watched {
	t.Helper()
	cmd := command("ending")
	stdin, err := cmd.StdinPipe()
	t.must(err)
	t.must(cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); reap(cmd) })
	p, err := sysfd.OpenPidFD(cmd.Process.Pid, 0)
	t.must(err)
	defer p.Close()
	ref, err := p.Ref()
	t.must(err)
	return watched{processID(ref), t, cmd, stdin}
}

// reap waits for a child that a service in this process may have reaped already.
func reap(cmd *exec.Cmd) {
	cmd.Wait()
	cmd.Process.Release()
}

// end has the process end, and reaps it.
func (w watched) end(how string) {
	w.Helper()
	_, err := fmt.Fprintln(w.stdin, how)
	w.must(err)
	reap(w.cmd)
}

// A service is one in this process.
type service struct {
	tester
	stop   context.CancelFunc
	done   chan error
	states []string // what it told the service manager; good once it has ended
}

func (t tester) serve(listeners []net.Listener, clients []*net.UnixConn, only callers) *service {
	ctx, stop := context.WithCancel(context.Background())
	s := &service{tester: t, stop: stop, done: make(chan error, 1)}
	go func() {
		s.done <- serve(ctx, listeners, clients, only, func(state string) { s.states = append(s.states, state) })
	}()
	t.Cleanup(stop)
	return s
}

// serveOne serves one end of a socketpair, and returns the other one.
func (t tester) serveOne() (*service, *net.UnixConn) {
	t.Helper()
	here, there := t.pair()
	return t.serve(nil, []*net.UnixConn{there}, callers{}), here
}

// ended waits for the end.
func (s *service) ended() {
	s.Helper()
	select {
	case err := <-s.done:
		s.must(err)
	case <-time.After(patience):
		s.Fatal("the service has not ended")
	}
	s.equal("told the manager", s.states, []string{sysfd.NotifyReady, sysfd.NotifyStopping})
}

// A daemon is a service in a process of its own.
type daemon struct {
	tester
	*exec.Cmd
	stderr  *bytes.Buffer
	manager *net.UnixConn
}

// start starts a service with these sockets, which stay open here.
func (t tester) start(names string, sockets []*os.File, args ...string) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	t.must(err)
	d := &daemon{t, command("activate", append([]string{names}, args...)...), new(bytes.Buffer), manager}
	d.ExtraFiles, d.Stderr = sockets, d.stderr
	d.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	t.must(d.Start())
	t.Cleanup(func() { d.Process.Kill(); d.Cmd.Wait(); manager.Close() })
	return d
}

// told waits for what the service tells the manager.
func (d *daemon) told(state string) {
	d.Helper()
	d.must(d.manager.SetReadDeadline(time.Now().Add(patience)))
	b := make([]byte, 4096)
	n, err := d.manager.Read(b)
	if err != nil || string(b[:n]) != state {
		d.Fatalf("told %q, %v; want %q", b[:n], err, state)
	}
}

// ends waits for the end, and returns the exit status.
func (d *daemon) ends() int {
	d.Helper()
	kill := time.AfterFunc(patience, func() { d.Process.Kill() })
	defer kill.Stop()
	d.Wait()
	return d.ProcessState.ExitCode()
}

// As "varlinkctl call exec:…" and Accept=yes do it.
func TestConnected(t *testing.T) {
	for _, name := range []string{"varlink", "connection"} {
		t := newTester(t)
		here, there := t.pair()
		socket := t.file(there)
		d := t.start(name, []*os.File{socket})
		socket.Close()
		d.told(sysfd.NotifyReady)
		c := t.caller(here)
		t.equal("caller", c.whoAmI(), t.self())
		t.equal("caller", c.whoAmI(), t.self())
		c.Close()
		d.told(sysfd.NotifyStopping)
		t.equal("exit status", d.ends(), 0)
		t.equal("stderr", d.stderr.String(), "")
	}
}

func TestSeveralSockets(t *testing.T) {
	tt := newTester(t)
	here1, there1 := tt.pair()
	here2, there2 := tt.pair()
	l, address := tt.listen()
	sockets := []*os.File{tt.file(there1), tt.file(l), tt.file(there2)}
	d := tt.start("connection:varlink:connection", sockets)
	for _, f := range sockets {
		f.Close()
	}
	d.told(sysfd.NotifyReady)
	for _, conn := range []*net.UnixConn{here1, here2, tt.dial(address), tt.dial(address)} {
		c := tt.caller(conn)
		tt.equal("caller", c.whoAmI(), tt.self())
		c.Close()
	}
	tt.must(d.Process.Signal(syscall.SIGTERM))
	d.told(sysfd.NotifyStopping)
	tt.equal("exit status", d.ends(), 0)
}

// The socket outlives the service, and a client that comes meanwhile is served by the next one.
func TestListening(t *testing.T) {
	tt := newTester(t)
	l, address := tt.listen()
	socket := tt.file(l)
	defer socket.Close()
	waiting := tt.caller(tt.dial(address))
	for range 2 {
		d := tt.start("varlink", []*os.File{socket})
		d.told(sysfd.NotifyReady)
		tt.equal("caller", waiting.whoAmI(), tt.self())
		tt.equal("caller", tt.caller(tt.dial(address)).whoAmI(), tt.self())

		// It ends also while a call is not answered yet.
		w := tt.watched()
		next := waiting.watch(w.processID, varlink.More)
		tt.equal("reply", next(), `{"state":"running"} …`)
		tt.must(d.Process.Signal(syscall.SIGTERM))
		d.told(sysfd.NotifyStopping)
		tt.equal("exit status", d.ends(), 0)
		if got := next(); !strings.Contains(got, "EOF") {
			t.Error(got)
		}
		tt.equal("stderr", d.stderr.String(), "")
		waiting = tt.caller(tt.dial(address))
	}
}

// Two at once on one socket.
func TestStartedTwice(t *testing.T) {
	tt := newTester(t)
	l, address := tt.listen()
	socket := tt.file(l)
	defer socket.Close()
	var both []*daemon
	for range 2 {
		d := tt.start("varlink", []*os.File{socket})
		d.told(sysfd.NotifyReady)
		both = append(both, d)
	}
	for range 20 {
		c := tt.caller(tt.dial(address))
		tt.equal("caller", c.whoAmI(), tt.self())
		c.Close()
	}
	for _, d := range both {
		tt.equal("caller", tt.caller(tt.dial(address)).whoAmI(), tt.self())
		tt.must(d.Process.Signal(syscall.SIGINT))
		tt.equal("exit status", d.ends(), 0)
	}
}

func TestIntrospection(t *testing.T) {
	tt := newTester(t)
	s, conn := tt.serveOne()
	c := tt.caller(conn)
	var vendor, product, version, url string
	var interfaces []string
	tt.must(c.GetInfo(c.ctx, &vendor, &product, &version, &url, &interfaces))
	slices.Sort(interfaces)
	tt.equal("interfaces", interfaces, []string{interfaceName, "org.varlink.service"})
	if vendor == "" || product == "" || version == "" || url == "" {
		t.Error("part of the information is missing")
	}
	text, err := c.GetInterfaceDescription(c.ctx, interfaceName)
	tt.must(err)
	parsed, err := idl.New(text)
	tt.must(err)
	tt.equal("interface", parsed.Name, interfaceName)
	// What is described is there, and nothing else is.
	for _, m := range append(parsed.Methods, &idl.Method{Name: "Missing"}) {
		err := c.Call(c.ctx, interfaceName+"."+m.Name, nil, &struct{}{})
		var missing *varlink.MethodNotFound
		tt.equal(m.Name+" is missing", errors.As(err, &missing), m.Name == "Missing")
	}
	err = c.Call(c.ctx, "com.example.Missing", nil, &struct{}{})
	tt.equal("another interface", answer(err), "org.varlink.service.InterfaceNotFound")
	c.Close()
	s.ended()
}

// ended compares a reply that tells how a process that is not a child of the service has ended.
func (c caller) ended(got, want string) {
	c.Helper()
	if strings.HasPrefix(got, `{"state":"unknown"`) {
		c.lacks("Linux 6.15: " + got)
	}
	c.equal("reply", got, want)
}

func TestWatch(t *testing.T) {
	tt := newTester(t)
	here, there := tt.pair()
	socket := tt.file(there)
	d := tt.start("varlink", []*os.File{socket})
	socket.Close()
	c := tt.caller(here)
	pidfds := func() int { return strings.Count(fmt.Sprint(descriptors(d.Process.Pid)), "pidfd") }
	for how, want := range map[string]string{
		"exit 0":   `{"state":"exited","exitStatus":0}`,
		"exit 200": `{"state":"exited","exitStatus":200}`,
		"signal 9": `{"state":"signaled","signal":9}`,
	} {
		w := tt.watched()
		next := c.watch(w.processID, varlink.More)
		tt.equal("reply", next(), `{"state":"running"} …`)
		w.end(how)
		c.ended(next(), want)
		text, err := json.Marshal(w.processID)
		tt.must(err)
		gone := fmt.Sprintf(`NoSuchProcess {"process":%s}`, text)
		tt.equal("ended before", c.watch(w.processID, varlink.More)(), gone)

		// Without "more" there is one reply, and a call without a reply holds nothing up.
		w = tt.watched()
		c.watch(w.processID, varlink.Oneway)
		open := pidfds()
		next = c.watch(w.processID, 0)
		tt.eventually(func() (bool, string) { return pidfds() > open, "the service does not watch" })
		w.end(how)
		c.ended(next(), want)
		tt.equal("caller", c.whoAmI(), tt.self())
	}
	w := tt.watched()
	boot := w.processID
	boot.BootID[0] ^= 1
	if got := c.watch(boot, 0)(); !strings.HasPrefix(got, "NoSuchProcess ") {
		t.Errorf("of another boot: %s", got)
	}
	for _, wrong := range []any{nil, 1, "1", w.PID, map[string]any{"pid": w.PID}, map[string]any{"pidfdId": 1}, []int{1}, 1.5} {
		tt.equal(fmt.Sprint(wrong), c.watch(wrong, varlink.More)(), "org.varlink.service.InvalidParameter")
	}
	c.Close()
	tt.equal("exit status", d.ends(), 0)
}

// The service waits for no process when the client is gone.
func TestClientGone(t *testing.T) {
	for _, unread := range []string{"", "begun", `{"method":"org.varlink.service.GetInfo"}` + "\x00", strings.Repeat("x", 100<<10)} {
		t := newTester(t)
		s, conn := t.serveOne()
		w := t.watched()
		next := t.caller(conn).watch(w.processID, varlink.More)
		t.equal("reply", next(), `{"state":"running"} …`)
		_, err := io.WriteString(conn, unread)
		t.must(err)
		conn.Close()
		s.ended()
	}
}

// A client that has nothing more to say still gets its answer.
func TestHalfClosed(t *testing.T) {
	tt := newTester(t)
	s, conn := tt.serveOne()
	w := tt.watched()
	next := tt.caller(conn).watch(w.processID, varlink.More)
	tt.must(conn.CloseWrite())
	tt.equal("reply", next(), `{"state":"running"} …`)
	w.end("exit 3")
	tt.equal("reply", next(), `{"state":"exited","exitStatus":3}`)
	s.ended() // although the client has not closed
}

// Requests that come together are answered one after another, also what came while an answer was
// awaited.
func TestPipelined(t *testing.T) {
	tt := newTester(t)
	s, conn := tt.serveOne()
	c := tt.caller(conn)
	w := tt.watched()
	next := c.watch(w.processID, varlink.More)
	again := c.watch(w.processID, 0)
	tt.equal("reply", next(), `{"state":"running"} …`)
	third := c.watch(tt.self().PID, 0)
	w.end("exit 0")
	tt.equal("reply", next(), `{"state":"exited","exitStatus":0}`)
	if got := again(); !strings.HasPrefix(got, "NoSuchProcess ") {
		t.Error(got)
	}
	tt.equal("reply", third(), "org.varlink.service.InvalidParameter")
	c.Close()
	s.ended()
}

func TestMalformed(t *testing.T) {
	tt := newTester(t)
	l, address := tt.listen()
	s := tt.serve([]net.Listener{l}, nil, callers{})
	stays := tt.caller(tt.dial(address))
	whoAmI := `{"method":"` + interfaceName + `.WhoAmI"`
	invalidMethod := `{"parameters":{"parameter":"method"},"error":"org.varlink.service.InvalidParameter"}` + "\x00"
	for _, test := range []struct{ name, request, reply string }{
		{"nothing", "", ""},
		{"empty", "\x00", ""},
		{"not JSON", "GET / HTTP/1.0\r\n\r\n\x00", ""},
		{"not ended", whoAmI, ""},
		{"an array", "[]\x00", ""},
		{"a number for a method", `{"method":1}` + "\x00", ""},
		{"a broken one behind a good one", `{"method":"x"}` + "\x00{\x00" + whoAmI + "}\x00", invalidMethod},
		{"no method", "{}\x00", invalidMethod},
		{"null", "null\x00", invalidMethod},
		{"longer than it may be", strings.Repeat(" ", maxRequest+1), ""},
		{"longer than it may be, with an end", strings.Repeat(" ", maxRequest+10000) + "{}\x00", ""},
		{"as long as it may be", strings.Repeat(" ", maxRequest-2) + "{}\x00", invalidMethod},
		{"deep", strings.Repeat("[", 20000) + "\x00", ""},
	} {
		conn := tt.dial(address)
		tt.must(conn.SetDeadline(time.Now().Add(patience)))
		// The service may have had enough before it has read all.
		if _, err := io.WriteString(conn, test.request); err == nil {
			conn.CloseWrite()
		}
		reply, err := io.ReadAll(conn)
		if string(reply) != test.reply || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %q, %v; want %q", test.name, reply, err, test.reply)
		}
		conn.Close()
	}

	// Nor does it keep descriptors that someone sends.
	r, w, err := os.Pipe()
	tt.must(err)
	conn := tt.dial(address)
	_, _, err = conn.WriteMsgUnix([]byte(`{"method":"x"}`+"\x00"), syscall.UnixRights(int(w.Fd())), nil)
	tt.must(err)
	w.Close()
	_, err = bufio.NewReader(conn).ReadString(0)
	tt.must(err)
	tt.must(r.SetReadDeadline(time.Now().Add(patience)))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the descriptor that was sent is still open: %v", err)
	}
	r.Close()
	conn.Close()

	tt.equal("caller", stays.whoAmI(), tt.self())
	stays.Close()
	s.stop()
	s.ended()
}

// As many clients as are served at once, and others who wait until these are gone.
func TestManyClients(t *testing.T) {
	tt := newTester(t)
	l, address := tt.listen()
	socket := tt.file(l)
	defer socket.Close()
	t.Setenv("GOGC", "off") // in the service, the collector would close what was forgotten
	d := tt.start("varlink", []*os.File{socket})
	d.told(sysfd.NotifyReady)
	first := tt.caller(tt.dial(address))
	first.whoAmI()
	first.Close()
	var before []string
	tt.eventually(func() (bool, string) { // once the first one is forgotten, only the listening one is left
		before = descriptors(d.Process.Pid)
		text := fmt.Sprint(before)
		return strings.Count(text, "socket:") == 1 && !strings.Contains(text, "pidfd"), text
	})

	w := tt.watched()
	var watchers [maxClients]caller
	var next [maxClients]func() string
	for i := range watchers {
		watchers[i] = tt.caller(tt.dial(address))
		next[i] = watchers[i].watch(w.processID, varlink.More)
		tt.equal("reply", next[i](), `{"state":"running"} …`)
	}
	var others sync.WaitGroup
	for range maxClients {
		c := tt.caller(tt.dial(address))
		others.Go(func() {
			for range 3 {
				var reply struct{ Process processID }
				if err := c.Call(c.ctx, interfaceName+".WhoAmI", nil, &reply); err != nil || reply.Process.PID != os.Getpid() {
					t.Errorf("%v, %v", reply, err)
				}
			}
			c.Close()
		})
	}
	w.end("signal 15")
	for i, c := range watchers {
		c.ended(next[i](), `{"state":"signaled","signal":15}`)
		c.Close()
	}
	others.Wait()
	tt.eventually(func() (bool, string) {
		after := descriptors(d.Process.Pid)
		return slices.Equal(after, before), fmt.Sprintf("descriptors of the service: %q, before %q", after, before)
	})
	tt.must(d.Process.Signal(syscall.SIGTERM))
	tt.equal("exit status", d.ends(), 0)
}

// A place is a cgroup2 and cgroups in it: the allowed one, one below it and another one.
type place struct {
	tester
	mount, top string
}

func newPlace(t tester) *place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.lacks("root")
	}
	sys := t.TempDir()
	p := &place{tester: t, mount: filepath.Join(sys, "fs/cgroup")}
	p.mountAt(sys, "sysfs", 0)
	p.mountAt(p.mount, "cgroup2", 0)
	p.top = fmt.Sprintf("sysfd-varlink-test-%d", os.Getpid())
	for _, name := range []string{"", "allowed", "allowed/below", "allowed/below/it", "allowed2", "other"} {
		if err := os.Mkdir(p.path(name), 0o755); err != nil {
			t.lacks("a cgroup2 to make groups in: " + err.Error())
		}
		t.Cleanup(func() { os.Remove(p.path(name)) })
	}
	return p
}

func (p *place) mountAt(dir, what string, flags uintptr) {
	p.Helper()
	if err := syscall.Mount(what, dir, what, flags, ""); err != nil {
		p.lacks("to mount " + what + ": " + err.Error())
	}
	p.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// In a hierarchy of cgroup v1 the ID of a caller's cgroup means something else.
func TestCgroupV1(t *testing.T) {
	test := tester{t}
	if os.Geteuid() != 0 {
		test.lacks("root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "cgroup", 0, "none,name=sysfd-varlink"); err != nil {
		test.lacks("to mount cgroup v1: " + err.Error())
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	g, err := openCgroup(dir)
	if err == nil {
		g.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "cgroup v1") {
		t.Error(err)
	}
}

func (p *place) path(name string) string { return filepath.Join(p.mount, p.top, name) }

func (p *place) id(name string) sysfd.CgroupID {
	p.Helper()
	id, _, err := sysfd.CgroupIDAt(sysfd.AT_FDCWD, p.path(name), 0)
	p.must(err)
	return id
}

func (p *place) open(name string) *cgroup {
	p.Helper()
	g, err := openCgroup(name)
	if errors.Is(err, errors.ErrUnsupported) {
		p.lacks("Linux 6.13: " + err.Error())
	}
	p.must(err)
	return g
}

// callerIn starts a process in a cgroup that connects to the service. It returns its PID, and what
// has it make a call.
func (p *place) callerIn(name, address string) (pid int, call func() string) {
	p.Helper()
	dir, err := os.Open(p.path(name))
	p.must(err)
	defer dir.Close()
	cmd := command("caller", address)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	p.must(err)
	out, err := cmd.StdoutPipe()
	p.must(err)
	p.must(cmd.Start())
	p.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewReader(out)
	return cmd.Process.Pid, func() string {
		p.Helper()
		_, err := io.WriteString(in, "\n")
		p.must(err)
		line, err := lines.ReadString('\n')
		p.must(err)
		return strings.TrimSuffix(line, "\n")
	}
}

func TestRefused(t *testing.T) {
	tt := newTester(t)
	p := newPlace(tt)
	l, address := tt.listen()
	socket := tt.file(l)
	defer socket.Close()
	allowed := p.path("allowed")
	d := tt.start("varlink", []*os.File{socket}, "-cgroup", allowed)
	d.told(sysfd.NotifyReady)
	refused := `Refused {"reason":"the caller is not in cgroup ` + allowed + `"}`
	for name, want := range map[string]string{
		"allowed": "ok", "allowed/below": "ok", "allowed/below/it": "ok", "allowed2": refused, "other": refused, "": refused, "../": refused,
	} {
		_, call := p.callerIn(name, address)
		tt.equal(name, call(), want)
	}

	// What counts is where the caller is when it calls.
	pid, call := p.callerIn("allowed", address)
	move := func(to string) {
		tt.must(os.WriteFile(filepath.Join(p.path(to), "cgroup.procs"), fmt.Append(nil, pid), 0))
	}
	for _, step := range []struct{ to, want string }{{"other", refused}, {"allowed/below", "ok"}, {"other", refused}, {"allowed", "ok"}} {
		move(step.to)
		tt.equal("moved to "+step.to, call(), step.want)
	}

	// This process is outside. Whatever it asks for, it gets no answer, nor is a process
	// watched for it; what the interface looks like it may know.
	c := tt.caller(tt.dial(address))
	for _, method := range []string{"WhoAmI", "Watch", "Missing"} {
		for _, flags := range []uint64{0, varlink.More} {
			receive, err := c.Send(c.ctx, interfaceName+"."+method, map[string]any{"process": tt.self()}, flags)
			tt.must(err)
			_, err = receive(c.ctx, &struct{}{})
			tt.equal(method, answer(err), refused)
		}
	}
	_, err := c.GetInterfaceDescription(c.ctx, interfaceName)
	tt.must(err)
	tt.must(d.Process.Signal(syscall.SIGTERM))
	tt.equal("exit status", d.ends(), 0)
}

// The process that opened the connection has ended, and someone else has it.
func TestCallerGone(t *testing.T) {
	tt := newTester(t)
	p := newPlace(tt)
	l, address := tt.listen()
	only := p.open(p.mount) // nobody is outside
	defer only.Close()
	s := tt.serve([]net.Listener{l}, nil, callers{cgroup: only})
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	tt.must(err)
	socket := os.NewFile(uintptr(fd), "socket")
	defer socket.Close()
	connector := command("connector", address)
	connector.ExtraFiles, connector.Stderr = []*os.File{socket}, os.Stderr
	tt.must(connector.Run())
	conn, err := net.FileConn(socket)
	tt.must(err)
	c := tt.caller(conn.(*net.UnixConn))
	got := answer(c.Call(c.ctx, interfaceName+".WhoAmI", nil, &struct{}{}))
	if !strings.HasPrefix(got, "Refused ") {
		t.Error(got)
	}
	tt.equal("another caller", tt.caller(tt.dial(address)).whoAmI(), tt.self())
	s.stop()
	s.ended()
}

// setuidRoot opens a copy of the test binary that makes who executes it root. Nobody else can
// search its directory: whoever is to execute it is given the descriptor.
func (t tester) setuidRoot() *os.File {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	t.must(err)
	dir := t.TempDir()
	t.must(os.Chmod(dir, 0o700))
	name := filepath.Join(dir, "setuid")
	t.must(os.WriteFile(name, program, 0o755))
	t.must(os.Chmod(name, 0o755|os.ModeSetuid))
	f, err := os.Open(name)
	t.must(err)
	t.Cleanup(func() { f.Close() })
	return f
}

// An ordinary user opens a connection and executes a setuid program, so that the process of which
// the service has a pidfd is root's. The test makes the calls, as a child of his would to which he
// has left the connection.
func TestSetuid(t *testing.T) {
	tt := newTester(t)
	p := newPlace(tt)
	program := tt.setuidRoot()
	notUser := `Refused {"reason":"user 65534 opened the connection and is not answered"}`
	notInside := `Refused {"reason":"the caller is not in cgroup ` + p.path("allowed") + `"}`
	for i, test := range []struct{ args, cgroup, movedTo, want string }{
		{"", "other", "", "ok"},
		{"-uid 65534", "other", "", "ok"},
		{"-uid 0 -uid 65534", "other", "", "ok"},
		{"-uid 0", "other", "", notUser},
		{"-uid 0 -uid 65533", "other", "", notUser}, // not the group
		{"-cgroup " + p.path("allowed"), "other", "", notInside},
		{"-cgroup " + p.path("allowed"), "other", "allowed", "ok"}, // as main.go says
		{"-uid 0 -cgroup " + p.path("allowed"), "other", "allowed", notUser},
		{"-uid 0 -cgroup " + p.path("allowed"), "allowed", "", notUser},
		{"-uid 65534 -cgroup " + p.path("allowed"), "other", "", notInside},
		{"-uid 65534 -cgroup " + p.path("allowed"), "allowed", "", "ok"},
	} {
		address := fmt.Sprintf("@%s-%d", p.top, i) // to which any user can connect
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: address})
		tt.must(err)
		listening := tt.file(l)
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		tt.must(err)
		socket := os.NewFile(uintptr(fd), "socket")
		dir, err := os.Open(p.path(test.cgroup))
		tt.must(err)
		attacker := command("attacker", address)
		attacker.ExtraFiles, attacker.Stderr = []*os.File{socket, program}, os.Stderr
		attacker.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		stdin, err := attacker.StdinPipe()
		tt.must(err)
		stdout, err := attacker.StdoutPipe()
		tt.must(err)
		tt.must(attacker.Start())
		dir.Close()
		t.Cleanup(func() { attacker.Process.Kill(); attacker.Wait(); listening.Close(); socket.Close() })
		var uid int
		if _, err := fmt.Fscan(stdout, &uid); err != nil || uid != 0 {
			tt.lacks(fmt.Sprintf("a file system whose setuid programs get their rights, and not user %d (%v)", uid, err))
		}
		if test.movedTo != "" {
			tt.must(os.WriteFile(filepath.Join(p.path(test.movedTo), "cgroup.procs"), fmt.Append(nil, attacker.Process.Pid), 0))
		}

		d := tt.start("varlink", []*os.File{listening}, strings.Fields(test.args)...)
		listening.Close()
		d.told(sysfd.NotifyReady)
		conn, err := net.FileConn(socket)
		tt.must(err)
		socket.Close()
		c := tt.caller(conn.(*net.UnixConn))
		var reply struct {
			Process  processID
			UID, GID int
		}
		got := answer(c.Call(c.ctx, interfaceName+".WhoAmI", nil, &reply))
		tt.equal(fmt.Sprintf("%q, %s %s", test.args, test.cgroup, test.movedTo), got, test.want)
		if got == "ok" && (reply.Process.PID != attacker.Process.Pid || reply.UID != 65534 || reply.GID != 65533) {
			t.Errorf("%q: process %d has opened the connection as user 65534 of group 65533, and WhoAmI says %+v", test.args, attacker.Process.Pid, reply)
		}
		c.Close()
		stdin.Close()
		tt.must(attacker.Wait())
		tt.must(d.Process.Signal(syscall.SIGTERM))
		tt.equal("exit status", d.ends(), 0)
	}
}

func TestContains(t *testing.T) {
	tt := newTester(t)
	p := newPlace(tt)
	g := p.open(p.path("allowed"))
	defer g.Close()
	contains := func(g *cgroup, name string, want bool) {
		t.Helper()
		if got, err := g.contains(p.id(name)); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, want := range map[string]bool{
		"allowed": true, "allowed/below": true, "allowed/below/it": true, "allowed2": false, "other": false, "": false, "..": false,
	} {
		contains(g, name, want)
	}

	// A mount in the allowed cgroup is not below it.
	p.mountAt(p.path("allowed/below/it"), "cgroup2", 0)
	inner := *p
	inner.mount = p.path("allowed/below/it")
	g2 := p.open(inner.path("allowed"))
	defer g2.Close()
	contains(g2, "other", false)
	contains(g2, "allowed/below", true)
	tt.must(syscall.Unmount(inner.mount, syscall.MNT_DETACH))

	// A mount of a part of the hierarchy, which does not end there.
	part := t.TempDir()
	p.mountAt(part, p.path(""), syscall.MS_BIND)
	g3 := p.open(filepath.Join(part, "allowed"))
	defer g3.Close()
	contains(g3, "..", false)
	contains(g3, "other", false)
	contains(g3, "allowed/below", true)

	gone := p.id("other")
	tt.must(os.Remove(p.path("other")))
	if _, err := g.contains(gone); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("removed: %v", err)
	}

	// Without the capability the allowed cgroup itself is known, and nothing else is.
	below := p.id("allowed/below")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		if got, err := g.contains(g.id); !got || err != nil {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := g.contains(below); got || !errors.Is(err, syscall.EPERM) {
			t.Errorf("%v, %v", got, err)
		}
	}()
	<-done
}

// Without sockets it says why there are none, and how to start it.
func TestByHand(t *testing.T) {
	newTester(t)
	for env, want := range map[string]string{
		"": "LISTEN_PID is not set", "LISTEN_PID=1,LISTEN_FDS=1": "LISTEN_PID", "LISTEN_PID=x": "LISTEN_PID",
	} {
		cmd := command("sysfd-varlink")
		cmd.Env = append(os.Environ(), strings.Split(env, ",")...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", env, err, out)
		}
		if hint := strings.Contains(string(out), howToStart); hint == (env == "LISTEN_PID=x") {
			t.Errorf("%s: %s", env, out)
		}
	}
}

func TestCannotStart(t *testing.T) {
	tt := newTester(t)
	datagram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "datagram")})
	tt.must(err)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	tt.must(err)
	l, _ := tt.listen()
	stream := tt.file(l)
	null, err := os.Open(os.DevNull)
	tt.must(err)
	for _, test := range []struct {
		socket *os.File
		args   string
		status int
		want   string
	}{
		{tt.file(datagram), "", 1, "fd-name, which was passed, is not a Unix stream socket"},
		{tt.file(tcp.(*net.TCPListener)), "", 1, "not a Unix stream socket"},
		{null, "", 1, "not a Unix stream socket"},
		{stream, "-cgroup /dev", 1, "not on a cgroup file system"},
		{stream, "-cgroup /missing", 1, "/missing"},
		{stream, "-wrong", 2, "usage"},
		{stream, "-uid root", 2, "usage"},
		{stream, "-uid -1", 2, "usage"},
		{stream, "-uid 4294967296", 2, "usage"},
		{stream, "word", 2, "usage"},
		{stream, "-h", 2, "usage"},
	} {
		d := tt.start("fd-name", []*os.File{test.socket}, strings.Fields(test.args)...)
		if status := d.ends(); status != test.status || !strings.Contains(d.stderr.String(), test.want) {
			t.Errorf("%s: status %d, %s", test.want, status, d.stderr)
		}
		defer test.socket.Close()
	}
}
