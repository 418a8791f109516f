//go:build linux

// Command handle makes a file handle, and opens the file again.
package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

func run(dir *os.File, path string) error {
	h, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, path, 0)
	if err != nil {
		return err
	}
	os.Stdout.WriteString(h.String() + "\n")
	f, err := sysfd.OpenByHandleAt(int(dir.Fd()), h, os.O_RDONLY)
	if err != nil {
		return err
	}
	return f.Close()
}

func main() {
	dir, err := os.Open(os.Getenv("FILE"))
	if err == nil {
		err = run(dir, os.Getenv("FILE"))
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
