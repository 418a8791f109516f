package main

import (
	"fmt"
	"go/types"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// takeInstead replaces the tables of what is taken for the rest of a test.
func takeInstead(t *testing.T, groups []group, structs []cstruct) {
	oldGroups, oldStructs := taken, takenStructs
	t.Cleanup(func() { taken, takenStructs = oldGroups, oldStructs })
	taken, takenStructs = groups, structs
}

var (
	pollGroup = group{Header: "asm/poll.h", Consts: []constant{{Name: "POLLIN"}}}
	numbers   = group{Header: "asm/unistd.h", Consts: []constant{{Name: "SYS_PPOLL"}}}
	pollFD    = cstruct{C: "struct pollfd", Header: "asm/poll.h", XSys: "PollFd", Fields: []field{{C: "fd"}, {C: "events"}, {C: "revents"}}}
)

func TestUses(t *testing.T) {
	takeInstead(t, []group{pollGroup, numbers}, []cstruct{pollFD})
	const imports = "import (`unsafe`; `" + unixPath + "`)\nvar _ unsafe.Pointer\nvar _ = unix.Stdin\n" // 4 lines
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string
		stale []string
	}{
		{"all", map[string]string{
			"sys.go": imports + "func poll(p *unix.PollFd) int16 { p.Fd = unix.SYS_PPOLL; use(unsafe.Pointer(p)); return p.Revents & unix.POLLIN }\nfunc use(unsafe.Pointer)",
		}, nil, nil},
		{"nothing", map[string]string{"sys.go": imports}, nil, []string{
			"unix.POLLIN is in gen/abi.go, and the package does not use it: remove it",
			"unix.SYS_PPOLL is in gen/abi.go, and the package does not use it: remove it",
			"unix.PollFd is in gen/abi.go, and the package does not use it: remove it",
		}},
		{"constants", map[string]string{
			"sys.go":            imports + "const a = unix.SYS_PPOLL + unix.SYS_SEVER\nvar p = unsafe.Pointer(&unix.PollFd{})",
			"zsys_linux_386.go": "import . `" + unixPath + "`\nconst c = POLLIN + AT_FDCWD",
			"zzz.go":            "import `" + unixPath + "`\nconst d = unix.SYS_SEVER + unix.POLLIN",
		}, []string{
			"unix.AT_FDCWD is used at zsys_linux_386.go:3, and the package has its own: use that",
			"unix.SYS_SEVER is used at sys.go:5, and nothing proves it: add it to gen/abi.go",
		}, nil},
		{"struct", map[string]string{
			"sys.go": imports + "var a, b = unix.POLLIN, unix.SYS_PPOLL\nvar c unix.PollFd\nvar d *unix.Rlimit",
			"zzz.go": "import `" + unixPath + "`\nvar e unix.Rlimit",
		}, []string{"unix.Rlimit is used at sys.go:7, and nothing proves it: add it to gen/abi.go"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := usesOf(fake(t, tt.files))
			if got := u.unproved(); !slices.Equal(got, tt.want) {
				t.Errorf("unproved: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			if got := stale([]*uses{u}); !slices.Equal(got, tt.stale) {
				t.Errorf("stale: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.stale, "\n"))
			}
		})
	}

	// It is enough if one architecture uses it.
	all := usesOf(fake(t, map[string]string{"sys.go": imports + "var p = unsafe.Pointer(&unix.PollFd{Fd: unix.POLLIN + unix.SYS_PPOLL})"}))
	nothing := usesOf(fake(t, nil))
	if got := stale([]*uses{nothing, all, nothing}); got != nil {
		t.Errorf("stale: %q", got)
	}
}

// However a struct gets to the kernel, and whatever else is made of it, it is seen.
func TestUsesTypes(t *testing.T) {
	takeInstead(t, nil, nil)
	const imports = "import (`unsafe`; `" + unixPath + "`)\nvar _ unsafe.Pointer\nvar _ = unix.Stdin\n"
	const toPtr = "func toPtr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }; "
	for text, used := range map[string]bool{
		"func f(p *unix.Rlimit) unsafe.Pointer { return unsafe.Pointer(p) }":                         true,
		"func f() unsafe.Pointer { var p [2]unix.Rlimit; return unsafe.Pointer(&p[0]) }":             true,
		"type own struct{ unix.Rlimit }; func f(p *own) unsafe.Pointer { return unsafe.Pointer(p) }": true,
		"type own = unix.Rlimit; func f(p *own) unsafe.Pointer { return unsafe.Pointer(p) }":         true,
		"type own unix.Rlimit; func f(p *own) unsafe.Pointer { return unsafe.Pointer(p) }":           true,
		"func f(b []byte) uint64 { return (*unix.Rlimit)(unsafe.Pointer(&b[0])).Max }":               true,
		toPtr + "func f(p *unix.Rlimit) unsafe.Pointer { return toPtr(p) }":                          true,
		toPtr + "func f() unsafe.Pointer { return toPtr(unix.Limit()) }":                             true,
		toPtr + "func f() unsafe.Pointer { return toPtr(&unix.Limits) }":                             true,
		toPtr + "func g[T any](func(*T)) unsafe.Pointer { var t T; return toPtr(&t) }\n" +
			"func f() unsafe.Pointer { return g(unix.Prlimit) }": true,
		"const size = unsafe.Sizeof(unix.Rlimit{})":       true,
		"const align = unsafe.Alignof(unix.Rlimit{})":     true,
		"const at = unsafe.Offsetof(unix.Rlimit{}.Max)":   true,
		"const size = len(unix.Rlimit{}.Both)":            true,
		"var size = unsafe.Sizeof(*unix.Limit())":         true,
		"var size = len(unix.Limits[0].Both)":             true,
		"func f() { unix.Prlimit(nil) }":                  true,
		"var x interface{} = unix.Limits":                 true,
		"func f() { unix.RawSyscallNoError(1, 2, 3, 4) }": false,
		"type Rlimit struct{ Cur, Max uint64 }; func f(p *Rlimit) unsafe.Pointer { return unsafe.Pointer(p) }": false,
	} {
		u := usesOf(fake(t, map[string]string{"sys.go": imports + text}))
		var want []string
		if used {
			want = []string{fmt.Sprintf("unix.Rlimit is used at sys.go:%d, and nothing proves it: add it to gen/abi.go", 5+strings.Count(text, "\n"))}
		}
		if got := u.unproved(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q", text, got)
		}
	}
}

// What is taken is compared with C in both versions of golang.org/x/sys/unix.
func TestCompareTaken(t *testing.T) {
	takeInstead(t, []group{pollGroup, numbers}, []cstruct{pollFD})
	v := answer(pollFD, 8, at{0, 4, 1, true}, at{4, 2, 1, true}, at{6, 2, 1, true})
	v["POLLIN"], v["__NR_ppoll"] = value{bits: 1}, value{bits: 271}
	const good = "const POLLIN, SYS_PPOLL = 1, 271\ntype PollFd struct { Fd int32; Events, Revents int16 }"
	version := func(version, text string) *packages.Package {
		p := fake(t, map[string]string{"unix.go": text})
		p.Module = &packages.Module{Version: version}
		p.TypesSizes = types.SizesFor("gc", "amd64")
		return p
	}
	for _, tt := range []struct {
		old, new string
		want     []string // @ stands for the package and its version
	}{
		{"", "", nil},
		{"271", "272", []string{"SYS_PPOLL is 0x110 in @, in C it is 0x10f"}},
		{"POLLIN, SYS_PPOLL = 1", "POLLIN, SYS_PPOLL = -1", []string{"POLLIN is -1 in @, in C it is 0x1"}},
		{"const POLLIN", "const POLLING", []string{"POLLIN is not in @"}},
		{"type PollFd", "type PollFD", []string{"PollFd is not in @"}},
		{"Revents", "Returned", []string{"PollFd.Returned is in @, and not in gen/abi.go", "PollFd has no field Revents in @"}},
		{"Fd int32", "More [0]byte; Fd int32", []string{"PollFd.More is in @, and not in gen/abi.go"}},
		{"Events, Revents", "Revents, Events", []string{
			"PollFd.Events is 1 of 2 bytes signed at 6 in @, in C it is 1 of 2 bytes signed at 4",
			"PollFd.Revents is 1 of 2 bytes signed at 4 in @, in C it is 1 of 2 bytes signed at 6",
		}},
		{"Events, Revents int16", "Events int16; Revents uint16", []string{"PollFd.Revents is 1 of 2 bytes unsigned at 6 in @, in C it is 1 of 2 bytes signed at 6"}},
		{"Fd int32", "Fd int64", []string{
			"PollFd has 16 bytes in @, in C it has 8",
			"PollFd.Fd is 1 of 8 bytes signed at 0 in @, in C it is 1 of 4 bytes signed at 0",
			"PollFd.Events is 1 of 2 bytes signed at 8 in @, in C it is 1 of 2 bytes signed at 4",
			"PollFd.Revents is 1 of 2 bytes signed at 10 in @, in C it is 1 of 2 bytes signed at 6",
		}},
		{"Fd int32; Events, Revents int16", "X int64", []string{
			"PollFd.X is in @, and not in gen/abi.go", "PollFd has no field Fd in @", "PollFd has no field Events in @",
			"PollFd has no field Revents in @", "PollFd has no field of struct pollfd in @",
		}},
	} {
		bad := strings.Replace(good, tt.old, tt.new, 1)
		for _, which := range []string{"the root's", "the newest"} {
			l := loaded{unix: version("v0.22.0", good), newest: version("v0.49.0", good)}
			at := unixPath + " v0.22.0"
			if which == "the newest" {
				l.newest, at = version("v0.49.0", bad), unixPath+" v0.49.0"
			} else {
				l.unix = version("v0.22.0", bad)
			}
			var want []string
			for _, w := range tt.want {
				want = append(want, strings.ReplaceAll(w, "@", at))
			}
			got := l.compareTaken(v)
			if !slices.Equal(got, want) {
				t.Errorf("%s for %s in %s: got\n%s\nwant\n%s", tt.new, tt.old, which, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
}
