# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit record: an event, with the names that can be looked up when it is read. Keys without a value are left out.
schemas/audit-record.schema.json describes it; in the journal each key is a field."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Callable, Mapping, NamedTuple, Protocol, Sequence, Union

from .. import layout
from ..host import mountinfo
from ..host.protocols import Store
from ..host.stored import Stored
from . import events

RECORD = 1  # version
DECISION, LOST, UNREADABLE = "decision", "lost", "unreadable"
MESSAGE_IDS = {
    DECISION: "96b24c07f2fb40a69dba605ba809948c",
    LOST: "9b1502db6bfa4b87ad7d9de42e80c6a4",
    UNREADABLE: "e29de9e06b324817a381be4006db697d",
}
IDENTIFIER = "exfil-guard"
MAX_PIDS = 16  # in a record that aggregates events
_MAX_DOCUMENTS = 16
_PREFIX = "EXFIL_GUARD_"
_PRIORITIES = {"denied": "4", "audit": "5"}  # warning, notice
_TICK_NS = 10_000_000  # USER_HZ is 100, whatever the kernel's own clock

# every key of a record in order, with its type; a list is repeated as a field
KEYS: dict[str, type] = {
    "record": int,
    "kind": str,
    "time": str,
    "last_time": str,
    "boottime_ns": int,
    "boot": str,
    "host": str,
    "count": int,
    "sequence": int,
    "last_sequence": int,
    "generation": int,
    "rule": str,
    "verdict": str,
    "action": str,
    "errno": str,
    "reason": str,
    "labels": list,
    "user": str,
    "uid": int,
    "effective_user": str,
    "euid": int,
    "login_user": str,
    "login_uid": int,
    "gid": int,
    "groups": list,
    "unit": str,
    "cgroup": str,
    "cgroup_id": int,
    "executable": str,
    "command": str,
    "pid": int,
    "tid": int,
    "pids": list,
    "started": str,
    "process_started": int,
    "parent_pid": int,
    "parent_executable": str,
    "object": str,
    "path": str,
    "inode": int,
    "device": str,
    "address": str,
    "port": int,
    "protocol": str,
    "size": int,
}
_NUMBER_LISTS = ("groups", "pids")


class Host(events.Names, Protocol):
    """What the host knows of processes and mounts; host.system.System implements it."""

    def process(self, number: int) -> dict[str, str]:
        """The texts of /proc/NUMBER/stat and status; no entry for a file that cannot be read."""

    def executable(self, number: int) -> str | None:
        """The path of a process's program."""

    def host_mounts(self) -> str:
        """The mountinfo of the first process."""


class View(NamedTuple):
    """Where names are looked up for the events of one moment."""

    system: Host
    mounts: Sequence[mountinfo.Mount]
    started: float  # when the host was booted, in seconds since 1970, by its clock now
    boot: str  # the boot's id
    host: str
    labels: Callable[[int, str], list[str] | None]  # see Documents.labels


def view(
    system: Host, *, now: float, boottime: int, boot: str, host: str, labels: Callable[[int, str], list[str] | None]
) -> View:
    """``now``: seconds since 1970; ``boottime``: CLOCK_BOOTTIME in ns, at the same moment."""
    mounts = mountinfo.visible(mountinfo.parse_mounts(system.host_mounts()))
    return View(system, mounts, now - boottime / 1e9, boot, events.text(os.fsencode(host)), labels)


# ---- the record -----------------------------------------------------------------------------------------------------


def _to_json(record: Decision | Note) -> dict[str, Any]:
    values = {"record": RECORD, **vars(record)}
    return {key: values[key] for key in KEYS if values.get(key) is not None}


@dataclass
class Decision:
    """One denial or report, or several of the same subject, rule and object: see `count`."""

    time: str
    last_time: str
    count: int
    generation: int
    verdict: str
    action: str
    reason: str
    uid: int
    pid: int
    command: str
    boottime_ns: int | None = None
    boot: str | None = None
    host: str | None = None
    sequence: int | None = None
    last_sequence: int | None = None
    rule: str | None = None
    errno: str | None = None
    labels: list[str] | None = None
    user: str | None = None
    effective_user: str | None = None
    euid: int | None = None
    login_user: str | None = None
    login_uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None
    unit: str | None = None
    cgroup: str | None = None
    cgroup_id: int | None = None
    executable: str | None = None
    tid: int | None = None
    pids: list[int] | None = None
    started: str | None = None
    process_started: int | None = None
    parent_pid: int | None = None
    parent_executable: str | None = None
    object: str | None = None
    path: str | None = None
    inode: int | None = None
    device: str | None = None
    address: str | None = None
    port: int | None = None
    protocol: str | None = None
    kind: str = DECISION

    def to_json(self) -> dict[str, Any]:
        """Returns the record for JSON: keys in the order of KEYS, those without a value left out."""
        return _to_json(self)

    def extend(self, data: bytes, view: View) -> None:
        """Adds one more event of the same kind."""
        event = layout.EVENT.unpack(data)
        self.count += 1
        self.sequence = min(event.sequence if self.sequence is None else self.sequence, event.sequence)
        self.last_sequence = max(self.last_sequence or 0, event.sequence)
        self.last_time = events.instant(view.started + event.time / 1e9)
        pids = self.pids = self.pids or []
        if event.pid not in pids and len(pids) < MAX_PIDS:
            pids.append(event.pid)

    def object_text(self) -> str:
        """Returns the object for people; "" for an action without one."""
        if self.address is not None and self.port is not None:
            return events.Endpoint(self.address, self.port, self.protocol or "").text()
        return self.path or ""


@dataclass
class Note:
    """Events of which nothing is known but how many there are. ``size``: of records that cannot be read."""

    kind: str
    time: str
    last_time: str
    count: int
    boottime_ns: int | None = None
    boot: str | None = None
    host: str | None = None
    size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the record for JSON: keys in the order of KEYS, those without a value left out."""
        return _to_json(self)


Record = Union[Decision, Note]


def from_json(content: Mapping[str, Any]) -> Record:
    """Raises KeyError or TypeError when a key is missing or unknown."""
    kind = Decision if content["kind"] == DECISION else Note
    return kind(**{key: value for key, value in content.items() if key != "record"})


# ---- from an event ------------------------------------------------------------------------------------------------


def describe(data: bytes, view: View) -> Decision:
    """Makes the record of one event, whose layout is `events.readable`."""
    event = events.decode(data, view.mounts, view.system, view.started)
    boottime = layout.EVENT.unpack(data).time
    login = None if event.login_uid is None else events.user_name(view.system, event.login_uid)
    common = {key: value for key, value in event.to_json().items() if key in _FIELDS}
    return Decision(
        **{**common, **_process(view.system, event.pid, event.process_started)},
        last_time=event.time,
        boottime_ns=boottime,
        boot=view.boot,
        host=view.host,
        count=1,
        last_sequence=event.sequence,
        pids=[event.pid],
        errno="EPERM" if event.verdict == "denied" else None,
        object=events.object_text(event) or None,
        labels=view.labels(event.generation, event.rule) if event.rule else None,
        effective_user=events.user_name(view.system, event.euid),
        login_user=login,
        started=events.instant(view.started + event.process_started / 1e9),
    )


_FIELDS = frozenset(field.name for field in dataclasses.fields(Decision))


def _process(system: Host, pid: int, started: int) -> dict[str, Any]:
    """What only /proc has: the groups and the parent. Empty when the process has ended; another process that now has
    its id was started at another time."""
    texts = system.process(pid)
    fields = texts.get("stat", "").rpartition(")")[2].split()
    if len(fields) < 20 or int(fields[19]) != started // _TICK_NS:
        return {}
    parent = int(fields[1])
    groups = [line.split()[1:] for line in texts.get("status", "").splitlines() if line.startswith("Groups:")]
    executable = system.executable(parent) if parent else None
    return {
        "groups": sorted(int(number) for number in groups[0]) if groups else None,
        "parent_pid": parent,
        "parent_executable": events.text(os.fsencode(executable)) if executable else None,
    }


def note(kind: str, count: int, view: View, boottime: int, size: int | None = None) -> Note:
    """Makes a record of events that cannot be described. ``boottime``: CLOCK_BOOTTIME in ns."""
    now = events.instant(view.started + boottime / 1e9)
    return Note(kind, now, now, count, boottime, view.boot, view.host, size)


# ---- for people, for the journal, and back ------------------------------------------------------------------------


def to_line(record: Record) -> str:
    """Returns one line for people."""
    if isinstance(record, Decision):
        times = f", {record.count} times until {record.last_time}" if record.count > 1 else ""
        return events.line(record, record.object_text()) + times
    if record.kind == LOST:
        return f"{record.time} {record.count} events were lost, or another process took them: the kernel counted them"
    return (
        f"{record.time} {record.count} events of {record.size} bytes are not of layout {layout.LAYOUT}: they are "
        "counted, but cannot be read. Run role exfil.guard.audit again"
    )


def to_fields(record: Record) -> list[tuple[str, str]]:
    """Returns the fields of a journal entry: those that every entry has, then the record's keys."""
    verdict = record.verdict if isinstance(record, Decision) else ""
    fields = [
        ("MESSAGE", to_line(record)),
        ("MESSAGE_ID", MESSAGE_IDS[record.kind]),
        ("PRIORITY", _PRIORITIES.get(verdict, "3")),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
    ]
    for key, value in record.to_json().items():
        values = value if isinstance(value, list) else [value]
        fields.extend((_PREFIX + key.upper(), str(item)) for item in values)
    return fields


def from_fields(fields: Mapping[str, object]) -> Record | None:
    """Reads a journal entry, as `journalctl -o json` prints it. None: it is not one of our records, or is damaged."""
    content: dict[str, Any] = {}
    try:
        for key, kind in KEYS.items():
            value = fields.get(_PREFIX + key.upper())
            if value is None:
                continue
            if kind is list:
                values = value if isinstance(value, list) and not _is_bytes(value) else [value]
                content[key] = [int(_string(item)) if key in _NUMBER_LISTS else _string(item) for item in values]
            else:
                content[key] = kind(_string(value))
        if content.get("record") != RECORD or content.get("kind") not in MESSAGE_IDS:
            return None
        return from_json(content)
    except (KeyError, TypeError, ValueError):
        return None


def _is_bytes(value: Sequence[object]) -> bool:
    """journalctl prints a value that is not plain text as a list of bytes."""
    return bool(value) and all(isinstance(item, int) for item in value)


def _string(value: object) -> str:
    if isinstance(value, list):
        value = bytes(value).decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def harmless(record: Record) -> Record:
    """Escapes what is not printable: others can write to a file or to the journal."""

    def clean(value: object) -> object:
        if isinstance(value, list):
            return [clean(item) for item in value]
        if not isinstance(value, str) or value.isprintable():
            return value
        return events.text(value.encode("utf-8", "surrogateescape"))

    return from_json({key: clean(value) for key, value in record.to_json().items()})


# ---- the document of a generation ---------------------------------------------------------------------------------


class Documents:
    """The documents of the generations that events name; at most 16 are cached."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: dict[int, Stored | None] = {}

    def get(self, generation: int) -> Stored | None:
        """Returns the stored generation; None when it is missing."""
        if self._cache.get(generation) is None:
            if len(self._cache) > _MAX_DOCUMENTS:
                self._cache.clear()
            self._cache[generation] = self._store.load(generation)
        return self._cache[generation]

    def labels(self, generation: int, rule: str) -> list[str] | None:
        """Returns the labels of which a task must have one for the rule to bind it. None: the rule also binds tasks
        without a label, or there is no document. The kernel does not report which of the labels the task has."""
        stored = self.get(generation)
        if stored is None:
            return None
        for entry in stored.resolved["rules"]:
            if events.text(entry["name"].encode()) == rule:
                subjects = stored.resolved["subjects"]
                sets = [subjects[name].get("has_read") for name in entry["subjects"] or ()]
                return sorted({label for labels in sets for label in labels}) if sets and all(sets) else None
        return None
