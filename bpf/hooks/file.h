/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on files: opening, using an open file, mapping, linking, renaming.
 */
#ifndef GUARD_HOOKS_FILE_H
#define GUARD_HOOKS_FILE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "subject/task_label.h"
#include "decision/file.h"
#include "decision/identity.h"
#include "decision/protection.h"
#include "decision/socket.h"
#include "decision/verdict.h"
#include "label/flow.h"
#include "label/read_cache.h"

static __always_inline __u32 open_actions(struct file *file)
{
	__u32 flags = file->f_flags, mode, actions = 0;

	if (flags & FMODE_EXEC)
		return 1U << GUARD_EXECUTE;
	mode = file->f_mode;
	if (mode & FMODE_READ)
		actions = 1U << GUARD_READ;
	if ((mode & FMODE_WRITE) || (flags & O_TRUNC))
		actions |= 1U << GUARD_WRITE;
	return actions;
}

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	struct generation_ref peeked, gen;
	__u32 actions;

	if (ret)
		return ret;
	if (!peek_generation(&peeked))
		return 0;
	if (opens_for_writing(file) && is_privileged() && peeked.slot < GUARD_SLOTS) {
		gen = peeked;
		if (refuse_tamper_file(&gen, file))
			return -EPERM;
	}
	actions = relevant_actions(&peeked, 1U << GUARD_READ | 1U << GUARD_WRITE | 1U << GUARD_EXECUTE);
	if (actions)
		actions &= open_actions(file);
	gen = peeked;
	if (actions && refuse_open_file(&gen, file, actions))
		return -EPERM;
	if (!labels_since())
		return 0;
	/* The address may have belonged to another file that was read. */
	read_cache_drop(file);
	actions = open_actions(file);
	return deny_if(refuse_use(&gen, file, actions & ~(1U << GUARD_WRITE), actions & (1U << GUARD_WRITE)));
}

static __always_inline __u32 use_actions(struct file *file, int mask)
{
	__u32 actions = 0;

	if ((mask & MAY_READ) && !(file->f_flags & FMODE_EXEC))
		actions = 1U << GUARD_READ;
	if (mask & (MAY_WRITE | MAY_APPEND))
		actions |= 1U << GUARD_WRITE;
	return actions;
}

/* Decides on each use of an open file: it may have been opened before the policy, inherited or received. A file
 * that exec opened is read by the kernel; its execution was decided when it was opened. */
SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	struct generation_ref peeked, gen;
	__u32 actions;
	__u64 since;

	if (ret)
		return ret;
	if (!peek_generation(&peeked))
		return 0;
	if ((mask & (MAY_WRITE | MAY_APPEND)) && may_change_identity(file)) {
		gen = peeked;
		if (refuse_identity(&gen, file))
			return -EPERM;
	}
	actions = relevant_actions(&peeked,
				   1U << GUARD_READ | 1U << GUARD_WRITE | SEND_ACTIONS | GUARD_DEPENDS_ON_LABELS);
	if (!actions)
		return 0;
	gen = peeked;
	if (actions & ~GUARD_DEPENDS_ON_LABELS) {
		if ((file->f_inode->i_mode & S_IFMT) == S_IFSOCK) {
			if ((mask & MAY_WRITE) && (actions & SEND_ACTIONS) &&
			    refuse_socket_file(&gen, file, actions & SEND_ACTIONS))
				return -EPERM;
		} else {
			actions &= use_actions(file, mask);
			if (actions && refuse_open_file(&gen, file, actions))
				return -EPERM;
		}
	}
	since = labels_since();
	if (!since || (mask == MAY_READ && read_cached(file, since, peeked.generation)))
		return 0;
	return deny_if(refuse_use(&gen, file, mask & MAY_READ, mask & (MAY_WRITE | MAY_APPEND)));
}

/* An open file from another process: sent over a unix socket, or taken with pidfd_getfd(2). */
SEC("lsm/file_receive")
int BPF_PROG(file_receive, struct file *file, int ret)
{
	__u32 actions = 0;
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!peek_generation(&gen))
		return 0;
	if (file->f_mode & FMODE_READ)
		actions |= 1U << GUARD_READ;
	if (file->f_mode & FMODE_WRITE)
		actions |= 1U << GUARD_WRITE;
	actions = relevant_actions(&gen, actions);
	if (actions && refuse_open_file(&gen, file, actions))
		return -EPERM;
	return deny_if(refuse_use(&gen, file, file->f_mode & FMODE_READ, file->f_mode & FMODE_WRITE));
}

/* A mapping can be read without any further call, whatever its protection is at first. */
static __always_inline __u32 mapping_actions(unsigned long prot, bool shared)
{
	__u32 actions = 1U << GUARD_READ;

	if (shared && (prot & PROT_WRITE))
		actions |= 1U << GUARD_WRITE;
	if (prot & PROT_EXEC)
		actions |= 1U << GUARD_EXECUTE; /* ld.so, a library */
	return actions;
}

/* The execution of a file that exec opened was decided when it was opened. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	struct generation_ref gen;
	__u32 actions;

	if (ret)
		return ret;
	if (!file || !peek_generation(&gen))
		return 0;
	if (refuse_mapping(&gen, file, flags & MAP_SHARED))
		return -EPERM;
	if (file->f_flags & FMODE_EXEC)
		return 0;
	actions = relevant_actions(&gen, mapping_actions(prot, flags & MAP_SHARED));
	if (!actions)
		return 0;
	if (!bpf_core_field_exists(((union security_list_options *)0)->mmap_backing_file) &&
	    file->f_inode->i_sb->s_magic == OVERLAYFS_MAGIC && refuse_backing(&gen, file, actions))
		return -EPERM;
	return deny_if(refuse_open_file(&gen, file, actions));
}

SEC("lsm/mmap_backing_file")
int BPF_PROG(mmap_backing_file, struct vm_area_struct *vma, struct file *backing, struct file *file, int ret)
{
	unsigned long flags;

	if (ret)
		return ret;
	if (backing->f_flags & FMODE_EXEC)
		return 0;
	flags = vma->vm_flags; /* The lowest bits are those of the protection. */
	return deny_if(refuse_file(backing, mapping_actions(flags, flags & VM_SHARED)));
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot, int ret)
{
	struct file *file;

	if (ret)
		return ret;
	file = vma->vm_file;
	if (!file || (file->f_flags & FMODE_EXEC))
		return 0;
	return deny_if(refuse_file(file, mapping_actions(prot, vma->vm_flags & VM_SHARED)));
}

SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *from, struct inode *folder, struct dentry *to, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_name(from, to, GUARD_LINK));
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_folder, struct dentry *from, struct inode *new_folder, struct dentry *to,
	     int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_name(from, to, GUARD_RENAME));
}

#endif
