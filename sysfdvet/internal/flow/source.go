package flow

import (
	"go/constant"
	"go/token"
	"go/types"
	"regexp"
	"strings"

	"golang.org/x/tools/go/ssa"
)

// The types of 64 bits of which none is lost on one machine and lost on another.
var idTypes = set("PidFDID", "CgroupID", "NamespaceID", "MountID")

// IDType returns the name of the ID that t is the type of, such as "PidFDID", or "".
func IDType(t types.Type) string {
	n, ok := types.Unalias(t).(*types.Named)
	if ok && PathOf(n.Obj().Pkg()) == Sysfd && idTypes[n.Obj().Name()] {
		return n.Obj().Name()
	}
	return ""
}

// ID tells whether v is an ID from all sources that there are, and which: the name of its type, or
// the description of an inode number.
func (f *Flow) ID(v ssa.Value) (which string, ok bool) {
	all, _ := f.Trace(v, func(v ssa.Value) Verdict {
		if _, isConst := v.(*ssa.Const); isConst {
			return Neutral
		}
		if _, computed := v.(*ssa.BinOp); computed {
			return No // a part of one, or a hash
		}
		if id := IDType(v.Type()); id != "" {
			if id == "MountID" && reusable(v) {
				return No
			}
			which = id
			return Yes
		}
		if !isInteger(v.Type()) {
			return No
		}
		if c, ok := v.(*ssa.Convert); ok && isNarrow(c.Type()) {
			return No // told where that was done
		}
		if s := f.Stat(v); s.Kind == StatPidFD {
			which = "the inode number of a pidfd"
			return Yes
		}
		return Through
	})
	return which, all
}

// reusable tells whether v is a mount ID of the common kind, which has 32 bits.
func reusable(v ssa.Value) bool {
	if field, _ := FieldOf(v); field != nil {
		return strings.HasPrefix(field.Name(), "Reusable")
	}
	c, _ := Call(v)
	if c == nil {
		return false
	}
	switch Callee(c) {
	case Sysfd + ".MountIDOf", Sysfd + ".NameToHandleAt":
		flags, ok := Int(c.Call.Args[len(c.Call.Args)-1])
		return ok && flags&1 == 0 // AT_HANDLE_MNT_ID_UNIQUE
	}
	return false
}

func isInteger(t types.Type) bool {
	if _, ok := types.Unalias(t).(*types.TypeParam); ok {
		return true
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&types.IsInteger != 0
}

func isNarrow(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Kind() != types.Int64 && b.Kind() != types.Uint64
}

// A StatKind is what a Stat is of.
type StatKind int

const (
	NoStat StatKind = iota
	StatOther
	StatPidFD
	StatCgroup
)

// A Stat is an inode number that was read from a struct that a system call has filled.
type Stat struct {
	Kind StatKind
	Base ssa.Value // the address of the struct
}

// Stat finds out what v is the inode number of.
func (f *Flow) Stat(v ssa.Value) Stat {
	field, base := FieldOf(v)
	if field == nil || field.Name() != "Ino" || base == nil {
		return Stat{}
	}
	name := typeName(base.Type())
	switch name {
	case "syscall.Stat_t", "golang.org/x/sys/unix.Stat_t", "golang.org/x/sys/unix.Statx_t":
	default:
		return Stat{}
	}
	if load, ok := base.(*ssa.UnOp); ok && load.Op == token.MUL {
		if a, ok := load.X.(*ssa.Alloc); ok {
			base = a // a copy of a struct
		}
	}
	s := Stat{Kind: StatOther, Base: base}
	kinds := map[StatKind]bool{}
	if a, ok := base.(*ssa.Alloc); ok {
		for _, ref := range *a.Referrers() {
			if c, ok := ref.(*ssa.Call); ok {
				kinds[f.statCall(c)] = true
			}
		}
	} else {
		// st := fi.Sys().(*syscall.Stat_t)
		f.Trace(base, func(v ssa.Value) Verdict {
			c, _ := Call(v)
			if c == nil {
				return Through
			}
			if !strings.HasSuffix(Callee(c), "FileInfo).Sys") {
				return Through
			}
			all, _ := f.Trace(c.Call.Value, func(v ssa.Value) Verdict {
				if c, _ := Call(v); c != nil {
					if kind := f.statCall(c); kind != NoStat {
						kinds[kind] = true
						return Yes
					}
				}
				return Through
			})
			if !all {
				kinds[StatOther] = true
			}
			return Yes
		})
	}
	delete(kinds, NoStat)
	if len(kinds) == 1 {
		for kind := range kinds {
			s.Kind = kind
		}
	}
	return s
}

// statCall tells what the call asks about.
func (f *Flow) statCall(c *ssa.Call) StatKind {
	args := c.Call.Args
	switch Callee(c) {
	case "golang.org/x/sys/unix.Fstat", "syscall.Fstat":
		return f.fdKind(args[0])
	case "golang.org/x/sys/unix.Stat", "syscall.Stat", "golang.org/x/sys/unix.Lstat", "syscall.Lstat", "os.Stat", "os.Lstat":
		return f.pathKind(args[0])
	case "golang.org/x/sys/unix.Fstatat", "golang.org/x/sys/unix.Statx":
		if path, ok := constString(args[1]); ok && path == "" {
			return f.fdKind(args[0])
		}
		return f.pathKind(args[1])
	case "(*os.File).Stat":
		if f.IsPidFD(args[0]) {
			return StatPidFD
		}
		if f.isCgroupDir(args[0]) {
			return StatCgroup
		}
		return StatOther
	}
	return NoStat
}

func (f *Flow) fdKind(fd ssa.Value) StatKind {
	if f.IsPidFD(fd) {
		return StatPidFD
	}
	if f.isCgroupDir(fd) {
		return StatCgroup
	}
	return StatOther
}

func (f *Flow) pathKind(path ssa.Value) StatKind {
	if f.isCgroupPath(path) {
		return StatCgroup
	}
	return StatOther
}

// Numbers of the generic system calls, which are the same on all ports of Go but mips, where 4000 or 5000 is added.
func isSysno(v ssa.Value, n int64) bool {
	got, ok := Int(v)
	return ok && (got == n || got == n+4000 || got == n+5000)
}

const (
	sysPidfdOpen = 434
	soPeerPidFD  = 77
)

// IsPidFD tells whether v is the number of a pidfd, or an *os.File of one.
func (f *Flow) IsPidFD(v ssa.Value) bool { return f.isPidFD(v, false) }

// IsPeerPidFD tells whether v is a pidfd that came from a socket.
func (f *Flow) IsPeerPidFD(v ssa.Value) bool { return f.isPidFD(v, true) }

func (f *Flow) isPidFD(v ssa.Value, peer bool) bool {
	all, _ := f.Trace(v, func(v ssa.Value) Verdict {
		if p, ok := v.(*ssa.Parameter); ok && !peer && f.isHandleParameter(p) {
			return Yes
		}
		if a, ok := v.(*ssa.Alloc); ok && !peer && storedInPidFD(a) {
			return Yes
		}
		c, index := Call(v)
		if c == nil || index != 0 {
			return Through
		}
		args := c.Call.Args
		switch Callee(c) {
		case "golang.org/x/sys/unix.PidfdOpen":
			if !peer {
				return Yes
			}
		case "syscall.Syscall", "syscall.RawSyscall", "golang.org/x/sys/unix.Syscall", "golang.org/x/sys/unix.RawSyscall":
			if !peer && isSysno(args[0], sysPidfdOpen) {
				return Yes
			}
		case "golang.org/x/sys/unix.GetsockoptInt", "syscall.GetsockoptInt":
			level, ok1 := Int(args[1])
			opt, ok2 := Int(args[2])
			if ok1 && ok2 && (level == 1 || level == 0xffff) && opt == soPeerPidFD {
				return Yes
			}
		case "(*os.File).Fd", "os.NewFile":
			return Instead(args[0])
		case "(*" + Sysfd + ".PidFD).File":
			if !peer {
				return Yes
			}
			return Instead(args[0])
		case Sysfd + ".PeerPidFD", Sysfd + ".TakePeerPidFD":
			if peer {
				return Yes
			}
		}
		return Through
	})
	return all
}

// isHandleParameter tells whether p is the descriptor in p.WithHandle(func(fd uintptr) {…}), package os of Go 1.26.
func (f *Flow) isHandleParameter(p *ssa.Parameter) bool {
	fn := p.Parent()
	given := func(v ssa.Value) bool {
		for _, ref := range *v.Referrers() {
			if c, ok := ref.(ssa.CallInstruction); ok && Callee(c) == "(*os.Process).WithHandle" {
				return true
			}
		}
		return false
	}
	for _, c := range f.closed[fn] {
		if given(c) {
			return true
		}
	}
	if fn.Parent() == nil {
		return false
	}
	for _, c := range CallsIn(fn.Parent()) {
		if Callee(c) == "(*os.Process).WithHandle" && len(c.Common().Args) == 2 && c.Common().Args[1] == fn {
			return true
		}
	}
	return false
}

// storedInPidFD tells whether &a went to the field PidFD of a syscall.SysProcAttr.
func storedInPidFD(a *ssa.Alloc) bool {
	for _, ref := range *a.Referrers() {
		if s, ok := ref.(*ssa.Store); ok && s.Val == a {
			if field, of := FieldOf(s.Addr); field != nil && field.Name() == "PidFD" && typeName(of.Type()) == "syscall.SysProcAttr" {
				return true
			}
		}
	}
	return false
}

// isCgroupDir tells whether v is a descriptor or a file that was opened under the path of a cgroup.
func (f *Flow) isCgroupDir(v ssa.Value) bool {
	all, _ := f.Trace(v, func(v ssa.Value) Verdict {
		c, index := Call(v)
		if c == nil || index != 0 {
			return Through
		}
		args := c.Call.Args
		switch Callee(c) {
		case "os.Open", "os.OpenFile", "golang.org/x/sys/unix.Open", "syscall.Open":
			if f.isCgroupPath(args[0]) {
				return Yes
			}
			return No
		case "golang.org/x/sys/unix.Openat", "syscall.Openat", "golang.org/x/sys/unix.Openat2":
			if f.isCgroupPath(args[1]) {
				return Yes
			}
			return No
		case "(*os.File).Fd", "os.NewFile":
			return Instead(args[0])
		}
		return Through
	})
	return all
}

// A path with such a name is that of a cgroup; one of /proc/PID/cgroup or of a cgroup namespace is called otherwise.
var cgroupPathName = regexp.MustCompile(`(?i)^(cg|cgroup)_?(v2|2)?_?(abs)?(path|dir|root|mount|mountpoint|fs)$`)

// isCgroupPath tells whether v is the path of a directory of cgroupfs.
func (f *Flow) isCgroupPath(v ssa.Value) bool {
	below, not := false, false
	named := func(name string) Verdict {
		below = below || cgroupPathName.MatchString(name)
		return Yes // what others pass or store may be anything
	}
	f.Trace(v, func(v ssa.Value) Verdict {
		if text, ok := constString(v); ok {
			if strings.HasPrefix(text, "/sys/fs/cgroup") {
				below = true
			}
			if strings.HasPrefix(text, "/proc") || strings.Contains(text, "cgroup.") {
				not = true
			}
			return Yes
		}
		switch x := v.(type) {
		case *ssa.Parameter:
			return named(x.Name())
		case *ssa.BinOp:
			return Instead(x.X, x.Y)
		case *ssa.UnOp:
			if field, _ := FieldOf(x); field != nil {
				return named(field.Name())
			}
			if g, ok := x.X.(*ssa.Global); ok {
				return named(g.Name())
			}
		case *ssa.Call:
			switch Callee(x) {
			case "path/filepath.Join", "path.Join":
				return Instead(f.Elements(x.Call.Args[0])...)
			case "fmt.Sprintf":
				return Instead(append(f.Elements(x.Call.Args[1]), x.Call.Args[0])...)
			case "path/filepath.Clean", "path.Clean":
				return Instead(x.Call.Args[0])
			}
		}
		return Through
	})
	return below && !not
}

// Elements returns what a slice that was made for variadic arguments is made of, or the slice itself.
func (f *Flow) Elements(v ssa.Value) []ssa.Value {
	s, ok := v.(*ssa.Slice)
	if !ok {
		return []ssa.Value{v}
	}
	a, ok := s.X.(*ssa.Alloc)
	if !ok {
		return []ssa.Value{v}
	}
	return f.stores[a]
}

// Stored returns all that is stored in the variable a.
func (f *Flow) Stored(a *ssa.Alloc) []ssa.Value { return f.stores[a] }

func constString(v ssa.Value) (string, bool) {
	c, ok := v.(*ssa.Const)
	if !ok || c.Value == nil || c.Value.Kind() != constant.String {
		return "", false
	}
	return constant.StringVal(c.Value), true
}

// ConstString returns the value of a constant string.
func ConstString(v ssa.Value) (string, bool) { return constString(v) }

// typeName is the full name of a type, or of that which it points to.
func typeName(t types.Type) string {
	if p, ok := types.Unalias(t).(*types.Pointer); ok {
		t = p.Elem()
	}
	n, ok := types.Unalias(t).(*types.Named)
	if !ok || n.Obj().Pkg() == nil {
		return ""
	}
	return PathOf(n.Obj().Pkg()) + "." + n.Obj().Name()
}

// TypeName is the full name of a type, or of that which it points to.
func TypeName(t types.Type) string { return typeName(t) }
