/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Written by `make generate` from the table of actions, plugins/module_utils/_guard/policy/actions.py. */
#ifndef GUARD_ABI_ACTIONS_H
#define GUARD_ABI_ACTIONS_H

/* Actions; the number is also the index into guard_policy.rules_by_action. */
enum guard_action {
	/* on an object; the caches hold a bit for each action that a rule which applies to the task has */
	GUARD_READ = 0,
	GUARD_WRITE = 1,
	GUARD_EXECUTE = 2,
	GUARD_CONNECT = 3,
	GUARD_SEND = 4,
	GUARD_REPLY = 5,
	GUARD_BIND = 6,
	GUARD_LISTEN = 7,
	GUARD_ACCEPT = 8,
	GUARD_UNIX_CONNECT = 9,
	GUARD_VSOCK = 10,
	/* rules_by_action: every rule with an action without an object */
	GUARD_PLAIN = 13,
	/* a new hard link, or the rename of a file; rules_by_action: every rule on resources */
	GUARD_LINK = 14,
	GUARD_RENAME = 15,
	/* without an object: the number plus the address family of a new socket */
	GUARD_SOCKET = 16,
	/* a family that the policy language has no name for */
	GUARD_OTHER_SOCKET = 63,
	GUARD_RAW_SOCKET = 64,
	GUARD_MOUNT = 65,
	GUARD_PTRACE = 66,
	GUARD_LOAD_MODULE = 67,
	GUARD_BPF = 68,
	GUARD_PERF = 69,
	GUARD_USER_NAMESPACE = 70,
	GUARD_IO_URING = 71,
	GUARD_BLOCK_DEVICE = 72,
	GUARD_VIRTIO_PORT = 73,
	GUARD_SERIAL = 74,
	GUARD_TUN = 75,
	GUARD_GUEST_DEVICE = 76,
	/* the number plus the number of a capability */
	GUARD_CAPABILITY = 80,
	GUARD_ACTIONS = 128,
};

/* Actions on a path in a filesystem, one bit each. */
#define GUARD_PATH_ACTIONS 0x7U
#define GUARD_LAST_PATH_ACTION GUARD_EXECUTE
/* Actions of rules with `resources`, one bit each. */
#define GUARD_RESOURCE_ACTIONS 0x207U
/* Address families that the policy language has a name for, one bit each. */
#define GUARD_NAMED_FAMILIES 0x3ffbfd338f7eULL

#endif
