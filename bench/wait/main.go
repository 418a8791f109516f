//go:build linux

// Command wait measures what it costs to wait for many processes, and how late the end of one is
// learned, and prints two tables in Markdown:
//
//	go -C bench run ./wait -n 1000,8000,15000
//
// The processes are started beforehand, do nothing, and are killed all at once. Each way to wait
// for them runs in a process of its own, and the ways take turns. The floor is an epoll loop in C,
// which takes many events at once. Without a C compiler there is no floor.
//
// More processes than the limits of the machine allow require root, which raises them and says so.
// At the end they are as before. Where they cannot be raised, a virtual machine serves, which needs
// no hardware support. With -icount its clock counts instructions, one for a nanosecond, so times
// are good for ratios only, and do not depend on what else the machine does:
//
//	cd bench
//	mkdir -p testdata
//	cc -O2 -static -pthread -o testdata/floor wait/floor/floor.c
//	CGO_ENABLED=0 go build -o testdata/wait ./wait
//	go -C ../test build -o ../bench/testdata/vm ./vm
//	testdata/vm -kernel amd64-newest -qemu '-m 8192 -icount shift=0,sleep=off' -timeout 1h testdata/wait \
//		-floor testdata/floor -clones -n 100000 -turns 1 -wakeups 0 -way '^WaitSet|PidFD'
//
// With -clones the processes share the memory of one, which the floor makes. Those with memory of
// their own need 75 KiB each, and thrice as long to start; package os/exec cannot wait for 100,000 at
// all, as it needs a thread for each.
package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sysfd/sysfd/internal/smallest"
)

//go:embed floor/floor.c
var floor string

func main() {
	if len(os.Args) == 6 && os.Args[1] == "worker" {
		n, err := strconv.Atoi(os.Args[3])
		if err == nil {
			err = work(os.Args[2], n, os.Args[4], os.Args[5])
		}
		exit(err)
	}
	var o options
	numbers := flag.String("n", "1000,8000,15000", "`numbers` of processes, with commas between them; none if empty")
	flag.IntVar(&o.turns, "turns", 3, "how often each way is measured; the table has the least time, and otherwise medians")
	flag.IntVar(&o.wakeUps, "wakeups", 500, "how often the wake-up of one is measured; 0 = not")
	flag.StringVar(&o.floor, "floor", "", "the compiled `program` floor/floor.c; it is compiled if empty")
	flag.BoolVar(&o.clones, "clones", false, "wait for processes that share the memory of one")
	only := flag.String("way", "", "leave out the ways whose name does not match this regular `expression`; the floor is always there")
	flag.Parse()
	exit(o.run(*numbers, *only))
}

type options struct {
	turns, wakeUps int
	floor          string
	clones         bool
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "wait:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (o options) run(numbers, only string) (err error) {
	var ns []int
	for _, s := range strings.FieldsFunc(numbers, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number of processes", s)
		}
		ns = append(ns, n)
	}
	matching, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sysfd-wait-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := measurer{options: o, only: matching, program: filepath.Join(dir, "smallest")}
	program, err := smallest.Program()
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.program, program, 0o755); err != nil {
		return err
	}
	if m.floor, err = o.floorIn(dir); err != nil && (o.clones || o.floor != "") {
		return err
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "no floor:", err)
	}
	what := fmt.Sprintf("processes of %d bytes", len(program))
	if o.clones {
		what = "clones of one process"
	}
	fmt.Printf("%s, %s, %s, %d processors; %s; turns: %d, wake-ups: %d\n", kernel(), runtime.Version(), time.Now().Format(time.DateOnly), runtime.NumCPU(), what, o.turns, o.wakeUps)
	if len(ns) > 0 {
		lower, err := raise(slices.Max(ns))
		if err != nil {
			return err
		}
		stopped := make(chan os.Signal, 1)
		signal.Notify(stopped, os.Interrupt, syscall.SIGTERM)
		go func() {
			<-stopped
			lower()
			os.RemoveAll(dir)
			os.Exit(1)
		}()
		defer func() { err = errors.Join(err, lower()) }()
		if err := m.many(ns); err != nil {
			return err
		}
	}
	if o.wakeUps > 0 {
		return m.one(o.wakeUps)
	}
	return nil
}

func kernel() string {
	var u syscall.Utsname
	syscall.Uname(&u)
	var release []byte
	for _, c := range u.Release {
		if c == 0 || c == '-' { // behind it is what the builder calls it
			break
		}
		release = append(release, byte(c))
	}
	return "Linux " + string(release)
}

func (o options) floorIn(dir string) (string, error) {
	source, program := filepath.Join(dir, "floor.c"), filepath.Join(dir, "floor")
	if o.floor != "" { // which is not executable in a virtual machine
		compiled, err := os.ReadFile(o.floor)
		if err != nil {
			return "", err
		}
		return program, os.WriteFile(program, compiled, 0o755)
	}
	if err := os.WriteFile(source, []byte(floor), 0o644); err != nil {
		return "", err
	}
	out, err := exec.Command("cc", "-O2", "-pthread", "-o", program, source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
}

// raise raises the limits for n processes and as many threads, and says which. lower undoes it.
func raise(n int) (lower func() error, err error) {
	want := uint64(2*n) + 1000 // PidFD.Wait has a second descriptor for each
	for _, limit := range []struct {
		name   string
		number int
	}{{"RLIMIT_NOFILE", syscall.RLIMIT_NOFILE}, {"RLIMIT_NPROC", 6}} {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(limit.number, &l); err != nil {
			return nil, os.NewSyscallError("getrlimit", err)
		}
		old := l.Cur
		// Without the right to raise it further, what needs more fails, and the table says so.
		l.Cur, l.Max = max(old, want), max(l.Max, want)
		if syscall.Setrlimit(limit.number, &l) == syscall.EPERM {
			if err := syscall.Getrlimit(limit.number, &l); err != nil {
				return nil, os.NewSyscallError("getrlimit", err)
			}
			fmt.Fprintf(os.Stderr, "%s cannot be raised above %d\n", limit.name, l.Max)
			l.Cur = l.Max
			if err := syscall.Setrlimit(limit.number, &l); err != nil {
				return nil, os.NewSyscallError("setrlimit", err)
			}
		}
		if l.Cur != old {
			fmt.Fprintf(os.Stderr, "raised in this process: %s from %d to %d\n", limit.name, old, l.Cur)
		}
	}
	var undo []func() error
	lower = func() (err error) {
		for _, f := range slices.Backward(undo) {
			err = errors.Join(err, f())
		}
		undo = nil
		return err
	}
	for _, name := range []string{"kernel/pid_max", "kernel/threads-max", "fs/epoll/max_user_watches"} {
		file := "/proc/sys/" + name
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, errors.Join(err, lower())
		}
		was, err := strconv.Atoi(string(bytes.TrimSpace(text)))
		if err != nil || was > 2*n+5000 {
			continue
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(2*n+10000)), 0); err != nil {
			return nil, errors.Join(err, lower())
		}
		undo = append(undo, func() error { return os.WriteFile(file, text, 0) })
		fmt.Fprintf(os.Stderr, "raised until the end: %s from %d to %d\n", file, was, 2*n+10000)
	}
	return lower, nil
}

type measurer struct {
	options
	program string // of the processes
	only    *regexp.Regexp
}

// A measure is what a worker prints. Memory is in bytes.
type measure struct {
	ThreadsWaiting int // while all wait
	Threads        int // at the end, and at most
	Base           int // resident once the processes run
	Opened         int // with the PidFDs
	Waiting        int // while all wait
	Nanoseconds    int // from SIGKILL for all to the last result
}

const floorWay = "epoll in C"

func (m *measurer) many(ns []int) error {
	names := []string{floorWay}
	for _, w := range ways {
		if m.only.MatchString(w.name) {
			names = append(names, w.name)
		}
	}
	head("--:|---|--:|--:|--:|--:|--:|--:", "processes", "way", "threads", "resident, MB", "bytes each", "without the PidFD", "last result, ms", "ratio to C")
	for _, n := range ns {
		results, died := map[string][]measure{}, map[string]error{}
		for turn := range m.turns {
			for _, name := range names {
				if died[name] != nil || name == floorWay && m.floor == "" {
					continue
				}
				r, err := m.work(name, n)
				fmt.Fprintf(os.Stderr, "turn %d of %d: %d processes, %s: %+v\n", turn+1, m.turns, n, name, r)
				if err != nil {
					died[name] = err
				} else {
					results[name] = append(results[name], r)
				}
			}
		}
		var least float64
		for _, name := range names {
			if err := died[name]; err != nil {
				row(n, name, err, "", "", "", "", "")
				continue
			}
			if len(results[name]) == 0 {
				continue
			}
			of := func(f func(measure) int) float64 { return median(results[name], f) }
			took := float64(slices.MinFunc(results[name], func(a, b measure) int { return cmp.Compare(a.Nanoseconds, b.Nanoseconds) }).Nanoseconds) / 1e6
			ratio := ""
			if name == floorWay {
				least = took
			} else if least > 0 {
				ratio = fmt.Sprintf("%.2f", took/least)
			}
			each := func(f func(measure) int) string { return fmt.Sprintf("%.0f", of(f)/float64(n)) }
			without := ""
			if wayNamed(name) != nil {
				without = each(func(r measure) int { return r.Waiting - r.Opened })
			}
			row(n, name, int(of(func(r measure) int { return r.Threads })),
				fmt.Sprintf("%.1f", of(func(r measure) int { return r.Waiting })/1e6),
				each(func(r measure) int { return r.Waiting - r.Base }), without, fmt.Sprintf("%.0f", took), ratio)
		}
	}
	return nil
}

// work measures in a process of its own, which may die.
func (m *measurer) work(way string, n int) (r measure, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	program := m.program
	if m.clones {
		program = ""
	}
	cmd := exec.Command(self, "worker", way, strconv.Itoa(n), program, m.floor)
	if way == floorWay {
		cmd = exec.Command(m.floor, "many", strconv.Itoa(n))
		if !m.clones {
			cmd.Args = append(cmd.Args, program)
		}
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	// The processes outlive their parent for a moment, and hold what they have inherited.
	if err := cmd.Run(); err != nil {
		line, _, _ := strings.Cut(errOut.String(), "\n")
		return r, fmt.Errorf("died: %s", cmp.Or(line, err.Error()))
	}
	return r, json.Unmarshal(out.Bytes(), &r)
}

// median returns the middle one of what f returns for each.
func median[T any](s []T, f func(T) int) float64 {
	values := make([]int, 0, len(s))
	for _, x := range s {
		values = append(values, f(x))
	}
	slices.Sort(values)
	return float64(values[len(values)/2])
}

// head begins a table.
func head(alignment string, cells ...any) {
	fmt.Println()
	row(cells...)
	fmt.Println("|" + alignment + "|")
}

func row(cells ...any) {
	for _, c := range cells {
		fmt.Print("| ", c, " ")
	}
	fmt.Println("|")
}
