//go:build linux

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"
)

type versionInfo struct {
	Version  string `json:"version" help:"of the module, or \"(devel)\" if the build did not record it"`
	Revision string `json:"revision,omitempty" help:"the commit that the command was built from"`
	Time     string `json:"time,omitempty" help:"when that was committed, as in RFC 3339"`
	Modified *bool  `json:"modified,omitempty" help:"whether files were modified since"`
	Go       string `json:"go" help:"the version of Go that built it"`
	GOOS     string `json:"goos" help:"the system that it was built for"`
	GOARCH   string `json:"goarch" help:"the architecture that it was built for"`
}

func version(c *call) error {
	asJSON := c.Bool("json", false, "print one JSON object")
	if err := c.noArguments(); err != nil {
		return err
	}
	build, _ := debug.ReadBuildInfo()
	v := versionOf(build)
	if *asJSON {
		return c.printJSON(v)
	}
	t := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "sysfd\t%s\n", v.Version)
	if v.Revision != "" {
		fmt.Fprintf(t, "revision\t%s\n", v.Revision)
	}
	if v.Time != "" {
		fmt.Fprintf(t, "time\t%s\n", v.Time)
	}
	if v.Modified != nil {
		fmt.Fprintf(t, "modified\t%s\n", map[bool]string{false: "no", true: "yes"}[*v.Modified])
	}
	fmt.Fprintf(t, "go\t%s\n", v.Go)
	fmt.Fprintf(t, "platform\t%s/%s\n", v.GOOS, v.GOARCH)
	return t.Flush()
}

// versionOf reads what the build recorded, which is nil for nothing.
func versionOf(build *debug.BuildInfo) versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), GOOS: runtime.GOOS, GOARCH: runtime.GOARCH}
	if build == nil {
		return v
	}
	module := &build.Main
	if module.Replace != nil { // the go.mod of another module has put it in the place of the version that it requires
		module = module.Replace
	}
	if module.Version != "" {
		v.Version = module.Version
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			modified := s.Value == "true"
			v.Modified = &modified
		}
	}
	return v
}
