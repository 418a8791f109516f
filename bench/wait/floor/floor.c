/*
 * What package wait compares with: an epoll loop that takes many events at once.
 *
 *   floor many N PROGRAM   as the workers of package wait
 *   floor many N           the same, with processes that floor clones makes
 *   floor one PROGRAM      for each line that it reads, the nanoseconds from SIGKILL to the status
 *   floor clones N         makes N processes that share its memory, as children of its own parent,
 *                          and writes their PIDs. They end when its input does.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 1024

static const char *program;
static int input[2]; /* nothing comes, and its end ends all children */

static void die(const char *what) { perror(what); exit(1); }

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static pid_t start(void)
{
	char *argv[] = { (char *)program, NULL };
	pid_t pid = vfork();

	if (pid == 0) {
		dup2(input[0], 0);
		execv(program, argv);
		_exit(127);
	}
	if (pid < 0)
		die("vfork");
	return pid;
}

static int idle(void *unused)
{
	char c;

	return read(0, &c, 1);
}

/* Page tables of their own would need 40 KiB for each, and execve(2) most of the time. */
static void make_clones(int n, int out)
{
	enum { STACK = 1024 };
	char *stacks = aligned_alloc(STACK, (size_t)n * STACK);
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_PARENT | SIGCHLD;

	for (int i = 0; i < n; i++) {
		pid_t pid = clone(idle, stacks + (size_t)(i + 1) * STACK, flags, NULL);

		if (pid < 0)
			die("clone");
		if (write(out, &pid, sizeof pid) != sizeof pid)
			die("write");
	}
	idle(NULL);
	_exit(0);
}

/* Starts the mother of clones. */
static void start_clones(int n, pid_t *pids)
{
	int out[2];
	pid_t mother;

	if (pipe2(out, O_CLOEXEC))
		die("pipe2");
	mother = fork();
	if (mother == 0) {
		dup2(input[0], 0);
		close(input[1]);
		make_clones(n, out[1]);
	}
	if (mother < 0)
		die("fork");
	close(out[1]);
	for (int i = 0; i < n; i++)
		if (read(out[0], &pids[i], sizeof pids[i]) != sizeof pids[i])
			die("a clone");
	close(out[0]);
}

static int open_pidfd(pid_t pid)
{
	int fd = syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		die("pidfd_open");
	return fd;
}

static void watch(int epoll, int fd)
{
	struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e))
		die("epoll_ctl");
}

/* Waits for n processes, and closes their pidfds. */
static void reap(int epoll, int n)
{
	static struct epoll_event events[EVENTS];

	while (n > 0) {
		int got = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < got; i++, n--) {
			siginfo_t info;
			struct rusage used;

			if (syscall(SYS_waitid, P_PIDFD, events[i].data.fd, &info, WEXITED, &used))
				die("waitid");
			close(events[i].data.fd);
		}
	}
}

static long long of_file(const char *file, const char *name)
{
	FILE *f = fopen(file, "r");
	char line[256];
	long long n = -1;

	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, name, strlen(name)))
			n = atoll(line + strlen(name));
	if (n < 0)
		die(name);
	fclose(f);
	return n;
}

static long long resident(void) { return of_file("/proc/self/smaps_rollup", "Rss:") * 1024; }

static int crowd;
static pid_t *pids;

/* If they were a process group, each that ends would look at all zombies in it (kernel/exit.c,
 * will_become_orphaned_pgrp). */
static void *killer(void *unused)
{
	for (int i = 0; i < crowd; i++)
		kill(pids[i], SIGKILL);
	return NULL;
}

static int many(int n)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	long long base, with, begin, end, threads;
	pthread_t thread;

	crowd = n;
	pids = malloc(n * sizeof *pids);
	if (!program)
		start_clones(n, pids);
	else
		for (int i = 0; i < n; i++)
			pids[i] = start();
	base = resident();
	for (int i = 0; i < n; i++)
		watch(epoll, open_pidfd(pids[i]));
	with = resident();
	threads = of_file("/proc/self/status", "Threads:");
	sleep(1);
	begin = now();
	if (pthread_create(&thread, NULL, killer, NULL))
		die("pthread_create");
	reap(epoll, n);
	end = now();
	printf("{\"Threads\":%lld,\"Base\":%lld,\"Opened\":%lld,\"Waiting\":%lld,\"Nanoseconds\":%lld}\n",
		threads, base, base, with, end - begin);
	return 0;
}

static long long woken;

static void *waiter(void *epoll)
{
	reap((int)(long)epoll, 1);
	woken = now();
	return NULL;
}

static int one(void)
{
	char line[16];

	while (fgets(line, sizeof line, stdin)) {
		int epoll = epoll_create1(EPOLL_CLOEXEC);
		pid_t pid = start();
		pthread_t thread;
		long long begin;

		watch(epoll, open_pidfd(pid));
		if (pthread_create(&thread, NULL, waiter, (void *)(long)epoll))
			die("pthread_create");
		usleep(2000);
		begin = now();
		kill(pid, SIGKILL);
		pthread_join(thread, NULL);
		printf("%lld\n", woken - begin);
		fflush(stdout);
		close(epoll);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	if (pipe2(input, O_CLOEXEC))
		die("pipe2");
	if (!strcmp(what, "clones"))
		make_clones(atoi(argv[2]), 1);
	if (!strcmp(what, "many")) {
		program = argv[3];
		return many(atoi(argv[2]));
	}
	if (!strcmp(what, "one")) {
		program = argv[2];
		return one();
	}
	return 2;
}
