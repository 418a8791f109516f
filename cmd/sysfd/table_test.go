//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// Each command ends with each of the exit statuses that are documented for it, and with no other.
func TestExitStatuses(t *testing.T) {
	rights.Proc(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer zombie.Wait()
	ended := strconv.Itoa(zombie.Process.Pid)
	me := strconv.Itoa(os.Getpid())
	const nobody = "2147483647" // no process can have this PID

	handle, _, code := status(t, sysfdCommand("handle", file))
	handle, _, _ = strings.Cut(handle, "\t")
	noHandles := ""
	if code != 0 {
		noHandles = "the file system has no handles"
	}
	noOpen := noHandles
	if noOpen == "" {
		if _, errs, _ := status(t, sysfdCommand("open", "-mount", dir, handle)); strings.Contains(errs, "CAP_DAC_READ_SEARCH") {
			noOpen = errs
		}
	}
	noCgroup := ""
	mount, err := cgroup2Mount()
	if err != nil {
		noCgroup = err.Error()
	}
	seen := map[string][]int{}
	for _, test := range []struct {
		code    int
		args    string
		lacking []int  // system calls that fail with ENOSYS
		full    bool   // the output cannot be written
		skip    string // why this cannot be tested here
	}{
		{code: 0, args: "probe"},
		{code: 1, args: "probe", full: true},
		{code: 2, args: "probe x"},
		{code: 0, args: "handle " + file, skip: noHandles},
		{code: 1, args: "handle /no/such/file"},
		{code: 2, args: "handle"},
		{code: 3, args: "handle " + file, lacking: []int{unix.SYS_NAME_TO_HANDLE_AT}},
		{code: 3, args: "handle -ref " + file, lacking: []int{unix.SYS_NAME_TO_HANDLE_AT}},
		{code: 3, args: "handle -json " + file + " " + dir, lacking: []int{unix.SYS_NAME_TO_HANDLE_AT}},
		{code: 0, args: "open -mount " + dir + " " + handle, skip: noOpen},
		{code: 1, args: "open -mount /no/such/file 1:00"},
		{code: 2, args: "open x"},
		{code: 3, args: "open -mount " + dir + " " + handle, lacking: []int{unix.SYS_OPEN_BY_HANDLE_AT}, skip: noHandles},
		{code: 126, args: "open -mount " + dir + " " + handle + " -- " + file, skip: noOpen},
		{code: 127, args: "open -mount " + dir + " " + handle + " /no/such/file", skip: noOpen},
		{code: 0, args: "cgroup " + mount, skip: noCgroup},
		{code: 1, args: "cgroup /no/such/file"},
		{code: 2, args: "cgroup"},
		{code: 3, args: "cgroup " + mount, lacking: []int{unix.SYS_NAME_TO_HANDLE_AT}, skip: noCgroup},
		{code: 0, args: "id self"},
		{code: 1, args: "id " + nobody},
		{code: 2, args: "id x"},
		{code: 3, args: "id self " + me, lacking: []int{unix.SYS_PIDFD_OPEN}},
		{code: 0, args: "info self"},
		{code: 1, args: "info self " + nobody},
		{code: 2, args: "info x"},
		{code: 3, args: "info self", lacking: []int{unix.SYS_PIDFD_OPEN}},
		{code: 3, args: "info -json self", lacking: []int{unix.SYS_PIDFD_OPEN}},
		{code: 0, args: "wait " + ended},
		{code: 1, args: "wait " + nobody},
		{code: 2, args: "wait self"},
		{code: 3, args: "wait " + me, lacking: []int{unix.SYS_PIDFD_OPEN}},
		{code: 124, args: "wait -timeout 10ms " + me},
		{code: 0, args: "kill -s 0 " + me},
		{code: 1, args: "kill " + nobody},
		{code: 2, args: "kill self"},
		{code: 3, args: "kill -s 0 " + me, lacking: []int{unix.SYS_PIDFD_OPEN}},
		{code: 0, args: "ns"},
		{code: 1, args: "ns " + nobody},
		{code: 2, args: "ns 1 2"},
		{code: 3, args: "ns self", lacking: []int{unix.SYS_PIDFD_OPEN}},
		{code: 0, args: "listen"},
		{code: 1, args: "listen", full: true},
		{code: 2, args: "listen x"},
		{code: 0, args: "activate -q -now -l " + dir + "/0 true"},
		{code: 1, args: "activate -q -now -l /no/such/file true"},
		{code: 2, args: "activate -q -now -l " + dir + "/2"},
		{code: 3, args: "activate -q -now -l " + dir + "/3 true", lacking: []int{socketCall()}},
		{code: 126, args: "activate -q -now -l " + dir + "/126 " + file},
		{code: 127, args: "activate -q -now -l " + dir + "/127 /no/such/file"},
		{code: 7, args: "activate -q -now -l " + dir + "/7 " + testBinary(t) + " exec sh -c exit${IFS}7"},
		{code: 0, args: "exec true"},
		{code: 1, args: "exec false"},
		{code: 2, args: "exec"},
		{code: 126, args: "exec " + file},
		{code: 127, args: "exec /no/such/file"},
		{code: 0, args: "version"},
		{code: 1, args: "version", full: true},
		{code: 2, args: "version x"},
		{code: 0, args: "help"},
		{code: 1, args: "help", full: true},
		{code: 2, args: "help x"},
	} {
		verb, _, _ := strings.Cut(test.args, " ")
		if test.code != 7 && !slices.Contains(seen[verb], test.code) {
			seen[verb] = append(seen[verb], test.code)
		}
		if test.skip != "" {
			t.Logf("sysfd %s: %s", test.args, test.skip)
			continue
		}
		cmd := sysfdCommand(strings.Fields(test.args)...)
		if test.full {
			cmd.Stdout = full
			if cmd.Run(); cmd.ProcessState.ExitCode() != test.code {
				t.Errorf("sysfd %s >/dev/full: %v, want %d", test.args, cmd.ProcessState, test.code)
			}
			continue
		}
		if len(test.lacking) > 0 {
			cmd = commandWithout(test.lacking, strings.Fields(test.args)...)
		}
		out, errs, code := status(t, cmd)
		if code != test.code || code != 0 && code != 7 && errs == "" && test.args != "exec false" {
			t.Errorf("sysfd %s: status %d, want %d: %q, %q", test.args, code, test.code, out, errs)
		}
	}
	for _, cmd := range commands() {
		if got := seen[cmd.name]; !slices.Equal(got, cmd.statuses) {
			t.Errorf("sysfd %s ends with %v, documented are %v", cmd.name, got, cmd.statuses)
		}
		for _, code := range cmd.statuses {
			out, _, _ := status(t, sysfdCommand(cmd.name, "-h"))
			if _, statuses, _ := strings.Cut(out, "\nExit status:\n"); !strings.Contains("\n"+statuses, fmt.Sprintf("\n  %-5d", code)) {
				t.Errorf("sysfd %s -h does not have %d: %s", cmd.name, code, out)
			}
		}
	}
}

// socketCall returns the number of the system call by which Go makes sockets.
func socketCall() int {
	if runtime.GOARCH == "386" || runtime.GOARCH == "s390x" {
		return 102 // socketcall(2)
	}
	return unix.SYS_SOCKET
}

// What fails for different reasons is a failure, and not only unsupported.
func TestAndSaid(t *testing.T) {
	lacks, fails := error(syscall.ENOSYS), error(syscall.EIO)
	for _, test := range []struct {
		errs []error
		code int
	}{
		{nil, 0}, {[]error{lacks}, 3}, {[]error{fails}, 1}, {[]error{lacks, lacks}, 3}, {[]error{lacks, fails}, 1}, {[]error{fails, lacks}, 1},
	} {
		var err error
		for _, e := range test.errs {
			err = andSaid(err, e)
		}
		var said strings.Builder
		c := newCall("x", nil, nil, &said)
		if code := c.end(err); code != test.code || said.String() != "" {
			t.Errorf("%v: %d, %q", test.errs, code, said.String())
		}
	}
}
