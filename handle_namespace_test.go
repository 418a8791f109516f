//go:build linux

package sysfd

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestNamespaceHandle(t *testing.T) {
	f, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, _, err := NameToHandleAt(int(f.Fd()), "", AT_EMPTY_PATH)
	if errors.Is(err, errors.ErrUnsupported) && olderThan(t, "6.18") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	link, err := os.Readlink(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	id, typ, inode, ok := h.Namespace()
	if !ok || id == 0 || typ != syscall.CLONE_NEWUTS || link != fmt.Sprintf("uts:[%d]", inode) {
		t.Errorf("%v: %d, %#x, %d, %v", h, id, typ, inode, ok)
	}
	again, err := OpenByHandleAt(FD_NSFS_ROOT, h, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	was, _ := f.Stat()
	if is, err := again.Stat(); err != nil || !os.SameFile(was, is) {
		t.Errorf("%v, %v", is, err)
	}
	if _, _, _, ok := PidFDHandle(1).Namespace(); ok {
		t.Error("a pidfd is a namespace")
	}
}
