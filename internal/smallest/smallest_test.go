package smallest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

func TestProgram(t *testing.T) {
	if _, ok := machines[runtime.GOARCH]; !ok || runtime.GOOS != "linux" {
		t.Skipf("there is no program for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	program, err := Program()
	if err != nil || len(program) > 200 {
		t.Fatalf("%d bytes, %v", len(program), err)
	}
	name := filepath.Join(t.TempDir(), "smallest")
	if err := os.WriteFile(name, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for input, want := range map[string]int{"": 255, "\x00": 0, "\x07": 7, "\x07\x08": 7} {
		cmd := exec.Command(name)
		cmd.Stdin = bytes.NewReader([]byte(input))
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("after %q it exits with %d, want %d", input, got, want)
		}
	}
}
