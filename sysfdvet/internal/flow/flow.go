// Package flow tells the analyzers where a value comes from: through variables, struct fields and
// calls within the package.
package flow

import (
	"go/ast"
	"go/token"
	"go/types"
	"reflect"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ast/astutil"
	"golang.org/x/tools/go/ssa"
)

// Analyzer builds the SSA form of those packages that have something for the others to look at, and of no
// other: that is most of the time that they take. It does not require buildssa, which builds
// all and computes facts about all dependencies.
var Analyzer = &analysis.Analyzer{
	Name:       "sysfdflow",
	Doc:        "where values come from, for the other analyzers of sysfdvet",
	URL:        "https://pkg.go.dev/github.com/sysfd/sysfd/sysfdvet",
	Run:        run,
	ResultType: reflect.TypeFor[*Flow](),
}

// A Flow knows the functions of a package and what is stored where. The nil Flow is that of a package without
// anything to look at.
type Flow struct {
	Funcs  []*ssa.Function // all that have source, function literals too
	HasIDs bool            // whether there can be an ID of 64 bits, or the inode number of a pidfd

	pass    *analysis.Pass
	stores  map[any][]ssa.Value // by *ssa.Alloc, *ssa.Global, or *types.Var of a field or an element
	calls   map[*ssa.Function][]ssa.CallInstruction
	asValue map[*ssa.Function]bool // functions that are used other than by calling them
	closed  map[*ssa.Function][]*ssa.MakeClosure
}

// What a package must use to be looked at, by package and name.
var interesting = map[string]map[string]bool{
	"os":      set("NewFile", "FindProcess", "Fd"),
	"net":     set("FileListener", "FileConn", "FilePacketConn"),
	"syscall": set("Ino", "Kill", "Wait4", "Getpid"),
	"golang.org/x/sys/unix": set("Ino", "Kill", "Tgkill", "Wait4", "Waitid", "NameToHandleAt", "SYS_NAME_TO_HANDLE_AT",
		"PidfdOpen", "SYS_PIDFD_OPEN", "PidfdInfo"),
}

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, name := range names {
		m[name] = true
	}
	return m
}

// Sysfd is the import path of the package that has the better functions.
const Sysfd = "github.com/sysfd/sysfd"

// PathOf is the import path of a package; that of a vendored copy is the one that it was copied from.
func PathOf(p *types.Package) string {
	if p == nil {
		return ""
	}
	path := p.Path()
	if i := strings.LastIndex("/"+path, "/vendor/"); i >= 0 {
		return path[i+len("vendor/"):]
	}
	return path
}

// lookAtAll is set by tests.
var lookAtAll bool

// worthwhile tells whether the package has anything to look at, and whether that can be an ID.
func worthwhile(pass *analysis.Pass) (worth, ids bool) {
	if lookAtAll {
		return true, true
	}
	for _, obj := range pass.TypesInfo.Uses {
		path, name := PathOf(obj.Pkg()), obj.Name()
		if path == Sysfd || interesting[path][name] {
			worth = true
			ids = ids || path == Sysfd || name == "Ino"
		}
		switch obj := obj.(type) {
		case *types.Var:
			if IDType(obj.Type()) != "" {
				return true, true
			}
		case *types.Func: // of a package in between
			for result := range obj.Signature().Results().Variables() {
				if IDType(result.Type()) != "" {
					return true, true
				}
			}
		}
	}
	if worth {
		return worth, ids
	}
	// The environment is also read with names that are constants of other packages, which is not looked for.
	for _, f := range pass.Files {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && strings.Contains(lit.Value, "LISTEN_") {
				worth = true
			}
			return !worth
		})
	}
	return worth, false
}

func run(pass *analysis.Pass) (any, error) {
	worth, ids := worthwhile(pass)
	if !worth {
		return (*Flow)(nil), nil
	}
	prog := ssa.NewProgram(pass.Fset, 0)
	for _, p := range pass.Pkg.Imports() {
		prog.CreatePackage(p, nil, nil, true)
	}
	pkg := prog.CreatePackage(pass.Pkg, pass.Files, pass.TypesInfo, false)
	pkg.Build()

	f := &Flow{
		HasIDs: ids, pass: pass, stores: map[any][]ssa.Value{}, calls: map[*ssa.Function][]ssa.CallInstruction{},
		asValue: map[*ssa.Function]bool{}, closed: map[*ssa.Function][]*ssa.MakeClosure{},
	}
	var add func(fn *ssa.Function)
	add = func(fn *ssa.Function) {
		f.Funcs = append(f.Funcs, fn)
		for _, anon := range fn.AnonFuncs {
			add(anon)
		}
	}
	if init := pkg.Func("init"); init != nil {
		add(init) // package-level variables
	}
	for _, file := range pass.Files {
		for _, decl := range file.Decls {
			if decl, ok := decl.(*ast.FuncDecl); ok {
				if obj, ok := pass.TypesInfo.Defs[decl.Name].(*types.Func); ok {
					if fn := prog.FuncValue(obj); fn != nil {
						add(fn)
					}
				}
			}
		}
	}
	f.index()
	return f, nil
}

func (f *Flow) index() {
	for _, fn := range f.Funcs {
		for _, in := range Instructions(fn) {
			if c, ok := in.(*ssa.MakeClosure); ok {
				fn := c.Fn.(*ssa.Function)
				f.closed[fn] = append(f.closed[fn], c)
			}
		}
	}
	var operands []*ssa.Value
	for _, fn := range f.Funcs {
		for _, in := range Instructions(fn) {
			if s, ok := in.(*ssa.Store); ok {
				for _, place := range f.places(s.Addr) {
					f.stores[place] = append(f.stores[place], s.Val)
				}
			}
			var callee *ssa.Function
			if c, ok := in.(ssa.CallInstruction); ok {
				if callee = origin(c.Common().StaticCallee()); callee != nil {
					f.calls[callee] = append(f.calls[callee], c)
				}
			}
			operands = in.Operands(operands[:0])
			for i, o := range operands {
				used, ok := (*o).(*ssa.Function)
				if !ok {
					continue
				}
				// The first operand of a call is what is called.
				if _, isCall := in.(ssa.CallInstruction); isCall && i == 0 && origin(used) == callee {
					continue
				}
				if _, isClosure := in.(*ssa.MakeClosure); isClosure && closureIsCalled(in.(*ssa.MakeClosure)) {
					continue
				}
				f.asValue[origin(used)] = true
			}
		}
	}
}

// closureIsCalled tells whether c is used in no other way than by calls.
func closureIsCalled(c *ssa.MakeClosure) bool {
	for _, ref := range *c.Referrers() {
		call, ok := ref.(ssa.CallInstruction)
		if !ok || call.Common().Value != c {
			return false
		}
		for _, arg := range call.Common().Args {
			if arg == c {
				return false
			}
		}
	}
	return true
}

func origin(fn *ssa.Function) *ssa.Function {
	if fn != nil && fn.Origin() != nil {
		return fn.Origin()
	}
	return fn
}

// Instructions are those of all blocks of fn.
func Instructions(fn *ssa.Function) (all []ssa.Instruction) {
	for _, b := range fn.Blocks {
		all = append(all, b.Instrs...)
	}
	return all
}

// FieldOf returns the field that v is the value or the address of, or nil.
func FieldOf(v ssa.Value) (field *types.Var, of ssa.Value) {
	var t types.Type
	var index int
	switch v := v.(type) {
	case *ssa.FieldAddr:
		of, index = v.X, v.Field
		p, ok := v.X.Type().Underlying().(*types.Pointer)
		if !ok {
			return nil, nil
		}
		t = p.Elem()
	case *ssa.Field:
		of, index, t = v.X, v.Field, v.X.Type()
	case *ssa.UnOp:
		if v.Op == token.MUL {
			if a, ok := v.X.(*ssa.FieldAddr); ok {
				return FieldOf(a)
			}
		}
		return nil, nil
	default:
		return nil, nil
	}
	s, ok := t.Underlying().(*types.Struct)
	if !ok {
		return nil, nil
	}
	return s.Field(index).Origin(), of
}

// places returns the variables that addr is the address of, or nothing if that is not known.
func (f *Flow) places(addr ssa.Value) []any {
	switch addr := addr.(type) {
	case *ssa.Alloc:
		return []any{addr}
	case *ssa.Global:
		return []any{addr}
	case *ssa.FieldAddr:
		if field, _ := FieldOf(addr); field != nil {
			return []any{field}
		}
	case *ssa.IndexAddr:
		// The elements of an array or slice are one variable, if it is known which.
		return f.places(addr.X)
	case *ssa.Slice:
		return f.places(addr.X)
	case *ssa.FreeVar:
		var all []any
		fn := addr.Parent()
		for i, v := range fn.FreeVars {
			if v != addr {
				continue
			}
			for _, c := range f.closed[fn] {
				all = append(all, f.places(c.Bindings[i])...)
			}
		}
		return all
	}
	return nil
}

// Callee is the full name of the function or method that is called, as types.Func.FullName writes it, or "" if
// that is not known.
func Callee(c ssa.CallInstruction) string {
	common := c.Common()
	var obj *types.Func
	if common.IsInvoke() {
		obj = common.Method
	} else if fn := origin(common.StaticCallee()); fn != nil {
		obj, _ = fn.Object().(*types.Func)
	}
	return fullName(obj)
}

func fullName(obj *types.Func) string {
	if obj == nil || obj.Pkg() == nil {
		return ""
	}
	return strings.Replace(obj.FullName(), obj.Pkg().Path()+".", PathOf(obj.Pkg())+".", 1)
}

// A Verdict is what a visitor of [Flow.Trace] says about a value.
type Verdict struct {
	kind kind
	next []ssa.Value
}

type kind int

const (
	through kind = iota
	yes
	no
	neutral
	instead
)

var (
	Through = Verdict{kind: through} // look at what it was made of
	Yes     = Verdict{kind: yes}
	No      = Verdict{kind: no}
	Neutral = Verdict{kind: neutral} // such as a zero
)

// Decides tells whether v is another verdict than Through.
func (v Verdict) Decides() bool { return v.kind != through }

// Instead has other values looked at.
func Instead(next ...ssa.Value) Verdict { return Verdict{instead, next} }

// Trace visits v and what it may have come from. all tells that each source was a Yes or Neutral and there was a Yes;
// any that there was a Yes. What cannot be followed is a No, a constant Neutral.
//
// A variable whose address goes elsewhere is visited as the *ssa.Alloc.
func (f *Flow) Trace(v ssa.Value, visit func(ssa.Value) Verdict) (all, any bool) {
	t := tracer{f: f, visit: visit, seen: map[ssa.Value]bool{}}
	t.trace(v)
	return t.yes && !t.no, t.yes
}

type tracer struct {
	f       *Flow
	visit   func(ssa.Value) Verdict
	seen    map[ssa.Value]bool
	yes, no bool
}

// More than this is given up.
const longestTrace = 2000

func (t *tracer) trace(v ssa.Value) {
	if v == nil {
		t.no = true
		return
	}
	if t.seen[v] {
		return
	}
	t.seen[v] = true
	if len(t.seen) > longestTrace {
		t.no = true
		return
	}
	switch verdict := t.visit(v); verdict.kind {
	case yes:
		t.yes = true
		return
	case no:
		t.no = true
		return
	case neutral:
		return
	case instead:
		for _, v := range verdict.next {
			t.trace(v)
		}
		return
	}
	switch v := v.(type) {
	case *ssa.Const:
	case *ssa.Phi:
		for _, e := range v.Edges {
			t.trace(e)
		}
	case *ssa.ChangeType:
		t.trace(v.X)
	case *ssa.Convert:
		t.trace(v.X)
	case *ssa.MultiConvert:
		t.trace(v.X)
	case *ssa.ChangeInterface:
		t.trace(v.X)
	case *ssa.MakeInterface:
		t.trace(v.X)
	case *ssa.TypeAssert:
		t.trace(v.X)
	case *ssa.Extract:
		switch tuple := v.Tuple.(type) {
		case *ssa.Call:
			t.results(tuple, v.Index)
		case *ssa.TypeAssert:
			t.trace(tuple.X)
		default:
			t.no = true
		}
	case *ssa.Call:
		t.results(v, 0)
	case *ssa.Parameter:
		t.parameter(v)
	case *ssa.Field:
		t.places(v)
	case *ssa.UnOp:
		if v.Op != token.MUL {
			t.no = true
			return
		}
		t.places(v.X)
	case *ssa.FreeVar:
		t.places(v)
	default:
		t.no = true
	}
}

// places traces all that is stored in the variable at addr.
func (t *tracer) places(addr ssa.Value) {
	places := t.f.places(addr)
	if field, ok := addr.(*ssa.Field); ok {
		if field, _ := FieldOf(field); field != nil {
			places = []any{field}
		}
	}
	if len(places) == 0 {
		t.no = true
	}
	for _, place := range places {
		stored := t.f.stores[place]
		alloc, isLocal := place.(*ssa.Alloc)
		if isLocal && escapes(alloc) {
			t.trace(alloc)
		} else if len(stored) == 0 && !isLocal {
			t.no = true
		}
		for _, v := range stored {
			t.trace(v)
		}
	}
}

// escapes tells whether something other than this package's loads and stores can change the variable.
func escapes(a *ssa.Alloc) bool {
	for _, ref := range *a.Referrers() {
		switch ref := ref.(type) {
		case *ssa.Store:
			if ref.Val == a {
				return true
			}
		case *ssa.UnOp, *ssa.DebugRef, *ssa.MakeClosure, *ssa.FieldAddr, *ssa.IndexAddr, *ssa.Slice:
		default:
			return true
		}
	}
	return false
}

func (t *tracer) results(c *ssa.Call, index int) {
	fn := origin(c.Call.StaticCallee())
	if fn == nil || fn.Blocks == nil || fn.Pkg == nil || fn.Pkg.Pkg != t.f.pass.Pkg {
		t.no = true
		return
	}
	for _, b := range fn.Blocks {
		if r, ok := b.Instrs[len(b.Instrs)-1].(*ssa.Return); ok {
			t.trace(r.Results[index])
		}
	}
}

// parameter traces the arguments, if all calls are in this package.
func (t *tracer) parameter(p *ssa.Parameter) {
	args, ok := t.f.Arguments(p)
	if !ok {
		t.no = true
	}
	for _, a := range args {
		t.trace(a.Value)
	}
}

// An Argument is what a parameter is in one call.
type Argument struct {
	Value ssa.Value
	Call  ssa.CallInstruction
}

// Arguments returns what p is in all calls, if these are known.
func (f *Flow) Arguments(p *ssa.Parameter) (args []Argument, ok bool) {
	fn := p.Parent()
	exported := fn.Object() != nil && fn.Object().Exported()
	if exported || f.asValue[fn] || len(f.calls[fn]) == 0 {
		return nil, false
	}
	for i, q := range fn.Params {
		if p != q {
			continue
		}
		for _, c := range f.calls[fn] {
			if i >= len(c.Common().Args) {
				return nil, false
			}
			args = append(args, Argument{c.Common().Args[i], c})
		}
	}
	return args, true
}

// Captured returns the variable of the enclosing function that v is, and where the closure was made.
func (f *Flow) Captured(v *ssa.FreeVar) (a *ssa.Alloc, closure *ssa.MakeClosure) {
	fn := v.Parent()
	if len(f.closed[fn]) != 1 {
		return nil, nil
	}
	closure = f.closed[fn][0]
	for i, w := range fn.FreeVars {
		if v == w {
			a, _ = closure.Bindings[i].(*ssa.Alloc)
		}
	}
	return a, closure
}

// Follows tells whether b can be executed after a, which is in the same function.
func Follows(a, b ssa.Instruction) bool {
	if a.Block() == b.Block() {
		for _, in := range a.Block().Instrs {
			if in == a {
				return true
			}
			if in == b {
				break
			}
		}
	}
	seen := map[*ssa.BasicBlock]bool{}
	for queue := a.Block().Succs; len(queue) > 0; queue = queue[1:] {
		block := queue[0]
		if block == b.Block() {
			return true
		}
		if !seen[block] {
			seen[block] = true
			queue = append(queue[:len(queue):len(queue)], block.Succs...)
		}
	}
	return false
}

// Call returns the call that v is the result of, or one of the results.
func Call(v ssa.Value) (call *ssa.Call, index int) {
	switch v := v.(type) {
	case *ssa.Call:
		return v, 0
	case *ssa.Extract:
		if c, ok := v.Tuple.(*ssa.Call); ok {
			return c, v.Index
		}
	}
	return nil, 0
}

// Int returns the value of a constant, through conversions.
func Int(v ssa.Value) (int64, bool) {
	for {
		switch x := v.(type) {
		case *ssa.Convert:
			v = x.X
			continue
		case *ssa.ChangeType:
			v = x.X
			continue
		case *ssa.Const:
			if x.Value == nil {
				return 0, false
			}
			if b, ok := x.Type().Underlying().(*types.Basic); !ok || b.Info()&types.IsInteger == 0 {
				return 0, false
			} else if b.Info()&types.IsUnsigned != 0 {
				return int64(x.Uint64()), true
			}
			return x.Int64(), true
		}
		return 0, false
	}
}

// File returns the file of the source in which pos is.
func (f *Flow) File(pos token.Pos) *ast.File { return FileOf(f.pass, pos) }

// FileOf returns the file of the source in which pos is.
func FileOf(pass *analysis.Pass, pos token.Pos) *ast.File {
	for _, file := range pass.Files {
		if file.FileStart <= pos && pos < file.FileEnd {
			return file
		}
	}
	return nil
}

// At returns the innermost node of the type N around pos, or the zero N.
func At[N ast.Node](f *Flow, pos token.Pos) (n N) {
	file := f.File(pos)
	if file == nil || !pos.IsValid() {
		return n
	}
	path, _ := astutil.PathEnclosingInterval(file, pos, pos)
	for _, node := range path {
		if n, ok := node.(N); ok {
			return n
		}
	}
	return n
}

// Expr returns the source of a call, or nil.
func (f *Flow) Expr(c ssa.CallInstruction) *ast.CallExpr {
	switch c.(type) {
	case *ssa.Defer:
		if s := At[*ast.DeferStmt](f, c.Pos()); s != nil {
			return s.Call
		}
		return nil
	case *ssa.Go:
		if s := At[*ast.GoStmt](f, c.Pos()); s != nil {
			return s.Call
		}
		return nil
	}
	return At[*ast.CallExpr](f, c.Pos())
}

// Enclosing returns the nodes around pos, the innermost first.
func (f *Flow) Enclosing(pos token.Pos) []ast.Node {
	file := f.File(pos)
	if file == nil {
		return nil
	}
	path, _ := astutil.PathEnclosingInterval(file, pos, pos)
	return path
}

// CallsIn returns the calls in fn by the name of what is called, those with defer and go too.
func CallsIn(fn *ssa.Function) (calls []ssa.CallInstruction) {
	for _, in := range Instructions(fn) {
		if c, ok := in.(ssa.CallInstruction); ok {
			calls = append(calls, c)
		}
	}
	return calls
}
