package main

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// fromSource loads types without a compiler. To compile the standard library for each port and each
// system would take ten minutes.
const fromSource = packages.NeedName | packages.NeedTypes | packages.NeedSyntax | packages.NeedImports | packages.NeedDeps

// The packages, the commands and their tests have no type errors on any port of Linux, nor on other
// systems. So it is with those examples that are not about Linux alone.
func TestPorts(t *testing.T) {
	check := func(dir, goos, goarch string, atLeast int) {
		c := loadConfig(dir, goarch, nil)
		c.Mode, c.Env, c.Tests = fromSource, append(c.Env, "GOOS="+goos), true
		pkgs, err := packages.Load(c, "./...")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pkgs {
			for _, err := range p.Errors {
				t.Errorf("%s/%s, %s: %v", goos, goarch, p.ID, err)
			}
		}
		if len(pkgs) < atLeast {
			t.Errorf("%s/%s has %d packages in %s", goos, goarch, len(pkgs), dir)
		}
	}
	for _, a := range arches {
		check("..", "linux", a.GOARCH, 10)
	}
	for _, port := range append(slices.Clone(otherSystems), "plan9/amd64") {
		goos, goarch, _ := strings.Cut(port, "/")
		check("..", goos, goarch, 5)
	}
	check("../examples", "darwin", "arm64", 1)
	check("../examples", "freebsd", "amd64", 1)
}
