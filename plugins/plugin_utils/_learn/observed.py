# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the events observed on hosts as typed records, from files of observations or from audit records. Private to
this collection."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import re
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Tuple

import jsonschema
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import mountinfo
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import render
from ansible_collections.exfil.guard.plugins.plugin_utils._language import schema as _schema
from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import Problem

Components = Tuple[str, ...]

FOLDER = os.path.dirname(_schema.SCHEMA)
MAX_PROBLEMS = 20  # of one file; the number of further ones is reported
AGAIN = "Observe the host again, or fetch the file again"
OTHER_RELEASE = "Observe with the role of this release"
_ESCAPE = re.compile(r"\\(\\|x[0-9a-fA-F]{2})")


class Actor(NamedTuple):
    """The subject of an event. A name is None if the host has none. ``executable``: a path, None if it is unknown."""

    user: str | None
    uid: int
    effective_user: str | None
    euid: int
    login_user: str | None
    login_uid: int | None
    gid: int
    groups: tuple[int, ...]
    group_names: tuple[str, ...]
    cgroup: Components | None
    executable: str | None


class Seen(NamedTuple):
    """Equal events and their number. ``path`` and ``address`` are None if they do not apply or are unknown. ``rule``:
    the rule in audit mode that reported the events, empty for observed events."""

    actor: Actor
    action: str
    object: str  # as readable text
    path: str | None
    address: str | None  # canonical; an IPv4-mapped IPv6 address is an IPv4 address
    port: int
    protocol: str
    times: int
    rule: str = ""
    reason: str = "rule"


class Source(NamedTuple):
    """The events of one host. ``span``: the time of the observation as text. ``lost``: numbers of lost events by
    reason. ``cut``: the end of the file is missing. ``observed_actions``: nothing is known about other actions.
    ``audit``: the events are from audit records, so nothing is known about what no rule covers."""

    host: str
    span: str
    seen: tuple[Seen, ...]
    lost: Mapping[str, int] = {}
    cut: bool = False
    observed_actions: frozenset[str] = frozenset(actions.NUMBERS)
    audit: bool = False


# ---- text ---------------------------------------------------------------------------------------------------------


def unescape(text: str) -> str:
    """The name without escapes. Bytes that are not UTF-8 become surrogates. Raises ValueError."""
    if "\\" not in text:
        text.encode("utf-8")
        return text
    out, end = b"", 0
    for escape in _ESCAPE.finditer(text):
        between = text[end : escape.start()]
        if "\\" in between:
            break
        out += between.encode("utf-8")
        out += b"\\" if escape[1] == "\\" else bytes([int(escape[1][1:], 16)])
        end = escape.end()
    if "\\" in text[end:]:
        raise ValueError(text)
    return (out + text[end:].encode("utf-8")).decode("utf-8", "surrogateescape")


def placed(path: str | None) -> str | None:
    """The normalized path. None if it is truncated or on no filesystem."""
    if path is None or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        return None
    return "/" + "/".join(mountinfo.split(path))


# ---- files of observations ----------------------------------------------------------------------------------------


def read(file: str, data: bytes, hosts: Iterable[str], cut: bool = False) -> tuple[Source | None, list[Problem]]:
    """The events of a file of observations, or its problems. ``hosts``: the names that its host may have, first the one
    of the inventory. ``cut``: accept the complete lines of a truncated file."""
    if not data.strip():
        return None, [Problem(file, None, "", "it is empty", "an observation", AGAIN)]
    reader = _Reader(file)
    observation = _Observation(reader, list(hosts))
    lines = data.split(b"\n")
    ends_with_newline = data.endswith(b"\n")
    if ends_with_newline or (cut and len(lines) > 1):
        lines.pop()  # after a newline it is empty, otherwise it is incomplete
    torn = False
    for number, raw in enumerate(lines, 1):
        incomplete = number == len(lines) and not ends_with_newline and not cut
        line = reader.line(number, raw, incomplete)
        if reader.stopped:
            break
        if line is None:
            torn = incomplete
        else:
            observation.add(number, line)
    if not observation.last and not cut and not torn and not reader.stopped:
        found = "the file is truncated: its last line is not of the kind `end`"
        reader.problem(len(lines), "", found, "", f"{AGAIN}, or set `cut` to accept the complete lines")
    events = [event for event in (reader.seen(number, line) for number, line in observation.seen) if event]
    if not reader.problems and not events:
        expected = "at least one line of the kind `seen`"
        reader.problem(None, "", "it has no events", expected, "Observe while the host is in use, or exclude the host")
    if reader.problems:
        return None, reader.reported()
    return observation.source(events), []


class _Observation:
    """The lines of a file by their kind: one `start` line, `seen` lines and an `end` line."""

    def __init__(self, reader: _Reader, names: list[str]) -> None:
        self.reader, self.names = reader, names
        self.first: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def add(self, number: int, line: dict[str, Any]) -> None:
        """Adds a valid line, if it is at an allowed place."""
        kind = line["kind"]
        if (kind == "start") != (number == 1):
            found = "a second `start` line" if kind == "start" else f"the first line is of the kind `{kind}`"
            self.reader.problem(number, "$.kind", found, "one `start` line, the first", AGAIN)
        elif kind == "start":
            self.first = line
            self._check_host(number, line)
        elif self.last:
            found = f"a line of the kind `{kind}` after the `end` line"
            self.reader.problem(number, "$.kind", found, "nothing", AGAIN)
        elif kind == "end":
            self.last = line
            if line["lines"] != number - 1:
                found = f"{line['lines']} lines are expected before it and {number - 1} were read"
                self.reader.problem(number, "$.lines", found, "", f"Lines are missing or were added. {AGAIN}")
        elif kind == "seen":
            self.seen.append((number, line))

    def _check_host(self, number: int, line: dict[str, Any]) -> None:
        if str(line["host"]) not in self.names:
            self.reader.problem(
                number,
                "$.host",
                f"it is from host '{line['host']}'",
                " or ".join(map(repr, self.names)),
                "Move the file, or set the host's own name in `names`",
            )

    def source(self, events: list[Seen]) -> Source:
        """The events and what is known about their observation."""
        first = self.first
        span = "truncated"
        if first:
            span = f"from {first['time']} on, for {first['seconds']} seconds, Linux {first['kernel']}"
        lost = {reason: count for reason, count in sorted(self.last.get("lost", {}).items()) if count}
        return Source(self.names[0], span, merged(events), lost, not self.last, frozenset(first.get("actions", ())))


class _Reader:
    """Reads the lines of one file and collects its problems. Stops at a line of another version."""

    def __init__(self, file: str, schema: str = "observation.schema.json") -> None:
        self.file, self.validator = file, _validator(schema)
        self.problems: list[Problem] = []
        self.stopped = False

    def problem(self, line: int | None, path: str, found: str, expected: str = "", remedy: str = "") -> None:
        """Adds a problem."""
        self.problems.append(Problem(self.file, line, path, found, expected, remedy))

    def reported(self) -> list[Problem]:
        """The first problems, and the number of the others."""
        more = len(self.problems) - MAX_PROBLEMS
        if more <= 0:
            return self.problems
        rest = Problem(self.file, None, "", f"{more} more problems", "", "Correct the problems above first")
        return [*self.problems[:MAX_PROBLEMS], rest]

    def line(self, number: int, raw: bytes, incomplete: bool) -> dict[str, Any] | None:
        """The data of a line, None if it has problems. ``incomplete``: the line has no newline."""
        try:
            value = json.loads(
                raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_not_integer, parse_float=_not_integer
            )
        except (ValueError, RecursionError) as error:
            found = "the file ends in the middle of this line" if incomplete else f"not JSON: {_reason(error)}"
            remedy = f"{AGAIN}, or set `cut` to accept the complete lines" if incomplete else AGAIN
            self.problem(number, "", found, "", remedy)
            return None
        if isinstance(value, dict) and value.get("observation", 1) != 1:
            self.problem(number, "$.observation", f"found {value['observation']!r}", "1", OTHER_RELEASE)
            self.stopped = True
            return None
        return value if self.valid(number, value) else None

    def valid(self, number: int, value: object) -> bool:
        """Whether the value is valid by the schema. Adds its problems."""
        fragment = render.Fragment(self.file, value if isinstance(value, dict) else {}, {(): number})
        before = len(self.problems)
        for error in self.validator.iter_errors(value):
            self.problems.extend(
                problem._replace(remedy=problem.remedy or AGAIN) for problem in _schema.explain(fragment, error)
            )
        return len(self.problems) == before

    def seen(self, number: int, line: Mapping[str, Any]) -> Seen | None:
        """The event of a line, None if it has problems."""
        try:
            return _seen(line)
        except _InvalidValueError as error:
            self.problem(number, "$." + error.key, f"found {line[error.key]!r}", error.expected, AGAIN)
            return None


class _InvalidValueError(ValueError):
    """A value of a line is invalid."""

    def __init__(self, key: str, expected: str) -> None:
        self.key, self.expected = key, expected
        super().__init__(key)


@functools.lru_cache(maxsize=None)
def _validator(name: str) -> jsonschema.Draft202012Validator:
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return jsonschema.Draft202012Validator(json.load(file))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"duplicate key {key!r}")
        mapping[key] = value
    return mapping


def _not_integer(text: str) -> None:
    raise ValueError(f"{text} is not a whole number")


def _reason(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


# ---- one event ----------------------------------------------------------------------------------------------------


def _seen(line: Mapping[str, Any]) -> Seen:
    """The event of a line of the kind `seen`, or of an audit record. Raises _InvalidValueError."""
    names = {key: _name(line, key) for key in ("user", "effective_user", "login_user", "cgroup", "executable", "path")}
    groups = tuple(_unescaped(name, "group_names") for name in line.get("group_names", ()))
    cgroup = names["cgroup"]
    actor = Actor(
        names["user"], line["uid"], names["effective_user"], line["euid"], names["login_user"], line.get("login_uid"),
        line["gid"], tuple(sorted(set(line.get("groups") or ()))), tuple(sorted(set(groups))),
        None if cgroup is None else mountinfo.split(cgroup), placed(names["executable"]),
    )  # fmt: skip
    action, address, protocol = line["action"], None, str(line.get("protocol", ""))
    if action in actions.NETWORK and "address" in line:
        address = _address(str(line["address"]))
        if not protocol:
            raise _InvalidValueError("address", "also a protocol")
        protocol = _protocol(protocol)
    path = placed(names["path"]) if action in (*actions.RESOURCES, "chdir") else None
    return Seen(
        actor,
        action,
        str(line.get("object", "")),
        path,
        address,
        int(line.get("port", 0)),
        protocol,
        line["count"],
        str(line.get("rule", "")) if "verdict" in line else "",
        str(line.get("reason", "rule")),
    )


def _name(line: Mapping[str, Any], key: str) -> str | None:
    return None if line.get(key) is None else _unescaped(line[key], key)


def _unescaped(text: str, key: str) -> str:
    try:
        return unescape(text)
    except ValueError:
        raise _InvalidValueError(key, r"text with \xNN for unprintable characters and \\ for a backslash") from None


def _address(text: str) -> str:
    try:
        if "%" in text:
            raise ValueError(text)
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _InvalidValueError("address", "an IPv4 or IPv6 address") from None
    return str(getattr(address, "ipv4_mapped", None) or address)


def _protocol(text: str) -> str:
    try:
        number = resolver.parse_protocol(text)
    except ValueError:
        raise _InvalidValueError("protocol", "a protocol such as tcp, or its number") from None
    return {6: "tcp", 17: "udp", 136: "udplite", 132: "sctp", 33: "dccp", 1: "icmp", 58: "icmpv6"}.get(
        number, str(number)
    )


def merged(events: Iterable[Seen]) -> tuple[Seen, ...]:
    """Equal events merged into one, in a canonical order."""
    counts: dict[Seen, int] = {}
    for event in events:
        key = event._replace(times=0)
        counts[key] = counts.get(key, 0) + event.times
    return tuple(sorted((key._replace(times=times) for key, times in counts.items()), key=repr))


# ---- the audit trail ----------------------------------------------------------------------------------------------


def reported(host: str, trail: Iterable[Any]) -> tuple[Source | None, list[Problem]]:
    """The events that rules in audit mode reported, from the records of exfil.guard.audit_info, or the problems of the
    records. Denied events are ignored, because they are not meant to be allowed."""
    reader = _Reader(f"audit trail of {host}", "audit-record.schema.json")
    events: list[Seen] = []
    lost: dict[str, int] = {}
    times: list[str] = []
    for number, record in enumerate(trail, 1):
        if not reader.valid(number, record):
            continue
        if record["kind"] != "decision":
            lost[record["kind"]] = lost.get(record["kind"], 0) + record["count"]
        elif record["verdict"] == "audit":
            event = reader.seen(number, _without_other_address(record))
            if event:
                events.append(event)
                times += [record["time"], record["last_time"]]
    if not reader.problems and not events:
        reader.problem(
            None,
            "",
            "there are no events of audit mode",
            "at least one record with the verdict audit",
            "Use audit mode while the host is in use, request a longer time, or exclude the host",
        )
    if reader.problems:
        return None, reader.reported()
    span = f"reported from {min(times)} to {max(times)}"
    return Source(host, span, merged(events), dict(sorted(lost.items())), audit=True), []


def _without_other_address(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record, without an address that is not an IP address."""
    if str(record.get("address", "")).startswith("vsock:") or "protocol" not in record:
        return {key: value for key, value in record.items() if key != "address"}
    return record


def task(actor: Actor, group: Callable[[str], int]) -> model.Task:
    """The actor as a task of the semantics. ``group``: the number of a group's name. Observations have no saved and
    filesystem IDs, which are assumed to equal the others."""
    groups = frozenset({actor.gid, *actor.groups} | {group(name) for name in actor.group_names})
    executable = None if actor.executable is None else model.Location(1, mountinfo.split(actor.executable))
    return model.Task(
        users=frozenset({actor.uid, actor.euid}), groups=groups, memberships=groups,
        login_user=model.NO_ID if actor.login_uid is None else actor.login_uid,
        service=actor.cgroup, executable=executable,
    )  # fmt: skip
