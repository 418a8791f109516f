//go:build linux

package main

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

const module = "github.com/sysfd/sysfd"

func TestVersionOf(t *testing.T) {
	yes, no := true, false
	build := func(version string, settings ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{Main: debug.Module{Path: module, Version: version}}
		for _, s := range settings {
			key, value, _ := strings.Cut(s, "=")
			b.Settings = append(b.Settings, debug.BuildSetting{Key: key, Value: value})
		}
		return b
	}
	replaced := func(b *debug.BuildInfo, path, version string) *debug.BuildInfo {
		b.Main.Replace = &debug.Module{Path: path, Version: version}
		return b
	}
	for _, test := range []struct {
		build *debug.BuildInfo
		want  versionInfo
	}{
		{nil, versionInfo{Version: "(devel)"}},
		{build(""), versionInfo{Version: "(devel)"}},
		{replaced(build("v0.1.0"), "../sysfd", ""), versionInfo{Version: "(devel)"}},
		{replaced(build("v0.1.0"), "example.com/fork", "v0.2.0"), versionInfo{Version: "v0.2.0"}},
		{build("v0.1.0", "GOARCH=arm"), versionInfo{Version: "v0.1.0"}},
		{build("v0.1.1-0.20261127022554-51218bb2f285+dirty", "vcs=git", "vcs.revision=51218bb", "vcs.time=2026-11-27T02:25:54Z", "vcs.modified=true"),
			versionInfo{Version: "v0.1.1-0.20261127022554-51218bb2f285+dirty", Revision: "51218bb", Time: "2026-11-27T02:25:54Z", Modified: &yes}},
		{build("v0.1.0", "vcs.revision=51218bb", "vcs.modified=false"), versionInfo{Version: "v0.1.0", Revision: "51218bb", Modified: &no}},
	} {
		test.want.Go, test.want.GOOS, test.want.GOARCH = runtime.Version(), "linux", runtime.GOARCH
		if got := versionOf(test.build); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%+v, want %+v", got, test.want)
		}
	}
}

// A command that go build made says what is in its file: built in its repository, as from a tar file, and from another
// module that has it in the place of a version. release.sh sees what go install says of a version.
func TestVersion(t *testing.T) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go tool is not installed")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	mod := fmt.Sprintf("module example.com/other\ngo 1.24.0\nrequire %[1]s v0.9.9\nreplace %[1]s => %[2]s\n", module, root)
	if err := os.WriteFile(filepath.Join(other, "go.mod"), []byte(mod), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gotool, "build", "-o", filepath.Join(other, "sysfd"), ".").CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	for _, test := range []struct {
		dir, version string
		args         []string
	}{
		{dir: root},
		{dir: root, args: []string{"-buildvcs=false"}, version: "(devel)"},
		{dir: other, args: []string{"-mod=mod"}, version: "(devel)"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "sysfd")
			build := exec.Command(gotool, append(append([]string{"build", "-o", program}, test.args...), module+"/cmd/sysfd")...)
			build.Dir = test.dir
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := saysVersion(t, program); test.version != "" && (got.Version != test.version || got.Revision != "" || got.Time != "" || got.Modified != nil) {
				t.Errorf("%+v, want %s alone", got, test.version)
			}
		})
	}
}

// saysVersion returns what the command in a file says about itself, which is what the file has.
func saysVersion(t *testing.T, program string) (got versionInfo) {
	t.Helper()
	build, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	want := versionOf(build)
	succeeds(t, exec.Command(program, "version", "-json"), &got)
	if !reflect.DeepEqual(got, want) || got.Go != build.GoVersion || got.Version == "" {
		t.Errorf("%+v, want %+v", got, want)
	}
	out, errs, code := status(t, exec.Command(program, "version"))
	for _, word := range []string{"sysfd     " + want.Version, "revision  " + want.Revision, "time      " + want.Time, "go        " + want.Go, "platform  " + want.GOOS + "/" + want.GOARCH} {
		if key, value, _ := strings.Cut(word, " "); strings.TrimSpace(value) != "" && !strings.Contains("\n"+out, "\n"+word+"\n") {
			t.Errorf("%s is not %q in %q", key, word, out)
		}
	}
	modified := ""
	if want.Modified != nil {
		modified = fmt.Sprintf("modified  %s\n", map[bool]string{false: "no", true: "yes"}[*want.Modified])
	}
	if code != 0 || errs != "" || !strings.Contains(out, modified) {
		t.Errorf("status %d, %q, %q, want %q", code, out, errs, modified)
	}
	for _, alias := range []string{"-version", "--version"} {
		if same, _, code := status(t, exec.Command(program, alias)); same != out || code != 0 {
			t.Errorf("sysfd %s: status %d, %q", alias, code, same)
		}
	}
	return got
}
