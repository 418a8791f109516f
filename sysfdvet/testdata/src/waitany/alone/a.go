package alone

import "syscall"

func reap() {
	for {
		syscall.Wait4(-1, nil, 0, nil)
	}
}
