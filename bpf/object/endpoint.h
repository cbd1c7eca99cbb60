/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The endpoints of IPv4, IPv6 and vsock, and the destination sets that hold them.
 */
#ifndef GUARD_OBJECT_ENDPOINT_H
#define GUARD_OBJECT_ENDPOINT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "core/maps.h"

struct endpoint {
	__u32 family;
	__u32 port; /* host order; 0 if the protocol has none */
	__u32 protocol;
	__u32 reason;     /* GUARD_BY_RULE, or why the endpoint is unknown */
	__u32 own;        /* 1: a socket's own address; the unspecified address stands for every address */
	__u32 range;      /* not GUARD_NO_RANGE: some address of the range, which `address` begins */
	__u8 address[16]; /* for vsock: the context id, big endian */
} __attribute__((aligned(8)));

/* An IPv4-mapped IPv6 address counts as IPv4. */
static __always_inline void unmap_ipv4(struct endpoint *e)
{
	const __u32 *words = (const __u32 *)e->address;

	if (e->family != AF_INET6 || words[0] || words[1] || words[2] != bpf_htonl(0xffff))
		return;
	e->family = AF_INET;
	__builtin_memcpy(e->address, e->address + 12, 4);
	__builtin_memset(e->address + 4, 0, 12);
}

static __always_inline bool is_unspecified(const struct endpoint *e)
{
	const __u32 *words = (const __u32 *)e->address;

	return !(words[0] | words[1] | words[2] | words[3]);
}

/* The sets that contain every address of a prefix. */
static __always_inline int sets_of_address(__u32 slot, const struct endpoint *e, __u32 family, __u32 length,
					   guard_u64 *sets)
{
	guard_u64 *entry;
	void *table;

	if (family == AF_INET) {
		struct guard_ipv4_key key = { .prefixlen = length };

		table = INNER_OF(ipv4, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key.address, e->address, 4);
		entry = bpf_map_lookup_elem(table, &key);
	} else {
		struct guard_ipv6_key key = { .prefixlen = length };

		table = INNER_OF(ipv6, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key.address, e->address, 16);
		entry = bpf_map_lookup_elem(table, &key);
	}
	*sets = entry ? *entry : 0;
	return 0;
}

static __always_inline __u32 range_length(__u32 range)
{
	switch (range) {
	case GUARD_GROUPS_IPV4:
		return 4;
	case GUARD_GROUPS_IPV6:
		return 8;
	}
	return 0;
}

/* Destination sets that contain an endpoint: for rules that name them, and for rules that name them under `not`. */
struct matched_sets {
	guard_u64 plain, negated;
};

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
		guard_add(to, plain ? &set->covers : &set->exempts);
	}
	return 0;
}

/* The rules that name one of the sets, and the rules with `not` that name none of them. */
int guard_covering_rules(__u32 slot, const struct matched_sets *sets, struct guard_vector *covers)
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
	if (add_sets(table, sets->negated, 0, covers))
		return -1;
	for (i = 0; i < GUARD_WORDS; i++)
		covers->word[i] = p->not_destinations.word[i] & ~covers->word[i];
	return add_sets(table, sets->plain, 1, covers);
}

/* The sets that contain an endpoint. Returns -1 if a table is missing. */
int guard_match_endpoint(__u32 slot, const struct endpoint *e, struct matched_sets *sets)
{
	guard_u64 plain, negated, other, by_port = 0, protocol = 0, *entry;
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
		entry = bpf_map_lookup_elem(table, &vsock_key);
		sets->plain = sets->negated = entry ? *entry : 0;
		return 0;
	}
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	if (e->own && is_unspecified(e)) {
		/* Every address: a rule covers it if it names any address, and a rule with `not` exempts it only if
		 * it names every address. :: includes IPv4. */
		plain = ~0ULL;
		if (sets_of_address(slot, e, e->family, 0, &negated))
			return -1;
		if (e->family == AF_INET6) {
			if (sets_of_address(slot, e, AF_INET, 0, &other))
				return -1;
			negated &= other;
		}
	} else if (e->range) {
		/* A rule covers the range if it names any address of it, and a rule with `not` exempts it only if it
		 * names every address of it. */
		if (sets_of_address(slot, e, e->family, range_length(e->range), &negated))
			return -1;
		table = INNER_OF(ids, slot);
		if (!table)
			return -1;
		plain = sets_of(table, GUARD_ID_RANGE, e->range);
	} else {
		if (sets_of_address(slot, e, e->family, e->family == AF_INET ? 32 : 128, &plain))
			return -1;
		negated = plain;
	}
	/* Look a table up only if a remaining set has a key of that kind. */
	if ((p->any_address | plain) & ~p->any_port) {
		table = INNER_OF(ports, slot);
		if (!table)
			return -1;
		port.port[0] = e->port >> 8;
		port.port[1] = e->port;
		entry = bpf_map_lookup_elem(table, &port);
		by_port = entry ? *entry : 0;
	}
	if ((p->any_address | plain) & (p->any_port | by_port) & ~p->any_protocol) {
		table = INNER_OF(ids, slot);
		if (!table)
			return -1;
		protocol = sets_of(table, GUARD_ID_PROTOCOL, e->protocol);
	}
	sets->plain = guard_destination_sets(p, plain, by_port, protocol);
	sets->negated = guard_destination_sets(p, negated, by_port, protocol);
	return 0;
}

#endif
