/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks that protect what enforces.
 */
#ifndef GUARD_HOOKS_TAMPER_H
#define GUARD_HOOKS_TAMPER_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "decision/protection.h"
#include "decision/unmount.h"
#include "decision/verdict.h"

/* ---- files --------------------------------------------------------------------------------------------------- */

/* Attached while no rule needs file_open, which does the same. */
SEC("lsm/file_open")
int BPF_PROG(file_open__tamper, struct file *file, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(writable(file) && powerful() && see(&v) && touches_file(&v, file));
}

SEC("lsm/inode_link")
int BPF_PROG(inode_link__tamper, struct dentry *from, struct inode *folder, struct dentry *to, int ret)
{
	struct view v;

	if (ret)
		return ret;
	if (!powerful() || !see(&v))
		return 0;
	return answer(refuse_touch(&v, from, 0, GUARD_LINK) || refuse_touch(&v, to, 0, GUARD_LINK));
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename__tamper, struct inode *old_folder, struct dentry *from, struct inode *new_folder,
	     struct dentry *to, int ret)
{
	struct view v;

	if (ret)
		return ret;
	if (!powerful() || !see(&v))
		return 0;
	return answer(refuse_touch(&v, from, 1, GUARD_RENAME) || refuse_touch(&v, to, mounted_on(to), GUARD_RENAME));
}

SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink__tamper, struct inode *folder, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return answer(touches(dentry, 0, GUARD_WRITE));
}

/* What another namespace has mounted there goes with it; so it does when a rename takes its place. */
SEC("lsm/inode_rmdir")
int BPF_PROG(inode_rmdir__tamper, struct inode *folder, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return answer(touches(dentry, mounted_on(dentry), GUARD_WRITE));
}

SEC("lsm/inode_create")
int BPF_PROG(inode_create__tamper, struct inode *folder, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return answer(touches(dentry, 0, GUARD_WRITE));
}

SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir__tamper, struct inode *folder, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return answer(touches(dentry, 0, GUARD_WRITE));
}

SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink__tamper, struct inode *folder, struct dentry *dentry, const char *target, int ret)
{
	if (ret)
		return ret;
	return answer(touches(dentry, 0, GUARD_WRITE));
}

SEC("lsm/path_truncate")
int BPF_PROG(path_truncate__tamper, const struct path *path, int ret)
{
	if (ret)
		return ret;
	return answer(touches(path->dentry, 0, GUARD_WRITE));
}

SEC("lsm/path_chmod")
int BPF_PROG(path_chmod__tamper, const struct path *path, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return answer(touches(path->dentry, 0, GUARD_WRITE));
}

SEC("lsm/path_chown")
int BPF_PROG(path_chown__tamper, const struct path *path, __u64 uid, __u64 gid, int ret)
{
	if (ret)
		return ret;
	return answer(touches(path->dentry, 0, GUARD_WRITE));
}

/* access lists: before 6.2 an attribute like others */
SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr__tamper, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	if (ret)
		return ret;
	return answer(touches(dentry, 0, GUARD_WRITE));
}

SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl__tamper, void *idmap, struct dentry *dentry, const char *name, void *acl, int ret)
{
	if (ret)
		return ret;
	return answer(touches(dentry, 0, GUARD_WRITE));
}

/* ---- mounts -------------------------------------------------------------------------------------------------- */

#define MS_REMOUNT 32
#define MS_MOVE 8192
#define MS_PROPAGATION (15UL << 17)

SEC("lsm/sb_mount")
int BPF_PROG(sb_mount__tamper, const char *source, const struct path *target, const char *type, unsigned long flags,
	     void *data, int ret)
{
	struct view v;

	if (ret)
		return ret;
	if (flags & (MS_REMOUNT | MS_PROPAGATION))
		return 0;
	if (!powerful() || !see(&v))
		return 0;
	if (flags & MS_MOVE) {
		/* which mount is moved is not told */
		if (!elsewhere(target->mnt) && refuse_untrusted(&v, GUARD_MOUNT, 0))
			return -EPERM;
		return 0;
	}
	return answer(touches_mount(&v, target->mnt, target->dentry));
}

SEC("lsm/move_mount")
int BPF_PROG(move_mount__tamper, const struct path *from, const struct path *to, int ret)
{
	struct view v;

	if (ret)
		return ret;
	if (!powerful() || !see(&v))
		return 0;
	return answer(touches_mount(&v, from->mnt, from->dentry) || touches_mount(&v, to->mnt, to->dentry));
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(sb_pivotroot__tamper, const struct path *put_old, const struct path *new_root, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(powerful() && !elsewhere(new_root->mnt) && see(&v) && refuse_untrusted(&v, GUARD_MOUNT, 0));
}

/* ---- maps, programs, processes ------------------------------------------------------------------------------- */

/* A descriptor for our maps, for reading too: a program may write through it. */
SEC("lsm/bpf_map")
int BPF_PROG(bpf_map__tamper, struct bpf_map *map, unsigned int mode, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(our_map(map) && see(&v) && refuse_untrusted(&v, GUARD_BPF, map->id));
}

SEC("lsm/bpf_prog")
int BPF_PROG(bpf_prog__tamper, struct bpf_prog *program, int ret)
{
	__u32 id = BPF_CORE_READ(program, aux, id);
	struct view v;

	if (ret)
		return ret;
	return answer(ours(GUARD_OUR_PROGRAM, id) && see(&v) && refuse_untrusted(&v, GUARD_BPF, id));
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check__tamper, struct task_struct *child, unsigned int mode, int ret)
{
	struct view v;

	if (ret)
		return ret;
	if (!(mode & PTRACE_MODE_ATTACH) || !powerful() || !see(&v))
		return 0;
	return answer(may_touch(&v, child) && refuse_untrusted(&v, GUARD_PTRACE, 0));
}

SEC("lsm/sb_umount")
int BPF_PROG(sb_umount__tamper, struct vfsmount *mnt, int flags, int ret)
{
	struct view v;

	if (ret)
		return ret;
	if (!powerful() || !see(&v))
		return 0;
	if (touches_mount(&v, mnt, mnt->mnt_root))
		return -EPERM;
	return answer(refuse_unmounting(&v, number(mnt) - bpf_core_field_offset(struct mount, mnt)));
}

#endif
