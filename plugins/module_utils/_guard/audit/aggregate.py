# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Aggregates events: those with the same subject, rule and object become one audit record with a count."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any, Mapping

from .. import layout
from . import record

# The fields of an event that make its kind, as ranges from the first field to the last. Not among them: the time; the
# process's ids and its name, which it can choose; and the inode of a file that has a path.
_SAME = (("generation", "rule_id"), ("device", "reason"), ("uid", "address"), ("rule", "cgroup_size"))
MAX_KINDS = 256  # that are held at a time


def key(data: bytes) -> str:
    """Returns the kind of an event. Events of one kind are aggregated."""
    event = layout.EVENT.unpack(data)
    same = hashlib.blake2b(digest_size=12)
    for fields in _SAME:
        same.update(data[layout.EVENT.span(*fields)])
    same.update(event.path[: event.path_size])
    same.update(event.executable[: event.executable_size])
    same.update(event.cgroup[: event.cgroup_size])
    if not event.path_size:
        same.update(data[layout.EVENT.span("inode")])
    return base64.b64encode(same.digest()).decode("ascii")


@dataclass
class Held:
    """A kind of event. ``until``: when its next record is due (CLOCK_BOOTTIME, ns); ``line``: that record so far."""

    until: int
    line: record.Decision | None

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of the state file."""
        return {"until": self.until, "line": self.line.to_json() if self.line else None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Held:
        """Raises KeyError, TypeError or ValueError when the entry is damaged."""
        line = None if content["line"] is None else record.from_json(content["line"])
        if isinstance(line, record.Note):
            raise ValueError("a note is never held")
        return cls(content["until"], line)


class Aggregator:
    """Reports the first event of a kind at once and the later ones together, ``window_ns`` afterwards. ``held`` is the
    whole state, by kind."""

    def __init__(self, window_ns: int, held: dict[str, Held]) -> None:
        self.window_ns, self.held = window_ns, held
        self._evicted: list[record.Decision] = []

    def add(self, data: bytes, now: int, view: record.View) -> None:
        """Adds an event. ``now``: CLOCK_BOOTTIME in ns."""
        kind = key(data)
        entry = self.held.get(kind)
        if entry is None:
            if len(self.held) >= MAX_KINDS:
                self._evict()
            self.held[kind] = Held(now, record.describe(data, view))
        elif entry.line is None:
            entry.line = record.describe(data, view)
        else:
            entry.line.extend(data, view)

    def due(self, now: int, everything: bool = False) -> list[record.Decision]:
        """Removes and returns the records that are due, oldest first. ``everything``: also those that are not."""
        lines, self._evicted = self._evicted, []
        for kind, entry in list(self.held.items()):
            if entry.until <= now or everything:
                if entry.line is None:
                    del self.held[kind]
                else:
                    lines.append(entry.line)
                    entry.line, entry.until = None, now + self.window_ns
        return sorted(lines, key=lambda line: line.boottime_ns or 0)

    def pending(self) -> bool:
        """Whether records wait until they are due."""
        return bool(self._evicted) or any(entry.line is not None for entry in self.held.values())

    def _evict(self) -> None:
        kind = min(self.held, key=lambda kind: self.held[kind].until)
        line = self.held.pop(kind).line
        if line is not None:
            self._evicted.append(line)
