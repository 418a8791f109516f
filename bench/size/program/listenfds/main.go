//go:build linux

// Command listenfds receives what was passed by socket activation.
package main

import (
	"os"

	"github.com/sysfd/sysfd"
)

func main() {
	files, err := sysfd.ListenFDs()
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	for _, f := range files {
		os.Stdout.WriteString(f.Name() + "\n")
	}
}
