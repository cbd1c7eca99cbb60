/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Declares the kernel types that the programs read, with only the fields that they read. CO-RE finds each field on
 * the running kernel.
 */
#ifndef GUARD_ABI_KERNEL_H
#define GUARD_ABI_KERNEL_H

typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;
typedef __u16 umode_t;
typedef __u32 u32;
typedef __u64 u64;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_INODE_STORAGE = 28,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_CLONE = 0x200,
	BPF_F_INNER_MAP = 0x1000,
	BPF_LOCAL_STORAGE_GET_F_CREATE = 1,
};

struct bpf_spin_lock {
	__u32 val;
};

struct iattr;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__u32 val;
} kuid_t;
typedef struct {
	__u32 val;
} kgid_t;

struct group_info {
	int ngroups;
	kgid_t gid[];
};

#define UID_GID_MAP_MAX_BASE_EXTENTS 5

struct uid_gid_extent {
	__u32 first;
	__u32 lower_first; /* as a kernel id */
	__u32 count;
};

/* The extents are here only while there are at most UID_GID_MAP_MAX_BASE_EXTENTS of them. */
struct uid_gid_map {
	__u32 nr_extents;
	struct uid_gid_extent extent[UID_GID_MAP_MAX_BASE_EXTENTS];
};

struct user_namespace {
	struct uid_gid_map uid_map;
	struct user_namespace *parent;
	int level;
	kuid_t owner;
};

struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t suid;
	kgid_t sgid;
	kuid_t euid;
	kgid_t egid;
	kuid_t fsuid;
	kgid_t fsgid;
	struct user_namespace *user_ns;
	struct group_info *group_info;
	struct {
		__u64 val;
	} cap_effective;
	void *security;
};

struct qstr {
	__u32 hash;
	__u32 len;
	const unsigned char *name;
};

struct file_system_type {
	int fs_flags;
};
struct super_block {
	__u32 s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
	struct dentry *s_root;
};
struct list_head {
	struct list_head *next;
};
struct hlist_node {
	struct hlist_node *next;
};
struct hlist_head {
	struct hlist_node *first;
};

struct inode {
	umode_t i_mode;
	__u32 i_rdev;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;
	unsigned int i_nlink;
	void *i_private;
	struct hlist_head i_dentry;
};

enum dentry_flags { DCACHE_MOUNTED = 1 << 15 };
struct dentry {
	unsigned int d_flags;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
	union {
		struct hlist_node d_alias;
	} d_u;
};
struct dentry___7 {
	struct hlist_node d_alias;
};

struct vfsmount {
	struct dentry *mnt_root;
};
struct ns_common {
	__u32 inum;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct list_head mnt_mounts, mnt_child;
	struct mnt_namespace *mnt_ns;
	int mnt_group_id;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};
struct tty_struct {
	struct tty_struct *link;
	void *driver_data;
};
struct tty_file_private {
	struct tty_struct *tty;
};
union security_list_options {
	void *mmap_backing_file;
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};
struct mm_struct {
	struct file *exe_file;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
struct kernfs_node {
	__u64 id;
	const char *name;
	struct kernfs_node *parent;
};
struct kernfs_node___618 {
	struct kernfs_node *__parent;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	const struct cred *cred;
	const struct cred *real_cred;
	kuid_t loginuid;
	struct css_set *cgroups;
	struct mm_struct *mm;
	struct files_struct *files;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	__u64 start_boottime;
	int pid;
	int tgid;
	char comm[16];
};

struct bpf_map {
	__u32 id;
	char name[16];
};
struct bpf_prog_aux {
	__u32 id;
};
struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct linux_binprm {
	struct file *file;
};

struct in6_addr {
	union {
		__u8 u6_addr8[16];
	} in6_u;
};
struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};
struct sk_buff_head {
	__u32 qlen;
};
struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_write_queue;
	__u16 sk_protocol;
	__u16 sk_type;
	__u8 sk_kern_sock : 1;
};
struct kern_ipc_perm {
	int id;
};
struct msg_msg {
	long m_type;
};
struct socket {
	short type;
	struct file *file;
	struct sock *sk;
};
struct socket_alloc {
	struct socket socket;
	struct inode vfs_inode;
};
struct msghdr {
	void *msg_name;
	int msg_namelen;
	union {
		void *msg_control;
	};
	unsigned int msg_flags;
	unsigned long msg_controllen;
};
struct sockaddr {
	unsigned short sa_family;
};
struct proto_ops {
	void *sendpage;
};

struct ip_options {
	unsigned char srr;
};
struct ip_options_rcu {
	struct ip_options opt;
};
struct ipv6_txoptions {
	void *srcrt;
};
struct ipv6_pinfo {
	struct ipv6_txoptions *opt;
};
struct ipv6_pinfo___612 {
	void *ipv6_fl_list;
};
struct inet_sock {
	struct ipv6_pinfo *pinet6;
	void *ipv6_fl_list;
	struct ip_options_rcu *inet_opt;
	unsigned long inet_flags;
};
struct inet_sock___61 {
	__u8 hdrincl : 1;
};
struct inet_bind_bucket {
	signed char fastreuse;
};
struct inet_connection_sock {
	struct inet_bind_bucket *icsk_bind_hash;
};

struct sockaddr_un {
	unsigned short sun_family;
	char sun_path[108];
};
struct unix_address {
	int len;
	struct sockaddr_un name[];
};
struct unix_sock {
	struct unix_address *addr;
	struct path path;
	struct sock *peer;
};

/* The values differ between kernels. */
enum kernel_read_file_id {
	READING_MODULE = 2,
	READING_KEXEC_IMAGE,
	READING_KEXEC_INITRAMFS,
	READING_MODULE_COMPRESSED,
};
enum kernel_load_data_id { LOADING_MODULE = 2, LOADING_KEXEC_IMAGE };

#pragma clang attribute pop

/* Structures that arrive from a caller; they are the same on every kernel. */
struct guard_sockaddr {
	__u16 family;
	__be16 port;
	union {
		struct {
			__u8 ipv4[4];
		};
		struct {
			__u32 flow;
			__u8 ipv6[16];
		};
	};
};

/* In 6.1 this option is a bit field of its own, see inet_sock___61. */
enum { INET_FLAGS_HDRINCL = 12 };

struct guard_sockaddr_vm {
	__u16 family;
	__u16 reserved;
	__u32 port;
	__u32 cid;
	__u32 rest;
};
struct guard_cmsghdr {
	__u64 length;
	__s32 level;
	__s32 type;
};

#define EPERM 1
#define CLONE_VM 0x100
#define CLONE_FILES 0x400
#define CLONE_INTO_CGROUP 0x200000000UL
#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_VSOCK 40
#define AF_SMC 43
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOCK_ESTABLISHED 1
#define SOCK_CLOSE 7
#define SOCK_LISTEN 10
#define IPPROTO_IP 0
#define IPPROTO_IGMP 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_DCCP 33
#define IPPROTO_IPV6 41
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136
#define IPPROTO_SMC 256
#define IPPROTO_MPTCP 262
#define MSG_FASTOPEN 0x20000000
#define MSG_BATCH 0x40000
#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_EXEC 0x20
#define O_TRUNC 01000
#define MAY_WRITE 2
#define MAY_READ 4
#define MAY_APPEND 8
#define PROT_WRITE 2
#define PROT_EXEC 4
#define PTRACE_MODE_ATTACH 2
#define CAP_OPT_NOAUDIT 2
#define CAP_SETGID 6
#define CAP_SYS_ADMIN 21
#define CAP_SYS_TIME 25
#define CAP_AUDIT_CONTROL 30
#define SB_KERNMOUNT (1UL << 22)
#define MAP_SHARED 1 /* also set in MAP_SHARED_VALIDATE, not in MAP_PRIVATE */
#define VM_SHARED 8
#define SB_NOUSER (1UL << 31)
#define S_IFMT 0170000
#define S_IFIFO 0010000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define S_IFBLK 0060000
#define S_IFSOCK 0140000

#define OVERLAYFS_MAGIC 0x794c7630

/* Filesystems without names for data at rest: see is_pseudo_fs(). */
#define TMPFS_MAGIC 0x01021994
#define RAMFS_MAGIC 0x858458f6
#define PROC_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define DEVPTS_MAGIC 0x1cd1
#define CGROUP_MAGIC 0x27e0eb
#define CGROUP2_MAGIC 0x63677270
#define BPFFS_MAGIC 0xcafe4a11
#define DEBUGFS_MAGIC 0x64626720
#define TRACEFS_MAGIC 0x74726163
#define SECURITYFS_MAGIC 0x73636673
#define PIPEFS_MAGIC 0x50495045
#define SOCKFS_MAGIC 0x534f434b
#define ANON_INODE_MAGIC 0x09041934
#define NSFS_MAGIC 0x6e736673
#define PIDFS_MAGIC 0x50494446
#define MQUEUE_MAGIC 0x19800202
#define SECRETMEM_MAGIC 0x5345434d
#define HUGETLBFS_MAGIC 0x958458f6
#define CONFIGFS_MAGIC 0x62656570
#define BINFMTFS_MAGIC 0x42494e4d
#define EFIVARFS_MAGIC 0xde5e81e4
#define PSTOREFS_MAGIC 0x6165676c
#define AUTOFS_MAGIC 0x0187
#define SELINUX_MAGIC 0xf97cff8c
#define RPCPIPEFS_MAGIC 0x67596969

#endif
