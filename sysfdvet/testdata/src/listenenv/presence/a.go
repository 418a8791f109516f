// Package presence asks whether there is anything, and leaves it to others.
package presence

import "os"

func activated() bool { return os.Getenv("LISTEN_FDS") != "" && os.Getenv("LISTEN_PID") != "" }
