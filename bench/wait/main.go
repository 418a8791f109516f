//go:build linux

// Command wait measures what it costs to wait for many processes, and how late the end of one is
// learnt:
//
//	go -C bench run ./wait -n 1000,8000,15000
//
// The processes are started beforehand, do nothing, and are killed all at once. Each way to wait
// for them runs in a process of its own, and the ways take turns. The floor is an epoll loop in C,
// which takes many events at once. Without a C compiler there is no floor.
//
// More processes than the limits of the machine allow, such as 100,000, require root, which raises
// them and says so. At the end they are as before.
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

	"github.com/sysfd/sysfd/internal/smallest"
)

//go:embed floor/floor.c
var floor string

func main() {
	if len(os.Args) == 5 && os.Args[1] == "worker" {
		n, err := strconv.Atoi(os.Args[4])
		if err == nil {
			err = work(os.Args[2], os.Args[3], n)
		}
		exit(err)
	}
	numbers := flag.String("n", "1000,8000,15000", "`numbers` of processes, with commas between them; none if empty")
	turns := flag.Int("turns", 3, "how often each way is measured; the table has the least time, and otherwise medians")
	wakeUps := flag.Int("wakeups", 500, "how often the wake-up of one is measured; 0 = not")
	only := flag.String("way", "", "leave out the ways whose name does not match this regular `expression`; the floor is always there")
	flag.Parse()
	exit(run(*numbers, *turns, *wakeUps, *only))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "wait:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(numbers string, turns, wakeUps int, only string) (err error) {
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
	m := measurer{turns: turns, only: matching, program: filepath.Join(dir, "smallest")}
	program, err := smallest.Program()
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.program, program, 0o755); err != nil {
		return err
	}
	if m.floor, err = buildFloor(dir); err != nil {
		fmt.Println("no floor:", err)
	}
	fmt.Printf("%s, %s, %d processors, processes of %d bytes\n\n", kernel(), runtime.Version(), runtime.NumCPU(), len(program))
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
	if wakeUps > 0 {
		return m.one(wakeUps)
	}
	return nil
}

func kernel() string {
	var u syscall.Utsname
	syscall.Uname(&u)
	var release []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	return "Linux " + string(release)
}

func buildFloor(dir string) (string, error) {
	source, program := filepath.Join(dir, "floor.c"), filepath.Join(dir, "floor")
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
			fmt.Printf("%s cannot be raised above %d\n", limit.name, l.Max)
			l.Cur = l.Max
			if err := syscall.Setrlimit(limit.number, &l); err != nil {
				return nil, os.NewSyscallError("setrlimit", err)
			}
		}
		if l.Cur != old {
			fmt.Printf("raised in this process: %s from %d to %d\n", limit.name, old, l.Cur)
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
		fmt.Printf("raised until the end: %s from %d to %d\n", file, was, 2*n+10000)
	}
	return lower, nil
}

type measurer struct {
	program string // of the processes
	floor   string // "" = none
	turns   int
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
	fmt.Println()
	t := table{11, 28, 9, 10, 12, 15, 13}
	t.row("PROCESSES", "WAY", "THREADS", "RESIDENT", "BYTES EACH", "WITHOUT PIDFD", "LAST RESULT", "OF C")
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
				t.row(n, name, "-", "-", "-", "-", "-", err)
				continue
			}
			if len(results[name]) == 0 {
				continue
			}
			of := func(f func(measure) int) float64 { return median(results[name], f) }
			took := float64(slices.MinFunc(results[name], func(a, b measure) int { return cmp.Compare(a.Nanoseconds, b.Nanoseconds) }).Nanoseconds) / 1e6
			ratio := "-"
			if name == floorWay {
				least = took
			} else if least > 0 {
				ratio = fmt.Sprintf("%.2f", took/least)
			}
			each := func(f func(measure) int) string { return fmt.Sprintf("%.0f", of(f)/float64(n)) }
			without := "-"
			if w := wayNamed(name); w != nil && w.open != nil {
				without = each(func(r measure) int { return r.Waiting - r.Opened })
			}
			t.row(n, name, int(of(func(r measure) int { return r.Threads })),
				fmt.Sprintf("%.1f MB", of(func(r measure) int { return r.Waiting })/1e6),
				each(func(r measure) int { return r.Waiting - r.Base }), without, fmt.Sprintf("%.0f ms", took), ratio)
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
	cmd := exec.Command(self, "worker", way, m.program, strconv.Itoa(n))
	if way == floorWay {
		cmd = exec.Command(m.floor, "many", m.program, strconv.Itoa(n))
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

// A table prints rows with cells as wide as these, but for the last.
type table []int

func (t table) row(cells ...any) {
	for i, c := range cells {
		width := 0
		if i < len(t) {
			width = t[i]
		}
		text := fmt.Sprintf("%-*v", width, c)
		if i == len(cells)-1 {
			text = strings.TrimRight(text, " ") + "\n"
		}
		fmt.Print(text)
	}
}
