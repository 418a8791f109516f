//go:build linux

package sysfd

import (
	"strings"
	"syscall"
)

const longBits = 32 << (^uint(0) >> 63) // of C's long

// parseUnsigned reads a number as safe_atolu and safe_atou64 of systemd do
// (src/basic/parse-util.c): like strtoul(3), but a minus sign is an error.
func parseUnsigned(s string, bits int) (uint64, syscall.Errno) {
	limit := uint64(1)<<bits - 1
	n, negative, errno := parseC(&s, limit, limit)
	if !negative || n == 0 || errno != 0 {
		return n, errno
	}
	if s[0] == '-' {
		return 0, syscall.ERANGE
	}
	return -n & limit, 0 // \v and \f before the sign hide it from systemd
}

// parsePID reads a PID as parse_pid does.
func parsePID(s string) (uint64, syscall.Errno) {
	pid, errno := parseUnsigned(s, longBits)
	if errno == 0 && (pid == 0 || pid > 1<<31-1) {
		errno = syscall.ERANGE
	}
	return pid, errno
}

// parseInt32 reads a number as safe_atoi does.
func parseInt32(s string) (int32, syscall.Errno) {
	limit := uint64(1)<<(longBits-1) - 1
	n, negative, errno := parseC(&s, limit, limit+1)
	switch {
	case errno != 0:
		return 0, errno
	case negative && n <= 1<<31:
		return int32(-int64(n)), 0
	case negative || n > 1<<31-1:
		return 0, syscall.ERANGE
	}
	return int32(n), 0
}

// parseC reads a number as strtol(3) does with base 0, after the prefixes 0b and 0o that systemd
// adds. It returns the magnitude, and leaves in s what strtol got.
func parseC(s *string, limit, negativeLimit uint64) (n uint64, negative bool, errno syscall.Errno) {
	*s = skip(*s, " \t\n\r")
	base := uint64(0)
	switch (*s)[:min(2, len(*s))] {
	case "0b", "0B":
		base = 2
	case "0o", "0O":
		base = 8
	}
	if base != 0 {
		*s = (*s)[2:]
	}
	digits := skip(*s, " \t\n\v\f\r")
	if strings.HasPrefix(digits, "-") {
		negative, limit = true, negativeLimit
	}
	if negative || strings.HasPrefix(digits, "+") {
		digits = digits[1:]
	}
	if base == 0 {
		base = 10
		switch {
		case len(digits) > 2 && digits[0] == '0' && digits[1]|0x20 == 'x' && digit(digits[2]) < 16:
			base, digits = 16, digits[2:]
		case strings.HasPrefix(digits, "0"):
			base = 8
		}
	}
	i, fits := 0, true
	for ; i < len(digits) && digit(digits[i]) < base; i++ {
		d := digit(digits[i])
		if fits = fits && n <= (limit-d)/base; fits {
			n = n*base + d
		}
	}
	switch {
	case !fits: // whatever stands behind the digits
		return 0, negative, syscall.ERANGE
	case i == 0 || i < len(digits):
		return 0, negative, syscall.EINVAL
	}
	return n, negative, 0
}

// skip returns s without the bytes of set that it begins with. A program that links strings.TrimLeft
// is 8 KB larger, because that knows Unicode.
func skip(s, set string) string {
	for s != "" && strings.IndexByte(set, s[0]) >= 0 {
		s = s[1:]
	}
	return s
}
