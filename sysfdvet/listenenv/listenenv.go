// Package listenenv finds programs that take passed sockets by reading $LISTEN_PID and $LISTEN_FDS themselves.
package listenenv

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds what is missing where $LISTEN_FDS is read by hand.
var Analyzer = &analysis.Analyzer{
	Name: "listenenv",
	Doc: `find socket activation that is done by hand and lacks a part

The service manager says with $LISTEN_PID, and systemd since version 259 with $LISTEN_PIDFDID too, which process the passed
sockets are for. Reported is a package that

  - compares $LISTEN_PID and ignores $LISTEN_PIDFDID, or looks at $LISTEN_FDS alone: a process that has got the
    PID, or has inherited the environment, takes descriptors that are not meant for it (the ID exists since Linux 6.9, on 386,
    arm and mips since 6.14);
  - makes a slice as large as $LISTEN_FDS says, before it has looked whether the descriptors are there: 999999999 is a
    number, too;
  - leaves the variables to the processes that it starts, which may take them for theirs;
  - writes $LISTEN_PID anew and leaves $LISTEN_PIDFDID as it was: the receiver refuses the sockets.

sysfd.ListenFDs, StartListenFDs and ExecListenFDs do it all, RenewListenEnv the last. Tests are not reported.`,
	URL:      report.URL + "listenenv",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

const (
	pidVar   = "LISTEN_PID"
	idVar    = "LISTEN_PIDFDID"
	countVar = "LISTEN_FDS"
)

// A call that names a variable.
type access struct {
	fn   *ssa.Function
	call ssa.CallInstruction
}

type env struct {
	pass    *analysis.Pass
	f       *flow.Flow
	read    map[string][]access
	unset   map[string][]access
	written map[string][]access
	cleared bool // by os.Clearenv, or by names that are not known
	mention bool // of $LISTEN_PIDFDID, other than to unset it
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	e := env{pass, f, map[string][]access{}, map[string][]access{}, map[string][]access{}, false, false}
	e.collect()
	if e.mention {
		return nil, nil // whoever writes the name has thought of it
	}
	e.reading()
	e.leaving()
	e.rewriting()
	return nil, nil
}

func (e *env) isTest(pos token.Pos) bool {
	return report.IsTest(e.pass, pos)
}

func (e *env) collect() {
	for _, fn := range e.f.Funcs {
		if e.isTest(fn.Pos()) {
			continue
		}
		for _, c := range flow.CallsIn(fn) {
			var to map[string][]access
			name := flow.Callee(c)
			switch name {
			case "os.Getenv", "os.LookupEnv", "syscall.Getenv":
				to = e.read
			case "os.Unsetenv", "syscall.Unsetenv":
				to = e.unset
			case "os.Setenv", "syscall.Setenv":
				to = e.written
			case "os.Clearenv", "syscall.Clearenv":
				e.cleared = true
				continue
			default:
				continue
			}
			all, _ := e.f.Trace(c.Common().Args[0], func(v ssa.Value) flow.Verdict {
				if text, ok := flow.ConstString(v); ok {
					to[text] = append(to[text], access{fn, c})
					return flow.Yes
				}
				return flow.Through
			})
			if !all && strings.HasSuffix(name, ".Unsetenv") && e.repeated(c) {
				e.cleared = true // one by one
			}
		}
	}
	for _, file := range e.pass.Files {
		if e.isTest(file.Package) {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 1 {
				if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Unsetenv" {
					if _, isLiteral := call.Args[0].(*ast.BasicLit); isLiteral {
						return false
					}
				}
			}
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				// A prefix that all of them have drops them all.
				if text, err := strconv.Unquote(lit.Value); err == nil && (strings.Contains(text, idVar) || text == "LISTEN_") {
					e.mention = true
				}
			}
			return !e.mention
		})
	}
}

// repeated tells whether the call is in a loop.
func (e *env) repeated(c ssa.CallInstruction) bool {
	for _, node := range e.f.Enclosing(c.Pos()) {
		switch node.(type) {
		case *ast.ForStmt, *ast.RangeStmt:
			return true
		case *ast.FuncDecl:
			return false
		}
	}
	return false
}

func (e *env) at(c ssa.CallInstruction, message string, fixes ...analysis.SuggestedFix) {
	if call := e.f.Expr(c); call != nil {
		report.At(e.pass, call, message, fixes...)
	}
}

func calls(fn *ssa.Function, names ...string) bool {
	for _, c := range flow.CallsIn(fn) {
		for _, name := range names {
			if flow.Callee(c) == name {
				return true
			}
		}
	}
	return false
}

// fromCount tells whether v is the number that $LISTEN_FDS says.
func (e *env) fromCount(v ssa.Value) bool {
	_, any := e.f.Trace(v, func(v ssa.Value) flow.Verdict {
		if op, ok := v.(*ssa.BinOp); ok && op.Op == token.ADD {
			return flow.Instead(op.X, op.Y)
		}
		c, _ := flow.Call(v)
		if c == nil {
			return flow.Through
		}
		switch flow.Callee(c) {
		case "strconv.Atoi", "strconv.ParseInt", "strconv.ParseUint", "strings.TrimSpace":
			return flow.Instead(c.Call.Args[0])
		case "os.Getenv", "os.LookupEnv", "syscall.Getenv":
			if text, ok := flow.ConstString(c.Call.Args[0]); ok && text == countVar {
				return flow.Yes
			}
			return flow.No
		}
		return flow.Through
	})
	return any
}

// counted returns where $LISTEN_FDS was read as a number.
func (e *env) counted() (all []access) {
	for _, fn := range e.f.Funcs {
		if e.isTest(fn.Pos()) {
			continue
		}
		for _, c := range flow.CallsIn(fn) {
			switch flow.Callee(c) {
			case "strconv.Atoi", "strconv.ParseInt", "strconv.ParseUint":
				if v, ok := c.(*ssa.Call); ok && e.fromCount(v.Call.Args[0]) {
					all = append(all, access{fn, c})
				}
			}
		}
	}
	return all
}

// reading looks for whom the package thinks the descriptors to be, and how many.
func (e *env) reading() {
	told := false
	for _, a := range e.read[pidVar] {
		if told || !calls(a.fn, "os.Getpid", "syscall.Getpid", "golang.org/x/sys/unix.Getpid") {
			continue
		}
		told = true
		e.at(a.call, "LISTEN_PID is compared and LISTEN_PIDFDID is not: with systemd 259 and later, a process that has got the PID since takes descriptors that are meant for another one (Linux 6.9, on 386, arm and mips 6.14). sysfd.ListenFDs compares both")
	}
	counted := e.counted()
	if len(counted) > 0 && len(e.read[pidVar]) == 0 && !e.handsOn() {
		e.at(counted[0].call, "LISTEN_FDS is taken without a look at LISTEN_PID and LISTEN_PIDFDID, on all machines: a process that has inherited the environment takes descriptors that are not meant for it. sysfd.ListenFDs compares both")
	}
	for _, fn := range e.f.Funcs {
		for _, in := range flow.Instructions(fn) {
			m, ok := in.(*ssa.MakeSlice)
			if !ok || e.isTest(m.Pos()) || !e.fromCount(m.Len) && !e.fromCount(m.Cap) || bounded(e, fn) {
				continue
			}
			if call := flow.At[*ast.CallExpr](e.f, m.Pos()); call != nil {
				report.At(e.pass, call, "this is as large as LISTEN_FDS says, on all machines, whether there are so many descriptors or not: LISTEN_FDS=999999999 is out of memory. Look at each descriptor first, as sysfd.ListenFDs does")
			}
		}
	}
}

// bounded tells whether the function compares the number with a limit.
func bounded(e *env, fn *ssa.Function) bool {
	for _, in := range flow.Instructions(fn) {
		op, ok := in.(*ssa.BinOp)
		if !ok {
			continue
		}
		switch op.Op {
		case token.LSS, token.LEQ, token.GTR, token.GEQ:
		default:
			continue
		}
		for _, pair := range [][2]ssa.Value{{op.X, op.Y}, {op.Y, op.X}} {
			if !e.fromCount(pair[0]) {
				continue
			}
			if n, ok := flow.Int(pair[1]); ok && n > 1 {
				return true
			}
			switch pair[1].(type) {
			case *ssa.Call, *ssa.UnOp, *ssa.Parameter, *ssa.Extract:
				return true
			}
		}
	}
	return false
}

// handsOn tells whether the package passes descriptors to another program, which then is to have the variables.
func (e *env) handsOn() bool {
	for _, fn := range e.f.Funcs {
		if calls(fn, "syscall.Exec", "golang.org/x/sys/unix.Exec") {
			return true
		}
		for _, in := range flow.Instructions(fn) {
			if s, ok := in.(*ssa.Store); ok {
				if field, of := flow.FieldOf(s.Addr); field != nil {
					switch flow.TypeName(of.Type()) + "." + field.Name() {
					case "os/exec.Cmd.ExtraFiles", "os.ProcAttr.Files":
						return true
					}
				}
			}
		}
	}
	return false
}

// leaving looks at what children of the program inherit.
func (e *env) leaving() {
	if e.cleared {
		return
	}
	counted := e.counted()
	if len(counted) > 0 && len(e.unset[countVar]) == 0 && len(e.unset[pidVar]) == 0 && len(e.written[countVar]) == 0 && len(e.written[pidVar]) == 0 && !e.handsOn() {
		e.at(counted[0].call, "LISTEN_FDS and the variables beside it are left to the processes that the program starts, on all machines: one that gets the PID of this process, or does not compare LISTEN_PID, takes its descriptors from 3 up for sockets. sysfd.ListenFDs unsets all four")
	}
	for i, a := range e.unset[pidVar] {
		if len(counted) == 0 && len(e.read[pidVar]) == 0 || i > 0 && a.fn == e.unset[pidVar][i-1].fn || len(e.unset[idVar]) > 0 {
			continue
		}
		e.at(a.call, "LISTEN_PID is unset and LISTEN_PIDFDID is not, which systemd sets since version 259: a process that is later passed sockets by LISTEN_PID refuses them", e.unsetToo(a.call)...)
	}
}

// unsetToo is the fix that repeats the statement of the call for $LISTEN_PIDFDID, or puts a call of os.Unsetenv before it.
func (e *env) unsetToo(c ssa.CallInstruction) []analysis.SuggestedFix {
	path := e.f.Enclosing(c.Pos())
	for i, node := range path {
		stmt, ok := node.(ast.Stmt)
		if !ok {
			continue
		}
		if i+1 >= len(path) {
			return nil
		}
		switch path[i+1].(type) {
		case *ast.BlockStmt, *ast.CaseClause, *ast.CommClause:
		default:
			return nil
		}
		call := e.f.Expr(c)
		if call == nil || len(call.Args) == 0 || e.pass.TypesInfo.Types[call.Args[0]].Value == nil {
			return nil
		}
		s, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return nil
		}
		verb := ""
		switch stmt := stmt.(type) {
		case *ast.DeferStmt:
			if stmt.Call != call {
				return nil
			}
			verb = "defer "
		case *ast.ExprStmt, *ast.AssignStmt:
		default:
			return nil
		}
		column := e.pass.Fset.Position(stmt.Pos()).Column
		text := verb + report.Source(e.pass, s.X) + ".Unsetenv(" + strconv.Quote(idVar) + ")\n" + strings.Repeat("\t", column-1)
		return []analysis.SuggestedFix{{
			Message:   "Unset LISTEN_PIDFDID too",
			TextEdits: []analysis.TextEdit{{Pos: stmt.Pos(), End: stmt.Pos(), NewText: []byte(text)}},
		}}
	}
	return nil
}

// rewriting looks at a $LISTEN_PID that is written anew.
func (e *env) rewriting() {
	if len(e.unset[idVar]) > 0 || e.cleared {
		return
	}
	const message = "LISTEN_PID is written anew and an inherited LISTEN_PIDFDID stays, which systemd sets since version 259: the receiver compares both (Linux 6.9, on 386, arm and mips 6.14) and refuses the sockets. sysfd.RenewListenEnv writes both"
	for _, a := range e.written[pidVar] {
		e.at(a.call, message, e.unsetToo(a.call)...)
	}
	for _, fn := range e.f.Funcs {
		if e.isTest(fn.Pos()) || !calls(fn, "os.Environ", "syscall.Environ") {
			continue
		}
		told := false
		for _, in := range flow.Instructions(fn) {
			if told || !composes(in) {
				continue
			}
			var node ast.Node
			for _, n := range e.f.Enclosing(in.Pos()) {
				switch n.(type) {
				case *ast.CallExpr, *ast.BinaryExpr:
					if node == nil {
						node = n
					}
				}
			}
			if node != nil {
				told = true
				report.At(e.pass, node, message)
			}
		}
	}
}

// composes tells whether the instruction makes the text LISTEN_PID=….
func composes(in ssa.Instruction) bool {
	switch in := in.(type) {
	case *ssa.BinOp:
		text, ok := flow.ConstString(in.X)
		return ok && in.Op == token.ADD && text == pidVar+"="
	case *ssa.Call:
		if flow.Callee(in) != "fmt.Sprintf" {
			return false
		}
		text, ok := flow.ConstString(in.Call.Args[0])
		return ok && strings.HasPrefix(text, pidVar+"=")
	}
	return false
}
