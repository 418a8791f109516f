package mntidunique

import (
	"unsafe"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

func bad(path string, more bool, flags int) {
	unix.NameToHandleAt(unix.AT_FDCWD, path, unix.AT_HANDLE_MNT_ID_UNIQUE)                    // want `makes the kernel write 8 bytes over the 4`
	unix.NameToHandleAt(unix.AT_FDCWD, path, unix.AT_EMPTY_PATH|unix.AT_HANDLE_MNT_ID_UNIQUE) // want `makes the kernel write 8 bytes`
	f := unix.AT_EMPTY_PATH
	if more {
		f |= unix.AT_HANDLE_MNT_ID_UNIQUE
	}
	unix.NameToHandleAt(unix.AT_FDCWD, path, f)                                   // want `makes the kernel write 8 bytes`
	unix.NameToHandleAt(unix.AT_FDCWD, path, flags|sysfd.AT_HANDLE_MNT_ID_UNIQUE) // want `makes the kernel write 8 bytes`
	call := unix.NameToHandleAt
	call(unix.AT_FDCWD, path, 1) // want `makes the kernel write 8 bytes`
}

func raw(fd int, path *byte, handle unsafe.Pointer) {
	var mount int32
	unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(fd), uintptr(unsafe.Pointer(path)), uintptr(handle), uintptr(unsafe.Pointer(&mount)), unix.AT_HANDLE_MNT_ID_UNIQUE, 0) // want `and this variable has 4`
	var unique uint64
	unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(fd), uintptr(unsafe.Pointer(path)), uintptr(handle), uintptr(unsafe.Pointer(&unique)), unix.AT_HANDLE_MNT_ID_UNIQUE, 0)
	unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(fd), uintptr(unsafe.Pointer(path)), uintptr(handle), uintptr(unsafe.Pointer(&mount)), 0, 0)
}

func good(path string, flags int) {
	unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	unix.NameToHandleAt(unix.AT_FDCWD, path, unix.AT_EMPTY_PATH)
	unix.NameToHandleAt(unix.AT_FDCWD, path, flags)
	unix.NameToHandleAt(unix.AT_FDCWD, path, flags&^unix.AT_HANDLE_MNT_ID_UNIQUE)
	sysfd.NameToHandleAt(unix.AT_FDCWD, path, sysfd.AT_HANDLE_MNT_ID_UNIQUE)
}
