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
	"runtime"
	"slices"
	"strings"
	"sync"
)

type config struct {
	clang   string
	headers string // what is in linux-libc-dev's usr/include
	libc    string // what is in usr of the libc6-dev-*-cross packages
	root    string // the root package, an absolute path
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
	var err error
	if c.root, err = filepath.Abs(c.root); err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// A result is what became of one architecture.
type result struct {
	text     []byte // of its file
	version  string // of the kernel's headers
	uses     *uses  // nil if it did not come to that
	problems []error
}

func (c config) run() error {
	if err := c.strays(); err != nil {
		return err
	}
	results := make([]result, len(arches))
	var running sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, a := range arches {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = c.do(a)
		})
	}
	running.Wait()

	var problems []error
	var all []*uses
	for _, r := range results {
		problems = append(problems, r.problems...)
		all = append(all, r.uses)
	}
	if !slices.Contains(all, nil) {
		for _, s := range stale(all) {
			problems = append(problems, errors.New(s))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if c.check {
		fmt.Printf("gen: %d files are what Linux %s headers give\n", len(results), results[0].version)
		return nil
	}
	for i, r := range results {
		if err := os.WriteFile(c.file(arches[i]), r.text, 0o666); err != nil {
			return err
		}
	}
	fmt.Printf("gen: %d files written from Linux %s headers\n", len(results), results[0].version)
	return nil
}

// do generates and proves the file for one architecture, and writes nothing.
func (c config) do(a arch) (r result) {
	fail := func(err error) result {
		r.problems = append(r.problems, fmt.Errorf("%s: %w", a.GOARCH, err))
		return r
	}
	text, v, err := c.generate(a)
	if err != nil {
		return fail(err)
	}
	r.text, r.version = text, v.version()
	overlay := map[string][]byte{c.file(a): text}
	if c.check {
		overlay = nil // what is proved is the file that is there
		old, err := os.ReadFile(c.file(a))
		if err != nil {
			return fail(err)
		}
		if !c.same(old, text) {
			fail(fmt.Errorf("%s is stale: run mkall.sh", filepath.Base(c.file(a))))
		}
	}
	differences, uses, err := prove(c.root, a.GOARCH, overlay, v)
	if err != nil {
		return fail(err)
	}
	r.uses = uses
	for _, d := range differences {
		fail(errors.New(d))
	}
	return r
}

// file is where the Go text for an architecture belongs.
func (c config) file(a arch) string {
	return filepath.Join(c.root, "zsys_linux_"+a.GOARCH+".go")
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
		if d := compareLibc(v, libc); d != nil {
			return nil, nil, errors.New(strings.Join(d, "; "))
		}
	}
	text, err := emit(a.GOARCH, v)
	return text, v, err
}

// same tells whether old need not be written again.
func (c config) same(old, text []byte) bool {
	if !c.moved {
		return bytes.Equal(old, text)
	}
	first, old, _ := bytes.Cut(old, []byte("\n"))
	_, text, _ = bytes.Cut(text, []byte("\n"))
	return generated(first) && bytes.Equal(old, text)
}

// strays complains of generated files for an architecture that is not in the table.
func (c config) strays() error {
	files, err := filepath.Glob(c.file(arch{GOARCH: "*"}))
	if err != nil {
		return fmt.Errorf("%s: %w", c.root, err)
	}
	var problems []error
	for _, name := range files {
		known := slices.ContainsFunc(arches, func(a arch) bool { return c.file(a) == name })
		if text, err := os.ReadFile(name); err == nil && !known && generated(text) {
			problems = append(problems, fmt.Errorf("%s is for no architecture in gen/abi.go: remove it", filepath.Base(name)))
		}
	}
	return errors.Join(problems...)
}
