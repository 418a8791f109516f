//go:build linux

// Command all-daemon does what activation, notifier and watchdog do, and names a pidfd.
package main

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/sysfd/sysfd"
)

func receive() error {
	os.Stdout.WriteString(sysfd.InspectListenEnv().Explain() + "\n")
	os.Stdout.WriteString(sysfd.ParseListenEnv(os.Environ(), os.Getpid(), 0, 0).Explain() + "\n")
	if _, err := sysfd.TakeListenFDs("control"); err != nil {
		return err
	}
	all := func(left []*os.File) ([]*os.File, error) { return left, nil }
	if _, err := sysfd.TakeListenFDsFunc(all); err != nil {
		return err
	}
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := look(f); err != nil {
			return err
		}
		again, err := sysfd.DupFile(f, f.Name())
		if err != nil {
			return err
		}
		again.Close()
	}
	return nil
}

func look(f *os.File) error {
	for _, is := range []func() (bool, error){
		func() (bool, error) { return sysfd.IsSocket(f, 0, 0, -1) },
		func() (bool, error) { return sysfd.IsSocketInet(f, 0, 0, -1, 80) },
		func() (bool, error) { return sysfd.IsSocketUnix(f, 0, -1, "/run/x") },
		func() (bool, error) { return sysfd.IsFIFO(f, "/run/x") },
		func() (bool, error) { return sysfd.IsSpecial(f, "/run/x") },
		func() (bool, error) { return sysfd.IsMessageQueue(f, "/x") },
	} {
		is, err := is()
		if err != nil {
			return err
		}
		os.Stdout.WriteString(f.Name() + strconv.FormatBool(is) + "\n")
	}
	return nil
}

func report(ctx context.Context) error {
	interval, err := sysfd.WatchdogInterval()
	if err != nil {
		return err
	}
	os.Stdout.WriteString(strconv.Itoa(int(interval)) + "\n")
	n, err := sysfd.TakeNotifier()
	if err != nil {
		return err
	}
	self, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		return err
	}
	ref := sysfd.ProcessRef{PID: os.Getpid()}
	files := []*os.File{os.Stdin}
	for _, send := range []func() (bool, error){
		func() (bool, error) { return n.Notify(ctx, sysfd.NotifyReady, sysfd.NotifyStatus("up")) },
		func() (bool, error) {
			return n.Notify(ctx, sysfd.NotifyErrno(1), sysfd.NotifyExtendTimeout(time.Second))
		},
		func() (bool, error) { return n.NotifyReloading(ctx) },
		func() (bool, error) { return n.NotifyFiles(ctx, files, "X=1") },
		func() (bool, error) { return n.NotifyMainProcess(ctx, ref) },
		func() (bool, error) { return n.NotifyMainPidFD(ctx, self) },
		func() (bool, error) { return n.NotifyStoreFDs(ctx, "x", files) },
		func() (bool, error) { return n.NotifyRemoveStoredFDs(ctx, "x") },
		func() (bool, error) { return n.NotifyBarrier(ctx) },
		func() (bool, error) { return sysfd.Notify(ctx, sysfd.NotifyStopping) },
	} {
		if _, err := send(); err != nil {
			return err
		}
	}
	for _, v := range n.Environ(os.Environ()) {
		os.Stdout.WriteString(v + "\n")
	}
	return n.Watchdog(ctx, nil)
}

func main() {
	err := receive()
	if err == nil {
		err = report(context.Background())
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
