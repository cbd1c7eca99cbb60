/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The decision: pure C over the values of abi/layout.h, without helpers and maps. The BPF object, the library for
 * differential tests and the proof are built from the same text. The callers gather its inputs.
 */
#ifndef GUARD_CORE_DECIDE_H
#define GUARD_CORE_DECIDE_H

#include "abi/layout.h"

#ifndef GUARD_INLINE
#define GUARD_INLINE static inline __attribute__((always_inline, unused))
#endif

#define GUARD_NO_RULE 0xffffffffU

/* The verifier of 6.1 takes some loops as clang arranges them for backward jumps. */
#ifdef __clang__
#define GUARD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GUARD_UNROLL
#endif

/* The subject sets that match a task, key by key. An unknown attribute sets the bits of `_bind` and clears those of
 * `_exempt`, so that it fails closed. */
struct guard_task_sets {
	guard_u64 user_bind, user_exempt;
	guard_u64 login;
	guard_u64 group_bind, group_exempt;
	guard_u64 service_bind, service_exempt;
	guard_u64 executable_bind, executable_exempt;
	guard_u64 label;
};

/* A set matches if all its keys match; a set without a key is in the any_ mask of that key. */
GUARD_INLINE guard_u64 guard_binding_sets(const struct guard_policy *p, const struct guard_task_sets *w)
{
	return (p->any_user | w->user_bind) & (p->any_login | w->login) & (p->any_group | w->group_bind) &
	       (p->any_service | w->service_bind) & (p->any_executable | w->executable_bind) &
	       (p->any_label | w->label);
}

GUARD_INLINE guard_u64 guard_exempting_sets(const struct guard_policy *p, const struct guard_task_sets *w)
{
	return (p->any_user | w->user_exempt) & (p->any_login | w->login) & (p->any_group | w->group_exempt) &
	       (p->any_service | w->service_exempt) & (p->any_executable | w->executable_exempt) &
	       (p->any_label | w->label);
}

GUARD_INLINE guard_u64 guard_destination_sets(const struct guard_policy *p, guard_u64 address, guard_u64 port,
					      guard_u64 protocol)
{
	return (p->any_address | address) & (p->any_port | port) & (p->any_protocol | protocol);
}

GUARD_INLINE void guard_add(struct guard_vector *to, const struct guard_vector *from)
{
	for (int i = 0; i < GUARD_WORDS; i++)
		to->word[i] |= from->word[i];
}

/* to &= ~from */
GUARD_INLINE void guard_remove(struct guard_vector *to, const struct guard_vector *from)
{
	for (int i = 0; i < GUARD_WORDS; i++)
		to->word[i] &= ~from->word[i];
}

/*
 * Rules that a new name (hard link or rename) violates. A rule that covers some of what is behind the old name must
 * cover all of what is behind the new one, since it would not apply there. A rule on writing that covers some of what
 * is behind the new name must cover all of what is behind the old one, since that is now written there. For a file,
 * some and all are the same.
 */
GUARD_INLINE void guard_moved(struct guard_vector *out, const struct guard_vector *some_old,
			      const struct guard_vector *all_old, const struct guard_vector *some_new,
			      const struct guard_vector *all_new, const struct guard_vector *writing)
{
	for (int i = 0; i < GUARD_WORDS; i++)
		out->word[i] = (some_old->word[i] & ~all_new->word[i]) |
			       (some_new->word[i] & ~all_old->word[i] & writing->word[i]);
}

/* True if a rule of this action applies. */
GUARD_INLINE int guard_concerns(const struct guard_vector *bound, const struct guard_vector *action_rules)
{
	guard_u64 any = 0;

	for (int i = 0; i < GUARD_WORDS; i++)
		any |= bound->word[i] & action_rules->word[i];
	return any != 0;
}

/* The number of the lowest bit set. Without branches, since the verifier would follow each of them. */
GUARD_INLINE guard_u32 guard_lowest(guard_u64 bits)
{
	guard_u64 below = (bits & -bits) - 1;

	below = below - ((below >> 1) & 0x5555555555555555ULL);
	below = (below & 0x3333333333333333ULL) + ((below >> 2) & 0x3333333333333333ULL);
	below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (below * 0x0101010101010101ULL) >> 56;
}

/*
 * The verdict: whether a rule of the action applies to the task and covers the object. `covers` is NULL if the state
 * of the object is unknown: every rule counts as covering it. A rule in audit mode only reports; an enforcing rule
 * takes precedence. *rule is the first such rule, or GUARD_NO_RULE.
 */
GUARD_INLINE guard_u32 guard_decide(const struct guard_vector *bound, const struct guard_vector *covers,
				    const struct guard_vector *action_rules, const struct guard_vector *audit,
				    guard_u32 *rule)
{
	guard_u64 hits = 0, denials = 0, bits;
	guard_u32 i;

	*rule = GUARD_NO_RULE;
	GUARD_UNROLL
	for (i = 0; i < GUARD_WORDS; i++) {
		bits = bound->word[i] & action_rules->word[i];
		if (covers)
			bits &= covers->word[i];
		hits |= bits;
		denials |= bits & ~audit->word[i];
	}
	if (!hits)
		return GUARD_ALLOW;
	/* Read the words again: keeping those of the loop above would exceed the stack of a BPF program. */
	__asm__ volatile("" ::: "memory");
	GUARD_UNROLL
	for (i = 0; i < GUARD_WORDS; i++) {
		bits = bound->word[i] & action_rules->word[i];
		if (covers)
			bits &= covers->word[i];
		if (denials)
			bits &= ~audit->word[i];
		if (bits && *rule == GUARD_NO_RULE)
			*rule = 64 * i + guard_lowest(bits);
	}
	return denials ? GUARD_DENY : GUARD_AUDIT;
}

#endif
