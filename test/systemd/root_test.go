//go:build linux

package systemd

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// setup makes the root directory: run in a mount namespace of its own, with the
// archive's address as $1 and the directory as $2.
const setup = `
set -e
debootstrap --variant=minbase --include=systemd,dbus sid "$2" "$1"
mount -t proc proc "$2/proc"
chroot "$2" dpkg --add-architecture i386
apt="chroot $2 apt-get -qq -o Acquire::Check-Valid-Until=false"
$apt update
DEBIAN_FRONTEND=noninteractive $apt install -y --no-install-recommends libsystemd0:i386
$apt clean
rm -rf "$2"/var/lib/apt/lists/*
umount "$2/proc"
`

var sid struct {
	sync.Once
	dir string
	err error
}

// sidRoot returns a directory with Debian's sid: systemd, dbus, varlinkctl, and libsystemd for amd64
// and 386. It is shared by all tests and runs, and not to be written to.
func sidRoot(t testing.TB) string {
	t.Helper()
	needsRoot(t)
	needsTool(t, "debootstrap")
	sid.Do(func() { sid.dir, sid.err = makeRoot() })
	if sid.err != nil {
		lacks(t, sid.err.Error())
	}
	return sid.dir
}

func makeRoot() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "sysfd")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	dir := filepath.Join(cache, fmt.Sprintf("sid-%x", sha256.Sum256([]byte(setup)))[:20])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	archive, err := archive()
	if err != nil {
		return "", err
	}
	unfinished, err := os.MkdirTemp(cache, "unfinished-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(unfinished)
	if err := os.Chmod(unfinished, 0o755); err != nil {
		return "", err
	}
	out, err := exec.Command("unshare", "--mount", "sh", "-c", setup, "sh", archive, unfinished).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("debian's sid: %w\n%s", err, out)
	}
	if err := os.Rename(unfinished, dir); err != nil {
		if _, other := os.Stat(dir); other != nil { // another run was faster
			return "", err
		}
	}
	return dir, nil
}

// archive returns the address of the Debian archive that this machine uses.
func archive() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian").Output()
	if err != nil {
		return "", fmt.Errorf("the archive of this Debian: %w", err)
	}
	uri, _, _ := strings.Cut(string(out), "\n")
	if uri == "" {
		return "", fmt.Errorf("apt knows no archive of Debian: apt-get update helps if it was never called")
	}
	return uri, nil
}
