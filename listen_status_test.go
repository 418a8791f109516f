package sysfd

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestStatusLine(t *testing.T) {
	full := strings.Repeat("x", mostStatus)
	for text, want := range map[string]string{
		"":                                 "",
		"all well: 100 % \u2713":           "all well: 100 % \u2713",
		"\ttab \x1b[1m":                    "\ttab \x1b[1m",
		"a\nMAINPID=1":                     "a MAINPID=1",
		"a\r\nb\n\n\rc\n":                  "a b c",
		"\n a \n":                          " a ",
		"\n":                               "",
		"a\x00b":                           "a\ufffdb",
		"\xffa\xe2\x82":                    "\ufffda\ufffd\ufffd",
		"a\ufdd0\ufffe\U0001ffff":          "a\ufffd\ufffd\ufffd",
		"\ufdcf\ufdf0\ufffc":               "\ufdcf\ufdf0\ufffc",
		full:                               full,
		full + "\n":                        full,
		"\n" + full[1:] + "\n":             full[1:],
		full + "y":                         full[3:] + "…",
		full[2:] + "\u2713":                full[3:] + "…",
		full[1:] + "\xff":                  full[3:] + "…",
		full[3:] + "\xff":                  full[3:] + "\ufffd",
		full[3:] + "\xff\n":                full[3:] + "\ufffd",
		`C:\`:                              `C:\`,
		full[2:] + `\`:                     full[2:] + `\`,
		full[1:] + `\`:                     full[3:] + "…",
		`\` + full[2:]:                     `\` + full[2:],
		full[4:] + `\xyz`:                  full[4:] + "…",
		full[5:] + `\wxyz`:                 full[5:] + `\…`,
		full[5:] + `\xyz`:                  full[5:] + `\xyz`,
		strings.Repeat(`\`, mostStatus):    strings.Repeat(`\`, mostStatus/2-2) + "…",
		strings.Repeat("\xff", mostStatus): strings.Repeat("\ufffd", mostStatus/3-1) + "…",
	} {
		if got := statusLine(text); got != want {
			t.Errorf("%.90q: %.90q", text, got)
		}
	}
}

func FuzzStatusLine(f *testing.F) {
	for _, s := range []string{"", "a\nb", "\r\n\r", "\xff\xc0\x80", "\ufffe", "\x00", strings.Repeat("\xff", mostStatus), strings.Repeat("xyz\n", mostStatus)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line := statusLine(s)
		if !utf8.ValidString(line) || strings.ContainsAny(line, "\n\r\x00") || len(line)+strings.Count(line, `\`) > mostStatus {
			t.Errorf("%q: %q", s, line)
		}
		if statusLine(line) != line {
			t.Errorf("%q: %q, and then %q", s, line, statusLine(line))
		}
	})
}
