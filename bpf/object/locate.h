/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The automaton state of an open file, cached in its inode; the file behind an open file of an overlay.
 */
#ifndef GUARD_OBJECT_LOCATE_H
#define GUARD_OBJECT_LOCATE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"

static __always_inline bool same_place(const struct path_cache_key *a, const struct path_cache_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;
	__u64 differ = 0;
	__u32 i;

	GUARD_UNROLL
	for (i = 0; i < sizeof(*a) / sizeof(__u64); i++)
		differ |= x[i] ^ y[i];
	return !differ;
}

/* Stores by value everything that the path of this dentry depends on. Returns false if that cannot be read, or does
 * not identify the path for good. */
static __always_inline bool tag_file(const struct generation_ref *gen, const struct dentry *d, struct path_cache_key *p)
{
	const struct dentry *parent;
	const struct inode *above;
	__u32 length;

	/* Read before the parent: a rename in between then shows as another sequence after the walk. */
	if (read_rename_sequence(&p->rename_sequence) || (p->rename_sequence & 1))
		return 0;
	parent = d->d_parent;
	above = parent->d_inode;
	if (!above)
		return 0;
	p->generation = gen->generation;
	p->parent_inode = above->i_ino;
	p->parent_generation = above->i_generation;
	/* Without a generation, the inode number of a directory may have been reused. */
	if (!p->parent_generation)
		return 0;
	length = d->d_name.len;
	p->length = length;
	barrier_var(length);
	if (!length || length >= GUARD_COMPONENT)
		return 0;
	return !bpf_probe_read_kernel(p->name, length, d->d_name.name);
}

/* The actions of the rules that cover a state. */
static __noinline __u32 actions_of(const struct generation_ref *gen, __u32 state)
{
	const struct guard_policy *p;
	const struct guard_state *s;
	__u32 actions = 0, i;

	if (!gen)
		return ~0U;
	p = policy_of(gen);
	s = state_of(gen->slot, state);
	if (!p || !s)
		return ~0U;
#pragma unroll
	for (i = 0; i <= GUARD_LAST_PATH_ACTION; i++)
		if ((GUARD_PATH_ACTIONS & (1U << i)) && guard_concerns(&s->covers, &p->rules_by_action[i]))
			actions |= 1U << i;
	return actions;
}

/* Pipes, sockets, memfd and shared memory are on an internal superblock, so that no path pattern covers them. A
 * file that is executed from there has none of the names that an allow-list gives. */
static __always_inline bool is_anonymous_inode(struct inode *inode, __u32 actions)
{
	return (inode->i_sb->s_flags & SB_NOUSER) && !(actions & (1U << GUARD_EXECUTE));
}

/* Finds the state of a file by its dentry, through the cache in its inode. Returns the requested actions that have
 * to be decided. */
static __noinline __u32 place_file(const struct generation_ref *gen, struct file *file, struct place *at, __u32 actions)
{
	struct dentry *d = file->f_path.dentry;
	struct inode_cache *cache = 0;
	struct path_cache_key now = {};
	__u32 version, cached;
	bool hit;

	if (!gen || !at)
		return actions;
	if (tag_file(gen, d, &now)) {
		cache = bpf_inode_storage_get(&inodes, file->f_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (cache) {
			/* Adding 0 atomically is a barrier. */
			version = __sync_fetch_and_add(&cache->version, 0);
			hit = !(version & 1) && same_place(&cache->key, &now);
			if (hit) {
				at->state = cache->state;
				cached = cache->actions;
				if (__sync_fetch_and_add(&cache->version, 0) == version) {
					at->reason = GUARD_BY_RULE;
					return actions & cached;
				}
			}
		}
	}
	if (is_anonymous_inode(file->f_inode, actions))
		return 0;
	guard_place(gen->slot, ptr_to_u64(d), at);
	if (!cache || at->reason != GUARD_BY_RULE || at->sequence != now.rename_sequence)
		return ~0U;
	version = cache->version;
	if ((version & 1) || __sync_val_compare_and_swap(&cache->version, version, version + 1) != version)
		return ~0U;
	cache->key = now;
	cache->state = at->state;
	cache->actions = actions_of(gen, at->state);
	__sync_fetch_and_add(&cache->version, 1);
	return ~0U;
}

#define MAX_OVERLAYS 3 /* the kernel stacks at most two */

/* The file behind an open file of an overlay; 0 if it cannot be read. */
static __noinline __u64 inode_behind(const struct file *file)
{
	struct inode *inode;
	unsigned long magic;
	__u32 i;

	for (i = 0; i < MAX_OVERLAYS; i++) {
		file = (const struct file *)BPF_CORE_READ(file, private_data);
		inode = BPF_CORE_READ(file, f_inode);
		magic = BPF_CORE_READ(inode, i_sb, s_magic);
		if (!magic)
			break;
		if (magic != OVERLAYFS_MAGIC)
			return (__u64)inode;
	}
	return 0;
}

#endif
