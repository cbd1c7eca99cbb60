/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on what is written to a file without opening it, and read from it: size, mode, owner, times, extended
 * attributes, a link's target; and on new names that carry what somebody chose.
 */
#ifndef GUARD_HOOKS_ATTRIBUTES_H
#define GUARD_HOOKS_ATTRIBUTES_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "object/attribute.h"
#include "decision/file.h"
#include "decision/verdict.h"

/* An idmap came in as the first argument after 6.8: of the two programs the loader takes the one that has as many
 * arguments as the kernel's hook. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr__2, struct dentry *dentry, struct iattr *attributes, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr__3, void *idmap, struct dentry *dentry, struct iattr *attributes, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

/* Before 6.2 an access control list is an extended attribute like others. */
SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *idmap, struct dentry *dentry, const char *name, void *list, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

/* A link's target, a folder's name: as good a place for data as any. A file is created by opening it. */
SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink, struct inode *folder, struct dentry *dentry, const char *target, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir, struct inode *folder, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_mknod")
int BPF_PROG(inode_mknod, struct inode *folder, struct dentry *dentry, umode_t mode, unsigned int device, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_readlink")
int BPF_PROG(inode_readlink, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_dentry(dentry, 1U << GUARD_READ));
}

/* Only the attributes that hold data of somebody's: the kernel, ls and the like ask for the others all the time. */
SEC("lsm/inode_getxattr")
int BPF_PROG(inode_getxattr, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	if (!of_users(name))
		return 0;
	return answer(refuse_dentry(dentry, 1U << GUARD_READ));
}

#endif
