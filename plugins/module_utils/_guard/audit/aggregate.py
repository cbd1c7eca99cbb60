# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many events by the same subject, under the same rule, on the same object, told as one."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from .. import layout
from . import record

# fields of an event that make its kind, each from the first to the last
_SAME = (("generation", "rule_id"), ("device", "reason"), ("uid", "address"), ("rule", "cgroup_size"))
MOST = 256  # kinds that are remembered at a time


def key(data: bytes) -> str:
    """Same for events that are told as one. Not in it: when, which process of the subject's, and its name, which it can
    choose; nor the inode of a file that has a path."""
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


class Fold:
    """The first event of a kind is told at once, with what came along; those after it when ``window`` has passed.
    ``held``: kind -> {until, line}, all that has to outlive the process."""

    def __init__(self, window: int, held: dict[str, dict[str, Any]]) -> None:
        self.window, self.held = window, held
        self._early: list[dict[str, Any]] = []  # had to make room

    def add(self, data: bytes, now: int, seen: record.View) -> None:
        kind = key(data)
        found = self.held.get(kind)
        if found is None:
            if len(self.held) >= MOST:
                self._make_room()
            self.held[kind] = {"until": now, "line": record.describe(data, seen)}
        elif found["line"] is None:
            found["line"] = record.describe(data, seen)
        else:
            record.extend(found["line"], data, seen)

    def due(self, now: int, everything: bool = False) -> list[dict[str, Any]]:
        """The lines whose time has come, oldest first; each belongs to whoever takes it."""
        lines, self._early = self._early, []
        for kind, each in list(self.held.items()):
            if each["until"] <= now or everything:
                if each["line"] is None:
                    del self.held[kind]
                else:
                    lines.append(each["line"])
                    each.update(line=None, until=now + self.window)
        return sorted(lines, key=lambda line: line["boottime_ns"])

    def waits(self) -> bool:
        return bool(self._early) or any(each["line"] is not None for each in self.held.values())

    def _make_room(self) -> None:
        kind = min(self.held, key=lambda each: self.held[each]["until"])
        line = self.held.pop(kind)["line"]
        if line is not None:
            self._early.append(line)
