//go:build linux

// Package bench measures what the package costs beside the bare system calls that it makes. In one
// benchmark both take turns, so that what else the machine does slows both:
//
//	go -C bench test -run '^$' -bench . -count 5
//
// ns/op is that of the package, ns/bare that of the calls alone, with their arguments prepared, and
// ratio is the median of the quotients.
package bench

import (
	"slices"
	"testing"
	"time"
)

// A pair is an operation of the package, and the bare calls that it cannot do without, in the form
// that tells the scheduler.
type pair struct {
	name   string
	ratio  float64 // at most, as a median
	allocs float64 // at most
	op     func() error
	bare   func() error
}

// turns is how often one is done before it is the other's turn.
const turns = 32

func (p *pair) compare(b *testing.B) {
	var ops, bares time.Duration
	var ratios []float64
	turn := func(f func() error) time.Duration {
		start := time.Now()
		for range turns {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	for i := 0; i < b.N; i += turns {
		op, bare := turn(p.op), turn(p.bare)
		ops, bares = ops+op, bares+bare
		ratios = append(ratios, float64(op)/float64(bare))
	}
	slices.Sort(ratios)
	n := float64(len(ratios) * turns)
	b.ReportMetric(float64(ops.Nanoseconds())/n, "ns/op")
	b.ReportMetric(float64(bares.Nanoseconds())/n, "ns/bare")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(p.ratio, "target")
	b.ReportMetric(testing.AllocsPerRun(100, func() { p.op() }), "allocs/op")
}

func BenchmarkPidFD(b *testing.B) {
	for _, p := range pidfdPairs(b) {
		b.Run(p.name, p.compare)
	}
}

// What does not depend on the machine is a test.
func TestAllocations(t *testing.T) {
	for _, p := range pidfdPairs(t) {
		for _, f := range []func() error{p.op, p.bare} {
			if err := f(); err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
		}
		if n := testing.AllocsPerRun(200, func() { p.op() }); n > p.allocs {
			t.Errorf("%s: %v allocations, more than %v", p.name, n, p.allocs)
		}
		if n := testing.AllocsPerRun(200, func() { p.bare() }); n != 0 {
			t.Errorf("%s: %v allocations by the bare calls", p.name, n)
		}
	}
}
