# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decodes what the observer's programs record, by the structures of bpf/observer/observe.h."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .._guard.layout import Structure

ACTIONS = ("read", "write", "execute", "connect", "send", "reply", "bind", "listen", "accept", "chdir")
_OPEN, _OPEN_READ, _OPEN_WRITE, _OPEN_EXECUTE = 16, 1, 2, 32  # one open may be for two
LOST = ("subject", "object", "entry", "unit")  # in the order of enum observe_lost
GROUPS = 32
PATH = 1024
UNIT_PATH = 256
_SUBJECT, _OBJECT = 1, 2


class Chain(NamedTuple):
    """Names from the root of the filesystem ``device`` down; upper ones may be missing unless ``whole``."""

    device: int
    names: tuple[bytes, ...]
    whole: bool


class Subject(NamedTuple):
    """A task's identity, decoded."""

    uid: int
    euid: int
    gid: int
    login_uid: int
    groups: tuple[int, ...]  # the first GROUPS
    executable: Chain
    cgroup: Chain


class Who(NamedTuple):
    """What distinguishes one subject from another in the kernel; ``groups`` and ``name`` are digests."""

    groups: int
    cgroup: int
    inode: int
    device: int
    name: int
    uid: int
    euid: int
    gid: int
    login_uid: int


class What(NamedTuple):
    """A file, or an endpoint; ``name`` is a hash."""

    inode: int
    device: int
    name: int
    family: int  # 0: a file
    protocol: int
    port: int
    pad: int
    address: bytes


class Entry(NamedTuple):
    """The key of what is counted: the digest of a subject, an action, the bytes of a What."""

    subject: int
    action: int
    pad: int
    what: bytes


class Times(NamedTuple):
    """How often, and when: ns since the host was started."""

    count: int  # type: ignore[assignment]  # a tuple has a method of that name, which nothing calls here
    first: int
    last: int


class RawChain(NamedTuple):
    """Names from the last component up, each with its NUL; ``size`` bytes of them are used."""

    device: int
    size: int
    whole: int
    pad: int
    names: bytes


class RawSubject(NamedTuple):
    """A subject as the ring buffer has it; ``who``, ``executable`` and ``cgroup`` are bytes of other structures."""

    kind: int
    group_count: int  # may be more than GROUPS
    subject: int
    who: bytes
    groups: tuple[int, ...]
    executable: bytes
    cgroup: bytes


class RawObject(NamedTuple):
    """An object as the ring buffer has it; ``what`` and ``path`` are bytes of other structures."""

    kind: int
    pad: int
    what: bytes
    path: bytes


class Unit(NamedTuple):
    """The key of a unit that was started: the path of its cgroup, with a NUL."""

    path: bytes


WHO = Structure(
    "who",
    Who,
    {
        "groups": "Q",
        "cgroup": "Q",
        "inode": "Q",
        "device": "I",
        "name": "I",
        "uid": "I",
        "euid": "I",
        "gid": "I",
        "login_uid": "I",
    },
)
WHAT = Structure(
    "what",
    What,
    {
        "inode": "Q",
        "device": "I",
        "name": "I",
        "family": "I",
        "protocol": "I",
        "port": "I",
        "pad": "I",
        "address": "16s",
    },
)
ENTRY = Structure("entry", Entry, {"subject": "Q", "action": "I", "pad": "I", "what": f"{WHAT.size}s"})
TIMES = Structure("times", Times, {"count": "Q", "first": "Q", "last": "Q"})
CHAIN = Structure("chain", RawChain, {"device": "I", "size": "I", "whole": "I", "pad": "I", "names": f"{PATH}s"})
SUBJECT = Structure(
    "subject",
    RawSubject,
    {
        "kind": "I",
        "group_count": "I",
        "subject": "Q",
        "who": f"{WHO.size}s",
        "groups": f"{GROUPS}I",
        "executable": f"{CHAIN.size}s",
        "cgroup": f"{CHAIN.size}s",
    },
)
OBJECT = Structure("object", RawObject, {"kind": "I", "pad": "I", "what": f"{WHAT.size}s", "path": f"{CHAIN.size}s"})
UNIT = Structure("unit", Unit, {"path": f"{UNIT_PATH}s"})

# every structure of bpf/observer/observe.h, by its name without observe_
STRUCTURES = {structure.name: structure for structure in (WHO, WHAT, ENTRY, TIMES, CHAIN, SUBJECT, OBJECT, UNIT)}


def _chain(raw: bytes) -> Chain:
    chain = CHAIN.unpack(raw)
    names = reversed(chain.names[: chain.size].split(b"\0"))
    return Chain(chain.device, tuple(name for name in names if name), bool(chain.whole))


def what(raw: bytes) -> What:
    """The object that these bytes describe."""
    return WHAT.unpack(raw)


def fresh(records: list[bytes], subjects: dict[int, Subject], objects: dict[bytes, Chain]) -> list[bytes]:
    """Adds the records of a ring buffer to ``subjects``, by digest, and to ``objects``, by the bytes of a What.

    Returns the bytes of the objects that are new. Records of another layout are skipped."""
    new: list[bytes] = []
    for record in records:
        kind = struct.unpack_from("=I", record)[0] if len(record) >= 4 else 0
        if kind == _SUBJECT and len(record) >= SUBJECT.size:
            raw = SUBJECT.unpack(record[: SUBJECT.size])
            who = WHO.unpack(raw.who)
            subjects[raw.subject] = Subject(
                who.uid,
                who.euid,
                who.gid,
                who.login_uid,
                raw.groups[: raw.group_count],
                _chain(raw.executable),
                _chain(raw.cgroup),
            )
        elif kind == _OBJECT and len(record) >= OBJECT.size:
            observed = OBJECT.unpack(record[: OBJECT.size])
            if observed.what not in objects:
                new.append(observed.what)
            objects[observed.what] = _chain(observed.path)
    return new


def _actions(number: int) -> list[int]:
    """The actions of one recorded action; opening a file for execution does not count as reading it."""
    if number < _OPEN:
        return [number]
    if number & _OPEN_EXECUTE:
        return [ACTIONS.index("execute")]
    return [ACTIONS.index(name) for name, bit in (("read", _OPEN_READ), ("write", _OPEN_WRITE)) if number & bit]


def entries(counted: dict[bytes, bytes]) -> list[tuple[int, int, bytes, Times]]:
    """The digest of the subject, the action, the bytes of the object, and how often, of each entry and action."""
    result: list[tuple[int, int, bytes, Times]] = []
    for key, value in counted.items():
        entry, times = ENTRY.unpack(key), TIMES.unpack(value)
        result.extend((entry.subject, action, entry.what, times) for action in _actions(entry.action))
    return result
