# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds files that a rule covers but that also have a name which it does not cover.

Such a hard link gives access to the file. A file has one if its link count is higher than the number of its names that
the rule covers."""

from __future__ import annotations

import datetime
import os
import time
from typing import Any, Callable, Container, Iterable, Iterator, NamedTuple, Protocol

from ..host import mountinfo
from ..host.system import Step
from ..policy import actions, model, semantics
from . import places, resolver

MAX_ENTRIES, MAX_SECONDS = 200_000, 10.0  # limits of the search; it reports what it did not reach
SHOWN = 10  # files named in warnings; the others are counted


class Entry(Protocol):
    """The attributes of a file that the search needs: see host.system.Entry."""

    @property
    def directory(self) -> bool:
        """Whether it is a directory."""

    @property
    def regular(self) -> bool:
        """Whether it is a regular file."""

    @property
    def device(self) -> int:
        """The number of its filesystem."""

    @property
    def inode(self) -> int:
        """Its inode number."""

    @property
    def links(self) -> int:
        """Its link count."""


class Files(Protocol):
    """The access to files that the search needs: see host.system.System."""

    def entry(self, path: str) -> Entry | None:
        """The attributes of a file, or None."""

    def entries(self, folder: str, without: Container[str] = ()) -> Iterator[tuple[str, Entry]]:
        """The names in a directory, with their attributes. ``without``: paths that are left out."""

    def mountinfo(self) -> str:
        """The text of /proc/self/mountinfo."""

    def step(self, path: str, mounts: Container[int]) -> Step | None:
        """One file on the way of a path, nothing followed."""

    def below(self, folder: str, names: Iterable[str]) -> bool | None:
        """Whether there is a file below a folder."""


class Found(NamedTuple):
    """A file with a name that a rule does not cover."""

    path: str  # the first of the names that a rule covers
    links: int
    inside: int  # the number of names that a rule covers, of the rule that covers most
    rules: tuple[str, ...]


class Seen(NamedTuple):
    """A regular file with more than one link, by one of its names."""

    path: str
    file: tuple[int, int]  # device and inode
    links: int


def outside(rules: dict[str, list[Seen]]) -> list[Found]:
    """The files that have a name outside of a rule. ``rules``: rule name -> the files that it covers."""
    result: dict[str, Found] = {}
    for rule, covered in sorted(rules.items()):
        names: dict[tuple[int, int], set[str]] = {}
        for seen in covered:
            names.setdefault(seen.file, set()).add(seen.path)
        links = {seen.file: seen.links for seen in covered}
        for file, paths in names.items():
            if len(paths) < links[file]:
                path = min(paths)
                before = result.get(path)
                inside = max(len(paths), before.inside if before else 0)
                result[path] = Found(path, links[file], inside, (*(before.rules if before else ()), rule))
    return sorted(result.values())


class _Search:
    def __init__(self, system: Files, clock: Callable[[], float]) -> None:
        self.system, self.clock = system, clock
        self.left, self.ends = MAX_ENTRIES, clock() + MAX_SECONDS
        self.incomplete: set[str] = set()  # policy paths that were not searched completely
        mounts = mountinfo.parse_mounts(system.mountinfo())
        self.roots_own = frozenset(mount.number for mount in mounts if not mount.user)
        # a user's filesystem may never answer
        self.users_own = frozenset("/" + "/".join(mount.point) for mount in mounts if mount.user)

    def under(self, pattern: str) -> list[Seen]:
        components = mountinfo.split(pattern)
        top = resolver.literal_prefix(components)
        if places.find(self.system, top, self.roots_own).state != places.FOUND:
            return []
        return [
            Seen(path, (entry.device, entry.inode), entry.links)
            for path, entry in self._walk("/" + "/".join(top), components[len(top) :], pattern)
            if entry.regular and entry.links > 1
        ]

    def _walk(self, start: str, start_rest: model.Components, pattern: str) -> Iterator[tuple[str, Entry]]:
        """The matching files at and below ``start``, without crossing into another filesystem."""
        device: int | None = None
        pending = [(start, self.system.entry(start), start_rest)]
        while pending:
            path, entry, rest = pending.pop()
            if entry is None or (device is not None and entry.device != device):
                continue
            device = entry.device
            if self.left <= 0 or self.clock() > self.ends:
                self.incomplete.add(pattern)
                return
            self.left -= 1
            if not rest or rest == ("**",):
                yield path, entry
            if rest and entry.directory:
                for name, below in self.system.entries(path, self.users_own):
                    if len(pending) > self.left or self.clock() > self.ends:  # one folder may hold millions
                        self.incomplete.add(pattern)
                        return
                    if rest == ("**",):
                        pending.append((os.path.join(path, name), below, rest))
                    elif semantics.component_matches(rest[0], name):
                        pending.append((os.path.join(path, name), below, rest[1:]))


def look(
    resolved: model.Resolved, system: Files, now: datetime.date, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Searches the paths of the rules in force. The result is stored as JSON.

    ``found``: the files. ``cut``: the policy paths that were not searched completely. Rules with `not` are skipped,
    because they cover most of the machine."""
    search = _Search(system, clock)
    sets: dict[str, list[Seen]] = {}
    rules: dict[str, list[Seen]] = {}
    for rule in resolved.rules:
        if not semantics.in_force(rule, now) or not rule.deny.intersection(actions.FILES):
            continue
        if rule.resources is None or rule.resources.negated:
            continue
        for name in sorted(rule.resources.names):
            if name not in sets:
                sets[name] = [
                    seen
                    for path in sorted(resolved.source_paths.get("resources/" + name, ()))
                    for seen in search.under(path)
                ]
            rules.setdefault(rule.name, []).extend(sets[name])
    return {
        "found": [dict(file._asdict(), rules=list(file.rules)) for file in outside(rules)],
        "cut": sorted(search.incomplete),
    }


def _shown(path: str) -> str:
    return ascii(path)[1:-1]


def lines(stored: dict[str, Any]) -> list[str]:
    """The result of ``look`` as warnings, also for `status`."""
    files = stored["found"]
    result = []
    for file in files[:SHOWN]:
        rules = ", ".join(f"rule {rule!r}" for rule in file["rules"])
        result.append(
            f"{_shown(file['path'])} has {file['links'] - file['inside']} more hard link(s) that no path of {rules} "
            "covers: by that name it is open. Remove the other name (find FOLDER -xdev -samefile FILE), or cover it"
        )
    if files[SHOWN:]:
        result.append(f"{len(files) - SHOWN} more files have hard links that no path of their rules covers")
    result.extend(
        f"the search for hard links stopped after {MAX_ENTRIES} files or {MAX_SECONDS:.0f} seconds and did not finish "
        + _shown(path)
        for path in stored["cut"]
    )
    return result
