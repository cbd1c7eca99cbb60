/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Extended attributes, by their names.
 */
#ifndef GUARD_OBJECT_ATTRIBUTE_H
#define GUARD_OBJECT_ATTRIBUTE_H

#include "abi/bpf.h"

/* The attributes that hold data of somebody's. */
static __always_inline bool of_users(const char *name)
{
	char start[8] = {};

	bpf_probe_read_kernel_str(start, 6, name);
	return *(__u64 *)start == *(const __u64 *)"user.\0\0";
}

#endif
