// Copyright (c) 2026 the exfil.guard authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
/* carry HOW FILE ADDRESS PORT: reads FILE and sends to ADDRESS, in two tasks that share memory. Ends with errno. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char **arguments;
static char buffer[64];
static volatile int result = -1, turn;

static int reads(void)
{
	int fd = open(arguments[2], O_RDONLY);

	if (fd < 0 || read(fd, buffer, sizeof(buffer)) < 0)
		return errno;
	close(fd);
	return 0;
}

static int sends(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(arguments[4])) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	inet_pton(AF_INET, arguments[3], &to.sin_addr);
	if (fd < 0 || sendto(fd, buffer, 1, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		return errno;
	close(fd);
	return 0;
}

static void *thread_sends(void *unused)
{
	while (!turn)
		usleep(1000);
	result = sends();
	return NULL;
}

static void *thread_reads(void *unused)
{
	while (!turn)
		usleep(1000);
	result = reads();
	return NULL;
}

static int clone_sends(void *unused)
{
	thread_sends(NULL);
	return 0;
}

static int clone_reads(void *unused)
{
	thread_reads(NULL);
	return 0;
}

/* the other task is there before anything happens; then one reads, after that the other sends */
static int apart(void *(*thread)(void *), int (*clone_)(void *), int first)
{
	static char stack[65536] __attribute__((aligned(16)));
	pthread_t other;
	int error = 0, child = 0;

	if (thread)
		pthread_create(&other, NULL, thread, NULL);
	else
		child = clone(clone_, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
	if (child < 0)
		return errno;
	usleep(20000);
	if (first)
		error = reads();
	turn = 1;
	if (thread)
		pthread_join(other, NULL);
	else
		waitpid(child, NULL, 0);
	if (error || result)
		return error ? error : result;
	return first ? 0 : sends();
}

int main(int argc, char **argv)
{
	const char *how = argv[1];
	int child;

	arguments = argv;
	if (!strcmp(how, "send"))
		return sends();
	if (!strcmp(how, "thread-sends"))
		return apart(thread_sends, NULL, 1);
	if (!strcmp(how, "thread-reads"))
		return apart(thread_reads, NULL, 0);
	if (!strcmp(how, "clone-sends"))
		return apart(NULL, clone_sends, 1);
	if (!strcmp(how, "clone-reads"))
		return apart(NULL, clone_reads, 0);
	if (!strcmp(how, "vfork-sends")) {
		result = reads();
		child = vfork();
		if (!child) {
			result = result ? result : sends();
			_exit(0);
		}
		waitpid(child, NULL, 0);
		return result;
	}
	if (!strcmp(how, "vfork-reads")) {
		child = vfork();
		if (!child) {
			result = reads();
			_exit(0);
		}
		waitpid(child, NULL, 0);
		return result ? result : sends();
	}
	/* what a vfork child executes labels the child alone */
	if (!strcmp(how, "vfork-executes")) {
		child = vfork();
		if (!child) {
			char *program[] = { argv[2], "/srv/open/file", NULL };

			execv(argv[2], program);
			_exit(1);
		}
		waitpid(child, NULL, 0);
		return sends();
	}
	return 255;
}
