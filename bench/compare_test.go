//go:build linux

// Package bench measures what the package costs beside the bare system calls that it makes, and
// beside what a program would call without it. In one benchmark all take turns, so that what else
// the machine does slows them alike:
//
//	go -C bench run ./run
//
// prints a table of medians, and fails if a target is missed. The benchmarks themselves are run by
//
//	go -C bench test -run '^$' -bench . -count 5
//
// There ns/op, B/op, allocs/op and calls/op are those of the package, and ns/bare that of the bare
// calls alone, with their arguments prepared. Times are medians, and ratio is the median of the
// quotients of the two. The metrics of a peer end in its name. calls are system calls, counted by strace(1) if that is installed.
package bench

import (
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/sysfd/sysfd/internal/overdue"
)

// A pair is an operation of the package, and the bare calls that it cannot do without, in the form
// that tells the scheduler.
type pair struct {
	name   string
	ratio  float64 // at most, as a median; 0 = no target
	allocs float64 // at most
	calls  int     // system calls, at most; -1 = they are not counted
	op     func() error
	bare   func() error
	peers  []peer
	turns  int          // how often one is done before it is another's turn; 0 = 32
	after  func() error // cleans up after a turn, and is not measured
}

// A peer is what a program would call without the package.
type peer struct {
	name string // a metric ends in it, so it has no spaces
	do   func() error
}

// bareCalls is the name of pair.bare among the peers.
const bareCalls = "bare"

func TestMain(m *testing.M) {
	overdue.Report()
	os.Exit(m.Run())
}

// all are the bare calls, and the peers.
func (p *pair) all() []peer { return append([]peer{{bareCalls, p.bare}}, p.peers...) }

// compare measures p. The benchmarks of one process share what counted has found.
func (p *pair) compare(b *testing.B, counted map[string]int) {
	b.ReportAllocs() // what is reported below takes the place of what the whole allocates
	turns := p.turns
	if turns == 0 {
		turns = 32
	}
	// The peers come later, and less often: some are slow, and leave garbage.
	op := p.takeTurns(b, b.N/turns, turns, p.bare, p.op)
	allocs, bytes := p.allocations(p.op)
	b.ReportMetric(op[1].time, "ns/op")
	b.ReportMetric(op[0].time, "ns/"+bareCalls)
	b.ReportMetric(op[1].ratio, "ratio")
	if p.ratio != 0 {
		b.ReportMetric(p.ratio, "target")
	}
	b.ReportMetric(bytes, "B/op")
	b.ReportMetric(allocs, "allocs/op")
	if n, ok := counted[p.name]; ok {
		b.ReportMetric(float64(n), "calls/op")
		b.ReportMetric(float64(counted[p.name+"/"+bareCalls]), "calls/"+bareCalls)
	}
	all := []func() error{p.bare}
	for _, other := range p.peers {
		all = append(all, other.do)
	}
	took := p.takeTurns(b, b.N/turns/16, turns, all...)
	for i, other := range p.peers {
		allocs, bytes := p.allocations(other.do)
		b.ReportMetric(took[i+1].time, "ns/"+other.name)
		b.ReportMetric(took[i+1].ratio, "ratio/"+other.name)
		b.ReportMetric(bytes, "B/"+other.name)
		b.ReportMetric(allocs, "allocs/"+other.name)
		if n, ok := counted[p.name+"/"+other.name]; ok {
			b.ReportMetric(float64(n), "calls/"+other.name)
		}
	}
}

// A medians is of one function: its time in nanoseconds, and the time to that of the first one.
type medians struct{ time, ratio float64 }

// takeTurns measures functions, each some turns before it is the turn of the next.
func (p *pair) takeTurns(b *testing.B, rounds, turns int, functions ...func() error) []medians {
	const fewest = 9 // for a median
	times, ratios := make([][]float64, len(functions)), make([][]float64, len(functions))
	for round := range max(rounds, fewest) {
		for i, f := range functions {
			start := time.Now()
			for range turns {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			took := float64(time.Since(start).Nanoseconds()) / float64(turns)
			if p.after != nil {
				if err := p.after(); err != nil {
					b.Fatal(err)
				}
			}
			times[i] = append(times[i], took)
			ratios[i] = append(ratios[i], took/times[0][round])
		}
	}
	found := make([]medians, len(functions))
	for i := range functions {
		slices.Sort(times[i])
		slices.Sort(ratios[i])
		found[i] = medians{times[i][len(times[i])/2], ratios[i][len(ratios[i])/2]}
	}
	return found
}

// allocations returns how often f allocates, and how many bytes, each as an average without its
// fraction, which is due to what else runs.
func (p *pair) allocations(f func() error) (count, bytes float64) {
	runs := 200
	if p.turns != 0 {
		runs = 20 // it is slow
	}
	if p.after != nil {
		do := f
		f = func() error { do(); return p.after() }
	}
	f()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64((after.Mallocs - before.Mallocs) / uint64(runs)), float64((after.TotalAlloc - before.TotalAlloc) / uint64(runs))
}

// pairsOf returns what is measured, by the rooms of the package.
func pairsOf(t testing.TB) []*pair {
	t.Helper()
	return slices.Concat(handlePairs(t), pidfdPairs(t), listenPairs(t))
}

func BenchmarkOperations(b *testing.B) {
	counted, _ := countCalls(b)
	for _, p := range pairsOf(b) {
		b.Run(p.name, func(b *testing.B) { p.compare(b, counted) })
	}
	b.Run("ListenFDs of 16 descriptors", benchmarkReceivers)
}

// What does not depend on the machine is a test.
func TestAllocations(t *testing.T) {
	for _, p := range pairsOf(t) {
		for _, other := range append(p.all(), peer{"", p.op}) {
			if err := other.do(); err != nil {
				t.Fatalf("%s: %s: %v", p.name, other.name, err)
			}
			if p.after != nil {
				if err := p.after(); err != nil {
					t.Fatalf("%s: %s: %v", p.name, other.name, err)
				}
			}
		}
		if p.allocs < 0 {
			continue
		}
		if n, bytes := p.allocations(p.op); n > p.allocs {
			t.Errorf("%s: %v allocations of %v bytes, more than %v", p.name, n, bytes, p.allocs)
		}
		if n, _ := p.allocations(p.bare); n != 0 {
			t.Errorf("%s: %v allocations by the bare calls", p.name, n)
		}
	}
}
