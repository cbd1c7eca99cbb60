/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The observer's CO-RE object: which task changed to which directory. It is attached to a function that runs after
 * the kernel has allowed the change and returns nothing, so it cannot deny. It is not part of the enforcer.
 */
#include "abi/bpf.h"

#define OBSERVE_PROGRAMS
#include "observer/observe.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct fs_struct {
	int users;
};
#pragma clang attribute pop

#define ENTRIES 4096

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64);
	__type(value, __u64);
	__uint(max_entries, ENTRIES);
} subjects SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct observe_what);
	__type(value, __u64);
	__uint(max_entries, ENTRIES);
} objects SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct observe_entry);
	__type(value, struct observe_times);
	__uint(max_entries, ENTRIES);
} entries SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, OBSERVE_LOSSES);
} lost SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} observer SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} fresh SEC(".maps");

static __always_inline __u64 *find_subject(__u64 *subject)
{
	return bpf_map_lookup_elem(&subjects, subject);
}
static __always_inline long keep_subject(__u64 *subject, __u64 *now)
{
	return bpf_map_update_elem(&subjects, subject, now, BPF_ANY);
}
static __always_inline __u64 *find_object(struct observe_what *what)
{
	return bpf_map_lookup_elem(&objects, what);
}
static __always_inline long keep_object(struct observe_what *what, __u64 *now)
{
	return bpf_map_update_elem(&objects, what, now, BPF_ANY);
}
static __always_inline struct observe_times *find_entry(struct observe_entry *entry)
{
	return bpf_map_lookup_elem(&entries, entry);
}
static __always_inline long keep_entry(struct observe_entry *entry, struct observe_times *times)
{
	return bpf_map_update_elem(&entries, entry, times, BPF_NOEXIST);
}
static __always_inline void count_loss(__u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &reason);

	if (count)
		__sync_fetch_and_add(count, 1);
}
static __always_inline void *reserve_subject(void)
{
	return bpf_ringbuf_reserve(&fresh, sizeof(struct observe_subject), 0);
}
static __always_inline void *reserve_object(void)
{
	return bpf_ringbuf_reserve(&fresh, sizeof(struct observe_object), 0);
}
static __always_inline void submit(void *record)
{
	bpf_ringbuf_submit(record, 0);
}
static __always_inline void discard(void *record)
{
	bpf_ringbuf_discard(record, 0);
}

static __always_inline __u32 login_of(struct task_struct *task)
{
	return bpf_core_field_exists(task->loginuid) ? FIELD(task, loginuid.val) : ~0U;
}
static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___618 *newer = (void *)node;

	return bpf_core_field_exists(newer->__parent) ? FIELD(newer, __parent) : FIELD(node, parent);
}

/* chdir, fchdir, and entering another mount namespace */
SEC("fentry/set_fs_pwd")
int BPF_PROG(set_fs_pwd, struct fs_struct *fs, const struct path *path)
{
	__u32 zero = 0, *self = bpf_map_lookup_elem(&observer, &zero);
	struct observe_entry entry = { .action = OBSERVE_CHDIR };
	struct dentry *d = FIELD(path, dentry);

	if (self && *self == bpf_get_current_pid_tgid() >> 32)
		return 0;
	set_file(&entry, d);
	record_action(&entry, d);
	return 0;
}
