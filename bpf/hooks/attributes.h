/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on data that is written to a file without opening it, or read from it: size, mode, owner, times, extended
 * attributes and link targets; and on new names, which may hold data too.
 */
#ifndef GUARD_HOOKS_ATTRIBUTES_H
#define GUARD_HOOKS_ATTRIBUTES_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "object/xattr.h"
#include "decision/file.h"
#include "decision/verdict.h"

/* Kernels after 6.8 pass an idmap as the first argument. The loader takes the program with as many arguments as the
 * kernel's hook. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr__2, struct dentry *dentry, struct iattr *attributes, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr__3, void *idmap, struct dentry *dentry, struct iattr *attributes, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

/* Before 6.2 an access control list is set as an extended attribute. */
SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *idmap, struct dentry *dentry, const char *name, void *list, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

/* A name can hold data, as a link target does. So the name of a regular file is decided about before it exists, by
 * open(2) or mknod(2). */
SEC("lsm/inode_create")
int BPF_PROG(inode_create, struct inode *folder, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink, struct inode *folder, struct dentry *dentry, const char *target, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir, struct inode *folder, struct dentry *dentry, umode_t mode, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_mknod")
int BPF_PROG(inode_mknod, struct inode *folder, struct dentry *dentry, umode_t mode, unsigned int device, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_WRITE));
}

SEC("lsm/inode_readlink")
int BPF_PROG(inode_readlink, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_READ));
}

/* Only attributes that hold user data: the kernel and tools such as ls read the others all the time. */
SEC("lsm/inode_getxattr")
int BPF_PROG(inode_getxattr, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	if (!is_user_xattr(name))
		return 0;
	return deny_if(refuse_dentry(dentry, 1U << GUARD_READ));
}

#endif
