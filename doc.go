// Package sysfd kills, waits for, authenticates and hands sockets to processes without PID races,
// and remembers files across renames and reboots.
//
// A path, a PID and $LISTEN_PID are names that are used again: the path for another file after a
// rename, the PID for another process once the process has ended. A program that stored the name
// then opens, signals or trusts something else. The Linux kernel has names that are not used again.
// This package gives Go programs these names, and the operations on what they name. It uses no cgo.
//
// The next five sections are its five tasks. Whole programs for them are among the examples below;
// the one that takes sockets is in package [github.com/sysfd/sysfd/activation].
//
// # Killing a process, and nothing else
//
// A [PidFD] owns a pidfd: a descriptor that refers to one process, even after its PID belongs to
// another one. [StartProcess], [OpenPidFD] and PidFDOf (Go 1.26) return one. [PidFD.SendSignal]
// sends a signal, [PidFD.Stop] ends a process and waits for it, and [PidFD.Info] returns what the
// kernel knows about it.
//
// A pidfd cannot be written to a file; a [ProcessRef] can. [PidFD.Ref] and [SelfRef] return one,
// and [ProcessRef.Open] opens the same process again, or fails. The ProcessRef in a PID file cannot
// come to mean another process. It contains a [PidFDID], 64 bits that the kernel does not use again
// until the next boot. For kernels before Linux 6.9, which have none, [PidFD.RefOrSecondBest] uses
// the start time instead.
//
// # Waiting for processes
//
// [PidFD.Wait] waits for a process until a context is done. It parks a goroutine and holds no
// thread, and reports how the process ended, even one that is not a child (Linux 6.15). A [WaitSet]
// waits for thousands in one goroutine.
//
// A process that has ended is a zombie, which keeps its PID, until its parent waits for it and so
// reaps it. Wait and [PidFD.Stop] reap a child. A process whose parent has ended is adopted by
// process 1 or a subreaper, which has to reap it: that is what [ReapOrphans] does.
//
// # Knowing who is at the other end of a socket
//
// [PeerCredentials] returns the user, group and PID that the kernel recorded when a Unix socket was
// connected: decide by these what the peer may do. [PeerPidFD] returns a pidfd of the same process,
// which shows its cgroup and whether it still runs. The pidfd is not an authorization, because a
// process can gain or lose rights while its pidfd stays the same. [TakePeerPidFD] does the same for
// the sender of a message.
//
// # Taking and passing sockets
//
// [ListenFDs] returns the sockets that systemd or another service manager passed to this process
// (socket activation). It compares $LISTEN_PIDFDID, which systemd sets since version 259, so that
// it does not take sockets meant for another process. Package [github.com/sysfd/sysfd/activation]
// makes listeners of them. [StartListenFDs] and [ExecListenFDs] pass sockets on, and package
// [github.com/sysfd/sysfd/listenexec] does so for an os/exec.Cmd.
//
// [Notify] reports the state of the service to the service manager, and a [Notifier] does so
// independently of the environment, with a watchdog. [ListenNotify] is the manager's end.
//
// # Remembering a file
//
// A [FileRef] names a file across renames and reboots: [FileRefAt] returns it, and [FileRef.Open]
// opens the file again, wherever it was moved to. It consists of a [FileSystemID] and a
// [FileHandle]; [NameToHandleAt] and [OpenByHandleAt] are the system calls. Namespaces, cgroups and
// mounts have names of this kind too: [NamespaceID], [CgroupID] and [MountID].
//
// # Names
//
// The name of a function says what it does with a descriptor:
//   - XOf(fd) borrows a descriptor and returns what it knows about it: [PidFDIDOf], [CgroupIDOf],
//     [FileSystemIDOf].
//   - XAt(dirfd, path, flags) names a file by its path: [NameToHandleAt], [CgroupIDAt],
//     [FileRefAt].
//   - Open… and Start… return an owner, Take… takes ownership of what exists, and New… wraps what
//     is given. PidFDOf and [PeerPidFD] return an owner as well.
//   - Parse… reads text, and is the exact reverse of String for [FileHandle], [FileSystemID],
//     [FileRef], [BootID] and [ProcessRef]. JSON, flags and map keys use the same text.
//   - Notify… sends to the service manager.
//   - …OrSecondBest returns what is exact where the kernel has that, and otherwise the second best,
//     which is no proof.
//
// Constants in capitals are those of the kernel. Their types, such as PidFDInfoMask, are aliases of
// plain integers, so that a number from elsewhere, such as golang.org/x/sys/unix, needs no
// conversion. Options of this package, such as [WaitOption], have types of their own.
//
// A function that gets a descriptor as an int borrows it. It is a thin system call with Go types,
// and does not allocate if it succeeds. Descriptors that the package makes are close-on-exec and
// have an owner, a [*PidFD] or an [*os.File].
//
// # Errors
//
// Errors unwrap to the errno, and for system calls to an [*os.SyscallError] too: compare them with
// [errors.Is]. What the kernel lacks matches [errors.ErrUnsupported], whichever errno it chose.
// EPERM is never among those: what a seccomp filter or a missing capability forbids does not mean
// that the kernel is old. ESRCH and the like match [os.ErrProcessDone].
//
// # Kernels
//
// The documentation says which kernel version brought what, and [Feature.Probe] finds out on the
// running kernel. The code does not compare versions, because vendors backport: it makes the call
// and looks at the answer. Importing the package does nothing.
//
// # Coming from other packages
//
// [MIGRATING.md] in the repository lists the calls of golang.org/x/sys/unix, go-systemd, package os,
// mdlayher/pidfd and three Rust crates, with what replaces them.
//
// # Other systems
//
// The package is for Linux, on every architecture that Go supports there. Elsewhere it has what the
// main function of a daemon uses, so that no build tags are needed:
//   - [ListenFDs], [TakeListenFDs], [TakeListenFDsFunc] and [InspectListenEnv] report that nothing
//     was passed. [ListenShim] does nothing.
//   - [Notify], [NotifyFiles], [NotifyReloading], [NotifyStoreFDs], [NotifyRemoveStoredFDs] and
//     [NotifyBarrier] send nothing, and return an error only for arguments that are wrong on Linux
//     too. [NotifyStatus] and the like, and [ValidFDName], are the same. [WatchdogInterval] returns
//     0.
//   - [ExecListenFDs] and the functions Is… fail with an error that matches
//     [errors.ErrUnsupported].
//   - [DupFile] works on Unix systems.
//
// Plan 9, which has no errno, has only [ListenFDs] and [TakeListenFDs].
//
// [MIGRATING.md]: https://github.com/sysfd/sysfd/blob/main/MIGRATING.md
package sysfd
