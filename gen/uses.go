package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/tools/go/packages"
)

// uses is what the root package uses of golang.org/x/sys/unix: where it does so first,
// by name.
//
// A type counts wherever it occurs, even in the signature of a function: there are too many
// ways from a value to an unsafe.Pointer, and from a type to its size, to tell the harmless
// ones apart.
type uses struct {
	consts map[string]string
	types  map[string]string
}

var unixType = regexp.MustCompile(regexp.QuoteMeta(unixPath) + `\.(\w+)`)

func usesOf(sysfd *packages.Package) *uses {
	u := &uses{map[string]string{}, map[string]string{}}
	for _, file := range sysfd.Syntax {
		ast.Inspect(file, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			obj := sysfd.TypesInfo.Uses[id]
			if obj == nil || obj.Pkg() == nil || obj.Pkg().Path() != unixPath {
				return true
			}
			first := func(m map[string]string, name string) {
				if m[name] == "" {
					m[name] = place(sysfd, id.Pos())
				}
			}
			if _, ok := obj.(*types.Const); ok {
				first(u.consts, obj.Name())
			}
			for _, m := range unixType.FindAllStringSubmatch(types.TypeString(obj.Type(), nil), -1) {
				first(u.types, m[1])
			}
			return true
		})
	}
	return u
}

// place is how messages name a line of a package.
func place(p *packages.Package, pos token.Pos) string {
	at := p.Fset.Position(pos)
	return fmt.Sprintf("%s:%d", filepath.Base(at.Filename), at.Line)
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
	for _, name := range slices.Sorted(maps.Keys(u.types)) {
		if !slices.ContainsFunc(takenStructs, func(s cstruct) bool { return s.XSys == name }) {
			problems = append(problems, fmt.Sprintf("unix.%s is used at %s, and nothing proves it: add it to gen/abi.go", name, u.types[name]))
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
		if !used(func(u *uses) map[string]string { return u.types }, s.XSys) {
			problems = append(problems, "unix."+s.XSys+" is in gen/abi.go, and the package does not use it: remove it")
		}
	}
	return problems
}
