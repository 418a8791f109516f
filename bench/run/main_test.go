package main

import (
	"slices"
	"strings"
	"testing"
)

const results = `goos: linux
goarch: amd64
pkg: github.com/sysfd/sysfd/bench
cpu: Some CPU
BenchmarkOperations/Open_and_Close-2	100	2000 ns/op	8.000 B/op	1.000 allocs/op	2.000 calls/op	1.190 ratio	1.200 target	1700 ns/bare	2.000 calls/bare	1.020 ratio/x.Open	0 allocs/x.Open	3.000 calls/x.Open
BenchmarkOperations/Ask-2	100	2000 ns/op	0 B/op	0 allocs/op	1.300 ratio	1.100 target	1700 ns/bare
`

func TestTable(t *testing.T) {
	for _, test := range []struct {
		asked  []string // ratios of Ask
		want   string   // in the table
		missed bool
	}{
		{[]string{"1.300"}, "| Ask | 2000 | 1.300 ± ∞ | 1.10 |", false}, // nobody knows from one run
		{slices.Repeat([]string{"1.300"}, 6), "| Ask | 2000 | 1.300 ± 0% | 1.10, missed |", true},
		{[]string{"1.090", "1.300", "1.300", "1.300", "1.300", "1.300"}, "| Ask | 2000 | 1.300 ± 16% | 1.10 |", false},
	} {
		text := ""
		for _, ratio := range test.asked {
			text += strings.ReplaceAll(results, "1.300", ratio)
		}
		rows, cpu, err := read(strings.NewReader(text))
		if err != nil || cpu != "Some CPU" || len(rows) != 2 {
			t.Fatalf("%d rows, %q, %v", len(rows), cpu, err)
		}
		var b strings.Builder
		missed, err := table(&b, rows)
		if err != nil || len(missed) > 0 != test.missed || test.missed && !strings.HasPrefix(missed[0], "Ask: ") {
			t.Errorf("%v: missed %q, %v", test.asked, missed, err)
		}
		for _, want := range []string{test.want, "| Open and Close | 2000 | 1.190 ± ", "| 1.20 | 1 | 8 | 2 (2) | `x.Open` 1.02, 3 calls |"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%v: no %q in\n%s", test.asked, want, b.String())
			}
		}
	}
	if _, _, err := read(strings.NewReader("PASS\n")); err == nil {
		t.Error("nothing was measured, and no error")
	}
}

func TestGrowthTable(t *testing.T) {
	rows, _, err := read(strings.NewReader(`cpu: Some CPU
BenchmarkGrowth/Mounts/PathOf-2	1000	1.502 growth	20.4 ns@000010	24.6 ns@000100	30.6 ns@005000
BenchmarkGrowth/Mounts/Mounts,_for_each-2	1000	1.000 growth	7 ns@000010
`))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	want := "| Mounts | PathOf | 10, 100, 5000 | 20, 25, 31 | 1.50 |\n| Mounts | Mounts, for each | 10 | 7 | 1.00 |\n"
	if err := growthTable(&b, rows); err != nil || !strings.HasSuffix(b.String(), "|\n"+want) {
		t.Errorf("%v, no\n%s in\n%s", err, want, b.String())
	}
	if rows, _, err = read(strings.NewReader(results)); err != nil || growthTable(&b, rows) == nil {
		t.Error("what is not of growth was taken:", err)
	}
}
