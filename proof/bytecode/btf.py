# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a kernel's BTF how many arguments its hooks have. An earlier LSM's result follows the arguments."""

from __future__ import annotations

import struct
from pathlib import Path

_FUNCTION, _PROTOTYPE = 12, 13
# bytes that follow struct btf_type, by kind: once, and for each member
_ONCE = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def hooks(path: Path) -> dict[str, int | None]:
    """The number of arguments of bpf_lsm_NAME by the hook's name; None: the hook has no result."""
    data = path.read_bytes()
    header, types, length, strings = struct.unpack_from("<4xIIII", data)
    at, end, names = header + types, header + types + length, header + strings
    functions: list[tuple[int, int]] = []
    prototypes: dict[int, tuple[int, int]] = {}
    number = 1
    while at < end:
        name, info, size = struct.unpack_from("<III", data, at)
        kind, members = info >> 24 & 31, info & 0xFFFF
        if kind == _FUNCTION:
            functions.append((name, size))
        elif kind == _PROTOTYPE:
            prototypes[number] = size, members
        at += 12 + _ONCE.get(kind, 0) + _EACH.get(kind, 0) * members
        number += 1
    made: dict[str, int | None] = {}
    for name, prototype in functions:
        start = names + name
        if data.startswith(b"bpf_lsm_", start):
            result, members = prototypes[prototype]
            made[data[start + 8 : data.index(b"\0", start)].decode("ascii")] = members if result else None
    return made
