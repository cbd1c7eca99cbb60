# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which programs a policy needs: only these are attached, since a hook costs even whom no rule binds."""

from __future__ import annotations

import datetime
from typing import Dict, FrozenSet, Tuple

from . import actions, records, semantics

_NAMES = ("inode_link", "inode_rename")  # another name for an object must not escape the rules that cover it

_OF_ACTION: Dict[str, Tuple[str, ...]] = {
    "read": ("file_open",) + _NAMES,
    "write": ("file_open",) + _NAMES,
    "execute": ("file_open", "mmap_file") + _NAMES,
    "unix-connect": ("unix_stream_connect", "unix_may_send") + _NAMES,
    "connect": ("socket_connect", "socket_sendmsg"),
    "send": ("socket_sendmsg",),
    "reply": ("socket_sendmsg", "socket_listen"),
    "bind": ("socket_bind",),
    "listen": ("socket_listen",),
    "accept": ("socket_accept",),
    "vsock": ("socket_connect", "socket_sendmsg"),
    "raw-socket": ("socket_create",),
    "mount": ("sb_mount", "move_mount"),
    "ptrace": ("ptrace_access_check", "ptrace_traceme"),
    "load-module": ("kernel_read_file", "kernel_load_data"),
    "bpf": ("bpf",),
    "perf": ("perf_event_open",),
    "user-namespace": ("userns_create",),
    "io-uring": ("inode_init_security_anon",),
    "block-device": ("file_open",),
    "virtio-port": ("file_open",),
    "serial": ("file_open",),
    "tun": ("file_open", "tun_dev_create"),
    "guest-device": ("file_open",),
}
_OF_ACTION.update((name, ("socket_create",)) for name in actions.PLAIN if name.endswith("-socket"))
_OF_ACTION.update((name, ("capable",)) for name in actions.CAPABILITIES)
# whose rules ask what a task has read: how that is remembered
_LABELS = (
    "bprm_creds_for_exec",
    "file_open",
    "file_permission",
    "file_receive",
    "inode_free_security",
    "mmap_file",
    "msg_queue_free_security",
    "msg_queue_msgrcv",
    "msg_queue_msgsnd",
    "sk_free_security",
    "socket_recvmsg",
    "socket_sendmsg",
    "task_free",
    "unix_may_send",
)


def of_action(action: str) -> Tuple[str, ...]:
    """The hooks that decide an action, each of which must be guarded for a rule with it to be complete."""
    return _OF_ACTION[action]


def needed(resolved: records.Resolved, now: datetime.date) -> FrozenSet[str]:
    """The programs that the rules in force ask for; the identity hooks come with any policy."""
    found = set()
    for rule in resolved.rules:
        if not semantics.in_force(rule, now):
            continue
        for action in rule.deny:
            found.update(of_action(action))
        if any(resolved.subjects[name].has_read is not None for name in rule.subjects or ()):
            found.update(_LABELS)
    return frozenset(found)
