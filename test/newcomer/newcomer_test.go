//go:build linux

package newcomer

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A reason is one for which a test may be skipped.
type reason struct {
	name    string
	pattern *regexp.Regexp
}

var reasons = []reason{
	{"it is not for a short run", regexp.MustCompile(`^this is for a whole run|^not under -short$`)},
	{"the kernel is older, or configured without it", regexp.MustCompile(`there since Linux|^this kernel has `)},
	{"the user is not root", regexp.MustCompile(`^it needs root$`)},
	{"root has not all capabilities", regexp.MustCompile(`^it needs CAP_[A-Z_]+( and CAP_[A-Z_]+)*$|^sysfd (open|cgroup): .* requires CAP_DAC_READ_SEARCH`)},
	{"a seccomp filter refuses it", regexp.MustCompile(`^it needs .*, which a seccomp filter refuses$|^it needs clone\(2\) with flags that a seccomp filter refuses$`)},
	{"there is no /proc", regexp.MustCompile(`^it needs /proc$|^(open|stat) /proc/\S+: no such file or directory$`)},
	{"/proc/sys is read-only", regexp.MustCompile(`^open /proc/sys/\S+: read-only file system$`)},
	{"there is no cgroup2", regexp.MustCompile(`^it needs (a \$TMPDIR that is not on tmpfs, or )?cgroup2|^cgroup2 is not mounted at `)},
	{"the root directory is no mount point", regexp.MustCompile(`^it needs a root directory that is a mount point$`)},
	{"user namespaces are refused", regexp.MustCompile(`^it needs user namespaces`)},
	{"the files in /tmp have no handles", regexp.MustCompile(`^it needs a \$TMPDIR whose files have handles$`)},
	{"there is no tmpfs", regexp.MustCompile(`^it needs a tmpfs to write to$`)},
	{"a device is missing", regexp.MustCompile(`^it needs (loop devices$|/dev/fd$|/dev/fuse: )|^no pseudoterminal: `)},
	{"a program is missing", regexp.MustCompile(`^there is no (go command|strace\(1\))$|is not installed$|^it needs (sh|sleep|/bin/sh|systemd-notify|(env|seq|grep|unshare)\(1\)|mount|btrfs|mkfs\.\w+|mksquashfs)$`)},
	{"a process is outside", regexp.MustCompile(`^the parent is out of sight$|^the user namespace that owns it is out of scope$`)},
}

var tests = flag.String("tests", "", "run tests whose names match this pattern, as for -test.run")

func TestPlaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	scratch, err := os.MkdirTemp("", "sysfd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(scratch) })
	temp := filepath.Join(scratch, "tmp")
	if err := errors.Join(os.Chmod(scratch, 0o755), os.Mkdir(temp, 0o700), os.Chmod(temp, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	dirs := tested(t, module)
	for _, dir := range dirs {
		goCommand(t, module, "test", "-c", "-o", filepath.Join(scratch, program(dir)), "./"+dir)
	}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			var all summary
			for _, dir := range dirs {
				v := visit{Place: p.name, Module: module, Scratch: scratch, Temp: "/mnt", Dir: dir,
					Args: []string{program(dir), "-test.short", "-test.v=test2json", "-test.timeout=5m", "-test.run=" + *tests}}
				s, err := v.test(t)
				s.report(t, dir, err)
				all.add(s)
			}
			t.Logf("%d passed, %d skipped, %d failed in %.0f s", all.passed, len(all.skipped), len(all.failed), time.Since(start).Seconds())
			all.account(t)
		})
	}
}

// tested returns the directories of the module that have tests.
func tested(t *testing.T, module string) (dirs []string) {
	t.Helper()
	for dir := range strings.Lines(goCommand(t, module, "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}", "./...")) {
		if dir = strings.TrimSpace(dir); dir != "" {
			dir, err := filepath.Rel(module, dir)
			if err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// goCommand runs the go command as it is without a C compiler.
func goCommand(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// program returns the name of the program with the tests of a directory.
func program(dir string) string { return "test-" + strings.ReplaceAll(dir, "/", "-") }

// test runs the tests of a package in a place.
func (v visit) test(t *testing.T) (summary, error) {
	t.Helper()
	cmd := v.command()
	cmd.WaitDelay = 10 * time.Second
	out, errTests := cmd.CombinedOutput()
	convert := exec.Command("go", "tool", "test2json")
	convert.Stdin = bytes.NewReader(out)
	events, err := convert.Output()
	if err != nil {
		t.Fatal(err)
	}
	s, err := summarize(bytes.NewReader(events))
	if err != nil {
		t.Fatal(err)
	}
	return s, errTests
}

// A summary is what came of tests. Of those that have subtests the subtests count.
type summary struct {
	passed  int
	skipped map[string]string // by name, with the reason
	failed  map[string]string // by name, with the output
	rest    string            // what belongs to no test
}

func (s *summary) add(other summary) {
	s.passed += other.passed
	if s.skipped == nil {
		s.skipped, s.failed = map[string]string{}, map[string]string{}
	}
	maps.Copy(s.skipped, other.skipped)
	maps.Copy(s.failed, other.failed)
}

var (
	logged = regexp.MustCompile(`^\s*\S+_test\.go:\d+: (.*)`)
	// A test that ran again in another process logs what that has said.
	loggedAgain  = regexp.MustCompile(`^\s*\S+_test\.go:\d+: \S+_test\.go:\d+: (.*)`)
	skippedAgain = regexp.MustCompile(`^\s*\S+_test\.go:\d+: --- SKIP: (\S+)`)
)

// summarize reads what test2json has written.
func summarize(events io.Reader) (summary, error) {
	s := summary{skipped: map[string]string{}, failed: map[string]string{}}
	output, verdicts, parents := map[string]string{}, map[string]string{}, map[string]bool{}
	for d := json.NewDecoder(events); ; {
		var e struct{ Action, Test, Output string }
		if err := d.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return s, err
		}
		switch {
		case e.Action == "output":
			output[e.Test] += e.Output
		case e.Test != "" && slices.Contains([]string{"run", "pass", "skip", "fail"}, e.Action):
			verdicts[e.Test] = e.Action
			if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
				parents[e.Test[:i]] = true
			}
		}
	}
	s.rest = output[""]
	for test, verdict := range verdicts {
		switch verdict {
		case "pass":
			if !parents[test] {
				s.passed++
			}
			var names, why []string
			for line := range strings.Lines(output[test]) {
				if m := skippedAgain.FindStringSubmatch(line); m != nil {
					names = append(names, m[1])
				} else if m := loggedAgain.FindStringSubmatch(line); m != nil && known(m[1]) != "" {
					why = append(why, m[1])
				}
			}
			for i, name := range names {
				if len(why) == len(names) {
					s.skipped[name] = why[i]
				} else {
					s.skipped[name] = fmt.Sprintf("one of %q", why)
				}
			}
		case "skip":
			for line := range strings.Lines(output[test]) {
				if m := logged.FindStringSubmatch(line); m != nil {
					s.skipped[test] = m[1]
				}
			}
			if s.skipped[test] == "" {
				s.skipped[test] = "no reason"
			}
		default: // what did not end is a failure, too
			s.failed[test] = output[test]
		}
	}
	return s, nil
}

// known returns the reason that a text is about, or "".
func known(text string) string {
	for _, r := range reasons {
		if r.pattern.MatchString(text) {
			return r.name
		}
	}
	return ""
}

// report fails the test if one of a package has failed.
func (s summary) report(t *testing.T, dir string, err error) {
	t.Helper()
	for _, test := range slices.Sorted(maps.Keys(s.failed)) {
		t.Errorf("%s: %s failed:\n%s", dir, test, s.failed[test])
	}
	if err != nil && len(s.failed) == 0 {
		t.Errorf("%s: %v\n%s", dir, err, s.rest)
	}
}

// account says how many were skipped for which reason, and fails the test if one was for no reason that is known.
func (s summary) account(t *testing.T) {
	t.Helper()
	count := map[string]int{}
	for test, text := range s.skipped {
		if name := known(text); name != "" {
			count[name]++
		} else {
			t.Errorf("%s was skipped, and no reason for that is: %s", test, text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%6d skipped: %s", count[name], name)
	}
}

func TestSummarize(t *testing.T) {
	const text = "=== RUN   TestPass\n--- PASS: TestPass (0.00s)\n" +
		"=== RUN   TestParent\n=== RUN   TestParent/a\n=== RUN   TestParent/b\n    x_test.go:7: it needs root\n" +
		"--- PASS: TestParent (0.00s)\n    --- PASS: TestParent/a (0.00s)\n    --- SKIP: TestParent/b (0.00s)\n" +
		"=== RUN   TestAgain\n    x_test.go:1: y_test.go:2: it needs CAP_SYS_ADMIN and CAP_SYS_NICE\n    x_test.go:1: y_test.go:3: something else\n    x_test.go:1: --- SKIP: TestAgain/c (0.00s)\n--- PASS: TestAgain (0.00s)\n" +
		"=== RUN   TestSkip\n--- SKIP: TestSkip (0.00s)\n" +
		"=== RUN   TestFail\n    x_test.go:8: wrong\n--- FAIL: TestFail (0.00s)\n" +
		"=== RUN   TestHang\nThe tests have not ended\n"
	convert := exec.Command("go", "tool", "test2json")
	convert.Stdin = strings.NewReader(text)
	events, err := convert.Output()
	if err != nil {
		t.Fatal(err)
	}
	s, err := summarize(bytes.NewReader(events))
	if err != nil {
		t.Fatal(err)
	}
	skipped := map[string]string{"TestParent/b": "it needs root", "TestAgain/c": "it needs CAP_SYS_ADMIN and CAP_SYS_NICE", "TestSkip": "no reason"}
	if failed := slices.Sorted(maps.Keys(s.failed)); s.passed != 3 || !maps.Equal(s.skipped, skipped) || !slices.Equal(failed, []string{"TestFail", "TestHang"}) {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(s.failed["TestFail"], "wrong") || !strings.Contains(s.failed["TestHang"], "have not ended") {
		t.Errorf("%q", s.failed)
	}
	if known("no reason") != "" || known("") != "" || known("wrong") != "" {
		t.Error("what is no reason is one")
	}
}
