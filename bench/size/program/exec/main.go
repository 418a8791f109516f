//go:build linux

// Command exec passes on what it was passed, to the program that it becomes.
package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

func main() {
	files, err := sysfd.ListenFDs()
	if err == nil {
		err = sysfd.ExecListenFDs(os.Getenv("FILE"), os.Args, os.Environ(), files)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
