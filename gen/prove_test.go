package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"
)

func rootFile(goarch string) string {
	name, err := filepath.Abs("../zsys_linux_" + goarch + ".go")
	if err != nil {
		panic(err)
	}
	return name
}

// roots is load of the root package as it is, once for each architecture.
var roots = struct {
	sync.Mutex
	once map[string]func() (loaded, error)
}{once: map[string]func() (loaded, error){}}

func loadRoot(t *testing.T, goarch string) loaded {
	t.Helper()
	roots.Lock()
	once, ok := roots.once[goarch]
	if !ok {
		once = sync.OnceValues(func() (l loaded, err error) {
			if l, err = load("..", goarch, nil); err == nil {
				l.newest, err = loadNewest(goarch)
			}
			return l, err
		})
		roots.once[goarch] = once
	}
	roots.Unlock()
	l, err := once()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*packages.Package{l.sysfd, l.unix, l.newest} {
		for _, e := range p.Errors {
			t.Fatal(e)
		}
	}
	return l
}

// committedValues is what C must have said when the committed file was written.
func committedValues(t *testing.T, goarch string) values {
	t.Helper()
	l := loadRoot(t, goarch)
	v := values{}
	take := func(p *packages.Package, expr, goName string) {
		val, ok := constantOf(p, goName)
		if !ok {
			t.Fatalf("%s: no constant %s in %s", goarch, goName, p.PkgPath)
		}
		v[expr] = val
	}
	number := func(n int) value { return value{bits: uint64(n)} }
	for _, g := range groups {
		for _, c := range g.Consts {
			take(l.sysfd, c.expr(), c.Name)
			v[c.cName()] = v[c.expr()]
		}
	}
	for _, g := range taken {
		for _, c := range g.Consts {
			take(l.unix, c.expr(), c.Name)
		}
	}
	for _, s := range slices.Concat(structs, takenStructs) {
		p, name := l.sysfd, s.Go
		if name == "" {
			p, name = l.unix, s.XSys
		}
		members, size, ok := structOf(p, name)
		if !ok {
			t.Fatalf("%s: no struct %s in %s", goarch, name, p.PkgPath)
		}
		for _, f := range s.Fields {
			m := members[f.goName()]
			for name, theirs := range members {
				if f.isXSys(name) {
					m = theirs
				}
			}
			v[s.offsetExpr(f)], v[s.elemSizeExpr(f)], v[s.signedExpr(f)] = number(m.offset), number(m.size), value{}
			if m.signed {
				v[s.signedExpr(f)] = number(1)
			}
			if n := s.countExpr(f); n != "" {
				v[n] = number(m.count)
			}
			if f.Flex != "" {
				size = m.offset
			}
		}
		v[s.sizeExpr()], v[s.fitsExpr()] = number(size), number(1)
	}
	text, err := os.ReadFile(rootFile(goarch))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)`).FindSubmatch(text)
	for i, expr := range []string{versionMajor, versionMinor, versionPatch} {
		n := value{}
		for _, digit := range version[i+1] {
			n.bits = 10*n.bits + uint64(digit-'0')
		}
		v[expr] = n
	}
	return v
}

// A difference is seen and named, whichever side it is on; where there is none
// none is seen.
func TestProve(t *testing.T) {
	const goarch = "amd64"
	committed, err := os.ReadFile(rootFile(goarch))
	if err != nil {
		t.Fatal(err)
	}
	v, newest := committedValues(t, goarch), loadRoot(t, goarch).newest
	type edit struct{ old, new string } // in the file; a space stands for any
	for _, tt := range []struct {
		name  string
		edits []edit
		want  []string
		only  bool // there are no others
	}{
		{name: "nothing", only: true},
		{name: "constants", edits: []edit{
			{"MAX_HANDLE_SZ = 128 // bytes", "MAX_HANDLE_SZ = 0x80 // octets"},
			{"_PIDFD_GET_INFO = 0xc058ff0b", "_PIDFD_GET_INFO = 0xc058ff0c"},
			{"AT_FDCWD = -100", "AT_FDCWD = 100"},
			{"FILEID_INVALID HandleType = 0xff", "FILEID_INVALID HandleType = -1"},
			{"_SYS_CLOCK_GETTIME64 = 228", "_SYS_CLOCK_GETTIME64 = 227"},
		}, want: []string{
			"_PIDFD_GET_INFO is 0xc058ff0c, in C it is 0xc058ff0b",
			"AT_FDCWD is 0x64, in C it is -100",
			"FILEID_INVALID is -1, in C it is 0xff",
			"_SYS_CLOCK_GETTIME64 is 0xe3, in C it is 0xe4",
		}, only: true},
		{name: "names", edits: []edit{
			{"FILEID_LUSTRE HandleType = 0x97", "FILEID_LUSTER HandleType = 0x97"},
			{"type fsuuid2 struct", "type fsuuid3 struct"},
			{"type statmount struct", "type statmount int; type other struct"},
		}, want: []string{
			"FILEID_LUSTRE is not in the package",
			"fsuuid2 is not in the package",
			"statmount is not in the package",
		}},
		{name: "types of fields", edits: []edit{
			{"ExitCode int32", "ExitCode uint32"},
			{"\tUUID [16]uint8", "UUID [8][2]uint8"},
		}, want: []string{
			"pidfdInfo.ExitCode is 1 of 4 bytes unsigned at 60, in C it is 1 of 4 bytes signed at 60",
			"fsuuid2.UUID is 8 of 2 bytes unsigned at 1, in C it is 16 of 1 bytes unsigned at 1",
		}},
		{name: "places of fields", edits: []edit{
			{"NSInum uint32", "NSInum uint64"},
			{"type siginfo struct {\n _ structs.HostLayout\n Signo int32\n _ [4]byte\n Code int32", "type siginfo struct {\n _ structs.HostLayout\n Code int32\n _ [4]byte\n Signo int32"},
			{"Size uint32\n _ [4]byte\n MntID", "Size uint32\n _ [12]byte\n MntID"},
		}, want: []string{
			"zsys_linux_amd64.go:", "invalid argument: index 8 out of bounds",
			"nsfsFileHandle has 24 bytes, in C it has 16",
			"nsfsFileHandle.NSInum is 1 of 8 bytes",
			"siginfo.Signo is 1 of 4 bytes signed at 8",
			"siginfo.Code is 1 of 4 bytes signed at 0",
			"mntIDReq has 40 bytes, in C it has 32",
			"mntIDReq.MntID is 1 of 8 bytes unsigned at 16",
		}},
		{name: "assertions", edits: []edit{
			{"pidfdInfo{})-88", "pidfdInfo{})-87"},
			{"pidfdInfo{}.PPID)-24", "pidfdInfo{}.PPID)-28"},
		}, want: []string{
			"zsys_linux_amd64.go:", "invalid argument: index 1 out of bounds",
			"unsafe.Offsetof(pidfdInfo{}.PPID) - 28 (constant -4 of type uintptr) overflows",
		}},
		{name: "a constant that nothing proves", edits: []edit{
			{"import ( \"structs\"", "import ( \"golang.org/x/sys/unix\"; \"structs\""},
			{"type fsuuid2 struct", "const stray = unix.SYS_REBOOT; type fsuuid2 struct"},
		}, want: []string{"unix.SYS_REBOOT is used at zsys_linux_amd64.go:"}, only: true},
		{name: "no Go", edits: []edit{{"type fsuuid2 struct {", "type fsuuid2 strict {"}}, want: []string{"zsys_linux_amd64.go:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := committed
			for _, e := range tt.edits {
				re := regexp.MustCompile(strings.ReplaceAll(regexp.QuoteMeta(e.old), " ", `\s+`))
				if n := len(re.FindAll(text, -1)); n != 1 {
					t.Fatalf("%q is in the file %d times", e.old, n)
				}
				text = re.ReplaceAllLiteral(text, []byte(e.new))
			}
			l, err := load("..", goarch, map[string][]byte{rootFile(goarch): text})
			if err != nil {
				t.Fatal(err)
			}
			l.newest = newest
			got, _ := l.prove(v)
			mustName(t, got, tt.want...)
			if tt.only && len(got) != len(tt.want) {
				t.Errorf("got %d differences, want %d:\n%s", len(got), len(tt.want), strings.Join(got, "\n"))
			}
		})
	}
}

// mustName fails unless each text is part of a difference.
func mustName(t *testing.T, got []string, want ...string) {
	t.Helper()
	all := strings.Join(got, "\n")
	for _, w := range want {
		if !strings.Contains(all, w) {
			t.Errorf("%q is not named in:\n%s", w, all)
		}
	}
}

// What golang.org/x/sys/unix has is compared too, and it has a good deal.
func TestCompareXSys(t *testing.T) {
	l := loadRoot(t, "amd64")
	good := committedValues(t, "amd64")
	if d := l.compare(good); d != nil {
		t.Fatal(d)
	}
	pid := structs[1]
	if pid.XSys != "PidfdInfo" {
		t.Fatalf("the second struct is %s", pid.C)
	}
	for _, tt := range []struct {
		name string
		expr string
		val  value
		want []string
	}{
		{"constant", "XATTR_REPLACE", value{bits: 3},
			[]string{"XATTR_REPLACE is 0x2, in C it is 0x3", "XATTR_REPLACE is 0x2 in golang.org/x/sys/unix v"}},
		{"unexported constant", "PIDFD_GET_UTS_NAMESPACE", value{bits: 3},
			[]string{"_PIDFD_GET_UTS_NAMESPACE is 0xff0a, in C it is 0x3", "\nPIDFD_GET_UTS_NAMESPACE is 0xff0a in golang.org/x/sys/unix v"}},
		{"offset", pid.offsetExpr(pid.Fields[2]), value{bits: 20},
			[]string{"pidfdInfo.PID is 1 of 4 bytes unsigned at 16, in C", "PidfdInfo.Pid is 1 of 4 bytes unsigned at 16 in golang.org/x/sys/unix"}},
		{"size", pid.sizeExpr(), value{bits: 96},
			[]string{"pidfdInfo has 88 bytes, in C it has 96", "PidfdInfo has 88 bytes in golang.org/x/sys/unix"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := maps.Clone(good)
			if v.at(tt.expr) == tt.val {
				t.Fatalf("%s is no change", tt.expr)
			}
			v[tt.expr] = tt.val
			mustName(t, l.compare(v), tt.want...)
		})
	}

	// Where no field has the same name nothing is compared, and that is said.
	fields := structs[1].Fields
	structs[1].Fields = []field{{C: "mask", Go: "Unheard"}}
	mustName(t, l.compare(good), "PidfdInfo has no field of struct pidfd_info in golang.org/x/sys/unix")
	structs[1].Fields = fields

	both := 0
	for _, g := range groups {
		for _, c := range g.Consts {
			if _, ok := constantOf(l.newest, c.cName()); ok {
				both++
			}
		}
	}
	if both < 30 {
		t.Errorf("only %d constants are in %s", both, unixPath)
	}
}

func TestLoadErrors(t *testing.T) {
	empty := t.TempDir()
	if err := os.WriteFile(filepath.Join(empty, "go.mod"), []byte("module example.org/empty\n\ngo 1.26\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(empty, "p.go"), []byte("package sysfd\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	got, _, err := prove(empty, "amd64", nil, committedValues(t, "amd64"))
	if err != nil {
		t.Fatal(err)
	}
	mustName(t, got, unixPath, "_PIDFD_GET_INFO is not in the package", "pidfdInfo is not in the package")

	if _, _, err := prove(filepath.Join(empty, "gone"), "amd64", nil, nil); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("error %v does not name the folder", err)
	}
}

func TestCompareLibc(t *testing.T) {
	kernel := committedValues(t, "arm")
	good := values{}
	for expr := range libcProbe().index {
		good[expr] = kernel.at(expr)
	}
	if len(good) < 10 {
		t.Errorf("only %d values are compared", len(good))
	}
	if d := compareLibc(kernel, good); d != nil {
		t.Error(d)
	}
	for expr := range good {
		v := maps.Clone(good)
		v[expr] = value{bits: 12345}
		d := compareLibc(kernel, v)
		if len(d) != 1 && expr != "MAX_HANDLE_SZ" || !strings.Contains(strings.Join(d, "\n"), expr+" is 0x3039 in the C library") {
			t.Errorf("%s: differences %q", expr, d)
		}
	}
}

// What is not asked for is no zero.
func TestNotAsked(t *testing.T) {
	defer func() {
		if r := recover(); r != "C was not asked for NO_SUCH" {
			t.Errorf("recovered %v", r)
		}
	}()
	values{"0": {}}.int("NO_SUCH")
}

func TestText(t *testing.T) {
	p := &probe{}
	p.include("linux/a.h")
	p.include("")
	p.include("linux/b.h")
	p.include("linux/a.h")
	p.want("X")
	p.want("Y + 1")
	p.want("X")
	text := p.text()
	for part, n := range map[string]int{"#include <linux/a.h>\n": 1, "#include": 2, "(X),": 1, "(Y + 1) < 0,": 1} {
		if got := bytes.Count(text, []byte(part)); got != n {
			t.Errorf("%q is %d times, not %d, in\n%s", part, got, n, text)
		}
	}
}
