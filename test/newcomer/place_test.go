//go:build linux

package newcomer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/overdue"
)

// A place is where tests run. It has mounts of its own, and a network of its own, for tests of two
// places use the same addresses at once.
type place struct {
	name    string
	flags   uintptr              // further namespaces, as for clone(2)
	prepare func(v *visit) error // as root
	caps    []uintptr            // root's capabilities, if it has not all
	user    bool                 // not root
	filter  bool                 // under a seccomp filter
}

// A visit is a run of one program in a place.
type visit struct {
	Place   string
	Module  string   // the root directory of the library
	Scratch string   // what the host and the place share; it has the programs
	Root    string   // the root directory of the place, if it is not that of the host
	Dir     string   // relative to Module
	Args    []string // the first is relative to Scratch
	Temp    string   // for temporary files
	Inside  bool     // the place was made
}

const visitVar = "SYSFD_TEST_VISIT"

var places = []place{
	{name: "an ordinary user", user: true},
	{name: "Docker's capabilities", caps: ofDocker},
	{name: "Docker", caps: ofDocker, filter: true, prepare: (*visit).docker,
		flags: unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP},
	{name: "no cgroup2", prepare: (*visit).withoutCgroups},
	{name: "read-only sysctls", prepare: func(*visit) error { return readOnly("/proc/sys") }},
	{name: "chroot", prepare: (*visit).chroot},
	{name: "chroot with /proc", prepare: func(v *visit) error {
		return errors.Join(v.chroot(), unix.Mount("proc", v.Root+"/proc", "proc", 0, ""))
	}},
}

// What root has in a container of Docker.
var ofDocker = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD, unix.CAP_NET_RAW, unix.CAP_SETGID,
	unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
}

// What its seccomp profile refuses to root with these, among the calls that the tests make.
var refusedByDocker = []uint32{
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE, unix.SYS_KCMP, unix.SYS_FANOTIFY_INIT,
	unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_STATMOUNT, unix.SYS_LISTMOUNT, unix.SYS_LISTNS,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR, unix.SYS_SETHOSTNAME, unix.SYS_QUOTACTL, unix.SYS_SYSLOG,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_MBIND, unix.SYS_SET_MEMPOLICY, unix.SYS_CLOCK_SETTIME, unix.SYS_ACCT, unix.SYS_REBOOT,
}

func TestMain(m *testing.M) {
	text := os.Getenv(visitVar)
	if text == "" {
		overdue.Report()
		os.Exit(m.Run())
	}
	var v visit
	err := json.Unmarshal([]byte(text), &v)
	if err == nil {
		err = v.begin()
	}
	if err == nil {
		os.Exit(0)
	}
	if status := (*exec.ExitError)(nil); errors.As(err, &status) {
		os.Exit(max(status.ExitCode(), 1))
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", v.Place, err)
	os.Exit(125)
}

// command returns what makes the place and runs the program there.
func (v visit) command() *exec.Cmd {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), visitVar+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: v.place().flags | unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (v visit) place() place {
	for _, p := range places {
		if p.name == v.Place {
			return p
		}
	}
	panic(v.Place)
}

// begin makes the place and goes there.
func (v visit) begin() error {
	p := v.place()
	runtime.LockOSThread()
	if v.Inside {
		return v.run(p)
	}
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), loopbackUp()); err != nil {
		return err
	}
	// Where everybody can read it.
	if err := bind(v.Module, v.Scratch+"/src"); err != nil {
		return err
	}
	v.Module = v.Scratch + "/src"
	// The paths of temporary files are no longer than elsewhere, for those of sockets have a limit.
	if err := bind(v.Scratch+"/tmp", v.Temp); err != nil {
		return err
	}
	if p.prepare != nil {
		if err := p.prepare(&v); err != nil {
			return err
		}
	}
	// In a process of its own, for no test is used to be the first one of a PID namespace.
	v.Inside = true
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), visitVar+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// run becomes the program.
func (v visit) run(p place) error {
	if v.Root != "" {
		if err := unix.Chroot(v.Root); err != nil {
			return err
		}
	}
	if err := os.Chdir(filepath.Join(v.Module, v.Dir)); err != nil {
		return err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TMPDIR=" + v.Temp}
	if p.filter {
		if err := filter(refusedByDocker); err != nil {
			return err
		}
	}
	if p.caps != nil {
		if err := keep(p.caps); err != nil {
			return err
		}
	}
	if p.user {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return err
		}
	}
	program := filepath.Join(v.Scratch, v.Args[0])
	return os.NewSyscallError("execve "+program, unix.Exec(program, append([]string{program}, v.Args[1:]...), env))
}

const nobody = 65534

// keep leaves root no other capabilities than these, and what it executes.
func keep(caps []uintptr) error {
	var kept uint64
	for _, c := range caps {
		kept |= 1 << c
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if kept&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return err
			}
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(kept), Permitted: uint32(kept)},
		{Effective: uint32(kept >> 32), Permitted: uint32(kept >> 32)},
	}
	return unix.Capset(&header, &data[0])
}

// filter answers EPERM to these calls, to clone(2) for new namespaces as well, and ENOSYS to clone3(2), whose
// flags a filter cannot see.
func filter(refused []uint32) error {
	const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	eperm := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	is := func(nr uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: nr}
	}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	program := []unix.SockFilter{load(0)}
	for _, nr := range refused {
		program = append(program, is(nr, 1), eperm)
	}
	program = append(program,
		is(unix.SYS_CLONE3, 1),
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		is(unix.SYS_CLONE, 3),
		load(16), // the low half of the first argument
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: newNamespaces},
		eperm,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

func readOnly(dir string) error {
	return errors.Join(unix.Mount(dir, dir, "", unix.MS_BIND, ""), unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
}

// bind mounts a directory, and what is mounted in it, on another.
func bind(from, to string) error {
	return errors.Join(os.MkdirAll(to, 0o755), os.NewSyscallError("mount "+from+" on "+to, unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")))
}

func (v *visit) withoutCgroups() error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if words := strings.Fields(line); words[2] == "cgroup2" || words[2] == "cgroup" {
			err = errors.Join(err, os.NewSyscallError("umount "+words[1], unix.Unmount(words[1], unix.MNT_DETACH)))
		}
	}
	return errors.Join(err, unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", 0, ""))
}

// chroot makes a root directory like one that debootstrap has made, with the programs of this machine. It is on a disk,
// and no mount point.
func (v *visit) chroot() (err error) {
	unix.Umask(0)
	if v.Root, err = os.MkdirTemp(v.Scratch, "root"); err != nil {
		return err
	}
	return errors.Join(os.Chmod(v.Root, 0o755), v.fillRoot())
}

func (v *visit) fillRoot() (err error) {
	for _, name := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"} {
		info, errStat := os.Lstat(name)
		if errors.Is(errStat, os.ErrNotExist) {
			continue
		}
		err = errors.Join(err, errStat)
		if info.Mode()&os.ModeSymlink != 0 {
			target, errLink := os.Readlink(name)
			err = errors.Join(err, errLink, os.Symlink(target, v.Root+name))
		} else {
			err = errors.Join(err, bind(name, v.Root+name))
		}
	}
	err = errors.Join(err, bind(v.Module, v.Root+"/src"),
		os.Mkdir(v.Root+"/scratch", 0o755), unix.Mount(v.Scratch, v.Root+"/scratch", "", unix.MS_BIND, "")) // without this root directory, which is mounted there
	for _, name := range []string{"/proc", "/sys", "/dev", "/run", "/root"} {
		err = errors.Join(err, os.MkdirAll(v.Root+name, 0o755))
	}
	err = errors.Join(err, os.Mkdir(v.Root+"/tmp", 0o777|os.ModeSticky))
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		err = errors.Join(err, unix.Mknod(v.Root+"/dev/"+d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))))
	}
	v.Module, v.Scratch, v.Temp = "/src", "/scratch", "/tmp"
	return err
}

// docker makes what a container of Docker has: its own root directory, which is an overlay, and file systems of the
// kernel that are partly hidden or read-only.
func (v *visit) docker() error {
	unix.Umask(0)
	layers := filepath.Join(v.Scratch, "layers") // in memory, for an overlay does not lie on another
	v.Root = layers + "/root"
	err := errors.Join(os.MkdirAll(layers, 0o755), unix.Mount("tmpfs", layers, "tmpfs", 0, "mode=755"))
	for _, name := range []string{"/root", "/lower", "/upper", "/work"} {
		err = errors.Join(err, os.Mkdir(layers+name, 0o755))
	}
	err = errors.Join(err, unix.Mount("overlay", v.Root, "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers)))
	mount := func(source, target, fsType string, flags uintptr, data string) {
		err = errors.Join(err, os.MkdirAll(v.Root+target, 0o755),
			os.NewSyscallError("mount "+fsType+" on "+target, unix.Mount(source, v.Root+target, fsType, flags, data)))
	}
	mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=65536k")
	err = errors.Join(err, v.fillRoot())
	const restricted = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mount("proc", "/proc", "proc", restricted, "")
	mount("sysfs", "/sys", "sysfs", restricted|unix.MS_RDONLY, "")
	if _, errStat := os.Stat(v.Root + "/sys/fs/cgroup"); errStat == nil {
		mount("cgroup", "/sys/fs/cgroup", "cgroup2", restricted|unix.MS_RDONLY, "")
	}
	mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
	mount("shm", "/dev/shm", "tmpfs", restricted, "mode=1777,size=65536k")
	mount("mqueue", "/dev/mqueue", "mqueue", restricted, "")
	err = errors.Join(err, os.Symlink("pts/ptmx", v.Root+"/dev/ptmx"), os.Symlink("/proc/self/fd", v.Root+"/dev/fd"))
	for _, name := range []string{"bus", "fs", "irq", "sys", "sysrq-trigger"} {
		if _, errStat := os.Stat(v.Root + "/proc/" + name); errStat == nil {
			err = errors.Join(err, readOnly(v.Root+"/proc/"+name))
		}
	}
	for _, name := range []string{"kcore", "keys", "timer_list"} {
		if _, errStat := os.Stat(v.Root + "/proc/" + name); errStat == nil {
			err = errors.Join(err, unix.Mount("/dev/null", v.Root+"/proc/"+name, "", unix.MS_BIND, ""))
		}
	}
	if err != nil {
		return err
	}
	// Nothing of the host remains in sight.
	if err := errors.Join(unix.Chdir(v.Root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH)); err != nil {
		return err
	}
	v.Root = ""
	return nil
}

// loopbackUp makes 127.0.0.1 an address of the network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifreq.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq)
}
