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

// Names, paths and addresses come from strangers, and can contain any bytes: some clear the terminal, end the line, or
// change the writing direction.

// quote returns s if all of it is printable and it does not begin with $'. Otherwise it returns s within $'...', as
// shells read it, in printable characters. Different texts have different results.
func quote(s string) string {
	if !strings.HasPrefix(s, "$'") && harmless(s) == s {
		return s
	}
	return "$'" + escape(s, true) + "'"
}

// word is quote for a text that stands between others, and must look neither like two words nor like none.
func word(s string) string {
	if q := quote(s); q != s || s != "" && !strings.Contains(s, " ") {
		return q
	}
	return "$'" + escape(s, true) + "'"
}

// harmless returns a message with escapes in the place of what is unprintable.
func harmless(s string) string { return escape(s, false) }

// escape writes what is unprintable as in $'...' of shells, bytes as three octal digits. If quoted, it also escapes
// the quotation mark and the backslash.
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

// A text comes from outside. In JSON it is unchanged, unless it is not UTF-8 or begins with $'; then it is quoted, so
// that different texts remain different.
type text string

func (t text) MarshalText() ([]byte, error) {
	s := string(t)
	if !utf8.ValidString(s) || strings.HasPrefix(s, "$'") {
		s = quote(s)
	}
	return []byte(s), nil
}

// printableJSON escapes what is unprintable and package json leaves alone.
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
