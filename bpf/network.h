/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on sockets: connect, send.
 */
#ifndef GUARD_NETWORK_H
#define GUARD_NETWORK_H

struct endpoint {
	__u32 family;		/* 0: neither IPv4 nor IPv6 */
	__u32 port;		/* host order */
	__u32 protocol;
	__u8 address[16];
};

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

static __always_inline bool read_address(const void *from, __u32 socket_family, bool unspecified_is_ipv4,
					 struct endpoint *e)
{
	struct guard_sockaddr a = {};

	if (bpf_probe_read_kernel(&a, sizeof(a), from))
		return 0;
	/* a datagram socket for IPv4 takes an address of no family for one of its own */
	if (a.family == AF_INET || (unspecified_is_ipv4 && a.family == AF_UNSPEC && socket_family == AF_INET)) {
		e->family = AF_INET;
		__builtin_memcpy(e->address, a.ipv4, 4);
	} else if (a.family == AF_INET6) {
		e->family = AF_INET6;
		__builtin_memcpy(e->address, a.ipv6, 16);
	} else {
		return 0;
	}
	e->port = bpf_ntohs(a.port);
	unmap(e);
	return 1;
}

static __always_inline bool read_peer(struct sock *sk, struct endpoint *e)
{
	if (sk->__sk_common.skc_state != SOCK_ESTABLISHED)
		return 0;
	e->family = sk->__sk_common.skc_family;
	if (e->family == AF_INET) {
		__u32 address = sk->__sk_common.skc_daddr;

		__builtin_memcpy(e->address, &address, 4);
	} else if (e->family == AF_INET6) {
		BPF_CORE_READ_INTO(&e->address, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	} else {
		return 0;
	}
	e->port = bpf_ntohs(sk->__sk_common.skc_dport);
	unmap(e);
	return 1;
}

/* The rules that cover an endpoint; -1 when a table is missing. */
int guard_reach(__u32 slot, const struct endpoint *e, struct guard_vector *covers)
{
	struct guard_ipv4_key key4 = { .prefixlen = 32 };
	struct guard_ipv6_key key6 = { .prefixlen = 128 };
	struct guard_port_key port = { .prefixlen = 16 };
	guard_u64 address, by_port = 0, protocol = 0, sets, *found;
	const struct guard_policy *p;
	struct guard_vector spared;
	__u32 zero = 0, i;
	void *table;

	if (!e || !covers)
		return -1;
	table = INNER_OF(policy, slot);
	if (!table)
		return -1;
	p = bpf_map_lookup_elem(table, &zero);
	if (!p)
		return -1;
	if (e->family == AF_INET) {
		table = INNER_OF(ipv4, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key4.address, e->address, 4);
		found = bpf_map_lookup_elem(table, &key4);
	} else {
		table = INNER_OF(ipv6, slot);
		if (!table)
			return -1;
		__builtin_memcpy(key6.address, e->address, 16);
		found = bpf_map_lookup_elem(table, &key6);
	}
	address = found ? *found : 0;
	/* a table is asked only when a set that is left has such a key */
	if ((p->any_address | address) & ~p->any_port) {
		table = INNER_OF(ports, slot);
		if (!table)
			return -1;
		port.port[0] = e->port >> 8;
		port.port[1] = e->port;
		found = bpf_map_lookup_elem(table, &port);
		by_port = found ? *found : 0;
	}
	if ((p->any_address | address) & (p->any_port | by_port) & ~p->any_protocol) {
		table = INNER_OF(ids, slot);
		if (!table)
			return -1;
		protocol = sets_of(table, GUARD_ID_PROTOCOL, e->protocol);
	}
	sets = guard_destination_sets(p, address, by_port, protocol);

	table = INNER_OF(destinations, slot);
	if (!table)
		return -1;
	__builtin_memset(covers, 0, sizeof(*covers));
	__builtin_memset(&spared, 0, sizeof(spared));
	for (i = 0; i < GUARD_SETS; i++) {
		const struct guard_destination *set;
		__u32 index = guard_lowest(sets);

		if (!sets)
			break;
		sets &= sets - 1;
		set = bpf_map_lookup_elem(table, &index);
		if (!set)
			return -1;
		guard_add(covers, &set->covers);
		guard_add(&spared, &set->spares);
	}
	for (i = 0; i < GUARD_WORDS; i++)
		covers->word[i] |= p->not_destinations.word[i] & ~spared.word[i];
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
	bool known;

	if (!v || !b || !e || !o)
		return 0;
	known = !guard_reach(v->slot, e, &covers);
	o->reason = known ? GUARD_BY_RULE : GUARD_BROKEN_MAP;
	return allowed(v, b, known ? &covers : 0, o);
}

static __always_inline __u32 protocol_of(struct sock *sk)
{
	__u32 protocol = sk->sk_protocol;

	return protocol == IPPROTO_MPTCP ? IPPROTO_TCP : protocol;
}

/* Where to: the address that came with the call, else, for what is sent, a connected datagram socket's peer. */
static __always_inline bool find_endpoint(struct socket *sock, const void *address, bool sending, struct endpoint *e)
{
	struct sock *sk = sock->sk;

	if (!sk)
		return 0;
	e->protocol = protocol_of(sk);
	if (address)
		return read_address(address, sk->__sk_common.skc_family, sending, e);
	return sending && sock->type == SOCK_DGRAM && read_peer(sk, e);
}

static __always_inline bool refuse_endpoint(struct socket *sock, const void *address, bool sending, __u32 actions)
{
	struct endpoint e = {};
	struct outcome o = {};
	const struct bound *b;
	struct view v;
	__u32 i;

	if (!see(&v))
		return 0;
	b = bound(&v);
	if (!b)
		return 1;
	actions &= b->actions;
	if (!actions || !find_endpoint(sock, address, sending, &e))
		return 0;
	for (i = GUARD_CONNECT; i <= GUARD_SEND; i++) {
		if (!(actions & (1U << i)))
			continue;
		o.action = i;
		if (!allowed_endpoint(&v, b, &e, &o) && tell_endpoint(&v, &o, &e))
			return 1;
	}
	return 0;
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *sock, struct sockaddr *address, int length, int ret)
{
	if (ret)
		return ret;
	if (refuse_endpoint(sock, address, 0, 1U << GUARD_CONNECT))
		return -EPERM;
	return 0;
}

/* An address with the data: unconnected, or TCP Fast Open, which connects here and nowhere else. */
SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	__u32 actions = 1U << GUARD_SEND;
	const void *name;

	if (ret)
		return ret;
	name = msg->msg_name;
	if (name && (msg->msg_flags & MSG_FASTOPEN))
		actions |= 1U << GUARD_CONNECT;
	if (refuse_endpoint(sock, name, 1, actions))
		return -EPERM;
	if (refuse_sending(sock)) {
		barrier();
		return -EPERM;
	}
	return 0;
}

#endif
