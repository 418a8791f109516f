// Package errnocompare finds comparisons of errors that are never true.
package errnocompare

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

// Analyzer finds errors of package sysfd that are compared with ==.
var Analyzer = &analysis.Analyzer{
	Name: "errnocompare",
	Doc: `find errors of package sysfd that are compared with ==, switch or a type assertion

The errors of package sysfd are an *os.SyscallError, or others that unwrap to the errno and match errors such as
os.ErrProcessDone and errors.ErrUnsupported. None of them is an errno or one of these itself, so that a comparison with ==
or a switch is never true. errors.Is and errors.As are, on all machines.`,
	URL:      report.URL + "errnocompare",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	switches := map[*ast.SwitchStmt]bool{}
	for _, fn := range f.Funcs {
		for _, in := range flow.Instructions(fn) {
			switch in := in.(type) {
			case *ssa.BinOp:
				compared(pass, f, in, switches)
			case *ssa.TypeAssert:
				if isErrno(in.AssertedType) && fromSysfd(f, in.X) {
					if node := assertion(f, in); node != nil {
						report.At(pass, node, "an error of package sysfd is never a syscall.Errno itself, on all machines: ask errors.As")
					}
				}
			}
		}
	}
	return nil, nil
}

func compared(pass *analysis.Pass, f *flow.Flow, op *ssa.BinOp, switches map[*ast.SwitchStmt]bool) {
	if op.Op != token.EQL && op.Op != token.NEQ || !isError(op.X.Type()) && !isError(op.Y.Type()) {
		return
	}
	err, target := op.X, op.Y
	if !isTarget(target) {
		err, target = target, err
	}
	if !isTarget(target) || !fromSysfd(f, err) {
		return
	}
	const message = "an error of package sysfd is never %s itself, on all machines: ask errors.Is"
	path := f.Enclosing(op.Pos())
	for i, node := range path {
		switch node := node.(type) {
		case *ast.BinaryExpr:
			if node.Op != op.Op {
				continue
			}
			left, right := report.Source(pass, node.X), report.Source(pass, node.Y)
			if err == op.Y {
				left, right = right, left
			}
			report.At(pass, node, fmt.Sprintf(message, right), replace(pass, node, op.Op, left, right)...)
			return
		case *ast.SwitchStmt:
			if !switches[node] {
				switches[node] = true
				report.At(pass, node.Tag, fmt.Sprintf(message, "one of these"), rewrite(pass, node)...)
			}
			return
		case *ast.CaseClause:
			if i+2 < len(path) {
				continue
			}
		case *ast.FuncDecl, *ast.FuncLit:
			return
		}
	}
}

// assertion is the type assertion or the type switch.
func assertion(f *flow.Flow, in *ssa.TypeAssert) ast.Node {
	for _, node := range f.Enclosing(in.Pos()) {
		switch node := node.(type) {
		case *ast.TypeAssertExpr:
			return node
		case *ast.CaseClause:
			if len(node.List) > 0 {
				return node.List[0]
			}
			return nil
		case *ast.FuncDecl, *ast.FuncLit:
			return nil
		}
	}
	return nil
}

func isError(t types.Type) bool { return types.Identical(t, types.Universe.Lookup("error").Type()) }

func isErrno(t types.Type) bool { return flow.TypeName(t) == "syscall.Errno" && !isPointer(t) }

func isPointer(t types.Type) bool {
	_, ok := types.Unalias(t).(*types.Pointer)
	return ok
}

// isTarget tells whether v is a constant errno or one of the errors that those of sysfd match.
func isTarget(v ssa.Value) bool {
	switch v := v.(type) {
	case *ssa.MakeInterface:
		return isErrno(v.X.Type())
	case *ssa.Const:
		return isErrno(v.Type())
	case *ssa.UnOp:
		g, ok := v.X.(*ssa.Global)
		if !ok || g.Object() == nil {
			return false
		}
		switch flow.PathOf(g.Object().Pkg()) + "." + g.Name() {
		case "os.ErrProcessDone", "os.ErrNotExist", "os.ErrPermission", "os.ErrExist", "io/fs.ErrNotExist", "io/fs.ErrPermission", "io/fs.ErrExist",
			"errors.ErrUnsupported", flow.Sysfd + ".ErrNotPidFD":
			return true
		}
	}
	return false
}

// fromSysfd tells whether err is what functions of sysfd have returned, all of it.
func fromSysfd(f *flow.Flow, err ssa.Value) bool {
	all, _ := f.Trace(err, func(v ssa.Value) flow.Verdict {
		if c, ok := v.(*ssa.Const); ok && c.IsNil() {
			return flow.Neutral
		}
		c, _ := flow.Call(v)
		if c == nil || !isError(v.Type()) {
			return flow.Through
		}
		name := flow.Callee(c)
		if !strings.HasPrefix(name, flow.Sysfd+".") && !strings.HasPrefix(name, "("+flow.Sysfd+".") && !strings.HasPrefix(name, "(*"+flow.Sysfd+".") {
			return flow.Through
		}
		if strings.HasSuffix(name, ".Verify") {
			return flow.No // it returns what its function returns
		}
		return flow.Yes
	})
	return all
}

func replace(pass *analysis.Pass, node *ast.BinaryExpr, op token.Token, err, target string) []analysis.SuggestedFix {
	name, edits, ok := report.Import(pass, node.Pos(), "errors")
	if !ok {
		return nil
	}
	not := ""
	if op == token.NEQ {
		not = "!"
	}
	return []analysis.SuggestedFix{report.Replace("Ask errors.Is", node, fmt.Sprintf("%s%s.Is(%s, %s)", not, name, err, target), edits...)}
}

// rewrite makes switch err {case X:} into switch {case errors.Is(err, X):}.
func rewrite(pass *analysis.Pass, node *ast.SwitchStmt) []analysis.SuggestedFix {
	tag, ok := node.Tag.(*ast.Ident)
	if !ok {
		return nil
	}
	name, edits, ok := report.Import(pass, node.Pos(), "errors")
	if !ok {
		return nil
	}
	edits = append(edits, analysis.TextEdit{Pos: tag.Pos(), End: node.Body.Pos()})
	for _, clause := range node.Body.List {
		for _, e := range clause.(*ast.CaseClause).List {
			text := fmt.Sprintf("%s.Is(%s, %s)", name, tag.Name, report.Source(pass, e))
			if pass.TypesInfo.Types[e].IsNil() {
				text = tag.Name + " == nil"
			}
			edits = append(edits, analysis.TextEdit{Pos: e.Pos(), End: e.End(), NewText: []byte(text)})
		}
	}
	return []analysis.SuggestedFix{{Message: "Ask errors.Is", TextEdits: edits}}
}
