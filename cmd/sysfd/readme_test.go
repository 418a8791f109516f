//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/rights"
)

// The README shows what the command prints. Numbers, handles and the widths of columns may differ.
func TestREADME(t *testing.T) {
	rights.Proc(t)
	for _, f := range []sysfd.Feature{sysfd.FeatureOpenByID, sysfd.FeatureExitStatus} {
		switch err := f.Probe(); {
		case errors.Is(err, os.ErrPermission) && rights.Filter():
			rights.Lacks(t, fmt.Sprintf("%s, which a seccomp filter refuses", f))
		case err != nil && !errors.Is(err, syscall.ENODATA):
			t.Skip(err)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	run := 0
	for _, block := range regexp.MustCompile("(?ms)^```\n([$#] .*?)^```\n").FindAllStringSubmatch(string(readme), -1) {
		shown := transcriptOf(block[1])
		first := shown[0].command
		if !slices.ContainsFunc(shown, func(e exchange) bool { return strings.Contains(e.command, "sysfd ") }) || notHere.MatchString(block[1]) {
			continue
		}
		run++
		t.Run(first, func(t *testing.T) {
			if strings.HasPrefix(block[1], "# ") {
				rights.Need(t, rights.DACReadSearch)
				rights.MountedRoot(t)
				rights.Handles(t, t.TempDir())
				if _, err := os.Stat("/dev/fd"); err != nil {
					rights.Lacks(t, "/dev/fd")
				}
			}
			compareTranscript(t, shown)
		})
	}
	if run != 11 {
		t.Errorf("%d blocks of the README were run, want 11", run)
	}
}

// notHere matches blocks that install, build, or mount something, or that show what only some machine has.
var notHere = regexp.MustCompile(`go get|GOARCH=|umount|/sys/fs/cgroup|sysfd ns|\./run`)

// An exchange is a command, and the lines that the README shows after it.
type exchange struct {
	command string
	lines   []string
}

func transcriptOf(block string) (all []exchange) {
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) > 2 && (line[:2] == "$ " || line[:2] == "# ") {
			all = append(all, exchange{command: line[2:]})
			continue
		}
		last := &all[len(all)-1]
		if more, ok := strings.CutPrefix(line, "> "); ok {
			last.command += "\n" + more
		} else {
			last.lines = append(last.lines, line)
		}
	}
	return all
}

var (
	kernelInProbe = regexp.MustCompile(`^Linux \S+, program for \w+`)
	probedLine    = regexp.MustCompile(` (yes|no|not permitted|not known) +(\d\S+).*`)
	blanks        = regexp.MustCompile(` +`)
	// number matches what differs from run to run: a UUID, or a number in any notation.
	number = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\bt?[0-9a-f]*\d[0-9a-f]*\b`)
)

// masked returns a line without what differs from run to run.
func masked(line string) string {
	line = kernelInProbe.ReplaceAllString(line, "Linux")
	line = probedLine.ReplaceAllString(line, " works $2")
	return number.ReplaceAllString(blanks.ReplaceAllString(line, " "), "0")
}

func compareTranscript(t *testing.T, shown []exchange) {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	bin := t.TempDir()
	// Not t.TempDir, whose path has the name of the test before Go 1.26: too long for a socket.
	dir, err := os.MkdirTemp("", "sysfd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Symlink(testBinary(t), filepath.Join(bin, "sysfd")); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(shown[0].command, "report.txt") {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "old"), 0o700), os.WriteFile(filepath.Join(dir, "report.txt"), []byte("text\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	// The names of sockets and files here, and what stands for them in the README.
	unique := fmt.Sprint("-at-", os.Getpid())
	here := func(command string) string {
		command = strings.NewReplacer("127.0.0.1:8080", "127.0.0.1:0", "/tmp/control", dir+"/control", "go run ./cmd/sysfd", "sysfd").Replace(command)
		return regexp.MustCompile(`@(http|admin|door)\b`).ReplaceAllString(command, "@$1"+unique)
	}
	// The path that is printed can be one through another mount.
	path := regexp.MustCompile(`/(\S+/)?` + filepath.Base(dir) + `\b`)
	names := strings.NewReplacer(unique, "", "/tmp/demo/control", "/tmp/control",
		syscall.ESTALE.Error(), "stale file handle") // Go 1.24 has another text
	there := func(text string) string { return names.Replace(path.ReplaceAllString(text, "/tmp/demo")) }

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	sh := exec.CommandContext(ctx, bash)
	sh.Dir, sh.Stdout, sh.Stderr = dir, w, w
	sh.Env = append(os.Environ(), commandVar+"=1", "LC_ALL=C", "PATH="+bin+":"+os.Getenv("PATH"))
	if strings.Contains(strings.Join(shown[0].lines, ""), "this kernel has no pidfd IDs") {
		sh.Env = append(sh.Env, fmt.Sprintf("%s=%d,%d", withoutVar, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FSTATFS))
	}
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := sh.StdinPipe()
	if err == nil {
		err = sh.Start()
	}
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Wait()
	end := func() { syscall.Kill(-sh.Process.Pid, syscall.SIGKILL) }
	defer end()
	defer context.AfterFunc(ctx, end)()

	r := bufio.NewReader(out)
	is := map[string]string{} // what a number of the README is in this run
	background := false       // prints what the README shows with a later command
	var want, got []string
	for _, e := range shown {
		command := number.ReplaceAllStringFunc(here(e.command), func(n string) string {
			if now, ok := is[n]; ok {
				return now
			}
			return n
		})
		var lines []string
		if strings.Contains(command, " -accept ") {
			lines = answering(t, in, r, command, e.lines)
		} else {
			fmt.Fprintf(in, "%s\nprintf '\\0'\n", command)
			text, err := r.ReadString(0)
			if err != nil {
				t.Fatalf("%s: %v, %q", command, err, text)
			}
			lines = splitLines(text[:len(text)-1])
		}
		for background && len(lines) < len(e.lines) {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v, %q", command, err, append(lines, line))
			}
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
		if strings.HasPrefix(command, "sysfd wait ") {
			background = true
			eventually(t, "a pidfd of sysfd wait", func() bool { return slices.ContainsFunc(childrenOf(t, sh.Process.Pid), hasPidFD) })
		}
		for i, line := range lines {
			lines[i] = there(line)
			if i < len(e.lines) && masked(lines[i]) == masked(e.lines[i]) {
				now := number.FindAllString(lines[i], -1)
				for j, n := range number.FindAllString(e.lines[i], -1) {
					if j < len(now) { // the probe can see less here
						is[n] = now[j]
					}
				}
			}
		}
		t.Logf("$ %s\n%s", command, strings.Join(lines, "\n"))
		want, got = append(want, e.lines...), append(got, lines...)
	}
	in.Close()
	rest, err := io.ReadAll(r) // of what runs in the background
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, splitLines(there(string(rest)))...)
	for _, lines := range []*[]string{&want, &got} {
		for i, line := range *lines {
			(*lines)[i] = masked(line)
		}
		slices.Sort(*lines)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the README shows\n%s\nand this is printed:\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// hasPidFD reports whether a process has opened another one.
func hasPidFD(pid string) bool {
	links, _ := filepath.Glob("/proc/" + pid + "/fd/*")
	return slices.ContainsFunc(links, func(link string) bool {
		to, _ := os.Readlink(link)
		return strings.Contains(to, "pidfd")
	})
}

func splitLines(text string) []string {
	if text = strings.TrimSuffix(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// answering runs a command that serves, and connects to it. If the README shows a client with a name, it has that name.
func answering(t *testing.T, in io.Writer, r *bufio.Reader, command string, shown []string) (lines []string) {
	t.Helper()
	fmt.Fprintf(in, "%s &\n", command)
	for range shown {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v, %q", command, err, line)
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
		_, address, listens := strings.Cut(lines[0], " listening on ")
		if address, _, _ = strings.Cut(address, " "); len(lines) > 1 || !listens {
			continue
		}
		var dialer net.Dialer
		network := "tcp"
		if strings.HasPrefix(address, "@") {
			network = "unix"
			dialer.LocalAddr = &net.UnixAddr{Net: network, Name: "@\x1b[2J\nsysfd activate: listening on " + address}
		}
		c, err := dialer.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	fmt.Fprintln(in, "kill %%")
	return lines
}
