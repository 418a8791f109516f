//go:build linux

package rights

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// Proc has the same.
func TestHas(t *testing.T) {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Skip(err)
	}
	field := func(name string) uint64 {
		m := regexp.MustCompile(`(?m)^` + name + `:\s*([0-9a-f]+)$`).FindSubmatch(status)
		if m == nil {
			t.Skipf("there is no %s in /proc/thread-self/status", name)
		}
		n, err := strconv.ParseUint(string(m[1]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	effective := field("CapEff")
	for c, name := range names {
		if Has(c) != (effective>>c&1 == 1) {
			t.Errorf("%s: %v, and CapEff is %#x", name, Has(c), effective)
		}
	}
	if Filter() != (field("Seccomp") == 2) {
		t.Errorf("a seccomp filter: %v", Filter())
	}
}
