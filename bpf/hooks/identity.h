/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on what rules go by: a task must not change it to get rid of a rule.
 */
#ifndef GUARD_HOOKS_IDENTITY_H
#define GUARD_HOOKS_IDENTITY_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/former.h"
#include "decision/identity.h"
#include "decision/verdict.h"

/* Attached while no rule needs the program file_permission, which does the same. */
SEC("lsm/file_permission")
int BPF_PROG(file_permission__identity, struct file *file, int mask, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if((mask & (MAY_WRITE | MAY_APPEND)) && may_change_identity(file) && peek_generation(&gen) &&
		       refuse_identity(&gen, file));
}

/* A task that may give itself any group on the host, such as sshd, changes its groups on purpose. */
static __always_inline bool may_set_groups(const struct cred *old)
{
	return !BPF_CORE_READ(old, user_ns, level) && (capabilities(old) & (1ULL << CAP_SETGID));
}

SEC("lsm/task_fix_setgroups")
int BPF_PROG(task_fix_setgroups, struct cred *new, const struct cred *old, int ret)
{
	if (ret)
		return ret;
	return deny_if(!may_set_groups(old) && !keep_groups(old) && refuse_if_named(GUARD_CAPABILITY + CAP_SETGID));
}

SEC("lsm/task_fix_setgid")
int BPF_PROG(task_fix_setgid, struct cred *new, const struct cred *old, int flags, int ret)
{
	if (ret)
		return ret;
	return deny_if(!may_set_groups(old) && !keep_groups(old) && refuse_if_named(GUARD_CAPABILITY + CAP_SETGID));
}

/* Also adjtimex(2) and the hardware clock, which the hook settime does not see. */
SEC("lsm/capable")
int BPF_PROG(capable__clock, const struct cred *cred, struct user_namespace *ns, int cap, unsigned int options, int ret)
{
	if (ret)
		return ret;
	return deny_if(cap == CAP_SYS_TIME && refuse_if_named(GUARD_CAPABILITY + CAP_SYS_TIME));
}

#endif
