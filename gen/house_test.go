package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
	"golang.org/x/tools/go/types/typeutil"
)

// A house is what ARCHITECTURE.md says of the root package.
type house struct {
	floors   map[string]int  // of each file, and of each folder, whose name ends in a slash
	whole    map[string]bool // tests that test no file of their own
	unlinked []string        // packages that nothing may import
}

var (
	floorRow  = regexp.MustCompile("^\\| (\\d+) \\| `([^`]+)` \\| [^|]+ \\|$")
	looksRow  = regexp.MustCompile("^\\|.*`")
	quotedRun = regexp.MustCompile("`([^`]+)`")
)

const (
	wholeLine    = "- Tests of the whole package: "
	unlinkedLine = "- Never imported, not even indirectly: "
)

// readHouse takes the page apart. A row that it does not understand is a problem.
func readHouse(page string) (h house, problems []string) {
	h = house{floors: map[string]int{}, whole: map[string]bool{}}
	wings := map[string]int{}
	quoted := func(list string) (words []string) {
		for _, m := range quotedRun.FindAllStringSubmatch(list, -1) {
			words = append(words, m[1])
		}
		return words
	}
	for line := range strings.SplitSeq(page, "\n") {
		if list, ok := strings.CutPrefix(line, wholeLine); ok {
			for _, name := range quoted(list) {
				h.whole[name] = true
			}
		}
		if list, ok := strings.CutPrefix(line, unlinkedLine); ok {
			h.unlinked = quoted(list)
		}
		m := floorRow.FindStringSubmatch(line)
		if m == nil {
			if looksRow.MatchString(line) {
				problems = append(problems, "this row is not read: "+line)
			}
			continue
		}
		floor, file := 0, m[2]
		fmt.Sscan(m[1], &floor)
		if _, ok := h.floors[file]; ok {
			problems = append(problems, file+" is in the table twice")
		}
		h.floors[file] = floor
		if first, ok := wings[wing(file)]; ok && first != floor && isFile(file) {
			problems = append(problems, fmt.Sprintf("%s is on floor %d, others of %s* are on floor %d", file, floor, wing(file), first))
		} else if isFile(file) {
			wings[wing(file)] = floor
		}
	}
	for what, n := range map[string]int{"floors": len(h.floors), wholeLine: len(h.whole), unlinkedLine: len(h.unlinked)} {
		if n == 0 {
			problems = append(problems, "the page has no "+what)
		}
	}
	return h, problems
}

func isFile(name string) bool { return strings.HasSuffix(name, ".go") }

// row is the name that a file has in the table.
func row(file string) string {
	switch base := filepath.Base(file); {
	case strings.HasSuffix(file, "/"):
		return file
	case strings.HasPrefix(base, "zsys_linux_"):
		return "zsys_linux_$GOARCH.go"
	default:
		return base
	}
}

// wing is what the names of all files of a wing begin with.
func wing(file string) string {
	name, _, _ := strings.Cut(strings.TrimSuffix(row(file), ".go"), "_")
	return name
}

// mayUse tells whether a file may use what another one defines. A file that is not in
// the table, which is a problem of its own, is on floor 0.
func (h house) mayUse(from, to string) bool {
	from, to = row(from), row(to)
	return wing(from) == wing(to) || h.floors[to] < h.floors[from]
}

// files compares the table with the names in the root folder.
func (h house) files(names []string) (problems []string) {
	there := map[string]bool{}
	for _, name := range names {
		there[row(name)] = true
	}
	for _, name := range names {
		test, isTest := strings.CutSuffix(name, "_test.go")
		_, listed := h.floors[row(name)]
		switch subject := test + ".go"; {
		case isTest && h.whole[name] && there[subject]:
			problems = append(problems, name+" is listed as a test of the whole package, and "+subject+" exists")
		case isTest && !h.whole[name] && !there[subject]:
			problems = append(problems, name+" tests no file: there is no "+subject)
		case !isTest && !listed && (isFile(name) || strings.HasSuffix(name, "/")):
			problems = append(problems, name+" is not in the table of floors")
		}
	}
	for name := range h.floors {
		if !there[name] {
			problems = append(problems, name+" is in the table of floors and does not exist")
		}
	}
	for name := range h.whole {
		if !there[name] {
			problems = append(problems, name+" is listed as a test and does not exist")
		}
	}
	slices.Sort(problems)
	return problems
}

// unread returns the files that no load has: nothing has looked at them.
func unread(names []string, loads []*packages.Package) (problems []string) {
	read := map[string]bool{}
	for _, p := range loads {
		for _, f := range p.Syntax {
			read[filepath.Base(p.Fset.Position(f.Package).Filename)] = true
		}
	}
	for _, name := range names {
		if isFile(name) && !strings.HasSuffix(name, "_test.go") && !read[name] {
			problems = append(problems, name+" is in no build that is tested")
		}
	}
	return problems
}

// An arrow is the use of a definition in another file.
type arrow struct {
	from token.Position
	to   token.Position
	name string
}

func (h house) describe(a arrow) string {
	from, to := row(a.from.Filename), row(a.to.Filename)
	return fmt.Sprintf("%s:%d: on floor %d, uses %s, which is on floor %d in %s:%d",
		filepath.Base(a.from.Filename), a.from.Line, h.floors[from], a.name, h.floors[to], filepath.Base(a.to.Filename), a.to.Line)
}

// arrows returns each use within p that the house does not allow.
func (h house) arrows(p *packages.Package) (wrong []arrow) {
	add := func(at token.Pos, obj types.Object) {
		if obj.Pkg() != p.Types || !obj.Pos().IsValid() {
			return
		}
		a := arrow{p.Fset.Position(at), p.Fset.Position(obj.Pos()), objectName(obj)}
		if !h.mayUse(a.from.Filename, a.to.Filename) {
			wrong = append(wrong, a)
		}
	}
	for id, obj := range p.TypesInfo.Uses {
		add(id.Pos(), obj)
	}
	// What is promoted goes through embedded fields, which the source does not name.
	for sel, s := range p.TypesInfo.Selections {
		for _, f := range embedded(s) {
			add(sel.Sel.Pos(), f)
		}
	}
	slices.SortFunc(wrong, func(a, b arrow) int {
		return cmp.Or(cmp.Compare(a.from.Filename, b.from.Filename), cmp.Compare(a.from.Offset, b.from.Offset), cmp.Compare(a.to.Offset, b.to.Offset))
	})
	return wrong
}

// embedded returns the fields on the way of a selection but for what it selects.
func embedded(s *types.Selection) (fields []*types.Var) {
	t := s.Recv()
	for _, i := range s.Index()[:len(s.Index())-1] {
		if p, ok := t.Underlying().(*types.Pointer); ok {
			t = p.Elem()
		}
		st, ok := t.Underlying().(*types.Struct)
		if !ok {
			return fields
		}
		fields = append(fields, st.Field(i))
		t = st.Field(i).Type()
	}
	return fields
}

func objectName(obj types.Object) string {
	switch obj := obj.(type) {
	case *types.Func:
		return strings.ReplaceAll(obj.FullName(), obj.Pkg().Path()+".", "")
	case *types.Var:
		if obj.IsField() {
			return "the field " + obj.Name()
		}
	}
	return obj.Name()
}

var rawCall = regexp.MustCompile(`^((Raw|AllThreads)?Syscall(\d*|N)(NoError)?|Call)$`) // SyscallN and Proc.Call are for Windows

// lowlevel returns the raw system calls outside sys* and zsys*, and what is taken from
// golang.org/x/sys/unix outside sys* that is no constant, type or field.
func (h house) lowlevel(p *packages.Package) (problems []string) {
	for id, obj := range p.TypesInfo.Uses {
		if obj.Pkg() == nil {
			continue
		}
		from, path := wing(p.Fset.Position(id.Pos()).Filename), obj.Pkg().Path()
		_, isFunc := obj.(*types.Func)
		v, isVar := obj.(*types.Var)
		raw := isFunc && rawCall.MatchString(obj.Name())
		what := ""
		switch {
		case (path == "syscall" || path == unixPath) && raw && from != "sys" && from != "zsys":
			what = "makes a raw system call outside sys* and zsys*"
		case path == unixPath && (isFunc || isVar && !v.IsField()) && from != "sys":
			what = "uses a function or a variable of " + unixPath + " outside sys*"
		default:
			continue
		}
		problems = append(problems, fmt.Sprintf("%s: %s.%s %s", place(p, id.Pos()), obj.Pkg().Name(), obj.Name(), what))
	}
	for _, name := range slices.Concat(p.OtherFiles, p.IgnoredFiles) {
		if !isFile(name) {
			problems = append(problems, filepath.Base(name)+" is not Go")
		}
	}
	slices.Sort(problems)
	return problems
}

// header returns what the imports and comments of p have that they may not.
func (h house) header(p *packages.Package) (problems []string) {
	complain := func(n ast.Node, text string) { problems = append(problems, place(p, n.Pos())+": "+text) }
	for _, f := range p.Syntax {
		w := wing(p.Fset.Position(f.Package).Filename)
		low := w == "sys" || w == "zsys"
		for _, spec := range f.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			switch {
			case path == "unsafe" && !low:
				complain(spec, "imports unsafe outside sys* and zsys*")
			case strings.HasPrefix(path, p.PkgPath+"/"):
				complain(spec, "imports "+path+", where no rule holds")
			}
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				switch {
				case strings.HasPrefix(c.Text, "//go:linkname") && !low:
					complain(c, "has a linkname outside sys* and zsys*")
				case strings.HasPrefix(c.Text, "//line ") || strings.HasPrefix(c.Text, "/*line "):
					complain(c, "claims to be another file")
				}
			}
		}
	}
	return problems
}

// startup returns what would run when p is imported.
func startup(p *packages.Package) (problems []string) {
	complain := func(n ast.Node, text string) { problems = append(problems, place(p, n.Pos())+": "+text) }
	look := func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			_, later := n.(*ast.FuncLit)
			return !later
		}
		if p.TypesInfo.Types[call].Value != nil || p.TypesInfo.Types[call.Fun].IsType() {
			return true
		}
		f, ok := typeutil.Callee(p.TypesInfo, call).(*types.Func)
		if !ok || f.FullName() != "errors.New" && f != p.Types.Scope().Lookup("refused") {
			complain(call, "is called at package level")
		}
		return true
	}
	for _, f := range p.Syntax {
		for _, decl := range f.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if decl.Recv == nil && decl.Name.Name == "init" {
					complain(decl, "is an init function")
				}
			case *ast.GenDecl:
				ast.Inspect(decl, look)
			}
		}
	}
	return problems
}

// closure returns the forbidden packages that p imports, each with the way to it.
func (h house) closure(p *packages.Package) (problems []string) {
	seen := map[string]bool{}
	var visit func(p *packages.Package, way string)
	visit = func(p *packages.Package, way string) {
		if seen[p.PkgPath] {
			return
		}
		seen[p.PkgPath] = true
		if slices.Contains(h.unlinked, p.PkgPath) {
			problems = append(problems, way+" is imported")
			return
		}
		for _, path := range slices.Sorted(maps.Keys(p.Imports)) {
			visit(p.Imports[path], way+" -> "+path)
		}
	}
	visit(p, p.Name)
	return problems
}

var (
	fileName   = regexp.MustCompile(`^[a-z_0-9/]+(\.go|\.mod|\.pin|/)$`)
	definition = regexp.MustCompile(`^[A-Za-z_]\w*(\.\w+)?$`)
)

// names returns what the page names in back quotes and nobody has. Folders and files
// are those of the repository, definitions those of the package and of gen.
func (h house) names(page string, exists, declared func(name string) bool) (problems []string) {
	allowed := append([]string{"unsafe"}, h.unlinked...)
	for _, m := range quotedRun.FindAllStringSubmatch(page, -1) {
		name := m[1]
		switch {
		case slices.Contains(allowed, name):
		case fileName.MatchString(name):
			if !exists(name) {
				problems = append(problems, "the page names the file "+name+", which does not exist")
			}
		case definition.MatchString(name) && !declared(name):
			problems = append(problems, "the page names "+name+", which is not defined")
		}
	}
	return problems
}

// declaredIn tells whether a package has a definition, such as "emit" or "PidFD.Wait".
func declaredIn(p *types.Package, name string) bool {
	first, member, dotted := strings.Cut(name, ".")
	obj := p.Scope().Lookup(first)
	if obj == nil || !dotted {
		return obj != nil
	}
	found, _, _ := types.LookupFieldOrMethod(obj.Type(), true, p, member)
	return found != nil
}

// parseFolder reads the Go files of a folder, whatever system they are for.
func parseFolder(t *testing.T, dir string) (fset *token.FileSet, files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset = token.NewFileSet()
	for _, name := range names {
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return fset, files
}

// ARCHITECTURE.md is true, and the root package keeps to it.
func TestHouse(t *testing.T) {
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	h, problems := readHouse(page)

	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		switch name := e.Name(); {
		case strings.HasPrefix(name, ".") || name == "testdata":
		case e.IsDir():
			names = append(names, name+"/")
		default:
			names = append(names, name)
		}
	}
	problems = append(problems, h.files(names)...)

	genFset, genFiles := parseFolder(t, ".")
	gen, _ := (&types.Config{Importer: noImports{}, Error: func(error) {}}).Check("main", genFset, genFiles, nil)
	sysfd := loadRoot(t, "amd64").sysfd
	exists := func(name string) bool { _, err := os.Stat(filepath.Join("..", name)); return err == nil }
	declared := func(name string) bool { return declaredIn(sysfd.Types, name) || declaredIn(gen, name) }
	problems = append(problems, h.names(page, exists, declared)...)

	loads := []*packages.Package{sysfd, loadRoot(t, "386").sysfd}
	for _, goos := range []string{"darwin", "windows", "plan9"} {
		c := loadConfig("..", "amd64", nil)
		c.Env = append(c.Env, "GOOS="+goos)
		pkgs, err := packages.Load(c, ".")
		if err != nil || len(pkgs) != 1 || len(pkgs[0].Errors) > 0 {
			t.Fatal(goos, err, pkgs)
		}
		loads = append(loads, pkgs[0])
	}
	// The file of another port must do without the rest of the package.
	for _, a := range arches {
		p := untyped(sysfd.PkgPath)
		f, err := parser.ParseFile(p.Fset, rootFile(a.GOARCH), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		p.Syntax = []*ast.File{f}
		if p.Types, err = (&types.Config{Importer: importsOf{sysfd}, Sizes: types.SizesFor("gc", a.GOARCH)}).Check(p.PkgPath, p.Fset, p.Syntax, p.TypesInfo); err != nil {
			t.Fatal(err)
		}
		loads = append(loads, p)
	}
	problems = append(problems, unread(names, loads)...)
	for _, p := range loads {
		for _, a := range h.arrows(p) {
			problems = append(problems, h.describe(a))
		}
		problems = slices.Concat(problems, h.lowlevel(p), h.header(p), startup(p), h.closure(p))
	}

	// With cgo, some packages import more.
	for _, port := range []string{"linux/amd64", "linux/386", "linux/arm64", "darwin/arm64", "windows/amd64"} {
		goos, goarch, _ := strings.Cut(port, "/")
		pkgs, err := packages.Load(&packages.Config{
			Mode: packages.NeedName | packages.NeedImports | packages.NeedDeps,
			Dir:  "..",
			Env:  append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=1", "GOWORK=off"),
		}, ".")
		if err != nil || len(pkgs) != 1 || len(pkgs[0].Errors) > 0 {
			t.Fatal(port, err, pkgs)
		}
		problems = append(problems, h.closure(pkgs[0])...)
	}

	// In all loads alike, most of them.
	seen := map[string]bool{}
	for _, p := range problems {
		if !seen[p] {
			t.Error(p)
		}
		seen[p] = true
	}
}

// importsOf imports what another package imports, too.
type importsOf struct{ p *packages.Package }

func (i importsOf) Import(path string) (*types.Package, error) {
	if p := i.p.Imports[path]; p != nil {
		return p.Types, nil
	}
	return nil, errors.New(path + " is not imported")
}

type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) { return nil, errors.New("not imported") }

// fakes are what a made-up package can import.
var fakes = map[string]string{
	"syscall": `package syscall
		type Errno uintptr
		type Conn interface{ SyscallConn() }
		func Syscall(a, b, c, d uintptr) (x, y uintptr, err Errno)
		func RawSyscall6(a, b, c, d, e, f, g uintptr) (x, y uintptr, err Errno)
		func AllThreadsSyscall(a, b, c, d uintptr) (x, y uintptr, err Errno)
		func SyscallN(a uintptr, b ...uintptr) (x, y uintptr, err Errno)
		type Proc struct{}
		func (*Proc) Call(a ...uintptr) (x, y uintptr, err error)
		func Close(fd int) error`,
	"errors":              "package errors; func New(string) error; func Join(...error) error",
	"example.org/p/low":   "package low",
	"example.org/plainer": "package plainer",
	unixPath: `package unix
		const (AT_FDCWD = -100; POLLIN = 1; SYS_PPOLL = 271; SYS_SEVER = 9999)
		type PollFd struct{ Fd int32; Events, Revents int16 }
		type Rlimit struct{ Cur, Max uint64; Both [2]uint64 }
		func Prlimit(limit *Rlimit)
		func Limit() *Rlimit
		var Limits []Rlimit
		func (PollFd) Method() {}
		var Stdin = 0
		func Poll(fds []PollFd)
		func RawSyscallNoError(a, b, c, d uintptr) (x, y uintptr)`,
}

type fakeImporter struct{ fset *token.FileSet }

func (i fakeImporter) Import(path string) (*types.Package, error) {
	if path == "unsafe" {
		return types.Unsafe, nil
	}
	text, ok := fakes[path]
	if !ok {
		return nil, errors.New("no fake " + path)
	}
	f, err := parser.ParseFile(i.fset, path, text, 0)
	if err != nil {
		return nil, err
	}
	return (&types.Config{IgnoreFuncBodies: true}).Check(path, i.fset, []*ast.File{f}, nil)
}

// untyped returns a package that lacks Syntax and Types.
func untyped(path string) *packages.Package {
	return &packages.Package{PkgPath: path, Fset: token.NewFileSet(), TypesInfo: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
	}}
}

// fake type-checks a package of files, which lack only the package clause.
func fake(t *testing.T, files map[string]string) *packages.Package {
	t.Helper()
	p := untyped("example.org/p")
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := parser.ParseFile(p.Fset, "/src/"+name, "package p\n"+files[name], parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		p.Syntax = append(p.Syntax, f)
	}
	var err error
	p.Types, err = (&types.Config{Importer: fakeImporter{p.Fset}}).Check(p.PkgPath, p.Fset, p.Syntax, p.TypesInfo)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const fakePage = "# A house\n" +
	"| floor | file | what is in it |\n|---|---|---|\n" +
	"| 0 | `zsys_linux_$GOARCH.go` | numbers |\n" +
	"| 1 | `errors.go` | errors |\n" +
	"| 1 | `text.go` | text |\n" +
	"| 2 | `sys.go` | calls |\n" +
	"| 2 | `sys_exec.go` | a call |\n" +
	"| 4 | `handle.go` | handles |\n" +
	"| 5 | `pidfd.go` | pidfds |\n" +
	"| 5 | `pidfd_wait.go` | waiting |\n" +
	"| 6 | `listen.go` | sockets |\n" +
	"| 7 | `feature.go` | features |\n" +
	"| 8 | `cmd/` | the command |\n\n" +
	"- Tests of the whole package: `all_test.go`, `race_test.go`\n" +
	"- Never imported, not even indirectly: `net`, `runtime/cgo`\n"

func fakeHouse(t *testing.T) house {
	t.Helper()
	h, problems := readHouse(fakePage)
	if problems != nil {
		t.Fatal(problems)
	}
	return h
}

func TestReadHouse(t *testing.T) {
	h := fakeHouse(t)
	if len(h.floors) != 11 || h.floors["sys_exec.go"] != 2 || h.floors["cmd/"] != 8 || len(h.whole) != 2 || !h.whole["race_test.go"] ||
		!slices.Equal(h.unlinked, []string{"net", "runtime/cgo"}) {
		t.Errorf("got %+v", h)
	}
	for _, tt := range []struct{ old, new, want string }{
		{"| 4 | `handle.go`", "| four | `handle.go`", "this row is not read: | four | `handle.go` | handles |"},
		{"| 5 | `pidfd_wait.go`", "| 5 | `pidfd.go`", "pidfd.go is in the table twice"},
		{"| 5 | `pidfd_wait.go`", "| 6 | `pidfd_wait.go`", "pidfd_wait.go is on floor 6, others of pidfd* are on floor 5"},
		{"- Tests of", "- Files of", "the page has no - Tests of the whole package: "},
		{"- Never", "- Seldom", "the page has no - Never imported"},
	} {
		_, problems := readHouse(strings.Replace(fakePage, tt.old, tt.new, 1))
		if len(problems) != 1 || !strings.HasPrefix(problems[0], tt.want) {
			t.Errorf("%s for %s: got %q, want %q", tt.new, tt.old, problems, tt.want)
		}
	}
}

func TestHouseFiles(t *testing.T) {
	h := fakeHouse(t)
	good := []string{"zsys_linux_386.go", "zsys_linux_arm.go", "errors.go", "text.go", "sys.go", "sys_exec.go", "handle.go", "handle_test.go",
		"pidfd.go", "pidfd_wait.go", "pidfd_wait_test.go", "listen.go", "feature.go", "cmd/", "all_test.go", "race_test.go", "README.md", "go.mod"}
	without := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(good), func(n string) bool { return n == name })
	}
	for _, tt := range []struct {
		name  string
		files []string
		want  []string
	}{
		{"good", good, nil},
		{"a file too many", append(slices.Clone(good), "handle_new.go"), []string{"handle_new.go is not in the table of floors"}},
		{"a folder too many", append(slices.Clone(good), "internal/"), []string{"internal/ is not in the table of floors"}},
		{"a file too few", without("sys_exec.go"), []string{"sys_exec.go is in the table of floors and does not exist"}},
		{"a folder too few", without("cmd/"), []string{"cmd/ is in the table of floors and does not exist"}},
		{"one generated file", without("zsys_linux_arm.go"), nil},
		{"a test of nothing", append(slices.Clone(good), "socket_test.go"), []string{"socket_test.go tests no file: there is no socket.go"}},
		{"a test too few", without("race_test.go"), []string{"race_test.go is listed as a test and does not exist"}},
		{"a test of a file after all", append(slices.Clone(good), "race.go"),
			[]string{"race.go is not in the table of floors", "race_test.go is listed as a test of the whole package, and race.go exists"}},
	} {
		if got := h.files(tt.files); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestHouseUnread(t *testing.T) {
	linux, other := fake(t, map[string]string{"sys.go": "", "text.go": ""}), fake(t, map[string]string{"listen_other.go": ""})
	names := []string{"cmd/", "go.mod", "hidden.go", "listen_other.go", "sys.go", "sys_test.go", "text.go"}
	if got := unread(names, []*packages.Package{linux, other}); !slices.Equal(got, []string{"hidden.go is in no build that is tested"}) {
		t.Errorf("got %q", got)
	}
}

func TestHouseArrows(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"all that is allowed", map[string]string{
			"zsys_linux_386.go": "const number = 1; type k struct{ Field int }",
			"errors.go":         "type failure struct{}; func (failure) Error() string { return `` }",
			"sys.go":            "func call() (k, error) { var x k; x.Field = number + other; return x, failure{} }",
			"sys_exec.go":       "const other = 2; func exec() { call() }",
			"handle.go":         "type H struct{ k }; func (h H) Get() int { return h.Field }",
			"pidfd.go":          "type P struct{ H }; func (p P) Wait() int { return p.wait() + p.Get() + p.Field }",
			"pidfd_wait.go":     "func (p P) wait() int { return p.Wait() }",
			"listen.go":         "func Listen(p P, h H) int { return p.Wait() + h.Get() + number }",
			"feature.go":        "func Feature() int { return Listen(P{}, H{}) }",
		}, nil},
		{"function", map[string]string{
			"sys.go":     "func call() {\nhandle() }",
			"handle.go":  "func handle() {}",
			"feature.go": "",
		}, []string{"sys.go:3: on floor 2, uses handle, which is on floor 4 in handle.go:2"}},
		{"type, constant and variable", map[string]string{
			"handle.go": "type x ID\nvar y = last\nvar z = now",
			"pidfd.go":  "type ID int\nconst last = 3\nvar now = 4",
		}, []string{
			"handle.go:2: on floor 4, uses ID, which is on floor 5 in pidfd.go:2",
			"handle.go:3: on floor 4, uses last, which is on floor 5 in pidfd.go:3",
			"handle.go:4: on floor 4, uses now, which is on floor 5 in pidfd.go:4",
		}},
		{"on the same floor, in no wing", map[string]string{
			"errors.go": "func fail() { hex() }",
			"text.go":   "func hex() {}",
		}, []string{"errors.go:2: on floor 1, uses hex, which is on floor 1 in text.go:2"}},
		{"method of a type below", map[string]string{
			"sys.go":    "type fd int\nfunc use(f fd) { f.handle() }",
			"handle.go": "func (fd) handle() {}",
		}, []string{"sys.go:3: on floor 2, uses (fd).handle, which is on floor 4 in handle.go:2"}},
		{"method value and method of a pointer", map[string]string{
			"sys.go":    "type fd int\nvar f fd\nvar x, y = f.a, (*fd).b",
			"handle.go": "func (fd) a() {}; func (*fd) b() {}",
		}, []string{
			"sys.go:4: on floor 2, uses (fd).a, which is on floor 4 in handle.go:2",
			"sys.go:4: on floor 2, uses (*fd).b, which is on floor 4 in handle.go:2",
		}},
		{"method of an interface", map[string]string{
			"sys.go":    "type taker[T any] struct{ of T }\nvar t = make\nfunc use() { t().of.Take() }",
			"handle.go": "type I interface{ Take() }; func make() (t taker[I]) { return t }",
		}, []string{
			"sys.go:3: on floor 2, uses make, which is on floor 4 in handle.go:2",
			"sys.go:4: on floor 2, uses (I).Take, which is on floor 4 in handle.go:2",
		}},
		{"field", map[string]string{
			"sys.go":    "var all struct{ H }\nfunc use() { all.x = 1 }",
			"handle.go": "type H struct{ x int }",
		}, []string{
			"sys.go:2: on floor 2, uses H, which is on floor 4 in handle.go:2",
			"sys.go:3: on floor 2, uses the field x, which is on floor 4 in handle.go:2",
		}},
		{"key of a literal", map[string]string{
			"sys.go":    "var h = H{x: 1}",
			"handle.go": "type H struct{ x int }",
		}, []string{
			"sys.go:2: on floor 2, uses H, which is on floor 4 in handle.go:2",
			"sys.go:2: on floor 2, uses the field x, which is on floor 4 in handle.go:2",
		}},
		{"through embedded fields", map[string]string{
			"zsys_linux_386.go": "type k struct{ deep int }; func (*k) m() {}",
			"sys.go":            "func use[T interface{ get() *top }](t T) {\nt.get().deep = 1\nt.get().m() }",
			"handle.go":         "type top struct{ middle }; type middle struct{ *k }",
		}, []string{
			"sys.go:2: on floor 2, uses top, which is on floor 4 in handle.go:2",
			"sys.go:3: on floor 2, uses the field middle, which is on floor 4 in handle.go:2",
			"sys.go:3: on floor 2, uses the field k, which is on floor 4 in handle.go:2",
			"sys.go:4: on floor 2, uses the field middle, which is on floor 4 in handle.go:2",
			"sys.go:4: on floor 2, uses the field k, which is on floor 4 in handle.go:2",
		}},
		{"generic", map[string]string{
			"sys.go":    "var x = twice[int](1)\nvar y = box[int]{}.v",
			"handle.go": "func twice[T any](t T) T { return t }; type box[T any] struct{ v T }",
		}, []string{
			"sys.go:2: on floor 2, uses twice, which is on floor 4 in handle.go:2",
			"sys.go:3: on floor 2, uses box, which is on floor 4 in handle.go:2",
			"sys.go:3: on floor 2, uses the field v, which is on floor 4 in handle.go:2",
		}},
		{"in a generated file", map[string]string{
			"zsys_linux_386.go": "const a = b",
			"text.go":           "const b = 1",
		}, []string{"zsys_linux_386.go:2: on floor 0, uses b, which is on floor 1 in text.go:2"}},
		{"feature.go", map[string]string{
			"listen.go":  "func Listen() { Feature() }",
			"feature.go": "func Feature() {}",
		}, []string{"listen.go:2: on floor 6, uses Feature, which is on floor 7 in feature.go:2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := fakeHouse(t)
			var got []string
			for _, a := range h.arrows(fake(t, tt.files)) {
				got = append(got, h.describe(a))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestHouseLowlevel(t *testing.T) {
	const raw = "import (`syscall`; `unsafe`)\nvar _ unsafe.Pointer\nfunc call() { syscall.Syscall(1, 2, 3, 4) }\n"
	const calls = "import `" + unixPath + "`\nfunc use() { unix.Poll(nil) }\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"where it belongs", map[string]string{"sys.go": raw, "sys_exec.go": calls}, nil},
		{"in what is generated", map[string]string{"zsys_linux_386.go": raw}, nil},
		{"what is no raw call", map[string]string{
			"pidfd.go": "import `syscall`\nfunc use(c syscall.Conn) (syscall.Errno, error) { c.SyscallConn(); return 1, syscall.Close(1) }",
		}, nil},
		{"unix without calls", map[string]string{
			"pidfd.go": "import `" + unixPath + "`\nvar p unix.PollFd\nfunc use() int { return int(p.Fd) + unix.AT_FDCWD }",
		}, nil},
		{"raw calls", map[string]string{
			"pidfd.go":  "import . `syscall`\nvar raw = RawSyscall6\nfunc use() { AllThreadsSyscall(1, 2, 3, 4) }\nfunc Syscall2() {}\nvar own = Syscall2",
			"listen.go": "import `" + unixPath + "`\nfunc call() { unix.RawSyscallNoError(1, 2, 3, 4) }\n",
		}, []string{
			"listen.go:3: unix.RawSyscallNoError makes a raw system call outside sys* and zsys*",
			"pidfd.go:3: syscall.RawSyscall6 makes a raw system call outside sys* and zsys*",
			"pidfd.go:4: syscall.AllThreadsSyscall makes a raw system call outside sys* and zsys*",
		}},
		{"unix", map[string]string{
			"zsys_linux_386.go": calls,
			"handle.go":         "import `" + unixPath + "`\nfunc call(p unix.PollFd) { p.Method() }\nvar in = unix.Stdin",
		}, []string{
			"handle.go:3: unix.Method uses a function or a variable of golang.org/x/sys/unix outside sys*",
			"handle.go:4: unix.Stdin uses a function or a variable of golang.org/x/sys/unix outside sys*",
			"zsys_linux_386.go:3: unix.Poll uses a function or a variable of golang.org/x/sys/unix outside sys*",
		}},
		{"raw calls of Windows", map[string]string{
			"listen.go": "import `syscall`\nfunc call(p *syscall.Proc) {\nsyscall.SyscallN(1)\np.Call() }",
		}, []string{
			"listen.go:4: syscall.SyscallN makes a raw system call outside sys* and zsys*",
			"listen.go:5: syscall.Call makes a raw system call outside sys* and zsys*",
		}},
		{"packages of the module", map[string]string{
			"sys.go":  "import _ `example.org/p/low`",
			"text.go": "import _ `example.org/plainer`",
		}, []string{"sys.go:2: imports example.org/p/low, where no rule holds"}},
		{"another name", map[string]string{
			"pidfd.go": "import `unsafe`\n/*line sys.go:8*/ var x unsafe.Pointer",
			"text.go":  "// a line\n//line sys.go:8",
		}, []string{
			"pidfd.go:2: imports unsafe outside sys* and zsys*",
			"pidfd.go:3: claims to be another file",
			"text.go:3: claims to be another file",
		}},
		{"unsafe", map[string]string{
			"pidfd.go":  "import `unsafe`\nvar x unsafe.Pointer",
			"listen.go": "import _ `unsafe`\n//go:linkname now runtime.now\nfunc now()",
			"text.go":   "import why `unsafe`\nvar _ why.Pointer",
		}, []string{
			"listen.go:2: imports unsafe outside sys* and zsys*",
			"listen.go:3: has a linkname outside sys* and zsys*",
			"pidfd.go:2: imports unsafe outside sys* and zsys*",
			"text.go:2: imports unsafe outside sys* and zsys*",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := fakeHouse(t)
			p := fake(t, tt.files)
			got := slices.Concat(h.header(p), h.lowlevel(p))
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
	h := fakeHouse(t)
	p := fake(t, nil)
	p.OtherFiles, p.IgnoredFiles = []string{"/src/call_amd64.s"}, []string{"/src/call_arm.s", "/src/listen_other.go"}
	if got := h.lowlevel(p); !slices.Equal(got, []string{"call_amd64.s is not Go", "call_arm.s is not Go"}) {
		t.Errorf("assembly: got %q", got)
	}
}

func TestHouseStartup(t *testing.T) {
	p := fake(t, map[string]string{
		"errors.go": "import `errors`\nfunc refused() error { return errors.Join() }\ntype T struct{}; func (T) init() {}; func (T) refused() int { return 1 }\n" +
			"var a, b = errors.New(``), refused()\nvar c = T(struct{}{})\nconst d = len(`d`)\nvar e = func() error { return errors.Join(a) }\n" +
			"func f() { var g = errors.Join(e()); _ = g }",
		"sys.go": "import `errors`\nfunc init() {}\nvar x = errors.Join(\na)\nvar y = []int{\nT{}.refused()}\nvar z = func() int { return 1 }()\nvar m = make(chan int)\n" +
			"var n = errors.New(\nname())\nfunc name() string { return `` }\nvar o = e()",
	})
	const calls = "is called at package level"
	want := []string{"sys.go:3: is an init function", "sys.go:4: " + calls, "sys.go:7: " + calls, "sys.go:8: " + calls, "sys.go:9: " + calls,
		"sys.go:11: " + calls, "sys.go:13: " + calls}
	if got := startup(p); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestHouseClosure(t *testing.T) {
	pkg := func(path string, imports ...*packages.Package) *packages.Package {
		p := &packages.Package{Name: path, PkgPath: path, Imports: map[string]*packages.Package{}}
		for _, i := range imports {
			p.Imports[i.PkgPath] = i
		}
		return p
	}
	net := pkg("net", pkg("runtime/cgo"))
	context := pkg("context", pkg("sync"))
	h := fakeHouse(t)
	for _, tt := range []struct {
		p    *packages.Package
		want []string
	}{
		{pkg("p", context, pkg("network")), nil},
		{pkg("p", net), []string{"p -> net is imported"}},
		{pkg("p", context, pkg("log", net), net), []string{"p -> log -> net is imported"}},
		{pkg("p", pkg("a", pkg("b", pkg("runtime/cgo")))), []string{"p -> a -> b -> runtime/cgo is imported"}},
	} {
		if got := h.closure(tt.p); !slices.Equal(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestHouseNames(t *testing.T) {
	h := fakeHouse(t)
	p := fake(t, map[string]string{"pidfd.go": "type PidFD struct{ fd int }\nfunc (*PidFD) Wait() {}\nfunc Open() {}"})
	exists := func(name string) bool { return name == "sys.go" || name == "gen/abi.go" || name == "cmd/" }
	declared := func(name string) bool { return declaredIn(p.Types, name) }
	page := "`sys.go` in `cmd/` and `gen/abi.go`: `Open`, `PidFD.Wait`, `PidFD.fd`, `unsafe`, `net`, `$LISTEN_FDS`, `sys*`, `zsys_linux_$GOARCH.go`\n"
	if got := h.names(page, exists, declared); got != nil {
		t.Errorf("got %q", got)
	}
	want := []string{
		"the page names the file gen/main.go, which does not exist",
		"the page names the file test/, which does not exist",
		"the page names Close, which is not defined",
		"the page names PidFD.Signal, which is not defined",
		"the page names Process.Wait, which is not defined",
	}
	if got := h.names(page+"`gen/main.go` `test/` `Close` `PidFD.Signal` `Process.Wait`", exists, declared); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
