//go:build linux

// Command os-start starts a program with package os alone.
package main

import "os"

func main() {
	p, err := os.StartProcess(os.Getenv("FILE"), os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin}})
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	p.Release()
}
