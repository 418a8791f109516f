package overdue

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
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
	var out string
	for timeout := time.Second; ; timeout *= 4 { // a busy machine may not come to print in time
		cmd := exec.Command(os.Args[0], "-test.run=^TestHang$", "-test.timeout="+timeout.String())
		cmd.Env = append(os.Environ(), hangVar+"=1")
		b, err := cmd.CombinedOutput()
		if err == nil {
			t.Fatalf("it has not failed: %s", b)
		}
		if out = string(b); !strings.Contains(out, "panic:") || timeout > time.Minute {
			break
		}
	}
	for _, want := range []string{"have not ended in", "1000:\n", ".TestHang+", "overdue_test.go:", "in no test"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if n := strings.Count(out, "\n"); n > 20 {
		t.Errorf("%d lines", n)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
