/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on files: open, use what is open, map, link, rename.
 */
#ifndef GUARD_HOOKS_FILE_H
#define GUARD_HOOKS_FILE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "subject/cache.h"
#include "subject/carrier.h"
#include "decision/file.h"
#include "decision/protection.h"
#include "decision/socket.h"
#include "decision/verdict.h"
#include "label/flow.h"
#include "label/reading.h"

static __always_inline __u32 opening(struct file *file)
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
	struct view seen, v;
	__u32 actions;

	if (ret)
		return ret;
	if (!glance(&seen))
		return 0;
	if (writable(file) && powerful() && seen.slot < GUARD_SLOTS) {
		v = seen;
		if (touches_file(&v, file))
			return -EPERM;
	}
	actions = concerned(&seen, 1U << GUARD_READ | 1U << GUARD_WRITE | 1U << GUARD_EXECUTE);
	if (actions)
		actions &= opening(file);
	v = seen;
	if (actions && refuse_seen(&v, file, actions))
		return -EPERM;
	if (!labels_since())
		return 0;
	/* another one may have been read that was at the same address */
	forget_reading(file);
	actions = opening(file);
	return answer(refuse_passing(&v, file, actions & ~(1U << GUARD_WRITE), actions & (1U << GUARD_WRITE)));
}

static __always_inline __u32 using(struct file *file, int mask)
{
	__u32 actions = 0;

	if ((mask & MAY_READ) && !(file->f_flags & FMODE_EXEC))
		actions = 1U << GUARD_READ;
	if (mask & (MAY_WRITE | MAY_APPEND))
		actions |= 1U << GUARD_WRITE;
	return actions;
}

/* Each use of an open file is decided anew: it may have been opened before the policy, inherited or received. What exec
 * opened is read by the kernel: that it may be executed was decided when it was opened. */
SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	struct view seen, v;
	__u32 actions;
	__u64 since;

	if (ret)
		return ret;
	if (!glance(&seen))
		return 0;
	actions = concerned(&seen, 1U << GUARD_READ | 1U << GUARD_WRITE | SENDING | GUARD_KNOWS_LABELS);
	if (!actions)
		return 0;
	v = seen;
	if (actions & ~GUARD_KNOWS_LABELS) {
		if ((file->f_inode->i_mode & S_IFMT) == S_IFSOCK) {
			if ((mask & MAY_WRITE) && (actions & SENDING) &&
			    refuse_socket_file(&v, file, actions & SENDING))
				return -EPERM;
		} else {
			actions &= using(file, mask);
			if (actions && refuse_seen(&v, file, actions))
				return -EPERM;
		}
	}
	since = labels_since();
	if (!since || (mask == MAY_READ && read_before(file, since, seen.generation)))
		return 0;
	return answer(refuse_passing(&v, file, mask & MAY_READ, mask & (MAY_WRITE | MAY_APPEND)));
}

/* An open file from another process: over a unix socket, or taken by its number. */
SEC("lsm/file_receive")
int BPF_PROG(file_receive, struct file *file, int ret)
{
	__u32 actions = 0;
	struct view v;

	if (ret)
		return ret;
	if (!glance(&v))
		return 0;
	if (file->f_mode & FMODE_READ)
		actions |= 1U << GUARD_READ;
	if (file->f_mode & FMODE_WRITE)
		actions |= 1U << GUARD_WRITE;
	actions = concerned(&v, actions);
	if (actions && refuse_seen(&v, file, actions))
		return -EPERM;
	return answer(refuse_passing(&v, file, file->f_mode & FMODE_READ, file->f_mode & FMODE_WRITE));
}

/* What is mapped is read without any further call, whatever the protection is for now. */
static __always_inline __u32 mapping_actions(unsigned long prot, bool shared)
{
	__u32 actions = 1U << GUARD_READ;

	if (shared && (prot & PROT_WRITE))
		actions |= 1U << GUARD_WRITE;
	if (prot & PROT_EXEC)
		actions |= 1U << GUARD_EXECUTE; /* ld.so, a library */
	return actions;
}

/* What exec opened was decided when it was opened. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	struct view v;
	__u32 actions;

	if (ret)
		return ret;
	if (!file || !glance(&v))
		return 0;
	if (refuse_mapping(&v, file, flags & MAP_SHARED))
		return -EPERM;
	if (file->f_flags & FMODE_EXEC)
		return 0;
	actions = concerned(&v, mapping_actions(prot, flags & MAP_SHARED));
	if (!actions)
		return 0;
	if (!bpf_core_field_exists(((union security_list_options *)0)->mmap_backing_file) &&
	    file->f_inode->i_sb->s_magic == OVERLAYFS_MAGIC && refuse_backing(&v, file, actions))
		return -EPERM;
	return answer(refuse_seen(&v, file, actions));
}

SEC("lsm/mmap_backing_file")
int BPF_PROG(mmap_backing_file, struct vm_area_struct *vma, struct file *backing, struct file *file, int ret)
{
	unsigned long flags;

	if (ret)
		return ret;
	if (backing->f_flags & FMODE_EXEC)
		return 0;
	flags = vma->vm_flags; /* the lowest bits are those of a protection */
	return answer(refuse_file(backing, mapping_actions(flags, flags & VM_SHARED)));
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
	return answer(refuse_file(file, mapping_actions(prot, vma->vm_flags & VM_SHARED)));
}

SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *from, struct inode *folder, struct dentry *to, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_name(from, to, GUARD_LINK));
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_folder, struct dentry *from, struct inode *new_folder, struct dentry *to,
	     int ret)
{
	if (ret)
		return ret;
	return answer(refuse_name(from, to, GUARD_RENAME));
}

#endif
