# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drops capabilities."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Iterable

from ..policy import actions

_VERSION = 0x20080522  # of capset(2): two words for each set


def keep(names: Iterable[str]) -> None:
    """Drops every other capability, for good. ``names``: as in policies (``cap-sys-ptrace``). Raises OSError."""
    kept = sum(1 << actions.CAPABILITIES.index(name) for name in names) & _permitted()
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))  # inheritable: none
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "capset")


def _permitted() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0
