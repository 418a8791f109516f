//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// A waker starts a process, kills it while something waits for it, and returns how long after
// SIGKILL the result was there.
type waker struct {
	name string
	wake func() (time.Duration, error)
}

func (m *measurer) one(n int) error {
	r, input, err := os.Pipe()
	if err != nil {
		return err
	}
	defer input.Close()
	defer r.Close()
	wakers := []waker{
		{"os.Process.Wait", func() (time.Duration, error) { return m.wakeProcess(r) }},
		{"PidFD.Wait", func() (time.Duration, error) { return m.wakePidFD(r, 0, 0) }},
		{"PidFD.Wait, PIDFD_NONBLOCK", func() (time.Duration, error) { return m.wakePidFD(r, sysfd.PIDFD_NONBLOCK, 0) }},
		{"PidFD.Wait, WaitBlocking", func() (time.Duration, error) { return m.wakePidFD(r, 0, sysfd.WaitBlocking) }},
		{"poller of Go and waitid", func() (time.Duration, error) { return m.wakeBare(r) }},
		{"WaitSet", func() (time.Duration, error) { return m.wakeSet(r) }},
	}
	wakers = slices.DeleteFunc(wakers, func(w waker) bool { return !m.only.MatchString(w.name) })
	if m.floor != "" {
		c, err := m.startFloor()
		if err != nil {
			return err
		}
		defer c.stop()
		wakers = slices.Insert(wakers, 0, waker{floorWay, c.wake})
	}
	head("--:|---|--:|--:|--:", "computing goroutines", "woken", "median, µs", "p99", "most")
	for _, computing := range []int{0, 2 * runtime.GOMAXPROCS(0)} {
		stop := compute(computing)
		took := make([][]time.Duration, len(wakers))
		for range n {
			for i, w := range wakers {
				d, err := w.wake()
				if err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				took[i] = append(took[i], d)
			}
		}
		stop()
		for i, w := range wakers {
			slices.Sort(took[i])
			at := func(k int) int64 { return took[i][min(n-1, k)].Microseconds() }
			row(computing, w.name, at(n/2), at(n*99/100), at(n-1))
		}
	}
	return nil
}

// compute keeps n goroutines busy.
func compute(n int) (stop func()) {
	var over atomic.Bool
	for range n {
		go func() {
			for x := uint32(1); !over.Load(); {
				for range 1000 {
					x = x*1664525 + 1013904223
				}
			}
		}()
	}
	return func() { over.Store(true) }
}

// afterKill returns how long after SIGKILL for the process wait returns, which by then waits.
func afterKill(pid int, wait func() error) (time.Duration, error) {
	type result struct {
		at  time.Time
		err error
	}
	woken := make(chan result)
	go func() {
		err := wait()
		woken <- result{time.Now(), err}
	}()
	time.Sleep(2 * time.Millisecond)
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return 0, os.NewSyscallError("kill", err)
	}
	w := <-woken
	return w.at.Sub(begin), w.err
}

func (m *measurer) wakeProcess(stdin *os.File) (time.Duration, error) {
	p, err := os.StartProcess(m.program, []string{m.program}, &os.ProcAttr{Files: []*os.File{stdin}})
	if err != nil {
		return 0, err
	}
	return afterKill(p.Pid, func() error { _, err := p.Wait(); return err })
}

func (m *measurer) fork(stdin *os.File) (pid int, err error) {
	pid, err = syscall.ForkExec(m.program, []string{m.program}, &syscall.ProcAttr{Files: []uintptr{stdin.Fd()}})
	return pid, os.NewSyscallError("fork", err)
}

func (m *measurer) open(stdin *os.File, flags int) (pid int, p *sysfd.PidFD, err error) {
	pid, err = m.fork(stdin)
	if err != nil {
		return 0, nil, err
	}
	p, err = sysfd.OpenPidFD(pid, flags)
	return pid, p, err
}

func (m *measurer) wakePidFD(stdin *os.File, flags int, options sysfd.WaitOption) (time.Duration, error) {
	pid, p, err := m.open(stdin, flags)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return afterKill(pid, func() error { _, err := p.Wait(context.Background(), options); return err })
}

// wakeBare is what parking in the runtime's poller needs, with one call of waitid(2).
func (m *measurer) wakeBare(stdin *os.File) (time.Duration, error) {
	pid, err := m.fork(stdin)
	if err != nil {
		return 0, err
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return 0, os.NewSyscallError("pidfd_open", err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	return afterKill(pid, func() error {
		var failed error
		err := conn.Read(func(fd uintptr) bool {
			var info unix.Siginfo
			failed = unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOHANG, nil)
			return failed != nil || info.Signo != 0
		})
		return cmp.Or(err, failed)
	})
}

func (m *measurer) wakeSet(stdin *os.File) (time.Duration, error) {
	pid, p, err := m.open(stdin, 0)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	set, err := sysfd.NewWaitSet[int](0)
	if err != nil {
		return 0, err
	}
	defer set.Close()
	if err := set.Add(p, 0); err != nil {
		return 0, err
	}
	return afterKill(pid, func() error { _, _, err := set.Next(context.Background()); return err })
}

// A floorWaker asks the C program for one wake-up after another.
type floorWaker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (m *measurer) startFloor() (*floorWaker, error) {
	cmd := exec.Command(m.floor, "one", m.program)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &floorWaker{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

func (c *floorWaker) wake() (time.Duration, error) {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		return 0, err
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	return time.Duration(n), err
}

func (c *floorWaker) stop() error {
	c.in.Close()
	return c.cmd.Wait()
}
