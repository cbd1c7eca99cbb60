/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The decision: pure C over the values of layout.h, without helpers and without maps. The same text is compiled
 * into the BPF object, into a library for differential tests, and into the proof. The hooks gather its inputs.
 */
#ifndef GUARD_CORE_DECIDE_H
#define GUARD_CORE_DECIDE_H

#include "abi/layout.h"

#ifndef GUARD_INLINE
#define GUARD_INLINE static inline __attribute__((always_inline, unused))
#endif

#define GUARD_NO_RULE 0xffffffffU

/* the verifier of 6.1 takes some of the loops that clang lays out for jumps backwards */
#ifdef __clang__
#define GUARD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GUARD_UNROLL
#endif

/* What is known of a task, key by key, as subject sets. `_free` is the reading that errs against the task. */
struct guard_who {
	guard_u64 user_bind, user_free;
	guard_u64 login;
	guard_u64 group_bind, group_free;
	guard_u64 service_bind, service_free;
	guard_u64 executable_bind, executable_free;
	guard_u64 label;
};

/* AND across keys; a set without a key is in the key's any_ mask. */
GUARD_INLINE guard_u64 guard_binding_sets(const struct guard_policy *p, const struct guard_who *w)
{
	return (p->any_user | w->user_bind) & (p->any_login | w->login) & (p->any_group | w->group_bind) &
	       (p->any_service | w->service_bind) & (p->any_executable | w->executable_bind) &
	       (p->any_label | w->label);
}

GUARD_INLINE guard_u64 guard_freeing_sets(const struct guard_policy *p, const struct guard_who *w)
{
	return (p->any_user | w->user_free) & (p->any_login | w->login) & (p->any_group | w->group_free) &
	       (p->any_service | w->service_free) & (p->any_executable | w->executable_free) &
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
 * A new name is against a rule that covers something of what is behind the old one and not all of what is behind the new
 * one, since it would no longer hold; and against one on writing that covers something behind the new one and not all
 * behind the old one, since that is written there. For a file, some and all are the same.
 */
GUARD_INLINE void guard_moved(struct guard_vector *out, const struct guard_vector *some_old,
			      const struct guard_vector *all_old, const struct guard_vector *some_new,
			      const struct guard_vector *all_new, const struct guard_vector *writing)
{
	for (int i = 0; i < GUARD_WORDS; i++)
		out->word[i] = (some_old->word[i] & ~all_new->word[i]) |
			       (some_new->word[i] & ~all_old->word[i] & writing->word[i]);
}

/* Does any rule of this action bind at all? */
GUARD_INLINE int guard_concerns(const struct guard_vector *bound, const struct guard_vector *of_action)
{
	guard_u64 any = 0;

	for (int i = 0; i < GUARD_WORDS; i++)
		any |= bound->word[i] & of_action->word[i];
	return any != 0;
}

/* Number of the lowest bit that is set, without a branch: the verifier would follow each of them. */
GUARD_INLINE guard_u32 guard_lowest(guard_u64 bits)
{
	guard_u64 below = (bits & -bits) - 1;

	below = below - ((below >> 1) & 0x5555555555555555ULL);
	below = (below & 0x3333333333333333ULL) + ((below >> 2) & 0x3333333333333333ULL);
	below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (below * 0x0101010101010101ULL) >> 56;
}

/*
 * The verdict: some rule of the action binds the task and covers the object. `covers` of 0 stands for an object that
 * could not be placed: every rule is taken to cover it. A rule in audit mode reports; one that enforces wins over it.
 * *rule is the first such rule, GUARD_NO_RULE without one.
 */
GUARD_INLINE guard_u32 guard_decide(const struct guard_vector *bound, const struct guard_vector *covers,
				    const struct guard_vector *of_action, const struct guard_vector *audit,
				    guard_u32 *rule)
{
	guard_u64 hits = 0, denials = 0, bits;
	guard_u32 i;

	*rule = GUARD_NO_RULE;
	GUARD_UNROLL
	for (i = 0; i < GUARD_WORDS; i++) {
		bits = bound->word[i] & of_action->word[i];
		if (covers)
			bits &= covers->word[i];
		hits |= bits;
		denials |= bits & ~audit->word[i];
	}
	if (!hits)
		return GUARD_ALLOW;
	/* read again: keeping the words of the loop above costs more stack than a BPF program has */
	__asm__ volatile("" ::: "memory");
	GUARD_UNROLL
	for (i = 0; i < GUARD_WORDS; i++) {
		bits = bound->word[i] & of_action->word[i];
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
