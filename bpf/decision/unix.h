/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides on connections to unix sockets, by the path or the abstract name of the other socket.
 */
#ifndef GUARD_DECISION_UNIX_H
#define GUARD_DECISION_UNIX_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "object/path.h"
#include "subject/cache.h"
#include "decision/report.h"
#include "decision/verdict.h"

#define ABSTRACT_NAME_SIZE 128 /* an abstract name has at most 107 bytes and no NUL at its end */

struct abstract_name {
	__u64 at;
	__u32 size;
	__u32 pad;
};

/* Finds the automaton state of an abstract name, up to its first NUL. */
static __noinline void place_abstract(__u32 slot, const struct abstract_name *a, struct place *at)
{
	struct guard_superblock_key device = { .device = GUARD_ABSTRACT };
	char name[ABSTRACT_NAME_SIZE] = {};
	__u32 *start, size;
	void *inner;
	int next;

	if (!a || !at)
		return;
	at->reason = GUARD_BROKEN_MAP;
	inner = INNER_OF(superblocks, slot);
	if (!inner)
		return;
	start = bpf_map_lookup_elem(inner, &device);
	if (!start)
		return;
	size = a->size;
	barrier_var(size);
	if (size >= ABSTRACT_NAME_SIZE || bpf_probe_read_kernel(name, size, (const void *)a->at))
		return;
	next = *start ? guard_step(slot, *start, ptr_to_u64(name)) : 0;
	if (next < 0)
		return;
	at->state = next;
	at->reason = GUARD_BY_RULE;
}

static __noinline bool emit_abstract(const struct generation_ref *gen, const struct outcome *o,
				     const struct abstract_name *a)
{
	struct event_source source = {};

	if (!gen || !o || !a)
		return 1;
	describe_decision(gen, o, &source);
	source.device = GUARD_ABSTRACT;
	source.name = a->at;
	source.name_size = a->size;
	guard_emit_event(&source);
	return o->verdict == GUARD_DENY;
}

static __noinline bool allowed_place(const struct generation_ref *gen, const struct subject_rules *subject,
				     const struct place *at, struct outcome *o)
{
	const struct guard_state *s = 0;

	if (!gen || !subject || !at || !o)
		return 0;
	o->action = GUARD_UNIX_CONNECT;
	o->reason = at->reason;
	if (at->reason == GUARD_BY_RULE) {
		s = state_of(gen->slot, at->state);
		if (!s)
			o->reason = GUARD_BROKEN_MAP;
	}
	return allowed(gen, subject, s ? &s->covers : 0, o);
}

/* A socket without a name cannot be covered by a rule: the other end of a socketpair, or a client that connected to
 * us. */
static __noinline bool refuse_unix_target(const struct generation_ref *gen, const struct subject_rules *subject,
					  const struct unix_sock *other)
{
	const struct unix_address *address;
	struct abstract_name a = {};
	struct outcome o = {};
	struct place at = {};
	const struct dentry *d;

	if (!gen || !subject)
		return 1;
	d = BPF_CORE_READ(other, path.dentry);
	if (d) {
		guard_place(gen->slot, ptr_to_u64(d), &at);
		return !allowed_place(gen, subject, &at, &o) && emit_file(gen, &o, d);
	}
	address = BPF_CORE_READ(other, addr);
	if (!address)
		return 0;
	/* The name follows the family and the NUL that marks an abstract name. */
	a.size = BPF_CORE_READ(address, len) - 3;
	a.at = ptr_to_u64(address) + bpf_core_field_offset(struct unix_address, name) + 3;
	place_abstract(gen->slot, &a, &at);
	return !allowed_place(gen, subject, &at, &o) && emit_abstract(gen, &o, &a);
}

/* Sends over an earlier connection; datagram sockets call unix_may_send instead. */
static __noinline bool refuse_unix_peer(const struct generation_ref *gen, const struct subject_rules *subject,
					struct socket *sock)
{
	const struct sock *sk = sock->sk;
	const struct unix_sock *peer;

	if (!sk || sock->type == SOCK_DGRAM)
		return 0;
	peer = (const void *)BPF_CORE_READ((const struct unix_sock *)sk, peer);
	return peer && refuse_unix_target(gen, subject, peer);
}

static __noinline bool refuse_unix(struct generation_ref *gen, const struct unix_sock *other)
{
	const struct subject_rules *subject;

	if (!gen)
		return 1;
	if (!relevant_actions(gen, 1U << GUARD_UNIX_CONNECT))
		return 0;
	subject = subject_rules(gen);
	if (!subject)
		return 1;
	return (subject->actions & (1U << GUARD_UNIX_CONNECT)) && refuse_unix_target(gen, subject, other);
}

#endif
