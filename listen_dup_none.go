//go:build !unix && !plan9

package sysfd

import (
	"errors"
	"syscall"
)

func dupConn(syscall.Conn) (int, error) { return -1, errors.ErrUnsupported }
