/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What any BPF LSM pays before its first line: programs that do nothing, on the hooks that the benchmark meets.
 */
#include "abi/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	return 0;
}

SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	return 0;
}

SEC("lsm/socket_connect")
int BPF_PROG(socket_connect, struct socket *sock, struct sockaddr *address, int length, int ret)
{
	return 0;
}

SEC("lsm/socket_sendmsg")
int BPF_PROG(socket_sendmsg, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	return 0;
}
