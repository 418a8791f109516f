//go:build (linux && (amd64 || arm64)) || ppc64

package narrowid

import "github.com/sysfd/sysfd"

func onWide(id sysfd.PidFDID) int { return int(id) }
