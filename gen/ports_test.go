package main

import (
	"testing"

	"golang.org/x/tools/go/packages"
)

// The packages, the commands and their tests have no type errors on any port of Linux. They are
// checked from source: to compile the standard library for all ports would take ten minutes.
func TestPorts(t *testing.T) {
	for _, a := range arches {
		c := loadConfig("..", a.GOARCH, nil)
		c.Mode = packages.NeedName | packages.NeedTypes | packages.NeedSyntax | packages.NeedImports | packages.NeedDeps
		c.Tests = true
		pkgs, err := packages.Load(c, "./...")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pkgs {
			for _, err := range p.Errors {
				t.Errorf("GOARCH=%s, %s: %v", a.GOARCH, p.ID, err)
			}
		}
		if len(pkgs) < 10 {
			t.Errorf("GOARCH=%s has %d packages", a.GOARCH, len(pkgs))
		}
	}
}
