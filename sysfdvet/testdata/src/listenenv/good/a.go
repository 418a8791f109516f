package good

import (
	"os"
	"strconv"
)

func files() (all []*os.File) {
	pid, id, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_PIDFDID"), os.Getenv("LISTEN_FDS")
	os.Unsetenv("LISTEN_PID")
	count, _ := strconv.Atoi(n)
	if pid != strconv.Itoa(os.Getpid()) || id != "" && id != "7" {
		return nil
	}
	return make([]*os.File, count)
}
