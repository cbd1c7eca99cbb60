/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tables of a generation, what outlives it, and the generation that a decision is taken under.
 */
#ifndef GUARD_CORE_MAPS_H
#define GUARD_CORE_MAPS_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"

#define INNER(NAME, TYPE, KEY, VALUE, FLAGS)       \
	struct NAME##_table {                      \
		__uint(type, TYPE);                \
		__uint(max_entries, 1);            \
		__uint(key_size, sizeof(KEY));     \
		__uint(value_size, sizeof(VALUE)); \
		__uint(map_flags, FLAGS);          \
	}

/* one inner map a generation, in the generation's slot */
#define TABLE(NAME, TYPE, KEY, VALUE, FLAGS)              \
	INNER(NAME, TYPE, KEY, VALUE, FLAGS);             \
	struct {                                          \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); \
		__uint(max_entries, GUARD_SLOTS);         \
		__type(key, __u32);                       \
		__array(values, struct NAME##_table);     \
	} NAME SEC(".maps")

TABLE(policy, BPF_MAP_TYPE_ARRAY, __u32, struct guard_policy, 0);
TABLE(subjects, BPF_MAP_TYPE_ARRAY, __u32, struct guard_subject, BPF_F_INNER_MAP);
TABLE(destinations, BPF_MAP_TYPE_ARRAY, __u32, struct guard_destination, BPF_F_INNER_MAP);
TABLE(ids, BPF_MAP_TYPE_HASH, struct guard_id_key, guard_u64, 0);
TABLE(ipv4, BPF_MAP_TYPE_LPM_TRIE, struct guard_ipv4_key, guard_u64, BPF_F_NO_PREALLOC);
TABLE(ipv6, BPF_MAP_TYPE_LPM_TRIE, struct guard_ipv6_key, guard_u64, BPF_F_NO_PREALLOC);
TABLE(ports, BPF_MAP_TYPE_LPM_TRIE, struct guard_port_key, guard_u64, BPF_F_NO_PREALLOC);
TABLE(vsock, BPF_MAP_TYPE_LPM_TRIE, struct guard_vsock_key, guard_u64, BPF_F_NO_PREALLOC);
TABLE(devices, BPF_MAP_TYPE_HASH, struct guard_device_key, guard_u32, 0);
TABLE(labels, BPF_MAP_TYPE_ARRAY, __u32, struct guard_label, BPF_F_INNER_MAP);
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

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct guard_our_key);
	__type(value, __u32);
} our SEC(".maps");

#define CACHED_GROUPS 12

struct group_list {
	__u32 count, pad;
	__u32 ids[CACHED_GROUPS];
};

/* the rules that bind a task, and those actions below 32 that any of them is about */
struct bound {
	__u32 actions;
	__u32 pad;
	struct guard_vector rules;
};

/* ids on the way to subject sets */
struct tally {
	guard_u64 any, all, members;
	__u32 last;
	__u32 cut;
};

struct task {
	/* the executable, as recorded at exec and handed on at fork */
	__u64 inode;
	__u32 device;
	__u32 inode_generation;
	__u32 recorded;
	/* what `bound` was worked out from, by value: a pointer may come back as something else */
	__u32 login;
	__u64 generation; /* of the policy; 0: nothing is cached */
	__u64 cgroup;
	__u64 user_ns;
	__u32 ids[8];
	__u32 uses; /* of the policy */
	__u32 pad;
	__u64 labels;      /* it carried */
	__u64 cred, stamp; /* the entry of `known` that says the same: whose, and its version then */
	struct group_list groups;
	struct bound bound;
	/* while it is worked out: only the task itself does so, and stack is short */
	struct guard_who who;
	struct guard_vector freed;
	struct tally tally;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task);
} tasks SEC(".maps");

/* Stands in for a task's storage when that can't be had: keyed by the task, so that nobody else writes it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct task);
} spare SEC(".maps");

/* What a new entry of `spare` begins as. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task);
} blank SEC(".maps");

/* What is known of whoever has a cred: those actions that any rule which binds him is about. A cred never changes, and
 * lsm/cred_free takes its entry away before another can come to lie at its address. What else counts is here by value. */
struct known {
	__u64 version; /* odd while somebody writes; a reader that sees it move has read nothing */
	__u64 cred;
	__u64 generation;
	__u64 cgroup;
	__u64 labels;
	__u32 actions; /* and GUARD_KNOWS_* */
	__u32 login;
};
#define GUARD_KNOWS_LABELS (1U << 29)   /* `labels` count */
#define GUARD_KNOWS_SERVICES (1U << 30) /* `cgroup` counts */
#define GUARD_KNOWS_LOGIN (1U << 31)    /* `login` counts */
#define KNOWN_CREDS 2048

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KNOWN_CREDS);
	__type(key, __u32);
	__type(value, struct known);
} known SEC(".maps");

/* The actions that rules which cover an endpoint are about: a pure function of generation and endpoint. */
#define COVERED 1024
struct covered {
	__u64 version; /* as in `known` */
	__u64 generation;
	__u64 where[5]; /* a struct endpoint */
	__u32 actions;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COVERED);
	__type(key, __u32);
	__type(value, struct covered);
} covered SEC(".maps");

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
	__u32 version; /* odd while somebody writes; a reader that sees it move has read nothing */
	__u32 state;
	__u32 actions; /* that any rule which covers the state is about */
	__u32 pad;
	struct placed placed;
};

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct inode_value);
} inodes SEC(".maps");

/* Which side a connection is from: what its socket has done, or the one that it was accepted from. */
struct socket_value {
	__u32 seen, pad;
};
#define SEEN_CONNECTING 1
#define SEEN_LISTENING 2

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct socket_value);
} sockets SEC(".maps");

/* TCP ports that were listened on when the programs that write `sockets` were attached, a bit each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 64);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

/* A kernel pointer as a plain number: a global function takes no other. */
static __noinline __u64 number(const void *pointer)
{
	__u64 n = 0;

	bpf_probe_read_kernel(&n, sizeof(n), &pointer);
	return n;
}

/* The same of what the verifier knows as a pointer, quickly: the difference of two is a number. */
static __always_inline __u64 number_of(const void *pointer)
{
	__u64 n = (__u64)pointer;

	asm volatile("%0 -= %1" : "+r"(n) : "r"(bpf_get_current_task_btf()));
	return n + bpf_get_current_task();
}

struct view {
	__u64 generation;
	__u32 slot;
	__u32 pad;
	__u64 stamp; /* version of the entry of `known` that told of the task; 0: none did */
};

/* 0, of which the machine does not know it: an address that it is added to is read after `seen` was, on Arm, too */
static __always_inline __u64 after(__u64 seen)
{
	asm volatile("%0 &= 0" : "+r"(seen));
	return seen;
}

/* SLOT: a variable, since its address is taken: stack is short */
#define INNER_OF(OUTER, SLOT) bpf_map_lookup_elem(&(OUTER), &(SLOT))

/* One read of the record gives the generation and the slot of the whole decision. Past its deadline an unconfirmed
 * record means its fallback, with nobody's help. False: there is none. The slot is not looked at yet. */
static __always_inline bool glance(struct view *v)
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
	v->stamp = 0;
	return 1;
}

/* False: no policy is in force. */
static __always_inline bool see(struct view *v)
{
	return glance(v) && v->slot < GUARD_SLOTS;
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

static __always_inline struct guard_facts *fact(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&facts, &zero);
}

static __always_inline guard_u64 sets_of(void *ids_table, __u32 kind, __u32 number)
{
	struct guard_id_key key = { .kind = kind, .number = number };
	guard_u64 *sets = bpf_map_lookup_elem(ids_table, &key);

	return sets ? *sets : 0;
}

static __always_inline const struct guard_state *state_of(__u32 slot, __u32 state)
{
	void *inner = INNER_OF(states, slot);

	return inner ? bpf_map_lookup_elem(inner, &state) : 0;
}

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___618 *newer = (void *)node;

	if (bpf_core_field_exists(newer->__parent))
		return BPF_CORE_READ(newer, __parent);
	return BPF_CORE_READ(node, parent);
}

static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

#endif
