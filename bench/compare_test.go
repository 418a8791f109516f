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
// calls alone, with their arguments prepared. ratio is the median of the quotients. The metrics of a
// peer end in its name. calls are system calls, counted by strace(1) if that is installed.
package bench

import (
	"runtime"
	"slices"
	"testing"
	"time"
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

// all are the bare calls, and the peers.
func (p *pair) all() []peer { return append([]peer{{bareCalls, p.bare}}, p.peers...) }

// compare measures p. The benchmarks of one process share what counted has found.
func (p *pair) compare(b *testing.B, counted map[string]int) {
	turns := p.turns
	if turns == 0 {
		turns = 32
	}
	turn := func(f func() error) time.Duration {
		start := time.Now()
		for range turns {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		took := time.Since(start)
		if p.after != nil {
			if err := p.after(); err != nil {
				b.Fatal(err)
			}
		}
		return took
	}
	b.ReportAllocs() // what is reported below takes the place of what the whole allocates
	peers := p.all()
	times, ratios := make([]time.Duration, len(peers)), make([][]float64, len(peers))
	var op time.Duration
	took := make([]time.Duration, len(peers))
	rounds := 0
	for i := 0; i < b.N; i += turns {
		rounds++
		ours := turn(p.op)
		op += ours
		for j, other := range peers {
			took[j] = turn(other.do)
			times[j] += took[j]
		}
		ratios[0] = append(ratios[0], float64(ours)/float64(took[0]))
		for j := 1; j < len(peers); j++ {
			ratios[j] = append(ratios[j], float64(took[j])/float64(took[0]))
		}
	}
	perOp := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(rounds*turns) }
	median := func(of []float64) float64 { slices.Sort(of); return of[len(of)/2] }
	allocs, bytes := p.allocations(p.op)
	b.ReportMetric(perOp(op), "ns/op")
	b.ReportMetric(bytes, "B/op")
	b.ReportMetric(allocs, "allocs/op")
	if n, ok := counted[p.name]; ok {
		b.ReportMetric(float64(n), "calls/op")
	}
	b.ReportMetric(median(ratios[0]), "ratio")
	if p.ratio != 0 {
		b.ReportMetric(p.ratio, "target")
	}
	for j, other := range peers {
		b.ReportMetric(perOp(times[j]), "ns/"+other.name)
		if n, ok := counted[p.name+"/"+other.name]; ok {
			b.ReportMetric(float64(n), "calls/"+other.name)
		}
		if j == 0 {
			continue
		}
		b.ReportMetric(median(ratios[j]), "ratio/"+other.name)
		allocs, bytes := p.allocations(other.do)
		b.ReportMetric(bytes, "B/"+other.name)
		b.ReportMetric(allocs, "allocs/"+other.name)
	}
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
