//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/rights"
)

// In directories that are out of reach a program may be, and that is another status.
const plainPath = "PATH=/usr/bin:/bin"

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for start := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatalf("not to be seen: %s", what)
		}
	}
}

// running is a command that was started.
type running struct {
	*exec.Cmd
	stdout bytes.Buffer
	lines  *bufio.Reader // of stderr
	ended  chan error
}

func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{Cmd: cmd, ended: make(chan error, 1)}
	stderr, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr.SetReadDeadline(time.Now().Add(patience))
	cmd.Stdout, cmd.Stderr = &r.stdout, w
	cmd.WaitDelay = time.Second // for what still has stdout
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	r.lines = bufio.NewReader(stderr)
	go func() { r.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		stderr.Close()
	})
	return r
}

// says returns the next line of stderr that has this in it.
func (r *running) says(t *testing.T, want string) string {
	t.Helper()
	var said []string
	for {
		line, err := r.lines.ReadString('\n')
		if strings.Contains(line, want) {
			return line
		}
		if said = append(said, line); err != nil {
			t.Fatalf("%q is not said, but %q: %v", want, said, err)
		}
	}
}

// end returns what came to stderr yet, and the status of a command that ends by itself.
func (r *running) end(t *testing.T) (errs string, status syscall.WaitStatus) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	rest, _ := io.ReadAll(r.lines)
	return string(rest), r.ProcessState.Sys().(syscall.WaitStatus)
}

// showFDs is for a shell to show what it has open, one a line, and leaked tells what should not be there beside one
// descriptor of the kind that was passed.
const showFDs = "readlink /proc/$$/fd/*; :"

func leaked(shown, passed string) (leaks []string) {
	n := 0
	for line := range strings.Lines(shown) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, passed):
			if n++; n > 1 {
				leaks = append(leaks, line)
			}
		case strings.HasPrefix(line, "anon_inode:"), strings.HasPrefix(line, "socket:"):
			leaks = append(leaks, line)
		}
	}
	if n == 0 {
		leaks = append(leaks, "no "+passed)
	}
	return leaks
}

// If one address fails, or the program cannot be executed, there is no file of the others left.
func TestActivateFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("\x7fELF"), 0o700); err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(t.TempDir(), "live")
	l, err := net.Listen("unix", live)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		words []string
		code  int
		want  string
	}{
		{[]string{"-l", "/no/such/directory/socket", "--", "true"}, 1, "no such file or directory"},
		{[]string{"-l", live, "--", "true"}, 1, "address already in use"},
		{[]string{"-l", path, "--", "true"}, 1, "address already in use"},
		{[]string{"-l", "192.0.2.1:80", "--", "true"}, 1, "192.0.2.1"},
		{[]string{"-l", "@x", "--", broken}, 126, "exec format error"},
		{[]string{"--inetd", "--", broken}, 126, "exec format error"},
		{[]string{"--", "no-such-program"}, 127, "no-such-program"},
	} {
		words := append([]string{"activate", "-q", "--now", "-l", "seqpacket:" + path}, test.words...)
		cmd := sysfdCommand(words...)
		cmd.Env = append(cmd.Env, plainPath)
		out, errs, code := status(t, cmd)
		if code != test.code || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, test.want) {
			t.Errorf("%q: status %d, %q, %q", words, code, out, errs)
		}
		if names := litter(t, dir); names != nil {
			t.Errorf("%q leaves %q", words, names)
		}
	}
	if inode(t, live) == 0 {
		t.Error("the file of another is gone")
	}
}

// A signal ends the command soon, although somebody has its path by now and somebody else the lock on the directory.
func TestActivateEndsSoon(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	r := start(t, sysfdCommand("activate", "-l", path, "--", "true"))
	r.says(t, "listening on "+path)
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	r.Process.Signal(syscall.SIGTERM)
	if errs, status := r.end(t); !status.Signaled() || errs != "" {
		t.Errorf("%#x, %q", status, errs)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// While the name of a host is looked up, a signal does not have to wait.
func TestActivateBindsWithoutLock(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var s openSockets
	s.adding.Lock()
	done := make(chan error)
	go func() {
		_, err := s.add(socketAddress{"tcp", address}, "x")
		done <- err
	}()
	eventually(t, "a listener", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	s.adding.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.remove()
}

// A signal that ends the command while it waits takes the file along.
func TestActivateSignals(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		for _, words := range [][]string{{"-l", path}, {"--accept", "-l", path}} {
			r := start(t, sysfdCommand(slices.Concat([]string{"activate"}, words, []string{"--", "true"})...))
			r.says(t, "listening on "+path)
			r.Process.Signal(sig)
			if errs, status := r.end(t); !status.Signaled() || status.Signal() != sig || errs != "" {
				t.Errorf("%v: %#x, %q", sig, status, errs)
			}
			if names := litter(t, dir); names != nil {
				t.Errorf("%v leaves %q", sig, names)
			}
		}
	}
	// nohup
	r := start(t, exec.Command("sh", "-c", `trap "" HUP; `+commandVar+`=1 exec "$0" activate -l "$1" -- true`, os.Args[0], path))
	r.says(t, "listening on "+path)
	r.Process.Signal(syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if errs, status := r.end(t); status != 0 {
		t.Errorf("%#x, %q", status, errs)
	}
}

// What it was passed comes first, with the names that it has.
func TestActivateNested(t *testing.T) {
	rights.Proc(t)
	self := os.Args[0]
	g := activated(t, "-l", "@sysfd-nested-1", "-l", "udp:127.0.0.1:0", "--fdname", "one:two", "--",
		self, "activate", "-q", "--now", "-l", "@sysfd-nested-2", "--fdname", "three", "--",
		self, "activate", "-q", "--now")
	var got []string
	for _, fd := range g.FDs {
		got = append(got, string(fd.Name)+" "+fd.Type)
	}
	if want := []string{"one stream", "two dgram", "three stream"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// Nothing else is open.
	cmd := sysfdCommand("activate", "-q", "--now", "-l", "@sysfd-nested-1", "-l", "@sysfd-nested-2", "--",
		self, "activate", "-q", "--now", "-l", "@sysfd-nested-3", "--", "sh", "-c", `echo $LISTEN_FDNAMES; readlink /proc/$$/fd/* | grep -c socket:`)
	cmd.Stdin = nil
	if out, errs, code := status(t, cmd); out != "unknown:unknown:unknown\n3\n" || code != 0 {
		t.Errorf("%q, %q, status %d", out, errs, code)
	}
	// What was passed to another process is not passed on, and that is said.
	cmd = sysfdCommand("activate", "--now", "-l", "@sysfd-nested-1", "--", "sh", "-c", `"$0" activate -q --now -l @sysfd-nested-2 -- sh -c 'echo $LISTEN_FDS'; :`, self)
	out, errs, code := status(t, cmd)
	if code != 0 || out != "1\n" || !strings.Contains(errs, "are not passed on: LISTEN_PID names process "+strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("%q, %q, status %d", out, errs, code)
	}
	// What is wrong with it is an error.
	cmd = sysfdCommand("activate", "--now", "-l", "@sysfd-nested-1", "--", "true")
	cmd.Env = append(cmd.Env, "LISTEN_PID=x")
	if _, errs, code := status(t, cmd); code != 1 || !strings.Contains(errs, "LISTEN_PID") {
		t.Errorf("%q, status %d", errs, code)
	}
}

// All kinds of sockets in one call.
func TestActivateKinds(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().String()
	l.Close()
	for _, flag := range []string{"--now", "-d", "--seqpacket"} {
		own := map[string]string{"--now": "stream", "-d": "dgram", "--seqpacket": "seqpacket"}[flag]
		g := activated(t, "-l", "tcp:"+port, flag, "-l", "udp:"+port, "-l", "seqpacket:"+dir+"/1"+flag, "-l", "stream:"+dir+"/2"+flag, "-l", "datagram:@sysfd-kinds", "-l", dir+"/3"+flag)
		var got []string
		for _, fd := range g.FDs {
			got = append(got, fd.Domain+" "+fd.Type)
		}
		if want := []string{"inet stream", "inet dgram", "unix seqpacket", "unix stream", "unix dgram", "unix " + own}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", flag, got, want)
		}
		if g.FDs[0].Address != g.FDs[1].Address {
			t.Errorf("%s, %s", g.FDs[0].Address, g.FDs[1].Address)
		}
	}
}

func TestActivateQuiet(t *testing.T) {
	if out, errs, code := status(t, sysfdCommand("activate", "-q", "--now", "-l", "@sysfd-quiet", "--", "true")); out != "" || errs != "" || code != 0 {
		t.Errorf("%q, %q, status %d", out, errs, code)
	}
}

// A program that knows nothing of passed sockets has one as stdin and stdout.
func TestActivateInetd(t *testing.T) {
	rights.Proc(t)
	path := filepath.Join(t.TempDir(), "socket")
	r := start(t, sysfdCommand("activate", "--inetd", "-l", "datagram:"+path, "--", "sh", "-c", `echo "$LISTEN_PID$LISTEN_FDS." >&2; exec "$0" listen -json </dev/null >&2 3<&0`, os.Args[0]))
	r.says(t, "listening on")
	c, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("x"))
	if line := r.says(t, ""); line != ".\n" {
		t.Errorf("%q", line)
	}
	if _, status := r.end(t); status != 0 {
		t.Errorf("%#x", status)
	}
	cmd := sysfdCommand("activate", "--inetd", "--now", "-q", "-l", "@sysfd-inetd", "--", "sh", "-c", `exec 1>&2; `+showFDs)
	_, errs, code := status(t, cmd)
	if code != 0 || !strings.HasPrefix(errs, "socket:") || leaked(errs, "socket:") != nil {
		t.Errorf("%q, status %d", errs, code)
	}
}

// accepting starts sysfd activate --accept, and returns its address.
func accepting(t *testing.T, words ...string) (r *running, address string) {
	t.Helper()
	r = start(t, sysfdCommand(append([]string{"activate", "--accept"}, words...)...))
	line := r.says(t, "listening on ")
	_, address, _ = strings.Cut(line, "listening on ")
	address, _, _ = strings.Cut(address, " as ")
	return r, address
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// children returns those of a process.
func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	var list []string
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		list = append(list, strings.Fields(string(b))...)
	}
	return list
}

// Each connection has a program, to which it is passed, and of which nothing remains.
func TestActivateAccept(t *testing.T) {
	r, address := accepting(t, "-l", "0", "-E", "X=y", "--", "sh", "-c",
		`echo $X $REMOTE_ADDR $REMOTE_PORT >&3; "$0" exec -- "$0" listen -json >&3; exit 3`, os.Args[0])
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c := dial(t, "tcp", "127.0.0.1:"+port) // to a socket of IPv6, where there is that
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		line, rest, _ := strings.Cut(string(b), "\n")
		if host, port, _ := net.SplitHostPort(c.LocalAddr().String()); line != "y "+host+" "+port {
			t.Errorf("%q, want %s", line, c.LocalAddr())
		}
		var g given
		if err := json.Unmarshal([]byte(rest), &g); err != nil {
			t.Fatalf("%v in %q", err, rest)
		}
		if len(g.FDs) != 1 || g.FDs[0].FD != 3 || g.FDs[0].Name != "connection" || !strings.HasSuffix(string(g.FDs[0].Address), ":"+port) || g.FDs[0].Listening || g.FDs[0].NonBlocking {
			t.Errorf("%+v", g)
		}
		said := r.says(t, " has the connection from ")
		if _, own, _ := net.SplitHostPort(c.LocalAddr().String()); !strings.Contains(said, ":"+own+" to ") {
			t.Errorf("%q, want %s", said, own)
		}
		pid := strings.Fields(said)[3]
		if line := r.says(t, "process "); !strings.Contains(line, "process "+pid+": exit status 3") {
			t.Errorf("%q", line)
		}
	}
	eventually(t, "no child", func() bool { return len(childrenOf(t, r.Process.Pid)) == 0 })
	r.Process.Signal(syscall.SIGTERM)
	if errs, status := r.end(t); !status.Signaled() || status.Signal() != syscall.SIGTERM || errs != "" {
		t.Errorf("%#x, %q", status, errs)
	}
}

// With more connections than there may be programs some wait.
func TestActivateAcceptLimit(t *testing.T) {
	rights.Proc(t)
	path := filepath.Join(t.TempDir(), "socket")
	r, _ := accepting(t, "-l", "@sysfd-limit", "-l", path, "--max-connections", "2", "--inetd", "--", "cat")
	r.says(t, path)
	var all []net.Conn
	for i := range 6 {
		c := dial(t, "unix", []string{path, "@sysfd-limit"}[i%2])
		all = append(all, c)
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two programs", func() bool { return len(childrenOf(t, r.Process.Pid)) == 2 })
	time.Sleep(100 * time.Millisecond)
	if list := childrenOf(t, r.Process.Pid); len(list) != 2 {
		t.Errorf("%q", list)
	}
	// In the order in which they are answered, they are ended.
	answers := make(chan int)
	for i, c := range all {
		go func() {
			var b [1]byte
			if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != byte(i) {
				t.Errorf("%d: %d, %v", i, b[0], err)
			}
			answers <- i
		}()
	}
	for range all {
		all[<-answers].Close()
	}
	eventually(t, "no program", func() bool { return len(childrenOf(t, r.Process.Pid)) == 0 })
}

// Any name for a connection, and several kinds of sockets, one of them passed.
func TestActivateAcceptPassed(t *testing.T) {
	self := os.Args[0]
	dir := t.TempDir()
	r := start(t, sysfdCommand("activate", "--now", "-l", "@sysfd-accept-1", "-l", dir+"/2", "--fdname", "a:b", "--",
		self, "activate", "--accept", "-l", "seqpacket:"+dir+"/3", "--fdname", "c", "--", self, "listen"))
	r.says(t, "listening on "+dir+"/3 as c")
	for i, test := range []struct{ network, address, want string }{
		{"unix", "@sysfd-accept-1", "3  a  socket unix stream @sysfd-accept-1 connected"},
		{"unix", dir + "/2", "3  b  socket unix stream " + dir + "/2 connected"},
		{"unixpacket", dir + "/3", "3  c  socket unix seqpacket " + dir + "/3 connected"},
	} {
		c := dial(t, test.network, test.address)
		r.says(t, "connection from an unnamed socket to ")
		c.Close()
		eventually(t, "no program", func() bool { return len(childrenOf(t, r.Process.Pid)) == 0 })
		if i == 2 {
			r.Process.Signal(syscall.SIGTERM)
			r.end(t)
			for _, want := range []string{test.want} {
				if !strings.Contains(r.stdout.String(), want) {
					t.Errorf("%q is not in %s", want, &r.stdout)
				}
			}
		}
	}
	// What was passed is not this one's to remove.
	if names := litter(t, dir); !slices.Equal(names, []string{"2"}) {
		t.Errorf("%q", names)
	}
	_, errs, code := status(t, sysfdCommand("activate", "--now", "-l", "udp:127.0.0.1:0", "--fdname", "u", "--", self, "activate", "--accept", "--", "true"))
	if code != 1 || !strings.Contains(errs, "descriptor 3, which was passed as u, does not listen") {
		t.Errorf("%q, status %d", errs, code)
	}
}

// A peer has any name.
func TestActivateAcceptHostile(t *testing.T) {
	r, address := accepting(t, "-l", "@sysfd-hostile", "--", os.Args[0], "listen")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	name := "@\x1b[2J\nsysfd activate: listening on @forged\u202e\xff" + strings.Repeat("x", 50)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		t.Fatal(err)
	}
	line := r.says(t, "has the connection")
	if !strings.Contains(line, "from "+quote(name)+" to") || harmful(strings.TrimSuffix(line, "\n")) {
		t.Errorf("%q", line)
	}
	eventually(t, "no program", func() bool { return len(childrenOf(t, r.Process.Pid)) == 0 })
	r.Process.Signal(syscall.SIGTERM)
	r.end(t)
	if out := r.stdout.String(); harmful(strings.ReplaceAll(out, "\n", "")) || !strings.Contains(out, " connected to "+quote(name)+" ") {
		t.Errorf("%q", out)
	}
}

// A program that cannot be executed is no reason to end.
func TestActivateAcceptNoProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexit 9\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, address := accepting(t, "-l", "127.0.0.1:0", "--", program)
	os.Rename(program, program+"2")
	for range 2 {
		c := dial(t, "tcp", address)
		r.says(t, "connection from "+c.LocalAddr().String()+": ")
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("%q, %v", b, err)
		}
	}
	os.Rename(program+"2", program)
	dial(t, "tcp", address)
	r.says(t, "exit status 9")
}

// As process 1 it reaps, ends by a signal, and leaves no file.
func TestActivateProcess1(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	cmd := sysfdCommand("activate", "--accept", "--inetd", "-l", path, "--", "sh", "-c", `(read x; exit 5) & echo $$ $PPID; exec >&-`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	r := start(t, cmd)
	r.says(t, "listening on "+path)
	for range 3 {
		c := dial(t, "unix", path)
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasSuffix(line, " 1\n") {
			t.Errorf("%q, %v", line, err)
		}
		c.Close()
	}
	eventually(t, "no child, nor an orphan", func() bool { return len(childrenOf(t, cmd.Process.Pid)) == 0 })
	cmd.Process.Signal(syscall.SIGTERM)
	if errs, status := r.end(t); status.ExitStatus() != 128+15 {
		t.Errorf("%#x, %q", status, errs)
	}
	if names := litter(t, dir); names != nil {
		t.Errorf("%q", names)
	}
}

// Few descriptors, and none of the standard ones.
func TestActivateFewDescriptors(t *testing.T) {
	rights.Proc(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "socket")
	worked := false
	for limit := 4; limit < 24; limit++ {
		cmd := sysfdCommand("activate", "-q", "--now", "-l", "@sysfd-few", "-l", path, "--", "true")
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", fmt.Sprintf("ulimit -n %d; exec \"$@\"", limit), "sh"}, cmd.Args...)
		_, errs, code := status(t, cmd)
		worked = code == 0
		if code > 2 || code == 0 && errs != "" || code != 0 && strings.Contains(errs, "goroutine") {
			t.Errorf("%d: status %d, %q", limit, code, errs)
		}
		if names := litter(t, dir); code != 0 && names != nil {
			t.Errorf("%d: %q, %q", limit, names, errs)
		}
		os.Remove(path)
	}
	if !worked {
		t.Error("23 are not enough")
	}
	out := filepath.Join(t.TempDir(), "out")
	cmd := exec.Command("sh", "-c", `exec 3>"$2" 0<&- 1>&- 2>&-; `+commandVar+`=1 exec "$0" activate --now -l "$1" -- sh -c 'exec >"$0"; `+showFDs+`' "$2"`, os.Args[0], path, out)
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(out)
	if !strings.HasPrefix(string(b), "/dev/null\n"+out+"\n") || leaked(string(b), "socket:") != nil || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// No connection is lost, and no program is left unreaped, because there are too few descriptors for so many programs at a time.
func TestActivateAcceptFewDescriptors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	abstract := fmt.Sprint("@sysfd-few-accept-", os.Getpid(), "-", time.Now().UnixNano())
	cmd := sysfdCommand("activate", "--accept", "-l", abstract, "-l", path, "--inetd", "--", "cat")
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `ulimit -n 18; exec "$@"`, "sh"}, cmd.Args...)
	r := start(t, cmd)
	r.says(t, "listening on "+path)
	var wait sync.WaitGroup
	for i := range 40 {
		c := dial(t, "unix", []string{path, abstract}[i%2])
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			var b [1]byte
			if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != byte(i) {
				t.Errorf("%d: %d, %v", i, b[0], err)
			}
			time.Sleep(100 * time.Millisecond) // so that they are many
			c.Close()
		}()
	}
	wait.Wait()
	eventually(t, "no program", func() bool { return len(childrenOf(t, r.Process.Pid)) == 0 })
	if t.Failed() {
		r.Process.Kill()
		rest, _ := io.ReadAll(r.lines)
		t.Logf("it printed:\n%s", rest)
	}
}

func TestLower(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 500)
	if err != nil {
		t.Fatal(err)
	}
	high := os.NewFile(uintptr(fd), "a name")
	low := lower(high)
	defer low.Close()
	flags, err := unix.FcntlInt(low.Fd(), unix.F_GETFD, 0)
	if low.Fd() >= 500 || low.Name() != "a name" || flags != unix.FD_CLOEXEC || err != nil {
		t.Errorf("%d, %q, %d, %v", low.Fd(), low.Name(), flags, err)
	}
	if _, err := high.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the high descriptor: %v", err)
	}
	if lower(low) != low {
		t.Error("the lowest descriptor was moved")
	}
	if _, err := low.Stat(); err != nil {
		t.Error(err)
	}
}

// ignoredBy returns the signals that a process finds ignored, by what it prints of /proc/self/status.
func ignoredBy(t *testing.T, text string) (signals []int) {
	t.Helper()
	_, hex, _ := strings.Cut(text, "SigIgn:")
	mask, err := strconv.ParseUint(strings.TrimSpace(strings.SplitN(hex, "\n", 2)[0]), 16, 64)
	if err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	for sig := 1; sig <= 64; sig++ {
		if mask&(1<<(sig-1)) != 0 {
			signals = append(signals, sig)
		}
	}
	return signals
}

func TestIgnoreSignal(t *testing.T) {
	rights.Proc(t)
	show := []string{"--", "grep", "SigIgn", "/proc/self/status"}
	var can, cannot []string
	var numbers []int
	for sig := 1; sig <= 64; sig++ {
		cmd := sysfdCommand("exec", "--ignore-signal="+strconv.Itoa(sig), "--", "true")
		if _, errs, code := status(t, cmd); code == 2 && strings.Contains(errs, "cannot be ignored") {
			cannot = append(cannot, unix.SignalName(syscall.Signal(sig)))
		} else if code != 0 {
			t.Errorf("%d: %q, status %d", sig, errs, code)
		} else {
			can, numbers = append(can, strconv.Itoa(sig)), append(numbers, sig)
		}
	}
	if len(can) < 50 || !slices.Contains(cannot, "SIGKILL") || slices.Contains(cannot, "SIGPIPE") {
		t.Errorf("%q cannot be ignored, %q can", cannot, can)
	}
	// All that are not refused.
	out, errs, code := status(t, sysfdCommand(slices.Concat([]string{"exec", "--ignore-signal", strings.Join(can, ",")}, show)...))
	if got := ignoredBy(t, out); code != 0 || !slices.Equal(got, numbers) {
		t.Errorf("%v, want %v: %q, status %d", got, numbers, errs, code)
	}
	// Without it none, even if they were.
	cmd := exec.Command("sh", "-c", `trap "" PIPE; `+commandVar+`=1 exec "$0" exec "$@"`, os.Args[0])
	cmd.Args = append(cmd.Args, show...)
	if out, errs, code := status(t, cmd); code != 0 || len(ignoredBy(t, out)) > 0 {
		t.Errorf("%q, %q, status %d", out, errs, code)
	}

	both := []int{int(syscall.SIGUSR1), int(syscall.SIGPIPE)}
	flags := []string{"--ignore-signal=SIGPIPE", "--ignore-signal=usr1"}
	for _, words := range [][]string{{"exec"}, {"activate", "-q", "--now", "-l", "@sysfd-ignore"}} {
		out, errs, code := status(t, sysfdCommand(slices.Concat(words, flags, show)...))
		if got := ignoredBy(t, out); code != 0 || !slices.Equal(got, both) {
			t.Errorf("%q: %v, %q, status %d", words, got, errs, code)
		}
	}
	for _, inetd := range []string{"-q=false", "--inetd"} {
		words := slices.Concat([]string{"-l", "127.0.0.1:0", inetd}, flags, []string{"--", "sh", "-c", `grep SigIgn /proc/self/status; echo "$LISTEN_PID:$$:$0:$1:$REMOTE_ADDR"`, "a b", ""})
		r, address := accepting(t, words...)
		c := dial(t, "tcp", address)
		answer := ""
		if inetd == "--inetd" {
			b, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			answer = string(b)
		} else {
			io.ReadAll(c)
			eventually(t, "no program", func() bool { return len(childrenOf(t, r.Process.Pid)) == 0 })
		}
		r.Process.Signal(syscall.SIGTERM)
		r.end(t)
		answer += r.stdout.String()
		if got := ignoredBy(t, answer); !slices.Equal(got, both) {
			t.Errorf("%v: %q", got, answer)
		}
		_, line, _ := strings.Cut(strings.TrimSpace(answer), "\n")
		pid, tail, _ := strings.Cut(line, ":")
		self, tail, _ := strings.Cut(tail, ":")
		if tail != "a b::127.0.0.1" || inetd == "--inetd" && pid != "" || inetd != "--inetd" && pid != self {
			t.Errorf("%q", answer)
		}
	}
	if rights.Has(rights.DACReadSearch) {
		h, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, os.Args[0], 0)
		if err != nil {
			t.Skip(err)
		}
		out, errs, code := status(t, sysfdCommand(slices.Concat([]string{"open", "-mount", filepath.Dir(os.Args[0])}, flags, []string{h.String()}, show)...))
		if got := ignoredBy(t, out); code != 0 || !slices.Equal(got, both) {
			t.Errorf("%v, %q, status %d", got, errs, code)
		}
	}
}

// The statuses of env(1).
func TestProgramStatus(t *testing.T) {
	dir := t.TempDir()
	plain, broken := filepath.Join(dir, "plain"), filepath.Join(dir, "broken")
	for name, mode := range map[string]os.FileMode{plain: 0o600, broken: 0o700} {
		if err := os.WriteFile(name, []byte("#!/no/such/interpreter\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		program string
		code    int
	}{
		{"no-such-program", 127}, {dir + "/none", 127}, {"plain", 126}, {plain, 126}, {"/dev/null", 126}, {dir, 126}, {plain + "/x", 126}, {broken, 127}, {"broken", 127}, {"", 127}, {"true", 0}, {"false", 1},
	} {
		var got []int
		for _, words := range [][]string{{"env"}, {"exec"}, {"activate", "-q", "--now", "-l", "@sysfd-status"}} {
			cmd := sysfdCommand(append(words, test.program)...)
			if words[0] == "env" {
				cmd = exec.Command("env", test.program)
				cmd.Env = os.Environ()
			}
			cmd.Env = append(cmd.Env, "PATH="+dir+":/usr/bin:/bin")
			_, _, code := status(t, cmd)
			got = append(got, code)
		}
		if !slices.Equal(got, []int{test.code, test.code, test.code}) {
			t.Errorf("%q: %d of env, exec and activate, want %d", test.program, got, test.code)
		}
	}
	// One in the working directory, if that is in $PATH.
	cmd := sysfdCommand("exec", "here")
	var err error
	if cmd.Path, err = filepath.Abs(cmd.Path); err != nil {
		t.Fatal(err)
	}
	cmd.Dir = dir
	if err := os.WriteFile(filepath.Join(dir, "here"), []byte("#!/bin/sh\nexit 8\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "PATH=:/usr/bin:/bin")
	if _, errs, code := status(t, cmd); code != 8 {
		t.Errorf("%q, status %d", errs, code)
	}
}

// open becomes its program: the process is the same, and nothing else is open.
func TestOpenExecutes(t *testing.T) {
	rights.Proc(t)
	rights.Need(t, rights.DACReadSearch)
	dir := t.TempDir()
	name := filepath.Join(dir, "name")
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, name, 0)
	if err != nil {
		t.Skip(err)
	}
	words := []string{"open", "-mount", dir, h.String(), "--", "sh", "-c", `echo $$; cat {}; echo; readlink /proc/$$/fd/3; ` + showFDs + `; kill -9 $$`}
	extra, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	for given := range 3 { // what was passed as descriptor 3 gives way, others stay
		cmd := sysfdCommand(words...)
		for range given {
			cmd.ExtraFiles = append(cmd.ExtraFiles, extra)
		}
		var out bytes.Buffer
		cmd.Stdout = &out
		cmd.Run()
		shown, ok := strings.CutPrefix(out.String(), fmt.Sprintf("%d\ntext\n%s\n", cmd.Process.Pid, name))
		if !ok || leaked(shown, name) != nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("%q, %v", out.String(), cmd.ProcessState)
		}
	}
	// The file is not taken for a socket that was passed.
	out, errs, code := status(t, sysfdCommand("activate", "-q", "--now", "-l", "@sysfd-open", "--", os.Args[0], "open", "-mount", dir, h.String(), "--", os.Args[0], "listen"))
	if code != 0 || !strings.Contains(out, "nothing was passed: LISTEN_PID is not set\n") {
		t.Errorf("%q, %q, status %d", out, errs, code)
	}
	// A stdin in non-blocking mode makes the runtime open its poller before anything else.
	cmd := sysfdCommand(words...)
	stdin, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	defer w.Close()
	conn, err := stdin.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Control(func(fd uintptr) {
		dup, errDup := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err = errDup; err == nil {
			cmd.Stdin = os.NewFile(uintptr(dup), "stdin")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Stdin.(*os.File).Close()
	out, errs, _ = status(t, cmd)
	if _, shown, ok := strings.Cut(out, "\ntext\n"+name+"\n"); !ok || leaked(shown, name) != nil {
		t.Errorf("%q, %q", out, errs)
	}
}

// What is said of a peer is said of this one, and of no other that was there before.
func TestRemote(t *testing.T) {
	if got := withoutRemote([]string{"A=1", "REMOTE_ADDR=x", "REMOTE_PORT=1", "REMOTE_ADDRESS=y"}); !slices.Equal(got, []string{"A=1", "REMOTE_ADDRESS=y"}) {
		t.Errorf("%q", got)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if got := remote(pair[0]); got != nil {
		t.Errorf("%q", got)
	}
	t.Setenv("REMOTE_ADDR", "stale")
	r, address := accepting(t, "--inetd", "-l", "@sysfd-remote", "--", "sh", "-c", "echo .$REMOTE_ADDR$REMOTE_PORT.")
	if b, err := io.ReadAll(dial(t, "unix", address)); string(b) != "..\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	r.Process.Signal(syscall.SIGTERM)
	r.end(t)
}
