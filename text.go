//go:build linux

package sysfd

import (
	"strconv"
)

// digit returns the value of a digit, up to base 16, or a large number.
func digit(c byte) uint64 {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return uint64(c|0x20-'a') + 10
	}
	return 1 << 8
}

func appendHex(b []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	return append(b, digits[c>>4], digits[c&15])
}

// parseHex fills b from two digits for each byte. What is no digit comes out as one.
func parseHex(b []byte, text string) {
	for i := range b {
		b[i] = byte(digit(text[2*i])<<4 | digit(text[2*i+1]))
	}
}

// parseDecimal reads a number in the one form that strconv writes.
func parseDecimal(s string, bits int) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, bits)
	return n, err == nil && (s[0] != '0' || s == "0")
}
