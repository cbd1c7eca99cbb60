/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on sockets of IPv4, IPv6 and vsock: making one, connecting, sending, waiting for connections.
 */
#ifndef GUARD_SOCKET_H
#define GUARD_SOCKET_H

#define OUTWARD (1U << GUARD_CONNECT | 1U << GUARD_SEND | 1U << GUARD_REPLY)

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

	barrier_var(type);	/* one read */
	if (type == SOCK_RAW)
		return 0;
	switch (protocol) {
	case IPPROTO_TCP: case IPPROTO_UDP: case IPPROTO_DCCP: case IPPROTO_SCTP: case IPPROTO_UDPLITE:
		return bpf_ntohs(port);
	}
	return type == SOCK_DGRAM ? 0 : bpf_ntohs(port);
}

/* What a socket of the family takes an address of no family for; AF_UNSPEC: for no address. */
static __always_inline __u32 family_taken(const struct socket *sock, __u32 protocol, __u32 family)
{
	if (family != AF_INET6 || sock->type == SOCK_RAW)
		return family;
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ? AF_UNSPEC : family;
}

static __always_inline void read_internet(const struct guard_sockaddr *a, __u32 family, struct endpoint *e)
{
	e->family = family;
	if (family == AF_INET)
		__builtin_memcpy(e->address, a->ipv4, 4);
	else
		__builtin_memcpy(e->address, a->ipv6, 16);
	unmap(e);
}

enum named { UNNAMED, NAMED, ELSEWHERE };

/* The address that came with a call. ELSEWHERE: it is none of IPv4, IPv6 or vsock. Of an address that can't be read,
 * *e says so. */
static __noinline int read_name(struct socket *sock, __u64 name, bool sending, struct endpoint *e)
{
	struct guard_sockaddr a;
	struct sock *sk = sock->sk;
	__u32 family, given;

	if (!e || !sk)
		return UNNAMED;
	family = sk->__sk_common.skc_family;
	e->protocol = protocol_of(sk);
	e->family = family;
	e->reason = GUARD_BY_RULE;
	if (!name)
		return UNNAMED;
	if (bpf_probe_read_kernel(&a, sizeof(a), (const void *)name)) {
		e->reason = GUARD_NO_ADDRESS;
		return NAMED;
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
		return NAMED;
	}
	if (given == AF_UNSPEC && internet(sk)) {
		given = sending ? family_taken(sock, e->protocol, family) : family == AF_INET ? AF_INET : AF_UNSPEC;
		if (given == AF_UNSPEC)
			return UNNAMED;
	}
	if (given == AF_INET || given == AF_INET6) {
		read_internet(&a, given, e);
		e->port = port_of(sock, e->protocol, a.port);
		return NAMED;
	}
	if (!internet(sk))
		return ELSEWHERE;
	e->reason = GUARD_NO_ADDRESS;
	return NAMED;
}

/* The other side of a connected socket; what is not connected can't be told: it may be by the time it sends. */
static __noinline void read_peer(struct socket *sock, struct endpoint *e)
{
	struct sock *sk = sock->sk;

	if (!e || !sk)
		return;
	e->reason = GUARD_NO_ADDRESS;
	if (!internet(sk))
		return;
	/* a connection keeps its port to its end; a datagram socket may be connected without one, as for ICMP */
	if (has_connections(sock) ? !sk->__sk_common.skc_dport : sk->__sk_common.skc_state != SOCK_ESTABLISHED)
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
	unmap(e);
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
	unmap(e);
}

/* ---- what sends a packet elsewhere than its address says ----------------------------------------------------------- */

/* A source route among the socket's options, or headers that the task writes itself. */
static __noinline bool rerouted(struct socket *sock)
{
	struct sock *sk = sock->sk;
	const struct inet_sock *inet = (const void *)sk;
	const struct ipv6_txoptions *more;
	const struct ip_options_rcu *options;
	const struct ipv6_pinfo *v6;

	if (!sk || !internet(sk))
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
	more = v6 ? BPF_CORE_READ(v6, opt) : 0;
	return more && BPF_CORE_READ(more, srcrt);
}

static __always_inline bool reroutes(int level, int name)
{
	switch (level) {
	case IPPROTO_IP:	/* IP_HDRINCL, IP_OPTIONS, IP_RETOPTS */
		return name == 3 || name == 4 || name == 7;
	case IPPROTO_IPV6:	/* of 2292: routing header, packet options; flow labels with options, HDRINCL, routing header */
		return name == 5 || name == 6 || name == 32 || name == 36 || name == 57;
	}
	return 0;
}

#define CONTROLS 16

/* The same in what comes along with a message; more of it than anyone sends counts as such. */
int guard_control(__u64 control, __u64 size)
{
	struct guard_cmsghdr c;
	__u16 flags = 0;
	__u64 at = 0;
	__u32 i;

	if (!control)
		return 0;
	for (i = 0; i < CONTROLS; i++) {
		if (at + sizeof(c) > size)
			return 0;
		if (bpf_probe_read_kernel(&c, sizeof(c), (const void *)(control + at)) || c.length < sizeof(c))
			return 1;
		if (reroutes(c.level, c.type))
			return 1;
		if (c.level == IPPROTO_SCTP) {
			/* more addresses; or, by a flag of SNDRCV or SNDINFO, to every association there is */
			if (c.type == 7 || c.type == 8)
				return 1;
			if (c.type == 1 || c.type == 2) {
				if (bpf_probe_read_kernel(&flags, sizeof(flags),
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

/* ---- sending ------------------------------------------------------------------------------------------------------- */

/* what comes with the data; 0: nothing does */
struct message {
	__u64 name, control, control_size;
	__u32 flags, pad;
};

/* The peer of a vsock socket. Its type is in the module's type information, which need not be there when we are loaded:
 * both addresses have always stood behind the transport, and must look like addresses. */
static __noinline void read_vsock_peer(struct socket *sock, struct endpoint *e)
{
	__u64 at = number(sock->sk) + bpf_core_type_size(struct sock) + sizeof(void *);
	struct guard_sockaddr_vm vm[2] = {};	/* own, peer */
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
		return 0;	/* as refuse_sending has it: nothing is sent through such a one */
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
		if (guard_refuse(v, b, &e, actions & (connects ? 1U << GUARD_SEND | 1U << GUARD_CONNECT :
								   1U << GUARD_SEND)))
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
	v = seen;	/* on the stack only from here on */
	if ((actions & SENDING) && refuse_sending(&v, sock, &m, actions & SENDING))
		return -EPERM;
	return answer(refuse_carrying_by(&v, sock));
}

/* Before 6.5 sendfile(2) and splice(2) into a socket come by no other hook than file_permission. */
static __always_inline bool refuse_socket_file(const struct view *v, struct file *file, __u32 actions)
{
	struct socket *sock;

	if (!bpf_core_field_exists(((struct proto_ops *)0)->sendpage) ||
	    (file->f_inode->i_mode & S_IFMT) != S_IFSOCK)
		return 0;
	sock = bpf_sock_from_file(file);
	return sock && refuse_sending(v, sock, 0, actions);
}

/* ---- connecting ---------------------------------------------------------------------------------------------------- */

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
			return 0;	/* takes the connection away */
		if (has_connections(sock))
			marked = mark_connecting(sk);
	}
	if (!actions)
		return 0;
	v = seen;	/* on the stack only from here on */
	return answer(refuse_connect(&v, sock, number_of(address), actions, marked));
}

/* ---- the socket's own address -------------------------------------------------------------------------------------- */

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

#define BINDX_ADD 100
#define CONNECTX 110
#define PRIMARY_ADDRESS 6
#define PEER_ADDS_ADDRESS 0xc001	/* and above: what the peer asks for, whoever runs just then */
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
	return answer((family == AF_INET || family == AF_INET6) && type == SOCK_RAW && refuse_action(&v, GUARD_RAW_SOCKET, 1));
}

#endif
