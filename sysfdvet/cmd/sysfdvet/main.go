// Sysfdvet finds mistakes with process IDs, pidfds, file handles and passed sockets in Go programs.
//
//	sysfdvet ./...
//	go vet -vettool=$(which sysfdvet) ./...
//
// `sysfdvet help` lists what it finds, `sysfdvet help NAME` explains one of them, `sysfdvet -fix ./...` applies
// those fixes that are safe.
package main

import (
	"golang.org/x/tools/go/analysis/multichecker"

	"github.com/sysfd/sysfd/sysfdvet"
)

func main() { multichecker.Main(sysfdvet.Analyzers()...) }
