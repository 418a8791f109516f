//go:build linux

// Init is a process 1 for containers. It runs a program, passes sockets and signals on to it, reaps
// orphans, and ends when the program does:
//
//	init PROGRAM [ARGUMENT]...
//
// If it is not process 1, it does the same as a subreaper: orphans among its descendants become its
// children.
//
// Its exit status is that of the program, or 128 plus the number of the signal that ended the
// program. It is 127 if the program is not found, 126 if it cannot be executed, 125 if init itself
// fails, and 2 for wrong usage.
//
// When process 1 ends, the kernel kills all other processes of the container. If init is not
// process 1, it kills nothing: daemons that the program has left behind continue as children of the
// next subreaper or of process 1, and so does the program if init is killed.
//
// # Sockets
//
// Sockets that were passed to init ($LISTEN_FDS) are passed on to the program, and $LISTEN_PID and
// $LISTEN_PIDFDID are set to those of the program. That needs /proc; without it, init refuses to
// start the program. Sockets meant for another process are not passed on. The rest of the
// environment does not change. The program can use $NOTIFY_SOCKET if the service has
// NotifyAccess=all, because for systemd init is the main process. For the same reason $WATCHDOG_PID
// does not name the program.
//
// # Signals
//
// A signal sent to init is forwarded. One that arrives before the program is started waits until
// then. The exceptions are:
//   - SIGKILL and SIGSTOP, which cannot be caught;
//   - SIGCHLD, which is about children of init;
//   - SIGPIPE, SIGTTIN and SIGTTOU, which init can cause itself when it writes a message;
//   - SIGURG and SIGPROF, which the Go runtime uses, and 32 to 34, which it leaves to C libraries.
//     34 is their SIGRTMIN, and it ends an init that is not process 1.
//
// Signals with the same number that arrive faster than init can forward them become one, even
// real-time signals. A signal that arrives within the first millisecond, before main runs, can end
// init; no program has been started then.
//
// If SIGHUP or SIGINT is ignored when init starts, the program ignores it too. Go resets other
// ignored signals, such as SIGPIPE in a service of systemd.
//
// # Terminal
//
// The program gets a process group of its own. If init is in the foreground of its terminal, the
// program becomes the foreground group, so that it gets ^C and ^Z once, from the terminal, and not
// a second time from init. init waits for a program that is stopped.
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
	"sync"
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
	reserve()
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

// reserve has the Go runtime start the threads now that it may need later. It ends a program when
// it cannot have another one, and so would end the container when that has all processes that it
// may have (pids.max, RLIMIT_NPROC).
func reserve() {
	runtime.GOMAXPROCS(1) // the fewer threads run at a time, the fewer are needed
	var group sync.WaitGroup
	group.Add(8)
	for range 8 {
		go func() {
			runtime.LockOSThread() // keeps its thread while it waits for the others
			group.Done()
			group.Wait()
			runtime.UnlockOSThread()
		}()
	}
	group.Wait()
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
	var sending sync.Mutex // so that no more than one thread waits for the kernel; see reserve
	for sig, c := range caught {
		signal.Notify(c, sig)
		go func() {
			for range c {
				sending.Lock()
				if err := p.SendSignal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
					log.Print(err)
				}
				sending.Unlock()
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
	if err != nil && !errors.Is(err, exec.ErrDot) { // a dot in $PATH is the business of its author
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
