/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What taking a mount away takes away elsewhere. The kernel hands it on to the peers of the mount that it lay on, of
 * which a namespace of one's own has some, and the same for each mount below it.
 */
#ifndef GUARD_DECISION_UNMOUNT_H
#define GUARD_DECISION_UNMOUNT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "decision/protection.h"
#include "decision/report.h"
#include "decision/verdict.h"

#define STEPS (1 << 14) /* two a mount; a tree of more can't be told */

struct tree {
	struct view v;
	__u64 top, at;
	__u64 found; /* a mount point of ours */
	bool up, whole;
};

/* Is there a peer of what it lies on, which has its mount at the same place, and is that place above what enforces? */
static __always_inline bool takes_ours(struct tree *t)
{
	const struct mount *m = (const void *)t->at;
	const struct dentry *point = BPF_CORE_READ(m, mnt_mountpoint);

	if (!BPF_CORE_READ(m, mnt_parent, mnt_group_id) || !protects(&t->v, point, 1))
		return 0;
	t->found = number(point);
	return 1;
}

static long next_mount(__u32 i, struct tree *t)
{
	const struct mount *m = (const void *)t->at;
	__u64 next = number(BPF_CORE_READ(m, mnt_mounts.next)), parent;

	if (t->up || next == t->at + bpf_core_field_offset(struct mount, mnt_mounts)) {
		if (t->at == t->top) {
			t->whole = 1;
			return 1;
		}
		parent = number(BPF_CORE_READ(m, mnt_parent));
		next = number(BPF_CORE_READ(m, mnt_child.next));
		if (next == parent + bpf_core_field_offset(struct mount, mnt_mounts)) {
			t->at = parent;
			t->up = 1;
			return 0;
		}
	}
	t->up = 0;
	t->at = next - bpf_core_field_offset(struct mount, mnt_child);
	return takes_ours(t);
}

static __noinline bool refuse_unmounting(const struct view *v, __u64 top)
{
	struct outcome o = { .action = GUARD_MOUNT };
	struct tree t = { .top = top, .at = top };

	if (!v)
		return 1;
	if (trusted(v, &o))
		return 0;
	t.v = *v;
	if (!takes_ours(&t))
		bpf_loop(STEPS, next_mount, &t, 0);
	if (!t.found && t.whole)
		return 0;
	if (!t.found)
		t.found = number(BPF_CORE_READ((const struct mount *)top, mnt_mountpoint));
	return tell_file(v, &o, (const struct dentry *)t.found);
}

#endif
