package inoidentity

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

func id(pid int) (uint64, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil // want `st_ino of a pidfd is the lower half of its ID on a 32-bit kernel`
}

func same(a, b *sysfd.PidFD) bool {
	f, _ := a.File()
	g, _ := b.File()
	var s, t syscall.Stat_t
	syscall.Fstat(int(f.Fd()), &s)
	syscall.Fstat(int(g.Fd()), &t)
	return s.Ino == t.Ino // want `st_ino of a pidfd` `st_ino of a pidfd`
}

func peer(sock int) uint64 {
	fd, _ := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	var st unix.Statx_t
	unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st)
	return st.Ino // want `st_ino of a pidfd`
}

func started() uint64 {
	var fd int
	attr := &os.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &fd}}
	os.StartProcess("/bin/true", nil, attr)
	var st unix.Stat_t
	unix.Fstat(fd, &st)
	return st.Ino // want `st_ino of a pidfd`
}

func handle(p *os.Process) (ino uint64) {
	p.WithHandle(func(fd uintptr) {
		var st unix.Stat_t
		unix.Fstat(int(fd), &st)
		ino = st.Ino // want `st_ino of a pidfd`
	})
	return ino
}

func fileInfo(pid int) uint64 {
	fd, _ := unix.PidfdOpen(pid, 0)
	f := os.NewFile(uintptr(fd), "pidfd")
	fi, _ := f.Stat()
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return st.Ino // want `st_ino of a pidfd`
}

func cgroup(name string) uint64 {
	var st unix.Stat_t
	unix.Stat(filepath.Join("/sys/fs/cgroup", name), &st)
	return st.Ino // want `st_ino of a cgroup directory is the lower half of the cgroup ID on a 32-bit kernel`
}

func cgroupByInfo(cgroupPath string) (uint64, error) {
	fi, err := os.Stat(cgroupPath)
	if err != nil {
		return 0, err
	}
	return fi.Sys().(*syscall.Stat_t).Ino, nil // want `st_ino of a cgroup directory`
}

type manager struct{ cgroupDir string }

func (m *manager) id(sub string) string {
	f, _ := os.Open(fmt.Sprintf("%s/%s", m.cgroupDir, sub))
	fi, _ := f.Stat()
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprint(st.Ino) // want `st_ino of a cgroup directory`
}

func file(path string) uint64 {
	var st unix.Stat_t
	unix.Stat(path, &st)
	return st.Ino
}

func namespace(pid int) uint64 {
	var st unix.Stat_t
	unix.Stat(fmt.Sprintf("/proc/%d/ns/cgroup", pid), &st)
	return st.Ino
}

func cgroupFile(cgroupPath string) uint64 {
	var st unix.Stat_t
	unix.Stat(cgroupPath+"/cgroup.events", &st)
	return st.Ino
}

func isRoot() bool {
	var st unix.Stat_t
	unix.Stat("/sys/fs/cgroup", &st)
	return st.Ino == 1
}

type key struct{ dev, ino uint64 }

func sameDirectory(cgroupRoot string) key {
	var st unix.Stat_t
	unix.Stat(cgroupRoot, &st)
	return key{uint64(st.Dev), st.Ino}
}

func mode(pid int) uint32 {
	fd, _ := unix.PidfdOpen(pid, 0)
	var st unix.Stat_t
	unix.Fstat(fd, &st)
	return st.Mode
}

func either(pid int, path string) uint64 {
	var st unix.Stat_t
	fd, _ := unix.PidfdOpen(pid, 0)
	if path != "" {
		unix.Stat(path, &st)
	} else {
		unix.Fstat(fd, &st)
	}
	return st.Ino
}
