//go:build !linux && !plan9

package sysfd

import (
	"context"
	"os"
	"time"
)

// A Notifier reports to a service manager. On this system there is none with a $NOTIFY_SOCKET, and
// the methods send nothing.
type Notifier struct {
	Address          string
	WatchdogInterval time.Duration
}

// TakeNotifier returns a Notifier that sends nothing, and no error.
func TakeNotifier() (*Notifier, error) { return &Notifier{}, nil }

// Environ returns env.
func (n *Notifier) Environ(env []string) []string { return env }

// Watchdog returns nil.
func (n *Notifier) Watchdog(ctx context.Context, check func(ctx context.Context) error) error {
	return nil
}

// Notify sends nothing.
func (n *Notifier) Notify(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	return Notify(ctx, assignments...)
}

// NotifyFiles sends nothing.
func (n *Notifier) NotifyFiles(ctx context.Context, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	return NotifyFiles(ctx, files, assignments...)
}

// NotifyReloading sends nothing.
func (n *Notifier) NotifyReloading(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	return NotifyReloading(ctx, assignments...)
}

// NotifyStoreFDs sends nothing.
func (n *Notifier) NotifyStoreFDs(ctx context.Context, name string, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	return NotifyStoreFDs(ctx, name, files, assignments...)
}

// NotifyRemoveStoredFDs sends nothing.
func (n *Notifier) NotifyRemoveStoredFDs(ctx context.Context, name string) (sent bool, err error) {
	return NotifyRemoveStoredFDs(ctx, name)
}

// NotifyBarrier sends nothing.
func (n *Notifier) NotifyBarrier(ctx context.Context) (sent bool, err error) { return false, nil }
