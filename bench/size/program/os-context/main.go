//go:build linux

// Command os-context passes a context on, and no more.
package main

import (
	"context"
	"os"
)

//go:noinline
func work(ctx context.Context) error {
	_, err := os.Stdout.WriteString(os.Args[0] + "\n")
	if err == nil {
		err = ctx.Err()
	}
	return err
}

func main() {
	if err := work(context.Background()); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
