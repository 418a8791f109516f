// oracle asks libsystemd, and prints one line of JSON for each answer: what the program in
// ../receiver prints that asks sysfd. A negative number is an errno. Bytes are in hexadecimal.

#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

// Of <systemd/sd-daemon.h>, which comes with the headers for one architecture only.
int sd_listen_fds_with_names(int unset_environment, char ***names);
int sd_is_fifo(int fd, const char *path);
int sd_is_special(int fd, const char *path);
int sd_is_socket(int fd, int family, int type, int listening);
int sd_is_socket_inet(int fd, int family, int type, int listening, uint16_t port);
int sd_is_socket_unix(int fd, int type, int listening, const char *path, size_t length);
int sd_is_mq(int fd, const char *path);
int sd_notify(int unset_environment, const char *state);
int sd_pid_notify_with_fds(pid_t pid, int unset_environment, const char *state, const int *fds, unsigned n);
int sd_notify_barrier(int unset_environment, uint64_t timeout);
int sd_watchdog_enabled(int unset_environment, uint64_t *usec);
int sd_pidfd_get_inode_id(int pidfd, uint64_t *ret);

enum { first = 3, looked_at = 64 };

static void print_hex(const char *s)
{
	for (putchar('"'); *s; s++)
		printf("%02x", (unsigned char)*s);
	putchar('"');
}

static void print_names(char **names, int n)
{
	printf("\"Names\":[");
	for (int i = 0; i < n; i++) {
		if (i)
			putchar(',');
		print_hex(names[i]);
	}
	if (n > 0 && names[n])
		printf(",\"too many\"");
	putchar(']');
}

static void listen_fds(void)
{
	static const char *const variables[] = { "LISTEN_PID=", "LISTEN_PIDFDID=", "LISTEN_FDS=", "LISTEN_FDNAMES=" };
	char **names = NULL;
	int left = 0, n = sd_listen_fds_with_names(1, &names);

	for (char **e = environ; *e; e++)
		for (int i = 0; i < 4; i++)
			left += !strncmp(*e, variables[i], strlen(variables[i]));
	printf("{\"N\":%d,", n);
	print_names(names, n);
	printf(",\"Left\":%d,\"FDs\":\"", left);
	for (int fd = first; fd < first + looked_at; fd++) {
		int flags = fcntl(fd, F_GETFD);
		putchar(flags < 0 ? '-' : flags & FD_CLOEXEC ? 'c' : 'o');
	}
	printf("\"}\n");
}

static void received(void)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);

	printf("{\"N\":%d,", n);
	print_names(names, n);
	printf(",\"Listening\":[");
	for (int i = 0; i < n; i++)
		printf("%s%d", i ? "," : "", sd_is_socket(first + i, 0, 0, 1));
	printf("],\"Inodes\":[");
	for (int i = 0; i < n; i++) {
		struct stat st;
		if (fstat(first + i, &st) < 0)
			err(1, "fstat");
		printf("%s%" PRIu64, i ? "," : "", (uint64_t)st.st_ino);
	}
	printf("]}\n");
}

static void watchdog(void)
{
	uint64_t usec = 0;
	int n = sd_watchdog_enabled(0, &usec);
	printf("{\"N\":%d,\"Usec\":%" PRIu64 "}\n", n, n > 0 ? usec : 0);
}

// ids asks about each of the descriptors in $FDS, with commas between them, one after another.
static void ids(void)
{
	const char *separator = "";

	printf("{\"IDs\":[");
	for (char *fd, *list = getenv("FDS"); (fd = strsep(&list, ",")); separator = ",") {
		uint64_t id = 0;
		int n = sd_pidfd_get_inode_id(atoi(fd), &id);
		printf("%s{\"N\":%d,\"ID\":%" PRIu64 "}", separator, n, n < 0 ? 0 : id);
	}
	printf("]}\n");
}

// word returns the next word of the line, in its place.
static char *word(char **line)
{
	char *w = strsep(line, " ");
	if (!w)
		errx(1, "a word is missing");
	return w;
}

static long long number(char **line)
{
	return atoll(word(line));
}

// bytes returns the next word decoded, NULL for "-", and the length.
static char *bytes(char **line, size_t *length)
{
	char *w = word(line);
	if (!strcmp(w, "-"))
		return NULL;
	*length = strlen(w) / 2;
	char *s = calloc(*length + 1, 1);
	for (size_t i = 0; i < *length; i++) {
		char pair[3] = { w[2 * i], w[2 * i + 1], 0 };
		s[i] = strtoul(pair, NULL, 16);
	}
	return s;
}

static int is(char *line)
{
	const char *what = word(&line);
	int fd = number(&line), family = number(&line), type = number(&line), listening = number(&line);
	uint16_t port = number(&line);
	size_t length = 0;
	char *path = bytes(&line, &length);

	if (fd < 0) {
		fd = open("/", O_RDONLY);
		close(fd);
	}
	if (!strcmp(what, "socket"))
		return sd_is_socket(fd, family, type, listening);
	if (!strcmp(what, "inet"))
		return sd_is_socket_inet(fd, family, type, listening, port);
	if (!strcmp(what, "fifo"))
		return sd_is_fifo(fd, path);
	if (!strcmp(what, "special"))
		return sd_is_special(fd, path);
	if (!strcmp(what, "queue"))
		return sd_is_mq(fd, path);
	if (strcmp(what, "unix"))
		errx(1, "%s", what);
	if (path && path[0] == '@') {
		path[0] = 0;
		if (--length == 0)
			return sd_is_socket_unix(fd, type, listening, "", 0);
		length++;
	}
	return sd_is_socket_unix(fd, type, listening, path, length);
}

static int notify(char *line)
{
	char *what = word(&line);
	if (!strcmp(what, "barrier"))
		return sd_notify_barrier(0, 60 * 1000000);
	int n = number(&line), fds[1024];
	for (int i = 0; i < n; i++)
		fds[i] = first;
	size_t length;
	char *state = bytes(&line, &length);
	return n ? sd_pid_notify_with_fds(0, 0, state, fds, n) : sd_notify(0, state);
}

// answer answers each line of stdin.
static void answer(int (*question)(char *line))
{
	char *line = NULL;
	size_t space = 0;
	while (getline(&line, &space, stdin) > 0) {
		line[strcspn(line, "\n")] = 0;
		printf("{\"N\":%d}\n", question(line));
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (argc > 2 && !strcmp(argv[2], "open-first") && open("/", O_RDONLY | O_CLOEXEC) < 0)
		err(1, "/");
	if (!strcmp(what, "listen"))
		listen_fds();
	else if (!strcmp(what, "received"))
		received();
	else if (!strcmp(what, "watchdog"))
		watchdog();
	else if (!strcmp(what, "ids"))
		ids();
	else if (!strcmp(what, "is"))
		answer(is);
	else if (!strcmp(what, "notify"))
		answer(notify);
	else
		errx(2, "usage: oracle listen|received|watchdog|ids|is|notify");
}
