package pidreuse

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func fromFile() error {
	b, err := os.ReadFile("/run/x.pid")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGTERM) // want `the PID was read from a file, and that process may have ended since: another one that has the PID now gets the signal`
}

func group(path string) {
	b, _ := os.ReadFile(path)
	pid, _ := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	unix.Kill(-int(pid), syscall.SIGTERM) // want `the PID was read from a file`
}

func fromEnv() {
	pid, _ := strconv.Atoi(os.Getenv("DAEMON_PID"))
	p, _ := os.FindProcess(pid) // want `the PID was read from the environment, .* is what FindProcess returns`
	p.Signal(syscall.SIGHUP)
}

func readPID(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.Split(string(b), "\n")[0])
}

func byHelper() {
	pid, _ := readPID("/run/x.pid")
	syscall.Kill(pid, syscall.SIGTERM) // want `the PID was read from a file`
}

func scanned() {
	f, _ := os.Open("/run/x.pid")
	var pid int
	fmt.Fscanf(f, "%d", &pid)
	syscall.Kill(pid, 0) // want `the PID was read from a file`
}

func buffered() {
	f, _ := os.Open("/run/x.pid")
	buf := make([]byte, 32)
	n, _ := f.Read(buf)
	pid, _ := strconv.Atoi(string(buf[:n]))
	syscall.Kill(pid, 0) // want `the PID was read from a file`
}

func killCgroup(dir string) {
	f, _ := os.Open(filepath.Join(dir, "cgroup.procs"))
	s := bufio.NewScanner(f)
	for s.Scan() {
		pid, _ := strconv.Atoi(s.Text())
		syscall.Kill(pid, syscall.SIGKILL) // want `the PID was read from cgroup.procs, .* sysfd.KillCgroup kills those`
	}
}

// Nothing below is stored.

func argument(pid int) { syscall.Kill(pid, syscall.SIGTERM) }

func self() { syscall.Kill(os.Getpid(), syscall.SIGTERM) }

func parent() { syscall.Kill(os.Getppid(), syscall.SIGTERM) }

func commandLine() {
	pid, _ := strconv.Atoi(os.Args[1])
	syscall.Kill(pid, syscall.SIGTERM)
}

func stdin() {
	s := bufio.NewScanner(os.Stdin)
	s.Scan()
	pid, _ := strconv.Atoi(s.Text())
	syscall.Kill(pid, syscall.SIGTERM)
}

func fromProc() {
	b, _ := os.ReadFile("/proc/self/stat")
	pid, _ := strconv.Atoi(strings.Fields(string(b))[3])
	syscall.Kill(pid, syscall.SIGTERM)
}

func verified(path string) {
	b, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(string(b))
	if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe != "/usr/bin/x" {
		return
	}
	syscall.Kill(pid, syscall.SIGTERM)
}

func verifiedByTime(path string) {
	b, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(string(b))
	if startTime(pid) != 7 {
		return
	}
	syscall.Kill(pid, syscall.SIGTERM)
}

func startTime(pid int) int { return pid }

func either(path string, other int) {
	pid := other
	if b, err := os.ReadFile(path); err == nil {
		pid, _ = strconv.Atoi(string(b))
	}
	syscall.Kill(pid, syscall.SIGTERM)
}

func text() {
	var pid int
	fmt.Sscanf(os.Args[1], "%d", &pid)
	syscall.Kill(pid, 0)
}

func parentOf() int {
	b, _ := os.ReadFile("/proc/self/stat")
	pid, _ := strconv.Atoi(strings.Fields(string(b))[3])
	return pid
}

func killParent() { syscall.Kill(parentOf(), syscall.SIGTERM) }

type daemon struct{ pid int }

func (d *daemon) load(path string) {
	b, _ := os.ReadFile(path)
	d.pid, _ = strconv.Atoi(string(b))
}

func (d *daemon) stop() { syscall.Kill(d.pid, syscall.SIGTERM) } // stored by another function, which may have looked
