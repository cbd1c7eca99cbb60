/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How labels get from what is read to who reads it.
 */
#ifndef GUARD_LABEL_H
#define GUARD_LABEL_H

static __noinline __u32 place_file(const struct view *v, struct file *file, struct place *at, __u32 actions);

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
static __noinline __u64 labels_of_place(const struct view *v, struct file *file, __u64 named)
{
	struct place at = {};

	if (!v)
		return named;
	if (file->f_path.dentry->d_inode != file->f_inode)
		return labels_of_aliases(v, file->f_inode, named);
	place_file(v, file, &at, ~0U);
	return labels_of_state(v, &at, named);
}

/* What could not be remembered is refused: no rule says so. */
static __noinline bool refuse_unlabelled(const struct view *v, __u32 action, const struct dentry *d)
{
	struct outcome o = { .action = action, .verdict = GUARD_DENY, .reason = GUARD_NO_LABEL, .rule = GUARD_NO_RULE };

	if (v)
		tell_file(v, &o, d);
	return 1;
}

/* The current task is about to read a file, or to execute it: then its next address space is labelled. True: that
 * can't be remembered, so it must not. */
static __noinline bool refuse_reading(struct file *file, bool image)
{
	__u64 since = labels_since(), labels;
	const struct guard_policy *p;
	struct carrier *c;
	struct view v;

	if (!since || !see(&v))
		return 0;
	p = policy_of(&v);
	if (!p || !p->labels)
		return 0;
	labels = p->labels;
	c = own_carrier(since);
	if (c) {
		labels &= ~labels_of(c);
		if (!labels)
			return 0;
	}
	labels &= labels_of_place(&v, file, labels);
	if (!labels)
		return 0;
	if (!c)
		return refuse_unlabelled(&v, image ? GUARD_EXECUTE : GUARD_READ, file->f_path.dentry);
	if (image) {
		__sync_fetch_and_or(&c->image, labels);
		return 0;
	}
	return !label_carrier(c, labels) && refuse_unlabelled(&v, GUARD_READ, file->f_path.dentry);
}

#endif
