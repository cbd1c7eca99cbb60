/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a task executes, recorded at exec and handed on at fork.
 */
#ifndef GUARD_HOOKS_TASK_H
#define GUARD_HOOKS_TASK_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "subject/carrier.h"
#include "subject/executable.h"
#include "decision/verdict.h"
#include "label/flow.h"

SEC("lsm/bprm_committed_creds")
int BPF_PROG(bprm_committed_creds, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task *t;

	/* something may have been decided since the new cred was in place */
	forget(task->cred);
	after_exec();
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
	struct task *parent, *t;

	if (ret)
		return ret;
	if (!hand_on_labels(child, flags) && refuse_lost_label(GUARD_EXECUTE))
		return -EPERM;
	parent = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!parent)
		return 0;
	executable(task, parent);
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

/* Before its memory is another's. */
SEC("lsm/cred_free")
int BPF_PROG(cred_free, struct cred *cred)
{
	forget(cred);
	return 0;
}

/* Attached while labels are in use. */
SEC("lsm/bprm_creds_for_exec")
int BPF_PROG(bprm_creds_for_exec, struct linux_binprm *bprm, int ret)
{
	if (ret)
		return ret;
	return answer(!before_exec() && refuse_lost_label(GUARD_EXECUTE));
}

SEC("lsm/task_free")
int BPF_PROG(task_free, struct task_struct *task)
{
	forget_task(task);
	return 0;
}

#endif
