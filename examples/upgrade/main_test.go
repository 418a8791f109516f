//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/overdue"
)

// With this variable the test binary is the server.
const serverVar = "SYSFD_TEST_UPGRADE"

func TestMain(m *testing.M) {
	if os.Getenv(serverVar) != "" {
		main()
		return
	}
	overdue.Report()
	os.Exit(m.Run())
}

// A service is the server in a file of its own, which is replaced.
type service struct {
	*exec.Cmd
	address string
	log     *bufio.Reader
	client  *http.Client
}

func start(t *testing.T, flags ...string) *service {
	t.Helper()
	program := filepath.Join(t.TempDir(), "server")
	install(t, program)
	cmd := exec.Command(program, append(flags, "-listen", "127.0.0.1:0")...)
	cmd.Env = append(os.Environ(), serverVar+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	s := &service{Cmd: cmd, log: bufio.NewReader(stderr), client: &http.Client{
		// A connection for each request: none is kept open across an upgrade.
		Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute,
	}}
	_, s.address, _ = strings.Cut(s.line(t), "listening on ")
	// Once it answers it also heeds signals.
	if _, err := s.get(""); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) line(t *testing.T) string {
	t.Helper()
	line, err := s.log.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// install puts a copy of this program where the server's is, and returns its inode number.
func install(t *testing.T, program string) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return replace(t, program, text)
}

func replace(t *testing.T, program string, text []byte) uint64 {
	t.Helper()
	if err := os.WriteFile(program+".new", text, 0o700); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(program + ".new")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func (s *service) get(query string) (string, error) {
	r, err := s.client.Get("http://" + s.address + "/" + query)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, text)
	}
	return string(text), err
}

// upgrade replaces the file, and waits until the new one answers.
func (s *service) upgrade(t *testing.T) {
	t.Helper()
	want := fmt.Sprintf("process %d, program %d\n", s.Process.Pid, install(t, s.Path))
	s.Process.Signal(syscall.SIGHUP)
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := s.get("")
		if got == want {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
}

// Clients that connect without a pause notice nothing.
func TestUpgradeUnderLoad(t *testing.T) {
	s := start(t)
	var connections, failures atomic.Int64
	var stop atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	for range 4 {
		group.Go(func() {
			for !stop.Load() {
				connections.Add(1)
				if got, err := s.get(""); err != nil || !strings.HasPrefix(got, fmt.Sprintf("process %d, ", s.Process.Pid)) {
					failures.Add(1)
					t.Errorf("%q, %v", got, err)
					return
				}
			}
		})
	}
	upgrades := 0
	for upgrades < 10 || connections.Load() < 10_000 && !t.Failed() {
		s.upgrade(t)
		upgrades++
	}
	stop.Store(true)
	group.Wait()
	t.Logf("%d connections, %d upgrades, %d failures", connections.Load(), upgrades, failures.Load())
}

// A request that is under way is finished by the version that has it.
func TestUpgradeFinishesRequests(t *testing.T) {
	s := start(t)
	before, err := s.get("")
	if err != nil {
		t.Fatal(err)
	}
	slow := make(chan string)
	go func() {
		text, err := s.get("?pause=500ms")
		slow <- fmt.Sprint(text, err)
	}()
	time.Sleep(100 * time.Millisecond) // if it is not there yet the new version answers, and the test fails
	s.upgrade(t)
	if got := <-slow; got != fmt.Sprint(before, nil) {
		t.Errorf("%q, want %q", got, before)
	}
}

// A version that is told to end while it prepares its upgrade ends.
func TestUpgradeEnds(t *testing.T) {
	s := start(t)
	slow := make(chan error)
	go func() {
		_, err := s.get("?pause=500ms")
		slow <- err
	}()
	time.Sleep(100 * time.Millisecond)
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGHUP, syscall.SIGTERM} {
		s.Process.Signal(sig)
		time.Sleep(10 * time.Millisecond) // one after the other
	}
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if text, err := io.ReadAll(s.log); err != nil || len(text) > 0 { // until it has ended
		t.Errorf("%q, %v", text, err)
	}
}

// What cannot be executed is no upgrade.
func TestUpgradeFails(t *testing.T) {
	s := start(t)
	before, err := s.get("")
	if err != nil {
		t.Fatal(err)
	}
	replace(t, s.Path, []byte("not a program"))
	for range 3 {
		s.Process.Signal(syscall.SIGHUP)
		if line := s.line(t); !strings.Contains(line, "this version goes on: execve "+s.Path+": exec format error") {
			t.Error(line)
		}
		if got, err := s.get(""); err != nil || got != before {
			t.Errorf("%q, %v, want %q", got, err, before)
		}
	}
	s.upgrade(t)
}

// With -new another process takes over when it is ready, and what does not come to that is none.
func TestUpgradeAnew(t *testing.T) {
	manager, err := sysfd.ListenNotify(filepath.Join(t.TempDir(), "manager"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", manager.Address())
	t.Setenv("TMPDIR", t.TempDir())
	mains := make(chan *sysfd.PidFD, 1)
	go func() {
		for {
			m, err := manager.Next(context.Background())
			if err != nil {
				return
			}
			if m.Has("MAINPIDFD=1") && m.NumFiles() == 1 {
				fd, err := syscall.Dup(int(m.Files()[0].Fd()))
				if err != nil {
					panic(err)
				}
				p, err := sysfd.NewPidFD(fd)
				if err != nil {
					panic(err)
				}
				mains <- p
			}
			m.Close()
		}
	}()
	s := start(t, "-new", "-patience", "2s")
	before, err := s.get("")
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	for range 2 {
		group.Go(func() {
			for !stop.Load() {
				if got, err := s.get(""); err != nil {
					t.Errorf("%q, %v", got, err)
					return
				}
			}
		})
	}
	for text, want := range map[string]string{
		"not a program":                "exec format error",
		"#!/bin/sh\nexit 3\n":          "the new version has ended: exit status 3",
		"#!/bin/sh\nexec sleep 1000\n": "the new version is not ready in time",
		"#!/bin/sh\nkill -9 $$\n":      "the new version has ended: signal 9",
		"#!/bin/sh\nPATH=$PATH:/usr/bin systemd-notify --ready; exit 4\n": "the new version has ended: exit status 4",
	} {
		replace(t, s.Path, []byte(text))
		s.Process.Signal(syscall.SIGHUP)
		if line := s.line(t); !strings.Contains(line, "this version goes on: ") || !strings.Contains(line, want) {
			t.Errorf("%s, want %s", line, want)
		}
		if got, err := s.get(""); err != nil || got != before {
			t.Errorf("%q, %v, want %q", got, err, before)
		}
	}
	want := install(t, s.Path)
	s.Process.Signal(syscall.SIGHUP)
	p := <-mains
	defer p.Close()
	defer p.SendSignal(syscall.SIGTERM)
	pid, err := p.PID()
	if err != nil || pid == s.Process.Pid {
		t.Fatalf("the main process is %d, %v", pid, err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := s.get("")
		if got == fmt.Sprintf("process %d, program %d\n", pid, want) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	stop.Store(true) // before that process is ended, and with it the connections in its queue
	group.Wait()
}

// What is passed and does not listen is said.
func TestPassedWhatDoesNotListen(t *testing.T) {
	c, err := net.ListenPacket("unixgram", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=log exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), serverVar+"=1")
	cmd.ExtraFiles = []*os.File{f}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil || !strings.Contains(line, "log: accept") {
		t.Errorf("%q, %v", line, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
}
