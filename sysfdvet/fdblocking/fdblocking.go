// Package fdblocking finds files and sockets that get a second owner, or become blocking behind the back of the first.
package fdblocking

import (
	"go/ast"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds descriptors with two owners and sockets whose mode changes.
var Analyzer = &analysis.Analyzer{
	Name: "fdblocking",
	Doc: `find descriptors with two owners, and sockets that become blocking behind the back of their owner

os.NewFile(f.Fd(), name) makes a second owner of one descriptor: when either is closed, or forgotten and collected, the other
one has a closed descriptor, or that of a file that was opened since.

File of a *net.TCPListener, a *net.UnixConn and the like returns a duplicate, which shares its
O_NONBLOCK with the original. Fd of such a file clears it, and so do os/exec and os.StartProcess with a file that they pass on. Then
Accept and Read of the original hold a thread each, deadlines do not end them, and Close waits for them. For socket
options there is SyscallConn.

net.FileListener and net.FileConn set O_NONBLOCK, which the given file shares: accept(2) and read(2) on it then
fail with EAGAIN.`,
	URL:      report.URL + "fdblocking",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	told := report.Told{}
	for _, fn := range f.Funcs {
		for _, in := range flow.Instructions(fn) {
			switch in := in.(type) {
			case *ssa.Call:
				switch flow.Callee(in) {
				case "os.NewFile":
					newFile(pass, f, in)
				case "(*os.File).Fd":
					fd(pass, f, fn, in)
				case "net.FileListener", "net.FileConn", "net.FilePacketConn":
					raw(pass, f, fn, in)
				}
			case *ssa.Store:
				passedOn(pass, f, told, fn, in)
			}
		}
	}
	return nil, nil
}

// newFile looks at os.NewFile(f.Fd(), name).
func newFile(pass *analysis.Pass, f *flow.Flow, c *ssa.Call) {
	all, _ := f.Trace(c.Call.Args[0], func(v ssa.Value) flow.Verdict {
		if _, isConst := v.(*ssa.Const); isConst {
			return flow.No
		}
		if field, _ := flow.FieldOf(v); field != nil {
			return flow.No // stored, by whoever knows what became of the file
		}
		if c, _ := flow.Call(v); c != nil && flow.Callee(c) == "(*os.File).Fd" {
			return flow.Yes
		}
		return flow.Through
	})
	if call := f.Expr(c); all && call != nil {
		report.At(pass, call, "this makes a second owner of the descriptor, on all machines: when one is closed, or collected, the other has a closed descriptor or that of another file. Pass the *os.File on, or duplicate the descriptor with F_DUPFD_CLOEXEC first")
	}
}

// A dup is the call of File that made a file.
func dupOf(f *flow.Flow, file ssa.Value) *ssa.Call {
	var made *ssa.Call
	all, _ := f.Trace(file, func(v ssa.Value) flow.Verdict {
		if field, _ := flow.FieldOf(v); field != nil {
			return flow.No
		}
		c, index := flow.Call(v)
		if c == nil || index != 0 {
			return flow.Through
		}
		if isNetFile(c) {
			made = c
			return flow.Yes
		}
		return flow.Through
	})
	if !all {
		return nil
	}
	return made
}

// isNetFile tells whether c calls the method File of a connection or listener.
func isNetFile(c *ssa.Call) bool {
	switch flow.Callee(c) {
	case "(*net.TCPListener).File", "(*net.UnixListener).File", "(*net.conn).File",
		"(*net.TCPConn).File", "(*net.UnixConn).File", "(*net.UDPConn).File", "(*net.IPConn).File":
		return true
	}
	if !c.Call.IsInvoke() || c.Call.Method.Name() != "File" {
		return false
	}
	s := c.Call.Signature()
	return s.Params().Len() == 0 && s.Results().Len() == 2 && types.TypeString(s.Results().At(0).Type(), nil) == "*os.File" &&
		fromNet(c.Call.Value)
}

// fromNet tells whether the value was, or can be, a connection or listener of package net.
func fromNet(v ssa.Value) bool {
	for {
		switch x := v.(type) {
		case *ssa.TypeAssert:
			v = x.X
		case *ssa.Extract:
			v = x.Tuple
		case *ssa.ChangeInterface:
			v = x.X
		default:
			name := flow.TypeName(v.Type())
			return name == "net.Conn" || name == "net.Listener" || name == "net.PacketConn"
		}
	}
}

const becomesBlocking = "makes the socket blocking that this file shares with the one it was made of, on all machines: Accept and Read there then hold a thread, deadlines do not end them, and Close waits for them. "

// fd looks at Fd of a file that shares its mode with a connection.
func fd(pass *analysis.Pass, f *flow.Flow, fn *ssa.Function, c *ssa.Call) {
	made := dupOf(f, c.Call.Args[0])
	if made == nil || restores(fn) || !usedAgain(f, receiver(made), made) {
		return
	}
	if call := f.Expr(c); call != nil {
		report.At(pass, call, "Fd "+becomesBlocking+"Use SyscallConn of the connection or of the file")
	}
}

func receiver(c *ssa.Call) ssa.Value {
	if c.Call.IsInvoke() {
		return c.Call.Value
	}
	return c.Call.Args[0]
}

// restores tells whether the function makes a socket non-blocking again.
func restores(fn *ssa.Function) bool {
	for _, c := range flow.CallsIn(fn) {
		switch flow.Callee(c) {
		case "syscall.SetNonblock", "golang.org/x/sys/unix.SetNonblock", "net.FileListener", "net.FileConn", "net.FilePacketConn":
			return true
		}
	}
	return false
}

// usedAgain tells whether conn, of which the call made a file, is of use afterwards: whether the function or
// one that calls it does more with it than to write and to close it, or others may.
func usedAgain(f *flow.Flow, conn ssa.Value, made *ssa.Call) bool {
	return used(f, conn, made, map[ssa.Value]bool{})
}

func used(f *flow.Flow, conn ssa.Value, after ssa.Instruction, seen map[ssa.Value]bool) bool {
	root := stripped(conn)
	if seen[root] {
		return false
	}
	seen[root] = true
	switch root := root.(type) {
	case *ssa.Call, *ssa.Extract:
		call, _ := flow.Call(root)
		return call == nil || usedAfter(root, after, map[ssa.Value]bool{})
	case *ssa.Parameter:
		if usedAfter(root, after, map[ssa.Value]bool{}) {
			return true
		}
		args, ok := f.Arguments(root)
		if !ok {
			return true
		}
		for _, a := range args {
			if used(f, a.Value, a.Call, seen) {
				return true
			}
		}
		return false
	case *ssa.UnOp:
		// A variable that a closure has, too.
		variable, _ := root.X.(*ssa.Alloc)
		if free, ok := root.X.(*ssa.FreeVar); ok {
			var closure *ssa.MakeClosure
			if variable, closure = f.Captured(free); variable != nil {
				after = closure
			}
		}
		if variable == nil || len(f.Stored(variable)) != 1 {
			return true
		}
		for _, ref := range *variable.Referrers() {
			if load, ok := ref.(*ssa.UnOp); ok && load.Parent() == after.Parent() && usedAfter(load, after, map[ssa.Value]bool{}) {
				return true
			}
		}
		return used(f, f.Stored(variable)[0], after, seen)
	}
	return true
}

// stripped is the connection without interfaces around it.
func stripped(v ssa.Value) ssa.Value {
	for {
		switch x := v.(type) {
		case *ssa.TypeAssert:
			v = x.X
			continue
		case *ssa.ChangeInterface:
			v = x.X
			continue
		case *ssa.MakeInterface:
			v = x.X
			continue
		case *ssa.FieldAddr:
			if strings.HasPrefix(flow.TypeName(x.X.Type()), "net.") {
				v = x.X // the embedded net.conn
				continue
			}
		case *ssa.Extract:
			if a, ok := x.Tuple.(*ssa.TypeAssert); ok {
				v = a.X
				continue
			}
		}
		return v
	}
}

// usedAfter tells whether there is a use of v that follows.
func usedAfter(v ssa.Value, after ssa.Instruction, seen map[ssa.Value]bool) bool {
	if seen[v] || v.Referrers() == nil {
		return false
	}
	seen[v] = true
	for _, ref := range *v.Referrers() {
		switch ref := ref.(type) {
		case *ssa.DebugRef, *ssa.BinOp: // compared with nil
		case *ssa.MakeInterface:
			if flow.TypeName(ref.Type()) != "io.Writer" && !isAny(ref.Type()) && usedAfter(ref, after, seen) {
				return true
			}
		case *ssa.ChangeInterface:
			if !isAny(ref.Type()) && usedAfter(ref, after, seen) {
				return true
			}
		case *ssa.Extract: // not whether a type assertion is true
			if ref.Index == 0 && usedAfter(ref, after, seen) {
				return true
			}
		case *ssa.TypeAssert, *ssa.FieldAddr:
			if usedAfter(ref.(ssa.Value), after, seen) {
				return true
			}
		case ssa.CallInstruction:
			name := flow.Callee(ref)
			switch name[strings.LastIndex(name, ".")+1:] {
			case "Write", // which rarely waits
				"Close", "File", "Addr", "LocalAddr", "RemoteAddr", "SyscallConn":
				continue
			}
			if _, isDefer := ref.(*ssa.Defer); isDefer || ref != after && ref.Parent() == after.Parent() && flow.Follows(after, ref) {
				return true
			}
		case *ssa.Store:
			if _, isLocal := ref.Addr.(*ssa.Alloc); !isLocal || ref.Val != v {
				return true
			}
			// A variable of a function: its uses are looked at where it is loaded.
		default:
			return true
		}
	}
	return false
}

// isAny tells whether t is what a connection becomes when it is printed.
func isAny(t types.Type) bool {
	i, ok := t.Underlying().(*types.Interface)
	return ok && i.NumMethods() == 0
}

// passedOn looks at files that become those of another process.
func passedOn(pass *analysis.Pass, f *flow.Flow, told report.Told, fn *ssa.Function, s *ssa.Store) {
	field, of := flow.FieldOf(s.Addr)
	if field == nil {
		return
	}
	switch flow.TypeName(of.Type()) + "." + field.Name() {
	case "os/exec.Cmd.ExtraFiles", "os.ProcAttr.Files":
	default:
		return
	}
	var made *ssa.Call
	f.Trace(s.Val, func(v ssa.Value) flow.Verdict {
		if field, _ := flow.FieldOf(v); field != nil {
			return flow.No
		}
		if sl, ok := v.(*ssa.Slice); ok {
			return flow.Instead(f.Elements(sl)...)
		}
		if c, ok := v.(*ssa.Call); ok {
			if b, ok := c.Call.Value.(*ssa.Builtin); ok && b.Name() == "append" {
				return flow.Instead(c.Call.Args...)
			}
		}
		if flow.TypeName(v.Type()) == "os.File" {
			if c := dupOf(f, v); c != nil && c.Parent() == fn {
				made = c
			}
			return flow.Yes
		}
		return flow.Through
	})
	if made == nil || restores(fn) || !usedAgain(f, receiver(made), made) {
		return
	}
	if call := flow.At[*ast.CallExpr](f, made.Pos()); call != nil {
		told.At(pass, call, "passing this file to a process "+becomesBlocking+"sysfd.StartListenFDs leaves the mode as it is")
	}
}

// raw looks at system calls on a file after a listener was made of it.
func raw(pass *analysis.Pass, f *flow.Flow, fn *ssa.Function, listener *ssa.Call) {
	file := listener.Call.Args[0]
	if file.Referrers() == nil {
		return
	}
	for _, ref := range *file.Referrers() {
		c, ok := ref.(*ssa.Call)
		if !ok || flow.Callee(c) != "(*os.File).Fd" || c.Pos() < listener.Pos() {
			continue
		}
		for _, use := range conversions(c) {
			for _, ref := range *use.Referrers() {
				u, ok := ref.(*ssa.Call)
				if !ok {
					continue
				}
				switch name := flow.Callee(u); strings.TrimPrefix(strings.TrimPrefix(name, "syscall."), "golang.org/x/sys/unix.") {
				case "Accept", "Accept4", "Read", "Recvfrom", "Recvmsg":
					if call := f.Expr(u); call != nil {
						report.At(pass, call, strings.TrimPrefix(flow.Callee(listener), "net.")+" has made the socket non-blocking that this descriptor shares: this fails with EAGAIN, on all machines, where it was to wait")
					}
				}
			}
		}
	}
}

func conversions(v ssa.Value) []ssa.Value {
	all := []ssa.Value{v}
	for _, ref := range *v.Referrers() {
		if c, ok := ref.(*ssa.Convert); ok {
			all = append(all, c)
		}
	}
	return all
}
