# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen on hosts, as plain typed records: from files of observations, or from what audit mode reported. Pure.
Private to this collection."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import re
from typing import Any, Iterable, Mapping, NamedTuple, Tuple

import jsonschema
from ansible_collections.exfil.guard.plugins.module_utils._guard.host import mountinfo
from ansible_collections.exfil.guard.plugins.module_utils._guard.policy import actions, model
from ansible_collections.exfil.guard.plugins.module_utils._guard.resolve import resolver
from ansible_collections.exfil.guard.plugins.plugin_utils._language import render
from ansible_collections.exfil.guard.plugins.plugin_utils._language import schema as _schema
from ansible_collections.exfil.guard.plugins.plugin_utils._language.problems import Problem

Components = Tuple[str, ...]

FOLDER = os.path.dirname(_schema.SCHEMA)
TOLD = 20  # problems of one file; what comes after is counted
AGAIN = "Observe the host again, or fetch the file again"
OTHER_RELEASE = "Observe with the role of this release"
_ESCAPE = re.compile(r"\\(\\|x[0-9a-fA-F]{2})")


class Actor(NamedTuple):
    """Who acts. Names are None where the host knows none. ``executable``: its path; None: it can't be told where."""

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
    """``times`` an actor did this. ``path`` or ``address`` are there when it can be told where the object is.
    ``rule``: that reported it, of the audit trail; empty: it was observed."""

    actor: Actor
    action: str
    object: str  # for people
    path: str | None
    address: str | None  # canonical; IPv4-mapped IPv6 has become IPv4
    port: int
    protocol: str
    times: int
    rule: str = ""
    reason: str = "rule"


class Source(NamedTuple):
    """What is known of one host. ``told``: how long it was observed, for people. ``lost``: how many were not seen,
    by reason. ``cut``: the end of the file is missing. ``looked_for``: of other actions nothing is known. ``audit``:
    it is what rules reported; of what they do not cover nothing is known."""

    host: str
    told: str
    seen: tuple[Seen, ...]
    lost: Mapping[str, int] = {}
    cut: bool = False
    looked_for: frozenset[str] = frozenset(actions.NUMBERS)
    audit: bool = False


# ---- text ---------------------------------------------------------------------------------------------------------


def unescape(text: str) -> str:
    """The name itself. Bytes that are not UTF-8 become surrogates. Raises ValueError."""
    if "\\" not in text:
        text.encode("utf-8")
        return text
    out, end = b"", 0
    for found in _ESCAPE.finditer(text):
        between = text[end : found.start()]
        if "\\" in between:
            break
        out += between.encode("utf-8")
        out += b"\\" if found[1] == "\\" else bytes([int(found[1][1:], 16)])
        end = found.end()
    if "\\" in text[end:]:
        raise ValueError(text)
    return (out + text[end:].encode("utf-8")).decode("utf-8", "surrogateescape")


def placed(path: str | None) -> str | None:
    """A path that says where something is; None for one that was cut or lies on no filesystem."""
    if path is None or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        return None
    return "/" + "/".join(mountinfo.split(path))


# ---- files of observations ----------------------------------------------------------------------------------------


def read(file: str, data: bytes, hosts: Iterable[str], cut: bool = False) -> tuple[Source | None, list[Problem]]:
    """A file of observations, and all that is wrong with it. ``hosts``: the names that its host may have, the first
    being that of the inventory. ``cut``: take what is whole of a file whose end is missing."""
    names = list(hosts)
    reader = _Reader(file)
    lines = data.split(b"\n")
    whole_lines = data.endswith(b"\n")
    if whole_lines:
        lines.pop()
    elif cut and len(lines) > 1:
        lines.pop()  # the line in the middle of which the file ends
    if not data.strip():
        return None, [Problem(file, None, "", "it is empty", "an observation", AGAIN)]
    seen: list[tuple[int, dict[str, Any]]] = []
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    torn = False
    for number, raw in enumerate(lines, 1):
        ended = number == len(lines) and not whole_lines and not cut
        line = reader.line(number, raw, ended)
        if reader.stopped:
            break
        if line is None:
            torn = ended
            continue
        kind = line["kind"]
        if (kind == "start") != (number == 1):
            found = "a second `start` line" if kind == "start" else f"the first line is of the kind `{kind}`"
            reader.problem(number, "$.kind", found, "one `start` line, the first", AGAIN)
        elif kind == "start":
            first = line
            if str(line["host"]) not in names:
                reader.problem(
                    number,
                    "$.host",
                    f"it is of the host '{line['host']}'",
                    " or ".join(map(repr, names)),
                    "Put it where it belongs, or say in `names` what the host calls itself",
                )
        elif last:
            reader.problem(number, "$.kind", f"a line after the `end` line, of the kind `{kind}`", "nothing", AGAIN)
        elif kind == "end":
            last = line
            if line["lines"] != number - 1:
                reader.problem(
                    number,
                    "$.lines",
                    f"{line['lines']} lines should come before it and {number - 1} do",
                    "",
                    f"Some are missing or were added. {AGAIN}",
                )
        elif kind == "seen":
            seen.append((number, line))
    if not last and not cut and not torn and not reader.stopped:
        reader.problem(
            len(lines),
            "",
            "the file was cut off: its last line is not of the kind `end`",
            "",
            f"{AGAIN}, or set `cut` to take what is whole",
        )
    events = [each for each in (reader.seen(number, line) for number, line in seen) if each]
    if not reader.problems and not events:
        reader.problem(
            None,
            "",
            "nothing was seen in it",
            "at least one line of the kind `seen`",
            "Observe while the host is at work, or leave the host out",
        )
    if reader.problems:
        return None, reader.told()
    told = f"from {first['time']} on, for {first['seconds']} seconds, Linux {first['kernel']}" if first else "cut off"
    lost = {reason: count for reason, count in sorted(last.get("lost", {}).items()) if count}
    return Source(names[0], told, merged(events), lost, not last, frozenset(first.get("actions", ()))), []


class _Reader:
    """The lines of one file. A file whose lines are of another version is not read further: one problem, not many."""

    def __init__(self, file: str, schema: str = "observation.schema.json") -> None:
        self.file, self.validator = file, _validator(schema)
        self.problems: list[Problem] = []
        self.stopped = False

    def problem(self, line: int | None, path: str, found: str, expected: str = "", remedy: str = "") -> None:
        self.problems.append(Problem(self.file, line, path, found, expected, remedy))

    def told(self) -> list[Problem]:
        more = len(self.problems) - TOLD
        if more <= 0:
            return self.problems
        rest = Problem(self.file, None, "", f"{more} more problems", "", "Mend those first")
        return [*self.problems[:TOLD], rest]

    def line(self, number: int, raw: bytes, ended: bool) -> dict[str, Any] | None:
        try:
            value = json.loads(
                raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_no_number
            )
        except (ValueError, RecursionError) as error:
            found = "the file ends in the middle of this line" if ended else f"no JSON: {_reason(error)}"
            self.problem(number, "", found, "", f"{AGAIN}, or set `cut` to take what is whole" if ended else AGAIN)
            return None
        if isinstance(value, dict) and value.get("observation", 1) != 1:
            self.problem(number, "$.observation", f"found {value['observation']!r}", "1", OTHER_RELEASE)
            self.stopped = True
            return None
        return value if self.valid(number, value) else None

    def valid(self, number: int, value: Any) -> bool:
        fragment = render.Fragment(self.file, value if isinstance(value, dict) else {}, {(): number})
        before = len(self.problems)
        for error in self.validator.iter_errors(value):
            self.problems.extend(
                each._replace(remedy=each.remedy or AGAIN) for each in _schema.explain(fragment, error)
            )
        return len(self.problems) == before

    def seen(self, number: int, line: Mapping[str, Any]) -> Seen | None:
        try:
            return _seen(line)
        except _Wrong as error:
            self.problem(number, "$." + error.key, f"found {line[error.key]!r}", error.expected, AGAIN)
            return None


class _Wrong(ValueError):
    def __init__(self, key: str, expected: str) -> None:
        self.key, self.expected = key, expected
        super().__init__(key)


@functools.lru_cache(maxsize=None)
def _validator(name: str):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return jsonschema.Draft202012Validator(json.load(file))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice")
        found[key] = value
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no whole number")


def _reason(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)


# ---- one event ----------------------------------------------------------------------------------------------------


def _seen(line: Mapping[str, Any]) -> Seen:
    """From a line of the kind `seen`, or a decision of the audit trail. Raises _Wrong."""
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
            raise _Wrong("address", "a protocol beside it")
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
        raise _Wrong(key, r"text in which what is not printable is written as \xNN, a backslash as \\") from None


def _address(text: str) -> str:
    try:
        if "%" in text:
            raise ValueError(text)
        found = ipaddress.ip_address(text)
    except ValueError:
        raise _Wrong("address", "an IPv4 or IPv6 address") from None
    return str(getattr(found, "ipv4_mapped", None) or found)


def _protocol(text: str) -> str:
    try:
        number = resolver.parse_protocol(text)
    except ValueError:
        raise _Wrong("protocol", "a protocol such as tcp, or its number") from None
    return {6: "tcp", 17: "udp", 136: "udplite", 132: "sctp", 33: "dccp", 1: "icmp", 58: "icmpv6"}.get(
        number, str(number)
    )


def merged(events: Iterable[Seen]) -> tuple[Seen, ...]:
    """The same as one, in an order of its own."""
    counts: dict[Seen, int] = {}
    for event in events:
        key = event._replace(times=0)
        counts[key] = counts.get(key, 0) + event.times
    return tuple(sorted((key._replace(times=times) for key, times in counts.items()), key=repr))


# ---- the audit trail ----------------------------------------------------------------------------------------------


def reported(host: str, trail: Iterable[Any]) -> tuple[Source | None, list[Problem]]:
    """What audit mode reported on a host, from the records of exfil.guard.audit_info. What was denied is not taken
    for something that should pass."""
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
            seen = _of_address_only(record)
            event = reader.seen(number, seen)
            if event:
                events.append(event)
                times += [record["time"], record["last_time"]]
    if not reader.problems and not events:
        reader.problem(
            None,
            "",
            "audit mode reported nothing",
            "at least one record with the verdict audit",
            "Let it run while the host is at work, ask for a longer time, or leave the host out",
        )
    if reader.problems:
        return None, reader.told()
    told = f"reported from {min(times)} to {max(times)}"
    return Source(host, told, merged(events), dict(sorted(lost.items())), audit=True), []


def _of_address_only(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a family without addresses, or where it could not be told, there is none."""
    if str(record.get("address", "")).startswith("vsock:") or "protocol" not in record:
        return {key: value for key, value in record.items() if key != "address"}
    return record


def task(actor: Actor, group: Any) -> model.Task:
    """As the meaning sees an actor. ``group``: the number that stands for a group's name. What an observation does
    not tell (saved and file-system ids) is taken to be as the others."""
    groups = frozenset({actor.gid, *actor.groups} | {group(name) for name in actor.group_names})
    executable = None if actor.executable is None else model.Location(1, mountinfo.split(actor.executable))
    return model.Task(
        users=frozenset({actor.uid, actor.euid}), groups=groups, memberships=groups,
        login_user=model.NO_ID if actor.login_uid is None else actor.login_uid,
        service=actor.cgroup, executable=executable,
    )  # fmt: skip
