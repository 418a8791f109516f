package peerrights

import (
	"net"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

func isRoot(conn *net.UnixConn) bool {
	p, err := sysfd.PeerPidFD(conn)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info(2)
	if err != nil {
		return false
	}
	c, ok := info.Credentials() // want `these are the present rights of a process that may have executed a setuid program since it connected`
	return ok && c.EUID == 0
}

func ask(p *sysfd.PidFD) (sysfd.PidFDInfo, error) { return p.Info(2) }

func helper(conn *net.UnixConn) uint32 {
	p, _ := sysfd.PeerPidFD(conn)
	info, _ := ask(p)
	c, _ := info.Credentials() // want `these are the present rights`
	return c.RUID
}

func bySocket(sock int) bool {
	fd, _ := unix.GetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	var info unix.PidfdInfo
	unix.IoctlPidfdInfo(fd, &info)
	return info.Euid == 0 || info.Ruid == 0 // want `these are the present rights`
}

func both(conn *net.UnixConn) bool {
	u, _ := sysfd.PeerCredentials(conn)
	p, _ := sysfd.PeerPidFD(conn)
	info, _ := p.Info(2)
	c, _ := info.Credentials()
	return c.EUID == u.Uid
}

func cgroup(conn *net.UnixConn) sysfd.CgroupID {
	p, _ := sysfd.PeerPidFD(conn)
	info, _ := p.Info(4)
	id, _ := info.CgroupID()
	return id
}

func child(pid int) uint32 {
	p, _ := sysfd.OpenPidFD(pid, 0)
	info, _ := p.Info(2)
	c, _ := info.Credentials()
	return c.EUID
}

func childBySyscall(pid int) uint32 {
	fd, _ := unix.PidfdOpen(pid, 0)
	var info unix.PidfdInfo
	unix.IoctlPidfdInfo(fd, &info)
	return info.Euid
}
