# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows denials as they happen: from the journal while the audit unit runs, otherwise from the ring buffer itself."""

from __future__ import annotations

import os
import socket
import time
from typing import Iterator, TextIO

from ..host import lock
from ..host.protocols import Store, System
from ..kernel import pins
from ..kernel.protocol import Kernel
from . import aggregate, events, journal, record
from .record import Record

_WINDOW_NS = 5_000_000_000  # in which events are aggregated when the audit unit does not run
_LOCK_SECONDS = 2.0  # to wait for a command that is taking events
_COLOURS = {"denied": "\x1b[31m", "audit": "\x1b[33m"}
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


def records(kernel: Kernel, system: System, store: Store, *, before: int = 10) -> Iterator[Record]:
    """Yields records without end. ``before``: how many earlier ones of the journal come first."""
    if lock.holder(events.LOCK).endswith(events.COLLECTOR):
        return journal.follow(journal.matches(), before)
    return taken(kernel, system, store)


def taken(kernel: Kernel, system: System, store: Store, *, pause: float = 0.5) -> Iterator[Record]:
    """Takes events from the ring buffer and yields their records. ``pause``: seconds between two reads."""
    aggregator, documents, boot = aggregate.Aggregator(_WINDOW_NS, {}), record.Documents(store), kernel.boot_id()
    with lock.hold("watch", events.LOCK, wait=_LOCK_SECONDS), pins.opened(
        kernel, pins.map_path(kernel, "events")
    ) as fd, kernel.ring(fd, True) as ring:
        while True:
            batch = ring.peek()
            view = record.view(
                system,
                now=time.time(),
                boottime=kernel.boottime(),
                boot=boot,
                host=socket.gethostname(),
                labels=documents.labels,
            )
            for data in batch.records:
                if events.readable(data):
                    aggregator.add(data, kernel.boottime(), view)
                else:
                    yield record.note(record.UNREADABLE, 1, view, kernel.boottime(), len(data))
            yield from aggregator.due(kernel.boottime())
            ring.advance(batch.end)
            time.sleep(pause)


def to_line(entry: Record, colour: bool) -> str:
    """Returns one line for people. Apart from colours it is printable text."""
    if isinstance(entry, record.Note):
        line = record.to_line(entry)
        return _BOLD + line + _PLAIN if colour else line
    user = entry.user or f"uid {entry.uid}"
    if entry.login_user and entry.login_user != user:
        user += f" (login {entry.login_user})"
    decided_by = entry.rule or entry.reason
    if entry.rule and entry.reason != "rule":
        decided_by += f" ({entry.reason})"
    process = ", ".join(part for part in (entry.executable or entry.command, entry.unit, f"pid {entry.pid}") if part)
    parts = [
        (_DIM, entry.time[11:19]),
        (_COLOURS.get(entry.verdict, ""), f"{entry.verdict:<6}"),
        ("", " ".join(part for part in (entry.action, entry.object) if part)),
        (_BOLD, user),
        (_DIM, f"[{process}]"),
        ("", f"by {decided_by}"),
    ]
    if entry.count > 1:
        parts.append((_BOLD, f"x{entry.count}"))
    return " ".join(tint + text + _PLAIN if colour and tint else text for tint, text in parts)


def coloured(stream: TextIO) -> bool:
    """Whether to write colours to a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
