package main

import (
	"fmt"
	goconstant "go/constant"
	"go/types"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

const unixPath = "golang.org/x/sys/unix"

// prove loads the root package for one architecture with overlay laid over its
// files, and returns what is wrong with it, what differs from what C says, and
// what golang.org/x/sys/unix has otherwise than C.
func prove(root, goarch string, overlay map[string][]byte, v values) (differences []string, err error) {
	sysfd, unix, err := load(root, goarch, overlay)
	if err != nil {
		return nil, err
	}
	for _, p := range []*packages.Package{sysfd, unix} {
		for _, e := range p.Errors[:min(len(p.Errors), 10)] {
			differences = append(differences, e.Error())
		}
	}
	return append(differences, compare(sysfd, unix, v)...), nil
}

// load returns the root package and golang.org/x/sys/unix, of the version that
// the root module requires.
func load(root, goarch string, overlay map[string][]byte) (sysfd, unix *packages.Package, err error) {
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedDeps |
			packages.NeedTypes | packages.NeedTypesInfo | packages.NeedTypesSizes | packages.NeedSyntax,
		Dir:     root,
		Env:     append(os.Environ(), "GOOS=linux", "GOARCH="+goarch, "CGO_ENABLED=0", "GOWORK=off"),
		Overlay: overlay,
	}, ".", unixPath)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", root, err)
	}
	for _, p := range pkgs {
		if p.PkgPath == unixPath {
			unix = p
		} else {
			sysfd = p
		}
	}
	if sysfd == nil || unix == nil {
		return nil, nil, fmt.Errorf("%s and %s were not both found", root, unixPath)
	}
	return sysfd, unix, nil
}

// compare returns the differences between the loaded packages and C.
func compare(sysfd, unix *packages.Package, v values) (differences []string) {
	differ := func(format string, args ...any) {
		differences = append(differences, fmt.Sprintf(format, args...))
	}
	check := func(name, cName string, want value) {
		got, ok := constantOf(sysfd, name)
		switch {
		case !ok:
			differ("%s is not in the package", name)
		case got != want:
			differ("%s is %s, in C it is %s", name, got, want)
		}
		if theirs, ok := constantOf(unix, cName); ok && theirs != want {
			differ("%s is %s in %s, in C it is %s", cName, theirs, unixPath, want)
		}
	}
	for _, c := range syscalls {
		check(c.goSyscall(), strings.TrimPrefix(c.goSyscall(), "_"), v.at(c.syscallExpr()))
	}
	for _, g := range groups {
		for _, c := range g.Consts {
			check(c.Name, c.cName(), v.at(c.expr()))
		}
	}
	for _, s := range structs {
		want, wantSize := s.members(v)
		got, gotSize, ok := structOf(sysfd, s.Go)
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
		if s.XSys == "" {
			continue
		}
		theirs, theirSize, ok := structOf(unix, s.XSys)
		if !ok {
			differ("%s is not in %s", s.XSys, unixPath)
			continue
		}
		if theirSize != wantSize {
			differ("%s has %d bytes in %s, in C it has %d", s.XSys, theirSize, unixPath, wantSize)
		}
		shared := 0
		for _, f := range s.Fields {
			for name, m := range theirs {
				// They spell fields as Ruid or Exit_code.
				if !strings.EqualFold(strings.ReplaceAll(name, "_", ""), f.goName()) {
					continue
				}
				if shared++; m != want[f.goName()] {
					differ("%s.%s is %v in %s, in C it is %v", s.XSys, name, m, unixPath, want[f.goName()])
				}
			}
		}
		if shared == 0 {
			differ("%s has no field of %s in %s", s.XSys, s.C, unixPath)
		}
	}
	return differences
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
