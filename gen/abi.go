package main

// The tables below are the one place where an architecture, a system call, a
// constant or a kernel struct is written down. Everything else in this module
// turns them into zsys_linux_$GOARCH.go and proves the result. What the package
// takes from golang.org/x/sys/unix is written down, too, to be proved.

// An arch is one Linux port of Go.
type arch struct {
	GOARCH  string
	Target  string // what clang calls it
	Headers string // the folder of its <asm/*.h> in linux-libc-dev
	Libc    string // the folder of its C library's headers in libc6-dev-*-cross, "" = not compared
}

var arches = []arch{
	{"386", "i386-linux-gnu", "i386-linux-gnu", "i686-linux-gnu"},
	{"amd64", "x86_64-linux-gnu", "x86_64-linux-gnu", "x86_64-linux-gnu"},
	{"arm", "arm-linux-gnueabihf", "arm-linux-gnueabihf", "arm-linux-gnueabihf"},
	{"arm64", "aarch64-linux-gnu", "aarch64-linux-gnu", "aarch64-linux-gnu"},
	{"loong64", "loongarch64-linux-gnu", "loongarch64-linux-gnu", ""},
	{"mips", "mips-linux-gnu", "mips-linux-gnu", ""},
	{"mips64", "mips64-linux-gnuabi64", "mips64-linux-gnuabi64", ""},
	{"mips64le", "mips64el-linux-gnuabi64", "mips64el-linux-gnuabi64", ""},
	{"mipsle", "mipsel-linux-gnu", "mipsel-linux-gnu", ""},
	{"ppc64", "powerpc64-linux-gnu", "powerpc64-linux-gnu", ""},
	{"ppc64le", "powerpc64le-linux-gnu", "powerpc64le-linux-gnu", ""},
	{"riscv64", "riscv64-linux-gnu", "riscv64-linux-gnu", ""},
	{"s390x", "s390x-linux-gnu", "s390x-linux-gnu", ""},
}

// A group is a run of constants from one header, and one const block.
type group struct {
	Header string // what to include, "" = nothing
	Doc    string // the block's comment; the header is added to it
	Dec    bool   // counted or numbered things, spelled in decimal
	Decl   string // C text that the expressions need
	Type   string // "NAME = GOTYPE": an alias that the constants have as their type, under which go doc shows them
	About  string // what the type is, and its comment; "" without Type
	Consts []constant
}

// A constant is a macro or an enumerator.
type constant struct {
	Name     string // C spelling; with a leading _ the Go name is not exported and C knows it without; SYS_X is C's __NR_x
	Doc      string // the comment behind it: what it is for, and the first kernel version
	Expr     string // C expression, where the name alone will not do
	Internal string // for what no public header has: the kernel's source file
	Libc     bool   // also in the C library's <fcntl.h>: compared
}

// A cstruct is a kernel struct. What is not among its fields becomes padding.
type cstruct struct {
	Go     string // "" in takenStructs
	C      string
	Header string
	Decl   string // the C declaration, where no public header has one
	Source string // the kernel's source file of Decl
	Doc    string
	Size   string // C expression: how much of a struct that grows is used; "" = all
	XSys   string // its name in golang.org/x/sys/unix, "" = not there
	Libc   bool   // also in the C library's <fcntl.h>: compared
	Fields []field
}

// A field of a cstruct.
type field struct {
	C     string // C spelling
	Go    string // "" = C in CamelCase
	Array bool
	Flex  string // C expression: the number of elements for a flexible array member
}

// registersDecl has what an architecture's NT_PRSTATUS register set is: how large, and where in it the
// stack pointer is. In some places the kernel writes more than the struct in its public headers.
// The other set is that of programs with the other word size.
const registersDecl = `#if defined(__x86_64__)
enum { regs_size = 27 * 8, regs_sp = __builtin_offsetof(struct pt_regs, rsp), other_regs_size = 17 * 4, other_regs_sp = 15 * 4 };
#elif defined(__i386__)
enum { regs_size = 17 * 4, regs_sp = __builtin_offsetof(struct pt_regs, esp), other_regs_size = 27 * 8, other_regs_sp = 19 * 8 };
#elif defined(__aarch64__)
enum { regs_size = sizeof(struct user_pt_regs), regs_sp = __builtin_offsetof(struct user_pt_regs, sp), other_regs_size = 18 * 4, other_regs_sp = 13 * 4 };
#elif defined(__arm__)
enum { regs_size = sizeof(struct pt_regs), regs_sp = __builtin_offsetof(struct pt_regs, ARM_sp), other_regs_size = 34 * 8, other_regs_sp = 31 * 8 };
#elif defined(__loongarch__)
enum { regs_size = sizeof(struct user_pt_regs), regs_sp = __builtin_offsetof(struct user_pt_regs, regs[3]), other_regs_size = 0, other_regs_sp = 0 };
#elif defined(__mips__)
#include <asm/reg.h>
enum { mips32_size = 45 * 4, mips32_sp = MIPS32_EF_R29 * 4, mips64_size = 45 * 8, mips64_sp = MIPS64_EF_R29 * 8,
	regs_size = sizeof(long) == 8 ? mips64_size : mips32_size, regs_sp = sizeof(long) == 8 ? mips64_sp : mips32_sp,
	other_regs_size = sizeof(long) == 8 ? mips32_size : mips64_size, other_regs_sp = sizeof(long) == 8 ? mips32_sp : mips64_sp };
#elif defined(__powerpc64__)
enum { regs_size = 48 * 8, regs_sp = __builtin_offsetof(struct pt_regs, gpr[1]), other_regs_size = 48 * 4, other_regs_sp = 1 * 4 };
#elif defined(__riscv)
enum { regs_size = sizeof(struct user_regs_struct), regs_sp = __builtin_offsetof(struct user_regs_struct, sp), other_regs_size = 32 * 4, other_regs_sp = 2 * 4 };
#elif defined(__s390x__)
enum { regs_size = sizeof(s390_regs), regs_sp = __builtin_offsetof(s390_regs, gprs[15]), other_regs_size = 36 * 4, other_regs_sp = 17 * 4 };
#endif`

var groups = []group{
	{Header: "asm/unistd.h", Doc: "The system calls whose times have 64 bits everywhere", Dec: true, Consts: []constant{
		// From 403 on the numbers are in the same order everywhere.
		{Name: "_SYS_CLOCK_GETTIME64", Doc: "clock_gettime where a C long has 64 bits, elsewhere since Linux 5.1",
			Expr: "sizeof(long) == 8 ? __NR_clock_gettime : __NR_pidfd_send_signal - 424 + 403"},
		{Name: "_SYS_PPOLL_TIME64", Doc: "ppoll where a C long has 64 bits, elsewhere since Linux 5.1",
			Expr: "sizeof(long) == 8 ? __NR_ppoll : __NR_pidfd_send_signal - 424 + 414"},
	}},
	{Header: "asm/unistd.h", Doc: "A system call that golang.org/x/sys/unix lacks", Dec: true, Consts: []constant{
		{Name: "_SYS_LISTNS", Doc: "Linux 6.19", Expr: "__NR_listns"},
	}},
	{Header: "linux/fcntl.h", Doc: "Flags of name_to_handle_at(2)", Consts: []constant{
		{Name: "AT_EMPTY_PATH", Doc: "an empty path means dirfd itself; Linux 2.6.39", Libc: true},
		{Name: "AT_SYMLINK_FOLLOW", Doc: "follow a symbolic link at the end of path; Linux 2.6.39", Libc: true},
		{Name: "AT_HANDLE_FID", Doc: "a handle to compare but not to open; Linux 6.5", Libc: true},
		{Name: "AT_HANDLE_MNT_ID_UNIQUE", Doc: "a mount ID of 64 bits, which is not used again; Linux 6.12", Libc: true},
		{Name: "AT_HANDLE_CONNECTABLE", Doc: "a handle that knows its parent directory; Linux 6.13", Libc: true},
	}},
	{Header: "linux/fcntl.h", Doc: "A flag of execveat(2)", Consts: []constant{
		{Name: "_AT_EXECVE_CHECK", Doc: "execute nothing, but check whether it is allowed; Linux 6.14"},
	}},
	{Header: "linux/ioprio.h", Doc: "What ioprio_get(2) and ioprio_set(2) are about", Dec: true, Consts: []constant{
		{Name: "_IOPRIO_WHO_PROCESS", Doc: "a thread"},
	}},
	{Header: "asm/fcntl.h", Doc: "Flags of open(2) that package syscall does not have everywhere", Consts: []constant{
		{Name: "O_PATH", Doc: "a descriptor that names a file and does not open it; Linux 2.6.39"},
	}},
	{Header: "linux/fcntl.h", Doc: "Numbers that stand where a descriptor is expected", Consts: []constant{
		{Name: "AT_FDCWD", Doc: "the current working directory", Libc: true},
		{Name: "FD_PIDFS_ROOT", Doc: "the root of pidfs, for open_by_handle_at(2); Linux 6.17"},
		{Name: "FD_NSFS_ROOT", Doc: "the root of nsfs, for open_by_handle_at(2); Linux 6.18"},
	}},
	{Doc: "The size of the largest file handle", Dec: true, Consts: []constant{
		{Name: "MAX_HANDLE_SZ", Doc: "bytes", Expr: "128", Internal: "include/linux/exportfs.h", Libc: true},
	}},
	{Doc: "The types of file handles, and flags in them", Type: "HandleType = int32", About: "the type of a [FileHandle], which [FileHandle.Type] returns", Consts: []constant{
		{Name: "FILEID_ROOT", Expr: "0", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_INO32_GEN", Doc: "inode number of 32 bits, generation", Expr: "1", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_INO32_GEN_PARENT", Doc: "the same, and both of the parent", Expr: "2", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_BTRFS_WITHOUT_PARENT", Expr: "0x4d", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_BTRFS_WITH_PARENT", Expr: "0x4e", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_BTRFS_WITH_PARENT_ROOT", Expr: "0x4f", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_UDF_WITHOUT_PARENT", Expr: "0x51", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_UDF_WITH_PARENT", Expr: "0x52", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_NILFS_WITHOUT_PARENT", Expr: "0x61", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_NILFS_WITH_PARENT", Expr: "0x62", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_FAT_WITHOUT_PARENT", Expr: "0x71", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_FAT_WITH_PARENT", Expr: "0x72", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_INO64_GEN", Doc: "inode number of 64 bits, generation", Expr: "0x81", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_INO64_GEN_PARENT", Doc: "the same, and both of the parent", Expr: "0x82", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_LUSTRE", Expr: "0x97", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_BCACHEFS_WITHOUT_PARENT", Expr: "0xb1", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_BCACHEFS_WITH_PARENT", Expr: "0xb2", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_NSFS", Doc: "a namespace: ID of 64 bits, type, inode number of 32 bits; Linux 6.18", Expr: "0xf1", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_KERNFS", Doc: "an ID of 64 bits: cgroup2, kernfs, and pidfs since Linux 6.14", Expr: "0xfe", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_INVALID", Expr: "0xff", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_IS_CONNECTABLE", Doc: "set in the type by AT_HANDLE_CONNECTABLE; Linux 6.13", Expr: "0x10000", Internal: "include/linux/exportfs.h"},
		{Name: "FILEID_IS_DIR", Doc: "set beside it for a directory; Linux 6.13", Expr: "0x20000", Internal: "include/linux/exportfs.h"},
	}},
	{Header: "linux/pidfd.h", Doc: "Flags of pidfd_open(2)", Consts: []constant{
		{Name: "PIDFD_NONBLOCK", Doc: "waitid(2) does not block; Linux 5.10"},
		{Name: "PIDFD_THREAD", Doc: "a thread, not a process; Linux 6.9"},
	}},
	{Header: "linux/pidfd.h", Doc: "Flags of pidfd_send_signal(2)", Type: "SignalFlag = int", About: "a flag of [PidFD.SendSignalTo]", Consts: []constant{
		{Name: "PIDFD_SIGNAL_THREAD", Doc: "Linux 6.9"},
		{Name: "PIDFD_SIGNAL_THREAD_GROUP", Doc: "Linux 6.9"},
		{Name: "PIDFD_SIGNAL_PROCESS_GROUP", Doc: "Linux 6.9"},
	}},
	{Header: "linux/pidfd.h", Doc: "The ioctl(2) that asks a pidfd about its process", Consts: []constant{
		// Spelled out, or the number would change with the headers' struct pidfd_info.
		{Name: "_PIDFD_GET_INFO", Doc: "with a struct of PIDFD_INFO_SIZE_VER3 bytes; Linux 6.13",
			Expr: "_IOC(_IOC_READ|_IOC_WRITE, PIDFS_IOCTL_MAGIC, 11, PIDFD_INFO_SIZE_VER3)"},
	}},
	{Header: "linux/pidfd.h", Doc: "What PIDFD_GET_INFO is asked for, and reports", Type: "PidFDInfoMask = uint64", About: "what [PidFD.Info] is asked for and [PidFDInfo.Mask] returns", Consts: []constant{
		{Name: "PIDFD_INFO_PID", Doc: "Linux 6.13"},
		{Name: "PIDFD_INFO_CREDS", Doc: "Linux 6.13"},
		{Name: "PIDFD_INFO_CGROUPID", Doc: "Linux 6.13"},
		{Name: "PIDFD_INFO_EXIT", Doc: "only once the process is reaped; Linux 6.15"},
		{Name: "PIDFD_INFO_COREDUMP", Doc: "Linux 6.16"},
		{Name: "PIDFD_INFO_SUPPORTED_MASK", Doc: "Linux 6.19"},
		{Name: "PIDFD_INFO_COREDUMP_SIGNAL", Doc: "Linux 6.19"},
		{Name: "PIDFD_INFO_COREDUMP_CODE", Doc: "Linux 7.1"},
	}},
	{Header: "linux/pidfd.h", Doc: "How a core dump was made", Type: "CoredumpMask = uint32", About: "what [PidFDInfo.Coredump] returns", Consts: []constant{
		{Name: "PIDFD_COREDUMPED", Doc: "a core dump was begun, to a socket or to a program with a pidfd; Linux 6.16"},
		{Name: "PIDFD_COREDUMP_SKIP", Doc: "no core is written; Linux 6.16"},
		{Name: "PIDFD_COREDUMP_USER", Doc: "the core is written as the user; Linux 6.16"},
		{Name: "PIDFD_COREDUMP_ROOT", Doc: "the core is written as root; Linux 6.16"},
	}},
	{Header: "linux/pidfd.h", Doc: "The ioctl(2)s that open a namespace of a pidfd's process; the third argument must be 0", Consts: []constant{
		{Name: "_PIDFD_GET_CGROUP_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_IPC_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_MNT_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_NET_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_PID_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_TIME_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_USER_NAMESPACE", Doc: "Linux 6.11"},
		{Name: "_PIDFD_GET_UTS_NAMESPACE", Doc: "Linux 6.11"},
	}},
	{Header: "linux/nsfs.h", Doc: "ioctl(2)s on the file of a namespace", Consts: []constant{
		{Name: "_NS_GET_USERNS", Doc: "opens the user namespace that owns it; Linux 4.9"},
		{Name: "_NS_GET_PARENT", Doc: "Linux 4.9"},
		{Name: "_NS_GET_NSTYPE", Doc: "CLONE_NEW*; Linux 4.11"},
		{Name: "_NS_GET_OWNER_UID", Doc: "of a user namespace; Linux 4.11"},
		{Name: "_NS_GET_MNTNS_ID", Doc: "of a mount namespace; Linux 6.11"},
		{Name: "_NS_GET_ID", Doc: "Linux 6.18"},
	}},
	{Header: "asm/mman.h", Doc: "What process_madvise(2) can advise to another process", Type: "MemoryAdvice = int", About: "what [PidFD.Madvise] advises", Dec: true, Consts: []constant{
		{Name: "MADV_WILLNEED", Doc: "read it in"},
		{Name: "MADV_COLD", Doc: "reclaim it before other memory; Linux 5.10"},
		{Name: "MADV_PAGEOUT", Doc: "reclaim it now; Linux 5.10"},
		{Name: "MADV_COLLAPSE", Doc: "make huge pages of it; Linux 6.1"},
	}},
	{Header: "linux/fs.h", Doc: "An ioctl(2) on any file", Consts: []constant{
		{Name: "_FS_IOC_GETFSUUID", Doc: "the UUID of the file system; Linux 6.9"},
	}},
	{Header: "linux/btrfs.h", Doc: "ioctl(2)s on files of btrfs", Consts: []constant{
		{Name: "_BTRFS_IOC_FS_INFO", Doc: "about the file system; Linux 3.0"},
		{Name: "_BTRFS_FS_INFO_FLAG_METADATA_UUID", Doc: "asks for one member of it; Linux 5.10"},
	}},
	{Header: "asm/siginfo.h", Doc: "How a process ended, in the report of waitid(2)", Dec: true, Consts: []constant{
		{Name: "_CLD_EXITED"},
		{Name: "_CLD_KILLED", Doc: "by a signal"},
		{Name: "_CLD_DUMPED", Doc: "by a signal, and dumped core"},
	}},
	{Header: "asm/signal.h", Doc: "For rt_sigprocmask(2)", Dec: true, Consts: []constant{
		// The header's own type is the old one, of 32 bits, on some architectures.
		{Name: "_SIGSET_SIZE", Doc: "bytes", Expr: "sizeof(sigset_t) < 8 ? 8 : sizeof(sigset_t)"},
	}},
	{Header: "asm/siginfo.h", Doc: "Who sent a signal", Dec: true, Consts: []constant{
		{Name: "_SI_QUEUE", Doc: "sigqueue(3)"},
	}},
	{Header: "asm/ptrace.h", Decl: registersDecl, Doc: "The registers that PTRACE_GETREGSET writes for NT_PRSTATUS", Dec: true, Consts: []constant{
		{Name: "_REGISTERS_SIZE", Doc: "bytes", Expr: "regs_size"},
		{Name: "_REGISTERS_SP", Doc: "where the stack pointer is", Expr: "regs_sp"},
		{Name: "_OTHER_REGISTERS_SIZE", Doc: "of a program with the other word size, 0 = there are none", Expr: "other_regs_size"},
		{Name: "_OTHER_REGISTERS_SP", Expr: "other_regs_sp"},
	}},
	{Header: "linux/elf.h", Doc: "For PTRACE_GETREGSET", Dec: true, Consts: []constant{
		{Name: "_NT_PRSTATUS", Doc: "the general registers"},
	}},
	{Header: "linux/limits.h", Doc: "How large extended attributes can be", Dec: true, Consts: []constant{
		{Name: "_XATTR_SIZE_MAX", Doc: "bytes of a value, and of all names"},
	}},
	{Header: "linux/xattr.h", Doc: "Flags of fsetxattr(2)", Type: "XattrFlag = int", About: "a flag of [PidFD.SetXattr]", Consts: []constant{
		{Name: "XATTR_CREATE", Doc: "fail if there is such an attribute"},
		{Name: "XATTR_REPLACE", Doc: "fail if there is none"},
	}},
	{Header: "linux/mount.h", Doc: "What statmount(2) is asked for", Consts: []constant{
		{Name: "_STATMOUNT_SB_BASIC", Doc: "Linux 6.8"},
		{Name: "_STATMOUNT_MNT_BASIC", Doc: "Linux 6.8"},
		{Name: "_STATMOUNT_MNT_ROOT", Doc: "Linux 6.8"},
		{Name: "_STATMOUNT_MNT_POINT", Doc: "Linux 6.8"},
		{Name: "_STATMOUNT_FS_TYPE", Doc: "Linux 6.8"},
		{Name: "_STATMOUNT_FS_SUBTYPE", Doc: "Linux 6.13"},
		{Name: "_STATMOUNT_SB_SOURCE", Doc: "Linux 6.13"},
	}},
	{Header: "linux/mount.h", Doc: "For listmount(2)", Consts: []constant{
		{Name: "_LSMT_ROOT", Doc: "the root directory of the caller, or that of another mount namespace; Linux 6.8"},
	}},
	{Header: "linux/fanotify.h", Doc: "Bits in the mask of a fanotify(7) event", Type: "FanotifyMask = uint64", About: "what the Mask of a [FanotifyEvent] consists of", Consts: []constant{
		{Name: "FAN_ACCESS", Doc: "a file was read"},
		{Name: "FAN_MODIFY", Doc: "a file was written"},
		{Name: "FAN_ATTRIB", Doc: "metadata was changed; Linux 5.1"},
		{Name: "FAN_CLOSE_WRITE", Doc: "a file that was open for writing was closed"},
		{Name: "FAN_CLOSE_NOWRITE", Doc: "another file or a directory was closed"},
		{Name: "FAN_OPEN", Doc: "a file or directory was opened"},
		{Name: "FAN_MOVED_FROM", Doc: "a name left a directory; Linux 5.1"},
		{Name: "FAN_MOVED_TO", Doc: "a name came into a directory by a rename; Linux 5.1"},
		{Name: "FAN_CREATE", Doc: "Linux 5.1"},
		{Name: "FAN_DELETE", Doc: "Linux 5.1"},
		{Name: "FAN_DELETE_SELF", Doc: "the marked file was deleted; Linux 5.1"},
		{Name: "FAN_MOVE_SELF", Doc: "the marked file was moved; Linux 5.1"},
		{Name: "FAN_OPEN_EXEC", Doc: "a file was opened to be executed; Linux 5.0"},
		{Name: "FAN_Q_OVERFLOW", Doc: "events were lost"},
		{Name: "FAN_FS_ERROR", Doc: "the file system found an error in itself; Linux 5.16"},
		{Name: "FAN_OPEN_PERM", Doc: "a process is about to open a file, and waits for an answer"},
		{Name: "FAN_ACCESS_PERM", Doc: "the same for reading"},
		{Name: "FAN_OPEN_EXEC_PERM", Doc: "the same for execution; Linux 5.0"},
		{Name: "FAN_PRE_ACCESS", Doc: "the same for a range of a file; Linux 6.14"},
		{Name: "FAN_MNT_ATTACH", Doc: "a mount was attached to a mount namespace; Linux 6.15"},
		{Name: "FAN_MNT_DETACH", Doc: "a mount was detached from it; Linux 6.15"},
		{Name: "FAN_RENAME", Doc: "a file was renamed; Linux 5.17"},
		{Name: "FAN_ONDIR", Doc: "it was a directory"},
	}},
	{Header: "linux/fanotify.h", Doc: "Parts of a fanotify(7) event", Dec: true, Consts: []constant{
		{Name: "_FANOTIFY_METADATA_VERSION"},
		{Name: "_FAN_EVENT_INFO_TYPE_FID", Doc: "the file; Linux 5.1"},
		{Name: "_FAN_EVENT_INFO_TYPE_DFID_NAME", Doc: "a name in a directory; Linux 5.9"},
		{Name: "_FAN_EVENT_INFO_TYPE_DFID", Doc: "a directory; Linux 5.9"},
		{Name: "_FAN_EVENT_INFO_TYPE_PIDFD", Doc: "Linux 5.15"},
		{Name: "_FAN_EVENT_INFO_TYPE_ERROR", Doc: "Linux 5.16"},
		{Name: "_FAN_EVENT_INFO_TYPE_RANGE", Doc: "Linux 6.14"},
		{Name: "_FAN_EVENT_INFO_TYPE_MNT", Doc: "Linux 6.15"},
		{Name: "_FAN_EVENT_INFO_TYPE_OLD_DFID_NAME", Doc: "the name that was; Linux 5.17"},
		{Name: "_FAN_EVENT_INFO_TYPE_NEW_DFID_NAME", Doc: "the name that is; Linux 5.17"},
		{Name: "_FAN_NOFD", Doc: "the event has no file"},
		{Name: "_FAN_NOPIDFD", Doc: "the process was reaped or is out of sight; Linux 5.15"},
		{Name: "_FAN_EPIDFD", Doc: "there is none for another reason; Linux 5.15"},
	}},
}

var structs = []cstruct{
	{
		Go: "fileHandle", C: "struct file_handle", Libc: true,
		// Not in the UAPI headers.
		Decl:   "struct file_handle { __u32 handle_bytes; int handle_type; unsigned char f_handle[]; };",
		Source: "include/linux/fs.h",
		Doc:    "with room for the largest handle",
		Fields: []field{{C: "handle_bytes"}, {C: "handle_type"}, {C: "f_handle", Flex: "MAX_HANDLE_SZ"}},
	},
	{
		Go: "pidfdInfo", C: "struct pidfd_info", Header: "linux/pidfd.h", XSys: "PidfdInfo",
		Size: "PIDFD_INFO_SIZE_VER3",
		Doc:  "as of Linux 7.1; in 6.19 and 7.0 supported_mask was where coredump_code is now",
		Fields: []field{
			{C: "mask"}, {C: "cgroupid", Go: "CgroupID"}, {C: "pid", Go: "PID"}, {C: "tgid", Go: "TGID"}, {C: "ppid", Go: "PPID"},
			{C: "ruid", Go: "RUID"}, {C: "rgid", Go: "RGID"}, {C: "euid", Go: "EUID"}, {C: "egid", Go: "EGID"},
			{C: "suid", Go: "SUID"}, {C: "sgid", Go: "SGID"}, {C: "fsuid", Go: "FSUID"}, {C: "fsgid", Go: "FSGID"},
			{C: "exit_code"}, {C: "coredump_mask"}, {C: "coredump_signal"}, {C: "coredump_code"}, {C: "coredump_pad"}, {C: "supported_mask"},
		},
	},
	{
		Go: "nsfsFileHandle", C: "struct nsfs_file_handle", Header: "linux/nsfs.h",
		Size:   "NSFS_FILE_HANDLE_SIZE_VER0",
		Doc:    "the data of a FILEID_NSFS handle; Linux 6.18",
		Fields: []field{{C: "ns_id", Go: "NSID"}, {C: "ns_type", Go: "NSType"}, {C: "ns_inum", Go: "NSInum"}},
	},
	{
		Go: "nsIDReq", C: "struct ns_id_req", Header: "linux/nsfs.h",
		Size:   "NS_ID_REQ_SIZE_VER0",
		Doc:    "the argument of listns(2); Linux 6.19",
		Fields: []field{{C: "size"}, {C: "ns_id", Go: "NSID"}, {C: "ns_type", Go: "NSType"}},
	},
	{
		Go: "mntIDReq", C: "struct mnt_id_req", Header: "linux/mount.h",
		Size:   "MNT_ID_REQ_SIZE_VER1",
		Doc:    "the argument of statmount(2) and listmount(2); Linux 6.8, with mnt_ns_id 6.11",
		Fields: []field{{C: "size"}, {C: "mnt_id", Go: "MntID"}, {C: "param"}, {C: "mnt_ns_id", Go: "MntNSID"}},
	},
	{
		Go: "statmount", C: "struct statmount", Header: "linux/mount.h",
		Doc: "what statmount(2) writes before its strings; Linux 6.8",
		Fields: []field{
			{C: "size"}, {C: "mask"}, {C: "sb_dev_major", Go: "DevMajor"}, {C: "sb_dev_minor", Go: "DevMinor"}, {C: "sb_flags", Go: "SBFlags"},
			{C: "fs_type", Go: "FSType"}, {C: "mnt_id", Go: "MntID"}, {C: "mnt_parent_id", Go: "MntParentID"},
			{C: "mnt_id_old", Go: "MntIDOld"}, {C: "mnt_parent_id_old", Go: "MntParentIDOld"}, {C: "mnt_attr"},
			{C: "mnt_root"}, {C: "mnt_point"}, {C: "fs_subtype", Go: "FSSubtype"}, {C: "sb_source", Go: "SBSource"},
		},
	},
	{
		Go: "statx", C: "struct statx", Header: "linux/stat.h", XSys: "Statx_t",
		Doc: "what statx(2) writes; Linux 4.11",
		Fields: []field{
			{C: "stx_mask", Go: "Mask"}, {C: "stx_attributes", Go: "Attributes"}, {C: "stx_nlink", Go: "Nlink"}, {C: "stx_mode", Go: "Mode"}, {C: "stx_ino", Go: "Ino"}, {C: "stx_attributes_mask", Go: "AttributesMask"}, {C: "stx_rdev_major", Go: "RdevMajor"}, {C: "stx_rdev_minor", Go: "RdevMinor"},
			{C: "stx_dev_major", Go: "DevMajor"}, {C: "stx_dev_minor", Go: "DevMinor"},
			{C: "stx_mnt_id", Go: "MntID"},
		},
	},
	{
		Go: "fsuuid2", C: "struct fsuuid2", Header: "linux/fs.h",
		Doc:    "the argument of FS_IOC_GETFSUUID; Linux 6.9",
		Fields: []field{{C: "len"}, {C: "uuid", Go: "UUID", Array: true}},
	},
	{
		Go: "btrfsFSInfo", C: "struct btrfs_ioctl_fs_info_args", Header: "linux/btrfs.h",
		Doc:    "the argument of BTRFS_IOC_FS_INFO; Linux 3.0",
		Fields: []field{{C: "fsid", Go: "FSID", Array: true}, {C: "flags"}, {C: "metadata_uuid", Go: "MetadataUUID", Array: true}},
	},
	{
		Go: "fanotifyMetadata", C: "struct fanotify_event_metadata", Header: "linux/fanotify.h", XSys: "FanotifyEventMetadata",
		Doc: "the head of an event",
		Fields: []field{
			{C: "event_len"}, {C: "vers"}, {C: "metadata_len"}, {C: "mask"}, {C: "fd", Go: "FD"}, {C: "pid", Go: "PID"},
		},
	},
	{
		Go: "fanotifyInfo", C: "struct fanotify_event_info_header", Header: "linux/fanotify.h",
		Doc:    "the head of a record in an event",
		Fields: []field{{C: "info_type", Go: "Type"}, {C: "len"}},
	},
	{
		Go: "fanotifyFID", C: "struct fanotify_event_info_fid", Header: "linux/fanotify.h",
		Doc:    "what a struct file_handle follows; Linux 5.1",
		Fields: []field{{C: "fsid.val", Go: "FSID", Array: true}},
	},
	{
		Go: "fanotifyPidFD", C: "struct fanotify_event_info_pidfd", Header: "linux/fanotify.h",
		Doc:    "Linux 5.15",
		Fields: []field{{C: "pidfd", Go: "PidFD"}},
	},
	{
		Go: "fanotifyError", C: "struct fanotify_event_info_error", Header: "linux/fanotify.h",
		Doc:    "Linux 5.16",
		Fields: []field{{C: "error"}, {C: "error_count", Go: "Count"}},
	},
	{
		Go: "fanotifyRange", C: "struct fanotify_event_info_range", Header: "linux/fanotify.h",
		Doc:    "Linux 6.14",
		Fields: []field{{C: "offset"}, {C: "count"}},
	},
	{
		Go: "siginfo", C: "siginfo_t", Header: "asm/siginfo.h", XSys: "Siginfo",
		Doc: "what waitid(2) writes",
		Fields: []field{
			{C: "si_signo", Go: "Signo"}, {C: "si_code", Go: "Code"},
			{C: "_sifields._sigchld._pid", Go: "PID"}, {C: "_sifields._sigchld._status", Go: "Status"},
		},
	},
	{
		Go: "sigqueueInfo", C: "siginfo_t", Header: "asm/siginfo.h",
		Doc: "what pidfd_send_signal(2) reads for SI_QUEUE",
		Fields: []field{
			{C: "si_signo", Go: "Signo"}, {C: "si_code", Go: "Code"},
			{C: "_sifields._rt._pid", Go: "PID"}, {C: "_sifields._rt._uid", Go: "UID"},
			{C: "_sifields._rt._sigval.sival_int", Go: "Value"},
		},
	},
}

// taken is what the package uses of golang.org/x/sys/unix, by its names there. No Go text
// comes of it, but C is asked, and what unix has is compared with the answer.
var taken = []group{
	{Header: "asm/fcntl.h", Consts: []constant{{Name: "O_TMPFILE"}}},
	{Header: "asm/poll.h", Consts: []constant{{Name: "POLLERR"}, {Name: "POLLIN"}, {Name: "POLLHUP"}}},
	{Header: "asm/signal.h", Consts: []constant{{Name: "SIG_SETMASK"}}},
	{Header: "asm/socket.h", Consts: []constant{
		{Name: "SO_PASSPIDFD"},
		{Name: "SO_PEERCRED"},
		{Name: "SO_PEERGROUPS"},
		{Name: "SO_PEERPIDFD"},
		{Name: "SCM_PIDFD", Expr: "0x04", Internal: "include/linux/socket.h"},
	}},
	{Header: "asm/unistd.h", Consts: []constant{
		{Name: "SYS_CAPGET"},
		{Name: "SYS_CAPSET"},
		{Name: "SYS_EXECVEAT"},
		{Name: "SYS_GETSOCKOPT"},
		{Name: "SYS_IOCTL"},
		{Name: "SYS_IOPRIO_GET"},
		{Name: "SYS_IOPRIO_SET"},
		{Name: "SYS_LISTMOUNT"},
		{Name: "SYS_NAME_TO_HANDLE_AT"},
		{Name: "SYS_OPEN_BY_HANDLE_AT"},
		{Name: "SYS_PIDFD_SEND_SIGNAL"},
		{Name: "SYS_PPOLL"},
		{Name: "SYS_PROCESS_MADVISE"},
		{Name: "SYS_PROCESS_MRELEASE"},
		{Name: "SYS_PTRACE"},
		{Name: "SYS_SCHED_YIELD"},
		{Name: "SYS_STATMOUNT"},
		{Name: "SYS_STATX"},
		{Name: "SYS_WAITID"},
	}},
	{Header: "linux/capability.h", Consts: []constant{{Name: "CAP_DAC_READ_SEARCH"}, {Name: "CAP_SYS_ADMIN"}, {Name: "CAP_SYS_PTRACE"}, {Name: "LINUX_CAPABILITY_VERSION_3", Expr: "_LINUX_CAPABILITY_VERSION_3"}}},
	{Header: "linux/close_range.h", Consts: []constant{{Name: "CLOSE_RANGE_CLOEXEC"}, {Name: "CLOSE_RANGE_UNSHARE"}}},
	{Header: "linux/eventfd.h", Consts: []constant{{Name: "EFD_CLOEXEC"}}},
	{Header: "linux/fcntl.h", Consts: []constant{{Name: "AT_STATX_DONT_SYNC"}}},
	{Header: "linux/magic.h", Consts: []constant{
		{Name: "ANON_INODE_FS_MAGIC"},
		{Name: "BTRFS_SUPER_MAGIC"},
		{Name: "CGROUP2_SUPER_MAGIC"},
		{Name: "CGROUP_SUPER_MAGIC"},
		{Name: "EXT4_SUPER_MAGIC"},
		{Name: "NSFS_MAGIC"},
		{Name: "OVERLAYFS_SUPER_MAGIC"},
		{Name: "PID_FS_MAGIC"},
		{Name: "PROC_SUPER_MAGIC"},
		{Name: "TMPFS_MAGIC"},
		{Name: "XFS_SUPER_MAGIC"},
	}},
	{Header: "linux/mount.h", Consts: []constant{{Name: "MNT_ID_REQ_SIZE_VER0"}, {Name: "MOUNT_ATTR_RDONLY"}}},
	{Header: "linux/openat2.h", Consts: []constant{{Name: "RESOLVE_NO_SYMLINKS"}}},
	{Header: "linux/prctl.h", Consts: []constant{{Name: "PR_GET_NO_NEW_PRIVS"}, {Name: "PR_SET_CHILD_SUBREAPER"}, {Name: "PR_SET_PDEATHSIG"}}},
	{Header: "linux/ptrace.h", Consts: []constant{
		{Name: "PTRACE_CONT"},
		{Name: "PTRACE_DETACH"},
		{Name: "PTRACE_GETREGSET"},
		{Name: "PTRACE_GETSIGINFO"},
		{Name: "PTRACE_O_EXITKILL"},
		{Name: "PTRACE_PEEKDATA"},
		{Name: "PTRACE_POKEDATA"},
		{Name: "PTRACE_SETOPTIONS"},
		{Name: "PTRACE_SETSIGMASK"},
	}},
	{Header: "linux/stat.h", Consts: []constant{{Name: "STATX_ATTR_MOUNT_ROOT"}, {Name: "STATX_INO"}, {Name: "STATX_MNT_ID"}, {Name: "STATX_MNT_ID_UNIQUE"}, {Name: "STATX_NLINK"}, {Name: "STATX_TYPE"}}},
	{Header: "linux/time.h", Consts: []constant{{Name: "CLOCK_MONOTONIC"}}},
	{Header: "linux/wait.h", Consts: []constant{{Name: "P_ALL"}, {Name: "P_PID"}, {Name: "P_PIDFD"}}},
}

// takenStructs are the structs of golang.org/x/sys/unix that the package uses, with all
// their fields; see type uses.
var takenStructs = []cstruct{
	{C: "struct __user_cap_header_struct", Header: "linux/capability.h", XSys: "CapUserHeader", Fields: []field{{C: "version"}, {C: "pid"}}},
	{C: "struct __user_cap_data_struct", Header: "linux/capability.h", XSys: "CapUserData", Fields: []field{{C: "effective"}, {C: "permitted"}, {C: "inheritable"}}},
	{C: "struct open_how", Header: "linux/openat2.h", XSys: "OpenHow", Fields: []field{{C: "flags"}, {C: "mode"}, {C: "resolve"}}},
	{C: "struct pollfd", Header: "asm/poll.h", XSys: "PollFd", Fields: []field{{C: "fd"}, {C: "events"}, {C: "revents"}}},
	{C: "struct sched_attr", Header: "linux/sched/types.h", XSys: "SchedAttr", Fields: []field{
		{C: "size"}, {C: "sched_policy", Go: "Policy"}, {C: "sched_flags", Go: "Flags"}, {C: "sched_nice", Go: "Nice"}, {C: "sched_priority", Go: "Priority"},
		{C: "sched_runtime", Go: "Runtime"}, {C: "sched_deadline", Go: "Deadline"}, {C: "sched_period", Go: "Period"},
		{C: "sched_util_min", Go: "UtilMin"}, {C: "sched_util_max", Go: "UtilMax"},
	}},
}
