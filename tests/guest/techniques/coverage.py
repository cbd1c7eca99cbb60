# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For each system call, operation of an io_uring, command of bpf(2) and ioctl: the techniques that use it, or why none is
needed. docs/system-calls.md is written from this table and from what each kernel has; a kernel that has more fails the test."""

from typing import Dict, Iterable, List, NamedTuple, Tuple


class Cover(NamedTuple):
    techniques: Tuple[str, ...]
    why: str  # why none is needed; beside techniques: what else there is to say


CALLS: Dict[str, Cover] = {}  # of 64-bit programs
CALLS32: Dict[
    str, str
] = {}  # entries for 32-bit programs with a name of their own: the call of 64-bit programs that does the same
RING: Dict[str, Cover] = {}  # operations of an io_uring
BPF: Dict[str, Cover] = {}  # commands of bpf(2)
IOCTLS: Dict[str, Cover] = {}


def _fill(table: Dict[str, Cover]):
    def tried(names: str, techniques: str, why: str = "") -> None:
        for name in names.split():
            assert name not in table, name
            table[name] = Cover(tuple(techniques.split()), why)

    def needless(names: str, why: str) -> None:
        tried(names, "", why)

    return tried, needless


# ---- system calls ----------------------------------------------------------------------------------------------------

tried, needless = _fill(CALLS)

tried("open creat", "open_by_the_old_call creat")
tried(
    "openat",
    "create_for_reading another_procfs open_read open_write open_truncate create temporary_file symlink chroot reopen_path_descriptor open_path",
)
tried("openat2", "openat2 openat2_32_bit")
tried("name_to_handle_at open_by_handle_at", "by_handle by_handle_uncached cap_dac_read_search")
tried("read", "held_read received_descriptor read_by_read")
tried("pread64", "held_pread")
tried("readv", "held_readv")
tried("preadv preadv2", "held_preadv read_by_readv")
tried("write", "switch_core_handler switch_sysrq_trigger switch_ftrace held_write held_socket_write")
tried("pwrite64", "held_pwrite")
tried("writev", "held_writev held_socket_writev")
tried("pwritev pwritev2", "held_pwritev")
tried("sendfile64", "held_sendfile held_sendfile_into held_socket_sendfile read_by_sendfile")
tried("splice", "held_splice held_splice_into held_socket_splice carry_a_helper_s_splice")
tried("tee", "carry_a_pipe_by_tee carry_a_helper_s_tee")
tried("vmsplice", "held_vmsplice_into held_socket_vmsplice carry_a_pipe_by_vmsplice")
tried("copy_file_range", "held_copy_file_range held_copy_into read_by_copy_file_range")
tried("mmap", "held_mmap held_mmap_write map_as_code map_memfd_as_code read_by_mmap")
tried("mprotect pkey_mprotect", "mprotect_to_code")
needless(
    "remap_file_pages mremap munmap msync brk mlock mlock2 mlockall munlock munlockall mseal map_shadow_stack",
    "memory that is mapped already; mapping it, and making it code, are decided. `mlock`: `cap_ipc_lock`",
)
needless(
    "madvise process_madvise process_mrelease mbind migrate_pages move_pages get_mempolicy set_mempolicy "
    "set_mempolicy_home_node",
    "where memory is, and whether it is kept: no content",
)
needless(
    "mincore cachestat readahead fadvise64 sync_file_range sync syncfs fsync fdatasync",
    "what is in the cache or on the disk already; a descriptor is needed, which is decided when it is opened; no content comes out",
)
tried("memfd_create", "memfd memfd_by_proc map_memfd_as_code carry_a_memfd_passed make_memfd")
tried("memfd_secret", "carry_memory_that_is_secret")
tried("truncate", "truncate open_truncate")
tried("ftruncate", "held_ftruncate carry_a_file_s_size")
tried("fallocate", "held_fallocate")
tried("getdents64", "list_folder list_folder_opened_before")
tried("getdents", "list_by_getdents")
tried("link linkat", "link_out link_out_by_descriptor link_out_by_empty_path")
tried("rename renameat renameat2", "rename_out rename_over rename_ancestor exchange exchange_folders rename_pins")
tried("mkdir mkdirat mknod mknodat", "mknod_file mkdir_in_the_tree fifo_in_the_tree cap_mknod")
tried("symlink symlinkat", "symlink_in_the_tree make_symlink")
tried(
    "unlink unlinkat rmdir",
    "user_namespace_unlinks_pin unlink unlink_pin",
    "deleting brings nothing out; what enforces is protected",
)
tried("readlink readlinkat", "stat_only proc_fd")
tried("chmod fchmod fchmodat", "user_namespace_chmod chmod cap_fowner")
tried("fchmodat2", "fchmodat2")
tried("chown lchown fchown fchownat", "chown cap_chown")
tried("utime utimes utimensat futimesat", "utimensat old_utime")
tried("setxattr lsetxattr fsetxattr", "setxattr held_fsetxattr cap_setfcap carry_an_attribute")
tried("getxattr lgetxattr fgetxattr", "getxattr carry_an_attribute")
tried("setxattrat", "setxattrat")
tried("getxattrat", "getxattr_by_path_descriptor")
tried("removexattr lremovexattr fremovexattr", "removexattr")
tried("removexattrat", "removexattrat")
needless("listxattr llistxattr flistxattr listxattrat", "names of attributes; reading one is decided: `getxattr`")
tried("file_setattr", "set_flags cap_linux_immutable", "the same as FS_IOC_SETFLAGS, by a path")
needless("file_getattr", "flags of a file are no content")
tried(
    "newstat newfstat newlstat newfstatat statx statfs fstatfs access faccessat faccessat2",
    "stat_only",
    "names and sizes are no content",
)
needless(
    "ustat sysfs statmount listmount listns lsm_get_self_attr lsm_list_modules",
    "what is mounted and which namespaces there are",
)
tried("chdir fchdir", "working_directory proc_self_cwd working_directory_of_before")
needless("getcwd", "a name that one has opened already")
tried("chroot", "chroot chroot_in_a_user_namespace cap_sys_chroot")
tried("lseek", "carry_a_shared_offset held_read")
tried("fcntl flock", "carry_file_locks", "F_SETOWN and F_SETSIG send signals: `kill`")
tried("dup dup2 dup3", "held_inherited held_inherited_socket")
needless("close close_range", "gives something up")
tried("ioctl", "set_flags held_dedupe loop_over_held tun vsock_connect", "the table of ioctls is below")
tried("pipe pipe2", "carry_a_pipe carry_two_pipes make_pair")
needless("poll ppoll select pselect6 epoll_create", "waits for what is decided when it is read or written")
tried("epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2", "carry_a_watched_descriptor")
tried("eventfd eventfd2", "carry_an_eventfd")
needless("signalfd signalfd4", "reads signals that were sent: `carry_a_signal_s_value`")
tried("timerfd_create timerfd_settime timerfd_gettime", "carry_a_timer")
needless(
    "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
    "tells names below a folder and that something happened there, no content",
)
tried("fanotify_init fanotify_mark", "fanotify")
tried("io_setup io_submit io_getevents io_pgetevents", "held_aio")
needless("io_destroy io_cancel", "ends what was begun")
tried(
    "io_uring_setup io_uring_enter io_uring_register",
    "io_uring held_uring_read held_uring_registered uring_open",
    "its operations are below",
)
needless(
    "userfaultfd", "fills memory of the process that made it; memory that two tasks share: `carry_memory_shared_before`"
)
needless("quotactl quotactl_fd", "limits and usage of a filesystem; no content")
tried("acct", "acct")
tried("swapon", "swapon")
needless("swapoff", "needs CAP_SYS_ADMIN; takes away a place to swap to")

tried("execve", "execute execute_by_symlink execute_proc_descriptor execute_as_interpreter through_the_linker")
tried("execveat", "execute_descriptor execute_held_descriptor memfd")
tried("fork vfork clone", "child thread carry_a_child carry_a_thread")
tried("clone3", "user_namespace_by_clone3")
tried(
    "unshare", "user_namespace_unlinks_pin user_namespace_without_a_map user_namespace every_namespace cgroup_namespace"
)
tried("setns", "user_namespace_in_another setns_to_mounts")
tried("exit exit_group wait4 waitid", "exit_status")
tried("ptrace", "ptrace_attach ptrace_seize ptrace_child debugger")
tried("process_vm_readv", "process_vm_readv carry_memory_read_by_another")
tried("process_vm_writev", "process_vm_writev carry_another_s_memory")
tried("pidfd_getfd", "pidfd_getfd taken_connection")
tried("pidfd_open", "pidfd_getfd pidfd_getfd_of_same_user")
needless("kcmp", "whether two processes share something; asks ptrace's permission first: `ptrace_attach`")
tried("kill tkill tgkill pidfd_send_signal", "kill cap_kill", "a signal's number is a few bits")
tried("rt_sigqueueinfo rt_tgsigqueueinfo rt_sigtimedwait", "carry_a_signal_s_value")
tried(
    "prctl",
    "carry_a_thread_s_name cap_setpcap only_real_user",
    "PR_SET_MM changes the program that /proc shows, not the one that a rule sees",
)
tried("prlimit64 setrlimit getrlimit", "carry_a_limit cap_sys_resource")
needless(
    "getpriority ioprio_get ioprio_set sched_setaffinity sched_getaffinity sched_setattr sched_getattr "
    "sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max "
    "sched_get_priority_min sched_rr_get_interval sched_yield",
    "when and where a task runs; a number that another task can read is a channel of a few bits: `carry_a_limit`, `exit_status`",
)
tried("setpriority", "cap_sys_nice")
needless(
    "getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid getcpu "
    "getrusage times sysinfo newuname capget getrandom time gettimeofday clock_gettime clock_getres get_robust_list",
    "tells a task about itself or the machine",
)
needless(
    "rt_sigaction rt_sigprocmask rt_sigpending rt_sigreturn rt_sigsuspend sigaltstack pause restart_syscall set_tid_address "
    "set_robust_list rseq arch_prctl modify_ldt pkey_alloc pkey_free membarrier umask personality setpgid setsid "
    "alarm getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete nanosleep clock_nanosleep",
    "changes only the task itself, and nothing that a rule asks about",
)
needless(
    "futex futex_waitv futex_wake futex_wait futex_requeue",
    "wakes tasks that share memory: `carry_memory_shared_before`",
)
needless("uretprobe uprobe", "returns from a probe that is there already; making one needs `perf`")
tried(
    "setuid setreuid setresuid setfsuid",
    "only_real_user only_effective_user only_saved_user file_system_user cap_setuid",
)
tried("setgid setregid setresgid setfsgid setgroups", "cap_setgid")
tried("capset", "cap_setpcap", "takes capabilities away, or raises those that one has")
tried("seccomp", "carry_a_supervised_call")
needless(
    "landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_set_self_attr", "restricts the task itself"
)

tried("socket", "tcp_ipv4 raw_icmp packet_raw netlink_socket_family alg_socket_family vsock_socket_family")
tried("socketpair", "carry_a_stream_pair carry_a_datagram_pair make_pair")
tried("connect", "tcp_ipv4 tcp_ipv6 udp_connected sctp mptcp unix_stream reconnected")
tried("sendto", "sendto_ipv4 sendto_ipv6 fast_open_ipv4 held_send")
tried("sendmsg", "append sendmsg held_sendmsg fast_open_sendmsg received_descriptor")
tried("sendmmsg", "sendmmsg fast_open_sendmmsg")
tried(
    "recvfrom recvmsg recvmmsg",
    "receive received_in_flight received_descriptor carry_a_stream_pair",
    "a descriptor that comes is decided",
)
tried("bind", "bind bind_any bind_udp")
tried("listen", "listen listen_without_bind")
tried("accept accept4", "accept accept_on_held reply")
tried(
    "setsockopt",
    "flow_label source_filter_ipv6 join_group_ipv4 join_source_request_ipv6 join_group_by_32_bits fast_open_connect sctp_connectx source_route_option routing_header_option carry_a_socket_option",
)
tried(
    "getsockopt",
    "carry_a_socket_option",
    "SO_PEERPIDFD and SCTP_SOCKOPT_PEELOFF give descriptors: of a process, or of a connection that is decided when it sends",
)
needless("getsockname getpeername shutdown", "tells, or ends, a connection that is decided when it sends")

tried("mount", "over_mounted mount_tmpfs mount_bind mount_move second_mount overlay_by_root")
tried("umount", "umount unmount_pins", "it opens nothing; what enforces is protected")
tried("pivot_root", "pivot_root")
tried("fsopen fsconfig fsmount", "new_mount_calls detached_filesystem")
tried("fspick", "fspick")
tried("move_mount", "new_mount_calls cloned_tree")
tried("open_tree", "detached_mount open_tree cloned_tree")
tried("open_tree_attr", "open_tree_attr")
tried("mount_setattr", "mount_setattr")

tried("shmget shmat shmdt", "carry_system_v_shared_memory")
needless("shmctl", "removes a segment, or tells of it; needs the same permission as using it")
tried("msgget msgsnd msgrcv msgctl", "carry_a_message_queue")
tried("semget semctl semop semtimedop", "carry_a_semaphore")
tried("mq_open mq_timedsend mq_timedreceive mq_unlink", "carry_a_posix_message_queue carry_a_posix_queue_opened_before")
needless("mq_notify mq_getsetattr", "tells that a message came, not the message")
tried("add_key keyctl", "carry_a_key")
needless("request_key", "finds a key, which `key_permission` decides; making one starts /sbin/request-key as root")

tried("init_module finit_module", "init_module finit_module finit_module_from_memory")
needless("delete_module", "needs CAP_SYS_MODULE; the BPF programs are no module")
tried("kexec_load kexec_file_load", "kexec_load")
tried("bpf", "bpf_map bpf_program map_by_number write_pinned_map", "its commands are below")
tried("perf_event_open", "perf perf_of_a_user")
tried("reboot", "cap_sys_boot")
tried("vhangup", "cap_sys_tty_config")
tried("syslog", "cap_syslog")
tried("iopl ioperm", "cap_sys_rawio")
tried("sethostname setdomainname", "cap_sys_admin carry_a_host_s_name")
tried("settimeofday clock_settime adjtimex clock_adjtime", "cap_sys_time")

# ---- entries of 32-bit programs ----------------------------------------------------------------------------------------


def _same(pairs: str) -> None:
    for pair in pairs.split():
        name, _sign, call = pair.partition("=")
        CALLS32[name] = call


_same(
    "adjtimex_time32=adjtimex chown16=chown clock_adjtime32=clock_adjtime clock_getres_time32=clock_getres "
    "clock_gettime32=clock_gettime clock_nanosleep_time32=clock_nanosleep clock_settime32=clock_settime "
    "fadvise64_64=fadvise64 fchown16=fchown fcntl64=fcntl fstat=newfstat fstatfs64=fstatfs futex_time32=futex "
    "futimesat_time32=futimesat get_thread_area=arch_prctl set_thread_area=arch_prctl getgroups16=getgroups "
    "gethostname=newuname getresgid16=getresgid getresuid16=getresuid ia32_clone=clone ia32_fadvise64=fadvise64 "
    "ia32_fadvise64_64=fadvise64 ia32_fallocate=fallocate ia32_fstat64=newfstat ia32_fstatat64=newfstatat "
    "ia32_ftruncate64=ftruncate ia32_lstat64=newlstat ia32_mmap=mmap ia32_pread64=pread64 ia32_pwrite64=pwrite64 "
    "ia32_readahead=readahead ia32_stat64=newstat ia32_sync_file_range=sync_file_range ia32_truncate64=truncate "
    "io_getevents_time32=io_getevents io_pgetevents_time64=io_pgetevents "
    "ipc=msgsnd lchown16=lchown llseek=lseek lstat=newlstat mmap_pgoff=mmap "
    "mq_timedreceive_time32=mq_timedreceive mq_timedsend_time32=mq_timedsend nanosleep_time32=nanosleep "
    "nice=setpriority old_getrlimit=getrlimit old_msgctl=msgctl old_readdir=getdents old_select=select "
    "old_semctl=semctl old_shmctl=shmctl oldumount=umount olduname=newuname uname=newuname ppoll_time32=ppoll "
    "ppoll_time64=ppoll preadv64=preadv preadv64v2=preadv2 pselect6_time32=pselect6 pselect6_time64=pselect6 "
    "pwritev64=pwritev pwritev64v2=pwritev2 recv=recvfrom recvmmsg_time32=recvmmsg recvmmsg_time64=recvmmsg "
    "rt_sigtimedwait_time32=rt_sigtimedwait rt_sigtimedwait_time64=rt_sigtimedwait "
    "sched_rr_get_interval_time32=sched_rr_get_interval semtimedop_time32=semtimedop send=sendto "
    "sendfile=sendfile64 setfsgid16=setfsgid setfsuid16=setfsuid setgid16=setgid setgroups16=setgroups "
    "setregid16=setregid setresgid16=setresgid setresuid16=setresuid setreuid16=setreuid setuid16=setuid "
    "ssetmask=rt_sigprocmask sigaction=rt_sigaction signal=rt_sigaction "
    "sigpending=rt_sigpending sigprocmask=rt_sigprocmask sigreturn=rt_sigreturn sigsuspend=rt_sigsuspend "
    "socketcall=connect stat=newstat statfs64=statfs stime=settimeofday stime32=settimeofday "
    "sync_file_range2=sync_file_range time32=time timer_gettime32=timer_gettime timer_settime32=timer_settime "
    "timerfd_gettime32=timerfd_gettime timerfd_settime32=timerfd_settime uselib=mmap utime32=utime "
    "utimensat_time32=utimensat utimes_time32=utimes waitpid=wait4 "
)
COMPAT = [
    "open_32_bit",
    "openat2_32_bit",
    "held_pread_32_bit",
    "held_mmap_32_bit",
    "truncate_32_bit",
    "execute_32_bit",
    "connect_32_bit",
    "sendto_32_bit",
    "sendmsg_32_bit",
    "mount_32_bit",
    "ptrace_32_bit",
]

# ---- io_uring --------------------------------------------------------------------------------------------------------

tried, needless = _fill(RING)
needless(
    "nop nop128 poll_add poll_remove timeout timeout_remove async_cancel link_timeout files_update provide_buffers "
    "remove_buffers waitid futex_wait futex_wake futex_waitv epoll_ctl epoll_wait close shutdown fsync sync_file_range fadvise "
    "madvise statx",
    "the same as the system call of this name, which needs no technique, or only the ring itself",
)
tried("read readv", "held_uring_read read_by_uring read_by_uring_polling")
tried(
    "read_fixed readv_fixed read_multishot",
    "held_uring_registered held_uring_read",
    "the same check of the file as for `read`",
)
tried("write writev", "held_uring_write held_uring_socket_write carry_a_pipe_by_uring")
tried("write_fixed writev_fixed", "held_uring_write", "the same check of the file as for `write`")
tried("splice", "held_uring_splice")
tried("tee", "carry_a_pipe_by_tee carry_a_helper_s_tee", "calls what tee(2) calls")
tried("openat openat2", "uring_open uring_open_by_polling_thread uring_of_before")
tried("linkat", "link_out_by_uring")
tried("renameat", "rename_out_by_uring")
tried("unlinkat", "unlink unlink_pin", "calls what unlinkat(2) calls, with the task's own credentials")
tried("mkdirat symlinkat", "mkdir_in_the_tree symlink_in_the_tree", "calls what mkdirat(2) and symlinkat(2) call")
tried("fsetxattr setxattr fgetxattr getxattr", "setxattr getxattr", "calls what the system calls of these names call")
tried("fallocate ftruncate", "held_fallocate held_ftruncate", "calls what the system calls of these names call")
tried("socket", "uring_socket_and_connect")
tried("connect", "uring_connect uring_socket_and_connect unix_by_uring")
tried("accept", "accept_by_uring")
tried("bind listen", "bind listen", "calls what bind(2) and listen(2) call")
tried("send", "held_uring_send held_uring_polling_send uring_send_with_address")
tried("sendmsg", "uring_sendmsg send_uring_sendmsg")
tried("send_zc sendmsg_zc", "held_uring_zero_copy")
tried(
    "recv recvmsg recv_zc",
    "receive received_in_flight",
    "what comes in is no way out; a descriptor that comes is decided",
)
tried("pipe", "carry_a_pipe", "makes what pipe2(2) makes")
tried("msg_ring", "held_uring_registered", "hands a registered file to another ring; using it there is decided")
tried(
    "fixed_fd_install", "received_descriptor", "a descriptor from a registered file is decided as one that was received"
)
tried(
    "uring_cmd uring_cmd128",
    "join_group_by_uring source_route_option block_device",
    "options of sockets, decided as setsockopt(2) is; commands of disks (NVMe), which need the open device",
)

# ---- bpf(2) ----------------------------------------------------------------------------------------------------------

tried, needless = _fill(BPF)
tried("map_create", "bpf_map bpf_of_a_user", "the action `bpf` denies every command")
tried("prog_load", "bpf_program")
tried("obj_get", "write_pinned_map")
tried("map_get_fd_by_id map_get_next_id", "map_by_number")
tried("prog_get_fd_by_id prog_get_next_id", "program_by_number")
needless(
    "map_lookup_elem map_update_elem map_delete_elem map_get_next_key map_lookup_and_delete_elem map_freeze map_lookup_batch "
    "map_lookup_and_delete_batch map_update_batch map_delete_batch prog_attach prog_detach prog_test_run prog_run "
    "obj_pin obj_get_info_by_fd prog_query raw_tracepoint_open btf_load task_fd_query link_create link_update link_detach enable_stats iter_create "
    "prog_bind_map token_create prog_stream_read_by_fd prog_assoc_struct_ops common_attrs",
    "denied by the action `bpf` like every command; needs a descriptor of a map, program or link, which `bpf_map` and "
    "`bpf_prog` decide for those of the guard",
)
needless("btf_get_fd_by_id btf_get_next_id", "descriptions of types")
tried("link_get_fd_by_id link_get_next_id", "link_by_number")

# ---- ioctls ----------------------------------------------------------------------------------------------------------

tried, needless = _fill(IOCTLS)
tried("FICLONE FICLONERANGE FIDEDUPERANGE", "held_dedupe", "asks for reading the source and writing the target")
tried("FS_IOC_SETFLAGS FS_IOC_FSSETXATTR", "set_flags cap_linux_immutable")
needless(
    "EXT4_IOC_MOVE_EXT",
    "exchanges the blocks of two files that are open for writing; ext4 leaves what the other file gets unwritten, so that it reads as "
    "zeros",
)
needless(
    "FIBMAP FS_IOC_FIEMAP FIONREAD FIGETBSZ FS_IOC_GETFLAGS FS_IOC_GETVERSION PROCMAP_QUERY PAGEMAP_SCAN",
    "where a file's blocks or a task's memory are, and how much of it: no content",
)
needless(
    "FIFREEZE FITHAW FITRIM EXT4_IOC_SHUTDOWN", "need CAP_SYS_ADMIN; stop or tidy a filesystem, and bring nothing out"
)
needless(
    "BTRFS_IOC_SNAP_CREATE BTRFS_IOC_SNAP_CREATE_V2 BTRFS_IOC_SEND BTRFS_IOC_ENCODED_READ XFS_IOC_OPEN_BY_HANDLE XFS_IOC_EXCHANGE_RANGE XFS_IOC_SWAPEXT",
    "of filesystems that these kernels do not have; a snapshot is another tree with the same files: deny `cap-sys-admin`, and name the "
    "places of snapshots in the policy",
)
tried("LOOP_SET_FD LOOP_CONFIGURE LOOP_CTL_GET_FREE", "loop_over_held block_device_of_own_making")
needless(
    "NBD_SET_SOCK DM_DEV_CREATE MD_SET_ARRAY_INFO SG_IO NVME_IOCTL_ADMIN_CMD BLKRRPART",
    "need an open block device or its control device, which `block-device` decides",
)
tried("TUNSETIFF TUNSETQUEUE VHOST_NET_SET_BACKEND", "tun tap")
tried(
    "TIOCSTI TIOCCONS TIOCLINUX TIOCSETD TIOCGPTPEER",
    "carry_a_terminal",
    "what one types into one's own terminal reaches who reads it, with a label",
)
tried(
    "SIOCADDRT SIOCSIFADDR SIOCSIFFLAGS SIOCSARP SIOCADDTUNNEL SIOCBRADDIF",
    "cap_net_admin netlink_route",
    "each asks for CAP_NET_ADMIN",
)
needless("SIOCGIFCONF SIOCGIFHWADDR SIOCOUTQ SIOCINQ SIOCATMARK", "tells about interfaces and queues")
tried("PERF_EVENT_IOC_SET_BPF PERF_EVENT_IOC_SET_FILTER", "perf bpf_program", "needs a descriptor of perf_event_open")
tried(
    "SECCOMP_IOCTL_NOTIF_RECV SECCOMP_IOCTL_NOTIF_SEND SECCOMP_IOCTL_NOTIF_ADDFD",
    "carry_a_supervised_call received_descriptor",
    "ADDFD: decided as a descriptor that was received",
)
needless(
    "UFFDIO_COPY UFFDIO_ZEROPAGE UFFDIO_MOVE UFFDIO_POISON", "fills memory of the process that made the descriptor"
)
needless(
    "NS_GET_USERNS NS_GET_PARENT NS_GET_PID_FROM_PIDNS PIDFD_GET_MNT_NAMESPACE PIDFD_GET_INFO",
    "gives a namespace to enter: `setns_to_mounts`, `every_namespace`",
)
needless("IOCTL_VM_SOCKETS_GET_LOCAL_CID VBG_IOCTL_HGCM_CALL", "needs the device, which `guest-device` decides")
needless(
    "KVM_CREATE_VM VFIO_SET_IOMMU IOMMU_IOAS_MAP",
    "needs the device: name it in a rule on reading and writing; a machine of one's own has only what its owner may read and send",
)
needless(
    "FUSE_DEV_IOC_CLONE FUSE_DEV_IOC_PASSTHROUGH_OPEN AUTOFS_DEV_IOCTL_OPENMOUNT",
    "needs a mount, which `mount` decides; opening a file of it is decided",
)
needless(
    "RTC_SET_TIME KDSKBENT RNDADDENTROPY EVIOCGRAB",
    "needs CAP_SYS_TIME, CAP_SYS_TTY_CONFIG or CAP_SYS_ADMIN, or the device",
)

# ---- whether it is whole -----------------------------------------------------------------------------------------------


def lacking(kernel: Dict[str, List[str]]) -> List[str]:
    """What a kernel has, as harness/calls.py tells it, and the tables have not."""
    found = [f"system call {name}" for name in kernel["64"] if name not in CALLS]
    found += [f"32-bit call {name}" for name in kernel["32"] if name not in CALLS and name not in CALLS32]
    found += [f"x32 call {name}" for name in kernel["x32"] if name not in CALLS]
    found += [f"operation {name} of an io_uring" for name in kernel["io_uring"] if name not in RING]
    found += [f"command {name} of bpf(2)" for name in kernel["bpf"] if name not in BPF]
    return found


def left_over(kernels: Iterable[Dict[str, List[str]]]) -> List[str]:
    """Names in the tables that none of the kernels has."""
    kernels = list(kernels)
    return [
        f"{name}: no kernel has it"
        for kind, table in (("64", CALLS), ("32", CALLS32), ("io_uring", RING), ("bpf", BPF))
        for name in table
        if not any(name in kernel[kind] for kernel in kernels)
    ]


def mistakes(techniques) -> List[str]:
    """Entries with neither a technique nor a reason, and names that are no technique's or no call's."""
    found = []
    for table in (CALLS, RING, BPF, IOCTLS):
        for name, cover in table.items():
            found += [f"{name}: {each} is no technique" for each in cover.techniques if each not in techniques]
            if not cover.techniques and not cover.why:
                found.append(f"{name}: neither a technique nor a reason")
    found += [f"{name}: {call} is no system call" for name, call in CALLS32.items() if call not in CALLS]
    found += [f"{name} is no technique" for name in COMPAT if name not in techniques]
    return found
