# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attaching and detaching the programs."""

from __future__ import annotations

import struct
from typing import Iterable

from .. import layout
from .bpf import Kernel
from .mapspecs import MAPS, STORAGES
from .pins import FIRST_KEY, Opened, available_hooks, links_path, opened, opened_map, program_path, versions

OVERFLOW_GROUP = 1  # label group of the tasks for which there is no room


CREDS_HOOK = "cred_free"


# who a task is; attached with any policy, and first
IDENTITY_HOOKS = ("bprm_committed_creds", CREDS_HOOK, "task_alloc")


# which side a connection is from: attached before the hooks that ask
DIRECTION_HOOKS = ("sctp_sk_clone", "socket_accept", "socket_connect", "socket_listen")


# what a task carries; labels hold while these are attached
LABEL_HOOKS = ("bprm_committed_creds", "task_alloc", "bprm_creds_for_exec")


def attached_hooks(kernel: Kernel, version: str) -> frozenset[str]:
    """The hooks whose pinned link runs the pinned program."""
    found = set()
    for hook in kernel.names(links_path(kernel, version)):
        try:
            with opened(kernel, links_path(kernel, version) + "/" + hook) as link:
                runs = kernel.link_info(link).program
            with opened(kernel, program_path(kernel, version, hook)) as program:
                if runs == kernel.program_info(program).id:
                    found.add(hook)
        except OSError:
            continue
    return frozenset(found)


def _in_order(hooks: Iterable[str]) -> list[str]:
    return sorted(hooks, key=lambda hook: (hook not in IDENTITY_HOOKS, hook not in DIRECTION_HOOKS, hook))


def attach(kernel: Kernel, version: str, hooks: Iterable[str]) -> list[str]:
    """Attaches what is not attached yet; gives the hooks that were attached."""
    folder = links_path(kernel, version)
    before = attached_hooks(kernel, version)
    tracked = _labels_tracked(kernel)
    added = [hook for hook in _in_order(hooks) if hook not in before]
    if added and not kernel.exists(folder):
        kernel.mkdir(folder)
    identified = all(hook in before for hook in IDENTITY_HOOKS)
    directed = not set(added) & set(DIRECTION_HOOKS)
    for hook in added:
        path = folder + "/" + hook
        if not identified and hook not in IDENTITY_HOOKS:
            _note_start(kernel)
            identified = True
        if not directed and hook not in IDENTITY_HOOKS + DIRECTION_HOOKS:
            _note_listeners(kernel)
            directed = True
        with opened(kernel, program_path(kernel, version, hook)) as program:
            with Opened(kernel, kernel.attach(program)) as link:
                if kernel.exists(path):
                    kernel.unlink(path)
                kernel.pin(link, path)
    if added and not identified:
        _note_start(kernel)
    if not directed:
        _note_listeners(kernel)
    if not tracked and _labels_tracked(kernel):
        _reset_labels(kernel)
    return added


def _note_start(kernel: Kernel) -> None:
    """Tasks started from here on have their executable recorded; older ones are judged by what they run."""
    _set_facts(kernel, loaded=kernel.boottime())


def _set_facts(kernel: Kernel, **changes: int) -> None:
    with opened_map(kernel, "facts") as facts:
        value = kernel.lookup(facts, FIRST_KEY) or bytes(layout.FACTS.size)
        kernel.update(facts, FIRST_KEY, layout.FACTS.pack(layout.FACTS.unpack(value)._replace(**changes)))


def labels_since(kernel: Kernel) -> int:
    with opened_map(kernel, "facts", readonly=True) as facts:
        return layout.FACTS.unpack(kernel.lookup(facts, FIRST_KEY) or bytes(layout.FACTS.size)).labels_since


def _labels_tracked(kernel: Kernel) -> bool:
    """Is every task's label handed on, by whichever version, and has it been since labels came into use?"""
    return any(
        all(kernel.exists(links_path(kernel, each) + "/" + hook) for hook in LABEL_HOOKS) for each in versions(kernel)
    )


def _reset_labels(kernel: Kernel) -> None:
    """Labels of an earlier time are void: nobody has followed them since."""
    since = kernel.boottime()
    for name in ("carriers", "cells", "wires", "kept"):
        with opened_map(kernel, name) as void:
            for key in kernel.read_all(void):
                kernel.delete(void, key)
    with opened_map(kernel, "cells") as cells:
        key = layout.LABEL_GROUP_KEY.pack(layout.LabelGroupKey(since, OVERFLOW_GROUP))
        kernel.update(cells, key, layout.LABEL_GROUP.pack(layout.LabelGroup(labels=0, members=OVERFLOW_GROUP + 1)))
    _set_facts(kernel, labels_since=since, readers_untracked=0)


def _note_listeners(kernel: Kernel) -> None:
    """Connections from before have no mark: those on a port that is listened on count as accepted."""
    ports = kernel.listening_ports()
    words = [0] * MAPS["listeners"].max_entries
    for port in ports:
        words[port // 64] |= 1 << port % 64
    with opened_map(kernel, "listeners") as listeners:
        kernel.update_all(listeners, {struct.pack("=I", i): struct.pack("=Q", word) for i, word in enumerate(words)})


def detach(kernel: Kernel, version: str, hooks: Iterable[str]) -> list[str]:
    folder = links_path(kernel, version)
    gone = [hook for hook in reversed(_in_order(hooks)) if kernel.exists(folder + "/" + hook)]
    if set(gone) & set(LABEL_HOOKS) and labels_since(kernel):
        _set_facts(kernel, labels_since=0)
    for hook in gone:
        kernel.unlink(folder + "/" + hook)
    if not kernel.names(folder) and kernel.exists(folder):
        kernel.rmdir(folder)
    return gone


def claim(kernel: Kernel, *versions_: str) -> None:
    """Says which maps and programs are ours, and which mount namespace is the host's: see bpf/decision/protection.h.
    The tables of a generation are known by their names."""
    wanted = {layout.PROTECTED_KEY.pack(layout.ProtectedKey(layout.HOST_MOUNT_NAMESPACE, kernel.mount_namespace()))}
    for name in list(MAPS) + list(STORAGES):
        with opened_map(kernel, name, readonly=True) as fd:
            wanted.add(layout.PROTECTED_KEY.pack(layout.ProtectedKey(layout.PROTECTED_MAP, kernel.map_info(fd).id)))
    for version in versions_:
        for hook in sorted(available_hooks(kernel, version)):
            with opened(kernel, program_path(kernel, version, hook)) as program:
                wanted.add(
                    layout.PROTECTED_KEY.pack(
                        layout.ProtectedKey(layout.PROTECTED_PROGRAM, kernel.program_info(program).id)
                    )
                )
    with opened_map(kernel, "our") as our:
        present = kernel.read_all(our)
        for key in sorted(wanted - set(present)):
            kernel.update(our, key, bytes(4))
        for key in sorted(set(present) - wanted):
            kernel.delete(our, key)
