package main

import (
	"fmt"
	goconstant "go/constant"
	"go/types"
	"os"
	"strings"

	"golang.org/x/tools/go/packages"
)

const unixPath = "golang.org/x/sys/unix"

// prove loads the root package for one architecture as it is with overlay laid
// over its files, and returns what differs from what C says, and from what
// golang.org/x/sys/unix says of the same names.
func prove(root, goarch string, overlay map[string][]byte, v values) (differences []string, err error) {
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedDeps |
			packages.NeedTypes | packages.NeedTypesSizes | packages.NeedSyntax,
		Dir:     root,
		Env:     append(os.Environ(), "GOOS=linux", "GOARCH="+goarch, "CGO_ENABLED=0", "GOWORK=off"),
		Overlay: overlay,
	}, ".", unixPath)
	if err != nil {
		return nil, err
	}
	var sysfd, unix *packages.Package
	for _, p := range pkgs {
		for _, e := range p.Errors {
			differences = append(differences, fmt.Sprintf("%s: %v", goarch, e))
		}
		if p.PkgPath == unixPath {
			unix = p
		} else {
			sysfd = p
		}
	}
	if sysfd == nil || unix == nil {
		return nil, fmt.Errorf("%s: the packages to compare were not found", goarch)
	}
	return append(differences, compare(goarch, sysfd, unix, v)...), nil
}

// compare returns the differences between the loaded packages and C.
func compare(goarch string, sysfd, unix *packages.Package, v values) (differences []string) {
	differ := func(format string, args ...any) {
		differences = append(differences, goarch+": "+fmt.Sprintf(format, args...))
	}
	check := func(name string, want value) {
		got, ok := constantOf(sysfd, name)
		switch {
		case !ok:
			differ("%s is not in the package", name)
		case got != want.String():
			differ("%s is %s, in C it is %s", name, got, want)
		}
		if theirs, ok := constantOf(unix, strings.TrimPrefix(name, "_")); ok && theirs != want.String() {
			differ("%s is %s in %s, in C it is %s", name, theirs, unixPath, want)
		}
	}
	for _, c := range syscalls {
		check(c.goSyscall(), v[c.syscallExpr()])
	}
	for _, g := range groups {
		for _, c := range g.Consts {
			check(c.Name, v[c.expr()])
		}
	}
	for _, s := range structs {
		fields, size, err := s.layout(goarch, v)
		if err != nil {
			differ("%v", err)
			continue
		}
		offsets, got, ok := structOf(sysfd, s.Go)
		if !ok {
			differ("%s is not in the package", s.Go)
			continue
		}
		if got != size {
			differ("%s has %d bytes, in C it has %d", s.Go, got, size)
		}
		for _, f := range fields {
			if at, ok := offsets[f.name]; f.name != "_" && (!ok || at != f.offset) {
				differ("%s.%s is at %d, in C it is at %d", s.Go, f.name, at, f.offset)
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
		if theirSize != size {
			differ("%s has %d bytes in %s, in C it has %d", s.XSys, theirSize, unixPath, size)
		}
		// They spell fields as Ruid or Exit_code.
		for _, f := range fields {
			for name, at := range theirs {
				if strings.EqualFold(strings.ReplaceAll(name, "_", ""), f.name) && f.name != "_" && at != f.offset {
					differ("%s.%s is at %d in %s, in C it is at %d", s.XSys, name, at, unixPath, f.offset)
				}
			}
		}
	}
	return differences
}

// constantOf returns the value of a constant as value.String spells it.
func constantOf(p *packages.Package, name string) (string, bool) {
	c, ok := p.Types.Scope().Lookup(name).(*types.Const)
	if !ok {
		return "", false
	}
	val := goconstant.ToInt(c.Val())
	if u, exact := goconstant.Uint64Val(val); exact {
		return value{bits: u}.String(), true
	}
	i, _ := goconstant.Int64Val(val)
	return value{uint64(i), true}.String(), true
}

// structOf returns the size and the offsets of the named fields of a struct.
func structOf(p *packages.Package, name string) (offsets map[string]int, size int, ok bool) {
	obj := p.Types.Scope().Lookup(name)
	if obj == nil {
		return nil, 0, false
	}
	t, ok := obj.Type().Underlying().(*types.Struct)
	if !ok {
		return nil, 0, false
	}
	var vars []*types.Var
	for f := range t.Fields() {
		vars = append(vars, f)
	}
	offsets = map[string]int{}
	for i, at := range p.TypesSizes.Offsetsof(vars) {
		if n := vars[i].Name(); n != "_" {
			offsets[n] = int(at)
		}
	}
	return offsets, int(p.TypesSizes.Sizeof(t)), true
}

// compareLibc returns what the C library declares otherwise than the kernel.
func compareLibc(goarch string, kernel, libc values) (differences []string) {
	for _, g := range groups {
		for _, c := range g.Consts {
			if c.Libc && libc[c.Name] != kernel[c.expr()] {
				differences = append(differences, fmt.Sprintf("%s: %s is %s in the C library's <fcntl.h>, in the kernel it is %s",
					goarch, c.Name, libc[c.Name], kernel[c.expr()]))
			}
		}
	}
	for expr, want := range kernel {
		got, asked := libc[expr]
		if asked && strings.Contains(expr, "struct ") && got != want {
			differences = append(differences, fmt.Sprintf("%s: %s is %s in the C library's <fcntl.h>, in the kernel it is %s", goarch, expr, got, want))
		}
	}
	return differences
}
