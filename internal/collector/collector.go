// Package collector makes tests of leaks independent of the moment at which the garbage collector
// runs. It closes files that were forgotten: those of an earlier test before a count begins, and
// those that a test looks for before they are counted.
package collector

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Stop collects garbage, and then keeps the collector from running until restart is called: what is
// forgotten until then can be counted. If the collector is off already, it stays off: calls of Stop
// can be nested.
func Stop() (restart func()) {
	percent := debug.SetGCPercent(-1)
	if percent < 0 {
		return func() {}
	}
	Run()
	return func() { debug.SetGCPercent(percent) }
}

// Run collects until no garbage is left, and waits for finalizers and cleanups. It returns how many
// of them have run since the program started. A closed file has none.
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
