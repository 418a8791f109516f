//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// tracedVar says what this process is to do while strace watches: "operations", or the name of one
// of the receivers.
const tracedVar = "SYSFD_BENCH_TRACED"

// A mark is a call of close(2) with a descriptor that no process has. What a thread calls between
// two marks is what one operation calls.
const firstMark = 1 << 20

func mark(n int) { syscall.Close(firstMark + n) }

// rounds is how often each operation is done while strace watches. The least that was counted is
// what it needs.
const rounds = 5

// Everything that is counted, under the name that countCalls gives it.
func counted(pairs []*pair) (names []string, do []func() error) {
	for _, p := range pairs {
		if p.calls < 0 {
			continue
		}
		names, do = append(names, p.name), append(do, p.op)
		for _, other := range p.all() {
			names, do = append(names, p.name+"/"+other.name), append(do, other.do)
		}
	}
	return names, do
}

var callCounts struct {
	once sync.Once
	of   map[string]int
	why  string
}

// countCalls returns how many system calls each operation makes, or why that is not known.
func countCalls(t testing.TB) (of map[string]int, why string) {
	callCounts.once.Do(func() {
		var names []string
		for _, p := range pairsOf(t) {
			n, _ := counted([]*pair{p})
			names = append(names, n...)
		}
		callCounts.of, callCounts.why = traced(t, names, "operations", 0)
	})
	return callCounts.of, callCounts.why
}

// again returns the command that runs TestTraced, with descriptors passed from 3 up. Before comes
// ahead of the program.
func again(t testing.TB, what string, descriptors int, before ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(before, program, "-test.run", "^TestTraced$", "-test.v")
	cmd := exec.Command(args[0], args[1:]...)
	// No signal preempts a thread, and with many processors the runtime has no reason to take
	// one away from a thread that is in a system call.
	cmd.Env = append(os.Environ(), tracedVar+"="+what, "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=8")
	if descriptors > 0 {
		cmd.Env = append(cmd.Env, "LISTEN_FDNAMES="+strings.TrimSuffix(strings.Repeat("a:", descriptors), ":"))
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { null.Close() })
		cmd.ExtraFiles = slices.Repeat([]*os.File{null}, descriptors)
	}
	return cmd
}

// traced runs this test binary under strace(1).
func traced(t testing.TB, names []string, what string, descriptors int) (of map[string]int, why string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, "strace is not installed"
	}
	out := filepath.Join(t.TempDir(), "strace")
	text, err := again(t, what, descriptors, strace, "-f", "-qq", "-e", "signal=none", "-o", out).CombinedOutput()
	if err != nil {
		if bytes.Contains(bytes.ToLower(text), []byte("ptrace")) {
			return nil, "strace cannot trace here: " + string(bytes.TrimSpace(text))
		}
		t.Fatalf("%v\n%s", err, text)
	}
	log, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	of, err = parseCalls(log, names)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return of, ""
}

// ofRuntime are calls by which the runtime of Go wakes and stops threads, and manages memory. They
// depend on what else runs.
var ofRuntime = map[string]bool{"futex": true, "sched_yield": true, "nanosleep": true, "madvise": true, "mmap": true, "munmap": true, "rt_sigreturn": true}

// parseCalls counts what lies between marks of one thread. A line of strace -f is the thread, the
// call, "(" and more.
func parseCalls(log io.Reader, names []string) (map[string]int, error) {
	of := map[string]int{}
	thread, at, n := "", -1, 0
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		id, rest, _ := strings.Cut(lines.Text(), " ")
		call, args, ok := strings.Cut(strings.TrimLeft(rest, " "), "(")
		if !ok || strings.HasPrefix(call, "<") || strings.HasPrefix(call, "+") {
			continue // the second half of a call, or an end
		}
		if call == "close" {
			fd := strings.FieldsFunc(args, func(r rune) bool { return r == ')' || r == ' ' }) // or "<unfinished"
			if m, err := strconv.Atoi(fd[0]); err == nil && m >= firstMark {
				m -= firstMark
				switch {
				case m >= len(names):
					return nil, fmt.Errorf("mark %d of %d", m, len(names))
				case at < 0:
					thread, at, n = id, m, 0
				case m != at || id != thread:
					return nil, fmt.Errorf("%s begins within %s", names[m], names[at])
				default:
					if least, ok := of[names[at]]; !ok || n < least {
						of[names[at]] = n
					}
					at = -1
				}
				continue
			}
		}
		if at >= 0 && id == thread && !ofRuntime[call] {
			n++
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for _, name := range names {
		if _, ok := of[name]; !ok {
			return nil, fmt.Errorf("%s was not counted", name)
		}
	}
	return of, nil
}

// TestTraced is what strace watches.
func TestTraced(t *testing.T) {
	what := os.Getenv(tracedVar)
	if what == "" {
		t.Skip("this is for TestSystemCalls")
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	if what == "operations" {
		names, do := counted(pairsOf(t))
		for i, f := range do {
			for range 2 { // what is done once is done now
				if err := f(); err != nil {
					t.Fatalf("%s: %v", names[i], err)
				}
			}
			for range rounds {
				mark(i)
				f()
				mark(i)
			}
		}
		return
	}
	n := 0
	for strings.HasPrefix(os.Getenv("LISTEN_FDNAMES")+":", strings.Repeat("a:", n+1)) {
		n++
	}
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	os.Setenv("LISTEN_FDS", strconv.Itoa(n))
	if what == withID {
		id, err := ownID()
		if err != nil {
			t.Fatal(err)
		}
		os.Setenv("LISTEN_PIDFDID", strconv.FormatUint(id, 10))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	mark(0)
	start := time.Now()
	files, err := receivers[what](n)
	took := time.Since(start)
	mark(0)
	runtime.ReadMemStats(&after)
	if err != nil || len(files) != n {
		t.Fatalf("%d files, not %d: %v", len(files), n, err)
	}
	fmt.Println("took", took.Nanoseconds(), after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc)
}

// What receives passed descriptors. Each does so once in a process.
const withID = "ListenFDs with $LISTEN_PIDFDID"

var receivers = map[string]func(n int) ([]*os.File, error){
	"ListenFDs":        func(int) ([]*os.File, error) { return sysfd.ListenFDs() },
	withID:             func(int) ([]*os.File, error) { return sysfd.ListenFDs() },
	"activation.Files": func(int) ([]*os.File, error) { return activation.Files(true), nil },
	bareCalls: func(n int) ([]*os.File, error) {
		os.Getpid()
		for fd := 3; fd < 3+n; fd++ {
			if _, err := call(unix.SYS_FCNTL, uintptr(fd), unix.F_GETFD); err != nil {
				return nil, err
			}
		}
		_, err := call(unix.SYS_CLOSE_RANGE, 3, uintptr(3+n-1), unix.CLOSE_RANGE_CLOEXEC)
		return make([]*os.File, n), err
	},
}

// ownID returns the pidfd ID of this process without the package, which would learn something by it.
func ownID() (uint64, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	return stat.Ino, err
}

// What does not depend on the machine is a test, here the system calls.
func TestSystemCalls(t *testing.T) {
	of, why := countCalls(t)
	if why != "" {
		t.Skip(why)
	}
	for _, p := range pairsOf(t) {
		if p.calls < 0 {
			continue
		}
		if n := of[p.name]; n > p.calls {
			t.Errorf("%s makes %d system calls, more than %d", p.name, n, p.calls)
		}
		for _, other := range p.all() {
			t.Logf("%s: %d, %s %d", p.name, of[p.name], other.name, of[p.name+"/"+other.name])
		}
	}
}

func TestSystemCallsOfListenFDs(t *testing.T) {
	for what, atMost := range map[string]func(n int) int{
		"ListenFDs": func(n int) int { return 2*n + 4 },
		withID:      func(n int) int { return 2*n + 4 + 6 }, // the ID costs six at the first time
	} {
		for _, n := range []int{1, 3, 4, 16, 200} {
			of, why := traced(t, []string{what}, what, n)
			if why != "" {
				t.Skip(why)
			}
			t.Logf("%s of %d descriptors makes %d system calls", what, n, of[what])
			if of[what] > atMost(n) {
				t.Errorf("%s of %d descriptors makes %d system calls, more than %d", what, n, of[what], atMost(n))
			}
		}
	}
}

// benchmarkReceivers is for what a process does once: each time is that of another process.
func benchmarkReceivers(b *testing.B) {
	b.ReportAllocs()
	const n, fewest = 16, 9
	const peer = "activation.Files"
	times, ratios := map[string][]float64{}, map[string][]float64{}
	for range max(b.N, fewest) {
		for _, what := range []string{bareCalls, "ListenFDs", peer} {
			text, err := again(b, what, n).CombinedOutput()
			if err != nil {
				b.Fatalf("%v\n%s", err, text)
			}
			var ns, allocs, size float64
			if i := bytes.Index(text, []byte("took ")); i < 0 {
				b.Fatalf("%s", text)
			} else if _, err := fmt.Sscanf(string(text[i:]), "took %f %f %f", &ns, &allocs, &size); err != nil {
				b.Fatal(err)
			}
			times[what] = append(times[what], ns)
			ratios[what] = append(ratios[what], ns/times[bareCalls][len(times[bareCalls])-1])
			suffix := map[string]string{bareCalls: bareCalls, "ListenFDs": "op", peer: peer}[what]
			b.ReportMetric(allocs, "allocs/"+suffix)
			b.ReportMetric(size, "B/"+suffix)
		}
	}
	median := func(of []float64) float64 { slices.Sort(of); return of[len(of)/2] }
	b.ReportMetric(median(times["ListenFDs"]), "ns/op")
	b.ReportMetric(median(times[bareCalls]), "ns/"+bareCalls)
	b.ReportMetric(median(times[peer]), "ns/"+peer)
	b.ReportMetric(median(ratios["ListenFDs"]), "ratio")
	b.ReportMetric(median(ratios[peer]), "ratio/"+peer)
	for what, suffix := range map[string]string{bareCalls: bareCalls, "ListenFDs": "op", peer: peer} {
		if of, why := traced(b, []string{what}, what, n); why == "" {
			b.ReportMetric(float64(of[what]), "calls/"+suffix)
		}
	}
}
