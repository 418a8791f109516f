//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sysfd/sysfd/internal/overdue"
)

var boot = flag.Bool("boot", false, "boot kernels, as is done where $CI is set")

func TestMain(m *testing.M) {
	overdue.Report()
	os.Exit(m.Run())
}

// boots skips a test that takes qemu and minutes, unless that is wanted.
func boots(t *testing.T) {
	t.Helper()
	if !*boot && os.Getenv("CI") == "" {
		t.Skip("it boots kernels: go test ./vm -boot, or set $CI")
	}
}

func testBuilder(t *testing.T) *builder {
	t.Helper()
	b, err := newBuilder(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.close() })
	return b
}

// The tests of package sysfd on the kernels that cover most.
func TestKernels(t *testing.T) {
	boots(t)
	chosen := some(func(k kernel) bool { return k.ci })
	slices.Reverse(chosen) // the slow ones first
	o := options{jobs: runtime.NumCPU(), timeout: 15 * time.Minute}
	// Not t.Output, of which a test that takes too long shows nothing.
	checkResults(t, runTests(t.Context(), testBuilder(t), chosen, o, os.Stdout), 100)
}

var names = flag.Int("names", 500, "how many processes TestSecondBest names")

// On a kernel without pidfd IDs, with one PID that is free, a PID and a start time are mistaken for
// another process if that starts within the same clock tick.
func TestSecondBest(t *testing.T) {
	boots(t)
	b := testBuilder(t)
	k, err := find("amd64-6.1")
	if err != nil {
		t.Fatal(err)
	}
	v, err := b.vm(t.Context(), k[0])
	if err != nil {
		t.Fatal(err)
	}
	if v.program, err = b.build(t.Context(), k[0].goarch, "test/soak/worker", "build"); err != nil {
		t.Fatal(err)
	}
	v.args = []string{"-second-best", "-dir=/tmp", "-pid-max=301", "-rounds=" + strconv.Itoa(*names)}
	var last string
	v.output = func(line string) { last = line }
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(*names)*100*time.Millisecond)
	defer cancel()
	r := v.run(ctx)
	t.Log(last)
	if !r.ok() {
		t.Fatal(r, r.err)
	}
	var sum struct {
		Free   int `json:"free_pids"`
		Names  int
		Reused int
	}
	if err := json.Unmarshal([]byte(last), &sum); err != nil {
		t.Fatal(err)
	}
	if sum.Names != *names || sum.Free != 1 || sum.Reused < *names/4 {
		t.Errorf("that is no measure: %+v", sum)
	}
}

func TestBeyond32Bits(t *testing.T) {
	boots(t)
	chosen := some(func(k kernel) bool { return k.raise })
	o := options{jobs: runtime.NumCPU(), timeout: 5 * time.Minute, raise: true, verbose: true}
	checkResults(t, runTests(t.Context(), testBuilder(t), chosen, o, t.Output()), 3)
}

func checkResults(t *testing.T, results []result, least int) {
	t.Helper()
	if err := printResults(t.Output(), results); err != nil {
		t.Error(err)
	}
	for _, r := range results {
		if !r.ok() || len(r.failed) > 0 || r.passed < least {
			t.Errorf("%v, %d passed", r, r.passed)
		}
	}
}

// A guest's failure is ours, whatever it is.
func TestFailures(t *testing.T) {
	boots(t)
	b := testBuilder(t)
	k, err := find("amd64-newest")
	if err != nil {
		t.Fatal(err)
	}
	program, err := b.testBinary(t.Context(), "amd64", "test/vm/testdata/failing")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"TestFails":           "exit status 1",
		"TestPanicsTheKernel": "Kernel panic",
		"TestHangs":           "no verdict in time",
		"TestHangs -timeout":  "exit status 2",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := b.vm(t.Context(), k[0])
			if err != nil {
				t.Fatal(err)
			}
			test, timeout, _ := strings.Cut(name, " ")
			v.program, v.args = program, []string{"-test.v", "-test.run=" + test}
			if timeout != "" {
				v.args = append(v.args, "-test.timeout=1s")
			}
			patience := 2 * time.Minute
			if name == "TestHangs" {
				patience = 30 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r := v.run(ctx)
			if text := fmt.Sprint(r, r.err); r.ok() || !strings.Contains(text, want) {
				t.Errorf("no %q: %s", want, text)
			}
		})
	}
}

// go test runs package sysfd's tests by way of this program.
func TestExec(t *testing.T) {
	boots(t)
	runner := filepath.Join(t.TempDir(), "vm")
	if out, err := exec.Command("go", "build", "-o", runner, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	test := func(kernel, goarch string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-count=1", "-v", "-exec", runner + " -kernel " + kernel}, args...)...)
		cmd.Env = append(os.Environ(), "GOARCH="+goarch, "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := test("386-on-amd64-newest", "386", "-run=^TestPidFDIDOf$", "github.com/sysfd/sysfd")
	if err != nil || !strings.Contains(out, "--- PASS: TestPidFDIDOf") || !strings.Contains(out, "ok  \tgithub.com/sysfd/sysfd\t") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = test("amd64-newest", "amd64", "-run=Fails", "./testdata/failing")
	if err == nil || !strings.Contains(out, "on purpose") || !strings.Contains(out, "FAIL\tgithub.com/sysfd/sysfd/test/vm/testdata/failing") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestVerdict has shell scripts for qemu.
func TestVerdict(t *testing.T) {
	const begin = `echo firmware; echo "$mark 7.2"; `
	for script, want := range map[string]string{
		begin + `echo "--- PASS: TestA (0s)"; echo "--- SKIP: TestB"; echo "    --- PASS: TestA/x"; echo "$mark 0"; exec sleep 600`: "ok",
		begin + `printf "no end of line"; echo "$mark 0"`: "ok",
		begin + `echo "--- FAIL: TestA"; echo "$mark 1"`:  "exit status 1 TestA",
		begin + `echo PASS`:         "without a verdict (exit status 0)",
		begin + `echo PASS; exit 3`: "without a verdict (exit status 3)",
		begin + `echo "--- PASS: TestA (0s)"; echo "[ 2.0] Kernel panic - not syncing: sysrq"`: "Kernel panic",
		begin + `echo "$mark x"; exec sleep 600`:                                               "invalid syntax",
		begin + `echo "vm-GUESSED 0"; printf "$mark"`:                                          "without a verdict",
		begin + `kill -9 $$`:                     "signal: killed",
		begin + `exec sleep 600`:                 "no verdict in time",
		`echo "$mark 0"`:                         "without a verdict",
		`echo qemu: no such machine >&2; exit 1`: "no such machine",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			program := filepath.Join(dir, "program")
			if err := os.WriteFile(program, []byte("program"), 0o600); err != nil {
				t.Fatal(err)
			}
			timeout := time.Minute
			if want == "no verdict in time" {
				timeout = 2 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			var printed strings.Builder
			r := vm{
				init: program, program: program, output: func(line string) { printed.WriteString(line) },
				machine: machine{qemu: []string{"sh", "-c", `
					while [ "$1" != -initrd ]; do shift; done
					mark=$(grep -ao 'vm-[A-Z0-9]*' "$2" | head -n 1)
					` + script, "qemu"}},
			}.run(ctx)
			if text := fmt.Sprint(r, r.err); !strings.Contains(text, want) || r.ok() != (want == "ok") {
				t.Errorf("no %q: %s", want, text)
			}
			if strings.Contains(printed.String(), "firmware") || strings.Contains(printed.String(), "vm-") && !strings.Contains(script, "GUESSED") {
				t.Errorf("that is not the program's: %q", &printed)
			}
			if strings.Contains(script, "TestB") && (r.passed != 1 || r.skipped != 1 || len(r.failed) != 0 || r.release != "7.2") {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestLog(t *testing.T) {
	const output = `=== RUN   TestWell
    a_test.go:1: said in passing
--- PASS: TestWell (0.00s)
=== RUN   TestSkipped
    a_test.go:2: too old
--- SKIP: TestSkipped (0.00s)
=== RUN   TestBad
=== RUN   TestBad/sub
    a_test.go:3: bad
--- FAIL: TestBad (0.00s)
    --- FAIL: TestBad/sub (0.00s)
    --- PASS: TestBad/well (0.00s)
=== RUN   TestPanics
panic: at last
`
	for _, all := range []bool{false, true} {
		var log testLog
		for line := range strings.Lines(output) {
			log.add(line, all)
		}
		want := "    a_test.go:3: bad\n--- FAIL: TestBad (0.00s)\n    --- FAIL: TestBad/sub (0.00s)\npanic: at last\n"
		if all {
			want = output
		}
		if got := log.kept.String() + log.pending.String(); got != want {
			t.Errorf("all %t: %q", all, got)
		}
	}
}

func TestKernelList(t *testing.T) {
	seen := map[string]bool{}
	ci, raise := 0, 0
	for _, k := range kernels {
		if m, ok := machines[k.machine]; !ok || seen[k.name] || len(k.suites) == 0 || !strings.HasPrefix(k.name, k.goarch+"-") || m.memory == 0 {
			t.Errorf("%+v", k)
		}
		if k.version != "" && !strings.HasSuffix(k.name, "-"+k.version) || k.version == "" && !strings.HasSuffix(k.name, "-newest") {
			t.Errorf("%s has version %s", k.name, k.version)
		}
		seen[k.name] = true
		if k.ci {
			ci++
		}
		if k.raise {
			raise++
		}
	}
	if ci != 6 || raise != 3 {
		t.Errorf("%d in -ci, %d in -raise", ci, raise)
	}
	found, err := find("arm-7.2,amd64-6.1")
	if err != nil || len(found) != 2 || found[0].name != "arm-7.2" || found[1].name != "amd64-6.1" {
		t.Errorf("%v, %v", found, err)
	}
	for _, names := range []string{"", "arm-7.2,", "arm"} {
		if found, err := find(names); err == nil {
			t.Errorf("%q: %v", names, found)
		}
	}
	var list bytes.Buffer
	if err := printKernels(&list); err != nil || strings.Count(list.String(), "\n") != len(kernels)+1 {
		t.Errorf("%v\n%s", err, &list)
	}
}

func TestPattern(t *testing.T) {
	for name, packages := range map[string][]string{
		"amd64-6.1":    {"linux-image-6.1.0-50-cloud-amd64", "linux-image-6.1-cloud-amd64"},
		"amd64-7.2":    {"linux-binary-7.2.13+deb14-cloud-amd64", "linux-image-7.2.13+deb14-cloud-amd64", "linux-image-7.2.13+deb14.1-cloud-amd64"},
		"amd64-newest": {"linux-binary-7.2.13+deb14-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64"},
		"386-6.1":      {"linux-image-6.1.0-50-686-pae", "linux-image-6.1.0-0.deb12.4-686-pae"},
		"arm-7.2":      {"linux-binary-7.2.13+deb14-armmp"},
		"ppc64le-7.2":  {"linux-binary-7.2.13+deb14-powerpc64le"},
		"mipsle-6.1":   {"linux-image-6.1.0-50-4kc-malta"},
	} {
		k, err := find(name)
		if err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile("^" + k[0].pattern() + "$")
		for _, p := range packages {
			if !re.MatchString(p) {
				t.Errorf("%s: not %s", name, p)
			}
		}
		for _, p := range []string{
			"linux-image-6.12.1-cloud-amd64", "linux-image-6.1.0-50-cloud-amd64-unsigned", "linux-image-6.1.0-50-amd64", "linux-image-cloud-amd64",
			"linux-headers-7.2.13+deb14-cloud-amd64", "linux-image-6.1.0-50-rt-686-pae", "linux-binary-7.2.13+deb14-armmp-lpae", "linux-binary-7.2.13+deb14-rt-armmp",
			"linux-binary-7.2.13+deb14-powerpc64le-64k", "linux-image-6.1.0-50-5kc-malta",
		} {
			if name != "amd64-newest" && re.MatchString(p) {
				t.Errorf("%s: %s", name, p)
			}
		}
	}
}

// A kernel for firmware has another one inside.
func TestUnpackImage(t *testing.T) {
	const kernel = "a kernel of 27 MiB"
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	io.WriteString(w, kernel)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	header := make([]byte, 100)
	copy(header, "MZ\x00\x00zimg")
	copy(header[24:], "gzip")
	binary.LittleEndian.PutUint32(header[8:], uint32(len(header)))
	binary.LittleEndian.PutUint32(header[12:], uint32(packed.Len()))
	image := append(slices.Clone(header), packed.String()+"what follows"...)
	unknown := slices.Clone(image)
	copy(unknown[24:], "sh\x00")
	damaged := slices.Clone(image)
	damaged[len(header)]++
	for name, test := range map[string]struct {
		image []byte
		want  string // "" = an error
	}{
		"packed":    {image, kernel},
		"unpacked":  {[]byte(strings.Repeat(kernel, 4)), strings.Repeat(kernel, 4)},
		"short":     {image[:50], string(image[:50])},
		"truncated": {image[:len(header)+5], ""},
		"unknown":   {unknown, ""},
		"damaged":   {damaged, ""},
	} {
		file := filepath.Join(t.TempDir(), "vmlinuz")
		if err := os.WriteFile(file, test.image, 0o600); err != nil {
			t.Fatal(err)
		}
		err := unpackImage(t.Context(), file)
		got, _ := os.ReadFile(file)
		if test.want == "" && err == nil || test.want != "" && (err != nil || string(got) != test.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// The archive is read as the kernel's documentation describes it.
func TestCPIO(t *testing.T) {
	var b bytes.Buffer
	w := cpioWriter{w: &b}
	w.add("a/b/file", 0o755, []byte("12345"))
	w.add("a/link", fs.ModeSymlink|0o777, []byte("/file"))
	err := w.addTree("tree", fstest.MapFS{"x": {Data: []byte("1")}, "sub/y": {Data: []byte("1234")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	inodes := map[int]bool{}
	for archive := b.Bytes(); len(archive) > 0; {
		var f [13]int
		if n, err := fmt.Sscanf(string(archive[6:110]), strings.Repeat("%8x", 13), &f[0], &f[1], &f[2], &f[3], &f[4], &f[5],
			&f[6], &f[7], &f[8], &f[9], &f[10], &f[11], &f[12]); err != nil || string(archive[:6]) != "070701" {
			t.Fatalf("%q: %d fields, %v", archive[:110], n, err)
		}
		if inodes[f[0]] {
			t.Errorf("two files are inode %d", f[0])
		}
		inodes[f[0]] = true
		name := string(archive[110 : 110+f[11]])
		archive = archive[(110+f[11]+3)&^3:]
		content := archive[:f[6]]
		archive = archive[(f[6]+3)&^3:]
		got = append(got, fmt.Sprintf("%o %q %s", f[1], name, content))
	}
	want := []string{
		`40755 "a\x00" `, `40755 "a/b\x00" `, `100755 "a/b/file\x00" 12345`, `120777 "a/link\x00" /file`,
		`40755 "tree\x00" `, `40755 "tree/sub\x00" `, `100644 "tree/sub/y\x00" 1234`, `100644 "tree/x\x00" 1`, `0 "TRAILER!!!\x00" `,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if b.Len()%4 != 0 {
		t.Errorf("%d bytes", b.Len())
	}
}

// A guest with a counter, a struct kernfs_root, and what only looks like a counter.
func TestRaiser(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		t.Run(order.String(), func(t *testing.T) { testRaiser(t, order) })
	}
}

func testRaiser(t *testing.T, order binary.ByteOrder) {
	r := raiser{ram: make([]byte, 256), order: order, places: map[string][]int{}}
	const counter, other, next, last = 20, 64, 128, 136
	ask := func(question, want string) {
		t.Helper()
		if answer, err := r.answer(question); err != nil || answer != want {
			t.Errorf("%s: %s, %v; want %s", question, answer, err, want)
		}
	}
	put := func(place int, value uint64) { order.PutUint64(r.ram[place:], value) }
	put(counter, 100)
	put(other, 100)
	put(len(r.ram)-8, 100)
	ask("sample pid 98 2", "3")
	if answer, err := r.answer("set pid 7 5"); err == nil {
		t.Errorf("one of several places was written: %s", answer)
	}
	put(counter, 103)
	ask("sample pid 103 0", "1")
	ask("set pid 7 5", "ok")
	if got := order.Uint64(r.ram[counter:]); got != 7<<32+5 {
		t.Errorf("%#x", got)
	}
	order.PutUint32(r.ram[next:], 44)
	order.PutUint32(r.ram[last:], 43)
	order.PutUint32(r.ram[last+4:], 1)
	ask("halves kernfs 4294967296 43", "1")
	ask("rewind kernfs 17", "ok")
	if got := order.Uint32(r.ram[next:]); got != 17 {
		t.Errorf("%d", got)
	}
	for _, question := range []string{"rewind kernfs 17", "set none 1 1", "sample", "sample x -1", "sample x 1 2 3", "fly pid 1"} {
		if answer, err := r.answer(question); err == nil {
			t.Errorf("%s: %s", question, answer)
		}
	}
	ask("sample none 999 0", "0")
}
