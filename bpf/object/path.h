/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Runs the path automaton over the dentries of an object, up to the root of its superblock.
 */
#ifndef GUARD_OBJECT_PATH_H
#define GUARD_OBJECT_PATH_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"

/* A seqlock_t begins with its sequence. The address is 0 where the kernel hides its addresses (kptr_restrict=2). */
extern const void rename_lock __ksym __weak;

/* The state after one component, or -1 if a table lacks an entry. A global function, so that it is verified and
 * proved once. */
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
			/* The component may be longer: then no literal of this state matches, since a longer one
			 * has a byte automaton. */
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

/* The kind of a filesystem, or GUARD_KINDS. Its magic number decides: another mount is another superblock, with another
 * device number, for example that of procfs in each pid namespace. */
static __always_inline __u32 filesystem_kind(const struct super_block *sb)
{
	switch (BPF_CORE_READ(sb, s_magic)) {
	case PROC_MAGIC:
		return GUARD_PROC;
	case SYSFS_MAGIC:
		return GUARD_SYSFS;
	case CGROUP_MAGIC:
		return GUARD_CGROUP;
	case CGROUP2_MAGIC:
		return GUARD_CGROUP2;
	case DEBUGFS_MAGIC:
		return GUARD_DEBUGFS;
	case TRACEFS_MAGIC:
		return GUARD_TRACEFS;
	case SECURITYFS_MAGIC:
		return GUARD_SECURITYFS;
	case CONFIGFS_MAGIC:
		return GUARD_CONFIGFS;
	case BINFMTFS_MAGIC:
		return GUARD_BINFMTFS;
	case EFIVARFS_MAGIC:
		return GUARD_EFIVARFS;
	case PSTOREFS_MAGIC:
		return GUARD_PSTOREFS;
	case SELINUX_MAGIC:
		return GUARD_SELINUXFS;
	}
	return GUARD_KINDS;
}

/* The key of a superblock in the map superblocks. All filesystems with a kind have an anonymous device. */
static __always_inline __u32 superblock_number(const struct super_block *sb)
{
	__u32 device = BPF_CORE_READ(sb, s_dev), kind;

	if (device >> 20)
		return device;
	kind = filesystem_kind(sb);
	return kind < GUARD_KINDS ? GUARD_KIND + kind : device;
}

static __always_inline bool is_pseudo_fs(const struct super_block *sb)
{
	if (BPF_CORE_READ(sb, s_flags) & SB_NOUSER)
		return 1;
	switch (BPF_CORE_READ(sb, s_magic)) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
	case DEVPTS_MAGIC:
	case BPFFS_MAGIC:
	case PIPEFS_MAGIC:
	case SOCKFS_MAGIC:
	case ANON_INODE_MAGIC:
	case NSFS_MAGIC:
	case PIDFS_MAGIC:
	case MQUEUE_MAGIC:
	case HUGETLBFS_MAGIC:
	case AUTOFS_MAGIC:
	case RPCPIPEFS_MAGIC:
		return 1;
	}
	return filesystem_kind(sb) < GUARD_KINDS;
}

static __always_inline int read_rename_sequence(__u32 *sequence)
{
	if (!&rename_lock)
		return -1;
	return bpf_probe_read_kernel(sequence, sizeof(*sequence), &rename_lock) ? -1 : 0;
}

#define CHAIN_PART 4

struct place {
	__u32 state;
	__u32 reason;   /* enum guard_reason; GUARD_BY_RULE: the state is valid */
	__u32 sequence; /* rename sequence of the whole walk; odd: unknown */
};

/* Components between a dentry and the root of its superblock. A negative result is minus the reason why they could
 * not be counted. */
__noinline int guard_depth(__u64 leaf, __u64 root)
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

struct chain {
	__u64 dentry[CHAIN_PART];
};

/* The last CHAIN_PART dentries of the `left` ones on the way up from a leaf. A global function: otherwise the
 * verifier would follow its loop in each pass of the walk. */
__noinline int guard_chain(__u64 leaf, int left, struct chain *chain)
{
	const struct dentry *d = (const struct dentry *)leaf;
	int i;

	if (!chain)
		return -1;
	for (i = 0; i < GUARD_DEPTH; i++) {
		if (i >= left)
			break;
		chain->dentry[i & (CHAIN_PART - 1)] = (__u64)d;
		d = BPF_CORE_READ(d, d_parent);
	}
	return 0;
}

/* One walk: up to the root of the superblock, then through the automaton from the root down. Holds four dentries at
 * a time, so that the depth costs no stack. Returns an enum guard_reason. */
int guard_walk(__u32 slot, __u64 leaf, struct place *at)
{
	const struct super_block *sb = BPF_CORE_READ((const struct dentry *)leaf, d_sb);
	struct guard_superblock_key device = { .device = superblock_number(sb) };
	struct chain chain = {};
	const struct dentry *d;
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
		return is_pseudo_fs(sb) ? GUARD_BY_RULE : GUARD_UNKNOWN_FS;
	at->state = *start;
	left = guard_depth(leaf, (__u64)BPF_CORE_READ(sb, s_root));
	if (left < 0)
		return -left;
	for (pass = 0; pass < GUARD_DEPTH / CHAIN_PART; pass++) {
		guard_chain(leaf, left, &chain);
		for (i = 0; i < CHAIN_PART; i++) {
			if (left <= 0 || !at->state)
				return GUARD_BY_RULE;
			left--;
			d = (const struct dentry *)chain.dentry[left & (CHAIN_PART - 1)];
			next = guard_step(slot, at->state, (__u64)BPF_CORE_READ(d, d_name.name));
			if (next < 0)
				return GUARD_BROKEN_MAP;
			at->state = next;
		}
	}
	return GUARD_BY_RULE;
}

/* Finds the automaton state of a dentry. A rename during a walk may show a path that never existed, so the walk is
 * repeated. If the sequence cannot be read, there is one walk and nothing is cached. */
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
		int has_sequence = !read_rename_sequence(&before);

		if (has_sequence && (before & 1)) {
			at->reason = GUARD_UNSTABLE;
			continue;
		}
		at->reason = guard_walk(slot, dentry, at);
		if (!has_sequence)
			return 0;
		if (!read_rename_sequence(&after) && before == after) {
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

#endif
