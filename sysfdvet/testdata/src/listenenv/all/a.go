// Package all leaves no variable.
package all

import (
	"os"
	"strconv"
	"strings"
)

func take() int {
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS")) // want `LISTEN_FDS is taken without a look at LISTEN_PID`
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		os.Unsetenv(name)
	}
	return n
}
