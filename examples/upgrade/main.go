//go:build unix

// Upgrade is a web server that can be replaced by a new version of itself while clients connect. At
// SIGHUP it stops accepting, finishes the requests that it has, and executes the file that is now
// at the path of its program. It passes the listening sockets on by socket activation, and clients
// that connect in the meantime wait in their queues. If the file cannot be executed, the old
// version continues.
//
//	$ go build -o server . && ./server -listen 127.0.0.1:8080 &
//	$ curl http://127.0.0.1:8080
//	process 16766, program 9995284
//	$ go build -o server.new . && mv server.new server && kill -HUP %1
//	$ curl http://127.0.0.1:8080
//	process 16766, program 9995280
//
// With -new the new version is a process of its own, and the old one serves until the new one has
// reported that it is ready (READY=1, as to systemd). A version that cannot be executed, ends or is
// not ready in time then does no harm, while one that was executed in place has no way back. The
// PID changes. systemd is informed of that (Type=notify); other supervisors must not rely on the
// PID.
//
// The number of the program is the inode number of its file. Started by a socket unit of systemd,
// or by sysfd activate, it serves on the passed sockets. On other Unix systems than Linux it builds
// and serves, and an upgrade fails as that to a bad file does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

// readyVar is the variable with the address at which the old process waits for the new one.
const readyVar = "UPGRADE_READY_SOCKET"

func main() {
	sysfd.ListenShim()
	listen := flag.String("listen", "127.0.0.1:8080", "the `ADDRESS` to listen on if no sockets are passed")
	patience := flag.Duration("patience", 30*time.Second, "the `TIME` that requests have to finish")
	anew := flag.Bool("new", false, "upgrade to a new process once that is ready")
	flag.Parse()
	if err := run(*listen, *patience, *anew); err != nil {
		log.Fatal(err)
	}
}

func run(address string, patience time.Duration, anew bool) error {
	old := &sysfd.Notifier{Address: os.Getenv(readyVar)} // sends nothing if there is none
	os.Unsetenv(readyVar)
	program, err := os.Executable() // now: later, the file may be another one
	if err != nil {
		return err
	}
	var number syscall.Stat_t
	if err := syscall.Stat(program, &number); err != nil {
		return err
	}
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	if len(files) == 0 {
		f, err := listenOn(address)
		if err != nil {
			return err
		}
		files = []*os.File{f}
	}
	upgrade, end := make(chan os.Signal, 1), make(chan os.Signal, 1)
	for {
		signal.Notify(upgrade, syscall.SIGHUP)
		signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
		server, err := serve(files, answer(uint64(number.Ino)))
		if err != nil {
			return err
		}
		if _, err := sysfd.Notify(context.Background(), sysfd.NotifyReady); err != nil {
			log.Print(err)
		}
		if _, err := old.Notify(context.Background(), sysfd.NotifyReady); err != nil {
			log.Print(err)
		}
		for {
			select {
			case <-end:
				server.stop(patience)
				return nil
			case <-upgrade:
			}
			if !anew {
				break
			}
			err := handOver(program, files, patience, end)
			if err == nil {
				server.stop(patience)
				return nil
			}
			log.Print("this version goes on: ", err)
		}
		sysfd.NotifyReloading(context.Background())
		server.stop(patience)
		// This version has no more requests. If it got a signal to end, it ends, and a
		// signal from here on ends it at once. SIGHUP asks for what it is about to do.
		signal.Ignore(syscall.SIGHUP)
		signal.Stop(end)
		if len(end) > 0 {
			return nil
		}
		err = sysfd.ExecListenFDs(program, os.Args, os.Environ(), files)
		log.Print("this version goes on: ", err)
	}
}

// listenOn returns a listening socket with a name that can be passed on.
func listenOn(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	log.Print("listening on ", l.Addr())
	return sysfd.DupFile(l.(*net.TCPListener), "http")
}

// A server serves on duplicates of the sockets.
type server struct {
	http.Server
	listeners              []net.Listener
	accepting, connections sync.WaitGroup
}

func serve(files []*os.File, handler http.Handler) (*server, error) {
	s := &server{}
	s.Handler = handler
	s.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.connections.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.connections.Done()
		}
	}
	for _, f := range files {
		l, err := net.FileListener(f)
		if err != nil {
			s.stop(0)
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		s.listeners = append(s.listeners, l)
		s.accepting.Go(func() {
			// A connection or a socket of datagrams becomes a listener, too, and then
			// fails here.
			if err := s.Serve(l); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
				log.Print(f.Name(), ": ", err)
			}
		})
	}
	return s, nil
}

// stop accepts no more connections, and returns when all that it has accepted are served. Shutdown
// of package net/http would not do: it drops connections that have been accepted and have not got
// their request through. The sockets themselves go on taking connections.
func (s *server) stop(patience time.Duration) {
	for _, l := range s.listeners {
		l.Close()
	}
	s.accepting.Wait()
	s.SetKeepAlivesEnabled(false)
	served := make(chan bool)
	go func() {
		s.connections.Wait()
		close(served)
	}()
	select {
	case <-served:
	case <-time.After(patience):
		log.Print("some requests did not finish in time")
		s.Close()
	}
}

func answer(program uint64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if pause, err := time.ParseDuration(r.FormValue("pause")); err == nil {
			time.Sleep(pause)
		}
		fmt.Fprintf(w, "process %d, program %d\n", os.Getpid(), program)
	}
}
