// Package collector makes tests of leaks independent of the moment at which the garbage
// collector runs. It closes the files that were forgotten: those of an earlier test in
// the middle of a count, and those that are to be found before they are counted.
package collector

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Stop collects what there is and then keeps the collector from running until restart is
// called. So all that is forgotten until then is still there to be counted. Where the
// collector does not run anyway, it stays so: Stop may be called within another.
func Stop() (restart func()) {
	percent := debug.SetGCPercent(-1)
	if percent < 0 {
		return func() {}
	}
	Run()
	return func() { debug.SetGCPercent(percent) }
}

// Run collects until there is nothing left, and waits for the finalizers and cleanups. It
// returns how many of them there were since the program has started. A file that is closed
// has none.
func Run() (tidied uint64) {
	tidied, _ = counts()
	for idle := 0; idle < 2; idle++ { // what is in a pool goes at the second time
		runtime.GC()
		queued, done := counts()
		for ; queued != done; queued, done = counts() {
			time.Sleep(100 * time.Microsecond)
		}
		if queued != tidied {
			tidied, idle = queued, -1 // they may have been the last to hold others
		}
	}
	return tidied
}
