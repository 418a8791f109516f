package starts

import (
	"os/exec"
	"syscall"
)

func dispatch(cmd *exec.Cmd, exited chan int) {
	go func() {
		for {
			pid, err := syscall.Wait4(-1, nil, 0, nil)
			if err != nil {
				return
			}
			exited <- pid
		}
	}()
	<-exited
	cmd.Wait() // for the copies of its output
}
