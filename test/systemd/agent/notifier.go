//go:build linux

package main

import (
	"context"
	"os"
	"os/exec"
	"time"

	"github.com/sysfd/sysfd"
)

// What an agent has taken from its environment, and what ends its watchdog.
var (
	notifier *sysfd.Notifier
	starve   context.CancelFunc
)

// TakeNotifier takes what the environment says for the methods below.
func (*Agent) TakeNotifier(none int, interval *time.Duration) (err error) {
	notifier, err = sysfd.TakeNotifier()
	*interval = notifier.WatchdogInterval
	return err
}

// Tell sends, and waits until the service manager has dealt with it.
func (*Agent) Tell(assignments []string, sent *bool) (err error) {
	if *sent, err = notifier.Notify(context.Background(), assignments...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = notifier.NotifyBarrier(ctx)
	return err
}

// Watch feeds the watchdog until Unwatch is called.
func (*Agent) Watch(none int, _ *int) error {
	var ctx context.Context
	ctx, starve = context.WithCancel(context.Background())
	go notifier.Watchdog(ctx, nil)
	return nil
}

func (*Agent) Unwatch(none int, _ *int) error {
	starve()
	return nil
}

// Become executes this program again, as the same process.
func (*Agent) Become(none int, _ *int) error {
	return sysfd.ExecListenFDs("/proc/self/exe", os.Args, notifier.Environ(os.Environ()), nil)
}

// HandOver starts this program again and makes that the main process.
func (*Agent) HandOver(none int, _ *int) error {
	attr := &os.ProcAttr{Env: notifier.Environ(os.Environ()), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	p, err := sysfd.StartListenFDs("/proc/self/exe", os.Args, attr, nil)
	if err != nil {
		return err
	}
	defer p.Close()
	_, err = notifier.NotifyMainPidFD(context.Background(), p)
	return err
}

// Proxy starts another agent, whose messages it passes on as they come.
func (a *Agent) Proxy(path string, _ *int) error {
	l, err := sysfd.ListenNotify(path, 0o600)
	if err != nil {
		return err
	}
	to := &sysfd.Notifier{Address: l.Address()}
	cmd := exec.Command("/proc/self/exe", a.socket)
	cmd.Env = to.Environ(os.Environ())
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		for {
			m, err := l.Next(context.Background())
			if err != nil {
				panic(err)
			}
			if _, err := notifier.NotifyFiles(context.Background(), m.Files(), m.Assignments...); err != nil {
				panic(err)
			}
			m.Close()
		}
	}()
	return nil
}
