package fdblocking

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func second(f *os.File) *os.File {
	return os.NewFile(f.Fd(), f.Name()) // want `this makes a second owner of the descriptor`
}

func secondLater(path string) *os.File {
	f, _ := os.Open(path)
	fd := int(f.Fd())
	return os.NewFile(uintptr(fd), path) // want `this makes a second owner`
}

func stdout() *os.File { return os.NewFile(os.Stdout.Fd(), "out") } // want `this makes a second owner`

func duplicate(f *os.File) *os.File {
	fd, _ := unix.Fcntl(int(f.Fd()), 1030, 0)
	return os.NewFile(uintptr(fd), f.Name())
}

func number() *os.File { return os.NewFile(3, "listener") }

type holder struct{ fd uintptr }

func keep(h *holder, f *os.File) { h.fd = f.Fd() }

func (h *holder) file() *os.File { return os.NewFile(h.fd, "") }

func option(conn *net.TCPConn) {
	f, err := conn.File()
	if err != nil {
		return
	}
	defer f.Close()
	syscall.SetsockoptInt(int(f.Fd()), 6, 18, 1) // want `Fd makes the socket blocking that this file shares with the one it was made of`
}

func byInterface(l net.Listener) uintptr {
	f, _ := l.(interface{ File() (*os.File, error) }).File()
	return f.Fd() // want `Fd makes the socket blocking`
}

func asserted(l net.Listener) {
	if t, ok := l.(*net.TCPListener); ok {
		f, _ := t.File()
		f.Fd() // want `Fd makes the socket blocking`
	}
}

func own() {
	l, _ := net.ListenTCP("tcp", nil)
	f, _ := l.File()
	f.Fd() // want `Fd makes the socket blocking`
	l.Accept()
}

func takenOver() int {
	l, _ := net.ListenTCP("tcp", nil)
	defer l.Close()
	f, _ := l.File()
	return int(f.Fd())
}

func restored(conn *net.TCPConn) {
	f, _ := conn.File()
	unix.SetNonblock(int(f.Fd()), true)
}

func byRawConn(conn *net.TCPConn) {
	raw, _ := conn.SyscallConn()
	raw.Control(func(fd uintptr) {})
}

func plainFile(path string) uintptr {
	f, _ := os.Open(path)
	return f.Fd()
}

func passed(l *net.TCPListener) error {
	f, err := l.File() // want `passing this file to a process makes the socket blocking`
	if err != nil {
		return err
	}
	cmd := exec.Command("x")
	cmd.ExtraFiles = []*os.File{f}
	return cmd.Start()
}

func passedByAttr(l *net.UnixListener) {
	f, _ := l.File() // want `passing this file to a process makes the socket blocking`
	files := []*os.File{os.Stdin}
	files = append(files, f)
	os.StartProcess("x", nil, &os.ProcAttr{Files: files})
}

func passedAndClosed() {
	l, _ := net.ListenTCP("tcp", nil)
	f, _ := l.File()
	l.Close()
	cmd := exec.Command("x")
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	cmd.Start()
}

func again(f *os.File) {
	l, _ := net.FileListener(f)
	go l.Accept()
	unix.Accept4(int(f.Fd()), 0) // want `FileListener has made the socket non-blocking that this descriptor shares: this fails with EAGAIN`
}

func before(f *os.File) {
	unix.Accept4(int(f.Fd()), 0)
	l, _ := net.FileListener(f)
	l.Accept()
	f.Close()
}

type file struct{}

func (file) File() (*os.File, error) { return nil, nil }

func other(x file) {
	f, _ := x.File()
	f.Fd()
}

func send(c *net.UnixConn) {
	f, _ := c.File()
	defer f.Close()
	unix.Accept4(int(f.Fd()), 0)
}

func sender() {
	c, _ := net.DialUnix("unix", nil, nil)
	defer c.Close()
	c.Write(nil)
	send(c)
}

func sendFirst(c *net.UnixConn) {
	f, _ := c.File()
	f.Fd() // want `Fd makes the socket blocking`
}

func senderFirst() {
	c, _ := net.DialUnix("unix", nil, nil)
	sendFirst(c)
	c.Read(nil)
}

func inClosure() {
	c, _ := net.DialUnix("unix", nil, nil)
	func() {
		f, _ := c.File()
		f.Fd()
	}()
	c.Close()
}

type server struct{ l *net.TCPListener }

func (s *server) number() int {
	f, _ := s.l.File()
	return int(f.Fd()) // want `Fd makes the socket blocking`
}

func oneOrTheOther(other bool) error {
	c, err := net.DialUnix("unix", nil, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if other {
		return pass(c)
	}
	_, err = c.Read(nil)
	return err
}

func pass(c *net.UnixConn) error {
	f, err := c.File()
	if err != nil {
		return err
	}
	f.Fd()
	return nil
}

func repeated() {
	c, _ := net.DialUnix("unix", nil, nil)
	for {
		c.Read(nil)
		passAgain(c)
	}
}

func passAgain(c *net.UnixConn) {
	f, _ := c.File()
	f.Fd() // want `Fd makes the socket blocking`
}

func lastWord(c *net.UnixConn) { lastWords(c, c) }

func lastWords(c *net.UnixConn, w io.Writer) {
	f, _ := c.File()
	f.Fd()
	w.Write(nil)
}

func farewell() {
	c, _ := net.DialUnix("unix", nil, nil)
	lastWord(c)
	c.Write(nil)
	io.WriteString(c, "")
	c.Close()
}

type filer interface{ File() (*os.File, error) }

func otherFiler(x filer) {
	f, _ := x.File()
	f.Fd()
}

func printed() error {
	c, err := net.Dial("unix", "")
	if err != nil {
		return err
	}
	defer c.Close()
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%T", c)
	}
	f, err := u.File()
	if err != nil {
		return fmt.Errorf("%v: %w", u, err)
	}
	f.Fd()
	return nil
}
