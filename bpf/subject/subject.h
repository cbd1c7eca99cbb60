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
#include "subject/task_label.h"

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

/* The groups that the task gave up bind it and do not exempt it. */
static __always_inline void match_former_groups(void *table, struct id_match *t, __u32 recorded)
{
	const struct former_identity *f = bpf_task_storage_get(&former, bpf_get_current_task_btf(), 0, 0);
	__u32 i;

	if (!f || (recorded & IDENTITY_UNKNOWN) || f->groups > FORMER_GROUPS) {
		t->truncated = 1;
		return;
	}
	for (i = 0; i < FORMER_GROUPS; i++) {
		if (i >= f->groups)
			return;
		t->any |= sets_of(table, GUARD_ID_GROUP, f->group[i]);
	}
}

/* The automaton state of a cgroup, or -1 if it is unknown. */
int guard_service(__u32 slot, __u32 root, __u64 cgroup, struct task_cache *t)
{
	struct kernfs_node *node = (struct kernfs_node *)cgroup, *parent;
	__u32 depth = 0, i;
	int state = root;

	if (!t)
		return -1;
	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		parent = parent_of(node);
		if (!parent)
			break;
		t->chain[i & (GUARD_CGROUP_DEPTH - 1)] = (__u64)node;
		depth++;
		node = parent;
	}
	if (parent_of(node))
		return -1;
	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		if (!depth || state <= 0)
			break;
		depth--;
		node = (struct kernfs_node *)t->chain[depth & (GUARD_CGROUP_DEPTH - 1)];
		state = guard_step(slot, state, (__u64)BPF_CORE_READ(node, name));
	}
	return state;
}

#define NEVER_LEFT (-2)

/* The automaton state of the cgroup that the task was cloned out of; -1 if it is unknown. */
__noinline int guard_former_service(__u32 slot, __u32 root, struct task_cache *t)
{
	const struct former_identity *f;
	int state = root;
	__u32 depth, i;

	if (!t || (t->recorded & IDENTITY_UNKNOWN))
		return -1;
	if (!(t->recorded & IDENTITY_CGROUP))
		return NEVER_LEFT;
	f = bpf_task_storage_get(&former, bpf_get_current_task_btf(), 0, 0);
	if (!f)
		return -1;
	depth = f->depth;
	if (depth > GUARD_CGROUP_DEPTH)
		return -1;
	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		if (!depth || state <= 0)
			break;
		depth--;
		state = guard_step(slot, state, ptr_to_u64(f->name[depth & (GUARD_CGROUP_DEPTH - 1)]));
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

/* Which sets bind and which exempt a task, in the scratch space: stack is short. */
static __always_inline void match_sets(struct task_cache *t, guard_u64 binding, guard_u64 exempting)
{
	t->match.any = binding;
	t->match.all = exempting;
}

/* Computes the rules of these sets into *t. Returns -1 if it cannot. */
int guard_select(__u32 slot, struct task_cache *t)
{
	const struct guard_policy *p;
	guard_u64 binding, freeing;
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
	binding = t->match.any;
	freeing = t->match.all;
	__builtin_memset(&t->exempted, 0, sizeof(t->exempted));
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

/* Computes which sets match the current task into *t; t->match has the states of its service. An unknown attribute binds and never exempts. */
int guard_bind(__u32 slot, int exe, struct task_cache *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred, *real = task->real_cred;
	const struct guard_policy *p;
	const struct guard_state *s;
	guard_u64 labels;
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
	s = t->match.service < 0 ? 0 : state_of(slot, t->match.service);
	t->sets.service_bind = s ? s->services : ~0ULL;
	t->sets.service_exempt = s ? s->services : 0;
	if (t->match.left != NEVER_LEFT) {
		s = t->match.left < 0 ? 0 : state_of(slot, t->match.left);
		t->sets.service_bind |= s ? s->services : ~0ULL;
		t->sets.service_exempt &= s ? s->services : 0;
	}
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
		if (t->recorded & (IDENTITY_GROUPS | IDENTITY_UNKNOWN))
			match_former_groups(table, &t->match, t->recorded);
		t->sets.group_bind = t->match.truncated ? ~0ULL : t->match.any;
		t->sets.group_exempt = t->match.truncated ? 0 : t->match.members;
	}

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

	match_sets(t, guard_binding_sets(p, &t->sets), guard_exempting_sets(p, &t->sets));
	return 0;
}

/* Finds what the policy uses and the states of the task's service, into *t. Returns false without a policy. */
static __noinline bool prepare_subject(const struct generation_ref *gen, struct task_cache *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct guard_policy *p;
	__u32 uses, root;

	if (!gen || !t)
		return 0;
	p = policy_of(gen);
	if (!p)
		return 0;
	uses = p->uses;
	root = p->service_root;
	t->uses = uses;
	t->labels = uses & GUARD_USES_LABELS ? current_labels() : 0;
	t->match.service = -1;
	t->match.left = NEVER_LEFT;
	if (uses & GUARD_USES_SERVICES) {
		t->match.left = guard_former_service(gen->slot, root, t);
		t->match.service = guard_service(gen->slot, root, ptr_to_u64(task->cgroups->dfl_cgrp->kn), t);
	}
	return 1;
}

static __always_inline int bind_subject(const struct generation_ref *gen, struct task_cache *t)
{
	int exe = t->uses & GUARD_USES_EXECUTABLES ? guard_executable(gen->slot) : -1;

	return guard_bind(gen->slot, exe, t) || guard_select(gen->slot, t);
}

#endif
