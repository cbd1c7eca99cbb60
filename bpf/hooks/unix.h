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
	struct view v;

	if (ret)
		return ret;
	return answer(see(&v) && refuse_unix(&v, (const void *)other));
}

SEC("lsm/unix_may_send")
int BPF_PROG(unix_may_send, struct socket *sock, struct socket *other, int ret)
{
	struct sock *sk = other->sk;
	struct view v;

	if (ret)
		return ret;
	if (!sk || !see(&v))
		return 0;
	if (refuse_unix(&v, (const void *)sk))
		return -EPERM;
	return answer(refuse_carrying(&v, number(sk)));
}

#endif
