//go:build linux

package sysfd

import "strings"

// cut is strings.Cut for a separator of one byte. A program that links that has the search for any
// string, 5 KB.
func cut(s string, sep byte) (before, after string, found bool) {
	if i := strings.IndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// decimal reads a number of at most so many bits, and of nothing but digits. A program that links
// strconv.ParseUint is 12 KB larger, because its error quotes the text.
func decimal(s string, bits int) (n uint64, ok bool) {
	limit := uint64(1)<<bits - 1
	for i := range len(s) {
		d := digit(s[i])
		if d > 9 || n > (limit-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, s != ""
}

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

func appendHex(b []byte, bytes ...byte) []byte {
	const digits = "0123456789abcdef"
	for _, c := range bytes {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// unmarshalText reads a value that has a Parse function. On an error it leaves the value unchanged.
func unmarshalText[T any](to *T, text []byte, parse func(string) (T, error)) error {
	value, err := parse(string(text))
	if err == nil {
		*to = value
	}
	return err
}

// appendUUID appends 16 bytes in the form of RFC 9562, section 4.
func appendUUID(b, uuid []byte) []byte {
	for i, c := range uuid {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = appendHex(b, c)
	}
	return b
}

// parseHex fills b from two digits for each byte. It turns any other character into some digit, so
// callers compare the result with the text.
func parseHex(b []byte, text string) {
	for i := range b {
		b[i] = byte(digit(text[2*i])<<4 | digit(text[2*i+1]))
	}
}
