//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sysfd/sysfd/test/internal/debian"
)

// A kernel is one of Debian's, and the architecture of the programs that are to run on it.
type kernel struct {
	name    string
	version string // "7.2", "" = the newest
	goarch  string // of the programs
	machine string // of the kernel, in machines
	suites  []string
	ci      bool // in the small set that covers most
	raise   bool // for the tests with IDs beyond 32 bits
}

// A machine is what kernels of an architecture boot on.
type machine struct {
	architecture string // as Debian calls it
	goarch       string
	flavour      string // the end of the package's name
	console      string // and what else the kernel must be told
	memory       int    // MiB
	qemu         []string
	in           string // the packages of Debian that have it
}

var machines = map[string]machine{
	"amd64":    {"amd64", "amd64", "cloud-amd64", "ttyS0", 1024, []string{"qemu-system-x86_64", "-M", "pc", "-cpu", "qemu64"}, "qemu-system-x86"},
	"686":      {"i386", "386", "686-pae", "ttyS0", 2560, []string{"qemu-system-i386", "-M", "pc", "-cpu", "qemu32"}, "qemu-system-x86"},
	"arm":      {"armhf", "arm", "armmp", "ttyAMA0", 2048, []string{"qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15"}, "qemu-system-arm"},
	"arm64":    {"arm64", "arm64", "cloud-arm64", "ttyAMA0", 2048, []string{"qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57"}, "qemu-system-arm"},
	"s390x":    {"s390x", "s390x", "s390x", "ttysclp0", 2048, []string{"qemu-system-s390x", "-M", "s390-ccw-virtio"}, "qemu-system-misc"},
	"ppc64el":  {"ppc64el", "ppc64le", "powerpc64le", "hvc0", 2048, []string{"qemu-system-ppc64", "-M", "pseries"}, "qemu-system-ppc"},
	"mips64el": {"mips64el", "mips64le", "5kc-malta", "ttyS0", 1024, []string{"qemu-system-mips64el", "-M", "malta", "-cpu", "5KEf"}, "qemu-system-mips"},
	"mipsel":   {"mipsel", "mipsle", "4kc-malta", "ttyS0", 1024, []string{"qemu-system-mipsel", "-M", "malta", "-cpu", "24Kf"}, "qemu-system-mips"},
	// Without ACPI, which takes firmware, the kernel looks for a keyboard that is not there and
	// panics. With vector registers under qemu 10.0, one Go program in 500 finds at its start that a
	// NaN equals itself.
	"loong64": {"loong64", "loong64", "loong64", "ttyS0 initcall_blacklist=i8042_init", 2048,
		[]string{"qemu-system-loongarch64", "-M", "virt", "-cpu", "la464,lsx=off,lasx=off"}, "qemu-system-misc, 9.1 or later, and zstd"},
	"riscv64": {"riscv64", "riscv64", "riscv64", "ttyS0", 2048, []string{"qemu-system-riscv64", "-M", "virt"}, "qemu-system-misc, opensbi"},
}

// byteOrder is that of the kernel and of its programs.
func (m machine) byteOrder() binary.ByteOrder {
	if m.goarch == "s390x" {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// The suites in which Debian has a kernel. Backports keep older ones for a while.
var (
	newest     = []string{"trixie-backports", "sid"}
	unreleased = []string{"sid", "experimental"}
	backports  = []string{"trixie-backports"}
	trixie     = []string{"trixie"}
	bookworm   = []string{"bookworm"}
)

var kernels = []kernel{
	{"amd64-6.1", "6.1", "amd64", "amd64", bookworm, true, false},
	{"amd64-6.12", "6.12", "amd64", "amd64", trixie, false, false},
	{"amd64-6.16", "6.16", "amd64", "amd64", backports, false, false},
	{"amd64-6.17", "6.17", "amd64", "amd64", backports, false, false},
	{"amd64-6.18", "6.18", "amd64", "amd64", backports, false, false},
	{"amd64-6.19", "6.19", "amd64", "amd64", backports, false, false},
	{"amd64-7.0", "7.0", "amd64", "amd64", backports, false, false},
	{"amd64-7.1", "7.1", "amd64", "amd64", backports, false, false},
	{"amd64-7.2", "7.2", "amd64", "amd64", newest, false, false},
	{"amd64-7.3", "7.3", "amd64", "amd64", newest, false, false},
	{"amd64-newest", "", "amd64", "amd64", newest, true, false},
	{"386-6.1", "6.1", "386", "686", bookworm, true, false},
	{"386-on-amd64-6.1", "6.1", "386", "amd64", bookworm, false, false},
	{"386-on-amd64-6.12", "6.12", "386", "amd64", trixie, false, false},
	{"386-on-amd64-7.2", "7.2", "386", "amd64", newest, false, false},
	{"386-on-amd64-newest", "", "386", "amd64", newest, false, true},
	{"arm-6.12", "6.12", "arm", "arm", []string{"trixie", "bookworm-backports"}, false, false},
	{"arm-7.2", "7.2", "arm", "arm", unreleased, false, false},
	{"arm-7.3", "7.3", "arm", "arm", unreleased, false, false},
	{"arm-newest", "", "arm", "arm", []string{"sid"}, true, true},
	{"arm64-6.12", "6.12", "arm64", "arm64", trixie, true, false},
	{"arm64-7.2", "7.2", "arm64", "arm64", newest, false, false},
	{"arm64-newest", "", "arm64", "arm64", newest, false, false},
	{"arm-on-arm64-newest", "", "arm", "arm64", newest, false, false},
	{"s390x-7.2", "7.2", "s390x", "s390x", unreleased, false, false},
	{"s390x-newest", "", "s390x", "s390x", []string{"sid"}, true, true},
	{"ppc64le-7.2", "7.2", "ppc64le", "ppc64el", unreleased, false, false},
	{"mips64le-6.1", "6.1", "mips64le", "mips64el", bookworm, false, false},
	{"mipsle-6.1", "6.1", "mipsle", "mipsel", bookworm, false, false},
	{"loong64-newest", "", "loong64", "loong64", []string{"sid"}, false, false},
	{"riscv64-7.2", "7.2", "riscv64", "riscv64", []string{"sid"}, false, false},
}

// find returns the kernels of a comma-separated list of names.
func find(names string) (found []kernel, err error) {
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(kernels, func(k kernel) bool { return k.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no kernel %q: -list shows those there are", name)
		}
		found = append(found, kernels[i])
	}
	return found, nil
}

func some(f func(kernel) bool) (found []kernel) {
	for _, k := range kernels {
		if f(k) {
			found = append(found, k)
		}
	}
	return found
}

// pattern matches the names of the packages that have this kernel. It is in linux-binary-*
// since 6.19, where linux-image-* is empty.
func (k kernel) pattern() string {
	version := `[0-9]+\.[0-9]+`
	if k.version != "" {
		version = regexp.QuoteMeta(k.version)
	}
	return `linux-(binary|image)-` + version + `([.+-]([0-9]+|deb[0-9]+))*-` + regexp.QuoteMeta(machines[k.machine].flavour)
}

// A cache keeps kernels and the lists they were found in.
type cache struct {
	dir    string
	update bool // looks for newer ones
}

// image returns the file name of the kernel, which it fetches if it is not there.
func (c cache) image(ctx context.Context, k kernel) (string, error) {
	base := k.machine + "-" + cmp.Or(k.version, "newest")
	image := filepath.Join(c.dir, base)
	if _, err := os.Stat(image); err == nil && !c.update {
		return image, nil
	}
	suite, p, err := c.lookUp(ctx, k)
	if err != nil {
		return "", fmt.Errorf("%s: %w", k.name, err)
	}
	kept := filepath.Join(c.dir, p.SHA256)
	if _, err := os.Stat(kept); err != nil {
		if err := c.fetch(ctx, suite, p, kept); err != nil {
			return "", fmt.Errorf("%s: %w", k.name, err)
		}
	}
	// In one step, so that others who do the same now are not in the way.
	link := image + fmt.Sprintf(".%d", os.Getpid())
	return image, errors.Join(os.Symlink(p.SHA256, link), os.Rename(link, image))
}

// lookUp returns the highest version in the suites of the kernel.
func (c cache) lookUp(ctx context.Context, k kernel) (from debian.Suite, best debian.Package, err error) {
	var failed []error
	for _, name := range k.suites {
		suite := debian.Suite{Name: name, Architecture: machines[k.machine].architecture, Dir: filepath.Join(c.dir, "suites")}
		if c.update {
			if err := suite.Update(ctx); err != nil {
				failed = append(failed, err)
				continue
			}
		}
		p, err := suite.Find(ctx, k.pattern())
		switch {
		case err != nil:
			failed = append(failed, err)
		case best.Name == "" || debian.CompareVersions(p.Version, best.Version) > 0:
			from, best = suite, p
		}
	}
	if best.Name == "" {
		return from, best, errors.Join(failed...)
	}
	return from, best, nil
}

// fetch downloads a package and keeps the kernel that is in it.
func (c cache) fetch(ctx context.Context, suite debian.Suite, p debian.Package, kept string) error {
	dir, err := os.MkdirTemp(c.dir, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	deb, err := suite.Download(ctx, p, dir)
	if err != nil {
		return err
	}
	if err := debian.Extract(ctx, deb, dir, "*/vmlinuz*"); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(images) == 0 { // since 6.19
		images, err = filepath.Glob(filepath.Join(dir, "usr/lib/modules/*/vmlinuz"))
	}
	if err != nil || len(images) != 1 {
		return fmt.Errorf("%s has %d kernels", p.Name, len(images))
	}
	if err := unpackImage(ctx, images[0]); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	return os.Rename(images[0], kept)
}

// unpackImage replaces an EFI program that unpacks a kernel by that kernel. Its header has the
// compressed kernel's place and size, and the name of the compression:
// drivers/firmware/efi/libstub/zboot-header.S in Linux.
func unpackImage(ctx context.Context, image string) error {
	packed, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	if len(packed) < 64 || string(packed[:2]) != "MZ" || string(packed[4:8]) != "zimg" {
		return nil
	}
	start, size := uint64(binary.LittleEndian.Uint32(packed[8:])), uint64(binary.LittleEndian.Uint32(packed[12:]))
	if start+size > uint64(len(packed)) {
		return io.ErrUnexpectedEOF
	}
	compression, _, _ := strings.Cut(string(packed[24:56]), "\x00")
	if compression != "gzip" && compression != "zstd" {
		return fmt.Errorf("the kernel is compressed with %q", compression)
	}
	var unpacked, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, compression, "-dc")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(packed[start:start+size]), &unpacked, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", compression, err, &stderr)
	}
	return os.WriteFile(image, unpacked.Bytes(), 0o644)
}
