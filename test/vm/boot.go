//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sysfd/sysfd/test/vm/job"
)

// quicker turns off what protects a kernel and makes an emulated one slow, and changes no answer of it. With page
// tables of its own a system call takes ten times as long, for qemu forgets all translations when they are changed:
// 686 has them against Meltdown, arm64 wherever addresses are random.
const quicker = "mitigations=off nokaslr init_on_alloc=0"

// A vm boots a kernel that runs one program.
type vm struct {
	kernel  kernel
	machine machine
	image   string // of the kernel
	init    string // the program in ./guest
	program string
	args    []string
	more    []string // arguments of qemu
	uid     int
	folder  string             // is put beside the program, if there is one
	raise   bool               // the program may ask for what a raiser does
	output  func(string)       // is given each line of the program's
	host    func(string) error // answers what the program asks it
}

// A result is how a run ended.
type result struct {
	kernel          kernel
	release         string // what uname said
	passed, skipped int
	failed          []string // their names
	status          int      // of the program
	err             error
	took            time.Duration
}

func (r result) verdict() string {
	switch {
	case r.err != nil:
		return "no verdict"
	case r.status != 0:
		return strings.TrimSpace(fmt.Sprintf("exit status %d %s", r.status, strings.Join(r.failed, " ")))
	default:
		return "ok"
	}
}

func (r result) String() string {
	return fmt.Sprintf("%s: %s after %.0fs", r.kernel.name, r.verdict(), r.took.Seconds())
}

func (r result) ok() bool { return r.err == nil && r.status == 0 }

// tailLength is how many lines of the console an error shows. A panic takes some fifty.
const tailLength = 80

// run returns when the program has ended. There is an error if the guest did not say how.
func (v vm) run(ctx context.Context) (r result) {
	start := time.Now()
	defer func() { r.took = time.Since(start) }()
	r.kernel = v.kernel
	dir, err := os.MkdirTemp("", "sysfd-vm-")
	if err != nil {
		r.err = err
		return r
	}
	defer os.RemoveAll(dir)
	mark := "vm-" + rand.Text()
	initramfs := filepath.Join(dir, "initramfs")
	if r.err = v.pack(initramfs, mark); r.err != nil {
		return r
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	memory := v.machine.memory
	if v.raise {
		memory = 512 // is searched
	}
	words := append(slices.Clone(v.machine.qemu), "-accel", "tcg", "-smp", "1", "-m", strconv.Itoa(memory),
		"-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio", "-monitor", "none", "-kernel", v.image, "-initrd", initramfs,
		"-append", "console="+v.machine.console+" quiet loglevel=1 panic=-1 oops=panic "+quicker)
	if v.raise {
		words = append(words, raiseOptions(dir, memory)...)
	}
	words = append(words, v.more...)
	qemu := exec.CommandContext(ctx, words[0], words[1:]...)
	var stderr bytes.Buffer
	qemu.Stderr = &stderr
	qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	qemu.WaitDelay = 10 * time.Second
	keys, err1 := qemu.StdinPipe()
	serial, err2 := qemu.StdoutPipe()
	if r.err = errors.Join(err1, err2); r.err != nil {
		return r
	}
	if v.raise {
		raiser := raiser{dir: dir, answers: keys, order: v.machine.byteOrder()}
		defer raiser.close()
		v.host = raiser.line
	}
	if r.err = qemu.Start(); r.err != nil {
		return r
	}
	tail, end := v.follow(serial, mark, &r)
	if end != io.EOF {
		cancel() // the guest has no more to say
	}
	switch err := qemu.Wait(); {
	case end == nil:
	case end != io.EOF:
		r.err = end
	case ctx.Err() != nil:
		r.err = errors.New("no verdict in time")
	default:
		r.err = fmt.Errorf("the machine stopped without a verdict (%v)", cmp.Or(err, errors.New("exit status 0")))
	}
	if r.err != nil {
		r.err = fmt.Errorf("%w; its console ends with\n%s%s", r.err, strings.Join(tail, ""), &stderr)
	}
	return r
}

// follow reads the console until the verdict, and returns its last lines. The error
// is io.EOF if there was no verdict.
func (v vm) follow(serial io.Reader, mark string, r *result) (tail []string, err error) {
	console := bufio.NewReader(serial)
	running := false
	for err == nil {
		var line string
		line, err = console.ReadString('\n')
		line = strings.ReplaceAll(line, "\r", "") // the terminal's
		tail = append(tail, line)[max(0, len(tail)+1-tailLength):]
		text, said, found := strings.Cut(line, mark+" ")
		switch said = strings.TrimSpace(said); {
		case found && !running:
			running, r.release = true, said
		case found:
			v.programLine(text, r)
			r.status, err = strconv.Atoi(said)
			return tail, err
		case running:
			v.programLine(line, r)
			if v.host != nil && err == nil {
				err = v.host(line)
			}
		}
	}
	return tail, err
}

// programLine takes a line that the program printed.
func (v vm) programLine(line string, r *result) {
	if line != "" && v.output != nil {
		v.output(line)
	}
	switch {
	case strings.HasPrefix(line, "--- PASS: "):
		r.passed++
	case strings.HasPrefix(line, "--- SKIP: "):
		r.skipped++
	case strings.HasPrefix(line, "--- FAIL: "):
		r.failed = append(r.failed, strings.Fields(line)[2])
	}
}

// pack writes the first root file system of the guest.
func (v vm) pack(name, mark string) error {
	const dir, program = "work", "work/program.test"
	env := []string{"PATH=/bin", "HOME=/tmp", "SYSFD_TEST_VM=1"}
	if v.raise {
		env = append(env, "VM_HOST=1")
	}
	text, err := json.Marshal(job.Job{
		Args: append([]string{"/" + program}, v.args...),
		Env:  env,
		Dir:  "/" + dir, UID: v.uid, Interactive: v.raise, Mark: mark,
	})
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpioWriter{w: f}
	w.add(strings.TrimPrefix(job.File, "/"), 0o644, text)
	for _, tool := range []string{"sleep", "mount"} {
		w.add("bin/"+tool, fs.ModeSymlink|0o777, []byte("/init"))
	}
	w.add("usr", fs.ModeDir|0o755, nil) // some tests look at one
	for to, from := range map[string]string{"init": v.init, program: v.program} {
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		w.add(to, 0o755, content)
	}
	if _, err := os.Stat(v.folder); err == nil {
		if err := w.addTree(path.Join(dir, filepath.Base(v.folder)), os.DirFS(v.folder)); err != nil {
			return err
		}
	}
	return errors.Join(w.close(), f.Close())
}
