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

/* Ends a program with a branch: clang would compute the result from a value that it knows to be 0 or 1. */
static __always_inline int deny_if(__u32 refused)
{
	barrier_var(refused);
	return refused ? -EPERM : 0;
}

struct outcome {
	__u32 action, verdict, reason, rule;
};

/* The verdict on one action. `covers` is NULL if the state of the object is unknown, for the reason in *o. */
int guard_verdict(const struct subject_rules *subject, const struct guard_vector *covers,
		  const struct guard_vector *action_rules, const struct guard_vector *audit, struct outcome *o)
{
	if (!subject || !action_rules || !audit || !o)
		return GUARD_DENY;
	o->verdict = guard_decide(&subject->rules, covers, action_rules, audit, &o->rule);
	return o->verdict;
}

static __always_inline bool allowed(const struct generation_ref *gen, const struct subject_rules *subject,
				    const struct guard_vector *covers, struct outcome *o)
{
	const struct guard_policy *p = policy_of(gen);

	/* Without its policy table no rule applies; guard_bind returned the same before. */
	return !p || guard_verdict(subject, covers, &p->rules_by_action[o->action & (GUARD_ACTIONS - 1)], &p->audit,
				   o) == GUARD_ALLOW;
}

#endif
