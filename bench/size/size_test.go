//go:build linux

// Package size measures how large the package makes a program. Each folder in program is a program
// that uses one part of it, or a program to compare with, which uses none or another package.
//
//	go -C bench test -v ./size
//
// fails if one of them is more than 4 KiB larger or smaller than sizes.txt says. It compares nothing
// with another version of Go than that of sizes.txt, and says so. If a new size is right, this writes
// it, and the reason:
//
//	go -C bench test ./size -record 'the poller is needed for deadlines'
package size

import (
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var recordWhy = flag.String("record", "", "write sizes.txt; the text says why a size differs from it by more than 4 KiB")

const (
	recordFile = "sizes.txt"
	slack      = 4 << 10
)

var arches = []string{"amd64", "arm", "mips"}

// A row is a program: its bytes for each of arches, and the reason for the last change of them.
type row struct {
	bytes [3]int
	why   string
}

// A record is what was measured with one version of Go.
type record struct {
	version string
	rows    map[string]row
}

const head = `# Bytes of stripped programs (go build -trimpath -ldflags '-s -w', CGO_ENABLED=0): the sum of the ELF
# sections that are loaded from the file. size_test.go says how this file is written.
`

func (r record) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n%-18s %9s %9s %9s  why\n", head, r.version, "program", arches[0], arches[1], arches[2])
	for _, name := range slices.Sorted(maps.Keys(r.rows)) {
		row := r.rows[name]
		fmt.Fprintf(&b, "%-18s %9d %9d %9d  %s\n", name, row.bytes[0], row.bytes[1], row.bytes[2], row.why)
	}
	return b.String()
}

var rowLine = regexp.MustCompile(`^(\S+) +(\d+) +(\d+) +(\d+) +(\S.*)$`)

func parseRecord(text string) (r record, err error) {
	body, ok := strings.CutPrefix(text, head)
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	if !ok || len(lines) < 2 {
		return r, errors.New("it does not begin as it should")
	}
	r = record{lines[0], map[string]row{}}
	for _, line := range lines[2:] {
		m := rowLine.FindStringSubmatch(line)
		if m == nil {
			return r, fmt.Errorf("no size, or no reason: %q", line)
		}
		row := row{why: m[5]}
		for i := range row.bytes {
			if row.bytes[i], err = strconv.Atoi(m[2+i]); err != nil {
				return r, err
			}
		}
		r.rows[m[1]] = row
	}
	return r, nil
}

// differs reports whether a program has changed by more than what needs no reason.
func differs(a, b row) bool {
	for i := range a.bytes {
		if d := b.bytes[i] - a.bytes[i]; d > slack || d < -slack {
			return true
		}
	}
	return false
}

// problems compares the record with what was measured with the same version of Go.
func (r record) problems(measured map[string]row) (problems []string) {
	for _, name := range slices.Sorted(maps.Keys(measured)) {
		was, ok := r.rows[name]
		now := measured[name]
		switch {
		case !ok:
			problems = append(problems, name+" is not in "+recordFile)
		case differs(was, now):
			problems = append(problems, fmt.Sprintf("%s differs from %s by %+d bytes for amd64, %+d for arm, %+d for mips",
				name, recordFile, now.bytes[0]-was.bytes[0], now.bytes[1]-was.bytes[1], now.bytes[2]-was.bytes[2]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.rows)) {
		if _, ok := measured[name]; !ok && !isPeer(name) {
			problems = append(problems, name+" is in "+recordFile+", and there is no such program")
		}
	}
	return problems
}

// update returns the record with what was measured. A size that needs no reason stays as it is, so
// that many small changes add up to one that does.
func (r record) update(version, why string, measured map[string]row) record {
	rows := map[string]row{}
	for name, now := range measured {
		was, ok := r.rows[name]
		if ok && r.version == version && !differs(was, now) {
			now = was
		} else {
			now.why = why
		}
		rows[name] = now
	}
	return record{version, rows}
}

// build builds packages for an architecture, and writes the programs to dir.
func build(t *testing.T, arch, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir + "/"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOAMD64=v1", "GOARM=7", "GOMIPS=hardfloat",
		"GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build for %s: %v\n%s", arch, err, out)
	}
}

// loaded returns how many bytes the sections have that are loaded from the file. The size of the file
// is rounded to pages, which hides small changes. What is zero in the beginning is not counted:
// in a program with TLS that is 32 MiB, which nothing may ever use.
func loaded(t *testing.T, path string) (bytes int) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC != 0 && s.Type != elf.SHT_NOBITS {
			bytes += int(s.Size)
		}
	}
	return bytes
}

// isPeer reports whether no change of this repository changes a program much, which then is built only
// for the record.
func isPeer(program string) bool {
	return strings.HasPrefix(program, "http") || strings.Contains(program, "systemd")
}

func measure(t *testing.T, peers bool) map[string]row {
	programs, err := os.ReadDir("program")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]row{}
	var packages []string
	for _, p := range programs {
		if peers || !isPeer(p.Name()) {
			rows[p.Name()] = row{}
			packages = append(packages, "./program/"+p.Name())
		}
	}
	for i, arch := range arches {
		dir := t.TempDir()
		build(t, arch, dir, packages...)
		for name, row := range rows {
			row.bytes[i] = loaded(t, filepath.Join(dir, name))
			rows[name] = row
		}
	}
	return rows
}

// targets are how many bytes a program may have more than another one. One that uses a context links
// the printing of times, whoever made the context: without that, all of activation and notify is
// within what it may have.
var targets = []struct {
	program, beside string
	most            [3]int
}{
	{"listenfds", "os", [3]int{64 << 10, 64 << 10, 64 << 10}},
	{"daemon", "os", [3]int{192 << 10, 192 << 10, 192 << 10}},
	{"activation-notify", "os-context", [3]int{144 << 10, 144 << 10, 152 << 10}},
	{"start", "os", [3]int{288 << 10, 288 << 10, 320 << 10}},
}

func TestSizes(t *testing.T) {
	if !testing.Verbose() && *recordWhy == "" {
		t.Skip("without -v: this takes a minute, and only -v shows that nothing was compared")
	}
	text, err := os.ReadFile(recordFile)
	if err != nil && !(*recordWhy != "" && errors.Is(err, fs.ErrNotExist)) {
		t.Fatal(err)
	}
	var r record
	if err == nil {
		if r, err = parseRecord(string(text)); err != nil {
			t.Fatalf("%s: %v", recordFile, err)
		}
	}
	version, _, _ := strings.Cut(runtime.Version(), " ")
	if *recordWhy == "" && version != r.version {
		t.Skipf("nothing was compared: %s is of %s, and this is %s. Record the sizes anew with -record, or set GOTOOLCHAIN=%[2]s",
			recordFile, r.version, version)
	}
	measured := measure(t, *recordWhy != "")
	if *recordWhy != "" {
		r = r.update(version, *recordWhy, measured)
		if err := os.WriteFile(recordFile, []byte(r.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range r.problems(measured) {
		t.Error(p)
	}
	for _, target := range targets {
		for i, arch := range arches {
			more := measured[target.program].bytes[i] - measured[target.beside].bytes[i]
			t.Logf("%s has %d bytes more than %s for %s", target.program, more, target.beside, arch)
			if more > target.most[i] {
				t.Errorf("%s has %d bytes more than %s for %s, and may have %d", target.program, more, target.beside, arch, target.most[i])
			}
		}
	}
}

func TestRecord(t *testing.T) {
	text, err := os.ReadFile(recordFile)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRecord(string(text))
	if err != nil || r.String() != string(text) {
		t.Errorf("%s is not what is written: %v", recordFile, err)
	}
	one := record{"go1", map[string]row{"x": {[3]int{1, 2, 3}, "it began so"}}}.String()
	for _, bad := range []string{"", head, strings.TrimPrefix(one, head), strings.Replace(one, "it began so", "", 1), strings.Replace(one, "2", "", 1)} {
		if r, err := parseRecord(bad); err == nil {
			t.Errorf("%q was read: %v", bad, r)
		}
	}
}

var readmeRow = regexp.MustCompile(`(?m)^(\| [^|\n]+ \| ([a-z-]+)) \| \d+ \| \d+ \| \d+ \|$`)

// The README has these sizes, less that of os.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(recordFile)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRecord(string(text))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := readmeRow.FindAllStringSubmatch(string(readme), -1)
	if len(found) == 0 || !strings.Contains(string(readme), "(Go "+strings.TrimPrefix(r.version, "go")+", ") {
		t.Errorf("%d rows of sizes, which should be those of %s", len(found), r.version)
	}
	for _, m := range found {
		row, ok := r.rows[m[2]]
		if !ok {
			t.Errorf("%s has no %q", recordFile, m[2])
			continue
		}
		want := m[1]
		for i := range arches {
			want += fmt.Sprintf(" | %.0f", float64(row.bytes[i]-r.rows["os"].bytes[i])/1024)
		}
		if want += " |"; m[0] != want {
			t.Errorf("%s\nshould be\n%s", m[0], want)
		}
	}
}

func TestProblems(t *testing.T) {
	was := row{[3]int{1 << 20, 2 << 20, 3 << 20}, "it began so"}
	r := record{"go1", map[string]row{"x": was}}
	for _, test := range []struct {
		change  [3]int
		problem bool
	}{
		{[3]int{0, 0, 0}, false},
		{[3]int{slack, -slack, slack}, false},
		{[3]int{slack + 1, 0, 0}, true},
		{[3]int{0, 0, slack + 1}, true},
		{[3]int{0, -slack - 1, 0}, true},
	} {
		now := was
		for i := range now.bytes {
			now.bytes[i] += test.change[i]
		}
		now.why = ""
		measured := map[string]row{"x": now}
		if got := r.problems(measured); (len(got) > 0) != test.problem {
			t.Errorf("%v: %q", test.change, got)
		}
		after := r.update("go1", "more", measured)
		want := was
		if test.problem {
			want = row{now.bytes, "more"}
		}
		if after.rows["x"] != want || len(after.problems(measured)) > 0 {
			t.Errorf("%v: %v", test.change, after)
		}
		if after := r.update("go2", "newer", measured); after.version != "go2" || after.rows["x"] != (row{now.bytes, "newer"}) {
			t.Errorf("%v: %v", test.change, after)
		}
	}
	if got := r.problems(map[string]row{"y": was}); len(got) != 2 {
		t.Errorf("another program: %q", got)
	}
}

// inits returns what the runtime says of a program's packages that have something to do before main.
func inits(t *testing.T, program string) (lines []string) {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = []string{"GODEBUG=inittrace=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "init ") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("no trace: %s", out)
	}
	return lines
}

func ownInits(lines []string) []string {
	return slices.DeleteFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "init github.com/sysfd/") })
}

// Importing the packages does nothing.
func TestNoInit(t *testing.T) {
	dir := t.TempDir()
	build(t, runtime.GOARCH, dir, "./program/net-sysfd")
	if own := ownInits(inits(t, dir+"/net-sysfd")); len(own) > 0 {
		t.Errorf("%q", own)
	}

	// With a variable that is computed at the start, the trace shows it.
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "computed.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "computed.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		source:                             "package sysfd\n\nimport \"os\"\n\nvar computed = os.Getpid()\n",
		filepath.Join(dir, "overlay.json"): string(overlay),
	} {
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build(t, runtime.GOARCH, dir, "-overlay", filepath.Join(dir, "overlay.json"), "./program/net-sysfd")
	if own := ownInits(inits(t, dir+"/net-sysfd")); len(own) != 1 {
		t.Errorf("the trace does not show a variable of the package that is computed: %q", own)
	}
}
