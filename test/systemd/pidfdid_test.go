//go:build linux

package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// An asked is a descriptor that is asked about.
type asked struct {
	kind  string
	file  *os.File // nil if there is none
	fd    int      // its number in the programs
	pidfd bool
}

// askedFirst is the number of the first of them: ../oracle/launch.c has those below.
const askedFirst = 4

// descriptorsToAsk opens descriptors of each kind.
func descriptorsToAsk(t *testing.T) (all []asked) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(kind string, fd int, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		f := os.NewFile(uintptr(fd), kind)
		t.Cleanup(func() { f.Close() })
		all = append(all, asked{kind, f, askedFirst + len(all), strings.HasPrefix(kind, "pidfd ")})
	}
	pidfd := func(kind string, pid, flags int) int {
		t.Helper()
		fd, err := unix.PidfdOpen(pid, flags)
		add("pidfd "+kind, fd, err)
		return fd
	}
	ends := func(pidfd int) {
		t.Helper()
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		if err == nil && n != 1 {
			err = fmt.Errorf("it has not ended")
		}
		must(err)
	}
	sleeper := func(attr *syscall.SysProcAttr) *exec.Cmd {
		t.Helper()
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = attr
		must(cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd
	}

	live := pidfd("of a live process", sleeper(nil).Process.Pid, 0)
	pidfd("of this process, which does not wait", os.Getpid(), unix.PIDFD_NONBLOCK)
	pidfd("of what is not a child", 1, 0)
	pidfd("in another pid namespace", sleeper(&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}).Process.Pid, 0)
	zombie := sleeper(nil)
	fd := pidfd("of a zombie", zombie.Process.Pid, 0)
	must(zombie.Process.Kill())
	ends(fd)
	reaped := sleeper(nil)
	fd = pidfd("of a reaped process", reaped.Process.Pid, 0)
	must(reaped.Process.Kill())
	ends(fd)
	reaped.Wait()

	pidfd("of a main thread", os.Getpid(), unix.O_EXCL) // PIDFD_THREAD
	thread := func(kind string) (fd int, end func()) {
		t.Helper()
		tid, stop := make(chan int), make(chan struct{})
		var run func()
		run = func() {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			if unix.Gettid() == os.Getpid() {
				go run() // not on the main thread, which stays
			} else {
				tid <- unix.Gettid()
			}
			<-stop
		}
		go run()
		return pidfd(kind, <-tid, unix.O_EXCL), func() { close(stop) }
	}
	_, end := thread("of a thread")
	t.Cleanup(end)
	fd, end = thread("of a thread that has ended")
	end()
	ends(fd)

	fd, err := unix.Dup(live)
	add("pidfd that is a duplicate", fd, err)
	fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", live), unix.O_PATH, 0)
	add("pidfd opened with O_PATH", fd, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	fd, err = unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	add("pidfd of a peer", fd, err)
	add("socket", pair[0], nil)
	add("socket", pair[1], nil)

	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	must(os.WriteFile(path, nil, 0o600))
	cgroups, err := cgroup2()
	if err != nil {
		lacks(t, err.Error())
	}
	for name, flags := range map[string]int{
		path:                                   unix.O_RDWR,
		dir:                                    unix.O_RDONLY,
		"/dev/null":                            unix.O_RDWR,
		"/dev/shm":                             unix.O_RDONLY,
		"/proc/self":                           unix.O_RDONLY,
		"/proc/self/status":                    unix.O_RDONLY,
		"/proc/1":                              unix.O_PATH,
		"/sys/kernel":                          unix.O_RDONLY,
		"/proc/self/ns/pid":                    unix.O_RDONLY,
		cgroups:                                unix.O_RDONLY,
		filepath.Join(cgroups, "cgroup.procs"): unix.O_RDONLY,
		filepath.Join(cgroups, "cgroup.controllers"): unix.O_PATH,
	} {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		add(name, fd, err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer tcp.Close()
	f, err := tcp.(*net.TCPListener).File()
	must(err)
	defer f.Close()
	fd, err = unix.Dup(int(f.Fd()))
	add("TCP socket", fd, err)
	var pipe [2]int
	must(unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	add("pipe", pipe[0], nil)
	add("pipe", pipe[1], nil)
	fd, err = unix.MemfdCreate("memfd", unix.MFD_CLOEXEC)
	add("memfd, on tmpfs", fd, err)
	fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	add("epoll", fd, err)
	fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	add("eventfd", fd, err)
	fd, err = unix.InotifyInit1(unix.IN_CLOEXEC)
	add("inotify", fd, err)

	for kind, fd := range map[string]int{
		"closed": 700, "beyond the limit": 1 << 30, "-1": -1, "AT_FDCWD": unix.AT_FDCWD,
		"PIDFD_SELF": -10000, "FD_PIDFS_ROOT": -10002, "least": -1 << 31,
	} {
		all = append(all, asked{kind: kind, fd: fd})
	}
	return all
}

// What is asked about, and what is answered, in a row of idDifferences.
const (
	pidfds   = "pidfds"
	others   = "numbers of other descriptors, or of none"
	negative = "negative numbers"

	anID     = 0
	theErrno = 1 // what the refused call answered
)

func (a asked) of() string {
	switch {
	case a.pidfd:
		return pidfds
	case a.fd < 0:
		return negative
	}
	return others
}

// idDifferences are those between sd_pidfd_get_inode_id(3) and PidFDIDOf that are meant. They are
// about what a seccomp filter refuses; without one there are none.
var idDifferences = []struct {
	arch              string // "" = both
	call              string
	errnos            []syscall.Errno // what the filter answers
	of                string
	libsystemd, sysfd int
	why               string
}{
	{"386", "name_to_handle_at", []syscall.Errno{unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP}, pidfds, anID, theErrno,
		"libsystemd falls back to st_ino; a 32-bit program cannot know whether its kernel has cut that off"},
	{"386", "name_to_handle_at", []syscall.Errno{unix.EPERM, unix.ENOSYS}, others, -int(unix.EBADF), theErrno,
		"this call is the first that sysfd makes, and tells nothing about the descriptor then"},
	{"386", "name_to_handle_at", []syscall.Errno{unix.EPERM, unix.ENOSYS}, negative, -int(unix.EBADF), theErrno,
		"the same: a filter answers before the kernel has looked at the number"},
	{"", "pidfd_open", []syscall.Errno{unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP}, pidfds, -int(unix.EOPNOTSUPP), anID,
		"libsystemd opens a pidfd of its own to learn whether there is pidfs; sysfd does without"},
	{"", "pidfd_open", []syscall.Errno{unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP}, others, -int(unix.EOPNOTSUPP), -int(unix.EBADF),
		"the same"},
}

// comparePidFDIDs asks for pidfd IDs: sd_pidfd_get_inode_id(3) and PidFDIDOf.
func comparePidFDIDs(t *testing.T, launch, arch string, p peers) {
	all := descriptorsToAsk(t)
	files := []*os.File{open(t, os.DevNull)}
	// Each by itself; ahead of a pidfd, to which that must not matter; and behind one.
	var rows [][]asked
	for _, a := range all {
		if a.file != nil {
			files = append(files, a.file)
		}
		rows = append(rows, []asked{a}, []asked{a, all[0]}, []asked{all[0], a})
	}
	type answer struct {
		N  int
		ID uint64
	}
	// ask returns what a program answers, a process for each row.
	ask := func(program string, fails failure, attr *syscall.SysProcAttr) (answers [][]answer) {
		t.Helper()
		var cases []byte
		for _, row := range rows {
			var numbers []string
			for _, a := range row {
				numbers = append(numbers, strconv.Itoa(a.fd))
			}
			cases = environment{vars: []string{"FDS=" + strings.Join(numbers, ",")}, fails: fails}.appendTo(cases)
		}
		path := filepath.Join(t.TempDir(), "cases")
		if err := os.WriteFile(path, cases, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := command(t, launch, path, program, "ids")
		cmd.ExtraFiles, cmd.SysProcAttr = files, attr
		lines := output(t, cmd)
		if len(lines) != len(rows) {
			t.Fatalf("%d lines for %d questions", len(lines), len(rows))
		}
		for i, line := range lines {
			var r struct {
				IDs  []answer
				Died int
			}
			decode(t, line, &r)
			if r.Died != 0 || len(r.IDs) != len(rows[i]) {
				t.Fatalf("%s about %v: %s", program, rows[i], line)
			}
			answers = append(answers, r.IDs)
		}
		return answers
	}
	// The errno is the answer of a filter; 0 = there is none.
	compare := func(call string, errno syscall.Errno, attr *syscall.SysProcAttr, right [][]answer) (ours [][]answer, seen map[int]int) {
		t.Helper()
		fails := failure{map[string]int{"name_to_handle_at": p.nameToHandleAt, "pidfd_open": pidfdOpen}[call], errno}
		theirs, ours := ask(p.oracle, fails, attr), ask(p.receiver, fails, attr)
		seen = map[int]int{}
		for i, row := range rows {
			for j, a := range row {
				their, our := theirs[i][j], ours[i][j]
				wantTheir, wantOur := our.N, their.N
				for k, d := range idDifferences {
					if (d.arch == "" || d.arch == arch) && d.call == call && slices.Contains(d.errnos, errno) && d.of == a.of() {
						wantTheir, wantOur = d.libsystemd, d.sysfd
						if wantOur == theErrno {
							wantOur = -int(errno)
						}
						seen[k]++
					}
				}
				if their.N != wantTheir || our.N != wantOur {
					t.Errorf("%s: %v: %s (%d of %d): libsystemd %+v, sysfd %+v", call, errno, a.kind, j+1, len(row), their, our)
				}
				// Whoever has an ID has the right one.
				for _, got := range []answer{their, our} {
					if got.N == anID && right != nil && got != right[i][j] {
						t.Errorf("%s: %v: %s: %+v, want %+v", call, errno, a.kind, got, right[i][j])
					}
				}
			}
		}
		return ours, seen
	}

	right, _ := compare("", 0, nil, nil)
	for i, row := range rows {
		for j, a := range row {
			want := -int(unix.EBADF)
			if a.pidfd {
				want = anID
			}
			if got := right[i][j]; got.N != want || (got.ID != 0) != a.pidfd {
				t.Errorf("%s: %+v", a.kind, got)
			}
		}
	}
	seen := map[int]int{}
	for _, attr := range []*syscall.SysProcAttr{nil, {Cloneflags: syscall.CLONE_NEWPID}} { // where none of the processes is in sight
		compare("", 0, attr, right)
		for _, call := range []string{"name_to_handle_at", "pidfd_open"} {
			for _, errno := range []syscall.Errno{unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP} {
				_, there := compare(call, errno, attr, right)
				for k, n := range there {
					seen[k] += n
				}
			}
		}
	}
	for k, d := range idDifferences {
		if (d.arch == "" || d.arch == arch) && seen[k] == 0 {
			t.Errorf("nothing was asked that shows this difference: %+v", d)
		}
	}
	t.Logf("%d descriptors; how often there was which of the differences: %v", len(all), seen)
}
