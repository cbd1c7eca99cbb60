/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The state of an open file, cached in its inode; the file that lies behind an overlay's.
 */
#ifndef GUARD_OBJECT_LOCATE_H
#define GUARD_OBJECT_LOCATE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"

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

/* Pipes, sockets, a memfd, shared memory: on a superblock of the kernel's own, without a name to be covered by. What is
 * executed from there has none of the names that an allow-list gives. */
static __always_inline bool nameless(struct inode *inode, __u32 actions)
{
	return (inode->i_sb->s_flags & SB_NOUSER) && !(actions & (1U << GUARD_EXECUTE));
}

/* The state of a file by its dentry, through the cache in its inode. Gives the actions that are left to decide. */
static __noinline __u32 place_file(const struct view *v, struct file *file, struct place *at, __u32 actions)
{
	struct dentry *d = file->f_path.dentry;
	struct inode_value *cache = 0;
	struct placed now = {};
	__u32 version, known;
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
				known = cache->actions;
				if (__sync_fetch_and_add(&cache->version, 0) == version) {
					at->reason = GUARD_BY_RULE;
					return actions & known;
				}
			}
		}
	}
	if (nameless(file->f_inode, actions))
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

#define OVERLAYS 3 /* the kernel stacks two */

/* The file behind an overlay's open one; 0: it can't be told. */
static __noinline __u64 inode_behind(const struct file *file)
{
	struct inode *inode;
	unsigned long magic;
	__u32 i;

	for (i = 0; i < OVERLAYS; i++) {
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
