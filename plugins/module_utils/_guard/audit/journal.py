# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes audit records to the system's journal by its native protocol, and reads them with journalctl."""

from __future__ import annotations

import collections
import errno
import json
import os
import socket
import struct
import subprocess
from typing import Iterable, Iterator, Sequence

from ..errors import EnforcerError
from . import record
from .record import Record

SOCKET = "/run/systemd/journal/socket"
UNIT = "exfil-guard-audit.service"
_TIMEOUT = struct.pack("@ll", 1, 0)  # struct timeval: a second
# Entries of the unit only: any process can write an entry, but only journald sets these two fields.
_OURS = ("_SYSTEMD_UNIT=" + UNIT, "_UID=0")


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encodes one entry. The length of a value with a newline is sent, so that it cannot forge a field."""
    parts = []
    for name, value in fields:
        raw = value.encode("utf-8", "surrogateescape")
        if b"\n" in raw:
            parts.append(name.encode("ascii") + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode("ascii") + b"=" + raw + b"\n")
    return b"".join(parts)


class Journal:
    """The journal's socket. An entry has at most 20 KB, so it fits into a datagram."""

    def __init__(self, path: str = SOCKET) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT)

    def deliver(self, records: collections.deque[Record]) -> None:
        """Removes from ``records`` those that were delivered. Raises OSError when the rest was not."""
        while records:
            try:
                self._socket.sendto(encode(record.to_fields(records[0])), self.path)
            except BlockingIOError:
                raise OSError(errno.EAGAIN, "the journal does not accept entries", self.path) from None
            records.popleft()


class File:
    """A file of JSON lines, opened each time so that it can be rotated. A line is written whole or not at all."""

    def __init__(self, path: str) -> None:
        self.path = path

    def deliver(self, records: collections.deque[Record]) -> None:
        """Removes from ``records`` those that were written. Raises OSError when the rest was not."""
        if not records:
            return
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while records:
                before = os.fstat(fd).st_size
                text = json.dumps(records[0].to_json(), ensure_ascii=True, separators=(",", ":"))
                line = text.encode("ascii") + b"\n"
                if os.write(fd, line) != len(line):
                    os.ftruncate(fd, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
                records.popleft()
        finally:
            os.close(fd)


# ---- reading ------------------------------------------------------------------------------------------------------


def matches(kind: str | None = None, **values: int | str) -> list[str]:
    """Returns journalctl's arguments for the unit's entries with these values. ``values``: keys of a record."""
    arguments = [*_OURS] + (["MESSAGE_ID=" + record.MESSAGE_IDS[kind]] if kind else [])
    return arguments + [f"EXFIL_GUARD_{key.upper()}={value}" for key, value in values.items()]


def read(arguments: Sequence[str], limit: int) -> list[Record]:
    """Returns the newest records, newest first."""
    return list(_records(["--reverse", f"--lines={limit}", *arguments]))


def follow(arguments: Sequence[str], before: int) -> Iterator[Record]:
    """Yields new records without end. ``before``: how many earlier ones come first."""
    return _records(["--follow", f"--lines={before}", *arguments])


def _records(arguments: Sequence[str]) -> Iterator[Record]:
    command = ["journalctl", "--no-pager", "--quiet", "--all", "--output=json", *arguments]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise EnforcerError(
            f"journalctl cannot be run: {error.strerror}", "exfil.guard writes its audit trail to systemd's journal"
        ) from error
    ended = False
    try:
        for line in process.stdout or ():
            entry = _record(line)
            if entry is not None:
                yield entry
        ended = True
    finally:
        if not ended:
            process.terminate()
        errors = process.communicate()[1].decode("utf-8", "replace").strip().splitlines()
    if process.returncode:
        reason = errors[-1] if errors else "it printed no error"
        raise EnforcerError(
            f"journalctl ended with status {process.returncode}: {reason}", "Check systemctl status systemd-journald"
        )


def _record(line: bytes) -> Record | None:
    try:
        fields = json.loads(line.decode("utf-8"))
    except ValueError:
        return None
    entry = record.from_fields(fields) if isinstance(fields, dict) else None
    return record.harmless(entry) if entry is not None else None
