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

// parseProcess reads what the commands take for a process: PID, self, PID:ID, or what
// sysfd id -ref prints.
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
		return r, usageError(arg + " comes too late: flags stand before the processes")
	}
	n, err := strconv.ParseInt(arg, 10, 32)
	if err != nil || n <= 0 {
		return r, usageError(fmt.Sprintf("%q is not a PID", arg))
	}
	return sysfd.ProcessRef{PID: int(n)}, nil
}

// eachProcess calls f with each process of the command line, all of which must be
// spelled right, or with the error of opening it. f closes it. What f returns is said, and the
// others go on.
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
		if err = f(arg, p, err); err != nil {
			text := err.Error()
			if !strings.HasPrefix(text, "process "+refs[i].Short()+" ") {
				text = "process " + arg + ": " + text
			}
			c.say("%s", text)
			failed = errSaid
		}
	}
	return failed
}

func openProcess(r sysfd.ProcessRef) (*sysfd.PidFD, error) {
	if r == (sysfd.ProcessRef{PID: r.PID}) {
		p, err := sysfd.OpenPidFD(r.PID, 0)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) {
			err = errors.New("that is not the PID of a process, but of a thread")
		}
		return p, err
	}
	p, err := r.OpenOrSecondBest()
	if err != nil || r.ID == 0 {
		return p, err
	}
	// The ID is what counts, but whoever gives a PID that does not go with it may have
	// mistaken the ID, or has it from before a reboot.
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

// A processInfo is what can be learnt about a process; what cannot is left out.
type processInfo struct {
	Process  *sysfd.ProcessRef `json:"process,omitempty"`
	Zombie   bool              `json:"zombie"`
	Parent   *int              `json:"parentPid,omitempty"`
	User     *ids              `json:"user,omitempty"`
	Group    *ids              `json:"group,omitempty"`
	CgroupID sysfd.CgroupID    `json:"cgroupId,omitempty"`
	NSPIDs   []int             `json:"namespacePids,omitempty"`
}

type ids struct {
	Real       uint32 `json:"real"`
	Effective  uint32 `json:"effective"`
	Saved      uint32 `json:"saved"`
	FileSystem uint32 `json:"fileSystem"`
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

// inspect asks for all there is. Kernels that lack something lack different things.
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
	state := "runs"
	if i.Zombie {
		state = "has ended, is not reaped yet"
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
	c.Func("timeout", "give up after this `time`, such as 90s, with status 3", func(text string) (err error) {
		if timeout, err = time.ParseDuration(text); err != nil {
			timeout, err = time.ParseDuration(text + "s")
		}
		if err != nil || timeout < 0 {
			return errors.New("not a time")
		}
		return nil
	})
	anyOne := c.Bool("any", false, "wait for the first one to end, not for all")
	exited := c.Bool("exited", false, "be content with the end; without, wait a moment longer for the status of a process that its parent has to reap first")
	reaped := c.Bool("reaped", false, "wait for the status, however long the parent takes to reap the process")
	if err := c.parse(); err != nil {
		return err
	}
	if slices.Contains(c.Args(), "self") {
		return usageError("that would wait for ever: self is this command")
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
			// Of a PID alone it is not known what it was.
			ended++
			fmt.Fprintf(c.out, "%s: %v\n", arg, sysfd.WaitResult{Ended: true, Unknown: errors.New("it ended before")})
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
			c.say("after %v not all have ended, %d are left", timeout, running)
			return exitStatus(3) // as waitpid(1) has it
		}
		if err != nil {
			return err
		}
		ended++
		if !*exited && errors.Is(r.Unknown, syscall.EAGAIN) {
			// A parent that reaps at once does so within that.
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
	name := c.String("s", "TERM", "the `SIGNAL`, by name or number; 0 sends none and tells whether one could be sent")
	// As kill(1) takes it: -9, -KILL.
	if len(c.args) > 0 && strings.HasPrefix(c.args[0], "-") {
		if _, ok := signalNumber(c.args[0][1:]); ok {
			c.args = append([]string{"-s", c.args[0][1:]}, c.args[1:]...)
		}
	}
	tree := c.Bool("cgroup", false, "kill all of a cgroup, which must not be one that this command is in")
	mountPath := c.String("mount", "", "the `PATH` where cgroup2 is mounted; normally it is found")
	if err := c.parse(); err != nil {
		return err
	}
	if *tree {
		if *name != "TERM" {
			return usageError("-cgroup sends SIGKILL, and goes without -s")
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
		return usageError("one ID or PATH of a cgroup is needed")
	}
	id, hierarchy, _, err := cgroupArg(c.Arg(0))
	if err == nil && hierarchy != sysfd.Cgroup2 {
		err = fmt.Errorf("%s is on cgroup v1 (%s), which has no way to kill a cgroup", c.Arg(0), hierarchy)
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
