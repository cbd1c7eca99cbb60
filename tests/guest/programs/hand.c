/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A program that does one small thing, told by its arguments:
 *   touch PATH         makes the file: it ran
 *   ran PATH           makes the file PATH.ran
 *   cat FD             copies the descriptor to its standard output
 *   open PATH          copies the file to its standard output
 *   send ADDRESS PORT FD   sends what the descriptor gives, by TCP over IPv4
 *   hold               puts what its standard input gives into memory, prints where, waits
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char data[65536];

static int copy(int from)
{
	ssize_t size = read(from, data, sizeof(data));

	if (size < 0)
		return errno;
	return write(1, data, size) == size ? 0 : errno;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "touch") && argc > 2)
		return open(argv[2], O_CREAT | O_WRONLY, 0666) < 0 ? errno : 0;
	if (!strcmp(what, "ran") && argc > 2) {
		snprintf(data, sizeof(data), "%s.ran", argv[2]);
		return open(data, O_CREAT | O_WRONLY, 0666) < 0 ? errno : 0;
	}
	if (!strcmp(what, "cat") && argc > 2)
		return copy(atoi(argv[2]));
	if (!strcmp(what, "open") && argc > 2) {
		int fd = open(argv[2], O_RDONLY);

		return fd < 0 ? errno : copy(fd);
	}
	if (!strcmp(what, "send") && argc > 4) {
		struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[3])) };
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		ssize_t size = read(atoi(argv[4]), data, sizeof(data));

		inet_pton(AF_INET, argv[2], &to.sin_addr);
		if (size < 0 || connect(fd, (void *)&to, sizeof(to)))
			return errno;
		return send(fd, data, size, 0) == size ? 0 : errno;
	}
	if (!strcmp(what, "hold")) {
		ssize_t size = read(0, data, sizeof(data));

		printf("%p %zd\n", (void *)data, size);
		fflush(stdout);
		pause();
	}
	return 255;
}
