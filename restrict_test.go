//go:build linux

package sysfd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd/internal/collector"
	"github.com/sysfd/sysfd/internal/rights"
	"golang.org/x/sys/unix"
)

// An operation is one thing that the package does, to be tried in surroundings in which
// it or what it rests on is not to be had.
type operation struct {
	name   string
	needs  Feature // the zero one is on any kernel that Go runs on, if there is one
	relies []ability
	root   bool // it takes capabilities
	takes  bool // it takes descriptors
	slow   bool // it starts programs

	// Either of them.
	do      func(s *scene) error
	prepare preparation

	refused []refusal // what comes of it when system calls that it rests on are refused
	does    bool      // it does without all of allCalls
}

// A refusal is about the answer to all of these calls, with spaces between them.
type refusal struct {
	calls         string
	eperm, enosys []error // what the error matches; nil = what it should in most cases
}

// works is what comes of a refusal that there is a way round.
var works = []error{}

var (
	errMayBeThere = errors.New("that is not certain")
	mayBeThere    = []error{errMayBeThere}
	noPath        = []error{syscall.ENODATA}
)

// A preparation is done before there are restrictions; what it returns is done under them.
type preparation = func(t *testing.T, s *scene) (do func() error)

// A scene is what operations are tried on. What the kernel does not have remains zero.
type scene struct {
	file, dir     *os.File // on tmpfs, which has handles and a UUID
	ref           FileRef  // of file
	mount, unique MountID  // of file
	device        DeviceID // of file
	null          *os.File
	program       string // which execve refuses last of all

	uts       *os.File // the namespace of this process
	utsHandle FileHandle

	cgroup   *os.File // nil where no cgroup2 is mounted
	cgroupID CgroupID

	process          *os.Process
	child, zombie    *PidFD // of process, of a child that has ended
	other, strange   *PidFD // of the parent if it is in sight, of a zombie that is not a child
	id               PidFDID
	self, selfOfBoot ProcessRef
	secondBest       ProcessRef // of process
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{file: fileOnTmpfs(t), null: openNull(t), program: noProgram(t)}
	open := func(name string) *os.File {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	s.dir = open(filepath.Dir(s.file.Name()))
	s.ref.FS, _ = FileSystemIDOf(int(s.dir.Fd()))
	s.ref.Handle, s.mount, _ = NameToHandleAt(AT_FDCWD, s.file.Name(), 0)
	_, s.unique, _ = NameToHandleAt(AT_FDCWD, s.file.Name(), AT_HANDLE_MNT_ID_UNIQUE)
	var st syscall.Stat_t
	if err := syscall.Fstat(int(s.file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	s.device = DeviceID(st.Dev)
	for m, err := range Mounts(0) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == "cgroup2" {
			s.cgroup = open(m.Point)
			s.cgroupID, _, _ = CgroupIDOf(int(s.cgroup.Fd()))
			break
		}
	}
	if f, err := os.Open("/proc/self/ns/uts"); err == nil {
		t.Cleanup(func() { f.Close() })
		s.uts = f
		s.utsHandle, _ = namespaceHandle(int(f.Fd()))
	}
	cmd := sleeper(t)
	s.process, s.child = cmd.Process, openPidFD(t, cmd.Process.Pid)
	ended := sleeper(t)
	s.zombie = openPidFD(t, ended.Process.Pid)
	ended.Process.Kill()
	if r, err := s.zombie.Wait(context.Background(), WaitNoReap); err != nil || !r.Ended {
		t.Fatal(r, err)
	}
	if parent := os.Getppid(); parent != 0 {
		s.other = openPidFD(t, parent)
	}
	_, pid := grandchild(t)
	s.strange = openPidFD(t, pid)
	s.strange.SendSignal(syscall.SIGKILL)
	if r, err := s.strange.Wait(context.Background(), WaitExited); err != nil || !r.Ended {
		t.Fatal(r, err)
	}
	s.id, _ = s.child.ID()
	s.selfOfBoot, _ = SelfRef()
	s.self = ProcessRef{PID: s.selfOfBoot.PID, ID: s.selfOfBoot.ID}
	var err error
	if s.secondBest, err = s.child.secondBest(); err != nil {
		// The /proc is another one.
		s.secondBest = ProcessRef{PID: s.process.Pid, StartTime: 1, PIDNamespace: ownPIDNamespace()}
		s.secondBest.BootID, _ = ThisBootID()
	}
	return s
}

// fileOnTmpfs returns an open file.
func fileOnTmpfs(t *testing.T) *os.File {
	t.Helper()
	const tmpfsMagic = 0x01021994
	for _, dir := range []string{"/dev/shm", os.TempDir(), "/run"} {
		f, err := os.CreateTemp(dir, "sysfd")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			f.Close()
			os.Remove(f.Name())
		})
		if magic, _ := fsMagic(int(f.Fd())); magic == tmpfsMagic {
			return f
		}
	}
	lacks(t, "a tmpfs to write to")
	return nil
}

func second[T any](_ T, err error) error { return err }

// isMount makes an error of an ID that is another one. What is wanted is not known without handles.
func isMount(want MountID) func(id MountID, err error) error {
	return func(id MountID, err error) error {
		if err == nil && want != 0 && id != want {
			return fmt.Errorf("mount %v, want %v", id, want)
		}
		return err
	}
}

// except returns nil for an errno by which the kernel tells that it has done its work.
func except(err error, errno syscall.Errno) error {
	if errors.Is(err, errno) {
		return nil
	}
	return err
}

// A givingUp is a context that is done soon after somebody has begun to wait: not before
// the kernel was asked for the first time.
type givingUp struct {
	context.Context
	after  time.Duration
	cancel func()
}

func giveUp() context.Context { return giveUpAfter(20 * time.Millisecond) }

func giveUpAfter(d time.Duration) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	return givingUp{ctx, d, cancel}
}

func (g givingUp) Done() <-chan struct{} {
	time.AfterFunc(g.after, g.cancel)
	return g.Context.Done()
}

// gaveUp returns nil if that has happened.
func gaveUp(err error) error {
	if err == nil {
		return errors.New("it did not wait")
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// taking prepares for f to take a duplicate of the child's pidfd, and puts it in its place
// again, so that as many are open as before.
func taking(f func(fd int) (*PidFD, error)) preparation {
	return func(t *testing.T, s *scene) func() error {
		fd, errno := dupAbove(s.child.fd, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		return func() error {
			p, err := f(fd)
			if p != nil {
				p.Close()
				syscall.Dup3(s.child.fd, fd, syscall.O_CLOEXEC)
			}
			return err
		}
	}
}

// passed prepares for descriptor 3, which this process has inherited, to be taken.
func passed(t *testing.T, id PidFDID) {
	if why := inherited(listenFDsStart); why != "" {
		t.Fatal("descriptor 3 " + why)
	}
	for i, value := range []string{listenPID: strconv.Itoa(os.Getpid()), listenPIDFDID: id.String(), listenFDs: "1", listenFDNames: "three"} {
		t.Setenv(listenVarNames[i], value)
	}
}

// kept are files that must not be closed when nobody knows them any more.
var kept []*os.File

func listenAgain() {
	kept = append(kept, listen.files...)
	listen.taken, listen.env, listen.files, listen.given = false, ListenEnv{}, nil, nil
	fcntl(listenFDsStart, syscall.F_SETFD, 0)
}

// passedTo is what ListenFDs does with what is addressed to the process with an ID.
func passedTo(id func(s *scene) PidFDID) preparation {
	return func(t *testing.T, s *scene) func() error {
		passed(t, id(s))
		t.Cleanup(listenAgain)
		return func() error {
			files, err := ListenFDs()
			for _, name := range listenVarNames {
				if _, ok := os.LookupEnv(name); ok {
					return errors.New(name + " is still set")
				}
			}
			if err == nil && (len(files) != 1 || files[0].Name() != "three") {
				return fmt.Errorf("%d files: %s", len(files), InspectListenEnv().Explain())
			}
			return err
		}
	}
}

func notifies(f func(ctx context.Context, s *scene) (bool, error)) preparation {
	return func(t *testing.T, s *scene) func() error {
		newManager(t, "")
		return func() error {
			sent, err := f(context.Background(), s)
			if !sent && err == nil {
				return errors.New("it was not sent")
			}
			return err
		}
	}
}

// onCgroup2 is for what takes cgroup2.
func onCgroup2(f func(s *scene) error) preparation {
	return func(t *testing.T, s *scene) func() error {
		if s.cgroup == nil {
			lacks(t, "cgroup2")
		}
		return func() error { return f(s) }
	}
}

// onNamespace is for what borrows a namespace. What tells that it is one has been learned before.
func onNamespace(f func(s *scene) error) preparation {
	return func(t *testing.T, s *scene) func() error {
		if _, err := proveNsfs(int(s.uts.Fd())); err != nil {
			t.Fatal(err)
		}
		return func() error { return f(s) }
	}
}

// startListenFDsBy is StartListenFDsBy with os.StartProcess.
func startListenFDsBy(argv0 string, argv []string, attr *os.ProcAttr, files []*os.File) (*PidFD, error) {
	pidfd := -1
	sys := &syscall.SysProcAttr{PidFD: &pidfd}
	err := StartListenFDsBy(startByOS, argv0, argv, &os.ProcAttr{Env: attr.Env, Sys: sys}, files)
	if err != nil {
		return nil, err
	}
	return TakePidFD(sys)
}

// starts is StartListenFDs or what is like it, with a program that execve refuses if argv0 is empty. Either way no
// process is left.
func starts(start starter, argv0 string) preparation {
	return func(t *testing.T, s *scene) func() error {
		before := kids(t)
		t.Cleanup(func() {
			if after := kids(t); !slices.Equal(before, after) {
				t.Errorf("children before: %q, after: %q", before, after)
			}
		})
		attr := &os.ProcAttr{Env: append(os.Environ(), childVar+"=nothing")}
		return func() error {
			p, err := start(cmp.Or(argv0, s.program), []string{"x"}, attr, []*os.File{s.null})
			if argv0 == "" && err != nil {
				return except(err, syscall.ENOEXEC)
			}
			if err != nil {
				return err
			}
			defer p.Close()
			r, err := p.Wait(context.Background(), 0)
			if err == nil && (!r.Ended || r.Status != 0 || argv0 == "") {
				return errors.New(r.String())
			}
			return err
		}
	}
}

// taken is what comes of files for another process where a process cannot know its ID.
var (
	errTaken = errors.New("it was taken")
	taken    = []error{errTaken}
)

// byInode is what PidFDIDOf asks, and then there is no other way.
var byInode = map[bool]string{true: "statx fstat", false: "name_to_handle_at"}[is64bit]

// notFound is what comes of a search that goes on when a place cannot be looked at.
var notFound = []error{syscall.ENODEV}

var operations = []operation{
	{name: "NameToHandleAt", relies: []ability{fileHandles}, refused: []refusal{{calls: "name_to_handle_at"}}, do: func(s *scene) error {
		_, _, err := NameToHandleAt(AT_FDCWD, s.file.Name(), 0)
		return err
	}},
	{name: "OpenByHandleAt", relies: []ability{fileHandles}, root: true, takes: true, refused: []refusal{{calls: "open_by_handle_at"}}, do: func(s *scene) error {
		return closed(OpenByHandleAt(int(s.dir.Fd()), s.ref.Handle, 0))
	}},
	{name: "OpenFileHandle", needs: FeatureFileSystemID, root: true, takes: true, refused: []refusal{
		{calls: "open_by_handle_at"}, {calls: "name_to_handle_at"}, {calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"},
	}, do: func(s *scene) error { return closed(OpenFileHandle(int(s.dir.Fd()), s.ref.Handle, 0, 0)) }},
	{name: "FileRef.OpenFrom", needs: FeatureFileSystemID, root: true, takes: true, refused: []refusal{
		{calls: "open_by_handle_at"}, {calls: "name_to_handle_at"}, {calls: "fstatfs"}, {calls: "ioctl"}, {calls: "capget", eperm: works, enosys: works},
	}, do: func(s *scene) error { return closed(s.ref.OpenFrom(int(s.dir.Fd()), 0, 0)) }},
	{name: "FileRef.OpenFrom of what is gone", needs: FeatureFileSystemID, root: true, does: true, refused: []refusal{
		{calls: "open_by_handle_at"}, {calls: "capget", eperm: mayBeThere, enosys: mayBeThere}, {calls: allCalls},
	}, do: func(s *scene) error {
		gone := s.ref
		gone.Handle.h.FHandle[0]++ // its generation
		_, err := gone.OpenFrom(int(s.dir.Fd()), 0, 0)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case errors.Is(err, syscall.ESTALE):
			return fmt.Errorf("%w: %w", errMayBeThere, err)
		}
		return err
	}},
	{name: "PathOf", takes: true, refused: []refusal{
		{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}, {calls: "readlinkat"}, {calls: "name_to_handle_at", eperm: works, enosys: works}, {calls: "openat", eperm: noPath, enosys: noPath}, {calls: allCalls, eperm: works, enosys: works},
	}, do: func(s *scene) error { return second(PathOf(int(s.file.Fd()))) }},
	{name: "OpenByHandleAt on pidfs", needs: FeatureOpenByID, takes: true, refused: []refusal{{calls: "open_by_handle_at"}}, do: func(s *scene) error {
		return closed(OpenByHandleAt(s.child.fd, PidFDHandle(s.id), 0))
	}},
	{name: "MountIDOf", does: true, refused: []refusal{
		{calls: "statx", eperm: works, enosys: works}, {calls: "name_to_handle_at", eperm: works, enosys: works}, {calls: "statx name_to_handle_at", eperm: works, enosys: works},
	}, do: func(s *scene) error { return isMount(s.mount)(MountIDOf(int(s.file.Fd()), 0)) }},
	{name: "MountIDOf, unique", needs: FeatureMountIDUnique, does: true, refused: []refusal{
		{calls: "statx", eperm: works, enosys: works}, {calls: "name_to_handle_at", eperm: works, enosys: works}, {calls: "statx name_to_handle_at"},
	}, do: func(s *scene) error { return isMount(s.unique)(MountIDOf(int(s.file.Fd()), AT_HANDLE_MNT_ID_UNIQUE)) }},
	{name: "OpenMount", relies: []ability{fileHandles}, takes: true, does: true, refused: []refusal{
		{calls: "openat"}, {calls: "statx name_to_handle_at", eperm: works, enosys: works},
	}, do: func(s *scene) error { return closed(OpenMount(s.mount)) }},
	{name: "OpenMount of a unique ID", needs: FeatureMountIDUnique, takes: true, refused: []refusal{
		{calls: "statmount"}, {calls: "openat"}, {calls: "name_to_handle_at", eperm: works, enosys: works}, {calls: "statx", eperm: works, enosys: works}, {calls: "statx name_to_handle_at"},
	}, do: func(s *scene) error { return closed(OpenMount(s.unique)) }},
	{name: "Mounts", does: true, refused: []refusal{
		{calls: "listmount", eperm: works, enosys: works}, {calls: "statmount", eperm: works, enosys: works}, {calls: "listmount openat"},
	}, do: func(s *scene) error {
		found := s.mount == 0
		for m, err := range Mounts(0) {
			if err != nil {
				return err
			}
			found = found || m.ReusableID == s.mount
		}
		if !found {
			return errors.New("the mount is not among them")
		}
		return nil
	}},
	{name: "FileSystemIDOf", needs: FeatureFileSystemID, does: true, refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}, {calls: "fstatfs"}, {calls: "ioctl"}}, do: func(s *scene) error {
		return second(FileSystemIDOf(int(s.dir.Fd())))
	}},
	{name: "FSIDOf", does: true, refused: []refusal{{calls: "fstatfs"}}, do: func(s *scene) error {
		return second(FSIDOf(int(s.dir.Fd())))
	}},
	{name: "OpenFileSystem", needs: FeatureFileSystemID, takes: true, refused: []refusal{
		{calls: "openat"}, {calls: "ioctl", enosys: notFound}, {calls: "fstatfs", enosys: notFound},
		{calls: "name_to_handle_at", eperm: works, enosys: works}, {calls: "statx name_to_handle_at", eperm: works, enosys: works}, {calls: allCalls, eperm: works, enosys: works},
	}, do: func(s *scene) error { return closed(OpenFileSystem(s.ref.FS)) }},
	{name: "OpenFileSystemOn", relies: []ability{fileHandles}, takes: true, does: true, refused: []refusal{
		{calls: "openat"}, {calls: "statx name_to_handle_at", eperm: works, enosys: works},
	}, do: func(s *scene) error { return closed(OpenFileSystemOn(s.device)) }},
	{name: "FileRefAt", needs: FeatureMountIDUnique, takes: true, refused: []refusal{
		{calls: "openat"}, {calls: "name_to_handle_at"}, {calls: "fstatfs"}, {calls: "ioctl"}, {calls: "statmount", eperm: works, enosys: works},
		{calls: "statx", eperm: works, enosys: works},
	}, do: func(s *scene) error {
		r, err := FileRefAt(AT_FDCWD, s.file.Name(), 0)
		if err == nil && r != s.ref {
			return fmt.Errorf("%v, want %v", r, s.ref) // it has one answer, or none
		}
		return err
	}},
	{name: "FileRef.Open", needs: FeatureFileSystemID, root: true, takes: true, refused: []refusal{
		{calls: "open_by_handle_at"}, {calls: "openat"},
	}, do: func(s *scene) error { return closed(s.ref.Open(0, 0)) }},
	{name: "CgroupIDAt", needs: FeatureCgroupID, takes: true, refused: []refusal{
		{calls: "openat"}, {calls: "fstatfs"}, {calls: "name_to_handle_at"},
	}, prepare: onCgroup2(func(s *scene) error { return third(CgroupIDAt(AT_FDCWD, s.cgroup.Name(), 0)) })},
	{name: "OpenCgroup", needs: FeatureCgroupID, root: true, takes: true, refused: []refusal{
		{calls: "fstatfs"}, {calls: "open_by_handle_at"},
	}, prepare: onCgroup2(func(s *scene) error { return closed(OpenCgroup(int(s.cgroup.Fd()), s.cgroupID)) })},
	{name: "CgroupPath", needs: FeatureCgroupID, root: true, takes: true, refused: []refusal{
		{calls: "fstatfs"}, {calls: "open_by_handle_at"}, {calls: "name_to_handle_at"}, {calls: "statx"}, {calls: "openat"},
		{calls: "readlinkat", eperm: works, enosys: works},
	}, prepare: func(t *testing.T, s *scene) func() error {
		if s.cgroup == nil {
			lacks(t, "cgroup2")
		}
		name, id := "/sysfd-test-restrict-"+strconv.Itoa(os.Getpid()), s.cgroupID
		if err := os.Mkdir(s.cgroup.Name()+name, 0o755); err != nil { // without privileges it comes to nothing with any
			name = "/"
		} else {
			t.Cleanup(func() { removeCgroup(t, s.cgroup.Name()+name) })
			if id, _, err = CgroupIDAt(int(s.cgroup.Fd()), "."+name, 0); err != nil {
				t.Fatal(err)
			}
		}
		return func() error {
			path, err := CgroupPath(int(s.cgroup.Fd()), id)
			if err == nil && path != name {
				return fmt.Errorf("%q, want %q", path, name)
			}
			return err
		}
	}},
	{name: "CgroupIDOf on cgroup v1", needs: FeatureCgroupID, root: true, takes: true, refused: []refusal{
		{calls: "openat"}, {calls: "fstatfs"}, {calls: "name_to_handle_at"}, {calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"},
	}, prepare: func(t *testing.T, s *scene) func() error {
		reliesOn(t, mounting)
		dir, hierarchy := t.TempDir(), CgroupHierarchy("name=sysfd-restrict-"+strconv.Itoa(os.Getpid()))
		if err := syscall.Mount("none", dir, "cgroup", 0, "none,"+string(hierarchy)); errors.Is(err, syscall.EPERM) {
			return func() error { return err }
		} else if err != nil {
			lacks(t, "cgroup v1: "+err.Error())
		}
		t.Cleanup(func() {
			syscall.Unmount(dir, syscall.MNT_DETACH)
			endHierarchy(t, dir, string(hierarchy))
		})
		root := openDir(t, dir)
		return func() error {
			_, is, err := CgroupIDOf(int(root.Fd()))
			if err == nil && is != hierarchy {
				return fmt.Errorf("%q, want %q", is, hierarchy)
			}
			return err
		}
	}},
	{name: "NamespaceIDOf", needs: FeatureNamespaceHandle, relies: []ability{newIoctls}, does: true, refused: []refusal{
		{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}, {calls: "name_to_handle_at", eperm: works, enosys: works},
		{calls: "name_to_handle_at ioctl"},
	}, prepare: onNamespace(func(s *scene) error { return second(NamespaceIDOf(int(s.uts.Fd()))) })},
	{name: "NamespaceIDOf, the first time", needs: FeatureNamespaceHandle, relies: []ability{newIoctls}, takes: true, does: true, refused: []refusal{
		{calls: "pidfd_open", eperm: works, enosys: works}, {calls: "ioctl", eperm: works, enosys: works}, {calls: "pidfd_open openat"},
	}, prepare: func(t *testing.T, s *scene) func() error {
		nsfsDev.Store(0)
		return func() error { return second(NamespaceIDOf(int(s.uts.Fd()))) }
	}},
	{name: "NamespaceKindOf", relies: []ability{newIoctls}, does: true, refused: []refusal{{calls: "ioctl"}, {calls: "statx fstat"}}, prepare: onNamespace(func(s *scene) error {
		err := second(NamespaceKindOf(int(s.uts.Fd())))
		if !is64bit { // 64-bit kernels before Linux 6.3 have it for 64-bit programs
			err = except(err, syscall.ENOTTY)
		}
		return err
	})},
	{name: "OpenOwningUserNamespace", needs: FeatureNamespace, relies: []ability{newIoctls}, takes: true, does: true, refused: []refusal{{calls: "ioctl"}}, prepare: func(t *testing.T, s *scene) func() error {
		do := onNamespace(func(s *scene) error { return closed(OpenOwningUserNamespace(int(s.uts.Fd()))) })(t, s)
		if errors.Is(do(), syscall.EPERM) {
			t.Skip("the user namespace that owns it is out of scope")
		}
		return do
	}},
	{name: "OpenNamespace", needs: FeatureNamespaceHandle, takes: true, refused: []refusal{
		{calls: "open_by_handle_at"}, {calls: "name_to_handle_at", eperm: works, enosys: works}, {calls: "name_to_handle_at ioctl"},
	}, prepare: onNamespace(func(s *scene) error { return closed(OpenNamespace(s.utsHandle)) })},
	{name: "Namespaces", needs: FeatureNamespaces, does: true, refused: []refusal{{calls: "listns"}}, do: func(s *scene) error {
		return second(Namespaces(UTSNamespace))
	}},

	{name: "OpenPidFD", takes: true, refused: []refusal{{calls: "pidfd_open"}}, do: func(s *scene) error {
		return closed(OpenPidFD(s.process.Pid, 0))
	}},
	{name: "OpenPidFDByID", needs: FeatureOpenByID, takes: true, refused: []refusal{{calls: "open_by_handle_at"}}, do: func(s *scene) error {
		return closed(OpenPidFDByID(s.id))
	}},
	{name: "NewPidFD", refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}, {calls: "fcntl"}}, does: true, prepare: taking(NewPidFD)},
	{name: "NewPidFD of a file", refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}}, does: true, prepare: func(t *testing.T, s *scene) func() error {
		return func() error {
			p, err := NewPidFD(int(s.null.Fd()))
			if err == nil {
				return fmt.Errorf("%v is no pidfd", p)
			}
			if errors.Is(err, ErrNotPidFD) {
				return nil
			}
			return err
		}
	}},
	{name: "TakePidFD", refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}}, does: true, prepare: taking(func(fd int) (*PidFD, error) {
		return TakePidFD(&syscall.SysProcAttr{PidFD: &fd})
	})},
	{name: "FanotifyEvent.PidFD", refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}, {calls: "fcntl"}}, does: true, prepare: taking(func(fd int) (p *PidFD, err error) {
		events, err := TakeFanotifyEvents(eventText{fd: _FAN_NOFD, records: []string{record(_FAN_EVENT_INFO_TYPE_PIDFD, int32(fd))}}.bytes())
		if err != nil {
			return nil, err
		}
		for e := range events {
			if p, err = e.PidFD(); err != nil {
				e.pidfd = gone // it is not closed, for the next time
			}
		}
		return p, err
	})},
	{name: "FanotifyEvent.File", takes: true, refused: []refusal{{calls: "fcntl"}}, does: true, prepare: func(t *testing.T, s *scene) func() error {
		return func() (err error) {
			fd, err := openat(int(s.dir.Fd()), ".", syscall.O_DIRECTORY)
			if err != nil {
				return err
			}
			events, err := TakeFanotifyEvents(eventText{fd: int32(fd)}.bytes())
			if err != nil {
				return err
			}
			for e := range events {
				err = closed(e.File())
			}
			return err
		}
	}},
	{name: "PidFDIDOf", needs: FeaturePidFDID, does: is64bit, refused: []refusal{{calls: byInode}}, do: func(s *scene) error {
		return second(PidFDIDOf(s.child.fd))
	}},
	{name: "PidFDIDOf, the first time", needs: FeaturePidFDID, does: is64bit, refused: []refusal{
		{calls: byInode}, {calls: "pidfd_open", eperm: works, enosys: works}, {calls: "pidfd_open fstatfs"},
	}, prepare: func(t *testing.T, s *scene) func() error {
		forgetPidfs()
		return func() error { return second(PidFDIDOf(s.child.fd)) }
	}},
	{name: "PidFD.ID", needs: FeaturePidFDID, does: is64bit, refused: []refusal{{calls: byInode}}, do: func(s *scene) error {
		return second(s.child.ID())
	}},
	{name: "PidFD.PID", needs: FeatureInfo, does: true, refused: []refusal{{calls: "ioctl", enosys: works}, {calls: "ioctl openat"}}, do: func(s *scene) error {
		pid, err := s.child.PID()
		if err == nil && pid != s.process.Pid {
			return fmt.Errorf("PID %d, want %d", pid, s.process.Pid)
		}
		return err
	}},
	{name: "PidFD.Info", needs: FeatureInfo, does: true, refused: []refusal{{calls: "ioctl"}}, do: func(s *scene) error {
		return second(s.child.Info(PIDFD_INFO_PID))
	}},
	{name: "PidFD.NSPIDs", takes: true, does: true, refused: []refusal{{calls: "openat"}}, do: func(s *scene) error {
		return second(s.child.NSPIDs())
	}},
	{name: "PidFD.File", takes: true, does: true, refused: []refusal{{calls: "fcntl"}}, do: func(s *scene) error { return closed(s.child.File()) }},
	{name: "PidFD.Ref", needs: FeatureInfo, takes: true, does: is64bit, refused: []refusal{{calls: byInode}, {calls: "ioctl", enosys: works}, {calls: "openat", eperm: works, enosys: works}}, do: func(s *scene) error {
		return second(s.child.Ref())
	}},
	{name: "SelfRef", needs: FeaturePidFDID, takes: true, refused: []refusal{{calls: "pidfd_open"}, {calls: byInode}, {calls: "openat", eperm: works, enosys: works}}, do: func(s *scene) error {
		return second(SelfRef())
	}},
	{name: "PidFD.RefOrSecondBest", needs: FeatureOpenByID, takes: true, does: is64bit, refused: []refusal{{calls: byInode, enosys: works}, {calls: "openat", eperm: works, enosys: works}}, do: func(s *scene) error {
		return second(s.child.RefOrSecondBest())
	}},
	{name: "PidFD.RefOrSecondBest without an ID", needs: FeaturePidFD, takes: true, refused: []refusal{
		{calls: "openat"}, {calls: "pidfd_send_signal"}, {calls: "ioctl", enosys: works}, {calls: "statx", eperm: works, enosys: works},
	}, do: func(s *scene) error {
		r, err := s.child.secondBest()
		if err == nil && r != s.secondBest {
			return fmt.Errorf("%v, want %v", r, s.secondBest)
		}
		return err
	}},
	{name: "SelfRefOrSecondBest", needs: FeatureOpenByID, takes: true, refused: []refusal{{calls: "pidfd_open"}, {calls: "openat", eperm: works, enosys: works}}, do: func(s *scene) error {
		return second(SelfRefOrSecondBest())
	}},
	{name: "ThisBootID", takes: true, does: true, refused: []refusal{{calls: "openat"}}, do: func(s *scene) error { return second(ThisBootID()) }},
	{name: "ProcessRef.Open", needs: FeaturePidFDID, takes: true, refused: []refusal{
		{calls: "open_by_handle_at", eperm: works, enosys: works}, {calls: "open_by_handle_at pidfd_open"}, {calls: "open_by_handle_at " + byInode},
	}, do: func(s *scene) error { return closed(s.self.Open()) }},
	{name: "ProcessRef.Open with a boot ID", needs: FeaturePidFDID, takes: true, refused: []refusal{{calls: "openat"}}, do: func(s *scene) error {
		return closed(s.selfOfBoot.Open())
	}},
	{name: "ProcessRef.OpenOrSecondBest", needs: FeaturePidFDID, takes: true, refused: []refusal{
		{calls: "open_by_handle_at", eperm: works, enosys: works}, {calls: "open_by_handle_at pidfd_open"},
	}, do: func(s *scene) error { return closed(s.self.OpenOrSecondBest()) }},
	{name: "ProcessRef.OpenOrSecondBest without an ID", needs: FeaturePidFD, takes: true, refused: []refusal{
		{calls: "openat"}, {calls: "pidfd_open"}, {calls: "pidfd_send_signal"}, {calls: "open_by_handle_at ioctl name_to_handle_at", eperm: works, enosys: works},
		{calls: "statx", eperm: works, enosys: works},
	}, do: func(s *scene) error { return closed(s.secondBest.OpenOrSecondBest()) }},

	// The runtime does not say why its poller takes no file.
	{name: "PidFD.Wait", needs: FeatureWait, takes: true, does: true, refused: []refusal{
		{calls: "waitid"}, {calls: "epoll_create1"}, {calls: "epoll_ctl", eperm: []error{syscall.ENOSPC}, enosys: []error{syscall.ENOSPC}},
	}, prepare: taking(func(fd int) (*PidFD, error) {
		p := newPidFD(fd, "duplicate", unnumbered)
		return p, gaveUp(second(p.Wait(giveUp(), 0)))
	})},
	{name: "PidFD.Wait with WaitBlocking", needs: FeatureWait, takes: true, does: true, refused: []refusal{
		{calls: "waitid"}, {calls: "eventfd2"}, {calls: "ppoll ppoll_time32"},
	}, prepare: taking(func(fd int) (*PidFD, error) {
		p := newPidFD(fd, "duplicate", unnumbered)
		return p, gaveUp(second(p.Wait(giveUp(), WaitBlocking)))
	})},
	{name: "PidFD.TryWait", needs: FeatureWait, does: true, refused: []refusal{{calls: "waitid"}}, do: func(s *scene) error {
		return second(s.child.TryWait(0))
	}},
	{name: "PidFD.TryWait with WaitExited", needs: FeatureWait, does: true, refused: []refusal{{calls: "waitid"}, {calls: "ppoll ppoll_time32"}}, do: func(s *scene) error {
		return second(s.child.TryWait(WaitExited))
	}},
	{name: "PidFD.TryWait for no child", needs: FeatureWait, does: true, refused: []refusal{{calls: "waitid"}, {calls: "ppoll ppoll_time32"}}, prepare: func(t *testing.T, s *scene) func() error {
		if s.other == nil {
			t.Skip("the parent is out of sight")
		}
		return func() error { return second(s.other.TryWait(0)) }
	}},
	{name: "PidFD.TryWait for a zombie that is no child", needs: FeatureThread, relies: []ability{pidfs}, does: true, refused: []refusal{{calls: "fstatfs"}}, do: func(s *scene) error {
		r, err := s.strange.TryWait(0)
		if r.Ended {
			return fmt.Errorf("it is for its parent to reap it, and it has %v", r)
		}
		return err
	}},
	{name: "WaitSet", needs: FeatureWait, takes: true, does: true, refused: []refusal{{calls: "waitid"}, {calls: "epoll_create1"}}, do: func(s *scene) error {
		set, err := NewWaitSet[string](WaitNoReap)
		if err != nil {
			return err
		}
		defer set.Close()
		if err := set.Add(s.zombie, "zombie"); err != nil {
			return err
		}
		key, _, err := set.Next(context.Background())
		if key != "zombie" {
			return fmt.Errorf("the key is %q, and %w", key, err)
		}
		return err
	}},
	{name: "WaitSet.Add", does: true, refused: []refusal{{calls: "epoll_ctl"}}, prepare: func(t *testing.T, s *scene) func() error {
		set := newWaitSet[int](t, 0)
		return func() error { return set.Add(s.child, 0) }
	}},
	// The runtime needs epoll_pwait, and no filter can forbid that.
	{name: "WaitSet.Next", does: true, refused: []refusal{{calls: "epoll_wait", eperm: works, enosys: works}}, prepare: func(t *testing.T, s *scene) func() error {
		set := newWaitSet[int](t, 0)
		return func() error { _, _, err := set.Next(giveUp()); return gaveUp(err) }
	}},

	{name: "PidFD.SendSignal", refused: []refusal{{calls: "pidfd_send_signal"}}, do: func(s *scene) error { return s.child.SendSignal(0) }},
	{name: "PidFD.SendSignalTo", needs: FeatureSignalTo, refused: []refusal{{calls: "pidfd_send_signal"}}, do: func(s *scene) error {
		return s.child.SendSignalTo(0, PIDFD_SIGNAL_THREAD_GROUP)
	}},
	{name: "PidFD.QueueSignal", refused: []refusal{{calls: "pidfd_send_signal"}}, do: func(s *scene) error { return s.child.QueueSignal(syscall.SIGURG, 7) }},
	{name: "PidFD.Verify", takes: true, refused: []refusal{{calls: "pidfd_send_signal"}, {calls: "openat", eperm: works, enosys: works}}, do: func(s *scene) error { return s.child.Verify(func() error { return nil }) }},
	{name: "PidFD.GetFD", needs: FeatureGetFD, takes: true, refused: []refusal{{calls: "pidfd_getfd"}}, do: func(s *scene) error { return closed(s.child.GetFD(0)) }},
	{name: "PidFD.Setns", needs: FeatureSetns, root: true, does: true, refused: []refusal{{calls: "setns"}}, do: func(s *scene) error { return s.child.Setns(syscall.CLONE_NEWUTS) }},
	{name: "PidFD.Namespace", needs: FeatureNamespace, takes: true, does: true, refused: []refusal{{calls: "ioctl", enosys: works}, {calls: "ioctl openat"}}, do: func(s *scene) error {
		return closed(s.child.Namespace(UTSNamespace))
	}},
	// Where nothing is mapped.
	{name: "PidFD.Madvise", needs: FeatureMadvise, root: true, refused: []refusal{{calls: "process_madvise"}}, do: func(s *scene) error {
		return except(second(s.child.Madvise(MADV_COLD, MemoryRange{0, uintptr(os.Getpagesize())})), syscall.ENOMEM)
	}},
	// Of one that is not about to die.
	{name: "PidFD.Mrelease", needs: FeatureMrelease, refused: []refusal{{calls: "process_mrelease"}}, do: func(s *scene) error {
		return except(s.child.Mrelease(), syscall.EINVAL)
	}},
	{name: "PidFD.GetXattr", needs: FeatureXattr, does: true, refused: []refusal{{calls: "fgetxattr"}}, do: func(s *scene) error {
		return except(second(s.child.GetXattr("trusted.none")), syscall.ENODATA)
	}},
	{name: "PidFD.SetXattr", needs: FeatureXattr, root: true, does: true, refused: []refusal{{calls: "fsetxattr"}}, do: func(s *scene) error {
		return s.child.SetXattr("trusted.some", nil, 0)
	}},
	{name: "PidFD.RemoveXattr", needs: FeatureXattr, root: true, does: true, refused: []refusal{{calls: "fremovexattr"}}, do: func(s *scene) error {
		return except(s.child.RemoveXattr("trusted.none"), syscall.ENODATA)
	}},
	{name: "PidFD.ListXattrs", does: true, refused: []refusal{{calls: "flistxattr"}}, do: func(s *scene) error { return second(s.child.ListXattrs()) }},

	{name: "PeerPidFD", needs: FeaturePeerPidFD, takes: true, does: true, refused: []refusal{{calls: "getsockopt"}}, prepare: func(t *testing.T, s *scene) func() error {
		a, _ := socketpair(t, syscall.SOCK_STREAM)
		return func() error { return closed(PeerPidFD(a)) }
	}},
	{name: "PeerCredentials", does: true, refused: []refusal{{calls: "direct_getsockopt"}}, prepare: func(t *testing.T, s *scene) func() error {
		a, _ := socketpair(t, syscall.SOCK_STREAM)
		return func() error { return second(PeerCredentials(a)) }
	}},
	{name: "PeerGroups", relies: []ability{socketGroups}, does: true, refused: []refusal{{calls: "direct_getsockopt"}}, prepare: func(t *testing.T, s *scene) func() error {
		a, _ := socketpair(t, syscall.SOCK_STREAM)
		return func() error { return second(PeerGroups(a)) }
	}},
	{name: "SetPassPidFD", needs: FeaturePassPidFD, does: true, refused: []refusal{{calls: "setsockopt"}}, prepare: func(t *testing.T, s *scene) func() error {
		a, _ := socketpair(t, syscall.SOCK_DGRAM)
		return func() error { return SetPassPidFD(a, true) }
	}},
	{name: "TakePeerPidFD", needs: FeaturePassPidFD, takes: true, does: true, refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}}, prepare: func(t *testing.T, s *scene) func() error {
		a, b := socketpair(t, syscall.SOCK_DGRAM)
		if err := SetPassPidFD(b, true); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		return func() error {
			control := make([]byte, PidFDControlSize)
			if _, _, _, _, err := b.ReadMsgUnix(make([]byte, 1), control); err != nil {
				return err
			}
			return closed(TakePeerPidFD(control))
		}
	}},

	{name: "ListenFDs", needs: FeaturePidFDID, takes: true, does: true, refused: []refusal{
		{calls: "pidfd_open", eperm: works, enosys: works}, {calls: byInode, eperm: works, enosys: works},
	}, prepare: passedTo(func(s *scene) PidFDID { return s.self.ID })},
	{name: "ListenFDs for another process", needs: FeaturePidFDID, takes: true, refused: []refusal{
		{calls: "pidfd_open", eperm: taken, enosys: taken}, {calls: byInode, eperm: taken, enosys: taken}, {calls: allCalls, eperm: taken, enosys: taken},
	}, prepare: func(t *testing.T, s *scene) func() error {
		take := passedTo(func(s *scene) PidFDID { return s.id })(t, s)
		return func() error {
			err := take()
			switch {
			case err == nil:
				return errTaken
			case strings.HasPrefix(err.Error(), "0 files: LISTEN_PID names this process, but"):
				return nil
			}
			return err
		}
	}},
	{name: "InspectListenEnv", needs: FeaturePidFDID, takes: true, does: true, refused: []refusal{
		{calls: "pidfd_open", eperm: works, enosys: works},
	}, prepare: func(t *testing.T, s *scene) func() error {
		passed(t, s.self.ID)
		return func() error {
			e := InspectListenEnv()
			if e.Err == nil && !slices.Equal(e.Names, []string{"three"}) {
				return errors.New(e.Explain())
			}
			if _, ok := os.LookupEnv("LISTEN_PIDFDID"); !ok || len(e.Environ) != 4 || inherited(listenFDsStart) != "" {
				return fmt.Errorf("it has taken something: %+v", e)
			}
			return e.Err
		}
	}},
	{name: "TakeListenFDsFunc", needs: FeaturePidFDID, takes: true, does: true, refused: []refusal{
		{calls: "pidfd_open", eperm: works, enosys: works}, {calls: byInode, eperm: works, enosys: works},
	}, prepare: func(t *testing.T, s *scene) func() error {
		passed(t, s.self.ID)
		t.Cleanup(listenAgain)
		return func() error {
			files, err := TakeListenFDsFunc(func(left []*os.File) ([]*os.File, error) { return left, nil })
			if err == nil && len(files) != 1 {
				return errors.New(InspectListenEnv().Explain())
			}
			return err
		}
	}},
	{name: "ParseListenEnv", does: true, do: func(s *scene) error {
		if e := ParseListenEnv([]string{"LISTEN_PID=1", "LISTEN_FDS=1"}, 1, 0, 1); len(e.Names) != 1 {
			return errors.New(e.Explain())
		}
		return nil
	}},
	{name: "DupFile", takes: true, does: true, do: func(s *scene) error {
		f, err := DupFile(s.null, "x")
		if err == nil {
			f.Close()
		}
		return err
	}},
	{name: "RenewListenEnv", needs: FeaturePidFDID, takes: true, does: true, refused: []refusal{
		{calls: "pidfd_open", eperm: works, enosys: works}, {calls: byInode, eperm: works, enosys: works},
	}, do: func(s *scene) error {
		env := []string{"LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_PIDFDID=2"}
		renewed, err := RenewListenEnv(env)
		if err == nil && (!slices.Contains(renewed, "LISTEN_PID="+strconv.Itoa(os.Getpid())) || slices.Contains(renewed, "LISTEN_PIDFDID=2")) {
			return fmt.Errorf("%q", renewed)
		}
		return err
	}},
	// Up to the point where it would not return.
	{name: "ExecListenFDs", takes: true, does: true, refused: []refusal{{calls: "pidfd_open", eperm: works, enosys: works}}, do: func(s *scene) error {
		err := ExecListenFDs(s.program, []string{"x"}, nil, []*os.File{s.null, s.null})
		if err == nil {
			return errors.New("it has returned")
		}
		return except(err, syscall.ENOEXEC)
	}},
	{name: "ExecConfig.ExecListenFDs", does: true, do: func(s *scene) error {
		err := ExecConfig{InPlace: true, Pdeathsig: syscall.SIGURG}.ExecListenFDs(s.program, []string{"x"}, nil, nil)
		if err == nil {
			return errors.New("it has returned")
		}
		return except(err, syscall.ENOEXEC)
	}},
	{name: "StartListenFDs", needs: FeatureWait, slow: true, takes: true, does: true, refused: []refusal{
		{calls: "execve"}, {calls: "ptrace", eperm: works, enosys: works}, {calls: "ptrace socketpair"}, {calls: "pidfd_open", eperm: works, enosys: works},
		{calls: "pidfd_send_signal", eperm: works, enosys: works}, {calls: "capget", eperm: works, enosys: works},
	}, prepare: starts(StartListenFDs, "/proc/self/exe")},
	{name: "StartListenFDs with what is no program", needs: FeatureWait, slow: true, takes: true, does: true, refused: []refusal{
		{calls: "execve"}, {calls: "ptrace", eperm: works, enosys: works}, {calls: "pidfd_open", eperm: works, enosys: works}, {calls: "pidfd_send_signal", eperm: works, enosys: works},
	}, prepare: starts(StartListenFDs, "")},
	{name: "StartListenFDsBy", needs: FeatureWait, slow: true, takes: true, does: true, refused: []refusal{
		{calls: "execve"}, {calls: "ptrace", eperm: works, enosys: works}, {calls: "ptrace socketpair"}, {calls: "pidfd_open", eperm: works, enosys: works},
		{calls: "pidfd_send_signal", eperm: works, enosys: works}, {calls: "capget", eperm: works, enosys: works},
	}, prepare: starts(startListenFDsBy, "/proc/self/exe")},

	{name: "Notify", takes: true, does: true, refused: []refusal{{calls: "socket"}, {calls: "connect"}, {calls: "sendmsg"}}, prepare: notifies(func(ctx context.Context, s *scene) (bool, error) {
		return Notify(ctx, NotifyReady)
	})},
	{name: "NotifyReloading", takes: true, does: true, refused: []refusal{{calls: "clock_gettime"}}, prepare: notifies(func(ctx context.Context, s *scene) (bool, error) {
		return NotifyReloading(ctx)
	})},
	{name: "NotifyStoreFDs", takes: true, does: true, refused: []refusal{{calls: "sendmsg"}}, prepare: notifies(func(ctx context.Context, s *scene) (bool, error) {
		return NotifyStoreFDs(ctx, "null", []*os.File{s.null, s.null})
	})},
	{name: "NotifyRemoveStoredFDs", takes: true, does: true, refused: []refusal{{calls: "sendmsg"}}, prepare: notifies(func(ctx context.Context, s *scene) (bool, error) {
		return NotifyRemoveStoredFDs(ctx, "null")
	})},
	{name: "NotifyMainProcess", takes: true, does: true, refused: []refusal{{calls: "sendmsg"}}, prepare: notifies(func(ctx context.Context, s *scene) (bool, error) {
		return NotifyMainProcess(ctx, ProcessRef{PID: 1})
	})},
	{name: "NotifyMainPidFD", takes: true, does: true, refused: []refusal{{calls: "sendmsg"}}, prepare: notifies(func(ctx context.Context, s *scene) (bool, error) {
		return NotifyMainPidFD(ctx, s.child)
	})},
	{name: "NotifyBarrier", takes: true, does: true, refused: []refusal{{calls: "pipe2"}, {calls: "sendmsg"}, {calls: "ppoll ppoll_time32"}}, prepare: notifies(func(ctx context.Context, s *scene) (bool, error) {
		sent, err := NotifyBarrier(giveUp())
		return sent, gaveUp(err)
	})},

	{name: "Notifier.Watchdog", takes: true, does: true, refused: []refusal{{calls: "socket"}, {calls: "sendmsg"}}, prepare: func(t *testing.T, s *scene) func() error {
		newManager(t, "")
		n := &Notifier{Address: os.Getenv("NOTIFY_SOCKET"), WatchdogInterval: 40 * time.Millisecond}
		// It tries more than once before it returns an error.
		return func() error { return gaveUp(n.Watchdog(giveUpAfter(200*time.Millisecond), nil)) }
	}},
	{name: "ListenNotify", takes: true, does: true, refused: []refusal{{calls: "socket"}, {calls: "setsockopt"}, {calls: "bind"}, {calls: "fchmod"}, {calls: "statx", eperm: works, enosys: works}}, prepare: func(t *testing.T, s *scene) func() error {
		path := filepath.Join(t.TempDir(), "notify")
		return func() error {
			l, err := ListenNotify(path, 0o600)
			if err != nil {
				return err
			}
			return l.Close()
		}
	}},
	{name: "NotifyListener.Next", takes: true, does: true, refused: []refusal{{calls: "recvmsg"}, {calls: "statx", eperm: works, enosys: works}}, prepare: func(t *testing.T, s *scene) func() error {
		l, n := listenNotify(t)
		return func() error {
			if _, err := n.NotifyFiles(context.Background(), []*os.File{s.null}, NotifyReady); err != nil {
				return err
			}
			done, cancel := context.WithCancel(context.Background())
			cancel() // the message is there
			m, err := l.Next(done)
			if l.Dropped() > 0 {
				return syscall.EMFILE // the descriptor did not come
			}
			if err != nil {
				return err
			}
			defer m.Close()
			if isMissing(t, FeaturePassPidFD) && (errors.Is(m.SenderErr, errors.ErrUnsupported) || errors.Is(m.SenderErr, syscall.ENODATA)) {
				return nil // gVisor accepts SO_PASSPIDFD, and passes none
			}
			return m.SenderErr
		}
	}},

	{name: "IsSocket", does: true, refused: []refusal{{calls: "getsockopt"}}, do: func(s *scene) error { return second(IsSocket(s.null, 0, 0, -1)) }},
	{name: "IsSocketUnix", does: true, refused: []refusal{{calls: "getsockopt"}, {calls: "getsockname"}}, prepare: func(t *testing.T, s *scene) func() error {
		a, _ := socketpair(t, syscall.SOCK_STREAM)
		f, err := a.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return func() error { return second(IsSocketUnix(f, 0, -1, "@")) }
	}},
	{name: "IsFIFO", does: true, refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}}, do: func(s *scene) error { return second(IsFIFO(s.null, "")) }},
	{name: "IsSpecial", does: true, refused: []refusal{{calls: "statx", eperm: works, enosys: works}, {calls: "statx fstat"}}, do: func(s *scene) error { return second(IsSpecial(s.null, "/dev/null")) }},
	{name: "IsMessageQueue", relies: []ability{messageQueues}, does: true, refused: []refusal{{calls: "mq_getsetattr"}}, prepare: func(t *testing.T, s *scene) func() error {
		if mqGetAttr(int(s.null.Fd())) == syscall.ENOSYS {
			t.Skip("this kernel has no message queues")
		}
		return func() error { return second(IsMessageQueue(s.null, "")) }
	}},
}

// To ask for a feature is an operation, too.
func init() {
	calls := map[Feature]string{
		FeatureFileHandle: "name_to_handle_at", FeatureOpenByHandle: "open_by_handle_at", FeatureHandleFID: "name_to_handle_at",
		FeatureFileSystemID: "ioctl", FeatureMountIDUnique: "name_to_handle_at", FeatureHandleConnectable: "name_to_handle_at",
		FeatureNamespaceHandle: "open_by_handle_at", FeatureNamespaceByID: "open_by_handle_at", FeatureNamespaces: "listns", FeaturePidFD: "pidfd_open", FeatureWait: "waitid", FeatureGetFD: "pidfd_getfd",
		FeatureSetns: "setns", FeatureMrelease: "process_mrelease", FeaturePeerPidFD: "getsockopt", FeaturePassPidFD: "setsockopt",
		FeatureThread: "pidfd_open", FeatureSendSignal: "pidfd_send_signal", FeatureSignalTo: "pidfd_send_signal", FeaturePidFDID: byInode, FeatureNamespace: "ioctl",
		FeatureInfo: "ioctl", FeatureOpenByID: "open_by_handle_at", FeatureXattr: "fgetxattr",
	}
	for _, f := range Features() {
		o := operation{name: "Probe: " + f.String(), needs: f, takes: true, do: func(*scene) error { return f.Probe() }, refused: []refusal{{calls: calls[f]}}}
		switch f {
		case FeatureCgroupID, FeatureMadvise, FeatureExitStatus: // their answers differ by machine and by kernel; see above
			continue
		case FeatureFileHandle, FeatureHandleFID, FeatureMountIDUnique, FeatureHandleConnectable:
			o.takes, o.relies = false, []ability{fileHandles}
		case FeatureOpenByHandle, FeatureSetns, FeatureXattr:
			o.root = true
		case FeatureNamespaces:
			o.takes, o.does = false, true
		case FeatureFileSystemID, FeaturePeerPidFD, FeaturePassPidFD:
			o.does = true
		}
		operations = append(operations, o)
	}
}

// callNumbers are those of system calls, as strace names them. What an architecture does not
// have is not refused there.
var callNumbers = map[string]int{
	"capget": unix.SYS_CAPGET, "clock_gettime": _SYS_CLOCK_GETTIME64, "close_range": unix.SYS_CLOSE_RANGE, "direct_getsockopt": unix.SYS_GETSOCKOPT, "epoll_create1": syscall.SYS_EPOLL_CREATE1,
	"epoll_ctl": syscall.SYS_EPOLL_CTL, "execve": syscall.SYS_EXECVE, "execveat": unix.SYS_EXECVEAT, "ioprio_get": unix.SYS_IOPRIO_GET, "prlimit64": syscall.SYS_PRLIMIT64,
	"sched_getaffinity": syscall.SYS_SCHED_GETAFFINITY, "sched_getattr": unix.SYS_SCHED_GETATTR, "fcntl": fcntlNumber(), "fgetxattr": unix.SYS_FGETXATTR,
	"flistxattr": unix.SYS_FLISTXATTR, "fremovexattr": unix.SYS_FREMOVEXATTR, "fsetxattr": unix.SYS_FSETXATTR, "ioctl": unix.SYS_IOCTL, "listns": _SYS_LISTNS,
	"mq_getsetattr": syscall.SYS_MQ_GETSETATTR, "listmount": unix.SYS_LISTMOUNT, "name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT,
	"openat": syscall.SYS_OPENAT, "openat2": unix.SYS_OPENAT2, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "pidfd_open": unix.SYS_PIDFD_OPEN, "pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL,
	"pipe2": syscall.SYS_PIPE2, "readlinkat": syscall.SYS_READLINKAT, "ppoll": _SYS_PPOLL_TIME64, "ppoll_time32": unix.SYS_PPOLL, "process_madvise": unix.SYS_PROCESS_MADVISE, "process_mrelease": unix.SYS_PROCESS_MRELEASE, "ptrace": unix.SYS_PTRACE,
	"setns": unix.SYS_SETNS, "statmount": unix.SYS_STATMOUNT, "statx": unix.SYS_STATX, "unshare": syscall.SYS_UNSHARE, "waitid": unix.SYS_WAITID,
}

// fcntlNumber is that of fcntl64 where an int has 32 bits.
func fcntlNumber() int {
	switch runtime.GOARCH {
	case "386", "arm":
		return 221
	case "mips", "mipsle":
		return 4220
	}
	return unix.SYS_FCNTL
}

// callNumbersHere are those that go by another name in package syscall, or by several: what
// Go makes of Fstat, of sockets and the like.
var callNumbersHere = map[string]map[string]int{
	"amd64": {"bind": 49, "fchmod": 91, "recvmsg": 47, "connect": 42, "readlink": 89, "epoll_wait": 232, "fstat": 5, "fstatfs": 138, "getsockname": 51, "getsockopt": 55, "sendmsg": 46, "setsockopt": 54, "socket": 41, "socketpair": 53},
	"386":   {"bind": 102, "fchmod": 94, "recvmsg": 102, "connect": 102, "readlink": 85, "epoll_wait": 256, "fstat": 197, "fstatfs": 269, "getsockname": 102, "getsockopt": 102, "sendmsg": 102, "setsockopt": 102, "socket": 102, "socketpair": 102},
	"arm":   {"bind": 282, "fchmod": 94, "recvmsg": 297, "connect": 283, "readlink": 85, "epoll_wait": 252, "fstat": 197, "fstatfs": 267, "getsockname": 286, "getsockopt": 295, "sendmsg": 296, "setsockopt": 294, "socket": 281, "socketpair": 288},
	"arm64": {"bind": 200, "fchmod": 52, "recvmsg": 212, "connect": 203, "fstat": 80, "fstatfs": 44, "getsockname": 204, "getsockopt": 209, "sendmsg": 211, "setsockopt": 208, "socket": 198, "socketpair": 199},
}[runtime.GOARCH]

// allCalls is what Linux 5.0 lacks, and the file handles, which containers refuse.
const allCalls = "pidfd_open pidfd_send_signal pidfd_getfd name_to_handle_at open_by_handle_at process_madvise process_mrelease close_range statmount listmount"

// answersTo has one answer to all of these calls.
func answersTo(calls string, answer uint32) (answers map[int]uint32, ok bool) {
	answers = map[int]uint32{}
	for _, name := range strings.Fields(calls) {
		nr, ok := callNumbers[name]
		if !ok {
			nr, ok = callNumbersHere[name]
		}
		if !ok {
			return nil, false
		}
		answers[nr] = answer
	}
	return answers, true
}

// descriptorNumbers returns those of the open descriptors. It takes no /proc. It looks at no number behind eight
// that are free, for a new descriptor has the lowest one: on an emulated machine a call takes long.
func descriptorNumbers() []int { return openDescriptors(0, 8) }

// openDescriptors returns the open descriptors from one on, until so many in a row are free.
func openDescriptors(first, enough int) (numbers []int) {
	for fd, free := first, 0; fd < 256 && free < enough; fd++ {
		free++
		if _, errno := fcntl(fd, syscall.F_GETFD, 0); errno == 0 {
			numbers, free = append(numbers, fd), 0
		}
	}
	return numbers
}

// try does what prepare or do of an operation does, in surroundings, as a test of its own. It
// leaves no descriptor.
func (o operation) try(t *testing.T, s *scene, name string, in func(t *testing.T, do func()), check func(t *testing.T, err error)) {
	t.Run(name, func(t *testing.T) {
		do := func() error { return o.do(s) }
		if o.prepare != nil {
			do = o.prepare(t, s)
		}
		var before, after []int
		var err error
		in(t, func() {
			before = descriptorNumbers()
			err = do()
			after = descriptorNumbers()
		})
		if !slices.Equal(before, after) {
			t.Errorf("descriptors before: %d, after: %d, with %v", before, after, err)
		}
		check(t, err)
	})
}

// free surroundings have no restrictions.
func free(t *testing.T, do func()) { do() }

// comesTo checks the error of an operation.
func comesTo(want []error) func(t *testing.T, err error) {
	return func(t *testing.T, err error) {
		if len(want) > 0 {
			matches(t, err, want...)
		} else if err != nil {
			t.Error(err)
		}
	}
}

// eachOperation runs f for those that this kernel has and this user may do.
func eachOperation(t *testing.T, f func(t *testing.T, o operation)) {
	before := openDescriptors(0, 256) // and those beyond what each looks at
	defer func() {
		if after := openDescriptors(0, 256); !slices.Equal(before, after) {
			t.Errorf("descriptors before: %d, after: %d", before, after)
		}
	}()
	for _, o := range operations {
		t.Run(o.name, func(t *testing.T) {
			if o.needs != 0 && isMissing(t, o.needs) { // not Probe, which may be refused
				skipWithout(t, o.needs)
			}
			reliesOn(t, o.relies...)
			if calls := o.refusedHere(); calls != "" {
				lacks(t, calls+", which a seccomp filter refuses")
			}
			if slices.Contains(surroundings().open, o.needs) {
				t.Skipf("it cannot be told whether there is: %s", o.needs)
			}
			f(t, o)
		})
	}
}

// refusedHere returns calls without which the operation comes to nothing, and which the filter of a container refuses.
func (o operation) refusedHere() string {
	for _, r := range o.refused {
		answers, ok := answersTo(r.calls, 0)
		all := ok && r.eperm == nil && r.calls != allCalls
		for nr := range answers {
			all = all && refusedByOuterFilter(nr)
		}
		if all {
			return r.calls
		}
	}
	return ""
}

// refusedByOuterFilter reports whether the filter of a container refuses a system call.
func refusedByOuterFilter(nr int) bool {
	if !rights.Filter() {
		return false
	}
	const no = ^uintptr(0) // no call likes such arguments
	_, _, errno := syscall.RawSyscall6(uintptr(nr), no, no, no, no, no, no)
	return errno == syscall.EPERM
}

// isOftenTried skips an operation that this user cannot do, or that takes an emulated
// machine a minute to do as often.
func isOftenTried(t *testing.T, o operation) {
	t.Helper()
	if o.root {
		rights.Need(t, rights.SysAdmin, rights.DACReadSearch, rights.SysNice)
	}
	if o.slow && testing.Short() {
		t.Skip("not under -short")
	}
}

const againVar = "SYSFD_TEST_AGAIN" // the test that runs again

// again runs a test again in a process that is changed by change, and then returns false;
// there it returns true. That process has inherited descriptor 3.
func again(t *testing.T, change func(cmd *exec.Cmd)) bool {
	t.Helper()
	if os.Getenv(againVar) == t.Name() {
		t.Cleanup(collector.Stop()) // for try
		return true
	}
	reliesOn(t, seccompFilters, namespaces)
	keepsDescriptors(t)
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute) // of its own it cannot end if it hangs in one call
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=5m", "-test.short="+strconv.FormatBool(testing.Short()))
	cmd.Env = append(os.Environ(), againVar+"="+t.Name())
	cmd.ExtraFiles = []*os.File{openNull(t)}
	if change != nil {
		change(cmd)
	}
	out, err := cmd.CombinedOutput()
	skipped := strings.Contains(string(out), "--- SKIP: "+t.Name()+" (")
	if err != nil || !skipped && !strings.Contains(string(out), "--- PASS: "+t.Name()+" (") {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	if skipped {
		t.Skip(reasonIn(string(out)))
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "--- SKIP") || strings.Contains(line, "_test.go") {
			t.Log(strings.TrimSpace(line))
		}
	}
	return false
}

// reasonIn returns the last thing that a test has logged, without the place in the file.
func reasonIn(out string) string {
	reason := out
	for line := range strings.Lines(out) {
		if _, text, ok := strings.Cut(line, "_test.go:"); ok {
			_, reason, _ = strings.Cut(strings.TrimSpace(text), ": ")
		}
	}
	return reason
}

// What a seccomp filter refuses with EPERM is refused, and what it answers ENOSYS to is
// not there, unless there is another way, which is then taken. Nothing is left open.
func TestRestrictFilters(t *testing.T) {
	if !again(t, nil) {
		return
	}
	s := newScene(t)
	eachOperation(t, func(t *testing.T, o operation) {
		isOftenTried(t, o)
		o.try(t, s, "free", free, comesTo(works))
		rows := o.refused
		if !slices.ContainsFunc(rows, func(r refusal) bool { return r.calls == allCalls }) {
			all := refusal{calls: allCalls}
			if o.does {
				all.eperm, all.enosys = works, works
			}
			rows = append(rows[:len(rows):len(rows)], all)
		}
		for _, r := range rows {
			o.tryRefused(t, s, r.calls, syscall.EPERM, r.eperm, syscall.EPERM, os.ErrPermission)
			o.tryRefused(t, s, r.calls, syscall.ENOSYS, r.enosys, errors.ErrUnsupported)
		}
	})
}

// tryRefused tries an operation where calls fail with an errno. Its error matches want
// or, if that is nil, usual.
func (o operation) tryRefused(t *testing.T, s *scene, calls string, errno syscall.Errno, want []error, usual ...error) {
	if want == nil {
		want = usual
	}
	name := calls
	if calls == allCalls {
		name = "all"
	}
	o.try(t, s, name+": "+errno.Error(), func(t *testing.T, do func()) {
		answers, ok := answersTo(calls, retErrno|uint32(errno))
		if !ok {
			t.Skip("not on " + runtime.GOARCH)
		}
		var err error
		onThrowawayThread(func() {
			if err = filter(answers); err == nil {
				do()
			}
		})
		if err != nil {
			lacks(t, "seccomp filters: "+err.Error())
		}
	}, comesTo(want))
}

// Under a supervisor (SECCOMP_RET_USER_NOTIF) each call can take as long as that likes. The rest
// of the program runs meanwhile: here the supervisor itself, which has but one processor to run on.
func TestRestrictSupervised(t *testing.T) {
	reliesOn(t, supervisors)
	if !again(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "GOMAXPROCS=1") }) {
		return
	}
	// Package syscall does not tell the scheduler of these, nor the runtime of its epoll_ctl and
	// fcntl for os.NewFile.
	byRuntime := []string{"PidFD.Wait epoll_ctl", "PidFD.File fcntl", "FanotifyEvent.File fcntl"}
	raw := map[int]bool{}
	for _, name := range strings.Fields("execve getsockname pipe2 socket socketpair") {
		answers, _ := answersTo(name, 0) // none where its number is not known
		for nr := range answers {
			raw[nr] = true
		}
	}
	isRaw := func(nr int) bool { return raw[nr] }
	s := newScene(t)
	asked := 0
	eachOperation(t, func(t *testing.T, o operation) {
		isOftenTried(t, o)
		if o.slow {
			t.Skip("it starts programs, which the supervisor would be asked about too")
		}
		for _, r := range o.refused {
			calls, ok := answersTo(r.calls, retUserNotif)
			if !ok || slices.ContainsFunc(slices.Collect(maps.Keys(calls)), isRaw) || slices.Contains(byRuntime, o.name+" "+r.calls) {
				continue
			}
			o.try(t, s, r.calls, func(t *testing.T, do func()) {
				var err error
				var passed <-chan int
				onThrowawayThread(func() {
					if passed, err = supervise(calls); err == nil {
						do()
					}
				})
				if err != nil {
					lacks(t, "seccomp filters with a supervisor: "+err.Error())
				}
				asked += <-passed
			}, comesTo(works))
		}
	})
	if asked < 50 {
		t.Errorf("the supervisor was asked %d times, which is too few to be true", asked)
	}
}

// When there are descriptors left for a part of what an operation takes, it says so, leaves none
// open, and works again once there are more.
func TestRestrictDescriptors(t *testing.T) {
	if !again(t, nil) {
		return
	}
	s := newScene(t)
	limit := syscall.Rlimit{Cur: 64, Max: 64} // each that is left over is taken and closed again
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	eachOperation(t, func(t *testing.T, o operation) {
		isOftenTried(t, o)
		takes := o.takes || o.name == "Mounts" && (olderThan(t, "6.8") || refusedByOuterFilter(unix.SYS_LISTMOUNT))
		o.try(t, s, "before", free, comesTo(works))
		for left, done := 0, false; !done; left++ {
			skipped := true
			o.try(t, s, strconv.Itoa(left), func(_ *testing.T, do func()) { withDescriptorsLeft(left, do) }, func(t *testing.T, err error) {
				skipped = false
				if done = err == nil; !done {
					matches(t, err, syscall.EMFILE)
					if err.Error() == syscall.EMFILE.Error() {
						t.Error("it does not say what has failed")
					}
				}
				if left == 0 && done == takes {
					t.Errorf("it comes to %v, and takes descriptors: %v", err, takes)
				}
			})
			if skipped {
				return
			}
			if left == 20 {
				t.Fatal("it does not come to work")
			}
		}
		o.try(t, s, "after", free, comesTo(works))
	})
}

// withDescriptorsLeft calls f when that many more descriptors can be opened.
func withDescriptorsLeft(n int, f func()) {
	var fds []int
	for {
		fd, errno := dupAbove(0, 0)
		if errno != 0 {
			break
		}
		fds = append(fds, fd)
	}
	n = len(fds) - n
	for _, fd := range fds[n:] {
		syscall.Close(fd)
	}
	f()
	for _, fd := range fds[:n] {
		syscall.Close(fd)
	}
}

func init() { children["nothing"] = func([]string) error { return nil } }

// behindFilter makes cmd run a program that has had a filter from its beginning. If
// descriptors are passed to it, they are addressed to it.
func behindFilter(cmd *exec.Cmd, calls string, answer uint32) {
	name := ""
	for _, v := range cmd.Env {
		if value, ok := strings.CutPrefix(v, childVar+"="); ok {
			name = value
		}
	}
	cmd.Env = append(cmd.Env, childVar+"=behind-filter")
	cmd.Args = append([]string{cmd.Args[0], calls, strconv.FormatUint(uint64(answer), 10), name}, cmd.Args[1:]...)
}

func init() {
	children["behind-filter"] = func(args []string) error {
		answer, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return err
		}
		os.Setenv(childVar, args[2])
		env, err := RenewListenEnv(os.Environ())
		if err != nil {
			return err
		}
		answers, _ := answersTo(args[0], uint32(answer))
		if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
			return err
		}
		runtime.LockOSThread()
		if err := filter(answers); err != nil {
			return err
		}
		return syscall.Exec("/proc/self/exe", append([]string{os.Args[0]}, args[3:]...), env)
	}
}

// ExecListenFDs has a thread of its own, which other filters than those of all threads do not reach.
func TestRestrictExec(t *testing.T) {
	for _, test := range []struct {
		calls string
		fails bool
	}{
		{"unshare", false}, {"close_range", false}, {"unshare close_range", true},
		{"execveat sched_getattr sched_getaffinity ioprio_get", false}, {"prlimit64", false}, {"waitid", false},
	} {
		for errno, want := range map[syscall.Errno][]error{
			syscall.EPERM:  {syscall.EPERM, os.ErrPermission},
			syscall.ENOSYS: {syscall.ENOSYS, errors.ErrUnsupported},
		} {
			t.Run(test.calls+": "+errno.Error(), func(t *testing.T) {
				if test.calls == "unshare" && olderThan(t, "5.9") {
					t.Skip("close_range is there since Linux 5.9")
				}
				if test.calls == "close_range" && refusedByOuterFilter(syscall.SYS_UNSHARE) && os.Getenv(againVar) == "" {
					lacks(t, "unshare(2), which a seccomp filter refuses")
				}
				if !again(t, func(cmd *exec.Cmd) { behindFilter(cmd, test.calls, retErrno|uint32(errno)) }) {
					return
				}
				if !test.fails {
					want = works
				}
				i := slices.IndexFunc(operations, func(o operation) bool { return o.name == "ExecListenFDs" })
				s := &scene{program: noProgram(t), null: openNull(t)}
				operations[i].try(t, s, "exec", free, comesTo(want))
			})
		}
	}
}

// As on a kernel that has nothing of all this: what is passed is taken nevertheless.
func TestRestrictFromStart(t *testing.T) {
	for errno, want := range map[syscall.Errno][]error{
		syscall.EPERM:  {syscall.EPERM, os.ErrPermission},
		syscall.ENOSYS: {syscall.ENOSYS, errors.ErrUnsupported},
	} {
		t.Run(errno.Error(), func(t *testing.T) {
			if !again(t, func(cmd *exec.Cmd) {
				cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=three")
				behindFilter(cmd, allCalls, retErrno|uint32(errno))
			}) {
				return
			}
			e := InspectListenEnv()
			if files, err := ListenFDs(); err != nil || len(files) != 1 || files[0].Name() != "three" {
				t.Errorf("%v, %v: %+v", files, err, e)
			}
			for name, do := range map[string]func() error{
				"OpenPidFD":           func() error { return closed(OpenPidFD(os.Getpid(), 0)) },
				"OpenPidFD, a flag":   func() error { return closed(OpenPidFD(os.Getpid(), PIDFD_THREAD)) },
				"OpenPidFDByID":       func() error { return closed(OpenPidFDByID(1)) },
				"ProcessRef.Open":     func() error { return closed(ProcessRef{PID: 1, ID: 1}.Open()) },
				"SelfRef":             func() error { return second(SelfRef()) },
				"SelfRefOrSecondBest": func() error { return second(SelfRefOrSecondBest()) },
				"OpenOrSecondBest":    func() error { return closed(ProcessRef{PID: 1, ID: 1}.OpenOrSecondBest()) },
				"NameToHandleAt":      func() error { _, _, err := NameToHandleAt(AT_FDCWD, "/", 0); return err },
				"OpenByHandleAt":      func() error { return closed(OpenByHandleAt(AT_FDCWD, PidFDHandle(1), 0)) },
				"OpenMount":           func() error { return closed(OpenMount(1 << 31)) },
				"OpenNamespace":       func() error { return closed(OpenNamespace(NamespaceHandle(1, 0, 0))) },
				"FileRefAt":           func() error { return second(FileRefAt(AT_FDCWD, "/", 0)) },
			} {
				t.Run(name, func(t *testing.T) { matches(t, do(), want...) })
			}
			// The runtime has no handle then, but the kernel gives a pidfd to who starts a process.
			cmd := child("nothing")
			fd := -1
			cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if pidFDOf != nil {
				_, err := pidFDOf(cmd.Process)
				matches(t, err, errors.ErrUnsupported)
			}
			p, err := TakePidFD(cmd.SysProcAttr)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			r, err := p.Wait(context.Background(), 0)
			isEnd(t, r, err, exitCode(0), true)
		})
	}
}

func init() {
	// Before main, so that nothing of the package was called, not even ListenShim.
	if os.Getenv(childVar) == "untouched" {
		fmt.Println("untouched")
		os.Exit(0)
	}
	children["touches"] = func(args []string) error { return touches[args[0]]() }
}

// touches are what a program does that touches what it must not, and at the end some that do not.
var touches = map[string]func() error{
	"OpenPidFD":      func() error { return second(OpenPidFD(1, 0)) },
	"OpenPidFDByID":  func() error { return second(OpenPidFDByID(1)) },
	"SelfRef":        func() error { return second(SelfRef()) },
	"NameToHandleAt": func() error { _, _, err := NameToHandleAt(AT_FDCWD, "/", 0); return err },
	"OpenMount":      func() error { return second(OpenMount(1 << 31)) },
	"PidFD.Info":     func() error { return second(newPidFD(0, "stdin", unnumbered).Info(0)) },
	"ListenFDs": func() error { // asks for its ID, where it is addressed by that
		os.Setenv("LISTEN_PIDFDID", "1")
		return second(ListenFDs())
	},

	"nothing": func() error { return nil },
	"ListenFDs without an ID": func() error {
		os.Unsetenv("LISTEN_PIDFDID")
		files, err := ListenFDs()
		if len(files) != 1 {
			return fmt.Errorf("%d files, %v", len(files), err)
		}
		return err
	},
	"ListenFDs without anything": func() error {
		os.Clearenv()
		return second(ListenFDs())
	},
}

// There are filters that kill. Who imports the package and does not use it has nothing to fear.
func TestRestrictKill(t *testing.T) {
	reliesOn(t, killingFilters)
	keepsDescriptors(t)
	run := func(name string, args ...string) (*exec.Cmd, string, error) {
		cmd := child(name, args...)
		cmd.ExtraFiles = []*os.File{openNull(t)}
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
		behindFilter(cmd, allCalls+" ioctl setns waitid unshare", retKillProcess)
		out, err := cmd.CombinedOutput()
		return cmd, string(out), err
	}
	if _, out, err := run("untouched"); err != nil || out != "untouched\n" {
		t.Errorf("%v, %q", err, out)
	}
	for name := range touches {
		cmd, out, err := run("touches", name)
		if name == "nothing" || strings.HasPrefix(name, "ListenFDs without") {
			if err != nil {
				t.Errorf("%s: %v, %q", name, err, out)
			}
		} else if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGSYS {
			t.Errorf("%s: %v, %q", name, err, out)
		}
	}
}

// noProc are the operations that take /proc, and what they say without it.
var noProc = map[string][]error{
	"CgroupIDOf on cgroup v1":             {errors.ErrUnsupported},
	"PathOf":                              {errors.ErrUnsupported},
	"OpenMount":                           {errors.ErrUnsupported},
	"OpenFileSystem":                      {errors.ErrUnsupported},
	"OpenFileSystemOn":                    {errors.ErrUnsupported},
	"FileRef.Open":                        {errors.ErrUnsupported},
	"PidFD.NSPIDs":                        {errors.ErrUnsupported},
	"ThisBootID":                          {errors.ErrUnsupported, os.ErrNotExist},
	"ProcessRef.Open with a boot ID":      {errors.ErrUnsupported, os.ErrNotExist},
	"PidFD.RefOrSecondBest without an ID": {errors.ErrUnsupported},
	"ProcessRef.OpenOrSecondBest without an ID": {errors.ErrUnsupported, os.ErrNotExist},
	"StartListenFDs":   {os.ErrNotExist}, // the program that is started
	"StartListenFDsBy": {os.ErrNotExist},
}

// privately keeps what is mounted to the mount namespace of this process.
func privately(t *testing.T) {
	t.Helper()
	rights.MountedRoot(t)
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

func TestRestrictNoProc(t *testing.T) {
	rights.Need(t, rights.SysAdmin, rights.DACReadSearch, rights.SysNice)
	if !again(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS} }) {
		return
	}
	privately(t)
	s := newScene(t)
	eachOperation(t, func(t *testing.T, o operation) {
		want := noProc[o.name]
		if o.name == "Probe: "+FeatureSetns.String() && isMissing(t, FeatureThread) {
			want = []error{syscall.ENODATA}
		}
		if o.name == "Mounts" && olderThan(t, "6.8") {
			want = []error{errors.ErrUnsupported}
		}
		o.try(t, s, "no /proc", func(t *testing.T, do func()) {
			if err := syscall.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			defer syscall.Unmount("/proc", syscall.MNT_DETACH)
			do()
		}, comesTo(want))
	})
}

// Without privileges, all but what takes a capability works.
func TestRestrictPrivileges(t *testing.T) {
	for name, attr := range map[string]*syscall.SysProcAttr{
		"user namespace": {
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 7, HostID: os.Getuid(), Size: 1}}, // not 0: execve takes the capabilities away
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 7, HostID: os.Getgid(), Size: 1}},
		},
		"nobody": {Credential: &syscall.Credential{Uid: 65534, Gid: 65534}},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv(againVar) == "" && os.Getenv(emulatorVar) == "" {
				if attr.Credential != nil {
					rights.Need(t, rights.SetUID, rights.SetGID)
				} else if err := (&exec.Cmd{Path: "/proc/self/exe", Args: []string{"x"}, Env: []string{childVar + "=nothing"}, SysProcAttr: attr}).Run(); err != nil {
					lacks(t, "user namespaces: "+err.Error())
				}
			}
			if !again(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = attr }) {
				return
			}
			s := newScene(t)
			eachOperation(t, func(t *testing.T, o operation) {
				want := works
				if o.root {
					want = []error{syscall.EPERM, os.ErrPermission}
				}
				o.try(t, s, name, free, comesTo(want))
			})
		})
	}
}

// In a pid namespace all works, but the processes outside are out of sight, whichever /proc is there.
func TestRestrictPIDNamespace(t *testing.T) {
	const outsideVar = "SYSFD_TEST_OUTSIDE" // the process that is outside
	for _, proc := range []string{"own", "outer"} {
		t.Run(proc, func(t *testing.T) {
			rights.Need(t, rights.SysAdmin, rights.DACReadSearch, rights.SysNice)
			if !again(t, func(cmd *exec.Cmd) {
				p := openPidFD(t, os.Getpid())
				id, _ := p.ID()
				cmd.Env = append(cmd.Env, outsideVar+"="+ProcessRef{PID: os.Getpid(), ID: id}.String())
				cmd.ExtraFiles = append(cmd.ExtraFiles, duplicateOf(t, p), duplicateOf(t, reapedPidFD(t)))
				cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
			}) {
				return
			}
			if os.Getpid() != 1 {
				t.Fatal(os.Getpid())
			}
			pidOutside := strconv.Itoa(statusNumber(t, "Pid:"))
			privately(t)
			if proc == "own" {
				if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
					t.Fatal(err)
				}
			}
			s := newScene(t)
			eachOperation(t, func(t *testing.T, o operation) {
				want := works
				if proc == "outer" && (o.name == "PidFD.Verify" || strings.HasSuffix(o.name, "OrSecondBest without an ID")) {
					want = []error{errors.ErrUnsupported}
				}
				o.try(t, s, "try", free, comesTo(want))
			})

			outside, err := NewPidFD(4)
			if err != nil {
				t.Fatal(err)
			}
			defer outside.Close()
			isRunning(t, outside, WaitExited)
			matches(t, outside.SendSignal(0), syscall.EINVAL)
			matches(t, outside.Verify(func() error { return nil }), syscall.EREMOTE)

			// Of one outside that was reaped it is not known that it was. Linux 6.16 and 6.17 say ESRCH of either.
			gone, err := NewPidFD(5)
			if err != nil {
				t.Fatal(err)
			}
			defer gone.Close()
			if !olderThan(t, "6.13") {
				check := func() {
					for _, p := range []*PidFD{outside, gone} {
						matches(t, second(p.PID()), syscall.EREMOTE)
						matches(t, second(p.Info(PIDFD_INFO_PID)), syscall.EREMOTE)
					}
					r, err := gone.TryWait(0)
					if err != nil || !r.Ended {
						t.Errorf("%+v, %v", r, err)
					}
					isUnknown(t, r)
					matches(t, r.Unknown, syscall.EREMOTE)
				}
				check()
				underFilter(t, func() error { return refuse(map[int]syscall.Errno{unix.SYS_IOCTL: syscall.ESRCH}) }, check)
			}

			passed(t, s.self.ID)
			t.Setenv("LISTEN_PID", pidOutside)
			t.Cleanup(listenAgain)
			if e := InspectListenEnv(); !strings.HasPrefix(e.Reason, "LISTEN_PID names process "+pidOutside+"; this is process 1") {
				t.Errorf("%+v", e)
			}
			if files, err := ListenFDs(); err != nil || len(files) != 0 {
				t.Errorf("%v, %v", files, err)
			}

			if olderThan(t, FeaturePidFDID.Since()) {
				return
			}
			r, err := ParseProcessRef(os.Getenv(outsideVar))
			if err != nil {
				t.Fatal(err)
			}
			if id := idOf(t, outside); id != r.ID {
				t.Errorf("ID %d, want %d", id, r.ID)
			}
			if !olderThan(t, "6.13") {
				matches(t, second(outside.Ref()), syscall.EREMOTE)
			}
			if !olderThan(t, "6.14") {
				matches(t, second(OpenPidFDByID(r.ID)), syscall.ESTALE) // it may be reaped or out of sight
			}
			// Also with PIDs that mean something else in here.
			for _, pid := range []int{r.PID, 1, s.process.Pid} {
				r := ProcessRef{PID: pid, ID: r.ID}
				matches(t, second(r.Open()), os.ErrProcessDone, syscall.ESRCH)
				matches(t, second(r.openByPID()), os.ErrProcessDone, syscall.ESRCH)
			}
		})
	}
}
