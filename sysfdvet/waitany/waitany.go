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

Reported is a package that does both. A program that starts its children with os/exec and never waits for them by
it, but for any child, is not reported.`,
	URL:      report.URL + "waitany",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

// Options of wait4(2) and waitid(2).
const (
	wnohang = 0x1
	wnowait = 0x1000000
)

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	var wait4, other []ssa.CallInstruction
	for _, fn := range f.Funcs {
		if report.IsTest(pass, fn.Pos()) {
			continue
		}
		for _, c := range flow.CallsIn(fn) {
			args := c.Common().Args
			switch name := flow.Callee(c); name {
			case "syscall.Wait4", "golang.org/x/sys/unix.Wait4":
				if n, ok := flow.Int(args[0]); ok && n == -1 && !peeks(f, c, args[2]) {
					wait4 = append(wait4, c)
				}
			case "golang.org/x/sys/unix.Waitid":
				if n, ok := flow.Int(args[0]); ok && n == 0 { // P_ALL
					if flags, ok := flow.Int(args[3]); !ok || flags&wnowait == 0 && !peeks(f, c, args[3]) {
						wait4 = append(wait4, c)
					}
				}
			case "(*os/exec.Cmd).Wait", "(*os/exec.Cmd).Run", "(*os/exec.Cmd).Output", "(*os/exec.Cmd).CombinedOutput", "(*os.Process).Wait":
				other = append(other, c)
			}
		}
	}
	if len(other) == 0 {
		return nil, nil
	}
	for _, c := range wait4 {
		call := flow.At[*ast.CallExpr](f, c.Pos())
		if call == nil {
			continue
		}
		victim := pass.Fset.Position(other[0].Pos())
		report.At(pass, call, "this also reaps the children that "+short(flow.Callee(other[0]))+" waits for ("+file(victim.Filename)+"), on all machines: it then fails with ECHILD, and the status is lost. sysfd.ReapOrphans reaps adopted children alone")
	}
	return nil, nil
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

func file(path string) string { return filepath.Base(path) }
