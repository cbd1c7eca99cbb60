/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How labels get from what is read to who reads it.
 */
#ifndef GUARD_LABEL_H
#define GUARD_LABEL_H

static __noinline __u32 place_file(const struct view *v, struct file *file, struct place *at, __u32 actions);

static __noinline __u64 labels_of_state(const struct view *v, const struct place *at, __u64 named)
{
	const struct guard_state *s;

	if (!v || !at || at->reason != GUARD_BY_RULE)
		return named;
	s = state_of(v->slot, at->state);
	return s ? s->labels : named;
}

/* Of an overlay's backing file on 6.1, as refuse_aliases has it: what any of its names has. */
static __noinline __u64 labels_of_aliases(const struct view *v, struct inode *inode, __u64 named)
{
	struct hlist_node *node = BPF_CORE_READ(inode, i_dentry.first);
	__u64 labels = 0;
	struct dentry *d;
	__u32 i;

	if (!v || !node)
		return named;
	for (i = 0; i < GUARD_ALIASES; i++) {
		struct place at = {};

		if (bpf_core_field_exists(((struct dentry *)0)->d_u.d_alias))
			d = (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
		else
			d = (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
		guard_place(v->slot, (__u64)d, &at);
		labels |= labels_of_state(v, &at, named);
		node = BPF_CORE_READ(node, next);
		if (!node)
			return labels;
	}
	return named;
}

/* By where it is; all that are named when that can't be told. */
static __always_inline __u64 labels_of_place(const struct view *v, struct file *file, __u64 named)
{
	struct place at = {};

	if (!v)
		return named;
	if (file->f_path.dentry->d_inode != file->f_inode)
		return labels_of_aliases(v, file->f_inode, named);
	place_file(v, file, &at, ~0U);
	return labels_of_state(v, &at, named);
}

/* What can't be remembered is refused, though no rule says so; told only while every rule that asks for labels is in
 * audit mode. */
static __noinline bool refuse_unlabelled(const struct view *v, __u32 action, const struct dentry *d)
{
	struct outcome o = { .action = action, .reason = GUARD_NO_LABEL, .rule = GUARD_NO_RULE };
	const struct guard_policy *p;

	if (!v)
		return 1;
	p = policy_of(v);
	o.verdict = p ? verdict_of_label(p) : GUARD_DENY;
	return tell_file(v, &o, d);
}

/* The same in hooks that ask about nothing else. */
static __noinline bool refuse_lost_label(__u32 action)
{
	struct view v;

	return see(&v) && refuse_unlabelled(&v, action, 0);
}

/* ---- what carries a label from one task to another ---- */

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct guard_mark);
} marks SEC(".maps");

/* Pipes, sockets and System V message queues, whose storage can't be had by the pointers that lead there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_WIRES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct guard_mark);
} wires SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_KEPT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_kept_key);
	__type(value, struct guard_kept);
} kept SEC(".maps");

/* A mark that is new, or from before labels came into use, is begun. */
static __noinline struct guard_mark *begun(struct guard_mark *m, __u64 since)
{
	struct guard_facts *f = fact();
	__u32 i;

	if (!m || m->since == since)
		return m;
	m->labels = 0;
	m->spread = 0;
	m->crowded = f ? f->unwatched : 1;
	for (i = 0; i < GUARD_READERS; i++)
		m->readers[i] = 0;
	m->since = since;
	return m;
}

static __noinline struct guard_mark *wire(__u64 key, __u64 since)
{
	struct guard_mark *m = bpf_map_lookup_elem(&wires, &key);
	struct guard_mark fresh = {};

	if (!m) {
		bpf_map_update_elem(&wires, &key, &fresh, BPF_NOEXIST);
		m = bpf_map_lookup_elem(&wires, &key);
	}
	return begun(m, since);
}

static __always_inline int unwire(__u64 key)
{
	if (labels_since())
		bpf_map_delete_elem(&wires, &key);
	return 0;
}

static __noinline bool vacant(__u64 since, __u64 number)
{
	return !number || (number < SPACE && !cell_of(since, number));
}

/* Whoever reads there is found by what is written there later, also while it waits for it. Gives what is there
 * already. */
static __noinline __u64 watch(struct guard_mark *m, struct guard_carrier *c)
{
	struct guard_facts *f;
	__u64 there;
	__u32 i;

	if (!m || !c || !found_cell(c)) {
		f = fact();
		if (m)
			m->crowded = 1;
		else if (f && !f->unwatched)
			f->unwatched = 1;
		return m ? m->labels : 0;
	}
	for (i = 0; i < GUARD_READERS; i++)
		if (m->readers[i] == c->cell)
			return m->labels;
	GUARD_UNROLL
	for (i = 0; i < GUARD_READERS; i++) {
		there = m->readers[i];
		if (vacant(m->since, there) &&
		    __sync_val_compare_and_swap(&m->readers[i], there, c->cell) == there)
			return __sync_fetch_and_or(&m->labels, 0);
	}
	m->crowded = 1;
	return __sync_fetch_and_or(&m->labels, 0);
}

/* What is about to be written carries these labels, and so does whoever reads there. False: one of them can't be
 * found. */
static __noinline bool spread(struct guard_mark *m, __u64 labels)
{
	__u64 there;
	__u32 i;

	if (!m)
		return 0;
	if (!(labels & ~m->spread))
		return 1;
	/* before the readers are looked at: who comes after that sees it. An addition that gives a value is a barrier. */
	if (labels & ~__sync_fetch_and_or(&m->labels, labels))
		count_mark();
	for (i = 0; i < GUARD_READERS; i++) {
		there = m->readers[i];
		if (there && !label_cell(m->since, there, labels) && there >= SPACE)
			return 0;
	}
	if (m->crowded)
		return 0;
	__sync_fetch_and_or(&m->spread, labels);
	return 1;
}

enum carrying { NOTHING, PIPE, SOCKET, CONTENT, TERMINAL };

/* Files that are kept in memory, so that a mapping is their usual way. */
static __always_inline bool in_memory(const struct inode *inode)
{
	unsigned long magic = inode->i_sb->s_magic;

	return magic == TMPFS_MAGIC || magic == RAMFS_MAGIC || magic == HUGETLBFS_MAGIC || magic == MQUEUE_MAGIC;
}

#define MASTER (5U << 20 | 2)	/* /dev/ptmx: a pseudo terminal's other side */

static __always_inline bool terminal(const struct inode *inode)
{
	__u32 major = inode->i_rdev >> 20;

	return inode->i_rdev == MASTER || inode->i_rdev == 5U << 20 || (major >= 136 && major <= 143);
}

/* Other devices, and what only looks like a file, carry nothing. */
static __always_inline enum carrying carrying(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFIFO:
		return PIPE;
	case S_IFSOCK:
		return SOCKET;
	case S_IFREG:
		return in_memory(inode) || !pseudo(inode->i_sb) ? CONTENT : NOTHING;
	case S_IFCHR:
		return terminal(inode) ? TERMINAL : NOTHING;
	}
	return NOTHING;
}

static __always_inline void kept_by(const struct inode *inode, struct guard_kept_key *key)
{
	key->inode = BPF_CORE_READ(inode, i_ino);
	key->device = BPF_CORE_READ(inode, i_sb, s_dev);
	key->generation = BPF_CORE_READ(inode, i_generation);
}

/* What the kernel may have forgotten together with the file's inode. */
static __noinline __u64 kept_labels(const struct inode *inode, __u64 since)
{
	struct guard_kept_key key = {};
	struct guard_kept *k;

	kept_by(inode, &key);
	k = bpf_map_lookup_elem(&kept, &key);
	return k && k->since == since ? k->labels : 0;
}

static __noinline bool keep_labels(const struct inode *inode, __u64 since, __u64 labels)
{
	struct guard_kept fresh = { .since = since };
	struct guard_kept_key key = {};
	struct guard_kept *k;

	kept_by(inode, &key);
	k = bpf_map_lookup_elem(&kept, &key);
	if (!k) {
		bpf_map_update_elem(&kept, &key, &fresh, BPF_NOEXIST);
		k = bpf_map_lookup_elem(&kept, &key);
	}
	if (!k || k->since != since)	/* user space has begun anew meanwhile */
		return 0;
	__sync_fetch_and_or(&k->labels, labels);
	return 1;
}

/* The mark of a file that is about to be written to. 0: what it carries can't be remembered. */
static __noinline struct guard_mark *content(struct inode *inode, __u64 since, __u64 labels)
{
	struct guard_mark *m = bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	m = begun(m, since);
	if (m && (labels & ~m->spread) && !in_memory(inode) && !keep_labels(inode, since, labels))
		return 0;
	return m;
}

static __always_inline struct sock *sock_of(struct file *file)
{
	struct socket *sock = file->private_data;

	return BPF_CORE_READ(sock, sk);
}

/* One of the two ways of a pseudo terminal, by its node's inode, which lives as long: to the master, or from it. 0: it is
 * not open yet, or no such thing. */
static __noinline __u64 terminal_wire(const struct file *file, bool write)
{
	const struct tty_file_private *opened = file->private_data;
	const struct tty_struct *tty = BPF_CORE_READ(opened, tty);
	bool master = file->f_inode->i_rdev == MASTER;
	const struct dentry *node;
	__u64 inode;

	if (master)
		tty = BPF_CORE_READ(tty, link);
	node = BPF_CORE_READ(tty, driver_data);
	inode = (__u64)BPF_CORE_READ(node, d_inode);
	if (!inode)
		return 0;
	return master == write ? inode : inode + 1;
}

/* Where a unix socket sends to; 0: it is of another family, or its messages say where. */
static __always_inline __u64 peer_of(struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_UNIX || BPF_CORE_READ(sk, sk_type) == SOCK_DGRAM)
		return 0;
	return (__u64)BPF_CORE_READ((struct unix_sock *)sk, peer);
}

/* What labels mean under the generation that the hook decides under: the labels that are named, the current task's
 * carrier. */
struct labelling {
	__u64 since, named;
	struct guard_carrier *c;
};

/* False: no rule asks for labels. */
static __always_inline bool labelling(struct labelling *l, const struct view *v)
{
	const struct guard_policy *p;

	l->since = labels_since();
	if (!l->since || !v)
		return 0;
	p = policy_of(v);
	if (!p || !p->labels)
		return 0;
	l->named = p->labels;
	l->c = own_carrier(l->since);
	return 1;
}

struct write_ends {
	struct file **files;
	__u64 since, labels;
	bool lost;
};

static long mark_write_end(__u32 i, struct write_ends *all)
{
	struct inode *inode;
	struct file *file;

	if (bpf_probe_read_kernel(&file, sizeof(file), all->files + i) || !file)
		return 0;
	if (!(BPF_CORE_READ(file, f_mode) & FMODE_WRITE))
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFIFO && !spread(wire((__u64)inode, all->since), all->labels))
		all->lost = 1;
	return 0;
}

/* No hook sees what sendfile and splice move from a file into a pipe: the pipes that a task may write to carry what it
 * does from the moment it does. False: one of them can't. */
static __noinline bool mark_write_ends(const struct task_struct *task, __u64 since, __u64 labels)
{
	struct write_ends all = { .since = since, .labels = labels };
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	__u32 count = BPF_CORE_READ(table, max_fds);

	all.files = BPF_CORE_READ(table, fd);
	if (count > GUARD_FILES)
		return 0;
	bpf_loop(count, mark_write_end, &all, 0);
	return !all.lost;
}

/* False: what a task gets hold of can't be remembered. */
static __always_inline bool label_task(const struct task_struct *task, struct guard_carrier *c, __u64 since, __u64 labels)
{
	return label_carrier(c, labels) && mark_write_ends(task, since, labels);
}

static __always_inline bool label_self(const struct labelling *l, __u64 labels)
{
	return label_task(bpf_get_current_task_btf(), l->c, l->since, labels);
}

/* What came through a pipe, a unix socket or a terminal; whoever reads there is found by what comes later. */
static __noinline __u64 passed_through(struct file *file, enum carrying how, __u64 since, struct guard_carrier *c)
{
	__u64 key = 0;

	if (how == PIPE)
		key = (__u64)BPF_CORE_READ(file, f_inode);
	if (how == SOCKET && BPF_CORE_READ(sock_of(file), __sk_common.skc_family) == AF_UNIX)
		key = (__u64)sock_of(file);
	if (how == TERMINAL)
		key = terminal_wire(file, 0);
	return key ? watch(wire(key, since), c) : 0;
}

/* The current task is about to read a file, or to execute it: then its next address space is labelled. True: that
 * can't be remembered, so it must not. `mapped`: what is written there later is read, too. */
static __noinline bool refuse_reading(const struct view *v, struct file *file, bool mapped)
{
	struct inode *inode = file->f_inode;
	bool image = file->f_flags & FMODE_EXEC;
	struct labelling l;
	struct guard_mark *m;
	enum carrying how;
	__u64 labels, found = 0, changes = UNTOLD;

	/* a folder holds names */
	if ((inode->i_mode & S_IFMT) == S_IFDIR || !labelling(&l, v))
		return 0;
	how = carrying(inode);
	/* a message queue is asked only when it is opened */
	mapped |= how == CONTENT && inode->i_sb->s_magic == MQUEUE_MAGIC;
	if (l.c && how == CONTENT && !mapped && !image && file->f_path.dentry->d_inode == inode &&
	    !(inode->i_sb->s_flags & SB_NOUSER))
		changes = changes_now();
	labels = l.named;
	if (l.c) {
		labels &= ~labels_of(l.c);
		if (!labels)
			return remember_reading(file, v, l.since, changes);
	}
	if (how == PIPE || how == SOCKET || how == TERMINAL)
		found = passed_through(file, how, l.since, l.c);
	if (mapped)
		found = watch(begun(bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE), l.since), l.c);
	if (how == CONTENT && !mapped) {
		m = bpf_inode_storage_get(&marks, inode, 0, 0);
		if (m && m->since == l.since)
			found = m->labels;
	}
	found &= labels;
	if (how != SOCKET && found != labels)
		found |= labels_of_place(v, file, l.named);
	labels &= found;
	if (!labels)
		return remember_reading(file, v, l.since, changes);
	if (l.c && image) {
		__sync_fetch_and_or(&l.c->image, labels);
		return 0;
	}
	if (label_self(&l, labels))
		return 0;
	return refuse_unlabelled(v, image ? GUARD_EXECUTE : GUARD_READ, file->f_path.dentry);
}

/* The current task is about to write to a file, which from then on carries what the task does. True: it can't. */
static __noinline bool refuse_writing(const struct view *v, struct file *file)
{
	struct inode *inode = file->f_inode;
	struct guard_mark *m = 0;
	struct labelling l;
	enum carrying how;
	__u64 peer;

	if (!labelling(&l, v))
		return 0;
	if (l.c) {
		l.named &= labels_of(l.c);
		if (!l.named)
			return 0;
	}
	how = carrying(inode);
	if (how == NOTHING)
		return 0;
	if (l.c && how == SOCKET) {
		peer = peer_of(sock_of(file));
		if (!peer)
			return 0;
		m = wire(peer, l.since);
	}
	if (l.c && how == PIPE)
		m = wire(number(inode), l.since);
	if (l.c && how == TERMINAL) {
		peer = terminal_wire(file, 1);
		if (!peer)
			return 0;
		m = wire(peer, l.since);
	}
	if (l.c && how == CONTENT)
		m = content(inode, l.since, l.named);
	return !spread(m, l.named) && refuse_unlabelled(v, GUARD_WRITE, file->f_path.dentry);
}

static __always_inline bool refuse_mapping(const struct view *v, struct file *file, bool shared)
{
	bool live = shared && carrying(file->f_inode) == CONTENT && in_memory(file->f_inode);

	if (refuse_reading(v, file, live))
		return 1;
	return shared && (file->f_mode & FMODE_WRITE) && refuse_writing(v, file);
}

/* What the kernel had forgotten: while the file is open it stays. */
static __noinline bool refuse_kept(const struct view *v, struct file *file)
{
	struct inode *inode = file->f_inode;
	bool image = file->f_flags & FMODE_EXEC;
	struct labelling l;
	struct guard_mark *m;
	__u64 labels;

	if (!labelling(&l, v))
		return 0;
	labels = kept_labels(inode, l.since) & l.named;
	if (!labels)
		return 0;
	m = begun(bpf_inode_storage_get(&marks, inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE), l.since);
	if (!m)
		return refuse_unlabelled(v, GUARD_READ, file->f_path.dentry);
	if (labels & ~__sync_fetch_and_or(&m->labels, labels))
		count_mark();
	if (!image && !(file->f_mode & FMODE_READ))
		return 0;
	if (l.c)
		labels &= ~labels_of(l.c);
	if (l.c && image) {
		__sync_fetch_and_or(&l.c->image, labels);
		return 0;
	}
	return labels && !label_self(&l, labels) && refuse_unlabelled(v, GUARD_READ, file->f_path.dentry);
}

SEC("lsm/file_open")
int BPF_PROG(file_open__label, struct file *file, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(carrying(file->f_inode) == CONTENT && !in_memory(file->f_inode) && see(&v) && refuse_kept(&v, file));
}

SEC("lsm/inode_free_security")
int BPF_PROG(inode_free_security, struct inode *inode)
{
	struct guard_kept_key key = {};

	if ((inode->i_mode & S_IFMT) == S_IFREG && !inode->i_nlink && labels_since()) {
		kept_by(inode, &key);
		bpf_map_delete_elem(&kept, &key);
	}
	if ((inode->i_mode & S_IFMT) == S_IFIFO)
		return unwire((__u64)inode);
	if ((inode->i_mode & S_IFMT) == S_IFCHR && inode->i_sb->s_magic == DEVPTS_MAGIC) {
		unwire((__u64)inode);
		unwire((__u64)inode + 1);
	}
	return 0;
}

/* An open file is used. */
static __always_inline bool refuse_passing(const struct view *v, struct file *file, bool reads, bool writes)
{
	if (reads && refuse_reading(v, file, 0))
		return 1;
	return writes && refuse_writing(v, file);
}

/* ---- messages ---- */

/* True: what the current task carries can't go where it sends to. */
static __always_inline bool refuse_carrying(const struct view *v, __u64 to)
{
	struct labelling l;

	if (!to || !labelling(&l, v))
		return 0;
	if (l.c) {
		l.named &= labels_of(l.c);
		if (!l.named)
			return 0;
	}
	return !spread(l.c ? wire(to, l.since) : 0, l.named) && refuse_unlabelled(v, GUARD_WRITE, 0);
}

static __noinline bool refuse_carrying_by(const struct view *v, struct socket *sock)
{
	struct sock *sk = sock->sk;

	return sk && refuse_carrying(v, peer_of(sk));
}

SEC("lsm/socket_recvmsg")
int BPF_PROG(socket_recvmsg, struct socket *sock, struct msghdr *msg, int size, int flags, int ret)
{
	struct sock *sk = sock->sk;
	struct labelling l;
	struct view v;
	__u64 labels;

	if (ret)
		return ret;
	if (!sk || sk->__sk_common.skc_family != AF_UNIX || !see(&v) || !labelling(&l, &v))
		return 0;
	labels = l.named;
	if (l.c) {
		labels &= ~labels_of(l.c);
		if (!labels)
			return 0;
	}
	labels &= watch(wire((__u64)sk, l.since), l.c);
	return answer(labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, 0));
}

SEC("lsm/sk_free_security")
int BPF_PROG(sk_free_security, struct sock *sk)
{
	return unwire((__u64)sk);
}

/* A message queue carries what any of its messages did. */
SEC("lsm/msg_queue_msgsnd")
int BPF_PROG(msg_queue_msgsnd, struct kern_ipc_perm *queue, struct msg_msg *msg, int flags, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(see(&v) && refuse_carrying(&v, (__u64)queue));
}

/* In the sender's context when the receiver has been waiting. */
SEC("lsm/msg_queue_msgrcv")
int BPF_PROG(msg_queue_msgrcv, struct kern_ipc_perm *queue, struct msg_msg *msg, struct task_struct *target, long type,
	     int mode, int ret)
{
	__u64 key = (__u64)queue, since = labels_since();
	struct guard_mark *m;

	if (ret)
		return ret;
	if (!since)
		return 0;
	m = bpf_map_lookup_elem(&wires, &key);
	if (!m || m->since != since || !m->labels)
		return 0;
	return answer(!label_task(target, carrier_of((__u64)target, since), since, m->labels) && refuse_lost_label(GUARD_READ));
}

SEC("lsm/msg_queue_free_security")
int BPF_PROG(msg_queue_free_security, struct kern_ipc_perm *queue)
{
	return unwire((__u64)queue);
}

/* ---- keys ---- */

#define KEY_NEED_READ 2
#define KEY_NEED_WRITE 3

/* Another may have had its address. */
SEC("lsm/key_alloc")
int BPF_PROG(key_alloc, void *key, const struct cred *cred, unsigned long flags, int ret)
{
	struct view v;

	if (ret)
		return ret;
	unwire((__u64)key);
	return answer(see(&v) && refuse_carrying(&v, (__u64)key));
}

/* A key that is read, and one that is written to. It comes with its lowest bit for something else, as a type that is
 * nowhere defined, so that the verifier does not let it be read the usual way. */
SEC("lsm/key_permission")
int key_permission(unsigned long long *ctx)
{
	__u64 arguments[4] = {}, labels;
	struct guard_mark *m;
	struct labelling l;
	struct view v;

	if (bpf_probe_read_kernel(arguments, sizeof(arguments), ctx))
		return 0;
	if (arguments[3])
		return -EPERM;
	arguments[0] &= ~1ULL;
	if (!see(&v))
		return 0;
	if ((__u32)arguments[2] == KEY_NEED_WRITE)
		return answer(refuse_carrying(&v, arguments[0]));
	if ((__u32)arguments[2] != KEY_NEED_READ || !labelling(&l, &v))
		return 0;
	m = bpf_map_lookup_elem(&wires, &arguments[0]);
	if (!m || m->since != l.since)
		return 0;
	labels = m->labels & l.named;
	if (l.c)
		labels &= ~labels_of(l.c);
	return answer(labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, 0));
}

/* ---- another task ---- */

/* Who gets hold of another task's memory or descriptors reads there and writes there: each carries what the other does. */
static __noinline bool refuse_joining(const struct task_struct *other)
{
	struct guard_carrier *c;
	struct labelling l;
	struct view v;
	__u64 labels;

	if (!see(&v) || !labelling(&l, &v))
		return 0;
	c = carrier_of((__u64)other, l.since);
	labels = l.named;
	if (l.c && c)
		labels &= labels_of(l.c) | labels_of(c);
	if (!labels)
		return 0;
	if (label_self(&l, labels) && label_task(other, c, l.since, labels))
		return 0;
	return refuse_unlabelled(&v, GUARD_PTRACE, 0);
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check__label, struct task_struct *child, unsigned int mode, int ret)
{
	if (ret)
		return ret;
	return answer((mode & PTRACE_MODE_ATTACH) && refuse_joining(child));
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(ptrace_traceme__label, struct task_struct *parent, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_joining(parent));
}

/* ---- without opening ---- */

/* A link's target, an extended attribute. */
static __noinline bool refuse_looking(struct dentry *d)
{
	struct guard_mark *m = 0;
	struct place at = {};
	struct labelling l;
	struct inode *inode;
	struct view v;
	__u64 labels, found = 0;

	if (!see(&v) || !labelling(&l, &v))
		return 0;
	labels = l.named;
	if (l.c) {
		labels &= ~labels_of(l.c);
		if (!labels)
			return 0;
	}
	inode = d->d_inode;
	if (inode)
		m = bpf_inode_storage_get(&marks, inode, 0, 0);
	if (m && m->since == l.since)
		found = m->labels;
	else if (inode)
		found = kept_labels(inode, l.since);
	found &= labels;
	if (found != labels) {
		guard_place(v.slot, number(d), &at);
		found |= labels_of_state(&v, &at, l.named);
	}
	labels &= found;
	return labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, d);
}

SEC("lsm/inode_readlink")
int BPF_PROG(inode_readlink__label, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_looking(dentry));
}

/* The attributes that hold data of somebody's. */
static __always_inline bool of_users(const char *name)
{
	char start[8] = {};

	bpf_probe_read_kernel_str(start, 6, name);
	return *(__u64 *)start == *(const __u64 *)"user.\0\0";
}

SEC("lsm/inode_getxattr")
int BPF_PROG(inode_getxattr__label, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	return answer(of_users(name) && refuse_looking(dentry));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr__label, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	struct guard_mark *m = 0;
	struct labelling l;
	struct inode *inode;
	struct view v;

	if (ret)
		return ret;
	if (!of_users(name) || !see(&v) || !labelling(&l, &v))
		return 0;
	inode = dentry->d_inode;
	if (l.c) {
		l.named &= labels_of(l.c);
		if (!l.named)
			return 0;
		if (inode)
			m = content(inode, l.since, l.named);
	}
	return answer(!spread(m, l.named) && refuse_unlabelled(&v, GUARD_WRITE, dentry));
}

/* ---- what an overlay maps ---- */

#define OVERLAYS 3	/* the kernel stacks two */

/* The file behind an overlay's open one; 0: it can't be told. */
static __noinline __u64 inode_behind(const struct file *file)
{
	struct inode *inode;
	unsigned long magic;
	__u32 i;

	for (i = 0; i < OVERLAYS; i++) {
		file = (const struct file *)BPF_CORE_READ(file, private_data);
		inode = BPF_CORE_READ(file, f_inode);
		magic = BPF_CORE_READ(inode, i_sb, s_magic);
		if (!magic)
			break;
		if (magic != OVERLAYFS_MAGIC)
			return (__u64)inode;
	}
	return 0;
}

/* Where no hook shows the file behind. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file__label, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	struct labelling l;
	struct view v;
	__u64 behind, labels;

	if (ret)
		return ret;
	if (bpf_core_field_exists(((union security_list_options *)0)->mmap_backing_file) || !file ||
	    file->f_inode->i_sb->s_magic != OVERLAYFS_MAGIC || !see(&v) || !labelling(&l, &v))
		return 0;
	behind = inode_behind(file);
	labels = behind ? labels_of_aliases(&v, (struct inode *)behind, l.named) : l.named;
	if (l.c)
		labels &= ~labels_of(l.c);
	return answer(labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, file->f_path.dentry));
}

SEC("lsm/mmap_backing_file")
int BPF_PROG(mmap_backing_file__label, struct vm_area_struct *vma, struct file *backing, struct file *file, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(see(&v) && refuse_mapping(&v, backing, vma->vm_flags & VM_SHARED));
}

#endif
