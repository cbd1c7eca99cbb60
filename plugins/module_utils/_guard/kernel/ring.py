# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the kernel's ring buffer through mmap.

Reading a record does not consume it. Advancing the consumer position makes room for new records."""

from __future__ import annotations

import ctypes
import mmap
import struct
from typing import Iterator, NamedTuple

_BUSY, _DISCARD = 1 << 31, 1 << 30  # flags in the length of a record
_HEADER = 8  # length, page offset


def records(data: bytes | memoryview, size: int, consumer: int, producer: int) -> Iterator[tuple[bytes | None, int]]:
    """The finished records (None: discarded), each with the position after it.

    ``data``: the ring, mapped twice in a row, so that a record that wraps around is contiguous."""
    while consumer < producer:
        offset = consumer & (size - 1)
        length = struct.unpack_from("=I", data, offset)[0]
        if length & _BUSY:
            return
        discarded, length = bool(length & _DISCARD), length & ~(_BUSY | _DISCARD)
        consumer += (length + _HEADER + 7) & ~7
        yield None if discarded else bytes(data[offset + _HEADER : offset + _HEADER + length]), consumer


class Batch(NamedTuple):
    """Records and their positions: bytes since the ring was created."""

    records: list[bytes]
    start: int
    end: int


class Ring:
    """A mapped ring buffer. ``take``: it may consume records, for which ``fd`` must be writable."""

    def __init__(self, fd: int, size: int, take: bool) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self._consumer = mmap.mmap(
            fd, page, mmap.MAP_SHARED, mmap.PROT_READ | (mmap.PROT_WRITE if take else 0), offset=0
        )
        try:
            self._producer = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except (OSError, ValueError):
            self._consumer.close()
            raise

    def close(self) -> None:
        """Unmaps the ring."""
        self._consumer.close()
        self._producer.close()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def positions(self) -> tuple[int, int]:
        """The positions of the consumer and of the producer."""
        return struct.unpack_from("=Q", self._consumer, 0)[0], struct.unpack_from("=Q", self._producer, 0)[0]

    def peek(self, limit: int | None = None) -> Batch:
        """The records that were not consumed, oldest first, at most ``limit``."""
        consumer, producer = start, _unused = self.positions()
        result: list[bytes] = []
        with memoryview(self._producer) as mapped, mapped[mmap.PAGESIZE :] as data:
            for record, after in records(data, self.size, consumer, producer):
                consumer = after
                if record is not None:
                    result.append(record)
                if limit is not None and len(result) >= limit:
                    break
        return Batch(result, start, consumer)

    def advance(self, position: int) -> None:
        """Consumes the records before the position."""
        stored = ctypes.c_uint64.from_buffer(self._consumer)
        stored.value = position  # a single store
        del stored
