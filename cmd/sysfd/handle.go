//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/sysfd/sysfd"
)

type handleInfo struct {
	Path    string           `json:"path"`
	Handle  sysfd.FileHandle `json:"handle"`
	Type    int32            `json:"type"`
	MountID sysfd.MountID    `json:"mountId"`
}

func handle(c *call) error {
	flags := 0
	flag := func(name string, bit int, help string) {
		c.BoolFunc(name, help, func(string) error { flags |= bit; return nil })
	}
	flag("follow", sysfd.AT_SYMLINK_FOLLOW, "follow a symbolic link at the end of PATH")
	flag("fid", sysfd.AT_HANDLE_FID, "a handle to compare, not to open: nearly every file system has one")
	flag("connectable", sysfd.AT_HANDLE_CONNECTABLE, "a handle that leads to a path")
	flag("unique", sysfd.AT_HANDLE_MNT_ID_UNIQUE, "a mount ID that is not used again until the next boot")
	asJSON := c.Bool("json", false, "print a list of JSON objects")
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return usageError("a PATH is missing")
	}
	list := []handleInfo{}
	var failed error
	for _, path := range c.Args() {
		h, mount, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, path, flags)
		if err != nil {
			fmt.Fprintf(c.err, "sysfd handle: %v\n", err)
			failed = errSaid
			continue
		}
		if !*asJSON {
			fmt.Fprintf(c.out, "%v\t%d\t%s\n", h, mount, path)
			continue
		}
		list = append(list, handleInfo{Path: path, Handle: h, Type: h.Type(), MountID: mount})
	}
	if *asJSON {
		if err := c.printJSON(list); err != nil {
			return err
		}
	}
	return failed
}

// An exitStatus is that of a program that was run.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func open(c *call) error {
	mountPath := c.String("mount", ".", "a `PATH` on the file system of the handle")
	if err := c.parse(); err != nil {
		return err
	}
	args := c.Args()
	if len(args) == 0 {
		return usageError("a HANDLE is missing")
	}
	h, err := sysfd.ParseFileHandle(args[0])
	if err != nil {
		return usageError(err.Error())
	}
	openHandle := func(flags int) (*os.File, error) {
		mount, err := os.OpenFile(*mountPath, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		if err != nil {
			return nil, err
		}
		defer mount.Close()
		return sysfd.OpenByHandleAt(int(mount.Fd()), h, flags)
	}
	if args = args[1:]; len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		const O_PATH = 0x200000 // its path is all that is asked for
		f, err := openHandle(O_PATH)
		if err != nil {
			return err
		}
		defer f.Close()
		return c.printPath(f)
	}
	f, err := openHandle(os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	for i, arg := range args[1:] {
		args[1+i] = strings.ReplaceAll(arg, "{}", "/dev/fd/3")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{f}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
			return exitStatus(128 + int(status.Signal())) // as a shell has it
		}
		return exitStatus(exit.ExitCode())
	}
	return err
}

func cgroup(c *call) error {
	mountPath := c.String("mount", "", "the `PATH` where cgroup2 is mounted; normally it is found")
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() != 1 {
		return usageError("one ID or PATH is needed")
	}
	id, err := strconv.ParseUint(c.Arg(0), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return usageError(c.Arg(0) + " is no ID: these have 64 bits")
	}
	if err != nil {
		id, err := sysfd.CgroupIDAt(sysfd.AT_FDCWD, c.Arg(0))
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, id)
		return nil
	}
	if *mountPath == "" {
		if *mountPath, err = cgroup2Mount(); err != nil {
			return err
		}
	}
	root, err := os.Open(*mountPath)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := sysfd.OpenCgroup(int(root.Fd()), id)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.printPath(f)
}

// printPath prints where a file is now.
func (c *call) printPath(f *os.File) error {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return err
	}
	// Until someone has looked the file up by name, the kernel may know no name of
	// a file that was opened by handle, and then says "/".
	is, err := f.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Lstat(path); err != nil || !os.SameFile(is, there) {
		return errors.New("the file is there, but the kernel does not know its path: it gives " + strconv.Quote(path))
	}
	fmt.Fprintln(c.out, path)
	return nil
}

// cgroup2Mount returns one of the places where cgroup2 is by custom.
func cgroup2Mount() (string, error) {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(path, &fs); err == nil && fs.Type == sysfd.CGROUP2_SUPER_MAGIC {
			return path, nil
		}
	}
	return "", errors.New("cgroup2 is not mounted at /sys/fs/cgroup: tell where with -mount PATH")
}
