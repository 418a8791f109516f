//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sysfd/sysfd/internal/rights"
)

// helpTexts returns all that the command says about itself, by the arguments that print it.
func helpTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, args := range helpArgs() {
		out, errs, code := status(t, sysfdCommand(strings.Fields(args)...))
		if code != 0 || errs != "" {
			t.Errorf("sysfd %s: status %d, %q", args, code, errs)
		}
		texts[args] = out
	}
	return texts
}

func helpArgs() []string {
	args := []string{"-h"}
	for _, cmd := range commands() {
		args = append(args, cmd.name+" -h")
	}
	return args
}

func TestHelp(t *testing.T) {
	texts := helpTexts(t)
	for args, text := range texts {
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("sysfd %s: %d columns: %s", args, n, line)
			}
		}
		if !strings.HasPrefix(text, "usage: sysfd ") || !strings.HasSuffix(text, "\n") || strings.Contains(text, " \n") || strings.Contains(text, "\n\n\n") {
			t.Errorf("sysfd %s prints %q", args, text)
		}
	}
	for _, cmd := range commands() {
		own := texts[cmd.name+" -h"]
		if !strings.Contains(texts["-h"], "\n  "+cmd.name+" ") {
			t.Errorf("%s is not in %s", cmd.name, texts["-h"])
		}
		if out, _, code := status(t, sysfdCommand("help", cmd.name)); out != own || code != 0 {
			t.Errorf("sysfd help %s: status %d, %s", cmd.name, code, out)
		}
		unbroken := strings.Join(strings.Fields(own), " ")
		for _, form := range cmd.forms {
			if !strings.Contains(unbroken, "sysfd "+cmd.name+" "+form) {
				t.Errorf("%s is not in %s", form, own)
			}
		}
		for _, e := range cmd.examples {
			if !strings.Contains(strings.ReplaceAll(own, "\n  ", "\n"), "\n"+e.script+"\n") {
				t.Errorf("%s is not in %s", e.script, own)
			}
		}
		if len(cmd.examples) == 0 || cmd.summary == "" || cmd.help == "" {
			t.Errorf("%s is not explained", cmd.name)
		}
	}
	for _, alias := range []string{"--help", "-help", "help"} {
		if out, _, code := status(t, sysfdCommand(alias)); code != 0 || out != texts["-h"] {
			t.Errorf("sysfd %s: status %d, %s", alias, code, out)
		}
	}
}

// The synopsis has all flags of a command, with their values, and no others.
func TestSynopsis(t *testing.T) {
	for _, cmd := range commands() {
		c := newCall(cmd.name, []string{"-h"}, io.Discard, io.Discard)
		if err := cmd.run(c); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s does something before it parses its flags: %v", cmd.name, err)
		}
		var want []string
		for _, f := range cmd.flags() {
			want = append(want, f.String())
			if f.usage == "" || strings.HasSuffix(f.usage, ".") {
				t.Errorf("%s %v: %q", cmd.name, f, f.usage)
			}
		}
		var got []string
		for _, form := range cmd.forms {
			for _, word := range wordsOf(form) {
				if word == "[--]" {
					continue
				}
				if word, optional := strings.CutPrefix(word, "[-"); optional {
					word = strings.TrimSuffix(strings.TrimSuffix(word, "..."), "]")
					got = append(got, strings.Split("-"+word, "|")...)
				} else if strings.HasPrefix(word, "-") {
					got = append(got, strings.Split(word, "|")...)
				}
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s: the synopsis has %q, the flags are %q", cmd.name, got, want)
		}
	}
}

// Flags are shown with one dash everywhere.
func TestOneStyleOfFlags(t *testing.T) {
	texts := helpTexts(t)
	var man bytes.Buffer
	writeMan(&man)
	texts["-man"] = strings.ReplaceAll(man.String(), `\-`, "-")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(readme)) {
		if strings.Contains(line, "sysfd ") {
			texts["README.md"] += line
		}
	}
	for _, test := range badUsage {
		_, errs, _ := status(t, sysfdCommand(strings.Split(test.args, " ")...))
		texts["errors"] += errs
	}
	for name, text := range texts {
		for _, found := range regexp.MustCompile(`(^|[^-\w])--\w\S*`).FindAllString(text, -1) {
			t.Errorf("%s has %q", name, found)
		}
	}
}

// Whoever is shown an example can run it.
func TestExamples(t *testing.T) {
	rights.Proc(t)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	bin := t.TempDir()
	if err := os.Symlink(testBinary(t), filepath.Join(bin, "sysfd")); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range commands() {
		for i, e := range cmd.examples {
			t.Run(fmt.Sprint(cmd.name, i), func(t *testing.T) {
				script := strings.ReplaceAll(e.script, "127.0.0.1:8080", "127.0.0.1:0")
				if _, err := os.Stat("/dev/fd"); err != nil && strings.Contains(script, "<(") {
					rights.Lacks(t, "/dev/fd")
				}
				if cmd.name == "open" {
					rights.MountedRoot(t) // or else the mount that it finds may be one without a path to the file
				}
				if strings.Contains(script, "/sys/fs/cgroup") || cmd.name == "cgroup" {
					mount, err := cgroup2Mount()
					if err != nil {
						t.Skip(err)
					}
					script = strings.ReplaceAll(script, "/sys/fs/cgroup", mount)
				}
				if _, err := exec.LookPath("man"); err != nil {
					script = strings.ReplaceAll(script, "man -l -", "cat")
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				sh := exec.CommandContext(ctx, bash, "-e", "-o", "pipefail", "-c", script)
				sh.Dir = t.TempDir()
				if strings.Contains(script, "report.txt") {
					rights.Handles(t, sh.Dir)
				}
				sh.Env = append(os.Environ(), commandVar+"=1", "PATH="+bin+":"+os.Getenv("PATH"), "MANPAGER=cat")
				sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				defer func() { syscall.Kill(-sh.Process.Pid, syscall.SIGKILL) }()
				if err := os.WriteFile(filepath.Join(sh.Dir, "report.txt"), []byte("text\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				if strings.Contains(script, "-accept") {
					answers(t, sh)
					return
				}
				var out, errs bytes.Buffer
				sh.Stdout, sh.Stderr = &out, &errs
				sh.WaitDelay = 100 * time.Millisecond // what runs in the background has them
				err := sh.Run()
				for _, why := range []string{"CAP_DAC_READ_SEARCH", "no persistent identity", "no handles"} {
					if err != nil && strings.Contains(errs.String(), why) {
						t.Skip(errs.String())
					}
				}
				if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
					t.Fatalf("%v: %s\n%s%s", err, script, &out, &errs)
				}
				if want, ok := exampleOutput[e.script]; !ok || !regexp.MustCompile(want).MatchString(out.String()) {
					t.Errorf("%q: %q, want %q", e.script, &out, want)
				}
			})
		}
	}
}

// exampleOutput has a regular expression for the output of each example that ends.
var exampleOutput = map[string]string{
	"sysfd probe | grep -v ' yes '":                                       `FEATURE +WORKS`,
	"sysfd handle -ref report.txt >report.ref":                            `^$`,
	"sysfd open \"$(sysfd handle -ref report.txt | cut -f 1)\" -- cat {}": `^text\n$`,
	"sysfd cgroup /sys/fs/cgroup":                                         `^1\n$`,
	"sysfd cgroup 1":                                                      `^/.*\n$`,
	"sleep 60 &\nsysfd id -ref $! >sleep.ref":                             `^$`,
	"sysfd info $$":                                                       `^process +\d+:\d+\n`,
	"sleep 1 &\nsysfd wait -timeout 10s $!":                               `^\d+: (exit status 0|status unknown)`,
	"sleep 60 &\nref=$(sysfd id -ref $!)\nsysfd kill \"$ref\"":            `^$`,
	"sysfd ns -kind net":                                                  `^KIND .*\nnet `,
	"sysfd ns $$":                                                         `^NAMESPACE .*\ncgroup `,
	"sysfd version":                                                       `^sysfd +\S+\n`,
	"sysfd help kill":                                                     `^usage: sysfd kill `,
	"sysfd help -man | man -l -":                                          `SYSFD`,
	"source <(sysfd help -bash)":                                          `^$`,
	"sysfd activate -now -l 127.0.0.1:8080 -fdname http -- sysfd listen":                                `(?m)^3  http  socket inet stream listening 127\.`,
	"sysfd activate -now -l 127.0.0.1:8080 -- \\\n    sh -c 'sysfd exec -- sysfd listen; exit'":         `(?m)^3  unknown  socket inet stream listening 127\.`,
	"sysfd activate -now -l 127.0.0.1:8080 -l ./control -fdname http:control \\\n    -- sysfd listen":   `(?m)^4  control  socket unix stream listening \./control`,
	"ref=$(sysfd handle -ref report.txt | cut -f 1)\nmv report.txt old-report.txt\nsysfd open \"$ref\"": `^/.*/old-report\.txt\n$`,
}

// answers connects to an example that serves.
func answers(t *testing.T, sh *exec.Cmd) {
	t.Helper()
	stderr, err := sh.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	address, _, ok := strings.Cut(strings.TrimPrefix(line, "sysfd activate: listening on "), " as ")
	if err != nil || !ok {
		t.Fatalf("%q, %v", line, err)
	}
	for range 2 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(got, []byte("\n")) {
			t.Errorf("%q, %v", got, err)
		}
		c.Close()
	}
}

// testBinary returns the path of this program.
func testBinary(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFill(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, test := range []struct{ text, want string }{
		{"", "> \n"},
		{"a b", "> a b\n"},
		{strings.Repeat("abcdefg ", 11), "> " + strings.Repeat("abcdefg ", 8) + "abcdefg\n- abcdefg abcdefg\n"},
		{"a " + long + " b", "> a\n- " + long + "\n- b\n"},
		{"a\n\nb c", "> a\n\n- b c\n"},
		{strings.Repeat("x", 70) + " [-l [KIND:]ADDRESS]... y", "> " + strings.Repeat("x", 70) + "\n- [-l [KIND:]ADDRESS]... y\n"},
		{strings.Repeat("ß", 76) + " a b", "> " + strings.Repeat("ß", 76) + " a\n- b\n"},
	} {
		if got := fill(test.text, "> ", "- "); got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}
