/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The enforcer: LSM programs that gather what decide.h asks for. Every path ends in a branch that returns a literal,
 * since 6.8 and 6.12 refuse a computed one. Nothing here sleeps, so that exchanging a map waits for whoever reads it.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "decide.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* seqlock_t begins with its sequence; 0 where the kernel hides its addresses (kptr_restrict=2) */
extern const void rename_lock __ksym __weak;

/* ---- tables ------------------------------------------------------------------------------------------------- */

#define INNER(NAME, TYPE, KEY, VALUE, FLAGS)			\
struct NAME##_table {						\
	__uint(type, TYPE);					\
	__uint(max_entries, 1);					\
	__uint(key_size, sizeof(KEY));				\
	__uint(value_size, sizeof(VALUE));			\
	__uint(map_flags, FLAGS);				\
}

/* one inner map a generation, in the generation's slot */
#define TABLE(NAME, TYPE, KEY, VALUE, FLAGS)			\
INNER(NAME, TYPE, KEY, VALUE, FLAGS);				\
struct {							\
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);		\
	__uint(max_entries, GUARD_SLOTS);			\
	__type(key, __u32);					\
	__array(values, struct NAME##_table);			\
} NAME SEC(".maps")

TABLE(policy, BPF_MAP_TYPE_ARRAY, __u32, struct guard_policy, 0);
TABLE(subjects, BPF_MAP_TYPE_ARRAY, __u32, struct guard_subject, BPF_F_INNER_MAP);
TABLE(destinations, BPF_MAP_TYPE_ARRAY, __u32, struct guard_destination, BPF_F_INNER_MAP);
TABLE(ids, BPF_MAP_TYPE_HASH, struct guard_id_key, guard_u64, 0);
TABLE(ipv4, BPF_MAP_TYPE_LPM_TRIE, struct guard_ipv4_key, guard_u64, BPF_F_NO_PREALLOC);
TABLE(ipv6, BPF_MAP_TYPE_LPM_TRIE, struct guard_ipv6_key, guard_u64, BPF_F_NO_PREALLOC);
TABLE(ports, BPF_MAP_TYPE_LPM_TRIE, struct guard_port_key, guard_u64, BPF_F_NO_PREALLOC);
TABLE(superblocks, BPF_MAP_TYPE_HASH, struct guard_superblock_key, guard_u32, 0);
TABLE(states, BPF_MAP_TYPE_ARRAY, __u32, struct guard_state, BPF_F_INNER_MAP);
TABLE(edges, BPF_MAP_TYPE_HASH, struct guard_edge_key, guard_u32, 0);
TABLE(bytes, BPF_MAP_TYPE_ARRAY, __u32, struct guard_bytes, BPF_F_INNER_MAP);
TABLE(rules, BPF_MAP_TYPE_ARRAY, __u32, struct guard_rule, BPF_F_INNER_MAP);

INNER(record, BPF_MAP_TYPE_ARRAY, __u32, struct guard_record, 0);
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct record_table);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, guard_u64);
	__type(value, struct guard_count);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guard_totals);
} totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guard_facts);
} facts SEC(".maps");

#define CACHED_GROUPS 12

struct group_list {
	__u32 count, pad;
	__u32 ids[CACHED_GROUPS];
};

/* the rules that bind a task, and the actions that any of them is about */
struct bound {
	__u32 actions;
	__u32 pad;
	struct guard_vector rules;
};

struct task {
	/* the executable, as recorded at exec and handed on at fork */
	__u64 inode;
	__u32 device;
	__u32 inode_generation;
	__u32 recorded;
	/* what `bound` was worked out from, by value: a pointer may come back as something else */
	__u32 login;
	__u64 generation;	/* of the policy; 0: nothing is cached */
	__u64 cgroup;
	__u64 user_ns;
	__u32 ids[8];
	__u32 uses;		/* of the policy */
	__u32 pad;
	struct group_list groups;
	struct bound bound;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task);
} tasks SEC(".maps");

/* A file's automaton state, under everything that its path depends on. A cache: it goes with the inode. */
struct placed {
	__u64 generation;
	__u64 parent_inode;
	__u32 parent_generation;
	__u32 rename_sequence;
	__u32 length;
	char name[GUARD_COMPONENT];
};
struct inode_value {
	__u32 version;		/* odd while somebody writes; a reader that sees it move has read nothing */
	__u32 state;
	__u32 actions;		/* that any rule which covers the state is about */
	__u32 pad;
	struct placed placed;
};

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct inode_value);
} inodes SEC(".maps");

/* A kernel pointer as a plain number: a global function takes no other. */
static __noinline __u64 number(const void *pointer)
{
	__u64 n = 0;

	bpf_probe_read_kernel(&n, sizeof(n), &pointer);
	return n;
}

/* ---- the generation ----------------------------------------------------------------------------------------- */

struct view {
	__u64 generation;
	__u32 slot;
	__u32 pad;
};

/* SLOT: a variable, since its address is taken: stack is short */
#define INNER_OF(OUTER, SLOT) bpf_map_lookup_elem(&(OUTER), &(SLOT))

/* One read of the record gives the slot of the whole decision. Past its deadline an unconfirmed record means its
 * fallback, with nobody's help. False: no policy is in force. */
static __always_inline bool see(struct view *v)
{
	__u32 zero = 0;
	void *inner = bpf_map_lookup_elem(&control, &zero);
	const struct guard_record *record;
	__u64 deadline;

	if (!inner)
		return 0;
	record = bpf_map_lookup_elem(inner, &zero);
	if (!record)
		return 0;
	deadline = record->deadline;
	if (deadline && bpf_ktime_get_boot_ns() >= deadline) {
		v->generation = record->fallback_generation;
		v->slot = record->fallback_slot;
	} else {
		v->generation = record->generation;
		v->slot = record->slot;
	}
	return v->slot < GUARD_SLOTS;
}

static __always_inline const struct guard_policy *policy_of(const struct view *v)
{
	void *inner = INNER_OF(policy, v->slot);
	__u32 zero = 0;

	return inner ? bpf_map_lookup_elem(inner, &zero) : 0;
}

static __always_inline struct guard_totals *total(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&totals, &zero);
}

/* ---- the path automaton ------------------------------------------------------------------------------------- */

/* The state after one component, or -1 when a table lacks an entry. A global function: verified and proved once. */
int guard_step(__u32 slot, __u32 state, __u64 name)
{
	struct guard_edge_key key = { .state = state };
	const struct guard_state *from;
	const struct guard_bytes *row;
	__u32 otherwise, *next, i;
	unsigned char byte = 0;
	void *inner;
	long size;

	inner = INNER_OF(states, slot);
	if (!inner)
		return -1;
	from = bpf_map_lookup_elem(inner, &state);
	if (!from)
		return -1;
	otherwise = from->otherwise;
	state = from->bytes;
	if (!state) {
		size = bpf_probe_read_kernel_str(key.name, sizeof(key.name), (const void *)name);
		if (size <= 0)
			return -1;
		if (size == sizeof(key.name)) {
			/* cut, perhaps: without a byte automaton no literal of this state is longer */
			if (bpf_probe_read_kernel(&byte, 1, (const char *)name + sizeof(key.name) - 1))
				return -1;
			if (byte)
				return otherwise;
		}
		inner = INNER_OF(edges, slot);
		if (!inner)
			return -1;
		next = bpf_map_lookup_elem(inner, &key);
		return next ? *next : otherwise;
	}
	inner = INNER_OF(bytes, slot);
	if (!inner)
		return -1;
	for (i = 0; i < 256; i++) {
		state--;
		row = bpf_map_lookup_elem(inner, &state);
		if (!row || bpf_probe_read_kernel(&byte, 1, (const char *)name + i))
			return -1;
		if (!byte)
			return row->target;
		state = row->next[byte];
		if (!state)
			return otherwise;
	}
	return -1;
}

static __always_inline bool pseudo(unsigned long magic)
{
	switch (magic) {
	case TMPFS_MAGIC: case RAMFS_MAGIC: case PROC_MAGIC: case SYSFS_MAGIC: case DEVPTS_MAGIC: case CGROUP_MAGIC:
	case CGROUP2_MAGIC: case BPFFS_MAGIC: case DEBUGFS_MAGIC: case TRACEFS_MAGIC: case SECURITYFS_MAGIC:
	case PIPEFS_MAGIC: case SOCKFS_MAGIC: case ANON_INODE_MAGIC: case NSFS_MAGIC: case PIDFS_MAGIC:
	case MQUEUE_MAGIC: case HUGETLBFS_MAGIC: case CONFIGFS_MAGIC: case BINFMTFS_MAGIC: case EFIVARFS_MAGIC:
	case PSTOREFS_MAGIC: case AUTOFS_MAGIC: case SELINUX_MAGIC: case RPCPIPEFS_MAGIC:
		return 1;
	}
	return 0;
}

static __always_inline int rename_sequence(__u32 *sequence)
{
	if (!&rename_lock)
		return -1;
	return bpf_probe_read_kernel(sequence, sizeof(*sequence), &rename_lock) ? -1 : 0;
}

#define PASS 4

struct place {
	__u32 state;
	__u32 reason;		/* enum guard_reason; GUARD_BY_RULE: the state is good */
	__u32 sequence;		/* of renames, during the whole walk; odd: it is not known */
};

/* Components between a dentry and its superblock's root; below 0: minus the reason why there are none to count. */
int guard_depth(__u64 leaf, __u64 root)
{
	const struct dentry *d = (const struct dentry *)leaf, *parent;
	int i;

	for (i = 0; i <= GUARD_DEPTH; i++) {
		if ((__u64)d == root)
			return i;
		parent = BPF_CORE_READ(d, d_parent);
		if (!parent || parent == d)
			return -GUARD_NO_CHAIN;
		d = parent;
	}
	return -GUARD_TOO_DEEP;
}

/* One walk: up to the superblock's root, then the automaton from the root down. The chain is kept four at a time,
 * from the root's end, so that depth does not cost stack. Gives an enum guard_reason. */
int guard_walk(__u32 slot, __u64 leaf, struct place *at)
{
	const struct super_block *sb = BPF_CORE_READ((const struct dentry *)leaf, d_sb);
	struct guard_superblock_key device = { .device = BPF_CORE_READ(sb, s_dev) };
	const struct dentry *d;
	__u64 chain[PASS];
	__u32 *start, pass, i;
	void *inner;
	int left, next;

	if (!at)
		return GUARD_BROKEN_MAP;
	at->state = 0;
	inner = INNER_OF(superblocks, slot);
	if (!inner)
		return GUARD_BROKEN_MAP;
	start = bpf_map_lookup_elem(inner, &device);
	if (!start)
		return pseudo(BPF_CORE_READ(sb, s_magic)) ? GUARD_BY_RULE : GUARD_UNKNOWN_FS;
	at->state = *start;
	left = guard_depth(leaf, (__u64)BPF_CORE_READ(sb, s_root));
	if (left < 0)
		return -left;
	for (pass = 0; pass < GUARD_DEPTH / PASS; pass++) {
		d = (const struct dentry *)leaf;
		for (i = 0; i < GUARD_DEPTH; i++) {
			if ((int)i >= left)
				break;
			chain[i & (PASS - 1)] = (__u64)d;
			d = BPF_CORE_READ(d, d_parent);
		}
		for (i = 0; i < PASS; i++) {
			if (left <= 0 || !at->state)
				return GUARD_BY_RULE;
			left--;
			d = (const struct dentry *)chain[left & (PASS - 1)];
			next = guard_step(slot, at->state, (__u64)BPF_CORE_READ(d, d_name.name));
			if (next < 0)
				return GUARD_BROKEN_MAP;
			at->state = next;
		}
	}
	return GUARD_BY_RULE;
}

/* Where a dentry is. A walk during which anything was renamed may have seen a path that never was, so it is done
 * again; where the sequence can't be read, one walk has to do and nothing is cached. */
int guard_place(__u32 slot, __u64 dentry, struct place *at)
{
	__u32 before = 0, after = 0, zero = 0, try;
	struct guard_facts *f;

	if (!at)
		return -1;
	at->state = 0;
	at->reason = GUARD_NO_CHAIN;
	at->sequence = 1;
	if (!dentry)
		return 0;
	for (try = 0; try < 4; try++) {
		int known = !rename_sequence(&before);

		if (known && (before & 1)) {
			at->reason = GUARD_UNSTABLE;
			continue;
		}
		at->reason = guard_walk(slot, dentry, at);
		if (!known)
			return 0;
		if (!rename_sequence(&after) && before == after) {
			at->sequence = before;
			f = bpf_map_lookup_elem(&facts, &zero);
			if (f && !f->rename_lock)
				f->rename_lock = 1;
			return 0;
		}
		at->reason = GUARD_UNSTABLE;
	}
	return 0;
}

/* ---- who ---------------------------------------------------------------------------------------------------- */

static __always_inline guard_u64 sets_of(void *ids_table, __u32 kind, __u32 number)
{
	struct guard_id_key key = { .kind = kind, .number = number };
	guard_u64 *sets = bpf_map_lookup_elem(ids_table, &key);

	return sets ? *sets : 0;
}

struct tally {
	guard_u64 any, all, members;
	__u32 last;
	__u32 cut;
};

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

/* Works out which rules bind the current task. Whatever can't be told binds and does not free. */
int guard_bind(__u32 slot, int service, int exe, struct bound *out)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred, *real = task->real_cred;
	const struct guard_policy *p;
	const struct guard_state *s;
	struct guard_who who = {};
	struct guard_vector freed;
	struct tally t;
	guard_u64 binding, freeing;
	__u32 zero = 0, i;
	void *table;

	if (!out)
		return -1;
	out->actions = 0;
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	table = INNER_OF(ids, slot);
	if (!table)
		return -1;

	t = (struct tally){ .last = cred->uid.val };
	t.any = t.all = sets_of(table, GUARD_ID_USER, t.last);
	count_users(table, &t, cred);
	if (cred != real)
		count_users(table, &t, real);
	who.user_bind = t.cut ? t.any | ~(1ULL << GUARD_CANARY_SET) : t.any;
	who.user_free = t.cut ? 0 : t.all;

	if (bpf_core_field_exists(task->loginuid))
		who.login = sets_of(table, GUARD_ID_LOGIN, task->loginuid.val);

	if (p->uses & GUARD_USES_GROUPS) {
		t = (struct tally){};
		count_groups(table, &t, cred);
		if (cred != real) {
			count_groups(table, &t, real);
			t.members = 0;	/* two lists: whoever is in only one of them is not freed */
		}
		who.group_bind = t.cut ? ~0ULL : t.any;
		who.group_free = t.cut ? 0 : t.members;
	}

	s = service < 0 ? 0 : state_of(slot, service);
	who.service_bind = s ? s->services : ~0ULL;
	who.service_free = s ? s->services : 0;
	s = exe < 0 ? 0 : state_of(slot, exe);
	who.executable_bind = s ? s->executables : ~0ULL;
	who.executable_free = s ? s->executables : 0;

	binding = guard_binding_sets(p, &who);
	freeing = guard_freeing_sets(p, &who);
	table = INNER_OF(subjects, slot);
	if (!table)
		return -1;
	__builtin_memset(&freed, 0, sizeof(freed));
	out->rules = p->always;
	for (i = 0; i < GUARD_SETS; i++) {
		guard_u64 sets = binding | freeing;
		const struct guard_subject *set;
		__u32 index = guard_lowest(sets);

		if (!sets)
			break;
		set = bpf_map_lookup_elem(table, &index);
		if (!set)
			break;
		sets &= -sets;
		if (binding & sets)
			guard_add(&out->rules, &set->binds);
		if (freeing & sets)
			guard_add(&freed, &set->frees);
		binding &= ~sets;
		freeing &= ~sets;
	}
	guard_remove(&out->rules, &freed);
	out->actions = 0;
	for (i = GUARD_READ; i <= GUARD_SEND; i++)
		if (guard_concerns(&out->rules, &p->of_action[i]))
			out->actions |= 1U << i;
	return 0;
}

static __always_inline int bind(const struct view *v, __u32 uses, __u32 service_root, struct bound *out)
{
	int service = uses & GUARD_USES_SERVICES ? guard_service(v->slot, service_root) : -1;
	int exe = uses & GUARD_USES_EXECUTABLES ? guard_executable(v->slot) : -1;

	return guard_bind(v->slot, service, exe, out);
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

/* The same, worked out now. Two creds, or a user namespace, are never cached. 0: the rules are in *local. */
static __noinline struct bound *work_out(const struct view *v, struct task *t, struct bound *local)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;
	const struct guard_policy *p;
	struct guard_totals *sum;
	__u32 uses, root;

	if (!v || !local)
		return 0;
	p = policy_of(v);
	uses = p ? p->uses : 0;
	root = p ? p->service_root : 0;
	if (!t) {
		__builtin_memset(local, 0, sizeof(*local));
		sum = total();
		if (sum)
			__sync_fetch_and_add(&sum->uncached, 1);
		bind(v, uses, root, local);
		return 0;
	}
	t->generation = 0;
	t->uses = uses;
	if (!bind(v, uses, root, &t->bound) && cred == task->real_cred && !cred->user_ns->level && tag(t, task, cred))
		t->generation = v->generation;
	return &t->bound;
}

/* The rules that bind the current task: from its storage, worked out again when anything they follow from changed. */
static __always_inline const struct bound *bound(const struct view *v, struct bound *local)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task *t = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	const struct cred *cred = task->cred;
	const struct bound *b;

	if (t && current_tag(t, task, cred, v))
		return &t->bound;
	b = work_out(v, t, local);
	return b ? b : local;
}

/* ---- telling ------------------------------------------------------------------------------------------------ */

/* what happened, for the event */
struct matter {
	__u64 generation;
	__u64 dentry, inode;
	__u32 slot, device;
	__u32 action, verdict, reason, rule;
	__u32 family, protocol, port, pad;
	__u8 address[16];
};

#define COMPONENTS 24

/* Components from the leaf up, each with its NUL; a component is cut to half of the room. */
static __always_inline __u32 write_chain(char *to, __u32 room, const struct dentry *d)
{
	const struct dentry *root, *parent;
	__u32 at = 0, i;
	long size;

	root = BPF_CORE_READ(d, d_sb, s_root);
	for (i = 0; i < COMPONENTS; i++) {
		barrier_var(at);
		if (d == root || at > room / 2 - 1)
			break;
		size = bpf_probe_read_kernel_str(to + at, room / 2, BPF_CORE_READ(d, d_name.name));
		if (size <= 0)
			break;
		at += size & (GUARD_PATH - 1);
		parent = BPF_CORE_READ(d, d_parent);
		if (parent == d)
			break;
		d = parent;
	}
	return at;
}

static __noinline __u32 write_path(char *to, const struct dentry *d)
{
	return to && d ? write_chain(to, GUARD_PATH, d) : 0;
}

static __noinline __u32 write_executable(char *to, const struct dentry *d)
{
	return to && d ? write_chain(to, GUARD_PATH / 2, d) : 0;
}

static __noinline __u32 write_cgroup(char *to, struct kernfs_node *node)
{
	struct kernfs_node *parent;
	__u32 at = 0, i;
	long size;

	if (!to)
		return 0;
	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		parent = parent_of(node);
		if (!parent || at > GUARD_PATH / 4 - 1)
			break;
		size = bpf_probe_read_kernel_str(to + at, GUARD_PATH / 4, BPF_CORE_READ(node, name));
		if (size <= 0)
			break;
		at += size & (GUARD_PATH - 1);
		node = parent;
	}
	return at;
}

/* Counts first, tells if there is room: written + lost = denied + audited. */
int guard_tell(const struct matter *m)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct guard_rule *rule = 0;
	struct guard_count *count;
	struct guard_totals *sum;
	struct guard_event *e;
	__u64 sequence;
	__u32 slot;
	void *inner;

	if (!m)
		return 0;
	slot = m->slot;
	sum = total();
	if (!sum)
		return 0;
	sequence = m->verdict == GUARD_DENY ? __sync_fetch_and_add(&sum->denied, 1) :
					      __sync_fetch_and_add(&sum->audited, 1);
	if (m->reason != GUARD_BY_RULE)
		__sync_fetch_and_add(&sum->reasons[m->reason & (GUARD_REASONS - 1)], 1);
	inner = INNER_OF(rules, slot);
	if (inner) {
		__u32 index = m->rule;

		rule = bpf_map_lookup_elem(inner, &index);
	}
	if (rule) {
		guard_u64 id = rule->id;

		count = bpf_map_lookup_elem(&counters, &id);
		if (count)
			__sync_fetch_and_add(m->verdict == GUARD_DENY ? &count->denied : &count->audited, 1);
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&sum->lost, 1);
		return 0;
	}
	/* the paths are read only as far as their sizes say */
	__builtin_memset(e, 0, __builtin_offsetof(struct guard_event, path));
	e->sequence = sequence;
	e->time = bpf_ktime_get_boot_ns();
	e->generation = m->generation;
	e->action = m->action;
	e->verdict = m->verdict;
	e->reason = m->reason;
	e->inode = m->inode;
	e->device = m->device;
	e->family = m->family;
	e->protocol = m->protocol;
	e->port = m->port;
	__builtin_memcpy(e->address, m->address, sizeof(e->address));
	if (rule) {
		e->rule_id = rule->id;
		__builtin_memcpy(e->rule, rule->name, sizeof(e->rule));
	}
	e->pid = task->tgid;
	e->tid = task->pid;
	e->start_time = task->group_leader->start_boottime;
	e->uid = task->cred->uid.val;
	e->euid = task->cred->euid.val;
	e->gid = task->cred->gid.val;
	e->login_uid = ~0U;
	if (bpf_core_field_exists(task->loginuid))
		e->login_uid = task->loginuid.val;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->cgroup_id = cgroup_of(task);
	e->cgroup_size = write_cgroup(e->cgroup, task->cgroups->dfl_cgrp->kn);
	if (m->dentry)
		e->path_size = write_path(e->path, (const struct dentry *)m->dentry);
	if (task->mm) {
		const struct file *file = BPF_CORE_READ(task, mm, exe_file);

		if (file) {
			e->executable_device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
			e->executable_size = write_executable(e->executable, BPF_CORE_READ(file, f_path.dentry));
		}
	}
	bpf_ringbuf_submit(e, 0);
	__sync_fetch_and_add(&sum->written, 1);
	return 0;
}

struct outcome {
	__u32 action, verdict, reason, rule;
};

/* The verdict of one action; covers of 0: the object could not be placed, for o->reason. */
int guard_verdict(const struct bound *b, const struct guard_vector *covers, const struct guard_vector *of_action,
		  const struct guard_vector *audit, struct outcome *o)
{
	if (!b || !of_action || !audit || !o)
		return GUARD_DENY;
	o->verdict = guard_decide(&b->rules, covers, of_action, audit, &o->rule);
	return o->verdict;
}

static __always_inline bool allowed(const struct view *v, const struct bound *b, const struct guard_vector *covers,
				    struct outcome *o)
{
	const struct guard_policy *p = policy_of(v);

	/* without its table nobody is bound: guard_bind has said so before */
	return !p || guard_verdict(b, covers, &p->of_action[o->action & (GUARD_ACTIONS - 1)], &p->audit, o) == GUARD_ALLOW;
}

static __always_inline void describe(const struct view *v, const struct outcome *o, struct matter *m)
{
	m->generation = v->generation;
	m->slot = v->slot;
	m->action = o->action;
	m->verdict = o->verdict;
	m->reason = o->reason;
	m->rule = o->rule;
}

static __noinline bool tell_file(const struct view *v, const struct outcome *o, const struct dentry *d)
{
	const struct inode *inode = BPF_CORE_READ(d, d_inode);
	struct matter m = {};

	if (!v || !o)
		return 1;
	describe(v, o, &m);
	m.dentry = (__u64)d;
	m.inode = BPF_CORE_READ(inode, i_ino);
	m.device = BPF_CORE_READ(inode, i_sb, s_dev);
	guard_tell(&m);
	return o->verdict == GUARD_DENY;
}

/* ---- files -------------------------------------------------------------------------------------------------- */

static __always_inline bool same_place(const struct placed *a, const struct placed *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;
	__u64 differ = 0;
	__u32 i;

	GUARD_UNROLL
	for (i = 0; i < sizeof(*a) / sizeof(__u64); i++)
		differ |= x[i] ^ y[i];
	return !differ;
}

/* What the path of this dentry depends on, by value. False: it can't be told, or names nothing that lasts. */
static __always_inline bool tag_file(const struct view *v, const struct dentry *d, struct placed *p)
{
	const struct dentry *parent;
	const struct inode *above;
	__u32 length;

	/* before the parent: a rename in between shows as another sequence at the end of the walk */
	if (rename_sequence(&p->rename_sequence) || (p->rename_sequence & 1))
		return 0;
	parent = d->d_parent;
	above = parent->d_inode;
	if (!above)
		return 0;
	p->generation = v->generation;
	p->parent_inode = above->i_ino;
	p->parent_generation = above->i_generation;
	/* without generations a directory's number may have come back */
	if (!p->parent_generation)
		return 0;
	length = d->d_name.len;
	p->length = length;
	barrier_var(length);
	if (!length || length >= GUARD_COMPONENT)
		return 0;
	return !bpf_probe_read_kernel(p->name, length, d->d_name.name);
}

/* The actions that rules which cover a state are about. */
static __noinline __u32 actions_of(const struct view *v, __u32 state)
{
	const struct guard_policy *p;
	const struct guard_state *s;
	__u32 actions = 0, i;

	if (!v)
		return ~0U;
	p = policy_of(v);
	s = state_of(v->slot, state);
	if (!p || !s)
		return ~0U;
	for (i = GUARD_READ; i <= GUARD_EXECUTE; i++)
		if (guard_concerns(&s->covers, &p->of_action[i]))
			actions |= 1U << i;
	return actions;
}

/* pipes, sockets and the like have no name to be covered by */
static __always_inline bool nameless(struct inode *inode)
{
	unsigned long magic = inode->i_sb->s_magic;

	return magic == PIPEFS_MAGIC || magic == ANON_INODE_MAGIC || (inode->i_mode & S_IFMT) == S_IFSOCK;
}

/* The state of a file by its dentry, through the cache in its inode. Gives the actions that are left to decide. */
static __noinline __u32 place_file(const struct view *v, struct file *file, struct place *at, __u32 actions)
{
	struct dentry *d = file->f_path.dentry;
	struct inode_value *cache = 0;
	struct placed now = {};
	__u32 version;
	bool hit;

	if (!v || !at)
		return actions;
	if (tag_file(v, d, &now)) {
		cache = bpf_inode_storage_get(&inodes, file->f_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (cache) {
			/* the additions of nothing are barriers */
			version = __sync_fetch_and_add(&cache->version, 0);
			hit = !(version & 1) && same_place(&cache->placed, &now);
			if (hit) {
				at->state = cache->state;
				actions &= cache->actions;
				if (__sync_fetch_and_add(&cache->version, 0) == version) {
					at->reason = GUARD_BY_RULE;
					return actions;
				}
			}
		}
	}
	if (nameless(file->f_inode))
		return 0;
	guard_place(v->slot, number(d), at);
	if (!cache || at->reason != GUARD_BY_RULE || at->sequence != now.rename_sequence)
		return ~0U;
	version = cache->version;
	if ((version & 1) || __sync_val_compare_and_swap(&cache->version, version, version + 1) != version)
		return ~0U;
	cache->placed = now;
	cache->state = at->state;
	cache->actions = actions_of(v, at->state);
	__sync_fetch_and_add(&cache->version, 1);
	return ~0U;
}

/* One place of a file: every action that is wanted, against the rules that cover it. */
static __noinline bool refuse_place(const struct view *v, const struct bound *b, const struct place *at, __u32 actions,
				    const struct dentry *d)
{
	const struct guard_state *s = 0;
	struct outcome o = {};
	__u32 i;

	if (!v || !b || !at)
		return 1;
	o.reason = at->reason;
	if (at->reason == GUARD_BY_RULE) {
		s = state_of(v->slot, at->state);
		if (!s)
			o.reason = GUARD_BROKEN_MAP;
	}
	for (i = GUARD_READ; i <= GUARD_EXECUTE; i++) {
		if (!(actions & (1U << i)))
			continue;
		o.action = i;
		if (!allowed(v, b, s ? &s->covers : 0, &o) && tell_file(v, &o, d))
			return 1;
	}
	return 0;
}

/* 6.1 opens an overlay's backing file with the overlay's dentry: then the inode's own names say where it is, all of
 * them, since which one is meant can't be told. */
static __noinline bool refuse_aliases(const struct view *v, const struct bound *b, struct inode *inode, __u32 actions)
{
	struct hlist_node *node;
	struct place at = {};
	struct dentry *d = 0;
	__u32 i;

	if (!v || !b)
		return 1;
	at.reason = GUARD_NO_CHAIN;
	node = BPF_CORE_READ(inode, i_dentry.first);
	for (i = 0; node && i < GUARD_ALIASES; i++) {
		if (bpf_core_field_exists(((struct dentry *)0)->d_u.d_alias))
			d = (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
		else
			d = (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
		guard_place(v->slot, (__u64)d, &at);
		if (refuse_place(v, b, &at, actions, d))
			return 1;
		node = BPF_CORE_READ(node, next);
		if (!node)
			return 0;
	}
	at.reason = GUARD_NO_CHAIN;
	return refuse_place(v, b, &at, actions, d);
}

static __always_inline bool refuse_file(struct file *file, __u32 actions)
{
	const struct bound *b;
	struct inode *inode;
	struct dentry *d;
	struct bound local;
	struct place at = {};
	struct view v;

	if (!see(&v))
		return 0;
	b = bound(&v, &local);
	actions &= b->actions;
	if (!actions)
		return 0;
	inode = file->f_inode;
	d = file->f_path.dentry;
	if (d->d_inode != inode)
		return !nameless(inode) && refuse_aliases(&v, b, inode, actions);
	actions &= place_file(&v, file, &at, actions);
	return actions && refuse_place(&v, b, &at, actions, d);
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	__u32 actions = 0;

	if (ret)
		return ret;
	if (file->f_flags & FMODE_EXEC) {
		actions = 1U << GUARD_EXECUTE;
	} else {
		if (file->f_mode & FMODE_READ)
			actions |= 1U << GUARD_READ;
		if ((file->f_mode & FMODE_WRITE) || (file->f_flags & O_TRUNC))
			actions |= 1U << GUARD_WRITE;
	}
	if (refuse_file(file, actions))
		return -EPERM;
	return 0;
}

/* Code that comes in by mapping it: ld.so, a library. What exec opened was decided when it was opened. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	if (ret)
		return ret;
	if (!file || !(prot & PROT_EXEC) || (file->f_flags & FMODE_EXEC))
		return 0;
	if (refuse_file(file, 1U << GUARD_EXECUTE))
		return -EPERM;
	return 0;
}

/* A second name for an object, or another: refused when a rule that covers what is behind the old one does not cover
 * it behind the new one. A rename also writes over what is at its target. */
struct move {
	struct place source, target;
	__u32 action;
};

static __noinline bool refuse_move(const struct view *v, const struct bound *b, const struct move *move,
				   const struct dentry *from, const struct dentry *to)
{
	const struct guard_state *s = 0, *t = 0;
	struct guard_vector weakened;
	const struct inode *inode;
	struct outcome o = {};

	if (!v || !b || !move)
		return 1;
	inode = BPF_CORE_READ(from, d_inode);
	o.action = move->action;
	o.reason = move->source.reason ? move->source.reason : move->target.reason;
	if (o.reason == GUARD_BY_RULE) {
		s = state_of(v->slot, move->source.state);
		t = state_of(v->slot, move->target.state);
		if (!s || !t)
			o.reason = GUARD_BROKEN_MAP;
	}
	if (!s || !t)
		return !allowed(v, b, 0, &o) && tell_file(v, &o, from);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFDIR)
		guard_weakened(&weakened, &s->reaches, &t->pervades);
	else
		guard_weakened(&weakened, &s->covers, &t->covers);
	if (!allowed(v, b, &weakened, &o) && tell_file(v, &o, from))
		return 1;
	inode = BPF_CORE_READ(to, d_inode);
	if (move->action != GUARD_RENAME || !inode)
		return 0;
	o.action = GUARD_WRITE;
	return !allowed(v, b, &t->covers, &o) && tell_file(v, &o, to);
}

static __always_inline bool refuse_name(struct dentry *from, struct dentry *to, __u32 action)
{
	const __u32 file_actions = 1U << GUARD_READ | 1U << GUARD_WRITE | 1U << GUARD_EXECUTE;
	struct move move = { .action = action };
	const struct bound *b;
	struct bound local;
	struct view v;

	if (!see(&v))
		return 0;
	b = bound(&v, &local);
	if (!(b->actions & file_actions))
		return 0;
	guard_place(v.slot, number(from), &move.source);
	guard_place(v.slot, number(to), &move.target);
	return refuse_move(&v, b, &move, from, to);
}

SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *from, struct inode *folder, struct dentry *to, int ret)
{
	if (ret)
		return ret;
	if (refuse_name(from, to, GUARD_LINK))
		return -EPERM;
	return 0;
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_folder, struct dentry *from, struct inode *new_folder, struct dentry *to,
	     int ret)
{
	if (ret)
		return ret;
	if (refuse_name(from, to, GUARD_RENAME))
		return -EPERM;
	return 0;
}

/* ---- network ------------------------------------------------------------------------------------------------ */

struct endpoint {
	__u32 family;		/* 0: neither IPv4 nor IPv6 */
	__u32 port;		/* host order */
	__u32 protocol;
	__u8 address[16];
};

/* IPv4-mapped IPv6 is IPv4. */
static __always_inline void unmap(struct endpoint *e)
{
	const __u32 *words = (const __u32 *)e->address;

	if (e->family != AF_INET6 || words[0] || words[1] || words[2] != bpf_htonl(0xffff))
		return;
	e->family = AF_INET;
	__builtin_memcpy(e->address, e->address + 12, 4);
	__builtin_memset(e->address + 4, 0, 12);
}

static __always_inline bool read_address(const void *from, __u32 socket_family, bool unspecified_is_ipv4,
					 struct endpoint *e)
{
	struct guard_sockaddr a = {};

	if (bpf_probe_read_kernel(&a, sizeof(a), from))
		return 0;
	/* a datagram socket for IPv4 takes an address of no family for one of its own */
	if (a.family == AF_INET || (unspecified_is_ipv4 && a.family == AF_UNSPEC && socket_family == AF_INET)) {
		e->family = AF_INET;
		__builtin_memcpy(e->address, a.ipv4, 4);
	} else if (a.family == AF_INET6) {
		e->family = AF_INET6;
		__builtin_memcpy(e->address, a.ipv6, 16);
	} else {
		return 0;
	}
	e->port = bpf_ntohs(a.port);
	unmap(e);
	return 1;
}

static __always_inline bool read_peer(struct sock *sk, struct endpoint *e)
{
	if (sk->__sk_common.skc_state != SOCK_ESTABLISHED)
		return 0;
	e->family = sk->__sk_common.skc_family;
	if (e->family == AF_INET) {
		__u32 address = sk->__sk_common.skc_daddr;

		__builtin_memcpy(e->address, &address, 4);
	} else if (e->family == AF_INET6) {
		BPF_CORE_READ_INTO(&e->address, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	} else {
		return 0;
	}
	e->port = bpf_ntohs(sk->__sk_common.skc_dport);
	unmap(e);
	return 1;
}

/* The rules that cover an endpoint; -1 when a table is missing. */
int guard_reach(__u32 slot, const struct endpoint *e, struct guard_vector *covers)
{
	struct guard_ipv4_key key4 = { .prefixlen = 32 };
	struct guard_ipv6_key key6 = { .prefixlen = 128 };
	struct guard_port_key port = { .prefixlen = 16 };
	guard_u64 address, by_port = 0, protocol = 0, sets, *found;
	const struct guard_policy *p;
	struct guard_vector spared;
	__u32 zero = 0, i;
	void *table;

	if (!e || !covers)
		return -1;
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	if (e->family == AF_INET) {
		table = INNER_OF(ipv4, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key4.address, e->address, 4);
		found = bpf_map_lookup_elem(table, &key4);
	} else {
		table = INNER_OF(ipv6, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key6.address, e->address, 16);
		found = bpf_map_lookup_elem(table, &key6);
	}
	address = found ? *found : 0;
	/* a table is asked only when a set that is left has such a key */
	if ((p->any_address | address) & ~p->any_port) {
		table = INNER_OF(ports, slot);
		if (!table)
			return -1;
		port.port[0] = e->port >> 8;
		port.port[1] = e->port;
		found = bpf_map_lookup_elem(table, &port);
		by_port = found ? *found : 0;
	}
	if ((p->any_address | address) & (p->any_port | by_port) & ~p->any_protocol) {
		table = INNER_OF(ids, slot);
		if (!table)
			return -1;
		protocol = sets_of(table, GUARD_ID_PROTOCOL, e->protocol);
	}
	sets = guard_destination_sets(p, address, by_port, protocol);

	table = INNER_OF(destinations, slot);
	if (!table)
		return -1;
	__builtin_memset(covers, 0, sizeof(*covers));
	__builtin_memset(&spared, 0, sizeof(spared));
	for (i = 0; i < GUARD_SETS; i++) {
		const struct guard_destination *set;
		__u32 index = guard_lowest(sets);

		if (!sets)
			break;
		sets &= sets - 1;
		set = bpf_map_lookup_elem(table, &index);
		if (!set)
			return -1;
		guard_add(covers, &set->covers);
		guard_add(&spared, &set->spares);
	}
	for (i = 0; i < GUARD_WORDS; i++)
		covers->word[i] |= p->not_destinations.word[i] & ~spared.word[i];
	return 0;
}

static __noinline bool tell_endpoint(const struct view *v, const struct outcome *o, const struct endpoint *e)
{
	struct matter m = {};

	if (!v || !o || !e)
		return 1;
	describe(v, o, &m);
	m.family = e->family;
	m.protocol = e->protocol;
	m.port = e->port;
	__builtin_memcpy(m.address, e->address, sizeof(m.address));
	guard_tell(&m);
	return o->verdict == GUARD_DENY;
}

static __noinline bool allowed_endpoint(const struct view *v, const struct bound *b, const struct endpoint *e,
					struct outcome *o)
{
	struct guard_vector covers = {};	/* 6.1 lets no function fill what is not */
	bool known;

	if (!v || !b || !e || !o)
		return 0;
	known = !guard_reach(v->slot, e, &covers);
	o->reason = known ? GUARD_BY_RULE : GUARD_BROKEN_MAP;
	return allowed(v, b, known ? &covers : 0, o);
}

static __always_inline __u32 protocol_of(struct sock *sk)
{
	__u32 protocol = sk->sk_protocol;

	return protocol == IPPROTO_MPTCP ? IPPROTO_TCP : protocol;
}

/* Where to: the address that came with the call, else, for what is sent, a connected datagram socket's peer. */
static __always_inline bool find_endpoint(struct socket *sock, const void *address, bool sending, struct endpoint *e)
{
	struct sock *sk = sock->sk;

	if (!sk)
		return 0;
	e->protocol = protocol_of(sk);
	if (address)
		return read_address(address, sk->__sk_common.skc_family, sending, e);
	return sending && sock->type == SOCK_DGRAM && read_peer(sk, e);
}

static __always_inline bool refuse_endpoint(struct socket *sock, const void *address, bool sending, __u32 actions)
{
	struct endpoint e = {};
	struct outcome o = {};
	const struct bound *b;
	struct bound local;
	struct view v;
	__u32 i;

	if (!see(&v))
		return 0;
	b = bound(&v, &local);
	actions &= b->actions;
	if (!actions || !find_endpoint(sock, address, sending, &e))
		return 0;
	for (i = GUARD_CONNECT; i <= GUARD_SEND; i++) {
		if (!(actions & (1U << i)))
			continue;
		o.action = i;
		if (!allowed_endpoint(&v, b, &e, &o) && tell_endpoint(&v, &o, &e))
			return 1;
	}
	return 0;
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *sock, struct sockaddr *address, int length, int ret)
{
	if (ret)
		return ret;
	if (refuse_endpoint(sock, address, 0, 1U << GUARD_CONNECT))
		return -EPERM;
	return 0;
}

/* An address with the data: unconnected, or TCP Fast Open, which connects here and nowhere else. */
SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	__u32 actions = 1U << GUARD_SEND;
	const void *name;

	if (ret)
		return ret;
	name = msg->msg_name;
	if (name && (msg->msg_flags & MSG_FASTOPEN))
		actions |= 1U << GUARD_CONNECT;
	if (refuse_endpoint(sock, name, 1, actions))
		return -EPERM;
	return 0;
}

/* ---- identity ----------------------------------------------------------------------------------------------- */

SEC("lsm/bprm_committed_creds")
int BPF_PROG(bprm_committed_creds, struct linux_binprm *bprm)
{
	struct task *t = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

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
