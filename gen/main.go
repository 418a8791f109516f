// Gen writes zsys_linux_$GOARCH.go: the numbers and structs of the Linux
// system call interface that sysfd needs, for each Linux port of Go. It asks a
// C compiler and the kernel's headers for one architecture at a time, and
// proves what it wrote against them. Mkall.sh in the root of the repository
// fetches the headers and runs it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

type config struct {
	clang   string
	headers string // what is in linux-libc-dev's usr/include
	libc    string // what is in usr of the libc6-dev-*-cross packages
	root    string // the root package
	check   bool   // write nothing, fail where a file is stale
	moved   bool   // with check: the headers may be of another version than the files
}

func main() {
	var c config
	flag.StringVar(&c.clang, "clang", "clang", "the C `compiler`")
	flag.StringVar(&c.headers, "headers", "", "the `folder` usr/include of package linux-libc-dev")
	flag.StringVar(&c.libc, "libc", "", "the `folder` usr of the packages libc6-dev-*-cross")
	flag.StringVar(&c.root, "root", "..", "the `folder` of package sysfd")
	flag.BoolVar(&c.check, "check", false, "change nothing, fail if a file is not what would be written")
	flag.BoolVar(&c.moved, "moved", false, "with -check: allow headers of another kernel version, if nothing but the version line differs")
	flag.Parse()
	if flag.NArg() > 0 || c.headers == "" || c.libc == "" {
		fmt.Fprintln(os.Stderr, "gen: -headers and -libc are needed, and no arguments")
		os.Exit(2)
	}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func (c config) run() error {
	var problems []error
	files := map[string][]byte{}
	version := ""
	for _, a := range arches {
		text, v, err := c.generate(a)
		if err != nil {
			return err
		}
		version = v.version()
		name, err := filepath.Abs(filepath.Join(c.root, "zsys_linux_"+a.GOARCH+".go"))
		if err != nil {
			return err
		}
		files[name] = text
		if c.check {
			if old, err := os.ReadFile(name); err != nil || !c.same(old, text) {
				problems = append(problems, fmt.Errorf("%s is stale: run mkall.sh", filepath.Base(name)))
			}
		}
		differences, err := prove(c.root, a.GOARCH, map[string][]byte{name: text}, v)
		if err != nil {
			return err
		}
		for _, d := range differences {
			problems = append(problems, errors.New(d))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if c.check {
		fmt.Printf("gen: %d files are what Linux %s headers give\n", len(files), version)
		return nil
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o666); err != nil {
			return err
		}
	}
	fmt.Printf("gen: %d files written from Linux %s headers\n", len(files), version)
	return nil
}

// generate asks C about one architecture and returns the file for it.
func (c config) generate(a arch) ([]byte, values, error) {
	kernel := []string{filepath.Join(c.headers, a.Headers), c.headers}
	v, err := kernelProbe().run(c.clang, a.Target, kernel...)
	if err != nil {
		return nil, nil, err
	}
	if a.Libc != "" {
		dirs := append([]string{filepath.Join(c.libc, a.Libc, "include")}, kernel...)
		libc, err := libcProbe().run(c.clang, a.Target, dirs...)
		if err != nil {
			return nil, nil, err
		}
		if d := compareLibc(a.GOARCH, v, libc); d != nil {
			return nil, nil, fmt.Errorf("%s", d)
		}
	}
	text, err := emit(a.GOARCH, v)
	return text, v, err
}

// same tells whether old need not be written again.
func (c config) same(old, text []byte) bool {
	if c.moved {
		_, old, _ = bytes.Cut(old, []byte("\n"))
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return bytes.Equal(old, text)
}
