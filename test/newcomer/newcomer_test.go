//go:build linux

package newcomer

import (
	"bytes"
	"encoding/json"
	"errors"
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

// packages are the folders whose tests run.
var packages = []string{"internal/collector"}

func TestPlaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	module, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	scratch, err := os.MkdirTemp("", "sysfd-newcomer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(scratch) })
	temp := filepath.Join(scratch, "tmp")
	if err := errors.Join(os.Chmod(scratch, 0o755), os.Mkdir(temp, 0o700), os.Chmod(temp, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		build := exec.Command("go", "test", "-c", "-o", filepath.Join(scratch, name(p)), "./"+p)
		build.Dir = module
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", build, err, out)
		}
	}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			start := time.Now()
			var all summary
			for _, dir := range packages {
				v := visit{Place: p.name, Module: module, Scratch: scratch, Temp: temp, Dir: dir,
					Args: []string{name(dir), "-test.short", "-test.v=test2json", "-test.timeout=2m"}}
				s, err := v.test(t)
				s.report(t, dir, err)
				all.add(s)
			}
			t.Logf("%s: %s in %.0f s", p.name, all, time.Since(start).Seconds())
			for _, reason := range slices.Sorted(maps.Keys(all.skipped)) {
				t.Logf("%5d skipped: %s", all.skipped[reason], reason)
			}
		})
	}
}

// name returns that of the program with the tests of a folder.
func name(dir string) string {
	if dir == "." {
		return "root.test"
	}
	return strings.ReplaceAll(dir, "/", "-") + ".test"
}

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
	skipped map[string]int    // by reason
	failed  map[string]string // by name, with the output
	rest    string            // what belongs to no test
}

func (s summary) String() string {
	skipped := 0
	for _, n := range s.skipped {
		skipped += n
	}
	return fmt.Sprintf("%d passed, %d skipped, %d failed", s.passed, skipped, len(s.failed))
}

func (s *summary) add(other summary) {
	s.passed += other.passed
	if s.skipped == nil {
		s.skipped, s.failed = map[string]int{}, map[string]string{}
	}
	for reason, n := range other.skipped {
		s.skipped[reason] += n
	}
	maps.Copy(s.failed, other.failed)
}

var logLine = regexp.MustCompile(`(?m)^\s*\S+_test\.go:\d+: (.*)$`)

// summarize reads what test2json has written.
func summarize(events io.Reader) (summary, error) {
	s := summary{skipped: map[string]int{}, failed: map[string]string{}}
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
		switch {
		case verdict == "pass" && !parents[test]:
			s.passed++
		case verdict == "skip":
			reason := "no reason"
			if found := logLine.FindAllStringSubmatch(output[test], -1); found != nil {
				reason = found[len(found)-1][1]
			}
			s.skipped[reason]++
		case verdict == "fail" || verdict == "run": // what did not end is a failure, too
			s.failed[test] = output[test]
		}
	}
	return s, nil
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
