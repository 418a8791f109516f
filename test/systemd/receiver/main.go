//go:build linux

// Command receiver asks sysfd what ../oracle asks libsystemd, and prints its answers as
// that does: a line of JSON for each, with an errno as a negative number.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

const first = 3

func main() {
	sysfd.ListenShim()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "receiver:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "listen" && args[1] == "open-first":
		f, err := os.Open("/")
		if err != nil {
			return err
		}
		defer f.Close()
		return listen()
	case len(args) == 1 && args[0] == "listen":
		return listen()
	case len(args) == 1 && args[0] == "watchdog":
		d, err := sysfd.WatchdogInterval()
		return report(struct{ N, Usec int64 }{int64(number(d > 0, err)), d.Microseconds()})
	case len(args) == 1 && args[0] == "ids":
		return ids()
	case len(args) == 1 && args[0] == "is":
		return answer(is)
	case len(args) == 1 && args[0] == "notify":
		return answer(notify)
	case len(args) > 3 && args[0] == "send":
		return send(args[1], args[2], args[3:])
	case len(args) > 1 && args[0] == "renew":
		env, err := sysfd.RenewListenEnv(os.Environ())
		if err != nil {
			return err
		}
		return syscall.Exec(args[1], args[1:], env)
	}
	return errors.New("usage: receiver listen|watchdog|ids|is|notify, or receiver send HOW FDS PROGRAM [ARGUMENT]")
}

func report(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// number returns what libsystemd would.
func number(is bool, err error) int {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrClosed):
		return -int(syscall.EBADF)
	case errors.As(err, &errno):
		return -int(errno)
	case err != nil:
		panic(err)
	case is:
		return 1
	}
	return 0
}

func listen() error {
	files, err := sysfd.ListenFDs()
	var r struct {
		N     int
		Names []string
		Left  int
		FDs   string
	}
	if r.N = number(false, err); err == nil {
		r.N = len(files)
	}
	r.Names = []string{}
	for _, f := range files {
		r.Names = append(r.Names, hex.EncodeToString([]byte(f.Name())))
	}
	for _, e := range os.Environ() {
		name, _, ok := strings.Cut(e, "=")
		if ok && slices.Contains([]string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"}, name) {
			r.Left++
		}
	}
	for fd := first; fd < first+64; fd++ {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		switch {
		case errno != 0:
			r.FDs += "-"
		case flags&syscall.FD_CLOEXEC != 0:
			r.FDs += "c"
		default:
			r.FDs += "o"
		}
	}
	return report(r)
}

// ids asks about each of the descriptors in $FDS.
func ids() error {
	type answer struct {
		N  int
		ID sysfd.PidFDID
	}
	var r struct{ IDs []answer }
	for _, fd := range strings.Split(os.Getenv("FDS"), ",") {
		id, err := sysfd.PidFDIDOf(integer(fd))
		r.IDs = append(r.IDs, answer{number(false, err), id})
	}
	return report(r)
}

// answer answers each line of stdin.
func answer(question func(words []string) (bool, error)) error {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if line == "" {
			return nil
		}
		if err != nil {
			return err
		}
		is, err := question(strings.Fields(line))
		if err := report(map[string]int{"N": number(is, err)}); err != nil {
			return err
		}
	}
}

func text(word string) string {
	if word == "-" {
		return ""
	}
	b, err := hex.DecodeString(word)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func integer(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		panic(err)
	}
	return n
}

var borrowed = map[int]*os.File{}

// file returns the file of a descriptor, or a closed one.
func file(fd int) *os.File {
	if fd < 0 {
		f, err := os.Open("/")
		if err != nil {
			panic(err)
		}
		f.Close()
		return f
	}
	if borrowed[fd] == nil {
		borrowed[fd] = os.NewFile(uintptr(fd), strconv.Itoa(fd))
	}
	return borrowed[fd]
}

func is(words []string) (bool, error) {
	f, family, typ, listening := file(integer(words[1])), integer(words[2]), integer(words[3]), integer(words[4])
	port, path := integer(words[5]), text(words[6])
	switch words[0] {
	case "socket":
		return sysfd.IsSocket(f, family, typ, listening)
	case "inet":
		return sysfd.IsSocketInet(f, family, typ, listening, uint16(port))
	case "unix":
		return sysfd.IsSocketUnix(f, typ, listening, path)
	case "fifo":
		return sysfd.IsFIFO(f, path)
	case "special":
		return sysfd.IsSpecial(f, path)
	case "queue":
		return sysfd.IsMessageQueue(f, path)
	}
	panic(words[0])
}

func notify(words []string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if words[0] == "barrier" {
		return sysfd.NotifyBarrier(ctx)
	}
	files := slices.Repeat([]*os.File{file(first)}, integer(words[1]))
	assignments := strings.Split(text(words[2]), "\n")
	_, value, _ := strings.Cut(assignments[len(assignments)-1], "=")
	switch words[0] {
	case "notify":
		return sysfd.NotifyFiles(ctx, files, text(words[2]))
	case "store":
		return sysfd.NotifyStoreFDs(ctx, value, files)
	case "remove":
		return sysfd.NotifyRemoveStoredFDs(ctx, value)
	case "mainprocess":
		id, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			panic(err)
		}
		_, pid, _ := strings.Cut(assignments[0], "=")
		return sysfd.NotifyMainProcess(ctx, sysfd.ProcessRef{PID: integer(pid), ID: sysfd.PidFDID(id)})
	case "mainpidfd":
		p, err := sysfd.OpenPidFD(os.Getpid(), 0)
		if err != nil {
			panic(err)
		}
		defer p.Close()
		return sysfd.NotifyMainPidFD(ctx, p)
	}
	panic(words[0])
}

// senders pass files to a program.
var senders = map[string]func(words []string, files []*os.File) error{
	"exec": func(words []string, files []*os.File) error {
		return sysfd.ExecListenFDs(words[0], words, os.Environ(), files)
	},
	"start": func(words []string, files []*os.File) error {
		std := &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
		p, err := sysfd.StartListenFDs(words[0], words, std, files)
		if err != nil {
			return err
		}
		defer p.Close()
		r, err := p.Wait(context.Background(), 0)
		if err == nil && (!r.Status.Exited() || r.Status.ExitStatus() != 0) {
			err = errors.New(r.String())
		}
		return err
	},
	// Another process, for which what was passed to this one is renewed, as by a wrapper.
	"renew": func(words []string, files []*os.File) error {
		program, err := os.Executable()
		if err != nil {
			return err
		}
		shell := []string{"sh", "-c", `"$0" renew "$@"; exit $?`, program}
		return sysfd.ExecListenFDs("/bin/sh", append(shell, words...), os.Environ(), files)
	},
}

// send makes a listening socket for each of the descriptors in fds, which are separated by
// commas (0 = any), prints their names and inodes and passes them on.
func send(how, fds string, words []string) error {
	var r struct {
		Names  []string
		Inodes []uint64
	}
	var files []*os.File
	for i, word := range strings.Split(fds, ",") {
		l, err := net.Listen("unix", "@"+rand()+strconv.Itoa(i))
		if err != nil {
			return err
		}
		f, err := l.(*net.UnixListener).File()
		if err != nil {
			return err
		}
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			return err
		}
		syscall.CloseOnExec(fd)
		if want := integer(word); want != 0 {
			if err := syscall.Dup3(fd, want, syscall.O_CLOEXEC); err != nil {
				return err
			}
			fd = want
		}
		var st syscall.Stat_t
		if err := syscall.Fstat(fd, &st); err != nil {
			return err
		}
		// Such as systemd gives, and such as it does not.
		name := []string{"socket ", "web:", `back\slash\`, "größe\n", ""}[i%5] + strconv.Itoa(i)
		r.Names, r.Inodes = append(r.Names, hex.EncodeToString([]byte(name))), append(r.Inodes, st.Ino)
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	if err := report(r); err != nil {
		return err
	}
	return senders[how](words, files)
}

func rand() string { return fmt.Sprintf("sysfd-%d-%d-", os.Getpid(), time.Now().UnixNano()) }
