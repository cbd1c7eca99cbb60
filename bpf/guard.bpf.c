/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The enforcer: LSM programs that gather what decide.h asks for. Every path ends in a branch that returns a literal,
 * since 6.8 and 6.12 refuse a computed one. Nothing here sleeps, so that exchanging a map waits for whoever reads it.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include "decide.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#include "maps.h"
#include "path.h"
#include "cell.h"
#include "subject.h"
#include "event.h"
#include "reading.h"
#include "label.h"
#include "network.h"
#include "direction.h"
#include "unix.h"
#include "socket.h"
#include "machine.h"
#include "tamper.h"
#include "file.h"
#include "attributes.h"
#include "unmount.h"
#include "identity.h"
