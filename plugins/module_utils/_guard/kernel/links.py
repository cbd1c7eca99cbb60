# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attaches and detaches the programs, and keeps the facts that the programs need about that."""

from __future__ import annotations

import contextlib
import struct
import time
from typing import Iterable

from .. import layout
from .mapspecs import MAPS, STORAGES
from .pins import FIRST_KEY, Opened, available_hooks, links_path, opened, opened_map, program_path, versions
from .protocol import Kernel

OVERFLOW_GROUP = 1  # the label group of the tasks for which the map is full

CREDS_HOOK = "cred_free"

# Hooks that record the identity of tasks. They are attached first, for every policy.
IDENTITY_HOOKS = ("bprm_committed_creds", CREDS_HOOK, "task_alloc")

# Hooks that record which side opened a connection. They are attached before the hooks that use it.
DIRECTION_HOOKS = ("sctp_sk_clone", "socket_accept", "socket_connect", "socket_listen")

DETACHED_WITHIN = 5.0  # seconds; the kernel needs milliseconds unless somebody else holds the link

# Hooks that pass labels on to new tasks and programs. Labels are valid only while all of these are attached.
LABEL_HOOKS = ("bprm_committed_creds", "task_alloc", "bprm_creds_for_exec")


def attached_hooks(kernel: Kernel, version: str) -> frozenset[str]:
    """The hooks whose pinned link runs the pinned program."""
    attached = set()
    for hook in kernel.names(links_path(kernel, version)):
        try:
            with opened(kernel, links_path(kernel, version) + "/" + hook) as link:
                runs = kernel.link_info(link).program
            with opened(kernel, program_path(kernel, version, hook)) as program:
                if runs == kernel.program_info(program).id:
                    attached.add(hook)
        except OSError:
            continue
    return frozenset(attached)


def _in_order(hooks: Iterable[str]) -> list[str]:
    return sorted(hooks, key=lambda hook: (hook not in IDENTITY_HOOKS, hook not in DIRECTION_HOOKS, hook))


def attach(kernel: Kernel, version: str, hooks: Iterable[str]) -> list[str]:
    """Attaches the hooks that are not attached. Returns those that were attached now, in order."""
    folder = links_path(kernel, version)
    before = attached_hooks(kernel, version)
    tracked = _labels_tracked(kernel)
    added = [hook for hook in _in_order(hooks) if hook not in before]
    if added and not kernel.exists(folder):
        kernel.mkdir(folder)
    identity_known = all(hook in before for hook in IDENTITY_HOOKS)
    direction_known = not set(added) & set(DIRECTION_HOOKS)
    for hook in added:
        if not identity_known and hook not in IDENTITY_HOOKS:
            _note_start(kernel)
            identity_known = True
        if not direction_known and hook not in IDENTITY_HOOKS + DIRECTION_HOOKS:
            _note_listeners(kernel)
            direction_known = True
        path = folder + "/" + hook
        with opened(kernel, program_path(kernel, version, hook)) as program, Opened(
            kernel, kernel.attach(program)
        ) as link:
            if kernel.exists(path):
                drop(kernel, path)
            kernel.pin(link, path)
    if added and not identity_known:
        _note_start(kernel)
    if not direction_known:
        _note_listeners(kernel)
    if not tracked and _labels_tracked(kernel):
        _reset_labels(kernel)
    return added


def _note_start(kernel: Kernel) -> None:
    """Records the time from which the executable of every new task is recorded. For older tasks, the programs use the
    current executable."""
    _set_facts(kernel, loaded=kernel.boottime())


def _set_facts(kernel: Kernel, **changes: int) -> None:
    with opened_map(kernel, "facts") as facts:
        value = kernel.lookup(facts, FIRST_KEY) or bytes(layout.FACTS.size)
        kernel.update(facts, FIRST_KEY, layout.FACTS.pack(layout.FACTS.unpack(value)._replace(**changes)))


def labels_since(kernel: Kernel) -> int:
    """Since when labels are tracked: CLOCK_BOOTTIME in ns, or 0 if they are not."""
    with opened_map(kernel, "facts", readonly=True) as facts:
        return layout.FACTS.unpack(kernel.lookup(facts, FIRST_KEY) or bytes(layout.FACTS.size)).labels_since


def _labels_tracked(kernel: Kernel) -> bool:
    """Whether every task's label is passed on, by the programs of any version."""
    return any(
        all(kernel.exists(links_path(kernel, version) + "/" + hook) for hook in LABEL_HOOKS)
        for version in versions(kernel)
    )


def _reset_labels(kernel: Kernel) -> None:
    """Deletes all labels: labels from before are wrong, because no program tracked them in between."""
    since = kernel.boottime()
    for name in ("carriers", "cells", "wires", "kept"):
        with opened_map(kernel, name) as fd:
            for key in kernel.read_all(fd):
                kernel.delete(fd, key)
    with opened_map(kernel, "cells") as groups:
        key = layout.LABEL_GROUP_KEY.pack(layout.LabelGroupKey(since, OVERFLOW_GROUP))
        kernel.update(groups, key, layout.LABEL_GROUP.pack(layout.LabelGroup(labels=0, members=OVERFLOW_GROUP + 1)))
    _set_facts(kernel, labels_since=since, readers_untracked=0)


def _note_listeners(kernel: Kernel) -> None:
    """Records the listening ports. An existing connection on one of them counts as accepted, because no program has
    recorded its direction."""
    ports = kernel.listening_ports()
    words = [0] * MAPS["listeners"].max_entries
    for port in ports:
        words[port // 64] |= 1 << port % 64
    with opened_map(kernel, "listeners") as listeners:
        kernel.update_all(listeners, {struct.pack("=I", i): struct.pack("=Q", word) for i, word in enumerate(words)})


def detach(kernel: Kernel, version: str, hooks: Iterable[str]) -> list[str]:
    """Detaches the hooks in reverse order of attaching. Returns those that were attached."""
    folder = links_path(kernel, version)
    detached = [hook for hook in reversed(_in_order(hooks)) if kernel.exists(folder + "/" + hook)]
    if set(detached) & set(LABEL_HOOKS) and labels_since(kernel):
        _set_facts(kernel, labels_since=0)
    for hook in detached:
        drop(kernel, folder + "/" + hook)
    if not kernel.names(folder) and kernel.exists(folder):
        kernel.rmdir(folder)
    return detached


def drop(kernel: Kernel, path: str) -> None:
    """Removes the pin of a link and waits until the kernel detaches the program.

    The kernel does that by itself some time after the pin is gone, and would detach several programs at the same time.
    Who changes the programs holds the lock, so that only one link at a time is going."""
    number = None
    with contextlib.suppress(OSError), opened(kernel, path) as link:  # it fails if something else is pinned there
        number = kernel.link_info(link).id
    kernel.unlink(path)
    deadline = time.monotonic() + DETACHED_WITHIN
    while number is not None and kernel.link_exists(number) and time.monotonic() < deadline:
        time.sleep(0.001)


def claim(kernel: Kernel, *versions_: str) -> None:
    """Registers the maps and programs of the enforcer, and the host's mount namespace, for self-protection.

    See bpf/decision/protection.h. The tables of a generation are recognized by their names."""
    keys = {layout.ProtectedKey(layout.HOST_MOUNT_NAMESPACE, kernel.mount_namespace())}
    for name in list(MAPS) + list(STORAGES):
        with opened_map(kernel, name, readonly=True) as fd:
            keys.add(layout.ProtectedKey(layout.PROTECTED_MAP, kernel.map_info(fd).id))
    for version in versions_:
        for hook in sorted(available_hooks(kernel, version)):
            with opened(kernel, program_path(kernel, version, hook)) as program:
                keys.add(layout.ProtectedKey(layout.PROTECTED_PROGRAM, kernel.program_info(program).id))
    registered = {layout.PROTECTED_KEY.pack(key) for key in keys}
    with opened_map(kernel, "our") as protected:
        present = kernel.read_all(protected)
        for packed in sorted(registered - set(present)):
            kernel.update(protected, packed, bytes(4))
        for packed in sorted(set(present) - registered):
            kernel.delete(protected, packed)
