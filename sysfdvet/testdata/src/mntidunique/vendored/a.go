package vendored

import unix2 "golang.org/x/sys/unix"

func bad(path string) {
	unix2.NameToHandleAt(unix2.AT_FDCWD, path, unix2.AT_HANDLE_MNT_ID_UNIQUE) // want `makes the kernel write 8 bytes over the 4`
}
