//go:build linux

package sysfd

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	children["stubborn"] = func(args []string) error {
		signal.Ignore(syscall.SIGTERM)
		os.Stdout.WriteString("ready\n")
		time.Sleep(time.Hour)
		return nil
	}
	children["gentle"] = func(args []string) error {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		os.Stdout.WriteString("ready\n")
		<-c
		os.Exit(7)
		return nil
	}
	children["says"] = func(args []string) error {
		os.Stdout.WriteString(strings.Join(args, " ") + " " + os.Getenv("SAYS") + "\n")
		return nil
	}
}

// start starts a child as StartProcess does, with its output in a pipe.
func start(t *testing.T, attr os.ProcAttr, name string, args ...string) (*PidFD, *os.File, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	t.Cleanup(func() { r.Close() })
	words := self(args...)
	attr.Env = append(append(os.Environ(), childVar+"="+name), attr.Env...)
	attr.Files = []*os.File{nil, w, os.Stderr}
	p, err := StartProcess(words[0], words, &attr)
	if err == nil {
		t.Cleanup(func() { p.Close() })
	}
	return p, r, err
}

func TestStartProcess(t *testing.T) {
	needs(t, FeatureWait)
	keepsDescriptors(t)
	var sys syscall.SysProcAttr
	p, out, err := start(t, os.ProcAttr{Env: []string{"SAYS=c"}, Sys: &sys}, "says", "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if sys.PidFD != nil {
		t.Error("the caller's attributes were changed")
	}
	buf := make([]byte, 100)
	n, err := out.Read(buf)
	if got := string(buf[:n]); err != nil || got != "a b c\n" {
		t.Errorf("%q, %v", got, err)
	}
	r, err := p.Wait(t.Context(), 0)
	if err != nil || !r.Reaped || r.Status.ExitStatus() != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

// With an error no process is left, nor a descriptor.
func TestStartProcessErrors(t *testing.T) {
	keepsDescriptors(t)
	_, err := StartProcess("/nowhere/at/all", nil, nil)
	matches(t, err, os.ErrNotExist, syscall.ENOENT)
	_, err = StartProcess("/proc/self/exe", []string{"x"}, &os.ProcAttr{Dir: "/nowhere"})
	matches(t, err, os.ErrNotExist, syscall.ENOENT)
	fd := -1
	_, err = StartProcess("/proc/self/exe", []string{"x"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &fd}})
	matches(t, err, syscall.EINVAL)
}

func TestStop(t *testing.T) {
	needs(t, FeatureWait)
	keepsDescriptors(t)
	for _, test := range []struct {
		child string
		grace time.Duration
		stop  bool
		want  string
	}{
		{"gentle", time.Hour, false, "exit status 7"},
		{"gentle", time.Hour, true, "exit status 7"}, // SIGTERM alone would wait for SIGCONT
		{"stubborn", 10 * time.Millisecond, false, "signal 9 (killed)"},
		{"stubborn", 0, false, "signal 9 (killed)"},
	} {
		p, out, err := start(t, os.ProcAttr{}, test.child)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if test.stop {
			p.SendSignal(syscall.SIGSTOP)
		}
		r, err := p.Stop(t.Context(), test.grace)
		if err != nil || !r.Reaped || r.String() != test.want {
			t.Errorf("%s: %v, %v, want %s", test.child, r, err, test.want)
		}
		// One that has ended already.
		r, err = p.Stop(t.Context(), test.grace)
		if err != nil || r.Reaped || r.String() != test.want {
			t.Errorf("%s again: %v, %v", test.child, r, err)
		}
	}
}

// When the context ends first, the process may go on.
func TestStopContext(t *testing.T) {
	needs(t, FeatureWait)
	keepsDescriptors(t)
	p, out, err := start(t, os.ProcAttr{}, "stubborn")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = p.Stop(ctx, time.Hour)
	matches(t, err, context.DeadlineExceeded)
	isRunning(t, p, WaitExited)
	if r, err := p.Stop(t.Context(), 0); err != nil || r.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", r, err)
	}
}

// A zombie whose parent does not reap it has ended, whatever its status.
func TestStopForeignZombie(t *testing.T) {
	needs(t, FeatureThread)
	reliesOn(t, pidfs)
	keepsDescriptors(t)
	s := newScene(t)
	r, err := s.strange.Stop(t.Context(), time.Hour)
	if err != nil || !r.Ended || r.Reaped || !errors.Is(r.Unknown, syscall.EAGAIN) {
		t.Errorf("%v, %v", r, err)
	}
}

// With exec.Cmd: the pidfd is taken, and the Cmd reaps.
func TestTakePidFDOfCmd(t *testing.T) {
	needs(t, FeatureWait)
	keepsDescriptors(t)
	fd := -1
	cmd := child("says", "hello")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		if os.Getenv(emulatorVar) != "" {
			t.Skip("the emulator has no CLONE_PIDFD")
		}
		t.Fatal(err)
	}
	p, err := TakePidFD(cmd.SysProcAttr)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, err := p.Wait(t.Context(), WaitNoReap)
	if err != nil || r.Reaped || r.Status.ExitStatus() != 0 {
		t.Errorf("%v, %v", r, err)
	}
	if err := cmd.Wait(); err != nil || !slices.Contains(strings.Fields(out.String()), "hello") {
		t.Errorf("%v, %q", err, &out)
	}
}
