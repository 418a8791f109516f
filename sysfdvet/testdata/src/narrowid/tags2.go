//go:build linux && !386

package narrowid

import . "github.com/sysfd/sysfd"

func onARM(id PidFDID) int { return int(id) } // want `a PidFDID has 64 bits`

func dotted(fd int) int {
	id, _ := PidFDIDOf(fd)
	return int(id) // want `a PidFDID has 64 bits`
}
