/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The verdict on one action.
 */
#ifndef GUARD_DECISION_VERDICT_H
#define GUARD_DECISION_VERDICT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"

/* The end of a hook, by a branch: clang would make arithmetic of a value that it knows to be 0 or 1. */
static __always_inline int answer(__u32 refused)
{
	barrier_var(refused);
	return refused ? -EPERM : 0;
}

struct outcome {
	__u32 action, verdict, reason, rule;
};

/* The verdict of one action; covers of 0: the object could not be placed, for o->reason. */
int guard_verdict(const struct bound *b, const struct guard_vector *covers, const struct guard_vector *of_action,
		  const struct guard_vector *audit, struct outcome *o)
{
	if (!b || !of_action || !audit || !o)
		return GUARD_DENY;
	o->verdict = guard_decide(&b->rules, covers, of_action, audit, &o->rule);
	return o->verdict;
}

static __always_inline bool allowed(const struct view *v, const struct bound *b, const struct guard_vector *covers,
				    struct outcome *o)
{
	const struct guard_policy *p = policy_of(v);

	/* without its table nobody is bound: guard_bind has said so before */
	return !p ||
	       guard_verdict(b, covers, &p->of_action[o->action & (GUARD_ACTIONS - 1)], &p->audit, o) == GUARD_ALLOW;
}

#endif
