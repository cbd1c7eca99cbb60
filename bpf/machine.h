/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on what a task may do to the machine at all: actions without an object.
 */
#ifndef GUARD_MACHINE_H
#define GUARD_MACHINE_H

SEC("lsm/userns_create")
int BPF_PROG(userns_create, const struct cred *cred, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_plain(GUARD_USER_NAMESPACE));
}

#endif
