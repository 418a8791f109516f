//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
)

// parseProcess reads what names a process: PID, self, PID:ID, or what sysfd id -ref prints.
func parseProcess(arg string) (r sysfd.ProcessRef, err error) {
	switch {
	case arg == "self":
		return sysfd.ProcessRef{PID: os.Getpid()}, nil
	case strings.Contains(arg, ":"):
		if r, err = sysfd.ParseProcessRef(arg); err != nil {
			return r, usageError(err.Error())
		}
		return r, nil
	case strings.HasPrefix(arg, "-"):
		return r, usageError(fmt.Sprintf("flag %s must precede the processes", arg))
	}
	n, err := strconv.ParseInt(arg, 10, 32)
	if err != nil || n <= 0 {
		return r, usageError(fmt.Sprintf("%q is not a PID", arg))
	}
	return sysfd.ProcessRef{PID: int(n)}, nil
}

// eachProcess calls f with each process of the command line, or with the error of opening it. If one of the arguments
// is malformed, f is not called at all. f closes the process. An error of f is printed, and the next process follows.
func (c *call) eachProcess(f func(arg string, p *sysfd.PidFD, err error) error) error {
	if c.NArg() == 0 {
		return usageError("a PID is missing")
	}
	var refs []sysfd.ProcessRef
	for _, arg := range c.Args() {
		r, err := parseProcess(arg)
		if err != nil {
			return err
		}
		refs = append(refs, r)
	}
	var failed error
	for i, arg := range c.Args() {
		p, err := openProcess(refs[i])
		gone := errors.Is(err, os.ErrProcessDone)
		if err = f(arg, p, err); err != nil {
			text := err.Error()
			switch {
			case gone && !strings.Contains(arg, ":"):
				text = "no process has the PID " + arg
			case !strings.HasPrefix(text, "process "+refs[i].Short()+" "):
				text = "process " + arg + ": " + text
			}
			c.say("%s", text)
			failed = andSaid(failed, err)
		}
	}
	return failed
}

func openProcess(r sysfd.ProcessRef) (*sysfd.PidFD, error) {
	if r == (sysfd.ProcessRef{PID: r.PID}) {
		p, err := sysfd.OpenPidFD(r.PID, 0)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) {
			err = errors.New("this is the PID of a thread, not of a process")
		}
		return p, err
	}
	p, err := r.OpenOrSecondBest()
	if err != nil || r.ID == 0 {
		return p, err
	}
	// The ID is enough, but with another PID it is probably a mistake, or from before a reboot.
	self, err := sysfd.SelfRef()
	if err != nil {
		p.Close()
		return nil, err
	}
	comparable := r.PIDNamespace == 0 || r.PIDNamespace == self.PIDNamespace
	if pid, err := p.PID(); comparable && err == nil && pid != r.PID {
		p.Close()
		return nil, fmt.Errorf("the process with pidfd ID %v has PID %d", r.ID, pid)
	}
	return p, nil
}

// A processInfo is what could be learned about a process.
type processInfo struct {
	Process  *sysfd.ProcessRef `json:"process,omitempty" help:"what sysfd id -ref prints"`
	Zombie   bool              `json:"zombie" help:"whether the process has ended and was not reaped yet"`
	Parent   *int              `json:"parentPid,omitempty" help:"the PID of its parent"`
	User     *ids              `json:"user,omitempty" help:"its user IDs"`
	Group    *ids              `json:"group,omitempty" help:"its group IDs"`
	CgroupID sysfd.CgroupID    `json:"cgroupId,omitempty" help:"the ID of its cgroup, as sysfd cgroup reads it"`
	NSPIDs   []int             `json:"namespacePids,omitempty" help:"its PIDs, in the PID namespace of this command and in each below that"`
}

type ids struct {
	Real       uint32 `json:"real" help:"the real ID"`
	Effective  uint32 `json:"effective" help:"the effective ID"`
	Saved      uint32 `json:"saved" help:"the saved ID"`
	FileSystem uint32 `json:"fileSystem" help:"the ID for access to files"`
}

func (i *ids) String() string {
	if *i == (ids{i.Real, i.Real, i.Real, i.Real}) {
		return strconv.FormatUint(uint64(i.Real), 10)
	}
	return fmt.Sprintf("real %d, effective %d, saved %d, for files %d", i.Real, i.Effective, i.Saved, i.FileSystem)
}

func info(c *call) error {
	asJSON := c.Bool("json", false, "print a list of JSON objects")
	if err := c.parse(); err != nil {
		return err
	}
	list := []processInfo{}
	failed := c.eachProcess(func(arg string, p *sysfd.PidFD, err error) error {
		if err != nil {
			return err
		}
		defer p.Close()
		i, err := inspect(p)
		if err != nil {
			return err
		}
		if !*asJSON && len(list) > 0 {
			fmt.Fprintln(c.out)
		}
		if !*asJSON {
			i.print(c)
		}
		list = append(list, i)
		return nil
	})
	if _, usage := failed.(usageError); *asJSON && !usage {
		if err := c.printJSON(list); err != nil {
			return err
		}
	}
	return failed
}

// inspect asks for everything. What the kernel lacks is left out.
func inspect(p *sysfd.PidFD) (i processInfo, err error) {
	lacking := func(err error) error {
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	}
	ref, err := p.RefOrSecondBest()
	if err == nil {
		i.Process = &ref
	} else if err = lacking(err); err != nil && !errors.Is(err, os.ErrPermission) { // /proc can hide a start time
		return i, err
	}
	ended, err := p.TryWait(sysfd.WaitExited | sysfd.WaitNoReap)
	if err = lacking(err); err != nil {
		return i, err
	}
	i.Zombie = ended.Ended
	k, err := p.Info(sysfd.PIDFD_INFO_PID | sysfd.PIDFD_INFO_CREDS | sysfd.PIDFD_INFO_CGROUPID)
	if err = lacking(err); err != nil {
		return i, err
	}
	if parent, ok := k.ParentPID(); ok {
		i.Parent = &parent
	}
	if cr, ok := k.Credentials(); ok {
		i.User = &ids{cr.RUID, cr.EUID, cr.SUID, cr.FSUID}
		i.Group = &ids{cr.RGID, cr.EGID, cr.SGID, cr.FSGID}
	}
	i.CgroupID, _ = k.CgroupID()
	if i.NSPIDs, err = p.NSPIDs(); err != nil {
		err = lacking(err)
	}
	return i, err
}

func (i *processInfo) print(c *call) {
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	line := func(key string, value any) { fmt.Fprintf(w, "%s\t%v\n", key, value) }
	if i.Process != nil {
		line("process", i.Process.Short())
		if i.Process.BootID != (sysfd.BootID{}) {
			line("boot", i.Process.BootID)
		}
		if i.Process.PIDNamespace != 0 {
			line("PID namespace", i.Process.PIDNamespace)
		}
	}
	state := "running"
	if i.Zombie {
		state = "ended, not yet reaped"
	}
	line("state", state)
	if i.Parent != nil {
		line("parent", *i.Parent)
	}
	if i.User != nil {
		line("user", i.User)
		line("group", i.Group)
	}
	if i.CgroupID != 0 {
		line("cgroup ID", i.CgroupID)
	}
	if len(i.NSPIDs) > 1 {
		line("PIDs in its namespaces", strings.Trim(fmt.Sprint(i.NSPIDs), "[]"))
	}
	w.Flush()
}

func wait(c *call) error {
	var timeout time.Duration
	c.Func("timeout", "give up after this `TIME`, such as 90s or 1.5 for seconds, with exit status 124", func(text string) (err error) {
		if timeout, err = time.ParseDuration(text); err != nil {
			timeout, err = time.ParseDuration(text + "s")
		}
		if err != nil || timeout < 0 {
			return errors.New("not a time such as 90s")
		}
		return nil
	})
	anyOne := c.Bool("any", false, "return when the first of the processes has ended")
	exited := c.Bool("exited", false, "do not wait for the parent to reap the process, not even for a moment")
	reaped := c.Bool("reaped", false, "wait until the parent has reaped the process, however long that takes")
	if err := c.parse(); err != nil {
		return err
	}
	if slices.Contains(c.Args(), "self") {
		return usageError("self is this command, which would wait for itself")
	}
	if *exited && *reaped {
		return usageError("-exited and -reaped exclude each other")
	}
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	options := sysfd.WaitExited
	if *reaped {
		options = 0
	}
	type process struct {
		arg string
		p   *sysfd.PidFD
	}
	set, err := sysfd.NewWaitSet[process](options)
	if err != nil {
		return err
	}
	defer set.Close()
	running, ended := 0, 0
	failed := c.eachProcess(func(arg string, p *sysfd.PidFD, err error) error {
		if err == nil {
			err = set.Add(p, process{arg, p})
		}
		switch {
		case err == nil:
			running++
		case errors.Is(err, os.ErrProcessDone) && strings.Contains(arg, ":"):
			// A PID without an ID does not say which process it was.
			ended++
			fmt.Fprintf(c.out, "%s: %v\n", arg, sysfd.WaitResult{Ended: true, Unknown: errors.New("it had already ended")})
		default:
			return err
		}
		return nil
	})
	if _, usage := failed.(usageError); usage {
		return failed
	}
	for ; running > 0 && !(*anyOne && ended > 0); running-- {
		of, r, err := set.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			c.say("%s did not end within %v", count(running, "process", "processes"), timeout)
			return exitStatus(statusTimeout)
		}
		if err != nil {
			return err
		}
		ended++
		if !*exited && errors.Is(r.Unknown, syscall.EAGAIN) {
			// A parent that reaps at once does so within this time.
			moment, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			if told, err := of.p.Wait(moment, 0); err == nil {
				r = told
			}
			cancel()
		}
		of.p.Close()
		fmt.Fprintf(c.out, "%s: %v\n", of.arg, r)
		if err := c.out.(interface{ Flush() error }).Flush(); err != nil {
			return err
		}
	}
	return failed
}

func kill(c *call) error {
	name := c.String("s", "TERM", "the `SIGNAL`, by name or number; 0 sends none, and only checks whether one could be sent")
	// As in kill(1): -9, -KILL.
	if len(c.args) > 0 && strings.HasPrefix(c.args[0], "-") {
		if _, ok := signalNumber(c.args[0][1:]); ok {
			c.args = append([]string{"-s", c.args[0][1:]}, c.args[1:]...)
		}
	}
	tree := c.Bool("cgroup", false, "kill all processes of a cgroup; this command must not be in it")
	mountPath := c.String("mount", "", "the `PATH` where cgroup2 is mounted; without this flag, it is found")
	if err := c.parse(); err != nil {
		return err
	}
	if *tree {
		if *name != "TERM" {
			return usageError("-cgroup sends SIGKILL, and excludes -s")
		}
		return c.killCgroup(*mountPath)
	}
	sig, ok := signalNumber(*name)
	if !ok {
		return usageError(fmt.Sprintf("%q is not a signal", *name))
	}
	if slices.Contains(c.Args(), "self") {
		return usageError("self is this command")
	}
	return c.eachProcess(func(arg string, p *sysfd.PidFD, err error) error {
		if err != nil {
			return err
		}
		defer p.Close()
		return p.SendSignal(sig)
	})
}

func (c *call) killCgroup(mountPath string) error {
	if c.NArg() != 1 {
		return usageError("exactly one ID or PATH of a cgroup is needed")
	}
	id, hierarchy, _, err := cgroupArg(c.Arg(0))
	if err == nil && hierarchy != sysfd.Cgroup2 {
		err = fmt.Errorf("%s is on cgroup v1 (%s), which cannot kill a cgroup", c.Arg(0), hierarchy)
	}
	if err != nil {
		return err
	}
	root, err := openCgroup2(mountPath)
	if err != nil {
		return err
	}
	defer root.Close()
	return sysfd.KillCgroup(int(root.Fd()), id, 0)
}

func signalNumber(name string) (sig syscall.Signal, ok bool) {
	if sig = unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")); sig != 0 {
		return sig, true
	}
	n, err := strconv.ParseUint(name, 10, 7)
	return syscall.Signal(n), err == nil && n <= 64
}
