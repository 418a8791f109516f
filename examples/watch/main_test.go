//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sysfd/sysfd"
	"github.com/sysfd/sysfd/internal/overdue"
)

const loadVar = "WATCH_TEST_LOAD"

func TestMain(m *testing.M) {
	if os.Getenv(loadVar) == "" {
		overdue.Report()
		os.Exit(m.Run())
	}
	if err := load(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// load is a process that works in dir, and prints its name and each thing that it did. No file has
// a name that another one has had. Then it waits, so that whoever looks finds it alive.
func load(dir, name, rounds string) error {
	n, err := strconv.Atoi(rounds)
	if err != nil {
		return err
	}
	self, err := sysfd.SelfRef()
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintln(out, self.Short())
	own, shared := filepath.Join(dir, name), filepath.Join(dir, "shared")
	did := func(words ...string) { fmt.Fprintln(out, strings.Join(words, " ")) }
	if err := os.Mkdir(own, 0o700); err != nil {
		return err
	}
	did("create", own+"/")
	for i := range n {
		file := fmt.Sprintf("%s/%s-%d", own, name, i)
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		did("create", file)
		for range i % 4 {
			if _, err := f.WriteString("text\n"); err != nil {
				return err
			}
			did("write", file)
		}
		if err := f.Close(); err != nil {
			return err
		}
		did("close", file)
		if i%5 == 0 {
			if err := os.Chmod(file, 0o600); err != nil {
				return err
			}
			did("attrib", file)
		}
		for j := range i % 3 {
			to := fmt.Sprintf("%s/%s-%d-%d", []string{shared, own}[j], name, i, j)
			if err := os.Rename(file, to); err != nil {
				return err
			}
			did("rename", file, to)
			file = to
		}
		if i%7 == 0 {
			sub := fmt.Sprintf("%s/%s-%d-d", own, name, i)
			if err := os.Mkdir(sub, 0o700); err != nil {
				return err
			}
			did("create", sub+"/")
			to := sub + "/" + filepath.Base(file) + "-s"
			if err := os.Rename(file, to); err != nil {
				return err
			}
			did("rename", file, to)
			// The directory of all events from here on, and of those not read yet.
			if err := os.Rename(sub, sub+"-moved"); err != nil {
				return err
			}
			did("rename", sub+"/", sub+"-moved/")
			file = sub + "-moved/" + filepath.Base(to)
		}
		if i%2 == 0 {
			if err := os.Remove(file); err != nil {
				return err
			}
			did("delete", file)
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if err := os.Stdout.Close(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("it takes root, which CI should have")
	}
	t.Skip("it takes root")
}

func tool(t *testing.T, words ...string) {
	t.Helper()
	path, err := exec.LookPath(words[0])
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err, "which CI should have")
		}
		t.Skip(err)
	}
	if out, err := exec.Command(path, words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", words, err, out)
	}
}

// mount mounts a new file system for the time of a test.
func mount(t *testing.T, fsType string) (dir string) {
	t.Helper()
	needsRoot(t)
	dir = filepath.Join(t.TempDir(), fsType)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	image := dir + ".img"
	words := map[string][]string{"ext4": {"mkfs.ext4", "-q", "-F"}, "btrfs": {"mkfs.btrfs", "-q"}, "xfs": {"mkfs.xfs", "-q"}}[fsType]
	if words == nil {
		if err := syscall.Mount("none", dir, fsType, 0, ""); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, append(words, image)...)
	tool(t, "mount", "-o", "loop", image, dir)
	return dir
}

// A watch is a call of the program.
type watch struct {
	*testing.T
	lines  chan string
	errs   bytes.Buffer
	status chan int
}

// start starts the program, and returns when it has marked everything.
func start(t *testing.T, args ...string) *watch {
	t.Helper()
	before := descriptors(t)
	w := &watch{T: t, lines: make(chan string), status: make(chan int, 1)}
	r, out := io.Pipe()
	marked := make(chan bool, 1)
	started = func() { marked <- true }
	go func() {
		w.status <- run(args, out, &w.errs)
		out.Close()
		marked <- false
	}()
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			w.lines <- s.Text()
		}
		close(w.lines)
	}()
	t.Cleanup(func() {
		for range w.lines {
		}
		if after := descriptors(t); after != before {
			t.Errorf("open before:\n%s\nopen after:\n%s", before, after)
		}
	})
	if !<-marked {
		t.Fatal(w.errs.String())
	}
	return w
}

// descriptors returns what is open, but for what the runtime and the test itself keep.
func descriptors(t *testing.T) string {
	t.Helper()
	var open []string
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" && !strings.HasPrefix(to, "pipe:") {
			open = append(open, to)
		}
	}
	slices.Sort(open)
	return strings.Join(open, "\n")
}

// next returns the next line that is about the path or something below it.
func (w *watch) next() string {
	w.Helper()
	select {
	case line, ok := <-w.lines:
		if !ok {
			w.Fatal("it has ended: ", w.errs.String())
		}
		return line
	case <-time.After(time.Minute):
		w.Fatal("no line came")
	}
	return ""
}

// apart returns a line for each word of a line, without who it was. Just close has the size.
func apart(line string) (lines []string) {
	_, line, _ = strings.Cut(line, " ")
	words, rest, _ := strings.Cut(line, " ")
	without, size := rest, ""
	if at := strings.LastIndex(strings.TrimSuffix(rest, " bytes"), " "); at > 0 && strings.HasSuffix(rest, " bytes") {
		without, size = rest[:at], rest[at:]
	}
	for word := range strings.SplitSeq(words, "+") {
		if word == "close" {
			lines = append(lines, word+" "+without+size)
		} else {
			lines = append(lines, word+" "+without)
		}
	}
	return lines
}

// has reads lines until there is one that is the wanted one, or has it among its words.
func (w *watch) has(want string) {
	w.Helper()
	var others []string
	defer func() {
		if w.Failed() {
			w.Logf("not %q: %q", want, others)
		}
	}()
	for {
		line := w.next()
		if line == want || slices.Contains(apart(line), want) {
			return
		}
		if others = append(others, line); len(others) > 30 {
			others = others[1:]
		}
	}
}

// stop ends it by a signal, and returns the lines that are left.
func (w *watch) stop() (lines []string) {
	w.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		w.Fatal(err)
	}
	for line := range w.lines {
		lines = append(lines, line)
	}
	w.ended()
	return lines
}

// ended checks that it ends as it should.
func (w *watch) ended() {
	w.Helper()
	for range w.lines {
	}
	if status := <-w.status; status != 0 || w.errs.Len() > 0 {
		w.Errorf("status %d: %s", status, &w.errs)
	}
}

// sh runs a shell, whose events are told, as those of the test itself are not.
func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// Under load nothing is lost: what the processes have done and what is printed are the same.
func TestLoad(t *testing.T) {
	processes, rounds := 4, 3000
	if testing.Short() {
		rounds = 500
	}
	for _, fsType := range []string{"tmpfs", "ext4", "btrfs", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := mount(t, fsType)
			if err := os.Mkdir(filepath.Join(dir, "shared"), 0o700); err != nil {
				t.Fatal(err)
			}
			w := start(t, "-unlimited", dir)
			var all sync.WaitGroup
			var mu sync.Mutex
			want := map[string]int{}
			var release []func()
			steps := 0
			for i := range processes {
				name := "process" + strconv.Itoa(i)
				cmd := exec.Command(os.Args[0], dir, name, strconv.Itoa(rounds))
				cmd.Env = append(os.Environ(), loadVar+"=1")
				cmd.Stderr = os.Stderr
				hold, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				release = append(release, func() {
					hold.Close()
					if err := cmd.Wait(); err != nil {
						t.Error(err)
					}
				})
				all.Go(func() {
					s := bufio.NewScanner(out)
					s.Scan()
					self := s.Text()
					mu.Lock()
					defer mu.Unlock()
					for s.Scan() {
						want[normal(self, strings.Fields(s.Text()))]++
						steps++
					}
				})
			}
			got := map[string]int{}
			count := func(line string) {
				if strings.HasPrefix(line, "mount ") {
					return
				}
				who, rest, _ := strings.Cut(line, " ")
				ref, comm, _ := strings.Cut(who, "(")
				fields := strings.Fields(rest)
				if comm != "watch.test)" || len(fields) < 2 {
					t.Errorf("unexpected: %s", line)
					return
				}
				for word := range strings.SplitSeq(fields[0], "+") {
					fields[0] = word
					got[normal(ref, fields)]++
				}
			}
			finished := make(chan struct{})
			go func() { all.Wait(); close(finished) }()
			began := time.Now()
			for working := true; working; {
				select {
				case <-finished:
					working = false
				case line := <-w.lines:
					count(line)
				}
			}
			took := time.Since(began)
			// What a shell does now comes behind all of it.
			sh(t, dir, "exec >last")
			for {
				line := w.next()
				if strings.HasSuffix(line, "/last 0 bytes") {
					break
				}
				if !strings.HasSuffix(line, "/last") {
					count(line)
				}
			}
			for _, f := range release {
				f()
			}
			w.stop()

			lines := 0
			for line, n := range got {
				lines += n
				// The kernel merges what is the same, but makes no more of it, and
				// never merges renames.
				switch done := want[line]; {
				case strings.Contains(line, " attrib "): // deletion and renames too change metadata
				case done == 0:
					t.Errorf("nobody has done this: %s", line)
				case n > done, n < done && strings.Contains(line, " rename "):
					t.Errorf("%d times, and printed %d times: %s", done, n, line)
				}
			}
			for line := range want {
				if got[line] == 0 {
					t.Errorf("lost: %s", line)
				}
			}
			t.Logf("%d steps of %d processes in %v, %d different ones, %d printed", steps, processes, took, len(want), lines)
		})
	}
}

// normal is a line in a form in which both sides have the same. A path is its last part, as no two
// have the same, and the directories have been renamed meanwhile.
func normal(who string, fields []string) string {
	out := []string{who, fields[0]}
	for _, path := range fields[1:] {
		if path == "->" {
			continue
		}
		if len(out) == 3 && fields[0] != "rename" {
			break // the size
		}
		base := filepath.Base(path)
		if strings.HasSuffix(path, "/") {
			base += "/"
		}
		out = append(out, base)
	}
	return strings.Join(out, " ")
}

// did runs a script in a directory, and returns what is printed of it, without who it was and with
// DIR for the directory: each word of a line in a line of its own, for events merge or do not.
func (w *watch) did(dir, script string) (lines []string) {
	w.Helper()
	sh(w.T, dir, script+"\n: >end; rm end")
	for {
		for _, line := range apart(strings.ReplaceAll(w.next(), dir, "DIR")) {
			switch {
			case line == "delete DIR/end":
				slices.Sort(lines)
				return slices.Compact(lines)
			case strings.Contains(line, " DIR/end"):
			case strings.Contains(line, "DIR"):
				lines = append(lines, line)
			}
		}
	}
}

func TestWatch(t *testing.T) {
	for _, fsType := range []string{"tmpfs", "ext4", "btrfs", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			dir := mount(t, fsType)
			w := start(t, dir)
			for _, test := range []struct{ script, want string }{
				{"mkdir d", "create DIR/d/"},
				{"mkfifo f; ln -s x s", "create DIR/f, create DIR/s"},
				{"mv d e", "rename DIR/d/ -> DIR/e/"},
				{": >e/a", "close DIR/e/a 0 bytes, create DIR/e/a"},
				{"mv e/a e/b", "rename DIR/e/a -> DIR/e/b"},
				{"mv e/b b; mv b 'two words'", `rename DIR/b -> "DIR/two words", rename DIR/e/b -> DIR/b`},
				{"chmod 700 two*", `attrib "DIR/two words"`},
				{"chmod 711 e", "attrib DIR/e/"},
				{"rm two*", `delete "DIR/two words"`},
				{"rmdir e", "delete DIR/e/"},
				{"echo text >g", "close DIR/g 5 bytes, create DIR/g, write DIR/g"},
			} {
				got := strings.Join(w.did(dir, test.script), ", ")
				if got != test.want {
					t.Errorf("%s: %s; want %s", test.script, got, test.want)
				}
			}
			w.stop()
		})
	}
}

// A file that is moved while it is open is found by its handle.
func TestMoved(t *testing.T) {
	dir := mount(t, "ext4")
	w := start(t, dir)
	sh(t, dir, `exec 3>file; mkdir sub; mv file sub/moved; mv sub sub2; printf 12345 >&3; exec 3>&-`)
	w.has("close " + dir + "/sub2/moved 5 bytes")
	w.stop()
}

// A process that has ended before its event was read is not taken for another one.
func TestEnded(t *testing.T) {
	dir := mount(t, "tmpfs")
	w := start(t, dir)
	// Lines that nobody reads keep the program from reading events.
	const files = 2000
	sh(t, dir, fmt.Sprintf("i=0; while [ $i -lt %d ]; do : >$i; i=$((i+1)); done", files))
	var ended int
	for range 3 {
		sh(t, dir, ": >last")
	}
	for n := 0; n < 3; {
		who, rest, _ := strings.Cut(w.next(), " ")
		if !strings.Contains(rest, dir+"/last") {
			continue
		}
		n++
		if strings.HasSuffix(who, "(ended)") {
			ended++
		}
	}
	if w.stop(); ended != 3 {
		t.Errorf("%d of 3 have ended", ended)
	}
}

// A queue that is full is reported.
func TestOverflow(t *testing.T) {
	dir := mount(t, "tmpfs")
	text, err := os.ReadFile("/proc/sys/fs/fanotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	size, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || size > 1<<17 {
		t.Skipf("queues are too large to be filled: %d, %v", size, err)
	}
	w := start(t, dir)
	// Nobody reads its lines meanwhile.
	sh(t, dir, fmt.Sprintf("i=0; while [ $i -lt %d ]; do : >f$i; i=$((i+1)); done", size+10000))
	w.has("overflow: events on " + dir + " were lost")
	w.stop()
}

func TestUnmount(t *testing.T) {
	for _, poll := range []bool{false, true} {
		for _, fsType := range []string{"tmpfs", "ext4", "btrfs"} {
			t.Run(fmt.Sprintf("%s, mountinfo %v", fsType, poll), func(t *testing.T) {
				if poll {
					group := mountGroup
					defer func() { mountGroup = group }()
					mountGroup = func() (*os.File, error) { return nil, syscall.EINVAL }
				}
				dir := mount(t, fsType)
				other := t.TempDir()
				if err := syscall.Mount(dir, other, "", syscall.MS_BIND, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { syscall.Unmount(other, syscall.MNT_DETACH) })
				w := start(t, dir)
				sh(t, dir, ": >a")
				w.has("close " + dir + "/a 0 bytes")
				unmount(t, dir)
				if poll {
					time.Sleep(100 * time.Millisecond) // there is no line for it
				} else {
					for !strings.HasSuffix(w.next(), " detached") {
					}
				}
				sh(t, other, ": >b")
				w.has("close " + other + "/b 0 bytes")
				unmount(t, other)
				w.has("unmounted " + dir)
				w.ended()
			})
		}
	}
}

// unmount waits for whoever looks for a path right now.
func unmount(t *testing.T, dir string) {
	t.Helper()
	for range 1000 {
		err := syscall.Unmount(dir, 0)
		if err == nil {
			return
		}
		if err != syscall.EBUSY {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it is busy for ever: something is kept open")
}

func TestRefused(t *testing.T) {
	needsRoot(t)
	refused := func(dir, want string) {
		t.Helper()
		var out, errs bytes.Buffer
		if status := run([]string{dir}, &out, &errs); status != 1 || !strings.Contains(errs.String(), want) || out.Len() > 0 {
			t.Errorf("%s: status %d, %s%s; want %s", dir, status, &out, &errs, want)
		}
	}
	before := descriptors(t)
	refused("/proc", "its file system has no file handles")
	refused("/nonexistent", "no such file")
	upper := mount(t, "tmpfs")
	sh(t, upper, "mkdir l u w m")
	if err := syscall.Mount("none", upper+"/m", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", upper)); err == nil {
		defer syscall.Unmount(upper+"/m", 0)
		refused(upper+"/m", "no file handles")
	} else if !errors.Is(err, syscall.ENODEV) {
		t.Error(err)
	}
	btrfs := mount(t, "btrfs")
	tool(t, "btrfs", "-q", "subvolume", "create", btrfs+"/sub")
	refused(btrfs+"/sub", "it is on a subvolume")
	// From its top all is seen.
	w := start(t, btrfs)
	sh(t, btrfs+"/sub", ": >a")
	w.has("close " + btrfs + "/sub/a 0 bytes")
	w.stop()
	if after := descriptors(t); after != before {
		t.Errorf("open before:\n%s\nopen after:\n%s", before, after)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"-x", "/"}, {"-unlimited"}} {
		var out, errs bytes.Buffer
		if status := run(args, &out, &errs); status != 2 || !strings.Contains(errs.String(), "usage: watch") || out.Len() > 0 {
			t.Errorf("%q: status %d, %s", args, status, &errs)
		}
	}
}

func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{"/a/b": "/a/b", "/a b": `"/a b"`, "/a\n": `"/a\n"`, "/\xff": `"/\xff"`, `/a"`: `"/a\""`} {
		if got := quoted(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
