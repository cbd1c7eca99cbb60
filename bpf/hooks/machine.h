/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on actions without an object: what a task may do to the machine.
 */
#ifndef GUARD_HOOKS_MACHINE_H
#define GUARD_HOOKS_MACHINE_H

#include "abi/bpf.h"
#include "abi/layout.h"
#include "core/decide.h"
#include "decision/action.h"
#include "decision/verdict.h"

/* A program of its own: the other program of file_open has no stack left. */
SEC("lsm/file_open")
int BPF_PROG(file_open__device, struct file *file, int ret)
{
	if (ret)
		return ret;
	if (is_device(file->f_inode) && refuse_device(file->f_inode))
		return -EPERM;
	return 0;
}

SEC("lsm/userns_create")
int BPF_PROG(userns_create, const struct cred *cred, int ret)
{
	if (ret)
		return ret;
	return deny_if(refuse_plain(GUARD_USER_NAMESPACE));
}

/* mount(2) of every kind */
SEC("lsm/sb_mount")
int BPF_PROG(sb_mount, const char *source, const struct path *target, const char *type, unsigned long flags, void *data,
	     int ret)
{
	if (ret)
		return ret;
	if (refuse_plain(GUARD_MOUNT))
		return -EPERM;
	return 0;
}

/* attaches a mount made by fsmount or open_tree, or moves a mount */
SEC("lsm/move_mount")
int BPF_PROG(move_mount, const struct path *from, const struct path *to, int ret)
{
	if (ret)
		return ret;
	if (refuse_plain(GUARD_MOUNT))
		return -EPERM;
	return 0;
}

/* A filesystem opened by fsopen can be read through the descriptor of its mount, which is never attached. The
 * kernel's own mounts, for example of a new namespace, are not the task's. */
SEC("lsm/sb_set_mnt_opts")
int BPF_PROG(sb_set_mnt_opts, struct super_block *sb, void *options, unsigned long flags, unsigned long *set, int ret)
{
	if (ret)
		return ret;
	if (!(sb->s_flags & SB_KERNMOUNT) && refuse_plain(GUARD_MOUNT))
		return -EPERM;
	return 0;
}

/* changes a filesystem's options through fspick */
SEC("lsm/sb_remount")
int BPF_PROG(sb_remount, struct super_block *sb, void *options, int ret)
{
	if (ret)
		return ret;
	if (refuse_plain(GUARD_MOUNT))
		return -EPERM;
	return 0;
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(sb_pivotroot, const struct path *old_path, const struct path *new_path, int ret)
{
	if (ret)
		return ret;
	if (refuse_plain(GUARD_MOUNT))
		return -EPERM;
	return 0;
}

/* ps uses PTRACE_MODE_READ */
SEC("lsm/ptrace_access_check")
int BPF_PROG(ptrace_access_check, struct task_struct *child, unsigned int mode, int ret)
{
	if (ret)
		return ret;
	if ((mode & PTRACE_MODE_ATTACH) && refuse_plain(GUARD_PTRACE))
		return -EPERM;
	return 0;
}

/* The task makes its parent its tracer. Its own identity decides: a rule that applies to the parent also applies to
 * the child, unless the child has changed its identity. */
SEC("lsm/ptrace_traceme")
int BPF_PROG(ptrace_traceme, struct task_struct *parent, int ret)
{
	if (ret)
		return ret;
	if (refuse_plain(GUARD_PTRACE))
		return -EPERM;
	return 0;
}

/* The numbers differ between kernels, and not every kernel has all of them. */
#define IS(KIND, ID, NAME) (bpf_core_enum_value_exists(enum KIND, NAME) && (ID) == bpf_core_enum_value(enum KIND, NAME))

/* finit_module, kexec_file_load */
SEC("lsm/kernel_read_file")
int BPF_PROG(kernel_read_file, struct file *file, __u32 id, bool contents, int ret)
{
	if (ret)
		return ret;
	if ((IS(kernel_read_file_id, id, READING_MODULE) || IS(kernel_read_file_id, id, READING_MODULE_COMPRESSED) ||
	     IS(kernel_read_file_id, id, READING_KEXEC_IMAGE) ||
	     IS(kernel_read_file_id, id, READING_KEXEC_INITRAMFS)) &&
	    refuse_plain(GUARD_LOAD_MODULE))
		return -EPERM;
	return 0;
}

/* init_module, kexec_load */
SEC("lsm/kernel_load_data")
int BPF_PROG(kernel_load_data, __u32 id, bool contents, int ret)
{
	if (ret)
		return ret;
	if ((IS(kernel_load_data_id, id, LOADING_MODULE) || IS(kernel_load_data_id, id, LOADING_KEXEC_IMAGE)) &&
	    refuse_plain(GUARD_LOAD_MODULE))
		return -EPERM;
	return 0;
}

/* The kernel is about to load a module on behalf of the task, which used a feature of it. */
SEC("lsm/kernel_module_request")
int BPF_PROG(kernel_module_request, char *name, int ret)
{
	if (ret)
		return ret;
	if (refuse_plain(GUARD_LOAD_MODULE))
		return -EPERM;
	return 0;
}

/* without `ret`: newer kernels pass another argument in its place */
SEC("lsm/bpf")
int BPF_PROG(bpf, int command, void *attributes, unsigned int size)
{
	if (refuse_plain(GUARD_BPF))
		return -EPERM;
	return 0;
}

/* the arguments differ between kernels */
SEC("lsm/perf_event_open")
int BPF_PROG(perf_event_open)
{
	if (refuse_plain(GUARD_PERF))
		return -EPERM;
	return 0;
}

/* Every way to create an io_uring creates its file first. */
SEC("lsm/inode_init_security_anon")
int BPF_PROG(inode_init_security_anon, struct inode *inode, const struct qstr *name, const struct inode *context,
	     int ret)
{
	const char wanted[] = "[io_uring]";
	char kind[sizeof(wanted)] = {}, differ = 0;
	__u32 i;

	if (ret)
		return ret;
	if (bpf_probe_read_kernel_str(kind, sizeof(kind), name->name) != sizeof(kind))
		return 0;
	GUARD_UNROLL
	for (i = 0; i < sizeof(kind); i++)
		differ |= kind[i] ^ wanted[i];
	if (differ)
		return 0;
	if (refuse_plain(GUARD_IO_URING))
		return -EPERM;
	return 0;
}

SEC("lsm/tun_dev_create")
int BPF_PROG(tun_dev_create, int ret)
{
	if (ret)
		return ret;
	if (refuse_plain(GUARD_TUN))
		return -EPERM;
	return 0;
}

/* A check without audit is a probe, and a negative result is not a denial to the caller. So it is decided, but
 * neither counted nor reported. */
SEC("lsm/capable")
int BPF_PROG(capable, const struct cred *cred, struct user_namespace *ns, int cap, unsigned int options, int ret)
{
	__u32 action = GUARD_CAPABILITY + cap;

	if (ret)
		return ret;
	if (action < GUARD_CAPABILITY || action >= GUARD_ACTIONS)
		return 0;
	if (options & CAP_OPT_NOAUDIT) {
		if (would_refuse_plain(action))
			return -EPERM;
		return 0;
	}
	if (refuse_plain(action))
		return -EPERM;
	return 0;
}

#endif
