# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The system's journal: its native protocol for writing, journalctl for reading."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
from collections import deque
from typing import Any, Iterable, Iterator, Sequence

from ..errors import EnforcerError
from . import record as trail

SOCKET = "/run/systemd/journal/socket"
UNIT = "exfil-guard-audit.service"
_PATIENCE = struct.pack("@ll", 1, 0)  # a second, for a journal that is slow
# only what the unit itself wrote: anybody may write an entry, these two fields only journald
_OURS = ("_SYSTEMD_UNIT=" + UNIT, "_UID=0")


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """One entry. A value with a newline is told with its length, so that none can end an entry or forge a field."""
    parts = []
    for name, value in fields:
        raw = value.encode("utf-8", "surrogateescape")
        if b"\n" in raw:
            parts.append(name.encode("ascii") + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode("ascii") + b"=" + raw + b"\n")
    return b"".join(parts)


class Journal:
    """An entry has at most 20 KB, so it always fits a datagram."""

    def __init__(self, path: str = SOCKET) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)

    def deliver(self, lines: deque[dict[str, Any]]) -> None:
        """Takes from ``lines`` what has arrived. OSError: the rest has not."""
        while lines:
            try:
                self._socket.sendto(encode(trail.to_fields(lines[0])), self.path)
            except BlockingIOError:
                raise OSError(errno.EAGAIN, "the journal takes nothing", self.path) from None
            lines.popleft()


class File:
    """JSON lines. Opened each time, so that it can be moved away; a line is there whole or not at all."""

    def __init__(self, path: str) -> None:
        self.path = path

    def deliver(self, lines: deque[dict[str, Any]]) -> None:
        if not lines:
            return
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while lines:
                before = os.fstat(fd).st_size
                text = json.dumps(lines[0], ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
                if os.write(fd, text) != len(text):
                    os.ftruncate(fd, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
                lines.popleft()
        finally:
            os.close(fd)


# ---- reading ------------------------------------------------------------------------------------------------------


def matches(kind: str | None = None, **values: Any) -> list[str]:
    """For journalctl: entries of the unit that have these values."""
    found = [*_OURS] + (["MESSAGE_ID=" + trail.MESSAGE_IDS[kind]] if kind else [])
    return found + [f"EXFIL_GUARD_{key.upper()}={value}" for key, value in values.items()]


def read(wanted: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The newest records, newest first."""
    return list(_records(["--reverse", f"--lines={limit}", *wanted]))


def follow(wanted: Sequence[str], before: int) -> Iterator[dict[str, Any]]:
    """Without an end, after so many that are there already."""
    return _records(["--follow", f"--lines={before}", *wanted])


def _records(arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    command = ["journalctl", "--no-pager", "--quiet", "--all", "--output=json", *arguments]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise EnforcerError(
            f"journalctl cannot be run: {error.strerror}", "exfil.guard's audit trail is in systemd's journal"
        ) from error
    ended = False
    try:
        for line in process.stdout or ():
            record = _record(line)
            if record is not None:
                yield record
        ended = True
    finally:
        if not ended:
            process.terminate()
        said = process.communicate()[1].decode("utf-8", "replace").strip().splitlines()
    if process.returncode:
        raise EnforcerError(
            "journalctl ended with status {0}: {1}".format(process.returncode, said[-1] if said else "it said nothing"),
            "Look at systemctl status systemd-journald",
        )


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    record = trail.from_fields(fields) if isinstance(fields, dict) else None
    return trail.harmless(record) if record is not None else None
