//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "sysfd: this command needs Linux")
	os.Exit(3) // not supported here
}
