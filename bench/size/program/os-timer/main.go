//go:build linux

// Command os-timer waits for a timer.
package main

import (
	"os"
	"time"
)

func main() {
	if _, err := os.Stdout.WriteString(os.Args[0] + "\n"); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	timer := time.NewTimer(time.Second)
	<-timer.C
	timer.Stop()
}
