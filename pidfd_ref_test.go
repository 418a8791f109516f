//go:build linux

package sysfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd/internal/rights"
)

// refTexts are names of processes and their texts.
func refTexts(t testing.TB) map[string]ProcessRef {
	boot := bootID(t, someBoot)
	return map[string]ProcessRef{
		"":                                    {},
		"4711:25":                             {PID: 4711, ID: 25},
		"1:18446744073709551615":              {PID: 1, ID: 1<<64 - 1},
		"2147483647:30064771191":              {PID: 1<<31 - 1, ID: 0x7_0000_0077},
		"4711:25@" + someBoot:                 {PID: 4711, ID: 25, BootID: boot},
		"4711:25+4026531836":                  {PID: 4711, ID: 25, PIDNamespace: 4026531836},
		"4711:25@" + someBoot + "+4294967295": {PID: 4711, ID: 25, BootID: boot, PIDNamespace: 1<<32 - 1},
		"1:1@ffffffff-ffff-ffff-ffff-ffffffffffff":      {PID: 1, ID: 1, BootID: bootID(t, strings.Repeat("f", 32))},
		"4711:t82015@" + someBoot:                       {PID: 4711, StartTime: 82015, BootID: boot},
		"4711:t18446744073709551615@" + someBoot + "+1": {PID: 4711, StartTime: 1<<64 - 1, BootID: boot, PIDNamespace: 1},
	}
}

func TestProcessRefText(t *testing.T) {
	testText(t, ParseProcessRef, refTexts(t))
	lengths := map[ProcessRef]int{}
	for text, r := range refTexts(t) {
		lengths[r] = len(text)
	}
	testBinary(t, lengths)
	plain := strings.ReplaceAll(someBoot, "-", "")
	for _, bad := range []string{
		":", "4711", "4711:", ":25", "0:25", "4711:0", "-1:25", "+1:25", "01:25", "4711:025", "4711: 25", "4711:25 ", "4711:25\n",
		"0x1:25", "4711:0x19", "1_0:25", "2147483648:25", "4294967297:25", "4711:18446744073709551616", "4711:25:1",
		"4711:25@", "4711:25@" + plain, "4711:25@" + strings.ToUpper(someBoot), "4711:25@" + someBoot + " ", "4711:25@@" + someBoot,
		"4711:25@00000000-0000-0000-0000-000000000000", "4711@" + someBoot, "4711:0@" + someBoot,
		"4711:25+", "4711:25+0", "4711:25+4294967296", "4711:25+01", "4711:25+x", "4711:25+1+1", "4711:25+1@" + someBoot, "+1", "@" + someBoot,
		"4711:t82015", "4711:t82015+1", "4711:t0@" + someBoot, "4711:t@" + someBoot, "4711:T82015@" + someBoot, "4711:t082015@" + someBoot,
		"4711:t18446744073709551616@" + someBoot, "0:t82015@" + someBoot, "4711:25t82015@" + someBoot,
	} {
		r, err := ParseProcessRef(bad)
		matches(t, err, syscall.EINVAL)
		if err == nil || r != (ProcessRef{}) || !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("%q: %+v, %v", bad, r, err)
		}
	}
	for _, bad := range []ProcessRef{
		{PID: 1}, {ID: 1}, {PID: -1, ID: 1}, {PID: 1 + beyond32bits, ID: 1}, {PID: 1, StartTime: 1}, {PIDNamespace: 1}, {BootID: BootID{1}}, {PID: 1, BootID: BootID{1}},
		{PID: 1, ID: 1, StartTime: 1, BootID: BootID{1}},
	} {
		if bad.PID == 1 && bad.ID == 1 && bad.StartTime == 0 {
			continue // where an int has 32 bits
		}
		text, err := bad.MarshalText()
		matches(t, err, syscall.EINVAL)
		if len(text) != 0 || bad.String() == "" {
			t.Errorf("%+v: %s, %q", bad, text, bad)
		}
	}
}

// Short is what util-linux writes and reads.
func TestProcessRefShort(t *testing.T) {
	for text, r := range refTexts(t) {
		want, _, _ := strings.Cut(text, "+")
		want, _, _ = strings.Cut(want, "@")
		if r.Short() != want {
			t.Errorf("%+v: %s, want %s", r, r.Short(), want)
		}
		if r.StartTime != 0 {
			continue
		}
		if short, err := ParseProcessRef(r.Short()); err != nil || short != (ProcessRef{PID: r.PID, ID: r.ID}) {
			t.Errorf("%s: %+v, %v", r.Short(), short, err)
		}
	}
}

func FuzzParseProcessRef(f *testing.F) {
	for text := range refTexts(f) {
		f.Add(text)
	}
	f.Add("01:0@")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseProcessRef(text)
		if err != nil {
			return
		}
		if again, err := r.MarshalText(); err != nil || string(again) != text {
			t.Errorf("%q became %q, %v", text, again, err)
		}
	})
}

// The struct of the documentation is what systemd 262 writes and reads.
func TestProcessRefAsVarlink(t *testing.T) {
	type processID struct {
		PID          int     `json:"pid"`
		ID           PidFDID `json:"pidfdId,omitzero"`
		StartTime    uint64  `json:"-"`
		BootID       BootID  `json:"bootId,omitzero"`
		PIDNamespace uint32  `json:"-"`
	}
	boot := bootID(t, someBoot)
	for text, want := range map[string]ProcessRef{
		`{"pid":4711,"pidfdId":25,"bootId":"e4852dac-db69-430a-8f3f-f227f27ae0a2"}`: {PID: 4711, ID: 25, BootID: boot},
		`{"pid":4711,"pidfdId":18446744073709551615}`:                               {PID: 4711, ID: 1<<64 - 1},
		`{"pid":2147483647}`: {PID: 1<<31 - 1},
	} {
		for _, text := range []string{text, strings.ReplaceAll(text, someBoot, strings.ReplaceAll(someBoot, "-", ""))} {
			var id processID
			if decodeJSON(t, text, &id); ProcessRef(id) != want {
				t.Errorf("%s: %+v", text, id)
			}
		}
		if got, err := json.Marshal(processID(want)); err != nil || string(got) != text {
			t.Errorf("%+v: %s, %v", want, got, err)
		}
	}
}

// namespaceNumber is that of the pid namespace of this process, as readlink(1) shows it.
func namespaceNumber(t *testing.T) (n uint32) {
	t.Helper()
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(link, "pid:[%d]", &n); err != nil {
		t.Fatal(link, err)
	}
	return n
}

func TestSelfRef(t *testing.T) {
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	r, err := SelfRef()
	if err != nil {
		t.Fatal(err)
	}
	boot, err := ThisBootID()
	if want := (ProcessRef{PID: os.Getpid(), ID: idOf(t, openPidFD(t, os.Getpid())), BootID: boot, PIDNamespace: namespaceNumber(t)}); err != nil || r != want {
		t.Errorf("%+v, want %+v, %v", r, want, err)
	}
	again, err := openPidFD(t, os.Getpid()).Ref()
	if err != nil || again != r {
		t.Errorf("%+v, %v; want %+v", again, err, r)
	}
}

// refOf returns the name of the process of cmd.
func refOf(t *testing.T, cmd *exec.Cmd) ProcessRef {
	t.Helper()
	r, err := openPidFD(t, cmd.Process.Pid).Ref()
	if err != nil || r.PID != cmd.Process.Pid || r.ID == 0 || r.BootID == (BootID{}) {
		t.Fatalf("%+v, %v", r, err)
	}
	return r
}

// opening are the ways to open a ProcessRef.
func opening(t *testing.T) map[string]func(ProcessRef) (*PidFD, error) {
	return map[string]func(ProcessRef) (*PidFD, error){"Open": ProcessRef.Open, "by PID": ProcessRef.openByPID}
}

func TestProcessRefOpen(t *testing.T) {
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	cmd, other := sleeper(t), sleeper(t)
	r := refOf(t, cmd)
	for way, open := range opening(t) {
		p, err := open(r)
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		if idOf(t, p) != r.ID {
			t.Errorf("%s: ID %d, want %d", way, idOf(t, p), r.ID)
		}
		p.Close()
	}
	p, err := (ProcessRef{PID: r.PID, ID: r.ID}).Open()
	if err != nil {
		t.Fatalf("without a boot ID: %v", err)
	}
	p.Close()

	fails := func(open func(ProcessRef) (*PidFD, error), r ProcessRef, text string, want ...error) {
		t.Helper()
		p, err := open(r)
		if p != nil {
			t.Errorf("%+v: opened", r)
			p.Close()
		}
		matches(t, err, want...)
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%+v: %v does not tell %q", r, err, text)
		}
	}
	fails(ProcessRef.Open, ProcessRef{}, "zero ProcessRef", syscall.EINVAL)
	fails(ProcessRef.Open, ProcessRef{PID: r.PID, BootID: r.BootID}, strconv.Itoa(r.PID), syscall.EINVAL)
	fails(ProcessRef.Open, ProcessRef{PID: -1, ID: r.ID}, "-1:", syscall.EINVAL)
	fails(ProcessRef.Open, ProcessRef{PID: r.PID, ID: r.ID, StartTime: 1}, "", syscall.EINVAL)
	fails(ProcessRef.Open, ProcessRef{PID: r.PID, StartTime: 1, BootID: r.BootID}, strconv.Itoa(r.PID), syscall.EINVAL)
	wrongBoot := r
	wrongBoot.BootID[15] ^= 1
	fails(ProcessRef.Open, wrongBoot, wrongBoot.BootID.String(), os.ErrProcessDone, syscall.ESRCH)
	// As if it had been the name of another process with this PID.
	fails(ProcessRef.openByPID, ProcessRef{PID: r.PID, ID: r.ID ^ 1<<40, BootID: r.BootID}, "with pidfd ID "+r.ID.String(), os.ErrProcessDone, syscall.ESRCH)
	fails(ProcessRef.Open, ProcessRef{PID: r.PID, ID: r.ID ^ 1<<40, BootID: r.BootID}, r.String()[:4], os.ErrProcessDone, syscall.ESRCH)
	fails(ProcessRef.openByPID, ProcessRef{PID: 0, ID: r.ID, BootID: r.BootID}, "", syscall.EINVAL)
	thread := otherThread(t)
	fails(ProcessRef.openByPID, ProcessRef{PID: thread, ID: r.ID, BootID: r.BootID}, "with pidfd ID", os.ErrProcessDone, syscall.ESRCH)

	if t.Run("by ID", func(t *testing.T) {
		needs(t, FeatureOpenByID)
		p, err := ProcessRef{PID: other.Process.Pid, ID: r.ID, BootID: r.BootID}.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if idOf(t, p) != r.ID {
			t.Errorf("ID %d, want %d", idOf(t, p), r.ID)
		}
	}); t.Failed() {
		return
	}

	zombie := sleeper(t)
	q := openPidFD(t, zombie.Process.Pid)
	rz := refOf(t, zombie)
	zombie.Process.Kill()
	awaitEnd(t, q)
	for way, open := range opening(t) {
		p, err := open(rz)
		if err != nil {
			t.Fatalf("a zombie, %s: %v", way, err)
		}
		p.Close()
	}
	reap(zombie)
	for _, open := range opening(t) {
		fails(open, rz, rz.Short()+" was reaped", os.ErrProcessDone, syscall.ESRCH)
	}
	_, err = q.Ref()
	matches(t, err, os.ErrProcessDone, syscall.ESRCH)
}

// awaitEnd waits until the process has ended, and leaves it a zombie.
func awaitEnd(t *testing.T, p *PidFD) {
	t.Helper()
	const wnowait = 0x1000000
	for {
		_, _, errno := syscall.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(p.fd), 0, syscall.WEXITED|wnowait, 0, 0)
		switch errno {
		case 0:
			return
		case syscall.EINTR:
		default:
			t.Fatal(errno)
		}
	}
}

func TestProcessRefClosed(t *testing.T) {
	p := openPidFD(t, os.Getpid())
	p.Close()
	_, err := p.Ref()
	matches(t, err, os.ErrClosed)
	_, err = (*PidFD)(nil).Ref()
	matches(t, err, os.ErrInvalid)
}

func init() {
	children["say-ref"] = func([]string) error {
		r, err := SelfRef()
		if err != nil {
			return err
		}
		text, err := json.Marshal(r)
		fmt.Println(string(text))
		io.ReadAll(os.Stdin)
		return err
	}
	// In a pid namespace of its own, with a /proc of its own.
	children["recycle"] = func([]string) error {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return err
		}
		first := child("sleep")
		if err := first.Start(); err != nil {
			return err
		}
		p, err := OpenPidFD(first.Process.Pid, 0)
		if err != nil {
			return err
		}
		r, err := p.Ref()
		if err != nil {
			return err
		}
		secondBest, err := p.secondBest()
		if err != nil {
			return err
		}
		reap(first)
		time.Sleep(2 * time.Second / ticksPerSecond)
		for range 1000 {
			if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(r.PID-1)), 0); err != nil {
				fmt.Printf("lacks ns_last_pid: %v\n", err)
				return nil
			}
			next := child("sleep")
			if err := next.Start(); err != nil {
				return err
			}
			defer reap(next)
			if next.Process.Pid != r.PID {
				continue // a thread got it
			}
			again, err := OpenPidFD(r.PID, 0)
			if err != nil {
				return err
			}
			id, err := again.ID()
			if err != nil || id == r.ID {
				return fmt.Errorf("the ID of another process is %d, %v", id, err)
			}
			if err := next.Process.Signal(syscall.Signal(0)); err != nil {
				return err
			}
			_, err = r.Open()
			fmt.Println(errors.Is(err, os.ErrProcessDone), err)
			_, err = r.openByPID()
			fmt.Println(errors.Is(err, os.ErrProcessDone), strings.Replace(fmt.Sprint(err), id.String(), "ID", 1))
			_, err = secondBest.OpenOrSecondBest()
			fmt.Println(errors.Is(err, os.ErrProcessDone), err)
			return nil
		}
		return errors.New("the PID did not come again")
	}
}

func TestProcessRefRecycledPID(t *testing.T) {
	rights.MountedRoot(t)
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	cmd := child("recycle")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out := output(t, cmd)
	if strings.HasPrefix(out, "lacks ") {
		lacks(t, out)
	}
	lines := strings.SplitAfter(out, "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "true process ") || !strings.HasPrefix(lines[1], "true process ") ||
		!strings.HasSuffix(lines[1], "is gone: its PID is that of the process with pidfd ID ID\n") ||
		!strings.HasPrefix(lines[2], "true process ") || !strings.Contains(lines[2], "is gone: its PID is that of a process that started at ") {
		t.Errorf("%s", out)
	}
}

// A process in a pid namespace of its own names itself, and is opened from outside.
func TestProcessRefOfOtherNamespace(t *testing.T) {
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeatureOpenByID)
	keepsDescriptors(t)
	cmd := child("say-ref")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	var r ProcessRef
	if err := json.NewDecoder(stdout).Decode(&r); err != nil {
		t.Fatal(err)
	}
	if r.PID != 1 {
		t.Errorf("%+v", r)
	}
	p, err := r.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if pid, err := p.PID(); err != nil || pid != cmd.Process.Pid {
		t.Errorf("PID %d, %v; want %d", pid, err, cmd.Process.Pid)
	}
	_, err = r.openByPID()
	matches(t, err, syscall.EREMOTE) // the first process of this namespace has another ID
	// From the initial namespace all processes are in sight, so that one that is not there is gone.
	stdin.Close()
	cmd.Wait()
	_, err = r.Open()
	if ownPIDNamespace() == initialPIDNamespace {
		matches(t, err, os.ErrProcessDone, syscall.ESRCH)
	} else {
		matches(t, err, syscall.EREMOTE)
	}
}

func init() {
	// Says how it is with the process named by the argument, and with a child of its own.
	children["look-outside"] = func(args []string) error {
		cmd := child("sleep")
		if err := cmd.Start(); err != nil {
			return err
		}
		defer reap(cmd)
		p, err := OpenPidFD(cmd.Process.Pid, 0)
		if err != nil {
			return err
		}
		defer p.Close()
		own, err := p.Ref()
		if err != nil {
			return err
		}
		outside, err := ParseProcessRef(args[0])
		if err != nil {
			return err
		}
		say := func(_ *PidFD, err error) {
			fmt.Println(err == nil, errors.Is(err, os.ErrProcessDone), errors.Is(err, syscall.EREMOTE))
		}
		say(own.Open())
		say(own.openByPID())
		say(outside.Open())
		say(outside.openByPID())
		reap(cmd)
		say(own.Open())
		say(own.openByPID())
		return nil
	}
}

// From inside a pid namespace, the end of a child is known, and what is outside is not taken for gone.
func TestProcessRefOutOfSight(t *testing.T) {
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeatureOpenByID)
	keepsDescriptors(t)
	cmd := child("look-outside", refOf(t, sleeper(t)).String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	const want = "true false false\ntrue false false\nfalse false true\nfalse false true\nfalse true false\nfalse true false\n"
	if out := output(t, cmd); out != want {
		t.Errorf("%s, want %s", out, want)
	}
}

func init() {
	children["no-proc"] = func([]string) error {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return err
		}
		boot, err := ThisBootID()
		if err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
			return err
		}
		_, err = ThisBootID()
		fmt.Println(errors.Is(err, errors.ErrUnsupported), err)
		r, err := SelfRef()
		if err != nil {
			return err
		}
		p, err := r.Open()
		if err != nil {
			return err
		}
		again, err := p.Ref()
		fmt.Println(r.PID == os.Getpid(), r.BootID == BootID{} && (r.PIDNamespace == 0) == (FeatureNamespace.Probe() != nil), again == r, err)
		r.BootID = boot
		_, err = r.Open()
		fmt.Println(errors.Is(err, errors.ErrUnsupported))
		return nil
	}
}

func TestProcessRefWithoutProc(t *testing.T) {
	rights.MountedRoot(t)
	reliesOn(t, withoutProc)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeaturePidFDID)
	needs(t, FeatureInfo)
	keepsDescriptors(t)
	cmd := child("no-proc")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	const want = "true the boot ID is not known: there is no /proc/sys/kernel/random/boot_id\ntrue true true <nil>\ntrue\n"
	if out := output(t, cmd); out != want {
		t.Errorf("%q, want %q", out, want)
	}
}

// refusals are what kernels and filters do.
var refusals = map[string]map[int]syscall.Errno{
	"a filter": {unix.SYS_OPEN_BY_HANDLE_AT: syscall.EPERM},
	"6.13":     {unix.SYS_OPEN_BY_HANDLE_AT: syscall.EBADF, unix.SYS_NAME_TO_HANDLE_AT: syscall.EOPNOTSUPP, unix.SYS_IOCTL: syscall.EINVAL},
}

func init() {
	children["refused"] = func(args []string) error {
		r, err := SelfRef()
		if err != nil {
			return err
		}
		cmd := child("sleep")
		if err := cmd.Start(); err != nil {
			return err
		}
		defer reap(cmd)
		runtime.LockOSThread()
		if err := refuse(refusals[args[0]]); err != nil {
			return err
		}
		say := func(p *PidFD, err error) {
			switch {
			case err == nil:
				pid, err := p.PID()
				fmt.Println(pid == os.Getpid(), pid == cmd.Process.Pid, err)
				p.Close()
			case errors.Is(err, errors.ErrUnsupported):
				fmt.Println("unsupported")
			case errors.Is(err, os.ErrProcessDone):
				fmt.Println("done")
			default:
				fmt.Println(err)
			}
		}
		say(r.Open())
		say(ProcessRef{PID: r.PID, ID: r.ID ^ 1<<40, BootID: r.BootID}.Open())
		if pidFDOf != nil {
			say(pidFDOf(cmd.Process))
		}
		return nil
	}
}

func TestProcessRefRefused(t *testing.T) {
	reliesOn(t, seccompFilters)
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	for name := range refusals {
		want := "true false <nil>\ndone\n"
		if name == "6.13" && !is64bit {
			want = "unsupported\nunsupported\n"
		}
		if pidFDOf != nil {
			want += "false true <nil>\n"
		}
		if out := output(t, child("refused", name)); out != want {
			t.Errorf("%s: %q, want %q", name, out, want)
		}
	}
}

// secondBestOf returns the second best of the process of cmd, whatever this kernel has.
func secondBestOf(t *testing.T, cmd *exec.Cmd) ProcessRef {
	t.Helper()
	r, err := openPidFD(t, cmd.Process.Pid).secondBest()
	if err != nil || r.PID != cmd.Process.Pid || r.ID != 0 || r.StartTime == 0 || r.BootID == (BootID{}) {
		t.Fatalf("%+v, %v", r, err)
	}
	return r
}

// failsToOpen opens a ProcessRef, or its second best, which must fail.
func failsToOpen(t *testing.T, open func(ProcessRef) (*PidFD, error), r ProcessRef, text string, want ...error) {
	t.Helper()
	p, err := open(r)
	if p != nil {
		t.Errorf("%+v: opened", r)
		p.Close()
	}
	matches(t, err, want...)
	if err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%+v: %v does not tell %q", r, err, text)
	}
}

func TestSecondBest(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	cmd, other := sleeper(t), sleeper(t)
	pid := cmd.Process.Pid
	r := secondBestOf(t, cmd)
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := ThisBootID()
	if err != nil {
		t.Fatal(err)
	}
	start, err := strconv.ParseUint(strings.Fields(string(stat))[21], 10, 64) // there is no space in the name
	if want := (ProcessRef{PID: pid, StartTime: start, BootID: boot, PIDNamespace: namespaceNumber(t)}); err != nil || r != want {
		t.Errorf("%+v, want %+v, %v", r, want, err)
	}
	if again, err := ParseProcessRef(r.String()); err != nil || again != r {
		t.Errorf("%s: %+v, %v", r, again, err)
	}
	same := func(r ProcessRef) {
		t.Helper()
		p, err := r.OpenOrSecondBest()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if again, err := p.PID(); err != nil || again != pid {
			t.Errorf("PID %d, want %d, %v", again, pid, err)
		}
	}
	same(r)
	anywhere := r
	anywhere.PIDNamespace = 0
	same(anywhere)

	// The exact name where the kernel has it.
	p := openPidFD(t, pid)
	best, err := p.RefOrSecondBest()
	want := r
	if exact, errExact := p.Ref(); !errors.Is(errExact, errors.ErrUnsupported) {
		if want = exact; errExact != nil || exact.StartTime != 0 || exact.String() == r.String() {
			t.Errorf("%+v, %v", exact, errExact)
		}
	}
	if err != nil || best != want {
		t.Errorf("%+v, want %+v, %v", best, want, err)
	}
	same(best)

	fails := func(change func(r *ProcessRef), text string, want ...error) {
		t.Helper()
		r := r
		change(&r)
		failsToOpen(t, ProcessRef.OpenOrSecondBest, r, text, want...)
	}
	fails(func(r *ProcessRef) { r.StartTime++ }, "that started at "+strconv.FormatUint(start, 10), os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.StartTime-- }, "its PID is that of a process", os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.StartTime = 1<<64 - 1 }, r.Short()[:4], os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.PID, r.StartTime = other.Process.Pid, r.StartTime-1 }, "is gone", os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.PID = otherThread(t); r.StartTime-- }, "is gone", os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.PID = 1<<31 - 1 }, "no process has its PID", os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.BootID[3] ^= 1 }, "this is boot", os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.BootID[3] ^= 1; r.PIDNamespace ^= 1 }, "this is boot", os.ErrProcessDone, syscall.ESRCH)
	fails(func(r *ProcessRef) { r.PIDNamespace ^= 1 }, "not visible", syscall.EREMOTE)
	fails(func(r *ProcessRef) { r.BootID = BootID{} }, "is not a process reference", syscall.EINVAL)
	fails(func(r *ProcessRef) { r.ID = 1 }, "is not a process reference", syscall.EINVAL)
	fails(func(r *ProcessRef) { r.PID = 0 }, "is not a process reference", syscall.EINVAL)
	fails(func(r *ProcessRef) { r.StartTime = 0 }, "ID is not known", syscall.EINVAL)
	fails(func(r *ProcessRef) { *r = ProcessRef{} }, "zero ProcessRef", syscall.EINVAL)
	// It must be asked for.
	failsToOpen(t, ProcessRef.Open, r, "its start time is no proof", syscall.EINVAL)

	cmd.Process.Kill()
	awaitEnd(t, p)
	same(r) // a zombie
	if again, err := p.secondBest(); err != nil || again != r {
		t.Errorf("a zombie: %+v, want %+v, %v", again, r, err)
	}
	reap(cmd)
	fails(func(r *ProcessRef) {}, r.Short()+" was reaped", os.ErrProcessDone, syscall.ESRCH)
	_, err = p.secondBest()
	matches(t, err, os.ErrProcessDone, syscall.ESRCH)
	_, err = p.RefOrSecondBest()
	matches(t, err, os.ErrProcessDone, syscall.ESRCH)
	p.Close()
	_, err = p.RefOrSecondBest()
	matches(t, err, os.ErrClosed)
	_, err = (*PidFD)(nil).RefOrSecondBest()
	matches(t, err, os.ErrInvalid)
}

func TestSelfRefOrSecondBest(t *testing.T) {
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	r, err := SelfRefOrSecondBest()
	want, errExact := SelfRef()
	if errors.Is(errExact, errors.ErrUnsupported) {
		want, errExact = openPidFD(t, os.Getpid()).secondBest()
	}
	if err != nil || errExact != nil || r != want {
		t.Errorf("%+v, %v; want %+v, %v", r, err, want, errExact)
	}
	p, err := r.OpenOrSecondBest()
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

// Where the kernel has no IDs, or looks like it.
func TestSecondBestWithoutIDs(t *testing.T) {
	reliesOn(t, seccompFilters)
	needs(t, FeaturePidFD)
	if _, known := answersTo("name_to_handle_at fstatfs", 0); !known {
		t.Skip("not on " + runtime.GOARCH)
	}
	if !again(t, func(cmd *exec.Cmd) { behindFilter(cmd, "name_to_handle_at fstatfs", retErrno|uint32(syscall.ENOSYS)) }) {
		return
	}
	_, err := SelfRef()
	matches(t, err, errors.ErrUnsupported)
	r, err := SelfRefOrSecondBest()
	if err != nil || r.PID != os.Getpid() || r.StartTime == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	cmd := sleeper(t)
	p := openPidFD(t, cmd.Process.Pid)
	r, err = p.RefOrSecondBest()
	if want := secondBestOf(t, cmd); err != nil || r != want {
		t.Fatalf("%+v, want %+v, %v", r, want, err)
	}
	q, err := r.OpenOrSecondBest()
	if err != nil {
		t.Fatal(err)
	}
	q.Close()
}

func init() {
	// Gives itself a name, and then executes itself again and again, from any thread.
	children["be-called"] = func(args []string) error {
		if len(args) == 0 {
			io.ReadAll(os.Stdin)
			return nil
		}
		if err := os.WriteFile("/proc/self/comm", []byte(args[0]), 0); err != nil {
			return err
		}
		fmt.Println("called")
		os.Stdin.Read(make([]byte, 1))
		return syscall.Exec("/proc/self/exe", append([]string{"x"}, args[1:]...), os.Environ())
	}
}

// A start time is that of the process, whatever it is called and executes.
func TestSecondBestNames(t *testing.T) {
	reliesOn(t, runsItself)
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	names := []string{"a b", ")", ") R 1 (", "\n", "(((", "a\nb) S 1 2 3", " ", "\\", "\xff\x01"}
	cmd := child("be-called", names...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer reap(cmd)
	r := secondBestOf(t, cmd)
	p := openPidFD(t, cmd.Process.Pid)
	is := func(when string) bool {
		if got, err := p.secondBest(); err != nil || got != r {
			t.Errorf("%s: %+v, want %+v, %v", when, got, r, err)
			return false
		}
		return true
	}
	for i, name := range names {
		if _, err := io.ReadFull(stdout, make([]byte, len("called\n"))); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		is(strconv.Quote(name))
		stdin.Write([]byte{1})
		for range 200 { // while it executes
			if !is("after " + strconv.Quote(name)) {
				return
			}
		}
	}
	// Until it is reaped, and no longer.
	stdin.Close()
	reaped := make(chan error)
	go func() { reaped <- cmd.Wait() }()
	for {
		q, err := r.OpenOrSecondBest()
		if err != nil {
			matches(t, err, os.ErrProcessDone, syscall.ESRCH)
			break
		}
		q.Close()
	}
	if err := <-reaped; err != nil {
		t.Error(err)
	}
}

func init() {
	// The main goroutine has the main thread then, whose time namespace for children counts.
	if os.Getenv(childVar) == "second-best" {
		runtime.LockOSThread()
	}
	// Prints the second best of a process, and opens the given one of it.
	children["second-best"] = func(args []string) error {
		r, err := ParseProcessRef(args[0])
		if err != nil {
			return err
		}
		say := func() error {
			p, err := OpenPidFD(r.PID, 0)
			if err != nil {
				return err
			}
			defer p.Close()
			own, err := p.secondBest()
			switch {
			case errors.Is(err, errors.ErrUnsupported):
				fmt.Println("unsupported")
			case err != nil:
				fmt.Println(err)
			default:
				fmt.Println(own)
			}
			q, err := r.OpenOrSecondBest()
			fmt.Println(err == nil, errors.Is(err, errors.ErrUnsupported))
			if q != nil {
				q.Close()
			}
			return nil
		}
		if err := say(); err != nil || len(args) == 1 {
			return err
		}
		if err := syscall.Unshare(syscall.CLONE_NEWTIME); err != nil {
			return err
		}
		return say()
	}
}

// In a time namespace the kernel tells other start times, and the second best remains the same.
func TestSecondBestTimeNamespace(t *testing.T) {
	rights.Need(t, rights.SysAdmin)
	needs(t, FeaturePidFD)
	reliesOn(t, namespaces)
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skip("this kernel has no time namespaces")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		if os.Getenv("SYSFD_TEST_VM") != "" {
			t.Skip("the machine has no unshare(1)")
		}
		lacks(t, "unshare(1)")
	}
	keepsDescriptors(t)
	r := secondBestOf(t, sleeper(t))
	first, err := openPidFD(t, 1).secondBest()
	if err != nil {
		t.Skip(err) // it may have started in the first tick
	}
	beforeFirst := strconv.FormatUint(first.StartTime/ticksPerSecond+1, 10)
	for _, test := range []struct {
		r       ProcessRef
		offset  string
		unshare bool
		want    string
	}{
		{r, "0", false, r.String() + "\ntrue false\n"},
		{r, "100000", false, r.String() + "\ntrue false\n"},
		{r, "-" + beforeFirst, false, r.String() + "\ntrue false\n"},
		{first, "1", false, first.String() + "\ntrue false\n"},
		{first, "-" + beforeFirst, false, "unsupported\nfalse true\n"}, // below zero
		{r, "1", true, r.String() + "\ntrue false\nunsupported\nfalse true\n"},
	} {
		cmd := child("second-best", test.r.String())
		if test.unshare {
			cmd.Args = append(cmd.Args, "-unshare")
		}
		// Before Linux 6.3 it takes a fork to get there.
		cmd.Args = append([]string{unshare, "--time", "--boottime=" + test.offset, "sh", "-c", `"$@"; exit`, "sh"}, cmd.Args...)
		cmd.Path = unshare
		if out := output(t, cmd); out != test.want {
			t.Errorf("%v, offset %s: %s, want %s", test.r, test.offset, out, test.want)
		}
	}
}

func init() {
	children["second-best-outside"] = func(args []string) error {
		r, err := ParseProcessRef(args[0])
		if err != nil {
			return err
		}
		for _, pid := range []int{r.PID, os.Getpid()} {
			r.PID = pid
			p, err := r.OpenOrSecondBest()
			fmt.Println(p == nil, errors.Is(err, syscall.EREMOTE), errors.Is(err, os.ErrProcessDone))
		}
		return nil
	}
}

// In another pid namespace a PID is that of another process.
func TestSecondBestOutOfSight(t *testing.T) {
	reliesOn(t, namespaces)
	rights.Need(t, rights.SysAdmin)
	needs(t, FeaturePidFD)
	keepsDescriptors(t)
	cmd := child("second-best-outside", secondBestOf(t, sleeper(t)).String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if out := output(t, cmd); out != "true true false\ntrue true false\n" {
		t.Error(out)
	}
}
