//go:build linux

package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sysfd/sysfd"
)

func listenPairs(t testing.TB) []*pair {
	t.Helper()
	if _, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
		t.Skip("a service manager is to be notified")
	}
	ctx := context.Background()
	return append(startPairs(t), &pair{name: "Notify without a manager",
		op:   func() error { _, err := sysfd.Notify(ctx, sysfd.NotifyReady); return err },
		bare: func() error { _, _ = syscall.Getenv("NOTIFY_SOCKET"); return nil },
		peers: []peer{
			{"daemon.SdNotify", func() error { _, err := daemon.SdNotify(false, daemon.SdNotifyReady); return err }},
		}})
}

// startPairs are about starting a program with a descriptor. What was started is waited for while
// nobody measures.
func startPairs(t testing.TB) []*pair {
	t.Helper()
	program, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	argv, files := []string{"true"}, []*os.File{null}
	attr := &os.ProcAttr{Files: []*os.File{null, null, null, null}}
	var started *sysfd.PidFD
	var process *os.Process
	var cmd *exec.Cmd
	ended := func() (err error) {
		if started != nil {
			_, err = started.Wait(context.Background(), 0)
			err = errors.Join(err, started.Close())
		}
		if process != nil {
			_, err = process.Wait()
		}
		if cmd != nil {
			err = cmd.Wait()
		}
		started, process, cmd = nil, nil, nil
		return err
	}
	start := func() (err error) { started, err = sysfd.StartListenFDs(program, argv, nil, files); return err }
	startOS := func() (err error) { process, err = os.StartProcess(program, argv, attr); return err }
	startExec := func() error {
		cmd = exec.Command(program)
		cmd.ExtraFiles = files
		return cmd.Start()
	}
	toEnd := func(start func() error) func() error {
		return func() error {
			if err := start(); err != nil {
				return err
			}
			return ended()
		}
	}
	return []*pair{
		// os.StartProcess returns before execve(2) has ended, so there is no target.
		{name: "StartListenFDs", allocs: -1, calls: -1, turns: 1, after: ended,
			op: start, bare: startOS, peers: []peer{{"exec.Cmd.Start", startExec}}},
		{name: "StartListenFDs and Wait", ratio: 1.5, allocs: -1, calls: -1, turns: 1,
			op: toEnd(start), bare: toEnd(startOS), peers: []peer{{"exec.Cmd.Run", toEnd(startExec)}}},
	}
}
