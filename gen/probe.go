package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A probe is a C text whose object file holds the values of expressions.
type probe struct {
	includes []string
	decls    []string
	exprs    []string
	index    map[string]int
}

// want asks for the value of a C expression.
func (p *probe) want(expr string) {
	if p.index == nil {
		p.index = map[string]int{}
	}
	if _, ok := p.index[expr]; !ok {
		p.index[expr] = len(p.exprs)
		p.exprs = append(p.exprs, expr)
	}
}

func (p *probe) include(header string) {
	if header != "" {
		p.includes = append(p.includes, "#include <"+header+">")
	}
}

// The two arrays that the text defines. Values are modulo 2^64; which of them
// are negative is in the second one.
const (
	valuesSymbol   = "sysfd_values"
	negativeSymbol = "sysfd_negative"
)

func (p *probe) text() []byte {
	var b bytes.Buffer
	seen := map[string]bool{}
	for _, line := range append(p.includes, p.decls...) {
		if !seen[line] {
			fmt.Fprintln(&b, line)
		}
		seen[line] = true
	}
	fmt.Fprintf(&b, "const unsigned long long %s[] = {\n", valuesSymbol)
	for _, e := range p.exprs {
		fmt.Fprintf(&b, "\t(unsigned long long)(%s),\n", e)
	}
	fmt.Fprintf(&b, "};\nconst unsigned char %s[] = {\n", negativeSymbol)
	for _, e := range p.exprs {
		fmt.Fprintf(&b, "\t(%s) < 0,\n", e)
	}
	fmt.Fprintln(&b, "};")
	return b.Bytes()
}

// A value is a C integer constant.
type value struct {
	bits     uint64
	negative bool
}

// String spells v for Go: in hexadecimal, but for what is negative.
func (v value) String() string {
	if v.negative {
		return v.decimal()
	}
	return fmt.Sprintf("%#x", v.bits)
}

func (v value) decimal() string {
	if v.negative {
		return fmt.Sprint(int64(v.bits))
	}
	return fmt.Sprint(v.bits)
}

// values are what a C compiler answered for one architecture, by expression.
type values map[string]value

// at returns what C answered. An expression that was not asked for is a
// mistake in this program, and no zero.
func (v values) at(expr string) value {
	val, ok := v[expr]
	if !ok {
		panic("C was not asked for " + expr)
	}
	return val
}

// int is for what is known to be small: sizes, offsets, counts.
func (v values) int(expr string) int { return int(v.at(expr).bits) }

// run compiles the text for one architecture against the headers in dirs and
// nothing else, and reads the values from the object file.
func (p *probe) run(clang, target string, dirs ...string) (values, error) {
	tmp, err := os.MkdirTemp("", "sysfd-gen-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	obj := filepath.Join(tmp, "probe.o")
	args := []string{"-target", target, "--no-default-config", "-nostdlibinc", "-ffreestanding", "-w", "-x", "c", "-c", "-o", obj, "-"}
	for _, d := range dirs {
		if _, err := os.Stat(d); err != nil {
			return nil, err
		}
		args = append(args, "-isystem", d)
	}
	cmd := exec.Command(clang, args...)
	cmd.Stdin = bytes.NewReader(p.text())
	cmd.Env = append(os.Environ(), "CPATH=", "C_INCLUDE_PATH=") // they would come before dirs
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s -target %s: %v\n%s", clang, target, err, out)
	}
	return p.read(obj)
}

// read takes the values out of an object file.
func (p *probe) read(obj string) (values, error) {
	f, err := elf.Open(obj)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := symbolData(f, valuesSymbol, 8*len(p.exprs))
	if err != nil {
		return nil, err
	}
	neg, err := symbolData(f, negativeSymbol, len(p.exprs))
	if err != nil {
		return nil, err
	}
	v := values{}
	for expr, i := range p.index {
		v[expr] = value{f.ByteOrder.Uint64(raw[8*i:]), neg[i] != 0}
	}
	return v, nil
}

// symbolData returns the initial contents of a variable.
func symbolData(f *elf.File, name string, size int) ([]byte, error) {
	syms, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	for _, s := range syms {
		if s.Name != name {
			continue
		}
		if int(s.Section) >= len(f.Sections) {
			return nil, fmt.Errorf("%s is in no section", name)
		}
		data, err := f.Sections[s.Section].Data()
		if err != nil {
			return nil, err
		}
		// In an object file a symbol's value is its offset in the section.
		if s.Value+uint64(size) > uint64(len(data)) {
			return nil, fmt.Errorf("%s: %d bytes wanted, %d are there", name, size, len(data)-int(s.Value))
		}
		return data[s.Value:][:size], nil
	}
	return nil, fmt.Errorf("no symbol %s", name)
}

// What is asked of C. Each has one spelling, used for the question and for the answer.

func (c constant) expr() string {
	if c.Expr != "" {
		return c.Expr
	}
	if name, ok := strings.CutPrefix(c.Name, "SYS_"); ok {
		return "__NR_" + strings.ToLower(name)
	}
	return c.cName()
}

func (c constant) cName() string { return strings.TrimPrefix(c.Name, "_") }

func (s cstruct) sizeExpr() string {
	if s.Size != "" {
		return s.Size
	}
	return "sizeof(" + s.C + ")"
}

// fitsExpr is 1 where the part of the struct that is used is there.
func (s cstruct) fitsExpr() string { return "sizeof(" + s.C + ") >= " + s.sizeExpr() }

func (s cstruct) offsetExpr(f field) string {
	return "__builtin_offsetof(" + s.C + ", " + f.C + ")"
}

func (s cstruct) member(f field) string { return "((" + s.C + " *)0)->" + f.C }

func (s cstruct) elem(f field) string {
	if f.Array || f.Flex != "" {
		return s.member(f) + "[0]"
	}
	return s.member(f)
}

func (s cstruct) elemSizeExpr(f field) string { return "sizeof(" + s.elem(f) + ")" }

func (s cstruct) signedExpr(f field) string { return "(__typeof__(" + s.elem(f) + "))-1 < 0" }

// countExpr is the number of elements, "" for what is no array.
func (s cstruct) countExpr(f field) string {
	switch {
	case f.Flex != "":
		return f.Flex
	case f.Array:
		return "sizeof(" + s.member(f) + ") / sizeof(" + s.elem(f) + ")"
	}
	return ""
}

// wantStruct asks for all that is to be known of s.
func (p *probe) wantStruct(s cstruct) {
	p.want(s.sizeExpr())
	p.want(s.fitsExpr())
	for _, f := range s.Fields {
		p.want(s.offsetExpr(f))
		p.want(s.elemSizeExpr(f))
		p.want(s.signedExpr(f))
		if n := s.countExpr(f); n != "" {
			p.want(n)
		}
	}
}

const (
	versionMajor = "LINUX_VERSION_MAJOR"
	versionMinor = "LINUX_VERSION_PATCHLEVEL"
	versionPatch = "LINUX_VERSION_SUBLEVEL"
)

// kernelProbe asks the kernel's headers for everything in the tables.
func kernelProbe() *probe {
	p := &probe{}
	for _, h := range []string{"linux/types.h", "linux/ioctl.h", "asm/unistd.h", "linux/version.h"} {
		p.include(h)
	}
	for _, v := range []string{versionMajor, versionMinor, versionPatch} {
		p.want(v)
	}
	for _, g := range slices.Concat(groups, taken) {
		p.include(g.Header)
		if g.Decl != "" {
			p.decls = append(p.decls, g.Decl)
		}
		for _, c := range g.Consts {
			if c.Internal != "" {
				p.decls = append(p.decls, "enum { "+c.cName()+" = "+c.Expr+" }; /* "+c.Internal+" */")
			}
			p.want(c.expr())
		}
	}
	for _, s := range slices.Concat(structs, takenStructs) {
		p.include(s.Header)
		if s.Decl != "" {
			p.decls = append(p.decls, s.Decl+" /* "+s.Source+" */")
		}
		p.wantStruct(s)
	}
	return p
}

// libcProbe asks the C library's <fcntl.h> for what it declares again.
func libcProbe() *probe {
	p := &probe{includes: []string{"#define _GNU_SOURCE"}}
	p.include("fcntl.h")
	for _, g := range groups {
		for _, c := range g.Consts {
			if c.Libc {
				p.want(c.cName())
			}
		}
	}
	for _, s := range structs {
		if s.Libc {
			p.wantStruct(s)
		}
	}
	return p
}
