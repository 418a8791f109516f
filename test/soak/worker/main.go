//go:build linux

// Command worker is what the tests of package soak start as PID 1 of a new pid namespace.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/smallest"
	"golang.org/x/sys/unix"
)

const progressEvery = 500 // rounds

// A summary is the last line of the output.
type summary struct {
	Arch         string        `json:"arch"`
	Rounds       int           `json:"rounds"`
	Goroutines   int           `json:"goroutines"`
	PIDMax       int           `json:"pid_max"`
	MostLive     int64         `json:"most_live"` // children at a time
	Wraps        int           `json:"wraps"`
	Tried        int64         `json:"reused_pid_checks"`
	TriedThreads int64         `json:"pid_of_thread_checks"`
	DistinctIDs  int           `json:"distinct_ids"`
	MinID        sysfd.PidFDID `json:"min_id"`
	MaxID        sysfd.PidFDID `json:"max_id"`
	Before       usage         `json:"before"`
	After        usage         `json:"after"`
	Seconds      float64       `json:"seconds"`
}

func main() {
	dir := flag.String("dir", "", "the `directory` to write the program of the children to")
	rounds := flag.Int("rounds", 2500, "rounds")
	// The kernel wants eight for each processor (PIDS_PER_CPU_MIN in kernel/pid.c).
	pidMax := flag.Int("pid-max", lowestPID+max(300, 8*runtime.NumCPU()), "kernel.pid_max of the namespace")
	byPID := flag.Bool("by-pid", false, "do without open_by_handle_at(2)")
	outer := flag.String("outer", "", "the mount namespace that is to stay as it is, as `mnt:[…]`")
	sabotage := flag.String("sabotage", "", "what to do wrong")
	secondBest := flag.Bool("second-best", false, "count how often a PID and a start time name another process")
	flag.Parse()
	runtime.GOMAXPROCS(min(4, runtime.NumCPU())) // threads take PIDs, too
	var err error
	if !inVM() {
		err = isolate(*outer)
	}
	if err == nil {
		if *secondBest {
			err = countMistaken(*dir, *rounds, *pidMax)
		} else {
			err = soakIn(*dir, *rounds, *pidMax, *byPID, *sabotage)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// inVM reports whether this is a machine of package vm's, of which nobody else needs the PIDs.
func inVM() bool { return os.Getenv("SYSFD_TEST_VM") != "" }

// isolate mounts the /proc of the namespace.
func isolate(outer string) error {
	inner, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	if os.Getpid() != 1 || inner == outer || outer == "" {
		return fmt.Errorf("process %d in %s: it is to be PID 1 with namespaces of its own", os.Getpid(), inner)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	return nil
}

// limitPIDs gives the namespace few PIDs; before Linux 6.14 the machine.
func limitPIDs(pidMax int) error {
	return os.WriteFile("/proc/sys/kernel/pid_max", []byte(strconv.Itoa(pidMax)), 0)
}

// writeChild writes the program of the children.
func writeChild(dir string) (path string, err error) {
	program, err := smallest.Program()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "child")
	return path, os.WriteFile(path, program, 0o755)
}

func soakIn(dir string, rounds, pidMax int, byPID bool, sabotage string) error {
	if err := limitPIDs(pidMax); err != nil {
		return err
	}
	path, err := writeChild(dir)
	if err != nil {
		return err
	}
	s, err := newSoak(path, rounds, pidMax)
	if err != nil {
		return err
	}
	if byPID {
		// As the seccomp filters of containers do.
		if err := forbid(unix.EPERM, unix.SYS_OPEN_BY_HANDLE_AT); err != nil {
			return err
		}
		s.byPID = true
	}
	warmUp := rounds / 10
	if sabotage != "" {
		s.saboteur = (warmUp + rounds) / 2
		if s.sabotage = sabotages[sabotage]; s.sabotage == nil {
			return fmt.Errorf("no such sabotage: %s", sabotage)
		}
	}
	start := time.Now()
	if err := s.run(0, warmUp); err != nil {
		return err
	}
	before, err := measure()
	if err != nil {
		return err
	}
	if err := s.run(warmUp, rounds); err != nil {
		return err
	}
	after, err := measure()
	if err != nil {
		return err
	}
	sum := summary{
		Arch: runtime.GOARCH, Rounds: int(s.done.Load()), Goroutines: goroutines, PIDMax: pidMax, MostLive: s.most.Load(),
		Wraps: s.wraps, Tried: s.tried.Load(), TriedThreads: s.triedThreads.Load(), Before: before, After: after,
		Seconds: math.Round(time.Since(start).Seconds()*100) / 100,
	}
	duplicates := s.countIDs(&sum)
	text, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	errs := []error{checkFlat(before, after)}
	if duplicates != "" {
		errs = append(errs, fmt.Errorf("IDs that were seen twice: %s", duplicates))
	}
	// At the most, all PIDs are used before they go round, and the first children to have one have
	// nothing before them.
	if sum.Wraps < rounds/(pidMax-lowestPID)/2 || sum.Tried < int64(rounds/2) || sum.TriedThreads == 0 {
		errs = append(errs, fmt.Errorf("in %d rounds the PIDs went round %d times, and processes were tried %d times while another had their PID, %d while a thread had it",
			rounds, sum.Wraps, sum.Tried, sum.TriedThreads))
	}
	return errors.Join(errs...)
}

// countIDs returns the names that have the same ID.
func (s *soak) countIDs(sum *summary) (duplicates string) {
	names := slices.Clone(s.names)
	slices.SortFunc(names, func(a, b sysfd.ProcessRef) int { return cmp.Compare(a.ID, b.ID) })
	var same []string
	for i, name := range names {
		if i > 0 && name.ID == names[i-1].ID {
			same = append(same, names[i-1].String()+" and "+name.String())
			continue
		}
		sum.DistinctIDs++
	}
	sum.MinID, sum.MaxID = names[0].ID, names[len(names)-1].ID
	return strings.Join(same, ", ")
}

// forbid has system calls fail in all threads.
func forbid(errno syscall.Errno, calls ...uint32) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // nr of struct seccomp_data
	for _, nr := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const allThreads = unix.SECCOMP_FILTER_FLAG_TSYNC
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, allThreads, uintptr(unsafe.Pointer(&program)))
	if err != 0 {
		return os.NewSyscallError("seccomp", err)
	}
	return nil
}

// sabotages are there to see that they are found. Each is done once.
var sabotages = map[string]func(s *soak, pid int){
	"signal":     func(_ *soak, pid int) { unix.Kill(pid, unix.SIGALRM) }, // as if meant for another
	"id":         func(s *soak, _ int) { s.names[0].ID = s.names[1].ID },
	"descriptor": func(*soak, int) { unix.Dup(0) },
	"forgotten":  func(*soak, int) { fd, _ := unix.Dup(0); os.NewFile(uintptr(fd), "forgotten") },
	"goroutine":  func(*soak, int) { go func() { select {} }() },
	"memory":     func(s *soak, _ int) { s.kept = make([]byte, 2*heapMargin*1024) },
	"zombie":     func(s *soak, _ int) { syscall.ForkExec(s.program, nil, nil) },
	"hang":       func(*soak, int) { select {} },
}
