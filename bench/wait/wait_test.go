//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sysfd/sysfd/internal/overdue"
	"github.com/sysfd/sysfd/internal/smallest"
)

// TestMain lets the test binary be the workers, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == "worker" {
		main()
	}
	overdue.Report()
	os.Exit(m.Run())
}

// No thread waits. While many goroutines begin to, the table of descriptors grows, which takes the
// kernel some milliseconds (synchronize_rcu in expand_fdtable, fs/file.c): then the runtime starts
// threads, on a busy machine up to a hundred. With a WaitSet there is one goroutine.
func TestThreads(t *testing.T) {
	const n = 300
	t.Setenv("GOMAXPROCS", "2")
	program, err := smallest.Program()
	if err != nil {
		t.Skip(err)
	}
	m := measurer{program: filepath.Join(t.TempDir(), "smallest")}
	if err := os.WriteFile(m.program, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, w := range ways {
		if w.name == "os.Process.Wait" {
			continue // to compare with
		}
		t.Run(w.name, func(t *testing.T) {
			r, err := m.work(w.name, n)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", r)
			if r.ThreadsWaiting > n/2 || r.Threads > 8 && w.name == "WaitSet" {
				t.Errorf("%d threads while it waits for %d processes, %d at the end", r.ThreadsWaiting, n, r.Threads)
			}
		})
	}
}
