//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The man page and the completion in the repository are those that the command prints.
func TestGeneratedFiles(t *testing.T) {
	for name, flag := range map[string]string{"sysfd.1": "-man", "sysfd.bash": "-bash"} {
		out, errs, code := status(t, sysfdCommand("help", flag))
		if code != 0 || errs != "" {
			t.Errorf("sysfd help %s: status %d, %q", flag, code, errs)
		}
		stored, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if out != string(stored) {
			t.Errorf("%s is stale: run go generate in this directory", name)
		}
	}
}

// The tools that show man pages have nothing to say about this one, and show all of it.
func TestManPage(t *testing.T) {
	var page bytes.Buffer
	if err := writeMan(&page); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(page.String()) {
		if line = strings.TrimSuffix(line, "\n"); strings.TrimRight(line, " ") != line || line == "" || strings.HasPrefix(line, "'") {
			t.Errorf("%q", line)
		}
	}
	for _, cmd := range commands() {
		for _, part := range append([]string{cmd.summary}, cmd.forms...) {
			if part != cmd.summary && !strings.Contains(page.String(), roff(part)) {
				t.Errorf("%q is missing", part)
			}
		}
	}
	t.Run("mandoc", func(t *testing.T) {
		mandoc, err := exec.LookPath("mandoc")
		if err != nil {
			t.Skip("mandoc is not installed")
		}
		cmd := exec.Command(mandoc, "-T", "lint")
		cmd.Stdin = bytes.NewReader(page.Bytes())
		out, _ := cmd.CombinedOutput()
		for line := range strings.Lines(string(out)) {
			// The page has no date, so that it is the same whenever it is generated.
			if !strings.Contains(line, "missing date") {
				t.Error(line)
			}
		}
	})
	t.Run("groff", func(t *testing.T) {
		groff, err := exec.LookPath("groff")
		if err != nil {
			t.Skip("groff is not installed")
		}
		cmd := exec.Command(groff, "-man", "-T", "utf8", "-P", "-c", "-ww", "-rLL=80n")
		cmd.Stdin = bytes.NewReader(page.Bytes())
		var shown, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &shown, &errs
		if err := cmd.Run(); err != nil || errs.Len() > 0 {
			t.Errorf("%v, %s", err, &errs)
		}
		text := strings.ReplaceAll(strings.Join(strings.Fields(shown.String()), " "), "\b", "")
		for _, cmd := range commands() {
			for _, e := range cmd.examples {
				if !strings.Contains(text, strings.Join(strings.Fields(e.script), " ")) {
					t.Errorf("%q is not shown", e.script)
				}
			}
		}
	})
}

func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		`a-b`: `a\-b`, `$'\n'`: `$\(aq\en\(aq`, `"x"`: `\(dqx\(dq`, "`~^": `\(ga\(ti\(ha`,
	} {
		if got := roff(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var m manPage
	m.text(".x. 'y\n\nz")
	m.macro("TH", "", "a b")
	if got, want := m.String(), "\\&.x.\n\\(aqy\n.PP\nz\n.TH \"\" \"a b\"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
