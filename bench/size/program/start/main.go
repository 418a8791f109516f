//go:build linux

// Command start passes files to a program that it starts.
package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

func main() {
	p, err := sysfd.StartListenFDs(os.Getenv("FILE"), os.Args, nil, []*os.File{os.Stdin})
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	p.Close()
}
