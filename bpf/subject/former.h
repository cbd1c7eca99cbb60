/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records what a task gives up by its own action: a cgroup that it clones a child out of, and groups. What is recorded
 * goes on binding it, and its children.
 */
#ifndef GUARD_SUBJECT_FORMER_H
#define GUARD_SUBJECT_FORMER_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"

static __always_inline __u64 capabilities(const struct cred *cred)
{
	__u64 held = 0;

	/* one word or two, in the same 8 bytes */
	bpf_probe_read_kernel(&held, sizeof(held), __builtin_preserve_access_index(&cred->cap_effective));
	return held;
}

/* The host's first process. */
static __always_inline bool is_first_process(const struct task_struct *task)
{
	return task->tgid == 1;
}

/* True for a child of the host's first process that is in the same cgroup as that. */
static __always_inline bool is_in_cgroup_of_init(struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	return BPF_CORE_READ(parent, tgid) == 1 && BPF_CORE_READ(parent, cgroups, dfl_cgrp, kn, id) == cgroup_of(task);
}

/* True if the current task may put itself or others into any cgroup: it is the host's first process, or a child that
 * this has forked and that has not yet moved to the cgroup of its unit. */
static __noinline bool starts_services(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct task_cache *t;

	if (is_first_process(task))
		return 1;
	t = bpf_task_storage_get(&tasks, task, 0, 0);
	return t && (t->recorded & IDENTITY_INIT_CHILD) && is_in_cgroup_of_init(task);
}

/* The path of the current task's cgroup. */
static __noinline int record_cgroup(struct former_identity *f)
{
	struct kernfs_node *node = bpf_get_current_task_btf()->cgroups->dfl_cgrp->kn, *parent;
	__u32 i;
	long size;

	if (!f)
		return 0;
	f->depth = FORMER_UNKNOWN;
	GUARD_UNROLL
	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		parent = parent_of(node);
		if (!parent) {
			f->depth = i;
			return 0;
		}
		size = bpf_probe_read_kernel_str(f->name[i], FORMER_NAME, BPF_CORE_READ(node, name));
		if (size <= 0 || size == FORMER_NAME)
			return 0; /* it may be longer */
		node = parent;
	}
	if (!parent_of(node))
		f->depth = i;
	return 0;
}

static __noinline int record_groups(struct former_identity *f, const struct cred *cred)
{
	const struct group_info *info = BPF_CORE_READ(cred, group_info);
	__u32 count = BPF_CORE_READ(info, ngroups), size = count * sizeof(__u32);

	if (!f)
		return 0;
	f->groups = FORMER_UNKNOWN;
	f->group[0] = BPF_CORE_READ(cred, gid.val);
	f->group[1] = BPF_CORE_READ(cred, egid.val);
	f->group[2] = BPF_CORE_READ(cred, sgid.val);
	f->group[3] = BPF_CORE_READ(cred, fsgid.val);
	barrier_var(size);
	if (count > GUARD_GROUPS || size > GUARD_GROUPS * sizeof(__u32))
		return 0;
	if (size && bpf_probe_read_kernel(&f->group[4], size, &info->gid[0]))
		return 0;
	f->groups = count + 4;
	return 0;
}

/* Passes on what the current task gave up; `leaves`: the child starts in another cgroup. What cannot be recorded
 * counts as unknown. */
static __noinline int inherit_former(struct task_struct *child, struct task_cache *t, __u32 recorded, bool leaves)
{
	struct former_identity *own, *f;

	if (!t)
		return 0;
	t->recorded |= recorded & IDENTITY_FORMER;
	f = bpf_task_storage_get(&former, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!f) {
		t->recorded |= IDENTITY_UNKNOWN;
		return 0;
	}
	if (recorded & (IDENTITY_CGROUP | IDENTITY_GROUPS)) {
		own = bpf_task_storage_get(&former, bpf_get_current_task_btf(), 0, 0);
		if (!own || bpf_probe_read_kernel(f, sizeof(*f), own)) {
			t->recorded |= IDENTITY_UNKNOWN;
			return 0;
		}
	}
	if (leaves && !(recorded & IDENTITY_CGROUP)) {
		record_cgroup(f);
		t->recorded |= IDENTITY_CGROUP;
	}
	return 0;
}

/* The groups of `old`, before the current task gives some of them up. Those that it gave up first stay. Returns false
 * if nothing can be recorded. */
static __noinline bool keep_groups(const struct cred *old)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct former_identity *f;
	struct task_cache *t = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!t)
		return 0;
	if (t->recorded & IDENTITY_GROUPS)
		return 1;
	t->generation = 0; /* what is cached was computed without */
	f = bpf_task_storage_get(&former, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!f) {
		t->recorded |= IDENTITY_UNKNOWN;
		return 1;
	}
	record_groups(f, old);
	t->recorded |= IDENTITY_GROUPS;
	return 1;
}

#endif
