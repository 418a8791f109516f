//go:build linux

package systemd

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sysfd/sysfd"
)

const (
	varlinkSource    = "../../examples/varlink"
	varlinkProgram   = "/usr/local/bin/sysfd-varlink"
	processInterface = "io.github.sysfd.Process"
	recordSeparator  = "\x1e" // ahead of each reply that varlinkctl prints with --more
)

// A processID is a process as systemd writes it.
type processID struct {
	PID          int           `json:"pid"`
	ID           sysfd.PidFDID `json:"pidfdId,omitzero"`
	StartTime    uint64        `json:"-"`
	BootID       sysfd.BootID  `json:"bootId,omitzero"`
	PIDNamespace uint32        `json:"-"`
}

// testVarlink has varlinkctl be the client of the example.
func testVarlink(t *testing.T, s system) {
	build(t, varlinkSource, "amd64", s.path(varlinkProgram))
	t.Run("exec", func(t *testing.T) {
		const address = "exec:" + varlinkProgram
		s.describes(t, address)
		s.answers(t, address)
	})
	t.Run("units", func(t *testing.T) { testVarlinkUnits(t, s) })
	t.Run("Accept", func(t *testing.T) {
		const address = "/run/varlink-each"
		s.units(t, map[string]string{
			"varlink-each.socket":   "[Socket]\nListenStream=" + address + "\nAccept=yes\n",
			"varlink-each@.service": "[Service]\nType=notify\nExecStart=" + varlinkProgram + "\nDynamicUser=yes\n",
		})
		s.run(t, "systemctl", "start", "varlink-each.socket")
		for range 2 {
			s.answers(t, address)
		}
		s.shows(t, "varlink-each.socket", "NAccepted", "2")
	})
	t.Run("activate", func(t *testing.T) {
		const address = "/run/varlink-activate"
		server := s.process(t, `exec "$0" activate --fdname varlink -l `+address+" -- "+varlinkProgram+" 2>&1")
		if line, err := server.out.ReadString('\n'); err != nil || !strings.Contains(line, address) {
			t.Fatalf("activate says %q (%v)", line, err)
		}
		s.describes(t, address)
		s.answers(t, address)
		s.run(t, s.sysfd["amd64"], "kill", "-s", "TERM", server.ref.String())
		if rest, err := io.ReadAll(server.out); err != nil || len(rest) > 0 {
			t.Errorf("the service says %q (%v)", rest, err)
		}
		if err := server.wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
}

// testVarlinkUnits is for the units of the example, where its README puts them.
func testVarlinkUnits(t *testing.T, s system) {
	const address, unit = "/run/sysfd-varlink.sock", "sysfd-varlink.service"
	for _, name := range []string{"sysfd-varlink.socket", unit} {
		text, err := os.ReadFile(filepath.Join(varlinkSource, name))
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, "/etc/systemd/system/"+name, string(text))
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := s.command("journalctl", "--no-pager", "--unit="+unit).CombinedOutput()
			t.Logf("journal (%v):\n%s", err, out)
		}
	})
	s.run(t, "systemctl", "start", "sysfd-varlink.socket")
	s.shows(t, unit, "ActiveState", "inactive")
	s.describes(t, address)
	s.answers(t, address)
	s.shows(t, unit, "ActiveState", "active")
	if list := s.run(t, "varlinkctl", "list-registry"); !strings.Contains(list, processInterface) {
		t.Errorf("the registry is %q", list)
	}
	for how, want := range map[string]string{
		"exit 7":     `{"state":"exited","exitStatus":7}`,
		"kill -9 $$": `{"state":"signaled","signal":9}`,
	} {
		t.Run(how, func(t *testing.T) { s.watches(t, address, how, want) })
	}

	t.Run("cgroup", func(t *testing.T) {
		s.run(t, "mkdir", "/etc/systemd/system/"+unit+".d")
		s.write(t, "/etc/systemd/system/"+unit+".d/cgroup.conf", `[Unit]
Requires=answered.slice
After=answered.slice
[Service]
ExecStart=
ExecStart=`+varlinkProgram+` -cgroup /sys/fs/cgroup/answered.slice
`)
		s.run(t, "systemctl", "daemon-reload")
		s.run(t, "systemctl", "restart", unit)
		in := func(slice string) []string {
			return []string{"systemd-run", "--quiet", "--pipe", "--expand-environment=no", "--slice=" + slice}
		}
		s.answers(t, address, in("answered.slice")...)
		s.answers(t, address, in("answered-below.slice")...)
		s.refuses(t, address, in("system.slice")...)
		s.refuses(t, address, in("answered2.slice")...)
		s.refuses(t, address) // from a cgroup that is not in the container
		s.describes(t, address)
	})
}

// describes tells whether the service at an address says what it offers.
func (s system) describes(t testing.TB, address string) {
	t.Helper()
	for command, want := range map[string]string{
		"info":            "Example of a Varlink service",
		"list-interfaces": processInterface,
		"list-methods":    processInterface + ".WhoAmI",
		"introspect":      "method WhoAmI()",
	} {
		if got := s.run(t, "varlinkctl", command, address); !strings.Contains(got, want) {
			t.Errorf("varlinkctl %s: %q is not in:\n%s", command, want, got)
		}
	}
}

// whoAmI asks the service who varlinkctl is, which these words start, and returns that, too.
func (s system) whoAmI(t testing.TB, address string, words []string) (ref sysfd.ProcessRef, reply, stderr string, err error) {
	t.Helper()
	const script = `"$0" id -ref $$ && exec varlinkctl call "$1" ` + processInterface + `.WhoAmI {}`
	words = append(words, "sh", "-c", script, s.sysfd["amd64"], address)
	cmd := s.command(words[0], words[1:]...)
	var text strings.Builder
	cmd.Stderr = &text
	out, err := cmd.Output()
	first, reply, _ := strings.Cut(string(out), "\n")
	ref, noRef := sysfd.ParseProcessRef(first)
	if noRef != nil {
		t.Fatalf("%v: %v\n%s%s", cmd, err, out, &text)
	}
	return ref, reply, text.String(), err
}

// answers tells whether the service knows varlinkctl, which these words start.
func (s system) answers(t testing.TB, address string, words ...string) {
	t.Helper()
	ref, reply, stderr, err := s.whoAmI(t, address, words)
	if err != nil {
		t.Errorf("%q: %v\n%s%s", words, err, reply, stderr)
		return
	}
	var got struct {
		Process processID
		UID     *int
	}
	if err := json.Unmarshal([]byte(reply), &got); err != nil {
		t.Fatalf("%v in %q", err, reply)
	}
	if ref.BootID, err = sysfd.ThisBootID(); err != nil {
		t.Fatal(err)
	}
	ref.PIDNamespace = 0 // is not told
	if got.Process != processID(ref) || got.UID == nil || *got.UID != 0 {
		t.Errorf("%q: got %s, want %+v", words, reply, ref)
	}
}

// refuses tells whether the service does not answer varlinkctl, which these words start.
func (s system) refuses(t testing.TB, address string, words ...string) {
	t.Helper()
	_, reply, stderr, err := s.whoAmI(t, address, words)
	if err == nil || !strings.Contains(stderr, processInterface+".Refused") ||
		!strings.Contains(reply, "cgroup /sys/fs/cgroup/answered.slice") {
		t.Errorf("%q: %v\n%s%s", words, err, reply, stderr)
	}
}

// watches has varlinkctl watch a shell, which ends by this command.
func (s system) watches(t testing.TB, address, command, want string) {
	t.Helper()
	shell := s.process(t, "read go; "+command)
	parameters, err := json.Marshal(map[string]processID{"process": processID(shell.ref)})
	if err != nil {
		t.Fatal(err)
	}
	watch := s.process(t, `exec varlinkctl --timeout=infinity call --more `+address+" "+
		processInterface+`.Watch '`+string(parameters)+`'`)
	next := func(want string) {
		t.Helper()
		line, err := watch.out.ReadString('\n')
		if got := strings.Trim(line, recordSeparator+"\n"); err != nil || got != want {
			t.Fatalf("got %q (%v), want %q", line, err, want)
		}
	}
	next(`{"state":"running"}`)
	shell.in.Close()
	shell.wait() // its parent has taken notice
	next(want)
	if err := watch.wait(); err != nil {
		t.Error(err)
	}
	again, err := s.command("varlinkctl", "call", address, processInterface+".Watch", string(parameters)).CombinedOutput()
	if err == nil || !strings.Contains(string(again), processInterface+".NoSuchProcess") {
		t.Errorf("once it has ended: %v\n%s", err, again)
	}
}

// A process runs in the container.
type process struct {
	ref  sysfd.ProcessRef
	in   io.Closer
	out  *bufio.Reader
	wait func() error
}

// process starts a shell script with the program sysfd as $0.
func (s system) process(t testing.TB, script string) process {
	t.Helper()
	cmd := s.command("sh", "-c", `"$0" id -ref $$; `+script, s.sysfd["amd64"])
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := process{in: in, out: bufio.NewReader(pipe(t, cmd.StdoutPipe)), wait: cmd.Wait}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err == nil {
		p.ref, err = sysfd.ParseProcessRef(strings.TrimSuffix(line, "\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}
