//go:build linux && amd64

package bench

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInstructions counts the instructions that an operation takes outside the kernel, without what
// only some processors can do. So a slower way is noticed on any machine. It fails if an operation
// takes 3% more or less beside its bare calls than instructions.txt says. With another version of Go
// nothing is compared. If new counts are right, this writes them, and the reason:
//
//	go -C bench test -run Instructions -instructions 'the caller is compared first' .
var instructionsWhy = flag.String("instructions", "", "write instructions.txt; the text says why a count differs from it")

const (
	instructionsFile = "instructions.txt"
	instructionsHead = `# Instructions outside the kernel: of an operation, and of its bare calls. instructions_test.go says
# how this file is written.
`
)

// An instructionCount is of one pair.
type instructionCount struct {
	op, bare int
	why      string
}

// differs compares with the bare calls, because the environment and the length of a path matter to
// both.
func (c instructionCount) differs(now instructionCount) bool {
	d, slack := (now.op-now.bare)-(c.op-c.bare), 4+c.op/32 // the runtime needs memory at times
	return d > slack || d < -slack
}

var instructionsLine = regexp.MustCompile(`(?m)^(.+?) +(\d+) +(\d+)  (\S.*)$`)

func TestInstructions(t *testing.T) {
	text, err := os.ReadFile(instructionsFile)
	if err != nil && *instructionsWhy == "" {
		t.Fatal(err)
	}
	version, _, _ := strings.Cut(runtime.Version(), " ")
	same := strings.HasPrefix(string(text), instructionsHead+version+"\n")
	if !same && *instructionsWhy == "" {
		t.Skipf("nothing was compared: %s is of another version of Go than %s", instructionsFile, version)
	}
	record := map[string]instructionCount{}
	for _, m := range instructionsLine.FindAllStringSubmatch(string(text), -1) {
		op, _ := strconv.Atoi(m[2])
		bare, _ := strconv.Atoi(m[3])
		record[m[1]] = instructionCount{op, bare, m[4]}
	}
	built, _ := debug.ReadBuildInfo()
	for _, s := range built.Settings {
		if slices.Contains([]string{"-race", "-msan", "-asan", "-cover", "-gcflags"}, s.Key) || s.Key == "GOAMD64" && s.Value != "v1" {
			t.Skipf("built with %s=%s", s.Key, s.Value)
		}
	}
	var names []string
	for _, p := range pairsOf(t) {
		if p.calls >= 0 {
			names = append(names, p.name)
		}
	}
	counts := countInstructions(t, 1+2*len(names))
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n", instructionsHead, version)
	for i, name := range names {
		was, ok := record[name]
		now := instructionCount{counts[1+2*i] - counts[0], counts[2+2*i] - counts[0], *instructionsWhy}
		t.Logf("%s: %d, bare calls %d", name, now.op, now.bare)
		if ok && same && !was.differs(now) {
			now = was // so that many small changes add up to one that needs a reason
		} else if *instructionsWhy == "" {
			t.Errorf("%s: %d instructions, bare calls %d; in %s %d and %d", name, now.op, now.bare, instructionsFile, was.op, was.bare)
		}
		fmt.Fprintf(&b, "%-32s %6d %6d  %s\n", name, now.op, now.bare, now.why)
	}
	if t.Failed() {
		t.Log("if that is right: go -C bench test -run Instructions -instructions 'the reason' .")
	} else if *instructionsWhy == "" && b.String() != string(text) {
		t.Errorf("%s is not what is written", instructionsFile)
	} else if *instructionsWhy != "" {
		if err := os.WriteFile(instructionsFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStepped is what TestInstructions watches. The first mark is of nothing.
func TestStepped(t *testing.T) {
	if os.Getenv(tracedVar) != "steps" {
		t.Skip("this is for TestInstructions")
	}
	do := []func() error{func() error { return nil }}
	for _, p := range pairsOf(t) {
		if p.calls >= 0 {
			do = append(do, p.op, p.bare)
		}
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	fmt.Printf("thread %d\n", unix.Gettid())
	var b [1]byte
	unix.Read(0, b[:])
	for i, f := range do {
		for range 2 { // what is done once is done now
			if err := f(); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
		for range rounds {
			mark(i)
			f()
			mark(i)
		}
	}
}

// countInstructions returns the least count between two marks of each of n. Other threads stand
// still, so that none of the runtime's has this one yield.
func countInstructions(t *testing.T, n int) []int {
	t.Helper()
	cmd := again(t, "steps", 0)
	cmd.Args[2] = "^TestStepped$"
	cmd.Env = append(cmd.Env, "GODEBUG=asyncpreemptoff=1,cpu.all=off")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	runtime.LockOSThread() // of which the others are traced
	defer runtime.UnlockOSThread()
	thread := 0
	lines := bufio.NewScanner(out)
	for thread == 0 && lines.Scan() {
		fmt.Sscanf(lines.Text(), "thread %d", &thread)
	}
	var status unix.WaitStatus
	stopped := map[string]int{}
	defer func() {
		for _, tid := range stopped {
			unix.PtraceDetach(tid)
		}
	}()
	for more := true; more; { // until there are no new ones
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		more = false
		for _, task := range tasks {
			if stopped[task.Name()] != 0 {
				continue
			}
			tid, _ := strconv.Atoi(task.Name())
			if err := unix.PtraceSeize(tid); err != nil {
				t.Skip("no thread can be traced here: ", err)
			}
			if err := unix.PtraceInterrupt(tid); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err != nil {
				t.Fatal(err)
			}
			stopped[task.Name()], more = tid, true
		}
	}
	in.Write([]byte{0})
	least := make([]int, n)
	begins := true
	for at, steps, done := -1, 0, 0; done < n*rounds; {
		var regs unix.PtraceRegs
		if err := unix.PtraceGetRegs(thread, &regs); err != nil {
			t.Fatal(err)
		}
		m := int(regs.Rdi) - firstMark
		isMark := m >= 0 && m < n
		var code [2]byte
		switch {
		case at < 0 && isMark && regs.Orig_rax == unix.SYS_CLOSE && int64(regs.Rax) == -int64(unix.EBADF): // it has returned
			if begins {
				at, steps = m, 0
			}
			begins = !begins
		case at >= 0 && m == at && regs.Rax == unix.SYS_CLOSE:
			if unix.PtracePeekText(thread, uintptr(regs.Rip), code[:]); code == [2]byte{0x0f, 0x05} { // it comes
				if least[at] == 0 || steps < least[at] {
					least[at] = steps
				}
				at = -1
				done++
			}
		}
		var err error
		if at >= 0 {
			steps++
			err = unix.PtraceSingleStep(thread)
		} else {
			err = unix.PtraceSyscall(thread, 0)
		}
		if err == nil {
			_, err = unix.Wait4(thread, &status, unix.WALL, nil)
		}
		if err != nil || !status.Stopped() {
			t.Fatalf("%v, %#x", err, status)
		}
	}
	return least
}
