package third

import "between/lib"

func field(p lib.Process) int { return int(p.ID) } // want `a PidFDID has 64 bits`
