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

/* Decides on each requested action on a file of a known state, or of none. */
static __noinline bool refuse_place(const struct generation_ref *gen, const struct subject_rules *subject,
				    const struct place *at, __u32 actions, const struct dentry *d)
{
	const struct guard_state *s = 0;
	struct outcome o = {};
	__u32 i;

	if (!gen || !subject || !at)
		return 1;
	o.reason = at->reason;
	if (at->reason == GUARD_BY_RULE) {
		s = state_of(gen->slot, at->state);
		if (!s)
			o.reason = GUARD_BROKEN_MAP;
	}
#pragma unroll
	for (i = 0; i <= GUARD_LAST_PATH_ACTION; i++) {
		if (!(GUARD_PATH_ACTIONS & (1U << i)) || !(actions & (1U << i)))
			continue;
		o.action = i;
		if (!allowed(gen, subject, s ? &s->covers : 0, &o) && emit_file(gen, &o, d))
			return 1;
	}
	return 0;
}

/* 6.1 opens the backing file of an overlay with the dentry of the overlay. Then the names of the inode decide, all
 * of them, since the one that was used is unknown. */
static __noinline bool refuse_aliases(const struct generation_ref *gen, const struct subject_rules *subject,
				      struct inode *inode, __u32 actions)
{
	struct hlist_node *node;
	struct place at = {};
	struct dentry *d = 0;
	__u32 i;

	if (!gen || !subject)
		return 1;
	at.reason = GUARD_NO_CHAIN;
	node = BPF_CORE_READ(inode, i_dentry.first);
	for (i = 0; node && i < GUARD_ALIASES; i++) {
		if (bpf_core_field_exists(((struct dentry *)0)->d_u.d_alias))
			d = (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
		else
			d = (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
		guard_place(gen->slot, (__u64)d, &at);
		if (refuse_place(gen, subject, &at, actions, d))
			return 1;
		node = BPF_CORE_READ(node, next);
		if (!node)
			return 0;
	}
	at.reason = GUARD_NO_CHAIN;
	return refuse_place(gen, subject, &at, actions, d);
}

/* Decides on the actions that a rule which applies to the task may have. */
static __noinline bool refuse_open_file(const struct generation_ref *gen, struct file *file, __u32 actions)
{
	struct inode *inode = file->f_inode;
	struct dentry *d = file->f_path.dentry;
	bool own = d->d_inode == inode;
	const struct subject_rules *subject = 0;
	struct place at = {};

	if (!gen)
		return 1;
	if (gen->slot >= GUARD_SLOTS)
		return 0;
	/* On a cache miss, resolve the subject first so that the next call hits the cache. */
	if (!gen->cred_version) {
		subject = subject_rules(gen);
		if (!subject)
			return 1;
		actions &= subject->actions;
	}
	if (actions && own)
		actions &= place_file(gen, file, &at, actions);
	if (!actions)
		return 0;
	if (!subject) {
		subject = subject_rules(gen);
		if (!subject)
			return 1;
		actions &= subject->actions;
	}
	if (own)
		return refuse_place(gen, subject, &at, actions, d);
	return !is_anonymous_inode(inode, actions) && refuse_aliases(gen, subject, inode, actions);
}

static __always_inline bool refuse_file(struct file *file, __u32 actions)
{
	struct generation_ref peeked, gen;

	if (!peek_generation(&peeked))
		return 0;
	actions = relevant_actions(&peeked, actions);
	if (!actions)
		return 0;
	gen = peeked; /* on the stack only from here on; copied once, since stack is short */
	return refuse_open_file(&gen, file, actions);
}

/* An overlay maps the file behind its own. Where no hook gets that file, it is read from the overlay's open file. */
static __noinline bool refuse_backing(const struct generation_ref *gen, const struct file *file, __u32 actions)
{
	struct place at = { .reason = GUARD_NO_CHAIN };
	const struct subject_rules *subject;
	__u64 inode;

	if (!gen)
		return 1;
	if (gen->slot >= GUARD_SLOTS)
		return 0;
	subject = subject_rules(gen);
	if (!subject)
		return 1;
	actions &= subject->actions;
	if (!actions)
		return 0;
	inode = inode_behind(file);
	if (inode)
		return refuse_aliases(gen, subject, (struct inode *)inode, actions);
	return refuse_place(gen, subject, &at, actions, BPF_CORE_READ(file, f_path.dentry));
}

/* A hard link or a rename: see guard_moved. A rename also overwrites its target. */
struct move {
	struct place source, target;
	__u32 action;
};

static __noinline bool refuse_move(const struct generation_ref *gen, const struct subject_rules *subject,
				   const struct move *move, const struct dentry *from, const struct dentry *to)
{
	const struct guard_state *s = 0, *t = 0;
	const struct guard_policy *p;
	struct guard_vector moved;
	const struct inode *inode;
	struct outcome o = {};

	if (!gen || !subject || !move)
		return 1;
	inode = BPF_CORE_READ(from, d_inode);
	o.action = move->action;
	o.reason = move->source.reason ? move->source.reason : move->target.reason;
	if (o.reason == GUARD_BY_RULE) {
		s = state_of(gen->slot, move->source.state);
		t = state_of(gen->slot, move->target.state);
		if (!s || !t)
			o.reason = GUARD_BROKEN_MAP;
	}
	if (!s || !t)
		return !allowed(gen, subject, 0, &o) && emit_file(gen, &o, from);
	p = policy_of(gen);
	if (!p)
		return 0;
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFDIR)
		guard_moved(&moved, &s->reaches, &s->pervades, &t->reaches, &t->pervades,
			    &p->rules_by_action[GUARD_WRITE]);
	else
		guard_moved(&moved, &s->covers, &s->covers, &t->covers, &t->covers, &p->rules_by_action[GUARD_WRITE]);
	if (!allowed(gen, subject, &moved, &o) && emit_file(gen, &o, from))
		return 1;
	inode = BPF_CORE_READ(to, d_inode);
	if (move->action != GUARD_RENAME || !inode)
		return 0;
	o.action = GUARD_WRITE;
	return !allowed(gen, subject, &t->covers, &o) && emit_file(gen, &o, to);
}

static __always_inline bool refuse_name(struct dentry *from, struct dentry *to, __u32 action)
{
	struct move move = { .action = action };
	const struct subject_rules *subject;
	struct generation_ref gen;

	if (!active_generation(&gen) || !relevant_actions(&gen, GUARD_RESOURCE_ACTIONS))
		return 0;
	subject = subject_rules(&gen);
	if (!subject)
		return 1;
	if (!(subject->actions & GUARD_RESOURCE_ACTIONS))
		return 0;
	guard_place(gen.slot, ptr_to_u64(from), &move.source);
	guard_place(gen.slot, ptr_to_u64(to), &move.target);
	return refuse_move(&gen, subject, &move, from, to);
}

static __always_inline bool refuse_dentry(const struct dentry *d, __u32 actions)
{
	const struct subject_rules *subject;
	struct inode *inode;
	struct place at = {};
	struct generation_ref gen;

	if (!active_generation(&gen) || !relevant_actions(&gen, actions))
		return 0;
	subject = subject_rules(&gen);
	if (!subject)
		return 1;
	if (!(subject->actions & actions))
		return 0;
	inode = d->d_inode;
	if (inode && is_anonymous_inode(inode, actions))
		return 0;
	guard_place(gen.slot, ptr_to_u64(d), &at);
	return refuse_place(&gen, subject, &at, actions, d);
}

#endif
