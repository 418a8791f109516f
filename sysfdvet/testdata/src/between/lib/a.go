// Package lib is one that uses sysfd.
package lib

import "github.com/sysfd/sysfd"

type Process struct{ ID sysfd.PidFDID }

func ID() sysfd.PidFDID { return 0 }
