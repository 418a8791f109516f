//go:build unix

package activation_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/activation"
)

// A whole web server for systemd: with two sockets that have names, a report when it is ready, a
// reload on SIGHUP, and a watchdog. Started by hand, it listens on its own and reports to nobody.
// It builds on every Unix system.
//
// hello-http.socket and hello-admin.socket, both with Service=hello.service:
//
//	[Socket]
//	ListenStream=80
//	FileDescriptorName=http
//
//	[Socket]
//	ListenStream=/run/hello-admin.sock
//	FileDescriptorName=admin
//
// hello.service:
//
//	[Service]
//	Type=notify-reload
//	ExecStart=/usr/bin/hello
//	WatchdogSec=30
func Example_server() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// greeting is what a reload reads again.
var greeting atomic.Value

func load() error {
	text, err := os.ReadFile("/etc/hello.conf")
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte("hello"), nil
	}
	if err == nil {
		greeting.Store(string(text))
	}
	return err
}

func run(ctx context.Context) error {
	manager, err := sysfd.TakeNotifier() // programs that this one starts do not inherit the variables
	if err != nil {
		log.Print(err) // the manager has what is valid
	}
	if err := load(); err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)

	public, err := activation.ListenOr(ctx, "http", "tcp", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	admin, err := activation.ListenOr(ctx, "admin", "unix", "hello-admin.sock")
	if err != nil {
		return err
	}
	others, err := activation.Unclaimed()
	if err != nil {
		return err
	}
	for _, f := range others {
		log.Printf("no use for the passed socket %q", f.Name())
		f.Close()
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, greeting.Load()) })
	server := &http.Server{Handler: mux}
	failed := make(chan error, 2)
	for _, l := range []net.Listener{public, admin} {
		go func() { failed <- server.Serve(l) }()
	}
	go manager.Watchdog(ctx, func(ctx context.Context) error { return check(ctx, admin.Addr()) })
	manager.Notify(ctx, sysfd.NotifyReady, sysfd.NotifyStatus("serving on "+public.Addr().String()))

	for {
		select {
		case <-hup:
			manager.NotifyReloading(ctx)
			status := "reloaded"
			if err := load(); err != nil {
				status = "the old configuration is still in use: " + err.Error()
			}
			manager.Notify(ctx, sysfd.NotifyReady, sysfd.NotifyStatus(status))
		case err := <-failed:
			return err
		case <-ctx.Done():
			manager.Notify(ctx, sysfd.NotifyStopping)
			end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			return server.Shutdown(end)
		}
	}
}

// check asks the server itself, as a client does. If it does not answer, the watchdog fires.
func check(ctx context.Context, addr net.Addr) error {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hello/", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}
