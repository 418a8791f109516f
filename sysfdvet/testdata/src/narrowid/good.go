package narrowid

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"sort"
	"strconv"

	"github.com/sysfd/sysfd"
	"golang.org/x/sys/unix"
)

func whole(id sysfd.PidFDID) {
	_ = uint64(id)
	_ = int64(id)
	fmt.Println(uint64(id), id)
	_ = strconv.FormatUint(uint64(id), 10)
	const c = sysfd.PidFDID(7)
	_ = int(c)
}

func halves(id sysfd.PidFDID) (lo, hi uint32) { return uint32(id), uint32(id >> 32) }

func halvesOfVariable(id sysfd.PidFDID) [2]uint32 {
	n := uint64(id)
	return [2]uint32{uint32(n), uint32(n >> 32)}
}

func bucket(id sysfd.PidFDID, n int) int { return int(id) % n }

func masked(id sysfd.PidFDID) uint32 { return uint32(id) & 0xff }

func hashed(id sysfd.PidFDID, seed maphash.Seed) uint32 { return uint32(maphash.Comparable(seed, id)) }

func mixed(id sysfd.PidFDID, other uint64, which bool) int {
	n := other
	if which {
		n = uint64(id)
	}
	return int(n) // may be anything
}

func constants(id sysfd.PidFDID) bool { return id > 0 && id < 1<<40 }

func sorted(ids []sysfd.PidFDID) {
	sort.Slice(ids, func(i, j int) bool { return ids[i] < ids[j] })
	slices.SortFunc(ids, func(a, b sysfd.PidFDID) int {
		if a < b {
			return -1
		}
		return cmp.Compare(a, b)
	})
}

type byID []sysfd.PidFDID

func (s byID) Less(i, j int) bool { return s[i] < s[j] }

func mounts(m sysfd.Mount, fd int) {
	_ = int(m.ReusableID)
	id, _ := sysfd.MountIDOf(fd, 0)
	_ = int(id)
}

func counted(a, b sysfd.MountID) bool { return a < b }

func file(path string) int {
	var st unix.Stat_t
	unix.Stat(path, &st)
	return int(st.Ino) // of a file: not what this is about
}

func parse64(s string) (sysfd.PidFDID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	return sysfd.PidFDID(n), err
}

func known(id sysfd.PidFDID) int {
	_ = int(id) //nolint:narrowid // a test bed with few processes
	_ = int(id) //nolint
	_ = int(id) //nolint: errcheck, sysfdvet
	//lint:ignore narrowid a test bed
	_ = int(id)
	//nolint:narrowid
	return int(id)
}

// Names of one's own that look like the others.
func shadowed(unix struct{ Ino uint64 }, strconv func(string) int) int {
	return int(unix.Ino) + strconv("")
}

func unknown(p *process) int { return int(p.extra()) }

func (p *process) extra() uint64 { return p.other }

func mountinfo(s string) sysfd.MountID {
	n, _ := strconv.ParseUint(s, 10, 31)
	return sysfd.MountID(n)
}
