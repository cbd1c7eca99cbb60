/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a task carries: the labels of the resources that it has read. They belong to all that share an address space.
 *
 * Tasks that are known to share theirs have a cell; the labels of others lie with the task. A task that nobody has
 * followed since labels are in use (it is older) is known by its address space: it has held it all the time, so that
 * the pointer, by value, is that of everybody else it shares it with, and of nobody's that came later.
 */
#ifndef GUARD_CELL_H
#define GUARD_CELL_H

#define ALL_LABELS (~0ULL)
#define CROWD 1		/* the cell of those for whom there was no room; user space makes it. `members` gives new numbers. */
#define SPACE (1ULL << 63)	/* from here on: an address space, by value */

struct carrier {
	__u64 since;	/* guard_facts.labels_since, while it is followed */
	__u64 cell;	/* 0: none */
	__u64 labels;	/* besides the cell's */
	__u64 image;	/* of what it is about to execute */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct carrier);
} carriers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_cell_key);
	__type(value, struct guard_cell);
} cells SEC(".maps");

/* 0: labels are not in use. */
static __always_inline __u64 labels_since(void)
{
	struct guard_facts *f;
	__u32 zero = 0;

	f = bpf_map_lookup_elem(&facts, &zero);
	return f ? f->labels_since : 0;
}

static __always_inline struct guard_cell *cell_of(__u64 since, __u64 number)
{
	struct guard_cell_key key = { .since = since, .number = number };

	return bpf_map_lookup_elem(&cells, &key);
}

/* Follows a task that is not yet: from here on its cell is what it shares its address space by. */
static __always_inline void follow(struct carrier *c, __u64 since, struct task_struct *task)
{
	if (c->since == since)
		return;
	c->labels = 0;
	c->image = 0;
	c->cell = number(task->mm);	/* a kernel thread has none */
	c->since = since;
}

/* What a carrier that is followed carries. */
static __always_inline __u64 labels_of(const struct carrier *c)
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

/* The current task's; 0: it can't be had, so that nothing can be told and nothing remembered. */
static __always_inline struct carrier *own_carrier(__u64 since)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct carrier *c = bpf_task_storage_get(&carriers, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (c)
		follow(c, since, task);
	return c;
}

/* What the current task carries; every label when that can't be told. */
static __noinline __u64 carried(void)
{
	__u64 since = labels_since();
	struct carrier *c;

	if (!since)
		return 0;
	c = own_carrier(since);
	return c ? labels_of(c) : ALL_LABELS;
}

/* Gives a carrier more labels, and all that share its cell. False: they can't be remembered. */
static __noinline bool label_carrier(struct carrier *c, __u64 labels)
{
	struct guard_cell fresh = {};
	struct guard_cell_key key;
	struct guard_cell *cell;

	if (!c)
		return 0;
	key.since = c->since;
	key.number = c->cell;
	if (!key.number) {
		__sync_fetch_and_or(&c->labels, labels);
		/* meanwhile it may have got a cell, for a thread that begins with what its maker had */
		key.number = c->cell;
		if (!key.number)
			return 1;
	}
	cell = bpf_map_lookup_elem(&cells, &key);
	if (!cell && key.number >= SPACE) {
		bpf_map_update_elem(&cells, &key, &fresh, BPF_NOEXIST);
		cell = bpf_map_lookup_elem(&cells, &key);
	}
	if (!cell)
		return 0;
	__sync_fetch_and_or(&cell->labels, labels);
	return 1;
}

/* A cell for one that has none: for others to share, or to be labelled by. False: there is no room at all. */
static __noinline bool found_cell(struct carrier *c)
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
		key.number = CROWD;	/* over-labelled, perhaps: better than not at all */
	c->cell = key.number;
	cell = bpf_map_lookup_elem(&cells, &key);
	if (!cell)
		return 0;
	/* after the cell was set: whoever labels the carrier from outside looks again */
	__sync_fetch_and_or(&cell->labels, __sync_fetch_and_or(&c->labels, 0));
	return 1;
}

static __noinline int leave_cell(struct carrier *c)
{
	struct guard_cell_key key;
	struct guard_cell *cell;

	if (!c)
		return 0;
	key.since = c->since;
	key.number = c->cell;
	c->cell = 0;
	if (key.number <= CROWD || key.number >= SPACE)
		return 0;
	cell = bpf_map_lookup_elem(&cells, &key);
	if (cell && __sync_fetch_and_add(&cell->members, -1) == 1)
		bpf_map_delete_elem(&cells, &key);
	return 0;
}

/* At fork. False: the child would lose what it is to carry. */
static __always_inline bool hand_on_labels(struct task_struct *child, unsigned long flags)
{
	__u64 since = labels_since(), labels = 0;
	struct carrier *c, *new;
	struct guard_cell *cell;
	bool shared;

	if (!since)
		return 1;
	c = own_carrier(since);
	if (!c)
		return 0;
	shared = (flags & CLONE_VM) && bpf_get_current_task_btf()->mm;
	if (!shared)
		labels = labels_of(c);
	else if (!found_cell(c))
		return 0;
	new = bpf_task_storage_get(&carriers, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!new)
		return 0;
	new->labels = labels;
	new->image = 0;
	new->cell = 0;
	if (shared) {
		new->cell = c->cell;
		cell = cell_of(since, c->cell);
		if (cell && c->cell > CROWD && c->cell < SPACE)
			__sync_fetch_and_add(&cell->members, 1);
	}
	new->since = since;
	return 1;
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
	struct carrier *c;

	if (!since)
		return;
	c = bpf_task_storage_get(&carriers, bpf_get_current_task_btf(), 0, 0);
	if (!c || c->since != since)
		return;
	__sync_fetch_and_or(&c->labels, labels_of(c) | c->image);
	c->image = 0;
	leave_cell(c);
}

#endif
