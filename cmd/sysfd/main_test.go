//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/overdue"
	"github.com/sysfd/sysfd/internal/rights"
)

// With this variable the test binary is the command.
const commandVar = "SYSFD_TEST_COMMAND"

func TestMain(m *testing.M) {
	if numbers := os.Getenv(withoutVar); numbers != "" {
		if err := againWithout(numbers); err != nil {
			panic(err)
		}
	}
	if os.Getenv(commandVar) != "" {
		main()
	}
	sysfd.ListenShim()
	if os.Getenv(userVar) != "" {
		if err := severalUsers(); err != nil {
			panic(err)
		}
		return
	}
	// nohup ignores SIGHUP, and a script SIGINT for what it runs with &. The programs of the tests do
	// not inherit that: what this process handles has its default action there.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	overdue.Report()
	os.Exit(m.Run())
}

func sysfdCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), commandVar+"=1")
	return cmd
}

// status runs cmd and returns what it printed.
func status(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// succeeds runs cmd and decodes the JSON that it prints.
func succeeds(t *testing.T, cmd *exec.Cmd, v any) {
	t.Helper()
	out, errs, code := status(t, cmd)
	if code != 0 {
		t.Fatalf("%v: status %d\n%s%s", cmd, code, out, errs)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
}

var badUsage = []struct{ args, names string }{
	{"", "a command is missing"},
	{"nonsense", `"nonsense"`},
	{"probe -x", "-x"},
	{"probe extra", `"extra"`},
	{"id", "a PID is missing"},
	{"handle", "a PATH is missing"},
	{"handle -ref -fid .", "-ref excludes all other flags but -follow"},
	{"open", "a HANDLE or REF is missing"},
	{"open uuid:12/1", `"uuid:12/1" is not a file reference`},
	{"open -mount / uuid:12/1:", "-mount is for a HANDLE"},
	{"open 12", `"12" is not a file handle`},
	{"open -search . 1: -- cat", "-search prints the path"},
	{"cgroup", "one ID or PATH"},
	{"cgroup 18446744073709551616", "18446744073709551616"},
	{"help x", `unknown command "x"`},
	{"help probe x", `unexpected argument "x"`},
	{"help -man x", `unexpected argument "x"`},
	{"help -man -bash", "exclude each other"},
	{"version x", `unexpected argument "x"`},
	{"id 0", `"0"`},
	{"id -ref 4294967297", `"4294967297"`},
	{"id one", `"one"`},
	{"info", "a PID is missing"},
	{"info 1 x", `"x" is not a PID`},
	{"info -json x", `"x" is not a PID`},
	{"info 1:0", `"1:0" is not a process reference`},
	{"wait", "a PID is missing"},
	{"wait -timeout -1s 1", "not a time"},
	{"wait 1 -timeout 5", "flag -timeout must precede the processes"},
	{"wait self", "self is this command"},
	{"kill 1 self", "self is this command"},
	{"kill -x 1", "-x"},
	{"kill -s NONSENSE 1", `"NONSENSE" is not a signal`},
	{"kill -s 65 1", `"65" is not a signal`},
	{"kill", "a PID is missing"},
	{"ns -kind x", "not a kind"},
	{"ns -kind net 0", `"0" is not a PID`},
	{"ns 1 2", `unexpected argument "2"`},
	{"listen -xml", "-xml"},
	{"listen extra", `"extra"`},
	{"exec", "PROGRAM is missing"},
	{"exec --ignore-signal x true", `"x" is not a signal`},
	{"exec --ignore-signal PIPE,0 true", `"0" is not a signal`},
	{"exec --ignore-signal KILL true", "KILL cannot be ignored"},
	{"exec --ignore-signal=33 true", "33 cannot be ignored"},
	{"activate", "-l ADDRESS is missing"},
	{"activate -l @a", "PROGRAM is missing"},
	{"activate -l @a --", "PROGRAM is missing"},
	{"activate -l @a -E x -- true", "not NAME=VALUE"},
	{"activate -l @a -E =x -- true", "not NAME=VALUE"},
	{"activate -l @a -E LISTEN_FDS=3 -- true", "LISTEN_FDS=3"},
	{"activate -l= -- true", "not an address"},
	{"activate -l : -- true", "not an address"},
	{"activate -l @ -- true", "not an address"},
	{"activate -l localhost -- true", "not an address"},
	{"activate -l ::1 -- true", "not host:port"},
	{"activate -l 127.0.0.1:65536 -- true", "not an address"},
	{"activate -l @a -l @b -l @c --fdname x:y -- true", "2 names for 3 addresses"},
	{"activate -l @a --fdname x:y -- true", "2 names for 1 address\n"},
	{"activate -l @a --fdname x\ny -- true", `"x\ny"`},
	{"activate -l tcp:@a -- true", "tcp is not a kind of Unix socket"},
	{"activate -l seqpacket:80 -- true", "seqpacket is for Unix sockets only"},
	{"activate -seqpacket -l 80 -- true", "seqpacket is for Unix sockets only"},
	{"activate -l @a -d --seqpacket -- true", "exclude each other"},
	{"activate -l @a --accept --now -- true", "excludes -now"},
	{"activate -l udp:0 --accept -- true", "no connections to accept"},
	{"activate -d -l @a --accept -- true", "no connections to accept"},
	{"activate -l @a --accept --max-connections 0 -- true", "more than 0"},
	{"activate -l @a --inetd --fdname x -- true", "excludes -fdname"},
	{"activate -l @a -l @b --inetd -- true", "there are 2"},
	{"activate --fdname x -- true", "-l ADDRESS is missing"},
	{"activate -x\ny", `-x\ny`},
	{`activate -l @a --fdname x\ -- true`, `"x\\"`},
}

func TestBadUsage(t *testing.T) {
	for _, test := range badUsage {
		args := strings.Split(test.args, " ")
		if test.args == "" {
			args = nil
		}
		out, errs, code := status(t, sysfdCommand(args...))
		if code != 2 || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, test.names) || !strings.HasPrefix(errs, "sysfd") {
			t.Errorf("sysfd %s: status %d, %q, %q", test.args, code, out, errs)
		}
	}
}

func TestID(t *testing.T) {
	me, err := pidfdID(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(os.Getpid())
	out, errs, code := status(t, sysfdCommand("id", pid, "self"))
	if lines := strings.Fields(out); code != 0 || len(lines) != 2 || lines[0] != me.String() || lines[1] == me.String() {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	out, errs, code = status(t, sysfdCommand("id", "-ref", pid))
	ref, err := sysfd.SelfRef()
	if err != nil {
		t.Fatal(err)
	}
	if want := ref.String() + "\n"; code != 0 || out != want {
		t.Errorf("status %d, %q, %q, want %q", code, out, errs, want)
	}
	gone := sysfdCommand("id", "self")
	status(t, gone)
	out, errs, code = status(t, sysfdCommand("id", strconv.Itoa(gone.Process.Pid), pid))
	if code != 1 || out != me.String()+"\n" || !strings.Contains(errs, strconv.Itoa(gone.Process.Pid)) {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
}

func TestHandleOpen(t *testing.T) {
	rights.Proc(t)
	rights.Need(t, rights.DACReadSearch)
	dir := t.TempDir()
	name, moved := filepath.Join(dir, "name"), filepath.Join(dir, "moved")
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	var list []handleInfo
	succeeds(t, sysfdCommand("handle", "-json", "-unique", name, dir), &list)
	if len(list) != 2 || list[0].Path != text(name) || list[0].Handle.IsZero() || !list[0].MountID.Unique() || list[0].Handle == list[1].Handle {
		t.Fatalf("%+v", list)
	}
	h := list[0].Handle.String()
	out, errs, code := status(t, sysfdCommand("handle", name, name+"x"))
	if code != 1 || !strings.HasPrefix(out, h+"\t") || !strings.HasSuffix(out, "\t"+name+"\n") || !strings.Contains(errs, name+"x") {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	if err := os.Rename(name, moved); err != nil {
		t.Fatal(err)
	}
	out, errs, code = status(t, sysfdCommand("open", "-mount", dir, h))
	if code != 0 || out != moved+"\n" {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	out, errs, code = status(t, sysfdCommand("open", "-mount", dir, h, "--", "sh", "-c", "cat <&3; cat {}; exit 7"))
	if code != 7 || out != "texttext" {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	out, errs, code = status(t, sysfdCommand("open", "-mount", dir, h, "--", filepath.Join(dir, "no-program")))
	if code != 127 || !strings.Contains(errs, "no-program") {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	if ref := list[0].Ref; ref == nil {
		t.Logf("the file system of %s has no identity", dir)
	} else {
		out, errs, code = status(t, sysfdCommand("handle", "-ref", moved))
		if code != 0 || out != ref.String()+"\t"+moved+"\n" {
			t.Errorf("status %d, %q, %q", code, out, errs)
		}
		out, errs, code = status(t, sysfdCommand("open", ref.String(), "--", "cat", "{}"))
		if code != 0 || out != "text" {
			t.Errorf("status %d, %q, %q", code, out, errs)
		}
	}
	if err := os.Remove(moved); err != nil {
		t.Fatal(err)
	}
	out, errs, code = status(t, sysfdCommand("open", "-mount", dir, h))
	if code != 1 || out != "" || !strings.Contains(errs, "stale") {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
}

// A file that no one has looked up by name since the file system was mounted is found
// by its handle, but has no path.
func TestOpenPathUnknown(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		rights.Lacks(t, "loop devices")
	}
	dir := t.TempDir()
	image, mounted := filepath.Join(dir, "image"), filepath.Join(dir, "mounted")
	tool := func(words ...string) {
		t.Helper()
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%q: %v: %s", words, err, out)
			}
			t.Skipf("%q: %v: %s", words, err, out)
		}
	}
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	tool("truncate", "-s", "8M", image)
	tool("mkfs.ext4", "-q", "-F", image)
	mount := func() { tool("mount", "-o", "loop", image, mounted) }
	mount()
	defer syscall.Unmount(mounted, syscall.MNT_DETACH)
	name := filepath.Join(mounted, "name")
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	tool("umount", mounted)
	mount()
	out, errs, code := status(t, sysfdCommand("open", "-mount", mounted, h.String()))
	if code != 1 || out != "" || !strings.Contains(errs, "sysfd open -search DIR "+h.String()) {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	sub := filepath.Join(mounted, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]string{sub: "not among the 1 ", dir: "is not on the file system", filepath.Join(dir, "missing"): "missing"} {
		out, errs, code := status(t, sysfdCommand("open", "-mount", mounted, "-search", where, h.String()))
		if code != 1 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d, %q, %q", where, code, out, errs)
		}
	}
	out, errs, code = status(t, sysfdCommand("open", "-mount", mounted, "-search", mounted, h.String()))
	if code != 0 || out != name+"\n" || errs != "" {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(mounted, link); err != nil {
		t.Fatal(err)
	}
	out, errs, code = status(t, sysfdCommand("open", "-mount", mounted, "-search", link, h.String()))
	if code != 0 || out != name+"\n" {
		t.Errorf("status %d, %q, %q", code, out, errs)
	}
	// The search has looked it up.
	out, errs, code = status(t, sysfdCommand("open", "-mount", mounted, h.String()))
	if code != 0 || out != name+"\n" {
		t.Errorf("once looked up: status %d, %q, %q", code, out, errs)
	}
}

func TestCgroup(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch)
	rights.Proc(t)
	mount := func(fsType, options string) string {
		t.Helper()
		dir := filepath.Join(t.TempDir(), fsType)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("none", dir, fsType, 0, options); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		return dir
	}
	group := func(dir string, parts ...string) string {
		t.Helper()
		dir = filepath.Join(append([]string{dir}, parts...)...)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(dir) })
		return dir
	}
	fails := func(want string, words ...string) {
		t.Helper()
		out, errs, code := status(t, sysfdCommand(append([]string{"cgroup"}, words...)...))
		if code != 1 || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q: status %d, %q, %q", words, code, out, errs)
		}
	}
	said := func(words ...string) string {
		t.Helper()
		out, errs, code := status(t, sysfdCommand(append([]string{"cgroup"}, words...)...))
		if code != 0 || errs != "" || !strings.HasSuffix(out, "\n") {
			t.Errorf("%q: status %d, %q, %q", words, code, out, errs)
		}
		return strings.TrimSuffix(out, "\n")
	}
	other := t.TempDir()
	fails(strconv.Quote(other)+" is not on a cgroup file system", other)

	dir := mount("cgroup2", "")
	top := group(dir, fmt.Sprintf("sysfd-command-%d", os.Getpid()))
	inside, beside := group(top, "in side"), group(top, "beside")
	for _, path := range []string{dir, top, inside} {
		id := said(path)
		// The mount is found by any directory on it, under any name.
		link := filepath.Join(other, "link")
		os.Remove(link)
		if err := os.Symlink(top, link); err != nil {
			t.Fatal(err)
		}
		for _, on := range []string{dir, dir + "/", top, beside, link} {
			if is := said("-mount", on, id); is != path {
				t.Errorf("%s on %s: %s, want %s", id, on, is, path)
			}
		}
	}
	evil := group(top, "\x1b[2J\xff")
	if is := said("-mount", dir, said(evil)); is != "$'"+top+`/\033[2J\377'` {
		t.Errorf("%s", is)
	}
	fails("no cgroup has the ID 18446744073709551615", "-mount", dir, "18446744073709551615")
	fails(other+": ", "-mount", other, "1")
	file, _, err := sysfd.CgroupIDAt(sysfd.AT_FDCWD, filepath.Join(top, "cgroup.procs"), 0)
	if err != nil {
		t.Fatal(err)
	}
	fails("is that of a file", "-mount", dir, file.String())

	// A part of the hierarchy.
	part := filepath.Join(other, "part")
	if err := os.Mkdir(part, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(inside, part, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(part, syscall.MNT_DETACH)
	if is := said("-mount", part, said(inside)); is != part {
		t.Errorf("%s", is)
	}
	fails("exists, but outside what the mount shows", "-mount", part, said(beside))

	// Version 1, where the hierarchy is told and IDs are its own.
	name := fmt.Sprintf("name=sysfd-command-%d", os.Getpid())
	v1 := mount("cgroup", "none,"+name)
	defer func() { // the kernel forgets the hierarchy at an unmount, but not while it buries the last of its cgroups
		for range 30 {
			os.Remove(filepath.Join(v1, "old"))
			syscall.Unmount(v1, syscall.MNT_DETACH)
			for range 100 {
				if text, err := os.ReadFile("/proc/self/cgroup"); err != nil || !strings.Contains(string(text), ":"+name+":") {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
			syscall.Mount("none", v1, "cgroup", 0, "none,"+name)
		}
		t.Error(name + " stays")
	}()
	old := group(v1, "old")
	id, hierarchy, _ := strings.Cut(said(old), "\t")
	if hierarchy != name {
		t.Errorf("%q", hierarchy)
	}
	if is := said("-mount", v1, id); is != old {
		t.Errorf("%s", is)
	}
	_, errs, code := status(t, sysfdCommand("kill", "-cgroup", old))
	if code != 1 || !strings.Contains(errs, "is on cgroup v1 ("+name+")") {
		t.Errorf("status %d, %q", code, errs)
	}
}

func TestListenNothing(t *testing.T) {
	var g map[string]any
	succeeds(t, sysfdCommand("listen", "-json"), &g)
	fds, isList := g["fds"].([]any)
	env, isObject := g["env"].(map[string]any)
	if _, hasError := g["error"]; hasError || !isList || len(fds) != 0 || !isObject || len(env) != 0 || g["reason"] != "LISTEN_PID is not set" {
		t.Errorf("%v", g)
	}
	if _, isNumber := g["pidfdId"].(float64); !isNumber {
		t.Errorf("pidfdId is %v", g["pidfdId"])
	}
}

func TestListenError(t *testing.T) {
	cmd := sysfdCommand("listen", "-json")
	cmd.Env = append(cmd.Env, "LISTEN_PID=x", "LISTEN_FDNAMES=<&>")
	out, errs, code := status(t, cmd)
	var g given
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		t.Fatal(err)
	}
	const want = `LISTEN_PID="x": not a PID`
	if code != 1 || errs != "" || g.Error != want || g.Reason != want || g.Env["LISTEN_FDNAMES"] != "<&>" || !strings.Contains(out, "<&>") {
		t.Errorf("status %d, %q, %+v", code, errs, g)
	}
	cmd = sysfdCommand("listen")
	cmd.Env = append(cmd.Env, "LISTEN_PID=x")
	if out, _, code := status(t, cmd); code != 1 || !strings.Contains(out, "error: "+want) {
		t.Errorf("status %d, %q", code, out)
	}
}

// What is addressed to another process, and what is addressed to nobody.
func TestListenExplains(t *testing.T) {
	for _, test := range []struct {
		env  []string
		want string
	}{
		{nil, "nothing was passed: LISTEN_PID is not set\n"},
		{[]string{"LISTEN_FDS=1"}, "nothing was passed: LISTEN_PID is not set, though LISTEN_FDS is"},
		{[]string{"LISTEN_PID=1", "LISTEN_FDS=1"}, "nothing was passed: LISTEN_PID names process 1; this is process "},
	} {
		cmd := sysfdCommand("listen")
		cmd.Env = append(cmd.Env, test.env...)
		if out, _, code := status(t, cmd); code != 0 || !strings.Contains(out, test.want) {
			t.Errorf("%q: status %d, %q", test.env, code, out)
		}
	}
	// A shell stands between: it renews $LISTEN_PID, and not $LISTEN_PIDFDID.
	cmd := sysfdCommand("activate", "--now", "-l", "127.0.0.1:0", "--", "sh", "-c", `"$0" listen; (sh -c 'LISTEN_PID=$$ exec "$0" listen' "$0"); :`, os.Args[0])
	out, errs, code := status(t, cmd)
	for _, want := range []string{"LISTEN_PID names process " + strconv.Itoa(cmd.Process.Pid), "but LISTEN_PIDFDID names pidfd ID "} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("%q is not said: status %d, %q, %q", want, code, out, errs)
		}
	}
}

// activated runs sysfd listen by way of sysfd activate, without waiting for traffic.
func activated(t *testing.T, args ...string) (g given) {
	t.Helper()
	args = append([]string{"activate", "--now"}, args...)
	cmd := sysfdCommand(append(args, "--", os.Args[0], "listen", "-json")...)
	// What it must not hand on.
	cmd.Env = append(cmd.Env, "LISTEN_PID=1", "LISTEN_PIDFDID=1", "LISTEN_FDS=9", "LISTEN_FDNAMES=stale")
	succeeds(t, cmd, &g)
	if g.PID != cmd.Process.Pid || g.Env["LISTEN_PID"] != text(strconv.Itoa(g.PID)) || g.PidFDID == nil || g.Env["LISTEN_PIDFDID"] != text(g.PidFDID.String()) {
		t.Errorf("process %d: %+v", cmd.Process.Pid, g)
	}
	for i, fd := range g.FDs {
		if fd.FD != 3+i || !fd.CloseOnExec || fd.NonBlocking || fd.Kind != "socket" {
			t.Errorf("%+v", fd)
		}
	}
	return g
}

func TestActivateListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	abstract := fmt.Sprintf("@sysfd-test-%d", os.Getpid())
	g := activated(t, "-l", "127.0.0.1:0", "-l", path, "-l", abstract, "--fdname", "a:b:")
	var got []string
	for _, fd := range g.FDs {
		got = append(got, string(fd.Name)+" "+fd.what())
	}
	want := []string{"a socket inet stream listening 127.0.0.1:", "b socket unix stream listening " + path, " socket unix stream listening " + abstract}
	if len(got) != 3 || !strings.HasPrefix(got[0], want[0]) || !slices.Equal(got[1:], want[1:]) {
		t.Errorf("%q, want %q", got, want)
	}
	// The file of the socket is still there, and nothing listens on it.
	g = activated(t, "-d", "-l", path+"2", "-l", "127.0.0.1:0", "--fdname", "both")
	if len(g.FDs) != 2 || g.FDs[0].Type != "dgram" || g.FDs[1].Type != "dgram" || g.FDs[0].Listening || g.FDs[1].Name != "both" {
		t.Errorf("%+v", g.FDs)
	}
	for _, again := range [][]string{{"-l", path}, {"-d", "-l", path + "2"}} {
		if g := activated(t, again...); len(g.FDs) != 1 || g.FDs[0].Name != "unknown" {
			t.Errorf("%+v", g.FDs)
		}
	}
	if g := activated(t, "-l", "0"); len(g.FDs) != 1 || !strings.HasPrefix(g.FDs[0].Domain, "inet") {
		t.Errorf("%+v", g.FDs)
	}
}

// A socket in use, even if only bound, and a file that is no socket, are left alone.
func TestActivateAddressInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bound := filepath.Join(t.TempDir(), "bound")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: bound}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, bound, file} {
		_, errs, code := status(t, sysfdCommand("activate", "--now", "-l", name, "--", "true"))
		if _, err := os.Lstat(name); code != 1 || !strings.Contains(errs, "address already in use") || err != nil {
			t.Errorf("status %d, %q, %v", code, errs, err)
		}
	}
	l.(*net.UnixListener).SetDeadline(time.Now())
	if c, err := l.Accept(); err == nil {
		t.Errorf("the server was disturbed by %v", c)
	}
}

// Output that could not be written is a failure.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, args := range []string{"id self", "listen", "listen -json", "probe"} {
		cmd := sysfdCommand(strings.Fields(args)...)
		cmd.Stdout = full
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("sysfd %s: %v", args, err)
		}
	}
}

func TestActivateWaits(t *testing.T) {
	rights.Proc(t)
	path := filepath.Join(t.TempDir(), "socket")
	cmd := sysfdCommand("activate", "-l", path, "-E", "LISTENER=with=equals", "--", "sh", "-c", "echo $LISTENER $LISTEN_FDS; exit 7")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if want := "listening on " + path; err != nil || !strings.Contains(line, want) {
		t.Errorf("%q, %v", line, err)
	}
	time.Sleep(100 * time.Millisecond)
	words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
	if err != nil || !strings.HasPrefix(string(words), os.Args[0]+"\x00activate") {
		t.Errorf("it did not wait: %q, %v", words, err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cmd.Wait()
	if out.String() != "with=equals 1\n" || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("status %d, %q", cmd.ProcessState.ExitCode(), &out)
	}
}

func TestActivateNoProgram(t *testing.T) {
	cmd := sysfdCommand("activate", "--now", "-l", "127.0.0.1:0", "--", "no-such-program")
	cmd.Env = append(cmd.Env, plainPath)
	_, errs, code := status(t, cmd)
	if code != 127 || !strings.Contains(errs, "no-such-program") || strings.Contains(errs, "listening") {
		t.Errorf("status %d, %q", code, errs)
	}
}

// The activator of systemd passes sockets to sysfd listen. Versions before 259 do not
// set $LISTEN_PIDFDID.
func TestSystemdSocketActivate(t *testing.T) {
	program, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd-socket-activate should be there")
		}
		t.Skip("systemd-socket-activate (Debian's package systemd) is not installed")
	}
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	cmd := exec.Command(program, "-l", first, "-l", second, "--fdname", "a:b", "-E", commandVar+"=1", os.Args[0], "listen", "-json")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var c net.Conn
	for range 100 {
		if c, err = net.Dial("unix", second); err == nil {
			defer c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	cmd.Wait()
	var g given
	if err := json.Unmarshal(out.Bytes(), &g); err != nil {
		t.Fatalf("%v in %s%s", err, &out, &errs)
	}
	if g.PID != cmd.Process.Pid || len(g.FDs) != 2 || g.FDs[0].Name != "a" || g.FDs[0].Address != text(first) || !g.FDs[0].Listening || g.FDs[1].Name != "b" || g.FDs[1].Address != text(second) {
		t.Errorf("%+v", g)
	}
	if id, set := g.Env["LISTEN_PIDFDID"]; set && id != text(g.PidFDID.String()) {
		t.Errorf("%+v", g)
	}
}

func TestProbe(t *testing.T) {
	var p struct {
		GOARCH   string
		Features []result
	}
	succeeds(t, sysfdCommand("probe", "-json"), &p)
	out, errs, code := status(t, sysfdCommand("probe"))
	if code != 0 || errs != "" || len(p.Features) != len(sysfd.Features())+1 {
		t.Errorf("status %d, %q, %+v", code, errs, p)
	}
	for _, r := range p.Features {
		if !slices.Contains([]string{"yes", "no", "not permitted", "not known"}, r.Status) || (r.Value == "" && r.Status != "yes") || !regexp.MustCompile(`^[2-9]\.[0-9]+(\.[0-9]+)?$`).MatchString(r.Since) {
			t.Errorf("%+v", r)
		}
		if !regexp.MustCompile(regexp.QuoteMeta(r.Feature) + ` +` + r.Status + ` +` + r.Since + `\b`).MatchString(out) {
			t.Errorf("%q is not in\n%s", r.Feature, out)
		}
	}
	// What this process can do, the command says so.
	for i, f := range sysfd.Features() {
		if err := f.Probe(); p.Features[i].Feature != f.String() || err == nil && p.Features[i].Status != "yes" {
			t.Errorf("%s: %v, but %+v", f, err, p.Features[i])
		}
	}
	p1, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p1.Close()
	_, err = p1.ID()
	i := slices.IndexFunc(p.Features, func(r result) bool { return r.Feature == "activation by $LISTEN_PIDFDID" })
	if (err == nil) != (p.Features[i].Status == "yes") {
		t.Errorf("%v, but %+v", err, p.Features[i])
	}
}

// What sysfd activate does not support, the probe does not find.
func TestProbeWithoutSockets(t *testing.T) {
	rights.Proc(t)
	var p probeResult
	succeeds(t, commandWithout([]int{socketCall()}, "probe", "-json"), &p)
	if last := p.Features[len(p.Features)-1]; last.Status != "no" || last.Feature != "activation by $LISTEN_PIDFDID" {
		t.Errorf("%+v", last)
	}
}

// What a version has and does not show is told, and not what a vendor has added.
func TestDisagreement(t *testing.T) {
	yes, no := result{Feature: "a", Status: "yes", Since: "5.3"}, result{Feature: "b", Status: "no", Since: "5.4"}
	old := result{Feature: "c", Status: "no", Since: "2.6.39"}
	open := result{Feature: "d", Status: "not known", Since: "2.6.39"}
	for _, test := range []struct {
		release string
		results []result
		want    string // a part, "" for none
	}{
		{"6.18.44-cloud", []result{yes, open}, ""},
		{"6.18.44-cloud", []result{yes, no, old}, "Linux 6.18.44-cloud should have: b, c.\n"},
		{"5.4", []result{yes, no}, "should have: b."},
		{"5.3.18", []result{yes, no}, ""},
		{"4.18.0-vendor", []result{yes, no}, ""},
		{"4.19.0-gvisor", []result{yes, no, old}, "probably not Linux 4.19.0-gvisor"},
		{"4.4.0", []result{no, old}, "Linux 4.4.0 should have: c.\n"},
	} {
		if got := disagreement(test.release, test.results); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s, %v: %q, want %q", test.release, test.results, got, test.want)
		}
	}
}

// A shell starts another process, to which exec hands on what the shell was passed.
func TestExec(t *testing.T) {
	cmd := sysfdCommand("activate", "--now", "-l", "127.0.0.1:0", "--fdname", "http", "--", "sh", "-c", `"$0" exec -- "$0" listen -json; exit $?`, os.Args[0])
	var g given
	succeeds(t, cmd, &g)
	if g.PID == cmd.Process.Pid || len(g.FDs) != 1 || g.FDs[0].Name != "http" || !g.FDs[0].Listening || g.Env["LISTEN_PIDFDID"] != text(g.PidFDID.String()) {
		t.Errorf("%+v", g)
	}

	cmd = sysfdCommand("exec", "sh", "-c", `echo "$LISTEN_PID$LISTEN_PIDFDID$LISTEN_FDS."; exit 3`)
	cmd.Env = append(cmd.Env, "LISTEN_PID=1", "LISTEN_PIDFDID=2")
	if out, errs, code := status(t, cmd); out != ".\n" || errs != "" || code != 3 {
		t.Errorf("%q, %q, status %d", out, errs, code)
	}

	cmd = sysfdCommand("exec", "true")
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
	if _, errs, code := status(t, cmd); code != 1 || !strings.Contains(errs, "descriptor 3") {
		t.Errorf("%q, status %d", errs, code)
	}
	if _, errs, code := status(t, sysfdCommand("exec", "/dev/null")); code != 126 || !strings.Contains(errs, "/dev/null") {
		t.Errorf("%q, status %d", errs, code)
	}
}
