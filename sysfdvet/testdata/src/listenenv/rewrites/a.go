package rewrites

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

func become(argv []string) error {
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // want `LISTEN_PID is written anew and an inherited LISTEN_PIDFDID stays`
	return syscall.Exec(argv[0], argv, os.Environ())
}

func becomeOther(argv []string, own string) error {
	os.Unsetenv(own)
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // want `LISTEN_PID is written anew and an inherited LISTEN_PIDFDID stays`
	return syscall.Exec(argv[0], argv, os.Environ())
}

func conditional(argv []string) error {
	if err := os.Setenv("LISTEN_PID", "1"); err != nil { // want `LISTEN_PID is written anew`
		return err
	}
	return nil
}

func composed(argv []string) error {
	env := append(os.Environ(), fmt.Sprintf("LISTEN_PID=%d", os.Getpid())) // want `LISTEN_PID is written anew`
	return syscall.Exec(argv[0], argv, env)
}

func concatenated(argv []string) error {
	env := append(os.Environ(), "LISTEN_PID="+strconv.Itoa(os.Getpid())) // want `LISTEN_PID is written anew`
	return syscall.Exec(argv[0], argv, env)
}

func ofItsOwn(argv []string) error {
	return syscall.Exec(argv[0], argv, []string{"LISTEN_FDS=1", "LISTEN_PID=" + strconv.Itoa(os.Getpid())})
}
