/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Cache of reads: a task has read a file under a generation. While nothing that this depends on changes, reading it
 * again adds no label. With labels in use, most reads need only this check.
 */
#ifndef GUARD_LABEL_READ_CACHE_H
#define GUARD_LABEL_READ_CACHE_H

#include "abi/bpf.h"
#include "core/maps.h"
#include "object/path.h"

/* Indexed by the address of the file; opening a file drops its entry. */
struct read_cache_entry {
	__u64 version; /* odd during a write; a reader that sees it change discards what it read */
	__u64 file, inode;
	__u64 task, started;
	__u64 generation, since;
	__u64 changes; /* result of read_changes() */
};
#define CHANGES_UNKNOWN 1ULL /* a value of `changes`: unknown */
#define READ_CACHE_SIZE 4096

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, READ_CACHE_SIZE);
	__type(key, __u32);
	__type(value, struct read_cache_entry);
} readings SEC(".maps");

/* Counts how often a channel, such as the content of a file, got a label that it did not have. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} marked_files SEC(".maps");

static __noinline int bump_label_version(void)
{
	__u32 zero = 0, *made = bpf_map_lookup_elem(&marked_files, &zero);

	if (made)
		__sync_fetch_and_add(made, 1);
	return 0;
}

/* The rename sequence in the lower half, odd during a rename; the label version in the upper half. */
static __always_inline __u64 read_changes(void)
{
	__u32 zero = 0, renames = 0;
	const __u32 *made = bpf_map_lookup_elem(&marked_files, &zero);

	if (!made || read_rename_sequence(&renames))
		return CHANGES_UNKNOWN;
	return (__u64) * (volatile __u32 *)made << 32 | renames;
}

static __noinline __u64 current_changes(void)
{
	return read_changes();
}

static __always_inline struct read_cache_entry *read_cache_slot(const struct file *file)
{
	__u32 index;

	asm volatile("%0 = %1" : "=w"(index) : "w"((__u32)(__u64)file));
	index = (index >> 6 ^ index >> 18) & (READ_CACHE_SIZE - 1);
	return bpf_map_lookup_elem(&readings, &index);
}

static __always_inline void read_cache_drop(const struct file *file)
{
	struct read_cache_entry *r = read_cache_slot(file);

	if (r && r->file == (__u64)file)
		__sync_val_compare_and_swap(&r->file, (__u64)file, 0);
}

/* Returns true if reading the file adds no label to the current task. */
static __always_inline bool read_cached(struct file *file, __u64 since, __u64 generation)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct read_cache_entry *r = read_cache_slot(file), *entry;
	__u64 version, differ;

	if (!r)
		return 0;
	version = *(volatile __u64 *)&r->version;
	entry = (void *)r + read_dependency(version);
	/* The verifier allows no operation on these pointers but a comparison. */
	if (entry->file != (__u64)file || entry->inode != (__u64)file->f_inode || entry->task != (__u64)task)
		return 0;
	differ = entry->started ^ task->start_boottime;
	differ |= entry->generation ^ generation;
	differ |= entry->since ^ since;
	if (differ)
		return 0;
	differ = entry->changes ^ read_changes();
	entry = (void *)entry + read_dependency(differ);
	return !differ && *(volatile __u64 *)&entry->version == (version & ~1ULL);
}

/* Stores what was true before the labels were looked up. Always returns false. */
static __noinline bool read_cache_store(struct file *file, const struct generation_ref *gen, __u64 since, __u64 changes)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct read_cache_entry *r = read_cache_slot(file);
	__u64 version;

	if (!r || !gen || (changes & 1))
		return 0;
	version = r->version;
	if ((version & 1) || __sync_val_compare_and_swap(&r->version, version, version + 1) != version)
		return 0;
	r->file = ptr_to_u64(file);
	r->inode = ptr_to_u64(file->f_inode);
	r->task = ptr_to_u64(task);
	r->started = task->start_boottime;
	r->generation = gen->generation;
	r->since = since;
	r->changes = changes;
	__sync_fetch_and_add(&r->version, 1);
	return 0;
}

#endif
