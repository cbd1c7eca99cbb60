/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides on actions without an object; opening a device is one of them.
 */
#ifndef GUARD_DECISION_ACTION_H
#define GUARD_DECISION_ACTION_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "decision/report.h"
#include "decision/verdict.h"

/* An action without an object: every rule of it that binds the task covers what it does. */
static __noinline bool refuse_action(const struct view *v, __u32 action, bool tell)
{
	struct outcome o = { .action = action };
	const struct bound *b;

	if (!v)
		return 1;
	b = bound(v);
	if (!b)
		return 1;
	if (!(b->actions & (1U << GUARD_PLAIN)) || allowed(v, b, 0, &o))
		return 0;
	if (tell)
		tell_plain(v, &o);
	return o.verdict == GUARD_DENY;
}

static __always_inline bool refuse_plain(__u32 action)
{
	struct view v;

	return see(&v) && concerned(&v, 1U << GUARD_PLAIN) && refuse_action(&v, action, 1);
}

/* the same answer, neither counted nor told */
static __always_inline bool would_refuse_plain(__u32 action)
{
	struct view v;

	return see(&v) && concerned(&v, 1U << GUARD_PLAIN) && refuse_action(&v, action, 0);
}

/* Opening a device is an action by its number, wherever the node lies: of a block device always, of another when the
 * table has it. */
static __noinline bool refuse_device(const struct inode *inode)
{
	struct guard_device_key key = {};
	__u32 *action;
	struct view v;
	void *inner;

	if (!inode || !see(&v))
		return 0;
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFBLK)
		return refuse_action(&v, GUARD_BLOCK_DEVICE, 1);
	inner = INNER_OF(devices, v.slot);
	if (!inner)
		return 1;
	key.device = BPF_CORE_READ(inode, i_rdev);
	action = bpf_map_lookup_elem(inner, &key);
	if (!action) {
		key.device |= GUARD_ANY_MINOR;
		action = bpf_map_lookup_elem(inner, &key);
	}
	return action && refuse_action(&v, *action, 1);
}

static __always_inline bool is_device(const struct inode *inode)
{
	umode_t kind = inode->i_mode & S_IFMT;

	return kind == S_IFBLK || kind == S_IFCHR;
}

#endif
