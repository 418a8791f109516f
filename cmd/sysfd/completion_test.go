//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each placeholder of the table is one that the completion knows, and has one that is in the table.
func TestCandidates(t *testing.T) {
	used := map[string]bool{}
	for _, cmd := range commands() {
		for _, f := range cmd.flags() {
			used[f.placeholder] = true
		}
		for _, form := range cmd.forms {
			p := parseForm(form)
			for _, operand := range p.operands {
				for _, placeholder := range operand {
					used[placeholder] = true
				}
			}
			for _, name := range p.flags {
				if !slices.ContainsFunc(cmd.flags(), func(f flagDoc) bool { return "-"+f.name == name && f.placeholder == "" }) {
					t.Errorf("%s: %s begins a form, and is no flag without a value", cmd.name, name)
				}
			}
		}
	}
	delete(used, "")
	for placeholder := range used {
		if _, ok := candidates[placeholder]; !ok {
			t.Errorf("nothing is said about %s", placeholder)
		}
	}
	for placeholder := range candidates {
		if !used[placeholder] {
			t.Errorf("no command has %s", placeholder)
		}
	}
	kinds := map[string]bool{}
	for _, k := range processKinds {
		kinds[kindOf(k).String()] = true
	}
	for _, k := range strings.Fields(candidates["KIND"]) {
		if !kinds[k] {
			t.Errorf("%s is no kind", k)
		}
		delete(kinds, k)
	}
	if len(kinds) > 0 {
		t.Errorf("not completed: %v", kinds)
	}
}

// A person presses the tab key in bash.
func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	script, err := filepath.Abs("sysfd.bash")
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := t.TempDir(), t.TempDir()
	for _, name := range []string{"alpha file", "beta", "gamma.sock"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "betadir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "sysfd-test-program"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	user, terminal := openTerminal(t)
	sh := exec.Command(bash, "--norc", "--noprofile", "-i")
	sh.Dir = dir
	sh.Env = append(os.Environ(), "TERM=dumb", "PS1=", "INPUTRC=/dev/null", "HISTFILE=", "PATH="+bin+":"+os.Getenv("PATH"))
	sh.Stdin, sh.Stdout, sh.Stderr = terminal, terminal, terminal
	sh.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	defer sh.Wait()
	defer sh.Process.Kill()
	lines := make(chan string)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for s := bufio.NewScanner(user); s.Scan(); {
			select {
			case lines <- strings.TrimRight(s.Text(), "\r"):
			case <-done:
				return
			}
		}
		close(lines)
	}()
	// The shell prints the words that it gets, on a line of their own.
	const mark = "words:"
	fmt.Fprintf(user, "sysfd() { printf '\\n%%s' %s; printf ' <%%s>' \"$@\"; printf ' end\\n'; }\nsource '%s'\n", mark[:2]+"''"+mark[2:], script)
	words := func(typed string) (string, bool) {
		fmt.Fprint(user, typed+"\n")
		for timeout := time.After(patience); ; {
			select {
			case line, ok := <-lines:
				if !ok {
					return "bash has ended", false
				}
				if got, ok := strings.CutPrefix(line, mark+" "); ok {
					return strings.TrimSuffix(got, " end"), true
				}
			case <-timeout:
				return "bash says nothing", false
			}
		}
	}
	pid := fmt.Sprint(os.Getpid())
	for _, test := range []struct{ typed, want string }{
		{"sysfd prob\t", "<probe>"},
		{"sysfd x\t", "<x>"},
		{"sysfd help acti\t", "<help> <activate>"},
		{"sysfd help -m\t", "<help> <-man>"},
		{"sysfd help -man pro\t", "<help> <-man> <pro>"},
		{"sysfd probe -j\t", "<probe> <-json>"},
		{"sysfd probe --j\t", "<probe> <--json>"},
		{"sysfd activate --max\t3", "<activate> <--max-connections> <3>"},
		{"sysfd handle alp\t", "<handle> <alpha file>"},
		{"sysfd handle -fi\tgam\t", "<handle> <-fid> <gamma.sock>"},
		{"sysfd handle -re\tgam\t", "<handle> <-ref> <gamma.sock>"},
		{"sysfd open -search bet\t", "<open> <-search> <betadir/>"},
		{"sysfd open -search=bet\t", "<open> <-search=betadir/>"},
		{"sysfd open --search bet\t", "<open> <--search> <betadir/>"},
		{"sysfd open -mount gam\t", "<open> <-mount> <gamma.sock>"},
		{"sysfd open 1:00 -- sysfd-test-p\tgam\t", "<open> <1:00> <--> <sysfd-test-program> <gamma.sock>"},
		{"sysfd open 1:00 sysfd-test-p\t", "<open> <1:00> <sysfd-test-program>"},
		{"sysfd open -mount . gam\t", "<open> <-mount> <.> <gam>"},
		{"sysfd info " + pid + "\t", "<info> <" + pid + ">"},
		{"sysfd info sel\t", "<info> <self>"},
		{"sysfd wait sel\t", "<wait> <sel>"},
		{"sysfd wait -timeout 5s -exi\t" + pid, "<wait> <-timeout> <5s> <-exited> <" + pid + ">"},
		{"sysfd wait -timeout bet\t", "<wait> <-timeout> <bet>"},
		{"sysfd kill -s STO\t", "<kill> <-s> <STOP>"},
		{"sysfd kill -s=STO\t", "<kill> <-s=STOP>"},
		{"sysfd kill betad\t", "<kill> <betad>"},
		{"sysfd kill -cgroup betad\t", "<kill> <-cgroup> <betadir/>"},
		{"sysfd ns -json=true -kind cg\t-kind ut\tse\t", "<ns> <-json=true> <-kind> <cgroup> <-kind> <uts> <self>"},
		{"sysfd activate -now -l ./gam\t", "<activate> <-now> <-l> <./gamma.sock>"},
		{"sysfd activate -accept -l @x -- sysfd-test-p\t-fdn\t", "<activate> <-accept> <-l> <@x> <--> <sysfd-test-program> <-fdn>"},
		{"sysfd activate -l @x sysfd-test-p\tbetad\t", "<activate> <-l> <@x> <sysfd-test-program> <betadir/>"},
		{"sysfd exec -ignore-signal USR\t1 -- sysfd-test-p\t", "<exec> <-ignore-signal> <USR1> <--> <sysfd-test-program>"},
		{"sysfd activate -l stream:./gam\t", "<activate> <-l> <stream:./gamma.sock>"},
		{"sysfd exec -ignore-signal=PIPE,USR\t2 -- sysfd-test-p\t", "<exec> <-ignore-signal=PIPE,USR2> <--> <sysfd-test-program>"},
		{"sysfd listen bet\t", "<listen> <bet>"},
	} {
		if got, ok := words(test.typed); got != test.want {
			t.Errorf("%q: %s, want %s", test.typed, got, test.want)
			if !ok {
				break
			}
		}
	}
}
