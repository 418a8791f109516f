// launch CASES PROGRAM [ARGUMENT...] runs PROGRAM once for each case, one after another,
// in a process of its own whose environment is addressed to that process.
//
// Descriptor 3 is what PROGRAM gets. CASES is a file of fields, each ended by a NUL.
// A case is:
//
//	the descriptors from 3 up: 'o' for each that is open, '-' for each that is not
//	the number of a system call that is to fail, a space and the errno; "" if none is
//	the number of variables, and the variables
//
// In a variable @PID@ and @ID@ stand for the PID and the pidfd ID of the process, @-PID@
// for 2^64 minus that, @PID+5@ for the PID and 5 modulo 2^64, and @PID/16@ for its digits to
// the base 16; these go together, in this order.

#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { first = 3, source = 900 };

static uint64_t own_id(void)
{
	uint64_t id;
	union {
		struct file_handle head;
		char space[sizeof(struct file_handle) + sizeof id];
	} handle = { .head.handle_bytes = sizeof id };
	int mount;
	int fd = syscall(SYS_pidfd_open, getpid(), 0);
	if (fd < 0)
		err(1, "pidfd_open");
	if (name_to_handle_at(fd, "", &handle.head, &mount, AT_EMPTY_PATH) < 0)
		err(1, "name_to_handle_at of a pidfd");
	close(fd);
	memcpy(&id, handle.space + sizeof handle.head, sizeof id);
	return id;
}

// placeholder writes what stands for the one at s, and returns what is behind it, or NULL.
static const char *placeholder(const char *s, uint64_t id, FILE *out)
{
	uint64_t n, base = 10;
	char *end, digits[65];
	int minus = *++s == '-', i = sizeof digits;

	s += minus;
	if (!strncmp(s, "PID", 3))
		n = getpid(), s += 3;
	else if (!strncmp(s, "ID", 2))
		n = id, s += 2;
	else
		return NULL;
	if (minus)
		n = -n;
	if (*s == '+')
		n += strtoull(s + 1, &end, 10), s = end;
	if (*s == '/')
		base = strtoull(s + 1, &end, 10), s = end;
	if (*s != '@')
		return NULL;
	digits[--i] = 0;
	do
		digits[--i] = "0123456789abcdef"[n % base];
	while (n /= base);
	fputs(digits + i, out);
	return s + 1;
}

static char *substitute(const char *s, uint64_t id)
{
	char *text;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	while (*s) {
		const char *behind = *s == '@' ? placeholder(s, id, out) : NULL;
		if (behind)
			s = behind;
		else
			fputc(*s++, out);
	}
	fclose(out);
	return text;
}

static void forbid(int number, int errno_)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno_),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		err(1, "seccomp");
}

static void become(char **program, const char *descriptors, const char *fails, char **env)
{
	uint64_t id = own_id();
	int number, errno_;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		err(1, "prctl");
	for (; *env; env++)
		;
	while (*--env)
		*env = substitute(*env, id);
	env++;
	for (int i = 0; descriptors[i]; i++)
		if (descriptors[i] == 'o' && dup2(source, first + i) < 0)
			err(1, "dup2");
	if (sscanf(fails, "%d %d", &number, &errno_) == 2)
		forbid(number, errno_);
	execve(*program, program, env);
	err(1, "%s", *program);
}

// next returns the field at *p, which it moves on.
static char *next(char **p)
{
	char *field = *p;
	*p += strlen(field) + 1;
	return field;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		errx(2, "usage: launch CASES PROGRAM [ARGUMENT...]");
	if (dup3(first, source, O_CLOEXEC) < 0 || close(first) < 0)
		err(1, "descriptor 3");

	FILE *file = fopen(argv[1], "re");
	if (!file)
		err(1, "%s", argv[1]);
	static char cases[16 << 20];
	size_t length = fread(cases, 1, sizeof cases - 1, file);
	if (ferror(file) || !feof(file))
		errx(1, "%s cannot be read, or is too long", argv[1]);
	fclose(file);

	for (char *p = cases; p < cases + length;) {
		char *descriptors = next(&p), *fails = next(&p);
		int n = atoi(next(&p)), status;
		char **env = calloc(n + 2, sizeof *env) + sizeof *env; // NULL at both ends
		for (int i = 0; i < n; i++)
			env[i] = next(&p);
		pid_t pid = fork();
		if (pid < 0)
			err(1, "fork");
		if (pid == 0)
			become(argv + 2, descriptors, fails, env);
		if (waitpid(pid, &status, 0) < 0)
			err(1, "waitpid");
		if (status)
			dprintf(1, "{\"Died\":%d}\n", status);
		free(env - 1);
	}
}
