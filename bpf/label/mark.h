/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What carries labels from one task to another: pipes, sockets, message queues, keys, terminals and the content of files.
 */
#ifndef GUARD_LABEL_MARK_H
#define GUARD_LABEL_MARK_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"
#include "subject/carrier.h"
#include "label/reading.h"

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct guard_mark);
} marks SEC(".maps");

/* Pipes, sockets and System V message queues, whose storage can't be had by the pointers that lead there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_WIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct guard_mark);
} wires SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_KEPT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_kept_key);
	__type(value, struct guard_kept);
} kept SEC(".maps");

/* A mark that is new, or from before labels came into use, is begun. */
static __noinline struct guard_mark *begun(struct guard_mark *m, __u64 since)
{
	struct guard_facts *f = fact();
	__u32 i;

	if (!m || m->since == since)
		return m;
	m->labels = 0;
	m->spread = 0;
	m->crowded = f ? f->unwatched : 1;
	for (i = 0; i < GUARD_READERS; i++)
		m->readers[i] = 0;
	m->since = since;
	return m;
}

static __noinline struct guard_mark *wire(__u64 key, __u64 since)
{
	struct guard_mark *m = bpf_map_lookup_elem(&wires, &key);
	struct guard_mark fresh = {};

	if (!m) {
		bpf_map_update_elem(&wires, &key, &fresh, BPF_NOEXIST);
		m = bpf_map_lookup_elem(&wires, &key);
	}
	return begun(m, since);
}

static __always_inline int unwire(__u64 key)
{
	if (labels_since())
		bpf_map_delete_elem(&wires, &key);
	return 0;
}

static __noinline bool vacant(__u64 since, __u64 number)
{
	return !number || (number < SPACE && !cell_of(since, number));
}

/* Whoever reads there is found by what is written there later, also while it waits for it. Gives what is there
 * already. */
static __noinline __u64 watch(struct guard_mark *m, struct guard_carrier *c)
{
	struct guard_facts *f;
	__u64 there;
	__u32 i;

	if (!m || !c || !found_cell(c)) {
		f = fact();
		if (m)
			m->crowded = 1;
		else if (f && !f->unwatched)
			f->unwatched = 1;
		return m ? m->labels : 0;
	}
	for (i = 0; i < GUARD_READERS; i++)
		if (m->readers[i] == c->cell)
			return m->labels;
	GUARD_UNROLL
	for (i = 0; i < GUARD_READERS; i++) {
		there = m->readers[i];
		if (vacant(m->since, there) && __sync_val_compare_and_swap(&m->readers[i], there, c->cell) == there)
			return __sync_fetch_and_or(&m->labels, 0);
	}
	m->crowded = 1;
	return __sync_fetch_and_or(&m->labels, 0);
}

/* What is about to be written carries these labels, and so does whoever reads there. False: one of them can't be
 * found. */
static __noinline bool spread(struct guard_mark *m, __u64 labels)
{
	__u64 there;
	__u32 i;

	if (!m)
		return 0;
	if (!(labels & ~m->spread))
		return 1;
	/* before the readers are looked at: who comes after that sees it. An addition that gives a value is a barrier. */
	if (labels & ~__sync_fetch_and_or(&m->labels, labels))
		count_mark();
	for (i = 0; i < GUARD_READERS; i++) {
		there = m->readers[i];
		if (there && !label_cell(m->since, there, labels) && there >= SPACE)
			return 0;
	}
	if (m->crowded)
		return 0;
	__sync_fetch_and_or(&m->spread, labels);
	return 1;
}

enum carrying { NOTHING, PIPE, SOCKET, CONTENT, TERMINAL };

/* Files that are kept in memory, so that a mapping is their usual way. */
static __always_inline bool in_memory(const struct inode *inode)
{
	unsigned long magic = inode->i_sb->s_magic;

	return magic == TMPFS_MAGIC || magic == RAMFS_MAGIC || magic == HUGETLBFS_MAGIC || magic == MQUEUE_MAGIC;
}

#define MASTER (5U << 20 | 2) /* /dev/ptmx: a pseudo terminal's other side */

static __always_inline bool terminal(const struct inode *inode)
{
	__u32 major = inode->i_rdev >> 20;

	return inode->i_rdev == MASTER || inode->i_rdev == 5U << 20 || (major >= 136 && major <= 143);
}

/* Other devices, and what only looks like a file, carry nothing. */
static __always_inline enum carrying carrying(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFIFO:
		return PIPE;
	case S_IFSOCK:
		return SOCKET;
	case S_IFREG:
		return in_memory(inode) || !pseudo(inode->i_sb) ? CONTENT : NOTHING;
	case S_IFCHR:
		return terminal(inode) ? TERMINAL : NOTHING;
	}
	return NOTHING;
}

static __always_inline void kept_by(const struct inode *inode, struct guard_kept_key *key)
{
	key->inode = BPF_CORE_READ(inode, i_ino);
	key->device = BPF_CORE_READ(inode, i_sb, s_dev);
	key->generation = BPF_CORE_READ(inode, i_generation);
}

/* What the kernel may have forgotten together with the file's inode. */
static __noinline __u64 kept_labels(const struct inode *inode, __u64 since)
{
	struct guard_kept_key key = {};
	struct guard_kept *k;

	kept_by(inode, &key);
	k = bpf_map_lookup_elem(&kept, &key);
	return k && k->since == since ? k->labels : 0;
}

static __noinline bool keep_labels(const struct inode *inode, __u64 since, __u64 labels)
{
	struct guard_kept fresh = { .since = since };
	struct guard_kept_key key = {};
	struct guard_kept *k;

	kept_by(inode, &key);
	k = bpf_map_lookup_elem(&kept, &key);
	if (!k) {
		bpf_map_update_elem(&kept, &key, &fresh, BPF_NOEXIST);
		k = bpf_map_lookup_elem(&kept, &key);
	}
	if (!k || k->since != since) /* user space has begun anew meanwhile */
		return 0;
	__sync_fetch_and_or(&k->labels, labels);
	return 1;
}

/* The mark of a file that is about to be written to. 0: what it carries can't be remembered. */
static __noinline struct guard_mark *content(struct inode *inode, __u64 since, __u64 labels)
{
	struct guard_mark *m = bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	m = begun(m, since);
	if (m && (labels & ~m->spread) && !in_memory(inode) && !keep_labels(inode, since, labels))
		return 0;
	return m;
}

static __always_inline struct sock *sock_of(struct file *file)
{
	struct socket *sock = file->private_data;

	return BPF_CORE_READ(sock, sk);
}

/* One of the two ways of a pseudo terminal, by its node's inode, which lives as long: to the master, or from it. 0: it is
 * not open yet, or no such thing. */
static __noinline __u64 terminal_wire(const struct file *file, bool write)
{
	const struct tty_file_private *opened = file->private_data;
	const struct tty_struct *tty = BPF_CORE_READ(opened, tty);
	bool master = file->f_inode->i_rdev == MASTER;
	const struct dentry *node;
	__u64 inode;

	if (master)
		tty = BPF_CORE_READ(tty, link);
	node = BPF_CORE_READ(tty, driver_data);
	inode = (__u64)BPF_CORE_READ(node, d_inode);
	if (!inode)
		return 0;
	return master == write ? inode : inode + 1;
}

#endif
