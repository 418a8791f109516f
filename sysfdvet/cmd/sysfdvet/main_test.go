package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool builds the command.
func tool(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "sysfdvet")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// module writes a module that uses the package of this repository, and what name of golang.org/x/sys it is given.
func module(t *testing.T, files map[string]string) string {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files["go.mod"] = fmt.Sprintf("module example.org/x\n\ngo 1.24\n\nrequire (\n\tgithub.com/sysfd/sysfd v0.0.0\n\tgolang.org/x/sys v0.22.0\n)\n\nreplace github.com/sysfd/sysfd => %s\n", root)
	files["go.sum"] = string(sum)
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func run(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOFLAGS=", "GOWORK=off"), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const narrow = `package x

import "github.com/sysfd/sysfd"

func narrow(fd int) int {
	id, _ := sysfd.PidFDIDOf(fd)
	return int(id)
}
`

const finding = "a PidFDID has 64 bits: int keeps the lower 32 on 386, arm, mips and mipsle"

func TestBothWays(t *testing.T) {
	path := tool(t)
	dir := module(t, map[string]string{
		"x.go": narrow,
		"handle/handle.go": `package handle

import "golang.org/x/sys/unix"

func Handle() { unix.NameToHandleAt(unix.AT_FDCWD, "/", 1) }
`,
		"x_test.go": `package x

import (
	"errors"
	"syscall"
	"testing"

	"github.com/sysfd/sysfd"
)

var errNot = errors.New("not")

func TestX(t *testing.T) {
	if _, err := sysfd.OpenPidFD(1, 0); err == syscall.ESRCH {
		t.Log(int(sysfd.PidFDID(narrow(1))))
	}
}
`,
	})
	ways := map[string][]string{
		"vet":        {"go", "vet", "-vettool=" + path, "./..."},
		"standalone": {path, "./..."},
	}
	for name, command := range ways {
		out, err := run(dir, nil, command[0], command[1:]...)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		for _, want := range []string{"x.go:7:9: " + finding, "handle.go:5:17: AT_HANDLE_MNT_ID_UNIQUE", "x_test.go:14:38: an error of package sysfd is never syscall.ESRCH itself"} {
			if strings.Count(out, want) != 1 {
				t.Errorf("%s: not once %q in\n%s", name, want, out)
			}
		}
		if n := strings.Count(out, ".go:"); n != 3 {
			t.Errorf("%s: %d findings\n%s", name, n, out)
		}
	}
	if out, err := run(dir, []string{"GOARCH=386", "CGO_ENABLED=0"}, "go", "vet", "-vettool="+path, "."); err == nil || !strings.Contains(out, finding) {
		t.Errorf("386: %v\n%s", err, out)
	}
	if out, err := run(dir, nil, "go", "vet", "-vettool="+path, "-mntidunique", "."); err != nil {
		t.Errorf("one analyzer alone: %v\n%s", err, out)
	}
	run(dir, nil, path, "-fix", ".") // what it exits with is no news about the fixes
	if text, err := os.ReadFile(filepath.Join(dir, "x_test.go")); err != nil || !strings.Contains(string(text), "errors.Is(err, syscall.ESRCH)") {
		t.Errorf("after -fix: %v\n%s", err, text)
	}
	if out, err := run(dir, nil, "go", "vet", "."); err != nil {
		t.Errorf("what -fix has written: %v\n%s", err, out)
	}
}

func TestVendored(t *testing.T) {
	path := tool(t)
	dir := module(t, map[string]string{"x.go": narrow, "h.go": `package x

import . "golang.org/x/sys/unix"

func handle() { NameToHandleAt(AT_FDCWD, "/", AT_EMPTY_PATH|1) }
`})
	if out, err := run(dir, nil, "go", "mod", "vendor"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := run(dir, nil, "go", "vet", "-vettool="+path, ".")
	if err == nil || !strings.Contains(out, "h.go:5:17: AT_HANDLE_MNT_ID_UNIQUE") || !strings.Contains(out, finding) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCgo(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no C compiler")
	}
	path := tool(t)
	dir := module(t, map[string]string{"x.go": strings.Replace(narrow, "package x\n", "package x\n\n// int f(void) { return 1; }\nimport \"C\"\n", 1) + `
func c() int { return int(C.f()) }

func known(fd int) int {
	id, _ := sysfd.PidFDIDOf(fd)
	return int(id) //nolint:narrowid // few processes
}
`})
	out, err := run(dir, []string{"CGO_ENABLED=1"}, "go", "vet", "-vettool="+path, ".")
	if err == nil || !strings.Contains(out, "x.go:10:9: "+finding) || strings.Count(out, ".go:") != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

// What does not compile is told, and not looked at.
func TestBroken(t *testing.T) {
	path := tool(t)
	for name, text := range map[string]string{
		"syntax":  narrow + "func {",
		"types":   narrow + "var x int = narrow\n",
		"import":  narrow + "\nimport \"example.org/nowhere\"\n",
		"cycle":   narrow + "type a struct{ b }\ntype b struct{ a }\n",
		"generic": narrow + "func g[T any, T any](x T) { int(x) }\n",
	} {
		dir := module(t, map[string]string{"x.go": text})
		for _, command := range [][]string{{"go", "vet", "-vettool=" + path, "."}, {path, "."}} {
			out, err := run(dir, nil, command[0], command[1:]...)
			if err == nil || strings.Contains(out, "panic") || strings.Contains(out, "goroutine ") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
}

func goroot(t *testing.T) string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// The standard library has none of it.
func TestStandardLibrary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes; without -short")
	}
	if out, err := run(goroot(t), nil, "go", "vet", "-vettool="+tool(t), "std", "cmd/..."); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
