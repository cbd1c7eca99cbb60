/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Many forbidden things at once. storm MODE RESULT BASE ADDRESS NUMBER SEED, as whoever is bound:
 *   operations   random ones, those whose bit is set in NUMBER, until it is told to end
 *   tasks        NUMBER children that are all there before the first tries; each tries once
 *   files        NUMBER descriptors opened first; each is read once
 *   bomb         children of children while the limit on processes lets it, each of which tries
 *   senders      as tasks, after reading the customers' data; each tries to connect
 * Each gets ready, waits for SIGUSR1, counts in RESULT what it tried, what passed, and what failed for another reason than
 * EPERM, 16 numbers each by operation, and ends at SIGTERM at the latest.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define KINDS 16

static volatile struct {
	uint64_t tried[KINDS], passed[KINDS], other[KINDS], ready;
} * result;
static volatile sig_atomic_t go, stop;
static const char *base;
static struct sockaddr_in to;
static unsigned seed;
static int held, folder;

static void on_go(int signal)
{
	go = 1;
}
static void on_stop(int signal)
{
	stop = 1;
}

static unsigned roll(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	return seed ^= seed << 5;
}

static const char *at(const char *name)
{
	static char path[2][512];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", base, name);
	return path[turn];
}

static int look(const char *name, int flags)
{
	int fd = open(at(name), flags, 0666);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

static int sending(int type, int call)
{
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0), done;

	if (call == 0)
		done = connect(fd, (void *)&to, sizeof(to));
	else
		done = sendto(fd, "x", 1, call, (void *)&to, sizeof(to));
	if (done < 0 && errno == EINPROGRESS)
		done = 0;
	call = errno;
	close(fd);
	errno = call;
	return done < 0 ? -1 : 0;
}

static int try_one(int kind)
{
	char mine[64], c;
	int done;

	switch (kind) {
	case 0:
		return look("secret/data", O_RDONLY);
	case 1:
		return look("secret/data", O_WRONLY);
	case 2:
		return look("open/to-secret", O_RDONLY);
	case 3:
		snprintf(mine, sizeof(mine), "secret/made-%d", getpid());
		return look(mine, O_CREAT | O_WRONLY);
	case 4:
		snprintf(mine, sizeof(mine), "open/link-%d", getpid());
		done = link(at("secret/data"), at(mine));
		if (!done)
			unlink(at(mine));
		return done;
	case 5:
		snprintf(mine, sizeof(mine), "open/moved-%d", getpid());
		done = rename(at("secret/other"), at(mine));
		if (!done)
			rename(at(mine), at("secret/other"));
		return done;
	case 6:
		return truncate(at("secret/data"), 3);
	case 7:
		return sending(SOCK_STREAM, 0);
	case 8:
		return sending(SOCK_DGRAM, 0);
	case 9:
		return sending(SOCK_DGRAM, MSG_NOSIGNAL);
	case 10:
		return sending(SOCK_STREAM, MSG_FASTOPEN);
	case 11:
		return look("deep/inner/secret/data", O_RDONLY);
	case 12:
		return look("exports/a.csv", O_RDONLY);
	case 13:
		done = openat(folder, "data", O_RDONLY);
		if (done >= 0)
			close(done);
		return done < 0 ? -1 : 0;
	case 14:
		return look("secret", O_RDONLY | O_DIRECTORY);
	default:
		return pread(held, &c, 1, 0) < 0 ? -1 : 0;
	}
}

static void count(int kind, int done)
{
	int error = errno;

	__sync_fetch_and_add(&result->tried[kind], 1);
	if (done >= 0)
		__sync_fetch_and_add(&result->passed[kind], 1);
	else if (error != EPERM)
		__sync_fetch_and_add(&result->other[kind], 1);
}

static void ready(void)
{
	sigset_t blocked, none;

	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	__sync_fetch_and_add(&result->ready, 1);
	while (!go && !stop)
		sigsuspend(&none);
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);
}

static void operations(unsigned mask)
{
	ready();
	while (!stop) {
		int kind = roll() % KINDS;

		if (mask >> kind & 1)
			count(kind, try_one(kind));
	}
}

static void tasks(unsigned number, int kind)
{
	int gate[2];
	char c;

	if (pipe(gate))
		exit(9);
	for (unsigned i = 0; i < number; i++) {
		pid_t child = fork();

		if (child < 0) {
			fprintf(stderr, "storm: only %u tasks: %s\n", i, strerror(errno));
			exit(10);
		}
		if (!child) {
			close(gate[1]);
			while (read(gate[0], &c, 1) < 0 && errno == EINTR)
				;
			count(kind, try_one(kind));
			_exit(0);
		}
	}
	ready();
	close(gate[1]);
	while (wait(NULL) > 0 || errno == EINTR)
		;
}

static void files(unsigned number)
{
	int *fds = calloc(number, sizeof(*fds));
	char c;

	for (unsigned i = 0; i < number; i++) {
		fds[i] = open(at("secret/data"), O_RDONLY);
		if (fds[i] < 0) {
			fprintf(stderr, "storm: only %u files: %s\n", i, strerror(errno));
			exit(10);
		}
	}
	ready();
	for (unsigned i = 0; i < number; i++)
		count(15, pread(fds[i], &c, 1, 0));
}

static void bomb(unsigned number)
{
	struct rlimit limit = { number, number };

	ready();
	setrlimit(RLIMIT_NPROC, &limit);
	while (!stop) {
		pid_t child = fork();

		count(0, try_one(0));
		if (child > 0)
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
		if (roll() % 8 == 0 && getppid() != 1 && !child)
			_exit(0);
	}
	signal(SIGTERM, SIG_IGN);
	kill(0, SIGTERM);
	while (wait(NULL) > 0 || errno == EINTR)
		;
}

int main(int argc, char **argv)
{
	const char *mode = argv[1];
	unsigned number;
	int fd;

	if (argc < 7)
		return 2;
	base = argv[3];
	number = strtoul(argv[5], NULL, 0);
	seed = strtoul(argv[6], NULL, 0) | 1;
	fd = open(argv[2], O_RDWR);
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || result == MAP_FAILED)
		return 3;
	to.sin_family = AF_INET;
	to.sin_port = htons(4443);
	inet_pton(AF_INET, argv[4], &to.sin_addr);
	held = open(at("secret/data"), O_RDWR);
	folder = open(at("secret"), O_PATH);
	signal(SIGUSR1, on_go);
	signal(SIGTERM, on_stop);
	if (!strcmp(mode, "operations"))
		operations(number);
	else if (!strcmp(mode, "tasks"))
		tasks(number, 0);
	else if (!strcmp(mode, "files"))
		files(number);
	else if (!strcmp(mode, "bomb"))
		bomb(number);
	else if (!strcmp(mode, "senders")) {
		char c;

		fd = open(at("customers/data"), O_RDONLY);
		if (fd < 0 || read(fd, &c, 1) != 1)
			return 4;
		tasks(number, 7);
	} else {
		return 2;
	}
	return 0;
}
