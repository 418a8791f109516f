package main

import (
	"go/types"
	"maps"
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
	pollFD    = cstruct{C: "struct pollfd", Header: "asm/poll.h", XSys: "PollFd", Fields: []field{{C: "fd"}, {C: "revents"}}}
)

func TestUses(t *testing.T) {
	takeInstead(t, []group{pollGroup, numbers}, []cstruct{pollFD})
	const imports = "import (`unsafe`; `" + unixPath + "`)\nvar _ unsafe.Pointer\nvar _ unix.PollFd\n" // 4 lines
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
			"unix.PollFd is in gen/abi.go, and the package makes no raw system call with it: remove it",
		}},
		{"constants", map[string]string{
			"sys.go":            imports + "const a = unix.SYS_PPOLL + unix.SYS_SEVER\nvar p = unsafe.Pointer(&unix.PollFd{})",
			"zsys_linux_386.go": "import . `" + unixPath + "`\nconst c = POLLIN + AT_FDCWD",
			"zzz.go":            "import `" + unixPath + "`\nconst d = unix.SYS_SEVER + unix.POLLIN",
		}, []string{
			"unix.AT_FDCWD is used at zsys_linux_386.go:3, and the package has its own: use that",
			"unix.SYS_SEVER is used at sys.go:5, and nothing proves it: add it to gen/abi.go",
		}, nil},
		{"another field", map[string]string{
			"sys.go": imports + "func f(p *unix.PollFd) unsafe.Pointer {\np.Events = unix.POLLIN + unix.SYS_PPOLL\nreturn unsafe.Pointer(p) }",
		}, []string{"unix.PollFd.Events is used at sys.go:6, and nothing proves it: add it to gen/abi.go"}, nil},
		{"key of a literal", map[string]string{
			"sys.go": imports + "var p = unsafe.Pointer(&unix.PollFd{Fd: 1,\nEvents: unix.POLLIN + unix.SYS_PPOLL})",
		}, []string{"unix.PollFd.Events is used at sys.go:6, and nothing proves it: add it to gen/abi.go"}, nil},
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

// However a struct gets to the kernel, it is seen.
func TestUsesRaw(t *testing.T) {
	const imports = "import (`unsafe`; `" + unixPath + "`)\nvar _ unsafe.Pointer\nvar _ unix.PollFd\n"
	for text, raw := range map[string]bool{
		"func f(p *unix.Rlimit) unsafe.Pointer { return unsafe.Pointer(p) }":                             true,
		"func f(p *unix.Rlimit) unsafe.Pointer { return unsafe.Pointer(&*p) }":                           true,
		"func f() uintptr { var p unix.Rlimit; return uintptr(unsafe.Pointer(&p)) }":                     true,
		"func f() unsafe.Pointer { var p [2]unix.Rlimit; return unsafe.Pointer(&p) }":                    true,
		"func f() unsafe.Pointer { var p [2]unix.Rlimit; return unsafe.Pointer(&p[0]) }":                 true,
		"func f(p []unix.Rlimit) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(p)) }":          true,
		"func f() unsafe.Pointer { var p struct{ a int; b [1]unix.Rlimit }; return unsafe.Pointer(&p) }": true,
		"type own struct{ unix.Rlimit }; func f(p *own) unsafe.Pointer { return unsafe.Pointer(p) }":     true,
		"type own = unix.Rlimit; func f(p *own) unsafe.Pointer { return unsafe.Pointer(p) }":             true,
		"type ptr *unix.Rlimit; func f(p ptr) unsafe.Pointer { return unsafe.Pointer(p) }":               true,
		"func f(b []byte) uint64 { return (*unix.Rlimit)(unsafe.Pointer(&b[0])).Max }":                   true,
		"func f(p unsafe.Pointer) *[2]unix.Rlimit { return (*[2]unix.Rlimit)(p) }":                       true,

		"func f() uint64 { var p unix.Rlimit; unix.Prlimit(&p); return p.Cur }":                                  false,
		"func f(p *unix.Rlimit) unsafe.Pointer { x := p.Cur; return unsafe.Pointer(&x) }":                        false,
		"func f() unsafe.Pointer { var p struct{ a *unix.Rlimit }; return unsafe.Pointer(&p) }":                  false,
		"func f(p *unix.Rlimit) interface{} { return interface{}(p) }":                                           false,
		"func g(p *unix.Rlimit) unsafe.Pointer { return nil }; func f(p *unix.Rlimit) { g(p); unix.Prlimit(p) }": false,
	} {
		u := usesOf(fake(t, map[string]string{"sys.go": imports + text}))
		want := map[string]string{}
		if raw {
			want["Rlimit"] = "sys.go:5"
		}
		if !maps.Equal(u.raw, want) {
			t.Errorf("%s: got %q", text, u.raw)
		}
		takeInstead(t, nil, nil)
		if got := u.unproved(); len(got) != len(want) || raw && got[0] != "unix.Rlimit is used at sys.go:5, and nothing proves it: add it to gen/abi.go" {
			t.Errorf("%s: got %q", text, got)
		}
	}
}

// What is taken is compared with C in both versions of golang.org/x/sys/unix.
func TestCompareTaken(t *testing.T) {
	takeInstead(t, []group{pollGroup, numbers}, []cstruct{pollFD})
	v := answer(pollFD, 8, at{0, 4, 1, true}, at{6, 2, 1, true})
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
		{"Revents", "Returned", []string{"PollFd has no field Revents in @"}},
		{"Events, Revents", "Revents, Events", []string{"PollFd.Revents is 1 of 2 bytes signed at 4 in @, in C it is 1 of 2 bytes signed at 6"}},
		{"Revents int16", "Revents uint16", []string{"PollFd.Revents is 1 of 2 bytes unsigned at 6 in @, in C it is 1 of 2 bytes signed at 6"}},
		{"Fd int32", "Fd int64", []string{
			"PollFd has 16 bytes in @, in C it has 8",
			"PollFd.Fd is 1 of 8 bytes signed at 0 in @, in C it is 1 of 4 bytes signed at 0",
			"PollFd.Revents is 1 of 2 bytes signed at 10 in @, in C it is 1 of 2 bytes signed at 6",
		}},
		{"Fd int32; Events, Revents int16", "X int64", []string{
			"PollFd has no field Fd in @", "PollFd has no field Revents in @", "PollFd has no field of struct pollfd in @",
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
