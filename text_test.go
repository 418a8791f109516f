//go:build linux

package sysfd

import (
	"bytes"
	"encoding"
	"encoding/gob"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A named is a name of a thing: a value with one text.
type named interface {
	comparable
	fmt.Stringer
	encoding.TextAppender
	encoding.TextMarshaler
}

// testText checks that all ways to write and read a name use its one text. The texts are in
// the keys of values.
func testText[T named](t *testing.T, parse func(string) (T, error), values map[string]T) {
	t.Helper()
	var zero T
	if values[""] != zero || zero.String() != "" {
		t.Errorf("the zero value is %q", zero)
	}
	keys := map[T]string{}
	for text, v := range values {
		if v.String() != text {
			t.Errorf("%#v: %q, want %q", v, v, text)
		}
		if got, err := parse(text); err != nil || got != v {
			t.Errorf("%q: %#v, %v", text, got, err)
		}
		if got, err := v.MarshalText(); err != nil || string(got) != text {
			t.Errorf("%#v: %q, %v", v, got, err)
		}
		if got, err := v.AppendText([]byte("x")); err != nil || string(got) != "x"+text {
			t.Errorf("%#v: %q, %v", v, got, err)
		}
		keys[v] = text

		got, other := zero, values[text+"?"]
		if err := any(&got).(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil || got != v {
			t.Errorf("%q: %#v, %v", text, got, err)
		}
		if err := any(&got).(encoding.TextUnmarshaler).UnmarshalText([]byte("no " + text)); err == nil || got != v {
			t.Errorf("%q with no in front: %#v, %v", text, got, err)
		}
		flags := flag.NewFlagSet("", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		flags.TextVar(any(&got).(encoding.TextUnmarshaler), "f", other, "")
		if err := flags.Parse([]string{"-f", text}); err != nil || got != v || flags.Lookup("f").Value.String() != text {
			t.Errorf("-f %q: %#v, %v", text, got, err)
		}
	}
	text, err := json.Marshal(keys)
	var again map[T]string
	if err == nil {
		err = json.Unmarshal(text, &again)
	}
	if err != nil || len(again) != len(keys) {
		t.Errorf("%s, %v", text, err)
	}
	for v, text := range again {
		if values[text] != v {
			t.Errorf("%q became %#v in JSON", text, v)
		}
	}
	// In gob a field that is zero is not there, which must not leave what was there before.
	var stored bytes.Buffer
	sent := slices.Collect(maps.Keys(keys))
	encoder, decoder := gob.NewEncoder(&stored), gob.NewDecoder(&stored)
	var got T
	for _, v := range append(sent, sent...) {
		if err := encoder.Encode(struct{ V T }{v}); err != nil {
			t.Fatal(err)
		}
		if err := encoder.Encode(v); err != nil {
			t.Fatal(err)
		}
		var in struct{ V T }
		if err := errors.Join(decoder.Decode(&in), decoder.Decode(&got)); err != nil || in.V != v || got != v {
			t.Errorf("%q became %q and %q in gob, %v", v, in.V, got, err)
		}
	}
	stored.Reset()
	again = nil
	if err := gob.NewEncoder(&stored).Encode(keys); err != nil {
		t.Fatal(err)
	}
	if err := gob.NewDecoder(&stored).Decode(&again); err != nil || len(again) != len(keys) {
		t.Errorf("%v, %v", again, err)
	}
	for v, text := range again {
		if values[text] != v {
			t.Errorf("%q became %#v in gob", text, v)
		}
	}
}

// testBinary checks that a binary form is short enough, comes back, and that nothing else does.
func testBinary[T interface {
	comparable
	encoding.BinaryAppender
	encoding.BinaryMarshaler
}](t *testing.T, lengths map[T]int) {
	t.Helper()
	read := func(to *T, data []byte) error { return any(to).(encoding.BinaryUnmarshaler).UnmarshalBinary(data) }
	for v, want := range lengths {
		data, err := v.MarshalBinary()
		if err != nil || len(data) != want {
			t.Errorf("%v: %d bytes, want %d, %v", v, len(data), want, err)
		}
		if more, err := v.AppendBinary([]byte("x")); err != nil || string(more) != "x"+string(data) {
			t.Errorf("%v: %x, %v", v, more, err)
		}
		var got T
		if err := read(&got, data); err != nil || got != v {
			t.Errorf("%x: %v, %v", data, got, err)
		}
		for n := range data {
			if err := read(&got, data[:n]); err == nil {
				if short, _ := any(got).(encoding.BinaryMarshaler).MarshalBinary(); !bytes.Equal(short, data[:n]) {
					t.Errorf("%x is read as %v, which is %x", data[:n], got, short)
				}
			}
		}
	}
}

func TestCut(t *testing.T) {
	for _, s := range []string{"", "=", "a", "a=", "=b", "a=b", "a=b=c", "a\x00b="} {
		for _, sep := range []byte{'=', 0} {
			before, after, found := cut(s, sep)
			wantBefore, wantAfter, want := strings.Cut(s, string(sep))
			if before != wantBefore || after != wantAfter || found != want {
				t.Errorf("%q, %q: %q, %q, %v", s, sep, before, after, found)
			}
		}
	}
}

// decimal reads the numbers that strconv.ParseUint reads.
func TestDecimal(t *testing.T) {
	for _, s := range []string{
		"", "0", "7", "007", "1a", "a", "/", ":", "-1", "+1", " 1", "1 ", "1_0", "0x1", "2147483647", "2147483648", "4294967295", "4294967296",
		"18446744073709551615", "18446744073709551616", "18446744073709551620", "99999999999999999999999",
	} {
		for _, bits := range []int{31, 32, 64} {
			want, err := strconv.ParseUint(s, 10, bits)
			if n, ok := decimal(s, bits); ok != (err == nil) || ok && n != want {
				t.Errorf("%q, %d bits: %d, %v", s, bits, n, ok)
			}
		}
	}
}
