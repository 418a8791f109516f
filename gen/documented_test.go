package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// undocumented returns the exported names of a package that have no comment. Of constants and
// variables one comment for the group is enough. It takes the files apart.
func undocumented(fset *token.FileSet, files []*ast.File) (problems []string, err error) {
	p, err := doc.NewFromFiles(fset, files, "example.org/p")
	if err != nil {
		return nil, err
	}
	complain := func(at token.Pos, name string) {
		place := fset.Position(at)
		problems = append(problems, fmt.Sprintf("%s:%d: %s has no documentation", filepath.Base(place.Filename), place.Line, name))
	}
	if p.Doc == "" {
		problems = append(problems, "the package has no documentation")
	}
	values := func(all []*doc.Value) {
		for _, v := range all {
			for _, s := range v.Decl.Specs {
				spec := s.(*ast.ValueSpec)
				if v.Doc != "" || spec.Doc != nil || spec.Comment != nil {
					continue
				}
				for _, name := range spec.Names {
					if name.IsExported() {
						complain(name.Pos(), name.Name)
					}
				}
			}
		}
	}
	funcs := func(all []*doc.Func) {
		for _, f := range all {
			name := f.Name
			if f.Recv != "" {
				name = strings.TrimPrefix(f.Recv, "*") + "." + name
			}
			if f.Doc == "" {
				complain(f.Decl.Pos(), name)
			}
		}
	}
	values(p.Consts)
	values(p.Vars)
	funcs(p.Funcs)
	for _, t := range p.Types {
		if t.Doc == "" {
			complain(t.Decl.Pos(), t.Name)
		}
		for _, name := range undocumentedMembers(t) {
			complain(name.Pos(), t.Name+"."+name.Name)
		}
		values(t.Consts)
		values(t.Vars)
		funcs(t.Funcs)
		funcs(t.Methods)
	}
	slices.Sort(problems)
	return problems, nil
}

// undocumentedMembers returns the fields of a struct and the methods of an interface that have no
// comment of their own, and that neither the comment of the type nor that of another member names. If
// no member has a comment, that of the type is about all of them.
func undocumentedMembers(t *doc.Type) (without []*ast.Ident) {
	var list *ast.FieldList
	switch typ := t.Decl.Specs[0].(*ast.TypeSpec).Type.(type) {
	case *ast.StructType:
		list = typ.Fields
	case *ast.InterfaceType:
		list = typ.Methods
	default:
		return nil
	}
	comments, commented := t.Doc, false
	for _, f := range list.List {
		comments += "\n" + f.Doc.Text() + f.Comment.Text()
		commented = commented || f.Doc != nil || f.Comment != nil
	}
	for _, f := range list.List {
		for _, name := range f.Names {
			named := regexp.MustCompile(`\b` + name.Name + `\b`).MatchString(comments)
			if commented && name.IsExported() && f.Doc == nil && f.Comment == nil && !named {
				without = append(without, name)
			}
		}
	}
	return without
}

// Every exported name has documentation, on Linux and elsewhere.
func TestDocumented(t *testing.T) {
	for _, goos := range []string{"linux", "windows"} {
		c := loadConfig("..", "amd64", nil)
		c.Mode = packages.NeedName | packages.NeedFiles | packages.NeedSyntax
		c.Env = append(c.Env, "GOOS="+goos)
		pkgs, err := packages.Load(c, "./...")
		if err != nil {
			t.Fatal(err)
		}
		looked := 0
		for _, p := range pkgs {
			if len(p.Errors) > 0 {
				t.Fatal(p.Errors)
			}
			if strings.Contains(p.PkgPath, "/internal/") || p.Name == "main" {
				continue
			}
			problems, err := undocumented(p.Fset, p.Syntax)
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range problems {
				t.Errorf("%s, %s: %s", p.PkgPath, goos, problem)
			}
			looked++
		}
		if looked < 3 {
			t.Errorf("%s: looked at %d packages", goos, looked)
		}
	}
}

func TestUndocumented(t *testing.T) {
	for text, want := range map[string][]string{
		"// F is.\nfunc F() {}\nfunc f() {}": nil,
		"func F() {}":                        {"p.go:2: F has no documentation"},
		"// T is.\ntype T int\nfunc (*T) M() {}\nfunc (T) m() {}": {"p.go:4: T.M has no documentation"},
		"// T is.\ntype T int\nfunc New() T { return 0 }":         {"p.go:4: New has no documentation"},
		"type T int":                                                            {"p.go:2: T has no documentation"},
		"type t int\nfunc (t) M() {}":                                           nil,
		"// All.\nconst (\nA = 1\nB = 2\n)":                                     nil,
		"const (\nA = 1 // one\n// B is.\nB = 2\nC, d = 3, 4\n)":                {"p.go:6: C has no documentation"},
		"var (\nA = 1\nb = 2\n)":                                                {"p.go:3: A has no documentation"},
		"// T is.\ntype T int\nconst A T = 1":                                   {"p.go:4: A has no documentation"},
		"// T is.\ntype T struct { A, B int }":                                  nil,
		"// T is.\ntype T struct {\nA int // one\nB, c int\n}":                  {"p.go:5: T.B has no documentation"},
		"// T has a B.\ntype T struct {\nA int // one\nB, Bc int\n}":            {"p.go:5: T.Bc has no documentation"},
		"// T is.\ntype T struct {\n// A is, and so is B.\nA int\nB int\n}":     nil,
		"// T is.\ntype T interface {\n// A does.\nA()\nB()\nc()\n}":            {"p.go:6: T.B has no documentation"},
		"// T is.\ntype T struct{ t }\ntype t struct {\nA int // one\nB int\n}": nil,
	} {
		p := fake(t, map[string]string{"p.go": text})
		p.Syntax[0].Doc = &ast.CommentGroup{List: []*ast.Comment{{Text: "// Package p is."}}}
		got, err := undocumented(p.Fset, p.Syntax)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	p := fake(t, map[string]string{"p.go": ""})
	if got, err := undocumented(p.Fset, p.Syntax); err != nil || !slices.Equal(got, []string{"the package has no documentation"}) {
		t.Errorf("got %q, %v", got, err)
	}
}
