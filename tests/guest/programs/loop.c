/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * loop USER OPERATION warm|cold PATH ADDRESS: nanoseconds, which are guest instructions under -icount shift=0, of one
 * operation: the median of series, the first of which is left out. Cold: before each one an unrelated rename has moved the
 * kernel's rename sequence and the task has another effective user. Started as root: exec would set the saved id.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SERIES 9
#define TURNS 200

static const char *path;
static struct sockaddr_in to = { .sin_family = AF_INET };
static int in = -1, out = -1, peer = -1;

static long now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000L + at.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	long d = *(const long *)a - *(const long *)b;

	return d < 0 ? -1 : d > 0;
}

static void chill(int turn)
{
	uid_t real, effective, saved;

	getresuid(&real, &effective, &saved);
	/* in this order: the rename's own hook would see to the new user */
	if (rename(turn % 2 ? "/tmp/loop-b" : "/tmp/loop-a", turn % 2 ? "/tmp/loop-a" : "/tmp/loop-b") ||
	    setresuid(-1, saved, effective))
		exit(3);
}

static int no_setup(void)
{
	return 0;
}

static int open_file(void)
{
	in = open(path, O_RDONLY);
	out = open(path, O_WRONLY);
	return in < 0 || out < 0;
}

static int open_udp(void)
{
	out = socket(AF_INET, SOCK_DGRAM, 0);
	/* what is sent goes to a socket of ours, which drops it once it is full */
	peer = socket(AF_INET, SOCK_DGRAM, 0);
	return bind(peer, (struct sockaddr *)&to, sizeof(to));
}

static int open_tcp(void)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), again = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &again, sizeof(again));
	out = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&to, sizeof(to)) || listen(listener, 1) ||
	    connect(out, (struct sockaddr *)&to, sizeof(to)))
		return 1;
	peer = accept(listener, 0, 0);
	return peer < 0;
}

static int open_and_close(void)
{
	int file = open(path, O_RDONLY);

	return file < 0 || close(file);
}

static int read_byte(void)
{
	char byte;

	return pread(in, &byte, 1, 0) != 1;
}

static int write_byte(void)
{
	return pwrite(out, "x", 1, 0) != 1;
}

static int ends_well(pid_t child)
{
	int status;

	return child < 0 || waitpid(child, &status, 0) != child || status;
}

static int fork_and_exit(void)
{
	pid_t child = fork();

	if (!child)
		_exit(0);
	return ends_well(child);
}

static int fork_and_exec(void)
{
	pid_t child = fork();

	if (!child) {
		execl("/guest/runme", "runme", (char *)0);
		_exit(1);
	}
	return ends_well(child);
}

static int connect_udp(void)
{
	return connect(out, (struct sockaddr *)&to, sizeof(to));
}

static int send_udp(void)
{
	return sendto(out, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) != 1;
}

static int send_tcp(void)
{
	return send(out, "x", 1, 0) != 1;
}

/* emptied between two measurements */
static void drain(void)
{
	char bytes[64];

	while (peer >= 0 && recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

static const struct operation {
	const char *name;
	int (*setup)(void);
	int (*once)(void);
	int turns;
} operations[] = {
	/* clang-format off */
	{ "open", no_setup, open_and_close, TURNS },
	{ "read", open_file, read_byte, TURNS },
	{ "write", open_file, write_byte, TURNS },
	{ "exec", no_setup, fork_and_exec, TURNS / 8 },
	{ "fork", no_setup, fork_and_exit, TURNS / 8 },
	{ "connect", open_udp, connect_udp, TURNS },
	{ "sendto", open_udp, send_udp, TURNS },
	{ "send", open_tcp, send_tcp, TURNS },
	/* clang-format on */
};

int main(int argc, char **argv)
{
	const struct operation *operation = 0;
	long results[SERIES], cost = 1 << 30;
	int cold;

	if (argc != 6 || setresuid(atoi(argv[1]), atoi(argv[1]), 1003))
		return 2;
	for (unsigned int i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (!strcmp(operations[i].name, argv[2]))
			operation = &operations[i];
	cold = !strcmp(argv[3], "cold");
	path = argv[4];
	to.sin_port = htons(9999);
	inet_pton(AF_INET, argv[5], &to.sin_addr);
	if (!operation || operation->setup())
		return 4;
	for (int i = 0; i < 100; i++) {
		long start = now(), took = now() - start;

		if (took < cost)
			cost = took;
	}
	for (int series = 0; series < SERIES + 1; series++) {
		static long took[TURNS];

		for (int turn = 0; turn < operation->turns; turn++) {
			long start;

			if (cold)
				chill(turn);
			start = now();
			if (operation->once())
				return 5;
			took[turn] = now() - start - cost;
			drain();
		}
		qsort(took, operation->turns, sizeof(took[0]), compare);
		if (series)
			results[series - 1] = took[operation->turns / 2];
	}
	qsort(results, SERIES, sizeof(results[0]), compare);
	printf("%ld\n", results[SERIES / 2]);
	return 0;
}
