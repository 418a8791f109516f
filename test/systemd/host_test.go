//go:build linux

package systemd

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootOnlyVar has TestHost boot and wait to be killed.
const bootOnlyVar = "SYSFD_TEST_BOOT_ONLY"

// A container leaves the host as it was, whether the test ends well or is killed.
func TestHost(t *testing.T) {
	if os.Getenv(bootOnlyVar) != "" {
		c := boot(t)
		fmt.Println(c.pid, c.cgroup)
		select {}
	}
	root := sidRoot(t)
	before := hostState(t, root)

	c := boot(t)
	left := c.left(t)
	// What is not easily stopped.
	c.units(t, map[string]string{"stubborn.service": "[Service]\nType=forking\n" +
		"ExecStart=/bin/sh -c 'trap \"\" TERM HUP INT; sleep 1000 & setsid sleep 1000 & mount -t tmpfs tmpfs /mnt; true'\n"})
	c.run(t, "systemctl", "start", "stubborn.service")
	c.run(t, "systemd-run", "--quiet", "--scope", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
	c.write(t, "/etc/new", "")
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if left := left(); left != "" {
		t.Errorf("closed, the container leaves:\n%s", left)
	}

	killed := bootAndDie(t)
	for deadline := time.Now().Add(patience); killed() != ""; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("killed, a test leaves:\n%s", killed())
		}
	}

	if after := hostState(t, root); !maps.Equal(before, after) {
		for name := range maps.Keys(before) {
			if before[name] != after[name] {
				t.Errorf("%s was %q and is %q", name, before[name], after[name])
			}
		}
		if len(before) != len(after) {
			t.Errorf("there were %d files, and are %d", len(before), len(after))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), root) {
		t.Errorf("there is a mount on %s:\n%s", root, mounts)
	}
}

// bootAndDie boots in another process, kills that, and returns what tells what is left of its container.
func bootAndDie(t *testing.T) (left func() string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHost$")
	cmd.Env = append(os.Environ(), bootOnlyVar+"=1")
	stdout := pipe(t, cmd.StdoutPipe)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var c container
	if _, err := fmt.Fscanln(stdout, &c.pid, &c.cgroup); err != nil {
		t.Fatal(err)
	}
	return c.left(t)
}

// hostState returns what a container could change: what is set below /proc/sys, and the
// files of its root directory.
func hostState(t testing.TB, root string) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, pattern := range []string{
		"fs/nr_open", "fs/file-max", "fs/protected_*", "fs/suid_dumpable", "fs/inotify/*", "fs/mqueue/*", "fs/pipe-*",
		"kernel/core_*", "kernel/*name", "kernel/pid_max", "kernel/threads-max", "kernel/print*", "kernel/sysrq", "kernel/panic*",
		"net/core/default_qdisc", "net/ipv4/ip_forward", "net/unix/*", "user/*", "vm/max_map_count", "vm/overcommit_*", "vm/swappiness",
	} {
		names, err := filepath.Glob("/proc/sys/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if text, err := os.ReadFile(name); err == nil { // some can only be written
				state[name] = string(text)
			}
		}
	}
	if state["/proc/sys/fs/nr_open"] == "" || state["/proc/sys/fs/file-max"] == "" {
		t.Fatalf("what systemd would change is not there: %q", state)
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		state[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime(), info.Sys().(*syscall.Stat_t).Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// left returns a function that tells what is left of the container, "" = nothing.
func (c *container) left(t testing.TB) func() string {
	t.Helper()
	inside := map[string]bool{}
	for _, kind := range []string{"pid", "mnt", "net", "ipc", "uts", "cgroup"} {
		const format = "/proc/%v/ns/%s"
		namespace, err := os.Readlink(fmt.Sprintf(format, c.pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := os.Readlink(fmt.Sprintf(format, "self", kind))
		if err != nil {
			t.Fatal(err)
		}
		if namespace == ours {
			t.Errorf("the container has no %s namespace of its own", kind)
		}
		inside[namespace] = true
	}
	if _, err := os.Stat(c.cgroup); err != nil {
		t.Fatal(err)
	}
	return func() string {
		var left []string
		if _, err := os.Stat(c.cgroup); err == nil {
			left = append(left, c.cgroup)
		}
		namespaces, err := filepath.Glob("/proc/[0-9]*/ns/*")
		if err != nil {
			return err.Error()
		}
		for _, name := range namespaces {
			if target, err := os.Readlink(name); err == nil && inside[target] {
				left = append(left, name+" "+target)
			}
		}
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			return err.Error()
		}
		for _, name := range lines {
			if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(c.cgroup)) {
				left = append(left, fmt.Sprintf("%s: %q", name, line))
			}
		}
		return strings.Join(left, "\n")
	}
}
