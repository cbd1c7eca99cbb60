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

#define NAME_ROOM 128 /* an abstract name has at most 107 bytes, and no NUL at its end */

struct abstract {
	__u64 at;
	__u32 size;
	__u32 pad;
};

/* The automaton's state for an abstract name, up to a NUL in it. */
static __noinline void place_abstract(__u32 slot, const struct abstract *a, struct place *at)
{
	struct guard_superblock_key device = { .device = GUARD_ABSTRACT };
	char name[NAME_ROOM] = {};
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
	if (size >= NAME_ROOM || bpf_probe_read_kernel(name, size, (const void *)a->at))
		return;
	next = *start ? guard_step(slot, *start, number(name)) : 0;
	if (next < 0)
		return;
	at->state = next;
	at->reason = GUARD_BY_RULE;
}

static __noinline bool tell_abstract(const struct view *v, const struct outcome *o, const struct abstract *a)
{
	struct matter m = {};

	if (!v || !o || !a)
		return 1;
	describe(v, o, &m);
	m.device = GUARD_ABSTRACT;
	m.name = a->at;
	m.name_size = a->size;
	guard_tell(&m);
	return o->verdict == GUARD_DENY;
}

static __noinline bool allowed_place(const struct view *v, const struct bound *b, const struct place *at,
				     struct outcome *o)
{
	const struct guard_state *s = 0;

	if (!v || !b || !at || !o)
		return 0;
	o->action = GUARD_UNIX_CONNECT;
	o->reason = at->reason;
	if (at->reason == GUARD_BY_RULE) {
		s = state_of(v->slot, at->state);
		if (!s)
			o->reason = GUARD_BROKEN_MAP;
	}
	return allowed(v, b, s ? &s->covers : 0, o);
}

/* A socket without a name is nothing that a rule could cover: a pair's other half, or whoever connected to us. */
static __noinline bool refuse_other(const struct view *v, const struct bound *b, const struct unix_sock *other)
{
	const struct unix_address *address;
	struct abstract a = {};
	struct outcome o = {};
	struct place at = {};
	const struct dentry *d;

	if (!v || !b)
		return 1;
	d = BPF_CORE_READ(other, path.dentry);
	if (d) {
		guard_place(v->slot, number(d), &at);
		return !allowed_place(v, b, &at, &o) && tell_file(v, &o, d);
	}
	address = BPF_CORE_READ(other, addr);
	if (!address)
		return 0;
	/* before the name: the family, and the NUL that tells it from a path */
	a.size = BPF_CORE_READ(address, len) - 3;
	a.at = number(address) + bpf_core_field_offset(struct unix_address, name) + 3;
	place_abstract(v->slot, &a, &at);
	return !allowed_place(v, b, &at, &o) && tell_abstract(v, &o, &a);
}

/* Through a connection made before: a datagram socket has unix_may_send for it. */
static __noinline bool refuse_unix_peer(const struct view *v, const struct bound *b, struct socket *sock)
{
	const struct sock *sk = sock->sk;
	const struct unix_sock *peer;

	if (!sk || sock->type == SOCK_DGRAM)
		return 0;
	peer = (const void *)BPF_CORE_READ((const struct unix_sock *)sk, peer);
	return peer && refuse_other(v, b, peer);
}

static __noinline bool refuse_unix(struct view *v, const struct unix_sock *other)
{
	const struct bound *b;

	if (!v)
		return 1;
	if (!concerned(v, 1U << GUARD_UNIX_CONNECT))
		return 0;
	b = bound(v);
	if (!b)
		return 1;
	return (b->actions & (1U << GUARD_UNIX_CONNECT)) && refuse_other(v, b, other);
}

#endif
