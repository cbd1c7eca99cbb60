# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where our objects are pinned in bpffs, and how they are opened."""

from __future__ import annotations

import struct
from typing import Any

from .. import layout
from .bpf import Kernel

LAYOUT = layout.LAYOUT


FIRST_KEY = struct.pack("=I", 0)


def base(kernel: Kernel) -> str:
    return kernel.path("exfil_guard", f"v{LAYOUT}")


def map_path(kernel: Kernel, name: str) -> str:
    return f"{base(kernel)}/maps/{name}"


class Opened:
    """A descriptor that is closed at the end of a block."""

    def __init__(self, kernel: Kernel, fd: int) -> None:
        self.kernel, self.fd = kernel, fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_unused: Any) -> None:
        self.kernel.close(self.fd)


def opened(kernel: Kernel, path: str, readonly: bool = False) -> Opened:
    return Opened(kernel, kernel.get(path, readonly))


def opened_map(kernel: Kernel, name: str, readonly: bool = False) -> Opened:
    return opened(kernel, map_path(kernel, name), readonly)


def versions(kernel: Kernel) -> list[str]:
    """The objects whose programs are pinned, by the first digits of their digest; more than one during an upgrade."""
    return [name[len("programs-") :] for name in kernel.names(base(kernel)) if name.startswith("programs-")]


def program_path(kernel: Kernel, version: str, hook: str) -> str:
    return f"{base(kernel)}/programs-{version}/{hook}"


def links_path(kernel: Kernel, version: str) -> str:
    return f"{base(kernel)}/links-{version}"


def available_hooks(kernel: Kernel, version: str) -> frozenset[str]:
    return frozenset(kernel.names(f"{base(kernel)}/programs-{version}"))
