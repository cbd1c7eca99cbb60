/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records what a task executes, and what it left: at exec, and inherited at fork.
 */
#ifndef GUARD_HOOKS_TASK_H
#define GUARD_HOOKS_TASK_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "subject/task_label.h"
#include "subject/executable.h"
#include "subject/former.h"
#include "decision/identity.h"
#include "decision/verdict.h"
#include "label/flow.h"

SEC("lsm/bprm_committed_creds")
int BPF_PROG(bprm_committed_creds, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_cache *t;

	/* A decision may have been cached since the new cred was installed. */
	cred_cache_drop(task->cred);
	commit_exec_labels();
	t = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t)
		return 0;
	t->generation = 0;
	record_executable(t, bprm->file->f_inode);
	if ((t->recorded & IDENTITY_INIT_CHILD) && !is_in_cgroup_of_init(task))
		t->recorded &= ~IDENTITY_INIT_CHILD;
	return 0;
}

/* Records in the child what the current task is and what it left. Returns false if there is no room. */
static __always_inline bool inherit_identity(struct task_struct *child, const struct task_cache *parent, bool first,
					     bool leaves)
{
	__u32 recorded = parent ? parent->recorded : IDENTITY_UNKNOWN;
	struct task_cache *t;

	if (!recorded && !leaves)
		return 1;
	t = bpf_task_storage_get(&tasks, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t)
		return !leaves && !(recorded & IDENTITY_FORMER);
	if (parent) {
		t->inode = parent->inode;
		t->device = parent->device;
		t->inode_generation = parent->inode_generation;
	}
	t->recorded = recorded & IDENTITY_EXECUTABLE;
	if (first)
		t->recorded |= IDENTITY_INIT_CHILD;
	if (leaves || (recorded & IDENTITY_FORMER))
		inherit_former(child, t, recorded, leaves);
	return 1;
}

SEC("lsm/task_alloc")
int BPF_PROG(task_alloc, struct task_struct *child, unsigned long flags, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool first = is_first_process(task);
	bool leaves = (flags & CLONE_INTO_CGROUP) && !first;
	bool unlabelled, untracked, twice;
	struct generation_ref gen;
	struct task_cache *parent;

	if (ret)
		return ret;
	unlabelled = !inherit_labels(child, flags);
	parent = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (parent)
		task_executable(task, parent);
	untracked = !inherit_identity(child, parent, first, leaves);
	/* Of two cgroups that it left, only one can be recorded. */
	twice = leaves && parent && (parent->recorded & IDENTITY_CGROUP);
	if (!unlabelled && !untracked && !twice)
		return 0;
	if (!active_generation(&gen))
		return 0;
	if (unlabelled && refuse_unlabelled(&gen, GUARD_EXECUTE, 0))
		return -EPERM;
	if (twice && refuse_leaving(&gen))
		return -EPERM;
	return deny_if(untracked && refuse_named(&gen, GUARD_EXECUTE));
}

/* Invalidate the cache before the cred's memory is reused. */
SEC("lsm/cred_free")
int BPF_PROG(cred_free, struct cred *cred)
{
	cred_cache_drop(cred);
	return 0;
}

/* Attached only while labels are in use. */
SEC("lsm/bprm_creds_for_exec")
int BPF_PROG(bprm_creds_for_exec, struct linux_binprm *bprm, int ret)
{
	if (ret)
		return ret;
	return deny_if(!prepare_exec_labels() && refuse_lost_label(GUARD_EXECUTE));
}

SEC("lsm/task_free")
int BPF_PROG(task_free, struct task_struct *task)
{
	drop_task_label(task);
	return 0;
}

#endif
