# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instructions of a program as submitted to the kernel, and the tag that the kernel computes from them.

The numbers that differ each time are left out: the descriptors of maps and the addresses of symbols. No I/O."""

from __future__ import annotations

import hashlib
import struct
from typing import Iterable, NamedTuple

from .types import Relocated, hook_of

SYMBOL = "rename_lock"  # the only kernel address in the programs: see bpf/object/path.h
SIZE = 8  # bytes of a struct bpf_insn
_WIDE = 0x18  # BPF_LD | BPF_IMM | BPF_DW: two instructions, each with half of the constant
_FROM_MAP, _FROM_VALUE = 1, 2  # BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE


class Submitted(NamedTuple):
    """A program without the numbers that differ each time.

    ``code``: 8 bytes for each instruction; the descriptors of maps and the addresses of symbols are 0. ``maps`` and
    ``symbols``: the index of the instruction that loads one -> its name."""

    name: str
    hook: str
    code: bytes
    maps: dict[int, str]
    symbols: dict[int, str]

    @property
    def key(self) -> str:
        """The name under which the program is loaded: see types.hook_of."""
        return hook_of(self.name)

    def digest(self) -> str:
        """SHA-256, in hex, of what the proofs cover: the hook, the instructions, and the maps and symbols they load.

        It is the same at every boot."""
        lines = [f"hook {self.hook}\n"]
        for kind, loads in (("map", self.maps), ("symbol", self.symbols)):
            lines.extend(f"{kind} {index} {loads[index]}\n" for index in sorted(loads))
        return hashlib.sha256("".join(lines).encode("ascii") + self.code).hexdigest()

    def at(self, address: int) -> bytes:
        """The instructions as loaded when SYMBOL is at ``address``. 0: the kernel hides the address."""
        code = bytearray(self.code)
        for index in self.symbols:
            _set(code, index, address)
        return bytes(code)


def submitted(relocated: Relocated, symbols: Iterable[int]) -> Submitted:
    """Removes the numbers that differ each time. ``symbols``: the instructions that load the address of SYMBOL."""
    code = bytearray(relocated.code)
    maps: dict[int, str] = {}
    for index in _map_loads(code):
        maps[index] = relocated.maps[struct.unpack_from("<I", code, index * SIZE + 4)[0]]
        struct.pack_into("<I", code, index * SIZE + 4, 0)  # the other half is an offset in the map's value
    symbol_loads = dict.fromkeys(symbols, SYMBOL)
    for index in symbol_loads:
        _set(code, index, 0)
    return Submitted(relocated.name, relocated.hook, bytes(code), maps, symbol_loads)


def tags(code: bytes) -> tuple[str, str]:
    """The tag of a program: the first 8 bytes, in hex, of SHA-1 and, since Linux 6.18, of SHA-256.

    The kernel computes it from the submitted instructions without the descriptors of maps."""
    hashed = bytearray(code)
    for index in _map_loads(hashed):
        _set(hashed, index, 0)
    return hashlib.sha1(bytes(hashed)).hexdigest()[:16], hashlib.sha256(bytes(hashed)).hexdigest()[:16]


def _map_loads(code: bytearray) -> list[int]:
    return [
        offset // SIZE
        for offset in range(0, len(code), SIZE)
        if code[offset] == _WIDE and code[offset + 1] >> 4 in (_FROM_MAP, _FROM_VALUE)
    ]


def _set(code: bytearray, index: int, value: int) -> None:
    struct.pack_into("<I", code, index * SIZE + 4, value & 0xFFFFFFFF)
    struct.pack_into("<I", code, index * SIZE + 12, value >> 32)
