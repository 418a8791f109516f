//go:build linux

// Sysfd uses package sysfd from a shell. It prints names of files and processes that are never reused for anything
// else, finds the files and processes by these names, and passes sockets to programs. Sysfd -h lists its commands.
package main

//go:generate sh -c "go run . help -man >sysfd.1 && go run . help -bash >sysfd.bash"

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sysfd/sysfd"
)

// A call is one call of a command.
type call struct {
	*flag.FlagSet
	args []string
	out  io.Writer
	err  io.Writer

	color   bool           // stdout is a terminal that shows it
	ignored ignoredSignals // of what the call executes
}

func newCall(name string, args []string, out, err io.Writer) *call {
	c := &call{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), args: args, out: out, err: err}
	c.SetOutput(io.Discard)
	return c
}

// say prints a message for the user, in one line.
func (c *call) say(format string, args ...any) {
	fmt.Fprintf(c.err, "sysfd %s: %s\n", c.Name(), harmless(fmt.Sprintf(format, args...)))
}

// parse parses the flags.
func (c *call) parse() error {
	err := c.Parse(c.args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: "); ok {
		text = fmt.Sprintf("unknown flag %s; sysfd %s -h lists the flags", name, c.Name())
	}
	return usageError(text)
}

// noArguments is parse for commands that have flags alone.
func (c *call) noArguments() error {
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() > 0 {
		return unexpected(c.Arg(0))
	}
	return nil
}

// printJSON prints v for people and programs.
func (c *call) printJSON(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := c.out.Write(printableJSON(b.Bytes()))
	return err
}

// A usageError says what is wrong with the words of a call.
type usageError string

func (e usageError) Error() string { return string(e) }

func unexpected(arg string) error { return usageError(fmt.Sprintf("unexpected argument %q", arg)) }

// A saidError was printed already. What remains of it is the exit status.
type saidError struct{ error }

func (e saidError) Unwrap() error { return e.error }

// andSaid adds an error that was printed to those before. Together they are unsupported if each of them is.
func andSaid(before, err error) error {
	if before != nil && !errors.Is(before, errors.ErrUnsupported) {
		return before
	}
	return saidError{err}
}

// An exitStatus ends a command without a message.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	sysfd.ListenShim() // for activate -accept
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(stderr, "sysfd: a command is missing; sysfd -h lists the commands")
		return statusUsage
	}
	name, args := args[0], args[1:]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-version", "--version":
		name = "version"
	}
	cmd := commandNamed(name)
	if cmd == nil {
		fmt.Fprintf(stderr, "sysfd: unknown command %q; sysfd -h lists the commands\n", name)
		return statusUsage
	}
	buffered := bufio.NewWriter(stdout)
	c := newCall(cmd.name, args, buffered, stderr)
	c.color = colored(stdout)
	err := cmd.run(c)
	if errors.Is(err, flag.ErrHelp) {
		cmd.explain(buffered)
		err = nil
	}
	if failed := buffered.Flush(); failed != nil {
		err = failed
	}
	return c.end(err)
}

// end says what failed, and returns the exit status for that.
func (c *call) end(err error) int {
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	if said := (saidError{}); err != nil && !errors.As(err, &said) {
		c.say("%v", err)
	}
	var usage usageError
	var program programError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return statusUsage
	case errors.As(err, &program):
		return program.status()
	case errors.Is(err, errors.ErrUnsupported):
		return statusUnsupported
	}
	return statusFailure
}

// commandNamed returns nil if there is no such command.
func commandNamed(name string) *command {
	for _, cmd := range commands() {
		if cmd.name == name {
			return &cmd
		}
	}
	return nil
}
