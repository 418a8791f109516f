package main

import (
	"go/token"
	"go/types"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The ports that Go has are the ports that the table has.
func TestEveryLinuxPort(t *testing.T) {
	out, err := exec.Command("go", "tool", "dist", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for port := range strings.Lines(string(out)) {
		if goarch, ok := strings.CutPrefix(strings.TrimSpace(port), "linux/"); ok {
			want = append(want, goarch)
		}
	}
	for _, a := range arches {
		got = append(got, a.GOARCH)
		if types.SizesFor("gc", a.GOARCH) == nil {
			t.Errorf("%s: go/types does not know its sizes", a.GOARCH)
		}
		if a.Target == "" || a.Headers == "" {
			t.Errorf("%s: no target or no headers", a.GOARCH)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("table has %v, Go has %v", got, want)
	}
	for _, goarch := range []string{"386", "amd64", "arm", "arm64"} {
		i := slices.IndexFunc(arches, func(a arch) bool { return a.GOARCH == goarch })
		if i < 0 || arches[i].Libc == "" {
			t.Errorf("%s: not compared with a C library", goarch)
		}
	}
}

var (
	// What it is, then the first kernel with it, then what earlier ones did.
	docForm    = regexp.MustCompile(`^(|[^;]+; )Linux [2-9]\.\d+(\.\d+)?( \([^()]+\))?$`)
	plainForm  = regexp.MustCompile(`^[^;]+$`)
	inSentence = regexp.MustCompile(`\b(since|before|as of) Linux [2-9]\.\d+\b`)
	sourceForm = regexp.MustCompile(`^(include|fs|kernel|net)/[a-z0-9_/]+\.[ch]$`)
	headerForm = regexp.MustCompile(`^(asm|linux|linux/sched)/[a-z0-9_]+\.h$`)
)

// docOK tells whether a comment names kernel versions in one of two ways.
func docOK(doc string) bool {
	if doc == "" || docForm.MatchString(doc) {
		return true
	}
	rest := inSentence.ReplaceAllString(doc, "")
	return plainForm.MatchString(doc) && !strings.Contains(rest, "Linux")
}

func TestDocOK(t *testing.T) {
	for doc, want := range map[string]bool{
		"":                             true,
		"Linux 6.9":                    true,
		"Linux 2.6.39":                 true,
		"bytes":                        true,
		"a thread; Linux 6.9":          true,
		"likewise; Linux 6.17 (not 1)": true,
		"with a pidfd since Linux 5.8": true,
		"a thread, Linux 6.9":          false,
		"a thread; linux 6.9":          false,
		"a thread; Linux 6":            false,
		"Linux 6.9; a thread":          false,
		"Linux v6.9":                   false,
		"a thread; ":                   false,
	} {
		if got := docOK(doc); got != want {
			t.Errorf("%q: %v, want %v", doc, got, want)
		}
	}
}

// Each name stands in the tables once, and each entry is whole.
func TestTables(t *testing.T) {
	seen := map[string]bool{}
	name := func(n string) {
		t.Helper()
		if seen[n] {
			t.Errorf("%s is there twice", n)
		}
		seen[n] = true
		if !token.IsIdentifier(n) {
			t.Errorf("%q is no name", n)
		}
	}
	for _, g := range groups {
		if g.Doc == "" || strings.HasSuffix(g.Doc, ".") || len(g.Consts) == 0 {
			t.Errorf("group %q", g.Doc)
		}
		if g.Header != "" && !headerForm.MatchString(g.Header) {
			t.Errorf("group %q: header %q", g.Doc, g.Header)
		}
		for _, c := range g.Consts {
			name(c.Name)
			if !docOK(c.Doc) {
				t.Errorf("%s: comment %q", c.Name, c.Doc)
			}
			switch {
			case c.Internal == "" && g.Header == "":
				t.Errorf("%s is in no header", c.Name)
			case c.Internal != "" && (c.Expr == "" || !sourceForm.MatchString(c.Internal)):
				t.Errorf("%s: value %q of source file %q", c.Name, c.Expr, c.Internal)
			}
		}
	}
	byHeader := func(a, b group) int { return strings.Compare(a.Header, b.Header) }
	if !slices.IsSortedFunc(taken, byHeader) {
		t.Error("what is taken is not sorted by header")
	}
	for _, g := range taken {
		if !headerForm.MatchString(g.Header) || g.Doc != "" || g.Dec || len(g.Consts) == 0 {
			t.Errorf("what is taken from <%s>", g.Header)
		}
		for _, c := range g.Consts {
			name(c.Name)
			if !token.IsExported(c.Name) || c.Doc != "" || c.Libc || c.Internal != "" && (c.Expr == "" || !sourceForm.MatchString(c.Internal)) {
				t.Errorf("what is taken: %+v", c)
			}
			if isOurs(c.Name) {
				t.Errorf("%s is taken, and the package has its own", c.Name)
			}
		}
	}
	for _, s := range structs {
		name(s.Go)
		if token.IsExported(s.Go) || s.Doc == "" || strings.HasSuffix(s.Doc, ".") {
			t.Errorf("struct %s", s.Go)
		}
	}
	for _, s := range takenStructs {
		name(s.XSys)
		if s.Go != "" || s.Doc != "" || s.Libc {
			t.Errorf("struct %s", s.XSys)
		}
	}
	for _, s := range slices.Concat(structs, takenStructs) {
		if len(s.Fields) == 0 {
			t.Errorf("%s has no fields", s.C)
		}
		if (s.Decl == "") != (s.Source == "") || (s.Decl == "") == (s.Header == "") {
			t.Errorf("%s: header %q, declaration %q, source %q", s.Go, s.Header, s.Decl, s.Source)
		}
		if s.Header != "" && !headerForm.MatchString(s.Header) || s.Source != "" && !sourceForm.MatchString(s.Source) {
			t.Errorf("%s: header %q, source %q", s.Go, s.Header, s.Source)
		}
		fields := map[string]bool{}
		for i, f := range s.Fields {
			n := f.goName()
			if fields[n] || !token.IsIdentifier(n) || !token.IsExported(n) {
				t.Errorf("%s: field %q", s.Go, n)
			}
			fields[n] = true
			if f.Array && f.Flex != "" || f.Flex != "" && i != len(s.Fields)-1 {
				t.Errorf("%s.%s: an array without a size is the last field and nothing else", s.Go, n)
			}
		}
	}
}
