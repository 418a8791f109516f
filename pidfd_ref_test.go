//go:build linux

package sysfd

import (
	"bytes"
	"encoding"
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

	"golang.org/x/sys/unix"
)

var (
	_ encoding.TextAppender    = ProcessRef{}
	_ encoding.TextMarshaler   = ProcessRef{}
	_ encoding.TextUnmarshaler = (*ProcessRef)(nil)
	_ json.Marshaler           = ProcessRef{}
	_ json.Unmarshaler         = (*ProcessRef)(nil)
)

// refTexts are names of processes and their texts.
func refTexts(t testing.TB) map[string]ProcessRef {
	boot := bootID(t, someBoot)
	return map[string]ProcessRef{
		"4711:25":                                  {PID: 4711, ID: 25},
		"1:18446744073709551615":                   {PID: 1, ID: 1<<64 - 1},
		"2147483647:30064771191":                   {PID: 1<<31 - 1, ID: 0x7_0000_0077},
		"4711:25@" + someBoot:                      {4711, 25, boot},
		"1:1@ffffffff-ffff-ffff-ffff-ffffffffffff": {1, 1, bootID(t, strings.Repeat("f", 32))},
	}
}

func TestProcessRefText(t *testing.T) {
	for text, want := range refTexts(t) {
		r, err := ParseProcessRef(text)
		if err != nil || r != want {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
		if got, err := want.MarshalText(); err != nil || string(got) != text {
			t.Errorf("%+v: %s, %v", want, got, err)
		}
		if short, _, _ := strings.Cut(text, "@"); want.String() != short {
			t.Errorf("%+v: %s", want, want)
		}
	}
	plain := strings.ReplaceAll(someBoot, "-", "")
	for _, bad := range []string{
		"", ":", "4711", "4711:", ":25", "0:25", "4711:0", "-1:25", "+1:25", "01:25", "4711:025", "4711: 25", "4711:25 ", "4711:25\n",
		"0x1:25", "4711:0x19", "1_0:25", "2147483648:25", "4294967297:25", "4711:18446744073709551616", "4711:25:1",
		"4711:25@", "4711:25@" + plain, "4711:25@" + strings.ToUpper(someBoot), "4711:25@" + someBoot + " ", "4711:25@@" + someBoot,
		"4711:25@00000000-0000-0000-0000-000000000000", "4711@" + someBoot,
	} {
		r, err := ParseProcessRef(bad)
		matches(t, err, syscall.EINVAL)
		if err == nil || r != (ProcessRef{}) || !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("%q: %+v, %v", bad, r, err)
		}
	}
	for _, bad := range []ProcessRef{{}, {PID: 1}, {ID: 1}, {PID: -1, ID: 1}, {PID: 1 + beyond32bits, ID: 1}} {
		if bad.PID == 1 && bad.ID == 1 {
			continue // where an int has 32 bits
		}
		text, err := bad.MarshalText()
		matches(t, err, syscall.EINVAL)
		if len(text) != 0 {
			t.Errorf("%+v: %s", bad, text)
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

func TestProcessRefJSON(t *testing.T) {
	boot := bootID(t, someBoot)
	for _, test := range []struct {
		r    ProcessRef
		text string
	}{
		// As systemd 262 prints them.
		{ProcessRef{4711, 25, boot}, `{"pid":4711,"pidfdId":25,"bootId":"e4852dacdb69430a8f3ff227f27ae0a2"}`},
		{ProcessRef{4711, 1<<64 - 1, boot}, `{"pid":4711,"pidfdId":18446744073709551615,"bootId":"e4852dacdb69430a8f3ff227f27ae0a2"}`},
		{ProcessRef{PID: 4711, ID: 25}, `{"pid":4711,"pidfdId":25}`},
		{ProcessRef{PID: 1<<31 - 1}, `{"pid":2147483647}`},
		{ProcessRef{}, `null`},
	} {
		text, err := json.Marshal(test.r)
		if err != nil || string(text) != test.text {
			t.Errorf("%+v: %s, %v; want %s", test.r, text, err, test.text)
		}
		r := ProcessRef{1, 2, BootID{3}}
		if err := json.Unmarshal([]byte(test.text), &r); err != nil || r != test.r {
			t.Errorf("%s: %+v, %v", test.text, r, err)
		}
	}
	if text, err := (ProcessRef{PID: 4711, BootID: boot}).MarshalJSON(); err != nil || string(text) != `{"pid":4711}` {
		t.Errorf("%s, %v", text, err)
	}
	for _, bad := range []ProcessRef{{ID: 25}, {PID: -1, ID: 25}, {BootID: boot}} {
		_, err := bad.MarshalJSON()
		matches(t, err, syscall.EINVAL)
	}
}

func TestProcessRefUnmarshalJSON(t *testing.T) {
	boot := bootID(t, someBoot)
	for text, want := range map[string]ProcessRef{
		`4711`:                   {PID: 4711},
		` "4711" `:               {PID: 4711},
		`{"pid":4711}`:           {PID: 4711},
		"\t{ \"pid\" :\n1 }\r\n": {PID: 1},
		`{"bootId":"` + someBoot + `","pidfdId":25,"pid":4711}`:                                                                    {4711, 25, boot},
		`{"pid":"4711","pidfdId":"30064771191"}`:                                                                                   {PID: 4711, ID: 0x7_0000_0077},
		`{"pid":1,"pidfdId":null,"bootId":null}`:                                                                                   {PID: 1},
		`{"pid":1,"pidfdId":0,"bootId":"00000000000000000000000000000000"}`:                                                        {PID: 1},
		`{"pid":1,"pidfdId":9007199254740993}`:                                                                                     {PID: 1, ID: 1<<53 + 1},
		`{"\u0070id":1,"x\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00":"}","pidfdId":"\u0032\u0035"}`:                                        {PID: 1, ID: 25},
		`{"a":[],"b":{},"c":[1,[-0.5e+3,{"pid":7}],true],"d":{"pid":8,"pid":9},"pid":1,"PID":2,"e":false,"f":null,"a":"","é":0E0}`: {PID: 1},
	} {
		r := ProcessRef{1, 2, BootID{3}}
		if err := r.UnmarshalJSON([]byte(text)); err != nil || r != want {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
	for _, bad := range []string{
		``, ` `, `x`, `nul`, `nullx`, `null null`, `true`, `[]`, `[1]`, `{}`, `{`, `{"`, `{"pid`, `{"pid"`, `{"pid":`, `{"pid":1`, `{"pid":1,`, `{"pid":1,}`,
		`{,"pid":1}`, `{"pid":1 "pidfdId":2}`, `{"pid" 1}`, `{pid:1}`, `{"pid":1}}`, `{"pid":1}{"pid":1}`, `{"pid":1}` + "\x00", "\x00",
		`0`, `-1`, `1.0`, `1e3`, `01`, `+1`, `0x1`, `2147483648`, `4294967297`, `18446744073709551617`, `""`, `"01"`, `"1`, `" 1"`, `"-1"`, `"0"`,
		`{"pid":0}`, `{"pid":null}`, `{"pid":-1}`, `{"pid":true}`, `{"pid":{}}`, `{"pidfdId":1}`, `{"pid":1,"pid":1}`, `{"pid":1,"\u0070id":1}`,
		`{"pid":1,"pidfdId":1,"pidfdId":1}`, `{"pid":1,"bootId":null,"bootId":null}`, `{"pid":1,"pidfdId":18446744073709551616}`, `{"pid":1,"pidfdId":1.5}`,
		`{"pid":1,"pidfdId":-0}`, `{"pid":1,"pidfdId":"x"}`, `{"pid":1,"pidfdId":[]}`, `{"pid":1,"bootId":"x"}`, `{"pid":1,"bootId":1}`, `{"pid":1,"bootId":""}`,
		`{"pid":1,"x":"\x"}`, `{"pid":1,"x":"\u12g4"}`, `{"pid":1,"x":"\u1`, `{"pid":1,"x":"\`, "{\"pid\":1,\"x\":\"\n\"}", `{"pid":1,"x":tru}`, `{"pid":1,"x":.5}`,
		`{"pid":1,"x":01}`, `{"\u0170id":1}`, `{"pid":"\u0131"}`, `{"pid":1,"x":1.}`, `{"pid":1,"x":1e}`, `{"pid":1,"x":-}`, `{"pid":1,"x":[1,]}`, `{"pid":1,"x":[1 2]}`, `{"pid":1,"x":[}`, `{"pid":1,"x":{"a"}}`,
		`{"pid":1,"x":` + strings.Repeat("[", 1e6) + strings.Repeat("]", 1e6) + `}`,
		`{"pid":1,"x":` + strings.Repeat(`{"x":`, 1e6),
	} {
		was := ProcessRef{1, 2, BootID{3}}
		r := was
		err := r.UnmarshalJSON([]byte(bad))
		if err == nil || r != was {
			t.Errorf("%.80s: %+v, %v", bad, r, err)
		}
		matches(t, err, syscall.EINVAL)
	}
}

// jsonTwin reads a ProcessRef with encoding/json.
func jsonTwin(data []byte) (r ProcessRef, ok bool) {
	if !json.Valid(data) {
		return r, false
	}
	number := func(raw json.RawMessage, n any) bool {
		var s string
		if json.Unmarshal(raw, &s) == nil && string(raw) != "null" {
			raw = json.RawMessage(s)
		}
		return string(raw) != "null" && strings.TrimSpace(string(raw)) == string(raw) && json.Unmarshal(raw, n) == nil
	}
	pid := func(raw json.RawMessage) bool {
		var n uint32
		ok := number(raw, &n) && n > 0 && n < 1<<31
		r.PID = int(n)
		return ok
	}
	data = bytes.TrimSpace(data)
	if string(data) == "null" {
		return r, true
	}
	if data[0] != '{' {
		return r, pid(data)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.Token()
	seen := map[string]bool{}
	for decoder.More() {
		key, err := decoder.Token()
		var raw json.RawMessage
		if err != nil || decoder.Decode(&raw) != nil {
			return r, false
		}
		name := key.(string)
		switch name {
		case "pid", "pidfdId", "bootId":
			if seen[name] {
				return r, false
			}
			seen[name] = true
		}
		ok := true
		switch {
		case name == "pid":
			ok = pid(raw)
		case string(raw) == "null":
		case name == "pidfdId":
			ok = number(raw, (*uint64)(&r.ID))
		case name == "bootId":
			var s string
			if ok = json.Unmarshal(raw, &s) == nil; ok {
				r.BootID, err = ParseBootID(s)
				ok = err == nil
			}
		}
		if !ok {
			return r, false
		}
	}
	return r, r.PID != 0
}

func FuzzProcessRefUnmarshalJSON(f *testing.F) {
	for _, seed := range []string{
		`{"pid":4711,"pidfdId":25,"bootId":"e4852dacdb69430a8f3ff227f27ae0a2"}`, `{"pid":1,"pidfdId":null,"bootId":null}`, `null`, ` "4711" `, `1e3`,
		`{"\u0070id":1,"x\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00":"}","a":[1,[-0.5e+3,{"pid":7}],true],"b":false}`, `{"pid":1,"pid":2}`, `{"pid":"01"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r ProcessRef
		err := r.UnmarshalJSON(data)
		want, ok := jsonTwin(data)
		if err == nil && (!ok || r != want) || err != nil && ok && bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) < 1000 {
			t.Fatalf("%q: %+v, %v; encoding/json: %+v, %v", data, r, err, want, ok)
		}
		if err != nil {
			return
		}
		text, err := r.MarshalJSON()
		var again ProcessRef
		if err != nil || json.Unmarshal(text, &again) != nil {
			t.Fatalf("%+v: %s, %v", r, text, err)
		}
		if r.ID == 0 {
			r.BootID = BootID{}
		}
		if again != r {
			t.Errorf("%s: %+v, want %+v", text, again, r)
		}
	})
}

func TestSelfRef(t *testing.T) {
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	r, err := SelfRef()
	if err != nil {
		t.Fatal(err)
	}
	boot, err := ThisBootID()
	if want := (ProcessRef{os.Getpid(), idOf(t, openPidFD(t, os.Getpid())), boot}); err != nil || r != want {
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
	fails(ProcessRef.Open, ProcessRef{}, "ID is not known", syscall.EINVAL)
	fails(ProcessRef.Open, ProcessRef{PID: r.PID, BootID: r.BootID}, strconv.Itoa(r.PID), syscall.EINVAL)
	wrongBoot := r
	wrongBoot.BootID[15] ^= 1
	fails(ProcessRef.Open, wrongBoot, wrongBoot.BootID.String(), os.ErrProcessDone, syscall.ESRCH)
	// As if it had been the name of another process with this PID.
	fails(ProcessRef.openByPID, ProcessRef{r.PID, r.ID ^ 1<<40, r.BootID}, "with pidfd ID "+r.ID.String(), os.ErrProcessDone, syscall.ESRCH)
	fails(ProcessRef.Open, ProcessRef{r.PID, r.ID ^ 1<<40, r.BootID}, r.String()[:4], os.ErrProcessDone, syscall.ESRCH)
	fails(ProcessRef.openByPID, ProcessRef{0, r.ID, r.BootID}, "", syscall.EINVAL)
	thread := otherThread(t)
	fails(ProcessRef.openByPID, ProcessRef{thread, r.ID, r.BootID}, "with pidfd ID", os.ErrProcessDone, syscall.ESRCH)

	if t.Run("by ID", func(t *testing.T) {
		needs(t, FeatureOpenByID)
		p, err := ProcessRef{other.Process.Pid, r.ID, r.BootID}.Open()
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
		fails(open, rz, rz.String()+" was reaped", os.ErrProcessDone, syscall.ESRCH)
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
		reap(first)
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
			return nil
		}
		return errors.New("the PID did not come again")
	}
}

func TestProcessRefRecycledPID(t *testing.T) {
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator has no CLONE_NEWPID")
	}
	needsRoot(t)
	needs(t, FeaturePidFDID)
	keepsDescriptors(t)
	cmd := child("recycle")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	out := output(t, cmd)
	if strings.HasPrefix(out, "lacks ") {
		lacks(t, out)
	}
	lines := strings.SplitAfter(out, "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "true process ") || !strings.HasPrefix(lines[1], "true process ") ||
		!strings.HasSuffix(lines[1], "is gone: its PID is that of the process with pidfd ID ID\n") {
		t.Errorf("%s", out)
	}
}

// A process in a pid namespace of its own names itself, and is opened from outside.
func TestProcessRefOfOtherNamespace(t *testing.T) {
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator has no CLONE_NEWPID")
	}
	needsRoot(t)
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
	matches(t, err, os.ErrProcessDone, syscall.ESRCH) // the first process of this namespace has another ID
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
		fmt.Println(r.PID == os.Getpid(), r.BootID == BootID{}, again == r, err)
		r.BootID = boot
		_, err = r.Open()
		fmt.Println(errors.Is(err, errors.ErrUnsupported))
		return nil
	}
}

func TestProcessRefWithoutProc(t *testing.T) {
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator needs /proc itself")
	}
	needsRoot(t)
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
		say(ProcessRef{r.PID, r.ID ^ 1<<40, r.BootID}.Open())
		if pidFDOf != nil {
			say(pidFDOf(cmd.Process))
		}
		return nil
	}
}

func TestProcessRefRefused(t *testing.T) {
	if os.Getenv(emulatorVar) != "" {
		t.Skip("the emulator has no seccomp")
	}
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
