/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Only root in the initial user namespace may modify the enforcer's own files, maps, programs and processes, and only
 * while no enforcing rule with subjects applies to it and no label denies it. This needs no rule; while all the rules
 * involved are in audit mode, it is reported and not denied. Protected are the paths of the policy's `protected`, our
 * maps and programs, and every process that may modify them.
 */
#ifndef GUARD_DECISION_PROTECTION_H
#define GUARD_DECISION_PROTECTION_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"
#include "subject/cache.h"
#include "subject/former.h"
#include "subject/task_label.h"
#include "decision/report.h"
#include "decision/verdict.h"

/* True if a capability in the current task's user namespace gives rights over files of kernel id 0: the namespace maps
 * that id. A namespace with more extents than the structure holds counts as mapping it. */
static __noinline bool namespace_maps_root(void)
{
	const struct user_namespace *ns = bpf_get_current_task_btf()->cred->user_ns;
	struct uid_gid_extent extent[UID_GID_MAP_MAX_BASE_EXTENTS] = {};
	__u32 used = BPF_CORE_READ(ns, uid_map.nr_extents), i;

	if (used > UID_GID_MAP_MAX_BASE_EXTENTS || bpf_core_read(&extent, sizeof(extent), &ns->uid_map.extent))
		return 1;
	GUARD_UNROLL
	for (i = 0; i < UID_GID_MAP_MAX_BASE_EXTENTS; i++)
		if (i < used && !extent[i].lower_first)
			return 1;
	return 0;
}

/* Tasks that permissions and owners do not already keep out. Kernel ids decide, in every user namespace: kernel id 0
 * has its owner's rights in each of them. */
static __always_inline bool is_privileged(void)
{
	const struct cred *cred = bpf_get_current_task_btf()->cred;

	if (!cred->fsuid.val || !cred->euid.val)
		return 1;
	return capabilities(cred) && (!cred->user_ns->level || namespace_maps_root());
}

/* Tasks that may change the host's mounts. The mounts of another user namespace are its own: none of its changes
 * propagates to the host. */
static __always_inline bool may_mount_on_host(void)
{
	return !bpf_get_current_task_btf()->cred->user_ns->level && is_privileged();
}

static __always_inline bool is_initial_root(const struct cred *cred)
{
	return !BPF_CORE_READ(cred, uid.val) && !BPF_CORE_READ(cred, euid.val) &&
	       !BPF_CORE_READ(cred, user_ns, level) && (capabilities(cred) & (1ULL << CAP_SYS_ADMIN));
}

static __always_inline bool is_protected_object(__u32 kind, __u32 number)
{
	struct guard_protected_key key = { .kind = kind, .number = number };

	return bpf_map_lookup_elem(&our, &key);
}

/* True if the current task may modify the enforcer. The strictest verdict of rules and labels counts; *o names the
 * rule, if there is one. */
static __noinline bool may_modify_enforcer(const struct generation_ref *gen, struct outcome *o)
{
	const struct guard_policy *p;
	const struct subject_rules *subject;

	if (!gen || !o)
		return 0;
	o->reason = GUARD_TAMPER;
	o->verdict = GUARD_DENY;
	o->rule = GUARD_NO_RULE;
	subject = subject_rules(gen);
	p = policy_of(gen);
	if (!subject || !p)
		return 0;
	guard_verdict(subject, 0, &p->named, &p->audit, o);
	if (!is_initial_root(bpf_get_current_task_btf()->cred))
		o->verdict = GUARD_DENY;
	if (o->verdict != GUARD_DENY && current_labels())
		o->verdict = label_verdict(p);
	return o->verdict == GUARD_ALLOW;
}

/* True if the path is protected or, with `above`, if a protected path is below it. An unknown path counts as
 * protected: the paths of the enforcer can always be resolved. */
static __always_inline bool is_protected_path(const struct generation_ref *gen, const struct dentry *d, bool above)
{
	const struct guard_state *s;
	struct place at = {};

	if (!gen)
		return 1;
	guard_place(gen->slot, ptr_to_u64(d), &at);
	if (at.reason == GUARD_UNKNOWN_FS || at.reason == GUARD_TOO_DEEP)
		return 0;
	if (at.reason != GUARD_BY_RULE)
		return 1;
	s = state_of(gen->slot, at.state);
	if (!s)
		return 1;
	if (above)
		return s->reaches.word[GUARD_PROTECTED / 64] >> (GUARD_PROTECTED % 64) & 1;
	return s->covers.word[GUARD_PROTECTED / 64] >> (GUARD_PROTECTED % 64) & 1;
}

static __noinline bool refuse_tamper(const struct generation_ref *gen, const struct dentry *d, bool above, __u32 action)
{
	struct outcome o = { .action = action };

	if (!gen)
		return 1;
	if (!d || may_modify_enforcer(gen, &o) || !is_protected_path(gen, d, above))
		return 0;
	return emit_file(gen, &o, d);
}

/* True if something may be mounted there. Newer kernels use another bit, which older kernels use for a dentry that
 * is being freed. */
static __always_inline bool is_mount_point(const struct dentry *d)
{
	unsigned int flags = BPF_CORE_READ(d, d_flags);

	if (bpf_core_enum_value_exists(enum dentry_flags, DCACHE_MOUNTED))
		return flags & bpf_core_enum_value(enum dentry_flags, DCACHE_MOUNTED);
	return flags & (1U << 16 | 1U << 15);
}

static __always_inline bool refuse_tamper_by_privileged(const struct dentry *d, bool above, __u32 action)
{
	struct generation_ref gen;

	return is_privileged() && active_generation(&gen) && refuse_tamper(&gen, d, above, action);
}

/* Protects an object without a path: the identity of the task alone decides. */
static __noinline bool refuse_tamper_object(const struct generation_ref *gen, __u32 action, __u64 object)
{
	struct outcome o = { .action = action };
	struct event_source source = {};

	if (!gen)
		return 1;
	if (may_modify_enforcer(gen, &o))
		return 0;
	describe_decision(gen, &o, &source);
	source.inode = object;
	guard_emit_event(&source);
	return o.verdict == GUARD_DENY;
}

/* Uses the dentry in the file's own superblock: a file of an overlay's layer may have the overlay's dentry. */
static __always_inline bool refuse_tamper_file(const struct generation_ref *gen, const struct file *file)
{
	const struct dentry *d = BPF_CORE_READ(file, f_path.dentry);
	const struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct hlist_node *node;

	if (BPF_CORE_READ(d, d_inode) != inode) {
		node = BPF_CORE_READ(inode, i_dentry.first);
		if (!node)
			return 0;
		if (bpf_core_field_exists(((struct dentry *)0)->d_u.d_alias))
			d = (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
		else
			d = (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
	}
	return refuse_tamper(gen, d, 0, GUARD_WRITE);
}

/* An open for writing, or one that truncates the file. */
static __always_inline bool opens_for_writing(const struct file *file)
{
	return (file->f_mode & FMODE_WRITE) || (file->f_flags & O_TRUNC);
}

/* True for a mount that is in a mount namespace other than the host's and is not shared: changes to it stay there. */
static __always_inline bool is_private_mount(const struct vfsmount *mnt)
{
	const struct mount *m = (const void *)mnt - bpf_core_field_offset(struct mount, mnt);

	return !BPF_CORE_READ(m, mnt_group_id) &&
	       !is_protected_object(GUARD_HOST_MOUNT_NAMESPACE, BPF_CORE_READ(m, mnt_ns, ns.inum));
}

/* A mount over it, a move or an unmount affects everything below. */
static __always_inline bool refuse_tamper_mount(const struct generation_ref *gen, const struct vfsmount *mnt,
						const struct dentry *d)
{
	return !is_private_mount(mnt) && refuse_tamper(gen, d, 1, GUARD_MOUNT);
}

/* The names of a generation's tables have a prefix that identifies them. */
static __always_inline bool is_protected_map(const struct bpf_map *map)
{
	return is_protected_object(GUARD_PROTECTED_MAP, map->id) ||
	       (map->name[0] == 'e' && map->name[1] == 'g' && map->name[2] == '_');
}

/* Tracing a process that may modify the enforcer counts as modifying it. A rule in audit mode does not keep that
 * process from modifying it. */
static __noinline bool child_may_modify(const struct generation_ref *gen, struct task_struct *child)
{
	const struct guard_policy *p;
	struct outcome o = {};
	const struct task_cache *t;

	if (!gen)
		return 1;
	if (!child || !is_initial_root(BPF_CORE_READ(child, real_cred)))
		return 0;
	t = bpf_task_storage_get(&tasks, child, 0, 0);
	p = policy_of(gen);
	return !t || !p || t->generation != gen->generation ||
	       guard_verdict(&t->subject, 0, &p->named, &p->audit, &o) != GUARD_DENY;
}

#endif
