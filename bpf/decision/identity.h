/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A task must not get rid of a rule by changing what the rule goes by. What a task may not change so: its cgroup, its
 * login uid and, since rules expire, the clock. A change is denied if an enforcing rule applies now and may not
 * afterwards; while all such rules are in audit mode, it is reported.
 */
#ifndef GUARD_DECISION_IDENTITY_H
#define GUARD_DECISION_IDENTITY_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "subject/former.h"
#include "subject/subject.h"
#include "decision/report.h"
#include "decision/verdict.h"

#define ANY_SERVICE (-1)
#define ANY_LOGIN (-2)

static __always_inline struct task_cache *own_entry(void)
{
	struct task_cache *t =
		bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	return t ? t : overflow_task();
}

/* The rules that apply to the current task, as just computed into *t, and would not apply in a cgroup of this
 * automaton state, in any cgroup, or with any login user. Returns 0 if they cannot be computed; callers must deny.
 * What *t says applies is wrong afterwards, so it is marked as not computed. */
static __noinline int rules_lost(const struct generation_ref *gen, struct task_cache *t, int change,
				 struct subject_rules *lost)
{
	const struct guard_policy *p;
	const struct guard_state *s;
	guard_u64 binding;
	int left;

	if (!gen || !t || !lost)
		return 0;
	*lost = t->subject;
	p = policy_of(gen);
	if (!p)
		return 1; /* no rule applies */
	t->generation = 0;
	t->cred_version = 0;
	if (change == ANY_LOGIN) {
		t->sets.login = 0;
		binding = guard_binding_sets(p, &t->sets);
		t->sets.login = ~0ULL;
	} else {
		s = change < 0 ? 0 : state_of(gen->slot, change);
		t->sets.service_bind = s ? s->services : 0;
		t->sets.service_exempt = s ? s->services : ~0ULL;
		left = guard_former_service(gen->slot, p->service_root, t);
		if (left != NEVER_LEFT) {
			s = left < 0 ? 0 : state_of(gen->slot, left);
			t->sets.service_bind |= s ? s->services : ~0ULL;
			t->sets.service_exempt &= s ? s->services : 0;
		}
		binding = guard_binding_sets(p, &t->sets);
	}
	match_sets(t, binding, guard_exempting_sets(p, &t->sets));
	if (guard_select(gen->slot, t))
		return 0;
	guard_remove(&lost->rules, &t->subject.rules);
	return 1;
}

/* True if the current task may not make the change. `named`: only rules with `subjects` count. */
static __noinline bool refuse_change(const struct generation_ref *gen, struct task_cache *t, int change, bool named,
				     const struct dentry *d)
{
	struct outcome o = { .action = GUARD_WRITE, .reason = GUARD_TAMPER };
	const struct guard_policy *p;
	struct subject_rules lost;

	if (!gen)
		return 1;
	if (!rules_lost(gen, t, change, &lost))
		return 1;
	p = policy_of(gen);
	if (!p || guard_verdict(&lost, 0, named ? &p->named : &lost.rules, &p->audit, &o) == GUARD_ALLOW)
		return 0;
	return emit_file(gen, &o, d);
}

/* True if an enforcing rule with `subjects` applies to the current task. */
static __noinline bool refuse_named(const struct generation_ref *gen, __u32 action)
{
	struct outcome o = { .action = action, .reason = GUARD_TAMPER };
	const struct subject_rules *subject;
	const struct guard_policy *p;

	if (!gen)
		return 1;
	subject = subject_rules(gen);
	if (!subject)
		return 1;
	p = policy_of(gen);
	if (!p || guard_verdict(subject, 0, &p->named, &p->audit, &o) == GUARD_ALLOW)
		return 0;
	emit_plain(gen, &o);
	return o.verdict == GUARD_DENY;
}

static __always_inline bool refuse_if_named(__u32 action)
{
	struct generation_ref gen;

	return active_generation(&gen) && refuse_named(&gen, action);
}

/* A clone into another cgroup, which the hook does not get. */
static __always_inline bool refuse_leaving(const struct generation_ref *gen)
{
	struct task_cache *t = own_entry();

	if (!compute_subject(gen, t))
		return 1;
	return refuse_change(gen, t, ANY_SERVICE, 0, 0);
}

/* A filesystem with files whose writing changes an identity. */
static __always_inline bool may_change_identity(const struct file *file)
{
	unsigned long magic = file->f_inode->i_sb->s_magic;

	return magic == CGROUP2_MAGIC || magic == PROC_MAGIC;
}

/* Eight bytes of a name. */
static __always_inline __u64 word_of(const char text[8])
{
	__u64 word = 0;
	int i;

	GUARD_UNROLL
	for (i = 0; i < 8; i++)
		word |= (__u64)(__u8)text[i] << (8 * i);
	return word;
}

static __always_inline bool sets_login(const __u64 name[2])
{
	return name[0] == word_of("loginuid") && !name[1];
}

static __always_inline bool moves_tasks(const __u64 name[2])
{
	return (name[0] == word_of("cgroup.p") && name[1] == word_of("rocs\0\0\0")) ||
	       (name[0] == word_of("cgroup.t") && name[1] == word_of("hreads\0"));
}

/* Writing moves a task to the cgroup of the file, or sets the login uid of the writer. */
static __noinline bool refuse_identity(const struct generation_ref *gen, const struct file *file)
{
	const struct cred *cred = bpf_get_current_task_btf()->cred;
	const struct dentry *d = BPF_CORE_READ(file, f_path.dentry);
	struct kernfs_node *node;
	const struct guard_policy *p;
	__u64 name[2] = {};
	struct task_cache *t;
	int change = ANY_LOGIN;
	bool named;

	if (!gen)
		return 1;
	if (gen->slot >= GUARD_SLOTS)
		return 0;
	p = policy_of(gen);
	if (!p)
		return 0;
	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(d, d_name.name));
	if (BPF_CORE_READ(file, f_inode, i_sb, s_magic) == PROC_MAGIC) {
		if (!(p->uses & GUARD_USES_LOGIN) || !sets_login(name))
			return 0;
		/* Whoever starts sessions sets login uids. */
		named = !BPF_CORE_READ(cred, user_ns, level) && (capabilities(cred) & (1ULL << CAP_AUDIT_CONTROL));
		t = own_entry();
	} else {
		if (!(p->uses & GUARD_USES_SERVICES) || !moves_tasks(name) || starts_services())
			return 0;
		named = 0;
		node = parent_of(BPF_CORE_READ(file, f_inode, i_private));
		t = own_entry();
		change = guard_service(gen->slot, p->service_root, ptr_to_u64(node), t);
	}
	if (!compute_subject(gen, t))
		return 1;
	return refuse_change(gen, t, change, named, d);
}

#endif
