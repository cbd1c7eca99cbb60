/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The endpoint in the arguments of a socket call, or of a socket; and options that route a packet around its address.
 */
#ifndef GUARD_OBJECT_SOCKADDR_H
#define GUARD_OBJECT_SOCKADDR_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "object/direction.h"
#include "object/endpoint.h"

static __always_inline __u32 protocol_of(struct sock *sk)
{
	__u32 protocol = sk->sk_protocol;

	if (protocol == IPPROTO_MPTCP || protocol == IPPROTO_SMC || sk->__sk_common.skc_family == AF_SMC)
		return IPPROTO_TCP;
	return protocol;
}

/* A raw socket writes its ports itself, and ICMP has none. */
static __always_inline __u32 port_of(const struct socket *sock, __u32 protocol, __be16 port)
{
	int type = sock->type;

	barrier_var(type); /* one read */
	if (type == SOCK_RAW)
		return 0;
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_DCCP:
	case IPPROTO_SCTP:
	case IPPROTO_UDPLITE:
		return bpf_ntohs(port);
	}
	return type == SOCK_DGRAM ? 0 : bpf_ntohs(port);
}

/* The family that the kernel assumes for an address of AF_UNSPEC. Returns AF_UNSPEC if it ignores the address. */
static __always_inline __u32 effective_family(const struct socket *sock, __u32 protocol, __u32 family)
{
	if (family != AF_INET6 || sock->type == SOCK_RAW)
		return family;
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ? AF_UNSPEC : family;
}

static __always_inline void read_ip(const struct guard_sockaddr *a, __u32 family, struct endpoint *e)
{
	e->family = family;
	if (family == AF_INET)
		__builtin_memcpy(e->address, a->ipv4, 4);
	else
		__builtin_memcpy(e->address, a->ipv6, 16);
	unmap_ipv4(e);
}

enum address_kind { ADDRESS_NONE, ADDRESS_READ, ADDRESS_OTHER_FAMILY };

/* Reads the address that was passed to a call. Returns ADDRESS_OTHER_FAMILY if it is not IPv4, IPv6 or vsock. If it
 * cannot be read, e->reason says so. */
static __noinline int read_address(struct socket *sock, __u64 name, bool sending, struct endpoint *e)
{
	struct guard_sockaddr a;
	struct sock *sk = sock->sk;
	__u32 family, given;

	if (!e || !sk)
		return ADDRESS_NONE;
	family = sk->__sk_common.skc_family;
	e->protocol = protocol_of(sk);
	e->family = family;
	e->reason = GUARD_BY_RULE;
	if (!name)
		return ADDRESS_NONE;
	if (bpf_probe_read_kernel(&a, sizeof(a), (const void *)name)) {
		e->reason = GUARD_NO_ADDRESS;
		return ADDRESS_READ;
	}
	given = a.family;
	if (given == AF_VSOCK && family == AF_VSOCK) {
		struct guard_sockaddr_vm vm;
		__u32 cid;

		if (bpf_probe_read_kernel(&vm, sizeof(vm), (const void *)name))
			e->reason = GUARD_NO_ADDRESS;
		cid = bpf_htonl(vm.cid);
		__builtin_memcpy(e->address, &cid, 4);
		e->port = vm.port;
		return ADDRESS_READ;
	}
	if (given == AF_UNSPEC && is_ip_socket(sk)) {
		given = sending ? effective_family(sock, e->protocol, family) : family == AF_INET ? AF_INET : AF_UNSPEC;
		if (given == AF_UNSPEC)
			return ADDRESS_NONE;
	}
	if (given == AF_INET || given == AF_INET6) {
		read_ip(&a, given, e);
		e->port = port_of(sock, e->protocol, a.port);
		return ADDRESS_READ;
	}
	if (!is_ip_socket(sk))
		return ADDRESS_OTHER_FAMILY;
	e->reason = GUARD_NO_ADDRESS;
	return ADDRESS_READ;
}

/* Reads the peer of a connected socket. The peer of an unconnected socket is unknown: it may be connected by the
 * time it sends. */
static __noinline void read_peer(struct socket *sock, struct endpoint *e)
{
	struct sock *sk = sock->sk;

	if (!e || !sk)
		return;
	e->reason = GUARD_NO_ADDRESS;
	if (!is_ip_socket(sk))
		return;
	/* A connection keeps its port until it ends. A datagram socket may be connected without a port, as for
	 * ICMP. */
	if (is_connection_oriented(sock) ? !sk->__sk_common.skc_dport : sk->__sk_common.skc_state != SOCK_ESTABLISHED)
		return;
	e->family = sk->__sk_common.skc_family;
	__builtin_memset(e->address, 0, sizeof(e->address));
	if (e->family == AF_INET) {
		__u32 address = sk->__sk_common.skc_daddr;

		__builtin_memcpy(e->address, &address, 4);
	} else {
		BPF_CORE_READ_INTO(&e->address, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	}
	e->port = port_of(sock, e->protocol, sk->__sk_common.skc_dport);
	e->reason = GUARD_BY_RULE;
	unmap_ipv4(e);
}

static __noinline void read_own(struct socket *sock, struct endpoint *e)
{
	struct sock *sk = sock->sk;

	if (!e || !sk)
		return;
	e->own = 1;
	e->protocol = protocol_of(sk);
	e->family = sk->__sk_common.skc_family;
	if (e->family == AF_INET) {
		__u32 address = sk->__sk_common.skc_rcv_saddr;

		__builtin_memcpy(e->address, &address, 4);
	} else if (e->family == AF_INET6) {
		BPF_CORE_READ_INTO(&e->address, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
	} else {
		e->reason = GUARD_NO_ADDRESS;
	}
	e->port = sk->__sk_common.skc_num;
	unmap_ipv4(e);
}

/* A flow label may come with a routing header, and the address of a message may name the label. */
static __always_inline bool has_flow_labels(const struct inet_sock *inet, const struct ipv6_pinfo___612 *older)
{
	if (bpf_core_field_exists(inet->ipv6_fl_list))
		return BPF_CORE_READ(inet, ipv6_fl_list);
	return BPF_CORE_READ(older, ipv6_fl_list);
}

/* True if a source route is among the socket's options, or if the task writes the headers itself. */
static __noinline bool is_source_routed(struct socket *sock)
{
	struct sock *sk = sock->sk;
	const struct inet_sock *inet = (const void *)sk;
	const struct ipv6_txoptions *more;
	const struct ip_options_rcu *options;
	const struct ipv6_pinfo *v6;

	if (!sk || !is_ip_socket(sk))
		return 0;
	if (sock->type == SOCK_RAW) {
		const struct inet_sock___61 *older = (const void *)inet;

		if (bpf_core_field_exists(inet->inet_flags)) {
			if (BPF_CORE_READ(inet, inet_flags) & (1UL << INET_FLAGS_HDRINCL))
				return 1;
		} else if (BPF_CORE_READ_BITFIELD_PROBED(older, hdrincl)) {
			return 1;
		}
	}
	options = BPF_CORE_READ(inet, inet_opt);
	if (options && BPF_CORE_READ(options, opt.srr))
		return 1;
	if (sk->__sk_common.skc_family != AF_INET6)
		return 0;
	v6 = BPF_CORE_READ(inet, pinet6);
	if (!v6)
		return 0;
	if (has_flow_labels(inet, (const void *)v6))
		return 1;
	more = BPF_CORE_READ(v6, opt);
	return more && BPF_CORE_READ(more, srcrt);
}

/* True if a datagram waits to be completed (MSG_MORE, UDP_CORK): further data is appended to it, and the address that
 * is given with the data is ignored. */
static __always_inline bool has_open_datagram(const struct socket *sock, const struct sock *sk)
{
	return !is_connection_oriented(sock) && is_ip_socket(sk) && BPF_CORE_READ(sk, sk_write_queue.qlen);
}

static __always_inline bool sets_route(int level, int name)
{
	switch (level) {
	case IPPROTO_IP: /* IP_HDRINCL, IP_OPTIONS, IP_RETOPTS */
		return name == 3 || name == 4 || name == 7;
	case IPPROTO_IPV6: /* RFC 2292 routing header, packet options; flow label, HDRINCL, routing header */
		return name == 5 || name == 6 || name == 32 || name == 36 || name == 57;
	}
	return 0;
}

/* Options by which a socket joins a multicast group or names sources. The kernel announces the addresses to the
 * routers. The hook does not see the value, so that it may be any group, or any address if the option names sources.
 * An option that leaves a group or drops a source repeats an address that was announced before. */
static __always_inline __u32 announced_range(int level, int name)
{
	if (level == IPPROTO_IP) {
		switch (name) {
		case 35: /* IP_ADD_MEMBERSHIP */
		case 42: /* MCAST_JOIN_GROUP */
			return GUARD_GROUPS_IPV4;
		case 38: /* IP_BLOCK_SOURCE */
		case 39: /* IP_ADD_SOURCE_MEMBERSHIP */
		case 41: /* IP_MSFILTER */
		case 43: /* MCAST_BLOCK_SOURCE */
		case 46: /* MCAST_JOIN_SOURCE_GROUP */
		case 48: /* MCAST_MSFILTER */
			return GUARD_ALL_IPV4;
		}
	} else if (level == IPPROTO_IPV6) {
		switch (name) {
		case 20: /* IPV6_ADD_MEMBERSHIP */
		case 42: /* MCAST_JOIN_GROUP */
			return GUARD_GROUPS_IPV6;
		case 27: /* IPV6_JOIN_ANYCAST */
		case 43: /* MCAST_BLOCK_SOURCE */
		case 46: /* MCAST_JOIN_SOURCE_GROUP */
		case 48: /* MCAST_MSFILTER */
			return GUARD_ALL_IPV6;
		}
	}
	return GUARD_NO_RANGE;
}

/* The packets that announce are of IGMP or ICMPv6, which have no ports. */
static __always_inline void range_endpoint(__u32 range, struct endpoint *e)
{
	bool ipv4 = range == GUARD_GROUPS_IPV4 || range == GUARD_ALL_IPV4;

	e->reason = GUARD_BY_RULE;
	e->range = range;
	e->family = ipv4 ? AF_INET : AF_INET6;
	e->protocol = ipv4 ? IPPROTO_IGMP : IPPROTO_ICMPV6;
	if (range == GUARD_GROUPS_IPV4)
		e->address[0] = 224;
	if (range == GUARD_GROUPS_IPV6)
		e->address[0] = 0xff;
}

#define MAX_CONTROL_MESSAGES 16

/* The same for control messages. More of them than MAX_CONTROL_MESSAGES count as a route. */
int guard_control_sets_route(__u64 control, __u64 size)
{
	struct guard_cmsghdr c;
	__u16 flags = 0;
	__u64 at = 0;
	__u32 i;

	if (!control)
		return 0;
	for (i = 0; i < MAX_CONTROL_MESSAGES; i++) {
		if (at + sizeof(c) > size)
			return 0;
		if (bpf_probe_read_kernel(&c, sizeof(c), (const void *)(control + at)) || c.length < sizeof(c))
			return 1;
		if (sets_route(c.level, c.type))
			return 1;
		if (c.level == IPPROTO_SCTP) {
			/* More addresses; or a flag of SNDRCV or SNDINFO that sends to every association. */
			if (c.type == 7 || c.type == 8)
				return 1;
			if (c.type == 1 || c.type == 2) {
				if (bpf_probe_read_kernel(
					    &flags, sizeof(flags),
					    (const void *)(control + at + sizeof(c) + (c.type == 1 ? 4 : 2))))
					return 1;
				if (flags & 0x40)
					return 1;
			}
		}
		at += (c.length + 7) & ~7ULL;
	}
	return 1;
}

/* Reads the peer of a vsock socket. Its type is in the type information of a module, which need not be loaded yet.
 * Both addresses have always followed the transport, and are checked to look like addresses. */
static __noinline void read_vsock_peer(struct socket *sock, struct endpoint *e)
{
	__u64 at = ptr_to_u64(sock->sk) + bpf_core_type_size(struct sock) + sizeof(void *);
	struct guard_sockaddr_vm vm[2] = {}; /* own, peer */
	__u32 cid;

	if (!e)
		return;
	e->reason = GUARD_NO_ADDRESS;
	if (bpf_probe_read_kernel(&vm, sizeof(vm), (const void *)at) || vm[0].family != AF_VSOCK ||
	    vm[1].family != AF_VSOCK || vm[1].cid == ~0U)
		return;
	cid = bpf_htonl(vm[1].cid);
	__builtin_memcpy(e->address, &cid, 4);
	e->port = vm[1].port;
	e->reason = GUARD_BY_RULE;
}

#endif
