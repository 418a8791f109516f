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
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
)

// given is what socket activation passed to a process.
type given struct {
	PID     int             `json:"pid" help:"the PID of this command"`
	PidFDID *sysfd.PidFDID  `json:"pidfdId,omitempty" help:"its pidfd ID; missing where the kernel has none"`
	Env     map[string]text `json:"env" help:"those of the variables LISTEN_FDS, LISTEN_PID, LISTEN_PIDFDID and LISTEN_FDNAMES that are set, as strings"`
	FDs     []fdInfo        `json:"fds" help:"the descriptors that were passed"`
	Error   text            `json:"error,omitempty" help:"what is wrong with the variables"`
	Reason  text            `json:"reason,omitempty" help:"why nothing was passed"`
}

type fdInfo struct {
	FD          int    `json:"fd" help:"the number of the descriptor"`
	Name        text   `json:"name" help:"its name in LISTEN_FDNAMES, or \"unknown\""`
	Kind        string `json:"kind" help:"socket, fifo, file, directory, character device, block device or other"`
	*SocketInfo        // nil if it is not a socket
	CloseOnExec bool   `json:"cloexec" help:"whether it is close-on-exec"`
	NonBlocking bool   `json:"nonblocking" help:"whether it is in non-blocking mode"`
}

// SocketInfo is exported because encoding/json needs that.
type SocketInfo struct {
	Domain    string `json:"domain" help:"unix, inet, inet6, netlink, packet, vsock, or a number; this field and the next three are missing if it is not a socket"`
	Type      string `json:"type" help:"stream, dgram, seqpacket, raw, rdm, or a number"`
	Listening bool   `json:"listening" help:"whether it accepts connections"`
	Address   text   `json:"address" help:"host:port, the path of a Unix socket, @name, vsock:CID:PORT, or empty for an unnamed socket"`
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

	g := given{PID: os.Getpid(), Env: map[string]text{}, FDs: []fdInfo{}, Reason: text(env.Reason)}
	if id, err := pidfdID(g.PID); err == nil {
		g.PidFDID = &id
	}
	for _, v := range env.Environ {
		name, value, _ := strings.Cut(v, "=")
		g.Env[name] = text(value)
	}
	if err != nil {
		g.Error = text(err.Error())
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
		return saidError{err}
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
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintln(out, name+"="+quote(value))
	}
	switch {
	case env.Err != nil:
		fmt.Fprintln(out, "error:", harmless(env.Explain()))
	case len(g.FDs) == 0:
		fmt.Fprintln(out, "nothing was passed:", harmless(env.Explain()))
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, fd := range g.FDs {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\n", fd.FD, word(string(fd.Name)), fd.what(), fd.flags())
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
		words = append(words, word(string(s.Address)))
	}
	if s.connected {
		words = append(words, "connected")
	}
	if s.peer != "" {
		words = append(words, "to", word(s.peer))
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
	var info fdInfo
	err := control(f, func(fd int) (err error) {
		info, err = describeFD(fd)
		return err
	})
	info.Name = text(f.Name())
	return info, err
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
	if name, err := socketName(fd, unix.SYS_GETSOCKNAME, unix.Getsockname); err == nil {
		s.Address = text(name)
	}
	if peer, err := socketName(fd, unix.SYS_GETPEERNAME, unix.Getpeername); err == nil {
		s.connected, s.peer = true, peer
	}
	return s
}

// socketName returns the name that a system call reports for a socket, "" if it has none. f is the function of package
// unix for that call.
func socketName(fd int, call uintptr, f func(fd int) (unix.Sockaddr, error)) (string, error) {
	sa, err := f(fd)
	if _, ok := sa.(*unix.SockaddrUnix); err != nil || !ok {
		return address(sa), err
	}
	// Package unix ends an abstract name at its first NUL, but the kernel does not.
	var raw unix.RawSockaddrUnix
	size := uint32(unsafe.Sizeof(raw))
	if _, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return "", errno
	}
	// A path that fills it has no NUL at its end, but size counts one.
	size = min(size, uint32(unsafe.Sizeof(raw)))
	var name []byte
	for i := range size - min(size, uint32(unsafe.Offsetof(raw.Path))) {
		name = append(name, byte(raw.Path[i]))
	}
	if len(name) > 0 && name[0] == 0 {
		return "@" + string(name[1:]), nil
	}
	path, _, _ := strings.Cut(string(name), "\x00")
	if path != "" && !strings.Contains(path, "/") {
		path = "./" + path // so that it does not look like an abstract name
	}
	return path, nil
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
func address(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			ip = ip.WithZone(fmt.Sprint(sa.ZoneId))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)).String()
	case *unix.SockaddrVM:
		return fmt.Sprintf("vsock:%d:%d", sa.CID, sa.Port)
	}
	return ""
}
