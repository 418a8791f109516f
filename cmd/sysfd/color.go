//go:build linux

package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// colored reports whether w is a terminal that shows colors to a user who wants them; see no-color.org.
func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	terminal := false
	control(f, func(fd int) error {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		terminal = err == nil
		return nil
	})
	return terminal
}

// The colors are those of the terminal's palette, so that they can be read on any background.
const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	plain  = "\x1b[m"
)
