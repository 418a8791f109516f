//go:build linux

// Package listenexec passes descriptors to the program of an [exec.Cmd], as [sysfd.StartListenFDs]
// does for a program that os.StartProcess would start. The program receives them as it would from
// systemd's socket activation, by $LISTEN_FDS.
//
//	cmd := exec.CommandContext(ctx, "/usr/sbin/served")
//	cmd.Stderr = log
//	if err := listenexec.Start(cmd, files...); err != nil {
//		return err
//	}
//	return cmd.Wait()
package listenexec

import (
	"io"
	"os"
	"os/exec"

	"github.com/sysfd/sysfd"
)

// Start starts cmd as its method Start does, and passes files to the program as its descriptors
// from 3 up. It sets $LISTEN_FDS, $LISTEN_FDNAMES (from the names of the files), and $LISTEN_PID
// and $LISTEN_PIDFDID of the new process. See [sysfd.StartListenFDs] for how that works, and for
// its limits. cmd.ExtraFiles follow the passed files, and the program is not told about them.
//
// Everything else is as usual: pipes and buffers for the standard files, Cancel, WaitDelay, and
// cmd.Wait, which must be called after a success. Start changes some fields of cmd, and restores
// them before it returns.
//
// Errors: those of cmd.Start, and those of [sysfd.StartListenFDsBy]. If cmd.Start itself succeeded,
// the process has been killed and waited for, nothing was read from cmd.Stdin, and cmd cannot be
// started again.
func Start(cmd *exec.Cmd, files ...*os.File) error {
	if cmd.Process != nil {
		return cmd.Start() // an error: it was started before
	}
	path, words, env, sys, extra, stdin := cmd.Path, cmd.Args, cmd.Env, cmd.SysProcAttr, cmd.ExtraFiles, cmd.Stdin
	args := cmd.Args
	if len(args) == 0 {
		args = []string{cmd.Path}
	}
	gate := &gate{r: stdin, entered: make(chan struct{}), open: make(chan bool, 1)}
	attr := &os.ProcAttr{Dir: cmd.Dir, Env: cmd.Environ(), Files: append(make([]*os.File, 3), cmd.ExtraFiles...), Sys: cmd.SysProcAttr}
	err := sysfd.StartListenFDsBy(func(name string, argv []string, attr *os.ProcAttr) (int, error) {
		cmd.Path, cmd.Args, cmd.Env, cmd.SysProcAttr, cmd.ExtraFiles = name, argv, attr.Env, attr.Sys, attr.Files[3:]
		_, isFile := stdin.(*os.File)
		copied := stdin != nil && !isFile
		if copied {
			cmd.Stdin = gate
		}
		defer func() {
			cmd.Path, cmd.Args, cmd.Env, cmd.SysProcAttr, cmd.ExtraFiles, cmd.Stdin = path, words, env, sys, extra, stdin
		}()
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		if copied {
			<-gate.entered
		}
		return cmd.Process.Pid, nil
	}, cmd.Path, args, attr, files)
	gate.open <- err == nil
	if err != nil && cmd.Process != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
	return err
}

// A gate stands before the Stdin of a Cmd, and lets nothing be read until the program runs:
// cmd.Wait would wait for a reader, which can block forever.
type gate struct {
	r       io.Reader
	entered chan struct{}
	open    chan bool
}

func (g *gate) Read(b []byte) (int, error) { return 0, io.EOF } // Cmd calls io.Copy, and that WriteTo

func (g *gate) WriteTo(w io.Writer) (int64, error) {
	close(g.entered)
	if !<-g.open {
		return 0, nil
	}
	return io.Copy(w, g.r)
}
