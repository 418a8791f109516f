package leaves

import (
	"os"
	"strconv"
)

func listener() *os.File {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) { // want `LISTEN_PID is compared and LISTEN_PIDFDID is not`
		return nil
	}
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err != nil || n != 1 { // want `LISTEN_FDS and the variables beside it are left to the processes that the program starts`
		return nil
	}
	return os.NewFile(3, "")
}
