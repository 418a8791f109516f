//go:build linux

package sysfd

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// StartProcess starts a program in a new process and returns the owner of its pidfd, to signal the
// process and to wait for it. It calls [os.StartProcess] with the same arguments; attr may be nil.
// It leaves no [os.Process] behind. The process is a child of the caller, who must wait for it: see
// [PidFD.Wait] and [PidFD.Stop].
//
// Signals that this program ignores by [os/signal.Ignore] are ignored by the new one, too. Signals
// that this program was started with as ignored are not, except SIGHUP and SIGINT, because the Go
// runtime handles all others. If the new program relies on SIGPIPE being ignored, as systemd does
// for services, call signal.Ignore(syscall.SIGPIPE) first.
//
// To use an [os/exec.Cmd], which also copies what the program reads and writes, request the pidfd
// in SysProcAttr.PidFD, take it with [TakePidFD], and wait for it with [WaitNoReap] before
// Cmd.Wait.
//
// Errors, after which no process is left:
//   - those of os.StartProcess;
//   - EINVAL if attr.Sys.PidFD is set;
//   - an error that matches [errors.ErrUnsupported] if the kernel lacks pidfds.
func StartProcess(name string, argv []string, attr *os.ProcAttr) (*PidFD, error) {
	var with os.ProcAttr
	if attr != nil {
		with = *attr
	}
	var sys syscall.SysProcAttr
	if with.Sys != nil {
		sys = *with.Sys
	}
	if sys.PidFD != nil {
		return nil, refused(syscall.EINVAL, "SysProcAttr.PidFD must be nil: StartProcess returns the PidFD")
	}
	fd := -1
	sys.PidFD, with.Sys = &fd, &sys
	process, err := os.StartProcess(name, argv, &with)
	if errors.Is(err, syscall.EINVAL) {
		sys.PidFD = nil // under qemu-user clone(2) returns no pidfd
		process, err = os.StartProcess(name, argv, &with)
	}
	if err != nil {
		return nil, err
	}
	defer process.Release()
	if fd >= 0 {
		return newPidFD(fd, "", uint64(process.Pid)), nil
	}
	p, err := OpenPidFD(process.Pid, 0)
	if err != nil {
		process.Kill()
		process.Wait()
	}
	return p, err
}

// Stop ends the process and returns how it ended, as [PidFD.Wait] does. It sends SIGTERM, and
// SIGCONT in case the process is stopped, waits for up to grace, then sends SIGKILL and waits
// again. For a process that is not a child, and that its parent does not reap, Stop returns without
// the status: see Wait.
//
// Errors: those of [PidFD.SendSignal] except [os.ErrProcessDone], and those of Wait. If ctx is done
// the process may still run: it has got SIGTERM, and SIGKILL if grace was over.
func (p *PidFD) Stop(ctx context.Context, grace time.Duration) (WaitResult, error) {
	if err := p.SendSignal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return WaitResult{}, err
	}
	p.SendSignal(syscall.SIGCONT)
	gentle, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	r, err := p.waitOrZombie(gentle)
	if err == nil || ctx.Err() != nil || gentle.Err() == nil {
		return r, err
	}
	if err := p.SendSignal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return WaitResult{}, err
	}
	return p.waitOrZombie(ctx)
}

// waitOrZombie waits for the end, and then a moment for the status. A parent that reaps at once
// does so within that moment; a parent that never reaps is not waited for.
func (p *PidFD) waitOrZombie(ctx context.Context) (WaitResult, error) {
	r, err := p.Wait(ctx, WaitExited)
	if err != nil || !errors.Is(r.Unknown, syscall.EAGAIN) {
		return r, err
	}
	moment, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if told, err := p.Wait(moment, 0); err == nil {
		return told, nil
	}
	return r, nil
}
