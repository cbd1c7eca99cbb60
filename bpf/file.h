/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on files: open, use what is open, map, link, rename. All that is done with an open file goes through
 * refuse_file.
 */
#ifndef GUARD_FILE_H
#define GUARD_FILE_H

static __always_inline bool same_place(const struct placed *a, const struct placed *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;
	__u64 differ = 0;
	__u32 i;

	GUARD_UNROLL
	for (i = 0; i < sizeof(*a) / sizeof(__u64); i++)
		differ |= x[i] ^ y[i];
	return !differ;
}

/* What the path of this dentry depends on, by value. False: it can't be told, or names nothing that lasts. */
static __always_inline bool tag_file(const struct view *v, const struct dentry *d, struct placed *p)
{
	const struct dentry *parent;
	const struct inode *above;
	__u32 length;

	/* before the parent: a rename in between shows as another sequence at the end of the walk */
	if (rename_sequence(&p->rename_sequence) || (p->rename_sequence & 1))
		return 0;
	parent = d->d_parent;
	above = parent->d_inode;
	if (!above)
		return 0;
	p->generation = v->generation;
	p->parent_inode = above->i_ino;
	p->parent_generation = above->i_generation;
	/* without generations a directory's number may have come back */
	if (!p->parent_generation)
		return 0;
	length = d->d_name.len;
	p->length = length;
	barrier_var(length);
	if (!length || length >= GUARD_COMPONENT)
		return 0;
	return !bpf_probe_read_kernel(p->name, length, d->d_name.name);
}

/* The actions that rules which cover a state are about. */
static __noinline __u32 actions_of(const struct view *v, __u32 state)
{
	const struct guard_policy *p;
	const struct guard_state *s;
	__u32 actions = 0, i;

	if (!v)
		return ~0U;
	p = policy_of(v);
	s = state_of(v->slot, state);
	if (!p || !s)
		return ~0U;
	for (i = GUARD_READ; i <= GUARD_EXECUTE; i++)
		if (guard_concerns(&s->covers, &p->of_action[i]))
			actions |= 1U << i;
	return actions;
}

/* Pipes, sockets, a memfd, shared memory: on a superblock of the kernel's own, without a name to be covered by. What is
 * executed from there has none of the names that an allow-list gives. */
static __always_inline bool nameless(struct inode *inode, __u32 actions)
{
	return (inode->i_sb->s_flags & SB_NOUSER) && !(actions & (1U << GUARD_EXECUTE));
}

/* The state of a file by its dentry, through the cache in its inode. Gives the actions that are left to decide. */
static __noinline __u32 place_file(const struct view *v, struct file *file, struct place *at, __u32 actions)
{
	struct dentry *d = file->f_path.dentry;
	struct inode_value *cache = 0;
	struct placed now = {};
	__u32 version, known;
	bool hit;

	if (!v || !at)
		return actions;
	if (tag_file(v, d, &now)) {
		cache = bpf_inode_storage_get(&inodes, file->f_inode, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (cache) {
			/* the additions of nothing are barriers */
			version = __sync_fetch_and_add(&cache->version, 0);
			hit = !(version & 1) && same_place(&cache->placed, &now);
			if (hit) {
				at->state = cache->state;
				known = cache->actions;
				if (__sync_fetch_and_add(&cache->version, 0) == version) {
					at->reason = GUARD_BY_RULE;
					return actions & known;
				}
			}
		}
	}
	if (nameless(file->f_inode, actions))
		return 0;
	guard_place(v->slot, number(d), at);
	if (!cache || at->reason != GUARD_BY_RULE || at->sequence != now.rename_sequence)
		return ~0U;
	version = cache->version;
	if ((version & 1) || __sync_val_compare_and_swap(&cache->version, version, version + 1) != version)
		return ~0U;
	cache->placed = now;
	cache->state = at->state;
	cache->actions = actions_of(v, at->state);
	__sync_fetch_and_add(&cache->version, 1);
	return ~0U;
}

/* One place of a file: every action that is wanted, against the rules that cover it. */
static __noinline bool refuse_place(const struct view *v, const struct bound *b, const struct place *at, __u32 actions,
				    const struct dentry *d)
{
	const struct guard_state *s = 0;
	struct outcome o = {};
	__u32 i;

	if (!v || !b || !at)
		return 1;
	o.reason = at->reason;
	if (at->reason == GUARD_BY_RULE) {
		s = state_of(v->slot, at->state);
		if (!s)
			o.reason = GUARD_BROKEN_MAP;
	}
	for (i = GUARD_READ; i <= GUARD_EXECUTE; i++) {
		if (!(actions & (1U << i)))
			continue;
		o.action = i;
		if (!allowed(v, b, s ? &s->covers : 0, &o) && tell_file(v, &o, d))
			return 1;
	}
	return 0;
}

/* 6.1 opens an overlay's backing file with the overlay's dentry: then the inode's own names say where it is, all of
 * them, since which one is meant can't be told. */
static __noinline bool refuse_aliases(const struct view *v, const struct bound *b, struct inode *inode, __u32 actions)
{
	struct hlist_node *node;
	struct place at = {};
	struct dentry *d = 0;
	__u32 i;

	if (!v || !b)
		return 1;
	at.reason = GUARD_NO_CHAIN;
	node = BPF_CORE_READ(inode, i_dentry.first);
	for (i = 0; node && i < GUARD_ALIASES; i++) {
		if (bpf_core_field_exists(((struct dentry *)0)->d_u.d_alias))
			d = (void *)node - bpf_core_field_offset(struct dentry, d_u.d_alias);
		else
			d = (void *)node - bpf_core_field_offset(struct dentry___7, d_alias);
		guard_place(v->slot, (__u64)d, &at);
		if (refuse_place(v, b, &at, actions, d))
			return 1;
		node = BPF_CORE_READ(node, next);
		if (!node)
			return 0;
	}
	at.reason = GUARD_NO_CHAIN;
	return refuse_place(v, b, &at, actions, d);
}

/* What a rule that binds the task may be about is decided on. */
static __noinline bool refuse_seen(const struct view *v, struct file *file, __u32 actions)
{
	struct inode *inode = file->f_inode;
	struct dentry *d = file->f_path.dentry;
	bool own = d->d_inode == inode;
	const struct bound *b = 0;
	struct place at = {};

	if (!v)
		return 1;
	if (v->slot >= GUARD_SLOTS)
		return 0;
	/* who it is comes first where that is not known yet, so that it is the next time */
	if (!v->stamp) {
		b = bound(v);
		if (!b)
			return 1;
		actions &= b->actions;
	}
	if (actions && own)
		actions &= place_file(v, file, &at, actions);
	if (!actions)
		return 0;
	if (!b) {
		b = bound(v);
		if (!b)
			return 1;
		actions &= b->actions;
	}
	if (own)
		return refuse_place(v, b, &at, actions, d);
	return !nameless(inode, actions) && refuse_aliases(v, b, inode, actions);
}

static __always_inline bool refuse_file(struct file *file, __u32 actions)
{
	struct view seen, v;

	if (!glance(&seen))
		return 0;
	actions = concerned(&seen, actions);
	if (!actions)
		return 0;
	v = seen;	/* on the stack only from here on; once, since that is short */
	return refuse_seen(&v, file, actions);
}

static __always_inline __u32 opening(struct file *file)
{
	__u32 flags = file->f_flags, mode, actions = 0;

	if (flags & FMODE_EXEC)
		return 1U << GUARD_EXECUTE;
	mode = file->f_mode;
	if (mode & FMODE_READ)
		actions = 1U << GUARD_READ;
	if ((mode & FMODE_WRITE) || (flags & O_TRUNC))
		actions |= 1U << GUARD_WRITE;
	return actions;
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	struct view seen, v;
	__u32 actions;

	if (ret)
		return ret;
	if (!glance(&seen))
		return 0;
	if (writable(file) && powerful() && seen.slot < GUARD_SLOTS) {
		v = seen;
		if (touches_file(&v, file))
			return -EPERM;
	}
	actions = concerned(&seen, 1U << GUARD_READ | 1U << GUARD_WRITE | 1U << GUARD_EXECUTE);
	if (actions)
		actions &= opening(file);
	v = seen;
	if (actions && refuse_seen(&v, file, actions))
		return -EPERM;
	if (!labels_since())
		return 0;
	/* another one may have been read that was at the same address */
	forget_reading(file);
	actions = opening(file);
	return answer(refuse_passing(&v, file, actions & ~(1U << GUARD_WRITE), actions & (1U << GUARD_WRITE)));
}

static __always_inline __u32 using(struct file *file, int mask)
{
	__u32 actions = 0;

	if ((mask & MAY_READ) && !(file->f_flags & FMODE_EXEC))
		actions = 1U << GUARD_READ;
	if (mask & (MAY_WRITE | MAY_APPEND))
		actions |= 1U << GUARD_WRITE;
	return actions;
}

/* Each use of an open file is decided anew: it may have been opened before the policy, inherited or received. What exec
 * opened is read by the kernel: that it may be executed was decided when it was opened. */
SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	struct view seen, v;
	__u32 actions;
	__u64 since;

	if (ret)
		return ret;
	if (!glance(&seen))
		return 0;
	actions = concerned(&seen, 1U << GUARD_READ | 1U << GUARD_WRITE | SENDING | GUARD_KNOWS_LABELS);
	if (!actions)
		return 0;
	v = seen;
	if (actions & ~GUARD_KNOWS_LABELS) {
		if ((file->f_inode->i_mode & S_IFMT) == S_IFSOCK) {
			if ((mask & MAY_WRITE) && (actions & SENDING) && refuse_socket_file(&v, file, actions & SENDING))
				return -EPERM;
		} else {
			actions &= using(file, mask);
			if (actions && refuse_seen(&v, file, actions))
				return -EPERM;
		}
	}
	since = labels_since();
	if (!since || (mask == MAY_READ && read_before(file, since, seen.generation)))
		return 0;
	return answer(refuse_passing(&v, file, mask & MAY_READ, mask & (MAY_WRITE | MAY_APPEND)));
}

/* An open file from another process: over a unix socket, or taken by its number. */
SEC("lsm/file_receive")
int BPF_PROG(file_receive, struct file *file, int ret)
{
	__u32 actions = 0;
	struct view v;

	if (ret)
		return ret;
	if (!glance(&v))
		return 0;
	if (file->f_mode & FMODE_READ)
		actions |= 1U << GUARD_READ;
	if (file->f_mode & FMODE_WRITE)
		actions |= 1U << GUARD_WRITE;
	actions = concerned(&v, actions);
	if (actions && refuse_seen(&v, file, actions))
		return -EPERM;
	return answer(refuse_passing(&v, file, file->f_mode & FMODE_READ, file->f_mode & FMODE_WRITE));
}

/* What is mapped is read without any further call, whatever the protection is for now. */
static __always_inline __u32 mapping_actions(unsigned long prot, bool shared)
{
	__u32 actions = 1U << GUARD_READ;

	if (shared && (prot & PROT_WRITE))
		actions |= 1U << GUARD_WRITE;
	if (prot & PROT_EXEC)
		actions |= 1U << GUARD_EXECUTE;	/* ld.so, a library */
	return actions;
}

/* An overlay maps the file behind its own. Where no hook shows that one, it is to be had from the overlay's open file. */
static __noinline bool refuse_backing(const struct view *v, const struct file *file, __u32 actions)
{
	struct place at = { .reason = GUARD_NO_CHAIN };
	const struct bound *b;
	__u64 inode;

	if (!v)
		return 1;
	if (v->slot >= GUARD_SLOTS)
		return 0;
	b = bound(v);
	if (!b)
		return 1;
	actions &= b->actions;
	if (!actions)
		return 0;
	inode = inode_behind(file);
	if (inode)
		return refuse_aliases(v, b, (struct inode *)inode, actions);
	return refuse_place(v, b, &at, actions, BPF_CORE_READ(file, f_path.dentry));
}

/* What exec opened was decided when it was opened. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	struct view v;
	__u32 actions;

	if (ret)
		return ret;
	if (!file || !glance(&v))
		return 0;
	if (refuse_mapping(&v, file, flags & MAP_SHARED))
		return -EPERM;
	if (file->f_flags & FMODE_EXEC)
		return 0;
	actions = concerned(&v, mapping_actions(prot, flags & MAP_SHARED));
	if (!actions)
		return 0;
	if (!bpf_core_field_exists(((union security_list_options *)0)->mmap_backing_file) &&
	    file->f_inode->i_sb->s_magic == OVERLAYFS_MAGIC && refuse_backing(&v, file, actions))
		return -EPERM;
	return answer(refuse_seen(&v, file, actions));
}

SEC("lsm/mmap_backing_file")
int BPF_PROG(mmap_backing_file, struct vm_area_struct *vma, struct file *backing, struct file *file, int ret)
{
	unsigned long flags;

	if (ret)
		return ret;
	if (backing->f_flags & FMODE_EXEC)
		return 0;
	flags = vma->vm_flags;	/* the lowest bits are those of a protection */
	return answer(refuse_file(backing, mapping_actions(flags, flags & VM_SHARED)));
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot, int ret)
{
	struct file *file;

	if (ret)
		return ret;
	file = vma->vm_file;
	if (!file || (file->f_flags & FMODE_EXEC))
		return 0;
	return answer(refuse_file(file, mapping_actions(prot, vma->vm_flags & VM_SHARED)));
}

/* A second name for an object, or another: see guard_moved. A rename also writes over what is at its target. */
struct move {
	struct place source, target;
	__u32 action;
};

static __noinline bool refuse_move(const struct view *v, const struct bound *b, const struct move *move,
				   const struct dentry *from, const struct dentry *to)
{
	const struct guard_state *s = 0, *t = 0;
	const struct guard_policy *p;
	struct guard_vector moved;
	const struct inode *inode;
	struct outcome o = {};

	if (!v || !b || !move)
		return 1;
	inode = BPF_CORE_READ(from, d_inode);
	o.action = move->action;
	o.reason = move->source.reason ? move->source.reason : move->target.reason;
	if (o.reason == GUARD_BY_RULE) {
		s = state_of(v->slot, move->source.state);
		t = state_of(v->slot, move->target.state);
		if (!s || !t)
			o.reason = GUARD_BROKEN_MAP;
	}
	if (!s || !t)
		return !allowed(v, b, 0, &o) && tell_file(v, &o, from);
	p = policy_of(v);
	if (!p)
		return 0;
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) == S_IFDIR)
		guard_moved(&moved, &s->reaches, &s->pervades, &t->reaches, &t->pervades, &p->of_action[GUARD_WRITE]);
	else
		guard_moved(&moved, &s->covers, &s->covers, &t->covers, &t->covers, &p->of_action[GUARD_WRITE]);
	if (!allowed(v, b, &moved, &o) && tell_file(v, &o, from))
		return 1;
	inode = BPF_CORE_READ(to, d_inode);
	if (move->action != GUARD_RENAME || !inode)
		return 0;
	o.action = GUARD_WRITE;
	return !allowed(v, b, &t->covers, &o) && tell_file(v, &o, to);
}

static __always_inline bool refuse_name(struct dentry *from, struct dentry *to, __u32 action)
{
	const __u32 file_actions = 1U << GUARD_READ | 1U << GUARD_WRITE | 1U << GUARD_EXECUTE | 1U << GUARD_UNIX_CONNECT;
	struct move move = { .action = action };
	const struct bound *b;
	struct view v;

	if (!see(&v) || !concerned(&v, file_actions))
		return 0;
	b = bound(&v);
	if (!b)
		return 1;
	if (!(b->actions & file_actions))
		return 0;
	guard_place(v.slot, number(from), &move.source);
	guard_place(v.slot, number(to), &move.target);
	return refuse_move(&v, b, &move, from, to);
}

SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *from, struct inode *folder, struct dentry *to, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_name(from, to, GUARD_LINK));
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_folder, struct dentry *from, struct inode *new_folder, struct dentry *to,
	     int ret)
{
	if (ret)
		return ret;
	return answer(refuse_name(from, to, GUARD_RENAME));
}

#endif
