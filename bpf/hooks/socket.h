/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on sockets of IPv4, IPv6 and vsock: making one, connecting, sending, waiting for connections.
 */
#ifndef GUARD_HOOKS_SOCKET_H
#define GUARD_HOOKS_SOCKET_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "object/direction.h"
#include "object/endpoint.h"
#include "object/sockaddr.h"
#include "subject/cache.h"
#include "decision/action.h"
#include "decision/endpoint.h"
#include "decision/socket.h"
#include "decision/verdict.h"
#include "label/flow.h"

SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	struct view seen, v;
	struct message m;
	struct sock *sk;
	__u32 flags, actions = 0;

	if (ret)
		return ret;
	flags = msg->msg_flags;
	if (glance(&seen))
		actions = concerned(&seen, SENDING | GUARD_KNOWS_LABELS);
	/* whatever connects is marked, bound or not */
	if (!actions && !(flags & MSG_FASTOPEN))
		return 0;
	sk = sock->sk;
	m.flags = flags;
	m.pad = 0;
	m.name = msg->msg_namelen ? number(msg->msg_name) : 0;
	m.control = number(msg->msg_control);
	m.control_size = msg->msg_controllen;
	if (m.name && (m.flags & MSG_FASTOPEN) && sk && internet(sk))
		mark_connecting(sk);
	if (!actions)
		return 0;
	v = seen; /* on the stack only from here on */
	if ((actions & SENDING) && refuse_sending(&v, sock, &m, actions & SENDING))
		return -EPERM;
	return answer(refuse_carrying_by(&v, sock));
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *sock, struct sockaddr *address, int length, int ret)
{
	struct view seen, v;
	bool marked = 1;
	__u32 actions = 0;
	struct sock *sk;

	if (ret)
		return ret;
	if (glance(&seen))
		actions = concerned(&seen, OUTWARD | 1U << GUARD_VSOCK);
	/* whatever has connections is marked, bound or not: a later policy asks which side one is from */
	if (!actions && !has_connections(sock))
		return 0;
	sk = sock->sk;
	if (sk && internet(sk)) {
		if (address->sa_family == AF_UNSPEC)
			return 0; /* takes the connection away */
		if (has_connections(sock))
			marked = mark_connecting(sk);
	}
	if (!actions)
		return 0;
	v = seen; /* on the stack only from here on */
	return answer(refuse_connect(&v, sock, number_of(address), actions, marked));
}

SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *sock, struct sockaddr *address, int length, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_own(sock, number(address), GUARD_BIND));
}

SEC("lsm/socket_listen")
int BPF_PROG(socket_listen, struct socket *sock, int backlog, int ret)
{
	struct sock *sk = sock->sk;

	if (ret)
		return ret;
	if (refuse_own(sock, 0, GUARD_LISTEN))
		return -EPERM;
	if (sk && internet(sk))
		mark_listening(sk);
	return 0;
}

/* The new socket has nothing in it yet. What it will get has the listener's mark from when the connection came; a
 * listener older than we are is marked here, for those to come. */
SEC("lsm/socket_accept")
int BPF_PROG(socket_accept, struct socket *sock, struct socket *new, int ret)
{
	struct sock *sk = sock->sk;

	if (ret)
		return ret;
	if (refuse_own(sock, 0, GUARD_ACCEPT))
		return -EPERM;
	if (sk && internet(sk) && sk->__sk_common.skc_state == SOCK_LISTEN && !bpf_sk_storage_get(&sockets, sk, 0, 0))
		mark(sk, SEEN_LISTENING);
	return 0;
}

/* ---- SCTP's ways beside connect and bind --------------------------------------------------------------------------- */

SEC("lsm/sctp_bind_connect")
int BPF_PROG(sctp_bind_connect, struct sock *sk, int what, struct sockaddr *address, int size, int ret)
{
	if (ret)
		return ret;
	if (what >= PEER_ADDS_ADDRESS || size <= 0)
		return 0;
	if (what == BINDX_ADD)
		return answer(refuse_addresses(sk, number(address), size, GUARD_BIND));
	if (what != PRIMARY_ADDRESS)
		mark_connecting(sk);
	return answer(refuse_addresses(sk, number(address), size, GUARD_CONNECT));
}

/* ---- options ------------------------------------------------------------------------------------------------------- */

SEC("lsm/socket_setsockopt")
int BPF_PROG(socket_setsockopt, struct socket *sock, int level, int name, int ret)
{
	struct endpoint e = { .reason = GUARD_NO_ADDRESS };
	struct sock *sk = sock->sk;
	const struct bound *b;
	struct view v;

	if (ret)
		return ret;
	if (!reroutes(level, name) || !see(&v))
		return 0;
	b = bound(&v);
	if (!b)
		return -EPERM;
	if (!(b->actions & OUTWARD) || !sk || (!internet(sk) && sk->__sk_common.skc_family != AF_SMC))
		return 0;
	e.family = sk->__sk_common.skc_family;
	e.protocol = protocol_of(sk);
	return answer(guard_refuse(&v, b, &e, b->actions & OUTWARD));
}

/* ---- sockets as such ----------------------------------------------------------------------------------------------- */

/* A family by its name, and raw sockets on top of IPv4's and IPv6's. The kernel's own are nobody's. */
SEC("lsm/socket_create")
int BPF_PROG(socket_create, int family, int type, int protocol, int kern, int ret)
{
	__u32 action = GUARD_OTHER_SOCKET;
	struct view v;

	if (ret)
		return ret;
	if (kern || !see(&v) || !concerned(&v, 1U << GUARD_PLAIN))
		return 0;
	if (family >= 0 && family < 64 && (GUARD_NAMED_FAMILIES >> family) & 1)
		action = GUARD_SOCKET + family;
	if (refuse_action(&v, action, 1))
		return -EPERM;
	return answer((family == AF_INET || family == AF_INET6) && type == SOCK_RAW &&
		      refuse_action(&v, GUARD_RAW_SOCKET, 1));
}

/* SCTP makes the accepted socket anew. */
SEC("lsm/sctp_sk_clone")
int BPF_PROG(sctp_sk_clone, void *association, struct sock *sk, struct sock *accepted)
{
	struct socket_value *s = bpf_sk_storage_get(&sockets, sk, 0, 0);

	if (s)
		mark(accepted, s->seen);
	return 0;
}

#endif
