//go:build linux

// Init is a process 1 for containers. It runs a program, passes sockets and signals on to it, reaps
// what else ends, and ends as the program does:
//
//	init PROGRAM [ARGUMENT]...
//
// Elsewhere than in a container it does the same as a subreaper: orphans among its
// descendants come to it.
//
// Its status is that of the program, or 128 and the number of the signal that ended it. 127 is for a
// program that is not found, 126 for one that cannot be executed, 125 for a failure of init
// itself, 2 for bad usage. Then the kernel kills what is left if init was process 1. Otherwise nothing is
// killed: daemons live on, adopted by the next subreaper or by process 1. The program lives on,
// too, if init is killed and was not process 1.
//
// # Sockets
//
// Sockets that were passed to init ($LISTEN_FDS) are passed on to the program, addressed
// to it: $LISTEN_PID and $LISTEN_PIDFDID are those of the program. That needs /proc; without it
// nothing is started. What was passed to another process than init is not passed on. The rest of the
// environment stays, $NOTIFY_SOCKET among it; systemd heeds what the program says there with
// NotifyAccess=all, as it takes init for the main process of the service.
//
// # Signals
//
// All signals are forwarded that were sent to init, also while the program was being started, except:
//   - SIGKILL and SIGSTOP, which nobody can catch;
//   - SIGCHLD, which tells init of its own children;
//   - SIGPIPE, SIGTTIN and SIGTTOU, which the kernel sends for what init itself writes;
//   - SIGURG and SIGPROF, which the Go runtime keeps for itself, and signals 32 to 34, which
//     it leaves to C libraries. The last of them is their SIGRTMIN.
//
// Signals of one number that come faster than they are forwarded become one, real-time
// signals too. The program sees those ignored that init was started with, if they are SIGHUP and
// SIGINT; Go resets the others. SIGCHLD among them would cost init the status of the program.
//
// # Terminal
//
// The program has a process group of its own. If that of init is in the foreground of a
// terminal, the program's takes its place. So what is typed there (^C, ^Z) goes to the program once, and
// not to init, which would forward it again. A program that is stopped is waited for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// What init exits with if not with the status of the program; the same as env(1).
const (
	failed        = 125
	notExecutable = 126
	notFound      = 127
)

// The kernel gives orphans to the main thread, and main has to stay on it to reap them.
func init() { runtime.LockOSThread() }

func main() {
	sysfd.ListenShim()
	caught := catch() // before anything else: from here on no signal is lost
	log.SetFlags(0)
	log.SetPrefix("init: ")
	flag.Usage = func() { fmt.Fprintln(flag.CommandLine.Output(), "usage: init PROGRAM [ARGUMENT]...") }
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if os.Getpid() != 1 {
		if err := sysfd.SetChildSubreaper(true); err != nil {
			log.Print(err)
			os.Exit(failed)
		}
	}
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, syscall.SIGCHLD)
	// On another thread: what the main thread starts, ReapOrphans would reap.
	go func() { os.Exit(run(flag.Args(), caught)) }()
	err := sysfd.ReapOrphans(context.Background(), sigchld, func(sysfd.Orphan) {})
	log.Print("zombies stay: ", err) // no reason to end the program
	select {}
}

// catch catches the signals to forward. Each has a channel of its own that holds one, as the kernel
// keeps one of each number, so that many of one do not push out another.
func catch() map[syscall.Signal]chan os.Signal {
	caught := map[syscall.Signal]chan os.Signal{}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch sig {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU,
			syscall.SIGURG, syscall.SIGPROF, 32, 33, 34:
			continue
		}
		caught[sig] = make(chan os.Signal, 1)
		if !signal.Ignored(sig) { // otherwise the program is to inherit that first
			signal.Notify(caught[sig], sig)
		}
	}
	return caught
}

// run runs the program, and returns the status to exit with.
func run(args []string, caught map[syscall.Signal]chan os.Signal) int {
	p, err := start(args)
	if err != nil {
		log.Print(err)
		return status(err)
	}
	// A message must not stop or kill init. Not before now, as what is ignored is inherited.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU)
	for sig, c := range caught {
		signal.Notify(c, sig)
		go func() {
			for range c {
				if err := p.SendSignal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
					log.Print(err)
				}
			}
		}()
	}
	r, err := p.Wait(context.Background(), 0)
	if err == nil {
		err = r.Unknown
	}
	switch {
	case err != nil:
		log.Print(args[0], ": ", err)
		return failed
	case r.Status.Signaled():
		return 128 + int(r.Status.Signal())
	}
	return r.Status.ExitStatus()
}

func status(err error) int {
	switch {
	case errors.Is(err, errNoProc):
		return failed
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return notFound
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EISDIR):
		return notExecutable
	}
	return failed // no more processes, for instance
}

var errNoProc = errors.New("passing sockets on needs /proc")

// start starts the program, and leaves it alone with what was passed.
func start(args []string) (*sysfd.PidFD, error) {
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) { // a dot in $PATH is up to who sets that
		return nil, err
	}
	files, err := sysfd.ListenFDs()
	if err != nil {
		return nil, err
	}
	attr := &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if tty, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		defer unix.Close(tty)
		group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
		attr.Sys.Foreground, attr.Sys.Ctty = err == nil && group == unix.Getpgrp(), tty
	}
	defer closeInherited()
	if len(files) == 0 {
		return sysfd.StartProcess(path, args, attr)
	}
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProc, err)
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	return sysfd.StartListenFDs(path, args, attr, files)
}

// closeInherited closes what the program has inherited by way of init, which would hold it open
// after the program has closed it. Go itself opens nothing that is inherited.
func closeInherited() {
	entries, _ := os.ReadDir("/proc/self/fd") // without /proc it stays open
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fd > 2 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}
