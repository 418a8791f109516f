//go:build linux

package sysfd

import (
	"strconv"
)

// A NamespaceID names a namespace: a 64-bit number that the kernel does not use
// again until the next boot.
type NamespaceID uint64

// String returns the ID in decimal.
func (id NamespaceID) String() string { return strconv.FormatUint(uint64(id), 10) }

// Namespace returns what is in the handle of a namespace: its ID, its type (one of
// CLONE_NEW*, such as [syscall.CLONE_NEWNET]) and the inode number of its file in
// /proc/PID/ns. It returns false if h is not of type [FILEID_NSFS].
//
// The kernel makes these handles since Linux 6.18 (struct nsfs_file_handle).
func (h FileHandle) Namespace() (id NamespaceID, typ, inode uint32, ok bool) {
	if h.h.HandleType != FILEID_NSFS || h.h.HandleBytes < 16 {
		return 0, 0, 0, false
	}
	n := nsfs(h.h.FHandle[:16])
	return NamespaceID(n.NSID), n.NSType, n.NSInum, true
}
