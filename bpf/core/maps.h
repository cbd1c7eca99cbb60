/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tables of a generation, the maps that outlive it, and the generation that a decision uses.
 *
 * The name of a map is the name of its pin. An upgrade in place finds the maps of the running version by name. A map
 * with a new name would start empty, and tasks and files would lose their labels: rename one only with a new
 * GUARD_LAYOUT.
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

/* Each generation has one inner map, in its slot. */
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
	__type(key, struct guard_protected_key);
	__type(value, __u32);
} our SEC(".maps");

#define CACHED_GROUPS 12

struct group_list {
	__u32 count, pad;
	__u32 ids[CACHED_GROUPS];
};

/* The rules that apply to a task, and a bit for each action below 32 that one of them has. */
struct subject_rules {
	__u32 actions;
	__u32 pad;
	struct guard_vector rules;
};

/* Accumulates the subject sets of several ids. */
struct id_match {
	guard_u64 any, all, members;
	union {
		struct {
			__u32 last;
			__u32 truncated;
		};
		struct {
			int service, left; /* automaton states, before ids are matched */
		};
	};
};

#define IDENTITY_EXECUTABLE 1 /* the executable is recorded */
#define IDENTITY_CGROUP 2     /* `former` has the cgroup that the task was cloned out of */
#define IDENTITY_GROUPS 4     /* `former` has the groups that it gave up */
#define IDENTITY_UNKNOWN 8    /* it may have left something, but that could not be recorded */
#define IDENTITY_FORMER (IDENTITY_CGROUP | IDENTITY_GROUPS | IDENTITY_UNKNOWN)
#define IDENTITY_INIT_CHILD 16 /* a child of the host's first process that has not left its cgroup */

struct task_cache {
	/* the executable, as recorded at exec and inherited at fork; not with IDENTITY_EXECUTABLE clear */
	__u64 inode;
	__u32 device;
	__u32 inode_generation;
	__u32 recorded; /* IDENTITY_* */
	/* what `subject` was computed from, by value, since a pointer may be reused */
	__u32 login;
	__u64 generation; /* of the policy; 0: nothing is cached */
	__u64 cgroup;
	__u64 user_ns;
	__u32 ids[8];
	__u32 uses; /* of the policy */
	__u32 pad;
	__u64 labels; /* labels of the task at that time */
	__u64 cred,
		cred_version; /* the entry of the credential cache with the same result: its cred, and its version */
	struct group_list groups;
	struct subject_rules subject;
	/* scratch space for the computation, since stack is short; only the task itself writes it */
	union {
		struct {
			struct guard_task_sets sets;
			struct guard_vector exempted;
		};
		__u64 chain[GUARD_CGROUP_DEPTH]; /* before them: the cgroup's path, from the last component up */
	};
	struct id_match match;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_cache);
} tasks SEC(".maps");

/* What a task gave up by its own action, which binds it nevertheless: the cgroup that it was cloned out of, and groups.
 * Names of cgroups, not ids: a cgroup may be removed, and the next policy may name it. */
#define FORMER_GROUPS (GUARD_GROUPS + 4)
#define FORMER_NAME 128
#define FORMER_UNKNOWN (~0U)

struct former_identity {
	__u32 depth;  /* components of the cgroup's path; FORMER_UNKNOWN: they could not be recorded */
	__u32 groups; /* FORMER_UNKNOWN: they could not be recorded */
	__u32 group[FORMER_GROUPS];
	char name[GUARD_CGROUP_DEPTH][FORMER_NAME]; /* from the last component up */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct former_identity);
} former SEC(".maps");

/* Replaces task storage that cannot be allocated. Keyed by task, so that no other task writes the entry. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct task_cache);
} spare SEC(".maps");

/* Initial value of a new entry of `spare`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct task_cache);
} blank SEC(".maps");

/* Cache, keyed by credentials: the actions that the rules applying to this credential can deny. A cred never
 * changes, and lsm/cred_free drops its entry before the memory is reused. Everything else that the result depends
 * on is stored by value. */
struct cred_cache_entry {
	__u64 version; /* odd during a write; a reader that sees it change discards what it read */
	__u64 cred;
	__u64 generation;
	__u64 cgroup;
	__u64 labels;
	__u32 actions; /* and GUARD_DEPENDS_ON_* */
	__u32 login;
};
#define GUARD_DEPENDS_ON_LABELS (1U << 29)  /* the entry is valid for these `labels` only */
#define GUARD_DEPENDS_ON_SERVICE (1U << 30) /* the entry is valid for this `cgroup` only */
#define GUARD_DEPENDS_ON_LOGIN (1U << 31)   /* the entry is valid for this `login` only */
#define CRED_CACHE_SIZE 2048

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CRED_CACHE_SIZE);
	__type(key, __u32);
	__type(value, struct cred_cache_entry);
} known SEC(".maps");

/* Cache: the actions of the rules that cover an endpoint. They depend on the generation and the endpoint only. */
#define ENDPOINT_CACHE_SIZE 1024
struct endpoint_cache_entry {
	__u64 version; /* as in struct cred_cache_entry */
	__u64 generation;
	__u64 where[5]; /* bytes of a struct endpoint */
	__u32 actions;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDPOINT_CACHE_SIZE);
	__type(key, __u32);
	__type(value, struct endpoint_cache_entry);
} covered SEC(".maps");

/* Cache in the inode: a file's automaton state, with everything that its path depends on. */
struct path_cache_key {
	__u64 generation;
	__u64 parent_inode;
	__u32 parent_generation;
	__u32 rename_sequence;
	__u32 length;
	char name[GUARD_COMPONENT];
};
struct inode_cache {
	__u32 version; /* odd during a write; a reader that sees it change discards what it read */
	__u32 state;
	__u32 actions; /* of the rules that cover the state */
	__u32 pad;
	struct path_cache_key key;
};

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct inode_cache);
} inodes SEC(".maps");

/* What a socket has done, or the listener that it was accepted from: tells the direction of a connection. */
struct socket_roles {
	__u32 roles, pad;
};
#define ROLE_CONNECTING 1
#define ROLE_LISTENING 2

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct socket_roles);
} sockets SEC(".maps");

/* TCP ports that had a listener when the programs that write `sockets` were attached, one bit each. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 64);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

/* A kernel pointer as a scalar, since a global function takes no kernel pointer. */
static __noinline __u64 ptr_to_u64(const void *pointer)
{
	__u64 n = 0;

	bpf_probe_read_kernel(&n, sizeof(n), &pointer);
	return n;
}

/* Fast path for trusted pointers: subtracting two pointers yields a scalar to the verifier. */
static __always_inline __u64 ptr_to_u64_trusted(const void *pointer)
{
	__u64 n = (__u64)pointer;

	asm volatile("%0 -= %1" : "+r"(n) : "r"(bpf_get_current_task_btf()));
	return n + bpf_get_current_task();
}

struct generation_ref {
	__u64 generation;
	__u32 slot;
	__u32 pad;
	__u64 cred_version; /* version of the credential cache entry that was used; 0: none */
};

/* Returns 0 in a way that the processor cannot predict. Added to an address, it orders the read from there after
 * the read of `seen`, also on Arm: an address dependency. */
static __always_inline __u64 read_dependency(__u64 seen)
{
	asm volatile("%0 &= 0" : "+r"(seen));
	return seen;
}

/* SLOT is a variable: its address is taken. A copy would cost stack. */
#define INNER_OF(OUTER, SLOT) bpf_map_lookup_elem(&(OUTER), &(SLOT))

/* Reads the record once: generation and slot of the whole decision come from this read. After the deadline of an
 * unconfirmed record its fallback is active, without any action of user space. Returns false if there is no record.
 * The slot is not checked yet. */
static __always_inline bool peek_generation(struct generation_ref *gen)
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
		gen->generation = record->fallback_generation;
		gen->slot = record->fallback_slot;
	} else {
		gen->generation = record->generation;
		gen->slot = record->slot;
	}
	gen->cred_version = 0;
	return 1;
}

/* Returns false if no policy is active. */
static __always_inline bool active_generation(struct generation_ref *gen)
{
	return peek_generation(gen) && gen->slot < GUARD_SLOTS;
}

static __always_inline const struct guard_policy *policy_of(const struct generation_ref *gen)
{
	void *inner = INNER_OF(policy, gen->slot);
	__u32 zero = 0;

	return inner ? bpf_map_lookup_elem(inner, &zero) : 0;
}

static __always_inline struct guard_totals *get_totals(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&totals, &zero);
}

static __always_inline struct guard_facts *get_facts(void)
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
