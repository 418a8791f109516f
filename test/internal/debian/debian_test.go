//go:build linux

package debian

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	versions := []string{ // each newer than the one before
		"0.9~~", "0.9~~a", "0.9~", "0.9", "0.9a", "0.9+b",
		"6.1.170-3", "6.1.176-1", "6.12.95-1~bpo12+1", "6.12.95-1", "6.19.6-2~bpo13+1", "6.19.14-1~bpo13+1",
		"7.3~rc7-1~exp1", "7.3-1", "7.3.4-1~bpo13+1", "7.3.4-1", "7.3.04-2", "1:1.0-1", "1:1.0-1+b1", "2:0",
	}
	for i, a := range versions {
		for j, b := range versions {
			c := CompareVersions(a, b)
			if (c < 0) != (i < j) || (c > 0) != (i > j) {
				t.Errorf("%s, %s: %d", a, b, c)
			}
		}
	}
	for a, b := range map[string]string{"1.0": "0:1.0", "1.2-0": "1.2", "1.02": "1.2"} {
		if c := CompareVersions(a, b); c != 0 {
			t.Errorf("%s, %s: %d", a, b, c)
		}
	}
}

const testIndex = `Package: linux-image-7.2.9-cloud
Source: linux
Version: 7.2.9-1
Description: a kernel
 Version: not this one
Filename: pool/a.deb
SHA256: aaaa

Package: linux-image-7.2.13-cloud-dbg
Version: 7.2.13-1
SHA256: bbbb

Package: linux-image-7.2.13-cloud
SHA256: cccc
Version: 7.2.13-1
`

func TestMatch(t *testing.T) {
	found, err := match(strings.NewReader(testIndex), regexp.MustCompile(`^linux-image-7\.2\S*-cloud$`))
	want := []Package{{"linux-image-7.2.9-cloud", "7.2.9-1", "aaaa"}, {"linux-image-7.2.13-cloud", "7.2.13-1", "cccc"}}
	if err != nil || !slices.Equal(found, want) {
		t.Errorf("%v, %v", found, err)
	}
	if found, err := match(strings.NewReader("Package: "+strings.Repeat("x", 1<<21)), regexp.MustCompile("")); err == nil {
		t.Errorf("an index with an endless line: %d packages", len(found))
	}
}

func TestCheckSHA256(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkSHA256(name, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); err != nil {
		t.Error(err)
	}
	if err := checkSHA256(name, strings.Repeat("0", 64)); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("another file: %v", err)
	}
}

func TestExtract(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	deb := makeDeb(t, map[string]string{"./boot/vmlinuz-7.2": "kernel", "./usr/module": "module"})
	dir := t.TempDir()
	if err := Extract(t.Context(), deb, dir, "./boot/vmlinuz-*"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "boot/vmlinuz-7.2")); string(b) != "kernel" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr")); err == nil {
		t.Error("more was unpacked than asked for")
	}
	if err := Extract(t.Context(), deb, dir, "./boot/initrd-*"); err == nil {
		t.Error("no error for a pattern that nothing matches")
	}
	if err := Extract(t.Context(), filepath.Join(dir, "none.deb"), dir); err == nil {
		t.Error("no error for a package that is not there")
	}
}

// makeDeb writes a package with these files.
func makeDeb(t *testing.T, files map[string]string) string {
	t.Helper()
	member := func(files map[string]string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, content := range files {
			w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
			w.Write([]byte(content))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var deb bytes.Buffer
	deb.WriteString("!<arch>\n")
	for _, m := range []struct {
		name    string
		content []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar", member(map[string]string{"./control": "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"})},
		{"data.tar", member(files)},
	} {
		deb.WriteString(arHeader(m.name, len(m.content)))
		deb.Write(m.content)
		deb.Write(make([]byte, len(m.content)%2))
	}
	name := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(name, deb.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func arHeader(name string, size int) string {
	return fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", size)
}
