//go:build linux

// Command processref makes a name of a process, and opens that.
package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

func run() error {
	r, err := sysfd.SelfRef()
	if err != nil {
		return err
	}
	if r, err = sysfd.ParseProcessRef(r.String()); err != nil {
		return err
	}
	p, err := r.Open()
	if err != nil {
		return err
	}
	return p.Close()
}

func main() {
	if err := run(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
