package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"slices"
	"strings"
	"testing"
)

// at is what C says of one field.
type at struct {
	offset, size, count int
	signed              bool
}

// answer is what C would answer about s.
func answer(s cstruct, size int, fields ...at) values {
	number := func(n int) value { return value{bits: uint64(n)} }
	v := values{s.sizeExpr(): number(size), s.fitsExpr(): number(1)}
	for i, f := range s.Fields {
		v[s.offsetExpr(f)] = number(fields[i].offset)
		v[s.elemSizeExpr(f)] = number(fields[i].size)
		v[s.signedExpr(f)] = number(0)
		if fields[i].signed {
			v[s.signedExpr(f)] = number(1)
		}
		if n := s.countExpr(f); n != "" {
			v[n] = number(fields[i].count)
		}
	}
	return v
}

func TestLayout(t *testing.T) {
	named := func(names ...string) (s cstruct) {
		s = cstruct{Go: "x", C: "struct x"}
		for _, n := range names {
			s.Fields = append(s.Fields, field{C: n})
		}
		return s
	}
	array, flex, part := named("n", "data"), named("n", "data"), named("a", "b")
	array.Fields[1].Array = true
	flex.Fields[1].Flex = "MAX"
	part.Size = "X_SIZE_VER0"
	for _, tt := range []struct {
		name   string
		goarch string
		s      cstruct
		size   int
		fields []at
		want   string
		err    string
	}{
		{name: "nothing between", goarch: "amd64", s: named("a", "b"), size: 8,
			fields: []at{{0, 4, 1, false}, {4, 4, 1, true}}, want: "A uint32@0 B int32@4 =8"},
		{name: "each size", goarch: "amd64", s: named("a", "b", "c", "d"), size: 16,
			fields: []at{{0, 1, 1, true}, {2, 2, 1, false}, {4, 4, 1, true}, {8, 8, 1, true}},
			want:   "A int8@0 _ [1]byte@1 B uint16@2 C int32@4 D int64@8 =16"},
		{name: "padding at the start", goarch: "amd64", s: named("a"), size: 16,
			fields: []at{{8, 8, 1, false}}, want: "_ [8]byte@0 A uint64@8 =16"},
		{name: "padding in the middle", goarch: "amd64", s: named("a", "b"), size: 16,
			fields: []at{{0, 4, 1, false}, {8, 8, 1, false}}, want: "A uint32@0 _ [4]byte@4 B uint64@8 =16"},
		{name: "padding at the end", goarch: "amd64", s: named("a", "b"), size: 16,
			fields: []at{{0, 8, 1, false}, {8, 4, 1, false}}, want: "A uint64@0 B uint32@8 _ [4]byte@12 =16"},
		{name: "unused end", goarch: "arm", s: named("a"), size: 512,
			fields: []at{{0, 4, 1, false}}, want: "A uint32@0 _ [508]byte@4 =512"},
		{name: "mips order", goarch: "mips", s: named("signo", "errno", "code", "pid"), size: 16,
			fields: []at{{0, 4, 1, true}, {8, 4, 1, true}, {4, 4, 1, true}, {12, 4, 1, true}},
			want:   "Signo int32@0 Code int32@4 Errno int32@8 Pid int32@12 =16"},
		{name: "array", goarch: "amd64", s: array, size: 17,
			fields: []at{{0, 1, 1, false}, {1, 1, 16, false}}, want: "N uint8@0 Data [16]uint8@1 =17"},
		{name: "array of many bytes", goarch: "amd64", s: array, size: 12,
			fields: []at{{0, 4, 1, false}, {4, 2, 3, true}}, want: "N uint32@0 Data [3]int16@4 _ [2]byte@10 =12"},
		{name: "flexible array", goarch: "amd64", s: flex, size: 8,
			fields: []at{{0, 4, 1, false}, {8, 1, 128, false}}, want: "N uint32@0 _ [4]byte@4 Data [128]uint8@8 =136"},
		{name: "part of a struct", goarch: "386", s: part, size: 8,
			fields: []at{{0, 4, 1, false}, {4, 4, 1, false}}, want: "A uint32@0 B uint32@4 =8"},
		// Go aligns 64 bits to 4 bytes on each port of 32 bits, C on 386 alone.
		{name: "64 bits at 4", goarch: "386", s: named("a", "b"), size: 12,
			fields: []at{{0, 4, 1, false}, {4, 8, 1, false}}, want: "A uint32@0 B uint64@4 =12"},
		{name: "64 bits at 8", goarch: "arm", s: named("a", "b", "c"), size: 24,
			fields: []at{{0, 4, 1, false}, {8, 8, 1, false}, {16, 4, 1, false}},
			want:   "A uint32@0 _ [4]byte@4 B uint64@8 C uint32@16 _ [4]byte@20 =24"},
		{name: "64 bits at 4", goarch: "arm", s: named("a", "b"), size: 12,
			fields: []at{{0, 4, 1, false}, {4, 8, 1, false}}, want: "A uint32@0 B uint64@4 =12"},

		{name: "64 bits at 4", goarch: "arm64", s: named("a", "b"), size: 12,
			fields: []at{{0, 4, 1, false}, {4, 8, 1, false}}, err: "struct x.b is at offset 4, where Go has no uint64"},
		{name: "64 bits at 2", goarch: "arm", s: named("a", "b"), size: 10,
			fields: []at{{0, 2, 1, false}, {2, 8, 1, false}}, err: "struct x.b is at offset 2, where Go has no uint64"},
		{name: "16 bits at 1", goarch: "amd64", s: named("a", "b"), size: 3,
			fields: []at{{0, 1, 1, false}, {1, 2, 1, true}}, err: "struct x.b is at offset 1, where Go has no int16"},
		{name: "overlap", goarch: "amd64", s: named("a", "b"), size: 8,
			fields: []at{{0, 8, 1, false}, {4, 4, 1, false}}, err: "struct x.b is at offset 4, before the end"},
		{name: "union", goarch: "amd64", s: named("a", "b"), size: 8,
			fields: []at{{0, 4, 1, false}, {0, 4, 1, false}}, err: "struct x.b is at offset 0, before the end"},
		{name: "overlap of an array", goarch: "mips", s: named("b", "a"), size: 8,
			fields: []at{{4, 4, 1, false}, {0, 8, 1, false}}, err: "struct x.b is at offset 4, before the end"},
		{name: "odd size", goarch: "amd64", s: named("a"), size: 3,
			fields: []at{{0, 3, 1, false}}, err: "struct x.a has elements of 3 bytes"},
		{name: "size of a struct", goarch: "amd64", s: named("a"), size: 16,
			fields: []at{{0, 16, 1, false}}, err: "struct x.a has elements of 16 bytes"},
		{name: "beyond the part", goarch: "amd64", s: part, size: 8,
			fields: []at{{0, 4, 1, false}, {8, 4, 1, false}}, err: "struct x.b ends at 12, beyond the 8 bytes"},
		{name: "packed", goarch: "amd64", s: named("a", "b"), size: 12,
			fields: []at{{0, 8, 1, false}, {8, 4, 1, false}}, err: "struct x has 12 bytes, which Go would round up"},
		{name: "packed", goarch: "386", s: named("a", "b"), size: 12,
			fields: []at{{0, 8, 1, false}, {8, 4, 1, false}}, want: "A uint64@0 B uint32@8 =12"},
	} {
		t.Run(tt.name+" "+tt.goarch, func(t *testing.T) {
			fields, size, err := tt.s.layout(tt.goarch, answer(tt.s, tt.size, tt.fields...))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range fields {
				fmt.Fprintf(&got, "%s %s@%d ", f.name, f.typ, f.offset)
			}
			fmt.Fprintf(&got, "=%d", size)
			if got.String() != tt.want {
				t.Errorf("got  %s\nwant %s", &got, tt.want)
			}
			goAgrees(t, tt.goarch, fields, size)
		})
	}
	t.Run("smaller than its part", func(t *testing.T) {
		v := answer(part, 8, at{0, 4, 1, false}, at{4, 4, 1, false})
		v[part.fitsExpr()] = value{}
		if _, _, err := part.layout("amd64", v); err == nil || err.Error() != "struct x is smaller than X_SIZE_VER0" {
			t.Error(err)
		}
	})
}

// goAgrees fails where Go's compiler would lay the fields out otherwise.
func goAgrees(t *testing.T, goarch string, fields []goField, size int) {
	t.Helper()
	src := "package p\ntype x struct {\n"
	for _, f := range fields {
		src += f.name + " " + f.typ + "\n"
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "x.go", src+"}\n", 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := (&types.Config{Importer: importer.Default()}).Check("p", fset, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sizes, x := types.SizesFor("gc", goarch), pkg.Scope().Lookup("x").Type().Underlying().(*types.Struct)
	for i, offset := range sizes.Offsetsof(slices.Collect(x.Fields())) {
		if int(offset) != fields[i].offset {
			t.Errorf("Go has field %d at %d, want %d", i, offset, fields[i].offset)
		}
	}
	if n := sizes.Sizeof(x); int(n) != size {
		t.Errorf("Go needs %d bytes, want %d", n, size)
	}
}

func TestGoName(t *testing.T) {
	for f, want := range map[field]string{
		{C: "pid"}:                        "Pid",
		{C: "handle_bytes"}:               "HandleBytes",
		{C: "sb_dev_major"}:               "SbDevMajor",
		{C: "f_handle"}:                   "FHandle",
		{C: "spare2"}:                     "Spare2",
		{C: "_pad"}:                       "Pad",
		{C: "a__b_"}:                      "AB",
		{C: "cgroupid", Go: "CgroupID"}:   "CgroupID",
		{C: "_s._u._pid", Go: "PID"}:      "PID",
		{C: "data", Flex: "MAX_DATA_SZ"}:  "Data",
		{C: "uuid", Go: "U", Array: true}: "U",
	} {
		if got := f.goName(); got != want {
			t.Errorf("%+v: %s, want %s", f, got, want)
		}
	}
}

func TestSources(t *testing.T) {
	own := func(files ...string) (consts []constant) {
		for _, f := range files {
			consts = append(consts, constant{Internal: f})
		}
		return consts
	}
	for _, tt := range []struct {
		g    group
		want []string
	}{
		{group{}, nil},
		{group{Header: "linux/a.h", Consts: own("", "")}, []string{"<linux/a.h>"}},
		{group{Consts: own("fs/b.h", "fs/b.h")}, []string{"the kernel's fs/b.h"}},
		{group{Header: "linux/a.h", Consts: own("fs/c.h", "", "fs/b.h", "fs/c.h")},
			[]string{"<linux/a.h>", "the kernel's fs/c.h", "the kernel's fs/b.h"}},
	} {
		if got := tt.g.sources(); !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestGenerated(t *testing.T) {
	for text, want := range map[string]bool{
		firstLine("7.2.13") + "\n\npackage sysfd\n": true,
		firstLine("7.2.13"):                         true,
		"":                                          false,
		"package sysfd\n":                           false,
		"// Code generated by hand; DO NOT EDIT.\n":             false,
		"\n" + firstLine("7.2.13"):                              false,
		firstLinePrefix + "7.2.13\npackage p" + firstLineSuffix: false,
	} {
		if got := generated([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// From what Go reads in a committed file comes that file again, byte for byte.
func TestEmit(t *testing.T) {
	for _, goarch := range []string{"386", "amd64", "mips"} {
		t.Run(goarch, func(t *testing.T) {
			t.Parallel()
			name := rootFile(goarch)
			committed, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text, err := emit(goarch, committedValues(t, goarch))
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := bytes.Cut(text, []byte("\n"))
			if want := "// Code generated by github.com/sysfd/sysfd/gen from Linux "; !bytes.HasPrefix(first, []byte(want)) {
				t.Errorf("first line %q", first)
			}
			if nice, err := format.Source(text); err != nil || !bytes.Equal(nice, text) {
				t.Errorf("not as gofmt has it: %v", err)
			}
			got, want := strings.Split(string(text), "\n"), strings.Split(string(committed), "\n")
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Fatalf("%s:%d: emitted %q, committed is %q", name, i+1, got[i], want[i])
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %d lines emitted, %d are committed", name, len(got), len(want))
			}
		})
	}
	t.Run("bad struct", func(t *testing.T) {
		v := committedValues(t, "amd64")
		s := structs[0]
		v[s.offsetExpr(s.Fields[1])] = value{bits: 5}
		if _, err := emit("amd64", v); err == nil || !strings.Contains(err.Error(), s.C+"."+s.Fields[1].C) {
			t.Errorf("error %v does not name the field", err)
		}
	})
}
