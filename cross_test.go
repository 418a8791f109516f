//go:build linux

package sysfd

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The other architectures that the tests of this package run for: natively where
// the kernel can, or under an emulator.
var otherArchitectures = []struct {
	GOARCH   string
	emulator []string
}{
	{"386", nil},
	{"arm", []string{"qemu-arm-static", "qemu-arm"}},
	{"arm64", []string{"qemu-aarch64-static", "qemu-aarch64"}},
}

func TestOtherArchitectures(t *testing.T) {
	if raceEnabled || testing.Short() || runtime.GOARCH != "amd64" {
		t.Skip("this is for a whole run on amd64")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command")
	}
	for _, arch := range otherArchitectures {
		t.Run(arch.GOARCH, func(t *testing.T) {
			emulator := ""
			for _, name := range arch.emulator {
				if path, err := exec.LookPath(name); err == nil {
					emulator = path
					break
				}
			}
			if arch.emulator != nil && emulator == "" {
				lacks(t, strings.Join(arch.emulator, " or ")+" (Debian's package qemu-user-static)")
			}
			binary := filepath.Join(t.TempDir(), "sysfd.test")
			build := exec.Command(goTool, "test", "-c", "-o", binary, ".")
			build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch.GOARCH, "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			words := []string{binary, "-test.v", "-test.timeout=5m"}
			if emulator != "" {
				words = append([]string{emulator}, words...)
			}
			run := exec.Command(words[0], words[1:]...)
			run.Env = append(os.Environ(), emulatorVar+"="+emulator)
			out, err := run.CombinedOutput()
			if _, exited := err.(*exec.ExitError); err != nil && !exited {
				lacks(t, "a kernel that runs programs for "+arch.GOARCH) // exec: format error
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "--- SKIP") || strings.Contains(line, "_test.go") {
					t.Log(strings.TrimSpace(line))
				}
			}
			if !strings.Contains(string(out), "--- PASS: TestPidFDIDOf") {
				t.Errorf("the tests did not run:\n%s", out)
			}
		})
	}
}
