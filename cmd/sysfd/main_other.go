//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "sysfd: this command is about the Linux kernel and runs there only")
	os.Exit(1)
}
