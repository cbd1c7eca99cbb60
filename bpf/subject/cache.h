/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Caches of the rules that apply to the current task: in its task storage, and by its credentials.
 */
#ifndef GUARD_SUBJECT_CACHE_H
#define GUARD_SUBJECT_CACHE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/task_label.h"
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

/* True if the entry was computed for this task and policy. Compares only what the policy depends on. The initial
 * user namespace is never freed, so its address identifies it; it was stored only at level 0. */
static __always_inline bool task_cache_matches(struct task_cache *t, struct task_struct *task, const struct cred *cred,
					       const struct generation_ref *gen)
{
	if (t->generation != gen->generation || cred != task->real_cred || t->user_ns != (__u64)cred->user_ns)
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
	if ((t->uses & GUARD_USES_LABELS) && t->labels != current_labels())
		return 0;
	return !(t->uses & GUARD_USES_LOGIN) || !bpf_core_field_exists(task->loginuid) ||
	       t->login == task->loginuid.val;
}

static __always_inline bool task_cache_fill(struct task_cache *t, struct task_struct *task, const struct cred *cred)
{
	if ((t->uses & GUARD_USES_GROUPS) && read_groups(cred, &t->groups))
		return 0;
	t->user_ns = ptr_to_u64(cred->user_ns);
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

/* Without task storage, the rules are computed into an entry of `spare` each time. */
static __noinline struct task_cache *overflow_task(void)
{
	__u64 key = ptr_to_u64(bpf_get_current_task_btf());
	struct guard_totals *sum = get_totals();
	struct task_cache *fresh;
	__u32 zero = 0;

	if (sum)
		__sync_fetch_and_add(&sum->uncached, 1);
	fresh = bpf_map_lookup_elem(&blank, &zero);
	if (fresh)
		bpf_map_update_elem(&spare, &key, fresh, BPF_ANY);
	fresh = bpf_map_lookup_elem(&spare, &key);
	if (fresh)
		fresh->recorded = IDENTITY_UNKNOWN;
	return fresh;
}

static __always_inline struct cred_cache_entry *cred_cache_slot(const struct cred *cred)
{
	__u32 index;

	/* A 32-bit move makes the pointer a scalar, which may be shifted. */
	asm volatile("%0 = %1" : "=w"(index) : "w"((__u32)(__u64)cred));
	index = (index >> 6) & (CRED_CACHE_SIZE - 1);
	return bpf_map_lookup_elem(&known, &index);
}

static __noinline bool same_context(const struct cred_cache_entry *k, __u32 cached)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!k || ((cached & GUARD_DEPENDS_ON_SERVICE) && k->cgroup != cgroup_of(task)))
		return 0;
	if ((cached & GUARD_DEPENDS_ON_LABELS) && k->labels != current_labels())
		return 0;
	return !(cached & GUARD_DEPENDS_ON_LOGIN) || !bpf_core_field_exists(task->loginuid) ||
	       k->login == task->loginuid.val;
}

/* The subset of the actions that the rules applying to the task may have. GUARD_DEPENDS_ON_LABELS among them means
 * that the policy may use labels. */
static __always_inline __u32 relevant_actions(struct generation_ref *gen, __u32 actions)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;
	const struct cred_cache_entry *k = cred_cache_slot(cred), *entry;
	__u64 version;
	__u32 cached;

	if (!k || cred != task->real_cred)
		return actions;
	version = *(volatile __u64 *)&k->version;
	entry = (void *)k + read_dependency(version);
	cached = entry->actions;
	if (entry->cred != (__u64)cred || entry->generation != gen->generation)
		return actions;
	if (cached >= GUARD_DEPENDS_ON_LABELS && !same_context(entry, cached))
		return actions;
	entry = (void *)entry + read_dependency(cached);
	if (*(volatile __u64 *)&entry->version != (version & ~1ULL))
		return actions;
	gen->cred_version = version;
	return actions & cached;
}

/* The memory may hold another cred from now on, or the task is about to change its identity. */
static __always_inline void cred_cache_drop(const struct cred *cred)
{
	struct cred_cache_entry *k = cred_cache_slot(cred);

	if (k)
		__sync_val_compare_and_swap(&k->cred, (__u64)cred, 0);
}

/* Stores the rules that were just computed for the current task. */
static __noinline int cred_cache_store(const struct generation_ref *gen, struct task_cache *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;
	struct cred_cache_entry *k = cred_cache_slot(cred);
	__u64 version, of;

	/* Creds without a security blob are freed without calling cred_free, so never cache them. */
	if (!gen || !t || !k || cred != task->real_cred || !cred->security)
		return 0;
	version = k->version;
	if ((version & 1) || __sync_val_compare_and_swap(&k->version, version, version + 1) != version)
		return 0;
	of = ptr_to_u64(cred);
	k->cred = of;
	k->generation = gen->generation;
	k->cgroup = cgroup_of(task);
	k->actions = t->subject.actions;
	if (t->uses & GUARD_USES_SERVICES)
		k->actions |= GUARD_DEPENDS_ON_SERVICE;
	k->labels = t->labels;
	if (t->uses & GUARD_USES_LABELS)
		k->actions |= GUARD_DEPENDS_ON_LABELS;
	if (bpf_core_field_exists(task->loginuid) && (t->uses & GUARD_USES_LOGIN)) {
		k->actions |= GUARD_DEPENDS_ON_LOGIN;
		k->login = task->loginuid.val;
	}
	__sync_fetch_and_add(&k->version, 1);
	t->cred = of;
	t->cred_version = version + 2;
	return 0;
}

/* Is the cached entry still valid for this task and policy? */
static __noinline bool cache_valid(const struct generation_ref *gen, struct task_cache *t)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!gen || !t || !task_cache_matches(t, task, task->cred, gen))
		return 0;
	cred_cache_store(gen, t);
	return 1;
}

/* A task with overridden credentials is never cached; a task in a user namespace is not cached in its storage. */
static __noinline int cache_store(const struct generation_ref *gen, struct task_cache *t)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;

	if (!gen || !t || cred != task->real_cred)
		return 0;
	if (!cred->user_ns->level && task_cache_fill(t, task, cred))
		t->generation = gen->generation;
	return cred_cache_store(gen, t);
}

/* Computes the rules now. Returns NULL if no storage is available or a policy table is missing; callers must deny.
 * Without an active policy no rule applies. */
static __noinline struct subject_rules *compute_subject(const struct generation_ref *gen, struct task_cache *t)
{
	bool stored = t;

	if (!gen)
		return 0;
	if (!t)
		t = overflow_task();
	if (!t)
		return 0;
	t->generation = 0;
	t->cred_version = 0;
	/* The policy table is looked up once. If guard_bind found one that was added meanwhile, its errors would leave the
	 * task unbound. */
	if (!prepare_subject(gen, t)) {
		__builtin_memset(&t->subject, 0, sizeof(t->subject));
		return &t->subject;
	}
	if (bind_subject(gen, t))
		return 0;
	if (stored)
		cache_store(gen, t);
	return &t->subject;
}

/* The rules that apply to the current task: cached, or computed again if anything that they depend on has changed.
 * Returns NULL if they cannot be computed; callers must deny. */
static __always_inline const struct subject_rules *subject_rules(const struct generation_ref *gen)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_cache *t = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	/* The credential cache entry that gave the same result is unchanged. */
	if (t && gen->cred_version && t->cred_version == gen->cred_version && t->cred == (__u64)task->cred &&
	    t->generation == gen->generation)
		return &t->subject;
	return t && cache_valid(gen, t) ? &t->subject : compute_subject(gen, t);
}

#endif
