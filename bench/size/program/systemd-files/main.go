//go:build linux

// Command systemd-files does what listenfds does, with github.com/coreos/go-systemd.
package main

import (
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

func main() {
	for _, f := range activation.Files(true) {
		os.Stdout.WriteString(f.Name() + "\n")
	}
}
