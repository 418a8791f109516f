// Command run measures the operations of the package, prints a table in Markdown, and fails if one of
// them costs more than its target:
//
//	go -C bench run ./run
//
// It runs the benchmarks of package bench. Every figure is the median of several runs. After a ratio
// stands how far the ends of its 95% confidence interval are from it, found as benchstat finds it. A
// target is missed if the whole interval is above it. With -growth it prints another table, of
// BenchmarkGrowth, which has no targets.
//
// The exit status is 1 if a target was missed, and 2 if the benchmarks could not be run.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
	"golang.org/x/sys/unix"
)

const (
	prefix = "Operations/"
	bare   = "bare"
)

func main() {
	count := flag.Int("count", 10, "how often each operation is measured; with fewer than 6 no target is missed")
	benchtime := flag.String("benchtime", "200ms", "how long each time")
	only := flag.String("bench", ".", "which operations, a regular expression")
	growth := flag.Int("growth", 0, "measure growth instead, in so many `rounds`")
	from := flag.String("from", "", "do not measure, but print what this `file` has, which a benchmark has printed")
	flag.Parse()
	do := func() ([]string, error) { return run(os.Stdout, *count, *benchtime, *only) }
	if *growth > 0 {
		do = func() ([]string, error) { return nil, runGrowth(os.Stdout, *growth, *from) }
	}
	missed, err := do()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(2)
	}
	for _, text := range missed {
		fmt.Fprintln(os.Stderr, "target missed:", text)
	}
	if len(missed) > 0 {
		os.Exit(1)
	}
}

func run(out io.Writer, count int, benchtime, only string) (missed []string, err error) {
	results, err := measure("-test.bench", "^Benchmark"+prefix+only, "-test.count", fmt.Sprint(count), "-test.benchtime", benchtime)
	if err != nil {
		return nil, err
	}
	rows, cpu, err := read(bytes.NewReader(results))
	if err != nil {
		return nil, err
	}
	if err := printHead(out, cpu, fmt.Sprintf("%d runs of %s", count, benchtime)); err != nil {
		return nil, err
	}
	return table(out, rows)
}

func runGrowth(out io.Writer, rounds int, from string) error {
	var results []byte
	var err error
	if from != "" {
		results, err = os.ReadFile(from)
	} else {
		results, err = measure("-test.bench", "^BenchmarkGrowth", "-test.benchtime", "1000x", "-growth", fmt.Sprint(rounds))
	}
	if err != nil {
		return err
	}
	rows, cpu, err := read(bytes.NewReader(results))
	if err != nil {
		return err
	}
	if from == "" {
		if err := printHead(out, cpu, fmt.Sprintf("the least of %d rounds", rounds)); err != nil {
			return err
		}
	}
	return growthTable(out, rows)
}

// measure runs benchmarks, and returns what they print.
func measure(args ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "sysfd-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "bench.test")
	build := exec.Command("go", "test", "-c", "-o", program, "github.com/sysfd/sysfd/bench")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("go test -c: %w", err)
	}
	cmd := exec.Command(program, append(args, "-test.run", "^$", "-test.timeout", "1h")...)
	cmd.Stderr = os.Stderr
	results, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, results)
	}
	return results, nil
}

func printHead(out io.Writer, cpu, how string) error {
	_, err := fmt.Fprintf(out, "%s, %s, %s, %s; %s\n\n", cpu, kernel(), runtime.Version(), time.Now().Format(time.DateOnly), how)
	return err
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err.Error()
	}
	version, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-") // without what the builder calls it
	return "Linux " + version + " " + unix.ByteSliceToString(name.Machine[:])
}

// A row has what was measured of one operation: the values of each metric, by its unit as the
// benchmark gives it.
type row struct {
	name   string
	values map[string][]float64
	peers  []string // in their order
}

func read(results io.Reader) (rows []*row, cpu string, err error) {
	byName := map[string]*row{}
	r := benchfmt.NewReader(results, "results")
	for r.Scan() {
		result, ok := r.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		cpu = result.GetConfig("cpu")
		name, _, _ := strings.Cut(strings.TrimPrefix(string(result.Name), prefix), "-")
		of := byName[name]
		if of == nil {
			of = &row{name: strings.ReplaceAll(name, "_", " "), values: map[string][]float64{}}
			byName[name] = of
			rows = append(rows, of)
		}
		for _, v := range result.Values {
			unit, value := v.Unit, v.Value
			if v.OrigUnit != "" {
				unit, value = v.OrigUnit, v.OrigValue
			}
			if peer, ok := strings.CutPrefix(unit, "ratio/"); ok && of.values[unit] == nil {
				of.peers = append(of.peers, peer)
			}
			of.values[unit] = append(of.values[unit], value)
		}
	}
	if err := r.Err(); err != nil {
		return nil, "", err
	}
	if len(rows) == 0 {
		return nil, "", errors.New("nothing was measured")
	}
	return rows, cpu, nil
}

func (r *row) summary(unit string) (s benchmath.Summary, ok bool) {
	values, ok := r.values[unit]
	if !ok {
		return s, false
	}
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0.95), true
}

// text is the median of a metric, with as many decimal places, or "?" if it was not measured.
func (r *row) text(unit string, places int) string {
	s, ok := r.summary(unit)
	if !ok {
		return "?"
	}
	return fmt.Sprintf("%.*f", places, s.Center)
}

func plural(n, what string) string {
	if n == "1" {
		return n + " " + what
	}
	return n + " " + what + "s"
}

// table prints the rows, and returns which targets were missed.
func table(out io.Writer, rows []*row) (missed []string, err error) {
	var b strings.Builder
	b.WriteString("| operation | ns | ratio to the bare calls | target | allocations | bytes | system calls (bare) | alternatives, by the same ratio |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|---|\n")
	for _, r := range rows {
		ratio, ok := r.summary("ratio")
		if !ok {
			return nil, fmt.Errorf("%s has no ratio", r.name)
		}
		target := ""
		if s, ok := r.summary("target"); ok {
			target = fmt.Sprintf("%.2f", s.Center)
			if ratio.Lo > s.Center {
				target += ", missed"
				missed = append(missed, fmt.Sprintf("%s: %.3f ± %s, not %.2f", r.name, ratio.Center, ratio.PctRangeString(), s.Center))
			}
		}
		var peers []string
		for _, peer := range r.peers {
			text := fmt.Sprintf("`%s` %s", peer, r.text("ratio/"+peer, 2))
			if n := r.text("allocs/"+peer, 0); n != "0" {
				text += ", " + plural(n, "allocation")
			}
			if n := r.text("calls/"+peer, 0); n != "?" {
				text += ", " + plural(n, "call")
			}
			peers = append(peers, text)
		}
		calls := "?"
		if _, ok := r.summary("calls/op"); ok {
			calls = r.text("calls/op", 0) + " (" + r.text("calls/"+bare, 0) + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %.3f ± %s | %s | %s | %s | %s | %s |\n", r.name, r.text("ns/op", 0), ratio.Center, ratio.PctRangeString(), target,
			r.text("allocs/op", 0), r.text("B/op", 0), calls, strings.Join(peers, "; "))
	}
	_, err = io.WriteString(out, b.String())
	return missed, err
}

// growthTable prints rows of BenchmarkGrowth.
func growthTable(out io.Writer, rows []*row) error {
	var b strings.Builder
	b.WriteString("| of what there is more | operation | how many | ns | last to first |\n|---|---|--:|--:|--:|\n")
	for _, r := range rows {
		what, name, ok := strings.Cut(strings.TrimPrefix(r.name, "Growth/"), "/")
		if !ok {
			return fmt.Errorf("%s is not of BenchmarkGrowth", r.name)
		}
		var sizes, costs []string
		for _, unit := range slices.Sorted(maps.Keys(r.values)) {
			if size, ok := strings.CutPrefix(unit, "ns@"); ok {
				sizes, costs = append(sizes, strings.TrimLeft(size, "0")), append(costs, r.text(unit, 0))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", what, name, strings.Join(sizes, ", "), strings.Join(costs, ", "), r.text("growth", 2))
	}
	_, err := io.WriteString(out, b.String())
	return err
}
