/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * An unmount propagates to the peers of the parent mount, and so does that of each mount below. A private mount
 * namespace has such peers, so that an unmount there may uncover the enforcer's paths on the host.
 */
#ifndef GUARD_DECISION_UNMOUNT_H
#define GUARD_DECISION_UNMOUNT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "decision/protection.h"
#include "decision/report.h"
#include "decision/verdict.h"

#define MAX_WALK_STEPS (1 << 14) /* two for each mount; a larger tree counts as containing a protected path */

struct mount_walk {
	struct generation_ref gen;
	__u64 top, at;
	__u64 protected_point; /* a protected mount point */
	bool up, whole;
};

/* True if the parent of the mount has peers, which have a mount at the same place, and a protected path is below
 * that place. */
static __always_inline bool unmounts_protected_path(struct mount_walk *t)
{
	const struct mount *m = (const void *)t->at;
	const struct dentry *point = BPF_CORE_READ(m, mnt_mountpoint);

	if (!BPF_CORE_READ(m, mnt_parent, mnt_group_id) || !is_protected_path(&t->gen, point, 1))
		return 0;
	t->protected_point = ptr_to_u64(point);
	return 1;
}

static long next_mount(__u32 i, struct mount_walk *t)
{
	const struct mount *m = (const void *)t->at;
	__u64 next = ptr_to_u64(BPF_CORE_READ(m, mnt_mounts.next)), parent;

	if (t->up || next == t->at + bpf_core_field_offset(struct mount, mnt_mounts)) {
		if (t->at == t->top) {
			t->whole = 1;
			return 1;
		}
		parent = ptr_to_u64(BPF_CORE_READ(m, mnt_parent));
		next = ptr_to_u64(BPF_CORE_READ(m, mnt_child.next));
		if (next == parent + bpf_core_field_offset(struct mount, mnt_mounts)) {
			t->at = parent;
			t->up = 1;
			return 0;
		}
	}
	t->up = 0;
	t->at = next - bpf_core_field_offset(struct mount, mnt_child);
	return unmounts_protected_path(t);
}

static __noinline bool refuse_unmounting(const struct generation_ref *gen, __u64 top)
{
	struct outcome o = { .action = GUARD_MOUNT };
	struct mount_walk t = { .top = top, .at = top };

	if (!gen)
		return 1;
	if (may_modify_enforcer(gen, &o))
		return 0;
	t.gen = *gen;
	if (!unmounts_protected_path(&t))
		bpf_loop(MAX_WALK_STEPS, next_mount, &t, 0);
	if (!t.protected_point && t.whole)
		return 0;
	if (!t.protected_point)
		t.protected_point = ptr_to_u64(BPF_CORE_READ((const struct mount *)top, mnt_mountpoint));
	return emit_file(gen, &o, (const struct dentry *)t.protected_point);
}

#endif
