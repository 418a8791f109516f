//go:build linux

package sysfd_test

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path"
	"strings"

	"github.com/sysfd/sysfd"
)

// A server asks who is at the other end of a Unix socket: which user, for the decision; which
// systemd unit, for the log; and whether that process still runs when the answer is ready.
func Example_peerOfASocket() {
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path.Join(dir, "socket"), Net: "unix"})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	client, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	conn, err := l.AcceptUnix()
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := answer(conn); err != nil {
		log.Fatal(err)
	}
	reply := make([]byte, 100)
	n, err := client.Read(reply)
	fmt.Println(string(reply[:n]), err)
	// Output: you are yourself <nil>
}

func answer(conn *net.UnixConn) error {
	// The decision goes by what the kernel recorded at connect(2). The rights that the process
	// has now may be others: it may have executed a setuid program since.
	user, err := sysfd.PeerCredentials(conn)
	if err != nil {
		return err
	}
	if int(user.Uid) != os.Geteuid() {
		_, err := fmt.Fprint(conn, "permission denied")
		return err
	}

	peer, err := sysfd.PeerPidFD(conn)
	switch {
	case errors.Is(err, errors.ErrUnsupported): // before Linux 6.5
	case err != nil:
		return err
	default:
		defer peer.Close()
		if unit, err := unitOf(peer); err == nil {
			log.Printf("UID %d asks, unit %s", user.Uid, unit)
		}
		// What takes long comes here. Then: does the process that asked still run?
		r, err := peer.TryWait(sysfd.WaitExited | sysfd.WaitNoReap)
		if err != nil || r.Ended {
			return fmt.Errorf("no answer for UID %d: %w", user.Uid, cmp.Or(err, os.ErrProcessDone))
		}
	}
	_, err = fmt.Fprint(conn, "you are yourself")
	return err
}

// unitOf returns the systemd unit of a process, such as "cron.service", from its cgroup. It needs
// Linux 6.13 and CAP_DAC_READ_SEARCH.
func unitOf(p *sysfd.PidFD) (string, error) {
	info, err := p.Info(sysfd.PIDFD_INFO_CGROUPID)
	if err != nil {
		return "", err
	}
	id, ok := info.CgroupID()
	if !ok {
		return "", errors.New("the cgroup is not known")
	}
	root, err := os.Open("/sys/fs/cgroup")
	if err != nil {
		return "", err
	}
	defer root.Close()
	cgroup, err := sysfd.CgroupPath(int(root.Fd()), id)
	if err != nil {
		return "", err
	}
	for dir := cgroup; dir != "/" && dir != "."; dir = path.Dir(dir) {
		if name := path.Base(dir); strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			return name, nil
		}
	}
	return "", fmt.Errorf("cgroup %s belongs to no unit", cgroup)
}
