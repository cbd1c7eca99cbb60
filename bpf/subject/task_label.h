/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Labels of a task: the resource sets that it has read from. Labels are shared by all tasks of one address space.
 *
 * Tasks that are known to share an address space have a label group; the labels of other tasks are in their own
 * entry. A task that is older than label tracking is identified by the address of its mm: it has held it all the
 * time, so that only tasks that share the address space have the same value.
 */
#ifndef GUARD_SUBJECT_TASK_LABEL_H
#define GUARD_SUBJECT_TASK_LABEL_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"

#define OVERFLOW_GROUP \
	1 /* Group for tasks without an entry of their own; user space makes it. Its `members` gives the next number. */
#define ADDRESS_SPACE_BASE (1ULL << 63) /* numbers from here on: the address of an mm */
#define ALL_LABELS (~0ULL)

/* Not task storage: on 6.1 a lookup fails while another task is interrupted in one. The address of a task may be
 * reused; task_alloc then overwrites the entry. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_TASK_LABELS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct guard_task_label);
} carriers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_LABEL_GROUPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_label_group_key);
	__type(value, struct guard_label_group);
} cells SEC(".maps");

/* Returns 0 if labels are not tracked. */
static __always_inline __u64 labels_since(void)
{
	struct guard_facts *f = get_facts();

	return f ? f->labels_since : 0;
}

static __always_inline struct guard_label_group *label_group_of(__u64 since, __u64 number)
{
	struct guard_label_group_key key = { .since = since, .number = number };

	return bpf_map_lookup_elem(&cells, &key);
}

/* The entry of a task. A task without an entry gets one here, with the address space that it shares as its group.
 * Returns NULL if the map is full: then labels can neither be read nor recorded. */
static __noinline struct guard_task_label *task_label_of(__u64 task, __u64 since)
{
	struct guard_task_label fresh = {};
	struct guard_task_label *label = bpf_map_lookup_elem(&carriers, &task);

	if (label && label->since == since)
		return label;
	fresh.since = since;
	fresh.group = (__u64)BPF_CORE_READ((struct task_struct *)task, mm); /* a kernel thread has none */
	bpf_map_update_elem(&carriers, &task, &fresh, label ? BPF_ANY : BPF_NOEXIST);
	return bpf_map_lookup_elem(&carriers, &task);
}

static __always_inline struct guard_task_label *current_task_label(__u64 since)
{
	return task_label_of(bpf_get_current_task(), since);
}

static __always_inline __u64 labels_of_task(const struct guard_task_label *label)
{
	__u64 labels = label->labels, number = label->group;
	struct guard_label_group *group;

	if (!number)
		return labels;
	group = label_group_of(label->since, number);
	if (group)
		return labels | group->labels;
	/* an address space gets an entry with its first label */
	return number >= ADDRESS_SPACE_BASE ? labels : ALL_LABELS;
}

/* Labels of the current task; every label if they cannot be read. */
static __noinline __u64 current_labels(void)
{
	__u64 since = labels_since();
	struct guard_task_label *label;

	if (!since)
		return 0;
	label = current_task_label(since);
	return label ? labels_of_task(label) : ALL_LABELS;
}

/* Verdict when a label cannot be recorded: deny if any label rule enforces, otherwise audit. */
static __always_inline __u32 label_verdict(const struct guard_policy *p)
{
	return p->uses & GUARD_DENIES_LABELS ? GUARD_DENY : GUARD_AUDIT;
}

/* Returns false if there is no such group. */
static __noinline bool add_group_labels(__u64 since, __u64 number, __u64 labels)
{
	struct guard_label_group_key key = { .since = since, .number = number };
	struct guard_label_group *group = bpf_map_lookup_elem(&cells, &key);
	struct guard_label_group fresh = {};

	if (!group && number >= ADDRESS_SPACE_BASE) {
		bpf_map_update_elem(&cells, &key, &fresh, BPF_NOEXIST);
		group = bpf_map_lookup_elem(&cells, &key);
	}
	if (!group)
		return 0;
	__sync_fetch_and_or(&group->labels, labels);
	return 1;
}

/* Adds labels to a task and its label group. Returns false if they cannot be recorded. */
static __noinline bool add_task_labels(struct guard_task_label *label, __u64 labels)
{
	if (!label)
		return 0;
	if (!label->group) {
		__sync_fetch_and_or(&label->labels, labels);
		/* The task may have joined a group meanwhile, which started with the labels that it had before. */
		if (!label->group)
			return 1;
	}
	return add_group_labels(label->since, label->group, labels);
}

/* Gives a task a label group, to share with others or to be found as a reader. Returns false if there is no room
 * even in the overflow group. */
static __noinline bool ensure_label_group(struct guard_task_label *label)
{
	struct guard_label_group fresh = { .members = 1 };
	struct guard_label_group_key key;
	struct guard_label_group *group;

	if (!label)
		return 0;
	if (label->group)
		return 1;
	group = label_group_of(label->since, OVERFLOW_GROUP);
	if (!group)
		return 0;
	key.since = label->since;
	key.number = __sync_fetch_and_add(&group->members, 1);
	if (bpf_map_update_elem(&cells, &key, &fresh, BPF_NOEXIST))
		key.number = OVERFLOW_GROUP; /* These tasks share labels: they may have too many, never too few. */
	label->group = key.number;
	/* After the group was set, since whoever adds labels to the task from outside checks again. */
	return add_group_labels(key.since, key.number, __sync_fetch_and_or(&label->labels, 0));
}

static __always_inline bool is_counted_group(__u64 number)
{
	return number > OVERFLOW_GROUP && number < ADDRESS_SPACE_BASE;
}

static __noinline int leave_label_group(struct guard_task_label *label)
{
	struct guard_label_group_key key;
	struct guard_label_group *group;

	if (!label)
		return 0;
	key.since = label->since;
	key.number = label->group;
	label->group = 0;
	if (!is_counted_group(key.number))
		return 0;
	group = bpf_map_lookup_elem(&cells, &key);
	if (group && __sync_fetch_and_add(&group->members, -1) == 1)
		bpf_map_delete_elem(&cells, &key);
	return 0;
}

/* At fork. Returns false if the child would lose labels. */
static __always_inline bool inherit_labels(struct task_struct *child, unsigned long flags)
{
	struct guard_task_label fresh = { .since = labels_since() };
	struct guard_label_group *group;
	struct guard_task_label *label;
	__u64 key;

	if (!fresh.since)
		return 1;
	label = current_task_label(fresh.since);
	if (!label)
		return 0;
	/* Tasks that share a descriptor table can pass any file to each other, too. */
	if ((flags & (CLONE_VM | CLONE_FILES)) && bpf_get_current_task_btf()->mm) {
		if (!ensure_label_group(label))
			return 0;
		fresh.group = label->group;
		group = is_counted_group(fresh.group) ? label_group_of(fresh.since, fresh.group) : 0;
		if (group)
			__sync_fetch_and_add(&group->members, 1);
	} else {
		fresh.labels = labels_of_task(label);
	}
	key = ptr_to_u64(child);
	return !bpf_map_update_elem(&carriers, &key, &fresh, BPF_ANY);
}

/* Called while exec still has the old address space. Returns false if labels would be lost. */
static __always_inline bool prepare_exec_labels(void)
{
	__u64 since = labels_since();

	return !since || current_task_label(since);
}

/* The new address space starts with the labels of the old one and of the executed file. */
static __always_inline void commit_exec_labels(void)
{
	__u64 since = labels_since();
	struct guard_task_label *label;

	if (!since)
		return;
	label = current_task_label(since);
	if (!label)
		return;
	__sync_fetch_and_or(&label->labels, labels_of_task(label) | label->exec_labels);
	label->exec_labels = 0;
	leave_label_group(label);
}

static __always_inline void drop_task_label(struct task_struct *task)
{
	__u64 key = ptr_to_u64(task);
	struct guard_task_label *label = bpf_map_lookup_elem(&carriers, &key);

	if (!label)
		return;
	leave_label_group(label);
	bpf_map_delete_elem(&carriers, &key);
}

#endif
