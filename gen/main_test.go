package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSame(t *testing.T) {
	v1, v2 := firstLine("7.1.1")+"\n", firstLine("7.2.13")+"\n"
	for _, tt := range []struct {
		name        string
		old, text   string
		same, moved bool
	}{
		{"the same", v1 + "const A = 1\n", v1 + "const A = 1\n", true, true},
		{"another version", v1 + "const A = 1\n", v2 + "const A = 1\n", false, true},
		{"another value", v1 + "const A = 1\n", v1 + "const A = 2\n", false, false},
		{"both", v1 + "const A = 1\n", v2 + "const A = 2\n", false, false},
		{"more of it", v1 + "const A = 1\n", v2 + "const A = 1\nconst B = 1\n", false, false},
		{"less of it", v1 + "const A = 1\nconst B = 1\n", v2 + "const A = 1\n", false, false},
		{"no first line", "const A = 1\n", v2 + "const A = 1\n", false, false},
		{"first line of another", "// By hand.\nconst A = 1\n", v2 + "const A = 1\n", false, false},
		{"nothing", "", v2 + "const A = 1\n", false, false},
		{"first line alone", v1, v2 + "const A = 1\n", false, false},
	} {
		if got := (config{}).same([]byte(tt.old), []byte(tt.text)); got != tt.same {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.same)
		}
		if got := (config{moved: true}).same([]byte(tt.old), []byte(tt.text)); got != tt.moved {
			t.Errorf("%s, moved: %v, want %v", tt.name, got, tt.moved)
		}
	}
}

// A file that was generated once and has no architecture any more is named,
// and what only looks like one is left alone.
func TestStrays(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"zsys_linux_arm.go":   firstLine("7.2.13") + "\n\npackage sysfd\n",
		"zsys_linux_alpha.go": firstLine("6.1.0") + "\n\npackage sysfd\n",
		"zsys_linux_test.go":  "package sysfd\n",
		"sys.go":              firstLine("6.1.0") + "\n\npackage sysfd\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	c := config{root: dir}
	want := "zsys_linux_alpha.go is for no architecture in gen/abi.go: remove it"
	if err := c.strays(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := c.run(); err == nil || err.Error() != want {
		t.Errorf("run: got %v, want %s", err, want)
	}
	if err := os.Remove(filepath.Join(dir, "zsys_linux_alpha.go")); err != nil {
		t.Fatal(err)
	}
	if err := c.strays(); err != nil {
		t.Error(err)
	}
}

// Every architecture that fails is named, in the order of the table, and
// nothing is written.
func TestRunFails(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	err := config{clang: "clang", headers: gone, libc: gone, root: dir}.run()
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(arches) {
		t.Fatalf("%d errors for %d architectures:\n%v", len(lines), len(arches), err)
	}
	for i, a := range arches {
		if !strings.HasPrefix(lines[i], a.GOARCH+": ") || !strings.Contains(lines[i], filepath.Join(gone, a.Headers)) {
			t.Errorf("%s: %s", a.GOARCH, lines[i])
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("%d files were written", len(files))
	}
}
