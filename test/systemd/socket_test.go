//go:build linux

package systemd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// given is what sysfd listen -json prints.
type given struct {
	PID     int
	PidFDID json.Number
	Env     map[string]string
	FDs     []givenFD
	Reason  string
}

type givenFD struct {
	FD          int
	Name        string
	Kind        string
	Domain      string
	Type        string
	Listening   bool
	Address     string
	CloseOnExec bool `json:"cloexec"`
	NonBlocking bool
}

func (f givenFD) String() string {
	words := []string{f.Name + ":", f.Kind, f.Domain, f.Type, f.Address}
	if f.Listening {
		words = append(words, "listening")
	}
	if f.NonBlocking {
		words = append(words, "non-blocking")
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

func parseGiven(t testing.TB, text string) (g given) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &g); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return g
}

// has tells whether the descriptors are these, and are addressed to the process that took them.
func (g given) has(t testing.TB, want ...string) {
	t.Helper()
	if g.Env["LISTEN_PIDFDID"] == "" {
		t.Error("LISTEN_PIDFDID is not set")
	}
	g.hasOf(t, want...)
}

// hasOf is has for a sender that may be too old for LISTEN_PIDFDID.
func (g given) hasOf(t testing.TB, want ...string) {
	t.Helper()
	var got, names []string
	for i, f := range g.FDs {
		got = append(got, f.String())
		names = append(names, f.Name)
		if f.FD != 3+i || !f.CloseOnExec {
			t.Errorf("descriptor %d: %+v", 3+i, f)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q\n%+v", got, want, g)
	}
	env := map[string]string{"LISTEN_PID": strconv.Itoa(g.PID), "LISTEN_FDS": strconv.Itoa(len(want))}
	if g.Env["LISTEN_PIDFDID"] != "" {
		env["LISTEN_PIDFDID"] = g.PidFDID.String()
	}
	if g.Env["LISTEN_FDNAMES"] != "" {
		env["LISTEN_FDNAMES"] = strings.Join(names, ":")
	}
	if fmt.Sprint(env) != fmt.Sprint(g.Env) {
		t.Errorf("got  %q\nwant %q", g.Env, env)
	}
}

// hasNone tells whether nothing was taken, for this reason.
func (g given) hasNone(t testing.TB, reason string) {
	t.Helper()
	if len(g.FDs) != 0 || !strings.Contains(g.Reason, reason) {
		t.Errorf("got %+v, want nothing because %q", g, reason)
	}
}

// listen starts the sockets and then the service of a name, which is to print what it was given:
// these lines are what it has on top of that.
func (s system) listen(t testing.TB, name, execStart, service string, sockets map[string]string) given {
	t.Helper()
	output := "/run/" + name + ".given"
	units := map[string]string{name + ".service": `[Service]
Type=oneshot
ExecStart=` + execStart + `
StandardOutput=truncate:` + output + `
` + service}
	start := []string{"start"}
	for unit, text := range sockets {
		units[unit] = text
		start = append(start, unit)
	}
	s.units(t, units)
	s.run(t, "systemctl", start...)
	s.run(t, "systemctl", "start", name+".service")
	return parseGiven(t, s.read(t, output))
}

// forEachArch runs a test with a name for the units and the program sysfd listen of each architecture.
func (s system) forEachArch(t *testing.T, name string, test func(t *testing.T, name, listen string)) {
	for _, arch := range arches {
		t.Run(name+"/"+arch, func(t *testing.T) { test(t, name+"-"+arch, s.sysfd[arch]+" listen -json") })
	}
}

// needsIPv6 is for a socket that is perhaps of IPv6.
func (s system) needsIPv6(t *testing.T, socket string) {
	t.Helper()
	if strings.Contains(socket, "::1") && s.command("grep", "-q", "01 80 10 80 *lo$", "/proc/net/if_inet6").Run() != nil {
		lacks(t, "IPv6")
	}
}

// Each kind of socket that a socket unit can have, and what else it can.
func testSockets(t *testing.T, s system) {
	for name, test := range map[string]struct {
		socket, service string
		want            []string
	}{
		"stream": {
			socket: "ListenStream=/run/{}",
			want:   []string{"{}.socket: socket unix stream /run/{} listening"},
		},
		"abstract": {
			socket: "ListenStream=@{}",
			want:   []string{"{}.socket: socket unix stream @{} listening"},
		},
		"datagram": {
			socket: "ListenDatagram=/run/{}",
			want:   []string{"{}.socket: socket unix dgram /run/{}"},
		},
		"seqpacket": {
			socket: "ListenSequentialPacket=/run/{}",
			want:   []string{"{}.socket: socket unix seqpacket /run/{} listening"},
		},
		"tcp": {
			socket: "ListenStream=127.0.0.1:7001",
			want:   []string{"{}.socket: socket inet stream 127.0.0.1:7001 listening"},
		},
		"tcp6": {
			socket: "ListenStream=[::1]:7002",
			want:   []string{"{}.socket: socket inet6 stream [::1]:7002 listening"},
		},
		"udp": {
			socket: "ListenDatagram=127.0.0.1:7003",
			want:   []string{"{}.socket: socket inet dgram 127.0.0.1:7003"},
		},
		"netlink": {
			socket: "ListenNetlink=kobject-uevent 1",
			want:   []string{"{}.socket: socket netlink raw"},
		},
		"fifo": {
			socket: "ListenFIFO=/run/{}",
			want:   []string{"{}.socket: fifo"},
		},
		"special file": {
			socket: "ListenSpecial=/dev/pts/ptmx", // never readable: systemd starts the service again as long as it is
			want:   []string{"{}.socket: character device"},
		},
		"message queue": {
			socket: "ListenMessageQueue=/{}",
			want:   []string{"{}.socket: file"},
		},
		"name": {
			socket: "ListenStream=/run/{}\nFileDescriptorName=web, as \"name\"",
			want:   []string{"web, as \"name\": socket unix stream /run/{} listening"},
		},
		"several": {
			socket: "ListenStream=/run/{}.1\nListenDatagram=/run/{}.2\nListenFIFO=/run/{}.3\nFileDescriptorName=many",
			want:   []string{"many: socket unix stream /run/{}.1 listening", "many: socket unix dgram /run/{}.2", "many: fifo"},
		},
		"NonBlocking": {
			socket:  "ListenStream=/run/{}\nListenFIFO=/run/{}.fifo",
			service: "NonBlocking=yes",
			want:    []string{"{}.socket: socket unix stream /run/{} listening non-blocking", "{}.socket: fifo non-blocking"},
		},
		"User": {
			socket:  "ListenStream=/run/{}",
			service: "User=nobody",
			want:    []string{"{}.socket: socket unix stream /run/{} listening"},
		},
		"DynamicUser": {
			socket:  "ListenStream=/run/{}",
			service: "DynamicUser=yes",
			want:    []string{"{}.socket: socket unix stream /run/{} listening"},
		},
		"PrivateUsers": {
			socket:  "ListenStream=/run/{}",
			service: "PrivateUsers=yes",
			want:    []string{"{}.socket: socket unix stream /run/{} listening"},
		},
		"sandbox": {
			socket:  "ListenStream=/run/{}",
			service: "ProtectSystem=strict\nProtectProc=invisible\nProcSubset=pid\nPrivateNetwork=yes\nPrivateTmp=yes\nSystemCallFilter=@system-service\nRestrictAddressFamilies=none",
			want:    []string{"{}.socket: socket unix stream /run/{} listening"},
		},
		"OpenFile": {
			socket:  "ListenStream=/run/{}",
			service: "OpenFile=/etc/passwd:users:read-only\nOpenFile=/etc/group",
			want:    []string{"{}.socket: socket unix stream /run/{} listening", "users: file", "group: file"},
		},
	} {
		s.forEachArch(t, strings.ReplaceAll(name, " ", "-"), func(t *testing.T, name, listen string) {
			s.needsIPv6(t, test.socket)
			fill := strings.NewReplacer("{}", name).Replace
			got := s.listen(t, name, listen, test.service, map[string]string{
				name + ".socket": "[Socket]\n" + fill(test.socket) + "\n",
			})
			var want []string
			for _, w := range test.want {
				want = append(want, fill(w))
			}
			got.has(t, want...)
			s.run(t, "systemctl", "stop", name+".socket") // some addresses are those of others
		})
	}
}

// What a client sends arrives, and the service is started for it.
func testTraffic(t *testing.T, s system) {
	for _, arch := range arches {
		for network, listen := range map[string]string{
			"unix":       "ListenStream=/run/traffic-unix",
			"unixgram":   "ListenDatagram=/run/traffic-unixgram",
			"unixpacket": "ListenSequentialPacket=/run/traffic-unixpacket",
			"tcp4":       "ListenStream=127.0.0.1:7011",
			"tcp6":       "ListenStream=[::1]:7012",
			"udp4":       "ListenDatagram=127.0.0.1:7013",
			"fifo":       "ListenFIFO=/run/traffic-fifo",
		} {
			t.Run(network+"/"+arch, func(t *testing.T) {
				s.needsIPv6(t, listen)
				name := "traffic-" + network + "-" + arch
				a := s.agents(t, name)
				s.units(t, map[string]string{
					name + ".socket":  "[Socket]\n" + listen + "\nFileDescriptorName=door\n",
					name + ".service": "[Service]\nExecStart=" + s.agent[arch] + " " + a.path + "\n",
				})
				s.run(t, "systemctl", "start", name+".socket")
				_, address, _ := strings.Cut(listen, "=")
				s.run(t, s.agent["amd64"], "send", network, address, "hello "+name)
				var text string
				a.next(t).call(t, "Receive", "door", &text)
				if want := "hello " + name; text != want {
					t.Errorf("got %q, want %q", text, want)
				}
				s.run(t, "systemctl", "stop", name+".socket") // the other architecture has the same address
			})
		}
	}
}

// With Accept=yes, each connection has a process of its own.
func testAccept(t *testing.T, s system) {
	for _, arch := range arches {
		t.Run(arch, func(t *testing.T) {
			name := "accept-" + arch
			a := s.agents(t, name)
			s.units(t, map[string]string{
				name + ".socket":   "[Socket]\nListenStream=/run/" + name + "\nAccept=yes\n",
				name + "@.service": "[Service]\nExecStart=" + s.agent[arch] + " " + a.path + "\n",
			})
			s.run(t, "systemctl", "start", name+".socket")
			var pids []int
			for _, want := range []string{"one", "two"} {
				s.run(t, s.agent["amd64"], "send", "unix", "/run/"+name, want)
				next := a.next(t)
				pids = append(pids, next.PID)
				var names []string
				if next.call(t, "Names", 0, &names); !slices.Equal(names, []string{"connection"}) {
					t.Errorf("the names are %q", names)
				}
				var text string
				if next.call(t, "Receive", "connection", &text); text != want {
					t.Errorf("got %q, want %q", text, want)
				}
			}
			if pids[0] == pids[1] {
				t.Errorf("both connections went to process %d", pids[0])
			}
		})
	}
}

// A service that has several socket units gets the sockets of all.
func testTwoSocketUnits(t *testing.T, s system) {
	got := s.listen(t, "two", s.sysfd["amd64"]+" listen -json", "Sockets=two-a.socket two-b.socket", map[string]string{
		"two-a.socket": "[Socket]\nService=two.service\nFileDescriptorName=a\nListenStream=/run/two-a.1\nListenStream=/run/two-a.2\n",
		"two-b.socket": "[Socket]\nService=two.service\nFileDescriptorName=b\nListenStream=/run/two-b.1\nListenStream=/run/two-b.2\n",
	})
	want := []string{
		"a: socket unix stream /run/two-a.1 listening",
		"a: socket unix stream /run/two-a.2 listening",
		"b: socket unix stream /run/two-b.1 listening",
		"b: socket unix stream /run/two-b.2 listening",
	}
	if len(got.FDs) > 0 && got.FDs[0].Name == "b" { // it is not said which unit is the first
		want = append(want[2:], want[:2]...)
	}
	got.has(t, want...)
}

// What stands between systemd and the program. exec keeps the process, a fork does not.
func testWrappers(t *testing.T, s system) {
	for name, test := range map[string]struct {
		script, service string
		reason          string // "" if the socket arrives
	}{
		"exec":         {script: `exec "$@"`},
		"exec of exec": {script: `exec sh -c 'exec "$@"' sh "$@"`},
		"fork":         {script: `"$@"; true`, reason: "LISTEN_PID names process "},
		"renewed PID": {
			script: `sh -c 'LISTEN_PID=$$ exec "$@"' sh "$@"; true`,
			reason: "a wrapper set LISTEN_PID only",
		},
		"dropped pidfd ID": {script: `sh -c 'unset LISTEN_PIDFDID; LISTEN_PID=$$ exec "$@"' sh "$@"; true`},
		"dropped PID":      {script: `unset LISTEN_PID; exec "$@"`, reason: "LISTEN_PID is not set, though LISTEN_FDS is"},
		"UnsetEnvironment": {
			script:  `exec "$@"`,
			service: "UnsetEnvironment=LISTEN_FDS",
			reason:  "LISTEN_FDS is not set",
		},
	} {
		s.forEachArch(t, strings.ReplaceAll(name, " ", "-"), func(t *testing.T, name, listen string) {
			script := "/run/" + name + ".sh"
			s.write(t, script, test.script)
			got := s.listen(t, name, "/bin/sh "+script+" "+listen, test.service, map[string]string{
				name + ".socket": "[Socket]\nFileDescriptorName=door\nListenStream=/run/" + name + "\n",
			})
			if test.reason != "" {
				got.hasNone(t, test.reason)
			} else {
				got.hasOf(t, "door: socket unix stream /run/"+name+" listening")
			}
		})
	}
}

// PrivatePIDs=yes: systemd 262.1 says LISTEN_PID=1, which is right, and the pidfd ID of another
// process. sysfd takes nothing then, and tells why.
func testPrivatePIDs(t *testing.T, s system) {
	s.forEachArch(t, "private", func(t *testing.T, name, listen string) {
		got := s.listen(t, name, listen, "PrivatePIDs=yes", map[string]string{
			name + ".socket": "[Socket]\nFileDescriptorName=door\nListenStream=/run/" + name + "\n",
		})
		if got.PID != 1 || got.Env["LISTEN_PID"] != "1" {
			t.Errorf("got %+v", got)
		}
		if got.Env["LISTEN_PIDFDID"] == got.PidFDID.String() { // a systemd that does it right
			got.has(t, "door: socket unix stream /run/"+name+" listening")
		} else {
			got.hasNone(t, "LISTEN_PID names this process, but LISTEN_PIDFDID names")
		}
	})
}

// What libsystemd takes with PrivatePIDs=yes is what sysfd takes: see [testPrivatePIDs].
// systemd-socket-proxyd uses it, and is ready only if it got a socket.
func testPrivatePIDsLibsystemd(t *testing.T, s system) {
	for private, ready := range map[string]bool{"no": true, "yes": false} {
		name := "proxy-private-" + private
		log := "/run/" + name + ".log"
		s.units(t, map[string]string{
			name + ".socket": "[Socket]\nListenStream=/run/" + name + "\n",
			name + ".service": "[Service]\nType=notify\nPrivatePIDs=" + private + `
ExecStart=/usr/lib/systemd/systemd-socket-proxyd /run/nowhere
Environment=SYSTEMD_LOG_TARGET=console
StandardError=truncate:` + log + "\n",
		})
		s.run(t, "systemctl", "start", name+".socket")
		out, err := s.command("systemctl", "start", name+".service").CombinedOutput()
		text := s.read(t, log)
		if (err == nil) != ready || !ready && !strings.Contains(text, "Didn't get any sockets passed in") {
			t.Errorf("PrivatePIDs=%s: %v: %s; %s", private, err, out, text)
		}
	}
}
