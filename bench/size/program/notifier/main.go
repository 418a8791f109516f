//go:build linux

// Command notifier calls each function that reports to the service manager, but for
// Notifier.Watchdog, and for NotifyMainPidFD, which requires a pidfd.
package main

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/sysfd/sysfd"
)

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
	return nil
}

func main() {
	if err := report(context.Background()); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
