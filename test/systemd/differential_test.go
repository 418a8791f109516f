//go:build linux

package systemd

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	seed  = flag.Int64("differential.seed", 0, "what the generated environments follow from (0 = the time)")
	cases = flag.Int("differential.cases", 150, "how many environments are generated for each word size")
)

// wordSizes are those that libsystemd and sysfd are compared in.
var wordSizes = []struct {
	arch, gcc, libraries, loader string

	nameToHandleAt int // the number of the system call
	withoutHandle  int // what ListenFDs answers if that fails and $LISTEN_PIDFDID is another one's
}{
	{"amd64", "-m64", "usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2", 303, 0},
	{"386", "-m32", "usr/lib/i386-linux-gnu", "ld-linux.so.2", 341, 1}, // it cannot know its ID, and libsystemd thinks it can
}

// peers are the programs that are compared: what answers the same question with
// libsystemd and with sysfd.
type peers struct {
	oracle, receiver, sysfd string

	nameToHandleAt, withoutHandle int
}

// programs builds the launcher, and the peers of each word size.
func programs(t *testing.T) (launch string, of map[string]peers) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		lacks(t, "amd64, which runs programs for 386 too")
	}
	sid := sidRoot(t)
	needsTool(t, "gcc")
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	cc := func(args ...string) {
		t.Helper()
		run("gcc", append([]string{"-O1", "-Wall", "-Wextra", "-Werror"}, args...)...)
	}
	launch = filepath.Join(dir, "launch")
	cc("-static", "-o", launch, "oracle/launch.c")
	of = map[string]peers{}
	for _, w := range wordSizes {
		own := filepath.Join(dir, w.arch)
		p := peers{filepath.Join(own, "oracle"), filepath.Join(own, "receiver"), filepath.Join(own, "sysfd"), w.nameToHandleAt, w.withoutHandle}
		of[w.arch] = p
		run("env", "GOARCH="+w.arch, "go", "build", "-o", own+"/", "./receiver", "github.com/sysfd/sysfd/cmd/sysfd")
		// With the loader and the C library of that root, which are newer than those here.
		libraries := filepath.Join(sid, w.libraries)
		cc(w.gcc, "-o", p.oracle, "oracle/oracle.c", filepath.Join(libraries, "libsystemd.so.0"), "-Wl,--allow-shlib-undefined",
			"-Wl,--disable-new-dtags", "-Wl,-rpath,"+libraries, "-Wl,--dynamic-linker,"+filepath.Join(libraries, w.loader))
	}
	return launch, of
}

// TestAgainstLibsystemd asks sysfd and libsystemd the same, in both word sizes.
func TestAgainstLibsystemd(t *testing.T) {
	launch, of := programs(t)
	for _, w := range wordSizes {
		p := of[w.arch]
		t.Run(w.arch, func(t *testing.T) {
			t.Run("listen", func(t *testing.T) { compareListen(t, launch, p) })
			t.Run("watchdog", func(t *testing.T) { compareWatchdog(t, launch, p) })
			t.Run("is", func(t *testing.T) { compareIs(t, p) })
			t.Run("pidfd IDs", func(t *testing.T) { comparePidFDIDs(t, launch, w.arch, p) })
			t.Run("queue", func(t *testing.T) { compareQueue(t, p) })
			t.Run("notify", func(t *testing.T) { compareNotify(t, p) })
			for _, to := range wordSizes {
				t.Run("send to "+to.arch, func(t *testing.T) { sendTo(t, p, of[to.arch].oracle) })
			}
		})
	}
}

// command is one that does not outlive the test, or two minutes.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, name, args...)
}

// output runs cmd and returns its lines.
func output(t *testing.T, cmd *exec.Cmd) []string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%v: %v\n%s%s", cmd, err, out, &stderr)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

func decode(t *testing.T, line string, v any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// An environment is a case of oracle/launch.c, which explains the fields.
type environment struct {
	fds   string
	fails failure
	vars  []string
}

type failure struct {
	call  int
	errno syscall.Errno
}

func (e environment) String() string {
	s := fmt.Sprintf("%q with descriptors %q", e.vars, e.fds)
	if e.fails.errno != 0 {
		s += fmt.Sprintf(", system call %d: %v", e.fails.call, e.fails.errno)
	}
	return s
}

func (e environment) appendTo(b []byte) []byte {
	fails := ""
	if e.fails.errno != 0 {
		fails = fmt.Sprint(e.fails.call, int(e.fails.errno))
	}
	for _, field := range append([]string{e.fds, fails, strconv.Itoa(len(e.vars))}, e.vars...) {
		b = append(append(b, field...), 0)
	}
	return b
}

// inEach runs both programs in each of the environments, and calls compare with what they
// printed.
func inEach(t *testing.T, launch string, p peers, environments []environment, args []string, compare func(e environment, libsystemd, sysfd string)) {
	t.Helper()
	dir, null := t.TempDir(), open(t, os.DevNull)
	type run struct {
		lines []string
		err   error
	}
	const batch = 100
	batches := slices.Collect(slices.Chunk(environments, batch))
	runs := make([][2]run, len(batches))
	var group sync.WaitGroup
	turn := make(chan struct{}, runtime.NumCPU())
	for i := range batches {
		var file []byte
		for _, e := range batches[i] {
			file = e.appendTo(file)
		}
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		for j, program := range []string{p.oracle, p.receiver} {
			turn <- struct{}{}
			cmd := command(t, launch, append([]string{path, program}, args...)...)
			cmd.ExtraFiles = []*os.File{null}
			cmd.Stderr = os.Stderr
			group.Go(func() {
				out, err := cmd.Output()
				runs[i][j] = run{strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"), err}
				<-turn
			})
		}
	}
	group.Wait()
	for i, chunk := range batches {
		libsystemd, sysfd := runs[i][0], runs[i][1]
		if libsystemd.err != nil || sysfd.err != nil || len(libsystemd.lines) != len(chunk) || len(sysfd.lines) != len(chunk) {
			t.Fatalf("%v, %v: %d and %d lines for %d environments", libsystemd.err, sysfd.err, len(libsystemd.lines), len(sysfd.lines), len(chunk))
		}
		for k, e := range chunk {
			compare(e, libsystemd.lines[k], sysfd.lines[k])
		}
	}
}

// generator returns the source of what is generated, and logs its seed if the test fails.
func generator(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = time.Now().UnixNano()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to see this again: -differential.seed=%d -differential.cases=%d", s, *cases)
		}
	})
	return rand.New(rand.NewSource(s))
}

// listened is what ListenFDs, or sd_listen_fds_with_names, answered.
type listened struct {
	N     int      // a number of descriptors, or an errno
	Names []string // in hexadecimal
	Left  int      // how many of the variables are still set
	FDs   string   // from 3 up: 'c' is close-on-exec, 'o' open, '-' not
	Died  int
}

func compareListen(t *testing.T, launch string, p peers) {
	answers := map[int]int{}
	environments := slices.Concat(pickedListen(), generate(generator(t), generateListen))
	inEach(t, launch, p, environments, []string{"listen"}, func(e environment, libsystemd, sysfd string) {
		var want, got listened
		decode(t, libsystemd, &want)
		decode(t, sysfd, &got)
		// What was not passed can be the runtime's.
		for _, l := range []*listened{&want, &got} {
			fds := []byte(l.FDs[:min(len(e.fds), len(l.FDs))])
			for i := range fds {
				if e.fds[i] == '-' {
					fds[i] = '-'
				}
			}
			l.FDs = string(fds)
		}
		answers[want.N]++
		if want.Left != 0 || want.Died != 0 || fmt.Sprint(want) != fmt.Sprint(got) {
			t.Errorf("%v:\nlibsystemd %+v\nsysfd      %+v", e, want, got)
		}
	})
	t.Logf("%d environments; how often there was which answer: %v", len(environments), answers)
	for _, n := range []int{0, 1, 2, -int(syscall.EINVAL), -int(syscall.ERANGE), -int(syscall.EBADF)} {
		if answers[n] < 10 {
			t.Errorf("the answer %d came just %d times", n, answers[n])
		}
	}

	// The differences that the documentation of ListenFDs speaks of.
	for _, test := range []struct {
		name, arg         string
		e                 environment
		libsystemd, sysfd int
	}{
		{"close-on-exec", "open-first", listenCase("", "@PID@", "@ID@", "1", unset), 1, -int(syscall.EBADF)},
		{"no descriptor for the ID", "", listenCase("o", "@PID@", "@ID+1@", "1", unset).failing(pidfdOpen, syscall.EMFILE), 1, -int(syscall.EMFILE)},
		{"no file for the ID", "", listenCase("o", "@PID@", "@ID@", "1", unset).failing(pidfdOpen, syscall.ENFILE), 1, -int(syscall.ENFILE)},
		{"no memory for the ID", "", listenCase("o", "@PID@", "@ID@", "1", unset).failing(pidfdOpen, syscall.ENOMEM), 1, -int(syscall.ENOMEM)},
		{"no handle", "", listenCase("o", "@PID@", "@ID+1@", "1", unset).failing(p.nameToHandleAt, syscall.EPERM), 0, p.withoutHandle},
		{"no handle, though the ID would be right", "", listenCase("o", "@PID@", "@ID@", "1", unset).failing(p.nameToHandleAt, syscall.ENOSYS), 1, 1},
	} {
		args := []string{"listen"}
		if test.arg != "" {
			args = append(args, test.arg)
		}
		inEach(t, launch, p, []environment{test.e}, args, func(e environment, libsystemd, sysfd string) {
			var want, got listened
			decode(t, libsystemd, &want)
			decode(t, sysfd, &got)
			if want.N != test.libsystemd || got.N != test.sysfd || want.Left != 0 || got.Left != 0 {
				t.Errorf("%s: libsystemd %+v, sysfd %+v", test.name, want, got)
			}
		})
	}
}

const unset = "\x00" // no variable can have this value

// listenCase leaves out the variables that are unset.
func listenCase(fds, pid, pidfdid, n, names string) environment {
	e := environment{fds: fds}
	for i, value := range []string{pid, pidfdid, n, names} {
		if value != unset {
			e.vars = append(e.vars, []string{"LISTEN_PID=", "LISTEN_PIDFDID=", "LISTEN_FDS=", "LISTEN_FDNAMES="}[i]+value)
		}
	}
	return e
}

const pidfdOpen = 434 // in both word sizes

func (e environment) failing(call int, errno syscall.Errno) environment {
	e.fails = failure{call, errno}
	return e
}

// numbers are those that are not what a process is asked for, in all notations.
var numbers = slices.Concat(
	[]string{"", "-", "+", " ", "x", "0", "-0", "+0", "1", "-1", "+1", " 1", "\t\n\r1", "\v1", "\f \v1", "1 ", "1\n", "1x", "1_0", "1.0", "\u0661", "01", "010", "08", "0x1", "0X1",
		"0xg", "0x", "0b1", "0B1", "0b", "0b2", "0o1", "0O1", "0o8", "0o", "0b+1", "0b 1", "0b-1", "0b -1", "0b\v-1", "0b0b1", "0b0x1", "0o0x1", "0x0b1", "+0b1", "\v0b1", "\v-1", "\f-1", " -1",
		"\v-18446744073709551615", "\v-4294967295", "\v-18446744073709551614", "+-1", "--1", "- 1", "0x-1", "-0x1", "99999999999x", "99999999999999999999x", "1000000000", "1e9",
		"0b" + strings.Repeat("1", 33), "0b" + strings.Repeat("1", 65), strings.Repeat("0", 300) + "1", strings.Repeat("9", 300), "\xff"},
	around(31, 10, -5), around(32, 10, -1), around(63, 10, -1), around(64, 10, -1), around(32, 16, -1), around(64, 16, -1), around(64, 8, -1))

// around returns the numbers from 2^bits + from to 2^bits + 1, and the negative ones to that.
func around(bits uint, base int, from int64) (s []string) {
	prefix := map[int]string{10: "", 16: "0x", 8: "0"}[base]
	for d := from; d <= 1; d++ {
		n := new(big.Int).Lsh(big.NewInt(1), bits)
		text := prefix + n.Add(n, big.NewInt(d)).Text(base)
		if s = append(s, text); base == 10 {
			s = append(s, "-"+text)
		}
	}
	return s
}

var (
	// Ways to write the PID, or not the PID. What they are must not depend on its digits: it is another one for
	// each program.
	pids = []string{"@PID@", "+@PID@", " @PID@", "\v@PID@", "0@PID/8@", "00000@PID/8@", "0x@PID/16@", "0X@PID/16@", "0b@PID/2@", "0o@PID/8@", "@PID@ ", "@PID@x", "-@PID@",
		"\v-@PID@", "\v-@-PID@", "\v-@-PID+4294967296@", "@-PID@", "@PID+1@", "@PID+4294967296@", "@PID+2147483648@", "@PID+18446744073709551615@", "0b \v-@-PID/2@", "@PID@0"}
	ids = []string{"@ID@", "+@ID@", " @ID@", "\f@ID@", "0@ID/8@", "0000@ID/8@", "0x@ID/16@", "0b@ID/2@", "0o@ID/8@", "@ID@ ", "@ID@x", "-@ID@", "\v-@ID@", "\v-@-ID@",
		"@-ID@", "@ID+1@", "@ID+18446744073709551615@", "@ID+4294967296@", "@ID+9223372036854775808@", "0x@ID+4294967296/16@"}
	names = []string{"", ":", "::", ":::", "a", "a:", ":a", "a:b", "a:b:", "a::b", "a:b:c", `a\:b`, `a\\:b`, `a\\\:b`, `\n\x41`, `\`, `a\`, `a:\`, `a\\`, `\:`, `\::`, `'a:b'`, `"a:b"`, `"a`, " a : b ", "a\nb",
		"a\tb:c", "\xff", "\xff\xfe:\x80", "é:ü", "\x01:\x7f", "a=b", "unknown", "a,b", "a;b", "%41", "$HOME", "@PID", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x", 5000),
		strings.Repeat(":", 39), strings.Repeat("n:", 39) + "n"}
)

func pickedListen() (all []environment) {
	add := func(fds, pid, pidfdid, n, names string) {
		all = append(all, listenCase(fds, pid, pidfdid, n, names))
	}
	add("", unset, unset, unset, unset)
	add("o", unset, unset, "1", unset)
	add("o", unset, "x", "x", unset)
	add("o", "1", "x", "x", "a:b")
	add("o", "@PID@", "x", unset, unset)
	add("o", "@PID@", "@ID+1@", "x", unset)
	add("o", "@PID@", "@ID@", unset, "a")
	add("o", "@PID@", "@ID@", unset, `\`)
	add("o", unset, unset, unset, `\`)
	add("o", "x", "x", "x", `\`)
	add("o", "@PID+1@", unset, unset, `a\`)
	add("o", "1", "@ID@", "1", unset)
	either := func(i int, a, b string) string { return []string{a, b}[i%2] }
	for i, s := range slices.Concat(numbers, pids) {
		add("o", s, either(i, unset, "@ID@"), "1", either(i/2, unset, "a"))
	}
	for i, s := range slices.Concat(numbers, ids) {
		add("o", "@PID@", s, "1", either(i, unset, "a"))
	}
	for i, s := range numbers {
		add("ooo", "@PID@", either(i, unset, "@ID@"), s, either(i/2, unset, "a"))
	}
	for i, s := range names {
		n := strings.Count(s, ":") + 1
		add(strings.Repeat("o", 40), "@PID@", either(i, unset, "@ID@"), strconv.Itoa(n), s)
		add("ooo", "@PID@", "@ID@", strconv.Itoa(1+i%3), s)
	}
	for i, fds := range []string{"", "-", "-o", "o-", "o-o", "oo-", "--o", "ooo", strings.Repeat("o", 39), strings.Repeat("o", 40)} {
		for j, n := range []string{"1", "2", "3", "40", "1000000000", "2147483644", "2147483645"} {
			add(fds, "@PID@", "@ID@", n, either(i+j, unset, "a:b"))
		}
	}
	// A variable that is there twice, others that look like one, and what is no variable.
	right := listenCase("oo", "@PID@", "@ID@", "2", "a:b").vars
	for i, s := range right {
		name, value, _ := strings.Cut(s, "=")
		for j, other := range []string{"", "x", "1", "2", "b:c", "c", value} {
			other = name + "=" + other
			all = append(all, environment{fds: "oo", vars: slices.Insert(slices.Clone(right), i, other)},
				environment{fds: "oo", vars: append(slices.Clone(right), other)})
			if j%2 == 0 {
				all = append(all, environment{fds: "oo", vars: append([]string{"A=1", other, other}, right...)})
			}
		}
		for j, other := range []string{"", "=", "=" + s, name, name + "X=5", "X" + s, strings.ToLower(s), " " + s, name + " =1", name + "==1"} {
			if j%2 == 0 {
				all = append(all, environment{fds: "oo", vars: append([]string{other}, right...)})
			}
			all = append(all, environment{fds: "oo", vars: append(slices.Delete(slices.Clone(right), i, i+1), other)})
		}
	}
	// A process that cannot know its ID.
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSYS} {
		for _, id := range []string{"@ID@", "@ID+1@", "0x12", "x", "", "-1", "18446744073709551616"} {
			all = append(all, listenCase("o", "@PID@", id, "1", unset).failing(pidfdOpen, errno))
		}
	}
	return all
}

// generate returns as many environments as the flag says.
func generate(r *rand.Rand, one func(r *rand.Rand) environment) (all []environment) {
	for range *cases {
		all = append(all, one(r))
	}
	return all
}

func pick(r *rand.Rand, from ...string) string { return from[r.Intn(len(from))] }

// wild returns a number in some notation, or what is nearly one. The placeholder is
// empty if none is to come.
func wild(r *rand.Rand, placeholder string) string {
	prefix := pick(r, "", "", "0", "0x", "0b", "0o", "0X", "00")
	base := map[string]int{"0": 8, "00": 8, "0o": 8, "0x": 16, "0X": 16, "0b": 2}[prefix]
	if base == 0 {
		base = 10
	}
	digits := ""
	if placeholder != "" && r.Intn(4) > 0 {
		offset := pick(r, "", "", "", "+1", "+4294967296", "+18446744073709551615", "+18446744069414584320")
		digits = fmt.Sprintf("@%s%s%s/%d@", pick(r, "", "", "-"), placeholder, offset, base)
	} else {
		if r.Intn(10) == 0 {
			base = 10
		}
		n := new(big.Int).Lsh(big.NewInt(r.Int63n(4)), uint([]int{0, 1, 31, 32, 63, 64}[r.Intn(6)]))
		digits = n.Add(n, big.NewInt(r.Int63n(7)-2)).Text(base)
	}
	space := func() string { return pick(r, "", "", "", "", " ", "\t", "\n", "\v", "\f", "\r", " \v ") }
	sign := func() string { return pick(r, "", "", "", "+", "-") }
	return pick(r, "", "", space()+sign()) + prefix + pick(r, "", "", space()+sign()) + digits + pick(r, "", "", "", "", "", "", " ", "x", "\n")
}

func generateListen(r *rand.Rand) environment {
	n := 1 + r.Intn(4)
	e := environment{fds: strings.Repeat("o", n)}
	if r.Intn(6) == 0 {
		e.fds = ""
		for range r.Intn(6) {
			e.fds += pick(r, "o", "o", "-")
		}
	}
	name := func() (s string) {
		for range r.Intn(4) {
			s += pick(r, "a", "b", "http", `\\`, `\:`, `\n`, "\xff", "\n", " ", "'", `"`, "é", "@", "=", strings.Repeat("x", 300))
		}
		return s
	}
	value := func(i int) string {
		tame := r.Intn(5) > 0
		switch {
		case i == 0 && tame:
			return pick(r, pids[:10]...)
		case i == 0:
			return wild(r, "PID")
		case i == 1 && tame:
			return pick(r, ids[:10]...)
		case i == 1:
			return wild(r, "ID")
		case i == 2 && tame:
			return pick(r, "%d", "+%d", " %d", "0%d", "0x%d", "0o%d", "\f%d")
		case i == 2:
			return wild(r, "")
		case tame:
			list := name()
			for range n - 1 {
				list += ":" + name()
			}
			return list
		}
		return pick(r, name(), name()+":", name()+`\`, name()+":"+name())
	}
	for i, key := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if r.Intn(15) == 0 || i%2 == 1 && r.Intn(4) == 0 {
			continue
		}
		for again := true; again; again = r.Intn(12) == 0 {
			v := value(i)
			if i == 2 {
				v = strings.ReplaceAll(v, "%d", strconv.Itoa(n))
			}
			e.vars = append(e.vars, key+"="+v)
		}
		if r.Intn(12) == 0 {
			e.vars = append(e.vars, pick(r, "", "=", "=x", key, strings.ToLower(key)+"=1", key+"S=1", "PATH=/bin"))
		}
	}
	if r.Intn(2) == 0 {
		r.Shuffle(len(e.vars), func(i, j int) { e.vars[i], e.vars[j] = e.vars[j], e.vars[i] })
	}
	if r.Intn(20) == 0 {
		e = e.failing(pidfdOpen, []syscall.Errno{syscall.EPERM, syscall.ENOSYS}[r.Intn(2)])
	}
	return e
}

func compareWatchdog(t *testing.T, launch string, p peers) {
	type answer struct {
		N, Usec int64
		Died    int
	}
	var environments []environment
	add := func(vars ...string) { environments = append(environments, environment{vars: vars}) }
	add()
	for _, s := range numbers {
		add("WATCHDOG_USEC="+s, "WATCHDOG_PID=@PID@")
	}
	for _, s := range slices.Concat(numbers, pids) {
		add("WATCHDOG_USEC=30000000", "WATCHDOG_PID="+s)
	}
	add("WATCHDOG_USEC=x", "WATCHDOG_PID=1")
	add("WATCHDOG_PID=x")
	add("WATCHDOG_PID=@PID@")
	add("WATCHDOG_USEC=1", "WATCHDOG_USEC=2", "WATCHDOG_PID=@PID@", "WATCHDOG_PID=1")
	environments = append(environments, generate(generator(t), func(r *rand.Rand) (e environment) {
		if e.vars = append(e.vars, "WATCHDOG_USEC="+wild(r, "")); r.Intn(2) == 0 {
			e.vars = append(e.vars, "WATCHDOG_PID="+pick(r, "@PID@", wild(r, "PID")))
		}
		return e
	})...)
	answers := map[int64]int{}
	inEach(t, launch, p, environments, []string{"watchdog"}, func(e environment, libsystemd, sysfd string) {
		// The time can be up to 2^64 - 2: more than fits.
		var theirs struct {
			N    int64
			Usec uint64
			Died int
		}
		decode(t, libsystemd, &theirs)
		want := answer{theirs.N, int64(min(theirs.Usec, math.MaxInt64/1000)), theirs.Died}
		var got answer
		decode(t, sysfd, &got)
		answers[want.N]++
		if want.Died != 0 || want != got {
			t.Errorf("%q: libsystemd %+v, sysfd %+v", e.vars, want, got)
		}
	})
	t.Logf("%d environments; how often there was which answer: %v", len(environments), answers)
	for _, n := range []int64{0, 1, -int64(syscall.EINVAL), -int64(syscall.ERANGE)} {
		if answers[n] < 10 {
			t.Errorf("the answer %d came just %d times", n, answers[n])
		}
	}
}

// A question is one about a descriptor: a line that the programs read. Its number is -1 for one
// that is closed.
type question struct {
	kind string // of the descriptor, for people
	line string
}

func ask(kind, what string, fd, family, typ, listening, port int, path string) question {
	word := "-"
	if path != "" {
		word = hex.EncodeToString([]byte(path))
	}
	return question{kind, fmt.Sprintln(what, fd, family, typ, listening, port, word)}
}

// inBoth puts questions before both programs, and calls differ where the answers are not the same.
func inBoth(t *testing.T, p peers, questions []question, prepare func(program string) *exec.Cmd, differ func(q question, libsystemd, sysfd int)) {
	t.Helper()
	var stdin strings.Builder
	for _, q := range questions {
		stdin.WriteString(q.line)
	}
	var answers [2][]string
	for i, program := range []string{p.oracle, p.receiver} {
		cmd := prepare(program)
		cmd.Stdin = strings.NewReader(stdin.String())
		if answers[i] = output(t, cmd); len(answers[i]) != len(questions) {
			t.Fatalf("%d answers to %d questions", len(answers[i]), len(questions))
		}
	}
	for i, q := range questions {
		var n [2]struct{ N int }
		decode(t, answers[0][i], &n[0])
		decode(t, answers[1][i], &n[1])
		if n[0] != n[1] {
			differ(q, n[0].N, n[1].N)
		}
	}
}

// kinds opens descriptors of each kind in dir, the working directory.
func kinds(t *testing.T, dir string) (files []*os.File, ports []int, unixNames []string) {
	t.Helper()
	add := func(kind string, fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		f := os.NewFile(uintptr(fd), kind)
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
		return fd
	}
	socket := func(kind string, domain, typ, protocol int, address unix.Sockaddr, listen bool) int {
		t.Helper()
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
		if err == nil && address != nil {
			err = unix.Bind(fd, address)
		}
		if err == nil && listen {
			err = unix.Listen(fd, 8)
		}
		add(kind, fd, err)
		if address != nil {
			name, err := unix.Getsockname(fd)
			if err != nil {
				t.Fatal(err)
			}
			switch name := name.(type) {
			case *unix.SockaddrInet4:
				ports = append(ports, name.Port)
			case *unix.SockaddrInet6:
				ports = append(ports, name.Port)
			case *unix.SockaddrUnix:
				unixNames = append(unixNames, name.Name)
			}
		}
		return fd
	}
	connect := func(kind string, server, domain, typ int) {
		t.Helper()
		address, err := unix.Getsockname(server)
		if err != nil {
			t.Fatal(err)
		}
		client := socket(kind+" client", domain, typ, 0, nil, false)
		if err := unix.Connect(client, address); err != nil {
			t.Fatal(err)
		}
		if typ == unix.SOCK_DGRAM {
			return
		}
		accepted, _, err := unix.Accept4(server, unix.SOCK_CLOEXEC)
		add(kind+" accepted", accepted, err)
	}
	path := func(name string) *unix.SockaddrUnix { return &unix.SockaddrUnix{Name: filepath.Join(dir, name)} }

	server := socket("unix stream listening", unix.AF_UNIX, unix.SOCK_STREAM, 0, path("stream"), true)
	connect("unix stream", server, unix.AF_UNIX, unix.SOCK_STREAM)
	socket("unix stream bound", unix.AF_UNIX, unix.SOCK_STREAM, 0, path("bound"), false)
	socket("unix stream new", unix.AF_UNIX, unix.SOCK_STREAM, 0, nil, false)
	socket("unix relative", unix.AF_UNIX, unix.SOCK_STREAM, 0, &unix.SockaddrUnix{Name: "relative"}, true)
	socket("unix of 107 bytes", unix.AF_UNIX, unix.SOCK_STREAM, 0, &unix.SockaddrUnix{Name: strings.Repeat("./", 50) + "longest"}, true)
	server = socket("unix dgram bound", unix.AF_UNIX, unix.SOCK_DGRAM, 0, path("dgram"), false)
	connect("unix dgram", server, unix.AF_UNIX, unix.SOCK_DGRAM)
	socket("unix dgram new", unix.AF_UNIX, unix.SOCK_DGRAM, 0, nil, false)
	server = socket("unix seqpacket abstract", unix.AF_UNIX, unix.SOCK_SEQPACKET, 0, &unix.SockaddrUnix{Name: "@" + filepath.Join(dir, "seqpacket")}, true)
	connect("unix seqpacket", server, unix.AF_UNIX, unix.SOCK_SEQPACKET)
	socket("unix abstract, bound by the kernel", unix.AF_UNIX, unix.SOCK_DGRAM, 0, &unix.SockaddrUnix{}, false)
	long := "@" + filepath.Join(dir, "long")
	socket("unix abstract of 106 bytes", unix.AF_UNIX, unix.SOCK_STREAM, 0, &unix.SockaddrUnix{Name: long + strings.Repeat("x", 107-len(long))}, true)
	zero := "@" + filepath.Join(dir, "zero") + "\x00byte"
	socket(zeroByte, unix.AF_UNIX, unix.SOCK_STREAM, 0, &unix.SockaddrUnix{Name: zero}, true)
	unixNames = append(unixNames, zero)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	add("unix pair", pair[0], err)
	add("unix pair", pair[1], err)

	four, six := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, &unix.SockaddrInet6{}
	server = socket("tcp listening", unix.AF_INET, unix.SOCK_STREAM, 0, four, true)
	connect("tcp", server, unix.AF_INET, unix.SOCK_STREAM)
	socket("tcp bound", unix.AF_INET, unix.SOCK_STREAM, 0, four, false)
	socket("tcp new", unix.AF_INET, unix.SOCK_STREAM, 0, nil, false)
	server = socket("udp bound", unix.AF_INET, unix.SOCK_DGRAM, 0, four, false)
	connect("udp", server, unix.AF_INET, unix.SOCK_DGRAM)
	socket("udp new", unix.AF_INET, unix.SOCK_DGRAM, 0, nil, false)
	socket("icmp", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, nil, false)
	socket("netlink", unix.AF_NETLINK, unix.SOCK_RAW, 0, nil, false)
	socket("netlink bound", unix.AF_NETLINK, unix.SOCK_RAW, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, false)
	socket("packet", unix.AF_PACKET, unix.SOCK_RAW, 0, nil, false)
	for _, s := range []struct {
		kind                  string
		domain, typ, protocol int
		address               unix.Sockaddr
		listen                bool
	}{
		{"tcp6 listening", unix.AF_INET6, unix.SOCK_STREAM, 0, six, true},
		{"udp6 bound", unix.AF_INET6, unix.SOCK_DGRAM, 0, six, false},
		{"udp6 new", unix.AF_INET6, unix.SOCK_DGRAM, 0, nil, false},
		{"mptcp listening", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, four, true},
		{"vsock new", unix.AF_VSOCK, unix.SOCK_STREAM, 0, nil, false},
		{noSockname, unix.AF_ALG, unix.SOCK_SEQPACKET, 0, nil, false},
		{noSockname, unix.AF_XDP, unix.SOCK_RAW, 0, nil, false},
	} {
		fd, err := unix.Socket(s.domain, s.typ|unix.SOCK_CLOEXEC, s.protocol)
		if err != nil { // a kernel without it
			t.Logf("%s: %v", s.kind, err)
			continue
		}
		unix.Close(fd)
		socket(s.kind, s.domain, s.typ, s.protocol, s.address, s.listen)
	}

	for _, err := range []error{
		unix.Mkfifo("fifo", 0o600), unix.Mkfifo("other fifo", 0o600), os.WriteFile("file", nil, 0o600), os.WriteFile("other file", nil, 0o600), os.Link("fifo", "fifo again"),
		os.Link("file", "file again"), os.Symlink("fifo", "link to fifo"), os.Symlink("file", "link to file"), os.Symlink("loop", "loop"), os.Symlink("/dev/null", "link to null"),
		unix.Mknod("null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), unix.Mknod("block", unix.S_IFBLK|0o600, int(unix.Mkdev(1, 3))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []struct {
		path string
		mode int
	}{
		{"fifo", unix.O_RDWR}, {"file", unix.O_RDONLY}, {".", unix.O_RDONLY}, {"/dev/null", unix.O_RDWR}, {"/dev/zero", unix.O_RDONLY}, {"/proc/self/status", unix.O_RDONLY},
		{"stream", unix.O_PATH}, {"fifo", unix.O_PATH}, {"file", unix.O_PATH}, {".", unix.O_PATH}, {"/dev/null", unix.O_PATH}, {"block", unix.O_PATH}, {"link to fifo", unix.O_PATH | unix.O_NOFOLLOW},
	} {
		fd, err := unix.Open(f.path, f.mode|unix.O_CLOEXEC, 0)
		kind := f.path
		if f.mode&unix.O_PATH != 0 {
			kind = "O_PATH of " + kind
		}
		add(kind, fd, err)
	}
	var pipe [2]int
	err = unix.Pipe2(pipe[:], unix.O_CLOEXEC)
	add("pipe", pipe[0], err)
	add("pipe", pipe[1], err)
	for kind, open := range map[string]func() (int, error){
		"memfd":   func() (int, error) { return unix.MemfdCreate("memfd", unix.MFD_CLOEXEC) },
		"epoll":   func() (int, error) { return unix.EpollCreate1(unix.EPOLL_CLOEXEC) },
		"eventfd": func() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC) },
		"inotify": func() (int, error) { return unix.InotifyInit1(unix.IN_CLOEXEC) },
		"timerfd": func() (int, error) { return unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC) },
		"pidfd":   func() (int, error) { return unix.PidfdOpen(os.Getpid(), 0) },
	} {
		fd, err := open()
		add(kind, fd, err)
	}
	return files, ports, unixNames
}

// The kinds for which the documentation of IsSocket and IsSocketUnix tells of a difference.
const (
	zeroByte   = "unix abstract with a zero byte"
	noSockname = "socket of a family without addresses"
	socketPath = "O_PATH of stream"
)

func compareIs(t *testing.T, p peers) {
	dir := t.TempDir()
	t.Chdir(dir)
	files, ports, unixNames := kinds(t, dir)
	ports = append(ports, 0, 1, 65535, ports[0]<<8&0xff00|ports[0]>>8)
	for _, name := range unixNames {
		unixNames = append(unixNames, name+"x", name[:len(name)-1])
	}
	unixNames = append(unixNames, "", "@", "relative", "./relative", filepath.Join(dir, "relative"), filepath.Join(dir, "dgram"), "@"+filepath.Join(dir, "stream"), filepath.Join(dir, ".")+"/./stream",
		strings.Repeat("x", 200), "@"+strings.Repeat("x", 200))
	paths := []string{"", ".", "fifo", "other fifo", "fifo again", "link to fifo", "file", "other file", "file again", "link to file", "loop", "/dev/null", "null", "link to null", "block", "/dev/zero", "stream",
		"nothing", "nothing/below", "fifo/below", filepath.Join(dir, "fifo"), filepath.Join(dir, "file"), strings.Repeat("x", 300), "/" + strings.Repeat("x/", 3000), "/proc/self/status"}
	const least, most = math.MinInt32, math.MaxInt32

	var questions []question
	for i := range len(files) + 1 {
		fd, kind := -1, "closed"
		if i < len(files) {
			fd, kind = 3+i, files[i].Name()
		}
		q := func(what string, family, typ, listening, port int, path string) {
			questions = append(questions, ask(kind, what, fd, family, typ, listening, port, path))
		}
		for _, listening := range []int{-1, 0, 1, 7, least} {
			for _, typ := range []int{0, unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, -1, most} {
				for _, family := range []int{0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_ALG, unix.AF_XDP, 1<<16 + unix.AF_UNIX, -1, least} {
					q("socket", family, typ, listening, 0, "")
				}
			}
		}
		for _, listening := range []int{-1, 1} {
			for _, typ := range []int{0, unix.SOCK_STREAM, -1} {
				for _, port := range ports {
					for _, family := range []int{0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, -1} {
						q("inet", family, typ, listening, port, "")
					}
				}
				for _, name := range unixNames {
					q("unix", 0, typ, listening, 0, name)
				}
			}
		}
		for _, path := range paths {
			q("fifo", 0, 0, 0, 0, path)
			q("special", 0, 0, 0, 0, path)
		}
	}
	expected := map[string]int{}
	inBoth(t, p, questions, func(program string) *exec.Cmd {
		cmd := command(t, program, "is")
		cmd.ExtraFiles = files
		return cmd
	}, func(q question, libsystemd, sysfd int) {
		// Where libsystemd says that it is one, or cannot tell, sysfd says that it is not; and the other way round.
		what, _, _ := strings.Cut(q.line, " ")
		switch {
		case q.kind == socketPath && sysfd == 0 && (libsystemd == 1 || libsystemd == -int(syscall.EBADF)):
		case q.kind == noSockname && libsystemd == -int(syscall.EOPNOTSUPP) && sysfd >= 0:
		case q.kind == zeroByte && what == "unix":
		default:
			t.Errorf("%s: %q: libsystemd %d, sysfd %d", q.kind, q.line, libsystemd, sysfd)
		}
		expected[q.kind]++
	})
	t.Logf("%d questions about %d descriptors; expected differences: %v", len(questions), len(files)+1, expected)
}

// compareQueue asks about message queues, in an IPC namespace of its own.
func compareQueue(t *testing.T, p peers) {
	needsTool(t, "unshare")
	const inNamespace = `
set -e
mount -t tmpfs tmpfs /dev
mkdir /dev/mqueue
mount -t mqueue mqueue /dev/mqueue
: >/dev/mqueue/other
: >/dev/file
exec "$@" 3<>/dev/mqueue/queue 4</dev/file 5</dev/mqueue
`
	if out, err := command(t, "unshare", "--mount", "--ipc", "mount", "-t", "mqueue", "mqueue", t.TempDir()).CombinedOutput(); err != nil {
		lacks(t, fmt.Sprintf("message queues: %v, %s", err, out))
	}
	var questions []question
	for _, fd := range []int{3, 4, 5, -1} {
		kind := map[int]string{3: "queue", 4: "file", 5: "directory", -1: "closed"}[fd]
		for _, name := range []string{"", "/queue", "/other", "/nothing", "/", "queue", "other", "//queue", "/./queue", "/../mqueue/queue", "/queue/below", "/" + strings.Repeat("x", 300), "."} {
			questions = append(questions, ask(kind, "queue", fd, 0, 0, 0, 0, name))
		}
		for _, what := range []string{"special", "fifo", "socket"} {
			questions = append(questions, ask(kind, what, fd, 0, 0, -1, 0, ""), ask(kind, what, fd, 0, 0, -1, 0, "/dev/mqueue/queue"))
		}
	}
	expected := 0
	inBoth(t, p, questions, func(program string) *exec.Cmd {
		return command(t, "unshare", "--mount", "--ipc", "sh", "-c", inNamespace, "sh", program, "is")
	}, func(q question, libsystemd, sysfd int) {
		// libsystemd looks at the name, which is none, only of what is a queue.
		if q.kind == "queue" || sysfd != -int(syscall.EINVAL) {
			t.Errorf("%s: %q: libsystemd %d, sysfd %d", q.kind, q.line, libsystemd, sysfd)
		}
		expected++
	})
	t.Logf("%d questions, %d expected differences", len(questions), expected)
}

// A notification is what came to the socket.
type notification struct {
	Data     string
	Flags    int
	FDs      int
	Sender   int // 0 = the process that was started, or else its PID
	UID, GID uint32
}

// manager receives notifications.
type manager struct {
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T, path string) manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil {
		t.Fatal(err)
	}
	return manager{conn, path}
}

// during returns the answer of a program to one line, and what it sent meanwhile.
func (m manager) during(t *testing.T, program, socket, line string) (n int, got []notification) {
	t.Helper()
	const end = "the program has ended"
	cmd := command(t, program, "notify")
	cmd.Stdin = strings.NewReader(line)
	cmd.ExtraFiles = []*os.File{open(t, os.DevNull)}
	if socket != unset {
		cmd.Env = []string{"NOTIFY_SOCKET=" + socket}
	} else {
		cmd.Env = []string{"A=1"}
	}
	received := make(chan error, 1)
	go func() {
		received <- func() error {
			for {
				data, control := make([]byte, 1<<20), make([]byte, 1<<16)
				n, nControl, flags, _, err := m.conn.ReadMsgUnix(data, control)
				if err != nil || string(data[:n]) == end {
					return err
				}
				sent := notification{Data: string(data[:n]), Flags: flags &^ unix.MSG_CMSG_CLOEXEC}
				messages, err := unix.ParseSocketControlMessage(control[:nControl])
				if err != nil {
					return err
				}
				for _, message := range messages {
					if creds, err := unix.ParseUnixCredentials(&message); err == nil {
						sent.Sender, sent.UID, sent.GID = int(creds.Pid), creds.Uid, creds.Gid
						continue
					}
					fds, err := unix.ParseUnixRights(&message)
					if err != nil {
						return err
					}
					sent.FDs += len(fds)
					for _, fd := range fds {
						unix.Close(fd) // so a barrier goes on
					}
				}
				got = append(got, sent)
			}
		}()
	}()
	lines := output(t, cmd)
	c, err := net.Dial("unixgram", m.path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(end)); err != nil {
		t.Fatal(err)
	}
	if err := <-received; err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i].Sender -= cmd.Process.Pid
	}
	var answer struct{ N int }
	decode(t, lines[0], &answer)
	return answer.N, got
}

// A difference is what both answer where the answers are not the same.
type difference struct{ libsystemd, sysfd int }

const anyError = 0

func compareNotify(t *testing.T, p peers) {
	dir := t.TempDir()
	m := newManager(t, filepath.Join(dir, "notify"))
	compare := func(m manager, socket, what, state string, fds int, want *difference) {
		t.Helper()
		word := "-"
		if state != "" {
			word = hex.EncodeToString([]byte(state))
		}
		line := fmt.Sprintln(what, fds, word)
		theirs := line
		if what != "barrier" {
			// systemd leaves out a backslash and takes a carriage return for the end of a line. libsystemd has
			// its caller see to that, and sysfd does.
			escaped := strings.NewReplacer(`\`, `\\`, "\r", "\n").Replace(state)
			if escaped != state {
				theirs = fmt.Sprintln("notify", fds, hex.EncodeToString([]byte(escaped)))
			} else {
				theirs = fmt.Sprintln("notify", fds, word)
			}
		}
		n, sent := m.during(t, p.oracle, socket, theirs)
		ours, oursSent := m.during(t, p.receiver, socket, line)
		if want == nil {
			want = &difference{n, n}
		}
		got := difference{n, ours}
		if n < 0 && want.libsystemd == anyError {
			got.libsystemd = anyError
		}
		for i := range sent { // newlines at the ends say nothing, and sysfd does not send them
			sent[i].Data = strings.Trim(sent[i].Data, "\n")
		}
		if got != *want || n == ours && !slices.Equal(sent, oursSent) {
			t.Errorf("NOTIFY_SOCKET=%q: %s, %.200q, %d descriptors:\nlibsystemd %d %.200q\nsysfd      %d %.200q", socket, what, state, fds, n, fmt.Sprint(sent), ours, fmt.Sprint(oursSent))
		}
		if n == 1 && len(sent) != 1 {
			t.Errorf("%.200q: %d messages", state, len(sent))
		}
	}
	noAssignment := &difference{1, -int(syscall.EINVAL)} // sent as it is
	for _, test := range []struct {
		what, state string
		fds         int
		want        *difference
	}{
		{"notify", "READY=1", 0, nil},
		{"notify", "READY=1", 1, nil},
		{"notify", "READY=1\nSTATUS=gr\u00fcn \"a\" \\n = ok\nMAINPID=5", 0, nil},
		{"notify", "STATUS=", 0, nil},
		{"notify", "STATUS=\xff\xfe", 0, nil},
		{"notify", " READY=1 ", 0, nil},
		{"notify", "X_OWN=1\r", 0, nil},
		{"notify", "STATUS=" + strings.Repeat("x", 4096), 0, nil},
		{"notify", "STATUS=" + strings.Repeat("x", 100_000), 0, nil},
		{"notify", "STATUS=" + strings.Repeat("x", 1<<20), 0, &difference{1, -int(syscall.EMSGSIZE)}}, // it makes the buffer larger; systemd takes 4096 bytes
		{"notify", "FDSTORE=1\nFDNAME=a", 3, nil},
		{"notify", "FDSTORE=1", 253, nil},
		{"notify", "FDSTORE=1", 254, nil},
		{"notify", "FDSTORE=1", 1000, nil},
		{"store", "FDSTORE=1\nFDNAME=one", 1, nil},
		{"store", "FDSTORE=1\nFDNAME=many of them", 253, nil},
		{"remove", "FDSTOREREMOVE=1\nFDNAME=one", 0, nil},
		{"mainprocess", "MAINPID=1\nMAINPIDFDID=18446744073709551615", 0, nil},
		{"mainpidfd", "MAINPIDFD=1", 1, nil},
		{"barrier", "", 0, nil},
		{"notify", "", 0, nil},
		{"notify", "READY", 0, noAssignment},
		{"notify", "=1", 0, noAssignment},
		{"notify", "READY=1\n", 0, nil},
		{"notify", "\nREADY=1", 0, nil},
		{"notify", "\n", 0, noAssignment},
	} {
		compare(m, m.path, test.what, test.state, test.fds, test.want)
	}

	t.Chdir(dir)
	other, err := net.Listen("unix", "stream")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gone := newManager(t, filepath.Join(dir, "gone"))
	gone.conn.Close()
	abstract := newManager(t, "@"+filepath.Join(dir, "abstract"))
	fill := func(path string, n int) string { return path + strings.Repeat("x", n-len(path)) }
	longest := newManager(t, "@"+fill(filepath.Join(dir, "longest"), 107))
	longestPath := newManager(t, fill(filepath.Join(dir, "longest"), 107))
	noAddress := &difference{-int(syscall.EPROTO), -int(syscall.EINVAL)}
	vsock := &difference{anyError, -int(syscall.EAFNOSUPPORT)} // libsystemd tries, and it depends on the kernel what comes of it
	for _, test := range []struct {
		m      manager
		socket string
		want   *difference
	}{
		{m, unset, nil},
		{m, "", noAddress},
		{m, "@", nil},
		{m, "notify", noAddress},
		{m, "./notify", noAddress},
		{m, dir + "/./notify", nil},
		{m, "/", &difference{-int(syscall.EINVAL), -int(syscall.ECONNREFUSED)}},
		{m, "unix:" + m.path, noAddress},
		{m, "x", noAddress},
		{m, "/" + strings.Repeat("x", 50), nil},
		{m, "@nothing" + dir, nil},
		{m, filepath.Join(dir, "file"), nil},
		{m, filepath.Join(dir, "file", "below"), nil},
		{m, filepath.Join(dir, "stream"), nil},
		{m, gone.path, nil},
		{abstract, abstract.path, nil},
		{longest, longest.path, &difference{-int(syscall.EINVAL), -int(syscall.ENAMETOOLONG)}},
		{longest, longest.path + "x", &difference{-int(syscall.EINVAL), -int(syscall.ENAMETOOLONG)}},
		{longestPath, longestPath.path, nil},
		{longestPath, longestPath.path + "x", nil},
		{m, "/" + strings.Repeat("x", 5000), nil},
		{m, "vsock:2:9999", vsock},
		{m, "vsock-stream:2:9999", vsock},
		{m, "vsock-dgram:2:9999", vsock},
		{m, "vsock-seqpacket:2:9999", vsock},
		{m, "vsock:x", vsock},
		{m, "vsock", vsock},
		{m, "vsockx:2:1", vsock},
	} {
		compare(test.m, test.socket, "notify", "READY=1", 0, test.want)
		compare(test.m, test.socket, "barrier", "", 0, test.want)
	}
}

func sendTo(t *testing.T, p peers, oracle string) {
	type passed struct {
		N         int
		Names     []string
		Listening []int
		Inodes    []uint64
	}
	accepted := func(line string, names []string, listening int) (got passed) {
		t.Helper()
		decode(t, line, &got)
		if got.N != len(names) || !slices.Equal(got.Names, names) || !slices.Equal(got.Listening, slices.Repeat([]int{listening}, len(names))) {
			t.Errorf("%q: %+v", names, got)
		}
		return got
	}
	descending := make([]string, 40)
	for i := range descending {
		descending[i] = strconv.Itoa(59 - i)
	}
	for _, how := range []string{"exec", "start", "renew"} { // the senders of ./receiver
		for _, fds := range []string{"0", "0,0,0", strings.TrimSuffix(strings.Repeat("0,", 40), ","), strings.Join(descending, ",")} {
			lines := output(t, command(t, p.receiver, "send", how, fds, oracle, "received"))
			if len(lines) != 2 {
				t.Fatalf("%s %s: %q", how, fds, lines)
			}
			var sent passed
			decode(t, lines[0], &sent)
			if got := accepted(lines[1], sent.Names, 1); !slices.Equal(got.Inodes, sent.Inodes) {
				t.Errorf("%s %s: %+v, sent %+v", how, fds, got, sent)
			}
		}
	}

	path := filepath.Join(t.TempDir(), "socket")
	for _, test := range []struct {
		args      []string
		names     string
		listening int
	}{
		{[]string{"-l", "127.0.0.1:0", "-l", path, "-l", "@" + path, "--fdname", "http:control:a b"}, "http:control:a b", 1},
		{[]string{"-l", "127.0.0.1:0", "-l", "127.0.0.1:0"}, "unknown:unknown", 1},
		{[]string{"-d", "-l", "127.0.0.1:0", "-l", path + " of datagrams", "--fdname", "udp"}, "udp:udp", 0},
	} {
		cmd := command(t, p.sysfd, slices.Concat([]string{"activate", "--now"}, test.args, []string{"--", oracle, "received"})...)
		out, err := cmd.Output() // it tells on stderr where it listens
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, name := range strings.Split(test.names, ":") {
			names = append(names, hex.EncodeToString([]byte(name)))
		}
		accepted(strings.TrimSpace(string(out)), names, test.listening)
	}
}
