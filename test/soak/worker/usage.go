//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/sysfd/sysfd/internal/collector"
)

// A usage is what this process has of what runs out, while it does nothing.
type usage struct {
	Descriptors int `json:"descriptors"`
	Goroutines  int `json:"goroutines"`
	Threads     int `json:"threads"`
	HeapKiB     int `json:"heap_kib"`
	RSSKiB      int `json:"rss_kib"`
	Forgotten   int `json:"forgotten"` // files that the collector has closed until then

	files []string // what the descriptors are
}

const idle = 2 // goroutines: the main one, and the one that waits for the set

func measure() (u usage, err error) {
	// A goroutine that others have waited for takes a moment to end.
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > idle && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	u.Goroutines = runtime.NumGoroutine()
	if u.Threads, err = ofStatus("Threads"); err != nil {
		return u, err
	}
	if err := endThreads(); err != nil {
		return u, err
	}
	// When the collector has closed them does not matter, as it counts them.
	u.Forgotten = int(collector.Run())
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return u, err
	}
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // all but that of ReadDir
			u.files = append(u.files, e.Name()+" is "+name)
		}
	}
	u.Descriptors = len(u.files)

	debug.FreeOSMemory()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	u.HeapKiB = int(mem.HeapAlloc / 1024)
	u.RSSKiB, err = ofStatus("VmRSS")
	return u, err
}

// endThreads ends those that are idle. Each has several KiB of the heap, and how many of them
// the runtime has is by chance. A thread ends with a goroutine that is locked to it.
func endThreads() error {
	fewest := math.MaxInt
	for tries := 0; tries < 20; tries++ {
		var wg sync.WaitGroup
		wg.Go(runtime.LockOSThread)
		wg.Wait()
		n, err := ofStatus("Threads")
		if err != nil {
			return err
		}
		if n < fewest {
			fewest, tries = n, 0
		}
	}
	return nil
}

// ofStatus returns a number that the kernel tells of this process.
func ofStatus(name string) (n int, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, name+": %d", &n); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("what is that? %s", status)
}

// What one measure may be above another. A leak of a single word in each round would be more
// than that in 100,000.
const (
	heapMargin = 256  // KiB
	rssMargin  = 2048 // KiB; the runtime's own memory
)

// checkFlat returns an error if after is more than before.
func checkFlat(before, after usage) error {
	var errs []error
	if after.Descriptors != before.Descriptors {
		errs = append(errs, fmt.Errorf("%d descriptors became %d:\n%s\n%s", before.Descriptors, after.Descriptors,
			strings.Join(before.files, ", "), strings.Join(after.files, ", ")))
	}
	for _, a := range []struct {
		what                  string
		before, after, margin int
	}{
		{"forgotten files", before.Forgotten, after.Forgotten, 0},
		{"goroutines", before.Goroutines, after.Goroutines, 0},
		{"KiB of heap", before.HeapKiB, after.HeapKiB, heapMargin},
		{"KiB of RSS", before.RSSKiB, after.RSSKiB, rssMargin},
	} {
		if a.after > a.before+a.margin {
			errs = append(errs, fmt.Errorf("%d %s became %d", a.before, a.what, a.after))
		}
	}
	if after.Threads > goroutines+16 { // each can be in a system call, and the runtime has some of its own
		errs = append(errs, fmt.Errorf("%d threads for %d goroutines", after.Threads, goroutines))
	}
	return errors.Join(errs...)
}
