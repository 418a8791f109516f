//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// seeAlso names other man pages.
const seeAlso = "name_to_handle_at(2), open_by_handle_at(2), pidfd_open(2), namespaces(7), sd_listen_fds(3), systemd.socket(5), systemd-socket-activate(1)"

// writeMan writes the man page sysfd(1) in the macros of man(7).
func writeMan(w io.Writer) error {
	m := &manPage{}
	m.macro("TH", "SYSFD", "1", "", "sysfd", "User Commands")
	m.macro("nh") // PROGRAM is one word
	m.macro("ad", "l")
	m.section("NAME")
	m.text("sysfd - names of files and processes that are never reused, and socket activation")
	m.section("SYNOPSIS")
	m.line(`\fBsysfd\fR \fICOMMAND\fR [\fIFLAG\fR]... [\fIARGUMENT\fR]...`)
	m.section("DESCRIPTION")
	m.text(about)
	m.section("COMMANDS")
	for _, cmd := range commands() {
		m.command(cmd)
	}
	for _, s := range sections {
		m.section(strings.ToUpper(s.title))
		m.text(s.text)
	}
	m.section("EXIT STATUS")
	for _, s := range exitStatuses {
		m.item(bold(fmt.Sprint(s.code)), s.means)
	}
	m.section("ENVIRONMENT")
	for _, v := range environment {
		m.item(bold(v.name), v.text)
	}
	m.section("SEE ALSO")
	m.text(seeAlso)
	_, err := io.WriteString(w, m.String())
	return err
}

func (m *manPage) command(cmd command) {
	m.macro("SS", cmd.name)
	for i, form := range cmd.forms {
		if i > 0 {
			m.macro("br")
		}
		m.line(bold("sysfd "+cmd.name) + " " + roff(form))
	}
	m.macro("PP")
	m.text(cmd.help)
	for _, f := range cmd.flags() {
		tag := bold("-" + f.name)
		if f.placeholder != "" {
			tag += " " + italic(f.placeholder)
		}
		m.item(tag, f.usage)
	}
	if cmd.json != nil {
		s := schemaOf(cmd.json)
		m.macro("PP")
		m.text(fmt.Sprintf("With -json, it prints %s:", s.what))
		for _, f := range s.fields {
			m.item(bold(f.name)+roff(strings.TrimPrefix(f.String(), f.name)), f.usage)
		}
	}
	m.macro("PP")
	m.text("Exit status: " + statusList(cmd.statuses) + ".")
	for _, e := range cmd.examples {
		m.macro("PP")
		m.text(e.means)
		m.macro("PP")
		m.macro("RS", "4")
		m.macro("nf")
		for line := range strings.Lines(e.script) {
			m.line(roff(strings.TrimSuffix(line, "\n")))
		}
		m.macro("fi")
		m.macro("RE")
	}
}

// statusList returns the codes that a command can end with, which the man page explains once for all.
func statusList(codes []int) string {
	var words []string
	for _, s := range exitStatuses {
		if slices.Contains(codes, s.code) {
			words = append(words, fmt.Sprint(s.code))
		}
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// A manPage is the source of a man page.
type manPage struct{ strings.Builder }

func (m *manPage) macro(name string, args ...string) {
	m.WriteString("." + name)
	for _, arg := range args {
		if arg = roff(arg); arg == "" || strings.Contains(arg, " ") {
			arg = `"` + arg + `"`
		}
		m.WriteString(" " + arg)
	}
	m.WriteString("\n")
}

func (m *manPage) section(title string) { m.macro("SH", title) }

// line writes what is roff already.
func (m *manPage) line(s string) {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	m.WriteString(s + "\n")
}

// text writes paragraphs, with each sentence on a line of its own, as roff wants it.
func (m *manPage) text(s string) {
	for i, paragraph := range strings.Split(s, "\n\n") {
		if i > 0 {
			m.macro("PP")
		}
		for sentence := range strings.Lines(strings.ReplaceAll(paragraph, ". ", ".\n")) {
			for line := range strings.Lines(fill(roff(sentence), "", "")) {
				m.line(strings.TrimSuffix(line, "\n"))
			}
		}
	}
}

// item writes an entry of a list, whose tag is roff already.
func (m *manPage) item(tag, text string) {
	m.macro("TP")
	m.line(tag)
	m.text(text)
}

func bold(s string) string   { return `\fB` + roff(s) + `\fR` }
func italic(s string) string { return `\fI` + roff(s) + `\fR` }

// roff escapes what means something to roff, and what it would print as typographic signs.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, `"`, `\(dq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
}
