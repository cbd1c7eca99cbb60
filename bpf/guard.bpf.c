/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The enforcer: LSM programs that gather the inputs of core/decide.h, in one translation unit. The folders are
 * layers: abi, core, object, subject, decision, label, hooks; a header includes only headers of its own layer and of
 * earlier ones. Every program ends in a branch that returns a literal, since 6.8 and 6.12 reject a computed value. No
 * program sleeps, so that replacing a map waits for the programs that read it.
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
#include "hooks/identity.h"
