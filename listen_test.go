//go:build linux

package sysfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
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

// The answers are those of libsystemd 262 (sd_listen_fds_with_names): a number of descriptors, or
// an errno.
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

func TestListenExplain(t *testing.T) {
	for _, test := range []struct{ pid, pidfdid, fds, names, want string }{
		{unset, unset, unset, unset, "LISTEN_PID is not set"},
		{unset, "119", unset, "a", "LISTEN_PID is not set"},
		{unset, unset, "1", unset, "LISTEN_PID is not set, though LISTEN_FDS is: no process is addressed"},
		{"1", unset, "1", unset, "LISTEN_PID names process 1; this is process 4711"},
		{"4711", "119", "1", unset, "LISTEN_PID names this process, but LISTEN_PIDFDID names pidfd ID 119 and this process has 30064771191: " +
			"a wrapper set LISTEN_PID only, or the PID was reused, or it belongs to another pid namespace"},
		{"4711", unset, unset, unset, "LISTEN_FDS is not set"},
		{"x", unset, unset, unset, `LISTEN_PID="x": not a PID`},
		{"0", unset, unset, unset, `LISTEN_PID="0": out of range`},
		{"4711", "x\n", "1", unset, `LISTEN_PIDFDID="x\n": not a pidfd ID`},
		{"4711", "-1", "1", unset, `LISTEN_PIDFDID="-1": out of range`},
		{"4711", unset, "", unset, `LISTEN_FDS="": not a number of descriptors`},
		{"4711", unset, "0", unset, `LISTEN_FDS="0": not a number of descriptors`},
		{"4711", unset, "99999999999", unset, `LISTEN_FDS="99999999999": out of range`},
		{"4711", unset, "3", unset, `LISTEN_FDS="3": descriptor 5 is not open`},
		{"4711", unset, "1", "a:b", `LISTEN_FDNAMES="a:b": that is 2 names for 1 descriptor`},
		{"4711", unset, "1", `a\`, `LISTEN_FDNAMES="a\\": ends with a backslash`},
		{"4711", "30064771191", "1", unset, `passed: descriptor 3 as "unknown"`},
		{"4711", "30064771191", "2", "http:", `passed: descriptor 3 as "http", descriptor 4 as ""`},
	} {
		var env ListenEnv
		env.Names, env.Reason, env.Err = decide(test.pid, test.pidfdid, test.fds, test.names, 2)
		if env.Err != nil {
			env.Reason = env.Err.Error() // as inspectListenEnv does
		}
		if got := env.Explain(); got != test.want {
			t.Errorf("%+q: %s", test, got)
		}
	}
}

// ParseListenEnv is what the tables above are about, for a whole environment.
func TestParseListenEnv(t *testing.T) {
	for _, test := range []struct {
		environ []string
		id      PidFDID
		open    int
		want    string
	}{
		{nil, testID, 9, "LISTEN_PID is not set"},
		{[]string{"A=1", "LISTEN_FDS=2", "LISTEN_PID=4711", "LISTEN_FDNAMES=a:b"}, testID, 2, `passed: descriptor 3 as "a", descriptor 4 as "b"`},
		{[]string{"LISTEN_PID=4711", "LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDS", "LISTEN_FDS=x"}, testID, 2, `passed: descriptor 3 as "unknown"`},
		{[]string{"LISTEN_PID=4711", "LISTEN_FDS=3"}, testID, 2, `LISTEN_FDS="3": descriptor 5 is not open`},
		{[]string{"LISTEN_PID=4711", "LISTEN_FDS=2147483644"}, testID, 2, `LISTEN_FDS="2147483644": descriptor 5 is not open`},
		{[]string{"LISTEN_PID=4711", "LISTEN_PIDFDID=30064771191", "LISTEN_FDS=1"}, testID, 1, `passed: descriptor 3 as "unknown"`},
		{[]string{"LISTEN_PID=4711", "LISTEN_PIDFDID=30064771191", "LISTEN_FDS=1"}, testID + 1, 1, "LISTEN_PID names this process, but"},
		{[]string{"LISTEN_PID=4711", "LISTEN_PIDFDID=1", "LISTEN_FDS=1"}, 0, 1, `passed: descriptor 3 as "unknown"`},
		{[]string{"LISTEN_PID=4712", "LISTEN_FDS=1"}, testID, 1, "LISTEN_PID names process 4712; this is process 4711"},
	} {
		env := ParseListenEnv(test.environ, testPID, test.id, test.open)
		if got := env.Explain(); !strings.HasPrefix(got, test.want) || (env.Err == nil) != (env.Reason == "" || !strings.Contains(env.Reason, `"`)) {
			t.Errorf("%q: %s, %v", test.environ, got, env.Err)
		}
	}
	env := ParseListenEnv([]string{"LISTEN_FDS=1", "B=", "LISTEN_PID=4711", "LISTEN_FDS=2"}, testPID, testID, 1)
	if !slices.Equal(env.Environ, []string{"LISTEN_PID=4711", "LISTEN_FDS=1"}) {
		t.Errorf("%q", env.Environ)
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
	Inheritable      []int // of descriptors 3 and 4, whether they are files or not
}

// collect takes what was passed.
func (r *listenReport) collect() error {
	r.Inspected = InspectListenEnv()
	r.Inspected, r.InspectedErr = withoutError(r.Inspected)
	// The first call is one of several at once.
	var all [9][]*os.File
	var errs [9]error
	var group waitGroup
	for i := range all {
		group.Go(func() { all[i], errs[i] = ListenFDs() })
	}
	group.Wait()
	files, err := all[0], errs[0]
	r.Same = true
	for i := range all {
		r.Same = r.Same && slices.Equal(files, all[i]) && errs[i] == err
	}
	var errno syscall.Errno
	if err != nil {
		errors.As(err, &errno)
		r.Err, r.Errno = err.Error(), int(errno)
	}
	for _, list := range [][]string{InspectListenEnv().Environ, InspectListenEnv().Names} {
		clear(list) // the caller's alone
	}
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
	for fd := range 2 {
		if inherited(listenFDsStart+fd) == "" {
			r.Inheritable = append(r.Inheritable, listenFDsStart+fd)
		}
	}
	for _, s := range os.Environ() {
		if strings.HasPrefix(s, "LISTEN_") {
			r.Left = append(r.Left, s)
		}
	}
	return nil
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
		if err := r.collect(); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}

	// Becomes the child that its first argument names, with its own PID and ID put in the
	// environment.
	children["become"] = func(args []string) error {
		os.Setenv(childVar, args[0])
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
		words := self(args[1:]...)
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
		left    []int // descriptors that go on to programs that are started
	}{
		{name: "two with names", env: []string{"LISTEN_PID=@PID@", "LISTEN_PIDFDID=@ID@", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:"}, files: 2, want: []string{"http", ""}},
		{name: "no names", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=1"}, files: 2, want: []string{"unknown"}, left: []int{4}},
		{name: "nothing", reason: "LISTEN_PID is not set"},
		{name: "not for this PID", env: []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, files: 1, reason: "LISTEN_PID names process 1", left: []int{3}},
		{name: "not for this ID", env: []string{"LISTEN_PID=@PID@", "LISTEN_PIDFDID=@LOWID@", "LISTEN_FDS=1"}, files: 1, reason: "LISTEN_PIDFDID names", needsID: true, left: []int{3}},
		{name: "bad number", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=x"}, files: 1, errno: syscall.EINVAL, reason: `LISTEN_FDS="x"`, left: []int{3}},
		{name: "a billion", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=1000000000"}, files: 1, errno: syscall.EBADF, reason: "descriptor 4"},
		{name: "not passed", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=1"}, args: []string{"open-first"}, errno: syscall.EBADF, reason: "descriptor 3 is close-on-exec"},
		{name: "one is not open", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=3"}, files: 2, errno: syscall.EBADF, reason: "descriptor 5"},
		{name: "names too few", env: []string{"LISTEN_PID=@PID@", "LISTEN_FDS=2", "LISTEN_FDNAMES=a"}, files: 2, errno: syscall.EINVAL, reason: "1 name for 2 descriptors"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.needsID {
				needs(t, FeaturePidFDID)
			}
			cmd := child("become", append([]string{"listen"}, test.args...)...)
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
			r.Inheritable = slices.DeleteFunc(r.Inheritable, func(fd int) bool { return fd >= listenFDsStart+test.files }) // an emulator's
			if !slices.Equal(r.Inheritable, test.left) {
				t.Errorf("descriptors %v go on, want %v", r.Inheritable, test.left)
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

// A takeReport is what a child got that takes by name.
type takeReport struct {
	Got    map[string][]int // descriptors
	Times  map[string]int   // how many callers got some
	Again  int              // how many descriptors came a second time
	All    []int
	Usable bool // although others closed theirs
	Errs   []string
	Left   []string
}

func init() {
	// Many goroutines ask for each name, and close at once what they got.
	children["take"] = func(args []string) error {
		r := takeReport{Got: map[string][]int{}, Times: map[string]int{}, Usable: true}
		var group waitGroup
		var mu sync.Mutex
		start := make(chan bool)
		for _, name := range args {
			for i := range 8 {
				group.Go(func() {
					<-start
					if i == 0 { // the first call can be either
						ListenFDs()
					}
					files, err := TakeListenFDs(name)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						r.Errs = append(r.Errs, err.Error())
					}
					if len(files) > 0 {
						r.Times[name]++
					}
					for _, f := range files {
						if f.Name() != name {
							r.Errs = append(r.Errs, "got "+f.Name()+" for "+name)
						}
						is, err := IsSpecial(f, "")
						r.Usable = r.Usable && is && err == nil
						_, err = askFD(f, func(fd int) (bool, error) {
							r.Got[name] = append(r.Got[name], fd)
							return true, nil
						})
						if err != nil {
							r.Errs = append(r.Errs, err.Error())
						}
						f.Close()
					}
				})
			}
		}
		close(start)
		group.Wait()
		for _, name := range args {
			files, _ := TakeListenFDs(name)
			r.Again += len(files)
		}
		// Also what is closed by now; what nobody asked for is open.
		files, _ := ListenFDs()
		for _, f := range files {
			fd := -1
			askFD(f, func(open int) (bool, error) { fd = open; return true, nil })
			r.All = append(r.All, fd)
		}
		for _, s := range os.Environ() {
			if strings.HasPrefix(s, "LISTEN_") {
				r.Left = append(r.Left, s)
			}
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}
}

func TestTakeListenFDs(t *testing.T) {
	keepsDescriptors(t)
	f, err := os.Open(tempFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, test := range []struct {
		env  []string
		fds  int
		ask  []string
		want map[string][]int
		all  []int
		err  string
	}{
		{env: []string{"LISTEN_FDS=5", "LISTEN_FDNAMES=http:admin:http:other:"}, fds: 5, ask: []string{"http", "admin", "", "none"},
			want: map[string][]int{"http": {3, 5}, "admin": {4}, "": {7}}, all: []int{-1, -1, -1, 6, -1}},
		{env: []string{"LISTEN_FDS=2"}, fds: 2, ask: []string{"unknown", "http"}, want: map[string][]int{"unknown": {3, 4}}, all: []int{-1, -1}},
		{ask: []string{"http"}},
		{env: []string{"LISTEN_FDS=x"}, fds: 1, ask: []string{"unknown"}, err: `LISTEN_FDS="x"`},
	} {
		cmd := child("become", append([]string{"take"}, test.ask...)...)
		cmd.Env = append(cmd.Env, "LISTEN_PID=@PID@")
		cmd.Env = append(cmd.Env, test.env...)
		cmd.ExtraFiles = slices.Repeat([]*os.File{f}, test.fds)
		var r takeReport
		decodeJSON(t, output(t, cmd), &r)
		if len(r.Got) != len(test.want) || r.Again != 0 || !r.Usable || !slices.Equal(r.All, test.all) || len(r.Left) > 0 {
			t.Errorf("%q: %+v", test.env, r)
		}
		for name, fds := range test.want {
			if !slices.Equal(r.Got[name], fds) || r.Times[name] != 1 {
				t.Errorf("%q: %s: %+v", test.env, name, r)
			}
		}
		errs := 0
		if test.err != "" {
			errs = 8 * len(test.ask) // each caller has it
		}
		if len(r.Errs) != errs || errs > 0 && !strings.Contains(r.Errs[0], test.err) {
			t.Errorf("%q: %q", test.env, r.Errs)
		}
	}
}

func init() {
	// Receives, executes itself anew and receives again, as many times as args says. What it
	// prints each time is a list of its sockets.
	children["receive"] = func(args []string) error {
		before, err := TakeListenFDs("unix") // what is taken by name is passed on, too
		if err != nil || len(before) != 1 {
			return fmt.Errorf("%v, %v", before, err)
		}
		files, err := ListenFDs()
		if err != nil {
			return err
		}
		var sockets []string
		for _, f := range files {
			_, err := askFD(f, func(fd int) (bool, error) {
				file, errno := statFD(fd)
				if errno != 0 {
					return false, errno
				}
				sockets = append(sockets, fmt.Sprint(fd, " ", f.Name(), " ", file.ino))
				return true, nil
			})
			if err != nil {
				return err
			}
			if is, err := IsSocket(f, 0, syscall.SOCK_STREAM, 1); !is {
				return fmt.Errorf("%s is no listening socket: %v", f.Name(), err)
			}
		}
		if err := json.NewEncoder(os.Stdout).Encode(sockets); err != nil {
			return err
		}
		n, err := strconv.Atoi(args[0])
		if err != nil || n == 0 {
			return err
		}
		// It listens meanwhile, as a service does.
		l, err := net.FileListener(before[0])
		if err != nil {
			return err
		}
		go l.Accept()
		words := self(strconv.Itoa(n - 1))
		path, err := exec.LookPath(words[0])
		if err != nil {
			return err
		}
		return ExecListenFDs(path, words, os.Environ(), files)
	}
}

// A program that executes itself anew and passes on what it received gets the same sockets in the
// same places, and again.
func TestListenAcrossExec(t *testing.T) {
	keepsDescriptors(t)
	kinds := kindsOfFD(t, t.TempDir())
	cmd := child("become", "receive", "2")
	cmd.Env = append(cmd.Env, "LISTEN_PID=@PID@", "LISTEN_FDS=3", "LISTEN_FDNAMES=unix:tcp:")
	var want []string
	for i, name := range []string{"unix", "tcp", ""} {
		f := kinds[name]
		if name == "" {
			f = kinds["tcp"] // a second time
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		_, err := askFD(f, func(fd int) (bool, error) {
			file, errno := statFD(fd)
			want = append(want, fmt.Sprint(listenFDsStart+i, " ", name, " ", file.ino))
			return errno == 0, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(output(t, cmd)), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	for i, line := range lines {
		var got []string
		if decodeJSON(t, line, &got); !slices.Equal(got, want) {
			t.Errorf("round %d: %q, want %q", i, got, want)
		}
	}
}

func init() {
	// What a process knows of itself, before and after.
	children["explain"] = func(args []string) error {
		var lines []string
		for _, arg := range args {
			switch arg {
			case "inspect":
			case "take":
				ListenFDs()
			case "unset": // as other libraries do
				os.Unsetenv("LISTEN_PID")
				os.Unsetenv("LISTEN_FDS")
				os.Unsetenv("LISTEN_FDNAMES")
			case "mark":
				syscall.CloseOnExec(listenFDsStart)
			}
			lines = append(lines, InspectListenEnv().Explain())
		}
		return json.NewEncoder(os.Stdout).Encode(lines)
	}
}

// Explain says what is known, before something is taken and after.
func TestExplainKnows(t *testing.T) {
	keepsDescriptors(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := DupFile(listener.(*net.TCPListener), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	connected, err := DupFile(conn.(*net.TCPConn), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()

	const (
		passed   = `passed: descriptor 3 as "web"`
		notSet   = "LISTEN_PID is not set"
		since    = notSet + ", though it was when this process was executed: other code in the process has unset it"
		marked   = `LISTEN_FDS="1": descriptor 3 is close-on-exec: code in this process has opened or taken it`
		listens  = "; descriptor 0 is a listening socket, as under StandardInput=socket or inetd"
		talks    = "; descriptor 0 is a socket that does not listen, as under StandardInput=socket or inetd"
		fdsAlone = notSet + ", though LISTEN_FDS is: no process is addressed"
	)
	env := []string{"LISTEN_PID=@PID@", "LISTEN_FDS=1", "LISTEN_FDNAMES=web"}
	for _, test := range []struct {
		env   []string
		stdin *os.File
		do    []string
		want  []string
	}{
		{env, nil, []string{"inspect", "take", "inspect"}, []string{passed, passed, passed}},
		{env, socket, []string{"inspect", "take"}, []string{passed, passed}},
		{env, nil, []string{"unset", "take"}, []string{since, since}},
		{env, nil, []string{"mark", "take", "inspect"}, []string{marked, marked, marked}},
		{nil, nil, []string{"inspect", "take"}, []string{notSet, notSet}},
		{nil, socket, []string{"inspect", "take"}, []string{notSet + listens, notSet + listens}},
		{nil, connected, []string{"inspect", "take"}, []string{notSet + talks, notSet + talks}},
		{env[1:], nil, []string{"inspect", "take"}, []string{fdsAlone, fdsAlone}},
	} {
		cmd := child("become", append([]string{"explain"}, test.do...)...)
		cmd.Env = append(cmd.Env, test.env...)
		if test.env != nil {
			cmd.ExtraFiles = []*os.File{socket}
		}
		if test.stdin != nil {
			cmd.Stdin = test.stdin
		}
		var got []string
		if decodeJSON(t, output(t, cmd), &got); !slices.Equal(got, test.want) {
			t.Errorf("%q, %q: %q, want %q", test.env, test.do, got, test.want)
		}
	}
}

func init() {
	// Takes by another choice than by name.
	children["choose"] = func([]string) error {
		var r []string
		take := func(choose func(left []*os.File) ([]*os.File, error)) {
			files, err := TakeListenFDsFunc(choose)
			text := fmt.Sprint(err)
			for _, f := range files {
				text += " " + f.Name()
			}
			r = append(r, text)
		}
		var all []*os.File
		take(func(left []*os.File) ([]*os.File, error) { all = slices.Clone(left); clear(left); return nil, nil })
		take(func(left []*os.File) ([]*os.File, error) { return left, errors.New("no") })
		take(func(left []*os.File) ([]*os.File, error) { return []*os.File{left[2], left[0], os.Stdin, nil}, nil })
		take(func(left []*os.File) ([]*os.File, error) { return all, nil })
		take(func(left []*os.File) ([]*os.File, error) { return all, nil })
		files, err := ListenFDs()
		r = append(r, fmt.Sprint(slices.Equal(files, all), err))
		return json.NewEncoder(os.Stdout).Encode(r)
	}
}

func TestTakeListenFDsFunc(t *testing.T) {
	keepsDescriptors(t)
	f, err := os.Open(tempFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := child("become", "choose")
	cmd.Env = append(cmd.Env, "LISTEN_PID=@PID@", "LISTEN_FDS=4", "LISTEN_FDNAMES=a:b:c:b")
	cmd.ExtraFiles = slices.Repeat([]*os.File{f}, 4)
	var got []string
	decodeJSON(t, output(t, cmd), &got)
	if want := []string{"<nil>", "no", "<nil> a c", "<nil> b b", "<nil>", "true <nil>"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	cmd = child("become", "choose")
	cmd.Env = append(cmd.Env, "LISTEN_PID=x")
	got = nil
	if decodeJSON(t, output(t, cmd), &got); len(got) != 6 || !strings.HasPrefix(got[2], `LISTEN_PID="x"`) {
		t.Errorf("%q", got)
	}
}
