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

#define OUTWARD (1U << GUARD_CONNECT | 1U << GUARD_SEND | 1U << GUARD_REPLY)

/* what comes with the data; 0: nothing does */
struct message {
	__u64 name, control, control_size;
	__u32 flags, pad;
};

static __noinline bool refuse_vsock(const struct view *v, const struct bound *b, struct socket *sock, __u64 name,
				    bool sending)
{
	struct endpoint e = {};
	int named = read_name(sock, name, sending, &e);

	if (named == ELSEWHERE || (!sending && named == UNNAMED))
		return 0;
	if (named == UNNAMED)
		read_vsock_peer(sock, &e);
	return guard_refuse(v, b, &e, 1U << GUARD_VSOCK);
}

/* sendmmsg(2) asks no more for what it sends to the same address after this, whatever comes along with that. */
static __always_inline bool more_follow(const struct socket *sock, const struct sock *sk, const struct message *m)
{
	return m->name && (m->flags & MSG_BATCH) && (!has_connections(sock) || sk->sk_protocol == IPPROTO_SCTP);
}

/* Families whose data goes by IPv4 or IPv6 in the end, where to is known to nobody but them: RDS, PPP (L2TP), RxRPC, KCM. */
static __always_inline bool over_internet(__u32 family)
{
	return family < 64 && ((1ULL << 21 | 1ULL << 24 | 1ULL << 33 | 1ULL << 41) >> family) & 1;
}

/* To the address that comes with the message, or to the peer; a connected stream takes no address, unless it connects
 * with it, and that may still end at the peer. */
static __noinline bool refuse_message(const struct view *v, const struct bound *b, struct socket *sock,
				      const struct message *m, __u32 actions)
{
	struct sock *sk = sock->sk;
	struct endpoint e = {};
	bool connects, strays;
	int named = UNNAMED;

	if (!v || !b)
		return 1;
	if (!sk)
		return 0; /* as refuse_sending has it: nothing is sent through such a one */
	if (over_internet(sk->__sk_common.skc_family)) {
		e.family = sk->__sk_common.skc_family;
		e.reason = GUARD_NO_ADDRESS;
		return guard_refuse(v, b, &e, actions & (1U << GUARD_SEND | 1U << GUARD_REPLY));
	}
	connects = m && (m->flags & MSG_FASTOPEN);
	strays = rerouted(sock) || (m && (guard_control(m->control, m->control_size) || more_follow(sock, sk, m)));
	if (m && m->name && (!has_connections(sock) || connects || sk->sk_protocol == IPPROTO_SCTP))
		named = read_name(sock, m->name, 1, &e);
	else
		read_name(sock, 0, 1, &e);
	if (named == NAMED) {
		if (strays)
			e.reason = GUARD_NO_ADDRESS;
		if (guard_refuse(v, b, &e,
				 actions & (connects ? 1U << GUARD_SEND | 1U << GUARD_CONNECT : 1U << GUARD_SEND)))
			return 1;
		if (!has_connections(sock) || !sk->__sk_common.skc_dport)
			return 0;
	}
	if (!internet(sk) && sk->__sk_common.skc_family != AF_SMC)
		return 0;
	read_peer(sock, &e);
	if (strays)
		e.reason = GUARD_NO_ADDRESS;
	return guard_refuse(v, b, &e, actions & (has_connections(sock) ? 1U << direction(sk) : 1U << GUARD_SEND));
}

#define SENDING (OUTWARD | 1U << GUARD_VSOCK | 1U << GUARD_UNIX_CONNECT)

/* What the kernel sends on a task's behalf, as to a file server, goes through its own sockets. SMC that turns out to be
 * TCP puts such a one into the task's file, whose inode is another socket's. */
static __always_inline bool of_kernel(const struct socket *sock, const struct sock *sk)
{
	const struct inode *own = (const void *)sock + bpf_core_field_offset(struct socket_alloc, vfs_inode) -
				  bpf_core_field_offset(struct socket_alloc, socket);
	const struct file *file;

	if (!BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return 0;
	file = BPF_CORE_READ(sock, file);
	return !file || BPF_CORE_READ(file, f_inode) == own;
}

static __noinline bool refuse_sending(const struct view *v, struct socket *sock, const struct message *m, __u32 actions)
{
	const struct bound *b;
	struct sock *sk;

	if (!v)
		return 1;
	if (v->slot >= GUARD_SLOTS)
		return 0;
	b = bound(v);
	if (!b)
		return 1;
	actions &= b->actions;
	sk = sock->sk;
	if (!actions || !sk || of_kernel(sock, sk))
		return 0;
	switch (sk->__sk_common.skc_family) {
	case AF_UNIX:
		return (actions & (1U << GUARD_UNIX_CONNECT)) && refuse_unix_peer(v, b, sock);
	case AF_VSOCK:
		return (actions & (1U << GUARD_VSOCK)) && refuse_vsock(v, b, sock, m ? m->name : 0, 1);
	}
	return (actions & OUTWARD) && refuse_message(v, b, sock, m, actions & OUTWARD);
}

/* Before 6.5 sendfile(2) and splice(2) into a socket come by no other hook than file_permission. */
static __always_inline bool refuse_socket_file(const struct view *v, struct file *file, __u32 actions)
{
	struct socket *sock;

	if (!bpf_core_field_exists(((struct proto_ops *)0)->sendpage) || (file->f_inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	sock = bpf_sock_from_file(file);
	return sock && refuse_sending(v, sock, 0, actions);
}

static __noinline bool refuse_connect(const struct view *v, struct socket *sock, __u64 name, __u32 actions, bool marked)
{
	struct sock *sk = sock->sk;
	const struct bound *b = 0;
	struct endpoint e = {};
	bool vsock;

	if (!v)
		return 1;
	if (v->slot >= GUARD_SLOTS || !sk)
		return 0;
	vsock = sk->__sk_common.skc_family == AF_VSOCK;
	/* who it is comes first where that is not known yet, so that it is the next time */
	if (!v->stamp || vsock) {
		b = bound(v);
		if (!b)
			return 1;
		actions &= b->actions;
	}
	if (vsock)
		return (actions & (1U << GUARD_VSOCK)) && refuse_vsock(v, b, sock, name, 0);
	if (!(actions & OUTWARD) || read_name(sock, name, 0, &e) != NAMED)
		return 0;
	if (marked) {
		actions &= 1U << GUARD_CONNECT;
		if (!actions)
			return 0;
		if (rerouted(sock))
			e.reason = GUARD_NO_ADDRESS;
	} else {
		/* what is sent later could pass for an answer */
		e.reason = GUARD_NO_ADDRESS;
	}
	actions &= OUTWARD & covering(v, &e);
	if (!actions)
		return 0;
	if (!b) {
		b = bound(v);
		if (!b)
			return 1;
		actions &= b->actions;
	}
	return guard_refuse(v, b, &e, actions);
}

static __noinline bool refuse_own(struct socket *sock, __u64 name, __u32 action)
{
	struct endpoint e = {};
	const struct bound *b;
	struct sock *sk;
	struct view v;

	if (!see(&v) || !concerned(&v, 1U << (action & 31)))
		return 0;
	b = bound(&v);
	if (!b)
		return 1;
	sk = sock->sk;
	if (!(b->actions & (1U << (action & 31))) || !sk)
		return 0;
	if (name) {
		if (read_name(sock, name, 0, &e) != NAMED)
			return 0;
		if (e.family == AF_VSOCK)
			return 0;
		e.own = 1;
	} else {
		if (!internet(sk) && sk->__sk_common.skc_family != AF_SMC)
			return 0;
		read_own(sock, &e);
	}
	return guard_refuse(&v, b, &e, 1U << (action & 31));
}

#define BINDX_ADD 100
#define CONNECTX 110
#define PRIMARY_ADDRESS 6
#define PEER_ADDS_ADDRESS 0xc001 /* and above: what the peer asks for, whoever runs just then */
#define ADDRESSES 16

/* Several addresses, one behind the other: IPv4 takes 16 bytes of each, IPv6 28. More than anyone has can't be told. */
static __noinline bool refuse_addresses(struct sock *sk, __u64 at, __u32 size, __u32 action)
{
	struct guard_sockaddr a = {};
	struct endpoint e = {};
	const struct bound *b;
	struct view v;
	__u32 i, length;

	if (!see(&v))
		return 0;
	b = bound(&v);
	if (!b)
		return 1;
	if (!(b->actions & (1U << (action & 31))))
		return 0;
	e.protocol = IPPROTO_SCTP;
	e.own = action == GUARD_BIND;
	for (i = 0; i < ADDRESSES; i++) {
		if (!size)
			return 0;
		e.reason = GUARD_NO_ADDRESS;
		length = size;
		if (!bpf_probe_read_kernel(&a, sizeof(a), (const void *)at)) {
			if (a.family == AF_INET || a.family == AF_INET6) {
				length = a.family == AF_INET ? 16 : 28;
				__builtin_memset(e.address, 0, sizeof(e.address));
				read_internet(&a, a.family, &e);
				e.port = bpf_ntohs(a.port);
				e.reason = GUARD_BY_RULE;
			}
		}
		if (length > size)
			length = size;
		if (guard_refuse(&v, b, &e, 1U << (action & 31)))
			return 1;
		at += length;
		size -= length;
	}
	e.reason = GUARD_NO_ADDRESS;
	return size && guard_refuse(&v, b, &e, 1U << (action & 31));
}

#endif
