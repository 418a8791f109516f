//go:build linux

// Command activation calls each function of a program that receives its sockets, but for those that
// pass them on.
package main

import (
	"os"
	"strconv"

	"github.com/sysfd/sysfd"
)

func receive() error {
	os.Stdout.WriteString(sysfd.InspectListenEnv().Explain() + "\n")
	os.Stdout.WriteString(sysfd.ParseListenEnv(os.Environ(), os.Getpid(), 0, 0).Explain() + "\n")
	if _, err := sysfd.TakeListenFDs("control"); err != nil {
		return err
	}
	all := func(left []*os.File) ([]*os.File, error) { return left, nil }
	if _, err := sysfd.TakeListenFDsFunc(all); err != nil {
		return err
	}
	files, err := sysfd.ListenFDs()
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := look(f); err != nil {
			return err
		}
		again, err := sysfd.DupFile(f, f.Name())
		if err != nil {
			return err
		}
		again.Close()
	}
	return nil
}

func look(f *os.File) error {
	for _, is := range []func() (bool, error){
		func() (bool, error) { return sysfd.IsSocket(f, 0, 0, -1) },
		func() (bool, error) { return sysfd.IsSocketInet(f, 0, 0, -1, 80) },
		func() (bool, error) { return sysfd.IsSocketUnix(f, 0, -1, "/run/x") },
		func() (bool, error) { return sysfd.IsFIFO(f, "/run/x") },
		func() (bool, error) { return sysfd.IsSpecial(f, "/run/x") },
		func() (bool, error) { return sysfd.IsMessageQueue(f, "/x") },
	} {
		is, err := is()
		if err != nil {
			return err
		}
		os.Stdout.WriteString(f.Name() + strconv.FormatBool(is) + "\n")
	}
	return nil
}

func main() {
	if err := receive(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
