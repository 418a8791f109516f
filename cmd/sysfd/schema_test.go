//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A documented field is one that the help of a command has.
type documentedField struct {
	kind     string
	optional bool
}

// documented reads the fields of the JSON out of the help of a command.
func documented(t *testing.T, verb string) (list bool, fields map[string]documentedField) {
	t.Helper()
	out, _, _ := status(t, sysfdCommand("help", verb))
	_, section, ok := strings.Cut(out, "\nJSON, ")
	section, _, _ = strings.Cut(section, "\n\n")
	head, section, _ := strings.Cut(section, "\n")
	if !ok || head != "one object:" && head != "a list of objects:" {
		t.Fatalf("the help of %s has no JSON: %s", verb, out)
	}
	fields = map[string]documentedField{}
	line := regexp.MustCompile(`^  (\S+): (string|number|boolean|object|list of (?:string|number|object)s)(, may be missing)?$`)
	for text := range strings.Lines(section + "\n") {
		if text = strings.TrimSuffix(text, "\n"); strings.HasPrefix(text, "        ") {
			continue
		}
		m := line.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("%s: %q", verb, text)
		}
		fields[m[1]] = documentedField{m[2], m[3] != ""}
	}
	return head == "a list of objects:", fields
}

// kindOfJSON returns how the help calls the kind of a value.
func kindOfJSON(v any) string {
	switch v := v.(type) {
	case string:
		return "string"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE-") {
			return "number " + v.String() // of which there should be none
		}
		return "number"
	case bool:
		return "boolean"
	case []any:
		if len(v) == 0 {
			return "list of "
		}
		return "list of " + kindOfJSON(v[0]) + "s"
	case map[string]any:
		return "object"
	}
	return fmt.Sprintf("%T", v)
}

// compareJSON compares an object with what is documented for the fields below prefix, and adds these to seen.
func compareJSON(t *testing.T, what, prefix string, object map[string]any, fields map[string]documentedField, seen map[string]bool) {
	t.Helper()
	for name, v := range object {
		path := prefix + name
		seen[path] = true
		field, ok := fields[path]
		if kind := kindOfJSON(v); !ok || !strings.HasPrefix(field.kind, kind) || kind == "" {
			t.Errorf("%s: %s is a %s, documented is %+v", what, path, kind, field)
			continue
		}
		switch v := v.(type) {
		case map[string]any:
			if slices.ContainsFunc(keys(fields), func(f string) bool { return strings.HasPrefix(f, path+".") }) {
				compareJSON(t, what, path+".", v, fields, seen)
			} else if _, texts := anyOf(v).(string); len(v) > 0 && !texts {
				t.Errorf("%s: %s has %v", what, path, v)
			}
		case []any:
			for _, element := range v {
				if o, ok := element.(map[string]any); ok {
					compareJSON(t, what, path+"[].", o, fields, seen)
				}
			}
		}
	}
	for path, field := range fields {
		name, below := strings.CutPrefix(path, prefix)
		if _, ok := object[name]; below && !strings.ContainsAny(name, ".[") && !ok && !field.optional {
			t.Errorf("%s: %s is missing", what, path)
		}
	}
}

func keys(fields map[string]documentedField) (names []string) {
	for name := range fields {
		names = append(names, name)
	}
	return names
}

func anyOf(m map[string]any) any {
	for _, v := range m {
		return v
	}
	return nil
}

// What -json prints is what the help says.
func TestSchema(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	self := os.Args[0]
	calls := map[string][][]string{
		"probe":   {{"probe", "-json"}},
		"handle":  {{"handle", "-json", "-fid", file, "/"}, {"handle", "-json", file}},
		"info":    {{"info", "-json", "self", fmt.Sprint(os.Getpid())}},
		"ns":      {{"ns", "-json"}, {"ns", "-json", "self"}},
		"version": {{"version", "-json"}},
		"listen": {
			{"listen", "-json"},
			{"activate", "-q", "-now", "-l", "@sysfd-schema", "-l", "127.0.0.1:0", "-d", "-l", file + "s", "--", self, "listen", "-json"},
			{"exec", "--", self, "listen", "-json"},
		},
	}
	for _, cmd := range commands() {
		hasFlag := slices.ContainsFunc(cmd.flags(), func(f flagDoc) bool { return f.name == "json" })
		if hasFlag != (cmd.json != nil) || hasFlag != (calls[cmd.name] != nil) {
			t.Errorf("%s: -json %v, documented %v, tested %v", cmd.name, hasFlag, cmd.json != nil, calls[cmd.name] != nil)
		}
		if !hasFlag {
			continue
		}
		isList, fields := documented(t, cmd.name)
		seen := map[string]bool{}
		for _, args := range calls[cmd.name] {
			c := sysfdCommand(args...)
			if args[0] == "exec" { // passes a file that is not a socket
				c.Env = append(c.Env, "LISTEN_FDS=1")
				f, err := os.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				c.ExtraFiles = []*os.File{f}
			}
			out, errs, code := status(t, c)
			d := json.NewDecoder(strings.NewReader(out))
			d.UseNumber()
			var v any
			if err := d.Decode(&v); err != nil {
				t.Logf("%q: status %d, %v, %s", args, code, err, errs)
				continue
			}
			if _, ok := v.([]any); ok != isList {
				t.Errorf("%q: %T, documented is a list: %v", args, v, isList)
			}
			if !isList {
				v = []any{v}
			}
			for _, o := range v.([]any) {
				compareJSON(t, fmt.Sprint(args), "", o.(map[string]any), fields, seen)
			}
		}
		for name, field := range fields {
			if !seen[name] && !field.optional {
				t.Errorf("%s: %s was not seen", cmd.name, name)
			} else if !seen[name] {
				t.Logf("%s: %s was not seen here", cmd.name, name)
			}
		}
		if len(seen) == 0 {
			t.Errorf("sysfd %s -json printed nothing", cmd.name)
		}
	}
}

// The general help names the commands that have -json.
func TestJSONSection(t *testing.T) {
	var names []string
	for _, cmd := range commands() {
		if cmd.json != nil {
			names = append(names, cmd.name)
		}
	}
	last := len(names) - 1
	want := strings.Join(names[:last], ", ") + " and " + names[last] + " print JSON"
	if text := sections[2].text; sections[2].title != "JSON" || !strings.HasPrefix(text, want) {
		t.Errorf("%q does not begin with %q", text, want)
	}
}
