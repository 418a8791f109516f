// Package peerrights finds decisions by what a peer has become since it connected.
package peerrights

import (
	"go/ast"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds credentials of a socket's peer that come from its pidfd.
var Analyzer = &analysis.Analyzer{
	Name: "peerrights",
	Doc: `find credentials of a socket's peer that were taken from its pidfd

A pidfd keeps referring to one process while that executes other programs, setuid ones included. So any user can
open a connection, leave it to a child, execute su, and have the rights of root as far as the pidfd tells.
sysfd.PeerCredentials returns the user and group that the kernel recorded at connect(2). A function that calls it,
too, or reads SO_PEERCRED, is not reported.`,
	URL:      report.URL + "peerrights",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

const advice = "these are the present rights of a process that may have executed a setuid program since it connected, on all machines: decide by sysfd.PeerCredentials"

var credentialFields = map[string]bool{
	"Ruid": true, "Rgid": true, "Euid": true, "Egid": true, "Suid": true, "Sgid": true, "Fsuid": true, "Fsgid": true,
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	for _, fn := range f.Funcs {
		if knowsBetter(fn) {
			continue
		}
		told := map[ssa.Value]bool{}
		for _, in := range flow.Instructions(fn) {
			if c, ok := in.(*ssa.Call); ok && flow.Callee(c) == "("+flow.Sysfd+".PidFDInfo).Credentials" && ofPeer(f, c.Call.Args[0]) {
				if call := f.Expr(c); call != nil {
					report.At(pass, call, advice)
				}
			}
			v, ok := in.(*ssa.UnOp)
			if !ok {
				continue
			}
			field, of := flow.FieldOf(v)
			if field == nil || !credentialFields[field.Name()] || flow.TypeName(of.Type()) != "golang.org/x/sys/unix.PidfdInfo" || told[of] || !filledFromPeer(f, of) {
				continue
			}
			if selector := flow.At[*ast.SelectorExpr](f, v.X.Pos()); selector != nil {
				told[of] = true
				report.At(pass, selector, advice)
			}
		}
	}
	return nil, nil
}

func knowsBetter(fn *ssa.Function) bool {
	for _, c := range flow.CallsIn(fn) {
		switch flow.Callee(c) {
		case flow.Sysfd + ".PeerCredentials", "golang.org/x/sys/unix.GetsockoptUcred", "syscall.GetsockoptUcred":
			return true
		}
	}
	return false
}

// ofPeer tells whether a PidFDInfo was asked of a pidfd that came from a socket.
func ofPeer(f *flow.Flow, info ssa.Value) bool {
	all, _ := f.Trace(info, func(v ssa.Value) flow.Verdict {
		if c, _ := flow.Call(v); c != nil && flow.Callee(c) == "(*"+flow.Sysfd+".PidFD).Info" {
			return flow.Instead(c.Call.Args[0])
		}
		if c, index := flow.Call(v); c != nil && index == 0 {
			switch flow.Callee(c) {
			case flow.Sysfd + ".PeerPidFD", flow.Sysfd + ".TakePeerPidFD":
				return flow.Yes
			}
		}
		return flow.Through
	})
	return all
}

func filledFromPeer(f *flow.Flow, info ssa.Value) bool {
	a, ok := info.(*ssa.Alloc)
	if !ok {
		return false
	}
	for _, ref := range *a.Referrers() {
		if c, ok := ref.(*ssa.Call); ok && flow.Callee(c) == "golang.org/x/sys/unix.IoctlPidfdInfo" && f.IsPeerPidFD(c.Call.Args[0]) {
			return true
		}
	}
	return false
}
