/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A file that a task has read, and under what: the task carries whatever reading it again would give, as long as all of
 * this is the same. For most reads that is all there is to do while labels are in use.
 */
#ifndef GUARD_LABEL_READING_H
#define GUARD_LABEL_READING_H

#include "abi/bpf.h"
#include "core/maps.h"
#include "object/path.h"

/* By the file's address, which each open forgets. */
struct reading {
	__u64 version; /* odd while somebody writes; a reader that sees it move has read nothing */
	__u64 file, inode;
	__u64 task, started;
	__u64 generation, since;
	__u64 changes; /* of what it depends on, counted */
};
#define UNTOLD 1ULL /* changes: not known */
#define READINGS 4096

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, READINGS);
	__type(key, __u32);
	__type(value, struct reading);
} readings SEC(".maps");

/* How often something that is read from, such as the content of a file, came to carry a label that it did not carry before. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} marked_files SEC(".maps");

static __noinline int count_mark(void)
{
	__u32 zero = 0, *made = bpf_map_lookup_elem(&marked_files, &zero);

	if (made)
		__sync_fetch_and_add(made, 1);
	return 0;
}

/* Renames in the lower half, which is odd while one goes on; what came to carry a label in the upper. */
static __always_inline __u64 changes_so_far(void)
{
	__u32 zero = 0, renames = 0;
	const __u32 *made = bpf_map_lookup_elem(&marked_files, &zero);

	if (!made || rename_sequence(&renames))
		return UNTOLD;
	return (__u64) * (volatile __u32 *)made << 32 | renames;
}

static __noinline __u64 changes_now(void)
{
	return changes_so_far();
}

static __always_inline struct reading *reading_of(const struct file *file)
{
	__u32 index;

	asm volatile("%0 = %1" : "=w"(index) : "w"((__u32)(__u64)file));
	index = (index >> 6 ^ index >> 18) & (READINGS - 1);
	return bpf_map_lookup_elem(&readings, &index);
}

static __always_inline void forget_reading(const struct file *file)
{
	struct reading *r = reading_of(file);

	if (r && r->file == (__u64)file)
		__sync_val_compare_and_swap(&r->file, (__u64)file, 0);
}

/* True: reading it gives the current task nothing that it does not carry yet. */
static __always_inline bool read_before(struct file *file, __u64 since, __u64 generation)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct reading *r = reading_of(file), *then;
	__u64 version, differ;

	if (!r)
		return 0;
	version = *(volatile __u64 *)&r->version;
	then = (void *)r + after(version);
	/* pointers are compared only: the verifier takes no other operation on them */
	if (then->file != (__u64)file || then->inode != (__u64)file->f_inode || then->task != (__u64)task)
		return 0;
	differ = then->started ^ task->start_boottime;
	differ |= then->generation ^ generation;
	differ |= then->since ^ since;
	if (differ)
		return 0;
	differ = then->changes ^ changes_so_far();
	then = (void *)then + after(differ);
	return !differ && *(volatile __u64 *)&then->version == (version & ~1ULL);
}

/* What held before the labels were looked for. Never refused. */
static __noinline bool remember_reading(struct file *file, const struct view *v, __u64 since, __u64 changes)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct reading *r = reading_of(file);
	__u64 version;

	if (!r || !v || (changes & 1))
		return 0;
	version = r->version;
	if ((version & 1) || __sync_val_compare_and_swap(&r->version, version, version + 1) != version)
		return 0;
	r->file = number(file);
	r->inode = number(file->f_inode);
	r->task = number(task);
	r->started = task->start_boottime;
	r->generation = v->generation;
	r->since = since;
	r->changes = changes;
	__sync_fetch_and_add(&r->version, 1);
	return 0;
}

#endif
