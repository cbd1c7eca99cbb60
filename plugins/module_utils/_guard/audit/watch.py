# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is denied, as it happens: from the journal while the audit unit collects, else from the ring itself."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Iterator

from ..host import lock
from ..kernel import pins
from . import aggregate, events, journal
from . import record as trail

WINDOW = 5  # seconds in which the same is told once, when nobody else folds
_COLOURS = {"denied": "\x1b[31m", "audit": "\x1b[33m"}
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_SECOND = 1_000_000_000
_WAIT = 2.0  # for who takes the events just now; who goes on taking them is told of at once


def records(kernel: Any, system: Any, store: Any, *, before: int = 10) -> Iterator[dict[str, Any]]:
    """Without an end. ``before``: so many of those that are in the journal already come first."""
    if lock.holder(events.LOCK).endswith(events.COLLECTOR):
        return journal.follow(journal.matches(), before)
    return taken(kernel, system, store)


def taken(kernel: Any, system: Any, store: Any, *, pause: float = 0.5) -> Iterator[dict[str, Any]]:
    """Takes the events, as nobody else does."""
    folding, documents, boot = aggregate.Fold(WINDOW * _SECOND, {}), trail.Documents(store), kernel.boot_id()
    with lock.hold("watch", events.LOCK, wait=_WAIT), pins.opened(
        kernel, pins.map_path(kernel, "events")
    ) as fd, kernel.ring(fd, True) as ring:
        while True:
            batch = ring.peek()
            seen = trail.view(
                system,
                now=time.time(),
                boottime=kernel.boottime(),
                boot=boot,
                host=socket.gethostname(),
                labels=documents.labels,
            )
            for data in batch.records:
                if events.readable(data):
                    folding.add(data, kernel.boottime(), seen)
                else:
                    yield trail.note(trail.UNREADABLE, 1, seen, kernel.boottime(), len(data))
            yield from folding.due(kernel.boottime())
            ring.advance(batch.end)
            time.sleep(pause)


def to_line(record: dict[str, Any], colour: bool) -> str:
    """One line; colours are all that a terminal gets besides printable text."""
    if record["kind"] != trail.DECISION:
        line = trail.to_line(record)
        return _BOLD + line + _PLAIN if colour else line
    who = record.get("user") or "uid {0}".format(record["uid"])
    if record.get("login_user") and record["login_user"] != who:
        who += " (login {0})".format(record["login_user"])
    by = record.get("rule") or record["reason"]
    if record.get("rule") and record["reason"] != "rule":
        by += " ({0})".format(record["reason"])
    where = ", ".join(
        str(each)
        for each in (record.get("executable") or record["command"], record.get("unit"), "pid {0}".format(record["pid"]))
        if each
    )
    parts = [
        (_DIM, record["time"][11:19]),
        (_COLOURS.get(record["verdict"], ""), "{0:<6}".format(record["verdict"])),
        ("", " ".join(each for each in (record["action"], record.get("object")) if each)),
        (_BOLD, who),
        (_DIM, f"[{where}]"),
        ("", f"by {by}"),
    ]
    if record["count"] > 1:
        parts.append((_BOLD, "x{0}".format(record["count"])))
    return " ".join(tint + text + _PLAIN if colour and tint else text for tint, text in parts)


def coloured(stream: Any) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
