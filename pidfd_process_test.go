//go:build linux && go1.26

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"testing"
)

func init() {
	pidFDOf = PidFDOf
	operations = append(operations, operation{name: "PidFDOf", needs: FeatureWait, takes: true, refused: []refusal{
		{calls: "open_by_handle_at", eperm: works, enosys: works}, {calls: "open_by_handle_at pidfd_open"},
		{calls: byInode, enosys: works}, {calls: byInode + " pidfd_open"},
	}, do: func(s *scene) error { return closed(PidFDOf(s.process)) }})
}

func TestPidFDOf(t *testing.T) {
	keepsDescriptors(t)
	cmd := child("sleep")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer reap(cmd)
	p, err := PidFDOf(cmd.Process)
	if cmd.Process.WithHandle(func(uintptr) {}) == os.ErrNoHandle {
		matches(t, err, errors.ErrUnsupported)
		reap(cmd)
		_, err = PidFDOf(cmd.Process)
		matches(t, err, os.ErrProcessDone, syscall.ESRCH)
		if os.Getenv(emulatorVar) != "" {
			t.Skip("the emulator has no CLONE_PIDFD")
		}
		lacks(t, "process handles, which Linux has since 5.4")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pid := cmd.Process.Pid
	if got, err := p.PID(); err != nil || got != pid {
		t.Errorf("PID %d, %v; want %d", got, err, pid)
	}
	// A file of its own: what is done to its flags has no effect on the Process.
	if _, errno := fcntl(p.fd, syscall.F_SETFL, syscall.O_NONBLOCK); errno != 0 {
		t.Fatal(errno)
	}
	handleFlags := func() (flags int) {
		if err := cmd.Process.WithHandle(func(fd uintptr) { flags, _ = fcntl(int(fd), syscall.F_GETFL, 0) }); err != nil {
			t.Fatal(err)
		}
		return flags
	}
	if flags := handleFlags(); flags&syscall.O_NONBLOCK != 0 {
		t.Errorf("the flags of the Process's handle are %#x", flags)
	}
	// And by PID, as on kernels without IDs.
	if err := cmd.Process.WithHandle(func(fd uintptr) {
		q, err := reopenByPID(int(fd), pid)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if got, err := q.PID(); err != nil || got != pid {
			t.Errorf("PID %d, %v; want %d", got, err, pid)
		}
	}); err != nil {
		t.Fatal(err)
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	awaitEnd(t, openPidFD(t, pid))
	zombie, err := PidFDOf(cmd.Process)
	if err != nil {
		t.Fatalf("a zombie: %v", err)
	}
	zombie.Close()
	if _, err := cmd.Process.Wait(); err != nil {
		t.Error(err)
	}
	_, err = PidFDOf(cmd.Process)
	matches(t, err, os.ErrProcessDone, syscall.ESRCH)
	if _, err := p.PID(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the pidfd, after Wait: %v", err)
	}
	_, err = PidFDOf(nil)
	matches(t, err, os.ErrInvalid)
}

// A child that someone else than its Process waits for.
func TestPidFDOfReapedElsewhere(t *testing.T) {
	keepsDescriptors(t)
	cmd := child("sleep")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Release()
	pid := cmd.Process.Pid
	cmd.Process.Kill()
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if cmd.Process.WithHandle(func(fd uintptr) {
		// The PID may be that of another process or of a thread by now; here it is one of this process.
		for _, pid := range []int{os.Getpid(), otherThread(t)} {
			_, err := reopenByPID(int(fd), pid)
			matches(t, err, os.ErrProcessDone, syscall.ESRCH)
		}
	}) == os.ErrNoHandle {
		return // then nobody can tell
	}
	p, err := PidFDOf(cmd.Process)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	matches(t, second(p.PID()), os.ErrProcessDone, syscall.ESRCH)
	r, err := p.Wait(t.Context(), 0)
	if err != nil || !r.Ended || r.Reaped {
		t.Errorf("%v, %v", r, err)
	}
	if !lacksFeature(t, FeatureExitStatus) && r.Status.Signal() != syscall.SIGKILL {
		t.Errorf("%v", r)
	}
}

// What is from an os.Process observes: the Process, or the Cmd that it is from, gets the status.
func TestPidFDOfRobsNobody(t *testing.T) {
	needs(t, FeatureWait)
	keepsDescriptors(t)
	set := newWaitSet[int](t, 0)
	var all waitGroup
	for i := range fewer(100) {
		cmd := child("exit-at-once", strconv.Itoa(i%256))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p, err := PidFDOf(cmd.Process)
		if errors.Is(err, errors.ErrUnsupported) {
			reap(cmd)
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		member, err := PidFDOf(cmd.Process)
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Add(member, i); err != nil {
			t.Fatal(err)
		}
		member.Close()
		isIt := func(what string, r WaitResult, err error) {
			status, known := r.Status.ExitStatus(), r.Unknown == nil
			if err != nil || !r.Ended || r.Reaped || known && status != i%256 {
				t.Errorf("%s: %v, %v, want %d", what, r, err, i%256)
			}
		}
		all.Go(func() {
			defer p.Close()
			r, err := p.Wait(t.Context(), WaitExited)
			isIt("Wait", r, err)
			r, err = p.TryWait(WaitExited)
			isIt("TryWait", r, err)
		})
		all.Go(func() {
			err := cmd.Wait()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != i%256 {
				t.Errorf("cmd.Wait: %v, %v, want %d", cmd.ProcessState, err, i%256)
			}
		})
	}
	for range fewer(100) {
		if i, r, err := set.Next(t.Context()); err != nil || !r.Ended || r.Reaped || r.Unknown == nil && r.Status.ExitStatus() != i%256 {
			t.Errorf("Next: %d, %v, %v", i, r, err)
		}
	}
	all.Wait()
}

func init() {
	children["exit-at-once"] = func(args []string) error {
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
		return nil
	}
}

// Whether what is not to be asked was reaped is not known.
func TestReopenByPIDOfStray(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	p, err := reopenByPID(int(openNull(t).Fd()), os.Getpid())
	matches(t, err, syscall.EBADF)
	if p != nil {
		t.Error("opened")
	}
}

func TestPidFDOfOthers(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	cmd := sleeper(t)
	pid := cmd.Process.Pid
	found, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := PidFDOf(found); err == nil {
		if got, err := p.PID(); err != nil || got != pid {
			t.Errorf("PID %d, %v; want %d", got, err, pid)
		}
		p.Close()
	} else if os.Getenv(emulatorVar) == "" {
		t.Error(err)
	}
	hasHandle := found.WithHandle(func(uintptr) {}) == nil
	found.Release()
	if _, err = PidFDOf(found); hasHandle {
		matches(t, err, syscall.EINVAL)
	}
	reap(cmd)
	gone, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	_, err = PidFDOf(gone)
	matches(t, err, os.ErrProcessDone, syscall.ESRCH)
}
