/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What both objects of the observer record: the subject, the object, the action and how often. Subjects and paths are
 * sent once through a ring buffer; counts stay in a hash map until the end. Entries without room are counted by
 * reason. Loops are unrolled: the verifier of 6.1 loses its knowledge at the head of a short loop and then follows
 * the rest of the program for each of its ends. The kernel's types come from abi/kernel.h (CO-RE) or from the
 * kernel's headers (BCC).
 */
#ifndef OBSERVE_H
#define OBSERVE_H

#ifndef OBSERVE_SELF /* BCC compiles this text with the kernel's headers before it */
#ifdef __bpf__
#include "abi/bpf.h"
#else
#include <linux/types.h>
#endif
#endif

#define OBSERVE_GROUPS 32
#define OBSERVE_NAME 256 /* a component with its NUL */
#define OBSERVE_PATH 1024
#define OBSERVE_DEPTH 20

enum observe_kind { OBSERVE_SUBJECT = 1, OBSERVE_OBJECT };
enum observe_action {
	OBSERVE_READ,
	OBSERVE_WRITE,
	OBSERVE_EXECUTE,
	OBSERVE_CONNECT,
	OBSERVE_SEND,
	OBSERVE_REPLY,
	OBSERVE_BIND,
	OBSERVE_LISTEN,
	OBSERVE_ACCEPT,
	OBSERVE_CHDIR,
	OBSERVE_OPEN = 16, /* or'ed with 1: for reading, 2: for writing, 32: to be executed */
};
enum observe_lost { OBSERVE_LOST_SUBJECT, OBSERVE_LOST_OBJECT, OBSERVE_LOST_ENTRY, OBSERVE_LOST_UNIT, OBSERVE_LOSSES };

struct observe_who {
	__u64 groups; /* a digest of their number and their address */
	__u64 cgroup;
	__u64 inode; /* of the executable; 0: a kernel thread */
	__u32 device;
	__u32 name; /* hash of its name */
	__u32 uid, euid, gid, login_uid;
};

struct observe_what {
	__u64 inode;
	__u32 device;
	__u32 name; /* hash of its name: tells a reused number from the old object */
	__u32 family, protocol, port, pad;
	__u8 address[16];
};

struct observe_entry {
	__u64 subject; /* digest of an observe_who */
	__u32 action;
	__u32 pad;
	struct observe_what what;
};

struct observe_times {
	__u64 count, first, last;
};

struct observe_chain {
	__u32 device;
	__u32 size;
	__u32 whole; /* 1: it reaches the root of its filesystem */
	__u32 pad;
	char names[OBSERVE_PATH]; /* from the last component up, each with its NUL */
};

struct observe_subject {
	__u32 kind;
	__u32 group_count; /* may be more than OBSERVE_GROUPS */
	__u64 subject;
	struct observe_who who;
	__u32 groups[OBSERVE_GROUPS];
	struct observe_chain executable, cgroup;
};

struct observe_object {
	__u32 kind;
	__u32 pad;
	struct observe_what what;
	struct observe_chain path;
};

/* A unit that is started: the path of its cgroup. */
struct observe_unit {
	char path[256];
};

#ifdef OBSERVE_PROGRAMS

/* Access to the maps, defined by the object that includes this header. */
static __always_inline __u64 *find_subject(__u64 *subject);
static __always_inline long keep_subject(__u64 *subject, __u64 *now);
static __always_inline __u64 *find_object(struct observe_what *what);
static __always_inline long keep_object(struct observe_what *what, __u64 *now);
static __always_inline struct observe_times *find_entry(struct observe_entry *entry);
static __always_inline long keep_entry(struct observe_entry *entry, struct observe_times *times);
static __always_inline void count_loss(__u32 reason);
static __always_inline void *reserve_subject(void);
static __always_inline void *reserve_object(void);
static __always_inline void submit(void *record);
static __always_inline void discard(void *record);
static __always_inline __u32 login_of(struct task_struct *task);
static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node);

#define FIELD(from, field)                                                                            \
	({                                                                                            \
		__typeof__((from)->field) value_;                                                     \
		__builtin_memset((void *)&value_, 0, sizeof(value_));                                 \
		bpf_probe_read_kernel((void *)&value_, sizeof(value_), (const void *)&(from)->field); \
		value_;                                                                               \
	})

static __always_inline __u64 mix_digest(__u64 digest, __u64 word)
{
	digest = (digest ^ word) * 0x9e3779b97f4a7c15ULL;
	return digest ^ (digest >> 29);
}

static __always_inline struct dentry *executable_of(struct task_struct *task)
{
	struct mm_struct *mm = FIELD(task, mm);
	struct file *file = mm ? FIELD(mm, exe_file) : 0;

	return file ? FIELD(file, f_path.dentry) : 0;
}

static __always_inline void write_chain(struct observe_chain *chain, struct dentry *d)
{
	struct super_block *sb;
	struct dentry *root, *up;
	__u32 at = 0, i;
	long size;

	chain->device = chain->whole = chain->pad = 0;
	chain->size = 0;
	if (!d)
		return;
	sb = FIELD(d, d_sb);
	root = FIELD(sb, s_root);
	chain->device = FIELD(sb, s_dev);
#pragma unroll
	for (i = 0; i < OBSERVE_DEPTH; i++) {
		if (d == root) {
			chain->whole = 1;
			break;
		}
		__asm__ volatile("" : "+r"(at)); /* the verifier checks the bound of this register */
		if (at > OBSERVE_PATH - OBSERVE_NAME)
			break;
		size = bpf_probe_read_kernel_str(chain->names + at, OBSERVE_NAME, (const void *)FIELD(d, d_name.name));
		if (size <= 0)
			break;
		at += size & (2 * OBSERVE_NAME - 1);
		up = FIELD(d, d_parent);
		if (up == d)
			break;
		d = up;
	}
	chain->size = at;
}

static __always_inline void write_cgroup(struct observe_chain *chain, struct kernfs_node *node)
{
	struct kernfs_node *up;
	__u32 at = 0, i;
	long size;

	chain->device = chain->whole = chain->pad = 0;
#pragma unroll
	for (i = 0; i < OBSERVE_DEPTH / 2; i++) {
		up = parent_of(node);
		if (!up) {
			chain->whole = 1;
			break;
		}
		__asm__ volatile("" : "+r"(at)); /* the verifier checks the bound of this register */
		if (at > OBSERVE_PATH - OBSERVE_NAME)
			break;
		size = bpf_probe_read_kernel_str(chain->names + at, OBSERVE_NAME, (const void *)FIELD(node, name));
		if (size <= 0)
			break;
		at += size & (2 * OBSERVE_NAME - 1);
		node = up;
	}
	chain->size = at;
}

/* The digest of the current subject, which is sent first; 0: there is no room for it. */
static __always_inline __u64 subject_of(struct task_struct *task, __u64 now)
{
	struct observe_who who = {};
	__u32 count, size;
	struct observe_subject *record;
	const struct cred *cred = FIELD(task, cred);
	struct group_info *info = FIELD(cred, group_info);
	struct css_set *sets = FIELD(task, cgroups);
	struct cgroup *cgroup = FIELD(sets, dfl_cgrp);
	struct kernfs_node *node = FIELD(cgroup, kn);
	struct dentry *program = executable_of(task);
	__u64 subject;

	who.uid = FIELD(cred, uid.val);
	who.euid = FIELD(cred, euid.val);
	who.gid = FIELD(cred, gid.val);
	who.login_uid = login_of(task);
	who.cgroup = FIELD(node, id);
	if (program) {
		struct inode *inode = FIELD(program, d_inode);
		struct super_block *sb = FIELD(program, d_sb);

		who.inode = FIELD(inode, i_ino);
		who.device = FIELD(sb, s_dev);
		who.name = FIELD(program, d_name.hash);
	}
	count = FIELD(info, ngroups);
	who.groups =
		mix_digest((__u64)info, count); /* Two copies of a list give two subjects; user space merges them. */
	subject = mix_digest(mix_digest(mix_digest(mix_digest(0, who.groups), who.cgroup), who.inode),
			     (__u64)who.device << 32 | who.name);
	subject =
		mix_digest(mix_digest(subject, (__u64)who.uid << 32 | who.euid), (__u64)who.gid << 32 | who.login_uid);
	if (find_subject(&subject))
		return subject;
	record = reserve_subject();
	if (!record)
		return 0;
	if (keep_subject(&subject, &now)) {
		discard(record);
		return 0;
	}
	record->kind = OBSERVE_SUBJECT;
	record->subject = subject;
	record->who = who;
	record->group_count = count;
	__builtin_memset(record->groups, 0, sizeof(record->groups));
	size = count > OBSERVE_GROUPS ? sizeof(record->groups) : count * sizeof(record->groups[0]);
	if (size && size <= sizeof(record->groups))
		bpf_probe_read_kernel(record->groups, size, (const void *)info->gid);
	write_chain(&record->executable, program);
	write_cgroup(&record->cgroup, node);
	submit(record);
	return subject;
}

/* Counts an action. The path of the object is sent at its first action. */
static __always_inline void record_action(struct observe_entry *entry, struct dentry *d)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 now = bpf_ktime_get_boot_ns();
	struct observe_times *times, first = { .count = 1, .first = now, .last = now };
	struct observe_object *record;

	entry->subject = subject_of(task, now);
	if (!entry->subject) {
		count_loss(OBSERVE_LOST_SUBJECT);
		return;
	}
	times = find_entry(entry);
	if (times) {
		__sync_fetch_and_add(&times->count, 1);
		times->last = now;
		return;
	}
	if (d && !find_object(&entry->what)) {
		record = reserve_object();
		if (!record) {
			count_loss(OBSERVE_LOST_OBJECT);
			return;
		}
		if (keep_object(&entry->what, &now)) {
			discard(record);
			count_loss(OBSERVE_LOST_OBJECT);
			return;
		}
		record->kind = OBSERVE_OBJECT;
		record->pad = 0;
		record->what = entry->what;
		write_chain(&record->path, d);
		submit(record);
	}
	if (!keep_entry(entry, &first))
		return;
	times = find_entry(entry); /* another processor was faster, or the map is full */
	if (times)
		__sync_fetch_and_add(&times->count, 1);
	else
		count_loss(OBSERVE_LOST_ENTRY);
}

static __always_inline void set_file(struct observe_entry *entry, struct dentry *d)
{
	struct inode *inode = FIELD(d, d_inode);
	struct super_block *sb = FIELD(d, d_sb);

	entry->what.inode = FIELD(inode, i_ino);
	entry->what.device = FIELD(sb, s_dev);
	entry->what.name = FIELD(d, d_name.hash);
}

#endif
#endif
