/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Extended attributes by name.
 */
#ifndef GUARD_OBJECT_XATTR_H
#define GUARD_OBJECT_XATTR_H

#include "abi/bpf.h"

/* True for attributes that hold user data. */
static __always_inline bool is_user_xattr(const char *name)
{
	char start[8] = {};

	bpf_probe_read_kernel_str(start, 6, name);
	return *(__u64 *)start == *(const __u64 *)"user.\0\0";
}

#endif
