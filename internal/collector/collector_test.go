//go:build unix

package collector

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// forget opens a file, and sees to it that no one has it any more. One holds another, so that it
// takes more than one collection.
//
//go:noinline
func forget(t *testing.T) (fds [2]int) {
	t.Helper()
	type holder struct {
		file *os.File
		held *holder
	}
	var last *holder
	for i := range fds {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = int(f.Fd())
		last = &holder{f, last}
		runtime.SetFinalizer(last, func(*holder) {})
	}
	return fds
}

func isOpen(fd int) bool {
	var s syscall.Stat_t
	return syscall.Fstat(fd, &s) == nil
}

func TestRun(t *testing.T) {
	for range 20 {
		before := Run()
		fds := forget(t)
		if after := Run(); after != before+4 && after != 0 { // 0 before Go 1.26
			t.Fatalf("%d tidied up, %d before", after, before)
		}
		for _, fd := range fds {
			if isOpen(fd) {
				t.Fatalf("%d is still open", fd)
			}
		}
	}
}

func TestRunTwice(t *testing.T) {
	before := Run()
	if after := Run(); after != before {
		t.Errorf("%d tidied up, %d before", after, before)
	}
}

// What is in a pool is forgotten too.
func TestRunPool(t *testing.T) {
	var pool sync.Pool
	fds := func() [2]int {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		pool.Put(r)
		pool.Put(w)
		return [2]int{int(r.Fd()), int(w.Fd())}
	}()
	Run()
	for _, fd := range fds {
		if isOpen(fd) {
			t.Errorf("%d is still open", fd)
		}
	}
	runtime.KeepAlive(&pool)
}

// Run waits for the finalizers, however long they take.
func TestRunWaits(t *testing.T) {
	var done atomic.Bool
	runtime.SetFinalizer(new([64]byte), func(*[64]byte) {
		time.Sleep(50 * time.Millisecond)
		done.Store(true)
	})
	if Run(); !done.Load() {
		t.Error("a finalizer is not done")
	}
}

var garbage []byte

func TestStop(t *testing.T) {
	old := debug.SetGCPercent(100)
	defer debug.SetGCPercent(old)
	gone := forget(t)
	restart := Stop()
	for _, fd := range gone {
		if isOpen(fd) {
			t.Errorf("%d, which was forgotten before, is still open", fd)
		}
	}
	kept := forget(t)
	Stop()()
	for range 200 {
		garbage = make([]byte, 100_000)
	}
	for _, fd := range kept {
		if !isOpen(fd) {
			t.Errorf("%d, which was forgotten after, is closed", fd)
		}
	}
	restart()
	if percent := debug.SetGCPercent(100); percent != 100 {
		t.Errorf("%d %% afterwards", percent)
	}
	Run()
}
