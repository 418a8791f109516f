// Package sysfd names files, processes and the addressee of passed sockets so
// that the name cannot come to mean something else.
//
// A path, a PID and $LISTEN_PID are names that are used again: the path for
// another file after a rename, the PID for another process once the numbers have
// gone round. The Linux kernel has better ones:
//
//   - For a file, a [FileHandle]. [NameToHandleAt] gives it, [OpenByHandleAt]
//     opens the file again, wherever it was moved to. A [FileRef] is one that is good
//     after a reboot, too.
//   - For a process, a [PidFDID]: the inode number of its pidfds, the descriptors
//     that refer to a process. It has 64 bits and is not used again until the next
//     boot. [OpenPidFD] and [PidFD.ID] give it, [OpenPidFDByID] finds the process. A
//     [ProcessRef] is one for storing. Kernels before Linux 6.9 have no such IDs: for them there is a
//     second best, [PidFD.RefOrSecondBest].
//   - For a namespace, a [NamespaceID], or the [FileHandle] that holds it: [NamespaceIDOf] gives it,
//     [OpenNamespace] opens the namespace, [Namespaces] lists them.
//   - For passed sockets, $LISTEN_PIDFDID: the pidfd ID of the process they are
//     meant for. [ListenFDs] takes them, and package activation makes listeners of them;
//     [ExecListenFDs] and [StartListenFDs] pass them on. [Notify] tells the service manager how
//     things are, and [ListenNotify] is the manager's end.
//
// What ties them together is that a pidfd ID is the first 64 bits of the file
// handle of a pidfd. On a 32-bit kernel the inode number that fstat(2) returns
// has just the low half of it; the handle has it all.
//
// A [PidFD] is what acts on a process: it sends signals, tells what the kernel knows,
// and waits. [PidFD.Wait] and a [WaitSet] of thousands take no thread, and also tell how a
// process ended that is not a child. A process is not its rights, which change while the
// pidfd stays the same: what the peer of a socket may do is decided by [PeerCredentials].
//
// # Names
//
// XOf(fd) borrows a descriptor and returns what it knows of it: [PidFDIDOf], [CgroupIDOf],
// [FileSystemIDOf]. XAt(dirfd, path, flags) names a file by its path: [NameToHandleAt],
// [CgroupIDAt], [FileRefAt]. Open… and Start… return an owner, Take… takes ownership of what exists,
// Parse… reads text, Notify… speaks to the service manager, a [Notifier] to one of one's own choice. IDs of 64 bits are types of
// their own: [PidFDID], [CgroupID], [NamespaceID], [MountID]. Names for storing have one text
// each, which String writes, Parse… reads, and JSON, flags and map keys use: [FileHandle],
// [FileSystemID], [FileRef], [BootID], [ProcessRef].
//
// Three functions return an owner under another name. PidFDOf (Go 1.26) and [PeerPidFD] are
// named after what they borrow, an [os.Process] and a connection; neither is opened by a
// name of its own. [NewPidFD] wraps a descriptor, as [os.NewFile] does. [SelfRef] and
// [ThisBootID] are about the caller. …OrSecondBest returns what is exact where the kernel has that,
// and otherwise the second best, which is no proof.
//
// # Levels
//
// Functions that take a descriptor as an int borrow it. They are thin: the system
// call, with Go types and with no allocation if it succeeds. What the package
// creates is close-on-exec and comes with an owner, a [*PidFD] or an [*os.File].
//
// # Errors
//
// Errors unwrap to the errno, and for system calls to an [*os.SyscallError] too.
// What the kernel lacks matches [errors.ErrUnsupported], whichever errno it chose.
// EPERM is never among those: what a seccomp filter or a missing capability
// forbids is not an old kernel. ESRCH and its like match [os.ErrProcessDone].
//
// # Kernels
//
// The documentation says which kernel version brought what; a [Feature] tells it to a
// program. The code does not compare versions, for vendors backport: it calls and looks at
// the answer. Nothing is tried before it is asked for; the import does nothing.
//
// # Other systems
//
// The package is for Linux, on every architecture that Go supports there. Elsewhere it has
// what the main function of a daemon uses, so that this needs no build tags:
//
//   - [ListenFDs], [TakeListenFDs], [TakeListenFDsFunc] and [InspectListenEnv] tell that nothing
//     was passed. [ListenShim] does nothing.
//   - [Notify], [NotifyFiles], [NotifyReloading], [NotifyStoreFDs], [NotifyRemoveStoredFDs] and
//     [NotifyBarrier] send nothing, and have an error only for assignments and names that
//     are wrong on Linux, too. The constants and functions that make assignments, and [ValidFDName], are the
//     same. [WatchdogInterval] is 0.
//   - [ExecListenFDs] and the functions Is… of a passed file fail with an error that matches
//     [errors.ErrUnsupported].
//   - [DupFile] works on Unix systems.
//
// On Plan 9, which has no errno, there are [ListenFDs] and [TakeListenFDs] alone.
package sysfd
