// Package inoidentity finds inode numbers that are taken for the ID of a process or a cgroup.
package inoidentity

import (
	"go/ast"
	"go/token"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds inode numbers that are not the identity they are taken for.
var Analyzer = &analysis.Analyzer{
	Name: "inoidentity",
	Doc: `find st_ino of a pidfd or a cgroup directory used as an identity

On a 64-bit kernel the inode number of a pidfd is the ID of the process, and that of a directory of cgroup2 the ID
of the cgroup. On a 32-bit kernel (386, arm, mips, mipsle) it is the lower half of it, and not unique: the other
half is in the file handle. Before Linux 6.9 all pidfds have one and the same inode number. sysfd.PidFDIDOf and
sysfd.CgroupIDOf return the whole ID, or an error where the kernel has none.

A comparison with the device number beside it, as os.SameFile makes it, is not reported.`,
	URL:      report.URL + "inoidentity",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	for _, fn := range f.Funcs {
		reported := map[ssa.Value]bool{}
		for _, in := range flow.Instructions(fn) {
			v, ok := in.(ssa.Value)
			if !ok {
				continue
			}
			if load, ok := v.(*ssa.UnOp); ok && load.Op != token.MUL {
				continue
			}
			if _, isAddr := v.(*ssa.FieldAddr); isAddr {
				continue
			}
			s := f.Stat(v)
			if s.Kind != flow.StatPidFD && s.Kind != flow.StatCgroup || reported[s.Base] || !identifies(v) || withDevice(fn, s.Base) {
				continue
			}
			node := selector(f, v)
			if node == nil {
				continue
			}
			on32 := report.On32(pass, node)
			switch {
			case s.Kind == flow.StatPidFD && on32:
				report.At(pass, node, "st_ino of a pidfd is the lower half of its ID on a 32-bit kernel (386, arm, mips), and before Linux 6.9 the same for all pidfds: sysfd.PidFDIDOf returns the ID, or an error")
			case s.Kind == flow.StatPidFD && !provesPidfs(fn):
				report.At(pass, node, "st_ino of a pidfd is before Linux 6.9 the same for all pidfds: sysfd.PidFDIDOf returns the ID, or an error")
			case s.Kind == flow.StatCgroup && on32:
				report.At(pass, node, "st_ino of a cgroup directory is the lower half of the cgroup ID on a 32-bit kernel (386, arm, mips): sysfd.CgroupIDOf and CgroupIDAt return the ID")
			default:
				continue
			}
			reported[s.Base] = true
		}
	}
	return nil, nil
}

// selector is the expression that was read.
func selector(f *flow.Flow, v ssa.Value) ast.Node {
	pos := v.Pos()
	if load, ok := v.(*ssa.UnOp); ok && !pos.IsValid() {
		pos = load.X.Pos()
	}
	if s := flow.At[*ast.SelectorExpr](f, pos); s != nil {
		return s
	}
	return nil
}

// identifies tells whether the number is used for anything but a comparison with a constant, such as the inode
// number that a root directory has.
func identifies(v ssa.Value) bool {
	for _, ref := range *v.Referrers() {
		switch ref := ref.(type) {
		case *ssa.DebugRef:
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

// withDevice tells whether the function reads the device number from the same struct.
func withDevice(fn *ssa.Function, base ssa.Value) bool {
	for _, in := range flow.Instructions(fn) {
		v, ok := in.(ssa.Value)
		if !ok {
			continue
		}
		if field, of := flow.FieldOf(v); field != nil && of == base {
			switch field.Name() {
			case "Dev", "Dev_major", "Dev_minor":
				return true
			}
		}
	}
	return false
}

const pidfsMagic = 0x50494446

// provesPidfs tells whether the function compares the type of a file system with that of pidfs.
func provesPidfs(fn *ssa.Function) bool {
	for _, in := range flow.Instructions(fn) {
		if op, ok := in.(*ssa.BinOp); ok {
			for _, side := range []ssa.Value{op.X, op.Y} {
				if n, ok := flow.Int(side); ok && n == pidfsMagic {
					return true
				}
			}
		}
	}
	return false
}
