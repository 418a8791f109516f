package alone

import (
	"os"
	"strconv"
)

func count() int {
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS")) // want `LISTEN_FDS is taken without a look at LISTEN_PID` `LISTEN_FDS and the variables beside it are left`
	return n
}
