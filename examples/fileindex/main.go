//go:build linux

// Fileindex keeps an index of the files in a directory: the path, the size and the SHA-256 of each.
//
//	fileindex build INDEX DIR    make the index of DIR and store it as INDEX
//	fileindex check INDEX        print what has changed since then
//	fileindex update INDEX       the same, with new files, and update INDEX
//
// An index of paths sees a renamed file as one that was deleted and a new one, and has to read it
// again. This index uses file handles: names that the file system gives its files, and that do not
// change when a file is renamed or moved. check therefore finds each file where it is now, and
// reads none; update reads only changed and new files. They print a line for each, and a total:
//
//	moved OLD -> NEW    it has another path: it or a directory was renamed
//	moved OLD -> ?      it exists, but not in DIR, and its path cannot be found
//	changed PATH        its size or modification time has changed
//	deleted PATH        it was deleted, even if another file is at PATH now
//	new PATH            it is new in DIR; only update looks for these
//
// The index remains valid after a reboot, wherever the file system is mounted then. build reads
// what the caller may read. check and update open files by their handles, which needs root or the
// capability CAP_DAC_READ_SEARCH, because permissions of directories do not apply.
package main

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sysfd/sysfd"
)

// An index is what is stored as JSON.
type index struct {
	FS        sysfd.FileSystemID         `json:"fs"`
	Dir       name                       `json:"dir"`
	DirHandle sysfd.FileHandle           `json:"dirHandle"`
	Files     map[sysfd.FileHandle]entry `json:"files"`
}

// An entry is a file. It has more than one path if it has hard links.
type entry struct {
	Paths   []name    `json:"paths"`
	Size    int64     `json:"size"`
	ModTime time.Time `json:"modTime"`
	SHA256  string    `json:"sha256"`
}

// A name is an absolute path. Its text form is quoted where the path would not survive JSON or
// lines of text: a path may have newlines, and need not be UTF-8.
type name string

func (n name) String() string {
	if q := strconv.Quote(string(n)); q[1:len(q)-1] != string(n) {
		return q
	}
	return string(n)
}

func (n name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

func (n *name) UnmarshalText(text []byte) error {
	s := string(text)
	if strings.HasPrefix(s, `"`) {
		var err error
		if s, err = strconv.Unquote(s); err != nil {
			return err
		}
	}
	*n = name(s)
	return nil
}

// A call is one call of the command.
type call struct {
	index
	file   string // of the index
	update bool
	out    *bufio.Writer
	counts map[string]int
	fs     *os.File // the file system
	noDir  bool     // DIR is deleted
	names  map[sysfd.FileHandle][]name
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run returns the exit status: 0, 1 after a failure, 2 after bad usage.
func run(args []string, stdout, stderr io.Writer) int {
	c := &call{out: bufio.NewWriter(stdout), counts: map[string]int{}}
	var err error
	switch {
	case len(args) == 3 && args[0] == "build":
		c.file = args[1]
		err = c.build(args[2])
	case len(args) == 2 && (args[0] == "check" || args[0] == "update"):
		c.file, c.update = args[1], args[0] == "update"
		err = c.check()
	default:
		fmt.Fprintln(stderr, "usage: fileindex build INDEX DIR, fileindex check INDEX or fileindex update INDEX")
		return 2
	}
	if err := cmp.Or(err, c.out.Flush()); err != nil {
		fmt.Fprintln(stderr, "fileindex:", err)
		return 1
	}
	return 0
}

func (c *call) build(dir string) error {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // the kernel knows paths without them
	}
	if err != nil {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	c.Dir, c.Files = name(dir), map[sysfd.FileHandle]entry{}
	if c.FS, err = sysfd.FileSystemIDOf(int(f.Fd())); err != nil {
		return err
	}
	if c.DirHandle, _, err = sysfd.NameToHandleAt(int(f.Fd()), "", sysfd.AT_EMPTY_PATH); err != nil {
		return err
	}
	if err := c.add(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%d files\n", len(c.Files))
	return c.save()
}

func (c *call) check() error {
	text, err := os.ReadFile(c.file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c.index); err != nil {
		return fmt.Errorf("%s is not an index: %w", c.file, err)
	}
	if c.fs, err = sysfd.OpenFileSystem(c.FS); err != nil {
		return err
	}
	defer c.fs.Close()
	if err := c.findDir(); err != nil {
		return err
	}
	total := len(c.Files)
	for _, h := range slices.SortedFunc(maps.Keys(c.Files), func(a, b sysfd.FileHandle) int {
		return slices.Compare(c.Files[a].Paths, c.Files[b].Paths)
	}) {
		if err := c.checkFile(h); err != nil {
			return err
		}
	}
	if c.update {
		if err := c.add(); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.out, "%d files: %d moved, %d changed, %d deleted", total, c.counts["moved"], c.counts["changed"], c.counts["deleted"])
	if !c.update {
		fmt.Fprintln(c.out)
		return nil
	}
	fmt.Fprintf(c.out, ", %d new\n", c.counts["new"])
	return c.save()
}

// say prints what has become of a file.
func (c *call) say(what string, path name, more ...any) {
	c.counts[what]++
	fmt.Fprintln(c.out, append([]any{what, path}, more...)...)
}

// checkFile prints what has become of a file and brings its entry up to date.
func (c *call) checkFile(h sysfd.FileHandle) error {
	e := c.Files[h]
	f, info, err := c.open(h, oPath)
	if isGone(err, h, e.Paths) {
		for _, path := range e.Paths {
			c.say("deleted", path)
		}
		delete(c.Files, h)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e.Paths[0], err)
	}
	defer f.Close()
	paths, err := c.paths(f, info, h, e.Paths)
	if err != nil {
		return err
	}
	came := slices.DeleteFunc(slices.Clone(paths), func(p name) bool { return slices.Contains(e.Paths, p) })
	for _, path := range e.Paths {
		switch {
		case slices.Contains(paths, path):
		case len(came) > 0:
			c.say("moved", path, "->", came[0])
			came = came[1:]
		case len(paths) == 0:
			c.say("moved", path, "-> ?")
		default: // one of several hard links
			c.say("deleted", path)
		}
	}
	if len(paths) > 0 { // otherwise it may come back
		slices.Sort(paths)
		e.Paths = paths
	}
	if info.Size() != e.Size || !info.ModTime().Equal(e.ModTime) {
		c.say("changed", e.Paths[0])
		if c.update {
			f, _, err := c.open(h, syscall.O_RDONLY)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := e.read(f); err != nil {
				return err
			}
		}
	}
	c.Files[h] = e
	return nil
}

// With O_PATH nothing is opened: the descriptor just stands for the file.
const oPath = 0x200000

// open opens a file by its handle. A file without a name, which exists while a process has it open,
// counts as gone.
func (c *call) open(h sysfd.FileHandle, flags int) (*os.File, os.FileInfo, error) {
	f, err := sysfd.FileRef{FS: c.FS, Handle: h}.OpenFrom(int(c.fs.Fd()), flags, 0)
	if errors.Is(err, syscall.EPERM) {
		return nil, nil, errors.New("to open files by their handles takes root or the capability CAP_DAC_READ_SEARCH")
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Sys().(*syscall.Stat_t).Nlink == 0 {
		err = os.ErrNotExist
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// isGone reports whether err means that a file was deleted. ESTALE is also what the kernel returns
// if it cannot read the disk; but then it does not say that there is no such path, or another file
// there.
func isGone(err error, h sysfd.FileHandle, paths []name) bool {
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	if !errors.Is(err, syscall.ESTALE) {
		return false
	}
	for _, path := range paths {
		is, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, string(path), 0)
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, errors.ErrUnsupported):
		case err != nil, is == h:
			return false
		}
	}
	return true
}

// paths returns the paths of a file: as many as it had, if it has these. The kernel knows a path of
// an open file only if it has come across it since the file was last forgotten, and then one of
// several; and a path can have come to mean another file. So each is tried, first the old ones, and
// the last resort is to look at all names in DIR.
func (c *call) paths(f *os.File, info os.FileInfo, h sysfd.FileHandle, old []name) (paths []name, err error) {
	links := int(info.Sys().(*syscall.Stat_t).Nlink)
	want := min(len(old), links)
	try := func(names ...name) bool {
		for _, path := range names {
			is, err := os.Lstat(string(path))
			if err == nil && os.SameFile(is, info) && !slices.Contains(paths, path) && len(paths) < want {
				paths = append(paths, path)
			}
		}
		return len(paths) == want
	}
	if try(old...) || links == 1 && try(known(f)) {
		return paths, nil
	}
	if c.names == nil {
		c.names = map[sysfd.FileHandle][]name{}
		err = c.walk(func(path name, h sysfd.FileHandle) error {
			c.names[h] = append(c.names[h], path)
			return nil
		})
	}
	try(c.names[h]...)
	return paths, err
}

// known returns the path by which the kernel knows an open file, or "".
func known(f *os.File) name {
	path, _ := sysfd.PathOf(int(f.Fd()))
	return name(path)
}

// findDir finds out where DIR is now. Of directories the kernel knows the path.
func (c *call) findDir() error {
	f, info, err := c.open(c.DirHandle, oPath)
	if isGone(err, c.DirHandle, []name{c.Dir}) {
		c.noDir = true
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for _, path := range []name{c.Dir, known(f)} {
		if is, err := os.Stat(string(path)); err == nil && os.SameFile(is, info) {
			c.Dir = path
			return nil
		}
	}
	return fmt.Errorf("the directory that was %s exists, but not where it can be seen", c.Dir)
}

// walk calls each for the regular files in DIR that are on its file system.
func (c *call) walk(each func(path name, h sysfd.FileHandle) error) error {
	if c.noDir {
		return nil
	}
	dir := string(c.Dir)
	_, mount, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, dir, 0)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var h sysfd.FileHandle
		var on sysfd.MountID
		if err == nil {
			h, on, err = sysfd.NameToHandleAt(sysfd.AT_FDCWD, path, 0)
		}
		switch {
		case errors.Is(err, os.ErrNotExist) && path != dir: // gone since
		case err == nil && on != mount, errors.Is(err, errors.ErrUnsupported): // another file system
			if d.IsDir() {
				return fs.SkipDir
			}
		case err != nil:
			return err
		case d.Type().IsRegular():
			return each(name(path), h)
		}
		return nil
	})
}

// add adds what is in DIR and not in the index.
func (c *call) add() error {
	self, err := filepath.EvalSymlinks(filepath.Dir(c.file))
	if err == nil {
		self, err = filepath.Abs(filepath.Join(self, filepath.Base(c.file)))
	}
	if err != nil {
		return err
	}
	return c.walk(func(path name, h sysfd.FileHandle) error {
		e, known := c.Files[h]
		if string(path) == self || slices.Contains(e.Paths, path) {
			return nil
		}
		if !known {
			f, err := os.OpenFile(string(path), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			defer f.Close()
			// Another file can have taken its place.
			if is, _, err := sysfd.NameToHandleAt(int(f.Fd()), "", sysfd.AT_EMPTY_PATH); err != nil || is != h {
				return cmp.Or(err, fmt.Errorf("%s was replaced while it was looked at", path))
			}
			if err := e.read(f); err != nil {
				return err
			}
		}
		e.Paths = append(e.Paths, path)
		slices.Sort(e.Paths)
		c.Files[h] = e
		if c.update {
			c.say("new", path)
		}
		return nil
	})
}

// read fills in what is known from the file itself. The order matters: a change in the course of it
// is found by the next check.
func (e *entry) read(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	e.Size, e.ModTime = info.Size(), info.ModTime().UTC()
	e.SHA256, err = hash(f)
	return err
}

// hash is a variable for the tests, which count the calls.
var hash = func(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

// save replaces the index as a whole.
func (c *call) save() error {
	text, err := json.MarshalIndent(c.index, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(c.file), filepath.Base(c.file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := cmp.Or(err, f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	return os.Rename(f.Name(), c.file)
}
