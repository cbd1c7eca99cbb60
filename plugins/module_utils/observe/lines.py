# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts the programs' records to lines in the format of schemas/observation.schema.json.

It looks up names, and reads no files."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Iterable, NamedTuple, Protocol, Sequence

from .._guard.audit import events
from .._guard.host.mountinfo import Mount
from .._guard.policy.model import NO_ID
from . import records

OBSERVATION = 1  # version of the format
_UNITS = (b".service", b".scope", b".socket")
_REMOTE = ("nfs", "cifs", "smb", "fuse", "virtiofs", "9p", "ceph", "afs", "autofs", "glusterfs", "lustre")


class Names(events.Names, Protocol):
    """Names of users and groups; host.system.System implements it."""

    def group_name(self, number: int) -> str | None:
        """None: no group has this id."""


class Listing(NamedTuple):
    """The names in a directory. ``more``: how many were not listed; ``trouble``: why it could not be read."""

    entries: tuple[str, ...]
    more: int
    trouble: str | None = None


class Seen(NamedTuple):
    """Everything that was observed. ``paths`` and ``listings``: by the bytes of a What. ``lost``: the number of records
    that did not fit, by kind."""

    subjects: dict[int, records.Subject]
    paths: dict[bytes, str]
    entries: list[tuple[int, int, bytes, records.Times]]
    units: dict[bytes, records.Times]  # cgroup, from the root
    listings: dict[bytes, Listing]
    lost: dict[str, int]


class View(NamedTuple):
    """The observed host. ``started``: when it booted, in seconds since 1970. ``mounts``: the visible ones."""

    system: Names
    mounts: Sequence[Mount]
    started: float
    boot: str
    host: str
    kernel: str


def path_of(chain: records.Chain, mounts: Sequence[Mount]) -> str:
    """The path as a policy names it, as far as it is known. Empty if there is none."""
    if not chain.names and not chain.device:
        return ""
    tail = "/".join(events.text(name) for name in chain.names)
    if not chain.whole:
        return "[...]/" + tail
    mount = _mount_of(chain, mounts)
    if mount is None:
        return f"[device {chain.device >> 20}:{chain.device & 0xFFFFF}]/{tail}"
    return "/" + "/".join(events.text(os.fsencode(name)) for name in _components(chain, mount))


def real_path(chain: records.Chain, mounts: Sequence[Mount]) -> tuple[bytes | None, str]:
    """The path to open, or None and the reason.

    Remote filesystems and those of another process are not read, because they may block the reader."""
    mount = _mount_of(chain, mounts) if chain.whole else None
    if mount is None:
        return None, "it is not where the host's paths lead"
    if mount.type.startswith(_REMOTE):
        return None, f"a filesystem of the kind {events.text(os.fsencode(mount.type))} is not read"
    return b"/" + os.fsencode("/".join(_components(chain, mount))), ""


def _mount_of(chain: records.Chain, mounts: Sequence[Mount]) -> Mount | None:
    """The mount with the shortest root and mount point that shows the object."""
    names = tuple(os.fsdecode(name) for name in chain.names)
    candidates = [
        mount
        for mount in mounts
        if mount.device == chain.device and mount.root is not None and names[: len(mount.root)] == mount.root
    ]
    return min(candidates, key=lambda mount: (len(mount.root or ()), len(mount.point), mount.point), default=None)


def _components(chain: records.Chain, mount: Mount) -> tuple[str, ...]:
    return mount.point + tuple(os.fsdecode(name) for name in chain.names)[len(mount.root or ()) :]


class _NameCache:
    """Names of users and groups, each looked up once."""

    def __init__(self, system: Names) -> None:
        self._system = system
        self._users: dict[int, str | None] = {}
        self._groups: dict[int, str | None] = {}

    def user(self, number: int) -> str | None:
        if number not in self._users:
            self._users[number] = events.user_name(self._system, number)
        return self._users[number]

    def group(self, number: int) -> str | None:
        if number not in self._groups:
            name = self._system.group_name(number)
            self._groups[number] = events.text(os.fsencode(name)) if name is not None else None
        return self._groups[number]


def _subject(who: records.Subject, names: _NameCache, view: View) -> dict[str, Any]:
    login = None if who.login_uid == NO_ID else who.login_uid
    unit = next((part for part in reversed(who.cgroup.names) if part.endswith(_UNITS)), b"")
    groups = sorted({name for name in map(names.group, (who.gid, *who.groups)) if name})
    return {
        "user": names.user(who.uid),
        "uid": who.uid,
        "effective_user": names.user(who.euid),
        "euid": who.euid,
        "login_user": None if login is None else names.user(login),
        "login_uid": login,
        "gid": who.gid,
        "groups": sorted(who.groups),
        "group_names": groups or None,
        "unit": events.text(unit) or None,
        "cgroup": ("/" if who.cgroup.whole else "[...]/") + "/".join(events.text(part) for part in who.cgroup.names),
        "executable": path_of(who.executable, view.mounts) or None,
    }


def _address(raw: records.What) -> dict[str, Any]:
    text = socket.inet_ntop(raw.family, raw.address[:4] if raw.family == socket.AF_INET else raw.address)
    return {"address": text, "port": raw.port, "protocol": events.protocol_name(raw.protocol)}


def _when(times: records.Times, view: View) -> dict[str, Any]:
    return {
        "count": times.count,
        "time": events.instant(view.started + times.first / 1e9),
        "last_time": events.instant(view.started + times.last / 1e9),
    }


def _line(kind: str, **parts: object) -> dict[str, Any]:
    return {
        "observation": OBSERVATION,
        "kind": kind,
        **{key: value for key, value in parts.items() if value is not None},
    }


def lines(
    seen: Seen, view: View, *, actions: Iterable[str], seconds: int, began: float, ended: float
) -> list[dict[str, Any]]:
    """All lines of the file. ``began``, ``ended``: seconds since 1970."""
    names = _NameCache(view.system)
    lost = dict(seen.lost)
    observed, first_listed = _observed(seen, view, names, lost)
    result = [
        _line(
            "start",
            time=events.instant(began),
            host=view.host,
            boot=view.boot,
            kernel=view.kernel,
            seconds=seconds,
            actions=list(actions),
        )
    ]
    result += observed
    for named, (first, who) in sorted(first_listed.items(), key=lambda item: item[1][0]):
        listing, login = seen.listings[named], None if who.login_uid == NO_ID else who.login_uid
        result.append(
            _line(
                "listing",
                time=events.instant(view.started + first / 1e9),
                path=seen.paths[named],
                uid=who.uid,
                user=names.user(who.uid),
                login_uid=login,
                login_user=None if login is None else names.user(login),
                entries=list(listing.entries),
                more=listing.more,
                trouble=listing.trouble,
            )
        )
    result += _units(seen.units, observed, view)
    result.append(_line("end", time=events.instant(ended), lines=len(result), lost=dict(sorted(lost.items()))))
    return result


def _observed(
    seen: Seen, view: View, names: _NameCache, lost: dict[str, int]
) -> tuple[list[dict[str, Any]], dict[bytes, tuple[int, records.Subject]]]:
    """The lines of the actions, and by listed directory when it was first observed and by whom.

    Adds to ``lost`` the actions whose subject or object is unknown."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {}
    first_listed: dict[bytes, tuple[int, records.Subject]] = {}
    for digest, action, named, times in sorted(seen.entries, key=lambda entry: entry[3].first):
        who, raw = seen.subjects.get(digest), records.what(named)
        if who is None:
            lost["subject"] = lost.get("subject", 0) + times.count
            continue
        if raw.family:
            target = _address(raw)
        elif named in seen.paths:
            target = {"path": seen.paths[named]}
        else:
            lost["object"] = lost.get("object", 0) + times.count
            continue
        line = _line(
            "seen",
            action=records.ACTIONS[action],
            **_subject(who, names, view),
            object=events.Endpoint(**target).text() if raw.family else target["path"],
            **target,
            **_when(times, view),
        )
        key = tuple(json.dumps(line.get(part)) for part in line if part not in ("count", "time", "last_time"))
        if key in merged:
            merged[key]["count"] += line["count"]
            merged[key]["last_time"] = max(merged[key]["last_time"], line["last_time"])
        else:
            merged[key] = line
        if named in seen.listings and named not in first_listed:
            first_listed[named] = (times.first, who)
    return list(merged.values()), first_listed


def _units(units: dict[bytes, records.Times], seen: list[dict[str, Any]], view: View) -> list[dict[str, Any]]:
    """The lines of the units. A unit's program is the first one executed in its cgroup; its user is the first that
    acted with that program."""
    merged: dict[str, records.Times] = {}
    for cgroup, times in units.items():
        last = cgroup.rpartition(b"/")[2]
        if not last.endswith(_UNITS):
            continue
        before = merged.get(events.text(last), records.Times(0, times.first, times.last))
        merged[events.text(last)] = records.Times(
            before.count + times.count, min(before.first, times.first), max(before.last, times.last)
        )
    result = []
    for name, times in sorted(merged.items(), key=lambda item: item[1].first):
        own = [line for line in seen if line.get("unit") == name]
        program = next((line["path"] for line in own if line["action"] == "execute"), None)
        user = next((line for line in own if program and line.get("executable") == program), {})
        result.append(
            _line(
                "unit", unit=name, executable=program, user=user.get("user"), uid=user.get("uid"), **_when(times, view)
            )
        )
    return result


def to_text(lines_: Iterable[dict[str, Any]]) -> str:
    """The lines as text, one JSON object a line."""
    return "".join(json.dumps(line, sort_keys=True, ensure_ascii=True) + "\n" for line in lines_)
