//go:build linux

package bench

import (
	"os"
	"testing"
	"unsafe"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

// A fileHandle is the struct file_handle of the kernel with the largest room.
type fileHandle struct {
	bytes uint32
	kind  int32
	data  [sysfd.MAX_HANDLE_SZ]byte
}

// fileToHandle makes a file that has a handle, and one that it opens by if there is one here. Otherwise
// cannot says why not.
func fileToHandle(t testing.TB) (file *os.File, h sysfd.FileHandle, cannot error) {
	t.Helper()
	for _, dir := range []string{t.TempDir(), "/dev/shm"} {
		f, err := os.CreateTemp(dir, "sysfd-bench")
		if err != nil {
			continue
		}
		t.Cleanup(func() { f.Close(); os.Remove(f.Name()) })
		fd := int(descriptorOf(t, f))
		of, _, err := sysfd.NameToHandleAt(fd, "", sysfd.AT_EMPTY_PATH)
		if err != nil {
			continue
		}
		file, h = f, of
		opened, err := sysfd.OpenByHandleAt(fd, h, os.O_RDONLY)
		if err == nil {
			opened.Close()
			return file, h, nil
		}
		cannot = err
	}
	if file == nil {
		t.Skip("no file here has a handle")
	}
	return file, h, cannot
}

func handlePairs(t testing.TB) []*pair {
	t.Helper()
	file, h, cannot := fileToHandle(t)
	name, fd := file.Name(), int(descriptorOf(t, file))
	xh := unix.NewFileHandle(h.Type(), h.Bytes())

	// Arguments that stay where they are.
	args := &struct {
		room, handle fileHandle
		mount        uint64
		path         [4096]byte
		empty        byte
	}{}
	t.Cleanup(func() { args = nil })
	copy(args.path[:], name)
	args.handle.bytes, args.handle.kind = uint32(h.Len()), h.Type()
	copy(args.handle.data[:], h.Bytes())
	at := func(p unsafe.Pointer) uintptr { return uintptr(p) }
	room, handle, mount := at(unsafe.Pointer(&args.room)), at(unsafe.Pointer(&args.handle)), at(unsafe.Pointer(&args.mount))
	path, empty := at(unsafe.Pointer(&args.path)), at(unsafe.Pointer(&args.empty))
	atFDCWD := uintptr(sysfd.AT_FDCWD & (1<<32 - 1))
	handleOf := func(dirfd, path, flags uintptr) error {
		args.room.bytes = sysfd.MAX_HANDLE_SZ
		_, err := call(unix.SYS_NAME_TO_HANDLE_AT, dirfd, path, room, mount, flags)
		return err
	}
	pairs := []*pair{
		{name: "NameToHandleAt of a path", ratio: 1.08, calls: 1,
			op:   func() error { _, _, err := sysfd.NameToHandleAt(sysfd.AT_FDCWD, name, 0); return err },
			bare: func() error { return handleOf(atFDCWD, path, 0) },
			peers: []peer{
				{"unix.NameToHandleAt", func() error { _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, name, 0); return err }},
			}},
		{name: "NameToHandleAt of a descriptor", ratio: 1.08, calls: 1,
			op:   func() error { _, _, err := sysfd.NameToHandleAt(fd, "", sysfd.AT_EMPTY_PATH); return err },
			bare: func() error { return handleOf(uintptr(fd), empty, sysfd.AT_EMPTY_PATH) },
			peers: []peer{
				{"unix.NameToHandleAt", func() error { _, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH); return err }},
			}},
		{name: "OpenByHandleAt and Close", ratio: 1.4, allocs: 3, calls: 3,
			op: func() error {
				f, err := sysfd.OpenByHandleAt(fd, h, os.O_RDONLY)
				if err != nil {
					return err
				}
				return f.Close()
			},
			bare: func() error { return closing(call(unix.SYS_OPEN_BY_HANDLE_AT, uintptr(fd), handle, unix.O_CLOEXEC)) },
			peers: []peer{
				{"unix.OpenByHandleAt", func() error {
					opened, err := unix.OpenByHandleAt(fd, xh, unix.O_CLOEXEC)
					if err != nil {
						return err
					}
					return unix.Close(opened)
				}},
				{"os.Open", func() error { // by its path
					f, err := os.Open(name)
					if err != nil {
						return err
					}
					return f.Close()
				}},
			}},
	}
	if cannot != nil {
		t.Log("without OpenByHandleAt: ", cannot)
		pairs = pairs[:2]
	}
	return pairs
}
