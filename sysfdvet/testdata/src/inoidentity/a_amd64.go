package inoidentity

import "golang.org/x/sys/unix"

func wide(pid int) uint64 {
	fd, _ := unix.PidfdOpen(pid, 0)
	var st unix.Stat_t
	unix.Fstat(fd, &st)
	return st.Ino // want `st_ino of a pidfd is before Linux 6.9 the same for all pidfds`
}

func proven(pid int) uint64 {
	fd, _ := unix.PidfdOpen(pid, 0)
	var fs unix.Statfs_t
	unix.Fstatfs(fd, &fs)
	if fs.Type != unix.PID_FS_MAGIC {
		return 0
	}
	var st unix.Stat_t
	unix.Fstat(fd, &st)
	return st.Ino
}

func wideCgroup(cgroupPath string) uint64 {
	var st unix.Stat_t
	unix.Stat(cgroupPath, &st)
	return st.Ino
}
