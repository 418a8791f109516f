//go:build !linux && !plan9

package sysfd

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

const notOnThisSystem = "this system has no socket activation by $LISTEN_FDS"

// ListenFDs returns no descriptors and no error: this system has no socket activation by
// $LISTEN_FDS.
func ListenFDs() ([]*os.File, error) { return nil, nil }

// TakeListenFDs returns no descriptors and no error either.
func TakeListenFDs(name string) ([]*os.File, error) { return nil, nil }

// TakeListenFDsFunc calls choose with no descriptors, and returns none.
func TakeListenFDsFunc(choose func(left []*os.File) ([]*os.File, error)) ([]*os.File, error) {
	_, err := choose(nil)
	return nil, err
}

// InspectListenEnv reports that nothing was passed, and that the reason is this system.
func InspectListenEnv() ListenEnv { return ListenEnv{Reason: notOnThisSystem} }

// ListenShim does nothing: there is no StartListenFDs on this system.
func ListenShim() {}

// ExecListenFDs fails with an error that matches [errors.ErrUnsupported].
func ExecListenFDs(argv0 string, argv, envv []string, files []*os.File) error {
	return unsupported()
}

func unsupported() error {
	return refused(syscall.ENOSYS, notOnThisSystem).as(errors.ErrUnsupported)
}

// Notify sends nothing: this system has no $NOTIFY_SOCKET. It only returns an error if an argument
// is not an assignment.
func Notify(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	return false, checkAssignments(assignments)
}

// NotifyFiles is [Notify]; it sends nothing.
func NotifyFiles(ctx context.Context, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	return Notify(ctx, assignments...)
}

// NotifyReloading sends nothing.
func NotifyReloading(ctx context.Context, assignments ...Assignment) (sent bool, err error) {
	return Notify(ctx, prepend(assignments, "RELOADING=1")...)
}

// NotifyStoreFDs sends nothing. It returns an error if there are no files, or if name is not a
// [ValidFDName].
func NotifyStoreFDs(ctx context.Context, name string, files []*os.File, assignments ...Assignment) (sent bool, err error) {
	first, err := storeAssignments(name, files)
	if err != nil {
		return false, err
	}
	return Notify(ctx, prepend(assignments, first...)...)
}

// NotifyRemoveStoredFDs sends nothing. It returns an error if name is not a [ValidFDName].
func NotifyRemoveStoredFDs(ctx context.Context, name string) (sent bool, err error) {
	_, err = assignFDName(name)
	return false, err
}

// NotifyBarrier sends nothing, and does not wait.
func NotifyBarrier(ctx context.Context) (sent bool, err error) { return false, nil }

// WatchdogInterval returns 0: no service manager of this system expects [NotifyWatchdog].
func WatchdogInterval() (time.Duration, error) { return 0, nil }

// IsSocket fails with an error that matches [errors.ErrUnsupported], as do all functions below: no
// file is passed on this system.
func IsSocket(f *os.File, domain, typ, listening int) (bool, error) { return false, unsupported() }

// IsSocketInet fails like [IsSocket].
func IsSocketInet(f *os.File, domain, typ, listening int, port uint16) (bool, error) {
	return false, unsupported()
}

// IsSocketUnix fails like [IsSocket].
func IsSocketUnix(f *os.File, typ, listening int, path string) (bool, error) {
	return false, unsupported()
}

// IsFIFO fails like [IsSocket].
func IsFIFO(f *os.File, path string) (bool, error) { return false, unsupported() }

// IsSpecial fails like [IsSocket].
func IsSpecial(f *os.File, path string) (bool, error) { return false, unsupported() }

// IsMessageQueue fails like [IsSocket].
func IsMessageQueue(f *os.File, name string) (bool, error) { return false, unsupported() }
