/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Decides on connecting, sending, binding and listening: sockets of IPv4, IPv6 and vsock.
 */
#ifndef GUARD_DECISION_SOCKET_H
#define GUARD_DECISION_SOCKET_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "object/direction.h"
#include "object/endpoint.h"
#include "object/sockaddr.h"
#include "subject/cache.h"
#include "decision/endpoint.h"
#include "decision/unix.h"

#define OUTBOUND_ACTIONS (1U << GUARD_CONNECT | 1U << GUARD_SEND | 1U << GUARD_REPLY)

/* What is passed along with the data; 0: nothing. */
struct message {
	__u64 name, control, control_size;
	__u32 flags, pad;
};

static __noinline bool refuse_vsock(const struct generation_ref *gen, const struct subject_rules *subject,
				    struct socket *sock, __u64 name, bool sending)
{
	struct endpoint e = {};
	int named = read_address(sock, name, sending, &e);

	if (named == ADDRESS_OTHER_FAMILY || (!sending && named == ADDRESS_NONE))
		return 0;
	if (named == ADDRESS_NONE)
		read_vsock_peer(sock, &e);
	return guard_refuse(gen, subject, &e, 1U << GUARD_VSOCK);
}

/* sendmmsg(2) calls no hook for further messages to the same address, whatever control messages come with them. */
static __always_inline bool batch_follows(const struct socket *sock, const struct sock *sk, const struct message *m)
{
	return m->name && (m->flags & MSG_BATCH) && (!is_connection_oriented(sock) || sk->sk_protocol == IPPROTO_SCTP);
}

/* Families that send their data over IPv4 or IPv6 to a destination that only they know: RDS, PPP (L2TP), RxRPC,
 * KCM. */
static __always_inline bool ip_tunnelled_family(__u32 family)
{
	return family < 64 && ((1ULL << 21 | 1ULL << 24 | 1ULL << 33 | 1ULL << 41) >> family) & 1;
}

/* Decides on sending to the address of the message, or to the peer. A connected stream ignores the address, unless
 * it connects with it, and even then the data may go to the peer. */
static __noinline bool refuse_message(const struct generation_ref *gen, const struct subject_rules *subject,
				      struct socket *sock, const struct message *m, __u32 actions)
{
	struct sock *sk = sock->sk;
	struct endpoint e = {};
	bool connects, source_routed;
	int named = ADDRESS_NONE;

	if (!gen || !subject)
		return 1;
	if (!sk)
		return 0; /* nothing is sent through such a socket */
	if (ip_tunnelled_family(sk->__sk_common.skc_family)) {
		e.family = sk->__sk_common.skc_family;
		e.reason = GUARD_NO_ADDRESS;
		return guard_refuse(gen, subject, &e, actions & (1U << GUARD_SEND | 1U << GUARD_REPLY));
	}
	connects = m && (m->flags & MSG_FASTOPEN);
	source_routed = is_source_routed(sock) || has_open_datagram(sock, sk) ||
			(m && (guard_control_sets_route(m->control, m->control_size) || batch_follows(sock, sk, m)));
	if (m && m->name && (!is_connection_oriented(sock) || connects || sk->sk_protocol == IPPROTO_SCTP))
		named = read_address(sock, m->name, 1, &e);
	else
		read_address(sock, 0, 1, &e);
	if (named == ADDRESS_READ) {
		if (source_routed)
			e.reason = GUARD_NO_ADDRESS;
		if (guard_refuse(gen, subject, &e,
				 actions & (connects ? 1U << GUARD_SEND | 1U << GUARD_CONNECT : 1U << GUARD_SEND)))
			return 1;
		if (!is_connection_oriented(sock) || !sk->__sk_common.skc_dport)
			return 0;
	}
	if (!is_ip_socket(sk) && sk->__sk_common.skc_family != AF_SMC)
		return 0;
	read_peer(sock, &e);
	if (source_routed)
		e.reason = GUARD_NO_ADDRESS;
	return guard_refuse(gen, subject, &e,
			    actions & (is_connection_oriented(sock) ? 1U << socket_direction(sk) : 1U << GUARD_SEND));
}

#define SEND_ACTIONS (OUTBOUND_ACTIONS | 1U << GUARD_VSOCK | 1U << GUARD_UNIX_CONNECT)

/* The kernel sends on behalf of a task, for example to a file server, through its own sockets. SMC that falls back
 * to TCP puts such a socket into the task's file; the inode of that file belongs to another socket. */
static __always_inline bool is_kernel_socket(const struct socket *sock, const struct sock *sk)
{
	const struct inode *own = (const void *)sock + bpf_core_field_offset(struct socket_alloc, vfs_inode) -
				  bpf_core_field_offset(struct socket_alloc, socket);
	const struct file *file;

	if (!BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return 0;
	file = BPF_CORE_READ(sock, file);
	return !file || BPF_CORE_READ(file, f_inode) == own;
}

static __noinline bool refuse_sending(const struct generation_ref *gen, struct socket *sock, const struct message *m,
				      __u32 actions)
{
	const struct subject_rules *subject;
	struct sock *sk;

	if (!gen)
		return 1;
	if (gen->slot >= GUARD_SLOTS)
		return 0;
	subject = subject_rules(gen);
	if (!subject)
		return 1;
	actions &= subject->actions;
	sk = sock->sk;
	if (!actions || !sk || is_kernel_socket(sock, sk))
		return 0;
	switch (sk->__sk_common.skc_family) {
	case AF_UNIX:
		return (actions & (1U << GUARD_UNIX_CONNECT)) && refuse_unix_peer(gen, subject, sock);
	case AF_VSOCK:
		return (actions & (1U << GUARD_VSOCK)) && refuse_vsock(gen, subject, sock, m ? m->name : 0, 1);
	}
	return (actions & OUTBOUND_ACTIONS) && refuse_message(gen, subject, sock, m, actions & OUTBOUND_ACTIONS);
}

/* Before 6.5 sendfile(2) and splice(2) into a socket call only the hook file_permission. */
static __always_inline bool refuse_socket_file(const struct generation_ref *gen, struct file *file, __u32 actions)
{
	struct socket *sock;

	if (!bpf_core_field_exists(((struct proto_ops *)0)->sendpage) || (file->f_inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	sock = bpf_sock_from_file(file);
	return sock && refuse_sending(gen, sock, 0, actions);
}

static __noinline bool refuse_connect(const struct generation_ref *gen, struct socket *sock, __u64 name, __u32 actions,
				      bool marked)
{
	struct sock *sk = sock->sk;
	const struct subject_rules *subject = 0;
	struct endpoint e = {};
	bool vsock;

	if (!gen)
		return 1;
	if (gen->slot >= GUARD_SLOTS || !sk)
		return 0;
	vsock = sk->__sk_common.skc_family == AF_VSOCK;
	/* On a cache miss, resolve the subject first so that the next call hits the cache. */
	if (!gen->cred_version || vsock) {
		subject = subject_rules(gen);
		if (!subject)
			return 1;
		actions &= subject->actions;
	}
	if (vsock)
		return (actions & (1U << GUARD_VSOCK)) && refuse_vsock(gen, subject, sock, name, 0);
	if (!(actions & OUTBOUND_ACTIONS) || read_address(sock, name, 0, &e) != ADDRESS_READ)
		return 0;
	if (marked) {
		actions &= 1U << GUARD_CONNECT;
		if (!actions)
			return 0;
		if (is_source_routed(sock))
			e.reason = GUARD_NO_ADDRESS;
	} else {
		/* Without a role, data sent later would count as a reply. */
		e.reason = GUARD_NO_ADDRESS;
	}
	actions &= OUTBOUND_ACTIONS & cached_endpoint_actions(gen, &e);
	if (!actions)
		return 0;
	if (!subject) {
		subject = subject_rules(gen);
		if (!subject)
			return 1;
		actions &= subject->actions;
	}
	return guard_refuse(gen, subject, &e, actions);
}

static __noinline bool refuse_own(struct socket *sock, __u64 name, __u32 action)
{
	struct endpoint e = {};
	const struct subject_rules *subject;
	struct sock *sk;
	struct generation_ref gen;

	if (!active_generation(&gen) || !relevant_actions(&gen, 1U << (action & 31)))
		return 0;
	subject = subject_rules(&gen);
	if (!subject)
		return 1;
	sk = sock->sk;
	if (!(subject->actions & (1U << (action & 31))) || !sk)
		return 0;
	if (name) {
		if (read_address(sock, name, 0, &e) != ADDRESS_READ)
			return 0;
		if (e.family == AF_VSOCK)
			return 0;
		e.own = 1;
	} else {
		if (!is_ip_socket(sk) && sk->__sk_common.skc_family != AF_SMC)
			return 0;
		read_own(sock, &e);
	}
	return guard_refuse(&gen, subject, &e, 1U << (action & 31));
}

#define BINDX_ADD 100
#define CONNECTX 110
#define PRIMARY_ADDRESS 6
#define PEER_ADDS_ADDRESS 0xc001 /* and above: requested by the peer, in the context of an unrelated task */
#define MAX_ADDRESSES 16

/* Decides on an array of addresses: IPv4 takes 16 bytes, IPv6 28. Addresses beyond MAX_ADDRESSES count as unknown. */
static __noinline bool refuse_addresses(struct sock *sk, __u64 at, __u32 size, __u32 action)
{
	struct guard_sockaddr a = {};
	struct endpoint e = {};
	const struct subject_rules *subject;
	struct generation_ref gen;
	__u32 i, length;

	if (!active_generation(&gen))
		return 0;
	subject = subject_rules(&gen);
	if (!subject)
		return 1;
	if (!(subject->actions & (1U << (action & 31))))
		return 0;
	e.protocol = IPPROTO_SCTP;
	e.own = action == GUARD_BIND;
	for (i = 0; i < MAX_ADDRESSES; i++) {
		if (!size)
			return 0;
		e.reason = GUARD_NO_ADDRESS;
		length = size;
		if (!bpf_probe_read_kernel(&a, sizeof(a), (const void *)at)) {
			if (a.family == AF_INET || a.family == AF_INET6) {
				length = a.family == AF_INET ? 16 : 28;
				__builtin_memset(e.address, 0, sizeof(e.address));
				read_ip(&a, a.family, &e);
				e.port = bpf_ntohs(a.port);
				e.reason = GUARD_BY_RULE;
			}
		}
		if (length > size)
			length = size;
		if (guard_refuse(&gen, subject, &e, 1U << (action & 31)))
			return 1;
		at += length;
		size -= length;
	}
	e.reason = GUARD_NO_ADDRESS;
	return size && guard_refuse(&gen, subject, &e, 1U << (action & 31));
}

#endif
