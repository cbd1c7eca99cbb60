/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A peer for the benchmark: what BPF LSM policies usually do, the path as a string and a comparison with each rule's.
 */
#include "abi/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define ROOM 256
#define LENGTH 15 /* of each prefix below */

static const char prefixes[6][LENGTH + 1] = {
	"/srv/closed/00/", "/srv/closed/01/", "/srv/closed/02/",
	"/srv/closed/03/", "/srv/closed/04/", "/srv/closed/05/",
};

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	char path[ROOM] = {};
	unsigned int i, at;

	if (ret)
		return ret;
	if (bpf_d_path(&file->f_path, path, sizeof(path)) < 0)
		return -EPERM;
	for (i = 0; i < 6; i++) {
		for (at = 0; at < LENGTH; at++)
			if (path[at] != prefixes[i][at])
				break;
		if (at == LENGTH)
			return -EPERM;
	}
	return 0;
}
