/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Channels pass labels from one task to another: pipes, sockets, message queues, keys, terminals and the content of
 * files.
 */
#ifndef GUARD_LABEL_CHANNEL_H
#define GUARD_LABEL_CHANNEL_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"
#include "subject/task_label.h"
#include "label/read_cache.h"

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct guard_channel_label);
} marks SEC(".maps");

/* Pipes, sockets and System V message queues: hooks get pointers to them that do not lead to inode storage. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_CHANNELS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct guard_channel_label);
} wires SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_PERSISTENT_LABELS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_persistent_label_key);
	__type(value, struct guard_persistent_label);
} kept SEC(".maps");

/* Reset a channel label that is new or predates label tracking. */
static __noinline struct guard_channel_label *reset_if_stale(struct guard_channel_label *ch, __u64 since)
{
	struct guard_facts *f = get_facts();
	__u32 i;

	if (!ch || ch->since == since)
		return ch;
	ch->labels = 0;
	ch->propagated = 0;
	ch->readers_overflow = f ? f->readers_untracked : 1;
	for (i = 0; i < GUARD_READERS; i++)
		ch->readers[i] = 0;
	ch->since = since;
	return ch;
}

static __noinline struct guard_channel_label *channel(__u64 key, __u64 since)
{
	struct guard_channel_label *ch = bpf_map_lookup_elem(&wires, &key);
	struct guard_channel_label fresh = {};

	if (!ch) {
		bpf_map_update_elem(&wires, &key, &fresh, BPF_NOEXIST);
		ch = bpf_map_lookup_elem(&wires, &key);
	}
	return reset_if_stale(ch, since);
}

static __always_inline int channel_free(__u64 key)
{
	if (labels_since())
		bpf_map_delete_elem(&wires, &key);
	return 0;
}

static __noinline bool is_free_reader(__u64 since, __u64 number)
{
	return !number || (number < ADDRESS_SPACE_BASE && !label_group_of(since, number));
}

/* Register the task as a reader, so that later writes label it even while it blocks. Returns the labels already
 * present. */
static __noinline __u64 add_reader(struct guard_channel_label *ch, struct guard_task_label *label)
{
	struct guard_facts *f;
	__u64 there;
	__u32 i;

	if (!ch || !label || !ensure_label_group(label)) {
		f = get_facts();
		if (ch)
			ch->readers_overflow = 1;
		else if (f && !f->readers_untracked)
			f->readers_untracked = 1;
		return ch ? ch->labels : 0;
	}
	for (i = 0; i < GUARD_READERS; i++)
		if (ch->readers[i] == label->group)
			return ch->labels;
	GUARD_UNROLL
	for (i = 0; i < GUARD_READERS; i++) {
		there = ch->readers[i];
		if (is_free_reader(ch->since, there) &&
		    __sync_val_compare_and_swap(&ch->readers[i], there, label->group) == there)
			return __sync_fetch_and_or(&ch->labels, 0);
	}
	ch->readers_overflow = 1;
	return __sync_fetch_and_or(&ch->labels, 0);
}

/* Adds labels to the channel and to all its readers before data is written. Returns false if a reader cannot be
 * labelled. */
static __noinline bool propagate_to(struct guard_channel_label *ch, __u64 labels)
{
	__u64 there;
	__u32 i;

	if (!ch)
		return 0;
	if (!(labels & ~ch->propagated))
		return 1;
	/* Before the readers are read: a reader that comes later sees these labels. An atomic operation that
	 * returns a value is a barrier. */
	if (labels & ~__sync_fetch_and_or(&ch->labels, labels))
		bump_label_version();
	for (i = 0; i < GUARD_READERS; i++) {
		there = ch->readers[i];
		if (there && !add_group_labels(ch->since, there, labels) && there >= ADDRESS_SPACE_BASE)
			return 0;
	}
	if (ch->readers_overflow)
		return 0;
	__sync_fetch_and_or(&ch->propagated, labels);
	return 1;
}

enum channel_kind { CHANNEL_NONE, CHANNEL_PIPE, CHANNEL_SOCKET, CHANNEL_CONTENT, CHANNEL_TTY };

/* Filesystems in memory, whose files are usually mapped. */
static __always_inline bool is_memory_fs(const struct inode *inode)
{
	unsigned long magic = inode->i_sb->s_magic;

	return magic == TMPFS_MAGIC || magic == RAMFS_MAGIC || magic == HUGETLBFS_MAGIC || magic == MQUEUE_MAGIC ||
	       magic == SECRETMEM_MAGIC;
}

#define PTMX_DEV (5U << 20 | 2) /* /dev/ptmx: the other side of a pseudo terminal */

static __always_inline bool is_tty(const struct inode *inode)
{
	__u32 major = inode->i_rdev >> 20;

	return inode->i_rdev == PTMX_DEV || inode->i_rdev == 5U << 20 || (major >= 136 && major <= 143);
}

/* Other devices and pseudo files are no channels. */
static __always_inline enum channel_kind channel_kind_of(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFIFO:
		return CHANNEL_PIPE;
	case S_IFSOCK:
		return CHANNEL_SOCKET;
	case S_IFREG:
		return is_memory_fs(inode) || !is_pseudo_fs(inode->i_sb) ? CHANNEL_CONTENT : CHANNEL_NONE;
	case S_IFCHR:
		return is_tty(inode) ? CHANNEL_TTY : CHANNEL_NONE;
	}
	return CHANNEL_NONE;
}

static __always_inline void persistent_label_key(const struct inode *inode, struct guard_persistent_label_key *key)
{
	key->inode = BPF_CORE_READ(inode, i_ino);
	key->device = BPF_CORE_READ(inode, i_sb, s_dev);
	key->generation = BPF_CORE_READ(inode, i_generation);
}

/* Labels of a file whose inode the kernel may have evicted. */
static __noinline __u64 persistent_labels_of(const struct inode *inode, __u64 since)
{
	struct guard_persistent_label_key key = {};
	struct guard_persistent_label *k;

	persistent_label_key(inode, &key);
	k = bpf_map_lookup_elem(&kept, &key);
	return k && k->since == since ? k->labels : 0;
}

static __noinline bool store_persistent_labels(const struct inode *inode, __u64 since, __u64 labels)
{
	struct guard_persistent_label fresh = { .since = since };
	struct guard_persistent_label_key key = {};
	struct guard_persistent_label *k;

	persistent_label_key(inode, &key);
	k = bpf_map_lookup_elem(&kept, &key);
	if (!k) {
		bpf_map_update_elem(&kept, &key, &fresh, BPF_NOEXIST);
		k = bpf_map_lookup_elem(&kept, &key);
	}
	if (!k || k->since != since) /* user space has restarted label tracking meanwhile */
		return 0;
	__sync_fetch_and_or(&k->labels, labels);
	return 1;
}

/* The channel label of a file that is about to be written. Returns NULL if it cannot be recorded. */
static __noinline struct guard_channel_label *content_label(struct inode *inode, __u64 since, __u64 labels)
{
	struct guard_channel_label *ch = bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	ch = reset_if_stale(ch, since);
	if (ch && (labels & ~ch->propagated) && !is_memory_fs(inode) && !store_persistent_labels(inode, since, labels))
		return 0;
	return ch;
}

static __always_inline struct sock *socket_of_file(struct file *file)
{
	struct socket *sock = file->private_data;

	return BPF_CORE_READ(sock, sk);
}

/* One direction of a pseudo terminal: to the master or from it. The key is the address of its node's inode, which
 * lives as long. Returns 0 if it is not open yet or not a pseudo terminal. */
static __noinline __u64 tty_channel(const struct file *file, bool write)
{
	const struct tty_file_private *opened = file->private_data;
	const struct tty_struct *tty = BPF_CORE_READ(opened, tty);
	bool master = file->f_inode->i_rdev == PTMX_DEV;
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
