//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

// A crowd is the processes that are waited for.
type crowd struct {
	pids      []int
	pidfds    []*sysfd.PidFD
	processes []*os.Process
}

// A way is one to wait for a crowd. wait returns once everything waits; the function that it
// returns does so once all results are there.
type way struct {
	name string
	open func(*crowd) error
	wait func(*crowd) (results func() error, err error)
}

var ways = []way{
	{"WaitSet", opening(0), waitSet},
	{"PidFD.Wait", opening(0), waitEach},
	{"PidFD.Wait, PIDFD_NONBLOCK", opening(sysfd.PIDFD_NONBLOCK), waitEach},
	{"os.Process.Wait", findProcesses, waitProcesses},
}

func wayNamed(name string) *way {
	for i := range ways {
		if ways[i].name == name {
			return &ways[i]
		}
	}
	return nil
}

func opening(flags int) func(*crowd) error {
	return func(c *crowd) error {
		for _, pid := range c.pids {
			p, err := sysfd.OpenPidFD(pid, flags)
			if err != nil {
				return err
			}
			c.pidfds = append(c.pidfds, p)
		}
		return nil
	}
}

func findProcesses(c *crowd) error {
	for _, pid := range c.pids {
		p, err := os.FindProcess(pid)
		if err != nil {
			return err
		}
		c.processes = append(c.processes, p)
	}
	return nil
}

func waitSet(c *crowd) (func() error, error) {
	set, err := sysfd.NewWaitSet[int32](0)
	if err != nil {
		return nil, err
	}
	for i, p := range c.pidfds {
		if err := set.Add(p, int32(i)); err != nil {
			return nil, err
		}
	}
	last := make(chan error, 1)
	go func() {
		for range c.pidfds {
			i, r, err := set.Next(context.Background())
			if err == nil && !r.Reaped {
				err = fmt.Errorf("process %d: %v", c.pids[i], r)
			}
			if err != nil {
				last <- err
				return
			}
			c.pidfds[i].Close()
		}
		last <- nil
	}()
	return func() error { return <-last }, nil
}

func waitEach(c *crowd) (func() error, error) {
	ctx, cancel := context.WithCancel(context.Background()) // as programs have one
	errs := make(chan error, 1000)
	for _, p := range c.pidfds {
		go func() {
			_, err := p.Wait(ctx, 0)
			p.Close()
			errs <- err
		}()
	}
	return func() error { defer cancel(); return collect(errs, len(c.pidfds)) }, nil
}

func waitProcesses(c *crowd) (func() error, error) {
	errs := make(chan error, 1000)
	for _, p := range c.processes {
		go func() {
			_, err := p.Wait()
			errs <- err
		}()
	}
	return func() error { return collect(errs, len(c.processes)) }, nil
}

func collect(errs chan error, n int) error {
	for range n {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// start starts n processes. Nothing comes out of the pipe that they read; its end ends them.
func (c *crowd) start(program string, n int) (input *os.File, err error) {
	r, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	for range n {
		pid, err := syscall.ForkExec(program, []string{program}, &syscall.ProcAttr{Files: []uintptr{r.Fd()}})
		if err != nil {
			return nil, os.NewSyscallError("fork", err)
		}
		c.pids = append(c.pids, pid)
	}
	return input, nil
}

// startClones does the same with processes that share the memory of one.
func (c *crowd) startClones(floor string, n int) (input *os.File, err error) {
	r, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	pids, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = syscall.ForkExec(floor, []string{floor, "clones", strconv.Itoa(n)},
		&syscall.ProcAttr{Files: []uintptr{r.Fd(), out.Fd(), 2}})
	if err != nil {
		return nil, os.NewSyscallError("fork", err)
	}
	out.Close()
	defer pids.Close()
	in := bufio.NewReader(pids)
	for range n {
		var pid int32
		if err := binary.Read(in, binary.NativeEndian, &pid); err != nil {
			return nil, fmt.Errorf("clone %d: %w", len(c.pids), err)
		}
		c.pids = append(c.pids, int(pid))
	}
	return input, nil
}

// work is what a worker does. Without a program it waits for clones, which floor makes.
func work(name string, n int, program, floor string) error {
	w := wayNamed(name)
	if w == nil {
		return fmt.Errorf("there is no way %q", name)
	}
	c := &crowd{pids: make([]int, 0, n), pidfds: make([]*sysfd.PidFD, 0, n), processes: make([]*os.Process, 0, n)}
	start := func() (*os.File, error) { return c.start(program, n) }
	if program == "" {
		start = func() (*os.File, error) { return c.startClones(floor, n) }
	}
	input, err := start()
	if err != nil {
		return err
	}
	defer input.Close()
	var m measure
	if m.Base, err = resident(); err != nil {
		return err
	}
	if err := w.open(c); err != nil {
		return err
	}
	if m.Opened, err = resident(); err != nil {
		return err
	}
	results, err := w.wait(c)
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // until all wait
	if m.Waiting, err = resident(); err != nil {
		return err
	}
	if m.ThreadsWaiting, err = threads(); err != nil {
		return err
	}
	begin := time.Now()
	for _, pid := range c.pids { // not as a group: floor.c says why
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return os.NewSyscallError("kill", err)
		}
	}
	if err := results(); err != nil {
		return err
	}
	m.Nanoseconds = int(time.Since(begin))
	if m.Threads, err = threads(); err != nil { // the runtime ends none
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

func threads() (int, error) { return ofFile("/proc/self/status", "Threads:") }

// resident returns the resident memory of this process without garbage, in bytes.
func resident() (int, error) {
	debug.FreeOSMemory()
	n, err := ofFile("/proc/self/smaps_rollup", "Rss:")
	return n * 1024, err
}

func ofFile(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return strconv.Atoi(string(bytes.Fields(rest)[0]))
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
