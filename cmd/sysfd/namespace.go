//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
)

// processKinds are the names in /proc/PID/ns.
var processKinds = []sysfd.NamespaceKind{
	sysfd.CgroupNamespace, sysfd.IPCNamespace, sysfd.MntNamespace, sysfd.NetNamespace, sysfd.PIDNamespace, sysfd.PIDForChildrenNamespace,
	sysfd.TimeNamespace, sysfd.TimeForChildrenNamespace, sysfd.UserNamespace, sysfd.UTSNamespace,
}

// kindOf returns the kind of the namespace that has this name in /proc/PID/ns.
func kindOf(kind sysfd.NamespaceKind) sysfd.NamespaceKind {
	switch kind {
	case sysfd.PIDForChildrenNamespace:
		return sysfd.PIDNamespace
	case sysfd.TimeForChildrenNamespace:
		return sysfd.TimeNamespace
	}
	return kind
}

// A namespaceInfo is one line of the output of sysfd ns.
type namespaceInfo struct {
	Kind      string            `json:"kind" help:"cgroup, ipc, mnt, net, pid, time, user or uts; of one process also pid_for_children and time_for_children"`
	Inode     uint64            `json:"inode" help:"the number in /proc/PID/ns"`
	ID        sysfd.NamespaceID `json:"id,omitempty" help:"the ID; missing where the kernel has none"`
	Processes *int              `json:"processes,omitempty" help:"how many processes are in the namespace; missing where /proc cannot be read, and for the namespaces of one process"`
	PID       int               `json:"pid,omitempty" help:"the lowest PID among them"`
	Command   text              `json:"command,omitempty" help:"the name of the process with that PID"`
	Mount     text              `json:"mount,omitempty" help:"where the namespace is mounted"`
}

func (n *namespaceInfo) id() string {
	if n.ID == 0 {
		return "-"
	}
	return n.ID.String()
}

func ns(c *call) error {
	asJSON := c.Bool("json", false, "print a list of JSON objects")
	wanted := map[string]bool{}
	c.Func("kind", "list namespaces of this `KIND` only: cgroup, ipc, mnt, net, pid, time, user or uts", func(name string) error {
		if !slices.ContainsFunc(processKinds, func(k sysfd.NamespaceKind) bool { return k.String() == name }) {
			return errors.New("not a kind of namespace")
		}
		wanted[name] = true
		return nil
	})
	if err := c.parse(); err != nil {
		return err
	}
	wants := func(kind sysfd.NamespaceKind) bool { return len(wanted) == 0 || wanted[kind.String()] }
	switch c.NArg() {
	case 0:
		return c.allNamespaces(wants, *asJSON)
	case 1:
		return c.namespacesOf(wants, *asJSON)
	}
	return unexpected(c.Arg(1))
}

// namespacesOf prints the namespaces of one process.
func (c *call) namespacesOf(wants func(sysfd.NamespaceKind) bool, asJSON bool) error {
	return c.eachProcess(func(arg string, p *sysfd.PidFD, err error) error {
		if err != nil {
			return err
		}
		defer p.Close()
		list := []namespaceInfo{}
		w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NAMESPACE\tINODE\tID")
		for _, kind := range processKinds {
			if !wants(kind) {
				continue
			}
			f, err := p.Namespace(kind)
			if errors.Is(err, os.ErrProcessDone) {
				return errors.New("it has ended")
			}
			if errors.Is(err, os.ErrPermission) {
				return fmt.Errorf("opening its namespaces requires root or the same user: %w", err)
			}
			if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrNotExist) {
				fmt.Fprintf(w, "%v\tnot in this kernel\t\n", kind)
				continue
			}
			if err != nil {
				return err
			}
			n, err := inspectNamespace(f, kind)
			f.Close()
			if err != nil {
				return err
			}
			list = append(list, n)
			fmt.Fprintf(w, "%s\t%d\t%s\n", n.Kind, n.Inode, n.id())
		}
		if asJSON {
			return c.printJSON(list)
		}
		return w.Flush()
	})
}

// inspectNamespace returns what is known about an open namespace.
func inspectNamespace(f *os.File, kind sysfd.NamespaceKind) (namespaceInfo, error) {
	n := namespaceInfo{Kind: kind.String()}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return n, err
	}
	n.Inode = st.Ino
	id, err := sysfd.NamespaceIDOf(int(f.Fd()))
	if err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) { // not permitted by a filter
		return n, err
	}
	n.ID = id
	return n, nil
}

// A survey collects namespaces.
type survey struct {
	found  map[namespaceKey]*namespaceInfo
	byID   map[sysfd.NamespaceID]bool
	hidden int // processes that could not be looked at
	seen   int // processes that could
}

type namespaceKey struct {
	kind  sysfd.NamespaceKind
	inode uint64
}

func (c *call) allNamespaces(wants func(sysfd.NamespaceKind) bool, asJSON bool) error {
	s := survey{found: map[namespaceKey]*namespaceInfo{}, byID: map[sysfd.NamespaceID]bool{}}
	// The list of the kernel comes first. Otherwise a namespace that was made meanwhile would seem to have no processes.
	listed := map[sysfd.NamespaceKind][]sysfd.NamespaceID{}
	for _, kind := range processKinds {
		if kind != kindOf(kind) || !wants(kind) {
			continue
		}
		ids, err := sysfd.Namespaces(kind)
		// A filter of a container may refuse what it does not know.
		if err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
			return err
		}
		listed[kind] = ids
	}
	errProc := s.processes()
	if err := s.mounts(); err != nil && errProc == nil {
		return err
	}
	for kind, ids := range listed {
		for _, id := range ids {
			if s.byID[id] {
				continue
			}
			f, err := sysfd.OpenNamespace(sysfd.NamespaceHandle(id, 0, 0))
			if errors.Is(err, syscall.ESTALE) || errors.Is(err, errors.ErrUnsupported) {
				continue // it has ended
			}
			if err != nil {
				return err
			}
			_, err = s.add(f, kind)
			f.Close()
			if err != nil {
				return err
			}
		}
	}
	if len(s.found) == 0 && errProc != nil {
		return errProc
	}
	list := []namespaceInfo{}
	for key, n := range s.found {
		if !wants(key.kind) {
			continue
		}
		if errProc != nil {
			n.Processes = nil
		}
		list = append(list, *n)
	}
	slices.SortFunc(list, func(a, b namespaceInfo) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), cmp.Compare(a.Inode, b.Inode))
	})
	switch {
	case errProc != nil:
		c.say("cannot count processes: %v", errProc)
	case s.hidden > 0:
		c.say("no permission to inspect %d of %d processes: they are not counted, and namespaces may be missing", s.hidden, s.hidden+s.seen)
	}
	if asJSON {
		return c.printJSON(list)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tINODE\tID\tPROCESSES\tPID\tCOMMAND")
	for _, n := range list {
		processes, pid, command := "-", "-", "-"
		if n.Processes != nil {
			processes = strconv.Itoa(*n.Processes)
		}
		if n.PID != 0 {
			pid, command = strconv.Itoa(n.PID), quote(string(n.Command))
		} else if n.Mount != "" {
			command = quote(string(n.Mount))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", n.Kind, n.Inode, n.id(), processes, pid, command)
	}
	return w.Flush()
}

// add adds an open namespace, and those that it was made from as far as this process may see them.
func (s *survey) add(f *os.File, kind sysfd.NamespaceKind) (*namespaceInfo, error) {
	n, err := inspectNamespace(f, kind)
	if err != nil {
		return nil, err
	}
	key := namespaceKey{kind, n.Inode}
	if known := s.found[key]; known != nil {
		return known, nil
	}
	n.Processes = new(int)
	s.found[key] = &n
	s.byID[n.ID] = true
	for _, related := range []struct {
		open func(fd int) (*os.File, error)
		kind sysfd.NamespaceKind
	}{{sysfd.OpenOwningUserNamespace, sysfd.UserNamespace}, {sysfd.OpenParentNamespace, kind}} {
		r, err := related.open(int(f.Fd()))
		if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
			continue // not visible from here, or of a kind without parents
		}
		if err != nil {
			return nil, err
		}
		_, err = s.add(r, related.kind)
		r.Close()
		if err != nil {
			return nil, err
		}
	}
	return &n, nil
}

// processes adds the namespaces of all processes in /proc, and of their threads.
func (s *survey) processes() error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/proc", &fs); err != nil || uint32(fs.Type) != unix.PROC_SUPER_MAGIC {
		return errors.New("/proc is not mounted")
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		if err := s.process(pid); err != nil {
			return err
		}
	}
	return nil
}

// isGone reports whether an error means that a process or thread has ended, or has no such namespace.
func isGone(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH)
}

func (s *survey) process(pid int) error {
	// All of it is read below one descriptor, which never shows another process that gets the PID.
	dir, err := os.OpenFile("/proc/"+strconv.Itoa(pid), syscall.O_DIRECTORY, 0)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	open := func(name string, flags int) (*os.File, error) {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	tasks, err := open("task", syscall.O_DIRECTORY)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer tasks.Close()
	threads, err := tasks.Readdirnames(-1)
	if err != nil && !isGone(err) {
		return err
	}
	// The main thread comes first.
	slices.SortFunc(threads, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	if i := slices.Index(threads, strconv.Itoa(pid)); i > 0 {
		threads = slices.Insert(slices.Delete(threads, i, i+1), 0, strconv.Itoa(pid))
	}
	in := map[*namespaceInfo]bool{}
	link := make([]byte, 64)
	for _, thread := range threads {
		for _, kind := range processKinds {
			name := "task/" + thread + "/ns/" + kind.String()
			n, err := unix.Readlinkat(int(dir.Fd()), name, link)
			if isGone(err) {
				continue
			}
			if errors.Is(err, os.ErrPermission) {
				s.hidden++
				return nil
			}
			if err != nil {
				return err
			}
			of, err := s.lookUp(string(link[:n]), kindOf(kind), func() (*os.File, error) { return open(name, 0) })
			if isGone(err) || errors.Is(err, os.ErrPermission) { // since the link was read
				continue
			}
			if err != nil {
				return err
			}
			in[of] = true
		}
	}
	s.seen++
	command := commandOf(open)
	for n := range in {
		*n.Processes++
		if n.PID == 0 {
			n.PID, n.Command = pid, text(command)
		}
	}
	return nil
}

// lookUp returns the namespace with this link, such as net:[4026531833]. It opens the namespace if it is not known.
func (s *survey) lookUp(link string, kind sysfd.NamespaceKind, open func() (*os.File, error)) (*namespaceInfo, error) {
	_, number, _ := strings.Cut(link, ":[")
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	if known := s.found[namespaceKey{kind, inode}]; known != nil && err == nil {
		return known, nil
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.add(f, kind)
}

// commandOf returns the name of a process, which the process can choose.
func commandOf(open func(name string, flags int) (*os.File, error)) string {
	f, err := open("comm", 0)
	if err != nil {
		return "-"
	}
	defer f.Close()
	name := make([]byte, 64)
	n, err := f.Read(name)
	if err != nil {
		return "-"
	}
	return strings.TrimSuffix(string(name[:n]), "\n")
}

// mounts adds the namespaces that are mounted in the mount namespace of this process, as ip-netns(8) does it.
func (s *survey) mounts() error {
	var mounted []sysfd.Mount
	var silent []string // to open a path below these may need a server that does not answer
	for m, err := range sysfd.Mounts(0) {
		if err != nil {
			return err
		}
		switch kind, _, _ := strings.Cut(m.Type, "."); kind {
		case "nsfs":
			mounted = append(mounted, m)
		case "9p", "afs", "autofs", "ceph", "cifs", "fuse", "fuseblk", "lustre", "nfs", "nfs4", "overlay", "smb3", "virtiofs":
			if m.Point != "/" {
				silent = append(silent, m.Point+"/")
			}
		}
	}
	for _, m := range mounted {
		if slices.ContainsFunc(silent, func(dir string) bool { return strings.HasPrefix(m.Point, dir) }) {
			continue
		}
		f, err := m.Open()
		if err != nil {
			continue // another mount is on top, or the path is not accessible
		}
		kind, err := sysfd.NamespaceKindOf(int(f.Fd()))
		if err == nil {
			var n *namespaceInfo
			if n, err = s.add(f, kind); err == nil && n.Mount == "" {
				n.Mount = text(m.Point)
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return nil
}
