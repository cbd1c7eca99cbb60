# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was denied, from the pinned ring buffer: read by mmap, decoded, made readable. Taking events makes room for
new ones; looking at them leaves them for the next reader."""

from __future__ import annotations

import ctypes
import datetime
import ipaddress
import json
import mmap
import os
import struct
import time
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from . import actions, layout, lock, reconcile, resolve
from .errors import EnforcerError

LOCK = "/run/lock/exfil-guard-events.lock"
VERDICTS = {0: "allowed", 1: "audit", 2: "denied"}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp", 136: "udplite", 262: "mptcp"}
EVENT = struct.Struct("=7Q14I16s16s96s4I512s256s256s")  # struct guard_event
_BUSY, _DISCARD = 1 << 31, 1 << 30
_NOBODY = 0xFFFFFFFF


class Raw(NamedTuple):
    sequence: int
    time: int
    generation: int
    rule_id: int
    start_time: int
    cgroup_id: int
    inode: int
    device: int
    executable_device: int
    action: int
    verdict: int
    reason: int
    pid: int
    tid: int
    uid: int
    euid: int
    gid: int
    login_uid: int
    family: int
    protocol: int
    port: int
    address: bytes
    comm: bytes
    rule: bytes
    path_size: int
    executable_size: int
    cgroup_size: int
    pad: int
    path: bytes
    executable: bytes
    cgroup: bytes


# ---- the ring buffer ----------------------------------------------------------------------------------------------


def records(data: Any, size: int, consumer: int, producer: int) -> Iterator[Tuple[Optional[bytes], int]]:
    """Each finished record (None: discarded) with the position after it. ``data`` shows the ring twice in a row."""
    while consumer < producer:
        at = consumer & (size - 1)
        length = struct.unpack_from("=I", data, at)[0]
        if length & _BUSY:
            return
        discarded, length = bool(length & _DISCARD), length & ~(_BUSY | _DISCARD)
        consumer += (length + 8 + 7) & ~7
        yield None if discarded else bytes(data[at + 8:at + 8 + length]), consumer


def _drain(fd: int, size: int, take: bool, limit: Optional[int]) -> List[bytes]:
    page = mmap.PAGESIZE
    access = mmap.PROT_READ | mmap.PROT_WRITE if take else mmap.PROT_READ
    found = []
    with mmap.mmap(fd, page, mmap.MAP_SHARED, access, offset=0) as mine, \
            mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page) as theirs:
        consumer = struct.unpack_from("=Q", mine, 0)[0]
        producer = struct.unpack_from("=Q", theirs, 0)[0]
        with memoryview(theirs) as whole, whole[page:] as data:
            for record, after in records(data, size, consumer, producer):
                consumer = after
                if record is not None:
                    found.append(record)
                if limit is not None and len(found) >= limit:
                    break
        if take:
            position = ctypes.c_uint64.from_buffer(mine)
            position.value = consumer  # one store
            del position
    return found


def read(kernel: Any, system: Any, *, take: bool = False, limit: Optional[int] = None) -> List[Dict[str, Any]]:
    """The events that wait, oldest first; ``take`` removes them from the buffer."""
    path = reconcile.map_path(kernel, "events")
    try:
        if take:
            with lock.hold("reading events", LOCK), reconcile.opened(kernel, path) as fd:
                raw = _drain(fd, kernel.map_info(fd).spec.max_entries, True, limit)
        else:
            with reconcile.opened(kernel, path) as fd:  # the kernel maps no read-only descriptor
                raw = _drain(fd, kernel.map_info(fd).spec.max_entries, False, limit)
    except FileNotFoundError as error:
        raise EnforcerError("enforcer not installed", "Run role exfil.guard.enforcer") from error
    except OSError as error:
        raise EnforcerError("cannot read the events: {0}".format(error.strerror), "Run as root") from error
    return decode_all(raw, system, kernel.boottime())


# ---- decoding -----------------------------------------------------------------------------------------------------


def decode_all(raw: Iterable[bytes], system: Any, boottime: int) -> List[Dict[str, Any]]:
    records_ = [record for record in raw if len(record) >= EVENT.size]
    if not records_:
        return []
    mounts = resolve.visible(resolve.parse_mounts(system.mountinfo()))
    started = time.time() - boottime / 1e9
    return [decode(record, mounts, system, started) for record in records_]


def _text(raw: bytes) -> str:
    """Nothing in it can move a terminal's cursor or forge a line."""
    out = []
    for char in raw.decode("utf-8", "surrogateescape"):
        if "\udc80" <= char <= "\udcff":
            out.append("\\x{0:02x}".format(ord(char) - 0xDC00))
        elif char == "\\":
            out.append("\\\\")
        elif char.isprintable():
            out.append(char)
        else:
            out.append("".join("\\x{0:02x}".format(byte) for byte in char.encode("utf-8", "surrogatepass")))
    return "".join(out)


def _components(raw: bytes, size: int, most: int = 24) -> Tuple[List[bytes], bool]:
    """From the top down. True when upper components may be missing: the kernel side stops once half of the room is
    used, or after ``most`` components."""
    used = raw[:min(size, len(raw))]
    parts = [part for part in used.split(b"\0") if part]
    return parts[::-1], len(used) >= len(raw) // 2 or len(parts) >= most


def _path(raw: bytes, size: int, device: int, mounts: Sequence[resolve.Mount]) -> str:
    parts, cut = _components(raw, size)
    names = tuple(part.decode("utf-8", "surrogateescape") for part in parts)
    tail = "/".join(_text(part) for part in parts)
    if cut:
        return "[...]/" + tail
    best = [mount for mount in mounts if mount.device == device and mount.root is not None
            and names[:len(mount.root)] == mount.root]
    if not best:
        return "[device {0}:{1}]/{2}".format(device >> 20, device & 0xFFFFF, tail)
    mount = min(best, key=lambda each: (len(each.root or ()), len(each.point), each.point))
    whole = mount.point + names[len(mount.root or ()):]
    return "/" + "/".join(_text(name.encode("utf-8", "surrogateescape")) for name in whole)


def decode(record: bytes, mounts: Sequence[resolve.Mount], system: Any, started: float = 0.0) -> Dict[str, Any]:
    raw = Raw(*EVENT.unpack_from(record))
    when = datetime.datetime.fromtimestamp(started + raw.time / 1e9, datetime.timezone.utc)
    cgroup, _ = _components(raw.cgroup, raw.cgroup_size, 16)
    unit = next((part for part in reversed(cgroup) if part.endswith((b".service", b".scope", b".socket"))), b"")
    event: Dict[str, Any] = {
        "sequence": raw.sequence, "time": when.isoformat(timespec="milliseconds"), "generation": raw.generation,
        "verdict": VERDICTS.get(raw.verdict, str(raw.verdict)),
        "action": actions.NAMES.get(raw.action, str(raw.action)),
        "reason": layout.REASONS[raw.reason] if raw.reason < len(layout.REASONS) else str(raw.reason),
        "rule": _text(raw.rule.split(b"\0")[0]) or None, "pid": raw.pid, "tid": raw.tid,
        "command": _text(raw.comm.split(b"\0")[0]), "uid": raw.uid, "euid": raw.euid, "gid": raw.gid,
        "user": _name(system, raw.uid), "login_uid": None if raw.login_uid == _NOBODY else raw.login_uid,
        "executable": _path(raw.executable, raw.executable_size, raw.executable_device, mounts)
        if raw.executable_size else None,
        "cgroup": "/" + "/".join(_text(part) for part in cgroup), "unit": _text(unit) or None,
        "process_started": raw.start_time, "cgroup_id": raw.cgroup_id,
    }
    if raw.family:
        packed = raw.address[:4] if raw.family == 2 else raw.address
        event.update(address=str(ipaddress.ip_address(packed)), port=raw.port,
                     protocol=_PROTOCOLS.get(raw.protocol, str(raw.protocol)))
    else:
        event.update(path=_path(raw.path, raw.path_size, raw.device, mounts), inode=raw.inode,
                     device="{0}:{1}".format(raw.device >> 20, raw.device & 0xFFFFF))
    return event


def _name(system: Any, number: int) -> Optional[str]:
    name = system.user_name(number)
    return _text(os.fsencode(name)) if name is not None else None


def to_line(event: Dict[str, Any]) -> str:
    """One line for people."""
    if "path" in event:
        what = event["path"]
    else:
        form = "[{0}]:{1}" if ":" in event["address"] else "{0}:{1}"
        what = form.format(event["address"], event["port"]) + "/" + event["protocol"]
    who = event["user"] or "uid {0}".format(event["uid"])
    by = "rule {0!r}".format(event["rule"]) if event["rule"] else "reason {0}".format(event["reason"])
    if event["rule"] and event["reason"] != "rule":
        by += " ({0})".format(event["reason"])
    return ("{time} {verdict:<6} {action} {what} by {who} ({executable}, pid {pid}{unit}): "
            "{by}, generation {generation}").format(
                what=what, who=who, by=by, unit=", " + event["unit"] if event["unit"] else "",
                **{key: event[key] for key in ("time", "verdict", "action", "pid", "generation")},
                executable=event["executable"] or event["command"])


def to_json_line(event: Dict[str, Any]) -> str:
    return json.dumps(event, sort_keys=True, ensure_ascii=True)
