//go:build linux

// Command guest is the first process of a virtual machine. It sets up what a program
// expects to find, runs the one that the host asks for, and prints how that ended.
package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sysfd/sysfd/test/vm/job"
)

// tools are the programs that tests look for. They have just what the tests need.
var tools = map[string]func(args []string) error{
	"sleep": func(args []string) error {
		if len(args) != 1 {
			return errors.New("one argument is needed")
		}
		d, err := time.ParseDuration(args[0] + "s")
		time.Sleep(d)
		return err
	},
	"mount": func(args []string) error { // -t TYPE -o OPTIONS SOURCE TARGET
		if len(args) != 6 || args[0] != "-t" || args[2] != "-o" {
			return errors.ErrUnsupported
		}
		return syscall.Mount(args[4], args[5], args[1], 0, strings.TrimPrefix(args[3], "rw"))
	},
}

func main() {
	if tool := tools[filepath.Base(os.Args[0])]; tool != nil {
		if err := tool(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%q: %v\n", os.Args, err)
			os.Exit(1)
		}
		return
	}
	var j job.Job
	text, err := os.ReadFile(job.File)
	err = errors.Join(err, json.Unmarshal(text, &j))
	if err == nil {
		err = setUp()
	}
	status := 0
	if err == nil {
		fmt.Println(j.Mark, release())
		status, err = run(j)
	}
	if err != nil {
		fmt.Println("init:", err)
		status = cmp.Or(status, 125)
	}
	fmt.Println(j.Mark, status)
	time.Sleep(time.Second) // the serial line has a buffer
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
}

// run returns the exit status of the program, as a shell would. Meanwhile it reaps what
// other processes leave behind, for the first process is the one who has to.
func run(j job.Job) (int, error) {
	stdin := os.Stdin
	if !j.Interactive {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return 0, err
		}
		stdin = null
	}
	// A pipe, as under go test: the console is a terminal.
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(os.Stdout, r)
		copied <- err
	}()
	attr := syscall.ProcAttr{Dir: j.Dir, Env: j.Env, Files: []uintptr{stdin.Fd(), w.Fd(), w.Fd()}, Sys: &syscall.SysProcAttr{}}
	if j.UID != 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(j.UID), Gid: uint32(j.UID)}
	}
	program, err := syscall.ForkExec(j.Args[0], j.Args, &attr)
	if err != nil {
		return 126, fmt.Errorf("%s: %w", j.Args[0], err)
	}
	w.Close()
	var status syscall.WaitStatus
	for pid := 0; pid != program; {
		if pid, err = syscall.Wait4(-1, &status, 0, nil); err != nil && err != syscall.EINTR {
			return 0, fmt.Errorf("wait4: %w", err)
		}
	}
	select {
	case err = <-copied:
	case <-time.After(10 * time.Second):
		err = errors.New("a process that the program left behind holds its output open")
	}
	if status.Signaled() {
		return 128 + int(status.Signal()), err
	}
	return status.ExitStatus(), err
}

// release is what uname -r prints.
func release() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(text))
}

func setUp() error {
	for _, m := range []struct{ fs, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"devpts", "/dev/pts"},
		{"tmpfs", "/dev/shm"},
		{"tmpfs", "/tmp"},
		{"tmpfs", "/run"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.fs, m.dir, m.fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	if err := syscall.Sethostname([]byte("guest")); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	return loopbackUp()
}

// loopbackUp sends what "ip link set lo up" does.
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer syscall.Close(fd)
	message, err := binary.Append(nil, binary.NativeEndian, struct {
		syscall.NlMsghdr
		syscall.IfInfomsg
	}{
		syscall.NlMsghdr{Len: syscall.SizeofNlMsghdr + syscall.SizeofIfInfomsg, Type: syscall.RTM_NEWLINK, Flags: syscall.NLM_F_REQUEST},
		syscall.IfInfomsg{Index: 1, Flags: syscall.IFF_UP, Change: syscall.IFF_UP},
	})
	if err != nil {
		return err
	}
	if err := syscall.Sendto(fd, message, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	return nil
}
