package overdue

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	Report()
	os.Exit(m.Run())
}

const hangVar = "SYSFD_TEST_HANG"

func hang() { select {} }

func TestHang(t *testing.T) {
	if os.Getenv(hangVar) != "" {
		for range 1000 {
			go hang()
		}
		hang()
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHang$", "-test.timeout=500ms")
	cmd.Env = append(os.Environ(), hangVar+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it has not failed: %s", out)
	}
	for _, want := range []string{"500ms", "1000:\n", ".TestHang+", "overdue_test.go:", "in no test"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("there is no %q", want)
		}
	}
	if n := strings.Count(string(out), "\n"); n > 20 || strings.Contains(string(out), "panic:") {
		t.Errorf("%d lines", n)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
