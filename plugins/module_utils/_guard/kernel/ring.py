# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's ring buffer, by mmap: what waits in it, and how far it has been read. What is looked at stays; to move
the position on is what makes room for new events."""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import Any, Iterator, NamedTuple

_BUSY, _DISCARD = 1 << 31, 1 << 30
_HEADER = 8  # length, page offset


def records(data: Any, size: int, consumer: int, producer: int) -> Iterator[tuple[bytes | None, int]]:
    """Each finished record (None: discarded) with the position after it. ``data`` shows the ring twice in a row."""
    while consumer < producer:
        at = consumer & (size - 1)
        length = struct.unpack_from("=I", data, at)[0]
        if length & _BUSY:
            return
        discarded, length = bool(length & _DISCARD), length & ~(_BUSY | _DISCARD)
        consumer += (length + _HEADER + 7) & ~7
        yield None if discarded else bytes(data[at + _HEADER : at + _HEADER + length]), consumer


class Batch(NamedTuple):
    records: list[bytes]
    start: int  # positions in the ring, counted since it was made
    end: int


class Ring:
    """``take``: the position may be moved. Without, the kernel's descriptor may be one for reading."""

    def __init__(self, fd: int, size: int, take: bool) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self._mine = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | (mmap.PROT_WRITE if take else 0), offset=0)
        try:
            self._theirs = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except (OSError, ValueError):
            self._mine.close()
            raise

    def close(self) -> None:
        self._mine.close()
        self._theirs.close()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_unused: Any) -> None:
        self.close()

    def positions(self) -> tuple[int, int]:
        """How far it was read, and how far it was written."""
        return struct.unpack_from("=Q", self._mine, 0)[0], struct.unpack_from("=Q", self._theirs, 0)[0]

    def peek(self, limit: int | None = None) -> Batch:
        """What waits, oldest first, at most ``limit`` records of it."""
        consumer, producer = start, _ = self.positions()
        found: list[bytes] = []
        with memoryview(self._theirs) as whole, whole[mmap.PAGESIZE :] as data:
            for record, after in records(data, self.size, consumer, producer):
                consumer = after
                if record is not None:
                    found.append(record)
                if limit is not None and len(found) >= limit:
                    break
        return Batch(found, start, consumer)

    def advance(self, position: int) -> None:
        """What lies before is read."""
        stored = ctypes.c_uint64.from_buffer(self._mine)
        stored.value = position  # one store
        del stored
