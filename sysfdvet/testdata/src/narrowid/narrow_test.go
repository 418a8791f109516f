package narrowid

import (
	"testing"

	"github.com/sysfd/sysfd"
)

func TestOnPurpose(t *testing.T) { t.Log(int(sysfd.PidFDID(len(t.Name())))) }
