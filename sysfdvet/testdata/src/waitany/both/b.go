package both

import "os/exec"

func run() error { return exec.Command("x").Run() }

func serve() {
	go reap()
	go func() {
		reap2()
	}()
	left()
	run()
}
