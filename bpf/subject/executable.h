/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The file that a task executes.
 */
#ifndef GUARD_SUBJECT_EXECUTABLE_H
#define GUARD_SUBJECT_EXECUTABLE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"

static __always_inline void record_executable(struct task_cache *t, const struct inode *inode)
{
	t->inode = BPF_CORE_READ(inode, i_ino);
	t->inode_generation = BPF_CORE_READ(inode, i_generation);
	t->device = BPF_CORE_READ(inode, i_sb, s_dev);
	t->recorded |= IDENTITY_EXECUTABLE;
}

/* The file that the task executes, or NULL. The record made at exec decides: mm->exe_file can be changed in a user
 * namespace, so it counts only if it is the recorded file, or if the task is older than the enforcer. */
static __always_inline const struct file *task_executable(struct task_struct *task, struct task_cache *t)
{
	const struct mm_struct *mm = task->mm;
	const struct inode *inode;
	const struct file *file;
	struct guard_facts *f;
	__u32 zero = 0;

	if (!mm || !t)
		return 0;
	file = BPF_CORE_READ(mm, exe_file);
	if (!file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if (!(t->recorded & IDENTITY_EXECUTABLE)) {
		f = bpf_map_lookup_elem(&facts, &zero);
		if (!f || task->start_boottime >= f->loaded)
			return 0;
		record_executable(t, inode);
		return file;
	}
	if (t->inode != BPF_CORE_READ(inode, i_ino) || t->device != BPF_CORE_READ(inode, i_sb, s_dev) ||
	    t->inode_generation != BPF_CORE_READ(inode, i_generation))
		return 0;
	return file;
}

#endif
