/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides on actions between endpoints.
 */
#ifndef GUARD_DECISION_ENDPOINT_H
#define GUARD_DECISION_ENDPOINT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"
#include "object/endpoint.h"
#include "decision/report.h"
#include "decision/verdict.h"

static __noinline bool tell_endpoint(const struct view *v, const struct outcome *o, const struct endpoint *e)
{
	struct matter m = {};

	if (!v || !o || !e)
		return 1;
	describe(v, o, &m);
	m.family = e->family;
	m.protocol = e->protocol;
	m.port = e->port;
	__builtin_memcpy(m.address, e->address, sizeof(m.address));
	guard_tell(&m);
	return o->verdict == GUARD_DENY;
}

static __noinline bool allowed_endpoint(const struct view *v, const struct bound *b, const struct endpoint *e,
					struct outcome *o)
{
	struct guard_vector covers = {}; /* 6.1 lets no function fill what is not */
	struct reached sets = {};
	bool known;

	if (!v || !b || !e || !o)
		return 0;
	o->reason = e->reason;
	if (o->reason != GUARD_BY_RULE)
		return allowed(v, b, 0, o);
	known = !guard_reach(v->slot, e, &sets) && !guard_cover(v->slot, &sets, &covers);
	if (!known)
		o->reason = GUARD_BROKEN_MAP;
	return allowed(v, b, known ? &covers : 0, o);
}

static __always_inline struct covered *covered_of(const struct endpoint *e)
{
	const __u64 *x = (const __u64 *)e;
	__u32 index = (x[3] ^ x[4]) * 0x9e3779b97f4a7c15ULL >> 32;

	index = (index ^ e->port ^ e->protocol) & (COVERED - 1);
	return bpf_map_lookup_elem(&covered, &index);
}

/* The actions that rules which cover the endpoint are about; ~0: it is not known. */
static __noinline __u32 covering(const struct view *v, const struct endpoint *e)
{
	const __u64 *x = (const __u64 *)e, *y;
	struct covered *c, *then;
	__u64 version, differ;
	__u32 found, i;

	if (!v || !e)
		return ~0U;
	c = covered_of(e);
	if (!c)
		return ~0U;
	version = *(volatile __u64 *)&c->version;
	then = (void *)c + after(version);
	y = (const __u64 *)then->where;
	differ = then->generation ^ v->generation;
	GUARD_UNROLL
	for (i = 0; i < sizeof(*e) / sizeof(__u64); i++)
		differ |= x[i] ^ y[i];
	found = then->actions;
	then = (void *)then + after(found | differ);
	return !differ && *(volatile __u64 *)&then->version == (version & ~1ULL) ? found : ~0U;
}

/* The actions between endpoints that rules are about. */
static __noinline __u32 actions_between(const struct view *v, const struct guard_vector *rules)
{
	const struct guard_policy *p;
	__u32 found = 0, i;

	if (!v || !rules)
		return ~0U;
	p = policy_of(v);
	if (!p)
		return ~0U;
	for (i = GUARD_CONNECT; i <= GUARD_VSOCK; i++)
		if (guard_concerns(rules, &p->of_action[i]))
			found |= 1U << i;
	return found;
}

/* The same, looked up and remembered. */
static __noinline __u32 learn_covering(const struct view *v, const struct endpoint *e)
{
	struct guard_vector covers = {};
	struct reached sets = {};
	struct covered *c;
	__u64 version;
	__u32 found;

	if (!v || !e || e->reason != GUARD_BY_RULE || guard_reach(v->slot, e, &sets) ||
	    guard_cover(v->slot, &sets, &covers))
		return ~0U;
	c = covered_of(e);
	found = actions_between(v, &covers);
	if (!c || found == ~0U)
		return ~0U;
	version = c->version;
	if ((version & 1) || __sync_val_compare_and_swap(&c->version, version, version + 1) != version)
		return found;
	c->generation = v->generation;
	__builtin_memcpy(c->where, e, sizeof(*e));
	c->actions = found;
	__sync_fetch_and_add(&c->version, 1);
	return found;
}

/* One endpoint: every action that is wanted, against the rules that cover it. 1: refused. */
int guard_refuse(const struct view *v, const struct bound *b, const struct endpoint *e, __u32 actions)
{
	struct outcome o = {};
	struct view here; /* 6.1 takes no key from what a global function was given */
	__u32 found, i;

	if (!v || !b || !e)
		return 1;
	here = *v;
	found = covering(&here, e);
	if (found == ~0U)
		found = learn_covering(&here, e);
	actions &= found;
	if (!actions)
		return 0;
	for (i = GUARD_CONNECT; i <= GUARD_VSOCK; i++) {
		if (!(actions & (1U << i)))
			continue;
		o.action = i;
		if (!allowed_endpoint(&here, b, e, &o) && tell_endpoint(&here, &o, e))
			return 1;
	}
	return 0;
}

#endif
