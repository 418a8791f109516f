package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestValue(t *testing.T) {
	for _, tt := range []struct {
		v            value
		hex, decimal string
	}{
		{value{}, "0x0", "0"},
		{value{bits: 128}, "0x80", "128"},
		{value{bits: 0xc058ff0b}, "0xc058ff0b", "3227057931"},
		{value{bits: 1<<64 - 1}, "0xffffffffffffffff", "18446744073709551615"},
		{value{1<<64 - 1, true}, "-1", "-1"},
		{value{1<<64 - 10002, true}, "-10002", "-10002"},
		{value{1 << 63, true}, "-9223372036854775808", "-9223372036854775808"},
	} {
		if s := tt.v.String(); s != tt.hex {
			t.Errorf("%+v: %s, want %s", tt.v, s, tt.hex)
		}
		if s := tt.v.decimal(); s != tt.decimal {
			t.Errorf("%+v: %s, want %s in decimal", tt.v, s, tt.decimal)
		}
	}
}

// clang returns a C compiler for all targets.
func clang(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no clang here: what it writes is not read")
	return ""
}

// ports have each byte order with each word size.
var ports = []struct {
	target string
	order  elf.Data
	long   uint64
}{
	{"i386-linux-gnu", elf.ELFDATA2LSB, 4},
	{"mips-linux-gnu", elf.ELFDATA2MSB, 4},
	{"x86_64-linux-gnu", elf.ELFDATA2LSB, 8},
	{"s390x-linux-gnu", elf.ELFDATA2MSB, 8},
}

func TestRun(t *testing.T) {
	cc := clang(t)
	for _, port := range ports {
		t.Run(port.target, func(t *testing.T) {
			t.Parallel()
			p := &probe{decls: []string{
				"enum { SEVEN = 7, MINUS = -10002 };",
				"struct s { char c; long l; unsigned short a[3]; };",
			}}
			s := cstruct{C: "struct s", Fields: []field{{C: "c"}, {C: "l"}, {C: "a", Array: true}}}
			want := map[string]value{
				"0":                     {},
				"SEVEN":                 {bits: 7},
				"MINUS":                 {1<<64 - 10002, true},
				"-2147483647 - 1":       {1<<64 - 1<<31, true},
				"0x80000000":            {bits: 1 << 31},
				"~0ULL":                 {bits: 1<<64 - 1},
				"-1LL":                  {1<<64 - 1, true},
				"(3U << 30) | 0x58ff0b": {bits: 0xc058ff0b},
				"0x0102030405060708ULL": {bits: 0x0102030405060708},
				"sizeof(long)":          {bits: port.long},
			}
			for expr := range want {
				p.want(expr)
			}
			p.wantStruct(s)
			got, err := p.run(cc, port.target)
			if err != nil {
				t.Fatal(err)
			}
			for expr, w := range want {
				if got.at(expr) != w {
					t.Errorf("%s is %+v, want %+v", expr, got.at(expr), w)
				}
			}
			long := int(port.long)
			members, size := s.members(got)
			if size != 2*long+8 && size != 4*long {
				t.Errorf("%s has %d bytes", s.C, size)
			}
			if m, want := members["L"], (member{long, 1, long, true}); m != want {
				t.Errorf("l is %v, want %v", m, want)
			}
			if m, want := members["A"], (member{2 * long, 3, 2, false}); m != want {
				t.Errorf("a is %v, want %v", m, want)
			}
		})
	}
}

func TestRead(t *testing.T) {
	cc := clang(t)
	dir := t.TempDir()
	compile := func(target, text string) string {
		t.Helper()
		obj := filepath.Join(dir, target+".o")
		cmd := exec.Command(cc, "-target", target, "-x", "c", "-c", "-o", obj, "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", target, err, out)
		}
		return obj
	}
	p := &probe{}
	p.want("A")
	p.want("B")
	const negative = "const unsigned char sysfd_negative[] = { 0, 1 };\n"
	for _, port := range ports {
		obj := compile(port.target, "const char before[3] = { 1, 2, 3 };\n"+negative+
			"const unsigned long long sysfd_values[] = { 0x0102030405060708, -3 };\n")
		f, err := elf.Open(obj)
		if err != nil {
			t.Fatal(err)
		}
		if f.Data != port.order {
			t.Errorf("%s has byte order %v", port.target, f.Data)
		}
		f.Close()
		v, err := p.read(obj)
		if err != nil {
			t.Errorf("%s: %v", port.target, err)
		} else if v["A"] != (value{bits: 0x0102030405060708}) || v["B"] != (value{1<<64 - 3, true}) {
			t.Errorf("%s: %+v", port.target, v)
		}
	}

	for _, tt := range []struct{ name, text, err string }{
		{"no values", negative, "no symbol sysfd_values"},
		{"no signs", "const unsigned long long sysfd_values[] = { 1, 2 };", "no symbol sysfd_negative"},
		{"too few values", negative + "const unsigned long long sysfd_values[] = { 1 };", "sysfd_values: 16 bytes wanted"},
		{"values elsewhere", negative + "extern const unsigned long long sysfd_values[]; const void *x = sysfd_values;", "sysfd_values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if v, err := p.read(compile("x86_64-linux-gnu", tt.text)); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("values %v, error %v, want %q", v, err, tt.err)
			}
		})
	}
	text := filepath.Join(dir, "text.o")
	if err := os.WriteFile(text, []byte("no object file at all"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := p.read(text); err == nil {
		t.Error("a text was read as an object file")
	}
}

// What C does not know is named, and the headers are the given ones, whatever
// the environment says.
func TestRunHeaders(t *testing.T) {
	cc := clang(t)
	given, other := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{given: "#define X 1\n", other: "#define X 2\n"} {
		if err := os.WriteFile(filepath.Join(dir, "x.h"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CPATH", other)
	t.Setenv("C_INCLUDE_PATH", other)
	p := &probe{}
	p.include("x.h")
	p.want("X")
	if v, err := p.run(cc, "x86_64-linux-gnu", given); err != nil || v["X"] != (value{bits: 1}) {
		t.Errorf("values %v, error %v", v, err)
	}
	for _, tt := range []struct {
		name, include, expr, dir string
		target                   string
		want                     []string
	}{
		{"header of the environment", "x.h", "X", t.TempDir(), "mips-linux-gnu", []string{"x.h"}},
		{"header of the machine", "stdio.h", "1", given, "x86_64-linux-gnu", []string{"stdio.h"}},
		{"constant", "x.h", "NO_SUCH_NAME", given, "mips-linux-gnu", []string{"NO_SUCH_NAME"}},
		{"no constant", "x.h", "(int)rand()", given, "mips-linux-gnu", []string{"rand"}},
		{"folder", "x.h", "X", filepath.Join(given, "gone"), "", []string{"gone"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &probe{}
			p.include(tt.include)
			p.want(tt.expr)
			v, err := p.run(cc, tt.target, tt.dir)
			if err == nil {
				t.Fatalf("values %v", v)
			}
			mustName(t, []string{err.Error()}, append(tt.want, tt.target)...)
		})
	}
	if _, err := p.run("no-such-compiler", "mips-linux-gnu", given); err == nil || !strings.Contains(err.Error(), "no-such-compiler") {
		t.Errorf("error %v does not name the compiler", err)
	}
}
