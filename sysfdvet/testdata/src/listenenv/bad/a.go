package bad

import (
	"os"
	"strconv"
)

const fds = "LISTEN_FDS"

func files() []*os.File {
	defer os.Unsetenv("LISTEN_PID") // want `LISTEN_PID is unset and LISTEN_PIDFDID is not`
	defer os.Unsetenv("LISTEN_FDS")
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")) // want `LISTEN_PID is compared and LISTEN_PIDFDID is not`
	if err != nil || pid != os.Getpid() {
		return nil
	}
	n, err := strconv.Atoi(os.Getenv(fds))
	if err != nil || n == 0 {
		return nil
	}
	all := make([]*os.File, 0, n) // want `this is as large as LISTEN_FDS says`
	for fd := 3; fd < 3+n; fd++ {
		all = append(all, os.NewFile(uintptr(fd), ""))
	}
	return all
}
