# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a rule covers and that had another name before it: a hard link from outside leads to them all the same.
Found by their link count, which is higher than the number of names inside what the rule covers."""

from __future__ import annotations

import datetime
import os
import time
from typing import Any, Callable, Iterator, NamedTuple

from ..host import mountinfo
from ..policy import actions, model, semantics
from . import resolver

ENTRIES, SECONDS = 200_000, 10.0  # then the look ends, and says so
TOLD = 10  # names in warnings; the rest is a number


class Found(NamedTuple):
    path: str  # the first of the names inside
    links: int
    inside: int  # names that a rule covers, of the rule that covers most
    rules: tuple[str, ...]


class Seen(NamedTuple):
    """A regular file with more than one link, by one of its names."""

    path: str
    file: tuple[int, int]  # device and inode
    links: int


def outside(rules: dict[str, list[Seen]]) -> list[Found]:
    """Per rule, what was seen inside: those files that have a name elsewhere."""
    found: dict[str, Found] = {}
    for rule, seen in sorted(rules.items()):
        names: dict[tuple[int, int], set[str]] = {}
        for each in seen:
            names.setdefault(each.file, set()).add(each.path)
        links = {each.file: each.links for each in seen}
        for file, paths in names.items():
            if len(paths) < links[file]:
                path = min(paths)
                before = found.get(path)
                inside = max(len(paths), before.inside if before else 0)
                found[path] = Found(path, links[file], inside, (before.rules if before else ()) + (rule,))
    return sorted(found.values())


class _Look:
    def __init__(self, system: Any, clock: Callable[[], float]) -> None:
        self.system, self.clock = system, clock
        self.left, self.ends = ENTRIES, clock() + SECONDS
        self.cut: set[str] = set()  # policy paths that were not looked through

    def under(self, pattern: str) -> list[Seen]:
        seen = []
        components = mountinfo.split(pattern)
        top = resolver.literal_prefix(components)
        for path, entry in self._walk("/" + "/".join(top), components[len(top) :], None, pattern):
            if entry.regular and entry.links > 1:
                seen.append(Seen(path, (entry.device, entry.inode), entry.links))
        return seen

    def _walk(self, path: str, rest: model.Components, device: Any, pattern: str) -> Iterator[tuple[str, Any]]:
        """What is at ``path`` and below it, as far as ``rest`` goes; not over to another file system."""
        pending = [(path, self.system.entry(path), rest)]
        while pending:
            path, entry, rest = pending.pop()
            if entry is None or (device is not None and entry.device != device):
                continue
            device = entry.device
            if self.left <= 0 or self.clock() > self.ends:
                self.cut.add(pattern)
                return
            self.left -= 1
            if not rest or rest == ("**",):
                yield path, entry
            if rest and entry.directory:
                for name, below in self.system.entries(path):
                    if rest == ("**",):
                        pending.append((os.path.join(path, name), below, rest))
                    elif semantics.component_matches(rest[0], name):
                        pending.append((os.path.join(path, name), below, rest[1:]))


def look(
    resolved: model.Resolved, system: Any, now: datetime.date, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """As it is stored: ``found`` and ``cut``, the policy paths that were not looked through. What a rule covers by
    `not` is most of the machine, and is not looked through."""
    looking = _Look(system, clock)
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
                    for seen in looking.under(path)
                ]
            rules.setdefault(rule.name, []).extend(sets[name])
    return {
        "found": [dict(each._asdict(), rules=list(each.rules)) for each in outside(rules)],
        "cut": sorted(looking.cut),
    }


def _shown(path: str) -> str:
    return ascii(path)[1:-1]


def lines(stored: dict[str, Any]) -> list[str]:
    """For warnings and for `status`."""
    found = stored["found"]
    told = [
        "{0} has {1} more hard link(s) that no path of {2} covers: by that name it is open. Remove the other name "
        "(find FOLDER -xdev -samefile FILE), or cover it".format(
            _shown(each["path"]), each["links"] - each["inside"], ", ".join(f"rule {rule!r}" for rule in each["rules"])
        )
        for each in found[:TOLD]
    ]
    if found[TOLD:]:
        told.append(f"{len(found) - TOLD} more files have hard links that no path of their rules covers")
    told.extend(
        f"the look for hard links ended after {ENTRIES} files or {SECONDS:.0f} seconds and did not get through {_shown(path)}"
        for path in stored["cut"]
    )
    return told
