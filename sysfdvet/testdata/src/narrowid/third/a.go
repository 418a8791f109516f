// Package third does not import sysfd.
package third

import "between/lib"

func narrow() int { return int(lib.ID()) } // want `a PidFDID has 64 bits`
