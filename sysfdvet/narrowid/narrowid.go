// Package narrowid finds IDs of 64 bits that are cut off.
package narrowid

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds IDs that do not fit what they are put into.
var Analyzer = &analysis.Analyzer{
	Name: "narrowid",
	Doc: `find 64-bit IDs of processes, cgroups, namespaces and mounts that are cut off or ordered

A sysfd.PidFDID, CgroupID, NamespaceID or MountID, and the inode number of a pidfd, have 64 bits. int, uint and
uintptr have 32 on 386, arm, mips and mipsle, where the upper half is lost; in int32 and uint32 it is lost on
all machines, and in a float64 the last bits. Numbers that are read by strconv with 32 bits, or with
the bits of an int, are refused from 1<<31 or 1<<32 on. The tests of a program do not see any of that, because
the kernel begins to count at small numbers.

A larger PidFDID, CgroupID or NamespaceID is not a younger one: kernels give them out in batches for each
processor.`,
	URL:      report.URL + "narrowid",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil || !f.HasIDs {
		return nil, nil
	}
	told := report.Told{}
	for _, fn := range f.Funcs {
		for _, in := range flow.Instructions(fn) {
			switch in := in.(type) {
			case *ssa.Convert:
				conversion(pass, f, told, in, in.X, in.Type())
			case *ssa.MultiConvert:
				conversion(pass, f, told, in, in.X, in.Type())
			case *ssa.ChangeType:
				if id := flow.IDType(in.Type()); id != "" {
					parsed(pass, f, told, in.X, id)
				}
			case *ssa.BinOp:
				ordered(pass, f, in)
			}
		}
	}
	return nil, nil
}

func conversion(pass *analysis.Pass, f *flow.Flow, told report.Told, in ssa.Value, from ssa.Value, to types.Type) {
	if id := flow.IDType(to); id != "" {
		parsed(pass, f, told, from, id)
		return
	}
	loss, narrow32 := lossOf(to)
	if loss == "" {
		return
	}
	if _, isConst := from.(*ssa.Const); isConst {
		return
	}
	if !holdsAll(from.Type()) {
		return
	}
	id, ok := f.ID(from)
	if !ok || harmless(in, from) {
		return
	}
	call := flow.At[*ast.CallExpr](f, in.Pos())
	if call == nil || len(call.Args) != 1 || narrow32 && !report.On32(pass, call) {
		return
	}
	report.At(pass, call, fmt.Sprintf("%s has 64 bits: %s", described(id), loss), fix(pass, f, call)...)
}

func described(id string) string {
	if strings.Contains(id, " ") {
		return id
	}
	return "a " + id
}

// holdsAll tells whether a value of the type can still be the whole ID.
func holdsAll(t types.Type) bool {
	if _, ok := types.Unalias(t).(*types.TypeParam); ok {
		return true
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && (b.Kind() == types.Int64 || b.Kind() == types.Uint64)
}

// lossOf tells what is lost of an ID in a type, and whether that is so on 32-bit machines alone.
func lossOf(t types.Type) (loss string, narrow32 bool) {
	b, ok := t.Underlying().(*types.Basic)
	if !ok {
		return "", false
	}
	switch b.Kind() {
	case types.Int, types.Uint, types.Uintptr:
		return fmt.Sprintf("%s keeps the lower 32 on 386, arm, mips and mipsle", b.Name()), true
	case types.Int32, types.Uint32:
		return fmt.Sprintf("%s keeps the lower 32, on all machines", b.Name()), false
	case types.Int16, types.Uint16, types.Int8, types.Uint8:
		return fmt.Sprintf("%s loses most of them, on all machines", b.Name()), false
	case types.Float32, types.Float64:
		return fmt.Sprintf("%s rounds them, on all machines", b.Name()), false
	}
	return "", false
}

// harmless tells whether the conversion is for a hash, or for one half of what is taken as two.
func harmless(in, from ssa.Value) bool {
	refs := *in.Referrers()
	hash := len(refs) > 0
	for _, ref := range refs {
		op, ok := ref.(*ssa.BinOp)
		if !ok || op.Op != token.REM && op.Op != token.AND {
			hash = false
		}
	}
	if hash {
		return true
	}
	for _, sibling := range siblings(from) {
		for _, ref := range *sibling.Referrers() {
			if op, ok := ref.(*ssa.BinOp); ok && op.Op == token.SHR && op.X == sibling {
				return true
			}
		}
	}
	return false
}

// siblings are the values that are the same ID as v: what it was converted from, and what that was converted to.
func siblings(v ssa.Value) (all []ssa.Value) {
	for {
		switch x := v.(type) {
		case *ssa.Convert:
			v = x.X
			continue
		case *ssa.ChangeType:
			v = x.X
			continue
		}
		break
	}
	if v.Referrers() == nil {
		return nil
	}
	all = []ssa.Value{v}
	for i := 0; i < len(all); i++ {
		for _, ref := range *all[i].Referrers() {
			switch ref := ref.(type) {
			case *ssa.Convert:
				if holdsAll(ref.Type()) {
					all = append(all, ref)
				}
			case *ssa.ChangeType:
				all = append(all, ref)
			}
		}
	}
	// A variable that is in memory is loaded anew each time.
	if load, ok := v.(*ssa.UnOp); ok && load.Op == token.MUL && load.X.Referrers() != nil {
		for _, ref := range *load.X.Referrers() {
			if other, ok := ref.(*ssa.UnOp); ok && other != load {
				all = append(all, other)
				for _, ref := range *other.Referrers() {
					if c, ok := ref.(*ssa.Convert); ok && holdsAll(c.Type()) {
						all = append(all, c)
					}
				}
			}
		}
	}
	return all
}

// fix offers uint64 where any integer will do: in strconv.Itoa, and as an argument that is printed.
func fix(pass *analysis.Pass, f *flow.Flow, conversion *ast.CallExpr) []analysis.SuggestedFix {
	if inner := pass.Pkg.Scope().Innermost(conversion.Pos()); inner == nil {
		return nil
	} else if scope, _ := inner.LookupParent("uint64", conversion.Pos()); scope != types.Universe {
		return nil
	}
	path := f.Enclosing(conversion.Pos())
	for i, node := range path {
		if node != conversion || i+1 >= len(path) {
			continue
		}
		outer, ok := path[i+1].(*ast.CallExpr)
		if !ok {
			return nil
		}
		selector, ok := outer.Fun.(*ast.SelectorExpr)
		if !ok {
			return nil
		}
		called, ok := pass.TypesInfo.Uses[selector.Sel].(*types.Func)
		if !ok {
			return nil
		}
		text := "uint64(" + report.Source(pass, conversion.Args[0]) + ")"
		switch flow.PathOf(called.Pkg()) + "." + called.Name() {
		case "strconv.Itoa":
			return []analysis.SuggestedFix{report.Replace("Write all 64 bits", outer,
				report.Source(pass, selector.X)+".FormatUint("+text+", 10)")}
		case "fmt.Print", "fmt.Println", "fmt.Printf", "fmt.Sprint", "fmt.Sprintln", "fmt.Sprintf", "fmt.Fprint", "fmt.Fprintln", "fmt.Fprintf", "fmt.Errorf":
			return []analysis.SuggestedFix{report.Replace("Print all 64 bits", conversion, text)}
		}
		return nil
	}
	return nil
}

// parsed looks at a number that was read from a text and becomes an ID.
func parsed(pass *analysis.Pass, f *flow.Flow, told report.Told, from ssa.Value, id string) {
	if id == "MountID" {
		return // those of the common kind have 31 bits
	}
	f.Trace(from, func(v ssa.Value) flow.Verdict {
		c, index := flow.Call(v)
		if c == nil || index != 0 {
			return flow.Through
		}
		name := flow.Callee(c)
		var loss string
		only32 := true
		switch name {
		case "strconv.Atoi":
			loss = "Atoi refuses IDs from 1<<31 on, on 386, arm, mips and mipsle"
		case "strconv.ParseInt", "strconv.ParseUint":
			bits, ok := flow.Int(c.Call.Args[2])
			switch {
			case !ok || bits != 0 && bits > 32:
				return flow.Yes
			case bits == 0:
				loss = strings.TrimPrefix(name, "strconv.") + " with the size of an int refuses large IDs on 386, arm, mips and mipsle"
			default:
				only32 = false
				loss = fmt.Sprintf("%s with %d bits refuses large IDs, on all machines", strings.TrimPrefix(name, "strconv."), bits)
			}
		default:
			return flow.Through
		}
		call := f.Expr(c)
		if call == nil || only32 && !report.On32(pass, call) {
			return flow.Yes
		}
		told.At(pass, call, fmt.Sprintf("%s has 64 bits: %s", described(id), loss), fixParse(pass, f, c, call, name)...)
		return flow.Yes
	})
}

func fixParse(pass *analysis.Pass, f *flow.Flow, c *ssa.Call, call *ast.CallExpr, name string) []analysis.SuggestedFix {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	if name == "strconv.ParseUint" {
		return []analysis.SuggestedFix{report.Replace("Read 64 bits", call.Args[2], "64")}
	}
	// The result has another type then, so it may only go where any integer may.
	for _, ref := range *c.Referrers() {
		e, ok := ref.(*ssa.Extract)
		if !ok || e.Index != 0 {
			continue
		}
		for _, use := range *e.Referrers() {
			if to, ok := use.(*ssa.Convert); !ok || flow.IDType(to.Type()) == "" {
				return nil
			}
		}
	}
	assign := flow.At[*ast.AssignStmt](f, call.Pos())
	if assign == nil || assign.Tok != token.DEFINE || len(assign.Lhs) != 2 || len(assign.Rhs) != 1 || assign.Rhs[0] != call {
		return nil
	}
	if id, ok := assign.Lhs[0].(*ast.Ident); !ok || pass.TypesInfo.Defs[id] == nil {
		return nil
	}
	base := "10"
	if name == "strconv.ParseInt" {
		base = report.Source(pass, call.Args[1])
	}
	text := fmt.Sprintf("%s.ParseUint(%s, %s, 64)", report.Source(pass, selector.X), report.Source(pass, call.Args[0]), base)
	return []analysis.SuggestedFix{report.Replace("Read 64 bits", call, text)}
}

// ordered looks at a comparison by size. To put IDs in some order is fine: of a set, to print it.
func ordered(pass *analysis.Pass, f *flow.Flow, op *ssa.BinOp) {
	switch op.Op {
	case token.LSS, token.LEQ, token.GTR, token.GEQ:
	default:
		return
	}
	for _, side := range []ssa.Value{op.X, op.Y} {
		if _, isConst := side.(*ssa.Const); isConst || !holdsAll(side.Type()) {
			return
		}
	}
	idX, ok := f.ID(op.X)
	if !ok || idX == "MountID" {
		return // the kernel counts unique mount IDs up
	}
	if idY, ok := f.ID(op.Y); !ok || idX != idY {
		return
	}
	node := flow.At[*ast.BinaryExpr](f, op.Pos())
	if node == nil || sorts(f, node) {
		return
	}
	report.At(pass, node, fmt.Sprintf("%s says nothing about order: a larger one is not a younger one, since the kernel gives them out in batches for each processor", described(idX)))
}

// sorts tells whether node is in a function that defines an order: an argument of package sort or slices, or one with
// the name of such a thing.
func sorts(f *flow.Flow, node ast.Node) bool {
	path := f.Enclosing(node.Pos())
	for i, n := range path {
		switch n := n.(type) {
		case *ast.FuncLit:
			if i+1 < len(path) {
				if _, isArgument := path[i+1].(*ast.CallExpr); isArgument {
					return true
				}
			}
		case *ast.FuncDecl:
			name := strings.ToLower(n.Name.Name)
			return strings.Contains(name, "less") || strings.Contains(name, "compare") || strings.Contains(name, "cmp") || strings.Contains(name, "sort") || name == "before"
		}
	}
	return false
}
