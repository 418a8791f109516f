//go:build linux

package gvisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sysfd/sysfd/internal/overdue"
)

var current = flag.Bool("current", false, "build the gVisor that runsc/go.mod names, and run the tests in that too")

// A difference is a test that comes out otherwise than on Linux.
type difference struct {
	why       string
	sometimes bool // it may pass
}

// A release is one gVisor.
type release struct {
	environment string // in sysfd_test.go
	version     string // what runsc --version says, "" for any
	platform    string
	passed      int // at least so many tests pass

	differs map[string]difference // by the name of the test
	missing []string              // what the command's probe says no to, beside what all lack
}

// differsInAll is what is so in each release.
var differsInAll = map[string]difference{
	"TestIsFD":                   {why: "SO_ACCEPTCONN of a netlink socket is ENOPROTOOPT"},
	"TestPeerCredentials":        {why: "there is no SO_PEERGROUPS"},
	"TestPeerCredentialsOfOther": {why: "there is no SO_PEERGROUPS"},
	"TestPeerCredentialsNone":    {why: "SO_PEERCRED of a socket without a peer is EINVAL, or PeerCredentials is unsupported"},
	"TestNotifyFull":             {why: "of several senders one is not woken when there is room again", sometimes: true},
	"TestNotifyFullAndGone":      {why: "a sender is not woken when the receiver closes the socket whose queue is full"},
}

var of2022 = release{
	environment: "gvisor-2022",
	version:     "0.0~20221219.0",
	platform:    "ptrace",
	passed:      70,
	differs: map[string]difference{
		"TestListenAcrossExec":          {why: "SO_ACCEPTCONN of a listening Unix socket is 0"},
		"TestMountIDOf":                 {why: "/proc/PID/fdinfo has no mnt_id"},
		"TestMountIDOfRefused":          {why: "/proc/PID/fdinfo has no mnt_id"},
		"TestNamespaceHandle":           {why: "/proc/PID/ns has no uts"},
		"TestPeerCredentialsOutOfSight": {why: "SO_PEERCRED is about the caller, whoever the peer is, so that PeerCredentials is unsupported"},
		"TestRestrictFromStart":         {why: "clone(2) gives no pidfd"},
		"TestRestrictNoProc":            {why: "a mount cannot be made private"},
		"TestWaitAdopted":               {why: "there is no PR_SET_CHILD_SUBREAPER"},
		"TestThisBootID":                {why: "there is no /proc/sys/kernel/random/boot_id"},
	},
	missing: []string{
		"signaling a process", "pidfd", "waiting for a process", "descriptor of another process", "joining a process's namespaces",
		"pidfd of a thread", "signaling a thread or a group",
	},
}

var of2026 = release{
	environment: "gvisor",
	platform:    "systrap",
	passed:      140,
	differs: map[string]difference{
		"TestAsNobody":                            {why: "the namespaces of other users' processes can be opened, and a pidfd has no attributes"},
		"TestNSPIDs":                              {why: "/proc/PID/status has no NSpid, but fdinfo has"},
		"TestNamespaceOfEnded":                    {why: "the namespaces of a zombie are EACCES and not ENOENT"},
		"TestPidFDPIDInNamespace":                 {why: "fdinfo has the PID in the namespace of the reader, and not in that of the mounted /proc"},
		"TestQueueSignal":                         {why: "the sender in a siginfo is the thread, and not the process", sometimes: true},
		"TestRestrictPIDNamespace":                {why: "a signal can be sent out of a pid namespace"},
		"TestShimWithPrivileges":                  {why: "no program is started set-user-ID"},
		"TestSendSignalTo":                        {why: "what leads no process group is EINVAL, and a group is out of reach when its leader was reaped"},
		"TestWaitSetMost":                         {why: "a pidfd can be in more than 500 epoll instances"},
		"TestStartListenFDsFails/traced/too_long": {why: "an argument that is too long is ENAMETOOLONG"},
		"TestStartListenFDsFails/shim/too_long":   {why: "an argument that is too long is ENAMETOOLONG"},
	},
}

func TestMain(m *testing.M) {
	overdue.Report()
	os.Exit(m.Run())
}

// Debian's package.
func TestDebian(t *testing.T) {
	needs(t)
	runsc, err := exec.LookPath("runsc")
	if err != nil {
		lacks(t, "runsc")
	}
	of2022.test(t, runsc)
}

// The one that runsc/go.mod names.
func TestCurrent(t *testing.T) {
	if !*current {
		t.Skip("it takes two minutes to build: go test ./gvisor -current")
	}
	needs(t)
	runsc := filepath.Join(t.TempDir(), "runsc")
	start := time.Now()
	build(t, "runsc", "build", "-ldflags=-s -w", "-o", runsc, "gvisor.dev/gvisor/runsc")
	t.Logf("built in %.0f seconds", time.Since(start).Seconds())
	of2026.test(t, runsc)
}

func needs(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "root")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the versions are those for amd64")
	}
}

// lacks skips a test for want of something that CI has.
func lacks(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("it takes %s, which CI should have", what)
	}
	t.Skipf("it takes %s", what)
}

// build runs the go command in a folder.
func build(t *testing.T, folder string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v in %s: %v\n%s", cmd, folder, err, out)
	}
}

// A sandbox runs programs.
type sandbox struct {
	runsc, platform, state string
	env                    []string
}

// run returns what a program prints. One that does not end in time is ended.
func (s sandbox) run(t *testing.T, patience time.Duration, program string, args ...string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	state, err := os.MkdirTemp(s.state, "")
	if err != nil {
		t.Fatal(err)
	}
	runsc := func(ctx context.Context, args ...string) *exec.Cmd {
		args = append([]string{"--root=" + state, "--rootless=false", "--network=none", "--platform=" + s.platform}, args...)
		return exec.CommandContext(ctx, s.runsc, args...)
	}
	// Not as PID 1, which has no parent.
	cmd := runsc(ctx, append([]string{"do", "/bin/sh", "-c", `"$@"; exit $?`, "sh", program}, args...)...)
	cmd.Env = append(os.Environ(), s.env...)
	// In the sandbox there is not all that CI has.
	cmd.Env = slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "CI=") })
	cmd.WaitDelay = 10 * time.Second
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		ids, _ := runsc(context.Background(), "list", "-quiet").Output()
		for _, id := range strings.Fields(string(ids)) {
			runsc(context.Background(), "delete", "-force", id).Run()
		}
		err = errors.Join(ctx.Err(), err)
	}
	return string(text), err
}

// test runs the tests of package sysfd, and the command's probe.
func (r release) test(t *testing.T, runsc string) {
	version, err := exec.Command(runsc, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(version), "runsc version "+r.version) {
		t.Fatalf("the table is for version %s, this is %s", r.version, version)
	}
	dir := t.TempDir()
	tests, command := filepath.Join(dir, "sysfd.test"), filepath.Join(dir, "sysfd")
	build(t, "../..", "test", "-c", "-o", tests, ".")
	build(t, "../../cmd/sysfd", "build", "-o", command, ".")
	s := sandbox{runsc, r.platform, dir, []string{"SYSFD_TEST_SANDBOX=" + r.environment}}
	if out, err := s.run(t, time.Minute, "/bin/cat", "/proc/version"); err != nil || !strings.HasPrefix(out, "Linux version 4.") {
		t.Fatalf("%s does not run a program: %v\n%s", runsc, err, out)
	} else {
		t.Logf("it says that it is %s", strings.TrimSpace(out))
	}
	differs := maps.Clone(differsInAll)
	maps.Copy(differs, r.differs)
	t.Run("probe", func(t *testing.T) { r.testProbe(t, s, command) })
	t.Run("tests", func(t *testing.T) { r.testAll(t, s, tests, differs) })
	t.Run("differences", func(t *testing.T) {
		for name, d := range differs {
			if !d.sometimes {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					out, err := s.run(t, time.Minute, tests, "-test.v", "-test.short", "-test.timeout=5s", "-test.run="+exactly(name))
					hung := strings.Contains(out, "panic: test timed out") || strings.Contains(out, "The tests have not ended")
					if err == nil || !hung && !strings.Contains(out, "--- FAIL: "+name) {
						t.Errorf("it does not fail any more, and was to because %s: %v\n%s", d.why, err, out)
					}
				})
			}
		}
	})
}

// exactly returns the pattern of a test or a subtest for the flags of a test binary.
func exactly(name string) string { return "^" + strings.ReplaceAll(name, "/", "$/^") + "$" }

// testAll runs what does not differ.
func (r release) testAll(t *testing.T, s sandbox, tests string, differs map[string]difference) {
	var skip []string
	for _, name := range slices.Sorted(maps.Keys(differs)) {
		skip = append(skip, exactly(name))
		t.Logf("differs: %s: %s", name, differs[name].why)
	}
	out, err := s.run(t, 5*time.Minute, tests, "-test.v", "-test.short", "-test.timeout=4m", "-test.skip="+strings.Join(skip, "|"))
	if err != nil {
		t.Fatalf("%v\n%s", err, onlyFailures(out))
	}
	passed, skipped := count(out)
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		t.Logf("skipped: %d: %s", skipped[why], why)
	}
	total := 0
	for _, n := range skipped {
		total += n
	}
	t.Logf("passed: %d, skipped: %d, differ: %d", passed, total, len(differs))
	if passed < r.passed || !strings.Contains(out, "--- PASS: TestFeatures ") {
		t.Errorf("%d tests passed, %d should:\n%s", passed, r.passed, out)
	}
	if skipped["no reason"] > 0 {
		t.Errorf("skipped without a reason:\n%s", out)
	}
}

var (
	wentWell = regexp.MustCompile(`^ +(?:=== |--- PASS: |--- SKIP: )`)
	ended    = regexp.MustCompile(`^--- (PASS|SKIP): (?:Test|Fuzz)`)
	reason   = regexp.MustCompile(`^ +\w+_test\.go:\d+: ([^= ].*)`)
)

// count returns how many tests passed and how many were skipped for which reason. Subtests do
// not count.
func count(out string) (passed int, skipped map[string]int) {
	skipped = map[string]int{}
	why := "no reason"
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		switch m := ended.FindStringSubmatch(line); {
		case m != nil && m[1] == "PASS":
			passed++
		case m != nil:
			skipped[why]++
		case strings.HasPrefix(line, "=== RUN   ") && !strings.Contains(line, "/"):
			why = "no reason"
		default:
			if m := reason.FindStringSubmatch(line); m != nil {
				why = m[1]
			}
		}
	}
	return passed, skipped
}

// onlyFailures leaves out the tests that passed or were skipped, and the subtests in others.
func onlyFailures(out string) string {
	var b, test strings.Builder
	flush := func(fine bool) {
		if !fine {
			b.WriteString(test.String())
		}
		test.Reset()
	}
	for line := range strings.Lines(out) {
		if !wentWell.MatchString(line) {
			test.WriteString(line)
		}
		if strings.HasPrefix(line, "--- ") {
			flush(ended.MatchString(line))
		}
	}
	flush(false)
	return b.String()
}

// missingInAll is what each release lacks, as the command calls it.
var missingInAll = []string{
	"file handle", "opening a file by handle", "file handle for comparison only", "file system UUID", "unique mount ID",
	"connectable file handle", "namespace handle", "opening a namespace by ID", "listing namespaces", "memory advice for a process", "freeing a killed process's memory",
	"pidfd of a socket peer", "pidfd of a message sender", "pidfd ID", "opening a process's namespaces", "process information",
	"opening a process by ID", "exit status of a non-child", "extended attributes of a process", "activation by $LISTEN_PIDFDID",
}

func (r release) testProbe(t *testing.T, s sandbox, command string) {
	out, err := s.run(t, time.Minute, command, "probe", "-json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var probed struct {
		Features []struct{ Feature, Status, Value string }
	}
	if err := json.NewDecoder(bytes.NewReader([]byte(out))).Decode(&probed); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range probed.Features {
		want := "yes"
		switch {
		case slices.Contains(missingInAll, f.Feature), slices.Contains(r.missing, f.Feature):
			want = "no"
		case f.Feature == "cgroup ID":
			want = "not known" // cgroup2 is not mounted
		}
		t.Log(strings.TrimSpace(fmt.Sprintf("%-9s  %s  %s", f.Status, f.Feature, f.Value)))
		if f.Status != want {
			t.Errorf("%s: %s, should be %s", f.Feature, f.Status, want)
		}
	}
	if len(probed.Features) < 26 {
		t.Errorf("%d features", len(probed.Features))
	}
}

func TestCount(t *testing.T) {
	const out = "=== RUN   TestA\n--- PASS: TestA (0.00s)\n=== RUN   TestB\n    b_test.go:7: it takes root\n--- SKIP: TestB (0.00s)\n" +
		"=== RUN   TestC\n=== RUN   TestC/x\n    c_test.go:8: only here\n--- PASS: TestC (0.00s)\n    --- SKIP: TestC/x (0.00s)\n" +
		"=== RUN   TestD\n--- SKIP: TestD (0.00s)\n"
	passed, skipped := count(out)
	if want := map[string]int{"it takes root": 1, "no reason": 1}; passed != 2 || !maps.Equal(skipped, want) {
		t.Errorf("%d, %v", passed, skipped)
	}
	if got, want := exactly("TestA/b"), "^TestA$/^b$"; got != want {
		t.Error(got)
	}
	const wrong = "=== RUN   TestE\n    e_test.go:1: wrong\n--- FAIL: TestE (0.00s)\nFAIL\n"
	if got := onlyFailures("=== RUN   TestA\n--- PASS: TestA (0.00s)\n" + wrong); got != wrong {
		t.Errorf("%q", got)
	}
}
