//go:build linux

// Watch prints which process does what to which path, on whole file systems: those that the DIRs
// are on.
//
//	watch [-unlimited] DIR...
//
// It prints a line for each event of fanotify(7), until it gets SIGINT or SIGTERM or nothing is
// left to watch:
//
//	4711:788548(sh) create /mnt/a             a file; of a directory the path ends with a slash
//	4711:788548(sh) write+close /mnt/a 5 bytes
//	4711:788548(sh) attrib /mnt/a             permissions, owner, times or number of links
//	4711:788548(mv) rename /mnt/a -> /mnt/b
//	4713:788551(ended) delete /mnt/b
//	overflow: events on /mnt were lost
//	mount 2147483700 attached at /mnt/x       in the mount namespace of watch
//	mount 2147483700 detached
//	unmounted /mnt
//
// It leaves out what it does itself.
//
// # Processes
//
// A process is named by its PID and its pidfd ID, which together are valid until the next boot: use
// them with sysfd info, kill and wait. They come from a pidfd in the event, which is made when the
// event is read. If the process was reaped before that, only its PID is known, which another
// process may have by now: 4713(ended). Since Linux 7.2 its ID is known too. The name in
// parentheses is that of the program that the process runs when the event is read, not when it
// happened.
//
// # Events
//
// The kernel merges waiting events of one process about the same name. Their words are then printed
// together, in a fixed order, and nobody knows how often each happened. A rename is never merged
// with anything else.
//
// # Paths
//
// An event contains the handle of the directory, and the name in it at that time. A handle stays
// valid when the directory is moved, so the path is that of the directory when the event is read; a
// rename since then has a line of its own. A directory that was removed since then, or is not below
// the mount of DIR, has no path: its handle is printed in parentheses, as sysfd handle prints it.
// To print the size after close, watch opens the file by its own handle, which finds it under any
// name.
//
// # Lost events
//
// If watch is too slow, its queue of 16,384 events (fs.fanotify.max_queued_events) fills up, and
// events are lost. It then prints a line that says so. With -unlimited the queue uses as much
// memory as it needs.
//
// # Unmounting
//
// watch keeps no file open on what it watches, so the file system can be unmounted; while watch
// looks for a path, that can fail with EBUSY for a moment. If the file system is mounted elsewhere
// too, watch continues there. It learns of mounts from another fanotify group (Linux 6.15), or else
// from /proc/self/mountinfo.
//
// # Requirements
//
// watch needs root, Linux 5.17, and file systems that have file handles and an f_fsid, which proc,
// sysfs and overlayfs do not. On btrfs, mount the top of the file system and give it as DIR, which
// shows events in all subvolumes.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
)

// What is watched for, and the words for it in the order in which they stand in a line.
var words = []struct {
	mask uint64
	word string
}{
	{sysfd.FAN_CREATE, "create"},
	{sysfd.FAN_MODIFY, "write"},
	{sysfd.FAN_CLOSE_WRITE, "close"},
	{sysfd.FAN_ATTRIB, "attrib"},
	{sysfd.FAN_RENAME, "rename"},
	{sysfd.FAN_DELETE, "delete"},
}

type watcher struct {
	unlimited bool
	readers   sync.WaitGroup

	mu      sync.Mutex // of all that follows
	out     *bufio.Writer
	err     error // the first one
	watched map[*fileSystem]bool
}

// A fileSystem is one that is watched.
type fileSystem struct {
	dir   string
	group *os.File
	fsid  sysfd.FSID
	id    sysfd.FileSystemID // zero if it has none
	mount sysfd.MountID      // a mount of it
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit status: 0, 1 after a failure, 2 after bad usage.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	w := &watcher{out: bufio.NewWriter(stdout), watched: map[*fileSystem]bool{}}
	flags := flag.NewFlagSet("watch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: watch [-unlimited] DIR...")
		flags.PrintDefaults()
	}
	flags.BoolVar(&w.unlimited, "unlimited", false, "lose no events, and use as much memory as that takes")
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return 2
	}
	if err := w.run(ctx, flags.Args()); err != nil {
		fmt.Fprintln(stderr, "watch:", err)
		return 1
	}
	return 0
}

// started is called when everything is marked. It is for the tests.
var started = func() {}

func (w *watcher) run(ctx context.Context, dirs []string) error {
	defer w.readers.Wait()
	defer w.stop(nil)
	for _, dir := range dirs {
		if err := w.add(dir); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	done := make(chan struct{})
	for fs := range w.watched {
		w.readers.Go(func() { w.read(fs) })
	}
	go func() { w.readers.Wait(); close(done) }()
	mounts, err := w.watchMounts()
	if err != nil {
		w.stop(err)
		<-done
		return err
	}
	started()
	select {
	case <-ctx.Done():
		w.stop(nil)
		<-done
	case <-done:
	}
	mounts()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// stop ends all readers. What they print before they end is still printed.
func (w *watcher) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	for fs := range w.watched {
		w.drop(fs)
	}
}

// drop ends the reader of a file system.
func (w *watcher) drop(fs *fileSystem) {
	delete(w.watched, fs)
	fs.group.Close()
}

// newGroup returns a group whose Read waits in the runtime's poller and can be ended by Close.
func newGroup(flags uint) (*os.File, error) {
	fd, err := unix.FanotifyInit(flags|unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("fanotify_init", err)
	}
	return os.NewFile(uintptr(fd), "fanotify"), nil
}

func mark(group *os.File, flags uint, mask uint64, path string) error {
	conn, err := group.SyscallConn()
	if err != nil {
		return err
	}
	var errMark error
	err = conn.Control(func(fd uintptr) {
		errMark = unix.FanotifyMark(int(fd), flags|unix.FAN_MARK_ADD, mask, unix.AT_FDCWD, path)
	})
	if err == nil {
		err = os.NewSyscallError("fanotify_mark", errMark)
	}
	return err
}

// add marks the file system of dir. Each has a group of its own, so that one can be lost without
// the others, and an overflow is that of one file system.
func (w *watcher) add(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	fs := &fileSystem{}
	if fs.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if fs.fsid, err = sysfd.FSIDOf(int(f.Fd())); err != nil {
		return err
	}
	if fs.id, err = sysfd.FileSystemIDOf(int(f.Fd())); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if fs.mount, err = mountOf(f); err != nil {
		return err
	}
	for other := range w.watched {
		if fs.fsid == other.fsid && fs.id == other.id {
			return nil
		}
	}
	flags := uint(unix.FAN_REPORT_DFID_NAME_TARGET | unix.FAN_REPORT_PIDFD)
	if w.unlimited {
		flags |= unix.FAN_UNLIMITED_QUEUE
	}
	fs.group, err = newGroup(flags)
	switch {
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("this kernel is older than Linux 5.17: %w", err)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("to watch a file system takes root: %w", err)
	case err != nil:
		return err
	}
	mask := uint64(sysfd.FAN_ONDIR)
	for _, w := range words {
		mask |= w.mask
	}
	if err := mark(fs.group, unix.FAN_MARK_FILESYSTEM, mask, dir); err != nil {
		fs.group.Close()
		return explain(err)
	}
	w.watched[fs] = true
	return nil
}

// explain says in words why a file system cannot be watched.
func explain(err error) error {
	for errno, text := range map[syscall.Errno]string{
		syscall.EOPNOTSUPP: "its file system has no file handles that can be opened",
		syscall.ENODEV:     "its file system has no f_fsid, by which events are told apart",
		syscall.EXDEV:      "it is on a subvolume, and just the top of the file system can be watched, wherever that is mounted",
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return err
}

// mountOf returns the unique ID of a mount where there is one, which is not that of another one
// later.
func mountOf(f *os.File) (sysfd.MountID, error) {
	id, err := sysfd.MountIDOf(int(f.Fd()), sysfd.AT_HANDLE_MNT_ID_UNIQUE)
	if errors.Is(err, errors.ErrUnsupported) { // before Linux 6.8
		return sysfd.MountIDOf(int(f.Fd()), 0)
	}
	return id, err
}

// takeEvents reads until the group is closed, and calls each with the events of a read.
func takeEvents(group *os.File, each func(events func(yield func(*sysfd.FanotifyEvent) bool)) error) error {
	b := make([]byte, 16<<10) // some 150 events, and as many pidfds
	for {
		n, err := group.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		events, err := sysfd.TakeFanotifyEvents(b[:n])
		if err != nil {
			return err
		}
		if err := each(events); err != nil {
			return err
		}
	}
}

// read prints what happens on a file system.
func (w *watcher) read(fs *fileSystem) {
	err := takeEvents(fs.group, func(events func(yield func(*sysfd.FanotifyEvent) bool)) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		// It is not kept open, so that it can be unmounted; without it there are handles
		// and no paths.
		mount, err := sysfd.OpenMount(fs.mount)
		if err == nil {
			defer mount.Close()
		}
		for e := range events {
			w.print(fs, mount, e)
		}
		return w.out.Flush()
	})
	if err != nil {
		w.stop(fmt.Errorf("%s: %w", fs.dir, err))
	}
}

func (w *watcher) print(fs *fileSystem, mount *os.File, e *sysfd.FanotifyEvent) {
	switch {
	case e.Mask&sysfd.FAN_Q_OVERFLOW != 0:
		fmt.Fprintln(w.out, "overflow: events on", quoted(fs.dir), "were lost")
		return
	case e.PID == os.Getpid():
		return // or else each line could make another one
	}
	var what []string
	for _, word := range words {
		if e.Mask&word.mask != 0 {
			what = append(what, word.word)
		}
	}
	fmt.Fprint(w.out, who(e), " ", strings.Join(what, "+"))
	between := " "
	for _, get := range []func() (sysfd.FanotifyFile, bool){e.Dir, e.OldDir, e.NewDir} {
		f, ok := get()
		if !ok {
			continue
		}
		path := pathOf(mount, f)
		if e.Mask&sysfd.FAN_ONDIR != 0 {
			path += "/"
		}
		fmt.Fprint(w.out, between, quoted(path))
		between = " -> "
	}
	object, hasObject := e.Object()
	if between == " " && hasObject { // one that has lost its last name, but is still open
		fmt.Fprint(w.out, " ", quoted(pathOf(mount, object)))
	}
	if e.Mask&sysfd.FAN_CLOSE_WRITE != 0 && hasObject {
		if f, info, err := open(mount, object.Handle); err == nil {
			fmt.Fprint(w.out, " ", info.Size(), " bytes")
			f.Close()
		}
	}
	fmt.Fprintln(w.out)
}

// who names the process of an event. Its pidfd is closed with the event if it is not taken.
func who(e *sysfd.FanotifyEvent) string {
	p, err := e.PidFD()
	switch {
	case errors.Is(err, os.ErrProcessDone):
		return strconv.Itoa(e.PID) + "(ended)"
	case errors.Is(err, syscall.EREMOTE):
		return "0(out of sight)"
	case err != nil:
		return strconv.Itoa(e.PID) + "(" + err.Error() + ")"
	}
	defer p.Close()
	// Not p.Ref, which asks for the PID and fails for a process that has been reaped.
	name := strconv.Itoa(e.PID)
	if id, err := p.ID(); err == nil { // since Linux 6.9
		name = sysfd.ProcessRef{PID: e.PID, ID: id}.Short()
	}
	var comm []byte
	if err := p.Verify(func() (err error) {
		comm, err = os.ReadFile("/proc/" + strconv.Itoa(e.PID) + "/comm")
		return err
	}); err != nil {
		return name + "(ended)"
	}
	return name + "(" + quoted(strings.TrimSuffix(string(comm), "\n")) + ")"
}

// open opens what a handle names, for no more than to look at it.
func open(mount *os.File, h sysfd.FileHandle) (*os.File, os.FileInfo, error) {
	if mount == nil {
		return nil, nil, os.ErrNotExist
	}
	f, err := sysfd.OpenFileHandle(int(mount.Fd()), h, sysfd.O_PATH, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// pathOf returns the path where a file is now.
func pathOf(mount *os.File, file sysfd.FanotifyFile) string {
	path := "(" + file.Handle.String() + ")"
	if f, _, err := open(mount, file.Handle); err == nil {
		defer f.Close()
		// It has none if it was removed, is below something else that is mounted there, or
		// is not below this mount.
		if named, err := sysfd.PathOf(int(f.Fd())); err == nil {
			path = named
		}
	}
	switch name := string(file.Name); {
	case name == "" || name == ".":
		return path
	case path == "/":
		return path + name
	default:
		return path + "/" + name
	}
}

// quoted returns a text as it is, or quoted if it could be mistaken for more than one word.
func quoted(text string) string {
	if q := strconv.Quote(text); q[1:len(q)-1] != text || strings.ContainsAny(text, " ") {
		return q
	}
	return text
}

// watchMounts sees to it that unmounts are noticed, until the function that it returns is called.
func (w *watcher) watchMounts() (stop func(), err error) {
	source, err := mountGroup()
	watch := w.readMounts
	if errors.Is(err, syscall.EINVAL) { // before Linux 6.15
		source, err = os.Open("/proc/self/mountinfo")
		watch = w.pollMounts
	}
	if err != nil {
		return nil, err
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		if err := watch(source); err != nil {
			w.stop(fmt.Errorf("mounts: %w", err))
		}
	})
	return func() { source.Close(); reader.Wait() }, nil
}

// mountGroup is a variable for the tests, which have no kernel old enough.
var mountGroup = func() (*os.File, error) {
	group, err := newGroup(unix.FAN_REPORT_MNT)
	if err != nil {
		return nil, err
	}
	err = mark(group, unix.FAN_MARK_MNTNS, sysfd.FAN_MNT_ATTACH|sysfd.FAN_MNT_DETACH, "/proc/self/ns/mnt")
	if err != nil {
		group.Close()
		return nil, err
	}
	return group, nil
}

// readMounts prints what is mounted and unmounted.
func (w *watcher) readMounts(group *os.File) error {
	return takeEvents(group, func(events func(yield func(*sysfd.FanotifyEvent) bool)) error {
		w.mu.Lock()
		for e := range events {
			id, _ := e.Mount()
			switch {
			case e.Mask&sysfd.FAN_Q_OVERFLOW != 0:
				fmt.Fprintln(w.out, "overflow: mounts were missed")
			case e.Mask&sysfd.FAN_MNT_ATTACH != 0: // also if it was moved, and is detached as well
				fmt.Fprint(w.out, "mount ", id, " attached")
				if f, err := sysfd.OpenMount(id); err == nil {
					fmt.Fprint(w.out, " at ", quoted(f.Name()))
					f.Close()
				}
				fmt.Fprintln(w.out)
			default:
				fmt.Fprintln(w.out, "mount", id, "detached")
			}
		}
		w.mu.Unlock()
		return w.lookForUnmounts()
	})
}

// pollMounts waits in the runtime's poller until mountinfo changes.
func (w *watcher) pollMounts(mountinfo *os.File) error {
	conn, err := mountinfo.SyscallConn()
	if err != nil {
		return err
	}
	var errLook error
	// It returns an error of its own when the file is closed.
	conn.Read(func(uintptr) (done bool) {
		errLook = w.lookForUnmounts()
		return errLook != nil
	})
	return errLook
}

// lookForUnmounts goes on with another mount where the one it knew is gone, or gives the file
// system up.
func (w *watcher) lookForUnmounts() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for fs := range w.watched {
		f, err := sysfd.OpenMount(fs.mount)
		if errors.Is(err, syscall.ENOENT) && !fs.id.IsZero() {
			if f, err = sysfd.OpenFileSystem(fs.id); err == nil {
				fs.mount, err = mountOf(f)
			}
		}
		if err == nil {
			f.Close()
			continue
		}
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENODEV) {
			fmt.Fprintln(w.out, "unmounted", quoted(fs.dir))
			w.drop(fs)
		}
	}
	return w.out.Flush()
}
