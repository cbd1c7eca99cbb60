/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a task carries: the labels of the resources that it has read. They belong to all that share an address space.
 *
 * Tasks that are known to share theirs have a cell; the labels of others lie with the task. A task that nobody has
 * followed since labels are in use (it is older) is known by its address space: it has held it all the time, so that
 * the pointer, by value, is that of everybody else it shares it with, and of nobody's that came later.
 */
#ifndef GUARD_SUBJECT_CARRIER_H
#define GUARD_SUBJECT_CARRIER_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"

#define CROWD 1 /* the cell of those for whom there was no room; user space makes it. `members` gives new numbers. */
#define SPACE (1ULL << 63) /* from here on: an address space, by value */
#define ALL_LABELS (~0ULL)

/* Not in the task's storage: 6.1 does not find it while another task is interrupted in a look-up. A task's address may
 * come back as another task's, which task_alloc then begins anew. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_CARRIERS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct guard_carrier);
} carriers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_CELLS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_cell_key);
	__type(value, struct guard_cell);
} cells SEC(".maps");

/* 0: labels are not in use. */
static __always_inline __u64 labels_since(void)
{
	struct guard_facts *f = fact();

	return f ? f->labels_since : 0;
}

static __always_inline struct guard_cell *cell_of(__u64 since, __u64 number)
{
	struct guard_cell_key key = { .since = since, .number = number };

	return bpf_map_lookup_elem(&cells, &key);
}

/* A task's carrier. One that is not followed yet is from here on, by what it shares its address space by. 0: there is
 * no room for it, so that nothing can be told and nothing remembered. */
static __noinline struct guard_carrier *carrier_of(__u64 task, __u64 since)
{
	struct guard_carrier fresh = {};
	struct guard_carrier *c = bpf_map_lookup_elem(&carriers, &task);

	if (c && c->since == since)
		return c;
	fresh.since = since;
	fresh.cell = (__u64)BPF_CORE_READ((struct task_struct *)task, mm); /* a kernel thread has none */
	bpf_map_update_elem(&carriers, &task, &fresh, c ? BPF_ANY : BPF_NOEXIST);
	return bpf_map_lookup_elem(&carriers, &task);
}

static __always_inline struct guard_carrier *own_carrier(__u64 since)
{
	return carrier_of(bpf_get_current_task(), since);
}

static __always_inline __u64 labels_of(const struct guard_carrier *c)
{
	__u64 labels = c->labels, number = c->cell;
	struct guard_cell *cell;

	if (!number)
		return labels;
	cell = cell_of(c->since, number);
	if (cell)
		return labels | cell->labels;
	/* an address space has a cell once there is a label for it */
	return number >= SPACE ? labels : ALL_LABELS;
}

/* What the current task carries; every label when that can't be told. */
static __noinline __u64 carried(void)
{
	__u64 since = labels_since();
	struct guard_carrier *c;

	if (!since)
		return 0;
	c = own_carrier(since);
	return c ? labels_of(c) : ALL_LABELS;
}

/* What a label says by itself, where no rule does: no more than every rule that asks for labels. */
static __always_inline __u32 verdict_of_label(const struct guard_policy *p)
{
	return p->uses & GUARD_DENIES_LABELS ? GUARD_DENY : GUARD_AUDIT;
}

/* False: there is no such cell. */
static __noinline bool label_cell(__u64 since, __u64 number, __u64 labels)
{
	struct guard_cell_key key = { .since = since, .number = number };
	struct guard_cell *cell = bpf_map_lookup_elem(&cells, &key);
	struct guard_cell fresh = {};

	if (!cell && number >= SPACE) {
		bpf_map_update_elem(&cells, &key, &fresh, BPF_NOEXIST);
		cell = bpf_map_lookup_elem(&cells, &key);
	}
	if (!cell)
		return 0;
	__sync_fetch_and_or(&cell->labels, labels);
	return 1;
}

/* Gives a carrier more labels, and all that share its cell. False: they can't be remembered. */
static __noinline bool label_carrier(struct guard_carrier *c, __u64 labels)
{
	if (!c)
		return 0;
	if (!c->cell) {
		__sync_fetch_and_or(&c->labels, labels);
		/* meanwhile it may have got a cell, which began with what it had before */
		if (!c->cell)
			return 1;
	}
	return label_cell(c->since, c->cell, labels);
}

/* A cell for one that has none: for others to share, or to be labelled by. False: there is no room at all. */
static __noinline bool found_cell(struct guard_carrier *c)
{
	struct guard_cell fresh = { .members = 1 };
	struct guard_cell_key key;
	struct guard_cell *cell;

	if (!c)
		return 0;
	if (c->cell)
		return 1;
	cell = cell_of(c->since, CROWD);
	if (!cell)
		return 0;
	key.since = c->since;
	key.number = __sync_fetch_and_add(&cell->members, 1);
	if (bpf_map_update_elem(&cells, &key, &fresh, BPF_NOEXIST))
		key.number = CROWD; /* whose labels they share: too many, perhaps, never too few */
	c->cell = key.number;
	/* after the cell was set: whoever labels the carrier from outside looks again */
	return label_cell(key.since, key.number, __sync_fetch_and_or(&c->labels, 0));
}

static __always_inline bool counted(__u64 number)
{
	return number > CROWD && number < SPACE;
}

static __noinline int leave_cell(struct guard_carrier *c)
{
	struct guard_cell_key key;
	struct guard_cell *cell;

	if (!c)
		return 0;
	key.since = c->since;
	key.number = c->cell;
	c->cell = 0;
	if (!counted(key.number))
		return 0;
	cell = bpf_map_lookup_elem(&cells, &key);
	if (cell && __sync_fetch_and_add(&cell->members, -1) == 1)
		bpf_map_delete_elem(&cells, &key);
	return 0;
}

/* At fork. False: the child would lose what it is to carry. */
static __always_inline bool hand_on_labels(struct task_struct *child, unsigned long flags)
{
	struct guard_carrier fresh = { .since = labels_since() };
	struct guard_cell *cell;
	struct guard_carrier *c;
	__u64 key;

	if (!fresh.since)
		return 1;
	c = own_carrier(fresh.since);
	if (!c)
		return 0;
	/* who shares a table of descriptors can be handed anything, too */
	if ((flags & (CLONE_VM | CLONE_FILES)) && bpf_get_current_task_btf()->mm) {
		if (!found_cell(c))
			return 0;
		fresh.cell = c->cell;
		cell = counted(fresh.cell) ? cell_of(fresh.since, fresh.cell) : 0;
		if (cell)
			__sync_fetch_and_add(&cell->members, 1);
	} else {
		fresh.labels = labels_of(c);
	}
	key = number(child);
	return !bpf_map_update_elem(&carriers, &key, &fresh, BPF_ANY);
}

/* While exec still has the old address space. False: what it carries would be lost. */
static __always_inline bool before_exec(void)
{
	__u64 since = labels_since();

	return !since || own_carrier(since);
}

/* The new address space begins with what the old one carried, and with what is executed. */
static __always_inline void after_exec(void)
{
	__u64 since = labels_since();
	struct guard_carrier *c;

	if (!since)
		return;
	c = own_carrier(since);
	if (!c)
		return;
	__sync_fetch_and_or(&c->labels, labels_of(c) | c->image);
	c->image = 0;
	leave_cell(c);
}

static __always_inline void forget_task(struct task_struct *task)
{
	__u64 key = number(task);
	struct guard_carrier *c = bpf_map_lookup_elem(&carriers, &key);

	if (!c)
		return;
	leave_cell(c);
	bpf_map_delete_elem(&carriers, &key);
}

#endif
