# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit trail's record: what an event says, with the names that can still be told when it is read. What can't be
told is left out. schemas/audit-record.schema.json describes it; in the journal each key is a field."""

from __future__ import annotations

import os
import struct
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from .. import layout
from ..host import mountinfo
from . import events

RECORD = 1  # version
DECISION, LOST, UNREADABLE = "decision", "lost", "unreadable"
MESSAGE_IDS = {
    DECISION: "96b24c07f2fb40a69dba605ba809948c",
    LOST: "9b1502db6bfa4b87ad7d9de42e80c6a4",
    UNREADABLE: "e29de9e06b324817a381be4006db697d",
}
IDENTIFIER = "exfil-guard"
PIDS = 16  # told of those that are folded into one line
_PREFIX = "EXFIL_GUARD_"
_PRIORITIES = {"denied": "4", "audit": "5"}  # warning, notice
_TICKS = 10_000_000  # ns; user space sees a hundredth of a second, whatever the kernel's own

# every key of a record with its type; a list is repeated as a field
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
_NUMBERS = ("groups", "pids")  # lists of these


class View(NamedTuple):
    """What names are looked up in, for the events of one moment."""

    system: Any
    mounts: Sequence[mountinfo.Mount]
    started: float  # when the host was, in seconds since 1970, by its clock now
    boot: str
    host: str
    labels: Callable[[int, str], list[str] | None]  # of a generation's rule


def view(
    system: Any, *, now: float, boottime: int, boot: str, host: str, labels: Callable[[int, str], list[str] | None]
) -> View:
    mounts = mountinfo.visible(mountinfo.parse_mounts(system.host_mounts()))
    return View(system, mounts, now - boottime / 1e9, boot, events.text(os.fsencode(host)), labels)


# ---- from an event ------------------------------------------------------------------------------------------------


def describe(data: bytes, seen: View) -> dict[str, Any]:
    event = events.decode(data, seen.mounts, seen.system, seen.started)
    boottime = struct.unpack_from("=Q", data, 8)[0]
    record: dict[str, Any] = {
        "record": RECORD,
        "kind": DECISION,
        "last_time": event["time"],
        "boottime_ns": boottime,
        "boot": seen.boot,
        "host": seen.host,
        "count": 1,
        "last_sequence": event["sequence"],
        "pids": [event["pid"]],
        "errno": "EPERM" if event["verdict"] == "denied" else None,
        "object": events.object_of(event) or None,
        "labels": seen.labels(event["generation"], event["rule"]) if event["rule"] else None,
        "effective_user": events.user_name(seen.system, event["euid"]),
        "login_user": None if event["login_uid"] is None else events.user_name(seen.system, event["login_uid"]),
        "started": events.instant(seen.started + event["process_started"] / 1e9),
        **event,
        **process(seen.system, event["pid"], event["process_started"]),
    }
    return {key: record[key] for key in KEYS if record.get(key) is not None}


def process(system: Any, pid: int, started: int) -> dict[str, Any]:
    """What only /proc says; nothing of a process that has ended, whoever has its number now."""
    found = system.process(pid)
    fields = found.get("stat", "").rpartition(")")[2].split()
    if len(fields) < 20 or int(fields[19]) != started // _TICKS:
        return {}
    parent = int(fields[1])
    groups = [line.split()[1:] for line in found.get("status", "").splitlines() if line.startswith("Groups:")]
    executable = system.executable(parent) if parent else None
    return {
        "groups": sorted(int(number) for number in groups[0]) if groups else None,
        "parent_pid": parent,
        "parent_executable": events.text(os.fsencode(executable)) if executable else None,
    }


def extend(record: dict[str, Any], data: bytes, seen: View) -> None:
    """One more event by the same subject, under the same rule, on the same object."""
    sequence, boottime = struct.unpack_from("=2Q", data)
    record["count"] += 1
    record["sequence"] = min(record["sequence"], sequence)
    record["last_sequence"] = max(record["last_sequence"], sequence)
    record["last_time"] = events.instant(seen.started + boottime / 1e9)
    pid = struct.unpack_from("=I", data, 76)[0]
    if pid not in record["pids"] and len(record["pids"]) < PIDS:
        record["pids"].append(pid)


def note(kind: str, count: int, seen: View, boottime: int, size: int | None = None) -> dict[str, Any]:
    """Of events of which nothing else can be told."""
    now = events.instant(seen.started + boottime / 1e9)
    record = {
        "record": RECORD,
        "kind": kind,
        "time": now,
        "last_time": now,
        "boottime_ns": boottime,
        "boot": seen.boot,
        "host": seen.host,
        "count": count,
    }
    return record if size is None else dict(record, size=size)


# ---- for people, for the journal, and back ------------------------------------------------------------------------


def to_line(record: dict[str, Any]) -> str:
    if record["kind"] == LOST:
        return "{time} {count} events were lost, or taken by somebody else: the kernel counted them".format(**record)
    if record["kind"] == UNREADABLE:
        return (
            "{time} {count} records of {size} bytes are not of layout {0}: they count, and were not read. "
            "Run role exfil.guard.audit again".format(layout.LAYOUT, **record)
        )
    times = ", {0} times until {1}".format(record["count"], record["last_time"]) if record["count"] > 1 else ""
    return events.to_line(record) + times


def to_fields(record: dict[str, Any]) -> list[tuple[str, str]]:
    """In the order of the record, after what every journal entry has."""
    found = [
        ("MESSAGE", to_line(record)),
        ("MESSAGE_ID", MESSAGE_IDS[record["kind"]]),
        ("PRIORITY", _PRIORITIES.get(record.get("verdict", ""), "3")),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
    ]
    for key, value in record.items():
        values = value if isinstance(value, list) else [value]
        found.extend((_PREFIX + key.upper(), str(each)) for each in values)
    return found


def from_fields(fields: dict[str, Any]) -> dict[str, Any] | None:
    """A journal entry, as `journalctl -o json` gives it; None: it is no record of ours, or not whole."""
    record: dict[str, Any] = {}
    try:
        for key, kind in KEYS.items():
            value = fields.get(_PREFIX + key.upper())
            if value is None:
                continue
            if kind is list:
                values = value if isinstance(value, list) and not _bytes(value) else [value]
                record[key] = [int(_string(each)) if key in _NUMBERS else _string(each) for each in values]
            else:
                record[key] = kind(_string(value))
    except (TypeError, ValueError):
        return None
    whole = (
        record.get("record") == RECORD
        and record.get("kind") in MESSAGE_IDS
        and all(key in record for key in ("time", "last_time", "count"))
    )
    if whole and record["kind"] == DECISION:
        whole = all(key in record for key in ("verdict", "action", "reason", "uid", "pid", "generation", "command"))
    return record if whole else None


def _bytes(value: Sequence[Any]) -> bool:
    """journalctl writes what is not plain text as a list of bytes."""
    return bool(value) and all(isinstance(each, int) for each in value)


def _string(value: Any) -> str:
    if isinstance(value, list):
        value = bytes(value).decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def harmless(record: dict[str, Any]) -> dict[str, Any]:
    """What comes from a file or the journal may have been written by others."""

    def clean(value: Any) -> Any:
        if isinstance(value, list):
            return [clean(each) for each in value]
        printable = not isinstance(value, str) or value.isprintable()
        return value if printable else events.text(value.encode("utf-8", "surrogateescape"))

    return {key: clean(value) for key, value in record.items()}


# ---- what a generation's document says ----------------------------------------------------------------------------


class Documents:
    """Of the generations that events name; few at a time."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._known: dict[int, dict[str, Any] | None] = {}

    def get(self, generation: int) -> dict[str, Any] | None:
        if self._known.get(generation) is None:
            if len(self._known) > 16:
                self._known.clear()
            self._known[generation] = self._store.load(generation)
        return self._known[generation]

    def labels(self, generation: int, rule: str) -> list[str] | None:
        """What a task must have read for the rule to bind it. None: it binds others, too, or there is no document.
        Which of them the task had read the kernel does not say."""
        stored = self.get(generation)
        resolved = stored["resolved"] if stored else {"rules": (), "subjects": {}}
        for each in resolved["rules"]:
            if events.text(each["name"].encode()) == rule:
                sets: Iterable[Any] = [resolved["subjects"][name].get("has_read") for name in each["subjects"] or ()]
                return sorted({name for names in sets for name in names}) if sets and all(sets) else None
        return None
