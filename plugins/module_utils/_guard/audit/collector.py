# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exfil-guard-audit.service: takes events from the ring buffer, aggregates them, and writes audit records to the
journal and, if configured, to a file. Enforcement and counting do not depend on it.

Events leave the ring buffer only after they are in the unit's state file, and records leave the state file only after
they are delivered. A unit that is killed therefore loses nothing, but may deliver some records twice, with the same
sequence numbers. While the journal does not accept records, events stay in the ring buffer; when that is full, the
kernel counts further events as lost."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Protocol

from .. import layout
from ..errors import EnforcerError
from ..host import atomic, files, lock
from ..host.protocols import Store, System
from ..kernel import pins
from ..kernel.protocol import Kernel, Ring
from ..kernel.ring import Batch
from . import aggregate, events, journal, privilege, record
from .record import Record

STATE = "/run/exfil-guard-audit/state.json"
UNIT_FILE = "/etc/systemd/system/" + journal.UNIT
WINDOW_SECONDS = 10  # in which events are aggregated
MAX_FILE_RECORDS = 500  # that wait for the file; the journal does not wait for it
_VERSION = 1  # of the state file
_SECOND_NS = 1_000_000_000
_POLL_MS = 5000  # how often to check whether the ring buffer is the one that is pinned
_BUSY_POLL_MS = 1000
_NAME_CACHE_SECONDS = 60
_CAPABILITIES = ("sys-ptrace",)  # to read which program a parent process executes


# ---- the unit's state -----------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """The events of one verdict: the first sequence number, the next one, and their number."""

    first: int
    following: int
    total: int


@dataclass
class State:
    """All that outlives the process. ``position``: in the ring buffer, up to which events are in this state;
    ``collected``: events taken from this ring buffer; ``lines``: records made of them; ``seen``: by verdict;
    ``missing``: events that were reported as lost; ``outbox``: records to deliver, by sink."""

    ring: str
    version: int = _VERSION
    position: int = 0
    collected: int = 0
    unreadable: int = 0
    lines: int = 0
    seen: dict[str, Seen] = field(default_factory=dict)
    missing: int = 0
    held: dict[str, aggregate.Held] = field(default_factory=dict)
    outbox: dict[str, list[Record]] = field(default_factory=lambda: {"journal": [], "file": []})
    file_lost: int = 0
    failing: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the state file."""
        return {
            **vars(self),
            "held": {kind: entry.to_json() for kind, entry in self.held.items()},
            "outbox": {name: [entry.to_json() for entry in records] for name, records in self.outbox.items()},
        }


def _from_json(content: Mapping[str, Any]) -> State:
    """Raises KeyError, TypeError or ValueError when the content is damaged or of another version."""
    empty = State("")
    if content["version"] != _VERSION or not all(
        isinstance(content[key], type(value)) for key, value in vars(empty).items()
    ):
        raise ValueError("another version, or damaged")
    known = {key: content[key] for key in vars(empty)}
    known["seen"] = {verdict: Seen(*numbers) for verdict, numbers in content["seen"].items()}
    known["held"] = {kind: aggregate.Held.from_json(entry) for kind, entry in content["held"].items()}
    known["outbox"] = {
        name: [record.from_json(entry) for entry in records] for name, records in content["outbox"].items()
    }
    return State(**known)


def load(path: str = STATE) -> State | None:
    """Reads the state file; None when it is missing, damaged or of another version."""
    try:
        return _from_json(json.loads(files.read(path)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(state: State, path: str) -> None:
    """Replaces the state file. It is in memory, as the ring buffer is: both are lost when the host loses power."""
    atomic.write(path, json.dumps(state.to_json(), separators=(",", ":")).encode("ascii"), durable=False)


def adopt(previous: State | None, ring: str) -> State:
    """Continues the state of an earlier run. If that was for another ring buffer, only its undelivered records stay."""
    if previous is None:
        return State(ring)
    if previous.ring == ring:
        return previous
    return State(ring, held=previous.held, outbox=previous.outbox, failing=previous.failing)


def _print(text: str) -> None:
    with contextlib.suppress(OSError):  # standard error is closed; `exfil-guard status` reports failures, too
        print("exfil-guard: " + text, file=sys.stderr, flush=True)


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
    state = state or State("")
    return CollectorStatus(
        running=lock.holder(lock_path).endswith(events.COLLECTOR),
        collected=state.collected,
        lines=state.lines,
        missing=state.missing,
        unreadable=state.unreadable,
        held=sum(entry.line.count for entry in state.held.values() if entry.line),
        undelivered={name: len(records) for name, records in sorted(state.outbox.items()) if records},
        file_lost=state.file_lost,
        failing=[text for _unused, text in sorted(state.failing.items())],
    )


# ---- the loop -------------------------------------------------------------------------------------------------------


class Sink(Protocol):
    """Where records are delivered: journal.Journal or journal.File."""

    def deliver(self, records: collections.deque[Record]) -> None:
        """Removes from ``records`` those that were delivered. Raises OSError when the rest was not."""


class Collector:
    """``view``: looks names up as they are now. ``clock``: CLOCK_BOOTTIME in ns. ``sinks``: "journal" and perhaps
    "file"."""

    def __init__(
        self,
        ring: Ring,
        view: Callable[[], record.View],
        sinks: Mapping[str, Sink],
        state: State,
        path: str,
        clock: Callable[[], int],
        window: int = WINDOW_SECONDS,
    ) -> None:
        self.ring, self.view, self.sinks, self.clock = ring, view, sinks, clock
        self.state, self.path = state, path
        self.aggregator = aggregate.Aggregator(window * _SECOND_NS, state.held)
        self.outbox: dict[str, collections.deque[Record]] = {
            name: collections.deque(state.outbox[name] if name in sinks else ()) for name in ("journal", "file")
        }
        self._unsaved = False
        self._unreadable: collections.Counter[int] = collections.Counter()  # by size
        consumer, producer = ring.positions()
        if consumer < state.position <= producer:  # killed after saving the state, before advancing the ring buffer
            ring.advance(state.position)

    def turn(self, ending: bool = False) -> bool:
        """Takes events and delivers records once. Returns False, and takes no events, while the state or the journal
        cannot be written. ``ending``: delivers all records."""
        if not self._save() or not self._deliver():
            return False
        batch = self.ring.peek()
        now = self.clock()
        if batch.end != batch.start:
            self._take(batch, now)
        records: list[Record] = [*self.aggregator.due(now, ending), *self._notes(now)]
        if batch.end != batch.start or records:
            self._put(records)
            self._unsaved = True
            return self._save() and self._deliver() and self._save()
        return self._save()

    def busy(self) -> bool:
        """Whether the next turn is due soon, without a new event."""
        return self._unsaved or self.aggregator.pending() or any(self.outbox.values())

    def _take(self, batch: Batch, now: int) -> None:
        view = self.view()
        for data in batch.records:
            self.state.collected += 1
            if events.readable(data):
                self._count(data)
                self.aggregator.add(data, now, view)
            else:
                self.state.unreadable += 1
                self._unreadable[len(data)] += 1
        self.state.position = batch.end

    def _count(self, data: bytes) -> None:
        event = layout.EVENT.unpack(data)
        verdict = str(event.verdict)
        seen = self.state.seen.get(verdict, Seen(event.sequence, event.sequence, 0))
        self.state.seen[verdict] = Seen(
            min(seen.first, event.sequence), max(seen.following, event.sequence + 1), seen.total + 1
        )

    def _notes(self, now: int) -> list[Record]:
        """Notes gaps in the sequence numbers, and events that could not be read. Events of several processors are
        slightly out of order, so gaps are noted only when the ring buffer is empty."""
        notes: list[Record] = []
        gaps = sum(seen.following - seen.first - seen.total for seen in self.state.seen.values())
        missing = gaps - self.state.unreadable
        if missing > self.state.missing:
            consumer, producer = self.ring.positions()
            if max(consumer, self.state.position) == producer:
                notes.append(record.note(record.LOST, missing - self.state.missing, self.view(), now))
                self.state.missing = missing
        for size, count in sorted(self._unreadable.items()):
            notes.append(record.note(record.UNREADABLE, count, self.view(), now, size))
        self._unreadable.clear()
        return notes

    def _put(self, records: list[Record]) -> None:
        self.state.lines += len(records)
        self.outbox["journal"].extend(records)
        if "file" in self.sinks:
            room = max(0, MAX_FILE_RECORDS - len(self.outbox["file"]))
            self.outbox["file"].extend(records[:room])
            self.state.file_lost += len(records[room:])

    def _save(self) -> bool:
        if not self._unsaved:
            return True
        self.state.outbox = {name: list(records) for name, records in self.outbox.items()}
        try:
            save(self.state, self.path)
        except OSError as error:
            self._stalled("state", error)
            return False
        self._resumed("state")
        if self.ring.positions()[0] < self.state.position:
            self.ring.advance(self.state.position)
        self._unsaved = False
        return True

    def _deliver(self) -> bool:
        for name, sink in self.sinks.items():
            before = len(self.outbox[name])
            try:
                sink.deliver(self.outbox[name])
                self._resumed(name)
            except OSError as error:
                self._stalled(name, error)
            self._unsaved = self._unsaved or len(self.outbox[name]) != before
        return not self.outbox["journal"]

    def _stalled(self, what: str, error: OSError) -> None:
        text = f"{error.filename or what}: {error.strerror or error}"
        if self.state.failing.get(what) != text:
            _print(f"audit collector stalled: {text}")
            self.state.failing[what] = text
            self._unsaved = True

    def _resumed(self, what: str) -> None:
        if self.state.failing.pop(what, None):
            _print(f"audit collector resumed ({what})")
            self._unsaved = True


# ---- the unit -------------------------------------------------------------------------------------------------------


class _CachedNames:
    """The system, with users' names cached: many events must not cause as many queries to a directory service."""

    def __init__(self, system: record.Host) -> None:
        self._system = system
        self._users: dict[int, str | None] = {}
        self._since = 0.0

    def user_name(self, number: int) -> str | None:
        if time.monotonic() - self._since > _NAME_CACHE_SECONDS:
            self._users.clear()
            self._since = time.monotonic()
        if number not in self._users:
            self._users[number] = self._system.user_name(number)
        return self._users[number]

    def process(self, number: int) -> dict[str, str]:
        return self._system.process(number)

    def executable(self, number: int) -> str | None:
        return self._system.executable(number)

    def host_mounts(self) -> str:
        return self._system.host_mounts()


class Stop:
    """SIGTERM and SIGINT as a descriptor for poll(2)."""

    def __init__(self) -> None:
        self.requested = False
        self.fd, self._writer = os.pipe()
        for fd in (self.fd, self._writer):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, *_unused: object) -> None:
        self.requested = True

    def wait(self, milliseconds: int, fd: int | None = None) -> None:
        """Waits for a signal, for ``fd``, or until the time has passed."""
        poll = select.poll()
        descriptors: Iterable[int] = (self.fd,) if fd is None else (self.fd, fd)
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        poll.poll(milliseconds)


def run(
    kernel: Kernel,
    system: System,
    store: Store,
    *,
    json_lines: str | None = None,
    window: int = WINDOW_SECONDS,
    state_path: str = STATE,
    lock_path: str = events.LOCK,
    journal_path: str = journal.SOCKET,
) -> int:
    """Collects events until a signal stops it, or until another ring buffer is pinned; systemd then starts it again."""
    stop = Stop()
    path = pins.map_path(kernel, "events")
    if not kernel.exists(path):
        _print("waiting for the enforcer")
    while not kernel.exists(path):
        stop.wait(_POLL_MS)
        if stop.requested:
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
        privilege.keep("cap-" + name for name in _CAPABILITIES)
        names, documents, boot = _CachedNames(system), record.Documents(store), kernel.boot_id()
        sinks: dict[str, Sink] = {"journal": journal.Journal(journal_path)}
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
        while not stop.requested and kernel.exists(path) and kernel.identity(path) == pinned:
            running = collector.turn()
            # while it is stalled, new events do not wake it
            stop.wait(_BUSY_POLL_MS if not running or collector.busy() else _POLL_MS, fd if running else None)
        collector.turn(ending=True)
        return 0
