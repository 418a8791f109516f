package sysfd

import (
	"strings"
	"unicode/utf8"
)

// mostStatus is how many bytes of a status are sent. systemd accepts no message of more than 4096,
// which leaves 1 KiB for other assignments, such as READY=1.
const mostStatus = 3 << 10

// statusLine turns text into a status that systemd accepts: one line of UTF-8, without a NUL. For
// any other, systemd drops the whole message, or the status shown before.
func statusLine(text string) string {
	if sentLength(text) <= mostStatus && !strings.ContainsFunc(text, isNoStatus) {
		return text
	}
	const cut = "…"
	var line []byte
	gap, sent, fits := "", 0, 0 // fits: so much of line, and cut
	for i, c := range text {
		if isNewline(c) {
			gap = " " // one for all that are in a row
			continue
		}
		char := "\ufffd"
		if !isNoStatus(c) {
			char = text[i : i+utf8.RuneLen(c)]
		}
		if len(line) > 0 {
			char = gap + char
		}
		gap = ""
		line = append(line, char...)
		if sent += sentLength(char); sent > mostStatus {
			return string(line[:fits]) + cut
		}
		if sent <= mostStatus-len(cut) {
			fits = len(line)
		}
	}
	return string(line)
}

// sentLength returns how many bytes are sent for text: joinAssignments doubles backslashes.
func sentLength(text string) int {
	n := len(text)
	for i := range len(text) {
		if text[i] == '\\' {
			n++
		}
	}
	return n
}

// isNewline reports whether c ends an assignment for systemd (NEWLINE in src/basic/string-util.h).
func isNewline(c rune) bool { return c == '\n' || c == '\r' }

// isNoStatus is also true for invalid UTF-8, which reads as RuneError, and for noncharacters
// (unichar_is_valid of systemd's src/basic/utf8.c).
func isNoStatus(c rune) bool {
	return isNewline(c) || c == 0 || c == utf8.RuneError || 0xfdd0 <= c && c <= 0xfdef || c&0xfffe == 0xfffe
}
