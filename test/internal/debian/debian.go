//go:build linux

// Package debian fetches packages of Debian, of any suite and architecture, and leaves
// the packages and lists of this machine alone.
//
// The address of the archive is the one that apt on this machine is configured with.
// apt-get verifies the signature of what it fetches, as always.
package debian

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// A Suite is a suite of the archive for one architecture.
type Suite struct {
	Name         string // "sid"
	Architecture string // "armhf"
	Dir          string // keeps the suite's index; other suites may have the same
}

// A Package is one that an index lists.
type Package struct {
	Name    string
	Version string
	SHA256  string // of the file, in hexadecimal
}

// Find returns the package whose whole name matches the pattern; of several, the one of
// the highest version, and of these the first in alphabetical order. It reads the index of the suite that was fetched last, and
// fetches one if there is none yet.
//
// Errors: one that matches os.ErrNotExist if there is no such package.
func (s Suite) Find(ctx context.Context, pattern string) (Package, error) {
	re, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return Package{}, err
	}
	unlock, err := s.lock()
	if err != nil {
		return Package{}, err
	}
	defer unlock()
	index, err := s.index(ctx)
	if err != nil {
		return Package{}, err
	}
	if index == "" {
		if err := s.update(ctx); err != nil {
			return Package{}, err
		}
		if index, err = s.index(ctx); err != nil {
			return Package{}, err
		}
	}
	text, err := output(exec.CommandContext(ctx, "/usr/lib/apt/apt-helper", "cat-file", index)) // it may be compressed
	if err != nil {
		return Package{}, err
	}
	found, err := match(bytes.NewReader(text), re)
	switch {
	case err != nil:
		return Package{}, fmt.Errorf("%s: %w", index, err)
	case len(found) == 0:
		return Package{}, fmt.Errorf("suite %s for %s: package %s: %w", s.Name, s.Architecture, pattern, os.ErrNotExist)
	}
	return slices.MaxFunc(found, func(a, b Package) int {
		return cmp.Or(CompareVersions(a.Version, b.Version), strings.Compare(b.Name, a.Name))
	}), nil
}

// Update fetches the index of the suite.
func (s Suite) Update(ctx context.Context) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.update(ctx)
}

// Download fetches a package into dir, checks it and returns its path.
func (s Suite) Download(ctx context.Context, p Package, dir string) (string, error) {
	unlock, err := s.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	dir, err = os.MkdirTemp(dir, p.Name+"-")
	if err != nil {
		return "", err
	}
	cmd := s.apt(ctx, "download", p.Name+"="+p.Version)
	cmd.Dir = dir
	if _, err := output(cmd); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s: %d files: %w", p.Name, len(debs), err)
	}
	return debs[0], checkSHA256(debs[0], p.SHA256)
}

// Extract unpacks a package into dir: the files that match one of the patterns of tar(1), as
// "./boot/vmlinuz-*", or all of them if there are no patterns.
func Extract(ctx context.Context, deb, dir string, patterns ...string) error {
	unpack := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	pipe, err := unpack.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	unpack.Stderr = &stderr
	if err := unpack.Start(); err != nil {
		return err
	}
	tar := exec.CommandContext(ctx, "tar", append([]string{"-x", "-C", dir, "--wildcards"}, patterns...)...)
	tar.Stdin = pipe
	_, tarErr := output(tar)
	pipe.Close()
	if err := unpack.Wait(); err != nil && tarErr == nil {
		return fmt.Errorf("%v: %w: %s", unpack, err, &stderr)
	}
	return tarErr
}

// dir has the suite's own directories of apt.
func (s Suite) dir() string { return filepath.Join(s.Dir, s.Name+"-"+s.Architecture) }

// lock keeps other callers from the suite's directories, also those in other processes.
func (s Suite) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.dir(), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(s.dir(), "lock"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// apt returns an apt-get of the suite.
func (s Suite) apt(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "-c", filepath.Join(s.dir(), "apt.conf")}, args...)...)
}

// index returns the name of the index file, "" if there is none.
func (s Suite) index(ctx context.Context) (string, error) {
	if _, err := os.Stat(filepath.Join(s.dir(), "apt.conf")); err != nil {
		return "", nil
	}
	out, err := output(s.apt(ctx, "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"))
	return strings.TrimSpace(string(out)), err
}

func (s Suite) update(ctx context.Context) error {
	for _, name := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(s.dir(), name), 0o755); err != nil {
			return err
		}
	}
	conf := fmt.Sprintf(`Dir::Cache "%[1]s"; Dir::State::lists "%[1]s/lists"; Dir::State::status "/dev/null";
Dir::Etc::sourcelist "%[1]s/sources.list"; Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null"; #clear APT::Update;
#clear APT::Architectures; APT::Architecture "%[2]s"; APT::Architectures { "%[2]s"; };
APT::Sandbox::User "root"; Acquire::GzipIndexes "true"; Acquire::Check-Valid-Until "false";
`, s.dir(), s.Architecture)
	if err := os.WriteFile(filepath.Join(s.dir(), "apt.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	addresses, err := output(exec.CommandContext(ctx, "apt-get", "indextargets", "--no-release-info",
		"--format", "$(REPO_URI)", "Created-By: Packages"))
	if err != nil {
		return err
	}
	failed := errors.New("apt is configured with no archive")
	for _, address := range slices.Compact(strings.Fields(string(addresses))) {
		source := fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg target=Packages] %s %s main\n", address, s.Name)
		if err := os.WriteFile(filepath.Join(s.dir(), "sources.list"), []byte(source), 0o644); err != nil {
			return err
		}
		if _, failed = output(s.apt(ctx, "update", "--error-on=any")); failed == nil {
			return nil
		}
	}
	// Without it there is no index, and the next call tries again.
	return errors.Join(fmt.Errorf("suite %s for %s: %w", s.Name, s.Architecture, failed), os.Remove(filepath.Join(s.dir(), "apt.conf")))
}

// match returns the packages of an index whose names match.
func match(index io.Reader, name *regexp.Regexp) (found []Package, err error) {
	var p Package
	add := func() {
		if p.Name != "" && name.MatchString(p.Name) {
			found = append(found, p)
		}
		p = Package{}
	}
	lines := bufio.NewScanner(index)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "":
			add()
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "SHA256":
			p.SHA256 = value
		}
	}
	add()
	return found, lines.Err()
}

func checkSHA256(name, want string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return fmt.Errorf("%s: the SHA-256 is %s, the index says %s", name, got, want)
	}
	return nil
}

// output runs cmd and returns what it printed; an error has what it printed to stderr.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
