# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which programs a policy needs: only these are attached, since a hook costs even whom no rule binds."""

from __future__ import annotations

import datetime
from typing import Iterable

from ..policy import actions, model, semantics

# Not on every kernel: where one is missing, another program sees the same operations
_WHERE_PRESENT = frozenset({"inode_set_acl__tamper", "mmap_backing_file__label"}).union(
    *(action.optional_hooks for action in actions.TABLE)
)
# What enforces is guarded under any policy; see bpf/decision/protection.h
BUILT_IN = tuple(
    hook + "__tamper"
    for hook in (
        "bpf_map",
        "bpf_prog",
        "file_open",
        "inode_create",
        "inode_link",
        "inode_mkdir",
        "inode_rename",
        "inode_rmdir",
        "inode_set_acl",
        "inode_setxattr",
        "inode_symlink",
        "inode_unlink",
        "move_mount",
        "path_chmod",
        "path_chown",
        "path_truncate",
        "ptrace_access_check",
        "sb_mount",
        "sb_pivotroot",
        "sb_umount",
    )
)
# A task must not get rid of a rule by changing what the rule goes by; see bpf/decision/identity.h
_CGROUP_AND_LOGIN = ("file_permission__identity",)
_GROUPS = ("task_fix_setgid", "task_fix_setgroups")
_CLOCK = ("capable__clock",)
CHANGE_PROGRAMS = _CGROUP_AND_LOGIN + _GROUPS + _CLOCK
# whose rules ask what a task has read: how that is remembered
LABEL_PROGRAMS = (
    "bprm_creds_for_exec",
    "file_open",
    "file_open__label",
    "file_permission",
    "file_receive",
    "inode_free_security",
    "inode_getxattr__label",
    "inode_readlink__label",
    "inode_setxattr__label",
    "key_alloc",
    "key_permission",
    "mmap_backing_file__label",
    "mmap_file",
    "mmap_file__label",
    "msg_queue_free_security",
    "msg_queue_msgrcv",
    "msg_queue_msgsnd",
    "ptrace_access_check__label",
    "ptrace_traceme__label",
    "sk_free_security",
    "socket_recvmsg",
    "socket_sendmsg",
    "task_free",
    "unix_may_send",
)
# what another program does as well
_INCLUDED = {"file_open__tamper": "file_open", "file_permission__identity": "file_permission"}


def of_action(action: str, sendpage: bool = False) -> tuple[str, ...]:
    """The hooks that decide an action, each of which must be guarded for a rule with it to be complete; ``sendpage``:
    of the kernel's environment."""
    row = actions.BY_NAME[action]
    return row.hooks + row.optional_hooks + (row.sendpage_hooks if sendpage else ())


def needed(resolved: model.Resolved, now: datetime.date, sendpage: bool = False) -> frozenset[str]:
    """The programs that the rules in force ask for; the identity hooks and BUILT_IN come with any policy."""
    found: set[str] = set()
    for rule in resolved.rules:
        if not semantics.in_force(rule, now):
            continue
        named = [resolved.subjects[name] for name in (*(rule.subjects or ()), *rule.excepts)]
        if any(subject.services is not None or subject.login_users is not None for subject in named):
            found.update(_CGROUP_AND_LOGIN)
        if any(subject.groups is not None for subject in named):
            found.update(_GROUPS)
        if rule.expires is not None:
            found.update(_CLOCK)
        for action in rule.deny:
            found.update(of_action(action, sendpage))
        if any(resolved.subjects[name].has_read is not None for name in rule.subjects or ()):
            found.update(LABEL_PROGRAMS)
    return frozenset(found)


def here(wanted: Iterable[str], available: frozenset[str]) -> frozenset[str]:
    """``wanted`` without what a kernel may lack and this one does: its actions are whole without."""
    return frozenset(wanted) - (_WHERE_PRESENT - available)


def before_install(present: frozenset[str]) -> frozenset[str]:
    """Of the programs that a kernel may lack those that there will be. ``present``: the hooks that it has."""
    return frozenset(each for each in _WHERE_PRESENT if each.partition("__")[0] in present)


def attached(wanted: Iterable[str], available: frozenset[str]) -> frozenset[str]:
    """All that is attached for a policy: ``wanted`` and BUILT_IN as far as the kernel has them. The program that
    decides opens looks after what enforces as well, which saves each open a program; so do the others of _INCLUDED."""
    found = here(frozenset(wanted).union(BUILT_IN), available)
    return uncovered(found, found)


def uncovered(wanted: frozenset[str], running: frozenset[str]) -> frozenset[str]:
    """``wanted`` without the programs whose work one of ``running`` does as well."""
    return wanted - {name for name, by in _INCLUDED.items() if by in running}
