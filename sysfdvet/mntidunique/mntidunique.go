// Package mntidunique finds calls after which the kernel has written 8 bytes into 4.
package mntidunique

import (
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds AT_HANDLE_MNT_ID_UNIQUE with a mount ID of 4 bytes.
var Analyzer = &analysis.Analyzer{
	Name: "mntidunique",
	Doc: `find name_to_handle_at with AT_HANDLE_MNT_ID_UNIQUE and no room for the mount ID

With AT_HANDLE_MNT_ID_UNIQUE (Linux 6.12) name_to_handle_at(2) writes a mount ID of 8 bytes.
NameToHandleAt of golang.org/x/sys/unix gives it a variable of 4 bytes: the kernel overwrites the 4 beside it, which
may be a pointer, and the ID that is returned is half of one. sysfd.NameToHandleAt takes the flag.`,
	URL:      report.URL + "mntidunique",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

const (
	atHandleMntIDUnique = 1
	sizeOfID            = 8
)

// Numbers of name_to_handle_at(2) on the ports of Go. They are also those of other calls on other ports, so the
// source must name the call.
const sysno = "SYS_NAME_TO_HANDLE_AT"

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	for _, fn := range f.Funcs {
		for _, c := range flow.CallsIn(fn) {
			args := c.Common().Args
			switch flow.Callee(c) {
			case "golang.org/x/sys/unix.NameToHandleAt":
				if hasFlag(f, args[2]) {
					at(pass, f, c, "AT_HANDLE_MNT_ID_UNIQUE makes the kernel write 8 bytes over the 4 that unix.NameToHandleAt has for the mount ID, since Linux 6.12: memory beside it is overwritten, and the ID is cut off. sysfd.NameToHandleAt takes the flag")
				}
			case "syscall.Syscall6", "syscall.RawSyscall6", "golang.org/x/sys/unix.Syscall6", "golang.org/x/sys/unix.RawSyscall6":
				call := f.Expr(c)
				if call == nil || len(call.Args) != 7 || !names(call.Args[0], sysno) || !hasFlag(f, args[5]) {
					continue
				}
				if size := pointedTo(pass, args[4]); size > 0 && size < sizeOfID {
					at(pass, f, c, "AT_HANDLE_MNT_ID_UNIQUE makes the kernel write 8 bytes at the mount ID, since Linux 6.12, and this variable has 4: memory beside it is overwritten. Give it a uint64, or call sysfd.NameToHandleAt")
				}
			}
		}
	}
	return nil, nil
}

func at(pass *analysis.Pass, f *flow.Flow, c ssa.CallInstruction, message string) {
	if call := f.Expr(c); call != nil {
		report.At(pass, call, message)
	}
}

// hasFlag tells whether the flags can contain the one.
func hasFlag(f *flow.Flow, flags ssa.Value) bool {
	_, any := f.Trace(flags, func(v ssa.Value) flow.Verdict {
		if n, ok := flow.Int(v); ok {
			if n&atHandleMntIDUnique != 0 {
				return flow.Yes
			}
			return flow.No
		}
		if op, ok := v.(*ssa.BinOp); ok {
			switch op.Op {
			case token.OR:
				return flow.Instead(op.X, op.Y)
			case token.AND_NOT:
				if n, ok := flow.Int(op.Y); ok && n&atHandleMntIDUnique == 0 {
					return flow.Instead(op.X)
				}
			}
			return flow.No
		}
		return flow.Through
	})
	return any
}

// names tells whether the expression is an identifier of this name, in whichever package.
func names(e ast.Expr, name string) bool {
	found := false
	ast.Inspect(e, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.Name == name {
			found = true
		}
		return true
	})
	return found
}

// pointedTo is the size of the variable whose address v is, 0 if that is not known.
func pointedTo(pass *analysis.Pass, v ssa.Value) int64 {
	for {
		switch x := v.(type) {
		case *ssa.Convert:
			if p, ok := x.X.Type().Underlying().(*types.Pointer); ok {
				if a, ok := x.X.(*ssa.Alloc); ok {
					return pass.TypesSizes.Sizeof(a.Type().Underlying().(*types.Pointer).Elem())
				}
				return pass.TypesSizes.Sizeof(p.Elem())
			}
			v = x.X
		case *ssa.ChangeType:
			v = x.X
		default:
			return 0
		}
	}
}
