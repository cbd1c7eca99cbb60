/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * loop USER open|connect warm|cold WHERE: nanoseconds, which are guest instructions under -icount shift=0, of open+close or
 * of a UDP connect; the median of series, the first of which is left out. Cold: before each one an unrelated rename has
 * moved the kernel's rename sequence and the task has another effective user. Started as root: exec would set the saved id.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SERIES 9
#define TURNS 200

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

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	long results[SERIES], cost = 1 << 30;
	int connecting, cold, fd;

	if (argc != 5 || setresuid(atoi(argv[1]), atoi(argv[1]), 1003))
		return 2;
	argv++;
	connecting = !strcmp(argv[1], "connect");
	cold = !strcmp(argv[2], "cold");
	inet_pton(AF_INET, argv[3], &to.sin_addr);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	for (int i = 0; i < 100; i++) {
		long start = now(), took = now() - start;

		if (took < cost)
			cost = took;
	}
	for (int series = 0; series < SERIES + 1; series++) {
		static long took[TURNS];

		for (int turn = 0; turn < TURNS; turn++) {
			long start;

			if (cold)
				chill(turn);
			start = now();
			if (connecting) {
				if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
					return 4;
			} else {
				int file = open(argv[3], O_RDONLY);

				if (file < 0)
					return 5;
				close(file);
			}
			took[turn] = now() - start - cost;
		}
		qsort(took, TURNS, sizeof(took[0]), compare);
		if (series)
			results[series - 1] = took[TURNS / 2];
	}
	qsort(results, SERIES, sizeof(results[0]), compare);
	printf("%ld\n", results[SERIES / 2]);
	return 0;
}
