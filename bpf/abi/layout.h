/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sizes, numbers and map values that the kernel side and user space share. plugins/module_utils/_guard/layout.py is
 * the counterpart in Python; tests/native/test_layout.py compares them. A change that an older reader would misread
 * must raise GUARD_LAYOUT, which is part of the path of the pins.
 */
#ifndef GUARD_ABI_LAYOUT_H
#define GUARD_ABI_LAYOUT_H

#include "abi/actions.h"

#define GUARD_LAYOUT 1

#define GUARD_RULES 512 /* rules in a policy */
#define GUARD_WORDS 9   /* 64-bit words of a rule vector; the bits from 512 on are the canary's rules */
#define GUARD_SETS 64   /* sets of one kind, named or inline */
#define GUARD_PROTECTED \
	575 /* bit of a state that belongs to the enforcer itself, see decision/protection.h; not the bit of a rule */
#define GUARD_CANARY_SET 63 /* subject set of the canary; an unknown attribute never binds its rules */
#define GUARD_SLOTS 3       /* active, fallback, idle */
#define GUARD_NO_SLOT 0xffffffffU
#define GUARD_DEPTH 64 /* components of a path inside its superblock */
#define GUARD_CGROUP_DEPTH 16
#define GUARD_GROUPS 32                /* supplementary groups that are read */
#define GUARD_NAMESPACES 8             /* nested user namespaces that are read */
#define GUARD_ALIASES 4                /* names of an inode that are read */
#define GUARD_COMPONENT 36             /* bytes of a literal component in an edge key */
#define GUARD_NAME 96                  /* bytes of a rule's name, NUL included */
#define GUARD_LABELS 64                /* resource sets that `has_read` names */
#define GUARD_LABEL_NAME 64            /* bytes of a set's name, NUL included */
#define GUARD_TASK_LABELS 131072       /* entries of map task_labels */
#define GUARD_LABEL_GROUPS 65536       /* entries of map label_groups */
#define GUARD_CHANNELS 65536           /* entries of map channels */
#define GUARD_PERSISTENT_LABELS 262144 /* entries of map persistent_labels */
#define GUARD_FILES 1048576            /* file descriptors that are read when a task gets a label */
#define GUARD_READERS 16               /* readers of a channel that are recorded */
#define GUARD_ABSTRACT \
	0xffffffffU    /* stands for the superblock of abstract unix socket names, each of which is one component */
#define GUARD_PATH 512 /* bytes of a path in an event */

enum guard_verdict { GUARD_ALLOW = 0, GUARD_AUDIT = 1, GUARD_DENY = 2 };

/* Why an action was decided so: a rule, or an error that fails closed. */
enum guard_reason {
	GUARD_BY_RULE = 0,
	GUARD_NO_CHAIN = 1,   /* the dentries do not end at the root of the superblock */
	GUARD_TOO_DEEP = 2,   /* deeper than GUARD_DEPTH */
	GUARD_UNKNOWN_FS = 3, /* the policy was resolved without this superblock */
	GUARD_UNSTABLE = 4,   /* renames went on during each walk */
	GUARD_BROKEN_MAP = 5, /* a table of the generation lacks an entry */
	GUARD_NO_ADDRESS = 6, /* the destination is unknown: source routing, or an address that cannot be read */
	GUARD_NO_LABEL = 7,   /* a label could not be recorded */
	GUARD_TAMPER = 8,     /* self-protection; no rule is involved */
	GUARD_REASONS = 16,
};

/* Kinds of numbers in the map ids. */
enum guard_id_kind {
	GUARD_ID_USER = 0,
	GUARD_ID_LOGIN = 1,
	GUARD_ID_GROUP = 2,
	GUARD_ID_PROTOCOL = 3,
	GUARD_ID_LABEL = 4,
	GUARD_ID_RANGE = 5,
	GUARD_ID_KINDS = 6,
};

/* What a join announces, since its hook does not see the values. Numbers of the kind GUARD_ID_RANGE in the map ids:
 * the destination sets that hold some address of the range. */
enum guard_range {
	GUARD_NO_RANGE = 0, /* one address */
	GUARD_GROUPS_IPV4 = 1,
	GUARD_GROUPS_IPV6 = 2,
	GUARD_ALL_IPV4 = 3,
	GUARD_ALL_IPV6 = 4,
};

typedef unsigned long long guard_u64;
typedef unsigned int guard_u32;
typedef unsigned short guard_u16;
typedef unsigned char guard_u8;

struct guard_vector {
	guard_u64 word[GUARD_WORDS];
};

/* map "control", one entry: the active generation, replaced by a single pointer store */
struct guard_record {
	guard_u64 generation;
	guard_u64 deadline; /* CLOCK_BOOTTIME ns; 0: confirmed */
	guard_u64 fallback_generation;
	guard_u32 slot;          /* GUARD_NO_SLOT: no policy is active, and nothing is denied */
	guard_u32 fallback_slot; /* active once the deadline has passed; may be GUARD_NO_SLOT */
};

/* map "policy", one entry per generation: everything that does not depend on an object */
struct guard_policy {
	struct guard_vector always; /* rules without `subjects` */
	struct guard_vector rules_by_action[GUARD_ACTIONS];
	struct guard_vector audit;            /* rules in audit mode */
	struct guard_vector not_destinations; /* rules whose destinations are negated */
	struct guard_vector named;            /* rules with `subjects` */
	/* sets without a key of this kind: the key matches every subject or destination */
	guard_u64 any_user, any_login, any_group, any_service, any_executable, any_label; /* subject sets */
	guard_u64 any_address, any_port, any_protocol;                                    /* destination sets */
	guard_u32 service_root; /* automaton state of the cgroup root */
	guard_u32 uses;         /* GUARD_USES_* */
	guard_u64 labels;       /* label bits that some `has_read` names */
};
#define GUARD_USES_GROUPS 1
#define GUARD_USES_SERVICES 2
#define GUARD_USES_EXECUTABLES 4
#define GUARD_USES_LOGIN 8
#define GUARD_USES_LABELS 16
#define GUARD_DENIES_LABELS 32 /* some rule with `has_read` is not in audit mode */

/* map "subjects", index: subject set */
struct guard_subject {
	struct guard_vector binds;   /* rules that name the set under `subjects` */
	struct guard_vector exempts; /* rules that name it under `except` */
};

/* map "destinations", index: destination set */
struct guard_destination {
	struct guard_vector covers;  /* rules that name the set without `not` */
	struct guard_vector exempts; /* rules that name it under `not` */
};

/* map "ids": {kind, number} -> sets: subject sets, or destination sets for protocols and ranges */
struct guard_id_key {
	guard_u32 kind, number;
};

/* maps "ipv4", "ipv6", "ports": LPM tries -> destination sets, including those of shorter prefixes */
struct guard_ipv4_key {
	guard_u32 prefixlen;
	guard_u8 address[4];
};
struct guard_ipv6_key {
	guard_u32 prefixlen;
	guard_u8 address[16];
};
struct guard_port_key {
	guard_u32 prefixlen;
	guard_u8 port[2];
}; /* big endian */

/* map "vsock": LPM trie over context id and port -> destination sets, including those of shorter prefixes */
struct guard_vsock_key {
	guard_u32 prefixlen;
	guard_u8 cid[4];
	guard_u8 port[4];
}; /* big endian */

/* map "devices": device number -> the action that opening the device is. Looked up with the minor number first,
 * then with GUARD_ANY_MINOR. */
struct guard_device_key {
	guard_u32 block, device;
}; /* block is 1 for a block device; device as the kernel encodes it */
#define GUARD_ANY_MINOR 0xfffff

/* map "our": objects of the enforcer that have no path, and the mount namespace of the host's first process */
enum guard_protected_kind { GUARD_PROTECTED_MAP = 0, GUARD_PROTECTED_PROGRAM = 1, GUARD_HOST_MOUNT_NAMESPACE = 2 };
struct guard_protected_key {
	guard_u32 kind, number;
};

/* map "labels", index: label bit. The name of the resource set whose readers get the label. A bit keeps its name
 * across generations, since tasks keep their labels. */
struct guard_label {
	char name[GUARD_LABEL_NAME];
};

/* map "superblocks": device number as in mountinfo, or GUARD_KIND plus an enum guard_kind -> automaton start state */
struct guard_superblock_key {
	guard_u32 device;
}; /* as the kernel encodes it: major << 20 | minor */

/* A major number that no device has. */
#define GUARD_KIND 0xffe00000U

/* Kinds of filesystems through which the kernel shows the same objects, however often they are mounted. */
enum guard_kind {
	GUARD_PROC = 0,
	GUARD_SYSFS = 1,
	GUARD_CGROUP = 2,
	GUARD_CGROUP2 = 3,
	GUARD_DEBUGFS = 4,
	GUARD_TRACEFS = 5,
	GUARD_SECURITYFS = 6,
	GUARD_CONFIGFS = 7,
	GUARD_BINFMTFS = 8,
	GUARD_EFIVARFS = 9,
	GUARD_PSTOREFS = 10,
	GUARD_SELINUXFS = 11,
	GUARD_KINDS = 12,
};

/* map "states", index: automaton state. State 0 is the dead state: no pattern can match below it. */
struct guard_state {
	guard_u32 otherwise;   /* next state for a component without an edge */
	guard_u32 bytes;       /* not 0: the first state of the byte automaton, which decides every component here */
	guard_u64 services;    /* subject sets whose `services` accept here */
	guard_u64 executables; /* subject sets whose `executables` accept here */
	guard_u64 labels;      /* labels that a task gets by reading an object of this state */
	struct guard_vector covers;   /* rules that cover an object of this state, negations included */
	struct guard_vector reaches;  /* rules that cover the object or something below it */
	struct guard_vector pervades; /* rules that cover the object and everything below it */
};

/* map "edges": {state, component} -> next state; name is NUL-padded, at most GUARD_COMPONENT - 1 bytes */
struct guard_edge_key {
	guard_u32 state;
	char name[GUARD_COMPONENT];
};

/* map "bytes", index: byte state - 1. next[b] is the byte state after byte b; 0: no pattern matches, so the
 * component leads to `otherwise` of the path state. At the end of the component, `target` is the next path state. */
struct guard_bytes {
	guard_u32 target;
	guard_u32 pad;
	guard_u16 next[256];
};

/* map "rules", index: rule bit */
struct guard_rule {
	guard_u64 id; /* first 8 bytes, little endian, of SHA-256 of the name; key of "counters" */
	char name[GUARD_NAME];
};

/* map "counters": rule id -> counts, kept across generations */
struct guard_count {
	guard_u64 denied, audited;
};

/* map "totals", one entry */
struct guard_totals {
	guard_u64 denied, audited;
	guard_u64 written, lost;          /* events: written + lost = denied + audited */
	guard_u64 reasons[GUARD_REASONS]; /* decisions for a reason other than a rule */
	guard_u64 uncached;               /* decisions without task storage, because none could be allocated */
};

/* map "facts", one entry */
struct guard_facts {
	guard_u64 loaded;            /* CLOCK_BOOTTIME ns at which the programs were loaded; set once by user space */
	guard_u64 rename_lock;       /* set by the programs: 1 if they can read the rename sequence */
	guard_u64 labels_since;      /* CLOCK_BOOTTIME ns since when labels are tracked; 0: no rule needs them */
	guard_u64 readers_untracked; /* set by the programs: 1 if a reader could not be recorded anywhere */
};

/* map "carriers": address of a task -> its labels */
struct guard_task_label {
	guard_u64 since;       /* guard_facts.labels_since; another value: the entry is stale */
	guard_u64 group;       /* number of its label group; 0: none */
	guard_u64 labels;      /* besides those of the label group */
	guard_u64 exec_labels; /* of the file that the task is about to execute */
};

/* map "cells": labels that tasks with the same address space share. User space makes group 1 when it starts to
 * track labels. */
struct guard_label_group_key {
	guard_u64 since, number;
};
struct guard_label_group {
	guard_u64 labels, members;
};

/* map "wires", by the address of the inode of a pipe, of a socket or of a System V message queue; also inode
 * storage "marks": labels that were written to the channel, and its readers */
struct guard_channel_label {
	guard_u64 since; /* guard_facts.labels_since */
	guard_u64 labels;
	guard_u64 propagated;             /* labels that every reader has got */
	guard_u64 readers_overflow;       /* 1: some reader is not in `readers` */
	guard_u64 readers[GUARD_READERS]; /* label groups */
};

/* map "kept": labels of files on disks, kept when the kernel evicts their inodes */
struct guard_persistent_label_key {
	guard_u64 inode;
	guard_u32 device, generation;
};
struct guard_persistent_label {
	guard_u64 since, labels;
};

/* ring buffer "events" */
struct guard_event {
	guard_u64 sequence;
	guard_u64 time; /* CLOCK_BOOTTIME ns */
	guard_u64 generation;
	guard_u64 rule_id;
	guard_u64 start_time; /* of the process, CLOCK_BOOTTIME ns */
	guard_u64 cgroup_id;
	guard_u64 inode;
	guard_u32 device; /* of the object, as the kernel encodes it */
	guard_u32 executable_device;
	guard_u32 action, verdict, reason;
	guard_u32 pid, tid;
	guard_u32 uid, euid, gid, login_uid;
	guard_u32 family; /* 0 for files, 2 for IPv4, 10 for IPv6; a mapped address counts as IPv4 */
	guard_u32 protocol, port;
	guard_u8 address[16]; /* IPv4 in the first 4 bytes */
	char comm[16];
	char rule[GUARD_NAME];
	/* components from the last one up, each with its NUL; *_size bytes are used; cut at the end if too long */
	guard_u32 path_size, executable_size, cgroup_size, pad;
	char path[GUARD_PATH];
	char executable[GUARD_PATH / 2];
	char cgroup[GUARD_PATH / 2];
};

#endif
