/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What enforces is touched by nobody but real root of the first user namespace, and not by that root either while a
 * rule that names subjects binds it, or a label lies on it. No rule says so; rules that only report report this, too. What
 * it is: the paths of the policy's `protected`, our maps and programs, and every process that may touch them.
 */
#ifndef GUARD_DECISION_PROTECTION_H
#define GUARD_DECISION_PROTECTION_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/path.h"
#include "subject/cache.h"
#include "subject/carrier.h"
#include "decision/report.h"
#include "decision/verdict.h"

static __always_inline __u64 capabilities(const struct cred *cred)
{
	__u64 held = 0;

	/* two words or one, in the same 8 bytes */
	bpf_probe_read_kernel(&held, sizeof(held), __builtin_preserve_access_index(&cred->cap_effective));
	return held;
}

/* Who could touch it at all: permissions and owners keep everybody else away. */
static __always_inline bool powerful(void)
{
	const struct cred *cred = bpf_get_current_task_btf()->cred;

	if (cred->user_ns->level)
		return 0;
	return !cred->fsuid.val || !cred->euid.val || capabilities(cred);
}

static __always_inline bool real_root(const struct cred *cred)
{
	return !BPF_CORE_READ(cred, uid.val) && !BPF_CORE_READ(cred, euid.val) &&
	       !BPF_CORE_READ(cred, user_ns, level) && (capabilities(cred) & (1ULL << CAP_SYS_ADMIN));
}

static __always_inline bool ours(__u32 kind, __u32 number)
{
	struct guard_our_key key = { .kind = kind, .number = number };

	return bpf_map_lookup_elem(&our, &key);
}

/* May the current task touch it? The strictest of what rules and its labels say; the rule is told, if there is one. */
static __noinline bool trusted(const struct view *v, struct outcome *o)
{
	const struct guard_policy *p;
	const struct bound *b;

	if (!v || !o)
		return 0;
	o->reason = GUARD_TAMPER;
	o->verdict = GUARD_DENY;
	o->rule = GUARD_NO_RULE;
	b = bound(v);
	p = policy_of(v);
	if (!b || !p)
		return 0;
	guard_verdict(b, 0, &p->named, &p->audit, o);
	if (!real_root(bpf_get_current_task_btf()->cred))
		o->verdict = GUARD_DENY;
	if (o->verdict != GUARD_DENY && carried())
		o->verdict = verdict_of_label(p);
	return o->verdict == GUARD_ALLOW;
}

/* Is it one of the protected paths, or, `above`, does one lie below it? What can't be told counts as one: those paths
 * lie where paths can be told. */
static __always_inline bool protects(const struct view *v, const struct dentry *d, bool above)
{
	const struct guard_state *s;
	struct place at = {};

	if (!v)
		return 1;
	guard_place(v->slot, number(d), &at);
	if (at.reason == GUARD_UNKNOWN_FS || at.reason == GUARD_TOO_DEEP)
		return 0;
	if (at.reason != GUARD_BY_RULE)
		return 1;
	s = state_of(v->slot, at.state);
	if (!s)
		return 1;
	if (above)
		return s->reaches.word[GUARD_PROTECTED / 64] >> (GUARD_PROTECTED % 64) & 1;
	return s->covers.word[GUARD_PROTECTED / 64] >> (GUARD_PROTECTED % 64) & 1;
}

static __noinline bool refuse_touch(const struct view *v, const struct dentry *d, bool above, __u32 action)
{
	struct outcome o = { .action = action };

	if (!v)
		return 1;
	if (!d || trusted(v, &o) || !protects(v, d, above))
		return 0;
	return tell_file(v, &o, d);
}

/* Somewhere, perhaps: newer kernels have another bit, where older ones have that of a dentry on its way out. */
static __always_inline bool mounted_on(const struct dentry *d)
{
	unsigned int flags = BPF_CORE_READ(d, d_flags);

	if (bpf_core_enum_value_exists(enum dentry_flags, DCACHE_MOUNTED))
		return flags & bpf_core_enum_value(enum dentry_flags, DCACHE_MOUNTED);
	return flags & (1U << 16 | 1U << 15);
}

static __always_inline bool touches(const struct dentry *d, bool above, __u32 action)
{
	struct view v;

	return powerful() && see(&v) && refuse_touch(&v, d, above, action);
}

/* by whom it is asked alone */
static __noinline bool refuse_untrusted(const struct view *v, __u32 action, __u64 object)
{
	struct outcome o = { .action = action };
	struct matter m = {};

	if (!v)
		return 1;
	if (trusted(v, &o))
		return 0;
	describe(v, &o, &m);
	m.inode = object;
	guard_tell(&m);
	return o.verdict == GUARD_DENY;
}

/* The dentry in the file's own superblock: the file of an overlay's layer may carry the overlay's. */
static __always_inline bool touches_file(const struct view *v, const struct file *file)
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
	return refuse_touch(v, d, 0, GUARD_WRITE);
}

/* An open for writing, or one that empties the file. */
static __always_inline bool writable(const struct file *file)
{
	return (file->f_mode & FMODE_WRITE) || (file->f_flags & O_TRUNC);
}

/* What happens to this mount is seen in no namespace but one of the task's own. */
static __always_inline bool elsewhere(const struct vfsmount *mnt)
{
	const struct mount *m = (const void *)mnt - bpf_core_field_offset(struct mount, mnt);

	return !BPF_CORE_READ(m, mnt_group_id) && !ours(GUARD_OUR_NAMESPACE, BPF_CORE_READ(m, mnt_ns, ns.inum));
}

/* mounted over, moved or taken away: whatever lies below goes with it */
static __always_inline bool touches_mount(const struct view *v, const struct vfsmount *mnt, const struct dentry *d)
{
	return !elsewhere(mnt) && refuse_touch(v, d, 1, GUARD_MOUNT);
}

/* the tables of a generation are known by the beginning of their names */
static __always_inline bool our_map(const struct bpf_map *map)
{
	return ours(GUARD_OUR_MAP, map->id) || (map->name[0] == 'e' && map->name[1] == 'g' && map->name[2] == '_');
}

/* To control a process that may touch it is to touch it. A rule that only reports does not keep it from that. */
static __noinline bool may_touch(const struct view *v, struct task_struct *child)
{
	const struct guard_policy *p;
	struct outcome o = {};
	const struct task *t;

	if (!v)
		return 1;
	if (!child || !real_root(BPF_CORE_READ(child, real_cred)))
		return 0;
	t = bpf_task_storage_get(&tasks, child, 0, 0);
	p = policy_of(v);
	return !t || !p || t->generation != v->generation ||
	       guard_verdict(&t->bound, 0, &p->named, &p->audit, &o) != GUARD_DENY;
}

#endif
