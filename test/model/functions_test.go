package model

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var goLine = regexp.MustCompile(`Go: (\S+):((?: \w+)+)`)

// Who changes one of the functions that the model stands for learns of the model.
func TestFunctions(t *testing.T) {
	calls := readCalls(t)
	lines := goLine.FindAllStringSubmatch(readModel(t), -1)
	if len(lines) < 20 {
		t.Errorf("the model names %d functions only", len(lines))
	}
	for _, line := range lines {
		name, want := line[1], strings.Fields(line[2])
		got, ok := calls[name]
		if !ok {
			t.Errorf("the model stands for %s, which does not exist", name)
			continue
		}
		got = slices.DeleteFunc(slices.Clone(got), func(call string) bool { return !slices.Contains(want, call) })
		if !slices.Equal(got, want) {
			t.Errorf("%s calls %v, in the model %v", name, got, want)
		}
	}
}

// readCalls returns the names of what each function of the root package calls, in the order in
// which it is written.
func readCalls(t *testing.T) map[string][]string {
	files, err := filepath.Glob("../../*.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string][]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil {
				continue
			}
			name := f.Name.Name
			if f.Recv != nil {
				name = receiver(f.Recv.List[0].Type) + "." + name
			}
			calls[name] = called(f.Body)
		}
	}
	return calls
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func called(body *ast.BlockStmt) (names []string) {
	ast.Inspect(body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			switch f := call.Fun.(type) {
			case *ast.Ident:
				names = append(names, f.Name)
			case *ast.SelectorExpr:
				names = append(names, f.Sel.Name)
			}
		}
		return true
	})
	return names
}
