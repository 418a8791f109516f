package sysfdvet_test

import (
	"testing"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/sysfd/sysfd/sysfdvet"
)

func TestAnalyzers(t *testing.T) {
	if err := analysis.Validate(sysfdvet.Analyzers()); err != nil {
		t.Fatal(err)
	}
	for _, a := range sysfdvet.Analyzers() {
		t.Run(a.Name, func(t *testing.T) {
			analysistest.RunWithSuggestedFixes(t, analysistest.TestData(), a, a.Name+"/...")
		})
	}
}
