//go:build linux

package sysfd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

// A job is a child that must end by its deadline.
type job struct {
	process  *sysfd.PidFD
	deadline time.Time
	killed   bool
}

// A hundred children, each with a deadline of its own, and one goroutine that waits for all of
// them. A child that misses its deadline is killed. Because that is done by its pidfd, no other
// process can be hit, even if the child ends at the same moment.
func Example_childrenWithDeadlines() {
	set, err := sysfd.NewWaitSet[*job](0)
	if err != nil {
		log.Fatal(err)
	}
	defer set.Close()

	jobs := map[*job]bool{}
	for i := range 100 {
		script, limit := "exit 0", 5*time.Minute
		if i%4 == 0 { // every fourth hangs
			script, limit = "exec sleep 1000", 10*time.Millisecond
		}
		p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", script}, nil)
		if err != nil {
			log.Fatal(err)
		}
		j := &job{process: p, deadline: time.Now().Add(limit)}
		if err := set.Add(p, j); err != nil {
			log.Fatal(err)
		}
		jobs[j] = true
	}

	exited, killed := 0, 0
	for len(jobs) > 0 {
		ctx, cancel := context.WithDeadline(context.Background(), nextDeadline(jobs))
		j, result, err := set.Next(ctx)
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			killLate(jobs)
			continue
		case err != nil:
			log.Fatal(err)
		case result.Status.Signaled() && result.Status.Signal() == syscall.SIGKILL:
			killed++
		case result.Status.ExitStatus() == 0:
			exited++
		}
		j.process.Close()
		delete(jobs, j)
	}
	fmt.Println(exited, "exited in time,", killed, "were killed")
	// Output: 75 exited in time, 25 were killed
}

// nextDeadline returns the earliest deadline of a job that has not been killed. A program with many
// thousand jobs keeps them in a heap.
func nextDeadline(jobs map[*job]bool) time.Time {
	next := time.Now().Add(time.Hour)
	for j := range jobs {
		if !j.killed && j.deadline.Before(next) {
			next = j.deadline
		}
	}
	return next
}

func killLate(jobs map[*job]bool) {
	for j := range jobs {
		if !j.killed && !time.Now().Before(j.deadline) {
			j.process.SendSignal(syscall.SIGKILL) // os.ErrProcessDone if it has just ended
			j.killed = true
		}
	}
}
