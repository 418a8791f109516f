//go:build linux

package sysfd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sysfd/sysfd/internal/rights"
)

// These children have main on the main thread.
func init() {
	switch os.Getenv(childVar) {
	case "reap-orphans", "reap-strays", "leader-exits-thread-execs", "crash":
		runtime.LockOSThread()
	}
}

const orphanCode = 77

func init() {
	// It leaves a process behind that has not ended yet, and prints its PID.
	children["leave-orphan"] = func(args []string) error {
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Setenv(childVar, "orphan")
		words := self()
		r, w, err := os.Pipe() // whose other end this process closes when it ends
		if err != nil {
			return err
		}
		p, err := os.StartProcess(words[0], words, &os.ProcAttr{Files: []*os.File{r, nil, nil}})
		if err != nil {
			return err
		}
		fmt.Println(p.Pid)
		runtime.KeepAlive(w)
		os.Exit(code)
		return nil
	}
	children["orphan"] = func([]string) error {
		os.Stdin.Read(make([]byte, 1))
		os.Exit(orphanCode)
		return nil
	}
	children["reap-orphans"] = func(args []string) error {
		if os.Getpid() != 1 {
			if err := SetChildSubreaper(true); err != nil {
				return err
			}
		}
		rounds, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return reapOrphansBeside(rounds)
	}
}

// leaves is a command that leaves an orphan behind.
func leaves(code int) []string { return self(strconv.Itoa(code)) }

// reapOrphansBeside reaps orphans while goroutines start processes in all ways, each of which leaves
// one, and checks who has got what.
func reapOrphansBeside(rounds int) error {
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, syscall.SIGCHLD)
	os.Setenv(childVar, "leave-orphan")
	shimReady.Store(true)

	var mu sync.Mutex
	var left []int // the orphans, as those who left them say
	var problems []error
	began := func(way, stdout string, code, want int, err error) {
		pid, errPID := strconv.Atoi(strings.TrimSpace(stdout))
		mu.Lock()
		defer mu.Unlock()
		left = append(left, pid)
		if err != nil || errPID != nil || code != want {
			problems = append(problems, fmt.Errorf("%s: status %d, want %d: %v, %v", way, code, want, err, errPID))
		}
	}
	ways := map[string]func(want int) (stdout string, code int, err error){
		"exec.Cmd": func(want int) (string, int, error) {
			words := leaves(want)
			cmd := exec.Command(words[0], words[1:]...)
			out, err := cmd.Output()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				err = nil
			}
			return string(out), cmd.ProcessState.ExitCode(), err
		},
		"StartProcess": waitedFor(func(words []string, attr *os.ProcAttr) (*PidFD, error) {
			return StartProcess(words[0], words, attr)
		}),
		"StartListenFDs": waitedFor(func(words []string, attr *os.ProcAttr) (*PidFD, error) {
			return StartListenFDs(words[0], words, attr, nil)
		}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all waitGroup
	want := 0
	for way, start := range ways {
		for i := range 3 {
			want += rounds
			all.Go(func() {
				for round := range rounds {
					code := (i*100 + round) % 64
					out, got, err := start(code)
					began(way, out, got, code, err)
				}
			})
		}
	}
	go func() { all.Wait(); cancel() }()

	var orphans []int
	reap := func(o Orphan) {
		if o.Status.ExitStatus() != orphanCode || o.Rusage.Maxrss == 0 {
			problems = append(problems, fmt.Errorf("orphan %d: %v, %v", o.PID, o.Status, o.Rusage))
		}
		orphans = append(orphans, o.PID)
	}
	err := ReapOrphans(ctx, sigchld, reap)
	if !errors.Is(err, context.Canceled) {
		return err
	}
	ctx, cancel = context.WithCancel(context.Background())
	for len(orphans) < want { // those that came last
		if err := ReapOrphans(ctx, sigchld, func(o Orphan) {
			if reap(o); len(orphans) == want {
				cancel()
			}
		}); !errors.Is(err, context.Canceled) {
			return err
		}
	}
	cancel()
	slices.Sort(left)
	slices.Sort(orphans)
	if !slices.Equal(left, orphans) {
		problems = append(problems, fmt.Errorf("orphans %d, left %d", orphans, left))
	}
	var none syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &none, syscall.WNOHANG, nil); err != syscall.ECHILD {
		problems = append(problems, fmt.Errorf("process %d remains, %v", pid, err))
	}
	fmt.Println(len(orphans), "orphans,", want, "statuses")
	return errors.Join(problems...)
}

// waitedFor is a way to start a process that returns its PidFD.
func waitedFor(start func(words []string, attr *os.ProcAttr) (*PidFD, error)) func(int) (string, int, error) {
	return func(want int) (string, int, error) {
		r, w, err := os.Pipe()
		if err != nil {
			return "", 0, err
		}
		defer r.Close()
		p, err := start(leaves(want), &os.ProcAttr{Files: []*os.File{nil, w, os.Stderr}})
		w.Close()
		if err != nil {
			return "", 0, err
		}
		defer p.Close()
		var out bytes.Buffer
		if _, err := out.ReadFrom(r); err != nil {
			return "", 0, err
		}
		result, err := p.Wait(context.Background(), 0)
		if err == nil && !result.Reaped {
			err = errors.New("not reaped by Wait")
		}
		return out.String(), result.Status.ExitStatus(), err
	}
}

// Whoever has started a process gets its status, and ReapOrphans all orphans, as a
// subreaper and as process 1.
func TestReapOrphans(t *testing.T) {
	needs(t, FeatureWait)
	reliesOn(t, namespaces)
	keepsDescriptors(t)
	rounds := fewer(20)
	for name, flags := range map[string]uintptr{"subreaper": 0, "process 1": syscall.CLONE_NEWPID | syscall.CLONE_NEWNS} {
		t.Run(name, func(t *testing.T) {
			cmd := child("reap-orphans", strconv.Itoa(rounds))
			if flags != 0 {
				rights.Need(t, rights.SysAdmin)
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
			}
			n := strconv.Itoa(9 * rounds)
			if out := output(t, cmd); out != n+" orphans, "+n+" statuses\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

func init() {
	// A process whose parent thread has ended, and one that the main thread has started.
	children["reap-strays"] = func([]string) error {
		sigchld := make(chan os.Signal, 1)
		signal.Notify(sigchld, syscall.SIGCHLD)
		os.Setenv(childVar, "orphan")
		words := self()
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		begin := func() (pid int, err error) {
			p, err := os.StartProcess(words[0], words, &os.ProcAttr{Files: []*os.File{r, nil, nil}})
			if err != nil {
				return 0, err
			}
			pid = p.Pid
			return pid, p.Release()
		}
		want := map[int]bool{}
		type started struct {
			pid, thread int
			err         error
		}
		c := make(chan started)
		go func() {
			runtime.LockOSThread() // and it ends without unlocking
			pid, err := begin()
			c <- started{pid, syscall.Gettid(), err}
		}()
		other := <-c
		own, err := begin()
		if err = errors.Join(err, other.err); err != nil {
			return err
		}
		want[own], want[other.pid] = true, true
		for { // until that thread is gone
			if _, errno := stat("/proc/self/task/" + strconv.Itoa(other.thread)); errno == syscall.ENOENT {
				break
			}
			runtime.Gosched()
		}
		w.Close() // they end
		ctx, cancel := context.WithCancel(context.Background())
		err = ReapOrphans(ctx, sigchld, func(o Orphan) {
			if delete(want, o.PID); len(want) == 0 {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) || len(want) != 0 {
			return fmt.Errorf("%v, not reaped: %v", err, want)
		}
		fmt.Println("both")
		return nil
	}
}

// What ReapOrphans takes of what the program has started, as its documentation says.
func TestReapOrphansTakes(t *testing.T) {
	reliesOn(t, namespaces)
	keepsDescriptors(t)
	if out := output(t, child("reap-strays")); out != "both\n" {
		t.Errorf("%q", out)
	}
}

func TestReapOrphansElsewhere(t *testing.T) {
	onThrowawayThread(func() {
		matches(t, ReapOrphans(t.Context(), make(chan os.Signal), nil), syscall.EINVAL)
	})
}
