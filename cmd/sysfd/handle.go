//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

type handleInfo struct {
	Path    text             `json:"path" help:"as it was given"`
	Handle  sysfd.FileHandle `json:"handle" help:"the handle, as sysfd open reads it"`
	Type    int32            `json:"type" help:"the type of the handle, which the file system chose"`
	MountID sysfd.MountID    `json:"mountId" help:"the ID of the mount; without -unique it can be used again after an unmount"`
	Ref     *sysfd.FileRef   `json:"ref,omitempty" help:"what -ref prints; missing if the file system has no persistent identity, or if the flags ask for a handle of another kind"`
}

func handle(c *call) error {
	flags := 0
	flag := func(name string, bit int, help string) {
		c.BoolFunc(name, help, func(string) error { flags |= bit; return nil })
	}
	flag("follow", sysfd.AT_SYMLINK_FOLLOW, "follow a symbolic link at the end of PATH")
	flag("fid", sysfd.AT_HANDLE_FID, "print a handle for comparison only, which nearly every file system has")
	flag("connectable", sysfd.AT_HANDLE_CONNECTABLE, "print a handle that includes the directory: with it, the kernel knows the path of the opened file, and opens the file only while it is in that directory")
	flag("unique", sysfd.AT_HANDLE_MNT_ID_UNIQUE, "print a mount ID that is not used again before the next boot")
	asRef := c.Bool("ref", false, "print a REF, the identity of the file system and the handle, which stays valid after a reboot")
	asJSON := c.Bool("json", false, "print a list of JSON objects")
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() == 0 {
		return usageError("a PATH is missing")
	}
	refFlags := flags & sysfd.AT_SYMLINK_FOLLOW
	if *asRef && (flags != refFlags || *asJSON) {
		return usageError("-ref excludes all other flags but -follow")
	}
	list := []handleInfo{}
	var failed error
	for _, path := range c.Args() {
		var h sysfd.FileHandle
		var mount sysfd.MountID
		var err error
		if !*asRef {
			h, mount, err = sysfd.NameToHandleAt(sysfd.AT_FDCWD, path, flags)
		}
		var ref sysfd.FileRef
		var errRef error
		if *asRef || *asJSON {
			ref, errRef = sysfd.FileRefAt(sysfd.AT_FDCWD, path, refFlags)
		}
		if *asRef {
			err = errRef
		}
		switch {
		case err != nil:
			c.say("%v", err)
			if errors.Is(err, syscall.EOPNOTSUPP) {
				c.say("%s", whyNoHandle(path, *asRef))
			}
			failed = andSaid(failed, err)
		case *asRef:
			fmt.Fprintf(c.out, "%v\t%s\n", ref, quote(path))
		case *asJSON:
			info := handleInfo{Path: text(path), Handle: h, Type: h.Type(), MountID: mount}
			if errRef == nil && ref.Handle == h { // else it has no ref, or is another file by now
				info.Ref = &ref
			}
			list = append(list, info)
		default:
			fmt.Fprintf(c.out, "%v\t%d\t%s\n", h, mount, quote(path))
		}
	}
	if *asJSON {
		if err := c.printJSON(list); err != nil {
			return err
		}
	}
	return failed
}

// whyNoHandle says what it means that a file system does not name a file in this way.
func whyNoHandle(path string, asRef bool) string {
	if _, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, path, 0); err == nil && asRef {
		return "the file system has handles, but no persistent identity, and therefore no REFs"
	}
	return "the file system has no handles to open files by; try -fid for a handle to compare"
}

func open(c *call) error {
	mountPath := c.String("mount", "", "a `PATH` on the file system of HANDLE; without this flag, the working directory")
	dir := c.String("search", "", "if the kernel does not know the path of the file, search in and below `DIR`, on the same file system")
	c.ignoreSignalFlag()
	if err := c.parse(); err != nil {
		return err
	}
	args := c.Args()
	if len(args) == 0 {
		return usageError("a HANDLE or REF is missing")
	}
	openName, err := opener(args[0], *mountPath)
	if err != nil {
		return usageError(err.Error())
	}
	name := args[0]
	if args = args[1:]; len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		const O_PATH = 0x200000 // only the path is wanted
		f, err := openName(O_PATH)
		if err != nil {
			return whyNotOpened(name, err)
		}
		defer f.Close()
		path, err := sysfd.PathOf(int(f.Fd()))
		if errors.Is(err, syscall.ENODATA) {
			if *dir == "" {
				return fmt.Errorf("the file exists, but the kernel does not know its path: the file has not been looked up by name since the mount, or is not visible from here. To search for it: sysfd open -search DIR %s", name)
			}
			path, err = search(c, f, *dir)
		}
		if err == nil {
			fmt.Fprintln(c.out, quote(path))
		}
		return err
	}
	if *dir != "" {
		return usageError("-search prints the path, and excludes a PROGRAM")
	}
	free, err := reserve3()
	if err != nil {
		return err
	}
	f, err := openName(os.O_RDONLY)
	if err != nil {
		return whyNotOpened(name, err)
	}
	defer f.Close()
	file := "/dev/fd/3"
	if _, err := os.Stat("/dev/fd"); err != nil { // as in many a chroot
		file = "/proc/self/fd/3"
	}
	for i, arg := range args[1:] {
		args[1+i] = strings.ReplaceAll(arg, "{}", file)
	}
	program, err := lookPath(args[0])
	if err != nil {
		return err
	}
	return c.becomeWith3(f, free, program, args)
}

// whyNotOpened says what an error of opening the file with this name means.
func whyNotOpened(name string, err error) error {
	var call *os.SyscallError
	if !errors.As(err, &call) || call.Syscall != "open_by_handle_at" {
		return err
	}
	switch isRef := strings.Contains(name, "/"); {
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("opening a file by its handle requires CAP_DAC_READ_SEARCH, which root has: %w", err)
	case errors.Is(err, syscall.ESTALE) && errors.Is(err, os.ErrNotExist):
		return errors.New("the file was deleted")
	case errors.Is(err, syscall.ESTALE) && !isRef:
		return fmt.Errorf("no file has this handle here; it was deleted, or is on another file system (see -mount): %w", err)
	}
	return err
}

// opener returns a function that opens the file with this name.
func opener(name, mountPath string) (func(flags int) (*os.File, error), error) {
	if name == "" {
		return nil, errors.New("the HANDLE or REF is empty")
	}
	if strings.Contains(name, "/") {
		ref, err := sysfd.ParseFileRef(name)
		if err == nil && mountPath != "" {
			err = errors.New("-mount is for a HANDLE: a REF names its file system itself")
		}
		return func(flags int) (*os.File, error) { return ref.Open(flags, 0) }, err
	}
	h, err := sysfd.ParseFileHandle(name)
	return func(flags int) (*os.File, error) {
		mount, err := os.OpenFile(cmp.Or(mountPath, "."), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		if err != nil {
			return nil, err
		}
		defer mount.Close()
		return sysfd.OpenFileHandle(int(mount.Fd()), h, flags, 0)
	}, err
}

func cgroup(c *call) error {
	mountPath := c.String("mount", "", "the `PATH` where the hierarchy of ID is mounted; without this flag, the mount of cgroup2 is found")
	if err := c.parse(); err != nil {
		return err
	}
	if c.NArg() != 1 {
		return usageError("exactly one ID or PATH is needed")
	}
	id, hierarchy, isPath, err := cgroupArg(c.Arg(0))
	if err != nil {
		return err
	}
	if isPath {
		if hierarchy == sysfd.Cgroup2 {
			fmt.Fprintln(c.out, id)
		} else {
			fmt.Fprintf(c.out, "%d\t%s\n", id, quote(string(hierarchy)))
		}
		return nil
	}
	path, err := cgroupPath(*mountPath, id)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.out, quote(path))
	return nil
}

// cgroupPath returns the path of a cgroup, including the path of the mount.
func cgroupPath(mountPath string, id sysfd.CgroupID) (string, error) {
	dir, err := openCgroup2(mountPath)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	here, hierarchy, err := sysfd.CgroupIDOf(int(dir.Fd()))
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir.Name(), err)
	}
	path, err := hierarchy.CgroupPath(int(dir.Fd()), id)
	switch {
	case errors.Is(err, syscall.EPERM):
		return "", fmt.Errorf("finding a cgroup by its ID requires CAP_DAC_READ_SEARCH, which root has: %w", err)
	case errors.Is(err, syscall.ESTALE) && errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("no cgroup has the ID %d on %s", id, dir.Name())
	case errors.Is(err, syscall.ENOTDIR):
		return "", fmt.Errorf("the ID %d on %s is that of a file, not of a cgroup", id, dir.Name())
	case errors.Is(err, syscall.EREMOTE):
		return "", fmt.Errorf("%w (%s)", err, dir.Name())
	case err != nil:
		return "", err
	}
	below, err := hierarchy.CgroupPath(int(dir.Fd()), here)
	if err != nil {
		return "", err
	}
	// The path below the mount is the end of the path of the mount, once that has no symbolic links.
	point, err := filepath.EvalSymlinks(dir.Name())
	if err == nil {
		point, err = filepath.Abs(point)
	}
	return filepath.Join(strings.TrimSuffix(point, strings.TrimSuffix(below, "/")), path), err
}

// cgroupArg reads ID|PATH. The hierarchy is that of a path.
func cgroupArg(arg string) (id sysfd.CgroupID, hierarchy sysfd.CgroupHierarchy, isPath bool, err error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, "", false, usageError(arg + " is not an ID: IDs have 64 bits")
	}
	if err != nil {
		id, hierarchy, err = sysfd.CgroupIDAt(sysfd.AT_FDCWD, arg, sysfd.AT_SYMLINK_FOLLOW)
		return id, hierarchy, true, err
	}
	return sysfd.CgroupID(n), "", false, nil
}

// openCgroup2 opens the mount of cgroups at path, or the mount of cgroup2 if path is empty.
func openCgroup2(path string) (root *os.File, err error) {
	if path == "" {
		if path, err = cgroup2Mount(); err != nil {
			return nil, err
		}
	}
	return os.Open(path)
}

// cgroup2Mount looks for cgroup2 in the places where it usually is.
func cgroup2Mount() (string, error) {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(path, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return path, nil
		}
	}
	return "", errors.New("cgroup2 is not mounted at /sys/fs/cgroup or /sys/fs/cgroup/unified; if it is mounted elsewhere, use -mount PATH")
}
