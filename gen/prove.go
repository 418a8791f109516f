package main

import (
	"fmt"
	goconstant "go/constant"
	"go/types"
	"maps"
	"os"
	"slices"
	"strings"

	_ "golang.org/x/sys/unix" // the second witness is of the version that go.mod has for it
	"golang.org/x/tools/go/packages"
)

const unixPath = "golang.org/x/sys/unix"

// prove loads the root package for one architecture with overlay laid over its
// files, and returns what is wrong with it, what differs from what C says, and
// what golang.org/x/sys/unix has otherwise than C. It also returns what the package
// uses of that.
func prove(root, goarch string, overlay map[string][]byte, v values) (differences []string, u *uses, err error) {
	l, err := load(root, goarch, overlay)
	if err != nil {
		return nil, nil, err
	}
	if l.newest, err = loadNewest(goarch); err != nil {
		return nil, nil, err
	}
	differences, u = l.prove(v)
	return differences, u, nil
}

func (l loaded) prove(v values) (differences []string, u *uses) {
	for _, p := range []*packages.Package{l.sysfd, l.unix, l.newest} {
		for _, e := range p.Errors[:min(len(p.Errors), 10)] {
			differences = append(differences, e.Error())
		}
	}
	u = usesOf(l.sysfd)
	return slices.Concat(differences, l.compare(v), l.compareTaken(v), u.unproved()), u
}

// loaded are the packages that have to agree with C.
type loaded struct {
	sysfd  *packages.Package // the root package
	unix   *packages.Package // golang.org/x/sys/unix, of the version that the root module requires
	newest *packages.Package // the same, of the version that this module requires: a second witness
}

// load returns all but the second witness.
func load(root, goarch string, overlay map[string][]byte) (l loaded, err error) {
	pkgs, err := packages.Load(loadConfig(root, goarch, overlay), ".", unixPath)
	if err != nil {
		return l, fmt.Errorf("%s: %w", root, err)
	}
	for _, p := range pkgs {
		if p.PkgPath == unixPath {
			l.unix = p
		} else {
			l.sysfd = p
		}
	}
	if l.sysfd == nil || l.unix == nil {
		return l, fmt.Errorf("%s and %s were not both found", root, unixPath)
	}
	return l, nil
}

// loadNewest is to be called in the folder of this module.
func loadNewest(goarch string) (*packages.Package, error) {
	pkgs, err := packages.Load(loadConfig(".", goarch, nil), unixPath)
	if err != nil {
		return nil, err
	}
	if len(pkgs) != 1 {
		return nil, fmt.Errorf("%d packages are %s", len(pkgs), unixPath)
	}
	return pkgs[0], nil
}

func loadConfig(dir, goarch string, overlay map[string][]byte) *packages.Config {
	return &packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedDeps | packages.NeedModule |
			packages.NeedTypes | packages.NeedTypesInfo | packages.NeedTypesSizes | packages.NeedSyntax,
		Dir:     dir,
		Env:     append(os.Environ(), "GOOS=linux", "GOARCH="+goarch, "CGO_ENABLED=0", "GOWORK=off"),
		Overlay: overlay,
	}
}

// witness is how messages name a package of golang.org/x/sys/unix.
func witness(p *packages.Package) string {
	if p.Module == nil {
		return unixPath
	}
	return unixPath + " " + p.Module.Version
}

// compare returns the differences between what the package has of its own and C, and
// what the second witness has otherwise than C.
func (l loaded) compare(v values) (differences []string) {
	differ := func(format string, args ...any) {
		differences = append(differences, fmt.Sprintf(format, args...))
	}
	for _, g := range groups {
		for _, c := range g.Consts {
			want := v.at(c.expr())
			got, ok := constantOf(l.sysfd, c.Name)
			switch {
			case !ok:
				differ("%s is not in the package", c.Name)
			case got != want:
				differ("%s is %s, in C it is %s", c.Name, got, want)
			}
			d, _ := differsXSys(l.newest, c.cName(), want)
			differences = append(differences, d...)
		}
	}
	for _, s := range structs {
		want, wantSize := s.members(v)
		got, gotSize, ok := structOf(l.sysfd, s.Go)
		if !ok {
			differ("%s is not in the package", s.Go)
			continue
		}
		if gotSize != wantSize {
			differ("%s has %d bytes, in C it has %d", s.Go, gotSize, wantSize)
		}
		for _, f := range s.Fields {
			name := f.goName()
			if m, ok := got[name]; !ok {
				differ("%s.%s is not in the package", s.Go, name)
			} else if m != want[name] {
				differ("%s.%s is %v, in C it is %v", s.Go, name, m, want[name])
			}
		}
		if s.XSys != "" {
			differences = append(differences, s.compareXSys(l.newest, v, false)...)
		}
	}
	return differences
}

// compareTaken returns what differs in what the package takes from
// golang.org/x/sys/unix. Programs are linked with either version or one between.
func (l loaded) compareTaken(v values) (differences []string) {
	for _, p := range []*packages.Package{l.unix, l.newest} {
		for _, g := range taken {
			for _, c := range g.Consts {
				d, ok := differsXSys(p, c.Name, v.at(c.expr()))
				if !ok {
					d = []string{c.Name + " is not in " + witness(p)}
				}
				differences = append(differences, d...)
			}
		}
		for _, s := range takenStructs {
			differences = append(differences, s.compareXSys(p, v, true)...)
		}
	}
	return differences
}

// differsXSys returns how a constant differs in p, a golang.org/x/sys/unix, if it is there.
func differsXSys(p *packages.Package, name string, want value) (differences []string, ok bool) {
	got, ok := constantOf(p, name)
	if ok && got != want {
		differences = append(differences, fmt.Sprintf("%s is %s in %s, in C it is %s", name, got, witness(p), want))
	}
	return differences, ok
}

// compareXSys returns how s differs in p, a golang.org/x/sys/unix, from C. With all,
// both must have the same fields.
func (s cstruct) compareXSys(p *packages.Package, v values, all bool) (differences []string) {
	differ := func(format string, args ...any) {
		differences = append(differences, fmt.Sprintf(format, args...))
	}
	want, wantSize := s.members(v)
	theirs, theirSize, ok := structOf(p, s.XSys)
	if !ok {
		return []string{s.XSys + " is not in " + witness(p)}
	}
	if theirSize != wantSize {
		differ("%s has %d bytes in %s, in C it has %d", s.XSys, theirSize, witness(p), wantSize)
	}
	if all {
		for _, name := range slices.Sorted(maps.Keys(theirs)) {
			if !slices.ContainsFunc(s.Fields, func(f field) bool { return f.isXSys(name) }) {
				differ("%s.%s is in %s, and not in gen/abi.go", s.XSys, name, witness(p))
			}
		}
	}
	shared := 0
	for _, f := range s.Fields {
		there := false
		for name, m := range theirs {
			if !f.isXSys(name) {
				continue
			}
			if there = true; m != want[f.goName()] {
				differ("%s.%s is %v in %s, in C it is %v", s.XSys, name, m, witness(p), want[f.goName()])
			}
		}
		if there {
			shared++
		} else if all {
			differ("%s has no field %s in %s", s.XSys, f.goName(), witness(p))
		}
	}
	if shared == 0 {
		differ("%s has no field of %s in %s", s.XSys, s.C, witness(p))
	}
	return differences
}

// isXSys tells whether golang.org/x/sys/unix has f by that name. It spells fields as
// Ruid or Exit_code.
func (f field) isXSys(name string) bool {
	return strings.EqualFold(strings.ReplaceAll(name, "_", ""), f.goName())
}

// constantOf returns the value of an integer constant.
func constantOf(p *packages.Package, name string) (value, bool) {
	c, ok := p.Types.Scope().Lookup(name).(*types.Const)
	if !ok {
		return value{}, false
	}
	val := goconstant.ToInt(c.Val())
	if u, exact := goconstant.Uint64Val(val); exact {
		return value{bits: u}, true
	}
	i, exact := goconstant.Int64Val(val)
	return value{uint64(i), true}, exact
}

// A member is how a field lies in a struct, be it of C or of Go.
type member struct {
	offset, count, size int // size is that of an element
	signed              bool
}

func (m member) String() string {
	sign := "unsigned"
	if m.signed {
		sign = "signed"
	}
	return fmt.Sprintf("%d of %d bytes %s at %d", m.count, m.size, sign, m.offset)
}

// members returns how C has the fields of s, by their Go names, and how many
// bytes of it there are for Go.
func (s cstruct) members(v values) (members map[string]member, size int) {
	members, size = map[string]member{}, v.int(s.sizeExpr())
	for _, f := range s.Fields {
		m := member{v.int(s.offsetExpr(f)), 1, v.int(s.elemSizeExpr(f)), v.int(s.signedExpr(f)) != 0}
		if n := s.countExpr(f); n != "" {
			m.count = v.int(n)
		}
		if f.Flex != "" {
			size = max(size, m.offset+m.count*m.size)
		}
		members[f.goName()] = m
	}
	return members, size
}

// structOf returns how Go has the named fields of a struct, and its size.
func structOf(p *packages.Package, name string) (members map[string]member, size int, ok bool) {
	obj := p.Types.Scope().Lookup(name)
	if obj == nil {
		return nil, 0, false
	}
	t, ok := obj.Type().Underlying().(*types.Struct)
	if !ok {
		return nil, 0, false
	}
	fields := slices.Collect(t.Fields())
	members = map[string]member{}
	for i, at := range p.TypesSizes.Offsetsof(fields) {
		if fields[i].Name() == "_" {
			continue
		}
		elem, count := fields[i].Type().Underlying(), 1
		if a, ok := elem.(*types.Array); ok {
			elem, count = a.Elem().Underlying(), int(a.Len())
		}
		b, _ := elem.(*types.Basic)
		members[fields[i].Name()] = member{int(at), count, int(p.TypesSizes.Sizeof(elem)), b != nil && b.Info()&types.IsUnsigned == 0}
	}
	return members, int(p.TypesSizes.Sizeof(t)), true
}

// compareLibc returns what the C library declares otherwise than the kernel.
func compareLibc(kernel, libc values) (differences []string) {
	check := func(name string, want, got value) {
		if got != want {
			differences = append(differences, fmt.Sprintf("%s is %s in the C library's <fcntl.h>, in the kernel it is %s", name, got, want))
		}
	}
	for _, g := range groups {
		for _, c := range g.Consts {
			if c.Libc {
				check(c.cName(), kernel.at(c.expr()), libc.at(c.cName()))
			}
		}
	}
	for _, s := range structs {
		if !s.Libc {
			continue
		}
		p := &probe{}
		p.wantStruct(s)
		for _, expr := range p.exprs {
			check(expr, kernel.at(expr), libc.at(expr))
		}
	}
	return differences
}
