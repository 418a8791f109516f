//go:build linux

// Agent runs as a service and does with package sysfd what a test asks for.
//
//	agent SOCKET                  connect to the test there, and serve its calls
//	agent send NETWORK ADDRESS TEXT   be a client: send TEXT; NETWORK may be fifo
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

func main() {
	sysfd.ListenShim()
	err := errors.New("usage: agent SOCKET | agent send NETWORK ADDRESS TEXT")
	switch args := os.Args[1:]; {
	case len(args) == 1:
		err = serve(args[0])
	case len(args) == 4 && args[0] == "send":
		err = send(args[1], args[2], args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(socket string) error {
	if _, err := sysfd.ListenFDs(); err != nil { // ahead of all that opens descriptors
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.Register(&Agent{socket: socket, hangup: hangup}); err != nil {
		return err
	}
	server.ServeConn(conn)
	return nil
}

func send(network, address, text string) (err error) {
	var w io.WriteCloser
	if network == "fifo" {
		w, err = os.OpenFile(address, os.O_WRONLY, 0)
	} else {
		w, err = net.Dial(network, address)
	}
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return w.Close()
}

// Agent has the methods that a test calls, by package net/rpc. An argument that is named
// none does not matter.
type Agent struct {
	socket string
	hangup chan os.Signal
	fed    *time.Ticker
}

// Ref names this process.
func (*Agent) Ref(none int, ref *sysfd.ProcessRef) error {
	p, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer p.Close()
	*ref, err = p.Ref()
	return err
}

// Getenv returns the value of a variable.
func (*Agent) Getenv(name string, value *string) error {
	*value = os.Getenv(name)
	return nil
}

// Names are those of the descriptors that were passed.
func (*Agent) Names(none int, names *[]string) error {
	*names = sysfd.InspectListenEnv().Names
	return nil
}

// Receive takes the one descriptor with a name, and reads what a client has sent there.
func (*Agent) Receive(name string, text *string) error {
	files, err := sysfd.TakeListenFDs(name)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("%d descriptors have the name %q", len(files), name)
	}
	var r io.Reader = files[0]
	if listening, _ := sysfd.IsSocket(files[0], 0, 0, 1); listening {
		l, err := net.FileListener(files[0])
		if err != nil {
			return err
		}
		if r, err = l.Accept(); err != nil {
			return err
		}
	}
	data := make([]byte, 4096)
	n, err := r.Read(data)
	*text = string(data[:n])
	return err
}

// Store stores an open file with this text in it.
func (*Agent) Store(nameAndText [2]string, sent *bool) error {
	f, err := os.CreateTemp("/dev/shm", "")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if _, err := f.WriteString(nameAndText[1]); err != nil {
		return err
	}
	*sent, err = sysfd.NotifyStoreFDs(context.Background(), nameAndText[0], []*os.File{f})
	return err
}

// StoreHungUp stores the read end of a pipe that has no write end any more.
func (*Agent) StoreHungUp(nameAndMore []string, sent *bool) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	w.Close()
	*sent, err = sysfd.NotifyStoreFDs(context.Background(), nameAndMore[0], []*os.File{r}, nameAndMore[1:]...)
	return err
}

// StoreMany stores that many pipes' read ends, each of them twice, all under one name.
func (*Agent) StoreMany(pipes int, sent *bool) error {
	var files []*os.File
	for range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		files = append(files, r, r)
	}
	var err error
	*sent, err = sysfd.NotifyStoreFDs(context.Background(), "many", files, sysfd.NotifyNoPoll)
	return err
}

// Stored returns the name and the text of each file that came back.
func (*Agent) Stored(none int, stored *[]string) error {
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	for _, f := range files {
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
		if errors.Is(err, syscall.ESPIPE) {
			text, err = io.ReadAll(f)
		}
		if err != nil {
			return err
		}
		*stored = append(*stored, f.Name()+"="+string(text))
	}
	return nil
}

func (*Agent) RemoveStored(name string, sent *bool) (err error) {
	*sent, err = sysfd.NotifyRemoveStoredFDs(context.Background(), name)
	return err
}

func (*Agent) Notify(assignments []string, sent *bool) (err error) {
	*sent, err = sysfd.Notify(context.Background(), assignments...)
	return err
}

func (*Agent) NotifyReloading(assignments []string, sent *bool) (err error) {
	*sent, err = sysfd.NotifyReloading(context.Background(), assignments...)
	return err
}

func (*Agent) NotifyMainProcess(r sysfd.ProcessRef, sent *bool) (err error) {
	*sent, err = sysfd.NotifyMainProcess(context.Background(), r)
	return err
}

func (*Agent) NotifyMainPidFD(r sysfd.ProcessRef, sent *bool) error {
	p, err := r.Open()
	if err != nil {
		return err
	}
	defer p.Close()
	*sent, err = sysfd.NotifyMainPidFD(context.Background(), p)
	return err
}

// Barrier waits until the service manager has dealt with all that was sent, for a limited time.
func (*Agent) Barrier(limit time.Duration, sent *bool) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	*sent, err = sysfd.NotifyBarrier(ctx)
	return err
}

// Feed feeds the watchdog as often as it takes.
func (a *Agent) Feed(none int, interval *time.Duration) (err error) {
	*interval, err = sysfd.WatchdogInterval()
	if err != nil || *interval == 0 {
		return err
	}
	a.fed = time.NewTicker(*interval / 2)
	go func() {
		for range a.fed.C {
			if _, err := sysfd.Notify(context.Background(), sysfd.NotifyWatchdog); err != nil {
				panic(err)
			}
		}
	}()
	return nil
}

// Starve ends what Feed began.
func (a *Agent) Starve(none int, _ *int) error {
	a.fed.Stop()
	return nil
}

// Hangup returns after SIGHUP.
func (a *Agent) Hangup(none int, _ *int) error {
	<-a.hangup
	return nil
}

// Fork starts another agent as a child, which connects to the test in its turn.
func (a *Agent) Fork(none int, _ *int) error {
	return exec.Command("/proc/self/exe", a.socket).Start()
}

// Exec becomes another program, with the descriptors that were passed. It returns only if it fails.
func (*Agent) Exec(argv []string, _ *int) error {
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	return sysfd.ExecListenFDs(argv[0], argv, os.Environ(), files)
}

// ExecRenamed becomes another agent, with the descriptors that were passed and a prefix to the
// names of all. It returns only if it fails.
func (a *Agent) ExecRenamed(prefix string, _ *int) error {
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	for i, f := range files {
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			return err
		}
		syscall.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), prefix+f.Name())
	}
	return sysfd.ExecListenFDs("/proc/self/exe", []string{"agent", a.socket}, os.Environ(), files)
}

// Succeed starts another agent with the descriptors that were passed, and makes it the main process.
func (a *Agent) Succeed(none int, sent *bool) error {
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	p, err := sysfd.StartListenFDs("/proc/self/exe", []string{"agent", a.socket}, nil, files)
	if err != nil {
		return err
	}
	defer p.Close()
	*sent, err = sysfd.NotifyMainPidFD(context.Background(), p)
	return err
}
