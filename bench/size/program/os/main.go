//go:build linux

// Command os is what each of the programs beside it begins with.
package main

import "os"

func main() {
	if _, err := os.Stdout.WriteString(os.Args[0] + "\n"); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
