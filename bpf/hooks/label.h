/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks that are attached only while labels are in use.
 */
#ifndef GUARD_HOOKS_LABEL_H
#define GUARD_HOOKS_LABEL_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "object/xattr.h"
#include "object/locate.h"
#include "subject/task_label.h"
#include "decision/verdict.h"
#include "label/flow.h"
#include "label/channel.h"

SEC("lsm/file_open")
int BPF_PROG(file_open__label, struct file *file, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(channel_kind_of(file->f_inode) == CHANNEL_CONTENT && !is_memory_fs(file->f_inode) &&
		       active_generation(&gen) && refuse_persistent_label(&gen, file));
}

SEC("lsm/inode_free_security")
int BPF_PROG(inode_free_security, struct inode *inode)
{
	struct guard_persistent_label_key key = {};

	if ((inode->i_mode & S_IFMT) == S_IFREG && !inode->i_nlink && labels_since()) {
		persistent_label_key(inode, &key);
		bpf_map_delete_elem(&kept, &key);
	}
	if ((inode->i_mode & S_IFMT) == S_IFIFO)
		return channel_free((__u64)inode);
	if ((inode->i_mode & S_IFMT) == S_IFCHR && inode->i_sb->s_magic == DEVPTS_MAGIC) {
		channel_free((__u64)inode);
		channel_free((__u64)inode + 1);
	}
	return 0;
}

/* ---- messages ---- */

SEC("lsm/socket_recvmsg")
int BPF_PROG(socket_recvmsg, struct socket *sock, struct msghdr *msg, int size, int flags, int ret)
{
	struct sock *sk = sock->sk;
	struct label_context l;
	struct generation_ref gen;
	__u64 labels;

	if (ret)
		return ret;
	if (!sk || sk->__sk_common.skc_family != AF_UNIX || !active_generation(&gen) || !get_label_context(&l, &gen))
		return 0;
	labels = l.policy_labels;
	if (l.task_label) {
		labels &= ~labels_of_task(l.task_label);
		if (!labels)
			return 0;
	}
	labels &= add_reader(channel((__u64)sk, l.since), l.task_label);
	return deny_if(labels && !label_current_task(&l, labels) && refuse_unlabelled(&gen, GUARD_READ, 0));
}

SEC("lsm/sk_free_security")
int BPF_PROG(sk_free_security, struct sock *sk)
{
	return channel_free((__u64)sk);
}

/* A message queue gets the labels of each of its messages. */
SEC("lsm/msg_queue_msgsnd")
int BPF_PROG(msg_queue_msgsnd, struct kern_ipc_perm *queue, struct msg_msg *msg, int flags, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(active_generation(&gen) && refuse_send(&gen, (__u64)queue));
}

/* Runs in the sender's context if the receiver has been waiting. */
SEC("lsm/msg_queue_msgrcv")
int BPF_PROG(msg_queue_msgrcv, struct kern_ipc_perm *queue, struct msg_msg *msg, struct task_struct *target, long type,
	     int mode, int ret)
{
	__u64 key = (__u64)queue, since = labels_since();
	struct guard_channel_label *ch;

	if (ret)
		return ret;
	if (!since)
		return 0;
	ch = bpf_map_lookup_elem(&wires, &key);
	if (!ch || ch->since != since || !ch->labels)
		return 0;
	return deny_if(!label_task(target, task_label_of((__u64)target, since), since, ch->labels) &&
		       refuse_lost_label(GUARD_READ));
}

SEC("lsm/msg_queue_free_security")
int BPF_PROG(msg_queue_free_security, struct kern_ipc_perm *queue)
{
	return channel_free((__u64)queue);
}

/* ---- keys ---- */

#define KEY_NEED_READ 2
#define KEY_NEED_WRITE 3

/* The address may be recycled from a freed key; drop its old entry. */
SEC("lsm/key_alloc")
int BPF_PROG(key_alloc, void *key, const struct cred *cred, unsigned long flags, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	channel_free((__u64)key);
	return deny_if(active_generation(&gen) && refuse_send(&gen, (__u64)key));
}

/* A key that is read or written. The lowest bit of the argument has another meaning, and its type is defined
 * nowhere, so that the verifier does not allow a direct access. */
SEC("lsm/key_permission")
int key_permission(unsigned long long *ctx)
{
	__u64 arguments[4] = {}, labels;
	struct guard_channel_label *ch;
	struct label_context l;
	struct generation_ref gen;

	if (bpf_probe_read_kernel(arguments, sizeof(arguments), ctx))
		return 0;
	if (arguments[3])
		return -EPERM;
	arguments[0] &= ~1ULL;
	if (!active_generation(&gen))
		return 0;
	if ((__u32)arguments[2] == KEY_NEED_WRITE)
		return deny_if(refuse_send(&gen, arguments[0]));
	if ((__u32)arguments[2] != KEY_NEED_READ || !get_label_context(&l, &gen))
		return 0;
	ch = bpf_map_lookup_elem(&wires, &arguments[0]);
	if (!ch || ch->since != l.since)
		return 0;
	labels = ch->labels & l.policy_labels;
	if (l.task_label)
		labels &= ~labels_of_task(l.task_label);
	return deny_if(labels && !label_current_task(&l, labels) && refuse_unlabelled(&gen, GUARD_READ, 0));
}

/* ---- another task ---- */

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check__label, struct task_struct *child, unsigned int mode, int ret)
{
	if (ret)
		return ret;
	return deny_if((mode & PTRACE_MODE_ATTACH) && refuse_ptrace(child));
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(ptrace_traceme__label, struct task_struct *parent, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_ptrace(parent));
}

/* ---- without opening ---- */

SEC("lsm/inode_readlink")
int BPF_PROG(inode_readlink__label, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_metadata_read(dentry));
}

SEC("lsm/inode_getxattr")
int BPF_PROG(inode_getxattr__label, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	return deny_if(is_user_xattr(name) && refuse_metadata_read(dentry));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr__label, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	struct guard_channel_label *ch = 0;
	struct label_context l;
	struct inode *inode;
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!is_user_xattr(name) || !active_generation(&gen) || !get_label_context(&l, &gen))
		return 0;
	inode = dentry->d_inode;
	if (l.task_label) {
		l.policy_labels &= labels_of_task(l.task_label);
		if (!l.policy_labels)
			return 0;
		if (inode)
			ch = content_label(inode, l.since, l.policy_labels);
	}
	return deny_if(!propagate_to(ch, l.policy_labels) && refuse_unlabelled(&gen, GUARD_WRITE, dentry));
}

/* ---- what an overlay maps ---- */

/* For kernels without a hook that gets the file behind an overlay's. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file__label, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags,
	     int ret)
{
	struct label_context l;
	struct generation_ref gen;
	__u64 behind, labels;

	if (ret)
		return ret;
	if (bpf_core_field_exists(((union security_list_options *)0)->mmap_backing_file) || !file ||
	    file->f_inode->i_sb->s_magic != OVERLAYFS_MAGIC || !active_generation(&gen) || !get_label_context(&l, &gen))
		return 0;
	behind = inode_behind(file);
	labels = behind ? labels_of_aliases(&gen, (struct inode *)behind, l.policy_labels) : l.policy_labels;
	if (l.task_label)
		labels &= ~labels_of_task(l.task_label);
	return deny_if(labels && !label_current_task(&l, labels) &&
		       refuse_unlabelled(&gen, GUARD_READ, file->f_path.dentry));
}

SEC("lsm/mmap_backing_file")
int BPF_PROG(mmap_backing_file__label, struct vm_area_struct *vma, struct file *backing, struct file *file, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(active_generation(&gen) && refuse_mapping(&gen, backing, vma->vm_flags & VM_SHARED));
}

#endif
