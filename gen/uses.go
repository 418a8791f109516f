package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// uses is what the root package uses of golang.org/x/sys/unix: where it does so first,
// by name.
//
// A struct is of interest where the package itself hands it to the kernel: what makes a
// pointer to one an unsafe.Pointer, or the reverse. One that goes to a function of unix
// and comes back is proved by that package's own tests, with both ends of the call.
type uses struct {
	consts map[string]string
	raw    map[string]string // structs that meet an unsafe.Pointer
	fields map[string]string // of any struct, "PollFd.Revents"
}

func usesOf(sysfd *packages.Package) *uses {
	u := &uses{map[string]string{}, map[string]string{}, map[string]string{}}
	at := func(pos token.Pos) string {
		p := sysfd.Fset.Position(pos)
		return fmt.Sprintf("%s:%d", filepath.Base(p.Filename), p.Line)
	}
	first := func(m map[string]string, name, place string) {
		if _, ok := m[name]; !ok {
			m[name] = place
		}
	}
	for _, file := range sysfd.Syntax {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				obj := sysfd.TypesInfo.Uses[n]
				if obj == nil || obj.Pkg() == nil || obj.Pkg().Path() != unixPath {
					break
				}
				switch obj := obj.(type) {
				case *types.Const:
					first(u.consts, obj.Name(), at(n.Pos()))
				case *types.Var:
					if obj.IsField() {
						first(u.fields, owner(obj)+"."+obj.Name(), at(n.Pos()))
					}
				}
			case *ast.CallExpr:
				if !sysfd.TypesInfo.Types[n.Fun].IsType() || len(n.Args) != 1 {
					break
				}
				to, from := sysfd.TypesInfo.TypeOf(n), sysfd.TypesInfo.TypeOf(n.Args[0])
				if isUnsafePointer(from) {
					to, from = from, to
				}
				if !isUnsafePointer(to) || from == nil {
					break
				}
				if p, ok := from.Underlying().(*types.Pointer); ok {
					for _, name := range unixStructs(p.Elem()) {
						first(u.raw, name, at(n.Pos()))
					}
				}
			}
			return true
		})
	}
	return u
}

func isUnsafePointer(t types.Type) bool {
	if t == nil {
		return false // the package does not compile
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Kind() == types.UnsafePointer
}

// owner returns the name of the struct that has the field.
func owner(field *types.Var) string {
	scope := field.Pkg().Scope()
	for _, name := range scope.Names() {
		t, ok := scope.Lookup(name).(*types.TypeName)
		if !ok {
			continue
		}
		if s, ok := t.Type().Underlying().(*types.Struct); ok && slices.Contains(slices.Collect(s.Fields()), field) {
			return name
		}
	}
	return "struct"
}

// unixStructs returns the names of the structs of golang.org/x/sys/unix that lie in a t.
func unixStructs(t types.Type) (names []string) {
	named, isNamed := types.Unalias(t).(*types.Named)
	switch under := t.Underlying().(type) {
	case *types.Array:
		return unixStructs(under.Elem())
	case *types.Struct:
		if isNamed && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == unixPath {
			return []string{named.Obj().Name()}
		}
		for f := range under.Fields() {
			names = append(names, unixStructs(f.Type())...)
		}
	}
	return names
}

// unproved returns what is used and not in the tables of what is taken.
func (u *uses) unproved() (problems []string) {
	for _, name := range slices.Sorted(maps.Keys(u.consts)) {
		switch {
		case isTaken(name):
		case isOurs(name):
			problems = append(problems, fmt.Sprintf("unix.%s is used at %s, and the package has its own: use that", name, u.consts[name]))
		default:
			problems = append(problems, fmt.Sprintf("unix.%s is used at %s, and nothing proves it: add it to gen/abi.go", name, u.consts[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.raw)) {
		i := slices.IndexFunc(takenStructs, func(s cstruct) bool { return s.XSys == name })
		if i < 0 {
			problems = append(problems, fmt.Sprintf("unix.%s is used at %s, and nothing proves it: add it to gen/abi.go", name, u.raw[name]))
			continue
		}
		for _, f := range slices.Sorted(maps.Keys(u.fields)) {
			fieldName, ok := strings.CutPrefix(f, name+".")
			if ok && !slices.ContainsFunc(takenStructs[i].Fields, func(f field) bool { return f.isXSys(fieldName) }) {
				problems = append(problems, fmt.Sprintf("unix.%s is used at %s, and nothing proves it: add it to gen/abi.go", f, u.fields[f]))
			}
		}
	}
	return problems
}

func isTaken(name string) bool {
	return slices.ContainsFunc(taken, func(g group) bool {
		return slices.ContainsFunc(g.Consts, func(c constant) bool { return c.Name == name })
	})
}

func isOurs(name string) bool {
	return slices.ContainsFunc(groups, func(g group) bool {
		return slices.ContainsFunc(g.Consts, func(c constant) bool { return c.cName() == name })
	})
}

// stale returns what is in the tables of what is taken, and used on no architecture.
func stale(all []*uses) (problems []string) {
	used := func(of func(u *uses) map[string]string, name string) bool {
		return slices.ContainsFunc(all, func(u *uses) bool { return of(u)[name] != "" })
	}
	for _, g := range taken {
		for _, c := range g.Consts {
			if !used(func(u *uses) map[string]string { return u.consts }, c.Name) {
				problems = append(problems, "unix."+c.Name+" is in gen/abi.go, and the package does not use it: remove it")
			}
		}
	}
	for _, s := range takenStructs {
		if !used(func(u *uses) map[string]string { return u.raw }, s.XSys) {
			problems = append(problems, "unix."+s.XSys+" is in gen/abi.go, and the package makes no raw system call with it: remove it")
		}
	}
	return problems
}
