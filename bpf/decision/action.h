/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides on actions without an object, among them opening a device.
 */
#ifndef GUARD_DECISION_ACTION_H
#define GUARD_DECISION_ACTION_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "decision/report.h"
#include "decision/verdict.h"

/* An action without an object: every rule of this action that applies to the task covers it. */
static __noinline bool refuse_action(const struct generation_ref *gen, __u32 action, bool emit)
{
	struct outcome o = { .action = action };
	const struct subject_rules *subject;

	if (!gen)
		return 1;
	subject = subject_rules(gen);
	if (!subject)
		return 1;
	if (!(subject->actions & (1U << GUARD_PLAIN)) || allowed(gen, subject, 0, &o))
		return 0;
	if (emit)
		emit_plain(gen, &o);
	return o.verdict == GUARD_DENY;
}

static __always_inline bool refuse_plain(__u32 action)
{
	struct generation_ref gen;

	return active_generation(&gen) && relevant_actions(&gen, 1U << GUARD_PLAIN) && refuse_action(&gen, action, 1);
}

/* The same decision, neither counted nor reported. */
static __always_inline bool would_refuse_plain(__u32 action)
{
	struct generation_ref gen;

	return active_generation(&gen) && relevant_actions(&gen, 1U << GUARD_PLAIN) && refuse_action(&gen, action, 0);
}

/* Opening a device is an action that its device number selects, wherever the node is. Every block device has one;
 * another device has one if the table contains it. */
static __noinline bool refuse_device(const struct inode *inode)
{
	struct guard_device_key key = {};
	__u32 *action;
	struct generation_ref gen;
	void *inner;

	if (!inode || !active_generation(&gen))
		return 0;
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFBLK)
		return refuse_action(&gen, GUARD_BLOCK_DEVICE, 1);
	inner = INNER_OF(devices, gen.slot);
	if (!inner)
		return 1;
	key.device = BPF_CORE_READ(inode, i_rdev);
	action = bpf_map_lookup_elem(inner, &key);
	if (!action) {
		key.device |= GUARD_ANY_MINOR;
		action = bpf_map_lookup_elem(inner, &key);
	}
	return action && refuse_action(&gen, *action, 1);
}

static __always_inline bool is_device(const struct inode *inode)
{
	umode_t kind = inode->i_mode & S_IFMT;

	return kind == S_IFBLK || kind == S_IFCHR;
}

#endif
