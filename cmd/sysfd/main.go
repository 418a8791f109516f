//go:build linux

// Sysfd shows and uses what package sysfd is about: names of files, processes
// and the addressee of passed sockets that do not come to mean something else.
// Sysfd -h lists its commands.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/sysfd/sysfd"
)

// A command is a verb of sysfd. Its run function declares its flags, calls parse
// and prints to out.
type command struct {
	name     string
	synopsis string
	help     string
	run      func(c *call) error
}

// A call is one call of a command.
type call struct {
	*flag.FlagSet
	args []string
	out  io.Writer
	err  io.Writer

	ignored ignoredSignals // of what the call executes
}

// say tells the user something, in one line.
func (c *call) say(format string, args ...any) {
	fmt.Fprintf(c.err, "sysfd %s: %s\n", c.Name(), harmless(fmt.Sprintf(format, args...)))
}

// parse parses the flags.
func (c *call) parse() error {
	err := c.Parse(c.args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return usageError(err.Error())
	}
	return err
}

// noArguments is parse for commands that take flags alone.
func (c *call) noArguments() error {
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() > 0 {
		return usageError(fmt.Sprintf("%q is one argument too many", c.Arg(0)))
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

// A usageError tells what is wrong with the words of a call.
type usageError string

func (e usageError) Error() string { return string(e) }

// errSaid ends a command with status 1 where all has been said.
var errSaid = errors.New("")

func commands() []command {
	return []command{
		{"probe", "[-json]", "Try on this machine what the library does, and print what works.", probe},
		{"handle", "[-follow] [-fid] [-connectable] [-unique] [-ref] [-json] PATH...",
			"Print the handle of files, a name that stays theirs when they are moved, the ID of the mount, and the path.", handle},
		{"open", "[-mount PATH] [-search DIR] [--ignore-signal SIGNALS] HANDLE|REF [-- PROGRAM [ARGUMENT]...]",
			"Print the path that the file with this handle (or with what handle -ref printed) has now, or become PROGRAM with the file as its descriptor 3; {} in an ARGUMENT is replaced by /dev/fd/3. This requires root. The kernel learns the path of a file when somebody looks it up by name: after a mount it knows none but those of directories, and -search finds it. On tmpfs names are good until the unmount; overlayfs, as the root of a container, has handles with the mount option nfs_export=on alone, and no REF.", open},
		{"cgroup", "[-mount PATH] ID|PATH", "Print the ID of the cgroup with this path, or the path of the one with this ID, which takes root. IDs are those of cgroup2; with a PATH on cgroup v1 the hierarchy is printed too, in which the ID means something, and to find that one again takes -mount. A PATH of digits is written ./123.", cgroup},
		{"id", "[-ref] PID|REF|self ...", "Print the pidfd ID of processes: a number that, unlike the PID, is not used again.", id},
		{"info", "[-json] PID|REF|self ...", "Print what the kernel knows about processes at the moment; users, groups and cgroups of a process can change. A REF is what id -ref prints, or PID:ID, the first part of that. It never stands for another process with the same PID, unless it is the second best.", info},
		{"wait", "[-timeout TIME] [-any] [-exited|-reaped] PID|REF ...",
			"Wait until processes have ended, which need not be children, and print how. The kernel tells that when the parent has reaped the process; if the parent does not do so at once, only the end is printed.", wait},
		{"kill", "[-s SIGNAL] PID|REF ... | -cgroup [-mount PATH] ID|PATH",
			"Send a signal to processes. With a REF it is sent to that process or to none (unless it is the second best; see id -h). With -cgroup, kill all processes of a cgroup and of those below it, those that they start meanwhile included.", kill},
		{"ns", "[-json] [-kind KIND]... [PID|REF|self]",
			"Print all namespaces of this machine, or those of one process. Containers are made of namespaces: each kind decides what the processes in it have for themselves, such as mounts, network devices, process numbers or users. INODE is the number in /proc/PID/ns and in the output of lsns, which can come to mean another namespace. ID is a number that is not used again until the next boot; it needs Linux 6.18, for mount namespaces 6.11. PROCESSES counts those in the namespace, with one thread at least. PID and COMMAND are of the one with the lowest PID. A namespace with none is kept by a mount, whose path is printed then, by an open file, or by a namespace that was made from it. To find one that only an open file keeps, or a mount elsewhere, needs Linux 6.19 and root. Processes of other users are looked at by root alone.", ns},
		{"listen", "[-json]", "Print what this process was given by socket activation.", listen},
		{"activate", "[-l [KIND:]ADDRESS]... [-d|--seqpacket] [--fdname NAMES] [--now|--accept] [--max-connections NUMBER] [--inetd] [-q] [--ignore-signal SIGNALS] [-E NAME=VALUE]... -- PROGRAM [ARGUMENT]...",
			"Listen, wait for traffic, and become PROGRAM with the sockets as its descriptors from 3 up. Sockets that were passed to this command come first, and keep their names. If the path of a Unix socket is that of a socket which no process has any more, that file is replaced; a live server is left alone and does not notice. With --accept this command stays, and starts PROGRAM for each connection; when a signal ends it, programs that are running go on. Its own socket files are removed if it fails or is ended by a signal.", activate},
		{"exec", "[--ignore-signal SIGNALS] -- PROGRAM [ARGUMENT]...",
			"Become PROGRAM, and address to it the sockets that were passed to the process that started this one: a shell script, say, or the init of a container. It sets LISTEN_PID and LISTEN_PIDFDID anew.", execute},
	}
}

const conventions = `The exit status is 0, 1 after a failure, 2 after bad usage. Where a PROGRAM is executed it is that of
PROGRAM, 127 if there is none of that name, and 126 if it cannot be executed.

Names, paths and addresses can contain anything. One that has something unprintable in it, such as a
control character, a change of the writing direction or a byte that is not UTF-8, is printed in the form
$'…' of shells, and so is one that itself begins with $'. The columns of sysfd listen and the messages of
sysfd activate have that form for spaces, and for nothing at all, too. In JSON the form stands for
what is not UTF-8 and for what begins with $'; all else is as it is, or a \u escape.`

func main() {
	sysfd.ListenShim() // for activate --accept
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0, 1 after a failure, 2 after bad usage, 126 or 127 if a program cannot be executed.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(stderr, "sysfd: a command is missing; sysfd -h lists them")
		return 2
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		fmt.Fprintln(stdout, "usage: sysfd COMMAND ...")
		for _, c := range commands() {
			fmt.Fprintf(stdout, "\n  sysfd %s %s\n    \t%s\n", c.name, c.synopsis, c.help)
		}
		fmt.Fprintf(stdout, "\n%s\n\nsysfd COMMAND -h explains the flags of one.\n", conventions)
		return 0
	}
	for _, cmd := range commands() {
		if cmd.name != args[0] {
			continue
		}
		c := &call{FlagSet: flag.NewFlagSet(cmd.name, flag.ContinueOnError), args: args[1:], err: stderr}
		c.SetOutput(io.Discard)
		buffered := bufio.NewWriter(stdout)
		c.out = buffered
		err := cmd.run(c)
		if failed := buffered.Flush(); failed != nil {
			err = failed
		}
		var usage usageError
		var status exitStatus
		var program programError
		switch {
		case err == nil:
			return 0
		case errors.Is(err, flag.ErrHelp):
			fmt.Fprintf(stdout, "usage: sysfd %s %s\n\n%s\n", cmd.name, cmd.synopsis, cmd.help)
			c.SetOutput(stdout)
			c.PrintDefaults()
			return 0
		case errors.As(err, &status):
			return int(status)
		case errors.As(err, &usage):
			c.say("%v", err)
			return 2
		case errors.As(err, &program):
			c.say("%v", err)
			return program.status()
		case err != errSaid:
			c.say("%v", err)
		}
		return 1
	}
	fmt.Fprintf(stderr, "sysfd: there is no command %q; sysfd -h lists them\n", args[0])
	return 2
}
