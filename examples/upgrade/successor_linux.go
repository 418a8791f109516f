package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/sysfd/sysfd"
)

// handOver starts the program as another process with the files, waits until that is ready, and
// makes it the main process for the service manager. On an error nothing is left of it, and so if
// this process was told to end meanwhile.
func handOver(program string, files []*os.File, patience time.Duration, end <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := startSuccessor(ctx, program, files)
	if err != nil {
		return err
	}
	defer p.Close()
	if len(end) > 0 {
		_, err := p.Stop(context.Background(), patience)
		return errors.Join(errors.New("told to end"), err)
	}
	// Both from this process, from which the manager takes messages until it has dealt with the
	// first.
	_, err = sysfd.NotifyMainPidFD(ctx, p)
	if err == nil {
		_, err = sysfd.NotifyBarrier(ctx)
	}
	if err != nil {
		log.Print("the service manager may not know of the new version: ", err)
	}
	return nil
}

// startSuccessor returns when the new process has reported that it is ready. Its $NOTIFY_SOCKET is
// that of this process; where this process listens is in a variable of its own.
func startSuccessor(ctx context.Context, program string, files []*os.File) (p *sysfd.PidFD, err error) {
	dir, err := os.MkdirTemp("", "upgrade")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	l, err := sysfd.ListenNotify(filepath.Join(dir, "ready"), 0o600)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	p, err = sysfd.StartListenFDs(program, os.Args, &os.ProcAttr{
		Env: append(os.Environ(), readyVar+"="+l.Address()), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	}, files)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan bool)
	go func() {
		defer close(ended)
		if r, err := p.Wait(ctx, sysfd.WaitNoReap); err == nil {
			cancel(fmt.Errorf("the new version has ended: %v", r))
		}
	}()
	err = awaitReady(ctx, l, p)
	cancel(nil)
	<-ended
	if err != nil {
		_, errStop := p.Stop(context.Background(), time.Second)
		p.Close()
		return nil, errors.Join(err, errStop)
	}
	return p, nil
}

func awaitReady(ctx context.Context, l *sysfd.NotifyListener, p *sysfd.PidFD) error {
	for {
		m, err := l.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("the new version is not ready in time: %w", err)
		}
		if err != nil {
			return err
		}
		from, err := m.IsFrom(p)
		ready := err == nil && from && m.Has(sysfd.NotifyReady)
		m.Close()
		if ready {
			return nil
		}
	}
}
