/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who acts: which rules bind the current task.
 */
#ifndef GUARD_SUBJECT_H
#define GUARD_SUBJECT_H

static __always_inline guard_u64 sets_of(void *ids_table, __u32 kind, __u32 number)
{
	struct guard_id_key key = { .kind = kind, .number = number };
	guard_u64 *sets = bpf_map_lookup_elem(ids_table, &key);

	return sets ? *sets : 0;
}

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

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___618 *newer = (void *)node;

	if (bpf_core_field_exists(newer->__parent))
		return BPF_CORE_READ(newer, __parent);
	return BPF_CORE_READ(node, parent);
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

static __always_inline void record_executable(struct task *t, const struct inode *inode)
{
	t->inode = BPF_CORE_READ(inode, i_ino);
	t->inode_generation = BPF_CORE_READ(inode, i_generation);
	t->device = BPF_CORE_READ(inode, i_sb, s_dev);
	t->recorded = 1;
}

/* The file that the task executes, or 0. What was recorded at exec decides: mm->exe_file can be changed in a user
 * namespace, so it counts only while it is the recorded file, or for a task older than the enforcer. */
static __always_inline const struct file *executable(struct task_struct *task, struct task *t)
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
	if (!t->recorded) {
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

static __always_inline const struct guard_state *state_of(__u32 slot, __u32 state)
{
	void *inner = INNER_OF(states, slot);

	return inner ? bpf_map_lookup_elem(inner, &state) : 0;
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
			t->tally.members = 0;	/* two lists: whoever is in only one of them is not freed */
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

static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

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
	return !(t->uses & GUARD_USES_LOGIN) || !bpf_core_field_exists(task->loginuid) || t->login == task->loginuid.val;
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
