//go:build linux

package sysfd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sysfd/sysfd"
)

// A PID file contains a PID, which may be that of another process by the time somebody reads it.
// This one contains a ProcessRef: whoever reads it signals the daemon, or nothing.
func Example_pidFile() {
	dir, err := os.MkdirTemp("", "pidfile")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "daemon.pid")

	daemon, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exec sleep 1000"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer daemon.Close()
	if err := writePIDFile(path, daemon); err != nil {
		log.Fatal(err)
	}

	// Another program, some time later.
	fmt.Println(signalByPIDFile(path, syscall.SIGTERM))

	// The daemon ends and is reaped. From now on its PID can belong to another process.
	if _, err := daemon.Wait(context.Background(), 0); err != nil {
		log.Fatal(err)
	}
	err = signalByPIDFile(path, syscall.SIGTERM)
	fmt.Println(errors.Is(err, os.ErrProcessDone))
	// Output:
	// <nil>
	// true
}

// writePIDFile stores the name of a process. A daemon that writes its own calls
// sysfd.SelfRefOrSecondBest. Without OrSecondBest both need Linux 6.9.
func writePIDFile(path string, p *sysfd.PidFD) error {
	ref, err := p.RefOrSecondBest()
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(ref.String()+"\n"), 0o644)
}

// signalByPIDFile returns an error that matches os.ErrProcessDone if the daemon has ended, whoever
// has its PID now.
func signalByPIDFile(path string, sig syscall.Signal) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	ref, err := sysfd.ParseProcessRef(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	p, err := ref.OpenOrSecondBest()
	if err != nil {
		return err
	}
	defer p.Close()
	return p.SendSignal(sig)
}
