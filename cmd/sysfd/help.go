//go:build linux

package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// width is that of the help in columns.
const width = 80

const about = `sysfd gives files and processes names that are never reused for anything else, finds the files and the processes by these names, and passes sockets to programs.`

// A flagDoc is what the help says about a flag. A flag without a value has no placeholder.
type flagDoc struct{ name, placeholder, usage string }

func (f flagDoc) String() string {
	if f.placeholder == "" {
		return "-" + f.name
	}
	return "-" + f.name + " " + f.placeholder
}

// flags returns the flags of a command, which its run function declares before it does anything else.
func (cmd *command) flags() (docs []flagDoc) {
	c := newCall(cmd.name, []string{"-h"}, io.Discard, io.Discard)
	cmd.run(c)
	c.VisitAll(func(f *flag.Flag) {
		placeholder, usage := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		docs = append(docs, flagDoc{f.Name, placeholder, usage})
	})
	return docs
}

func help(c *call) error {
	man := c.Bool("man", false, "print the man page sysfd(1)")
	bash := c.Bool("bash", false, "print the completion for bash")
	if err := c.parse(); err != nil {
		return err
	}
	switch {
	case *man && *bash:
		return usageError("-man and -bash exclude each other")
	case (*man || *bash) && c.NArg() > 0:
		return unexpected(c.Arg(0))
	case c.NArg() > 1:
		return unexpected(c.Arg(1))
	case *man:
		return writeMan(c.out)
	case *bash:
		return writeBash(c.out)
	case c.NArg() == 0:
		overview(c.out)
		return nil
	}
	cmd := commandNamed(c.Arg(0))
	if cmd == nil {
		return usageError(fmt.Sprintf("unknown command %q; sysfd -h lists the commands", c.Arg(0)))
	}
	cmd.explain(c.out)
	return nil
}

// overview prints the help about all commands.
func overview(w io.Writer) {
	fmt.Fprintf(w, "usage: sysfd COMMAND [FLAG]... [ARGUMENT]...\n\n%s\nCommands:\n", fill(about, "", ""))
	for _, cmd := range commands() {
		fmt.Fprint(w, fill(cmd.summary, fmt.Sprintf("  %-10s", cmd.name), strings.Repeat(" ", 12)))
	}
	fmt.Fprintf(w, "\nsysfd help COMMAND, or sysfd COMMAND -h, explains a command.\n")
	for _, s := range sections {
		fmt.Fprintf(w, "\n%s:\n%s", s.title, fill(s.text, "  ", "  "))
	}
	fmt.Fprintf(w, "\nEnvironment:\n")
	for _, v := range environment {
		fmt.Fprint(w, fill(v.name, "  ", "  "), fill(v.text, "        ", "        "))
	}
	var all []int
	for _, s := range exitStatuses {
		all = append(all, s.code)
	}
	printStatuses(w, all)
}

// explain prints the help about one command.
func (cmd *command) explain(w io.Writer) {
	for i, form := range cmd.forms {
		start := []string{"usage: sysfd ", "       sysfd "}[min(i, 1)] + cmd.name + " "
		fmt.Fprint(w, fill(form, start, strings.Repeat(" ", len(start))))
	}
	fmt.Fprintf(w, "\n%s", fill(cmd.help, "", ""))
	if flags := cmd.flags(); len(flags) > 0 {
		fmt.Fprintf(w, "\nFlags:\n")
		for _, f := range flags {
			fmt.Fprintf(w, "  %v\n%s", f, fill(f.usage, "        ", "        "))
		}
	}
	if cmd.json != nil {
		s := schemaOf(cmd.json)
		fmt.Fprintf(w, "\nJSON, %s:\n", s.what)
		for _, f := range s.fields {
			fmt.Fprintf(w, "  %v\n%s", f, fill(f.usage, "        ", "        "))
		}
	}
	printStatuses(w, cmd.statuses)
	fmt.Fprintf(w, "\nExamples:\n")
	for i, e := range cmd.examples {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprint(w, fill(e.means, "  # ", "  # "))
		for line := range strings.Lines(e.script) {
			fmt.Fprintf(w, "  %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
}

func printStatuses(w io.Writer, codes []int) {
	fmt.Fprintf(w, "\nExit status:\n")
	for _, s := range exitStatuses {
		if slices.Contains(codes, s.code) {
			fmt.Fprint(w, fill(s.means, fmt.Sprintf("  %-5d", s.code), "       "))
		}
	}
}

// fill breaks paragraphs into lines, of which the first one begins with first, and the others with rest. What is in
// brackets stays on one line.
func fill(text, first, rest string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		line, start := first, true
		for _, word := range wordsOf(paragraph) {
			switch {
			case start:
				line += word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
				line += " " + word
			default:
				b.WriteString(line + "\n")
				line = rest + word
			}
			start = false
		}
		b.WriteString(line + "\n")
		first = rest
	}
	return b.String()
}

// wordsOf separates words, but not within brackets.
func wordsOf(s string) (words []string) {
	depth := 0
	for _, word := range strings.Fields(s) {
		if depth > 0 {
			words[len(words)-1] += " " + word
		} else {
			words = append(words, word)
		}
		depth += strings.Count(word, "[") - strings.Count(word, "]")
	}
	return words
}
