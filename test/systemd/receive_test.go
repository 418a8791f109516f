//go:build linux

package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
)

// TestNotifyListener receives what libsystemd and its systemd-notify send.
func TestNotifyListener(t *testing.T) {
	_, of := programs(t)
	for _, w := range wordSizes {
		t.Run(w.arch, func(t *testing.T) { receiveFrom(t, of[w.arch].oracle) })
	}
	t.Run("systemd-notify", func(t *testing.T) {
		root := sidRoot(t)
		l := listen(t, filepath.Join(t.TempDir(), "notify"))
		libraries := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
		cmd := command(t, filepath.Join(libraries, "ld-linux-x86-64.so.2"), "--library-path", libraries+":"+libraries+"/systemd",
			filepath.Join(root, "usr/bin/systemd-notify"), "--ready", "--status=up", "--fd=3", "--fdname=null", "X_OWN=1")
		cmd.ExtraFiles = []*os.File{open(t, os.DevNull)}
		cmd.Env = (&sysfd.Notifier{Address: l.Address()}).Environ(nil)
		answers := make(chan error, 1)
		go func() {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%v: %w\n%s", cmd, err, out)
			}
			answers <- err
		}()
		m := next(t, l)
		name := ""
		if m.NumFiles() == 1 {
			name = m.Files()[0].Name()
		}
		if !m.Has(sysfd.NotifyReady) || !m.Has("STATUS=up") || !m.Has("X_OWN=1") || name != "null" {
			t.Errorf("%v, %d descriptors, %q", m, m.NumFiles(), name)
		}
		isSender(t, m, os.Getpid()) // run by root, it sends in the name of its parent
		m.Close()
		holds(t, l, answers)
	})
}

func listen(t *testing.T, address string) *sysfd.NotifyListener {
	t.Helper()
	l, err := sysfd.ListenNotify(address, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func next(t *testing.T, l *sysfd.NotifyListener) *sysfd.Notification {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m, err := l.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// isSender checks the sender of a message, which still runs.
func isSender(t *testing.T, m *sysfd.Notification, pid int) {
	t.Helper()
	p, err := sysfd.OpenPidFD(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if from, err := m.IsFrom(p); err != nil || !from || int(m.Credentials.Pid) != pid {
		t.Errorf("%v is not from %d: %v", m, pid, err)
	}
}

// holds checks that the next message is a barrier, at which the sender waits until that is closed.
func holds(t *testing.T, l *sysfd.NotifyListener, ended <-chan error) {
	t.Helper()
	m := next(t, l)
	if !m.IsBarrier() {
		t.Errorf("%v", m)
	}
	select {
	case err := <-ended:
		t.Errorf("it has not waited: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	m.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func receiveFrom(t *testing.T, oracle string) {
	dir := t.TempDir()
	for _, address := range []string{filepath.Join(dir, "notify"), "@" + filepath.Join(dir, "abstract")} {
		l := listen(t, address)
		long := "X=" + strings.Repeat("x", 4094)
		for _, test := range []struct {
			state string
			fds   int
			want  []string // nil = passed over
			name  string
		}{
			{"READY=1", 0, []string{"READY=1"}, ""},
			{"READY=1\nSTATUS=gr\u00fcn\n", 0, []string{"READY=1", "STATUS=gr\u00fcn"}, ""},
			{"FDSTORE=1\nFDNAME=a b", 3, []string{"FDSTORE=1", "FDNAME=a b"}, "a b"},
			{"FDSTORE=1\nFDNAME=a:b", 253, []string{"FDSTORE=1", "FDNAME=a:b"}, "stored"},
			{"STATUS=\xff\xfe", 1, []string{"STATUS=\xff\xfe"}, "stored"},
			{long, 253, []string{long}, "stored"},
			{long + "x", 253, nil, ""},
			{"READY", 253, nil, ""},
		} {
			cmd := command(t, oracle, "notify")
			line := fmt.Sprintln("notify", test.fds, hex.EncodeToString([]byte(test.state)))
			cmd.Stdin = strings.NewReader(line + "barrier\n")
			cmd.ExtraFiles = []*os.File{open(t, os.DevNull)}
			cmd.Env = (&sysfd.Notifier{Address: address}).Environ(nil)
			ended := make(chan error, 1)
			var out strings.Builder
			cmd.Stdout = &out
			before := l.Dropped()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() {
				err := cmd.Wait()
				if err == nil && out.String() != "{\"N\":1}\n{\"N\":1}\n" {
					err = errors.New(out.String())
				}
				ended <- err
			}()
			if test.want != nil {
				m := next(t, l)
				if !slices.Equal(m.Assignments, test.want) || m.NumFiles() != test.fds {
					t.Errorf("%.100q and %d descriptors, want %.100q and %d", m.Assignments, m.NumFiles(), test.want, test.fds)
				}
				for _, f := range m.Files() {
					if f.Name() != test.name {
						t.Fatalf("%q is the name of a descriptor, want %q", f.Name(), test.name)
					}
				}
				isSender(t, m, cmd.Process.Pid)
				m.Close()
			}
			holds(t, l, ended)
			if dropped := l.Dropped() - before; (dropped == 1) != (test.want == nil) || dropped > 1 {
				t.Errorf("%.100q: %d were passed over", test.state, dropped)
			}
		}
	}
}
