/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is told of a decision: counters and events.
 */
#ifndef GUARD_DECISION_REPORT_H
#define GUARD_DECISION_REPORT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "decision/verdict.h"

/* what happened, for the event */
struct matter {
	__u64 generation;
	__u64 dentry, inode;
	__u64 name; /* of an abstract unix socket, name_size bytes */
	__u32 slot, device;
	__u32 action, verdict, reason, rule;
	__u32 family, protocol, port, name_size;
	__u8 address[16];
};

#define COMPONENTS 24

/* Components from the leaf up, each with its NUL; a component is cut to half of the room. */
static __always_inline __u32 write_chain(char *to, __u32 room, const struct dentry *d)
{
	const struct dentry *root, *parent;
	__u32 at = 0, i;
	long size;

	root = BPF_CORE_READ(d, d_sb, s_root);
	for (i = 0; i < COMPONENTS; i++) {
		barrier_var(at);
		if (d == root || at > room / 2 - 1)
			break;
		size = bpf_probe_read_kernel_str(to + at, room / 2, BPF_CORE_READ(d, d_name.name));
		if (size <= 0)
			break;
		at += size & (GUARD_PATH - 1);
		parent = BPF_CORE_READ(d, d_parent);
		if (parent == d)
			break;
		d = parent;
	}
	return at;
}

static __noinline __u32 write_path(char *to, const struct dentry *d)
{
	return to && d ? write_chain(to, GUARD_PATH, d) : 0;
}

static __noinline __u32 write_executable(char *to, const struct dentry *d)
{
	return to && d ? write_chain(to, GUARD_PATH / 2, d) : 0;
}

static __noinline __u32 write_cgroup(char *to, struct kernfs_node *node)
{
	struct kernfs_node *parent;
	__u32 at = 0, i;
	long size;

	if (!to)
		return 0;
	for (i = 0; i < GUARD_CGROUP_DEPTH; i++) {
		parent = parent_of(node);
		if (!parent || at > GUARD_PATH / 4 - 1)
			break;
		size = bpf_probe_read_kernel_str(to + at, GUARD_PATH / 4, BPF_CORE_READ(node, name));
		if (size <= 0)
			break;
		at += size & (GUARD_PATH - 1);
		node = parent;
	}
	return at;
}

static __noinline __u32 write_name(char *to, __u64 name, __u32 size)
{
	barrier_var(size);
	if (!to || size >= GUARD_PATH / 4 || bpf_probe_read_kernel(to, size, (const void *)name))
		return 0;
	to[size] = 0;
	return size + 1;
}

/* Counts first, tells if there is room: written + lost = denied + audited. */
int guard_tell(const struct matter *m)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct guard_rule *rule = 0;
	struct guard_count *count;
	struct guard_totals *sum;
	struct guard_event *e;
	__u64 sequence;
	__u32 slot;
	void *inner;

	if (!m)
		return 0;
	slot = m->slot;
	sum = total();
	if (!sum)
		return 0;
	sequence = m->verdict == GUARD_DENY ? __sync_fetch_and_add(&sum->denied, 1)
					    : __sync_fetch_and_add(&sum->audited, 1);
	if (m->reason != GUARD_BY_RULE)
		__sync_fetch_and_add(&sum->reasons[m->reason & (GUARD_REASONS - 1)], 1);
	inner = INNER_OF(rules, slot);
	if (inner) {
		__u32 index = m->rule;

		rule = bpf_map_lookup_elem(inner, &index);
	}
	if (rule) {
		guard_u64 id = rule->id;

		count = bpf_map_lookup_elem(&counters, &id);
		if (count)
			__sync_fetch_and_add(m->verdict == GUARD_DENY ? &count->denied : &count->audited, 1);
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&sum->lost, 1);
		return 0;
	}
	/* the paths are read only as far as their sizes say */
	__builtin_memset(e, 0, __builtin_offsetof(struct guard_event, path));
	e->sequence = sequence;
	e->time = bpf_ktime_get_boot_ns();
	e->generation = m->generation;
	e->action = m->action;
	e->verdict = m->verdict;
	e->reason = m->reason;
	e->inode = m->inode;
	e->device = m->device;
	e->family = m->family;
	e->protocol = m->protocol;
	e->port = m->port;
	__builtin_memcpy(e->address, m->address, sizeof(e->address));
	if (rule) {
		e->rule_id = rule->id;
		__builtin_memcpy(e->rule, rule->name, sizeof(e->rule));
	}
	e->pid = task->tgid;
	e->tid = task->pid;
	e->start_time = task->group_leader->start_boottime;
	e->uid = task->cred->uid.val;
	e->euid = task->cred->euid.val;
	e->gid = task->cred->gid.val;
	e->login_uid = ~0U;
	if (bpf_core_field_exists(task->loginuid))
		e->login_uid = task->loginuid.val;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->cgroup_id = cgroup_of(task);
	e->cgroup_size = write_cgroup(e->cgroup, task->cgroups->dfl_cgrp->kn);
	if (m->dentry)
		e->path_size = write_path(e->path, (const struct dentry *)m->dentry);
	else if (m->name)
		e->path_size = write_name(e->path, m->name, m->name_size);
	if (task->mm) {
		const struct file *file = BPF_CORE_READ(task, mm, exe_file);

		if (file) {
			e->executable_device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
			e->executable_size = write_executable(e->executable, BPF_CORE_READ(file, f_path.dentry));
		}
	}
	bpf_ringbuf_submit(e, 0);
	__sync_fetch_and_add(&sum->written, 1);
	return 0;
}

static __always_inline void describe(const struct view *v, const struct outcome *o, struct matter *m)
{
	m->generation = v->generation;
	m->slot = v->slot;
	m->action = o->action;
	m->verdict = o->verdict;
	m->reason = o->reason;
	m->rule = o->rule;
}

static __noinline void tell_plain(const struct view *v, const struct outcome *o)
{
	struct matter m = {};

	if (!v || !o)
		return;
	describe(v, o, &m);
	guard_tell(&m);
}

static __noinline bool tell_file(const struct view *v, const struct outcome *o, const struct dentry *d)
{
	const struct inode *inode = BPF_CORE_READ(d, d_inode);
	struct matter m = {};

	if (!v || !o)
		return 1;
	describe(v, o, &m);
	m.dentry = (__u64)d;
	m.inode = BPF_CORE_READ(inode, i_ino);
	m.device = BPF_CORE_READ(inode, i_sb, s_dev);
	guard_tell(&m);
	return o->verdict == GUARD_DENY;
}

#endif
