// Package overdue ends tests that hang, with a report that can be read. That of package testing
// has every goroutine in full, which can be thousands of lines.
package overdue

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"
)

// Report is for the beginning of TestMain. Shortly before the time of the flag -test.timeout is over, it
// prints where the tests are, and ends the program.
func Report() {
	flag.Parse()
	timeout, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String())
	if err != nil || timeout <= 0 {
		return
	}
	time.AfterFunc(timeout-min(timeout/10, 20*time.Second), func() {
		fmt.Fprintf(os.Stderr, "The tests have not ended in %v, of which this is left:\n\n%s", timeout, inTests(goroutines()))
		os.Exit(2)
	})
}

func goroutines() string {
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1) // those that are alike are one
	return b.String()
}

// inTests returns what a profile has of goroutines that are in a test, and counts the others.
func inTests(profile string) string {
	var in strings.Builder
	others := 0
	for stack := range strings.SplitSeq(profile, "\n\n") {
		head, frames, ok := strings.Cut(stack, "\n")
		if strings.HasPrefix(head, "goroutine profile:") {
			head, frames, ok = strings.Cut(frames, "\n")
		}
		var n int
		if _, err := fmt.Sscanf(head, "%d @", &n); err != nil || !ok {
			continue
		}
		if !strings.Contains(frames, "_test.go:") || strings.Contains(frames, "testing.(*M).Run") {
			others += n
			continue
		}
		fmt.Fprintf(&in, "%d:\n", n)
		for frame := range strings.Lines(strings.TrimSpace(frames) + "\n") {
			if words := strings.Fields(frame); len(words) == 4 { // # ADDRESS FUNCTION FILE:LINE
				fmt.Fprintf(&in, "\t%s\n\t\t%s\n", words[2], words[3])
			}
		}
	}
	fmt.Fprintf(&in, "and %d that are in no test\n", others)
	return in.String()
}
