//go:build linux

// Command vm runs tests on real kernels: Debian's, in virtual machines that need no
// hardware support. It takes Go, the qemu-system-* programs, and an apt that is
// configured with an archive of Debian's. From the folder test of this repository:
//
//	go run ./vm -list                          # the kernels there are
//	go run ./vm -kernel arm-7.2,amd64-6.1      # the tests of package sysfd on these
//	go run ./vm -all -j 2                      # on all there are, two at a time
//	go run ./vm -kernel amd64-6.12 -- -test.run Listen
//	go run ./vm -raise                         # with IDs beyond 32 bits, see package beyond
//
// It is also a runner for go test, of any package:
//
//	go build -o /tmp/vm ./vm
//	cd .. && GOARCH=arm CGO_ENABLED=0 go test -short -exec '/tmp/vm -kernel arm-7.2' .
//
// From the root of the repository the first of these is go -C test run ./vm -list.
//
// A kernel is fetched when it is first asked for, checked, and kept in the user's cache
// folder. The guest has the test binary, what is in testdata, and the file
// systems that the kernel makes: no tools, and no network but a loopback.
//
// The exit status is 0 if all tests passed on all kernels. A guest that hangs, panics or
// stops without saying how the tests ended has failed.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT) // go test sends SIGQUIT
	status, err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		status = cmp.Or(status, 1)
	}
	os.Exit(status)
}

// options are what holds for each kernel of a run.
type options struct {
	args    []string // of the test binary
	raise   bool
	verbose bool
	jobs    int
	uid     int
	qemu    string
	timeout time.Duration
}

func command(ctx context.Context, args []string, stdout io.Writer) (status int, err error) {
	var o options
	flags := flag.NewFlagSet("vm", flag.ExitOnError)
	list := flags.Bool("list", false, "list the kernels, do nothing else")
	names := flags.String("kernel", "", "the `names` of kernels, with commas between them")
	all := flags.Bool("all", false, "all kernels that have a version in their name")
	ci := flags.Bool("ci", false, "the few kernels that cover most")
	update := flags.Bool("update", false, "look for newer kernels than those that were fetched before")
	flags.BoolVar(&o.raise, "raise", false, "raise the kernels' ID counters beyond 32 bits and run the tests in ./beyond")
	flags.BoolVar(&o.verbose, "v", false, "print what the tests print")
	flags.IntVar(&o.jobs, "j", 1, "how many kernels run at a time")
	flags.IntVar(&o.uid, "uid", 0, "the `user` who runs the tests")
	flags.StringVar(&o.qemu, "qemu", "", "more `arguments` of qemu for a program, such as -m 8192")
	flags.DurationVar(&o.timeout, "timeout", 15*time.Minute, "how long one kernel may take")
	flags.Parse(args)
	o.args = flags.Args()

	var chosen []kernel
	switch {
	case *list:
		return 0, printKernels(stdout)
	case *all:
		chosen = some(func(k kernel) bool { return k.version != "" })
	case *ci:
		chosen = some(func(k kernel) bool { return k.ci })
	case *names != "":
		if chosen, err = find(*names); err != nil {
			return 2, err
		}
	case o.raise:
		chosen = some(func(k kernel) bool { return k.raise })
	default:
		return 2, errors.New("-list, -kernel, -all, -ci or -raise is needed")
	}
	b, err := newBuilder(ctx, *update)
	if err != nil {
		return 1, err
	}
	defer b.close()
	if len(o.args) > 0 && !strings.HasPrefix(o.args[0], "-") {
		if len(chosen) != 1 {
			return 2, errors.New("a program runs on one kernel")
		}
		return runProgram(ctx, b, chosen[0], o, stdout)
	}
	results := runTests(ctx, b, chosen, o, stdout)
	if err := printResults(stdout, results); err != nil {
		return 1, err
	}
	if slices.ContainsFunc(results, func(r result) bool { return !r.ok() }) {
		return 1, nil
	}
	return 0, nil
}

// runProgram is for go test -exec: it prints what the program prints, and returns its status.
func runProgram(ctx context.Context, b *builder, k kernel, o options, stdout io.Writer) (int, error) {
	v, err := b.vm(ctx, k)
	if err != nil {
		return 1, err
	}
	v.program, v.args, v.uid, v.raise = o.args[0], o.args[1:], o.uid, o.raise
	v.folder = "testdata"
	v.more = strings.Fields(o.qemu)
	v.output = func(line string) { io.WriteString(stdout, line) }
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	r := v.run(ctx)
	return r.status, r.err
}

// runTests runs the tests of package sysfd on each kernel.
func runTests(ctx context.Context, b *builder, chosen []kernel, o options, stdout io.Writer) []result {
	results := make([]result, len(chosen))
	slots := make(chan bool, max(1, o.jobs))
	var printing sync.Mutex
	var running sync.WaitGroup
	for i, k := range chosen {
		slots <- true
		running.Go(func() {
			defer func() { <-slots }()
			var log testLog
			r := runTest(ctx, b, k, o, func(line string) { log.add(line, o.verbose) })
			results[i] = r
			printing.Lock()
			defer printing.Unlock()
			fmt.Fprintf(stdout, "== %s\n", r)
			if o.verbose || !r.ok() {
				io.WriteString(stdout, log.kept.String()+log.pending.String())
			}
			if r.err != nil {
				fmt.Fprintln(stdout, r.err)
			}
		})
	}
	running.Wait()
	return results
}

// A testLog keeps what tests print that fail, and what comes last, which may be a panic.
type testLog struct{ kept, pending strings.Builder }

func (l *testLog) add(line string, all bool) {
	switch {
	case !all && (strings.HasPrefix(line, "--- PASS: ") || strings.HasPrefix(line, "--- SKIP: ")):
		l.pending.Reset()
		return
	case strings.HasPrefix(line, "=== RUN ") && !strings.Contains(line, "/"):
		l.kept.WriteString(l.pending.String())
		l.pending.Reset()
	}
	if text := strings.TrimLeft(line, " "); all || !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- PASS: ") && !strings.HasPrefix(text, "--- SKIP: ") {
		l.pending.WriteString(line)
	}
}

func runTest(ctx context.Context, b *builder, k kernel, o options, output func(string)) result {
	v, err := b.vm(ctx, k)
	if err != nil {
		return result{kernel: k, err: err}
	}
	pkg := "."
	if o.raise {
		pkg = "./test/vm/beyond"
	}
	if v.program, err = b.testBinary(ctx, k.goarch, pkg); err != nil {
		return result{kernel: k, err: err}
	}
	v.args = append([]string{"-test.v", "-test.short", "-test.timeout=" + o.timeout.String()}, o.args...)
	v.uid, v.output, v.raise = o.uid, output, o.raise
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return v.run(ctx)
}

func printKernels(stdout io.Writer) error {
	w := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "KERNEL\tPROGRAM FOR\tPACKAGE\tSUITES\tSETS")
	for _, k := range kernels {
		var sets []string
		for name, in := range map[string]bool{"-ci": k.ci, "-raise": k.raise} {
			if in {
				sets = append(sets, name)
			}
		}
		slices.Sort(sets)
		fmt.Fprintf(w, "%s\t%s\tlinux-*-%s*-%s:%s\t%s\t%s\n", k.name, k.goarch, k.version, machines[k.machine].flavour,
			machines[k.machine].architecture, strings.Join(k.suites, ", "), strings.Join(sets, " "))
	}
	return w.Flush()
}

func printResults(stdout io.Writer, results []result) error {
	w := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\nKERNEL\tRELEASE\tRESULT\tPASSED\tSKIPPED\tFAILED\tSECONDS")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%.1f\n", r.kernel.name, cmp.Or(r.release, "-"), r.verdict(), r.passed, r.skipped, len(r.failed), r.took.Seconds())
	}
	return w.Flush()
}
