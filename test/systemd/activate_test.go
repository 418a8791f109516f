//go:build linux

package systemd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
)

// testSocketActivate is for systemd-socket-activate of systemd 262, which does not take systemd as PID 1.
func testSocketActivate(t *testing.T, s system) {
	for _, arch := range arches {
		t.Run(arch, func(t *testing.T) {
			dir := "/run/activate-" + arch
			s.run(t, "mkdir", dir)
			activate(t, s.command, s.sysfd[arch], dir, s.path, given.has)
		})
	}
}

// TestSocketActivate is for the one that the distribution has.
func TestSocketActivate(t *testing.T) {
	needsTool(t, "systemd-socket-activate")
	program := filepath.Join(t.TempDir(), "sysfd")
	build(t, "../../cmd/sysfd", "", program)
	activate(t, exec.Command, program, t.TempDir(), filepath.Clean, given.hasOf)
}

// activate has systemd-socket-activate run sysfd. The sockets are in dir, and path tells where that
// is from here.
func activate(t *testing.T, command func(name string, args ...string) *exec.Cmd, program, dir string,
	path func(string) string, has func(given, testing.TB, ...string)) {
	for name, test := range map[string]struct {
		options []string
		network string
		want    []string
	}{
		"one": {
			options: []string{"-l", "{}/one"}, network: "unix",
			want: []string{"unknown: socket unix stream {}/one listening"},
		},
		"names": {
			options: []string{"-l", "{}/names", "-l", "{}/more", "--fdname=a:b"}, network: "unix",
			want: []string{"a: socket unix stream {}/names listening", "b: socket unix stream {}/more listening"},
		},
		"datagram": {
			options: []string{"-l", "{}/datagram", "-d", "--fdname=d"}, network: "unixgram",
			want: []string{"d: socket unix dgram {}/datagram"},
		},
		"seqpacket": {
			options: []string{"-l", "{}/seqpacket", "--seqpacket"}, network: "unixpacket",
			want: []string{"unknown: socket unix seqpacket {}/seqpacket listening"},
		},
		"accept": {
			options: []string{"-l", "{}/accept", "--accept"}, network: "unix",
			want: []string{"unknown: socket unix stream {}/accept"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			fill := strings.NewReplacer("{}", dir).Replace
			args := []string{"-E", "PATH=/usr/bin"}
			for _, o := range test.options {
				args = append(args, fill(o))
			}
			cmd := command("systemd-socket-activate", append(args, program, "listen", "-json")...)
			cmd.Env = append(cmd.Environ(), "SYSTEMD_LOG_TARGET=console", "SYSTEMD_LOG_LEVEL=info")
			stderr, stdout := pipe(t, cmd.StderrPipe), pipe(t, cmd.StdoutPipe)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cmd.Process.Kill()
				cmd.Wait()
			}()

			lines := bufio.NewScanner(stderr)
			var said []string
			for listening := 0; listening < strings.Count(strings.Join(args, " "), "-l "); {
				if !lines.Scan() {
					t.Fatalf("it ends (%v): %q", lines.Err(), said)
				}
				said = append(said, lines.Text())
				if strings.Contains(lines.Text(), "Listening on ") {
					listening++
				}
			}
			client, err := net.Dial(test.network, path(filepath.Join(dir, name)))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := client.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			var got given
			if err := json.NewDecoder(stdout).Decode(&got); err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, w := range test.want {
				want = append(want, fill(w))
			}
			has(got, t, want...)
		})
	}
}

// pipe returns the pipe of a command, to be read before long.
func pipe(t testing.TB, open func() (io.ReadCloser, error)) io.Reader {
	t.Helper()
	r, err := open()
	if err == nil {
		err = r.(*os.File).SetReadDeadline(time.Now().Add(patience))
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// systemd-notify --fork waits until the program that it starts is ready, and prints its PID.
func testNotifyFork(t *testing.T, s system) {
	for _, arch := range arches {
		t.Run(arch, func(t *testing.T) {
			as := s.agents(t, "fork-"+arch)
			cmd := s.command("systemd-notify", "--fork", "--", s.agent[arch], as.path)
			stdout := pipe(t, cmd.StdoutPipe) // the agent has it, too: there is no end of file
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			a := as.next(t)
			var sent bool
			if a.call(t, "Notify", []string{sysfd.NotifyReady}, &sent); !sent {
				t.Error("not sent")
			}
			var pid int
			if _, err := fmt.Fscanln(stdout, &pid); err != nil || pid != a.PID {
				t.Errorf("it prints %d (%v), want %d", pid, err, a.PID)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
