//go:build linux

package sysfd

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestParseMount(t *testing.T) {
	for line, want := range map[string]mount{
		`36 35 98:1 /mnt1 /mnt/with\040space\134 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue`: {36, 35, 98<<8 | 1, "/mnt1", `/mnt/with space\`, false, "ext3", "/dev/root"},
		"40 36 0:35 / /proc ro,noexec - proc proc rw":                                                              {40, 36, 35, "/", "/proc", true, "proc", "proc"},
		"40 36 0:35 / /disk rw,noexec - ext4 /dev/sda ro,discard":                                                  {40, 36, 35, "/", "/disk", true, "ext4", "/dev/sda"},
		`42 36 0:36 / /short\04 rw -`:                                                                              {42, 36, 36, "/", `/short\04`, false, "", ""},
		`42 36 0:300 / /s rw - fuse.ssh\040fs a\043b\011c rw`:                                                      {42, 36, 1<<20 | 44, "/", "/s", false, "fuse.ssh fs", "a#b\tc"},
		"42 36 0:36 / /empty rw shared:1 - tmpfs  rw":                                                              {42, 36, 36, "/", "/empty", false, "tmpfs", ""},
		"42 36 0:36 / /old rw":                                                                                     {42, 36, 36, "/", "/old", false, "", ""},
		"":                                                                                                         {},
		"41 36":                                                                                                    {},
		"41 36 0:36 / /cut":                                                                                        {},
		"x 36 0:35 / /bad rw - proc proc rw":                                                                       {},
		"41 x 0:35 / /bad rw - proc proc rw":                                                                       {},
		"41 36 0-35 / /bad rw - proc proc rw":                                                                      {},
		"2147483648 36 0:35 / /b rw - proc p rw":                                                                   {},
		"41 36 4294967296:35 / /bad rw - p p rw":                                                                   {},
	} {
		if m, ok := parseMount(line); m != want || ok != (want != mount{}) {
			t.Errorf("%q: %+v, %v", line, m, ok)
		}
	}
}

func FuzzParseMount(f *testing.F) {
	f.Add(`36 35 98:0 /mnt1 /mnt/with\040space rw master:1 - ext3 /dev/root rw`)
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := parseMount(line)
		if !ok && m != (mount{}) || MountID(m.id).Unique() || MountID(m.parent).Unique() || ok && m.point == "" && !strings.Contains(line, "  ") {
			t.Errorf("%q: %+v", line, m)
		}
	})
}

// mountinfoOf is a mountinfo with a text of one's own.
func mountinfoOf(t testing.TB, text string) *mountinfo {
	t.Helper()
	name := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := openat(AT_FDCWD, name, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	info := &mountinfo{fd: fd}
	t.Cleanup(info.close)
	return info
}

func TestMountinfo(t *testing.T) {
	long := strings.Repeat("/name", 10_000)
	text := "1 0 0:1 / / rw - tmpfs a rw\nnonsense\n\n2 1 0:1 / " + long + " rw - tmpfs b rw\n" + strings.Repeat("3 1 0:1 / /c rw - tmpfs c rw\n", 1000) + "4 1 0:1 / /d rw - tmpfs d rw"
	info := mountinfoOf(t, text)
	for range 2 { // from the first one on
		sources := map[string]int{}
		if err := info.each(func(m mount) bool {
			if sources[m.source]++; m.source == "b" && m.point != long {
				t.Errorf("%d bytes", len(m.point))
			}
			return true
		}); err != nil || !maps.Equal(sources, map[string]int{"a": 1, "b": 1, "c": 1000, "d": 1}) {
			t.Errorf("%v, %v", sources, err)
		}
		n := 0
		if err := info.each(func(mount) bool { n++; return n < 3 }); err != nil || n != 3 {
			t.Errorf("%d, %v", n, err)
		}
	}
	matches(t, mountinfoOf(t, strings.Repeat("x", 2<<20)).each(func(mount) bool { return true }), syscall.EOVERFLOW)
	if (*mountinfo)(nil).changed() {
		t.Error("what is not open has changed")
	}
}

func TestParseFdinfoPIDs(t *testing.T) {
	for _, test := range []struct {
		text, key string
		want      []int
	}{
		{"pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t2051\nPid:\t4711\nNSpid:\t4711\t1\n", "Pid:", []int{4711}},
		{"pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t2051\nPid:\t4711\nNSpid:\t4711\t12\t1\n", "NSpid:", []int{4711, 12, 1}},
		{"Pid:\t0\nNSpid:\t0\n", "Pid:", []int{0}},
		{"Pid:\t0\nNSpid:\t0\n", "NSpid:", []int{0}},
		{"Pid:\t-1\nNSpid:\t-1\n", "Pid:", []int{-1}},
		{"Pid:\t-1\nNSpid:\t-1\n", "NSpid:", []int{-1}},
		{"NSpid:\t4711\n", "Pid:", nil},
		{"Pid:\t4711\n", "NSpid:", nil},
		{"pos:\t0\n", "Pid:", nil},
		{"", "Pid:", nil},
		{"Pid:", "Pid:", nil},
		{"Pid:\tx\n", "Pid:", nil},
		{"Pid:\t-2\n", "Pid:", nil},
		{"Pid:\t4294967297\n", "Pid:", nil},
		{"NSpid:\t4711\t0\n", "NSpid:", nil},
		{"NSpid:\t0\t1\n", "NSpid:", nil},
		{"NSpid:\t-1\t-1\n", "NSpid:", nil},
		{"NSpid:\t1\tx\n", "NSpid:", nil},
	} {
		if got := parseFdinfoPIDs(test.text, test.key); !slices.Equal(got, test.want) {
			t.Errorf("%s %q: %d, want %d", test.key, test.text, got, test.want)
		}
	}
}

func FuzzParseFdinfoPIDs(f *testing.F) {
	f.Add("pos:\t0\nPid:\t4711\nNSpid:\t4711\t1\n", true)
	f.Add("Pid:\t-1\nNSpid:\t-1\n", false)
	f.Fuzz(func(t *testing.T, text string, inner bool) {
		key := map[bool]string{true: "NSpid:", false: "Pid:"}[inner]
		pids := parseFdinfoPIDs(text, key)
		for _, pid := range pids {
			if pid < -1 || pid > 1<<31-1 || pid <= 0 && len(pids) > 1 || !strings.Contains(text, key) {
				t.Errorf("%q: %d", text, pids)
			}
		}
	})
}

func TestParseStartTime(t *testing.T) {
	const fields = " S 1 4711 4711 0 -1 4194560 122 507 0 49 1181 9289 1489 489 20 0 1 0 "
	for _, test := range []struct {
		text  string
		shift int64
		want  uint64
	}{
		{"4711 (sleep)" + fields + "82015 22974464 1489\n", 0, 82015},
		{"4711 (sleep)" + fields + "82015", 0, 82015},
		{"4711 ()" + fields + "1 2\n", 0, 1},
		{"4711 (a) b (c)" + fields + "82015 1\n", 0, 82015},
		{"4711 () R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 (x)" + fields + "82015 1\n", 0, 82015},
		{"4711 (a\nb\tc)" + fields + "82015 1\n", 0, 82015},
		{"4711 (sleep)" + fields + "922337203684 1\n", 0, 922337203684},
		{"4711 (sleep)" + fields + "82015 1\n", 82014, 1},
		{"4711 (sleep)" + fields + "82015 1\n", -100_000, 182015},
		{"4711 (sleep)" + fields + "82015 1\n", 82015, 0},
		{"4711 (sleep)" + fields + "82015 1\n", 82016, 0},
		{"4711 (sleep)" + fields + "0 1\n", 0, 0},
		{"4711 (sleep)" + fields + "922337203685 1\n", 0, 0},
		{"4711 (sleep)" + fields + "1844673407395 1\n", -1_000_000, 0}, // process 1, 10,000 seconds before the boot
		{"4711 (sleep)" + fields + "18446744073709551616 1\n", 0, 0},
		{"4711 (sleep)" + fields + "-1 1\n", 0, 0},
		{"4711 (sleep)" + fields, 0, 0},
		{"4711 sleep" + fields + "82015 1\n", 0, 0},
		{"4711 (sleep)", 0, 0},
		{"", 0, 0},
	} {
		got, ok := parseStartTime(test.text, test.shift)
		if ok != (test.want != 0) || ok && got != test.want {
			t.Errorf("%q, %d: %d, %v; want %d", test.text, test.shift, got, ok, test.want)
		}
	}
}

func FuzzParseStartTime(f *testing.F) {
	f.Add("sleep", uint64(82015), int64(0))
	f.Add(") R 1 (", uint64(82015), int64(-100))
	f.Add("\n", uint64(1<<64-1), int64(1))
	f.Fuzz(func(t *testing.T, name string, start uint64, shift int64) {
		if shift > 1<<40 || shift < -1<<40 {
			return
		}
		got, ok := parseStartTime("4711 ("+name+") S"+strings.Repeat(" 0", 18)+" "+strconv.FormatUint(start, 10)+" 0\n", shift)
		want := int64(start) - shift
		if ok && (got == 0 || int64(got) != want) || !ok && start < 1<<39 && want > 0 {
			t.Errorf("%q, %d, %d: %d, %v", name, start, shift, got, ok)
		}
	})
}

func TestParseTimeOffset(t *testing.T) {
	for text, want := range map[string]int64{
		"monotonic           0         0\nboottime            0         0\n": 0,
		"monotonic           1         0\nboottime       100000         0\n": 10_000_000,
		"monotonic           1         0\nboottime       -10000         0\n": -1_000_000,
		"monotonic           1         0\nboottime           -1 990000000\n": -1,
		"monotonic           1         0\nboottime            1  10000000\n": 101,
		"monotonic           1         0\nboottime   4611686018         0\n": 461_168_601_800,
		"monotonic           1         0\nboottime            1   5000000\n": -1 << 63, // half a tick
		"monotonic           1         0\nboottime            1         1\n": -1 << 63,
		"monotonic           1         0\n":                                  -1 << 63,
		"boottime            1\n":                                            -1 << 63,
		"boottime            x         0\n":                                  -1 << 63,
		"boottime            1         x\n":                                  -1 << 63,
		"boottime 9223372036854775807 0\n":                                   -1 << 63,
		"":                                                                   -1 << 63,
	} {
		if got, ok := parseTimeOffset(text); ok != (want != -1<<63) || ok && got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, ok, want)
		}
	}
}

const someBoot = "e4852dac-db69-430a-8f3f-f227f27ae0a2"

func bootID(t testing.TB, text string) BootID {
	t.Helper()
	b, err := ParseBootID(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBootID(t *testing.T) {
	b := bootID(t, someBoot)
	if b[0] != 0xe4 || b[4] != 0xdb || b[15] != 0xa2 || b.String() != someBoot {
		t.Errorf("%x, %v", b[:], b)
	}
	testText(t, ParseBootID, map[string]BootID{"": {}, someBoot: b, "00000000-0000-0000-0000-000000000001": {15: 1}})
	testBinary(t, map[BootID]int{{}: 0, b: 16, {15: 1}: 16})
	for _, n := range []int{1, 15, 16, 17, 32} { // zeros
		matches(t, new(BootID).UnmarshalBinary(make([]byte, n)), syscall.EINVAL)
	}
	plain := strings.ReplaceAll(someBoot, "-", "")
	if bootID(t, plain) != b {
		t.Errorf("%s: %v", plain, bootID(t, plain))
	}
	for _, bad := range []string{
		"0", strings.Repeat("0", 32), "00000000-0000-0000-0000-000000000000", strings.ToUpper(plain), strings.ToUpper(someBoot), plain[1:], plain + "0", someBoot + "\n", " " + plain[1:], "g" + plain[1:], someBoot[:35] + "-", someBoot[:8] + someBoot[9:],
		"{" + someBoot + "}", someBoot[:8] + "0" + someBoot[9:], plain[:4] + "-" + plain[4:8] + "--" + plain[8:31] + "-",
	} {
		_, err := ParseBootID(bad)
		matches(t, err, syscall.EINVAL)
		if err != nil && !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("%v does not name %q", err, bad)
		}
	}
}

// What stands in the place of the kernel's file in a container is a boot ID, or not known.
func TestReadBootID(t *testing.T) {
	name := filepath.Join(t.TempDir(), "boot_id")
	_, err := readBootID(name)
	matches(t, err, errors.ErrUnsupported, syscall.ENOENT, os.ErrNotExist)
	_, err = readBootID(os.Args[0] + "/boot_id")
	matches(t, err, errors.ErrUnsupported, syscall.ENOTDIR)
	for text, want := range map[string]string{
		someBoot + "\n": someBoot, someBoot: someBoot, strings.ToUpper(someBoot) + "\n": someBoot,
		strings.ReplaceAll(someBoot, "-", ""): someBoot,
		"":                                    "", "\n": "", "00000000-0000-0000-0000-000000000000\n": "", "none\n": "", someBoot + "\n\n": "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := readBootID(name)
		if b.String() != want || (err == nil) != (want != "") {
			t.Errorf("%q: %v, %v", text, b, err)
		}
		if err != nil {
			matches(t, err, errors.ErrUnsupported, syscall.EINVAL)
		}
	}
}

func TestThisBootID(t *testing.T) {
	keepsDescriptors(t)
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ThisBootID()
	if err != nil || b.String()+"\n" != string(text) || b == (BootID{}) {
		t.Errorf("%v, %v; want %s", b, err, text)
	}
}
