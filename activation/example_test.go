//go:build !plan9

package activation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/activation"
)

// A web server, started by a .socket unit with FileDescriptorName=http or by hand. It builds on
// every system.
func ExampleListenOr() {
	ctx := context.Background()
	l, err := activation.ListenOr(ctx, "http", "tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	sysfd.Notify(ctx, sysfd.NotifyReady)
	log.Fatal(http.Serve(l, nil))
}

// A web server on each passed socket.
func ExampleListeners() {
	listeners, err := activation.Listeners()
	if err != nil {
		log.Fatal(err)
	}
	if len(listeners) == 0 {
		log.Fatal(sysfd.InspectListenEnv().Explain())
	}
	failed := make(chan error)
	for _, l := range listeners {
		go func() { failed <- http.Serve(l, nil) }()
	}
	log.Fatal(<-failed)
}

// TLS on the sockets with one name.
func ExampleListeners_tls() {
	listeners, err := activation.Listeners("https")
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range listeners {
		go http.ServeTLS(l, nil, "cert.pem", "key.pem") // or tls.NewListener(l, config)
	}
}

// A socket that no part of the program has taken is logged and closed.
func ExampleUnclaimed() {
	files, err := activation.Unclaimed()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		log.Printf("no use for the passed socket %q", f.Name())
		f.Close()
	}
}

// A test passes sockets to the function under test, in one process.
func ExampleFrom() {
	// The program.
	serve := func(sockets *activation.Sockets) (*http.Server, error) {
		l, err := sockets.ListenOr(context.Background(), "http", "tcp", "127.0.0.1:8080")
		if err != nil {
			return nil, err
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") })}
		go s.Serve(l)
		return s, nil
	}

	// The test.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := sysfd.DupFile(l.(syscall.Conn), "http")
	if err != nil {
		fmt.Println(err)
		return
	}
	l.Close()
	s, err := serve(activation.From(f))
	if errors.Is(err, errors.ErrUnsupported) {
		fmt.Println("hello") // not on Linux
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	r, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Body.Close()
	io.Copy(os.Stdout, r.Body)
	// Output: hello
}
