// Copyright (c) 2026 the exfil.guard authors
// GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
/* uring [-a] connect ADDRESS PORT | send ADDRESS PORT: one step on a TCP connection through an io_uring, the rest by
 * plain calls. -a: by a worker of the kernel's. Exits with the errno. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int submit(struct io_uring_sqe wanted)
{
	struct io_uring_params p = { 0 };
	int ring = syscall(__NR_io_uring_setup, 4, &p);
	char *sq, *cq;
	struct io_uring_sqe *entries;
	struct io_uring_cqe *done;

	if (ring < 0)
		return errno;
	sq = mmap(0, p.sq_off.array + p.sq_entries * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		  IORING_OFF_SQ_RING);
	cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(*done), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		  IORING_OFF_CQ_RING);
	entries = mmap(0, p.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || entries == MAP_FAILED)
		return errno;
	entries[0] = wanted;
	((uint32_t *)(sq + p.sq_off.array))[0] = 0;
	atomic_store((_Atomic uint32_t *)(sq + p.sq_off.tail), 1);
	if (syscall(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0)
		return errno;
	done = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return done->res < 0 ? -done->res : 0;
}

int main(int count, char **word)
{
	struct io_uring_sqe wanted = { 0 };
	struct sockaddr_in to = { .sin_family = AF_INET };
	int one = socket(AF_INET, SOCK_STREAM, 0);

	if (count > 1 && !strcmp(word[1], "-a")) {
		wanted.flags = IOSQE_ASYNC;
		word++;
		count--;
	}
	if (count < 4 || one < 0)
		return 255;
	inet_pton(AF_INET, word[2], &to.sin_addr);
	to.sin_port = htons(atoi(word[3]));
	wanted.fd = one;
	if (!strcmp(word[1], "connect")) {
		wanted.opcode = IORING_OP_CONNECT;
		wanted.addr = (uintptr_t)&to;
		wanted.off = sizeof(to);
	} else {
		if (connect(one, (struct sockaddr *)&to, sizeof(to)))
			return errno;
		wanted.opcode = IORING_OP_SEND;
		wanted.addr = (uintptr_t) "x";
		wanted.len = 1;
	}
	return submit(wanted);
}
