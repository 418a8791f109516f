//go:build linux

package systemd

import (
	"os"
	"os/exec"
	"testing"

	"github.com/sysfd/sysfd/internal/overdue"
)

func TestMain(m *testing.M) {
	overdue.Report()
	os.Exit(m.Run())
}

// lacks skips a test for want of something that CI has.
func lacks(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("it takes %s, which CI should have", what)
	}
	t.Skipf("it takes %s", what)
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacks(t, "root")
	}
}

func needsTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		lacks(t, name)
	}
}
