package narrowid

import (
	"fmt"
	"strconv"
	"syscall"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

func direct(id sysfd.PidFDID, c sysfd.CgroupID, n sysfd.NamespaceID, m sysfd.MountID) {
	_ = int(id)      // want `a PidFDID has 64 bits: int keeps the lower 32 on 386, arm, mips and mipsle`
	_ = uint(c)      // want `a CgroupID has 64 bits: uint keeps`
	_ = uintptr(n)   // want `a NamespaceID has 64 bits: uintptr keeps`
	_ = uint32(m)    // want `a MountID has 64 bits: uint32 keeps the lower 32, on all machines`
	_ = int32(id)    // want `int32 keeps the lower 32, on all machines`
	_ = uint16(id)   // want `uint16 loses most of them, on all machines`
	_ = float64(id)  // want `float64 rounds them, on all machines`
	_ = (int)((id))  // want `int keeps`
	var small myInt  // a type of one's own
	small = myInt(c) // want `int keeps`
	_ = small
}

type myInt int

func variables(id sysfd.PidFDID) int {
	n := uint64(id)
	m := int64(n)
	if m == 0 {
		m = int64(id)
	}
	return int(m) // want `a PidFDID has 64 bits: int keeps`
}

type process struct {
	id    uint64
	other uint64
}

func fill(p *process, id sysfd.PidFDID, x uint64) {
	p.id = uint64(id)
	p.other = uint64(id)
	p.other = x
}

func fields(p *process) (int, int) {
	return int(p.id), // want `a PidFDID has 64 bits: int keeps`
		int(p.other)
}

var global uint64

func setGlobal(fd int) {
	id, _ := sysfd.PidFDIDOf(fd)
	global = uint64(id)
}

func getGlobal() uint32 { return uint32(global) } // want `uint32 keeps`

func callee(n uint64) int { return int(n) } // want `a CgroupID has 64 bits: int keeps`

func caller(id sysfd.CgroupID) { callee(uint64(id)) }

func result(fd int) uint64 {
	id, err := sysfd.PidFDIDOf(fd)
	if err != nil {
		return 0
	}
	return uint64(id)
}

func useResult(fd int) int { return int(result(fd)) } // want `int keeps`

func closure(id sysfd.PidFDID) func() int {
	n := uint64(id)
	return func() int { return int(n) } // want `int keeps`
}

func printed(id sysfd.PidFDID) {
	fmt.Println(int(id))               // want `int keeps`
	fmt.Printf("%d\n", int32(id))      // want `int32 keeps`
	_ = strconv.Itoa(int(id))          // want `int keeps`
	fmt.Println(strconv.Itoa(int(id))) // want `int keeps`
}

func inode(pid int) {
	fd, _ := unix.PidfdOpen(pid, 0)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	_ = int(st.Ino) // want `the inode number of a pidfd has 64 bits: int keeps`
	var stx unix.Statx_t
	unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &stx)
	_ = uint32(stx.Ino) // want `the inode number of a pidfd has 64 bits: uint32 keeps`
}

func raw(pid int) int {
	fd, _, _ := unix.Syscall(unix.SYS_PIDFD_OPEN, uintptr(pid), 0, 0)
	var st syscall.Stat_t
	syscall.Fstat(int(fd), &st)
	return int(st.Ino) // want `the inode number of a pidfd`
}

func parse(s string) (sysfd.PidFDID, error) {
	n, err := strconv.Atoi(s) // want `a PidFDID has 64 bits: Atoi refuses IDs from 1<<31 on, on 386, arm, mips and mipsle`
	return sysfd.PidFDID(n), err
}

func parseUsed(s string) (sysfd.PidFDID, int) {
	n, _ := strconv.Atoi(s) // want `Atoi refuses`
	return sysfd.PidFDID(n), n
}

func parseInt(s string) (sysfd.CgroupID, error) {
	n, err := strconv.ParseInt(s, 0, 32) // want `a CgroupID has 64 bits: ParseInt with 32 bits refuses large IDs, on all machines`
	return sysfd.CgroupID(n), err
}

func parseUint(s string) sysfd.NamespaceID {
	n, _ := strconv.ParseUint(s, 10, 0) // want `a NamespaceID has 64 bits: ParseUint with the size of an int refuses large IDs on 386`
	m := n
	return sysfd.NamespaceID(m)
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 32) // want `a PidFDID has 64 bits: ParseUint with 32 bits`
	return n
}

func twice(s string) [2]sysfd.PidFDID {
	return [2]sysfd.PidFDID{sysfd.PidFDID(number(s)), sysfd.PidFDID(number(s + "0"))}
}

func order(a, b sysfd.PidFDID, c, d uint64) bool {
	if a < b { // want `a PidFDID says nothing about order`
		return true
	}
	x, y := uint64(a), uint64(b)
	return x >= y // want `a PidFDID says nothing about order`
}

type alias = sysfd.PidFDID

func viaAlias(id alias) int { return int(id) } // want `a PidFDID has 64 bits`

func generic[T ~uint64](id T) int { return int(id) } // want `a PidFDID has 64 bits`

func useGeneric(id sysfd.PidFDID) int { return generic(id) }

type box[T any] struct{ v T }

func boxed(b box[sysfd.PidFDID]) int { return int(b.v) } // want `a PidFDID has 64 bits`

func above(id sysfd.PidFDID) int {
	//nolint:otherlinter
	return int(id) // want `int keeps`
}

func shadow(uint64 string, id sysfd.PidFDID) {
	fmt.Println(int(id), uint64) // want `int keeps`
}
