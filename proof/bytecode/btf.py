# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many arguments a kernel's hooks have, by its BTF: what an LSM before ours gave follows them."""

from __future__ import annotations

import struct
from pathlib import Path

_FUNCTION, _PROTOTYPE = 12, 13
# bytes that follow struct btf_type: by kind, or for each member
_ONCE = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def hooks(path: Path) -> dict[str, int | None]:
    """By the hook's name: how many arguments bpf_lsm_NAME has; None: it gives nothing."""
    data = path.read_bytes()
    header, types, length, strings = struct.unpack_from("<4xIIII", data)
    at, end, names = header + types, header + types + length, header + strings
    found: list[tuple[int, int]] = []
    prototypes: dict[int, tuple[int, int]] = {}
    number = 1
    while at < end:
        name, info, size = struct.unpack_from("<III", data, at)
        kind, members = info >> 24 & 31, info & 0xFFFF
        if kind == _FUNCTION:
            found.append((name, size))
        elif kind == _PROTOTYPE:
            prototypes[number] = size, members
        at += 12 + _ONCE.get(kind, 0) + _EACH.get(kind, 0) * members
        number += 1
    made: dict[str, int | None] = {}
    for name, prototype in found:
        start = names + name
        if data.startswith(b"bpf_lsm_", start):
            gives, members = prototypes[prototype]
            made[data[start + 8 : data.index(b"\0", start)].decode("ascii")] = members if gives else None
    return made
