/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Counts decisions and emits events for them.
 */
#ifndef GUARD_DECISION_REPORT_H
#define GUARD_DECISION_REPORT_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "decision/verdict.h"

/* What an event is filled from. */
struct event_source {
	__u64 generation;
	__u64 dentry, inode;
	__u64 name; /* of an abstract unix socket, name_size bytes */
	__u32 slot, device;
	__u32 action, verdict, reason, rule;
	__u32 family, protocol, port, name_size;
	__u8 address[16];
};

#define EVENT_COMPONENTS 24

/* Writes the components from the last one up, each with its NUL. A component is cut to half of the buffer. */
static __always_inline __u32 write_chain(char *to, __u32 room, const struct dentry *d)
{
	const struct dentry *root, *parent;
	__u32 at = 0, i;
	long size;

	root = BPF_CORE_READ(d, d_sb, s_root);
	for (i = 0; i < EVENT_COMPONENTS; i++) {
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

/* Counts first, and emits an event if there is room: written + lost = denied + audited. */
int guard_emit_event(const struct event_source *source)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct guard_rule *rule = 0;
	struct guard_count *count;
	struct guard_totals *sum;
	struct guard_event *e;
	__u64 sequence;
	__u32 slot;
	void *inner;

	if (!source)
		return 0;
	slot = source->slot;
	sum = get_totals();
	if (!sum)
		return 0;
	sequence = source->verdict == GUARD_DENY ? __sync_fetch_and_add(&sum->denied, 1)
						 : __sync_fetch_and_add(&sum->audited, 1);
	if (source->reason != GUARD_BY_RULE)
		__sync_fetch_and_add(&sum->reasons[source->reason & (GUARD_REASONS - 1)], 1);
	inner = INNER_OF(rules, slot);
	if (inner) {
		__u32 index = source->rule;

		rule = bpf_map_lookup_elem(inner, &index);
	}
	if (rule) {
		guard_u64 id = rule->id;

		count = bpf_map_lookup_elem(&counters, &id);
		if (count)
			__sync_fetch_and_add(source->verdict == GUARD_DENY ? &count->denied : &count->audited, 1);
	}
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&sum->lost, 1);
		return 0;
	}
	/* Readers use only as much of each path as its size says, so the paths are not cleared. */
	__builtin_memset(e, 0, __builtin_offsetof(struct guard_event, path));
	e->sequence = sequence;
	e->time = bpf_ktime_get_boot_ns();
	e->generation = source->generation;
	e->action = source->action;
	e->verdict = source->verdict;
	e->reason = source->reason;
	e->inode = source->inode;
	e->device = source->device;
	e->family = source->family;
	e->protocol = source->protocol;
	e->port = source->port;
	__builtin_memcpy(e->address, source->address, sizeof(e->address));
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
	if (source->dentry)
		e->path_size = write_path(e->path, (const struct dentry *)source->dentry);
	else if (source->name)
		e->path_size = write_name(e->path, source->name, source->name_size);
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

static __always_inline void describe_decision(const struct generation_ref *gen, const struct outcome *o,
					      struct event_source *source)
{
	source->generation = gen->generation;
	source->slot = gen->slot;
	source->action = o->action;
	source->verdict = o->verdict;
	source->reason = o->reason;
	source->rule = o->rule;
}

static __noinline void emit_plain(const struct generation_ref *gen, const struct outcome *o)
{
	struct event_source source = {};

	if (!gen || !o)
		return;
	describe_decision(gen, o, &source);
	guard_emit_event(&source);
}

static __noinline bool emit_file(const struct generation_ref *gen, const struct outcome *o, const struct dentry *d)
{
	const struct inode *inode = BPF_CORE_READ(d, d_inode);
	struct event_source source = {};

	if (!gen || !o)
		return 1;
	describe_decision(gen, o, &source);
	source.dentry = (__u64)d;
	source.inode = BPF_CORE_READ(inode, i_ino);
	source.device = BPF_CORE_READ(inode, i_sb, s_dev);
	guard_emit_event(&source);
	return o->verdict == GUARD_DENY;
}

#endif
