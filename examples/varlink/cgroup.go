//go:build linux

package main

import (
	"errors"
	"os"

	"github.com/sysfd/sysfd"
)

// A cgroup is one of cgroup2.
type cgroup struct {
	dir *os.File
	id  sysfd.CgroupID
}

func openCgroup(path string) (*cgroup, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	g := &cgroup{dir: dir}
	var hierarchy sysfd.CgroupHierarchy
	if g.id, hierarchy, err = sysfd.CgroupIDOf(int(dir.Fd())); err == nil {
		err = cgroupsAreTold()
	}
	if err == nil && hierarchy != sysfd.Cgroup2 {
		err = errors.New(path + " is on cgroup v1, and the kernel tells the cgroup of a caller on cgroup2")
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return g, nil
}

// cgroupsAreTold is for a kernel that would have all callers refused.
func cgroupsAreTold() error {
	self, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer self.Close()
	_, err = cgroupOf(self)
	return err
}

func (g *cgroup) Close() error   { return g.dir.Close() }
func (g *cgroup) String() string { return g.dir.Name() }

// holds reports whether a process is in the cgroup or in one below it.
func (g *cgroup) holds(p *sysfd.PidFD) (bool, error) {
	id, err := cgroupOf(p)
	if err != nil {
		return false, err
	}
	return g.contains(id)
}

func cgroupOf(p *sysfd.PidFD) (id sysfd.CgroupID, err error) {
	info, err := p.Info(sysfd.PIDFD_INFO_CGROUPID)
	if err != nil {
		return 0, err
	}
	id, ok := info.CgroupID()
	if !ok {
		return 0, errors.New("the kernel does not tell")
	}
	return id, nil
}

// contains reports whether the cgroup with this ID is g or below it.
func (g *cgroup) contains(id sysfd.CgroupID) (bool, error) {
	if id == g.id {
		return true, nil
	}
	dir, err := sysfd.OpenCgroup(int(g.dir.Fd()), id)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	_, mount, err := sysfd.NameToHandleAt(int(dir.Fd()), "", sysfd.AT_EMPTY_PATH)
	if err != nil {
		return false, err
	}
	for up := ".."; ; up += "/.." {
		h, at, err := sysfd.NameToHandleAt(int(dir.Fd()), up, sysfd.AT_HANDLE_FID) // sysfs has such handles too
		switch {
		case err == nil && at != mount, errors.Is(err, os.ErrNotExist):
			// The way has led out of the mount, where another cgroup can be that is no
			// parent, or the mount is one of a part of the hierarchy and begins beside
			// it.
			return false, nil
		case err != nil:
			return false, err
		}
		if parent, ok := h.KernfsID(); ok && sysfd.CgroupID(parent) == g.id {
			return true, nil
		}
	}
}
