//go:build linux

// Varlink is a service that names processes and watches them, for programs that speak Varlink, such
// as varlinkctl(1) of systemd. README.md shows how to try it.
//
//	sysfd-varlink [-uid UID]... [-cgroup DIRECTORY]
//
// Its interface is described in io.github.sysfd.Process.varlink. It is started with sockets: by a
// socket unit of systemd, by "varlinkctl call exec:…" or by "sysfd activate". It serves on
// listening sockets until it gets SIGTERM, and on connected ones until the clients are gone.
//
// # Which callers are answered
//
// The caller is the process that opened the connection (SO_PEERPIDFD, Linux 6.5), with the user and
// the group that it had at that moment (SO_PEERCRED). A process to which the connection was passed
// does not count. For a socketpair(2), such as that of "varlinkctl call exec:…", it is the process
// that made the pair.
//
// A process can change its rights. Any user can open a connection, leave it to a child and execute
// a setuid program; the process is then root's, and the connection still that user's. So WhoAmI and
// -uid use what the kernel recorded when the connection was opened.
//
// With -uid, a caller is refused unless one of these users opened the connection. For groups, use
// the permissions of the socket, which the kernel checks at connect(2).
//
// With -cgroup, a caller is refused unless it is in this cgroup or in one below it. That is checked
// for each call. It needs Linux 6.13 and, for cgroups below, the capability CAP_DAC_READ_SEARCH:
// the kernel reports the ID of the caller's cgroup, the service opens the cgroup by that ID, and
// goes up from there. No path is compared, and no PID.
//
//   - A pidfd never refers to another process, and a cgroup ID is not used again.
//   - A cgroup of cgroup2 stays where it is: rename(2) does not move it. Only the cgroup of the
//     caller can change between the check and the answer, and then the answer is right for the
//     moment of the check.
//   - If the answer is not known, the caller is refused: it has ended, its cgroup is gone, it is in
//     a pid namespace out of sight, or a privilege is missing.
//   - A setuid program runs in the cgroup of the process that executes it, so it does not help an
//     intruder.
//   - The kernel does not record in which cgroup a connection was opened. A process that is moved
//     into the cgroup brings the connections that it opened before, and so do processes that hold
//     them. It can be moved by root, by users to whom the cgroup was delegated, and by a service
//     manager that makes a scope of it. Where that matters, add -uid, which uses what was recorded
//     when the connection was opened.
//
// org.varlink.service answers all callers: the description of the interface is no secret.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/sysfd/sysfd"
	"golang.org/x/sync/errgroup"
)

// maxClients is how many clients are served at once. Others wait to be accepted.
const maxClients = 256

const howToStart = `It is started with sockets, for example by one of
	varlinkctl call exec:/path/to/sysfd-varlink io.github.sysfd.Process.WhoAmI {}
	sysfd activate -l /run/sysfd-varlink.sock -- sysfd-varlink
	systemctl start sysfd-varlink.socket`

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// run returns the exit status: 0, 1 after a failure, 2 after bad usage.
func run(args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("sysfd-varlink", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: sysfd-varlink [-uid UID]... [-cgroup DIRECTORY]")
		flags.PrintDefaults()
	}
	var only callers
	flags.Func("uid", "answer only callers whose connection this user opened, a numeric `UID`; can be given several times", func(text string) error {
		uid, err := strconv.ParseUint(text, 10, 32)
		only.uids = append(only.uids, uint32(uid))
		return err
	})
	allowed := flags.String("cgroup", "", "answer only callers in this cgroup or below, a `DIRECTORY` on cgroup2")
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() > 0 {
		flags.Usage()
		return 2
	}
	if err := start(only, *allowed, stderr); err != nil {
		fmt.Fprintln(stderr, "sysfd-varlink:", err)
		return 1
	}
	return 0
}

func start(only callers, allowed string, stderr io.Writer) error {
	// First, before anything can fail: a child must not inherit what was passed.
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New(sysfd.InspectListenEnv().Explain() + "\n" + howToStart)
	}
	listeners, clients, err := sockets(files)
	if err != nil {
		return err
	}
	if allowed != "" {
		if only.cgroup, err = openCgroup(allowed); err != nil {
			return err
		}
		defer only.cgroup.Close()
	}
	signals, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return serve(signals, listeners, clients, only, func(state string) {
		if _, err := sysfd.Notify(signals, state); err != nil {
			fmt.Fprintln(stderr, "sysfd-varlink:", err)
		}
	})
}

// sockets sorts what was passed, and closes the files.
func sockets(files []*os.File) (listeners []net.Listener, clients []*net.UnixConn, err error) {
	for _, f := range files {
		defer f.Close()
		listens, err := sysfd.IsSocketUnix(f, syscall.SOCK_STREAM, 1, "")
		if err != nil {
			return nil, nil, err
		}
		connected, err := sysfd.IsSocketUnix(f, syscall.SOCK_STREAM, 0, "")
		if err != nil {
			return nil, nil, err
		}
		switch {
		case listens:
			l, err := net.FileListener(f)
			if err != nil {
				return nil, nil, err
			}
			listeners = append(listeners, l)
		case connected:
			c, err := net.FileConn(f)
			if err != nil {
				return nil, nil, err
			}
			clients = append(clients, c.(*net.UnixConn))
		default:
			return nil, nil, fmt.Errorf("%s, which was passed, is not a Unix stream socket", f.Name())
		}
	}
	return listeners, clients, nil
}

// serve returns when ctx is done, or when there are no clients left and none can come.
func serve(ctx context.Context, listeners []net.Listener, clients []*net.UnixConn, only callers, notify func(state string)) error {
	service, err := newService(only)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(maxClients, len(clients)) + len(listeners))
	handle := func(conn *net.UnixConn) {
		group.Go(func() error {
			c := newClient(conn)
			defer c.release()
			service.ServeConn(ctx, c)
			return nil
		})
	}
	for _, conn := range clients {
		handle(conn)
	}
	for _, l := range listeners {
		group.Go(func() error { return accept(ctx, l, handle) })
	}
	notify(sysfd.NotifyReady)
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() {
		notify(sysfd.NotifyStopping)
		close(stopped)
	})
	err = group.Wait()
	<-stopped
	return err
}

func accept(ctx context.Context, l net.Listener, handle func(*net.UnixConn)) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			l.Close()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		handle(conn.(*net.UnixConn))
	}
}
