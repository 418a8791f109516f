//go:build linux

package sysfd

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Measured with libsystemd 262 on amd64 and i386.
func TestParseNumbers(t *testing.T) {
	const invalid, outOfRange = syscall.EINVAL, syscall.ERANGE
	ones33, ones65 := "0b"+strings.Repeat("1", 33), "0b"+strings.Repeat("1", 65)
	for _, test := range []struct {
		s         string
		asInt32   any // int or errno
		asUint64  any // uint64 or errno
		asPID     any // what C's unsigned long has
		asPID32   any // nil: the same where that has 32 bits
		asInt32On any // nil: the same
	}{
		{s: "", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "-", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: " ", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: " \t\n\r1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "\v1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "\f \v1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "1 ", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "1x", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "1_0", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "\u0661", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "-1", asInt32: -1, asUint64: outOfRange, asPID: outOfRange},
		{s: "-0", asInt32: 0, asUint64: 0, asPID: 0},
		{s: "08", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "010", asInt32: 8, asUint64: 8, asPID: 8},
		{s: "0x0b1", asInt32: 177, asUint64: 177, asPID: 177},
		{s: "0XfF", asInt32: 255, asUint64: 255, asPID: 255},
		{s: "0x", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "0xg", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "0b1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "0B11", asInt32: 3, asUint64: 3, asPID: 3},
		{s: "0o17", asInt32: 15, asUint64: 15, asPID: 15},
		{s: "0b+1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "0b 1", asInt32: 1, asUint64: 1, asPID: 1},
		{s: "0b-1", asInt32: -1, asUint64: outOfRange, asPID: outOfRange},
		{s: "0b -1", asInt32: -1, asUint64: uint64(1<<64 - 1), asPID: uint64(1<<64 - 1), asPID32: uint64(1<<32 - 1)},
		{s: "\v-1", asInt32: -1, asUint64: uint64(1<<64 - 1), asPID: uint64(1<<64 - 1), asPID32: uint64(1<<32 - 1)},
		{s: "0b0b1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "+0b1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "\v0b1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "0o0x1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "+-1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: "- 1", asInt32: invalid, asUint64: invalid, asPID: invalid},
		{s: ones33, asInt32: outOfRange, asUint64: uint64(1<<33 - 1), asPID: uint64(1<<33 - 1), asPID32: outOfRange},
		{s: ones65, asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "2147483647", asInt32: 1<<31 - 1, asUint64: 1<<31 - 1, asPID: 1<<31 - 1},
		{s: "2147483648", asInt32: outOfRange, asUint64: uint64(1 << 31), asPID: uint64(1 << 31)},
		{s: "-2147483648", asInt32: -1 << 31, asUint64: outOfRange, asPID: outOfRange},
		{s: "-2147483649", asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "18446744073709551615", asInt32: outOfRange, asUint64: uint64(1<<64 - 1), asPID: uint64(1<<64 - 1), asPID32: outOfRange},
		{s: "18446744073709551616", asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "\v-18446744073709551615", asInt32: outOfRange, asUint64: 1, asPID: 1, asPID32: outOfRange},
		{s: "99999999999999999999x", asInt32: outOfRange, asUint64: outOfRange, asPID: outOfRange},
		{s: "99999999999x", asInt32: invalid, asUint64: invalid, asPID: invalid, asPID32: outOfRange, asInt32On: outOfRange},
	} {
		if longBits == 32 && test.asPID32 != nil {
			test.asPID = test.asPID32
		}
		if longBits == 32 && test.asInt32On != nil {
			test.asInt32 = test.asInt32On
		}
		check := func(kind string, n any, errno syscall.Errno, want any) {
			t.Helper()
			got := fmt.Sprint(n)
			if errno != 0 {
				got = fmt.Sprint(errno)
			}
			if got != fmt.Sprint(want) {
				t.Errorf("%q as %s: %s, want %v", test.s, kind, got, want)
			}
		}
		i, errno := parseInt32(test.s)
		check("int32", i, errno, test.asInt32)
		u, errno := parseUnsigned(test.s, 64)
		check("uint64", u, errno, test.asUint64)
		u, errno = parseUnsigned(test.s, longBits)
		check("unsigned long", u, errno, test.asPID)
	}
}

// Numbers as activators write them are read as Go reads them.
func FuzzParseNumbers(f *testing.F) {
	for _, s := range []string{"0", "1", "-1", "18446744073709551616", "0b1", "\v-1", "0x", "08", "99999999999x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, errno := parseUnsigned(s, 64)
		i, errnoInt := parseInt32(s)
		if errno != 0 && u != 0 || errnoInt != 0 && i != 0 {
			t.Errorf("%q: %d, %v; %d, %v", s, u, errno, i, errnoInt)
		}
		if s == "" || s[0] < '1' || s[0] > '9' || strings.Trim(s, "0123456789") != "" {
			return
		}
		want, err := strconv.ParseUint(s, 10, 64)
		if (err == nil) != (errno == 0) || err == nil && want != u {
			t.Errorf("%q: %d, %v; want %d, %v", s, u, errno, want, err)
		}
		wantInt, err := strconv.ParseInt(s, 10, 32)
		if (err == nil) != (errnoInt == 0) || err == nil && int32(wantInt) != i {
			t.Errorf("%q: %d, %v; want %d, %v", s, i, errnoInt, wantInt, err)
		}
	})
}
