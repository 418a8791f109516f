// Package sysfdvet finds the mistakes that package sysfd exists for: identities that are cut off or used again, and
// descriptors that are not what they are taken for.
//
// Each analyzer is in a package of its own, for drivers that want one. The command is
// in cmd/sysfdvet.
package sysfdvet

import (
	"golang.org/x/tools/go/analysis"

	"github.com/sysfd/sysfd/sysfdvet/errnocompare"
	"github.com/sysfd/sysfd/sysfdvet/fdblocking"
	"github.com/sysfd/sysfd/sysfdvet/inoidentity"
	"github.com/sysfd/sysfd/sysfdvet/listenenv"
	"github.com/sysfd/sysfd/sysfdvet/mntidunique"
	"github.com/sysfd/sysfd/sysfdvet/narrowid"
	"github.com/sysfd/sysfd/sysfdvet/peerrights"
	"github.com/sysfd/sysfd/sysfdvet/pidreuse"
	"github.com/sysfd/sysfd/sysfdvet/waitany"
)

// Analyzers returns all analyzers.
func Analyzers() []*analysis.Analyzer {
	return []*analysis.Analyzer{
		errnocompare.Analyzer, fdblocking.Analyzer, inoidentity.Analyzer, listenenv.Analyzer, mntidunique.Analyzer,
		narrowid.Analyzer, peerrights.Analyzer, pidreuse.Analyzer, waitany.Analyzer,
	}
}
