/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The rules that bind the current task, cached in its storage and by its credentials.
 */
#ifndef GUARD_SUBJECT_CACHE_H
#define GUARD_SUBJECT_CACHE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/carrier.h"
#include "subject/subject.h"

static __noinline int read_groups(const struct cred *cred, struct group_list *list)
{
	const struct group_info *info = cred->group_info;
	__u32 size;

	if (!list)
		return -1;
	__builtin_memset(list, 0, sizeof(*list));
	list->count = info->ngroups;
	size = list->count * sizeof(__u32);
	barrier_var(size);
	if (list->count > CACHED_GROUPS || size > sizeof(list->ids))
		return -1;
	return size ? bpf_probe_read_kernel(list->ids, size, &info->gid[0]) : 0;
}

static __noinline bool same_groups(const struct cred *cred, const struct group_list *cached)
{
	struct group_list now;
	const __u64 *x = (const __u64 *)&now, *y = (const __u64 *)cached;
	__u64 differ = 0;
	__u32 i;

	if (!cached || read_groups(cred, &now))
		return 0;
	for (i = 0; i < sizeof(now) / sizeof(__u64); i++)
		differ |= x[i] ^ y[i];
	return !differ;
}

/* Is what was cached for this task still about the same task and policy? Compared is what the policy looks at. The
 * first user namespace is never freed, so its pointer, stored when its level was seen to be 0, says as much. */
static __always_inline bool current_tag(struct task *t, struct task_struct *task, const struct cred *cred,
					const struct view *v)
{
	if (t->generation != v->generation || cred != task->real_cred || t->user_ns != (__u64)cred->user_ns)
		return 0;
	if (t->ids[0] != cred->uid.val || t->ids[1] != cred->euid.val || t->ids[2] != cred->suid.val ||
	    t->ids[3] != cred->fsuid.val)
		return 0;
	if (!t->uses)
		return 1;
	if ((t->uses & GUARD_USES_GROUPS) &&
	    (t->ids[4] != cred->gid.val || t->ids[5] != cred->egid.val || t->ids[6] != cred->sgid.val ||
	     t->ids[7] != cred->fsgid.val || !same_groups(cred, &t->groups)))
		return 0;
	if ((t->uses & GUARD_USES_SERVICES) && t->cgroup != cgroup_of(task))
		return 0;
	if ((t->uses & GUARD_USES_LABELS) && t->labels != carried())
		return 0;
	return !(t->uses & GUARD_USES_LOGIN) || !bpf_core_field_exists(task->loginuid) ||
	       t->login == task->loginuid.val;
}

static __always_inline bool tag(struct task *t, struct task_struct *task, const struct cred *cred)
{
	if ((t->uses & GUARD_USES_GROUPS) && read_groups(cred, &t->groups))
		return 0;
	t->user_ns = number(cred->user_ns);
	t->ids[0] = cred->uid.val;
	t->ids[1] = cred->euid.val;
	t->ids[2] = cred->suid.val;
	t->ids[3] = cred->fsuid.val;
	t->ids[4] = cred->gid.val;
	t->ids[5] = cred->egid.val;
	t->ids[6] = cred->sgid.val;
	t->ids[7] = cred->fsgid.val;
	if (bpf_core_field_exists(task->loginuid))
		t->login = task->loginuid.val;
	t->cgroup = cgroup_of(task);
	return 1;
}

/* Without its storage a task is worked out into an entry of `spare`, each time anew. */
static __noinline struct task *spare_task(void)
{
	__u64 key = number(bpf_get_current_task_btf());
	struct guard_totals *sum = total();
	struct task *fresh;
	__u32 zero = 0;

	if (sum)
		__sync_fetch_and_add(&sum->uncached, 1);
	fresh = bpf_map_lookup_elem(&blank, &zero);
	if (fresh)
		bpf_map_update_elem(&spare, &key, fresh, BPF_ANY);
	return bpf_map_lookup_elem(&spare, &key);
}

static __always_inline struct known *known_of(const struct cred *cred)
{
	__u32 index;

	/* a move of 32 bits makes a number of it, which may be shifted */
	asm volatile("%0 = %1" : "=w"(index) : "w"((__u32)(__u64)cred));
	index = (index >> 6) & (KNOWN_CREDS - 1);
	return bpf_map_lookup_elem(&known, &index);
}

static __noinline bool same_surroundings(const struct known *k, __u32 said)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!k || ((said & GUARD_KNOWS_SERVICES) && k->cgroup != cgroup_of(task)))
		return 0;
	if ((said & GUARD_KNOWS_LABELS) && k->labels != carried())
		return 0;
	return !(said & GUARD_KNOWS_LOGIN) || !bpf_core_field_exists(task->loginuid) || k->login == task->loginuid.val;
}

/* Of the actions, those that a rule which binds the current task may be about; GUARD_KNOWS_LABELS among them: labels may
 * be in use. */
static __always_inline __u32 concerned(struct view *v, __u32 actions)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;
	const struct known *k = known_of(cred), *then;
	__u64 version;
	__u32 said;

	if (!k || cred != task->real_cred)
		return actions;
	version = *(volatile __u64 *)&k->version;
	then = (void *)k + after(version);
	said = then->actions;
	if (then->cred != (__u64)cred || then->generation != v->generation)
		return actions;
	if (said >= GUARD_KNOWS_LABELS && !same_surroundings(then, said))
		return actions;
	then = (void *)then + after(said);
	if (*(volatile __u64 *)&then->version != (version & ~1ULL))
		return actions;
	v->stamp = version;
	return actions & said;
}

/* Another cred may lie there from now on, or the same task is about to become another. */
static __always_inline void forget(const struct cred *cred)
{
	struct known *k = known_of(cred);

	if (k)
		__sync_val_compare_and_swap(&k->cred, (__u64)cred, 0);
}

/* For the next time: what was just found to be so of the current task. */
static __noinline int remember(const struct view *v, struct task *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;
	struct known *k = known_of(cred);
	__u64 version, of;

	/* without that the kernel frees a cred and tells nobody */
	if (!v || !t || !k || cred != task->real_cred || !cred->security)
		return 0;
	version = k->version;
	if ((version & 1) || __sync_val_compare_and_swap(&k->version, version, version + 1) != version)
		return 0;
	of = number(cred);
	k->cred = of;
	k->generation = v->generation;
	k->cgroup = cgroup_of(task);
	k->actions = t->bound.actions;
	if (t->uses & GUARD_USES_SERVICES)
		k->actions |= GUARD_KNOWS_SERVICES;
	k->labels = t->labels;
	if (t->uses & GUARD_USES_LABELS)
		k->actions |= GUARD_KNOWS_LABELS;
	if (bpf_core_field_exists(task->loginuid) && (t->uses & GUARD_USES_LOGIN)) {
		k->actions |= GUARD_KNOWS_LOGIN;
		k->login = task->loginuid.val;
	}
	__sync_fetch_and_add(&k->version, 1);
	t->cred = of;
	t->stamp = version + 2;
	return 0;
}

/* Is what the storage holds still so? */
static __noinline bool still(const struct view *v, struct task *t)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!v || !t || !current_tag(t, task, task->cred, v))
		return 0;
	remember(v, t);
	return 1;
}

/* Two creds are never cached, a user namespace not in the storage. */
static __noinline int keep(const struct view *v, struct task *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;

	if (!v || !t || cred != task->real_cred)
		return 0;
	if (!cred->user_ns->level && tag(t, task, cred))
		t->generation = v->generation;
	return remember(v, t);
}

/* The same, worked out now. 0: there is nowhere to put it, or a table is missing without which nobody knows; where there
 * is no policy nobody is bound. */
static __noinline struct bound *work_out(const struct view *v, struct task *t)
{
	const struct guard_policy *p;
	__u32 uses, root;
	bool stored = t;

	if (!v)
		return 0;
	if (!t)
		t = spare_task();
	if (!t)
		return 0;
	t->generation = 0;
	t->stamp = 0;
	/* looked for once: were guard_bind to find one that came meanwhile, what it could not work out would bind nobody */
	p = policy_of(v);
	if (!p) {
		__builtin_memset(&t->bound, 0, sizeof(t->bound));
		return &t->bound;
	}
	uses = p->uses;
	root = p->service_root;
	t->uses = uses;
	t->labels = uses & GUARD_USES_LABELS ? carried() : 0;
	if (bind(v, uses, root, t))
		return 0;
	if (stored)
		keep(v, t);
	return &t->bound;
}

/* The rules that bind the current task: from its storage, worked out again when anything they follow from changed.
 * 0: it can't be told, so that whoever asks refuses. */
static __always_inline const struct bound *bound(const struct view *v)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task *t = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	/* the entry still is the one that told the same of this cred as the storage does */
	if (t && v->stamp && t->stamp == v->stamp && t->cred == (__u64)task->cred && t->generation == v->generation)
		return &t->bound;
	return t && still(v, t) ? &t->bound : work_out(v, t);
}

#endif
