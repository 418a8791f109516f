//go:build linux

package sysfd

import (
	"errors"
	"os"
	"strconv"
	"syscall"
	"testing"
)

func TestLacksIoctl(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{
		syscall.ENOTTY: true, syscall.EINVAL: true, syscall.ENOSYS: true,
		0: false, syscall.EOPNOTSUPP: false, syscall.ESRCH: false, syscall.EBADF: false, syscall.EPERM: false,
	} {
		if got := lacksIoctl(errno); got != want {
			t.Errorf("%v: %v", errno, got)
		}
	}
}

func TestCallErrorText(t *testing.T) {
	const lacking = " (not supported by this kernel, or hidden by a sandbox, emulator or filter)"
	for want, err := range map[string]error{
		"openat x: " + syscall.ENOENT.Error():          failed("openat", "x", syscall.ENOENT),
		"waitid: " + syscall.ENOSYS.Error() + lacking:  failed("waitid", "", syscall.ENOSYS),
		"ioctl x: " + syscall.ENOTTY.Error() + lacking: failed("ioctl", "x", syscall.ENOTTY).as(errors.ErrUnsupported),
		"open y: " + syscall.ESTALE.Error():            failed("open", "y", syscall.ESTALE).as(os.ErrNotExist),
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

func TestOutOfResources(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.ENOMEM: true,
		syscall.ENOENT: false, syscall.EACCES: false, syscall.ENODEV: false, syscall.ENOSPC: false,
	} {
		for _, err := range []error{errno, failed("openat", "x", errno), &os.PathError{Op: "open", Path: "x", Err: errno}} {
			if got := outOfResources(err); got != want {
				t.Errorf("%v: %v", err, got)
			}
		}
	}
	if outOfResources(nil) {
		t.Error("of no error")
	}
}

// What quote writes is ASCII that can be printed, and no two texts look alike.
func TestQuote(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for text, want := range map[string]string{
		"":                `""`,
		"/run/a b~":       `"/run/a b~"`,
		"a\"b\\c\nd":      `"a\"b\\c\nd"`,
		"\x00\x1b[2J\x7f": `"\x00\x1b[2J\x7f"`,
		"ö\xff":           `"\xc3\xb6\xff"`,
		string(all):       "",
	} {
		got := quote(text)
		if want != "" && got != want {
			t.Errorf("%q: %s", text, got)
		}
		if back, err := strconv.Unquote(got); err != nil || back != text {
			t.Errorf("%q: %s is read as %q, %v", text, got, back, err)
		}
		for _, c := range []byte(got) {
			if c < ' ' || c > '~' {
				t.Errorf("%q: %q", text, got)
			}
		}
	}
}

func TestErrnoIn(t *testing.T) {
	for _, test := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0}, {errors.ErrUnsupported, 0}, {syscall.EIO, syscall.EIO}, {failed("call", "", syscall.EIO), syscall.EIO},
		{refused(syscall.EINVAL, "text").as(os.ErrInvalid), syscall.EINVAL}, {&os.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, syscall.EACCES},
		{&untracedError{why: failed("ptrace", "", syscall.EPERM)}, syscall.EPERM},
	} {
		if got := errnoIn(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}
