package bounded

import (
	"os"
	"strconv"
)

func files() []*os.File {
	defer os.Clearenv()
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID")) // want `LISTEN_PID is compared`
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n > 1024 || pid != os.Getpid() {
		return nil
	}
	return make([]*os.File, n)
}
