//go:build linux

package soak

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/overdue"
)

var rounds = flag.Int("rounds", 2500, "rounds for each architecture, and for each way to open a process")

// patience is for what a worker takes tens of milliseconds for.
const patience = time.Minute

func TestMain(m *testing.M) {
	overdue.Report()
	os.Exit(m.Run())
}

func TestSoak(t *testing.T) {
	needs(t)
	for _, arch := range arches() {
		worker := build(t, arch)
		for _, byPID := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/byPID=%v", arch, byPID), func(t *testing.T) {
				out, err := run(t, worker, patience, fmt.Sprintf("-rounds=%d", *rounds), fmt.Sprintf("-by-pid=%v", byPID))
				t.Log(last(out.stdout))
				if err != nil {
					t.Fatalf("%v\n%s", err, &out.stderr)
				}
				var summary struct {
					Rounds      int
					DistinctIDs int `json:"distinct_ids"`
				}
				if err := json.Unmarshal([]byte(last(out.stdout)), &summary); err != nil {
					t.Fatal(err)
				}
				if summary.Rounds != *rounds || summary.DistinctIDs != *rounds {
					t.Errorf("%d rounds, not %d, with %d IDs", summary.Rounds, *rounds, summary.DistinctIDs)
				}
			})
		}
	}
}

// What goes wrong is found.
func TestSabotage(t *testing.T) {
	needs(t)
	worker := build(t, runtime.GOARCH)
	for _, a := range []struct{ name, want string }{
		{"signal", "signal 14"},
		{"id", "IDs that were seen twice"},
		{"descriptor", "descriptors became"},
		{"forgotten", "0 forgotten files became 1"},
		{"goroutine", "goroutines became"},
		{"memory", "KiB of heap became"},
		{"zombie", "a child is left"},
		{"hang", "select (no cases)"},
	} {
		t.Run(a.name, func(t *testing.T) {
			patience := patience
			if a.name == "hang" {
				patience = 5 * time.Second
			}
			out, err := run(t, worker, patience, "-rounds", "2000", "-sabotage", a.name)
			if err == nil || !strings.Contains(out.stderr.String(), a.want) {
				t.Errorf("%v, no %q:\n%s", err, a.want, &out.stderr)
			}
		})
	}
	t.Run("no wrap-around", func(t *testing.T) {
		out, err := run(t, worker, patience, "-rounds", "2000", "-pid-max", "30000")
		if err == nil || !strings.Contains(out.stderr.String(), "in 2000 rounds the PIDs went round 0 times") {
			t.Errorf("%v:\n%s", err, &out.stderr)
		}
	})
}

// The second best, a PID and a start time, is mistaken for another process where all free PIDs come
// round within a clock tick, and nowhere else.
func TestSecondBest(t *testing.T) {
	needs(t)
	possible, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		t.Fatal(err)
	}
	fewest := 301
	if _, last, ok := strings.Cut(strings.TrimSpace(string(possible)), "-"); ok {
		n, err := strconv.Atoi(last)
		if err != nil {
			t.Fatal(err)
		}
		fewest = max(fewest, 8*(n+1))
	}
	pidMaxes := []int{fewest, 300 + 10, 300 + 1000}
	if *rounds >= 50_000 {
		pidMaxes = append(pidMaxes, 32768) // the default
	}
	for _, arch := range arches() {
		worker := build(t, arch)
		for _, pidMax := range pidMaxes {
			if pidMax < fewest || pidMax > fewest && arch != runtime.GOARCH {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", arch, pidMax), func(t *testing.T) {
				out, err := run(t, worker, patience, "-second-best", fmt.Sprintf("-rounds=%d", *rounds), fmt.Sprintf("-pid-max=%d", pidMax))
				t.Log(last(out.stdout))
				if err != nil {
					t.Fatalf("%v\n%s", err, &out.stderr)
				}
				var sum struct {
					Free      int `json:"free_pids"`
					Names     int
					Reused    int
					Mistaken  int
					PerSecond float64 `json:"processes_per_second"`
				}
				if err := json.Unmarshal([]byte(last(out.stdout)), &sum); err != nil {
					t.Fatal(err)
				}
				const ticksPerSecond = 100
				round := float64(sum.Free) / sum.PerSecond * ticksPerSecond // ticks
				switch {
				case sum.Names != *rounds || sum.Reused < *rounds/4:
					t.Errorf("that is no measure: %+v", sum)
				case round < 0.5 && sum.Mistaken < sum.Reused/10, round > 50 && sum.Mistaken > 0:
					t.Errorf("%d of %d were mistaken, PIDs come round in %.1f ticks", sum.Mistaken, sum.Reused, round)
				}
			})
		}
	}
}

// arches returns what this machine can run.
func arches() []string {
	if runtime.GOARCH == "amd64" {
		return []string{"amd64", "386"}
	}
	return []string{runtime.GOARCH}
}

// needs skips a test on what it cannot run on.
func needs(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "root")
	}
	if _, err := exec.LookPath("go"); err != nil {
		lacks(t, "go")
	}
	switch runtime.GOARCH {
	case "amd64", "386", "arm64":
	default:
		t.Skip("there is no program for the children on " + runtime.GOARCH)
	}
	// By the version, as the test must not write to the one pid_max of an older kernel.
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		t.Fatalf("%s: %v", release, err)
	}
	if major < 6 || major == 6 && minor < 14 {
		t.Skipf("Linux %s has one pid_max for all: it takes 6.14", release)
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

// build builds the worker and returns its path.
func build(t *testing.T, arch string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "worker")
	cmd := exec.Command("go", "build", "-C", "worker", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return path
}

// output is what a worker has printed.
type output struct {
	stdout []string // lines
	stderr bytes.Buffer
}

func last(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

// run runs a worker in namespaces, and makes sure that nothing changes outside of them. If for
// a time it does not get on, it shows what it is at.
func run(t *testing.T, worker string, patience time.Duration, args ...string) (out output, err error) {
	t.Helper()
	outer, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	before := pidMax(t)
	defer func() {
		if after := pidMax(t); after != before {
			t.Errorf("pid_max of the host was %s, and became %s", before, after)
			os.WriteFile(pidMaxFile, []byte(before), 0)
		}
	}()
	args = append([]string{"-outer", outer, "-dir", t.TempDir()}, args...)
	cmd := exec.Command(worker, args...)
	cmd.Stderr = &out.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL, // of PID 1, which takes all the others with it
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// The signal comes at the end of the thread that has started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	switch err := cmd.Start(); {
	case errors.Is(err, syscall.ENOEXEC):
		lacks(t, "a kernel that runs programs for 386")
	case errors.Is(err, syscall.EPERM):
		lacks(t, "the right to make namespaces")
	case err != nil:
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	stuck := time.AfterFunc(patience, func() {
		cmd.Process.Signal(syscall.SIGQUIT)
		time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	})
	defer stuck.Stop()
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		stuck.Reset(patience)
		out.stdout = append(out.stdout, lines.Text())
		if now := pidMax(t); now != before {
			t.Errorf("pid_max of the host is %s, not %s", now, before)
		}
	}
	return out, cmd.Wait()
}

const pidMaxFile = "/proc/sys/kernel/pid_max"

func pidMax(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(pidMaxFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
