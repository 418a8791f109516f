//go:build linux

package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/sysfd/sysfd"
)

// given is what a process was given by way of socket activation.
type given struct {
	PID     int               `json:"pid"`
	PidFDID *sysfd.PidFDID    `json:"pidfdId,omitempty"`
	Env     map[string]string `json:"env"`
	FDs     []fdInfo          `json:"fds"`
	Error   string            `json:"error,omitempty"`
	Reason  string            `json:"reason,omitempty"`
}

type fdInfo struct {
	FD          int    `json:"fd"`
	Name        string `json:"name"`
	Kind        string `json:"kind"`
	*SocketInfo        // nil for what is no socket
	CloseOnExec bool   `json:"cloexec"`
	NonBlocking bool   `json:"nonblocking"`
}

// SocketInfo is exported for the sake of encoding/json.
type SocketInfo struct {
	Domain    string `json:"domain"`
	Type      string `json:"type"`
	Listening bool   `json:"listening"`
	Address   string `json:"address"`
	peer      string
	connected bool
}

func listen(c *call) error {
	asJSON := c.Bool("json", false, "print one JSON object")
	if err := c.noArguments(); err != nil {
		return err
	}
	// Before anything else opens a descriptor.
	files, err := sysfd.ListenFDs()
	env := sysfd.InspectListenEnv()

	g := given{PID: os.Getpid(), Env: map[string]string{}, FDs: []fdInfo{}, Reason: env.Reason}
	if id, err := pidfdID(g.PID); err == nil {
		g.PidFDID = &id
	}
	for _, v := range env.Environ {
		name, value, _ := strings.Cut(v, "=")
		g.Env[name] = value
	}
	if err != nil {
		g.Error = err.Error()
	}
	for _, f := range files {
		info, err := describe(f)
		if err != nil {
			return err
		}
		g.FDs = append(g.FDs, info)
	}
	if *asJSON {
		if err := c.printJSON(g); err != nil {
			return err
		}
	} else {
		g.print(c.out, env)
	}
	if err != nil {
		return errSaid
	}
	return nil
}

func (g given) print(out io.Writer, env sysfd.ListenEnv) {
	fmt.Fprintf(out, "PID %d, pidfd ID ", g.PID)
	if g.PidFDID == nil {
		fmt.Fprintln(out, "unknown")
	} else {
		fmt.Fprintln(out, *g.PidFDID)
	}
	for _, v := range env.Environ {
		fmt.Fprintln(out, v)
	}
	switch {
	case env.Err != nil:
		fmt.Fprintln(out, "error:", env.Explain())
	case len(g.FDs) == 0:
		fmt.Fprintln(out, "nothing was passed:", env.Explain())
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, fd := range g.FDs {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", fd.FD, fd.Name, fd.what(), fd.flags())
	}
	t.Flush()
}

func (i fdInfo) what() string {
	s := i.SocketInfo
	if s == nil {
		return i.Kind
	}
	words := []string{i.Kind, s.Domain, s.Type}
	if s.Listening {
		words = append(words, "listening")
	}
	if s.Address != "" {
		words = append(words, s.Address)
	}
	if s.connected {
		words = append(words, "connected")
	}
	if s.peer != "" {
		words = append(words, "to", s.peer)
	}
	return strings.Join(words, " ")
}

func (i fdInfo) flags() string {
	words := []string{"blocking"}
	if i.NonBlocking {
		words[0] = "non-blocking"
	}
	if i.CloseOnExec {
		words = append(words, "close-on-exec")
	}
	return strings.Join(words, ", ")
}

// describe looks at a descriptor without changing it.
func describe(f *os.File) (fdInfo, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return fdInfo{}, err
	}
	var info fdInfo
	var failed error
	if err := conn.Control(func(fd uintptr) { info, failed = describeFD(int(fd)) }); err != nil {
		return fdInfo{}, err
	}
	info.Name = f.Name()
	return info, failed
}

func describeFD(fd int) (fdInfo, error) {
	info := fdInfo{FD: fd}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return info, os.NewSyscallError("fstat", err)
	}
	fdFlags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	if errno != 0 {
		return info, os.NewSyscallError("fcntl", errno)
	}
	flags, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno != 0 {
		return info, os.NewSyscallError("fcntl", errno)
	}
	info.CloseOnExec = fdFlags&syscall.FD_CLOEXEC != 0
	info.NonBlocking = flags&syscall.O_NONBLOCK != 0
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFSOCK:
		info.Kind, info.SocketInfo = "socket", describeSocket(fd)
	case syscall.S_IFIFO:
		info.Kind = "fifo"
	case syscall.S_IFREG:
		info.Kind = "file"
	case syscall.S_IFDIR:
		info.Kind = "directory"
	case syscall.S_IFCHR:
		info.Kind = "character device"
	case syscall.S_IFBLK:
		info.Kind = "block device"
	default:
		info.Kind = "other"
	}
	return info, nil
}

func describeSocket(fd int) *SocketInfo {
	s := &SocketInfo{
		Domain: socketOption(fd, syscall.SO_DOMAIN, map[int]string{
			syscall.AF_UNIX: "unix", syscall.AF_INET: "inet", syscall.AF_INET6: "inet6",
			syscall.AF_NETLINK: "netlink", syscall.AF_PACKET: "packet", 40: "vsock"}), // AF_VSOCK
		Type: socketOption(fd, syscall.SO_TYPE, map[int]string{
			syscall.SOCK_STREAM: "stream", syscall.SOCK_DGRAM: "dgram", syscall.SOCK_SEQPACKET: "seqpacket",
			syscall.SOCK_RAW: "raw", syscall.SOCK_RDM: "rdm"}),
	}
	listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	s.Listening = err == nil && listening != 0
	if name, err := syscall.Getsockname(fd); err == nil {
		s.Address = address(name)
	}
	if peer, err := syscall.Getpeername(fd); err == nil {
		s.connected, s.peer = true, address(peer)
	}
	return s
}

func socketOption(fd, option int, names map[int]string) string {
	n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, option)
	if err != nil {
		return err.Error()
	}
	if name, ok := names[n]; ok {
		return name
	}
	return fmt.Sprint(n)
}

// address returns "" for an unnamed socket.
func address(sa syscall.Sockaddr) string {
	switch sa := sa.(type) {
	case *syscall.SockaddrUnix:
		return sa.Name
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *syscall.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(fmt.Sprint(sa.ZoneId))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)).String()
	}
	return ""
}
