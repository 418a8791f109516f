package errnocompare

import "github.com/sysfd/sysfd"
import "syscall"

func noImport(fd int) bool {
	_, err := sysfd.PidFDIDOf(fd)
	return err == syscall.EBADF // want `never syscall.EBADF itself`
}

func shadowed(fd int) bool {
	errors := 0
	_, err := sysfd.PidFDIDOf(fd)
	return err == syscall.EBADF && errors == 0 // want `never syscall.EBADF itself`
}
