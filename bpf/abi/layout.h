/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the kernel side and user space share: sizes, numbers and map values.
 * plugins/module_utils/guard/layout.py is the other half; a test compares both
 * with the type information in the built object. Any change here that an
 * older reader would misread raises GUARD_LAYOUT, which names the pin folder.
 */
#ifndef GUARD_ABI_LAYOUT_H
#define GUARD_ABI_LAYOUT_H

#define GUARD_LAYOUT 1

#define GUARD_RULES 512     /* rules an operator may write */
#define GUARD_WORDS 9       /* 64-bit words of a rule vector; past 512: our own canary */
#define GUARD_SETS 64       /* named or inline sets of one kind */
#define GUARD_PROTECTED 575 /* not a rule's bit: a state is what enforces, see tamper.h */
#define GUARD_CANARY_SET 63 /* the canary's own subject: nobody is taken for it on suspicion */
#define GUARD_SLOTS 3       /* active, fallback, idle */
#define GUARD_NO_SLOT 0xffffffffU
#define GUARD_DEPTH 64 /* components of a path inside its superblock */
#define GUARD_CGROUP_DEPTH 16
#define GUARD_GROUPS 32            /* supplementary groups looked at */
#define GUARD_NAMESPACES 8         /* nested user namespaces looked at */
#define GUARD_ALIASES 4            /* other names of an inode looked at */
#define GUARD_COMPONENT 36         /* bytes of a literal component in an edge key */
#define GUARD_NAME 96              /* bytes of a rule's name, NUL included */
#define GUARD_LABELS 64            /* resource sets that `has_read` names */
#define GUARD_LABEL_NAME 64        /* bytes of a set's name, NUL included */
#define GUARD_CARRIERS 131072      /* tasks */
#define GUARD_CELLS 65536          /* address spaces that several tasks share, or that read what others write */
#define GUARD_WIRES 65536          /* sockets and message queues */
#define GUARD_KEPT 262144          /* files on disks that carry a label */
#define GUARD_FILES 1048576        /* descriptors looked at when a task is labelled */
#define GUARD_READERS 16           /* of a pipe, a socket, a file that is mapped */
#define GUARD_ABSTRACT 0xffffffffU /* "superblock" of abstract unix socket names, each one component */
#define GUARD_PATH 512             /* bytes of a path in an event */

/* actions; also the index into guard_policy.of_action */
enum guard_action {
	/* on an object; a task's cache holds which of them any rule that binds it is about */
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
	GUARD_PLAIN = 13, /* of_action holds every rule with an action below that has no object */
	GUARD_LINK = 14,  /* a new name, or another, for a file: of_action holds every rule on resources */
	GUARD_RENAME = 15,
	/* without an object: plus the address family of a new socket */
	GUARD_SOCKET = 16,
	GUARD_OTHER_SOCKET = 63, /* a family without a name of ours */
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
	/* plus the number of a capability */
	GUARD_CAPABILITY = 80,
	GUARD_ACTIONS = 128,
};

/* address families with a name of ours, a bit each */
#define GUARD_NAMED_FAMILIES 0x3ffbfd338f7eULL

enum guard_verdict { GUARD_ALLOW = 0, GUARD_AUDIT = 1, GUARD_DENY = 2 };

/* why: a rule, or something that could not be decided and so ends closed */
enum guard_reason {
	GUARD_BY_RULE = 0,
	GUARD_NO_CHAIN = 1,   /* the dentry chain does not end at the superblock's root */
	GUARD_TOO_DEEP = 2,   /* deeper than GUARD_DEPTH */
	GUARD_UNKNOWN_FS = 3, /* a superblock nobody has resolved */
	GUARD_UNSTABLE = 4,   /* renames did not stop during the walk */
	GUARD_BROKEN_MAP = 5, /* a table of the generation has no such entry */
	GUARD_NO_ADDRESS = 6, /* where it goes can't be told: source routing, an address that can't be read */
	GUARD_NO_LABEL = 7,   /* what was read could not be remembered */
	GUARD_TAMPER = 8,     /* what enforces was touched; no rule says so */
	GUARD_REASONS = 16,
};

/* kinds of number in the ids table */
enum guard_id_kind {
	GUARD_ID_USER = 0,
	GUARD_ID_LOGIN = 1,
	GUARD_ID_GROUP = 2,
	GUARD_ID_PROTOCOL = 3,
	GUARD_ID_LABEL = 4,
	GUARD_ID_KINDS = 5,
};

typedef unsigned long long guard_u64;
typedef unsigned int guard_u32;
typedef unsigned short guard_u16;
typedef unsigned char guard_u8;

struct guard_vector {
	guard_u64 word[GUARD_WORDS];
};

/* map "control", one entry: the record that a single pointer store exchanges */
struct guard_record {
	guard_u64 generation;
	guard_u64 deadline; /* CLOCK_BOOTTIME ns; 0: confirmed */
	guard_u64 fallback_generation;
	guard_u32 slot;          /* GUARD_NO_SLOT: no policy, nothing is denied */
	guard_u32 fallback_slot; /* in force once the deadline has passed; may be GUARD_NO_SLOT */
};

/* map "policy", one entry per generation: what does not depend on an object */
struct guard_policy {
	struct guard_vector always; /* rules without `subjects` */
	struct guard_vector of_action[GUARD_ACTIONS];
	struct guard_vector audit;            /* rules that only report */
	struct guard_vector not_destinations; /* rules whose destinations are negated */
	struct guard_vector named;            /* rules with `subjects` */
	/* sets that have no such key, so that the key holds for everybody */
	guard_u64 any_user, any_login, any_group, any_service, any_executable, any_label; /* subject sets */
	guard_u64 any_address, any_port, any_protocol;                                    /* destination sets */
	guard_u32 service_root; /* automaton state of the cgroup root */
	guard_u32 uses;         /* GUARD_USES_* */
	guard_u64 labels;       /* that some `has_read` names */
};
#define GUARD_USES_GROUPS 1
#define GUARD_USES_SERVICES 2
#define GUARD_USES_EXECUTABLES 4
#define GUARD_USES_LOGIN 8
#define GUARD_USES_LABELS 16
#define GUARD_DENIES_LABELS 32 /* some rule that asks for them is not in audit mode */

/* map "subjects", index: subject set */
struct guard_subject {
	struct guard_vector binds; /* rules that name the set under `subjects` */
	struct guard_vector frees; /* rules that name it under `except` */
};

/* map "destinations", index: destination set */
struct guard_destination {
	struct guard_vector covers; /* rules that name the set plainly */
	struct guard_vector spares; /* rules that name it under `not` */
};

/* map "ids": {kind, number} -> sets (subject sets, for labels too; destination sets for protocols) */
struct guard_id_key {
	guard_u32 kind, number;
};

/* maps "ipv4", "ipv6", "ports": LPM tries -> destination sets, ancestors included */
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

/* map "vsock": LPM trie over a context id, then a port -> destination sets, ancestors included */
struct guard_vsock_key {
	guard_u32 prefixlen;
	guard_u8 cid[4];
	guard_u8 port[4];
}; /* big endian */

/* map "devices": a device number -> the action without an object that opening it is. First asked with the minor, then
 * with GUARD_ANY_MINOR. */
struct guard_device_key {
	guard_u32 block, device;
}; /* 1: a block device; kernel's number */
#define GUARD_ANY_MINOR 0xfffff

/* map "our": what enforces and has no path. The mount namespace is that of the first process. */
enum guard_our_kind { GUARD_OUR_MAP = 0, GUARD_OUR_PROGRAM = 1, GUARD_OUR_NAMESPACE = 2 };
struct guard_our_key {
	guard_u32 kind, number;
};

/* map "labels", index: label bit. The name of the resource set whose readers carry it; a bit keeps its name from one
 * generation to the next, since tasks keep their labels. */
struct guard_label {
	char name[GUARD_LABEL_NAME];
};

/* map "superblocks": device number as in mountinfo -> automaton start state */
struct guard_superblock_key {
	guard_u32 device;
}; /* kernel's: major << 20 | minor */

/* map "states", index: automaton state. State 0 is the dead state: no pattern can match below it. */
struct guard_state {
	guard_u32 otherwise;          /* next state for a component without an edge */
	guard_u32 bytes;              /* != 0: first byte state; the byte automaton decides every component here */
	guard_u64 services;           /* subject sets whose `services` accept here */
	guard_u64 executables;        /* subject sets whose `executables` accept here */
	guard_u64 labels;             /* that reading an object of this state gives */
	struct guard_vector covers;   /* rules that cover an object of this state (negations worked in) */
	struct guard_vector reaches;  /* rules that cover it or something below it */
	struct guard_vector pervades; /* rules that cover it and everything below it */
};

/* map "edges": {state, component} -> next state; name is NUL-padded, at most GUARD_COMPONENT - 1 bytes */
struct guard_edge_key {
	guard_u32 state;
	char name[GUARD_COMPONENT];
};

/* map "bytes", index: byte state - 1. next[b] = byte state after byte b (0: none left, component goes to `otherwise`
 * of the path state). At the component's end, `target` is the next path state. */
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
	guard_u64 reasons[GUARD_REASONS]; /* closed or audited for a reason other than a rule */
	guard_u64 uncached;               /* task storage was not to be had; decided without */
};

/* map "facts", one entry */
struct guard_facts {
	guard_u64 loaded;       /* CLOCK_BOOTTIME ns when the programs were loaded; set once by user space */
	guard_u64 rename_lock;  /* set by the programs: 1 when they can read the rename sequence, so that they cache */
	guard_u64 labels_since; /* CLOCK_BOOTTIME ns from which labels are followed; 0: no rule needs them */
	guard_u64 unwatched;    /* set by the programs: 1 when somebody reads whom a label would not find */
};

/* map "carriers": a task's address -> what it carries */
struct guard_carrier {
	guard_u64 since;  /* guard_facts.labels_since, while it is followed */
	guard_u64 cell;   /* 0: none */
	guard_u64 labels; /* besides the cell's */
	guard_u64 image;  /* of what it is about to execute */
};

/* map "cells": what tasks that share an address space carry. Cell 1 is made by user space when labels come into use. */
struct guard_cell_key {
	guard_u64 since, number;
};
struct guard_cell {
	guard_u64 labels, members;
};

/* map "wires", by the address of a pipe's inode, a socket or a System V message queue, and storage "marks" of inodes: what was
 * written there, and who reads there */
struct guard_mark {
	guard_u64 since; /* guard_facts.labels_since */
	guard_u64 labels;
	guard_u64 spread;                 /* labels that every reader has */
	guard_u64 crowded;                /* 1: some reader is not among those below */
	guard_u64 readers[GUARD_READERS]; /* cells */
};

/* map "kept": what files on disks carry, for when the kernel lets go of their inodes */
struct guard_kept_key {
	guard_u64 inode;
	guard_u32 device, generation;
};
struct guard_kept {
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
	guard_u32 device; /* kernel's number, of the object */
	guard_u32 executable_device;
	guard_u32 action, verdict, reason;
	guard_u32 pid, tid;
	guard_u32 uid, euid, gid, login_uid;
	guard_u32 family; /* 0 for files, else 2 (IPv4) or 10 (IPv6); mapped addresses are IPv4 */
	guard_u32 protocol, port;
	guard_u8 address[16]; /* IPv4 in the first 4 bytes */
	char comm[16];
	char rule[GUARD_NAME];
	/* components from the leaf up, each NUL-terminated; *_size bytes used; cut at the end if truncated */
	guard_u32 path_size, executable_size, cgroup_size, pad;
	char path[GUARD_PATH];
	char executable[GUARD_PATH / 2];
	char cgroup[GUARD_PATH / 2];
};

#endif
