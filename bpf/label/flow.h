/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How labels get from what is read to who reads it.
 */
#ifndef GUARD_LABEL_FLOW_H
#define GUARD_LABEL_FLOW_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/locate.h"
#include "object/path.h"
#include "subject/carrier.h"
#include "decision/report.h"
#include "decision/verdict.h"
#include "label/mark.h"
#include "label/reading.h"

static __noinline __u64 labels_of_state(const struct view *v, const struct place *at, __u64 named)
{
	const struct guard_state *s;

	if (!v || !at || at->reason != GUARD_BY_RULE)
		return named;
	s = state_of(v->slot, at->state);
	return s ? s->labels : named;
}

/* Of an overlay's backing file on 6.1, as refuse_aliases has it: what any of its names has. */
static __noinline __u64 labels_of_aliases(const struct view *v, struct inode *inode, __u64 named)
{
	struct hlist_node *node = BPF_CORE_READ(inode, i_dentry.first);
	__u64 labels = 0;
	struct dentry *d;
	__u32 i;

	if (!v || !node)
		return named;
	for (i = 0; i < GUARD_ALIASES; i++) {
		struct place at = {};

		if (bpf_core_field_exists(((struct dentry *)0)->d_u.d_alias))
			d = (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
		else
			d = (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
		guard_place(v->slot, (__u64)d, &at);
		labels |= labels_of_state(v, &at, named);
		node = BPF_CORE_READ(node, next);
		if (!node)
			return labels;
	}
	return named;
}

/* By where it is; all that are named when that can't be told. */
static __always_inline __u64 labels_of_place(const struct view *v, struct file *file, __u64 named)
{
	struct place at = {};

	if (!v)
		return named;
	if (file->f_path.dentry->d_inode != file->f_inode)
		return labels_of_aliases(v, file->f_inode, named);
	place_file(v, file, &at, ~0U);
	return labels_of_state(v, &at, named);
}

/* What can't be remembered is refused, though no rule says so; told only while every rule that asks for labels is in
 * audit mode. */
static __noinline bool refuse_unlabelled(const struct view *v, __u32 action, const struct dentry *d)
{
	struct outcome o = { .action = action, .reason = GUARD_NO_LABEL, .rule = GUARD_NO_RULE };
	const struct guard_policy *p;

	if (!v)
		return 1;
	p = policy_of(v);
	o.verdict = p ? verdict_of_label(p) : GUARD_DENY;
	return tell_file(v, &o, d);
}

/* The same in hooks that ask about nothing else. */
static __noinline bool refuse_lost_label(__u32 action)
{
	struct view v;

	return see(&v) && refuse_unlabelled(&v, action, 0);
}

/* Where a unix socket sends to; 0: it is of another family, or its messages say where. */
static __always_inline __u64 peer_of(struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX || BPF_CORE_READ(sk, sk_type) == SOCK_DGRAM)
		return 0;
	return (__u64)BPF_CORE_READ((struct unix_sock *)sk, peer);
}

/* What labels mean under the generation that the hook decides under: the labels that are named, the current task's
 * carrier. */
struct labelling {
	__u64 since, named;
	struct guard_carrier *c;
};

/* False: no rule asks for labels. */
static __always_inline bool labelling(struct labelling *l, const struct view *v)
{
	const struct guard_policy *p;

	l->since = labels_since();
	if (!l->since || !v)
		return 0;
	p = policy_of(v);
	if (!p || !p->labels)
		return 0;
	l->named = p->labels;
	l->c = own_carrier(l->since);
	return 1;
}

struct write_ends {
	struct file **files;
	__u64 since, labels;
	bool lost;
};

static long mark_write_end(__u32 i, struct write_ends *all)
{
	struct inode *inode;
	struct file *file;

	if (bpf_probe_read_kernel(&file, sizeof(file), all->files + i) || !file)
		return 0;
	if (!(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFIFO && !spread(wire((__u64)inode, all->since), all->labels))
		all->lost = 1;
	return 0;
}

/* No hook sees what sendfile and splice move from a file into a pipe: the pipes that a task may write to carry what it
 * does from the moment it does. False: one of them can't. */
static __noinline bool mark_write_ends(const struct task_struct *task, __u64 since, __u64 labels)
{
	struct write_ends all = { .since = since, .labels = labels };
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	__u32 count = BPF_CORE_READ(table, max_fds);

	all.files = BPF_CORE_READ(table, fd);
	if (count > GUARD_FILES)
		return 0;
	bpf_loop(count, mark_write_end, &all, 0);
	return !all.lost;
}

/* False: what a task gets hold of can't be remembered. */
static __always_inline bool label_task(const struct task_struct *task, struct guard_carrier *c, __u64 since,
				       __u64 labels)
{
	return label_carrier(c, labels) && mark_write_ends(task, since, labels);
}

static __always_inline bool label_self(const struct labelling *l, __u64 labels)
{
	return label_task(bpf_get_current_task_btf(), l->c, l->since, labels);
}

/* What came through a pipe, a unix socket or a terminal; whoever reads there is found by what comes later. */
static __noinline __u64 passed_through(struct file *file, enum carrying how, __u64 since, struct guard_carrier *c)
{
	__u64 key = 0;

	if (how == PIPE)
		key = (__u64)BPF_CORE_READ(file, f_inode);
	if (how == SOCKET && BPF_CORE_READ(sock_of(file), __sk_common.skc_family) == AF_UNIX)
		key = (__u64)sock_of(file);
	if (how == TERMINAL)
		key = terminal_wire(file, 0);
	return key ? watch(wire(key, since), c) : 0;
}

/* The current task is about to read a file, or to execute it: then its next address space is labelled. True: that
 * can't be remembered, so it must not. `mapped`: what is written there later is read, too. */
static __noinline bool refuse_reading(const struct view *v, struct file *file, bool mapped)
{
	struct inode *inode = file->f_inode;
	bool image = file->f_flags & FMODE_EXEC;
	struct labelling l;
	struct guard_mark *m;
	enum carrying how;
	__u64 labels, found = 0, changes = UNTOLD;

	/* a folder holds names */
	if ((inode->i_mode & S_IFMT) == S_IFDIR || !labelling(&l, v))
		return 0;
	how = carrying(inode);
	/* a message queue is asked only when it is opened */
	mapped |= how == CONTENT && inode->i_sb->s_magic == MQUEUE_MAGIC;
	if (l.c && how == CONTENT && !mapped && !image && file->f_path.dentry->d_inode == inode &&
	    !(inode->i_sb->s_flags & SB_NOUSER))
		changes = changes_now();
	labels = l.named;
	if (l.c) {
		labels &= ~labels_of(l.c);
		if (!labels)
			return remember_reading(file, v, l.since, changes);
	}
	if (how == PIPE || how == SOCKET || how == TERMINAL)
		found = passed_through(file, how, l.since, l.c);
	if (mapped)
		found = watch(begun(bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE), l.since),
			      l.c);
	if (how == CONTENT && !mapped) {
		m = bpf_inode_storage_get(&marks, inode, 0, 0);
		if (m && m->since == l.since)
			found = m->labels;
	}
	found &= labels;
	if (how != SOCKET && found != labels)
		found |= labels_of_place(v, file, l.named);
	labels &= found;
	if (!labels)
		return remember_reading(file, v, l.since, changes);
	if (l.c && image) {
		__sync_fetch_and_or(&l.c->image, labels);
		return 0;
	}
	if (label_self(&l, labels))
		return 0;
	return refuse_unlabelled(v, image ? GUARD_EXECUTE : GUARD_READ, file->f_path.dentry);
}

/* The current task is about to write to a file, which from then on carries what the task does. True: it can't. */
static __noinline bool refuse_writing(const struct view *v, struct file *file)
{
	struct inode *inode = file->f_inode;
	struct guard_mark *m = 0;
	struct labelling l;
	enum carrying how;
	__u64 peer;

	if (!labelling(&l, v))
		return 0;
	if (l.c) {
		l.named &= labels_of(l.c);
		if (!l.named)
			return 0;
	}
	how = carrying(inode);
	if (how == NOTHING)
		return 0;
	if (l.c && how == SOCKET) {
		peer = peer_of(sock_of(file));
		if (!peer)
			return 0;
		m = wire(peer, l.since);
	}
	if (l.c && how == PIPE)
		m = wire(number(inode), l.since);
	if (l.c && how == TERMINAL) {
		peer = terminal_wire(file, 1);
		if (!peer)
			return 0;
		m = wire(peer, l.since);
	}
	if (l.c && how == CONTENT)
		m = content(inode, l.since, l.named);
	return !spread(m, l.named) && refuse_unlabelled(v, GUARD_WRITE, file->f_path.dentry);
}

static __always_inline bool refuse_mapping(const struct view *v, struct file *file, bool shared)
{
	bool live = shared && carrying(file->f_inode) == CONTENT && in_memory(file->f_inode);

	if (refuse_reading(v, file, live))
		return 1;
	return shared && (file->f_mode & FMODE_WRITE) && refuse_writing(v, file);
}

/* What the kernel had forgotten: while the file is open it stays. */
static __noinline bool refuse_kept(const struct view *v, struct file *file)
{
	struct inode *inode = file->f_inode;
	bool image = file->f_flags & FMODE_EXEC;
	struct labelling l;
	struct guard_mark *m;
	__u64 labels;

	if (!labelling(&l, v))
		return 0;
	labels = kept_labels(inode, l.since) & l.named;
	if (!labels)
		return 0;
	m = begun(bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE), l.since);
	if (!m)
		return refuse_unlabelled(v, GUARD_READ, file->f_path.dentry);
	if (labels & ~__sync_fetch_and_or(&m->labels, labels))
		count_mark();
	if (!image && !(file->f_mode & FMODE_READ))
		return 0;
	if (l.c)
		labels &= ~labels_of(l.c);
	if (l.c && image) {
		__sync_fetch_and_or(&l.c->image, labels);
		return 0;
	}
	return labels && !label_self(&l, labels) && refuse_unlabelled(v, GUARD_READ, file->f_path.dentry);
}

/* An open file is used. */
static __always_inline bool refuse_passing(const struct view *v, struct file *file, bool reads, bool writes)
{
	if (reads && refuse_reading(v, file, 0))
		return 1;
	return writes && refuse_writing(v, file);
}

/* True: what the current task carries can't go where it sends to. */
static __always_inline bool refuse_carrying(const struct view *v, __u64 to)
{
	struct labelling l;

	if (!to || !labelling(&l, v))
		return 0;
	if (l.c) {
		l.named &= labels_of(l.c);
		if (!l.named)
			return 0;
	}
	return !spread(l.c ? wire(to, l.since) : 0, l.named) && refuse_unlabelled(v, GUARD_WRITE, 0);
}

static __noinline bool refuse_carrying_by(const struct view *v, struct socket *sock)
{
	struct sock *sk = sock->sk;

	return sk && refuse_carrying(v, peer_of(sk));
}

/* Who gets hold of another task's memory or descriptors reads there and writes there: each carries what the other does. */
static __noinline bool refuse_joining(const struct task_struct *other)
{
	struct guard_carrier *c;
	struct labelling l;
	struct view v;
	__u64 labels;

	if (!see(&v) || !labelling(&l, &v))
		return 0;
	c = carrier_of((__u64)other, l.since);
	labels = l.named;
	if (l.c && c)
		labels &= labels_of(l.c) | labels_of(c);
	if (!labels)
		return 0;
	if (label_self(&l, labels) && label_task(other, c, l.since, labels))
		return 0;
	return refuse_unlabelled(&v, GUARD_PTRACE, 0);
}

/* A link's target, an extended attribute. */
static __noinline bool refuse_looking(struct dentry *d)
{
	struct guard_mark *m = 0;
	struct place at = {};
	struct labelling l;
	struct inode *inode;
	struct view v;
	__u64 labels, found = 0;

	if (!see(&v) || !labelling(&l, &v))
		return 0;
	labels = l.named;
	if (l.c) {
		labels &= ~labels_of(l.c);
		if (!labels)
			return 0;
	}
	inode = d->d_inode;
	if (inode)
		m = bpf_inode_storage_get(&marks, inode, 0, 0);
	if (m && m->since == l.since)
		found = m->labels;
	else if (inode)
		found = kept_labels(inode, l.since);
	found &= labels;
	if (found != labels) {
		guard_place(v.slot, number(d), &at);
		found |= labels_of_state(&v, &at, l.named);
	}
	labels &= found;
	return labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, d);
}

#endif
