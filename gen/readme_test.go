package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The programs in the README compile.
func TestReadmePrograms(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	programs := regexp.MustCompile("(?s)\n```go\n([^`]*package main\n.*?)```\n").FindAllSubmatch(readme, -1)
	if len(programs) == 0 {
		t.Fatal("there is none")
	}
	for _, program := range programs {
		name := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(name, program[1], 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "vet", name)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
