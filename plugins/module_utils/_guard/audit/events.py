# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was denied, from the pinned ring buffer: read by mmap, decoded, made readable. Taking events makes room for
new ones; looking at them leaves them for the next reader."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import time
from typing import Any, Iterable, Sequence

from .. import layout
from ..errors import EnforcerError
from ..host import lock, mountinfo
from ..kernel import pins
from ..policy import actions
from ..policy.model import NO_ID

LOCK = "/run/lock/exfil-guard-events.lock"  # of who takes events
COLLECTOR = "audit"  # what the unit calls itself there
VERDICTS = {0: "allowed", 1: "audit", 2: "denied"}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp", 136: "udplite", 262: "mptcp"}
_IPV4, _IPV6, _VSOCK = 2, 10, 40
UNREADABLE = "unreadable"  # in place of a verdict
KEYS = (
    "sequence",
    "time",
    "generation",
    "verdict",
    "action",
    "reason",
    "rule",
    "pid",
    "tid",
    "command",
    "uid",
    "euid",
    "gid",
    "user",
    "login_uid",
    "executable",
    "cgroup",
    "unit",
    "process_started",
    "cgroup_id",
)  # of every event


# ---- reading ------------------------------------------------------------------------------------------------------


def read(kernel: Any, system: Any, *, take: bool = False, limit: int | None = None) -> list[dict[str, Any]]:
    """The events that wait, oldest first; ``take`` removes them from the buffer."""
    path = pins.map_path(kernel, "events")
    try:
        if not take:
            raw = _read(kernel, path, False, limit)  # the kernel maps no read-only descriptor
        elif lock.holder(LOCK).endswith(COLLECTOR):
            raise EnforcerError(
                "exfil-guard-audit.service takes the events",
                "Read them there: exfil-guard watch, or journalctl -t exfil-guard",
            )
        else:
            with lock.hold("reading events", LOCK):
                raw = _read(kernel, path, True, limit)
    except FileNotFoundError as error:
        raise EnforcerError("enforcer not installed", "Run role exfil.guard.enforcer") from error
    except OSError as error:
        raise EnforcerError(f"cannot read the events: {error.strerror}", "Run as root") from error
    return decode_all(raw, system, kernel.boottime())


def _read(kernel: Any, path: str, take: bool, limit: int | None) -> list[bytes]:
    with pins.opened(kernel, path) as fd, kernel.ring(fd, take) as buffer:
        batch = buffer.peek(limit)
        if take:
            buffer.advance(batch.end)
        return batch.records


# ---- decoding -----------------------------------------------------------------------------------------------------


def decode_all(raw: Iterable[bytes], system: Any, boottime: int) -> list[dict[str, Any]]:
    """A record of another layout is told, and nothing in it is taken for anything."""
    found = list(raw)
    if not found:
        return []
    mounts = mountinfo.visible(mountinfo.parse_mounts(system.mountinfo()))
    started = time.time() - boottime / 1e9
    return [
        decode(record, mounts, system, started)
        if readable(record)
        else {**dict.fromkeys(KEYS), "verdict": UNREADABLE, "size": len(record)}
        for record in found
    ]


def readable(record: bytes) -> bool:
    """Whether a record is of this layout, as far as that shows."""
    if len(record) != layout.EVENT.size:
        return False
    event = layout.EVENT.unpack(record)
    return (
        event.verdict in VERDICTS
        and event.reason < layout.REASON_SLOTS
        and event.path_size <= len(event.path)
        and event.executable_size <= len(event.executable)
        and event.cgroup_size <= len(event.cgroup)
    )


def text(raw: bytes) -> str:
    """Nothing in it can move a terminal's cursor or forge a line."""
    out = []
    for char in raw.decode("utf-8", "surrogateescape"):
        if "\udc80" <= char <= "\udcff":
            out.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif char == "\\":
            out.append("\\\\")
        elif char.isprintable():
            out.append(char)
        else:
            out.append("".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass")))
    return "".join(out)


def _components(raw: bytes, size: int, most: int = 24) -> tuple[list[bytes], bool]:
    """From the top down. True when upper components may be missing: the kernel side stops once half of the room is
    used, or after ``most`` components."""
    used = raw[: min(size, len(raw))]
    parts = [part for part in used.split(b"\0") if part]
    return parts[::-1], len(used) >= len(raw) // 2 or len(parts) >= most


def _path(raw: bytes, size: int, device: int, mounts: Sequence[mountinfo.Mount]) -> str:
    parts, cut = _components(raw, size)
    names = tuple(part.decode("utf-8", "surrogateescape") for part in parts)
    tail = "/".join(text(part) for part in parts)
    if cut:
        return "[...]/" + tail
    best = [
        mount
        for mount in mounts
        if mount.device == device and mount.root is not None and names[: len(mount.root)] == mount.root
    ]
    if not best:
        return f"[device {device >> 20}:{device & 0xFFFFF}]/{tail}"
    mount = min(best, key=lambda each: (len(each.root or ()), len(each.point), each.point))
    whole = mount.point + names[len(mount.root or ()) :]
    return "/" + "/".join(text(name.encode("utf-8", "surrogateescape")) for name in whole)


def instant(seconds: float) -> str:
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.isoformat(timespec="milliseconds")


def decode(record: bytes, mounts: Sequence[mountinfo.Mount], system: Any, started: float = 0.0) -> dict[str, Any]:
    """``started``: when the host was, in seconds since 1970. Without an object there is neither path nor address."""
    raw = layout.EVENT.unpack(record)
    cgroup, _ = _components(raw.cgroup, raw.cgroup_size, 16)
    unit = next((part for part in reversed(cgroup) if part.endswith((b".service", b".scope", b".socket"))), b"")
    event: dict[str, Any] = {
        "sequence": raw.sequence,
        "time": instant(started + raw.time / 1e9),
        "generation": raw.generation,
        "verdict": VERDICTS.get(raw.verdict, str(raw.verdict)),
        "action": actions.NAMES.get(raw.action, str(raw.action)),
        "reason": layout.REASONS[raw.reason] if raw.reason < len(layout.REASONS) else str(raw.reason),
        "rule": text(raw.rule.split(b"\0")[0]) or None,
        "pid": raw.pid,
        "tid": raw.tid,
        "command": text(raw.comm.split(b"\0")[0]),
        "uid": raw.uid,
        "euid": raw.euid,
        "gid": raw.gid,
        "user": user_name(system, raw.uid),
        "login_uid": None if raw.login_uid == NO_ID else raw.login_uid,
        "executable": _path(raw.executable, raw.executable_size, raw.executable_device, mounts)
        if raw.executable_size
        else None,
        "cgroup": "/" + "/".join(text(part) for part in cgroup),
        "unit": text(unit) or None,
        "process_started": raw.start_time,
        "cgroup_id": raw.cgroup_id,
    }
    if raw.family:
        event.update(address=_address(raw.family, raw.address), port=raw.port, protocol=protocol_name(raw.protocol))
    elif raw.device == layout.ABSTRACT:
        event.update(path="@" + text(raw.path[: raw.path_size].rstrip(b"\0")))
    elif raw.path_size or raw.device:
        event.update(
            path=_path(raw.path, raw.path_size, raw.device, mounts),
            inode=raw.inode,
            device=f"{raw.device >> 20}:{raw.device & 0xFFFFF}",
        )
    return event


def _address(family: int, raw: bytes) -> str | None:
    """None: it is of a family whose addresses are not told."""
    if family == _VSOCK:
        return "vsock:{0}".format(int.from_bytes(raw[:4], "big"))
    return str(ipaddress.ip_address(raw[:4] if family == _IPV4 else raw)) if family in (_IPV4, _IPV6) else None


def protocol_name(number: int) -> str:
    return _PROTOCOLS.get(number, str(number))


def user_name(system: Any, number: int) -> str | None:
    name = system.user_name(number)
    return text(os.fsencode(name)) if name is not None else None


def object_of(event: dict[str, Any]) -> str:
    """What it was about, for people; empty: an action without an object."""
    if event.get("address"):
        form = (
            "{0} port {1}"
            if event["address"].startswith("vsock:")
            else "[{0}]:{1}/{2}"
            if ":" in event["address"]
            else "{0}:{1}/{2}"
        )
        return form.format(event["address"], event["port"], event["protocol"])
    return event.get("path") or ""


def to_line(event: dict[str, Any]) -> str:
    """One line for people."""
    if event["verdict"] == UNREADABLE:
        return "a record of {0} bytes is not of layout {1} and was not read".format(event["size"], layout.LAYOUT)
    who = event.get("user") or "uid {0}".format(event["uid"])
    by = "rule {0!r}".format(event["rule"]) if event.get("rule") else "reason {0}".format(event["reason"])
    if event.get("rule") and event["reason"] != "rule":
        by += " ({0})".format(event["reason"])
    what = " ".join(part for part in (event["action"], object_of(event)) if part)
    return (
        "{time} {verdict:<6} {what} by {who} ({executable}, pid {pid}{unit}): {by}, generation {generation}"
    ).format(
        what=what,
        who=who,
        by=by,
        unit=", " + event["unit"] if event.get("unit") else "",
        **{key: event[key] for key in ("time", "verdict", "pid", "generation")},
        executable=event.get("executable") or event["command"],
    )


def to_json_line(event: dict[str, Any]) -> str:
    return json.dumps(event, sort_keys=True, ensure_ascii=True)
