package both

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil) // want `this also reaps the children that exec.Cmd.Run waits for \(b.go\), on all machines: it then fails with ECHILD`
		if pid <= 0 || err != nil {
			return
		}
	}
}

func reap2() {
	any := -1
	unix.Wait4(any, nil, 0, nil)                       // want `this also reaps`
	unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED, nil) // want `this also reaps`
	unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
	unix.Waitid(unix.P_PIDFD, 3, nil, unix.WEXITED, nil)
	// The children of this thread alone.
	unix.Wait4(any, nil, syscall.WNOTHREAD, nil)
	unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|syscall.WNOTHREAD, nil)
}

func one(cmd *exec.Cmd) {
	syscall.Wait4(cmd.Process.Pid, nil, 0, nil)
	unix.Wait4(0, nil, 0, nil) // the process group
}

func left() bool {
	_, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
	return err != syscall.ECHILD
}
