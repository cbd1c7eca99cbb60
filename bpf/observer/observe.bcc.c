/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The observer's programs that BCC compiles on the host: opens, executables, network and units. Each is attached to
 * the exit of a function that calls the security modules. It sees what was allowed and cannot change the result. The
 * loader defines OBSERVE_ENTRIES and OBSERVE_SELF, and puts observe.h before this text.
 */
#define OBSERVE_FAMILY_INET 2
#define OBSERVE_FAMILY_INET6 10

BPF_HASH(subjects, __u64, __u64, OBSERVE_ENTRIES);
BPF_HASH(objects, struct observe_what, __u64, OBSERVE_ENTRIES);
BPF_HASH(entries, struct observe_entry, struct observe_times, OBSERVE_ENTRIES);
BPF_ARRAY(lost, __u64, OBSERVE_LOSSES);
BPF_ARRAY(listeners, __u64, 1024);
BPF_RINGBUF_OUTPUT(fresh, 1024);

BPF_HASH(units, struct observe_unit, struct observe_times, 4096);

static __always_inline __u64 *find_subject(__u64 *subject)
{
	return subjects.lookup(subject);
}
static __always_inline long keep_subject(__u64 *subject, __u64 *now)
{
	return subjects.update(subject, now);
}
static __always_inline __u64 *find_object(struct observe_what *what)
{
	return objects.lookup(what);
}
static __always_inline long keep_object(struct observe_what *what, __u64 *now)
{
	return objects.update(what, now);
}
static __always_inline struct observe_times *find_entry(struct observe_entry *entry)
{
	return entries.lookup(entry);
}
static __always_inline long keep_entry(struct observe_entry *entry, struct observe_times *times)
{
	return entries.insert(entry, times);
}
static __always_inline void count_loss(__u32 reason)
{
	__u64 *count = lost.lookup(&reason);

	if (count)
		__sync_fetch_and_add(count, 1);
}
static __always_inline void *reserve_subject(void)
{
	return fresh.ringbuf_reserve(sizeof(struct observe_subject));
}
static __always_inline void *reserve_object(void)
{
	return fresh.ringbuf_reserve(sizeof(struct observe_object));
}
static __always_inline void submit(void *record)
{
	fresh.ringbuf_submit(record, 0);
}
static __always_inline void discard(void *record)
{
	fresh.ringbuf_discard(record, 0);
}

static __always_inline __u32 login_of(struct task_struct *task)
{
#ifdef CONFIG_AUDIT
	return FIELD(task, loginuid.val);
#else
	return ~0U;
#endif
}
static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	return (struct kernfs_node *)FIELD(node, __parent);
#else
	return FIELD(node, parent);
#endif
}
static __always_inline bool is_observer(void)
{
	return bpf_get_current_pid_tgid() >> 32 == OBSERVE_SELF;
}

/* Pseudo filesystems are skipped unless they hold files of users: no policy covers the rest. */
static __always_inline bool is_recorded(struct dentry *d)
{
	struct inode *inode = FIELD(d, d_inode);
	struct super_block *sb = FIELD(d, d_sb);
	__u32 kind = FIELD(inode, i_mode) & S_IFMT;

	if (kind == S_IFSOCK || (FIELD(sb, s_flags) & SB_NOUSER))
		return 0;
	switch (FIELD(sb, s_magic)) {
	case 0x9fa0:
	case 0x62656572:
	case 0x1cd1:
	case 0x27e0eb:
	case 0x63677270:
	case 0xcafe4a11:
	case 0x64626720:
	case 0x74726163:
	case 0x73636673:
	case 0x50495045:
	case 0x534f434b:
	case 0x09041934:
	case 0x6e736673:
	case 0x50494446:
	case 0x62656570:
	case 0x42494e4d:
	case 0xde5e81e4:
	case 0x6165676c:
	case 0x0187:
	case 0xf97cff8c:
		return 0;
	}
	return 1;
}

static __always_inline void record_file(__u32 action, struct file *file)
{
	struct dentry *d = FIELD(file, f_path.dentry);
	struct observe_entry entry = { .action = action };

	if (is_recorded(d)) {
		set_file(&entry, d);
		record_action(&entry, d);
	}
}

KRETFUNC_PROBE(security_file_open, u64 at, int ret)
{
	struct file *file = (void *)at;
	__u32 action;

	if (ret || is_observer())
		return 0;
	/* Without branches: the verifier would follow each of them through the rest of the program. */
	action = OBSERVE_OPEN | (FIELD(file, f_mode) & (FMODE_READ | FMODE_WRITE)) | (FIELD(file, f_flags) & 0x20);
	record_file(action, file);
	return 0;
}

KRETFUNC_PROBE(security_mmap_file, u64 at, u64 prot, u64 flags, int ret)
{
	if (!ret && at && (prot & 4) && !is_observer()) /* PROT_EXEC: a library */
		record_file(OBSERVE_EXECUTE, (struct file *)at);
	return 0;
}

/* ---- endpoints ------------------------------------------------------------------------------------------------- */

static __always_inline void unmap_ipv4(struct observe_what *what)
{
	__u32 words[4];

	__builtin_memcpy(words, what->address, sizeof(words));
	if (what->family != OBSERVE_FAMILY_INET6 || words[0] || words[1] || words[2] != bpf_htonl(0xffff))
		return;
	what->family = OBSERVE_FAMILY_INET;
	words[0] = words[3];
	words[3] = words[2] = 0;
	__builtin_memcpy(what->address, words, sizeof(words));
}

/* Returns false for other families. */
static __always_inline bool read_endpoint(struct observe_what *what, const void *address)
{
	__u16 family = 0, port = 0;

	bpf_probe_read_kernel(&family, sizeof(family), address);
	bpf_probe_read_kernel(&port, sizeof(port), address + 2);
	what->family = family;
	what->port = bpf_ntohs(port);
	if (family == OBSERVE_FAMILY_INET) {
		bpf_probe_read_kernel(what->address, 4, address + 4);
	} else if (family == OBSERVE_FAMILY_INET6) {
		bpf_probe_read_kernel(what->address, 16, address + 8);
		unmap_ipv4(what);
	} else {
		return 0;
	}
	return 1;
}

static __always_inline bool read_own(struct observe_what *what, struct sock *sk)
{
	what->family = FIELD(sk, __sk_common.skc_family);
	what->port = FIELD(sk, __sk_common.skc_num);
	if (what->family == OBSERVE_FAMILY_INET) {
		__u32 address = FIELD(sk, __sk_common.skc_rcv_saddr);

		__builtin_memcpy(what->address, &address, 4);
	} else if (what->family == OBSERVE_FAMILY_INET6) {
		bpf_probe_read_kernel(what->address, 16, (const void *)&sk->__sk_common.skc_v6_rcv_saddr);
		unmap_ipv4(what);
	} else {
		return 0;
	}
	return 1;
}

static __always_inline bool read_peer(struct observe_what *what, struct sock *sk)
{
	what->family = FIELD(sk, __sk_common.skc_family);
	what->port = bpf_ntohs(FIELD(sk, __sk_common.skc_dport));
	if (what->family == OBSERVE_FAMILY_INET) {
		__u32 address = FIELD(sk, __sk_common.skc_daddr);

		__builtin_memcpy(what->address, &address, 4);
		return address != 0;
	}
	if (what->family != OBSERVE_FAMILY_INET6)
		return 0;
	bpf_probe_read_kernel(what->address, 16, (const void *)&sk->__sk_common.skc_v6_daddr);
	unmap_ipv4(what);
	return what->port != 0;
}

static __always_inline struct sock *socket_of(u64 sock, struct observe_what *what)
{
	struct sock *sk = FIELD((struct socket *)sock, sk);

	if (sk)
		what->protocol = FIELD(sk, sk_protocol);
	return sk;
}

KRETFUNC_PROBE(security_socket_connect, u64 sock, u64 address, int length, int ret)
{
	struct observe_entry entry = { .action = OBSERVE_CONNECT };

	if (!ret && !is_observer() && socket_of(sock, &entry.what) && read_endpoint(&entry.what, (void *)address))
		record_action(&entry, 0);
	return 0;
}

KRETFUNC_PROBE(security_socket_bind, u64 sock, u64 address, int length, int ret)
{
	struct observe_entry entry = { .action = OBSERVE_BIND };

	if (!ret && !is_observer() && socket_of(sock, &entry.what) && read_endpoint(&entry.what, (void *)address))
		record_action(&entry, 0);
	return 0;
}

static __always_inline void mark_listening(__u32 port)
{
	__u32 index = port / 64 & 1023;
	__u64 *word = listeners.lookup(&index);

	if (word && port && !(*word >> (port & 63) & 1))
		*word |= 1ULL << (port & 63);
}

KRETFUNC_PROBE(security_socket_listen, u64 sock, int backlog, int ret)
{
	struct observe_entry entry = { .action = OBSERVE_LISTEN };
	struct sock *sk = ret || is_observer() ? 0 : socket_of(sock, &entry.what);

	if (sk && read_own(&entry.what, sk)) {
		mark_listening(entry.what.port);
		record_action(&entry, 0);
	}
	return 0;
}

KRETFUNC_PROBE(security_socket_accept, u64 sock, u64 accepted, int ret)
{
	struct observe_entry entry = { .action = OBSERVE_ACCEPT };
	struct sock *sk = ret || is_observer() ? 0 : socket_of(sock, &entry.what);

	if (sk && read_own(&entry.what, sk)) {
		mark_listening(entry.what.port);
		record_action(&entry, 0);
	}
	return 0;
}

/* Data on a connection from a port with a listener is a reply; the port of its peer is useless in a rule. */
KRETFUNC_PROBE(security_socket_sendmsg, u64 sock, u64 message, int size, int ret)
{
	struct observe_entry entry = { .action = OBSERVE_SEND };
	__u32 index, port;
	struct sock *sk;
	void *name;
	__u64 *word;

	if (ret || is_observer())
		return 0;
	sk = socket_of(sock, &entry.what);
	if (!sk)
		return 0;
	name = FIELD((struct msghdr *)message, msg_name);
	if (entry.what.protocol == 6 || entry.what.protocol == 262)
		name = 0; /* a connection ignores names */
	if (name ? !read_endpoint(&entry.what, name) : !read_peer(&entry.what, sk))
		return 0;
	if (!name && (entry.what.protocol == 6 || entry.what.protocol == 262)) {
		port = FIELD(sk, __sk_common.skc_num);
		index = port / 64 & 1023;
		word = listeners.lookup(&index);
		if (word && *word >> (port & 63) & 1) {
			entry.action = OBSERVE_REPLY;
			entry.what.port = 0;
		}
	}
	record_action(&entry, 0);
	return 0;
}

/* ---- units: starting a unit creates a cgroup ---- */

RAW_TRACEPOINT_PROBE(cgroup_mkdir)
{
	struct observe_unit unit = {};
	__u64 now = bpf_ktime_get_boot_ns();
	struct observe_times *times, first = { .count = 1, .first = now, .last = now };

	bpf_probe_read_kernel_str(unit.path, sizeof(unit.path), (const void *)ctx->args[1]);
	times = units.lookup(&unit);
	if (times) {
		__sync_fetch_and_add(&times->count, 1);
		times->last = now;
	} else if (units.insert(&unit, &first)) {
		count_loss(OBSERVE_LOST_UNIT);
	}
	return 0;
}
