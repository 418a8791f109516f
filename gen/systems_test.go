package main

import (
	"go/types"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// ofDaemons is what the main function of a daemon may use without build tags. It exists on
// every system but Plan 9.
var ofDaemons = strings.Fields(`
	ListenFDs TakeListenFDs TakeListenFDsFunc InspectListenEnv ListenEnv ListenShim ExecListenFDs DupFile ValidFDName
	IsSocket IsSocketInet IsSocketUnix IsFIFO IsSpecial IsMessageQueue
	Notifier TakeNotifier Notify NotifyFiles NotifyReloading NotifyStoreFDs NotifyRemoveStoredFDs NotifyBarrier WatchdogInterval
	Assignment NotifyReady NotifyStopping NotifyWatchdog NotifyWatchdogTrigger NotifyNoPoll NotifyStatus NotifyErrno NotifyExtendTimeout`)

// otherSystems are ports on which a daemon builds.
var otherSystems = []string{"darwin/arm64", "windows/amd64", "freebsd/amd64", "openbsd/amd64", "netbsd/arm", "dragonfly/amd64", "solaris/amd64", "aix/ppc64", "js/wasm", "wasip1/wasm"}

// loadFor loads the root package and package activation for another system.
func loadFor(t *testing.T, port string) (sysfd, activation *types.Package) {
	t.Helper()
	goos, goarch, _ := strings.Cut(port, "/")
	c := loadConfig("..", goarch, nil)
	c.Mode, c.Env = fromSource, append(c.Env, "GOOS="+goos)
	pkgs, err := packages.Load(c, ".", "./activation")
	if err != nil || len(pkgs) != 2 || len(pkgs[0].Errors)+len(pkgs[1].Errors) > 0 {
		t.Fatal(port, err, pkgs)
	}
	if strings.HasSuffix(pkgs[0].PkgPath, "/activation") {
		slices.Reverse(pkgs)
	}
	return pkgs[0].Types, pkgs[1].Types
}

// exported returns what a package exports, each as one line with its type and its methods, but for those
// methods that have to do with processes, which are for Linux.
func exported(p *types.Package) map[string]string {
	lines := map[string]string{}
	ofProcesses := regexp.MustCompile(`\b(PidFD|ProcessRef)\b`)
	unexported := regexp.MustCompile(`; [a-z]\w* \w+}`)
	for _, name := range p.Scope().Names() {
		obj := p.Scope().Lookup(name)
		if !obj.Exported() {
			continue
		}
		lines[name] = unexported.ReplaceAllString(types.ObjectString(obj, types.RelativeTo(p)), "}")
		if t, ok := obj.Type().(*types.Named); ok {
			if _, isType := obj.(*types.TypeName); isType {
				methods := types.NewMethodSet(types.NewPointer(t))
				for i := range methods.Len() {
					m := methods.At(i).Obj()
					if text := types.ObjectString(m, types.RelativeTo(p)); m.Exported() && !ofProcesses.MatchString(text) {
						lines[name] += "; " + text
					}
				}
			}
		}
	}
	return lines
}

// A daemon's main builds everywhere: the same functions have the same parameters. There is nothing
// else on other systems.
func TestEverySystem(t *testing.T) {
	sysfd, activation := loadFor(t, "linux/amd64")
	linux, linuxActivation := exported(sysfd), exported(activation)
	for _, name := range ofDaemons {
		if linux[name] == "" {
			t.Errorf("%s does not exist on Linux", name)
		}
	}
	for _, port := range otherSystems {
		sysfd, activation := loadFor(t, port)
		others, othersActivation := exported(sysfd), exported(activation)
		for _, name := range ofDaemons {
			if others[name] != linux[name] {
				t.Errorf("%s: %q, on Linux: %q", port, others[name], linux[name])
			}
		}
		for name := range others {
			if !slices.Contains(ofDaemons, name) {
				t.Errorf("%s: %s is not in the list", port, name)
			}
		}
		if len(linuxActivation) == 0 || len(othersActivation) != len(linuxActivation) {
			t.Errorf("%s: package activation has %d names, on Linux %d", port, len(othersActivation), len(linuxActivation))
		}
		for name, line := range linuxActivation {
			if othersActivation[name] != line {
				t.Errorf("%s: activation: %q, on Linux: %q", port, othersActivation[name], line)
			}
		}
	}
}

// Package activation imports net, and not what makes a program large beyond that.
func TestActivationImports(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		c := loadConfig("..", "amd64", nil)
		c.Mode, c.Env = packages.NeedName|packages.NeedImports|packages.NeedDeps, append(c.Env, "GOOS="+goos)
		pkgs, err := packages.Load(c, "./activation")
		if err != nil || len(pkgs) != 1 || len(pkgs[0].Errors) > 0 || pkgs[0].Imports["net"] == nil {
			t.Fatal(goos, err, pkgs)
		}
		h := house{unlinked: []string{"crypto/tls", "encoding/json", "fmt", "net/http", "os/exec"}}
		for _, problem := range h.closure(pkgs[0]) {
			t.Error(problem)
		}
	}
}
