// Package unix stands for the real one: the names and types that the analyzers know.
package unix

import "syscall"

type (
	Stat_t     = syscall.Stat_t
	Errno      = syscall.Errno
	WaitStatus uint32
	Rusage     struct{}
	Siginfo    struct{}
	FileHandle struct{}
	Ucred      struct{ Uid uint32 }
	PidfdInfo  struct {
		Mask, Cgroupid uint64
		Pid            uint32
		Ruid, Euid     uint32
	}
	Statx_t struct {
		Ino                  uint64
		Dev_major, Dev_minor uint32
	}
)

const (
	AT_EMPTY_PATH           = 0x1000
	AT_FDCWD                = -100
	AT_HANDLE_MNT_ID_UNIQUE = 1
	ESRCH                   = syscall.ESRCH
	ENODATA                 = syscall.ENODATA
	P_ALL                   = 0
	P_PIDFD                 = 3
	PID_FS_MAGIC            = 0x50494446
	SOL_SOCKET              = 1
	SO_PEERPIDFD            = 77
	SO_PEERCRED             = 17
	SYS_NAME_TO_HANDLE_AT   = 303
	SYS_PIDFD_OPEN          = 434
	WEXITED                 = 4
	WNOHANG                 = 1
	WNOWAIT                 = 0x1000000
)

type Statfs_t struct{ Type int64 }

func Accept4(fd int, flags int) (nfd int, err error)                                          { return }
func Fcntl(fd, cmd, arg int) (int, error)                                                     { return 0, nil }
func Fstat(fd int, st *Stat_t) error                                                          { return nil }
func Fstatfs(fd int, st *Statfs_t) error                                                      { return nil }
func Getpid() int                                                                             { return 0 }
func GetsockoptInt(fd, level, opt int) (int, error)                                           { return 0, nil }
func GetsockoptUcred(fd, level, opt int) (*Ucred, error)                                      { return nil, nil }
func IoctlPidfdInfo(fd int, info *PidfdInfo) error                                            { return nil }
func Kill(pid int, sig syscall.Signal) error                                                  { return nil }
func NameToHandleAt(dirfd int, path string, flags int) (h FileHandle, mountID int, err error) { return }
func Open(path string, mode int, perm uint32) (int, error)                                    { return 0, nil }
func PidfdOpen(pid, flags int) (int, error)                                                   { return 0, nil }
func SetNonblock(fd int, on bool) error                                                       { return nil }
func Stat(path string, st *Stat_t) error                                                      { return nil }
func Statx(dirfd int, path string, flags, mask int, st *Statx_t) error                        { return nil }
func Syscall(trap, a1, a2, a3 uintptr) (r1, r2 uintptr, err Errno)                            { return }
func Syscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, err Errno)               { return }
func Wait4(pid int, status *WaitStatus, options int, rusage *Rusage) (int, error)             { return 0, nil }
func Waitid(idType, id int, info *Siginfo, options int, rusage *Rusage) error                 { return nil }
