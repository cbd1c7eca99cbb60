/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hooks on unix sockets.
 */
#ifndef GUARD_HOOKS_UNIX_H
#define GUARD_HOOKS_UNIX_H

#include "abi/bpf.h"
#include "core/maps.h"
#include "decision/unix.h"
#include "decision/verdict.h"
#include "label/flow.h"

SEC("lsm/unix_stream_connect")
int BPF_PROG(unix_stream_connect, struct sock *sock, struct sock *other, struct sock *accepted, int ret)
{
	struct generation_ref gen;

	if (ret)
		return ret;
	return deny_if(active_generation(&gen) && refuse_unix(&gen, (const void *)other));
}

SEC("lsm/unix_may_send")
int BPF_PROG(unix_may_send, struct socket *sock, struct socket *other, int ret)
{
	struct sock *sk = other->sk;
	struct generation_ref gen;

	if (ret)
		return ret;
	if (!sk || !active_generation(&gen))
		return 0;
	if (refuse_unix(&gen, (const void *)sk))
		return -EPERM;
	return deny_if(refuse_send(&gen, ptr_to_u64(sk)));
}

#endif
