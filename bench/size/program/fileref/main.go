//go:build linux

// Command fileref makes a name of a file that outlives a reboot, and opens it.
package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

func run(path string) error {
	r, err := sysfd.FileRefAt(sysfd.AT_FDCWD, path, 0)
	if err != nil {
		return err
	}
	if r, err = sysfd.ParseFileRef(r.String()); err != nil {
		return err
	}
	f, err := r.Open(os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func main() {
	if err := run(os.Getenv("FILE")); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
