package loop

import (
	"os"
	"strconv"
)

func one() bool {
	defer func() {
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			os.Unsetenv(name) // want `LISTEN_PID is unset and LISTEN_PIDFDID is not`
		}
	}()
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID")) // want `LISTEN_PID is compared`
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	return pid == os.Getpid() && n == 1
}
