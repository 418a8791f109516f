//go:build linux

package sysfd

import (
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"
)

// newPipeParking returns a parking that no event comes for.
func newPipeParking(t *testing.T) *parking {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	p, err := newParking(r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// One whose context ends while its event comes leaves no interruption to the next one.
func TestParkingInterruptedTooLate(t *testing.T) {
	keepsDescriptors(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that what the end of the context starts does not run yet
	for range 20 {
		w := newPipeParking(t)
		ctx, cancel := context.WithCancel(context.Background())
		if err := w.wait(ctx, nil, func() bool { cancel(); return true }); err != nil {
			t.Error(err)
		}
		runtime.Gosched()
		if err := w.wait(context.Background(), nil, func() bool { return true }); err != nil {
			t.Fatalf("the next one: %v", err)
		}
	}
}

// A doneLater is a context that is done when it is asked for the nth time.
type doneLater struct {
	context.Context
	asked, n int
	cancel   func()
}

func (c *doneLater) Done() <-chan struct{} {
	if c.asked++; c.asked == c.n {
		c.cancel()
	}
	return c.Context.Done()
}

// What is closed along the way is looked at once: afterwards one waits for the turn.
func TestParkingAlsoOnce(t *testing.T) {
	keepsDescriptors(t)
	w := newPipeParking(t)
	w.turn <- struct{}{} // of someone else
	also := make(chan struct{})
	close(also)
	for range 50 { // select chooses by chance
		ctx, cancel := context.WithCancel(context.Background())
		looks := 0
		err := w.wait(&doneLater{ctx, 0, 2, cancel}, also, func() bool { looks++; return false })
		if looks != 1 || !errors.Is(err, context.Canceled) {
			t.Fatalf("looked %d times, %v", looks, err)
		}
	}
}

// What wakes the one who holds a thread does not write to a descriptor that has got the number since.
func TestHoldThreadWokenTooLate(t *testing.T) {
	keepsDescriptors(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that what the end of the context starts does not run yet
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.Close() // which is an event
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	withFD(r, func(fd int) {
		for range 20 {
			if err := holdThread(ctx, fd, -1); err != nil {
				t.Fatal(err)
			}
			stranger, err := newEventFD()
			if err != nil {
				t.Fatal(err)
			}
			runtime.Gosched()
			if revents, errno := pollNow(stranger); revents != 0 || errno != 0 {
				t.Errorf("it was written to: events %#x, %v", revents, errno)
			}
			syscall.Close(stranger)
		}
	})
}
