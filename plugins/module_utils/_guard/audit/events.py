# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads events from the pinned ring buffer and decodes them. Taking events makes room for new ones; without taking,
they stay for the next reader."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, NamedTuple, Protocol, Sequence, Union

from .. import layout
from ..errors import EnforcerError
from ..host import lock, mountinfo
from ..host.protocols import System
from ..kernel import pins
from ..kernel.protocol import Kernel
from ..policy import actions
from ..policy.model import NO_ID

if TYPE_CHECKING:
    from .record import Decision

LOCK = "/run/lock/exfil-guard-events.lock"  # held by the process that takes events
COLLECTOR = "audit"  # the name that the audit unit writes into it
VERDICTS = {0: "allowed", 1: "audit", 2: "denied"}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp", 136: "udplite", 262: "mptcp"}
_IPV4, _IPV6, _VSOCK = 2, 10, 40
UNREADABLE = "unreadable"  # in place of a verdict


class Names(Protocol):
    """Names of users; host.system.System implements it."""

    def user_name(self, number: int) -> str | None:
        """None: no user has this id."""


class Endpoint(NamedTuple):
    """The address of an event. ``address``: None when its family is not decoded."""

    address: str | None
    port: int
    protocol: str

    def text(self) -> str:
        """Returns the endpoint for people; "" without an address."""
        if not self.address:
            return ""
        if self.address.startswith("vsock:"):
            return f"{self.address} port {self.port}"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.protocol}"


class File(NamedTuple):
    """The file of an event; only ``path`` for an abstract socket, which begins with @. ``device``: MAJOR:MINOR."""

    path: str
    inode: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Event:
    """A decoded event. Its texts are printable: see `text`. ``target``: None for an action without an object."""

    sequence: int
    time: str
    generation: int
    verdict: str
    action: str
    reason: str
    rule: str | None
    pid: int
    tid: int
    command: str
    uid: int
    euid: int
    gid: int
    user: str | None
    login_uid: int | None
    executable: str | None
    cgroup: str
    unit: str | None
    process_started: int  # CLOCK_BOOTTIME, ns
    cgroup_id: int
    target: Endpoint | File | None

    def to_json(self) -> dict[str, Any]:
        """Returns the event for JSON. The keys of a file without a value are left out."""
        content = dict(vars(self))
        target = content.pop("target")
        if isinstance(target, Endpoint):
            content.update(target._asdict())
        elif target is not None:
            content.update((key, value) for key, value in target._asdict().items() if value is not None)
        return content


KEYS = tuple(name for name in Event.__dataclass_fields__ if name != "target")  # of every event


class Unreadable(NamedTuple):
    """An event of another layout."""

    size: int  # bytes

    def to_json(self) -> dict[str, Any]:
        """Returns the event for JSON: every key is null but these."""
        return {**dict.fromkeys(KEYS), "verdict": UNREADABLE, "size": self.size}


AnyEvent = Union[Event, Unreadable]


# ---- reading ------------------------------------------------------------------------------------------------------


def read(kernel: Kernel, system: System, *, take: bool = False, limit: int | None = None) -> list[AnyEvent]:
    """Returns the events in the buffer, oldest first. ``take``: removes them. Raises EnforcerError."""
    path = pins.map_path(kernel, "events")
    try:
        if not take:
            raw = _read(kernel, path, False, limit)
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


def _read(kernel: Kernel, path: str, take: bool, limit: int | None) -> list[bytes]:
    with pins.opened(kernel, path) as fd, kernel.ring(fd, take) as buffer:
        batch = buffer.peek(limit)
        if take:
            buffer.advance(batch.end)
        return batch.records


# ---- decoding -----------------------------------------------------------------------------------------------------


def decode_all(raw: Iterable[bytes], system: System, boottime: int) -> list[AnyEvent]:
    """Decodes events; those of another layout are not interpreted. ``boottime``: CLOCK_BOOTTIME now, in ns."""
    records = list(raw)
    if not records:
        return []
    mounts = mountinfo.visible(mountinfo.parse_mounts(system.mountinfo()))
    started = time.time() - boottime / 1e9
    return [
        decode(record, mounts, system, started) if readable(record) else Unreadable(len(record)) for record in records
    ]


def readable(record: bytes) -> bool:
    """Whether an event has this layout, as far as its size and values show."""
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
    """Decodes bytes and escapes all that is not printable, so that it cannot control a terminal or forge a line."""
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
    """Returns the components from the root on, and whether upper ones may be missing: the kernel side stops when half
    of the buffer is used, or after ``most`` components."""
    used = raw[: min(size, len(raw))]
    parts = [part for part in used.split(b"\0") if part]
    return parts[::-1], len(used) >= len(raw) // 2 or len(parts) >= most


def _path(raw: bytes, size: int, device: int, mounts: Sequence[mountinfo.Mount]) -> str:
    parts, cut = _components(raw, size)
    names = tuple(part.decode("utf-8", "surrogateescape") for part in parts)
    tail = "/".join(text(part) for part in parts)
    if cut:
        return "[...]/" + tail
    candidates = [
        mount
        for mount in mounts
        if mount.device == device and mount.root is not None and names[: len(mount.root)] == mount.root
    ]
    if not candidates:
        return f"[device {device >> 20}:{device & 0xFFFFF}]/{tail}"
    mount = min(candidates, key=lambda mount: (len(mount.root or ()), len(mount.point), mount.point))
    whole = mount.point + names[len(mount.root or ()) :]
    return "/" + "/".join(text(name.encode("utf-8", "surrogateescape")) for name in whole)


def instant(seconds: float) -> str:
    """Formats seconds since 1970 as ISO 8601 with milliseconds, UTC."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.isoformat(timespec="milliseconds")


def decode(record: bytes, mounts: Sequence[mountinfo.Mount], names: Names, started: float = 0.0) -> Event:
    """``started``: when the host was booted, in seconds since 1970."""
    raw = layout.EVENT.unpack(record)
    cgroup, _unused = _components(raw.cgroup, raw.cgroup_size, 16)
    unit = next((part for part in reversed(cgroup) if part.endswith((b".service", b".scope", b".socket"))), b"")
    executable = None
    if raw.executable_size:
        executable = _path(raw.executable, raw.executable_size, raw.executable_device, mounts)
    return Event(
        sequence=raw.sequence,
        time=instant(started + raw.time / 1e9),
        generation=raw.generation,
        verdict=VERDICTS.get(raw.verdict, str(raw.verdict)),
        action=actions.NAMES.get(raw.action, str(raw.action)),
        reason=layout.REASONS[raw.reason] if raw.reason < len(layout.REASONS) else str(raw.reason),
        rule=text(raw.rule.split(b"\0")[0]) or None,
        pid=raw.pid,
        tid=raw.tid,
        command=text(raw.comm.split(b"\0")[0]),
        uid=raw.uid,
        euid=raw.euid,
        gid=raw.gid,
        user=user_name(names, raw.uid),
        login_uid=None if raw.login_uid == NO_ID else raw.login_uid,
        executable=executable,
        cgroup="/" + "/".join(text(part) for part in cgroup),
        unit=text(unit) or None,
        process_started=raw.start_time,
        cgroup_id=raw.cgroup_id,
        target=_target(raw, mounts),
    )


def _target(raw: layout.Event, mounts: Sequence[mountinfo.Mount]) -> Endpoint | File | None:
    if raw.family:
        return Endpoint(_address(raw.family, raw.address), raw.port, protocol_name(raw.protocol))
    if raw.device == layout.ABSTRACT:
        return File("@" + text(raw.path[: raw.path_size].rstrip(b"\0")))
    if raw.path_size or raw.device:
        path = _path(raw.path, raw.path_size, raw.device, mounts)
        return File(path, raw.inode, f"{raw.device >> 20}:{raw.device & 0xFFFFF}")
    return None


def _address(family: int, raw: bytes) -> str | None:
    """None: addresses of this family are not decoded."""
    if family == _VSOCK:
        return f"vsock:{int.from_bytes(raw[:4], 'big')}"
    return str(ipaddress.ip_address(raw[:4] if family == _IPV4 else raw)) if family in (_IPV4, _IPV6) else None


def protocol_name(number: int) -> str:
    """Returns the name of an IP protocol, or its number as text."""
    return _PROTOCOLS.get(number, str(number))


def user_name(names: Names, number: int) -> str | None:
    """Returns the name of a user, printable; None when the id has none."""
    name = names.user_name(number)
    return text(os.fsencode(name)) if name is not None else None


# ---- for people and programs --------------------------------------------------------------------------------------


def object_text(event: Event) -> str:
    """Returns the object for people; "" for an action without one."""
    if isinstance(event.target, Endpoint):
        return event.target.text()
    return event.target.path if event.target else ""


def to_line(event: AnyEvent) -> str:
    """Returns one line for people."""
    if isinstance(event, Unreadable):
        return f"an event of {event.size} bytes is not of layout {layout.LAYOUT} and was not read"
    return line(event, object_text(event))


def line(event: Event | Decision, target: str) -> str:
    """Returns one line for people. ``target``: the object as text."""
    user = event.user or f"uid {event.uid}"
    decided_by = f"rule {event.rule!r}" if event.rule else f"reason {event.reason}"
    if event.rule and event.reason != "rule":
        decided_by += f" ({event.reason})"
    what = f"{event.action} {target}" if target else event.action
    unit = f", {event.unit}" if event.unit else ""
    process = f"{event.executable or event.command}, pid {event.pid}{unit}"
    return f"{event.time} {event.verdict:<6} {what} by {user} ({process}): {decided_by}, generation {event.generation}"


def to_json_line(event: AnyEvent) -> str:
    """Returns one line of JSON."""
    return json.dumps(event.to_json(), sort_keys=True, ensure_ascii=True)
