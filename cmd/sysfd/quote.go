//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Names, paths and addresses come from strangers, and can have anything in them: what clears a
// terminal, ends a line, or turns the direction of writing.

// quote returns s as it is if all of it can be printed and it does not begin like what is
// quoted. Else it returns it within $'…', as shells read it, in printable characters. No two
// texts come out as the same one.
func quote(s string) string {
	if !strings.HasPrefix(s, "$'") && harmless(s) == s {
		return s
	}
	return "$'" + escape(s, true) + "'"
}

// word is quote for a text that stands between others, and must not look like two of them or
// like none.
func word(s string) string {
	if q := quote(s); q != s || s != "" && !strings.Contains(s, " ") {
		return q
	}
	return "$'" + escape(s, true) + "'"
}

// harmless returns a message with escapes in the place of what cannot be printed.
func harmless(s string) string { return escape(s, false) }

// escape writes what cannot be printed as shells do within $'…', bytes as three octal digits. If
// quoted, it also protects the quotation mark and the backslash.
func escape(s string, quoted bool) string {
	const letters = "abtnvfr" // from 7 up
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case quoted && (r == '\'' || r == '\\'):
			b.WriteString(`\` + s[:n])
		case strconv.IsPrint(r) && !(r == utf8.RuneError && n == 1):
			b.WriteString(s[:n])
		case '\a' <= r && r <= '\r':
			b.WriteString(`\` + letters[r-'\a':][:1])
		default:
			for i := range n {
				fmt.Fprintf(&b, `\%03o`, s[i])
			}
		}
		s = s[n:]
	}
	return b.String()
}

// A text comes from outside. JSON has it as it is if it is UTF-8, and else as quote has it; so
// different texts remain different.
type text string

func (t text) MarshalText() ([]byte, error) {
	s := string(t)
	if !utf8.ValidString(s) || strings.HasPrefix(s, "$'") {
		s = quote(s)
	}
	return []byte(s), nil
}

// printableJSON escapes what package json leaves alone and a terminal may not.
func printableJSON(in []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(in) {
		switch {
		case r == '\n' || strconv.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}
