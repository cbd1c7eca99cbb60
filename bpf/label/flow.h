/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How a task gets labels by reading, and how it passes them on by writing.
 */
#ifndef GUARD_LABEL_FLOW_H
#define GUARD_LABEL_FLOW_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/locate.h"
#include "object/path.h"
#include "subject/task_label.h"
#include "decision/report.h"
#include "decision/verdict.h"
#include "label/channel.h"
#include "label/read_cache.h"

static __noinline __u64 labels_of_state(const struct generation_ref *gen, const struct place *at, __u64 named)
{
	const struct guard_state *s;

	if (!gen || !at || at->reason != GUARD_BY_RULE)
		return named;
	s = state_of(gen->slot, at->state);
	return s ? s->labels : named;
}

/* The labels of a backing file of an overlay on 6.1: those of all its names, as in refuse_aliases. */
static __noinline __u64 labels_of_aliases(const struct generation_ref *gen, struct inode *inode, __u64 named)
{
	struct hlist_node *node = BPF_CORE_READ(inode, i_dentry.first);
	__u64 labels = 0;
	struct dentry *d;
	__u32 i;

	if (!gen || !node)
		return named;
	for (i = 0; i < GUARD_ALIASES; i++) {
		struct place at = {};

		if (bpf_core_field_exists(((struct dentry *)0)->d_u.d_alias))
			d = (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
		else
			d = (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
		guard_place(gen->slot, (__u64)d, &at);
		labels |= labels_of_state(gen, &at, named);
		node = BPF_CORE_READ(node, next);
		if (!node)
			return labels;
	}
	return named;
}

/* The labels of a file by its path; every label of the policy if the path is unknown. */
static __always_inline __u64 labels_of_place(const struct generation_ref *gen, struct file *file, __u64 named)
{
	struct place at = {};

	if (!gen)
		return named;
	if (file->f_path.dentry->d_inode != file->f_inode)
		return labels_of_aliases(gen, file->f_inode, named);
	place_file(gen, file, &at, ~0U);
	return labels_of_state(gen, &at, named);
}

/* Denies an operation whose label cannot be recorded, although no rule names it. It is only reported while all
 * rules on labels are in audit mode. */
static __noinline bool refuse_unlabelled(const struct generation_ref *gen, __u32 action, const struct dentry *d)
{
	struct outcome o = { .action = action, .reason = GUARD_NO_LABEL, .rule = GUARD_NO_RULE };
	const struct guard_policy *p;

	if (!gen)
		return 1;
	p = policy_of(gen);
	o.verdict = p ? label_verdict(p) : GUARD_DENY;
	return emit_file(gen, &o, d);
}

/* The same, for hooks that make no other decision. */
static __noinline bool refuse_lost_label(__u32 action)
{
	struct generation_ref gen;

	return active_generation(&gen) && refuse_unlabelled(&gen, action, 0);
}

/* The socket that a unix stream sends to; 0 for other families, and for datagrams, whose address comes with them. */
static __always_inline __u64 unix_stream_peer(struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX || BPF_CORE_READ(sk, sk_type) == SOCK_DGRAM)
		return 0;
	return (__u64)BPF_CORE_READ((struct unix_sock *)sk, peer);
}

/* What labels mean for one decision: the labels that the policy names, and the entry of the current task. */
struct label_context {
	__u64 since, policy_labels;
	struct guard_task_label *task_label;
};

/* Returns false if no rule uses labels. */
static __always_inline bool get_label_context(struct label_context *l, const struct generation_ref *gen)
{
	const struct guard_policy *p;

	l->since = labels_since();
	if (!l->since || !gen)
		return 0;
	p = policy_of(gen);
	if (!p || !p->labels)
		return 0;
	l->policy_labels = p->labels;
	l->task_label = current_task_label(l->since);
	return 1;
}

struct write_ends {
	struct file **files;
	__u64 since, labels;
	bool lost;
};

static long label_write_end(__u32 i, struct write_ends *all)
{
	struct inode *inode;
	struct file *file;

	if (bpf_probe_read_kernel(&file, sizeof(file), all->files + i) || !file)
		return 0;
	if (!(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFIFO &&
	    !propagate_to(channel((__u64)inode, all->since), all->labels))
		all->lost = 1;
	return 0;
}

/* No hook is called when sendfile and splice move data from a file into a pipe. So the pipes that a task may write
 * to get its labels when it does. Returns false if one of them cannot be labelled. */
static __noinline bool label_write_ends(const struct task_struct *task, __u64 since, __u64 labels)
{
	struct write_ends all = { .since = since, .labels = labels };
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	__u32 count = BPF_CORE_READ(table, max_fds);

	all.files = BPF_CORE_READ(table, fd);
	if (count > GUARD_FILES)
		return 0;
	bpf_loop(count, label_write_end, &all, 0);
	return !all.lost;
}

/* Returns false if the labels cannot be recorded. */
static __always_inline bool label_task(const struct task_struct *task, struct guard_task_label *label, __u64 since,
				       __u64 labels)
{
	return add_task_labels(label, labels) && label_write_ends(task, since, labels);
}

static __always_inline bool label_current_task(const struct label_context *l, __u64 labels)
{
	return label_task(bpf_get_current_task_btf(), l->task_label, l->since, labels);
}

/* Labels that arrive through a pipe, a unix socket or a terminal. The task is registered as a reader for later
 * labels. */
static __noinline __u64 receive_labels(struct file *file, enum channel_kind kind, __u64 since,
				       struct guard_task_label *label)
{
	__u64 key = 0;

	if (kind == CHANNEL_PIPE)
		key = (__u64)BPF_CORE_READ(file, f_inode);
	if (kind == CHANNEL_SOCKET && BPF_CORE_READ(socket_of_file(file), __sk_common.skc_family) == AF_UNIX)
		key = (__u64)socket_of_file(file);
	if (kind == CHANNEL_TTY)
		key = tty_channel(file, 0);
	return key ? add_reader(channel(key, since), label) : 0;
}

/* The current task is about to read a file, or to execute it: then its next address space gets the labels. Returns
 * true if they cannot be recorded. `mapped`: data written to the file later is read, too. */
static __noinline bool refuse_reading(const struct generation_ref *gen, struct file *file, bool mapped)
{
	struct inode *inode = file->f_inode;
	bool image = file->f_flags & FMODE_EXEC;
	struct label_context l;
	struct guard_channel_label *ch;
	enum channel_kind kind;
	__u64 labels, object_labels = 0, changes = CHANGES_UNKNOWN;

	/* A directory holds only names. */
	if ((inode->i_mode & S_IFMT) == S_IFDIR || !get_label_context(&l, gen))
		return 0;
	kind = channel_kind_of(inode);
	/* A message queue has a hook only for its opening. */
	mapped |= kind == CHANNEL_CONTENT && inode->i_sb->s_magic == MQUEUE_MAGIC;
	if (l.task_label && kind == CHANNEL_CONTENT && !mapped && !image && file->f_path.dentry->d_inode == inode &&
	    !(inode->i_sb->s_flags & SB_NOUSER))
		changes = current_changes();
	labels = l.policy_labels;
	if (l.task_label) {
		labels &= ~labels_of_task(l.task_label);
		if (!labels)
			return read_cache_store(file, gen, l.since, changes);
	}
	if (kind == CHANNEL_PIPE || kind == CHANNEL_SOCKET || kind == CHANNEL_TTY)
		object_labels = receive_labels(file, kind, l.since, l.task_label);
	if (mapped)
		object_labels = add_reader(
			reset_if_stale(bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE),
				       l.since),
			l.task_label);
	if (kind == CHANNEL_CONTENT && !mapped) {
		ch = bpf_inode_storage_get(&marks, inode, 0, 0);
		if (ch && ch->since == l.since)
			object_labels = ch->labels;
	}
	object_labels &= labels;
	if (kind != CHANNEL_SOCKET && object_labels != labels)
		object_labels |= labels_of_place(gen, file, l.policy_labels);
	labels &= object_labels;
	if (!labels)
		return read_cache_store(file, gen, l.since, changes);
	if (l.task_label && image) {
		__sync_fetch_and_or(&l.task_label->exec_labels, labels);
		return 0;
	}
	if (label_current_task(&l, labels))
		return 0;
	return refuse_unlabelled(gen, image ? GUARD_EXECUTE : GUARD_READ, file->f_path.dentry);
}

/* The current task is about to write to a file, which gets the labels of the task. Returns true if they cannot be
 * recorded. */
static __noinline bool refuse_writing(const struct generation_ref *gen, struct file *file)
{
	struct inode *inode = file->f_inode;
	struct guard_channel_label *ch = 0;
	struct label_context l;
	enum channel_kind kind;
	__u64 peer;

	if (!get_label_context(&l, gen))
		return 0;
	if (l.task_label) {
		l.policy_labels &= labels_of_task(l.task_label);
		if (!l.policy_labels)
			return 0;
	}
	kind = channel_kind_of(inode);
	if (kind == CHANNEL_NONE)
		return 0;
	if (l.task_label && kind == CHANNEL_SOCKET) {
		peer = unix_stream_peer(socket_of_file(file));
		if (!peer)
			return 0;
		ch = channel(peer, l.since);
	}
	if (l.task_label && kind == CHANNEL_PIPE)
		ch = channel(ptr_to_u64(inode), l.since);
	if (l.task_label && kind == CHANNEL_TTY) {
		peer = tty_channel(file, 1);
		if (!peer)
			return 0;
		ch = channel(peer, l.since);
	}
	if (l.task_label && kind == CHANNEL_CONTENT)
		ch = content_label(inode, l.since, l.policy_labels);
	return !propagate_to(ch, l.policy_labels) && refuse_unlabelled(gen, GUARD_WRITE, file->f_path.dentry);
}

static __always_inline bool refuse_mapping(const struct generation_ref *gen, struct file *file, bool shared)
{
	bool live = shared && channel_kind_of(file->f_inode) == CHANNEL_CONTENT && is_memory_fs(file->f_inode);

	if (refuse_reading(gen, file, live))
		return 1;
	return shared && (file->f_mode & FMODE_WRITE) && refuse_writing(gen, file);
}

/* Restores the labels of a file whose inode was evicted; while the file is open the inode stays. */
static __noinline bool refuse_persistent_label(const struct generation_ref *gen, struct file *file)
{
	struct inode *inode = file->f_inode;
	bool image = file->f_flags & FMODE_EXEC;
	struct label_context l;
	struct guard_channel_label *ch;
	__u64 labels;

	if (!get_label_context(&l, gen))
		return 0;
	labels = persistent_labels_of(inode, l.since) & l.policy_labels;
	if (!labels)
		return 0;
	ch = reset_if_stale(bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE), l.since);
	if (!ch)
		return refuse_unlabelled(gen, GUARD_READ, file->f_path.dentry);
	if (labels & ~__sync_fetch_and_or(&ch->labels, labels))
		bump_label_version();
	if (!image && !(file->f_mode & FMODE_READ))
		return 0;
	if (l.task_label)
		labels &= ~labels_of_task(l.task_label);
	if (l.task_label && image) {
		__sync_fetch_and_or(&l.task_label->exec_labels, labels);
		return 0;
	}
	return labels && !label_current_task(&l, labels) && refuse_unlabelled(gen, GUARD_READ, file->f_path.dentry);
}

/* Decides on using an open file. */
static __always_inline bool refuse_use(const struct generation_ref *gen, struct file *file, bool reads, bool writes)
{
	if (reads && refuse_reading(gen, file, 0))
		return 1;
	return writes && refuse_writing(gen, file);
}

/* Returns true if the labels of the current task cannot be passed to the receiver. */
static __always_inline bool refuse_send(const struct generation_ref *gen, __u64 to)
{
	struct label_context l;

	if (!to || !get_label_context(&l, gen))
		return 0;
	if (l.task_label) {
		l.policy_labels &= labels_of_task(l.task_label);
		if (!l.policy_labels)
			return 0;
	}
	return !propagate_to(l.task_label ? channel(to, l.since) : 0, l.policy_labels) &&
	       refuse_unlabelled(gen, GUARD_WRITE, 0);
}

static __noinline bool refuse_socket_send(const struct generation_ref *gen, struct socket *sock)
{
	struct sock *sk = sock->sk;

	return sk && refuse_send(gen, unix_stream_peer(sk));
}

/* A task that gets the memory or the descriptors of another can read and write there, so both get the labels of
 * both. */
static __noinline bool refuse_ptrace(const struct task_struct *other)
{
	struct guard_task_label *label;
	struct label_context l;
	struct generation_ref gen;
	__u64 labels;

	if (!active_generation(&gen) || !get_label_context(&l, &gen))
		return 0;
	label = task_label_of((__u64)other, l.since);
	labels = l.policy_labels;
	if (l.task_label && label)
		labels &= labels_of_task(l.task_label) | labels_of_task(label);
	if (!labels)
		return 0;
	if (label_current_task(&l, labels) && label_task(other, label, l.since, labels))
		return 0;
	return refuse_unlabelled(&gen, GUARD_PTRACE, 0);
}

/* Reading the target of a link, or an extended attribute. */
static __noinline bool refuse_metadata_read(struct dentry *d)
{
	struct guard_channel_label *ch = 0;
	struct place at = {};
	struct label_context l;
	struct inode *inode;
	struct generation_ref gen;
	__u64 labels, object_labels = 0;

	if (!active_generation(&gen) || !get_label_context(&l, &gen))
		return 0;
	labels = l.policy_labels;
	if (l.task_label) {
		labels &= ~labels_of_task(l.task_label);
		if (!labels)
			return 0;
	}
	inode = d->d_inode;
	if (inode)
		ch = bpf_inode_storage_get(&marks, inode, 0, 0);
	if (ch && ch->since == l.since)
		object_labels = ch->labels;
	else if (inode)
		object_labels = persistent_labels_of(inode, l.since);
	object_labels &= labels;
	if (object_labels != labels) {
		guard_place(gen.slot, ptr_to_u64(d), &at);
		object_labels |= labels_of_state(&gen, &at, l.policy_labels);
	}
	labels &= object_labels;
	return labels && !label_current_task(&l, labels) && refuse_unlabelled(&gen, GUARD_READ, d);
}

#endif
