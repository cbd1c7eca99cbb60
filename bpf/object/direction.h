/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which side a connection is from: what this host connected, it sends through; what it accepted, it replies through.
 *
 * A listener is marked, and the kernel clones the mark to what it accepts. Whatever ever connected is outgoing, whatever
 * else it did, so that no call to listen(2) makes it another. A socket without a mark is older than these programs, or
 * came from a listener that is: it answers if its port was listened on at that time, and if it has that port from bind(2)
 * or a listener, not from connecting. A connecting socket gets its mark where else this would take it for an answer.
 */
#ifndef GUARD_OBJECT_DIRECTION_H
#define GUARD_OBJECT_DIRECTION_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"

static __always_inline bool mark(struct sock *sk, __u32 seen)
{
	struct socket_value *s = bpf_sk_storage_get(&sockets, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!s)
		return 0;
	if (!(s->seen & seen))
		__sync_fetch_and_or(&s->seen, seen);
	return 1;
}

static __always_inline bool was_listened_on(__u32 port)
{
	__u32 index = port / 64;
	__u64 *word = bpf_map_lookup_elem(&listeners, &index);

	return word && (*word >> (port & 63)) & 1;
}

/* Has no address of its own with each thing sent: stream, seqpacket, dccp. */
static __always_inline bool has_connections(const struct socket *sock)
{
	int type = sock->type;

	barrier_var(type); /* one read */
	return type != SOCK_DGRAM && type != SOCK_RAW;
}

static __always_inline bool internet(const struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6;
}

/* False: it should have been marked and could not be. */
static __always_inline bool mark_connecting(struct sock *sk)
{
	__u32 port = sk->__sk_common.skc_num;

	if (sk->sk_protocol == IPPROTO_TCP && !(port && was_listened_on(port)) &&
	    !bpf_sk_storage_get(&sockets, sk, 0, 0))
		return 1;
	return mark(sk, SEEN_CONNECTING);
}

static __always_inline void mark_listening(struct sock *sk)
{
	/* one that is connected can't listen, and would not stop being connected by trying */
	if (sk->__sk_common.skc_state == SOCK_CLOSE || sk->__sk_common.skc_state == SOCK_LISTEN)
		mark(sk, SEEN_LISTENING);
}

static __always_inline __u32 direction(struct sock *sk)
{
	struct socket_value *s = bpf_sk_storage_get(&sockets, sk, 0, 0);
	const struct inet_bind_bucket *bucket;
	__u32 seen = s ? s->seen : 0;

	if (seen)
		return seen & SEEN_CONNECTING ? GUARD_SEND : GUARD_REPLY;
	if (!was_listened_on(sk->__sk_common.skc_num))
		return GUARD_SEND;
	if (sk->sk_protocol == IPPROTO_MPTCP) /* its port is with the connections below it */
		return GUARD_REPLY;
	if (sk->sk_protocol != IPPROTO_TCP)
		return GUARD_SEND;
	bucket = BPF_CORE_READ((const struct inet_connection_sock *)sk, icsk_bind_hash);
	return bucket && BPF_CORE_READ(bucket, fastreuse) >= 0 ? GUARD_REPLY : GUARD_SEND;
}

#endif
