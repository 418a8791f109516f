//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestQuote(t *testing.T) {
	for _, test := range []struct{ text, quote, word, harmless string }{
		{"", "", "$''", ""},
		{"größe", "größe", "größe", "größe"},
		{"a b", "a b", "$'a b'", "a b"},
		{`C:\it's "$x"`, `C:\it's "$x"`, `$'C:\\it\'s "$x"'`, `C:\it's "$x"`},
		{"\x1b[2J", `$'\033[2J'`, `$'\033[2J'`, `\033[2J`},
		{"a\nb\r\t\a\b\v\f\x007", `$'a\nb\r\t\a\b\v\f\0007'`, `$'a\nb\r\t\a\b\v\f\0007'`, `a\nb\r\t\a\b\v\f\0007`},
		{"\u202egro\u2069\u009b\u00a0", `$'\342\200\256gro\342\201\251\302\233\302\240'`, `$'\342\200\256gro\342\201\251\302\233\302\240'`, `\342\200\256gro\342\201\251\302\233\302\240`},
		{"ß\xff\x9f\x7f", `$'ß\377\237\177'`, `$'ß\377\237\177'`, `ß\377\237\177`},
		{"\ufffd", "\ufffd", "\ufffd", "\ufffd"},
		{"it's\\\n", `$'it\'s\\\n'`, `$'it\'s\\\n'`, `it's\\n`},
		{"$'a'", `$'$\'a\''`, `$'$\'a\''`, "$'a'"},
		{"$x", "$x", "$x", "$x"},
	} {
		if q, w, h := quote(test.text), word(test.text), harmless(test.text); q != test.quote || w != test.word || h != test.harmless {
			t.Errorf("%q: %s, %s, %s", test.text, q, w, h)
		}
	}
}

// unquote is what a shell does.
func unquote(s string) (string, error) {
	inner, ok := strings.CutPrefix(s, "$'")
	if !ok {
		return s, nil
	}
	inner, ok = strings.CutSuffix(inner, "'")
	if !ok {
		return "", errors.New("no end")
	}
	var b []byte
	for inner != "" {
		if inner[0] == '\'' {
			return "", errors.New("an end before the end")
		}
		if inner[0] != '\\' {
			b, inner = append(b, inner[0]), inner[1:]
			continue
		}
		r, _, tail, err := strconv.UnquoteChar(inner, '\'')
		if err != nil {
			return "", err
		}
		b, inner = append(b, byte(r)), tail
	}
	return string(b), nil
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a b", "\x1b[2J\n", "$'", "$''", "\\", "'", "\xff\xfe", "\u202e", "\x001", "a\\'\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, q := range []string{quote(s), word(s)} {
			if back, err := unquote(q); back != s || err != nil {
				t.Errorf("%q is %s, and that is %q, %v", s, q, back, err)
			}
			if harmful(q) {
				t.Errorf("%q", q)
			}
		}
		if w := word(s); w == "" || strings.Contains(w, " ") && !strings.HasPrefix(w, "$'") {
			t.Errorf("%q", w)
		}
		if harmful(harmless(s)) {
			t.Errorf("%q", harmless(s))
		}
	})
}

// harmful tells whether something in s is not to be seen.
func harmful(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) })
}

// bash takes back what is quoted, and what is not quoted is not to be given to it.
func TestQuoteShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	all := ""
	for c := 1; c < 256; c++ {
		all += string([]byte{byte(c)})
	}
	for _, s := range []string{all, "\x1b1\n", "$'", "$(touch x)", "`touch x`", "größe\x7f"} {
		cmd := exec.Command(bash, "-c", `read -r x; case $x in "$'"*) eval "x=$x";; esac; printf %s "$x"`)
		cmd.Stdin = strings.NewReader(quote(s) + "\n")
		if out, err := cmd.Output(); string(out) != s || err != nil {
			t.Errorf("%q: %q, %v", s, out, err)
		}
	}
}

func TestTextJSON(t *testing.T) {
	seen := map[string]string{}
	for _, s := range []string{"\xff", "\xfe", "\ufffd", `$'\377'`, `\377`, "größe", "\x1b", "$'", "", "\U000e0001\u202e\u009b\x7f\u2028"} {
		var b strings.Builder
		c := call{out: &b}
		if err := c.printJSON(map[string]text{"name": text(s)}); err != nil {
			t.Fatal(err)
		}
		out := b.String()
		if harmful(strings.ReplaceAll(out, "\n", "")) || strings.Count(out, "\n") != 3 {
			t.Errorf("%q", out)
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(out), &back); err != nil {
			t.Errorf("%v in %s", err, out)
		}
		is := back["name"]
		if was, ok := seen[is]; ok {
			t.Errorf("%q and %q are both %q", was, s, is)
		}
		seen[is] = s
		if utf8.ValidString(s) && !strings.HasPrefix(s, "$'") && is != s {
			t.Errorf("%q is %q", s, is)
		}
		if !utf8.ValidString(s) && is != quote(s) {
			t.Errorf("%q is %q", s, is)
		}
	}
}

// Whatever a command is given, nothing but what can be seen comes out, in as many lines as always.
func TestHostileNames(t *testing.T) {
	const evil = "\x1b[2J\rx\nsysfd: forged\u202e\u009b\xff"
	dir := filepath.Join(t.TempDir(), evil)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, evil)
	if err := os.WriteFile(file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	h, _, _ := status(t, sysfdCommand("handle", file))
	h, _, _ = strings.Cut(h, "\t")
	handles := 1
	if h == "" {
		handles = 2 // there are none, and how they would be had
	}
	env := []string{"LISTEN_FDNAMES=" + evil, "LISTEN_PID=" + evil, "LISTEN_PIDFDID=" + evil}
	for i, test := range []struct {
		words []string
		lines int // of both outputs, 0 = any
	}{
		{[]string{evil}, 1},
		{[]string{"handle", file}, handles},
		{[]string{"handle", file + "x"}, 1},
		{[]string{"handle", "-ref", file}, 0},
		{[]string{"handle", "-json", file}, 0},
		{[]string{"open", "-mount", dir, h}, 1},
		{[]string{"open", "-mount", file + "x", h}, 1},
		{[]string{"open", "-mount", dir, h, "--", evil}, 1},
		{[]string{"open", "-search", file + "x", h}, 1},
		{[]string{"open", evil}, 1},
		{[]string{"open", evil + "/"}, 1},
		{[]string{"cgroup", file}, 1},
		{[]string{"cgroup", "-mount", file, "1"}, 1},
		{[]string{"kill", "-cgroup", file}, 1},
		{[]string{"kill", "-s", evil, "1"}, 1},
		{[]string{"id", evil}, 1},
		{[]string{"id", "-" + evil}, 1},
		{[]string{"id", "1", "-" + evil}, 1},
		{[]string{"info", evil + ":"}, 1},
		{[]string{"wait", "-timeout", evil, "1"}, 1},
		{[]string{"ns", "-kind", evil}, 1},
		{[]string{"ns", evil}, 1},
		{[]string{"ns", "1", evil}, 1},
		{[]string{"exec", evil}, 1},
		{[]string{"exec", file}, 1},
		{[]string{"exec", "--ignore-signal=" + evil, "true"}, 1},
		{[]string{"activate", "-l", file + "s", "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", file + "s", "--now", "--", file}, 2},
		{[]string{"activate", "-l", file, "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", file + "x/y", "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", "@" + evil, "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", evil + ":80", "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", "80:" + evil, "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", "@a", "-E", evil, "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", "@a", "--fdname", evil, "--now", "--", "true"}, 1},
		{[]string{"activate", "-l", "@a", "--now", "--", evil}, 1},
		{[]string{"listen"}, 0},
		{[]string{"listen", "-json"}, 0},
		{[]string{"listen", evil}, 1},
	} {
		for j := range len(env) {
			if j > 0 && test.words[0] != "listen" {
				break
			}
			cmd := sysfdCommand(test.words...)
			if test.words[0] == "listen" {
				cmd.Env = append(cmd.Env, env[j:]...)
			}
			out, errs, _ := status(t, cmd)
			all := out + errs
			if harmful(strings.NewReplacer("\n", "", "\t", "").Replace(all)) || test.lines > 0 && strings.Count(all, "\n") != test.lines {
				t.Errorf("%d: %q: %q, %q", i, test.words, out, errs)
			}
			for line := range strings.Lines(all) {
				if strings.HasPrefix(line, "sysfd: forged") {
					t.Errorf("%d: %q: %q, %q", i, test.words, out, errs)
				}
			}
		}
	}
}

// The name of a descriptor has any bytes in it, and is one word of its line.
func TestHostileFDNames(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const evil = "a\x1b[2J\n3  b\u202e\xff"
	for _, words := range [][]string{{"listen"}, {"listen", "-json"}, {"activate", "--now", "-l", "@sysfd-fdnames", "--", os.Args[0], "listen"}} {
		cmd := sysfdCommand(append([]string{"exec", "--", os.Args[0]}, words...)...)
		cmd.Env = append(cmd.Env, "LISTEN_FDS=3", "LISTEN_FDNAMES="+evil+":b  character:")
		cmd.ExtraFiles = []*os.File{null, null, null}
		out, errs, _ := status(t, cmd)
		if harmful(strings.ReplaceAll(out+errs, "\n", "")) {
			t.Errorf("%q: %q, %q", words, out, errs)
		}
		if len(words) == 1 {
			for _, want := range []string{"\n3  " + quote(evil) + "  ", "\n4  $'b  character'  ", "\n5  $''  "} {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in %q", want, out)
				}
			}
		}
	}
}

// Each of these is the address of another socket.
func TestSocketNames(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	long := strings.Repeat("l", 107)
	seen := map[string]string{}
	for _, address := range []string{
		"@a", "@a\x00", "@a\x00b", "@\x00", "@" + long, "@" + long[1:] + "\xff", "@" + long[1:] + "\xfe", "./@a", "a", dir + "/a",
		long, "@\x1b[2J\n", "@a connected to /run/other", "./\xff", "./\xfe",
	} {
		a := socketAddress{"unix", address}
		f, err := bind(a, "name")
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		info, err := describe(f)
		if err != nil {
			t.Fatal(err)
		}
		said := word(string(info.Address))
		if was, ok := seen[said]; ok || harmful(said) {
			t.Errorf("%q and %q are both %s", was, address, said)
		}
		seen[said] = address
		want := address
		if address == "a" || address == long {
			want = "./" + want
		}
		if string(info.Address) != want || info.what() != "socket unix stream listening "+said {
			t.Errorf("%q is %q, %s", address, info.Address, info.what())
		}
		f.Close()
	}
}
