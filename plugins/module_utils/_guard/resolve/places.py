# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds where the path of a policy leads, by links that root alone can change.

A link that a user can change is not followed: he would decide what the policy covers. Below a folder that a user can
change nothing is followed, and nothing of a filesystem that a user mounted is asked for. Such a path means what its
text says."""

from __future__ import annotations

import os
from typing import Container, Iterable, NamedTuple, Protocol

from ..host.system import Step
from ..policy.model import Components

FOUND, MISSING, LINK = "found", "missing", "link"
_LINKS = 40  # as many as the kernel follows


class Files(Protocol):
    """The access to files that this needs: see host.system.System."""

    def step(self, path: str, mounts: Container[int]) -> Step | None:
        """One file on the way of a path, nothing followed."""

    def below(self, folder: str, names: Iterable[str]) -> bool | None:
        """Whether there is a file below a folder; None: it depends on a link."""


class Place(NamedTuple):
    """Where a path leads. ``state``: FOUND, MISSING, or LINK if a link was not followed. ``at``: the path that is
    missing or that is not followed. ``users``: whether a user can change something on the way."""

    components: Components
    state: str
    at: str
    users: bool


def find(files: Files, path: Components, mounts: Container[int]) -> Place:
    """``path``: without ``*``. ``mounts``: the ids of the mounts that are not a user's."""
    real: list[str] = []
    pending = list(path)
    links = 0
    root = files.step("/", mounts)
    if root is None or not root.root_only:
        return _below(files, real, pending)
    while pending:
        name = pending.pop(0)
        if name == "..":  # of a link's target
            real = real[:-1]
            continue
        at = "/" + "/".join([*real, name])
        step = files.step(at, mounts)
        if step is None:
            return Place((*real, name, *pending), MISSING, at, False)
        if step.link is None:
            real.append(name)
            if pending and not step.root_only:
                return _below(files, real, pending)
            continue
        links += 1
        if not step.root_only or links > _LINKS:
            return Place((*real, name, *pending), LINK, at, not step.root_only)
        if step.link.startswith("/"):
            real = []
        pending = [part for part in step.link.split("/") if part not in ("", ".")] + pending
    return Place(tuple(real), FOUND, "/" + "/".join(real), False)


def _below(files: Files, folder: list[str], rest: list[str]) -> Place:
    """The place of ``rest`` below a folder that a user can change."""
    components = tuple(os.path.normpath("/" + "/".join([*folder, *rest])).split("/"))[1:]
    at = "/" + "/".join(components)
    if ".." in rest:
        return Place(components, LINK, at, True)
    exists = files.below("/" + "/".join(folder), rest)
    return Place(components, {True: FOUND, False: MISSING, None: LINK}[exists], at, True)
