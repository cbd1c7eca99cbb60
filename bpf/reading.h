/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A file that a task has read, and under what: the task carries whatever reading it again would give, as long as all of
 * this is the same. For most reads that is all there is to do while labels are in use.
 */
#ifndef GUARD_READING_H
#define GUARD_READING_H

/* By the file's address, which each open forgets. */
struct reading {
	__u64 version;		/* odd while somebody writes; a reader that sees it move has read nothing */
	__u64 file, inode;
	__u64 task, started;
	__u64 generation, since;
	__u64 marked;		/* `marked_files` then */
	__u64 renames;
};
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
	__type(value, __u64);
} marked_files SEC(".maps");

static __always_inline __u64 *marked_count(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&marked_files, &zero);
}

static __noinline __u64 marks_made(void)
{
	__u64 *made = marked_count();

	return made ? __sync_fetch_and_add(made, 0) : 0;
}

static __noinline int count_mark(void)
{
	__u64 *made = marked_count();

	if (made)
		__sync_fetch_and_add(made, 1);
	return 0;
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
	const __u64 *marked = marked_count();
	__u64 version, differ;
	__u32 renames;

	if (!r || !marked)
		return 0;
	version = *(volatile __u64 *)&r->version;
	then = (void *)r + after(version);
	/* pointers are compared only: the verifier takes no other operation on them */
	if (then->file != (__u64)file || then->inode != (__u64)file->f_inode || then->task != (__u64)task)
		return 0;
	differ = then->started ^ task->start_boottime;
	differ |= then->generation ^ generation;
	differ |= then->since ^ since;
	differ |= then->marked ^ *(volatile __u64 *)marked;
	if (differ || rename_sequence(&renames))
		return 0;
	differ = then->renames ^ renames;
	then = (void *)then + after(differ);
	return !differ && *(volatile __u64 *)&then->version == (version & ~1ULL);
}

/* Odd: it can't be told. */
static __noinline __u32 renames_now(void)
{
	__u32 renames = 1;

	return rename_sequence(&renames) ? 1 : renames;
}

/* What held before the labels were looked for. Never refused. */
static __noinline bool remember_reading(struct file *file, const struct view *v, __u64 since, __u64 marked,
					__u32 renames)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct reading *r = reading_of(file);
	__u64 version;

	if (!r || !v || (renames & 1))
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
	r->marked = marked;
	r->renames = renames;
	__sync_fetch_and_add(&r->version, 1);
	return 0;
}

#endif
