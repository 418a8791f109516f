package flow_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis"

	"github.com/sysfd/sysfd/sysfdvet"
	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
)

// A checker checks packages of one file, whose imports are of the standard library or of ../../testdata.
type checker struct {
	fset *token.FileSet
	std  types.Importer
	own  map[string]*types.Package
}

func newChecker() *checker {
	fset := token.NewFileSet()
	return &checker{fset, importer.ForCompiler(fset, "source", nil), map[string]*types.Package{}}
}

func (c *checker) Import(path string) (*types.Package, error) {
	if p := c.own[path]; p != nil {
		return p, nil
	}
	names, _ := filepath.Glob(filepath.Join("../../testdata/src", filepath.FromSlash(path), "*.go"))
	if len(names) != 1 {
		return c.std.Import(path)
	}
	f, err := parser.ParseFile(c.fset, names[0], nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	p, err := (&types.Config{Importer: c}).Check(path, c.fset, []*ast.File{f}, nil)
	c.own[path] = p
	return p, err
}

// run runs all analyzers over the file, if it has no errors.
func (c *checker) run(t *testing.T, f *ast.File) (ok bool) {
	info := &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
		Implicits: map[ast.Node]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}, Scopes: map[ast.Node]*types.Scope{},
		Instances: map[*ast.Ident]types.Instance{}, FileVersions: map[*ast.File]string{},
	}
	sizes := types.SizesFor("gc", runtime.GOARCH)
	pkg, err := (&types.Config{Importer: c, Sizes: sizes, Error: func(error) {}}).Check(f.Name.Name, c.fset, []*ast.File{f}, info)
	if err != nil {
		return false
	}
	pass := analysis.Pass{
		Fset: c.fset, Files: []*ast.File{f}, Pkg: pkg, TypesInfo: info, TypesSizes: sizes, ResultOf: map[*analysis.Analyzer]any{},
		Report: func(d analysis.Diagnostic) {
			if d.Pos < f.FileStart || d.End > f.FileEnd || d.Pos >= d.End {
				t.Errorf("%s: %s: a finding from %d to %d", c.fset.Position(d.Pos), d.Message, d.Pos, d.End)
			}
			for _, fix := range d.SuggestedFixes {
				for _, e := range fix.TextEdits {
					if e.Pos < f.FileStart || e.End > f.FileEnd {
						t.Errorf("%s: %s: an edit outside of the file", c.fset.Position(d.Pos), d.Message)
					}
				}
			}
		},
	}
	for _, a := range append([]*analysis.Analyzer{flow.Analyzer}, sysfdvet.Analyzers()...) {
		pass.Analyzer = a
		result, err := a.Run(&pass)
		if err != nil {
			t.Errorf("%s: %s: %v", a.Name, c.fset.Position(f.Package), err)
		}
		pass.ResultOf[a] = result
	}
	return true
}

// TestOddSyntax runs the analyzers over what go/types is tested with: cycles, generics, odd declarations.
func TestOddSyntax(t *testing.T) {
	flow.LookAtAll()
	c := newChecker()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, root := range []string{"src/internal/types/testdata", "test/typeparam", "test/fixedbugs"} {
		filepath.WalkDir(filepath.Join(strings.TrimSpace(string(out)), root), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return nil
			}
			if testing.Short() && ran > 200 {
				return fs.SkipAll
			}
			f, err := parser.ParseFile(c.fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err == nil && c.run(t, f) {
				ran++
			}
			return nil
		})
	}
	t.Logf("%d files", ran)
	if ran < 50 {
		t.Errorf("of the files of this Go %d have no errors", ran)
	}
}

// TestMutations runs the analyzers over what becomes of their own examples when statements, expressions and
// declarations change places.
func TestMutations(t *testing.T) {
	flow.LookAtAll()
	c := newChecker()
	rounds := 400
	if testing.Short() {
		rounds = 40
	}
	names, err := filepath.Glob("../../testdata/src/*/*.go")
	more, _ := filepath.Glob("../../testdata/src/*/*/*.go")
	names = append(names, more...)
	if err != nil || len(names) < 10 {
		t.Fatal(names, err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	ran := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for range rounds / 10 {
			mutant := string(text)
			for range 1 + random.IntN(3) {
				mutant = mutate(random, mutant)
			}
			f, err := parser.ParseFile(c.fset, name, mutant, parser.ParseComments|parser.SkipObjectResolution)
			if err == nil && c.run(t, f) {
				ran++
			}
		}
	}
	t.Logf("%d mutants without errors", ran)
	if ran == 0 {
		t.Error("no mutant has no errors")
	}
}

// mutate puts one expression or statement in the place of another, or takes a statement away.
func mutate(random *rand.Rand, text string) string {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "", text, parser.SkipObjectResolution)
	if err != nil {
		return text
	}
	var exprs, stmts []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case ast.Expr:
			exprs = append(exprs, n)
		case ast.Stmt:
			stmts = append(stmts, n)
		}
		return true
	})
	nodes := exprs
	if len(exprs) == 0 || len(stmts) > 0 && random.IntN(2) == 0 {
		nodes = stmts
	}
	if len(nodes) == 0 {
		return text
	}
	offset := func(p token.Pos) int { return fset.Position(p).Offset }
	from, to := nodes[random.IntN(len(nodes))], nodes[random.IntN(len(nodes))]
	other := text[offset(from.Pos()):offset(from.End())]
	if _, isStmt := to.(ast.Stmt); isStmt && random.IntN(3) == 0 {
		other = ""
	}
	return text[:offset(to.Pos())] + other + text[offset(to.End()):]
}
