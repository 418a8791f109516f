package model

import (
	"fmt"
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

// usual is what a configuration defines if it does not say otherwise.
var usual = map[string]int{
	"PIDFDS": 1, "LIVES": 1, "REAPS": 1, "MEMBERS": 0, "LATE": 0, "REMOVES": 0,
	"CALLS": 2, "WAIT": 3, "EXITED": 0, "NO_REAP": 0, "CANCEL": 0,
	"CHILD": 0, "TRACED": 0, "OWN": 0, "CLOSERS": 0, "SET_CLOSER": 0,
}

var configurations = map[string]map[string]int{
	// Two or three wait for one process.
	"child":         {"CHILD": 1, "OWN": 1, "NO_REAP": 2, "CLOSERS": 1},
	"child, cancel": {"CHILD": 1, "OWN": 1, "NO_REAP": 2, "CANCEL": 1},
	"other":         {"EXITED": 2, "CLOSERS": 1},
	"other, cancel": {"EXITED": 2, "CANCEL": 1},
	"other, three":  {"CALLS": 3, "WAIT": 7, "EXITED": 4},
	"traced":        {"CHILD": 1, "TRACED": 1, "EXITED": 2, "CANCEL": 1},
	"closed twice":  {"CHILD": 1, "CALLS": 1, "WAIT": 1, "CLOSERS": 2},
	// It is in a set too, which holds it when its owner does not.
	"held by a set": {"OWN": 1, "CANCEL": 1, "CLOSERS": 1, "MEMBERS": 1, "REAPS": 0},
	"set and wait":  {"CHILD": 1, "WAIT": 1, "CLOSERS": 1, "MEMBERS": 1, "LIVES": 0, "REAPS": 0},
	"set ends":      {"CHILD": 1, "WAIT": 1, "SET_CLOSER": 1, "MEMBERS": 1, "LIVES": 0, "REAPS": 0},
	// Sets alone.
	"set":           {"CHILD": 1, "WAIT": 0, "PIDFDS": 2, "MEMBERS": 3, "CANCEL": 1, "LIVES": 0, "REAPS": 0},
	"set of others": {"WAIT": 0, "PIDFDS": 2, "MEMBERS": 3, "REAPS": 2},
	"set changes":   {"CHILD": 1, "WAIT": 0, "MEMBERS": 1, "LATE": 1, "REMOVES": 1, "CLOSERS": 1, "LIVES": 0, "REAPS": 0},
	"set closes":    {"CHILD": 1, "WAIT": 0, "CALLS": 1, "MEMBERS": 1, "LATE": 1, "REMOVES": 1, "CLOSERS": 1, "SET_CLOSER": 1, "LIVES": 0, "REAPS": 0},
}

// cyclic are also searched for what goes round for ever, which takes three times as long. They have
// all loops of the protocol.
var cyclic = []string{"other, cancel", "traced", "closed twice", "set of others"}

// lacks skips a test for want of something that CI has.
func lacks(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("in CI there must be %s", what)
	}
	t.Skipf("there is no %s", what)
}

func readModel(t testing.TB) string {
	text, err := os.ReadFile("wait.pml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// A verifier is a model that spin has made a C program of.
type verifier struct {
	testing.TB
	dir string
}

func newVerifier(t testing.TB, model, configuration string) verifier {
	t.Helper()
	for _, program := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(program); err != nil {
			lacks(t, program)
		}
	}
	v := verifier{t, t.TempDir()}
	if err := os.WriteFile(filepath.Join(v.dir, "wait.pml"), []byte(model), 0o666); err != nil {
		t.Fatal(err)
	}
	defines := maps.Clone(usual)
	if configurations[configuration] == nil {
		t.Fatalf("there is no configuration %q", configuration)
	}
	maps.Copy(defines, configurations[configuration])
	args := []string{"-a"}
	for name, value := range defines {
		if _, ok := usual[name]; !ok {
			t.Fatalf("nothing reads %s", name)
		}
		args = append(args, fmt.Sprintf("-D%s=%d", name, value))
	}
	run(t, v.dir, "spin", append(args, "wait.pml")...)
	return v
}

// assertions explores whether an assertion can fail, or something be stuck.
func (v verifier) assertions() string {
	v.Helper()
	return v.explore("-DSAFETY")
}

// cycles explores whether something can go round for ever: the model marks nothing as progress.
func (v verifier) cycles() string {
	v.Helper()
	return v.explore("-DNP", "-l")
}

// explore searches without reductions. gcc takes longer to optimize than that saves.
func (v verifier) explore(compile string, search ...string) string {
	v.Helper()
	run(v, v.dir, "gcc", "-w", compile, "-DNOREDUCE", "-DMEMLIM=1024", "-o", "pan", "pan.c")
	return run(v, v.dir, "./pan", append(search, "-m10000", "-w22")...)
}

var stored = regexp.MustCompile(`\d+ states, stored`)

// complete fails the test unless all states were explored, and none was wrong.
func complete(t testing.TB, out string) {
	t.Helper()
	if !strings.Contains(out, "errors: 0\n") || strings.Contains(out, "Search not completed") || strings.Contains(out, "max search depth too small") {
		result, _, _ := strings.Cut(out, "unreached in")
		t.Error(result)
	}
}

func TestModel(t *testing.T) {
	var never map[string]bool // what no configuration reaches
	t.Run("configurations", func(t *testing.T) {
		results := make(chan map[string]bool, len(configurations))
		for name := range configurations {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				v := newVerifier(t, readModel(t), name)
				out := v.assertions()
				complete(t, out)
				results <- v.unreached(out)
				if slices.Contains(cyclic, name) {
					complete(t, v.cycles())
				}
				t.Logf("%s, %.1f s", stored.FindString(out), time.Since(start).Seconds())
			})
		}
		t.Cleanup(func() { // once those that are parallel have ended
			close(results)
			for r := range results {
				if never == nil {
					never = r
				}
				maps.DeleteFunc(never, func(statement string, _ bool) bool { return !r[statement] })
			}
		})
	})
	for _, statement := range slices.Sorted(maps.Keys(never)) {
		t.Errorf("never reached: %s", statement)
	}
}

var (
	statementLine = regexp.MustCompile(`(?m)// STATE \d+ - wait\.pml:(\d+) - \[(.*)\] \(`)
	unreachedLine = regexp.MustCompile(`(?m)^\twait\.pml:(\d+), state \d+, "(.*)"$`)
	index         = regexp.MustCompile(`\[[a-z]\]`)
	number        = regexp.MustCompile(`\d+`)
)

// unreached returns the statements that were not executed. A statement of an inline is in the
// verifier as often as that is used, and counts if it was executed in one place.
func (v verifier) unreached(out string) map[string]bool {
	code, err := os.ReadFile(filepath.Join(v.dir, "pan.m"))
	if err != nil {
		v.Fatal(err)
	}
	count := func(line *regexp.Regexp, text string) map[string]int {
		n := map[string]int{}
		for _, m := range line.FindAllStringSubmatch(text, -1) {
			// Alike in all places and configurations.
			n["line "+m[1]+": "+index.ReplaceAllString(number.ReplaceAllString(m[2], "N"), "[N]")]++
		}
		return n
	}
	all, missed := count(statementLine, string(code)), count(unreachedLine, out)
	if len(all) < 100 {
		v.Fatalf("the verifier has %d statements only", len(all))
	}
	never := map[string]bool{}
	for statement, n := range missed {
		if all[statement] > 0 && n >= all[statement] && !strings.HasSuffix(statement, ": -end-") {
			never[statement] = true
		}
	}
	return never
}
