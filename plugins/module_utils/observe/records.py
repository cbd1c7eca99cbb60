# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the observer's programs write, as bpf/observer/observe.h has it: decoded, nothing looked up."""

from __future__ import annotations

import struct
from typing import NamedTuple

ACTIONS = ("read", "write", "execute", "connect", "send", "reply", "bind", "listen", "accept", "chdir")
_OPEN, _OPEN_READ, _OPEN_WRITE, _OPEN_EXECUTE = 16, 1, 2, 32  # one open may be for two
LOST = ("subject", "object", "entry", "unit")  # in the order of enum observe_lost
GROUPS = 32
PATH = 1024
WHO = struct.Struct("=3Q6I")
WHAT = struct.Struct("=Q6I16s")
ENTRY = struct.Struct(f"=QII{WHAT.size}s")
TIMES = struct.Struct("=3Q")
CHAIN = struct.Struct(f"=4I{PATH}s")
SUBJECT = struct.Struct(f"=IIQ{WHO.size}s{GROUPS}I{CHAIN.size}s{CHAIN.size}s")
OBJECT = struct.Struct(f"=II{WHAT.size}s{CHAIN.size}s")
_SUBJECT, _OBJECT = 1, 2


class Chain(NamedTuple):
    """Names from the root of the filesystem ``device`` down; upper ones may be missing unless ``whole``."""

    device: int
    names: tuple[bytes, ...]
    whole: bool


class Subject(NamedTuple):
    uid: int
    euid: int
    gid: int
    login_uid: int
    groups: tuple[int, ...]  # the first GROUPS
    executable: Chain
    cgroup: Chain


class What(NamedTuple):
    inode: int
    device: int
    name: int
    family: int  # 0: a file
    protocol: int
    port: int
    pad: int
    address: bytes


class Times(NamedTuple):
    count: int
    first: int  # ns since the host was started
    last: int


def _chain(raw: bytes) -> Chain:
    device, size, whole, _pad, names = CHAIN.unpack(raw)
    return Chain(device, tuple(each for each in reversed(names[:size].split(b"\0")) if each), bool(whole))


def what(raw: bytes) -> What:
    return What(*WHAT.unpack(raw))


def fresh(records: list[bytes], subjects: dict[int, Subject], objects: dict[bytes, Chain]) -> list[bytes]:
    """Puts what a ring buffer told into ``subjects``, by digest, and ``objects``, by the bytes that name one. Gives
    the objects that are new. A record of another layout is no record."""
    new = []
    for record in records:
        kind = struct.unpack_from("=I", record)[0] if len(record) >= 4 else 0
        if kind == _SUBJECT and len(record) >= SUBJECT.size:
            _, count, digest, who, *rest = SUBJECT.unpack_from(record)
            _groups, _cgroup, _inode, _device, _name, uid, euid, gid, login_uid = WHO.unpack(who)
            chains = [_chain(raw) for raw in rest[GROUPS:]]
            subjects[digest] = Subject(uid, euid, gid, login_uid, tuple(rest[: min(count, GROUPS)]), *chains)
        elif kind == _OBJECT and len(record) >= OBJECT.size:
            _, _, named, path = OBJECT.unpack_from(record)
            if named not in objects:
                new.append(named)
            objects[named] = _chain(path)
    return new


def _actions(number: int) -> list[int]:
    """An opened file that is to be executed is not read for what is in it."""
    if number < _OPEN:
        return [number]
    if number & _OPEN_EXECUTE:
        return [ACTIONS.index("execute")]
    return [ACTIONS.index(name) for name, bit in (("read", _OPEN_READ), ("write", _OPEN_WRITE)) if number & bit]


def entries(counted: dict[bytes, bytes]) -> list[tuple[int, int, bytes, Times]]:
    """Subject's digest, action, what names the object, how often."""
    found = []
    for key, value in counted.items():
        digest, action, _pad, named = ENTRY.unpack(key)
        found.extend((digest, each, named, Times(*TIMES.unpack(value))) for each in _actions(action))
    return found
