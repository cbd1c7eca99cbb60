/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where something goes, and the rules that cover it: endpoints of IPv4, IPv6 and vsock.
 */
#ifndef GUARD_NETWORK_H
#define GUARD_NETWORK_H

struct endpoint {
	__u32 family;
	__u32 port;		/* host order; 0 where the protocol has none */
	__u32 protocol;
	__u32 reason;		/* GUARD_BY_RULE, or why it can't be told where this is */
	__u32 own;		/* a socket's own address: the unspecified one stands for every one */
	__u32 pad;
	__u8 address[16];	/* of vsock: the context id, big endian */
} __attribute__((aligned(8)));

/* IPv4-mapped IPv6 is IPv4. */
static __always_inline void unmap(struct endpoint *e)
{
	const __u32 *words = (const __u32 *)e->address;

	if (e->family != AF_INET6 || words[0] || words[1] || words[2] != bpf_htonl(0xffff))
		return;
	e->family = AF_INET;
	__builtin_memcpy(e->address, e->address + 12, 4);
	__builtin_memset(e->address + 4, 0, 12);
}

static __always_inline bool unspecified(const struct endpoint *e)
{
	const __u32 *words = (const __u32 *)e->address;

	return !(words[0] | words[1] | words[2] | words[3]);
}

/* The sets that hold an address; with a length of 0, those that hold every address of the family. */
static __always_inline int sets_of_address(__u32 slot, const struct endpoint *e, __u32 family, __u32 length,
					   guard_u64 *sets)
{
	guard_u64 *found;
	void *table;

	if (family == AF_INET) {
		struct guard_ipv4_key key = { .prefixlen = length };

		table = INNER_OF(ipv4, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key.address, e->address, 4);
		found = bpf_map_lookup_elem(table, &key);
	} else {
		struct guard_ipv6_key key = { .prefixlen = length };

		table = INNER_OF(ipv6, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key.address, e->address, 16);
		found = bpf_map_lookup_elem(table, &key);
	}
	*sets = found ? *found : 0;
	return 0;
}

/* Destination sets that an endpoint is in: as far as rules name them plainly, and under `not`. */
struct reached { guard_u64 plain, spared; };

static __always_inline int add_sets(void *table, guard_u64 sets, bool plain, struct guard_vector *to)
{
	__u32 i;

	for (i = 0; i < GUARD_SETS; i++) {
		const struct guard_destination *set;
		__u32 index = guard_lowest(sets);

		if (!sets)
			break;
		sets &= sets - 1;
		set = bpf_map_lookup_elem(table, &index);
		if (!set)
			return -1;
		guard_add(to, plain ? &set->covers : &set->spares);
	}
	return 0;
}

/* The rules that name any of the sets plainly, and those that name none of them under `not`. */
int guard_cover(__u32 slot, const struct reached *sets, struct guard_vector *covers)
{
	const struct guard_policy *p;
	__u32 zero = 0, i;
	void *table;

	if (!sets || !covers)
		return -1;
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	table = INNER_OF(destinations, slot);
	if (!table)
		return -1;
	__builtin_memset(covers, 0, sizeof(*covers));
	if (add_sets(table, sets->spared, 0, covers))
		return -1;
	for (i = 0; i < GUARD_WORDS; i++)
		covers->word[i] = p->not_destinations.word[i] & ~covers->word[i];
	return add_sets(table, sets->plain, 1, covers);
}

/* The sets that hold an endpoint; -1 when a table is missing. */
int guard_reach(__u32 slot, const struct endpoint *e, struct reached *sets)
{
	guard_u64 plain, spared, other, by_port = 0, protocol = 0, *found;
	struct guard_vsock_key vsock_key = { .prefixlen = 64 };
	struct guard_port_key port = { .prefixlen = 16 };
	const struct guard_policy *p;
	__u32 zero = 0;
	void *table;

	if (!e || !sets)
		return -1;
	if (e->family == AF_VSOCK) {
		__u32 number = bpf_htonl(e->port);

		table = INNER_OF(vsock, slot);
		if (!table)
			return -1;
		__builtin_memcpy(vsock_key.cid, e->address, 4);
		__builtin_memcpy(vsock_key.port, &number, 4);
		found = bpf_map_lookup_elem(table, &vsock_key);
		sets->plain = sets->spared = found ? *found : 0;
		return 0;
	}
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	if (e->own && unspecified(e)) {
		/* every address: touches whatever a rule names, and is spared where every one is; :: takes IPv4, too */
		plain = ~0ULL;
		if (sets_of_address(slot, e, e->family, 0, &spared))
			return -1;
		if (e->family == AF_INET6) {
			if (sets_of_address(slot, e, AF_INET, 0, &other))
				return -1;
			spared &= other;
		}
	} else {
		if (sets_of_address(slot, e, e->family, e->family == AF_INET ? 32 : 128, &plain))
			return -1;
		spared = plain;
	}
	/* a table is asked only when a set that is left has such a key */
	if ((p->any_address | plain) & ~p->any_port) {
		table = INNER_OF(ports, slot);
		if (!table)
			return -1;
		port.port[0] = e->port >> 8;
		port.port[1] = e->port;
		found = bpf_map_lookup_elem(table, &port);
		by_port = found ? *found : 0;
	}
	if ((p->any_address | plain) & (p->any_port | by_port) & ~p->any_protocol) {
		table = INNER_OF(ids, slot);
		if (!table)
			return -1;
		protocol = sets_of(table, GUARD_ID_PROTOCOL, e->protocol);
	}
	sets->plain = guard_destination_sets(p, plain, by_port, protocol);
	sets->spared = guard_destination_sets(p, spared, by_port, protocol);
	return 0;
}

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
	struct guard_vector covers = {};	/* 6.1 lets no function fill what is not */
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
	struct view here;	/* 6.1 takes no key from what a global function was given */
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
