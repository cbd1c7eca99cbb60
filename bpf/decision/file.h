/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides on reading, writing, executing, linking and renaming files.
 */
#ifndef GUARD_DECISION_FILE_H
#define GUARD_DECISION_FILE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/locate.h"
#include "object/path.h"
#include "subject/cache.h"
#include "decision/report.h"
#include "decision/verdict.h"

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

/* What a rule that binds the task may be about is decided on. */
static __noinline bool refuse_seen(const struct view *v, struct file *file, __u32 actions)
{
	struct inode *inode = file->f_inode;
	struct dentry *d = file->f_path.dentry;
	bool own = d->d_inode == inode;
	const struct bound *b = 0;
	struct place at = {};

	if (!v)
		return 1;
	if (v->slot >= GUARD_SLOTS)
		return 0;
	/* who it is comes first where that is not known yet, so that it is the next time */
	if (!v->stamp) {
		b = bound(v);
		if (!b)
			return 1;
		actions &= b->actions;
	}
	if (actions && own)
		actions &= place_file(v, file, &at, actions);
	if (!actions)
		return 0;
	if (!b) {
		b = bound(v);
		if (!b)
			return 1;
		actions &= b->actions;
	}
	if (own)
		return refuse_place(v, b, &at, actions, d);
	return !nameless(inode, actions) && refuse_aliases(v, b, inode, actions);
}

static __always_inline bool refuse_file(struct file *file, __u32 actions)
{
	struct view seen, v;

	if (!glance(&seen))
		return 0;
	actions = concerned(&seen, actions);
	if (!actions)
		return 0;
	v = seen; /* on the stack only from here on; once, since that is short */
	return refuse_seen(&v, file, actions);
}

/* An overlay maps the file behind its own. Where no hook shows that one, it is to be had from the overlay's open file. */
static __noinline bool refuse_backing(const struct view *v, const struct file *file, __u32 actions)
{
	struct place at = { .reason = GUARD_NO_CHAIN };
	const struct bound *b;
	__u64 inode;

	if (!v)
		return 1;
	if (v->slot >= GUARD_SLOTS)
		return 0;
	b = bound(v);
	if (!b)
		return 1;
	actions &= b->actions;
	if (!actions)
		return 0;
	inode = inode_behind(file);
	if (inode)
		return refuse_aliases(v, b, (struct inode *)inode, actions);
	return refuse_place(v, b, &at, actions, BPF_CORE_READ(file, f_path.dentry));
}

/* A second name for an object, or another: see guard_moved. A rename also writes over what is at its target. */
struct move {
	struct place source, target;
	__u32 action;
};

static __noinline bool refuse_move(const struct view *v, const struct bound *b, const struct move *move,
				   const struct dentry *from, const struct dentry *to)
{
	const struct guard_state *s = 0, *t = 0;
	const struct guard_policy *p;
	struct guard_vector moved;
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
	p = policy_of(v);
	if (!p)
		return 0;
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFDIR)
		guard_moved(&moved, &s->reaches, &s->pervades, &t->reaches, &t->pervades, &p->of_action[GUARD_WRITE]);
	else
		guard_moved(&moved, &s->covers, &s->covers, &t->covers, &t->covers, &p->of_action[GUARD_WRITE]);
	if (!allowed(v, b, &moved, &o) && tell_file(v, &o, from))
		return 1;
	inode = BPF_CORE_READ(to, d_inode);
	if (move->action != GUARD_RENAME || !inode)
		return 0;
	o.action = GUARD_WRITE;
	return !allowed(v, b, &t->covers, &o) && tell_file(v, &o, to);
}

static __always_inline bool refuse_name(struct dentry *from, struct dentry *to, __u32 action)
{
	const __u32 file_actions =
		1U << GUARD_READ | 1U << GUARD_WRITE | 1U << GUARD_EXECUTE | 1U << GUARD_UNIX_CONNECT;
	struct move move = { .action = action };
	const struct bound *b;
	struct view v;

	if (!see(&v) || !concerned(&v, file_actions))
		return 0;
	b = bound(&v);
	if (!b)
		return 1;
	if (!(b->actions & file_actions))
		return 0;
	guard_place(v.slot, number(from), &move.source);
	guard_place(v.slot, number(to), &move.target);
	return refuse_move(&v, b, &move, from, to);
}

static __always_inline bool refuse_dentry(const struct dentry *d, __u32 actions)
{
	const struct bound *b;
	struct inode *inode;
	struct place at = {};
	struct view v;

	if (!see(&v) || !concerned(&v, actions))
		return 0;
	b = bound(&v);
	if (!b)
		return 1;
	if (!(b->actions & actions))
		return 0;
	inode = d->d_inode;
	if (inode && nameless(inode, actions))
		return 0;
	guard_place(v.slot, number(d), &at);
	return refuse_place(&v, b, &at, actions, d);
}

#endif
