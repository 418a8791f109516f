//go:build linux

package main

// A command is a verb of sysfd. The help, the man page and the completion are made of this table and of the flags
// that run declares.
type command struct {
	name     string
	summary  string
	forms    []string // of what follows the name
	help     string   // paragraphs
	json     any      // a value of the type that -json prints, nil without -json
	statuses []int    // which of exitStatuses it can end with
	examples []example
	run      func(c *call) error // declares its flags, calls parse and prints to c.out
}

// An example is a script for a shell. The tests run it.
type example struct{ means, script string }

// exitStatuses says what each exit status means.
var exitStatuses = []struct {
	code  int
	means string
}{
	{0, "Success."},
	{statusFailure, "Something failed, and a message says what."},
	{statusUsage, "Bad usage: an unknown command or flag, or a missing or malformed argument."},
	{statusUnsupported, "Not supported here: the kernel or the file system lacks what is needed, or a sandbox, an emulator or a filter hides it. If several arguments fail, all of them failed for that reason."},
	{statusTimeout, "Not all processes ended within the time of -timeout."},
	{statusCannotExecute, "PROGRAM was found, but cannot be executed. Once it is executed, the exit status is that of PROGRAM."},
	{statusNotFound, "PROGRAM was not found."},
}

const (
	statusFailure       = 1
	statusUsage         = 2
	statusUnsupported   = 3
	statusTimeout       = 124 // as with timeout(1)
	statusCannotExecute = 126 // as with env(1)
	statusNotFound      = 127
)

// sections are what the general help and the man page say about all commands.
var sections = []struct{ title, text string }{
	{"Flags", `Flags come before the other arguments of a command. A flag has one dash; two are accepted as well. A flag and its value are two words, or one with an equals sign: -mount PATH or -mount=PATH. Two dashes alone end the flags.`},
	{"Names", `Names, paths and addresses can contain any bytes. A text is printed in the form $'...' of shells if it contains something unprintable, such as a control character, a change of the writing direction or a byte that is not UTF-8, or if it begins with $' itself. The columns of sysfd listen and the messages of sysfd activate also use that form for a text with spaces and for the empty text.`},
	{"JSON", `probe, handle, info, ns, listen and version print JSON with -json. The help of each lists the fields. Numbers are integers, and IDs have up to 64 bits: a program that reads numbers as floating point loses digits. A text that is not UTF-8, or that begins with $', has the form $'...'. Later versions may add fields.`},
}

// environment says what variables sysfd reads and sets.
var environment = []struct{ name, text string }{
	{"NO_COLOR", "If it is set and not empty, probe prints no color."},
	{"TERM", "If it is unset, empty or dumb, probe prints no color."},
	{"LISTEN_FDS, LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDNAMES", "Socket activation: how many descriptors are passed, to which process, and their names. listen, activate and exec read them; activate and exec set them for PROGRAM."},
	{"WATCHDOG_PID", "The process that reports to the watchdog of systemd. exec sets it to the PID of PROGRAM if it is that of the wrapper."},
	{"REMOTE_ADDR, REMOTE_PORT", "activate -accept sets them to the address of the client, if that is an IP or vsock address."},
}

// commands is the table of verbs.
func commands() []command {
	return []command{
		{
			name:    "probe",
			summary: "show which features work on this machine",
			forms:   []string{"[-json]"},
			help: `Try each feature of the library on this machine, and print what works. WORKS is "yes", "no", "not permitted" or "not known". SEEN shows what was observed, or why the feature does not work.

On a terminal, what does not work is in color. The exit status does not depend on what works.`,
			json:     probeResult{},
			statuses: []int{0, statusFailure, statusUsage},
			examples: []example{
				{"What does not work here:", "sysfd probe | grep -v ' yes '"},
			},
			run: probe,
		},
		{
			name:    "handle",
			summary: "print the handles of files",
			forms:   []string{"[-follow] [-fid] [-connectable] [-unique] [-json] PATH...", "-ref [-follow] PATH..."},
			help: `Print the handle of each file, the ID of its mount, and its path. A handle keeps naming its file when the file is moved or renamed, and names no other file. It is valid on its own file system only.

With -ref, print a REF and the path. A REF names the file system too, and stays valid when that is mounted elsewhere and after a reboot. sysfd open finds the file by either.`,
			json:     []handleInfo{},
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported},
			examples: []example{
				{"Store a name of a file that stays valid when the file is moved:", "sysfd handle -ref report.txt >report.ref"},
			},
			run: handle,
		},
		{
			name:    "open",
			summary: "find a file by its handle: print its path, or run a program on it",
			forms:   []string{"[-mount PATH] [-search DIR] HANDLE|REF", "[-mount PATH] [-ignore-signal SIGNALS] HANDLE|REF [--] PROGRAM [ARGUMENT]..."},
			help: `Print the path that the file has now. HANDLE is what sysfd handle prints, REF what sysfd handle -ref prints. With a PROGRAM, become that program instead, with the file as its descriptor 3; {} in an ARGUMENT is replaced by /dev/fd/3. This requires root (CAP_DAC_READ_SEARCH).

The kernel learns the path of a file when the file is looked up by name. After a mount it knows only the paths of directories; -search finds the others.

On tmpfs, handles are valid until the unmount. On overlayfs, which is often the root of a container, files have handles only with the mount option nfs_export=on, and no REFs.`,
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported, statusCannotExecute, statusNotFound},
			examples: []example{
				{"Find a file again after it was moved:", "ref=$(sysfd handle -ref report.txt | cut -f 1)\nmv report.txt old-report.txt\nsysfd open \"$ref\""},
				{"Read it, wherever it is:", "sysfd open \"$(sysfd handle -ref report.txt | cut -f 1)\" -- cat {}"},
			},
			run: open,
		},
		{
			name:    "cgroup",
			summary: "print the ID of a cgroup, or the path of the cgroup with an ID",
			forms:   []string{"[-mount PATH] ID|PATH"},
			help: `Print the ID of the cgroup with this path, or the path of the cgroup with this ID. Finding a cgroup by its ID requires root (CAP_DAC_READ_SEARCH). An argument of digits is an ID; write a path that consists of digits as ./123.

IDs are those of cgroup2. On cgroup v1 each hierarchy has IDs of its own: for a PATH there, the hierarchy is printed as well, and finding that cgroup by its ID requires -mount.`,
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported},
			examples: []example{
				{"The ID of a cgroup:", "sysfd cgroup /sys/fs/cgroup"},
				{"The path of the cgroup with this ID:", "sysfd cgroup 1"},
			},
			run: cgroup,
		},
		{
			name:    "id",
			summary: "print the pidfd IDs of processes",
			forms:   []string{"[-ref] PID|REF|self..."},
			help: `Print the pidfd ID of each process. Unlike a PID, this number is not used again before the next boot. "self" is this command.

With -ref, print a REF, which the other commands accept in place of a PID. It is PID:ID@BOOTID+PIDNAMESPACE, and never names another process.

Where the kernel has no pidfd IDs, a REF is the second best: PID:tSTARTTIME@BOOTID+PIDNAMESPACE. It can later name another process, if one that starts within the same 10 ms gets the same PID.`,
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported},
			examples: []example{
				{"A PID file that never names another process:", "sleep 60 &\nsysfd id -ref $! >sleep.ref"},
			},
			run: id,
		},
		{
			name:    "info",
			summary: "print what the kernel knows about processes",
			forms:   []string{"[-json] PID|REF|self..."},
			help: `Print what the kernel currently knows about processes. The users, the groups and the cgroup of a process can change.

REF is what sysfd id -ref prints, or its first part, PID:ID, which is enough until the next boot. It never names another process with the same PID, unless it is the second best (see sysfd help id).`,
			json:     []processInfo{},
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported},
			examples: []example{
				{"About the shell:", "sysfd info $$"},
			},
			run: info,
		},
		{
			name:    "wait",
			summary: "wait until processes have ended",
			forms:   []string{"[-timeout TIME] [-any] [-exited|-reaped] PID|REF..."},
			help: `Wait until all these processes have ended, and print how each ended. They need not be children of this command or of its caller.

The kernel reports the exit status of a process once the parent has reaped it. If the parent does not reap it at once, only the end is printed, unless -reaped is given.`,
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported, statusTimeout},
			examples: []example{
				{"Wait 10 seconds at most:", "sleep 1 &\nsysfd wait -timeout 10s $!"},
			},
			run: wait,
		},
		{
			name:    "kill",
			summary: "send a signal to processes, or kill all processes of a cgroup",
			forms:   []string{"[-s SIGNAL] PID|REF...", "-cgroup [-mount PATH] ID|PATH"},
			help: `Send a signal to processes. With a REF, the signal goes to that process or to none, unless the REF is the second best (see sysfd help id). As with kill(1), the signal can be a flag of its own: -KILL or -9.

With -cgroup, kill all processes in a cgroup and below it with SIGKILL, even those that are started meanwhile.`,
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported},
			examples: []example{
				{"End a process, and never another one that was given its PID:", "sleep 60 &\nref=$(sysfd id -ref $!)\nsysfd kill \"$ref\""},
			},
			run: kill,
		},
		{
			name:    "ns",
			summary: "list the namespaces of this machine or of a process",
			forms:   []string{"[-json] [-kind KIND]... [PID|REF|self]"},
			help: `List all namespaces of this machine, or those of one process. Containers are made of namespaces: each kind decides what its processes have for themselves, such as mounts, network devices, PIDs or users.

INODE is the number in /proc/PID/ns and in the output of lsns(8); it can be given to another namespace later. ID is not used again before the next boot. It needs Linux 6.18; for mount namespaces, Linux 6.11.

PROCESSES counts the processes that have at least one thread in the namespace. PID and COMMAND are those of the process with the lowest PID. A namespace without processes is kept by a mount, whose path is printed then, by an open file, or by a namespace that was made from it.

A namespace that only an open file keeps, or a mount in another mount namespace, is found only by root, and only on Linux 6.19 and later. Only root sees the processes of other users.`,
			json:     []namespaceInfo{},
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported},
			examples: []example{
				{"All network namespaces:", "sysfd ns -kind net"},
				{"The namespaces of the shell:", "sysfd ns $$"},
			},
			run: ns,
		},
		{
			name:     "listen",
			summary:  "print what socket activation passed to this process",
			forms:    []string{"[-json]"},
			help:     `Print the variables and the descriptors that socket activation passed to this process, or why nothing was passed. The command fails if the variables are wrong, but not if nothing was passed.`,
			json:     given{},
			statuses: []int{0, statusFailure, statusUsage},
			examples: []example{
				{"What a service would be passed:", "sysfd activate -now -l 127.0.0.1:8080 -fdname http -- sysfd listen"},
			},
			run: listen,
		},
		{
			name:    "activate",
			summary: "listen on sockets, and run a program with them",
			forms:   []string{"[-l [KIND:]ADDRESS]... [-d|-seqpacket] [-fdname NAMES] [-now|-accept] [-max-connections NUMBER] [-inetd] [-q] [-ignore-signal SIGNALS] [-E NAME=VALUE]... [--] PROGRAM [ARGUMENT]..."},
			help: `Listen, wait for traffic, and become PROGRAM with the sockets as its descriptors from 3 up. Sockets that were passed to this command come first, and keep their names.

With -accept, this command stays and starts PROGRAM for each connection. When a signal ends this command, programs that are already running continue.

An ADDRESS is host:port or a port, the path of a Unix socket, with a slash in it, or @name for an abstract Unix socket. KIND is stream or datagram, for a port also tcp or udp, and for a Unix socket also seqpacket.

If no process has the socket at the path any more, its file is replaced. A live server is left alone and does not notice. If this command fails, or a signal ends it, it removes the files of its own sockets. It ends by that signal, or as process 1 with the exit status 128 plus its number.`,
			statuses: []int{0, statusFailure, statusUsage, statusUnsupported, statusCannotExecute, statusNotFound},
			examples: []example{
				{"Start a program with a TCP socket and a Unix socket:", "sysfd activate -now -l 127.0.0.1:8080 -l ./control -fdname http:control \\\n    -- sysfd listen"},
				{"Answer each connection with a program of its own:", "sysfd activate -accept -inetd -l 127.0.0.1:8080 -- date"},
			},
			run: activate,
		},
		{
			name:     "exec",
			summary:  "run a program, and pass on the sockets that were passed to a wrapper",
			forms:    []string{"[-ignore-signal SIGNALS] [--] PROGRAM [ARGUMENT]..."},
			help:     `Become PROGRAM, and pass to it the sockets that were passed to the process that started this one, such as a shell script or the init of a container. LISTEN_PID and LISTEN_PIDFDID are set anew, so that PROGRAM accepts the sockets.`,
			statuses: []int{0, statusFailure, statusUsage, statusCannotExecute, statusNotFound},
			examples: []example{
				{"A shell stands between:", "sysfd activate -now -l 127.0.0.1:8080 -- \\\n    sh -c 'sysfd exec -- sysfd listen; exit'"},
			},
			run: execute,
		},
		{
			name:     "version",
			summary:  "print the version of this command",
			forms:    []string{"[-json]"},
			help:     `Print the version of the module, the revision and the time of the commit that this command was built from, whether its files were modified since, the version of Go, and the platform. What was not recorded in the build is left out.`,
			json:     versionInfo{},
			statuses: []int{0, statusFailure, statusUsage},
			examples: []example{
				{"For a bug report:", "sysfd version"},
			},
			run: version,
		},
		{
			name:     "help",
			summary:  "explain a command, or print the man page or the completion for bash",
			forms:    []string{"[COMMAND]", "-man|-bash"},
			help:     `Explain a command, as COMMAND -h does, or list the commands. With -man, print the man page; with -bash, the completion for bash.`,
			statuses: []int{0, statusFailure, statusUsage},
			examples: []example{
				{"Explain a command:", "sysfd help kill"},
				{"Read the man page:", "sysfd help -man | man -l -"},
				{"Complete the words of sysfd in this shell:", "source <(sysfd help -bash)"},
			},
			run: help,
		},
	}
}
