/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks that protect the enforcer itself.
 */
#ifndef GUARD_HOOKS_TAMPER_H
#define GUARD_HOOKS_TAMPER_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "decision/protection.h"
#include "decision/unmount.h"
#include "decision/verdict.h"

/* ---- files ---- */

/* Attached while no rule needs the program file_open, which does the same. */
SEC("lsm/file_open")
int BPF_PROG(file_open__tamper, struct file *file, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(opens_for_writing(file) && is_privileged() && active_generation(&gen) &&
		       refuse_tamper_file(&gen, file));
}

SEC("lsm/inode_link")
int BPF_PROG(inode_link__tamper, struct dentry *from, struct inode *folder, struct dentry *to, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!is_privileged() || !active_generation(&gen))
		return 0;
	return deny_if(refuse_tamper(&gen, from, 0, GUARD_LINK) || refuse_tamper(&gen, to, 0, GUARD_LINK));
}

SEC("lsm/inode_rename")
int BPF_PROG(inode_rename__tamper, struct inode *old_folder, struct dentry *from, struct inode *new_folder,
	     struct dentry *to, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!is_privileged() || !active_generation(&gen))
		return 0;
	return deny_if(refuse_tamper(&gen, from, 1, GUARD_RENAME) ||
		       refuse_tamper(&gen, to, is_mount_point(to), GUARD_RENAME));
}

SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink__tamper, struct inode *folder, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(dentry, 0, GUARD_WRITE));
}

/* Removing the directory also removes what another mount namespace has mounted there; a rename over it does, too. */
SEC("lsm/inode_rmdir")
int BPF_PROG(inode_rmdir__tamper, struct inode *folder, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(dentry, is_mount_point(dentry), GUARD_WRITE));
}

SEC("lsm/inode_create")
int BPF_PROG(inode_create__tamper, struct inode *folder, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(dentry, 0, GUARD_WRITE));
}

SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir__tamper, struct inode *folder, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(dentry, 0, GUARD_WRITE));
}

SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink__tamper, struct inode *folder, struct dentry *dentry, const char *target, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(dentry, 0, GUARD_WRITE));
}

SEC("lsm/path_truncate")
int BPF_PROG(path_truncate__tamper, const struct path *path, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(path->dentry, 0, GUARD_WRITE));
}

SEC("lsm/path_chmod")
int BPF_PROG(path_chmod__tamper, const struct path *path, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(path->dentry, 0, GUARD_WRITE));
}

SEC("lsm/path_chown")
int BPF_PROG(path_chown__tamper, const struct path *path, __u64 uid, __u64 gid, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(path->dentry, 0, GUARD_WRITE));
}

/* Also access control lists before 6.2. */
SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr__tamper, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(dentry, 0, GUARD_WRITE));
}

SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl__tamper, void *idmap, struct dentry *dentry, const char *name, void *acl, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_tamper_by_privileged(dentry, 0, GUARD_WRITE));
}

/* ---- mounts ---- */

#define MS_REMOUNT 32
#define MS_MOVE 8192
#define MS_PROPAGATION (15UL << 17)

SEC("lsm/sb_mount")
int BPF_PROG(sb_mount__tamper, const char *source, const struct path *target, const char *type, unsigned long flags,
	     void *data, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	if (flags & (MS_REMOUNT | MS_PROPAGATION))
		return 0;
	if (!may_mount_on_host() || !active_generation(&gen))
		return 0;
	if (flags & MS_MOVE) {
		/* the hook does not get the mount that is moved */
		if (!is_private_mount(target->mnt) && refuse_tamper_object(&gen, GUARD_MOUNT, 0))
			return -EPERM;
		return 0;
	}
	return deny_if(refuse_tamper_mount(&gen, target->mnt, target->dentry));
}

SEC("lsm/move_mount")
int BPF_PROG(move_mount__tamper, const struct path *from, const struct path *to, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!may_mount_on_host() || !active_generation(&gen))
		return 0;
	return deny_if(refuse_tamper_mount(&gen, from->mnt, from->dentry) ||
		       refuse_tamper_mount(&gen, to->mnt, to->dentry));
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(sb_pivotroot__tamper, const struct path *put_old, const struct path *new_root, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(may_mount_on_host() && !is_private_mount(new_root->mnt) && active_generation(&gen) &&
		       refuse_tamper_object(&gen, GUARD_MOUNT, 0));
}

/* ---- maps, programs, processes ---- */

/* A descriptor of our maps, even for reading: a program could write through it. */
SEC("lsm/bpf_map")
int BPF_PROG(bpf_map__tamper, struct bpf_map *map, unsigned int mode, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(is_protected_map(map) && active_generation(&gen) &&
		       refuse_tamper_object(&gen, GUARD_BPF, map->id));
}

SEC("lsm/bpf_prog")
int BPF_PROG(bpf_prog__tamper, struct bpf_prog *program, int ret)
{
	__u32 id = BPF_CORE_READ(program, aux, id);
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(is_protected_object(GUARD_PROTECTED_PROGRAM, id) && active_generation(&gen) &&
		       refuse_tamper_object(&gen, GUARD_BPF, id));
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check__tamper, struct task_struct *child, unsigned int mode, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!(mode & PTRACE_MODE_ATTACH) || !is_privileged() || !active_generation(&gen))
		return 0;
	return deny_if(child_may_modify(&gen, child) && refuse_tamper_object(&gen, GUARD_PTRACE, 0));
}

SEC("lsm/sb_umount")
int BPF_PROG(sb_umount__tamper, struct vfsmount *mnt, int flags, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!may_mount_on_host() || !active_generation(&gen))
		return 0;
	if (refuse_tamper_mount(&gen, mnt, mnt->mnt_root))
		return -EPERM;
	return deny_if(refuse_unmounting(&gen, ptr_to_u64(mnt) - bpf_core_field_offset(struct mount, mnt)));
}

#endif
