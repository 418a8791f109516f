package prefix

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

func become(argv []string) error {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LISTEN_") {
			env = append(env, v)
		}
	}
	return syscall.Exec(argv[0], argv, append(env, "LISTEN_FDS=1", "LISTEN_PID="+strconv.Itoa(os.Getpid())))
}
