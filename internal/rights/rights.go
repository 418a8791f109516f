//go:build linux

// Package rights has a test ask for what it needs of the machine, capabilities above all. Where that is missing the test
// is skipped and says so, except on CI, which has all of it: there it fails.
package rights

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Capability is one of capabilities(7).
type Capability uint

const (
	Chown         Capability = 0
	DACReadSearch Capability = 2 // to open files by handles
	SetGID        Capability = 6
	SetUID        Capability = 7
	SysChroot     Capability = 18
	SysPtrace     Capability = 19
	SysAdmin      Capability = 21 // to mount, to make and enter namespaces, and more
	SysNice       Capability = 23
	SetFCap       Capability = 31
)

var names = map[Capability]string{
	Chown: "CAP_CHOWN", DACReadSearch: "CAP_DAC_READ_SEARCH", SetGID: "CAP_SETGID", SetUID: "CAP_SETUID", SysChroot: "CAP_SYS_CHROOT",
	SysPtrace: "CAP_SYS_PTRACE", SysAdmin: "CAP_SYS_ADMIN", SysNice: "CAP_SYS_NICE", SetFCap: "CAP_SETFCAP",
}

// Lacks skips the test for want of something.
func Lacks(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("it needs %s, which CI should have", what)
	}
	t.Skipf("it needs %s", what)
}

// Need skips the test if the user is not root, or is root without one of these capabilities, as in a container.
func Need(t testing.TB, caps ...Capability) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacks(t, "root")
	}
	var missing []string
	for _, c := range caps {
		if !Has(c) {
			missing = append(missing, names[c])
		}
	}
	if missing != nil {
		Lacks(t, strings.Join(missing, " and "))
	}
}

// Proc skips the test where /proc is not mounted.
func Proc(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		Lacks(t, "/proc")
	}
}

// MountedRoot skips the test in a chroot whose root directory is no mount point: there a process cannot keep what it
// mounts to itself.
func MountedRoot(t testing.TB) {
	t.Helper()
	var root unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_BASIC_STATS, &root)
	if err == nil && root.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && root.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		Lacks(t, "a root directory that is a mount point")
	}
}

// UserNamespace skips the test where the kernel refuses user namespaces, as it does in a chroot.
func UserNamespace(t testing.TB) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	if err := cmd.Run(); errors.Is(err, os.ErrPermission) {
		Lacks(t, "user namespaces")
	}
}

// Handles skips the test where files of a test have no handles, as on an overlay.
func Handles(t testing.TB, dir string) {
	t.Helper()
	_, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if err == unix.EOPNOTSUPP {
		Lacks(t, "a $TMPDIR whose files have handles")
	}
}

// Has reports whether the calling thread has a capability.
func Has(c Capability) bool {
	header := struct {
		version uint32
		pid     int32
	}{version: 0x20080522}
	var data [2]struct{ effective, permitted, inheritable uint32 }
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		panic(fmt.Sprintf("capget: %v", errno))
	}
	return data[c/32].effective>>(c%32)&1 != 0
}

// Filter reports whether the calling thread is under a seccomp filter.
func Filter() bool {
	const prGetSeccomp, modeFilter = 21, 2
	mode, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prGetSeccomp, 0, 0)
	return errno == 0 && mode == modeFilter
}
