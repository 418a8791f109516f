package narrowid

import "github.com/sysfd/sysfd"

func onAMD64(id sysfd.PidFDID) int {
	_ = uint32(id) // want `uint32 keeps`
	return int(id)
}
