//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
)

// A mistakenSummary is the last line of the output.
type mistakenSummary struct {
	Arch      string  `json:"arch"`
	Kernel    string  `json:"kernel"`
	PIDMax    int     `json:"pid_max"`
	FreePIDs  int     `json:"free_pids"` // that came again and again
	Names     int     `json:"names"`     // of processes that have ended
	Reused    int     `json:"reused"`    // of those, how many had a PID that came again
	Mistaken  int     `json:"mistaken"`  // of those, how many opened the process that had it next
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"processes_per_second"`

	program string
	null    *os.File
	last    map[int]sysfd.ProcessRef // by PID
	free    map[int]bool
}

// countMistaken starts one process after the other, takes the second best of each, and opens it when
// the process has ended and another one has its PID.
func countMistaken(dir string, rounds, pidMax int) error {
	program, err := writeChild(dir)
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	startThreads()
	if err := limitPIDs(pidMax); err != nil {
		return err
	}
	// As if the kernel had no pidfd IDs.
	if err := forbid(unix.ENOSYS, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FSTATFS); err != nil {
		return err
	}
	sum := mistakenSummary{Arch: runtime.GOARCH, PIDMax: pidMax, program: program, null: null, last: map[int]sysfd.ProcessRef{}, free: map[int]bool{}}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	sum.Kernel = unix.ByteSliceToString(name.Release[:])
	start := time.Now()
	for sum.Names < rounds {
		if err := sum.one(); err != nil {
			return err
		}
		sum.Names++
		if sum.Names%progressEvery == 0 {
			fmt.Println("names:", sum.Names)
		}
	}
	sum.Seconds = math.Round(time.Since(start).Seconds()*100) / 100
	sum.PerSecond = math.Round(float64(rounds) / time.Since(start).Seconds())
	sum.FreePIDs = len(sum.free)
	text, err := json.Marshal(sum)
	fmt.Println(string(text))
	return err
}

// one starts a process that ends at once, names it, and tries the name of the one that had its PID
// before. It is gone then.
func (sum *mistakenSummary) one() error {
	child, err := os.StartProcess(sum.program, []string{"child"}, &os.ProcAttr{Files: []*os.File{sum.null}})
	if err != nil {
		return err
	}
	defer child.Wait()
	p, err := sysfd.OpenPidFD(child.Pid, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	ref, err := p.RefOrSecondBest()
	if err != nil {
		return err
	}
	if ref.PID != child.Pid || ref.ID != 0 || ref.StartTime == 0 {
		return fmt.Errorf("process %d is called %v", child.Pid, ref)
	}
	// It names the process as long as that is there.
	again, err := ref.OpenOrSecondBest()
	if err != nil {
		return err
	}
	again.Close()
	before, ok := sum.last[ref.PID]
	sum.last[ref.PID] = ref
	if !ok {
		return nil
	}
	sum.Reused++
	sum.free[ref.PID] = true
	again, err = before.OpenOrSecondBest()
	switch {
	case err == nil:
		again.Close()
		sum.Mistaken++
		if before != ref {
			return fmt.Errorf("%v has opened %v", before, ref)
		}
	case !errors.Is(err, os.ErrProcessDone):
		return err
	case before == ref || !strings.Contains(err.Error(), "is gone"):
		return fmt.Errorf("%v while %v lives: %w", before, ref, err)
	}
	return nil
}

// startThreads starts threads that stay, so that later there are none that need PIDs.
func startThreads() {
	const threads = 8
	var all, done sync.WaitGroup
	all.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		})
	}
	done.Wait()
}
