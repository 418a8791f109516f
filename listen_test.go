//go:build linux

package sysfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Who decides in the tables below.
const (
	testPID = 4711
	testID  = PidFDID(0x7_0000_0077)
)

const unset = "\x00" // no variable can have this value

// decide puts four variables before decide, with some descriptors open from 3 up.
func decide(pid, pidfdid, fds, names string, open int) ([]string, string, error) {
	var vars listenVars
	for i, value := range [listenVarCount]string{pid, pidfdid, fds, names} {
		if value != unset {
			vars[i].value, vars[i].set = value, true
		}
	}
	return vars.decide(testPID, func() (PidFDID, error) { return testID, nil }, func(fd int) string {
		if fd < listenFDsStart+open {
			return ""
		}
		return "is not open"
	})
}

// The answers are those of libsystemd 262 (sd_listen_fds_with_names): a number of
// descriptors, or an errno.
func TestListenDecide(t *testing.T) {
	const pid, id = "4711", "30064771191"
	long := strings.Repeat("x", 300)
	for _, test := range []struct {
		pid, pidfdid, fds, names string
		open                     int
		want                     any
		wantNames                []string
	}{
		// Addressed or not.
		{unset, unset, "1", unset, 1, 0, nil},
		{unset, "x", "x", unset, 1, 0, nil},
		{"1", unset, "x", unset, 1, 0, nil},
		{"1", "x", "x", "a:b", 1, 0, nil},
		{pid, unset, "1", unset, 1, 1, []string{"unknown"}},
		{pid, id, "1", unset, 1, 1, []string{"unknown"}},
		{pid, id, "3", unset, 9, 3, []string{"unknown", "unknown", "unknown"}},
		{pid, "119", "1", unset, 1, 0, nil}, // the low half of the ID
		{pid, "5", "x", unset, 1, 0, nil},
		{pid, id, unset, "a", 1, 0, nil},
		{pid, "x", unset, unset, 1, syscall.EINVAL, nil},
		{pid, "", "", unset, 1, syscall.EINVAL, nil},
		{pid, "-1", "1", unset, 1, syscall.ERANGE, nil},
		{pid, "18446744073709551616", "1", unset, 1, syscall.ERANGE, nil},
		{pid, "0x12", "1", unset, 1, 0, nil},
		{pid, "+12", "1", unset, 1, 0, nil},
		{pid, "0x700000077", "1", unset, 1, 1, []string{"unknown"}},
		{"", unset, "1", unset, 1, syscall.EINVAL, nil},
		{"x", unset, "1", unset, 1, syscall.EINVAL, nil},
		{"0", unset, "1", unset, 1, syscall.ERANGE, nil},
		{"-4711", unset, "1", unset, 1, syscall.ERANGE, nil},
		{"2147483648", unset, "1", unset, 1, syscall.ERANGE, nil},
		{"4294972007", unset, "1", unset, 1, syscall.ERANGE, nil}, // 2^32 + 4711
		{"0x1267", unset, "1", unset, 1, 1, []string{"unknown"}},
		// How many.
		{pid, id, "", unset, 1, syscall.EINVAL, nil},
		{pid, id, "0", unset, 1, syscall.EINVAL, nil},
		{pid, id, "-1", unset, 1, syscall.EINVAL, nil},
		{pid, id, "2147483647", unset, 1, syscall.EINVAL, nil},
		{pid, id, "2147483645", unset, 1, syscall.EINVAL, nil},
		{pid, id, "2147483644", unset, 1, syscall.EBADF, nil},
		{pid, id, "2147483648", unset, 1, syscall.ERANGE, nil},
		{pid, id, "99999999999", unset, 1, syscall.ERANGE, nil},
		{pid, id, "+1", unset, 1, 1, []string{"unknown"}},
		{pid, id, "0x1", unset, 1, 1, []string{"unknown"}},
		{pid, id, "01", unset, 1, 1, []string{"unknown"}},
		{pid, id, "010", unset, 8, 8, slices.Repeat([]string{"unknown"}, 8)},
		{pid, id, "2", unset, 1, syscall.EBADF, nil},
		{pid, id, "1", unset, 0, syscall.EBADF, nil},
		{pid, id, "1", "a:b", 0, syscall.EBADF, nil},
		// Names.
		{pid, id, "1", "", 1, 1, []string{""}},
		{pid, id, "2", "", 2, syscall.EINVAL, nil},
		{pid, id, "2", ":", 2, 2, []string{"", ""}},
		{pid, id, "2", "a:", 2, 2, []string{"a", ""}},
		{pid, id, "3", "a::b", 3, 3, []string{"a", "", "b"}},
		{pid, id, "1", "a:", 1, syscall.EINVAL, nil},
		{pid, id, "2", "a", 2, syscall.EINVAL, nil},
		{pid, id, "1", `a\:b`, 1, 1, []string{"a:b"}},
		{pid, id, "2", `a\\:b`, 2, 2, []string{`a\`, "b"}},
		{pid, id, "1", `\n\x41`, 1, 1, []string{"nx41"}},
		{pid, id, "2", `'a:b'`, 2, 2, []string{"'a", "b'"}},
		{pid, id, "2", " a : b ", 2, 2, []string{" a ", " b "}},
		{pid, id, "2", "\xff\n:" + long, 2, 2, []string{"\xff\n", long}},
		{pid, id, "1", `a\`, 1, syscall.EINVAL, nil},
		{unset, unset, unset, `a\`, 1, syscall.EINVAL, nil},
		{"x", unset, unset, `a\`, 1, syscall.EINVAL, nil},
	} {
		given := fmt.Sprintf("%q %q %q %q, %d open", test.pid, test.pidfdid, test.fds, test.names, test.open)
		names, reason, err := decide(test.pid, test.pidfdid, test.fds, test.names, test.open)
		var got any = len(names)
		if err != nil {
			var errno syscall.Errno
			if !errors.As(err, &errno) || names != nil {
				t.Errorf("%s: %q, %v", given, names, err)
			}
			got = errno
		}
		if got != test.want || !slices.Equal(names, test.wantNames) {
			t.Errorf("%s: %v %q", given, got, names)
		}
		if (reason == "") != (got != 0) {
			t.Errorf("%s: reason %q with %v", given, reason, got)
		}
	}
}

func TestListenReasons(t *testing.T) {
	for _, test := range []struct{ pid, pidfdid, fds, want string }{
		{unset, unset, unset, "LISTEN_PID is not set"},
		{"1", unset, "1", "LISTEN_PID is addressed to process 1, this is process 4711"},
		{"4711", "119", "1", "LISTEN_PID is that of this process, but LISTEN_PIDFDID is addressed to pidfd ID 119, this process has 30064771191"},
		{"4711", unset, unset, "LISTEN_FDS is not set"},
		{"x", unset, unset, `LISTEN_PID="x": not a PID`},
		{"0", unset, unset, `LISTEN_PID="0": out of range`},
		{"4711", unset, "2", `LISTEN_FDS="2": descriptor 4 is not open`},
	} {
		_, reason, err := decide(test.pid, test.pidfdid, test.fds, unset, 1)
		if err != nil {
			reason = err.Error()
		}
		if reason != test.want {
			t.Errorf("%+q: %s", test, reason)
		}
	}
}

// Where a process cannot know its ID, $LISTEN_PIDFDID must be a number, no more.
func TestListenWithoutID(t *testing.T) {
	vars := listenVars{{"4711", true}, {"5", true}, {"1", true}, {}}
	noID := func() (PidFDID, error) { return 0, errors.ErrUnsupported }
	open := func(int) string { return "" }
	if names, reason, err := vars.decide(testPID, noID, open); len(names) != 1 {
		t.Errorf("%q, %q, %v", names, reason, err)
	}
	noID = func() (PidFDID, error) { return 0, syscall.EPERM }
	if names, reason, err := vars.decide(testPID, noID, open); len(names) != 1 {
		t.Errorf("%q, %q, %v", names, reason, err)
	}
	// It could tell, at another time.
	noID = func() (PidFDID, error) { return 0, syscall.EMFILE }
	_, _, err := vars.decide(testPID, noID, open)
	matches(t, err, syscall.EMFILE)
	vars[listenPIDFDID].value = "x"
	_, _, err = vars.decide(testPID, noID, open)
	matches(t, err, syscall.EINVAL)
}

// Measured with libsystemd 262 on amd64 and i386.
func TestParseNumbers(t *testing.T) {
	const invalid, outOfRange = syscall.EINVAL, syscall.ERANGE
	ones33, ones65 := "0b"+strings.Repeat("1", 33), "0b"+strings.Repeat("1", 65)
	for _, test := range []struct {
		s         string
		asInt32   any // int or errno
		asUint64  any // uint64 or errno
		asPID     any // what C's unsigned long has
		asPID32   any // nil: the same where that has 32 bits
		asInt32On any // nil: the same
	}{
		{s: "", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "-", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: " ", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: " \t\n\r1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "\v1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "\f \v1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "1 ", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "1x", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "1_0", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "\u0661", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "-1", asInt32: -1, asUint64: outOfRange, asPID: outOfRange},
		{s: "-0", asInt32: 0, asUint64: 0, asPID: 0},
		{s: "08", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "010", asInt32: 8, asUint64: 8, asPID: 8},
		{s: "0x0b1", asInt32: 177, asUint64: 177, asPID: 177},
		{s: "0XfF", asInt32: 255, asUint64: 255, asPID: 255},
		{s: "0x", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "0xg", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "0b1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "0B11", asInt32: 3, asUint64: 3, asPID: 3},
		{s: "0o17", asInt32: 15, asUint64: 15, asPID: 15},
		{s: "0b+1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "0b 1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "0b-1", asInt32: -1, asUint64: outOfRange, asPID: outOfRange},
		{s: "0b -1", asInt32: -1, asUint64: uint64(1<<64 - 1), asPID: uint64(1<<64 - 1), asPID32: uint64(1<<32 - 1)},
		{s: "\v-1", asInt32: -1, asUint64: uint64(1<<64 - 1), asPID: uint64(1<<64 - 1), asPID32: uint64(1<<32 - 1)},
		{s: "0b0b1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "+0b1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "\v0b1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "0o0x1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "+-1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "- 1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: ones33, asInt32: outOfRange, asUint64: uint64(1<<33 - 1), asPID: uint64(1<<33 - 1), asPID32: outOfRange},
		{s: ones65, asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "2147483647", asInt32: 1<<31 - 1, asUint64: 1<<31 - 1, asPID: 1<<31 - 1},
		{s: "2147483648", asInt32: outOfRange, asUint64: uint64(1 << 31), asPID: uint64(1 << 31)},
		{s: "-2147483648", asInt32: -1 << 31, asUint64: outOfRange, asPID: outOfRange},
		{s: "-2147483649", asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "18446744073709551615", asInt32: outOfRange, asUint64: uint64(1<<64 - 1), asPID: uint64(1<<64 - 1), asPID32: outOfRange},
		{s: "18446744073709551616", asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "\v-18446744073709551615", asInt32: outOfRange, asUint64: 1, asPID: 1, asPID32: outOfRange},
		{s: "99999999999999999999x", asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "99999999999x", asInt32: invalid, asUint64: invalid, asPID: invalid, asPID32: outOfRange, asInt32On: outOfRange},
	} {
		if longBits == 32 && test.asPID32 != nil {
			test.asPID = test.asPID32
		}
		if longBits == 32 && test.asInt32On != nil {
			test.asInt32 = test.asInt32On
		}
		check := func(kind string, n any, errno syscall.Errno, want any) {
			t.Helper()
			got := fmt.Sprint(n)
			if errno != 0 {
				got = fmt.Sprint(errno)
			}
			if got != fmt.Sprint(want) {
				t.Errorf("%q as %s: %s, want %v", test.s, kind, got, want)
			}
		}
		i, errno := parseInt32(test.s)
		check("int32", i, errno, test.asInt32)
		u, errno := parseUnsigned(test.s, 64)
		check("uint64", u, errno, test.asUint64)
		u, errno = parseUnsigned(test.s, longBits)
		check("unsigned long", u, errno, test.asPID)
	}
}

// Numbers as activators write them are read as Go reads them.
func FuzzParseNumbers(f *testing.F) {
	for _, s := range []string{"0", "1", "-1", "18446744073709551616", "0b1", "\v-1", "0x", "08", "99999999999x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, errno := parseUnsigned(s, 64)
		i, errnoInt := parseInt32(s)
		if errno != 0 && u != 0 || errnoInt != 0 && i != 0 {
			t.Errorf("%q: %d, %v; %d, %v", s, u, errno, i, errnoInt)
		}
		if s == "" || s[0] < '1' || s[0] > '9' || strings.Trim(s, "0123456789") != "" {
			return
		}
		want, err := strconv.ParseUint(s, 10, 64)
		if (err == nil) != (errno == 0) || err == nil && want != u {
			t.Errorf("%q: %d, %v; want %d, %v", s, u, errno, want, err)
		}
		wantInt, err := strconv.ParseInt(s, 10, 32)
		if (err == nil) != (errnoInt == 0) || err == nil && int32(wantInt) != i {
			t.Errorf("%q: %d, %v; want %d, %v", s, i, errnoInt, wantInt, err)
		}
	})
}

func FuzzSplitNames(f *testing.F) {
	for _, s := range []string{"", ":", "a:b", `a\:b`, `\`, `\\:`, "\xff:\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, ok := splitNames(s)
		if !ok {
			if !strings.HasSuffix(s, `\`) {
				t.Errorf("%q is refused", s)
			}
			return
		}
		// Put together again with every colon and backslash escaped, it is the same list.
		escape := strings.NewReplacer(":", `\:`, `\`, `\\`)
		var escaped []string
		for _, name := range names {
			escaped = append(escaped, escape.Replace(name))
		}
		again, ok := splitNames(strings.Join(escaped, ":"))
		if !ok || !slices.Equal(names, again) {
			t.Errorf("%q: %q, %q", s, names, again)
		}
	})
}

func FuzzListenDecide(f *testing.F) {
	f.Add("4711", "30064771191", "2", "a:b", 2)
	f.Add("4711", "5", "1", "", 1)
	f.Add(unset, "x", "1000000000", `\`, 0)
	f.Fuzz(func(t *testing.T, pid, pidfdid, fds, names string, open int) {
		got, reason, err := decide(pid, pidfdid, fds, names, open&7)
		switch {
		case err != nil && (got != nil || reason != ""),
			err == nil && (reason == "") != (len(got) > 0),
			len(got) > open&7:
			t.Errorf("%q, %q, %v", got, reason, err)
		}
		var errno syscall.Errno
		if err != nil && !errors.As(err, &errno) {
			t.Errorf("%v has no errno", err)
		}
	})
}

// A listenReport is what a child saw.
type listenReport struct {
	Inspected, After ListenEnv
	InspectedErr     string
	Names            []string
	Contents         []string
	Err              string
	Errno            int
	Same             bool // a second call, and calls from many goroutines, returned the same
	Left             []string
	NotCloexec       []int
}

func init() {
	children["listen"] = func(args []string) error {
		var r listenReport
		if len(args) > 0 && args[0] == "open-first" {
			f, err := os.Open("/dev/null")
			if err != nil {
				return err
			}
			defer f.Close()
		}
		r.Inspected = InspectListenEnv()
		r.Inspected, r.InspectedErr = withoutError(r.Inspected)
		files, err := ListenFDs()
		var errno syscall.Errno
		if err != nil {
			errors.As(err, &errno)
			r.Err, r.Errno = err.Error(), int(errno)
		}
		var group sync.WaitGroup
		var mu sync.Mutex
		r.Same = true
		for range 8 {
			group.Go(func() {
				again, errAgain := ListenFDs()
				mu.Lock()
				defer mu.Unlock()
				r.Same = r.Same && slices.Equal(files, again) && errAgain == err
			})
		}
		group.Wait()
		r.After, _ = withoutError(InspectListenEnv())
		for _, f := range files {
			r.Names = append(r.Names, f.Name())
			var text [64]byte
			n, err := f.ReadAt(text[:], 0)
			if n == 0 {
				return err
			}
			r.Contents = append(r.Contents, string(text[:n]))
			if flags, errno := fcntl(int(f.Fd()), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
				r.NotCloexec = append(r.NotCloexec, int(f.Fd()))
			}
		}
		for _, s := range os.Environ() {
			if strings.HasPrefix(s, "LISTEN_") {
				r.Left = append(r.Left, s)
			}
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}

	// Becomes the child above, with its own PID and ID put in the environment.
	children["become-listen"] = func(args []string) error {
		os.Setenv(childVar, "listen")
		env := os.Environ()
		id, err := selfID()
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		replace := strings.NewReplacer("@PID@", strconv.Itoa(os.Getpid()), "@ID@", id.String(), "@LOWID@", PidFDID(uint64(id)^1<<32).String())
		for i, s := range env {
			if strings.HasPrefix(s, "LISTEN_") {
				env[i] = replace.Replace(s)
			}
		}
		words := self(args...)
		path, err := exec.LookPath(words[0])
		if err != nil {
			return err
		}
		return syscall.Exec(path, words, env)
	}
}

// withoutError makes e fit for JSON.
func withoutError(e ListenEnv) (ListenEnv, string) {
	text := ""
	if e.Err != nil {
		text = e.Err.Error()
	}
	e.Err = nil
	return e, text
}

func TestListenFDs(t *testing.T) {
	keepsDescriptors(t)
	names := []string{"first", "second"}
	var files []*os.File
	for _, name := range names {
		path := tempFile(t)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	for _, test := range []struct {
		name    string
		env     []string
		files   int
		args    []string
		want    []string
		errno   syscall.Errno
		reason  string
		needsID bool
	}{
		{name: "two with names", env: []string{"LISTEN_PID=@PID@", "LISTEN_PIDFDID=@ID@", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:"}, files: 2, want: []string{"http", ""}},
		{name: "no names", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=1"}, files: 2, want: []string{"unknown"}},
		{name: "nothing", reason: "LISTEN_PID is not set"},
		{name: "not for this PID", env: []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, files: 1, reason: "LISTEN_PID is addressed to process 1"},
		{name: "not for this ID", env: []string{"LISTEN_PID=@PID@", "LISTEN_PIDFDID=@LOWID@", "LISTEN_FDS=1"}, files: 1, reason: "LISTEN_PIDFDID is addressed to", needsID: true},
		{name: "bad number", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=x"}, files: 1, errno: syscall.EINVAL, reason: `LISTEN_FDS="x"`},
		{name: "a billion", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=1000000000"}, files: 1, errno: syscall.EBADF, reason: "descriptor 4"},
		{name: "not passed", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=1"}, args: []string{"open-first"}, errno: syscall.EBADF, reason: "descriptor 3 is close-on-exec"},
		{name: "names too few", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=2", "LISTEN_FDNAMES=a"}, files: 2, errno: syscall.EINVAL, reason: "1 names for 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.needsID {
				needs(t, "pidfs", idSince)
			}
			cmd := child("become-listen", test.args...)
			cmd.Env = append(cmd.Env, test.env...)
			cmd.ExtraFiles = files[:test.files]
			var r listenReport
			decodeJSON(t, output(t, cmd), &r)
			if !slices.Equal(r.Names, test.want) || r.Errno != int(test.errno) || !slices.Equal(r.Contents, names[:len(test.want)]) {
				t.Errorf("%+v", r)
			}
			if len(r.Left) > 0 || len(r.NotCloexec) > 0 || !r.Same {
				t.Errorf("left %q, not close-on-exec %v, same %v", r.Left, r.NotCloexec, r.Same)
			}
			for _, env := range []ListenEnv{r.Inspected, r.After} {
				if !slices.Equal(env.Names, test.want) || (env.Reason == "") != (len(test.want) > 0) || !strings.Contains(env.Reason, test.reason) || len(env.Environ) != len(test.env) {
					t.Errorf("%+v", env)
				}
			}
			if r.InspectedErr != r.Err {
				t.Errorf("before: %s, then: %s", r.InspectedErr, r.Err)
			}
		})
	}
}
