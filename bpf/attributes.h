/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on what is written to a file without an open file: its size, mode, owner, times and extended attributes.
 */
#ifndef GUARD_ATTRIBUTES_H
#define GUARD_ATTRIBUTES_H

static __always_inline bool refuse_change(const struct dentry *d)
{
	const __u32 actions = 1U << GUARD_WRITE;
	const struct bound *b;
	struct inode *inode;
	struct place at = {};
	struct view v;

	if (!see(&v))
		return 0;
	b = bound(&v);
	if (!b)
		return 1;
	if (!(b->actions & actions))
		return 0;
	inode = d->d_inode;
	if (!inode || nameless(inode, actions))
		return 0;
	guard_place(v.slot, number(d), &at);
	return refuse_place(&v, b, &at, actions, d);
}

/* An idmap came in as its first argument after 6.8: of the two programs the loader takes the one that has as many
 * arguments as the kernel's hook. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr__2, struct dentry *dentry, struct iattr *attributes, int ret)
{
	if (ret)
		return ret;
	if (refuse_change(dentry))
		return -EPERM;
	return 0;
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr__3, void *idmap, struct dentry *dentry, struct iattr *attributes, int ret)
{
	if (ret)
		return ret;
	if (refuse_change(dentry))
		return -EPERM;
	return 0;
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	if (ret)
		return ret;
	if (refuse_change(dentry))
		return -EPERM;
	return 0;
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	if (refuse_change(dentry))
		return -EPERM;
	return 0;
}

/* Before 6.2 an access control list is an extended attribute like others. */
SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *idmap, struct dentry *dentry, const char *name, void *list, int ret)
{
	if (ret)
		return ret;
	if (refuse_change(dentry))
		return -EPERM;
	return 0;
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *idmap, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	if (refuse_change(dentry))
		return -EPERM;
	return 0;
}

#endif
