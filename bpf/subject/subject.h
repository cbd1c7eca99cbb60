/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who acts: the rules that bind the current task, worked out from its credentials, cgroup, executable and labels.
 */
#ifndef GUARD_SUBJECT_SUBJECT_H
#define GUARD_SUBJECT_SUBJECT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"
#include "subject/executable.h"

static __always_inline void count_user(void *table, struct tally *t, __u32 id)
{
	guard_u64 sets;

	if (id == t->last)
		return;
	sets = sets_of(table, GUARD_ID_USER, id);
	t->last = id;
	t->any |= sets;
	t->all &= sets;
}

static __always_inline void count_users(void *table, struct tally *t, const struct cred *cred)
{
	struct user_namespace *ns = cred->user_ns, *parent;
	int i;

	count_user(table, t, cred->uid.val);
	count_user(table, t, cred->euid.val);
	count_user(table, t, cred->suid.val);
	count_user(table, t, cred->fsuid.val);
	/* the owner of each namespace above the first: a subordinate uid does not free its owner */
	for (i = 0; i < GUARD_NAMESPACES; i++) {
		parent = BPF_CORE_READ(ns, parent);
		if (!parent)
			return;
		count_user(table, t, BPF_CORE_READ(ns, owner.val));
		ns = parent;
	}
	if (BPF_CORE_READ(ns, parent))
		t->cut = 1;
}

static __always_inline void count_groups(void *table, struct tally *t, const struct cred *cred)
{
	const struct group_info *info = cred->group_info;
	int n = BPF_CORE_READ(info, ngroups), i;
	__u32 ids[4] = { cred->gid.val, cred->egid.val, cred->sgid.val, cred->fsgid.val };

	t->members |= sets_of(table, GUARD_ID_GROUP, ids[0]);
	for (i = 0; i < 4; i++)
		t->any |= sets_of(table, GUARD_ID_GROUP, ids[i]);
	for (i = 0; i < GUARD_GROUPS; i++) {
		__u32 id = 0;
		guard_u64 sets;

		if (i >= n)
			return;
		bpf_probe_read_kernel(&id, sizeof(id), &info->gid[i]);
		sets = sets_of(table, GUARD_ID_GROUP, id);
		t->any |= sets;
		t->members |= sets;
	}
	if (n > GUARD_GROUPS)
		t->cut = 1;
}

/* The automaton's state for the task's cgroup; -1: it could not be told. */
int guard_service(__u32 slot, __u32 root)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct kernfs_node *node = task->cgroups->dfl_cgrp->kn, *parent;
	__u64 chain[GUARD_CGROUP_DEPTH];
	__u32 depth = 0, i;
	int state = root;

	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		parent = parent_of(node);
		if (!parent)
			break;
		chain[i & (GUARD_CGROUP_DEPTH - 1)] = (__u64)node;
		depth++;
		node = parent;
	}
	if (parent_of(node))
		return -1;
	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		if (!depth || state <= 0)
			break;
		depth--;
		node = (struct kernfs_node *)chain[depth & (GUARD_CGROUP_DEPTH - 1)];
		state = guard_step(slot, state, (__u64)BPF_CORE_READ(node, name));
	}
	return state;
}

/* The automaton's state for the executable; -1: it is not known. */
int guard_executable(__u32 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct file *file = executable(task, bpf_task_storage_get(&tasks, task, 0, 0));
	struct place place = {};

	if (!file || guard_place(slot, (__u64)BPF_CORE_READ(file, f_path.dentry), &place) ||
	    place.reason != GUARD_BY_RULE)
		return -1;
	return place.state;
}

/* The rules that one set of subjects binds, and frees. A global function: the verifier would follow it anew for each set,
 * in each of the programs. */
__noinline int guard_join(__u32 slot, __u32 set, int binds, int frees, struct task *t)
{
	void *table = INNER_OF(subjects, slot);
	const struct guard_subject *s;

	if (!table || !t)
		return -1;
	s = bpf_map_lookup_elem(table, &set);
	if (!s)
		return 0;
	if (binds)
		guard_add(&t->bound.rules, &s->binds);
	if (frees)
		guard_add(&t->freed, &s->frees);
	return 0;
}

/* Works out which rules bind the current task, into *t. Whatever can't be told binds and does not free. */
int guard_bind(__u32 slot, int service, int exe, struct task *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred, *real = task->real_cred;
	const struct guard_policy *p;
	const struct guard_state *s;
	guard_u64 binding, freeing, labels;
	__u32 zero = 0, i;
	void *table;

	if (!t)
		return -1;
	t->bound.actions = 0;
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	table = INNER_OF(ids, slot);
	if (!table)
		return -1;
	__builtin_memset(&t->who, 0, sizeof(t->who));
	__builtin_memset(&t->freed, 0, sizeof(t->freed));
	__builtin_memset(&t->tally, 0, sizeof(t->tally));

	t->tally.last = cred->uid.val;
	t->tally.any = t->tally.all = sets_of(table, GUARD_ID_USER, t->tally.last);
	count_users(table, &t->tally, cred);
	if (cred != real)
		count_users(table, &t->tally, real);
	t->who.user_bind = t->tally.cut ? t->tally.any | ~(1ULL << GUARD_CANARY_SET) : t->tally.any;
	t->who.user_free = t->tally.cut ? 0 : t->tally.all;

	if (bpf_core_field_exists(task->loginuid))
		t->who.login = sets_of(table, GUARD_ID_LOGIN, task->loginuid.val);

	if (p->uses & GUARD_USES_GROUPS) {
		__builtin_memset(&t->tally, 0, sizeof(t->tally));
		count_groups(table, &t->tally, cred);
		if (cred != real) {
			count_groups(table, &t->tally, real);
			t->tally.members = 0; /* two lists: whoever is in only one of them is not freed */
		}
		t->who.group_bind = t->tally.cut ? ~0ULL : t->tally.any;
		t->who.group_free = t->tally.cut ? 0 : t->tally.members;
	}

	s = service < 0 ? 0 : state_of(slot, service);
	t->who.service_bind = s ? s->services : ~0ULL;
	t->who.service_free = s ? s->services : 0;
	s = exe < 0 ? 0 : state_of(slot, exe);
	t->who.executable_bind = s ? s->executables : ~0ULL;
	t->who.executable_free = s ? s->executables : 0;

	labels = t->labels;
	for (i = 0; i < GUARD_LABELS; i++) {
		if (!labels)
			break;
		t->who.label |= sets_of(table, GUARD_ID_LABEL, guard_lowest(labels));
		labels &= labels - 1;
	}

	binding = guard_binding_sets(p, &t->who);
	freeing = guard_freeing_sets(p, &t->who);
	t->bound.rules = p->always;
	for (i = 0; i < GUARD_SETS; i++) {
		guard_u64 sets = binding | freeing;

		if (!sets)
			break;
		sets &= -sets;
		if (guard_join(slot, guard_lowest(sets), !!(binding & sets), !!(freeing & sets), t))
			return -1;
		binding &= ~sets;
		freeing &= ~sets;
	}
	guard_remove(&t->bound.rules, &t->freed);
	for (i = GUARD_READ; i <= GUARD_PLAIN; i++)
		if (guard_concerns(&t->bound.rules, &p->of_action[i]))
			t->bound.actions |= 1U << i;
	return 0;
}

static __always_inline int bind(const struct view *v, __u32 uses, __u32 service_root, struct task *t)
{
	int service = uses & GUARD_USES_SERVICES ? guard_service(v->slot, service_root) : -1;
	int exe = uses & GUARD_USES_EXECUTABLES ? guard_executable(v->slot) : -1;

	return guard_bind(v->slot, service, exe, t);
}

#endif
