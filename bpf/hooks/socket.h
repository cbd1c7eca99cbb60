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
	struct generation_ref peeked, gen;
	struct message m;
	struct sock *sk;
	__u32 flags, actions = 0;

	if (ret)
		return ret;
	flags = msg->msg_flags;
	if (peek_generation(&peeked))
		actions = relevant_actions(&peeked, SEND_ACTIONS | GUARD_DEPENDS_ON_LABELS);
	/* A connecting socket gets a role even if no rule applies. */
	if (!actions && !(flags & MSG_FASTOPEN))
		return 0;
	sk = sock->sk;
	m.flags = flags;
	m.pad = 0;
	m.name = msg->msg_namelen ? ptr_to_u64(msg->msg_name) : 0;
	m.control = ptr_to_u64(msg->msg_control);
	m.control_size = msg->msg_controllen;
	if (m.name && (m.flags & MSG_FASTOPEN) && sk && is_ip_socket(sk))
		record_connecting(sk);
	if (!actions)
		return 0;
	gen = peeked; /* on the stack only from here on */
	if ((actions & SEND_ACTIONS) && refuse_sending(&gen, sock, &m, actions & SEND_ACTIONS))
		return -EPERM;
	return deny_if(refuse_socket_send(&gen, sock));
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *sock, struct sockaddr *address, int length, int ret)
{
	struct generation_ref peeked, gen;
	bool marked = 1;
	__u32 actions = 0;
	struct sock *sk;

	if (ret)
		return ret;
	if (peek_generation(&peeked))
		actions = relevant_actions(&peeked, OUTBOUND_ACTIONS | 1U << GUARD_VSOCK);
	/* A connection gets a role even if no rule applies: a later policy may ask for its direction. */
	if (!actions && !is_connection_oriented(sock))
		return 0;
	sk = sock->sk;
	if (sk && is_ip_socket(sk)) {
		if (address->sa_family == AF_UNSPEC)
			return 0; /* dissolves the connection */
		if (is_connection_oriented(sock))
			marked = record_connecting(sk);
	}
	if (!actions)
		return 0;
	gen = peeked; /* on the stack only from here on */
	return deny_if(refuse_connect(&gen, sock, ptr_to_u64_trusted(address), actions, marked));
}

SEC("lsm/socket_bind")
int BPF_PROG(socket_bind, struct socket *sock, struct sockaddr *address, int length, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_own(sock, ptr_to_u64(address), GUARD_BIND));
}

SEC("lsm/socket_listen")
int BPF_PROG(socket_listen, struct socket *sock, int backlog, int ret)
{
	struct sock *sk = sock->sk;

	if (ret)
		return ret;
	if (refuse_own(sock, 0, GUARD_LISTEN))
		return -EPERM;
	if (sk && is_ip_socket(sk))
		record_listening(sk);
	return 0;
}

/* The new socket is empty; it will get the listener's role of the time at which the connection arrived. A listener
 * that is older than the programs gets its role here, for later connections. */
SEC("lsm/socket_accept")
int BPF_PROG(socket_accept, struct socket *sock, struct socket *new, int ret)
{
	struct sock *sk = sock->sk;

	if (ret)
		return ret;
	if (refuse_own(sock, 0, GUARD_ACCEPT))
		return -EPERM;
	if (sk && is_ip_socket(sk) && sk->__sk_common.skc_state == SOCK_LISTEN &&
	    !bpf_sk_storage_get(&sockets, sk, 0, 0))
		add_socket_role(sk, ROLE_LISTENING);
	return 0;
}

/* ---- SCTP calls besides connect and bind ---- */

SEC("lsm/sctp_bind_connect")
int BPF_PROG(sctp_bind_connect, struct sock *sk, int what, struct sockaddr *address, int size, int ret)
{
	if (ret)
		return ret;
	if (what >= PEER_ADDS_ADDRESS || size <= 0)
		return 0;
	if (what == BINDX_ADD)
		return deny_if(refuse_addresses(sk, ptr_to_u64(address), size, GUARD_BIND));
	if (what != PRIMARY_ADDRESS)
		record_connecting(sk);
	return deny_if(refuse_addresses(sk, ptr_to_u64(address), size, GUARD_CONNECT));
}

/* ---- options ---- */

SEC("lsm/socket_setsockopt")
int BPF_PROG(socket_setsockopt, struct socket *sock, int level, int name, int ret)
{
	struct endpoint e = { .reason = GUARD_NO_ADDRESS };
	__u32 range = announced_range(level, name), actions = OUTBOUND_ACTIONS;
	struct sock *sk = sock->sk;
	const struct subject_rules *subject;
	struct generation_ref gen;

	if (ret)
		return ret;
	if ((!range && !sets_route(level, name)) || !active_generation(&gen))
		return 0;
	subject = subject_rules(&gen);
	if (!subject)
		return -EPERM;
	if (range)
		actions = 1U << GUARD_SEND;
	actions &= subject->actions;
	if (!actions || !sk || (!is_ip_socket(sk) && sk->__sk_common.skc_family != AF_SMC))
		return 0;
	if (range) {
		range_endpoint(range, &e);
	} else {
		e.family = sk->__sk_common.skc_family;
		e.protocol = protocol_of(sk);
	}
	return deny_if(guard_refuse(&gen, subject, &e, actions));
}

/* ---- creating sockets ---- */

/* An action for the family, and one for raw sockets of IPv4 and IPv6. Sockets of the kernel itself are exempt. */
SEC("lsm/socket_create")
int BPF_PROG(socket_create, int family, int type, int protocol, int kern, int ret)
{
	__u32 action = GUARD_OTHER_SOCKET;
	struct generation_ref gen;

	if (ret)
		return ret;
	if (kern || !active_generation(&gen) || !relevant_actions(&gen, 1U << GUARD_PLAIN))
		return 0;
	if (family >= 0 && family < 64 && (GUARD_NAMED_FAMILIES >> family) & 1)
		action = GUARD_SOCKET + family;
	if (refuse_action(&gen, action, 1))
		return -EPERM;
	return deny_if((family == AF_INET || family == AF_INET6) && type == SOCK_RAW &&
		       refuse_action(&gen, GUARD_RAW_SOCKET, 1));
}

/* SCTP creates the accepted socket without cloning, so copy the role. */
SEC("lsm/sctp_sk_clone")
int BPF_PROG(sctp_sk_clone, void *association, struct sock *sk, struct sock *accepted)
{
	struct socket_roles *s = bpf_sk_storage_get(&sockets, sk, 0, 0);

	if (s)
		add_socket_role(accepted, s->roles);
	return 0;
}

#endif
