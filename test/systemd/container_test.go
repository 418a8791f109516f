//go:build linux

package systemd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is for what takes less than a second on a machine that has nothing else to do.
const patience = time.Minute

// bootScript makes a system of the directory $1 in new namespaces, with the terminal $2 as its
// console, which is descriptor 3, and becomes its systemd. What is written there goes to a tmpfs. /proc/sys is
// read-only because some of it is that of the host: systemd raises fs.nr_open and
// fs.file-max otherwise.
const bootScript = `
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1/tmp"
mkdir "$1/tmp/upper" "$1/tmp/work"
mount -t overlay -o "lowerdir=$1,upperdir=$1/tmp/upper,workdir=$1/tmp/work" overlay "$1"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
chmod 755 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
	touch dev/$device
	mount --bind /dev/$device dev/$device
done
touch dev/console
mount --bind "$2" dev/console
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/systemd/system
cat >run/systemd/system/booted.service <<-end
	[Unit]
	Requires=basic.target
	After=basic.target
	[Service]
	Type=oneshot
	ExecStart=/bin/echo ` + bootedLine + `
	StandardOutput=tty
end
pivot_root . .
umount -l .
exec env -i container=lxc setpriv --bounding-set=-sys_time,-sys_module \
	/usr/lib/systemd/systemd systemd.unit=booted.service >&3 2>&3 3>&-
`

const bootedLine = "sysfd: systemd has booted" // on the console

// cleanScript waits until its input ends, which it does at the latest when the test does, however
// that comes about. Then it ends all that runs in the cgroup $1, and removes it.
const cleanScript = `
cat
echo 1 >"$1/cgroup.kill"
for i in $(seq 600); do
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null && exit
	sleep 0.1
done
exit 1
`

// A container is a booted systemd 262 in namespaces and a cgroup of its own.
type container struct {
	pid    int // of its init
	cgroup string

	running io.Closer // the input of the cleaner
	cleaner *exec.Cmd
	ended   chan struct{} // closed when the init has ended

	master, slave *os.File // the console
	mu            sync.Mutex
	text          strings.Builder // what it has shown
	booted        chan struct{}   // closed when it shows bootedLine
}

// boot boots systemd 262 on the root directory with Debian's sid, and ends it when the
// test ends.
func boot(t testing.TB) *container {
	t.Helper()
	root := sidRoot(t)
	for _, tool := range []string{"find", "mount", "nsenter", "pivot_root"} {
		needsTool(t, tool)
	}
	cgroups, err := cgroup2()
	if err != nil {
		lacks(t, err.Error())
	}
	var c container
	err = c.start(root, cgroups)
	t.Cleanup(func() {
		if err := c.close(); err != nil {
			t.Errorf("the container stays: %v", err)
		}
	})
	if err != nil {
		lacks(t, "namespaces and an overlay: "+err.Error())
	}
	select {
	case <-c.booted:
	case <-c.ended:
		t.Fatalf("systemd ended:\n%s", c.seen())
	case <-time.After(patience):
		t.Fatalf("systemd does not boot:\n%s", c.seen())
	}
	return &c
}

// cgroup2 returns the directory of the cgroups of version 2.
func cgroup2() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[2] == "cgroup2" {
			return fields[1], nil
		}
	}
	return "", errors.New("cgroups of version 2")
}

// start starts systemd, and does not wait until it has booted. Call close after a failure, too.
func (c *container) start(root, cgroups string) (err error) {
	if err := c.openConsole(); err != nil {
		return err
	}
	if c.cgroup, err = os.MkdirTemp(cgroups, "sysfd-test-"); err != nil {
		return err
	}
	if err := c.startCleaner(); err != nil {
		return errors.Join(err, os.Remove(c.cgroup))
	}
	return c.startInit(root)
}

func (c *container) openConsole() (err error) {
	const flags = os.O_RDWR | syscall.O_NOCTTY
	if c.master, err = os.OpenFile("/dev/ptmx", flags, 0); err != nil {
		return err
	}
	conn, err := c.master.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	err = conn.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if c.slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), flags, 0); err != nil {
		return err
	}
	c.booted = make(chan struct{})
	go c.watch()
	return nil
}

// watch reads what the console shows, until it is closed.
func (c *container) watch() {
	booted := sync.OnceFunc(func() { close(c.booted) })
	for lines := bufio.NewScanner(c.master); lines.Scan(); {
		c.mu.Lock()
		fmt.Fprintln(&c.text, lines.Text())
		c.mu.Unlock()
		if strings.Contains(lines.Text(), bootedLine) { // there may be what moves the cursor, too
			booted()
		}
	}
}

func (c *container) startCleaner() (err error) {
	cleaner := exec.Command("sh", "-c", cleanScript, "sh", c.cgroup)
	cleaner.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a signal for the test is not for it
	if c.running, err = cleaner.StdinPipe(); err != nil {
		return err
	}
	if err := cleaner.Start(); err != nil {
		return err
	}
	c.cleaner = cleaner
	return nil
}

func (c *container) startInit(root string) error {
	cgroup, err := os.Open(c.cgroup)
	if err != nil {
		return err
	}
	defer cgroup.Close()
	failures, failuresIn, err := os.Pipe() // of the script: systemd does not have it
	if err != nil {
		return err
	}
	defer failures.Close()

	init := exec.Command("sh", "-c", bootScript, "sh", root, c.slave.Name())
	init.Stdout, init.Stderr = failuresIn, failuresIn
	init.ExtraFiles = []*os.File{c.slave}
	init.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		UseCgroupFD: true,
		CgroupFD:    int(cgroup.Fd()),
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET,
		Unshareflags: syscall.CLONE_NEWCGROUP, // once it is in the cgroup
	}
	err = init.Start()
	failuresIn.Close()
	if err != nil {
		return err
	}
	c.pid = init.Process.Pid
	c.ended = make(chan struct{})
	go func() {
		init.Wait()
		close(c.ended)
	}()
	text, err := io.ReadAll(failures)
	if err == nil && len(text) > 0 {
		err = errors.New(strings.TrimSpace(string(text)))
	}
	return err
}

// close ends the container, if it runs.
func (c *container) close() error {
	if c.cleaner != nil {
		c.running.Close()
		if err := c.cleaner.Wait(); err != nil {
			return err
		}
		c.cleaner = nil
	}
	if c.ended != nil {
		<-c.ended
	}
	c.slave.Close()
	c.master.Close()
	return nil
}

// seen returns what the console has shown.
func (c *container) seen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// path returns the path from outside of a file in the container. Links to absolute paths
// do not work on the way.
func (c *container) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(c.pid), "root", name)
}

// command returns a command that runs in the container.
func (c *container) command(name string, args ...string) *exec.Cmd {
	words := []string{"--target", strconv.Itoa(c.pid), "--all", "--", name}
	cmd := exec.Command("nsenter", append(words, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin"}
	return cmd
}

// run runs a command in the container and returns what it prints, without the newline.
func (c *container) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := c.command(name, args...)
	stuck := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	cmd.WaitDelay = time.Second
	return outputOf(t, cmd)
}

// outputOf runs cmd and returns what it prints, without the newline.
func outputOf(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd, err, out, &stderr)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// units adds units, by their names: systemd finds them when they are asked for. If the test
// fails, it shows their journal.
func (c *container) units(t testing.TB, texts map[string]string) {
	t.Helper()
	journal := []string{"--no-pager", "--output=short-precise"}
	for name, text := range texts {
		c.write(t, "/run/systemd/system/"+name, text)
		journal = append(journal, "--unit="+name)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := c.command("journalctl", journal...).CombinedOutput()
			t.Logf("journal of %q (%v):\n%s", slices.Sorted(maps.Keys(texts)), err, out)
		}
	})
}

func (c *container) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(c.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *container) read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(c.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// show returns a property of a unit.
func (c *container) show(t testing.TB, unit, property string) string {
	t.Helper()
	return c.run(t, "systemctl", "show", "--property="+property, "--value", unit)
}

// shows tells whether a unit has a property.
func (c *container) shows(t testing.TB, unit, property, want string) {
	t.Helper()
	if got := c.show(t, unit, property); got != want {
		t.Errorf("%s: %s=%s, want %s", unit, property, got, want)
	}
}

// await waits until a unit has a property.
func (c *container) await(t testing.TB, unit, property, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		switch got := c.show(t, unit, property); {
		case got == want:
			return
		case time.Now().After(deadline):
			t.Fatalf("%s: %s=%s, and does not become %s", unit, property, got, want)
		}
	}
}

// install builds the program in a directory for an architecture and returns its path in the
// container.
func (c *container) install(t testing.TB, dir, arch string) string {
	t.Helper()
	program := filepath.Join("/usr/local/bin", filepath.Base(dir)+"-"+arch)
	build(t, dir, arch, c.path(program))
	return program
}

// build builds the program in a directory for an architecture ("" is that of the test), without cgo.
func build(t testing.TB, dir, arch, path string) {
	t.Helper()
	needsTool(t, "go")
	cmd := exec.Command("go", "build", "-C", dir, "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	outputOf(t, cmd)
}
