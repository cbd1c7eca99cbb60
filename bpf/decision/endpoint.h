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

static __noinline bool emit_endpoint(const struct generation_ref *gen, const struct outcome *o,
				     const struct endpoint *e)
{
	struct event_source source = {};

	if (!gen || !o || !e)
		return 1;
	describe_decision(gen, o, &source);
	source.family = e->family;
	source.protocol = e->protocol;
	source.port = e->port;
	__builtin_memcpy(source.address, e->address, sizeof(source.address));
	guard_emit_event(&source);
	return o->verdict == GUARD_DENY;
}

static __noinline bool allowed_endpoint(const struct generation_ref *gen, const struct subject_rules *subject,
					const struct endpoint *e, struct outcome *o)
{
	struct guard_vector covers = {}; /* 6.1 rejects a function that fills uninitialised memory */
	struct matched_sets sets = {};
	bool computed;

	if (!gen || !subject || !e || !o)
		return 0;
	o->reason = e->reason;
	if (o->reason != GUARD_BY_RULE)
		return allowed(gen, subject, 0, o);
	computed = !guard_match_endpoint(gen->slot, e, &sets) && !guard_covering_rules(gen->slot, &sets, &covers);
	if (!computed)
		o->reason = GUARD_BROKEN_MAP;
	return allowed(gen, subject, computed ? &covers : 0, o);
}

static __always_inline struct endpoint_cache_entry *endpoint_cache_slot(const struct endpoint *e)
{
	const __u64 *x = (const __u64 *)e;
	__u32 index = (x[3] ^ x[4]) * 0x9e3779b97f4a7c15ULL >> 32;

	index = (index ^ e->port ^ e->protocol) & (ENDPOINT_CACHE_SIZE - 1);
	return bpf_map_lookup_elem(&covered, &index);
}

/* The actions of the rules that cover the endpoint, from the cache; ~0: not in the cache. */
static __noinline __u32 cached_endpoint_actions(const struct generation_ref *gen, const struct endpoint *e)
{
	const __u64 *x = (const __u64 *)e, *y;
	struct endpoint_cache_entry *c, *entry;
	__u64 version, differ;
	__u32 cached, i;

	if (!gen || !e)
		return ~0U;
	c = endpoint_cache_slot(e);
	if (!c)
		return ~0U;
	version = *(volatile __u64 *)&c->version;
	entry = (void *)c + read_dependency(version);
	y = (const __u64 *)entry->where;
	differ = entry->generation ^ gen->generation;
	GUARD_UNROLL
	for (i = 0; i < sizeof(*e) / sizeof(__u64); i++)
		differ |= x[i] ^ y[i];
	cached = entry->actions;
	entry = (void *)entry + read_dependency(cached | differ);
	return !differ && *(volatile __u64 *)&entry->version == (version & ~1ULL) ? cached : ~0U;
}

/* The actions on endpoints that these rules have. */
static __noinline __u32 actions_of_rules(const struct generation_ref *gen, const struct guard_vector *rules)
{
	const struct guard_policy *p;
	__u32 actions = 0, i;

	if (!gen || !rules)
		return ~0U;
	p = policy_of(gen);
	if (!p)
		return ~0U;
	for (i = GUARD_CONNECT; i <= GUARD_VSOCK; i++)
		if (guard_concerns(rules, &p->rules_by_action[i]))
			actions |= 1U << i;
	return actions;
}

/* The actions of the rules that cover the endpoint, computed and cached; ~0: they cannot be computed. */
static __noinline __u32 compute_endpoint_actions(const struct generation_ref *gen, const struct endpoint *e)
{
	struct guard_vector covers = {};
	struct matched_sets sets = {};
	struct endpoint_cache_entry *c;
	__u64 version;
	__u32 actions;

	if (!gen || !e || e->reason != GUARD_BY_RULE || guard_match_endpoint(gen->slot, e, &sets) ||
	    guard_covering_rules(gen->slot, &sets, &covers))
		return ~0U;
	c = endpoint_cache_slot(e);
	actions = actions_of_rules(gen, &covers);
	if (!c || actions == ~0U)
		return ~0U;
	version = c->version;
	if ((version & 1) || __sync_val_compare_and_swap(&c->version, version, version + 1) != version)
		return actions;
	c->generation = gen->generation;
	__builtin_memcpy(c->where, e, sizeof(*e));
	c->actions = actions;
	__sync_fetch_and_add(&c->version, 1);
	return actions;
}

/* Decides on each requested action on one endpoint. Returns 1 if one is denied. */
int guard_refuse(const struct generation_ref *gen, const struct subject_rules *subject, const struct endpoint *e,
		 __u32 actions)
{
	struct outcome o = {};
	struct generation_ref copy; /* 6.1 takes no map key from an argument of a global function */
	__u32 relevant, i;

	if (!gen || !subject || !e)
		return 1;
	copy = *gen;
	relevant = cached_endpoint_actions(&copy, e);
	if (relevant == ~0U)
		relevant = compute_endpoint_actions(&copy, e);
	actions &= relevant;
	if (!actions)
		return 0;
	for (i = GUARD_CONNECT; i <= GUARD_VSOCK; i++) {
		if (!(actions & (1U << i)))
			continue;
		o.action = i;
		if (!allowed_endpoint(&copy, subject, e, &o) && emit_endpoint(&copy, &o, e))
			return 1;
	}
	return 0;
}

#endif
