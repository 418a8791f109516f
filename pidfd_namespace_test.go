//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sysfd/sysfd/internal/rights"
)

// namespaced returns a pidfd of a process with namespaces of its own, where that can be had.
func namespaced(t *testing.T) (p *PidFD, pid int) {
	t.Helper()
	cmd := child("hostname")
	if os.Getenv(emulatorVar) == "" && rights.Has(rights.SysAdmin) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNS}
		cmd.Args = append(cmd.Args, "sysfd-test")
	}
	lineOf(t, cmd)
	return openPidFD(t, cmd.Process.Pid), cmd.Process.Pid
}

func init() {
	children["hostname"] = func(args []string) error {
		for _, name := range args {
			if err := syscall.Sethostname([]byte(name)); err != nil {
				return err
			}
		}
		fmt.Println(os.Getpid())
		_, err := io.ReadAll(os.Stdin)
		return err
	}
}

func TestNamespace(t *testing.T) {
	keepsDescriptors(t)
	p, pid := namespaced(t)
	ways := map[string]func(kind NamespaceKind) (*os.File, error){
		"any": p.Namespace,
		"/proc": func(kind NamespaceKind) (*os.File, error) {
			fd, err := p.procNamespace(pid, kind)
			return os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d/ns/%s", pid, kind)), err
		},
	}
	if os.Getenv(emulatorVar) == "" && FeatureNamespace.Probe() == nil {
		ways["ioctl"] = func(kind NamespaceKind) (*os.File, error) {
			fd, errno := pidfdGetNamespace(p.fd, uint32(kind))
			if errno != 0 {
				return nil, errno
			}
			return os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d/ns/%s", pid, kind)), nil
		}
	}
	for kind, name := range namespaceNames {
		want, err := os.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if err != nil {
			t.Logf("%s: %v", name, err) // not in this kernel
			continue
		}
		for way, open := range ways {
			f, err := open(kind)
			if err != nil {
				t.Errorf("%s, by %s: %v", name, way, err)
				continue
			}
			if got, err := f.Stat(); err != nil || !os.SameFile(got, want) {
				t.Errorf("%s, by %s: another one, %v", name, way, err)
			}
			if want := fmt.Sprintf("pidfd:%d/ns/%s", pid, name); f.Name() != want {
				t.Errorf("%s, by %s: called %s", name, way, f.Name())
			}
			if flags, errno := fcntl(int(f.Fd()), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
				t.Errorf("%s, by %s: descriptor flags %#x, %v", name, way, flags, errno)
			}
			f.Close()
		}
	}
	for _, kind := range []NamespaceKind{0, 1, UTSNamespace + 1} {
		_, err := p.Namespace(kind)
		matches(t, err, syscall.EINVAL)
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint(uint32(kind))) {
			t.Errorf("%v does not name %d", err, uint32(kind))
		}
	}
}

func TestNamespaceByIoctl(t *testing.T) {
	needs(t, FeatureNamespace)
}

func TestNamespaceOfEnded(t *testing.T) {
	keepsDescriptors(t)
	cmd := sleeper(t)
	p := openPidFD(t, cmd.Process.Pid)
	cmd.Process.Kill()
	awaitZombie(t, cmd.Process.Pid)
	_, err := p.Namespace(NetNamespace)
	if FeatureNamespace.Probe() == nil {
		matches(t, err, syscall.ESRCH, os.ErrProcessDone)
	} else {
		matches(t, err, syscall.ENOENT, os.ErrNotExist)
	}
	if os.Getenv(emulatorVar) == "" && FeatureSetns.Probe() == nil {
		matches(t, p.Setns(syscall.CLONE_NEWNET), syscall.ESRCH, os.ErrProcessDone)
	}
	reap(cmd)
	_, err = p.Namespace(NetNamespace)
	matches(t, err, syscall.ESRCH, os.ErrProcessDone)
	// Another process may have the PID by now. It must not be opened, nor left open.
	_, err = p.procNamespace(os.Getpid(), NetNamespace)
	matches(t, err, syscall.ESRCH, os.ErrProcessDone)
	if os.Getenv(emulatorVar) == "" && FeatureSetns.Probe() == nil {
		matches(t, p.Setns(syscall.CLONE_NEWNET), syscall.ESRCH, os.ErrProcessDone)
	}
}

func TestSetns(t *testing.T) {
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	keepsDescriptors(t)
	p, pid := namespaced(t)
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	onThrowawayThread(func() {
		err := p.Setns(syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET)
		if err != nil {
			t.Error(err)
			return
		}
		for name, moved := range map[string]bool{"uts": true, "net": true, "ipc": false} {
			here, err := os.Stat("/proc/thread-self/ns/" + name)
			if err != nil {
				t.Error(err)
				return
			}
			there, err := os.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
			if err != nil || os.SameFile(here, there) != moved {
				t.Errorf("%s: moved %v, %v", name, !moved, err)
			}
		}
		if name := hostname(t); name != "sysfd-test" {
			t.Errorf("hostname %s", name)
		}
		for flags, want := range map[int]syscall.Errno{
			0: syscall.EINVAL, 1: syscall.EINVAL, syscall.CLONE_NEWUSER: syscall.EINVAL, syscall.CLONE_NEWNS: syscall.EINVAL,
			syscall.CLONE_NEWTIME: syscall.EUSERS, syscall.CLONE_NEWIPC | syscall.CLONE_NEWUSER: syscall.EINVAL,
		} {
			if _, err := os.Stat("/proc/self/ns/time"); err != nil && flags == syscall.CLONE_NEWTIME {
				want = syscall.EINVAL
			}
			matches(t, p.Setns(flags), want)
		}
		if is64bit {
			matches(t, p.Setns(beyond32bits|syscall.CLONE_NEWIPC), syscall.EINVAL)
		}
		// All or none.
		here, err := os.Stat("/proc/thread-self/ns/ipc")
		if err != nil {
			t.Error(err)
			return
		}
		if there, err := os.Stat(fmt.Sprintf("/proc/%d/ns/ipc", pid)); err != nil || os.SameFile(here, there) {
			t.Errorf("moved by a call that failed, %v", err)
		}
		if err := errors.Join(syscall.Unshare(syscall.CLONE_FS), p.Setns(syscall.CLONE_NEWNS)); err != nil {
			t.Error(err)
		}
	})
	if after, err := os.Hostname(); err != nil || after != before {
		t.Errorf("hostname %s, %v; was %s", after, err, before)
	}
}

// hostname returns that of the calling thread; os.Hostname may read the process's in /proc.
func hostname(t *testing.T) string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		t.Error(err)
	}
	var b []byte
	for _, c := range u.Nodename {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}
