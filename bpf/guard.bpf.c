/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The enforcer: LSM programs that gather what core/decide.h asks for. All of it is one translation unit. A header uses the
 * folders before its own alone: abi, core, object, subject, decision, label, hooks. Every program ends in a branch that
 * returns a literal, since 6.8 and 6.12 refuse a computed one. No program sleeps, so that exchanging a map waits for whoever
 * reads it.
 */
#include "abi/bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#include "hooks/label.h"
#include "hooks/unix.h"
#include "hooks/socket.h"
#include "hooks/machine.h"
#include "hooks/tamper.h"
#include "hooks/file.h"
#include "hooks/attributes.h"
#include "hooks/task.h"
