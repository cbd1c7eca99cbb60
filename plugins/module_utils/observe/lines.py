# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the programs wrote to lines as schemas/observation.schema.json has them. Looks up names, reads no file."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Iterable, NamedTuple, Sequence

from .._guard.audit import events
from .._guard.policy.model import NO_ID
from .._guard.resolve import resolver
from . import records

OBSERVATION = 1  # version of the format
_UNITS = (b".service", b".scope", b".socket")
_OTHERS = ("nfs", "cifs", "smb", "fuse", "virtiofs", "9p", "ceph", "afs", "autofs", "glusterfs", "lustre")


class Listing(NamedTuple):
    entries: tuple[str, ...]
    more: int
    trouble: str | None = None


class Seen(NamedTuple):
    """Everything that was observed. ``paths``: of objects, by what names them; ``lost``: events, by what had no
    room."""

    subjects: dict[int, records.Subject]
    paths: dict[bytes, str]
    entries: list[tuple[int, int, bytes, records.Times]]
    units: dict[bytes, records.Times]  # cgroup, from the root
    listings: dict[bytes, Listing]
    lost: dict[str, int]


class View(NamedTuple):
    """``started``: when the host was, in seconds since 1970. ``mounts``: visible ones."""

    system: Any
    mounts: Sequence[resolver.Mount]
    started: float
    boot: str
    host: str
    kernel: str


def path_of(chain: records.Chain, mounts: Sequence[resolver.Mount]) -> str:
    """As a policy names it, as far as it can be told; empty: there is none."""
    if not chain.names and not chain.device:
        return ""
    names = tuple(os.fsdecode(name) for name in chain.names)
    tail = "/".join(events.text(name) for name in chain.names)
    if not chain.whole:
        return "[...]/" + tail
    best = [
        mount
        for mount in mounts
        if mount.device == chain.device and mount.root is not None and names[: len(mount.root)] == mount.root
    ]
    if not best:
        return f"[device {chain.device >> 20}:{chain.device & 0xFFFFF}]/{tail}"
    mount = min(best, key=lambda each: (len(each.root or ()), len(each.point), each.point))
    whole = mount.point + names[len(mount.root or ()) :]
    return "/" + "/".join(events.text(os.fsencode(name)) for name in whole)


def real_path(chain: records.Chain, mounts: Sequence[resolver.Mount]) -> tuple[bytes | None, str]:
    """Where to find it now, and why not: what lies on a filesystem that another machine or process answers for could
    hold up whoever asks."""
    names = tuple(os.fsdecode(name) for name in chain.names)
    best = (
        [
            mount
            for mount in mounts
            if mount.device == chain.device and mount.root is not None and names[: len(mount.root)] == mount.root
        ]
        if chain.whole
        else []
    )
    if not best:
        return None, "it is not where the host's paths lead"
    mount = min(best, key=lambda each: (len(each.root or ()), len(each.point), each.point))
    if mount.type.startswith(_OTHERS):
        return None, f"a filesystem of the kind {events.text(os.fsencode(mount.type))} is not read"
    return b"/" + os.fsencode("/".join(mount.point + names[len(mount.root or ()) :])), ""


class _Names:
    """Users and groups, each asked for once."""

    def __init__(self, system: Any) -> None:
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


def _subject(who: records.Subject, names: _Names, view: View) -> dict[str, Any]:
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


def _line(kind: str, **parts: Any) -> dict[str, Any]:
    return {
        "observation": OBSERVATION,
        "kind": kind,
        **{key: value for key, value in parts.items() if value is not None},
    }


def lines(
    seen: Seen, view: View, *, actions: Iterable[str], seconds: int, began: float, ended: float
) -> list[dict[str, Any]]:
    """``began``, ``ended``: seconds since 1970."""
    names = _Names(view.system)
    lost = dict(seen.lost)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    first_listed: dict[bytes, tuple[int, records.Subject]] = {}
    for digest, action, named, times in sorted(seen.entries, key=lambda each: each[3].first):
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
        if key in found:
            found[key]["count"] += line["count"]
            found[key]["last_time"] = max(found[key]["last_time"], line["last_time"])
        else:
            found[key] = line
        if named in seen.listings and named not in first_listed:
            first_listed[named] = (times.first, who)
    whole = [
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
    whole += found.values()
    for named, (first, who) in sorted(first_listed.items(), key=lambda each: each[1][0]):
        listing, login = seen.listings[named], None if who.login_uid == NO_ID else who.login_uid
        whole.append(
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
    whole += _units(seen.units, list(found.values()), view)
    whole.append(_line("end", time=events.instant(ended), lines=len(whole), lost=dict(sorted(lost.items()))))
    return whole


def _units(units: dict[bytes, records.Times], seen: list[dict[str, Any]], view: View) -> list[dict[str, Any]]:
    """A unit's program is the first that was executed in its cgroup, and its user who then was that program."""
    merged: dict[str, records.Times] = {}
    for cgroup, times in units.items():
        name = cgroup.rpartition(b"/")[2]
        if not name.endswith(_UNITS):
            continue
        before = merged.get(events.text(name), records.Times(0, times.first, times.last))
        merged[events.text(name)] = records.Times(
            before.count + times.count, min(before.first, times.first), max(before.last, times.last)
        )
    found = []
    for name, times in sorted(merged.items(), key=lambda each: each[1].first):
        own = [line for line in seen if line.get("unit") == name]
        program = next((line["path"] for line in own if line["action"] == "execute"), None)
        user = next((line for line in own if program and line.get("executable") == program), {})
        found.append(
            _line(
                "unit", unit=name, executable=program, user=user.get("user"), uid=user.get("uid"), **_when(times, view)
            )
        )
    return found


def to_text(found: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(line, sort_keys=True, ensure_ascii=True) + "\n" for line in found)
