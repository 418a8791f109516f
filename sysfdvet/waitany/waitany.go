// Package waitany finds programs that take the exit status from themselves.
package waitany

import (
	"go/ast"
	"path/filepath"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds calls that wait for any child beside others that wait for one.
var Analyzer = &analysis.Analyzer{
	Name: "waitany",
	Doc: `find wait4(-1) and waitid(P_ALL) beside os/exec

A call that waits for any child also gets those that os/exec and package os wait for. Then Cmd.Wait, Run and Output
fail with ECHILD ("wait: no child processes"), and the status is lost; whether that happens depends on
which is first. sysfd.ReapOrphans reaps what the program has adopted and nothing else.

Reported is a package in which one function leads to both. A call for any child is not reported if the program looks at
the PID that it returns, if it is for the children of the calling thread alone (__WNOTHREAD), nor if the children that the
package starts with os/exec are not waited for by it.`,
	URL:      report.URL + "waitany",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

// Options of wait4(2) and waitid(2).
const (
	wnohang   = 0x1
	wnowait   = 0x1000000
	wnothread = 0x20000000
)

// ofThread reports whether options limit a call to the children of the calling thread.
func ofThread(options ssa.Value) bool {
	n, ok := flow.Int(options)
	return ok && n&wnothread != 0
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	var any, one []ssa.CallInstruction
	for _, fn := range f.Funcs {
		if report.IsTest(pass, fn.Pos()) {
			continue
		}
		for _, c := range flow.CallsIn(fn) {
			args := c.Common().Args
			switch name := flow.Callee(c); name {
			case "syscall.Wait4", "golang.org/x/sys/unix.Wait4":
				if n, ok := flow.Int(args[0]); ok && n == -1 && !ofThread(args[2]) && !peeks(f, c, args[2]) && !dispatches(c.Value(), map[ssa.Value]bool{}) {
					any = append(any, c)
				}
			case "golang.org/x/sys/unix.Waitid":
				if n, ok := flow.Int(args[0]); ok && n == 0 { // P_ALL
					if flags, ok := flow.Int(args[3]); !ok || flags&(wnowait|wnothread) == 0 && !peeks(f, c, args[3]) {
						any = append(any, c)
					}
				}
			case "(*os/exec.Cmd).Wait", "(*os/exec.Cmd).Run", "(*os/exec.Cmd).Output", "(*os/exec.Cmd).CombinedOutput", "(*os.Process).Wait":
				one = append(one, c)
			}
		}
	}
	if len(any) == 0 || len(one) == 0 {
		return nil, nil
	}
	callers := callersOf(f)
	for _, c := range any {
		above := ancestors(callers, c.Parent())
		for _, victim := range one {
			call := f.Expr(c)
			if call == nil || !meet(above, ancestors(callers, victim.Parent())) {
				continue
			}
			where := filepath.Base(pass.Fset.Position(victim.Pos()).Filename)
			report.At(pass, call, "this also reaps the children that "+short(flow.Callee(victim))+" waits for ("+where+"), on all machines: it then fails with ECHILD, and the status is lost. sysfd.ReapOrphans reaps adopted children alone")
			break
		}
	}
	return nil, nil
}

// dispatches tells whether the PID that the call returns goes anywhere but to a comparison with a constant and to
// a log: then the program knows which child it was, and may tell whoever waits for that.
func dispatches(v ssa.Value, seen map[ssa.Value]bool) bool {
	if v == nil || seen[v] {
		return false
	}
	seen[v] = true
	for _, ref := range *v.Referrers() {
		switch ref := ref.(type) {
		case *ssa.DebugRef, *ssa.MakeInterface:
		case *ssa.Extract:
			if ref.Index == 0 && dispatches(ref, seen) {
				return true
			}
		case *ssa.Phi:
			if dispatches(ref, seen) {
				return true
			}
		case *ssa.BinOp:
			_, x := ref.X.(*ssa.Const)
			_, y := ref.Y.(*ssa.Const)
			if !x && !y {
				return true
			}
		default:
			return true
		}
	}
	return false
}

// callersOf returns for each function those that call it, start it as a goroutine, or give it to something that is called. A
// function that is kept in a struct, such as the action of a command, is not called by whoever keeps it.
func callersOf(f *flow.Flow) map[*ssa.Function][]*ssa.Function {
	callers := map[*ssa.Function][]*ssa.Function{}
	for _, fn := range f.Funcs {
		for _, c := range flow.CallsIn(fn) {
			for _, v := range append([]ssa.Value{c.Common().Value}, c.Common().Args...) {
				if closure, ok := v.(*ssa.MakeClosure); ok {
					v = closure.Fn
				}
				if called, ok := v.(*ssa.Function); ok {
					callers[called] = append(callers[called], fn)
				}
			}
		}
	}
	return callers
}

// ancestors are fn and all from which it is reached.
func ancestors(callers map[*ssa.Function][]*ssa.Function, fn *ssa.Function) map[*ssa.Function]bool {
	all := map[*ssa.Function]bool{fn: true}
	for queue := []*ssa.Function{fn}; len(queue) > 0; queue = queue[1:] {
		for _, caller := range callers[queue[0]] {
			if !all[caller] {
				all[caller] = true
				queue = append(queue, caller)
			}
		}
	}
	return all
}

// meet tells whether something does both: then they are parts of one process.
func meet(a, b map[*ssa.Function]bool) bool {
	for fn := range a {
		if b[fn] {
			return true
		}
	}
	return false
}

// peeks tells whether the call does not wait and is not repeated: that asks whether a child is left.
func peeks(f *flow.Flow, c ssa.CallInstruction, options ssa.Value) bool {
	if n, ok := flow.Int(options); !ok || n&wnohang == 0 {
		return false
	}
	for _, node := range f.Enclosing(c.Pos()) {
		switch node.(type) {
		case *ast.ForStmt, *ast.RangeStmt:
			return false
		case *ast.FuncDecl, *ast.FuncLit:
			return true
		}
	}
	return true
}

func short(name string) string {
	switch name {
	case "(*os.Process).Wait":
		return "os.Process.Wait"
	default:
		return "exec.Cmd." + name[len("(*os/exec.Cmd)."):]
	}
}
