# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exfil-guard-audit.service: takes events from the kernel's ring buffer, folds them and hands them to the journal and,
if wanted, to a file. Enforcement and counting need none of it.

An event leaves the ring only when it is written down in the unit's own state, and the state only when it has arrived:
a unit that is killed tells some lines again, with the same sequence numbers, and loses none. While the journal takes
nothing, events wait in the ring, and what finds no room there the kernel counts as lost."""

from __future__ import annotations

import collections
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Callable, NamedTuple

from .. import layout
from ..errors import EnforcerError
from ..host import atomic, lock
from ..kernel import pins
from . import aggregate, events, journal, privilege, record

STATE = "/run/exfil-guard-audit/state.json"
UNIT_FILE = "/etc/systemd/system/" + journal.UNIT
WINDOW = 10  # seconds in which events are folded
FILE_LINES = 500  # that wait for a file; the journal does not wait for it
_SECOND = 1_000_000_000
_LOOK = 5000  # ms; how often to look whether the ring is still the one that is pinned
_SOON = 1000
_KEPT = ("sys-ptrace",)  # to see what a parent executes


# ---- the unit's own state -----------------------------------------------------------------------------------------


def fresh(ring: str) -> dict[str, Any]:
    """``position``: how far the ring is written down. ``collected``: events taken from this ring; ``lines``: what came
    of them. ``seen``: of each verdict the first sequence number, the next, and how many. ``outbox``: lines that have
    not arrived."""
    return {
        "version": 1,
        "ring": ring,
        "position": 0,
        "collected": 0,
        "unreadable": 0,
        "lines": 0,
        "seen": {},
        "missing": 0,
        "held": {},
        "outbox": {"journal": [], "file": []},
        "file_lost": 0,
        "failing": {},
    }


def load(path: str = STATE) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    model = fresh("")
    whole = (
        isinstance(found, dict)
        and found.get("version") == model["version"]
        and all(isinstance(found.get(key), type(value)) for key, value in model.items())
    )
    return found if whole else None


def save(state: dict[str, Any], path: str) -> None:
    # it is in memory, as the ring is: a power cut takes both
    atomic.write(path, json.dumps(state, separators=(",", ":")).encode("ascii"), durable=False)


def adopt(found: dict[str, Any] | None, ring: str) -> dict[str, Any]:
    """What an earlier run left. From another ring, only what is still to be told."""
    if found is None or found["ring"] == ring:
        return found or fresh(ring)
    return dict(fresh(ring), held=found["held"], outbox=found["outbox"], failing=found["failing"])


def _say(text: str) -> None:
    try:
        print("exfil-guard: " + text, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody listens; the state tells


class CollectorStatus(NamedTuple):
    """The collector's part of the host's status. ``held``: events in records that wait to be aggregated;
    ``undelivered``: records that wait for each sink; ``file_lost``: records for which the file's queue had no room."""

    running: bool
    collected: int
    lines: int
    missing: int
    unreadable: int
    held: int
    undelivered: dict[str, int]
    file_lost: int
    failing: list[str]


def status(path: str = STATE, lock_path: str = events.LOCK, unit_file: str = UNIT_FILE) -> CollectorStatus | None:
    """Reads the collector's status; None when this host has no such unit."""
    state = load(path)
    if state is None and not os.path.lexists(unit_file):
        return None
    state = state or fresh("")
    return CollectorStatus(
        running=lock.holder(lock_path).endswith(events.COLLECTOR),
        collected=state["collected"],
        lines=state["lines"],
        missing=state["missing"],
        unreadable=state["unreadable"],
        held=sum(each["line"]["count"] for each in state["held"].values() if each["line"]),
        undelivered={name: len(lines) for name, lines in sorted(state["outbox"].items()) if lines},
        file_lost=state["file_lost"],
        failing=[text for _, text in sorted(state["failing"].items())],
    )


# ---- one turn after another ---------------------------------------------------------------------------------------


class Collector:
    """``view``: names as they are now. ``clock``: CLOCK_BOOTTIME in ns. ``sinks``: journal and, perhaps, file."""

    def __init__(
        self,
        ring: Any,
        view: Callable[[], record.View],
        sinks: dict[str, Any],
        state: dict[str, Any],
        path: str,
        clock: Callable[[], int],
        window: int = WINDOW,
    ) -> None:
        self.ring, self.view, self.sinks, self.clock = ring, view, sinks, clock
        self.state, self.path = state, path
        self.fold = aggregate.Fold(window * _SECOND, state["held"])
        self.outbox: dict[str, collections.deque[dict[str, Any]]] = {
            name: collections.deque(state["outbox"][name] if name in sinks else ()) for name in ("journal", "file")
        }
        self._unsaved = False
        self._unreadable: dict[int, int] = {}  # size -> how many
        consumer, producer = ring.positions()
        if consumer < state["position"] <= producer:  # killed between the two
            ring.advance(state["position"])

    def turn(self, ending: bool = False) -> bool:
        """False: something does not go on; nothing is taken before it does."""
        if not self._save() or not self._deliver():
            return False
        batch = self.ring.peek()
        now = self.clock()
        if batch.end != batch.start:
            self._take(batch, now)
        lines = self.fold.due(now, ending)
        notes = self._notes(now)
        if batch.end != batch.start or lines or notes:
            self._put(lines + notes)
            self._unsaved = True
            return self._save() and self._deliver() and self._save()
        return self._save()

    def busy(self) -> bool:
        """Whether a turn is due soon without a new event."""
        return self._unsaved or self.fold.waits() or any(self.outbox.values())

    def _take(self, batch: Any, now: int) -> None:
        seen = self.view()
        for data in batch.records:
            self.state["collected"] += 1
            if events.readable(data):
                self._count(data)
                self.fold.add(data, now, seen)
            else:
                self.state["unreadable"] += 1
                self._unreadable[len(data)] = self._unreadable.get(len(data), 0) + 1
        self.state["position"] = batch.end

    def _count(self, data: bytes) -> None:
        event = layout.EVENT.unpack(data)
        sequence, verdict = event.sequence, str(event.verdict)
        first, following, count = self.state["seen"].get(verdict, (sequence, sequence, 0))
        self.state["seen"][verdict] = [min(first, sequence), max(following, sequence + 1), count + 1]

    def _notes(self, now: int) -> list[dict[str, Any]]:
        """Gaps in the sequence numbers, and records that could not be read. Events of several processors come a little
        out of order, so a gap counts when nothing waits any more."""
        found = []
        missing = (
            sum(following - first - count for first, following, count in self.state["seen"].values())
            - self.state["unreadable"]
        )
        if missing > self.state["missing"]:
            consumer, producer = self.ring.positions()
            if max(consumer, self.state["position"]) == producer:
                found.append(record.note(record.LOST, missing - self.state["missing"], self.view(), now))
                self.state["missing"] = missing
        for size, count in sorted(self._unreadable.items()):
            found.append(record.note(record.UNREADABLE, count, self.view(), now, size))
        self._unreadable.clear()
        return found

    def _put(self, lines: list[dict[str, Any]]) -> None:
        self.state["lines"] += len(lines)
        self.outbox["journal"].extend(lines)
        if "file" in self.sinks:
            room = max(0, FILE_LINES - len(self.outbox["file"]))
            self.outbox["file"].extend(lines[:room])
            self.state["file_lost"] += len(lines[room:])

    def _save(self) -> bool:
        if not self._unsaved:
            return True
        self.state["outbox"] = {name: list(lines) for name, lines in self.outbox.items()}
        try:
            save(self.state, self.path)
        except OSError as error:
            self._failing("state", error)
            return False
        self._well("state")
        if self.ring.positions()[0] < self.state["position"]:
            self.ring.advance(self.state["position"])
        self._unsaved = False
        return True

    def _deliver(self) -> bool:
        for name, sink in self.sinks.items():
            before = len(self.outbox[name])
            try:
                sink.deliver(self.outbox[name])
                self._well(name)
            except OSError as error:
                self._failing(name, error)
            self._unsaved = self._unsaved or len(self.outbox[name]) != before
        return not self.outbox["journal"]

    def _failing(self, what: str, error: OSError) -> None:
        text = f"{error.filename or what}: {error.strerror or error}"
        if self.state["failing"].get(what) != text:
            _say(f"audit collector stalled: {text}")
            self.state["failing"][what] = text
            self._unsaved = True

    def _well(self, what: str) -> None:
        if self.state["failing"].pop(what, None):
            _say(f"audit collector resumed ({what})")
            self._unsaved = True


# ---- the unit -----------------------------------------------------------------------------------------------------


class _Names:
    """The system, with users' names remembered for a minute: a flood must not ask a directory service each time."""

    def __init__(self, system: Any) -> None:
        self._system = system
        self._users: dict[int, Any] = {}
        self._since = 0.0

    def user_name(self, number: int) -> str | None:
        if time.monotonic() - self._since > 60:
            self._users.clear()
            self._since = time.monotonic()
        if number not in self._users:
            self._users[number] = self._system.user_name(number)
        return self._users[number]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)


class Stop:
    """SIGTERM and SIGINT, as something that poll(2) wakes up for."""

    def __init__(self) -> None:
        self.asked = False
        self.fd, self._writer = os.pipe()
        for fd in (self.fd, self._writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_unused: Any) -> None:
        self.asked = True

    def wait(self, milliseconds: int, fd: int | None = None) -> None:
        poll = select.poll()
        for each in (self.fd, fd):
            if each is not None:
                poll.register(each, select.POLLIN)
        poll.poll(milliseconds)


def run(
    kernel: Any,
    system: Any,
    store: Any,
    *,
    json_lines: str | None = None,
    window: int = WINDOW,
    state_path: str = STATE,
    lock_path: str = events.LOCK,
    journal_path: str = journal.SOCKET,
) -> int:
    """Until it is told to stop, or another ring is pinned: then whoever started it starts it again."""
    stop = Stop()
    path = pins.map_path(kernel, "events")
    if not kernel.exists(path):
        _say("waiting for the enforcer")
    while not kernel.exists(path):
        stop.wait(_LOOK)
        if stop.asked:
            return 0
    with lock.hold(events.COLLECTOR, lock_path):
        try:
            fd = kernel.get(path)
            ring = kernel.ring(fd, True)
        except OSError as error:
            raise EnforcerError(
                f"cannot open the events: {error.strerror}", f"Except {journal.UNIT} from the rules that bind it"
            ) from error
        pinned = kernel.identity(path)
        privilege.keep("cap-" + name for name in _KEPT)
        names, documents, boot = _Names(system), record.Documents(store), kernel.boot_id()
        sinks: dict[str, Any] = {"journal": journal.Journal(journal_path)}
        if json_lines:
            sinks["file"] = journal.File(json_lines)

        def view() -> record.View:
            return record.view(
                names,
                now=time.time(),
                boottime=kernel.boottime(),
                boot=boot,
                host=socket.gethostname(),
                labels=documents.labels,
            )

        collector = Collector(ring, view, sinks, adopt(load(state_path), pinned), state_path, kernel.boottime, window)
        while not stop.asked and kernel.exists(path) and kernel.identity(path) == pinned:
            well = collector.turn()
            # while it does not go on, events wake nobody
            stop.wait(_SOON if not well or collector.busy() else _LOOK, fd if well else None)
        collector.turn(ending=True)
        return 0
