/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records what a task executes: at exec, and inherited at fork.
 */
#ifndef GUARD_HOOKS_TASK_H
#define GUARD_HOOKS_TASK_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "subject/task_label.h"
#include "subject/executable.h"
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
	return 0;
}

SEC("lsm/task_alloc")
int BPF_PROG(task_alloc, struct task_struct *child, unsigned long flags, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_cache *parent, *t;

	if (ret)
		return ret;
	if (!inherit_labels(child, flags) && refuse_lost_label(GUARD_EXECUTE))
		return -EPERM;
	parent = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!parent)
		return 0;
	task_executable(task, parent);
	if (!parent->recorded)
		return 0;
	t = bpf_task_storage_get(&tasks, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t)
		return 0;
	t->inode = parent->inode;
	t->device = parent->device;
	t->inode_generation = parent->inode_generation;
	t->recorded = 1;
	return 0;
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
