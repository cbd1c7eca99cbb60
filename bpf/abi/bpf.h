/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's types and libbpf's macros, in the order in which libbpf's headers need them.
 */
#ifndef GUARD_ABI_BPF_H
#define GUARD_ABI_BPF_H

#include "abi/kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#endif
