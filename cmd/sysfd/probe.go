//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sysfd/sysfd"
)

// probed is what several demonstrations share.
type probed struct {
	file    *os.File
	self    *sysfd.PidFD
	selfErr error // why there is none
}

// demonstrations use a feature, and return what was seen.
var demonstrations = map[sysfd.Feature]func(*probed) (seen string, err error){
	sysfd.FeatureFileHandle:        (*probed).handle,
	sysfd.FeatureOpenByHandle:      (*probed).reopenFile,
	sysfd.FeatureHandleFID:         (*probed).fid,
	sysfd.FeatureMountIDUnique:     (*probed).uniqueMountID,
	sysfd.FeatureHandleConnectable: (*probed).connectable,
	sysfd.FeaturePidFDID:           (*probed).id,
	sysfd.FeatureInfo:              (*probed).pid,
	sysfd.FeatureOpenByID:          (*probed).reopenProcess,
	sysfd.FeatureExitStatus:        (*probed).exitStatus,
}

type probeResult struct {
	Kernel   string   `json:"kernel" help:"the release of the kernel, as uname -r prints it"`
	GOARCH   string   `json:"goarch" help:"the architecture that this command was built for"`
	Features []result `json:"features" help:"what was tried"`
	Note     string   `json:"note,omitempty" help:"what it means that the features do not match the release of the kernel"`
}

type result struct {
	Feature string `json:"feature" help:"the name of the feature"`
	Status  string `json:"status" help:"yes, no, not permitted or not known"`
	Value   text   `json:"value" help:"what was observed, or the error; can be empty"`
	Since   string `json:"since" help:"the version of Linux that introduced the feature, for programs of this architecture"`
}

// color is that of a line in the table, "" for none.
func (r result) color() string {
	switch r.Status {
	case "yes":
		return ""
	case "no":
		return red
	}
	return yellow
}

func probe(c *call) error {
	asJSON := c.Bool("json", false, "print one JSON object")
	if err := c.noArguments(); err != nil {
		return err
	}
	var p probed
	p.self, p.selfErr = sysfd.OpenPidFD(os.Getpid(), 0)
	defer p.close()
	var results []result
	for _, f := range sysfd.Features() {
		seen, err := p.try(f)
		results = append(results, newResult(f.String(), f.Since(), seen, err))
	}
	seen, err := p.activation()
	results = append(results, newResult("activation by $LISTEN_PIDFDID", sysfd.FeaturePidFDID.Since(), seen, err))
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	release := unix.ByteSliceToString(name.Release[:])
	note := disagreement(release, results)
	if *asJSON {
		return c.printJSON(probeResult{release, runtime.GOARCH, results, note})
	}
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FEATURE\tWORKS\tSINCE LINUX\tSEEN")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Feature, r.Status, r.Since, harmless(string(r.Value)))
	}
	t.Flush()
	fmt.Fprintf(c.out, "Linux %s, program for %s\n\n", release, runtime.GOARCH)
	for i, line := range strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		if i > 0 && c.color && results[i-1].color() != "" {
			line = results[i-1].color() + line + plain
		}
		fmt.Fprintln(c.out, line)
	}
	if note != "" {
		fmt.Fprintln(c.out)
		for line := range strings.Lines(note) {
			fmt.Fprint(c.out, fill(line, "", ""))
		}
	}
	return nil
}

// disagreement says what it means that features do not match the release of the kernel, or returns "". Features that
// are younger than the release are no disagreement on their own, because vendors backport them.
func disagreement(release string, results []result) string {
	var missing []string
	younger := false
	for _, r := range results {
		switch old := compareVersions(release, r.Since) < 0; {
		case r.Status == "no" && !old:
			missing = append(missing, r.Feature)
		case r.Status == "yes" && old:
			younger = true
		}
	}
	switch {
	case len(missing) == 0:
		return ""
	case younger:
		return "This is probably not Linux " + release + ": features of that release are missing, and newer ones work. A sandbox such as gVisor seems to answer in place of the kernel."
	}
	return "Linux " + release + " should have: " + strings.Join(missing, ", ") + ".\n" +
		"An emulator (qemu-user), a sandbox (gVisor) or a seccomp filter hides it from this program, or the kernel was built without it."
}

// compareVersions compares major and minor numbers. The first version can be a release such as "6.18.44-cloud".
func compareVersions(release, since string) int {
	numbers := func(version string) []int {
		n := make([]int, 2)
		fmt.Sscanf(version, "%d.%d", &n[0], &n[1])
		return n
	}
	return slices.Compare(numbers(release), numbers(since))
}

// try probes a feature and demonstrates it.
func (p *probed) try(f sysfd.Feature) (seen string, err error) {
	err = f.Probe()
	open := errors.Is(err, syscall.ENODATA) // only a demonstration can say
	demonstrate := demonstrations[f]
	if demonstrate == nil || err != nil && !open {
		return "", err
	}
	seen, errSeen := demonstrate(p)
	if !open && (errors.Is(errSeen, errors.ErrUnsupported) || errors.Is(errSeen, syscall.EOVERFLOW)) {
		return "but not here: " + errSeen.Error(), nil // the file system has none
	}
	return seen, errSeen
}

func newResult(feature, since, seen string, err error) result {
	r := result{Feature: feature, Status: "yes", Value: text(seen), Since: since}
	if err == nil {
		return r
	}
	r.Value = text(err.Error())
	switch {
	case errors.Is(err, os.ErrPermission):
		r.Status = "not permitted"
	case errors.Is(err, errors.ErrUnsupported):
		r.Status = "no"
	default:
		r.Status = "not known"
	}
	return r
}

func (p *probed) close() {
	if p.file != nil {
		p.file.Close()
	}
	if p.self != nil {
		p.self.Close()
	}
}

// open opens the file to try handles on: this program, or the root directory where /proc does not say which file that
// is.
func (p *probed) open() (path string, err error) {
	if path, err = os.Executable(); err != nil {
		path = "/"
	}
	if p.file != nil {
		return path, nil
	}
	p.file, err = os.Open(path)
	return path, err
}

// handleWith returns the handle of the file that open chooses.
func (p *probed) handleWith(flags int) (sysfd.FileHandle, sysfd.MountID, error) {
	path, err := p.open()
	if err != nil {
		return sysfd.FileHandle{}, 0, err
	}
	return sysfd.NameToHandleAt(sysfd.AT_FDCWD, path, flags)
}

func handleValue(h sysfd.FileHandle, err error) (string, error) { return h.String(), err }

func (p *probed) handle() (string, error) {
	h, _, err := p.handleWith(0)
	return handleValue(h, err)
}

func (p *probed) fid() (string, error) {
	h, _, err := p.handleWith(sysfd.AT_HANDLE_FID)
	return handleValue(h, err)
}

func (p *probed) connectable() (string, error) {
	h, _, err := p.handleWith(sysfd.AT_HANDLE_CONNECTABLE)
	return handleValue(h, err)
}

func (p *probed) uniqueMountID() (string, error) {
	_, id, err := p.handleWith(sysfd.AT_HANDLE_FID | sysfd.AT_HANDLE_MNT_ID_UNIQUE)
	if err == nil && !id.Unique() {
		err = fmt.Errorf("%d is not unique", id)
	}
	return fmt.Sprint(id), err
}

func (p *probed) reopenFile() (string, error) {
	h, _, err := p.handleWith(0)
	if err != nil {
		return "", err
	}
	again, err := sysfd.OpenByHandleAt(int(p.file.Fd()), h, os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer again.Close()
	was, err := p.file.Stat()
	if err != nil {
		return "", err
	}
	is, err := again.Stat()
	if err != nil {
		return "", err
	}
	if !os.SameFile(was, is) {
		return "", errors.New("another file was opened")
	}
	return "the same file", nil
}

func (p *probed) pid() (string, error) {
	if p.selfErr != nil {
		return "", p.selfErr
	}
	pid, err := p.self.PID()
	if err == nil && pid != os.Getpid() {
		err = fmt.Errorf("the kernel reports PID %d for process %d", pid, os.Getpid())
	}
	return "PID " + strconv.Itoa(pid), err
}

// borrow calls f with the number of this process's pidfd.
func (p *probed) borrow(f func(fd int) error) error {
	if p.selfErr != nil {
		return p.selfErr
	}
	conn, err := p.self.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// id returns the pidfd ID, and the handle with it where pidfds have handles.
func (p *probed) id() (seen string, err error) {
	if p.selfErr != nil {
		return "", p.selfErr
	}
	id, err := p.self.ID()
	if err != nil {
		return "", err
	}
	seen = id.String()
	err = p.borrow(func(fd int) error {
		h, _, err := sysfd.NameToHandleAt(fd, "", sysfd.AT_EMPTY_PATH)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		if inside, ok := h.PidFDID(); !ok || inside != id {
			return fmt.Errorf("%v is not the handle of the process with ID %v", h, id)
		}
		seen += ", in the handle " + h.String()
		return nil
	})
	return seen, err
}

func (p *probed) reopenProcess() (string, error) {
	if p.selfErr != nil {
		return "", p.selfErr
	}
	id, err := p.self.ID()
	if err != nil {
		return "", err
	}
	again, err := sysfd.OpenPidFDByID(id)
	if err != nil {
		return "", err
	}
	defer again.Close()
	got, err := again.ID()
	if err == nil && got != id {
		err = fmt.Errorf("%d was opened, not %d", got, id)
	}
	return "the same process", err
}

func thisProgram() string {
	if program, err := os.Executable(); err == nil {
		return program
	}
	return os.Args[0] // without /proc
}

// exitStatus asks about a process that was reaped already.
func (p *probed) exitStatus() (string, error) {
	program := thisProgram()
	fd := -1
	cmd := exec.Command(program, "id", "self")
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &fd}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return "", err
	}
	ended, err := sysfd.TakePidFD(cmd.SysProcAttr)
	if err != nil {
		return "", err
	}
	defer ended.Close()
	r, err := ended.TryWait(0)
	if err != nil {
		return "", err
	}
	return r.String() + " of a reaped process", r.Unknown
}

// activation has this program pass itself a socket.
func (p *probed) activation() (string, error) {
	program := thisProgram()
	address := fmt.Sprintf("@sysfd-probe-%d-%d", os.Getpid(), time.Now().UnixNano())
	out, err := exec.Command(program, "activate", "-now", "-l", address, "-fdname", "probe", "--", program, "listen", "-json").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		said := strings.TrimSpace(string(exit.Stderr) + string(out))
		said = said[strings.LastIndexByte(said, '\n')+1:]
		if strings.HasSuffix(said, syscall.EPERM.Error()) {
			return "", fmt.Errorf("%s: %w", strings.TrimSuffix(said, ": "+syscall.EPERM.Error()), syscall.EPERM)
		}
		if exit.ExitCode() == statusUnsupported {
			err = errors.ErrUnsupported
		}
		return "", fmt.Errorf("%w: %s", err, said)
	}
	if err != nil {
		return "", err
	}
	var g given
	if err := json.Unmarshal(out, &g); err != nil {
		return "", err
	}
	switch {
	case len(g.FDs) != 1 || g.FDs[0].Name != "probe" || g.FDs[0].SocketInfo == nil || g.FDs[0].Address != text(address):
		return "", fmt.Errorf("something else arrived than was sent: %s", out)
	case g.PidFDID == nil:
		return "", fmt.Errorf("the socket arrived, but addressed by PID alone: %w", errors.ErrUnsupported)
	case g.Env["LISTEN_PIDFDID"] != text(g.PidFDID.String()):
		return "", fmt.Errorf("addressed to %s, taken by %d", g.Env["LISTEN_PIDFDID"], *g.PidFDID)
	}
	return "addressed to " + string(g.Env["LISTEN_PIDFDID"]) + ", the ID of the receiver", nil
}
