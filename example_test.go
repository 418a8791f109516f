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

// A supervisor that waits until a program reports that it is ready.
func ExampleListenNotify() {
	l, err := sysfd.ListenNotify("/run/supervisor/notify", 0o600)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	to := &sysfd.Notifier{Address: l.Address(), WatchdogInterval: time.Minute}
	p, err := sysfd.StartProcess("/usr/bin/httpd", []string{"httpd", "-f"}, &os.ProcAttr{Env: to.Environ(os.Environ())})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		m, err := l.Next(ctx)
		if err != nil {
			fmt.Println("not ready:", err)
			return
		}
		main, err := m.IsFrom(p) // and not a child of it
		if status, ok := m.Value("STATUS"); ok && main {
			fmt.Printf("%q\n", status)
		}
		ready := main && m.Has(sysfd.NotifyReady)
		m.Close() // with it a barrier at which the program waits
		if ready || err != nil {
			return
		}
	}
}

// A proxy passes on what a program reports, as it comes: descriptors too, and barriers, at which the
// program waits until the service manager has dealt with what came before.
func ExampleNotification_Files() {
	manager, err := sysfd.TakeNotifier()
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := sysfd.ListenNotify("/run/proxy/notify", 0o600) // $NOTIFY_SOCKET of the program
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	ctx := context.Background()
	for {
		m, err := l.Next(ctx)
		if err != nil {
			return
		}
		if _, err := manager.NotifyFiles(ctx, m.Files(), m.Assignments...); err != nil {
			fmt.Println(m, err)
		}
		m.Close()
	}
}
