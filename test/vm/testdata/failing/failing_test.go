// Package failing has tests that fail, each in its way.
package failing

import (
	"os"
	"testing"
	"time"
)

func TestFails(t *testing.T) { t.Error("on purpose") }

func TestPanicsTheKernel(t *testing.T) {
	t.Fatal(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
}

func TestHangs(*testing.T) { time.Sleep(time.Hour) }
