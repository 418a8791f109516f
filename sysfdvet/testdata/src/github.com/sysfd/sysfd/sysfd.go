// Package sysfd stands for the real one: the names and types that the analyzers know.
package sysfd

import (
	"errors"
	"os"
	"syscall"
)

type (
	PidFDID     uint64
	CgroupID    uint64
	NamespaceID uint64
	MountID     uint64
)

func (id PidFDID) String() string { return "" }

type Mount struct{ ID, ReusableID MountID }

type ProcessRef struct {
	PID int
	ID  PidFDID
}

type PidFD struct{ fd int }

type PidFDInfo struct{}

type Credentials struct{ RUID, EUID uint32 }

type FileHandle struct{}

type CgroupHierarchy string

const AT_HANDLE_MNT_ID_UNIQUE = 1

var ErrNotPidFD = errors.New("not a pidfd")

func PidFDIDOf(fd int) (PidFDID, error)                        { return 0, nil }
func CgroupIDOf(fd int) (CgroupID, CgroupHierarchy, error)     { return 0, "", nil }
func MountIDOf(fd int, flags int) (MountID, error)             { return 0, nil }
func NamespaceIDOf(fd int) (NamespaceID, error)                { return 0, nil }
func OpenPidFD(pid, flags int) (*PidFD, error)                 { return nil, nil }
func OpenPidFDByID(id PidFDID) (*PidFD, error)                 { return nil, nil }
func PeerPidFD(conn syscall.Conn) (*PidFD, error)              { return nil, nil }
func PeerCredentials(conn syscall.Conn) (syscall.Ucred, error) { return syscall.Ucred{}, nil }
func NameToHandleAt(dirfd int, path string, flags int) (FileHandle, MountID, error) {
	return FileHandle{}, 0, nil
}
func (p *PidFD) File() (*os.File, error)                  { return nil, nil }
func (p *PidFD) ID() (PidFDID, error)                     { return 0, nil }
func (p *PidFD) Info(mask uint64) (PidFDInfo, error)      { return PidFDInfo{}, nil }
func (p *PidFD) SendSignal(sig syscall.Signal) error      { return nil }
func (p *PidFD) Close() error                             { return nil }
func (i PidFDInfo) Credentials() (c Credentials, ok bool) { return c, false }
func (i PidFDInfo) CgroupID() (id CgroupID, ok bool)      { return 0, false }

func (p *PidFD) Verify(f func() error) error { return f() }
