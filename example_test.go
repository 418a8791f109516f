//go:build linux

package sysfd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

func ExampleStartProcess() {
	p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exit 3"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	r, err := p.Wait(context.Background(), 0)
	fmt.Println(r, err)
	// Output: exit status 3 <nil>
}

// The cgroup of a process, by the ID that the kernel has for it. It takes root and Linux 6.13.
func ExampleCgroupPath() {
	root, err := os.Open("/sys/fs/cgroup")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer root.Close()
	p, err := sysfd.OpenPidFD(os.Getpid(), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	info, err := p.Info(sysfd.PIDFD_INFO_CGROUPID)
	if err != nil {
		fmt.Println(err)
		return
	}
	if id, ok := info.CgroupID(); ok {
		fmt.Println(sysfd.CgroupPath(int(root.Fd()), id)) // such as /user.slice/user-1000.slice/session-1.scope <nil>
	}
}

func ExamplePidFD_Stop() {
	p, err := sysfd.StartProcess("/bin/sh", []string{"sh", "-c", "exec sleep 1000"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	r, err := p.Stop(context.Background(), 10*time.Second)
	fmt.Println(r, err)
	// Output: signal 15 (terminated) <nil>
}

// With an exec.Cmd, which reaps the process itself, the PidFD observes.
func ExampleTakePidFD() {
	fd := -1
	cmd := exec.Command("sh", "-c", "echo hello; exit 3")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return
	}
	p, err := sysfd.TakePidFD(cmd.SysProcAttr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	r, err := p.Wait(context.Background(), sysfd.WaitNoReap)
	fmt.Println(r, err)
	var exit *exec.ExitError
	fmt.Println(errors.As(cmd.Wait(), &exit))
	// Output:
	// hello
	// exit status 3 <nil>
	// true
}

func ExampleNotifier_Watchdog() {
	n, err := sysfd.TakeNotifier() // children do not inherit the variables
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go n.Watchdog(ctx, func(ctx context.Context) error {
		// Do what the program is there for, such as a query of its own database.
		return nil
	})
	n.Notify(ctx, sysfd.NotifyReady, sysfd.NotifyStatus("serving"))
}
