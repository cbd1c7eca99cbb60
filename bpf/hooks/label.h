/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks that are attached for labels alone.
 */
#ifndef GUARD_HOOKS_LABEL_H
#define GUARD_HOOKS_LABEL_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/maps.h"
#include "object/attribute.h"
#include "object/locate.h"
#include "subject/carrier.h"
#include "decision/verdict.h"
#include "label/flow.h"
#include "label/mark.h"

SEC("lsm/file_open")
int BPF_PROG(file_open__label, struct file *file, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(carrying(file->f_inode) == CONTENT && !in_memory(file->f_inode) && see(&v) &&
		      refuse_kept(&v, file));
}

SEC("lsm/inode_free_security")
int BPF_PROG(inode_free_security, struct inode *inode)
{
	struct guard_kept_key key = {};

	if ((inode->i_mode & S_IFMT) == S_IFREG && !inode->i_nlink && labels_since()) {
		kept_by(inode, &key);
		bpf_map_delete_elem(&kept, &key);
	}
	if ((inode->i_mode & S_IFMT) == S_IFIFO)
		return unwire((__u64)inode);
	if ((inode->i_mode & S_IFMT) == S_IFCHR && inode->i_sb->s_magic == DEVPTS_MAGIC) {
		unwire((__u64)inode);
		unwire((__u64)inode + 1);
	}
	return 0;
}

/* ---- messages ---- */

SEC("lsm/socket_recvmsg")
int BPF_PROG(socket_recvmsg, struct socket *sock, struct msghdr *msg, int size, int flags, int ret)
{
	struct sock *sk = sock->sk;
	struct labelling l;
	struct view v;
	__u64 labels;

	if (ret)
		return ret;
	if (!sk || sk->__sk_common.skc_family != AF_UNIX || !see(&v) || !labelling(&l, &v))
		return 0;
	labels = l.named;
	if (l.c) {
		labels &= ~labels_of(l.c);
		if (!labels)
			return 0;
	}
	labels &= watch(wire((__u64)sk, l.since), l.c);
	return answer(labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, 0));
}

SEC("lsm/sk_free_security")
int BPF_PROG(sk_free_security, struct sock *sk)
{
	return unwire((__u64)sk);
}

/* A message queue carries what any of its messages did. */
SEC("lsm/msg_queue_msgsnd")
int BPF_PROG(msg_queue_msgsnd, struct kern_ipc_perm *queue, struct msg_msg *msg, int flags, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(see(&v) && refuse_carrying(&v, (__u64)queue));
}

/* In the sender's context when the receiver has been waiting. */
SEC("lsm/msg_queue_msgrcv")
int BPF_PROG(msg_queue_msgrcv, struct kern_ipc_perm *queue, struct msg_msg *msg, struct task_struct *target, long type,
	     int mode, int ret)
{
	__u64 key = (__u64)queue, since = labels_since();
	struct guard_mark *m;

	if (ret)
		return ret;
	if (!since)
		return 0;
	m = bpf_map_lookup_elem(&wires, &key);
	if (!m || m->since != since || !m->labels)
		return 0;
	return answer(!label_task(target, carrier_of((__u64)target, since), since, m->labels) &&
		      refuse_lost_label(GUARD_READ));
}

SEC("lsm/msg_queue_free_security")
int BPF_PROG(msg_queue_free_security, struct kern_ipc_perm *queue)
{
	return unwire((__u64)queue);
}

/* ---- keys ---- */

#define KEY_NEED_READ 2
#define KEY_NEED_WRITE 3

/* Another may have had its address. */
SEC("lsm/key_alloc")
int BPF_PROG(key_alloc, void *key, const struct cred *cred, unsigned long flags, int ret)
{
	struct view v;

	if (ret)
		return ret;
	unwire((__u64)key);
	return answer(see(&v) && refuse_carrying(&v, (__u64)key));
}

/* A key that is read, and one that is written to. It comes with its lowest bit for something else, as a type that is
 * nowhere defined, so that the verifier does not let it be read the usual way. */
SEC("lsm/key_permission")
int key_permission(unsigned long long *ctx)
{
	__u64 arguments[4] = {}, labels;
	struct guard_mark *m;
	struct labelling l;
	struct view v;

	if (bpf_probe_read_kernel(arguments, sizeof(arguments), ctx))
		return 0;
	if (arguments[3])
		return -EPERM;
	arguments[0] &= ~1ULL;
	if (!see(&v))
		return 0;
	if ((__u32)arguments[2] == KEY_NEED_WRITE)
		return answer(refuse_carrying(&v, arguments[0]));
	if ((__u32)arguments[2] != KEY_NEED_READ || !labelling(&l, &v))
		return 0;
	m = bpf_map_lookup_elem(&wires, &arguments[0]);
	if (!m || m->since != l.since)
		return 0;
	labels = m->labels & l.named;
	if (l.c)
		labels &= ~labels_of(l.c);
	return answer(labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, 0));
}

/* ---- another task ---- */

SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check__label, struct task_struct *child, unsigned int mode, int ret)
{
	if (ret)
		return ret;
	return answer((mode & PTRACE_MODE_ATTACH) && refuse_joining(child));
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(ptrace_traceme__label, struct task_struct *parent, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_joining(parent));
}

/* ---- without opening ---- */

SEC("lsm/inode_readlink")
int BPF_PROG(inode_readlink__label, struct dentry *dentry, int ret)
{
	if (ret)
		return ret;
	return answer(refuse_looking(dentry));
}

SEC("lsm/inode_getxattr")
int BPF_PROG(inode_getxattr__label, struct dentry *dentry, const char *name, int ret)
{
	if (ret)
		return ret;
	return answer(of_users(name) && refuse_looking(dentry));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr__label, void *idmap, struct dentry *dentry, const char *name, const void *value,
	     unsigned long size, int flags, int ret)
{
	struct guard_mark *m = 0;
	struct labelling l;
	struct inode *inode;
	struct view v;

	if (ret)
		return ret;
	if (!of_users(name) || !see(&v) || !labelling(&l, &v))
		return 0;
	inode = dentry->d_inode;
	if (l.c) {
		l.named &= labels_of(l.c);
		if (!l.named)
			return 0;
		if (inode)
			m = content(inode, l.since, l.named);
	}
	return answer(!spread(m, l.named) && refuse_unlabelled(&v, GUARD_WRITE, dentry));
}

/* ---- what an overlay maps ---- */

/* Where no hook shows the file behind. */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file__label, struct file *file, unsigned long reqprot, unsigned long prot, unsigned long flags,
	     int ret)
{
	struct labelling l;
	struct view v;
	__u64 behind, labels;

	if (ret)
		return ret;
	if (bpf_core_field_exists(((union security_list_options *)0)->mmap_backing_file) || !file ||
	    file->f_inode->i_sb->s_magic != OVERLAYFS_MAGIC || !see(&v) || !labelling(&l, &v))
		return 0;
	behind = inode_behind(file);
	labels = behind ? labels_of_aliases(&v, (struct inode *)behind, l.named) : l.named;
	if (l.c)
		labels &= ~labels_of(l.c);
	return answer(labels && !label_self(&l, labels) && refuse_unlabelled(&v, GUARD_READ, file->f_path.dentry));
}

SEC("lsm/mmap_backing_file")
int BPF_PROG(mmap_backing_file__label, struct vm_area_struct *vma, struct file *backing, struct file *file, int ret)
{
	struct view v;

	if (ret)
		return ret;
	return answer(see(&v) && refuse_mapping(&v, backing, vma->vm_flags & VM_SHARED));
}

#endif
