/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Opens its last argument and exits with errno. Before that, as told:
 *   -f        forks; the child opens
 *   -m OTHER  makes OTHER its /proc/self/exe by PR_SET_MM_MAP, which a user may do in a user namespace of his own
 * The trick needs every mapping of the old program gone, so each is replaced by an anonymous copy first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 200;
}

static void to_memory(void)
{
	static struct {
		unsigned long from, to;
		int prot;
	} found[64];
	char line[512], self[256], r, w, x;
	int count = 0;
	FILE *maps;
	ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[size > 0 ? size : 0] = 0;
	maps = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof(line), maps) && count < 64)
		if (strstr(line, self) &&
		    sscanf(line, "%lx-%lx %c%c%c", &found[count].from, &found[count].to, &r, &w, &x) == 5) {
			found[count].prot =
				(r == 'r' ? PROT_READ : 0) | (w == 'w' ? PROT_WRITE : 0) | (x == 'x' ? PROT_EXEC : 0);
			count++;
		}
	fclose(maps);
	for (int i = 0; i < count; i++) {
		size_t length = found[i].to - found[i].from;
		void *copy = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		memcpy(copy, (void *)found[i].from, length);
		mprotect(copy, length, found[i].prot);
		mremap(copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, found[i].from);
	}
}

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	int wrong = fd < 0 || write(fd, text, strlen(text)) < 0;

	if (fd >= 0)
		close(fd);
	return wrong;
}

static int become(const char *other)
{
	struct prctl_mm_map map = {};
	char text[4096], *at;
	int fd, n, uid = getuid(), gid = getgid();

	if (unshare(CLONE_NEWUSER))
		return fail("unshare");
	put("/proc/self/setgroups", "deny");
	snprintf(text, sizeof(text), "0 %d 1", uid);
	if (put("/proc/self/uid_map", text))
		return fail("uid_map");
	snprintf(text, sizeof(text), "0 %d 1", gid);
	put("/proc/self/gid_map", text);

	fd = open("/proc/self/stat", O_RDONLY);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	at = strrchr(text, ')') + 2;
	for (int i = 3; i < 53 && at; i++) {
		unsigned long value = strtoul(at, NULL, 10);

		at = strchr(at, ' ');
		if (at)
			at++;
		switch (i) {
		case 26:
			map.start_code = value;
			break;
		case 27:
			map.end_code = value;
			break;
		case 28:
			map.start_stack = value;
			break;
		case 45:
			map.start_data = value;
			break;
		case 46:
			map.end_data = value;
			break;
		case 47:
			map.start_brk = value;
			break;
		case 48:
			map.arg_start = value;
			break;
		case 49:
			map.arg_end = value;
			break;
		case 50:
			map.env_start = value;
			break;
		case 51:
			map.env_end = value;
			break;
		}
	}
	map.brk = (unsigned long)sbrk(0);
	to_memory();
	map.exe_fd = open(other, O_RDONLY | O_CLOEXEC);
	if ((int)map.exe_fd < 0)
		return fail(other);
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0))
		return fail("PR_SET_MM_MAP");
	close(map.exe_fd);
	n = readlink("/proc/self/exe", text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = 0;
	if (strcmp(text, other)) {
		fprintf(stderr, "still %s\n", text);
		return 201;
	}
	return 0;
}

int main(int argc, char **argv)
{
	int status;

	for (int i = 1; i < argc - 1; i++) {
		if (!strcmp(argv[i], "-m")) {
			status = become(argv[++i]);
			if (status)
				return status;
		} else if (!strcmp(argv[i], "-f") && fork()) {
			wait(&status);
			return WIFEXITED(status) ? WEXITSTATUS(status) : 202;
		}
	}
	return open(argv[argc - 1], O_RDONLY) < 0 ? errno : 0;
}
