/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The direction of a connection: over one that this host opened it sends, over one that it accepted it replies.
 *
 * A listener gets a role in its socket storage, which the kernel clones to the sockets that it accepts. A socket that
 * ever connected is outgoing whatever else it does, so that listen(2) cannot change that. A socket without a role is
 * older than these programs, or its listener is. It replies if its port had a listener when they were attached, and
 * if it got the port from bind(2) or a listener, not by connecting. A connecting socket gets a role where it would
 * otherwise count as replying.
 */
#ifndef GUARD_OBJECT_DIRECTION_H
#define GUARD_OBJECT_DIRECTION_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"

static __always_inline bool add_socket_role(struct sock *sk, __u32 roles)
{
	struct socket_roles *s = bpf_sk_storage_get(&sockets, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!s)
		return 0;
	if (!(s->roles & roles))
		__sync_fetch_and_or(&s->roles, roles);
	return 1;
}

static __always_inline bool was_listened_on(__u32 port)
{
	__u32 index = port / 64;
	__u64 *word = bpf_map_lookup_elem(&listeners, &index);

	return word && (*word >> (port & 63)) & 1;
}

/* Stream, seqpacket and dccp sockets: no address comes with each message. */
static __always_inline bool is_connection_oriented(const struct socket *sock)
{
	int type = sock->type;

	barrier_var(type); /* one read */
	return type != SOCK_DGRAM && type != SOCK_RAW;
}

static __always_inline bool is_ip_socket(const struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6;
}

/* Returns false if the role could not be stored. */
static __always_inline bool record_connecting(struct sock *sk)
{
	__u32 port = sk->__sk_common.skc_num;

	if (sk->sk_protocol == IPPROTO_TCP && !(port && was_listened_on(port)) &&
	    !bpf_sk_storage_get(&sockets, sk, 0, 0))
		return 1;
	return add_socket_role(sk, ROLE_CONNECTING);
}

static __always_inline void record_listening(struct sock *sk)
{
	/* A connected socket cannot listen; trying does not end its connection. */
	if (sk->__sk_common.skc_state == SOCK_CLOSE || sk->__sk_common.skc_state == SOCK_LISTEN)
		add_socket_role(sk, ROLE_LISTENING);
}

static __always_inline __u32 socket_direction(struct sock *sk)
{
	struct socket_roles *s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	const struct inet_bind_bucket *bucket;
	__u32 roles = s ? s->roles : 0;

	if (roles)
		return roles & ROLE_CONNECTING ? GUARD_SEND : GUARD_REPLY;
	if (!was_listened_on(sk->__sk_common.skc_num))
		return GUARD_SEND;
	if (sk->sk_protocol == IPPROTO_MPTCP) /* the subflows below it hold the port */
		return GUARD_REPLY;
	if (sk->sk_protocol != IPPROTO_TCP)
		return GUARD_SEND;
	bucket = BPF_CORE_READ((const struct inet_connection_sock *)sk, icsk_bind_hash);
	return bucket && BPF_CORE_READ(bucket, fastreuse) >= 0 ? GUARD_REPLY : GUARD_SEND;
}

#endif
