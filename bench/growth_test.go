//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/smallest"
	"golang.org/x/sys/unix"
)

// A growing is an operation whose cost is measured while there is more and more of something.
type growing struct {
	name string
	grow func(n int) error // until there are n
	op   func(n int) error
	end  func() // there is none again
	each bool   // op is done with n things, and its cost is that of one
}

// A cost is the nanoseconds of an operation for each size.
type cost map[int]float64

// Without it BenchmarkGrowth is over soon, as in CI, and shows only that it works.
var growthFlag = flag.Int("growth", 0, "measure growth up to the largest sizes, in so many `rounds`")

// howFar returns the sizes to measure, and how many rounds.
func howFar(sizes []int) (rounds int, measured []int) {
	if *growthFlag > 0 {
		return *growthFlag, sizes
	}
	return 1, sizes[:min(2, len(sizes))]
}

// measure makes up to most operations for each size in each of several rounds, and returns the
// least cost, that of the round in which the machine did least besides.
func (g *growing) measure(sizes []int, most int) (cost, error) {
	rounds := map[int][]float64{}
	times, sizes := howFar(sizes)
	for range times {
		for _, n := range sizes {
			if err := g.grow(n); err != nil {
				return nil, fmt.Errorf("%s, %d: %w", g.name, n, err)
			}
			done, start, took := 0, time.Now(), time.Duration(0)
			for ; done == 0 || done < most && took < 20*time.Millisecond; took = time.Since(start) {
				for range min(most, 32) {
					if err := g.op(n); err != nil {
						return nil, fmt.Errorf("%s, %d: %w", g.name, n, err)
					}
					if done++; time.Since(start) > time.Millisecond {
						break
					}
				}
			}
			ns := float64(took) / float64(done)
			if g.each {
				ns /= float64(n)
			}
			rounds[n] = append(rounds[n], ns)
		}
		g.end()
	}
	c := cost{}
	for n, ns := range rounds {
		c[n] = slices.Min(ns)
	}
	return c, nil
}

func (c cost) report(b *testing.B) {
	least, most := 0, 0
	for n, ns := range c {
		b.ReportMetric(ns, fmt.Sprintf("ns@%06d", n))
		if least == 0 || n < least {
			least = n
		}
		most = max(most, n)
	}
	b.ReportMetric(c[most]/c[least], "growth")
	b.ReportMetric(0, "ns/op") // not shown: there is one for each size
}

// BenchmarkGrowth shows what operations cost while there is more and more of what they could depend
// on. ns@N is the cost with N of them, growth the quotient of the last and the first. As a table:
//
//	go -C bench run ./run -growth 5
//
// For 100,000 pidfds and 50,000 descriptors RLIMIT_NOFILE must be 100,200, or the caller root with
// the right to raise it. A virtual machine (see package wait) has it, where times are good for ratios
// only:
//
//	CGO_ENABLED=0 go test -c -o testdata/bench.test .
//	testdata/vm -kernel amd64-newest -qemu '-m 4096 -icount shift=0,sleep=off' -timeout 1h testdata/bench.test -test.run '^$' \
//		-test.bench 'Growth/(PidFDs|Descriptors)' -test.benchtime 1000x -growth 1 | go run ./run -growth 1 -from /dev/stdin
func BenchmarkGrowth(b *testing.B) {
	b.Run("PidFDs", growthOfPidFDs)
	b.Run("Goroutines", growthOfGoroutines)
	b.Run("Mounts", growthOfMounts)
	b.Run("Descriptors", growthOfDescriptors)
}

// allowed returns those sizes for which this process may open enough descriptors, and raises the
// limit if it can.
func allowed(t testing.TB, forEach int, sizes ...int) (ok []int) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	want := uint64(forEach*slices.Max(sizes)) + 200
	old := limit
	limit.Cur, limit.Max = max(want, limit.Cur), max(want, limit.Max)
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		limit.Cur, limit.Max = old.Max, old.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
	for _, n := range sizes {
		if uint64(forEach*n)+200 <= limit.Cur {
			ok = append(ok, n)
		}
	}
	if len(ok) < len(sizes) {
		t.Logf("RLIMIT_NOFILE is %d, and only root can raise it: up to %d only", limit.Cur, slices.Max(ok))
	}
	return ok
}

func growthOfPidFDs(b *testing.B) {
	sizes := allowed(b, 1, 1, 1000, 10000, 100000)
	child, pid := startChild(b)
	id, err := child.ID()
	if err != nil {
		b.Skip(err)
	}
	// One that has ended, and stays a zombie: Next finds it again and again.
	cmd := exec.Command(writeSmallest(b))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	ended, err := sysfd.OpenPidFD(cmd.Process.Pid, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer ended.Close()
	set, err := sysfd.NewWaitSet[int](sysfd.WaitNoReap)
	if err != nil {
		b.Fatal(err)
	}
	defer set.Close()
	var pidfds []*sysfd.PidFD
	open := func(n int, member bool) error {
		for len(pidfds) < n {
			p, err := sysfd.OpenPidFD(pid, 0)
			if err != nil {
				return err
			}
			pidfds = append(pidfds, p)
			if member {
				if err := set.Add(p, len(pidfds)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	onlyOpen := func(n int) error { return open(n, false) }
	members := func(n int) error { return open(n, true) }
	end := func() {
		for _, p := range pidfds {
			set.Remove(p)
			p.Close()
		}
		pidfds = nil
	}
	for _, g := range []growing{
		{name: "OpenPidFD and Close", grow: onlyOpen, op: func(int) error { return closed(sysfd.OpenPidFD(pid, 0)) }},
		{name: "OpenPidFDByID and Close", grow: onlyOpen, op: func(int) error { return closed(sysfd.OpenPidFDByID(id)) }},
		{name: "ID", grow: onlyOpen, op: func(int) error { _, err := child.ID(); return err }},
		{name: "Info", grow: onlyOpen, op: func(int) error { _, err := child.Info(sysfd.PIDFD_INFO_PID); return err }},
		{name: "SendSignal", grow: onlyOpen, op: func(int) error { return child.SendSignal(0) }},
		{name: "TryWait", grow: onlyOpen, op: func(int) error { _, err := child.TryWait(0); return err }},
		{name: "WaitSet.Add and Remove", grow: members, op: func(int) error {
			if err := set.Add(child, 0); err != nil {
				return err
			}
			set.Remove(child)
			return nil
		}},
		{name: "WaitSet.Add and Next", grow: members, op: func(int) error {
			if err := set.Add(ended, 0); err != nil {
				return err
			}
			_, _, err := set.Next(context.Background())
			return err
		}},
	} {
		b.Run(g.name, func(b *testing.B) {
			g.end = end
			c, err := g.measure(sizes, b.N)
			if err != nil {
				b.Fatal(err)
			}
			c.report(b)
		})
	}
}

func growthOfGoroutines(b *testing.B) {
	child, _ := startChild(b)
	for _, op := range []struct {
		name string
		f    func() error
	}{
		{"ID", func() error { _, err := child.ID(); return err }},
		{"Info", func() error { _, err := child.Info(sysfd.PIDFD_INFO_PID); return err }},
		{"SendSignal", func() error { return child.SendSignal(0) }},
		{"TryWait", func() error { _, err := child.TryWait(0); return err }},
	} {
		const for1 = 64
		g := growing{name: op.name, each: true, grow: func(int) error { return nil }, end: func() {}, op: func(n int) error {
			var wg sync.WaitGroup
			errs := make(chan error, n)
			for range n {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for range for1 {
						if err := op.f(); err != nil {
							errs <- err
							return
						}
					}
				}()
			}
			wg.Wait()
			close(errs)
			return <-errs
		}}
		b.Run(op.name, func(b *testing.B) {
			c, err := g.measure([]int{1, 2, 4, 16}, b.N)
			if err != nil {
				b.Fatal(err)
			}
			for n := range c {
				c[n] /= for1
			}
			c.report(b)
		})
	}
}

// inMountNamespace is set to the number of operations in a process that may mount what it likes.
const inMountNamespace = "SYSFD_BENCH_MOUNTS"

func growthOfMounts(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("mounting requires root")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestMountsWorker$", "-growth", strconv.Itoa(*growthFlag))
	cmd.Env = append(os.Environ(), inMountNamespace+"="+strconv.Itoa(b.N))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if errors.Is(err, syscall.EPERM) {
		b.Skip("a mount namespace:", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	costs := map[string]cost{}
	if err := json.Unmarshal([]byte(line), &costs); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"FileRef.Open", "OpenMount", "PathOf", "Mounts, for each"} {
		if costs[name] != nil {
			b.Run(name, func(b *testing.B) { costs[name].report(b) })
		}
	}
}

// TestMountsWorker is what growthOfMounts starts.
func TestMountsWorker(t *testing.T) {
	most, err := strconv.Atoi(os.Getenv(inMountNamespace))
	if err != nil {
		t.Skip("a part of BenchmarkGrowth")
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ref, err := sysfd.FileRefAt(sysfd.AT_FDCWD, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	mount, err := sysfd.MountIDOf(int(file.Fd()), sysfd.AT_HANDLE_MNT_ID_UNIQUE)
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	grow := func(n int) error {
		for ; made < n; made++ {
			at := filepath.Join(dir, strconv.Itoa(made))
			if err := os.Mkdir(at, 0o700); err != nil {
				return err
			}
			if err := unix.Mount("none", at, "tmpfs", 0, ""); err != nil {
				return os.NewSyscallError("mount", err)
			}
		}
		return nil
	}
	end := func() {
		for ; made > 0; made-- {
			at := filepath.Join(dir, strconv.Itoa(made-1))
			unix.Unmount(at, 0)
			os.Remove(at)
		}
	}
	openedFile := func(f *os.File, err error) error {
		if err != nil {
			return err
		}
		return f.Close()
	}
	costs := map[string]cost{}
	for _, g := range []growing{
		{name: "FileRef.Open", op: func(int) error { return openedFile(ref.Open(os.O_RDONLY, 0)) }},
		{name: "OpenMount", op: func(int) error { return openedFile(sysfd.OpenMount(mount)) }},
		{name: "PathOf", op: func(int) error { _, err := sysfd.PathOf(int(file.Fd())); return err }},
		{name: "Mounts, for each", each: true, op: func(n int) error {
			for _, err := range sysfd.Mounts(0) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		g.grow, g.end = grow, end
		c, err := g.measure([]int{10, 100, 1000, 5000}, most)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		costs[g.name] = c
	}
	text, err := json.Marshal(costs)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(text))
}

// executes is set to the number of descriptors in a process that passes them on to the smallest
// program.
const executes = "SYSFD_BENCH_EXEC"

func growthOfDescriptors(b *testing.B) {
	sizes := allowed(b, 2, 10, 1000, 5000, 50000)
	name := writeSmallest(b)
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	var files []*os.File
	start := growing{name: "StartListenFDs, for each", each: true,
		grow: func(n int) (err error) { files, err = grownFiles(files, null, n); return err },
		op: func(n int) error {
			p, err := sysfd.StartListenFDs(name, []string{name}, &os.ProcAttr{Files: []*os.File{null}}, files)
			if err != nil {
				return err
			}
			defer p.Close()
			_, err = p.Wait(context.Background(), 0)
			return err
		},
		end: func() {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}}
	b.Run(start.name, func(b *testing.B) {
		c, err := start.measure(sizes, b.N)
		if err != nil {
			b.Fatal(err)
		}
		c.report(b)
	})
	for _, way := range []string{"ExecListenFDs", "syscall.Exec"} {
		b.Run(way+", for each", func(b *testing.B) {
			rounds := map[int][]float64{}
			times, sizes := howFar(sizes)
			for range times {
				for _, n := range sizes {
					cmd := exec.Command("/proc/self/exe", "-test.run", "^TestExecWorker$")
					cmd.Env = append(os.Environ(), executes+"="+way+" "+strconv.Itoa(n)+" "+name)
					cmd.Stderr = os.Stderr
					out, err := cmd.StdoutPipe()
					if err == nil {
						err = cmd.Start()
					}
					if err != nil {
						b.Fatal(err)
					}
					var began int64
					if _, err := fmt.Fscan(out, &began); err != nil {
						b.Fatal(err)
					}
					cmd.Wait()
					rounds[n] = append(rounds[n], float64(monotonic()-began)/float64(n))
				}
			}
			c := cost{}
			for n, ns := range rounds {
				c[n] = slices.Min(ns)
			}
			c.report(b)
		})
	}
}

func writeSmallest(t testing.TB) (name string) {
	t.Helper()
	program, err := smallest.Program()
	if err != nil {
		t.Skip(err)
	}
	name = filepath.Join(t.TempDir(), "smallest")
	if err := os.WriteFile(name, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// grownFiles appends duplicates of null until there are n. One letter is their name, as the kernel
// allows no variable of more than 128 KiB.
func grownFiles(files []*os.File, null *os.File, n int) ([]*os.File, error) {
	for len(files) < n {
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return files, os.NewSyscallError("fcntl", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "f"))
	}
	return files, nil
}

func monotonic() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// TestExecWorker is what growthOfDescriptors starts.
func TestExecWorker(t *testing.T) {
	args := strings.Fields(os.Getenv(executes))
	if len(args) != 3 {
		t.Skip("a part of BenchmarkGrowth")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	files, err := grownFiles(nil, null, n)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(monotonic())
	if args[0] == "ExecListenFDs" {
		err = sysfd.ExecListenFDs(args[2], args[2:], nil, files)
	} else {
		for _, f := range files { // what there is to do at least
			if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
				t.Fatal(err)
			}
		}
		err = syscall.Exec(args[2], args[2:], nil)
	}
	t.Fatal(err)
}

// What waits for a process takes little memory, and as much with thousands.
func TestMemoryOfWaiting(t *testing.T) {
	const n = 4000
	if len(allowed(t, 2, 1, n)) < 2 {
		t.Skip("too few descriptors")
	}
	child, _ := startChild(t)
	pid, err := child.PID()
	if err != nil {
		t.Fatal(err)
	}
	opened := func() []*sysfd.PidFD {
		pidfds := make([]*sysfd.PidFD, n)
		for i := range pidfds {
			if pidfds[i], err = sysfd.OpenPidFD(pid, 0); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			for _, p := range pidfds {
				p.Close()
			}
		})
		return pidfds
	}

	before := memory()
	pidfds := opened()
	set, err := sysfd.NewWaitSet[int32](0)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range pidfds {
		if err := set.Add(p, int32(i)); err != nil {
			t.Fatal(err)
		}
	}
	inSet := (memory() - before) / n
	set.Close()
	t.Logf("a member of a WaitSet with its PidFD: %d bytes", inSet)
	if inSet > 300 {
		t.Error("more than 300")
	}

	before = memory()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, p := range pidfds {
		wg.Add(1)
		go func() { defer wg.Done(); p.Wait(ctx, 0) }()
	}
	for parked() < n {
		time.Sleep(10 * time.Millisecond)
	}
	waiting := (memory() - before) / n
	cancel()
	wg.Wait()
	t.Logf("a Wait without its PidFD: %d bytes", waiting)
	// Some stacks double, because the collector runs or by the way of an allocation. If all did,
	// it would be more than 6000.
	if waiting > 4096+512 {
		t.Error("more than 4 KiB, and what varies")
	}
}

// memory returns what the runtime has from the kernel and has not given back.
func memory() int {
	debug.FreeOSMemory()
	m := new(runtime.MemStats) // not on the stack: the runtime makes stacks as large as the others are
	runtime.ReadMemStats(m)
	return int(m.HeapAlloc + m.StackInuse + m.OtherSys)
}

// parked returns how many goroutines wait in the runtime's poller.
func parked() (n int) {
	var text strings.Builder
	pprof.Lookup("goroutine").WriteTo(&text, 1)
	for record := range strings.SplitSeq(text.String(), "\n\n") {
		count, rest, _ := strings.Cut(record, " @ ")
		if i, err := strconv.Atoi(strings.TrimSpace(count[strings.LastIndex(count, "\n")+1:])); err == nil && strings.Contains(rest, "runtime_pollWait") {
			n += i
		}
	}
	return n
}

// Nothing is allocated for what there is already.
func TestAllocationsDoNotGrow(t *testing.T) {
	sizes := allowed(t, 1, 1, 100, 5000)
	child, _ := startChild(t)
	pid, err := child.PID()
	if err != nil {
		t.Fatal(err)
	}
	set, err := sysfd.NewWaitSet[int](0)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	members := 0
	for _, n := range sizes {
		for ; members < n; members++ {
			p, err := sysfd.OpenPidFD(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := set.Add(p, members); err != nil {
				t.Fatal(err)
			}
		}
		for _, op := range []struct {
			name string
			most float64
			f    func() error
		}{
			{"OpenPidFD and Close", 2, func() error { return closed(sysfd.OpenPidFD(pid, 0)) }},
			{"WaitSet.Add and Remove", 0, func() error { defer set.Remove(child); return set.Add(child, 0) }},
		} {
			if err := op.f(); err != nil {
				t.Fatalf("%s: %v", op.name, err)
			}
			if got := testing.AllocsPerRun(100, func() { op.f() }); got > op.most {
				t.Errorf("%s makes %v allocations with %d members, want %v", op.name, got, n, op.most)
			}
		}
	}
}
