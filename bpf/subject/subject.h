/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Computes the rules that apply to the current task from its credentials, cgroup, executable and labels.
 */
#ifndef GUARD_SUBJECT_SUBJECT_H
#define GUARD_SUBJECT_SUBJECT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"
#include "subject/executable.h"

static __always_inline void match_user(void *table, struct id_match *t, __u32 id)
{
	guard_u64 sets;

	if (id == t->last)
		return;
	sets = sets_of(table, GUARD_ID_USER, id);
	t->last = id;
	t->any |= sets;
	t->all &= sets;
}

static __always_inline void match_users(void *table, struct id_match *t, const struct cred *cred)
{
	struct user_namespace *ns = cred->user_ns, *parent;
	int i;

	match_user(table, t, cred->uid.val);
	match_user(table, t, cred->euid.val);
	match_user(table, t, cred->suid.val);
	match_user(table, t, cred->fsuid.val);
	/* The owners of the nested user namespaces: a subordinate uid must not exempt its owner. */
	for (i = 0; i < GUARD_NAMESPACES; i++) {
		parent = BPF_CORE_READ(ns, parent);
		if (!parent)
			return;
		match_user(table, t, BPF_CORE_READ(ns, owner.val));
		ns = parent;
	}
	if (BPF_CORE_READ(ns, parent))
		t->truncated = 1;
}

static __always_inline void match_groups(void *table, struct id_match *t, const struct cred *cred)
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
		t->truncated = 1;
}

/* The automaton state of the task's cgroup, or -1 if it is unknown. */
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

/* The automaton state of the executable, or -1 if it is unknown. */
int guard_executable(__u32 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct file *file = task_executable(task, bpf_task_storage_get(&tasks, task, 0, 0));
	struct place at = {};

	if (!file || guard_place(slot, (__u64)BPF_CORE_READ(file, f_path.dentry), &at) || at.reason != GUARD_BY_RULE)
		return -1;
	return at.state;
}

/* Adds the rules that one subject set binds, and those that it exempts. A global function: otherwise the verifier
 * would follow it for each set in each program. */
__noinline int guard_join(__u32 slot, __u32 set, int binds, int exempts, struct task_cache *t)
{
	void *table = INNER_OF(subjects, slot);
	const struct guard_subject *s;

	if (!table || !t)
		return -1;
	s = bpf_map_lookup_elem(table, &set);
	if (!s)
		return 0;
	if (binds)
		guard_add(&t->subject.rules, &s->binds);
	if (exempts)
		guard_add(&t->exempted, &s->exempts);
	return 0;
}

/* Computes the rules that apply to the current task into *t. An unknown attribute binds and never exempts. */
int guard_bind(__u32 slot, int service, int exe, struct task_cache *t)
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
	t->subject.actions = 0;
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	table = INNER_OF(ids, slot);
	if (!table)
		return -1;
	__builtin_memset(&t->sets, 0, sizeof(t->sets));
	__builtin_memset(&t->exempted, 0, sizeof(t->exempted));
	__builtin_memset(&t->match, 0, sizeof(t->match));

	t->match.last = cred->uid.val;
	t->match.any = t->match.all = sets_of(table, GUARD_ID_USER, t->match.last);
	match_users(table, &t->match, cred);
	if (cred != real)
		match_users(table, &t->match, real);
	t->sets.user_bind = t->match.truncated ? t->match.any | ~(1ULL << GUARD_CANARY_SET) : t->match.any;
	t->sets.user_exempt = t->match.truncated ? 0 : t->match.all;

	if (bpf_core_field_exists(task->loginuid))
		t->sets.login = sets_of(table, GUARD_ID_LOGIN, task->loginuid.val);

	if (p->uses & GUARD_USES_GROUPS) {
		__builtin_memset(&t->match, 0, sizeof(t->match));
		match_groups(table, &t->match, cred);
		if (cred != real) {
			match_groups(table, &t->match, real);
			t->match.members = 0; /* Two lists: a group that is in only one of them does not exempt. */
		}
		t->sets.group_bind = t->match.truncated ? ~0ULL : t->match.any;
		t->sets.group_exempt = t->match.truncated ? 0 : t->match.members;
	}

	s = service < 0 ? 0 : state_of(slot, service);
	t->sets.service_bind = s ? s->services : ~0ULL;
	t->sets.service_exempt = s ? s->services : 0;
	s = exe < 0 ? 0 : state_of(slot, exe);
	t->sets.executable_bind = s ? s->executables : ~0ULL;
	t->sets.executable_exempt = s ? s->executables : 0;

	labels = t->labels;
	for (i = 0; i < GUARD_LABELS; i++) {
		if (!labels)
			break;
		t->sets.label |= sets_of(table, GUARD_ID_LABEL, guard_lowest(labels));
		labels &= labels - 1;
	}

	binding = guard_binding_sets(p, &t->sets);
	freeing = guard_exempting_sets(p, &t->sets);
	t->subject.rules = p->always;
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
	guard_remove(&t->subject.rules, &t->exempted);
	for (i = GUARD_READ; i <= GUARD_PLAIN; i++)
		if (guard_concerns(&t->subject.rules, &p->rules_by_action[i]))
			t->subject.actions |= 1U << i;
	return 0;
}

static __always_inline int bind_subject(const struct generation_ref *gen, __u32 uses, __u32 service_root,
					struct task_cache *t)
{
	int service = uses & GUARD_USES_SERVICES ? guard_service(gen->slot, service_root) : -1;
	int exe = uses & GUARD_USES_EXECUTABLES ? guard_executable(gen->slot) : -1;

	return guard_bind(gen->slot, service, exe, t);
}

#endif
