//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudoterminal.
func openTerminal(t *testing.T) (user, terminal *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudoterminal: ", err)
	}
	t.Cleanup(func() { user.Close() })
	var number uint32
	err = control(user, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN)
		}
		return err
	})
	if err != nil {
		t.Skip("no pseudoterminal: ", err)
	}
	terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudoterminal: ", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return user, terminal
}

// shownBy runs cmd on a terminal and returns what it shows there.
func shownBy(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	user, terminal := openTerminal(t)
	cmd.Stdout = terminal
	var shown bytes.Buffer
	read := make(chan struct{})
	go func() { io.Copy(&shown, user); close(read) }() // which ends with EIO when the terminal is closed
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	<-read
	return strings.ReplaceAll(shown.String(), "\r\n", "\n")
}

// withEnv replaces variables of a command.
func withEnv(cmd *exec.Cmd, environ ...string) *exec.Cmd {
	cmd.Env = slices.DeleteFunc(cmd.Env, func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return name == "TERM" || name == "NO_COLOR"
	})
	cmd.Env = append(cmd.Env, environ...)
	return cmd
}

// What is missing is in color on a terminal, and nothing else anywhere.
func TestProbeColor(t *testing.T) {
	missing := 0
	for line := range strings.Lines(shownBy(t, withEnv(commandWithoutIDs("probe"), "TERM=xterm"))) {
		line = strings.TrimSuffix(line, "\n")
		bare, isRed := strings.CutPrefix(line, red)
		bare, isYellow := strings.CutPrefix(bare, yellow)
		bare, ends := strings.CutSuffix(bare, plain)
		if strings.Contains(bare, "\x1b") || ends != (isRed || isYellow) {
			t.Errorf("%q", line)
		}
		no := strings.Contains(bare, "  no  ")
		other := strings.Contains(bare, "  not permitted  ") || strings.Contains(bare, "  not known  ")
		if isRed != no || isYellow != other {
			t.Errorf("%q", line)
		}
		if isRed {
			missing++
		}
	}
	if missing == 0 {
		t.Error("nothing is missing without name_to_handle_at(2)")
	}
	for _, environ := range [][]string{nil, {"TERM="}, {"TERM=dumb"}, {"TERM=xterm", "NO_COLOR=1"}} {
		if shown := shownBy(t, withEnv(commandWithoutIDs("probe"), environ...)); strings.Contains(shown, "\x1b") || !strings.Contains(shown, "  no  ") {
			t.Errorf("%q: %q", environ, shown)
		}
	}
	if out, _, _ := status(t, withEnv(commandWithoutIDs("probe"), "TERM=xterm")); strings.Contains(out, "\x1b") || !strings.Contains(out, "  no  ") {
		t.Errorf("piped: %q", out)
	}
	if shown := shownBy(t, withEnv(commandWithoutIDs("probe", "-json"), "TERM=xterm")); strings.Contains(shown, "\x1b") {
		t.Errorf("JSON: %q", shown)
	}
}

func TestResultColor(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{{nil, ""}, {syscall.ENOSYS, red}, {syscall.EPERM, yellow}, {syscall.EIO, yellow}} {
		if got := newResult("x", "5.3", "", test.err).color(); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
