# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program's instructions as they are submitted to the kernel, apart from what is another number each time: which
descriptor a map has, and where this boot has put a symbol. And what the kernel says of them: its tag. No I/O."""

from __future__ import annotations

import hashlib
import struct
from typing import Iterable, NamedTuple

from .types import Relocated, hook_of

SYMBOL = "rename_lock"  # the one kernel address in our programs: see bpf/object/path.h
SIZE = 8  # bytes of a struct bpf_insn
_WIDE = 0x18  # BPF_LD | BPF_IMM | BPF_DW: two instructions, with half of the constant each
_FROM_MAP, _FROM_VALUE = 1, 2  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE


class Submitted(NamedTuple):
    """``code``: 8 bytes each, with 0 for the numbers that stand for maps and symbols. ``maps``: place of a load, in
    instructions -> the map's name. ``symbols``: the same of a kernel address."""

    name: str
    hook: str
    code: bytes
    maps: dict[int, str]
    symbols: dict[int, str]

    @property
    def key(self) -> str:
        """What the program is known as on a host: see kernel.hook_of."""
        return hook_of(self.name)

    def digest(self) -> str:
        """SHA-256, in hex, of all that the proofs are about: the instructions, which map and which symbol each loads,
        and the hook. The same at each boot."""
        lines = [f"hook {self.hook}\n"]
        for kind, loads in (("map", self.maps), ("symbol", self.symbols)):
            lines.extend(f"{kind} {place} {loads[place]}\n" for place in sorted(loads))
        return hashlib.sha256("".join(lines).encode("ascii") + self.code).hexdigest()

    def at(self, address: int) -> bytes:
        """The instructions on a boot that has SYMBOL at ``address``; 0: the kernel does not tell."""
        code = bytearray(self.code)
        for place in self.symbols:
            _set(code, place, address)
        return bytes(code)


def submitted(relocated: Relocated, symbols: Iterable[int]) -> Submitted:
    """``symbols``: the places where SYMBOL's address is loaded."""
    code = bytearray(relocated.code)
    maps: dict[int, str] = {}
    for place in _map_loads(code):
        maps[place] = relocated.maps[struct.unpack_from("<I", code, place * SIZE + 4)[0]]
        struct.pack_into("<I", code, place * SIZE + 4, 0)  # the other half is an offset in the map's value
    places = dict.fromkeys(symbols, SYMBOL)
    for place in places:
        _set(code, place, 0)
    return Submitted(relocated.name, relocated.hook, bytes(code), maps, places)


def tags(code: bytes) -> tuple[str, str]:
    """The first 8 bytes, in hex, of the kernel's own digest: SHA-1 and, since Linux 6.18, SHA-256. It is over the
    instructions as submitted, without what stands for maps."""
    bare = bytearray(code)
    for place in _map_loads(bare):
        _set(bare, place, 0)
    return hashlib.sha1(bytes(bare)).hexdigest()[:16], hashlib.sha256(bytes(bare)).hexdigest()[:16]


def _map_loads(code: bytearray) -> list[int]:
    return [
        at // SIZE
        for at in range(0, len(code), SIZE)
        if code[at] == _WIDE and code[at + 1] >> 4 in (_FROM_MAP, _FROM_VALUE)
    ]


def _set(code: bytearray, place: int, value: int) -> None:
    struct.pack_into("<I", code, place * SIZE + 4, value & 0xFFFFFFFF)
    struct.pack_into("<I", code, place * SIZE + 12, value >> 32)
