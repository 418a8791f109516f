// Package pidreuse finds PIDs that were stored and may be those of other processes by now.
package pidreuse

import (
	"go/token"
	"regexp"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/ssa"

	"github.com/sysfd/sysfd/sysfdvet/internal/flow"
	"github.com/sysfd/sysfd/sysfdvet/internal/report"
)

// Analyzer finds stored PIDs that are given to kill.
var Analyzer = &analysis.Analyzer{
	Name: "pidreuse",
	Doc: `find a PID from a file or the environment that is given to kill or os.FindProcess

The process whose PID was stored may have ended since, and the kernel may have given the PID to another process, which then
gets the signal, or passes for the one that is looked for. Since Go 1.23 os.FindProcess keeps to one process, but to whichever
has the PID when it is called. A sysfd.ProcessRef, stored in the place of the PID, opens the
process that was meant or none. For the processes of a cgroup, read from cgroup.procs, there is sysfd.KillCgroup.

A function that looks at /proc or a start time is not reported.`,
	URL:      report.URL + "pidreuse",
	Requires: []*analysis.Analyzer{flow.Analyzer},
	Run:      run,
}

func run(pass *analysis.Pass) (any, error) {
	f := pass.ResultOf[flow.Analyzer].(*flow.Flow)
	if f == nil {
		return nil, nil
	}
	for _, fn := range f.Funcs {
		for _, c := range flow.CallsIn(fn) {
			what := ""
			switch flow.Callee(c) {
			case "syscall.Kill", "golang.org/x/sys/unix.Kill":
				what = "gets the signal"
			case "os.FindProcess":
				what = "is what FindProcess returns"
			default:
				continue
			}
			from, ok := source(f, c.Common().Args[0])
			if !ok || verifies(fn) {
				continue
			}
			call := f.Expr(c)
			if call == nil {
				continue
			}
			if from == cgroupProcs {
				report.At(pass, call, "the PID was read from "+from+", and that process may have ended since: another one that has the PID now "+what+", on all machines. sysfd.KillCgroup kills those that are in the cgroup (cgroup.kill, Linux 5.14)")
				continue
			}
			report.At(pass, call, "the PID was read from "+from+", and that process may have ended since: another one that has the PID now "+what+", on all machines. Store a sysfd.ProcessRef instead: its Open returns the process that was meant, or an error")
		}
	}
	return nil, nil
}

const cgroupProcs = "cgroup.procs"

// Functions of packages strings and bytes that return parts of their first argument.
var parts = map[string]bool{
	"TrimSpace": true, "Trim": true, "TrimLeft": true, "TrimRight": true, "TrimSuffix": true, "TrimPrefix": true, "TrimFunc": true,
	"Split": true, "SplitN": true, "Fields": true, "FieldsFunc": true, "Cut": true, "CutPrefix": true, "CutSuffix": true, "ToLower": true,
	"ReplaceAll": true, "Replace": true, "Clone": true,
}

// source tells what the PID was read from.
func source(f *flow.Flow, pid ssa.Value) (from string, ok bool) {
	found := func(name string) flow.Verdict {
		if from == "" || name == cgroupProcs {
			from = name
		}
		return flow.Yes
	}
	all, _ := f.Trace(pid, func(v ssa.Value) flow.Verdict {
		switch x := v.(type) {
		case *ssa.Parameter:
			return flow.No // stored by whoever called
		case *ssa.Alloc:
			if verdict := scanned(f, x, found); verdict.Decides() {
				return verdict
			}
			return filled(x)
		case *ssa.MakeSlice:
			return filled(x)
		case *ssa.Slice:
			return flow.Instead(x.X)
		case *ssa.UnOp:
			switch addr := x.X.(type) {
			case *ssa.FieldAddr, *ssa.Global:
				return flow.No
			case *ssa.IndexAddr:
				return flow.Instead(addr.X)
			}
			if x.Op == token.SUB {
				return flow.Instead(x.X) // a process group
			}
		case *ssa.Field:
			return flow.No
		}
		c, _ := flow.Call(v)
		if c == nil {
			return flow.Through
		}
		args := c.Call.Args
		name := flow.Callee(c)
		if pkg, function, ok := strings.Cut(name, "."); ok && (pkg == "strings" || pkg == "bytes") && parts[function] {
			return flow.Instead(args[0])
		}
		switch name {
		case "strconv.Atoi", "strconv.ParseInt", "strconv.ParseUint",
			"io.ReadAll", "io/ioutil.ReadAll", "bufio.NewScanner", "bufio.NewReader",
			"(*bufio.Scanner).Text", "(*bufio.Scanner).Bytes", "(*bufio.Reader).ReadString", "(*bufio.Reader).ReadLine", "(*bufio.Reader).ReadBytes":
			return flow.Instead(args[0])
		case "os.Getenv", "os.LookupEnv", "syscall.Getenv":
			return found("the environment")
		case "os.ReadFile", "io/ioutil.ReadFile", "os.Open", "os.OpenFile":
			return path(f, args[0], found)
		}
		return flow.Through
	})
	return from, all
}

// path tells which kind of file was read; of what /proc says of processes nothing was stored.
func path(f *flow.Flow, v ssa.Value, found func(string) flow.Verdict) flow.Verdict {
	kind := "a file"
	f.Trace(v, func(v ssa.Value) flow.Verdict {
		if text, ok := flow.ConstString(v); ok {
			if strings.HasPrefix(text, "/proc") {
				kind = ""
			} else if strings.HasSuffix(text, "cgroup.procs") || strings.HasSuffix(text, "cgroup.threads") {
				kind = cgroupProcs
			}
			return flow.Yes
		}
		switch x := v.(type) {
		case *ssa.BinOp:
			return flow.Instead(x.X, x.Y)
		case *ssa.Call:
			switch flow.Callee(x) {
			case "path/filepath.Join", "path.Join":
				return flow.Instead(f.Elements(x.Call.Args[0])...)
			case "fmt.Sprintf":
				return flow.Instead(append(f.Elements(x.Call.Args[1]), x.Call.Args[0])...)
			}
		}
		return flow.Through
	})
	if kind == "" {
		return flow.No
	}
	return found(kind)
}

// scanned looks for the call of package fmt that has written the variable.
func scanned(f *flow.Flow, a *ssa.Alloc, found func(string) flow.Verdict) flow.Verdict {
	for _, ref := range *a.Referrers() {
		made, ok := ref.(*ssa.MakeInterface)
		if !ok {
			continue
		}
		for _, ref := range *made.Referrers() {
			store, ok := ref.(*ssa.Store)
			if !ok {
				continue
			}
			element, ok := store.Addr.(*ssa.IndexAddr)
			if !ok {
				continue
			}
			array, ok := element.X.(*ssa.Alloc)
			if !ok {
				continue
			}
			for _, ref := range *array.Referrers() {
				slice, ok := ref.(*ssa.Slice)
				if !ok {
					continue
				}
				for _, ref := range *slice.Referrers() {
					if c, ok := ref.(*ssa.Call); ok {
						switch flow.Callee(c) {
						case "fmt.Fscan", "fmt.Fscanf", "fmt.Fscanln", "fmt.Sscan", "fmt.Sscanf", "fmt.Sscanln":
							return flow.Instead(c.Call.Args[0])
						}
					}
				}
			}
		}
	}
	return flow.Through
}

// filled tells whether a buffer was filled from a file.
func filled(buffer ssa.Value) flow.Verdict {
	for _, ref := range *buffer.Referrers() {
		switch ref := ref.(type) {
		case *ssa.Slice:
			if verdict := filled(ref); verdict.Decides() {
				return verdict
			}
		case *ssa.Call:
			if flow.Callee(ref) == "(*os.File).Read" && ref.Call.Args[1] == buffer {
				return flow.Instead(ref.Call.Args[0])
			}
		}
	}
	return flow.Through
}

var proof = regexp.MustCompile(`(?i)start_?time|create_?time|cmdline|boot_?id|pidfd|proc.*(name|exe|path)|(name|exe|comm).*pid`)

// verifies tells whether the function asks which process it is.
func verifies(fn *ssa.Function) bool {
	var operands []*ssa.Value
	for _, in := range flow.Instructions(fn) {
		operands = in.Operands(operands[:0])
		for _, o := range operands {
			if text, ok := flow.ConstString(*o); ok && strings.HasPrefix(text, "/proc") {
				return true
			}
		}
		if c, ok := in.(ssa.CallInstruction); ok {
			name := flow.Callee(c)
			if proof.MatchString(name[strings.LastIndex(name, ".")+1:]) {
				return true
			}
		}
	}
	return false
}
